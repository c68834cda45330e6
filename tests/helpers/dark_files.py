"""Dark exposures for tests: ramps with known defects, and their files as the pipeline writes them."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from make_files import INTERIOR, make_dq, make_header

TGROUP = 10.0
NOISE = 5.0
SATURATED, JUMP = 2, 4

# what stands where, (y, x), in every frame of 40 x 96 pixels
DEFECTS = {
    "hot": [(6, 10), (20, 50)],
    "saturated": [(12, 70)],
    "rc": [(30, 20), (8, 80)],
    "inverse_rc": [(33, 40)],
    "telegraph": [(16, 30), (25, 85)],
    "noisy": [(35, 66), (3, 44)],
    "low_pedestal": [(27, 8)],
}
SHAPE = (40, 96)


def make_ramps(seed, integrations=6, groups=30, shape=SHAPE, defects=DEFECTS):
    """(nints, groups, ny, nx) ramps in DN, GROUPDQ and pedestals of darks; cosmic rays are flagged as jumps."""
    rng = np.random.default_rng(seed)
    spread = np.exp(0.05 * np.random.default_rng(1).normal(size=shape))
    g = np.arange(groups)
    ramps = rng.normal(0, NOISE, (integrations, groups, *shape)) * spread + 0.05 * g[:, None, None]
    reset = rng.normal(0, 20, (integrations, *shape))
    flags = np.zeros(ramps.shape, np.uint8)
    for i in range(integrations):
        _add_cosmic_rays(ramps[i], flags[i], rng)
    for kind, places in defects.items():
        for y, x in places:
            _ADD[kind](ramps, flags, reset, y, x, rng)
    ramps += reset[:, None]
    return ramps.astype(np.float32), flags, reset.astype(np.float32)


def _add_cosmic_rays(ramp, flags, rng):
    n = ramp[0].size // 100
    g, y, x = rng.integers(1, len(ramp), n), rng.integers(0, ramp.shape[1], n), rng.integers(0, ramp.shape[2], n)
    for k in range(n):
        ramp[g[k] :, y[k], x[k]] += rng.uniform(60, 2000)
        flags[g[k], y[k], x[k]] |= JUMP


def _hot(ramps, flags, reset, y, x, rng):
    ramps[:, :, y, x] += 90 * np.arange(ramps.shape[1])


def _saturated(ramps, flags, reset, y, x, rng):
    ramps[:, :, y, x] = 60000
    flags[:, :, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] |= SATURATED


def _rc(ramps, flags, reset, y, x, rng):
    ramps[:, :, y, x] += 300 * (1 - np.exp(-np.arange(ramps.shape[1]) / 3))


def _inverse_rc(ramps, flags, reset, y, x, rng):
    ramps[:, :, y, x] += 200 * np.exp(-np.arange(ramps.shape[1]) / 3)


def _telegraph(ramps, flags, reset, y, x, rng):
    state = np.cumsum(rng.random(ramps.shape[:2]) < 0.15, axis=1) % 2
    ramps[:, :, y, x] += 60 * state
    flags[:, 1:, y, x] |= np.where(np.diff(state, axis=1) != 0, JUMP, 0).astype(np.uint8)


def _noisy(ramps, flags, reset, y, x, rng):
    ramps[:, :, y, x] += rng.normal(0, 5 * NOISE, ramps.shape[:2])


def _low_pedestal(ramps, flags, reset, y, x, rng):
    reset[:, y, x] -= 300


_ADD = {
    "hot": _hot,
    "saturated": _saturated,
    "rc": _rc,
    "inverse_rc": _inverse_rc,
    "telegraph": _telegraph,
    "noisy": _noisy,
    "low_pedestal": _low_pedestal,
}


def fit_rates(ramps, flags):
    """Rates (DN/s) and their Poisson variance: median step between unflagged groups; NaN where all is saturated."""
    steps = np.diff(ramps, axis=1)
    bad = (flags[:, 1:] | (flags[:, :-1] & SATURATED)) != 0
    with np.errstate(invalid="ignore", divide="ignore"):
        count = (~bad).sum(axis=1)
        rate = np.where(bad, 0, steps).sum(axis=1) / count / TGROUP
    return rate.astype(np.float32), np.full(rate.shape, 1e-8, np.float32)


def write_dark(
    folder, number, ramps, flags, pedestal, detector="NRCB1", window=INTERIOR, suffix="rateints", **keywords
):
    """The rate, jump and fitopt files of one exposure; the path of the first."""
    folder.mkdir(exist_ok=True, parents=True)
    window = window._replace(xsize=ramps.shape[-1], ysize=ramps.shape[-2])
    header = make_header(
        detector,
        window,
        number=number,
        NINTS=len(ramps),
        NGROUPS=ramps.shape[1],
        TGROUP=TGROUP,
        S_JUMP="COMPLETE",
        S_SUPERB="COMPLETE",
        EXP_TYPE="NRC_DARK",
        **keywords,
    )
    root = folder / f"dark{number:02d}"
    rate, poisson = fit_rates(ramps, flags)
    if suffix == "rate":
        rate, poisson = rate[0], poisson[0]
    full = (flags & SATURATED).all(axis=1)
    pedestal = np.where(full, 0, pedestal).astype(np.float32)
    images = {"SCI": rate, "DQ": make_dq(rate.shape, detector, window), "VAR_POISSON": poisson}
    write(f"{root}_{suffix}.fits", header, images)
    write(f"{root}_jump.fits", header, {"SCI": ramps, "GROUPDQ": flags})
    write(f"{root}_fitopt.fits", header, {"PEDESTAL": pedestal})
    return root.with_name(f"{root.name}_{suffix}.fits")


def write(path, header, images):
    """A FITS file of some images."""
    hdus = [fits.PrimaryHDU(header=header), *(fits.ImageHDU(image, name=name) for name, image in images.items())]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def write_darks(folder, exposures=6, integrations=1, seed=0, **options):
    """Some exposures of the same detector; their rate files."""
    keys = ("groups", "shape", "defects")
    made = {k: options.pop(k) for k in keys if k in options}
    return [
        write_dark(folder, k, *make_ramps(seed + k, integrations, **made), **options) for k in range(1, exposures + 1)
    ]
