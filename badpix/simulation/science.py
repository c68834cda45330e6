"""Simulated science programs with known bad pixels: ``badpix simulate-science``.

1. Light of the program (:mod:`badpix.simulation.science_light`), a background by visit, pixel-to-pixel errors of the
   flat field.
2. Bad pixels: STEADY (hot, 0.02 to 5 DN/s), LOW_QE, SWITCHING (bright in 15 to 60 % of the exposures)
   and BORN (hot from some exposure on). Their charge leaks to the sides as the detector's does.
3. Noise: read and Poisson noise, stripes, particles, 0.3 % of the pixels NaN as the pipeline's mask leaves them.
4. Rate files, and the truth as `badpix score` reads it; EXTRA1 is the mean excess in units of the
   stack's noise, EXTRA2 the share of the exposures in which a pixel is bad.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.io import output
from badpix.numerics import ipc
from badpix.settings.simulate_science import ScienceProgramSettings
from badpix.simulation.defects import DEFECT, FLAG_OF
from badpix.simulation.files import SUBARRAY_OF_SCALED
from badpix.simulation.science_light import PROGRAMS, Program, lies_between, make_fringes, make_sky, paint
from badpix.simulation.truth_file import defect_table

LEVELS = {
    "STEADY": (0.02, 0.05, 0.1, 0.3, 1.0, 5.0),
    "BORN": (0.05, 0.1, 0.3, 1.0, 5.0),
    "SWITCHING": (0.1, 0.3, 1.0, 5.0),
    "LOW_QE": (0.1, 0.3, 0.5, 0.7),
}  # DN/s; response
SCALE = 0.2  # arcsec of a pixel of dithers
KNOWN = 0.003  # share of pixels that the pipeline's mask has flagged
HITS = 0.002  # share of pixels that particles spoil, an exposure
STRIPES = 0.3  # of the noise
FIRST_DAY = 60310.0  # MJD of the first exposure
DAYS = 9.0  # between visits

Rows = NDArray[Any]


def simulate(directory: str | Path, p: ScienceProgramSettings, *, overwrite: bool = False) -> dict[str, list[Path]]:
    """Write the exposures of a program, and its truth.

    Parameters
    ----------
    directory : path
        Where exposures and truth go.
    p : ScienceProgramSettings
        Scene, size, seed.
    overwrite : bool
        Replace files.

    Returns
    -------
    dict
        ``exposures`` and ``truth``: paths.
    """
    folder, program = Path(directory), PROGRAMS[p.scene]
    folder.mkdir(parents=True, exist_ok=True)
    shape = (p.size[1], p.size[0])
    rng = np.random.default_rng((p.seed, list(PROGRAMS).index(p.scene)))
    known = rng.uniform(size=shape) < KNOWN
    usable = ~known & ~lies_between(program, shape)
    rows = place_defects(rng, usable, p.defects_per_level)
    number = program.visits * program.exposures
    stack = np.sqrt(program.noise**2 + np.mean(program.sky) / program.gain) / np.sqrt(number)
    lit = draw_states(rng, rows, number)
    rows["extra1"], rows["extra2"] = measure_strength(rows, lit, program, stack), lit.mean(axis=0)
    fixed: dict[str, Any] = {
        "flat": 1 + program.flat_error * rng.normal(size=shape),
        "fringes": make_fringes(rng, program, shape),
        "known": known,
        "between": lies_between(program, shape),
    }
    paths = []
    for visit in range(program.visits):
        sky = make_sky(rng, program, shape)
        offsets = rng.uniform(-0.4, 0.4, (program.pointings, 2)) * (np.array(shape) if program.stars else 8)
        if not p.dithered:
            offsets[:] = 0
        for k in range(program.exposures):
            offset = offsets[k % program.pointings]
            index = visit * program.exposures + k
            light = paint(program, sky, shape, offset, fixed["fringes"]) + program.sky[visit]
            image = add_defects(light * fixed["flat"], rows, lit[index])
            name = f"jw0999{visit + 1}001001_{index + 1:05d}_{program.detector.lower()}_rate.fits"
            write_exposure(
                folder / name, image, program, rng, fixed, visit if p.dithered else 0, index, offset, overwrite
            )
            paths.append(folder / name)
    truth = folder / "truth.fits"
    write_truth(truth, rows, shape, program, overwrite)
    return {"exposures": paths, "truth": [truth]}


def place_defects(rng: np.random.Generator, usable: NDArray[np.bool_], per_level: int) -> Rows:
    """Bad pixels of all types and levels at places of their own, at least three pixels apart."""
    wanted = [(kind, level) for kind, levels in LEVELS.items() for level in levels for _ in range(per_level)]
    rows = np.zeros(len(wanted), DEFECT)
    taken = np.zeros(usable.shape, bool)
    places = iter(rng.permutation(np.flatnonzero(usable)))
    for row, (kind, level) in zip(rows, wanted, strict=True):
        for place in places:
            y, x = divmod(int(place), usable.shape[1])
            near = (slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3))
            if not taken[near].any():
                break
        taken[y, x] = True
        row["type"], row["level"], row["y"], row["x"], row["setting"] = kind, level, y, x, "isolated"
    return rows


def draw_states(rng: np.random.Generator, rows: Rows, number: int) -> NDArray[np.bool_]:
    """In which exposures each bad pixel is bad: (number, defects)."""
    out = np.ones((number, len(rows)), bool)
    when, share = rng.uniform(0.35, 0.75, len(rows)), rng.uniform(0.15, 0.6, len(rows))
    born, switching = rows["type"] == "BORN", rows["type"] == "SWITCHING"
    out[:, born] = np.arange(number)[:, None] >= when[born] * number
    out[:, switching] = rng.uniform(size=(number, int(switching.sum()))) < share[switching]
    return out


def measure_strength(rows: Rows, lit: NDArray[np.bool_], program: Program, stack: float) -> NDArray[np.float64]:
    """Mean excess (or deficit) of bad pixels over the exposures as they are, in units of the noise of the stack."""
    level = rows["level"].astype(float)
    low = rows["type"] == "LOW_QE"
    out: NDArray[np.float64] = np.where(low, (1 - level) * np.mean(program.sky), level * lit.mean(axis=0)) / stack
    return out


def add_defects(light: NDArray[np.float64], rows: Rows, lit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What the detector makes of the light where some bad pixels are lit."""
    image = light.copy()
    low = rows[rows["type"] == "LOW_QE"]
    image[low["y"], low["x"]] *= low["level"]
    image[rows["y"], rows["x"]] += np.where(lit & (rows["type"] != "LOW_QE"), rows["level"], 0)
    return image


def write_exposure(
    path: Path,
    image: NDArray[np.float64],
    program: Program,
    rng: np.random.Generator,
    fixed: dict[str, Any],
    visit: int,
    index: int,
    offset: NDArray[np.float64],
    overwrite: bool,
) -> None:
    """One rate file: leak to the sides, noise, stripes, particles, flags."""
    detector = detectors.get(program.detector)
    charge = ipc.mix(image, detector.ipc)
    noise = np.sqrt(program.noise**2 + np.maximum(charge, 0) / program.gain)
    lines = (image.shape[0 if abs(detector.fastaxis) == 1 else 1],)
    stripes = rng.normal(size=lines) * STRIPES * program.noise
    seen = charge + rng.normal(size=image.shape) * noise
    seen += stripes[:, None] if abs(detector.fastaxis) == 1 else stripes[None, :]
    hit = rng.uniform(size=image.shape) < HITS
    seen[hit] += rng.exponential(30 * program.noise, hit.sum())
    flags = np.where(fixed["known"], np.uint32(dq.VALUE["DO_NOT_USE"]), np.uint32(0))
    flags[fixed["between"]] |= np.uint32(dq.VALUE["NON_SCIENCE"])
    seen[fixed["known"]] = np.nan
    sci = fits.ImageHDU(seen.astype(np.float32), name="SCI")
    sci.header.update(
        {
            "BUNIT": "DN/s",
            "RA_REF": 80.0 + 3 * visit + offset[1] * SCALE / 3600,
            "DEC_REF": offset[0] * SCALE / 3600,
            "ROLL_REF": 0.0,
        }
    )
    hdus = fits.HDUList(
        [
            primary_hdu(path, program, image.shape, visit, index),
            sci,
            fits.ImageHDU(noise.astype(np.float32), name="ERR"),
            fits.ImageHDU(flags, name="DQ"),
        ]
    )
    with output.atomic_path(path, overwrite) as temporary:
        output.write_hdus(temporary, hdus)


def primary_hdu(path: Path, program: Program, shape: tuple[int, ...], visit: int, index: int) -> fits.PrimaryHDU:
    """Keywords of an exposure or of the truth."""
    detector = detectors.get(program.detector)
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "TELESCOP": "JWST",
            "FILENAME": path.name,
            "INSTRUME": detector.instrument,
            "DETECTOR": detector.name,
            "SUBARRAY": SUBARRAY_OF_SCALED[detector.instrument],
            "READPATT": "SIMULATED",
            "SUBSTRT1": 201,
            "SUBSTRT2": 201,
            "SUBSIZE1": shape[1],
            "SUBSIZE2": shape[0],
            "FASTAXIS": detector.fastaxis,
            "SLOWAXIS": detector.slowaxis,
            "EXP_TYPE": program.exp_type,
            "S_RAMP": "COMPLETE",
            "VISIT_ID": f"0999{visit + 1}001001",
            "EXPSTART": FIRST_DAY + DAYS * visit + index / 40,
            "DATE-OBS": f"2024-01-{1 + int(DAYS * visit) % 28:02d}",
            "TIME-OBS": "00:00:00",
            **program.optics,
        }
    )
    return primary


def write_truth(path: Path, rows: Rows, shape: tuple[int, int], program: Program, overwrite: bool) -> None:
    """DQ in standard bits, and the table of bad pixels."""
    truth = np.zeros(shape, np.uint32)
    for row in rows:
        truth[row["y"], row["x"]] |= np.uint32(dq.VALUE[FLAG_OF[str(row["type"])]])
    hdus = fits.HDUList(
        [primary_hdu(path, program, shape, 0, 0), fits.ImageHDU(truth, name="DQ"), defect_table(rows)]
    )
    with output.atomic_path(path, overwrite) as temporary:
        output.write_hdus(temporary, hdus)
