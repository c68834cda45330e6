"""Scenes of simulated images, painted on a detector: stars and galaxies through a pixel-integrated PSF.

1. Scene: stars (power law of fluxes) and elliptical galaxies on the sky, in arcsec about the target.
2. PSF: a hexagonal aperture with an obstruction (a core, rings and spikes), or a Gaussian with wings; integrated over
   pixels, so that a narrow one is really undersampled.
3. Painting at the exact positions that the GWCS gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.image_faults import paint_clouds
from badpix.simulation.image_wcs import ARCSEC, Pointing

if TYPE_CHECKING:
    from badpix.simulation.image_setup import Setup


class Scene(NamedTuple):
    """Sources in the target's tangent plane: offsets in arcsec (east, north), peak-normalized fluxes."""

    stars: NDArray[Any]  # [n, 3]: east, north, total flux (MJy/sr pixel)
    galaxies: NDArray[Any]  # [n, 6]: east, north, total flux, size (arcsec), axis ratio, position angle (rad)
    clouds: NDArray[Any] = np.empty((0, 4))  # east, north, peak (MJy/sr), size (pixels)


def make_scene(rng: np.random.Generator, setup: Setup) -> Scene:
    """Sources over the whole dithered field: a 1/F^1.7 law of star fluxes from 3 to 50000 sigma."""
    ny, nx = setup.shape
    across = (nx * len(setup.detectors) * 1.08 + 4 * setup.dither) * setup.scale / 2
    up = (ny * 1.08 + 4 * setup.dither) * setup.scale / 2
    area = 4 * across * up / setup.scale**2 / 1e6
    sigma = np.hypot(setup.read_noise, np.sqrt(setup.sky / setup.gain))
    core = (setup.fwhm**2 + 0.9) * 1.5  # flux over peak, about
    n = rng.poisson(setup.stars * area)
    u = rng.random(n)
    low, high = 3.0, 5e4
    peak = sigma * (low**-0.7 + u * (high**-0.7 - low**-0.7)) ** (-1 / 0.7)
    stars = np.stack([rng.uniform(-across, across, n), rng.uniform(-up, up, n), peak * core], axis=1)
    m = rng.poisson(setup.galaxies * area)
    size = np.exp(rng.normal(np.log(4.0), 0.5, m)) * setup.scale  # half-light radius
    surface = sigma * np.exp(rng.normal(np.log(4.0), 1.0, m))
    flux = surface * 2 * np.pi * (size / setup.scale) ** 2
    galaxies = np.stack(
        [
            rng.uniform(-across, across, m),
            rng.uniform(-up, up, m),
            flux,
            size,
            rng.uniform(0.25, 1, m),
            rng.uniform(0, np.pi, m),
        ],
        axis=1,
    )
    return Scene(stars, galaxies)


# --- painting ---------------------------------------------------------------------------------------------

OVERSAMPLE = 6


def make_psf(setup: Setup) -> NDArray[Any]:
    """The pixel-integrated PSF, sampled OVERSAMPLE times a pixel, sum over one phase = 1."""
    half = (60 if setup.saturated else 30) * OVERSAMPLE
    if setup.psf == "hexagon":
        psf = _hexagon_psf(setup.fwhm, half)
    else:
        r2 = np.add.outer(np.arange(-half, half + 1.0) ** 2, np.arange(-half, half + 1.0) ** 2) / OVERSAMPLE**2
        s = setup.fwhm / 2.3548
        psf = sum(w / (k * s) ** 2 * np.exp(-r2 / (2 * (k * s) ** 2)) for w, k in ((0.8, 1), (0.15, 2.5), (0.05, 6)))
    box = np.ones(OVERSAMPLE + 1)
    box[[0, -1]] = 0.5  # the pixel's edges: trapezium rule, symmetric about its center
    for axis in (0, 1):
        psf = np.apply_along_axis(np.convolve, axis, psf, box, mode="same")
    out: NDArray[Any] = psf / psf.sum() * OVERSAMPLE**2
    return out


def _hexagon_psf(fwhm: float, half: int) -> NDArray[Any]:
    """Diffraction by a hexagon with a central hole and a strut; ``fwhm`` in pixels."""
    pupil = 96
    y, x = np.mgrid[-pupil // 2 : pupil // 2, -pupil // 2 : pupil // 2] / (pupil / 2)
    inside = np.maximum(np.abs(y), np.abs(y) / 2 + np.abs(x) * np.sqrt(3) / 2) < 0.93
    struts = (np.abs(x) < 0.02) & (y > 0)
    aperture = inside & (np.maximum(np.abs(x), np.abs(y)) > 0.14) & ~struts
    grid = round(pupil * fwhm * OVERSAMPLE / 1.03)
    grid += grid % 2
    field_ = np.zeros((grid, grid))
    field_[:pupil, :pupil] = aperture
    psf = np.abs(np.fft.fftshift(np.fft.fft2(field_))) ** 2
    c = grid // 2
    reach = min(half, c - 1)
    return psf[c - reach : c + reach + 1, c - reach : c + reach + 1]


def paint(scene: Scene, pointing: Pointing, psf: NDArray[Any], setup: Setup) -> NDArray[Any]:
    """The scene on a detector without sky and noise, float64 (ny, nx), MJy/sr."""
    image = paint_stars(scene.stars, pointing, psf, setup)
    x, y = _to_pixels(scene.galaxies, pointing, setup)
    for i, row in enumerate(scene.galaxies):
        _add_galaxy(image, x[i], y[i], row, pointing.roll, setup)
    if len(scene.clouds):
        image += paint_clouds(setup.shape, *_to_pixels(scene.clouds, pointing, setup), scene.clouds)
    return image


def paint_stars(stars: NDArray[Any], pointing: Pointing, psf: NDArray[Any], setup: Setup) -> NDArray[Any]:
    """Stars [n, 3] (east, north, flux) on a detector, float64 (ny, nx)."""
    from scipy.ndimage import spline_filter

    image = np.zeros(setup.shape)
    smooth = spline_filter(psf, order=3)
    radius = (psf.shape[0] // 2) // OVERSAMPLE - 1
    for x, y, flux in zip(*_to_pixels(stars, pointing, setup), stars[:, 2], strict=True):
        reach = radius if flux > 2 else min(radius, 12)
        _add_star(image, x, y, flux, smooth, reach)
    return image


def _to_pixels(sources: NDArray[Any], pointing: Pointing, setup: Setup) -> tuple[NDArray[Any], NDArray[Any]]:
    """Exact detector positions: the stored inverse, then two steps of Newton on the forward chain."""
    ra0, dec0 = setup.target
    dec = dec0 + sources[:, 1] * ARCSEC
    ra = ra0 + sources[:, 0] * ARCSEC / np.cos(np.radians(dec0))
    wcs = pointing.wcs
    x, y = (np.asarray(v, float) for v in wcs.invert(ra, dec, with_bounding_box=False))
    cosd = np.cos(np.radians(dec0))
    for _ in range(2):
        r0, d0 = wcs(x, y, with_bounding_box=False)
        rx, dx = wcs(x + 1, y, with_bounding_box=False)
        ry, dy = wcs(x, y + 1, with_bounding_box=False)
        a, b, c, d = (rx - r0) * cosd, (ry - r0) * cosd, dx - d0, dy - d0
        u, v = (ra - r0) * cosd, dec - d0
        det = a * d - b * c
        x, y = x + (d * u - b * v) / det, y + (a * v - c * u) / det
    return x + pointing.error[0], y + pointing.error[1]


def _add_star(image: NDArray[Any], x: float, y: float, flux: float, smooth: NDArray[Any], reach: int) -> None:
    from scipy.ndimage import map_coordinates

    ny, nx = image.shape
    x0, y0 = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    xs, ys = (
        np.arange(max(0, x0 - reach), min(nx, x0 + reach + 1)),
        np.arange(max(0, y0 - reach), min(ny, y0 + reach + 1)),
    )
    if not len(xs) or not len(ys):
        return
    middle = smooth.shape[0] // 2
    at = np.meshgrid((ys - y) * OVERSAMPLE + middle, (xs - x) * OVERSAMPLE + middle, indexing="ij")
    image[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] += flux * map_coordinates(smooth, at, order=3, prefilter=False)


def _add_galaxy(image: NDArray[Any], x: float, y: float, row: NDArray[Any], roll: float, setup: Setup) -> None:
    """An elliptical profile as a sum of Gaussians (a steep center, long wings), widened by the PSF."""
    _, _, flux, size, ratio, angle = row
    ny, nx = image.shape
    re = size / setup.scale
    reach = int(7 * re) + 4
    x0, y0 = round(x), round(y)
    xs, ys = (
        np.arange(max(0, x0 - reach), min(nx, x0 + reach + 1)),
        np.arange(max(0, y0 - reach), min(ny, y0 + reach + 1)),
    )
    if not len(xs) or not len(ys):
        return
    dx, dy = np.meshgrid(xs - x, ys - y)
    turn = angle - np.radians(roll)
    u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    seeing = (setup.fwhm / 2.3548) ** 2 + 1 / 12
    total = np.zeros_like(dx)
    for weight, width in ((0.15, 0.25), (0.35, 0.6), (0.35, 1.2), (0.15, 2.5)):
        a2, b2 = (width * re) ** 2 + seeing, (width * re * ratio) ** 2 + seeing
        total += weight / (2 * np.pi * np.sqrt(a2 * b2)) * np.exp(-(u * u / a2 + v * v / b2) / 2)
    image[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1] += flux * total
