"""From raw ramps to the products that the searches need: the pipeline's first stage over many exposures.

1. What is to be done with each exposure, and under which key (:mod:`badpix.prepare.tasks`).
2. Those whose record has that key, and whose products are as they were written, are ready
   (:mod:`badpix.prepare.records`).
3. The others are run in worker processes (:mod:`badpix.prepare.worker`), each in a private folder. Products are
   renamed into their places when the exposure is done.
4. One exposure's failure does not stop the others; all failures are told at the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from badpix.errors import DataError, UsageError
from badpix.io import exposure as exposures
from badpix.io.output import check_directory
from badpix.io.tasks import Progress, silent
from badpix.prepare import worker as prepare_worker
from badpix.prepare.records import check_targets, is_ready, publish, read_record, sweep
from badpix.prepare.tasks import Task, choose_mode, make_tasks, open_raws, write_references
from badpix.prepare.worker import Outcome
from badpix.settings.prepare import PrepareSettings, StepSettings

log = logging.getLogger(__name__)

INSTALL = "pip install 'badpix[pipeline]'"


@dataclass
class Prepared:
    """What a run did.

    Attributes
    ----------
    products : dict
        Product (``rate``, ``jump``, ...) -> files of all exposures that are ready, by name.
    done, reused : list of str
        Roots of the exposures that were run, and of those that were ready before.
    failed : list of (Path, str)
        Raw files without products, with the reason.
    records : list of dict
        The record of each exposure that is ready.
    """

    products: dict[str, list[Path]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)


def prepare_all(
    files: Sequence[Path],
    p: PrepareSettings,
    directory: str | Path,
    *,
    overwrite: bool = False,
    skip_bad: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Run the pipeline's first stage over raw exposures, as far as that is not done yet.

    Parameters
    ----------
    files : sequence of Path
        Raw ramps (``_uncal``); detectors may be mixed.
    p : mapping
        Checked values of ``settings.prepare``.
    directory : path
        Gets the products, ``<root>_<product>.fits``, a record and the pipeline's log for each exposure.
    overwrite : bool
        Replace products that are there but are not what would be made now.
    skip_bad : bool
        Leave out raw files that can't be used, and exposures that fail, instead of ending with an error.
    workers : int
        Worker processes; each needs a few times the size of a raw exposure in memory.
    executor : Executor, optional
        Where to run instead (a cluster); it must see ``directory`` and the raw files. One thread to a worker process.
    progress : callable
        Told how many of all steps are done.

    Raises
    ------
    UsageError
        If the pipeline is not installed, a step is unknown, or products would have to be replaced.
    DataError
        If exposures fail; those that don't are ready, and are not done again.
    """
    require_pipeline()
    place = check_directory(directory)
    sweep(place)
    out = Prepared()
    with exposures.unpacking() as unpacked:
        raws = open_raws(files, unpacked, out.failed, skip_bad)
    crds_mode = choose_mode(raws, p) == "crds"
    with _pool(workers, executor) as (pool, messages):
        context = _ask(pool, crds_mode, p) if crds_mode else "N/A"
        tasks = make_tasks(raws, p, place, context)
        todo = [task for task in tasks if not is_ready(task)]
        for task in todo:
            check_targets(task, overwrite)
        out.reused = [task.job.root for task in tasks if task not in todo]
        if out.reused:
            log.info(f"{len(out.reused)} of {len(tasks)} exposures are ready and unchanged")
        if todo:
            if not crds_mode:
                _ask(pool, False, p)
            write_references(todo)
            _run(pool, messages, todo, out, progress)
    _collect([task for task in tasks if task.job.root in {*out.reused, *out.done}], out)
    if out.failed and not skip_bad:
        lines = "; ".join(f"{path.name}: {why}" for path, why in out.failed)
        ready = len(out.done) + len(out.reused)
        raise DataError(f"{len(out.failed)} of {len(files)} exposures failed ({ready} are ready): {lines}")
    if not out.records:
        raise DataError(
            f"none of the {len(files)} exposures can be used; the first: {out.failed[0][0]}: {out.failed[0][1]}"
        )
    return out


def find_ready(
    files: Sequence[Path], p: PrepareSettings, directory: str | Path, skip_bad: bool = False
) -> Prepared | None:
    """The products of raw exposures, if all are ready and unchanged; None otherwise. The pipeline is not started.

    Where CRDS is asked its context must be named (CRDS_CONTEXT): what it would be today only the pipeline can tell.

    Raises
    ------
    DataError, UsageError
        As :func:`prepare_all`, for files that can't be used.
    """
    place, out = Path(directory), Prepared()
    with exposures.unpacking() as unpacked:
        raws = open_raws(files, unpacked, out.failed, skip_bad)
    crds_mode = choose_mode(raws, p) == "crds"
    context = os.environ.get("CRDS_CONTEXT", "") if crds_mode else "N/A"
    if not raws or not place.is_dir() or not context:
        return None
    tasks = make_tasks(raws, p, place, context)
    if not all(is_ready(task) for task in tasks):
        return None
    out.reused = [task.job.root for task in tasks]
    _collect(tasks, out)
    return out


def require_pipeline() -> None:
    """Make sure that the JWST pipeline is installed, without importing it.

    Raises
    ------
    UsageError
        With the command that installs it.
    """
    if find_spec("jwst") is None:
        raise UsageError(f"badpix prepare runs the JWST pipeline (package jwst), which is not installed: {INSTALL}")


@contextmanager
def _pool(workers: int, executor: Executor | None) -> Iterator[tuple[Executor, Any]]:
    """Where exposures are run, and the queue that their progress comes through (None for a cluster)."""
    if executor is not None:
        yield executor, None
        return
    context = get_context("spawn")
    messages = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=prepare_worker.connect, initargs=(messages,))
    try:
        yield pool, messages
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ask(pool: Executor, ask_crds: bool, p: StepSettings) -> str:
    """Let a worker check the steps' parameters; returns the CRDS context."""
    return pool.submit(prepare_worker.describe, ask_crds, p.steps, tuple(p.skip)).result()


def _run(
    pool: Executor,
    messages: Any,
    tasks: Sequence[Task],
    out: Prepared,
    progress: Progress,
) -> None:
    """Run all tasks; each is published as soon as it is done."""
    begun = time.monotonic()
    for task in tasks:
        task.job.workdir.mkdir()
    try:
        running: dict[Future[Outcome], Task] = {
            pool.submit(prepare_worker.run_exposure, task.job): task for task in tasks
        }
        steps = dict.fromkeys((task.job.root for task in tasks), (0, 1))
        while running:
            ready, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            _listen(messages, steps)
            for future in ready:
                task = running.pop(future)
                _finish(task, _outcome(future, task), out, time.monotonic() - begun)
                steps[task.job.root] = (1, 1)
            progress(int(100 * sum(done / total for done, total in steps.values())), 100 * len(steps))
    finally:
        for task in tasks:
            shutil.rmtree(task.job.workdir, ignore_errors=True)


def _listen(messages: Any, steps: dict[str, tuple[int, int]]) -> None:
    """Take what the workers have said about their steps."""
    if messages is None:
        return
    while not messages.empty():
        root, number, total, name = messages.get()
        steps[root] = (min(number, total), total)
        log.debug(f"{root}: {name}")


def _outcome(future: Future[Outcome], task: Task) -> Outcome:
    """What a worker returned; a worker that died is a failure of its exposure."""
    try:
        return future.result()
    except BrokenProcessPool:
        why = "the worker process died (out of memory?); try fewer --workers"
        return Outcome(error=f"{task.job.uncal}: {why}")
    except OSError as error:
        return Outcome(error=f"{task.job.uncal}: {error}")


def _finish(task: Task, outcome: Outcome, out: Prepared, seconds: float) -> None:
    """Publish the products of an exposure, or note its failure; the log is kept in both cases."""
    pipeline_log = task.job.workdir / f"{task.job.root}_prepare.log"
    if pipeline_log.is_file():
        os.replace(pipeline_log, task.place / pipeline_log.name)
    if outcome.error:
        out.failed.append((task.job.uncal, outcome.error.removeprefix(f"{task.job.uncal}: ")))
        log.info(f"{task.job.root}: failed; see {task.place / pipeline_log.name}")
        return
    try:
        publish(task, outcome, seconds)
    except OSError as error:
        out.failed.append((task.job.uncal, f"not written: {error.strerror or error}"))
        return
    out.done.append(task.job.root)
    log.info(f"{task.job.root}: done")


def _collect(tasks: Sequence[Task], out: Prepared) -> None:
    """Files and records of all exposures that are ready."""
    for task in sorted(tasks, key=lambda t: t.job.root):
        record = read_record(task.record_path) or {}
        out.records.append(record)
        for name, product in record.get("products", {}).items():
            out.products.setdefault(name, []).append(task.place / product["file"])
