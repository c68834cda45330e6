"""Simulated IFU associations with known defects: real-format `_cal` files, an association, and the truth.

1. A detector is cut into slices: curved strips along the dispersion, with gaps between them that hold NaN and
   DO_NOT_USE. MIRI disperses along y (1024 x 1032, two channels side by side), NIRSpec along x (2048 x 2048).
2. The sky has an extended background with lines, and point sources with a continuum and lines of their own. Each
   exposure sees it shifted by its dither, blurred by the PSF, bent and tilted by the optics.
3. The detector adds fringes, errors of the flat field, Poisson and read noise (ERR and VAR_* as the pipeline
   estimates them: from the noisy signal), and known bad pixels.
4. Defects that the calibration does not know: in all exposures, in some of them, and cosmic rays in one.

Truth is one file an exposure: AMPLITUDE (in units of the noise) and KIND (bits of :data:`KINDS`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from badpix import dq
from badpix.errors import UsageError
from badpix.output import atomic_path, check_directory, write_hdus, write_text

# Bits of the truth map.
KINDS = {"in_all": 1, "in_some": 2, "cosmic_ray": 4, "in_slice": 8, "off_here": 16}


@dataclass(frozen=True)
class Detector:
    """What the simulation knows of a detector; dispersion first, slices side by side along the second axis."""

    name: str
    instrument: str
    exp_type: str
    shape: tuple[int, int]  # (dispersion, spatial)
    channels: tuple[int, ...]  # slices of each channel
    gap: float  # pixels between slices
    bend: float  # pixels by which traces curve towards the ends
    transposed: bool  # whether the dispersion runs along x
    lit: float = 1.0  # share of the dispersion axis that gets light
    band: Mapping[str, str] | None = None


_SHORT, _GRATING = {"BAND": "SHORT"}, {"GRATING": "G235H", "FILTER": "F170LP"}
_MRS, _NRS = ("MIRI", "MIR_MRS", (1024, 1032)), ("NIRSPEC", "NRS_IFU", (2048, 2048))
DETECTORS = {
    "MIRIFUSHORT": Detector("MIRIFUSHORT", *_MRS, (21, 17), 4.0, 14.0, False, band={"CHANNEL": "12", **_SHORT}),
    "MIRIFULONG": Detector("MIRIFULONG", *_MRS, (16, 12), 5.0, 18.0, False, band={"CHANNEL": "34", **_SHORT}),
    "NRS1": Detector("NRS1", *_NRS, (30,), 9.0, 25.0, True, band=_GRATING),
    "NRS2": Detector("NRS2", *_NRS, (30,), 9.0, 20.0, True, 0.9, _GRATING),
}

SETS = {"miri": ("MIRIFUSHORT", "MIRIFULONG"), "nirspec": ("NRS1", "NRS2")}


@dataclass(frozen=True)
class Sky:
    """What the exposures look at; all strengths in units of the read noise of one pixel."""

    background: float = 15.0
    lines: int = 45
    line_strength: float = 60.0
    sources: int = 3
    brightest: float = 400.0
    fwhm: tuple[float, float] = (2.4, 2.0)  # pixels along the slice, slices
    dither: float = 3.0  # largest shift along the slice, pixels; 0: no dither
    fringes: float = 0.02
    flat_error: float = 0.005
    poisson: float = 0.08  # variance of one unit of light, read-noise units squared


@dataclass(frozen=True)
class Defects:
    """How many defects there are (share of the pixels) and how strong they are (log-uniform, sigma)."""

    in_all: float = 0.003
    in_some: float = 0.001
    cosmic_rays: float = 0.0005  # tracks per pixel
    known: float = 0.003
    range_all: tuple[float, float] = (5.0, 800.0)
    range_some: tuple[float, float] = (5.0, 300.0)
    range_rays: tuple[float, float] = (5.0, 500.0)
    negative: float = 0.15
    most: int = 0  # largest number of exposures that a pixel "in some" is bad in; 0: all but one


FLAT = Sky(lines=0, sources=0, fringes=0.0, flat_error=0.0, poisson=0.0)
BRIGHT = Sky(brightest=4000.0, fwhm=(1.6, 1.4), line_strength=200.0, flat_error=0.01)
SCENES = {"spectra": Sky(), "bright": BRIGHT, "flat": FLAT}


def without_dither(sky: Sky) -> Sky:
    """The same sky, seen by exposures with one pointing."""
    return replace(sky, dither=0.0)


def with_strength(defects: Defects, span: tuple[float, float]) -> Defects:
    """The same number of defects, all with one range of strengths (sigma) and none negative."""
    return replace(defects, range_all=span, range_some=span, range_rays=span, negative=0.0)


@dataclass(frozen=True)
class Exposure:
    """One simulated exposure of one detector, in the orientation of the file."""

    arrays: Mapping[str, np.ndarray]  # SCI, ERR, DQ, VAR_POISSON, VAR_RNOISE, VAR_FLAT
    amplitude: np.ndarray  # float32, sigma
    kind: np.ndarray  # uint8


def simulate(
    detector: str,
    exposures: int,
    seed: int,
    *,
    sky: Sky | None = None,
    defects: Defects | None = None,
    slices: bool = True,
    shape: tuple[int, int] | None = None,
) -> list[Exposure]:
    """Exposures of one detector.

    Parameters
    ----------
    detector : str
        A key of :data:`DETECTORS`.
    exposures : int
        How many.
    seed : int
        Equal seeds give equal data.
    sky, defects : optional
        What is looked at, and what is wrong.
    slices : bool
        False: light everywhere, no gaps (a flat field of noise with ``FLAT``).
    shape : (int, int), optional
        Another size (dispersion, spatial), for tests.
    """
    sky, defects, det = sky or Sky(), defects or Defects(), DETECTORS[detector]
    rng = np.random.default_rng([seed, list(DETECTORS).index(detector)])
    optics = _make_optics(det, shape or det.shape, slices)
    lines = round(sky.lines * optics.strip.shape[0] / det.shape[0])
    scene = _make_scene(rng, replace(sky, lines=lines), optics)
    response = _make_response(rng, sky, optics)
    known = rng.random(optics.strip.shape) < defects.known
    persistent, sort, on = _draw_persistent(rng, defects, optics.strip.shape, exposures)
    out = []
    for i in range(exposures):
        light = _look(scene, optics, sky, i, exposures) * response
        amplitude = np.where(on[i], persistent, np.float32(0))
        kind = np.where(on[i] | (sort == 0), sort, np.uint8(KINDS["off_here"]))
        kind |= _draw_rays(rng, defects, amplitude)
        out.append(_expose(rng, light, amplitude, kind, optics, known, sky.poisson, det.transposed))
    return out


# --- optics and sky --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Optics:
    """Where on the sky each pixel looks: strip (0 in gaps), position along the strip, wavelength in pixels."""

    strip: np.ndarray
    along: np.ndarray
    wave: np.ndarray
    edge: np.ndarray
    strips: int


def _make_optics(det: Detector, shape: tuple[int, int], slices: bool) -> _Optics:
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx].astype("f4")
    v = (y - ny / 2) / (ny / 2)
    if not slices:
        return _Optics(np.ones(shape, "i2"), x - nx / 2, y, np.ones(shape, "f4"), 1)
    shift = det.bend * nx / det.shape[1] * (v**2 - 0.4 * v)
    position = x - shift
    strip = np.zeros(shape, "i2")
    along = np.full(shape, np.nan, "f4")
    edge = np.zeros(shape, "f4")  # throughput, falling towards the edges of a slice
    width, first = nx / len(det.channels), 0
    for channel, count in enumerate(det.channels):
        count = max(1, round(count * nx / det.shape[1]))
        pitch = (width - 2 * det.gap) / count
        inside = position - channel * width - det.gap
        number = np.floor(inside / pitch)
        offset = inside - (number + 0.5) * pitch
        lit = (number >= 0) & (number < count) & (np.abs(offset) < (pitch - det.gap) / 2)
        strip[lit] = first + number[lit] + 1
        along[lit] = offset[lit]
        edge[lit] = 1 - 0.4 * np.exp(-((pitch - det.gap) / 2 - np.abs(offset[lit])) / 1.2)
        first += count
    strip[y > det.lit * ny] = 0
    wave = y + 0.04 * np.nan_to_num(along) + 3 * np.sin(strip * 1.3) + 0.002 * (x - nx / 2)
    edge[strip == 0] = 0
    return _Optics(strip, along, wave.astype("f4"), edge, first)


@dataclass(frozen=True)
class _Scene:
    background: np.ndarray  # a spectrum, 4 samples a pixel
    sources: list[tuple[float, float, np.ndarray]]  # position along the slice, slice, spectrum


_SAMPLES = 4
_MARGIN = 40  # pixels by which spectra are longer than the detector


def _make_scene(rng: np.random.Generator, sky: Sky, optics: _Optics) -> _Scene:
    ny = optics.strip.shape[0]
    grid = np.arange(-_MARGIN, ny + _MARGIN, 1 / _SAMPLES)
    slope = 1 + 0.5 * (grid / ny - 0.5)
    background = sky.background * slope + _lines(rng, grid, ny, sky.lines, sky.line_strength)
    sources = []
    for i in range(sky.sources):
        strength = sky.brightest * 0.3**i
        spectrum = strength * (1 + 0.6 * (grid / ny - 0.5)) + _lines(rng, grid, ny, sky.lines, 1.5 * strength)
        across = (optics.strips / max(1, round(optics.strips / 20))) * (0.3 + 0.4 * rng.random())
        sources.append((float(rng.uniform(-5, 5)), float(across), spectrum))
    return _Scene(background, sources)


def _lines(rng: np.random.Generator, grid: np.ndarray, ny: int, count: int, strength: float) -> np.ndarray:
    out = np.zeros_like(grid)
    for _ in range(count):
        centre, width = rng.uniform(0, ny), rng.uniform(0.9, 1.6)
        out += strength * rng.exponential(0.5) * np.exp(-0.5 * ((grid - centre) / width) ** 2)
    return out


def _dither(i: int, exposures: int, reach: float) -> tuple[float, float]:
    """Shift of exposure ``i`` along the slice (pixels) and across (slices)."""
    if reach == 0 or exposures == 1:
        return 0.0, 0.0
    corners = [(-1.0, -0.8), (0.6, 0.7), (-0.5, 0.9), (1.0, -0.5)]
    a, b = corners[i % 4]
    fade = 1 - 0.15 * (i // 4)
    return reach * a * fade, b * fade


def _look(scene: _Scene, optics: _Optics, sky: Sky, i: int, exposures: int) -> np.ndarray:
    """Light on the detector in one exposure, in units of the read noise."""
    sample = ((optics.wave + _MARGIN) * _SAMPLES).clip(0, scene.background.size - 1.001)
    low = sample.astype("i4")
    part = (sample - low).astype("f4")

    def spectrum_at(spectrum: np.ndarray) -> np.ndarray:
        s = spectrum.astype("f4")
        return s[low] * (1 - part) + s[low + 1] * part

    light = spectrum_at(scene.background)
    da, db = _dither(i, exposures, sky.dither)
    sigma_a, sigma_b = (w / 2.3548 for w in sky.fwhm)
    for along, across, spectrum in scene.sources:
        profile = np.exp(-0.5 * ((optics.along - along - da) / sigma_a) ** 2)
        profile *= np.exp(-0.5 * ((optics.strip - across - db) / sigma_b) ** 2)
        light += np.nan_to_num(profile) * spectrum_at(spectrum)
    light *= optics.edge
    return light


def _make_response(rng: np.random.Generator, sky: Sky, optics: _Optics) -> np.ndarray:
    """Fringes along the dispersion and errors of the flat field: the same in all exposures."""
    fringes = sky.fringes * np.sin(2 * np.pi * optics.wave / (9 + 0.2 * optics.strip))
    flat = rng.normal(0, sky.flat_error, optics.strip.shape)
    return (1 + fringes + flat).astype("f4")


# --- defects ---------------------------------------------------------------------------------------------


def _amplitudes(rng: np.random.Generator, n: int, span: tuple[float, float], negative: float) -> np.ndarray:
    low, high = np.log(span)
    strength = np.exp(rng.uniform(low, high, n))
    down = rng.random(n) < negative
    return np.where(down, -np.maximum(strength / 3, span[0]), strength).astype("f4")


def _draw_persistent(
    rng: np.random.Generator, defects: Defects, shape: tuple[int, int], exposures: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that are bad in all or some exposures: amplitude, kind, and in which exposures they are on."""
    amplitude, kind = np.zeros(shape, "f4"), np.zeros(shape, "u1")
    on = np.zeros((exposures, *shape), bool)
    draw = rng.random(shape)
    everywhere = np.flatnonzero(draw < defects.in_all)
    some = np.flatnonzero((draw >= defects.in_all) & (draw < defects.in_all + defects.in_some))
    amplitude.flat[everywhere] = _amplitudes(rng, everywhere.size, defects.range_all, defects.negative)
    kind.flat[everywhere] = KINDS["in_all"]
    on.reshape(exposures, -1)[:, everywhere] = True
    if exposures > 1:
        amplitude.flat[some] = _amplitudes(rng, some.size, defects.range_some, defects.negative)
        kind.flat[some] = KINDS["in_some"]
        most = min(defects.most or exposures - 1, exposures - 1)
        often = rng.integers(1, most + 1, some.size)
        order = rng.random((exposures, some.size)).argsort(axis=0)
        on.reshape(exposures, -1)[:, some] = order < often
    return amplitude, kind, on


def _draw_rays(rng: np.random.Generator, defects: Defects, amplitude: np.ndarray) -> np.ndarray:
    """Add cosmic-ray tracks to ``amplitude``; gives the map of the pixels that they hit."""
    ny, nx = amplitude.shape
    n = rng.poisson(defects.cosmic_rays * ny * nx)
    strength = _amplitudes(rng, n, defects.range_rays, 0.0)
    y, x = rng.uniform(0, ny, n), rng.uniform(0, nx, n)
    angle, length = rng.uniform(0, np.pi, n), rng.exponential(2.5, n)
    hit = np.zeros(amplitude.shape, "u1")
    for step in np.linspace(0, 1, 24):
        iy = np.floor(y + step * length * np.sin(angle)).astype(int)
        ix = np.floor(x + step * length * np.cos(angle)).astype(int)
        inside = (iy >= 0) & (iy < ny) & (ix >= 0) & (ix < nx)
        new = inside.copy()
        new[inside] = hit[iy[inside], ix[inside]] == 0
        amplitude[iy[new], ix[new]] += strength[new] * rng.uniform(0.4, 1.0, n)[new]
        hit[iy[new], ix[new]] = KINDS["cosmic_ray"]
    return hit


# --- the detector ----------------------------------------------------------------------------------------

_SCALE = np.float32(0.35)  # MJy/sr of one unit of read noise


def _expose(
    rng: np.random.Generator,
    light: np.ndarray,
    amplitude: np.ndarray,
    kind: np.ndarray,
    optics: _Optics,
    known: np.ndarray,
    per_light: float,
    transposed: bool,
) -> Exposure:
    lit = optics.strip > 0
    noise = np.sqrt(1 + per_light * light)
    signal = light + noise * (rng.standard_normal(light.shape, dtype="f4") + amplitude)
    poisson = per_light * np.maximum(signal, 0)
    arrays = {
        "SCI": signal * _SCALE,
        "ERR": np.sqrt(1 + poisson + (0.003 * signal) ** 2) * _SCALE,
        "VAR_POISSON": poisson * _SCALE**2,
        "VAR_RNOISE": np.full_like(signal, _SCALE**2),
        "VAR_FLAT": (0.003 * signal * _SCALE) ** 2,
    }
    for values in arrays.values():
        values[~lit | known] = np.nan
    flags = np.zeros(light.shape, "u4")
    flags[~lit] = dq.VALUE["DO_NOT_USE"] | dq.VALUE["NON_SCIENCE"]
    flags[known & lit] = dq.VALUE["DO_NOT_USE"] | dq.VALUE["HOT"]
    arrays["DQ"] = flags
    kind = kind | np.where(lit, KINDS["in_slice"], 0).astype("u1")
    if transposed:
        arrays = {name: np.ascontiguousarray(a.T) for name, a in arrays.items()}
        amplitude, kind = amplitude.T.copy(), kind.T.copy()
    return Exposure({n: a if n == "DQ" else a.astype("f4") for n, a in arrays.items()}, amplitude, kind)


# --- files -----------------------------------------------------------------------------------------------


def write_association(
    directory: str | Path,
    *,
    detectors: list[str],
    exposures: int,
    seed: int,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write a simulated association: `_cal` files, the JSON, and ``truth/`` with one file an exposure.

    Parameters
    ----------
    directory : path
        Where it goes; made if it is missing.
    detectors : list of str
        Keys of :data:`DETECTORS`.
    exposures, seed
        As for :func:`simulate`, for each detector.
    overwrite : bool
        Whether existing files may be replaced.
    **options
        Passed on to :func:`simulate`.

    Returns
    -------
    Path
        The association.
    """
    directory = check_directory(directory)
    truth = check_directory(directory / "truth")
    members = []
    for name in detectors:
        det = DETECTORS.get(name.upper())
        if det is None:
            raise UsageError(f"detector {name!r} is unknown; known are {', '.join(DETECTORS)}")
        reach = (options.get("sky") or Sky()).dither
        for i, exposure in enumerate(simulate(det.name, exposures, seed, **options)):
            root = f"jw09999001001_02101_{i + 1:05d}_{det.name.lower()}"
            shift = _dither(i, exposures, reach)
            with atomic_path(directory / f"{root}_cal.fits", overwrite) as path:
                _write_cal(path, f"{root}_cal.fits", det, exposure, i, shift)
            with atomic_path(truth / f"{root}_truth.fits", overwrite) as path:
                _write_truth(path, exposure, seed)
            members.append({"expname": f"{root}_cal.fits", "exptype": "science"})
    kind = DETECTORS[detectors[0].upper()].instrument.lower()
    table = {
        "asn_type": "spec3",
        "asn_rule": "DMS_Level3_Base",
        "program": "09999",
        "asn_id": "a3001",
        "asn_pool": "simulated",
        "products": [{"name": f"jw09999-a3001_t001_{kind}", "members": members}],
    }
    path = directory / f"jw09999-a3001_{kind}_spec3_asn.json"
    write_text(path, json.dumps(table, indent=2) + "\n", overwrite)
    return path


_ARCSEC_PER_PIXEL = 0.17


def _write_cal(path: Path, name: str, det: Detector, exposure: Exposure, i: int, shift: tuple[float, float]) -> None:
    primary = fits.PrimaryHDU()
    header = {
        "FILENAME": name,
        "DATAMODL": "IFUImageModel",
        "TELESCOP": "JWST",
        "INSTRUME": det.instrument,
        "DETECTOR": det.name,
        "EXP_TYPE": det.exp_type,
        "PROGRAM": "09999",
        "OBSERVTN": "001",
        "VISIT": "001",
        "VISITGRP": "02",
        "SEQ_ID": "1",
        "ACT_ID": "01",
        "EXPOSURE": str(i + 1),
        "XOFFSET": shift[0] * _ARCSEC_PER_PIXEL,
        "YOFFSET": shift[1] * _ARCSEC_PER_PIXEL,
        "S_WCS": "COMPLETE",
        "S_FLAT": "COMPLETE",
        "S_PHOTOM": "COMPLETE",
        **(det.band or {}),
    }
    primary.header.update(header)
    hdus = fits.HDUList([primary])
    for extension in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
        hdus.append(fits.ImageHDU(exposure.arrays[extension], name=extension))
    hdus["SCI"].header["BUNIT"] = "MJy/sr"
    content = np.frombuffer(_asdf_content(name, header, det, exposure.kind.shape, shift), "u1")
    column = fits.Column("ASDF_METADATA", f"{content.size}B", array=content[None])
    hdus.append(fits.BinTableHDU.from_columns([column], name="ASDF"))
    hdus.writeto(path)


# Where the arrays stand in the ASDF tree.
_IN_TREE = {
    "data": "SCI",
    "dq": "DQ",
    "err": "ERR",
    "var_flat": "VAR_FLAT",
    "var_poisson": "VAR_POISSON",
    "var_rnoise": "VAR_RNOISE",
}


def _asdf_content(
    name: str, header: Mapping[str, Any], det: Detector, shape: tuple[int, ...], shift: tuple[float, float]
) -> bytes:
    """Metadata and GWCS as the pipeline stores them, with the arrays as references to the HDUs."""
    import asdf

    meta = {
        "filename": name,
        "model_type": "IFUImageModel",
        "telescope": "JWST",
        "instrument": {"name": det.instrument, "detector": det.name},
        "exposure": {"type": det.exp_type},
        "cal_step": {"assign_wcs": "COMPLETE", "flat_field": "COMPLETE", "photom": "COMPLETE"},
        "dither": {"x_offset": header["XOFFSET"], "y_offset": header["YOFFSET"]},
        "wcs": _make_wcs(det, shape, shift),
    }
    buffer = io.BytesIO()
    asdf.AsdfFile({"meta": meta}).write_to(buffer)
    head, tail = buffer.getvalue().split(b"\nmeta:", 1)
    lines = ""
    for key, extension in _IN_TREE.items():
        kind = "uint32" if key == "dq" else "float32"
        lines += f"\n{key}: !core/ndarray-1.1.0\n  source: fits:{extension},1\n  datatype: {kind}\n"
        lines += f"  byteorder: big\n  shape: [{shape[0]}, {shape[1]}]"
    content = head + lines.encode() + b"\nmeta:" + tail
    return content.split(b"#ASDF BLOCK INDEX")[0]  # optional; its offsets no longer hold


def _make_wcs(det: Detector, shape: tuple[int, ...], shift: tuple[float, float]) -> Any:
    """A GWCS from pixels to sky and wavelength: one smooth map (slices are not told apart)."""
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling import models
    from gwcs import coordinate_frames as frames

    ny, nx = shape
    arcsec = _ARCSEC_PER_PIXEL / 3600
    along, across = (1, 0) if det.transposed else (0, 1)
    to_sky = models.Polynomial2D(1, c0_0=10 + shift[0] * arcsec, **{f"c{1 - along}_{along}": arcsec})
    to_dec = models.Polynomial2D(1, c0_0=-5 + shift[1] * arcsec, c1_0=arcsec / 30, c0_1=arcsec / 30)
    step = 1.0 / (nx if det.transposed else ny)
    to_wave = models.Polynomial2D(1, c0_0=5.0, **{f"c{1 - across}_{across}": step})
    transform = models.Mapping((0, 1, 0, 1, 0, 1)) | to_sky & to_dec & to_wave
    pixels = frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    world = frames.CompositeFrame(
        [
            frames.CelestialFrame(name="sky", reference_frame=coordinates.ICRS(), axes_order=(0, 1)),
            frames.SpectralFrame(name="wave", unit=units.micron, axes_order=(2,), axes_names=("lambda",)),
        ],
        name="world",
    )
    wcs = gwcs.WCS([(pixels, transform), (world, None)])
    wcs.bounding_box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    return wcs


def _write_truth(path: Path, exposure: Exposure, seed: int) -> None:
    primary = fits.PrimaryHDU()
    primary.header["SEED"] = (seed, "Seed of the simulation")
    for kind, bit in KINDS.items():
        primary.header.add_comment(f"KIND bit {bit}: {kind}")
    hdus = [primary, fits.ImageHDU(exposure.amplitude, name="AMPLITUDE"), fits.ImageHDU(exposure.kind, name="KIND")]
    write_hdus(path, fits.HDUList(hdus))
