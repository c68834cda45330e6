"""Darks under harsh conditions, of a generator of its own: no line of it comes from the package's simulation.

Frame by frame, in electrons: dark current that differs from pixel to pixel, Poisson noise, tracks of particles whose
charge spreads to neighbors, two-state pixels in real time, charge that settles, saturation, capacitance that differs
between rows and columns; then read noise, 1/f noise along rows, offsets of outputs, averages of frames. Every
condition of :class:`Scene` changes one thing. Which pixels have which defect is in :data:`TRUTH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 256
SPACING = 6  # rows and columns between defects
TRUTH = [("kind", "U12"), ("level", "f8"), ("y", "i4"), ("x", "i4"), ("size", "f8"), ("a", "f8"), ("b", "f8")]
Float = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """What is made, and how many false ones per million are wanted at most (None: not asked).

    ``lengths``: groups, frames averaged and frames skipped of each dark; ``tails``: Student's degrees of freedom;
    ``particles`` per second and cm2; ``warmth``: range of the dark current's scale; ``unequal``: one pixel in
    130 stays ten times as long in its lower level as in the upper one.
    """

    name: str
    lengths: tuple[tuple[int, int, int], ...]
    wanted: float | None = None
    instrument: str = "NIRCAM"
    tails: float = 0
    particles: float = 5.0
    glow: bool = False
    outputs: tuple[float, ...] = ()
    places: bool = False
    warmth: tuple[float, float] = (1.0, 1.0)
    clusters: bool = False
    persistence: bool = False
    time: bool = False
    unreset: bool = False
    unequal: bool = False


@dataclass(frozen=True)
class Chip:
    """A detector: e per DN, noise of a frame (DN), dark current (e/s), signal of the neighbors in a row and in a
    column over that of the pixel, seconds a frame, size of a pixel (cm) and depth over that size, full well (e)."""

    gain: float
    noise: float
    dark: float
    beside: tuple[float, float]
    frame: float
    pixel: float
    thick: float
    well: float


CHIPS = {
    "NIRCAM": Chip(1.82, 5.0, 0.004, (0.0062, 0.0051), 10.73677, 18e-4, 0.35, 83_000.0),
    "MIRI": Chip(3.3, 5.2, 0.15, (0.016, 0.014), 2.77504, 25e-4, 1.4, 190_000.0),
}
WARM = 0.01, 2.2  # part of the pixels that are warm, and scatters of the rate at which they end: below any limit
GLOW, LEAK = 25.0, 12.0  # columns over which the glow of an amplifier falls off, and half the width of a leak
FAINTEST = 16.0  # errors of the rate of the faintest hot pixels


def rate_sigma(scene: Scene) -> float:
    """Error of the rate of one integration of the deepest dark, e/s."""
    chip = CHIPS[scene.instrument]
    groups, frames, skipped = max(scene.lengths, key=lambda of: of[0] * (of[1] + of[2]))
    time = chip.frame * (frames + skipped)
    read = chip.noise * chip.gain / np.sqrt(frames) * np.sqrt(12 / groups**3) / time
    return float(np.hypot(read, np.sqrt(1.2 * chip.dark / (groups * time))))


def _spread(rng: np.random.Generator, low: float, high: float, n: int) -> NDArray[np.float64]:
    return np.exp(rng.uniform(np.log(low), np.log(high), n))


def draw_defects(scene: Scene, rng: np.random.Generator) -> NDArray[Any]:
    """Defects on a grid, each kind and level as often as asked for."""
    hot = FAINTEST * rate_sigma(scene)
    miri = scene.instrument == "MIRI"
    wanted: list[tuple[str, float, int, tuple[float, float]]] = [
        ("hot", FAINTEST, 60, (hot, 60.0)),
        ("saturated", 0, 12, (4e4, 9e4)),
        ("rc", 60, 30, (60, 60)),
        ("rc", 200, 60, (200, 3000)),
        ("telegraph", 8, 60, (8, 8)),
        ("telegraph", 15, 60, (15, 15)),
        ("telegraph", 30, 80, (30, 300)),
        ("noisy", 2, 60, (2, 2)),
        ("noisy", 3, 60, (3, 8)),
        ("low_pedestal", 0, 30, (1500, 4000) if miri else (150, 900)),
    ]
    if scene.time:
        wanted += [("intermittent", k, 25, (hot, 8.0)) for k in (0.2, 0.3, 0.4, 0.5)]
        wanted += [(kind, k, 25, (hot, 8.0)) for kind in ("born", "recovered") for k in (0.2, 0.3, 0.4)]
        wanted += [("drifting", 1, 25, (1, 1)), ("drifting", 5, 25, (5, 5))]
        wanted += [("switching", 2, 25, (hot, 8.0)), ("switching", 4, 25, (hot, 8.0))]
        wanted += [("settling", 0.3, 30, (200, 3000)), ("settling", 0.5, 30, (200, 3000))]
    if scene.unequal:
        wanted += [("unequal", 15, 250, (15, 15)), ("unequal", 30, 250, (30, 300))]
    y, x = np.meshgrid(*[np.arange(5, SIZE - 5, SPACING)] * 2, indexing="ij")
    place = rng.permutation(y.size)
    out = np.zeros(y.size, TRUTH)
    start = 0
    for kind, level, n, (low, high) in wanted:
        mine = out[start : start + n]
        mine["kind"], mine["level"], mine["size"] = kind, level, _spread(rng, low, high, n)
        start += n
    out["y"], out["x"] = y.ravel()[place], x.ravel()[place]
    out["x"] += rng.integers(0, 2, y.size)
    out["y"] += rng.integers(0, 2, y.size)
    settles = np.isin(out["kind"], ("rc", "settling"))
    out["a"] = _spread(rng, 1.0, min(12.0, scene.lengths[0][0] / 3), y.size)  # groups
    out["b"] = rng.choice([-1.0, 1.0], y.size)
    switches = out["kind"] == "telegraph"  # mean stays: 4 to 38 frames, or 2 to 19 of averaged groups
    low, high = _spread(rng, 4.0, 38.0, 2 * y.size).reshape(2, -1)
    out["a"] = np.where(switches, low, out["a"])
    out["b"] = np.where(switches, high, out["b"])
    unequal = np.flatnonzero(out["kind"] == "unequal")
    out["a"][unequal], out["b"][unequal] = (
        _spread(rng, 20.0, 60.0, unequal.size),
        _spread(rng, 2.0, 6.0, unequal.size),
    )
    out["b"][~(settles | switches | (out["kind"] == "unequal"))] = 0
    out = out[:start]
    return np.concatenate([out, draw_clusters(out, rng)]) if scene.clusters else out


def draw_clusters(others: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Clusters of 2 to 8 neighbors of 50 to 2000 e/s, between other defects."""
    taken = np.zeros((SIZE, SIZE), bool)
    taken[others["y"], others["x"]] = True
    out = []
    for _ in range(36):
        while True:
            y, x = rng.integers(6, SIZE - 6, 2)
            if not taken[y - 4 : y + 5, x - 4 : x + 5].any():
                break
        members, brightest = {(int(y), int(x))}, _spread(rng, 50.0, 2000.0, 1)[0]
        for _ in range(rng.integers(1, 8)):
            b, a = sorted(members)[rng.integers(len(members))]
            dy, dx = [(0, 1), (1, 0), (0, -1), (-1, 0)][rng.integers(4)]
            if abs(b + dy - y) < 3 and abs(a + dx - x) < 3:
                members.add((b + dy, a + dx))
        for b, a in sorted(members):
            taken[b, a] = True
            out.append(("cluster", 50, b, a, max(50.0, brightest * rng.uniform(0.05, 1)), 0, 0))
    return np.array(out, TRUTH)


@dataclass
class World:
    """What lasts from dark to dark: (ny, nx) images, defects, and what each dark does to them (darks, defects)."""

    scene: Scene
    chip: Chip
    noise: Float
    current: Float
    glow: Float
    well: Float
    bias: Float
    settling: Float
    trapped: Float
    defects: NDArray[Any]
    active: NDArray[np.float64]
    warmth: NDArray[np.float64]


def make_world(scene: Scene, rng: np.random.Generator) -> World:
    """A detector with its defects."""
    chip, shape = CHIPS[scene.instrument], (SIZE, SIZE)
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    own = rng.gamma(80.0, 1 / 80.0, shape)  # read noise: 11 %, and some louder pixels that are still good
    own *= np.where(rng.random(shape) < 0.004, rng.uniform(1.1, 1.35, shape), 1.0)
    noise = chip.noise * own * (1 + 0.03 * np.sin(x / 37) * np.cos(y / 53))
    if scene.outputs:
        output = np.arange(SIZE) % 4 if scene.instrument == "MIRI" else np.arange(SIZE) // (SIZE // 4)
        noise *= np.asarray(scene.outputs)[output]
    if scene.places:
        edge = np.minimum.reduce([y, x, SIZE - 1 - y, SIZE - 1 - x])
        noise *= (1 + 0.6 * np.exp(-edge / 12)) * np.where(x % 2 == 1, 1.25, 1.0)
    current = chip.dark * rng.gamma(20.0, 1 / 20.0, shape) * (1 + 0.3 * y / SIZE)
    warm = rng.random(shape) < WARM[0]
    current += np.where(warm, WARM[1] * rate_sigma(scene) * rng.random(shape), 0)
    glow = np.zeros(shape)
    if scene.glow:
        glow += (0.6 if scene.instrument == "NIRCAM" else 6.0) * np.exp(-(x + 0.4 * y) / GLOW)
        glow += (0.12 if scene.instrument == "NIRCAM" else 1.5) * np.exp(-(((x - 170 - 0.1 * y) / LEAK) ** 2))
    bias = rng.normal(0, 12.0, shape)
    if scene.instrument == "MIRI":  # no superbias is subtracted
        bias += 9000 + rng.normal(0, 60.0, shape) + np.array([0, 300, -200, 100])[np.arange(SIZE) % 4]
    settling = 6.0 * (1 + 0.1 * rng.standard_normal(shape))
    if scene.unreset:
        settling = 40.0 * (1 + 0.5 * rng.standard_normal(shape))
    defects = draw_defects(scene, rng)
    darks = len(scene.lengths)
    warmth = rng.permutation(np.geomspace(*scene.warmth, darks))
    out = World(
        scene,
        chip,
        *(im.astype(np.float32) for im in (noise, current, glow, chip.well * rng.normal(1, 0.03, shape), bias)),
        settling.astype(np.float32),
        draw_trapped(rng) if scene.persistence else np.zeros(shape, np.float32),
        defects,
        draw_activity(defects, darks, rng),
        warmth,
    )
    loud = defects[defects["kind"] == "noisy"]
    out.noise[loud["y"], loud["x"]] *= loud["size"]
    return out


def draw_trapped(rng: np.random.Generator) -> Float:
    """Charge that a field of stars left, e: blobs with wings over a tenth of the frame."""
    y, x = np.mgrid[:SIZE, :SIZE]
    out = np.zeros((SIZE, SIZE))
    for _ in range(45):
        b, a, peak = *rng.uniform(0, SIZE, 2), 10 ** rng.uniform(2.0, 4.0)
        out += peak / (1 + ((y - b) ** 2 + (x - a) ** 2) / 4.0) ** 1.6
    return (out * rng.lognormal(0, 0.25, out.shape)).astype(np.float32)


def draw_activity(defects: NDArray[Any], darks: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """By how much of its size each defect is there in each dark: (darks, defects)."""
    out = np.ones((darks, len(defects)))
    for k, (kind, level) in enumerate(zip(defects["kind"], defects["level"], strict=True)):
        number = round(level * darks)
        if kind in ("intermittent", "settling"):
            out[:, k] = False
            while True:  # an intermittent pixel that looks born or recovered is one
                at = np.sort(rng.choice(darks, number, replace=False))
                if kind == "settling" or (at[-1] - at[0] >= number and not (at[0] > 0 and at[-1] == darks - 1)):
                    break
            out[at, k] = True
        elif kind == "born":
            out[: darks - number, k] = False
        elif kind == "recovered":
            out[number:, k] = False
        elif kind == "drifting":
            steady = np.geomspace(0.3, 3.0, darks)
            out[:, k] = [steady, steady[::-1], _spread(rng, 0.3, 3.0, darks)][rng.integers(3)]
        elif kind == "switching":
            state = rng.random() < 0.5
            for d in range(darks):
                out[d, k] = state
                state ^= rng.random() < 1 / level
            if out[:, k].sum() < 2:
                out[-2:, k] = True
    return out


# --- one exposure ----------------------------------------------------------------------------------------


def draw_particles(world: World, frames: int, rng: np.random.Generator) -> NDArray[Any]:
    """Pixels that particles hit: frame, y, x, electrons. Isotropic tracks through the layer that absorbs; a third are
    faint secondaries. A part of the charge diffuses to neighbors."""
    chip = world.chip
    n = rng.poisson(world.scene.particles * (SIZE * chip.pixel) ** 2 * frames * chip.frame)
    cos = np.sqrt(rng.uniform(0.003, 1, n))
    length = chip.thick * np.sqrt(1 / cos**2 - 1)
    number = np.minimum(1 + (length * 2.5).astype(int), 60)
    which = np.repeat(np.arange(n), number)
    along = (np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number)) / 2.5
    angle = rng.uniform(0, 2 * np.pi, n)[which]
    at = rng.uniform(0, SIZE, (2, n))[:, which] + along * np.stack([np.sin(angle), np.cos(angle)])
    total = np.where(rng.random(n) < 0.35, 10 ** rng.uniform(1.6, 2.8, n), 10 ** rng.normal(3.0, 0.35, n))
    charge = total[which] / number[which] * np.maximum(cos[which] ** -0.5, 1) * rng.gamma(3.0, 1 / 3.0, len(which))
    frame = rng.integers(0, frames, n)[which]
    spread = rng.normal(0, 0.33, (3, 2, len(which)))  # thirds of the charge, in pixels
    out = np.zeros((3, len(which)), [("frame", "i4"), ("y", "i4"), ("x", "i4"), ("charge", "f4")])
    for k in range(3):
        where = np.floor(at + spread[k])
        out[k]["frame"], out[k]["y"], out[k]["x"], out[k]["charge"] = frame, where[0], where[1], charge / 3
    out = out.ravel()
    inside = (out["y"] >= 0) & (out["y"] < SIZE) & (out["x"] >= 0) & (out["x"] < SIZE)
    return np.sort(out[inside], order=["frame"])


def pink_rows(n: int, rng: np.random.Generator) -> Float:
    """1/f noise of scatter 1 of ``n`` rows in their order."""
    power = np.maximum(np.fft.rfftfreq(n), 1 / n) ** -0.5
    wave = np.fft.irfft(power * np.exp(2j * np.pi * rng.random(len(power))), n)
    return (wave / wave.std()).astype(np.float32)


def expose(world: World, dark: int, rng: np.random.Generator) -> tuple[Float, NDArray[np.uint8], NDArray[np.intp]]:
    """Ramp (groups, ny, nx) DN and GROUPDQ of one dark with one integration, and the switches of each defect."""
    scene, chip, defects = world.scene, world.chip, world.defects
    groups, averaged, skipped = scene.lengths[dark]
    each = averaged + skipped
    frames = groups * each
    active = world.active[dark]
    current = (world.current * np.float32(world.warmth[dark]) + world.glow).astype(np.float32)
    bright = np.isin(
        defects["kind"],
        ("hot", "saturated", "intermittent", "born", "recovered", "drifting", "switching", "cluster"),
    )
    own = defects[bright]
    current[own["y"], own["x"]] += (own["size"] * active[bright] * world.warmth[dark]).astype(np.float32)
    hits = draw_particles(world, frames, rng)
    ends = np.searchsorted(hits["frame"], np.arange(frames + 1))
    two = np.flatnonzero(np.isin(defects["kind"], ("telegraph", "unequal")))
    stays = defects["a"][two], defects["b"][two]
    scale = 0.5 * each if averaged > 1 else 1.0
    state = rng.random(len(two)) < stays[1] / (stays[0] + stays[1])
    switches = np.zeros(len(defects), np.intp)
    slow = np.flatnonzero(np.isin(defects["kind"], ("rc", "settling")))
    height = defects["b"][slow] * defects["size"][slow] * chip.gain * active[slow]
    charge = np.zeros((SIZE, SIZE), np.float32)
    ramp = np.zeros((groups, SIZE, SIZE), np.float32)
    full = np.zeros((groups, SIZE, SIZE), bool)
    rows = pink_rows(frames * SIZE, rng).reshape(frames, SIZE, 1) * np.float32(0.06 * chip.noise)
    output = np.arange(SIZE) % 4 if scene.instrument == "MIRI" else np.arange(SIZE) // (SIZE // 4)
    kept, since = world.trapped, 60.0 + (dark - 1) * (frames * chip.frame + 30.0)  # seconds after the bright field
    for f in range(frames):
        charge += rng.poisson(current * chip.frame)
        if dark > 0 and scene.persistence:  # power law, 1/t
            t = since + f * chip.frame
            charge += rng.poisson(kept * np.log1p(chip.frame / t) / 6)
        mine = hits[ends[f] : ends[f + 1]]
        np.add.at(charge, (mine["y"], mine["x"]), rng.poisson(mine["charge"]).astype(np.float32))
        np.minimum(charge, world.well, out=charge)
        leave = np.where(state, 1 / stays[1], 1 / stays[0]) / scale
        flip = rng.random(len(two)) < 1 - np.exp(-leave)
        state ^= flip
        switches[two] += flip
        group, place = divmod(f, each)
        if place >= averaged:
            continue
        level = charge.copy()
        level[defects["y"][two], defects["x"][two]] += (state * defects["size"][two] * chip.gain).astype(np.float32)
        gone = 1 - np.exp(-(f + 1) / each / defects["a"][slow])
        level[defects["y"][slow], defects["x"][slow]] += (height * gone).astype(np.float32)
        full[group] |= level >= 0.98 * world.well
        read = couple(level, chip.beside) / np.float32(chip.gain)
        white = rng.standard_t(scene.tails, read.shape) * np.sqrt(1 - 2 / scene.tails) if scene.tails else None
        read += world.noise * (rng.standard_normal(read.shape, np.float32) if white is None else white)
        read += rows[f] + rng.normal(0, 0.25, 4).astype(np.float32)[output]
        ramp[group] += read / np.float32(averaged)
    ramp -= world.settling * np.exp(-np.arange(groups, dtype=np.float32))[:, None, None]
    ramp += world.bias + rng.normal(0, 9.0, (SIZE, SIZE)).astype(np.float32)  # reset noise
    low = defects[defects["kind"] == "low_pedestal"]
    ramp[:, low["y"], low["x"]] -= low["size"].astype(np.float32)
    return ramp, flag(full, scene.instrument), switches


def couple(charge: Float, beside: tuple[float, float]) -> Float:
    """Inter-pixel capacitance."""
    row, column = np.float32(beside[0]), np.float32(beside[1])
    out: Float = charge * (1 - 2 * row - 2 * column)
    out[:, 1:] += row * charge[:, :-1]
    out[:, :-1] += row * charge[:, 1:]
    out[1:] += column * charge[:-1]
    out[:-1] += column * charge[1:]
    return out


def flag(full: NDArray[np.bool_], instrument: str) -> NDArray[np.uint8]:
    """GROUPDQ of the saturation step (from the first saturated group on, and one pixel around), and that of MIRI's
    first and last frame."""
    full = np.logical_or.accumulate(full, axis=0)
    grown = full.copy()
    grown[:, 1:] |= full[:, :-1]
    grown[:, :-1] |= full[:, 1:]
    wide = grown.copy()
    wide[:, :, 1:] |= grown[:, :, :-1]
    wide[:, :, :-1] |= grown[:, :, 1:]
    out = np.where(wide, 2, 0).astype(np.uint8)
    if instrument == "MIRI":
        out[[0, -1]] |= 1
    return out
