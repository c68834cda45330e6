"""Small HTML tables for notebooks: what ``_repr_html_`` of a result gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def as_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], notes: Iterable[str] = ()) -> str:
    """A table with a title above and notes below; all text is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else ""
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<div><strong>{escape(title)}</strong>{table}{f'<ul>{listed}</ul>' if listed else ''}</div>"


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="text-align:right">{value:,}</td>'
    if isinstance(value, float):
        return f'<td style="text-align:right">{value:.4g}</td>'
    return f'<td style="text-align:left">{escape(str(value))}</td>'
