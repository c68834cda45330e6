"""Types of candidates that follow from the order of time: born hot, intermittent, recovered, persistence.

1. Verdicts of all candidates (:mod:`badpix.darks.series`), with leaked charge taken off the rate of every step.
2. Born hot pixels are HOT. Intermittent ones have a type of their own. Recovered and decaying ones keep no flag of a
   dark rate; decaying ones keep none at all and are undetermined.
3. What was found is told by date (:func:`describe`), and kept for the evidence (:func:`make_images`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import searches, series, surroundings
from badpix.darks.candidates import Candidates
from badpix.darks.scores import Population, level_of
from badpix.darks.series import Verdicts
from badpix.darks.stack import Brightness
from badpix.darks.stats import Stats
from badpix.io.dates import day_of
from badpix.io.evidence import Samples, Sparse
from badpix.numerics.neighbors import AROUND, Places
from badpix.settings.darks import HotSettings

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

GONE = 3  # newest steps without it after which a pixel that was hot in most darks has recovered
MOST_DATES = 12  # births are told one by one up to so many dates


def judge(
    steps: dict[str, Float],
    places: Places,
    quiet: Float,
    shot: Float,
    median: Float,
    scales: Sequence[float] = (),
    *,
    cut: Bool,
    ipc: float,
    overrun: float,
    limit: float,
    fraction: float,
) -> Verdicts:
    """Verdicts of all candidates.

    Parameters
    ----------
    steps : dict
        :data:`badpix.darks.series.SERIES` of all candidates.
    places : Places
        Where they lie.
    quiet : ndarray
        (candidates,) noise of one group of the median pixel around, DN.
    shot : ndarray
        (candidates,) scatter of the rate of one integration by shot noise, DN/s.
    median : ndarray
        (ny, nx) median rates over all integrations, DN/s: what surrounds a pixel (glow) is no change of its own.
    scales : sequence of float
        By which the rates of each step were divided: glow knows no temperature and is divided wrongly.
    cut : ndarray
        (candidates,) pixels that saturation cuts short in some integration.
    ipc : float
        Signal of a side neighbor over that of a pixel.
    overrun : float
        Part of the rate of a neighbor that is cut short which says nothing of the pixel itself: its few groups hold
        what leaks in, and a hit in them shows in no other.
    limit : float
        Rate of a bright step, DN/s.
    fraction : float
        Least fraction of bright steps of an intermittent pixel.
    """
    rate = steps["rate"].copy()
    with np.errstate(invalid="ignore"):
        some = np.flatnonzero((rate > limit).any(axis=1))
    near = Places(places.index[some], places.shape)
    brightest = np.fmax.reduce(rate[some], axis=1)  # where a neighbor saturates at once, it leaks on
    bright = steps["bright"].copy()
    for step in range(rate.shape[1]):
        known = np.where(np.isfinite(rate[some, step]), rate[some, step], brightest)
        rate[some, step] = searches.correct_ipc(rate[some, step], near, ipc, brightest)
        beside = near.neighbors(np.where(cut[some], np.nan_to_num(known), 0), AROUND, 0.0).max(axis=0)
        with np.errstate(invalid="ignore"):
            bright[some[rate[some, step] < overrun * beside], step] = 0
    level, _ = surroundings.measure_level(median, *np.divmod(near.index, near.shape[1]))
    more = np.maximum(np.median(scales) / np.array(scales), 1) if len(scales) else np.ones(1)
    rate[some] -= np.maximum(level, 0)[:, None] * more.astype(np.float32)
    return series.judge({**steps, "bright": bright}, rate, quiet, shot, limit=limit, fraction=fraction, places=places)


def find_explained(verdicts: Verdicts, pixels: Stats, places: Places, *, leak: float) -> Bool:
    """Candidates whose highest rate is what a brighter neighbor leaks."""
    peak = np.where(verdicts.state == 1, verdicts.rate, np.float32(-np.inf)).max(axis=1, initial=-np.inf)
    return searches.find_leaked({**pixels, "hot_rate": peak.astype(np.float32)}, places, fraction=leak)


def has_gone(verdicts: Verdicts) -> Bool:
    """Recovered pixels that :data:`GONE` newest steps or more show dark."""
    found: Bool = verdicts.recovered & (verdicts.state.shape[1] - 1 - verdicts.last >= GONE)
    return found


@dataclass
class Changes:
    """What the order of time says, as far as it counts: one entry for each candidate."""

    born: Bool
    intermittent: Bool
    decaying: Bool
    gone: Bool
    calm: Bool
    always: Bool
    crowded: Bool
    fraction: Float

    @classmethod
    def of(cls, verdicts: Verdicts | None, table: Candidates, ipc: float, p: HotSettings) -> Changes:
        """From the verdicts; nothing without them."""
        if verdicts is None:
            a, b, c, d, e, f, g = np.zeros((7, len(table.places.index)), bool)
            return cls(a, b, c, d, e, f, g, np.zeros(len(a), np.float32))
        leaked = find_explained(verdicts, table.pixels, table.places, leak=p.hot_leak_fraction * ipc)
        changed = (verdicts.born | verdicts.intermittent) & ~leaked
        crowded = surroundings.find_crowded(changed, table.places)
        changed &= ~crowded
        return cls(
            verdicts.born & changed,
            verdicts.intermittent & changed,
            verdicts.decaying,
            has_gone(verdicts) | verdicts.decaying,
            verdicts.recovered & verdicts.calm,
            verdicts.always,
            crowded,
            verdicts.fraction,
        )


def judge_time(
    table: Candidates, rate: Float, population: Population, ipc: float, bright: Brightness | None, p: HotSettings
) -> Verdicts | None:
    """What the order of time says of the candidates; None where it is not searched."""
    if bright is None or not table.series:
        return None
    quiet = np.float32(np.exp(population.spread["log_noise"][0])) * level_of(table.pixels)
    return judge(
        table.series,
        table.places,
        quiet,
        searches.shot_scatter(table.pixels),
        rate,
        bright.scales,
        cut=table.pixels["cut_fraction"] > 0,
        ipc=ipc,
        overrun=p.hot_overrun_fraction,
        limit=bright.limit,
        fraction=p.intermittent_fraction,
    )


def describe(
    verdicts: Verdicts, born: Bool, intermittent: Bool, dates: list[float], scales: list[float]
) -> list[str]:
    """Notes: births by date, intermittent, recovered and decaying pixels, and the dark current's scale."""
    notes = []
    if born.any():
        count = np.bincount(verdicts.first[born], minlength=len(dates))
        told = [f"{count[k]} since {day_of(dates[k])}" for k in np.flatnonzero(count)[-MOST_DATES:]]
        newest = day_of(dates[int(np.flatnonzero(count)[-1])])
        notes.append(
            f"{int(born.sum())} pixels became hot within these darks: {', '.join(told)}; "
            f"a mask with all of them is right from {newest} on (USEAFTER)"
        )
    if intermittent.any():
        notes.append(f"{int(intermittent.sum())} pixels are hot now and then (intermittent)")
    if verdicts.recovered.any():
        last = np.bincount(verdicts.last[verdicts.recovered], minlength=len(dates))
        told = [f"{last[k]} after {day_of(dates[k])}" for k in np.flatnonzero(last)[-MOST_DATES:]]
        notes.append(f"{int(verdicts.recovered.sum())} pixels were hot and are no more: {', '.join(told)}")
    if verdicts.decaying.any():
        notes.append(
            f"{int(verdicts.decaying.sum())} pixels show the charge of an earlier exposure that decays "
            "(persistence): undetermined, not flagged"
        )
    if any(scale != 1 for scale in scales):
        told = [f"{scale:.2f}" for scale in scales]
        notes.append(
            f"dark current of the hot pixels over the usual one, by exposure: {', '.join(told)} (temperature?); "
            "rates are divided by it"
        )
    return notes


def make_images(verdicts: Verdicts, places: Places, born: Bool, dates: list[float]) -> dict[str, Sparse]:
    """Images of the verdicts: fraction of bright steps, first and last of them (MJD), and the kinds of change."""

    def image(values: NDArray[Any], empty: float) -> Sparse:
        return Sparse(places.index, values, places.shape, empty)

    when = np.array([*dates, np.nan], np.float32)
    seen = np.where(np.isfinite(verdicts.state).any(axis=1), verdicts.fraction, np.float32(np.nan))
    kinds = {"born": born, "recovered": verdicts.recovered, "decays": verdicts.decaying}
    return {
        "dark_bright_fraction": image(seen, np.nan),
        "dark_bright_first": image(when[verdicts.first], np.nan),
        "dark_bright_last": image(when[verdicts.last], np.nan),
        **{f"dark_{name}": image(column.astype(np.uint8), 0) for name, column in kinds.items()},
    }


def make_samples(verdicts: Verdicts, steps: dict[str, Float], places: Places) -> dict[str, Samples]:
    """Rate, noise, pedestal and state of all candidates, step by step in time."""
    y, x = (part.astype(np.int32) for part in np.divmod(places.index, places.shape[1]))
    columns = {"rate": verdicts.rate, "noise": steps["noise"], "pedestal": steps["pedestal"], "state": verdicts.state}
    return {f"step_{name}": Samples(x, y, values) for name, values in columns.items()}
