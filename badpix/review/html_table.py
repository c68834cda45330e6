"""Tables of the pages: cells escaped, numbers to the right."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], css: str = "") -> str:
    """A table; numbers to the right; cells that are ready-made HTML are marked by :class:`Markup`."""
    right = [bool(rows) and all(_is_number(row[k]) for row in rows) for k in range(len(columns))]
    css_of = {True: ' class="number"', False: ""}
    head = "".join(f"<th{css_of[r]}>{html.escape(c)}</th>" for c, r in zip(columns, right, strict=True))
    body = "".join("<tr>" + "".join(_cell(v) for v in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


class Markup(str):
    """Text that is HTML already."""


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    text = html.escape(f"{value:,}" if isinstance(value, int) else str(value))
    return f'<td class="number">{text}</td>' if _is_number(value) else f"<td>{text}</td>"


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float):
        return True
    return not isinstance(value, Markup) and bool(re.fullmatch(r"[-+]?[\d.,]+ ?%?|-", str(value)))


def percent(part: int, whole: int) -> str:
    """A share, to four decimals."""
    return f"{100 * part / max(whole, 1):.4f} %"
