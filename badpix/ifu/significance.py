"""Pixels of IFU exposures that stand out by more than their noise allows: arrays in, reasons out.

All statistics ignore NaN (pixels that can't be used) and cut their windows at the frame and at gaps, so the
border is searched like the middle. ``sigma`` below is ERR, or 1.

1. *Residual* of one exposure: each pixel minus the median of its 4 nearest neighbours along x, in units of
   sigma, and the same along y. ``eta`` is the one nearer to zero if both have one sign, else 0. A trace along
   the dispersion, or a line across the slice, cancels along one of the axes; a defect stands out along both.
2. *Noise*: sigma gives the pattern, the data give the size. The level ``c`` is the smallest of three robust
   scatters (along x, along y, between exposures): structure only raises them. Where the smaller residual is locally
   (median over exposures, then in ``kernel_size``) larger than usual, the noise is that much larger.
3. *Protection*: where the 8 neighbours of a pixel don't fit the noise either, its significance is lowered in
   proportion (by ``protect`` for their eta, by ``protect_structure`` for the larger of their residuals).
4. *Persistent*: in all m exposures that measure the pixel, one sign, each beyond the threshold t(m, m) at which
   Gaussian noise gives ``false_alarm``, and beyond ``min_sigma``. Flagged in all exposures.
5. *Partial*: the same for k of m exposures, k a majority; flagged where it exceeds ``partial_sigma``.
6. *Single*: beyond t(1, 1) both in eta and against the lower median of all exposures (too low values: against the
   upper one), unless other exposures have something as significant close by (a line of a dithered source is at the
   same wavelength, a few pixels to the side). Tracks of cosmic rays grow from the pixels that are too high.

The thresholds come from the distribution of eta for independent Gaussian noise (:func:`solve_thresholds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from badpix.medians import local_median, lower_median_along, median_along, median_filled, median_rows

# Reasons, in order of precedence.
REASONS = ("persistent", "partial", "single", "grown")
PERSISTENT, PARTIAL, SINGLE, GROWN = 1, 2, 3, 4

# Variance of the median of k Gaussian values, k = 1 ... 4.
_MEDIAN_VARIANCE = (np.nan, 1.0, 0.5, 0.449, 0.298)
_FACTORS = np.sqrt((1 + _MEDIAN_VARIANCE[4]) / (1 + np.array(_MEDIAN_VARIANCE))).astype(np.float32)
# Median of the absolute residual along one axis for unit Gaussian noise: 0.6745 * sqrt(1 + 0.298).
_RESIDUAL_MEDIAN = 0.7680
# Squares of what the neighbours' medians are for pure noise: eta, larger residual, difference between exposures.
_NOISE_ETA, _NOISE_LARGER, _NOISE_BETWEEN = 0.44**2, 1.2, 0.67**2

# Difference from the lower median of n exposures and from its 24 neighbours, for unit Gaussian noise (simulated,
# 5e5 pixels an exposure): its 99.9 % quantile over that of a Gaussian; its median, exact zeros left out.
_STACKS = (2, 3, 4, 5, 6, 8, 12, 20, 40)
_TAIL_BETWEEN = (1.285, 1.107, 1.123, 1.076, 1.082, 1.062, 1.052, 1.038, 1.034)
_MEDIAN_BETWEEN = (0.448, 0.633, 0.562, 0.603, 0.597, 0.611, 0.632, 0.653, 0.674)

_REACH = 4  # pixels by which neighbours of neighbours reach over the edge
_CHUNK = 20_000  # pixels whose neighbourhoods are gathered at a time


@dataclass(frozen=True)
class Level:
    """Noise of one detector: ``scale`` is c, ``usual`` the median over the frame of the local residual."""

    scale: float
    usual: float


# --- thresholds ------------------------------------------------------------------------------------------

_STEP = 0.02


def _chance(limits: np.ndarray) -> np.ndarray:
    """P(eta > t) for unit Gaussian noise: integral of phi(u) Phi((u - t) / 0.546)**2 over u."""
    u = np.arange(-8, 14 + _STEP / 2, _STEP)
    width = math.sqrt(_MEDIAN_VARIANCE[4])
    phi = np.exp(-0.5 * u**2) / math.sqrt(2 * math.pi)
    # u - t takes few different values, as both run in the same steps
    shift = np.arange(-limits.size + 1, u.size) * _STEP - 8
    below = np.array([0.5 * math.erfc(-z / width / math.sqrt(2)) for z in shift]) ** 2
    return np.array([np.sum(phi * below[limits.size - 1 - i :][: u.size]) * _STEP for i in range(limits.size)])


def solve_thresholds(exposures: int, false_alarm: float) -> np.ndarray:
    """Thresholds t[k, m]: at least k of m exposures beyond t with one sign happens with ``false_alarm``.

    Parameters
    ----------
    exposures : int
        Largest m.
    false_alarm : float
        Share of good pixels, for independent Gaussian noise.

    Returns
    -------
    ndarray, shape (exposures + 1, exposures + 1)
        Sigma; 0 where even t = 0 happens less often; NaN for k > m and for minorities other than (1, m).
    """
    limits = np.arange(0, 12, _STEP)
    one = _chance(limits)
    out = np.full((exposures + 1, exposures + 1), np.nan)
    for m in range(1, exposures + 1):
        for k in {1, *range(m // 2 + 1, m + 1)}:
            chance = 2 * sum(math.comb(m, j) * one**j * (1 - one) ** (m - j) for j in range(k, m + 1))
            log = np.log(np.maximum(chance, 1e-300))
            out[k, m] = np.interp(-math.log(false_alarm), -log, limits)  # chance falls with the limit
    return out


# --- residuals and noise ---------------------------------------------------------------------------------


@dataclass
class Residuals:
    """Residuals of one exposure on a padded band: eta, and the larger and smaller of both axes' sizes."""

    eta: np.ndarray
    larger: np.ndarray
    smaller: np.ndarray


def pad(band: np.ndarray, width: int) -> np.ndarray:
    """A band with a frame of NaN."""
    return np.pad(band, width, constant_values=np.nan)


def measure_residuals(sci: np.ndarray, sigma: np.ndarray) -> Residuals:
    """Residuals of one exposure (step 1).

    Parameters
    ----------
    sci : ndarray of float32, shape (ny, nx)
        NaN where not usable; with at least 2 pixels of NaN around the frame.
    sigma : ndarray of float32
        Noise; positive where ``sci`` is finite.

    Returns
    -------
    Residuals
        float32, of the shape of the input; NaN in the outer 2 pixels.
    """
    along_x, along_y = measure_axes(sci, sigma)
    low, high = np.minimum(along_x, along_y), np.maximum(along_x, along_y)
    eta = np.maximum(low, 0) + np.minimum(high, 0)
    np.abs(along_x, out=along_x)
    np.abs(along_y, out=along_y)
    return Residuals(eta, np.maximum(-low, high), np.minimum(along_x, along_y, out=along_x))


def measure_axes(sci: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(s - median of 4 neighbours) / sigma along x and along y, scaled to the variance that 4 neighbours give."""
    missing = np.isnan(sci)
    filled = np.where(missing, np.float32(np.inf), sci)
    return tuple(_residual(sci, sigma, missing, filled, axis) for axis in (1, 0))  # type: ignore[return-value]


def _residual(sci: np.ndarray, sigma: np.ndarray, missing: np.ndarray, filled: np.ndarray, axis: int) -> np.ndarray:
    ny, nx = sci.shape
    core = (slice(2, ny - 2), slice(2, nx - 2))
    views = []
    for d in (-2, -1, 1, 2):
        dy, dx = (d, 0) if axis == 0 else (0, d)
        views.append((slice(2 + dy, ny - 2 + dy), slice(2 + dx, nx - 2 + dx)))
    gone = np.add.reduce([missing[v] for v in views], dtype=np.uint8)
    gone[missing[core]] = 0  # no residual there anyway
    middle = median_filled([filled[v].copy() for v in views], gone)
    out = np.full(sci.shape, np.nan, np.float32)
    inner = out[core]
    np.subtract(sci[core], middle, out=inner)
    np.divide(inner, sigma[core], out=inner)
    y, x = np.nonzero(gone)
    inner[y, x] *= _FACTORS[4 - gone[y, x]]
    return out


def measure_sigma(err: np.ndarray, sci: np.ndarray, *, usual: float | None = None) -> np.ndarray:
    """Sigma of one exposure: ERR, and a usual value where ERR can't be right.

    Parameters
    ----------
    err, sci : ndarray of float32, shape (ny, nx)
        Pixels that are NaN in ``sci`` don't matter.
    usual : float, optional
        What replaces ERR where it is not finite or not positive; the median of the others if not given.
    """
    good = np.isfinite(err) & (err > 0)
    used = np.isfinite(sci)
    if not (used & ~good).any():
        return err
    if usual is None:
        usual = float(np.median(err[good & used])) if (good & used).any() else 1.0
    return np.where(good, err, np.float32(usual))


def measure_between(sci: list[np.ndarray]) -> np.ndarray:
    """What the exposures have in common, for a search for too high values: their lower median.

    NaN where fewer than two are valid. Not the mean of the middle two: a pixel that is too high in 2 of 4 would show
    half its amplitude in the bad exposures and minus half in the good ones. For too low values, turn the signs.
    """
    reference = lower_median_along(sci)
    valid = np.add.reduce([~np.isnan(s) for s in sci], dtype=np.uint16)
    reference[valid < 2] = np.nan
    return reference


def sample_band(
    sci: list[np.ndarray], sigma: list[np.ndarray], kernel: tuple[int, int], core: slice
) -> list[np.ndarray]:
    """What the noise level is measured on: residuals along x, along y, between exposures; local residuals.

    Parameters
    ----------
    sci, sigma : list of ndarray, shape (ny, nx)
        One band of all exposures, with neighbouring rows.
    kernel : (int, int)
        Window of the local median.
    core : slice
        The rows that count.
    """
    sci = [pad(s, _REACH) for s in sci]
    sigma = [pad(s, _REACH) for s in sigma]
    rows = slice(core.start + _REACH, core.stop + _REACH)
    n = len(sci)
    axes = [[np.abs(r) for r in measure_axes(s, e)] for s, e in zip(sci, sigma, strict=True)]
    local = median_along([np.minimum(x, y) for x, y in axes])
    where = np.isfinite(local)
    where[: rows.start] = where[rows.stop :] = False
    wide = local_median(local, kernel, outside=np.nan, where=where)
    between = [np.empty(0, np.float32)]
    if n >= 3:
        reference = measure_between(sci)
        inside = np.zeros(reference.shape, bool)
        inside[rows, _REACH:-_REACH] = True
        for s, e in zip(sci, sigma, strict=True):
            difference = (s - reference) / e
            at = np.flatnonzero(inside & np.isfinite(difference))[::7]
            between.append(np.abs(_stand_out(difference, at)))
    samples = [np.concatenate([pair[k][rows].reshape(-1) for pair in axes]) for k in (0, 1)]
    samples += [np.concatenate(between), wide.reshape(-1)]
    return [_measured(v) for v in samples]


def _measured(values: np.ndarray) -> np.ndarray:
    """Without NaN and exact zeros: gaps that were filled with 0 say nothing about the noise."""
    return values[np.isfinite(values) & (values != 0)]


def measure_level(samples: list[list[np.ndarray]], exposures: int) -> Level | None:
    """The noise level of a detector from the samples of its bands (step 2); None where nothing was measured."""
    x, y, between, local = (np.concatenate(part) for part in zip(*samples, strict=True))
    sizes = [float(np.median(v)) / _RESIDUAL_MEDIAN for v in (x, y) if v.size]
    if exposures >= 3 and between.size:
        sizes.append(float(np.median(between)) / float(np.interp(exposures, _STACKS, _MEDIAN_BETWEEN)))
    if not sizes or not local.size or min(sizes) == 0:
        return None
    return Level(min(sizes), max(float(np.median(local)), 1e-30))


# --- the tests -------------------------------------------------------------------------------------------


@dataclass
class Band:
    """One band of all exposures of a detector, padded, with everything that the tests need."""

    sci: list[np.ndarray]
    sigma: list[np.ndarray]
    residuals: list[Residuals]
    noise: np.ndarray
    width: int  # of the padding

    @property
    def stride(self) -> int:
        """Distance in memory between rows."""
        return self.noise.shape[1]


def find_significant(
    sci: list[np.ndarray],
    sigma: list[np.ndarray],
    *,
    level: Level,
    thresholds: np.ndarray,
    kernel_size: tuple[int, int],
    min_sigma: float,
    partial_sigma: float,
    single: bool,
    lone_exposure: bool,
    grow_sigma: float,
    grow_steps: int,
    protect: float,
    protect_structure: float,
    window: tuple[int, int],
    noise: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pixels of a band are flagged in which exposure, and why.

    Parameters
    ----------
    sci : list of ndarray of float32, shape (ny, nx)
        One band of each exposure; NaN where not usable.
    sigma : list of ndarray of float32
        From :func:`measure_sigma`.
    level : Level
        Noise of the detector.
    thresholds : ndarray
        From :func:`solve_thresholds`.
    window : (int, int)
        Rows and columns in which lines of other exposures protect.
    **others
        Parameters of ``outlier ifu``.

    Returns
    -------
    reasons : ndarray of uint8, shape (n, ny, nx)
        0: not flagged; else a reason (``PERSISTENT`` ...).
    untestable : ndarray of bool, shape (n, ny, nx)
        Finite pixels without a valid neighbour along one of the axes.
    noisy : ndarray of bool, shape (ny, nx)
        Pixels whose noise is more than 1.3 times the usual one.
    """
    width = max(_REACH, *(w // 2 for w in window))
    band = _prepare(sci, sigma, level, kernel_size, noise, width)
    n, (ny, nx) = len(sci), sci[0].shape
    inside = (slice(width, width + ny), slice(width, width + nx))
    first = float(thresholds[1, 1])
    found = _find_candidates(band, min(first, min_sigma), protect, protect_structure)
    reasons = np.zeros((n, band.noise.size), np.uint8)
    if n >= 2:
        _flag_repeated(reasons, found, band, thresholds, min_sigma, partial_sigma)
        if single:
            persistent = (reasons == PERSISTENT).any(axis=0)
            _flag_single(reasons, found, band, persistent, first, protect, window, grow_sigma, grow_steps)
    elif lone_exposure:
        at, value = found[0]
        reasons[0, at[np.abs(value) > first]] = SINGLE
    maps = reasons.reshape(n, *band.noise.shape)[:, *inside]
    untestable = np.stack(
        [np.isfinite(s) & np.isnan(r.eta[inside]) for s, r in zip(sci, band.residuals, strict=True)]
    )
    return maps, untestable, band.noise[inside] > 1.3 * level.scale


def _prepare(
    sci: list[np.ndarray], sigma: list[np.ndarray], level: Level, kernel: tuple[int, int], noise: str, width: int
) -> Band:
    sci, sigma = [pad(s, width) for s in sci], [pad(s, width) for s in sigma]
    residuals = [measure_residuals(s, e) for s, e in zip(sci, sigma, strict=True)]
    if noise == "err":
        size = np.ones_like(sci[0])
    else:
        local = median_along([r.smaller for r in residuals])
        wide = local_median(local, kernel, outside=np.nan, where=np.isfinite(local))
        size = np.float32(level.scale) * np.fmax(wide / np.float32(level.usual), np.float32(1))
    return Band(sci, sigma, residuals, size, width)


def measure_eta(
    sci: list[np.ndarray], sigma: list[np.ndarray], level: Level, kernel: tuple[int, int], noise: str
) -> np.ndarray:
    """All finite values of eta in a band, in units of the noise, exact zeros left out."""
    band = _prepare(sci, sigma, level, kernel, noise, _REACH)
    values = np.concatenate([(r.eta / band.noise).reshape(-1) for r in band.residuals])
    return values[np.isfinite(values) & (values != 0)]


def _find_candidates(
    band: Band, floor: float, protect: float, protect_structure: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per exposure: pixels with eta beyond ``floor`` sigma (flat indices), and their protected significance."""
    around = _offsets(3, 3, band.stride)
    size = band.noise.reshape(-1)
    limit = np.float32(floor) * size
    out = []
    for r in band.residuals:
        eta = r.eta.reshape(-1)
        at = np.flatnonzero(np.abs(eta) > limit)
        value = eta[at] / size[at]
        value /= _protection(np.abs(eta), size, at, around, protect, _NOISE_ETA)
        value /= _protection(r.larger.reshape(-1), size, at, around, protect_structure, _NOISE_LARGER)
        out.append((at, value))
    return out


def _protection(
    field: np.ndarray, size: np.ndarray, at: np.ndarray, around: np.ndarray, strength: float, noise: float
) -> np.ndarray:
    """sqrt(1 + strength**2 * excess), excess of the neighbours' squared median over that of noise."""
    out = np.ones(at.size, np.float32)
    if strength == 0:
        return out
    for chunk in _chunks(at.size):
        near = at[chunk, None] + around
        middle = median_rows(field[near] / size[near])
        out[chunk] = np.sqrt(1 + strength**2 * np.fmax(middle**2 - noise, 0))
    return out


def _offsets(rows: int, columns: int, stride: int, *, centre: bool = False) -> np.ndarray:
    """Distances in memory from a pixel to the others of a window around it."""
    y, x = np.mgrid[-(rows // 2) : rows // 2 + 1, -(columns // 2) : columns // 2 + 1]
    flat = (y * stride + x).reshape(-1)
    return flat if centre else flat[flat != 0]


def _chunks(size: int) -> list[slice]:
    return [slice(i, i + _CHUNK) for i in range(0, size, _CHUNK)]


def _flag_repeated(
    reasons: np.ndarray,
    found: list[tuple[np.ndarray, np.ndarray]],
    band: Band,
    thresholds: np.ndarray,
    min_sigma: float,
    partial_sigma: float,
) -> None:
    """Tests for persistent and partly persistent pixels (steps 4 and 5), into ``reasons``."""
    n = len(found)
    times = np.zeros(band.noise.size, np.uint16)
    for at, _ in found:
        times[at] += 1
    pixels = np.flatnonzero(times >= 2)
    table = np.zeros((n, pixels.size), np.float32)
    for e, (at, value) in enumerate(found):
        mine = times[at] >= 2
        table[e, np.searchsorted(pixels, at[mine])] = value[mine]
    measured = np.add.reduce([np.isfinite(r.eta.reshape(-1)[pixels]) for r in band.residuals], dtype=np.intp)
    limits = np.maximum(thresholds, min_sigma)
    for sign in (1, -1):
        signed = sign * table
        ranked = -np.sort(-signed, axis=0)
        for m in range(2, n + 1):
            of_m = measured == m
            for k in range(m // 2 + 1, m):
                hit = of_m & (ranked[k - 1] > limits[k, m])
                for e in range(n):
                    on = pixels[hit & (signed[e] > partial_sigma)]
                    reasons[e, on] = PARTIAL
            reasons[:, pixels[of_m & (ranked[m - 1] > limits[m, m])]] = PERSISTENT


def _flag_single(
    reasons: np.ndarray,
    found: list[tuple[np.ndarray, np.ndarray]],
    band: Band,
    persistent: np.ndarray,
    limit: float,
    protect: float,
    window: tuple[int, int],
    grow_sigma: float,
    grow_steps: int,
) -> None:
    """Test against the other exposures, and growth along tracks (step 6), into ``reasons``."""
    tail = float(np.interp(len(found), _STACKS, _TAIL_BETWEEN))
    size = band.noise.reshape(-1) * np.float32(tail)
    for sign in (1, -1):
        reference = sign * measure_between([sign * s for s in band.sci])
        for e, (at, value) in enumerate(found):
            keep = (sign * value > limit) & ~persistent[at]
            if not keep.any():
                continue
            at, value = at[keep], value[keep]
            difference = (band.sci[e] - reference) / band.sigma[e]
            between = sign * _between(difference, size, at, protect, 3, band.stride)
            agree = np.minimum(between, sign * value) / _moved(band, e, at, persistent, window, 0.5 * protect)
            at = at[agree > limit]  # NaN compares false
            _fill(reasons[e], at, SINGLE)
            if sign > 0:  # cosmic rays add charge
                _fill(reasons[e], _grow(difference, size, at, band, 2 * protect, grow_sigma, grow_steps), GROWN)


def _fill(reasons: np.ndarray, at: np.ndarray, reason: int) -> None:
    reasons[at] = np.where(reasons[at] == 0, reason, reasons[at])


def _stand_out(difference: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Difference between exposures minus its median over the 24 neighbours."""
    around = _offsets(5, 5, difference.shape[1])
    flat = difference.reshape(-1)
    out = np.empty(at.size, np.float32)
    for chunk in _chunks(at.size):
        out[chunk] = flat[at[chunk]] - median_rows(flat[at[chunk, None] + around])
    return out


def _between(
    difference: np.ndarray, size: np.ndarray, at: np.ndarray, protect: float, window: int, stride: int
) -> np.ndarray:
    """Significance of the difference between exposures, protected by that of the neighbours."""
    around = _offsets(window, window, stride)
    out = _stand_out(difference, at) / size[at]
    for chunk in _chunks(at.size):
        near = (at[chunk, None] + around).reshape(-1)
        level = np.abs(_stand_out(difference, near) / size[near]).reshape(-1, around.size)
        out[chunk] /= np.sqrt(1 + protect**2 * np.fmax(median_rows(level) ** 2 - _NOISE_BETWEEN, 0))
    return out


def _moved(
    band: Band, e: int, at: np.ndarray, persistent: np.ndarray, window: tuple[int, int], protect: float
) -> np.ndarray:
    """What significance is divided by where the other exposures have something significant close by."""
    around = _offsets(*window, band.stride, centre=True)
    size = band.noise.reshape(-1)
    out = np.ones(at.size, np.float32)
    for chunk in _chunks(at.size):
        near = at[chunk, None] + around
        skip = persistent[near]
        peaks = []
        for other, r in enumerate(band.residuals):
            if other != e:
                near_eta = np.abs(r.eta.reshape(-1)[near]) / size[near]
                near_eta[skip] = np.nan
                peaks.append(np.fmax.reduce(near_eta, axis=1))
        usual = lower_median_along(peaks)
        out[chunk] = np.sqrt(1 + protect**2 * np.fmax(usual**2 - 9, 0))
    return out


def _grow(
    difference: np.ndarray,
    size: np.ndarray,
    seeds: np.ndarray,
    band: Band,
    protect: float,
    grow_sigma: float,
    steps: int,
) -> np.ndarray:
    """Pixels reached from seeds, step by step, through neighbours that are too high by more than ``grow_sigma``."""
    around = _offsets(3, 3, band.stride)
    usable = np.isfinite(difference).reshape(-1)
    usable[seeds] = False
    front, grown = seeds, [np.empty(0, np.intp)]
    for _ in range(steps):
        at = np.unique((front[:, None] + around).reshape(-1))
        at = at[usable[at]]
        usable[at] = False  # each is looked at once
        at = at[_stand_out(difference, at) / size[at] > grow_sigma]
        front = at[_between(difference, size, at, protect, 5, band.stride) > grow_sigma]
        if not front.size:
            break
        grown.append(front)
    return np.concatenate(grown)


def halo(kernel_size: tuple[int, int], window: tuple[int, int], grow_steps: int) -> int:
    """Rows that a band needs beyond its own so that its result is that of the whole frame."""
    return grow_steps + max(3 + 2, window[0] // 2 + 1 + kernel_size[0] // 2 + 2)


def counts(reasons: np.ndarray) -> Mapping[str, int]:
    """How many pixels are flagged by which reason."""
    found = np.bincount(reasons.reshape(-1), minlength=len(REASONS) + 1)
    return dict(zip(REASONS, (int(v) for v in found[1:]), strict=True))
