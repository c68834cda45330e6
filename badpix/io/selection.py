"""Which files are meant, and whether they belong together.

1. Names, folders, globs and ``@lists`` become one sorted list of files, each used once.
2. The other products of an exposure lie beside it, under the same root name.
3. Exposures of one search are of one instrument, detector, subarray, readout pattern and window, in the right state
   of calibration.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from badpix.errors import DataError, UsageError

if TYPE_CHECKING:
    from badpix.io.exposure import Exposure

# Slope files as documented programs call them: suffix -> product.
OLD_NAMES = {"0_ramp_fit": "rate", "1_ramp_fit": "rateints", "ramp_fit_0": "rate", "ramp_fit_1": "rateints"}
SUFFIXES = ("_rate", "_rateints", *(f"_{name}" for name in OLD_NAMES))
FITS_ENDINGS = (".fits", ".fits.gz", ".fits.fz", ".fit", ".fit.gz")
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
    seen: dict[Path, Path] = {}
    for path in found:
        real = path.resolve()
        if real in seen:
            raise UsageError(f"{path}: is given twice (also as {seen[real]}); each input is used once")
        seen[real] = path
    return sorted(found, key=lambda p: (p.name, str(p)))


def _expand(name: str, suffixes: Sequence[str], outer: tuple[Path, ...] = ()) -> list[Path]:
    if name.startswith("@"):
        return _expand_list(Path(name[1:]), suffixes, outer)
    path = Path(name)
    if path.is_dir():
        return _expand_folder(path, suffixes)
    if path.exists() or not glob.has_magic(name):
        if not path.exists():
            raise UsageError(f"{name}: no such file")
        return [path]
    matches = [Path(m) for m in sorted(glob.glob(name, recursive=True))]
    if not matches:
        raise UsageError(f"{name}: matches no file")
    return matches


def _expand_list(path: Path, suffixes: Sequence[str], outer: tuple[Path, ...]) -> list[Path]:
    """Files named in a list; names and further lists in it start at its folder."""
    if path.resolve() in outer:
        raise UsageError(f"@{path}: the list of inputs names itself")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"@{path}: list of inputs can't be read: {error}") from None
    names = [line.split("#")[0].strip() for line in lines]
    inside = ["@" * n.startswith("@") + str(path.parent / n.removeprefix("@")) for n in names if n]
    if not inside:
        raise UsageError(f"@{path}: the list of inputs is empty")
    return [p for n in inside for p in _expand(n, suffixes, (*outer, path.resolve()))]


def _expand_folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    chosen: dict[str, Path] = {}
    for suffix in suffixes:
        for path in sorted(folder.iterdir()):
            stem = fits_stem(path)
            if stem is not None and stem.endswith(suffix) and not path.name.startswith("."):
                chosen.setdefault(stem.removesuffix(suffix), path)
    if not chosen:
        wanted = " or ".join(f"*{s}.fits" for s in suffixes)
        raise UsageError(f"{folder}: holds no {wanted}")
    return list(chosen.values())


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
