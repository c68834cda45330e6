"""Whole processes of ``outlier image`` against the pipeline's own step, on the same files.

    python benchmarks/bench_image.py WORKDIR [--case 8x2048] [--rounds 3] [--exposures 4 8 16] [--no-peer]

Simulates the association once (in WORKDIR), then runs: the pipeline's step (offline), ``outlier image --set
documented``, the default search, the default with ``--max-memory 400M``, and the documented set with two workers.
Prints wall clock, CPU seconds and peak memory (VmHWM) of each process, the least of some rounds, and the pixels whose
DQ differs from the pipeline's. Bytecode is kept in build/ (the first round compiles it).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits

from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup

CASES = {
    "4x1024": Setup(seed=701, groups=4, shape=(1024, 1024), program="07001"),
    "8x2048": Setup(seed=702, groups=8, shape=(2048, 2048), stars=700.0, program="07002"),
}

SEARCHES = {
    "--set documented": ["--set", "documented"],
    "--set documented --workers 2": ["--set", "documented", "--workers", "2"],
    "default": [],
    "default --max-memory 400M": ["--max-memory", "400M"],
    "default --workers 2": ["--workers", "2"],
}

PEER = """
import sys
from jwst.datamodels import ModelLibrary
from jwst.outlier_detection import OutlierDetectionStep
step = OutlierDetectionStep()
step.save_results, step.output_dir, step.suffix, step.search_output_file = True, sys.argv[2], "crf", False
step.run(ModelLibrary(sys.argv[1], on_disk=False))
"""

MEASURE = """
import atexit, os, sys
def tell():
    peak = open("/proc/self/status").read().split("VmHWM:")[1].split()[0]
    cpu = sum(os.times()[:4])
    open(os.environ["BENCH_OUT"], "w").write(f"{peak} {cpu}")
atexit.register(tell)
"""


def run(label: str, code: str, arguments: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall clock and CPU seconds and peak memory (MB) of Python code in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "bench.txt"
    env = dict(os.environ, BENCH_OUT=str(note), CRDS_SERVER_URL="", OMP_NUM_THREADS="2")
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages are compiled, both of them
    env["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / "build" / "bytecode")
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", MEASURE + code, *arguments], env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{label} failed:\n{done.stderr[-3000:]}")
    peak, cpu = note.read_text().split()
    return seconds, float(cpu), int(peak) / 1024


def tell(label: str, rounds: list[tuple[float, float, float]]) -> None:
    """Print the least of some rounds."""
    wall, cpu, peak = (min(values) for values in zip(*rounds, strict=True))
    print(f"{label:34s} {wall:7.2f} s wall {cpu:7.2f} s CPU {peak:7.0f} MB peak", flush=True)


def compare(ours: Path, theirs: Path) -> None:
    """Print the number of pixels whose DQ differs."""
    different = total = 0
    for path in sorted(theirs.glob("*_crf.fits")):
        with fits.open(path) as a, fits.open(ours / path.name) as b:
            different += int(np.count_nonzero(a["DQ"].data != b["DQ"].data))
            total += a["DQ"].data.size
    print(f"DQ differs from the pipeline's in {different} of {total} pixels")


def main() -> None:
    """Simulate where needed, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--case", choices=sorted(CASES), default="4x1024")
    parser.add_argument("--exposures", type=int, nargs="*", help="only our memory, for these numbers of 1024x1024")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--rounds", type=int, default=1, help="of all in turn; the least of each counts")
    options = parser.parse_args()
    ours = "from badpix.cli.main import outlier; outlier()"
    for number in options.exposures or ():
        setup = Setup(seed=710, groups=number, shape=(1024, 1024), program=f"071{number:02d}")
        folder = options.workdir / f"n{number}"
        table = next(folder.glob("*_asn.json"), None) or simulate(folder, setup)
        call = ["image", str(table), "--overwrite", "-q", "--output-dir", str(folder / "out")]
        tell(f"default, {number} exposures", [run("default", ours, call, folder / "out")])
    if options.exposures:
        return
    folder = options.workdir / options.case
    table = next(folder.glob("*_asn.json"), None) or simulate(folder, CASES[options.case])
    jobs: dict[str, tuple[str, list[str], Path]] = {}
    if not options.no_peer:
        jobs["pipeline's step"] = (PEER, [str(table), str(folder / "peer")], folder / "peer")
    for label, more in SEARCHES.items():
        out = folder / label.replace(" ", "")
        jobs[label] = (ours, ["image", str(table), "--overwrite", "-q", "--output-dir", str(out), *more], out)
    rounds: dict[str, list[tuple[float, float, float]]] = {label: [] for label in jobs}
    for _ in range(options.rounds):  # in turn, as others may use the machine, too
        for label, job in jobs.items():
            rounds[label].append(run(label, *job))
    for label, values in rounds.items():
        tell(label, values)
    if not options.no_peer:
        compare(folder / "--setdocumented", folder / "peer")


if __name__ == "__main__":
    main()
