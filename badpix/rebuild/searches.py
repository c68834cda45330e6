"""The parts of a rebuild: searches taken from the shelf or made, and merged into a mask.

A search is made in the run's private folder. It goes on the shelf only if its inputs are still those that its key
was made from, its JSON last: what lies there is whole, and right for its key, whenever a run is killed.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from badpix.darks import build as darks_build
from badpix.errors import BadpixError, DataError
from badpix.flats import build
from badpix.io import evidence_file, output, selection
from badpix.io import exposure as exposures
from badpix.io.provenance import hash_file
from badpix.io.workers import Share, check_memory, make_executor, peak_of_workers, share_memory
from badpix.mask import file as mask_file
from badpix.mask import merge as merging
from badpix.mask import product as mask_product
from badpix.mask.product import Product
from badpix.rebuild import plan, record, shelf
from badpix.rebuild.jobs import Job
from badpix.rebuild.plan import Plan
from badpix.science import build as science_build
from badpix.settings.reference import ReferenceSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a run is made; nothing here changes a byte of the product."""

    force: bool = False
    accept: bool = False
    workers: int = 1
    dask: str | None = None
    max_memory: int | None = None  # bytes of all processes together; with ``dask``: of each worker


class ChangedError(DataError):
    """Inputs changed while they were worked on."""


def make_searches(job: Job, made: Plan, options: Options, work: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """All searches of a job by name, and the peak memory of a worker process.

    Raises
    ------
    ChangedError
        If an input changed meanwhile.
    DataError
        If a search can't be made.
    """
    with _private_scratch(work):
        todo = [s for s in job.stages if options.force or not on_shelf(job, s, made)]
        with make_executor(_share(options).workers, options.dask) if todo else _no_executor() as executor:
            found = {
                s: _search(job, s, made, executor, options, work) if s in todo else _reuse(job, s, made)
                for s in job.stages
            }
            return found, peak_of_workers()


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


def on_shelf(job: Job, stage: str, made: Plan) -> dict[str, Any] | None:
    """What is known about a search that was made earlier with the same key, None where it must be made."""
    mask = job.folder / shelf.STAGES / shelf.stage_name(job.detector, stage, made.keys[stage])
    found = record.read_json(mask.with_suffix(".json"))
    if not found or found.get("key") != made.keys[stage] or not mask.is_file():
        return None
    beside = evidence_file.path_beside(mask)
    whole = hash_file(mask) == found["sha256"] and (not job.policy.evidence or beside.is_file())
    return found if whole else None


def _reuse(job: Job, stage: str, made: Plan) -> dict[str, Any]:
    """A search from the shelf."""
    found = on_shelf(job, stage, made)
    if found is None:
        raise ChangedError(f"{stage}: the mask of this search vanished from the shelf")
    log.info(f"{stage}: reused ({shelf.stage_name(job.detector, stage, made.keys[stage])})")
    return {**found, "reused": True, "seconds": 0.0}


def _search(
    job: Job, stage: str, made: Plan, executor: Executor | None, options: Options, work: Path
) -> dict[str, Any]:
    """A search made and put on the shelf."""
    begun = time.monotonic()
    rates, wrong = _of_detector(job, made.paths(stage, "rate"))
    log.info(f"{stage}: {len(rates)} exposures")
    total = None if options.dask else options.max_memory
    pixels = exposures.count_pixels(rates) if total else 0
    check_memory(total, stage, pixels, evidence=job.policy.evidence, source=f"{job.source}: ")
    target = work / shelf.stage_name(job.detector, stage, made.keys[stage])
    try:
        product = SEARCHES[stage](job, made, rates, target, _shared(job, executor, options))
    except BadpixError:
        check_unchanged(made)
        raise
    check_unchanged(made)
    paths = {r.name: str(r) for r in rates}
    rejected = wrong + [(name, paths.get(name, name), why) for name, why in product.rejected]
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
    log.info(f"{stage}: {', '.join(f'{k} {v:,}' for k, v in product.searches.items())}; {seconds} s")
    return {**about, "reused": False, "seconds": seconds}


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
        elif job.policy.skip_bad:
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
    if bad > job.policy.max_rejected_fraction * total:
        name, why = (rejected[0][0], rejected[0][2]) if rejected else (Path(before[0][1]).name, before[0][2])
        raise DataError(
            f"{stage}: {bad} of {total} exposures had to be left out, more than max_rejected_fraction = "
            f"{job.policy.max_rejected_fraction:g}; the first: {name}: {why}"
        )


def _shelve(job: Job, product: Product, about: Mapping[str, Any]) -> None:
    """Put the mask of a search where later runs find it; its JSON comes last and makes it whole."""
    place = job.folder / shelf.STAGES
    for path in (product.evidence, product.path):
        if path is not None:
            os.replace(path, place / path.name)
    output.write_text((place / product.path.name).with_suffix(".json"), record.as_json(about), overwrite=True)


def check_unchanged(made: Plan) -> None:
    """Make sure that all inputs are still what they were when the plan was made.

    Raises
    ------
    ChangedError
        If not.
    """
    moved = plan.find_moved(made.inputs)
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        raise ChangedError(f"{moved[0]}{more}: changed during the run")


def _build_flats(job: Job, made: Plan, rates: Sequence[Path], target: Path, shared: dict[str, Any]) -> Product:
    return build.build_flats(rates, job.values.flats, target, uncals=made.paths("flats", "uncal"), **shared)


def _build_darks(job: Job, made: Plan, rates: Sequence[Path], target: Path, shared: dict[str, Any]) -> Product:
    roles = [role for role in plan.COMPANIONS["darks"] if job.inputs["darks"].get(role)]
    named = {role: _companions_of(rates, made.paths("darks", role), role) for role in roles}
    return darks_build.build_darks(rates, job.values.darks, target, named=named, **shared)


def _build_science(job: Job, made: Plan, rates: Sequence[Path], target: Path, shared: dict[str, Any]) -> Product:
    return science_build.build_science(rates, job.values.science, target, **shared)


def _companions_of(rates: Sequence[Path], named: Sequence[Path], role: str) -> list[Path]:
    """Named companions of these exposures, where roots tell; else all, which are then matched by their place."""
    roots = {selection.root_name(r) for r in rates}
    own = [n for n in named if (selection.fits_stem(n) or n.stem).removesuffix(f"_{role}") in roots]
    return own or list(named)


def _share(options: Options) -> Share:
    """Workers and memory of their bands."""
    return share_memory(options.max_memory, 1 if options.dask else options.workers)


def _shared(job: Job, executor: Executor | None, options: Options) -> dict[str, Any]:
    """What each search of a rebuild is told."""
    return {
        "texts": _stage_texts(job),
        "overwrite": True,
        "with_evidence": job.policy.evidence,
        "skip_bad": job.policy.skip_bad,
        "most_left_out": 1.0,  # judged here, with those that were left out before
        "executor": executor,
        "memory": _share(options).band,
    }


SEARCHES = {"flats": _build_flats, "darks": _build_darks, "science": _build_science}


def _stage_texts(job: Job) -> ReferenceSettings:
    """Texts of the mask of one search: neutral ones, so that a new author or USEAFTER does not repeat a search."""
    return replace(
        job.values.reference,
        author=None,
        descrip=None,
        history=None,
        document=None,
        differences=None,
        useafter=None,
        pedigree="AUTO",
    )


def merge(job: Job, made: Plan, place: Path) -> Product:
    """All masks of the job in one."""
    names = [shelf.stage_name(job.detector, s, made.keys[s]) for s in job.stages]
    files = [job.folder / shelf.STAGES / n for n in names] + made.paths("merge", "masks")
    manual = [str(p) for p in made.paths("merge", "manual")]
    p = replace(job.values.merge, masks=[f.name for f in files], manual=manual)
    texts = job.values.reference
    first = [
        str(mask_file.read_mask(f, check_sums=not p.ignore_checksum).header.get("USEAFTER", ""))
        for f in files[: max(len(names), 1)]
    ]
    target = place / mask_product.fill_name(
        Path(Path(job.output).name), {"DATE-OBS": min(first)}
    )  # first exposure's day
    product = merging.build_merge(files, p, target, texts=texts, overwrite=True, with_evidence=job.policy.evidence)
    found = mask_file.read_mask(product.path).detector
    if found != job.detector:
        raise DataError(f"{job.source}: the masks are of {found}, expected {job.detector}")
    log.info(f"merge: {product.flags.get('any', 0):,} of {product.science_pixels:,} science pixels flagged")
    return product
