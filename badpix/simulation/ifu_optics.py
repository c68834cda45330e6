"""Detectors of simulated IFU exposures, and how they are cut into slices.

1. A detector is cut into slices: curved strips along the dispersion, with gaps between them. MIRI disperses along y
   (1024 x 1032, two channels side by side), NIRSpec along x (2048 x 2048); here the dispersion is always the first
   axis.
2. Each pixel looks at one place of one slice at one wavelength. Lines of equal wavelength are shifted from slice to
   slice, and tilted within it; less light arrives near the edges of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


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
    shift = det.bend * nx / det.shape[1] * (v**2 - 0.4 * v)
    position = x - shift
    strip = np.zeros(shape, "i2")
    along = np.full(shape, np.nan, "f4")
    edge = np.zeros(shape, "f4")  # throughput, falling toward the edges of a slice
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
    return Optics(strip, along, wave.astype("f4"), edge, first)
