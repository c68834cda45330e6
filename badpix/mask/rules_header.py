"""Rules of a MASK file's primary header: identity, geometry, match keys, texts, HISTORY (groups 5 to 9 of
:mod:`badpix.mask.rules`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from badpix import detectors
from badpix.errors import DataError, nearest
from badpix.io.headers import refuse_stripes
from badpix.mask.file_as_found import Fault, Faults, MaskFile, error, warning
from badpix.outside import header_text

PLAIN_PEDIGREES = ("GROUND", "DUMMY", "SIMULATION", "MODEL")
TOPICS = ("DOCUMENT:", "SOFTWARE:", "DATA USED:", "DIFFERENCES:")
DESCRIP_LENGTH = 65
DATA_MODEL = "MaskModel"


@cache
def known_words() -> dict[str, list[str]]:
    """Subarrays by instrument, names for all, readout patterns and exposure types (``configs/subarrays.yml``)."""
    import yaml

    text = files("badpix.configs").joinpath("subarrays.yml").read_text(encoding="utf-8")
    words = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {key: [str(v) for v in names] for key, names in words.items()}


# --- 5. identity -----------------------------------------------------------------------------------------


def _identity(found: MaskFile) -> Faults:
    header = found.header
    for key, wanted in (("TELESCOP", "JWST"), ("REFTYPE", "MASK"), ("DATAMODL", DATA_MODEL)):
        if header.get(key) != wanted:
            yield error(key.lower(), f"{key} = {header.get(key)!r}, expected {wanted!r}")
    instruments = sorted({d.instrument for d in detectors.table().values()})
    instrument, name = header.get("INSTRUME"), header.get("DETECTOR")
    if instrument not in instruments:
        yield error("instrume", f"INSTRUME = {instrument!r}, expected one of {', '.join(instruments)}")
    if name not in detectors.table():
        hint = nearest(str(name), detectors.table())
        yield error("detector", f"DETECTOR = {name!r} is unknown{hint}")
    elif instrument in instruments and (owner := detectors.get(name).instrument) != instrument:
        yield error("detector", f"DETECTOR = {name!r} belongs to {owner}, but INSTRUME = {instrument!r}")
    for key in header:
        if key.startswith("P_") and key not in ("P_READPA", "P_EXP_TY"):
            yield warning("match-key", f"{key} starts with P_: CRDS takes such keywords for match patterns")


# --- 6. geometry -----------------------------------------------------------------------------------------


def _axes(found: MaskFile) -> Faults:
    facts = found.detector
    for key in ("FASTAXIS", "SLOWAXIS"):
        held = found.header.get(key)
        if facts is None:
            if held not in (1, -1, 2, -2):
                yield error("axes", f"{key} = {held!r}, expected 1, -1, 2 or -2")
        elif held != (wanted := getattr(facts, key.lower())):
            yield error("axes", f"{key} = {held!r}, expected {wanted} for {facts.name}")


def _window(found: MaskFile) -> Faults:
    whole = True
    for key in ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2"):
        held = found.header.get(key)
        if type(held) is not int or held < 1:
            whole = False
            yield error("window", f"{key} = {held!r}, expected a whole number from 1: the pipeline needs it")
    if not whole or found.image is None or found.image.ndim != 2:
        return
    ny, nx = found.image.shape
    size = (found.header["SUBSIZE1"], found.header["SUBSIZE2"])
    if size != (nx, ny) and not (found.is_irs2 and size == (nx, 2048)):
        yield error("window", f"SUBSIZE1, SUBSIZE2 = {size[0]}, {size[1]}, but DQ has {nx} x {ny} pixels")
    if found.detector is None or found.is_irs2:
        return
    rows, columns = found.detector.shape
    last = (found.header["SUBSTRT1"] + nx - 1, found.header["SUBSTRT2"] + ny - 1)
    if last[0] > columns or last[1] > rows:
        name = found.detector.name
        yield error("window", f"DQ reaches to pixel {last[0]}, {last[1]} of {name}, which has {columns} x {rows}")


def _subarray(found: MaskFile) -> Faults:
    held = found.header.get("SUBARRAY")
    if not isinstance(held, str) or not held.strip():
        yield error("subarray", "SUBARRAY is missing; expected GENERIC for a full frame, else the subarray's name")
        return
    if found.detector is None:
        return
    legal = known_words()["all"] + known_words()[found.detector.instrument]
    if held not in legal:
        near = nearest(held, legal) if nearest(held, legal).startswith("; did") else ""
        yield error("subarray", f"SUBARRAY = {held!r} is no subarray of {found.detector.instrument}{near}")
    if found.image is None or found.image.ndim != 2:
        return
    ny, nx = found.image.shape
    if found.is_full and held in legal and held not in known_words()["full_frame"] and "SUPSTP" not in held:
        yield error("subarray", f"SUBARRAY = {held!r}, but DQ is a full frame, {nx} x {ny}; expected GENERIC")
    if not found.is_full and held in known_words()["full_frame"]:
        rows, columns = found.detector.shape
        yield error("subarray", f"SUBARRAY = {held!r}, but DQ has {nx} x {ny} pixels, not {columns} x {rows}")
    if found.is_full and held == "FULL":
        yield warning("subarray", "SUBARRAY = 'FULL' serves full frames alone; GENERIC serves subarrays as well")


# --- 7. match keys ---------------------------------------------------------------------------------------


def _match_keys(found: MaskFile) -> Faults:
    instrument = found.header.get("INSTRUME")
    if instrument == "NIRSPEC":
        values, faults = _match_values(found.header, "READPATT", "P_READPA", known_words()["readpatt"], instrument)
        yield from faults
        family = {("IRS2" in v) for v in values if v not in ("ANY", "N/A")}
        if found.image is not None and found.image.ndim == 2 and family and family != {found.is_irs2}:
            frame = "an IRS2 frame (3200 rows)" if found.is_irs2 else "no IRS2 frame (3200 rows)"
            yield error("match-key", f"readout patterns {', '.join(values)}, but DQ is {frame}")
    if instrument == "FGS":
        yield from _match_values(found.header, "EXP_TYPE", "P_EXP_TY", known_words()["exp_type"], instrument)[1]


def _match_values(
    header: Mapping[str, Any], key: str, pattern: str, legal: list[str], instrument: str
) -> tuple[list[str], list[Fault]]:
    """Values of a match key, from its pattern where there is one, and what is wrong with them."""
    faults: list[Fault] = []
    if pattern not in header and not header.get(key):
        return [], [error("match-key", f"{key} or {pattern} is missing; CRDS matches {instrument} masks by it")]
    if pattern not in header:
        values = [str(header[key])]
    else:
        text = str(header[pattern]).strip()
        values = [v.strip() for v in text.split("|") if v.strip()]
        if not text.endswith("|") or not values:
            faults.append(error("match-key", f"{pattern} = {text!r}, expected a | after every value"))
    for value in values:
        if value not in legal:
            faults.append(
                error(
                    "match-key",
                    f"{pattern if pattern in header else key}: {value!r} is no {key} of "
                    f"{instrument}{nearest(value, legal)}",
                )
            )
    return values, faults


# --- 8. texts --------------------------------------------------------------------------------------------


def _texts(found: MaskFile) -> Faults:
    for key in ("AUTHOR", "DESCRIP"):
        text = found.header.get(key)
        if not isinstance(text, str) or not text.strip():
            yield error(key.lower(), f"{key} is missing; CRDS wants a text")
    descrip = str(found.header.get("DESCRIP") or "")
    if len(descrip) > DESCRIP_LENGTH:
        yield error("descrip", f"DESCRIP has {len(descrip)} characters, expected at most {DESCRIP_LENGTH}")
    yield from _pedigree(found.header.get("PEDIGREE"))
    yield from _time(found.header, "USEAFTER", "error")
    yield from _time(found.header, "DATE", "warning")
    held = found.header.get("FILENAME")
    expected = header_text(re.sub(r"\.(gz|fz)$", "", found.name))
    if held != expected:
        yield warning("filename", f"FILENAME = {held!r}, expected {expected!r}")


def _pedigree(text: Any) -> Faults:
    expected = "expected GROUND, DUMMY, SIMULATION, MODEL or INFLIGHT YYYY-MM-DD YYYY-MM-DD"
    words = str(text or "").split()
    if len(words) == 1 and words[0] in PLAIN_PEDIGREES:
        return
    if len(words) == 3 and words[0] in ("INFLIGHT", "MODEL"):
        first, last = (_day(w) for w in words[1:])
        if first and last and first > last:
            yield error("pedigree", f"PEDIGREE = {text!r}: starts after it ends")
        if first and last:
            return
    yield error("pedigree", f"PEDIGREE = {text!r}, {expected}")


def _day(text: str) -> date | None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _time(header: Mapping[str, Any], key: str, severity: str) -> Faults:
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
        yield error(
            "file-name",
            f"the name {found.name!r} reads as {parts[1].upper()} {parts[2].upper()} to CRDS, which believes it more "
            f"than the header: INSTRUME = {held[0].upper()!r}, REFTYPE = {held[1].upper()!r}; choose another name",
        )


# --- 9. HISTORY ------------------------------------------------------------------------------------------


def _history(found: MaskFile) -> Faults:
    lines = [str(line) for line in found.header.get("HISTORY", [])]
    if not any(line.strip() for line in lines):
        yield error(
            "history",
            f"HISTORY is missing; CRDS wants a card, and the topics description, {', '.join(TOPICS)} are expected",
        )
        return
    text = "".join(f"{line}\n" for line in lines).upper()
    missing = [topic for topic in TOPICS if topic not in text]
    for topic in missing:
        yield error("history", f"HISTORY: topic {topic!r} is missing; expected are all of {', '.join(TOPICS)}")
    first = next(line for line in lines if line.strip()).upper()
    if any(first.lstrip().startswith(topic) for topic in TOPICS):
        yield error("history", f"HISTORY starts with {first[:30]!r}, expected a description of how it was made")


def _stripes(found: MaskFile) -> Faults:
    """Rows from several places of the detector: nobody could tell which pixel a flag belongs to."""
    try:
        refuse_stripes(Path(found.name), found.header)
    except DataError as problem:
        yield error("stripes", str(problem).removeprefix(f"{found.name}: "))


GROUPS = (_stripes, _identity, _axes, _window, _subarray, _match_keys, _texts, _file_name, _history)
