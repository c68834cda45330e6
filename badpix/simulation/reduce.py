"""A quick reduction of simulated ramps, in the steps and with the products of the pipeline's first stage.

1. Saturation: groups at or above the pixel's limit, and the same groups of the 8 neighbors, are SATURATED.
2. Superbias and reference pixels: offsets of each amplifier and group from the reference rows, the rest of the
   1/f noise from the reference columns, smoothed; MIRI: the change of each output since its first group.
3. Jumps: two-point differences against their median, 4 sigma; strong ones flag the 4 neighbors as well.
4. Slopes: :mod:`badpix.numerics.ramp_fit`.

It stands in for the real steps where speed matters (demo, tests); ``docs/simulation.md`` says how well it agrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.detectors import Detector
from badpix.numerics.jumps import measure_jumps
from badpix.numerics.ramp_fit import (
    DO_NOT_USE,
    JUMP_DET,
    SATURATED,
    Constants,
    Fit,
    fit_ramps,
    mean_first_group,
    measure_typical,
)
from badpix.simulation.detector import Exposure, Scene, measure_drift, ramp_rows
from badpix.simulation.recipe import Recipe

Float = NDArray[np.float32]

JUMP_SIGMA = 4.0
NEIGHBOR_SIGMA = (10.0, 1000.0)  # jumps between these flag the 4 side neighbors
HALO = 2  # rows that saturation's growth and jump neighbors reach beyond a band


@dataclass(frozen=True)
class Reduced:
    """One integration of a band of rows."""

    raw: NDArray[np.uint16]  # (ngroups, rows, nx) DN
    ramp: Float  # (ngroups, rows, nx) DN
    groupdq: NDArray[np.uint8]  # (ngroups, rows, nx)
    fit: Fit


def usable_groups(recipe: Recipe, kind: str) -> slice:
    """Groups that are fitted: all; on MIRI without the first and the last."""
    return slice(1, -1) if recipe.detector.instrument == "MIRI" and recipe.groups(kind) > 4 else slice(None)


def measure_saturation(scene: Scene) -> Float:
    """Raw DN above which a pixel counts as saturated, (ny, nx): 97 % of what a full well shows, above the bias."""
    physics = scene.recipe.physics
    shown = 0.97 * (1 - 4 * physics.ipc) / physics.gain
    return scene.superbias + np.float32(shown) * scene.full_well


def measure_offsets(scene: Scene, exposure: Exposure) -> Float:
    """Offsets to subtract from the raw ramps of an exposure, (nints, ngroups, slow axis, 4) DN."""
    values = np.rint(exposure.border)
    if scene.recipe.detector.instrument != "MIRI":
        values -= scene.superbias[scene.reference]
    return offsets_from_border(values, scene.reference, scene.amplifier, scene.recipe.detector)


def offsets_from_border(
    values: Float, reference: NDArray[np.bool_], amplifier: NDArray[np.uint8], detector: Detector
) -> Float:
    """Offsets of the readout, from its reference pixels; 0 where there are none.

    Parameters
    ----------
    values : float array (nints, ngroups, reference pixels)
        Ramps of the reference pixels in row-major order, DN; in the near infrared minus the superbias.
    reference : bool array (ny, nx)
        Where they are.
    amplifier : uint8 array (ny, nx)
        Output that reads each pixel.
    detector : Detector
        Tells the slow axis, and MIRI from the others.

    Returns
    -------
    float array (nints, ngroups, slow axis, 4)
    """
    y, x = np.nonzero(reference)
    along_y = abs(detector.fastaxis) == 1
    slow, amp, nslow = (y if along_y else x), amplifier[y, x], reference.shape[0 if along_y else 1]
    out = np.zeros((*values.shape[:2], nslow, 4), np.float32)
    if detector.instrument == "MIRI":
        for k in range(4 if len(y) else 0):
            mean = values[:, :, amp == k].mean(axis=-1)
            out[..., k] = (mean - mean[:, :1])[:, :, None]
        return out
    ends = (slow < 4) | (slow >= nslow - 4)
    for k in range(4):
        mine = (amp == k) & ends
        mine = mine if mine.any() else amp == k
        if mine.any():
            out[..., k] = values[:, :, mine].mean(axis=-1)[..., None]
    if not ends.all():
        rest = (values - out[:, :, slow, amp])[:, :, ~ends]
        out += smooth_sides(rest, slow[~ends], nslow)[..., None]
    return out


def smooth_sides(rest: Float, slow: NDArray[np.intp], nslow: int, width: int = 11) -> Float:
    """Running mean along the slow axis of what is left in the side reference pixels, (nints, ngroups, nslow)."""
    total = np.zeros((*rest.shape[:2], nslow + 2 * width))
    for k in range(rest.shape[2]):
        total[:, :, slow[k] + width] += rest[:, :, k]
    count = np.bincount(slow + width, minlength=nslow + 2 * width)
    half = width // 2
    start = np.arange(nslow) + width - half
    sums, counts = np.cumsum(total, axis=-1), np.cumsum(count)
    number = counts[start + width - 1] - counts[start - 1]
    mean = (sums[..., start + width - 1] - sums[..., start - 1]) / np.maximum(number, 1)
    found: Float = mean.astype(np.float32)
    return found


def reduce_rows(scene: Scene, exposure: Exposure, offsets: Float, first: int, last: int) -> list[Reduced]:
    """Raw and reduced ramps of rows ``first`` to ``last`` (exclusive), one entry per integration."""
    recipe = scene.recipe
    low, high = max(first - HALO, 0), min(last + HALO, recipe.shape[0])
    raw = np.stack([ramp_rows(scene, exposure, i, low, high) for i in range(recipe.nints)])
    ramp = raw.astype(np.float32)
    for i, one in enumerate(offsets):
        ramp[i] -= measure_drift(scene, one, low, high)
    if recipe.detector.instrument != "MIRI":
        ramp -= scene.superbias[low:high]
    use = usable_groups(recipe, exposure.kind)
    groupdq = flag_groups(scene, raw, use, low, high)
    mark_jumps(groupdq[:, use], ramp[:, use], scene.known_noise[low:high], recipe.physics.gain)
    rows = slice(first - low, last - low)
    raw, ramp, groupdq, noise = raw[:, :, rows], ramp[:, :, rows], groupdq[:, :, rows], scene.known_noise[first:last]
    constants = Constants(recipe.physics.gain, recipe.group_time, mean_first_group(*recipe.frames))
    typical = measure_typical(ramp[:, use], groupdq[:, use], constants)
    return [
        Reduced(raw[i], ramp[i], groupdq[i], fit_ramps(ramp[i], groupdq[i], use, typical, noise, constants))
        for i in range(recipe.nints)
    ]


def flag_groups(scene: Scene, raw: NDArray[np.uint16], use: slice, low: int, high: int) -> NDArray[np.uint8]:
    """SATURATED groups of rows ``low`` to ``high``, and DO_NOT_USE on the groups that MIRI leaves out."""
    groupdq = np.zeros(raw.shape, np.uint8)
    for i, one in enumerate(raw):
        mark_saturated(groupdq[i], one, measure_saturation(scene)[low:high])
    if use.start:  # as the pipeline: the first group stays where the ramp is soon saturated
        groupdq[:, 0] |= np.where(groupdq[:, 2] & SATURATED, np.uint8(0), np.uint8(DO_NOT_USE))
        groupdq[:, -1] |= DO_NOT_USE
    return groupdq


def mark_saturated(groupdq: NDArray[np.uint8], raw: NDArray[np.uint16], limit: Float) -> None:
    """Flag groups at or above the limit and their 8 neighbors, in place."""
    whole = np.ceil(np.clip(limit, 0, 65535)).astype(np.uint16)
    g, y, x = np.nonzero(raw >= whole)
    ny, nx = raw.shape[1:]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
            groupdq[g[inside], y[inside] + dy, x[inside] + dx] |= SATURATED


def mark_jumps(groupdq: NDArray[np.uint8], ramp: Float, noise: Float, gain: float) -> None:
    """Flag jumps, in place: differences off their median by more than 4 sigma, and strong jumps' side neighbors.

    Parameters
    ----------
    groupdq, ramp : arrays (nints, ngroups, ny, nx)
        Flags so far, and DN. The median is over all integrations.
    noise : float array (ny, nx)
        Read noise of one group, DN.
    gain : float
        e/DN.
    """
    between = ramp.shape[1] - 1
    steps = (ramp[:, 1:] - ramp[:, :-1]).reshape(-1, *ramp.shape[2:])
    mean = (ramp[:, -1] - ramp[:, 0]).sum(axis=0) / np.float32(len(steps))
    sigma = np.sqrt(2 * noise**2 + np.maximum(mean, 0) / gain, dtype=np.float32)
    saturated = ((groupdq[:, -1] & SATURATED) != 0).any(axis=0)
    far = np.maximum(steps.max(axis=0) - mean, mean - steps.min(axis=0))
    y, x = np.nonzero((far > 0.75 * JUMP_SIGMA * sigma) | saturated)
    steps, noise = steps[:, y, x], noise[y, x]
    usable = ((groupdq[:, 1:, y, x] & SATURATED) == 0).reshape(steps.shape)
    ratio, known = measure_jumps(steps, usable, noise, gain)
    step, pixel = np.nonzero(known & (ratio > JUMP_SIGMA))
    size = ratio[step, pixel]
    integration, group = step // between, step % between + 1
    groupdq[integration, group, y[pixel], x[pixel]] |= JUMP_DET
    strong = (size > NEIGHBOR_SIGMA[0]) & (size < NEIGHBOR_SIGMA[1])
    mark_side_neighbors(groupdq, integration[strong], group[strong], y[pixel[strong]], x[pixel[strong]])


Index = NDArray[np.intp]


def mark_side_neighbors(groupdq: NDArray[np.uint8], integration: Index, group: Index, y: Index, x: Index) -> None:
    """Flag the 4 side neighbors of jumps, in place, where they are not saturated."""
    ny, nx = groupdq.shape[2:]
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        at = integration[inside], group[inside], y[inside] + dy, x[inside] + dx
        old = groupdq[at]
        groupdq[at] = np.where(old & SATURATED, old, old | JUMP_DET)
