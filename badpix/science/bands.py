"""Bands of rows of all exposures: residuals, sums over all pixels, and the series of those that stand out.

1. Of each exposure the rows of a band are read with a margin; unusable are values that are not finite, have no error,
   or whose DQ says saturated, reference pixel or not of the science portion. What the pipeline calls DO_NOT_USE is
   looked at all the same, but is no neighbor: it may have recovered.
2. Its residuals (:mod:`badpix.science.residuals`) in units of its noise: ERR times the exposure's own scale, which is
   measured on thin blocks of rows beforehand (:func:`describe`), so that bands do not matter.
3. Stripes: the median residual of each line along the fast axis is taken off.
4. Sums over exposures, from the newest to the oldest: weights, residuals clipped at :data:`CLIP`, squares, and the
   highest significance of any number of newest exposures (births).
5. Candidates: pixels whose sums stand out, or that an outlier step flagged often; it may have made their values NaN.
   Their series are measured at once (:mod:`badpix.science.series`), so that only what was measured leaves the band.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io.fits import Layout, read_band
from badpix.io.spill import DiskImage, DiskTable
from badpix.numerics.clipping import median_mad
from badpix.numerics.medians import median_rows
from badpix.science import completeness, residuals, series
from badpix.science.completeness import Copies
from badpix.science.inputs import Member

CLIP = 4.0  # sigma, of the residuals in the sums
FEWEST = 3  # newest exposures that make a birth
MEAN_LIMIT = 3.0  # sigma: candidates by their mean
BORN_LIMIT = 4.2  # sigma: candidates by their newest exposures
SQUARE_SIGMA = 4.0  # of the mean square, over its scatter of sqrt(2 / n)
FLAGGED = 0.3  # fraction of exposures in which an outlier step flagged a candidate
BLOCKS, BLOCK_ROWS = 16, 6  # rows of an exposure on which it is described
LINE = 512  # pixels of a line that its median is taken of, or up to twice as many
LEAST_PLAIN = 0.1  # share of pixels without sources on which the noise is measured; of fewer: on all
STANDS_OUT = 4.0  # sigma of a bright value

BAD = np.uint32(dq.VALUE["SATURATED"] | dq.VALUE["REFERENCE_PIXEL"] | dq.VALUE["NON_SCIENCE"])
UNUSABLE = np.uint32(dq.VALUE["DO_NOT_USE"])
OUTLIER = np.uint32(dq.VALUE["OUTLIER"])

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Setup:
    """What is the same for all exposures: axis of the dispersion, of the stripes (None: left in), shape, and the plan
    of the depth (None: not measured)."""

    axis: int | None
    stripes: int | None
    shape: tuple[int, int]
    plan: completeness.Plan | None = None


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


class Blocks(NamedTuple):
    """Rows of an exposure as they were read: (blocks * (rows + 2 margins), nx) each, blocks, rows of a margin."""

    sci: Float
    err: Float
    flags: NDArray[np.uint32]
    number: int
    margin: int


class Rows(NamedTuple):
    """Rows of one exposure: residual, level, noise, usable, flagged as outlier, and the noise without what a source
    may add; (ny, nx) each."""

    value: Float
    level: Float
    noise: Float
    usable: Bool
    outlier: Bool
    own_noise: Float


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


def read_padded(layout: Layout, start: int, stop: int, margin: int) -> NDArray[Any]:
    """Rows with a margin above and below, mirrored at the edges of the frame."""
    ny = layout.shape[-2]
    low, high = max(start - margin, 0), min(stop + margin, ny)
    found: NDArray[Any] = read_band(layout, low, high)[0]
    below, above = low - (start - margin), stop + margin - high
    if below or above:
        found = np.concatenate(
            [found[1 : below + 1][::-1], found, found[-above - 1 : -1][::-1] if above else found[:0]]
        )
    return found


def read_blocks(member: Member, setup: Setup, starts: Sequence[int], height: int) -> Blocks:
    """Blocks of ``height`` rows of an exposure with a margin, one below the other."""
    margin = residuals.reach_of(setup.axis)[0] + 1  # so that what is filled at the edge has rows on both sides, too
    blocks = [[read_padded(layout, y, y + height, margin) for y in starts] for layout in member.layouts]
    sci, err, flags = (part[0] if len(starts) == 1 else np.concatenate(part) for part in blocks)
    return Blocks(sci.astype(np.float32, copy=False), err.astype(np.float32, copy=False), flags, len(starts), margin)


def measure_rows(blocks: Blocks, about: About, setup: Setup, sharpness: float) -> Rows:
    """Residuals of blocks of rows (steps 1 and 2), stripes left in."""
    usable, good, outlier = find_usable(blocks.sci, blocks.err, blocks.flags)
    nx, margin = blocks.sci.shape[1], blocks.margin
    shape = (blocks.number, -1, nx)
    filled = residuals.fill(blocks.sci, good, about.level).reshape(shape)[:, 1:-1]
    if reach := residuals.reach_of(setup.axis)[1]:
        filled = np.pad(filled, ((0, 0), (0, 0), (reach, reach)), mode="reflect")

    def trim(image: NDArray[Any]) -> NDArray[Any]:
        return image.reshape(shape)[:, margin:-margin].reshape(-1, nx)

    sci, err, usable, good, outlier = (trim(a) for a in (blocks.sci, blocks.err, usable, good, outlier))
    noise = err * np.float32(about.scale)
    unusable = np.flatnonzero(~usable)
    noise.reshape(-1)[unusable] = about.scale
    shaped = noise.reshape(shape)
    value, level, wide = (
        a.reshape(-1, nx) for a in residuals.measure_residual(filled, shaped, setup.axis, sharpness=sharpness)
    )
    filled_in = np.flatnonzero(~good)  # some of them can be judged all the same
    value.reshape(-1)[filled_in] = sci.reshape(-1)[filled_in] - level.reshape(-1)[filled_in]
    value.reshape(-1)[unusable] = 0
    return Rows(value, level, wide, usable, outlier, noise)


def find_usable(sci: Float, err: Float, flags: NDArray[np.uint32]) -> tuple[Bool, Bool, Bool]:
    """Pixels that can be used, those that can be neighbors of others, and those that an outlier step flagged."""
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(sci + err)
        usable &= err > 0
    good, outlier = usable.copy(), np.zeros(sci.shape, bool)
    flagged = np.flatnonzero(flags & (BAD | UNUSABLE | OUTLIER))
    which = flags.reshape(-1)[flagged]
    usable.reshape(-1)[flagged] &= (which & BAD) == 0
    good.reshape(-1)[flagged] &= (which & (BAD | UNUSABLE)) == 0
    outlier.reshape(-1)[flagged] = (which & OUTLIER) != 0
    return usable, good, outlier


def measure_lines(rows: Rows, axis: int) -> Float:
    """Median residual of each line, of some pixels that are not near a source: 0 where none is left."""
    thin = max(rows.value.shape[1] // LINE, 1) if axis == 1 else 1
    some = (slice(None), slice(None, None, thin))
    values = rows.value[some].copy()
    values[~rows.usable[some] | (np.abs(values) >= 3 * rows.noise[some])] = np.nan
    found = median_rows(values if axis == 1 else np.array(values.T, order="C"))
    out: Float = np.nan_to_num(found).astype(np.float32)
    return out


def describe(setup: Setup, member: Member) -> About:
    """Noise, level and stripes of an exposure, from thin blocks of its rows."""
    ny = setup.shape[0]
    starts = np.unique(np.linspace(0, max(ny - BLOCK_ROWS, 0), BLOCKS).astype(int))
    blocks = read_blocks(member, setup, starts.tolist(), min(BLOCK_ROWS, ny))
    level = median_mad(blocks.sci[:: len(blocks.sci) // len(starts)])[0]
    first = About(1.0, level if np.isfinite(level) else 0.0, 1.0, 0.0, None)
    rows = measure_rows(blocks, first, setup, member.sharpness)
    columns = measure_lines(rows, 0) if setup.stripes == 0 else None
    lines = (
        columns[None, :] if columns is not None else 0 if setup.stripes is None else measure_lines(rows, 1)[:, None]
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        z = ((rows.value - lines) / rows.noise)[rows.usable]
    plain = (rows.noise <= rows.own_noise)[rows.usable]
    _, spread = median_mad(z[plain] if plain.mean() > LEAST_PLAIN else z)
    scale = spread if np.isfinite(spread) and spread > 0 else 1.0
    bright = float((z > STANDS_OUT * scale).mean()) if z.size else 0.0
    noise = float(np.median(rows.noise[rows.usable])) * scale if z.size else float("nan")
    return About(float(scale), first.level, noise, bright, columns)


def measure_band(setup: Setup, members: Sequence[Member], abouts: Sequence[About], start: int, stop: int) -> Band:
    """Sums of all pixels of a band, and the series of candidates (steps 3 to 5)."""
    shape = (len(members), stop - start, setup.shape[1])
    z, weight, level = (np.empty(shape, np.float32) for _ in range(3))
    outlier = np.zeros(shape, bool)
    outliers = np.zeros(shape[1:], np.uint16)
    for k, (member, about) in enumerate(zip(members, abouts, strict=True)):
        rows = measure_rows(read_blocks(member, setup, [start], stop - start), about, setup, member.sharpness)
        if setup.stripes == 1:
            rows.value[:] -= measure_lines(rows, 1)[:, None]
        elif about.columns is not None:
            rows.value[:] -= about.columns
        np.divide(np.float32(1 / member.factor), rows.noise, out=weight[k])  # one over the noise, in the common unit
        np.copyto(weight[k], 0, where=~rows.usable)
        np.multiply(rows.value, weight[k], out=z[k])
        z[k] *= np.float32(member.factor)
        np.multiply(rows.level, np.float32(member.factor), out=level[k])
        if rows.outlier.any():
            outlier[k] = rows.outlier
            outliers += rows.outlier
    total, square, stands_out, count = sum_up(z, weight)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.flatnonzero(stands_out | (outliers > FLAGGED * len(members)))
        mean, error = total[0] / total[1], (1 / np.sqrt(total[1])).astype(np.float32)
    numbers, shares = np.array([m.pointing for m in members]), np.array([a.bright for a in abouts])
    picked, heavy, light = (np.ascontiguousarray(a.reshape(len(members), -1)[:, found]) for a in (z, weight, level))
    table = series.measure(picked, heavy, light, numbers, shares)
    table["square"] = square.reshape(-1)[found]
    table |= measure_outliers(outlier.reshape(len(members), -1)[:, found], heavy > 0, numbers)
    where, seen = found + start * shape[2], count_pointings((weight > 0) | outlier, numbers)
    copies = None
    if setup.plan is not None:
        copies = measure_copies(setup.plan, (z, weight, level), ~stands_out & (count > 0), start, numbers, shares)
    return Band(start, mean, error, square, seen, where, table, make_series(picked, heavy), copies)


def measure_copies(
    plan: completeness.Plan,
    stacks: tuple[Float, Float, Float],
    free: Bool,
    start: int,
    pointings: NDArray[np.intp],
    shares: NDArray[np.float64],
) -> Copies:
    """Copies of some pixels with defects, and the series of those that stand out (:mod:`.completeness`)."""
    chosen, kind, number = completeness.choose(plan, free, start)
    z, weight, level = (stack.reshape(len(stack), -1)[:, chosen] for stack in stacks)
    where = chosen + start * free.shape[1]
    z = completeness.inject(z, weight, level, kind, plan.strengths[kind, number], where)
    _, square, stands_out, _ = sum_up(z[:, None], weight[:, None])
    out = stands_out[0]
    picked, heavy, light = (np.ascontiguousarray(a[:, out]) for a in (z, weight, level))
    table = series.measure(picked, heavy, light, pointings, shares)
    table["square"] = square[0][out]
    table |= measure_outliers(np.zeros(picked.shape, bool), heavy > 0, pointings)
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


def sum_up(z: Float, weight: Float) -> tuple[tuple[Float, Float], Float, Bool, NDArray[np.uint16]]:
    """Sums over exposures (step 4): (residual, weight), mean square, pixels that stand out, number of usable values.

    Parameters
    ----------
    z, weight : ndarray of float32
        (n, ny, nx) residuals in units of the noise, and one over the noise; 0 where not usable.
    """
    shape = z.shape[1:]
    above, total, square = (np.zeros(shape, np.float32) for _ in range(3))
    count, born = np.zeros(shape, np.uint16), np.zeros(shape, bool)
    part = np.empty(shape, np.float32)
    for k in reversed(range(len(z))):
        np.clip(z[k], -CLIP, CLIP, out=part)
        count += weight[k] > 0
        square += part * part
        part *= weight[k]
        above += part
        np.multiply(weight[k], weight[k], out=part)
        total += part
        if k <= len(z) - FEWEST:
            born |= np.multiply(above, np.abs(above), out=part) > np.float32(BORN_LIMIT**2) * total
    with np.errstate(invalid="ignore", divide="ignore"):
        significance = above / np.sqrt(total)
        square /= count
        stands_out = (np.abs(significance) > MEAN_LIMIT) | born
        stands_out |= square > 1 + SQUARE_SIGMA * np.sqrt(2 / np.maximum(count, 1))
    return (above, total), square, stands_out & (count > 0), count


def square_limit(number: int) -> float:
    """Mean square above which a pixel of ``number`` values scatters more than its noise."""
    return float(1 + SQUARE_SIGMA * np.sqrt(2 / max(number, 1)))


def count_pointings(seen: Bool, numbers: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Different pointings that saw each pixel, from (exposures, ...): 255 at the most."""
    out = np.zeros(seen.shape[1:], np.uint8)
    for number in np.unique(numbers)[:255]:
        out += seen[numbers == number].any(axis=0)
    return out


def row_bytes(number: int, nx: int) -> int:
    """Memory that a row of all exposures takes, bytes: three stacks and two maps, and what one exposure needs."""
    return nx * (14 * number + 160)


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
    table = {name: np.concatenate([t[name] for t in tables], axis=-1) for name in tables[0]}
    joined = completeness.join(copies) if copies else None
    where = np.concatenate(index)
    images = np.asarray(mean), np.asarray(error), np.asarray(square)
    return Measured(*images, pointings, where, table, excess, sigma, joined)
