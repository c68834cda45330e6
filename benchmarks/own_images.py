"""Dithered images of a generator of their own: no line of it is that of ``badpix.simulation``.

1. Optics: 18 hexagonal segments with errors of their own, gaps and three struts; intensity by Fourier transform at
   three wavelengths of the filter; the pixel, charge diffusion and inter-pixel capacitance as factors of its
   transform. The pattern stays with the telescope, so that spikes turn on the sky with the roll.
2. Sky: stars by a broken power law of fluxes, bulges and disks, filaments of a cloud on a fine grid, transients and
   moving objects.
3. Pointing: a polynomial of 4th degree and the pipeline's own transform from V2V3 to the sky; the files are written
   by the pipeline's own models.
4. Detector: response errors, read noise that differs from pixel to pixel, pink noise in the order of reading, hot and
   noisy pixels that stay, dead ones that are known, saturation (whole, and of the late groups only), tracks of
   particles at random angles, snowballs with halos, showers, trails.
5. ERR and VAR_* as a pipeline would say: photons by what was measured, the read noise of a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter, map_coordinates

Image = NDArray[np.float64]
OVER = 4  # points a pixel of the PSF
FINE = 3  # points a pixel of the grid of diffuse light
ASEC = 206264.806
IPC = np.array([[0.0004, 0.005, 0.0004], [0.005, 0.9784, 0.005], [0.0004, 0.005, 0.0004]])
DIFFUSION = 0.22  # pixels
SQUARE = ((0, 0), (1, 0), (0, 1), (1, 1))
DITHERS = ((0.0, 0.0), (7.37, -4.18), (-5.81, 9.66), (11.09, 6.27), (-9.4, -8.3), (3.2, 14.7))


def square(step: float) -> tuple[tuple[float, float], ...]:
    """Dithers on a square of this many pixels."""
    return tuple((step * x, step * y) for x, y in SQUARE)


@dataclass(frozen=True)
class Field:
    """What is observed and what goes wrong; noise in MJy/sr, densities a million pixels."""

    wave: float = 1.15  # microns
    name: str = "F115W"
    instrument: str = "NIRCAM"
    scale: float = 0.0311  # arcsec a pixel
    size: int = 512
    dithers: tuple[tuple[float, float], ...] = DITHERS[:4]  # pixels
    rolls: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # degrees
    stars: float = 1500.0
    galaxies: float = 150.0
    saturated: int = 0
    cloud: float = 0.0  # usual height of the filaments, sigma
    sky: float = 0.3
    read: float = 0.014
    photons: float = 900.0  # electrons a MJy/sr
    pink: float = 0.15  # rms of 1/f noise, sigma
    gradient: float = 0.0  # of the sky, differs between exposures; share of the sky
    unmatched: float = 0.0  # share of the sky by which levels differ, without a keyword
    hot: float = 60.0
    particles: float = 700.0
    snowballs: float = 3.0
    trail: tuple[float, float] = (10.0, 3.5)  # peak (sigma) and FWHM (pixels), in the second exposure
    transients: tuple[tuple[float, tuple[int, ...]], ...] = ()  # peak (sigma), exposures
    movers: tuple[tuple[float, float], ...] = ()  # peak (sigma), pixels an exposure
    err_factor: float = 1.0
    flux_error: float = 0.0
    pointing_error: float = 0.0  # pixels
    spoiled: float = 0.0  # share of the pixels of the first exposure that are hit
    misplaced: float = 0.0  # pixels by which the last exposure's WCS is off
    error_missing: bool = False  # ERR of the first exposure is NaN

    @property
    def sigma(self) -> float:
        """Noise on blank sky."""
        return float(np.hypot(self.read, np.sqrt(self.sky / self.photons)))


MIRI = {
    "wave": 10.0,
    "name": "F1000W",
    "instrument": "MIRI",
    "scale": 0.11,
    "sky": 25.0,
    "read": 0.05,
    "photons": 400.0,
}
SHORT = {"wave": 1.5, "name": "F150W"}
RED = {"wave": 2.0, "name": "F200W"}
FIELDS: dict[str, Field] = {
    "ordinary": Field(),
    "ordinary 2.0": Field(**RED),
    "30 degrees": Field(rolls=(0, 0, 30, 30), **SHORT),
    "90 degrees, saturated": Field(rolls=(0, 0, 90, 90), saturated=3, **SHORT),
    "four angles": Field(rolls=(0, 25, 50, 75), saturated=1),
    "steps 0.5": Field(dithers=square(0.5), hot=1500),
    "steps 1": Field(dithers=square(1.0), hot=1500),
    "steps 1.5": Field(dithers=square(1.5), hot=1500),
    "steps 2": Field(dithers=square(2.0), hot=1500),
    "mosaic of 2": Field(dithers=((-200.2, 0.4), (199.3, -0.3)), rolls=(0, 0), **SHORT),
    "gaps": Field(dithers=((0, 0), (85.3, 60.2), (-74.6, 52.9), (61.8, -66.1)), **SHORT),
    "transients": Field(
        transients=tuple((p, g) for p in (45.0, 120.0, 400.0) for g in ((0,), (3,), (0, 2), (1, 2))),
        movers=((180.0, 4.0), (90.0, 9.0), (60.0, 16.0)), **SHORT,
    ),
    "stripes": Field(pink=1.4),
    "crowded": Field(size=320, stars=40_000, galaxies=0, **SHORT),
    "nebula": Field(size=384, cloud=30.0, **SHORT),
    "wide trail": Field(trail=(3.0, 12.0), **SHORT),
    "halos": Field(snowballs=40, **SHORT),
    "MIRI gradients": Field(gradient=0.1, unmatched=0.05, stars=300, snowballs=15, **MIRI),
    "mixture": Field(
        unmatched=0.08, gradient=0.05, pink=0.5, err_factor=0.8, flux_error=0.05, pointing_error=0.2, snowballs=20,
        hot=600, trail=(3.0, 12.0), **SHORT,
    ),
    "10 % hit": Field(spoiled=0.1),
    "ERR missing": Field(error_missing=True),
    "misplaced": Field(misplaced=64.0),
}  # fmt: skip


# --- optics -----------------------------------------------------------------------------------------------


def make_pupil(rng: np.random.Generator, step: float, number: int) -> tuple[Image, Image]:
    """Transmission and path error (nm) of the segmented mirror on ``number`` points of ``step`` m to a side."""
    at = (np.arange(number) - number // 2) * step
    x, y = np.meshgrid(at, at)
    open_, path = np.zeros_like(x), np.zeros_like(x)
    pitch, half = 1.327, 0.657  # flat to flat with the gap; half of a segment, m
    for q in range(-2, 3):
        for r in range(-2, 3):
            if (q, r) == (0, 0) or abs(q + r) > 2:
                continue
            u, v = x - pitch * np.sqrt(0.75) * q, y - pitch * (r + q / 2)
            inside = (np.abs(v) < half) & (np.abs(u) * np.sqrt(0.75) + np.abs(v) / 2 < half)
            open_[inside] = 1
            a, b, c, d = rng.normal(0, (18, 12, 12, 8))
            path[inside] += (a + b * u + c * v + d * 3 * (u * u - v * v))[inside]
    struts = (np.abs(x) < 0.06) & (y > 0.3)
    for side in (-1, 1):  # two more at 30 degrees from the vertical
        struts |= (np.abs(x * np.cos(np.pi / 6) - side * y * np.sin(np.pi / 6)) < 0.055) & (y < -0.3) & (side * x < 0)
    return open_ * ~struts, path


def make_psf(rng: np.random.Generator, field: Field) -> Image:
    """What a pixel gets of a star at each offset, OVER points a pixel; the pixels of one phase sum to 1."""
    number = 2048 if field.saturated else 1024
    total = np.zeros((number, number))
    step = field.wave * 1e-6 * OVER / (number * field.scale / ASEC)
    count = int(6.7 / step) // 2 * 2
    open_, path = make_pupil(rng, step, count)
    for shade in (0.91, 1.0, 1.09):
        phase = np.exp(2j * np.pi * path * 1e-3 / (field.wave * shade))
        plane = np.zeros((number, number), complex)
        plane[:count, :count] = open_ * phase
        one = np.abs(np.fft.fftshift(np.fft.fft2(plane))) ** 2
        middle = number // 2
        at = (np.arange(number) - middle) / shade + middle  # a longer wave makes a larger pattern
        total += map_coordinates(one, np.meshgrid(at, at, indexing="ij"), order=3, mode="constant") / shade**2
    k = np.fft.fftfreq(number) * OVER  # cycles a pixel
    blur = np.sinc(k) * np.exp(-2 * (np.pi * DIFFUSION * k) ** 2)
    couple = sum(
        IPC[j + 1, i + 1] * np.exp(2j * np.pi * (k[:, None] * j + k * i)) for j in (-1, 0, 1) for i in (-1, 0, 1)
    )
    psf = np.fft.ifft2(np.fft.fft2(np.fft.ifftshift(total)) * np.outer(blur, blur) * couple).real
    psf = np.fft.fftshift(psf)
    return np.asarray(psf / psf.sum() * OVER**2)


# --- pointing ---------------------------------------------------------------------------------------------


class Pointing(NamedTuple):
    """One exposure: its model with the GWCS, and where the sky really falls."""

    model: Any
    to_pixel: Any  # (xi, eta) in arcsec about the target -> x, y
    to_sky: Any  # x, y -> xi, eta


TARGET = (150.116, 2.207)
TURN = 62.0  # degrees: roll of the first exposures


def make_pointing(field: Field, number: int, wrong: tuple[float, float]) -> Pointing:
    """Metadata and GWCS of an exposure; ``wrong`` pixels lie between them and the sky."""
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling import models
    from gwcs import coordinate_frames as cf
    from jwst.assign_wcs import pointing
    from stdatamodels.jwst import datamodels

    n, s = field.size, field.scale
    middle, place = (n - 1) / 2, (85.0, -492.0)
    a = {
        "c1_0": -s * 1.0011,
        "c0_1": s * 2e-3,
        "c2_0": 2e-7,
        "c1_1": -6e-7,
        "c0_2": 1.4e-7,
        "c2_1": 2e-12,
        "c4_0": 3e-15,
    }
    b = {
        "c1_0": s * 1.4e-3,
        "c0_1": s * 0.9985,
        "c2_0": -3e-7,
        "c1_1": 1.8e-7,
        "c0_2": 5e-7,
        "c0_3": -3e-12,
        "c2_2": 2e-15,
    }
    bend = models.Polynomial2D(4, **a), models.Polynomial2D(4, **b)
    grid = np.linspace(-0.6 * n, 0.6 * n, 31)
    u, v = np.meshgrid(grid, grid)
    power = [(i, j) for i in range(6) for j in range(6 - i)]
    at = bend[0](u, v) / s, bend[1](u, v) / s
    matrix = np.stack([(at[0] / n).ravel() ** i * (at[1] / n).ravel() ** j for i, j in power], 1)
    back = []
    for values in (u, v):
        c = np.linalg.lstsq(matrix, values.ravel(), rcond=None)[0]
        back.append(
            models.Polynomial2D(
                5, **{f"c{i}_{j}": w / (n * s) ** (i + j) for (i, j), w in zip(power, c, strict=True)}
            )
        )
    split = models.Mapping((0, 1, 0, 1))
    chain = (
        models.Shift(-middle) & models.Shift(-middle)
        | split
        | bend[0] & bend[1]
        | models.Shift(place[0]) & models.Shift(place[1])
    )
    chain.inverse = (
        models.Shift(-place[0]) & models.Shift(-place[1])
        | split
        | back[0] & back[1]
        | models.Shift(middle) & models.Shift(middle)
    )
    model = datamodels.ImageModel((n, n))
    roll = TURN + field.rolls[number]
    off = np.array(field.dithers[number]) * s
    turn = np.radians(TURN)  # dithers in the frame of the first roll
    east, north = off[0] * np.cos(turn) + off[1] * np.sin(turn), -off[0] * np.sin(turn) + off[1] * np.cos(turn)
    w = model.meta.wcsinfo
    w.ra_ref, w.dec_ref = TARGET[0] + east / 3600 / np.cos(np.radians(TARGET[1])), TARGET[1] + north / 3600
    w.v2_ref, w.v3_ref, w.roll_ref, w.vparity, w.v3yangle = *place, roll, -1, 0.0
    frames = (
        cf.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix)),
        cf.Frame2D(name="v2v3", axes_order=(0, 1), axes_names=("v2", "v3"), unit=(units.arcsec, units.arcsec)),
        cf.CelestialFrame(name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg)),
    )
    to_world = pointing.v23tosky(model)  # takes arcsec
    wcs = gwcs.WCS([(frames[0], chain), (frames[1], to_world), (frames[2], None)])
    wcs.bounding_box = ((-0.5, n - 0.5), (-0.5, n - 0.5))
    model.meta.wcs = wcs

    def to_sky(x: Image, y: Image) -> tuple[Image, Image]:
        ra, dec = wcs(x - wrong[0], y - wrong[1], with_bounding_box=False)
        return project(ra, dec)

    def to_pixel(xi: Image, eta: Image) -> tuple[Image, Image]:
        x, y = np.full(np.shape(xi), middle), np.full(np.shape(xi), middle)
        for _ in range(6):
            f, g = to_sky(x, y)
            fx, gx = to_sky(x + 0.5, y)
            fy, gy = to_sky(x, y + 0.5)
            p, q, r, t = 2 * (fx - f), 2 * (fy - f), 2 * (gx - g), 2 * (gy - g)
            det = p * t - q * r
            x, y = x + (t * (xi - f) - q * (eta - g)) / det, y + (p * (eta - g) - r * (xi - f)) / det
        return x, y

    return Pointing(model, to_pixel, to_sky)


def project(ra: Any, dec: Any) -> tuple[Image, Image]:
    """Gnomonic projection about the target, arcsec."""
    r, d, d0 = np.radians(np.asarray(ra) - TARGET[0]), np.radians(dec), np.radians(TARGET[1])
    c = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(r)
    return np.cos(d) * np.sin(r) / c * ASEC, (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(r)) / c * ASEC


def unproject(xi: float, eta: float) -> tuple[float, float]:
    """RA and Dec (degrees) of a place of the tangent plane."""
    x, y, d0 = xi / ASEC, eta / ASEC, np.radians(TARGET[1])
    ra = np.arctan2(x, np.cos(d0) - y * np.sin(d0))
    dec = np.arctan2((np.sin(d0) + y * np.cos(d0)) * np.cos(ra), np.cos(d0) - y * np.sin(d0))
    return TARGET[0] + float(np.degrees(ra)), float(np.degrees(dec))


# --- sky --------------------------------------------------------------------------------------------------


class Sky(NamedTuple):
    """Stars [n, 3] (xi, eta in arcsec, flux), diffuse light on the fine grid, and what changes."""

    stars: Image
    diffuse: Image | None
    extent: float  # half the side of the fine grid, pixels
    events: list[dict[str, Any]]


def draw_sky(rng: np.random.Generator, field: Field, peak: float) -> Sky:
    """Sources over all that the exposures see; ``peak``: largest share of a star that one pixel gets."""
    reach = field.size / 2 * (1.42 if any(field.rolls) else 1.05) + np.abs(field.dithers).max() * 1.42 + 45
    reach = max(reach, field.size / 2 * 1.42 + 20)
    area = (2 * reach) ** 2 / 1e6
    unit = field.sigma / peak
    number = rng.poisson(field.stars * area)
    u = rng.random(number)
    height = 2.0 * (1 - u) ** (-1 / 0.6)  # a broken law: -1.6, above 60 sigma -2
    height = np.minimum(np.where(height > 60, 60 * (height / 60) ** 0.6, height), 3e4)
    stars = np.column_stack([*rng.uniform(-reach, reach, (2, number)), height * unit])
    inner = 0.28 * field.size
    glare = np.column_stack(
        [*rng.uniform(-inner, inner, (2, field.saturated)), rng.uniform(3e3, 8e3, field.saturated) / peak]
    )
    stars = np.concatenate([stars, glare])
    stars[:, :2] *= field.scale
    events = []
    for height_, groups in field.transients:
        place = rng.uniform(-inner, inner, 2) * field.scale
        events.append({"place": place, "rate": np.zeros(2), "flux": height_ * unit, "groups": groups})
    for height_, speed in field.movers:
        angle = rng.uniform(0, 2 * np.pi)
        rate = speed * field.scale * np.array([np.cos(angle), np.sin(angle)])
        place = rng.uniform(-inner, inner, 2) * field.scale
        events.append(
            {"place": place, "rate": rate, "flux": height_ * unit, "groups": tuple(range(len(field.dithers)))}
        )
    side = int(2 * reach * FINE)
    diffuse = draw_galaxies(rng, field, side, area) if field.galaxies else None
    if field.cloud:
        diffuse = (0 if diffuse is None else diffuse) + field.cloud * field.sigma * draw_filaments(rng, side)
    return Sky(stars, diffuse, reach, events)


def draw_galaxies(rng: np.random.Generator, field: Field, side: int, area: float) -> Image:
    """Bulges and disks, MJy/sr on the fine grid."""
    out = np.zeros((side, side))
    for _ in range(rng.poisson(field.galaxies * area)):
        size, ratio, angle = rng.lognormal(1.2, 0.5), rng.uniform(0.2, 1), rng.uniform(0, np.pi)
        half = int(min(8 * size, 45) * FINE)
        at = np.arange(-half, half + 1) / FINE
        x, y = np.meshgrid(at, at)
        u, v = x * np.cos(angle) + y * np.sin(angle), (y * np.cos(angle) - x * np.sin(angle))
        r = np.hypot(u, v / ratio) / size
        light = np.exp(-1.68 * r) + rng.uniform(0, 8) * np.exp(-3.67 * ((9 * r * r + 0.02) ** 0.125 * 2 - 1))
        light = light * field.sigma * rng.lognormal(1.0, 1.0)
        y0, x0 = rng.integers(0, side, 2)
        rows, cols = (slice(max(0, c - half), min(side, c + half + 1)) for c in (y0, x0))
        out[rows, cols] += light[
            rows.start - y0 + half : rows.stop - y0 + half, cols.start - x0 + half : cols.stop - x0 + half
        ]
    return out


def draw_filaments(rng: np.random.Generator, side: int) -> Image:
    """A turbulent cloud with ridges; its usual height is 1."""
    k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)) * FINE * 300 + 0.7

    def noise(slope: float) -> Image:
        field = irfft2(rfft2(rng.normal(size=(side, side))) * k**-slope, (side, side))
        return np.asarray(field / field.std())

    cloud = np.exp(0.8 * noise(1.9)) * (0.35 + 1.6 * np.exp(-np.abs(noise(1.8)) / 0.12))
    return np.asarray(gaussian_filter(cloud, 1.0))


def paint_stars(stars: Image, pointing: Pointing, smooth: Image, field: Field) -> Image:
    """Stars through the PSF (prefiltered for splines) on a detector."""
    out = np.zeros((field.size, field.size))
    if not len(stars):
        return out
    middle, most = smooth.shape[0] // 2, smooth.shape[0] // 2 // OVER - 3
    for x, y, flux in zip(*pointing.to_pixel(stars[:, 0], stars[:, 1]), stars[:, 2], strict=True):
        reach = int(min(most, max(10, 3 * np.sqrt(flux / field.sigma))))
        rows, cols = (np.arange(max(0, int(c) - reach), min(field.size, int(c) + reach + 2)) for c in (y, x))
        if len(rows) and len(cols):
            at = np.meshgrid((rows - y) * OVER + middle, (cols - x) * OVER + middle, indexing="ij")
            out[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] += flux * map_coordinates(
                smooth, at, order=3, prefilter=False
            )
    return out


def paint_diffuse(sky: Sky, pointing: Pointing, smooth: Image, field: Field) -> Image:
    """Diffuse light, convolved with the turned PSF, at the pixels of a detector."""
    n, reach = field.size, 36
    assert sky.diffuse is not None
    c = (n - 1) / 2
    sky_at = [
        np.array(pointing.to_sky(np.array([x]), np.array([y]))).ravel() for x, y in ((c, c), (c + 1, c), (c, c + 1))
    ]
    jacobian = np.column_stack([sky_at[1] - sky_at[0], sky_at[2] - sky_at[0]]) / field.scale
    at = np.arange(-reach * FINE, reach * FINE + 1) / FINE
    eta, xi = np.meshgrid(at, at, indexing="ij")
    x, y = np.einsum("ij,jkl->ikl", np.linalg.inv(jacobian), np.stack([xi, eta]))
    kernel = map_coordinates(
        smooth, [y * OVER + smooth.shape[0] // 2, x * OVER + smooth.shape[0] // 2], order=3, prefilter=False
    )
    padded = np.zeros_like(sky.diffuse)
    padded[: len(at), : len(at)] = kernel / kernel.sum()
    padded = np.roll(padded, (-reach * FINE,) * 2, (0, 1))
    blurred = irfft2(rfft2(sky.diffuse) * rfft2(padded), sky.diffuse.shape)
    row, col = np.mgrid[:n, :n].astype(float)
    xi, eta = pointing.to_sky(col, row)
    place = [v / field.scale * FINE + sky.diffuse.shape[0] / 2 for v in (eta, xi)]
    return np.asarray(map_coordinates(blurred, place, order=3, mode="nearest"))
