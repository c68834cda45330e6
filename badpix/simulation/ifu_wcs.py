"""The GWCS of simulated IFU exposures, slice by slice, as the pipeline's `cube_build` needs it.

1. MIRI: from the detector to place along the slice (alpha), slice (beta) and wavelength; NIRSpec: to the same in the
   plane of the slicer (the form that jwst 3 gives exposures whose slices it has mapped). Which slice a pixel belongs
   to is an array of labels, each label with a transform of its own; between slices there is none.
2. From there to the sky, turned and shifted by the dither.

Frames and labels are those of the pipeline (jwst.assign_wcs.miri, .nirspec): channel times 100 plus slice for MIRI, 1
to 30 for NIRSpec in the order in which the slicer sends them to the detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.simulation.ifu_optics import (
    DETECTORS,
    JUMP,
    LEAN,
    PACE,
    SKEW,
    TILT,
    Detector,
    make_optics,
    place_channels,
)

ARCSEC_PER_PIXEL = 0.17  # along the slices, and from slice to slice
CENTER = (10.0, -5.0)  # RA, Dec, degrees
WAVELENGTHS = (5.0, 3.0)  # where the first channel begins, and how far apart they are; each is 1 micron long


def make_wcs(det: Detector, shape: tuple[int, int], shift: tuple[float, float], *, slices: bool = True) -> Any:
    """A GWCS from pixels to right ascension, declination (degrees) and wavelength (micron).

    Parameters
    ----------
    det : Detector
        What is simulated.
    shape : (int, int)
        Of the file: rows, columns.
    shift : (float, float)
        Dither along the slices (pixels) and across (slices).
    slices : bool
        Whether there are any; else one that fills the detector.
    """
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling import models
    from gwcs import coordinate_frames as frames

    def spectral() -> Any:
        return frames.SpectralFrame(name="wave", unit=units.micron, axes_order=(2,), axes_names=("lambda",))

    local = frames.Frame2D(name="local", axes_order=(0, 1), unit=(units.arcsec, units.arcsec))
    middle = frames.CompositeFrame([local, spectral()], name="slicer" if det.transposed else "alpha_beta")
    sky = frames.CelestialFrame(name="sky", reference_frame=coordinates.ICRS(), axes_order=(0, 1))
    world = frames.CompositeFrame([sky, spectral()], name="world")
    detector = frames.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    to_slices, to_sky = _map_slices(det, shape, slices), _point(shift)
    steps = [(detector, to_slices), (middle, to_sky), (world, None)]
    if det.transposed:
        pixels = frames.Frame2D(name="coordinates", axes_order=(0, 1), unit=(units.pix, units.pix))
        to_sky = models.Mapping((1, 0, 2)) | to_sky  # the slicer's plane: across, along
        steps = [(pixels, models.Identity(2)), (detector, to_slices), (middle, to_sky), (world, None)]
    wcs = gwcs.WCS(steps)
    wcs.bounding_box = ((-0.5, shape[1] - 0.5), (-0.5, shape[0] - 0.5))
    return wcs


def _point(shift: tuple[float, float]) -> Any:
    """From arcseconds along and across the slices to the sky, wavelengths untouched."""
    from astropy.modeling import models

    dithered = models.Shift(-shift[0] * ARCSEC_PER_PIXEL) & models.Shift(-shift[1] * ARCSEC_PER_PIXEL)
    degrees = models.Scale(1 / 3600) & models.Scale(1 / 3600)
    turned = models.Pix2Sky_TAN() | models.RotateNative2Celestial(*CENTER, 180.0)
    return (dithered | degrees | turned) & models.Identity(1)


def _map_slices(det: Detector, shape: tuple[int, int], slices: bool) -> Any:
    """From pixels to alpha, beta (arcsec) and wavelength, NIRSpec beta first: a transform for each slice."""
    from astropy.modeling import bind_bounding_box, models
    from gwcs import selector

    labels = label_pixels(det.name, shape, slices)
    transforms = {}
    for one in list_slices(det, shape, slices):
        alpha, wave = (models.Polynomial2D(2, **terms) for terms in (one.alpha, one.wave))
        beta = models.Mapping((0,), n_inputs=2) | models.Const1D(one.beta)
        if not det.transposed:
            transforms[one.label] = models.Mapping((0, 1) * 3) | alpha & beta & wave
            continue
        transforms[one.label] = models.Mapping((1, 0) * 3) | beta & alpha & wave
        where = np.nonzero(labels == one.label)
        if where[0].size:  # `cube_build` goes from slice to slice by their boxes
            box = tuple((int(axis.min()) - 0.5, int(axis.max()) + 0.5) for axis in where[::-1])
            bind_bounding_box(transforms[one.label], box, order="F")
    names = ("x_slice", "y_slice", "lam") if det.transposed else ("alpha", "beta", "lam")
    mapper = selector.LabelMapperArray(labels)
    return selector.RegionsSelector(inputs=("x", "y"), outputs=names, selector=transforms, label_mapper=mapper)


@dataclass(frozen=True)
class Slice:
    """A slice: its number on the detector, its name in the pipeline, and where its pixels look.

    ``alpha`` (arcsec) and ``wave`` (micron) are terms of a polynomial in pixels across and along the dispersion.
    """

    strip: int
    label: int
    alpha: dict[str, float]
    beta: float
    wave: dict[str, float]


def list_slices(det: Detector, shape: tuple[int, int], slices: bool) -> list[Slice]:
    """All slices of a detector; see :func:`make_wcs`. What :func:`badpix.simulation.ifu_optics.make_optics` does."""
    ny, nx = shape[::-1] if det.transposed else shape
    start, apart = WAVELENGTHS
    if not slices:
        alpha = {"c0_0": -nx / 2 * ARCSEC_PER_PIXEL, "c1_0": ARCSEC_PER_PIXEL}
        return [Slice(1, 1, alpha, 0.0, {"c0_0": start, "c0_1": 1 / ny})]
    bend, half = det.bend * nx / det.shape[1], ny / 2
    curve = {"c1_0": 1.0, "c0_1": bend * (2 + LEAN) / half, "c0_2": -bend / half**2}
    out = []
    for k, channel in enumerate(place_channels(det, nx)):
        for number in range(channel.slices):
            strip = channel.before + number + 1
            along = {"c0_0": -channel.start - (number + 0.5) * channel.pitch - bend * (1 + LEAN), **curve}
            wave = {name: TILT * term for name, term in along.items()}
            wave["c0_0"] += JUMP * math.sin(strip * PACE) - SKEW * nx / 2
            wave["c1_0"] += SKEW
            wave["c0_1"] += 1.0
            micron = {name: term / ny for name, term in wave.items()}
            micron["c0_0"] += start + apart * k
            alpha = {name: ARCSEC_PER_PIXEL * term for name, term in along.items()}
            beta = ARCSEC_PER_PIXEL * (number - (channel.slices - 1) / 2)
            out.append(Slice(strip, _name(det, k, number, channel.slices), alpha, beta, micron))
    return out


def _name(det: Detector, channel: int, number: int, slices: int) -> int:
    """MIRI's channel and slice; NIRSpec's from the middle out, to either side in turn."""
    if not det.transposed:
        return 100 * int((det.band or {})["CHANNEL"][channel]) + number + 1
    offset = number - slices // 2
    return 1 + (2 * offset if offset >= 0 else -2 * offset - 1)


@lru_cache(maxsize=4)
def label_pixels(detector: str, shape: tuple[int, int], slices: bool) -> NDArray[np.int16]:
    """Label of the slice of each pixel of a file, 0 between them: (rows, columns) int16."""
    det = DETECTORS[detector]
    size = (shape[1], shape[0]) if det.transposed else shape
    strip = make_optics(det, size, slices).strip
    names = np.zeros(strip.max() + 1, np.int16)
    for one in list_slices(det, shape, slices):
        names[one.strip : one.strip + 1] = one.label  # on a small detector a slice may have no pixel
    labels = names[strip]
    return np.ascontiguousarray(labels.T if det.transposed else labels)
