"""A quick reduction of simulated ramps, in the steps and with the products of the pipeline's first stage.

1. Saturation: groups at or above the pixel's limit, and the same groups of the 8 neighbours, are SATURATED.
2. Superbias and reference pixels: offsets of each amplifier and group from the reference rows, the rest of the
   1/f noise from the reference columns, smoothed; MIRI: the change of each output since its first group.
3. Jumps: two-point differences against their median, 4 sigma; strong ones flag the 4 neighbours as well.
4. Slopes: least squares per segment between jumps, weighted by signal to noise as the pipeline does (Fixsen et al.
   2000), segments combined by variance; variances, intercepts, pedestal.

It stands in for the real steps where speed matters (demo, tests); ``docs/simulation.md`` says how well it agrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from badpix.detectors import Detector
from badpix.simulate import Exposure, Scene, measure_drift, ramp_rows
from badpix.simulate_recipe import Recipe

Float = NDArray[np.float32]

DO_NOT_USE, SATURATED, JUMP_DET = 1, 2, 4
JUMP_SIGMA = 4.0
NEIGHBOUR_SIGMA = (10.0, 1000.0)  # jumps between these flag the 4 side neighbours
SEGMENTS = 2  # segments that fitopt keeps (the real one keeps as many as the most broken ramp has)
HALO = 2  # rows that saturation's growth and jump neighbours reach beyond a band
POWERS = ((5.0, 0.0), (10.0, 0.4), (20.0, 1.0), (50.0, 3.0), (100.0, 6.0), (np.inf, 10.0))


@dataclass(frozen=True)
class Reduced:
    """One integration of a band of rows. Rates in DN/s, ramps in DN."""

    raw: NDArray[np.uint16]  # (ngroups, rows, nx)
    ramp: Float  # (ngroups, rows, nx)
    groupdq: NDArray[np.uint8]  # (ngroups, rows, nx)
    rate: Float  # (rows, nx)
    var_poisson: Float  # (rows, nx)
    var_rnoise: Float  # (rows, nx)
    dq: NDArray[np.uint32]  # (rows, nx): JUMP_DET, SATURATED, DO_NOT_USE
    pedestal: Float  # (rows, nx)
    segments: dict[str, Float]  # SLOPE, SIGSLOPE, ... -> (SEGMENTS, rows, nx)


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
    return mean.astype(np.float32)


def reduce_rows(scene: Scene, exposure: Exposure, offsets: Float, integration: int, first: int, last: int) -> Reduced:
    """Raw and reduced ramps of rows ``first`` to ``last`` (exclusive) of one integration."""
    recipe = scene.recipe
    low, high = max(first - HALO, 0), min(last + HALO, recipe.shape[0])
    raw = ramp_rows(scene, exposure, integration, low, high)
    ramp = raw.astype(np.float32)
    ramp -= measure_drift(scene, offsets[integration], low, high)
    if recipe.detector.instrument != "MIRI":
        ramp -= scene.superbias[low:high]
    use = usable_groups(recipe, exposure.kind)
    groupdq = np.zeros(raw.shape, np.uint8)
    mark_saturated(groupdq, raw, measure_saturation(scene)[low:high])
    if use.start:  # as the pipeline: the first group stays where the ramp is soon saturated
        groupdq[0] |= np.where(groupdq[2] & SATURATED, np.uint8(0), np.uint8(DO_NOT_USE))
        groupdq[-1] |= DO_NOT_USE
    gain, noise = recipe.physics.gain, scene.known_noise[low:high]
    mark_jumps(groupdq[use], ramp[use], noise, gain)
    rows = slice(first - low, last - low)
    raw, ramp, groupdq, noise = raw[:, rows], ramp[:, rows], groupdq[:, rows], noise[rows]
    return fit_ramps(raw, ramp, groupdq, use, noise, gain, recipe.group_time, pedestal_part(recipe))


def pedestal_part(recipe: Recipe) -> float:
    """Mean time of the first group since reset, in group times."""
    averaged, skipped = recipe.frames
    return (averaged + 1) / 2 / (averaged + skipped)


def mark_saturated(groupdq: NDArray[np.uint8], raw: NDArray[np.uint16], limit: Float) -> None:
    """Flag groups at or above the limit and their 8 neighbours, in place."""
    whole = np.ceil(np.clip(limit, 0, 65535)).astype(np.uint16)
    g, y, x = np.nonzero(raw >= whole)
    ny, nx = raw.shape[1:]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
            groupdq[g[inside], y[inside] + dy, x[inside] + dx] |= SATURATED


def mark_jumps(groupdq: NDArray[np.uint8], ramp: Float, noise: Float, gain: float) -> None:
    """Flag jumps, in place: differences off their median by more than 4 sigma, and strong jumps' side neighbours."""
    steps = ramp[1:] - ramp[:-1]
    mean = (ramp[-1] - ramp[0]) / np.float32(len(steps))
    sigma = np.sqrt(2 * noise**2 + np.maximum(mean, 0) / gain, dtype=np.float32)
    saturated = (groupdq[-1] & SATURATED) != 0
    far = np.maximum(steps.max(axis=0) - mean, mean - steps.min(axis=0))
    y, x = np.nonzero((far > 0.75 * JUMP_SIGMA * sigma) | saturated)
    steps, noise = steps[:, y, x], noise[y, x]
    usable = (groupdq[1:, y, x] & SATURATED) == 0
    number = usable.sum(axis=0)
    ordered = np.sort(np.where(usable, steps, np.float32(np.inf)), axis=0)
    k, here = np.maximum(number, 1), np.arange(len(y))
    with np.errstate(invalid="ignore"):  # inf - inf where nothing is usable
        median = (ordered[(k - 1) // 2, here] + ordered[k // 2, here]) / 2
        ratio = np.abs(steps - median) / np.sqrt(2 * noise**2 + np.abs(median) / gain)
    jump = usable & (ratio > JUMP_SIGMA) & (number >= 3)
    group, pixel = np.nonzero(jump)
    groupdq[group + 1, y[pixel], x[pixel]] |= JUMP_DET
    strong = (ratio[group, pixel] > NEIGHBOUR_SIGMA[0]) & (ratio[group, pixel] < NEIGHBOUR_SIGMA[1])
    mark_side_neighbours(groupdq, group[strong] + 1, y[pixel[strong]], x[pixel[strong]])


def mark_side_neighbours(
    groupdq: NDArray[np.uint8], group: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]
) -> None:
    """Flag the 4 side neighbours of jumps, in place, where they are not saturated."""
    ny, nx = groupdq.shape[1:]
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        at = group[inside], y[inside] + dy, x[inside] + dx
        old = groupdq[at]
        groupdq[at] = np.where(old & SATURATED, old, old | JUMP_DET)


def snr_class(signal: Float, noise: Float, gain: float) -> NDArray[np.intp]:
    """Index into :data:`POWERS` of ramps that rise by ``signal`` DN, as the pipeline classes them."""
    charge = np.maximum(signal, 0) * gain
    snr = charge / np.sqrt((noise * gain) ** 2 + charge)
    return np.digitize(snr, [limit for limit, _ in POWERS[:-1]])


def slope_weights(ngroups: int, power: float) -> Float:
    """Coefficients of the weighted least-squares slope of a whole ramp, per group."""
    x = np.arange(ngroups) - (ngroups - 1) / 2
    weight = np.abs(x / max(x[-1], 0.5)) ** power
    return np.asarray(weight * x / np.sum(weight * x * x), dtype=np.float32)


def fit_ramps(
    raw: NDArray[np.uint16], ramp: Float, groupdq: NDArray[np.uint8], use: slice, noise: Float, gain: float,
    group_time: float, pedestal_part: float,
) -> Reduced:  # fmt: skip
    """Fit slopes: unflagged ramps as whole planes, the others segment by segment."""
    y, flags = ramp[use], groupdq[use]
    n, shape = len(y), y.shape[1:]
    slope = fit_whole(y, noise, gain)
    segments = {k: np.zeros((SEGMENTS, *shape), np.float32) for k in SEGMENT_PRODUCTS}
    var_r = noise**2 * np.float32(12 / (n**3 - n) / group_time**2)
    rate = slope / np.float32(group_time)
    typical = np.median(y[1:] - y[:-1], axis=0) / np.float32(group_time)
    var_p = np.maximum(typical, 0) / np.float32(gain * group_time * (n - 1))
    centre = y.mean(axis=0)
    write_segment(segments, 0, (slice(None), slice(None)), rate, var_p, var_r, centre, (n - 1) / 2, group_time)
    any_flag = np.bitwise_or.reduce(flags, axis=0)
    ys, xs = np.nonzero(any_flag & (SATURATED | JUMP_DET))
    pieces = fit_pieces(y[:, ys, xs], flags[:, ys, xs], noise[ys, xs], gain, group_time)
    rate[ys, xs], var_p[ys, xs], var_r[ys, xs] = pieces["rate"], pieces["var_p"], pieces["var_r"]
    for name in SEGMENT_PRODUCTS:
        segments[name][:, ys, xs] = pieces[name]
    dq = (any_flag & (SATURATED | JUMP_DET)).astype(np.uint32)
    none_left = (flags & (SATURATED | DO_NOT_USE)).all(axis=0)
    dq[none_left] |= DO_NOT_USE
    # As the pipeline computes it: the rate in DN/s times a part of a group, so the first group's signal stays in.
    pedestal = ramp[0] - rate * np.float32(pedestal_part)
    pedestal[none_left | ~np.isfinite(pedestal)] = 0
    return Reduced(raw, ramp, groupdq, rate, var_p, var_r, dq, pedestal, segments)


def fit_whole(y: Float, noise: Float, gain: float) -> Float:
    """Slope per group of whole ramps (ngroups, rows, nx), each with the weights of its class."""
    classes = snr_class(y[-1] - y[0], noise, gain)
    slope = np.empty(y.shape[1:], np.float32)
    for k in np.unique(classes):
        weights = slope_weights(len(y), POWERS[k][1])
        at = classes == k
        if at.mean() > 0.3:
            whole = np.zeros_like(slope)
            for g, weight in enumerate(weights):
                whole += weight * (y[g] - y[0])
            slope[at] = whole[at]
        else:
            some = y[:, at]
            slope[at] = ((some - some[0]) * weights[:, None]).sum(axis=0)
    return slope


SEGMENT_PRODUCTS = ("SLOPE", "SIGSLOPE", "VAR_POISSON", "VAR_RNOISE", "YINT", "SIGYINT", "WEIGHTS", "CRMAG")


def write_segment(
    segments: dict[str, Float], number: int, at: tuple[slice | NDArray[np.intp], ...], rate: Float, var_p: Float,
    var_r: Float, centre: Float, middle: Float | float, group_time: float,
) -> None:  # fmt: skip
    """Fill one segment of the optional products, in place."""
    where = (number, *at)
    segments["SLOPE"][where] = rate
    segments["SIGSLOPE"][where] = np.sqrt(var_p + var_r)
    segments["VAR_POISSON"][where] = var_p
    segments["VAR_RNOISE"][where] = var_r
    segments["YINT"][where] = centre - rate * np.float32(group_time) * np.float32(middle)
    segments["SIGYINT"][where] = np.sqrt(var_p + var_r) * np.float32(group_time) * np.float32(middle)
    segments["WEIGHTS"][where] = 1 / (var_p + var_r) ** 2


def fit_pieces(y: Float, flags: NDArray[np.uint8], noise: Float, gain: float, group_time: float) -> dict[str, Float]:
    """Fit the segments between jumps of flagged ramps (ngroups, pixels), and combine them by variance."""
    pixels = y.shape[1]
    good = (flags & SATURATED) == 0
    jump = (flags & JUMP_DET) != 0
    which = np.cumsum(jump, axis=0)
    out = {k: np.zeros((SEGMENTS, pixels), np.float32) for k in SEGMENT_PRODUCTS}
    steps = np.diff(y, axis=0, prepend=y[:1])
    guess = median_step(steps, good & ~jump) / group_time
    sums = np.zeros((3, pixels))  # of weights, weighted slopes, inverse read variances
    inverse_p = np.zeros(pixels)
    kept = np.zeros(pixels, np.intp)
    for s in range(int(which.max(initial=0)) + 1):
        at = np.nonzero((which[-1] >= s) & ((which == s) & good).any(axis=0))[0]
        member = (which[:, at] == s) & good[:, at]
        length = member.sum(axis=0)
        at, member, length = at[length > 1], member[:, length > 1], length[length > 1]
        if not len(at):
            continue
        rate, centre, middle = fit_segment(y[:, at], member, noise[at], gain, group_time)
        var_r = (12 * noise[at] ** 2 / (length.astype(float) ** 3 - length) / group_time**2).astype(np.float32)
        var_p = (np.maximum(guess[at], 0) / (gain * group_time * (length - 1))).astype(np.float32)
        weight = 1.0 / (var_r + var_p)
        sums[:, at] += weight, weight * rate, 1 / var_r
        inverse_p[at] += gain * group_time * (length - 1)
        store = kept[at] < SEGMENTS
        spot = (kept[at][store], at[store])
        write_piece(out, spot, rate[store], var_p[store], var_r[store], centre[store], middle[store], group_time)
        kept[at] += 1
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing to fit: NaN
        rate = np.where(sums[0] > 0, sums[1] / sums[0], np.nan)
        var_r = np.where(sums[0] > 0, 1 / sums[2], 0)
        var_p = np.where(sums[0] > 0, np.maximum(guess, 0) / inverse_p, 0)
    number = np.minimum(np.cumsum(jump, axis=0) - 1, SEGMENTS)
    g, pixel = np.nonzero(jump & (number < SEGMENTS))
    out["CRMAG"][number[g, pixel], pixel] = steps[g, pixel]
    out.update(rate=rate.astype(np.float32), var_p=var_p.astype(np.float32), var_r=var_r.astype(np.float32))
    return out


def write_piece(
    out: dict[str, Float], spot: tuple[NDArray[np.intp], NDArray[np.intp]], rate: Float, var_p: Float, var_r: Float,
    centre: Float, middle: Float, group_time: float,
) -> None:  # fmt: skip
    """As :func:`write_segment`, each pixel into its own segment number."""
    out["SLOPE"][spot], out["SIGSLOPE"][spot] = rate, np.sqrt(var_p + var_r)
    out["VAR_POISSON"][spot], out["VAR_RNOISE"][spot] = var_p, var_r
    out["YINT"][spot] = centre - rate * group_time * middle
    out["SIGYINT"][spot] = np.sqrt(var_p + var_r) * group_time * middle
    out["WEIGHTS"][spot] = 1 / (var_p + var_r) ** 2


def median_step(steps: Float, usable: NDArray[np.bool_]) -> Float:
    """Median of the usable steps of each pixel, 0 without any; (ngroups, pixels) -> (pixels,)."""
    usable = usable.copy()
    usable[0] = False
    number = usable.sum(axis=0)
    ordered = np.sort(np.where(usable, steps, np.float32(np.inf)), axis=0)
    here = np.arange(steps.shape[1])
    low, high = ordered[np.maximum(number - 1, 0) // 2, here], ordered[number // 2, here]
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, (low + high) / 2, 0).astype(np.float32)


def fit_segment(
    y: Float, member: NDArray[np.bool_], noise: Float, gain: float, group_time: float
) -> tuple[Float, Float, Float]:
    """Weighted slope (DN/s), mean value and mean group of one segment of each pixel; arrays (ngroups, pixels)."""
    x = np.arange(len(y), dtype=np.float64)[:, None]
    length = member.sum(axis=0)
    start = member.argmax(axis=0)
    here = np.arange(y.shape[1])
    rise = y[start + length - 1, here] - y[start, here]
    power = np.array([p for _, p in POWERS])[snr_class(rise, noise, gain)]
    middle = start + (length - 1) / 2
    with np.errstate(divide="ignore"):  # 0 ** 0 is 1: plain least squares
        weight = np.where(member, np.abs((x - middle) / ((length - 1) / 2)) ** power, 0.0)
    value = np.where(member, y, 0.0)
    total = weight.sum(axis=0)
    mean_x, mean_y = (weight * x).sum(axis=0) / total, (weight * value).sum(axis=0) / total
    dx = x - mean_x
    slope = (weight * dx * (value - mean_y)).sum(axis=0) / (weight * dx * dx).sum(axis=0)
    centre = value.sum(axis=0) / length
    return (
        (slope / group_time).astype(np.float32),
        centre.astype(np.float32),
        middle.astype(np.float32),
    )
