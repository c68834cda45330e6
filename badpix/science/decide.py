"""Types of candidates: hot, warm, low, noisy, switching; what was born when; what is no pixel.

1. Errors are those of the means, times how much wider than them the means of all pixels scatter (flat-field errors,
   noise that is alike in neighbors); more at the edge of images. What bad neighbors did to the level around is put
   back (:mod:`badpix.science.around`).
2. *Hot*: the mean is above `science_sigma` errors, and so is what brighter neighbors' leaks leave of it, which is
   more than they are; most pointings agree (their median is above half of the mean; in dispersed light none
   contradicts it); and it is no mere response: a pixel whose excess follows the light (a flat-field error) is not
   hot. In images the error is that by the noise alone where the scatter is wider: pixels that switch faintly are hot
   by their mean. *Warm* is hot below `harm`.
3. *Born*: the newest exposures are hot, the earlier ones are not. The step is above `born_sigma` (more where one
   visit of dispersed light alone saw it), or what is there since, where the step is sure; and something is left
   without the two exposures that say most. It gets the type of its newest level, and a date. *Recovered*: the other
   way round; no flag.
4. *Low*: mean and response are, on the average, more than `science_sigma` errors below, the response to the level is
   below `max_low_response`; where the backgrounds differ enough to tell, the deficit follows the light (regression
   with an excess).
5. *Switching*: bright in some exposures and dark in others, alike where it is bright, in several pointings and not
   in one alone but for once, more often than chance; or faintly, where two levels explain it far better than one, a
   step or a line in some visits (:mod:`badpix.science.switching`). *Noisy*: a scatter above `noisy_scatter`, beyond
   chance.
   What changes in time and shows in the pixel beside it as well is a leak. What both pixels beside show in
   dispersed light is light (:mod:`badpix.science.beside`).
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
from badpix.numerics.neighbors import Places
from badpix.science import around
from badpix.science.around import AGREE, LEAST_BRIGHT
from badpix.science.beside import PATTERNS
from badpix.science.series import CONSISTENT, MEDIAN_ERROR, Table
from badpix.settings.science import ScienceLimitSettings, ScienceSettings

LEAK_ERROR = 1.0  # of what brighter neighbors leak: coupling differs from pixel to pixel
WITHOUT = 2.0  # sigma, of the mean without the pointing that says most for it, in dispersed light
LINES = 1.05  # what lines leave makes tails: factor of limits in dispersed light
EDGE = 1.3  # factor of limits at the edge of images
RESPONSE_SIGMA = 4.0  # errors: a slope against the level that is sure
QUIET_BEFORE = 0.3  # of the level after a birth: most that was there before
STRAYS = 0.15  # share of values that stray, at most, on each side of a step in time
NOW = 1.03  # of `born_sigma`: significance of the level after a birth, where the step is sure to LEAST_NOW sigma
LEAST_NOW = 3.3
REST = 3.2  # sigma, of what is left of a birth without the two values that say most
LEAST_DECAY = 3  # bright exposures in a row that a decay takes: one alone was a particle
SHARP = 1.1  # factor of the limit of births that only one visit of dispersed light saw
LEAST_ELSEWHERE = 2  # bright exposures beside those of the pointing that has most of them
LEAST_POINTINGS = (3, 2)  # pointings in which it is: of images, of dispersed light
SPREADS = 0.25  # of its height: what the pixels beside one of a spectral line show
APART = 4.5  # noises between the bright and the dark level of a switching pixel
UNEQUAL = 0.25  # scatter of bright values that the noise does not explain, of their median
CHANCE = 1e-5  # of as many bright exposures
GAIN = (14.0, 13.0)  # of two levels over none, logarithm of the likelihood ratio: of images, of dispersed light
GAIN_OF_TWO = 16.0  # where fewer than LEAST_BRIGHT exposures are lit
LIKELY = 12.0  # of pixels that many alike bright exposures show
GAIN_OVER = (3.0, 0.0)  # of two levels over a step in time, over one level a pointing: of images, of dispersed light
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
    reference: Bool,
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
    reference : ndarray of bool
        (ny, nx) reference pixels.
    """
    dispersed = axis is not None
    least = LEAST_POINTINGS[dispersed]
    edge = np.where(around.find_edges(places, reference), np.float32(EDGE), np.float32(1))
    factor: Float = np.float32(wider) * (np.full_like(edge, LINES) if dispersed else edge)
    shift = around.measure_shift(table, places, axis)
    table = {**table, "mean": table["mean"] + shift}
    light = {name: table.get(f"light_{name}", np.zeros(len(shift), bool)) for name in PATTERNS}
    seen = pointings.flat[places.index] >= p.min_pointings
    two = find_two_levels(table, p, dispersed, edge)
    changing = two & (table["over_step"] > GAIN_OVER[dispersed]) & (table["pointings_lit"] >= LEAST_ELSEWHERE)
    changing &= ~table["newest"]
    recovered = find_steps(table, p, factor, least, up=False) & seen & ~changing
    alone = around.find_alone(table, places, ipc / AGREE if not dispersed else SPREADS)
    born = find_steps(table, p, factor, least, up=True) | (two & ~changing & (table["step"] > LEAST_STEP))
    if axis is not None:  # in one visit alone: as strong as no line that falls on so few pixels
        born |= find_steps(table, p, SHARP * factor, 1, up=True) & ~around.at_edge(places, axis)
    born &= seen & ~light["after"]
    level = np.where(born, table["after_mean"], table["mean"]).astype(np.float32)
    error = np.where(born, table["after_error"] / MEDIAN_ERROR, table["error"]) * factor
    leak = around.measure_leak(table, level, places, ipc)
    own = level - leak + np.where(born, shift, 0)
    agreed = find_agreed(table, dispersed) & (own > LEAK_ERROR * leak)
    by_noise = None if dispersed else table["noise_error"] * factor
    steady, sigma = find_steady(own, error, by_noise, agreed, p.science_sigma)
    born &= alone
    decaying = table["decaying"] & (table["run"] >= LEAST_DECAY) & seen
    unsteady = (table["square"] > most_square) & seen & ~recovered & ~decaying
    likely = find_switching(table, p, least) & (table["gain"] > LIKELY * edge)
    switching = (likely | changing) & unsteady & alone & ~born
    hot = ((steady & ~recovered & ~switching) | (born & (own > AGREE * level))) & seen & ~decaying
    low = find_low(table, p, factor) & seen & ~switching & ~born
    sigma = np.where(low, measure_low_sigma(table, factor), sigma).astype(np.float32)
    noisy = find_noisy(table, p) & unsteady & ~hot & ~low & ~switching
    outlier = find_outliers(table, p) & seen & ~(hot | low | noisy | switching)
    structure = find_structures(hot | low | noisy | switching | outlier, places, most=p.max_structure_pixels)
    hot &= ~(light["all"] & ~born) & ~structure
    low &= ~light["all"] & ~structure
    switching &= ~light["lit"] & ~structure
    return Verdicts(
        hot,
        low,
        noisy & ~structure,
        switching,
        outlier & ~structure,
        born & hot,
        recovered & ~structure,
        decaying,
        structure,
        level,
        sigma,
    )


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
            agreed &= table["without"] > WITHOUT  # one visit, in which the pixel happened to be dark, is not enough
    out: Bool = agreed
    return out


def find_steps(table: Table, p: ScienceLimitSettings, factor: Float, least: int, *, up: bool) -> Bool:
    """Candidates that were born (up) or recovered (step 3)."""
    high, low = ("after", "before") if up else ("before", "after")
    step = table["step"] if up else -table["step"]
    with np.errstate(invalid="ignore"):
        found = (step > p.born_sigma * factor) & (table[high] > p.born_sigma * factor * table[f"{high}_error"])
        if up:  # nothing was there before: what is there now counts alone
            now = table["after_mean"] * MEDIAN_ERROR / table["after_error"]
            found |= (now > NOW * p.born_sigma * factor) & (step > LEAST_NOW * factor)
            found &= (table["rest_after"] > REST) & (table["after"] > AGREE * table["after_mean"])
        quiet = np.maximum(CONSISTENT * table[f"{low}_error"] * factor, QUIET_BEFORE * table[high])
        found &= (np.abs(table[low]) < quiet) & (table["before_strays"] < STRAYS)
        found &= table[f"{high}_mean"] > AGREE * table[high]  # what lines blur counts in a median, and weighs nothing
        found &= (table["after_strays"] < STRAYS) & (table["pointings_after"] >= least)
    out: Bool = found
    return out


def find_low(table: Table, p: ScienceLimitSettings, factor: Float) -> Bool:
    """Pixels of low response (step 4)."""
    with np.errstate(invalid="ignore"):
        found = measure_low_sigma(table, factor) < -p.science_sigma
        found &= table["typical"] < AGREE * table["mean"]
        found &= table["deficit"] < p.max_low_response - 1
        apart = np.abs(table["slope"] - table["deficit"])
        follows = apart < CONSISTENT * table["slope_error"] * factor
        follows |= table["slope"] < p.max_low_response - 1
        found &= follows | ~np.isfinite(table["slope"])
    out: Bool = found
    return out


def measure_low_sigma(table: Table, factor: Float) -> Float:
    """Significance of a deficit: half that of the mean, half that of the response, which weighs bright light more.

    Of the mean by its noise alone: a changing background makes a low pixel scatter.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        by_mean = table["mean"] / table["noise_error"]
        by_response = table["deficit"] / table["deficit_error"]
        found: Float = (np.where(by_mean < 0, (by_mean + by_response) / 2, by_mean) / factor).astype(np.float32)
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


def find_two_levels(table: Table, p: ScienceLimitSettings, dispersed: bool, edge: Float) -> Bool:
    """Pixels that two levels explain better than none, and than a line in some visits (steps 3 and 5).

    Of what began once and lasts, equally bright in all visits since, no line of each visit is asked for. Of what only
    the two newest exposures show less is asked: among all pairs of exposures this is one.
    """
    several = table["pointings_lit"] >= LEAST_ELSEWHERE
    high = table["bright_level"] > HIGH * table["noise"]  # in one visit alone: higher than what lines leave
    number = table["number"].astype(float)
    gain = table["gain"] + np.where(table["newest"], np.log(np.maximum(number * (number - 1) / 2, 1)), 0)
    no_line = gain > np.where(table["lit"] >= LEAST_BRIGHT, GAIN[dispersed], GAIN_OF_TWO) * edge
    no_line &= table["over_pointings"] > GAIN_OVER[dispersed]
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
