"""How unusual a pixel is: its statistics in units of what all pixels show.

1. Population: medians and MADs over a sample of rows, one number each (:func:`measure_population`).
2. Scores of a pixel (:func:`score_pixels`): its noise, the contrasts with decays in units of their error, the
   correlation and flatness of its residuals, its pedestal. All follow from noise measured in the same darks; no
   number of a detector or of a simulation enters.
3. Candidates (:func:`find_candidates`): pixels that may be flagged, or whose charge shows up in a neighbor.

Definitions: docs/darks-methods.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import drops
from badpix.darks.hits import line_memory
from badpix.darks.ramps import MEMORY, SCALARS, contrast_names, decays, ramp_fit
from badpix.darks.stats import MEDIAN_ERROR, TRIMMED_ERROR, Stats
from badpix.numerics.clipping import median_mad, scatter_beside

SHOT_SLOPE = 1 / 15  # residual variance of a random walk around its line, per group and unit variance of a step
TWO_SIGMA = 0.97725  # part of Gaussian numbers below 2 sigma; defects are too few to move it
SLOW_SIZE = 0.25  # part of the residuals' size that counts with their memory: slow switching raises both
LOUD = 3.5  # sigma of the residuals' logarithm from which a pixel is bad anyway, and only its type is asked for
GAIN_SIGMA = 5.0  # scatters of the rate from which on a pixel tells how shot noise grows with the rate
SHOT_SIGMA = 2.0  # scatters of the rate over pixels from which on a pixel's shot noise is its own,
SHOT_EXCESS = 4.0  # or of the shot noise above the usual one
LEAST_WHITE = 0.05  # part of the residual variance that is not shot noise, at least
BRIGHT = 2  # integrations above the limit of HOT that make a candidate
MOST_CUT = 0.25  # fraction of integrations with missing groups from which TELEGRAPH is not searched
NOISE_FLOOR = 2.0  # MADs below the median noise: quieter pixels are judged as if they had this noise


@dataclass(frozen=True)
class Setup:
    """What the darks have in common: usable groups, seconds per group, integrations, names of the contrasts.

    ``examined``: integrations whose ramps are examined for noise and shape.
    """

    groups: int
    group_time: float
    integrations: int
    templates: tuple[str, ...]
    examined: int


@dataclass(frozen=True)
class Population:
    """What all pixels show: ``(median, MAD)`` by name, and single numbers.

    ``rate_spread`` is the scatter of the dark rate of one integration over pixels, DN/s; ``shot`` the variance of the
    shot noise of one group and ``shot_spread`` its scatter, ``shot_of_rate`` that of bright pixels over their rate;
    ``masked`` the part of pixels that are DO_NOT_USE in every group; ``common`` the memory that residuals have beyond
    that of white noise, DN^2; ``kept`` the integrations that residuals were measured in; ``drop_sigma`` and
    ``deep_sigma`` the depths from which several steps down, or one, are no noise (:mod:`badpix.darks.drops`).
    Pixels above ``suspicion`` are looked at group by group; those above ``two_levels`` switch,
    and of good pixels the part ``by_chance`` is expected there.
    """

    rate_spread: float = float("nan")
    shot: float = 0.0
    shot_spread: float = float("inf")
    shot_of_rate: float = 0.0
    masked: float = 0.0
    common: float = 0.0
    kept: float = 1.0
    drop_sigma: float = 4.5
    deep_sigma: float = drops.DEEP
    suspicion: float = float("inf")
    two_levels: float = float("inf")
    by_chance: float = float("nan")
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)

    def z(self, name: str, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """``values`` minus the median, over the MAD."""
        center, sigma = self.spread[name]
        return ((values - center) / sigma).astype(np.float32)


def measure_population(sample: Stats, setup: Setup, rate_spread: float, drop_sigma: float = 4.5) -> Population:
    """Describe the population from the statistics of a sample of good and bad pixels together.

    Parameters
    ----------
    sample : dict
        From :func:`badpix.darks.stats.combine_integrations` and ``examine_pixels``, all pixels of the sample.
    setup : Setup
        What the darks have in common.
    rate_spread : float
        Scatter of the rate of one integration, DN/s.
    drop_sigma : float
        Least depth of steps down that count, in units of the pixel's own noise of a step.
    """
    shot = measure_shot(sample, setup)
    bright = (sample["hot_rate"] > GAIN_SIGMA * rate_spread) & np.isfinite(shot)
    usual, scatter = (median_mad(shot)[0], scatter_beside(shot)) if np.isfinite(shot).any() else (0.0, np.inf)
    first = Population(
        rate_spread,
        float(usual),
        float(scatter) if scatter > 0 else np.inf,
        float(np.median(shot[bright] / sample["hot_rate"][bright])) if bright.any() else 0.0,
        float(sample["masked"].mean()) if sample["masked"].size else 0.0,
    )
    spread = {"log_noise": median_upper(np.log(measure_noise(sample, setup, first) / level_of(sample)))}
    kept = float(np.median(sample["kept"])) if sample["kept"].size else 1.0
    excess = (sample["memory"] - white_memory(setup)) * sample["residual"]
    common = float(np.nanmedian(excess)) if np.isfinite(excess).any() else 0.0
    several, one = drops.choose_depths(
        sample["deepest"], sample["second_deepest"], setup.examined, setup.groups, drop_sigma
    )
    population = replace(first, common=common, kept=max(kept, 1.0), spread=spread, drop_sigma=several, deep_sigma=one)
    shot = lasting_shot(sample, setup, population)
    for name in setup.templates:
        z, middle = measure_contrast(sample, name, shot, setup, population)
        spread[name] = (0.0, max(1.0, median_mad(z)[1]))
        spread[name + "_median"] = (0.0, max(1.0, median_mad(middle)[1]))
    for name, values in describe_residuals(sample, setup, population).items():
        spread[name] = median_upper(values)
    for name, values in describe_all(sample, setup, population).items():
        spread[name] = median_mad(values)
    spread["pedestal"] = median_mad(sample["pedestal"])
    return population


def median_upper(values: NDArray[np.float32]) -> tuple[float, float]:
    """Median, and sigma of the upper side: the larger of the MAD and half the distance to 2 sigma."""
    center, sigma = median_mad(values)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return center, sigma
    return center, max(sigma, (float(np.quantile(finite, TWO_SIGMA)) - center) / 2)


def level_of(pixels: Stats) -> NDArray[np.float32]:
    """The usual noise at each pixel over the median one (:mod:`badpix.darks.places`); 1 where it was not measured."""
    return pixels.get("level", np.ones(1, np.float32))


def measure_shot(pixels: Stats, setup: Setup) -> NDArray[np.float32]:
    """Variance of the shot noise of one group, DN^2, from the pipeline's variance of the rate; NaN without one."""
    known = np.where(pixels["masked"] > 0, np.float32(np.nan), pixels["poisson"])
    return known * np.float32(setup.group_time**2 * max(setup.groups - 1, 1))


def own_shot(pixels: Stats, setup: Setup, population: Population) -> NDArray[np.float32]:
    """Shot noise of each pixel: its own where its rate stands out, else the population's.

    Where the pipeline gave none (a mask was in use), a bright pixel has that of others with its rate.
    """
    shot = measure_shot(pixels, setup)
    shot = np.where(np.isfinite(shot), shot, np.float32(population.shot_of_rate) * pixels["hot_rate"])
    bright = (pixels["hot_rate"] > SHOT_SIGMA * population.rate_spread) & np.isfinite(shot)
    bright |= shot > population.shot + SHOT_EXCESS * population.shot_spread  # glow, which the cells' medians take off
    return np.where(bright, shot, np.float32(population.shot)).astype(np.float32)


def measure_noise(pixels: Stats, setup: Setup, population: Population) -> NDArray[np.float32]:
    """Noise of one group without shot noise, DN; NaN where not measured."""
    variance = pixels["white"] - own_shot(pixels, setup, population) / 2
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float32] = np.sqrt(np.maximum(variance, 1e-4 * pixels["white"] + 1e-12))
        return found


def _own_sigma(pixels: Stats, population: Population) -> NDArray[np.float32]:
    """Noise of one group with shot noise, not below what the quietest good pixels have."""
    center, sigma = population.spread["log_noise"]
    floor = np.exp(center - NOISE_FLOOR * sigma) if np.isfinite(center) else 0.0
    found: NDArray[np.float32] = np.maximum(np.sqrt(pixels["white"]), np.float32(floor) * level_of(pixels))
    return found


def measure_contrast(
    pixels: Stats, name: str, shot: NDArray[np.float32], setup: Setup, population: Population
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Trimmed mean and median of a contrast over their errors from the pixel's own noise and ``shot`` noise."""
    walk, _ = describe_contrast(setup.groups, name)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = _own_sigma(pixels, population) ** 2 + shot * np.float32(walk)
        error = np.sqrt(variance / pixels["examined"])
        mean, middle = pixels[name] / (TRIMMED_ERROR * error), pixels[name + "_median"] / (MEDIAN_ERROR * error)
    return mean.astype(np.float32), middle.astype(np.float32)


def lasting_shot(pixels: Stats, setup: Setup, population: Population) -> NDArray[np.float32]:
    """Shot noise of a current that goes on: without that of the charge that a decay of any contrast brings."""
    shot = own_shot(pixels, setup, population)
    brought: NDArray[np.float32] = np.zeros_like(shot)
    for name in setup.templates:
        _, slope = describe_contrast(setup.groups, name)
        brought = np.fmax(brought, np.abs(pixels[name + "_median"]) * np.float32(slope / setup.group_time))
    rest = shot - brought * np.float32(population.shot_of_rate)
    lasting: NDArray[np.float32] = np.fmax(rest, np.minimum(shot, np.float32(population.shot))).astype(np.float32)
    return lasting


@lru_cache(maxsize=64)
def describe_contrast(groups: int, name: str) -> tuple[float, float]:
    """What shot noise and decays have to do with a contrast.

    Variance of the contrast of a random walk with steps of variance 1, and slope of the decay whose contrast is 1, DN
    per group.
    """
    fit = ramp_fit(groups)
    number = contrast_names(fit.templates).index(name)
    template = fit.weights[len(SCALARS) + number].astype(np.float64)
    behind = np.cumsum(template[::-1])[::-1][1:]  # what a step before each group changes
    decay = decays(np.arange(groups, dtype=np.float64))[number]
    slope = float(fit.weights[1].astype(np.float64) @ decay) / float(template @ decay)
    return float((behind**2).sum()), abs(slope)


def white_memory(setup: Setup) -> float:
    """Memory of the residuals of white noise."""
    return line_memory(setup.groups, MEMORY) / (setup.groups - 2) if setup.groups > 2 else 0.0


def describe_residuals(pixels: Stats, setup: Setup, population: Population) -> dict[str, NDArray[np.float32]]:
    """Correlation (that of white noise in good pixels), flatness (0.80 for Gaussian), logarithmic size of residuals.

    What all pixels share, and the shot noise of bright ones, is taken off the memory in DN^2: a noisy pixel has no
    more of it than others.
    """
    shot = own_shot(pixels, setup, population)
    drift = shot * np.float32(SHOT_SLOPE * setup.groups)
    brighter = (shot - np.float32(population.shot)) * np.float32(SHOT_SLOPE * setup.groups * sum(MEMORY))
    total = pixels["residual"]
    with np.errstate(divide="ignore", invalid="ignore"):
        memory = pixels["memory"] * total - np.float32(population.common) - brighter
        correlation = memory / np.maximum(total - drift, LEAST_WHITE * total)
        found = {
            "correlation": correlation,
            "flatness": pixels["flatness"],
            "log_residual": np.log(total) / 2 - np.log(level_of(pixels)),
        }
    return {name: values.astype(np.float32) for name, values in found.items()}


def score_pixels(pixels: Stats, setup: Setup, population: Population) -> Stats:
    """Scores of pixels, in sigma of the population.

    Returns
    -------
    dict
        ``noise`` (DN) and ``noise_z``; ``<contrast>_z`` and ``<contrast>_median_z``; ``correlation_z``,
        ``flatness_z``, ``log_residual_z``, ``telegraph`` (all three together); ``shot`` (DN^2).
    """
    noise = measure_noise(pixels, setup, population)
    out: Stats = {"noise": noise, "shot": own_shot(pixels, setup, population)}
    lasting = lasting_shot(pixels, setup, population)
    with np.errstate(divide="ignore", invalid="ignore"):
        out["noise_z"] = population.z("log_noise", np.log(noise / level_of(pixels)))
        for name in setup.templates:
            z, middle = measure_contrast(pixels, name, lasting, setup, population)
            out[name + "_z"] = z / np.float32(population.spread[name][1])
            out[name + "_median_z"] = middle / np.float32(population.spread[name + "_median"][1])
        fewer = np.sqrt(np.clip(pixels["kept"] / np.float32(population.kept), 0, 1))
        for name, values in describe_residuals(pixels, setup, population).items():
            z = population.z(name, values)
            out[name + "_z"] = z if name == "log_residual" else z * fewer
    out["rc"] = strongest(out, setup)
    out["telegraph"] = join_evidence(out["correlation_z"], out["flatness_z"], out["log_residual_z"])
    return out


def describe_all(pixels: Stats, setup: Setup, population: Population) -> dict[str, NDArray[np.float32]]:
    """Correlation and logarithmic size of the residuals of all integrations."""
    all_of_them = {**pixels, "residual": pixels["residual_all"], "memory": pixels["memory_all"]}
    found = describe_residuals(all_of_them, setup, population)
    return {"correlation_all": found["correlation"], "log_residual_all": found["log_residual"]}


def measure_suspicion(pixels: Stats, setup: Setup, population: Population) -> NDArray[np.float32]:
    """How much the residuals of all integrations look like switching: their correlation and size together, sigma.

    No test: a few percent of good pixels are above the limit, and the likelihood of their ramps decides.
    """
    found = describe_all(pixels, setup, population)
    with np.errstate(invalid="ignore"):
        z = [population.z(name, values) for name, values in found.items()]
        return (np.sum(z, axis=0) / np.sqrt(2)).astype(np.float32)  # type: ignore[no-any-return]


def find_suspects(
    pixels: Stats, scores: Stats, setup: Setup, population: Population, cuts: Cuts
) -> NDArray[np.bool_]:
    """Pixels whose ramps are looked at group by group for two levels."""
    with np.errstate(invalid="ignore"):
        found = measure_suspicion(pixels, setup, population) > population.suspicion
        found |= (scores["telegraph"] > cuts.telegraph) | (pixels["drops"] >= cuts.drops)
        found |= pixels["deepest"] < -cuts.step
        for name in setup.templates:
            found |= (np.abs(scores[name + "_z"]) > cuts.contrast) & (scores["telegraph"] > cuts.bent)
        return found & (pixels["cut_fraction"] < MOST_CUT) & (pixels["examined"] > 0)  # type: ignore[no-any-return]


def expected_noise(pixels: Stats, scores: Stats, population: Population) -> NDArray[np.float32]:
    """Noise of one group that a pixel should have, DN: its own without what makes it stand out."""
    with np.errstate(invalid="ignore", over="ignore"):
        found: NDArray[np.float32] = (
            scores["noise"] * np.exp(-scores["noise_z"] * population.spread["log_noise"][1])
        ).astype(np.float32)
        return found


def join_evidence(
    memory: NDArray[np.float32], flatness: NDArray[np.float32], size: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Length of the vector of memory, flatness and size of residuals (sigma), what is below 0 counting as 0.

    Slow switching shows in memory and size, fast switching in flatness and size, so the length finds both. A quarter
    of the size goes with the memory, because slow switching raises both; size counts up to :data:`LOUD`, above which
    a pixel is noisy, whatever its type.
    """
    with np.errstate(invalid="ignore"):
        size = np.clip(size, 0, np.float32(LOUD))
        slow = np.maximum(memory + size * np.float32(SLOW_SIZE), 0)
        found: NDArray[np.float32] = np.sqrt(slow**2 + np.maximum(flatness, 0) ** 2 + size**2).astype(np.float32)
        return found


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
    """Limits of the candidates, safely below those of the searches; ``rate`` in DN/s, the rest in sigma.

    ``bent``: score of TELEGRAPH in a ramp that bends by ``contrast``; ``step``: depth of one step down; ``drops``:
    integrations with a deep one; ``jumps``: fraction of integrations that jump, in which one step counts.
    """

    rate_sigma: float = 5.0
    rate: float = np.inf
    noise: float = 2.8
    contrast: float = 4.5
    telegraph: float = 4.5
    bent: float = 3.0
    step: float = 7.0
    drops: int = 2
    jumps: float = 0.25
    pedestal: float = 4.0
    min_integrations: int = 3


def find_candidates(
    pixels: Stats, scores: Stats, setup: Setup, population: Population, cuts: Cuts
) -> NDArray[np.bool_]:
    """Pixels worth a closer look: those that a search may flag, and sources of charge that leaks into neighbors."""
    with np.errstate(invalid="ignore"):
        found = (pixels["integrations"] < cuts.min_integrations) | (pixels["saturated_fraction"] > 0)
        found |= pixels["cut_fraction"] >= MOST_CUT
        found |= pixels["hot_rate"] > min(cuts.rate_sigma * population.rate_spread, cuts.rate)
        loud = scores["log_residual_z"]
        found |= (scores["noise_z"] > cuts.noise) | (loud > cuts.noise)
        for name in setup.templates:
            found |= np.abs(scores[name + "_z"]) > cuts.contrast
        found |= (scores["telegraph"] > cuts.telegraph) | (pixels["drops"] >= cuts.drops)
        found |= (pixels["deepest"] < -cuts.step) & (pixels["jump_fraction"] > cuts.jumps)
        found |= pixels["bright"] >= BRIGHT
        found |= np.abs(pixels["pedestal"]) > cuts.pedestal * population.spread["pedestal"][1]
    return found
