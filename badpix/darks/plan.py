"""What is settled before the work on darks: groups, weights, cells, limits of candidates, what can be found."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.darks import cells, group_flags, hits, ramps, readouts, series, types
from badpix.darks.inputs import STEP_NAMES, DarkSet, list_missing_steps
from badpix.darks.readouts import Depth
from badpix.darks.scores import Cuts, Population, Setup
from badpix.darks.stack import BYTES_PER_PIXEL, Brightness, Dark, Job
from badpix.errors import DataError, UsageError
from badpix.io.depths import Readout
from badpix.io.evidence import Sparse
from badpix.io.fits import Layout, read_band
from badpix.io.spill import DiskImage
from badpix.settings.darks import DarkDataSettings, DarkSettings, HotSettings, TelegraphSettings

KEPT_GROUPS = 2000  # groups of a pixel that are kept for the search for two levels
MIN_KEPT = 5  # integrations
SUSPECT_GROUPS = 150  # groups of a pixel from which on fewer pixels are suspects,
FEWEST_SUSPECTS = 0.002  # down to this part
TASK_ROWS = 16  # rows of a task at least: what follows on few pixels is done for all of them together
KNOWN_FROM, KNOWN_ROWS = 4, 64  # integrations and rows that the known noise is read from, at least and at once
USUAL_GAIN = 2.0  # e/DN where the variances of the files tell none


def prepare_job(darks: DarkSet, reference: NDArray[np.bool_], p: DarkSettings) -> Job:
    """What all tasks need: usable groups, weights, cells, settings."""
    depth = choose_depth(darks, p)
    layouts, start, stop, clean = find_usable_groups(darks, depth, reference)
    fit = replace(
        ramps.ramp_fit(depth.groups, start, stop),
        most_hits=hits.most_hits(clean, stop - start),
        averaged=depth.frames > 1,
        first=start + next(f.first_group for f in darks.files if f.depth == depth),
    )
    window = darks.first.window
    detector = detectors.get(darks.first.keyword("DETECTOR"))
    cut = cells.make_cells(detectors.amplifier_map(detector, window), reference)
    templates = ramps.contrast_names(fit.templates)
    alike = list_alike(darks, depth)
    examined = tuple(alike[k] for k in choose_evenly(len(alike), p.examined_integrations))
    setup = Setup(fit.usable, depth.group_time, darks.integrations, templates, len(examined))
    if setup.integrations < p.min_integrations:
        raise DataError(
            f"{darks.first.path}: {setup.integrations} integration(s) in {len(darks.files)} dark(s), expected "
            f"{p.min_integrations} or more (min_integrations): one ramp can't tell a bad pixel from a cosmic ray"
        )
    return Job(
        layouts,
        fit,
        cut,
        setup,
        reference.shape,
        min(p.min_groups, fit.usable),
        make_cuts(p),
        p.hot_fraction,
        p.telegraph_drop_sigma,
        examined,
        series.order_steps(darks.dates, [f.integrations for f in darks.files])[0],
        kept=choose_kept(examined, fit.usable, p),
        apart=tuple(k for k in range(darks.integrations) if k not in alike),
    )


def choose_depth(darks: DarkSet, p: DarkDataSettings) -> Depth:
    """The depth in which noise and shape are measured."""
    number = [f.integrations for f in darks.files]
    return readouts.choose_depth(darks.depths, number, least=p.min_integrations, most=p.examined_integrations)


def describe_readout(darks: DarkSet, job: Job, population: Population, p: DarkDataSettings) -> Readout:
    """How the darks were read whose ramps were measured, and what a typical pixel is like."""
    chosen = choose_depth(darks, p)
    header = next(f.rate.header for f in darks.files if f.depth.joins(chosen))
    gap, frame_time = header.get("GROUPGAP"), header.get("TFRAME")
    skipped = gap if isinstance(gap, int) and gap > 0 else 0
    seconds = chosen.group_time / (chosen.frames + skipped)
    if isinstance(frame_time, int | float) and 0 < frame_time <= chosen.group_time:
        seconds = float(frame_time)
    skipped = max(round(chosen.group_time / seconds) - chosen.frames, 0)
    noise = float(np.exp(population.spread["log_noise"][0]))
    gain = chosen.group_time / population.shot_of_rate if population.shot_of_rate > 0 else USUAL_GAIN
    shot = measure_rate(job.darks[0]) * chosen.group_time / gain
    return Readout(chosen.pattern, job.fit.usable, chosen.frames, skipped, seconds, noise, shot, gain)


def measure_rate(dark: Dark) -> float:
    """Typical dark current of an exposure, DN/s, from bands of rows; its variances would hang on the noise."""
    ny = dark.rate.shape[-2]
    bands = [read_band(dark.rate, k * ny // 8, k * ny // 8 + 2) for k in (2, 4, 6)]
    with np.errstate(invalid="ignore"):
        middle = np.nanmedian(np.concatenate(bands, axis=-2))
    return float(max(middle, 0.0)) if np.isfinite(middle) else 0.0


def read_known_noise(job: Job) -> Sparse:
    """Noise of a group that the pipeline's reference knows at each pixel, DN: from the variances of whole ramps.

    NaN where the files give none; the smallest of some integrations counts, as flags in a ramp raise its variance.
    """
    out = DiskImage(job.shape)
    chosen: list[tuple[Dark, Layout]] = []
    integrations = 0
    for dark in job.darks:
        if dark.read_noise is not None and integrations < KNOWN_FROM:
            chosen.append((dark, dark.read_noise))
            integrations += dark.integrations
    for start in range(0, job.shape[0], KNOWN_ROWS):
        stop = min(start + KNOWN_ROWS, job.shape[0])
        known = np.full((stop - start, job.shape[1]), np.nan, np.float32)
        for dark, layout in chosen:
            groups = dark.stop - dark.start
            variance = np.fmin.reduce(read_band(layout, start, stop).reshape(-1, *known.shape))
            with np.errstate(invalid="ignore"):
                noise = np.sqrt(variance * np.float32((groups**3 - groups) / 12)) * np.float32(dark.group_time)
            known = np.fmin(known, np.where(noise > 0, noise, np.float32(np.nan)))
        out.write_rows(start, known)
    return Sparse(np.empty(0, np.intp), np.empty(0, np.float32), job.shape, out)


def list_alike(darks: DarkSet, depth: Depth) -> list[int]:
    """Integrations whose ramps are those of a depth, or go on longer."""
    number = [f.integrations for f in darks.files]
    whose = [d for d, n in zip(darks.depths, number, strict=True) for _ in range(n)]
    return [k for k, own in enumerate(whose) if own.joins(depth) and own.groups >= depth.groups]


def choose_kept(examined: tuple[int, ...], groups: int, p: TelegraphSettings) -> tuple[int, ...]:
    """Integrations whose ramps are kept for the search for two levels: about :data:`KEPT_GROUPS` groups a pixel."""
    if not p.telegraph_search or groups < ramps.SHORTEST_RAMP:
        return ()
    most = max(MIN_KEPT, KEPT_GROUPS // groups)
    return tuple(examined[k] for k in choose_evenly(len(examined), most))


def choose_suspects(job: Job, fraction: float) -> float:
    """Fraction of pixels looked at for two levels: less of long ramps and many integrations, which tell more."""
    return max(fraction * min(1.0, SUSPECT_GROUPS / max(len(job.kept) * job.fit.usable, 1)), FEWEST_SUSPECTS)


def choose_evenly(n: int, most: int) -> tuple[int, ...]:
    """At most ``most`` of the numbers 0 to n - 1, evenly spread: one of each of equal runs.

    Not always the first of a run: that might be the first integration of an exposure each time.
    """
    m = min(n, most)
    edges = [k * n // m for k in range(m + 1)]
    return tuple(a + k % (b - a) for k, (a, b) in enumerate(pairwise(edges)))


def make_cuts(p: DarkSettings) -> Cuts:
    """Limits of the candidates: lower where the user set lower limits of the searches."""
    usual = Cuts()
    sigmas = [s for s in (p.hot_sigma_threshold, p.warm_sigma_threshold) if s is not None]
    return Cuts(
        rate_sigma=min([usual.rate_sigma, *(0.5 * s for s in sigmas)]),
        rate=np.inf if p.hot_max_rate is None else 0.5 * p.hot_max_rate,
        noise=min(usual.noise, 0.75 * p.noisy_sigma_threshold),
        contrast=min(usual.contrast, 0.8 * p.rc_sigma_threshold),
        pedestal=min(usual.pedestal, 0.8 * p.low_pedestal_sigma_threshold),
        min_integrations=p.min_integrations,
    )


def choose_brightness(population: Population, p: HotSettings) -> Brightness | None:
    """From when on an integration is bright, as HOT; None where the order of time is not searched."""
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population)
    if limit is None or not p.time_search:
        return None
    return Brightness(limit, p.hot_own_threshold, p.hot_late_fraction)


def find_usable_groups(
    darks: DarkSet, depth: Depth, reference: NDArray[np.bool_]
) -> tuple[tuple[Dark, ...], int, int, float]:
    """Groups usable in all exposures of a depth, and the fraction of ramps without jumps, from a few rows of each.

    Returned are the layouts of all exposures with their usable groups, first and last (exclusive) of the depth, and
    the fraction.

    Raises
    ------
    DataError
        If fewer than two groups are left, or every pixel is saturated.
    """
    science = np.flatnonzero(~reference.all(axis=1))
    if not len(science):
        raise DataError(f"{darks.first.path}: every pixel is a reference pixel")
    rows = science[[len(science) // 4, len(science) // 2, 3 * len(science) // 4]]
    start, stop = 0, depth.groups
    full, clean, own, alike = [], [], [], []
    for dark in darks.files:
        planes = range(dark.groups)
        layout = dark.jump["GROUPDQ"]
        flags = np.concatenate([read_band(layout, y, y + 1, planes=planes) for y in rows], axis=1)
        a, b = ramps.usable_groups(flags, ~reference[rows])
        own.append((a, b))
        alike.append(dark.depth.joins(depth) and dark.groups >= depth.groups)
        if alike[-1]:
            start, stop = max(start, a), min(stop, b)
        if b - a < 2 or stop - start < 2:
            raise DataError(f"{dark.jump.path}: fewer than 2 groups are usable: GROUPDQ is DO_NOT_USE in the others")
        good = np.bitwise_or.reduce(flags[a:b], axis=0)[~reference[rows]]
        full.append(((flags[a] & group_flags.SATURATED) != 0)[~reference[rows]].mean())
        if alike[-1]:
            clean.append(((good & group_flags.JUMP_DET) == 0).mean())
    if min(full) > 0.5:
        raise DataError(
            f"{darks.first.path}: {min(full):.0%} of the pixels are saturated in the first group of every dark: "
            "these are no darks"
        )
    layouts = []
    for dark, (a, b), same in zip(darks.files, own, alike, strict=True):
        first, last = (start, stop) if same else (a, b)
        shot = (dark.depth.group_time / depth.group_time) ** 2 * max(b - a - 1, 1) / max(stop - start - 1, 1)
        layouts.append(replace(dark.layouts(), start=first, stop=last, shot=shot))
    return tuple(layouts), start, stop, float(np.mean(clean))


def band_rows(job: Job, memory: float) -> int:
    """Height of the bands: a multiple of the tiles' rows, as far as the memory allows.

    Raises
    ------
    UsageError
        If not even one tile fits.
    """
    stacks = 16 * job.setup.integrations + 4 * len(job.fit.names) * job.setup.examined
    stacks += 5 * len(job.kept) * job.fit.usable
    longest = max(dark.stop - dark.start for dark in job.darks)
    per_row = job.shape[1] * (stacks + 4 * job.fit.usable + longest)
    per_row += job.shape[1] * BYTES_PER_PIXEL
    tiles = int(memory // (per_row * job.cells.rows))
    if tiles < 1:
        raise UsageError(
            f"--max-memory: {job.cells.rows} rows of all integrations take {per_row * job.cells.rows / 1e6:.0f} MB, "
            f"{memory / 1e6:.0f} MB are left for each worker"
        )
    return job.cells.rows * min(tiles, 64)


def task_rows(job: Job) -> int:
    """Rows of one task: as many runs of rows that lie in memory together as make :data:`TASK_ROWS`."""
    return job.rows * -(-TASK_ROWS // job.rows)


def describe_steps(darks: DarkSet) -> list[str]:
    """A warning where the ramps miss a correction without which good pixels look bad."""
    missing: dict[str, int] = {}
    for dark in darks.files:
        for key in list_missing_steps(dark.jump.header):
            missing[key] = missing.get(key, 0) + 1
    return [
        f"{key}: the step {STEP_NAMES[key]} was not applied to {number} of {len(darks.files)} darks: what it takes "
        "off looks like defects of many good pixels; reduce them with it"
        for key, number in missing.items()
    ]


def describe_depth(job: Job, population: Population, p: DarkSettings) -> list[str]:
    """What can be found at this depth, and which searches are left out."""
    notes = []
    setup, n = job.setup, job.setup.integrations
    if setup.examined < n:
        notes.append(
            f"noise, RC and TELEGRAPH: the ramps of {setup.examined} of {n} integrations are examined "
            "(examined_integrations); rates of ramps without jumps, pedestals, jumps and saturation come from all"
        )
    if population.masked:
        notes.append(
            f"{population.masked:.2%} of the pixels are DO_NOT_USE in every group: a mask was in use. Their ramps "
            "are searched, but they have no slopes and no pedestals; `badpix prepare` takes such flags off"
        )
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population)
    if limit is not None:
        notes.append(f"HOT: rates above {limit:.4g} DN/s can be found")
    if limit is not None and p.hot_max_rate is not None and limit > p.hot_max_rate:
        notes.append(
            f"hot_max_rate = {p.hot_max_rate:g} DN/s is below what the noise of these darks supports: too shallow"
        )
    if not np.isfinite(population.spread["pedestal"][1]):
        notes.append(
            "low pedestal: not searched: ramps fitted with LIKELY have no pedestals (OLS_C gives them, with save_opt)"
        )
    elif p.low_pedestal_search_type == "mean":
        size = p.low_pedestal_sigma_threshold * population.spread["pedestal"][1]
        notes.append(f"low pedestal: more than {size:.3g} DN below the surroundings can be found")
    if setup.groups < ramps.SHORTEST_RAMP:
        notes.append(
            f"{setup.groups} usable groups, fewer than {ramps.SHORTEST_RAMP}: noise within the "
            "ramp, RC and TELEGRAPH are not searched"
        )
    elif p.rc_search_type == "shape":
        noise = float(np.exp(population.spread["log_noise"][0]))
        size = p.rc_sigma_threshold * noise / np.sqrt(setup.examined)
        notes.append(f"RC: contrasts above {size:.3g} DN can be found (noise of one group {noise:.3g} DN)")
    if setup.groups >= ramps.SHORTEST_RAMP and p.noisy_search_type == "ramp":
        width = population.spread["log_noise"][1]
        ratio = max(float(np.exp(p.noisy_sigma_threshold * width)), p.noisy_min_ratio)
        notes.append(f"noisy: above {ratio:.2f} times the median noise")
    if n < 5:
        notes.append(f"{n} integrations, fewer than 5: completeness and false positives were measured from 5 on")
    return notes
