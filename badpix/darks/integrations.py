"""All integrations of some pixels: what was measured of each, and ramps that were kept for a closer look.

A tile makes one stack; of its candidates copies are taken, and the copies of several tiles are joined and examined
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from badpix.darks.cells import Cells
from badpix.darks.cells import pick as pick_medians

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Integrations:
    """All integrations of the pixels of a tile.

    Attributes
    ----------
    rate, pedestal : ndarray
        (n, pixels) float32 over the cell's median, DN/s and DN; NaN where not measured.
    shapes : dict
        (m, pixels) float32 each, of the examined integrations, NaN where not measured: ``slope``, ``late``
        (DN/group), ``contrast_k`` (DN), ``residual``, ``white`` (DN^2), ``flatness``, ``memory``, ``drop`` (DN).
    examined : ndarray
        (m,) int: which integrations these are.
    groups, jumps : ndarray
        (n, pixels) uint16: groups used, jumps.
    saturated : ndarray
        (n, pixels) bool: saturated in the first usable group.
    poisson : ndarray
        (pixels,) float32: mean variance of the rate from shot noise, (DN/s)^2.
    first_level : ndarray
        (pixels,) float32: highest value of the first usable group, DN.
    masked : ndarray
        (pixels,) bool: DO_NOT_USE in every group of an integration.
    kept : Kept or Picked, optional
        Ramps of some integrations.
    weights : ndarray, optional
        (n,) weight of each rate where the depths of the darks differ; None: all weigh the same.
    whole : ndarray, optional
        (n,) groups of a whole ramp; None: as many as any pixel has.
    """

    rate: Array
    pedestal: Array
    shapes: dict[str, Array]
    examined: NDArray[np.intp]
    groups: NDArray[np.uint16]
    jumps: NDArray[np.uint16]
    saturated: NDArray[np.bool_]
    poisson: Array
    first_level: Array
    masked: NDArray[np.bool_]
    kept: Kept | Picked | None = None
    weights: Array | None = None
    whole: NDArray[np.uint16] | None = None

    def take(self, pixels: NDArray[np.intp], looked_at: NDArray[np.intp]) -> Integrations:
        """Copies of some pixels; ramps are kept of those that are ``looked_at``, numbers in ``pixels``."""
        kept = None
        if self.kept is not None:
            column = np.full(len(pixels), -1)
            column[looked_at] = np.arange(len(looked_at))
            kept = Picked(*self.kept.take(pixels[looked_at]), column)
        tables, lines = ({name: getattr(self, name) for name in names} for names in (TABLES, LINES))
        return replace(
            self,
            **{name: np.take(table, pixels, axis=1) for name, table in tables.items()},
            **{name: line[pixels] for name, line in lines.items()},
            shapes={name: np.take(table, pixels, axis=1) for name, table in self.shapes.items()},
            kept=kept,
        )


def join_stacks(parts: Sequence[Integrations]) -> Integrations:
    """The pixels of several stacks of the same integrations, from :meth:`Integrations.take`, as one."""
    kept = [part.kept for part in parts if isinstance(part.kept, Picked)]
    return replace(
        parts[0],
        **{name: np.concatenate([getattr(p, name) for p in parts], axis=-1) for name in TABLES + LINES},
        shapes={name: np.concatenate([p.shapes[name] for p in parts], axis=1) for name in parts[0].shapes},
        kept=join_picked(kept) if kept else None,
    )


TABLES = ("rate", "pedestal", "groups", "jumps", "saturated")  # of Integrations, (n, pixels)
LINES = ("poisson", "first_level", "masked")  # (pixels,)


@dataclass(frozen=True)
class Picked:
    """Ramps and flags of some pixels, (k, G, m), and the column of each pixel among them (n,), -1: not there."""

    ramps: Array
    flags: NDArray[np.uint8]
    column: NDArray[np.intp]

    def take(self, pixels: NDArray[np.intp]) -> tuple[Array, NDArray[np.uint8]]:
        """Ramps and flags of some pixels that are there: (k, G, n)."""
        at = self.column[pixels]
        ramps, flags = (
            np.take(self.ramps.transpose(1, 0, 2), at, axis=2),
            np.take(self.flags.transpose(1, 0, 2), at, axis=2),
        )
        return ramps.transpose(1, 0, 2), flags.transpose(1, 0, 2)


def join_picked(parts: Sequence[Picked]) -> Picked:
    """The pixels of several as one."""
    first = np.cumsum([0, *(part.ramps.shape[2] for part in parts)])
    columns = [np.where(p.column < 0, -1, p.column + start) for p, start in zip(parts, first[:-1], strict=True)]
    ramps, flags = (
        np.concatenate([getattr(part, name).transpose(1, 0, 2) for part in parts], axis=2).transpose(1, 0, 2)
        for name in ("ramps", "flags")
    )
    return Picked(ramps, flags, np.concatenate(columns))


@dataclass(frozen=True)
class Kept:
    """Ramps of some of the examined integrations as they were read, for a closer look at some pixels.

    Attributes
    ----------
    ramps, flags : ndarray
        (G, k, pixels) float32 DN and uint8 GROUPDQ.
    swapped : ndarray
        (k,) bool: integrations whose ramps are in the other byte order.
    drift : ndarray
        (G, k, tiles, cells) float32: medians of their cells.
    cells : Cells
        The cells, in a frame of ``nx`` columns.
    """

    ramps: Array
    flags: NDArray[np.uint8]
    swapped: NDArray[np.bool_]
    drift: Array
    cells: Cells
    nx: int

    def take(self, pixels: NDArray[np.intp]) -> tuple[Array, NDArray[np.uint8]]:
        """Ramps without the medians of their cells, and flags of some pixels: (k, G, n)."""
        ramps = np.take(self.ramps, pixels, axis=2)
        ramps[:, self.swapped] = ramps[:, self.swapped].byteswap()
        ramps -= pick_medians(self.drift, pixels, self.nx, self.cells)
        return ramps.transpose(1, 0, 2), np.take(self.flags, pixels, axis=2).transpose(1, 0, 2)
