"""The depth of a search in darks: which defects these exposures could have shown, and how many good pixels it flags.

1. Strengths around the limits of this run (:func:`choose_strengths`), eight of each kind.
2. A few bands of rows are read again; the ramps of good pixels on a grid are copied and changed
   (:mod:`badpix.darks.injection`), and the same measure and score functions run over the copies
   (:mod:`badpix.darks.second_pass`). Nothing of it reaches the mask.
3. The copies are decided on in the place of their pixels, in a cutout of the frame's maps that holds the bands and
   what lies around them (:class:`Cutout`), one copy of each pixel at a time. Found is what got its right type;
   flagged is what got any.
4. False alarms, four estimates. *Sign*: pixels as far below as the limit is above. *Time*: the groups of all good
   ramps of some bands are shuffled, which keeps each pixel's noise and destroys memory, decay and steps.
   *Tail*: what the scores of good pixels fall off to at the limit, where the limit is set by them (TELEGRAPH).
   *Halves*: flags that the odd or the even exposures alone make (:mod:`badpix.darks.halves`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from badpix.darks import halves, injection, ramps, types
from badpix.darks.candidates import Candidates
from badpix.darks.injection import SPACING, Agreement
from badpix.darks.scores import Population, score_pixels
from badpix.darks.second_pass import LAYERS, Injected, Plan, measure_injected, measure_shuffled
from badpix.darks.stack import Job, Rows
from badpix.darks.stats import Stats
from badpix.io.depths import Alarm, Depth
from badpix.io.tasks import run_in_order
from badpix.numerics import neighbors
from badpix.settings.darks import DarkSettings

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Index = NDArray[np.intp]

BAND_ROWS = 4  # rows of a band, at least: one of them is on the grid of copied pixels
MARGIN, NEAR = 10, 3  # rows around a band that tell of its pixels' surroundings (badpix.darks.surroundings), and
# whose candidates do
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
SHUFFLED = 4  # pixels whose groups are shuffled, over the copies that are asked for
NEEDS = {
    "hot": {"slopes"},
    "intermittent": {"slopes"},
    "low_pedestal": {"pedestals"},
    "rc": {"slopes"},
}  # what of the emulation the depth of a kind hangs on
FAR = 1.35  # times a limit that noise does not reach: a pedestal as high as that holds charge of a hit
TAIL_COUNT = 16  # false alarms that a tail of likelihoods is worth
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
    """Bands of whole tiles, about ``height`` rows each, spread over the frame, that hold so many pixels."""
    ny, nx = job.shape
    height = max(job.cells.rows, height // job.cells.rows * job.cells.rows)
    bands = [(y, min(y + height, ny)) for y in range(0, ny, height)]
    number = min(len(bands), max(1, round(wanted / (height * nx))))
    return [bands[(2 * k + 1) * len(bands) // (2 * number)] for k in range(number)]


# --- 3: what was found -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Second:
    """What the second pass shares: job and population of the first, reference pixels, bias, executor, inter-pixel
    capacitance; its maps and candidates, with the charge that leaked in; all searches in a table of candidates,
    ``choose(table, maps)``; scatter of the pedestals."""

    job: Job
    population: Population
    reference: Bool
    bias: Float | None
    executor: Executor | None
    ipc: float
    maps: Mapping[str, Any]
    table: Candidates
    choose: Callable[..., Any]
    pedestal_spread: float | None = None


def measure_depth(
    second: Second, result: types.Outcome, sample: Stats, p: DarkSettings
) -> tuple[list[Depth], list[Alarm], list[str]]:
    """The depth of a search that is done.

    Parameters
    ----------
    second : Second
        Of the first pass.
    result : Outcome
        What it decided.
    sample : dict
        Statistics of a sample of pixels, for the sign test of noise.
    p : DarkSettings

    Returns
    -------
    depth, alarms, notes : list
    """
    job, population, table = second.job, second.population, second.table
    plan = make_plan(job, population, second.maps["rate"], second.ipc, p)
    flagged = np.any(list(result.detection.maps.values()), axis=0)
    good = neighbors.clear_of(flagged) & ~second.reference
    rows, notes = measure_completeness(second, plan, good, p.depth_pixels)
    alarms = count_below(second.maps["rate"], result.pedestal_sigma, good, population, p)
    alarms += count_quiet(sample, job, population, p)
    alarms += tell_switching(population) if "telegraph" in result.detection.maps else []
    alarms += count_shuffled(second, plan, good, SHUFFLED * p.depth_pixels)
    flags = {name: image.flat[table.places.index] for name, image in result.detection.maps.items()}
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population)
    alarms += halves.count_unrepeated(
        table.pixels, flags, {} if limit is None else {"hot": limit}, population, int(good.sum()), p
    )
    return rows, alarms, notes


def measure_completeness(second: Second, plan: Plan, good: Bool, wanted: int) -> tuple[list[Depth], list[str]]:
    """What was found in so many copies of good pixels, and notes."""
    job = second.job
    bands = choose_bands(job, BAND_ROWS, -(-wanted * SPACING**2 // LAYERS))
    tasks = [(_make_rows(second, a, b), good[a:b], second.maps["rate"][a:b]) for a, b in bands]
    found = list(run_in_order(second.executor, partial(measure_injected, job, second.population, plan), tasks))
    cutout = Cutout.around(bands, job.shape)
    rows = count_found(plan, found, [_decide_layer(second, cutout, found, k) for k in range(LAYERS)], cutout)
    return _withhold(rows, found)


def count_shuffled(second: Second, plan: Plan, good: Bool, wanted: int) -> list[Alarm]:
    """The time test: what is found in good pixels whose groups are in another order."""
    job = second.job
    bands = choose_bands(job, BAND_ROWS, wanted)
    tasks = [(_make_rows(second, a, b), good[a:b]) for a, b in bands]
    task = partial(measure_shuffled, job, second.population, plan.seed)
    found = list(run_in_order(second.executor, task, tasks))
    cutout, nx = Cutout.around(bands, job.shape), job.shape[1]
    places = [np.arange(a * nx, b * nx) for a, b in bands]
    pedestal = np.concatenate([band.maps["pedestal"].ravel() for band in found])
    parts = [(band.index, band.pixels, band.series) for band in found]
    maps = _decide(second, cutout, np.concatenate(places), pedestal, parts).detection.maps
    inside = cutout.places(np.concatenate(places)[np.concatenate([good[a:b].ravel() for a, b in bands])])
    return [Alarm(name, "time", len(inside), int(maps[name].flat[inside].sum())) for name in SHAPED if name in maps]


@dataclass(frozen=True)
class Cutout:
    """Some rows of a frame under each other: ``rows`` (ascending) of a frame of ``shape``; which rows of the frame
    ``tell`` of the pixels that are decided on there."""

    rows: Index
    shape: tuple[int, int]
    tell: Bool

    @classmethod
    def around(cls, bands: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Cutout:
        """The rows of bands with :data:`MARGIN` around them."""
        wanted, tell = np.zeros((2, shape[0]), bool)
        for a, b in bands:
            wanted[max(a - MARGIN, 0) : b + MARGIN] = True
            tell[max(a - NEAR, 0) : b + NEAR] = True
        return cls(np.flatnonzero(wanted), shape, tell)

    def places(self, index: Index) -> Index:
        """Flat indices in the cutout of those in the frame."""
        y, x = np.divmod(index, self.shape[1])
        return np.searchsorted(self.rows, y) * self.shape[1] + x


Part = tuple[Index, Stats, dict[str, Float]]  # places in the frame, statistics and series of candidates


def _decide_layer(second: Second, cutout: Cutout, injected: Sequence[Injected], layer: int) -> Any:
    """The decision on one copy of each pixel."""
    places, pedestals, parts = [], [], []
    for band in injected:
        n = len(band.index) // LAYERS
        here, columns = slice(layer * n, (layer + 1) * n), band.columns
        places.append(band.index[here])
        pedestals.append(columns.pedestal[here])
        first, last = np.searchsorted(columns.candidates, (layer * n, (layer + 1) * n))
        mine = slice(first, last)
        parts.append(
            (
                band.index[columns.candidates[mine]],
                {name: column[mine] for name, column in columns.pixels.items()},
                {name: column[mine] for name, column in columns.series.items()},
            )
        )
    return _decide(second, cutout, np.concatenate(places), np.concatenate(pedestals), parts)


def _decide(second: Second, cutout: Cutout, index: Index, pedestal: Float, parts: Sequence[Part]) -> types.Outcome:
    """Decide on some pixels in the place of the frame's own.

    Their surroundings, the map of rates and the scatter of the pedestals stay those of the frame: one pixel in
    sixteen is changed, and defects have few others around them.

    Parameters
    ----------
    second : Second
        Of the first pass.
    cutout : Cutout
        Where.
    index : ndarray
        (n,) the pixels: flat indices in the frame.
    pedestal : ndarray
        (n,) theirs.
    parts : sequence
        Candidates among them.
    """
    maps = {name: second.maps[name][cutout.rows] for name in ("rate", "pedestal")}
    there = cutout.places(index)
    maps["pedestal"].flat[there] = pedestal
    table, nx = second.table, cutout.shape[1]
    kept = np.flatnonzero(cutout.tell[table.places.index // nx])
    replaced = np.zeros(maps["rate"].size, bool)
    replaced[there] = True
    kept = kept[~replaced[cutout.places(table.places.index[kept])]]
    names, series = parts[0][1], parts[0][2]
    where = np.concatenate([cutout.places(i) for i in (table.places.index[kept], *(part[0] for part in parts))])
    order = np.argsort(where, kind="stable")
    pixels = {n: np.concatenate([table.pixels[n][kept], *(part[1][n] for part in parts)])[order] for n in names}
    steps = {n: np.concatenate([table.series[n][kept], *(part[2][n] for part in parts)])[order] for n in series}
    places = neighbors.Places(where[order], (len(cutout.rows), nx))
    found: types.Outcome = second.choose(
        Candidates(places, pixels, {}, {}, steps), maps, pedestal_spread=second.pedestal_spread
    )[0]
    return found


def _make_rows(second: Second, start: int, stop: int) -> Rows:
    bias = None if second.bias is None else second.bias[start:stop]
    return Rows(start, stop, second.reference[start:stop], bias)


def _withhold(rows: list[Depth], injected: Sequence[Injected]) -> tuple[list[Depth], list[str]]:
    """The rows without those that need an emulation which does not reproduce the files; and a note on it."""
    agreed = sum((i.agreement for i in injected), Agreement())
    part = {name: getattr(agreed, name) / max(agreed.copies, 1) for name in ("flags", "slopes", "pedestals")}
    told = ", ".join(f"{name} {share:.1%}" for name, share in part.items())
    number = sum(len(i.index) for i in injected)
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


def tell_switching(population: Population) -> list[Alarm]:
    """The tail of the likelihoods of good pixels, from which the limit of TELEGRAPH follows: how many are above it.

    The line through the tail is known to a quarter, as a count of :data:`TAIL_COUNT` would be.
    """
    if not population.by_chance > 0:
        return []
    pixels = min(round(TAIL_COUNT / population.by_chance), np.iinfo(np.int32).max)
    return [Alarm("telegraph", "tail", pixels, TAIL_COUNT)]


def make_plan(job: Job, population: Population, rate: Float, ipc: float, p: DarkSettings) -> Plan:
    """The plan of the second pass; equal darks give equal seeds."""
    limit = types.rate_limit(p.hot_sigma_threshold, p.hot_max_rate, population) or 0.0
    seed = crc32(np.ascontiguousarray(rate[len(rate) // 2]).tobytes())
    return Plan(seed, choose_strengths(job, population, p), IN_BLINK * limit, ipc)


def count_found(
    plan: Plan, injected: Sequence[Injected], outcomes: Sequence[types.Outcome], cutout: Cutout
) -> list[Depth]:
    """How many defects of each kind and strength got the right type, and how many any; one outcome a layer."""
    kind, level, types_of = [], [], []
    for layer, outcome in enumerate(outcomes):
        for band in injected:
            n = len(band.index) // LAYERS
            here = slice(layer * n, (layer + 1) * n)
            at = cutout.places(band.index[here])
            kind.append(band.kind[here])
            level.append(band.level[here])
            types_of.append({name: image.flat[at] for name, image in outcome.detection.maps.items()})
    found = {name: np.concatenate([part[name] for part in types_of]) for name in types_of[0]}
    which, strong, flagged = np.concatenate(kind), np.concatenate(level), np.any(list(found.values()), axis=0)
    rows = []
    for k, (name, strengths) in enumerate(plan.strengths.items()):
        right = np.any([found[t] for t in RIGHT.get(name, (name,)) if t in found], axis=0)
        for strength in np.unique(strengths):
            mine = (which == k) & np.isin(strong, np.flatnonzero(strengths == strength))
            counts = (int((part & mine).sum()) for part in (np.ones_like(mine), right, flagged))
            rows.append(Depth(name, float(strength), UNITS[name], *counts))
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
            high &= pedestal_sigma < FAR * p.low_pedestal_sigma_threshold
        out.append(Alarm("low_pedestal", "sign", number, int(high.sum())))
    return out
