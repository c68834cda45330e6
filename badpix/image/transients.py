"""What shines in a minority of the exposures and has the shape of a star: a transient or a moving object, not a hit.

1. Candidates: flagged bright pixels of an exposure with z > ``transient_snr`` and the largest residual of their 5x5.
2. Likeness: the largest cosine between the 5x5 of residuals around a candidate and those of the stars in the model
   of the same exposure, which have all sub-pixel phases; with fewer than 60 stars, Gaussians and Airy patterns as
   well, of 0.6 to 1.7 times the width that diffraction allows, but hardly narrower than what fits the known stars.
   What has less than half of the usual light off any track beside its peak is no star of that library, but a speckle
   on a spike. A candidate is star-shaped if the best star leaves less than 3 % of its squares and what noise adds, if
   it is less like a single pixel, and if it has 0.4 of the star's light where charge of a hit doesn't reach: beside
   its peak, off any track; around its brightest 2 x 2; in the outermost pixels (:func:`find_transients`).
   Where the telescope's stars are as narrow as the charge of a hit that diffused, likeness tells nothing: a star must
   be better explained than by any such hit, or have light in its outermost pixels that no charge reaches.
3. Linked: detections within 1.5 grid pixels of each other are one transient. Of the rest, three or more in different
   exposures that lie on a line at constant speed, with fluxes within a factor of two, are a moving object
   (:func:`link_detections`).
4. Listed, and with ``keep_transients`` spared: the flags that hang together with it, in every exposure
   (:func:`spare_region`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.seen_once import light_beside
from badpix.numerics.neighbors import gather, grow, locate

MISFIT = 0.03  # of the squares of a stamp that a star may leave, besides those of noise
SURROUNDED = 0.5  # of a star's light beside its peak
WINGS = 0.4  # of the light of a star outside of its brightest 2 x 2 pixels
RIM_SIGMA = 1.5
DIFFUSED = (0.05, 0.2, 0.35)  # pixels: scatter of the charge of hits ...
TRACKS = (0.0, 0.8, 1.6)  # ... and the lengths of short tracks
UNLIKE = 0.01  # of a stamp's squares, by which a star must explain more than a hit does ...
UNLIKE_SIGMA = 12.0  # ... in units of the noise's, or:
LIT = 2.5  # sigma of the light in the outermost 16 of 5 x 5 pixels
ROUND = 0.5  # of the usual light beside a star's peak, which a star of the library must have
MIN_STARS = 60
ALONE = 7  # pixels around a star without a brighter one
FEW_STARS = 3  # which tell the width of Gaussian stars
WIDTHS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.7)  # times that of diffraction ...
AIRY = 1.029  # FWHM of an Airy pattern, wavelengths over the diameter
BLURRED = 2  # of these widths that drizzle adds to the known stars
UNSURE = 1.0  # ... the narrowest where no star tells
STAR_SIGMA = 50.0  # peak of a star that shows what stars look like
MAX_STARS = 400
TOGETHER = 1.5  # grid pixels
ON_TRACK = 2.0
FLUX_RATIO = 2.0
MOST = 300  # detections that are linked
REACH = 25  # pixels around a transient in which its flags may lie
_PHASES = np.linspace(-0.5, 0.5, 6)


class Detection(NamedTuple):
    """A star-shaped residual in one exposure."""

    exposure: int
    x: float  # of the exposure, pixels from 0
    y: float
    flux: float  # residual in 5x5
    snr: float  # of the brightest pixel
    likeness: float


class Linked(NamedTuple):
    """Detections of one object, as indices, and its motion, grid pixels a day (0 where it stays)."""

    members: tuple[int, ...]
    motion: tuple[float, float]


def find_transients(
    number: int,
    residual: NDArray[Any],
    noise: NDArray[Any],
    flagged: NDArray[Any],
    model: NDArray[Any],
    stars: tuple[NDArray[Any], NDArray[Any]],
    *,
    snr: float,
    width: float,
) -> list[Detection]:
    """The star-shaped residuals among the flagged pixels of an exposure.

    Parameters
    ----------
    number : int
        Of the exposure.
    residual, noise, model : float32 (ny, nx)
        r, st and the sharpened model.
    flagged : bool (ny, nx)
    stars : (rows, columns)
        Sources of the model.
    snr : float
        Of the brightest pixel.
    width : float
        FWHM that diffraction allows, pixels.
    """
    with np.errstate(invalid="ignore"):
        ys, xs = locate(flagged & (residual > np.float32(snr) * noise))
    if not len(ys):
        return []
    stamps = gather(residual, ys, xs, 2)
    peak = (np.fmax.reduce(stamps, axis=0) <= stamps[12]) & (np.isfinite(stamps).sum(axis=0) >= 20)
    ys, xs, stamps = ys[peak], xs[peak], stamps[:, peak]
    if not len(ys):
        return []
    library = make_library(model, noise, *stars, width=width)
    stamps = fill_missing(stamps, library)
    likeness, surrounded = measure_likeness(stamps, noise[ys, xs], library)
    lone = stamps[12] / np.linalg.norm(stamps, axis=0)  # cosine with a single pixel
    misfit = 1 - likeness**2  # share of the stamp's squares that the star does not explain, and noise's
    allowed = stamps.shape[0] * (noise[ys, xs] / np.linalg.norm(stamps, axis=0)) ** 2
    told = _tell_from_hits(stamps, noise[ys, xs], likeness)
    sums = stamps.sum(axis=0)
    dy, dx = (np.mgrid[-1:2, -1:2]).reshape(2, 9)
    near = np.maximum(stamps.reshape(5, 5, -1)[1:4, 1:4].reshape(9, -1), 0)
    cx, cy = (d @ near / near.sum(axis=0) for d in (dx, dy))
    return [
        Detection(
            number,
            float(xs[i] + cx[i]),
            float(ys[i] + cy[i]),
            float(sums[i]),
            float(residual[ys[i], xs[i]] / noise[ys[i], xs[i]]),
            float(likeness[i]),
        )
        for i in np.flatnonzero(surrounded & told & (misfit < MISFIT + allowed) & (likeness > lone))
    ]


def make_library(
    model: NDArray[Any], noise: NDArray[Any], ys: NDArray[Any], xs: NDArray[Any], *, width: float
) -> NDArray[Any]:
    """Normalized 5x5 stamps of stars, [star, 25]."""
    ys, xs = ys[:MAX_STARS], xs[:MAX_STARS]
    stamps = gather(model, ys, xs, 2)
    floor = np.nanmedian(model[::5, ::5]) if np.isfinite(model[::5, ::5]).any() else 0.0
    with np.errstate(invalid="ignore"):
        good = np.isfinite(stamps).all(axis=0) & (stamps[12] - floor > STAR_SIGMA * noise[ys, xs])
        good &= stamps[12] >= stamps.max(axis=0, initial=-np.inf)
    alone = np.flatnonzero(good)
    brightest = np.fmax.reduce(gather(model, ys[alone], xs[alone], ALONE), axis=0, initial=-np.inf)
    alone = alone[brightest <= stamps[12, alone]]
    if len(alone) >= FEW_STARS:  # speckles around a bright star are sharper than stars
        good = np.isin(np.arange(len(ys)), alone)
    library = (stamps[:, good] - floor).T.astype(float)
    if len(library):  # speckles on the spikes of bright stars are lines, as tracks are
        beside = _share_beside(library.T)
        library = library[beside > ROUND * np.median(beside)]
    if len(library) < MIN_STARS:  # too few to have all phases
        library = np.concatenate([library, *_as_wide(library, width)])
    out: NDArray[Any] = library / np.linalg.norm(library, axis=1, keepdims=True)
    return out


def _as_wide(library: NDArray[Any], width: float) -> list[NDArray[Any]]:
    """Made stars [star, 25] of some widths: down to a little below that which fits the known stars best."""
    made = [np.concatenate(make_stars(factor * width)) for factor in WIDTHS]
    if len(library) < FEW_STARS:
        return made[WIDTHS.index(UNSURE) :]
    unit = library / np.linalg.norm(library, axis=1, keepdims=True)
    likeness = [np.median((unit @ m.T).max(axis=1)) for m in made]
    return made[max(0, int(np.argmax(likeness)) - BLURRED) :]


@lru_cache(maxsize=32)
def make_stars(width: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gaussians and Airy patterns of this FWHM at many phases, integrated over pixels, normalized [star, 25]."""
    from scipy.special import j1

    fine = (np.arange(50) + 0.5) / 10 - 2.5
    gaussians, patterns = [], []
    for y, x in product(_PHASES, _PHASES):
        r = np.hypot(fine[:, None] - y, fine - x) / width
        v = np.maximum(AIRY * np.pi * r, 1e-6)
        gaussians.append(np.exp(-4 * np.log(2) * r * r))
        patterns.append((2 * j1(v) / v) ** 2)
    made = (np.array(m).reshape(-1, 5, 10, 5, 10).mean(axis=(2, 4)).reshape(-1, 25) for m in (gaussians, patterns))
    first, second = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in made)
    return first, second


def fill_missing(stamps: NDArray[Any], library: NDArray[Any]) -> NDArray[Any]:
    """Stamps [25, n] with missing pixels as in the star of the library [star, 25] that fits the others best."""
    known = np.isfinite(stamps)
    out: NDArray[Any] = np.where(known, stamps, 0)
    for k in np.flatnonzero(~known.all(axis=0)):
        part = library[:, known[:, k]]
        norm = np.maximum((part**2).sum(axis=1), 1e-30)
        along = part @ stamps[known[:, k], k]
        best = int((along / np.sqrt(norm)).argmax())
        out[~known[:, k], k] = along[best] / norm[best] * library[best, ~known[:, k]]
    return out


def measure_likeness(
    stamps: NDArray[Any], noise: NDArray[Any], library: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The largest cosine of each stamp [25, n] with a star of the library [star, 25], and whether it has enough light
    for that star: beside its peak, off any track; around its brightest 2 x 2; and in the outermost 16 pixels, where
    the ``noise`` (of a pixel, [n]) is small enough to tell."""
    norm = np.maximum(np.linalg.norm(stamps, axis=0), 1e-30)
    unit = stamps / norm
    cosines = library @ unit
    best = library[cosines.argmax(axis=0)].T
    surrounded: NDArray[Any] = _share_beside(unit) > SURROUNDED * _share_beside(best)
    surrounded &= _measure_wings(unit, cosines.max(axis=0) * best) > WINGS
    surrounded &= _sum_rim(unit) > WINGS * _sum_rim(best) - RIM_SIGMA * 4 * noise / norm
    return cosines.max(axis=0), surrounded


def _tell_from_hits(stamps: NDArray[Any], noise: NDArray[Any], likeness: NDArray[Any]) -> NDArray[Any]:
    """Stamps [25, n] that no hit explains as well as a star, or that have light where no charge reaches, bool [n]."""
    norm = np.maximum(np.linalg.norm(stamps, axis=0), 1e-30)
    hit = (make_hits() @ (stamps / norm)).max(axis=0)
    found: NDArray[Any] = likeness**2 - hit**2 > np.maximum(UNLIKE, UNLIKE_SIGMA * (noise / norm) ** 2)
    return found | (_sum_rim(stamps) > LIT * 4 * noise)


@lru_cache(maxsize=1)
def make_hits() -> NDArray[Any]:
    """The charge of hits and short tracks at many phases, with diffusion, normalized [hit, 25]."""
    table = np.linspace(-5, 5, 1001)
    below = np.array([math.erf(t) for t in table]) / 2
    edges, out = np.arange(-2.5, 3), []
    for scatter, length in product(DIFFUSED, TRACKS):
        steps = np.linspace(-0.5, 0.5, 5 if length else 1) * length
        for angle in np.arange(6 if length else 1) * np.pi / 6:
            y, x = (
                np.interp((edges - (_PHASES[:, None] + steps * f)[..., None]) / (scatter * 2**0.5), table, below)
                for f in (math.sin(angle), math.cos(angle))
            )
            out.append(np.einsum("asi,bsj->abij", np.diff(y), np.diff(x)).reshape(-1, 25))
    made = np.concatenate(out)
    found: NDArray[Any] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return found


def _sum_rim(stamps: NDArray[Any]) -> NDArray[Any]:
    """The outermost 16 of 5 x 5 pixels."""
    out: NDArray[Any] = stamps.sum(axis=0) - stamps.reshape(5, 5, -1)[1:4, 1:4].sum(axis=(0, 1))
    return out


def _measure_wings(stamps: NDArray[Any], stars: NDArray[Any]) -> NDArray[Any]:
    """How much of the light that stars [25, n] have outside of the brightest 2 x 2 pixels stamps have, too.

    The charge of a hit reaches no further.
    """
    blocks = np.array([[5 * y + x + step for step in (0, 1, 5, 6)] for y in range(4) for x in range(4)])
    inner = blocks[stamps[blocks].sum(axis=1).argmax(axis=0)].T
    outside = np.ones(stamps.shape)
    np.put_along_axis(outside, inner, 0, axis=0)
    out: NDArray[Any] = (outside * stamps * stars).sum(axis=0) / np.maximum((outside * stars**2).sum(axis=0), 1e-30)
    return out


def _share_beside(stamps: NDArray[Any]) -> NDArray[Any]:
    """Light beside the peak, off any track, over the peak."""
    near = stamps.reshape(5, 5, -1)[1:4, 1:4].reshape(9, -1)
    out: NDArray[Any] = light_beside(near) / np.maximum(near[4], 1e-30)
    return out


# --- linking ----------------------------------------------------------------------------------------------


def link_detections(
    positions: NDArray[Any], fluxes: NDArray[Any], exposures: Sequence[int], times: NDArray[Any]
) -> list[Linked]:
    """Objects among the detections of all exposures, the most often seen first.

    Parameters
    ----------
    positions : float (n, 2)
        On the grid, pixels.
    fluxes : float (n,)
    exposures : sequence of int
        Of each detection.
    times : float (n,)
        Days.
    """
    free = list(range(min(len(positions), MOST)))
    found: list[Linked] = []
    while free:
        first, *others = free
        same = [k for k in others if np.hypot(*(positions[k] - positions[first])) <= TOGETHER]
        members = (first, *_once(same, exposures, {exposures[first]}))
        found.append(Linked(members, (0.0, 0.0)))
        free = [k for k in free if k not in members]
    single = [item.members[0] for item in found if len(item.members) == 1]
    tracks = _find_tracks(single, positions, fluxes, exposures, times)
    moving = {k for track in tracks for k in track.members}
    found = [item for item in found if not (len(item.members) == 1 and item.members[0] in moving)]
    return sorted([*tracks, *found], key=lambda item: -len(item.members))


def _once(candidates: Sequence[int], exposures: Sequence[int], seen: set[int]) -> list[int]:
    """At most one detection of each exposure."""
    kept = []
    for k in candidates:
        if exposures[k] not in seen:
            seen.add(exposures[k])
            kept.append(k)
    return kept


def _find_tracks(
    free: list[int], positions: NDArray[Any], fluxes: NDArray[Any], exposures: Sequence[int], times: NDArray[Any]
) -> list[Linked]:
    """Motions at constant speed through three or more detections, the longest first."""
    tracks: list[Linked] = []
    options = []
    names = np.array(free, np.intp)
    place, flux, day, exposure = positions[names], fluxes[names], times[names], np.array(exposures)[names]
    for first in range(len(names) - 1):
        later = day - day[first]
        alike = np.maximum(flux, flux[first]) <= FLUX_RATIO * np.minimum(flux, flux[first])
        second = alike & (exposure != exposure[first]) & (later != 0)
        second[: first + 1] = False
        speed = (place[second] - place[first]) / later[second, None]
        off = np.hypot(*np.moveaxis(place[first] + speed[:, None] * later[:, None] - place, 2, 0))
        on = alike & (off <= ON_TRACK)
        for row in np.flatnonzero(on.sum(axis=1) >= 3):
            there = np.flatnonzero(on[row])
            nearest = names[there[np.argsort(off[row, there], kind="stable")]]
            members = _once([int(k) for k in nearest], exposures, set())
            if len(members) >= 3:
                motion = float(speed[row, 0]), float(speed[row, 1])
                options.append(Linked(tuple(sorted(members)), motion))
    for option in sorted(options, key=lambda option: -len(option.members)):
        if not any(set(option.members) & set(track.members) for track in tracks):
            tracks.append(option)
    return tracks


def spare_region(flagged: NDArray[Any], x: float, y: float) -> NDArray[Any]:
    """The flags (bool) that hang together, with gaps of a pixel, around a position of an exposure."""
    from scipy.ndimage import label

    out = np.zeros_like(flagged)
    j, i = round(y), round(x)
    rows, columns = (slice(max(0, v - REACH), max(0, v + REACH + 1)) for v in (j, i))
    part = flagged[rows, columns]
    if not part.any():
        return out
    names, _ = label(grow(part), structure=np.ones((3, 3)))
    top, left = j - rows.start, i - columns.start
    core = names[max(0, top - 1) : top + 2, max(0, left - 1) : left + 2]
    out[rows, columns] = part & np.isin(names, core[core > 0])
    return out
