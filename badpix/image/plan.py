"""What the tasks of a run share, and what they give back; small, and picklable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image import audit as image_audit
from badpix.image import products as image_products
from badpix.image.cores import Stamps
from badpix.image.grid import Grid, Window
from badpix.image.persistence import Places
from badpix.image.seen_once import Sharpness
from badpix.image.stack import Shelf
from badpix.image.transients import Detection
from badpix.settings.image import ImageSettings


@dataclass(frozen=True)
class Plan:
    """What all tasks of a run share; small, and picklable."""

    shelf: Shelf
    grid: Grid
    windows: list[Window]  # of the groups
    p: ImageSettings
    shallow: frozenset[int] = frozenset()  # groups that are no reference
    pair_sigma: float = 0.0
    angles: tuple[int, ...] = ()  # class of roll angles of each group; empty where all are alike
    rolls: tuple[float, ...] = ()  # degrees, of each group
    sources: NDArray[Any] = field(default_factory=lambda: np.empty((0, 2)))
    products: image_products.Target | None = None
    persistent: Places = field(default_factory=dict)  # hot pixels of each detector
    protected: NDArray[Any] = field(default_factory=lambda: np.empty((0, 3)))  # grid x, y and radius


@dataclass
class Found:
    """What the search found in one exposure; the flags themselves are on the shelf."""

    number: int
    counts: dict[str, int]
    noise_factors: list[float] = field(default_factory=list)
    unusual: list[int] = field(default_factory=list)
    residual_sky: float = 0.0
    tilt: float = 0.0  # of the sky that was left, over the image
    striped: bool = False
    shift: tuple[float, float] | None = None
    sharpened: bool = False
    blunt: bool = False  # should be sharpened, but nothing to learn from
    sharpness: Sharpness | None = None
    losses: list[image_audit.Loss] = field(default_factory=list)
    sources: int = 0
    cutouts: list[image_products.Cutout] = field(default_factory=list)
    transients: list[Detection] = field(default_factory=list)
    stamps: Stamps | None = None  # of bright sources
