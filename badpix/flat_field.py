"""The normalised flat: what each pixel sees, as a fraction of what the pixels around it see.

1. Each sample (a rate image, or an integration of a rateints file) is divided by its own median over the science
   pixels, because lamps drift; every 16th row is enough for a median of a hundred thousand pixels.
2. Per pixel: mean of the samples that survive sigma clipping (3 sigma around the median, 5 rounds). The median
   level is put back, so that the mean stays in DN/s. With 7 samples or fewer a lone outlier can't be clipped at 3
   sigma: its deviation is below N / sqrt(N - 1) standard deviations.
3. Illumination S: box mean over the pixels that exist, divided by their number (no padding). Defects must not pull
   it: starting from a coarse illumination (medians of 32 x 32 cells, median-filtered over 5 x 5 cells, so that a
   cluster smaller than about 70 pixels can't pull it either, and larger ones with sharp edges are told from
   vignetted areas, see :func:`find_dark_areas`), pixels that deviate by more than `mask_sigma`, and the
   3 x 3 around those below 0.7, get no weight; repeated until nothing changes. Where less than a tenth of the
   box has weight, the coarse illumination takes over.
4. N = mean / S, corrected for interpixel capacitance: N' = (N - rho S4(N)) / (1 - 4 rho), with S4 the sum of the
   side neighbours (missing ones 0, unmeasured ones 1). Without it a dead pixel reads 4 rho of its neighbours.

The documented variants (one constant around the frame, median smoothing, clipped mean, no normalisation) and a
photutils background mesh are parameters. Sources: jwst_reffiles documentation; project notes on methods, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import stats
from badpix.errors import DataError
from badpix.exposures import Exposure, Layout, band_height, bands, read_band
from badpix.medians import local_median, median_at, median_rows

CELL = 32  # pixels, side of a cell of the coarse illumination
SHADOW = 0.7  # normalised rate below which a pixel's neighbours are left out of the smoothing, too
UNLIT = 0.15  # of the coarse illumination: wide patches below it are weak themselves or get little light
SEEN = 5.0  # standard deviations above zero: less light than that tells nothing
EDGE = 8  # pixels around an area in the dark that belong to its soft edge
SHARP = 0.9  # share of the pixels touching a dead area that see what those further out see
BRIGHT = 4.0  # normalised rate of pixels that show the coupling
FEW = 10  # of them are too few
MIN_WEIGHT = 0.1  # share of the box that must have weight for its mean to count

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]
Tick = Callable[[int, int], None]


class Sample(NamedTuple):
    """One slope image: a plane of a file, and what to multiply it with."""

    layout: Layout
    plane: int
    scale: float


# --- 1, 2: the mean flat ---------------------------------------------------------------------------------


def measure_samples(rates: Sequence[Exposure], science: Bool, lamp_scaling: str) -> list[Sample]:
    """All slope images of the flats with the factor that takes out the lamp's drift.

    Raises
    ------
    DataError
        If an image has no finite science pixel or no light.
    """
    levels, places = [], []
    for exposure in rates:
        layout = exposure["SCI"]
        for plane in range(layout.planes):
            level = _median_level(layout, plane, science)
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
    return float(stats.median(values)) if values.size else float("nan")


def measure_mean(
    samples: Sequence[Sample], *, sigma: float, memory: float, executor: Executor | None, tick: Tick
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
    results = map(task, rows) if executor is None else executor.map(task, rows)
    for done, ((start, stop), (band_mean, band_count)) in enumerate(zip(rows, results, strict=True), 1):
        mean[start:stop], count[start:stop] = band_mean, band_count
        tick(done, len(rows))
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
    return stats.clip_stack(block, sigma=sigma, iterations=5)


# --- 3: illumination -------------------------------------------------------------------------------------


def measure_illumination(mean: Float, *, width: int, mask_sigma: float, iterations: int) -> NDArray[np.float32]:
    """Smooth illumination of a flat that its defects do not pull: (ny, nx), NaN where nothing is near.

    Parameters
    ----------
    mean : ndarray
        (ny, nx) mean rate, NaN where not measured.
    width : int
        Width of the box, odd.
    mask_sigma : float
        Deviation beyond which a pixel gets no weight.
    iterations : int
        Rounds at the most; 0 smooths once with all pixels.
    """
    measured = np.isfinite(mean)
    if iterations == 0:
        return stats.measure_box_mean(mean, measured, width)[0]
    coarse = measure_coarse(mean)
    smooth, weight = coarse, np.zeros(mean.shape, bool)
    for _ in range(iterations):
        again = _fitting(mean, smooth, measured, mask_sigma)
        if np.array_equal(again, weight):
            break
        weight = again
        smooth = _box_or_coarse(mean, weight, width, coarse)
    smooth[~np.isfinite(coarse)] = np.nan  # no light there
    return _look_again(mean, smooth, coarse, width)


def _look_again(mean: Float, smooth: Float, coarse: Float, width: int) -> NDArray[np.float32]:
    """The local median instead, around pixels that look low: at the steep edge of a shadow it follows the light."""
    with np.errstate(invalid="ignore", divide="ignore"):
        y, x = np.nonzero(stats.grow(mean / smooth < SHADOW))
        local = median_at(mean, (width, width), y, x)
        lit = local > UNLIT * coarse[y, x]
    smooth[y[lit], x[lit]] = local[lit]
    return smooth


def _box_or_coarse(mean: Float, weight: Bool, width: int, coarse: Float) -> NDArray[np.float32]:
    smooth, share = stats.measure_box_mean(mean, weight, width)
    np.copyto(smooth, coarse, where=share < MIN_WEIGHT)
    return smooth


def _fitting(mean: Float, smooth: Float, measured: Bool, mask_sigma: float) -> Bool:
    """Pixels that may take part in the smoothing."""
    weight, shadow = measured.copy(), np.empty(mean.shape, bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        center, spread = stats.median_mad(stats.thin(mean) / stats.thin(smooth))
        for rows in stats.blocks(len(mean)):
            norm = mean[rows] / smooth[rows]
            np.less(norm, SHADOW, out=shadow[rows])
            weight[rows] &= ~(np.abs(norm - center) > mask_sigma * spread) & np.isfinite(norm)
    weight &= ~stats.grow(shadow)
    return weight


def measure_coarse(mean: Float) -> NDArray[np.float32]:
    """Illumination on a mesh of cell medians, interpolated: no defect smaller than a few cells shows."""
    ny, nx = mean.shape
    my, mx = -(-ny // CELL), -(-nx // CELL)
    mesh = np.empty((my, mx), mean.dtype)
    for k in range(my):
        row = np.full((CELL, mx * CELL), np.nan, mean.dtype)
        part = mean[k * CELL : (k + 1) * CELL]
        row[: len(part), :nx] = part
        mesh[k] = median_rows(row.reshape(CELL, mx, CELL).swapaxes(0, 1).reshape(mx, CELL * CELL))
    with np.errstate(invalid="ignore"):
        dark = mesh < UNLIT * np.nanmedian(mesh) if np.isfinite(mesh).any() else np.zeros(mesh.shape, bool)
    if not dark.any():
        return _spread(mesh, mean.shape)
    weak, level = find_dark_areas(mean, _spread(np.where(dark, np.nan, mesh), mean.shape))
    without = weak | np.isfinite(level)
    for k in range(my):
        share = np.add.reduceat(without[k * CELL : (k + 1) * CELL].sum(axis=0), np.arange(0, nx, CELL))
        mesh[k, share > CELL**2 / 4] = np.nan
    coarse = _spread(mesh, mean.shape)
    np.copyto(coarse, level, where=np.isfinite(level))
    coarse[level == 0] = np.nan
    return coarse


def find_dark_areas(mean: Float, light: Float) -> tuple[Bool, NDArray[np.float32]]:
    """Large areas with little signal: those that are weak themselves, and the level of those that get little light.

    What is dark for want of light (vignetted, behind a mask) has an edge as wide as the image of that edge; an
    area of weak or dead pixels ends from one pixel to the next: the pixels that touch it see what those four pixels
    further out see. Areas in the dark whose level is not above their noise tell nothing about their pixels.

    Parameters
    ----------
    mean, light : ndarray
        (ny, nx) mean rate, and illumination as it is outside the dark areas.

    Returns
    -------
    weak : ndarray of bool
        (ny, nx).
    level : ndarray of float32
        (ny, nx) median rate of each area in the dark and the soft edge around it, 0 where that tells nothing; NaN
        elsewhere.
    """
    from scipy import ndimage

    with np.errstate(invalid="ignore"):
        number, _ = ndimage.label(mean < UNLIT * light)
    weak, level = np.zeros(mean.shape, bool), np.full(mean.shape, np.nan, np.float32)
    sizes = np.bincount(number.ravel())
    for one in np.flatnonzero(sizes[1:] > CELL**2) + 1:
        area = number == one
        if _is_sharp(mean, area):
            weak |= area
        else:
            center, noise = stats.median_mad(mean[area])
            level[ndimage.binary_dilation(area, np.ones((3, 3)), EDGE)] = center if center > SEEN * noise else 0
    return weak, level


def _is_sharp(mean: Float, area: Bool) -> bool:
    """Whether the pixels that touch an area see what those four pixels further out see."""
    from scipy import ndimage

    touching, near = (ndimage.binary_dilation(area, np.ones((3, 3)), k) for k in (1, 3))
    outside = mean[ndimage.binary_dilation(near, np.ones((3, 3)), 2) & ~near]
    outside, edge = outside[np.isfinite(outside)], mean[touching & ~area]
    return bool(outside.size and edge.size and np.mean(edge > SHADOW * np.median(outside)) > SHARP)


def _spread(mesh: Float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A mesh of cells filled, median-filtered and interpolated to all pixels."""
    ny, nx = shape
    mesh = _fill(local_median(mesh, (5, 5), outside=np.nan, where=np.ones(mesh.shape, bool)))
    tall = _interpolate(mesh.T, ny).T
    out = np.empty((ny, nx), np.float32)
    for rows in stats.blocks(ny):
        out[rows] = _interpolate(tall[rows], nx)
    return out


def _interpolate(mesh: Float, n: int) -> Float:
    """Columns of a mesh of cells interpolated to ``n`` pixels; constant beyond the centres of the outer cells."""
    cells = mesh.shape[1]
    edges = np.minimum(np.arange(cells + 1) * CELL, n)
    centers = (edges[:-1] + edges[1:] - 1) / 2
    place = np.interp(np.arange(n), centers, np.arange(cells))
    low = np.minimum(place.astype(int), max(cells - 2, 0))
    left, out = mesh.take(low, axis=1), mesh.take(np.minimum(low + 1, cells - 1), axis=1)
    out -= left
    out *= (place - low).astype(mesh.dtype)
    out += left
    return out


def _fill(mesh: Float) -> Float:
    """Cells without a value take that of the nearest cell with one."""
    empty = ~np.isfinite(mesh)
    if not empty.any() or empty.all():
        return mesh
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return mesh[tuple(nearest)]


# --- the documented and the other normalisations ---------------------------------------------------------


def measure_padded(mean: Float, width: int) -> NDArray[np.float32]:
    """Box mean with the image's median around the frame (documented): NaN pixels are left out."""
    half = width // 2
    padded = np.pad(mean, half, constant_values=np.float32(np.nanmedian(mean)))
    smooth, _ = stats.measure_box_mean(padded, np.isfinite(padded), width)
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
        divisor: Any = stats.clip_values(mean, sigma=sigma, iterations=5)[0]
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
    sides = stats.sides_at(norm, y, x, np.nan)
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
    center, spread = stats.median_mad(ratio)
    if ratio.size < FEW or spread / np.sqrt(ratio.size) > 0.001:
        return None
    return float(np.clip(center / (1 + 4 * center), 0, 0.05))


def correct_ipc(norm: Float, rho: float) -> NDArray[np.float32]:
    """The normalised rate without the charge that couples in from the side neighbours: (ny, nx).

    Missing neighbours beyond the frame count 0 (reference pixels collect no light), unmeasured ones 1.
    """
    if rho == 0:
        return norm.astype(np.float32)
    ny, nx = norm.shape
    out = np.empty(norm.shape, np.float32)
    for rows in stats.blocks(ny):
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
