"""What the tab key offers: file names where a file is meant, words where one of a list is.

Each parameter of a command is given its completion in one place (:func:`add_completion`), by its metavar, its choices
or its name. Nothing is imported but when the shell asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

FOLDERS = {"DIR", "DIRECTORY"}
FILES = {"FILE", "FILES", "MASK", "MASKS", "OLD", "RATE", "UNCAL", "INPUT", "TRUTH", "NEW", "PATH", "PATHS", "LIST"}


class Place(click.types.StringParamType):
    """Text that names a file (``file``, folders among them) or a folder (``dir``)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Left to the shell."""
        return [CompletionItem(incomplete, type=self.kind)]


class Word(click.types.StringParamType):
    """Text that is one of some words; which of them are right is checked where it is used."""

    def __init__(self, words: Callable[[], Sequence[str]]) -> None:
        self.words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The words that begin as typed, in any case."""
        return [CompletionItem(word) for word in self.words() if word.lower().startswith(incomplete.lower())]


def add_completion(param: click.Parameter) -> None:
    """Give a parameter the type that knows what the tab key offers, unless it has one."""
    if type(param.type) is not click.types.StringParamType:
        return
    metavar = (param.metavar or param.name or "").upper()
    found = set(re.split(r"[^A-Z]+", metavar))
    if param.name in WORDS:
        param.type = Word(WORDS[param.name])
    elif "|" in metavar and isinstance(param, click.Option):
        choices = (param.metavar or "").split("|")
        param.type = Word(lambda: choices)
    elif found & FOLDERS:
        param.type = Place("dir")
    elif found & FILES:
        param.type = Place("file")


def _flags() -> list[str]:
    from badpix import dq

    return [flag.name for flag in dq.FLAGS if flag.use == "mask"]


def _detectors() -> list[str]:
    from badpix.detectors import table

    return list(table())


# Commands that have parameters, by group.
SECTIONS = {
    "badpix": ("flats", "darks", "science", "merge", "reference", "check", "rebuild", "prepare", "simulate"),
    "outlier": ("ifu", "image"),
}


def _sections() -> list[str]:
    return [name for group in SECTIONS.values() for name in group]


WORDS: dict[str | None, Callable[[], Sequence[str]]] = {
    "flag": _flags,
    "flags": _flags,
    "plain_flag": _flags,
    "detector": _detectors,
    "detectors": _detectors,
    "only": _detectors,
    "command": _sections,
}
