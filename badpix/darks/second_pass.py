"""The second pass over some bands of darks: with defects in copies of good pixels, or with shuffled groups.

Steps 2 and 4 of :mod:`badpix.darks.completeness`. A band is read again, its chosen ramps are replaced, and it goes
through the same measurements as in the first pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from badpix.darks import cells, injection
from badpix.darks.bands import Band, measure_stack
from badpix.darks.injection import Agreement, Exposure, Readout
from badpix.darks.plan import USUAL_GAIN
from badpix.darks.scores import Population
from badpix.darks.stack import NEEDED_MAPS, Dark, Job, Rows, read_band_stack
from badpix.io.fits import Layout, read_band

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Index = NDArray[np.intp]


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
    """What leaves a band of the second pass: its maps and candidates, and who got what."""

    band: Band
    pixels: Index
    kind: Index
    level: Index
    agreement: Agreement


# --- 2: injected ----------------------------------------------------------------------------------


def measure_injected(job: Job, population: Population, plan: Plan, band: tuple[Rows, Bool]) -> Injected:
    """One band with defects put into its good pixels."""
    rows, good = band
    kinds = tuple(plan.strengths)
    pixels, kind, level = injection.assign(good, rows.start, plan.seed, len(kinds))
    rng = np.random.default_rng((plan.seed, rows.start, 1))
    originals = [_gather(dark, rows, pixels) for dark in job.darks]
    readouts = _describe_readouts(job, population, rows, pixels, originals)
    traits = injection.draw_traits(_choose_blinks(plan, kinds, kind, level, len(job.darks), rng), rng)
    agreement, changed = Agreement(), []
    for k, (old, readout) in enumerate(zip(originals, readouts, strict=True)):
        ramp = old.ramps.copy()
        for a, b in np.unique(np.stack([kind, level]), axis=1).T:
            at = np.flatnonzero((kind == a) & (level == b))
            name, strength = kinds[a], float(plan.strengths[kinds[a]][b])
            strength = plan.rate if name == "intermittent" else strength
            size = (*ramp.shape[:2], len(at))
            mine = traits.some(at), k, rng
            change = injection.make_change(size, name, strength, readout, readout.noise[at], *mine)
            own = 1 - 4 * plan.ipc if name in injection.CHARGES else 1.0  # its neighbors show the rest
            ramp[:, :, at] += change * np.float32(own)
        new, agreed = injection.apply_difference(old, ramp, readout)
        agreement += agreed
        changed.append(new)
    stack = read_band_stack(job, rows, partial(_put, job, pixels, originals, changed))
    found = measure_stack(replace(job, maps=NEEDED_MAPS, samples=(), halves=False), population, rows, stack)
    return Injected(found, pixels + rows.start * job.shape[1], kind, level, agreement)


def _describe_readouts(
    job: Job, population: Population, rows: Rows, pixels: Index, exposures: list[Exposure]
) -> list[Readout]:
    """What the emulation must know of each dark: its read noise is what its variances say, else what was measured."""
    usual = np.full(len(pixels), np.exp(population.spread["log_noise"][0]), np.float32)
    if job.levels is not None:
        usual *= job.levels.of_rows(rows.start, rows.stop).ravel()[pixels]
    out = []
    for dark, exposure in zip(job.darks, exposures, strict=True):
        groups, noise = dark.stop - dark.start, usual
        if dark.read_noise is not None and groups > 1:
            variance = _pick(dark.read_noise, dark, rows, pixels)
            with np.errstate(invalid="ignore"):
                stated = np.sqrt(np.fmin.reduce(variance) * (groups**3 - groups) / 12) * dark.group_time
            noise = np.where(stated > 0, stated, usual).astype(np.float32)
        readout = Readout((dark.start, dark.stop), USUAL_GAIN, dark.group_time, dark.first_group, noise)
        poisson = _pick(dark.poisson, dark, rows, pixels)
        readout = replace(readout, gain=injection.measure_gain(exposure, poisson, readout, USUAL_GAIN))
        out.append(replace(readout, threshold=injection.choose_threshold(exposure, readout)))
    return out


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


def _gather(dark: Dark, rows: Rows, pixels: Index) -> Exposure:
    """The chosen pixels of one exposure, read integration by integration."""
    size = (dark.integrations, dark.groups, len(pixels))
    sci, flags = np.empty(size, np.float32), np.empty(size, np.uint8)
    for i in range(dark.integrations):
        planes = range(i * dark.groups, (i + 1) * dark.groups)
        for layout, out in ((dark.jump, sci), (dark.groupdq, flags)):
            out[i] = read_band(layout, rows.start, rows.stop, planes=planes).reshape(len(planes), -1)[:, pixels]
    rate, pedestal = (_pick(layout, dark, rows, pixels) for layout in (dark.rate, dark.pedestal))
    return Exposure(sci, flags, rate, pedestal)


def _pick(layout: Layout | None, dark: Dark, rows: Rows, pixels: Index) -> Float:
    """The chosen pixels of an image an integration, NaN where there is none: (integrations, n)."""
    if layout is None:
        return np.full((dark.integrations, len(pixels)), np.nan, np.float32)
    image = read_band(layout, rows.start, rows.stop).reshape(dark.integrations, -1)
    return image[:, pixels].astype(np.float32)


def _put(
    job: Job,
    pixels: Index,
    old: list[Exposure],
    new: list[Exposure],
    number: int,
    i: int,
    sci: Float,
    flags: NDArray[np.uint8],
    images: dict[str, Float],
) -> None:
    """Put the changed ramps of one integration in place of those that were read: :data:`badpix.darks.stack.Alter`."""
    dark, was, now = job.darks[number], old[number], new[number]
    use = slice(dark.start, dark.stop)
    sci.reshape(len(sci), -1)[:, pixels] = now.ramps[i, use][: len(sci)]
    flags.reshape(len(flags), -1)[:, pixels] = now.flags[i, use]
    images["rate"][pixels] += now.rate[i] - was.rate[i]
    images["pedestal"][pixels] += now.pedestal[i] - was.pedestal[i]


# --- 4: shuffled groups ----------------------------------------------------------------------------------


def measure_shuffled(job: Job, population: Population, seed: int, band: tuple[Rows, Bool]) -> Band:
    """One band whose good ramps have their groups in another order."""
    rows, good = band
    rng = np.random.default_rng((seed, rows.start, 2))

    def shuffle(_: int, __: int, sci: Float, flags: NDArray[np.uint8], ___: dict[str, Float]) -> None:
        if len(sci) == len(flags):  # of integrations that are not examined the first group alone was read
            shuffle_groups(sci, flags, good, job.cells, rng)

    stack = read_band_stack(job, rows, shuffle)
    return measure_stack(replace(job, maps=NEEDED_MAPS, samples=(), halves=False), population, rows, stack)


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
    clean = good & ((flags & (injection.JUMP | injection.UNUSABLE)) == 0).all(axis=0)
    order = rng.permutation(len(sci))
    rest = (sci - line)[order]
    sci[:] = np.where(clean, line + rest, sci) + drift
