"""Pixels that shine in every exposure of a detector, whatever the sky does: hot.

With dithers of about a pixel a hot pixel lies beside itself in the other exposures. These are then no model for it,
and its excess doesn't survive in the sum over 3x3, as that of a star at another sub-pixel phase. Persistence in
detector coordinates is evidence by itself:

1. Candidates are pixels that exceed their four neighbors, and the exposure's sky by ``persistent_snr``, in three
   quarters of the exposures of the detector (:func:`find_peaks`, :func:`count_peaks`).
2. With c = pixel minus the median of the other 24 of 5x5, and s = their scatter or that of the sky, the larger one:
   c > persistent_snr * s in three quarters of the exposures.
3. A star that moves lights its neighbors, a hot pixel doesn't: the mean of the 8 neighbors, above the same median,
   stays below 6 % of c (medians over the exposures).
4. A star that moves changes, a hot pixel doesn't: c stays within 1 - 1/n times 4 s plus 10 % of its median in three
   quarters of the n exposures (:func:`judge_stamps`).
5. One pixel explains the 3x3 of all exposures better than a narrow star does, which moves by the dither: the
   smallest chi-square of stars of three widths, at 49 places in the pixel, is larger by 4 than that of a pixel that
   couples 0.6 % to its sides (:func:`prefer_pixel`). Two exposures of a faint star that is narrower than a pixel
   pass rules 2 to 4 by chance. Where the sky moved by less than 0.4 pixel between all of them, a star stays on its
   pixels: there the mean of the exposures must be sharper, by 3 sigma, than diffraction lets a star of that filter
   be (:func:`is_sharper`; the sharpness of :mod:`badpix.image.seen_once`).

What is found is flagged in all exposures of the detector and gets no weight in the mosaics: as a model for others it
would hide hits and break stars.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image.members import Image
from badpix.image.pixel_map import invert_map, map_points
from badpix.image.seen_once import SHARP_OFFSET, expected_sharpness, expected_width, filter_names, light_beside
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile
from badpix.io.tasks import run_in_order
from badpix.numerics import clipping
from badpix.numerics.neighbors import gather, locate
from badpix.settings.image import ModelSettings

log = logging.getLogger(__name__)

MOVED = 0.4  # pixels of dither, below which a source stays on its pixels
SHARE = 0.75  # of the exposures
RING = 0.06  # of a pixel's excess, in its neighbors
STEADY_SIGMA = 4.0
STEADY = 0.1
_AROUND = 2  # pixels to each side
WIDTHS = (0.9, 1.3, 1.9)  # FWHM of the stars that a pixel is compared with, pixels
PHASES = 7  # an axis, from edge to edge of the pixel
PROFILE = 0.05  # of the peak, by which a star's pixels may differ from a Gaussian's
COUPLING = 0.006  # of a pixel's charge in each of its sides (capacitive)
PREFERENCE = 4.0  # of chi-square
SHARPER = 3.0  # sigma of the light beside a pixel
FAR = 100.0  # pixels: off the frame


def find_peaks(sci: NDArray[Any], *, snr: float) -> tuple[NDArray[Any], float]:
    """Pixels (bool) above the sky by ``snr`` of its scatter and not below their four neighbors; the scatter.

    Parameters
    ----------
    sci : float32 (ny, nx)
        NaN on bad pixels.
    snr : float
    """
    level, sigma = clipping.median_mad(sci[::4, ::4])
    peaks = np.zeros(sci.shape, bool)
    if not (np.isfinite(sigma) and sigma > 0):
        return peaks, float("nan")
    with np.errstate(invalid="ignore"):
        ys, xs = locate(sci > np.float32(level + snr * sigma))
    around = gather(sci, ys, xs, 1)
    highest = np.fmax.reduce(around[1::2], axis=0) <= around[4] if len(ys) else np.empty(0, bool)
    peaks[ys[highest], xs[highest]] = True
    return peaks, float(sigma)


def count_peaks(peaks: Iterable[NDArray[Any]], number: int) -> NDArray[Any]:
    """Pixels (bool) that are peaks in three quarters of ``number`` exposures, and in two at least."""
    count: Any = sum(part.astype(np.uint16) for part in peaks)
    out: NDArray[Any] = count >= max(2, int(np.ceil(SHARE * number)))
    return out


def judge_stamps(stamps: NDArray[Any], sigma: NDArray[Any], *, snr: float) -> NDArray[Any]:
    """Which candidates are hot (bool): rules 2 to 4.

    Parameters
    ----------
    stamps : float32 (exposure, 25, candidate)
        NaN on bad pixels.
    sigma : float (exposure,)
        Scatter of the sky.
    snr : float
    """
    others = np.delete(stamps, 12, axis=1)
    with np.errstate(invalid="ignore"):
        level = _median(others, 1)
        scatter = 1.4826 * _median(np.abs(others - level[:, None]), 1)
        noise = np.fmax(scatter, sigma[:, None])
        excess = stamps[:, 12] - level
        near = np.array([6, 7, 8, 11, 13, 16, 17, 18])
        ring = np.mean(np.where(np.isfinite(stamps[:, near]), stamps[:, near], level[:, None]), axis=1) - level
        known = np.isfinite(excess)
        needed = np.maximum(2, np.ceil(SHARE * known.sum(axis=0)))
        usual = _median(excess, 0)
        bright = (known & (excess > snr * noise)).sum(axis=0) >= needed
        free = 1 - 1 / np.maximum(known.sum(axis=0), 2)  # the median follows its own values
        change = np.abs(excess - usual) < free * (STEADY_SIGMA * noise + STEADY * usual)
        steady = (known & change).sum(axis=0) >= needed
        alone = _median(np.where(known, ring, np.nan), 0) < RING * usual
    out: NDArray[Any] = bright & steady & alone
    return out


def _median(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """NaN-ignoring median; NaN where nothing is left, in silence."""
    ordered = np.sort(values, axis=axis)  # NaN last
    number = np.isfinite(values).sum(axis=axis, keepdims=True)
    low, high = (np.take_along_axis(ordered, np.maximum(k, 0), axis) for k in ((number - 1) // 2, number // 2))
    middle: NDArray[Any] = np.where(number > 0, (low + high) / 2, np.nan)
    return middle.squeeze(axis)


def prefer_pixel(stamps: NDArray[Any], sigma: NDArray[Any], shifts: NDArray[Any]) -> NDArray[Any]:
    """Which candidates are a pixel rather than a star that moves (bool): rule 5.

    Parameters
    ----------
    stamps : float32 (exposure, 25, candidate)
        NaN on bad pixels.
    sigma : float (exposure,)
        Scatter of the sky.
    shifts : float (2, exposure, candidate)
        By how many pixels (y, x) the sky moved at the candidate since the first exposure; NaN: it left the frame.
    """
    number = len(stamps)
    with np.errstate(invalid="ignore"):
        level = _median(np.delete(stamps, 12, axis=1), 1)
        data = stamps.reshape(number, 5, 5, -1)[:, 1:4, 1:4] - level[:, None, None]
        noise = np.hypot(sigma[:, None], PROFILE * data[:, 1, 1])[:, None, None]
        weight = np.where(np.isfinite(data), 1 / noise**2, 0)
    data = np.where(weight > 0, data, 0)
    pixel = np.zeros((number, 3, 3, 1))
    pixel[:, [0, 1, 1, 2], [1, 0, 2, 1]] = COUPLING
    pixel[:, 1, 1] = 1
    gain_star = np.full(data.shape[-1], -np.inf)
    moved = np.where(np.isfinite(shifts), shifts, FAR)
    for width in WIDTHS:
        for phase in itertools.product(np.linspace(-0.5, 0.5, PHASES), repeat=2):
            along = [_profile(start + step, width) for start, step in zip(phase, moved, strict=True)]
            star = along[0][:, :, None] * along[1][:, None]
            np.fmax(gain_star, _explained(data, weight, star), out=gain_star)
    out: NDArray[Any] = _explained(data, weight, pixel) - gain_star > PREFERENCE
    return out


def is_sharper(stamps: NDArray[Any], sigma: NDArray[Any], width: float) -> NDArray[Any]:
    """Which candidates are sharper than any star of this FWHM (pixels), in exposures between which the sky stayed.

    ``stamps`` and ``sigma`` as in :func:`judge_stamps`; bool (candidate,).
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        near = stamps.reshape(len(stamps), 5, 5, -1)[:, 1:4, 1:4].reshape(len(stamps), 9, -1)
        near = near - _median(np.delete(stamps, 12, axis=1), 1)[:, None]
        mean = np.nansum(near, axis=0) / np.isfinite(near).sum(axis=0)
        error = np.sqrt(np.sum(sigma**2)) / len(sigma) * math.sqrt(6) / (6 * mean[4])
        sharpness = 1 - light_beside(mean) / (6 * mean[4])
        limit = expected_sharpness(width) + SHARP_OFFSET
        out: NDArray[Any] = np.isfinite(mean).all(axis=0) & (sharpness - SHARPER * error > limit)
    return out


def _profile(center: NDArray[Any], width: float) -> NDArray[Any]:
    """What a Gaussian line at ``center`` (exposure, candidate) leaves in pixels -1, 0, 1: (exposure, 3, ...)."""
    edges = np.array([-1.5, -0.5, 0.5, 1.5])[None, :, None]
    below = np.interp((edges - center[:, None]) * (2.3548 / width), *_normal_share())
    found: NDArray[Any] = np.diff(below, axis=1)
    return found


@cache
def _normal_share() -> tuple[NDArray[Any], NDArray[Any]]:
    """The share of a normal distribution below x, as a table (the library's function takes 0.1 s to import)."""
    x = np.linspace(-6, 6, 1201)
    return x, np.array([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x])


def _explained(data: NDArray[Any], weight: NDArray[Any], shape: NDArray[Any]) -> NDArray[Any]:
    """By how much the best positive multiple of a shape lowers the chi-square of each candidate."""
    along = (weight * data * shape).sum(axis=(0, 1, 2))
    norm = (weight * shape * shape).sum(axis=(0, 1, 2))
    found: NDArray[Any] = np.maximum(along, 0) ** 2 / np.maximum(norm, np.finfo(float).tiny)
    return found


# --- on exposures -----------------------------------------------------------------------------------------

Places = dict[str, tuple[NDArray[Any], NDArray[Any]]]  # detector -> rows and columns


def detector_key(cal: CalFile) -> str:
    """What exposures share that see the same pixels."""
    start = tuple(cal.primary.get(k, io_cal.image_hdu(cal, "SCI").header.get(k, 1)) for k in ("SUBSTRT1", "SUBSTRT2"))
    return f"{cal.keyword('DETECTOR')} {cal.shape} {start}"


def find_persistent(images: Sequence[Image], p: ModelSettings, executor: Executor | None, *, scale: float) -> Places:
    """The pixels that shine in all exposures of their detector, by detector; ``scale`` in arcsec a pixel."""
    found: Places = {}
    if not p.persistent_snr:
        return found
    detectors: dict[str, list[Image]] = {}
    for image in images:
        detectors.setdefault(detector_key(image.cal), []).append(image)
    for name, members in detectors.items():
        if len(members) < 2:
            continue
        moved = measure_dither(members) >= MOVED
        tasks = [(image.cal, p.persistent_snr) for image in members]
        peaks, sigma = zip(*run_in_order(executor, find_exposure_peaks, tasks), strict=True)
        shape = members[0].cal.shape
        maps = (np.unpackbits(part, count=shape[0] * shape[1]).view(bool).reshape(shape) for part in peaks)
        ys, xs = locate(count_peaks(maps, len(members)))
        stamps = list(run_in_order(executor, cut_stamps, [(image.cal, ys, xs) for image in members]))
        hot = judge_stamps(np.stack(stamps), np.array(sigma), snr=p.persistent_snr)
        ys, xs = ys[hot], xs[hot]
        kept = np.stack([stamp[:, hot] for stamp in stamps])
        if moved:
            hot = prefer_pixel(kept, np.array(sigma), follow_sky(members, ys, xs))
        else:
            hot = is_sharper(kept, np.array(sigma), expected_width(filter_names(members[0].cal), scale))
        if hot.any():
            found[name] = ys[hot], xs[hot]
    if found:
        told = ", ".join(f"{len(ys):,} of {name.split()[0]}" for name, (ys, _) in found.items())
        log.info(f"pixels that shine in all exposures, and are no stars: {told}; flagged in each")
    return found


def measure_dither(images: Sequence[Image]) -> float:
    """By how many grid pixels the corners of a detector move at most between two of its exposures."""
    corners = []
    for image in images:
        assert image.pixel_map is not None
        x0, x1, y0, y1 = image.pixel_map.span
        corners.append(np.stack(map_points(image.pixel_map, np.array([x0, x1, x0, x1]), np.array([y0, y0, y1, y1]))))
    moved = [np.hypot(*(a - b)).max() for i, a in enumerate(corners) for b in corners[:i]]
    return float(np.nanmax(moved)) if np.isfinite(moved).any() else 0.0


def follow_sky(images: Sequence[Image], ys: NDArray[Any], xs: NDArray[Any]) -> NDArray[Any]:
    """By how many pixels (y, x) the sky at some pixels moved since the first exposure: (2, exposure, pixel)."""
    first = images[0].pixel_map
    assert first is not None
    x0, x1, y0, y1 = first.span
    where = map_points(first, np.clip(xs, x0, x1).astype(float), np.clip(ys, y0, y1).astype(float))
    moved = []
    for image in images:
        assert image.pixel_map is not None
        x, y = invert_map(image.pixel_map, *where)
        moved.append((y - ys, x - xs))
    return np.moveaxis(np.array(moved).reshape(len(images), 2, len(ys)), 1, 0)


def find_exposure_peaks(task: tuple[CalFile, float]) -> tuple[NDArray[Any], float]:
    """Task: the candidates of one exposure, packed, and the scatter of its sky."""
    cal, snr = task
    sci = io_cal.read_rows(cal, "SCI").astype(np.float32, copy=False)
    peaks, sigma = find_peaks(sci, snr=snr)
    return np.packbits(peaks), sigma


def cut_stamps(task: tuple[CalFile, NDArray[Any], NDArray[Any]]) -> NDArray[Any]:
    """Task: the 5x5 pixels around the candidates in one exposure."""
    cal, ys, xs = task
    return gather(io_cal.read_rows(cal, "SCI").astype(np.float32, copy=False), ys, xs, _AROUND)
