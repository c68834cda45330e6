"""The integrations of a band of rows: read file by file, measured ramp by ramp, kept until all are there.

Files are read in their fixed order, tiles lie at fixed rows of the frame, and every tile is worked on alone: the same
bytes come out for any height of the bands and any number of workers. :class:`Stack` knows no files: whoever has ramps
as arrays can add them himself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import cells, group_flags, ramps, readouts, scratch
from badpix.darks.integrations import Integrations, Kept
from badpix.darks.places import Levels
from badpix.darks.scores import Cuts, Setup
from badpix.io.fits import Layout, read_band
from badpix.io.planes import Planes

NEEDED_MAPS = ("rate", "pedestal")  # images that leave every band, float32
SAMPLES = 1 << 20  # of the integrations that are measured together: numpy costs microseconds a call
BYTES_PER_PIXEL = 260  # of a band, one integration: the read ramps come on top


@dataclass(frozen=True)
class Dark:
    """One dark exposure: where its pixels lie, and the usable groups, ``start`` to ``stop`` (exclusive), of all.

    ``shot`` turns the variance of its rate by shot noise into that of an examined ramp; ``read_noise`` is the
    variance of the slope from read noise, ``first_group`` the mean time of the first group since reset, in groups of
    ``group_time`` seconds.
    """

    jump: Layout
    groupdq: Layout
    rate: Layout
    poisson: Layout
    pedestal: Layout | None  # none, where the ramps were fitted with LIKELY
    integrations: int
    uncal: Layout | None = None
    start: int = 0
    stop: int = 0
    shot: float = 1.0
    read_noise: Layout | None = None
    first_group: float = 1.0
    group_time: float = 1.0

    @property
    def groups(self) -> int:
        """All groups of an integration."""
        return int(self.jump.shape[1])


@dataclass(frozen=True)
class Brightness:
    """From which rate (DN/s), own errors and part of the slope in the second half on an integration is bright;
    ``scales``: dark current of each step in time over the usual one, by which rates were divided."""

    limit: float
    own: float
    late: float
    scales: tuple[float, ...] = ()


@dataclass(frozen=True)
class Job:
    """All that a task needs besides its rows.

    ``examined``: integrations whose ramps are measured in full; ``kept``: those of them whose ramps are
    kept until the candidates are known; ``steps``: the step in time of each integration;
    ``scales``: dark current of each integration over the usual one; ``bright``: None where time is not searched;
    ``levels``: the usual noise by place, once it is known; ``spreads``: scatter of the rates of each integration over
    pixels, DN/s, where the depths of the darks differ, and ``apart``: integrations of another depth; ``halves``:
    limits of the candidates whose odd exposures are held against the even ones, None: nobody's; ``rows``: how many of
    a band are read at a time, 0: all.
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
    spreads: tuple[float, ...] = ()
    apart: tuple[int, ...] = ()
    halves: Cuts | None = None
    maps: tuple[str, ...] = NEEDED_MAPS
    samples: tuple[str, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class Rows:
    """A band: rows ``start`` to ``stop`` of the frame, their reference pixels and bias (both (rows, nx))."""

    start: int
    stop: int
    reference: NDArray[np.bool_]
    bias: NDArray[np.float32] | None = None

    def cut(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` of the frame, a part of these."""
        mine = slice(start - self.start, stop - self.start)
        return Rows(start, stop, self.reference[mine], None if self.bias is None else self.bias[mine])


Alter = Callable[[int, int, NDArray[np.float32], NDArray[np.uint8], dict[str, NDArray[np.float32]]], None]
"""Called with the number of the dark and of its integration, the groups that were read of SCI and GROUPDQ (groups,
rows, nx), and ``rate`` and ``pedestal`` (pixels,); changes them in place."""


# --- reading ---------------------------------------------------------------------------------------------


def read_band_stack(job: Job, band: Rows, alter: Alter | None = None) -> Integrations:
    """All integrations of a band; of those that are not examined the first usable group alone is read.

    ``alter``: changes what was read of an integration before it is measured (:data:`Alter`).
    """
    start, stop, nx = band.start, band.stop, job.shape[1]
    pixels = (stop - start) * nx
    stack = Stack(job, pixels, find_held(job, start, stop))
    together = max(SAMPLES // (job.fit.usable * pixels), 1)
    if alter is not None or (stop - start) % job.cells.rows:
        together = 1  # whole tiles alone can be put side by side
    for number, dark in enumerate(job.darks):
        first, runs = stack.filled, stack.cut_runs(dark.integrations, together)
        images = _read_images(job, dark, band, [i - first for run in runs for i in run])
        stack.add_poisson(images.pop("poisson") * np.float32(dark.shot))
        with Planes(dark.groupdq, start, stop) as bits, Planes(dark.jump, start, stop) as values:
            done = 0
            for run in runs:
                mine = {name: image[done : done + len(run)] for name, image in images.items()}
                room, room_for_flags = stack.make_room(run, stop - start)
                own = [i - first for i in run]
                flags = _read_run(bits, dark, own, room_for_flags)
                read = partial(_read_run, values, dark, own, room, native=alter is not None)
                if run[0] not in stack.chosen and alter is None:
                    stack.add(read, flags, mine, run)
                else:
                    sci = read()
                    if alter is not None:
                        alter(number, own[0], sci[:, 0], flags[:, 0], {name: im[0] for name, im in mine.items()})
                    stack.add(sci, flags, mine, run)
                done += len(run)
    return stack.finish()


def _read_run(
    planes: Planes, dark: Dark, run: Sequence[int], room: NDArray[Any], *, native: bool = True
) -> NDArray[Any]:
    """Usable groups of some integrations, side by side: (groups, integrations, rows, nx), as many as fit."""
    out = room[: min(len(room), dark.stop - dark.start)]
    for k, i in enumerate(run):
        first = i * dark.groups + dark.start
        found = planes.read(range(first, first + len(out)), out[:, k], native=native)
    return out.view(found.dtype)


def find_held(job: Job, start: int, stop: int) -> NDArray[np.intp]:
    """Pixels that are DO_NOT_USE in the first usable group of all darks: by a mask in use, not for want of data."""
    first = [read_band(dark.groupdq, start, stop, planes=[dark.start])[0] for dark in job.darks]
    return np.flatnonzero((np.bitwise_and.reduce(first, axis=0) & group_flags.DO_NOT_USE) != 0)


def _read_images(job: Job, dark: Dark, band: Rows, order: Sequence[int]) -> dict[str, NDArray[np.float32]]:
    """Rate and pedestal over the medians of their cells, and the Poisson variance: (nints, pixels) each.

    ``order``: in which the integrations are wanted, but for the variance, whose sum would hang on it.
    """
    layouts = {"rate": dark.rate, "poisson": dark.poisson, "pedestal": dark.pedestal}
    size = (dark.integrations, band.stop - band.start, job.shape[1])
    images = {
        name: read_band(
            layout,
            band.start,
            band.stop,
            planes=None if name == "poisson" else order,
            out=scratch.take(name, size),
        )
        for name, layout in layouts.items()
        if layout is not None
    }
    images.setdefault("pedestal", np.full_like(images["rate"], np.nan))
    if band.bias is not None:
        images["pedestal"] -= band.bias
    for name in ("rate", "pedestal"):
        cells.subtract(images[name], cells.measure_medians(images[name], job.cells), job.cells)
    return {name: image.reshape(len(image), -1) for name, image in images.items()}


class Stack:
    """Integrations of a band as they come in, file by file or from arrays (:meth:`add`)."""

    def __init__(self, job: Job, pixels: int, held: NDArray[np.intp]) -> None:
        n, chosen, names = job.setup.integrations, job.examined, job.fit.names
        numbers, groups = 2 * n + len(names) * len(chosen), job.fit.usable
        room = scratch.take("stack", (pixels * (numbers + len(job.kept) * groups),))
        self.job, self.pixels, self.nx, self.filled = job, pixels, job.shape[1], 0
        self.chosen = dict(zip(chosen, range(len(chosen)), strict=True))
        self.rate, self.pedestal = room[: 2 * n * pixels].reshape(2, n, pixels)
        self.shapes = room[2 * n * pixels : numbers * pixels].reshape(len(names), len(chosen), pixels)
        self.kept_ramps = room[numbers * pixels :].reshape(groups, len(job.kept), pixels)
        self.kept_flags = scratch.take("kept flags", (groups, len(job.kept), pixels), np.uint8)
        self.swapped, self.drift = np.zeros(len(job.kept), bool), np.empty((groups, len(job.kept), 0, 0), np.float32)
        self.counts, self.whole = np.empty((2, n, pixels), np.uint16), np.zeros(n, np.uint16)
        self.saturated = np.zeros((n, pixels), bool)
        self.held, self.masked = held, np.zeros(pixels, bool)
        self.poisson, self.measured = np.zeros(pixels), np.zeros(pixels)
        self.first_level = np.full(pixels, np.nan, np.float32)
        self.rises = ramps.wait_for(job.fit)

    def cut_runs(self, integrations: int, most: int) -> list[list[int]]:
        """The next ``integrations`` in runs of ``most`` that are worked on together, those that are examined first.

        All or none of a run are examined and kept.
        """
        here = range(self.filled, self.filled + integrations)
        runs: list[list[int]] = []
        kind = (False, False)
        for i in sorted(here, key=lambda i: i not in self.chosen):
            before, kind = kind, (i in self.chosen, i in self.job.kept)
            if not runs or kind != before or len(runs[-1]) == most:
                runs.append([])
            runs[-1].append(i)
        return runs

    def make_room(self, run: Sequence[int], rows: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Where SCI and GROUPDQ of a run of integrations are read to: (groups, integrations, rows, nx)."""
        first, number = run[0], len(run)
        shape = (number, rows, self.pixels // rows)
        if first in self.job.kept:
            k = self.job.kept.index(first)
            groups = len(self.kept_ramps)
            ramp, bits = self.kept_ramps[:, k : k + number], self.kept_flags[:, k : k + number]
            return ramp.reshape(groups, *shape), bits.reshape(groups, *shape)
        longest = max(dark.stop - dark.start for dark in self.job.darks)
        groups = self.job.fit.usable if first in self.chosen else 1
        return scratch.take("sci", (groups, *shape)), scratch.take("flags", (longest, *shape), np.uint8)

    def add(
        self,
        sci: NDArray[np.float32] | Callable[[], NDArray[np.float32]],
        flags: NDArray[np.uint8],
        images: dict[str, NDArray[np.float32]],
        run: Sequence[int] = (),
    ) -> None:
        """Measure some integrations, a run of :meth:`cut_runs`, or the next one (without that axis).

        Parameters
        ----------
        sci : ndarray or callable
            (G, integrations, rows, nx), any byte order: their usable groups, or the first of them where they are not
            examined, or what reads it: only saturated pixels need it. Those that are kept need not be in the memory
            of :meth:`make_room`.
        flags : ndarray
            (groups, integrations, rows, nx) GROUPDQ.
        images : dict
            ``rate`` and ``pedestal``, (integrations, pixels); overwritten.
        run : sequence of int
            Which integrations these are; the next one, if not given.
        """
        if flags.ndim == 3:
            flags, images = flags[:, None], {name: image[None] for name, image in images.items()}
            sci = sci if callable(sci) else sci[:, None]
        job, which, number = self.job, list(run or [self.filled]), len(images["rate"])
        pixels = flags.reshape(len(flags), -1)
        rate, pedestal = images["rate"].reshape(-1), images["pedestal"].reshape(-1)
        if self.held.size:
            held = (np.arange(number)[:, None] * self.pixels + self.held).reshape(-1)
            masked = group_flags.clear_masked(pixels, held)
            self.masked[masked % self.pixels] = True
            rate[masked] = pedestal[masked] = np.nan  # the pipeline fitted nothing there
        counts, jumped, cut = counted = group_flags.count_groups(pixels)
        full = cut[(pixels[0, cut] & group_flags.SATURATED) != 0]
        if full.size:
            first = (sci() if callable(sci) else sci)[0].reshape(-1)
            integration, place = np.divmod(full, self.pixels)
            self.saturated[np.array(which)[integration], place] = True
            np.fmax.at(self.first_level, place, first[full].astype(np.float32))
        if which[0] in self.chosen and not callable(sci):  # the lower of pipeline rate and slope of the line, DN/s
            found, counts = self._measure(sci, flags, which[0], counted)
            np.copyto(rate, np.nan, where=counts[0] <= 1)
            np.fmin(rate, found[1] / np.float32(job.setup.group_time), out=rate)
        else:  # the pipeline's rate between jumps, true or false, may be too high: only the line would know
            rate[jumped] = np.nan
            rate[cut[counts[0, cut] <= 1]] = np.nan
        for k, i in enumerate(which):
            self.rate[i], self.pedestal[i] = images["rate"][k], images["pedestal"][k]
            if job.scales and job.scales[i] != 1:
                self.rate[i] /= np.float32(job.scales[i])
        self.counts[:, which], self.whole[which] = counts.reshape(2, number, -1), len(flags)
        self.filled += number

    def _measure(
        self, sci: NDArray[np.float32], flags: NDArray[np.uint8], first: int, counted: group_flags.Counted
    ) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
        """Measure all ramps of a run of integrations from ``first`` on, as if they were tiles of one."""
        groups, number, rows, self.nx = sci.shape
        k, shape = self.chosen[first], (groups, number * rows, self.nx)
        out, side_by_side = self.shapes[:, k : k + number].reshape(len(self.shapes), -1), sci.reshape(shape)
        drift = cells.measure_drift(side_by_side, self.job.cells)
        if first in self.job.kept:
            self._keep(sci, flags, drift, self.job.kept.index(first))
        fit, cut = self.job.fit, self.job.cells
        flags = flags.reshape(shape)
        return ramps.measure_ramps(side_by_side, flags, fit, cut, out, drift, self.rises, counted)

    def _keep(self, sci: NDArray[np.float32], flags: NDArray[np.uint8], drift: NDArray[np.float32], k: int) -> None:
        """Keep ramps from the ``k``-th on, if they were not read there, and the medians of their cells."""
        groups, number = sci.shape[:2]
        mine = slice(k, k + number)
        for table, found in ((self.kept_ramps, sci), (self.kept_flags, flags)):
            if not np.may_share_memory(table, found):
                table[:, mine] = found.reshape(groups, number, -1)
        of_each = drift.reshape(groups, number, -1, drift.shape[2])
        if not self.drift.size:
            self.drift = np.empty((groups, len(self.job.kept), *of_each.shape[2:]), np.float32)
        self.drift[:, mine] = of_each
        self.swapped[mine] = np.may_share_memory(self.kept_ramps, sci) and not sci.dtype.isnative

    def add_poisson(self, variance: NDArray[np.float32]) -> None:
        """Variances of the rate of all integrations of one exposure: (nints, pixels)."""
        known = np.isfinite(variance)
        if known.all():
            self.measured += len(variance)
        else:
            self.measured += known.sum(axis=0)
            variance = np.where(known, variance, np.float32(0))
        self.poisson += variance.sum(axis=0, dtype=np.float64)

    def finish(self) -> Integrations:
        """All integrations."""
        self.rises.finish()
        for i, k in self.chosen.items():
            if self.job.scales and self.job.scales[i] != 1:
                self.shapes[self.job.fit.names.index(ramps.STEADY), k] /= np.float32(self.job.scales[i])
        shapes = dict(zip(self.job.fit.names[1:], self.shapes[1:], strict=True))
        with np.errstate(invalid="ignore"):
            poisson = (self.poisson / self.measured).astype(np.float32)
        return Integrations(
            self.rate,
            self.pedestal,
            shapes,
            np.array(self.job.examined),
            self.counts[0],
            self.counts[1],
            self.saturated,
            poisson,
            self.first_level,
            self.masked,
            Kept(self.kept_ramps, self.kept_flags, self.swapped, self.drift, self.job.cells, self.nx),
            self._weights(),
            self.whole,
        )

    def _weights(self) -> NDArray[np.float32] | None:
        """Weights of the integrations where their depths differ."""
        return readouts.weigh(np.array(self.job.spreads)) if self.job.spreads else None


def cut(stack: Integrations, pixels: slice) -> Integrations:
    """Some pixels of a stack, without copying."""
    shapes = {name: image[:, pixels] for name, image in stack.shapes.items()}
    return Integrations(
        stack.rate[:, pixels],
        stack.pedestal[:, pixels],
        shapes,
        stack.examined,
        stack.groups[:, pixels],
        stack.jumps[:, pixels],
        stack.saturated[:, pixels],
        stack.poisson[pixels],
        stack.first_level[pixels],
        stack.masked[pixels],
        None,
        stack.weights,
        stack.whole,
    )
