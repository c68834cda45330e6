"""Light of flats as instruments make it, for :mod:`own_flats`: imagers, masks, slices, slits, traces, orders.

Every function gives the illumination of a frame, (ny, nx), of any scale, from its shape and a generator of random
numbers. No line comes from the package's simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Image = NDArray[np.float64]
Shape = tuple[int, int]
Random = np.random.Generator


def waves(shape: Shape, rng: Random, scatter: float, order: int = 3) -> Image:
    """A smooth field of mean 0."""
    terms = np.arange(order + 1)
    weights = rng.normal(size=(order + 1, order + 1)) / (1 + terms[:, None] + terms)
    weights[0, 0] = 0
    across, along = (np.cos(np.outer(np.linspace(0, np.pi, n), terms)) for n in shape)
    out: Image = across @ weights @ along.T
    return out * scatter / out.std()


def edge(distance: Any, soft: float) -> Any:
    """Light at a distance inside an edge that is blurred by ``soft`` pixels."""
    return 0.5 * (1 + erf(np.asarray(distance) / (np.sqrt(2) * soft)))


def grid(shape: Shape) -> tuple[Image, Image]:
    """Rows and columns."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return y.astype(float), x.astype(float)


# --- imaged light ----------------------------------------------------------------------------------------


def imaged(
    shape: Shape, rng: Random, *, gradient: float = 0.15, vignette: float = 0, dust: int = 0, crosshatch: float = 0
) -> Image:
    """Even light; ``vignette``: light that a corner keeps; shadows of dust far from the detector and near it."""
    y, x = grid(shape)
    out = 1 + waves(shape, rng, gradient / 3)
    out *= 1 + gradient * ((x / shape[1] - 0.5) * rng.choice([-1, 1]) + 0.5 * (y / shape[0] - 0.5))
    if vignette:
        reach = np.hypot(y - shape[0] * rng.uniform(-0.1, 0.1), x - shape[1] * rng.uniform(-0.1, 0.1))
        out *= vignette + (1 - vignette) * edge(reach - 0.28 * min(shape), 0.07 * min(shape))
    for k in range(dust):
        b, a = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        r = np.hypot(y - b, x - a)
        if k % 3:  # on a filter: a ring, out of focus
            outer, inner = rng.uniform(8, 28), rng.uniform(0.2, 0.6)
            out *= 1 - rng.uniform(0.02, 0.16) * edge(outer - r, 1.5) * (1 - edge(inner * outer - r, 1.5))
        else:
            out *= 1 - rng.uniform(0.1, 0.4) * edge(rng.uniform(1.5, 6) - r, 0.7)
    return out * make_crosshatch(shape, rng, crosshatch) if crosshatch else out


def make_crosshatch(shape: Shape, rng: Random, scatter: float) -> Image:
    """Three families of lines that the crystal's planes leave in the response."""
    y, x = grid(shape)
    out = np.zeros(shape)
    for degrees in (rng.uniform(15, 30), rng.uniform(80, 95), rng.uniform(140, 160)):
        way = np.deg2rad(degrees)
        at = x * np.cos(way) + y * np.sin(way)
        for _ in range(4):
            out += np.sin(2 * np.pi * (at / rng.uniform(2.5, 12) + rng.random())) * (1 + waves(shape, rng, 0.4))
    return 1 + out * scatter / out.std()


def nd_squares(shape: Shape, rng: Random) -> Image:
    """A field with squares of little light, holders of a coronagraph, and the frame of a filter wheel at one side."""
    y, x = grid(shape)
    out, side = imaged(shape, rng, dust=8, crosshatch=0.005), shape[0] / 10
    for a in np.linspace(0.12, 0.88, 4):
        top, left = shape[0] * rng.uniform(0.72, 0.8), shape[1] * a + rng.uniform(-8, 8)
        inside = edge(y - top, 1.0) * edge(top + side - y, 1.0) * edge(x - left, 1.0) * edge(left + side - x, 1.0)
        out *= 1 - (1 - 10 ** rng.uniform(-3.2, -1.6)) * inside
    holder = shape[0] * 0.68 + 0.012 * x
    out *= 1 - 0.97 * edge(y - holder, 1.2) * edge(holder + 7 - y, 1.2)
    out *= edge(x - 0.02 * y - 0.05 * shape[1], 9.0)  # out of focus
    return out + 0.004


def coronagraph(shape: Shape, rng: Random) -> Image:
    """Two wedges that taper along the frame, round spots, and the support of the plate."""
    y, x = grid(shape)
    out = imaged(shape, rng, dust=6)
    for k in range(2):
        middle, reach = shape[0] * (0.3 + 0.3 * k) + rng.uniform(-10, 10), (x / shape[1] - 0.15) / 0.7
        wide = np.where((reach > 0) & (reach < 1), 1.2 + 8 * (reach if k else 1 - reach), 1e-6)
        out *= 1 - 0.999 * np.exp(-(((y - middle) / wide) ** 2))
    for a, wide in zip((0.2, 0.5, 0.8), (3.0, 5.0, 9.0), strict=True):
        r = np.hypot(y - shape[0] * 0.83 - rng.uniform(-6, 6), x - shape[1] * a)
        out *= 1 - 0.999 * np.exp(-((r / wide) ** 4))
    out *= 1 - 0.98 * edge(0.06 * shape[0] + 0.01 * x - y, 1.5)
    return out + 0.003


def miri_imager(shape: Shape, rng: Random) -> Image:
    """The imager's field; left of it a Lyot coronagraph with spot and bar, and three phase masks."""
    y, x = grid(shape)
    ny, nx = shape
    field = edge(x - 0.39 * nx - 0.045 * (y - ny / 2), 1.2)
    out = imaged(shape, rng, gradient=0.12, dust=6) * field * edge(ny - 14 - y, 1.5) * edge(nx - 22 - x, 1.5)
    for k, (low, high, right) in enumerate(
        ((0.02, 0.21, 0.22), (0.24, 0.43, 0.22), (0.46, 0.66, 0.22), (0.7, 0.98, 0.3))
    ):
        bottom, top, end = low * ny, high * ny, right * nx + 0.045 * (0.6 * ny - ny / 2)
        window = edge(y - bottom - 0.045 * x, 1.3) * edge(top - y - 0.045 * x, 1.3)
        window = window * edge(x - 10, 1.3) * edge(end - x + 0.045 * (y - ny / 2), 1.3)
        level = rng.uniform(0.5, 0.9) * (1 + waves(shape, rng, 0.03))
        b, a = (bottom + top) / 2, end / 2
        if k == 3:  # Lyot: spot, and the bar that holds it
            level *= 1 - 0.998 * edge(16 - np.hypot(y - b, x - a), 1.2)
            level *= 1 - 0.98 * edge(3.5 - np.abs(x - a - 0.05 * (y - b)), 0.9)
        else:  # the boundaries of the quadrants
            for axis in (y - b - 0.045 * (x - a), x - a + 0.045 * (y - b)):
                level *= 1 - rng.uniform(0.15, 0.45) * np.exp(-((axis / rng.uniform(1.2, 2.2)) ** 2))
        out += window * level
    return out + 0.01


def grism_field(shape: Shape, rng: Random) -> Image:
    """A field through a grism: its orders' soft edges, and the four spots on the pick-off mirror."""
    y, x = grid(shape)
    out = imaged(shape, rng, gradient=0.2, dust=5)
    out *= 0.55 + 0.45 * edge(x - 0.12 * shape[1], 12.0) * edge(0.93 * shape[1] - x, 20.0)
    for a, size in zip((0.2, 0.4, 0.6, 0.8), (4.5, 6.0, 8.0, 15.0), strict=True):
        r = np.hypot(y - shape[0] * 0.85, x - shape[1] * a - rng.uniform(-8, 8))
        out *= 1 - 0.97 * edge(size - r, 1.3)
    return out


# --- dispersed light -------------------------------------------------------------------------------------


def make_spectrum(
    n: int,
    rng: Random,
    *,
    lines: int = 0,
    fringes: float = 0,
    period: tuple[float, float] = (9.0, 25.0),
    cut: float = 0,
    narrow: float = 1.1,
) -> Callable[[Image], Image]:
    """Light along the dispersion: blaze, undulation, lines up and down, fringes, the edge of a blocking filter."""
    middle, wide = n * rng.uniform(0.35, 0.65), n * rng.uniform(0.45, 0.7)
    slow = [(rng.uniform(0.02, 0.06), rng.uniform(90, 400), rng.random()) for _ in range(3)]
    some = [(rng.uniform(0, n), rng.uniform(narrow, 3.5), rng.uniform(-0.5, 0.9)) for _ in range(lines)]
    first, change, phase = rng.uniform(*period), rng.uniform(-0.2, 0.2), rng.random()

    def spectrum(at: Image) -> Image:
        out = np.exp(-0.5 * ((at - middle) / wide) ** 2)
        for size, length, start in slow:
            out = out * (1 + size * np.sin(2 * np.pi * (at / length + start)))
        for place, sigma, height in some:
            out = out * (1 + height * np.exp(-0.5 * ((at - place) / sigma) ** 2))
        if fringes:
            out = out * (1 + fringes * np.sin(2 * np.pi * (at / first * (1 + change * at / n) + phase)))
        return np.asarray(out * edge(at - cut, 2.0) if cut else out)

    return spectrum


def paint(
    out: Image,
    center: Image,
    width: float | Image,
    spectrum: Callable[[Image], Image],
    *,
    soft: float,
    shear: float = 0,
    shift: float = 0,
    across: float = 0,
    factor: float = 1,
    ends: tuple[float, float] = (-1e9, 1e9),
) -> None:
    """Add a slice or trace to an image whose first axis is the dispersion, in place.

    ``center`` and ``width`` along it; wavelength is that axis plus ``shift`` plus ``shear`` times the place across;
    ``across``: how much the light changes from one border to the other; ``ends``: where it begins and stops.
    """
    half = np.broadcast_to(np.asarray(width, float) / 2, center.shape)
    low, high = int(np.floor((center - half).min() - 8)), int(np.ceil((center + half).max() + 9))
    low, high = max(low, 0), min(high, out.shape[1])
    if high <= low:
        return
    at, along = np.arange(low, high)[None] - center[:, None], np.arange(len(center), dtype=float)[:, None]
    profile = edge(at + half[:, None], soft) - edge(at - half[:, None], soft)
    light = spectrum(along + shift + shear * at) * (1 + across * at / (2 * half[:, None]))
    out[:, low:high] += factor * profile * light * edge(along - ends[0], 0.8) * edge(ends[1] - along, 0.8)


def mrs(shape: Shape, rng: Random, *, faint: int = 0) -> Image:
    """Two halves of curved slices of unequal width, with fringes; ``faint`` of them see a fifth of the light."""
    ny = shape[0]
    out, u = np.zeros(shape), np.linspace(-1, 1, ny)
    for first, last, count, sense in ((14, 500, 21, -1), (530, 1018, 16, 1)):
        pitch = (last - first) / count
        dim = rng.choice(count, faint, replace=False)
        spectrum = make_spectrum(ny, rng, fringes=rng.uniform(0.04, 0.14), lines=3, period=(8.0, 30.0))
        bow, straylight = rng.uniform(5, 13), rng.uniform(0.004, 0.025)
        for k in range(count):
            width = (pitch - rng.uniform(2.5, 5.5)) * (1 + 0.05 * u)
            center = first + pitch * (k + 0.5) + sense * bow * (u**2 - 0.4) * (0.5 + k / count) + 2.5 * u
            light = rng.uniform(0.75, 1.0) * (rng.uniform(0.13, 0.25) if k in dim else 1)
            paint(
                out, center, width, spectrum, soft=rng.uniform(0.7, 1.3), shear=rng.uniform(-0.12, 0.12),
                shift=rng.uniform(-30, 30), across=rng.uniform(-0.2, 0.2), factor=light,
            )  # fmt: skip
        out[:, int(first) : int(last)] += straylight * spectrum(np.arange(ny, dtype=float))[:, None]
    return out


def ifu(shape: Shape, rng: Random) -> Image:
    """Thirty slices that curve along x, on the upper and lower part of the frame, and a few shutters that leak."""
    ny, nx = shape
    out, u = np.zeros((nx, ny)), np.linspace(-1, 1, nx)
    common = make_spectrum(nx, rng, lines=6, cut=nx * rng.uniform(0.04, 0.1))
    starts = np.concatenate(
        [np.linspace(0.04, 0.45, 15, endpoint=False), np.linspace(0.55, 0.96, 15, endpoint=False)]
    )
    for k, start in enumerate(starts):
        pitch = 0.41 / 15 * ny
        center = ny * start + pitch / 2 + (k / 15 - 1) * 9 * u**2 + rng.uniform(-3, 3) * u + rng.uniform(-1, 1)
        paint(
            out, center, pitch * rng.uniform(0.62, 0.8), common, soft=rng.uniform(0.7, 1.1),
            shift=(-1) ** k * rng.uniform(5, 40), shear=rng.uniform(-0.08, 0.08),
            across=rng.uniform(-0.15, 0.15), factor=rng.uniform(0.8, 1),
        )  # fmt: skip
    for _ in range(5):
        center = ny * rng.uniform(0.46, 0.54) + rng.uniform(-6, 6) * u
        begin = nx * rng.uniform(0, 0.4)
        paint(
            out, center, rng.uniform(3, 5), common, soft=0.7, factor=rng.uniform(0.1, 0.5), ends=(begin, begin + 900)
        )
    return np.ascontiguousarray(out.T) + 0.0005


def fixed_slits(shape: Shape, rng: Random) -> Image:
    """Five slits, each with its own beginning."""
    ny, nx = shape
    out, u = np.zeros((nx, ny)), np.linspace(-1, 1, nx)
    for k, height in enumerate((0.11, 0.11, 0.12, 0.055, 0.11)):
        center = ny * (0.12 + 0.19 * k) + rng.uniform(3, 14) * u + rng.uniform(-8, 8) * u**2
        spectrum = make_spectrum(nx, rng, lines=6, cut=nx * rng.uniform(0.05, 0.2))
        last = nx * rng.uniform(0.85, 1.1)
        paint(
            out, center, ny * height, spectrum, soft=0.8, shear=rng.uniform(-0.1, 0.1), across=0.1, ends=(-99, last)
        )
    return np.ascontiguousarray(out.T) + 0.0003


def mos(shape: Shape, rng: Random, *, steep: float = 0.07) -> Image:
    """Traces of shutters, three to six pixels wide, some of two or three with bars, inclined up to ``steep``."""
    ny, nx = shape
    out, u = np.zeros((nx, ny)), np.linspace(-0.5, 0.5, nx)
    spectrum, bow = make_spectrum(nx, rng, lines=7), rng.uniform(-8, 8)
    row = 0.02 * ny
    while row < 0.98 * ny:
        width, shutters = rng.uniform(3, 6), rng.integers(1, 4)
        tilt = 2 * steep * (row / ny - 0.5) * nx
        begin, factor, shift = rng.uniform(-0.3, 0.35) * nx, rng.uniform(0.5, 1), rng.uniform(-0.4, 0.4) * nx
        ends = (begin, begin + rng.uniform(0.4, 1.2) * nx)
        for _ in range(shutters):
            center = row + width / 2 + tilt * u + bow * u**2
            paint(out, center, width, spectrum, soft=0.6, shear=0.03, shift=shift, factor=factor, ends=ends)
            row += width + 0.9
        row += rng.choice([3.0, 8.0, 20.0])
    return np.ascontiguousarray(out.T) + 0.0004


def soss(shape: Shape, rng: Random) -> Image:
    """Two curved orders of a slitless star with horns at their borders, on the background's step."""
    ny, nx = shape
    out, u = np.zeros((nx, ny)), np.linspace(0, 1, nx)
    along = np.arange(nx, dtype=float)
    for k, (start, bend, light) in enumerate(((0.25, 0.33, 1.0), (0.6, 0.5, 0.6))):
        spectrum = make_spectrum(nx, rng, lines=8, narrow=1.5)
        center = ny * (start + bend * (u - 0.35) ** 2) + rng.uniform(-3, 3)
        ends = (-99.0, nx * (1.5 if k == 0 else 0.6))
        paint(out, center, 20, spectrum, soft=1.2, factor=0.75 * light, ends=ends)
        for side in (-8.5, 8.5):
            paint(out, center + side, 3, spectrum, soft=1.0, factor=0.4 * light, ends=ends)
    out += 0.015 * (1 + edge(along - 0.35 * nx, 3.0))[:, None]
    return np.ascontiguousarray(out.T)
