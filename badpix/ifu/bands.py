"""The tasks of an IFU search: what one band of rows of all exposures gives.

1. A frame is cut into bands, so that memory does not grow with the number of exposures. A task reads its rows, and
   the neighboring ones that its windows reach, and gives back small maps or lists of pixels.
2. Bands are independent and come back in order: the result is the same bytes for any number of workers, and for any
   height.
3. The noise level is measured on a sample of bands, evenly spread over the frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu import noise as ifu_noise
from badpix.ifu import one_exposure as ifu_lone
from badpix.ifu import significance as ifu_significance
from badpix.ifu.inputs import Exposure, axis_across, is_dithered, read_usable
from badpix.ifu.rank import measure_differences, odd
from badpix.ifu.residuals import solve_hit_limit, solve_thresholds
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile
from badpix.io.fits import bands
from badpix.numerics.clipping import median
from badpix.numerics.neighbors import distinct
from badpix.settings.ifu import IfuSettings

_SAMPLES = 1 << 18  # pixels that the noise level is measured on
_SAMPLE_ROWS = 8
_USUAL_HALO = 19  # rows that a band reads beyond its own, on each side
_TALLEST = 320  # rows of a band, at the most
_ELEMENTS = 5 << 19  # pixels of all exposures in one band, at the most
_PER_ELEMENT = 60  # bytes that a search needs for each of them


def cut_bands(shape: tuple[int, int], exposures: int, memory: int | None = None) -> list[tuple[int, int]]:
    """Bands of a frame, [(start, stop), ...], of a height at which all exposures stay within ``memory`` bytes."""
    elements = min(_ELEMENTS, memory // _PER_ELEMENT) if memory else _ELEMENTS
    most = int(np.clip(elements // (exposures * shape[1]) - 2 * _USUAL_HALO, 8, _TALLEST))
    return bands(shape[0], -(-shape[0] // -(-shape[0] // most)))  # of nearly one height


def sample_bands(shape: tuple[int, int], exposures: int) -> list[tuple[int, int]]:
    """Bands, evenly spread over the frame, that together hold about ``_SAMPLES`` pixels of all exposures."""
    ny, nx = shape
    most = -(-ny // _SAMPLE_ROWS)
    number = int(np.clip(_SAMPLES // (exposures * nx * _SAMPLE_ROWS), min(8, most), most))
    starts = np.linspace(0, max(0, ny - _SAMPLE_ROWS), number).astype(int)
    return [(int(s), min(int(s) + _SAMPLE_ROWS, ny)) for s in starts]


# --- the documented search -------------------------------------------------------------------------------


def measure_smallest(
    exposures: list[Exposure], axis: int, start: int, stop: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Smallest difference over the exposures, in some rows; and the usable pixels of each exposure.

    Returns
    -------
    smallest : ndarray of float64, shape (stop - start, nx)
    usable : ndarray of int, shape (n,)
    """
    ny = exposures[0].cal.shape[0]
    low, high = (max(start - 1, 0), min(stop + 1, ny)) if axis == 0 else (start, stop)
    core = slice(start - low, stop - low)
    smallest = np.full((stop - start, exposures[0].cal.shape[1]), np.nan)
    usable = np.empty(len(exposures), np.int64)
    for i, exposure in enumerate(exposures):
        sci = read_usable(exposure.cal, low, high)
        usable[i] = np.count_nonzero(np.isfinite(sci[core]))
        with np.errstate(invalid="ignore"):  # infinite minus infinite
            np.fmin(smallest, measure_differences(sci, axis)[core], out=smallest)
    return smallest, usable


# --- the significance search -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a band of the significance search needs to know, the same for all bands of a detector."""

    exposures: list[Exposure]
    kernel: tuple[int, int]
    window: tuple[int, int]  # pixels along the dispersion, across it
    noise: str
    options: Mapping[str, Any]
    thresholds: NDArray[Any]
    hit_limit: float
    usual_err: tuple[float, ...]
    level: ifu_noise.Level | None = None


def make_plan(exposures: list[Exposure], p: IfuSettings) -> Plan:
    """Parameters of the significance search in the form that bands use."""
    structure = p.protect_structure
    if structure is None:
        structure = 0.3 if is_dithered(exposures) else 0.6
    names = (
        "min_sigma",
        "partial_sigma",
        "single",
        "lone_exposure",
        "lone_sigma",
        "grow_sigma",
        "grow_steps",
        "protect",
    )
    return Plan(
        exposures=exposures,
        kernel=odd(p.kernel_size),
        window=odd(p.moved_window),
        noise=p.noise,
        options={name: getattr(p, name) for name in names} | {"protect_structure": structure},
        thresholds=solve_thresholds(len(exposures), p.false_alarm),
        hit_limit=solve_hit_limit(p.false_alarm),
        usual_err=tuple(measure_usual_err(e.cal) for e in exposures),
    )


def measure_usual_err(cal: CalFile) -> float:
    """Median of ERR over some rows, evenly spread; 1 where none of it can be right."""
    rows = distinct(np.linspace(0, cal.shape[0] - 1, 24).astype(np.intp))
    err = np.concatenate([io_cal.read_rows(cal, "ERR", row, row + 1) for row in rows])
    err = err[np.isfinite(err) & (err > 0)]
    return float(median(err)) if err.size else 1.0


def sample_band(plan: Plan, start: int, stop: int) -> list[NDArray[Any]]:
    """Samples of the noise in some rows."""
    margin = 2 + plan.kernel[0] // 2
    low, high = max(0, start - margin), min(plan.exposures[0].cal.shape[0], stop + margin)
    sci, sigma = _read_band(plan, low, high)
    return ifu_noise.sample_band(sci, sigma, plan.kernel, slice(start - low, stop - low))


@dataclass(frozen=True)
class BandResult:
    """What one band of rows gives back."""

    start: int
    pixels: list[NDArray[Any]]  # flat indices within the frame, for each exposure
    reasons: list[NDArray[Any]]
    usable: list[int]
    untestable: list[int]
    noisy: int
    lit: NDArray[Any]
    searched: tuple[int, int] | None = None  # of a lone exposure: pixels of a sample that would show a hit, all of it


def search_band(plan: Plan, start: int, stop: int) -> BandResult:
    """The significance search in some rows."""
    assert plan.level is not None
    ny, nx = plan.exposures[0].cal.shape
    margin = ifu_significance.halo(plan.kernel, plan.window, plan.options["grow_steps"])
    low, high = max(0, start - margin), min(ny, stop + margin)
    sci, sigma = _read_band(plan, low, high)
    maps, untestable, noisy = ifu_significance.find_significant(
        sci,
        sigma,
        level=plan.level,
        thresholds=plan.thresholds,
        hit_limit=plan.hit_limit,
        kernel_size=plan.kernel,
        window=plan.window,
        noise=plan.noise,
        across=axis_across(plan.exposures),
        dithered=is_dithered(plan.exposures),
        first_row=low,
        **plan.options,
    )
    core = slice(start - low, stop - low)
    pixels = [np.flatnonzero(m[core]) for m in maps]
    return BandResult(
        start=start,
        pixels=[at + start * nx for at in pixels],
        reasons=[m[core].reshape(-1)[at] for m, at in zip(maps, pixels, strict=True)],
        usable=[int(np.count_nonzero(np.isfinite(s[core]))) for s in sci],
        untestable=[int(np.count_nonzero(u[core])) for u in untestable],
        noisy=int(np.count_nonzero(noisy[core])),
        lit=np.logical_or.reduce([np.isfinite(s[core]) for s in sci]),
        searched=_count_searched(plan, sci[0], sigma[0], core, low) if len(sci) == 1 else None,
    )


def _count_searched(
    plan: Plan, sci: NDArray[Any], sigma: NDArray[Any], core: slice, first_row: int
) -> tuple[int, int]:
    assert plan.level is not None
    return ifu_lone.count_searched(
        sci,
        sigma,
        core,
        level=plan.level,
        kernel_size=plan.kernel,
        noise=plan.noise,
        protect=plan.options["protect"],
        protect_structure=plan.options["protect_structure"],
        limit=max(float(plan.thresholds[1, 1]), plan.options["lone_sigma"]),
        first_row=first_row,
    )


def _read_band(plan: Plan, low: int, high: int) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    sci, sigma = [], []
    for exposure, usual in zip(plan.exposures, plan.usual_err, strict=True):
        values = read_usable(exposure.cal, low, high).astype(np.float32, copy=False)
        if np.isinf(values).any():
            values[np.isinf(values)] = np.nan
        sci.append(values)
        if plan.noise == "data":
            sigma.append(np.ones_like(values))
        else:
            err = io_cal.read_rows(exposure.cal, "ERR", low, high).astype(np.float32, copy=False)
            sigma.append(ifu_noise.measure_sigma(err, values, usual=usual))
    return sci, sigma


def sample_significance(plan: Plan) -> NDArray[Any]:
    """The statistic eta of a sample of bands, in units of the noise, before any protection; for pictures."""
    assert plan.level is not None
    values = []
    for start, stop in sample_bands(plan.exposures[0].cal.shape, len(plan.exposures)):
        sci, sigma = _read_band(plan, start, stop)
        values.append(ifu_noise.measure_eta(sci, sigma, plan.level, plan.kernel, plan.noise))
    return np.concatenate(values)
