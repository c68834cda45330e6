"""What the functions are called with: files or arrays, and messages that name parameters of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from badpix.errors import BadpixError, UsageError
from badpix.io.selection import expand_inputs
from badpix.settings.reference import ReferenceSettings

Files = str | Path | Sequence[str | Path]


OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]*[a-z])")
NAMES = {"max_memory": "memory", "overwrite": "overwrite=True", "evidence": "evidence=True", "exptype": "exptypes"}


def in_python(text: str) -> str:
    """A message with parameters of Python in place of options of the command line."""
    return OPTION.sub(lambda found: _name_in_python(found[1].replace("-", "_")), text)


def _name_in_python(option: str) -> str:
    if option in ReferenceSettings.names():
        return f"ReferenceSettings({option}=...)"
    return NAMES.get(option, option)


@contextmanager
def python_words() -> Iterator[None]:
    """A block whose errors name parameters of Python."""
    try:
        yield
    except BadpixError as error:
        error.args = tuple(in_python(str(part)) for part in error.args)
        raise


def as_files(given: Any, suffixes: Sequence[str]) -> list[Path] | None:
    """The files that are meant; None where arrays are given."""
    if isinstance(given, str | Path):
        return expand_inputs([given], suffixes)
    if isinstance(given, Sequence) and given and all(isinstance(name, str | Path) for name in given):
        return expand_inputs(given, suffixes)
    if isinstance(given, Sequence) and not given:
        raise UsageError("no inputs: found an empty list, expected files or arrays")
    return None


def refuse_array_words(**words: Any) -> None:
    """Make sure that nothing is said of files that they say themselves.

    Raises
    ------
    UsageError
        Naming the first parameter.
    """
    for name, value in words.items():
        if value is not None:
            raise UsageError(f"{name}: belongs to arrays; files say it themselves")
