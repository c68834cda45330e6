"""Outputs that appear whole or not at all.

A file is written under a temporary name beside its target, synced to disk, checked, and then renamed. A run that
is killed leaves the old file or the new one, never a part; two runs on one output never mix, because each has
a temporary name of its own. Without ``overwrite`` the last step is a hard link, which fails if the target has
appeared in the meantime, so nobody's file is replaced unasked.

The target of every writer, a log and a status line among them, is absent or a regular file, and none of the inputs
(:func:`check_target`, :func:`check_log`). What becomes a part of its name from data is plain (:func:`plain_word`,
:func:`fill_template`).
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from badpix.errors import DataError, UsageError
from badpix.io.scratch import sweep_half_written
from badpix.outside import find_fault, printable, quote

if TYPE_CHECKING:
    from astropy.io import fits

log = logging.getLogger("badpix")
_made: list[Path] = []  # folders made for outputs, the innermost first
BLOCK = 2880  # bytes of an empty primary HDU
TEMPORARY = ".badpix-"  # prefix of temporary names: hidden, and easy to recognize after a crash


NAME_LIMIT = 255 - len(TEMPORARY) - 13  # bytes of a file name that leave room for the temporary one
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Za-z]+ ")  # how a log or a status line begins


def check_target(path: str | Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> Path:
    """The output path, after making sure that it may and can be written; call it before the work begins.

    Parameters
    ----------
    path : path
        Where to write.
    overwrite : bool
        Whether an existing file may be replaced.
    inputs : iterable of path
        What is read: never replaced.

    Raises
    ------
    UsageError
        If it exists and ``overwrite`` is false, is no regular file or one of the inputs, or its directory can't be
        written.
    """
    path = Path(path)
    check_place(path, inputs)
    if path.exists() and not overwrite:
        raise UsageError(f"{printable(path)}: exists; give --overwrite to replace it")
    check_directory(path.parent)
    return path


def check_place(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that a path is absent or a regular file, and none of the inputs.

    Raises
    ------
    UsageError
        If not.
    """
    path = Path(path)
    fault = find_fault(path)
    if fault not in (None, "no such file"):
        expected = "" if "expected" in str(fault) else "; expected the name of a file"
        raise UsageError(f"{printable(path)}: {fault}{expected}")
    if len(os.fsencode(path.name)) > NAME_LIMIT:
        raise UsageError(f"{quote(path.name)}: the name is longer than {NAME_LIMIT} bytes")
    if fault is None:
        own = os.stat(path)
        for name in inputs:
            with suppress(OSError):
                if os.path.samestat(own, os.stat(name)):
                    raise UsageError(f"{printable(path)}: is also an input; inputs are never modified")


def check_page(path: str | Path, option: str, overwrite: bool, inputs: Iterable[str | Path] = ()) -> Path:
    """The path of an HTML page, as :func:`check_target`; another ending is that of another file, given by mistake."""
    if Path(path).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{option} {printable(path)}: it is an HTML page; expected a name that ends in .html")
    return check_target(path, overwrite, inputs)


def check_log(path: str | Path, option: str, inputs: Iterable[str | Path] = ()) -> None:
    """Make sure that a log or a status line may be written: to a new file, or to one that holds nothing else.

    Raises
    ------
    UsageError
        If the file exists and is no log (an exposure, a parameter file).
    """
    path = Path(path)
    try:
        check_place(path, inputs)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    if path.exists():
        try:
            with open(path, "rb") as stream:
                start = stream.read(40).decode("ascii", "replace")
        except OSError as error:
            raise UsageError(f"{option}: {printable(path)}: {error.strerror}") from None
        if start and not LOG_LINE.match(start):
            raise UsageError(f"{option}: {printable(path)}: exists, and is no file of this kind; give another name")


def plain_word(value: object, what: str) -> str:
    """Text from data that becomes a part of a file name: letters, digits, ``_``, ``-`` and ``.`` only.

    Raises
    ------
    DataError
        If it holds anything else, or begins with a dot.
    """
    text = str(value)
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", text):
        raise DataError(f"{what} = {quote(text)}: no part of a file name; expected letters, digits, _, - or .")
    return text


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """A file name with its ``{fields}`` filled in; nothing but these fields may stand in braces.

    Raises
    ------
    UsageError
        At anything else in braces, or a single brace.
    """

    def fill(match: re.Match[str]) -> str:
        if match[1] not in fields:
            known = ", ".join(f"{{{name}}}" for name in fields)
            raise UsageError(f"output: {quote(template)} has an unknown field; known are {known}")
        return fields[match[1]]

    filled = re.sub(r"\{([^{}]*)\}", fill, template)
    if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", template)):
        raise UsageError(f"output: {quote(template)} has a brace without its partner")
    return filled


def check_directory(directory: str | Path, *, told: bool = True) -> Path:
    """An output directory, made if it is missing, which is said unless ``told`` is false.

    Raises
    ------
    UsageError
        If it can't be made or written.
    """
    directory = Path(directory)
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"{directory}: is a file, expected a folder") from None
    except NotADirectoryError:
        file = next(part for part in directory.parents if part.exists())
        raise UsageError(f"{directory}: can't be made: {file} is a file, expected a folder") from None
    except OSError as error:
        raise UsageError(f"{directory}: can't be made: {error.strerror}") from None
    if missing:
        log.log(logging.INFO if told else logging.DEBUG, f"made the folder {printable(directory)}")
        _made.extend(missing)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{directory}: not writable")
    sweep_half_written(directory)
    return directory


def remove_empty() -> None:
    """Remove folders that this process made for outputs and that hold nothing: for a command that fails."""
    for folder in _made:
        with suppress(OSError):
            folder.rmdir()
    _made.clear()


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
    check_place(path)
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(6).hex()}-{path.name}")
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


def copy_file(source: str | Path, path: str | Path, overwrite: bool = False) -> None:
    """Copy a file, whole or not at all; a link under the name of the copy is replaced, not followed."""
    with atomic_path(path, overwrite) as temporary:
        shutil.copyfile(source, temporary)


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
