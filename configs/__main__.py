"""``python -m badpix.configs [DIR]``: write the default YAML of every command, from the declared parameters.

``<section>.yml`` holds the defaults of one section with a comment on each parameter; ``documented.yml`` holds the
searches in the ``documented`` set. The shipped files stand beside this module; a test keeps them equal to the
declarations.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from badpix.io.output import write_text
from badpix.settings import SECTIONS, param, render

HEADER = "# Written by `python -m badpix.configs` from the declared parameters; copy the lines that you change.\n"


def render_all() -> Iterator[tuple[str, str]]:
    """Name and text of every file."""
    documented = [HEADER]
    for name in SECTIONS:
        text, other = (render.render_yaml(param.section(name), which) for which in param.SETS)
        yield f"{name}.yml", f"{HEADER}\n{text}"
        documented += [other] if other != text else []
    yield "documented.yml", "\n".join(documented)


def write_all(folder: Path) -> list[Path]:
    """Write every file into a folder, replacing older ones; returns their paths."""
    written = []
    for name, text in render_all():
        write_text(folder / name, text, overwrite=True)
        written.append(folder / name)
    return written


if __name__ == "__main__":
    for path in write_all(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        sys.stdout.write(f"{path}\n")
