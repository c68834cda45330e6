"""Predicted against true completeness: ``badpix darks --depth`` on simulated darks with known defects.

    python benchmarks/prove_depth.py DIR [--detectors NRCB1 MIRIMAGE NRS1] [--seeds 301 302] [--darks 5 10] [--size N]
    python benchmarks/prove_depth.py DIR --own plain tails glow outputs averaged storm ...

For each set the curve of each search, which knows nothing of the truth, is read at the strengths of the simulated
defects and compared with the share of them that got the right flag. Only isolated defects count. The table gives
predicted and true percent, the number of defects, and the difference in standard errors of that number. With
``--own`` the darks are those of a generator of its own (``own_darks.py``) under the named conditions, reduced by the
real jump step and ramp fit; a second table compares false alarms.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import numpy as np
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq
from badpix.cli.main import badpix
from badpix.mask.depth import per_million
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


# Strengths of own defects in a NIRCam detector; of others in proportion to their noise (hot: and to the frame time).
OWN = {
    "hot": [0.05, 0.07, 0.085, 0.1, 0.14],
    "rc": [12, 20, 30, 45, 80],
    "telegraph": [7, 10, 13, 17, 25],
    "noisy": [1.4, 1.6, 1.75, 1.9, 2.2],
    "low_pedestal": [15, 22, 27, 33, 45],
}
NEAR = 0.05  # difference from the true completeness that is aimed at
BEYOND = 2  # pixels from a defect from which on a flag is a false alarm


def search_darks(rates: list[str], mask: Path) -> None:
    """The darks of one set -> mask and evidence with its depth."""
    words = "--evidence --depth --overwrite --author A --descrip d --pedigree SIMULATION -q".split()
    run("darks", *rates, "-o", str(mask), *words, "--useafter", "2026-01-01T00:00:00")


def compare_own(
    folder: Path, detector: str, seed: int, darks: int, size: int, condition: str
) -> tuple[list[tuple[str, float, float, float, int]], dict[str, list[float]]]:
    """Rows as of :func:`compare`, and by search false alarms: pixels, found, and predicted by each estimate."""
    import own_darks

    facts = own_darks.FACTS[detector]
    part = facts.noise / own_darks.FACTS["NRCB1"].noise
    faster = own_darks.FACTS["NRCB1"].frame_time / facts.frame_time
    scale = {"hot": part * faster, "rc": part, "telegraph": part}
    levels = {kind: [level * scale.get(kind, 1.0) for level in some] for kind, some in OWN.items()}
    place = folder / f"{detector.lower()}_{condition}_{seed}_{darks}"
    place.mkdir(parents=True, exist_ok=True)
    rates, truth = own_darks.make_set(place, detector, levels, seed, darks=darks, size=size, condition=condition)
    mask = folder / f"{place.name}.fits"
    search_darks([str(r) for r in rates], mask)
    shutil.rmtree(place)
    image = fits.getdata(mask, "DQ")
    curves, alarms = read_depth(mask)
    rows = []
    for curve in (c for c in curves if c.search in levels):
        for level in levels[curve.search]:
            mine = truth[(truth["kind"] == curve.search) & (truth["level"] == level)]
            found = (image[mine["y"], mine["x"]] & dq.VALUE[FLAG[curve.search]]) != 0
            rows.append((curve.search, level, curve.at(level), float(found.mean()), len(mine)))
    clear = np.ones(image.shape, bool)
    for dy in range(-BEYOND + 1, BEYOND):
        for dx in range(-BEYOND + 1, BEYOND):
            clear[truth["y"] + dy, truth["x"] + dx] = False
    false = {}
    for search, flag in FLAG.items():
        hits = int((clear & ((image & dq.VALUE[flag]) != 0)).sum())
        told = [per_million(a)[0] for a in alarms if a.search == search]
        false[search] = [int(clear.sum()), hits, *told]
    return rows, false


def prove_own(asked: argparse.Namespace) -> None:
    """Print the table of own darks, and that of their false alarms."""
    print("| detector | darks | condition | search | strength | predicted, % | true, % | defects | sigma |")
    print("|---|---|---|---|---|---|---|---|---|")
    false, sums = [], []
    for condition in asked.own:
        for detector in asked.detectors:
            for darks in asked.darks:
                joined: dict[tuple[str, float], list[tuple[float, float, int]]] = {}
                for seed in asked.seeds:
                    rows, alarms = compare_own(asked.folder, detector, seed, darks, asked.size, condition)
                    for search, strength, predicted, found, number in rows:
                        joined.setdefault((search, strength), []).append((predicted, found, number))
                    false += [(detector, darks, condition, seed, name, *row) for name, row in alarms.items()]
                where = f"{detector} | {darks} | {condition}"
                for (search, strength), parts in joined.items():
                    print(f"| {where} | {search} | {strength:.3g} | {say(parts)} |", flush=True)
                sums.append(f"| {where} | {sum_up(joined)} |")
    print("\n| detector | darks | condition | rows | within 5 points | expected | within two errors | largest |")
    print("|---|---|---|---|---|---|---|---|", *sums, sep="\n")
    print("\n| detector | darks | condition | seed | search | pixels | false | per million | predicted |")
    print("|---|---|---|---|---|---|---|---|---|")
    for *where, name, pixels, hits, in_all in ((*row[:7], row[7:]) for row in false):
        told = ", ".join(f"{value:.0f}" for value in in_all) or "-"
        print(f"| {' | '.join(map(str, where))} | {name} | {pixels} | {hits} | {1e6 * hits / pixels:.0f} | {told} |")


def sum_up(joined: dict[tuple[str, float], list[tuple[float, float, int]]]) -> str:
    """Rows; those within 5 points, and how many would be if the predictions were exact, by the errors of so few
    defects alone; those within two such errors; the largest difference."""
    near, expected, likely, worst = 0, 0.0, 0, (0.0, "")
    for (search, strength), parts in joined.items():
        number = sum(n for *_, n in parts)
        predicted, found = (sum(part[k] * part[2] for part in parts) / number for k in (0, 1))
        k = np.arange(number + 1)
        chance = np.array([math.comb(number, int(i)) * predicted**i * (1 - predicted) ** (number - i) for i in k])
        near += abs(found - predicted) <= NEAR
        expected += chance[np.abs(k / number - predicted) <= NEAR].sum()
        likely += abs(found - predicted) <= 2 * np.sqrt(max(predicted * (1 - predicted), 0.01) / number)
        text = f"{search} {strength:.3g}: {100 * predicted:.0f} predicted, {100 * found:.0f} true"
        worst = max(worst, (abs(found - predicted), text))
    return f"{len(joined)} | {near} | {expected:.1f} | {likely} | {worst[1]}"


def say(parts: list[tuple[float, float, int]]) -> str:
    """Predicted and true percent, number, difference in standard errors, over all seeds."""
    number = sum(n for *_, n in parts)
    predicted, found = (sum(p[k] * p[2] for p in parts) / number for k in (0, 1))
    error = np.sqrt(max(predicted * (1 - predicted), 0.01) / number)
    return f"{100 * predicted:.0f} | {100 * found:.0f} | {number} | {(found - predicted) / error:+.1f}"


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
    search_darks(sorted(str(p) for p in (place / "darks").glob("*_rateints.fits")), mask)
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
            rows.append((search, strength, curve.at(strength), float(found), len(some)))
    return rows


def main() -> None:
    """Print one table over all sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detectors", nargs="+", default=["NRCB1", "MIRIMAGE", "NRS1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[301, 302])
    parser.add_argument("--darks", nargs="+", type=int, default=[5, 10])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--own", nargs="+", metavar="CONDITION", help="darks of the own generator")
    asked = parser.parse_args()
    if asked.own:
        prove_own(asked)
        return
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
                print(f"| {detector} | {darks} | {search} | {strength:.3g} | {say(parts)} |", flush=True)


if __name__ == "__main__":
    main()
