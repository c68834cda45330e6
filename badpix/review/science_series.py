"""Pixels of science exposures in the order of time: which are shown, and their series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Evidence
from badpix.review import choose

DRAWN = ("science_hot", "science_warm", "science_low", "science_noisy", "science_switching")


def find_strongest(evidence: Evidence, search: str, shape: tuple[int, int], number: int) -> list[tuple[int, int]]:
    """The pixels of a type with a series that lie farthest beyond its limits: x, y of the image."""
    samples, found = evidence.samples.get("science_excess"), evidence.images.get(f"is_{search}")
    if samples is None or found is None:
        return []
    mine = np.flatnonzero(np.asarray(found[:, :])[samples.y, samples.x])
    far = choose.measure_excess(evidence, search, shape)[samples.y[mine], samples.x[mine]]
    best = mine[np.argsort(-far, kind="stable")[:number]]
    return [(int(samples.x[k]), int(samples.y[k])) for k in best]


def read_series(evidence: Evidence, x: int, y: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Excess and significance of a pixel that has a series, by exposure."""
    samples = evidence.samples["science_excess"]
    here = int(np.flatnonzero((samples.x == x) & (samples.y == y))[0])
    return samples.values[here], evidence.samples["science_z"].values[here]
