"""The grouped mosaics of a run, on disk, and what is taken from the whole stack.

1. Each group's mosaic is written once, as its window of the grid (:class:`Shelf`).
2. The stack is sorted once, tile by tile. Of the ``n`` valid values s[0] <= ... <= s[n-1] at a grid pixel only
   those are kept from which the median of all, and the two middle values of all *but any one*, follow: with k =
   n // 2,

       n even: lo = s[k-1], hi = s[k];      n odd: lo = s[k-1], mid = s[k], hi = s[k+1].

   Three planes and the count, whatever the number of groups.
3. Without the own value v the two middle values (a, b) are: n even: (hi, hi) if v <= lo, else (lo, lo); n odd:
   (mid, hi) if v < mid, (lo, hi) if v = mid, (lo, mid) if v > mid; without an own value (lo, hi) or (mid, mid).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from badpix.errors import DataError
from badpix.image.grid import Window, join_windows
from badpix.io.handles import read_into
from badpix.io.scratch import scratch_folder
from badpix.io.tasks import run_in_order
from badpix.numerics.medians import sort_lines

PLANES = ("lo", "mid", "hi")
TILE_COLUMNS = 4096  # rows of most grids are written in one piece


@dataclass(frozen=True)
class Shelf:
    """Images in raw files of one private directory, read by rows; only the directory travels to other processes."""

    folder: Path

    def write(self, name: str, image: NDArray[Any]) -> None:
        """Store an image.

        Raises
        ------
        DataError
            If the temporary space runs out.
        """
        try:
            with open(self.folder / name, "wb") as file:
                np.ascontiguousarray(image).tofile(file)
        except OSError as error:
            raise DataError(f"{self.folder.parent}: temporary space ran out or failed: {error.strerror}") from None

    def read(self, name: str, shape: tuple[int, int], rows: slice, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Rows of an image of the given full shape."""
        start, stop, _ = rows.indices(shape[0])
        out = np.empty((max(0, stop - start), shape[1]), dtype)
        if out.size:
            with open(self.folder / name, "rb", buffering=0) as file:
                view = out.reshape(-1).view(np.uint8).data
                read_into(file.fileno(), view, start * shape[1] * out.itemsize, self.folder / name)
        return out

    def read_every(self, name: str, shape: tuple[int, int], rows: range) -> NDArray[Any]:
        """Rows of a float32 image of the given full shape, one every few."""
        out = np.empty((len(rows), shape[1]), np.float32)
        with open(self.folder / name, "rb", buffering=0) as file:
            for line, row in zip(out, rows, strict=True):
                read_into(file.fileno(), line.view(np.uint8).data, row * line.nbytes, self.folder / name)
        return out

    def create(self, name: str, shape: tuple[int, int], dtype: DTypeLike) -> None:
        """An empty image (zero bytes) to be filled by :meth:`write_part`."""
        with open(self.folder / name, "wb") as file:
            file.truncate(shape[0] * shape[1] * np.dtype(dtype).itemsize)

    def write_part(self, name: str, shape: tuple[int, int], part: Window, values: NDArray[Any]) -> None:
        """Overwrite a part of an image of the given full shape; what is never written takes no space."""
        values = np.ascontiguousarray(values)
        whole = part.shape[1] == shape[1]
        lines = [values] if whole else list(values)
        try:
            with open(self.folder / name, "r+b", buffering=0) as file:
                for row, line in enumerate(lines, part.y0):
                    file.seek((row * shape[1] + part.x0) * values.itemsize)
                    line.tofile(file)
        except OSError as error:
            raise DataError(f"{self.folder.parent}: temporary space ran out or failed: {error.strerror}") from None

    def remove(self, name: str) -> None:
        """Forget an image."""
        (self.folder / name).unlink(missing_ok=True)


@contextmanager
def open_shelf(parent: Path) -> Iterator[Shelf]:
    """A shelf in a private directory below ``parent``; it is gone afterwards, also after an error or an interrupt."""
    with scratch_folder(parent, hidden=True) as folder:
        yield Shelf(folder)


def mosaic_name(group: int) -> str:
    """File of a group's mosaic on the shelf."""
    return f"mosaic{group:05d}"


# --- sorting ----------------------------------------------------------------------------------------------


def sort_planes(
    stack: NDArray[Any], *, infinite: bool = False
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Planes lo, mid, hi (float32) and the count of valid values (uint16) of a stack [n, ...]; NaN = no value.

    The stack is used up. Values that don't exist are NaN (``mid`` where the count is even, all at count 0). Infinite
    ones count with ``infinite``, as in the documented median.
    """
    n = len(stack)
    missing = np.isnan(stack) if infinite else ~np.isfinite(stack)
    count = (n - missing.sum(axis=0, dtype=np.uint16)).astype(np.uint16)
    full = count == n
    stack[missing] = np.inf
    wanted = range(n) if not full.all() else sorted({r for r in (n // 2 - 1, n // 2, n // 2 + 1) if 0 <= r < n})
    ranks = dict(zip(wanted, sort_lines(list(stack), tuple(wanted)), strict=True))
    nothing = np.full(count.shape, np.nan, np.float32)
    k, odd = n // 2, n % 2
    lo = ranks[k - 1].copy() if k >= 1 else nothing.copy()
    mid = ranks[k].copy() if odd else nothing
    hi = (ranks[k + 1].copy() if k + 1 < n else nothing.copy()) if odd else ranks[k].copy()
    part = np.nonzero(~full)
    if part[0].size:
        values = np.stack([ranks[r][part] for r in range(n)])
        for plane, picked in zip((lo, mid, hi), _pick(values, count[part].astype(np.intp)), strict=True):
            plane[part] = picked
    return lo, mid, hi, count


def _pick(values: NDArray[Any], count: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """lo, mid, hi of sorted columns of which the first ``count`` are valid."""
    k, odd = count // 2, count % 2 == 1
    columns = np.arange(values.shape[1])

    def at(rank: NDArray[Any], exists: NDArray[Any]) -> NDArray[Any]:
        return np.where(exists, values[np.clip(rank, 0, len(values) - 1), columns], np.float32(np.nan))

    return at(k - 1, k >= 1), at(k, odd), at(np.where(odd, k + 1, k), np.where(odd, k + 1 < count, count > 0))


def median_of(lo: NDArray[Any], mid: NDArray[Any], hi: NDArray[Any], count: NDArray[Any]) -> NDArray[Any]:
    """Median over all groups from the planes, float32; NaN where nothing is left."""
    even = (lo + hi) / np.float32(2)
    return np.where(count % 2 == 1, mid, np.where(count > 0, even, np.float32(np.nan)))


def middle_of_others(
    lo: NDArray[Any], mid: NDArray[Any], hi: NDArray[Any], count: NDArray[Any], own: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The two middle values of the other groups and their number: (a, b, m), a <= b, NaN where m = 0."""
    odd = (count & 1).astype(bool)
    with np.errstate(invalid="ignore"):
        if odd.all():
            a, b = np.where(own < mid, mid, lo), np.where(own > mid, mid, hi)
        else:
            a = np.where(own <= lo, hi, lo)
            b = a.copy()
            at = np.nonzero(odd)  # few, as a rule: beside edges and bad pixels
            low, middle, high, value = (plane[at] for plane in (lo, mid, hi, own))
            a[at], b[at] = np.where(value < middle, middle, low), np.where(value > middle, middle, high)
    none = np.isnan(own)
    m = count - ~none
    if none.any():
        a[none], b[none] = np.where(odd[none], mid[none], lo[none]), np.where(odd[none], mid[none], hi[none])
    return a, b, m


def write_planes(
    shelf: Shelf,
    windows: Sequence[Window],
    shape: tuple[int, int],
    *,
    rows: int,
    others: bool,
    groups: Sequence[int] | None = None,
    suffix: str = "",
    executor: Executor | None = None,
) -> None:
    """Sort the stack of all mosaics, or of some ``groups``, tile by tile, into the planes and the count on the shelf.

    Where no window is, the planes stay holes: they take no space, and read as zeros (:func:`read_median`).
    The plane ``median`` is written for all of them; those that the medians of all but one need, with ``others``.

    Parameters
    ----------
    shelf : Shelf
        Holds the mosaics.
    windows : sequence of Window
        Of the groups, in order.
    shape : (ny, nx)
        Of the grid.
    rows : int
        Height of a tile.
    groups : sequence of int, optional
        Those that are sorted.
    suffix : str
        Of the names on the shelf, such as that of a roll angle.
    executor : Executor, optional
        Where tiles are sorted.
    """
    names = ("median", *PLANES) if others else ("median",)
    chosen = tuple(range(len(windows)) if groups is None else groups)
    for name in names:
        shelf.create(name + suffix, shape, np.float32)
    shelf.create("count" + suffix, shape, np.uint16)
    sort = partial(_sort_tile, shelf, tuple(windows), shape, chosen, names, suffix)
    for _ in run_in_order(executor, sort, touched_tiles(windows, rows)):
        pass


def _sort_tile(
    shelf: Shelf,
    windows: Sequence[Window],
    shape: tuple[int, int],
    groups: Sequence[int],
    names: Sequence[str],
    suffix: str,
    tile: Window,
) -> None:
    """Task: the planes of one tile."""
    stack = _read_tile(shelf, windows, groups, tile)
    if stack is None:
        planes = [np.full(tile.shape, np.nan, np.float32)] * len(names)
        number = np.zeros(tile.shape, np.uint16)
    else:
        others = len(names) > 1
        lo, mid, hi, number = sort_planes(stack, infinite=not others)
        planes = [median_of(lo, mid, hi, number), lo, mid, hi][: len(names)]
    for name, values in zip(names, planes, strict=True):
        shelf.write_part(name + suffix, shape, tile, values)
    shelf.write_part("count" + suffix, shape, tile, number)


def touched_tiles(windows: Sequence[Window], rows: int, columns: int = TILE_COLUMNS) -> Iterator[Window]:
    """The parts of the tiles of a grid that some windows touch, in order; what nobody observed costs nothing."""
    for band in sorted({k for w in windows for k in range(w.y0 // rows, -(-w.y1 // rows))}):
        here = [w for w in windows if w.y0 < (band + 1) * rows and w.y1 > band * rows]
        for column in sorted({k for w in here for k in range(w.x0 // columns, -(-w.x1 // columns))}):
            tile = Window(band * rows, (band + 1) * rows, column * columns, (column + 1) * columns)
            yield join_windows([both for w in here if (both := w.overlap(tile)) is not None])


def _read_tile(shelf: Shelf, windows: Sequence[Window], groups: Sequence[int], tile: Window) -> NDArray[Any] | None:
    """The mosaics of some groups that touch a tile, [n, rows, columns]; None where there are none."""
    touching = [(g, windows[g], both) for g in groups if (both := windows[g].overlap(tile)) is not None]
    if not touching:
        return None
    stack = np.full((len(touching), *tile.shape), np.nan, np.float32)
    for image, (group, window, both) in zip(stack, touching, strict=True):
        rows, columns = both.within(window)
        image[both.within(tile)] = shelf.read(mosaic_name(group), window.shape, rows)[:, columns]
    return stack


def read_planes(
    shelf: Shelf, shape: tuple[int, int], window: Window, suffix: str = ""
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The planes lo, mid, hi and the count inside a window of the grid."""
    lo, mid, hi = (read_window(shelf, plane + suffix, shape, window) for plane in PLANES)
    return lo, mid, hi, read_window(shelf, "count" + suffix, shape, window, np.uint16)


def read_window(
    shelf: Shelf, name: str, shape: tuple[int, int], window: Window, dtype: DTypeLike = np.float32
) -> NDArray[Any]:
    """A window of an image that has the shape of the grid."""
    return shelf.read(name, shape, slice(window.y0, window.y1), dtype)[:, window.x0 : window.x1]


def read_median(shelf: Shelf, shape: tuple[int, int], window: Window, suffix: str = "") -> NDArray[Any]:
    """The plane ``median`` in any window of the grid, NaN where there is none."""
    median = read_window(shelf, "median" + suffix, shape, window)
    median[read_window(shelf, "count" + suffix, shape, window, np.uint16) == 0] = np.nan
    return median
