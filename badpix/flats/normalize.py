"""The normalized flat: what each pixel sees, as a fraction of what the pixels around it see.

1. 2. Samples and their mean (:mod:`badpix.flats.samples`).
3. Illumination S (:mod:`badpix.flats.illumination`).
4. N = mean / S, corrected for interpixel capacitance: N' = (N - rho S4(N)) / (1 - 4 rho), with S4 the sum of the
   side neighbors (missing ones 0, unmeasured ones 1). Without it a dead pixel reads 4 rho of its neighbors.

The documented variants (one constant around the frame, median smoothing, clipped mean, no normalization) and a
photutils background mesh are parameters. Sources: jwst_reffiles documentation;
Moore, Ninkov & Forrest 2006, Optical Engineering 45, 076402 (interpixel capacitance).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.flats.dispersed import measure_bright
from badpix.flats.illumination import measure_coarse, measure_illumination
from badpix.numerics import clipping, ipc, neighbors
from badpix.numerics import smoothing as numerics_smoothing

BRIGHT = 4.0  # normalized rate of pixels that show the coupling
FEW = 10  # of them are too few
LENT = 2.0  # of the light: more than that beside a far brighter pixel is that one's charge
FAR_BRIGHTER = 10.0  # times
SEEN = 0.1  # of the bright light: less couples too little into lit pixels

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


# --- the documented and the other normalizations ---------------------------------------------------------


def measure_padded(mean: Float, width: int) -> NDArray[np.float32]:
    """Box mean with the image's median around the frame (documented): NaN pixels are left out."""
    half = width // 2
    padded = np.pad(mean, half, constant_values=np.float32(np.nanmedian(mean)))
    smooth, _ = numerics_smoothing.measure_box_mean(padded, np.isfinite(padded), width)
    return smooth[half:-half, half:-half]


def measure_median(mean: Float, width: int, padded: bool) -> NDArray[np.float32]:
    """Median of a box, reflected at the frame; NaN pixels take the box mean first, unless documented."""
    from scipy.ndimage import median_filter

    filled = mean if padded else np.where(np.isfinite(mean), mean, np.nan_to_num(measure_coarse(mean)))
    out: NDArray[np.float32] = median_filter(filled, width, mode="reflect")
    return out


def measure_mesh(mean: Float, width: int) -> NDArray[np.float32]:
    """Robust background mesh of photutils: sigma-clipped medians of cells, spline between them."""
    from astropy.stats import SigmaClip
    from photutils.background import Background2D, MedianBackground

    cell = tuple(min(width, n) for n in mean.shape)
    missing = ~np.isfinite(mean)
    mesh = Background2D(
        np.where(missing, 0, mean),
        cell,
        mask=missing,
        filter_size=3,
        exclude_percentile=90,
        sigma_clip=SigmaClip(3),
        bkg_estimator=MedianBackground(),
    )
    out: NDArray[np.float32] = mesh.background.astype(np.float32)
    return out


def measure_normalized(
    mean: Float,
    *,
    method: str,
    smoothing: str,
    width: int,
    edges: str,
    sigma: float,
    mask_sigma: float,
    iterations: int,
) -> NDArray[np.float32]:
    """The mean flat divided by what its pixels should see: (ny, nx), NaN where not measured."""
    width += 1 - width % 2
    padded = edges == "padded"
    if method == "none":
        return mean.astype(np.float32)
    if method == "mean":
        divisor: Any = clipping.clip_values(mean, sigma=sigma, iterations=5)[0]
    elif method == "mesh":
        divisor = measure_mesh(mean, width)
    elif smoothing == "Median":
        divisor = measure_median(mean, width, padded)
    elif padded:
        divisor = measure_padded(mean, width)
    else:
        divisor = measure_illumination(mean, width=width, mask_sigma=mask_sigma, iterations=iterations)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = (mean / divisor).astype(np.float32)
    norm[~np.isfinite(norm)] = np.nan
    found: NDArray[np.float32] = norm
    return found


# --- 4: interpixel capacitance ---------------------------------------------------------------------------


def measure_ipc(norm: Float, expected: float) -> float:
    """Coupling rho to each side neighbor, from the pixels that respond least.

    An isolated dead pixel reads 4 rho. If at least three isolated pixels lie well below what the detector's
    constant makes of a dead pixel, and no more than twice as many where it puts them, the coupling is smaller than
    that constant: their median tells how much.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalized rate.
    expected : float
        The detector's constant.
    """
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero(norm < 1.3 * 4 * expected)
    sides = neighbors.sides_at(norm, y, x, np.nan)
    with np.errstate(invalid="ignore"):
        least = norm[y, x][(np.abs(sides - 1) < 0.3).all(axis=0)]
    below = least[least < 0.7 * 4 * expected]
    if below.size < max(3, (least.size - below.size) / 2):
        return expected
    return float(np.clip(np.median(below) / 4, 0, expected))


def measure_ipc_of_bright(norm: Float) -> float | None:
    """Coupling rho from pixels far brighter than their surroundings (hot ones); None where too few are there.

    Of a charge that stands out, each side neighbor shows rho and the pixel itself 1 - 4 rho. The median over
    isolated pixels (nothing odd in the ring two pixels away), if its error is below a thousandth.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalized rate.
    """
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero(norm[2:-2, 2:-2] > BRIGHT)
    if y.size < FEW:
        return None
    box = np.lib.stride_tricks.sliding_window_view(norm, (5, 5))[y, x]
    ring = np.concatenate([box[:, 0], box[:, 4], box[:, 1:4, 0], box[:, 1:4, 4]], axis=1)
    sides = np.stack([box[:, 1, 2], box[:, 3, 2], box[:, 2, 1], box[:, 2, 3]], axis=1)
    with np.errstate(invalid="ignore"):
        alone = (np.abs(ring - 1) < 0.3).all(axis=1) & np.isfinite(sides).all(axis=1)
    base = np.median(ring[alone], axis=1)
    ratio = (sides[alone].mean(axis=1) - base) / (box[alone, 2, 2] - base)
    center, spread = clipping.median_mad(ratio)
    if ratio.size < FEW or spread / np.sqrt(ratio.size) > 0.001:
        return None
    return float(np.clip(ipc.fraction_of(center), 0, 0.05))


def measure_pile(norm: Float, *, above: float) -> tuple[int, float]:
    """Isolated pixels that read the same little, as dead ones do where more charge couples in than was taken out.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalized rate, corrected.
    above : float
        Normalized rate below which pixels are called DEAD.

    Returns
    -------
    int, float
        Their number and median; 0 where the lowest isolated pixels do not read the same, or are called DEAD.
    """
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero(norm < 0.3)
        alone = (np.abs(neighbors.sides_at(norm, y, x, np.nan) - 1) < 0.3).all(axis=0)
    lowest = np.sort(norm[y, x][alone])
    if lowest.size < FEW or lowest[0] < above:
        return 0, float("nan")
    pile, beyond = np.searchsorted(lowest, lowest[0] + np.array([0.03, 0.06]))
    return (int(pile), float(np.median(lowest[:pile]))) if pile >= FEW and beyond - pile < pile / 3 else (0, np.nan)


def find_lent(rate: Float, least: Float | float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of pixels whose signal is that of a hot neighbor: what they show couples no further.

    Without them a correction by the neighbors' *measured* signal takes rho^2 of a hot pixel from the ring two pixels
    away, and calls good pixels there dead.

    Parameters
    ----------
    rate : ndarray
        (ny, nx) rate, NaN where not measured (saturated).
    least : ndarray or float
        Signal above which a pixel next to one :data:`FAR_BRIGHTER`, or without a rate, has it from there.
    """
    with np.errstate(invalid="ignore"):
        y, x = neighbors.locate(rate > least)
        sides = neighbors.sides_at(rate, y, x, 0)
        lent = (sides > FAR_BRIGHTER * rate[y, x]).any(axis=0) | np.isnan(sides).any(axis=0)
    return y[lent], x[lent]


def correct_ipc(norm: Float, rho: float) -> NDArray[np.float32]:
    """The normalized rate without the charge that couples in from the side neighbors: (ny, nx).

    Missing neighbors beyond the frame count 0 (reference pixels collect no light), unmeasured ones and those beside
    hot pixels (:func:`find_lent`) 1.
    """
    if rho == 0:
        return norm.astype(np.float32)
    ny, nx = norm.shape
    out = np.empty(norm.shape, np.float32)
    for rows in numerics_smoothing.blocks(ny):
        known = np.zeros((rows.stop - rows.start + 2, nx + 2), np.float32)
        first, last = max(0, rows.start - 1), min(ny, rows.stop + 1)
        inner = known[first - rows.start + 1 : last - rows.start + 1, 1:-1]
        inner[...] = norm[first:last]
        inner[~np.isfinite(inner)] = 1
        total = known[:-2, 1:-1] + known[2:, 1:-1] + known[1:-1, :-2] + known[1:-1, 2:]
        total *= np.float32(-rho)
        total += norm[rows]
        np.divide(total, np.float32(1 - 4 * rho), out=out[rows])
    y, x = find_lent(norm, LENT)
    back = np.float32(rho / (1 - 4 * rho)) * (norm[y, x] - 1)
    for dy, dx in neighbors.SIDES:
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        np.add.at(out, (y[inside] + dy, x[inside] + dx), back[inside])
    return out


def correct_ipc_of_light(mean: Float, light: Float, rho: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Rate and light without coupled charge, DN/s, where the light is steep: m - rho S4(m) and s - rho S4(s).

    Their ratio is the normalized rate.

    Parameters
    ----------
    mean, light : ndarray
        (ny, nx) mean rate and what the pixels should see, NaN where not measured: unmeasured neighbors and those
        beside hot pixels see the light, missing ones count 0.
    rho : float
        Coupling to each side neighbor.
    """
    light = np.nan_to_num(light)
    known = np.where(np.isfinite(mean), mean, light)
    lent = find_lent(mean, np.maximum(LENT * light, SEEN * measure_bright(light)))
    known[lent] = light[lent]
    rate, own = mean - np.float32(rho) * sum_sides(known), light - np.float32(rho) * sum_sides(light)
    return rate.astype(np.float32), own.astype(np.float32)


def sum_sides(image: Float) -> Float:
    """Sum of the four side neighbors, those beyond the frame 0: (ny, nx)."""
    total = np.zeros_like(image)
    total[1:] += image[:-1]
    total[:-1] += image[1:]
    total[:, 1:] += image[:, :-1]
    total[:, :-1] += image[:, 1:]
    return total
