"""Bands of rows of all exposures: residuals, sums over all pixels, and the series of those that stand out.

1. Of each exposure the residuals of a band (:mod:`badpix.science.rows`), less its stripes, in units of its noise: ERR
   times the exposure's own scale, which is measured on thin blocks of rows beforehand (:func:`describe`), so that
   bands do not matter.
2. Sums over exposures (:mod:`badpix.science.sums`), from the newest to the oldest, while the rows are at hand.
3. Candidates: pixels whose sums stand out, or that an outlier step flagged often; it may have made their values NaN.
   Their series are measured at once (:mod:`badpix.science.series`), so that only what was measured leaves the band.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.io.exposure import band_height
from badpix.io.spill import DiskImage, DiskTable
from badpix.io.workers import give_back
from badpix.numerics.clipping import median_mad
from badpix.science import beside, completeness, series
from badpix.science.completeness import Copies
from badpix.science.inputs import Member
from badpix.science.rows import Setup, measure_lines, measure_rows, read_blocks
from badpix.science.sums import Sums
from badpix.science.switching import count_groups

FLAGGED = 0.3  # fraction of exposures in which an outlier step flagged a candidate
BLOCKS, BLOCK_ROWS = (8, 16), 6  # blocks of rows of an exposure on which it is described, fewer of wide ones
ENOUGH = 98_304  # pixels of these blocks
ROUGHLY = 4  # every such pixel: the noise before lines are taken off, which only clips what they are measured on
LEAST_PLAIN = 0.1  # share of pixels without sources on which the noise is measured; of fewer: on all
STANDS_OUT = 4.0  # sigma of a bright value
HIGHEST = 64  # rows of a band
TALL = 64  # rows that are measured together

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]
Table = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class About:
    """What was measured of one exposure beforehand.

    Attributes
    ----------
    scale : float
        Noise over ERR.
    level : float
        Median value.
    noise : float
        Median noise.
    bright : float
        Share of pixels that stand out by more than :data:`STANDS_OUT`.
    columns : ndarray or None
        (nx,) stripes along columns.
    """

    scale: float
    level: float
    noise: float
    bright: float
    columns: Float | None


class Band(NamedTuple):
    """What leaves a band: first row, sums over exposures (ny, nx), and what was measured of candidates.

    ``series``: excess and its significance in each exposure, (2, candidates, exposures), NaN where not usable;
    ``copies``: of pixels with defects, for the depth.
    """

    start: int
    mean: Float
    error: Float
    square: Float
    pointings: NDArray[np.uint8]
    where: NDArray[np.intp]
    table: dict[str, NDArray[Any]]
    series: Float
    copies: Copies | None


class Measured(NamedTuple):
    """All bands: sums (ny, nx), candidates, and their excess and its significance by exposure, on disk."""

    mean: Float
    error: Float
    square: Float
    pointings: NDArray[np.uint8]
    where: NDArray[np.intp]
    table: dict[str, NDArray[Any]]
    excess: DiskTable
    sigma: DiskTable
    copies: Copies | None


def describe(setup: Setup, member: Member) -> About:
    """Noise, level and stripes of an exposure, from thin blocks of its rows."""
    ny = setup.shape[0]
    number = np.clip(ENOUGH // (BLOCK_ROWS * setup.shape[1]), *BLOCKS)
    starts = np.unique(np.linspace(0, max(ny - BLOCK_ROWS, 0), number).astype(int))
    blocks = read_blocks([(member, start) for start in starts.tolist()], setup, min(BLOCK_ROWS, ny))
    level = median_mad(blocks.sci[:, 0, blocks.left : blocks.left + setup.shape[1]])[0]
    level = level if np.isfinite(level) else 0.0
    like = np.full(len(starts), 1, np.float32)
    rows = measure_rows(blocks, like * np.float32(level), like, setup.axis, like * np.float32(member.sharpness))
    usable = rows.usable
    weight = np.where(usable, 1 / rows.noise, np.float32(0))
    plain = (rows.noise <= rows.own_noise) & usable
    plain = plain if plain.sum() > LEAST_PLAIN * usable.sum() else usable
    lines: Float | None = None
    for step in (ROUGHLY, 1) if setup.stripes is not None else (1,):
        z = rows.value * weight
        _, spread = median_mad(z[plain][::step])
        scale = spread if np.isfinite(spread) and spread > 0 else 1.0
        if lines is None and setup.stripes is not None:
            weights: Float = np.divide(weight, np.float32(scale), dtype=np.float32)
            lines = measure_lines(np.multiply(rows.value, weights, dtype=np.float32), weights, setup.stripes)
            rows.value[:] -= lines
    bright = float((z[usable] > STANDS_OUT * scale).mean()) if usable.any() else 0.0
    noise = float(np.median(rows.noise[usable])) * scale if usable.any() else float("nan")
    return About(float(scale), level, noise, bright, lines if setup.stripes == 0 else None)


class Stacks(NamedTuple):
    """One (ny, nx) array an exposure: residuals in units of the noise, one over the noise (0 where not usable), and
    level; flat indices of what an outlier step flagged; and the sums.

    Arrays of one exposure are small enough for the C library to hand out again in the next band.
    """

    z: list[Float]
    weight: list[Float]
    level: list[Float]
    outliers: list[Index]
    sums: Sums

    def pick(self, chosen: Index) -> tuple[Float, Float, Float]:
        """Residual, weight and level of some pixels: (exposures, chosen)."""
        return take(self.z, chosen), take(self.weight, chosen), take(self.level, chosen)

    def pick_outliers(self, chosen: Index) -> Bool:
        """Whether some pixels (ascending) were flagged as outliers: (exposures, chosen)."""
        out = np.zeros((len(self.outliers), chosen.size), bool)
        for row, flagged in zip(out, self.outliers, strict=True):
            if flagged.size:
                row[:] = np.isin(chosen, flagged, assume_unique=True)
        return out


def measure_stacks(setup: Setup, members: Sequence[Member], abouts: Sequence[About], start: int, stop: int) -> Stacks:
    """All exposures of a band, from the newest to the oldest, some at a time (steps 1 and 2)."""
    height = stop - start
    many = max(1, setup.tall // height)  # at a time
    sums = Sums((height, setup.shape[1]), len(members))
    found = []
    newest_first = list(zip(members, abouts, strict=True))[::-1]
    for k in range(0, len(members), many):
        some, about = zip(*newest_first[k : k + many], strict=True)
        blocks = read_blocks([(member, start) for member in some], setup, height)
        level, scale = np.array([(a.level, a.scale) for a in about], np.float32).T
        sharpness, factor = np.array([(member.sharpness, member.factor) for member in some], np.float32).T
        rows = measure_rows(blocks, level, scale, setup.axis, sharpness)
        value, weight = rows.value, np.divide(np.float32(1), rows.noise, out=rows.noise)
        weight.reshape(-1)[rows.unusable] = 0
        if setup.stripes == 0:
            value -= np.array([a.columns for a in about])[:, None, :]
        value *= weight
        if setup.stripes == 1:
            value -= measure_lines(value, weight, 1) * weight
        levels = rows.level
        if (factor != 1).any():  # in the common unit
            weight *= 1 / factor[:, None, None]
            levels = levels * factor[:, None, None]
        unusable, outliers = (split(where, value.shape) for where in (rows.unusable, rows.outliers))
        for one, w, lost in zip(value, weight, unusable, strict=True):
            sums.add(one, w, lost)
        found += list(zip(value, weight, levels, outliers, strict=True))
    z, weights, levels_of, outliers_of = (list(column) for column in zip(*found[::-1], strict=True))
    return Stacks(z, weights, levels_of, outliers_of, sums)


def take(stack: Sequence[Float], chosen: Index) -> Float:
    """Some pixels, by flat index, of one image an exposure: (exposures, chosen)."""
    out = np.empty((len(stack), chosen.size), np.float32)
    for row, image in zip(out, stack, strict=True):
        np.take(image.reshape(-1), chosen, out=row, mode="clip")  # other modes copy what they take
    return out


def split(where: Index, shape: tuple[int, ...]) -> list[Index]:
    """Flat indices in (blocks, ny, nx), ascending, as flat indices in each block."""
    size = shape[1] * shape[2]
    ends = np.searchsorted(where, np.arange(1, shape[0]) * size)
    return [part - k * size for k, part in enumerate(np.split(where, ends))]


def measure_band(setup: Setup, members: Sequence[Member], abouts: Sequence[About], start: int, stop: int) -> Band:
    """Sums of all pixels of a band, and the series of candidates (steps 1 to 3)."""
    nx, margin = setup.shape[1], 1 if setup.axis == 1 else 0  # rows that candidates are compared with
    first, last = max(start - margin, 0), min(stop + margin, setup.shape[0])
    stacks = measure_stacks(setup, members, abouts, first, last)
    number, found = len(members), stacks.sums.finish()
    own = slice(start - first, stop - first)
    inner = np.zeros(found.usable.shape, bool)
    inner[own] = True
    flagged = np.bincount(np.concatenate(stacks.outliers), minlength=found.usable.size) > FLAGGED * number
    candidates = np.flatnonzero((found.stands_out.reshape(-1) | flagged) & inner.reshape(-1))
    numbers, shares = np.array([m.pointing for m in members]), np.array([a.bright for a in abouts])
    picked, heavy, light = stacks.pick(candidates)
    table = series.measure(picked, heavy, light, numbers, shares)
    table["square"] = found.square.reshape(-1)[candidates]
    table |= measure_outliers(stacks.pick_outliers(candidates), heavy > 0, numbers)
    table |= compare_beside(setup, stacks, candidates, picked, heavy, table)
    copies = None
    if setup.plan is not None:
        free = ~found.stands_out & (found.usable > 0) & inner
        copies = measure_copies(setup, setup.plan, stacks, free, first, numbers, shares)
    where, seen = candidates + first * nx, count_seen(stacks, found.usable, numbers)
    mean, error, square = (image[own] for image in (found.mean, found.error, found.square))
    return Band(start, mean, error, square, seen[own], where, table, make_series(picked, heavy), copies)


def count_seen(stacks: Stacks, count: NDArray[np.uint16], numbers: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Different pointings that saw each pixel, flagged as an outlier or not: (ny, nx)."""
    out = np.full(count.shape, min(len(np.unique(numbers)), 255), np.uint8)
    partly = np.flatnonzero(count < len(numbers))
    out.reshape(-1)[partly] = count_pointings(
        (take(stacks.weight, partly) > 0) | stacks.pick_outliers(partly), numbers
    )
    return out


def compare_beside(setup: Setup, stacks: Stacks, chosen: Index, z: Float, weight: Float, table: Table) -> Table:
    """In dispersed light whether the pixels beside show what some pixels do (:mod:`badpix.science.beside`)."""
    if setup.axis is None:
        return {}
    places = beside.find_places(chosen, stacks.z[0].shape, setup.axis)
    return beside.measure_beside(
        z, weight, [(take(stacks.z, place), take(stacks.weight, place)) for place in places], table
    )


def measure_copies(
    setup: Setup,
    plan: completeness.Plan,
    stacks: Stacks,
    free: Bool,
    start: int,
    pointings: NDArray[np.intp],
    shares: NDArray[np.float64],
) -> Copies:
    """Copies of some pixels with defects, and the series of those that stand out (:mod:`.completeness`)."""
    chosen, kind, number = completeness.choose(plan, free, start)
    z, weight, level = stacks.pick(chosen)
    where = chosen + start * free.shape[1]
    z = completeness.inject(z, weight, level, kind, plan.strengths[kind, number], where)
    sums = Sums(chosen.shape, len(z))
    for one, w in zip(z[::-1], weight[::-1], strict=True):
        sums.add(one, w, np.flatnonzero(w <= 0))
    found = sums.finish()
    out = found.stands_out
    picked, heavy, light = (np.ascontiguousarray(a[:, out]) for a in (z, weight, level))
    table = series.measure(picked, heavy, light, pointings, shares)
    table["square"] = found.square[out]
    table |= measure_outliers(np.zeros(picked.shape, bool), heavy > 0, pointings)
    table |= compare_beside(setup, stacks, chosen[out], picked, heavy, table)
    return Copies(where, kind, number, out, table)


def measure_outliers(outlier: Bool, usable: Bool, pointings: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    """Of candidates, from (exposures, candidates): share of the exposures flagged as outliers, pointings of these."""
    seen = (outlier | usable).sum(axis=0)
    share = (outlier.sum(axis=0) / np.maximum(seen, 1)).astype(np.float32)
    return {"flagged": share, "pointings_flagged": count_pointings(outlier, pointings)}


def make_series(z: Float, weight: Float) -> Float:
    """Excess and significance of candidates, (2, candidates, exposures), from (exposures, candidates)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        series = np.where(weight > 0, np.stack([z / weight, z]), np.float32(np.nan))
    return np.ascontiguousarray(series.transpose(0, 2, 1))


def count_pointings(seen: Bool, numbers: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Different pointings that saw each pixel, from (exposures, ...): 255 at the most."""
    return np.minimum(count_groups(seen, numbers), 255).astype(np.uint8)


def choose_heights(number: int, shape: tuple[int, int], memory: float) -> tuple[int, int]:
    """Rows of a band, and rows that are measured together, of one exposure or several: calls cost as much as ten.

    A row of all exposures takes three stacks and sums; what is measured at a time, a seventh of the memory.

    Parameters
    ----------
    number : int
        Of exposures.
    shape : tuple of int
        Of the frame.
    memory : float
        Bytes.
    """
    row = shape[1] * (13 * number + 60)
    height = max(band_height(row, 0.8 * memory, shape[0]), min(int(0.8 * memory / row), shape[0]))
    return min(height, HIGHEST), int(np.clip(0.15 * memory / (60 * shape[1]), 1, TALL))


def join(found: Iterable[Band], shape: tuple[int, int], number: int) -> Measured:
    """All bands of ``number`` exposures as one; while they are worked on, full frames wait on disk."""
    mean, error, square = (DiskImage(shape) for _ in range(3))
    pointings = np.zeros(shape, np.uint8)
    excess, sigma = DiskTable(number), DiskTable(number)
    index, tables, copies = [], [], []
    for band in found:
        for image, rows in ((mean, band.mean), (error, band.error), (square, band.square)):
            image.write_rows(band.start, rows)
        pointings[band.start : band.start + len(band.mean)] = band.pointings
        excess.append(band.series[0])
        sigma.append(band.series[1])
        index.append(band.where)
        tables.append(band.table)
        copies += [band.copies] if band.copies is not None else []
    give_back()
    table = {name: np.concatenate([t[name] for t in tables], axis=-1) for name in tables[0]}
    joined = completeness.join(copies) if copies else None
    where = np.concatenate(index)
    images = np.asarray(mean), np.asarray(error), np.asarray(square)
    return Measured(*images, pointings, where, table, excess, sigma, joined)
