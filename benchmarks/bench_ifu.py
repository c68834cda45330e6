"""Speed and memory of `outlier ifu` beside the JWST pipeline's outlier step: whole processes, the same files.

    python benchmarks/bench_ifu.py WORKDIR [--instrument miri nirspec] [--repeat 3]

Simulates 4 exposures of 2 detectors, then runs each command in turn, `repeat` times; the best time counts (warm
cache for all), peak memory is VmHWM of the process.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

TAIL = "import sys; print('VmHWM', open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
OURS = "from badpix.cli.main import outlier; outlier(sys.argv[1:], standalone_mode=False)"
PEER = """
from jwst.outlier_detection import OutlierDetectionStep
step = OutlierDetectionStep()
step.save_results, step.suffix, step.output_dir = True, 'crf', sys.argv[2]
step.run(sys.argv[1])
"""


def run(code: str, words: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MB of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{TAIL}", *words], capture_output=True, text=True, check=True
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, int(done.stderr.rsplit("VmHWM", 1)[1].split()[0]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--instrument", nargs="+", default=["miri", "nirspec"])
    parser.add_argument("--exposures", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--without-peer", action="store_true")
    args = parser.parse_args()
    print(
        "| set | program | seconds | CPU seconds | peak MB | times faster | by CPU |\n|---|---|---|---|---|---|---|"
    )
    for instrument in args.instrument:
        folder, out = args.workdir / instrument, args.workdir / "out"
        words = ["simulate-ifu", str(folder), "--instrument", instrument, "--exposures", str(args.exposures)]
        run(OURS, [*words, "--overwrite", "-q"])
        table = str(next(folder.glob("*_asn.json")))
        programs = {
            "jwst": (PEER, [table, str(out)]),
            "outlier ifu --set documented": (OURS, ["ifu", table, "-o", str(out), "-q", "--set", "documented"]),
            "outlier ifu": (OURS, ["ifu", table, "-o", str(out), "-q"]),
        }
        if args.without_peer:
            del programs["jwst"]
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(args.repeat):
            for name, (code, arguments) in programs.items():
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                seconds, cpu, memory = run(code, arguments)
                old = best.get(name, (float("inf"), float("inf"), 0.0))
                best[name] = (min(seconds, old[0]), min(cpu, old[1]), max(memory, old[2]))
        slow = best.get("jwst", (float("nan"),) * 3)
        for name, (seconds, cpu, memory) in best.items():
            times = f"{slow[0] / seconds:.1f} | {slow[1] / cpu:.1f}"
            print(f"| {instrument} | {name} | {seconds:.2f} | {cpu:.2f} | {memory:.0f} | {times} |", flush=True)
    shutil.rmtree(args.workdir)


if __name__ == "__main__":
    main()
