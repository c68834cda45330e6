"""Simulated associations of dithered images, with real GWCS chains and the truth about every pixel.

1. Scene: stars (power law of fluxes) and elliptical galaxies on the sky, in arcsec about the target.
2. Pointings: groups dithered by up to ``dither`` pixels with any sub-pixel phase, optionally rolled.
3. WCS: detector -> V2V3 (polynomial distortion of order 3, or the chain of a real file) -> sky, as assign_wcs
   builds it, stored in the ASDF extension; S_REGION and the pointing keywords as in real `_cal` files.
4. PSF: a hexagonal aperture with an obstruction (a core, rings and spikes), or a Gaussian with wings;
   integrated over pixels, so that a small ``fwhm`` is really undersampled.
5. Detector: read and photon noise (VAR_RNOISE, VAR_POISSON, VAR_FLAT, ERR), known bad pixels (NaN, DO_NOT_USE),
   some pixels with ERR 0 or NaN without a flag, hot pixels without a flag, cosmic rays as single hits and
   tracks, a satellite trail. Hits raise the pixel's own VAR_POISSON and ERR, as they do in the pipeline.
6. Truth beside each exposure: what each hit added (in sigma), the scene without noise, the noise, and in how
   many other groups the pixel was seen; what makes it hard (:mod:`badpix.simulation.image_faults`).

Every file follows from ``seed``. Nothing here is used by the search.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import dq as flags
from badpix.io.asdf_text import make_asdf_hdu
from badpix.io.output import atomic_path, write_text
from badpix.simulation.image_faults import (
    add_saturated,
    events_of,
    make_background,
    make_clouds,
    make_events,
    make_halos,
    spoil,
)
from badpix.simulation.image_scene import make_psf, make_scene, paint, paint_stars
from badpix.simulation.image_setup import Setup
from badpix.simulation.image_wcs import ARCSEC, Pointing, count_cover, make_pointings, read_optics

NOTE = "Simulated by badpix; not an observation"


def simulate(directory: str | Path, setup: Setup, *, overwrite: bool = False) -> Path:
    """Write the exposures, their truth (``truth/``) and the association; gives the path of the association."""
    directory = Path(directory)
    optics = read_optics(setup) if setup.distortion else None
    if optics is not None:
        setup = replace(setup, scale=optics.scale)
    rng = np.random.default_rng(setup.seed)
    scene = make_scene(rng, setup)
    pointings = make_pointings(rng, setup, optics)
    psf = make_psf(setup)
    peak = float(psf.max())
    scene = scene._replace(stars=add_saturated(scene.stars, peak, setup), clouds=make_clouds(setup))
    events = make_events(peak, setup)
    fixed = {d: _fixed_pattern(np.random.default_rng([setup.seed, i]), setup) for i, d in enumerate(setup.detectors)}
    skies = setup.sky + (
        rng.normal(0, 0.08 * setup.sky, setup.groups) if setup.sky_differs else np.zeros(setup.groups)
    )
    (directory / "truth").mkdir(parents=True, exist_ok=True)
    names = []
    for number, pointing in enumerate(pointings):
        own = np.random.default_rng([setup.seed, 1000 + number])
        model = paint(scene, pointing, psf, setup) + skies[pointing.group]
        model += make_background(setup, number)
        halo = make_halos(setup, number)
        changing = paint_stars(events_of(events, pointing.group), pointing, psf, setup)
        arrays, truth = expose(own, model, fixed[pointing.detector], pointing, setup, halo, changing)
        spoil(arrays, setup, number)
        truth["COVER"] = count_cover(pointing, pointings, setup).astype(np.float32)
        name = f"jw{setup.program}001001_02101_{pointing.group + 1:05d}_{pointing.detector.lower()}_cal.fits"
        with atomic_path(directory / name, overwrite) as path:
            write_cal(path, name, arrays, pointing, setup, skies[pointing.group])
        with atomic_path(directory / "truth" / name.replace("_cal", "_truth"), overwrite) as path:
            write_truth(path, truth)
        names.append(name)
    if events:
        listed = [event._asdict() for event in events]
        write_text(directory / "truth" / "events.json", json.dumps(listed, indent=2) + "\n", overwrite)
    table = directory / f"jw{setup.program}-o001_image3_asn.json"
    write_text(table, json.dumps(make_association(names, setup), indent=2) + "\n", overwrite)
    return table


def make_association(names: Sequence[str], setup: Setup) -> dict[str, Any]:
    """The level-3 association of the exposures, as the pipeline reads it."""
    return {
        "asn_type": "image3",
        "asn_rule": "DMS_Level3_Base",
        "version_id": None,
        "code_version": "badpix",
        "degraded_status": "No known degraded exposures in association.",
        "program": setup.program,
        "constraints": "No constraints",
        "asn_id": "a3001",
        "asn_pool": "simulated_pool",
        "products": [
            {
                "name": f"jw{setup.program}-o001_t001_nircam_{setup.filter.lower()}",
                "members": [{"expname": name, "exptype": "science"} for name in names],
            }
        ],
    }


# --- detector ---------------------------------------------------------------------------------------------


def _fixed_pattern(rng: np.random.Generator, setup: Setup) -> dict[str, NDArray[Any]]:
    """What a detector keeps from exposure to exposure."""
    ny, nx = setup.shape
    n = ny * nx
    bad = rng.random(setup.shape) < setup.bad / 2
    for _ in range(int(n * setup.bad / 2 / 12)):  # clusters
        y, x = rng.integers(ny), rng.integers(nx)
        bad[max(0, y - 2) : y + 2, max(0, x - 1) : x + 2] = True
    hot = np.zeros(setup.shape)
    k = rng.poisson(setup.hot * n / 1e6)
    hot[rng.integers(ny, size=k), rng.integers(nx, size=k)] = np.exp(rng.uniform(np.log(5), np.log(200), k))
    odd = np.zeros(setup.shape, np.uint8)  # 1: ERR = 0, 2: ERR = NaN, without DO_NOT_USE
    for kind in (1, 2):
        k = rng.poisson(15 * n / 1e6)
        odd[rng.integers(ny, size=k), rng.integers(nx, size=k)] = kind
    return {
        "bad": bad,
        "hot": np.where(bad, 0, hot),
        "odd": odd,
        "read": setup.read_noise * np.exp(rng.normal(0, 0.05, setup.shape)),
    }


def expose(
    rng: np.random.Generator,
    model: NDArray[Any],
    fixed: dict[str, NDArray[Any]],
    pointing: Pointing,
    setup: Setup,
    halo: NDArray[Any],
    changing: NDArray[Any],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """The arrays of a `_cal` file and the truth of one exposure.

    Parameters
    ----------
    rng : Generator
    model : float64 (ny, nx)
        Scene and sky, MJy/sr.
    fixed : dict
        What the detector keeps.
    pointing : Pointing
    setup : Setup
    halo : float64 (ny, nx)
        Of snowballs, sigma.
    changing : float64 (ny, nx)
        Stars that other exposures don't have there, MJy/sr.
    """
    var_read = fixed["read"] ** 2
    sigma = np.sqrt(var_read + model / setup.gain)
    cosmic = cosmic_rays(rng, setup) * sigma
    trail = satellite_trail(rng, setup) * sigma if setup.trail and pointing.group == 1 else np.zeros_like(model)
    hot = fixed["hot"] * sigma
    added = cosmic + trail + hot + halo * sigma + changing
    sci = rng.normal(model, sigma) + added + rng.normal(0, 1, model.shape) * np.sqrt(added / setup.gain)
    var_poisson = np.maximum(sci, 0.2 * model) / setup.gain
    var_flat = (5e-4 * sci) ** 2
    err = np.sqrt(var_read + var_poisson + var_flat)
    dq = np.zeros(model.shape, np.uint32)
    saturated = sci > setup.saturation
    dq[saturated] |= flags.VALUE["SATURATED"] | flags.VALUE["DO_NOT_USE"]
    dq[fixed["bad"]] |= flags.VALUE["DO_NOT_USE"] | flags.VALUE["DEAD"]
    dq[rng.random(model.shape) < 0.01] |= flags.VALUE["JUMP_DET"]
    unusable = (dq & 1) != 0
    err[(fixed["odd"] == 1) & ~unusable] = 0
    err[(fixed["odd"] == 2) & ~unusable] = np.nan
    arrays = {"SCI": sci, "ERR": err, "VAR_POISSON": var_poisson, "VAR_RNOISE": var_read, "VAR_FLAT": var_flat}
    for name, values in arrays.items():
        arrays[name] = np.where(unusable, np.nan, values).astype(np.float32)
    arrays["DQ"] = dq
    truth = {"CR": cosmic / sigma, "TRAIL": trail / sigma, "HOT": hot / sigma, "MODEL": model, "SIGMA": sigma}
    truth |= {"HALO": halo, "CHANGING": changing / sigma}
    return arrays, {name: values.astype(np.float32) for name, values in truth.items()}


def cosmic_rays(rng: np.random.Generator, setup: Setup) -> NDArray[Any]:
    """Charge left by single hits and tracks, in units of the noise."""
    ny, nx = setup.shape
    out = np.zeros(setup.shape)
    n = rng.poisson(setup.hits * ny * nx / 1e6)
    np.add.at(
        out, (rng.integers(ny, size=n), rng.integers(nx, size=n)), np.exp(rng.uniform(np.log(3), np.log(500), n))
    )
    for _ in range(rng.poisson(setup.tracks * ny * nx / 1e6)):
        length = rng.exponential(4.0)
        angle = rng.uniform(0, np.pi)
        t = np.arange(0, length + 0.2, 0.2)
        x, y = rng.uniform(0, nx) + t * np.cos(angle), rng.uniform(0, ny) + t * np.sin(angle)
        charge = np.exp(rng.uniform(np.log(5), np.log(600))) * 0.2
        keep = (x < nx - 0.5) & (y < ny - 0.5) & (x > -0.5) & (y > -0.5)
        weights = rng.gamma(4.0, 0.25, keep.sum()) * charge
        np.add.at(out, (np.round(y[keep]).astype(int), np.round(x[keep]).astype(int)), weights)
    shared = 0.006  # capacitive coupling to each neighbor
    spread = out * (1 - 4 * shared)
    spread[1:] += shared * out[:-1]
    spread[:-1] += shared * out[1:]
    spread[:, 1:] += shared * out[:, :-1]
    spread[:, :-1] += shared * out[:, 1:]
    return spread


def satellite_trail(rng: np.random.Generator, setup: Setup) -> NDArray[Any]:
    """A straight trail across the frame, in units of the noise."""
    ny, nx = setup.shape
    angle = rng.uniform(0.2, 1.2)
    y, x = np.mgrid[:ny, :nx]
    distance = (x - nx / 2) * np.sin(angle) - (y - ny * rng.uniform(0.3, 0.7)) * np.cos(angle)
    trail: NDArray[Any] = setup.trail * np.exp(-0.5 * (distance / (setup.trail_width / 2.3548)) ** 2)
    return np.where(trail > 0.05, trail, 0)


# --- files ------------------------------------------------------------------------------------------------


def write_cal(
    path: Path, name: str, arrays: dict[str, NDArray[Any]], pointing: Pointing, setup: Setup, sky: float
) -> None:
    """One `_cal` file: the HDUs, keywords and ASDF extension of the pipeline's product."""
    primary = fits.PrimaryHDU()
    primary.header.update(_primary_cards(name, pointing, setup, sky))
    primary.header.add_history(NOTE)
    hdus = [primary]
    for extension in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
        hdus.append(fits.ImageHDU(arrays[extension], name=extension))
        if extension in ("SCI", "ERR"):
            hdus[-1].header["BUNIT"] = "MJy/sr"
    hdus[1].header.update(_pointing_cards(pointing, setup))
    hdus.append(make_asdf_hdu({"meta": {"wcs": pointing.wcs, "filename": name, "telescope": "JWST"}}))
    fits.HDUList(hdus).writeto(path, overwrite=True)


def _primary_cards(name: str, pointing: Pointing, setup: Setup, sky: float) -> dict[str, Any]:
    ny, nx = setup.shape
    cards = {
        "DATE": "2026-01-01T00:00:00.000",
        "FILENAME": name,
        "DATAMODL": "ImageModel",
        "TELESCOP": "JWST",
        "INSTRUME": "NIRCAM",
        "DETECTOR": pointing.detector,
        "MODULE": pointing.detector[3:4],
        "CHANNEL": "LONG" if pointing.detector.endswith("LONG") else "SHORT",
        "EXP_TYPE": "NRC_IMAGE",
        "FILTER": setup.filter,
        "PUPIL": "CLEAR",
        "PROGRAM": setup.program,
        "OBSERVTN": "001",
        "VISIT": "001",
        "VISITGRP": "02",
        "SEQ_ID": "1",
        "ACT_ID": "01",
        "EXPOSURE": f"{pointing.group + 1:05d}",
        "DATE-OBS": "2026-01-01",
        "TIME-OBS": f"{pointing.group:02d}:00:00.000",
        "EXPSTART": 61041.0 + pointing.group / 24,
        "EXPMID": 61041.01 + pointing.group / 24,
        "EXPEND": 61041.02 + pointing.group / 24,
        "DURATION": 515.365,
        "EFFEXPTM": 515.365,
        "TMEASURE": 504.628,
        "READPATT": "SHALLOW4",
        "NINTS": 1,
        "NGROUPS": 10,
        "SUBARRAY": "FULL",
        "SUBSTRT1": 1,
        "SUBSTRT2": 1,
        "SUBSIZE1": nx,
        "SUBSIZE2": ny,
        "FASTAXIS": -1,
        "SLOWAXIS": 2,
        "TARG_RA": setup.target[0],
        "TARG_DEC": setup.target[1],
        "S_RAMP": "COMPLETE",
        "S_FLAT": "COMPLETE",
        "S_PHOTOM": "COMPLETE",
        "S_WCS": "COMPLETE",
    }
    if not setup.sky_differs:
        cards |= {"S_SKYMAT": "COMPLETE", "BKGLEVEL": sky, "BKGSUB": False}
    return cards


def _pointing_cards(pointing: Pointing, setup: Setup) -> dict[str, Any]:
    ny, nx = setup.shape
    corners = pointing.wcs.footprint(center=True)
    region = " ".join(f"{v:.9f}" for v in np.asarray(corners).ravel())
    area = (setup.scale * ARCSEC * np.pi / 180) ** 2
    return {
        "PHOTMJSR": 1.5,
        "PIXAR_SR": area,
        "PIXAR_A2": setup.scale**2,
        "WCSAXES": 2,
        "CRPIX1": (nx + 1) / 2,
        "CRPIX2": (ny + 1) / 2,
        "CRVAL1": pointing.ref[0],
        "CRVAL2": pointing.ref[1],
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        **_linear_wcs(pointing, setup),
        "S_REGION": f"POLYGON ICRS  {region}",
        "RA_REF": pointing.ref[0],
        "DEC_REF": pointing.ref[1],
        "ROLL_REF": pointing.roll,
        "V2_REF": pointing.v2v3[0],
        "V3_REF": pointing.v2v3[1],
        "VPARITY": pointing.parity,
        "V3I_YANG": pointing.yang,
        "VA_SCALE": 1.0,
    }


def _linear_wcs(pointing: Pointing, setup: Setup) -> dict[str, float]:
    """CD matrix at the reference pixel: the FITS form of the WCS, without the distortion."""
    ny, nx = setup.shape
    x, y = (nx - 1) / 2, (ny - 1) / 2
    (r0, d0), (rx, dx), (ry, dy) = (pointing.wcs(x + i, y + j) for i, j in ((0, 0), (1, 0), (0, 1)))
    cosd = np.cos(np.radians(d0))
    return {
        "CD1_1": float((rx - r0) * cosd),
        "CD1_2": float((ry - r0) * cosd),
        "CD2_1": float(dx - d0),
        "CD2_2": float(dy - d0),
    }


def write_truth(path: Path, truth: dict[str, NDArray[Any]]) -> None:
    """CR, TRAIL, HOT, HALO, CHANGING in sigma; MODEL and SIGMA in MJy/sr; COVER = number of other groups."""
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(values, name=name) for name, values in truth.items())]
    fits.HDUList(hdus).writeto(path, overwrite=True)
