"""What flags were decided on, kept so that every flag can be explained later.

A search gives, besides its maps, the images it looked at (*quantities*), the limits it compared them with
(*rules*) and, for searches that vote over integrations, the value of each integration at the pixels that came
near a limit (*samples*). They are stored beside the mask as ``<mask root>_evidence.fits``:

* one tile-compressed (lossless) image a quantity, float32 or small integers, NaN where nothing was measured;
* ``RULES``: search, quantity, comparison, limit, unit, meaning; a limit that varies over the detector is the name
  of another image;
* ``SAMPLES_<quantity>``: columns ``x``, ``y`` (0-based) and ``values`` (one a integration), candidates only;
* ``SOURCES``: where flags come from (searches, manual lists, older masks), each with an image ``from_<number>`` of
  the flags it gave, in standard bits; of a manual list also ``line_<number>``, the line that named the pixel;
* of a mask that was updated, for each flag ``update_<flag>``: what became of it (:class:`badpix.mask.update.State`),
  and ``absent_<flag>``: in how many updates in a row a pixel that is still flagged was good (+ 128: a faint one);
* ``EXPOSURES`` and, of science exposures, ``EXPOSURES_SCIENCE``: file and date of each step of the samples in time;
* the mask it belongs to, by the DATASUM of its DQ.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.io.depths import Alarm, Depth, Readout
from badpix.io.spill import DiskImage

WITHHELD, OTHERWISE = "_withheld", "_otherwise"  # endings of quantities that are a yes or no of further tests
BOOKKEEPING = ("from_", "line_", "update_", "absent_")  # images that follow from the inputs of a merge
NO_QUANTITY = ("is_", *BOOKKEEPING)  # images that are no measurements
STEPS, SCIENCE_STEPS = "EXPOSURES", "EXPOSURES_SCIENCE"  # tables of the steps in time
COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class Rule(NamedTuple):
    """One comparison that a search makes. A pixel is flagged by a search if *all* rules of one of its ways hold.

    ``way`` numbers alternatives: rules of one search with the same ``way`` are joined by *and*, different ways by
    *or*.
    """

    search: str
    quantity: str
    comparison: str
    limit: float | str
    unit: str
    meaning: str
    way: int = 1


class Samples(NamedTuple):
    """Values by integration at chosen pixels: ``x``, ``y`` (n,), ``values`` (n, nints)."""

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    values: NDArray[np.float32]


class Source(NamedTuple):
    """Where flags come from.

    Attributes
    ----------
    number : int
        Of the layer ``from_<number>``.
    kind : str
        ``flats``, ``darks``, ``science``, ``manual``, ``plain`` (a map of another tool) or ``mask``.
    name : str
        The file.
    date : str
        USEAFTER of a mask, as a day; empty for a list.
    via : str
        The older mask that brought it here, if any.
    """

    number: int
    kind: str
    name: str
    date: str = ""
    via: str = ""


class Sparse(np.lib.mixins.NDArrayOperatorsMixin):
    """An image of values at some pixels, the candidates, upon a value or an image; it becomes whole where used.

    Parameters
    ----------
    index : ndarray of int
        Flat indices of the pixels.
    values : ndarray
        Their values.
    shape : tuple of int
        Of the image.
    empty : float or array-like
        The value elsewhere, or an image (:class:`badpix.io.spill.DiskImage`).
    """

    def __init__(self, index: NDArray[np.intp], values: NDArray[Any], shape: tuple[int, int], empty: Any) -> None:
        self.index, self.values, self.shape, self.empty = index, values, shape, empty
        self.dtype = values.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        image = np.full(self.shape, self.empty, self.dtype)
        image.reshape(-1)[self.index] = self.values
        return image if dtype is None else image.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        whole = [np.asarray(i) if isinstance(i, Sparse) else i for i in inputs]
        return getattr(ufunc, method)(*whole, **options)

    def __getitem__(self, where: Any) -> Any:
        if not isinstance(where, slice) or where.step not in (None, 1) or not self.is_light:
            return np.asarray(self)[where]
        start, stop, _ = where.indices(self.shape[0])
        band = np.full((stop - start, self.shape[1]), self.empty, self.dtype)
        low, high = np.searchsorted(self.index, (start * self.shape[1], stop * self.shape[1]))
        band.reshape(-1)[self.index[low:high] - start * self.shape[1]] = self.values[low:high]
        return band

    @cached_property
    def is_light(self) -> bool:
        """Whether bands of its rows can be made without the whole: pixels in order upon one value."""
        return np.ndim(self.empty) == 0 and bool(np.all(self.index[1:] > self.index[:-1]))


def wait_on_disk(image: NDArray[np.float32]) -> Sparse:
    """An image of the frame that waits in a temporary file until it is written or looked at."""
    waiting = DiskImage((image.shape[0], image.shape[1]))
    waiting.write_rows(0, image)
    return Sparse(np.empty(0, np.intp), np.empty(0, np.float32), waiting.shape, waiting)


@dataclass
class Evidence:
    """Images (arrays, or :class:`Sparse`), rules and samples of one or several searches.

    ``exposures``: file name, date (MJD) and scale of the dark current of each step in time, in the order of time;
    ``science_exposures``: the same of science exposures, with the factor that made their values ``science_unit``.
    """

    images: dict[str, Any] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)
    exposures: list[tuple[str, float, float]] = field(default_factory=list)
    science_exposures: list[tuple[str, float, float]] = field(default_factory=list)
    science_unit: str = ""
    sources: list[Source] = field(default_factory=list)
    depth: list[Depth] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    readouts: list[Readout] = field(default_factory=list)


@dataclass
class Detection:
    """What a driver found.

    Attributes
    ----------
    maps : dict of str to bool ndarray
        Search type (``DEAD``, ``hot``, ...) to map of the whole frame, (ny, nx); False on reference pixels.
    evidence : Evidence
        What the maps were decided on.
    notes : list of str
        What the user should know: tests left out, shallow data, undetermined pixels.
    areas : list of dict
        Areas that are dark or weak as a whole: kind, x and y (first, last; 0-based, full frame), pixels, depth.
    sets : list of dict
        Sets of flats that were searched apart and joined: name, number of flats, pixels judged, pixels of each type.
    """

    maps: dict[str, NDArray[np.bool_]]
    evidence: Evidence = field(default_factory=Evidence)
    notes: list[str] = field(default_factory=list)
    areas: list[dict[str, Any]] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)


def holds(rule: Rule, evidence: Evidence, y: int, x: int) -> tuple[float, float, bool]:
    """Value, limit and outcome of a rule at a pixel; a value that was not measured (NaN) never holds."""
    value = float(evidence.images[rule.quantity][y, x])
    limit = float(evidence.images[rule.limit][y, x]) if isinstance(rule.limit, str) else float(rule.limit)
    return value, limit, bool(COMPARISONS[rule.comparison](value, limit))
