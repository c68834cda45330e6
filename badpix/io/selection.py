"""Which files are meant, and whether they belong together.

1. Names, folders, globs and ``@lists`` become one sorted list of files, each used once.
2. The other products of an exposure lie beside it, under the same root name.
3. Exposures of one search are of one instrument, detector, subarray, readout pattern and window, in the right state
   of calibration.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from badpix.errors import DataError, UsageError
from badpix.outside import printable, quote, read_text

if TYPE_CHECKING:
    from badpix.io.exposure import Exposure

# Slope files as documented programs call them: suffix -> product.
OLD_NAMES = {"0_ramp_fit": "rate", "1_ramp_fit": "rateints", "ramp_fit_0": "rate", "ramp_fit_1": "rateints"}
SUFFIXES = ("_rate", "_rateints", *(f"_{name}" for name in OLD_NAMES))
FITS_ENDINGS = (".fits", ".fits.gz", ".fits.fz", ".fit", ".fit.gz")
NAME_SHOWN = 300  # characters of a name in a message
DEEPEST_LIST = 20
MOST_LEFT_OUT = 0.5  # part of the inputs that may be left out
SAME_KEYWORDS = ("INSTRUME", "DETECTOR", "SUBARRAY", "READPATT")


# --- 1, 2: names ------------------------------------------------------------------------------------------


def expand_inputs(names: Iterable[str | Path], suffixes: Sequence[str] = ("_rate", "_rateints")) -> list[Path]:
    """Files meant by names, folders, quoted globs and ``@list`` files, sorted by name, each once.

    Parameters
    ----------
    names : iterable of str or path
        What the user wrote.
    suffixes : sequence of str
        Which files of a folder are meant, in order of preference: of two products of one exposure the first is
        taken.

    Raises
    ------
    UsageError
        If a name matches nothing or a file is meant twice.
    """
    found: list[Path] = []
    for name in names:
        found += _expand(str(name), suffixes)
    seen: dict[str, Path] = {}
    for path in found:
        real = os.path.realpath(path)  # Path.resolve fails at links that lead to themselves
        if real in seen:
            raise UsageError(f"{printable(path)}: is given twice (also as {seen[real]}); each input is used once")
        seen[real] = path
    return sorted(found, key=lambda p: (p.name, str(p)))


def _expand(name: str, suffixes: Sequence[str], outer: tuple[str, ...] = ()) -> list[Path]:
    if name.startswith("@"):
        return _expand_list(Path(name[1:]), suffixes, outer)
    path = Path(name)
    if "\0" in name or len(name) > 4096:
        raise UsageError(f"{quote(name)}: no name of a file")
    if path.is_dir():
        return _expand_folder(path, suffixes)
    if os.path.lexists(path) or not glob.has_magic(name):
        if not os.path.lexists(path):
            raise UsageError(f"{quote(name) if len(name) > NAME_SHOWN else printable(name)}: no such file")
        return [path]
    matches = [Path(m) for m in sorted(glob.glob(name, recursive=True))]
    if not matches:
        raise UsageError(f"{printable(name)}: matches no file")
    return matches


def _expand_list(path: Path, suffixes: Sequence[str], outer: tuple[str, ...]) -> list[Path]:
    """Files named in a list; names and further lists in it start at its folder."""
    real = os.path.realpath(path)
    if real in outer:
        raise UsageError(f"@{path}: the list of inputs names itself")
    if len(outer) > DEEPEST_LIST:
        raise UsageError(f"@{path}: lists that name lists, more than {DEEPEST_LIST} deep")
    lines = read_text(path, "list of inputs", UsageError).splitlines()
    names = [(number, line.split("#")[0].strip()) for number, line in enumerate(lines, 1)]
    found: list[Path] = []
    for number, name in names:
        inside = "@" * name.startswith("@") + str(path.parent / name.removeprefix("@"))
        try:
            found += _expand(inside, suffixes, (*outer, real)) if name else []
        except UsageError as error:
            if outer or str(error).startswith("@"):
                raise
            raise UsageError(f"@{path}: line {number}: {error}") from None
    if not any(name for _, name in names):
        raise UsageError(f"@{path}: the list of inputs is empty")
    return found


def _expand_folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    chosen: dict[str, Path] = {}
    for suffix in suffixes:
        for path in sorted(folder.iterdir()):
            stem = fits_stem(path)
            if stem is not None and stem.endswith(suffix) and not path.name.startswith("."):
                chosen.setdefault(stem.removesuffix(suffix), path)
    if not chosen:
        wanted = " or ".join(f"*{s}.fits" for s in suffixes)
        raise UsageError(f"{folder}: holds no {wanted}{_hint(folder, suffixes)}")
    return list(chosen.values())


def _hint(folder: Path, suffixes: Sequence[str]) -> str:
    """Where such files are, one folder down; they are not taken from there unasked."""
    inside = [place.name for place in sorted(folder.iterdir()) if _holds(place, suffixes)]
    if not inside:
        return ""
    return f"; its folder{'s' * (len(inside) > 1)} {', '.join(inside[:3])} {'do' if len(inside) > 1 else 'does'}"


def _holds(folder: Path, suffixes: Sequence[str]) -> bool:
    try:
        stems = [fits_stem(path) for path in folder.iterdir()]
    except OSError:  # a file, or closed to us
        return False
    return any(stem is not None and stem.endswith(tuple(suffixes)) for stem in stems)


def fits_stem(path: Path) -> str | None:
    """File name without its FITS ending (``.fits``, ``.fits.gz``, ...); None for another kind of file."""
    for ending in FITS_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return None


def root_name(path: Path) -> str:
    """Name of the exposure that a slope file belongs to: its name without ending and slope suffix."""
    stem = fits_stem(path) or path.stem
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if stem.endswith(suffix):
            return stem.removesuffix(suffix)
    return stem


def sibling(path: Path, suffix: str) -> Path | None:
    """The product of the same exposure beside ``path`` (``_jump``, ``_fitopt``, ``_uncal``), compressed or not."""
    for ending in FITS_ENDINGS:
        beside = path.with_name(root_name(path) + suffix + ending)
        if beside.is_file():
            return beside
    return None


# --- 3: consistency --------------------------------------------------------------------------------------


def check_same(exposures: Sequence[Exposure], keywords: Sequence[str] = SAME_KEYWORDS) -> None:
    """Make sure that all exposures are of one instrument, detector, subarray, readout pattern and window.

    Raises
    ------
    DataError
        Naming the first file that differs, the keyword, and both values.
    """
    first = exposures[0]
    for other in exposures[1:]:
        for keyword in keywords:
            want, found = first.keyword(keyword), other.keyword(keyword)
            if want != found:
                raise DataError(f"{other.path}: {keyword} = {found!r}, expected {want!r} as in {first.path.name}")
        if other.window != first.window:
            raise DataError(
                f"{other.path}: window {tuple(other.window)} (SUBSTRT1, SUBSTRT2, columns, rows), "
                f"expected {tuple(first.window)} as in {first.path.name}"
            )


def keep_largest_set(
    exposures: Sequence[Exposure], keywords: Sequence[str] = SAME_KEYWORDS, most_left_out: float = MOST_LEFT_OUT
) -> list[str]:
    """Which exposures do not belong to the set that most of them agree on; of equal sets the first counts.

    Parameters
    ----------
    exposures : sequence of Exposure
        Each of them sound.
    keywords : sequence of str
        What the exposures of one set have in common, with the window.
    most_left_out : float
        Largest part of them that may be left out.

    Returns
    -------
    list of str
        For each exposure why it does not belong; empty where it does.

    Raises
    ------
    DataError
        If they are of several detectors, or no set holds enough of them.
    """
    detectors = Counter(str(e.keyword("DETECTOR")) for e in exposures)
    if len(detectors) > 1:
        found = ", ".join(f"{name} ({number})" for name, number in sorted(detectors.items()))
        raise DataError(f"exposures of several detectors: {found}; name one with --detector")
    sets = Counter(_facts(e, keywords) for e in exposures)
    largest = max(sets.values())
    wanted = next(_facts(e, keywords) for e in exposures if sets[_facts(e, keywords)] == largest)
    first = next(e for e in exposures if _facts(e, keywords) == wanted)
    reasons = []
    for exposure in exposures:
        try:
            check_same([first, exposure], keywords)
            reasons.append("")
        except DataError as error:
            reasons.append(str(error).removeprefix(f"{exposure.path}: "))
    check_left_out(sum(map(bool, reasons)), len(exposures), next(filter(None, reasons), ""), most_left_out)
    return reasons


def _facts(exposure: Exposure, keywords: Sequence[str]) -> tuple[object, ...]:
    return (*(exposure.keyword(k) for k in keywords), *exposure.window)


def check_left_out(left_out: int, total: int, reason: str, most: float = MOST_LEFT_OUT) -> None:
    """Make sure that few files are left out: of many, something is wrong with the data and not with single files.

    Raises
    ------
    DataError
        If more than ``most`` of them are.
    """
    if left_out > most * total:
        raise DataError(
            f"{left_out} of {total} inputs would have to be left out, more than {most:.0%}; the first: {reason}"
        )


def check_kind(exposure: Exposure, kind: str) -> None:
    """Make sure that EXP_TYPE, where it is given, does not say that a flat is a dark or the other way round.

    Raises
    ------
    DataError
        If it does.
    """
    found = str(exposure.header.get("EXP_TYPE") or "").upper()
    is_dark = "DARK" in found
    is_flat = any(word in found for word in ("FLAT", "LED", "LAMP"))
    if (kind == "flat" and is_dark) or (kind == "dark" and is_flat and not is_dark):
        raise DataError(f"{exposure.path}: EXP_TYPE = {found!r}: a {'dark' if is_dark else 'flat'}, not a {kind}")


def check_state(exposure: Exposure, keyword: str, complete: bool = True) -> None:
    """Make sure that a calibration step has (or has not) been done.

    Raises
    ------
    DataError
        If ``keyword`` (S_RAMP, S_JUMP, ...) says otherwise.
    """
    found = exposure.header.get(keyword)
    if (found == "COMPLETE") != complete:
        want = "'COMPLETE'" if complete else "not 'COMPLETE'"
        raise DataError(f"{exposure.path}: {keyword} = {found!r}, expected {want}: wrong calibration state")
