"""Small exposures for tests, written with astropy alone: sound ones, and ways to break them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from astropy.io import fits

from badpix import detectors, dq
from badpix.detectors import Window

INTERIOR = Window(1000, 900, 96, 80)  # no reference pixels
CORNER = Window(1, 1, 96, 80)  # reference pixels at the left and at the bottom of a near-infrared frame


def make_header(detector="NRCB1", window=INTERIOR, subarray="SUB160", number=1, s_ramp="COMPLETE", **keywords):
    """Primary header of an exposure; a keyword of None is left out."""
    facts = detectors.get(detector)
    rows = {
        "TELESCOP": "JWST",
        "INSTRUME": facts.instrument,
        "DETECTOR": facts.name,
        "SUBARRAY": subarray,
        "SUBSTRT1": window.xstart,
        "SUBSTRT2": window.ystart,
        "SUBSIZE1": window.xsize,
        "SUBSIZE2": 2048 if window.ysize == detectors.IRS2_ROWS else window.ysize,
        "FASTAXIS": facts.fastaxis,
        "SLOWAXIS": facts.slowaxis,
        "READPATT": "RAPID",
        "NINTS": 1,
        "NGROUPS": 10,
        "DATE-OBS": f"2026-01-{number:02d}",
        "TIME-OBS": "01:02:03.456",
        "DATE": "2026-02-01T00:00:00",
        "S_RAMP": s_ramp,
        **keywords,
    }
    header = fits.Header()
    for key, value in rows.items():
        if value is not None:
            header[key.replace("_", "-") if key.startswith("DATE_") else key] = value
    return header


def make_dq(shape, detector, window):
    """DQ of a slope image: reference pixels alone."""
    border = detectors.measure_border(detectors.get(detector), window)
    flags = np.zeros(shape, np.uint32)
    flags[..., border] = dq.VALUE["REFERENCE_PIXEL"] | dq.VALUE["DO_NOT_USE"]
    return flags


def make_hdus(image, detector="NRCB1", window=INTERIOR, flags=None, **header):
    """A slope image (2-D: rate, 3-D: rateints) as HDUs: PRIMARY, SCI, ERR, DQ."""
    image = np.asarray(image)
    flags = make_dq(image.shape, detector, window) if flags is None else flags
    return fits.HDUList(
        [
            fits.PrimaryHDU(header=make_header(detector, window, **header)),
            fits.ImageHDU(image, name="SCI"),
            fits.ImageHDU(np.ones(image.shape, np.float32), name="ERR"),
            fits.ImageHDU(flags, name="DQ"),
        ]
    )


def write_rate(path, image, **options):
    """A slope image on disk."""
    make_hdus(np.asarray(image, np.float32), **options).writeto(path, overwrite=True)
    return Path(path)


def write_rates(folder, stack, suffix="rate", **options):
    """One slope image a file, ``exposure01_rate.fits`` and following."""
    folder.mkdir(exist_ok=True, parents=True)
    return [
        write_rate(folder / f"exposure{k:02d}_{suffix}.fits", image, number=k, **options)
        for k, image in enumerate(stack, 1)
    ]


def write_uncal(path, ramps, detector="NRCB1", window=INTERIOR, s_ramp=None, **options):
    """A raw ramp (3-D or 4-D) as unsigned 16-bit integers."""
    primary = fits.PrimaryHDU(header=make_header(detector, window, s_ramp=s_ramp, **options))
    fits.HDUList([primary, fits.ImageHDU(np.asarray(ramps, np.uint16), name="SCI")]).writeto(path, overwrite=True)
    return Path(path)


def pack_gzip(path):
    """The file gzipped, beside it; the plain one is gone."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()
    return packed


def pack_tiles(path):
    """The file fpack-compressed (lossless), beside it; the plain one is gone."""
    with fits.open(path) as hdus:
        packed = [hdus[0]]
        for hdu in hdus[1:]:
            kind = "GZIP_2" if hdu.data.dtype.kind == "f" else "RICE_1"
            packed.append(fits.CompImageHDU(hdu.data, name=hdu.name, compression_type=kind, quantize_level=0))
        target = path.with_name(path.name + ".fz")
        fits.HDUList(packed).writeto(target, overwrite=True)
    path.unlink()
    return target


def make_flats(n=5, shape=(80, 96), seed=1, noise=0.01, spread=0.01, gradient=0.0, level=100.0, lamp=0.0):
    """``n`` flats: response of each pixel, noise, a gradient over the frame, a lamp that drifts; float32."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 1 + gradient * (x / shape[1] - 0.5) - gradient / 2 * (y / shape[0] - 0.5)
    response = level * light * (1 + spread * rng.normal(size=shape))
    drift = 1 + lamp * rng.normal(size=(n, 1, 1))
    return (response * drift * (1 + noise * rng.normal(size=(n, *shape)))).astype(np.float32)


def put_open(stack, y, x, level, gain=0.12, shared=0.05):
    """Make a pixel OPEN in every image: what it loses goes to its neighbors, if they respond. In place."""
    ny, nx = stack.shape[1:]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if (dy or dx) and 0 <= y + dy < ny and 0 <= x + dx < nx:
                stack[:, y + dy, x + dx] *= 1 + (shared if dy and dx else gain)
    stack[:, y, x] *= level


def list_folder(folder):
    """All files below a folder, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*"))


def couple(image, alpha):
    """Each pixel gives ``alpha`` of its charge to each side neighbor; what crosses the frame is lost."""
    out = image * (1 - 4 * alpha)
    for axis in (0, 1):
        for step in (1, -1):
            moved = np.roll(image, step, axis)
            edge = [slice(None)] * 2
            edge[axis] = 0 if step == 1 else -1
            moved[tuple(edge)] = 0
            out = out + alpha * moved
    return out
