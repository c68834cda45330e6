"""The two console scripts: groups that import a command only when it is called.

``--help`` shows the table below without importing any command, so it answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click

from badpix import __version__

NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # click 8.1 has none: it shows the help itself
BADPIX = {
    "Start from raw ramps": {
        "prepare": (
            "prepare:prepare",
            "Run the pipeline's first stage, with the products that the searches need.",
        ),
        "ramps": ("prepare:ramps", "Look at exposures step by step: flags, saturation, levels, jumps, slopes."),
    },
    "Make masks": {
        "flats": ("masks:flats", "Find DEAD, LOW_QE, OPEN and ADJ_OPEN pixels in flat-field exposures."),
        "darks": ("darks:darks", "Find HOT, noisy, RC, TELEGRAPH and low-pedestal pixels in dark ramps."),
        "science": ("science:science", "Find hot, low and unsteady pixels in science exposures."),
        "merge": ("masks:merge", "Combine masks and manual lists into one MASK."),
        "update": ("update:update", "Bring an older MASK up to date: new where measured, old elsewhere."),
    },
    "Look at masks": {
        "check": ("check:check", "Is a MASK valid and plausible? Exit status 3 if not."),
        "explain": ("explain:explain", "Why is a pixel flagged, or why not?"),
        "compare": ("compare:compare", "What changed between masks of one detector?"),
        "tune": ("tune:tune", "What would other limits flag? Without a new run."),
        "depth": ("depth:depth", "Which defects could the exposures behind a mask have shown?"),
        "families": ("families:families", "Make masks for exposures of several depths from one run."),
        "deliver": ("deliver:deliver", "Check a MASK as for a delivery, and write the folder that is sent."),
        "report": ("report:report", "Write one self-contained page about a MASK."),
        "export": ("report:export", "Write a MASK as list, DS9 regions, boolean image or table."),
    },
    "Unattended": {
        "init": ("deliver:init", "Make a folder to rebuild masks in: YAML, folders, crontab line."),
        "rebuild": ("rebuild:rebuild", "Bring the masks of one or many detectors up to date."),
        "history": ("rebuild:history", "List what was rebuilt, refused or failed."),
    },
    "Simulate": {
        "simulate": ("simulate:simulate", "Write simulated flats and darks with known defects."),
        "simulate-science": ("simulate:simulate_science", "Write simulated science exposures with known bad pixels."),
        "score": ("simulate:score", "Compare a MASK with the truth of its simulation."),
    },
    "Parameters": {
        "params": ("parameters:params", "Print the commented default YAML of a command."),
    },
}

OUTLIER: dict[str, dict[str, tuple[str, str]]] = {
    "Flag outliers": {
        "ifu": ("outliers:ifu", "Flag pixels that are consistently wrong in IFU exposures."),
        "image": ("images:image", "Flag cosmic rays and blemishes in dithered images."),
    },
    "Simulate": {
        "simulate-ifu": ("outliers:simulate_ifu", "Write a simulated IFU association with known defects."),
        "score-ifu": ("outliers:score_ifu", "Compare flagged IFU exposures with the truth of their simulation."),
        "simulate-image": (
            "images:simulate_image",
            "Write simulated dithered images with known hits.",
        ),
        "score-image": ("images:score_image", "Compare flagged images with the truth of their simulation."),
    },
    "Parameters": {
        "params": ("parameters:params", "Print the commented default YAML of a command."),
    },
}


def help_width() -> int:
    """Columns of help texts, as click would choose them; its own way imports a tenth of what a help costs."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (ValueError, OSError):  # no number, no terminal
        columns = 80
    return max(min(columns, 80) - 2, 50)


CONTEXT = {
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),
    "terminal_width": help_width(),
}


def ask_again(dropped: sys.UnraisableHookArgs) -> None:
    """Send a signal anew whose exception Python dropped: it came while a callback of a weak reference ran.

    The import system has such callbacks, so a Ctrl-C or SIGTERM of the first second was lost now and then. The signal
    comes from another thread, when this hook is over: what is raised inside is dropped as well.
    """
    number = 2 if isinstance(dropped.exc_value, KeyboardInterrupt) else 0
    if isinstance(dropped.exc_value, SystemExit) and isinstance(dropped.exc_value.code, int):
        number = max(dropped.exc_value.code - 128, 0)  # as our handlers of signals leave
    if not number:
        sys.__unraisablehook__(dropped)
        return
    import threading

    again = threading.Timer(0.02, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; its help comes from the table."""

    def __init__(self, table: dict[str, dict[str, tuple[str, str]]], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.table = table
        self.lazy = {name: entry for rows in table.values() for name, entry in rows.items()}

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **options: Any
    ) -> Any:
        """Run as a program: what libraries warn of is not for its user, who gets our notes (``-W`` shows it)."""
        if args is None:
            sys.unraisablehook = ask_again
        if args is None and not sys.warnoptions:
            import warnings

            warnings.simplefilter("ignore")
            os.environ["PYTHONWARNINGS"] = "ignore"  # for the processes that it starts
        run: Callable[..., Any] = super().main
        if not standalone_mode:
            return run(args, *rest, standalone_mode=False, **options)
        try:
            code = run(args, *rest, standalone_mode=False, **options)
        except NO_ARGUMENTS as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:  # of click itself: the words of a call; ours end in common.fail
            from badpix.cli.call import describe
            from badpix.cli.talk import clean

            click.secho(f"error: {clean(describe(error))}", fg="red", err=True)
            if isinstance(error, click.UsageError) and error.ctx is not None:
                click.echo(f"{error.ctx.command_path} --help shows how it is called", err=True)
            sys.exit(error.exit_code)
        except click.Abort:  # before the command's own boundary stood (its module is being imported), or behind it
            click.secho("error: interrupted; nothing was written", fg="red", err=True)
            sys.exit(130)
        except BrokenPipeError:  # the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        sys.exit(code if isinstance(code, int) else 0)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the help."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.lazy:
            return None
        module, name = self.lazy[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(f"badpix.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one gets the nearest name."""
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            from badpix.errors import nearest

            ctx.fail(f"no command {args[0]!r}{nearest(args[0], self.lazy)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands in groups, without importing any."""
        for title, rows in self.table.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in rows.items()])


badpix = LazyGroup(
    BADPIX,
    name="badpix",
    context_settings=CONTEXT,
    help="Make, check and explain JWST bad-pixel masks.",
    epilog="Example: badpix flats 'flats/*_rate.fits' --author 'A. Name' -o nrcb1_mask.fits",
)
outlier = LazyGroup(
    OUTLIER,
    name="outlier",
    context_settings=CONTEXT,
    help="Flag outliers in JWST exposures and write _crf.fits files.",
    epilog="Example: outlier ifu jw01234-o001_spec3_asn.json --output-dir flagged",
)
for _group in (badpix, outlier):
    click.version_option(__version__, "-V", "--version", prog_name=_group.name)(_group)
