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
   two levels), and, from differences of neighbouring groups, the variance of white noise alone.
5. Jump flags are counted but leave nothing out: the defects themselves set them. Saturated and DO_NOT_USE groups
   are left out; the few ramps that have such groups are fitted one by one, weighted, in float64.

Units: DN and groups; rates get their seconds where integrations are combined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix import dq

SATURATED = np.uint8(dq.VALUE["SATURATED"])
DO_NOT_USE = np.uint8(dq.VALUE["DO_NOT_USE"])
JUMP_DET = np.uint8(dq.VALUE["JUMP_DET"])

CELL_PIXELS = 512  # enough that the median of a cell adds 0.3 % to the variance of a sample
MAX_TILE_ROWS = 16
MAX_TEMPLATES = 4
SHORTEST_DECAY = 0.7  # groups; each further template decays sqrt(10) times more slowly

SCALARS = ("mean", "slope", "late")
NOISE = ("residual", "white", "flatness")


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
    """

    start: int
    stop: int
    ngroups: int
    weights: NDArray[np.float32]
    design: NDArray[np.float32]

    @property
    def usable(self) -> int:
        """Number of usable groups, G."""
        return self.stop - self.start

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

    Templates decay over 0.7, 2.2, 7 and 22 groups, as far as a third of the ramp; none below 5 usable groups.
    """
    stop = ngroups if stop is None else stop
    g = np.arange(stop - start, dtype=np.float64)
    centred = g - g.mean()
    half = np.where(g >= len(g) // 2, g, np.nan)
    late = np.nan_to_num(half - np.nanmean(half))
    late = late / np.sum(late**2) if np.any(late) else centred / np.sum(centred**2)
    rows = [np.full(len(g), 1 / len(g)), centred / np.sum(centred**2), late]
    rows += _templates(g) if len(g) >= 5 else []
    design = np.stack([np.ones(len(g)), centred], axis=1)
    return RampFit(start, stop, ngroups, np.stack(rows).astype(np.float32), design.astype(np.float32))


def _templates(g: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Decays made orthogonal to constant and line, with norm 1, positive at the first group."""
    basis, _ = np.linalg.qr(np.stack([np.ones(len(g)), g], axis=1))
    decays = SHORTEST_DECAY * np.sqrt(10) ** np.arange(MAX_TEMPLATES)
    rows = []
    for tau in decays[(decays <= len(g) / 3) | (np.arange(MAX_TEMPLATES) == 0)]:
        shape = np.exp(-g / tau)
        shape -= basis @ (basis.T @ shape)
        rows.append(shape / np.linalg.norm(shape))
    return rows


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
        columns = tuple(
            part for a, b in zip(edges[:-1], edges[1:], strict=True) for part in _split(first + int(a), first + int(b))
        )
    narrowest = min(len(range(c.start, c.stop, c.step or 1)) for c in columns)
    rows = 2
    while rows < MAX_TILE_ROWS and rows * narrowest < CELL_PIXELS:
        rows *= 2
    return Cells(rows, columns)


def _split(start: int, stop: int) -> list[slice]:
    """Equal runs of about 512 columns."""
    parts = max(1, round((stop - start) / CELL_PIXELS))
    edges = [start + (stop - start) * k // parts for k in range(parts + 1)]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def measure_cell_medians(values: NDArray[np.float32], cells: Cells, samples: int = CELL_PIXELS) -> NDArray[np.float32]:
    """Median of each plane over each cell of one tile: (planes, number of cells).

    ``values`` is (planes, rows, nx); about ``samples`` pixels of a cell are used, NaN are left out. A cell without
    any finite value gives 0.
    """
    out = np.empty((len(values), len(cells.columns)), np.float32)
    for k, columns in enumerate(cells.columns):
        cell = values[:, :, columns]
        step = max(1, cell.shape[1] * cell.shape[2] // samples)
        sample = np.ascontiguousarray(cell[:, :, ::step]).reshape(len(values), -1)
        out[:, k] = _median_rows(sample)
    return out


def _median_rows(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lower median of each row without its NaN; 0 where there is nothing else."""
    count = sample.shape[1] - np.isnan(sample).sum(axis=1)
    middle = (count - 1) // 2
    if np.all(count == sample.shape[1]):
        return np.partition(sample, middle[0], axis=1)[:, middle[0]]
    ordered = np.sort(sample, axis=1)
    found = np.take_along_axis(ordered, np.maximum(middle, 0)[:, None], axis=1)[:, 0]
    return np.where(count > 0, found, np.float32(0))


def subtract_cells(values: NDArray[np.float32], medians: NDArray[np.float32], cells: Cells) -> None:
    """Take the medians of the cells off ``values`` (planes, rows, nx), in place."""
    for k, columns in enumerate(cells.columns):
        values[:, :, columns] -= medians[:, k, None, None]


# --- fits -------------------------------------------------------------------------------------------------


def measure_ramps(
    ramps: NDArray[np.float32], groupdq: NDArray[np.uint8], fit: RampFit, cells: Cells
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Measure all ramps of one tile and one integration.

    Parameters
    ----------
    ramps : ndarray
        (G, rows, nx) float32, the usable groups of the jump file's SCI; a workspace: the medians are taken off in
        place.
    groupdq : ndarray
        (G, rows, nx) uint8.
    fit : RampFit
        From :func:`ramp_fit`.
    cells : Cells
        From :func:`make_cells`.

    Returns
    -------
    values : ndarray
        (len(fit.names), rows * nx) float32, NaN where not measured: mean level, slope and late slope (DN/group),
        contrasts (DN), residual variance and white variance (DN^2), flatness (mean over rms of the residuals).
    counts : ndarray
        (2, rows * nx) uint16: groups used, jumps.
    """
    groups = len(ramps)
    medians = _relative_medians(ramps, cells)
    subtract_cells(ramps, medians, cells)
    y, flags = ramps.reshape(groups, -1), groupdq.reshape(groups, -1)
    values = np.empty((len(fit.names), y.shape[1]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        _fit_regular(y, fit, values)
    counts = np.empty((2, y.shape[1]), np.uint16)
    counts[0] = groups
    counts[1] = _count_flag(flags, JUMP_DET)
    seen = np.bitwise_or.reduce(flags, axis=0) & (SATURATED | DO_NOT_USE)
    odd = np.flatnonzero((seen != 0) | ~np.isfinite(values[len(SCALARS) + fit.templates]))
    if odd.size:
        values[:, odd], counts[0, odd] = _fit_irregular(y[:, odd], flags[:, odd], fit)
    return values, counts


def _relative_medians(ramps: NDArray[np.float32], cells: Cells) -> NDArray[np.float32]:
    """Median over each cell of (group - first group), plus that of the first group."""
    out = np.empty((len(ramps), len(cells.columns)), np.float32)
    for k, columns in enumerate(cells.columns):
        cell = ramps[:, :, columns]
        step = max(1, cell.shape[1] * cell.shape[2] // CELL_PIXELS)
        sample = np.ascontiguousarray(cell[:, :, ::step]).reshape(len(ramps), -1)
        level = _median_rows(sample[:1])
        sample -= sample[0].copy()
        out[:, k] = _median_rows(sample) + level
    return out


def _fit_regular(y: NDArray[np.float32], fit: RampFit, values: NDArray[np.float32]) -> None:
    """All ramps as if every group were good; ramps with flagged groups are replaced afterwards."""
    linear = len(SCALARS) + fit.templates
    np.matmul(fit.weights, y, out=values[:linear])
    work = np.matmul(fit.design, values[:2])
    np.subtract(y, work, out=work)
    _measure_residuals(work, values[linear:])


def _measure_residuals(r: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Residual variance, white variance, flatness of residuals (G, pixels), which are overwritten."""
    groups = len(r)
    if groups < 3:
        out[:] = np.nan
        return
    squares = np.einsum("gp,gp->p", r, r)
    step = np.subtract(r[1:], r[:-1])
    out[0] = squares / (groups - 2)
    out[1] = np.einsum("gp,gp->p", step, step) / (2 * (groups - 1))
    np.abs(r, out=r)
    with np.errstate(divide="ignore"):
        out[2] = r.sum(axis=0) / np.sqrt(squares * groups)


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
        squares = np.sum(residual**2, axis=0)
        pairs = good[1:] & good[:-1]
        steps = np.where(pairs, np.diff(residual, axis=0), 0)
        out[-3] = np.where(n > 2, squares / (n - 2), np.nan)
        out[-2] = np.where(n > 2, np.sum(steps**2, axis=0) / (2 * pairs.sum(axis=0)), np.nan)
        out[-1] = np.where(n > 2, np.abs(residual).sum(axis=0) / np.sqrt(squares * n), np.nan)
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
