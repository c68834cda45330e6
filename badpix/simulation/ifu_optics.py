"""Detectors of simulated IFU exposures, and how they are cut into slices.

1. A detector is cut into slices: curved strips along the dispersion, with gaps between them. MIRI disperses along y
   (1024 x 1032, two channels side by side), NIRSpec along x (2048 x 2048); here the dispersion is always the first
   axis.
2. Each pixel looks at one place of one slice at one wavelength. Lines of equal wavelength are shifted from slice to
   slice, and tilted within it; less light arrives near the edges of a slice.

:mod:`badpix.simulation.ifu_wcs` says the same as a GWCS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

LEAN = 0.4  # of the bend that is linear in the dispersion
TILT, SKEW = 0.04, 0.002  # wavelength, pixels, for a pixel along the slice, and along the detector
JUMP, PACE = 3.0, 1.3  # wavelength from slice to slice: JUMP * sin(PACE * slice), pixels


@dataclass(frozen=True)
class Detector:
    """What the simulation knows of a detector; dispersion first, slices side by side along the second axis."""

    name: str
    instrument: str
    exp_type: str
    shape: tuple[int, int]  # (dispersion, spatial)
    channels: tuple[int, ...]  # slices of each channel
    gap: float  # pixels between slices
    bend: float  # pixels by which traces curve toward the ends
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
class Optics:
    """Where on the sky each pixel looks: strip (0 in gaps), position along the strip, wavelength in pixels."""

    strip: np.ndarray  # int16, from 1; 0 also where no light gets
    along: np.ndarray  # float32, pixels from the middle of the strip; NaN between strips
    wave: np.ndarray  # float32
    edge: np.ndarray  # float32, throughput
    strips: int  # how many


@dataclass(frozen=True)
class Channel:
    """Slices side by side: the number before the first, how many, where they begin, pixels from one to the next."""

    before: int
    slices: int
    start: float
    pitch: float


def place_channels(det: Detector, nx: int) -> list[Channel]:
    """The channels of a detector that is ``nx`` pixels wide: fewer slices on a smaller one."""
    out, width, before = [], nx / len(det.channels), 0
    for k, number in enumerate(det.channels):
        slices = max(1, round(number * nx / det.shape[1]))
        out.append(Channel(before, slices, k * width + det.gap, (width - 2 * det.gap) / slices))
        before += slices
    return out


def make_optics(det: Detector, shape: tuple[int, int], slices: bool) -> Optics:
    """Where each pixel looks.

    Parameters
    ----------
    det : Detector
        The slices are scaled with the second axis.
    shape : (int, int)
        Pixels along the dispersion and across it.
    slices : bool
        False: one slice that fills the detector, straight and evenly lit.
    """
    ny, nx = shape
    y, x = np.mgrid[:ny, :nx].astype("f4")
    v = (y - ny / 2) / (ny / 2)
    if not slices:
        return Optics(np.ones(shape, "i2"), x - nx / 2, y, np.ones(shape, "f4"), 1)
    shift = det.bend * nx / det.shape[1] * (v**2 - LEAN * v)
    position = x - shift
    strip = np.zeros(shape, "i2")
    along = np.full(shape, np.nan, "f4")
    edge = np.zeros(shape, "f4")  # throughput, falling toward the edges of a slice
    channels = place_channels(det, nx)
    for channel in channels:
        inside = position - channel.start
        number = np.floor(inside / channel.pitch)
        offset = inside - (number + 0.5) * channel.pitch
        half = (channel.pitch - det.gap) / 2
        lit = (number >= 0) & (number < channel.slices) & (np.abs(offset) < half)
        strip[lit] = channel.before + number[lit] + 1
        along[lit] = offset[lit]
        edge[lit] = 1 - 0.4 * np.exp(-(half - np.abs(offset[lit])) / 1.2)
    strip[y > det.lit * ny] = 0
    wave = y + TILT * np.nan_to_num(along) + JUMP * np.sin(strip * PACE) + SKEW * (x - nx / 2)
    edge[strip == 0] = 0
    return Optics(strip, along, wave.astype("f4"), edge, sum(c.slices for c in channels))
