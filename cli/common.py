"""What all commands share: options made from parameters, the talk on stderr, the error boundary, the summary.

stdout holds the result alone (the paths written, or the JSON); everything else goes to stderr.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from badpix import errors
from badpix.cli.complete import add_completion
from badpix.cli.talk import Talk
from badpix.errors import BadpixError, UsageError
from badpix.io.workers import Share, make_executor
from badpix.settings import files as settings_files
from badpix.settings import param as settings_param
from badpix.settings.values import as_text

__all__ = ["make_executor"]  # commands take it from here with the rest of the frame

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound=settings_param.Settings)

# Sections of a parameter file; a command reads its own and the ones that all share.
FILE_KEYS = (
    "detector detectors defaults set reference flats darks science merge check compare report prepare rebuild output "
    "ifu image simulate families"
).split()


# --- options ---------------------------------------------------------------------------------------------


class Option(click.Option):
    """An option that knows its heading in the help."""

    def __init__(self, *args: Any, heading: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


def option(*names: str, heading: str = "General", **rest: Any) -> Callable[[F], F]:
    """An option under its heading."""
    return click.option(*names, cls=Option, heading=heading, **rest)


def evidence_option(heading: str) -> Callable[[F], F]:
    """Where the evidence of a mask lies, if not beside it."""
    return option(
        "--evidence",
        "evidence_file",
        metavar="FILE",
        heading=heading,
        help="Evidence file.  [default: <mask root>_evidence.fits]",
    )


def ignore_checksum_option(heading: str) -> Callable[[F], F]:
    """Whether a mask is used that was changed after it was written."""
    return option(
        "--ignore-checksum",
        is_flag=True,
        heading=heading,
        help="Use masks whose CHECKSUM or DATASUM is wrong: they were changed after they were written.",
    )


def stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


class Command(click.Command):
    """A command with grouped help and with one place where errors become messages and exit codes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            add_completion(parameter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept ``--flag=true`` and ``--flag=false`` for switches, as the JWST pipeline's shell does."""
        switches = {o for p in self.params if isinstance(p, Option) and p.is_flag for o in p.opts}
        return super().parse_args(ctx, [_plain_switch(arg, switches) for arg in args])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under their headings."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                headings.setdefault(getattr(param, "heading", "") or "Options", []).append(record)
        for heading, rows in headings.items():
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=34)

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a user's mistake ends in one message and an exit status, never in a traceback."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds: temporary files go
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
            signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
        try:
            return super().invoke(ctx)
        except BadpixError as error:
            fail(ctx, str(error), error.exit_code)
        except MemoryError:
            fail(ctx, "out of memory; give a smaller --max-memory or fewer --workers", 1)
        except BrokenPipeError:  # whoever reads has seen enough (| head): click ends without a word
            raise
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            fail(ctx, f"{name}{error.strerror or error}", 1)
        except KeyboardInterrupt:
            fail(ctx, "interrupted; nothing was written", 130)
        except click.exceptions.ClickException:
            raise
        except (click.exceptions.Exit, click.exceptions.Abort):
            raise
        except Exception as error:
            if ctx.params.get("verbose"):
                import traceback

                traceback.print_exc()
            fail(ctx, f"internal error: {type(error).__name__}: {error}; please report it (-v shows where)", 1)


def _plain_switch(arg: str, switches: set[str]) -> str:
    name, equals, value = arg.partition("=")
    name = name.replace("_", "-")
    if not equals or name not in switches or value.lower() not in ("true", "false"):
        return arg
    return name if value.lower() == "true" else "--no-" + name[2:]


def fail(ctx: click.Context, message: str, code: int) -> None:
    """Say what went wrong (in JSON too, if that was asked for), note it in the log file, and end."""
    from badpix.io.output import remove_empty

    remove_empty()
    talk = ctx.obj if isinstance(ctx.obj, Talk) else Talk({**ctx.params, "log_file": None})
    talk.error(message)
    if ctx.params.get("as_json"):
        import json

        click.echo(json.dumps({"command": ctx.command_path, "status": "failed", "error": message, "exit": code}))
    ctx.exit(code)


def parameter_options(*section_names: str, without: Sequence[str] = ()) -> Callable[[F], F]:
    """Options for the parameters of some sections; an option that is not given leaves the YAML's value.

    ``without`` names parameters for which the command has arguments or options of its own.
    """

    def decorate(function: F) -> F:
        for name in reversed(section_names):
            sec = settings_param.section(name)
            for p in reversed(sec.params()):
                function = function if p.name in without else _option(p, sec)(function)
        return function

    return decorate


def _option(p: settings_param.Param, sec: type[settings_param.Settings]) -> Callable[[F], F]:
    flag = "--" + p.name.replace("_", "-")
    heading = p.group or sec.heading or sec.title
    text = f"{p.help}  [default: {as_text(p.default)}{' ' + p.unit if p.unit else ''}]"
    if p.kind == "bool":
        return option(f"{flag}/--no-{flag[2:]}", p.name, heading=heading, default=None, help=text)
    metavar = "|".join(p.choices) if p.kind == "choice" else p.kind.upper().replace("PAIR_", '"A B" ')
    return option(flag, p.name, heading=heading, default=None, metavar=metavar, help=text)


_TALK = (
    option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout, and nothing else there."),
    option("-q", "--quiet", is_flag=True, help="Say only notes and errors."),
    option("-v", "--verbose", is_flag=True, help="Say more."),
    option("--log-file", metavar="FILE", help="Append the talk to a file."),
)

# Options of every command that only answers a question, and of every command that does work.
talk_options = stack(*_TALK)
overwrite_option = option("--overwrite", is_flag=True, help="Replace existing outputs.")
shared_options = stack(
    option(
        "-p",
        "--params",
        "params_files",
        multiple=True,
        metavar="FILE",
        help="YAML (or ASDF) with parameters; may be repeated, the later one wins.",
    ),
    option(
        "--set",
        "parameter_set",
        type=click.Choice(settings_param.SETS),
        default=None,
        help="Parameter set to start from.  [default: default]",
    ),
    overwrite_option,
    option("--workers", type=click.IntRange(1, 1024), default=1, help="Processes to use.  [default: 1]"),
    option(
        "--dask",
        metavar="ADDRESS",
        help="Dask scheduler whose workers take the place of --workers (extra 'cluster').",
    ),
    option(
        "--max-memory",
        metavar="SIZE",
        default=None,
        help="Memory that the whole run may take, its workers included, such as 400M or 2G; with less, fewer workers "
        "are used. With --dask: that of each worker.",
    ),
    *_TALK,
)


# --- parameters from file and command line ---------------------------------------------------------------


def load_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """The merged tree of all ``-p`` files, with paths made relative to their file's folder resolved.

    Raises
    ------
    UsageError
        At an unknown section.
    """
    from pathlib import Path  # a tenth of the time of --help

    tree: dict[str, Any] = {}
    for name in options.get("params_files") or ():
        found = settings_files.load_file(name)
        for key, value in found.items():
            if key not in FILE_KEYS:
                raise UsageError(f"{name}: unknown section {key!r}{errors.nearest(key, FILE_KEYS)}")
            if isinstance(value, Mapping):
                value = settings_files.resolve_paths(key, value, Path(name).parent)
                tree[key] = {**tree.get(key, {}), **value}
            elif key == "output" and not isinstance(value, str):
                raise UsageError(f"{name}: output: found {value!r}, expected the name of a file")
            else:
                tree[key] = str(Path(name).parent / value) if key == "output" else value
    return tree


def collect(cls: type[S], tree: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[S, dict[str, Any]]:
    """Checked values and named inputs of a section: declared default < YAML < explicit option.

    Parameters
    ----------
    cls : type
        Settings of the section.
    tree : mapping
        From :func:`load_files`.
    options : mapping
        All options of the command, None where not given.

    Returns
    -------
    values : Settings
        Complete parameter values.
    inputs : dict
        Inputs by role as the YAML names them.
    """
    source = ", ".join(options.get("params_files") or ()) or "command line"
    from_file, inputs = settings_files.section_values(tree, cls, source)
    parameter_set = options.get("parameter_set") or from_file.pop("set", None) or tree.get("set") or "default"
    from_file.pop("set", None)
    values = cls.from_values(from_file, source, parameter_set)
    given = {name: options[name] for name in cls.names() if options.get(name) is not None}
    for name, value in given.items():
        checked = settings_param.check_value(cls.param(name), value, f"--{name.replace('_', '-')}")
        values = values.changed({name: checked}, "command line")
    return values, inputs


def parse_pair(text: str, name: str) -> tuple[float, float]:
    """Two positive numbers.

    Raises
    ------
    UsageError
        If it is something else.
    """
    try:
        first, second = (float(word) for word in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"{name}: found {text!r}, expected two numbers") from None
    if not (first > 0 and second > 0):
        raise UsageError(f"{name}: found {text!r}, expected two positive numbers")
    return first, second


def share_memory(talk: Talk, options: Mapping[str, Any]) -> Share:
    """Workers and the memory of their bands from ``--max-memory`` and ``--workers``; a note where they are fewer."""
    from badpix.io import workers

    text = options.get("max_memory")
    total = parse_size(text, text) if text else None
    if options.get("dask"):
        return workers.share_memory(total, 1)
    share = workers.share_memory(total, options["workers"])
    if share.workers < options["workers"]:
        talk.note(f"--max-memory {text}: room for {share.workers} of {options['workers']} workers")
    return share


def memory_of_each(options: Mapping[str, Any], usual: int, least: int = 0) -> int:
    """Bytes that each process of an outlier search may take, of ``--max-memory`` for all of them.

    Parameters
    ----------
    options : mapping
        ``max_memory`` and ``workers``.
    usual : int
        Bytes of a process where nobody says how much.
    least : int
        Bytes below which it can't work.

    Raises
    ------
    UsageError
        At a limit that leaves less.
    """
    from badpix.io.workers import DIRECTOR

    text: str | None = options["max_memory"]
    number: int = options["workers"]
    if not text:
        return usual
    spare = DIRECTOR if number > 1 else 0
    each = (parse_size(text, text) - spare) // number
    if each < least:
        wanted = -(-(least * number + spare) >> 20)
        processes = f"{number} workers" if number > 1 else "one process"
        raise UsageError(f"--max-memory: found {text}, expected at least {wanted}M for {processes}")
    return each


def parse_size(text: str | None, default: str) -> int:
    """Bytes meant by ``400M`` or ``2G`` (powers of 1024; a bare number counts bytes).

    Raises
    ------
    UsageError
        If it is no size.
    """
    word = (text or default).strip().upper().removesuffix("B").removesuffix("I")
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    try:
        factor = units.get(word[-1:], 1)
        size = int(float(word[:-1] if word[-1:] in units else word) * factor)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UsageError(f"--max-memory: found {text!r}, expected a size such as 400M or 2G")
    return size
