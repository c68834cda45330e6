"""Many detectors, unattended: each in a process of its own, so that one can fail, crash or run out of memory alone.

1. A quick look in this process tells which detectors have anything to do; the others cost milliseconds.
2. The rest are worked on in child processes, some at once. A child ends with its parent, however that ends.
3. What a child says goes to its log file and to the parent; what became of it comes back through a pipe. A child
   that dies without a word is reported with the signal that killed it; one that takes longer than `max_hours` is
   ended.
4. Nothing that goes wrong with one detector stops the others. A failure leaves a record beside its log. The exit
   status of the run is the highest of all detectors.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from badpix.errors import BadpixError
from badpix.io.output import write_text
from badpix.io.workers import peak_memory
from badpix.rebuild import driver as rebuild_driver
from badpix.rebuild import record, shelf
from badpix.rebuild.driver import EXIT, Outcome
from badpix.rebuild.jobs import Job
from badpix.rebuild.searches import Options

POLL = 1.0  # seconds between looks at the clock
GRACE = 10.0  # seconds in which a child that is done, or was asked to end, must be gone

log = logging.getLogger(__name__)


def run(jobs: Sequence[Job], options: Options, at_once: int) -> list[Outcome]:
    """Bring the masks of all jobs up to date.

    Parameters
    ----------
    jobs : sequence of Job
        One for each detector.
    options : Options
        For all of them; ``workers`` and ``max_memory`` are shared out among the detectors that are worked on at once.
    at_once : int
        How many detectors at once.

    Returns
    -------
    list of Outcome
        In the order of the jobs.
    """
    done: dict[Path, Outcome] = {}
    for job in jobs if not options.force else ():
        outcome = _look(job)
        if outcome is not None:
            done[job.folder] = outcome
            log.info(f"{job.detector}: nothing to do")
    todo = [job for job in jobs if job.folder not in done]
    at_once = max(1, min(at_once, len(todo)))
    memory = None if options.max_memory is None else options.max_memory // at_once
    share = replace(options, workers=max(1, options.workers // at_once), max_memory=memory)
    running: list[Any] = []
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(_start_child, job, share, running) for job in todo]
        try:
            for job, future in zip(todo, futures, strict=True):
                try:
                    done[job.folder] = future.result()
                except Exception as error:  # of the supervision itself: no process, no pipe
                    done[job.folder] = _unsupervised(job, error)
        except BaseException:
            for future in futures:
                future.cancel()
            for child in running:
                child.terminate()
            raise
    return [done[job.folder] for job in jobs]


def _look(job: Job) -> Outcome | None:
    """The outcome where nothing has changed; None where a closer look is needed (also to fail with a record)."""
    begun = time.monotonic()
    try:
        if not rebuild_driver.is_current(job):
            return None
        now = shelf.current(job.folder)
        mask = shelf.mask_of(now) if now else None
    except Exception:  # the child will look again, and fail with a record
        return None
    return Outcome(job.detector, "unchanged", mask=mask, seconds=round(time.monotonic() - begun, 3))


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The highest status: 3 (refused by a check) over 2 (YAML) over 1 (data) over 0."""
    return max((o.exit_code for o in outcomes), default=0)


def count(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many detectors came to which end."""
    names = ("rebuilt", "unchanged", "rejected", "failed")
    return {name: sum(o.status == name for o in outcomes) for name in names}


def write_status(path: str | Path, word: str, counts: Mapping[str, int], code: int | None, seconds: float) -> None:
    """One line for monitoring: time, OK or FAILED or RUNNING, counts, exit status, duration, host and process."""
    parts = [record.now(), word, *(f"{k}={v}" for k, v in counts.items())]
    parts += [f"exit={code}"] if code is not None else []
    where = record.surroundings()
    line = " ".join([*parts, f"seconds={seconds:.1f}", f"host={where['host']}", f"pid={where['pid']}"])
    write_text(path, line + "\n", overwrite=True)


# --- the parent's side ---------------------------------------------------------------------------------------


def _start_child(job: Job, options: Options, running: list[Any]) -> Outcome:
    """Run one detector in a process and wait for it."""
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(job, options, theirs), name=job.detector)
    child.start()
    theirs.close()
    running.append(child)
    outcome = None
    hours = job.policy.max_hours
    end = time.monotonic() + 3600 * hours
    with ours, suppress(EOFError, OSError):
        while outcome is None:
            if not ours.poll(max(0.0, min(end - time.monotonic(), POLL))):
                if time.monotonic() < end:
                    continue
                return _overdue(job, child, hours)
            content = ours.recv()
            if isinstance(content, Outcome):
                outcome = content
            else:
                level, text = content
                log.log(level, f"{job.detector}: {text}")
    child.join(None if outcome is None else GRACE)
    if child.is_alive():  # all is done and told; a library's thread keeps it from ending
        child.kill()
        child.join()
    return outcome or _died(job, child.exitcode or 0)


def _overdue(job: Job, child: Any, hours: float) -> Outcome:
    """A child that took too long: asked to end, so that it cleans up, and killed if it does not."""
    child.terminate()
    child.join(GRACE)
    if child.is_alive():
        child.kill()
        child.join()
    return _failed(job, f"not done after {hours:g} hours (max_hours): ended; the current mask is as it was")


def _unsupervised(job: Job, error: Exception) -> Outcome:
    return _failed(job, f"its process could not be run: {type(error).__name__}: {error}")


def _died(job: Job, code: int) -> Outcome:
    """A child that ended without a word: killed, or out of memory."""
    name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    hint = " (out of memory? try a smaller --max-memory or fewer --workers)" if code == -signal.SIGKILL else ""
    return _failed(job, f"its process was ended by {name}{hint}; the current mask is as it was")


def _failed(job: Job, reason: str) -> Outcome:
    """A failure that the child could not report itself."""
    begun = record.now()
    path = _note_failure(job, shelf.stamp() + f"_{os.getpid()}", reason, begun, 1, 0.0)
    return Outcome(job.detector, "failed", [reason], record=path, exit_code=1)


# --- the child's side ----------------------------------------------------------------------------------------


def _child(job: Job, options: Options, pipe: Connection) -> None:
    """One detector: its log, its outcome."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    name = f"{shelf.stamp()}_{os.getpid()}"
    file = job.folder / shelf.LOGS / f"{name}.log"
    library = logging.getLogger("badpix")
    library.setLevel(logging.INFO)
    library.addHandler(_ToParent(file, pipe))
    outcome = work(job, options, name)
    _log(
        file,
        f"{outcome.status}: {'; '.join(outcome.reasons) or outcome.mask}; {outcome.seconds} s, exit "
        f"{outcome.exit_code}",
    )
    with suppress(OSError):
        pipe.send(outcome)


class _ToParent(logging.Handler):
    """Messages of the library: into the detector's log, and through the pipe to the parent, as (level, text)."""

    def __init__(self, file: Path, pipe: Connection) -> None:
        super().__init__()
        self.file, self.pipe = file, pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Write and send one message; a parent that is gone hears nothing."""
        text = record.getMessage()
        _log(self.file, f"note: {text}" if record.levelno >= logging.WARNING else text)
        with suppress(OSError):
            self.pipe.send((record.levelno, text))


def work(job: Job, options: Options, name: str) -> Outcome:
    """One detector, with every failure turned into an outcome and a record ``logs/<name>_record.json``."""
    begun, started = time.monotonic(), record.now()
    log.info(f"rebuild from {job.source}")
    try:
        return _measured(rebuild_driver.rebuild(job, options))
    except BadpixError as error:
        reason, code = str(error), error.exit_code
    except MemoryError:
        reason, code = "out of memory; give a smaller --max-memory or fewer --workers", 1
    except Exception as error:
        reason, code = f"internal error: {type(error).__name__}: {error}; please report it", 1
        _log(job.folder / shelf.LOGS / f"{name}.log", traceback.format_exc())
    seconds = round(time.monotonic() - begun, 2)
    reason = reason.removeprefix(f"{job.detector}: ")  # whoever tells of an outcome names its detector
    path = _note_failure(job, name, reason, started, code, seconds)
    return _measured(Outcome(job.detector, "failed", [reason], record=path, seconds=seconds, exit_code=code))


def _measured(outcome: Outcome) -> Outcome:
    outcome.peak_memory_mb = round(peak_memory() / 1e6, 1)
    outcome.exit_code = outcome.exit_code or EXIT.get(outcome.status, 1)
    return outcome


def _note_failure(job: Job, name: str, reason: str, started: str, code: int, seconds: float) -> Path | None:
    """The record of a failed run; a full disk may leave none, the status and the talk have the reason."""
    path = job.folder / shelf.LOGS / f"{name}{record.SUFFIX}"
    content = {
        "status": "failed",
        "detector": job.detector,
        "source": str(job.source),
        "started": started,
        "finished": record.now(),
        "seconds": seconds,
        "reasons": [reason],
        "exit": code,
        "peak_memory_mb": round(peak_memory() / 1e6, 1),
        "run": record.surroundings(),
    }
    with suppress(OSError, BadpixError):
        path.parent.mkdir(parents=True, exist_ok=True)
        record.write_record(path, content)
        return path
    return None


def _log(path: Path, message: str) -> None:
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(f"{record.now()} {message}\n")


def _end_with_parent() -> None:
    """End when the parent is gone: ask ourselves to clean up, and insist after a while."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
