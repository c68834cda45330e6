"""Compressed files as plain ones: gzip and fpack can't be read by rows.

1. A gzipped file is unpacked into a private folder, up to :data:`MOST_UNPACKED` bytes and half of the free space: a
   small file may expand without end.
2. Of a file with fpack-compressed extensions a plain copy is made, plane by plane; extensions that nobody needs are
   left out. What a compressed image claims was checked before (:mod:`badpix.io.structure`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from badpix.errors import DataError
from badpix.io.structure import BLOCK, Growing, Piece, is_compressed, walk
from badpix.outside import open_regular, printable, understood

if TYPE_CHECKING:
    from astropy.io import fits

CHUNK = 1 << 20  # bytes
MOST_UNPACKED = 64 << 30  # bytes of one file


def make_plain(path: Path, workdir: Path | None, names: Sequence[str] | None = None) -> tuple[Path, list[Piece]]:
    """A file without compression (the file itself, or its unpacked copy), and its structure.

    Parameters
    ----------
    path : Path
        The file.
    workdir : Path, optional
        Where to unpack.
    names : sequence of str, optional
        Compressed extensions that are needed; all, if not given.

    Raises
    ------
    DataError
        If it is damaged, there is no room, or no folder to unpack in.
    """
    source = gunzip(path, _need_workdir(path, workdir)) if is_gzip(path) else path
    pieces = walk(source, path)
    if not any(map(is_compressed, pieces[1:])):
        return source, pieces
    source = _unpack_tiles(path, source, pieces, _need_workdir(path, workdir), names)
    return source, walk(source, path)


def _need_workdir(path: Path, workdir: Path | None) -> Path:
    if workdir is None:
        raise DataError(f"{printable(path)}: compressed, and there is no folder to unpack it in")
    return workdir


def is_gzip(path: Path) -> bool:
    """Whether a regular file begins as gzip does."""
    handle = open_regular(path)
    try:
        return os.pread(handle, 2, 0) == b"\x1f\x8b"
    finally:
        os.close(handle)


def check_space(path: Path, workdir: Path, need: int) -> None:
    """Make sure that half of the free space is enough.

    Raises
    ------
    DataError
        If not.
    """
    free = shutil.disk_usage(workdir).free
    if need > free // 2:
        raise DataError(
            f"{printable(path)}: unpacking needs {need / 1e9:.1f} GB in {workdir}, {free / 1e9:.1f} GB are free, of "
            "which half is used; set TMPDIR"
        )


# --- 1: gzip ---------------------------------------------------------------------------------------------


def gunzip(path: Path, workdir: Path, most: int = MOST_UNPACKED) -> Path:
    """A gzipped FITS file, unpacked up to where its headers say that it ends, and to ``most`` bytes.

    Raises
    ------
    DataError
        If there is no room, it is damaged, or holds no FITS file.
    """
    target = _temporary(workdir, path, ".fits")
    check_space(path, workdir, 2 * path.stat().st_size)
    limit = min(most, shutil.disk_usage(workdir).free // 2)
    written = 0
    pieces = inflate(path)
    try:
        with open(target, "w+b") as plain:
            growing = Growing(plain.fileno())
            while piece := _next_piece(pieces, path):
                if not written and not piece.startswith(b"SIMPLE"):
                    raise DataError(f"{printable(path)}: gzipped, but no FITS file")
                written += len(piece)
                if written > limit:
                    raise DataError(f"{printable(path)}: unpacks to more than {limit / 1e9:.1f} GB")
                plain.write(piece)
                plain.flush()
                if growing.is_whole(written):
                    break
    except DataError as problem:
        raise DataError(f"{printable(path)}: {str(problem).removeprefix(f'{printable(path)}: ')}") from None
    except OSError as problem:  # of the folder: what is wrong with the file is said by then
        raise DataError(f"{printable(path)}: can't be unpacked: {problem}") from None
    return target


def _next_piece(pieces: Iterator[bytes], path: Path) -> bytes:
    """The next piece; empty at the end."""
    with understood(path, "gzip"):
        return next(pieces, b"")


def inflate(path: Path) -> Iterator[bytes]:
    """The content of a gzipped file (also of several members) in pieces of at most :data:`CHUNK` bytes.

    Raises
    ------
    ValueError
        If it ends early.
    """
    with os.fdopen(open_regular(path), "rb") as packed:
        rest = packed.read(CHUNK)
        while rest.startswith(b"\x1f\x8b"):
            machine = zlib.decompressobj(31)
            while not machine.eof:
                piece = machine.decompress(rest, CHUNK)
                rest = machine.unconsumed_tail or machine.unused_data or packed.read(CHUNK)
                if piece:
                    yield piece
                elif not rest and not machine.eof:
                    raise ValueError("the compressed file ends early")
            rest = (rest if len(rest) > 1 else rest + packed.read(CHUNK)).lstrip(b"\0")
        if rest:
            raise ValueError("something follows the compressed data")


# --- 2: fpack --------------------------------------------------------------------------------------------


def _unpack_tiles(
    path: Path, source: Path, pieces: Sequence[Piece], workdir: Path, names: Sequence[str] | None
) -> Path:
    """A plain copy of a file with compressed extensions."""
    from astropy.io import fits

    target = _temporary(workdir, path, ".fits")
    with understood(path, "FITS"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(source, memmap=False) as hdus, open(source, "rb") as stored, open(target, "wb") as plain:
            for piece, hdu in zip(pieces, hdus, strict=True):
                if not isinstance(hdu, fits.CompImageHDU):
                    _copy(stored, plain, piece)
                elif names is None or hdu.name.upper() in names:
                    _write_image(path, hdu, plain, workdir)
    return target


def _copy(stored: BinaryIO, plain: BinaryIO, piece: Piece) -> None:
    stored.seek(piece.start)
    left = piece.end - piece.start
    while left > 0:
        chunk = stored.read(min(CHUNK, left))
        plain.write(chunk or b"\0" * left)  # a last block without its padding
        left -= len(chunk) or left


def _write_image(path: Path, hdu: fits.CompImageHDU, plain: BinaryIO, workdir: Path) -> None:
    """Header and pixels of a compressed image, as a plain one stores them."""
    header, shape = hdu.header.copy(), tuple(hdu.shape)
    for key in ("CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM"):
        header.remove(key, ignore_missing=True)
    kinds = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
    kind = np.dtype(kinds[header["BITPIX"]])
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    check_space(path, workdir, size)
    plain.write(header.tostring().encode("ascii"))
    zero = int(header.get("BZERO", 0))
    for index in np.ndindex(*shape[:-2]):
        plane: Any = np.asarray(hdu.section[index] if index else hdu.section[:, :])
        if zero and kind.kind == "i":  # unsigned in memory, stored with its highest bit inverted
            plane = plane.astype(np.int64) - zero
        plane.astype(kind).tofile(plain)
    plain.write(b"\0" * (-size % BLOCK))


def _temporary(workdir: Path, path: Path, ending: str) -> Path:
    handle, name = tempfile.mkstemp(dir=workdir, prefix=f"{path.name[:40]}-", suffix=ending)
    os.close(handle)
    return Path(name)
