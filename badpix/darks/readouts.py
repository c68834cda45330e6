"""Darks of different depth in one set: groups, group time, frames a group.

1. A *depth* is a group time and a number of frames a group (TGROUP, NFRAMES). Ramps of one depth are alike as far as
   the shortest of them goes.
2. Noise and shape (noisy, RC, TELEGRAPH) are measured in the ramps of one depth, cut to a common number of groups:
   those of which the examined integrations hold most groups together (:func:`choose_depth`).
3. Rates, pedestals, saturation and jumps come from every integration, as those of integrations that are not examined
   do in sets of one depth. Each rate weighs by the inverse square of its scatter over pixels (:func:`weigh`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_GROUPS = 5  # of a common ramp, where any dark has as many: below it neither noise nor shape is measured


@dataclass(frozen=True)
class Depth:
    """How one exposure was read: groups of an integration, seconds between groups, frames averaged to a group, and
    the name of the readout pattern."""

    groups: int
    group_time: float
    frames: int
    pattern: str

    def __str__(self) -> str:
        many = "" if self.frames == 1 else f" of {self.frames} frames"
        return f"{self.groups} groups{many} ({self.pattern}, {self.group_time:g} s)"

    def joins(self, other: Depth) -> bool:
        """Whether ramps of both are alike as far as the shorter one goes."""
        return (self.group_time, self.frames) == (other.group_time, other.frames)


def choose_depth(depths: Sequence[Depth], integrations: Sequence[int], *, least: int, most: int) -> Depth:
    """The depth in which noise and shape are measured: the groups of its integrations are most together.

    Parameters
    ----------
    depths : sequence of Depth
        Of each exposure.
    integrations : sequence of int
        Of each exposure.
    least : int
        Integrations that a search needs; depths with fewer are not chosen, if others have as many.
    most : int
        Integrations that are examined.
    """

    def worth(depth: Depth) -> tuple[bool, bool, int, int]:
        mine = zip(depths, integrations, strict=True)
        number = sum(n for other, n in mine if depth.joins(other) and other.groups >= depth.groups)
        return number >= least, depth.groups >= LEAST_GROUPS, min(number, most) * depth.groups, depth.groups

    return max(dict.fromkeys(depths), key=worth)


def weigh(spread: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Weights of integrations, 1 for the deepest, from the scatter of their rates over pixels; 0 without any."""
    known = np.isfinite(spread) & (spread > 0)
    best = np.min(spread[known], initial=np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, np.square(best / spread), 0).astype(np.float32)


def pick_weighted(
    values: NDArray[np.floating[Any]], weights: NDArray[np.float32], fraction: float
) -> NDArray[np.float32]:
    """The highest value that integrations with this fraction of the weight reach, along axis 0; NaN has no weight.

    With equal weights it is the value of rank ``ceil(fraction * n)`` from above.
    """
    order = np.argsort(np.where(np.isfinite(values), values, np.float32(np.inf)), axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    mine = np.where(np.isfinite(ordered), weights[order], np.float32(0)).astype(np.float64)
    above = np.cumsum(mine[::-1], axis=0)[::-1]
    enough = (above >= (fraction - 1e-6) * above[0]) & (mine > 0)
    last = len(values) - 1 - enough[::-1].argmax(axis=0)
    found = np.take_along_axis(ordered, last[None], axis=0)[0]
    return np.where(above[0] > 0, found, np.float32(np.nan)).astype(np.float32)


def describe(
    depths: Sequence[Depth], integrations: Sequence[int], chosen: Depth, weights: NDArray[np.float32]
) -> list[str]:
    """A note on what was joined; none for darks of one depth."""
    if len(set(depths)) == 1:
        return []
    count: Counter[Depth] = Counter()
    weight: dict[Depth, float] = {}
    of_dark = np.split(weights, np.cumsum(integrations)[:-1])
    for depth, mine in zip(depths, of_dark, strict=True):
        count[depth] += len(mine)
        weight[depth] = weight.get(depth, 0.0) + float(mine.sum())
    total = sum(weight.values()) or 1.0
    told = []
    for depth, number in count.items():
        alike = depth.joins(chosen) and depth.groups >= chosen.groups
        part = f"rates ({weight[depth] / total:.0%} of the weight)"
        shape = f"noise, RC, TELEGRAPH (first {chosen.groups} groups), " if alike else ""
        told.append(f"{number} integrations of {depth} for {shape}{part}")
    return [f"darks of different depth are joined: {'; '.join(told)}"]
