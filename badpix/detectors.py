"""Detector geometry: shapes, axes, reference pixels, amplifiers, subarray windows.

The facts stand in ``configs/detectors.yml``. Starts and sizes of subarrays are not a table: the exposures'
SUBSTRT and SUBSIZE keywords are the truth, since the flight aperture file moves with time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError, UsageError, nearest

ALIASES = {"NRCA5": "NRCALONG", "NRCB5": "NRCBLONG"}
IRS2_ROWS = 3200  # rows of a NIRSpec frame read with interleaved reference pixels
# Frames averaged in a group and frames skipped between groups.
READOUT = {
    "RAPID": (1, 0),
    "BRIGHT1": (1, 1),
    "BRIGHT2": (2, 0),
    "SHALLOW2": (2, 3),
    "SHALLOW4": (4, 1),
    "MEDIUM2": (2, 8),
    "MEDIUM8": (8, 2),
    "DEEP2": (2, 18),
    "DEEP8": (8, 12),
    "NIS": (4, 0),
    "NISRAPID": (1, 0),
    "FGS": (2, 0),
    "FGSRAPID": (1, 0),
    "NRS": (4, 0),
    "NRSRAPID": (1, 0),
    "NRSIRS2RAPID": (1, 0),
    "NRSIRS2": (5, 0),
    "FASTR1": (1, 0),
    "SLOWR1": (1, 0),
}


class Window(NamedTuple):
    """Where an image lies on its detector: 1-based start (x, y) and size (columns, rows), as in SUBSTRT/SUBSIZE."""

    xstart: int
    ystart: int
    xsize: int
    ysize: int


@dataclass(frozen=True)
class Detector:
    """The facts about one detector.

    Attributes
    ----------
    name, instrument : str
        Values of DETECTOR and INSTRUME.
    fastaxis, slowaxis : int
        Values of FASTAXIS and SLOWAXIS.
    shape : tuple of int
        Rows and columns of a full frame.
    border : tuple of int
        Reference pixels at the left, right, bottom and top of a full frame.
    amplifiers : str
        ``blocks`` (four stripes along the fast axis) or ``interleaved`` (column modulo 4).
    ipc : float
        Share of a pixel's charge that shows up in each side neighbor.
    max_dead_rate : float or None
        Rate below which a pixel is dead in flats that are not normalized, DN/s; None where not known.
    min_judged : float
        Percent of the science pixels that flats must be able to judge.
    """

    name: str
    instrument: str
    fastaxis: int
    slowaxis: int
    shape: tuple[int, int]
    border: tuple[int, int, int, int]
    amplifiers: str
    ipc: float
    max_dead_rate: float | None = None
    min_judged: float = 95.0

    @property
    def full(self) -> Window:
        """The window of a full frame."""
        return Window(1, 1, self.shape[1], self.shape[0])


class Mode(NamedTuple):
    """How light falls on a detector: dispersed along an axis of the array (0: y, 1: x), or imaged (None)."""

    name: str
    axis: int | None
    min_judged: float


@cache
def _facts() -> dict[str, Any]:
    """The table as it is written."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    facts: dict[str, Any] = yaml.load(files("badpix.configs").joinpath("detectors.yml").read_text(), loader)
    return facts


@cache
def table() -> dict[str, Detector]:
    """All detectors by name."""
    return {
        name: Detector(name=name, **{**row, "shape": tuple(row["shape"]), "border": tuple(row["border"])})
        for name, row in _facts()["detectors"].items()
    }


def find_mode(detector: Detector, header: Mapping[str, Any]) -> Mode:
    """How light falls on a detector in an exposure, by its keywords (EXP_TYPE, FILTER, PUPIL, GRATING)."""
    for name, row in _facts()["modes"].items():
        if detector.name in row["detectors"] and _fits(row, header):
            return Mode(name, "yx".index(row["axis"]), float(row["min_judged"]))
    return Mode("imager", None, detector.min_judged)


def _fits(row: Mapping[str, Any], header: Mapping[str, Any]) -> bool:
    """Whether the keywords tell a mode, and none of them another one."""

    def told(words: Mapping[str, Any]) -> bool:
        return any(str(header.get(key, "")).strip().upper() in values for key, values in words.items())

    return not told(row.get("unless", {})) and ("when" not in row or told(row["when"]))


def get(name: str) -> Detector:
    """The detector called ``name`` (any case; NRCA5 and NRCB5 are understood).

    Raises
    ------
    DataError
        If there is no such detector.
    """
    key = str(name).strip().upper()
    key = ALIASES.get(key, key)
    if key not in table():
        raise DataError(f"DETECTOR {name!r} is unknown{nearest(key, table())}")
    return table()[key]


def choose(name: str, source: str) -> Detector:
    """The detector that a user asks for.

    Parameters
    ----------
    name : str
        As :func:`get` takes it.
    source : str
        Where it is asked for: an option, or a file and its key.

    Raises
    ------
    UsageError
        If there is no such detector.
    """
    try:
        return get(name)
    except DataError as error:
        raise UsageError(f"{source}: {error}") from None


def measure_border(detector: Detector, window: Window) -> NDArray[np.bool_]:
    """Reference pixels inside a window by geometry: (ysize, xsize) map, True on reference pixels.

    An interior subarray has none. NIRSpec IRS2 frames (3200 rows) hold interleaved reference pixels, which the
    border says nothing of: those come from the DQ of the exposures.
    """
    ny, nx = detector.shape
    if window.ysize == IRS2_ROWS:
        ny = IRS2_ROWS
    left, right, bottom, top = detector.border
    y = np.arange(window.ystart - 1, window.ystart - 1 + window.ysize)
    x = np.arange(window.xstart - 1, window.xstart - 1 + window.xsize)
    rows = (y < bottom) | (y >= ny - top)
    columns = (x < left) | (x >= nx - right)
    return rows[:, None] | columns[None, :]


def amplifier_map(detector: Detector, window: Window) -> NDArray[np.uint8]:
    """Number (0 to 3) of the amplifier that reads each pixel of a window: (ysize, xsize)."""
    y = np.arange(window.ystart - 1, window.ystart - 1 + window.ysize)
    x = np.arange(window.xstart - 1, window.xstart - 1 + window.xsize)
    ny, nx = detector.shape
    if detector.amplifiers == "interleaved":
        row, column = np.zeros_like(y), x % 4
    elif abs(detector.fastaxis) == 1:
        row, column = np.zeros_like(y), np.minimum(x * 4 // nx, 3)
    else:
        row, column = np.minimum(y * 4 // ny, 3), np.zeros_like(x)
    return (row[:, None] + column[None, :]).astype(np.uint8)
