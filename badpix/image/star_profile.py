"""The profile of a star as an exposure's pixels see it: a smooth function of the distance from the star's middle.

What a pixel gets of a star depends on where in the pixel the star lies, and with an undersampled PSF by much. Stars
at many such phases together tell the function itself (Anderson & King 2000, PASP 112, 1360, the "effective PSF"):
here a bicubic B-spline with two knots a pixel, over the 5 x 5 pixels of a stamp, fitted by least squares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REACH = 2  # pixels of a stamp to each side
HALF = REACH + 0.5
KNOT = 0.5  # pixels
INTERVALS = round(2 * HALF / KNOT)
SPLINES = INTERVALS + 3
SMOOTH = 1e-4  # weight of second differences, in units of the mean weight of a coefficient


def stamp_offsets() -> tuple[NDArray[Any], NDArray[Any]]:
    """Offsets (y, x) of the 25 pixels of a stamp from its middle, in the order of ``gather``."""
    y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].reshape(2, -1).astype(float)
    return y, x


def spline_basis(offset: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any]]:
    """Of the four cubic B-splines at each offset (pixels): the index of the first, their values and derivatives."""
    t = (offset + HALF) * (1 / KNOT)
    first = np.clip(np.floor(t), 0, INTERVALS - 1).astype(np.intp)
    f = t - first
    g = 1 - f
    f2, g2 = f * f, g * g
    values = np.stack([g2 * g, (3 * f - 6) * f2 + 4, (3 * g - 6) * g2 + 4, f2 * f]) * (1 / 6)
    slopes = np.stack([-g2, (3 * f - 4) * f, (4 - 3 * g) * g, f2]) * (0.5 / KNOT)
    return first, values, slopes


def evaluate_profile(
    profile: NDArray[Any], dx: NDArray[Any], dy: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The profile at offsets from the star's middle, and its derivatives along x and y."""
    (ix, vx, gx), (iy, vy, gy) = spline_basis(dx), spline_basis(dy)
    flat = profile.reshape(-1)
    start = iy * SPLINES + ix
    value, along_x, along_y = np.zeros((3, *dx.shape))
    for j in range(4):
        line, slope = np.zeros((2, *dx.shape))
        for i in range(4):
            c = np.take(flat, start + (j * SPLINES + i))
            line += c * vx[i]
            slope += c * gx[i]
        value += line * vy[j]
        along_x += slope * vy[j]
        along_y += line * gy[j]
    return value, along_x, along_y


def fit_profile(value: NDArray[Any], weight: NDArray[Any], dx: NDArray[Any], dy: NDArray[Any]) -> NDArray[Any]:
    """The profile through pixels of stars, by weighted least squares with a little smoothness.

    Parameters
    ----------
    value : float (n,)
        Pixels over the star's flux.
    weight : float (n,)
        0 where a pixel doesn't count.
    dx, dy : float (n,)
        Offsets of the pixels from their star's middle, pixels.

    Returns
    -------
    float (SPLINES, SPLINES)
        Coefficients [y, x].
    """
    use = (weight > 0) & (np.abs(dx) < HALF) & (np.abs(dy) < HALF)
    value, weight = value[use], weight[use]
    (ix, vx, _), (iy, vy, _) = spline_basis(dx[use]), spline_basis(dy[use])
    n = SPLINES**2
    start = iy * SPLINES + ix
    steps = [j * SPLINES + i for j in range(4) for i in range(4)]
    basis = [vy[j] * vx[i] for j in range(4) for i in range(4)]
    right, normal = np.zeros(n), np.zeros((n, n))
    for k, step in enumerate(steps):
        weighted = weight * basis[k]
        right += np.bincount(start + step, weighted * value, n)
        for other, more in zip(basis[k:], steps[k:], strict=True):
            # all pairs with one distance between their places lie on one diagonal
            found = np.bincount(start + step, weighted * other, n)
            rows = np.arange(n - (more - step))
            normal[rows, rows + (more - step)] += found[: len(rows)]
    lower = np.tril_indices(n, -1)
    normal[lower] = normal.T[lower]
    scale = np.trace(normal) / n
    second = np.diff(np.eye(SPLINES), 2, axis=0)
    bend, one = SMOOTH * scale * (second.T @ second), np.eye(SPLINES)
    normal += np.kron(bend, one) + np.kron(one, bend)
    normal[np.diag_indices(n)] += 1e-7 * scale
    return np.linalg.solve(normal, right).reshape(SPLINES, SPLINES)
