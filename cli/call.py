"""What click finds wrong with a call, in the style of our own messages: option, what was found, what is expected."""

from __future__ import annotations

import re
from typing import Any

import click

from badpix.errors import nearest


def describe(error: click.ClickException) -> str:
    """The message of an error that click itself raised.

    Click's own words ("Invalid value for '--workers': 0 is not in the range 1<=x<=1024.") stand where it has an error
    that is not known here.
    """
    if isinstance(error, click.NoSuchOption):
        near = error.possibilities or ()
        return f"no option {error.option_name!r}" + (f"; did you mean {near[0]!r}?" if len(near) == 1 else _any(near))
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{_name(error)} is missing"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_name(error)}: {_value(error, error.param.type)}"
    if isinstance(error, click.BadParameter):
        return error.message
    return error.format_message()


def _any(names: object) -> str:
    known = [repr(name) for name in names] if isinstance(names, list | tuple) else []
    return f"; did you mean {', '.join(known[:-1])} or {known[-1]}?" if known else ""


def _name(error: click.BadParameter) -> str:
    """``--output-dir``, the longest of an option's names, or the placeholder of an argument."""
    param = error.param
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.human_readable_name if param is not None else str(error.param_hint)


def _value(error: click.BadParameter, kind: Any) -> str:
    """``found 0, expected 1 to 1024``."""
    said = re.match(r"(.*?) is not (?:in the range|one of|a valid)", error.message, re.S)
    if said is None:
        return error.message.rstrip(".")
    found = said[1]
    if isinstance(kind, click.Choice):
        names = [str(name) for name in kind.choices]
        return f"found {found}, expected one of {', '.join(names)}{_near(found.strip(chr(39)), names)}"
    if isinstance(kind, click.IntRange | click.FloatRange):
        return f"found {found}, expected {_range(kind)}"
    words = {"integer": "a whole number", "float": "a number"}
    return f"found {found}, expected {words.get(kind.name, kind.name)}"


def _near(found: str, names: list[str]) -> str:
    hint = nearest(found, names)
    return hint if "did you mean" in hint else ""


def _range(kind: click.IntRange | click.FloatRange) -> str:
    number = "a whole number" if isinstance(kind, click.IntRange) else "a number"
    if kind.max is None:
        return f"{number} of at least {kind.min}"
    return f"{number} from {kind.min} to {kind.max}"
