"""From raw ramps to the products that the searches need: the pipeline's first stage over many exposures.

1. Raw files are opened and checked; each is one exposure with a root of its own.
2. Reference files: CRDS, the named ones, or those of the simulation (written beside the products).
3. The key of an exposure is the hash of all that decides its products: the content of the raw file and of the named
   reference files, the parameters, the versions of the pipeline, the CRDS context. It stands in the record beside
   the products (``<root>_prepare.json``) with their hashes; where key and hashes agree, nothing is done.
4. The others are run in worker processes (:mod:`badpix.raw.prepare_worker`), each in a private folder. Products are
   renamed into their places when the exposure is done, under a record that says so before and after: a run that
   is killed is taken up again by the next one.
5. One exposure's failure does not stop the others; all failures are told at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from badpix import __version__, exposures
from badpix.errors import DataError, UsageError
from badpix.output import TEMPORARY, check_directory, write_text
from badpix.provenance import hash_inputs
from badpix.raw import prepare_worker
from badpix.raw.prepare_worker import Job, Outcome
from badpix.settings.prepare import REFERENCE_TYPES

PACKAGES = ("jwst", "stcal", "stdatamodels", "stpipe", "crds")
NEEDED = ("gain", "readnoise")  # without them there are neither jumps nor slopes
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


@dataclass
class Task:
    """One exposure: the job for the worker, and the part of its record that is known before."""

    job: Job
    record: dict[str, Any]
    place: Path

    @property
    def record_path(self) -> Path:
        """Where its record stands."""
        return self.place / f"{self.job.root}_prepare.json"

    def target(self, product: str) -> Path:
        """Where a product goes."""
        return self.place / f"{self.job.root}_{product}.fits"


def prepare_all(
    files: Sequence[Path],
    p: Mapping[str, Any],
    directory: str | Path,
    *,
    overwrite: bool = False,
    skip_bad: bool = False,
    workers: int = 1,
    executor: Executor | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda message: None,
    detail: Callable[[str], None] = lambda message: None,
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
    tick : callable
        Told how many of all steps are done.
    say, detail : callable
        Told what is done with the exposures; told each step that begins.

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
        raws = open_raws(files, unpacked, out, skip_bad)
    crds_mode = _mode(raws, p) == "crds"
    with _pool(workers, executor) as (pool, messages):
        context = _ask(pool, crds_mode, p) if crds_mode else "N/A"
        tasks = make_tasks(raws, p, place, context)
        todo = [task for task in tasks if not _is_ready(task)]
        for task in todo:
            _check_targets(task, overwrite)
        out.reused = [task.job.root for task in tasks if task not in todo]
        if out.reused:
            say(f"{len(out.reused)} of {len(tasks)} exposures are ready and unchanged")
        if todo:
            if not crds_mode:
                _ask(pool, False, p)
            _write_references(todo)
            _run(pool, messages, todo, out, tick, say, detail)
    _collect([task for task in tasks if task.job.root in {*out.reused, *out.done}], out)
    if out.failed and not skip_bad:
        lines = "; ".join(f"{path.name}: {why}" for path, why in out.failed)
        ready = len(out.done) + len(out.reused)
        raise DataError(f"{len(out.failed)} of {len(files)} exposures failed ({ready} are ready): {lines}")
    if not out.records:
        raise DataError(f"none of the {len(files)} exposures can be used: {out.failed[0][0]}: {out.failed[0][1]}")
    return out


def find_ready(
    files: Sequence[Path], p: Mapping[str, Any], directory: str | Path, skip_bad: bool = False
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
        raws = open_raws(files, unpacked, out, skip_bad)
    crds_mode = _mode(raws, p) == "crds"
    context = os.environ.get("CRDS_CONTEXT", "") if crds_mode else "N/A"
    if not raws or not place.is_dir() or not context:
        return None
    tasks = make_tasks(raws, p, place, context)
    if not all(_is_ready(task) for task in tasks):
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


# --- 1. raw files ----------------------------------------------------------------------------------------


def open_raws(files: Sequence[Path], unpacked: Path, out: Prepared, skip_bad: bool) -> list[exposures.Exposure]:
    """The usable raw exposures; the others go to ``out.failed``.

    Raises
    ------
    DataError
        If a file can't be used (unless ``skip_bad``), or two exposures have one root.
    UsageError
        If there is no file.
    """
    if not files:
        raise UsageError("no raw exposures")
    found: dict[str, exposures.Exposure] = {}
    for path in files:
        try:
            raw = exposures.open_exposure(path, unpacked, ["SCI"])
            _check_raw(raw)
        except DataError as error:
            if not skip_bad:
                raise
            out.failed.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        root = Job(path, path, ()).root
        if root in found:
            raise DataError(f"{path}: has the same name as {found[root].path}; their products would be one file")
        found[root] = raw
    return list(found.values())


def _check_raw(raw: exposures.Exposure) -> None:
    if raw.kind != "uncal" or len(raw["SCI"].shape) != 4:
        raise DataError(f"{raw.path}: is a {raw.kind} file, expected raw ramps (uncal: integers, 4 axes)")
    for keyword in ("INSTRUME", "DETECTOR", "EXP_TYPE", "READPATT"):
        raw.keyword(keyword)
    for keyword, count in zip(("NINTS", "NGROUPS"), raw["SCI"].shape[:2], strict=True):
        if raw.number(keyword) != count:
            raise DataError(f"{raw.path}: {keyword} = {raw.number(keyword)}, but SCI holds {count}")
    if raw["SCI"].shape[1] < 2:
        raise DataError(f"{raw.path}: NGROUPS = 1, expected at least 2: there is no slope")


# --- 2. reference files ----------------------------------------------------------------------------------


def is_simulated(raw: exposures.Exposure) -> bool:
    """Whether an exposure comes from ``badpix simulate``."""
    maker = str(raw.header.get("SDP_VER", ""))
    return maker.startswith("badpix") and "simulation" in maker


def find_recipe(raw: exposures.Exposure) -> Path:
    """The parameters of the simulation that made an exposure: in its folder or the one above.

    Raises
    ------
    DataError
        If they are not there.
    """
    name = f"{str(raw.keyword('DETECTOR')).lower()}_simulate.yml"
    for folder in (raw.path.resolve().parent, raw.path.resolve().parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{raw.path}: {name} is neither beside it nor in the folder above, so the simulation's reference files can't "
        "be made; name them (--references named --override-gain FILE ...)"
    )


def _mode(raws: Sequence[exposures.Exposure], p: Mapping[str, Any]) -> str:
    if p["references"] != "auto":
        return str(p["references"])
    return "simulation" if raws and all(is_simulated(raw) for raw in raws) else "crds"


def _named(p: Mapping[str, Any]) -> dict[str, str]:
    """The reference files that the user names.

    Raises
    ------
    UsageError
        If one does not exist.
    """
    found = {}
    for name in REFERENCE_TYPES:
        path = p[f"override_{name}"]
        if path:
            if not Path(path).is_file():
                raise UsageError(f"override_{name}: {path}: no such file")
            found[name] = str(Path(path).resolve())
    return found


def _simulated_references(recipe: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """Folder and files of a simulation's reference files, not yet written."""
    from badpix.simulation.reference_files import MODEL_OF

    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()[:8]
    detector = recipe.name.removesuffix("_simulate.yml")
    folder = (place / "references" / digest).resolve()
    return folder, {reftype: str(folder / f"{detector}_{reftype}.fits") for reftype in MODEL_OF}


def _write_references(tasks: Sequence[Task]) -> None:
    """Write the reference files of simulated detectors that are not there yet."""
    for recipe in {task.job.recipe for task in tasks if task.job.recipe}:
        folder, files = _simulated_references(recipe, tasks[0].place)
        if all(Path(f).is_file() for f in files.values()):
            continue
        from badpix.simulate import make_scene
        from badpix.simulation.files import make_recipe, read_parameters
        from badpix.simulation.reference_files import write_reference_files

        write_reference_files(folder, make_scene(make_recipe(read_parameters(recipe))), overwrite=True)


# --- 3. keys and records ---------------------------------------------------------------------------------


def make_tasks(raws: Sequence[exposures.Exposure], p: Mapping[str, Any], place: Path, context: str) -> list[Task]:
    """What is to be done with each exposure, and under which key.

    Raises
    ------
    UsageError
        If jumps and slopes lack a reference file.
    """
    mode, named = _mode(raws, p), _named(p)
    hashes = {i.path: i.sha256 for i in hash_inputs([r.path for r in raws] + [Path(f) for f in named.values()])}
    tasks = []
    for raw in raws:
        recipe = find_recipe(raw) if mode == "simulation" else None
        made = _simulated_references(recipe, place)[1] if recipe else {}
        references = {**made, **named}
        missing = [name for name in NEEDED if name not in references]
        if mode != "crds" and missing:
            raise UsageError(f"references: {mode}: jumps and slopes need override_{missing[0]}")
        job = Job(
            raw.path.resolve(),
            place.resolve() / f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            tuple(p["products"]),
            references,
            mode == "crds",
            {name: dict(values) for name, values in p["steps"].items()},
            _skipped(raw, p),
            p["known_flags"] == "clear",
            p["fitopt_segments"],
            recipe,
        )
        record = {
            "program": "badpix prepare",
            "input": {"file": raw.path.name, "sha256": hashes[raw.path]},
            "parameters": {k: v for k, v in p.items() if not k.startswith("override_") and k != "directory"},
            "skip": list(job.skip),
            "references": mode,
            "named": {k: hashes[Path(f)] for k, f in named.items()},
            "simulation": hashlib.sha256(recipe.read_bytes()).hexdigest() if recipe else None,
            "versions": {"badpix": __version__, **pipeline_versions()},
            "context": context,
        }
        text = json.dumps(record, sort_keys=True, default=str)
        record["key"] = hashlib.sha256(text.encode()).hexdigest()
        tasks.append(Task(job, record, place))
    return tasks


def _skipped(raw: exposures.Exposure, p: Mapping[str, Any]) -> tuple[str, ...]:
    """Steps to leave out for this exposure; dark subtraction depends on what it is."""
    is_dark = "DARK" in str(raw.keyword("EXP_TYPE")).upper()
    wanted = p["subtract_dark"] == "always" or (p["subtract_dark"] == "flats" and not is_dark)
    extra = [] if wanted or "dark_current" in p["skip"] else ["dark_current"]
    return (*p["skip"], *extra)


def pipeline_versions() -> dict[str, str]:
    """Versions of the pipeline's packages, without importing them."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of an exposure; None where there is none (or none of ours)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("program") == "badpix prepare" else None


def _is_ready(task: Task) -> bool:
    """Whether all products are there, under the same key, with the bytes that were written."""
    record = read_record(task.record_path)
    if record is None or record.get("key") != task.record["key"] or record.get("state") != "done":
        return False
    paths = [task.place / product["file"] for product in record["products"].values()]
    if not all(path.is_file() for path in paths):
        return False
    found = [i.sha256 for i in hash_inputs(paths)]
    return found == [product["sha256"] for product in record["products"].values()]


def _check_targets(task: Task, overwrite: bool) -> None:
    """Make sure that nothing is replaced unasked: products of an unfinished run of the same key are our own.

    Raises
    ------
    UsageError
        If a product is there that was made otherwise.
    """
    record = read_record(task.record_path)
    if overwrite or (record and record.get("key") == task.record["key"]):
        return
    why = _difference(record, task.record) if record else "was not made by badpix prepare"
    for product in task.job.products:
        path = task.target(product)
        if product != "uncal" and path.exists():
            raise UsageError(f"{path}: exists and {why}; give --overwrite to replace it")


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two records, in words."""
    for part, meaning in (
        ("input", "from another raw file"),
        ("parameters", "with other parameters"),
        ("skip", "with other steps"),
        ("versions", "with other versions"),
        ("context", "with another CRDS context"),
    ):
        before, now = old.get(part), json.loads(json.dumps(new[part], default=str))
        if before != now:
            if isinstance(now, dict) and isinstance(before, dict):
                names = [k for k in now if before.get(k) != now[k]]
                detail = ", ".join(f"{k}: {before.get(k)} then, {now[k]} now" for k in names if k != "sha256")
                return f"was made {meaning}" + (f" ({detail})" if detail else "")
            return f"was made {meaning} ({before} then, {now} now)"
    return "was made with other reference files, or has changed since"


# --- 4. running ------------------------------------------------------------------------------------------


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


def _ask(pool: Executor, ask_crds: bool, p: Mapping[str, Any]) -> str:
    """Let a worker check the steps' parameters; returns the CRDS context."""
    return pool.submit(prepare_worker.describe, ask_crds, p["steps"], tuple(p["skip"])).result()


def _run(
    pool: Executor,
    messages: Any,
    tasks: Sequence[Task],
    out: Prepared,
    tick: Callable[[int, int], None],
    say: Callable[[str], None],
    detail: Callable[[str], None],
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
            _listen(messages, steps, detail)
            for future in ready:
                task = running.pop(future)
                _finish(task, _outcome(future, task), out, say, time.monotonic() - begun)
                steps[task.job.root] = (1, 1)
            tick(int(100 * sum(done / total for done, total in steps.values())), 100 * len(steps))
    finally:
        for task in tasks:
            shutil.rmtree(task.job.workdir, ignore_errors=True)


def _listen(messages: Any, steps: dict[str, tuple[int, int]], say: Callable[[str], None]) -> None:
    """Take what the workers have said about their steps."""
    if messages is None:
        return
    while not messages.empty():
        root, number, total, name = messages.get()
        steps[root] = (min(number, total), total)
        say(f"{root}: {name}")


def _outcome(future: Future[Outcome], task: Task) -> Outcome:
    """What a worker returned; a worker that died is a failure of its exposure."""
    try:
        return future.result()
    except BrokenProcessPool:
        why = "the worker process died (out of memory?); try fewer --workers"
        return Outcome(error=f"{task.job.uncal}: {why}")
    except OSError as error:
        return Outcome(error=f"{task.job.uncal}: {error}")


def _finish(task: Task, outcome: Outcome, out: Prepared, say: Callable[[str], None], seconds: float) -> None:
    """Publish the products of an exposure, or note its failure; the log is kept in both cases."""
    log = task.job.workdir / f"{task.job.root}_prepare.log"
    if log.is_file():
        os.replace(log, task.place / log.name)
    if outcome.error:
        out.failed.append((task.job.uncal, outcome.error.removeprefix(f"{task.job.uncal}: ")))
        say(f"{task.job.root}: failed; see {task.place / log.name}")
        return
    try:
        publish(task, outcome, seconds)
    except OSError as error:
        out.failed.append((task.job.uncal, f"not written: {error.strerror or error}"))
        return
    out.done.append(task.job.root)
    say(f"{task.job.root}: done")


def publish(task: Task, outcome: Outcome, seconds: float) -> None:
    """Rename the products of an exposure into their places, between two states of its record."""
    hashes = hash_inputs(list(outcome.files.values()))
    products = {
        name: {"file": task.target(name).name, "sha256": i.sha256, "size": i.size}
        for name, i in zip(outcome.files, hashes, strict=True)
    }
    record = {
        **task.record,
        "state": "unfinished",
        "products": products,
        "reference_files": outcome.references,
        "context_used": outcome.context,
        "steps": outcome.steps,
        "seconds": round(seconds, 1),
        "peak_memory_mb": outcome.peak_memory_mb,
    }
    write_text(task.record_path, json.dumps(record, indent=1, default=str) + "\n", overwrite=True)
    for name, path in outcome.files.items():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        os.replace(path, task.target(name))
    if "uncal" in task.job.products:
        _link(task.job.uncal, task.place)
    record["state"] = "done"
    write_text(task.record_path, json.dumps(record, indent=1, default=str) + "\n", overwrite=True)


def _link(uncal: Path, place: Path) -> None:
    """A relative link to the raw file beside its products, where none is."""
    link = place / uncal.name
    if link.is_symlink() and not link.exists():
        link.unlink()
    if not link.exists():
        link.symlink_to(os.path.relpath(uncal, place.resolve()))


def _collect(tasks: Sequence[Task], out: Prepared) -> None:
    """Files and records of all exposures that are ready."""
    for task in sorted(tasks, key=lambda t: t.job.root):
        record = read_record(task.record_path) or {}
        out.records.append(record)
        for name, product in record.get("products", {}).items():
            out.products.setdefault(name, []).append(task.place / product["file"])


def sweep(place: Path) -> None:
    """Remove the private folders of runs on this machine that are no longer alive."""
    host = socket.gethostname()
    for folder in place.glob(f"{TEMPORARY}{host}-*-*"):
        pid = folder.name.removeprefix(f"{TEMPORARY}{host}-").split("-")[0]
        if folder.is_dir() and pid.isdigit() and int(pid) != os.getpid() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
