"""Flat exposures of an own generator: no line of it comes from the package's simulation.

Light of an instrument's mode (:mod:`own_flats_light`) falls on pixels of unequal response; some do not respond, some
too little, some have no contact and lose their charge to those around them. Then come dark current of hot pixels,
capacitance between pixels, shot and read noise, particles that were not taken off, and the files: rates as they come
from many groups (``ramps=False``), or ramps frame by frame through the jump step and the ramp fit of ``jwst``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("CRDS_SERVER_URL", "http://localhost:1")
os.environ.setdefault("STPIPE_DISABLE_CRDS_STEPPARS", "true")

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from own_flats_light import Image, Random, Shape, grid, waves
from scipy.ndimage import binary_dilation, convolve

KINDS = ("good", "DEAD", "LOW_QE", "OPEN", "ADJ_OPEN", "DIP", "LOW_FILTER", "HOT")
DEAD, LOW_QE, OPEN, ADJ_OPEN, DIP, LOW_FILTER, HOT = range(1, 8)
LIT = 0.1  # of the 95th percentile of the light
DNU, SATURATED, JUMP, REFERENCE = 1, 2, 4, 2**31
SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))
CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class Chip:
    """Gain (e/DN), read noise of a frame (e), seconds a frame, coupling to a neighbor in the row, in the column and
    at a corner, full well (e)."""

    gain: float
    noise: float
    frame: float
    ipc: tuple[float, float, float]
    well: float


H2RG = Chip(1.9, 11.0, 10.73677, (0.0062, 0.0051, 0.0004), 8.0e4)
SIAS = Chip(3.4, 18.0, 2.77504, (0.0165, 0.0140, 0.0012), 1.9e5)


@dataclass(frozen=True)
class Scene:
    """A set of flats. ``light`` makes the illumination of one filter from shape and random numbers; ``times`` are the
    exposure times (s) of the flats of each filter, ``level`` the rate (e/s) of bright light; ``start``: first column
    and row, from 1; ``dead``: part of all pixels; ``goals``: what is asked for, by column of the score."""

    name: str
    detector: str
    shape: Shape
    light: Callable[[Shape, Random], Image]
    keywords: dict[str, str]
    level: float = 400.0
    times: tuple[float, ...] = (120.0,) * 5
    start: tuple[int, int] = (1, 1)
    dead: float = 0
    clusters: int = 6
    voids: int = 0
    hot: float = 1e-4
    filters: tuple[str, ...] = ()
    outputs: tuple[float, ...] = ()
    spread: float = 0.01
    ramps: bool = False
    goals: dict[str, float] = field(default_factory=dict)

    @property
    def chip(self) -> Chip:
        """The detector's constants."""
        return SIAS if self.detector.startswith("MIRI") else H2RG

    @property
    def sensitive(self) -> NDArray[np.bool_]:
        """Pixels that are no reference pixels, (ny, nx)."""
        (ny, nx), (x0, y0) = self.shape, self.start
        y, x = np.ogrid[y0 - 1 : y0 - 1 + ny, x0 - 1 : x0 - 1 + nx]
        wide, high, rows = (1032, 1024, False) if self.detector.startswith("MIRI") else (2048, 2048, True)
        inside = (x >= 4) & (x < wide - 4) & (y >= 0)
        return np.asarray(inside & (y >= 4) & (y < high - 4) if rows else inside)


@dataclass
class Flats:
    """The truth: kind and response of each pixel, light by filter (of its bright light), voids, and the files."""

    kind: NDArray[np.uint8]
    response: Image
    light: NDArray[np.float64]
    lit: NDArray[np.bool_]
    void: NDArray[np.bool_]
    poor: NDArray[np.bool_]
    files: list[Path] = field(default_factory=list)


# --- defects ---------------------------------------------------------------------------------------------


def draw_kinds(scene: Scene, lit: NDArray[np.bool_], rng: Random) -> tuple[NDArray[np.uint8], Image]:
    """Kind and response of all pixels: single defects, pairs, clusters, on lit pixels first, some at the edges."""
    kind, response = np.zeros(lit.shape, np.uint8), np.ones(lit.shape)
    sensitive, taken = scene.sensitive, np.zeros(lit.shape, bool)
    one = int(np.clip(lit.sum() / 900, 12, 160))
    wanted = [DEAD] * one + [LOW_QE] * one + [OPEN] * one + [DIP] * one
    wanted += [LOW_FILTER] * (2 * one if scene.filters else 0) + [9] * (one // 6) + [10] * scene.clusters
    wanted += [DEAD, LOW_QE, OPEN, OPEN] * (one // 6)  # at edges
    of_lit, anywhere = (rng.permutation(np.flatnonzero(area)) for area in (lit & sensitive, sensitive))
    rim = rng.permutation(np.flatnonzero(lit & sensitive & ~erode(lit & sensitive)))
    at = {"lit": iter(of_lit), "any": iter(anywhere), "rim": iter(rim)}
    for k, what in enumerate(wanted + [DEAD, LOW_QE, OPEN] * (one // 3)):
        where = at["any" if k >= len(wanted) else "rim" if k >= len(wanted) - 4 * (one // 6) else "lit"]
        pixels = next(((int(p) // lit.shape[1], int(p) % lit.shape[1]) for p in where if is_free(taken, p)), None)
        if pixels is None:
            continue
        put(kind, response, what, pixels, rng)
        y, x = pixels
        taken[max(y - 7, 0) : y + 8, max(x - 7, 0) : x + 8] |= binary_dilation(
            kind[max(y - 7, 0) : y + 8, max(x - 7, 0) : x + 8] > 0, np.ones((3, 3), bool), 2
        )
    more = (rng.random(lit.shape) < scene.dead) & (kind == 0)
    kind[more], response[more] = DEAD, rng.choice([0, 0.015, 0.03], int(more.sum()))
    hot = (rng.random(lit.shape) < scene.hot) & (kind == 0)
    kind[hot] = HOT
    kind[~sensitive], response[~sensitive] = 0, 0
    near = binary_dilation(kind == OPEN, np.ones((3, 3), bool)) & (kind == 0)
    kind[near] = ADJ_OPEN
    return kind, response


def erode(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of an area that have all their neighbors in it; beyond the frame is none."""
    return np.asarray(~binary_dilation(~np.pad(area, 1), np.ones((3, 3), bool))[1:-1, 1:-1])


def is_free(taken: NDArray[np.bool_], place: int) -> bool:
    """Whether no other defect is nearer than three pixels."""
    return not taken[divmod(int(place), taken.shape[1])]


def put(kind: NDArray[np.uint8], response: Image, what: int, place: tuple[int, int], rng: Random) -> None:
    """A defect in place: 9 is a pair of OPEN ones, 10 a cluster."""
    y, x = place
    if what == 10:
        members = {place}
        for _ in range(int(np.exp(rng.uniform(np.log(3), np.log(70))))):
            b, a = sorted(members)[rng.integers(len(members))]
            dy, dx = SIDES[rng.integers(4)]
            if abs(b + dy - y) < 6 and abs(a + dx - x) < 6:
                members.add((b + dy, a + dx))
        for b, a in sorted(members):
            if 0 <= b < kind.shape[0] and 0 <= a < kind.shape[1]:
                kind[b, a], response[b, a] = DEAD, rng.choice([0, 0.015, 0.03])
        return
    ranges = {LOW_QE: (0.09, 0.45), OPEN: (0.0, 0.42), DIP: (0.58, 0.9), LOW_FILTER: (0.1, 0.42)}
    both = [place]
    if what == 9:
        what, (dy, dx) = OPEN, (*SIDES, *CORNERS)[rng.integers(8)]
        both += [(y + dy, x + dx)] if 0 <= y + dy < kind.shape[0] and 0 <= x + dx < kind.shape[1] else []
    for b, a in both:
        kind[b, a] = what
        response[b, a] = rng.choice([0, 0.015, 0.03]) if what == DEAD else rng.uniform(*ranges[what])


def make_voids(scene: Scene, rng: Random) -> NDArray[np.bool_]:
    """Irregular areas, some 25 to 45 pixels wide."""
    y, x = grid(scene.shape)
    out = np.zeros(scene.shape, bool)
    for _ in range(scene.voids):
        b, a = rng.uniform(40, scene.shape[0] - 40), rng.uniform(40, scene.shape[1] - 40)
        angle, size, parts = np.arctan2(y - b, x - a), rng.uniform(12, 22), rng.uniform(-0.2, 0.2, 4)
        out |= np.hypot(y - b, x - a) < size * (1 + sum(p * np.cos((k + 2) * angle) for k, p in enumerate(parts)))
    return out


def make_truth(scene: Scene, rng: Random) -> Flats:
    """Light, response and defects of a scene."""
    light = np.array([scene.light(scene.shape, rng) for _ in scene.filters or ("",)])
    light /= np.quantile(light[:, scene.sensitive], 0.95, axis=1)[:, None, None]
    lit = (light > LIT).any(axis=0) & scene.sensitive
    kind, response = draw_kinds(scene, lit, rng)
    good = np.clip(rng.normal(1, scene.spread, scene.shape), 0.8, 1.2) * (1 + waves(scene.shape, rng, 0.01))
    void = make_voids(scene, rng)
    depth = convolve(void.astype(float), np.ones((3, 3)) / 9) * 0.42
    response = response * good * (1 - depth)
    poor = np.zeros((len(light), *scene.shape), bool)
    for y, x in np.argwhere(kind == LOW_FILTER):
        poor[rng.choice(len(light), rng.integers(1, 3), replace=False), y, x] = True
    return Flats(kind, response, light, lit, void, poor)


# --- detector --------------------------------------------------------------------------------------------


def collect(
    light: Image, kind: NDArray[np.uint8], response: Image, sensitive: NDArray[np.bool_], rng: Random
) -> Image:
    """Charge a second that each pixel collects of its light: what OPEN ones do not take wanders to those around."""
    is_open = kind == OPEN
    out = np.where(is_open, 0, light * response)
    y, x = np.nonzero(is_open)
    efficient = {(b, a): rng.uniform(0.7, 0.95) for b, a in zip(y, x, strict=True)}
    shares = {place: rng.dirichlet([60] * 4 + [12] * 4) for place in efficient}
    waiting = {(b, a): light[b, a] for b, a in efficient}
    for _ in range(8):
        coming: dict[tuple[int, int], float] = {}
        for (b, a), charge in waiting.items():
            out[b, a] += charge * response[b, a]
            lost = charge * (1 - response[b, a]) * efficient[b, a]
            near = [(b + dy, a + dx) for dy, dx in (*SIDES, *CORNERS)]
            exist = np.array([0 <= q < out.shape[0] and 0 <= p < out.shape[1] and sensitive[q, p] for q, p in near])
            share = shares[b, a] * exist
            for place, part in zip(near, share / share.sum(), strict=True):
                if part and is_open[place]:
                    coming[place] = coming.get(place, 0) + lost * part
                elif part:
                    out[place] += lost * part * min(response[place], 1)
        waiting = coming
    return out


def couple(image: Any, chip: Chip) -> Any:
    """Signals with what capacitance adds from the neighbors."""
    row, column, corner = chip.ipc
    rest = 1 - 2 * row - 2 * column - 4 * corner
    kernel = np.array([[corner, column, corner], [row, rest, row], [corner, column, corner]])
    return convolve(image, kernel.reshape((1,) * (np.ndim(image) - 2) + (3, 3)), mode="nearest")


def expose(
    scene: Scene, charge: Image, hot: Image, time: float, rng: Random
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Rate (DN/s) and flags of a flat of many groups: errors of a slope, particles that the jump step left."""
    chip, rate = scene.chip, charge + hot
    groups = max(time / chip.frame, 2)
    seen = rate + 1.09 * (rng.poisson(rate * time) / time - rate)
    n = rng.poisson(3e-5 * rate.size * time / 100)
    y, x = (rng.integers(0, k, n) for k in rate.shape)
    for k in range(3):
        b, a = np.minimum(y + k // 2, rate.shape[0] - 1), np.minimum(x + k % 2, rate.shape[1] - 1)
        np.add.at(seen, (b, a), rng.lognormal(5.5, 1, n) * 0.4**k / time)
    noise = np.full(rate.shape, chip.noise * np.sqrt(12 / groups) / time)
    if scene.outputs:
        noise *= np.repeat(scene.outputs, scene.shape[1] // len(scene.outputs))
    out = (couple(seen, chip) + rng.normal(0, noise)) / chip.gain
    flags = np.where(rng.random(rate.shape) < 0.01, JUMP, 0).astype(np.uint32)
    full = couple(rate, chip) * chip.frame * 2 > chip.well
    out[full] = np.nan
    flags[full] |= SATURATED | DNU
    return out.astype(np.float32), flags


def expose_ramps(
    scene: Scene, charge: Image, hot: Image, time: float, rng: Random
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Linear ramp (groups, ny, nx) in DN, and GROUPDQ: saturated groups, grown by a pixel as the step does."""
    chip, groups = scene.chip, max(int(time / scene.chip.frame), 4)
    steps = rng.poisson(np.broadcast_to((charge + hot) * chip.frame, (groups, *charge.shape))).astype(np.float32)
    n = rng.poisson(5 * charge.size * (18e-4) ** 2 * time)
    g, y, x = (rng.integers(0, k, n) for k in steps.shape)
    for k in range(4):
        b, a = np.minimum(y + k // 2, charge.shape[0] - 1), np.minimum(x + k % 2, charge.shape[1] - 1)
        np.add.at(steps, (g, b, a), 10 ** rng.normal(3, 0.5, n) * 0.35**k)
    total = np.minimum(np.cumsum(steps, axis=0), 1.05 * chip.well)
    full = total >= 0.97 * chip.well
    out = couple(total, chip) + rng.normal(0, chip.noise, total.shape) + rng.normal(0, 25, charge.shape)
    grown = binary_dilation(full, np.ones((1, 3, 3), bool))
    return (out / chip.gain).astype(np.float32), np.where(grown, SATURATED, 0).astype(np.uint8)


# --- files -----------------------------------------------------------------------------------------------


def fill_header(header: Any, scene: Scene, time: float, number: int, keywords: dict[str, str]) -> None:
    """Keywords of a rate file."""
    header["TELESCOP"], header["DETECTOR"], header["S_RAMP"] = "JWST", scene.detector, "COMPLETE"
    of = {"MIRI": "MIRI", "NRS": "NIRSPEC", "NRC": "NIRCAM", "NIS": "NIRISS"}
    header["INSTRUME"] = next(name for short, name in of.items() if scene.detector.startswith(short))
    header["SUBSTRT1"], header["SUBSTRT2"] = scene.start
    header["SUBSIZE1"], header["SUBSIZE2"] = scene.shape[1], scene.shape[0]
    whole = scene.shape in ((2048, 2048), (1024, 1032))
    part = {"MIR": "SUB256", "NRS": "ALLSLITS", "NRC": "SUB640", "NIS": "SUBSTRIP256"}[scene.detector[:3]]
    header["SUBARRAY"] = "FULL" if whole else part
    header["FASTAXIS"], header["SLOWAXIS"] = {"NRS1": (2, 1), "NRS2": (-2, -1), "NIS": (-2, -1)}.get(
        scene.detector, (1, 2)
    )
    header["NINTS"], header["NGROUPS"], header["NFRAMES"] = 1, max(int(time / scene.chip.frame), 2), 1
    header["READPATT"], header["EFFEXPTM"], header["EXPTIME"] = (
        "FASTR1" if scene.chip is SIAS else "RAPID",
        time,
        time,
    )
    header["TFRAME"] = header["TGROUP"] = scene.chip.frame
    header["DATE-OBS"], header["TIME-OBS"] = f"2026-02-{number + 1:02d}", "05:00:00"
    for name, value in keywords.items():
        header[name] = value


def fit_ramps(scene: Scene, ramp: Any, groupdq: Any, time: float, folder: Path) -> tuple[Any, Any]:
    """Rate and flags of a ramp by the jump step and the ramp fit of ``jwst``."""
    import own_darks

    facts = own_darks.Facts(
        "MIRI" if scene.chip is SIAS else "NIRCAM", scene.chip.gain, scene.chip.noise / scene.chip.gain, 0, 0,
        scene.chip.frame, "FULL", "RAPID", scene.keywords["EXP_TYPE"],
    )  # fmt: skip
    noise = np.full(scene.shape, facts.noise)
    references = own_darks.write_references(folder / "references", facts, noise, scene.detector)
    path = own_darks.reduce(
        ramp[None], facts, scene.detector, references, folder / "one", 1, 1, flags=groupdq[None],
        steps={"saturation": "COMPLETE"},
    )  # fmt: skip
    with fits.open(path) as hdus:
        return hdus["SCI"].data[0].copy(), hdus["DQ"].data[0].copy()


def make_flats(scene: Scene, folder: Path, seed: int) -> Flats:
    """Write the rate files of a scene; gives the truth."""
    rng = np.random.default_rng([seed, *scene.name.encode()])
    truth = make_truth(scene, rng)
    (folder / "flats").mkdir(parents=True)
    hot = np.where(truth.kind == HOT, np.exp(rng.uniform(-2, 9, scene.shape)), 0) * 0.3 * scene.level
    sensitive = scene.sensitive
    for f, name in enumerate(scene.filters or ("",)):
        response = np.where(truth.poor[f] | (truth.kind != LOW_FILTER), truth.response, 1.0)
        charge = scene.level * collect(truth.light[f], truth.kind, response, sensitive, rng)
        for k, time in enumerate(scene.times):
            lamp = rng.normal(1, 0.02)
            if scene.ramps:
                ramp, groupdq = expose_ramps(scene, lamp * charge, hot, time, rng)
                rate, flags = fit_ramps(scene, ramp, groupdq, time, folder)
            else:
                rate, flags = expose(scene, lamp * charge, hot, time, rng)
            rate[~sensitive] = 0
            flags = np.where(sensitive, flags, np.uint32(REFERENCE | DNU)).astype(np.uint32)
            primary = fits.PrimaryHDU()
            keywords = scene.keywords | ({"FILTER": name} if name else {})
            fill_header(primary.header, scene, time, k, keywords)
            error = np.full(rate.shape, np.float32(0.01))
            hdus = [fits.ImageHDU(data, name=n) for n, data in (("SCI", rate), ("ERR", error), ("DQ", flags))]
            path = folder / "flats" / f"{name.lower() or 'flat'}_{k:02d}_rate.fits"
            fits.HDUList([primary, *hdus]).writeto(path)
            truth.files.append(path)
    return truth
