"""What a simulation is made of: the detectors' properties, the readout patterns, the recipe.

Levels and noise follow the published properties of the detectors as far as they matter to bad-pixel searches.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from badpix.detectors import READOUT, Detector, Window


@dataclass(frozen=True)
class Physics:
    """What a detector family is like. DN are raw counts, e are electrons."""

    gain: float  # e/DN
    read_noise: float  # DN, one frame
    dark: float  # e/s, typical pixel
    ipc: float  # part of a pixel's charge seen by each of the 4 side neighbors
    full_well: float  # e
    bias: float  # DN
    bias_spread: float  # DN, from pixel to pixel; in the superbias where there is one
    reset_noise: float  # DN, per pixel and integration
    drift: float  # DN, 1/f noise along the readout
    frame_time: float  # s, full frame
    hot_levels: tuple[float, ...]  # e/s
    warm_levels: tuple[float, ...]  # e/s
    start_drift: float = 0.0  # DN, common settling of all pixels after reset
    first_frame: float = 0.0  # DN, offset of the first group


_HOT = (0.3, 1.0, 3.0, 10.0, 100.0)
PHYSICS = {
    "NIRCAM_SHORT": Physics(2.05, 5.3, 0.003, 0.0055, 105e3, 10000, 250, 20, 1.2, 10.73677, _HOT, (0.06,)),
    "NIRCAM_LONG": Physics(1.82, 4.8, 0.03, 0.0055, 95e3, 10000, 250, 20, 1.2, 10.73677, _HOT, (0.1,)),
    "NIRISS": Physics(1.62, 6.2, 0.01, 0.0055, 80e3, 11000, 250, 20, 1.2, 10.73677, _HOT, (0.1,)),
    "FGS": Physics(1.67, 6.5, 0.01, 0.0055, 85e3, 11000, 250, 20, 1.2, 10.73677, _HOT, (0.1,)),
    "NIRSPEC": Physics(1.05, 9.0, 0.01, 0.006, 55e3, 8000, 300, 20, 1.2, 10.73676, _HOT, (0.1,)),
    "MIRI": Physics(
        3.6, 6.0, 0.2, 0.0154, 190e3, 8000, 179, 10, 1.0, 2.77504, (3.0, 10.0, 30.0, 100.0), (0.8,), 25.0, -60.0
    ),
}

AVERAGED_READOUT = {"NIRCAM": "SHALLOW4", "NIRISS": "NIS", "FGS": "FGS", "NIRSPEC": "NRS"}
DEFAULT_READOUT = {
    "NIRCAM": "RAPID",
    "NIRISS": "NISRAPID",
    "FGS": "FGSRAPID",
    "NIRSPEC": "NRSRAPID",
    "MIRI": "FASTR1",
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the bytes of a simulation.

    ``detector`` may be smaller than the real one of its name (:func:`shrink`): a frame of any size that still has
    reference pixels on all its sides and four amplifiers. ``window`` is the part of it that is read.
    """

    detector: Detector
    window: Window
    seed: int = 0
    nints: int = 1
    flat_groups: int = 10
    dark_groups: int = 20
    readout: str = "RAPID"
    defects_per_level: int | None = None
    flat_level: float = 0.5
    cosmic_rays: float = 5.0
    snowballs: float = 0.0
    subarray: str = "FULL"
    illumination: str = "imager"
    filters: tuple[str, ...] = ()
    defect_map: tuple[bytes, tuple[int, int]] | None = field(default=None, repr=False)
    conditions: tuple[str, ...] = ()
    darks: int = 0  # how many, with conditions; without, no exposure knows of the others
    sets: int | None = None
    cadence: float = 0.0  # s from the start of a dark to that of the next, where they follow each other

    @property
    def physics(self) -> Physics:
        """The detector family's properties."""
        if self.detector.instrument != "NIRCAM":
            return PHYSICS[self.detector.instrument]
        return PHYSICS["NIRCAM_LONG" if self.detector.name.endswith("LONG") else "NIRCAM_SHORT"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.window.ysize, self.window.xsize

    @property
    def frames(self) -> tuple[int, int]:
        """Frames averaged in a group, frames skipped between groups."""
        return READOUT[self.readout]

    @property
    def frame_time(self) -> float:
        """Seconds between frames."""
        return self.physics.frame_time

    @property
    def group_time(self) -> float:
        """Seconds between groups."""
        return self.frame_time * sum(self.frames)

    def filter_of(self, kind: str, number: int) -> int:
        """Number of the filter of a flat, from 0; exposures are counted from 1."""
        return (number - 1) % len(self.filters) if kind == "flat" and self.filters else 0

    def groups(self, kind: str) -> int:
        """Number of groups of a flat or a dark."""
        return self.flat_groups if kind == "flat" else self.dark_groups

    def group_times(self, kind: str) -> NDArray[np.float64]:
        """Mean time since reset of each group, in seconds."""
        averaged, skipped = self.frames
        steps = np.arange(self.groups(kind)) * (averaged + skipped) + (averaged + 1) / 2
        return np.asarray(steps * self.frame_time)

    # --- the order of time; exposures are numbered from 1, sets from 0 ---

    @property
    def number_of_sets(self) -> int:
        """Sets of darks."""
        return self.sets or self.darks

    def set_of(self, number: int) -> int:
        """The set that a dark belongs to."""
        return (number - 1) * self.number_of_sets // self.darks

    def place_in_set(self, number: int) -> int:
        """How many darks of its set are older."""
        return sum(self.set_of(k) == self.set_of(number) for k in range(1, number))

    def start_of(self, kind: str, number: int) -> datetime:
        """When an exposure begins: flats and darks of usual sets a day apart, sets a month apart, darks of one set
        and those after a bright field right after each other."""
        day, next_one = timedelta(days=1), timedelta(seconds=round(self.cadence))
        if kind == "flat" or not self.conditions:
            return datetime(2026, 1 if kind == "flat" else 2, 1) + (number - 1) % 28 * day
        if self.sets:
            month = timedelta(seconds=round(365 * 86400 / self.sets))
            return datetime(2026, 2, 1) + self.set_of(number) * month + self.place_in_set(number) * next_one
        return datetime(2026, 2, 1) + (number - 1) * (next_one if "persistence" in self.conditions else day)

    def of_exposure(self, kind: str, number: int) -> Recipe:
        """The recipe of one exposure: in mixed sets every third dark has another depth."""
        if kind == "flat" or "mixed" not in self.conditions or number % 3:
            return self
        readout = AVERAGED_READOUT.get(self.detector.instrument, self.readout)
        return replace(self, readout=readout, dark_groups=max(4, self.dark_groups // 3))


def shrink(detector: Detector, shape: tuple[int, int]) -> Detector:
    """A small detector of the same kind: ``shape`` (ny, nx) is its full frame."""
    return replace(detector, shape=shape)
