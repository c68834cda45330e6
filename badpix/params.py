"""Parameters, declared once: checked, loaded and rendered from one declaration.

A :class:`Param` in ``badpix/settings/`` is the only place where a parameter's name, default, unit, range, help
text and FITS keyword are written. From it come the checks of YAML and command line, the command line options,
the commented default YAML, the keywords and HISTORY lines of a mask, and the tables of the documentation.

Two parameter sets exist: ``default`` (ours) and ``documented`` (what the documentation of the older tools
describes); they differ in values only. Precedence: declared default < YAML < explicit option.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from math import isinf
from pathlib import Path
from typing import Any

from badpix.errors import UsageError

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

    def value_in(self, parameter_set: str) -> Any:
        """The value in the ``default`` or the ``documented`` set."""
        same = parameter_set == "default" or self.documented is _SAME
        return self.default if same else self.documented


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


def nearest(name: str, known: Iterable[str]) -> str:
    """End of a message: the nearest known name, or all of them."""
    from difflib import get_close_matches

    known = list(known)
    near = get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


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
        raise UsageError(f"{where}: {number} is out of range; expected {span}{_unit(param)}")


def _unit(param: Param) -> str:
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
    if not isinstance(value, str | Path | int | float):
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


# --- files -----------------------------------------------------------------------------------------------


def load_file(path: str | Path) -> dict[str, Any]:
    """The content of a parameter file (YAML, or ASDF by its name), not yet checked.

    Raises
    ------
    UsageError
        If it can't be read, is no mapping, or repeats a key.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: no such parameter file")
    tree = _load_asdf(path) if path.suffix.lower() == ".asdf" else _load_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: found {type(tree).__name__}, expected sections such as 'flats:'")
    return {str(k): v for k, v in tree.items()}


def _load_yaml(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that refuses repeated keys instead of keeping the last one."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        keys = [loader.construct_object(k, deep=True) for k, _ in node.value]  # type: ignore[no-untyped-call]
        for key in keys:
            if keys.count(key) > 1:
                raise UsageError(f"{path}: line {node.start_mark.line + 1}: key {key!r} is given twice")
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None


def _load_asdf(path: Path) -> Any:
    import asdf

    try:
        with asdf.open(path, lazy_load=False) as af:
            return {k: v for k, v in af.tree.items() if k not in ("asdf_library", "history")}
    except (ValueError, OSError) as error:
        raise UsageError(f"{path}: not readable as ASDF: {error}") from None


def section_values(tree: Mapping[str, Any], sec: Section, source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a parameter file says about one section: ``(values, inputs)``; both empty where it says nothing.

    Raises
    ------
    UsageError
        If the section is no mapping or names an unknown kind of input.
    """
    values = tree.get(sec.name) or {}
    if not isinstance(values, Mapping):
        raise UsageError(f"{source}: {sec.name}: found {values!r}, expected 'name: value' lines")
    inputs = values.get("inputs") or {}
    if not isinstance(inputs, Mapping):
        raise UsageError(f"{source}: {sec.name}.inputs: found {inputs!r}, expected 'rate: files'")
    for role, files in inputs.items():
        if role not in sec.inputs:
            raise UsageError(f"{source}: {sec.name}.inputs: unknown kind {role!r}{nearest(str(role), sec.inputs)}")
        if not all(isinstance(f, str) for f in (files if isinstance(files, list) else [files])):
            raise UsageError(f"{source}: {sec.name}.inputs.{role}: found {files!r}, expected names of files")
    return {k: v for k, v in values.items() if k != "inputs"}, dict(inputs)


def resolve_paths(name: str, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A section of a parameter file with paths that start at the file's folder, not at the current directory."""
    try:
        sec = section(name)
    except ModuleNotFoundError:
        return dict(values)
    kinds = {p.name: p.kind for p in sec.params}
    out = dict(values)
    for key, value in values.items():
        if key == "inputs" and isinstance(value, Mapping):
            out[key] = {role: _beside(folder, v) for role, v in value.items()}
        elif kinds.get(key) in ("path", "paths") and value:
            found = _beside(folder, value)
            out[key] = found[0] if kinds[key] == "path" and isinstance(value, str) else found
    return out


def _beside(folder: Path, value: Any) -> Any:
    """Names of files that start at a folder; what is no name stays as it is, for the check that follows."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return value
    special = ("none", "default")
    keep = [n in special or Path(n.lstrip("@")).is_absolute() for n in names]
    return [
        n if k else ("@" if n.startswith("@") else "") + str(folder / n.lstrip("@"))
        for n, k in zip(names, keep, strict=True)
    ]


# --- rendering -------------------------------------------------------------------------------------------


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


def history_lines(sec: Section, values: Mapping[str, Any]) -> list[str]:
    """One line a parameter for HISTORY: name, value, unit, keyword, meaning."""
    rows = []
    for p in sec.params:
        word = f" [{p.keyword}]" if p.keyword else ""
        rows.append(f"{sec.name}.{p.name} = {_record(p, values[p.name])}{_unit(p)}{word}: {p.help}")
    return rows


def _record(p: Param, value: Any) -> str:
    """A value for the record of a file: of paths the names alone, since folders differ from machine to machine."""
    if p.kind in ("path", "paths") and value:
        names = [value] if p.kind == "path" else value
        return ", ".join(Path(name).name for name in names)
    return as_text(value)


def cards(sec: Section, values: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """(keyword, value, comment) of all parameters that have a keyword."""
    rows = []
    for p in sec.params:
        if p.keyword:
            value = values[p.name]
            plain = isinstance(value, bool | int | float)
            text = value if plain else _record(p, value)[:68]  # one card; HISTORY has it in full
            room = 80 - 10 - max(20, len(str(text)) + (0 if plain else 2)) - 3
            rows.append((p.keyword, text, f"{p.name}{_unit(p)}"[: max(room, 0)]))
    return rows


def render_yaml(sec: Section, parameter_set: str = "default") -> str:
    """The commented YAML of a section, ready to be edited and given to ``-p``."""
    values = defaults(sec, parameter_set)
    lines = [f"# {sec.title}", f"{sec.name}:"]
    group = ""
    for p in sec.params:
        if p.group != group:
            group = p.group
            lines += ["", f"  # --- {group} ---"]
        lines.append(f"  # {p.help}{_hint(p)}")
        lines.append(f"  {p.name}: {_yaml_value(values[p.name])}")
    return "\n".join(lines) + "\n"


def _hint(p: Param) -> str:
    parts = [p.unit] if p.unit else []
    if p.choices:
        parts.append(" | ".join(p.choices))
    if p.low is not None and p.high is not None:
        parts.append(f"{p.low:g} to {p.high:g}")
    elif p.low is not None:
        parts.append(f"at least {p.low:g}")
    if p.optional:
        parts.append("or none")
    return f" ({'; '.join(parts)})" if parts else ""


def _yaml_value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        items = {k: format(v, "g") if isinstance(v, float) else _yaml_value(v) for k, v in value.items()}
        return "{" + ", ".join(f"{k}: {v}" for k, v in items.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(value) + "]"
    if isinstance(value, tuple):
        return '"' + " ".join(str(v) for v in value) + '"'
    if isinstance(value, float):
        text = repr(value)
        # YAML 1.1 reads 1e-05 as text: it wants a point in the mantissa
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def render_table(sec: Section) -> str:
    """The parameters of a section as a Markdown table, for the documentation."""
    rows = ["| name | default | documented | unit, range | keyword | meaning |", "|---|---|---|---|---|---|"]
    for p in sec.params:
        doc = "" if p.documented is _SAME else f"`{as_text(p.documented)}`"
        hint = _hint(p)[2:-1].replace("|", "or")
        text = p.help.replace("|", "or")
        rows.append(f"| `{p.name}` | `{as_text(p.default)}` | {doc} | {hint} | {p.keyword} | {text} |")
    return "\n".join(rows) + "\n"
