"""What flags leave of the stars in the stack that the pipeline's own steps make of the mixture of eight faults.

    python benchmarks/score_stack.py WORKDIR [--seeds 8101 8102] [--shape 400 400] [--stars 2500]
                                     [--flags none jwst documented default "true 2"]

Simulates the scene `mixture` once for each seed (in WORKDIR) and stacks it (`SkyMatchStep`, `ResampleStep`) with
several flags: none, those of the pipeline's own outlier step, ours, and the true ones (all pixels to which hits,
halos and trails added more than 2, or 5, sigma), about the most that flags can do. Each stack is compared with that
of the same exposures without hits: stars above 100 sigma, flux in 5 x 5 pixels above the median of 21 x 21.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from badpix.image import driver
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import PRESETS, Setup

STAR_SIGMA, HALF, AROUND = 100.0, 2, 10
FLAGS = ("none", "jwst", "documented", "default", "true 2", "true 5")
PARTS = ("CR", "TRAIL", "HOT", "HALO")


def added_to(cal: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """What was added to an exposure, in sigma, and sigma."""
    with fits.open(cal.parent / "truth" / cal.name.replace("_cal", "_truth")) as truth:
        return sum(truth[name].data for name in PARTS), truth["SIGMA"].data


def rewrite(table: Path, target: Path, change: Callable[[Path, fits.HDUList], None]) -> Path:
    """Changed copies of all exposures, and their association."""
    target.mkdir(exist_ok=True)
    for cal in sorted(table.parent.glob("*_cal.fits")):
        with fits.open(cal) as hdus:
            change(cal, hdus)
            hdus.writeto(target / cal.name, overwrite=True)
    (target / table.name).write_text(table.read_text())
    return target / table.name


def remove_hits(cal: Path, hdus: fits.HDUList) -> None:
    """SCI without what was added."""
    added, sigma = added_to(cal)
    hdus["SCI"].data = (hdus["SCI"].data - added * sigma).astype(np.float32)


def flag(hdus: fits.HDUList, hit: NDArray[Any]) -> None:
    """Make pixels unusable, as outlier steps do."""
    hdus["DQ"].data[hit] |= 17
    for name in ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
        hdus[name].data[hit] = np.nan


def flag_by_jwst(table: Path, target: Path) -> Path:
    """The exposures with the flags of the pipeline's step."""
    from jwst.outlier_detection import OutlierDetectionStep

    step = OutlierDetectionStep()
    step.save_results = False
    library, found = step.run(match_skies(table)), {}
    with library:
        for model in library:
            found[model.meta.filename.rpartition("_")[0]] = (model.dq & 16) != 0
            library.shelve(model, modify=False)
    return rewrite(table, target, lambda cal, hdus: flag(hdus, found[cal.name.rpartition("_")[0]]))


def flag_by_us(table: Path, target: Path, parameter_set: str) -> Path:
    """The exposures with our flags."""
    p = ImageSettings.from_values({"max_flagged": 100.0}, "score_stack", parameter_set)
    driver.flag_images(read_inputs([table]), p, target, overwrite=True)
    (target / table.name).write_text(table.read_text().replace("_cal.fits", "_a3001_crf.fits"))
    return target / table.name


def match_skies(table: Path) -> Any:
    """The exposures of an association without their skies."""
    from jwst.datamodels import ModelLibrary
    from jwst.skymatch import SkyMatchStep

    os.chdir(table.parent)
    step = SkyMatchStep()
    step.subtract = True
    return step.run(ModelLibrary(str(table), on_disk=False))


def stack(table: Path) -> tuple[NDArray[Any], float]:
    """The pipeline's stack, and its noise."""
    from jwst.resample import ResampleStep

    mosaic = ResampleStep().run(match_skies(table))
    return mosaic.data.copy(), float(np.nanmedian(mosaic.err))


def compare_stars(found: NDArray[Any], true: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Flux of the stars of a stack over that in another one, less 1."""
    bright = true - np.nanmedian(true) > STAR_SIGMA * sigma
    off = []
    for y, x in np.argwhere((true == maximum_filter(np.nan_to_num(true, nan=-9), 11)) & bright):
        box = slice(max(0, y - AROUND), y + AROUND + 1), slice(max(0, x - AROUND), x + AROUND + 1)
        a, b, core = true[box], found[box], slice(AROUND - HALF, AROUND + HALF + 1)
        if a.shape == (2 * AROUND + 1,) * 2 and np.isfinite(a).all():
            off.append(np.nansum((b - np.nanmedian(b))[core, core]) / (a - np.median(a))[core, core].sum() - 1)
    return np.array(off)


def make_flags(name: str, table: Path, folder: Path) -> Path:
    """The association of the exposures with some flags."""
    target = folder / name.replace(" ", "")
    if name == "none":
        return table
    if name == "jwst":
        return flag_by_jwst(table, target)
    if name.startswith("true"):
        limit = float(name.split()[1])
        return rewrite(table, target, lambda cal, hdus: flag(hdus, added_to(cal)[0] > limit))
    return flag_by_us(table, target, name)


def main() -> None:
    """Simulate where needed, flag, stack, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[8101])
    parser.add_argument("--shape", type=int, nargs=2, default=(400, 400))
    parser.add_argument("--stars", type=float, default=2500.0, help="a million pixels")
    parser.add_argument("--flags", nargs="+", default=FLAGS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["CRDS_SERVER_URL"] = ""
    off: dict[str, list[NDArray[Any]]] = {name: [] for name in options.flags}
    for seed in options.seeds:
        folder = options.workdir.resolve() / f"mixture{seed}"
        more = {"seed": seed, "shape": tuple(options.shape), "stars": options.stars}
        table = next((folder / "sim").glob("*_asn.json"), None)
        table = table or simulate(folder / "sim", Setup(**{**PRESETS["mixture"], **more}))
        logging.disable(logging.WARNING)
        true, sigma = stack(rewrite(table, folder / "clean", remove_hits))
        for name in options.flags:
            off[name].append(compare_stars(stack(make_flags(name, table, folder))[0], true, sigma))
    print("| flags | stars | within 1 % | within 2 % | losing more than 1 % | gaining |\n|---|---|---|---|---|---|")
    for name, parts in off.items():
        o = np.concatenate(parts)
        cells = [np.mean(np.abs(o) <= 0.01), np.mean(np.abs(o) <= 0.02), np.mean(o < -0.01), np.mean(o > 0.01)]
        print(f"| {name} | {len(o)} | " + " | ".join(f"{100 * c:.1f} %" for c in cells) + " |")


if __name__ == "__main__":
    main()
