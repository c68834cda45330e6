"""Predicted against true completeness: ``badpix darks --depth`` on simulated darks with known defects.

    python benchmarks/prove_depth.py DIR [--detectors NRCB1 MIRIMAGE NRS1] [--seeds 301 302] [--darks 5 10] [--size N]

For each set the curve of each search, which knows nothing of the truth, is read at the strengths of the simulated
defects and compared with the share of them that got the right flag. Only isolated defects count. The table gives
predicted and true percent, the number of defects, and the difference in standard errors of that number.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq
from badpix.cli.main import badpix
from badpix.mask.depth import rise
from badpix.review.depth import read_depth

SEARCH = {
    "HOT": "hot",
    "RC": "rc",
    "IRC": "rc",
    "TELEGRAPH": "telegraph",
    "NOISY": "noisy",
    "LOW_PEDESTAL": "low_pedestal",
}
FLAG = {
    "hot": "HOT",
    "rc": "RC",
    "telegraph": "TELEGRAPH",
    "noisy": "UNRELIABLE_SLOPE",
    "low_pedestal": "OTHER_BAD_PIXEL",
}


def run(*words: str) -> None:
    """A command of badpix in this process."""
    done = CliRunner().invoke(badpix, list(words), catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(done.output)


def compare(
    folder: Path, detector: str, seed: int, darks: int, size: int
) -> list[tuple[str, float, float, float, int]]:
    """Rows (search, strength, predicted, true, number) of one simulated set."""
    place = folder / f"{detector.lower()}_{seed}_{darks}"
    run(
        "simulate",
        str(place),
        "--detector",
        detector,
        "--size",
        f"{size} {size}",
        "--darks",
        str(darks),
        "--flats",
        "1",
        "--dark-groups",
        "40",
        "--seed",
        str(seed),
        "--defects-per-level",
        "12",
        "-q",
        "--overwrite",
    )
    mask = place / "mask.fits"
    rates = sorted(str(p) for p in (place / "darks").glob("*_rateints.fits"))
    run(
        "darks",
        *rates,
        "-o",
        str(mask),
        "--evidence",
        "--depth",
        "--overwrite",
        "--author",
        "A",
        "--descrip",
        "d",
        "--pedigree",
        "SIMULATION",
        "--useafter",
        "2026-01-01T00:00:00",
        "-q",
    )
    image = fits.getdata(mask, "DQ")
    known = next(place.glob("*_truth.fits"))
    truth, gain = fits.getdata(known, "DEFECTS"), float(fits.getheader(known)["GAIN"])
    curves = {c.search: c for c in read_depth(mask)[0]}
    rows = []
    for search, curve in curves.items():
        mine = [r for r in truth if SEARCH.get(r["TYPE"].strip()) == search and r["SETTING"].strip() == "isolated"]
        for level in sorted({float(r["LEVEL"]) for r in mine}):
            strength = level / gain if search == "hot" else level
            if not 0.6 * curve.levels[0] < strength < 1.7 * curve.levels[-1]:
                continue
            some = [r for r in mine if float(r["LEVEL"]) == level]
            bit = dq.VALUE[FLAG[search]]
            found = np.mean([bool(image[r["Y"], r["X"]] & bit) for r in some])
            rising = rise(np.array(curve.completeness), np.ones(len(curve.levels)))
            predicted = np.interp(np.log(strength), np.log(curve.levels), rising)
            rows.append((search, strength, float(predicted), float(found), len(some)))
    return rows


def main() -> None:
    """Print one table over all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detectors", nargs="+", default=["NRCB1", "MIRIMAGE", "NRS1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[301, 302])
    parser.add_argument("--darks", nargs="+", type=int, default=[5, 10])
    parser.add_argument("--size", type=int, default=256)
    asked = parser.parse_args()
    print("| detector | darks | search | strength | predicted, % | true, % | defects | difference, sigma |")
    print("|---|---|---|---|---|---|---|---|")
    for detector in asked.detectors:
        for darks in asked.darks:
            joined: dict[tuple[str, float], list[tuple[float, float, int]]] = {}
            for seed in asked.seeds:
                for search, strength, predicted, found, number in compare(
                    asked.folder, detector, seed, darks, asked.size
                ):
                    joined.setdefault((search, round(strength, 4)), []).append((predicted, found, number))
            for (search, strength), parts in joined.items():
                number = sum(n for *_, n in parts)
                predicted, found = (sum(p[k] * p[2] for p in parts) / number for k in (0, 1))
                error = np.sqrt(max(predicted * (1 - predicted), 0.01) / number)
                numbers = f"{strength:.3g} | {100 * predicted:.0f} | {100 * found:.0f} | {number}"
                print(
                    f"| {detector} | {darks} | {search} | {numbers} | {(found - predicted) / error:+.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
