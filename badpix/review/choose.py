"""Which pixels to explain: those that a user names, or the worst of a type.

The worst pixels of a type are those whose deciding quantity lies farthest beyond its limit: of each way of a search
the rule that is passed by least, without those that are a yes or no; of several ways the best. A pixel that was found
by a yes or no alone comes after all that a number speaks for, the ones with the larger numbers first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import UsageError
from badpix.io.evidence import Evidence, Rule
from badpix.mask.file import Mask
from badpix.outside import quote, read_text, whole_number
from badpix.review.readings import MAIN_QUANTITY, OTHERWISE, WITHHELD, flags_of_search, search_names

LONGEST_LINE = 1000  # characters of a line that names one pixel


def find_worst(mask: Mask, evidence: Evidence | None, flag: str, number: int) -> list[tuple[int, int]]:
    """The pixels with a flag that lie farthest beyond the limit, as (x, y) of the full frame.

    Without evidence (or without a rule for the flag) the first ones are given, row by row.

    Raises
    ------
    UsageError
        If the flag is unknown.
    """
    name = flag.strip().upper()
    if name not in dq.VALUE:
        raise UsageError(f"--flag: {flag!r} is unknown{dq.suggest(flag)}")
    y, x = np.nonzero((mask.image & np.uint32(dq.VALUE[name])) != 0)
    if evidence is not None and x.size:
        order = np.argsort(-_excess(mask, evidence, name)[y, x], kind="stable")
        y, x = y[order], x[order]
    x0, y0 = mask.window.xstart - 1, mask.window.ystart - 1
    return [(int(a) + x0, int(b) + y0) for a, b in zip(x[:number], y[:number], strict=True)]


def _excess(mask: Mask, evidence: Evidence, flag: str) -> NDArray[np.float64]:
    """How far each pixel lies beyond the limits of the searches of a flag, in units of the limit; -inf: no number.

    Pixels that no number speaks for are told apart by the main quantity of the search, squeezed below all others.
    """
    out = np.full(mask.image.shape, -np.inf)
    for search in search_names(evidence):
        if flag in flags_of_search(mask, search):
            out = np.fmax(out, measure_excess(evidence, search, mask.image.shape))
    return out


def measure_excess(evidence: Evidence, search: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """How far each pixel lies beyond the limits of one search, in units of the limit."""
    out = np.full(shape, -np.inf)
    for way in _numeric_ways(evidence, search):
        out = np.fmax(out, np.minimum.reduce([_margin(evidence, rule) for rule in way]))
    quantity = MAIN_QUANTITY.get(search, "")
    if quantity in evidence.images:
        size = np.abs(evidence.images[quantity][:, :].astype(np.float64))
        ruled = any(r.search == search for r in evidence.rules)
        rest = -2.0 + size / (1.0 + size) if ruled else size  # between -2 and -1: behind a number just passed
        out = np.where(out >= 0, out, np.where(np.isnan(rest), -np.inf, rest))
    return out


def _numeric_ways(evidence: Evidence, search: str) -> list[list[Rule]]:
    """The rules of a search by its ways, those of a yes or no left out; ways of which nothing is left, too."""
    ways: dict[int, list[Rule]] = {}
    for rule in evidence.rules:
        known = rule.quantity in evidence.images and (
            not isinstance(rule.limit, str) or rule.limit in evidence.images
        )
        if rule.search == search and known and not rule.quantity.endswith((WITHHELD, OTHERWISE)):
            ways.setdefault(rule.way, []).append(rule)
    return list(ways.values())


def _margin(evidence: Evidence, rule: Rule) -> NDArray[np.float64]:
    """How far a quantity lies beyond a limit, in units of the limit; -inf where it was not measured."""
    limit = evidence.images[rule.limit][:, :] if isinstance(rule.limit, str) else rule.limit
    values = evidence.images[rule.quantity][:, :].astype(np.float64)
    sign = 1.0 if rule.comparison.startswith(">") else -1.0
    margin: NDArray[np.float64] = sign * (values - limit) / np.where(np.abs(limit) > 0, np.abs(limit), 1.0)
    return np.where(np.isnan(margin), -np.inf, margin)


def parse_pixels(words: Sequence[str], one_based: bool = False) -> list[tuple[int, int]]:
    """Pixels from ``X Y [X Y ...]``, ``X,Y`` or ``@file`` (two columns, more are ignored).

    Raises
    ------
    UsageError
        If they are no pairs of whole numbers.
    """
    numbers: list[int] = []
    for word in words:
        if word.startswith("@"):
            numbers += _read_pixels(Path(word[1:]))
        else:
            try:
                numbers += [whole_number(n) for n in word.replace(",", " ").split()]
            except ValueError:
                raise UsageError(f"pixels: found {quote(' '.join(words))}, expected X Y, X,Y or @list") from None
    values = [n - int(one_based) for n in numbers]
    if len(values) % 2:
        raise UsageError(f"pixels: found {quote(' '.join(words))}, expected pairs X Y")
    return list(zip(values[::2], values[1::2], strict=True))


def _read_pixels(path: Path) -> list[int]:
    """The numbers x, y, x, y, ... of a list."""
    found: list[int] = []
    for number, line in enumerate(read_text(path, "list of pixels", UsageError).splitlines(), 1):
        row = line.split("#")[0].replace(",", " ").split()
        if not row or row[0].lower() == "x":
            continue
        try:
            if len(line) > LONGEST_LINE:
                raise ValueError
            x, y = (whole_number(n) for n in row[:2])
        except ValueError:
            raise UsageError(f"@{path}: line {number}: found {quote(line)}, expected x and y") from None
        found += (x, y)
    if not found:
        raise UsageError(f"@{path}: the list of pixels is empty")
    return found
