"""What one dark ramp says about its pixel: fits of all ramps of a few rows in a handful of passes.

1. Groups that are flagged DO_NOT_USE in (nearly) the whole frame - first and last frames of MIRI - are left out
   for everybody; the rest are the usable groups, G of them.
2. From each group the median of (group - first group) over a *cell* is taken off: the pixels of one amplifier in a
   few rows. Amplifier offsets, what is left of the 1/f noise and the drift that all pixels share go with it.
   Cells lie at fixed rows, so the result does not depend on how the frame is cut into bands.
3. One matrix product over the groups gives mean level, slope, slope of the second half, and the contrasts with
   decaying exponentials that are orthogonal to constant and line: linear current gives 0, a pixel that settles
   (RC) one sign, one that settles from below (inverse RC) the other.
4. The residuals of the line give their variance, their mean size over their rms (0.80 for Gaussian noise, 1 for
   two levels), their correlation at lags of 1 to 3 groups, and, from the steps between neighbouring groups without
   the largest (a cosmic ray), the variance of white noise alone. The deepest step down is kept: no particle makes
   one.
5. Jump flags are counted but leave nothing out: the defects themselves set them. Saturated and DO_NOT_USE groups
   are left out; the few ramps that have such groups are fitted one by one, weighted, in float64.

Units: DN and groups; rates get their seconds where integrations are combined.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from badpix import dq

SATURATED = np.uint8(dq.VALUE["SATURATED"])
DO_NOT_USE = np.uint8(dq.VALUE["DO_NOT_USE"])
JUMP_DET = np.uint8(dq.VALUE["JUMP_DET"])

CELL_PIXELS = 512  # aimed at in a cell
SAMPLE_PIXELS = 256  # of these for the median: it adds 0.6 % to the variance of a ramp's noise
BLAS_SIZE = 1 << 18  # multiplications up to which a matrix product stays in one thread
MAX_TILE_ROWS = 16
MAX_TEMPLATES = 4
SHORTEST_RAMP = 5  # groups from which noise and shape are measured
SHORTEST_DECAY = 0.7  # groups; each further template decays sqrt(10) times more slowly

SCALARS = ("mean", "slope", "late")
NOISE = ("residual", "white", "flatness", "memory", "drop")
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
    pulls : ndarray
        (templates,) float64: slope of a decay over its contrast.
    """

    start: int
    stop: int
    ngroups: int
    weights: NDArray[np.float32]
    design: NDArray[np.float32]
    bends: NDArray[np.float64]
    pulls: NDArray[np.float64]

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
        return SCALARS + contrast_names(self.templates) + NOISE


def contrast_names(templates: int) -> tuple[str, ...]:
    """Names of the contrasts, fastest decay first."""
    return tuple(f"contrast_{k}" for k in range(templates))


def ramp_fit(ngroups: int, start: int = 0, stop: int | None = None) -> RampFit:
    """Weights for ramps of ``ngroups`` groups, usable from ``start`` to ``stop``; at least 2 groups.

    Templates decay over 0.7, 2.2, 7 and 22 groups, as far as half the ramp; none below 5 groups.
    """
    stop = ngroups if stop is None else stop
    g = np.arange(stop - start, dtype=np.float64)
    centred = g - g.mean()
    slope = centred / np.sum(centred**2)
    half = np.where(g >= len(g) // 2, g, np.nan)
    late = np.nan_to_num(half - np.nanmean(half))
    late = late / np.sum(late**2) if np.any(late) else slope
    decays = _decays(g) if len(g) >= SHORTEST_RAMP else np.empty((0, len(g)))
    design = np.stack([np.ones(len(g)), centred], axis=1)
    basis, _ = np.linalg.qr(design)
    bent = decays - (decays @ basis) @ basis.T
    templates = bent / np.linalg.norm(bent, axis=1, keepdims=True)
    weights = np.concatenate([[np.full(len(g), 1 / len(g)), slope, late], templates])
    bends = np.linalg.inv(np.linalg.cholesky(templates @ templates.T)) if len(templates) else np.empty((0, 0))
    pulls = (decays @ slope) / np.linalg.norm(bent, axis=1)
    return RampFit(start, stop, ngroups, weights.astype(np.float32), design.astype(np.float32), bends, pulls)


def _decays(g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential decays, fastest first: (templates, G)."""
    times = SHORTEST_DECAY * np.sqrt(10) ** np.arange(MAX_TEMPLATES)
    return np.exp(-g / times[(times <= len(g) / 2) | (np.arange(MAX_TEMPLATES) == 0)][:, None])


@cache
def largest_share(n: int) -> float:
    """Mean of the largest of ``n`` squared Gaussian numbers over the mean sum of all."""
    x = np.linspace(0, 60, 6001)
    largest = np.sum(1 - special.erf(np.sqrt(x / 2)) ** n) * (x[1] - x[0])
    return float(largest / n)


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


# --- cells ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """How a frame is cut for the medians: tiles of ``rows`` rows, and in each the columns of every cell."""

    rows: int
    columns: tuple[slice, ...]


def make_cells(amplifiers: NDArray[np.uint8], reference: NDArray[np.bool_]) -> Cells:
    """Cells of a frame: one amplifier each, at least 512 pixels where the frame is large enough.

    Parameters
    ----------
    amplifiers : ndarray
        (ny, nx) number of the amplifier of each pixel.
    reference : ndarray
        (ny, nx) bool; columns of reference pixels alone belong to no cell.
    """
    science = np.flatnonzero(~reference.all(axis=0))
    first, last = (int(science[0]), int(science[-1]) + 1) if len(science) else (0, reference.shape[1])
    row = amplifiers[len(amplifiers) // 2, first:last]
    if np.any(np.diff(row.astype(int)) < 0):  # interleaved: every fourth column
        columns = tuple(slice(first + k, last, 4) for k in range(4))
    else:
        edges = [0, *(np.flatnonzero(np.diff(row)) + 1), len(row)]
        columns = tuple(part for a, b in pairwise(edges) for part in _split(first + int(a), first + int(b)))
    narrowest = min(len(range(c.start, c.stop, c.step or 1)) for c in columns)
    rows = 2
    while rows < MAX_TILE_ROWS and rows * narrowest < CELL_PIXELS:
        rows *= 2
    return Cells(rows, columns)


def _split(start: int, stop: int) -> list[slice]:
    """Equal runs of about 512 columns."""
    parts = max(1, round((stop - start) / CELL_PIXELS))
    edges = [start + (stop - start) * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def measure_cell_medians(values: NDArray[np.float32], cells: Cells) -> NDArray[np.float32]:
    """Median of each plane over each cell: (planes, number of tiles, number of cells in a tile).

    ``values`` is (planes, rows, nx), a whole number of tiles except at the end of the frame; about 256 pixels of a
    cell are used, NaN are left out. A cell without any finite value gives 0.
    """
    tiles = range(0, values.shape[1], cells.rows)
    out = np.empty((len(values), len(tiles), len(cells.columns)), np.float32)
    for t, y in enumerate(tiles):
        for k, columns in enumerate(cells.columns):
            out[:, t, k] = _median_rows(_sample(values[:, y : y + cells.rows], columns))
    return out


def measure_drift(ramps: NDArray[np.float32], cells: Cells) -> NDArray[np.float32]:
    """Median over each cell of (group - first group), plus that of the first group: (groups, tiles, cells)."""
    tiles = range(0, ramps.shape[1], cells.rows)
    out = np.empty((len(ramps), len(tiles), len(cells.columns)), np.float32)
    for t, y in enumerate(tiles):
        for k, columns in enumerate(cells.columns):
            sample = _sample(ramps[:, y : y + cells.rows], columns)
            level = _median_rows(sample[:1].copy())
            sample -= sample[0].copy()
            out[:, t, k] = _median_rows(sample) + level
    return out


def _sample(values: NDArray[np.float32], columns: slice) -> NDArray[np.float32]:
    """Evenly spaced pixels of a cell, native byte order: (planes, pixels)."""
    cell = values[:, :, columns]
    step = max(1, cell.shape[1] * cell.shape[2] // SAMPLE_PIXELS)
    return cell[:, :, ::step].astype(np.float32, order="C").reshape(len(values), -1)


def _median_rows(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower median of each row without its NaN; 0 where there is nothing else. The sample is sorted."""
    sample.sort(axis=1)
    last = sample.shape[1] - 1
    if not np.isnan(sample[:, last]).any():
        return sample[:, last // 2]
    count = last + 1 - np.isnan(sample).sum(axis=1)
    found = np.take_along_axis(sample, np.maximum(count - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.where(count > 0, found, np.float32(0))


def subtract_cells(values: NDArray[np.float32], medians: NDArray[np.float32], cells: Cells) -> NDArray[np.float32]:
    """A copy of ``values`` (planes, rows, nx) in native byte order, minus the medians of their cells."""
    out = values.astype(np.float32)
    row = np.zeros((len(values), 1, values.shape[2]), np.float32)
    for t, y in enumerate(range(0, values.shape[1], cells.rows)):
        for k, columns in enumerate(cells.columns):
            row[:, 0, columns] = medians[:, t, k, None]
        out[:, y : y + cells.rows] -= row
    return out


# --- fits -------------------------------------------------------------------------------------------------


def measure_ramps(
    ramps: NDArray[np.float32],
    groupdq: NDArray[np.uint8],
    fit: RampFit,
    cells: Cells,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
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

    Returns
    -------
    values : ndarray
        (len(fit.names), rows * nx) float32, NaN where not measured: mean level, slope and late slope (DN/group),
        contrasts (DN), residual variance and white variance (DN^2), flatness (mean over rms of the residuals),
        memory (their correlation), deepest step down (DN).
    counts : ndarray
        (2, rows * nx) uint16: groups used, jumps.
    """
    groups, rows, nx = ramps.shape
    values = np.empty((len(fit.names), rows * nx), np.float32) if out is None else out
    counts = np.empty((2, rows * nx), np.uint16)
    for start in range(0, rows, cells.rows):
        tile = slice(start, min(start + cells.rows, rows))
        pixels = slice(start * nx, tile.stop * nx)
        y = subtract_cells(ramps[:, tile], measure_drift(ramps[:, tile], cells), cells).reshape(groups, -1)
        _measure_tile(y, groupdq[:, tile].reshape(groups, -1), fit, values[:, pixels], counts[:, pixels])
    return values, counts


def _measure_tile(
    y: NDArray[np.float32],
    flags: NDArray[np.uint8],
    fit: RampFit,
    values: NDArray[np.float32],
    counts: NDArray[np.uint16],
) -> None:
    """Ramps of one tile, in runs of pixels that are the same for any height of a band."""
    with np.errstate(invalid="ignore", over="ignore"):
        for x in range(0, y.shape[1], fit.chunk):
            part = slice(x, x + fit.chunk)
            _fit_regular(y[:, part], fit, values[:, part])
    counts[0] = len(y)
    counts[1] = _count_flag(flags, JUMP_DET)
    odd = np.flatnonzero((np.bitwise_or.reduce(flags, axis=0) & (SATURATED | DO_NOT_USE)) | ~np.isfinite(values[1]))
    if odd.size:
        values[:, odd], counts[0, odd] = _fit_irregular(y[:, odd], flags[:, odd], fit)


def _fit_regular(y: NDArray[np.float32], fit: RampFit, values: NDArray[np.float32]) -> None:
    """Ramps as if every group were good; those with flagged groups are replaced afterwards."""
    linear = len(SCALARS) + fit.templates
    values[:linear] = fit.weights @ y
    residuals = fit.design @ values[:2]
    np.subtract(y, residuals, out=residuals)
    _measure_residuals(residuals, values[linear:])
    values[-1] += values[1]  # a step of the ramp itself: one strong hit tilts the line


def _measure_residuals(r: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """The numbers of :data:`NOISE` from residuals (G, pixels), which are overwritten."""
    groups = len(r)
    if groups < SHORTEST_RAMP:
        out[:] = np.nan
        return
    squares = np.einsum("gp,gp->p", r, r)
    out[0] = squares / np.float32(groups - 2)
    step = r[1:] - r[:-1]
    steps = np.einsum("gp,gp->p", step, step)
    # the product of neighbours follows from squares and steps
    lagged = np.float32(MEMORY[0] / 2) * (2 * squares - r[0] ** 2 - r[-1] ** 2 - steps)
    for lag in (2, 3):
        lagged += np.float32(MEMORY[lag - 1]) * np.einsum("gp,gp->p", r[lag:], r[:-lag])
    out[4], highest = step.min(axis=0), step.max(axis=0)
    largest = np.where(highest > -out[4], highest, out[4])
    # about their mean without the largest: a particle also tilts the line, and so shifts all other steps
    steps -= largest**2 + (r[-1] - r[0] - largest) ** 2 / np.float32(groups - 2)
    out[1] = steps / np.float32(2 * (groups - 1) * (1 - largest_share(groups - 1)))
    np.abs(r, out=r)
    with np.errstate(divide="ignore"):
        out[2] = r.sum(axis=0) / np.sqrt(squares * np.float32(groups))
        out[3] = lagged / squares


def _count_flag(flags: NDArray[np.uint8], flag: np.uint8) -> NDArray[np.uint16]:
    shift = int(flag).bit_length() - 1
    return ((flags >> np.uint8(shift)) & np.uint8(1)).sum(axis=0, dtype=np.uint16)


def _fit_irregular(
    y: NDArray[np.float32], flags: NDArray[np.uint8], fit: RampFit
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Ramps with saturated, unusable or missing groups: (len(fit.names), pixels) and the number of groups used.

    A ramp with one good group gets its level over the cell's first group as slope: all that is known of a pixel
    that saturates in the second group. Contrasts need the whole ramp.
    """
    good = ((flags & (SATURATED | DO_NOT_USE)) == 0) & np.isfinite(y)
    n = good.sum(axis=0)
    d = np.where(good, y, 0).astype(np.float64)
    g = np.arange(len(y), dtype=np.float64)[:, None]
    out = np.full((len(fit.names), y.shape[1]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, slope, residual = _fit_line(d, g, good)
        out[0], out[1] = mean, np.where(n == 1, mean, slope)
        half = good & (g >= len(y) // 2)
        out[2] = np.where(half.sum(axis=0) >= 2, _fit_line(d, g, half)[1], np.nan)
        first = len(SCALARS) + fit.templates
        out[first:] = _measure_gaps(residual, good)
        out[-1] += slope
        out[first:, n < SHORTEST_RAMP] = np.nan
    out[:, n == 0] = np.nan
    return out.astype(np.float32), n.astype(np.uint16)


def _fit_line(
    d: NDArray[np.float64], g: NDArray[np.float64], good: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, slope and residuals (0 where not good) of the least-squares line through the good groups."""
    n = good.sum(axis=0)
    centre = np.where(good, g, 0).sum(axis=0) / n
    mean = np.where(good, d, 0).sum(axis=0) / n
    x = np.where(good, g - centre, 0)
    slope = np.sum(x * d, axis=0) / np.sum(x * x, axis=0)
    return mean, slope, np.where(good, d - mean - slope * x, 0)


def _measure_gaps(residual: NDArray[np.float64], good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What :func:`_measure_residuals` gives, for ramps with gaps: (5, pixels)."""
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
