"""Hits on the cores of stars, decided after all exposures: by what the stars themselves look like.

1. Each exposure gives stamps of the sources that the median image shows (:func:`cut_stamps`).
2. Stars that two exposures or more saw are fitted with one profile (:mod:`badpix.image.star_fit`). Where a star is
   known (its residuals are usually as small as noise and the profile's error say), its pixels are decided anew:

   - a pixel above the fit by ``core_snr`` of both is hit, and one beside it by 0.6 of that, but where half of the
     others show it at the same place on the sky: a faint neighbor;
   - a flag of the test that the fit explains within 3 of both is taken back;
   - light that lies over the whole stamp of one exposure (a halo, a trail) makes all of it hit, where it is more than
     2 % of the star.

   A stamp of which the fit explains less than half of the pixels, or that a factor explains better than hits do, is
   of a star that changes, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.pixel_map import PixelMap, map_points
from badpix.image.star_fit import Fit, Visits, fit_stars, learn_profile
from badpix.image.star_profile import REACH, stamp_offsets
from badpix.numerics.neighbors import gather, grow

MOST, CANDIDATES = 2_000, 400  # the brightest sources of the set; those among which the profile's teachers are
FLUX_SIGMA = 100.0  # of a source in 5 x 5, sigma of a pixel
VALID = 15  # of 25 pixels that a stamp needs
CHUNK = 1024  # stamps that are fitted at a time
CORE = 2.3  # pixels from a star's middle, within which its stamps decide
FEW = 8  # of 25 pixels that are hit otherwise, below which light over a whole stamp is looked at
KNOWN = 1.7  # times the expected scatter, up to which a star is known
TURNED = 1.4  # times the limit, where exposures at several roll angles share a profile that turns
BESIDE = 0.6  # of the limit, for a pixel beside a hit
EXPLAINED = 3.0  # sigma, within which a flag is taken back ...
CERTAIN = 0.01  # ... where the profile is known to this share of the flux
FAITHFUL = 13  # of 25 pixels that a stamp must have near its fit
SPREAD_SNR = 4.0  # sigma of light over a whole stamp ...
SPREAD_SHARE = 0.02  # ... and of the star's flux, from which on the whole stamp is hit: a part of a star is worse
USUAL_CHANGE = 0.01  # of a star's flux, from exposure to exposure
WIDE, WIDE_SNR = 0.3, 2.0  # share of 9 x 9 pixels that the search for wide events flagged; SPREAD_SNR among those
REPEATED, SAME = 2.5, 0.3  # sigma from which on others are asked; the share of an excess that repeats it
WHOLE, LIKE = 0.9, 0.8  # share of a star under hits, and of these that a change explains, from which on it is one
CHANGED = 4.0  # sigma of a stamp's own flux factor ...
CHANGED_SHARE = 0.02  # ... and that factor, from which on a star counts as changing


class Stamps(NamedTuple):
    """The sources of one exposure."""

    source: NDArray[Any]  # [n]
    y: NDArray[Any]  # [n]: middle pixel
    x: NDArray[Any]
    value: NDArray[Any]  # float32 [n, 25]: without sky; NaN on bad pixels, and those that other rules keep
    noise: NDArray[Any]  # float32 [n, 25]
    flagged: NDArray[Any]  # bool [n, 25]
    ours: NDArray[Any]  # bool [n, 25]: flags that may be taken back
    wide: NDArray[Any]  # [n]: share of 9 x 9 pixels that lie on a trail or in a halo
    place: NDArray[Any]  # [n, 2]: x, y of the source from the middle pixel
    turn: NDArray[Any]  # [n, 2, 2]
    others: NDArray[Any]  # [n]: other groups that saw the middle pixel


def cut_stamps(
    places: tuple[NDArray[Any], NDArray[Any]],
    pixel_map: PixelMap,
    residual: NDArray[Any],
    model: NDArray[Any],
    noise: NDArray[Any],
    flagged: NDArray[Any],
    ours: NDArray[Any],
    wide: NDArray[Any],
    others: NDArray[Any],
) -> Stamps:
    """Stamps of those of the brightest sources that lie in an exposure.

    Parameters
    ----------
    places : float [n], float [n]
        x and y of all sources in the exposure, the brightest first; NaN outside of it.
    pixel_map : PixelMap
    residual, model, noise : float32 (ny, nx)
        SCI - sky - model; the model, which tells what is bright enough; the noise.
    flagged, ours, wide : bool (ny, nx)
        All flags, those that may be taken back, those of trails and halos.
    others : uint8 (ny, nx)
        Number of other groups.
    """
    x, y = (v[:MOST] for v in places)
    number = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    ys, xs = np.rint(y[number]).astype(np.intp), np.rint(x[number]).astype(np.intp)
    floor = np.float32(np.nanmedian(model[::5, ::5])) if np.isfinite(model[::5, ::5]).any() else np.float32(0)
    net = np.nansum(gather(model, ys, xs, REACH) - floor, axis=0)
    bright = net > FLUX_SIGMA * noise[ys, xs]
    number, ys, xs = number[bright], ys[bright], xs[bright]
    turn = _turn_at(pixel_map, x[number], y[number])
    cut = [gather(image, ys, xs, REACH).T for image in (residual, model, noise)]
    flags = [gather(image.astype(np.float32), ys, xs, REACH).T > 0 for image in (flagged, ours)]
    share = np.nanmean(gather(wide.astype(np.float32), ys, xs, 2 * REACH), axis=0) if len(ys) else np.empty(0)
    place = np.stack([x[number] - xs, y[number] - ys], axis=1)
    value = cut[0] + cut[1] - floor
    return Stamps(number, ys, xs, value, cut[2], flags[0], flags[1], share, place, turn, others[ys, xs])


def _turn_at(pixel_map: PixelMap, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """By how much places (x, y) in an exposure move with their places on the grid, [n, 2, 2]."""
    x0, x1, y0, y1 = pixel_map.span
    x, y = np.clip(x, x0, x1 - 1), np.clip(y, y0, y1 - 1)
    here, right, up = (np.stack(map_points(pixel_map, x + i, y + j), axis=1) for i, j in ((0, 0), (1, 0), (0, 1)))
    found: NDArray[Any] = np.linalg.inv(np.stack([right - here, up - here], axis=2))
    return found


class Verdict(NamedTuple):
    """What stamps of known stars became."""

    exposure: NDArray[Any]  # [n]: which list of stamps
    row: NDArray[Any]  # [n]: of that list
    flagged: NDArray[Any]  # bool [n, 25]
    light: NDArray[Any]  # float [n, 25]: of the star alone
    residual: NDArray[Any]  # float [n, 25]


def decide_stamps(stamps: Sequence[Stamps], *, core_snr: float, level: bool) -> list[Verdict]:
    """The stamps of known stars whose flags change.

    Parameters
    ----------
    stamps : sequence of Stamps
        Of each exposure.
    core_snr : float
    level : bool
        Whether all exposures have one roll angle. Where spikes turn, light over a whole stamp is no hit.
    """
    table = _list_visits(stamps)
    if not len(table):
        return []
    core_snr *= 1 if level else TURNED
    optics = learn_profile(_gather_visits(stamps, table[:CANDIDATES]), len(stamps))
    if optics is None:
        return []
    out = []
    number = max(1, CHUNK // table.shape[1])
    for first in range(0, len(table), number):
        chosen = table[first : first + number]
        visits = _gather_visits(stamps, chosen)
        out += _decide(stamps, chosen, visits, fit_stars(visits, optics), core_snr=core_snr, level=level)
    return out


def _list_visits(stamps: Sequence[Stamps]) -> NDArray[Any]:
    """Stamps of each source that has two at least, [star, visit, (exposure, row)]; -1 = none."""
    exposure = np.concatenate([np.full(len(s.source), k) for k, s in enumerate(stamps)])
    row = np.concatenate([np.arange(len(s.source)) for s in stamps])
    source = np.concatenate([s.source for s in stamps])
    full = np.concatenate([np.isfinite(s.value).sum(axis=1) >= VALID for s in stamps])
    exposure, row, source = exposure[full], row[full], source[full]
    order = np.argsort(source, kind="stable")
    exposure, row, source = exposure[order], row[order], source[order]
    start = np.flatnonzero(np.diff(source, prepend=-1))
    number = np.diff(start, append=len(source))
    visit = np.arange(len(source)) - np.repeat(start, number)
    table = np.full((len(start), int(number.max(initial=0)), 2), -1)
    table[np.repeat(np.arange(len(start)), number), visit] = np.stack([exposure, row], axis=1)
    return table[number >= 2]


def _gather_visits(stamps: Sequence[Stamps], table: NDArray[Any]) -> Visits:
    """The stamps of some stars side by side; flagged pixels are left out."""
    exposure, row = np.moveaxis(table, 2, 0).swapaxes(1, 2)
    shape = exposure.shape
    value, noise = np.full((2, *shape, 25), np.nan)
    place, turn = np.zeros((*shape, 2)), np.tile(np.eye(2), (*shape, 1, 1))
    for k, part in enumerate(stamps):
        here = exposure == k
        at = row[here]
        value[here] = np.where(part.flagged[at], np.nan, part.value[at])
        noise[here], place[here], turn[here] = part.noise[at], part.place[at], part.turn[at]
    return Visits(value, noise, place, turn, np.maximum(exposure, 0))


def _decide(
    stamps: Sequence[Stamps], table: NDArray[Any], visits: Visits, fit: Fit, *, core_snr: float, level: bool
) -> list[Verdict]:
    """What becomes of the stamps of some stars."""
    exposure, row = np.moveaxis(table, 2, 0).swapaxes(1, 2)
    bright = fit.flux > FLUX_SIGMA / 2 * np.fmax.reduce(visits.noise, axis=(0, 2))
    known = np.broadcast_to((fit.quality <= KNOWN) & bright, exposure.shape) & (exposure >= 0)
    visit, star = np.nonzero(known)
    exposure, row = exposure[visit, star], row[visit, star]
    value, flagged, ours = np.full((len(row), 25), np.nan), *np.zeros((2, len(row), 25), bool)
    for k, part in enumerate(stamps):
        here = exposure == k
        value[here], flagged[here], ours[here] = part.value[row[here]], part.flagged[row[here]], part.ours[row[here]]
    model, error, light = fit.model[visit, star], fit.error[visit, star], fit.light[visit, star]
    noise = np.hypot(visits.noise[visit, star], error)
    residual = value - model
    with np.errstate(invalid="ignore"):
        z = residual / noise
        changed, spread, spread_error = _fit_changes(residual, noise, light, core_snr)
        faithful = (np.abs(z) < core_snr).sum(axis=1) >= FAITHFUL
    others = np.full(fit.model.shape, np.nan)
    others[visit, star] = np.where(flagged, np.nan, z)
    y, x = stamp_offsets()
    core = np.hypot(x - fit.place[visit, star, :1], y - fit.place[visit, star, 1:]) < CORE
    hit = _find_hits(np.where(core & ~_repeats(z, others, visits, fit, visit, star), z, np.nan), core_snr)
    changed |= _prefer_change(z, light / noise, hit)
    if level:
        wide = np.array([stamps[k].wide[r] for k, r in zip(exposure, row, strict=True)])
        limit = np.where(wide > WIDE, WIDE_SNR, SPREAD_SNR)
        high = (spread > limit * spread_error) & (25 * spread > SPREAD_SHARE * fit.flux[star])
        usual = np.sort(np.where(np.isfinite(residual), residual, 0), axis=1)[:, 12]
        high &= (usual > spread / 2) & (np.count_nonzero(hit | (flagged & ours), axis=1) < FEW)
        hit |= high[:, None] & np.isfinite(model)
    certain = error < np.maximum(CERTAIN * fit.flux[star, None], visits.noise[visit, star])
    with np.errstate(invalid="ignore"):
        explained = ours & certain & (np.abs(z) < EXPLAINED) & ~_grow_stamps(hit)
    after = (flagged | (hit & np.isfinite(value))) & ~explained
    use = np.flatnonzero(faithful & ~changed & (after != flagged).any(axis=1))
    return [Verdict(exposure[use], row[use], after[use], light[use], residual[use])] if len(use) else []


def _find_hits(z: NDArray[Any], limit: float) -> NDArray[Any]:
    """Pixels above the limit, and beside them those above a part of it, bool [n, 25]."""
    with np.errstate(invalid="ignore"):
        found, near = z > limit, z > BESIDE * limit
    for _ in range(2):
        found |= _grow_stamps(found) & near
    return found


def _repeats(
    z: NDArray[Any], others: NDArray[Any], visits: Visits, fit: Fit, visit: NDArray[Any], star: NDArray[Any]
) -> NDArray[Any]:
    """Pixels whose excess half of the star's other visits show, too, at their place on the sky, bool [n, 25].

    A faint neighbor does, which the star's level and profile don't hold.

    Parameters
    ----------
    z : float [n, 25]
        Of the stamps that are looked at, flagged pixels as well: these are excesses like the others.
    others : float [visit, star, 25]
        Of all stamps; NaN on flagged pixels, which tell nothing of the sky.
    visits : Visits
    fit : Fit
    visit, star : int [n]
        The stamps that are looked at.
    """
    found, z = np.zeros(z.shape, bool), np.nan_to_num(z)
    high = np.flatnonzero((z > REPEATED).any(axis=1))
    if not len(high):
        return found
    own, star, excess = visit[high], star[high], z[high]
    y, x = stamp_offsets()
    offset = np.stack([x, y], axis=1) - fit.place[own, star][:, None]
    sky = np.einsum("nij,npj->npi", np.linalg.inv(visits.turn[own, star]), offset)
    seen, known = np.zeros(excess.shape), np.zeros(excess.shape)
    for other in range(len(others)):
        at = np.einsum("nij,npj->npi", visits.turn[other, star], sky) + fit.place[other, star][:, None]
        column, row = (np.rint(at[..., k]).astype(np.intp) + REACH for k in (0, 1))
        inside = (column >= 0) & (column <= 2 * REACH) & (row >= 0) & (row <= 2 * REACH)
        place = np.where(inside, row * (2 * REACH + 1) + column, 0)
        there = np.take_along_axis(_highest_around(others[other, star]), place, axis=1)
        inside &= np.not_equal(other, own)[:, None]
        with np.errstate(invalid="ignore"):
            again: NDArray[Any] = inside & (there > SAME * excess)
        seen += again  # a missing pixel says nothing, even where its neighbors are dark
        known += again | (inside & np.isfinite(np.take_along_axis(others[other, star], place, axis=1)))
    found[high] = seen >= known / 2  # also where nobody else saw that place
    return found


def _highest_around(stamps: NDArray[Any]) -> NDArray[Any]:
    """Largest of 3 x 3 pixels within stamps [n, 25]; NaN where there is none."""
    side = 2 * REACH + 1
    padded = np.pad(stamps.reshape(-1, side, side), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    parts = [padded[:, j : j + side, i : i + side] for j in range(3) for i in range(3)]
    found: NDArray[Any] = np.fmax.reduce(parts).reshape(-1, side * side)
    return found


def _prefer_change(z: NDArray[Any], light: NDArray[Any], hit: NDArray[Any]) -> NDArray[Any]:
    """Stamps (bool [n]) whose residuals a change of the star explains better than the hits do; all in sigma."""
    known = np.isfinite(z)
    z, light = np.where(known, z, 0), np.where(known, light, 0)
    explained = (z * light).sum(axis=1) ** 2 / np.maximum((light * light).sum(axis=1), np.finfo(float).tiny)
    better = explained > (np.where(hit, z, 0) ** 2).sum(axis=1)
    whole = (np.where(hit, light, 0) ** 2).sum(axis=1) > WHOLE * (light * light).sum(axis=1)
    out: NDArray[Any] = hit.any(axis=1) & (better | (whole & (explained > LIKE * (z * z).sum(axis=1))))
    return out


def _grow_stamps(found: NDArray[Any]) -> NDArray[Any]:
    """Stamps [n, 25] with the neighbors of their true pixels."""
    side = 2 * REACH + 1
    tall = np.zeros((len(found), side, side + 1), bool)  # a column between stamps
    tall[..., :side] = found.reshape(-1, side, side)
    padded = np.zeros((side, len(found) * (side + 1)), bool)
    padded[:] = tall.transpose(1, 0, 2).reshape(side, -1)
    grown = grow(padded).reshape(side, len(found), side + 1).transpose(1, 0, 2)[..., :side]
    return np.ascontiguousarray(grown).reshape(-1, side * side)


def _fit_changes(
    residual: NDArray[Any], noise: NDArray[Any], light: NDArray[Any], limit: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of each stamp: whether its star changed; the level of what lies over it, and the error of that."""
    use = np.isfinite(residual) & (np.abs(residual) < limit * noise)
    weight = np.where(use, 1 / (noise * noise), 0)
    left = np.where(use, residual, 0)
    s0, sp, spp = weight.sum(1), (weight * light).sum(1), (weight * light * light).sum(1)
    r0, rp = (weight * left).sum(1), (weight * light * left).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        free = s0 * spp - sp * sp
        factor, factor_error = (s0 * rp - sp * r0) / free, np.sqrt(s0 / free)
        spp = spp + 1 / USUAL_CHANGE**2
        held = s0 * spp - sp * sp
        level, level_error = (spp * r0 - sp * rp) / held, np.sqrt(spp / held)
    changed = (np.abs(factor) > CHANGED * factor_error) & (np.abs(factor) > CHANGED_SHARE)
    return changed, np.nan_to_num(level), np.nan_to_num(level_error, nan=np.inf)
