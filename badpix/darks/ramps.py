"""What one dark ramp says about its pixel: fits of all ramps of a few rows in a handful of passes.

1. Groups that are flagged DO_NOT_USE in (nearly) the whole frame - first and last frames of MIRI - are left out
   for everybody; the rest are the usable groups, G of them.
2. From each group the median of (group - first group) over a cell (:mod:`badpix.darks.cells`) is taken off.
3. One matrix product over the groups gives mean level, slope, slope of the second half, and the contrasts with
   decaying exponentials that are orthogonal to constant and line: linear current gives 0, a pixel that settles
   (RC) one sign, one that settles from below (inverse RC) the other.
4. The residuals of the line give their variance, their mean size over their rms (0.80 for Gaussian noise, 1 for
   two levels), their correlation at lags of 1 to 3 groups, and, from the steps between neighboring groups without
   the largest (a cosmic ray), the variance of white noise alone. The deepest step down is kept: no particle makes
   one.
5. Jump flags are counted but leave nothing out: the defects themselves set them. Ramps with jumps, and those with a
   step up that no noise makes (a hit without a flag), are looked at a second time (:mod:`badpix.darks.rises`):
   memory, flatness and a second residual variance, ``calm``, are what is left of them beside a step up. Saturated
   and DO_NOT_USE groups are left out; the few ramps that have such groups are fitted one by one, weighted, in
   float64.

Units: DN and groups; rates get their seconds where integrations are combined.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from badpix.darks import scratch
from badpix.darks.cells import Cells, measure_drift, spread, subtract_lines, take
from badpix.darks.group_flags import DO_NOT_USE, UNUSABLE, Counted, count_groups
from badpix.darks.hits import UNFLAGGED, steep_step
from badpix.darks.rises import Columns, Rises

Array = NDArray[np.float32]

BLAS_SIZE = 1 << 18  # multiplications up to which a matrix product stays in one thread
MAX_TEMPLATES = 4
SHORTEST_RAMP = 5  # groups from which noise and shape are measured
SHORTEST_DECAY = 0.7  # groups; each further template decays sqrt(10) times more slowly

SCALARS = ("mean", "slope", "late")
NOISE = ("residual", "white", "flatness", "memory", "drop")
CALM = "calm"  # residual variance beside hits
STEADY = "steady"  # slope beside the step up that fits best, where the ramp rises; else the slope
SUMS = ("squares", "steps", "lag 2", "lag 3", "lowest", "highest", "size", "first", "last")  # what NOISE is made of
MEMORY = (1.0, 0.7, 0.5)  # weights of lags 1 to 3: what a pixel that switches every few groups remembers


@dataclass(frozen=True)
class RampFit:
    """The weights of a ramp of ``ngroups`` groups, of which ``start`` to ``stop`` are usable.

    Attributes
    ----------
    start, stop, ngroups : int
        Usable groups (last one exclusive) of all.
    weights : ndarray
        (3 + number of templates, G) float32: mean level, slope, slope of the second half, contrasts (norm 1).
    design : ndarray
        (G, 2) float32: what mean level and slope contribute to each group.
    bends : ndarray
        (templates, templates) float64, lower triangular: turns contrasts into independent ones of norm 1.
    most_hits : int
        Hits that are taken off a ramp at most (:func:`badpix.darks.hits.most_hits`).
    averaged : bool
        Whether a group is the mean of several frames (NFRAMES).
    first : float
        Mean time of the first usable group since reset, in groups.
    """

    start: int
    stop: int
    ngroups: int
    weights: Array
    design: Array
    bends: NDArray[np.float64]
    most_hits: int = 2
    averaged: bool = False
    first: float = 1.0

    @property
    def usable(self) -> int:
        """Number of usable groups, G."""
        return self.stop - self.start

    @property
    def chunk(self) -> int:
        """Pixels fitted at once: they stay in the cache, and below the size at which BLAS starts threads."""
        return 1 << max(6, (BLAS_SIZE // (len(self.weights) * self.usable)).bit_length() - 1)

    @property
    def templates(self) -> int:
        """Number of contrasts."""
        return len(self.weights) - len(SCALARS)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what :func:`measure_ramps` gives, in order."""
        return SCALARS + contrast_names(self.templates) + NOISE + (CALM, STEADY)


def contrast_names(templates: int) -> tuple[str, ...]:
    """Names of the contrasts, fastest decay first."""
    return tuple(f"contrast_{k}" for k in range(templates))


def ramp_fit(ngroups: int, start: int = 0, stop: int | None = None) -> RampFit:
    """Weights for ramps of ``ngroups`` groups, usable from ``start`` to ``stop``; at least 2 groups.

    Templates decay over 0.7, 2.2, 7 and 22 groups, as far as half the ramp; none below 5 groups.
    """
    stop = ngroups if stop is None else stop
    g = np.arange(stop - start, dtype=np.float64)
    centered = g - g.mean()
    slope = centered / np.sum(centered**2)
    half = np.where(g >= len(g) // 2, g, np.nan)
    late = np.nan_to_num(half - np.nanmean(half))
    late = late / np.sum(late**2) if np.any(late) else slope
    shapes = decays(g) if len(g) >= SHORTEST_RAMP else np.empty((0, len(g)))
    design = np.stack([np.ones(len(g)), centered], axis=1)
    basis, _ = np.linalg.qr(design)
    bent = shapes - (shapes @ basis) @ basis.T
    templates = bent / np.linalg.norm(bent, axis=1, keepdims=True)
    weights = np.concatenate([[np.full(len(g), 1 / len(g)), slope, late], templates])
    bends = np.linalg.inv(np.linalg.cholesky(templates @ templates.T)) if len(templates) else np.empty((0, 0))
    return RampFit(start, stop, ngroups, weights.astype(np.float32), design.astype(np.float32), bends)


def decays(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential decays, fastest first: (templates, G)."""
    times = SHORTEST_DECAY * np.sqrt(10) ** np.arange(MAX_TEMPLATES)
    found: NDArray[np.float64] = np.exp(-g / times[(times <= len(g) / 2) | (np.arange(MAX_TEMPLATES) == 0)][:, None])
    return found


@cache
def largest_share(n: int) -> float:
    """Mean of the largest of ``n`` squared Gaussian numbers over the mean sum of all."""
    step = 0.01
    return math.fsum(1 - math.erf(math.sqrt(step * k / 2)) ** n for k in range(6001)) * step / n


def usable_groups(groupdq: NDArray[np.uint8], science: NDArray[np.bool_]) -> tuple[int, int]:
    """First and last (exclusive) group that is not DO_NOT_USE in more than half of the science pixels.

    Parameters
    ----------
    groupdq : ndarray
        (ngroups, rows, nx) uint8, a sample of rows.
    science : ndarray
        (rows, nx) bool.

    Returns
    -------
    tuple of int
        ``(start, stop)``; the same number twice where no group is usable.
    """
    flagged = ((groupdq & DO_NOT_USE) != 0)[:, science]
    good = np.flatnonzero(flagged.mean(axis=1) <= 0.5) if flagged.size else np.arange(len(groupdq))
    return (int(good[0]), int(good[-1]) + 1) if len(good) else (0, 0)


# --- fits -------------------------------------------------------------------------------------------------


def measure_ramps(
    ramps: Array,
    groupdq: NDArray[np.uint8],
    fit: RampFit,
    cells: Cells,
    out: Array | None = None,
    drift: Array | None = None,
    later: Rises | None = None,
    counted: Counted | None = None,
) -> tuple[Array, NDArray[np.uint16]]:
    """Measure all ramps of one integration in some tiles.

    Parameters
    ----------
    ramps : ndarray
        (G, rows, nx) float32 in any byte order: the usable groups of the jump file's SCI.
    groupdq : ndarray
        (G, rows, nx) uint8.
    fit : RampFit
        From :func:`ramp_fit`.
    cells : Cells
        From :func:`make_cells`.
    out : ndarray, optional
        Where the values go.
    drift : ndarray, optional
        What :func:`badpix.darks.cells.measure_drift` gives of the ramps, where that is known.
    later : Rises, optional
        Where ramps that jump or rise wait (:func:`wait_for`); measured at once, if not given.
    counted : tuple, optional
        What :func:`count_groups` gives of the flags, where that is known.

    Returns
    -------
    values : ndarray
        (len(fit.names), rows * nx) float32, NaN where not measured: mean level, slope and late slope (DN/group),
        contrasts (DN), residual variance and white variance (DN^2), flatness (mean over rms of the residuals),
        memory (their correlation), deepest step down (DN), residual variance beside hits; where there are jumps,
        flatness and memory are those beside hits too.
    counts : ndarray
        (2, rows * nx) uint16: groups used, jumps.
    """
    groups, rows, nx = ramps.shape
    flags = groupdq.reshape(groups, -1)
    values = np.empty((len(fit.names), rows * nx), np.float32) if out is None else out
    drift = measure_drift(ramps, cells) if drift is None else drift
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        steep = _fit_tiles(ramps, drift, fit, cells, values)
    counts, jumped, cut = count_groups(flags) if counted is None else counted
    odd = cut if np.isfinite(values[1]).all() else np.union1d(cut, np.flatnonzero(~np.isfinite(values[1])))
    if groups > SHORTEST_RAMP:
        rises = wait_for(fit) if later is None else later
        steep = steep[counts[1, steep] == 0]  # of the others the flags say how many
        jumps = counts[1]
        if steep.size:
            jumps = jumps.copy()
            jumps[steep] = UNFLAGGED
        rises.add(ramps, drift, cells, values, jumps, (np.append(jumped, steep), odd))
        if later is None:
            rises.finish()
    if odd.size:
        values[:, odd], counts[0, odd] = _fit_irregular(take(ramps, odd, drift, cells), flags[:, odd], fit)
    return values, counts


def wait_for(fit: RampFit) -> Rises:
    """A place where ramps that jump or rise wait, to be measured together."""
    first = len(SCALARS) + fit.templates
    rows = {name: first + NOISE.index(name) for name in ("residual", "white", "flatness", "memory")}
    columns = Columns(**rows, calm=first + len(NOISE), steady=first + len(NOISE) + 1)
    return Rises(fit.design, MEMORY, columns, most_hits=fit.most_hits, averaged=fit.averaged)


def _fit_tiles(ramps: Array, drift: Array, fit: RampFit, cells: Cells, values: Array) -> NDArray[np.intp]:
    """All of ``values`` as if every group were good, in runs of pixels that start with their tile.

    Returned are the pixels whose ramps hold a step up that no noise makes: hits, whatever the flags say.
    """
    groups, rows, nx = ramps.shape
    linear = len(SCALARS) + fit.templates
    n = cells.rows * nx
    room = scratch.take("fits", (2 * groups, n))
    sums, offset = scratch.take("sums", (len(SUMS), rows * nx)), scratch.take("offset", (groups, nx))
    offset[:] = 0
    flat, chunk = ramps.reshape(groups, -1), fit.chunk
    for t, first in enumerate(range(0, rows * nx, n)):
        last = min(first + n, rows * nx)
        found, (y, r) = values[:, first:last], room[:, : last - first].reshape(2, groups, -1)
        np.copyto(y, flat[:, first:last])
        subtract_lines(y, spread(drift[:, t], cells, offset))
        for x in range(0, last - first, chunk):
            here = slice(x, x + chunk)
            np.matmul(fit.weights, y[:, here], out=found[:linear, here])
            np.matmul(fit.design, found[:2, here], out=r[:, here])
        np.subtract(y, r, out=r)
        _sum_residuals(r, y[1:], sums[:, first:last])
    _describe_noise(sums, groups, values[1], values[linear : linear + len(NOISE)])
    values[linear + len(NOISE)] = values[linear + NOISE.index("residual")]
    values[-1] = values[1]
    return _find_steep(sums, groups, values[linear + NOISE.index("white")])


def _sum_residuals(r: Array, step: Array, sums: Array) -> None:
    """The :data:`SUMS` of residuals (G, pixels), which are overwritten; ``step`` is room for their steps."""
    squares, steps, lag_2, lag_3, lowest, highest, size, first, last = sums
    np.einsum("gp,gp->p", r, r, out=squares)
    np.subtract(r[1:], r[:-1], out=step)
    np.einsum("gp,gp->p", step, step, out=steps)
    np.einsum("gp,gp->p", r[2:], r[:-2], out=lag_2)
    np.einsum("gp,gp->p", r[3:], r[:-3], out=lag_3)
    np.minimum.reduce(step, axis=0, out=lowest)
    np.maximum.reduce(step, axis=0, out=highest)
    first[:], last[:] = r[0], r[-1]
    np.abs(r, out=r)
    np.add.reduce(r, axis=0, out=size)


def _describe_noise(sums: Array, groups: int, slope: Array, out: Array) -> None:
    """The numbers of :data:`NOISE` from the sums of ramps of ``groups`` groups, which are overwritten."""
    if groups < SHORTEST_RAMP:
        out[:] = np.nan
        return
    squares, steps, lag_2, lag_3, lowest, highest, size, first, last = sums
    residual, white, flatness, memory, drop = out
    room = scratch.take("noise", (2, len(squares)))
    # the product of neighbors follows from squares and steps
    lagged = np.multiply(squares, 2, out=memory)
    for end in (first, last):
        lagged -= np.square(end, out=room[0])
    lagged -= steps
    lagged *= np.float32(MEMORY[0] / 2)
    rest = np.multiply(lag_2, np.float32(MEMORY[1]), out=room[0])
    rest += np.multiply(lag_3, np.float32(MEMORY[2]), out=room[1])
    lagged += rest
    lagged /= squares
    # about their mean without the largest: a particle also tilts the line, and so shifts all other steps
    np.add(lowest, slope, out=drop)  # a step of the ramp itself: one strong hit tilts the line
    depth = np.negative(lowest, out=lowest)
    sign = np.negative(np.subtract(depth, highest, out=room[0]), out=room[0])  # a choice by pixel is slower
    largest = np.copysign(np.maximum(highest, depth, out=highest), sign, out=highest)
    rest = np.subtract(last, first, out=room[0])
    rest -= largest
    np.square(rest, out=rest)
    rest /= np.float32(groups - 2)
    np.square(largest, out=largest)
    largest += rest
    np.subtract(steps, largest, out=white)
    white /= np.float32(2 * (groups - 1) * (1 - largest_share(groups - 1)))
    np.divide(squares, np.float32(groups - 2), out=residual)
    np.multiply(squares, np.float32(groups), out=room[0])
    np.divide(size, np.sqrt(room[0], out=room[0]), out=flatness)


def _find_steep(sums: Array, groups: int, white: Array) -> NDArray[np.intp]:
    """Ramps whose largest step is one up that no noise makes, from what :func:`_describe_noise` left in ``sums``."""
    depth, squared = sums[SUMS.index("lowest")], sums[SUMS.index("highest")]  # of the deepest and the largest step
    limit = np.multiply(white, np.float32(2 * steep_step(groups) ** 2), out=scratch.take("noise", (2, len(white)))[0])
    large = np.flatnonzero(squared > limit)
    found: NDArray[np.intp] = large[np.square(depth[large]) < np.float32(0.5) * squared[large]]
    return found


def _fit_irregular(y: Array, flags: NDArray[np.uint8], fit: RampFit) -> tuple[Array, NDArray[np.uint16]]:
    """Ramps with saturated, unusable or missing groups: (len(fit.names), pixels) and the number of groups used.

    A ramp with one good group gets its level over the cell's first group, by its time, as slope: all that is known of
    a pixel that saturates in the second group. Contrasts need the whole ramp.
    """
    if y.shape[1] == 1:  # numpy adds up a single column in another order
        values, counts = _fit_irregular(np.repeat(y, 2, axis=1), np.repeat(flags, 2, axis=1), fit)
        return values[:, :1], counts[:1]
    good = ((flags & UNUSABLE) == 0) & np.isfinite(y)
    n = good.sum(axis=0)
    d = np.where(good, y, 0).astype(np.float64)
    g = np.arange(len(y), dtype=np.float64)[:, None]
    out = np.full((len(fit.names), y.shape[1]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, slope, residual = _fit_line(d, g, good)
        alone = mean / (fit.first + (g * good).sum(axis=0))  # the mean of averaged frames lies before their end
        out[0], out[1] = mean, np.where(n == 1, alone, slope)
        half = good & (g >= len(y) // 2)
        out[2] = np.where(half.sum(axis=0) >= 2, _fit_line(d, g, half)[1], np.nan)
        first = len(SCALARS) + fit.templates
        out[first : first + len(NOISE)] = _measure_gaps(residual, good)
        out[first + NOISE.index("drop")] += slope
        out[first + len(NOISE)] = out[first]
        out[first:, n < SHORTEST_RAMP] = np.nan
        out[-1] = out[1]
    out[:, n == 0] = np.nan
    return out.astype(np.float32), n.astype(np.uint16)


def _fit_line(
    d: NDArray[np.float64], g: NDArray[np.float64], good: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, slope and residuals (0 where not good) of the least-squares line through the good groups."""
    n = good.sum(axis=0)
    center = np.where(good, g, 0).sum(axis=0) / n
    mean = np.where(good, d, 0).sum(axis=0) / n
    x = np.where(good, g - center, 0)
    slope = np.sum(x * d, axis=0) / np.sum(x * x, axis=0)
    return mean, slope, np.where(good, d - mean - slope * x, 0)


def _measure_gaps(residual: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What :func:`_describe_noise` gives, for ramps with gaps: (5, pixels)."""
    n = good.sum(axis=0)
    squares = np.sum(residual**2, axis=0)
    pairs = good[1:] & good[:-1]
    step = np.where(pairs, np.diff(residual, axis=0), 0)
    count = pairs.sum(axis=0)
    kept = 1 - np.array([largest_share(int(k)) if k > 1 else 0.0 for k in range(len(good))])
    largest = np.where(step.max(axis=0) > -step.min(axis=0), step.max(axis=0), step.min(axis=0))
    rest = step.sum(axis=0) - largest
    white = (np.sum(step**2, axis=0) - largest**2 - rest**2 / (count - 1)) / (2 * count * kept[count])
    lagged = sum(w * np.sum(residual[k:] * residual[:-k], axis=0) for k, w in enumerate(MEMORY, 1))
    flatness = np.abs(residual).sum(axis=0) / np.sqrt(squares * n)
    return np.stack([squares / (n - 2), white, flatness, lagged / squares, step.min(axis=0)])
