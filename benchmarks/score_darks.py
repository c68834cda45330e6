"""Completeness and false positives of `badpix darks` on simulated darks, summed over seeds.

    python benchmarks/score_darks.py WORKDIR 301 302 303 304 --detector NRCALONG --groups 60

For each seed 20 darks of a 512 x 512 detector are simulated (quick reduction) and searched with the first 5, the
first 10 and all 20 of them; the scores of all seeds are added up by `badpix score`. A seed takes about a minute and
2.5 GB.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

BADPIX = [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()"]


def call(*arguments: str) -> None:
    """Run a badpix command; its talk is not shown."""
    subprocess.run([*BADPIX, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """Simulate, search, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("seeds", nargs="+")
    parser.add_argument("--detector", default="NRCALONG")
    parser.add_argument("--groups", default="60")
    parser.add_argument("--size", default="512 512")
    parser.add_argument("--numbers", default="5 10 20", help="Numbers of darks.")
    parser.add_argument("--defects-per-level", default="40")
    args = parser.parse_args()
    numbers = [int(n) for n in args.numbers.split()]
    pairs: dict[int, list[str]] = {n: [] for n in numbers}
    for seed in args.seeds:
        folder = args.workdir / f"{args.detector}_{args.groups}_{seed}"
        call(
            "simulate",
            str(folder),
            "--detector",
            args.detector,
            "--size",
            args.size,
            "--flats",
            "0",
            "--darks",
            str(max(numbers)),
            "--dark-groups",
            args.groups,
            "--seed",
            seed,
            "--overwrite",
            "--defects-per-level",
            args.defects_per_level,
        )
        rates = sorted(str(p) for p in (folder / "darks").glob("*_rateints.fits"))
        truth = str(next(folder.glob("*_truth.fits")))
        for n in numbers:
            mask = str(folder / f"mask_{n}.fits")
            call("darks", *rates[:n], "-o", mask, "--overwrite")
            pairs[n] += [mask, truth]
        shutil.rmtree(folder / "darks")
    for n in numbers:
        print(f"{args.detector}, {n} darks of {args.groups} groups, seeds {' '.join(args.seeds)}", flush=True)
        subprocess.run([*BADPIX, "score", *pairs[n], "--search", "darks"], check=True)


if __name__ == "__main__":
    main()
