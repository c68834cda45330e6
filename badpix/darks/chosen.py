"""Pixels that are looked at again: gathered from run after run of rows, until there are enough of them for one call.

What their integrations say is copied (:meth:`Chosen.gather`), since the memory of a run of rows is used again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from badpix.darks.integrations import Integrations, join_stacks
from badpix.darks.stats import Stats, join

Bool = NDArray[np.bool_]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Chosen:
    """Pixels that may be flagged or may switch, one entry each.

    Attributes
    ----------
    index : ndarray
        Flat indices in the frame, ascending.
    places : ndarray
        Which pixels of ``stack`` they are.
    pixels, noise : dict
        Statistics, and what their noise is judged by.
    suspect, sure : ndarray
        bool: whether they may switch, and whether they are candidates whatever the likelihood says.
    stack : Integrations
        All integrations.
    """

    index: Index
    places: Index
    pixels: Stats
    noise: Stats
    suspect: Bool
    sure: Bool
    stack: Integrations

    def gather(self) -> Chosen:
        """The same with a stack of its own, of these pixels alone; ramps of suspects are copied."""
        return replace(
            self, places=np.arange(len(self.index)), stack=self.stack.take(self.places, np.flatnonzero(self.suspect))
        )


def join_chosen(parts: Sequence[Chosen]) -> Chosen:
    """Gathered pixels of several runs of rows as one."""
    if len(parts) == 1:
        return parts[0]
    index, suspect, sure = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("index", "suspect", "sure")
    )
    pixels, noise = join([p.pixels for p in parts]), join([p.noise for p in parts])
    return Chosen(index, np.arange(len(index)), pixels, noise, suspect, sure, join_stacks([p.stack for p in parts]))
