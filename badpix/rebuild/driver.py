"""One detector, unattended: from what lies on disk to a better mask, or to a reason why not.

With the lock of the detector held:

0. Raw exposures are put through the pipeline's first stage, as far as that is not done (:mod:`raws`).
1. Inputs are found; those still growing are waited for or left out (:func:`plan.settle`).
2. Their hashes, the parameters and the code give keys (:mod:`plan`). The current product has the same key: done.
3. A product with that key exists already (it was refused, or the run was killed before the link): it goes to step 6.
4. Searches (flats, darks) whose key is known are taken from the shelf, the others are made in a private folder.
5. Merge, evidence, report, masks of families. If an input changed meanwhile, all starts again from step 1.
6. Gate: :mod:`check` against the current mask, with the limits of the section ``check``.
7. The product is renamed into place with its record, and becomes ``current`` or ``rejected``; old ones are forgotten.

A run that is killed anywhere leaves a private folder, which the next run removes, and a whole product.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from badpix.io.handles import stamp_of
from badpix.io.workers import peak_memory
from badpix.mask import file as mask_file
from badpix.rebuild import plan, raws, record, searches, shelf
from badpix.rebuild.jobs import Job
from badpix.rebuild.locks import hold
from badpix.rebuild.plan import Plan
from badpix.rebuild.searches import ChangedError, Options
from badpix.review import check, compare, families, report
from badpix.review.depth import describe_depth

log = logging.getLogger(__name__)

ATTEMPTS = 3  # with inputs that change during the run
RAMPS_SHOWN = 3  # exposures that the report takes its examples of ramps from
EXIT = {"unchanged": 0, "rebuilt": 0, "planned": 0, "rejected": 3}


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


def is_current(job: Job) -> bool:
    """Whether nothing can have changed: the quick look, without lock, that opens no file but the record and the mask.

    False wherever it can't be told at once (files younger than `settle`, new or changed ones).
    """
    folder = job.folder
    now = shelf.current(folder)
    if now is None or (folder / shelf.REJECTED).is_symlink() or list(folder.glob(f"{shelf.WORK}*")):
        return False
    expected = raws.expect(job)
    if expected is None:
        return False
    job = expected
    sources = plan.find_sources(job)
    facts = {s.path: os.stat(s.path) for s in sources}
    newest = max((max(f.st_mtime, f.st_ctime) for f in facts.values()), default=0.0)
    before = {(k["path"], k["size"], k["mtime_ns"], k.get("ctime_ns"), k["inode"]) for k in now["inputs"]}
    same = {(p, *stamp_of(f)) for p, f in facts.items()} == before
    if not same or time.time() - newest < job.policy.settle:
        return False
    linked = shelf.mask_of(now)
    beside = folder.parent / linked.name
    if not beside.exists() or (beside.is_symlink() and beside.resolve() != linked.resolve()):
        return False
    found: bool = plan.make_plan(job, sources, [], now, [now]).key == now["key"]
    return found


def preview(job: Job, force: bool = False) -> Outcome:
    """What a run would do now, and why; nothing is written."""
    folder = job.folder
    now, all_of_them = shelf.current(folder), shelf.products(folder)
    expected = raws.expect(job)
    if expected is None:
        return Outcome(job.detector, "planned", ["raw exposures are not ready", "would prepare them first"])
    job = expected
    made = plan.make_plan(job, plan.find_sources(job), [], now, all_of_them)
    if not made.why and not force:
        return Outcome(job.detector, "unchanged", mask=shelf.mask_of(now) if now else None)
    if not force and any(p["key"] == made.key and shelf.is_whole(p) for p in all_of_them):
        return Outcome(job.detector, "planned", [*made.why, "would judge the product that is there again"])
    reused = [s for s in job.stages if searches.on_shelf(job, s, made) and not force]
    steps = [*(f"{'reuse' if s in reused else 'build'} {s}" for s in job.stages), "merge"]
    return Outcome(job.detector, "planned", [*(["forced"] if force else []), *made.why, f"would {', '.join(steps)}"])


def rebuild(job: Job, options: Options) -> Outcome:
    """Bring the mask of one detector up to date.

    Raises
    ------
    DataError, UsageError
        If it can't be done; the current mask is as it was.
    """
    begun = time.monotonic()
    folder = shelf.prepare(job.folder)
    with hold(folder / shelf.LOCK, job.policy.lock_wait), shelf.working(folder) as work:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                outcome = _attempt(job, options, work, begun)
                break
            except ChangedError as error:
                if attempt == ATTEMPTS:
                    raise
                log.info(f"{error}; starting again")
    outcome.seconds = round(time.monotonic() - begun, 2)
    return outcome


def _attempt(job: Job, options: Options, work: Path, begun: float) -> Outcome:
    folder = job.folder
    job, left_out = raws.prepare_job(job, options.workers, True)
    sources, rejected = plan.settle(plan.find_sources(job), job.policy)
    rejected += left_out + plan.list_own(job)
    for text in shelf.list_damaged(folder):
        log.warning(text)
    now, known = shelf.current(folder), shelf.products(folder)
    made = plan.make_plan(job, sources, rejected, now, known, fresh=options.force)
    against = _choose_previous(now, known, made.key)
    for stage, name, why in rejected:
        log.info(f"left out of {stage}: {Path(name).name}: {why}")
    if not made.why and not options.force:
        return _settled(job, now or {})
    if options.force:
        made.why.insert(0, "forced")
    log.info("why: " + "; ".join(made.why))
    there = [p for p in known if p["key"] == made.key and shelf.is_whole(p)]
    if there and not options.force:
        return _judge_again(job, there[-1], against, options)
    content = _make(job, made, options, work)
    _gate(job, work / "product" / content["mask"], content, against, options)
    if job.policy.report:
        _add_report(job, made, work / "product", content, against)
    if job.families:
        _add_families(job, work / "product", content)
    content["outputs"] = shelf.describe_outputs(work / "product", content["mask"])
    _compare_bytes(content, there)
    return _put(job, content, work, begun)


def _settled(job: Job, now: Mapping[str, Any]) -> Outcome:
    """Nothing to do; links are put right if a run was killed between them."""
    left = shelf.make_current(job.folder, now)
    return Outcome(job.detector, "unchanged", mask=_shown(job, now), notes=left, record=Path(now["path"]))


def _choose_previous(
    now: Mapping[str, Any] | None, known: Sequence[Mapping[str, Any]], key: str
) -> Mapping[str, Any] | None:
    """What a new product is compared with: the current one, else the newest other one that was accepted."""
    accepted = [p for p in known if p["status"] == "accepted" and p["key"] != key and shelf.is_whole(p)]
    return now or (accepted[-1] if accepted else None)


def _compare_bytes(content: Mapping[str, Any], there: Sequence[Mapping[str, Any]]) -> None:
    """Equal keys must mean equal bytes; anything else is worth a loud word."""
    for product in there[-1:]:
        if product["outputs"][0]["sha256"] != content["outputs"][0]["sha256"]:
            log.warning("the mask differs from the earlier one with the same key: please report it")


# --- making a product --------------------------------------------------------------------------------------


def _make(job: Job, made: Plan, options: Options, work: Path) -> dict[str, Any]:
    """Searches and merge into ``work/product``, and the content of the record."""
    started = record.now()
    found, memory = searches.make_searches(job, made, options, work)
    product = searches.merge(job, made, work / "product")
    depth = describe_depth(product.path) if product.evidence else None
    searches.check_unchanged(made)
    rejected = [{"stage": s, "file": Path(f).name, "path": f, "reason": why} for s, f, why in made.rejected]
    rejected += [row for s in found.values() for row in s["rejected"]]
    content = {
        "status": "made",
        "detector": job.detector,
        "mask": product.path.name,
        "source": str(job.source),
        "started": started,
        **plan.as_record(made),
        "rejected": rejected,
        "parameters": {n: plan.as_text(job, n) for n in (*job.stages, "merge", "reference", "check")},
        "versions": plan.versions(),
        "searches": {name: row for s in found.values() for name, row in s["searches"].items()},
        "flags": product.flags,
        **({"update": product.summary()["update"]} if product.changes else {}),
        **({"depth": depth} if depth else {}),
        "science_pixels": product.science_pixels,
        "notes": [*(n for s in found.values() for n in s["notes"]), *product.notes],
        "stages": {n: {k: s[k] for k in ("key", "reused", "seconds")} for n, s in found.items()},
        "workers": options.workers,
        "dask": options.dask,
        "worker_memory_mb": round(memory / 1e6, 1),
        "run": record.surroundings(),
    }
    return content


# --- the gate ----------------------------------------------------------------------------------------------


def _gate(job: Job, mask: Path, content: dict[str, Any], against: Mapping[str, Any] | None, options: Options) -> None:
    """Judge a mask; status and reasons go into the record's content."""
    old = shelf.mask_of(against) if against else None
    result = check.check_mask(mask, job.values.check, against=old)
    stops = ("error", "warning") if job.values.check.strict else ("error",)
    faults = [f for f in result.faults if f.severity in stops]
    accepted = [f for f in faults if f.rule == "jump"] if options.accept else []
    content["check"] = result.summary()
    content["check"]["mask"] = mask.name
    content["previous"] = {"product": shelf.place_of(against).name, "key": against["key"]} if against else None
    if old is not None:
        content["changes"] = compare.compare(mask_file.read_mask(old), mask_file.read_mask(mask)).summary()
    content["reasons"] = [f"{f.rule}: {f.message}" for f in faults if f not in accepted]
    content["accepted_by_hand"] = [f"{f.rule}: {f.message}" for f in accepted]
    content["status"] = "rejected" if content["reasons"] else "accepted"


def _add_report(
    job: Job, made: Plan, place: Path, content: dict[str, Any], against: Mapping[str, Any] | None
) -> None:
    """The page about the mask; a page that can't be made is a note, no reason to withhold a mask."""
    mask = place / content["mask"]
    target = place / (content["mask"].removesuffix(".fits") + "_report.html")
    old = shelf.mask_of(against) if against else None
    ramps = made.paths("darks", "jump")[:RAMPS_SHOWN]
    try:
        report.write_report(mask, target, job.values.check, against=old, ramps=ramps, overwrite=True)
    except Exception as error:
        content["notes"].append(f"report not written: {type(error).__name__}: {error}")


def _add_families(job: Job, place: Path, content: dict[str, Any]) -> None:
    """The masks of all families, and the page that compares them."""
    mask = place / content["mask"]
    _, members = families.make_families(mask, job.families, place, overwrite=True)
    content |= families.describe_json(members, mask_file.read_mask(mask))


def _judge_again(job: Job, product: dict[str, Any], against: Mapping[str, Any] | None, options: Options) -> Outcome:
    """The gate for a product that was made earlier: limits may have changed, or a person accepts it."""
    log.info(f"the product of {product['finished']} has the same key: not made again, judged again")
    content = {k: v for k, v in product.items() if k != "path"}
    _gate(job, shelf.mask_of(product), content, against, options)
    content["judged"] = record.now()
    record.write_record(Path(product["path"]), content)
    return _finish(job, {**content, "path": product["path"]})


def _put(job: Job, content: dict[str, Any], work: Path, begun: float) -> Outcome:
    """Record, rename into place, links."""
    content["finished"] = record.now()
    content["seconds"] = round(time.monotonic() - begun, 2)
    content["peak_memory_mb"] = round(peak_memory() / 1e6, 1)
    made = work / "product"
    name = content["mask"].removesuffix(".fits") + record.SUFFIX
    record.write_record(made / name, content)
    place = shelf.publish(made, job.folder, content["key"])
    return _finish(job, {**content, "path": str(place / name)})


def _finish(job: Job, product: Mapping[str, Any]) -> Outcome:
    """Links after the gate; old products go."""
    folder, policy = job.folder, job.policy
    if product["status"] == "accepted":
        notes = shelf.make_current(folder, product)
        outcome = Outcome(job.detector, "rebuilt", list(product["why"]), _shown(job, product), notes=notes)
    else:
        shelf.make_rejected(folder, product)
        log.info(f"rejected: {'; '.join(product['reasons'])}; the current mask stays")
        outcome = Outcome(job.detector, "rejected", list(product["reasons"]), shelf.mask_of(product), exit_code=3)
    shelf.prune(folder, policy.keep, policy.keep_logs, {s: product["keys"][s] for s in job.stages})
    outcome.record = Path(product["path"])
    return outcome


def _shown(job: Job, product: Mapping[str, Any]) -> Path:
    """The name under which users find the mask: that of ``output``; inside the product if something else is there."""
    mask = shelf.mask_of(product)
    beside = job.folder.parent / mask.name
    return beside if beside.is_symlink() else mask
