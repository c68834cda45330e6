"""Which pixels of a flat can be judged, and why the others can't.

1. *Saturated* and *no slope*: pixels without a rate in any flat; DQ tells which.
2. *Unlit*: the light there is not above its noise by :data:`SEEN`, or nothing tells what it is.
3. *Dim*: less than `min_light` (0.1) of the bright light (its 95th percentile where it is dispersed), too little
   for its noise to tell a dead pixel (:data:`TELLS`), or a gap beside light (less than :data:`GAP` of it), which
   spreads there by ways of its own. In an imager less than `min_light` of the median.
4. *Lit*: all others. They alone get a normalized rate and a type; the rest is undetermined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.flats.dispersed import measure_bright
from badpix.flats.lines import HALF
from badpix.io.exposure import Exposure
from badpix.io.fits import read_band
from badpix.numerics.clipping import median_mad, thin
from badpix.numerics.neighbors import locate
from badpix.numerics.smoothing import blocks

REFERENCE, LIT, DIM, UNLIT, SATURATED, NO_SLOPE = range(6)  # values of the state of a pixel
NAMES = {UNLIT: "unlit", DIM: "dim", SATURATED: "saturated", NO_SLOPE: "no slope"}
REASONS = {
    DIM: "the flats give it too little light (dim)",
    UNLIT: "no light falls on it in the flats (unlit)",
    SATURATED: "it is saturated in the flats",
    NO_SLOPE: "the flats have no slope of it",
}
SEEN = 5.0  # standard deviations of the noise above zero: less light than that is none
NONE = 0.01  # of the typical light: less is none, in an imager
TELLS = 12.0  # standard deviations: the noise of a dead pixel stays below max_low_qe_norm_signal
MARGIN = 0.8  # of `min_light`: what is as bright as that within the error of its light is judged
GAP = 0.03  # of the brightest light across
FAINT = 0.05  # of the bright light: pixels below it show the noise
ASKED = 3  # flats that are asked for SATURATED

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]
State = NDArray[np.uint8]


def find_state(mean: Float, light: Float, min_light: float, axis: int = 0) -> State:
    """State of the pixels of a dispersed flat by the light they get; those without a rate are NO_SLOPE.

    Parameters
    ----------
    mean, light : ndarray
        (ny, nx) mean rate and what the pixels should see, DN/s; NaN where not measured.
    min_light : float
        Part of the bright light below which a pixel is dim; :data:`MARGIN` of it is left to the error of the light.
    axis : int
        Axis along which the light is dispersed.
    """
    from scipy.ndimage import maximum_filter1d

    bright = measure_bright(light)
    peak = maximum_filter1d(np.nan_to_num(light), 2 * HALF + 1, axis=1 - axis, mode="nearest")
    with np.errstate(invalid="ignore"):
        faint = light < FAINT * bright
        noise = median_mad(mean[faint])[1] if faint.sum() > 100 else 0.0
        noise = noise if np.isfinite(noise) else 0.0
        state = np.full(mean.shape, UNLIT, np.uint8)
        state[light > SEEN * noise] = DIM
        state[(light >= MARGIN * min_light * bright) & (light > TELLS * noise) & (light >= GAP * peak)] = LIT
    state[~np.isfinite(mean)] = NO_SLOPE
    return state


def find_state_by_rate(mean: Float, norm: Float) -> State:
    """State where all light counts: a rate without a normalized rate is UNLIT, no rate NO_SLOPE."""
    state = np.full(mean.shape, LIT, np.uint8)
    state[~np.isfinite(norm)] = UNLIT
    state[~np.isfinite(mean)] = NO_SLOPE
    return state


def mark_dim(mean: Float, norm: NDArray[np.float32], state: State, min_light: float) -> None:
    """Turn LIT into DIM, or UNLIT, where an imager's light is too little, in place: no rate of it is normalized.

    Parameters
    ----------
    mean, norm : ndarray
        (ny, nx) mean and normalized rate: their ratio is the light.
    state : ndarray of uint8
        (ny, nx) from :func:`find_state_by_rate`.
    min_light : float
        Part of the typical light below which a pixel is dim.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        some = thin(mean) / thin(norm)
        typical = float(np.median(some[np.isfinite(some)])) if np.isfinite(some).any() else 0.0
        for rows in blocks(len(mean)):
            light = mean[rows] / norm[rows]
            dim = light < min_light * typical
            if dim.any():
                state[rows][dim] = np.where(light[dim] < NONE * typical, UNLIT, DIM)
                norm[rows][dim] = np.nan


def mark_saturated(state: State, rates: Sequence[Exposure]) -> None:
    """Turn NO_SLOPE into SATURATED, in place, where the DQ of most of the first flats says so."""
    y, x = locate(state == NO_SLOPE)
    asked = [rate["DQ"] for rate in rates[:ASKED] if "DQ" in rate.arrays]
    if not y.size or not asked:
        return
    for start in range(int(y[0]), int(y[-1]) + 1, 64):
        stop = min(start + 64, int(y[-1]) + 1)
        here = slice(*np.searchsorted(y, (start, stop)))
        if here.start == here.stop:
            continue
        votes = np.zeros(here.stop - here.start, np.int64)
        for layout in asked:
            flags = read_band(layout, start, stop, planes=[0])[0][y[here] - start, x[here]]
            votes += np.where(flags & np.uint32(dq.VALUE["SATURATED"]) != 0, 1, -1)
        state[y[here], x[here]] = np.where(votes > 0, SATURATED, NO_SLOPE)


def count_states(state: State) -> dict[str, int]:
    """Science pixels by what could be said of them: all, judged, and the reasons of the others."""
    numbers = np.zeros(len(NAMES) + 2, np.int64)
    for rows in blocks(len(state)):  # bincount makes eight bytes of each
        numbers += np.bincount(state[rows].ravel(), minlength=len(numbers))
    counts = {"science": int(numbers[1:].sum()), "judged": int(numbers[LIT])}
    return counts | {name: int(numbers[value]) for value, name in NAMES.items()}


def judged_percent(counts: dict[str, int]) -> float:
    """Share of the science pixels that could be judged, percent."""
    return 100 * counts["judged"] / max(counts["science"], 1)


def headline(counts: dict[str, int]) -> str:
    """One line: which share was judged, and why the rest was not."""
    rest = ", ".join(f"{counts[name]:,} {name}" for name in NAMES.values() if counts[name])
    share = judged_percent(counts)
    text = f"judged {share:.4g} % of {counts['science']:,} science pixels"
    return f"{text}; undetermined: {rest}" if rest else text
