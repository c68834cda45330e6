"""Rows of one exposure: read, with what can't be used told apart, and their residuals.

1. Rows are read with a margin above and below, mirrored at the edges of the frame, and lie in lines with a margin
   at both ends; a file is opened once for its SCI, ERR and DQ.
2. Unusable are values that are not finite, have no error, or whose DQ says saturated, reference pixel or not of the
   science portion. What the pipeline calls DO_NOT_USE is looked at all the same, but is no neighbor: it may have
   recovered. Such pixels are few, and are held as a list (:class:`Odd`).
3. Residuals (:mod:`badpix.science.residuals`); the noise is ERR times the exposure's own scale.
4. Stripes: the mean residual of each line along the fast axis, clipped and weighted as noise and sources ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io.fits import Layout, read_band
from badpix.io.handles import opened
from badpix.science import residuals
from badpix.science.completeness import Plan
from badpix.science.inputs import Member

LINE_CLIP = 2.5  # sigma, of residuals in the mean of a line
LINE_SHARE = 0.9876  # of a small shift that a mean so clipped shows: the part of a Gaussian within the clip
ALIGN = 16  # lines are a multiple of so many numbers long: all begin at the same place of a cache line

BAD = np.uint32(dq.VALUE["SATURATED"] | dq.VALUE["REFERENCE_PIXEL"] | dq.VALUE["NON_SCIENCE"])
UNUSABLE = np.uint32(dq.VALUE["DO_NOT_USE"])
OUTLIER = np.uint32(dq.VALUE["OUTLIER"])

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Setup:
    """What is the same for all exposures: axis of the dispersion, of the stripes (None: left in), shape, the plan of
    the depth (None: not measured), and rows that are measured together."""

    axis: int | None
    stripes: int | None
    shape: tuple[int, int]
    plan: Plan | None = None
    tall: int = 1


class Blocks(NamedTuple):
    """Rows of an exposure as they were read: SCI (blocks, rows + 2 margins, line), the frame from column ``left`` on;
    ERR and DQ (blocks, rows + 2 margins, nx); rows of a margin."""

    sci: Float
    err: Float
    flags: NDArray[np.uint32]
    margin: int
    left: int


class Odd(NamedTuple):
    """Pixels that are not plainly good, flat index in blocks of (blocks, rows, nx): usable, a neighbor
    of others, flagged as outlier; (n,) each."""

    where: Index
    usable: Bool
    good: Bool
    outlier: Bool


class Rows(NamedTuple):
    """Blocks of rows: residual, level, noise, and the noise without what a source may add, (blocks, ny, nx) each;
    flat indices of unusable pixels, and of those flagged as outliers."""

    value: Float
    level: Float
    noise: Float
    own_noise: Float
    unusable: Index
    outliers: Index

    @property
    def usable(self) -> Bool:
        """(blocks, ny, nx)."""
        out = np.ones(self.value.shape, bool)
        out.reshape(-1)[self.unusable] = False
        return out


def read_padded(
    layout: Layout, start: int, stop: int, margin: int, handle: int, room: NDArray[np.uint32] | None = None
) -> NDArray[Any]:
    """Rows with a margin above and below, mirrored at the edges of the frame; floats in the file's byte order.

    ``room`` is where flags go that lie in the file as they are asked for.
    """
    ny = layout.shape[-2]
    low, high = max(start - margin, 0), min(stop + margin, ny)
    native = not layout.dtype.startswith("f")
    out = room[None] if room is not None and high - low == len(room) else None
    found: NDArray[Any] = read_band(layout, low, high, out=out, native=native, handle=handle)[0]
    below, above = low - (start - margin), stop + margin - high
    if below or above:
        found = np.concatenate(
            [found[1 : below + 1][::-1], found, found[-above - 1 : -1][::-1] if above else found[:0]]
        )
    return found


def read_blocks(places: Sequence[tuple[Member, int]], setup: Setup, height: int) -> Blocks:
    """Blocks of ``height`` rows with a margin: of each an exposure and the first row."""
    reach = residuals.reach_of(setup.axis)
    margin, left = reach[0] + 1, max(reach[1], 1)  # what is filled at the edge has pixels on all sides, too
    number, rows, nx = len(places), height + 2 * margin, setup.shape[1]
    sci = np.empty((number, rows, -(-(nx + 2 * left) // ALIGN) * ALIGN), np.float32)
    err, flags = np.empty((number, rows, nx), np.float32), np.empty((number, rows, nx), np.uint32)
    for layouts, numbered in groupby(enumerate(places), key=lambda place: place[1][0].layouts):
        with opened(layouts[0].path, layouts[0].stamp) as handle, np.errstate(over="ignore", invalid="ignore"):
            for k, (_, start) in numbered:
                for layout, target in zip(layouts[:2], (sci[k, :, left : left + nx], err[k]), strict=True):
                    values = read_padded(layout, start, start + height, margin, handle)
                    np.copyto(target, values, casting="unsafe")
                values = read_padded(layouts[2], start, start + height, margin, handle, flags[k])
                if not np.shares_memory(values, flags):
                    np.copyto(flags[k], values, casting="unsafe")
    return Blocks(sci, err, flags, margin, left)


def find_odd(blocks: Blocks) -> Odd:
    """Pixels that are not plainly good (step 2)."""
    inner = blocks.sci[:, :, blocks.left : blocks.left + blocks.err.shape[2]]
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(inner + blocks.err)
        usable &= blocks.err > 0
    odd = (blocks.flags & (BAD | UNUSABLE | OUTLIER)) != 0
    odd |= ~usable
    where = np.flatnonzero(odd)
    which = blocks.flags.reshape(-1)[where]
    can = usable.reshape(-1)[where] & ((which & BAD) == 0)
    return Odd(where, can, can & ((which & UNUSABLE) == 0), (which & OUTLIER) != 0)


def fill_odd(blocks: Blocks, odd: Odd, level: Float) -> Float:
    """Replace what is no neighbor, in place, and mirror columns at the ends of lines; what was there.

    ``level`` (blocks,) stands in for values without neighbors.
    """
    _, rows, width = blocks.sci.shape
    nx, left, flat = blocks.err.shape[2], blocks.left, blocks.sci.reshape(-1)
    line, column = np.divmod(odd.where, nx)
    place = line * width + column + left
    found: Float = flat[place]
    blocks.sci[:, :, :left] = np.nan
    blocks.sci[:, :, left + nx :] = np.nan
    flat[place[~odd.good]] = np.nan
    block, row = np.divmod(line, rows)
    inner = ~odd.good & (row > 0) & (row < rows - 1)
    residuals.fill(blocks.sci, place[inner], level[block[inner]])
    for k in range(left):
        blocks.sci[:, :, left - 1 - k] = blocks.sci[:, :, left + 1 + k]
        blocks.sci[:, :, left + nx + k] = blocks.sci[:, :, left + nx - 2 - k]
    blocks.sci[:, :, nx + 2 * left :] = 0
    return found


def measure_rows(blocks: Blocks, level: Float, scale: Float, axis: int | None, sharpness: Float) -> Rows:
    """Residuals of blocks of rows, stripes left in (steps 2 and 3); the blocks are used up.

    Parameters
    ----------
    blocks : Blocks
        From :func:`read_blocks`.
    level, scale : ndarray of float32
        (blocks,) what fills values without neighbors; noise over ERR.
    axis : int or None
        Of the dispersion.
    sharpness : ndarray of float32
        (blocks,) see :mod:`badpix.science.residuals`.
    """
    _, rows, nx = blocks.err.shape
    margin = blocks.margin
    odd = find_odd(blocks)
    before = fill_odd(blocks, odd, level)
    block, row = np.divmod(odd.where // nx, rows)
    inside = (row >= margin) & (row < rows - margin)
    odd, before = Odd(*(part[inside] for part in odd)), before[inside]
    where = odd.where - (block[inside] * 2 + 1) * margin * nx  # in rows without margins
    unusable, filled = where[~odd.usable], where[~odd.good]
    noise = np.multiply(blocks.err[:, margin : rows - margin], scale[:, None, None])
    noise.reshape(-1)[unusable] = scale[block[inside]][~odd.usable]
    place = (margin, blocks.left)
    found = residuals.measure_residual(blocks.sci, noise, axis, sharpness=sharpness, start=place)
    line, column = np.divmod(filled, nx)
    here = found.level[*np.divmod(line, noise.shape[1]), column]
    found.value.reshape(-1)[filled] = before[~odd.good] - here
    found.value.reshape(-1)[unusable] = 0
    return Rows(found.value, found.level, found.noise, noise, unusable, where[odd.outlier])


def measure_lines(z: Float, weight: Float, axis: int) -> Float:
    """What all residuals of a line along an axis share, in units of the values (step 4): 0 where nothing is left.

    Parameters
    ----------
    z, weight : ndarray of float32
        (..., nx) residuals in units of the noise, and one over the noise; 0 where not usable.
    axis : int
        0: one value a column, (nx,); 1: one a row, (..., 1).
    """
    kept, weight = (a.reshape(-1, z.shape[-1]) for a in (np.clip(z, -LINE_CLIP, LINE_CLIP), weight))
    along = "ij,ij->i" if axis == 1 else "ij,ij->j"
    above, total = np.einsum(along, kept, weight), np.einsum(along, weight, weight)
    out: Float = above / np.maximum(np.float32(LINE_SHARE) * total, np.float32(1e-30))
    return out.reshape(*z.shape[:-1], 1) if axis == 1 else out
