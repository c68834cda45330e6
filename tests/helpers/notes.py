"""What the library says while a test runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard(level: int = logging.WARNING) -> Iterator[list[str]]:
    """The messages of the logger ``badpix`` from a level up, as they come in."""
    said: list[str] = []
    library = logging.getLogger("badpix")
    handler = logging.Handler(level)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    before = library.level
    library.setLevel(min(level, before or level))
    library.addHandler(handler)
    try:
        yield said
    finally:
        library.removeHandler(handler)
        library.setLevel(before)
