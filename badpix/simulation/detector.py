"""Simulated JWST ramps with known defects: the physics of one detector, arrays only.

1. A recipe (:mod:`badpix.simulation.recipe`) says what is made; :func:`make_scene` turns it into the maps of one
   detector: bias, read noise, dark current, response, full well, and the defects put into them
   (:mod:`badpix.simulation.defects`).
2. :func:`prepare_exposure` draws what concerns whole frames of one exposure: amplifier offsets and 1/f noise
   (they follow the readout, so they need the frame), cosmic rays with tracks, the noise of the reference
   pixels, the lamp's level.
3. :func:`ramp_rows` gives the raw ramps of a band of rows: charge of light, dark current, cosmic rays, settling
   and switching defects; shot noise; full well; inter-pixel capacitance (five points); gain; bias, reset noise,
   drift, read noise; rounded to 16-bit DN.

Every row of every integration has a random stream of its own, so the same numbers come out for any band height,
any order and any number of workers. The response is linear and the shot noise Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.detectors import amplifier_map, measure_border
from badpix.numerics import ipc
from badpix.simulation import conditions, histories
from badpix.simulation.conditions import USUAL, Maps
from badpix.simulation.defects import NOISY_LIMIT, Defects, place_defects
from badpix.simulation.histories import History
from badpix.simulation.hits import make_cosmic_rays
from badpix.simulation.illumination import measure_illumination
from badpix.simulation.readout import make_drift, measure_start
from badpix.simulation.recipe import Recipe

Float = NDArray[np.float32]

# Streams of random numbers: the second word of every seed.
MAPS, PLACES, FRAME, ROWS, TELEGRAPHS, CONDITIONS = range(6)


@dataclass(frozen=True)
class Scene:
    """The maps of one simulated detector; all (ny, nx) float32 unless said otherwise."""

    recipe: Recipe
    reference: NDArray[np.bool_]
    amplifier: NDArray[np.uint8]
    bias: Float  # DN, defects included
    superbias: Float  # DN, as a reference file knows it: without the low pedestals, with a little noise
    read_noise: Float  # DN, one group, defects included
    known_noise: Float  # DN, one group, as a reference file knows it: without the defects
    dark: Float  # e/s, defects included
    response: Float  # relative, defects included
    full_well: Float  # e
    defects: Defects
    maps: Maps = USUAL
    history: History | None = None


@dataclass(frozen=True)
class Exposure:
    """What one exposure has in common over the frame."""

    kind: str
    number: int
    lamp: float  # e/s at response 1
    drift: Float  # (nints, ngroups, slow axis, 4) DN
    border: Float  # (nints, ngroups, reference pixels) raw DN of the reference pixels, in row-major order
    hits: NDArray[Any]  # cosmic rays, sorted by integration and row
    dark: Float  # (ny, nx) e/s


def stream(*words: int) -> np.random.Generator:
    """The random stream with this address."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(words)))


@lru_cache(maxsize=1)
def make_scene(recipe: Recipe, number: int = 0) -> Scene:
    """The detector of a recipe, with its defects, in the light of a filter (``number``, from 0).

    Returns
    -------
    Scene
        Maps of shape ``recipe.shape``. Treat them as read-only: the last scene is kept.
    """
    physics, rng, shape = recipe.physics, stream(recipe.seed, MAPS), recipe.shape
    reference = measure_border(recipe.detector, recipe.window)

    def noise() -> Float:
        return rng.standard_normal(shape, dtype=np.float32)

    superbias = np.float32(physics.bias) + np.float32(physics.bias_spread) * noise()
    read_noise = np.float32(physics.read_noise / recipe.frames[0] ** 0.5) * measure_noise_spread(rng, shape)
    dark: Float = np.asarray(physics.dark * np.exp(0.2 * noise()), dtype=np.float32)
    dark += physics.dark * 0.6 * rng.standard_exponential(shape, dtype=np.float32) * (rng.random(shape) < 0.003)
    response = measure_illumination(recipe, number) * (1 + 0.012 * noise())
    full_well = np.float32(physics.full_well) * (1 + 0.02 * noise())
    bias = superbias + np.float32(1.0) * noise()
    dark[reference] = response[reference] = 0
    scene = Scene(
        recipe,
        reference,
        amplifier_map(recipe.detector, recipe.window),
        bias,
        superbias,
        read_noise,
        read_noise,
        dark,
        response,
        full_well,
        Defects.none(),
    )
    placed = place_defects(recipe, reference, stream(recipe.seed, PLACES))
    natural = find_natural_defects(scene, placed)
    scene = replace(apply_defects(scene, placed, number), defects=note_true_noise(placed.joined(natural), scene))
    return add_conditions(scene) if recipe.conditions else scene


def add_conditions(scene: Scene) -> Scene:
    """The scene under the recipe's conditions, with their defects and what else they make of pixels."""
    recipe, rng = scene.recipe, stream(scene.recipe.seed, CONDITIONS, 1)
    maps = conditions.measure_conditions(recipe, scene.amplifier, stream(recipe.seed, CONDITIONS))
    taken = scene.reference.copy()
    taken[scene.defects.rows["y"], scene.defects.rows["x"]] = True
    changing, draw = histories.place_changes(recipe, taken, rng), stream(recipe.seed, CONDITIONS, 2)
    defects, dark = scene.defects.joined(changing), scene.dark.copy()
    if "clusters" in recipe.conditions:
        clusters = histories.place_clusters(recipe, taken, rng)
        dark[clusters.rows["y"], clusters.rows["x"]] += clusters.rows["level"]
        defects = defects.joined(clusters)
    if maps.trapped is not None:
        maps.trapped[scene.reference] = 0
        defects = defects.joined(conditions.find_affected(recipe, maps.trapped, ~taken))
    if maps.response is not None:
        defects = defects.joined(conditions.find_voids(maps.response, ~taken))
    noise, response = (np.float32(1) if m is None else m for m in (maps.noise, maps.response))
    return replace(
        scene,
        dark=dark,
        read_noise=scene.read_noise * noise,
        known_noise=scene.known_noise * noise,
        response=scene.response * response,
        defects=defects,
        maps=maps,
        history=histories.make_history(recipe, changing.rows, draw),
    )


def dark_scale(recipe: Recipe, number: int) -> float:
    """Dark current of a dark over the usual one."""
    return conditions.measure_scale(recipe, number, stream(recipe.seed, CONDITIONS, 3, number))


def measure_dark(scene: Scene, kind: str, number: int) -> Float:
    """Dark current of one exposure, e/s: that of the detector; in darks under conditions warmer and changing."""
    if scene.history is None or kind == "flat":
        return scene.dark
    rows, dark = scene.history.rows, scene.dark.copy()
    dark[rows["y"], rows["x"]] += scene.history.rate[:, number - 1]
    dark *= np.float32(dark_scale(scene.recipe, number))
    if scene.maps.glow is not None:
        dark += np.where(scene.reference, np.float32(0), scene.maps.glow)
    return dark


def measure_noise_spread(rng: np.random.Generator, shape: tuple[int, int]) -> Float:
    """Relative read noise of each pixel: 13 % spread, skewed, and one pixel in a thousand with some noise more."""
    spread = rng.standard_gamma(60.0, shape, dtype=np.float32) / np.float32(60)
    more = np.abs(rng.standard_normal(shape, dtype=np.float32)) * (rng.random(shape, dtype=np.float32) < 0.001)
    return spread * (1 + np.float32(0.2) * more)


def find_natural_defects(scene: Scene, placed: Defects) -> Defects:
    """Pixels of the tails of dark current and read noise that nobody would call good.

    WARM: dark current above the smallest WARM level. NOISY: read noise above 1.75 times the detector's median.
    """
    free = ~scene.reference
    free[placed.rows["y"], placed.rows["x"]] = False
    warm = free & (scene.dark > min(scene.recipe.physics.warm_levels))
    noisy = free & ~warm & (scene.known_noise > NOISY_LIMIT * np.median(scene.known_noise))
    return Defects.natural({"WARM": warm, "NOISY": noisy})


def note_true_noise(defects: Defects, scene: Scene) -> Defects:
    """The defects with ``extra1`` of NOISY ones set: true noise over the detector's median."""
    rows = defects.rows.copy()
    noisy = rows["type"] == "NOISY"
    at = rows["y"][noisy], rows["x"][noisy]
    factor = np.where(rows["setting"][noisy] == "natural", 1, rows["level"][noisy])
    rows["extra1"][noisy] = factor * scene.known_noise[at] / np.median(scene.known_noise)
    return Defects(rows)


def apply_defects(scene: Scene, defects: Defects, number: int = 0) -> Scene:
    """The scene with defects put into fresh maps (those that a static map can hold), in a filter."""
    bias, noise = scene.bias.copy(), scene.read_noise.copy()
    dark, response = scene.dark.copy(), scene.response.copy()
    light = scene.response
    for name in ("DEAD", "LOW_QE", "OPEN"):
        d = defects.of(name)
        response[d["y"], d["x"]] = light[d["y"], d["x"]] * d["level"]
    d = defects.of("LOW_FILTER")
    d = d[(d["extra1"].astype(int) >> number) & 1 == 1]
    response[d["y"], d["x"]] = light[d["y"], d["x"]] * d["level"]
    spread_open_charge(response, light, defects)
    d = defects.of("DEAD")
    dark[d["y"], d["x"]] = 0
    for name in ("HOT", "WARM"):
        d = defects.of(name)
        dark[d["y"], d["x"]] += d["level"]
    d = defects.of("SATURATED")
    dark[d["y"], d["x"]] = 1e9
    d = defects.of("NOISY")  # placed ones only: natural ones are in the map already
    noise[d["y"], d["x"]] *= d["level"]
    d = defects.of("LOW_PEDESTAL")
    bias[d["y"], d["x"]] -= d["level"]
    return replace(scene, bias=bias, read_noise=noise, dark=dark, response=response)


def spread_open_charge(response: Float, light: Float, defects: Defects) -> None:
    """Give the charge that OPEN pixels lose to their neighbors, in place.

    Of the lost charge a part (the table's ``extra1``) is collected: 20 % of it by each side neighbor, 5 % by each
    corner; a neighbor that is itself insensitive collects in proportion to its own response.
    """
    own = np.divide(response, light, out=np.zeros_like(response), where=light > 0)
    ny, nx = response.shape
    for d in defects.of("OPEN"):
        lost = light[d["y"], d["x"]] * (1 - d["level"]) * d["extra1"]
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                y, x = d["y"] + dy, d["x"] + dx
                if (dy or dx) and 0 <= y < ny and 0 <= x < nx:
                    response[y, x] += lost * own[y, x] * (0.05 if dy and dx else 0.2)


def prepare_exposure(scene: Scene, kind: str, number: int) -> Exposure:
    """What exposure ``number`` (from 1) of this kind ("flat" or "dark") has in common over the frame."""
    recipe = scene.recipe
    word = (1 if kind == "flat" else 2) * 100_000 + number
    rng = stream(recipe.seed, FRAME, word)
    ngroups, physics = recipe.groups(kind), recipe.physics
    lamp = 0.0
    if kind == "flat":
        lamp = recipe.flat_level * physics.full_well / recipe.group_times(kind)[-1] * (1 + 0.02 * rng.normal())
    drift = np.stack([make_drift(recipe, ngroups, rng) for _ in range(recipe.nints)])
    border = np.stack([make_reference_ramps(scene, offsets, rng) for offsets in drift]).astype(np.float32)
    dark = measure_dark(scene, kind, number)
    return Exposure(kind, word, lamp, drift, border, make_cosmic_rays(recipe, ngroups, rng), dark)


def make_reference_ramps(scene: Scene, drift: Float, rng: np.random.Generator) -> Float:
    """Ramps of the reference pixels in one integration, (ngroups, pixels) DN, with all their noise."""
    y, x = np.nonzero(scene.reference)
    slow = y if abs(scene.recipe.detector.fastaxis) == 1 else x
    ramps = scene.read_noise[y, x] * rng.standard_normal((len(drift), len(y)), dtype=np.float32)
    ramps += scene.bias[y, x] + np.float32(scene.recipe.physics.reset_noise) * rng.standard_normal(len(y), np.float32)
    ramps += drift[:, slow, scene.amplifier[y, x]]
    return ramps + measure_start(scene.recipe.physics, len(drift))[:, None]


def ramp_rows(scene: Scene, exposure: Exposure, integration: int, first: int, last: int) -> NDArray[np.uint16]:
    """Raw ramps of rows ``first`` to ``last`` (exclusive) of one integration, (ngroups, rows, nx) uint16 DN."""
    physics, recipe = scene.recipe.physics, scene.recipe
    low, high = max(first - 1, 0), min(last + 1, recipe.shape[0])
    charge, noise = make_charge(scene, exposure, integration, low, high, first, last)
    rows = slice(first - low, first - low + last - first)
    out = noise
    out += ipc.mix(charge, physics.ipc)[:, rows] / np.float32(physics.gain)
    out += scene.bias[first:last]
    out += measure_drift(scene, exposure.drift[integration], first, last)
    if physics.start_drift:
        start = measure_start(physics, len(out))[:, None, None]
        out += start if scene.maps.settling is None else start * scene.maps.settling[first:last]
    y, x = np.nonzero(scene.reference[first:last])
    before = np.count_nonzero(scene.reference[:first])
    out[:, y, x] = exposure.border[integration, :, before : before + len(y)]
    return np.clip(np.rint(out, out=out), 0, 65535, out=out).astype(np.uint16)


def make_charge(
    scene: Scene, exposure: Exposure, integration: int, low: int, high: int, first: int, last: int
) -> tuple[Float, Float]:
    """Charge in e of rows ``low`` to ``high``, and read noise with reset noise in DN of ``first`` to ``last``.

    Both are drawn from the stream of their row, charge first.
    """
    recipe, kind = scene.recipe, exposure.kind
    steps = np.diff(recipe.group_times(kind), prepend=0.0).astype(np.float32)
    ngroups, nx = len(steps), recipe.shape[1]
    charge = np.empty((ngroups, high - low, nx), np.float32)
    noise = np.empty((ngroups, last - first, nx), np.float32)
    draw = np.empty((ngroups, nx), np.float32)
    released = measure_released(scene, exposure, integration)
    for y in range(low, high):
        rng = stream(recipe.seed, ROWS, exposure.number, integration, y)
        rate = exposure.dark[y] + np.float32(exposure.lamp) * scene.response[y]
        rng.standard_normal(out=draw, dtype=np.float32)
        mean = steps[:, None] * rate
        if released is not None and scene.maps.trapped is not None:
            mean += released[:, None] * scene.maps.trapped[y]
        charge[:, y - low] = mean
        np.multiply(draw, np.sqrt(mean, out=mean), out=draw)
        charge[:, y - low] += draw
        if first <= y < last:
            conditions.draw_noise(recipe, draw, rng)
            np.multiply(draw, scene.read_noise[y], out=noise[:, y - first])
            noise[:, y - first] += np.float32(recipe.physics.reset_noise) * rng.standard_normal(nx, np.float32)
    add_cosmic_rays(charge, scene, exposure.hits, integration, low, high)
    for g in range(1, ngroups):
        charge[g] += charge[g - 1]
    add_changing_defects(charge, scene, exposure, integration, low, high)
    np.minimum(charge, scene.full_well[low:high], out=charge)
    return charge, noise


def measure_released(scene: Scene, exposure: Exposure, integration: int) -> Float | None:
    """Part of the charge of a bright field that each group of a dark collects, (groups,); None without one."""
    if scene.maps.trapped is None or exposure.kind == "flat":
        return None
    recipe = scene.recipe
    number = exposure.number % 100_000
    until = conditions.measure_release(recipe, number, integration, recipe.group_times(exposure.kind))
    return np.diff(until, prepend=np.float32(0))


def add_cosmic_rays(charge: Float, scene: Scene, hits: NDArray[Any], integration: int, low: int, high: int) -> None:
    """Add the hits of these rows to the charge of their groups, in place; reference pixels stay dark."""
    key = hits["integration"].astype(np.int64) * scene.recipe.shape[0] + hits["y"]
    base = integration * scene.recipe.shape[0]
    near = hits[np.searchsorted(key, base + low) : np.searchsorted(key, base + high)]
    near = near[~scene.reference[near["y"], near["x"]]]
    np.add.at(charge, (near["group"], near["y"] - low, near["x"]), near["charge"])


def add_changing_defects(
    charge: Float, scene: Scene, exposure: Exposure, integration: int, low: int, high: int
) -> None:
    """Add what changes within a ramp to the accumulated charge, in place: RC, IRC and TELEGRAPH."""
    gain = scene.recipe.physics.gain
    elapsed = scene.recipe.group_times(exposure.kind) / scene.recipe.group_time
    for name, sign in (("RC", 1.0), ("IRC", -1.0)):
        d = scene.defects.of(name, low, high)
        settled = 1 - np.exp(-elapsed[:, None] / d["extra1"])
        charge[:, d["y"] - low, d["x"]] += (sign * gain * d["level"] * settled).astype(np.float32)
    if scene.history is not None and exposure.kind == "dark":
        d = scene.history.settling(exposure.number % 100_000, low, high)
        settled = 1 - np.exp(-elapsed[:, None] / d["extra1"])
        charge[:, d["y"] - low, d["x"]] += (gain * histories.SETTLING * settled).astype(np.float32)
    for d in scene.defects.of("TELEGRAPH", low, high):
        rng = stream(scene.recipe.seed, TELEGRAPHS, exposure.number, integration, int(d["y"]), int(d["x"]))
        high_state = make_switching(len(elapsed), float(d["extra1"]), float(d["extra2"]), rng)
        charge[:, d["y"] - low, d["x"]] += np.float32(gain * d["level"]) * high_state


def make_switching(ngroups: int, dwell_low: float, dwell_high: float, rng: np.random.Generator) -> Float:
    """A two-level random signal of 0 and 1 with these mean dwell times in groups."""
    leave = np.array([1 / dwell_low, 1 / dwell_high])
    draws = rng.random(ngroups + 1)
    state = int(draws[0] < dwell_high / (dwell_low + dwell_high))
    out = np.empty(ngroups, np.float32)
    for g in range(ngroups):
        out[g] = state
        state ^= int(draws[g + 1] < leave[state])
    return out


def measure_drift(scene: Scene, drift: Float, first: int, last: int) -> Float:
    """Offsets of the pixels of these rows, (ngroups, rows, nx) DN, from offsets by slow axis and amplifier."""
    if abs(scene.recipe.detector.fastaxis) == 1:
        return drift[:, first:last][:, :, scene.amplifier[0]]
    return np.stack([drift[:, :, scene.amplifier[y, 0]] for y in range(first, last)], axis=1)
