"""What simulated IFU exposures look at, and how much light of it each pixel gets.

1. The sky has an extended background with lines, and point sources with a continuum and lines of their own.
2. Each exposure sees it shifted by its dither and blurred by the PSF, through the slices of
   :mod:`badpix.simulation.ifu_optics`.
3. Fringes along the dispersion and errors of the flat field multiply the light, the same in all exposures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.ifu_optics import Optics


@dataclass(frozen=True)
class Sky:
    """What the exposures look at; all strengths in units of the read noise of one pixel."""

    background: float = 15.0
    lines: int = 45
    line_strength: float = 60.0
    sources: int = 3
    brightest: float = 400.0
    fwhm: tuple[float, float] = (2.4, 2.0)  # pixels along the slice, slices
    dither: float = 3.0  # largest shift along the slice, pixels; 0: no dither
    fringes: float = 0.02
    flat_error: float = 0.005
    poisson: float = 0.08  # variance of one unit of light, read-noise units squared
    knots: int = 0  # sources that emit lines alone, all the same ones
    knot_strength: float = 300.0  # mean of their strongest lines


FLAT = Sky(lines=0, sources=0, fringes=0.0, flat_error=0.0, poisson=0.0)
BRIGHT = Sky(brightest=4000.0, fwhm=(1.6, 1.4), line_strength=200.0, flat_error=0.01)
SCENES = {
    "spectra": Sky(),
    "bright": BRIGHT,
    "flat": FLAT,
    "sharp": Sky(brightest=6000.0, fwhm=(1.1, 1.2)),
    "lines": Sky(lines=90, line_strength=600.0, brightest=100.0),
    "knots": Sky(knots=60),
    "half-bad": Sky(brightest=2000.0),
}


def without_dither(sky: Sky) -> Sky:
    """The same sky, seen by exposures with one pointing."""
    return replace(sky, dither=0.0)


@dataclass(frozen=True)
class Scene:
    """Spectra in units of the read noise, along the dispersion and a margin on either side."""

    background: np.ndarray  # a spectrum, 4 samples a pixel
    sources: list[tuple[float, float, NDArray[Any]]]  # position along the slice, slice, spectrum


_SAMPLES = 4
_MARGIN = 40  # pixels by which spectra are longer than the detector


def make_scene(rng: np.random.Generator, sky: Sky, optics: Optics) -> Scene:
    """Background, sources, each a third as bright as the one before, and knots; drawn from ``rng``."""
    ny = optics.strip.shape[0]
    grid = np.arange(-_MARGIN, ny + _MARGIN, 1 / _SAMPLES)
    slope = 1 + 0.5 * (grid / ny - 0.5)
    background = sky.background * slope + _lines(rng, grid, ny, sky.lines, sky.line_strength)
    sources = []
    for i in range(sky.sources):
        strength = sky.brightest * 0.3**i
        spectrum = strength * (1 + 0.6 * (grid / ny - 0.5)) + _lines(rng, grid, ny, sky.lines, 1.5 * strength)
        across = (optics.strips / max(1, round(optics.strips / 20))) * (0.3 + 0.4 * rng.random())
        sources.append((float(rng.uniform(-5, 5)), float(across), spectrum))
    if sky.knots:
        shared = _lines(rng, grid, ny, max(1, sky.lines // 4), 2.0)
        for _ in range(sky.knots):
            along, across, strength = rng.uniform(-10, 10), rng.uniform(0, optics.strips), rng.exponential(1.0)
            sources.append((float(along), float(across), sky.knot_strength * strength * shared))
    return Scene(background, sources)


def _lines(rng: np.random.Generator, grid: NDArray[Any], ny: int, count: int, strength: float) -> NDArray[Any]:
    out = np.zeros_like(grid)
    for _ in range(count):
        center, width = rng.uniform(0, ny), rng.uniform(0.9, 1.6)
        out += strength * rng.exponential(0.5) * np.exp(-0.5 * ((grid - center) / width) ** 2)
    return out


def dither(i: int, exposures: int, reach: float) -> tuple[float, float]:
    """Shift of exposure ``i`` along the slice (pixels) and across (slices)."""
    if reach == 0 or exposures == 1:
        return 0.0, 0.0
    corners = [(-1.0, -0.8), (0.6, 0.7), (-0.5, 0.9), (1.0, -0.5)]
    a, b = corners[i % 4]
    fade = 1 - 0.15 * (i // 4)
    return reach * a * fade, b * fade


def look(scene: Scene, optics: Optics, sky: Sky, i: int, exposures: int) -> NDArray[Any]:
    """Light on the detector in one exposure.

    Parameters
    ----------
    scene, optics, sky
        What is looked at, through what; of ``sky``, the dither and the PSF.
    i, exposures : int
        Which exposure, of how many: they make its dither.

    Returns
    -------
    float32 array (dispersion, spatial)
        In units of the read noise, without fringes, errors of the flat field and noise.
    """
    sample = ((optics.wave + _MARGIN) * _SAMPLES).clip(0, scene.background.size - 1.001)
    low = sample.astype("i4")
    part = (sample - low).astype("f4")

    def spectrum_at(spectrum: NDArray[Any]) -> NDArray[Any]:
        s = spectrum.astype("f4")
        found: NDArray[Any] = s[low] * (1 - part) + s[low + 1] * part
        return found

    light = spectrum_at(scene.background)
    da, db = dither(i, exposures, sky.dither)
    sigma_a, sigma_b = (w / 2.3548 for w in sky.fwhm)
    for along, across, spectrum in scene.sources:
        profile = np.exp(-0.5 * ((optics.along - along - da) / sigma_a) ** 2)
        profile *= np.exp(-0.5 * ((optics.strip - across - db) / sigma_b) ** 2)
        light += np.nan_to_num(profile) * spectrum_at(spectrum)
    light *= optics.edge
    return light


def make_response(rng: np.random.Generator, sky: Sky, optics: Optics) -> NDArray[Any]:
    """Fringes along the dispersion and errors of the flat field: the same in all exposures."""
    fringes = sky.fringes * np.sin(2 * np.pi * optics.wave / (9 + 0.2 * optics.strip))
    flat = rng.normal(0, sky.flat_error, optics.strip.shape)
    return (1 + fringes + flat).astype("f4")
