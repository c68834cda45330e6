"""The searches of ``badpix darks`` on the candidates of the whole frame (methods: docs/darks-methods.md).

1. Saturated throughout: saturated in the first usable group, and not just marked as the neighbor of such a pixel.
2. Charge that leaks into the four side neighbors (inter-pixel capacitance, IPC) is taken off every linear number
   first; numbers that are quadratic in the signal are vetoed where a neighbor explains them.
3. HOT, WARM: the rate stays high in enough integrations, against the scatter over pixels and the pixel's own.
4. RC, inverse RC: the ramp bends as a decay bends it, alike in all integrations, and nothing else is wrong with it.
5. TELEGRAPH: residuals that are correlated or sit on two levels; white noise of any strength has neither.
6. NOISY: white noise within the ramps far above the population's, and none of the above.
7. Low pedestal: the pedestal, averaged first, far below its surroundings.
8. Undetermined pixels are reported, never flagged.

A search takes the columns of a table of candidates (one entry a pixel) and gives a boolean column.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from badpix.darks import ramps
from badpix.darks.scores import SHOT_SLOPE, Population, Setup, level_of
from badpix.darks.stats import MEDIAN_ERROR, TRIMMED_ERROR, Stats
from badpix.numerics.ipc import leaked
from badpix.numerics.neighbors import AROUND, SIDES, Places

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

IPC_PIXELS = 6  # hot pixels from which on the IPC is measured
IPC_SIGMA = 200.0  # their rate, in units of the scatter over pixels
IPC_SURE = 2000.0  # from which on pixels weigh no more
OWN_NOISE_SIGMA = 100.0  # rates above this many sigma are hot whatever their scatter
TELEGRAPH_LEAK = 0.1  # leaked residual variance over the population's that vetoes TELEGRAPH in any case
MOST_CUT = 0.25  # fraction of integrations with missing groups from which TELEGRAPH is not searched
LEAK_EXPLAINS = 5.0  # excess of residual variance, over what leaks in, up to which the leak explains it
TOGETHER = 0.93  # part of the limit of NOISY that both measures of noise must reach in the mean
ALONE = 1.6  # times that limit from which on one measure is enough
NOISY_LEAK = 0.3  # leaked residual variance over the pixel's own that vetoes NOISY
DECAY_FITS = 4.0  # error variances by which a decay may fit worse than the best one
REPEATS = 0.1  # part of the scatter allowed to RC below which nothing else is asked: no switching repeats so well
CLEAN_PART = 0.5  # part of an RC contrast that ramps without jumps show at least: settling needs no hit
SHOT_COST = 10.0  # likelihood asked for beyond the limit where shot noise moves ramps as much as read noise does
SURE_PART = np.float32(0.4)  # part of the scatter allowed to RC where no ramp is without jumps: hits differ
DEEP_JUMPS = 0.3  # fraction of integrations with jumps from which one deep step down is enough
PEDESTAL_SOURCE = 4.0  # sigma from which on a pedestal may leak
PEDESTAL_BOX = 9  # pixels of one amplifier, for pedestals that hold the bias


# --- inter-pixel capacitance ---------------------------------------------------------------------------


def measure_ipc(rate: Float, spread: float) -> tuple[float, int]:
    """Signal of a side neighbor over that of a hot pixel, and the number of hot pixels it was measured on.

    ``rate`` is the map of the median rate over its surroundings, NaN where not measured (saturated pixels too);
    used are pixels above 200 ``spread`` that are the brightest of 5 x 5, of each the median of the four sides over
    that of the 16 pixels farther out. They weigh by their rate, up to where the sides' noise is a few percent of
    what they show.
    """
    with np.errstate(invalid="ignore"):
        y, x = np.nonzero(rate > IPC_SIGMA * spread)
    inside = (y >= 2) & (y < rate.shape[0] - 2) & (x >= 2) & (x < rate.shape[1] - 2)
    y, x = y[inside], x[inside]
    box = [rate[y + dy, x + dx] for dy in range(-2, 3) for dx in range(-2, 3)]
    sides = np.array([rate[y + dy, x + dx] for dy, dx in SIDES]).reshape(4, -1)
    center = rate[y, x]
    alone = np.array(box).reshape(25, -1)
    with np.errstate(invalid="ignore"):
        isolated = ((alone > 0.1 * center).sum(axis=0) == 1) & np.isfinite(alone).all(axis=0)
    if isolated.sum() < IPC_PIXELS:
        return float("nan"), int(isolated.sum())
    farther = np.maximum(*np.abs(np.mgrid[-2:3, -2:3])).ravel() == 2
    beneath = np.median(alone[farther][:, isolated], axis=0)  # glow, which the sides have, too
    ratio = (np.median(sides[:, isolated], axis=0) - beneath) / (center[isolated] - beneath)
    order, weight = np.argsort(ratio), np.minimum(center[isolated], IPC_SURE * spread).astype(np.float64)
    reached = np.cumsum(weight[order])
    middle = ratio[order][np.searchsorted(reached, reached[-1] / 2)]
    return max(0.0, float(middle)), int(isolated.sum())


def correct_ipc(values: Float, places: Places, ipc: float, otherwise: Float | None = None) -> Float:
    """Candidates' values without what leaks in from their side neighbors, in two passes.

    Neighbors whose value is not known leak what ``otherwise`` says; NaN leaks nothing.
    """
    known = values if otherwise is None else np.where(np.isfinite(values), values, otherwise)
    known = np.nan_to_num(known, nan=0.0, posinf=0.0, neginf=0.0)
    once = known - leaked(known, places, ipc)
    found: Float = (values - leaked(once, places, ipc)).astype(np.float32)
    return found


def leaked_variance(pixels: Stats, places: Places, ipc: float) -> Float:
    """Residual variance that the four side neighbors leak into each candidate, DN^2."""
    return leaked(pixels["whole_residual"], places, ipc**2)


def shot_scatter(pixels: Stats) -> Float:
    """Scatter of the rate of one integration by shot noise, DN/s; 0 where the pipeline gave none."""
    found: Float = np.sqrt(np.nan_to_num(np.maximum(pixels["poisson"], 0)))
    return found


# --- searches ------------------------------------------------------------------------------------------


def find_saturated(pixels: Stats, places: Places, *, fraction: float, level_fraction: float) -> Bool:
    """Saturated throughout in at least ``fraction`` of the integrations, by themselves.

    Pixels that only the saturation step's growth marked keep their normal level: they stay far below
    ``level_fraction`` of the brightest saturated neighbor.
    """
    saturated = pixels["saturated_fraction"] > 0
    level = np.where(saturated, pixels["first_level"], -np.inf)
    brightest = np.maximum(places.neighbors(level, AROUND, -np.inf).max(axis=0), level)
    enough = pixels["saturated_fraction"] >= fraction
    found: Bool = saturated & enough & (level >= level_fraction * np.maximum(brightest, 0)) & (level > 0)
    return found


def best_template(scores: Stats, setup: Setup) -> NDArray[np.intp]:
    """Number of the template with the largest contrast score."""
    found: NDArray[np.intp] = np.argmax([np.nan_to_num(np.abs(scores[t + "_z"])) for t in setup.templates], axis=0)
    return found


@cache
def decay_shapes(groups: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Slopes (decays,) of decays of many time constants, fastest first, and what their independent contrasts are.

    Returns slopes, contrasts (decays, templates), and the matrix that makes measured contrasts independent.
    """
    fit = ramps.ramp_fit(groups)
    times = np.geomspace(0.5, 2 * groups, 48)
    decays = np.exp(-np.arange(groups) / times[:, None]).astype(np.float32)
    values = (decays @ fit.weights.T).astype(np.float64)
    return values[:, 1], values[:, len(ramps.SCALARS) :] @ fit.bends.T, fit.bends


def decay_rate(pixels: Stats, setup: Setup) -> Float:
    """What a decay adds to the slope of the ramp, DN/s: that of the slowest decay that fits the contrasts.

    A slow decay is nearly straight, so most of the slope is its own; a fast one leaves the slope to the dark current.
    Where both fit, nothing proves a current that goes on.
    """
    slopes, shapes, bends = decay_shapes(setup.groups)
    measured = bends @ np.stack([pixels[t + "_median"] for t in setup.templates]).astype(np.float64)
    size = np.sum(shapes**2, axis=1)
    amplitude = shapes @ measured / size[:, None]
    missed = np.sum(measured**2, axis=0) - amplitude**2 * size[:, None]
    error = (MEDIAN_ERROR**2 * pixels["white"] / np.maximum(pixels["examined"], 1)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        fits = missed <= missed.min(axis=0) + DECAY_FITS * error
    slowest = len(fits) - 1 - np.argmax(fits[::-1], axis=0)
    found = slopes[slowest] * np.take_along_axis(amplitude, slowest[None], axis=0)[0]
    out: Float = np.nan_to_num(found / setup.group_time).astype(np.float32)
    return out


def find_hot(
    pixels: Stats, setup: Setup, population: Population, *, limit: float, own_threshold: float, late_fraction: float
) -> Bool:
    """Rate above ``limit`` (DN/s) in enough integrations, above its own scatter, and going on to the ramp's end.

    A rate of more than 100 sigma needs no comparison with its own scatter; a ramp that saturates goes on.
    """
    rate = pixels["hot_rate"]
    with np.errstate(invalid="ignore"):
        slope_error = np.sqrt(pixels["white"] * 12 / np.float32(setup.groups) ** 3) / np.float32(setup.group_time)
        own = np.fmax(np.nan_to_num(slope_error), np.nan_to_num(pixels["rate_scatter"]))
        own = np.where(rate > OWN_NOISE_SIGMA * population.rate_spread, np.float32(0), own)
        slope = np.fmin(pixels["slope"], rate * np.float32(setup.group_time))  # hits tilt lines, not rates
        goes_on = (pixels["late"] > late_fraction * slope) | (pixels["cut_fraction"] >= 0.5)
        found: Bool = (rate > limit) & (rate > own_threshold * own) & goes_on
    return found


def find_leaked(pixels: Stats, places: Places, *, fraction: float) -> Bool:
    """Pixels below ``fraction`` of the rates of their 8 neighbors together.

    One number for the charge that leaks to all four sides, and none for the corners, leaves that much, and beside a
    cluster of each of its members.
    """
    rate = np.nan_to_num(pixels["hot_rate"], nan=0.0, posinf=0.0, neginf=0.0)
    with np.errstate(invalid="ignore"):
        around = np.maximum(places.neighbors(rate, AROUND, 0.0), 0).sum(axis=0)
        leaked: Bool = pixels["hot_rate"] < fraction * around
    return leaked


def find_overrun(pixels: Stats, places: Places, *, min_groups: int, fraction: float, late_fraction: float) -> Bool:
    """Pixels cut short by the growth of a neighbor's saturation flag, not by their own charge.

    Their few groups hold what leaked in from that neighbor: below ``fraction`` of its rate. With ``min_groups``
    groups left their own rate is known better: ``late_fraction``.
    """
    cut = pixels["cut_fraction"] >= 0.5
    rate = np.where(cut & np.isfinite(pixels["hot_rate"]), pixels["hot_rate"], -np.inf)
    brightest = places.neighbors(rate.astype(np.float32), AROUND, -np.inf).max(axis=0, initial=-np.inf)
    with np.errstate(invalid="ignore"):
        part = np.where(pixels["groups"] < min_groups, np.float32(fraction), np.float32(late_fraction))
        overrun: Bool = cut & (pixels["hot_rate"] < part * brightest)
    return overrun


def find_rc(
    pixels: Stats,
    scores: Stats,
    setup: Setup,
    population: Population,
    *,
    sigma: float,
    median_sigma: float,
    sign_fraction: float,
    scatter: float,
    linear_fraction: float,
    explained: float,
    rest: float,
    own_rest: float,
) -> tuple[Bool, Bool]:
    """Ramps bent by a decay (RC and inverse RC): see docs/darks-methods.md, step 12. Limits themselves do not count.

    Two columns: ramps that settle, and all that bend.
    """
    best = best_template(scores, setup)

    def of_best(suffix: str, table: Stats = pixels) -> Float:
        return np.choose(best, [table[t + suffix] for t in setup.templates])

    quiet = np.float32(np.exp(2 * population.spread["log_noise"][0])) * level_of(pixels) ** 2
    with np.errstate(invalid="ignore"):
        size, middle = np.abs(of_best("")), np.abs(of_best("_median"))
        bent = (np.abs(of_best("_z", scores)) > sigma) & (np.abs(of_best("_median_z", scores)) > median_sigma)
        bent &= size > linear_fraction * np.abs(pixels["slope"]) * setup.groups
        bent &= pixels["cut_fraction"] < 0.5
        clean = of_best("_clean")
        allowed = scatter * np.where(np.isnan(clean), SURE_PART, np.float32(1)) * middle
        allowed = np.sqrt(allowed**2 + pixels["white"])  # noise scatters a contrast, too
        settles = (of_best("_sign") >= sign_fraction) & (of_best("_scatter") < allowed)
        settles &= ~(clean * np.sign(of_best("_median")) < CLEAN_PART * middle)  # hits bend, too
        limit = rest * quiet + scores["shot"] * np.float32(setup.groups * SHOT_SLOPE)
        alike = of_best("_scatter") < REPEATS * scatter * middle
        quiet_beside = (pixels["rest"] < limit) | (pixels["rest"] < own_rest * pixels["white"])
        settles &= (pixels["share"] > explained) | quiet_beside | alike
        return bent & settles, bent


def measure_shot_part(pixels: Stats, shot: Float, setup: Setup, population: Population) -> Float:
    """Residual variance that ``shot`` noise (DN^2 a group) makes of ramps, over that of the usual read noise."""
    quiet = np.float32(np.exp(2 * population.spread["log_noise"][0])) * level_of(pixels) ** 2
    found: Float = shot * np.float32(setup.groups * SHOT_SLOPE) / quiet
    return found


def shot_cost(pixels: Stats, shot: Float, setup: Setup, population: Population) -> Float:
    """Likelihood that two levels need beyond their limit where ``shot`` noise (DN^2 a group) moves ramps."""
    found: Float = np.float32(SHOT_COST) * measure_shot_part(pixels, shot, setup, population)
    return found


def find_telegraph(
    pixels: Stats,
    scores: Stats,
    setup: Setup,
    population: Population,
    leaked: Float,
    bent: Bool,
    *,
    bent_threshold: float,
    min_drops: int,
) -> tuple[Bool, Bool]:
    """Ramps that two levels explain better than one (:mod:`badpix.darks.telegraph`), or that drop again and again.

    Not where a neighbor's residuals leak in (by a sigma of memory: many integrations see faint ones), or where
    saturation cuts the ramps short: scores are those of whole ramps. Where shot noise rules (a hot pixel's ramp
    wanders by itself) two levels must be so much likelier, and nothing else is enough. In ``bent`` pixels, whose
    ramps bend without settling, ``bent_threshold`` is.
    Where two levels explain the ramps worse than one, steps down are something else. Two columns: found by the
    likelihood, and found in the other ways.
    """
    quiet = np.float32(np.exp(2 * population.spread["log_noise"][0])) * level_of(pixels) ** 2
    with np.errstate(invalid="ignore"):
        otherwise = pixels["drops"] >= min_drops
        otherwise |= (pixels["deepest"] < -population.deep_sigma) & (pixels["jump_fraction"] >= DEEP_JUMPS)
        otherwise |= bent & (scores["telegraph"] > bent_threshold)
        sensitive = population.spread.get("correlation", (0.0, np.inf))[1] / sum(ramps.MEMORY)
        leaks = leaked > np.float32(min(TELEGRAPH_LEAK, sensitive)) * quiet
        leaks &= LEAK_EXPLAINS * leaked > pixels["residual"] - quiet
        free = ~leaks & (pixels["cut_fraction"] < MOST_CUT) & ~(pixels["likelihood"] < 0)
        above = pixels["likelihood"] > population.two_levels + shot_cost(pixels, scores["shot"], setup, population)
        shot_rules = measure_shot_part(pixels, scores["shot"], setup, population) > 1
        return above & free, otherwise & free & ~shot_rules


def find_noisy(
    pixels: Stats, scores: Stats, population: Population, leaked: Float, *, sigma: float, min_ratio: float
) -> tuple[Bool, Bool]:
    """White noise within the ramp above ``sigma`` of its logarithm's spread and ``min_ratio`` times the median.

    Two columns: where the white noise or the residuals are above the limit, and where both are nearly so in the mean
    (:data:`TOGETHER`); what is far louder needs no confirmation (:data:`ALONE`).
    """
    median = np.float32(np.exp(population.spread["log_noise"][0])) * level_of(pixels)
    with np.errstate(invalid="ignore"):
        white, size = scores["noise_z"], scores["log_residual_z"]
        steps = (white > sigma) & (scores["noise"] > min_ratio * median)
        whole = pixels["cut_fraction"] < MOST_CUT  # hits are not taken off ramps that are cut short
        residuals = (size > sigma) & (pixels["residual"] > (min_ratio * median) ** 2) & whole
        both = (white + size) / 2 > TOGETHER * sigma
        loud = (steps & (both | (white > ALONE * sigma) | ~whole)) | (residuals & (both | (size > ALONE * sigma)))
        return steps | residuals, loud & ~(leaked > NOISY_LEAK * pixels["residual"])


def flatten_pedestal(pedestal: Float, interleaved: bool) -> Float:
    """Pedestal minus its median in 9 x 9 pixels of the same amplifier: for ramps that hold the bias (MIRI)."""
    from scipy import ndimage  # here: it takes longer to import than all else

    out = np.empty_like(pedestal)
    filled = np.where(np.isfinite(pedestal), pedestal, np.float32(0))
    parts = [np.s_[:, k::4] for k in range(4)] if interleaved else [np.s_[:, :]]
    for part in parts:
        out[part] = pedestal[part] - ndimage.median_filter(filled[part], PEDESTAL_BOX, mode="nearest")
    return out


def find_low_pedestal(
    pedestal: Float, own_error: Float, spread: float, *, sigma: float, ipc: float
) -> tuple[Bool, Float]:
    """Pedestals below ``-sigma`` times ``spread`` and the pixel's own excess error together; the map in that unit.

    Charge that leaks in from pixels with unusual pedestals is taken off first. Both maps are (ny, nx).
    """
    with np.errstate(invalid="ignore"):
        index = np.flatnonzero(np.abs(pedestal) > PEDESTAL_SOURCE * spread)
    value = correct_ipc(pedestal.flat[index], Places(index, pedestal.shape), ipc)
    scaled = pedestal / np.float32(spread)
    scaled.flat[index] = value / np.hypot(np.nan_to_num(own_error.flat[index]), np.float32(spread))
    with np.errstate(invalid="ignore"):
        return scaled < -sigma, scaled


def pedestal_error(pixels: Stats, switching: Bool, population: Population) -> Float:
    """What a pixel's noise above the median pixel's adds to the error of its mean pedestal, DN.

    The mean of a pixel that switches is that of neither level, however many integrations there are.
    """
    quiet = np.float32(np.exp(2 * population.spread["log_noise"][0])) * level_of(pixels) ** 2
    with np.errstate(invalid="ignore"):
        excess = np.maximum(np.fmax(pixels["residual"], pixels["white"]) - quiet, 0)
        number = np.where(switching, np.float32(1), np.maximum(pixels["integrations"], 1))
        error = TRIMMED_ERROR * np.sqrt(excess / number)
    found: Float = error.astype(np.float32)
    return found
