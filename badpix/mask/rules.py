"""The rules of a MASK reference file, checked offline on the file itself.

Each group of rules is one short function that looks at what was read and yields faults. An *error* is a file that
CRDS refuses, that the pipeline misreads, or that breaks a stricter rule of ours; a *warning* is legal and deserves
a look; a *note* is never held against a file. The groups, in order:

1. structure: PRIMARY without data, DQ, DQ_DEF, nothing else;
2. encoding of DQ: two axes, unsigned 32-bit;
3. DQ_DEF: columns, one row a flag, standard names, VALUE = 2**BIT;
4. DQ against DQ_DEF, and flags that do not belong in a mask;
5. identity: telescope, type, instrument, detector, model;
6. geometry: window, size, axes, subarray;
7. match keys of NIRSpec and FGS;
8. texts: author, description, pedigree, dates, file name;
9. HISTORY and its topics;
10. reference pixels;
11. checksums.

The file is read by :mod:`badpix.mask.file_as_found`, which takes broken ones as they are. The faults that certify
without a word and cost flags in operation (a bit without a row, an unknown name, a VALUE that is not 2**BIT) are the
reason for groups 3 and 4. Other bits than the standard ones are what DQ_DEF is for: the pipeline reads flags by their
names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError
from badpix.mask import rules_header
from badpix.mask.file_as_found import (
    COLUMNS,
    Fault,
    Faults,
    MaskFile,
    Row,
    describe_exposure,
    error,
    note,
    read_file,
    warning,
)
from badpix.mask.rules_header import known_words

__all__ = ["Fault", "faults_of", "find_faults", "known_words", "read_file"]

SUPPORTED_HDUS = ("PRIMARY", "DQ", "DQ_DEF")
SEVERITIES = ("error", "warning", "note")
EXAMPLES = 3  # of equal faults, how many are named


def find_faults(path: str | Path, name: str | None = None) -> list[Fault]:
    """All rules that a MASK file breaks, errors first.

    Parameters
    ----------
    path : path
        The file.
    name : str, optional
        Its name once it is in place, where ``path`` is a temporary one.
    """
    path = Path(path)
    try:
        found = read_file(path, name or path.name)
    except DataError as problem:
        return [error("readable", str(problem))]
    return faults_of(found)


def faults_of(found: MaskFile) -> list[Fault]:
    """All rules that a file breaks that has been read, errors first."""
    kind = describe_exposure(found.header, [name for name, _ in found.hdus])
    if kind:
        return [error("kind", kind)]
    faults = [fault for check in GROUPS for fault in check(found)]
    return sorted(faults, key=lambda f: SEVERITIES.index(f.severity))


# --- 1. structure ----------------------------------------------------------------------------------------


def _structure(found: MaskFile) -> Faults:
    names = [name for name, _ in found.hdus]
    if found.has_primary_data:
        yield error("primary-data", f"PRIMARY: NAXIS = {found.header.get('NAXIS')}, expected no data there")
    for name in ("DQ", "DQ_DEF"):
        count = names.count(name)
        if count == 0:
            yield error("extension", f"extension {name} is missing; found {', '.join(names[1:]) or 'none'}")
        elif count > 1:
            yield error("extension", f"extension {name} is there {count} times, expected once")
    for name in names[1:]:
        if name == "ASDF":
            yield error("extension", "extension ASDF found; CRDS refuses reference files that have one")
        elif name not in SUPPORTED_HDUS:
            yield error("extension", f"extension {name or 'without a name'} found, expected DQ and DQ_DEF alone")
    if [n for n in names if n in ("DQ", "DQ_DEF")] == ["DQ_DEF", "DQ"]:
        yield error("extension", "DQ_DEF stands before DQ, expected DQ first")


# --- 2. encoding -----------------------------------------------------------------------------------------


def _encoding(found: MaskFile) -> Faults:
    kinds = dict(reversed(found.hdus))
    if kinds.get("DQ") == "compressed image":
        yield note("dq-compressed", "DQ is compressed by tiles (fpack), which CRDS and the pipeline unpack")
    elif "DQ" in kinds and kinds["DQ"] != "image":
        yield error("dq-type", f"DQ is of kind {kinds['DQ']}, expected an image")
        return
    if found.dq_header is None:
        return
    axes = found.dq_header.get("NAXIS")
    if axes != 2:
        yield error("dq-axes", f"DQ: NAXIS = {axes}, expected 2")
    wanted = {"BITPIX": 32, "BSCALE": 1, "BZERO": 2**31}
    held = {k: found.dq_header.get(k, 1 if k == "BSCALE" else 0) for k in wanted}
    if held != wanted:
        text = ", ".join(f"{k} = {v}" for k, v in held.items())
        yield error("dq-type", f"DQ: {text}, expected unsigned 32-bit (BITPIX = 32, BSCALE = 1, BZERO = {2**31})")


# --- 3. DQ_DEF -------------------------------------------------------------------------------------------


def _columns(found: MaskFile) -> Faults:
    if found.table_header is None or found.columns is None:
        if ("DQ_DEF", "table") not in found.hdus and "DQ_DEF" in dict(found.hdus):
            yield error("dqdef-type", f"DQ_DEF is of kind {dict(found.hdus)['DQ_DEF']}, expected a binary table")
        return
    if found.columns != list(COLUMNS):
        yield error(
            "dqdef-columns",
            f"DQ_DEF has the columns {', '.join(found.columns)}, expected {', '.join(COLUMNS)} in this order "
            "(they are read by position)",
        )
        return
    for number, (name, form) in enumerate(COLUMNS.items(), 1):
        held = str(found.table_header.get(f"TFORM{number}", "")).strip().removeprefix("1" if form == "J" else "")
        if held != form:
            yield error("dqdef-format", f"DQ_DEF column {name}: TFORM{number} = {held!r}, expected {form!r}")
    zero = found.table_header.get("TZERO2")
    if zero != 2**31:
        yield error("dqdef-format", f"DQ_DEF column VALUE: TZERO2 = {zero}, expected {2**31} (bit 31 needs it)")


def _rows(found: MaskFile) -> Faults:
    rows = found.rows or []
    if found.rows is not None and not rows:
        yield error("dqdef-rows", "DQ_DEF has no rows: every flag would be lost")
    for key in ("bit", "name", "value"):
        for held, count in Counter(getattr(r, key) for r in rows).items():
            if count > 1:
                yield error("dqdef-repeated", f"DQ_DEF: {key.upper()} {held} stands in {count} rows, expected one")
    for row in rows:
        yield from _row_faults(row)
    blank = sum(not row.description for row in rows)
    if blank:
        yield warning("dqdef-description", f"DQ_DEF: {blank} of {len(rows)} rows have an empty DESCRIPTION")


def _row_faults(row: Row) -> Faults:
    where = f"DQ_DEF row {row.number}"
    if row.name == "GOOD" or row.value == 0:
        yield error("dqdef-good", f"{where}: {row.name} with VALUE {row.value} decodes nothing; expected no row")
        return
    if not 0 <= row.bit <= 31:
        yield error("dqdef-bit", f"{where}: BIT = {row.bit}, expected 0 to 31")
    elif row.value != 1 << row.bit:
        yield error("dqdef-value", f"{where}: VALUE = {row.value}, expected 2**BIT = {1 << row.bit} for {row.name}")
    flag = dq.BY_NAME.get(row.name)
    if flag is None:
        yield error(
            "dqdef-name", f"{where}: NAME {row.name!r} is no JWST flag, its pixels become good{dq.suggest(row.name)}"
        )
    elif flag.use == "never":
        yield error("dqdef-name", f"{where}: NAME {row.name} is retired")
    elif row.bit != flag.bit:
        text = f"{where}: {row.name} has BIT {row.bit}, in the pipeline {flag.bit}; readers go by DQ_DEF"
        yield note("dqdef-bit", text)


# --- 4. DQ against DQ_DEF --------------------------------------------------------------------------------


def _flags(found: MaskFile) -> Faults:
    image = found.image
    if image is None or image.ndim != 2 or image.dtype.kind not in "iu":
        return
    flagged = image.reshape(-1)[np.flatnonzero(image != 0)]
    stored = flagged if image.dtype == np.uint32 else flagged.astype(np.uint64)
    used = int(np.bitwise_or.reduce(stored, axis=None)) if stored.size else 0
    in_table = {r.value: r.name for r in found.rows or []}
    for bit in (b for b in range(64) if used >> b & 1):
        value = 1 << bit
        count = int(np.count_nonzero(stored & stored.dtype.type(value)))
        pixels = f"{count:,} pixel{'s' if count != 1 else ''}"
        if found.rows is not None and value not in in_table:
            standard = dq.FLAGS[bit].name if bit < 32 else "none"
            yield error(
                "dq-undefined",
                f"DQ: bit {bit} (standard name {standard}) is set in {pixels}, but DQ_DEF has no row for it: "
                "they would be read as good",
            )
        yield from _misplaced(dq.BY_NAME.get(in_table.get(value, "")), pixels)


def _misplaced(flag: dq.Flag | None, pixels: str) -> Faults:
    """Flags that mean something about an exposure or belong to another reference file."""
    if flag is None or flag.use == "mask":
        return
    text = f"DQ: {flag.name} is set in {pixels}; "
    if flag.name == "PERSISTENCE":
        yield warning("dq-flag", text + "in a mask only where it was measured to be lasting")
    elif flag.use == "other":
        yield warning("dq-flag", text + "another type of reference file sets it")
    else:
        yield error("dq-flag", text + "it belongs to single exposures, not in a mask")


# --- 10. reference pixels --------------------------------------------------------------------------------


def _reference(found: MaskFile) -> Faults:
    facts, window, image = found.detector, found.window, found.image
    if facts is None or window is None or image is None or image.dtype.kind not in "iu":
        return
    border = detectors.measure_border(facts, window)
    marked = _has(found, "REFERENCE_PIXEL")
    bad, unusable = _has(found, "BAD_REF_PIXEL"), _has(found, "DO_NOT_USE")
    reference = border | marked
    missing = border & ~marked
    if missing.any():
        yield error(
            "reference", f"{_pixels(missing)} of the reference border without REFERENCE_PIXEL{_first(missing)}"
        )
    blocked = reference & unusable & ~bad
    if blocked.any():
        yield error(
            "reference",
            f"{_pixels(blocked)}, all good reference pixels, with DO_NOT_USE{_first(blocked)}: the reference pixel "
            "correction would leave them out; a bad one has BAD_REF_PIXEL as well",
        )
    if not found.is_irs2:
        yield from _stray_reference(found, marked & ~border)
    lost = bad & ~reference
    if lost.any():
        yield error("reference", f"{_pixels(lost)} with BAD_REF_PIXEL, but no reference pixels{_first(lost)}")
    usable = bad & reference & ~unusable
    if usable.any():
        yield warning("reference", f"{_pixels(usable)} with BAD_REF_PIXEL, but without DO_NOT_USE{_first(usable)}")


def _stray_reference(found: MaskFile, stray: NDArray[np.bool_]) -> Faults:
    """REFERENCE_PIXEL where the detector has none; along a subarray's own edge it may be a scaled detector's."""
    if not stray.any():
        return
    edge = np.ones_like(stray)
    edge[4:-4, 4:-4] = False
    message = f"{_pixels(stray)} outside the reference border with REFERENCE_PIXEL{_first(stray)}"
    mild = not found.is_full and not (stray & ~edge).any()
    yield warning("reference", message) if mild else error("reference", message)


def _has(found: MaskFile, name: str) -> NDArray[np.bool_]:
    """Pixels with a flag, decoded through the file's own table as the pipeline does."""
    assert found.image is not None
    values = [r.value for r in found.rows or [] if r.name == name and 0 <= r.value < 2**64]
    if found.rows is None:
        values = [dq.VALUE[name]]
    value = np.bitwise_or.reduce(np.array(values, np.uint64)) if values else np.uint64(0)
    # DQ is uint32 in a sound file: no need for 64 bits there
    kind = found.image.dtype.type if found.image.dtype == np.uint32 and value < 2**32 else np.uint64
    flagged: NDArray[np.bool_] = (found.image.astype(kind, copy=False) & kind(value)) != 0
    return flagged


def _pixels(pixels: NDArray[np.bool_]) -> str:
    count = int(np.count_nonzero(pixels))
    return f"{count:,} pixel{'s' if count != 1 else ''}"


def _first(pixels: NDArray[np.bool_]) -> str:
    """The first few of some pixels, as (x, y) counted from 0."""
    y, x = np.nonzero(pixels)
    shown = ", ".join(f"({a}, {b})" for a, b in zip(x[:EXAMPLES], y[:EXAMPLES], strict=True))
    return f": {shown}{', ...' if len(x) > EXAMPLES else ''}"


# --- 11. checksums ---------------------------------------------------------------------------------------


def _checksums(found: MaskFile) -> Faults:
    for name, keyword, right in found.sums:
        if right is None:
            yield error("checksum", f"{name}: {keyword} is missing")
        elif not right:
            yield error("checksum", f"{name}: {keyword} is wrong: the extension was changed after it was written")


GROUPS: tuple[Callable[[MaskFile], Faults], ...] = (
    _structure,
    _encoding,
    _columns,
    _rows,
    _flags,
    *rules_header.GROUPS,
    _reference,
    _checksums,
)
