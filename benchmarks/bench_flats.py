"""Time and memory of ``badpix flats`` against the documented algorithm in plain astropy, as whole processes.

    python benchmarks/bench_flats.py [FILES] [ROUNDS]

Simulates flats of a full NIRCam detector (kept in the system's temporary folder), links them up to FILES slope
images, and runs the programs in turn; prints CPU seconds, wall seconds, peak memory, and the ratios of the medians.
The plain program writes no evidence, so that only the last row does.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLAIN = HERE.parent / "tests" / "helpers" / "plain_flats.py"
BADPIX = str(Path(sys.executable).parent / "badpix")


def measure(command: list[str]) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak memory (MB) of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, peak_of(process.pid))
        time.sleep(0.01)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed: {process.stderr.read().decode()[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, peak / 1000


def peak_of(pid: int) -> int:
    """Peak resident memory of a running process, kB; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def main(n_files: int = 20, rounds: int = 3) -> None:
    """Simulate, link, run, print."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
    with tempfile.TemporaryDirectory(prefix="bench-flats-") as folder:
        work = Path(folder)
        os.environ["BADPIX_CACHE"] = str(work / "cache")  # only the first round hashes
        command = [BADPIX, "simulate", str(work / "sim"), "--detector", "NRCB1", "--flats", "5", "--darks", "0"]
        subprocess.run(command, check=True, capture_output=True)
        made = sorted((work / "sim").rglob("*_rate.fits"))
        for k in range(n_files):
            os.link(made[k % len(made)], work / f"flat{k:03d}_rate.fits")
        files = [str(p) for p in sorted(work.glob("flat*_rate.fits"))]
        mask = str(work / "mask.fits")
        ours = [BADPIX, "flats", *files, "-q", "--overwrite", "-o", mask]
        runs = {
            "plain astropy, documented": [sys.executable, str(PLAIN), str(work / "plain.npz"), *files],
            "badpix flats --set documented": [*ours, "--set", "documented", "--no-evidence"],
            "badpix flats --no-evidence": [*ours, "--no-evidence"],
            "badpix flats (default)": ours,
        }
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                found[name].append(measure(run))
    plain = [statistics.median(v) for v in zip(*found["plain astropy, documented"], strict=True)]
    print(f"{n_files} slope images of 2048 x 2048, medians of {rounds} rounds")
    print(f"{'':32s} {'CPU s':>7s} {'wall s':>7s} {'MB':>6s}   CPU ratio")
    for name, values in found.items():
        cpu, wall, peak = (statistics.median(v) for v in zip(*values, strict=True))
        print(f"{name:32s} {cpu:7.2f} {wall:7.2f} {peak:6.0f}   {plain[0] / cpu:.1f}")


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
