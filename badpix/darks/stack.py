"""The integrations of a band of rows: read file by file, measured ramp by ramp, kept until all are there.

Files are read in their fixed order, tiles lie at fixed rows of the frame, and every tile is worked on alone: the same
bytes come out for any height of the bands and any number of workers. :class:`Stack` knows no files: whoever has ramps
as arrays can add them himself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.darks import cells, ramps, readouts
from badpix.darks.places import Levels
from badpix.darks.scores import Cuts, Setup
from badpix.darks.stats import Integrations, Kept
from badpix.io.fits import Layout, read_band

NEEDED_MAPS = ("rate", "pedestal")  # images that leave every band, float32
_KEPT = threading.local()
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
    whether the odd exposures are held against the even ones.
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
    halves: bool = False
    maps: tuple[str, ...] = NEEDED_MAPS
    samples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """A band: rows ``start`` to ``stop`` of the frame, their reference pixels and bias (both (rows, nx))."""

    start: int
    stop: int
    reference: NDArray[np.bool_]
    bias: NDArray[np.float32] | None = None


Alter = Callable[[int, int, NDArray[np.float32], NDArray[np.uint8], dict[str, NDArray[np.float32]]], None]
"""Called with the number of the dark and of its integration, the groups that were read of SCI and GROUPDQ (groups,
rows, nx), and ``rate`` and ``pedestal`` (pixels,); changes them in place."""


# --- reading ---------------------------------------------------------------------------------------------


def read_band_stack(job: Job, band: Rows, alter: Alter | None = None) -> Integrations:
    """All integrations of a band; of those that are not examined the first usable group alone is read.

    ``alter``: changes what was read of an integration before it is measured (:data:`Alter`).
    """
    start, stop = band.start, band.stop
    nx, longest = job.shape[1], max(dark.stop - dark.start for dark in job.darks)
    stack = Stack(job, (stop - start) * nx, _find_held(job, start, stop))
    sci = np.empty((job.fit.usable, stop - start, nx), np.float32)
    room = np.empty((longest, stop - start, nx), np.uint8)
    for number, dark in enumerate(job.darks):
        images = _read_images(job, dark, band)
        stack.add_poisson(images.pop("poisson") * np.float32(dark.shot))
        for i in range(dark.integrations):
            planes = range(i * dark.groups + dark.start, i * dark.groups + dark.stop)
            flags = read_band(dark.groupdq, start, stop, planes=planes, out=room[: len(planes)])
            wanted = planes if stack.examines_next else planes[:1]
            room_for = sci[: len(wanted)]
            stored = read_band(dark.jump, start, stop, planes=wanted, out=room_for, native=alter is not None)
            mine = {name: image[i] for name, image in images.items()}
            if alter is not None:
                alter(number, i, stored, flags, mine)
            stack.add(stored, flags, mine)
    return stack.finish()


def _find_held(job: Job, start: int, stop: int) -> NDArray[np.intp]:
    """Pixels that are DO_NOT_USE in the first usable group of all darks: by a mask in use, not for want of data."""
    first = [read_band(dark.groupdq, start, stop, planes=[dark.start])[0] for dark in job.darks]
    return np.flatnonzero((np.bitwise_and.reduce(first, axis=0) & ramps.DO_NOT_USE) != 0)


def _read_images(job: Job, dark: Dark, band: Rows) -> dict[str, NDArray[np.float32]]:
    """Rate and pedestal over the medians of their cells, and the Poisson variance: (nints, pixels) each."""
    layouts = {"rate": dark.rate, "poisson": dark.poisson, "pedestal": dark.pedestal}
    images = {
        name: read_band(layout, band.start, band.stop).astype(np.float32, copy=False)
        for name, layout in layouts.items()
        if layout is not None
    }
    images.setdefault("pedestal", np.full_like(images["rate"], np.nan))
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


class Stack:
    """Integrations of a band as they come in, file by file or from arrays (:meth:`add`)."""

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
        self.counts, self.whole = np.empty((2, n, pixels), np.uint16), np.zeros(n, np.uint16)
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
        self.counts[:, i], self.whole[i] = counts, len(flags)
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
            self.kept,
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
