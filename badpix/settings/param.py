"""Parameters, declared once: checked here, read by :mod:`badpix.settings.files`, rendered by
:mod:`badpix.settings.render`.

A field of a :class:`Settings` class in ``badpix/settings/`` is the only place where a parameter's name, type,
default, unit, range, help text and FITS keyword are written. From it come the checks of YAML, command line and
Python, the command line options, the commented default YAML, the keywords and HISTORY lines of a mask, and the
tables of the documentation.

A group of parameters is a class whose docstring is the heading; the class of a command inherits its groups, in the
order in which they are shown, and its names stay flat. A function names the group that it reads.

Two parameter sets exist: ``default`` (ours) and ``documented`` (what the documentation of the older tools
describes); they differ in values only. Precedence: declared default < YAML < explicit option.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import partial
from importlib import import_module
from math import isinf
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

from badpix.errors import UsageError, nearest
from badpix.settings.values import convert

SETS = ("default", "documented")
_SAME: Any = object()


# The type of a parameter that names a file or folder; in a YAML file it starts at the file's folder.
FileName = Annotated[str, "file name"]


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


_KINDS_OF = {
    float: "float",
    int: "int",
    bool: "bool",
    str: "str",
    FileName: "path",
    list[str]: "list",
    list[FileName]: "paths",
    dict[str, list[str]]: "mapping",
    dict[str, float]: "numbers",
    dict[str, dict[str, Any]]: "settings",
    tuple[float, float]: "pair_float",
    tuple[int, int]: "pair_int",
}


@dataclass(frozen=True)
class Param:
    """The declaration of one parameter, as :func:`param` and the annotation of its field give it.

    Attributes
    ----------
    name : str
        Documented name, the same in Python, YAML, docs and FITS history; on the command line with dashes.
    default : object
        Value in the ``default`` set.
    help : str
        One sentence; says whether equality counts, for a threshold.
    kind : str
        A key of :data:`KINDS`; follows from the annotation.
    unit : str
        Physical unit, empty where there is none.
    choices : tuple of str
        Allowed words; those of a ``Literal``, or of the items of a list.
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


def param(
    default: Any,
    help: str,
    *,
    unit: str = "",
    choices: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    keyword: str = "",
    documented: Any = _SAME,
) -> Any:
    """Declare a parameter: the right side of a field of a :class:`Settings` class. See :class:`Param`."""
    about = {
        "default": default,
        "help": help,
        "unit": unit,
        "choices": tuple(choices),
        "low": low,
        "high": high,
        "keyword": keyword,
        "documented": documented,
    }
    if isinstance(default, list | dict):
        return field(default_factory=partial(deepcopy, default), metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all parameter classes: values by name, checked when they are made.

    ``FlatSettings(open_sigma=5)`` is the default set with one value changed; :meth:`from_values` reads a mapping.

    Raises
    ------
    UsageError
        At a value of another type, out of range or not among the choices.
    """

    section: ClassVar[str] = ""
    title: ClassVar[str] = ""
    heading: ClassVar[str] = ""  # of parameters without a group in the help; the title, where it is empty
    inputs: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        for p in self.params():
            given = getattr(self, p.name)
            checked = check_value(p, given, f"{type(self).__name__}.{p.name}")
            if checked != given or isinstance(given, str) != isinstance(checked, str):
                object.__setattr__(self, p.name, checked)

    @classmethod
    def params(cls) -> tuple[Param, ...]:
        """All parameters, group by group, in the order in which they are shown."""
        if cls not in _KNOWN:
            _KNOWN[cls] = _params_of(cls)
        return _KNOWN[cls]

    @classmethod
    def names(cls) -> list[str]:
        """Names of all parameters."""
        return [p.name for p in cls.params()]

    @classmethod
    def param(cls, name: str) -> Param:
        """The declaration of one parameter."""
        return next(p for p in cls.params() if p.name == name)

    @classmethod
    def in_set(cls, parameter_set: str = "default") -> Self:
        """All values of a parameter set.

        Raises
        ------
        UsageError
            If there is no such set.
        """
        if parameter_set not in SETS:
            raise UsageError(f"parameter set {parameter_set!r} is unknown; known are {', '.join(SETS)}")
        return cls(**{p.name: p.value_in(parameter_set) for p in cls.params()})

    @classmethod
    def from_values(cls, values: Mapping[str, Any], source: str, parameter_set: str = "default") -> Self:
        """The complete, checked values: ``values`` laid over a parameter set.

        Parameters
        ----------
        values : mapping
            Explicit values; a mapping parameter is merged with its default key by key.
        source : str
            Where they come from (file, command line), for the message.
        parameter_set : str
            The set that they are laid over.

        Raises
        ------
        UsageError
            At an unknown name (with the nearest known one), a wrong type, a value out of range.
        """
        return cls.in_set(parameter_set).changed(values, f"{source}: {cls.section}")

    def changed(self, values: Mapping[str, Any], where: str) -> Self:
        """These settings with some values changed, checked and merged as :meth:`from_values` does it.

        ``where`` is the place that a message names, such as ``masks.yml: flats``.
        """
        out = dict(self.items())
        for name, value in values.items():
            if name not in out:
                raise UsageError(f"{where}: unknown parameter {name!r}{nearest(name, self.names())}")
            p = self.param(name)
            checked = check_value(p, value, f"{where}.{name}")
            out[name] = {**out[name], **checked} if p.kind in MERGED and checked else checked
        return type(self)(**out)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Name and value of all parameters, in the order in which they are shown."""
        return ((p.name, getattr(self, p.name)) for p in self.params())


_KNOWN: dict[type, tuple[Param, ...]] = {}  # of the classes that were asked


def _params_of(cls: type[Settings]) -> tuple[Param, ...]:
    """The groups of a class in the order of its bases, then its own fields."""
    inherited = [p for base in cls.__bases__ if issubclass(base, Settings) for p in base.params()]
    known = {p.name for p in inherited}
    own = [f for f in fields(cls) if f.name not in known]
    heading = "" if cls.section else (cls.__doc__ or "").strip()
    return (*inherited, *(_describe(f.name, f.type, heading, f.metadata) for f in own))


def _describe(name: str, annotation: Any, group: str, about: Mapping[str, Any]) -> Param:
    """A parameter from the annotation of its field and what :func:`param` was told."""
    about = dict(about)
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    optional = NoneType in parts
    (plain,) = (part for part in parts if part is not NoneType)
    if get_origin(plain) is Literal:
        kind, about["choices"] = "choice", get_args(plain)
    else:
        kind = _KINDS_OF[plain]
    return Param(name=name, kind=kind, optional=optional, group=group, **about)


def section(name: str) -> type[Settings]:
    """The settings class of a section, from ``badpix.settings.<name>``.

    Raises
    ------
    KeyError
        If no section has that name.
    """
    module = import_module(f"badpix.settings.{name}")
    found = [
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Settings) and c.section == name
    ]
    return found[0]


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
    try:
        out = convert(value, param.kind, param.choices)
    except (TypeError, ValueError):
        raise _wrong(param, value, where) from None
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
