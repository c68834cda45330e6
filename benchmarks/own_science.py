"""Science programs of a generator of their own: no line of it is that of ``badpix simulate-science``.

1. Images: point sources and inclined exponential disks, or filaments of a cloud, on a grid of a quarter of a pixel,
   convolved with an Airy pattern; dithers are shifts of that grid, visits are other fields with other backgrounds.
2. Spectra: curved slices or traces in which wavelengths are tilted; continua, lines, absorption, and fringes that
   stay while the sources move along the slices.
3. The detector: response errors of pixels and of large scale, inter-pixel capacitance, read noise that differs from
   pixel to pixel, pink noise in the order of reading, tracks of particles, NaN where the pipeline knows a pixel.
4. ERR is what a pipeline would say: read noise by a reference with errors of its own, photons by what was measured.
5. Bad pixels: hot (0.02 to 5 DN/s, evenly in the logarithm), low (response 0.1 to 0.7), switching between two levels
   with dwell times in exposures, born on a day.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter
from scipy.special import j1

FINE = 4  # points a pixel
REACH = 40  # pixels that dithers move at most
Image = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """A program; noise and backgrounds in DN/s, ``photons``: electrons a DN times seconds, widths in pixels."""

    detector: str
    exp_type: str
    keywords: dict[str, str]
    visits: int
    dithers: int
    read: float
    photons: float
    skies: tuple[float, ...]
    wave: float = 2.0
    scale: float = 0.031
    stars: float = 0.0
    galaxies: float = 0.0
    cloud: bool = False
    spectra: str = ""
    ipc: float = 0.006
    flat_error: float = 0.002
    axes: tuple[int, int] = field(default=(1, 2))


NRC = {"FILTER": "F200W", "PUPIL": "CLEAR"}
SCENES = {
    "deep": Scene(
        "NRCB1", "NRC_IMAGE", NRC, 3, 10, 0.013, 2000.0, (0.11, 0.17, 0.22), stars=0.3, galaxies=3.0, axes=(1, -2),
    ),
    "crowded": Scene(
        "NRCA3", "NRC_IMAGE", NRC | {"FILTER": "F150W"}, 3, 8, 0.028, 600.0, (0.2, 0.3, 0.4), 1.5, stars=20.0,
        axes=(-1, 2),
    ),
    "nebula": Scene(
        "NRCALONG", "NRC_IMAGE", NRC | {"FILTER": "F444W"}, 3, 8, 0.028, 700.0, (0.3, 0.5, 0.8), 4.4, 0.063,
        stars=1.5, cloud=True, axes=(-1, 2),
    ),
    "miri": Scene(
        "MIRIMAGE", "MIR_IMAGE", {"FILTER": "F1000W"}, 3, 10, 0.12, 550.0, (17.0, 20.0, 26.0), 10.0, 0.11,
        stars=0.5, galaxies=1.0, ipc=0.028, flat_error=0.001,
    ),
    "mrs": Scene(
        "MIRIFULONG", "MIR_MRS", {"CHANNEL": "34", "BAND": "MEDIUM"}, 4, 4, 0.03, 300.0, (0.6, 0.9, 1.4, 0.4),
        spectra="mrs", ipc=0.028,
    ),
    "ifu": Scene(
        "NRS2", "NRS_IFU", {"GRATING": "G235H", "FILTER": "F170LP"}, 4, 4, 0.006, 1500.0, (0.01, 0.03, 0.05, 0.02),
        spectra="ifu", axes=(-2, -1),
    ),
    "mos": Scene(
        "NRS1", "NRS_MSASPEC", {"GRATING": "G395M", "FILTER": "F290LP"}, 4, 6, 0.005, 1500.0,
        (0.02, 0.03, 0.06, 0.04), spectra="mos", axes=(2, 1),
    ),
}  # fmt: skip


def airy(scene: Scene) -> Image:
    """The point spread function on the fine grid, with a little jitter; its sum is 1."""
    step = scene.wave / 6.5 * 0.206265 / scene.scale  # lambda / D in pixels
    at = np.arange(-14 * FINE, 14 * FINE + 1) / FINE
    r = np.pi * np.hypot(at[:, None], at) / step + 1e-9
    out = gaussian_filter((2 * j1(r) / r) ** 2, 0.2 * FINE)
    return np.asarray(out / out.sum())


def convolve_fine(image: Image, kernel: Image) -> Image:
    """Convolution by Fourier transforms; the edge wraps, and is not used."""
    shape = image.shape
    padded = np.zeros(shape)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    padded = np.roll(padded, (-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), (0, 1))
    return np.asarray(np.fft.irfft2(np.fft.rfft2(image) * np.fft.rfft2(padded), shape))


def draw_field(rng: np.random.Generator, scene: Scene, size: int) -> Image:
    """The sky of a visit on the fine grid, DN/s a fine point, with a margin of :data:`REACH` around."""
    side = (size + 2 * REACH) * FINE
    out = np.zeros((side, side))
    number = rng.poisson(scene.stars * (size / 10) ** 2 * 0.1 * (side / FINE / size) ** 2)
    flux = np.minimum(8 * scene.read * rng.pareto(0.9, number) + 3 * scene.read, 4e4 * scene.read)
    np.add.at(out, tuple(rng.integers(0, side, (2, number))), flux)
    at = np.arange(-20 * FINE, 20 * FINE + 1) / FINE
    for _ in range(rng.poisson(scene.galaxies * (size / 10) ** 2 * 0.1 * (side / FINE / size) ** 2)):
        angle, ratio, width = rng.uniform(0, np.pi), rng.uniform(0.25, 1), rng.lognormal(0.4, 0.6)
        u, v = at * np.cos(angle), at * np.sin(angle)
        r = np.hypot(u[:, None] + v, (u - v[:, None]) / ratio) / width
        profile = np.exp(-r) / np.exp(-r).sum() * min(20 * scene.read * (rng.pareto(1.0) + 0.3), 2e3 * scene.read)
        y, x = rng.integers(0, side - len(at), 2)
        out[y : y + len(at), x : x + len(at)] += profile
    if scene.cloud:
        k = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
        k[0, 0] = np.inf
        parts = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) * k**-1.4, (side, side)) for _ in "ab"]
        ridges = np.exp(-np.abs(parts[0] / parts[0].std()) * 3) * np.exp(0.8 * parts[1] / parts[1].std())
        out += 25 * scene.read * ridges / FINE**2
    return np.maximum(convolve_fine(out, airy(scene)), 0)


def draw_spectra(rng: np.random.Generator, scene: Scene, size: int) -> dict[str, Any]:
    """What one visit's target sends into slices or shutters."""
    lines = [(rng.uniform(0, size), rng.lognormal(0, 1.2) * rng.choice([1, 1, 1, -0.3])) for _ in range(6)]
    return {
        "lines": lines,
        "level": rng.lognormal(0, 0.8),
        "slope": rng.uniform(-1, 1),
        "place": rng.uniform(0.3, 0.7),
    }


def disperse(scene: Scene, sky: dict[str, Any], size: int, shift: Image) -> Image:
    """Light of one exposure, dispersion along x; (size, size) DN/s."""
    y, x = np.mgrid[0:size, 0:size].astype(float)
    pitch, open_ = {"mrs": (26, 22), "ifu": (30, 25), "mos": (16, 11)}[scene.spectra]
    bent = y + 4e-5 * (x - size / 2) ** 2
    number, within = np.floor(bent / pitch), bent % pitch
    wave = x + 0.06 * (within - open_ / 2) + 1.7 * np.sin(number)
    spectrum = 7 * scene.read * sky["level"] * (1 + sky["slope"] * (wave / size - 0.5))
    for place, height in sky["lines"]:
        spectrum = spectrum + (15 * scene.read * height * np.exp(-0.5 * ((wave - place) / 0.9) ** 2))
    spectrum = np.maximum(spectrum, 0)
    center = open_ * sky["place"] + shift[1]
    if scene.spectra == "mos":
        own = np.sin(12.9 * number) % 1  # another source in each shutter
        across = own * 2 * np.exp(-0.5 * ((within - center * (0.8 + 0.4 * own)) / 1.1) ** 2)
    else:
        middle = sky["place"] * size / pitch + shift[0] / 2
        across = np.exp(-0.5 * ((within - center) / 2.5) ** 2) * np.exp(-0.5 * ((number - middle) / 1.4) ** 2)
    across = across * (within < open_)
    if scene.spectra == "mrs":
        spectrum = spectrum * (1 + 0.08 * np.sin(2 * np.pi * wave / 19 + number))
    return np.asarray(across * spectrum)


def gap_map(scene: Scene, size: int) -> NDArray[np.bool_]:
    """Pixels that no slice lights, dispersion along x."""
    if scene.spectra not in ("mrs", "ifu"):
        return np.zeros((size, size), bool)
    y, x = np.mgrid[0:size, 0:size].astype(float)
    pitch, open_ = {"mrs": (26, 22), "ifu": (30, 25)}[scene.spectra]
    return np.asarray((y + 4e-5 * (x - size / 2) ** 2) % pitch >= open_)


KINDS = {"hot": 90, "born": 60, "low": 60, "switching": 60}
ROW = np.dtype(
    [("kind", "U9"), ("y", int), ("x", int), ("level", float), ("when", float), ("strength", float), ("lit", int)]
)


def draw_defects(rng: np.random.Generator, scene: Scene, usable: NDArray[np.bool_]) -> NDArray[Any]:
    """Bad pixels, four pixels apart or more."""
    taken, rows = np.zeros(usable.shape, bool), []
    places = iter(np.argwhere(usable)[rng.permutation(int(usable.sum()))])
    for kind, count in KINDS.items():
        for _ in range(count):
            y, x = next(
                p for p in places if not taken[max(p[0] - 3, 0) : p[0] + 4, max(p[1] - 3, 0) : p[1] + 4].any()
            )
            taken[y, x] = True
            level = rng.uniform(0.1, 0.7) if kind == "low" else np.exp(rng.uniform(np.log(0.02), np.log(5)))
            rows.append((kind, y, x, level, rng.uniform(0.15, 0.85), 0.0, 0))
    return np.array(rows, ROW)


def draw_states(rng: np.random.Generator, rows: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """In which exposures each bad pixel is lit: (number, defects)."""
    out = np.ones((number, len(rows)), bool)
    for k in np.flatnonzero(rows["kind"] == "switching"):
        up, down = 1 / rng.uniform(1, 4), 1 / rng.uniform(1, 4)  # chances to change
        state = rng.random() < up / (up + down)
        for n in range(number):
            out[n, k] = state
            state = state ^ (rng.random() < (up if not state else down))
    born = rows["kind"] == "born"
    out[:, born] = np.arange(number)[:, None] >= rows["when"][born] * number
    return out


def pink(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """Noise of the spectrum 1/f in the order of reading (rows), of scatter 1."""
    n = shape[0] * shape[1]
    f = np.fft.rfftfreq(n)
    f[0] = np.inf
    out = np.fft.irfft(np.fft.rfft(rng.normal(size=n)) * f**-0.5, n).reshape(shape)
    return np.asarray(out / out.std())


def add_particles(rng: np.random.Generator, image: Image, read: float) -> None:
    """Short tracks that the jump step has missed in part."""
    for _ in range(rng.poisson(6e-4 * image.size)):
        y, x, angle = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1]), rng.uniform(0, np.pi)
        for step in range(rng.integers(1, 5)):
            a, b = int(y + step * np.sin(angle)), int(x + step * np.cos(angle))
            if a < image.shape[0] and 0 <= b < image.shape[1]:
                image[a, b] += rng.exponential(20 * read)


def see_field(rng: np.random.Generator, target: Image, size: int) -> tuple[Image, Image]:
    """Light of one dithered exposure of a field, and the shift in fine points."""
    shift = rng.integers(-REACH * FINE, REACH * FINE, 2)
    a, b = shift + REACH * FINE
    cut = target[a : a + size * FINE, b : b + size * FINE]
    return cut.reshape(size, FINE, size, FINE).sum(axis=(1, 3)), shift / FINE


def expose(rng: np.random.Generator, scene: Scene, light: Image, read: Image, told: Image) -> tuple[Image, Image]:
    """What the detector makes of light: SCI and ERR; ``read`` and ``told``: its noise, and what a reference says."""
    kernel = np.array([[0.0, scene.ipc, 0], [scene.ipc, 1 - 4 * scene.ipc, scene.ipc], [0, scene.ipc, 0]])
    charge = convolve(light, kernel, mode="nearest")
    sci = charge + rng.normal(size=light.shape) * np.sqrt(read**2 + charge / scene.photons)
    err = np.sqrt(told**2 + np.maximum(sci, 0) / scene.photons)
    noise = pink(rng, sci.shape)
    sci += 0.25 * scene.read * (noise if abs(scene.axes[0]) == 1 else noise.T)
    add_particles(rng, sci, scene.read)
    return sci, err


def make_program(folder: Path, name: str, seed: int, size: int = 256) -> tuple[list[Path], NDArray[Any], Any]:
    """Rate files of a program, the table of bad pixels, and the map of pixels that nobody could judge.

    ``strength`` is the mean excess or deficit over the noise of the stack at that pixel without sources; of low
    pixels by what the backgrounds alone show.
    """
    scene, rng = SCENES[name], np.random.default_rng((seed, 4711))
    shape, number = (size, size), scene.visits * scene.dithers
    turned = scene.spectra == "mrs"  # light along y
    gaps = gap_map(scene, size).T if turned else gap_map(scene, size)
    known = rng.random(shape) < 0.004
    rows = draw_defects(rng, scene, ~gaps & ~known)
    states = draw_states(rng, rows, number)
    read = scene.read * np.exp(rng.normal(0, 0.12, shape))
    told = read * np.exp(rng.normal(0, 0.05, shape))
    broad = gaussian_filter(rng.normal(size=shape), 12)
    flat = 1 + scene.flat_error * rng.normal(size=shape) + 0.004 * broad / broad.std()
    at, sky = (rows["y"], rows["x"]), float(np.mean(scene.skies))
    stack = np.sqrt(read[at] ** 2 + sky / scene.photons) / np.sqrt(number)
    mean = np.where(rows["kind"] == "low", (1 - rows["level"]) * sky, rows["level"] * states.mean(axis=0))
    rows["strength"], rows["lit"] = mean / stack, states.sum(axis=0)
    low, paths = rows[rows["kind"] == "low"], []
    for visit in range(scene.visits):
        target = draw_spectra(rng, scene, size) if scene.spectra else draw_field(rng, scene, size)
        ramp = 1 + 0.1 * rng.normal() * (np.arange(size) / size - 0.5)
        for dither in range(scene.dithers):
            k = visit * scene.dithers + dither
            if scene.spectra:
                shift = rng.uniform(-4, 4, 2)
                light = disperse(scene, target, size, shift)
                light = light.T if turned else light
            else:
                light, shift = see_field(rng, target, size)
            light = (light + scene.skies[visit] * ramp * rng.normal(1, 0.01)) * flat
            light[low["y"], low["x"]] *= low["level"]
            lit = (rows["kind"] != "low") & states[k]
            light[rows["y"][lit], rows["x"][lit]] += rows["level"][lit]
            sci, err = expose(rng, scene, light, read, told)
            dq = np.where(known, np.uint32(1), np.uint32(0)) | np.where(gaps, np.uint32(512), np.uint32(0))
            sci[known] = np.nan
            paths.append(write(folder, scene, sci, err, dq, visit, k, shift, 60500.0 + 11.0 * visit + 0.03 * k))
    return paths, rows, known | gaps


def write(
    folder: Path, scene: Scene, sci: Image, err: Image, dq: Any, visit: int, k: int, shift: Image, mjd: float
) -> Path:
    """One rate file; ``shift`` in pixels."""
    shift = shift * scene.scale
    head = fits.PrimaryHDU()
    instrument = {"NRC": "NIRCAM", "MIR": "MIRI", "NRS": "NIRSPEC"}[scene.detector[:3]]
    head.header.update(
        {
            "TELESCOP": "JWST",
            "INSTRUME": instrument,
            "DETECTOR": scene.detector,
            "SUBARRAY": {"NIRCAM": "SUB640", "MIRI": "SUB256", "NIRSPEC": "SUB2048"}[instrument],
            "SUBSTRT1": 401,
            "SUBSTRT2": 401,
            "SUBSIZE1": sci.shape[1],
            "SUBSIZE2": sci.shape[0],
            "FASTAXIS": scene.axes[0],
            "SLOWAXIS": scene.axes[1],
            "EXP_TYPE": scene.exp_type,
            "S_RAMP": "COMPLETE",
            "VISIT_ID": f"07770{visit + 200:03d}001",
            "EXPSTART": mjd,
            "DATE-OBS": str(np.datetime64("1858-11-17") + np.timedelta64(int(mjd), "D")),
            **scene.keywords,
        }
    )
    image = fits.ImageHDU(sci.astype(np.float32), name="SCI")
    place = {"RA_REF": 120.0 + 2 * visit + shift[1] / 3600, "DEC_REF": -5 + shift[0] / 3600, "ROLL_REF": 10.0 * visit}
    image.header.update({"BUNIT": "DN/s", **place})
    path = folder / f"jw07770{visit + 200:03d}001_02101_{k + 1:05d}_{scene.detector.lower()}_rate.fits"
    hdus = [head, image, fits.ImageHDU(err.astype(np.float32), name="ERR"), fits.ImageHDU(dq, name="DQ")]
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path
