"""Writing the flagged copies of `_cal` exposures, the `_crf` files.

A copy keeps all HDUs of its exposure in order:

1. HDUs that do not change are copied byte by byte;
2. SCI, ERR, VAR_RNOISE, VAR_POISSON, VAR_FLAT and DQ are copied in bands of rows, and made to *match* on the way:
   flagged pixels get DO_NOT_USE and OUTLIER; every pixel that is NaN in one of the arrays, or has DO_NOT_USE,
   gets DO_NOT_USE and NaN in all of them. No DQ bit is ever cleared; an array of another shape is left alone;
3. the primary header and the metadata in the ASDF tree say what was done.

The copy is written under a temporary name, and published by the caller (:func:`badpix.io.output.atomic_path`): it is
whole or absent, alone or together with others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.io import asdf_text
from badpix.io import cards as io_cards
from badpix.io.associations import Association, crf_name
from badpix.io.cal import DO_NOT_USE, FLAGGED, CalFile, Hdu, image_hdu, layout_of, read_asdf
from badpix.io.fits import Layout, bands, pack, read_band
from badpix.io.headers import Odd
from badpix.outside import first_line, header_text

if TYPE_CHECKING:
    from astropy.io import fits

# Arrays that are NaN together (those that exist and have the shape of SCI).
MATCHED = ("SCI", "ERR", "VAR_RNOISE", "VAR_POISSON", "VAR_FLAT")

_BAND = 256  # rows of one array that are in memory while a copy is written
_CHUNK = 1 << 22  # bytes


def write_copy(
    cal: CalFile,
    path: Path,
    name: str,
    *,
    flagged: NDArray[Any] | None,
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
    with cal.source.open("rb") as source, path.open("wb") as out:
        try:
            places = _write_frame(cal, source, out, values, history, exptype, flagged is not None)
        except UnicodeError as error:  # also what astropy says of such cards, by _as_bytes
            raise DataError(f"{cal.path}: a card of its headers can't be copied: {first_line(error)}") from None
        counts = {} if flagged is None else _write_matched(cal, out, places, flagged)
        out.flush()
        os.fsync(out.fileno())  # here, where several copies are written side by side
    return counts


def count_copy(cal: CalFile, flagged: NDArray[Any]) -> dict[str, int]:
    """The counts that :func:`write_copy` would give, from the arrays alone; nothing is written.

    Parameters
    ----------
    cal : CalFile
        The exposure.
    flagged : ndarray of bool, shape (ny, nx)
        Pixels that would get DO_NOT_USE and OUTLIER.
    """
    layouts = {hdu.name: layout_of(cal, hdu) for hdu in cal.hdus[1:] if _is_matched(hdu, cal.shape)}
    counts = {"flagged": 0, "newly_unusable": 0, "unusable": 0}
    for start, arrays in _read_bands(layouts, cal.shape):
        _count_band(counts, arrays, flagged[start : start + len(arrays["SCI"])])
    return counts


def crf_path(directory: str | Path, cal: CalFile, association: Association) -> Path:
    """Where the flagged copy of an exposure goes."""
    return Path(directory) / crf_name(cal.path, association.asn_id)


def _now() -> datetime:
    """The time of writing; SOURCE_DATE_EPOCH where it is set, so that equal runs can give equal bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return datetime.fromtimestamp(int(epoch), UTC) if epoch.isdigit() else datetime.now(UTC)


def _header_values(name: str, association: Association, status: str) -> dict[str, str]:
    values = {
        "FILENAME": name,
        "DATE": _now().strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3],
        "S_OUTLIR": status,
    }
    if association.table_name:
        values["ASNTABLE"] = association.table_name
        values["ASNPOOL"] = association.pool_name or "none"
    return {key: header_text(value) for key, value in values.items()}


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
        matched = changing and _is_matched(hdu, shape)
        if i == 0:
            out.write(_primary_header(hdu, values, history))
            _copy(source, out, hdu.data_start, hdu.end)
        elif hdu.name == "ASDF":
            tree = {_IN_TREE[key]: value for key, value in values.items()}
            tree["meta.asn.exptype"] = exptype
            out.write(_asdf_hdu(cal, hdu, tree))
        elif matched:
            out.write(_extension_header(hdu, {}))
            places[hdu.name] = out.tell()
            out.truncate(out.tell() + hdu.end - hdu.data_start)  # zeros, padding among them
            out.seek(0, os.SEEK_END)
        else:
            _copy(source, out, hdu.start, hdu.end)
    return places


def _is_matched(hdu: Hdu, shape: tuple[int, int]) -> bool:
    """Whether an HDU holds pixels that the copy changes."""
    return hdu.version == 1 and hdu.name in (*MATCHED, "DQ") and hdu.shape == shape


SUMS = ("CHECKSUM", "DATASUM")  # over content that is about to change


def _primary_header(hdu: Hdu, values: Mapping[str, str], history: list[str]) -> bytes:
    """The primary header with changed or new values and lines of HISTORY; astropy makes it where cards are odd."""
    try:
        cards = _plain_cards(hdu)
        for key, value in values.items():
            if io_cards.find_card(cards, key) is not None:
                io_cards.set_card(cards, key, value)
            else:
                steps = [i for i, card in enumerate(cards) if card.startswith("S_")] if key == "S_OUTLIR" else []
                card = io_cards.make_card(key, value, _COMMENTS.get(key, ""))
                io_cards.insert_card(cards, card, steps[-1] if steps else None)
        for line in history:
            io_cards.add_history(cards, line)
    except Odd:
        return _odd_primary_header(hdu.full_header, values, history)
    return io_cards.join_cards(cards)


def _plain_cards(hdu: Hdu) -> list[str]:
    """The cards of a header without the sums.

    Raises
    ------
    Odd
        If astropy should look at them.
    """
    if not hdu.plain:
        raise Odd("no plain header")
    cards = io_cards.split_cards(hdu.cards)
    io_cards.remove_cards(cards, SUMS)
    return cards


def _odd_primary_header(header: fits.Header, values: Mapping[str, str], history: list[str]) -> bytes:
    _remove_sums(header)
    for key, value in values.items():
        if key in header:
            set_text(header, key, value)
        else:
            steps = [k for k in header if k.startswith("S_")] if key == "S_OUTLIR" else []
            card = (key, value, _COMMENTS.get(key, ""))
            header.insert(steps[-1], card, after=True) if steps else header.append(card, end=False)
    for line in history:
        header.add_history(line)
    return _as_bytes(header)


def _as_bytes(header: fits.Header) -> bytes:
    try:
        found: bytes = header.tostring().encode("ascii")
    except ValueError as error:  # a value outside ASCII that astropy reads and does not write
        raise UnicodeError(str(error)) from error
    return found


def set_text(header: fits.Header, key: str, value: str) -> None:
    """Change a keyword that holds text; its comment is dropped where it would not fit on the card any more."""
    from astropy.io import fits

    comment = header.comments[key]
    used = len(fits.Card(key, value).image.rstrip()) + len(" / ")
    header[key] = (value, comment if used + len(comment) <= fits.Card.length else "")


def _remove_sums(header: fits.Header) -> None:
    for key in SUMS:
        header.remove(key, ignore_missing=True)


def _extension_header(hdu: Hdu, values: Mapping[str, str | int]) -> bytes:
    """The header of an extension without the sums, with some values changed."""
    try:
        cards = _plain_cards(hdu)
        for key, value in values.items():
            io_cards.set_card(cards, key, value)
    except Odd:
        header = hdu.full_header
        _remove_sums(header)
        for key, value in values.items():
            header[key] = value
        return _as_bytes(header)
    return io_cards.join_cards(cards)


def _asdf_hdu(cal: CalFile, hdu: Hdu, tree: Mapping[str, str]) -> bytes:
    content = read_asdf(cal)
    assert content is not None
    try:
        content = asdf_text.update(content, tree)
    except Exception as error:
        raise DataError(f"{cal.path}: the ASDF extension is not readable: {error}") from error
    size = len(content)
    return (
        _extension_header(hdu, {"NAXIS1": size, "NAXIS2": 1, "TFORM1": f"{size}B"}) + content + b"\0" * (-size % 2880)
    )


def _copy(source: BinaryIO, out: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        chunk = source.read(min(_CHUNK, end - start))
        out.write(chunk)
        start += len(chunk)


def _write_matched(cal: CalFile, out: BinaryIO, places: Mapping[str, int], flagged: NDArray[Any]) -> dict[str, int]:
    out.flush()
    counts = {"flagged": 0, "newly_unusable": 0, "unusable": 0}
    layouts = {name: layout_of(cal, image_hdu(cal, name)) for name in places}
    for start, arrays in _read_bands(layouts, cal.shape):
        _count_band(counts, arrays, flagged[start : start + len(arrays["SCI"])])
        for name, values in arrays.items():
            stored = pack(values, layouts[name]) if values.dtype.isnative else values
            os.pwrite(out.fileno(), stored.data, places[name] + start * stored.shape[1] * stored.itemsize)
    return counts


def _read_bands(
    layouts: Mapping[str, Layout], shape: tuple[int, int]
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """The first row of each band, and its arrays: floats as they are stored, in memory that the next band takes."""
    ny, nx = shape
    height = min(_BAND, ny)
    room = {name: np.empty((1, height, nx), layout.dtype) for name, layout in layouts.items()}
    for start, stop in bands(ny, height):
        yield (
            start,
            {
                name: read_band(layout, start, stop, out=room[name][:, : stop - start], native=name == "DQ")[0]
                for name, layout in layouts.items()
            },
        )


def _count_band(counts: dict[str, int], arrays: dict[str, NDArray[Any]], flagged: NDArray[Any]) -> None:
    """Make the arrays of some rows match, in place, and add to the counts."""
    was_finite = np.isfinite(arrays["SCI"])
    bad = match(arrays, flagged)
    counts["flagged"] += int(np.count_nonzero(flagged))
    counts["newly_unusable"] += int(np.count_nonzero(bad & was_finite))
    counts["unusable"] += int(np.count_nonzero(bad))


def match(arrays: dict[str, NDArray[Any]], flagged: NDArray[Any]) -> NDArray[Any]:
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
            values |= bad * DO_NOT_USE
            values |= flagged * FLAGGED
        else:
            np.copyto(values, np.nan, where=bad)
    return bad
