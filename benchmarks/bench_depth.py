"""What the depth costs: CPU and peak memory of ``badpix darks`` without and with ``--depth``, and of ``badpix tune``.

    python benchmarks/bench_depth.py DIR [--size 512] [--runs 2] [--darks FOLDER]

Five simulated NIRCam darks of 40 groups, or those of FOLDER; as many copies as 1/300 of the pixels, as in a full
frame by default.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

COMMAND = [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()"]
TEXTS = "--author A --descrip d --pedigree SIMULATION --useafter 2026-01-01T00:00:00 -q --overwrite --evidence"


def measure(*words: str) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a command."""
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"badpix {' '.join(words[:2])}: status {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def main() -> None:
    """Print one row a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--darks", type=Path, help="folder of darks that are there already, of this size")
    asked = parser.parse_args()
    size = f"{asked.size} {asked.size}"
    words = "--detector NRCB1 --flats 1 --darks 5 --dark-groups 40 --seed 5 --defects-per-level 6 -q --overwrite"
    if asked.darks is None:
        measure("simulate", str(asked.folder), "--size", size, *words.split())
    asked.folder.mkdir(parents=True, exist_ok=True)
    rates = sorted(str(p) for p in (asked.darks or asked.folder / "darks").glob("*_rateints.fits"))
    copies = str(max(asked.size**2 // 300, 100))
    plain, deep = asked.folder / "plain.fits", asked.folder / "deep.fits"
    print("| run | CPU without, s | with, s | more, % | MB without | with |")
    print("|---|---|---|---|---|---|")
    for k in range(asked.runs):
        a, b = (
            measure("darks", *rates, "-o", str(plain), *TEXTS.split()),
            measure("darks", *rates, "-o", str(deep), *TEXTS.split(), "--depth", "--depth-pixels", copies),
        )
        print(f"| {k + 1} | {a[0]:.1f} | {b[0]:.1f} | {100 * (b[0] / a[0] - 1):+.1f} | {a[1]:.0f} | {b[1]:.0f} |")
    same = np.array_equal(fits.getdata(plain, "DQ"), fits.getdata(deep, "DQ"))
    print(f"\nDQ is {'the same' if same else 'NOT the same'}.")
    seconds, _ = measure("tune", str(deep), "--set", "hot_sigma_threshold=6,8,10")
    print(f"badpix tune: {seconds:.1f} s of CPU.")


if __name__ == "__main__":
    main()
