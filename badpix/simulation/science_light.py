"""Light of simulated science programs on a detector: fields of stars and galaxies, clouds, slices, traces.

1. A sky (a visit's) is drawn once; each exposure sees it shifted by its dither.
2. Images: stars of a power law of fluxes and round galaxies, through a point spread function with wings; clouds with
   the power spectrum of a nebula.
3. Dispersed light: continua with lines, across slices (MRS, NIRSpec IFU) or in traces (MOS); fringes are fixed to the
   detector, lines move with the target's velocity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
FIELD = 3.0  # of the sky's width over the detector's
REACH = 6.0  # of a source's stamp, in its widths
WINGS = ((0.82, 1.0), (0.13, 2.2), (0.05, 5.0))  # share and width of the Gaussians of the point spread function


@dataclass(frozen=True)
class Program:
    """A program of science exposures.

    Attributes
    ----------
    detector, exp_type, optics
        DETECTOR, EXP_TYPE, and further keywords.
    kind : str
        ``field``, ``nebula``, ``slices_y``, ``slices_x`` or ``traces``.
    visits, exposures : int
        Visits, and exposures of each.
    pointings : int
        Dithers of each visit.
    noise : float
        Of one exposure without light, DN/s.
    gain : float
        Electrons per DN, times the seconds of an exposure.
    sky : tuple of float
        Background of each visit, DN/s.
    fwhm : float
        Of the point spread function, pixels.
    stars, galaxies : float
        Per thousand pixels.
    flat_error : float
        Pixel to pixel, of the light.
    """

    detector: str
    exp_type: str
    optics: dict[str, str]
    kind: str
    visits: int
    exposures: int
    pointings: int
    noise: float
    gain: float
    sky: tuple[float, ...]
    fwhm: float = 2.0
    stars: float = 0.0
    galaxies: float = 0.0
    flat_error: float = 0.002


PROGRAMS = {
    "deep": Program(
        "NRCB1",
        "NRC_IMAGE",
        {"FILTER": "F200W", "PUPIL": "CLEAR"},
        "field",
        3,
        10,
        10,
        0.015,
        1800.0,
        (0.12, 0.16, 0.21),
        stars=0.4,
        galaxies=4.0,
    ),
    "crowded": Program(
        "NRCB1",
        "NRC_IMAGE",
        {"FILTER": "F150W", "PUPIL": "CLEAR"},
        "field",
        3,
        8,
        8,
        0.03,
        600.0,
        (0.2, 0.25, 0.4),
        fwhm=1.6,
        stars=25.0,
    ),
    "nebula": Program(
        "NRCBLONG",
        "NRC_IMAGE",
        {"FILTER": "F444W", "PUPIL": "CLEAR"},
        "nebula",
        3,
        8,
        8,
        0.03,
        600.0,
        (0.3, 0.5, 0.7),
        fwhm=2.3,
        stars=2.0,
    ),
    "miri": Program(
        "MIRIMAGE",
        "MIR_IMAGE",
        {"FILTER": "F770W"},
        "field",
        3,
        10,
        10,
        0.15,
        500.0,
        (16.0, 19.0, 24.0),
        fwhm=2.5,
        stars=1.0,
        galaxies=1.0,
    ),
    "mrs": Program(
        "MIRIFUSHORT",
        "MIR_MRS",
        {"CHANNEL": "12", "BAND": "SHORT"},
        "slices_y",
        4,
        4,
        4,
        0.03,
        300.0,
        (0.5, 0.8, 1.5, 0.3),
    ),
    "ifu": Program(
        "NRS1",
        "NRS_IFU",
        {"GRATING": "G395H", "FILTER": "F290LP"},
        "slices_x",
        4,
        4,
        4,
        0.006,
        1500.0,
        (0.01, 0.03, 0.06, 0.02),
    ),
    "mos": Program(
        "NRS1",
        "NRS_MSASPEC",
        {"GRATING": "G235M", "FILTER": "F170LP"},
        "traces",
        4,
        6,
        3,
        0.005,
        1500.0,
        (0.02, 0.04, 0.06, 0.03),
    ),
}


def make_sky(rng: np.random.Generator, program: Program, shape: tuple[int, int]) -> dict[str, Any]:
    """What one visit looks at."""
    ny, nx = (int(FIELD * n) for n in shape)
    thousands = ny * nx / 1000
    stars, galaxies = rng.poisson(program.stars * thousands), rng.poisson(program.galaxies * thousands)
    flux = 12 * program.noise * rng.power(1.0, stars + galaxies) ** (-1 / 0.9)
    sky: dict[str, Any] = {
        "y": rng.uniform(0, ny, stars + galaxies),
        "x": rng.uniform(0, nx, stars + galaxies),
        "flux": np.minimum(flux, 3e4 * program.noise),
        "width": np.concatenate([np.zeros(stars), rng.gamma(3.0, 1.2, galaxies)]),
    }
    if program.kind == "nebula":
        sky["cloud"] = make_cloud(rng, (ny, nx)) * 10 * program.noise
    if program.kind in ("slices_y", "slices_x", "traces"):
        sky["lines"] = rng.uniform(0, 1, 12), rng.exponential(1.0, 12)
        sky["slope"], sky["level"], sky["center"] = rng.uniform(-1, 1), rng.exponential(1.0), rng.uniform(0.2, 0.8)
        sky["rows"] = np.sort(rng.choice(np.arange(4, shape[0] - 4, 7), max(shape[0] // 20, 1), replace=False))
        sky["bright"] = rng.exponential(1.0, len(sky["rows"]))
    return sky


def make_cloud(rng: np.random.Generator, shape: tuple[int, int]) -> Float:
    """A nebula: the exponential of a field with a power-law spectrum, mean about 1."""
    ny, nx = shape
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :])
    k[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.normal(size=shape)) * k**-1.7, shape)
    out: Float = np.exp(0.9 * field / field.std())
    return out


def paint(program: Program, sky: dict[str, Any], shape: tuple[int, int], offset: Float, fringes: Float) -> Float:
    """Light of one exposure without background, DN/s: (ny, nx).

    Parameters
    ----------
    program : Program
        What it is an exposure of.
    sky : dict
        From :func:`make_sky`.
    shape : tuple of int
        Of the detector.
    offset : ndarray
        (2,) dither in pixels, y and x.
    fringes : ndarray
        (ny, nx) response along the dispersion, fixed to the detector.
    """
    if program.kind in ("field", "nebula"):
        out = paint_sources(program, sky, shape, offset)
        if "cloud" in sky:
            y, x = (int(n + o) for n, o in zip(shape, offset, strict=True))
            out += sky["cloud"][y : y + shape[0], x : x + shape[1]]
        return out
    along_x = program.kind != "slices_y"
    size = shape if along_x else shape[::-1]
    spectrum = paint_spectrum(program, sky, size[1])
    across = paint_traces(sky, size, offset) if program.kind == "traces" else paint_slices(sky, size, offset)
    light = across * spectrum[None, :]
    return (light if along_x else light.T) * fringes


def paint_sources(program: Program, sky: dict[str, Any], shape: tuple[int, int], offset: Float) -> Float:
    """Stars and galaxies, averaged over 3 x 3 points of each pixel."""
    out = np.zeros(shape)
    fine = np.array([-1, 0, 1]) / 3
    sigma = program.fwhm / 2.3548
    for y, x, flux, width in zip(
        sky["y"] - shape[0] - offset[0], sky["x"] - shape[1] - offset[1], sky["flux"], sky["width"], strict=True
    ):
        for share, times in WINGS:
            s = np.hypot(sigma * times, width)
            reach = int(REACH * s) + 1
            ys = np.arange(max(int(y) - reach, 0), min(int(y) + reach + 1, shape[0]))
            xs = np.arange(max(int(x) - reach, 0), min(int(x) + reach + 1, shape[1]))
            if not len(ys) or not len(xs):
                continue
            gy = np.exp(-0.5 * ((ys[:, None] + fine - y) / s) ** 2).mean(axis=1)
            gx = np.exp(-0.5 * ((xs[:, None] + fine - x) / s) ** 2).mean(axis=1)
            out[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] += share * flux / (2 * np.pi * s * s) * gy[:, None] * gx
    return out


def paint_spectrum(program: Program, sky: dict[str, Any], length: int) -> Float:
    """A continuum with lines of 2.2 pixels, in units of DN/s at the peak of the source."""
    x = np.arange(length)
    places, heights = sky["lines"]
    out: Float = 8 * program.noise * sky["level"] * (1 + sky["slope"] * (x / length - 0.5))
    for place, height in zip(places, heights, strict=True):
        out += 20 * program.noise * height * np.exp(-0.5 * ((x - place * length) / 0.93) ** 2)
    return out


def paint_slices(sky: dict[str, Any], size: tuple[int, int], offset: Float) -> Float:
    """Slices of 24 pixels and gaps of 4; the source moves from slice to slice with the dither: (across, 1)."""
    y = np.arange(size[0])
    slices, within = y // 28, y % 28
    center = sky["center"] * (size[0] // 28) + offset[0] / 3
    profile = np.exp(-0.5 * ((within - 12 - offset[1]) / 3.0) ** 2) * np.exp(-0.5 * ((slices - center) / 1.5) ** 2)
    out: Float = np.where(within < 24, profile, 0)[:, None]
    return out


def paint_traces(sky: dict[str, Any], size: tuple[int, int], offset: Float) -> Float:
    """Traces of a few pixels that bend and are nodded by a shutter: (across, along)."""
    y, x = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
    out = np.zeros(size)
    for row, bright in zip(sky["rows"], sky["bright"], strict=True):
        center = row + offset[0] + 3 * (x / size[1] - 0.5) ** 2
        out += bright * np.exp(-0.5 * ((y - center) / 1.2) ** 2)
    return out


def make_fringes(rng: np.random.Generator, program: Program, shape: tuple[int, int]) -> Float:
    """Response along the dispersion of the MRS: fringes of 5 % with a phase of each slice; 1 elsewhere."""
    if program.kind != "slices_y":
        return np.ones(shape)
    phase = rng.uniform(0, 2 * np.pi, shape[1] // 28 + 1)[np.arange(shape[1]) // 28]
    period = 22.0
    out: Float = 1 + 0.05 * np.sin(2 * np.pi * np.arange(shape[0])[:, None] / period + phase)
    return out


def lies_between(program: Program, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels between slices: (ny, nx)."""
    if program.kind not in ("slices_y", "slices_x"):
        return np.zeros(shape, bool)
    axis = 1 if program.kind == "slices_y" else 0
    gap = np.arange(shape[axis]) % 28 >= 24
    out: NDArray[np.bool_] = np.broadcast_to(gap[None, :] if axis else gap[:, None], shape)
    return out
