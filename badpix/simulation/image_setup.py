"""What a simulated association of images holds: its setup, and the presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_STEPS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


def _scaled(size: float) -> tuple[tuple[float, float], ...]:
    """Dithers of this many pixels on a square."""
    return tuple((size * x, size * y) for x, y in _STEPS)


PRESETS: dict[str, dict[str, Any]] = {
    # fields as they should be
    "sw": {},
    "sw2": {"detectors": ("NRCB1", "NRCB2")},
    "lw": {"detectors": ("NRCBLONG",), "scale": 0.063, "fwhm": 2.2, "filter": "F444W"},
    "two": {"groups": 2},
    "three": {"groups": 3, "detectors": ("NRCB1", "NRCB2")},
    "skies": {"sky_differs": True, "groups": 5, "roll_step": 0.4},
    "gaussian": {"psf": "gaussian"},
    "narrow": {"fwhm": 0.9, "psf": "gaussian", "sky_differs": True},
    # harder ones
    "rolls": {"rolls": (0.0, 0.0, 30.0, 30.0)},
    "rolls90": {"rolls": (0.0, 0.0, 90.0, 90.0), "saturated": 3},
    "rolls4": {"rolls": (0.0, 25.0, 50.0, 75.0), "saturated": 1},
    "steps05": {"steps": _scaled(0.5), "hot": 1500.0},
    "steps": {"steps": _scaled(1.0), "hot": 1500.0},
    "steps15": {"steps": _scaled(1.5), "hot": 1500.0},
    "narrow-steps": {"groups": 2, "steps": _scaled(0.5), "hot": 1500.0, "fwhm": 0.9, "psf": "gaussian"},
    "mosaic": {"groups": 2, "steps": ((-400.0, 0.0), (400.0, 0.0))},
    "gaps": {"steps": ((0.0, 0.0), (80.0, 66.0), (-72.0, 56.0), (66.0, -60.0))},
    "transients": {
        "transients": tuple((p, g) for p in (40.0, 100.0, 400.0) for g in ((0,), (2,), (1, 3), (0, 1))),
        "movers": ((200.0, 4.0), (100.0, 8.0), (60.0, 15.0)),
    },
    "stripes": {"stripes": 1.4},
    "gradients": {"gradient": 0.3, "sky_differs": True},
    "crowded": {"stars": 40_000.0, "galaxies": 0.0},
    "nebula": {"nebula": 30.0},
    "wide-trail": {"trail": 3.0, "trail_width": 12.0},
    "halos": {"snowballs": 40.0},
    "small-err": {"err_factor": 1 / 1.5},
    "mixture": {
        "sky_differs": True,
        "gradient": 0.05,
        "stripes": 0.5,
        "err_factor": 0.8,
        "flux_error": 0.05,
        "pointing_error": 0.2,
        "snowballs": 20.0,
        "hot": 600.0,
        "trail": 3.0,
        "trail_width": 12.0,
    },
}


@dataclass(frozen=True)
class Setup:
    """What is simulated; the defaults are a short-wavelength NIRCam field."""

    seed: int = 1
    groups: int = 4
    detectors: tuple[str, ...] = ("NRCB1",)
    shape: tuple[int, int] = (1024, 1024)
    scale: float = 0.031  # arcsec a pixel
    fwhm: float = 1.25  # pixels
    psf: str = "hexagon"  # or "gaussian"
    stars: float = 1000.0  # a million pixels
    galaxies: float = 150.0
    sky: float = 0.25  # MJy/sr
    saturated: int = 0  # stars that saturate in every exposure, near the middle
    nebula: float = 0.0  # usual peak of the clouds, sigma
    transients: tuple[tuple[float, tuple[int, ...]], ...] = ()  # peak in sigma, and the groups that see it
    movers: tuple[tuple[float, float], ...] = ()  # peak in sigma, pixels from group to group
    sky_differs: bool = False  # another level in each group, and no keyword that says so
    roll_step: float = 0.0  # degrees between groups
    rolls: tuple[float, ...] = ()  # degrees of each group, in turn; besides roll_step
    dither: float = 25.0  # pixels
    steps: tuple[tuple[float, float], ...] = ()  # pixels, of each group in turn; instead of random dithers
    read_noise: float = 0.012  # MJy/sr
    gain: float = 1200.0  # electrons a MJy/sr
    tracks: float = 400.0  # cosmic rays a million pixels and exposure
    hits: float = 250.0  # single-pixel hits
    hot: float = 60.0  # unflagged hot pixels
    bad: float = 0.004  # fraction of known bad pixels
    trail: float = 10.0  # peak of the satellite trail in the second group, sigma; 0 = none
    trail_width: float = 3.8  # FWHM, pixels
    stripes: float = 0.0  # 1/f noise that rows share, sigma
    gradient: float = 0.0  # of the sky across the field, another in each exposure; fraction of the sky
    snowballs: float = 0.0  # with halos of 1 to 3 sigma, a million pixels and exposure
    err_factor: float = 1.0  # ERR as stated, over the noise
    flux_error: float = 0.0  # by which the levels of exposures are off at most
    pointing_error: float = 0.0  # by which the WCS of groups are off, pixels
    saturation: float = 400.0  # MJy/sr; brighter pixels are NaN, SATURATED and DO_NOT_USE
    filter: str = "F200W"
    distortion: str = ""  # ASDF file with a GWCS whose detector-to-V2V3 step, and pixel scale, are used
    program: str = "09999"
    target: tuple[float, float] = (53.16, -27.79)
