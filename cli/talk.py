"""What a run says: messages, progress and tables on stderr and in the log file; the result, or JSON, on stdout."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from badpix import __version__
from badpix.io.workers import peak_memory, peak_of_ended
from badpix.outside import printable

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress


class Talk:
    """What a run says: messages and progress on stderr and in the log file, the result on stdout.

    Parameters
    ----------
    options : mapping
        The command's options: ``quiet``, ``verbose``, ``as_json``, ``log_file``.

    Raises
    ------
    UsageError
        If the log file exists and is something else.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.quiet = bool(options.get("quiet"))
        self.verbose = bool(options.get("verbose"))
        self.as_json = bool(options.get("as_json"))
        self.log_file = options.get("log_file")
        if self.log_file:
            from badpix.io.output import check_log

            check_log(self.log_file, "--log-file")
        self.started = time.monotonic()
        self.notes: list[str] = []
        self.bar: Progress | None = None  # while it is shown
        listen(self)

    def say(self, message: str) -> None:
        """One line about what is being done."""
        message = clean(message)
        self._log("info", message)
        if not self.quiet:
            self._print(message)

    def detail(self, message: str) -> None:
        """One line for ``-v``."""
        message = clean(message)
        self._log("debug", message)
        if self.verbose:
            self._print(message)

    def note(self, message: str) -> None:
        """Something that the user should know, said once; repeated in the summary."""
        message = clean(message)
        if message in self.notes:
            return
        self.notes.append(message)
        self._log("warning", message)
        self._print(f"note: {message}", "yellow")

    def error(self, message: str) -> None:
        """Why the run ends."""
        message = clean(message)
        self._log("error", message)
        self._print(f"error: {message}", "red")

    def _print(self, message: str, color: str | None = None) -> None:
        """One line on stderr, above the bar where there is one."""
        if self.bar is None:
            click.secho(message, fg=color, err=True)
        else:
            self.bar.console.print(message, style=color, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _log(self, level: str, message: str) -> None:
        if self.log_file:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            try:
                with open(self.log_file, "a", encoding="utf-8") as stream:
                    stream.write(f"{stamp} {level:7s} {os.getpid()} {message}\n")
            except OSError as error:
                self.log_file = None
                click.secho(f"note: --log-file: {error}", fg="yellow", err=True)

    @contextmanager
    def progress(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """A function ``tick(done, total)``; a bar appears after a second, on a terminal only.

        When all is done, what comes (results are written, pictures drawn) has no measure: the bar says so.
        """
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(label, total=None)
        begun = time.monotonic()

        def tick(done: int, total: int) -> None:
            nonlocal task
            if self.bar is None and time.monotonic() - begun > 1 and done < total:
                bar.start()
                self.bar = bar
            if done < total:
                bar.update(task, description=label, completed=done, total=total)
            else:
                bar.remove_task(task)
                task = bar.add_task(f"{label}, finishing", total=None)

        try:
            yield tick
        finally:
            if self.bar is not None:
                bar.stop()
                self.bar = None

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table on stderr; the first column to the left, numbers to the right."""
        if self.quiet or not rows:
            return
        from rich.console import Console

        console = Console(stderr=True, width=None if sys.stderr.isatty() else 118, markup=False, emoji=False)
        free = console.options.update(max_width=10_000)
        shown = [[_cell(value) for value in row] for row in rows]
        right = [k > 0 and all(_is_numeric(row[k]) for row in rows) for k in range(len(columns))]
        made = _make_table(title, columns, shown, right, tight=False)
        if console.measure(made, options=free).maximum > console.width:  # the ends of long names tell exposures apart
            made = _make_table(title, columns, shown, right, tight=True)
            longest = max(len(row[0]) for row in shown)
            room = max(10, longest - max(0, console.measure(made, options=free).maximum - console.width))
            cut = [[row[0] if len(row[0]) <= room else "…" + row[0][1 - room :], *row[1:]] for row in shown]
            made = _make_table(title, columns, cut, right, tight=True)
        console.print(made)

    def finish(
        self,
        command: str,
        outputs: Sequence[str | Path],
        summary: Mapping[str, Any],
        beside: Sequence[str | Path] = (),
    ) -> None:
        """The result: paths on stdout, or the JSON; what lies beside it is named on stderr and in the JSON."""
        seconds = round(time.monotonic() - self.started, 2)
        memory, child = peak_memory(), peak_of_ended()
        written = ", ".join(str(p) for p in outputs)
        if not self.as_json:
            workers = f", {child / 1e6:,.0f} MB in its largest worker" if child > memory else ""
            self.say(f"done in {seconds:.1f} s, peak memory {memory / 1e6:,.0f} MB{workers}")
            for other in beside:
                self.say(f"beside it: {other}")
            for path in outputs:
                click.echo(str(path))
        else:
            whole = {
                "command": command,
                "version": __version__,
                "status": "done",
                "outputs": [str(p) for p in (*outputs, *beside)],
                **summary,
                "notes": self.notes,
                "seconds": seconds,
                "peak_memory_mb": round(memory / 1e6, 1),
                "peak_memory_of_workers_mb": round(child / 1e6, 1),
            }
            import json

            click.echo(json.dumps(whole, indent=1, default=_plain))
        self._log("info", f"{command}: done in {seconds} s, peak memory {memory / 1e6:.0f} MB: {written}")


def clean(text: str) -> str:
    """Text for a terminal: lines and tabs stay, other control characters (of file names, of headers) are spelled."""
    return "".join(c if c in "\n\t" else printable(c) for c in text) if not text.isprintable() else text


class Listener(logging.Handler):
    """Hands on what the library logs: warnings as notes, the rest as what is being done."""

    def __init__(self, talk: Talk) -> None:
        super().__init__()
        self.talk = talk

    def emit(self, record: logging.LogRecord) -> None:
        """One message."""
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.talk.note(text)
        elif record.levelno >= logging.INFO:
            self.talk.say(text)
        else:
            self.talk.detail(text)


def listen(talk: Talk) -> None:
    """Let a run hear the library; the run before it (in one process: tests) hears it no more."""
    library = logging.getLogger("badpix")
    for handler in [h for h in library.handlers if isinstance(h, Listener)]:
        library.removeHandler(handler)
    library.addHandler(Listener(talk))
    library.setLevel(logging.DEBUG)


def print_tables(blocks: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Any]]]]) -> None:
    """Tables on stdout: they are the result. Title, columns and rows of each."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False, emoji=False)
    for title, columns, rows in blocks:
        if not rows:
            console.print(title, style="bold")
            continue
        room = (0, 1 if console.width >= 100 else 0)  # names stay whole on narrow terminals
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=room)
        for k, column in enumerate(columns):
            left = k == 0 or any(isinstance(r[k], str) and not r[k][:1].isdigit() and r[k] != "-" for r in rows)
            table.add_column(column, justify="left" if left else "right")
        for row in rows:
            table.add_row(*[f"{v:,}" if isinstance(v, int) else printable(v) for v in row])
        console.print(table)


def _make_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool], tight: bool
) -> Any:
    """A table with lines around its cells; a tight one has none, and spends one column between them."""
    from rich import box
    from rich.table import Table

    style: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": 0} if tight else {}
    made = Table(title=title, title_justify="left", title_style="bold", **style)
    for column, numbers in zip(columns, right, strict=True):
        made.add_column(column, justify="right" if numbers else "left")
    for row in rows:
        made.add_row(*row)
    return made


def _plain(value: Any) -> Any:
    """JSON form of what json does not know: numpy scalars and arrays, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.removeprefix("-")[:1].isdigit())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(value)
