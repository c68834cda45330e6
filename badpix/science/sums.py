"""Sums over exposures of all pixels, from the newest to the oldest: weights, clipped residuals, squares, births.

A pixel stands out by its mean, by its mean square, or by any number of newest exposures alone. The latter is looked
at after each of the newest exposures, and after ever larger steps (:data:`STEP`) behind them: a birth between two
looks loses a fifteenth of its significance at the most, less than the decision asks for beyond this limit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLIP = 4.0  # sigma, of the residuals
FEWEST = 3  # newest exposures that make a birth
MEAN_LIMITS = (-3.5, 3.0)  # sigma: candidates by their mean; neighbors of hot pixels lie below theirs, and are many
BORN_LIMIT = 4.2  # sigma: candidates by their newest exposures
SQUARE_SIGMA = 4.0  # of the mean square, over its scatter of sqrt(2 / n)
STEP = 1.15  # of the number of newest exposures from one look at births to the next

Float = NDArray[np.float32]
Index = NDArray[np.intp]


class Found(NamedTuple):
    """Of each pixel: weighted mean, its error, mean square, usable values, and whether it stands out."""

    mean: Float
    error: Float
    square: Float
    usable: NDArray[np.uint16]
    stands_out: NDArray[np.bool_]


class Sums:
    """Running sums of ``number`` exposures over pixels of ``shape``."""

    def __init__(self, shape: tuple[int, ...], number: int) -> None:
        self._above, self._total, self._square, self._part, self._spare = (
            np.zeros(shape, np.float32) for _ in range(5)
        )
        self._count, self._born = np.full(shape, number, np.uint16), np.zeros(shape, bool)
        self._added, self._look = 0, FEWEST

    def add(self, z: Float, weight: Float, unusable: Index) -> None:
        """Add the next older exposure.

        Parameters
        ----------
        z, weight : ndarray of float32
            Residuals in units of the noise, and one over the noise; 0 where not usable.
        unusable : ndarray of int
            Flat indices of the pixels that are not usable.
        """
        part, spare = self._part, self._spare
        np.clip(z, -CLIP, CLIP, out=part)
        self._count.reshape(-1)[unusable] -= 1
        self._square += np.multiply(part, part, out=spare)
        part *= weight
        self._above += part
        self._total += np.multiply(weight, weight, out=part)
        self._added += 1
        if self._added >= self._look:
            self._look = max(self._look + 1, int(self._look * STEP))
            np.multiply(self._above, np.abs(self._above, out=part), out=part)
            self._born |= part > np.multiply(self._total, np.float32(BORN_LIMIT**2), out=spare)

    def finish(self) -> Found:
        """What the sums say."""
        with np.errstate(invalid="ignore", divide="ignore"):
            significance = self._above / np.sqrt(self._total)
            square = np.divide(self._square, self._count, dtype=np.float32)
            stands_out = (significance < MEAN_LIMITS[0]) | (significance > MEAN_LIMITS[1]) | self._born
            stands_out |= square > 1 + SQUARE_SIGMA * np.sqrt(2 / np.maximum(self._count, 1))
            mean, error = self._above / self._total, (1 / np.sqrt(self._total)).astype(np.float32)
        return Found(mean, error, square, self._count, stands_out & (self._count > 0))


def square_limit(number: int) -> float:
    """Mean square above which a pixel of ``number`` values scatters more than its noise."""
    return float(1 + SQUARE_SIGMA * np.sqrt(2 / max(number, 1)))
