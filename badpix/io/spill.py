"""Images and tables that wait on disk until they are needed: what no step before the evidence looks at."""

from __future__ import annotations

import tempfile
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 17  # bytes of a table that are read at once


class DiskImage:
    """A float32 image in a temporary file without a name, which goes with the object.

    Parameters
    ----------
    shape : tuple of int
        (ny, nx); NaN where nothing is written.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self._file = tempfile.TemporaryFile(prefix="badpix-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._written = np.zeros(shape[0], bool)

    def write_rows(self, start: int, rows: NDArray[np.float32]) -> None:
        """Keep (rows, nx) values from row ``start`` on."""
        self._file.seek(start * self.shape[1] * self.dtype.itemsize)
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self._written[start : start + len(rows)] = True

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        image = np.full(self.shape, np.nan, self.dtype)
        size = self.shape[1] * self.dtype.itemsize
        known = np.flatnonzero(self._written)
        for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
            if run.size:
                self._file.seek(int(run[0]) * size)
                self._file.readinto(image[run[0] : run[-1] + 1].data)  # type: ignore[attr-defined]
        return image if dtype is None else image.astype(dtype)


class DiskTable:
    """Rows of float32 numbers in a temporary file without a name: appended band by band, read where they are chosen.

    Parameters
    ----------
    columns : int
        Numbers in a row.
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.rows = columns, 0
        self._file = tempfile.TemporaryFile(prefix="badpix-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Add (n, columns) numbers at the end."""
        self._file.write(np.ascontiguousarray(rows, np.float32).data)
        self.rows += len(rows)

    def read(self, chosen: NDArray[np.intp]) -> NDArray[np.float32]:
        """The rows of these numbers, ascending: (chosen, columns)."""
        out = np.empty((len(chosen), self.columns), np.float32)
        block = max(BLOCK // (4 * max(self.columns, 1)), 1)
        room = np.empty((min(block, self.rows), self.columns), np.float32)
        for start in range(0, self.rows, block):
            low, high = np.searchsorted(chosen, (start, start + block))
            if low < high:
                rows = room[: min(block, self.rows - start)]
                self._file.seek(start * self.columns * 4)
                self._file.readinto(rows.data)  # type: ignore[attr-defined]
                out[low:high] = rows[chosen[low:high] - start]
        return out
