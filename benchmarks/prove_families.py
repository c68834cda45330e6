"""Masks of families against exposures of their depth: own ramps through the real jump step and ramp fit.

    python benchmarks/prove_families.py DIR [--detector NRCB1] [--seeds 71 72] [--size 200] [--integrations 200]

Darks of 40 groups with known defects (``own_darks.py``) give a mask and its families. The same pixels are then drawn
in many integrations of each family's depth, fitted by ``jwst``, and the variance of each pixel's slopes is compared
with that of the good ones. For each family: of the pixels that it uses the share whose excess is below the limit, and
of those that it takes out the share above; within two errors of the measured variance both count as right.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np
import own_darks
from astropy.io import fits
from prove_depth import run, search_darks

from badpix.settings.families import Family

LEVELS = {
    "hot": [0.3, 1.0, 3.0, 20.0],
    "telegraph": [15, 25, 50, 100, 200],
    "noisy": [1.3, 1.7, 2.0, 2.5, 4.0],
}
FAMILIES = {"short": 5, "medium": 20, "long": 100}


def measure_slopes(
    folder: Path, detector: str, defects: np.ndarray, noise: np.ndarray, groups: int, number: int, seed: int
) -> np.ndarray:
    """Slopes of the defects in exposures of ten integrations, (number, n) DN/s, as the real steps give them.

    The pixels are laid out side by side, two pixels apart.
    """
    facts = own_darks.FACTS[detector]
    side = int(np.ceil(np.sqrt(len(defects))))
    mine = defects.copy()
    mine["y"], mine["x"] = np.divmod(np.arange(len(defects)), side)
    mine["y"], mine["x"] = 2 * mine["y"] + 2, 2 * mine["x"] + 2
    frame = np.full((2 * side + 4, 2 * side + 4), np.median(noise))
    frame[mine["y"], mine["x"]] = noise[defects["y"], defects["x"]]
    known = frame.copy()
    rng = np.random.default_rng(seed)
    place = folder / f"slopes_{groups}"
    references = own_darks.write_references(place, facts, known, detector)
    out = []
    for k in range(0, number, 10):
        ramps = np.stack([own_darks.make_ramps(facts, mine, frame, groups, rng, rate=0.0) for _ in range(10)])
        rates = own_darks.reduce(ramps, facts, detector, references, place / f"e{k}", 1, 1, fast=True)
        out.append(rates[:, mine["y"], mine["x"]])
    shutil.rmtree(place)
    return np.concatenate(out)


def prove(
    folder: Path, detector: str, seed: int, size: int, number: int
) -> list[tuple[str, int, int, float, int, float]]:
    """Rows: family, groups, pixels in use, share of them below the limit, pixels taken out, share of them above."""
    place = folder / f"{detector.lower()}_{seed}"
    place.mkdir(parents=True, exist_ok=True)
    rates, defects = own_darks.make_set(place, detector, LEVELS, seed, darks=6, size=size)
    mask = folder / f"{place.name}.fits"
    search_darks([str(r) for r in rates], mask)
    pattern = own_darks.FACTS[detector].pattern
    words = [w for name, n in FAMILIES.items() for w in ("--family", f"{name}:{pattern}:{n}:1")]
    run("families", str(mask), *words, "-o", str(folder), "--overwrite")
    noise = fits.getdata(place / "readnoise.fits", "SCI") / np.sqrt(2)
    shutil.rmtree(place)
    good = np.zeros(400, defects.dtype)  # pixels without a defect, between the others
    some = np.random.default_rng(seed).choice(len(defects), len(good), replace=False)
    good["kind"], good["y"], good["x"] = "good", defects["y"][some] + 3, defects["x"][some] + 3
    every = np.concatenate([defects, good])
    rows = []
    for name, groups in FAMILIES.items():
        family = Family(name, pattern, (groups, groups), 1.0)
        slopes = measure_slopes(folder, detector, every, noise, groups, number, seed + 1000)
        variance = np.nanvar(slopes, axis=0, ddof=1)
        excess = variance / np.median(variance[every["kind"] == "good"]) - 1
        image = fits.getdata(folder / f"{mask.stem}_{name}.fits", "DQ")
        out = (image[every["y"], every["x"]] & 1) != 0
        error = 2 * np.sqrt(2 / (number - 1)) * (1 + family.max_excess)
        used = excess[~out] < family.max_excess + error
        lost = excess[out] > family.max_excess - error
        for kind in LEVELS:
            mine = every["kind"] == kind
            wrong = f"used {np.sum(~used[mine[~out]])} of {np.sum(mine & ~out)}"
            wrong += f", taken out {np.sum(~lost[mine[out]])} of {np.sum(mine & out)}"
            print(f"# {detector} {seed} {name} {kind}: wrongly {wrong}", file=sys.stderr)
        rows.append((name, groups, int((~out).sum()), float(used.mean()), int(out.sum()), float(lost.mean())))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--detector", default="NRCB1")
    parser.add_argument("--seeds", nargs="+", type=int, default=[71, 72])
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--integrations", type=int, default=200)
    asked = parser.parse_args()
    print("| detector | seed | family | groups | in use | below the limit, % | taken out | above it, % |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in asked.seeds:
        for name, groups, used, low, out, high in prove(
            asked.folder, asked.detector, seed, asked.size, asked.integrations
        ):
            numbers = f"{used} | {100 * low:.1f} | {out} | {100 * high:.1f}"
            print(f"| {asked.detector} | {seed} | {name} | {groups} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
