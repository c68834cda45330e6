"""What each exposure says of a candidate, in the order of time: hot since when, now and then, no more, or decaying.

1. Exposures are put in the order of their dates (EXPSTART, else DATE-OBS and TIME-OBS); with fewer than three of
   them the integrations are the steps in time.
2. An integration is *bright* if its rate is above the limit of HOT and above the pixel's own noise, if the ramp goes
   on in its second half, and if a line explains it: beside the one step up that fits best, most of the slope is left.
   A particle that was too small for a jump flag leaves nothing.
3. An exposure is bright if more than half of its examined integrations are.
4. *Born*: bright in the newest exposures and in no earlier one. *Recovered*: bright in the oldest alone.
   *Intermittent*: anything else, in a fraction of the exposures. Each needs two bright integrations.
5. *Persistence*: the rate jumps up once, then shrinks from exposure to exposure, and the ramps are quiet where it is
   low: the charge of an earlier bright exposure, no defect. That was an image: a pixel that fades and is
   still bright, without any such area on the detector, is a defect that fades (:func:`find_field`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.darks.integrations import Integrations
from badpix.numerics.decay import QUIET, find_decay
from badpix.numerics.neighbors import AROUND, Places

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

STEADY = 0.4  # least slope beside the best step up, over the rate: a line leaves 0.6 and more, a step nothing
FEWEST = 3  # exposures from which on they, and not their integrations, are the steps in time
ENOUGH = 2  # bright integrations that a verdict needs
CHANGE = 0.5  # of the limit of HOT: least difference of the mean rates of bright and dark steps
SHOT_SIGMA = 5.0  # scatters by shot noise that a bright step stands out by
ALWAYS = 0.9  # part of the measured steps in which a pixel is bright that always is
LIMIT_SIGMA = 10.0  # scatters of the rate that the usual limit of HOT is
FIELD = 8  # fading pixels beside each other that make a field
ALIKE = 20.0  # times as bright as a neighbor, at most: what leaks is fainter
FEWEST_HOT = 6  # hot pixels that tell of the temperature
FOLLOWING = 0.02  # part of the hot pixels that don't decay, below which the temperature falls
SERIES = ("rate", "noise", "pedestal", "bright", "used")


@dataclass(frozen=True)
class Verdicts:
    """What the order of time says of candidates, one entry each.

    Attributes
    ----------
    state : ndarray
        (candidates, steps) float32: 1 bright, 0 not, NaN not measured.
    rate : ndarray
        (candidates, steps) float32 DN/s, charge that leaked in taken off.
    fraction : ndarray
        Bright steps over measured ones.
    first, last : ndarray
        First and last bright step, -1 without one.
    born, intermittent, recovered, decaying, always, calm : ndarray
        bool; ``always``: bright in nine of ten measured steps; ``calm``: quiet ramps in all others.
    """

    state: Float
    rate: Float
    fraction: Float
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    born: Bool
    intermittent: Bool
    recovered: Bool
    decaying: Bool
    always: Bool
    calm: Bool


def order_steps(dates: list[float], integrations: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The step in time of each integration, and the exposure of each step.

    Parameters
    ----------
    dates : list of float
        Start of each exposure, MJD; NaN sorts last, in the order given.
    integrations : list of int
        Of each exposure.
    """
    order = sorted(range(len(dates)), key=lambda k: (not np.isfinite(dates[k]), dates[k], k))
    if len(order) >= FEWEST:
        rank = {exposure: step for step, exposure in enumerate(order)}
        return tuple(rank[k] for k, n in enumerate(integrations) for _ in range(n)), tuple(order)
    starts = np.cumsum([0, *(integrations[k] for k in order)])
    step = {(k, i): int(starts[place]) + i for place, k in enumerate(order) for i in range(integrations[k])}
    steps = tuple(step[k, i] for k, n in enumerate(integrations) for i in range(n))
    return steps, tuple(k for k in order for _ in range(integrations[k]))


def find_bright(
    tile: Integrations,
    index: NDArray[np.intp],
    white: Float,
    *,
    limit: float,
    own: float,
    late: float,
    group_time: float,
) -> Bool:
    """Examined integrations in which pixels are bright: (examined, len(index)).

    Parameters
    ----------
    tile : Integrations
        All integrations of some pixels.
    index : ndarray
        Pixels looked at.
    white : ndarray
        (len(index),) variance of their white noise, DN^2.
    limit, own : float
        Least rate in DN/s, and in units of the slope's error.
    late : float
        Least slope of the second half over that of the ramp.
    group_time : float
        Seconds.
    """
    rate = tile.rate[tile.examined][:, index]
    groups = tile.groups[tile.examined][:, index].astype(np.float32)
    shapes = {name: tile.shapes[name][:, index] for name in ("slope", "late", "steady")}
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.nan_to_num(white) * 12 / np.maximum(groups, 2) ** 3) / np.float32(group_time)
        bright = (rate > limit) & (rate > own * error)
        bright &= shapes["steady"] > np.float32(STEADY * group_time) * rate
        slope = np.fmin(shapes["slope"], np.float32(group_time) * rate)  # a hit tilts the line, not the rate
        bright &= ~(shapes["late"] <= late * slope)
    found: Bool = bright
    return found


def find_above(tile: Integrations, index: NDArray[np.intp], others: NDArray[np.intp], limits: Float) -> Bool:
    """The ``others`` among the integrations, whose ramps are not examined, in which rates are above their ``limits``
    (DN/s): (others, len(index)). Ramps that jump have no rate there."""
    with np.errstate(invalid="ignore"):
        found: Bool = tile.rate[others][:, index] > limits[:, None]
    return found


def measure_series(
    tile: Integrations,
    index: NDArray[np.intp],
    bright: Bool,
    steps: NDArray[np.intp],
    number: int,
    judged: NDArray[np.intp],
) -> dict[str, Float]:
    """The :data:`SERIES` of pixels by step in time: (len(index), number) float32 each.

    ``rate`` and ``pedestal`` are medians over the integrations of a step (DN/s, DN), ``noise`` the root of the mean
    residual variance (DN), ``bright`` and ``used`` counts of the ``judged`` integrations, of which
    ``bright`` (judged, len(index)) tells.
    """
    out = {name: np.full((number, len(index)), np.nan, np.float32) for name in SERIES}
    residual = tile.shapes["calm"][:, index]
    known = np.isfinite(tile.rate[judged][:, index])
    of_examined, of_judged = steps[tile.examined], steps[judged]
    for step in range(number):
        mine, examined = np.flatnonzero(steps == step), np.flatnonzero(of_examined == step)
        out["rate"][step] = _middle(tile.rate[mine][:, index])
        out["pedestal"][step] = _middle(tile.pedestal[mine][:, index])
        votes = of_judged == step
        out["bright"][step] = bright[votes].sum(axis=0)
        out["used"][step] = known[votes].sum(axis=0)
        if examined.size:
            with np.errstate(invalid="ignore"):
                out["noise"][step] = np.sqrt(residual[examined].mean(axis=0))
    return {name: np.ascontiguousarray(values.T) for name, values in out.items()}


def _middle(values: Float) -> Float:
    """Median along axis 0 of few values, NaN left out."""
    if len(values) == 1:
        found: Float = values[0]
        return found
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(ordered).sum(axis=0)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1)[None], axis=0)[0]
    return np.where(count > 0, (low + high) / 2, np.float32(np.nan)).astype(np.float32)


def changes_much(rate: Float, bright: Bool, dark: Bool, limit: float) -> Bool:
    """Pixels whose bright steps are brighter than their dark ones by a part of the limit, or that have no dark ones.

    A steady pixel just at the limit is now above it, now below.
    """
    known = np.nan_to_num(rate)
    above = np.where(bright, known, 0).sum(axis=1) / np.maximum(bright.sum(axis=1), 1)
    below = np.where(dark, known, 0).sum(axis=1) / np.maximum(dark.sum(axis=1), 1)
    found: Bool = (above - below > CHANGE * limit) | ~dark.any(axis=1)
    return found


def judge(
    series: dict[str, Float],
    rate: Float,
    quiet: Float,
    shot: Float,
    *,
    limit: float,
    fraction: float,
    places: Places | None = None,
) -> Verdicts:
    """What the order of time says.

    Parameters
    ----------
    series : dict
        From :func:`measure_series`.
    rate : ndarray
        (candidates, steps) rates with leaked charge taken off, DN/s.
    quiet : ndarray
        (candidates,) noise of one group of the median pixel around, DN.
    shot : ndarray
        (candidates,) what shot noise scatters the rate of one integration by, DN/s: large in glow.
    limit : float
        Least rate, DN/s.
    fraction : float
        Least fraction of steps in which an intermittent pixel is bright.
    places : Places, optional
        Where the candidates lie; without them no area is asked for.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        bright = (series["bright"] > 0.5 * series["used"]) & (rate > np.maximum(limit, SHOT_SIGMA * shot)[:, None])
    state = np.where(series["used"] > 0, bright, np.float32(np.nan)).astype(np.float32)
    measured, number = np.isfinite(state).sum(axis=1), bright.sum(axis=1)
    votes = np.where(bright, series["bright"], 0).sum(axis=1)
    steps = np.arange(state.shape[1])
    first = np.where(number > 0, bright.argmax(axis=1), -1)
    last = np.where(number > 0, steps[-1] - bright[:, ::-1].argmax(axis=1), -1)
    dark = state == 0
    before = dark & (steps < first[:, None])
    after = dark & (steps > last[:, None])
    within = dark & (steps > first[:, None]) & (steps < last[:, None])
    enough = (votes >= ENOUGH) & changes_much(rate, bright, dark, limit)
    part = (number / np.maximum(measured, 1)).astype(np.float32)
    unknown = ~np.isfinite(series["noise"]).any(axis=0)  # no ramp of these steps was examined
    noise = np.where(unknown, np.float32(0), series["noise"])
    decaying = find_decay(rate, noise, state, quiet, limit, measure_error(rate, shot, limit))
    if places is not None:
        decaying &= after.any(axis=1) | find_field(decaying, rate, places)
    calm = ((noise < np.sqrt(QUIET) * quiet[:, None]) | ~dark).all(axis=1)
    once = enough & ~within.any(axis=1) & ~decaying
    born = once & before.any(axis=1) & ~after.any(axis=1)
    recovered = once & after.any(axis=1) & ~before.any(axis=1) & (after.sum(axis=1) >= ENOUGH)
    intermittent = (
        enough & ~born & ~recovered & ~decaying & (part >= fraction) & (before | after | within).any(axis=1)
    )
    always = (votes >= ENOUGH) & (part >= ALWAYS)
    return Verdicts(state, rate, part, first, last, born, intermittent, recovered, decaying, always, calm)


def measure_error(rate: Float, shot: Float, limit: float) -> Float:
    """Scatter of the rate of each step, DN/s: a tenth of the limit of HOT, and its part of the shot noise."""
    with np.errstate(invalid="ignore"):
        above = np.maximum(np.nan_to_num(rate), 0)
    part = above / np.maximum(above.mean(axis=1, keepdims=True), limit)
    found: Float = np.hypot(np.float32(limit / LIMIT_SIGMA), shot[:, None] * np.sqrt(part))
    return found


def find_field(decaying: Bool, rate: Float, places: Places) -> Bool:
    """Candidates that decay from a step on from which an area does: at least :data:`FIELD` pixels beside each other.

    ``rate`` is (candidates, steps) DN/s.
    """
    known = np.where(np.isfinite(rate), rate, np.float32(-np.inf))
    peak, top = known.argmax(axis=1), known.max(axis=1, initial=0)
    out = np.zeros(len(decaying), bool)
    for step in np.unique(peak[decaying]):
        mine = decaying & (peak == step)
        beside = places.neighbors(np.where(mine, top, np.float32(0)), AROUND, 0.0)
        alike = ((beside * np.float32(ALIKE) >= top) & (beside <= np.float32(ALIKE) * top)).any(axis=0)
        if np.count_nonzero(mine & alike) >= FIELD:
            out |= mine
    return out


def measure_scales(rates: Float, steps: Sequence[int], faint: float) -> Float:
    """Dark current of each integration over the median one, from all hot pixels: (n,) float32; 1 where not known.

    Parameters
    ----------
    rates : ndarray
        (hot pixels, n) rates, DN/s.
    steps : sequence of int
        The step in time of each integration.
    faint : float
        DN/s: below half of it a rate is noise.

    Notes
    -----
    A scale is the median over hot pixels of the rate over the pixel's own median, iterated once about the scales; it
    counts where it differs from 1 by more than 4 times its error and by 3 %. Pixels that decay are left out, unless
    nearly all do: persistence is no temperature, and takes some pixels alone.
    """
    n = rates.shape[1]
    rates = _leave_out_decays(rates, steps, faint)
    if len(rates) < FEWEST_HOT:
        return np.ones(n, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = rates / np.nanmedian(rates, axis=1, keepdims=True)
        for _ in range(2):
            scale = np.nanmedian(ratio, axis=0)
            scale = np.where(np.isfinite(scale) & (scale > 0.05), scale, 1.0)
            ratio = rates / np.nanmedian(rates / scale, axis=1, keepdims=True)
        scatter = 1.4826 * np.nanmedian(np.abs(ratio / scale - 1), axis=0)
        error = 1.2533 * scatter * scale / np.sqrt(len(rates))
        sure = (np.abs(scale - 1) > 4 * error) & (np.abs(scale - 1) > 0.03)
    return np.where(sure, scale, 1.0).astype(np.float32) if sure.any() else np.ones(n, np.float32)


def _leave_out_decays(rates: Float, steps: Sequence[int], faint: float) -> Float:
    """The rates of pixels that don't shrink from step to step; all of them if hardly any other is left."""
    of_step = np.array(steps)
    by_step = np.stack([_middle(rates[:, of_step == k].T) for k in np.unique(of_step)], axis=1)
    state = np.where(np.isfinite(by_step), np.float32(1), np.float32(np.nan))
    kept = rates[~find_decay(by_step, np.zeros_like(by_step), state, np.ones(len(rates), np.float32), faint)]
    return kept if len(kept) >= max(FEWEST_HOT, FOLLOWING * len(rates)) else rates
