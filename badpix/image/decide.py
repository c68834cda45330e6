"""The decision: which pixels of an exposure are hit.

Documented rule (:func:`find_documented`): two passes on |SCI - model - background| against a mixture of noise
and derivative, the second one on the neighbors of the first.

Better test (:func:`find_hits`), with r = SCI - sky - model, z = r / st, D = derivative of the model, m = number
of other groups, S3 = sum of r over 3x3, tilted = D > 1.5 st, steep = D > 3 st:

1. seed: z > snr1, r > scale1 (1 + 1/m) D, and on tilted pixels S3 > conserve * r: a hit only adds charge,
   another sub-pixel phase of a star moves it from the neighbors to the peak. What the phase may do adds to the
   noise there: z > hypot(snr1, p), p = 0.9 (1 + 1/m) D/st but at most 6;
2. grow, twice: neighbors of what is flagged with the second pair of limits and the same condition;
3. dark: z < -snr_dark, -r > 1.125 (1 + 1/m) D, m >= 2 (with one other exposure a dark pixel is a hit in that
   one);
4. guard: a flag on a core that carries more than 3 % of a source stands only if |r| is at least protect_sources
   (1 + 1/m) D. Never where the pixel is SATURATED (in later groups) and others have lost it: m falls beside it. Then
   this exposure has the only valid core;
5. stand-out: on steep pixels |r|/D must exceed stand_out times the largest |r|/D of the unflagged steep pixels in
   7x7, unless 3 more pixels of its 5x5 are flagged: where the model is off all around (speckles, saturated stars),
   one pixel that is off tells nothing, while a track comes in company;
6. trails: on flat pixels, z > 2.5 where the best of 12 lines of 9 pixels exceeds trail_snr. Each line's sum counts in
   units of its scatter along that direction, if that is above the one of independent pixels: 1/f stripes;
7. wide faint events: areas of flat pixels (:mod:`badpix.image.extended`);
8. single coverage (m = 0): pixels sharper than any star (:mod:`badpix.image.seen_once`).

All limits are exceeded strictly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.extended import find_extended, level_covers
from badpix.image.resample_drizzle import measure_derivative
from badpix.numerics import clipping
from badpix.numerics.neighbors import gather, grow, locate

ROWS = 64  # of a band
STEEP = 3.0  # sigma a pixel
TILTED = 1.5
PHASE = 0.9  # local derivatives by which another sub-pixel phase may change a pixel ...
PHASE_MOST = 6.0  # ... and the most that this counts, sigma: above, the limits on the derivative decide
DARK_SCALE = 1.125  # local derivatives that a dark pixel must exceed: no hit explains it, so a phase is likelier
NEAR = 3  # pixels to each side, over which a flag on a steep pixel is compared with its surroundings
COMPANY = 3  # other flagged pixels in 5x5 that make it a track
CORE_FRACTION = 0.03
CORE_SIGMA = 30.0
TRAIL_PIXEL = 2.5  # sigma of a pixel on a trail
LINE = 4  # pixels to each side of the center
DIRECTIONS = 12
TRAIL_SAMPLE = 8_000  # flat pixels by which the scatter along a direction is measured


def find_documented(
    sci: NDArray[Any],
    err: NDArray[Any],
    model: NDArray[Any],
    background: float,
    *,
    snr: tuple[float, float],
    scale: tuple[float, float],
) -> NDArray[Any]:
    """The documented two-pass rule, bool (ny, nx). Images are float32; ERR that is NaN counts as 0."""
    out = np.empty(sci.shape, bool)
    for top in range(0, len(sci), ROWS):  # in bands, so that the temporaries stay in cache
        first, last = max(0, top - 2), min(len(sci), top + ROWS + 2)
        rows = slice(first, last)
        noise = np.nan_to_num(err[rows])
        derivative = measure_derivative(model[rows])
        difference = np.abs(sci[rows] - model[rows] - background)
        with np.errstate(invalid="ignore", over="ignore"):
            over1 = difference > scale[0] * derivative + snr[0] * noise
            over2 = difference > scale[1] * derivative + snr[1] * noise
        inner = slice(top - first, top - first + ROWS)
        out[top : top + ROWS] = (grow(over1) & over2)[inner]
    return out


def find_unresampled(sci: NDArray[Any], err: NDArray[Any], model: NDArray[Any], *, snr: float) -> NDArray[Any]:
    """The documented rule without resampling: one pass, no derivative."""
    with np.errstate(invalid="ignore"):
        found: NDArray[Any] = np.abs(sci - model) > snr * np.nan_to_num(err)
        return found


class Hits(NamedTuple):
    """What the better test flagged (bool maps), and the pixels that the guard let go."""

    bright: NDArray[Any]
    dark: NDArray[Any]
    trail: NDArray[Any]
    guarded: int
    common: int  # let go because their surroundings are as far off


class _Scene(NamedTuple):
    """What the pixels of an exposure are judged by."""

    model: NDArray[Any]
    derivative: NDArray[Any]
    flat: NDArray[Any]
    noise: NDArray[Any]
    expected: NDArray[Any]
    cover: NDArray[Any]
    saturated: NDArray[Any]


def find_hits(
    residual: NDArray[Any],
    model: NDArray[Any],
    noise: NDArray[Any],
    expected: NDArray[Any],
    cover: NDArray[Any],
    saturated: NDArray[Any],
    slack: NDArray[Any] | None = None,
    derivative: NDArray[Any] | None = None,
    *,
    snr: tuple[float, float],
    scale: tuple[float, float],
    snr_dark: float,
    conserve: float,
    protect_sources: float,
    stand_out: float,
    trail_snr: float,
    wide_snr: float = 0.0,
) -> Hits:
    """The better test on one exposure.

    Parameters
    ----------
    residual : float32 (ny, nx)
        r; NaN on bad pixels.
    model : float32 (ny, nx)
        Sharpened model without sky.
    noise, expected : float32 (ny, nx)
        st and s0.
    cover : uint8 (ny, nx)
        m.
    saturated : bool (ny, nx)
        DQ has SATURATED.
    slack : float32 (ny, nx), optional
        By how much the model may be off, where exposures at other roll angles alone looked; it doesn't count.
    derivative : float32 (ny, nx), optional
        Of the model; measured here if it isn't given.
    """
    if slack is not None:
        residual = np.sign(residual) * np.maximum(np.abs(residual) - slack, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        z = residual / noise
        derivative = measure_derivative(model) if derivative is None else derivative
        flat = derivative < STEEP * noise
        scene = _Scene(model, derivative, flat, noise, expected, cover, saturated)
        bright, guarded = _find_signed(
            z, residual, scene, snr=snr, scale=scale, conserve=conserve, protect_sources=protect_sources
        )
        dark = np.zeros_like(bright)
        if snr_dark:
            dark, saved = _find_signed(
                z,
                residual,
                scene,
                snr=(snr_dark, np.inf),
                scale=(DARK_SCALE, DARK_SCALE),
                conserve=conserve,
                protect_sources=protect_sources,
                bright=False,
            )
            guarded += saved
        trail = np.zeros_like(bright)
        if trail_snr:
            trail = find_trails(z, flat, trail_snr=trail_snr) & ~bright
        if wide_snr:
            seen = flat & (cover > 0) & ~bright  # hits are found; of the rest an area must be off
            if slack is not None:
                seen &= slack == 0
            trail |= find_extended(level_covers(z, cover, seen, out=z), seen, wide_snr=wide_snr) & ~bright
        common = np.zeros_like(bright)
        if stand_out:
            common = find_common(bright | dark | trail, residual, derivative, noise, ~flat, stand_out=stand_out)
    return Hits(bright & ~common, dark & ~common, trail, guarded, int(np.count_nonzero(common)))


def find_common(
    flagged: NDArray[Any],
    residual: NDArray[Any],
    derivative: NDArray[Any],
    noise: NDArray[Any],
    steep: NDArray[Any],
    *,
    stand_out: float,
) -> NDArray[Any]:
    """Steep flagged pixels, few together, whose |r|/D does not stand out from the unflagged steep ones of 7x7."""
    found = np.zeros(flagged.shape, bool)
    ys, xs = locate(flagged & steep)
    few = (gather(flagged.astype(np.float32), ys, xs, 2) > 0).sum(axis=0) <= COMPANY  # itself among them
    ys, xs = ys[few], xs[few]
    if not len(ys):
        return found
    r, slope, sigma = (gather(image, ys, xs, NEAR) for image in (residual, derivative, noise))
    use = np.isfinite(r) & (slope >= STEEP * sigma) & ~(gather(flagged.astype(np.float32), ys, xs, NEAR) > 0)
    off = np.where(use, np.abs(r) / np.maximum(slope, sigma), 0).max(axis=0)
    own = np.abs(residual[ys, xs]) / derivative[ys, xs]
    usual = own <= stand_out * off
    found[ys[usual], xs[usual]] = True
    return found


def _find_signed(
    z: NDArray[Any],
    r: NDArray[Any],
    scene: _Scene,
    *,
    snr: tuple[float, float],
    scale: tuple[float, float],
    conserve: float,
    protect_sources: float,
    bright: bool = True,
) -> tuple[NDArray[Any], int]:
    """Seeds, growth and guard for one sign of r; only pixels above the lower limit are looked at.

    Dark ones only where two others looked.
    """
    found = np.zeros(z.shape, bool)
    sign, far = (np.float32(1), z > min(snr)) if bright else (np.float32(-1), z < -min(snr))
    ys, xs = locate(far & (scene.cover > (0 if bright else 1)))
    if not len(ys):
        return found, 0
    value, slope = sign * r[ys, xs], scene.derivative[ys, xs]
    few = 1 + 1 / scene.cover[ys, xs].astype(np.float32)
    tilt = slope / scene.noise[ys, xs]
    tilted = tilt > TILTED
    kept = np.ones(len(ys), bool)
    kept[tilted] = sign * np.nansum(gather(r, ys[tilted], xs[tilted], 1), axis=0) > conserve * value[tilted]
    phase = np.where(tilted, np.minimum(PHASE * few * tilt, PHASE_MOST), 0)
    above = sign * z[ys, xs]
    seed = kept & (above > np.hypot(snr[0], phase)) & (value > scale[0] * few * slope)
    next_to = kept & (above > snr[1]) & (value > scale[1] * few * slope)
    found[ys[seed], xs[seed]] = True
    if next_to.any():
        eligible = np.zeros(z.shape, bool)
        eligible[ys[next_to], xs[next_to]] = True
        for _ in range(2):
            found |= grow(found) & eligible
    before = int(np.count_nonzero(found))
    bold = _is_bold(value, few * slope, ys, xs, scene, protect_sources)
    found[ys[~bold], xs[~bold]] = False
    return found, before - int(np.count_nonzero(found))


def _is_bold(
    value: NDArray[Any],
    phase: NDArray[Any],
    ys: NDArray[Any],
    xs: NDArray[Any],
    scene: _Scene,
    protect_sources: float,
) -> NDArray[Any]:
    """False where a flag would cost a source more than it could gain: a phase error on a core, or its only valid one.

    ``phase`` is (1 + 1/m) D, in the units of ``value``.
    """
    bold = np.ones(len(ys), bool)
    if not protect_sources:
        return bold
    doubt = ~scene.flat[ys, xs] & (value < protect_sources * phase)
    doubt |= ~scene.flat[ys, xs] & _is_lost_elsewhere(scene, ys, xs)
    if doubt.any():
        y, x = ys[doubt], xs[doubt]
        net = np.maximum(gather(scene.model, y, x, 2) - np.float32(np.nanmedian(scene.model[::5, ::5])), 0)
        total = np.nansum(net, axis=0)
        core = (net[12] > CORE_FRACTION * total) & (total > CORE_SIGMA * scene.expected[y, x])
        bold[np.flatnonzero(doubt)[core]] = False
    return bold


def _is_lost_elsewhere(scene: _Scene, ys: NDArray[Any], xs: NDArray[Any]) -> NDArray[Any]:
    """SATURATED pixels beside which fewer of the others are valid than around: there the core is lost."""
    lost = scene.saturated[ys, xs]
    if lost.any():
        near, around = (gather(scene.cover.astype(np.float32), ys[lost], xs[lost], reach) for reach in (1, NEAR))
        lost[lost] = np.fmin.reduce(near) < np.fmax.reduce(around)
    found: NDArray[Any] = lost
    return found


# --- trails -----------------------------------------------------------------------------------------------


def line_offsets() -> list[NDArray[Any]]:
    """(dy, dx) of the pixels of 9-pixel lines through (0, 0) in 12 directions."""
    lines = []
    for k in range(DIRECTIONS):
        angle = np.pi * k / DIRECTIONS
        longest = max(abs(np.cos(angle)), abs(np.sin(angle)))
        t = np.arange(-LINE, LINE + 1) / longest
        lines.append(np.unique(np.rint(np.stack([t * np.sin(angle), t * np.cos(angle)], 1)).astype(int), axis=0))
    return lines


def find_trails(z: NDArray[Any], flat: NDArray[Any], *, trail_snr: float) -> NDArray[Any]:
    """Pixels with z > 2.5 on a line whose clipped, noise-weighted sum exceeds ``trail_snr``."""
    found = np.zeros(z.shape, bool)
    ys, xs = locate((z > TRAIL_PIXEL) & flat)
    if not len(ys):
        return found
    padded = np.zeros((z.shape[0] + 2 * LINE, z.shape[1] + 2 * LINE), np.float32)
    inner = padded[LINE:-LINE, LINE:-LINE]
    for top in range(0, len(z), ROWS):  # what a band takes stays in cache
        rows = slice(top, top + ROWS)
        np.minimum(z[rows], np.float32(6), out=inner[rows])
        np.maximum(inner[rows], np.float32(-3), out=inner[rows])
        np.copyto(inner[rows], 0, where=~flat[rows] | np.isnan(z[rows]))
    padded = padded.ravel()
    width = z.shape[1] + 2 * LINE
    at = (ys + LINE) * width + xs + LINE
    sample = np.arange(0, z.size, max(1, z.size // TRAIL_SAMPLE))
    sample = sample[flat.reshape(-1)[sample] & np.isfinite(z.reshape(-1)[sample])]
    usual = (sample // z.shape[1] + LINE) * width + sample % z.shape[1] + LINE
    best = np.full(len(ys), -np.inf, np.float32)
    for line in line_offsets():
        steps = line @ (width, 1)
        level, scatter = clipping.median_mad(_sum_along(padded, usual, steps))
        total = _sum_along(padded, at, steps) - level if scatter > 1 else _sum_along(padded, at, steps)
        np.maximum(best, total / np.float32(max(1.0, scatter)), out=best)
    hit = best > trail_snr
    found[ys[hit], xs[hit]] = True
    return found


def _sum_along(values: NDArray[Any], at: NDArray[Any], steps: NDArray[Any]) -> NDArray[Any]:
    """Sums of independent values along lines through some places, over the root of their number (float32)."""
    total = np.zeros(len(at), np.float32)
    for step in steps:
        total += np.take(values, at + step, mode="clip")
    out: NDArray[Any] = total / np.sqrt(np.float32(len(steps)))
    return out
