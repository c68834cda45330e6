"""How unusual a pixel is: its statistics in units of what all pixels show.

1. Population: medians and MADs over a sample of rows, one number each (:func:`measure_population`).
2. Scores of a pixel (:func:`score_pixels`): its noise, the contrasts with decays in units of their error, the
   correlation and flatness of its residuals, its pedestal. All follow from noise measured in the same darks; no
   number of a detector or of a simulation enters.
3. Candidates (:func:`find_candidates`): pixels that may be flagged, or whose charge shows up in a neighbour.

Definitions and measured limits: docs/darks.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from badpix.dark.ramps import MEMORY
from badpix.dark.stats import MEDIAN_ERROR, TRIMMED_ERROR, Stats, clean_enough
from badpix.stats import median_mad

SHOT_SLOPE = 1 / 15  # residual variance of a random walk around its line, per group and unit variance of a step
TWO_SIGMA = 0.97725  # part of Gaussian numbers below 2 sigma; defects are too few to move it
NOISE_FLOOR = 2.0  # MADs below the median noise: quieter pixels are judged as if they had this noise


@dataclass(frozen=True)
class Setup:
    """What the darks have in common: usable groups, seconds per group, integrations, names of the contrasts.

    ``pulls``: slope that a decay of each template adds, over its contrast; ``examined``: integrations whose ramps are
    examined for noise and shape (0: all).
    """

    groups: int
    group_time: float
    integrations: int
    templates: tuple[str, ...]
    pulls: tuple[float, ...] = ()
    examined: int = 0


@dataclass(frozen=True)
class Population:
    """What all pixels show: ``(median, MAD)`` by name, and single numbers.

    ``rate_spread`` is the scatter of the dark rate of one integration over pixels, DN/s.
    """

    rate_spread: float = float("nan")
    shot: float = 0.0
    kept: float = 1.0
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)

    def z(self, name: str, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """``values`` minus the median, over the MAD."""
        centre, sigma = self.spread[name]
        return ((values - centre) / sigma).astype(np.float32)


def measure_population(sample: Stats, setup: Setup, rate_spread: float) -> Population:
    """Describe the population from the statistics of a sample of good and bad pixels together.

    Parameters
    ----------
    sample : dict
        From :func:`badpix.dark.stats.combine_integrations` and ``examine_pixels``, all pixels of the sample.
    setup : Setup
        What the darks have in common.
    rate_spread : float
        Scatter of the rate of one integration, DN/s.
    """
    shot = measure_shot(sample, setup)
    first = Population(rate_spread, float(np.nanmedian(shot)) if np.isfinite(shot).any() else 0.0)
    spread = {"log_noise": median_mad(np.log(measure_noise(sample, setup, first)))}
    kept = sample["clean"] - (sample["clean"] >= 4)
    usual = kept[clean_enough(sample)]
    population = Population(rate_spread, first.shot, float(np.median(usual)) if usual.size else 1.0, spread)
    for name in setup.templates:
        z, middle = measure_contrast(sample, name, setup, population)
        spread[name] = (0.0, max(1.0, median_mad(z)[1]))
        spread[name + "_median"] = (0.0, max(1.0, median_mad(middle)[1]))
    for way, values in correlation_ways(sample, setup, population).items():
        spread[way] = median_upper(values)
    spread["pedestal"] = median_mad(sample["pedestal"])
    return population


def median_upper(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median, and sigma of the upper side: the larger of the MAD and half the distance to 2 sigma."""
    centre, sigma = median_mad(values)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return centre, sigma
    return centre, max(sigma, (float(np.quantile(finite, TWO_SIGMA)) - centre) / 2)


def measure_shot(pixels: Stats, setup: Setup) -> NDArray[np.float32]:
    """Variance of the shot noise of one group, DN^2, from the pipeline's variance of the rate."""
    return pixels["poisson"] * np.float32(setup.group_time**2 * max(setup.groups - 1, 1))


def own_shot(pixels: Stats, setup: Setup, population: Population) -> NDArray[np.float32]:
    """Shot noise of each pixel: its own where its rate stands out, else the population's."""
    shot = measure_shot(pixels, setup)
    bright = (pixels["hot_rate"] > 5 * population.rate_spread) & np.isfinite(shot)
    return np.where(bright, shot, np.float32(population.shot)).astype(np.float32)


def measure_noise(pixels: Stats, setup: Setup, population: Population) -> NDArray[np.float32]:
    """Noise of one group without shot noise, DN; NaN where not measured."""
    variance = pixels["white"] - own_shot(pixels, setup, population) / 2
    with np.errstate(invalid="ignore"):
        return np.sqrt(np.maximum(variance, 1e-4 * pixels["white"] + 1e-12))


def _own_sigma(pixels: Stats, population: Population) -> NDArray[np.float32]:
    """Noise of one group with shot noise, not below what the quietest good pixels have."""
    centre, sigma = population.spread["log_noise"]
    floor = np.exp(centre - NOISE_FLOOR * sigma) if np.isfinite(centre) else 0.0
    return np.maximum(np.sqrt(pixels["white"]), np.float32(floor))


def measure_contrast(
    pixels: Stats, name: str, setup: Setup, population: Population
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Trimmed mean and median of a contrast over their errors from the pixel's own noise."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error = _own_sigma(pixels, population) / np.sqrt(pixels["examined"])
        mean, middle = pixels[name] / (TRIMMED_ERROR * error), pixels[name + "_median"] / (MEDIAN_ERROR * error)
    return mean.astype(np.float32), middle.astype(np.float32)


def correlation_ways(pixels: Stats, setup: Setup, population: Population) -> dict[str, NDArray[np.float32]]:
    """Correlation (0 for white noise), flatness (0.80 for Gaussian) and size of residuals, measured in two ways.

    ``clean_*``: over integrations without jumps, where there are enough; ``low_*``: low quantiles over all.
    """
    shot = own_shot(pixels, setup, population)
    enough = clean_enough(pixels)
    drift = shot * np.float32(SHOT_SLOPE * setup.groups)
    out = {}
    for way, here in (("clean_", enough), ("low_", True)):
        with np.errstate(divide="ignore", invalid="ignore"):
            total = pixels[way + "residual"]
            memory = (pixels[way + "memory"] * total - drift * np.float32(sum(MEMORY))) / np.maximum(
                total - drift, 0.05 * total
            )
            values = {"correlation": memory, "flatness": pixels[way + "flatness"], "log_residual": np.log(total) / 2}
        out.update({way + name: np.where(here, v, np.nan).astype(np.float32) for name, v in values.items()})
    return out


def score_pixels(pixels: Stats, setup: Setup, population: Population) -> Stats:
    """Scores of pixels, in sigma of the population.

    Returns
    -------
    dict
        ``noise`` (DN) and ``noise_z``; ``<contrast>_z`` and ``<contrast>_median_z``; ``correlation_z``,
        ``flatness_z``, ``log_residual_z``, ``switching`` (the first two together), ``telegraph`` (all three);
        ``shot`` (DN^2).
    """
    noise = measure_noise(pixels, setup, population)
    out: Stats = {"noise": noise, "shot": own_shot(pixels, setup, population)}
    with np.errstate(divide="ignore", invalid="ignore"):
        out["noise_z"] = population.z("log_noise", np.log(noise))
        for name in setup.templates:
            z, middle = measure_contrast(pixels, name, setup, population)
            out[name + "_z"] = z / np.float32(population.spread[name][1])
            out[name + "_median_z"] = middle / np.float32(population.spread[name + "_median"][1])
        ways = correlation_ways(pixels, setup, population)
        enough = clean_enough(pixels)
        kept = pixels["clean"] - (pixels["clean"] >= 4)
        fewer = np.sqrt(np.clip(kept / np.float32(population.kept), 0, 1))
        for name in ("correlation", "flatness", "log_residual"):
            clean = population.z("clean_" + name, ways["clean_" + name]) * (fewer if name != "log_residual" else 1)
            low = population.z("low_" + name, ways["low_" + name])
            out[name + "_z"] = np.where(enough, clean, low).astype(np.float32)
    out["switching"] = out["correlation_z"] + np.clip(out["flatness_z"], -3, 12) / np.float32(2)
    out["rc"] = strongest(out, setup)
    out["telegraph"] = out["switching"] + np.clip(out["log_residual_z"], -2, 4) / np.float32(2)
    return out


def strongest(scores: Stats, setup: Setup) -> NDArray[np.float32]:
    """Score of the contrast that is largest, with its sign; NaN without templates."""
    best = np.full_like(scores["noise"], np.nan)
    for name in setup.templates:
        z = scores[name + "_z"]
        with np.errstate(invalid="ignore"):
            best = np.where(~(np.abs(z) <= np.abs(best)), z, best)
    return best


@dataclass(frozen=True)
class Cuts:
    """Limits of the candidates, safely below those of the searches; ``rate`` in DN/s, the rest in sigma."""

    rate_sigma: float = 5.0
    rate: float = np.inf
    noise: float = 2.8
    contrast: float = 4.5
    telegraph: float = 5.0
    switching: float = 2.2
    pedestal: float = 4.0
    min_integrations: int = 3


def find_candidates(
    pixels: Stats, scores: Stats, setup: Setup, population: Population, cuts: Cuts
) -> NDArray[np.bool_]:
    """Pixels worth a closer look: those that a search may flag, and sources of charge that leaks into neighbours."""
    with np.errstate(invalid="ignore"):
        found = (pixels["integrations"] < cuts.min_integrations) | (pixels["saturated_fraction"] > 0)
        found |= pixels["cut_fraction"] >= 0.25
        found |= pixels["hot_rate"] > min(cuts.rate_sigma * population.rate_spread, cuts.rate)
        loud = scores["log_residual_z"]
        found |= (scores["noise_z"] > cuts.noise) | (loud > cuts.noise)
        for name in setup.templates:
            found |= np.abs(scores[name + "_z"]) > cuts.contrast
        found |= (scores["telegraph"] > cuts.telegraph) | ((scores["switching"] > cuts.switching) & (loud > 3.2))
        found |= (scores["flatness_z"] > 4.5) | (pixels["drops"] >= 2)
        found |= (pixels["deepest"] < -7) & (pixels["jump_fraction"] > 0.25)
        found |= np.abs(pixels["pedestal"]) > cuts.pedestal * population.spread["pedestal"][1]
    return found
