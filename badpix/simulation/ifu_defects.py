"""Defects of simulated IFU exposures that the calibration does not know: where, how strong, in which exposures.

1. Bad in all exposures, or in some of them: single pixels, with log-uniform strengths in units of the noise, some of
   them negative.
2. Cosmic rays in one exposure: short straight tracks at any angle.

:data:`KINDS` are the bits by which the truth tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bits of the truth map.
KINDS = {"in_all": 1, "in_some": 2, "cosmic_ray": 4, "in_slice": 8, "off_here": 16}


@dataclass(frozen=True)
class Defects:
    """How many defects there are (share of the pixels) and how strong they are (log-uniform, sigma)."""

    in_all: float = 0.003
    in_some: float = 0.001
    in_half: float = 0.0  # the same, in exactly half of the exposures
    cosmic_rays: float = 0.0005  # tracks per pixel
    known: float = 0.003
    range_all: tuple[float, float] = (5.0, 800.0)
    range_some: tuple[float, float] = (5.0, 300.0)
    range_rays: tuple[float, float] = (5.0, 500.0)
    negative: float = 0.15
    most: int = 0  # largest number of exposures that a pixel "in some" is bad in; 0: all but one


HALF_BAD = 0.003  # share of pixels bad in half of the exposures, in the scene of that name


def with_strength(defects: Defects, span: tuple[float, float]) -> Defects:
    """The same number of defects, all with one range of strengths (sigma) and none negative."""
    return replace(defects, range_all=span, range_some=span, range_rays=span, negative=0.0)


def _amplitudes(rng: np.random.Generator, n: int, span: tuple[float, float], negative: float) -> NDArray[Any]:
    low, high = np.log(span)
    strength = np.exp(rng.uniform(low, high, n))
    down = rng.random(n) < negative
    return np.where(down, -np.maximum(strength / 3, span[0]), strength).astype("f4")


def draw_persistent(
    rng: np.random.Generator, defects: Defects, shape: tuple[int, int], exposures: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Pixels that are bad in all or some exposures.

    Returns
    -------
    amplitude : float32 array (ny, nx)
        Strength, sigma; 0 elsewhere.
    kind : uint8 array (ny, nx)
        Bits of :data:`KINDS`.
    on : bool array (exposures, ny, nx)
        In which exposures they are bad.
    """
    amplitude, kind = np.zeros(shape, "f4"), np.zeros(shape, "u1")
    on = np.zeros((exposures, *shape), bool)
    draw = rng.random(shape)
    everywhere = np.flatnonzero(draw < defects.in_all)
    some = np.flatnonzero((draw >= defects.in_all) & (draw < defects.in_all + defects.in_some))
    amplitude.flat[everywhere] = _amplitudes(rng, everywhere.size, defects.range_all, defects.negative)
    kind.flat[everywhere] = KINDS["in_all"]
    on.reshape(exposures, -1)[:, everywhere] = True
    if exposures > 1:
        amplitude.flat[some] = _amplitudes(rng, some.size, defects.range_some, defects.negative)
        kind.flat[some] = KINDS["in_some"]
        most = min(defects.most or exposures - 1, exposures - 1)
        often = rng.integers(1, most + 1, some.size)
        order = rng.random((exposures, some.size)).argsort(axis=0)
        on.reshape(exposures, -1)[:, some] = order < often
        if defects.in_half:
            start = defects.in_all + defects.in_some
            half = np.flatnonzero((draw >= start) & (draw < start + defects.in_half))
            amplitude.flat[half] = _amplitudes(rng, half.size, defects.range_some, defects.negative)
            kind.flat[half] = KINDS["in_some"]
            order = rng.random((exposures, half.size)).argsort(axis=0)
            on.reshape(exposures, -1)[:, half] = order < exposures // 2
    return amplitude, kind, on


def draw_rays(rng: np.random.Generator, defects: Defects, amplitude: NDArray[Any]) -> NDArray[Any]:
    """Add cosmic-ray tracks to ``amplitude``.

    Parameters
    ----------
    rng, defects
        What is drawn from, and how many tracks of which strengths.
    amplitude : float32 array (ny, nx)
        Strength of the defects, sigma; changed in place.

    Returns
    -------
    uint8 array (ny, nx)
        ``KINDS["cosmic_ray"]`` where a track hit.
    """
    ny, nx = amplitude.shape
    n = rng.poisson(defects.cosmic_rays * ny * nx)
    strength = _amplitudes(rng, n, defects.range_rays, 0.0)
    y, x = rng.uniform(0, ny, n), rng.uniform(0, nx, n)
    angle, length = rng.uniform(0, np.pi, n), rng.exponential(2.5, n)
    hit = np.zeros(amplitude.shape, "u1")
    for step in np.linspace(0, 1, 24):
        iy = np.floor(y + step * length * np.sin(angle)).astype(int)
        ix = np.floor(x + step * length * np.cos(angle)).astype(int)
        inside = (iy >= 0) & (iy < ny) & (ix >= 0) & (ix < nx)
        new = inside.copy()
        new[inside] = hit[iy[inside], ix[inside]] == 0
        amplitude[iy[new], ix[new]] += strength[new] * rng.uniform(0.4, 1.0, n)[new]
        hit[iy[new], ix[new]] = KINDS["cosmic_ray"]
    return hit
