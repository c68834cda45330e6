"""Moving targets: exposures that followed one are aligned on it, as calwebb_image3 does before its outlier step.

1. TARGTYPE is MOVING, and every exposure tells where the target was (MT_RA, MT_DEC of the SCI header).
2. Each WCS is shifted by the mean position minus the exposure's own (the pipeline's step assign_mtwcs), unless it has
   the frame ``moving_target`` already.

The target then lies at one place, and stars and background objects trail: they are the outliers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Sky
from badpix.image.wcs import Geometry
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShiftedSky:
    """Pixel to sky, shifted; travels to other processes."""

    sky: Sky
    shift: tuple[float, float]  # RA, Dec, degrees

    def __call__(self, x: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Degrees."""
        ra, dec = self.sky(x, y)
        return ra + self.shift[0], dec + self.shift[1]


def is_moving(cals: Sequence[CalFile]) -> bool:
    """Whether an exposure followed a moving target."""
    return any(str(cal.primary.get("TARGTYPE", "")).strip().upper() == "MOVING" for cal in cals)


def follow_target(cals: Sequence[CalFile], geometries: Sequence[Geometry], *, align: bool) -> list[Geometry]:
    """The geometries, shifted to a moving target's mean position where the exposures followed one.

    Parameters
    ----------
    cals : sequence of CalFile
    geometries : sequence of Geometry
        Of the same exposures.
    align : bool
        Whether to shift at all.
    """
    if not is_moving(cals) or all(geometry.follows for geometry in geometries):
        return list(geometries)
    places = [_target(cal) for cal in cals]
    told = [place for place in places if place is not None]
    mixed = any(geometry.follows for geometry in geometries)
    if not align or mixed or len(told) < len(cals):
        why = "MT_RA or MT_DEC is missing"
        if not align or mixed:
            why = "some WCS have its frame" if mixed else "moving_target is never"
        log.warning(f"TARGTYPE is MOVING, but the exposures are not aligned on it ({why}): the target is flagged")
        return list(geometries)
    ra, dec = np.array(told).T
    ra = ra[0] + (ra - ra[0] + 180) % 360 - 180  # across RA = 0
    shifts = np.stack([ra.mean() - ra, dec.mean() - dec], axis=1)
    moved = np.hypot(*(np.ptp(v) * 3600 for v in (ra * np.cos(np.radians(dec.mean())), dec)))
    log.warning(
        f"TARGTYPE is MOVING: exposures are aligned on the target (MT_RA, MT_DEC; it moves by {moved:.2f} arcsec); "
        f"stars trail and are flagged"
    )
    return [_shift(geometry, (float(a), float(b))) for geometry, (a, b) in zip(geometries, shifts, strict=True)]


def _target(cal: CalFile) -> tuple[float, float] | None:
    header = io_cal.image_hdu(cal, "SCI").header
    values = [header.get(k, cal.primary.get(k)) for k in ("MT_RA", "MT_DEC")]
    if all(isinstance(v, int | float) and np.isfinite(v) for v in values):
        return float(values[0]), float(values[1])
    return None


def _shift(geometry: Geometry, shift: tuple[float, float]) -> Geometry:
    def invert(ra: float, dec: float) -> tuple[float, float]:
        return geometry.invert(ra - shift[0], dec - shift[1])

    return replace(
        geometry,
        sky=ShiftedSky(geometry.sky, shift),
        open_sky=ShiftedSky(geometry.open_sky, shift),
        invert=invert,
        shift=shift,
    )
