"""The depth of a search in darks: which defects these exposures could have shown, and how many good pixels it flags.

1. Strengths around the limits of this run (:func:`choose_strengths`), eight of each kind.
2. A few bands of rows are read again; on a grid of good pixels the ramps are changed (:mod:`badpix.darks.injection`),
   and the same measure, score and decide functions run over the band. Nothing of it reaches the mask.
3. Found is what got its right type; flagged is what got any.
4. False alarms, three estimates. *Sign*: pixels as far below as the limit is above. *Time*: the groups of all good
   ramps of every other band are shuffled, which keeps each pixel's noise and destroys memory, decay and steps.
   *Halves*: flags that the odd or the even exposures alone make (:mod:`badpix.darks.halves`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from badpix.darks import halves, injection, ramps, types
from badpix.darks.bands import Band
from badpix.darks.candidates import Candidates
from badpix.darks.injection import SPACING, Agreement
from badpix.darks.scores import Population, score_pixels
from badpix.darks.second_pass import Injected, Plan, measure_injected, measure_shuffled
from badpix.darks.stack import Job, Rows
from badpix.darks.stats import Stats, join
from badpix.io.depths import Alarm, Depth
from badpix.io.tasks import run_in_order
from badpix.numerics import neighbors
from badpix.settings.darks import DarkSettings

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Index = NDArray[np.intp]

BAND_ROWS = 16  # rows of a band that is read again, at most
COPY_BYTES, ROOM = 25, 20e6  # bytes that a group of a copied ramp takes, and that all copies of a band may take
UNITS = {
    "hot": "DN/s",
    "rc": "DN",
    "telegraph": "DN",
    "noisy": "times its noise",
    "low_pedestal": "DN",
    "intermittent": "of the darks",
}
RIGHT = {"intermittent": ("intermittent", "hot")}  # types that count as right; else the kind itself
STEPS = np.array([0.5, 0.75, 0.9, 1.0, 1.15, 1.35, 1.8, 4.0])  # strengths over the limit
FEWEST_DARKS = 6  # of which intermittent pixels can be hot in some
IN_BLINK = 3.0  # rate of an intermittent pixel in its hot darks, over the limit of HOT
AGREES = 0.98  # share of unchanged copies on which the emulation must give what the files say
SHUFFLED_PART = 0.5  # of the bands, read once more with shuffled groups
NEEDS = {
    "hot": {"slopes"},
    "intermittent": {"slopes"},
    "low_pedestal": {"pedestals"},
    "rc": {"slopes"},
}  # what of the emulation the depth of a kind hangs on
SHAPED = ("rc", "telegraph")  # types that the order of groups decides


def choose_strengths(job: Job, population: Population, p: DarkSettings) -> dict[str, NDArray[np.float64]]:
    """Eight strengths of each kind of defect that is searched, around its limit."""
    noise = float(np.exp(population.spread["log_noise"][0]))
    out = {}
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population)
    shaped = job.setup.groups >= ramps.SHORTEST_RAMP
    if limit is not None:
        out["hot"] = limit * STEPS
    if shaped and p.rc_search_type == "shape":
        out["rc"] = 1.8 * p.rc_sigma_threshold * noise / np.sqrt(job.setup.examined) * STEPS
    if shaped and p.telegraph_search and job.kept:
        out["telegraph"] = 1.8 * noise * np.sqrt(300 / (len(job.kept) * job.fit.usable)) ** 0.5 * STEPS
    if shaped and p.noisy_search_type == "ramp":
        excess = np.exp(p.noisy_sigma_threshold * population.spread["log_noise"][1]) - 1
        out["noisy"] = 1 + max(excess, p.noisy_min_ratio - 1) * STEPS
    if p.low_pedestal_search_type == "mean" and np.isfinite(population.spread["pedestal"][1]):
        out["low_pedestal"] = p.low_pedestal_sigma_threshold * population.spread["pedestal"][1] * STEPS
    number = len(job.darks)
    if limit is not None and job.bright is not None and number >= FEWEST_DARKS:
        counts = np.unique(np.rint(np.linspace(1, 0.7 * number, injection.LEVELS)))
        out["intermittent"] = np.resize(counts, injection.LEVELS) / number
    return out


def choose_bands(job: Job, height: int, wanted: int) -> list[tuple[int, int]]:
    """Bands spread over the frame that hold so many pixels of the grid."""
    ny, nx = job.shape
    copies = sum(dark.integrations * dark.groups for dark in job.darks) * nx / SPACING**2 * COPY_BYTES  # of a row
    height = min(height, BAND_ROWS, int(ROOM / copies))
    height = max(job.cells.rows, height // job.cells.rows * job.cells.rows)
    bands = [(y, min(y + height, ny)) for y in range(0, ny, height)]
    number = min(len(bands), max(1, -(-wanted * SPACING**2 // (height * nx))))
    return [bands[(2 * k + 1) * len(bands) // (2 * number)] for k in range(number)]


# --- 3: what was found -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Second:
    """What the second pass shares: job and population of the first, height of its bands, reference pixels, bias,
    executor, inter-pixel capacitance."""

    job: Job
    population: Population
    height: int
    reference: Bool
    bias: Float | None
    executor: Executor | None
    ipc: float = 0.0


def measure_depth(
    second: Second,
    maps: dict[str, Any],
    result: types.Outcome,
    table: Candidates,
    sample: Stats,
    choose: Callable[..., Any],
    p: DarkSettings,
) -> tuple[list[Depth], list[Alarm], list[str]]:
    """The depth of a search that is done.

    Parameters
    ----------
    second : Second
        Of the first pass.
    maps : dict
        Its images; as they were when this is over.
    result : Outcome
        What it decided.
    table : Candidates
        Of the first pass.
    sample : dict
        Statistics of a sample of pixels, for the sign test of noise.
    choose : callable
        ``choose(table, maps)``: all searches in a table of candidates.
    p : DarkSettings

    Returns
    -------
    depth, alarms, notes : list
    """
    job, population = second.job, second.population
    plan = make_plan(job, population, maps["rate"], second.ipc, p)
    flagged = np.any(list(result.detection.maps.values()), axis=0)
    good = neighbors.clear_of(flagged) & ~second.reference
    bands = choose_bands(job, second.height, p.depth_pixels)
    tasks = [(_make_rows(second, a, b), good[a:b]) for a, b in bands]
    injected = list(run_in_order(second.executor, partial(measure_injected, job, population, plan), tasks))
    found, _, _ = _choose_in(choose, maps, [i.band for i in injected], job)
    rows, notes = _withhold(count_found(plan, injected, found.detection.maps), injected)
    alarms = count_below(maps["rate"], result.pedestal_sigma, good, population, p)
    alarms += count_quiet(sample, job, population, p)
    some = tasks[:: max(1, round(1 / SHUFFLED_PART))]
    shuffled = list(run_in_order(second.executor, partial(measure_shuffled, job, population, plan.seed), some))
    found, _, _ = _choose_in(choose, maps, shuffled, job)
    inside = np.zeros(job.shape, bool)
    for rows_of, mine in some:
        inside[rows_of.start : rows_of.stop] = mine
    for name in (n for n in SHAPED if n in found.detection.maps):
        hits = int((found.detection.maps[name] & inside).sum())
        alarms.append(Alarm(name, "time", int(inside.sum()), hits))
    flags = {name: image.flat[table.places.index] for name, image in result.detection.maps.items()}
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population)
    alarms += halves.count_unrepeated(
        table.pixels, flags, {} if limit is None else {"hot": limit}, population, int(good.sum()), p
    )
    return rows, alarms, notes


def _make_rows(second: Second, start: int, stop: int) -> Rows:
    bias = None if second.bias is None else second.bias[start:stop]
    return Rows(start, stop, second.reference[start:stop], bias)


def _choose_in(choose: Callable[..., Any], maps: dict[str, Any], bands: Sequence[Band], job: Job) -> Any:
    """Decide on the candidates of some bands, whose images stand in the maps meanwhile."""
    kept = [
        (name, b.start, maps[name][b.start : b.start + len(image)].copy())
        for b in bands
        for name, image in b.maps.items()
    ]
    for band in bands:
        for name, image in band.maps.items():
            maps[name][band.start : band.start + len(image)] = image
    where = neighbors.Places(np.concatenate([b.index for b in bands]), job.shape)
    series = {name: np.concatenate([b.series[name] for b in bands]) for name in bands[0].series}
    table = Candidates(where, join([b.pixels for b in bands]), {}, {}, series)
    try:
        return choose(table, maps)
    finally:
        for name, start, image in kept:
            maps[name][start : start + len(image)] = image


def _withhold(rows: list[Depth], injected: Sequence[Injected]) -> tuple[list[Depth], list[str]]:
    """The rows without those that need an emulation which does not reproduce the files; and a note on it."""
    agreed = sum((i.agreement for i in injected), Agreement())
    part = {name: getattr(agreed, name) / max(agreed.copies, 1) for name in ("flags", "slopes", "pedestals")}
    told = ", ".join(f"{name} {share:.1%}" for name, share in part.items())
    number = sum(len(i.pixels) for i in injected)
    notes = [f"depth: {number} copies of pixels; the emulation gives what the files say in: {told}"]
    poor = {name for name, share in part.items() if share < AGREES}
    lost = [k for k, needed in NEEDS.items() if poor & needed and any(r.search == k for r in rows)]
    if lost:
        notes.append(f"depth of {', '.join(lost)} is not given: that needs {AGREES:.0%} of {', '.join(sorted(poor))}")
    return [row for row in rows if row.search not in lost], notes


def count_quiet(sample: Stats, job: Job, population: Population, p: DarkSettings) -> list[Alarm]:
    """The sign test of noise: pixels of a sample as far below the usual noise as the limit is above."""
    if p.noisy_search_type != "ramp" or job.setup.groups < ramps.SHORTEST_RAMP:
        return []
    scores = score_pixels(sample, job.setup, population)["noise_z"]
    known = np.isfinite(scores)
    return [Alarm("noisy", "sign", int(known.sum()), int((scores[known] < -p.noisy_sigma_threshold).sum()))]


def make_plan(job: Job, population: Population, rate: Float, ipc: float, p: DarkSettings) -> Plan:
    """The plan of the second pass; equal darks give equal seeds."""
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population) or 0.0
    seed = crc32(np.ascontiguousarray(rate[len(rate) // 2]).tobytes())
    return Plan(seed, choose_strengths(job, population, p), IN_BLINK * limit, ipc)


def count_found(plan: Plan, injected: Sequence[Injected], maps: dict[str, Bool]) -> list[Depth]:
    """How many defects of each kind and strength got the right type, and how many any."""
    pixels = np.concatenate([i.pixels for i in injected])
    kind, level = np.concatenate([i.kind for i in injected]), np.concatenate([i.level for i in injected])
    flagged = np.any([image.flat[pixels] for image in maps.values()], axis=0)
    rows = []
    for k, (name, strengths) in enumerate(plan.strengths.items()):
        right = np.any([maps[t].flat[pixels] for t in RIGHT.get(name, (name,)) if t in maps], axis=0)
        for strength in np.unique(strengths):
            mine = (kind == k) & np.isin(level, np.flatnonzero(strengths == strength))
            rows.append(
                Depth(
                    name,
                    float(strength),
                    UNITS[name],
                    int(mine.sum()),
                    int((right & mine).sum()),
                    int((flagged & mine).sum()),
                )
            )
    return rows


def count_below(
    rate: Float, pedestal_sigma: Float | None, good: Bool, population: Population, p: DarkSettings
) -> list[Alarm]:
    """The sign test: pixels as far below as the limits are above."""
    number, out = int(good.sum()), []
    for name, sigma, most in (("hot", p.hot_sigma_threshold, p.hot_max_rate), ("warm", p.warm_sigma_threshold, None)):
        limit = types.rate_limit(sigma, most, population)
        if limit is not None:
            with np.errstate(invalid="ignore"):
                out.append(Alarm(name, "sign", number, int(((rate < -limit) & good).sum())))
    if pedestal_sigma is not None:
        with np.errstate(invalid="ignore"):
            high = (pedestal_sigma > p.low_pedestal_sigma_threshold) & good
        out.append(Alarm("low_pedestal", "sign", number, int(high.sum())))
    return out
