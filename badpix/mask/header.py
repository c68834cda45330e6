"""The primary header of a MASK: texts in the form that CRDS takes, match keywords, parameters, HISTORY.

Equal inputs and parameters give equal headers: no clock time enters (DATE is that of the newest input).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from astropy.io import fits

from badpix import detectors, errors
from badpix.detectors import Window
from badpix.errors import UsageError
from badpix.io.exposure import Exposure
from badpix.io.provenance import Input, code_version
from badpix.outside import header_text
from badpix.settings import render
from badpix.settings.param import Settings
from badpix.settings.reference import ReferenceSettings

LAUNCH = "2021-12-25"
DESCRIP_LENGTH = 65
OWN = re.compile(r"BP[FD][A-Z0-9_-]{1,5}")  # keywords of the parameters of flats and darks
NOBODY = "badpix"  # AUTHOR of a mask whose author was not given


# --- the texts -------------------------------------------------------------------------------------------


def check_texts(p: ReferenceSettings) -> ReferenceSettings:
    """The reference texts in the form that CRDS takes; refused at once where it would refuse them.

    Returns
    -------
    ReferenceSettings
        The same values, USEAFTER and PEDIGREE in canonical form.

    Raises
    ------
    UsageError
        Naming the text, what was found and what is expected.
    """
    for name in ("author", "descrip", "history", "document", "differences"):
        text = getattr(p, name)
        if text is not None and (not text.isascii() or not text.replace("\n", " ").isprintable()):
            raise UsageError(f"{_named(name)}: {text!r} has characters that a FITS header can't hold")
        if text is not None and not text.strip():
            raise UsageError(f"{_named(name)}: is blank")
    if p.descrip and len(p.descrip) > DESCRIP_LENGTH:
        raise UsageError(f"{_named('descrip')}: has {len(p.descrip)} characters, at most {DESCRIP_LENGTH} fit")
    if p.author and len(p.author) > 68:
        raise UsageError(f"{_named('author')}: has {len(p.author)} characters, at most 68 fit")
    _check_match_words(p)
    return replace(p, useafter=check_useafter(p.useafter), pedigree=check_pedigree(p.pedigree))


def note_missing_texts(texts: ReferenceSettings) -> list[str]:
    """What stands in a mask in place of texts that nobody gave.

    Parameters
    ----------
    texts : ReferenceSettings
        From :func:`check_texts`.
    """
    notes = []
    if not texts.author:
        notes.append(f"AUTHOR was not given, {NOBODY!r} stands in its place: give --author before a delivery")
    if not texts.useafter:
        notes.append(
            "USEAFTER was not given, the start of the first input stands in its place: --useafter changes it"
        )
    return notes


def _named(name: str) -> str:
    """A text as the command line and the YAML call it."""
    return f"--{name.replace('_', '-')} (reference.{name})"


def _check_match_words(p: ReferenceSettings) -> None:
    """SUBARRAY, READPATT and EXP_TYPE must be words that CRDS knows; which of them fit the data shows later."""
    from badpix.mask.rules import known_words

    words = known_words()
    subarrays = [w for key, names in words.items() if key not in ("readpatt", "exp_type") for w in names]
    known = {
        "reference_subarray": ["auto", *subarrays],
        "reference_readpatt": [*words["readpatt"], *words["all"]],
        "reference_exp_type": [*words["exp_type"], *words["all"]],
    }
    for name, legal in known.items():
        for word in (getattr(p, name) or "").split("|"):
            if word.strip() and word.strip().upper() not in (w.upper() for w in legal):
                raise UsageError(f"{_named(name)}: {word.strip()!r} is unknown{errors.nearest(word.strip(), legal)}")


def check_useafter(text: str | None) -> str | None:
    """USEAFTER as ``YYYY-MM-DDThh:mm:ss`` (UTC); a date alone or a space instead of the T is completed.

    Raises
    ------
    UsageError
        If it is no date.
    """
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text.strip())
        return (when.astimezone(UTC) if when.tzinfo else when).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError):
        raise UsageError(f"{_named('useafter')}: found {text!r}, expected YYYY-MM-DDThh:mm:ss") from None


def check_pedigree(text: str) -> str:
    """PEDIGREE in one of the forms that CRDS takes; ``AUTO`` and a bare ``INFLIGHT`` get dates from the inputs later.

    Raises
    ------
    UsageError
        If it has another form.
    """
    words = text.split()
    kind = words[0].upper() if words else ""
    plain = ("GROUND", "DUMMY", "SIMULATION", "MODEL", "INFLIGHT", "AUTO")
    expected = "GROUND, DUMMY, SIMULATION, MODEL, or INFLIGHT YYYY-MM-DD YYYY-MM-DD"
    if len(words) == 1 and kind in plain:
        return kind
    if len(words) == 3 and kind in ("INFLIGHT", "MODEL"):
        try:
            first, last = date.fromisoformat(words[1]), date.fromisoformat(words[2])
        except ValueError:
            raise UsageError(f"{_named('pedigree')}: found {text!r}, expected {expected}") from None
        if first <= last and all(re.fullmatch(r"\d{4}-\d\d-\d\d", w) for w in words[1:]):
            return f"{kind} {words[1]} {words[2]}"
    raise UsageError(f"{_named('pedigree')}: found {text!r}, expected {expected}")


def dates_of(headers: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    """First and last day of some exposures (or of the masks made from them), from DATE-OBS or PEDIGREE."""
    days: list[str] = []
    for header in headers:
        words = str(header.get("PEDIGREE", "")).split()
        days += [w for w in words if re.fullmatch(r"\d{4}-\d\d-\d\d", w)]
        found = str(header.get("DATE-OBS", ""))[:10]
        if re.fullmatch(r"\d{4}-\d\d-\d\d", found):
            days.append(found)
    return (min(days), max(days)) if days else None


# --- the header ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provenance:
    """What goes into keywords and HISTORY beside the texts: commands, parameters, inputs."""

    description: str
    parameters: Sequence[Settings] = ()
    inputs: Sequence[Input] = ()
    rejected: Sequence[tuple[Path, str]] = ()
    notes: Sequence[str] = ()
    earlier: Sequence[str] = ()


def make_header(
    sources: Sequence[Mapping[str, Any]], detector: str, window: Window, texts: ReferenceSettings, about: Provenance
) -> fits.Header:
    """The primary header of a new mask.

    Parameters
    ----------
    sources : sequence of mapping
        Primary headers of the inputs (exposures or masks), in order.
    detector : str
        DETECTOR.
    window : Window
        Place of the mask.
    texts : mapping
        From :func:`check_texts`.
    about : Provenance
        Parameters and inputs.

    Raises
    ------
    UsageError
        If a text is needed that neither the texts nor the inputs give.
    """
    facts = detectors.get(detector)
    header = fits.Header()
    days = dates_of(sources)
    rows: list[tuple[str, Any, str]] = [
        ("TELESCOP", "JWST", "telescope"),
        ("REFTYPE", "MASK", "reference file type"),
        ("INSTRUME", facts.instrument, "instrument"),
        ("DETECTOR", facts.name, "detector"),
        *_match_keywords(sources, facts, window, texts),
        ("SUBSTRT1", window.xstart, "1-based first column"),
        ("SUBSTRT2", window.ystart, "1-based first row"),
        ("SUBSIZE1", window.xsize, "number of columns"),
        ("SUBSIZE2", min(window.ysize, 2048), "number of rows"),
        ("FASTAXIS", facts.fastaxis, "fast readout direction"),
        ("SLOWAXIS", facts.slowaxis, "slow readout direction"),
        ("DATAMODL", "MaskModel", "data model"),
        ("AUTHOR", texts.author or NOBODY, "who made this file"),
        ("DESCRIP", texts.descrip or f"Bad pixel mask of {facts.name}", "what it is"),
        ("PEDIGREE", _pedigree(texts.pedigree, days), "origin of the data"),
        ("USEAFTER", _useafter(texts.useafter, sources), "first exposure it is for"),
        ("DATE", _newest(sources), "of the newest input, for equal bytes"),
        ("BPVERSN", code_version()[:68], "version of badpix"),
    ]
    for key, value, comment in rows:
        header[key] = (value, comment)
    for source in reversed(sources):  # of a merge: what its masks were made with, the first one's word counts
        own = {k: v for k, v in source.items() if OWN.fullmatch(k)}
        header.update({k: header_text(v) if isinstance(v, str) else v for k, v in own.items()})
    for p in about.parameters:
        for key, value, comment in render.cards(p):
            header[key] = (value, comment)
    for line in history(texts, about):
        header.add_history(line)
    return header


def _match_keywords(
    sources: Sequence[Mapping[str, Any]], facts: detectors.Detector, window: Window, texts: ReferenceSettings
) -> list[tuple[str, Any, str]]:
    """SUBARRAY, and what CRDS matches besides: READPATT (NIRSpec), EXP_TYPE (FGS)."""
    from badpix.mask.rules import known_words

    own = _single(sources, "SUBARRAY")
    full = (window.ysize, window.xsize) == facts.shape or window.ysize == detectors.IRS2_ROWS
    subarray, says, mend = texts.reference_subarray, "reference_subarray", ""
    if subarray.lower() == "auto":
        subarray, says, mend = "GENERIC" if full else own, "SUBARRAY of the inputs", "; give --reference-subarray"
    if full and subarray not in ("GENERIC", "FULL"):
        raise UsageError(f"{says}: {subarray!r} with a full-frame image; expected GENERIC or FULL")
    if not full and subarray in (None, "GENERIC", "FULL"):
        raise UsageError(
            f"{says}: {subarray!r} for a window of {window.xsize} x {window.ysize} pixels; "
            f"expected the name of the subarray{mend}"
        )
    known = known_words()["all"] + known_words()[facts.instrument]
    if subarray not in known:
        near = errors.nearest(subarray, known)
        raise UsageError(f"{says}: {subarray!r} is no subarray of {facts.instrument} that CRDS knows{near}{mend}")
    rows = [("SUBARRAY", subarray, "subarray; GENERIC serves all")]
    if facts.instrument == "NIRSPEC":
        rows.append(_pattern("READPATT", "P_READPA", texts.reference_readpatt, _readpatts(sources, window)))
    if facts.instrument == "FGS":
        rows.append(_pattern("EXP_TYPE", "P_EXP_TY", texts.reference_exp_type, "N/A"))
    return rows


def _readpatts(sources: Sequence[Mapping[str, Any]], window: Window) -> str:
    """All readout patterns of the frame's family: IRS2 frames have another shape than traditional ones."""
    if window.ysize == detectors.IRS2_ROWS:
        return "NRSIRS2|NRSIRS2RAPID"
    return "NRS|NRSRAPID" if not str(_single(sources, "READPATT") or "").endswith("D1") else "NRSRAPIDD1"


def _pattern(keyword: str, pattern: str, given: str | None, default: str) -> tuple[str, Any, str]:
    """One value as the keyword itself, several as its pattern with a bar after each."""
    values = [v.strip() for v in (given or default).split("|") if v.strip()]
    if len(values) == 1:
        return (keyword, values[0], "CRDS match key")
    return (pattern, "".join(f"{v}|" for v in values), "CRDS match key, any of these")


def _single(sources: Sequence[Mapping[str, Any]], keyword: str) -> Any:
    return next((s[keyword] for s in sources if s.get(keyword) not in (None, "")), None)


def _pedigree(text: str, days: tuple[str, str] | None) -> str:
    if text == "AUTO":
        text = "INFLIGHT" if days and days[0] >= LAUNCH else "GROUND"
    if text != "INFLIGHT":
        return text
    if days is None:
        raise UsageError(f"{_named('pedigree')}: INFLIGHT without dates, and the inputs have no DATE-OBS")
    return f"INFLIGHT {days[0]} {days[1]}"


def _useafter(text: str | None, sources: Sequence[Mapping[str, Any]]) -> str:
    if text:
        return text
    starts = [str(s["USEAFTER"]) for s in sources if s.get("USEAFTER")]
    starts += [
        f"{str(s['DATE-OBS'])[:10]}T{str(s.get('TIME-OBS') or '00:00:00')[:8]}" for s in sources if s.get("DATE-OBS")
    ]
    if not starts:
        raise UsageError(f"{_named('useafter')}: not given, and the inputs have no DATE-OBS")
    return str(check_useafter(min(starts)))


def _newest(sources: Sequence[Mapping[str, Any]]) -> str:
    """The latest creation time among the inputs (else their latest start), as DATE."""
    times = [str(s.get("DATE") or s.get("DATE-OBS") or "")[:19] for s in sources]
    newest = max((t for t in times if t), default="1970-01-01")
    return newest if "T" in newest else f"{newest[:10]}T00:00:00"


def history(texts: ReferenceSettings, about: Provenance) -> list[str]:
    """HISTORY: description, DOCUMENT, SOFTWARE, DATA USED, DIFFERENCES, parameters, notes."""
    lines = [about.description]
    lines.append(f"DOCUMENT: {texts.document or 'documentation of badpix, pages flats and darks'}")
    lines.append(f"SOFTWARE: badpix {code_version()}")
    lines.append("DATA USED:")
    for item in about.inputs:
        lines += [f"  {item.path.name}", f"sha256 {item.sha256}"]
    for path, reason in about.rejected:
        lines.append(f"  rejected: {path.name}: {reason}")
    lines.append(f"DIFFERENCES: {texts.differences or 'not stated'}")
    if texts.history:
        lines += texts.history.splitlines()
    if about.parameters:
        lines.append("Parameter values and descriptions:")
    for p in about.parameters:
        lines += render.history_lines(p)
    lines += [f"Note: {note}" for note in (*about.notes, *note_missing_texts(texts))]
    wrapped = [card for line in lines for card in _cards(header_text(line))]
    return [*wrapped, *map(header_text, about.earlier)]


def _cards(line: str) -> list[str]:
    """A line in pieces of 72 characters, broken between words where it can be."""
    return textwrap.wrap(line, 72, subsequent_indent="    ", break_on_hyphens=False, drop_whitespace=True) or [""]


def source_headers(exposures: Sequence[Exposure]) -> list[dict[str, Any]]:
    """Primary headers of exposures, as sources for :func:`make_header`."""
    return [e.header for e in exposures]
