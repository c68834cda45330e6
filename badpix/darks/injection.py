"""Defects put into copies of good pixels' ramps, and what the pipeline would have made of them.

1. Good pixels on a grid of every :data:`SPACING`-th row and column are chosen, and a defect of one kind and strength
   falls to each (:func:`assign`); the same pixels for equal inputs.
2. The defect's charge is added to the ramp of each integration (:func:`make_change`).
3. The jump step and the ramp fit are emulated on both ramps, the file's and the changed one
   (:mod:`badpix.numerics.jumps`, :mod:`badpix.numerics.ramp_fit`); only the *difference* between the two is applied
   to what the file says of flags, slope and pedestal, so that the emulation's own errors drop out.
4. How often the emulation reproduces the file on the unchanged ramps is measured too (:class:`Agreement`).

The method is that of artificial stars, at the level of ramps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.darks.group_flags import JUMP_DET, UNUSABLE
from badpix.numerics.jumps import measure_jumps
from badpix.numerics.ramp_fit import Constants, fit_ramps, measure_typical

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Flags = NDArray[np.uint8]
Index = NDArray[np.intp]

SPACING = 4  # rows and columns between pixels: neighbors stay good, medians of cells stay what they were
CHARGES = ("hot", "intermittent", "rc", "telegraph")  # kinds that are charge in the pixel, not noise of its readout
LEVELS = 8  # strengths of each kind
SHARES = (1, 2, 2, 2, 2, 2, 2, 1)  # copies of each strength: at the ends nearly none or nearly all are found
THRESHOLDS = (3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 8.0)  # of jump detection, sigma: the one that fits the files is taken
DECAYS = (1.0, 12.0)  # groups in which an RC pixel settles, evenly in the logarithm
DWELLS = (2.5, 15.0)  # groups that a telegraph pixel stays in a state on average, evenly in the logarithm
SAME_RATE = 0.05  # part of the slope's error within which two slopes are the same


@dataclass(frozen=True)
class Exposure:
    """The chosen pixels of one exposure.

    Attributes
    ----------
    ramps : ndarray
        (integrations, groups, pixels) DN.
    flags : ndarray
        (integrations, groups, pixels) uint8 GROUPDQ.
    rate, pedestal, poisson : ndarray
        (integrations, pixels) of the files: DN/s, DN, and variance of the rate by shot noise, (DN/s)^2.
    """

    ramps: Float
    flags: Flags
    rate: Float
    pedestal: Float
    poisson: Float

    def some(self, at: Index) -> Exposure:
        """Some of the pixels."""
        images = (self.rate[:, at], self.pedestal[:, at], self.poisson[:, at])
        return Exposure(self.ramps[..., at], self.flags[..., at], *images)


def join(parts: list[Exposure]) -> Exposure:
    """The pixels of several exposures beside each other."""
    names = ("ramps", "flags", "rate", "pedestal", "poisson")
    return Exposure(*(np.concatenate([getattr(p, name) for p in parts], axis=-1) for name in names))


@dataclass(frozen=True)
class Readout:
    """What the emulation must know: usable groups (first, last exclusive), gain e/DN, seconds between groups, mean
    time of the first group since reset in groups, read noise of one group by pixel (DN), jump threshold (sigma)."""

    usable: tuple[int, int]
    gain: float
    group_time: float
    first_group: float
    noise: Float
    threshold: float = 4.0


@dataclass(frozen=True)
class Agreement:
    """Unchanged copies on which the emulation gives what the file says: of how many, flags, slopes, pedestals."""

    copies: int = 0
    flags: int = 0
    slopes: int = 0
    pedestals: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.copies + other.copies,
            self.flags + other.flags,
            self.slopes + other.slopes,
            self.pedestals + other.pedestals,
        )


@dataclass(frozen=True)
class Traits:
    """What a pixel keeps through all exposures: (n,) decay of RC in groups and its sign; (2, n) mean dwell times in
    the low and the high state, groups; (exposures, n) whether an intermittent pixel is hot."""

    decay: Float
    sign: Float
    dwell: Float
    blinks: Bool

    def some(self, at: Index) -> Traits:
        """Those of some pixels."""
        return Traits(self.decay[at], self.sign[at], self.dwell[:, at], self.blinks[:, at])


# --- 1: who gets what ------------------------------------------------------------------------------------


def assign(good: Bool, start: int, seed: int, kinds: int, times: int = 1) -> tuple[Index, Index, Index]:
    """Chosen pixels of a band, and the kind and level that fall to each copy of them.

    Parameters
    ----------
    good : ndarray
        (rows, nx) pixels that are good, with good neighbors.
    start : int
        First row of the band in the frame.
    seed : int
        Of the run.
    kinds : int
        Number of kinds.
    times : int
        Copies of each pixel, one after the other: all pixels, then all of them again.

    Returns
    -------
    pixels, kind, level : ndarray
        (n,) flat index in the band; numbers of kinds, each as often as any other, and of strengths (:data:`SHARES`).
    """
    grid = np.zeros_like(good)
    for row in range((-start) % SPACING, len(good), SPACING):  # shifted row by row: outputs may take turns in columns
        grid[row, (SPACING // 2 + (start + row) // SPACING) % SPACING :: SPACING] = True
    pixels = np.tile(np.flatnonzero(good & grid), times)
    rng = np.random.default_rng((seed, start))
    cells = rng.permutation(np.arange(len(pixels)) % (kinds * sum(SHARES)))
    return pixels, cells // sum(SHARES), np.repeat(np.arange(LEVELS), SHARES)[cells % sum(SHARES)]


def draw_traits(blinks: Bool, rng: np.random.Generator) -> Traits:
    """Decays, signs and dwell times of n pixels; ``blinks``: (exposures, n)."""
    n = blinks.shape[1]
    return Traits(
        _draw_times(DECAYS, (n,), rng),
        rng.choice(np.array([-1, 1], np.float32), (n,)),
        _draw_times(DWELLS, (2, n), rng),
        blinks,
    )


def _draw_times(ends: tuple[float, float], shape: tuple[int, ...], rng: np.random.Generator) -> Float:
    """Times between two ends, evenly in their logarithm."""
    low, high = (float(np.log(end)) for end in ends)
    return np.exp(rng.uniform(low, high, shape)).astype(np.float32)


# --- 2: defects -------------------------------------------------------------------------------------------


def make_change(
    shape: tuple[int, int, int],
    kind: str,
    level: float | Float,
    readout: Readout,
    traits: Traits,
    exposure: int,
    rng: np.random.Generator,
) -> Float:
    """What a defect adds to the ramps of some pixels, DN.

    Parameters
    ----------
    shape : tuple of int
        Integrations, groups, n pixels.
    kind : str
        ``hot``, ``rc``, ``telegraph``, ``noisy`` (Gaussian; :func:`scale_noise` keeps what it is like),
        ``low_pedestal`` or ``intermittent``.
    level : float or ndarray
        Its strength, of all or of each pixel: DN/s (hot, intermittent where it blinks), DN (rc, telegraph,
        low_pedestal), factor of the pixel's own noise (noisy).
    readout : Readout
        Times and gain.
    traits : Traits
        Of these pixels.
    exposure : int
        Which of the exposures this is.
    rng : Generator
        Draws noise and states.
    """
    nints, ngroups, n = shape
    times = (np.arange(ngroups) + readout.first_group).astype(np.float32)
    if kind in ("hot", "intermittent"):
        rate = np.broadcast_to(level, n) if kind == "hot" else level * traits.blinks[exposure]
        mean = rate * readout.group_time * readout.gain
        steps = np.concatenate([np.full((1, 1), times[0]), np.ones((ngroups - 1, 1))]) * mean
        charge = rng.poisson(np.broadcast_to(steps, (nints, ngroups, n))).cumsum(axis=1)
        counted: Float = (charge / readout.gain).astype(np.float32)
        return counted
    if kind == "rc":
        bend = 1 - np.exp(-times[:, None] / traits.decay)
        settled: Float = np.broadcast_to((traits.sign * level * bend).astype(np.float32), shape)
        return settled
    if kind == "telegraph":
        states = switch(nints, ngroups, traits.dwell, rng)
        states *= np.asarray(level, np.float32)
        return states
    if kind == "noisy":
        own = (np.sqrt(np.maximum(np.square(level) - 1, 0.0)) * readout.noise).astype(np.float32)
        louder: Float = own * rng.standard_normal(shape, dtype=np.float32)
        return louder
    return np.broadcast_to(-np.asarray(level, np.float32), shape)  # low_pedestal


def scale_noise(old: Exposure, drift: Float, slope: Float, readout: Readout, level: Float) -> Float:
    """Ramps whose noise is so many times as large, whatever its distribution: (integrations, groups, n) DN.

    Between flagged groups every step departs ``level`` times as far from the usual one; steps of flagged groups stay.

    Parameters
    ----------
    old : Exposure
        The pixels as they are.
    drift : ndarray
        (integrations, usable groups, n) what their cells share, DN; it stays.
    slope : ndarray
        (integrations, n) usual step, DN.
    readout : Readout
        Of the exposure.
    level : ndarray
        (n,) factors.
    """
    first, last = readout.usable
    own = old.ramps[:, first:last] - drift
    steps = np.diff(own, axis=1) - slope[:, None]
    hit = (old.flags[:, first:last] & (JUMP_DET | UNUSABLE)) != 0
    steps[hit[:, 1:] | ((old.flags[:, first : last - 1] & UNUSABLE) != 0)] = 0
    steps[~np.isfinite(steps)] = 0
    out = old.ramps.copy()
    more = np.concatenate([np.zeros_like(steps[:, :1]), np.cumsum(steps, axis=1)], axis=1)
    out[:, first:last] += (level - 1) * (more - more.mean(axis=1, keepdims=True))  # the mean level stays
    return out


def switch(nints: int, ngroups: int, dwell: Float, rng: np.random.Generator) -> Float:
    """Signals of 0 and 1 of n pixels with (2, n) mean dwell times: (integrations, groups, n) float32."""
    leave, n = 1 / dwell, dwell.shape[1]  # out of the low and of the high state
    draws = rng.random((nints, ngroups + 1, n))
    state = draws[:, 0] < leave[0] / leave.sum(axis=0)
    out = np.empty((nints, ngroups, n), np.float32)
    for g in range(ngroups):
        out[:, g] = state
        state = state ^ (draws[:, g + 1] < np.where(state, leave[1], leave[0]))
    return out


# --- 3: what the pipeline would say -----------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """What the ramp fit says: (integrations, n) slopes (DN/s), pedestals (DN), and the variances of the slopes by
    shot noise and by read noise."""

    rate: Float
    pedestal: Float
    poisson: Float
    read_noise: Float

    def some(self, at: Index) -> Slopes:
        """That of some pixels."""
        return Slopes(self.rate[:, at], self.pedestal[:, at], self.poisson[:, at], self.read_noise[:, at])


@dataclass(frozen=True)
class Emulated:
    """What the emulation says of ramps: (integrations, groups, n) jump flags, and what is fitted."""

    jumps: Bool
    slopes: Slopes

    def some(self, at: Index) -> Emulated:
        """That of some pixels."""
        return Emulated(self.jumps[..., at], self.slopes.some(at))


def find_jumps(ramps: Float, flags: Flags, readout: Readout) -> Float:
    """Steps of the usable groups over their noise, 0 where they don't count: (integrations, groups - 1, n)."""
    first, last = readout.usable
    steps = np.diff(ramps[:, first:last], axis=1)
    unusable = (flags[:, first:last] & UNUSABLE) != 0
    usable = ~(unusable[:, 1:] | unusable[:, :-1])
    nints, between, n = steps.shape
    ratio, known = measure_jumps(
        steps.reshape(nints * between, n), usable.reshape(nints * between, n), readout.noise, readout.gain
    )
    return np.where(known, ratio, np.float32(0)).reshape(steps.shape)


def flag_jumps(ramps: Float, flags: Flags, readout: Readout) -> Bool:
    """Groups that the jump step would flag: (integrations, groups, n)."""
    first, last = readout.usable
    out = np.zeros(ramps.shape, bool)
    out[:, first + 1 : last] = find_jumps(ramps, flags, readout) > readout.threshold
    return out


def fit(ramps: Float, flags: Flags, readout: Readout) -> Slopes:
    """What the ramp fit would give."""
    use = slice(*readout.usable)
    constants = Constants(readout.gain, readout.group_time, readout.first_group)
    typical = measure_typical(ramps[:, use, None], flags[:, use, None], constants)
    shape = (len(ramps), ramps.shape[2])
    typical, noise = (np.broadcast_to(part, shape) for part in (typical, readout.noise))
    with np.errstate(invalid="ignore", divide="ignore"):  # integrations side by side: one fit of all
        found = fit_ramps(ramps.transpose(1, 0, 2), flags.transpose(1, 0, 2), use, typical, noise, constants)
    return Slopes(found.rate, found.pedestal, found.var_poisson, found.var_rnoise)


def emulate(old: Exposure, readout: Readout) -> tuple[Emulated, Agreement]:
    """What the emulation says of an exposure, and how often it is what the files say."""
    jumps, had = flag_jumps(old.ramps, old.flags, readout), (old.flags & JUMP_DET) != 0
    said = fit(old.ramps, old.flags, readout)
    first, last = readout.usable
    with np.errstate(invalid="ignore"):
        error = np.sqrt(said.poisson + said.read_noise)
        agreement = Agreement(
            said.rate.size,
            int((jumps == had)[:, first:last].all(axis=1).sum()),
            int((np.abs(said.rate - old.rate) < SAME_RATE * error).sum()),
            int((np.abs(said.pedestal - old.pedestal) < SAME_RATE * readout.noise).sum()),
        )
    return Emulated(jumps, said), agreement


def apply_difference(old: Exposure, before: Emulated, ramps: Float, readout: Readout) -> Exposure:
    """An exposure with other ramps: flags, slopes and pedestals follow by what the emulation says of both."""
    after, had = flag_jumps(ramps, old.flags, readout), (old.flags & JUMP_DET) != 0
    jumps = np.where(before.jumps == after, had, after)
    flags = np.where(jumps, old.flags | JUMP_DET, old.flags & ~JUMP_DET).astype(np.uint8)
    now, was = fit(ramps, flags, readout), before.slopes
    poisson = np.maximum(old.poisson + (now.poisson - was.poisson), 0)
    return Exposure(
        ramps, flags, old.rate + (now.rate - was.rate), old.pedestal + (now.pedestal - was.pedestal), poisson
    )


def choose_threshold(exposure: Exposure, readout: Readout) -> float:
    """The jump threshold whose flags are those of the file in most ramps."""
    ratio = find_jumps(exposure.ramps, exposure.flags, readout)
    first, last = readout.usable
    had = (exposure.flags[:, first + 1 : last] & JUMP_DET) != 0
    return max(THRESHOLDS, key=lambda limit: int(((ratio > limit) == had).all(axis=1).sum()))


def measure_gain(exposure: Exposure, poisson: Float, readout: Readout, usual: float) -> float:
    """Electrons per DN by which the variances of a file, (integrations, n), follow from its ramps; ``usual`` where
    that can't be told."""
    first, last = readout.usable
    constants = Constants(usual, readout.group_time, readout.first_group)
    wide, bits = exposure.ramps[:, first:last, None], exposure.flags[:, first:last, None]
    clean = ((exposure.flags[:, first:last] & (JUMP_DET | UNUSABLE)) == 0).all(axis=(0, 1))
    typical = measure_typical(wide, bits, constants)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = typical / (poisson.mean(axis=0) * readout.group_time * (last - first - 1))
    known = gain[clean & (typical > 0) & np.isfinite(gain)]
    return float(np.median(known)) if known.size >= 10 else usual
