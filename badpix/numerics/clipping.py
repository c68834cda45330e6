"""Numeric kernels shared by the searches: clipped statistics, box averages, neighbors. Pure numpy.

Input is float32 or float64, sums run in float64, NaN (and infinity) mean "not measured" and are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.medians import sort_lines

CHUNK = 16384  # pixels worked on at a time along a stack: twenty samples of them stay in the cache
CLOSE = 1e-4  # part of a limit within which rounding could decide, for float32 and up to thousands of samples
MAD_TO_SIGMA = 1.482602218505602

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


# --- along a stack ---------------------------------------------------------------------------------------


def clip_stack(samples: Float, *, sigma: float, iterations: int) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Mean and number of the samples of each pixel that survive sigma clipping.

    Around the median, in units of the standard deviation, both taken again in each round; the result of
    `astropy.stats.sigma_clip` in float64, rounded to float32, faster: few pixels have a sample to drop, and a look at
    their ends tells the others (:func:`find_clipping`). The rest are sorted once, so that clipping only moves two
    ends.

    Parameters
    ----------
    samples : ndarray
        (n, ...) values; not finite means not measured.
    sigma : float
        A sample is dropped if it deviates by more than this.
    iterations : int
        Rounds at the most.

    Returns
    -------
    mean : ndarray of float32
        (...); NaN where no sample was measured.
    count : ndarray of int16
        (...) samples that were kept.
    """
    n = samples.shape[0]
    flat = samples.reshape(n, -1)
    mean = np.empty(flat.shape[1], np.float32)
    count = np.full(flat.shape[1], n, np.int16)
    clipping = np.empty(flat.shape[1], bool)
    for start in range(0, flat.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        mean[part], clipping[part] = find_clipping(flat[:, part], sigma=sigma)
    rest = np.flatnonzero(clipping)
    for start in range(0, rest.size, CHUNK):
        some = rest[start : start + CHUNK]
        mean[some], count[some] = _clip_sorted(np.take(flat, some, axis=1), sigma, iterations)
    return mean.reshape(samples.shape[1:]), count.reshape(samples.shape[1:])


def find_clipping(samples: Float, *, sigma: float) -> tuple[NDArray[np.float64], Bool]:
    """Mean of the samples of each pixel, and where a sample may deviate from the median by more than ``sigma``.

    The highest sample is no outlier if the median is above it less ``sigma`` standard deviations, that is, if
    fewer than half of the samples lie below that: counting replaces sorting. The deviations are float32, so the
    limit is drawn closer by more than their rounding: what is close to it counts as clipping. So do pixels
    with a value that is not finite.

    Parameters
    ----------
    samples : ndarray
        (n, m).
    sigma : float
        In standard deviations.

    Returns
    -------
    mean : ndarray of float64
        (m,), of all samples.
    clipping : ndarray of bool
        (m,); False is certain.
    """
    n = len(samples)
    half, counter = (n - 1) // 2, np.uint8 if n < 256 else np.int64
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.add.reduce(samples, axis=0, dtype=np.float64) / n
        deviation = samples - mean.astype(samples.dtype)
        low, high = deviation.min(axis=0), deviation.max(axis=0)
        square = np.einsum("ij,ij->j", deviation, deviation)
        spread = np.sqrt(np.maximum(square / n * (1 - CLOSE) - (mean - mean.astype(samples.dtype)) ** 2, 0))
        reach = ((sigma * (1 - CLOSE) - CLOSE) * spread).astype(samples.dtype)
        below = np.add.reduce((deviation < high - reach).view(np.uint8), axis=0, dtype=counter)
        above = np.add.reduce((deviation > low + reach).view(np.uint8), axis=0, dtype=counter)
    return mean, (below > half) | (above > half) | ~np.isfinite(square)


def _clip_sorted(samples: Float, sigma: float, iterations: int) -> tuple[Float, NDArray[np.intp]]:
    """Clipped mean and number of samples of pixels of which most have one to drop."""
    ordered, high = sort_stack(samples)
    low = np.zeros_like(high)
    mean, std = _moments(ordered, low, high)
    active, rows = np.arange(high.size), ordered
    for _ in range(iterations):
        center = _middle(rows, low[active], high[active])
        with np.errstate(invalid="ignore"):
            bottom, top = center - sigma * std[active], center + sigma * std[active]
            column = np.arange(active.size)
            last = rows[np.maximum(high[active] - 1, 0), column]
            outside = (rows[low[active], column] < bottom) | (last > top)  # the ends tell, the rows are sorted
        active, rows, bottom, top = active[outside], rows[:, outside], bottom[outside], top[outside]
        if not active.size:
            break
        low[active] = np.maximum(low[active], (rows < bottom).sum(axis=0))
        high[active] = np.minimum(high[active], (rows <= top).sum(axis=0))  # unmeasured ones are infinite: above
        mean[active], std[active] = _moments(rows, low[active], high[active])
    return mean, high - low


def sort_stack(samples: Float) -> tuple[Float, NDArray[np.intp]]:
    """The samples of each pixel in rising order, unmeasured ones last as infinity, and the number measured."""
    rows = np.array(samples)
    measured = np.isfinite(rows)
    rows[~measured] = np.inf
    return np.stack(sort_lines(list(rows), range(len(rows)))), measured.sum(axis=0)


def _moments(ordered: Float, low: NDArray[np.intp], high: NDArray[np.intp]) -> tuple[Float, Float]:
    """Mean and population standard deviation of rows ``low`` to ``high`` of each column, float64."""
    index = np.arange(len(ordered))[:, None]
    outside = (
        None
        if low.max(initial=0) == 0 and high.min(initial=len(ordered)) == len(ordered)
        else (index < low) | (index >= high)
    )
    number = (high - low).astype(np.float64)
    values = ordered.astype(np.float64)
    if outside is not None:
        values[outside] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(axis=0) / number
        values -= mean
    if outside is not None:
        values[outside] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, np.sqrt(np.einsum("ij,ij->j", values, values) / number)


def _middle(ordered: Float, low: NDArray[np.intp], high: NDArray[np.intp]) -> Float:
    """Median of rows ``low`` to ``high`` of each sorted column, float64."""
    column = np.arange(ordered.shape[1])
    last = len(ordered) - 1
    below = ordered[np.clip((low + high - 1) // 2, 0, last), column].astype(np.float64)
    above = ordered[np.clip((low + high) // 2, 0, last), column].astype(np.float64)
    return np.where(high > low, (below + above) / 2, np.nan)


# --- over an image ---------------------------------------------------------------------------------------


def clip_values(
    values: Float, *, sigma: float, iterations: int | None = None, where: Bool | None = None
) -> tuple[float, float]:
    """Mean and population standard deviation of the values that survive sigma clipping around their median.

    The result of astropy's ``sigma_clip``; the values are sorted once. ``iterations`` None goes on until nothing
    is dropped. ``where`` says which values count. No finite value: NaN, NaN.
    """
    good = np.isfinite(values)
    if where is not None:
        good &= where
    ordered = values[good]
    del good
    ordered.sort()
    rounds = 0
    while True:
        if ordered.size == 0:
            return float("nan"), float("nan")
        mean, std = _mean_std(ordered)
        if iterations is not None and rounds >= iterations:
            return mean, std
        center = (float(ordered[(ordered.size - 1) // 2]) + float(ordered[ordered.size // 2])) / 2
        low = np.searchsorted(ordered, _inside(center - sigma * std, ordered.dtype, +np.inf), "left")
        high = np.searchsorted(ordered, _inside(center + sigma * std, ordered.dtype, -np.inf), "right")
        if low == 0 and high == ordered.size:
            return mean, std
        ordered = ordered[low:high]
        rounds += 1


def _inside(limit: float, dtype: np.dtype[Any], toward: float) -> Any:
    """The limit in the type of the values, rounded toward their middle: comparisons come out as in float64."""
    rounded = dtype.type(limit)
    beyond = rounded < limit if toward > 0 else rounded > limit
    return np.nextafter(rounded, dtype.type(toward)) if beyond else rounded


def _mean_std(values: Float) -> tuple[float, float]:
    """Mean and population standard deviation, summed in float64 in chunks."""
    mean = float(values.mean(dtype=np.float64))
    square = 0.0
    for start in range(0, values.size, CHUNK):
        deviation = values[start : start + CHUNK] - np.float64(mean)
        square += float((deviation * deviation).sum())
    return mean, float(np.sqrt(square / values.size))


def median_mad(values: Float) -> tuple[float, float]:
    """Median and 1.4826 x the median absolute deviation of the finite values; NaN, NaN if there is none.

    Of an image of more than a million pixels every third row and every fifth column is enough (and meets all
    amplifiers, also interleaved ones).
    """
    values = thin(values)
    good = values[np.isfinite(values)]
    if good.size == 0:
        return float("nan"), float("nan")
    center = float(median(good))
    return center, MAD_TO_SIGMA * float(median(np.abs(good - center)))


def scatter_beside(values: Float) -> float:
    """Scatter of pixels in their order along a row, without what neighbors share: a gradient, glow, an area.

    The lower of 1.4826 x the median absolute deviation and that of the differences of neighbors over sqrt(2).
    """
    steps = median_mad(np.diff(values))[1] / float(np.sqrt(2))
    whole = median_mad(values)[1]
    return min(whole, steps) if np.isfinite(steps) else whole


def median(values: Float) -> Any:
    """``np.median`` of finite values, in their type and twice as fast: one middle is looked up, the other one found
    below it."""
    half = values.size // 2
    ordered = np.partition(values, half, axis=None)
    if values.size % 2:
        return ordered[half]
    return np.mean([ordered[:half].max(), ordered[half]], dtype=values.dtype)


def thin(image: Float) -> Float:
    """Every third row and fifth column of an image of more than a million pixels, else all of them: (n,)."""
    few = image[::3, ::5] if image.ndim == 2 and image.size > 1_000_000 else image
    return few.ravel()
