"""How much the slope of a pixel scatters in an exposure of some readout: kernels, arrays only.

1. Read noise and shot noise by formula (:func:`expect_variance`): the weights of the ramp fit's class of signal to
   noise on white noise and on a random walk.
2. Ramps are drawn where the formula does not hold (:func:`measure_variance`): two levels, and noise so loud that the
   jump step cuts the ramp. They go through the emulation of jump step and ramp fit (:mod:`badpix.numerics.jumps`,
   :func:`fit_slopes`), one integration each.

Readout patterns are those of the JWST user documentation (detector readout patterns).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.jumps import measure_jumps
from badpix.numerics.ramp_fit import POWERS, slope_weights, snr_class

Float = NDArray[np.float32]

JUMP_SIGMA = 4.0  # rejection threshold of the pipeline's jump step
CHUNK = 1 << 21  # drawn groups that are fitted together


class Readout(NamedTuple):
    """Frames averaged to a group, frames skipped between groups, seconds between frames."""

    frames: int
    skipped: int
    frame_time: float

    @property
    def group_time(self) -> float:
        """Seconds between groups."""
        return (self.frames + self.skipped) * self.frame_time


@dataclass(frozen=True)
class Noise:
    """What makes the slopes of n pixels scatter; all (n,) float32.

    Attributes
    ----------
    read : ndarray
        Read noise of one frame, DN.
    shot : ndarray
        Variance of the shot noise, DN^2/s.
    separation : ndarray
        Distance of two levels, DN; 0 for one.
    low, high : ndarray
        Mean stay in the lower and the upper level, s.
    """

    read: Float
    shot: Float
    separation: Float
    low: Float
    high: Float

    def some(self, at: NDArray[np.intp]) -> Noise:
        """Those of some pixels."""
        return Noise(self.read[at], self.shot[at], self.separation[at], self.low[at], self.high[at])


def expect_variance(noise: Noise, readout: Readout, ngroups: int, gain: float) -> NDArray[np.float64]:
    """Variance of the slope by read and shot noise: (n,) DN^2/s^2.

    The charge of the shot noise is taken as ``gain`` (e/DN) tells, which decides the weights.
    """
    signal = noise.shot * np.float32(gain * readout.group_time * (ngroups - 1))
    classes = snr_class(signal, noise.read / np.float32(np.sqrt(readout.frames)), gain)
    out = np.zeros(len(noise.read))
    for k, (_, power) in enumerate(POWERS):
        weights = slope_weights(ngroups, power).astype(np.float64)
        behind = np.cumsum(weights[::-1])[::-1][1:]  # what a step before each group adds to the slope
        white, walk = (weights**2).sum() / readout.frames, (behind**2).sum() * readout.group_time
        here = classes == k
        out[here] = (white * noise.read[here] ** 2 + walk * noise.shot[here]) / readout.group_time**2
    return out


def measure_variance(
    noise: Noise, usual: Float, readout: Readout, ngroups: int, gain: float, *, draws: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Variance of the slope over drawn ramps: (n,) DN^2/s^2.

    Parameters
    ----------
    noise : Noise
        Of n pixels.
    usual : ndarray
        (n,) read noise of one frame that the jump step knows, DN.
    readout : Readout
        Of the exposure.
    ngroups : int
        Its groups.
    gain : float
        e/DN.
    draws : int
        Ramps a pixel.
    rng : Generator
        Draws them.
    """
    n = len(noise.read)
    out = np.zeros(n)
    step = max(CHUNK // (draws * ngroups), 1)
    for start in range(0, n, step):
        at = np.arange(start, min(start + step, n))
        many = np.repeat(at, draws)
        ramps = draw_ramps(noise.some(many), readout, ngroups, rng)
        slopes = fit_slopes(ramps, usual[many] / np.float32(np.sqrt(readout.frames)), readout, gain)
        out[at] = np.nanvar(slopes.reshape(len(at), draws).astype(np.float64), axis=1, ddof=1)
    return out


def draw_ramps(noise: Noise, readout: Readout, ngroups: int, rng: np.random.Generator) -> Float:
    """Ramps of n pixels without their mean rate: (groups, n) DN. The rate itself adds nothing to the scatter."""
    size = (ngroups, len(noise.read))
    out = rng.standard_normal(size, dtype=np.float32)
    out *= noise.read / np.float32(np.sqrt(readout.frames))
    if (noise.shot > 0).any():
        walk = rng.standard_normal(size, dtype=np.float32)
        walk *= np.sqrt(noise.shot * np.float32(readout.group_time))
        out += np.cumsum(walk, axis=0, dtype=np.float32)
    two = np.flatnonzero(noise.separation > 0)
    if two.size:
        out[:, two] += draw_levels(noise.some(two), readout, ngroups, rng)
    return out


def draw_levels(noise: Noise, readout: Readout, ngroups: int, rng: np.random.Generator) -> Float:
    """Signals of pixels with two levels, averaged over the frames of each group: (groups, n) DN."""
    period = readout.frames + readout.skipped
    up, down = 1 / np.maximum(noise.low, 1e-3), 1 / np.maximum(noise.high, 1e-3)  # a second
    share = up / (up + down)

    def leave(seconds: float) -> tuple[Float, Float]:
        """Probabilities to be in the other level after so long."""
        moved = -np.expm1(-(up + down) * np.float32(seconds))
        return (share * moved).astype(np.float32), ((1 - share) * moved).astype(np.float32)

    near, far = leave(readout.frame_time), leave(readout.frame_time * (readout.skipped + 1))
    state = rng.random(len(share), dtype=np.float32) < share
    out = np.zeros((ngroups, len(share)), np.float32)
    for frame in range(ngroups * period):
        group, place = divmod(frame, period)
        if place >= readout.frames:
            continue
        if frame:
            rise, fall = far if place == 0 else near
            state ^= rng.random(len(share), dtype=np.float32) < np.where(state, fall, rise)
        out[group] += state
    out *= noise.separation / np.float32(readout.frames)
    return out


def fit_slopes(ramps: Float, read: Float, readout: Readout, gain: float) -> Float:
    """Slopes as jump step and ramp fit give them, each ramp an exposure of one integration: (n,) DN/s.

    Segments between flagged steps get unweighted lines, which count by their read-noise variance, as those of
    :func:`badpix.numerics.ramp_fit.fit_pieces` do at low signal.

    Parameters
    ----------
    ramps : ndarray
        (groups, n) DN.
    read : ndarray
        (n,) noise of a group that the steps know, DN.
    readout : Readout
    gain : float
        e/DN.
    """
    groups, n = ramps.shape
    steps = np.diff(ramps, axis=0)
    ratio, known = measure_jumps(steps, np.ones(steps.shape, bool), read, gain)
    begins = np.ones((n, groups), bool)
    begins[:, 1:] = (known & (ratio > JUMP_SIGMA)).T
    first = np.flatnonzero(begins)
    length = np.diff(first, append=n * groups).astype(np.float64)
    y = np.ascontiguousarray((ramps - ramps[:1]).T).ravel().astype(np.float64)
    x = np.tile(np.arange(groups, dtype=np.float64), n)
    total, moment = np.add.reduceat(y, first), np.add.reduceat(x * y, first)
    middle = first % groups + (length - 1) / 2
    weight = (length**3 - length) / 12  # of a line: also the inverse of its variance
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(weight > 0, (moment - middle * total) / weight, 0)
    pixel = first // groups
    start = np.searchsorted(pixel, np.arange(n))
    summed, joined = np.add.reduceat(weight, start), np.add.reduceat(weight * slope, start)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (joined / summed / readout.group_time).astype(np.float32)
