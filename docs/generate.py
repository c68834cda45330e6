"""``python docs/generate.py [DIR]``: write the pages made from the code, ``parameters.md`` and ``commands.md``.

A test compares the committed pages with what this makes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from badpix.cli.main import BADPIX, OUTLIER, badpix, outlier
from badpix.io.output import write_text
from badpix.settings import SECTIONS, param, render

WIDTH = 100
MADE = "<!-- Made by docs/generate.py from the code; don't edit. -->\n"

PARAMETERS = f"""{MADE}
# Parameters

Every parameter is declared once, in `badpix/settings/`. From there come these tables, the options of the commands
(`dead_sigma_threshold` is `--dead-sigma-threshold`), the checks of YAML files, the default YAML files
(`badpix params flats`), and the keywords and HISTORY lines of a mask.

The documented parameters keep their documented names and default values. Each correction to the documented methods
is a parameter of its own; its value in the `documented` set (`--set documented`) stands in a column of its own and
turns the correction off.
"""

COMMANDS = f"""{MADE}
# Commands

What the commands themselves say with `--help`. Exit status: 0 done (also where there was nothing to do), 1 the data
are at fault, 2 the call or the YAML is at fault, 3 a check failed. Talk goes to stderr; stdout has the result: the
paths written, or the JSON with `--json`.

Completion for the shell comes from click: `eval "$(_BADPIX_COMPLETE=bash_source badpix)"` in `~/.bashrc` (and
`_OUTLIER_COMPLETE`; `zsh_source`, `fish_source` for the other shells).
"""


def render_parameters() -> str:
    """The tables of all sections."""
    parts = [PARAMETERS]
    for name in SECTIONS:
        sec = param.section(name)
        inputs = "".join(f"- `{role}`: {text}\n" for role, text in sec.inputs.items())
        intro = f"\nInput files that the YAML may name under `{name}: inputs:`\n\n{inputs}" if inputs else ""
        parts.append(f"## {name}\n\n{sec.title}\n{intro}\n{{.parameters}}\n{render.render_table(sec)}")
    return "\n".join(parts)


def render_commands() -> str:
    """The help of all commands."""
    parts = [COMMANDS]
    for script, group, table in (("badpix", badpix, BADPIX), ("outlier", outlier, OUTLIER)):
        parts.append(f"## {script}\n\n{_help(group, script)}")
        for rows in table.values():
            for name in rows:
                command = group.get_command(click.Context(group), name)
                assert command is not None
                parts.append(f"### {script} {name}\n\n{_help(command, f'{script} {name}')}")
    return "\n".join(parts)


def _help(command: click.Command, name: str) -> str:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    text = command.get_help(click.Context(command, info_name=name, **settings))
    return f"```text\n{text}\n```\n"


def render_all() -> Iterator[tuple[str, str]]:
    """Name and text of every page."""
    yield "parameters.md", render_parameters()
    yield "commands.md", render_commands()


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in render_all():
        write_text(folder / name, text, overwrite=True)
        sys.stdout.write(f"{folder / name}\n")
