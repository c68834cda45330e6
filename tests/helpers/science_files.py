"""Small science programs with known bad pixels: stars on a dithered sky, a background by visit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

NOISE = 0.03  # DN/s, of one exposure
SHAPE = (96, 96)


def draw_stars(shape, ys, xs, fluxes, fwhm):
    """Gaussian stars, sampled on 5 x 5 points a pixel."""
    fine = (np.arange(5) - 2) / 5
    out = np.zeros(shape)
    y, x = (np.arange(n)[:, None] + fine for n in shape)
    for y0, x0, flux in zip(ys, xs, fluxes, strict=True):
        gy, gx = (np.exp(-4 * np.log(2) * ((c - c0) / fwhm) ** 2).mean(axis=1) for c, c0 in ((y, y0), (x, x0)))
        out += flux * 4 * np.log(2) / np.pi / fwhm**2 * gy[:, None] * gx
    return out


def write_exposure(path: Path, image, noise, *, visit, number, offset, dq=None, detector="NRCB1", **header):
    """One rate file."""
    instrument = {"N": "NIRCAM", "M": "MIRI"}[detector[0]]
    primary = fits.PrimaryHDU()
    primary.header.update(
        {
            "TELESCOP": "JWST",
            "INSTRUME": instrument,
            "DETECTOR": detector,
            "SUBARRAY": "SUB320A335R",
            "READPATT": "MEDIUM8",
            "SUBSTRT1": 101,
            "SUBSTRT2": 101,
            "SUBSIZE1": image.shape[1],
            "SUBSIZE2": image.shape[0],
            "FASTAXIS": 1,
            "SLOWAXIS": -2,
            "EXP_TYPE": "NRC_IMAGE",
            "FILTER": "F200W",
            "PUPIL": "CLEAR",
            "S_RAMP": "COMPLETE",
            "VISIT_ID": f"01234{visit:03d}001",
            "EXPSTART": 60000.0 + 10 * visit + number / 50,
            "DATE-OBS": f"2023-02-{1 + visit:02d}",
        }
        | header
    )
    sci = fits.ImageHDU(image.astype(np.float32), name="SCI")
    sci.header.update({"BUNIT": "DN/s", "RA_REF": 50.0 + visit + offset[1] / 3600, "DEC_REF": offset[0] / 3600})
    err = np.broadcast_to(noise, image.shape).astype(np.float32)
    flags = np.zeros(image.shape, np.uint32) if dq is None else dq
    hdus = [primary, sci, fits.ImageHDU(err, name="ERR"), fits.ImageHDU(flags, name="DQ")]
    fits.HDUList(hdus).writeto(path)


def write_program(
    folder: Path, make, *, visits=3, exposures=8, seed=1, dithered=True, stars=60, shape=SHAPE, **header
):
    """Exposures of a dithered field of stars; ``make(light, k)`` is what the detector makes of it in exposure k."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    paths = []
    for visit in range(visits):
        sky = rng.uniform(-20, 120, (2, stars)), rng.exponential(2.0, stars)
        for k in range(exposures):
            number = visit * exposures + k
            offset = rng.uniform(-9, 9, 2) if dithered else np.zeros(2)
            light = draw_stars(SHAPE, sky[0][0] + offset[0], sky[0][1] + offset[1], sky[1], 2.0)
            noise = np.sqrt(NOISE**2 + light / 500)
            image = make(light + 0.15 + 0.07 * visit, number) + rng.normal(size=SHAPE) * noise
            path = folder / f"jw01234{visit:03d}001_{number:05d}_nrcb1_rate.fits"
            place = visit if dithered else 0
            write_exposure(path, image, noise, visit=place, number=number, offset=offset * 0.1, **header)
            paths.append(path)
    return paths
