"""What an outlier command works on: the members of an association, or a list of `_cal` files.

1. An association is the pipeline's JSON (or YAML), whatever its name: ``products[0].members``, in their order, each
   with ``expname`` (relative to the association's folder) and ``exptype``. Only ``science`` members are used unless
   others are asked for: the stage-3 pipelines drop the background members before the outlier step. Further products
   are left out, too.
2. A list of files has no association ID, pool or table; every file is a science member, in the order given.
3. Output names follow the pipeline: the root of the file name without its product suffix, the association ID if
   there is one, the new suffix.
4. The group of an exposure (all its detectors) is named by the observation keywords, unless the association's
   member entry or ``meta.group_id`` of the exposure gives a name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from badpix.errors import DataError, UsageError
from badpix.io.output import plain_word
from badpix.io.selection import fits_stem
from badpix.outside import check_tree, find_fault, open_regular, printable, read_text, understood

SCIENCE = ("science",)

# Product suffixes that an output name drops (those of exposure-level products of stages 1 to 3).
_WORDS = (
    "uncal ramp rate rateints cal calints crf crfints mbsub bsub bsubints phot i2d s2d s3d x1d x1dints c1d "
    "blot median cat dark jump psfsub psfalign outlierdetectionstep outlier_detection tweakreg skymatch "
    "flat_field photom assign_wcs assignwcsstep straylight residual_fringe pixelreplacestep cube_build"
)
SUFFIXES = frozenset(_WORDS.split())

# Keywords that make up the name of an exposure's group, in order.
GROUP_KEYWORDS = ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE")


@dataclass(frozen=True)
class Member:
    """One exposure of an association; ``group_id`` only where the association names the group itself."""

    path: Path
    exptype: str = "science"
    group_id: str | None = None


@dataclass(frozen=True)
class Association:
    """The members in their order, and what the outputs say about where they came from."""

    members: tuple[Member, ...]
    asn_id: str | None = None
    pool_name: str | None = None
    table_name: str | None = None
    product_name: str | None = None
    left_out: tuple[Member, ...] = ()
    remarks: tuple[str, ...] = ()  # what the user should know

    @property
    def paths(self) -> list[Path]:
        """Paths of the members that are used."""
        return [member.path for member in self.members]


def read_inputs(inputs: Sequence[str | Path], exptypes: Iterable[str] = SCIENCE) -> Association:
    """An association from its JSON file, or one made from a list of `_cal` files.

    Parameters
    ----------
    inputs : sequence of path
        One ``.json`` file, or FITS files.
    exptypes : iterable of str
        Member types of an association to use, without regard to case.

    Raises
    ------
    UsageError
        If an association is mixed with other inputs, or two inputs would get one output name.
    DataError
        If a file is missing, or the association is not readable as one.
    """
    paths = [Path(p) for p in inputs]
    if not paths:
        raise UsageError("no input given; expected an association (JSON) or _cal files")
    tables = [p for p in paths if is_association(p)]
    if tables and len(paths) > 1:
        raise UsageError(f"{tables[0]}: an association is the only input of a run; found {len(paths)} inputs")
    found = read_association(tables[0], exptypes) if tables else Association(tuple(Member(p) for p in paths))
    _check_members(found.members, tables[0] if tables else None)
    return found


def is_association(path: str | Path) -> bool:
    """Whether a file is no FITS file but a text, by its content; by its name, where it can't be opened."""
    if find_fault(path):
        return Path(path).suffix.lower() == ".json"
    handle = open_regular(path)
    try:
        start = os.pread(handle, 4096, 0)
    finally:
        os.close(handle)
    binary = start.startswith((b"SIMPLE", b"\x1f\x8b")) or b"\0" in start
    plain = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return Path(path).suffix.lower() == ".json" or (not binary and (plain[:1] == b"{" or b"products" in plain))


def read_association(path: str | Path, exptypes: Iterable[str] = SCIENCE) -> Association:
    """The members of an association file that have one of ``exptypes``, in their order.

    Raises
    ------
    DataError
        If the file is no association, has no product or no member of these types.
    """
    path = Path(path)
    table = _load_json(path)
    products = _require(path, "products", table.get("products"), list)
    product = _require(path, "products[0]", products[0], dict)
    wanted = {word.strip().lower() for word in exptypes}
    members = _read_entries(path, _require(path, "products[0].members", product.get("members"), list))
    used = tuple(m for m in members if m.exptype in wanted)
    if not used:
        kinds = ", ".join(sorted({m.exptype for m in members})) or "none"
        raise DataError(f"{path}: no {' or '.join(sorted(wanted))} members; found exptype {kinds}")
    return Association(
        members=used,
        asn_id=_name(path, table.get("asn_id")),
        pool_name=_text(table.get("asn_pool")),
        table_name=path.name,
        product_name=_text(product.get("name")),
        left_out=tuple(m for m in members if m.exptype not in wanted),
        remarks=_remark_products(path, products),
    )


def _require(path: Path, place: str, value: Any, kind: type) -> Any:
    """The value at a place such as ``products[0].members``, which must be of this kind and not be empty."""
    if isinstance(value, kind) and value:
        return value
    found = "nothing" if value is None else type(value).__name__ if value else repr(value)
    raise DataError(f"{path}: not an association: {place}: found {found}, expected a {kind.__name__} with content")


def _read_entries(path: Path, entries: Sequence[Any]) -> list[Member]:
    members = []
    for i, entry in enumerate(entries):
        place = f"products[0].members[{i}]"
        _require(path, place, entry, dict)
        name, kind = (_require(path, f"{place}.{key}", entry.get(key), str) for key in ("expname", "exptype"))
        members.append(Member(path.parent / name, kind.strip().lower(), entry.get("group_id")))
    return members


def _remark_products(path: Path, products: Sequence[Any]) -> tuple[str, ...]:
    if len(products) == 1:
        return ()
    return (f"{path.name}: {len(products)} products; only the members of the first, products[0], are used",)


def _load_json(path: Path) -> Mapping[str, Any]:
    if find_fault(path) == "no such file":
        raise UsageError(f"{path}: no such association file")
    text = read_text(path, "association (JSON)")
    if text.lstrip()[:1] in ("{", "[", ""):
        with understood(path, "an association (JSON)"):
            table = json.loads(text)
    else:
        with understood(path, "an association (JSON or YAML)"):
            table = _load_yaml(text)
    check_tree(table, path)
    if not isinstance(table, dict):
        raise DataError(f"{path}: not an association: found {type(table).__name__}, expected a mapping")
    return table


def _load_yaml(text: str) -> Any:
    import yaml

    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _name(path: Path, value: Any) -> str | None:
    """The association's ID, which becomes a part of file names."""
    if value is None:
        return None
    try:
        return plain_word(value, "asn_id")
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _check_members(members: Sequence[Member], table: Path | None) -> None:
    seen: dict[str, Path] = {}
    for member in members:
        path = member.path
        fault = find_fault(path)
        if fault:
            raise DataError(f"{printable(path)}: {fault}" + (f" (a member of {printable(table)})" if table else ""))
        name = crf_name(path)
        if name in seen:
            same = os.path.samefile(seen[name], path)
            why = "is named twice" if same else f"gets the same output name ({name}) as {seen[name]}"
            raise UsageError(f"{path}: {why}; each input may be used once")
        seen[name] = path


# --- names -----------------------------------------------------------------------------------------------


def root_name(path: str | Path) -> str:
    """File name without its extension and without a known product suffix: ``..._nrca1_cal.fits`` -> ``..._nrca1``."""
    stem = fits_stem(Path(path)) or Path(path).name.removesuffix(".gz").rsplit(".", 1)[0]
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        for separator in "_-":
            if stem.endswith(separator + suffix) and len(stem) > len(suffix) + 1:
                return stem[: -len(suffix) - 1]
    return stem


def product_name(path: str | Path, asn_id: str | None, suffix: str) -> str:
    """Name of a product of the exposure ``path``: ``<root>[_<asn_id>]_<suffix>.fits``."""
    parts = [root_name(path), asn_id, suffix]
    return "_".join(part for part in parts if part) + ".fits"


def crf_name(path: str | Path, asn_id: str | None = None) -> str:
    """Name of the flagged copy of an exposure: ``<root>[_<asn_id>]_crf.fits``."""
    return product_name(path, asn_id, "crf")


# --- groups ----------------------------------------------------------------------------------------------


def group_id(header: Mapping[str, Any], index: int, named: str | None = None) -> str:
    """Name of the group (one exposure, all detectors) that a member belongs to.

    Parameters
    ----------
    header : mapping
        Primary header of the member.
    index : int
        Position among the members, from 0: makes the name where a keyword is missing.
    named : str, optional
        Name given by the association or by ``meta.group_id``; wins.
    """
    if named:
        return named
    found = [header.get(keyword) for keyword in GROUP_KEYWORDS]
    if any(value is None or not str(value).strip() for value in found):
        return f"exposure{index + 1:04d}"
    program, observation, visit, *rest, exposure = (str(value).strip() for value in found)
    return f"jw{program}{observation}{visit}_{''.join(rest)}_{exposure}"


def list_repeated(exposures: Iterable[tuple[Path, str, str]]) -> list[str]:
    """Remarks on files of one detector and one group: they claim to be the same exposure.

    Parameters
    ----------
    exposures : iterable of (path, detector, group)
        Of all members; the group from :func:`group_id`.
    """
    files: dict[tuple[str, str], list[str]] = {}
    for path, detector, group in exposures:
        files.setdefault((detector, group), []).append(path.name)
    return [
        f"{name_some(names)}: one {detector} and one group, {group}: {', '.join(GROUP_KEYWORDS)} are equal"
        for (detector, group), names in files.items()
        if len(names) > 1
    ]


def name_some(names: Sequence[str]) -> str:
    """The first two names, and how many more there are."""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
