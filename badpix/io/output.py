"""Outputs that appear whole or not at all.

A file is written under a temporary name beside its target, synced to disk, checked, and then renamed. A run that
is killed leaves the old file or the new one, never a part; two runs on one output never mix, because each has
a temporary name of its own. Without ``overwrite`` the last step is a hard link, which fails if the target has
appeared in the meantime, so nobody's file is replaced unasked.
"""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from badpix.errors import DataError, UsageError

if TYPE_CHECKING:
    from astropy.io import fits

BLOCK = 2880  # bytes of an empty primary HDU
TEMPORARY = ".badpix-"  # prefix of temporary names: hidden, and easy to recognise after a crash


def check_target(path: str | Path, overwrite: bool) -> Path:
    """The output path, after making sure that it may and can be written; call it before the work begins.

    Raises
    ------
    UsageError
        If it exists and ``overwrite`` is false, is a directory, or its directory can't be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path}: is a directory; expected the name of a file")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; give --overwrite to replace it")
    check_directory(path.parent)
    return path


def check_directory(directory: str | Path) -> Path:
    """An output directory, made if it is missing.

    Raises
    ------
    UsageError
        If it can't be made or written.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory}: can't be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{directory}: not writable")
    return directory


@contextmanager
def atomic_path(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    Raises
    ------
    UsageError
        If the target exists and ``overwrite`` is false.
    DataError
        If the disk is full or the file can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        _publish(temporary, path, overwrite)
        _sync(path.parent)
    except OSError as error:
        if error.filename is not None and str(error.filename) not in (str(temporary), str(path)):
            raise  # another file's trouble
        raise DataError(f"{path}: not written: {_reason(error)}") from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _reason(error: OSError) -> str:
    """Why a file could not be written; numpy and astropy hide the number of the error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:
            return os.strerror(seen.errno)
        seen = seen.__context__
    return f"the disk is full, or the file too large ({str(error).splitlines()[0]})"


def _publish(temporary: Path, path: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise UsageError(f"{path}: exists; give --overwrite to replace it") from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise UsageError(f"{path}: exists; give --overwrite to replace it") from None
        os.replace(temporary, path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str, overwrite: bool = False) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_hdus(path: str | Path, hdus: fits.HDUList) -> None:
    """Write an HDU list with CHECKSUM and DATASUM whose comments hold no clock time: equal data, equal bytes.

    Parameters
    ----------
    path : path
        A temporary path, from :func:`atomic_path`.
    hdus : astropy.io.fits.HDUList
        What to write.

    Raises
    ------
    OSError
        If the disk is full (turned into a message by :func:`atomic_path`).
    """
    with _gzip_without_clock():
        for hdu in hdus:
            hdu.add_checksum(when="of this HDU")
        with open(path, "wb") as stream:
            hdus.writeto(stream)


def table_hdu(columns: Sequence[fits.Column], name: str) -> fits.BinTableHDU:
    """A binary table of some columns.

    ``BinTableHDU.from_columns`` gives the same one, but imports all of astropy.table to ask whether the columns are
    such a table: a sixth of a second that every mask command would pay.
    """
    from astropy.io import fits

    hdu = fits.BinTableHDU(name=name)
    hdu.data = fits.FITS_rec.from_columns(fits.ColDefs(columns))
    return hdu


def pack_hdu(hdu: fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU | fits.BinTableHDU) -> bytes:
    """The bytes of one HDU in a file, with sums like those of :func:`write_hdus`: for files written HDU by HDU."""
    from astropy.io import fits

    stream = BytesIO()
    with _gzip_without_clock():
        hdu.add_checksum(when="of this HDU")
        first = isinstance(hdu, fits.PrimaryHDU)
        fits.HDUList([hdu] if first else [fits.PrimaryHDU(), hdu]).writeto(stream)
    return stream.getvalue()[0 if first else BLOCK :]


@contextmanager
def _gzip_without_clock() -> Iterator[None]:
    """While it runs, gzip does not write the time into each compressed tile (before Python 3.14 it does)."""
    before = gzip.time  # type: ignore[attr-defined]
    gzip.time = SimpleNamespace(time=lambda: 0)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        gzip.time = before  # type: ignore[attr-defined]
