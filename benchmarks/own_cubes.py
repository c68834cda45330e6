"""IFU exposures of a generator of their own: no line of it is that of ``badpix.simulation``.

1. The slicer: slices of unequal width between curved, converging edges, dispersion along y (MIRI) or x (NIRSpec);
   wavelength tilts and bends within a slice and jumps from slice to slice.
2. Light: a background with lines, sources with continua, absorption, lines and wings of their PSF that widens with
   wavelength, an exponential disk that rotates, knots of lines alone; fringes of two periods, response errors.
3. The detector: inter-pixel capacitance, photon noise, read noise that differs from pixel to pixel, correlated rows,
   known bad pixels, hot and cold ones that are not known, in all or some exposures, tracks of particles at random
   angles, showers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from own_detector import association
from own_images import Image
from scipy.ndimage import convolve1d, gaussian_filter

FINE = 8  # samples a pixel of a spectrum
MARGIN = 60
OFFSETS = ((-2.6, -0.7), (2.1, 0.6), (-1.4, 0.8), (2.9, -0.4), (0.4, 0.1), (-3.3, 0.3))
DNU, NON_SCIENCE, HOT = 1, 512, 2048


@dataclass(frozen=True)
class Look:
    """What is observed; strengths in units of the usual read noise, widths in pixels and slices."""

    exposures: int = 4
    nirspec: bool = False
    rows: int = 512
    across: int = 1032
    slices: tuple[int, ...] = (21, 17)
    background: float = 12.0
    lines: int = 24
    line: float = 60.0  # of the background, mean
    sources: tuple[float, ...] = (400.0, 150.0, 40.0)
    fwhm: tuple[float, float] = (2.3, 1.8)
    disk: float = 25.0
    knots: int = 0
    half_bad: float = 0.0
    in_all: float = 0.003
    in_some: float = 0.001
    particles: float = 450.0  # a million pixels
    showers: float = 4.0
    photons: float = 12.0  # electrons of one unit of light, read noise being 1 unit

    @property
    def detector(self) -> str:
        """Name of the detector."""
        return "NRS1" if self.nirspec else "MIRIFUSHORT"


NRS = {"nirspec": True, "slices": (30,), "across": 1024, "fwhm": (1.5, 1.3), "background": 4.0}
LOOKS: dict[str, Look] = {
    "base": Look(),
    "sharp": Look(sources=(6000.0, 1500.0), fwhm=(1.15, 1.1)),
    "lines": Look(lines=50, line=500.0, sources=(100.0, 40.0)),
    "knots": Look(knots=50),
    "half-bad": Look(sources=(2000.0, 500.0, 100.0), half_bad=0.003),
    "two": Look(exposures=2),
    "nirspec": Look(sources=(800.0, 200.0), **NRS),
    "single": Look(exposures=1, sources=(2000.0, 200.0)),
}


class Geometry(NamedTuple):
    """Where each pixel looks, dispersion along the first axis."""

    slice_: Any  # int, -1 between slices
    along: Image  # pixels from the middle of the slice
    beta: Image  # number of the slice in order on the sky
    wave: Image  # pixels
    throughput: Image


def cut_slices(rng: np.random.Generator, look: Look) -> Geometry:
    """The slices of a detector."""
    ny, nx = look.rows, look.across
    y, x = np.mgrid[:ny, :nx].astype(float)
    v = 2 * y / ny - 1
    number, along = np.full((ny, nx), -1), np.zeros((ny, nx))
    beta, throughput = np.zeros((ny, nx)), np.zeros((ny, nx))
    first, half = 0, nx / len(look.slices)
    for part, count in enumerate(look.slices):
        widths = rng.uniform(0.93, 1.07, count)
        edges = part * half + 8 + (half - 16) * np.concatenate([[0], np.cumsum(widths)]) / widths.sum()
        for k in range(count):
            center = (edges[k] + edges[k + 1]) / 2
            bent = center + (6 + 5 * part) * (v**2 - 0.3 * v**3) * (1 if part else -1) + 0.006 * (center - nx / 2) * v
            wide = (edges[k + 1] - edges[k] - 4.5) / 2 * (1 + 0.02 * v)  # pixels to each side
            inside = np.abs(x - bent) < wide
            number[inside], along[inside] = first + k, (x - bent)[inside]
            beta[inside] = first + (k // 2 if k % 2 == 0 else (count + k) // 2)  # the slicer interleaves
            throughput[inside] = 1 / (1 + np.exp((np.abs(x - bent)[inside] - wide[inside] + 0.3) / 0.5))
        first += count
    jump = rng.uniform(-4, 4, first)[number]
    wave = y + 0.05 * along + 0.002 * along**2 + jump + 0.003 * (x - nx / 2)
    return Geometry(number, along, beta, wave, throughput)


def draw_lines(rng: np.random.Generator, rows: int, count: int, strength: float) -> Image:
    """Emission lines on the fine spectral grid; a tenth absorbs."""
    at = np.arange(-MARGIN, rows + MARGIN, 1 / FINE)
    out = np.zeros_like(at)
    for _ in range(count):
        width, height = rng.uniform(0.85, 1.4), strength * rng.lognormal(-0.7, 1.0)
        out += height * np.exp(-0.5 * ((at - rng.uniform(0, rows)) / width) ** 2)
    return out


def sample(spectrum: Image, wave: Image) -> Image:
    """A spectrum on the fine grid at wavelengths in pixels."""
    return np.interp(wave, np.arange(len(spectrum)) / FINE - MARGIN, spectrum)


class Target(NamedTuple):
    """A source: place, extra widths, spectrum, change of wavelength with the place (rotation)."""

    along: float
    beta: float
    size: tuple[float, float]
    spectrum: Image
    rotation: float


def draw_targets(rng: np.random.Generator, look: Look) -> tuple[Image, list[Target]]:
    """The spectrum of the background, and all sources."""
    at = np.arange(-MARGIN, look.rows + MARGIN, 1 / FINE)
    background = look.background * (1 + 0.4 * np.sin(at / look.rows * 2)) + draw_lines(
        rng, look.rows, look.lines, look.line
    )
    total, targets, point = sum(look.slices), [], (0.0, 0.0)
    for strength in look.sources:
        shape = strength * (1 + 0.5 * np.cos(at / look.rows * 3 + rng.uniform(0, 6)))
        shape *= 1 - 0.4 * np.exp(-0.5 * ((at - rng.uniform(0, look.rows)) / 3) ** 2)
        lines = draw_lines(rng, look.rows, look.lines // 2, strength)
        for part in range(len(look.slices)):  # each channel sees it
            start = sum(look.slices[:part])
            place = rng.uniform(-4, 4), start + rng.uniform(0.25, 0.75) * look.slices[part]
            targets.append(Target(*place, point, shape + lines, 0.0))
    if look.disk:
        for part, count in enumerate(look.slices):
            spectrum = look.disk * (1 + 0.2 * np.sin(at / 60)) + draw_lines(
                rng, look.rows, look.lines // 3, 3 * look.disk
            )
            targets.append(
                Target(rng.uniform(-3, 3), sum(look.slices[:part]) + count / 2, (3.0, 2.5), spectrum, 0.25)
            )
    shared = draw_lines(rng, look.rows, max(1, look.lines // 3), 1.0)
    for _ in range(look.knots):
        spectrum = rng.exponential(300.0) * shared
        targets.append(Target(rng.uniform(-9, 9), rng.uniform(0, total), point, spectrum, rng.normal(0, 0.1)))
    return background, targets


def paint(targets: list[Target], geometry: Geometry, look: Look, shift: tuple[float, float]) -> Image:
    """Light of the sources on the detector."""
    wide = np.sqrt(0.7 + 0.6 * (geometry.wave / look.rows) ** 2)  # the PSF grows with wavelength
    out = np.zeros(geometry.wave.shape)
    for t in targets:
        b = geometry.beta - t.beta - shift[1]
        near = np.flatnonzero((np.abs(b) < 5 * (look.fwhm[1] + t.size[1])) & (geometry.slice_ >= 0))
        a, b, w = geometry.along.flat[near] - t.along - shift[0], b.flat[near], wide.flat[near]
        sa, sb = (np.hypot(f / 2.3548 * w, s) for f, s in zip(look.fwhm, t.size, strict=True))
        profile = np.zeros(len(near))
        for step in (-0.4, -0.2, 0, 0.2, 0.4):  # over the pixel
            r2 = ((a + step) / sa) ** 2 + (b / sb) ** 2
            profile += 0.2 * (0.9 * np.exp(-r2 / 2) + 0.1 * (1 + r2 / 6) ** -1.8)
        out.flat[near] += profile * sample(t.spectrum, geometry.wave.flat[near] + t.rotation * a)
    return out * geometry.throughput


def draw_tracks(rng: np.random.Generator, look: Look) -> tuple[Image, Image]:
    """Charge of particles and of showers, in read noise."""
    ny, nx = look.rows, look.across
    out, wide = np.zeros((2, ny, nx))
    y, x = np.ogrid[:ny, :nx]
    for _ in range(rng.poisson(look.particles * ny * nx / 1e6)):
        slant, angle = np.arccos(np.sqrt(rng.random())), rng.uniform(0, 2 * np.pi)
        at = np.arange(0.05, min((0.4 if look.nirspec else 1.4) * np.tan(slant), 30.0) + 0.15, 0.1)
        charge = min(6 + 15 * rng.pareto(0.8), 4000) * (0.5 + at[-1]) / len(at) * rng.lognormal(0, 0.35, len(at))
        px, py = rng.uniform(0, nx) + at * np.cos(angle), rng.uniform(0, ny) + at * np.sin(angle)
        px, py = (np.rint(v[:, None] + rng.normal(0, 0.25, (len(at), 10))).astype(int) for v in (px, py))
        keep = (px >= 0) & (px < nx) & (py >= 0) & (py < ny)
        np.add.at(out, (py[keep], px[keep]), np.repeat(charge[:, None] / 10, 10, 1)[keep])
    for _ in range(rng.poisson(look.showers * ny * nx / 1e6)):
        y0, x0, angle, long = rng.uniform(0, ny), rng.uniform(0, nx), rng.uniform(0, np.pi), rng.uniform(10, 30)
        u, v = (
            (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle),
            (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle),
        )
        wide += rng.uniform(0.5, 2) * np.exp(-0.5 * ((u / long) ** 2 + (v / (0.4 * long)) ** 2))
    return couple(out, look), np.where(wide > 0.02, wide, 0)


def couple(image: Image, look: Look) -> Image:
    """Inter-pixel capacitance."""
    a = 0.006 if look.nirspec else 0.025
    for axis in (0, 1):
        image = convolve1d(image, [a, 1 - 2 * a, a], axis=axis, mode="constant")
    return image


class Defects(NamedTuple):
    """Pixels that no calibration knows, in units of the read noise of each exposure; and masks."""

    values: Image  # (exposures, ny, nx)
    in_all: Any
    on: Any  # (exposures, ny, nx): bad in some
    known: Any


def draw_defects(rng: np.random.Generator, look: Look, noise: Image) -> Defects:
    """Hot and cold pixels, log-uniform from 5 to 800 sigma (``noise``), in all or some of the exposures."""
    shape, n = noise.shape, look.exposures
    draw = rng.random(shape)
    size = np.exp(rng.uniform(np.log(5), np.log(800), shape))
    size = np.where(rng.random(shape) < 0.12, -np.maximum(size / 3, 5), size) * noise
    in_all = draw < look.in_all
    some = (draw > 0.1) & (draw < 0.1 + look.in_some) & (n > 1)
    half = (draw > 0.2) & (draw < 0.2 + look.half_bad)
    order = np.argsort(rng.random((n, *shape)), axis=0)
    on = some & (order < rng.integers(1, max(2, n), shape)) | half & (order < n // 2)
    values = np.where(in_all | on, size * (1 + rng.normal(0, 0.03, (n, *shape))), 0)
    known = rng.random(shape) < 0.004
    for y, x in rng.integers(0, np.array(shape) - 3, (len(noise) * noise.shape[1] // 20000, 2)):
        known[y : y + 3, x : x + rng.integers(1, 4)] = True
    return Defects(values, in_all, on, known)


def make_cubes(folder: Path, look: Look, seed: int) -> Path:
    """Write a set of exposures, ``truth_N.npz`` beside them, and the association; gives its path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, 61])
    geometry = cut_slices(rng, look)
    lit = geometry.slice_ >= 0
    background, targets = draw_targets(rng, look)
    fringe = 0.02 * np.sin(geometry.wave * 2 * np.pi / (11 + 0.3 * (geometry.slice_ % 7)))
    fringe += 0.01 * np.sin(geometry.wave * 2 * np.pi / 31)
    response = 1 + fringe + rng.normal(0, 0.006, lit.shape)
    read = np.exp(rng.normal(0, 0.1, lit.shape))
    offsets = OFFSETS if look.exposures > 1 else ((0.0, 0.0),)
    sources = [couple(paint(targets, geometry, look, offsets[i % len(offsets)]), look) for i in range(look.exposures)]
    glow = couple(sample(background, geometry.wave) * geometry.throughput, look)
    usual = np.sqrt(read**2 + np.maximum(glow + np.mean(sources, axis=0), 0) / look.photons)
    defects = draw_defects(rng, look, usual)
    members = []
    for i in range(look.exposures):
        scene = (glow + sources[i]) * response + 0.02 * gaussian_filter(glow + sources[i], 25)
        noise = np.sqrt(read**2 + np.maximum(scene, 0) / look.photons)
        rays, shower = draw_tracks(rng, look)
        bad = couple(defects.values[i], look)
        sci = (
            scene
            + bad
            + rays
            + shower
            + rng.normal(size=lit.shape) * np.sqrt(noise**2 + np.maximum(bad + rays, 0) / look.photons)
        )
        sci += gaussian_filter(rng.normal(size=(look.rows, 1)), (1, 0)) * 0.25
        poisson, reference = np.maximum(sci, 0) / look.photons, read**2 * rng.lognormal(0, 0.05, lit.shape)
        unit = 0.31
        arrays = {"data": sci * unit, "var_poisson": poisson * unit**2, "var_rnoise": reference * unit**2}
        arrays["var_flat"] = (0.004 * sci * unit) ** 2
        arrays["err"] = np.sqrt(arrays["var_poisson"] + arrays["var_rnoise"] + arrays["var_flat"])
        arrays = {k: np.where(lit & ~defects.known, v, np.nan).astype("f4") for k, v in arrays.items()}
        arrays["dq"] = np.where(lit, 0, DNU | NON_SCIENCE).astype("u4") | np.where(
            defects.known, DNU | HOT, 0
        ).astype("u4")
        truth = {
            "rays": rays / noise,
            "shower": shower / noise,
            "bad": bad / noise,
            "light": sources[i],
            "noise": noise,
        }
        truth |= {"in_all": defects.in_all, "in_some": defects.on[i], "scene": scene, "slice": geometry.slice_}
        truth["own"] = defects.values[i] / noise
        turned = {k: np.ascontiguousarray(v.T) if look.nirspec else v for k, v in (arrays | truth).items()}
        name = f"jw04242007001_03101_{i + 1:05d}_{look.detector.lower()}_cal.fits"
        save_cube(folder / name, {k: turned[k] for k in arrays}, look, i, offsets[i % len(offsets)])
        kept = {k: v.astype("f4") if v.dtype == float else v for k, v in turned.items() if k in truth}
        np.savez(folder / f"truth_{i}.npz", **kept)
        members.append({"expname": name, "exptype": "science"})
    table = folder / "jw04242-o007_spec3_asn.json"
    table.write_text(json.dumps(association("spec3", "jw04242-o007_t001_own", members)))
    return table


def save_cube(path: Path, arrays: dict[str, Any], look: Look, i: int, shift: tuple[float, float]) -> None:
    """One `_cal` file by the pipeline's own model."""
    from astropy.time import Time
    from stdatamodels.jwst import datamodels

    model = datamodels.IFUImageModel(arrays["data"].shape)
    for key, values in arrays.items():
        setattr(model, key, values)
    meta = model.meta
    meta.filename, meta.telescope, meta.instrument.detector = path.name, "JWST", look.detector
    if look.nirspec:
        meta.instrument.name, meta.exposure.type, meta.instrument.grating, meta.instrument.filter = (
            "NIRSPEC",
            "NRS_IFU",
            "G395H",
            "F290LP",
        )
    else:
        meta.instrument.name, meta.exposure.type, meta.instrument.channel, meta.instrument.band = (
            "MIRI",
            "MIR_MRS",
            "12",
            "MEDIUM",
        )
    o = meta.observation
    o.program_number, o.observation_number, o.visit_number = "04242", "007", "001"
    o.visit_group, o.sequence_id, o.activity_id, o.exposure_number = "03", "1", "01", str(i + 1)
    o.date, o.time = "2026-03-02", f"{i:02d}:20:00.000"
    start = Time(f"2026-03-02T{i:02d}:20:00").mjd
    e, s = meta.exposure, meta.subarray
    e.start_time, e.mid_time, e.end_time, e.exposure_time, e.nints, e.ngroups = (
        start,
        start + 0.003,
        start + 0.006,
        520.0,
        1,
        20,
    )
    ny, nx = arrays["data"].shape
    s.name, s.xstart, s.ystart, s.xsize, s.ysize = "FULL", 1, 1, nx, ny
    meta.dither.x_offset, meta.dither.y_offset = 0.17 * shift[0], 0.17 * shift[1]
    meta.bunit_data, meta.bunit_err = "MJy/sr", "MJy/sr"
    for step in ("ramp_fit", "flat_field", "photom", "assign_wcs"):
        setattr(meta.cal_step, step, "COMPLETE")
    model.save(path)
