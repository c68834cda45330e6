"""HOT, noisy, RC, TELEGRAPH and low-pedestal pixels from dark ramps: the driver.

1. Open, pair and check the files (:mod:`badpix.darks.inputs`); find the groups that all pixels can use.
2. Describe the population on a sample of rows; say what can't be found at this depth before hours are spent.
3. Measure all ramps in bands of rows, every file in its turn (:mod:`badpix.darks.bands`, :mod:`badpix.darks.ramps`,
   :mod:`badpix.darks.stats`, :mod:`badpix.darks.scores`).
4. Search the candidates of the whole frame (:mod:`badpix.darks.types`, :mod:`badpix.darks.searches`), and say what
   was decided on (:mod:`badpix.darks.rules`).

The documented rules (:mod:`badpix.darks.documented`, :mod:`badpix.darks.votes`) are other values of the same
parameters; their source is the documentation of jwst_reffiles (bad pixel mask, darks). Definitions and limits of all
steps: docs/darks-methods.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import (
    candidates,
    changes,
    completeness,
    documented,
    halves,
    places,
    plan,
    readouts,
    scratch,
    searches,
    series,
    telegraph,
    types,
)
from badpix.darks.bands import (
    EVIDENCE_MAPS,
    SAMPLED,
    Band,
    judge_sample,
    measure_band,
    measure_sample,
    sample_tiles,
)
from badpix.darks.candidates import Candidates
from badpix.darks.inputs import DarkSet
from badpix.darks.rules import MOST_SAMPLES, make_rules
from badpix.darks.scores import Population, find_candidates, measure_population, measure_suspicion, score_pixels
from badpix.darks.stack import NEEDED_MAPS, Brightness, Job, Rows
from badpix.darks.stats import Stats, join
from badpix.darks.votes import choose_votes
from badpix.errors import DataError
from badpix.io.evidence import Detection
from badpix.io.exposure import band_height
from badpix.io.spill import DiskImage, DiskTable
from badpix.io.tasks import Progress, run_in_order, silent
from badpix.mask.depth import describe as describe_curves
from badpix.numerics import medians, neighbors
from badpix.settings.darks import KEYS, DarkDataSettings, DarkSettings, TelegraphSettings

FAINT = 10.0  # scatters of the rate below which hot pixels don't tell whether they decay
log = logging.getLogger(__name__)

Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Run:
    """What the steps of one run share."""

    darks: DarkSet
    job: Job
    reference: Bool
    bias: NDArray[np.float32] | None
    executor: Executor | None
    memory: float
    progress: Progress


def needs_votes(p: DarkSettings) -> bool:
    """Whether a documented search, by votes of integrations, is asked for."""
    return (
        p.saturated_search_type == "pedestal"
        or p.noisy_search_type == "slopes"
        or p.rc_search_type == "pedestal"
        or p.low_pedestal_search_type == "votes"
        or p.high_cr_search
    )


def needs_ramps(p: DarkSettings) -> bool:
    """Whether a search in the ramps themselves is asked for."""
    bright = any(limit is not None for limit in (p.hot_sigma_threshold, p.hot_max_rate, p.warm_sigma_threshold))
    return (
        bright
        or p.saturated_search_type == "level"
        or p.noisy_search_type == "ramp"
        or p.rc_search_type == "shape"
        or p.low_pedestal_search_type == "mean"
        or p.telegraph_search
    )


def needs_pedestals(p: DarkSettings) -> bool:
    """Whether a search that is asked for can't do without pedestals in any dark: those by votes."""
    return "pedestal" in (p.saturated_search_type, p.rc_search_type) or p.low_pedestal_search_type == "votes"


def needs_uncal(p: DarkSettings, instrument: str) -> bool:
    """Whether raw ramps are needed: by the documented pedestals of MIRI, if there is no bias map."""
    by_votes = p.rc_search_type == "pedestal" or p.low_pedestal_search_type == "votes"
    return instrument == "MIRI" and by_votes and p.bias_map is None


def search(
    darks: DarkSet,
    p: DarkSettings,
    *,
    executor: Executor | None = None,
    memory: float = 48e6,
    progress: Progress = silent,
    bias: NDArray[np.float32] | None = None,
    with_evidence: bool = True,
) -> Detection:
    """Search the darks of one detector.

    Parameters
    ----------
    darks : DarkSet
        From :func:`badpix.darks.inputs.open_darks`.
    p : mapping
        Values of ``settings.darks``.
    executor : Executor, optional
        Where bands are measured; here, if not given.
    memory : float
        Bytes that the band of one worker may take.
    progress : callable
        Told how many bands are done.
    say : callable
        Told in advance what can't be found.
    bias : ndarray, optional
        (ny, nx) bias map to subtract from the pedestals, DN.
    with_evidence : bool
        Whether all images are kept; without them less memory is used.

    Returns
    -------
    Detection
        Maps ``hot``, ``warm``, ``noisy``, ``rc``, ``telegraph``, ``low_pedestal``, ``high_cr``; evidence; notes.
    """
    reference = darks.reference_pixels()
    job = plan.prepare_job(darks, reference, p)
    if with_evidence:
        job = replace(job, maps=EVIDENCE_MAPS, samples=SAMPLED)
    job = replace(job, halves=halves.make_cuts(p) if p.depth else None)
    run = Run(darks, job, reference, bias, executor, memory, progress)
    found = search_ramps(run, p) if needs_ramps(p) else Detection({})
    if needs_votes(p):
        add_votes(run, found, p, with_evidence)
    order = [name for name in KEYS if name in found.maps]
    found.maps = {name: found.maps[name] & ~reference for name in order}
    return found


def search_ramps(run: Run, p: DarkSettings) -> Detection:
    """The searches in the ramps: steps 2 to 4."""
    bias = run.bias
    job, population, sample = describe(run.job, run.reference, bias, run.executor, run.darks.mixed)
    job = replace(job, drop_sigma=population.drop_sigma, bright=choose_brightness(job, population, p))
    population = expect_two_levels(replace(run, job=job), population, sample, p)
    notes = [
        *plan.describe_steps(run.darks),
        *describe_join(run.darks, job, p),
        *plan.describe_depth(job, population, p),
    ]
    for note in notes:
        log.warning(note)
    job = replace(job, rows=plan.band_rows(job, run.memory))
    tasks = list(cut_bands(job, run.reference, bias, plan.task_rows(job)))
    found = run_in_order(run.executor, partial(measure_band, job, population), tasks, run.progress)
    maps, table = assemble(found, job)
    scratch.give_back()
    detector, superbias = run.darks.detector, run.darks.superbias_done
    ipc, ipc_note = candidates.choose_ipc(detector, maps["rate"], population, p)
    flatten = partial(searches.flatten_pedestal, interleaved=detector.amplifiers == "interleaved")
    if superbias or bias is not None:
        flatten = partial(np.asarray)
    choose = partial(
        types.decide, setup=job.setup, population=population, ipc=ipc, bright=job.bright, flatten=flatten, p=p
    )
    raw = table
    result, table, verdicts = choose(raw, maps)
    kept = result.detection.evidence
    if p.depth:
        second = completeness.Second(
            job,
            population,
            run.reference,
            bias,
            run.executor,
            ipc,
            maps=maps,
            table=raw,
            choose=choose,
            pedestal_spread=result.pedestal_spread,
        )
        kept.depth, kept.alarms, told = completeness.measure_depth(second, result, sample, p)
        notes += [*told, *describe_curves(kept.depth, kept.alarms)]
    kept.rules += make_rules(result.decisions, job.setup.integrations, p)
    if job.samples:
        types.add_evidence(result, table, maps, population)
        kept.images["dark_known_noise"] = plan.read_known_noise(job)
        kept.readouts = [plan.describe_readout(run.darks, job, population, p)]
    if verdicts is not None:
        add_changes(run, job, result, table, verdicts)
    result.detection.notes[:0] = [*notes, ipc_note]
    return result.detection


def choose_brightness(job: Job, population: Population, p: DarkSettings) -> Brightness | None:
    """What makes an integration bright, with the scale of the dark current of each step in time."""
    found = plan.choose_brightness(population, p)
    if found is None or not job.scales:
        return found
    of_step = dict(zip(job.steps, job.scales, strict=True))
    return replace(found, scales=tuple(of_step[k] for k in sorted(of_step)))


def add_changes(run: Run, job: Job, result: types.Outcome, table: Candidates, verdicts: series.Verdicts) -> None:
    """What the order of time showed, as notes and evidence."""
    files = run.darks.files
    steps, exposures = series.order_steps(run.darks.dates, [f.integrations for f in files])
    dates = [run.darks.dates[k] for k in exposures]
    of_step = {step: job.scales[i] if job.scales else 1.0 for i, step in enumerate(steps)}
    scales = [of_step[k] for k in range(len(dates))]
    flagged = {name: image.flat[table.places.index] for name, image in result.detection.maps.items()}
    born, nothing = verdicts.born & flagged["hot"], np.zeros(len(verdicts.first), bool)
    result.detection.notes += changes.describe(verdicts, born, flagged.get("intermittent", nothing), dates, scales)
    kept = result.detection.evidence
    if job.samples:
        kept.images |= changes.make_images(verdicts, table.places, result.born, dates)
        kept.exposures += [(files[k].rate.path.name, dates[i], scales[i]) for i, k in enumerate(exposures)]
        if len(dates) <= MOST_SAMPLES:
            kept.samples |= changes.make_samples(verdicts, table.series, table.places)


def add_votes(run: Run, found: Detection, p: DarkSettings, with_evidence: bool) -> None:
    """The documented searches that are asked for, in place of the corrected ones of the same type."""
    rules = documented.make_rules(min(f.groups for f in run.darks.files), p)
    layouts = run.job.darks
    limits = tuple(
        run_in_order(run.executor, partial(documented.measure_pedestals, run.reference, run.bias), layouts)
    )
    longest = max(f.groups for f in run.darks.files)
    row = run.job.shape[1] * (run.darks.integrations * 9 + longest * 6 + 64)
    bands = [
        (b.start, b.stop, b.bias)
        for b in cut_bands(run.job, run.reference, run.bias, band_height(row, run.memory, run.job.shape[0]))
    ]
    counts = {name: np.zeros(run.job.shape, np.uint16) for name in documented.VOTES}
    scatter = np.empty(run.job.shape, np.float32)
    task = partial(documented.measure_votes, layouts, limits, rules)
    for band in run_in_order(run.executor, task, bands, run.progress):
        rows = slice(band.start, band.start + len(band.scatter))
        scatter[rows] = band.scatter
        for name, votes in band.counts.items():
            counts[name][rows] = votes
    choose_votes(found, counts, scatter, ~run.reference, run.darks.integrations, p)
    if with_evidence:
        found.evidence.images |= {f"votes_{name}": image for name, image in counts.items()}
        found.evidence.images["clean_slope_scatter"] = scatter


# --- 2: the population -------------------------------------------------------------------------------------


def describe(
    job: Job, reference: NDArray[np.bool_], bias: NDArray[np.float32] | None, executor: Executor | None, mixed: bool
) -> tuple[Job, Population, Stats]:
    """The population of pixels from a sample of rows, the job with the scales of the dark current, and the sample.

    In a ``mixed`` set rates weigh by their scatter over the sample.
    """
    tiles = [make_rows(a, b, reference, bias) for a, b in sample_tiles(job, reference)]
    found = list(run_in_order(executor, partial(measure_sample, job), tiles))
    known = medians.median_along([tile.spread for tile in found])  # of each integration; some may hold nothing
    if not np.isfinite(known).any():
        raise DataError(f"{job.darks[0].rate.path}: no integration of these darks has a rate in the sampled rows")
    hot, faint = np.concatenate([tile.hot for tile in found]), FAINT * float(np.nanmedian(known))
    scales = series.measure_scales(hot, job.steps or range(len(known)), faint)
    known = known / scales
    if mixed:  # again, now that the weights are known
        job = replace(job, spreads=tuple(known.tolist()))
        found = list(run_in_order(executor, partial(measure_sample, job), tiles))
        spread = float(readouts.pick_weighted(known[:, None], readouts.weigh(known), 0.5)[0])
    else:
        spread = float(np.median(known[np.isfinite(known)]))
    pixels, index = join([tile.pixels for tile in found]), np.concatenate([tile.index for tile in found])
    with np.errstate(invalid="ignore", divide="ignore"):
        noise = np.log(pixels["white"]) / 2
        levels = places.measure_levels(noise, index, job.cells.columns, job.shape, job.cells.rows)
        pixels["level"] = levels.of_pixels(index)
        population = measure_population(pixels, job.setup, spread, job.drop_sigma)
    used = tuple(scales.tolist()) if np.any(scales != 1) else ()
    return replace(job, scales=used, levels=levels), population, pixels


def expect_two_levels(run: Run, population: Population, sample: Stats, p: TelegraphSettings) -> Population:
    """The population with the limits of the search for two levels: who is looked at, and what good pixels reach."""
    job = run.job
    if not job.kept:
        return population
    scores = score_pixels(sample, job.setup, population)
    good = ~find_candidates(sample, scores, job.setup, population, job.cuts)
    suspicion = measure_suspicion(sample, job.setup, population)[good]
    wanted = plan.choose_suspects(job, p.telegraph_suspects)
    many = replace(population, suspicion=highest(suspicion, max(wanted, 10 * telegraph.TAIL[0])))
    tiles = [make_rows(a, b, run.reference, run.bias) for a, b in sample_tiles(job, run.reference)]
    reached = np.concatenate(list(run_in_order(run.executor, partial(judge_sample, job, many), tiles)))
    tail = telegraph.find_limit(reached, len(suspicion), p.telegraph_likelihood)
    highest_of = highest(suspicion, wanted)
    return replace(population, suspicion=highest_of, two_levels=tail.limit, by_chance=tail.above)


def describe_join(darks: DarkSet, job: Job, p: DarkDataSettings) -> list[str]:
    """A note on the depths that were joined, where they differ."""
    if not darks.mixed:
        return []
    number = [f.integrations for f in darks.files]
    chosen = plan.choose_depth(darks, p)
    return readouts.describe(darks.depths, number, chosen, readouts.weigh(np.array(job.spreads)))


def highest(values: NDArray[np.float32], fraction: float) -> float:
    """The value that this fraction of the pixels reaches."""
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 1 - fraction)) if known.size else float("inf")


# --- 3: bands ----------------------------------------------------------------------------------------------


def make_rows(start: int, stop: int, reference: NDArray[np.bool_], bias: NDArray[np.float32] | None) -> Rows:
    """A band of the frame."""
    return Rows(start, stop, reference[start:stop], None if bias is None else bias[start:stop])


def cut_bands(
    job: Job, reference: NDArray[np.bool_], bias: NDArray[np.float32] | None, height: int
) -> Iterator[Rows]:
    """All bands of the frame."""
    for start in range(0, job.shape[0], height):
        yield make_rows(start, min(start + height, job.shape[0]), reference, bias)


def assemble(found: Iterable[Band], job: Job) -> tuple[dict[str, Any], Candidates]:
    """The maps of the frame, and the candidates of all bands as one table (without scores).

    Maps and samples that the evidence alone needs wait on disk.
    """
    maps = {name: np.full(job.shape, np.nan, np.float32) for name in job.maps if name in NEEDED_MAPS}
    waiting = {name: DiskImage(job.shape) for name in job.maps if name not in NEEDED_MAPS}
    index, tables = [], []
    samples = {name: DiskTable(job.setup.integrations) for name in job.samples}
    steps: dict[str, list[NDArray[np.float32]]] = {}
    for band in found:
        for name, part in band.maps.items():
            if name in waiting:
                waiting[name].write_rows(band.start, part)
            else:
                maps[name][band.start : band.start + len(part)] = part
        index.append(band.index)
        tables.append(band.pixels)
        for name, values in band.samples.items():
            samples[name].append(values)
        for name, values in band.series.items():
            steps.setdefault(name, []).append(values)
    where = neighbors.Places(np.concatenate(index), job.shape)
    by_step = {k: np.concatenate(v) for k, v in steps.items()}
    return {**maps, **waiting}, Candidates(where, join(tables), {}, samples, by_step)
