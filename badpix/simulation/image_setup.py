"""What a simulated association of images holds: its setup, and the presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "sw": {},
    "sw2": {"detectors": ("NRCB1", "NRCB2")},
    "lw": {"detectors": ("NRCBLONG",), "scale": 0.063, "fwhm": 2.2, "filter": "F444W"},
    "rolls": {"rolls": (0.0, 0.0, 30.0, 30.0)},
    "mosaic": {"groups": 2, "steps": ((-400.0, 0.0), (400.0, 0.0))},
    "steps": {"steps": ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)), "hot": 1500.0},
    "skies": {"sky_differs": True, "groups": 5, "roll_step": 0.4},
    "two": {"groups": 2},
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
    saturation: float = 400.0  # MJy/sr; brighter pixels are NaN, SATURATED and DO_NOT_USE
    filter: str = "F200W"
    distortion: str = ""  # ASDF file with a GWCS whose detector-to-V2V3 step, and pixel scale, are used
    program: str = "09999"
    target: tuple[float, float] = (53.16, -27.79)
