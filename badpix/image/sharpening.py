"""Sharpening of the model: drizzle blurs by about a pixel, and the exposure itself tells by how much.

1. A kernel of sum zero is fitted where the model b is steep, SCI - sky - b = sum_k c_k (b shifted by k - b), by
   least squares from which hits drop out in four reweightings.
2. Its sum is added to the model on steep pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics import clipping
from badpix.numerics.neighbors import chunks, gather, locate

STEEP_APPLY = 2.0  # sigma a pixel above which the kernel is applied
_STEEP_FIT = 5.0  # sigma a pixel above which pixels take part in the kernel fit
_MIN_FIT = 500  # pixels
_MAX_FIT = 30_000


class Sharpening(NamedTuple):
    """The learned kernel (side x side, sum zero), the pixels used, and the common shift it took, pixels."""

    kernel: NDArray[Any]
    pixels: int
    shift: tuple[float, float]


def fit_sharpening(
    residual: NDArray[Any], model: NDArray[Any], sigma: NDArray[Any], derivative: NDArray[Any], *, size: int
) -> Sharpening | None:
    """Fit the kernel that turns the model into the exposure; None where fewer than 500 steep pixels exist.

    Parameters
    ----------
    residual : float32 (ny, nx)
        SCI - sky - model, NaN on bad pixels.
    model : float32 (ny, nx)
    sigma : float32 (ny, nx)
        Positive noise.
    derivative : float32 (ny, nx)
        Of the model.
    size : int
        Odd width of the kernel.
    """
    reach = size // 2
    level = float(np.median(sigma[::7, ::7]))
    with np.errstate(invalid="ignore"):
        ys, xs = locate((derivative > _STEEP_FIT * level) & np.isfinite(residual))
    if len(ys) > _MAX_FIT:
        step = -(-len(ys) // _MAX_FIT)
        ys, xs = ys[::step], xs[::step]
    stamps = gather(model, ys, xs, reach)
    whole = np.isfinite(stamps).all(axis=0)
    ys, xs, stamps = ys[whole], xs[whole], stamps[:, whole]
    if len(ys) < _MIN_FIT:
        return None
    center = stamps.shape[0] // 2
    columns = np.delete(stamps, center, axis=0).astype(float)
    columns -= stamps[center]
    near = stamps.reshape(size, size, -1)[reach - 1 : reach + 2, reach - 1 : reach + 2].reshape(9, -1)
    floor = float(np.nanmedian(model[::7, ::7]))
    error = sigma[ys, xs] + 0.15 * np.ptp(near, axis=0) + 0.02 * np.abs(stamps[center] - floor)
    columns /= error
    solution = _robust_solve(columns, residual[ys, xs] / error)
    kernel = np.insert(solution, center, -solution.sum()).reshape(size, size)
    offsets = np.arange(size) - reach
    shift = float((kernel * offsets).sum()), float((kernel * offsets[:, None]).sum())
    return Sharpening(kernel, len(ys), shift)


def _robust_solve(columns: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """Least squares with four reweightings: cut at 4 MAD, gently falling weights below."""
    weight = np.ones(len(target))
    solution = np.zeros(len(columns))
    for _ in range(5):
        weighted = columns * weight
        matrix = weighted @ columns.T
        matrix[np.diag_indices_from(matrix)] += 1e-6 * np.trace(matrix) / len(matrix)
        solution = np.linalg.solve(matrix, weighted @ target)
        left = target - solution @ columns
        center, scale = clipping.median_mad(left)
        if not scale > 0:
            break
        scaled = np.abs(left - center) / scale
        weight = np.where(scaled < 4, 1 / np.sqrt(1 + (scaled / 2) ** 2), 0)
    return solution


def apply_sharpening(model: NDArray[Any], fit: Sharpening, steep: NDArray[Any]) -> NDArray[Any]:
    """The model plus the kernel's sum on ``steep`` pixels (bool); neighbors that are NaN change nothing."""
    out = model.copy()
    ys, xs = locate(steep & np.isfinite(model))
    reach = fit.kernel.shape[0] // 2
    for part in chunks(len(ys)):
        y, x = ys[part], xs[part]
        stamps = gather(model, y, x, reach)
        stamps -= stamps[len(stamps) // 2].copy()
        np.copyto(stamps, 0, where=np.isnan(stamps))
        out[y, x] += np.einsum("k,kp->p", fit.kernel.ravel().astype(np.float32), stamps)
    return out
