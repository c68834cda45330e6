"""What repeats: the odd exposures against the even ones, for candidates.

1. The integrations of every other exposure are one half (of a single exposure every other integration).
2. Each half of a candidate that may be flagged (:func:`make_cuts`) is combined and scored like the whole
   (:func:`measure_halves`), and the weaker one is kept: of rates and
   noise the lower, of a bend the one that agrees less with the whole, of a pedestal the one that is less low.
3. A flag whose weaker half shows less than :data:`PART` of the limit is one that a part of the exposures alone made
   (:func:`count_unrepeated`): a hit that was not flagged, one bad exposure, a change in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from badpix.darks.integrations import Integrations
from badpix.darks.ramps import STEADY
from badpix.darks.scores import Cuts, Population, Setup, find_candidates, score_pixels
from badpix.darks.stack import Job
from badpix.darks.stats import Stats
from badpix.io.depths import Alarm
from badpix.settings.darks import DarkSettings

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Index = NDArray[np.intp]

PART = 0.5  # of the limit that a real defect shows in each half
ALMOST = 0.9  # of a limit that a candidate reaches before charge that leaked in is taken off, or it is not flagged
FEWEST = 4  # integrations that can be halved
NOT_COMBINED = ("slope", "late", "residual", STEADY)  # shapes that statistics over integrations don't need
COLUMNS = ("half_rate", "half_noise", "half_rc", "half_pedestal")


def make_cuts(p: DarkSettings) -> Cuts:
    """Limits of the candidates whose halves are told: those that a search by a limit may flag."""
    sigmas = [s for s in (p.hot_sigma_threshold, p.warm_sigma_threshold) if s is not None]
    return Cuts(
        rate_sigma=ALMOST * min(sigmas, default=np.inf),
        rate=np.inf if p.hot_max_rate is None else ALMOST * p.hot_max_rate,
        noise=ALMOST * p.noisy_sigma_threshold,
        contrast=ALMOST * p.rc_sigma_threshold,
        telegraph=np.inf,
        step=np.inf,
        drops=np.iinfo(np.int32).max,
        pedestal=ALMOST * p.low_pedestal_sigma_threshold,
        min_integrations=0,
    )


def split(job: Job) -> tuple[Index, Index] | None:
    """Integrations of the odd and of the even exposures; None where there are too few."""
    number = [dark.integrations for dark in job.darks]
    if sum(number) < FEWEST:
        return None
    whose = np.repeat(np.arange(len(number)), number) if len(number) > 1 else np.arange(sum(number))
    return np.flatnonzero(whose % 2 == 0), np.flatnonzero(whose % 2 == 1)


def take(stack: Integrations, half: Index, index: Index) -> Integrations:
    """Some pixels of some integrations."""
    mine = np.flatnonzero(np.isin(stack.examined, half))
    names = [name for name in stack.shapes if name not in NOT_COMBINED]
    pick = np.ix_(half, index)
    return Integrations(
        stack.rate[pick],
        stack.pedestal[pick],
        {name: np.take(stack.shapes[name][mine], index, axis=1) for name in names},
        np.searchsorted(half, stack.examined[mine]),
        stack.groups[pick],
        stack.jumps[pick],
        stack.saturated[pick],
        stack.poisson[index],
        stack.first_level[index],
        stack.masked[index],
        None,
        None if stack.weights is None else stack.weights[half],
        None if stack.whole is None else stack.whole[half],
    )


def measure_halves(
    job: Job,
    population: Population,
    stack: Integrations,
    index: Index,
    pixels: Stats,
    combine: Callable[[Integrations], Stats],
) -> Stats:
    """The weaker half of each candidate that may be flagged: :data:`COLUMNS`, (candidates,) float32; else NaN.

    Parameters
    ----------
    job, population
        Of the run.
    stack : Integrations
        Of the band.
    index : ndarray
        Candidates among its pixels.
    pixels : dict
        What is known of them from all integrations.
    combine : callable
        Statistics of some integrations.
    """
    out = {name: np.full(len(index), np.nan, np.float32) for name in COLUMNS}
    halves = split(job)
    if halves is None or job.halves is None or not len(index):
        return out
    scores = score_pixels(pixels, job.setup, population)
    some = np.flatnonzero(find_candidates(pixels, scores, job.setup, population, job.halves))
    if not len(some):
        return out
    pixels = {name: column[some] for name, column in pixels.items()}
    found = []
    for half in halves:
        part = take(stack, half, index[some])
        if not len(part.examined):
            return out
        own = combine(part)
        own |= {name: pixels[name] for name in ("level", "bright") if name in pixels}
        found.append((own, score_pixels(own, job.setup, population)))
    both = [own["hot_rate"] for own, _ in found]
    out["half_rate"][some] = np.fmin(*both)
    out["half_noise"][some] = np.fmin(*(scores["noise_z"] for _, scores in found))
    out["half_pedestal"][some] = np.fmax(*(own["pedestal"] for own, _ in found))
    out["half_rc"][some] = _weaker_bend(pixels, found, job.setup)
    return out


def _weaker_bend(pixels: Stats, found: list[tuple[Stats, Stats]], setup: Setup) -> Float:
    """The half that bends less in the direction of the whole, over what all integrations would show, sigma."""
    if not setup.templates:
        return np.full(len(pixels["rate"]), np.nan, np.float32)
    sign = np.sign(pixels[setup.templates[0]])
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [
            scores["rc"] * sign * np.sqrt(pixels["examined"] / np.maximum(own["examined"], 1))
            for own, scores in found
        ]
    weaker: Float = np.fmin(*parts).astype(np.float32)
    return weaker


def count_unrepeated(
    pixels: Mapping[str, Float],
    flagged: Mapping[str, Bool],
    limits: Mapping[str, float],
    population: Population,
    good: int,
    p: DarkSettings,
) -> list[Alarm]:
    """Flags that one half of the exposures does not bear out.

    Parameters
    ----------
    pixels : dict
        Columns of the candidates.
    flagged : dict
        Search -> which candidates it flags.
    limits : dict
        ``hot``: its limit, DN/s.
    population : Population
    good : int
        Good pixels.
    p : DarkSettings
    """
    if COLUMNS[0] not in pixels or not np.isfinite(pixels[COLUMNS[0]]).any():
        return []
    pedestal = p.low_pedestal_sigma_threshold * population.spread["pedestal"][1]
    weak = {
        "hot": pixels["half_rate"] < PART * limits.get("hot", np.inf),
        "rc": pixels["half_rc"] < PART * p.rc_sigma_threshold,
        "noisy": pixels["half_noise"] < PART * p.noisy_sigma_threshold,
        "low_pedestal": pixels["half_pedestal"] > -PART * pedestal,
    }
    full = pixels["saturated_fraction"] > 0  # no rate, but no doubt
    return [
        Alarm(name, "halves", good, int((flagged[name] & weak[name] & ~full).sum()))
        for name in weak
        if name in flagged
    ]
