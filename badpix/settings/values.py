"""Values of parameters: read from YAML, command line and Python, and written as text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

# Words as YAML files of earlier versions hold them; they go on to be read.
OLD_SPELLING = {"renormalised": "renormalized", "neighbours": "neighbors"}


def convert(value: Any, kind: str, choices: Sequence[str] = ()) -> Any:
    """``value`` in the type of a kind of parameter (a key of :data:`badpix.settings.param.KINDS`).

    Raises
    ------
    TypeError, ValueError
        If it can't be read so.
    """
    if kind == "bool":
        return _bool(value)
    if kind in ("float", "int"):
        return _number(value, kind)
    if kind in ("str", "choice", "path"):
        return _text(value, choices)
    if kind in ("list", "paths"):
        return _words(value)
    if kind in ("pair_float", "pair_int"):
        parts = value.replace(",", " ").split() if isinstance(value, str) else list(value)
        first, second = (_number(v, kind.removeprefix("pair_")) for v in parts)
        return (first, second)
    if kind == "mapping":
        return {str(k).lower(): _words(v) for k, v in _mapping(value).items()}
    if kind == "numbers":
        return {str(k).upper(): float(_number(v, "float")) for k, v in _mapping(value).items()}
    if kind == "settings":
        return {str(k): dict(v) for k, v in _settings(value).items()}
    raise AssertionError(f"unknown kind {kind!r}")


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError


def _number(value: Any, kind: str) -> float | int:
    if isinstance(value, bool):
        raise TypeError
    number = float(value)
    if kind == "float":
        return number
    if not number.is_integer():  # nor are NaN and infinity
        raise ValueError
    return int(number)


def _text(value: Any, choices: Sequence[str]) -> str:
    if isinstance(value, bool):  # YAML reads a bare `off` or `no` as false
        value = {False: "off" if "off" in choices else "no", True: "on"}[value]
    if hasattr(value, "isoformat"):  # YAML reads a bare date as one
        return str(value.isoformat())
    if not isinstance(value, str | os.PathLike | int | float):
        raise TypeError
    text = OLD_SPELLING.get(str(value), str(value))
    same = {c.lower(): c for c in choices}
    return same.get(text.lower(), text)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.replace(",", " ").split()
    if isinstance(value, Sequence) and all(isinstance(v, str) for v in value):
        return list(value)
    raise TypeError


def _mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or its form on the command line: ``hot:HOT rc:RC,TELEGRAPH``."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str):
        return dict(part.split(":") for part in value.split())
    raise TypeError


def _settings(value: Any) -> Mapping[str, Any]:
    """A mapping of mappings, or its form on the command line: ``jump.rejection_threshold=5 refpix.side_gain=0.9``."""
    if isinstance(value, Mapping):
        return {k: v or {} for k, v in value.items()}
    if not isinstance(value, str):
        raise TypeError
    import yaml

    out: dict[str, dict[str, Any]] = {}
    for part in value.split():
        name, text = part.split("=", 1)
        group, key = name.split(".", 1)
        try:
            out.setdefault(group, {})[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError from None
    return out


def as_text(value: Any) -> str:
    """A value in the form of HISTORY, tables and keywords."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return " ".join(_entry(k, v) for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(str(v) for v in value) or "none"
    if isinstance(value, tuple):
        return " ".join(str(v) for v in value)
    return str(value)


def _entry(key: str, value: Any) -> str:
    """One entry of a mapping, in the form that the command line takes."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}.{k}={as_text(v)}" for k, v in value.items())
    return f"{key}:{','.join(value) if isinstance(value, list) else format(value, 'g')}"
