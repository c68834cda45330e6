"""Types of candidates: hot, warm, low, noisy, switching; what was born when; what is no pixel.

1. Errors are those of the means, times how much wider than them the means of all pixels scatter (flat-field errors,
   noise that is alike in neighbors). A bad neighbor moves the median of the pixels around by up to :data:`SHIFT`
   noises of an exposure; what such neighbors did is put back.
2. *Hot*: the mean is above `science_sigma` errors, and so is what brighter neighbors' leaks leave of it, which is
   more than they are; most pointings agree (their median is above half of the mean; in dispersed light none
   contradicts it); and it is no mere response: a pixel whose excess follows the light (a flat-field error) is not
   hot. In images the error is that by the noise alone where the scatter is wider: pixels that switch faintly are hot
   by their mean. *Warm* is hot below `harm`.
3. *Born*: the newest exposures are hot, the earlier ones are not, and the step is above `born_sigma` (more where one
   visit of dispersed light alone saw it). It gets the type of its newest level, and a date. *Recovered*: the other
   way round; no flag.
4. *Low*: the mean or the response is more than `science_sigma` errors below, and the response to the level is below
   `max_low_response`; where the backgrounds differ enough to tell, the deficit follows the light (regression with an
   excess).
5. *Switching*: bright in some exposures and dark in others, alike where it is bright, in several pointings and not
   in one alone but for once, more often than chance; or faintly, where two levels explain it far better than one, a
   step or a line in some visits (:mod:`badpix.science.switching`). *Noisy*: a scatter above `noisy_scatter`, beyond
   chance.
   What changes in time and shows in the pixel beside it as well is a leak, or in dispersed light a line.
   *Outlier*: flagged by an outlier step in `outlier_fraction` of the exposures, of `min_pointings` pointings.
6. *Decaying* pixels hold persistence: no flag.
7. *Structures*: touching pixels of steps 2 to 5, more than `max_structure_pixels` of them, are no pixels: no flag.
8. Pixels seen in fewer than `min_pointings` pointings are undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.numerics.clipping import MAD_TO_SIGMA, thin
from badpix.numerics.ipc import leaked
from badpix.numerics.neighbors import SIDES, Places
from badpix.science.residuals import offsets_of
from badpix.science.series import CONSISTENT, Table
from badpix.settings.science import ScienceLimitSettings, ScienceSettings

SHIFT = 0.18  # noises: the median of eight pixels of which one is far above or below (order statistics)
FOLLOWS = 1 / 8  # of a small excess of one of them that the median follows
LEAK_ERROR = 1.0  # of what brighter neighbors leak: coupling differs from pixel to pixel
AGREE = 0.5  # of the mean: least median of the pointings' means
WITHOUT = 2.0  # sigma, of the mean without the pointing that says most for it, in dispersed light
RESPONSE_SIGMA = 4.0  # errors: a slope against the level that is sure
QUIET_BEFORE = 0.3  # of the level after a birth: most that was there before
STRAYS = 0.15  # share of values that stray, at most, on each side of a step in time
LEAST_DECAY = 3  # bright exposures in a row that a decay takes: one alone was a particle
LEAST_BRIGHT = 3  # exposures in which a switching pixel is bright
LINES = (1.08, 1.15)  # what lines leave makes tails: factor of limits in dispersed light, of means and of births
SHARP = 1.4  # factor of the limit of births that only one visit of dispersed light saw
LINE_REACH = 2  # pixels from the edge at which a line is cut
LEAST_ELSEWHERE = 2  # bright exposures beside those of the pointing that has most of them
LEAST_POINTINGS = (3, 2)  # pointings in which it is: of images, of dispersed light
SPREADS = 0.25  # of its height: what the pixels beside one of a spectral line show
APART = 4.5  # noises between the bright and the dark level of a switching pixel
UNEQUAL = 0.25  # scatter of bright values that the noise does not explain, of their median
CHANCE = 1e-5  # of as many bright exposures
GAIN = 15.0  # of two levels over none: logarithm of the likelihood ratio
GAIN_OVER = (
    3.0,
    6.0,
)  # of two levels over a step in time, and over one level a pointing: of images, of dispersed light
LEAST_STEP = 4.0  # sigma, of a birth that two levels show
LASTING = 20.0  # gain of what began once
HIGH = 10.0  # noises: a level that no line leaves
SCATTER_SIGMA = 5.5  # errors of a robust scatter above 1
SCATTER_ERROR = 1.17  # of a robust scatter, times the square root of the number
LEAST_BELOW = 2  # exposures far below: sources make none

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Verdicts:
    """One entry a candidate; see the steps. ``level`` is the excess now, DN/s, ``sigma`` its significance."""

    hot: Bool
    low: Bool
    noisy: Bool
    switching: Bool
    outlier: Bool
    born: Bool
    recovered: Bool
    decaying: Bool
    structure: Bool
    level: Float
    sigma: Float


def measure_excess_scatter(mean: Float, error: Float) -> float:
    """How much wider the means of all pixels scatter than their errors: 1 or more (step 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = thin(mean) / thin(error)
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size:
        return 1.0
    return float(max(1.0, MAD_TO_SIGMA * np.median(np.abs(ratio - np.median(ratio)))))


def measure_shift(table: Table, places: Places, axis: int | None) -> Float:
    """By how much bad neighbors move what candidates are compared with (step 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        far = np.nan_to_num(table["mean"] / table["noise"])
    moved = SHIFT * np.tanh(FOLLOWS / SHIFT * far) * np.nan_to_num(table["noise"])
    near = places.neighbors(moved, offsets_of(axis), 0.0)
    out: Float = near.sum(axis=0, dtype=np.float32)
    return out


def judge(
    table: Table,
    places: Places,
    wider: float,
    pointings: NDArray[np.uint8],
    p: ScienceSettings,
    *,
    ipc: float,
    axis: int | None,
    most_square: float,
) -> Verdicts:
    """Verdicts of all candidates.

    Parameters
    ----------
    table : dict
        From :func:`badpix.science.series.measure`.
    places : Places
        Where they lie.
    wider : float
        From :func:`measure_excess_scatter`.
    pointings : ndarray of uint8
        (ny, nx) pointings that saw each pixel.
    p : ScienceSettings
        Limits.
    ipc : float
        Signal of a side neighbor over that of a pixel.
    axis : int or None
        Of the dispersion.
    most_square : float
        Mean square of the residuals of a steady pixel.
    """
    dispersed = axis is not None
    least = LEAST_POINTINGS[dispersed]
    wider *= LINES[0] if dispersed else 1.0
    shift = measure_shift(table, places, axis)
    table = {**table, "mean": table["mean"] + shift}
    seen = pointings.flat[places.index] >= p.min_pointings
    steps = wider * (LINES[1] if dispersed else 1.0)
    two = find_two_levels(table, p, dispersed)
    changing = two & (table["over_step"] > GAIN_OVER[dispersed]) & (table["pointings_lit"] >= LEAST_ELSEWHERE)
    recovered = find_steps(table, p, steps, least, up=False) & seen & ~changing
    born = (find_steps(table, p, steps, least, up=True) | (two & ~changing & (table["step"] > LEAST_STEP))) & seen
    if axis is not None:  # in one visit alone: as strong as no line that falls on so few pixels
        sharp = find_steps(table, p, SHARP * steps, 1, up=True) & ~at_edge(places, axis)
        born |= sharp & seen
    level = np.where(born, table["after"], table["mean"]).astype(np.float32)
    error = np.where(born, table["after_error"], table["error"]) * np.float32(wider)
    leak = measure_leak(table, level, places, ipc)
    own = level - leak + np.where(born, shift, 0)
    agreed = find_agreed(table, dispersed) & (own > LEAK_ERROR * leak)
    by_noise = None if dispersed else table["noise_error"] * np.float32(wider)
    steady, sigma = find_steady(own, error, by_noise, agreed, p.science_sigma)
    decaying = table["decaying"] & (table["run"] >= LEAST_DECAY) & seen
    unsteady = table["square"] > most_square
    peak = np.where(table["bright"] > 0, table["height"], table["mean"])
    share = SPREADS if dispersed else ipc / AGREE
    alone = ~(places.neighbors(np.nan_to_num(peak), SIDES, 0.0).max(axis=0, initial=0) * share > peak)
    born &= alone
    switching = (
        (find_switching(table, p, least) | changing) & unsteady & alone & seen & ~born & ~recovered & ~decaying
    )
    hot = ((steady & ~recovered & ~switching) | (born & (own > AGREE * level))) & seen & ~decaying
    low = find_low(table, p, wider) & seen & ~switching & ~born
    sigma = np.where(low, measure_low_sigma(table, wider), sigma).astype(np.float32)
    noisy = find_noisy(table, p) & unsteady & seen & ~hot & ~low & ~switching & ~recovered & ~decaying
    outlier = find_outliers(table, p) & seen & ~(hot | low | noisy | switching)
    structure = find_structures(hot | low | noisy | switching | outlier, places, most=p.max_structure_pixels)
    free = ~structure
    return Verdicts(
        hot & free,
        low & free,
        noisy & free,
        switching & free,
        outlier & free,
        born & hot & free,
        recovered & free,
        decaying,
        structure,
        level,
        sigma,
    )


def measure_leak(table: Table, level: Float, places: Places, ipc: float) -> Float:
    """What side neighbors leak into candidates; those that switch, when they are bright (step 2)."""
    with np.errstate(invalid="ignore"):
        strong = np.where(table["bright"] >= LEAST_BRIGHT, np.fmax(table["height"], level), level)
        out: Float = leaked(np.maximum(strong, 0), places, ipc)
    return out


def find_steady(own: Float, error: Float, by_noise: Float | None, agreed: Bool, limit: float) -> tuple[Bool, Float]:
    """Candidates with an excess in all exposures, and its significance (step 2).

    Parameters
    ----------
    own, error : ndarray
        (n,) excess without leaks, and its error: by the noise or by the scatter, whichever is larger.
    by_noise : ndarray, optional
        (n,) the error by the noise alone, where it may decide.
    agreed : ndarray of bool
        (n,) from :func:`find_agreed`.
    limit : float
        Errors.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = (own / error).astype(np.float32)
        steady = (sigma > limit) & agreed
        if by_noise is not None:  # what switches too faintly to be told exposure by exposure scatters, and has a mean
            faint = (own / by_noise).astype(np.float32)
            sigma = np.where(agreed & ~steady & (faint > limit), faint, sigma)
            steady = (sigma > limit) & agreed
    return steady, sigma


def find_agreed(table: Table, dispersed: bool) -> Bool:
    """Candidates whose excess most pointings show, and no light explains (step 2)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        follows = table["slope"] > RESPONSE_SIGMA * table["slope_error"]
        follows &= table["excess"] < CONSISTENT * table["excess_error"]
        agreed = (table["typical"] > AGREE * table["mean"]) & ~follows
        if dispersed:  # lines that meet on a pixel in most visits leave it dark in another
            agreed &= ~(table["least"] + CONSISTENT * table["least_error"] < AGREE * table["mean"])
            agreed &= (
                table["without"] > WITHOUT
            )  # one visit alone, in which the pixel happened to be dark, is not enough
    out: Bool = agreed
    return out


def find_steps(table: Table, p: ScienceLimitSettings, wider: float, least: int, *, up: bool) -> Bool:
    """Candidates that were born (up) or recovered (step 3)."""
    high, low = ("after", "before") if up else ("before", "after")
    step = table["step"] if up else -table["step"]
    with np.errstate(invalid="ignore"):
        found = (step > p.born_sigma * wider) & (table[high] > p.born_sigma * wider * table[f"{high}_error"])
        quiet = np.maximum(CONSISTENT * table[f"{low}_error"] * wider, QUIET_BEFORE * table[high])
        found &= (np.abs(table[low]) < quiet) & (table["before_strays"] < STRAYS)
        found &= table[f"{high}_mean"] > AGREE * table[high]  # what lines blur counts in a median, and weighs nothing
        found &= (table["after_strays"] < STRAYS) & (table["pointings_after"] >= least)
    out: Bool = found
    return out


def at_edge(places: Places, axis: int) -> Bool:
    """Candidates so near the edge along the dispersion that a line beyond it could make them sharp."""
    place, size = np.divmod(places.index, places.shape[1])[axis], places.shape[axis]
    return np.asarray((place < LINE_REACH) | (place >= size - LINE_REACH))


def find_low(table: Table, p: ScienceLimitSettings, wider: float) -> Bool:
    """Pixels of low response (step 4)."""
    with np.errstate(invalid="ignore"):
        found = measure_low_sigma(table, wider) < -p.science_sigma
        found &= table["typical"] < AGREE * table["mean"]
        found &= table["deficit"] < p.max_low_response - 1
        apart = np.abs(table["slope"] - table["deficit"])
        follows = apart < CONSISTENT * table["slope_error"] * wider
        follows |= table["slope"] < p.max_low_response - 1
        found &= follows | ~np.isfinite(table["slope"])
    out: Bool = found
    return out


def measure_low_sigma(table: Table, wider: float) -> Float:
    """Significance of a deficit: of the mean, or of the response, which a changing background does not scatter."""
    with np.errstate(invalid="ignore", divide="ignore"):
        by_mean = table["mean"] / table["error"]
        by_response = np.where(table["mean"] < 0, table["deficit"] / table["deficit_error"], 0)
        found: Float = (np.fmin(by_mean, by_response) / wider).astype(np.float32)
    return found


def find_switching(table: Table, p: ScienceLimitSettings, least: int) -> Bool:
    """Pixels that are bright in some exposures only (step 5)."""
    fraction = table["fraction"]
    dark = table["dark"] / np.maximum(table["number"], 1)
    with np.errstate(invalid="ignore"):
        found = (fraction >= p.switching_fraction) & (dark >= p.switching_fraction)
        found &= table["elsewhere"] >= LEAST_ELSEWHERE
        found &= (table["bright"] >= LEAST_BRIGHT) & (table["pointings_bright"] >= least)
        alike = np.maximum(table["unequal"], table["noise"] / table["height"])  # chance makes unequal heights
        likely = table["chance"] * np.minimum(4 * alike, 1) ** np.maximum(table["bright"] - 1.0, 0)
        found &= (table["unequal"] < UNEQUAL) & (likely < CHANCE)
        found &= table["height"] - table["base"] > APART * table["noise"]
    out: Bool = found
    return out


def find_two_levels(table: Table, p: ScienceLimitSettings, dispersed: bool) -> Bool:
    """Pixels that two levels explain better than none, and than a line in some visits (steps 3 and 5).

    Of what began once and lasts, equally bright in all visits since, no line of each visit is asked for.
    """
    several = table["pointings_lit"] >= LEAST_ELSEWHERE
    high = table["bright_level"] > HIGH * table["noise"]  # in one visit alone: higher than what lines leave
    no_line = (table["gain"] > GAIN) & (table["over_pointings"] > GAIN_OVER[dispersed])
    lasting = (table["gain"] > LASTING) & (table["step"] > p.born_sigma) & (table["over_step"] < 0)
    found: Bool = (no_line & (several | high)) | (lasting & several)
    return found


def find_noisy(table: Table, p: ScienceLimitSettings) -> Bool:
    """Pixels that scatter more than their noise, to both sides (step 5)."""
    limit = np.maximum(p.noisy_scatter, 1 + SCATTER_SIGMA * SCATTER_ERROR / np.sqrt(np.maximum(table["number"], 1)))
    with np.errstate(invalid="ignore"):
        found: Bool = (table["scatter"] > limit) & (table["below"] >= LEAST_BELOW)
    return found


def find_outliers(table: Table, p: ScienceSettings) -> Bool:
    """Pixels that an outlier step flagged again and again, whatever lay there (step 5)."""
    found: Bool = (table["flagged"] >= p.outlier_fraction) & (table["pointings_flagged"] >= p.min_pointings)
    return found


def find_structures(found: Bool, places: Places, *, most: int) -> Bool:
    """Candidates in groups of more than ``most`` touching ones (step 7)."""
    from scipy.ndimage import label

    if not found.any():
        return np.zeros(found.shape, bool)
    labels = np.zeros(places.shape, np.int32)
    label(places.to_map(found), np.ones((3, 3), int), output=labels)
    mine = labels.flat[places.index]
    size = np.bincount(mine)
    size[0] = 0
    out: Bool = size[mine] > most
    return out
