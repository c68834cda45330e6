"""One detector, unattended: from what lies on disk to a better mask, or to a reason why not.

With the lock of the detector held:

1. Inputs are found; those still growing are waited for or left out (:func:`plan.settle`).
2. Their hashes, the parameters and the code give keys (:mod:`plan`). The current product has the same key: done.
3. A product with that key exists already (it was refused, or the run was killed before the link): it goes to step 6.
4. Searches (flats, darks) whose key is known are taken from the shelf, the others are made in a private folder.
5. Merge, evidence, report. If an input changed meanwhile, all starts again from step 1.
6. Gate: :mod:`check` against the current mask, with the limits of the section ``check``.
7. The product is renamed into place with its record, and becomes ``current`` or ``rejected``; old ones are forgotten.

A run that is killed anywhere leaves a private folder, which the next run removes, and a whole product.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from badpix import build, build_darks, check, crds, evidence, exposures, output, plan, record, shelf
from badpix.build import Product
from badpix.errors import BadpixError, DataError
from badpix.jobs import Job
from badpix.locks import hold
from badpix.plan import Plan
from badpix.provenance import hash_file
from badpix.workers import make_executor, peak_memory, peak_of_workers

ATTEMPTS = 3  # with inputs that change during the run
BASE_MEMORY = (
    150 << 20
)  # bytes of interpreter, libraries and full-frame images: the rest of --max-memory goes to bands
EXIT = {"unchanged": 0, "rebuilt": 0, "planned": 0, "rejected": 3}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How a run is made; nothing here changes a byte of the product."""

    force: bool = False
    accept: bool = False
    workers: int = 1
    dask: str | None = None
    max_memory: int = 256 << 20


@dataclass
class Outcome:
    """What became of one detector."""

    detector: str
    status: str
    reasons: list[str] = field(default_factory=list)
    mask: Path | None = None
    record: Path | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    exit_code: int = 0


class ChangedError(DataError):
    """Inputs changed while they were worked on."""


def is_current(job: Job) -> bool:
    """Whether nothing can have changed: the quick look, without lock, that opens no file but the record and the mask.

    False wherever it can't be told at once (files younger than `settle`, new or changed ones).
    """
    folder = job.folder
    now = shelf.current(folder)
    if now is None or (folder / shelf.REJECTED).is_symlink() or list(folder.glob(f"{shelf.WORK}*")):
        return False
    sources = plan.find_sources(job)
    facts = {s.path: os.stat(s.path) for s in sources}
    newest = max((max(f.st_mtime, f.st_ctime) for f in facts.values()), default=0.0)
    before = {(k["path"], k["size"], k["mtime_ns"], k["inode"]) for k in now["inputs"]}
    same = {(p, f.st_size, f.st_mtime_ns, f.st_ino) for p, f in facts.items()} == before
    if not same or time.time() - newest < job.policy["settle"]:
        return False
    linked = shelf.mask_of(now)
    beside = folder.parent / linked.name
    if not beside.exists() or (beside.is_symlink() and beside.resolve() != linked.resolve()):
        return False
    return plan.make_plan(job, sources, [], now, [now]).key == now["key"]


def preview(job: Job, force: bool = False) -> Outcome:
    """What a run would do now, and why; nothing is written."""
    folder = job.folder
    now, all_of_them = shelf.current(folder), shelf.products(folder)
    made = plan.make_plan(job, plan.find_sources(job), [], now, all_of_them)
    if not made.why and not force:
        return Outcome(job.detector, "unchanged", mask=shelf.mask_of(now) if now else None)
    if not force and any(p["key"] == made.key and shelf.is_whole(p) for p in all_of_them):
        return Outcome(job.detector, "planned", [*made.why, "would judge the product that is there again"])
    steps = [f"{'reuse' if _on_shelf(folder, job, s, made) and not force else 'build'} {s}" for s in job.stages] + [
        "merge"
    ]
    return Outcome(job.detector, "planned", [*(["forced"] if force else []), *made.why, f"would {', '.join(steps)}"])


def rebuild(job: Job, options: Options, say: Say) -> Outcome:
    """Bring the mask of one detector up to date.

    Raises
    ------
    DataError, UsageError
        If it can't be done; the current mask is as it was.
    """
    begun = time.monotonic()
    folder = shelf.prepare(job.folder)
    with hold(folder / shelf.LOCK, job.policy["lock_wait"], say), shelf.working(folder) as work:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                outcome = _attempt(job, options, work, begun, say)
                break
            except ChangedError as error:
                if attempt == ATTEMPTS:
                    raise
                say(f"{error}; starting again")
    outcome.seconds = round(time.monotonic() - begun, 2)
    return outcome


def _attempt(job: Job, options: Options, work: Path, begun: float, say: Say) -> Outcome:
    folder = job.folder
    sources, rejected = plan.settle(plan.find_sources(job), job.policy, say)
    now, known = shelf.current(folder), shelf.products(folder)
    made = plan.make_plan(job, sources, rejected, now, known, say)
    for stage, name, why in rejected:
        say(f"left out of {stage}: {Path(name).name}: {why}")
    if not made.why and not options.force:
        return _settled(job, now or {})
    say("why: " + "; ".join([*(["forced"] if options.force else []), *made.why]))
    there = [p for p in known if p["key"] == made.key and shelf.is_whole(p)]
    if there and not options.force:
        return _judge_again(job, there[-1], _against(now, known), options, say)
    content = _make(job, made, options, work, begun, say)
    _gate(job, work / "product" / content["outputs"][0]["name"], content, _against(now, known), options)
    _compare_bytes(content, there, say)
    return _put(job, content, work, say)


def _settled(job: Job, now: Mapping[str, Any]) -> Outcome:
    """Nothing to do; links are put right if a run was killed between them."""
    left = shelf.make_current(job.folder, now)
    return Outcome(job.detector, "unchanged", mask=_shown(job, now), notes=left, record=Path(now["path"]))


def _against(now: Mapping[str, Any] | None, known: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The product that a new one is compared with: the current one, else the newest accepted one that is whole."""
    accepted = [p for p in known if p["status"] == "accepted" and shelf.is_whole(p)]
    return now or (accepted[-1] if accepted else None)


def _compare_bytes(content: Mapping[str, Any], there: Sequence[Mapping[str, Any]], say: Say) -> None:
    """Equal keys must mean equal bytes; anything else is worth a loud word."""
    for product in there[-1:]:
        if product["outputs"][0]["sha256"] != content["outputs"][0]["sha256"]:
            say("note: the mask differs from the earlier one with the same key: please report it")


# --- making a product --------------------------------------------------------------------------------------


def _make(job: Job, made: Plan, options: Options, work: Path, begun: float, say: Say) -> dict[str, Any]:
    """Searches and merge into ``work/product``, and the content of the record."""
    started, memory = record.now(), 0
    with _private_scratch(work):
        todo = [s for s in job.stages if options.force or not _on_shelf(job.folder, job, s, made)]
        with make_executor(options.workers, options.dask) if todo else _no_executor() as executor:
            stages = {s: _stage(job, s, made, s in todo, executor, options, work, say) for s in job.stages}
            memory = max(memory, peak_of_workers())
    product = _merge(job, made, stages, work / "product", say)
    _still_the_same(made)
    rejected = [{"stage": s, "file": Path(f).name, "path": f, "reason": why} for s, f, why in made.rejected]
    rejected += [row for s in stages.values() for row in s["rejected"]]
    content = {
        "status": "made",
        "detector": job.detector,
        "source": str(job.source),
        "started": started,
        **plan.as_record(made),
        "rejected": rejected,
        "parameters": {n: plan.as_text(job, n) for n in (*job.stages, "merge", "reference", "check")},
        "versions": plan.versions(),
        "searches": {name: row for s in stages.values() for name, row in s["searches"].items()},
        "flags": product.flags,
        "science_pixels": product.science_pixels,
        "notes": [*(n for s in stages.values() for n in s["notes"]), *product.notes],
        "stages": {n: {k: s[k] for k in ("key", "reused", "seconds")} for n, s in stages.items()},
        "workers": options.workers,
        "dask": options.dask,
        "run": record.surroundings(),
    }
    content["outputs"] = shelf.describe_outputs(work / "product", product.path.name)
    content["seconds"] = round(time.monotonic() - begun, 2)
    content["peak_memory_mb"] = round(peak_memory() / 1e6, 1)
    content["worker_memory_mb"] = round(memory / 1e6, 1)
    return content


@contextmanager
def _no_executor() -> Iterator[None]:
    yield None


@contextmanager
def _private_scratch(work: Path) -> Iterator[None]:
    """Compressed inputs are unpacked into the private folder, unless the user chose a place (TMPDIR)."""
    before = tempfile.tempdir
    if not os.environ.get("TMPDIR"):
        tempfile.tempdir = str(work)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _on_shelf(folder: Path, job: Job, stage: str, made: Plan) -> dict[str, Any] | None:
    """What is known about a search that was made earlier with the same key, None where it must be made."""
    mask = folder / shelf.STAGES / shelf.stage_name(job.detector, stage, made.keys[stage])
    found = record.read_json(mask.with_suffix(".json"))
    if not found or found.get("key") != made.keys[stage] or not mask.is_file():
        return None
    beside = evidence.path_beside(mask)
    whole = hash_file(mask) == found["sha256"] and (not job.policy["evidence"] or beside.is_file())
    return found if whole else None


def _stage(
    job: Job,
    stage: str,
    made: Plan,
    build_it: bool,
    executor: Executor | None,
    options: Options,
    work: Path,
    say: Say,
) -> dict[str, Any]:
    """One search: from the shelf, or made and put there."""
    name = shelf.stage_name(job.detector, stage, made.keys[stage])
    if not build_it:
        found = _on_shelf(job.folder, job, stage, made)
        if found is None:
            raise ChangedError(f"{name}: vanished from the shelf")
        say(f"{stage}: reused ({name})")
        return {**found, "reused": True, "seconds": 0.0}
    begun = time.monotonic()
    rates, wrong = _of_detector(job, made.paths(stage, "rate"))
    say(f"{stage}: {len(rates)} exposures")
    room = max(8 << 20, options.max_memory - BASE_MEMORY)
    try:
        product = STAGES[stage](job, made, rates, work / name, executor, room, options, say)
    except BadpixError:
        _still_the_same(made)
        raise
    _still_the_same(made)
    rejected = wrong + [
        (name, str(p.get(name, name)), why) for p in [_by_name(rates)] for name, why in product.rejected
    ]
    _check_rejected(job, stage, rejected, len(rates) + len(wrong), [r for r in made.rejected if r[0] == stage])
    about = {
        "key": made.keys[stage],
        "sha256": hash_file(product.path),
        "rejected": [{"stage": stage, "file": n, "path": p, "reason": why} for n, p, why in rejected],
        "searches": product.summary()["searches"],
        "notes": product.notes,
    }
    _shelve(job, product, about)
    seconds = round(time.monotonic() - begun, 2)
    say(f"{stage}: {', '.join(f'{k} {v:,}' for k, v in product.searches.items())}; {seconds} s")
    return {**about, "reused": False, "seconds": seconds}


def _by_name(rates: Sequence[Path]) -> dict[str, Path]:
    return {r.name: r for r in rates}


def _of_detector(job: Job, rates: Sequence[Path]) -> tuple[list[Path], list[tuple[str, str, str]]]:
    """Exposures of the job's detector, and those of others; what can't be read is left to the search to judge."""
    good, wrong = [], []
    for path in rates:
        try:
            found = None if path.name.endswith(".gz") else exposures.open_exposure(path).header.get("DETECTOR")
        except DataError:
            found = None
        if found in (None, job.detector):
            good.append(path)
        elif job.policy["skip_bad"]:
            wrong.append((path.name, str(path), f"DETECTOR = {found!r}, expected {job.detector!r}"))
        else:
            raise DataError(f"{path}: DETECTOR = {found!r}, expected {job.detector!r}")
    if not good:
        raise DataError(f"{job.source}: none of the {len(rates)} exposures is of {job.detector}")
    return good, wrong


def _check_rejected(
    job: Job,
    stage: str,
    rejected: Sequence[tuple[str, str, str]],
    opened: int,
    before: Sequence[tuple[str, str, str]],
) -> None:
    """Too many exposures left out mean that something is wrong with the data, not with single files."""
    bad, total = len(rejected) + len(before), opened + len(before)
    if bad > job.policy["max_rejected_fraction"] * total:
        name, why = (rejected[0][0], rejected[0][2]) if rejected else (Path(before[0][1]).name, before[0][2])
        raise DataError(
            f"{stage}: {bad} of {total} exposures had to be left out, more than max_rejected_fraction = "
            f"{job.policy['max_rejected_fraction']:g}; the first: {name}: {why}"
        )


def _shelve(job: Job, product: Product, about: Mapping[str, Any]) -> None:
    """Put the mask of a search where later runs find it; its JSON comes last and makes it whole."""
    place = job.folder / shelf.STAGES
    for path in (product.evidence, product.path):
        if path is not None:
            os.replace(path, place / path.name)
    output.write_text((place / product.path.name).with_suffix(".json"), record.as_json(about), overwrite=True)


def _still_the_same(made: Plan) -> None:
    moved = plan.find_moved(made.inputs)
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        raise ChangedError(f"{moved[0]}{more}: changed during the run")


def _build_flats(
    job: Job,
    made: Plan,
    rates: Sequence[Path],
    target: Path,
    executor: Executor | None,
    room: float,
    options: Options,
    say: Say,
) -> Product:
    return build.build_flats(
        rates,
        job.values["flats"],
        _stage_texts(job),
        target,
        uncals=made.paths("flats", "uncal"),
        overwrite=True,
        with_evidence=job.policy["evidence"],
        skip_bad=job.policy["skip_bad"],
        executor=executor,
        memory=room / options.workers,
    )


def _build_darks(
    job: Job,
    made: Plan,
    rates: Sequence[Path],
    target: Path,
    executor: Executor | None,
    room: float,
    options: Options,
    say: Say,
) -> Product:
    named = {role: made.paths("darks", role) for role in plan.COMPANIONS["darks"] if job.inputs["darks"].get(role)}
    return build_darks.build_darks(
        rates,
        job.values["darks"],
        _stage_texts(job),
        target,
        named=named,
        overwrite=True,
        with_evidence=job.policy["evidence"],
        skip_bad=job.policy["skip_bad"],
        executor=executor,
        memory=room,
        say=say,
    )


STAGES = {"flats": _build_flats, "darks": _build_darks}


def _stage_texts(job: Job) -> dict[str, Any]:
    """Texts of the mask of one search: the neutral ones, so that a new author does not repeat a search.

    What the exposures can't tell (match keys, a pedigree without dates) is the job's own.
    """
    neutral = {"author": None, "descrip": None, "history": None, "document": None, "differences": None}
    return {**job.values["reference"], **neutral}


def _merge(job: Job, made: Plan, stages: Mapping[str, Any], place: Path, say: Say) -> Product:
    """All masks of the job in one."""
    names = [shelf.stage_name(job.detector, s, made.keys[s]) for s in stages]
    files = [job.folder / shelf.STAGES / n for n in names] + made.paths("merge", "masks")
    manual = [str(p) for p in made.paths("merge", "manual")]
    p = {**job.values["merge"], "masks": [f.name for f in files], "manual": manual}
    texts = job.values["reference"]
    starts = [
        str(crds.read_mask(f).header.get("USEAFTER", "")) for f in files[: len(names)] or files[:1]
    ]  # of the first exposure of each search
    target = place / build.fill_name(Path(Path(job.output).name), {"DATE-OBS": min(starts)})
    product = build.build_merge(files, p, texts, target, overwrite=True, with_evidence=job.policy["evidence"])
    found = crds.read_mask(product.path).detector
    if found != job.detector:
        raise DataError(f"{job.source}: the masks are of {found}, expected {job.detector}")
    say(f"merge: {product.flags.get('any', 0):,} of {product.science_pixels:,} science pixels flagged")
    return product


# --- the gate ----------------------------------------------------------------------------------------------


def _gate(job: Job, mask: Path, content: dict[str, Any], against: Mapping[str, Any] | None, options: Options) -> None:
    """Judge a mask; status and reasons go into the record's content."""
    old = shelf.mask_of(against) if against else None
    result = check.check_mask(mask, job.values["check"], against=old)
    stops = ("error", "warning") if job.values["check"]["strict"] else ("error",)
    faults = [f for f in result.faults if f.severity in stops]
    accepted = [f for f in faults if f.rule == "jump"] if options.accept else []
    content["check"] = result.summary()
    content["check"]["mask"] = mask.name
    content["previous"] = {"product": shelf.place_of(against).name, "key": against["key"]} if against else None
    content["reasons"] = [f"{f.rule}: {f.message}" for f in faults if f not in accepted]
    content["accepted_by_hand"] = [f"{f.rule}: {f.message}" for f in accepted]
    content["status"] = "rejected" if content["reasons"] else "accepted"


def _judge_again(
    job: Job, product: dict[str, Any], against: Mapping[str, Any] | None, options: Options, say: Say
) -> Outcome:
    """The gate for a product that was made earlier: limits may have changed, or a person accepts it."""
    say(f"the product of {product['finished']} has the same key: not made again, judged again")
    content = {k: v for k, v in product.items() if k != "path"}
    _gate(job, shelf.mask_of(product), content, against if against != product else None, options)
    content["judged"] = record.now()
    record.write_record(Path(product["path"]), content)
    return _finish(job, {**content, "path": product["path"]}, say)


def _put(job: Job, content: dict[str, Any], work: Path, say: Say) -> Outcome:
    """Record, rename into place, links."""
    content["finished"] = record.now()
    made = work / "product"
    mask = content["outputs"][0]["name"]
    name = mask.removesuffix(".fits") + record.SUFFIX
    record.write_record(made / name, content)
    place = shelf.publish(made, job.folder, content["key"])
    return _finish(job, {**content, "path": str(place / name)}, say)


def _finish(job: Job, product: Mapping[str, Any], say: Say) -> Outcome:
    """Links after the gate; old products go."""
    folder, policy = job.folder, job.policy
    if product["status"] == "accepted":
        notes = shelf.make_current(folder, product)
        outcome = Outcome(job.detector, "rebuilt", list(product["why"]), _shown(job, product), notes=notes)
    else:
        shelf.make_rejected(folder, product)
        say(f"rejected: {'; '.join(product['reasons'])}; the current mask stays")
        outcome = Outcome(job.detector, "rejected", list(product["reasons"]), shelf.mask_of(product), exit_code=3)
    shelf.prune(folder, policy["keep"], policy["keep_logs"], {s: product["keys"][s] for s in job.stages})
    outcome.record = Path(product["path"])
    return outcome


def _shown(job: Job, product: Mapping[str, Any]) -> Path:
    """The name under which users find the mask: that of ``output``; inside the product if something else is there."""
    mask = shelf.mask_of(product)
    beside = job.folder.parent / mask.name
    return beside if beside.is_symlink() else mask
