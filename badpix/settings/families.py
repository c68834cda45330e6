"""The families of masks that a YAML file asks for (section ``families``): exposures of one depth each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from badpix.errors import UsageError, nearest

KEYS = ("name", "readpatt", "ngroups", "max_excess")
MOST_GROUPS = 65535


@dataclass(frozen=True)
class Family:
    """Exposures of one depth.

    Attributes
    ----------
    name : str
        A part of the file's name: letters, digits, dashes.
    readpatt : str
        READPATT of the exposures.
    ngroups : tuple of int
        Least and largest number of groups.
    max_excess : float
        Largest excess of the slope's variance over that of a typical pixel with which a pixel is used.
    """

    name: str
    readpatt: str
    ngroups: tuple[int, int]
    max_excess: float = 1.0

    @property
    def span(self) -> str:
        """The groups in words: ``5`` or ``6 to 40``."""
        low, high = self.ngroups
        return str(low) if low == high else f"{low} to {high}"

    @property
    def match(self) -> int | str:
        """NGROUPS as CRDS matches it: a number, or ``between LOW HIGH``, the upper end not included."""
        low, high = self.ngroups
        return low if low == high else f"between {low} {high + 1}"

    def numbers(self) -> list[int]:
        """Numbers of groups at which a pixel is judged: both ends, and the middle of a wide range."""
        low, high = self.ngroups
        return sorted({low, round((low * high) ** 0.5), high})


def read_families(tree: Any, where: str) -> list[Family]:
    """The families of a YAML file.

    Parameters
    ----------
    tree : list of mapping
        ``name``, ``readpatt``, ``ngroups`` (a number, or two), ``max_excess`` (1, if not given).
    where : str
        The file, for messages.

    Raises
    ------
    UsageError
        At anything else.
    """
    if not isinstance(tree, Sequence) or isinstance(tree, str) or not tree:
        raise UsageError(f"{where}: families: found {tree!r}, expected a list of name, readpatt, ngroups, max_excess")
    found = [_read_one(one, f"{where}: families: entry {k}") for k, one in enumerate(tree, 1)]
    names = [f.name for f in found]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise UsageError(f"{where}: families: {twice!r} is named twice")
    return found


def _read_one(one: Any, where: str) -> Family:
    if isinstance(one, Family):
        return one
    if not isinstance(one, Mapping):
        raise UsageError(f"{where}: found {one!r}, expected 'name: value' lines")
    for key in one:
        if key not in KEYS:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(str(key), KEYS)}")
    name, pattern = (str(one.get(key) or "") for key in ("name", "readpatt"))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,23}", name):
        raise UsageError(f"{where}: name: found {name!r}, expected letters, digits and dashes, at most 24")
    if not re.fullmatch(r"[A-Za-z0-9]{2,24}", pattern):
        raise UsageError(f"{where}: readpatt: found {pattern!r}, expected a readout pattern such as FASTR1")
    return Family(
        name, pattern.upper(), _groups(one.get("ngroups"), where), _excess(one.get("max_excess", 1.0), where)
    )


def _groups(value: Any, where: str) -> tuple[int, int]:
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    good = len(pair) == 2 and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
    if not good or not 2 <= pair[0] <= pair[1] <= MOST_GROUPS:
        raise UsageError(f"{where}: ngroups: found {value!r}, expected a number from 2 on, or two of them: [6, 40]")
    return pair[0], pair[1]


def _excess(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.05 <= value <= 1e6:
        raise UsageError(f"{where}: max_excess: found {value!r}, expected a number from 0.05 to 1e6")
    return float(value)
