"""Errors that a user can act on, each with the exit status that the shell sees.

A message names the file, the keyword, what was found and what was expected. Anything that is not a
:class:`BadpixError` is a fault of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class BadpixError(Exception):
    """Base of all errors that are shown as one message, without a traceback."""

    exit_code = 1


class DataError(BadpixError):
    """The data are at fault: a file is broken, missing, of the wrong kind, or does not fit the others."""

    exit_code = 1


class UsageError(BadpixError):
    """The call or the YAML is at fault: an unknown key, a value out of range, an existing output."""

    exit_code = 2


class CheckError(BadpixError):
    """A check failed: the product is not good enough to be used."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """End of a message: the nearest known name, or all of them."""
    from difflib import get_close_matches

    known = list(known)
    near = get_close_matches(name[:60], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
