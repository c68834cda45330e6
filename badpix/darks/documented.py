"""The documented searches in darks (official algorithm, jwst_reffiles), without the faults of its program.

For every integration:

1. Pedestal P from the fitopt file. MIRI: P' = |second raw group - P| takes its place in steps 2 to 4.
2. Mean m and standard deviation s of P over the science pixels, clipped at 3 sigma around the mean until nothing is
   dropped. High pedestal: P > m + `pedestal_sigma_threshold` s.
3. Low pedestal: P < m - `pedestal_sigma_threshold` s, and the first group is not SATURATED.
4. Fully saturated: P = 0 (of the fitopt file) and the first group SATURATED.
5. Jumps: at least `max_jump_limit` are many; RC candidates have many, and early ones at least
   `jump_ratio_threshold` times as often as late ones (`early_cutoff_fraction` of the ramp each).
6. Clean slope: the slope of an integration without jumps.

Over all integrations:

7. Noisy: standard deviation of clean slopes above mean + `dark_noisy_threshold` standard deviations of the image of
   standard deviations (clipped by `dark_stdev_clipping_sigma`, `dark_max_clipping_iters`). Fewer than 5 clean slopes:
   noisy as documented, or undetermined (`noisy_without_data`).
8. HOT: fully saturated in at least `max_saturated_fraction`. RC: high pedestal, or early jumps, in more than
   `rc_fraction_threshold`. Low pedestal: more than `low_pedestal_fraction`. High CR: many jumps in more than
   `high_cr_fraction`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.darks.stack import Dark
from badpix.errors import UsageError
from badpix.io.fits import read_band
from badpix.numerics import clipping
from badpix.settings.darks import RcSettings

SATURATED = np.uint8(dq.VALUE["SATURATED"])
JUMP_DET = np.uint8(dq.VALUE["JUMP_DET"])
CHUNK = 1 << 15  # values added up at a time
RAW_GROUP = 1  # of MIRI, for the pedestal
VOTES = ("saturated", "high_pedestal", "low_pedestal", "early_jumps", "many_jumps", "clean_slopes")

Bool = NDArray[np.bool_]
Limits = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Rules:
    """Numbers of the documented rules that a task needs."""

    groups: int
    max_jumps: int
    jump_ratio: float
    early_fraction: float
    pedestal_sigma: float

    @property
    def early(self) -> int:
        """Groups that are early: the first ones."""
        return int(self.early_fraction * self.groups)

    @property
    def late(self) -> int:
        """First group that is late."""
        return int(self.groups - self.early_fraction * self.groups)


def make_rules(groups: int, p: RcSettings) -> Rules:
    """The rules for ramps of ``groups`` groups.

    Raises
    ------
    UsageError
        If the early part of the ramp holds no group.
    """
    rules = Rules(
        groups,
        p.max_jump_limit,
        p.jump_ratio_threshold,
        p.early_cutoff_fraction,
        p.pedestal_sigma_threshold,
    )
    if rules.early < 1:
        raise UsageError(
            f"early_cutoff_fraction = {rules.early_fraction:g} of {groups} groups is less than one group; "
            f"give at least {1 / groups:.3g}"
        )
    return rules


def clip_mean(values: NDArray[np.floating[Any]], sigma: float) -> tuple[float, float]:
    """Mean and standard deviation of the values within ``sigma`` of the mean, until nothing more is dropped.

    What lies outside is taken off the sums again, so that no round adds up all values; and once the limits are
    known roughly, only values far from the mean are looked at.
    """
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan"), float("nan")
    center = float(np.median(values[:: max(1, values.size // CHUNK)]))  # near the mean of what will be kept
    total, bottom, top, dropped = _sum_powers(values, center), -np.inf, np.inf, 0
    rest, far, core = total, values, 0.0
    while True:
        mean = rest[1] / rest[0]
        std = float(np.sqrt(max(rest[2] / rest[0] - mean**2, 0.0)))
        bottom = max(bottom, center + mean - sigma * std)
        top = min(top, center + mean + sigma * std)
        reach = min(center - bottom, top - center)
        if reach < 1.01 * core:
            far, core = values, 0.0
        outside = far[(far < bottom) | (far > top)]
        if outside.size in (dropped, values.size):
            return (center + mean, std) if outside.size == dropped else (float("nan"), float("nan"))
        dropped, rest = outside.size, total - _sum_powers(outside, center)
        if rest[2] < 1e-6 * total[2]:  # the difference of two large numbers: begin again with what is kept
            return clip_mean(values[(values >= bottom) & (values <= top)], sigma)
        if not core and reach > 0:
            core = 0.7 * reach
            far = values[np.abs(values - center) > core]


def _sum_powers(values: NDArray[np.floating[Any]], center: float) -> NDArray[np.float64]:
    """Number, sum and sum of squares of values about ``center``."""
    sums = np.zeros(3)
    for x in range(0, values.size, CHUNK):
        d = values[x : x + CHUNK].astype(np.float64) - center
        sums += d.size, d.sum(), np.einsum("i,i->", d, d)
    return sums


def read_pedestal(
    dark: Dark, integration: int, start: int, stop: int, bias: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pedestal as fitted, and as judged (MIRI: against the raw ramp; less a bias map): (rows, nx) each."""
    if dark.pedestal is None:  # refused when the files were opened
        raise ValueError("a dark without pedestals")
    fitted = read_band(dark.pedestal, start, stop, planes=[integration])[0].astype(np.float32, copy=False)
    judged = fitted
    if bias is not None:
        judged = fitted - bias
    elif dark.uncal is not None:
        plane = integration * dark.jump.shape[1] + RAW_GROUP
        judged = np.abs(read_band(dark.uncal, start, stop, planes=[plane])[0].astype(np.float32) - fitted)
    return fitted, judged


def measure_pedestals(reference: Bool, bias: NDArray[np.float32] | None, dark: Dark) -> Limits:
    """Clipped mean and standard deviation of the pedestals of each integration, over the science pixels."""
    science, means = ~reference, []
    for i in range(dark.integrations):
        _, judged = read_pedestal(dark, i, 0, reference.shape[0], bias)
        means.append(clip_mean(judged[science], 3.0))
    return tuple(means)


def count_votes(
    flags: NDArray[np.uint8],
    fitted: NDArray[np.float32],
    judged: NDArray[np.float32],
    pedestals: tuple[float, float],
    rules: Rules,
) -> tuple[dict[str, Bool], Bool]:
    """What one integration says of each pixel, by the names of :data:`VOTES`, and where its slope is clean.

    ``flags`` is (ngroups, rows, nx) GROUPDQ; ``fitted``, ``judged`` (rows, nx) pedestals; ``pedestals`` their
    mean and standard deviation.
    """
    mean, std = pedestals
    first = (flags[0] & SATURATED) != 0
    many, early, clean = _judge_jumps(flags, rules)
    with np.errstate(invalid="ignore"):
        votes = {
            "saturated": first & (fitted == 0),
            "high_pedestal": judged > mean + rules.pedestal_sigma * std,
            "low_pedestal": (judged < mean - rules.pedestal_sigma * std) & ~first,
            "early_jumps": early,
            "many_jumps": many,
        }
    return votes, clean


def _judge_jumps(flags: NDArray[np.uint8], rules: Rules) -> tuple[Bool, Bool, Bool]:
    """Where a ramp has many jumps, where most of these are early, and where it has none: (rows, nx) each."""
    many, soon = np.zeros((2, *flags.shape[1:]), bool)
    clean = (np.bitwise_or.reduce(flags, axis=0) & JUMP_DET) == 0
    at = np.flatnonzero(~clean)
    jumps = (np.take(flags.reshape(len(flags), -1), at, axis=1) & JUMP_DET) != 0
    early = jumps[: rules.early].sum(axis=0) / rules.early
    late = jumps[rules.late :].sum(axis=0) / (rules.groups - rules.late)
    many.flat[at] = jumps.sum(axis=0) >= rules.max_jumps
    soon.flat[at] = many.flat[at] & (early / np.where(late == 0, 1e-6, late) >= rules.jump_ratio)
    return many, soon, clean


@dataclass(frozen=True)
class VoteBand:
    """Votes over all integrations of a band: counts (rows, nx), and the scatter of clean slopes."""

    start: int
    counts: dict[str, NDArray[np.uint16]]
    scatter: NDArray[np.float32]


def measure_votes(
    darks: tuple[Dark, ...],
    limits: tuple[Limits, ...],
    rules: Rules,
    band: tuple[int, int, NDArray[np.float32] | None],
) -> VoteBand:
    """Count the votes of a band and measure the standard deviation of its clean slopes."""
    start, stop, bias = band
    nx = darks[0].jump.shape[-1]
    counts = {name: np.zeros((stop - start, nx), np.uint16) for name in VOTES}
    slopes = np.full((sum(d.integrations for d in darks), stop - start, nx), np.nan, np.float32)
    room = np.empty((max(d.groups for d in darks), stop - start, nx), np.uint8)
    done = 0
    for dark, means in zip(darks, limits, strict=True):
        rates, own = read_band(dark.rate, start, stop), replace(rules, groups=dark.groups)
        for i in range(dark.integrations):
            planes = range(i * dark.groups, (i + 1) * dark.groups)
            flags = read_band(dark.groupdq, start, stop, planes=planes, out=room[: dark.groups])
            fitted, judged = read_pedestal(dark, i, start, stop, bias)
            votes, clean = count_votes(flags, fitted, judged, means[i], own)
            for name, vote in votes.items():
                counts[name] += vote
            np.copyto(slopes[done], rates[i], where=clean)
            done += 1
    number, scatter = _scatter(slopes)
    counts["clean_slopes"] = number
    return VoteBand(start, counts, scatter)


def _scatter(slopes: NDArray[np.float32]) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Number of slopes of each pixel and their standard deviation; NaN where there is none."""
    known = np.isfinite(slopes)
    number = known.sum(axis=0, dtype=np.uint16)
    slopes[~known] = 0
    square = np.zeros(number.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = slopes.sum(axis=0, dtype=np.float64) / number
        for line, here in zip(slopes, known, strict=True):
            deviation = line - mean
            deviation *= here
            square += deviation * deviation
        return number, np.sqrt(square / number).astype(np.float32)


def find_by_votes(
    counts: Mapping[str, NDArray[np.uint16]],
    integrations: int,
    *,
    max_saturated: float,
    rc: float,
    low_pedestal: float,
    high_cr: float,
) -> dict[str, Bool]:
    """Step 8: pixels by the fraction of their integrations; only that of ``hot`` counts when it is equal."""
    parts = np.arange(integrations + 1) / integrations

    def more(name: str, limit: float) -> Bool:
        return (parts > limit)[counts[name]]

    return {
        "hot": (parts >= max_saturated)[counts["saturated"]],
        "rc": more("high_pedestal", rc) | more("early_jumps", rc),
        "low_pedestal": more("low_pedestal", low_pedestal),
        "high_cr": more("many_jumps", high_cr),
    }


def find_scattered(
    scatter: NDArray[np.float32],
    number: NDArray[np.uint16],
    science: Bool,
    *,
    clip_sigma: float,
    clip_iterations: int,
    threshold: float,
    min_slopes: int,
) -> tuple[Bool, Bool, float]:
    """Step 7: pixels whose clean slopes scatter, pixels with too few clean slopes, and the limit in DN/s."""
    few = science & ((number < min_slopes) | ~np.isfinite(scatter))
    mean, std = clipping.clip_values(scatter[science & ~few], sigma=clip_sigma, iterations=clip_iterations)
    limit = mean + threshold * std
    with np.errstate(invalid="ignore"):
        return science & ~few & (scatter > limit), few, limit
