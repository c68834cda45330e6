"""The normalised flat: what each pixel sees, as a fraction of what the pixels around it see.

1. Each sample (a rate image, or an integration of a rateints file) is divided by its own median over the science
   pixels, because lamps drift; every 16th row is enough for a median of a hundred thousand pixels.
2. Per pixel: mean of the samples that survive sigma clipping (3 sigma around the median, 5 rounds). The median
   level is put back, so that the mean stays in DN/s. With 7 samples or fewer a lone outlier can't be clipped at 3
   sigma: its deviation is below N / sqrt(N - 1) standard deviations.
3. Illumination S (:mod:`badpix.flats.illumination`).
4. N = mean / S, corrected for interpixel capacitance: N' = (N - rho S4(N)) / (1 - 4 rho), with S4 the sum of the
   side neighbours (missing ones 0, unmeasured ones 1). Without it a dead pixel reads 4 rho of its neighbours.

The documented variants (one constant around the frame, median smoothing, clipped mean, no normalisation) and a
photutils background mesh are parameters. Sources: jwst_reffiles documentation; project notes on methods, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.flats.illumination import measure_coarse, measure_illumination
from badpix.io.exposure import Exposure, band_height
from badpix.io.fits import Layout, bands, read_band
from badpix.io.tasks import Progress, run_in_order
from badpix.numerics import clipping, neighbors
from badpix.numerics import smoothing as numerics_smoothing

BRIGHT = 4.0  # normalised rate of pixels that show the coupling
FEW = 10  # of them are too few

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


class Sample(NamedTuple):
    """One slope image: a plane of a file, and what to multiply it with."""

    layout: Layout
    plane: int
    scale: float


# --- 1, 2: the mean flat ---------------------------------------------------------------------------------


def measure_samples(
    rates: Sequence[Exposure], science: Bool, lamp_scaling: str, axis: int | None = None
) -> list[Sample]:
    """All slope images of the flats with the factor that takes out the lamp's drift.

    Parameters
    ----------
    rates : sequence of Exposure
        Slope images.
    science : ndarray of bool
        (ny, nx) science pixels.
    lamp_scaling : str
        ``median`` or ``none``.
    axis : int or None
        Axis along which light is dispersed; then bright pixels give the level, for most may be unlit.

    Raises
    ------
    DataError
        If an image has no finite science pixel or no light.
    """
    levels, places = [], []
    first: NDArray[np.float32] | None = None
    for exposure in rates:
        layout = exposure["SCI"]
        for plane in range(layout.planes):
            if axis is None:
                level = _median_level(layout, plane, science)
            else:
                values = _lines_across(layout, plane, science, axis)
                first = values if first is None else first
                level = measure_bright_level(values, first)
            if not np.isfinite(level):
                raise DataError(f"{exposure.path}: integration {plane + 1}: no science pixel has a finite slope")
            if lamp_scaling == "median" and level <= 0:
                raise DataError(f"{exposure.path}: integration {plane + 1}: median rate {level:.4g} DN/s; not a flat")
            levels.append(level)
            places.append((layout, plane))
    typical = float(np.median(levels))
    factors = [typical / level if lamp_scaling == "median" else 1.0 for level in levels]
    return [Sample(layout, plane, f) for (layout, plane), f in zip(places, factors, strict=True)]


def _median_level(layout: Layout, plane: int, science: Bool) -> float:
    step = 16 if science.shape[0] >= 512 else 1
    rows = read_band(layout, 0, science.shape[0], planes=[plane], step=step)[0]
    values = rows[science[::step] & np.isfinite(rows)]
    return float(clipping.median(values)) if values.size else float("nan")


def _lines_across(layout: Layout, plane: int, science: Bool, axis: int) -> NDArray[np.float32]:
    """Every 16th line across the dispersion, whole, so that no slit is missed; NaN on reference pixels: (n,)."""
    ny = len(science)
    step = 16 if science.shape[axis] >= 512 else 1
    if axis == 0:
        rows, inside = read_band(layout, 0, ny, planes=[plane], step=step)[0], science[::step]
    else:
        rows, inside = read_band(layout, 0, ny, planes=[plane])[0][:, ::step], science[:, ::step]
    return np.where(inside, rows, np.nan).ravel().astype(np.float32)


def measure_bright_level(values: Float, first: Float) -> float:
    """Level of a sample whose light lies on few pixels: that of the first sample times the median ratio to it.

    Both medians are weighted with the light of the first sample, cut at its 99.5th percentile: unlit pixels have
    next to no weight, hot ones not much. NaN without a finite pixel.
    """
    good = np.isfinite(values) & np.isfinite(first) & (first > 0)
    if not good.any():
        return 0.0 if np.isfinite(values).any() else float("nan")
    base, weight = first[good].astype(np.float64), np.minimum(first[good], np.quantile(first[good], 0.995))
    return _weighted_median(values[good] / base, weight) * _weighted_median(base, weight)


def _weighted_median(values: Float, weight: Float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order], dtype=np.float64)
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def measure_mean(
    samples: Sequence[Sample], *, sigma: float, memory: float, executor: Executor | None, tick: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Clipped mean rate (DN/s) and number of samples kept: (ny, nx) each.

    Parameters
    ----------
    samples : sequence of Sample
        From :func:`measure_samples`.
    sigma : float
        Clipping, in standard deviations.
    memory : float
        Bytes that the samples of a band may take.
    executor : Executor or None
        Where bands are worked on.
    tick : callable
        ``tick(bands done, bands in all)``.
    """
    ny, nx = samples[0].layout.shape[-2:]
    mean = np.empty((ny, nx), np.float32)
    count = np.empty((ny, nx), np.int16)
    rows = bands(ny, min(128, band_height(len(samples) * nx * 4, memory, ny)))
    task = partial(_mean_of_band, list(samples), sigma)
    results = run_in_order(executor, task, rows, tick)
    for (start, stop), (band_mean, band_count) in zip(rows, results, strict=True):
        mean[start:stop], count[start:stop] = band_mean, band_count
    return mean, count


def _mean_of_band(
    samples: Sequence[Sample], sigma: float, rows: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    start, stop = rows
    nx = samples[0].layout.shape[-1]
    block = np.empty((len(samples), stop - start, nx), np.float32)
    band: NDArray[Any] | None = None
    for k, sample in enumerate(samples):
        band = None if band is None or band.dtype != sample.layout.dtype else band  # float64 files are legal
        band = read_band(sample.layout, start, stop, planes=[sample.plane], out=band)
        np.multiply(band[0], np.float32(sample.scale), out=block[k])
    return clipping.clip_stack(block, sigma=sigma, iterations=5)


# --- the documented and the other normalisations ---------------------------------------------------------


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


def measure_normalised(
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
    return norm


# --- 4: interpixel capacitance ---------------------------------------------------------------------------


def measure_ipc(norm: Float, expected: float) -> float:
    """Coupling rho to each side neighbour, from the pixels that respond least.

    An isolated dead pixel reads 4 rho. If at least three isolated pixels lie well below what the detector's
    constant makes of a dead pixel, the coupling is smaller than that constant: their median tells how much.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalised rate.
    expected : float
        The detector's constant.
    """
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero(norm < 0.7 * 4 * expected)
    sides = neighbors.sides_at(norm, y, x, np.nan)
    with np.errstate(invalid="ignore"):
        below = norm[y, x][(np.abs(sides - 1) < 0.3).all(axis=0)]
    if below.size < 3:
        return expected
    return float(np.clip(np.median(below) / 4, 0, expected))


def measure_ipc_of_bright(norm: Float) -> float | None:
    """Coupling rho from pixels far brighter than their surroundings (hot ones); None where too few are there.

    Of a charge that stands out, each side neighbour shows rho and the pixel itself 1 - 4 rho. The median over
    isolated pixels (nothing odd in the ring two pixels away), if its error is below a thousandth.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalised rate.
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
    return float(np.clip(center / (1 + 4 * center), 0, 0.05))


def measure_pile(norm: Float, *, above: float) -> tuple[int, float]:
    """Isolated pixels that read the same little, as dead ones do where more charge couples in than was taken out.

    Parameters
    ----------
    norm : ndarray
        (ny, nx) normalised rate, corrected.
    above : float
        Normalised rate below which pixels are called DEAD.

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


def correct_ipc(norm: Float, rho: float) -> NDArray[np.float32]:
    """The normalised rate without the charge that couples in from the side neighbours: (ny, nx).

    Missing neighbours beyond the frame count 0 (reference pixels collect no light), unmeasured ones 1.
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
    return out


def correct_ipc_of_light(mean: Float, light: Float, rho: float) -> NDArray[np.float32]:
    """The normalised rate without coupled charge where the light is steep: N' = (m - rho S4(m)) / (s - rho S4(s)).

    Parameters
    ----------
    mean, light : ndarray
        (ny, nx) mean rate and what the pixels should see, NaN where not measured: unmeasured neighbours see the
        light, missing ones count 0.
    rho : float
        Coupling to each side neighbour.
    """
    light = np.nan_to_num(light)
    known = np.where(np.isfinite(mean), mean, light)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = (mean - rho * sum_sides(known)) / (light - rho * sum_sides(light))
    norm[~np.isfinite(norm)] = np.nan
    out: NDArray[np.float32] = norm.astype(np.float32)
    return out


def sum_sides(image: Float) -> Float:
    """Sum of the four side neighbours, those beyond the frame 0: (ny, nx)."""
    total = np.zeros_like(image)
    total[1:] += image[:-1]
    total[:-1] += image[1:]
    total[:, 1:] += image[:, :-1]
    total[:, :-1] += image[:, 1:]
    return total
