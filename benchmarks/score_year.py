"""A year of simulated darks: births and recoveries, and whether masks date them right.

    python benchmarks/score_year.py WORKDIR --seed 4201

Twelve sets, a month apart, of five darks each (256 x 256 pixels, 20 groups): pixels are born, recover, drift and come
and go; one month is warm, one set follows a bright field. Two ways to a date are counted against the truth:

1. One search of the whole year: the first and last bright dark of each pixel, from the evidence.
2. A mask a month, each of its own five darks: the first month from which on a pixel stays HOT, the last month of one
   that was HOT from the beginning.

All changing pixels are above 10 times the scatter of the rate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from badpix import dq
from badpix.mask.file import read_mask
from badpix.simulation.truth_file import read_changes

BADPIX = [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()"]
SETS, DARKS = 12, 5


def call(*words: str) -> str:
    """Run a badpix command; its stdout."""
    return subprocess.run([*BADPIX, *words], check=True, capture_output=True, text=True).stdout


def date_by_months(hot: np.ndarray, kind: str) -> np.ndarray:
    """Set of the birth or of the last hot month of pixels, from masks (sets, pixels); -1 where they say neither."""
    sets = np.arange(len(hot))[:, None]
    if kind == "NEWLY_HOT":
        last_good = np.where(~hot, sets, -1).max(axis=0)
        return np.where(hot[-1] & (last_good >= 0), last_good + 1, -1)
    last = np.where(hot, sets, -1).max(axis=0)
    return np.where(last < len(hot) - 1, last, -1)


def say(name: str, kind: str, counts: list[int]) -> None:
    """One line: pixels, dated, right, to one set."""
    pixels, told, right, near = counts
    head = f"{name:<16} {kind:<12} {pixels:4} pixels, {told:4} dated, {right:4} right, "
    print(f"{head}{near:4} to one set: {100 * near / pixels:.1f} %", flush=True)


def main() -> None:
    """Simulate, search, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--seed", default="4201")
    parser.add_argument("--size", default="256 256")
    parser.add_argument("--groups", default="20")
    args = parser.parse_args()
    folder = args.workdir / f"year_{args.seed}"
    condition = "born,recovered,drift,intermittent,temperature,persistence"
    words = ["--size", args.size, "--dark-groups", args.groups, "--seed", args.seed, "--sets", str(SETS)]
    call(
        "simulate",
        str(folder),
        *words,
        "--flats",
        "0",
        "--darks",
        str(SETS * DARKS),
        "--condition",
        condition,
        "--defects-per-level",
        "15",
        "--overwrite",
    )
    truth = str(next(folder.glob("*_truth.fits")))
    known = read_changes(truth)
    assert known is not None
    changes, darks = known
    mask = str(folder / "year.fits")
    call("darks", str(folder / "darks"), "-o", mask, "--overwrite", "--evidence")
    scored: dict[str, Any] = json.loads(call("score", mask, truth, "--search", "darks", "--json"))
    scored = scored.get("result", scored)
    for row in scored["dates"]:
        say("one search", row["type"], [row[k] for k in ("injected", "told", "right", "near")])
    (any_flag,) = [r for r in scored["flags"] if r["flag"] == "any"]
    print(f"one search       false per million: {any_flag['false_per_million']:.0f}", flush=True)
    rates = sorted((folder / "darks").glob("*_rateints.fits"))
    masks, false = [], []
    flags = fits.getdata(truth, "DQ")
    for month in range(SETS):
        one = str(folder / f"month_{month + 1:02d}.fits")
        mine = [str(rates[k - 1]) for k, s in zip(darks["NUMBER"], darks["DARKSET"], strict=True) if s == month]
        call("darks", *mine, "-o", one, "--overwrite", "--no-evidence")
        image = read_mask(one).image
        masks.append((image & np.uint32(dq.VALUE["HOT"])) != 0)
        false.append(1e6 * np.mean(masks[-1][flags == 0]))
    print("monthly masks    false HOT per million, by month: " + " ".join(f"{f:.0f}" for f in false), flush=True)
    of_set = dict(zip(darks["MJD"], darks["DARKSET"], strict=True))
    for kind, end in (("NEWLY_HOT", "FIRST"), ("RECOVERED", "LAST")):
        mine = changes[changes["TYPE"] == kind]
        found = date_by_months(np.stack(masks)[:, mine["Y"], mine["X"]], kind)
        off, told = np.abs(found - np.array([of_set[mjd] for mjd in mine[end]])), found >= 0
        counts = [len(mine), told.sum(), (told & (off == 0)).sum(), (told & (off <= 1)).sum()]
        say("monthly masks", kind, [int(c) for c in counts])


if __name__ == "__main__":
    main()
