"""Would new science exposures have shown again what older ones found?

1. Hot, warm and low pixels: the old excess (DN/s) is above the new limit, `science_sigma` errors of the new stack,
   by so much that nine of ten would be seen again.
2. Switching and noisy pixels: what they did in one old exposure stands out from the noise of one new one, and the new
   exposures are so many that they would have switched in enough of them.
3. Where that can't be told (no evidence, another unit, no value, what outlier steps flagged), the pixel is faint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Evidence
from badpix.mask.update import POWER

SEEN = 7.0  # expected bright (and dark) exposures with which nine of ten are seen in the four that are needed
APART = 4.5  # noises that the levels of a switching pixel lie apart (`badpix.science.decide`)
UNIT = "DN/s"

Bool = NDArray[np.bool_]
Place = Callable[[NDArray[Any], Any], NDArray[Any]]


def find_faint(found: Evidence, before: Evidence | None, search: str, place_new: Place, place_old: Place) -> Bool:
    """Pixels of the frame of which the new exposures can't surely say that the old type is gone.

    Parameters
    ----------
    found, before : Evidence
        Of the new science mask, and of the old mask (None without).
    search : str
        ``science_hot``, ...
    place_new, place_old : callable
        Put an image of either window into the frame (image, value elsewhere).
    """
    error = place_new(np.asarray(found.images["science_error"][:, :]), np.nan)
    needed = {"science_mean", "science_height", "science_scatter", "science_bright", "science_error"}
    if before is None or before.science_unit != found.science_unit or not needed <= set(before.images):
        return np.ones(error.shape, bool)

    def old(name: str) -> NDArray[Any]:
        return place_old(np.asarray(before.images[f"science_{name}"][:, :]), np.nan)

    with np.errstate(invalid="ignore"):
        if search == "science_outlier":
            seen = np.zeros(error.shape, bool)
        elif search in ("science_hot", "science_warm", "science_low"):
            limit = abs(_limit(found, search, "science_sigma")) + POWER
            seen = np.abs(old("mean")) > limit * error
        else:
            number, then = len(found.science_exposures), len(before.science_exposures)
            noise = error * np.float32(np.sqrt(number))
            if search == "science_switching":
                part = np.minimum(old("bright"), 1 - old("bright"))
                seen = (old("height") > (APART + POWER) * noise) & (number * part > SEEN)
            else:
                least = _limit(found, search, "science_scatter")
                now = old("scatter") * old("error") * np.float32(np.sqrt(then)) / noise
                seen = now > least + POWER * 1.17 / np.sqrt(number)
    out: Bool = ~seen
    return out


def _limit(found: Evidence, search: str, quantity: str) -> float:
    """What a search compares a quantity with."""
    return next(float(r.limit) for r in found.rules if r.search == search and r.quantity == quantity)


def has_rates(before: Evidence) -> bool:
    """Whether old science exposures measured rates that darks can be compared with."""
    return before.science_unit == UNIT and "science_mean" in before.images and "is_science_hot" in before.images


def read_rates(before: Evidence) -> NDArray[Any]:
    """Excess of candidates in the old science exposures, DN/s; NaN elsewhere."""
    return np.asarray(before.images["science_mean"][:, :])


def is_hot(before: Evidence) -> Bool:
    """Pixels that the old science exposures found hot or warm."""
    hot, warm = (np.asarray(before.images[f"is_science_{name}"][:, :]) != 0 for name in ("hot", "warm"))
    out: Bool = hot | warm
    return out
