"""Science exposures of one detector: what each is, its place in time, and whether they differ enough.

1. An exposure is an image of slopes (rate, or cal: two axes) with SCI, ERR and DQ, no flat and no dark.
2. Values become DN/s: those in MJy/sr are divided by PHOTMJSR, where it is one number. Without one they stay as they
   are, and all exposures must have one unit.
3. *Pointings*: where the telescope looked (RA_REF, DEC_REF of SCI, else TARG_RA, TARG_DEC, with XOFFSET, YOFFSET),
   told apart beyond `pointing_step`, and by the roll. In dispersed light a pointing is a visit with one grating:
   dithers leave the lines of a spectrum where they are.
4. *Visits*: VISIT_ID, else OBSERVTN and VISIT, else the day.
5. A set of fewer pointings or visits than `min_pointings` and `min_visits` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from badpix import detectors
from badpix.errors import DataError
from badpix.io import selection
from badpix.io.dates import read_date
from badpix.io.exposure import Exposure
from badpix.io.fits import Layout, read_keywords
from badpix.science import residuals
from badpix.settings.science import ResidualSettings, VarietySettings

NEEDED = ("SCI", "ERR", "DQ")
SAME = ("INSTRUME", "DETECTOR", "SUBARRAY")  # keywords that all exposures share, with the window
OPTICS = ("FILTER", "PUPIL", "GRATING", "BAND", "CHANNEL")
ROLL = 1.0  # degrees between rolls that count as different pointings
MOST_GAP = 0.5  # days that part visits without names

Place = tuple[float, float, float]  # RA, Dec, roll, in degrees


@dataclass(frozen=True)
class Member:
    """One exposure as the search reads it.

    Attributes
    ----------
    exposure : Exposure
        The file.
    layouts : tuple of Layout
        Of SCI, ERR and DQ.
    mjd : float
        Start; NaN where not known.
    factor : float
        What values are multiplied with.
    sharpness : float
        Of :mod:`badpix.science.residuals`, times the square root of the number of exposures of this pointing: what a
        source may add is the same in all of them, and does not average away as noise does.
    pointing : int
        Number of the pointing.
    """

    exposure: Exposure
    layouts: tuple[Layout, Layout, Layout]
    mjd: float
    factor: float
    sharpness: float
    pointing: int


@dataclass(frozen=True)
class ScienceSet:
    """All exposures in the order of time, the unit of their values, and how they differ."""

    members: tuple[Member, ...]
    unit: str
    axis: int | None
    pointings: int
    visits: int

    @property
    def files(self) -> list[Exposure]:
        """The exposures, in the order of time."""
        return [m.exposure for m in self.members]


def check_science(exposure: Exposure) -> None:
    """Make sure that a file is a science image of slopes.

    Raises
    ------
    DataError
        If not.
    """
    shape = exposure["SCI"].shape
    if len(shape) != 2 or not exposure["SCI"].dtype.endswith(("f4", "f8")):
        raise DataError(f"{exposure.path}: SCI has {len(shape)} axes, expected one image of slopes (rate or cal)")
    for name in NEEDED[1:]:
        if exposure[name].shape != shape:
            raise DataError(f"{exposure.path}: {name} has shape {exposure[name].shape}, expected {shape} as SCI")
    if exposure.header.get("S_RAMP"):  # without it an image of two axes is one of slopes all the same
        selection.check_state(exposure, "S_RAMP")
    found = str(exposure.header.get("EXP_TYPE") or "").upper()
    if any(word in found for word in ("DARK", "FLAT", "LED", "LAMP")):
        raise DataError(f"{exposure.path}: EXP_TYPE = {found!r}, expected a science exposure")
    exposure.detector, exposure.window  # noqa: B018 (raise where the keywords do not fit)


def read_sci_header(exposure: Exposure) -> dict[str, Any]:
    """Keywords of SCI, laid over those of the primary header."""
    return exposure.header | read_keywords(exposure.path, exposure["SCI"].path, "SCI")


def gather(used: Sequence[Exposure], p: ResidualSettings, *, pointing_step: float) -> ScienceSet:
    """The exposures in the order of time (steps 2 to 4).

    Raises
    ------
    DataError
        If their units differ.
    """
    headers = [read_sci_header(e) for e in used]
    axis = choose_axis(used[0], headers[0], p)
    units = [convert(header) for header in headers]
    odd = next((k for k, (_, unit) in enumerate(units) if unit != units[0][1]), None)
    if odd is not None:
        raise DataError(f"{used[odd].path}: values in {units[odd][1]}, expected {units[0][1]} as in {used[0].path}")
    if axis is None:
        places = number_places([read_place(h) for h in headers], step=pointing_step / 3600)
    else:
        spectra = [(*read_visit(h), *(str(h.get(key, "")) for key in OPTICS)) for h in headers]
        places = [sorted(set(spectra)).index(spectrum) for spectrum in spectra]
    sharp = [residuals.choose_sharpness(h, axis) if p.sharpness is None else p.sharpness for h in headers]
    members = [
        Member(
            e,
            (e["SCI"], e["ERR"], e["DQ"]),
            read_date(h),
            factor,
            sharpness * places.count(place) ** 0.5,
            place,
        )
        for e, h, (factor, _), place, sharpness in zip(used, headers, units, places, sharp, strict=True)
    ]
    members.sort(key=lambda m: (not np.isfinite(m.mjd), m.mjd, m.exposure.path.name))
    visits = len({read_visit(h) for h in headers})
    return ScienceSet(tuple(members), units[0][1], axis, len(set(places)), visits)


def choose_axis(exposure: Exposure, header: Mapping[str, Any], p: ResidualSettings) -> int | None:
    """Axis of the dispersion of an exposure; None where light is imaged."""
    mode = detectors.find_mode(exposure.detector, header)
    if p.residual_model == "imager":
        return None
    if p.residual_model == "dispersed" and mode.axis is None:
        return 1  # grisms along rows, most of them
    return mode.axis


def convert(header: Mapping[str, Any]) -> tuple[float, str]:
    """What values are multiplied with, and the unit that they get."""
    unit = str(header.get("BUNIT") or "DN/s").strip()
    scale = header.get("PHOTMJSR")
    if unit.upper() == "MJY/SR" and isinstance(scale, int | float) and scale > 0:
        return 1 / float(scale), "DN/s"
    return 1.0, unit


def read_place(header: Mapping[str, Any]) -> Place:
    """Where the telescope looked; keywords that are missing count as zero."""

    def number(*names: str) -> float:
        found = (header.get(name) for name in names)
        return next((float(v) for v in found if isinstance(v, int | float) and np.isfinite(v)), 0.0)

    ra, dec = number("RA_REF", "RA_V1", "CRVAL1"), number("DEC_REF", "DEC_V1", "CRVAL2")
    if not any(name in header for name in ("RA_REF", "RA_V1")):
        ra = number("TARG_RA") + number("XOFFSET") / 3600
        dec = number("TARG_DEC") + number("YOFFSET") / 3600
    return ra, dec, number("ROLL_REF", "PA_V3")


def number_places(places: Sequence[Place], *, step: float) -> list[int]:
    """The number of the pointing of each place: that of the first one within ``step`` degrees, of equal roll."""
    centers: list[Place] = []
    numbers = []
    for place in places:
        near = (k for k, center in enumerate(centers) if _is_same(place, center, step))
        number = next(near, len(centers))
        if number == len(centers):
            centers.append(place)
        numbers.append(number)
    return numbers


def _is_same(a: Place, b: Place, step: float) -> bool:
    east = (a[0] - b[0] + 180) % 360 - 180
    apart = np.hypot(east * np.cos(np.radians(a[1])), a[1] - b[1])
    roll = abs((a[2] - b[2] + 180) % 360 - 180)
    return bool(apart <= step and roll < ROLL)


def read_visit(header: Mapping[str, Any]) -> tuple[str, ...]:
    """What names the visit of an exposure."""
    if header.get("VISIT_ID"):
        return (str(header["VISIT_ID"]),)
    if header.get("OBSERVTN"):
        return tuple(str(header.get(key, "")) for key in ("PROGRAM", "OBSERVTN", "VISIT"))
    date = read_date(header)
    return (f"{date // MOST_GAP}" if np.isfinite(date) else "",)


def check_variety(found: ScienceSet, p: VarietySettings) -> None:
    """Make sure that the exposures differ enough.

    Raises
    ------
    DataError
        Saying what is missing.
    """
    missing = []
    if found.pointings < p.min_pointings:
        missing.append(f"{_count(found.pointings, 'pointing')}, expected {p.min_pointings} or more (min_pointings)")
    if found.visits < p.min_visits:
        missing.append(f"{_count(found.visits, 'visit')}, expected {p.min_visits} or more (min_visits)")
    if not missing:
        return
    only = "one pointing: " if found.pointings == 1 else ""
    raise DataError(
        f"{only}{len(found.members)} exposures of {' and '.join(missing)}: what stands still with the telescope "
        "can't be told from a bad pixel; add exposures of other targets or dithers"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def list_paths(used: Sequence[Exposure]) -> list[Path]:
    """Files of some exposures."""
    return [e.path for e in used]
