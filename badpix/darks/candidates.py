"""The table of candidates, with the charge that neighbors leak into them taken off."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from badpix.darks import searches
from badpix.darks.scores import Population, Setup, score_pixels
from badpix.darks.stats import Stats
from badpix.detectors import Detector
from badpix.io.spill import DiskTable
from badpix.numerics import neighbors
from badpix.numerics.ipc import ratio_of
from badpix.settings.darks import DarkDataSettings

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Candidates:
    """The table of candidates: where they lie, statistics, scores, values by integration and by step in time."""

    places: neighbors.Places
    pixels: Stats
    scores: Stats
    samples: dict[str, DiskTable] = field(default_factory=dict)
    series: dict[str, Float] = field(default_factory=dict)


def choose_ipc(detector: Detector, rate: Float, population: Population, p: DarkDataSettings) -> tuple[float, str]:
    """Inter-pixel capacitance: as given, as measured, or the detector's usual value; and a note."""
    if p.ipc is not None:
        return float(p.ipc), f"IPC {p.ipc:.4f} as given"
    measured, pixels = searches.measure_ipc(rate, population.rate_spread)
    if np.isfinite(measured):
        return measured, f"IPC {measured:.4f}, measured on {pixels} hot pixels"
    usual = ratio_of(detector.ipc)
    return (
        usual,
        f"IPC {usual:.4f}, the detector's usual value: {pixels} isolated hot pixels are too few to measure it",
    )


def correct(table: Candidates, setup: Setup, population: Population, ipc: float) -> Candidates:
    """Candidates with leaked charge taken off their linear numbers, and their scores."""
    linear = ["hot_rate", "rate", *(t + s for t in setup.templates for s in ("", "_median"))]
    pixels = dict(table.pixels)
    for name in linear:
        pixels[name] = searches.correct_ipc(pixels[name], table.places, ipc)
    return replace(table, pixels=pixels, scores=score_pixels(pixels, setup, population))
