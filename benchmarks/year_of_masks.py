"""A year of monthly rebuilds, from darks alone and with science exposures: which bad pixels are missing, day by day.

    python benchmarks/year_of_masks.py DIR [--seed 951] [--size 128] [--figure docs/_static/figures/year.png]

1. Pixels are born hot on any day of the year and of the three months before it; a part recovers. Old hot pixels are
   there all the time; the dark reference takes them off science exposures.
2. Five darks every 91 days (``own_darks.py``, the real jump step and ramp fit), and three visits of five dithered
   images a month (``own_science.py``).
3. ``badpix rebuild`` on the first day and every 30 days: with the newest darks, and with the newest darks and the
   images of the last 90 days.
4. Of the pixels that are bad on a day above 0.1 DN/s, the share that the mask in use does not flag; and of the pixels
   that were never bad, and are no noisier than others, the flagged ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import own_darks
import own_science
import yaml
from numpy.typing import NDArray

from badpix.mask.file import read_mask

BADPIX = [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()"]
DAYS, MONTH, BETWEEN_DARKS, WINDOW = 365, 30, 91, 90
DARKS, DITHERS = 5, 5
VISIT_DAYS = (5, 14, 23)  # of a month
BIRTHS, OLD, RECOVERING, LIFE = 180, 40, 0.25, 60.0  # pixels; share and days
LEVELS = (0.03, 5.0)  # DN/s
HARM = 0.1  # DN/s
FIRST = 60500.0  # MJD
EARLIEST = -90
NOISY = 1.4  # times the median noise in darks: such pixels are neither good nor bad, the limit lies at 1.66
ROW = np.dtype([("y", int), ("x", int), ("level", float), ("born", float), ("ends", float)])

Table = NDArray[Any]


def draw_history(rng: np.random.Generator, size: int) -> Table:
    """Bad pixels on a grid: place, DN/s, day of birth (old ones: long ago) and of recovery."""
    y, x = np.meshgrid(*[np.arange(5, size - 5, 8)] * 2, indexing="ij")
    chosen = rng.permutation(y.size)[: BIRTHS + OLD]
    rows = np.zeros(len(chosen), ROW)
    rows["y"], rows["x"] = y.ravel()[chosen], x.ravel()[chosen]
    rows["level"] = np.exp(rng.uniform(*np.log(LEVELS), len(rows)))
    rows["born"] = rng.uniform(EARLIEST, DAYS, len(rows))
    recovers = rng.random(len(rows)) < RECOVERING
    rows["ends"] = np.where(recovers, rows["born"] + rng.exponential(LIFE, len(rows)), np.inf)
    rows["born"][BIRTHS:], rows["ends"][BIRTHS:] = -1e4, np.inf
    return rows


def bad_on(rows: Table, day: float) -> NDArray[np.bool_]:
    """Which pixels are bad on a day."""
    return np.asarray((rows["born"] <= day) & (day < rows["ends"]))


def take_darks(folder: Path, rows: Table, noise: NDArray[Any], day: int, rng: np.random.Generator) -> list[str]:
    """One set of darks."""
    facts = own_darks.FACTS["NRCB1"]
    here = rows[bad_on(rows, day)]
    defects = np.zeros(len(here), own_darks.draw_defects({"hot": [1.0]}, (20, 20), rng).dtype)
    defects["kind"] = "hot"
    for name in ("y", "x", "level"):
        defects[name] = here[name]
    place = folder / f"darks_{day:03d}"
    references = own_darks.write_references(place, facts, noise, "NRCB1")
    out = []
    for k in range(DARKS):
        ramp = own_darks.make_ramps(facts, defects, noise, 40, rng)
        out.append(own_darks.reduce(ramp[None], facts, "NRCB1", references, place / f"d{day:03d}{k}", 1, 1 + k))
    return [str(path) for path in out]


def take_images(folder: Path, rows: Table, read: NDArray[Any], day: int, rng: np.random.Generator) -> list[str]:
    """One visit of dithered images."""
    size = len(read)
    visit = replace(own_science.SCENES["deep"], skies=(rng.uniform(0.1, 0.25),), dithers=DITHERS)
    target, out = own_science.draw_field(rng, visit, size), []
    recent = rows[bad_on(rows, day) & (rows["born"] > EARLIEST)]
    for k in range(DITHERS):
        light, shift = own_science.see_field(rng, target, size)
        light += visit.skies[0]
        light[recent["y"], recent["x"]] += recent["level"]
        sci, err = own_science.expose(rng, visit, light, read, read)
        dq = np.zeros(read.shape, np.uint32)
        out.append(str(own_science.write(folder, visit, sci, err, dq, day, k, shift, FIRST + day + 0.03 * k)))
    return out


def rebuild(folder: Path, name: str, darks: list[str], images: list[str]) -> NDArray[np.bool_]:
    """A rebuild: what the mask in use flags."""
    values: dict[str, Any] = {
        "detector": "NRCB1",
        "reference": {"author": "benchmark", "descrip": "a year", "useafter": "2026-01-01T00:00:00"},
        "darks": {"inputs": {"rate": darks}, "depth": False},
        "check": {"max_jump_ratio": 1000.0},
        "rebuild": {"report": False, "settle": 0.0},
        "output": str(folder / name / "mask.fits"),
    }
    if images:
        values["science"] = {"inputs": {"rate": images}, "depth": False}
    recipe = folder / f"{name}.yml"
    recipe.write_text(yaml.safe_dump(values))
    subprocess.run([*BADPIX, "rebuild", str(recipe), "-q"], check=True, stdout=subprocess.DEVNULL)
    return np.asarray(read_mask(folder / name / "mask.fits").image & np.uint32(~np.uint32(512)) != 0)


def live(folder: Path, seed: int, size: int) -> tuple[Table, NDArray[np.bool_], dict[str, list[NDArray[np.bool_]]]]:
    """The year: its bad pixels, those that are good throughout, and the masks of all rebuilds."""
    rng = np.random.default_rng(seed)
    rows = draw_history(rng, size)
    noise = own_darks.FACTS["NRCB1"].noise * np.exp(rng.normal(0, 0.12, (size, size)))
    read = own_science.SCENES["deep"].read * np.exp(rng.normal(0, 0.12, (size, size)))
    darks: dict[int, list[str]] = {}
    images: dict[int, list[str]] = {}
    masks: dict[str, list[NDArray[np.bool_]]] = {"darks alone": [], "darks and science": []}
    for day in (month + visit for month in range(EARLIEST, 0, MONTH) for visit in VISIT_DAYS):
        images[day] = take_images(folder, rows, read, day, rng)
    for today in range(0, DAYS, MONTH):
        for day in range(max(today - MONTH + 1, 0), today + 1):
            if day % BETWEEN_DARKS == 0:
                darks[day] = take_darks(folder, rows, noise, day, rng)
            if day % MONTH in VISIT_DAYS:
                images[day] = take_images(folder, rows, read, day, rng)
        newest = darks[max(darks)]
        recent = [path for day, paths in images.items() if today - WINDOW < day <= today for path in paths]
        masks["darks alone"].append(rebuild(folder, "alone", newest, []))
        masks["darks and science"].append(rebuild(folder, "both", newest, recent))
        print(f"day {today}: {len(recent)} images", file=sys.stderr, flush=True)
    good = noise < NOISY * np.median(noise)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            good[rows["y"] + dy, rows["x"] + dx] = False
    return rows, good, masks


def count(
    rows: Table, good: NDArray[np.bool_], masks: list[NDArray[np.bool_]]
) -> tuple[NDArray[Any], NDArray[Any], float]:
    """Bad pixels of each day, those of them that the mask in use misses, and false flags per million good pixels."""
    mine = rows[rows["level"] > HARM]
    bad = np.array([bad_on(mine, day) for day in range(DAYS)])
    flagged = np.array([masks[day // MONTH][mine["y"], mine["x"]] for day in range(DAYS)])
    false = float(np.mean([mask[good].mean() for mask in masks]))
    return bad.sum(axis=1), (bad & ~flagged).sum(axis=1), 1e6 * false


def draw(shares: dict[str, NDArray[Any]], path: Path) -> None:
    """The picture."""
    from figures import reduce_colors

    from badpix.io.figure import make_figure, save_figure

    figure = make_figure(8.0, 3.2)
    axes = figure.add_subplot()
    for (name, share), color in zip(shares.items(), ("#B4552D", "#2C6E9B"), strict=True):
        axes.step(np.arange(len(share)), share, where="post", label=name, color=color)
    for day in range(0, DAYS, BETWEEN_DARKS):
        axes.axvline(day, color="#5A6570", linewidth=0.8, linestyle=":", label="darks" if day == 0 else None)
    axes.set_xlim(0, DAYS)
    axes.set_ylim(0, None)
    axes.set_xlabel("day")
    axes.set_ylabel("bad pixels not in the mask, %")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    reduce_colors(save_figure(figure, path, dpi=90))


def main() -> None:
    """Print the table; draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=951)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--figure", type=Path)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    rows, good, masks = live(asked.folder, asked.seed, asked.size)
    shares = {}
    print("| masks from | missing, mean, % | largest, % | on day 90, 180, 270, 360, % | false per million |")
    print("|---|---|---|---|---|")
    for name, some in masks.items():
        bad, missing, false = count(rows, good, some)
        shares[name] = share = 100 * missing / bad
        days = ", ".join(f"{share[day]:.1f}" for day in (89, 179, 269, 359))
        print(f"| {name} | {share.mean():.1f} | {share.max():.1f} | {days} | {false:.0f} |")
    if asked.figure:
        sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
        draw(shares, asked.figure)


if __name__ == "__main__":
    main()
