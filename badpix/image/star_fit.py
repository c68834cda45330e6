"""Stars that several exposures see, fitted with one profile: what a hit on a core can't change.

Near a star's core the mosaics of others are off by what its sub-pixel phase does, a third of the peak. The profile
that all stars share (:mod:`badpix.image.star_profile`) knows the phases. Of each star there are stamps of 5 x 5
pixels in several exposures; it has one place on the grid, one flux and one level. Of each exposure two offsets, by
which its pointing is off, and a factor of its fluxes.

1. :func:`learn_profile`: on the brightest stars that are as concentrated as the sharpest ones, in turn the profile,
   the stars, the exposures; the scatter of what is left, in rings about the star, is what the profile doesn't know (a
   PSF that changes over the field, or is finer than the spline).
2. :func:`fit_stars`: the other stars with that profile, by least squares from which hits drop out.
3. A star is known where its residuals fit noise and profile error in most of its pixels (``quality``): galaxies,
   pairs and variable stars are not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.star_profile import HALF, evaluate_profile, fit_profile, stamp_offsets

RING = 0.25  # pixels, width of the rings in which the profile's error is measured
RINGS = 12
FEWEST = 20  # pixels of a ring
FIRST_ERROR = 0.03  # of the flux, before anything is known
LEAST_ERROR = 1e-3
TAIL = 0.608  # of the 90 % quantile: a standard deviation, as 1.4826 of the median is
SHARED_ERROR = 0.1  # of the largest ring's error, that each ring has at least
BRIGHTEST = 0.3  # of the pixels, by noise over flux, which tell the error
TEACHER_STAMPS = 240  # at the most
FEWEST_TEACHERS = 10
FEWEST_STAMPS = 30
TEACHER_SIGMA = 300.0  # flux, in sigma of a pixel
CONCENTRATION = 0.08  # of the flux in 3 x 3, by which teachers may lie below the sharpest ones
LEARN_ROUNDS, FIT_ROUNDS = 6, 3
CLIP = 5.0
TYPICAL = 1.5  # times the usual scatter of a star
STEP = 0.3  # pixels that a place may move in a round
_INNER = (6, 7, 8, 11, 12, 13, 16, 17, 18)  # 3 x 3 of a stamp


class Visits(NamedTuple):
    """Stamps of stars, [visit, star, ...]; a star that fewer exposures saw has visits without values."""

    value: NDArray[Any]  # float [visit, star, 25], without sky; NaN on bad pixels
    noise: NDArray[Any]  # float [visit, star, 25]; NaN where nothing was seen
    place: NDArray[Any]  # float [visit, star, 2]: x, y of the star from the stamp's middle, by the WCS
    turn: NDArray[Any]  # float [visit, star, 2, 2]: d place / d place on the grid
    exposure: NDArray[Any]  # int [visit, star]


class Optics(NamedTuple):
    """What all stars share."""

    profile: NDArray[Any]
    errors: NDArray[Any]  # of the profile in rings, as shares of the flux
    scale: NDArray[Any]  # flux factor of each exposure
    shift: NDArray[Any]  # x, y by which the stars of each exposure lie beside their places, pixels


class Stars(NamedTuple):
    """The parameters of stars."""

    flux: NDArray[Any]
    level: NDArray[Any]
    moved: NDArray[Any]  # [star, 2]: x, y on the grid


class Fit(NamedTuple):
    """What fitted stars should look like."""

    model: NDArray[Any]  # [visit, star, 25]; NaN outside of the profile
    error: NDArray[Any]  # of the profile, in units of the model
    light: NDArray[Any]  # of the star alone, without its level
    place: NDArray[Any]  # [visit, star, 2]: x, y of the star from the stamp's middle
    quality: NDArray[Any]  # [star]: scatter of the residuals, in units of what is expected
    flux: NDArray[Any]


def _median(values: NDArray[Any], axis: int | tuple[int, ...]) -> NDArray[Any]:
    """NaN-ignoring median, NaN where nothing is left, in silence."""
    axes = (axis,) if isinstance(axis, int) else axis
    kept = [a for a in range(values.ndim) if a not in axes]
    lines = np.transpose(values, [*kept, *axes]).reshape(*(values.shape[a] for a in kept), -1)
    ordered = np.sort(lines, axis=-1)
    number = np.isfinite(lines).sum(axis=-1, keepdims=True)
    low, high = (np.take_along_axis(ordered, np.maximum(k, 0), -1) for k in ((number - 1) // 2, number // 2))
    middle: NDArray[Any] = np.where(number > 0, (low + high) / 2, np.nan)[..., 0]
    return middle


# --- start ------------------------------------------------------------------------------------------------


def start_stars(visits: Visits) -> Stars:
    """Fluxes and places from sums and centroids, medians over the visits."""
    y, x = stamp_offsets()
    inner = list(_INNER)
    near = np.maximum(visits.value[..., inner], 0)
    total = near.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        center = np.stack([(near * x[inner]).sum(-1) / total, (near * y[inner]).sum(-1) / total], axis=-1)
        step = np.einsum("vsij,vsj->vsi", np.linalg.inv(visits.turn), center - visits.place)
    flux = _median(visits.value.sum(axis=-1), 0)  # of whole stamps
    if np.isnan(flux).any():  # each has a gap: what is there will do for a start
        known = np.isfinite(visits.value)
        part = np.where(known.any(axis=-1), np.where(known, visits.value, 0).sum(axis=-1), np.nan)
        flux = np.nan_to_num(np.where(np.isnan(flux), _median(part, 0), flux), nan=0.0)
    moved = np.clip(np.nan_to_num(_median(step, 0)), -1, 1)
    return Stars(np.maximum(flux, np.finfo(float).tiny), np.zeros(len(flux)), moved)


def choose_teachers(visits: Visits) -> NDArray[np.intp]:
    """Bright stars, as concentrated as the sharpest ones, brightest first; none if there are too few."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = visits.value.sum(axis=-1)
        flux, share = _median(total, 0), _median(visits.value[..., list(_INNER)].sum(-1) / total, 0)
        bright = np.flatnonzero((flux > TEACHER_SIGMA * _median(visits.noise, (0, 2))) & np.isfinite(share))
    if len(bright) < FEWEST_TEACHERS:
        return bright[:0]
    sharp = bright[share[bright] > np.quantile(share[bright], 0.95) - CONCENTRATION]
    ordered = sharp[np.argsort(-flux[sharp], kind="stable")]
    stamps = np.cumsum(np.isfinite(visits.value[:, ordered, 12]).sum(axis=0))
    chosen = ordered[: max(FEWEST_TEACHERS, int(np.searchsorted(stamps, TEACHER_STAMPS)))]
    enough = len(chosen) >= FEWEST_TEACHERS and stamps[-1] >= FEWEST_STAMPS
    found: NDArray[np.intp] = chosen if enough else chosen[:0]
    return found


# --- one round --------------------------------------------------------------------------------------------


class _Shape(NamedTuple):
    """The profile at the pixels of stamps."""

    dx: NDArray[Any]
    dy: NDArray[Any]
    within: NDArray[Any]  # of the profile
    inside: NDArray[Any]  # ... and measured
    scale: NDArray[Any]  # [visit, star, 1]


def _place_stars(visits: Visits, stars: Stars, optics: Optics) -> NDArray[Any]:
    """x, y from the middles of the stamps, [visit, star, 2]."""
    found: NDArray[Any] = (
        visits.place + np.einsum("vsij,sj->vsi", visits.turn, stars.moved) + optics.shift[visits.exposure]
    )
    return found


def _place_pixels(visits: Visits, stars: Stars, optics: Optics) -> _Shape:
    y, x = stamp_offsets()
    at = _place_stars(visits, stars, optics)
    dx, dy = x - at[..., :1], y - at[..., 1:]
    within = (np.abs(dx) < HALF) & (np.abs(dy) < HALF)
    dx, dy = np.clip(dx, -HALF, HALF), np.clip(dy, -HALF, HALF)
    return _Shape(dx, dy, within, within & np.isfinite(visits.value), optics.scale[visits.exposure][..., None])


def _error_at(errors: NDArray[Any], shape: _Shape) -> NDArray[Any]:
    found: NDArray[Any] = errors[np.minimum(np.hypot(shape.dx, shape.dy) * (1 / RING), RINGS - 1).astype(np.intp)]
    return found


class _Round(NamedTuple):
    """Residuals of a round, and what follows for the stars."""

    stars: Stars
    residual: NDArray[Any]
    columns: NDArray[Any]  # [flux, x, y of the detector]: change of each pixel with them
    weight: NDArray[Any]
    spread: NDArray[Any]  # [star]: median |residual| in units of what is expected


def _improve(visits: Visits, stars: Stars, optics: Optics, shape: _Shape) -> _Round:
    """One step of the stars towards least squares, hits left out."""
    p, px, py = evaluate_profile(optics.profile, shape.dx, shape.dy)
    unit = stars.flux[:, None] * shape.scale
    residual = np.where(shape.inside, visits.value - stars.level[:, None] - p * unit, 0)
    sigma = np.hypot(visits.noise, _error_at(optics.errors, shape) * unit)
    z = residual / sigma
    spread = np.nan_to_num(1.4826 * _median(np.where(shape.inside, np.abs(z), np.nan), (0, 2)), nan=np.inf)
    z /= np.maximum(spread, 1)[:, None]
    weight = np.where(shape.inside & (np.abs(z) < CLIP), 1 / ((1 + 0.25 * z * z) * sigma * sigma), 0)
    p *= shape.scale
    px *= -unit
    py *= -unit
    across, up = (px * visits.turn[..., 0, k, None] + py * visits.turn[..., 1, k, None] for k in (0, 1))
    columns = np.stack([p, np.ones_like(p), across, up])
    weighted = columns * weight
    normal = np.einsum("avsp,bvsp->sab", weighted, columns)
    right = np.einsum("avsp,vsp->sa", weighted, residual)
    change = _solve(normal, right)
    flux = stars.flux + np.clip(change[:, 0], -0.5 * stars.flux, 0.5 * stars.flux)
    moved = stars.moved + np.clip(change[:, 2:], -STEP, STEP)
    better = Stars(flux, stars.level + change[:, 1], moved)
    return _Round(better, residual, np.stack([p * stars.flux[:, None], px, py]), weight, spread)


def _solve(normal: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Solutions of small systems [n, k, k], scaled; 0 where there is none."""
    size = np.sqrt(np.einsum("nii->ni", normal))
    known = (size > 0).all(axis=1)
    size[~known] = 1
    scaled = normal / (size[:, :, None] * size[:, None])
    k = normal.shape[-1]
    scaled[~known] = np.eye(k)
    scaled[:, np.arange(k), np.arange(k)] += 1e-9
    found: NDArray[Any] = np.linalg.solve(scaled, (right / size)[..., None])[..., 0] / size
    found[~known] = 0
    return found


# --- learning ---------------------------------------------------------------------------------------------


def learn_profile(visits: Visits, exposures: int) -> Optics | None:
    """What stars share, learned from the bright ones; None where these are too few.

    Parameters
    ----------
    visits : Visits
    exposures : int
        Their number.
    """
    teachers = choose_teachers(visits)
    if not len(teachers):
        return None
    visits = Visits(*(part[:, teachers] for part in visits))
    stars = start_stars(visits)
    optics = Optics(np.zeros(0), np.full(RINGS, FIRST_ERROR), np.ones(exposures), np.zeros((exposures, 2)))
    trust = np.ones(visits.value.shape)
    for number in range(LEARN_ROUNDS):
        shape = _place_pixels(visits, stars, optics)
        unit = stars.flux[:, None] * shape.scale
        noise = visits.noise / unit
        variance = noise**2 + np.maximum(_error_at(optics.errors, shape), 2 * LEAST_ERROR) ** 2
        weight = np.where(shape.inside, trust / variance, 0)
        normalized = np.where(shape.inside, (visits.value - stars.level[:, None]) / unit, 0)
        profile = fit_profile(*(part.reshape(-1) for part in (normalized, weight, shape.dx, shape.dy)))
        done = _improve(visits, stars, optics._replace(profile=profile), shape)
        typical = done.spread <= TYPICAL * max(1.0, float(np.median(done.spread)))
        relative = np.where(shape.inside & typical[:, None], done.residual / unit, np.nan)
        errors = _measure_errors(relative, noise, shape)
        optics = _improve_exposures(visits, optics._replace(profile=profile, errors=errors), done, typical)
        stars = done.stars
        near = np.abs(done.residual / unit) < CLIP * np.hypot(_error_at(errors, shape), noise)
        trust = np.where(typical[:, None], near if number else 1.0, 0.0)
    return optics


def _measure_errors(relative: NDArray[Any], noise: NDArray[Any], shape: _Shape) -> NDArray[Any]:
    """Scatter of the residuals beyond noise, as shares of the flux, in rings about the star."""
    ring = np.minimum(np.hypot(shape.dx, shape.dy) * (1 / RING), RINGS - 1).astype(np.intp)
    measured = np.isfinite(relative)
    out = np.full(RINGS, np.nan)
    for k in range(RINGS):
        here = measured & (ring == k)
        if np.count_nonzero(here) < FEWEST:
            continue
        size, own = np.abs(relative[here]), noise[here]
        best = own <= max(np.quantile(own, BRIGHTEST), 3 * LEAST_ERROR)
        middle, most = np.quantile(size[best], [0.5, 0.9])
        scatter = max(1.4826 * middle, TAIL * most)  # a profile that turns with the roll is off in some directions
        out[k] = np.sqrt(max(scatter**2 - np.median(own[best]) ** 2, LEAST_ERROR**2))
    known = np.flatnonzero(np.isfinite(out))
    if not len(known):
        return np.full(RINGS, FIRST_ERROR)
    out = np.interp(np.arange(RINGS), known, out[known])
    found: NDArray[Any] = np.maximum(out, SHARED_ERROR * out.max())
    return found


def _improve_exposures(visits: Visits, optics: Optics, done: _Round, typical: NDArray[Any]) -> Optics:
    """Flux factors and offsets of the exposures: medians of what the stamps of their stars ask for."""
    weighted = done.columns * done.weight
    normal = np.einsum("avsp,bvsp->vsab", weighted, done.columns)
    right = np.einsum("avsp,vsp->vsa", weighted, done.residual)
    change = _solve(normal.reshape(-1, 3, 3), right.reshape(-1, 3))
    use = (np.isfinite(visits.value[..., 12]) & typical).reshape(-1)
    exposure = visits.exposure.reshape(-1)
    scale, shift = optics.scale.copy(), optics.shift.copy()
    for k in range(len(scale)):
        mine = change[use & (exposure == k)]
        if len(mine):
            middle = np.median(mine, axis=0)
            scale[k] *= 1 + np.clip(middle[0], -0.1, 0.1)
            shift[k] += np.clip(middle[1:], -STEP, STEP)
    return optics._replace(scale=scale / np.mean(scale), shift=shift - np.mean(shift, axis=0))


# --- fitting ----------------------------------------------------------------------------------------------


def fit_stars(visits: Visits, optics: Optics) -> Fit:
    """What each stamp should look like."""
    stars = start_stars(visits)
    for _ in range(FIT_ROUNDS):
        stars = _improve(visits, stars, optics, _place_pixels(visits, stars, optics)).stars
    shape = _place_pixels(visits, stars, optics)
    p, _, _ = evaluate_profile(optics.profile, shape.dx, shape.dy)
    unit = stars.flux[:, None] * shape.scale
    light, error = p * unit, _error_at(optics.errors, shape) * unit
    model = np.where(shape.within, light + stars.level[:, None], np.nan)
    z = np.abs(visits.value - model) / np.hypot(visits.noise, error)
    at = _place_stars(visits, stars, optics)
    return Fit(model, error, light, at, np.nan_to_num(1.4826 * _median(z, (0, 2)), nan=np.inf), stars.flux)
