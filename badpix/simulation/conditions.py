"""Conditions that make simulated exposures harsher (:data:`badpix.settings.simulate.CONDITIONS`): frame by frame.

1. Of the detector: noise by output and by place, glow, voids, settling that differs from pixel to pixel
   (:func:`measure_conditions`).
2. Of a dark: its dark current over the usual one (:func:`measure_scale`), rates of the pixels that change
   (:mod:`badpix.simulation.histories`), charge of a bright field that is released (:func:`measure_trapped`).
3. Of the noise: tails (:func:`draw_noise`). Of particles: :mod:`badpix.simulation.hits`.

Every condition draws from random streams of its own, so one changes nothing of what the others and the defects drew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.defects import DEFECT, Defects
from badpix.simulation.recipe import Recipe

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]

OUTPUT_NOISE = (0.8, 1.0, 1.25, 1.6)  # read noise of the four outputs over the mean one
FRAME = 0.6, 0.05  # more read noise at the border, and its scale length in parts of the frame
GLOW, GLOW_COLUMNS = 20.0, 8.0  # times the usual dark current + 0.02 e/s, at the side; its scale length
LEAK, LEAK_PIXELS = 8.0, 25.0  # the same of a light leak
VOID_RESPONSE = 0.58
SETTLING_SPREAD = 0.5  # of the usual settling
WARMTH = float(np.log(0.6)), float(np.log(2.5))  # range of a dark's dark current over the usual one
WARM_SET = 1.8
DEGREES = {"heavy_tails": 4, "tails": 10}
COVERED = 0.04  # part of the frame that the bright field's stars cover
TRAPPED = 3000.0  # e in the middle of a star
RELEASE = ((0.7, 0.7), (0.3, 4.0))  # parts of the trapped charge, and the darks after which 1/e of it is left
NOTICED = 15.0  # e released in the first dark from which on a pixel counts as affected


@dataclass(frozen=True)
class Maps:
    """What the conditions make of a detector: factors of ``noise`` and ``response``, ``glow`` in e/s, ``settling``
    relative to the usual one, charge ``trapped`` of a bright field in e; (ny, nx) float32, None where usual."""

    noise: Float | None = None
    response: Float | None = None
    glow: Float | None = None
    settling: Float | None = None
    trapped: Float | None = None


USUAL = Maps()


def measure_conditions(recipe: Recipe, amplifier: NDArray[np.uint8], rng: np.random.Generator) -> Maps:
    """The maps of a detector under its conditions."""
    parts = rng.spawn(5)
    has = recipe.conditions.__contains__
    noise = np.ones(recipe.shape, np.float32)
    if has("outputs"):
        noise *= np.array(OUTPUT_NOISE, np.float32)[parts[0].permutation(4)][amplifier]
    if has("places"):
        noise *= measure_frame(recipe.shape)
    return Maps(
        noise=noise if has("outputs") or has("places") else None,
        response=make_voids(recipe.shape, parts[1]) if has("voids") else None,
        glow=make_glow(recipe, parts[2]) if has("glow") else None,
        settling=1 + np.float32(SETTLING_SPREAD) * parts[3].standard_normal(recipe.shape, np.float32)
        if has("unreset")
        else None,
        trapped=make_bright_field(recipe.shape, parts[4]) if has("persistence") else None,
    )


def measure_frame(shape: tuple[int, int]) -> Float:
    """A picture frame: more noise toward the borders."""
    more, length = FRAME
    y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) / (n * length) for n in shape)
    return (1 + more * np.exp(-np.minimum(y[:, None], x[None, :]))).astype(np.float32)


def make_glow(recipe: Recipe, rng: np.random.Generator) -> Float:
    """Glow along the left side, and a light leak somewhere: e/s."""
    unit = recipe.physics.dark + 0.02
    ny, nx = recipe.shape
    y, x = np.mgrid[:ny, :nx].astype(np.float32)
    center = rng.uniform(0.3, 0.8, 2) * recipe.shape
    length = LEAK_PIXELS * min(ny, nx) / 512
    leak = LEAK * np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * length**2))
    return np.asarray(unit * (GLOW * np.exp(-x / GLOW_COLUMNS) + leak), np.float32)


def make_voids(shape: tuple[int, int], rng: np.random.Generator) -> Float:
    """Two areas of less response, ellipses: a factor."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    out = np.ones(shape, np.float32)
    for _ in range(2):
        center, axes = rng.uniform(0.15, 0.85, 2) * shape, rng.uniform(0.02, 0.05, 2) * min(shape)
        inside = ((y - center[0]) / axes[0]) ** 2 + ((x - center[1]) / axes[1]) ** 2 < 1
        out[inside] = VOID_RESPONSE
    return out


def make_bright_field(shape: tuple[int, int], rng: np.random.Generator) -> Float:
    """Charge that stars have left in traps, e."""
    out, ny, nx = np.zeros(shape, np.float32), *shape
    while np.count_nonzero(out > NOTICED) < COVERED * ny * nx:
        radius, peak = rng.uniform(0.7, 2.5), TRAPPED * np.exp(rng.normal())
        reach = int(4 * radius) + 1
        y, x = int(rng.integers(ny)), int(rng.integers(nx))
        rows, columns = slice(max(y - reach, 0), y + reach + 1), slice(max(x - reach, 0), x + reach + 1)
        distance = np.hypot(np.arange(ny)[rows, None] - y, np.arange(nx)[None, columns] - x)
        out[rows, columns] += (peak * np.exp(-((distance / radius) ** 2) / 2)).astype(np.float32)
    return out


def measure_scale(recipe: Recipe, number: int, rng: np.random.Generator) -> float:
    """Dark current of a dark over the usual one; in sets of darks one set is warm."""
    if "temperature" not in recipe.conditions:
        return 1.0
    if recipe.sets:
        return WARM_SET if recipe.set_of(number) == recipe.sets // 4 else 1.0
    return float(np.exp(rng.uniform(*WARMTH)))


def bright_set(recipe: Recipe) -> int:
    """The set that follows a bright field: the first, of sets of darks one in the middle."""
    return recipe.sets // 2 if recipe.sets else 0


def measure_release(recipe: Recipe, number: int, integration: int, times: NDArray[np.float64]) -> Float:
    """Part of the trapped charge that is released until each time (s) within an integration: (groups,)."""
    start = (recipe.start_of("dark", number) - recipe.start_of("dark", first_dark(recipe))).total_seconds()
    if start < 0 or "persistence" not in recipe.conditions:
        return np.zeros(len(times), np.float32)
    length = recipe.group_time * recipe.groups("dark")
    begin = (start + integration * length) / recipe.cadence
    out = np.zeros(len(times))
    for part, after in RELEASE:
        out += part * (np.exp(-begin / after) - np.exp(-(begin + times / recipe.cadence) / after))
    return out.astype(np.float32)


def first_dark(recipe: Recipe) -> int:
    """Number of the first dark behind the bright field."""
    return next(
        k for k in range(1, recipe.darks + 1) if recipe.sets is None or recipe.set_of(k) == bright_set(recipe)
    )


def find_affected(recipe: Recipe, trapped: Float, free: Bool) -> Defects:
    """The pixels in which the first dark behind a bright field shows the charge: rows of type PERSISTENCE."""
    released = measure_release(recipe, first_dark(recipe), 0, recipe.group_times("dark")[-1:])[0]
    y, x = np.nonzero(free & (trapped * released > NOTICED))
    rows = np.zeros(len(y), DEFECT)
    rows["type"], rows["y"], rows["x"], rows["setting"] = "PERSISTENCE", y, x, "isolated"
    rows["extra1"] = trapped[y, x] * released
    return Defects(rows)


def find_voids(response: Float, free: Bool) -> Defects:
    """The pixels of areas of low response: rows of type VOID."""
    y, x = np.nonzero(free & (response < 1))
    rows = np.zeros(len(y), DEFECT)
    rows["type"], rows["y"], rows["x"], rows["setting"], rows["level"] = "VOID", y, x, "isolated", VOID_RESPONSE
    return Defects(rows)


def draw_noise(recipe: Recipe, out: Float, rng: np.random.Generator) -> None:
    """Random numbers of variance 1, in place: Gaussian, or with tails."""
    degrees = next((n for name, n in DEGREES.items() if name in recipe.conditions), None)
    if degrees is None:
        rng.standard_normal(out=out, dtype=np.float32)
    else:
        out[...] = rng.standard_t(degrees, out.shape) * np.sqrt((degrees - 2) / degrees)
