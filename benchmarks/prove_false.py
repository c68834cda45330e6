"""Predicted against true false alarms: ``badpix darks --depth`` on darks without a single defect.

    python benchmarks/prove_false.py DIR [--own plain tails ...] [--detectors NRCB1] [--seeds 1 2] [--size 384]

Darks of ``own_darks.py``, reduced by the real jump step and ramp fit: every flag is false. For each condition and
search the counts of all seeds are added, and those that the run predicts by each of its tests. With ``--low`` the
limits are so low (:data:`LOW`) that hundreds of pixels are flagged: then a factor can be told from chance. Sets stay
in DIR and are used again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from unittest import mock

import own_darks
from astropy.io import fits
from prove_depth import FLAG, run

from badpix import dq
from badpix.io.depths import Alarm
from badpix.mask.depth import per_million
from badpix.review.depth import read_depth

LOW = {
    "rc_sigma_threshold": 3.6,
    "rc_median_threshold": 2.0,
    "noisy_sigma_threshold": 3.2,
    "low_pedestal_sigma_threshold": 3.0,
    "telegraph_likelihood": 1.0,
}
TEXTS = (
    "--evidence --depth --overwrite --author A --descrip d --pedigree SIMULATION -q --useafter 2026-01-01T00:00:00"
)


def make_set(place: Path, detector: str, seed: int, size: int, condition: str) -> list[str]:
    """Five darks without defects."""
    found = sorted(place.glob("*_rateints.fits"))
    if len(found) < 5:
        place.mkdir(parents=True, exist_ok=True)
        draw = own_darks.draw_defects
        with mock.patch.object(own_darks, "draw_defects", lambda levels, *rest: draw({"hot": [1.0]}, *rest)[:0]):
            found, _ = own_darks.make_set(place, detector, {}, seed, size=size, condition=condition)
    return [str(path) for path in found]


def count(rates: list[str], mask: Path, p: Path) -> dict[str, tuple[Alarm, dict[str, Alarm]]]:
    """By search: the false alarms, and what each test predicts."""
    run("darks", *rates, "-o", str(mask), *TEXTS.split(), "-p", str(p))
    image, alarms = fits.getdata(mask, "DQ"), read_depth(mask)[1]
    out = {}
    for search, flag in FLAG.items():
        true = Alarm(search, "true", image.size, int(((image & dq.VALUE[flag]) != 0).sum()))
        out[search] = true, {a.estimate: a for a in alarms if a.search == search}
    return out


def add(parts: list[Alarm]) -> str:
    """``false per million (interval of 68 %), number``."""
    value, low, high = per_million(
        Alarm("", "", sum(a.pixels for a in parts), sum(a.flagged for a in parts)),
    )
    return f"{value:.0f} ({low:.0f}-{high:.0f}), {sum(a.flagged for a in parts)}"


def main() -> None:
    """Print one row a condition and search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--own", nargs="+", default=["plain", "tails", "outputs", "averaged", "storm"])
    parser.add_argument("--detectors", nargs="+", default=["NRCB1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--low", action="store_true")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    p = asked.folder / "limits.yml"
    lines = [f"  {name}: {value}\n" for name, value in LOW.items()] if asked.low else ["  depth: true\n"]
    p.write_text("darks:\n" + "".join(lines))
    print("| detector | condition | search | true per million, number | predicted per million, number |")
    print("|---|---|---|---|---|")
    for detector in asked.detectors:
        for condition in asked.own:
            found = []
            for seed in asked.seeds:
                name = f"noise_{detector}_{condition}_{seed}_{asked.size}"
                rates = make_set(asked.folder / name, detector, seed, asked.size, condition)
                found.append(count(rates, asked.folder / f"{name}.fits", p))
            for search in FLAG:
                true = add([one[search][0] for one in found])
                told = []
                for test in dict.fromkeys(t for one in found for t in one[search][1]):
                    told.append(f"{add([one[search][1][test] for one in found if test in one[search][1]])} {test}")
                print(f"| {detector} | {condition} | {search} | {true} | {'; '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
