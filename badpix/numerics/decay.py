"""Decays in a series of exposures: the charge of an earlier bright exposure, no defect."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

QUIET = 2.5  # residual variance over the median pixel's up to which an exposure is quiet
SHRINKS = 0.85  # rate over that of the exposure before, at most, in a decay ...
SLOWER = 0.5  # ... or k / (k + 1) to this power, k exposures after the highest: traps release as a power of time
FAINT = np.float32(3.0)  # scatters by which a rate below the limit may shrink less
DECAYED = 0.25  # rate of the newest exposure over the highest one, at most, after a decay
SPEEDS_UP = 1.4  # squared rate halfway over that of an even decay, from which on the rate falls ever faster
FRESH = 0.3  # rate of earlier exposures over the highest one, at most, before a decay


def find_decay(
    rate: Float, noise: Float, state: Float, quiet: Float, limit: float, error: Float | None = None
) -> Bool:
    """Pixels whose rate jumps up once and shrinks ever after, never faster, with quiet ramps where it is low.

    Shapes as for :func:`judge`; ``state`` tells which steps were measured. ``error`` is the scatter of each rate: by
    so much a step may shrink less, by three times as much from below the limit on.
    """
    known = np.isfinite(state)
    values = np.where(known, rate, np.float32(-np.inf))
    peak, top = values.argmax(axis=1), values.max(axis=1)
    steps = np.arange(rate.shape[1])
    later, earlier = steps > peak[:, None], steps < peak[:, None]
    with np.errstate(invalid="ignore"):
        low = rate < max(limit / 2, 0.0)
        previous = np.full_like(rate, np.inf)
        previous[:, 1:] = np.fmin.accumulate(np.where(known & ~earlier, rate, np.float32(np.inf)), axis=1)[:, :-1]
        behind = np.maximum(steps - peak[:, None], 0)
        allowed = np.maximum((behind / (behind + 1)) ** SLOWER, SHRINKS).astype(np.float32)
        more = np.float32(0) if error is None else np.where(previous > limit, error, FAINT * error)
        shrinks = low | (rate <= allowed * previous + more) | ~known
        fresh = low | (rate <= FRESH * top[:, None]) | ~known
        calm = (noise < np.sqrt(QUIET) * quiet[:, None]) | ~known | ~low
        each, last = np.arange(len(rate)), _last_known(known)
        newest = np.where(known, rate, np.float32(np.nan))[each, last]
        found = (top > limit) & (peak < last) & (newest <= DECAYED * top)
        # traps empty at an even pace or ever more slowly, a fading defect maybe along a line; a hit lifts one step
        sigma = np.float32(0) if error is None else error[each, last]
        rest = np.clip(np.maximum(newest + FAINT * sigma, limit / 2) / np.where(found, top, 1), 0, 1)
        middle, above = (peak + last + 1) // 2, np.ones(len(rate), bool)
        for step in (middle - 1, middle):
            part = (step - peak) / np.maximum(last - peak, 1)
            even = top * rest**part
            above &= values[each, step] ** 2 > SPEEDS_UP * even**2
        found &= ~above
    out: Bool = found & (shrinks | ~later).all(axis=1) & (fresh | ~earlier).all(axis=1) & calm.all(axis=1)
    return out


def _last_known(known: Bool) -> NDArray[np.intp]:
    """Last known step of each pixel; the last of all without one."""
    found: NDArray[np.intp] = known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)
    return found
