"""What flags leave of the sources in the cubes that the pipeline's own `cube_build` makes of simulated IFU exposures.

    python benchmarks/score_cube.py WORKDIR [--instrument miri nirspec] [--scenes spectra bright lines half-bad]
                                    [--seed 6101] [--flags none jwst documented default true] [--length 256]
    python benchmarks/score_cube.py WORKDIR --docs docs/outlier-ifu.md   # the table of what was measured so far

Simulates each scene (four dithered exposures of MIRIFUSHORT or NRS1, in WORKDIR), flags the exposures in several ways
(not at all; by the pipeline's own step; by ours; where the truth has something above 2 sigma), and builds a cube of
each with jwst's CubeBuildStep (drizzle) and a CUBEPAR file made here. Each is compared with the cube of the same
exposures without defects:

* of the brightest source, the flux in 5 x 5 spaxels, plane by plane: the share of planes more than 1 % off;
* of all spaxels that the cube without defects covers: those more than 5 times their error off, and those left empty.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from docs_page import put_table
from numpy.typing import NDArray

from badpix.ifu import driver
from badpix.io.associations import read_inputs
from badpix.settings.ifu import IfuSettings
from badpix.simulation import ifu_optics
from badpix.simulation.ifu_defects import HALF_BAD, Defects
from badpix.simulation.ifu_files import write_association
from badpix.simulation.ifu_scene import SCENES
from badpix.simulation.ifu_wcs import ARCSEC_PER_PIXEL, WAVELENGTHS

DETECTORS = {"miri": "MIRIFUSHORT", "nirspec": "NRS1"}
FLAGS = ("none", "jwst", "documented", "default", "true")
ARRAYS = ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT")
HALF, OFF, SURE = 2, 0.01, 5.0  # aperture; part of the flux; errors of a spaxel
TRUE, PLANES = 2.0, 900 / 1024  # sigma; planes of a cube, a pixel


def write_cubepars(instrument: str, path: Path, planes: int) -> Path:
    """A CUBEPAR reference file: spaxels of a slice's width, ``planes`` wavelengths a micron."""
    from stdatamodels.jwst import datamodels

    step, start = 1.0 / planes, WAVELENGTHS[0]
    scale, limits = (ARCSEC_PER_PIXEL, step), (start + 0.01, start + 0.99)
    model, row = {  # the columns stand in another order for each instrument
        "miri": (datamodels.MiriIFUCubeParsModel, ("1", "SHORT", *scale, *limits)),
        "nirspec": (datamodels.NirspecIFUCubeParsModel, ("G235H", "F170LP", *limits, *scale)),
    }[instrument]
    with model() as pars:
        pars.ifucubepars_table = [row]
        for kind in ("multichannel",) if instrument == "miri" else ("prism", "med", "high"):
            setattr(pars, f"ifucubepars_{kind}_driz_wavetable", [(start,), (start + 1,)])
        pars.save(str(path))
    return path


def build_cube(cals: list[Path], instrument: str, cubepars: Path) -> dict[str, NDArray[Any]]:
    """SCI, ERR and WMAP of the cube that `cube_build` makes of exposures."""
    from jwst.cube_build import CubeBuildStep

    step = CubeBuildStep()
    step.override_cubepar, step.save_results = str(cubepars), False
    if instrument == "miri":
        step.channel = "1"
    (cube,) = step.process([str(path) for path in cals])  # `run` asks the CRDS server for its context
    return {"SCI": np.array(cube.data), "ERR": np.array(cube.err), "WMAP": np.array(cube.weightmap)}


def read_amplitude(cal: Path) -> NDArray[Any]:
    """What the defects added to an exposure, in units of its noise."""
    with fits.open(cal.parent / "truth" / cal.name.replace("_cal", "_truth")) as truth:
        return truth["AMPLITUDE"].data.astype(np.float64)


def remove_defects(cal: Path, hdus: fits.HDUList, poisson: float) -> None:
    """SCI without what was added: s = light + a * sqrt(1 + poisson * light), solved for the light; in read noises."""
    a, read = read_amplitude(cal), np.sqrt(np.nanmedian(hdus["VAR_RNOISE"].data))
    s = hdus["SCI"].data / read
    root = np.sqrt(np.maximum(1 + poisson * s + (poisson * a / 2) ** 2, 0))
    hdus["SCI"].data = np.where(a == 0, hdus["SCI"].data, read * (s + poisson * a**2 / 2 - a * root)).astype(
        np.float32
    )


def flag(hdus: fits.HDUList, hit: NDArray[Any]) -> None:
    """Make pixels unusable, as outlier steps do."""
    hdus["DQ"].data[hit] |= 17
    for name in ARRAYS:
        hdus[name].data[hit] = np.nan


def rewrite(table: Path, target: Path, change: Callable[[Path, fits.HDUList], None]) -> list[Path]:
    """Changed copies of all exposures."""
    target.mkdir(exist_ok=True)
    for cal in sorted(table.parent.glob("*_cal.fits")):
        with fits.open(cal) as hdus:
            change(cal, hdus)
            hdus.writeto(target / cal.name, overwrite=True)
    return sorted(target.glob("*_cal.fits"))


def flag_by_jwst(table: Path, target: Path) -> list[Path]:
    """The exposures with the flags of the pipeline's step."""
    from jwst.outlier_detection import OutlierDetectionStep

    target.mkdir(exist_ok=True)
    step = OutlierDetectionStep()
    step.save_results, step.output_dir, step.suffix = True, str(target), "crf"
    step.run(str(table))
    return sorted(target.glob("*_crf.fits"))


def flag_by_us(table: Path, target: Path, chosen: str) -> list[Path]:
    """The exposures with our flags, by a set of parameters."""
    p = IfuSettings.from_values({}, "score_cube", chosen)
    driver.flag_association(read_inputs([table]), p, target, overwrite=True)
    return sorted(target.glob("*_crf.fits"))


def prepare(table: Path, flags: str, target: Path) -> list[Path]:
    """The exposures with one kind of flags."""
    if flags == "none":
        return sorted(table.parent.glob("*_cal.fits"))
    if flags == "jwst":
        return flag_by_jwst(table, target)
    if flags == "true":
        return rewrite(table, target, lambda cal, hdus: flag(hdus, np.abs(read_amplitude(cal)) > TRUE))
    return flag_by_us(table, target, flags)


def score(cube: dict[str, NDArray[Any]], clean: dict[str, NDArray[Any]]) -> dict[str, float]:
    """Percentages; see the top of this file."""
    bright = np.nan_to_num(np.nanmedian(clean["SCI"], axis=0))
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    box = (slice(None), slice(max(y - HALF, 0), y + HALF + 1), slice(max(x - HALF, 0), x + HALF + 1))
    found, true = (np.nansum(c["SCI"][box], axis=(1, 2)) for c in (cube, clean))
    planes = true > 0.2 * np.median(true)
    covered = (clean["WMAP"] > 0) & np.isfinite(clean["SCI"]) & (clean["ERR"] > 0)
    left = covered & (cube["WMAP"] > 0) & np.isfinite(cube["SCI"])
    wrong = np.abs(cube["SCI"] - clean["SCI"])[left] > SURE * clean["ERR"][left]
    return {
        "planes": 100 * float(np.mean(np.abs(found[planes] / true[planes] - 1) > OFF)),
        "wrong": 100 * float(wrong.sum() / covered.sum()),
        "empty": 100 * float((covered & ~left).sum() / covered.sum()),
    }


def make_text(rows: dict[str, list[str]]) -> str:
    """The table of what was measured."""
    head = ["| set | flags | planes, % | wrong spaxels, % | empty, % |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *(row for some in rows.values() for row in some)])


def main() -> None:
    """Simulate, flag, build, compare; print a table, and put into the docs what was measured so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--instrument", nargs="+", choices=DETECTORS, default=["miri"])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["spectra", "bright", "lines", "half-bad"])
    parser.add_argument("--seed", type=int, default=6101)
    parser.add_argument("--flags", nargs="+", choices=FLAGS, default=list(FLAGS))
    parser.add_argument("--length", type=int, help="Pixels along the dispersion; as many as the detector has.")
    parser.add_argument("--docs", type=Path, help="Page that gets the table of what was measured so far.")
    given = parser.parse_args()
    given.workdir.mkdir(parents=True, exist_ok=True)
    kept = given.workdir / f"rows_{given.seed}.json"
    rows: dict[str, list[str]] = json.loads(kept.read_text()) if kept.exists() else {}
    if given.docs:
        put_table(given.docs, "cubes", make_text(rows))
        return
    for instrument in given.instrument:
        for name in given.scenes:
            found = score_scene(given.workdir, instrument, name, given.seed, given.flags, given.length)
            rows[f"{instrument}, {name}"] = found
            kept.write_text(json.dumps(rows))
            print("\n".join(found), flush=True)


def score_scene(
    workdir: Path, instrument: str, name: str, seed: int, kinds: list[str], length: int | None
) -> list[str]:
    """Rows of the table of one scene."""
    folder, detector = workdir / f"{instrument}_{name}_{seed}", DETECTORS[instrument]
    sky, defects = SCENES[name], Defects(in_half=HALF_BAD if name == "half-bad" else 0.0)
    size = ifu_optics.DETECTORS[detector].shape
    shape = (length or size[0], size[1])
    how: dict[str, Any] = {"sky": sky, "defects": defects, "shape": shape}
    table = write_association(folder / "in", detectors=[detector], exposures=4, seed=seed, overwrite=True, **how)
    pars = write_cubepars(instrument, folder / "cubepars.fits", round(PLANES * shape[0]))
    without = rewrite(table, folder / "clean", lambda cal, hdus: remove_defects(cal, hdus, sky.poisson))
    clean = build_cube(without, instrument, pars)
    rows, part = [], f", {length} pixels long" if length else ""
    for flags in kinds:
        cube = build_cube(prepare(table, flags, folder / flags), instrument, pars)
        values = " | ".join(f"{value:.2f}" for value in score(cube, clean).values())
        rows.append(f"| {detector}, {name}{part} | {flags} | {values} |")
    return rows


if __name__ == "__main__":
    os.environ["CRDS_SERVER_URL"] = "https://no-server.invalid"  # nobody is asked
    os.environ.setdefault("STPIPE_DISABLE_CRDS_STEPPARS", "true")
    warnings.simplefilter("ignore")
    main()
