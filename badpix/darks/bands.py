"""Darks in bands of rows: reading, measuring, and what leaves a band.

A task is one band of rows over all files and integrations. Files are read in their fixed order, tiles lie at fixed
rows of the frame, and every tile is worked on alone: the same bytes come out for any height of the bands and any
number of workers. What leaves a band is small: a few maps, and the statistics of its candidates.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.darks import cells, ramps, series, telegraph
from badpix.darks.places import Levels
from badpix.darks.scores import (
    Cuts,
    Population,
    Setup,
    expected_noise,
    find_candidates,
    find_suspects,
    score_pixels,
)
from badpix.darks.stats import Integrations, Kept, Stats, combine_integrations, examine_pixels, join
from badpix.io.fits import Layout, read_band
from badpix.numerics import clipping

NEEDED_MAPS = ("rate", "pedestal")  # images that leave every band, float32
EVIDENCE_MAPS = (*NEEDED_MAPS, "noise", "telegraph", "rc", "jumps")  # the same where evidence is wanted
SAMPLED = ("rate", "pedestal", "jumps")  # values by integration that are kept of candidates, for the evidence
HOT_SIGMA = 30.0  # median rate over the scatter from which on a pixel tells the dark current's scale
SAMPLE_PIXELS = 1 << 16  # pixels of the sample that describes the population
_KEPT = threading.local()
BYTES_PER_PIXEL = 260  # of a band, one integration: the read ramps come on top


@dataclass(frozen=True)
class Dark:
    """One dark exposure: where its pixels lie."""

    jump: Layout
    groupdq: Layout
    rate: Layout
    poisson: Layout
    pedestal: Layout
    integrations: int
    uncal: Layout | None = None


@dataclass(frozen=True)
class Brightness:
    """From which rate (DN/s), own errors and part of the slope in the second half on an integration is bright."""

    limit: float
    own: float
    late: float


@dataclass(frozen=True)
class Job:
    """All that a task needs besides its rows.

    ``examined``: integrations whose ramps are measured in full; ``kept``: those of them whose ramps are
    kept until the candidates are known; ``steps``: the step in time of each integration;
    ``scales``: dark current of each integration over the usual one; ``bright``: None where time is not searched;
    ``levels``: the usual noise by place, once it is known.
    """

    darks: tuple[Dark, ...]
    fit: ramps.RampFit
    cells: cells.Cells
    setup: Setup
    shape: tuple[int, int]
    min_groups: int
    cuts: Cuts
    hot_fraction: float
    drop_sigma: float
    examined: tuple[int, ...]
    steps: tuple[int, ...]
    scales: tuple[float, ...] = ()
    bright: Brightness | None = None
    levels: Levels | None = None
    kept: tuple[int, ...] = ()
    maps: tuple[str, ...] = NEEDED_MAPS
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """A band: rows ``start`` to ``stop`` of the frame, their reference pixels and bias (both (rows, nx))."""

    start: int
    stop: int
    reference: NDArray[np.bool_]
    bias: NDArray[np.float32] | None = None


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


# --- reading ---------------------------------------------------------------------------------------------


def read_band_stack(job: Job, band: Rows) -> Integrations:
    """All integrations of a band; of those that are not examined the first usable group alone is read."""
    start, stop = band.start, band.stop
    nx, groups = job.shape[1], job.fit.usable
    stack = _Stack(job, (stop - start) * nx, _find_held(job, start, stop))
    sci = np.empty((groups, stop - start, nx), np.float32)
    flags = np.empty((groups, stop - start, nx), np.uint8)
    for dark in job.darks:
        images = _read_images(job, dark, band)
        stack.add_poisson(images.pop("poisson"))
        for i in range(dark.integrations):
            planes = range(i * job.fit.ngroups + job.fit.start, i * job.fit.ngroups + job.fit.stop)
            read_band(dark.groupdq, start, stop, planes=planes, out=flags)
            wanted = planes if stack.examines_next else planes[:1]
            stored = read_band(dark.jump, start, stop, planes=wanted, out=sci[: len(wanted)], native=False)
            stack.add(stored, flags, {name: image[i] for name, image in images.items()})
    return stack.finish()


def _find_held(job: Job, start: int, stop: int) -> NDArray[np.intp]:
    """Pixels that are DO_NOT_USE in the first usable group of all darks: by a mask in use, not for want of data."""
    first = [read_band(dark.groupdq, start, stop, planes=[job.fit.start])[0] for dark in job.darks]
    return np.flatnonzero((np.bitwise_and.reduce(first, axis=0) & ramps.DO_NOT_USE) != 0)


def _read_images(job: Job, dark: Dark, band: Rows) -> dict[str, NDArray[np.float32]]:
    """Rate and pedestal over the medians of their cells, and the Poisson variance: (nints, pixels) each."""
    layouts = {"rate": dark.rate, "poisson": dark.poisson, "pedestal": dark.pedestal}
    images = {
        name: read_band(layout, band.start, band.stop).astype(np.float32, copy=False)
        for name, layout in layouts.items()
    }
    if band.bias is not None:
        images["pedestal"] -= band.bias
    for name in ("rate", "pedestal"):
        cells.subtract(images[name], cells.measure_medians(images[name], job.cells), job.cells)
    return {name: image.reshape(len(image), -1) for name, image in images.items()}


def take_room(size: int) -> NDArray[np.float32]:
    """That many numbers of no account, in the memory of the last ones: fresh memory costs as much as the fits."""
    if getattr(_KEPT, "room", np.empty(0)).size < size:
        _KEPT.room = np.empty(size, np.float32)
    return _KEPT.room[:size]  # type: ignore[no-any-return]


def leave_room() -> None:
    """Give back what :func:`take_room` kept in this thread."""
    _KEPT.__dict__.clear()


class _Stack:
    """Integrations of a band as they come in."""

    def __init__(self, job: Job, pixels: int, held: NDArray[np.intp]) -> None:
        n, chosen, names = job.setup.integrations, job.examined, job.fit.names
        numbers, groups = 2 * n + len(names) * len(chosen), job.fit.usable
        room = take_room(pixels * (numbers + len(job.kept) * groups))
        self.job, self.filled, self.chosen = job, 0, dict(zip(chosen, range(len(chosen)), strict=True))
        self.rate, self.pedestal = room[: 2 * n * pixels].reshape(2, n, pixels)
        self.shapes = room[2 * n * pixels : numbers * pixels].reshape(len(names), len(chosen), pixels)
        self.kept = Kept(
            room[numbers * pixels :].reshape(len(job.kept), groups, pixels),
            np.empty((len(job.kept), groups, pixels), np.uint8),
        )
        self.counts = np.empty((2, n, pixels), np.uint16)
        self.saturated = np.zeros((n, pixels), bool)
        self.held, self.masked = held, np.zeros(pixels, bool)
        self.poisson, self.measured = np.zeros(pixels), np.zeros(pixels)
        self.first_level = np.full(pixels, np.nan, np.float32)

    @property
    def examines_next(self) -> bool:
        """Whether the ramps of the next integration are needed."""
        return self.filled in self.chosen

    def add(self, sci: NDArray[np.float32], flags: NDArray[np.uint8], images: dict[str, NDArray[np.float32]]) -> None:
        """Measure one integration: ``sci`` are its usable groups, or the first of them where it is not examined."""
        job, i, pixels = self.job, self.filled, flags.reshape(len(flags), -1)
        masked = ramps.clear_masked(pixels, self.held)
        self.masked[masked] = True
        full = np.flatnonzero((pixels[0] & ramps.SATURATED) != 0)
        self.saturated[i, full] = True
        self.first_level[full] = np.fmax(self.first_level[full], sci[0].reshape(-1)[full])
        rate = self.rate[i]
        rate[:], self.pedestal[i] = images["rate"], images["pedestal"]
        rate[masked] = self.pedestal[i, masked] = np.nan  # the pipeline fitted nothing there
        if i in self.chosen:  # the lower of pipeline rate and slope of the line, DN/s
            out = self.shapes[:, self.chosen[i]]
            found, counts = ramps.measure_ramps(sci, flags, job.fit, job.cells, out=out, keep=self._keep(i, flags))
            np.copyto(rate, np.nan, where=counts[0] <= 1)
            np.fmin(rate, found[1] / np.float32(job.setup.group_time), out=rate)
        else:  # the pipeline's rate between jumps, true or false, may be too high: only the line would know
            counts, _, _ = ramps.count_groups(pixels)
            np.copyto(rate, np.nan, where=(counts[0] <= 1) | (counts[1] > 0))
        if job.scales and job.scales[i] != 1:
            rate /= np.float32(job.scales[i])
            if i in self.chosen:
                self.shapes[job.fit.names.index(ramps.STEADY), self.chosen[i]] /= np.float32(job.scales[i])
        self.counts[:, i] = counts
        self.filled += 1

    def _keep(self, i: int, flags: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Room for the ramps of integration ``i`` where they are kept; its flags are copied."""
        if i not in self.job.kept:
            return None
        k = self.job.kept.index(i)
        self.kept.flags[k] = flags.reshape(len(flags), -1)
        found: NDArray[np.float32] | None = self.kept.ramps[k].reshape(flags.shape)
        return found

    def add_poisson(self, variance: NDArray[np.float32]) -> None:
        """Variances of the rate of all integrations of one exposure: (nints, pixels)."""
        known = np.isfinite(variance)
        self.measured += known.sum(axis=0)
        self.poisson += np.where(known, variance, np.float32(0)).sum(axis=0, dtype=np.float64)

    def finish(self) -> Integrations:
        """All integrations."""
        shapes = dict(zip(self.job.fit.names[1:], self.shapes[1:], strict=True))
        with np.errstate(invalid="ignore"):
            poisson = (self.poisson / self.measured).astype(np.float32)
        return Integrations(
            self.rate, self.pedestal, shapes, np.array(self.job.examined), self.counts[0], self.counts[1],
            self.saturated, poisson, self.first_level, self.masked, self.kept,
        )  # fmt: skip


def cut(stack: Integrations, pixels: slice) -> Integrations:
    """Some pixels of a stack, without copying."""
    shapes = {name: image[:, pixels] for name, image in stack.shapes.items()}
    return Integrations(
        stack.rate[:, pixels], stack.pedestal[:, pixels], shapes, stack.examined, stack.groups[:, pixels],
        stack.jumps[:, pixels], stack.saturated[:, pixels], stack.poisson[pixels], stack.first_level[pixels],
        stack.masked[pixels],
    )  # fmt: skip


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
    spread = np.array([clipping.median_mad(line[science])[1] for line in found.rate], np.float32)
    with np.errstate(invalid="ignore"):
        usual = np.median(spread[np.isfinite(spread)]) if np.isfinite(spread).any() else np.inf
        hot = science[pixels["rate"][science] > HOT_SIGMA * usual]
    mine = {name: column[science] for name, column in pixels.items()}
    return Sample(mine, science + band.start * job.shape[1], spread, found.rate[:, hot].T.copy())


def judge_sample(job: Job, population: Population, band: Rows) -> NDArray[np.float32]:
    """Likelihood ratios of those pixels of one tile of the sample that look most like switching."""
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
    return _judge(job, population, found, places, table, own)["likelihood"]


def measure_band(job: Job, population: Population, band: Rows) -> Band:
    """Maps of a band, and all that is known of its candidates; tile by tile."""
    nx = job.shape[1]
    stack = read_band_stack(job, band)
    maps = {name: np.empty(band.reference.size, np.float32) for name in job.maps}
    index, tables, noises, suspects = [], [], [], []
    for start in range(0, band.reference.size, job.cells.rows * nx):
        here = slice(start, min(start + job.cells.rows * nx, band.reference.size))
        reference = band.reference.reshape(-1)[here]
        tile = cut(stack, here)
        pixels = _combine(job, tile)
        if job.levels is not None:
            pixels["level"] = job.levels.of_rows(band.start + start // nx, band.start + here.stop // nx).ravel()
        pixels["bright"] = _count_bright(job, tile, pixels)
        scores = score_pixels(pixels, job.setup, population)
        found = find_candidates(pixels, scores, job.setup, population, job.cuts)
        suspect = find_suspects(pixels, scores, job.setup, population, job.cuts) if job.kept else np.zeros_like(found)
        places = np.flatnonzero((found | suspect) & ~reference)
        for name in job.maps:
            maps[name][here] = np.where(reference, np.float32(np.nan), (pixels if name in pixels else scores)[name])
        tables.append({name: column[places] for name, column in pixels.items()})
        noises.append({name: scores[name][places] for name in ("noise", "noise_z", "shot")})
        suspects.append(suspect[places])
        index.append(places + start)
    candidates, table = np.concatenate(index), join(tables)
    samples = {}
    for name in job.samples:
        samples[name] = getattr(stack, name)[:, candidates].T.astype(np.float32)
    images = {name: image.reshape(-1, nx) for name, image in maps.items()}
    table |= _examine(job, stack, candidates, table)
    table |= _judge_some(job, population, stack, candidates, np.concatenate(suspects), table, join(noises))
    by_step = _measure_series(job, stack, candidates, table)
    return Band(band.start, images, candidates + band.start * nx, table, samples, by_step)


def _count_bright(job: Job, tile: Integrations, pixels: Stats) -> NDArray[np.float32]:
    """Examined integrations in which each pixel is bright."""
    count = np.zeros(tile.rate.shape[1], np.float32)
    if job.bright is None:
        return count
    with np.errstate(invalid="ignore"):
        above = np.zeros(len(count), np.uint16)
        for i in job.examined:
            above += tile.rate[i] > job.bright.limit
    at = np.flatnonzero(above >= series.ENOUGH)
    count[at] = _find_bright(job, tile, at, pixels["white"][at], job.bright).sum(axis=0)
    return count


def _find_bright(
    job: Job, tile: Integrations, at: NDArray[np.intp], white: NDArray[np.float32], bright: Brightness
) -> NDArray[np.bool_]:
    return series.find_bright(
        tile, at, white, limit=bright.limit, own=bright.own, late=bright.late, group_time=job.setup.group_time
    )


def _measure_series(
    job: Job, stack: Integrations, candidates: NDArray[np.intp], table: Stats
) -> dict[str, NDArray[np.float32]]:
    if job.bright is None:
        return {}
    bright = _find_bright(job, stack, candidates, table["white"], job.bright)
    return series.measure_series(stack, candidates, bright, np.array(job.steps), max(job.steps) + 1)


def _combine(job: Job, found: Integrations) -> Stats:
    return combine_integrations(
        found, groups=job.fit.usable, min_groups=job.min_groups, hot_fraction=job.hot_fraction,
        drop_sigma=job.drop_sigma, templates=job.setup.templates,
    )  # fmt: skip


def _examine(job: Job, found: Integrations, places: NDArray[np.intp], pixels: Stats) -> Stats:
    return examine_pixels(
        found, places, pixels, min_groups=job.min_groups, templates=job.setup.templates, bends=job.fit.bends
    )


def _judge_some(
    job: Job, population: Population, found: Integrations, places: NDArray[np.intp], suspect: NDArray[np.bool_],
    pixels: Stats, scores: Stats,
) -> Stats:  # fmt: skip
    """What :func:`_judge` says of the suspects among the candidates, NaN of the others."""
    out = {name: np.full(len(places), np.nan, np.float32) for name in telegraph.COLUMNS}
    if suspect.any():
        some = ({name: column[suspect] for name, column in part.items()} for part in (pixels, scores))
        for name, column in _judge(job, population, found, places[suspect], *some).items():
            out[name][suspect] = column
    return out


def _judge(
    job: Job, population: Population, found: Integrations, places: NDArray[np.intp], pixels: Stats, scores: Stats
) -> Stats:
    """Two levels against one for the pixels at ``places``."""
    if found.kept is None or not places.size:
        return {name: np.full(len(places), np.nan, np.float32) for name in telegraph.COLUMNS}
    noise = telegraph.Noise(
        expected_noise(pixels, scores, population), scores["shot"], population.spread["log_noise"][1]
    )
    return telegraph.judge_ramps(
        np.take(found.kept.ramps, places, axis=2), np.take(found.kept.flags, places, axis=2), noise,
        templates=job.fit.weights[len(ramps.SCALARS) :], averaged=job.fit.averaged,
    )  # fmt: skip
