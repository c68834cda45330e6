"""Medians that ignore NaN: along a stack of images, in windows around pixels, in rows of gathered values.

Three ways to the same definition (``np.nanmedian``: the mean of the middle two where their number is even, NaN
where nothing is left), each the fastest for its shape:

1. along a stack, the images are sorted against each other by a network of minimum and maximum operations
   (Batcher's odd-even merge sort), cut down to the ranks that are needed; pixels with NaN are put right one by
   one afterwards;
2. in windows, the windows of a few rows at a time are gathered into rows and sorted;
3. rows of gathered values (the neighbors of some pixels) are sorted.

All are exact, in the type of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# (line, line, whether the smaller is needed, whether the larger is needed)
Comparator = tuple[int, int, bool, bool]


@cache
def sorting_network(n: int, ranks: tuple[int, ...]) -> tuple[Comparator, ...]:
    """Comparators that bring the given ranks of ``n`` lines into place (Batcher's odd-even merge sort, pruned)."""
    needed = set(ranks)
    kept: list[Comparator] = []
    for low, high in reversed(_merge_exchange(n)):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return tuple(reversed(kept))


def _merge_exchange(n: int) -> list[tuple[int, int]]:
    """Knuth's Algorithm 5.2.2M (merge exchange) as a list of comparators."""
    pairs = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, d = top, 0, p
        while True:
            pairs += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return pairs


def sort_lines(lines: list[NDArray[Any]], ranks: Sequence[int]) -> list[NDArray[Any]]:
    """Sort equal arrays against each other, element by element, far enough that ``ranks`` are right.

    Parameters
    ----------
    lines : list of ndarray
        Without NaN (infinities are allowed). Overwritten.
    ranks : sequence of int
        Ranks wanted, from 0.

    Returns
    -------
    list of ndarray
        One array a rank; they share memory with ``lines``.
    """
    if len(lines) > 1:
        spare = np.empty_like(lines[0])
        for low, high, small, large in sorting_network(len(lines), tuple(ranks)):
            a, b = lines[low], lines[high]
            if small and large:
                np.minimum(a, b, out=spare)
                np.maximum(a, b, out=b)
                lines[low], spare = spare, a
            elif small:
                np.minimum(a, b, out=a)
            else:
                np.maximum(a, b, out=b)
    return [lines[rank] for rank in ranks]


def median_along(stack: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Median along the first axis, ignoring NaN.

    Parameters
    ----------
    stack : ndarray, shape (n, ...), or sequence of n equal arrays
        Floating point.

    Returns
    -------
    ndarray
        Median in the type of the input; NaN where all values are NaN.
    """
    return _middle_along(stack, lower=False)


def lower_median_along(stack: NDArray[Any] | Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Median along the first axis, ignoring NaN; the *smaller* of the middle two where their number is even."""
    return _middle_along(stack, lower=True)


def _middle_along(stack: NDArray[Any] | Sequence[NDArray[Any]], *, lower: bool) -> NDArray[Any]:
    lines = [np.fmin(line, line.dtype.type(np.inf)) for line in stack]  # NaN becomes infinite
    missing = np.zeros(lines[0].shape, np.uint16)
    for line in stack:
        missing += np.isnan(line)
    return median_filled(lines, missing, lower=lower)


def median_filled(lines: list[NDArray[Any]], missing: NDArray[Any], *, lower: bool = False) -> NDArray[Any]:
    """Median along a list of equal arrays in which missing values have been replaced by infinity.

    Parameters
    ----------
    lines : list of ndarray
        Overwritten.
    missing : ndarray of int
        How many of the values of each element are missing.
    lower : bool
        Whether the smaller of the middle two is wanted.

    Returns
    -------
    ndarray
        NaN where all values are missing.
    """
    n = len(lines)
    partial = np.flatnonzero((missing > 0) & (missing < n))
    low, high = (n - 1) // 2, n // 2
    one = lower or low == high
    wanted = tuple(range(n)) if partial.size else tuple(sorted({low, high}))
    ranks = dict(zip(wanted, sort_lines(lines, wanted), strict=True))
    columns = np.stack([ranks[i].reshape(-1)[partial] for i in wanted], axis=1)
    out = ranks[low] if one else _mean(ranks[low], ranks[high])
    np.putmask(out, missing == n, np.nan)
    if not partial.size:
        return out
    count = n - missing.reshape(-1)[partial].astype(np.intp)
    out.reshape(-1)[partial] = _middle_of_sorted(columns, count, lower=lower)
    return out


def median_rows(values: NDArray[Any], *, lower: bool = False) -> NDArray[Any]:
    """Median of each row of a table, ignoring NaN; the table is used up.

    Parameters
    ----------
    values : ndarray, shape (m, k)
        Sorted in place.
    lower : bool
        Whether the smaller of the middle two is wanted.

    Returns
    -------
    ndarray, shape (m,)
        NaN where a row holds nothing else.
    """
    values.sort(axis=1)  # NaN last
    low, high = (values.shape[1] - 1) // 2, values.shape[1] // 2
    out = values[:, low].copy() if lower or low == high else _mean(values[:, low], values[:, high])
    some = np.flatnonzero(np.isnan(values[:, -1]))
    if some.size:
        part = values[some]
        out[some] = _middle_of_sorted(part, part.shape[1] - np.isnan(part).sum(axis=1), lower=lower)
    return out


def _middle_of_sorted(values: NDArray[Any], count: NDArray[Any], *, lower: bool) -> NDArray[Any]:
    """Median of the first ``count`` of each sorted row."""
    row = np.arange(len(values))
    low = values[row, np.maximum(count - 1, 0) // 2]
    if lower:
        out = low
    else:
        high = values[row, np.minimum(count // 2, values.shape[1] - 1)]
        out = np.where(count % 2, low, _mean(low, high))
    out[count == 0] = np.nan
    found: NDArray[Any] = out
    return found


def _mean(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Mean of two in their own type, as ``np.mean`` computes it."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.add(a, b)
        found: NDArray[Any] = np.divide(total, 2, out=total)
        return found


def local_median(
    image: NDArray[Any],
    size: tuple[int, int],
    *,
    outside: float,
    where: NDArray[Any],
    threads: ThreadPoolExecutor | None = None,
) -> NDArray[Any]:
    """Median in a window around pixels, ignoring NaN.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Floating point.
    size : (int, int)
        Odd numbers of rows and columns of the window.
    outside : float
        Value of pixels outside the frame; NaN cuts the window there.
    where : ndarray of bool, shape (ny, nx)
        Pixels whose median is wanted.
    threads : ThreadPoolExecutor, optional
        Sorting leaves the interpreter free, so two threads take half the time.

    Returns
    -------
    ndarray, shape (ny, nx)
        NaN where it was not wanted.
    """
    windows = windows_around(image, size, outside)
    out = np.full(image.shape, np.nan, image.dtype)

    def fill(start: int) -> None:
        band = slice(start, start + 8)
        out[band][where[band]] = median_rows(windows[band][where[band]].reshape(-1, size[0] * size[1]))

    list((map if threads is None else threads.map)(fill, range(0, len(image), 8)))
    return out


def median_at(image: NDArray[Any], size: tuple[int, int], y: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
    """Median in a window around single pixels, cut at the frame, ignoring NaN.

    Parameters
    ----------
    image : ndarray, shape (ny, nx)
        Floating point.
    size : (int, int)
        Odd numbers of rows and columns of the window.
    y, x : ndarray of int, shape (n,)
        The pixels.

    Returns
    -------
    ndarray, shape (n,)
        NaN where a window holds nothing else.
    """
    windows = windows_around(image, size, np.nan)
    out = np.empty(len(y), image.dtype)
    for start in range(0, len(y), 2048):
        some = slice(start, start + 2048)
        out[some] = median_rows(windows[y[some], x[some]].reshape(-1, size[0] * size[1]))
    return out


def windows_around(image: NDArray[Any], size: tuple[int, int], outside: float) -> NDArray[Any]:
    """The window around each pixel, (ny, nx, rows, columns): a view."""
    frame = np.pad(image, [(length // 2, length // 2) for length in size], constant_values=outside)
    return np.lib.stride_tricks.sliding_window_view(frame, size)
