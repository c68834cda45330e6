"""The second pass over some bands of darks: with defects in copies of good pixels, or with shuffled groups.

Steps 2 and 4 of :mod:`badpix.darks.completeness`. Copies are columns of pixels, several of each chosen pixel: their
ramps are gathered exposure by exposure, changed, and go through the measurements of the first pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from badpix.darks import cells, injection
from badpix.darks.bands import Band, Columns, measure_columns, measure_stack
from badpix.darks.group_flags import JUMP_DET, UNUSABLE
from badpix.darks.injection import Agreement, Exposure, Readout, Traits
from badpix.darks.plan import USUAL_GAIN
from badpix.darks.scores import Population
from badpix.darks.stack import NEEDED_MAPS, Dark, Job, Rows, Stack, find_held, read_band_stack
from badpix.io.fits import Layout, read_band

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Index = NDArray[np.intp]

LAYERS = 4  # copies of each chosen pixel
COPY_BYTES, ROOM = 40, 4e6  # bytes that a group takes while its ramp is changed, and that those of a part may take


@dataclass(frozen=True)
class Plan:
    """What the second pass needs: the seed, kinds and their strengths, the rate (DN/s) of intermittent
    pixels in their hot darks, the part of a charge that each side neighbor shows."""

    seed: int
    strengths: dict[str, NDArray[np.float64]]
    rate: float
    ipc: float = 0.0


@dataclass(frozen=True)
class Injected:
    """What leaves a band of the second pass: where the copies' pixels lie (flat indices in the frame), what is known
    of the copies, and who got what. The :data:`LAYERS` copies of all pixels follow each other."""

    index: Index
    columns: Columns
    kind: Index
    level: Index
    agreement: Agreement


# --- 2: injected ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copies:
    """Kinds, numbers of kind and level, and traits of the copies, (n,)."""

    kinds: tuple[str, ...]
    kind: Index
    level: Index
    traits: Traits


def measure_injected(job: Job, population: Population, plan: Plan, band: tuple[Rows, Bool, Float]) -> Injected:
    """One band (rows, good pixels, median rates) with defects put into copies of its good pixels."""
    rows, good, rate = band
    good = good.copy()
    good.reshape(-1)[find_held(job, rows.start, rows.stop)] = False
    kinds = tuple(plan.strengths)
    pixels, kind, level = injection.assign(good, rows.start, plan.seed, len(kinds), LAYERS)
    rng = np.random.default_rng((plan.seed, rows.start, 1))
    traits = injection.draw_traits(_choose_blinks(plan, kinds, kind, level, len(job.darks), rng), rng)
    copies, n = _Copies(kinds, kind, level, traits), len(pixels)
    # one pixel of zeros stands behind the copies, the only cell: drifts are taken off already
    column = cells.Cells(1, (slice(n, n + 1),))
    own = replace(job, shape=(1, n + 1), cells=column, maps=NEEDED_MAPS, samples=(), halves=None)
    stack, agreement = Stack(own, n + 1, np.empty(0, np.intp)), Agreement()
    noise = _read_noise(job, population, rows, pixels[: n // LAYERS])
    own_rate = rate.reshape(-1)[pixels[: n // LAYERS]]
    for k, dark in enumerate(job.darks):
        old, shared = _read_exposure(job, dark, rows, pixels[: n // LAYERS])
        readout = _describe_readout(dark, noise[dark.group_time], old)
        before, agreed = injection.emulate(old, readout)
        agreement += agreed
        changed = _change(old, before, readout, plan, copies, k, shared, own_rate, rng)
        _add(stack, dark, changed, shared)
    index = pixels + rows.start * job.shape[1]
    return Injected(index, measure_columns(own, population, stack.finish(), index), kind, level, agreement)


@dataclass(frozen=True)
class _Shared:
    """What pixels share with their cells in one exposure: (integrations, groups, n) drift of the usable groups, DN,
    and (integrations, n) rate (DN/s) and pedestal (DN; with the bias)."""

    drift: Float
    rate: Float
    pedestal: Float


def _read_exposure(job: Job, dark: Dark, rows: Rows, pixels: Index) -> tuple[Exposure, _Shared]:
    """The chosen pixels of one exposure, read integration by integration."""
    nx, use = job.shape[1], slice(dark.start, dark.stop)
    size = (dark.integrations, dark.groups, len(pixels))
    sci, flags = np.empty(size, np.float32), np.empty(size, np.uint8)
    drift = np.zeros((dark.integrations, dark.stop - dark.start, len(pixels)), np.float32)
    for i in range(dark.integrations):
        planes = range(i * dark.groups, (i + 1) * dark.groups)
        stored = read_band(dark.jump, rows.start, rows.stop, planes=planes)
        sci[i] = stored.reshape(len(planes), -1)[:, pixels]
        drift[i] = cells.pick(cells.measure_drift(stored[use], job.cells), pixels, nx, job.cells)
        bits = read_band(dark.groupdq, rows.start, rows.stop, planes=planes)
        flags[i] = bits.reshape(len(planes), -1)[:, pixels]
    poisson = _pick(dark.poisson, dark, rows, pixels)
    found = []
    for layout, bias in ((dark.rate, None), (dark.pedestal, rows.bias)):
        if layout is None:
            found.append(np.full((2, dark.integrations, len(pixels)), np.nan, np.float32))
            continue
        image = read_band(layout, rows.start, rows.stop).astype(np.float32)
        own = image.reshape(dark.integrations, -1)[:, pixels]
        if bias is not None:
            image -= bias
        shared = cells.pick(cells.measure_medians(image, job.cells), pixels, nx, job.cells)
        found.append(np.stack([own, shared if bias is None else shared + bias.reshape(-1)[pixels]]))
    (rate, of_rate), (pedestal, of_pedestal) = found
    return Exposure(sci, flags, rate, pedestal, poisson), _Shared(drift, of_rate, of_pedestal)


def _read_noise(job: Job, population: Population, rows: Rows, pixels: Index) -> dict[float, Float]:
    """Read noise of a group at the chosen pixels, DN, by the time of a group: as the variances say, or measured.

    The least of all integrations: flags in a ramp raise its variance.
    """
    usual = np.full(len(pixels), np.exp(population.spread["log_noise"][0]), np.float32)
    if job.levels is not None:
        usual *= job.levels.of_rows(rows.start, rows.stop).ravel()[pixels]
    out: dict[float, Float] = {}
    for dark in job.darks:
        known, groups = (
            out.setdefault(dark.group_time, np.full(len(pixels), np.nan, np.float32)),
            dark.stop - dark.start,
        )
        if dark.read_noise is not None and groups > 1:
            variance = np.fmin.reduce(_pick(dark.read_noise, dark, rows, pixels))
            with np.errstate(invalid="ignore"):
                stated = np.sqrt(variance * np.float32((groups**3 - groups) / 12)) * np.float32(dark.group_time)
            np.fmin(known, np.where(stated > 0, stated, np.float32(np.nan)), out=known)
    return {time: np.where(np.isfinite(known), known, usual) for time, known in out.items()}


def _describe_readout(dark: Dark, noise: Float, exposure: Exposure) -> Readout:
    """What the emulation must know of a dark."""
    readout = Readout((dark.start, dark.stop), USUAL_GAIN, dark.group_time, dark.first_group, noise)
    readout = replace(readout, gain=injection.measure_gain(exposure, exposure.poisson, readout, USUAL_GAIN))
    return replace(readout, threshold=injection.choose_threshold(exposure, readout))


def _change(
    old: Exposure,
    before: injection.Emulated,
    readout: Readout,
    plan: Plan,
    copies: _Copies,
    number: int,
    shared: _Shared,
    rate: Float,
    rng: np.random.Generator,
) -> Exposure:
    """The copies in exposure ``number`` with their defects, part by part; ``rate`` of the pixels over their cells."""
    nints, groups, pixels = old.ramps.shape
    n = len(copies.kind)
    parts = max(1, round(n * nints * groups * COPY_BYTES / ROOM))
    found = []
    for part in np.array_split(np.arange(n), parts):
        at = part % pixels
        mine, noise = old.some(at), replace(readout, noise=readout.noise[at])
        ramps, shifted = mine.ramps.copy(), np.zeros(len(part), bool)
        for a, name in enumerate(copies.kinds):
            here = np.flatnonzero(copies.kind[part] == a)
            strength = plan.strengths[name][copies.level[part[here]]].astype(np.float32)
            strength = np.full_like(strength, plan.rate) if name == "intermittent" else strength
            if name == "noisy":
                slope = (rate + shared.rate)[:, at[here]] * np.float32(readout.group_time)
                drift = shared.drift[:, :, at[here]]
                ramps[:, :, here] = injection.scale_noise(mine.some(here), drift, slope, readout, strength)
                continue
            traits, size = copies.traits.some(part[here]), (nints, groups, len(here))
            shifted[here] = (name == "low_pedestal") | ((name == "intermittent") & ~traits.blinks[number])
            change = injection.make_change(size, name, strength, noise, traits, number, rng)
            own = 1 - 4 * plan.ipc if name in injection.CHARGES else 1.0  # its neighbors show the rest
            ramps[:, :, here] += change * np.float32(own)
        found.append(_follow(mine, before.some(at), ramps, noise, shifted))
    return injection.join(found)


def _follow(old: Exposure, before: injection.Emulated, ramps: Float, readout: Readout, shifted: Bool) -> Exposure:
    """An exposure with other ramps; those that are ``shifted`` as a whole keep their flags and slopes."""
    here, there = np.flatnonzero(~shifted), np.flatnonzero(shifted)
    noise = replace(readout, noise=readout.noise[here])
    changed = injection.apply_difference(old.some(here), before.some(here), ramps[..., here], noise)
    same = old.some(there)
    pedestal = same.pedestal + (ramps[:, 0, there] - same.ramps[:, 0])
    same = replace(same, ramps=ramps[..., there], pedestal=pedestal)
    return injection.join([changed, same]).some(np.argsort(np.concatenate([here, there])))


def _add(stack: Stack, dark: Dark, copies: Exposure, shared: _Shared) -> None:
    """Measure the copies of one exposure."""
    use, n = slice(dark.start, dark.stop), copies.ramps.shape[2]
    beside = np.zeros(len(copies.rate), np.float32)
    stack.add_poisson(np.column_stack([copies.poisson, beside]) * np.float32(dark.shot))
    for i in range(dark.integrations):
        room, bits = stack.make_room([stack.filled], 1)
        sci, flags = room[: dark.stop - dark.start, 0, 0], bits[: dark.stop - dark.start, 0, 0]
        sci[:, :n] = copies.ramps[i, use][: len(sci)] - np.tile(shared.drift[i, : len(sci)], LAYERS)
        flags[:, :n] = copies.flags[i, use]
        sci[:, n], flags[:, n] = 0, 0
        images = {
            name: np.append(image - np.tile(medians, LAYERS), np.float32(0))[None]
            for name, image, medians in (
                ("rate", copies.rate[i], shared.rate[i]),
                ("pedestal", copies.pedestal[i], shared.pedestal[i]),
            )
        }
        stack.add(sci[:, None, None], flags[:, None, None], images)


def _choose_blinks(
    plan: Plan, kinds: Sequence[str], kind: Index, level: Index, number: int, rng: np.random.Generator
) -> Bool:
    """In which darks intermittent pixels are hot: (darks, pixels)."""
    order = rng.permuted(np.tile(np.arange(number)[:, None], (1, len(kind))), axis=0)
    if "intermittent" not in kinds:
        return order < 0
    wanted = np.rint(plan.strengths["intermittent"] * number)[level]
    found: Bool = (order < wanted) & (kind == kinds.index("intermittent"))
    return found


def _pick(layout: Layout | None, dark: Dark, rows: Rows, pixels: Index) -> Float:
    """The chosen pixels of an image an integration, NaN where there is none: (integrations, n)."""
    if layout is None:
        return np.full((dark.integrations, len(pixels)), np.nan, np.float32)
    image = read_band(layout, rows.start, rows.stop).reshape(dark.integrations, -1)
    return image[:, pixels].astype(np.float32)


# --- 4: shuffled groups ----------------------------------------------------------------------------------


def measure_shuffled(job: Job, population: Population, seed: int, band: tuple[Rows, Bool]) -> Band:
    """One band whose good ramps have their groups in another order."""
    rows, good = band
    rng = np.random.default_rng((seed, rows.start, 2))

    def shuffle(_: int, __: int, sci: Float, flags: NDArray[np.uint8], ___: dict[str, Float]) -> None:
        if len(sci) == len(flags):  # of integrations that are not examined the first group alone was read
            shuffle_groups(sci, flags, good, job.cells, rng)

    stack = read_band_stack(job, rows, shuffle)
    return measure_stack(replace(job, maps=NEEDED_MAPS, samples=(), halves=None), population, rows, stack)


def shuffle_groups(
    sci: Float, flags: NDArray[np.uint8], good: Bool, cut: cells.Cells, rng: np.random.Generator
) -> None:
    """Put what is left of unflagged good ramps beside their lines into another order, in place.

    Parameters
    ----------
    sci, flags : ndarray
        (groups, rows, nx) DN and GROUPDQ.
    good : ndarray
        (rows, nx) bool.
    cut : Cells
        Drifts that the pixels of a cell share stay where they are.
    rng : Generator
        Gives each integration its order.
    """
    drift = sci.copy()
    cells.subtract(sci, cells.measure_drift(sci, cut), cut)
    drift -= sci
    x = (np.arange(len(sci)) - (len(sci) - 1) / 2).astype(np.float32)
    mean, slope = sci.mean(axis=0), np.einsum("g,gyx->yx", x, sci) / np.float32(x @ x)
    line = mean + slope * x[:, None, None]
    clean = good & ((flags & (JUMP_DET | UNUSABLE)) == 0).all(axis=0)
    order = rng.permutation(len(sci))
    rest = (sci - line)[order]
    sci[:] = np.where(clean, line + rest, sci) + drift
