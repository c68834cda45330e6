"""Some rows of plane after plane of an extension, read from a file that stays open meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.io.fits import Layout, read_band
from badpix.io.handles import read_into, stamp_of


class Planes:
    """Rows ``start`` to ``stop`` (exclusive) of an extension; a context that keeps its file open.

    Raises
    ------
    DataError
        On entering and in :meth:`read`: if the file vanished, changed since its layout was found, or can't be read.
    """

    def __init__(self, layout: Layout, start: int, stop: int) -> None:
        self.layout, self.start, self.stop = layout, start, stop
        self.stored = np.dtype(layout.stored or np.dtype(layout.dtype).newbyteorder(">"))
        self._handle = -1

    def __enter__(self) -> Planes:
        """Open the file, and make sure that it is the one that was opened before."""
        try:
            self._handle = os.open(self.layout.path, os.O_RDONLY | os.O_NONBLOCK)
            if stamp_of(os.fstat(self._handle)) != self.layout.stamp:
                self.__exit__(None, None, None)
                raise DataError(f"{self.layout.path}: changed during the run")
        except OSError as error:
            raise DataError(f"{self.layout.path}: can't be read: {error.strerror}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        os.close(self._handle)

    def read(self, planes: Sequence[int], out: NDArray[Any], *, native: bool = True) -> NDArray[Any]:
        """Read some planes.

        Parameters
        ----------
        planes : sequence of int
            In file order (integration * ngroups + group).
        out : ndarray
            (planes, rows, nx), each plane contiguous: where they go.
        native : bool
            False leaves the bytes as they are in the file, for a caller whose next step is a copy; floats only.

        Returns
        -------
        ndarray
            ``out``, or a view of it in the byte order of the file.
        """
        stored = self.stored
        if (
            out.dtype.itemsize != stored.itemsize
            or (out.dtype.kind == "f") != (stored.kind == "f")
            or self.layout.flip
        ):
            out[:] = read_band(self.layout, self.start, self.stop, planes=planes, out=np.empty(out.shape, out.dtype))
            return out
        ny, nx = self.layout.shape[-2:]
        row, handle, length = nx * stored.itemsize, self._handle, out[0].nbytes if len(out) else 0
        first = self.layout.offset + self.start * row
        try:
            for k, plane in enumerate(planes):
                place, room = first + plane * ny * row, out[k]
                got = os.preadv(handle, (room,), place)
                if got != length:
                    rest = room.reshape(-1).view(np.uint8).data[got:]
                    read_into(handle, rest, place + got, self.layout.path)
        except OSError as error:
            raise DataError(f"{self.layout.path}: can't be read: {error.strerror}") from None
        found = out.view(stored)
        if native and stored.itemsize > 1:
            np.copyto(out.view(stored.newbyteorder("=")), found)
            return out
        return found if not native else out
