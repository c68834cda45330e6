"""Compressed files as plain ones: gzip and fpack can't be read by rows.

Pixels are unpacked into a private temporary folder, after a look at the free space.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError

if TYPE_CHECKING:
    from astropy.io import fits


def need_workdir(path: Path, workdir: Path | None) -> Path:
    """The folder to unpack in.

    Raises
    ------
    DataError
        If there is none.
    """
    if workdir is None:
        raise DataError(f"{path}: compressed, and there is no folder to unpack it in")
    return workdir


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _check_space(path: Path, workdir: Path, need: int) -> None:
    free = shutil.disk_usage(workdir).free
    if need > free:
        raise DataError(
            f"{path}: unpacking needs {need / 1e9:.1f} GB in {workdir}, {free / 1e9:.1f} GB are free; set TMPDIR"
        )


def gunzip(path: Path, workdir: Path) -> Path:
    """A gzipped file, unpacked.

    Raises
    ------
    DataError
        If there is no room, or it is damaged.
    """
    target = Path(tempfile.mkstemp(dir=workdir, prefix=path.stem + "-", suffix=".fits")[1])
    try:
        _check_space(path, workdir, 2 * path.stat().st_size)
        with gzip.open(path) as packed, open(target, "wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be unpacked: {first_line(error)}") from None
    return target


def unpack_tiles(path: Path, hdu: fits.CompImageHDU, dtype: str, workdir: Path) -> Path:
    """Pixels of an fpack-compressed extension, plane by plane, as a raw file of big-endian values."""
    shape = tuple(hdu.shape)
    native = np.dtype(dtype)
    _check_space(path, workdir, int(np.prod(shape, dtype=np.int64)) * native.itemsize)
    target = Path(tempfile.mkstemp(dir=workdir, prefix=f"{path.stem}-{hdu.name}-", suffix=".raw")[1])
    with open(target, "wb") as stream:
        for index in np.ndindex(*shape[:-2]):
            plane = np.asarray(hdu.section[index] if index else hdu.section[:, :]).astype(native)
            flip_sign(plane)
            plane.astype(native.newbyteorder(">")).tofile(stream)
    return target


def flip_sign(values: NDArray[Any]) -> None:
    """Turn stored signed integers into the unsigned ones that BZERO means, or back: flip the highest bit."""
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:
        values ^= values.dtype.type(1 << (8 * values.dtype.itemsize - 1))


def first_line(error: Exception) -> str:
    """What an error says first."""
    return (str(error).splitlines() or [type(error).__name__])[0]
