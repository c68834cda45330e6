"""The frame that all pages share: one file, one style sheet, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

SCRIPTS = "script-src 'unsafe-inline'; "


def fill_page(body: str, parts: Mapping[str, str], *, script: str = "") -> str:
    """A whole page as text.

    Parameters
    ----------
    body : str
        Its body, with places ``<!--NAME-->`` for the parts.
    parts : mapping
        Ready-made HTML for each place; `TITLE` is the page's.
    script : str
        The page's script; without one the page forbids scripts.
    """
    page = read_asset("page.html")
    places = {"BODY": body, "STYLE": read_asset("page.css"), "SCRIPTS": SCRIPTS if script else "", **parts}
    for name, text in places.items():
        page = page.replace(f"<!--{name}-->", text)
    return page.replace("<!--SCRIPT-->", script)


def read_asset(name: str) -> str:
    """A part of the pages: frame, body, style sheet or script."""
    return files("badpix.configs").joinpath(name).read_text(encoding="utf-8")
