"""Light of the lamp on a simulated detector: relative to its bright parts, by instrument mode and filter.

1. ``imager``: a smooth gradient. ``wedge``: on it an occulting bar, neutral-density squares and the edge of a mask
   holder, as in NIRCam's coronagraphs. ``spots``: round occulting spots, a frame and its supports, as MIRI has them.
   ``void``: areas of soft edge that respond by 42 % less, as epoxy voids do.
2. ``mrs``, ``ifu``: slices that bend, with gaps; fringes in the first. ``slits``: five long slits. ``mos``: traces of
   open shutters, five pixels each, some in threes with bars between them. ``lrs``, ``soss``: one and two traces.
   Across them the light is sharp, softened by the optics; along them it has the spectrum of the lamp.
3. Filters (bands, gratings) differ in gradient, level and spectrum, and shift slices and traces.
4. :func:`find_light` says what of it is lit, dim and unlit.

Geometry in pixels, so that small detectors have fewer slices. Sources: JWST User Documentation (MIRI MRS, LRS and
imaging masks; NIRSpec IFU, MOS and fixed slits; NIRISS SOSS; NIRCam coronagraphic occulters).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import UsageError
from badpix.simulation.recipe import Recipe

Float = NDArray[np.float32]
Wide = NDArray[np.float64]

DETECTORS = {  # of instruments that have such light
    "mrs": ("MIRIFULONG", "MIRIFUSHORT"),
    "lrs": ("MIRIMAGE",),
    "ifu": ("NRS1", "NRS2"),
    "slits": ("NRS1", "NRS2"),
    "mos": ("NRS1", "NRS2"),
    "soss": ("NIS",),
}
NAMES = ("imager", "mrs", "ifu", "slits", "mos", "wedge", "spots", "lrs", "soss", "void")
STRAY = 0.002  # light that falls everywhere, where the rest is sharp
LEVELS = (1.0, 0.8, 0.6, 0.9, 0.7, 0.5)  # of the filters, one after the other
REFERENCE, LIT, DIM, UNLIT = range(4)  # values of the image LIGHT of the truth
STATES = {LIT: "lit", DIM: "dim", UNLIT: "unlit"}
DIM_BELOW, UNLIT_BELOW = 0.1, 0.01  # of the bright light


def check_light(recipe: Recipe) -> None:
    """Make sure that the detector sees such light.

    Raises
    ------
    UsageError
        If it does not.
    """
    able = DETECTORS.get(recipe.illumination)
    if able is not None and recipe.detector.name not in able:
        raise UsageError(
            f"illumination {recipe.illumination}: {recipe.detector.name} sees no such light; {' or '.join(able)} does"
        )


def measure_illumination(recipe: Recipe, number: int = 0) -> Float:
    """Relative light of the lamp over the frame: (ny, nx).

    Parameters
    ----------
    recipe : Recipe
        Detector, window, ``illumination``.
    number : int
        Of the filter.
    """
    if recipe.illumination == "imager":
        return measure_gradient(recipe, number)
    rng = np.random.default_rng((recipe.seed, 77))  # of the optics, the same in all filters
    y, x = (grid.astype(np.float64) for grid in np.indices(recipe.shape))
    y, x = y + recipe.window.ystart - 1, x + recipe.window.xstart - 1
    light = LIGHTS[recipe.illumination](y, x, recipe.detector.shape, number, rng)
    if recipe.illumination in ("wedge", "spots", "void"):
        light *= measure_gradient(recipe, number)
    else:
        light *= LEVELS[number % len(LEVELS)]
    return np.asarray(light + STRAY, np.float32)


def measure_gradient(recipe: Recipe, number: int = 0) -> Float:
    """A smooth gradient, mean about the filter's level."""
    ny, nx = recipe.shape
    y = np.linspace(-1, 1, ny, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, nx, dtype=np.float32)[None, :]
    if number == 0:
        return np.asarray(1 + 0.12 * x - 0.08 * y - 0.06 * (x * x + y * y - 0.67), dtype=np.float32)
    turned = np.cos(2.4 * number) * x + np.sin(2.4 * number) * y
    gradient = 1 + 0.12 * turned - 0.06 * (x * x + y * y - 0.67)
    return np.asarray(LEVELS[number % len(LEVELS)] * gradient, dtype=np.float32)


def find_light(recipe: Recipe, reference: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What each pixel gets in the filter that gives it most: lit, dim or unlit, of that filter's bright light."""
    best = np.zeros(recipe.shape)
    for number in range(max(len(recipe.filters), 1)):
        light = measure_illumination(recipe, number).astype(np.float64)
        bright = light[light > 0.05 * light.max()]
        best = np.maximum(best, (light - STRAY) / np.quantile(bright, 0.95))
    state = np.where(best < UNLIT_BELOW, UNLIT, np.where(best < DIM_BELOW, DIM, LIT)).astype(np.uint8)
    state[reference] = REFERENCE
    return state


def band(u: Wide, width: Any, soft: float) -> Wide:
    """Light across a slit of that width around u = 0, softened by a Gaussian of that standard deviation, pixels."""
    from scipy.special import ndtr

    out: Wide = ndtr((u + width / 2) / soft) - ndtr((u - width / 2) / soft)
    return out


def spectrum(v: Wide, number: int, rng: np.random.Generator, lines: int, width: float, length: int) -> Wide:
    """Light of the lamp along the dispersion, 0 to 1 of the detector: a continuum, absorption and emission."""
    slope, bend = rng.uniform(-0.5, 0.5, 2)
    out: Wide = 0.75 + (slope + 0.2 * np.sin(2.0 * number)) * (v - 0.5) - 0.5 * (1 + bend) * (v - 0.45) ** 2
    for _ in range(lines):
        center, depth = rng.uniform(0, 1), rng.uniform(-0.35, 0.25)
        out *= 1 + depth * np.exp(-0.5 * ((v - center - 0.03 * number) * length / width) ** 2)
    return out


# --- 1: images -------------------------------------------------------------------------------------------


def light_wedge(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """An occulting bar that widens along x, squares of neutral density, and the holder's edge above them."""
    ny, nx = shape
    side = min(90.0, nx / 6)
    light = 1 - band(y - 0.45 * ny, 4 + 26 * x / nx, 1.2 + 0.1 * number)
    for center in (0.2, 0.5, 0.8):
        square = band(y - 0.75 * ny, side, 1.0) * band(x - center * nx, side, 1.0)
        light *= 1 - 0.998 * square
    edge = 0.75 * ny + side / 2 + 12
    light *= 1 - band(y - (edge + ny), 2 * ny, 0.9) * band(x - 0.5 * nx, 0.7 * nx, 0.9)
    return light


def light_spots(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """A frame with a support, a spot on it and two without."""
    ny, nx = shape
    inner = band(y - 0.5 * ny, 0.9 * ny, 1.5) * band(x - 0.5 * nx, 0.94 * nx, 1.5)
    light = inner * (1 - band(x - 0.3 * nx, max(nx / 40, 6.0), 1.5))
    for cy, cx, radius in ((0.3, 0.6, nx / 40), (0.7, 0.8, nx / 25), (0.6, 0.15, nx / 15)):
        light *= 1 - band(np.hypot(y - cy * ny, x - cx * nx), 2 * radius, 1.5 + 0.3 * number)
    return light


def light_void(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """Areas of 15 to 40 pixels' radius that are 42 % deep, with edges of five pixels."""
    light = np.ones(y.shape)
    for _ in range(max(shape[0] * shape[1] // 400_000, 2)):
        cy, cx = (rng.uniform(0.15, 0.85) * n for n in shape)
        radius = rng.uniform(15, 40) * (1 + 0.2 * np.sin(3 * np.arctan2(y - cy, x - cx)))
        light *= 1 - 0.42 * band(np.hypot(y - cy, x - cx), 2 * radius, 5.0)
    return light


# --- 2: dispersed light ----------------------------------------------------------------------------------


def light_mrs(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """Two channels side by side: slices of 19 and 26 pixels, bent by up to 14, with fringes."""
    ny, nx = shape
    v, light = y / ny, np.zeros(y.shape)
    for channel, (pitch, width, period) in enumerate(((23.0, 19.0, 13.0), (31.0, 26.0, 24.0))):
        own = spectrum(v, number + 2 * channel, rng, 3, 6.0, ny)
        left = channel * nx / 2 + 14
        tilt, bend = rng.uniform(-4, 4), rng.uniform(6, 14) * (1 if channel else -1)
        for k in range(max(int((nx / 2 - 18) // pitch), 1)):
            level, phase = rng.uniform(0.8, 1.0), rng.uniform(0, 2 * np.pi)
            middle = left + (k + 0.5) * pitch + 1.5 * number
            near = (slice(None), np.abs(x[0] - middle) < pitch / 2 + 12)
            u = x[near] - middle - tilt * (v[near] - 0.5) - bend * (v[near] - 0.5) ** 2
            fringes = 1 + 0.12 * np.sin(2 * np.pi * (y[near] + 0.12 * u) / period + phase)
            light[near] += level * own[near] * fringes * band(u, width, 0.8) * (1 + 0.06 * u / width)
    return light


def light_ifu(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """Slices of 30 pixels along x with gaps of 26, tilted and bent by a few."""
    return add_traces(y, x, shape, number, rng, np.arange(40.0, shape[0] - 30, 56.0), 30.0, 0.7)


def light_slits(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """Up to five slits: three of 32, one of 38 and one of 16 pixels."""
    rows: Wide = 0.15 * shape[0] + max(0.17 * shape[0], 62.0) * np.arange(5.0)
    rows = rows[rows < shape[0] - 20]
    return add_traces(y, x, shape, number, rng, rows, np.array([32.0, 32.0, 38.0, 16.0, 32.0])[: len(rows)], 0.7)


def light_mos(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """Open shutters: a trace of five pixels each, every third one a slitlet of three; they begin and end anywhere."""
    rows = np.arange(20.0, shape[0] - 20, 22.0) + rng.uniform(-4, 4, len(np.arange(20.0, shape[0] - 20, 22.0)))
    light = np.zeros(y.shape)
    for k, row in enumerate(rows):
        offsets = (-5.2, 0.0, 5.2) if k % 3 == 0 else (0.0,)
        first, last = rng.uniform(-0.2, 0.25), rng.uniform(0.75, 1.2)
        cut = np.broadcast_to(band(x[0] / shape[1] - (first + last) / 2, last - first, 2.0 / shape[1]), x.shape)
        tilt, bend, level = rng.uniform(-5, 5), rng.uniform(2, 8), rng.uniform(0.4, 1.0)
        near = np.abs(y[:, 0] - row) < 20
        v = x[near] / shape[1]
        own = level * cut[near] * spectrum(v, number, rng, 3, 3.0, shape[1])
        middle = row + number + tilt * (v - 0.5) + bend * (v - 0.5) ** 2
        for offset in offsets:
            light[near] += own * band(y[near] - middle - offset, 4.6, 0.6)
    return light


def light_lrs(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """One slit of 43 pixels whose spectrum fills the lower two fifths of the rows, and leans a little."""
    v = y / shape[0]
    lit = band(v - 0.2, 0.38, 4.0 / shape[0])
    return lit * band(x - 0.32 * shape[1] - 3 * v, 43.0, 0.8) * spectrum(2.5 * v, number, rng, 2, 5.0, shape[0])


def light_soss(y: Wide, x: Wide, shape: tuple[int, int], number: int, rng: np.random.Generator) -> Wide:
    """Two orders, 24 pixels wide, bent."""
    v = x / shape[1]
    first, second = shape[0] * 0.35 + 40 * (v - 0.4) ** 2, shape[0] * 0.6 + 60 * (v - 0.3) ** 2 - 20 * v
    out: Wide = band(y - first, 24.0, 1.0) * spectrum(v, number, rng, 2, 4.0, shape[1])
    return out + 0.5 * band(y - second, 24.0, 1.0) * spectrum(v, number, rng, 2, 4.0, shape[1]) * (v < 0.8)


def add_traces(
    y: Wide,
    x: Wide,
    shape: tuple[int, int],
    number: int,
    rng: np.random.Generator,
    rows: Wide,
    width: Any,
    soft: float,
) -> Wide:
    """Traces along x around these rows, (n,), of these widths, each with its own level and bend."""
    v, light = x / shape[1], np.zeros(y.shape)
    own = spectrum(v, number, rng, 4, 4.0, shape[1])
    for row, wide in zip(rows, np.broadcast_to(width, rows.shape), strict=True):
        tilt, bend, level = rng.uniform(-6, 6), rng.uniform(-6, 6), rng.uniform(0.7, 1.0)
        near = np.abs(y[:, 0] - row) < wide / 2 + 16
        u = y[near] - (row + number + tilt * (v[near] - 0.5) + bend * (v[near] - 0.5) ** 2)
        light[near] += level * own[near] * band(u, wide, soft)
    return light


LIGHTS = {
    "wedge": light_wedge,
    "spots": light_spots,
    "void": light_void,
    "mrs": light_mrs,
    "ifu": light_ifu,
    "slits": light_slits,
    "mos": light_mos,
    "lrs": light_lrs,
    "soss": light_soss,
}
