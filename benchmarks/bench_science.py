"""Time and memory of ``badpix science`` on full frames, beside the time of reading the same files.

    python benchmarks/bench_science.py DIR [--numbers 12 100] [--size 2048] [--memory 256M] [--runs 1]

Exposures of one detector in three visits are written once. Then, in processes of their own: their SCI, ERR and DQ are
read by astropy, file by file, and turned into native numbers; and the command runs with one worker: a first time,
when it hashes each file for the record, and again, when it remembers the hashes. CPU seconds (the least of the runs,
which take turns) and peak memory of whole processes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from astropy.io import fits

READ = """
import sys
from astropy.io import fits
for name in sys.argv[1:]:
    with fits.open(name, memmap=False) as hdus:
        for part in ("SCI", "ERR", "DQ"):
            data = hdus[part].data
            data = data.astype(data.dtype.newbyteorder("="))
"""
COMMAND = "from badpix.cli.main import badpix; badpix()"
BAD = 0.005  # share of hot pixels
HEADER = {
    "TELESCOP": "JWST",
    "INSTRUME": "NIRCAM",
    "DETECTOR": "NRCB1",
    "SUBARRAY": "FULL",
    "EXP_TYPE": "NRC_IMAGE",
    "SUBSTRT1": 1,
    "SUBSTRT2": 1,
    "FASTAXIS": 1,
    "SLOWAXIS": -2,
    "FILTER": "F200W",
    "PUPIL": "CLEAR",
    "S_RAMP": "COMPLETE",
    "DATE-OBS": "2023-03-01",
}


def write_exposures(folder: Path, number: int, size: int) -> list[str]:
    """Full frames of a flat sky with hot pixels, a few of them NaN; those that are there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 0.03, (size, size)).astype(np.float32)
    hot = 0.3 * (rng.random((size, size)) < BAD)
    known = rng.random((size, size)) < 0.004
    flags = known.astype(np.uint32)
    err = np.full((size, size), 0.03, np.float32)
    out = []
    for k in range(number):
        path = folder / f"jw01234{k % 3:03d}001_02101_{k:05d}_nrcb1_rate.fits"
        out.append(str(path))
        if path.exists():
            continue
        head = fits.Header(
            HEADER | {"SUBSIZE1": size, "SUBSIZE2": size, "VISIT_ID": f"01234{k % 3:03d}001", "EXPSTART": 60000.0 + k}
        )
        sci = (np.roll(noise, (137 * k + 1, 291 * k + 7), (0, 1)) + 0.2 + 0.01 * (k % 3) + hot).astype(np.float32)
        sci[known] = np.nan
        place = fits.Header({"BUNIT": "DN/s", "RA_REF": 50.0 + k / 3600, "DEC_REF": 1.0, "ROLL_REF": 0.0})
        hdus = [fits.PrimaryHDU(header=head), fits.ImageHDU(sci, place, "SCI")]
        hdus += [fits.ImageHDU(err, name="ERR"), fits.ImageHDU(flags, name="DQ")]
        fits.HDUList(hdus).writeto(path)
    return out


def measure(cache: Path, *words: str) -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of a process; where it remembers hashes."""
    environment = os.environ | {"BADPIX_CACHE": str(cache)}
    process = subprocess.Popen([sys.executable, "-c", *words], stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"status {status}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def main() -> None:
    """Print one row a number of exposures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", default=[12, 100])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--memory", default="256M")
    parser.add_argument("--runs", type=int, default=1)
    asked = parser.parse_args()
    out, cache = str(asked.folder / "mask.fits"), asked.folder / "cache"
    print("| exposures | reading, s | first run, s | times | again, s | times | peak memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for number in asked.numbers:
        paths = write_exposures(asked.folder, number, asked.size)
        words = ["--author", "benchmark", "--max-memory", asked.memory, "--workers", "1", "--overwrite", "-q"]
        found = []
        for _ in range(asked.runs):
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir()
            one = [measure(cache, READ, *paths)]
            one += [measure(cache, COMMAND, "science", *paths, "-o", out, *words) for _ in range(2)]
            found.append(one)
        read, first, again = (min(took) for took in zip(*([t for t, _ in one] for one in found), strict=True))
        peak = max(memory for one in found for _, memory in one[1:])
        times = " | ".join(f"{took:.1f} | {took / read:.1f}" for took in (first, again))
        print(f"| {number} | {read:.1f} | {times} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
