"""What an exposure should look like: the model it is compared with, and the noise of the comparison.

1. Reference on the grid: the two middle values (a, b) of the *other* groups; their mean where they agree, the
   lower one where they don't (b - a > agree_sigma * s_d + agree_gradient * D(a): the higher one is a hit in
   another group). Holes of a pixel or two are filled from their 3x3 neighbours, so that interpolation doesn't
   widen them.
2. Blot to the exposure's pixels; m = number of other groups there.
3. Sharpening: drizzle blurs by about a pixel. A 5x5 kernel of sum zero is fitted where the model is steep,
   SCI - sky - b = sum_k c_k (b shifted by k - b), robustly, and its sum is added there.
4. Expected noise: v0 = VAR_RNOISE + P(b) with P the median VAR_POISSON in bins of the model; s0^2 = min(ERR^2,
   v0). A hit raises its own ERR and would hide in it; ERR that is not positive is replaced by sqrt(v0).
5. Noise of the model: the factor f_m = 1.4826 MAD of (SCI - sky - b)/s0 over flat pixels, for each m.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import resample, stats
from badpix.image.grid import Window
from badpix.image.pixel_map import PixelMap, evaluate_map
from badpix.image.stack import Shelf, middle_of_others, mosaic_name, read_planes, read_window
from badpix.neighbours import gather, locate
from badpix.resample import measure_derivative

ROWS = 64  # rows of a band: its temporaries stay in the processor's cache
PAIR_ROWS = 256  # rows of a pair of mosaics that are compared
FILL_NEIGHBOURS = 4  # of 9 that a hole must have to be filled
FILL_SMOOTH = 10.0  # sigma of a pair of mosaics by which these may differ
STEEP_FIT = 5.0  # sigma a pixel above which pixels take part in the kernel fit
STEEP_APPLY = 2.0  # sigma a pixel above which the kernel is applied
MIN_FIT = 500  # pixels
MAX_FIT = 100_000
FLAT = 2.0  # sigma a pixel below which a pixel is flat
MIN_FLAT = 50
MAX_COVER = 8  # larger numbers of other groups share one noise factor
FACTOR_RANGE = (0.7, 2.0)


# --- 1. reference -----------------------------------------------------------------------------------------


def combine_others(a: NDArray, b: NDArray, *, limit: float, agree_gradient: float) -> NDArray:
    """Mean of the two middle values where they agree, the lower one where not (float32 images)."""
    with np.errstate(invalid="ignore"):
        apart = b - a > limit + agree_gradient * measure_derivative(a)
        return np.where(apart, a, (a + b) / np.float32(2))


def fill_holes(image: NDArray, *, smooth: float) -> NDArray:
    """NaN pixels replaced by the mean of their 3x3, twice; in place.

    Only where at least 4 of the 9 exist and differ by less than ``smooth``: a hole in the core of a star can't be
    told from its neighbours.
    """
    for _ in range(2):
        ys, xs = locate(np.isnan(image))
        if not len(ys):
            return image
        values = gather(image, ys, xs, 1)
        number = np.isfinite(values).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(values, axis=0, dtype=float) / number
            spread = np.fmax.reduce(values) - np.fmin.reduce(values)
        fill = (number >= FILL_NEIGHBOURS) & (spread < smooth)
        image[ys[fill], xs[fill]] = mean[fill]
    return image


def measure_pair_sigma(shelf: Shelf, windows: list[Window], *, pairs: int = 12) -> float:
    """1.4826 MAD of the difference of two mosaics, median over pairs of successive groups; 0 without overlap."""
    found = []
    for g in range(min(len(windows) - 1, pairs)):
        one, two = windows[g], windows[g + 1]
        y0, y1 = max(one.y0, two.y0), min(one.y1, two.y1)
        x0, x1 = max(one.x0, two.x0), min(one.x1, two.x1)
        if y1 <= y0 or x1 <= x0:
            continue
        parts = []
        step = max(1, (y1 - y0) // PAIR_ROWS)
        for group, w in ((g, one), (g + 1, two)):
            rows = [
                shelf.read(mosaic_name(group), w.shape, slice(y - w.y0, y - w.y0 + 1)) for y in range(y0, y1, step)
            ]
            parts.append(np.concatenate(rows)[:, x0 - w.x0 : x1 - w.x0 : 3])
        found.append(stats.median_mad(parts[0] - parts[1])[1])
    found = [s for s in found if np.isfinite(s)]
    return float(np.median(found)) if found else 0.0


def build_reference(
    shelf: Shelf,
    windows: list[Window],
    group: int,
    shape: tuple[int, int],
    *,
    others: bool,
    agree_sigma: float,
    agree_gradient: float,
    pair_sigma: float,
) -> tuple[NDArray, NDArray]:
    """The image a group is compared with, on its window, and the number m of other groups (uint16).

    With ``others`` false the median of all groups, holes left as they are.
    """
    window = windows[group]
    out = np.empty(window.shape, np.float32)
    cover = np.empty(window.shape, np.uint16)
    halo = 3 if others else 0
    for top in range(0, window.shape[0], ROWS):
        bottom = min(top + ROWS, window.shape[0])
        y0, y1 = max(0, top - halo), min(window.shape[0], bottom + halo)
        part = Window(window.y0 + y0, window.y0 + y1, window.x0, window.x1)
        own = shelf.read(mosaic_name(group), window.shape, slice(y0, y1))
        if others:
            a, b, m = middle_of_others(*read_planes(shelf, shape, part), own)
            image = combine_others(a, b, limit=agree_sigma * pair_sigma, agree_gradient=agree_gradient)
            image = fill_holes(image, smooth=FILL_SMOOTH * pair_sigma)
        else:
            image = read_window(shelf, "median", shape, part)
            m = read_window(shelf, "count", shape, part, np.uint16) - np.isfinite(own)
        inner = slice(top - y0, bottom - y0)
        out[top:bottom], cover[top:bottom] = image[inner], m[inner]
    return out, cover


# --- 2. blot ----------------------------------------------------------------------------------------------


def blot_bands(
    image: NDArray, cover: NDArray | None, window: Window, pixel_map: PixelMap, *, interp: str
) -> tuple[NDArray, NDArray]:
    """The reference at an exposure's pixels (float32), and m there (uint8, at most 255), band by band."""
    ny, nx = pixel_map.shape
    model = np.empty((ny, nx), np.float32)
    others = np.zeros((ny, nx), np.uint8)
    filled = None if interp == "linear" else np.nan_to_num(image)
    for top in range(0, ny, ROWS):
        rows = slice(top, min(top + ROWS, ny))
        positions = evaluate_map(pixel_map, rows=rows)
        model[rows] = resample.blot(image, window, positions, interp=interp, filled=filled)
        if cover is not None:
            others[rows] = _nearest(cover, window, positions)
    return model, others


def _nearest(cover: NDArray, window: Window, positions: NDArray) -> NDArray:
    """Values at the nearest grid pixel, 0 outside."""
    ny, nx = window.shape
    x, y = np.rint(positions[..., 0]) - window.x0, np.rint(positions[..., 1]) - window.y0
    with np.errstate(invalid="ignore"):  # NaN is outside
        outside = ~((x >= 0) & (x < nx) & (y >= 0) & (y < ny))
    y *= nx
    y += x
    y[outside] = 0
    values = np.minimum(np.take(cover.reshape(-1), y.astype(np.intp)), 255).astype(np.uint8)
    values[outside] = 0
    return values


# --- 3. sharpening ----------------------------------------------------------------------------------------


class Sharpening(NamedTuple):
    """The learned kernel (side x side, sum zero), the pixels used, and the common shift it took, pixels."""

    kernel: NDArray
    pixels: int
    shift: tuple[float, float]


def fit_sharpening(
    residual: NDArray, model: NDArray, sigma: NDArray, derivative: NDArray, *, size: int
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
        ys, xs = locate((derivative > STEEP_FIT * level) & np.isfinite(residual))
    if len(ys) > MAX_FIT:
        step = -(-len(ys) // MAX_FIT)
        ys, xs = ys[::step], xs[::step]
    stamps = gather(model, ys, xs, reach)
    whole = np.isfinite(stamps).all(axis=0)
    ys, xs, stamps = ys[whole], xs[whole], stamps[:, whole].astype(float)
    if len(ys) < MIN_FIT:
        return None
    centre = stamps.shape[0] // 2
    columns = np.delete(stamps - stamps[centre], centre, axis=0)
    near = stamps.reshape(size, size, -1)[reach - 1 : reach + 2, reach - 1 : reach + 2].reshape(9, -1)
    floor = float(np.nanmedian(model[::7, ::7]))
    error = sigma[ys, xs] + 0.15 * np.ptp(near, axis=0) + 0.02 * np.abs(stamps[centre] - floor)
    solution = _robust_solve(columns / error, residual[ys, xs] / error)
    kernel = np.insert(solution, centre, -solution.sum()).reshape(size, size)
    offsets = np.arange(size) - reach
    shift = float((kernel * offsets).sum()), float((kernel * offsets[:, None]).sum())
    return Sharpening(kernel, len(ys), shift)


def _robust_solve(columns: NDArray, target: NDArray) -> NDArray:
    """Least squares with four reweightings: cut at 4 MAD, gently falling weights below."""
    weight = np.ones(len(target))
    solution = np.zeros(len(columns))
    for _ in range(5):
        weighted = columns * weight
        matrix = weighted @ columns.T
        matrix[np.diag_indices_from(matrix)] += 1e-6 * np.trace(matrix) / len(matrix)
        solution = np.linalg.solve(matrix, weighted @ target)
        left = target - solution @ columns
        centre, scale = stats.median_mad(left)
        if not scale > 0:
            break
        scaled = np.abs(left - centre) / scale
        weight = np.where(scaled < 4, 1 / np.sqrt(1 + (scaled / 2) ** 2), 0)
    return solution


def apply_sharpening(model: NDArray, fit: Sharpening, steep: NDArray) -> NDArray:
    """The model plus the kernel's sum on ``steep`` pixels (bool); neighbours that are NaN change nothing."""
    out = model.copy()
    ys, xs = locate(steep & np.isfinite(model))
    reach = fit.kernel.shape[0] // 2
    centre = model[ys, xs]
    total = np.zeros(len(ys))
    for weight, values in zip(fit.kernel.ravel(), gather(model, ys, xs, reach), strict=True):
        step = values - centre
        step[np.isnan(step)] = 0
        total += weight * step
    out[ys, xs] += total.astype(np.float32)
    return out


# --- 4. and 5. noise --------------------------------------------------------------------------------------


def replace_bad_error(err: NDArray, var_rnoise: NDArray | None, var_poisson: NDArray | None) -> NDArray:
    """ERR where it is finite and positive; else from the variances; else the image's median (float32)."""
    out = err.astype(np.float32, copy=True)
    bad = ~(np.isfinite(out) & (out > 0))
    if not bad.any():
        return out
    sample = out[::4][~bad[::4]] if not bad[::4].all() else out[~bad]
    usual = float(np.median(sample)) if sample.size else np.nan
    out[bad] = usual
    if var_rnoise is not None and var_poisson is not None:
        with np.errstate(invalid="ignore"):
            variance = (var_rnoise + var_poisson)[bad]
            out[bad] = np.where(variance > 0, np.sqrt(np.abs(variance)), usual)
    return out


def measure_expected_noise(
    model: NDArray, err: NDArray, var_rnoise: NDArray | None, var_poisson: NDArray | None, good: NDArray
) -> NDArray:
    """Noise of a pixel without a hit, float32 (ny, nx): never above ERR, which must be positive.

    ERR where there is no VAR_POISSON, or no model.
    """
    if var_poisson is None:
        return err
    table = _poisson_table(model, var_poisson, good)
    if table is None:
        return err
    usual = _usual_read_noise(var_rnoise)
    out = np.empty_like(err)
    for top in range(0, len(model), ROWS):  # in bands: the interpolation is in float64
        rows = slice(top, top + ROWS)
        with np.errstate(invalid="ignore"):
            read = usual if var_rnoise is None else np.where(var_rnoise[rows] > 0, var_rnoise[rows], usual)
            expected = np.sqrt(read + _look_up(model[rows], *table))
            out[rows] = np.where(expected > 0, np.minimum(err[rows], expected), err[rows])
    return out


def _usual_read_noise(var_rnoise: NDArray | None) -> np.float32:
    """Median of the positive read-noise variances; 0 where there are none."""
    if var_rnoise is None:
        return np.float32(0)
    sample = var_rnoise[::4]
    sample = sample[np.isfinite(sample) & (sample > 0)]
    return np.float32(np.median(sample)) if sample.size else np.float32(0)


def _look_up(model: NDArray, levels: NDArray, variances: NDArray, slope: float) -> NDArray:
    """Photon noise (variance, float32) at the model's values, linear between the levels and beyond the last."""
    poisson = np.interp(model, levels, variances).astype(np.float32)
    beyond = model > levels[-1]
    poisson[beyond] = variances[-1] + slope * (model[beyond] - levels[-1])
    return poisson


def _poisson_table(model: NDArray, var_poisson: NDArray, good: NDArray) -> tuple[NDArray, NDArray, float] | None:
    """Median VAR_POISSON in bins of the model: levels, variances, slope beyond the last."""
    use = good & np.isfinite(model) & np.isfinite(var_poisson)
    step = max(1, int(np.sqrt(use.size / 200_000)))
    sample = np.zeros_like(use)
    sample[::step, ::step] = True
    bright = np.nanquantile(model[::3, ::3], 0.98) if np.isfinite(model[::3, ::3]).any() else np.nan
    with np.errstate(invalid="ignore"):
        use &= sample | (model > bright)
    values, variance = model[use], var_poisson[use]
    if len(values) < 200:
        return None
    everyone = np.sort(model[sample & np.isfinite(model)])
    order = np.argsort(values, kind="stable")
    values, variance = values[order], variance[order]
    edges = np.concatenate([np.linspace(0, 0.98, 13), [0.99, 0.995, 0.998, 0.9995, 1.0]])
    limits = np.searchsorted(values, np.quantile(everyone, edges[1:-1]), "right")
    parts = [slice(a, b) for a, b in zip([0, *limits], [*limits, len(values)], strict=True) if b - a >= 20]
    levels = np.array([np.median(values[s]) for s in parts], float)
    noise = np.array([np.median(variance[s]) for s in parts], float)
    rising = np.concatenate([[True], np.diff(levels) > 0])
    levels, noise = levels[rising], np.maximum.accumulate(noise[rising])
    if len(levels) < 2:
        return None
    slope = float((noise[-1] - noise[-2]) / (levels[-1] - levels[-2]))
    return levels, noise, slope


def measure_noise_factors(
    residual: NDArray, expected: NDArray, flat: NDArray, cover: NDArray
) -> tuple[NDArray, list[int]]:
    """f_m for m = 0 ... 8 (the last for all above), and the m at which it ran into its limits.

    Parameters
    ----------
    residual, expected : float32 (ny, nx)
        SCI - sky - model, and s0.
    flat : bool (ny, nx)
        Pixels where the model is flat.
    cover : uint8 (ny, nx)
        m.
    """
    factors = np.full(MAX_COVER + 1, np.nan)
    use = flat[::3] & np.isfinite(residual[::3])
    values = residual[::3][use] / expected[::3][use]
    which = np.minimum(cover[::3][use], MAX_COVER)
    for m in range(1, MAX_COVER + 1):
        part = values[which == m]
        if len(part) >= MIN_FLAT:
            factors[m] = stats.median_mad(part)[1]
    known = np.flatnonzero(np.isfinite(factors))
    if not len(known):
        return np.ones(MAX_COVER + 1), []
    for m in range(MAX_COVER + 1):
        if not np.isfinite(factors[m]):
            factors[m] = factors[known[np.argmin(np.abs(known - m))]]
    low, high = FACTOR_RANGE
    limited = [int(m) for m in known if not low <= factors[m] <= high]
    return np.clip(factors, low, high), limited


def combine_noise(mode: str, err: NDArray, expected: NDArray, factors: NDArray, cover: NDArray) -> NDArray:
    """The noise st of a difference, float32: see the parameter ``noise``."""
    factor = factors.astype(np.float32)[np.minimum(cover, MAX_COVER)]
    if mode == "exposure":
        return err
    if mode == "median":
        return factor * np.float32(np.median(expected[::3, ::3]))
    if mode == "both":
        return np.sqrt(err * err + np.maximum(factor * factor - 1, 0) * expected * expected)
    factor *= expected
    return factor
