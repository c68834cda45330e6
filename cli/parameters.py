"""``badpix params`` and ``outlier params``: the commented YAML of a command's parameters."""

from __future__ import annotations

import click

from badpix import errors
from badpix.cli.common import Command
from badpix.cli.complete import SECTIONS
from badpix.settings import param as declared
from badpix.settings.render import render_yaml


@click.command(cls=Command, epilog="Example: badpix params darks > darks.yml")
@click.argument("command")
@click.option(
    "--set",
    "parameter_set",
    type=click.Choice(declared.SETS),
    default="default",
    help="Parameter set whose values are printed.  [default: default]",
)
@click.pass_context
def params(ctx: click.Context, /, command: str, parameter_set: str) -> None:
    """Print all parameters of COMMAND as YAML, with their meaning, ready to edit.

    COMMAND is flats, darks, science, merge, check, rebuild, prepare, simulate, reference, ifu or image.
    """
    known = [name for names in SECTIONS.values() for name in names]
    if command not in known:
        raise click.BadParameter(f"{command!r} has no parameters{errors.nearest(command, known)}")
    click.echo(render_yaml(declared.section(command), parameter_set), nl=False)
