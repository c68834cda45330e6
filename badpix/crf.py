"""Reading `_cal` exposures by rows, and writing their flagged copies, the `_crf` files.

A `_cal` file holds SCI, ERR and VAR_* (float32), DQ (uint32, stored as int32 with BZERO 2**31) and an ASDF
extension with metadata and GWCS. Its copy keeps all HDUs in order:

1. the headers of all HDUs and where their data lie are read once (:func:`read_layout`); pixels are then read by
   rows, with plain reads (a file that is cut short is an error, not a crash);
2. HDUs that do not change are copied byte by byte;
3. SCI, ERR, VAR_RNOISE, VAR_POISSON, VAR_FLAT and DQ are copied in bands of rows, and made to *match* on the way:
   flagged pixels get DO_NOT_USE and OUTLIER; every pixel that is NaN in one of the arrays, or has DO_NOT_USE,
   gets DO_NOT_USE and NaN in all of them. No DQ bit is ever cleared; an array of another shape is left alone;
4. the primary header and the metadata in the ASDF tree say what was done.

The copy is written under a temporary name and renamed at the end: it is whole or absent.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from badpix import asdf_meta, dq
from badpix.associations import Association, crf_name
from badpix.errors import DataError, UsageError
from badpix.output import atomic_path

# Arrays that are NaN together (those that exist and have the shape of SCI).
MATCHED = ("SCI", "ERR", "VAR_RNOISE", "VAR_POISSON", "VAR_FLAT")

DO_NOT_USE = np.uint32(dq.VALUE["DO_NOT_USE"])
FLAGGED = np.uint32(dq.VALUE["DO_NOT_USE"] | dq.VALUE["OUTLIER"])
_SIGN = np.uint32(1 << 31)

_BAND = 256  # rows of one array that are in memory while a copy is written
_CHUNK = 1 << 22  # bytes


@dataclass(frozen=True)
class Hdu:
    """One HDU of a file: its header, and the byte offsets of header, data and end (with padding)."""

    name: str
    version: int
    header: fits.Header
    start: int
    data_start: int
    end: int

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, numpy order."""
        return tuple(self.header[f"NAXIS{i}"] for i in range(self.header["NAXIS"], 0, -1))


@dataclass(frozen=True)
class CalFile:
    """A `_cal` file whose headers have been read and whose pixels have not."""

    path: Path
    hdus: tuple[Hdu, ...]

    @property
    def primary(self) -> fits.Header:
        """The primary header."""
        return self.hdus[0].header

    def find(self, name: str) -> Hdu | None:
        """The first HDU of this name; None where there is none."""
        return next((hdu for hdu in self.hdus if hdu.name == name and hdu.version == 1), None)

    def keyword(self, name: str) -> str:
        """A keyword of the primary header as upper-case text.

        Raises
        ------
        DataError
            If it is missing.
        """
        if name not in self.primary:
            raise DataError(f"{self.path}: no keyword {name} in the primary header")
        return str(self.primary[name]).strip().upper()

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (ny, nx) of SCI."""
        ny, nx = image_hdu(self, "SCI").shape
        return ny, nx


# --- reading ---------------------------------------------------------------------------------------------


def read_layout(path: str | Path) -> CalFile:
    """The headers of all HDUs of a FITS file, and where their data lie.

    Raises
    ------
    DataError
        If the file is missing, no (uncompressed) FITS, or cut short.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"SIMPLE":
            packed = "; uncompress it first" if magic[:2] == b"\x1f\x8b" else ""
            raise DataError(f"{path}: not a plain FITS file{packed}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(path, memmap=False, lazy_load_hdus=False, disable_image_compression=True) as hdul:
                hdus = tuple(_hdu(hdul, i) for i in range(len(hdul)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, KeyError, fits.VerifyError) as error:
        raise DataError(f"{path}: not readable as FITS: {error}") from None
    for hdu in hdus:
        if hdu.end > size:
            name = hdu.name or "PRIMARY"
            raise DataError(f"{path}: cut short: HDU {name} ends at byte {hdu.end}, the file has {size}")
    if _starts_with(path, hdus[-1].end, b"XTENSION"):  # a header that astropy silently leaves out
        raise DataError(f"{path}: cut short in the header of the HDU behind {hdus[-1].name}")
    return CalFile(path, hdus)


def _starts_with(path: Path, position: int, text: bytes) -> bool:
    with path.open("rb") as file:
        file.seek(position)
        return file.read(len(text)) == text


def _hdu(hdul: fits.HDUList, i: int) -> Hdu:
    info = hdul.fileinfo(i)
    hdu = hdul[i]
    start, data = info["hdrLoc"], info["datLoc"]
    return Hdu(hdu.name, int(hdu.ver), hdu.header, start, data, data + info["datSpan"])


def image_hdu(cal: CalFile, name: str) -> Hdu:
    """The HDU of a two-dimensional array.

    Raises
    ------
    DataError
        If it is missing, not two-dimensional, or of a type that `_cal` files don't have.
    """
    hdu = cal.find(name)
    if hdu is None:
        raise DataError(f"{cal.path}: no {name} extension; expected a _cal file with SCI, ERR and DQ")
    if hdu.header["NAXIS"] != 2:
        raise DataError(f"{cal.path}: {name}: found {hdu.header['NAXIS']} axes, expected an image (2)")
    _stored_type(cal, hdu)
    return hdu


def _stored_type(cal: CalFile, hdu: Hdu) -> np.dtype[Any]:
    """The type in the file, big-endian; DQ is one of the two forms of 32-bit integers."""
    bits, zero = hdu.header.get("BITPIX"), hdu.header.get("BZERO", 0)
    if hdu.name == "DQ":
        if bits == 32 and zero in (0, 1 << 31):
            return np.dtype(">u4")
    elif bits in (-32, -64) and zero == 0 and hdu.header.get("BSCALE", 1) == 1:
        return np.dtype(f">f{-bits // 8}")
    kind = "32-bit integers" if hdu.name == "DQ" else "floating point"
    raise DataError(f"{cal.path}: {hdu.name}: found BITPIX {bits}, BZERO {zero}; expected {kind}")


def read_rows(cal: CalFile, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Rows ``start:stop`` of an array in native byte order.

    Returns
    -------
    ndarray, shape (stop - start, nx)
        uint32 for DQ; float32 (float64 where the file has it) for the others.
    """
    hdu = image_hdu(cal, name)
    stop = hdu.shape[0] if stop is None else stop
    with cal.path.open("rb", buffering=0) as file:
        stored = _read_stored(file, cal, hdu, start, stop)
    return _native(stored, hdu)


def _read_stored(file: Any, cal: CalFile, hdu: Hdu, start: int, stop: int) -> np.ndarray:
    kind = _stored_type(cal, hdu)
    nx = hdu.shape[1]
    rows = np.empty((stop - start, nx), kind)
    view = rows.reshape(-1).view("u1").data
    position = hdu.data_start + start * nx * kind.itemsize
    done = 0
    while done < len(view):
        got = os.preadv(file.fileno(), [view[done:]], position + done)
        if not got:
            raise DataError(f"{cal.path}: cut short in {hdu.name}")
        done += got
    return rows


def _native(stored: np.ndarray, hdu: Hdu) -> np.ndarray:
    """Stored values in native byte order, in the same memory."""
    values = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
    if hdu.header.get("BZERO", 0):
        values ^= _SIGN
    return values


def _to_stored(values: np.ndarray, hdu: Hdu) -> np.ndarray:
    """The inverse of :func:`_native`; ``values`` is used up."""
    if hdu.header.get("BZERO", 0):
        values ^= _SIGN
    return values.byteswap(inplace=True)


def read_asdf(cal: CalFile) -> bytes | None:
    """The ASDF file inside the ASDF extension; None where there is none."""
    hdu = cal.find("ASDF")
    if hdu is None:
        return None
    with cal.path.open("rb") as file:
        file.seek(hdu.data_start)
        return file.read(hdu.header["NAXIS1"] * hdu.header["NAXIS2"])


def read_wcs(cal: CalFile) -> Any:
    """The GWCS of an exposure (``meta.wcs``); nothing else of the tree is turned into objects.

    Raises
    ------
    DataError
        If there is none, or it can't be read.
    """
    content = read_asdf(cal)
    if content is None:
        raise DataError(f"{cal.path}: no ASDF extension, which holds the GWCS")
    import io

    import asdf

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with asdf.open(io.BytesIO(content), lazy_load=False, memmap=False, lazy_tree=True) as af:
                wcs = af.tree["meta"]["wcs"]
    except Exception as error:
        raise DataError(f"{cal.path}: no readable meta.wcs in the ASDF extension: {error}") from error
    if not hasattr(wcs, "forward_transform"):
        raise DataError(f"{cal.path}: meta.wcs is no GWCS (found {type(wcs).__name__})")
    return wcs


def read_meta(cal: CalFile, path: str) -> str | None:
    """A scalar of the ASDF tree as text, such as ``meta.group_id``; None where there is none."""
    content = read_asdf(cal)
    return None if content is None else asdf_meta.read_value(content, path)


# --- writing ---------------------------------------------------------------------------------------------


def write_crf(
    cal: CalFile,
    target: str | Path,
    *,
    flagged: np.ndarray | None,
    association: Association,
    status: str,
    history: list[str],
    overwrite: bool,
    exptype: str = "science",
) -> dict[str, int]:
    """Write the flagged copy of an exposure, whole or not at all.

    Parameters
    ----------
    cal : CalFile
        The exposure; never changed.
    target : path
        The `_crf` file.
    overwrite : bool
        Whether an existing file may be replaced.
    **others
        As for :func:`write_copy`.

    Returns
    -------
    dict
        As for :func:`write_copy`.

    Raises
    ------
    UsageError
        If the target is the input itself or exists.
    """
    target = Path(target)
    check_not_input(target, cal)
    with atomic_path(target, overwrite=overwrite) as temporary:
        return write_copy(
            cal,
            temporary,
            target.name,
            flagged=flagged,
            association=association,
            status=status,
            history=history,
            exptype=exptype,
        )


def write_copy(
    cal: CalFile,
    path: Path,
    name: str,
    *,
    flagged: np.ndarray | None,
    association: Association,
    status: str,
    history: list[str],
    exptype: str = "science",
) -> dict[str, int]:
    """Write the flagged copy of an exposure under a (temporary) path.

    Parameters
    ----------
    cal : CalFile
        The exposure; never changed.
    path : Path
        Where to write.
    name : str
        Final file name, for the header.
    flagged : ndarray of bool, shape (ny, nx), or None
        Pixels that get DO_NOT_USE and OUTLIER; None copies the arrays as they are.
    association : Association
        For ASNPOOL and ASNTABLE.
    status : str
        Value of S_OUTLIR: COMPLETE, SKIPPED or FAILED.
    history : list of str
        HISTORY lines to add to the primary header.
    exptype : str
        Type of the member, for the ASDF tree.

    Returns
    -------
    dict
        ``flagged``: pixels flagged; ``newly_unusable``: pixels that have DO_NOT_USE now and were finite before;
        ``unusable``: all pixels with DO_NOT_USE. Empty where ``flagged`` is None.
    """
    values = _header_values(name, association, status)
    with cal.path.open("rb") as source, path.open("wb") as out:
        places = _write_frame(cal, source, out, values, history, exptype, flagged is not None)
        counts = {} if flagged is None else _write_matched(cal, source, out, places, flagged)
        out.flush()
        os.fsync(out.fileno())  # here, where several copies are written side by side
    return counts


def check_not_input(target: str | Path, cal: CalFile) -> None:
    """Refuse to replace an input.

    Raises
    ------
    UsageError
        If the target is the exposure itself.
    """
    if Path(target).exists() and os.path.samefile(target, cal.path):
        raise UsageError(f"{target}: is the input itself; choose another --output-dir")


def crf_path(directory: str | Path, cal: CalFile, association: Association) -> Path:
    """Where the flagged copy of an exposure goes."""
    return Path(directory) / crf_name(cal.path, association.asn_id)


def _header_values(name: str, association: Association, status: str) -> dict[str, str]:
    values = {
        "FILENAME": name,
        "DATE": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3],
        "S_OUTLIR": status,
    }
    if association.table_name:
        values["ASNTABLE"] = association.table_name
        values["ASNPOOL"] = association.pool_name or "none"
    return values


# Where the values of the primary header stand in the ASDF tree.
_IN_TREE = {
    "FILENAME": "meta.filename",
    "DATE": "meta.date",
    "S_OUTLIR": "meta.cal_step.outlier_detection",
    "ASNTABLE": "meta.asn.table_name",
    "ASNPOOL": "meta.asn.pool_name",
}

_COMMENTS = {
    "S_OUTLIR": "Outlier Detection",
    "ASNTABLE": "Name of the ASN table",
    "ASNPOOL": "Name of the ASN pool",
}


def _write_frame(
    cal: CalFile,
    source: BinaryIO,
    out: BinaryIO,
    values: Mapping[str, str],
    history: list[str],
    exptype: str,
    changing: bool,
) -> dict[str, int]:
    """Everything but the pixels that change; gives the offsets at which those belong."""
    places: dict[str, int] = {}
    shape = cal.shape
    for i, hdu in enumerate(cal.hdus):
        matched = changing and hdu.version == 1 and hdu.name in (*MATCHED, "DQ") and hdu.shape == shape
        if i == 0:
            out.write(_primary_header(hdu.header, values, history))
            _copy(source, out, hdu.data_start, hdu.end)
        elif hdu.name == "ASDF":
            tree = {_IN_TREE[key]: value for key, value in values.items()}
            tree["meta.asn.exptype"] = exptype
            out.write(_asdf_hdu(cal, hdu, tree))
        elif matched:
            header = _without_checksum(hdu.header)
            out.write(header.tostring().encode("ascii"))
            places[hdu.name] = out.tell()
            out.truncate(out.tell() + hdu.end - hdu.data_start)  # zeros, padding among them
            out.seek(0, os.SEEK_END)
        else:
            _copy(source, out, hdu.start, hdu.end)
    return places


def _primary_header(header: fits.Header, values: Mapping[str, str], history: list[str]) -> bytes:
    header = _without_checksum(header)
    for key, value in values.items():
        if key in header:
            header[key] = value
        else:
            steps = [k for k in header if k.startswith("S_")] if key == "S_OUTLIR" else []
            card = (key, value, _COMMENTS.get(key, ""))
            header.insert(steps[-1], card, after=True) if steps else header.append(card, end=False)
    for line in history:
        header.add_history(line)
    return header.tostring().encode("ascii")


def _without_checksum(header: fits.Header) -> fits.Header:
    """A copy without the sums over content that is about to change."""
    header = header.copy()
    for key in ("CHECKSUM", "DATASUM"):
        header.remove(key, ignore_missing=True)
    return header


def _asdf_hdu(cal: CalFile, hdu: Hdu, tree: Mapping[str, str]) -> bytes:
    content = read_asdf(cal)
    assert content is not None
    try:
        content = asdf_meta.update(content, tree)
    except Exception as error:
        raise DataError(f"{cal.path}: the ASDF extension is not readable: {error}") from error
    header = _without_checksum(hdu.header)
    header["NAXIS1"], header["NAXIS2"] = len(content), 1
    header["TFORM1"] = f"{len(content)}B"
    return header.tostring().encode("ascii") + content + b"\0" * (-len(content) % 2880)


def _copy(source: BinaryIO, out: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        chunk = source.read(min(_CHUNK, end - start))
        out.write(chunk)
        start += len(chunk)


def _write_matched(
    cal: CalFile, source: BinaryIO, out: BinaryIO, places: Mapping[str, int], flagged: np.ndarray
) -> dict[str, int]:
    out.flush()
    counts = {"flagged": int(np.count_nonzero(flagged)), "newly_unusable": 0, "unusable": 0}
    hdus = {name: image_hdu(cal, name) for name in places}
    for start, stop in _bands(cal.shape[0]):
        arrays = {n: _native(_read_stored(source, cal, h, start, stop), h) for n, h in hdus.items()}
        was_finite = np.isfinite(arrays["SCI"])
        bad = match(arrays, flagged[start:stop])
        counts["newly_unusable"] += int(np.count_nonzero(bad & was_finite))
        counts["unusable"] += int(np.count_nonzero(bad))
        for name, values in arrays.items():
            position = places[name] + start * hdus[name].shape[1] * values.itemsize
            os.pwrite(out.fileno(), _to_stored(values, hdus[name]).data, position)
    return counts


def match(arrays: dict[str, np.ndarray], flagged: np.ndarray) -> np.ndarray:
    """Make NaN and DO_NOT_USE agree in all arrays of one exposure, in place.

    Parameters
    ----------
    arrays : dict of ndarray
        Some of :data:`MATCHED`, and DQ if there is one; all of one shape.
    flagged : ndarray of bool
        Pixels that get DO_NOT_USE and OUTLIER.

    Returns
    -------
    ndarray of bool
        Pixels that can't be used.
    """
    bad = flagged.copy()
    for name, values in arrays.items():
        bad |= (values & DO_NOT_USE).astype(bool) if name == "DQ" else np.isnan(values)
    for name, values in arrays.items():
        if name == "DQ":
            values[bad] |= DO_NOT_USE
            values[flagged] |= FLAGGED
        else:
            values[bad] = np.nan
    return bad


def _bands(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, _BAND):
        yield start, min(start + _BAND, rows)
