"""Parameters, declared once: checked, loaded (:mod:`params_files`) and rendered (:mod:`params_text`) from there.

A :class:`Param` in ``badpix/settings/`` is the only place where a parameter's name, default, unit, range, help
text and FITS keyword are written. From it come the checks of YAML and command line, the command line options,
the commented default YAML, the keywords and HISTORY lines of a mask, and the tables of the documentation.

Two parameter sets exist: ``default`` (ours) and ``documented`` (what the documentation of the older tools
describes); they differ in values only. Precedence: declared default < YAML < explicit option.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import isinf
from typing import Any

from badpix.errors import UsageError, nearest

SETS = ("default", "documented")
_SAME: Any = object()

# What `kind` means, for messages.
KINDS = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "text",
    "choice": "one of a list of words",
    "path": "a file name",
    "list": "a list of words",
    "paths": "a list of file names",
    "mapping": "a mapping of names to lists of words",
    "numbers": "a mapping of names to numbers",
    "settings": "a mapping of names to 'name: value' lines",
    "pair_float": "two numbers",
    "pair_int": "two whole numbers",
}

MERGED = ("mapping", "numbers", "settings")  # kinds that are laid over their default key by key


@dataclass(frozen=True)
class Param:
    """The declaration of one parameter.

    Parameters
    ----------
    name : str
        Documented name, the same in Python, YAML, docs and FITS history; on the command line with dashes.
    default : object
        Value in the ``default`` set.
    help : str
        One sentence; says whether equality counts, for a threshold.
    kind : str
        A key of :data:`KINDS`.
    unit : str
        Physical unit, empty where there is none.
    choices : tuple of str
        Allowed words, for ``choice`` (and for the items of a ``list``).
    low, high : float, optional
        Inclusive range of numbers (of each of a pair).
    optional : bool
        Whether None (``none``, ``null``) is allowed.
    keyword : str
        FITS keyword of the mask's primary header; empty for none.
    documented : object
        Value in the ``documented`` set, where it differs.
    group : str
        Heading under which help and tables show it.
    """

    name: str
    default: Any
    help: str
    kind: str = "float"
    unit: str = ""
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    optional: bool = False
    keyword: str = ""
    documented: Any = field(default=_SAME)
    group: str = ""

    @property
    def differs(self) -> bool:
        """Whether the ``documented`` set has a value of its own."""
        return self.documented is not _SAME

    def value_in(self, parameter_set: str) -> Any:
        """The value in the ``default`` or the ``documented`` set."""
        return self.documented if parameter_set != "default" and self.differs else self.default


@dataclass(frozen=True)
class Section:
    """The parameters of one command, in the order in which they are shown.

    ``inputs`` maps the roles of input files that the YAML may name (``rate``, ``uncal``) to their meaning.
    """

    name: str
    title: str
    params: tuple[Param, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Param:
        return next(p for p in self.params if p.name == name)

    @property
    def names(self) -> list[str]:
        """Names of all parameters."""
        return [p.name for p in self.params]


def section(name: str) -> Section:
    """The section called ``name``, from ``badpix.settings.<name>``."""
    found: Section = import_module(f"badpix.settings.{name}").SECTION
    return found


def defaults(sec: Section, parameter_set: str = "default") -> dict[str, Any]:
    """All values of a parameter set.

    Raises
    ------
    UsageError
        If there is no such set.
    """
    if parameter_set not in SETS:
        raise UsageError(f"parameter set {parameter_set!r} is unknown; known are {', '.join(SETS)}")
    return {p.name: p.value_in(parameter_set) for p in sec.params}


def check(sec: Section, values: Mapping[str, Any], source: str, parameter_set: str = "default") -> dict[str, Any]:
    """The complete, checked values of a section: ``values`` laid over a parameter set.

    Parameters
    ----------
    sec : Section
        What is known.
    values : mapping
        Explicit values; a mapping parameter is merged with its default key by key.
    source : str
        Where they come from (file, command line), for the message.

    Raises
    ------
    UsageError
        At an unknown name (with the nearest known one), a wrong type, a value out of range.
    """
    out = defaults(sec, parameter_set)
    for name, value in values.items():
        if name not in out:
            raise UsageError(f"{source}: {sec.name}: unknown parameter {name!r}{nearest(name, sec.names)}")
        checked = check_value(sec[name], value, f"{source}: {sec.name}.{name}")
        merged = sec[name].kind in MERGED and checked
        out[name] = {**out[name], **checked} if merged else checked
    return out


def check_value(param: Param, value: Any, where: str) -> Any:
    """``value`` in the type of its parameter.

    Raises
    ------
    UsageError
        If it has another type, lies outside the range or is not among the choices.
    """
    if isinstance(value, str) and value.strip().lower() == "none" and param.optional:
        value = None
    if value is None:
        if param.optional:
            return None
        raise _wrong(param, value, where)
    out = _convert(param, value, where)
    if isinstance(out, list):
        same = {c.lower(): c for c in param.choices}
        out = [same.get(word.lower(), word) for word in out]
    numbers = out if isinstance(out, tuple) else (out,)
    if param.kind in ("float", "int", "pair_float", "pair_int"):
        for number in numbers:
            _check_range(param, number, where)
    if param.choices:
        for word in numbers if not isinstance(out, list) else out:
            if word not in param.choices:
                raise UsageError(f"{where}: {word!r} is not one of {', '.join(param.choices)}")
    return out


def _check_range(param: Param, number: float, where: str) -> None:
    low = param.low if param.low is not None else float("-inf")
    high = param.high if param.high is not None else float("inf")
    if not low <= number <= high or isinf(number):  # also catches NaN; a FITS header can't hold infinity
        span = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise UsageError(f"{where}: {number} is out of range; expected {span}{unit_after(param)}")


def unit_after(param: Param) -> str:
    """The unit as it follows a number."""
    return f" {param.unit}" if param.unit else ""


def _wrong(param: Param, value: Any, where: str) -> UsageError:
    either = " or none" if param.optional else ""
    return UsageError(f"{where}: found {value!r}, expected {KINDS[param.kind]}{either}")


def _convert(param: Param, value: Any, where: str) -> Any:
    kind = param.kind
    try:
        if kind == "bool":
            return _bool(value)
        if kind in ("float", "int"):
            return _number(value, kind)
        if kind in ("str", "choice", "path"):
            return _text(param, value)
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
    except (TypeError, ValueError):
        raise _wrong(param, value, where) from None
    raise AssertionError(f"{param.name}: unknown kind {kind!r}")


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


def _text(param: Param, value: Any) -> str:
    if isinstance(value, bool):  # YAML reads a bare `off` or `no` as false
        value = {False: "off" if "off" in param.choices else "no", True: "on"}[value]
    if hasattr(value, "isoformat"):  # YAML reads a bare date as one
        return str(value.isoformat())
    if not isinstance(value, str | os.PathLike | int | float):
        raise TypeError
    text = str(value)
    same = {c.lower(): c for c in param.choices}
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


# --- as text ---------------------------------------------------------------------------------------------


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
