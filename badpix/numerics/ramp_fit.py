"""Slopes of ramps, as the pipeline's ramp fit gives them: kernels of the quick reduction, arrays only.

1. A ramp is cut into segments at its jumps; saturated groups are left out.
2. Each segment gets a least-squares line with the weights of its signal-to-noise class (Fixsen et al. 2000).
3. Variances: Poisson from the median rate of the unflagged differences, over all integrations; read noise from the
   length of the segment. Segments are combined by their read-noise variance alone, as the pipeline does.
4. Pedestal: first group minus the rate in DN/s times the first group's mean time in groups. The pipeline mixes these
   units, so that the first group's own signal stays in; so does this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

DO_NOT_USE, SATURATED, JUMP_DET = 1, 2, 4
SEGMENTS = 2  # segments that are kept (the real file keeps as many as the most broken ramp has)
SEGMENT_PRODUCTS = ("SLOPE", "SIGSLOPE", "VAR_POISSON", "VAR_RNOISE", "YINT", "SIGYINT", "WEIGHTS", "CRMAG")
POWERS = ((5.0, 0.0), (10.0, 0.4), (20.0, 1.0), (50.0, 3.0), (100.0, 6.0), (np.inf, 10.0))
"""Upper limit of signal to noise -> power of the weights."""


@dataclass(frozen=True)
class Constants:
    """What the fit needs to know of detector and readout."""

    gain: float  # e/DN
    group_time: float  # s
    first_group: float  # mean time of the first group since reset, in groups


@dataclass(frozen=True)
class Fit:
    """One integration; all (ny, nx) unless said otherwise. Rates in DN/s."""

    rate: Float
    var_poisson: Float
    var_rnoise: Float
    dq: NDArray[np.uint32]  # JUMP_DET, SATURATED, DO_NOT_USE
    pedestal: Float  # DN
    segments: dict[str, Float]  # SLOPE, SIGSLOPE, ... -> (SEGMENTS, ny, nx)


def mean_first_group(frames: int, skipped: int) -> float:
    """Mean time since reset of the frames averaged to the first group, in group times; ``skipped``: GROUPGAP."""
    return (frames + 1) / 2 / (frames + skipped)


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


def measure_typical(ramp: Float, groupdq: NDArray[np.uint8], constants: Constants) -> Float:
    """Median rate of the unflagged differences, averaged over integrations, 0 at least; DN/s (ny, nx).

    Parameters
    ----------
    ramp, groupdq : arrays (nints, ngroups, ny, nx)
        DN and flags of the groups that are fitted.
    """
    total = np.zeros(ramp.shape[2:], np.float32)
    for y, flags in zip(ramp, groupdq, strict=True):
        median = np.median(y[1:] - y[:-1], axis=0)
        ys, xs = np.nonzero(np.bitwise_or.reduce(flags, axis=0) & (SATURATED | JUMP_DET))
        usable = (flags[:, ys, xs] & (SATURATED | JUMP_DET)) == 0
        median[ys, xs] = median_step(np.diff(y[:, ys, xs], axis=0, prepend=0), usable)
        total += median
    found: Float = np.maximum(total / np.float32(len(ramp) * constants.group_time), 0)
    return found


def fit_ramps(
    ramp: Float, groupdq: NDArray[np.uint8], use: slice, typical: Float, noise: Float, constants: Constants
) -> Fit:
    """Fit one integration: unflagged ramps as whole planes, the others segment by segment.

    Parameters
    ----------
    ramp, groupdq : arrays (ngroups, ny, nx)
        DN and flags.
    use : slice
        Groups that are fitted.
    typical, noise : float arrays (ny, nx)
        Rate for the Poisson variance (DN/s) and read noise of one group (DN).
    constants : Constants
        Gain and times.
    """
    gain, group_time = constants.gain, constants.group_time
    y, flags = ramp[use], groupdq[use]
    n, shape = len(y), y.shape[1:]
    slope = fit_whole(y, noise, gain)
    segments = {k: np.zeros((SEGMENTS, *shape), np.float32) for k in SEGMENT_PRODUCTS}
    var_r = noise**2 * np.float32(12 / (n**3 - n) / group_time**2)
    rate = slope / np.float32(group_time)
    var_p = typical / np.float32(gain * group_time * (n - 1))
    center = y.mean(axis=0)
    write_segment(segments, 0, (slice(None), slice(None)), rate, var_p, var_r, center, (n - 1) / 2, group_time)
    any_flag = np.bitwise_or.reduce(flags, axis=0)
    ys, xs = np.nonzero(any_flag & (SATURATED | JUMP_DET))
    pieces = fit_pieces(y[:, ys, xs], flags[:, ys, xs], typical[ys, xs], noise[ys, xs], constants)
    rate[ys, xs], var_p[ys, xs], var_r[ys, xs] = pieces["rate"], pieces["var_p"], pieces["var_r"]
    for name in SEGMENT_PRODUCTS:
        segments[name][:, ys, xs] = pieces[name]
    dq = (any_flag & (SATURATED | JUMP_DET)).astype(np.uint32)
    none_left = (flags & (SATURATED | DO_NOT_USE)).all(axis=0)
    dq[none_left] |= DO_NOT_USE
    # As the pipeline computes it: the rate in DN/s times a part of a group, so the first group's signal stays in.
    pedestal = ramp[0] - rate * np.float32(constants.first_group)
    pedestal[none_left | ~np.isfinite(pedestal)] = 0
    return Fit(rate, var_p, var_r, dq, pedestal, segments)


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


def write_segment(
    segments: dict[str, Float],
    number: int,
    at: tuple[slice | NDArray[np.intp], ...],
    rate: Float,
    var_p: Float,
    var_r: Float,
    center: Float,
    middle: Float | float,
    group_time: float,
) -> None:
    """Fill one segment of the optional products, in place."""
    where = (number, *at)
    segments["SLOPE"][where] = rate
    segments["SIGSLOPE"][where] = np.sqrt(var_p + var_r)
    segments["VAR_POISSON"][where] = var_p
    segments["VAR_RNOISE"][where] = var_r
    segments["YINT"][where] = center - rate * np.float32(group_time) * np.float32(middle)
    segments["SIGYINT"][where] = np.sqrt(var_p + var_r) * np.float32(group_time) * np.float32(middle)
    segments["WEIGHTS"][where] = 1 / (var_p + var_r) ** 2


def fit_pieces(
    y: Float, flags: NDArray[np.uint8], typical: Float, noise: Float, constants: Constants
) -> dict[str, Float]:
    """Fit the segments between jumps of flagged ramps (ngroups, pixels), and combine them by read-noise variance."""
    gain, group_time, pixels = constants.gain, constants.group_time, y.shape[1]
    good = (flags & SATURATED) == 0
    jump = (flags & JUMP_DET) != 0
    which = np.cumsum(jump, axis=0)
    out = {k: np.zeros((SEGMENTS, pixels), np.float32) for k in SEGMENT_PRODUCTS}
    steps = np.diff(y, axis=0, prepend=y[:1])
    sums = np.zeros((2, pixels))  # of weights, of weighted slopes
    inverse_p = np.zeros(pixels)
    kept = np.zeros(pixels, np.intp)
    for s in range(int(which.max(initial=0)) + 1):
        at = np.nonzero((which[-1] >= s) & ((which == s) & good).any(axis=0))[0]
        member = (which[:, at] == s) & good[:, at]
        length = member.sum(axis=0)
        at, member, length = at[length > 1], member[:, length > 1], length[length > 1]
        if not len(at):
            continue
        rate, center, middle = fit_segment(y[:, at], member, noise[at], gain, group_time)
        var_r = (12 * noise[at] ** 2 / (length.astype(float) ** 3 - length) / group_time**2).astype(np.float32)
        var_p = (typical[at] / (gain * group_time * (length - 1))).astype(np.float32)
        weight = 1.0 / var_r
        sums[:, at] += weight, weight * rate
        inverse_p[at] += gain * group_time * (length - 1)
        store = kept[at] < SEGMENTS
        spot = (kept[at][store], at[store])
        write_piece(out, spot, rate[store], var_p[store], var_r[store], center[store], middle[store], group_time)
        kept[at] += 1
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing to fit: NaN
        rate = np.where(sums[0] > 0, sums[1] / sums[0], np.nan)
        var_r = np.where(sums[0] > 0, 1 / sums[0], 0)
        var_p = np.where(sums[0] > 0, typical / inverse_p, 0)
    number = np.minimum(np.cumsum(jump, axis=0) - 1, SEGMENTS)
    g, pixel = np.nonzero(jump & (number < SEGMENTS))
    out["CRMAG"][number[g, pixel], pixel] = steps[g, pixel]
    out.update(rate=rate.astype(np.float32), var_p=var_p.astype(np.float32), var_r=var_r.astype(np.float32))
    return out


def write_piece(
    out: dict[str, Float],
    spot: tuple[NDArray[np.intp], NDArray[np.intp]],
    rate: Float,
    var_p: Float,
    var_r: Float,
    center: Float,
    middle: Float,
    group_time: float,
) -> None:
    """As :func:`write_segment`, each pixel into its own segment number."""
    out["SLOPE"][spot], out["SIGSLOPE"][spot] = rate, np.sqrt(var_p + var_r)
    out["VAR_POISSON"][spot], out["VAR_RNOISE"][spot] = var_p, var_r
    out["YINT"][spot] = center - rate * group_time * middle
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
    center = value.sum(axis=0) / length
    return (
        (slope / group_time).astype(np.float32),
        center.astype(np.float32),
        middle.astype(np.float32),
    )
