"""The noise of the comparison of an exposure with its model.

1. ERR that is not finite and positive is replaced, from the variances where they are there.
2. Scatter: 1.4826 MAD of (SCI - sky - b)/ERR, at least 1. Where the exposure is deeper than the others, the noise of
   the model is the larger one, and decides what is flat and what is steep enough to learn from.
3. Expected noise: v0 = VAR_RNOISE + P(b) with P the median VAR_POISSON in bins of the model b; s0^2 = min(ERR^2,
   v0). A hit raises its own ERR and would hide in it.
4. Noise of the model: the factor f_m = 1.4826 MAD of (SCI - sky - b)/s0 over flat pixels, for each number m of other
   groups.
5. The noise of the difference is made of ERR, s0 and f_m as the parameter ``noise`` says.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics import clipping

FLAT = 2.0  # sigma a pixel below which a pixel is flat
_ROWS = 64  # rows of a band: its temporaries stay in the processor's cache
_SAMPLE = 60_000  # pixels that tell the photon noise, about; besides all bright ones
_BRIGHT = 0.98  # quantile of the model, above which pixels are bright
_EDGES = (*np.linspace(0, _BRIGHT, 13)[1:], 0.99, 0.995, 0.998, 0.9995)  # quantiles between the bins
_BRIGHT_BINS = 5  # the last levels, between which few pixels lie
_FINE = 4096  # steps of the table for all others
_MIN_BIN = 20
_MIN_VALUES = 200
_MIN_FLAT = 50
_MAX_COVER = 8  # larger numbers of other groups share one noise factor
_FACTOR_RANGE = (0.4, 10.0)
FACTOR_USUAL = (0.7, 2.0)  # beyond these ERR is off, or the exposure is not as deep as the others


def replace_bad_error(
    err: NDArray[Any], var_rnoise: NDArray[Any] | None, var_poisson: NDArray[Any] | None
) -> NDArray[Any]:
    """ERR where it is finite and positive; else from the variances; else the image's median (float32)."""
    out = err.astype(np.float32, copy=True)
    with np.errstate(invalid="ignore"):
        bad = ~((out > 0) & (out < np.inf))
    if not bad.any():
        return out
    sample = out[::4][~bad[::4]] if not bad[::4].all() else out[~bad]
    usual = float(clipping.median(sample)) if sample.size else np.nan
    out[bad] = usual
    if var_rnoise is not None and var_poisson is not None:
        with np.errstate(invalid="ignore"):
            variance = var_rnoise[bad] + var_poisson[bad]
            out[bad] = np.where(variance > 0, np.sqrt(np.abs(variance)), usual)
    return out


# --- 2. scatter -------------------------------------------------------------------------------------------


def measure_scatter(residual: NDArray[Any], sigma: NDArray[Any]) -> float:
    """Scatter of SCI - sky - model in units of the exposure's own noise, at least 1 (1 where nothing is compared)."""
    scatter = clipping.median_mad(residual[::4, ::4] / sigma[::4, ::4])[1]
    return max(1.0, scatter)


# --- 3. expected noise ------------------------------------------------------------------------------------


def measure_expected_noise(
    model: NDArray[Any],
    err: NDArray[Any],
    var_rnoise: NDArray[Any] | None,
    var_poisson: NDArray[Any] | None,
    good: NDArray[Any],
) -> NDArray[Any]:
    """Noise of a pixel without a hit, float32 (ny, nx): never above ERR, which must be positive.

    ERR where there is no VAR_POISSON, or no model.
    """
    if var_poisson is None:
        return err
    table = _poisson_table(model, var_poisson, good)
    if table is None:
        return err
    usual = _usual_read_noise(var_rnoise)
    fine = _refine(*table)
    out = np.empty_like(err)
    for top in range(0, len(model), _ROWS):  # in bands that stay in cache
        rows = slice(top, top + _ROWS)
        with np.errstate(invalid="ignore"):
            variance = _look_up(model[rows], fine)
            variance += usual if var_rnoise is None else np.where(var_rnoise[rows] > 0, var_rnoise[rows], usual)
            variance[variance == 0] = np.nan
            np.fmin(err[rows], np.sqrt(variance, out=variance), out=out[rows])
    return out


def _usual_read_noise(var_rnoise: NDArray[Any] | None) -> np.float32:
    """Median of the positive read-noise variances; 0 where there are none."""
    if var_rnoise is None:
        return np.float32(0)
    sample = var_rnoise[::4]
    sample = sample[np.isfinite(sample) & (sample > 0)]
    return np.float32(clipping.median(sample)) if sample.size else np.float32(0)


class _Fine(NamedTuple):
    """A table of equal steps for most pixels, and the whole one for the bright rest."""

    first: np.float32
    step: np.float32
    variances: NDArray[Any]
    levels: NDArray[Any]
    table: NDArray[Any]
    slope: float


def _refine(levels: NDArray[Any], variances: NDArray[Any], slope: float) -> _Fine:
    """The lines between levels, in steps that most pixels can look up at once."""
    last = levels[-1 - min(len(levels) - 2, _BRIGHT_BINS)]
    grid = np.linspace(levels[0], last, _FINE)
    step = max(grid[1] - grid[0], np.finfo(np.float32).tiny)
    steps = np.interp(grid, levels, variances).astype(np.float32)
    return _Fine(np.float32(levels[0]), np.float32(step), steps, levels, variances, slope)


def _look_up(model: NDArray[Any], fine: _Fine) -> NDArray[Any]:
    """Photon noise (variance, float32) at the model's values, linear between the levels and beyond the last."""
    place = (model - fine.first) / fine.step
    place += np.float32(0.5)
    np.clip(place, 0, _FINE, out=place)
    bright = place == _FINE
    np.copyto(place, 0, where=np.isnan(place))
    poisson = np.take(fine.variances, place.astype(np.intp), mode="clip")
    poisson[np.isnan(model)] = np.nan
    values = model[bright]
    if values.size:
        beyond = np.maximum(values - fine.levels[-1], 0)
        poisson[bright] = np.interp(values, fine.levels, fine.table) + fine.slope * beyond
    found: NDArray[Any] = poisson
    return found


def _poisson_table(
    model: NDArray[Any], var_poisson: NDArray[Any], good: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], float] | None:
    """Median VAR_POISSON in bins of the model: levels, variances, slope beyond the last."""
    step = max(1, int(np.sqrt(model.size / _SAMPLE)))
    everyone = model[::step, ::step]
    everyone = np.sort(everyone[np.isfinite(everyone)])
    if not everyone.size:
        return None
    limits = everyone[np.rint(np.array(_EDGES) * (everyone.size - 1)).astype(np.intp)]
    with np.errstate(invalid="ignore"):
        use = model > limits[_EDGES.index(_BRIGHT)]
    use[::step, ::step] = True
    at = np.flatnonzero(use)
    values, variance = model.ravel()[at], var_poisson.ravel()[at]
    usable = good.ravel()[at] & np.isfinite(values) & np.isfinite(variance)
    values, variance = values[usable], variance[usable]
    if len(values) < _MIN_VALUES:
        return None
    which = np.searchsorted(limits, values, "left").astype(np.uint8)
    order = np.argsort(which, kind="stable")  # of bytes: a radix sort
    values, variance = values[order], variance[order]
    ends = np.cumsum(np.bincount(which, minlength=len(limits) + 1))
    bins = [slice(a, b) for a, b in pairwise([0, *ends]) if b - a >= _MIN_BIN]
    levels = np.array([clipping.median(values[part]) for part in bins], float)
    noise = np.array([clipping.median(variance[part]) for part in bins], float)
    rising = np.concatenate([[True], np.diff(levels) > 0])
    levels, noise = levels[rising], np.maximum.accumulate(noise[rising])
    if len(levels) < 2:
        return None
    slope = float((noise[-1] - noise[-2]) / (levels[-1] - levels[-2]))
    return levels, noise, slope


# --- 4. and 5. the model's noise --------------------------------------------------------------------------


def measure_noise_factors(
    residual: NDArray[Any], expected: NDArray[Any], flat: NDArray[Any], cover: NDArray[Any]
) -> tuple[NDArray[Any], list[int]]:
    """f_m for m = 0 ... 8 (the last for all above), and the m at which it is unusual.

    Parameters
    ----------
    residual, expected : float32 (ny, nx)
        SCI - sky - model, and s0.
    flat : bool (ny, nx)
        Pixels where the model is flat.
    cover : uint8 (ny, nx)
        m.
    """
    factors = np.full(_MAX_COVER + 1, np.nan)
    use = flat[::3] & np.isfinite(residual[::3])
    values = residual[::3][use] / expected[::3][use]
    which = np.minimum(cover[::3][use], _MAX_COVER)
    for m in range(1, _MAX_COVER + 1):
        part = values[which == m]
        if len(part) >= _MIN_FLAT:
            factors[m] = clipping.median_mad(part)[1]
    known = np.flatnonzero(np.isfinite(factors))
    if not len(known):
        return np.ones(_MAX_COVER + 1), []
    for m in range(_MAX_COVER + 1):
        if not np.isfinite(factors[m]):
            factors[m] = factors[known[np.argmin(np.abs(known - m))]]
    low, high = FACTOR_USUAL
    unusual = [int(m) for m in known if not low <= factors[m] <= high]
    return np.clip(factors, *_FACTOR_RANGE), unusual


def combine_noise(
    mode: str, err: NDArray[Any], expected: NDArray[Any], factors: NDArray[Any], cover: NDArray[Any]
) -> NDArray[Any]:
    """The noise st of a difference, float32: see the parameter ``noise``."""
    if mode == "exposure":
        return err
    factor = np.empty(cover.shape, np.float32)
    for top in range(0, len(cover), _ROWS):
        rows = slice(top, top + _ROWS)
        np.take(factors.astype(np.float32), np.minimum(cover[rows], _MAX_COVER), mode="clip", out=factor[rows])
    if mode == "median":
        found: NDArray[Any] = factor * np.float32(np.median(expected[::3, ::3]))
        return found
    if mode == "both":
        found = np.sqrt(err * err + np.maximum(factor * factor - 1, 0) * expected * expected)
        return found
    factor *= expected
    found = factor
    return found
