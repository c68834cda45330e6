"""What is written from the declarations of parameters: HISTORY, keywords, the commented YAML, tables of the docs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from badpix.settings.param import Param, Settings, unit_after
from badpix.settings.values import as_text

WIDTH = 100  # of comments in YAML
WITH_OUTPUT = ("flats", "darks", "merge")  # sections of commands whose output the file may name


def history_lines(values: Settings) -> list[str]:
    """One line a parameter for HISTORY: name, value, unit, keyword, meaning."""
    rows = []
    for p in values.params():
        word = f" [{p.keyword}]" if p.keyword else ""
        rows.append(
            f"{values.section}.{p.name} = {_record(p, getattr(values, p.name))}{unit_after(p)}{word}: {p.help}"
        )
    return rows


def _record(p: Param, value: Any) -> str:
    """A value for the record of a file: of paths the names alone, since folders differ from machine to machine."""
    if p.kind in ("path", "paths") and value:
        names = [value] if p.kind == "path" else value
        return ", ".join(Path(name).name for name in names)
    return as_text(value)


def cards(values: Settings) -> list[tuple[str, Any, str]]:
    """(keyword, value, comment) of all parameters that have a keyword."""
    rows = []
    for p in values.params():
        if p.keyword:
            value = getattr(values, p.name)
            plain = isinstance(value, bool | int | float)
            text = value if plain else _record(p, value)[:68]  # one card; HISTORY has it in full
            room = 80 - 10 - max(20, len(str(text)) + (0 if plain else 2)) - 3
            rows.append((p.keyword, text, f"{p.name}{unit_after(p)}"[: max(room, 0)]))
    return rows


def render_yaml(sec: type[Settings], parameter_set: str = "default") -> str:
    """The commented YAML of a section, ready to be edited and given to ``-p``."""
    values = sec.in_set(parameter_set)
    lines = [f"# {sec.title}", *_files(sec)]
    group = ""
    for p in sec.params():
        if p.group != group:
            group = p.group
            lines += ["", f"  # --- {group} ---"]
        lines += wrap(f"{p.help}{_hint(p)}", WIDTH, initial_indent="  # ", subsequent_indent="  # ")
        lines.append(f"  {p.name}: {_yaml_value(getattr(values, p.name))}")
    return "\n".join(lines) + "\n"


def _files(sec: type[Settings]) -> list[str]:
    """The head of a section, with the names of inputs and output as comments: they have no defaults."""
    lines = []
    if sec.section in WITH_OUTPUT:
        lines.append('# output: "{instrument}_{detector}_mask_{date}.fits"  # instead of -o')
    lines.append(f"{sec.section}:")
    if sec.inputs:
        lines += ["  # files, folders, globs or @lists, from the folder of this file", "  # inputs:"]
        lines += [f"  #   {role}: []  # {text}" for role, text in sec.inputs.items()]
    return lines


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


def render_table(sec: type[Settings]) -> str:
    """The parameters of a section as a Markdown table, for the documentation."""
    rows = ["| name | meaning | default | documented | unit, range | keyword |", "|---|---|---|---|---|---|"]
    for p in sec.params():
        doc = f"`{as_text(p.documented)}`" if p.differs else ""
        hint = _hint(p)[2:-1].replace("|", "or")
        text = p.help.replace("|", "or")
        rows.append(f"| `{p.name}` | {text} | `{as_text(p.default)}` | {doc} | {hint} | {p.keyword} |")
    return "\n".join(rows) + "\n"
