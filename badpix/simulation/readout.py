"""What the readout of a simulated detector adds to its ramps: offsets and 1/f noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.recipe import Physics, Recipe

Float = NDArray[np.float32]


def measure_start(physics: Physics, ngroups: int) -> Float:
    """What all pixels share at the start of an integration, (ngroups,) DN: settling and the first frame's offset."""
    start = -physics.start_drift * np.exp(-np.arange(ngroups) / 4)
    start[0] += physics.first_frame
    return start.astype(np.float32)


def make_drift(recipe: Recipe, ngroups: int, rng: np.random.Generator) -> Float:
    """Offsets of the readout, (ngroups, slow axis, 4 amplifiers), in DN.

    1/f noise that all amplifiers share, 1/f noise of each, and a slow random walk of each amplifier's level.
    """
    nslow = recipe.shape[0] if abs(recipe.detector.fastaxis) == 1 else recipe.shape[1]
    size = ngroups * nslow
    shaping = 1 / np.sqrt(np.maximum(np.fft.rfftfreq(size) * size, 1))

    def pink() -> NDArray[np.float64]:
        spectrum = np.fft.rfft(rng.normal(size=size)) * shaping
        spectrum[0] = 0
        wave = np.fft.irfft(spectrum, size)
        return np.asarray(wave / wave.std())

    common, out = pink(), np.empty((ngroups, nslow, 4), np.float32)
    for k in range(4):
        walk = np.cumsum(rng.normal(scale=1.5, size=ngroups)) + rng.normal(scale=20)
        wave = recipe.physics.drift * (0.8 * common + 0.6 * pink())
        out[:, :, k] = wave.reshape(ngroups, nslow) + walk[:, None]
    return out
