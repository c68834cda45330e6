"""Raw exposures of a rebuild: the pipeline's first stage before the searches.

1. A search may name raw ramps (``inputs: {raw: ...}``) beside or instead of slope files. They are prepared
   (:mod:`prepare`) into a folder of the detector, ``prepared/flats`` and ``prepared/darks``, as far as they are not
   ready there; their slope files become inputs of the search like any others.
2. Raw files that still grow are waited for or left out, as any input; those that fail in the pipeline are left out
   with the reason, or stop the rebuild, as ``rebuild.skip_bad`` says.
3. The quick look asks whether all of them are ready, without starting the pipeline.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from badpix.errors import DataError, UsageError
from badpix.io import selection
from badpix.prepare import driver as prepare_driver
from badpix.rebuild import plan
from badpix.rebuild.jobs import Job
from badpix.settings.prepare import PrepareSettings

log = logging.getLogger(__name__)

OF_DARKS = ("jump", "fitopt")  # products that flats do not need

Rejected = list[tuple[str, str, str]]  # stage, file, reason


def stages(job: Job) -> list[str]:
    """Searches that name raw exposures."""
    return [stage for stage in job.stages if job.inputs[stage].get("raw")]


def prepared_folder(job: Job, stage: str) -> Path:
    """Where the products of a search's raw exposures are."""
    base = job.values.prepare.directory
    return (Path(base) / job.detector.lower() if base else job.folder / "prepared") / stage


def prepare_job(job: Job, workers: int, overwrite: bool) -> tuple[Job, Rejected]:
    """The job with the products of its raw exposures as inputs; what is not ready is made.

    Parameters
    ----------
    job : Job
        One detector; its lock is held.
    workers : int
        Processes for the pipeline.
    overwrite : bool
        Make products of other parameters or versions again (they are our own: the folder is the detector's).

    Returns
    -------
    Job, list of (stage, file, reason)
        Inputs with the slope files added; raw files that were left out.

    Raises
    ------
    DataError
        If exposures fail and may not be left out, or none is left.
    """
    rejected: Rejected = []
    for stage in stages(job):
        files = _files(job, stage)
        sources = [plan.Source(stage, "rate", str(f), str(f)) for f in files]
        kept, growing = plan.settle(sources, job.policy)
        log.info(f"{stage}: {len(kept)} raw exposures")
        found = prepare_driver.prepare_all(
            [Path(s.path) for s in kept],
            values_of(job, stage),
            prepared_folder(job, stage),
            overwrite=overwrite,
            skip_bad=job.policy.skip_bad,
            workers=workers,
        )
        failed = [(stage, str(path), why) for path, why in found.failed]
        rejected += [*growing, *failed]
        _check_share(job, stage, len(growing) + len(failed), len(files))
        job = with_products(job, stage, found)
    return job, rejected


def expect(job: Job) -> Job | None:
    """The job with the products of its raw exposures as inputs; None where the pipeline must run first."""
    for stage in stages(job):
        where = prepared_folder(job, stage)
        found = prepare_driver.find_ready(_files(job, stage), values_of(job, stage), where, job.policy.skip_bad)
        if found is None:
            return None
        job = with_products(job, stage, found)
    return job


def _files(job: Job, stage: str) -> list[Path]:
    named = job.inputs[stage]["raw"]
    try:
        return selection.expand_inputs([named] if isinstance(named, str) else named, ("_uncal",))
    except UsageError as error:
        raise DataError(f"{job.detector}: {stage}.inputs.raw: {error}") from None


def values_of(job: Job, stage: str) -> PrepareSettings:
    """Settings of ``prepare`` for a search: flats need fewer products."""
    wanted = [p for p in job.values.prepare.products if stage == "darks" or p not in OF_DARKS]
    return replace(job.values.prepare, products=[*wanted, *({"rateints"} - set(wanted))])


def with_products(job: Job, stage: str, found: prepare_driver.Prepared) -> Job:
    """The job with slope files of prepared exposures among the inputs of a search."""
    given = job.inputs[stage].get("rate") or []
    slopes = [str(path) for path in found.products["rateints"]]
    named = {**job.inputs[stage], "rate": [*([given] if isinstance(given, str) else given), *slopes]}
    return replace(job, inputs={**job.inputs, stage: named})


def _check_share(job: Job, stage: str, left_out: int, total: int) -> None:
    if left_out > job.policy.max_rejected_fraction * total:
        raise DataError(f"{stage}: {left_out} of {total} raw exposures had to be left out")
