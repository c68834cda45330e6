"""Darks in bands of rows: what is measured of them, and what leaves a band.

A task is one band of rows over all files and integrations (:mod:`badpix.darks.stack`). What leaves a band is small: a
few maps, and the statistics of its candidates. :func:`measure_stack` does the same with ramps that lie in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from badpix.darks import halves, ramps, searches, series, telegraph
from badpix.darks.chosen import Chosen, join_chosen
from badpix.darks.integrations import Integrations
from badpix.darks.scores import Population, expected_noise, find_candidates, find_suspects, score_pixels
from badpix.darks.stack import NEEDED_MAPS, Brightness, Job, Rows, cut, read_band_stack
from badpix.darks.stats import Stats, combine_integrations, examine_pixels, join
from badpix.numerics import clipping, neighbors

EVIDENCE_MAPS = (*NEEDED_MAPS, "noise", "telegraph", "rc", "jumps")  # the same where evidence is wanted
SAMPLED = ("rate", "pedestal", "jumps")  # values by integration that are kept of candidates, for the evidence
LONE = 0.5  # of that limit: what the neighbors of a hot pixel that stands alone stay below,
LEAKED = 0.05  # or this part of its own rate
HOT_SIGMA = 30.0  # median rate over the scatter from which on a pixel tells the dark current's scale
SAMPLE_PIXELS = 1 << 16  # pixels of the sample that describes the population
OTHER_SIGMA = 10.0  # scatter of the rates over pixels from which on a rate without its ramp is bright
OWN_STEP = 1.42  # noise of a group in a step of the depth that several good pixels don't reach (sqrt 2 and a margin)
NEAR = 3.0  # likelihood below its limit down to which a suspect is kept for the evidence
GATHERED = 512  # pixels from which on they are examined together: they take 17 kB each, 100 integrations of 20 groups
PROMISING = 4.5  # what a closer look may add to the likelihood of a suspect at most


@dataclass(frozen=True)
class Band:
    """What leaves a band: maps (rows, nx), candidates' flat indices in the frame, statistics, values by integration
    (candidates, n), and by step in time (:func:`badpix.darks.series.measure_series`)."""

    start: int
    maps: dict[str, NDArray[np.float32]]
    index: NDArray[np.intp]
    pixels: Stats
    samples: dict[str, NDArray[np.float32]]
    series: dict[str, NDArray[np.float32]]


# --- tasks -----------------------------------------------------------------------------------------------


def sample_tiles(job: Job, reference: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Tiles spread evenly over the science rows, enough to describe the population; all of a small frame."""
    rows, ny = job.cells.rows, job.shape[0]
    tiles = [(y, min(y + rows, ny)) for y in range(0, ny, rows)]
    tiles = [(a, b) for a, b in tiles if not reference[a:b].all(axis=1).any()] or tiles
    wanted = max(1, -(-SAMPLE_PIXELS // (rows * job.shape[1])))
    if len(tiles) <= wanted:
        return tiles
    last = len(tiles) - 1  # both ends of the frame: its borders may be louder
    return [tiles[round(k * last / max(wanted - 1, 1))] for k in range(wanted)]


@dataclass(frozen=True)
class Sample:
    """What a tile tells of the population: statistics of its science pixels and their flat indices in the frame, the
    scatter of the rate in each integration (n,), rates of hot pixels (pixels, n)."""

    pixels: Stats
    index: NDArray[np.intp]
    spread: NDArray[np.float32]
    hot: NDArray[np.float32]


def measure_sample(job: Job, band: Rows) -> Sample:
    """Measure all science pixels of one tile."""
    found = read_band_stack(job, band)
    science = np.flatnonzero(~band.reference.reshape(-1))
    pixels = _combine(job, found)
    if job.levels is not None:
        pixels["level"] = job.levels.of_rows(band.start, band.stop).ravel()
    pixels["bright"] = _count_bright(job, found, pixels)
    spread = np.array([clipping.scatter_beside(line[science]) for line in found.rate], np.float32)
    with np.errstate(invalid="ignore"):
        usual = float(np.median(spread[np.isfinite(spread)])) if np.isfinite(spread).any() else np.inf
    lone = find_lone(pixels["rate"].reshape(-1, job.shape[1]), HOT_SIGMA * usual) & ~band.reference
    hot = np.flatnonzero(lone)
    mine = {name: column[science] for name, column in pixels.items()}
    return Sample(mine, science + band.start * job.shape[1], spread, found.rate[:, hot].T.copy())


def find_lone(rate: NDArray[np.float32], limit: float) -> NDArray[np.bool_]:
    """Pixels above ``limit`` whose 8 neighbors are not: hot pixels, where glow and stars' persistence are areas.

    What a bright pixel leaks counts for nothing.
    """
    with np.errstate(invalid="ignore"):
        bright = rate > limit
    y, x = np.nonzero(bright)
    box = neighbors.gather(rate, y, x, 1)
    box[4] = np.nan
    around = np.fmax.reduce(box, axis=0)
    out = np.zeros(rate.shape, bool)
    with np.errstate(invalid="ignore"):
        out[y, x] = ~(around > np.maximum(LONE * limit, LEAKED * rate[y, x]))
    return out


def judge_sample(job: Job, population: Population, band: Rows) -> NDArray[np.float32]:
    """Likelihood ratios of those pixels of one tile of the sample that look most like switching, without what their
    shot noise asks for beyond the limit."""
    found = read_band_stack(job, band)
    pixels = _combine(job, found)
    if job.levels is not None:
        pixels["level"] = job.levels.of_rows(band.start, band.stop).ravel()
    pixels["bright"] = _count_bright(job, found, pixels)
    scores = score_pixels(pixels, job.setup, population)
    suspects = find_suspects(pixels, scores, job.setup, population, job.cuts) & ~band.reference.reshape(-1)
    suspects &= ~find_candidates(pixels, scores, job.setup, population, job.cuts)  # most of these are bad
    places = np.flatnonzero(suspects)
    table, own = ({name: column[places] for name, column in part.items()} for part in (pixels, scores))
    cost = searches.shot_cost(table, own["shot"], job.setup, population)
    return _judge(job, population, found, places, table, own)["likelihood"] - cost


def measure_band(job: Job, population: Population, band: Rows) -> Band:
    """Read a band, as many rows at a time as :attr:`badpix.darks.stack.Job.rows` says, and measure it.

    Pixels that are looked at again are gathered from several runs of rows: each step then works on more of them.
    """
    height = job.rows or band.stop - band.start
    maps = {name: np.empty(band.reference.shape, np.float32) for name in job.maps}
    examined: list[_Examined] = []
    waiting: list[Chosen] = []
    for start in range(band.start, band.stop, height):
        rows = band.cut(start, min(start + height, band.stop))
        mine = {name: image[start - band.start : rows.stop - band.start].reshape(-1) for name, image in maps.items()}
        chosen = _choose(job, population, rows, read_band_stack(job, rows), mine)
        if len(chosen.index) < GATHERED:
            waiting.append(chosen.gather())
        number = sum(len(part.index) for part in waiting)
        if waiting and (number >= GATHERED or len(chosen.index) >= GATHERED or rows.stop == band.stop):
            examined.append(_examine_chosen(job, population, join_chosen(waiting)))
            waiting = []
        if len(chosen.index) >= GATHERED:  # so many that they stay where they are
            examined.append(_examine_chosen(job, population, chosen))
    return _make_band(band, maps, examined)


def measure_stack(job: Job, population: Population, band: Rows, stack: Integrations) -> Band:
    """Maps of a band whose integrations are given, and all that is known of its candidates."""
    maps = {name: np.empty(band.reference.shape, np.float32) for name in job.maps}
    chosen = _choose(job, population, band, stack, {name: image.reshape(-1) for name, image in maps.items()})
    return _make_band(band, maps, [_examine_chosen(job, population, chosen)])


@dataclass(frozen=True)
class _Examined:
    """What a band says of some of its candidates (:class:`Band`)."""

    index: NDArray[np.intp]
    pixels: Stats
    samples: dict[str, NDArray[np.float32]]
    series: dict[str, NDArray[np.float32]]


def _make_band(band: Rows, maps: dict[str, NDArray[np.float32]], found: list[_Examined]) -> Band:
    index = np.concatenate([part.index for part in found])
    pixels, samples, by_step = (join([getattr(p, name) for p in found]) for name in ("pixels", "samples", "series"))
    return Band(band.start, maps, index, pixels, samples, by_step)


def _choose(
    job: Job, population: Population, band: Rows, stack: Integrations, maps: dict[str, NDArray[np.float32]]
) -> Chosen:
    """The pixels of a band that are looked at again; its maps, (pixels,) each, are filled in."""
    size, step = band.reference.size, job.cells.rows * job.shape[1]
    found = [_score_tile(job, population, band, stack, slice(k, k + step), maps) for k in range(0, size, step)]
    places = np.concatenate([tile.index for tile in found])
    table, noise = join([tile.pixels for tile in found]), join([tile.noise for tile in found])
    suspect, sure = (np.concatenate([getattr(tile, name) for tile in found]) for name in ("suspect", "sure"))
    return Chosen(places + band.start * job.shape[1], places, table, noise, suspect, sure, stack)


def _examine_chosen(job: Job, population: Population, chosen: Chosen) -> _Examined:
    """All that is known of those that are candidates."""
    table, stack = dict(chosen.pixels), chosen.stack
    table |= _judge_some(job, population, stack, chosen.places, chosen.suspect, chosen.sure, table, chosen.noise)
    with np.errstate(invalid="ignore"):
        keep = np.flatnonzero(chosen.sure | (table["likelihood"] > population.two_levels - NEAR))
    places, table = chosen.places[keep], {name: column[keep] for name, column in table.items()}
    samples = {name: getattr(stack, name)[:, places].T.astype(np.float32) for name in job.samples}
    table |= _examine(job, stack, places, table)
    if job.halves is not None:
        table |= halves.measure_halves(job, population, stack, places, table, partial(_combine, job))
    return _Examined(chosen.index[keep], table, samples, _measure_series(job, stack, places, table))


@dataclass(frozen=True)
class Columns:
    """What is known of single pixels: (n,) rate and pedestal of each, which are candidates, and of these (m,) the
    statistics and the values by step in time."""

    rate: NDArray[np.float32]
    pedestal: NDArray[np.float32]
    candidates: NDArray[np.intp]
    pixels: Stats
    series: dict[str, NDArray[np.float32]]


def measure_columns(job: Job, population: Population, stack: Integrations, index: NDArray[np.intp]) -> Columns:
    """What :func:`measure_stack` measures, of single pixels.

    Parameters
    ----------
    job, population
        Of the run.
    stack : Integrations
        Of the pixels, and of others behind them, which are left out.
    index : ndarray
        (n,) where the pixels lie: flat indices in the frame.
    """
    mine = cut(stack, slice(0, len(index)))
    pixels = _combine(job, mine)
    if job.levels is not None:
        pixels["level"] = job.levels.of_pixels(index)
    pixels["bright"] = _count_bright(job, mine, pixels)
    scores = score_pixels(pixels, job.setup, population)
    sure = find_candidates(pixels, scores, job.setup, population, job.cuts)
    suspect = find_suspects(pixels, scores, job.setup, population, job.cuts) if job.kept else np.zeros_like(sure)
    at = np.flatnonzero(sure | suspect)
    noise = {name: scores[name][at] for name in ("noise", "noise_z", "shot")}
    table = {name: column[at] for name, column in pixels.items()}
    found = _examine_chosen(job, population, Chosen(at, at, table, noise, suspect[at], sure[at], stack))
    return Columns(pixels["rate"], pixels["pedestal"], found.index, found.pixels, found.series)


@dataclass(frozen=True)
class _Tile:
    """Pixels of a tile that are looked at again: places in the band, statistics, what their noise is judged by,
    whether they may switch, and whether they are candidates whatever the likelihood says."""

    index: NDArray[np.intp]
    pixels: Stats
    noise: Stats
    suspect: NDArray[np.bool_]
    sure: NDArray[np.bool_]


def _score_tile(
    job: Job,
    population: Population,
    band: Rows,
    stack: Integrations,
    here: slice,
    maps: dict[str, NDArray[np.float32]],
) -> _Tile:
    """Statistics and scores of the pixels ``here`` of a band; their maps are filled in."""
    nx, here = job.shape[1], slice(here.start, min(here.stop, band.reference.size))
    reference = band.reference.reshape(-1)[here]
    tile = cut(stack, here)
    pixels = _combine(job, tile)
    if job.levels is not None:
        first, last = (band.start + place // nx for place in (here.start, here.stop))
        pixels["level"] = job.levels.of_rows(first, last).ravel()
    pixels["bright"] = _count_bright(job, tile, pixels)
    scores = score_pixels(pixels, job.setup, population)
    found = find_candidates(pixels, scores, job.setup, population, job.cuts)
    suspect = find_suspects(pixels, scores, job.setup, population, job.cuts) if job.kept else np.zeros_like(found)
    for name in job.maps:
        maps[name][here] = np.where(reference, np.float32(np.nan), (pixels if name in pixels else scores)[name])
    at = np.flatnonzero((found | suspect) & ~reference)
    noise = {name: scores[name][at] for name in ("noise", "noise_z", "shot")}
    mine = {name: column[at] for name, column in pixels.items()}
    return _Tile(at + here.start, mine, noise, suspect[at], found[at])


def _count_bright(job: Job, tile: Integrations, pixels: Stats) -> NDArray[np.float32]:
    """Integrations in which each pixel is bright, among those of which that is known (:func:`_find_bright`)."""
    count = np.zeros(tile.rate.shape[1], np.float32)
    if job.bright is None:
        return count
    with np.errstate(invalid="ignore"):
        above = np.zeros(len(count), np.uint16)
        for i in (*job.examined, *job.apart):
            above += tile.rate[i] > job.bright.limit
    at = np.flatnonzero(above >= series.ENOUGH)
    count[at] = _find_bright(job, tile, at, pixels["white"][at], job.bright)[0].sum(axis=0)
    return count


def _find_bright(
    job: Job, tile: Integrations, at: NDArray[np.intp], white: NDArray[np.float32], bright: Brightness
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Where pixels are bright, (judged integrations, pixels), and which integrations these are.

    They are those that are examined, and those of another depth, which count by their rates alone.
    """
    found = series.find_bright(
        tile, at, white, limit=bright.limit, own=bright.own, late=bright.late, group_time=job.setup.group_time
    )
    if not job.apart:
        return found, tile.examined
    others = np.array(job.apart)
    limits = np.fmax(bright.limit, OTHER_SIGMA * np.array(job.spreads, np.float32)[others])
    above = series.find_above(tile, at, others, limits)
    return np.concatenate([found, above]), np.concatenate([tile.examined, others])


def _measure_series(
    job: Job, stack: Integrations, candidates: NDArray[np.intp], table: Stats
) -> dict[str, NDArray[np.float32]]:
    if job.bright is None:
        return {}
    bright, judged = _find_bright(job, stack, candidates, table["white"], job.bright)
    return series.measure_series(stack, candidates, bright, np.array(job.steps), max(job.steps) + 1, judged)


def _combine(job: Job, found: Integrations) -> Stats:
    return combine_integrations(
        found,
        groups=job.fit.usable,
        min_groups=job.min_groups,
        hot_fraction=job.hot_fraction,
        drop_sigma=job.drop_sigma,
        templates=job.setup.templates,
    )


def _examine(job: Job, found: Integrations, places: NDArray[np.intp], pixels: Stats) -> Stats:
    return examine_pixels(
        found, places, pixels, min_groups=job.min_groups, templates=job.setup.templates, bends=job.fit.bends
    )


def _judge_some(
    job: Job,
    population: Population,
    found: Integrations,
    places: NDArray[np.intp],
    suspect: NDArray[np.bool_],
    sure: NDArray[np.bool_],
    pixels: Stats,
    scores: Stats,
) -> Stats:
    """What :func:`_judge` says of the suspects among the candidates, NaN of the others.

    Suspects that are no ``sure`` candidates are looked at in full where they may reach the limit.
    """
    out = {name: np.full(len(places), np.nan, np.float32) for name in telegraph.COLUMNS}
    if suspect.any():
        mine, noise = ({name: column[suspect] for name, column in part.items()} for part in (pixels, scores))
        hopeful = max(telegraph.WORTH, population.two_levels - PROMISING)
        worth = np.where(sure[suspect], telegraph.WORTH, hopeful)
        for name, column in _judge(job, population, found, places[suspect], mine, noise, worth).items():
            out[name][suspect] = column
    return out


def _judge(
    job: Job,
    population: Population,
    found: Integrations,
    places: NDArray[np.intp],
    pixels: Stats,
    scores: Stats,
    worth: NDArray[np.float64] | float = telegraph.WORTH,
) -> Stats:
    """Two levels against one for the pixels at ``places``."""
    if found.kept is None or not places.size:
        return {name: np.full(len(places), np.nan, np.float32) for name in telegraph.COLUMNS}
    deep = max(telegraph.DEEP, OWN_STEP * population.drop_sigma)
    expected = expected_noise(pixels, scores, population)
    noise = telegraph.Noise(expected, scores["shot"], population.spread["log_noise"][1], deep)
    return telegraph.judge_ramps(
        *found.kept.take(places),
        noise,
        templates=job.fit.weights[len(ramps.SCALARS) :],
        averaged=job.fit.averaged,
        worth=worth,
    )
