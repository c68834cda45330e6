"""The rules of a MASK reference file, checked offline on the file itself.

Each group of rules is one short function that looks at what was read and yields faults. An *error* is a file that
CRDS refuses, that the pipeline misreads, or that breaks a stricter rule of ours; a *warning* is legal and deserves
a look. The groups, in order:

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

This module reads FITS files (``astropy.io.fits``) itself: it must see them as they are, broken ones included, where
:mod:`badpix.crds` gives masks that are sound. The faults that certify without a word and cost flags in operation
(a bit without a row, an unknown name, a renumbered table) are the reason for groups 3 and 4.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.detectors import IRS2_ROWS, Detector, Window
from badpix.errors import DataError
from badpix.params import nearest

COLUMNS = {"BIT": "J", "VALUE": "J", "NAME": "40A", "DESCRIPTION": "80A"}
SUPPORTED_HDUS = ("PRIMARY", "DQ", "DQ_DEF")
PLAIN_PEDIGREES = ("GROUND", "DUMMY", "SIMULATION", "MODEL")
TOPICS = ("DOCUMENT:", "SOFTWARE:", "DATA USED:", "DIFFERENCES:")
DESCRIP_LENGTH = 65
DATA_MODEL = "MaskModel"
EXAMPLES = 3  # of equal faults, how many are named


class Fault(NamedTuple):
    """One broken rule: ``error`` or ``warning``, a short name of the rule, what was found and what is expected."""

    severity: str
    rule: str
    message: str


Faults = Iterator[Fault]


class Row(NamedTuple):
    """One row of DQ_DEF as it stands in the file."""

    number: int
    bit: int
    value: int
    name: str
    description: str


@dataclass
class MaskFile:
    """What a file holds, as far as it could be read; None for what could not.

    ``reference`` and ``detector`` are known only where DETECTOR and the window make sense.
    """

    name: str
    header: fits.Header
    hdus: list[tuple[str, str]]  # extension name, kind: image, table, other
    dq_header: fits.Header | None = None
    image: NDArray[Any] | None = None
    table_header: fits.Header | None = None
    columns: list[str] | None = None
    rows: list[Row] | None = None
    has_primary_data: bool = False
    sums: tuple[tuple[str, str, int | None], ...] = ()  # extension, keyword, 1 right, 0 wrong, None missing

    @property
    def detector(self) -> Detector | None:
        """The detector, if DETECTOR names one."""
        try:
            return detectors.get(str(self.header.get("DETECTOR")))
        except DataError:
            return None

    @property
    def window(self) -> Window | None:
        """Place on the detector: SUBSTRT and the size of the image; None where a keyword is no whole number."""
        start = [self.header.get(k) for k in ("SUBSTRT1", "SUBSTRT2")]
        if self.image is None or self.image.ndim != 2 or not all(type(v) is int for v in start):
            return None
        ny, nx = self.image.shape
        return Window(start[0], start[1], nx, ny)  # type: ignore[arg-type]

    @property
    def is_full(self) -> bool:
        """Whether the image has the size of the whole detector."""
        if self.detector is None or self.image is None:
            return False
        ny, nx = self.detector.shape
        return self.image.shape in ((ny, nx), (IRS2_ROWS, nx))

    @property
    def is_irs2(self) -> bool:
        """Whether the image is a NIRSpec frame with interleaved reference pixels."""
        nirspec = self.detector is not None and self.detector.instrument == "NIRSPEC"
        return nirspec and self.image is not None and self.image.shape[0] == IRS2_ROWS


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
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, fits.VerifyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [Fault("error", "readable", f"not readable as FITS: {reason}")]
    faults = [fault for check in GROUPS for fault in check(found)]
    return sorted(faults, key=lambda f: f.severity != "error")


def _error(rule: str, message: str) -> Fault:
    return Fault("error", rule, message)


def _warning(rule: str, message: str) -> Fault:
    return Fault("warning", rule, message)


@cache
def known_words() -> dict[str, list[str]]:
    """Subarrays by instrument, names for all, readout patterns and exposure types (``configs/subarrays.yml``)."""
    import yaml

    text = files("badpix.configs").joinpath("subarrays.yml").read_text(encoding="utf-8")
    return {key: [str(v) for v in words] for key, words in yaml.safe_load(text).items()}


# --- reading ---------------------------------------------------------------------------------------------


def read_file(path: Path, name: str) -> MaskFile:
    """What a file holds, broken or not; before any rule is applied."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
            _check_complete(path, hdus)
            sums = tuple(row for hdu in hdus for row in _sums(hdu))
            kinds = [(hdu.name.upper(), _kind(hdu)) for hdu in hdus]
            found = MaskFile(name, hdus[0].header.copy(), kinds, sums=sums)
            found.has_primary_data = hdus[0].header.get("NAXIS", 0) != 0
            for hdu in hdus[1:]:
                _take(found, hdu)
    return found


def _check_complete(path: Path, hdus: fits.HDUList) -> None:
    size = path.stat().st_size
    for hdu in hdus:
        info = hdu.fileinfo()
        packed = isinstance(hdu, fits.CompImageHDU) or path.suffix == ".gz"  # other sizes on disk
        if info and not packed and info["datLoc"] + hdu.size > size:
            end = info["datLoc"] + hdu.size
            raise OSError(f"truncated: extension {hdu.name} ends at byte {end}, the file at {size}")


def _kind(hdu: Any) -> str:
    if isinstance(hdu, fits.CompImageHDU):
        return "compressed image"
    return "image" if hdu.is_image else "table" if isinstance(hdu, fits.BinTableHDU) else "other"


def _take(found: MaskFile, hdu: Any) -> None:
    """Keep the first DQ image and the first DQ_DEF table."""
    name = hdu.name.upper()
    if name == "DQ" and found.dq_header is None:
        found.dq_header = hdu.header.copy()
        data = hdu.data if hdu.is_image else None
        found.image = None if data is None else np.asarray(data)
    if name == "DQ_DEF" and found.table_header is None and isinstance(hdu, fits.BinTableHDU):
        found.table_header = hdu.header.copy()
        found.columns = [c.upper() for c in hdu.columns.names]
        if set(COLUMNS) <= set(found.columns):
            found.rows = [_row(n, row) for n, row in enumerate(hdu.data, 1)]


def _row(number: int, row: Any) -> Row:
    bit, value = (int(row[k]) for k in ("BIT", "VALUE"))
    name, description = (str(row[k]).rstrip() for k in ("NAME", "DESCRIPTION"))
    return Row(number, bit, value, name, description)


def _sums(hdu: Any) -> Iterator[tuple[str, str, int | None]]:
    """CHECKSUM and DATASUM of one HDU; before its data are touched, since that may change them in memory."""
    for keyword, verify in (("CHECKSUM", "verify_checksum"), ("DATASUM", "verify_datasum")):
        there = keyword in hdu.header
        yield hdu.name.upper(), keyword, int(getattr(hdu, verify)() == 1) if there else None


# --- 1. structure ----------------------------------------------------------------------------------------


def _structure(found: MaskFile) -> Faults:
    names = [name for name, _ in found.hdus]
    if found.has_primary_data:
        yield _error("primary-data", f"PRIMARY: NAXIS = {found.header.get('NAXIS')}, expected no data there")
    for name in ("DQ", "DQ_DEF"):
        count = names.count(name)
        if count == 0:
            yield _error("extension", f"extension {name} is missing; found {', '.join(names[1:]) or 'none'}")
        elif count > 1:
            yield _error("extension", f"extension {name} is there {count} times, expected once")
    for name in names[1:]:
        if name == "ASDF":
            yield _error("extension", "extension ASDF found; CRDS refuses reference files that have one")
        elif name not in SUPPORTED_HDUS:
            yield _error("extension", f"extension {name or 'without a name'} found, expected DQ and DQ_DEF alone")
    if [n for n in names if n in ("DQ", "DQ_DEF")] == ["DQ_DEF", "DQ"]:
        yield _error("extension", "DQ_DEF stands before DQ, expected DQ first")


# --- 2. encoding -----------------------------------------------------------------------------------------


def _encoding(found: MaskFile) -> Faults:
    kinds = dict(reversed(found.hdus))
    if "DQ" in kinds and kinds["DQ"] != "image":
        yield _error("dq-type", f"DQ is of kind {kinds['DQ']}, expected an image")
    if found.dq_header is None or kinds.get("DQ") != "image":
        return
    axes = found.dq_header.get("NAXIS")
    if axes != 2:
        yield _error("dq-axes", f"DQ: NAXIS = {axes}, expected 2")
    wanted = {"BITPIX": 32, "BSCALE": 1, "BZERO": 2**31}
    held = {k: found.dq_header.get(k, 1 if k == "BSCALE" else 0) for k in wanted}
    if held != wanted:
        text = ", ".join(f"{k} = {v}" for k, v in held.items())
        yield _error("dq-type", f"DQ: {text}, expected unsigned 32-bit (BITPIX = 32, BSCALE = 1, BZERO = {2**31})")


# --- 3. DQ_DEF -------------------------------------------------------------------------------------------


def _columns(found: MaskFile) -> Faults:
    if found.table_header is None or found.columns is None:
        if ("DQ_DEF", "table") not in found.hdus and "DQ_DEF" in dict(found.hdus):
            yield _error("dqdef-type", f"DQ_DEF is of kind {dict(found.hdus)['DQ_DEF']}, expected a binary table")
        return
    if found.columns != list(COLUMNS):
        yield _error(
            "dqdef-columns",
            f"DQ_DEF has the columns {', '.join(found.columns)}, expected {', '.join(COLUMNS)} in this order "
            "(they are read by position)",
        )
        return
    for number, (name, form) in enumerate(COLUMNS.items(), 1):
        held = str(found.table_header.get(f"TFORM{number}", "")).strip().removeprefix("1" if form == "J" else "")
        if held != form:
            yield _error("dqdef-format", f"DQ_DEF column {name}: TFORM{number} = {held!r}, expected {form!r}")
    zero = found.table_header.get("TZERO2")
    if zero != 2**31:
        yield _error("dqdef-format", f"DQ_DEF column VALUE: TZERO2 = {zero}, expected {2**31} (bit 31 needs it)")


def _rows(found: MaskFile) -> Faults:
    rows = found.rows or []
    if found.rows is not None and not rows:
        yield _error("dqdef-rows", "DQ_DEF has no rows: every flag would be lost")
    for key in ("bit", "name", "value"):
        for held, count in Counter(getattr(r, key) for r in rows).items():
            if count > 1:
                yield _error("dqdef-repeated", f"DQ_DEF: {key.upper()} {held} stands in {count} rows, expected one")
    for row in rows:
        yield from _row_faults(row)
    blank = sum(not row.description for row in rows)
    if blank:
        yield _warning("dqdef-description", f"DQ_DEF: {blank} of {len(rows)} rows have an empty DESCRIPTION")


def _row_faults(row: Row) -> Faults:
    where = f"DQ_DEF row {row.number}"
    if row.name == "GOOD" or row.value == 0:
        yield _error("dqdef-good", f"{where}: {row.name} with VALUE {row.value} decodes nothing; expected no row")
        return
    if not 0 <= row.bit <= 31:
        yield _error("dqdef-bit", f"{where}: BIT = {row.bit}, expected 0 to 31")
    elif row.value != 1 << row.bit:
        yield _error("dqdef-value", f"{where}: VALUE = {row.value}, expected 2**BIT = {1 << row.bit} for {row.name}")
    flag = dq.BY_NAME.get(row.name)
    if flag is None:
        yield _error(
            "dqdef-name", f"{where}: NAME {row.name!r} is no JWST flag, its pixels become good{dq.suggest(row.name)}"
        )
    elif flag.use == "never":
        yield _error("dqdef-name", f"{where}: NAME {row.name} is retired")
    elif row.bit != flag.bit:
        yield _error("dqdef-bit", f"{where}: {row.name} has BIT {row.bit}, expected its standard bit {flag.bit}")


# --- 4. DQ against DQ_DEF --------------------------------------------------------------------------------


def _flags(found: MaskFile) -> Faults:
    image = found.image
    if image is None or image.ndim != 2 or image.dtype.kind not in "iu":
        return
    stored = image if image.dtype == np.uint32 else image.astype(np.uint64)
    used = int(np.bitwise_or.reduce(stored, axis=None)) if stored.size else 0
    in_table = {r.value: r.name for r in found.rows or []}
    for bit in (b for b in range(64) if used >> b & 1):
        value = 1 << bit
        count = int(np.count_nonzero(stored & stored.dtype.type(value)))
        pixels = f"{count:,} pixel{'s' if count != 1 else ''}"
        if found.rows is not None and value not in in_table:
            standard = dq.FLAGS[bit].name if bit < 32 else "none"
            yield _error(
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
        yield _warning("dq-flag", text + "in a mask only where it was measured to be lasting")
    elif flag.use == "other":
        yield _warning("dq-flag", text + "another type of reference file sets it")
    else:
        yield _error("dq-flag", text + "it belongs to single exposures, not in a mask")


# --- 5. identity -----------------------------------------------------------------------------------------


def _identity(found: MaskFile) -> Faults:
    header = found.header
    for key, wanted in (("TELESCOP", "JWST"), ("REFTYPE", "MASK"), ("DATAMODL", DATA_MODEL)):
        if header.get(key) != wanted:
            yield _error(key.lower(), f"{key} = {header.get(key)!r}, expected {wanted!r}")
    instruments = sorted({d.instrument for d in detectors.table().values()})
    instrument, name = header.get("INSTRUME"), header.get("DETECTOR")
    if instrument not in instruments:
        yield _error("instrume", f"INSTRUME = {instrument!r}, expected one of {', '.join(instruments)}")
    if name not in detectors.table():
        hint = nearest(str(name), detectors.table())
        yield _error("detector", f"DETECTOR = {name!r} is unknown{hint}")
    elif instrument in instruments and (owner := detectors.get(name).instrument) != instrument:
        yield _error("detector", f"DETECTOR = {name!r} belongs to {owner}, but INSTRUME = {instrument!r}")
    for key in header:
        if key.startswith("P_") and key not in ("P_READPA", "P_EXP_TY"):
            yield _warning("match-key", f"{key} starts with P_: CRDS takes such keywords for match patterns")


# --- 6. geometry -----------------------------------------------------------------------------------------


def _axes(found: MaskFile) -> Faults:
    facts = found.detector
    for key in ("FASTAXIS", "SLOWAXIS"):
        held = found.header.get(key)
        if facts is None:
            if held not in (1, -1, 2, -2):
                yield _error("axes", f"{key} = {held!r}, expected 1, -1, 2 or -2")
        elif held != (wanted := getattr(facts, key.lower())):
            yield _error("axes", f"{key} = {held!r}, expected {wanted} for {facts.name}")


def _window(found: MaskFile) -> Faults:
    whole = True
    for key in ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2"):
        held = found.header.get(key)
        if type(held) is not int or held < 1:
            whole = False
            yield _error("window", f"{key} = {held!r}, expected a whole number from 1: the pipeline needs it")
    if not whole or found.image is None or found.image.ndim != 2:
        return
    ny, nx = found.image.shape
    size = (found.header["SUBSIZE1"], found.header["SUBSIZE2"])
    if size != (nx, ny) and not (found.is_irs2 and size == (nx, 2048)):
        yield _error("window", f"SUBSIZE1, SUBSIZE2 = {size[0]}, {size[1]}, but DQ has {nx} x {ny} pixels")
    if found.detector is None or found.is_irs2:
        return
    rows, columns = found.detector.shape
    last = (found.header["SUBSTRT1"] + nx - 1, found.header["SUBSTRT2"] + ny - 1)
    if last[0] > columns or last[1] > rows:
        name = found.detector.name
        yield _error("window", f"DQ reaches to pixel {last[0]}, {last[1]} of {name}, which has {columns} x {rows}")


def _subarray(found: MaskFile) -> Faults:
    held = found.header.get("SUBARRAY")
    if not isinstance(held, str) or not held.strip():
        yield _error("subarray", "SUBARRAY is missing; expected GENERIC for a full frame, else the subarray's name")
        return
    if found.detector is None:
        return
    legal = known_words()["all"] + known_words()[found.detector.instrument]
    if held not in legal:
        near = nearest(held, legal) if nearest(held, legal).startswith("; did") else ""
        yield _error("subarray", f"SUBARRAY = {held!r} is no subarray of {found.detector.instrument}{near}")
    if found.image is None or found.image.ndim != 2:
        return
    ny, nx = found.image.shape
    if found.is_full and held in legal and held not in known_words()["full_frame"] and "SUPSTP" not in held:
        yield _error("subarray", f"SUBARRAY = {held!r}, but DQ is a full frame, {nx} x {ny}; expected GENERIC")
    if not found.is_full and held in known_words()["full_frame"]:
        rows, columns = found.detector.shape
        yield _error("subarray", f"SUBARRAY = {held!r}, but DQ has {nx} x {ny} pixels, not {columns} x {rows}")
    if found.is_full and held == "FULL":
        yield _warning("subarray", "SUBARRAY = 'FULL' serves full frames alone; GENERIC serves subarrays as well")


# --- 7. match keys ---------------------------------------------------------------------------------------


def _match_keys(found: MaskFile) -> Faults:
    instrument = found.header.get("INSTRUME")
    if instrument == "NIRSPEC":
        values, faults = _match_values(found.header, "READPATT", "P_READPA", known_words()["readpatt"], instrument)
        yield from faults
        family = {("IRS2" in v) for v in values if v not in ("ANY", "N/A")}
        if found.image is not None and found.image.ndim == 2 and family and family != {found.is_irs2}:
            frame = "an IRS2 frame (3200 rows)" if found.is_irs2 else "no IRS2 frame (3200 rows)"
            yield _error("match-key", f"readout patterns {', '.join(values)}, but DQ is {frame}")
    if instrument == "FGS":
        yield from _match_values(found.header, "EXP_TYPE", "P_EXP_TY", known_words()["exp_type"], instrument)[1]


def _match_values(
    header: fits.Header, key: str, pattern: str, legal: list[str], instrument: str
) -> tuple[list[str], list[Fault]]:
    """Values of a match key, from its pattern where there is one, and what is wrong with them."""
    faults: list[Fault] = []
    if pattern not in header and not header.get(key):
        return [], [_error("match-key", f"{key} or {pattern} is missing; CRDS matches {instrument} masks by it")]
    if pattern not in header:
        values = [str(header[key])]
    else:
        text = str(header[pattern]).strip()
        values = [v.strip() for v in text.split("|") if v.strip()]
        if not text.endswith("|") or not values:
            faults.append(_error("match-key", f"{pattern} = {text!r}, expected a | after every value"))
    for value in values:
        if value not in legal:
            faults.append(_error("match-key", f"{pattern if pattern in header else key}: {value!r} is no {key} of "
                                 f"{instrument}{nearest(value, legal)}"))  # fmt: skip
    return values, faults


# --- 8. texts --------------------------------------------------------------------------------------------


def _texts(found: MaskFile) -> Faults:
    for key in ("AUTHOR", "DESCRIP"):
        text = found.header.get(key)
        if not isinstance(text, str) or not text.strip():
            yield _error(key.lower(), f"{key} is missing; CRDS wants a text")
    descrip = str(found.header.get("DESCRIP") or "")
    if len(descrip) > DESCRIP_LENGTH:
        yield _error("descrip", f"DESCRIP has {len(descrip)} characters, expected at most {DESCRIP_LENGTH}")
    yield from _pedigree(found.header.get("PEDIGREE"))
    yield from _time(found.header, "USEAFTER", "error")
    yield from _time(found.header, "DATE", "warning")
    held = found.header.get("FILENAME")
    if held != found.name:
        yield _warning("filename", f"FILENAME = {held!r}, expected {found.name!r}")


def _pedigree(text: Any) -> Faults:
    expected = "expected GROUND, DUMMY, SIMULATION, MODEL or INFLIGHT YYYY-MM-DD YYYY-MM-DD"
    words = str(text or "").split()
    if len(words) == 1 and words[0] in PLAIN_PEDIGREES:
        return
    if len(words) == 3 and words[0] in ("INFLIGHT", "MODEL"):
        first, last = (_day(w) for w in words[1:])
        if first and last and first > last:
            yield _error("pedigree", f"PEDIGREE = {text!r}: starts after it ends")
        if first and last:
            return
    yield _error("pedigree", f"PEDIGREE = {text!r}, {expected}")


def _day(text: str) -> date | None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _time(header: fits.Header, key: str, severity: str) -> Faults:
    text = header.get(key)
    fraction = r"(\.\d+)?" if key == "DATE" else ""
    good = isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d" + fraction, text) is not None
    if good:
        try:
            datetime.fromisoformat(str(text))
            return
        except ValueError:
            pass
    yield Fault(severity, key.lower(), f"{key} = {text!r}, expected YYYY-MM-DDThh:mm:ss")


def _file_name(found: MaskFile) -> Faults:
    """CRDS believes a name of the form <x>_<instrument>_<reftype>... more than the header."""
    parts = found.name.lower().split(".")[0].split("_")
    instruments = {d.instrument.lower() for d in detectors.table().values()}
    if len(parts) < 3 or parts[1] not in instruments:
        return
    held = (str(found.header.get("INSTRUME")).lower(), str(found.header.get("REFTYPE")).lower())
    if (parts[1], parts[2]) != held:
        yield _error(
            "file-name",
            f"the name {found.name!r} reads as {parts[1].upper()} {parts[2].upper()} to CRDS, which believes it more "
            f"than the header: INSTRUME = {held[0].upper()!r}, REFTYPE = {held[1].upper()!r}; choose another name",
        )


# --- 9. HISTORY ------------------------------------------------------------------------------------------


def _history(found: MaskFile) -> Faults:
    lines = [str(line) for line in found.header.get("HISTORY", [])]
    if not any(line.strip() for line in lines):
        yield _error("history", "HISTORY is missing; CRDS wants a card, and the topics "
                     f"description, {', '.join(TOPICS)} are expected")  # fmt: skip
        return
    text = "".join(f"{line}\n" for line in lines).upper()
    missing = [topic for topic in TOPICS if topic not in text]
    for topic in missing:
        yield _error("history", f"HISTORY: topic {topic!r} is missing; expected are all of {', '.join(TOPICS)}")
    first = next(line for line in lines if line.strip()).upper()
    if any(first.lstrip().startswith(topic) for topic in TOPICS):
        yield _error("history", f"HISTORY starts with {first[:30]!r}, expected a description of how it was made")


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
        yield _error(
            "reference", f"{_pixels(missing)} of the reference border without REFERENCE_PIXEL{_first(missing)}"
        )
    blocked = reference & unusable & ~bad
    if blocked.any():
        yield _error(
            "reference",
            f"{_pixels(blocked)}, all good reference pixels, with DO_NOT_USE{_first(blocked)}: the reference pixel "
            "correction would leave them out; a bad one has BAD_REF_PIXEL as well",
        )
    if not found.is_irs2:
        yield from _stray_reference(found, marked & ~border)
    lost = bad & ~reference
    if lost.any():
        yield _error("reference", f"{_pixels(lost)} with BAD_REF_PIXEL, but no reference pixels{_first(lost)}")
    usable = bad & reference & ~unusable
    if usable.any():
        yield _warning("reference", f"{_pixels(usable)} with BAD_REF_PIXEL, but without DO_NOT_USE{_first(usable)}")


def _stray_reference(found: MaskFile, stray: NDArray[np.bool_]) -> Faults:
    """REFERENCE_PIXEL where the detector has none; along a subarray's own edge it may be a scaled detector's."""
    if not stray.any():
        return
    edge = np.ones_like(stray)
    edge[4:-4, 4:-4] = False
    message = f"{_pixels(stray)} outside the reference border with REFERENCE_PIXEL{_first(stray)}"
    mild = not found.is_full and not (stray & ~edge).any()
    yield _warning("reference", message) if mild else _error("reference", message)


def _has(found: MaskFile, name: str) -> NDArray[np.bool_]:
    """Pixels with a flag, decoded through the file's own table as the pipeline does."""
    assert found.image is not None
    values = [r.value for r in found.rows or [] if r.name == name]
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
            yield _error("checksum", f"{name}: {keyword} is missing")
        elif not right:
            yield _error("checksum", f"{name}: {keyword} is wrong: the extension was changed after it was written")


GROUPS: tuple[Callable[[MaskFile], Faults], ...] = (
    _structure,
    _encoding,
    _columns,
    _rows,
    _flags,
    _identity,
    _axes,
    _window,
    _subarray,
    _match_keys,
    _texts,
    _file_name,
    _history,
    _reference,
    _checksums,
)
