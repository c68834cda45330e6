"""What the values of an exposure tell: levels before and after a step, odd and even pixels, bands, linearity.

1. superbias, refpix, dark_current: level and spread of the first group before and after; the difference of odd and
   even pixels along the fast axis; the spread of the lines of g2 - 2 g1 + g0 (over sqrt 3, so that it counts as one
   difference of two groups), in which fixed pattern and light cancel and the bands of the 1/f noise are left.
2. linearity: the correction by signal, over pixels that are not saturated.

Levels are medians, spreads half the range of the middle 68.3 %: hot pixels and hits don't count.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io.exposure import Exposure
from badpix.prepare.products import read_plane, split_name

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

SIGNAL_BINS = (0, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 65_536)  # DN above the bias


def describe_step(
    before: Exposure, after: Exposure, science: Bool, fast_axis: int, integration: int
) -> dict[str, Any]:
    """Level, spread, odd-even difference and banding before and after a step, in DN."""
    numbers: dict[str, Any] = {"compared with": split_name(before.path)[1]}
    for word, exposure in (("before", before), ("after", after)):
        first = read_plane(exposure, "SCI", integration, 0)
        level, spread = level_and_spread(first[science])
        numbers[f"level {word}, DN"] = level
        numbers[f"spread {word}, DN"] = spread
        numbers[f"odd-even {word}, DN"] = measure_odd_even(first, science, fast_axis)
        if exposure["SCI"].shape[1] > 2:
            second, third = (read_plane(exposure, "SCI", integration, g) for g in (1, 2))
            bend = (third - 2 * second + first) / np.float32(3**0.5)
            numbers[f"banding {word}, DN"] = measure_banding(bend, science, fast_axis)
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in numbers.items()}


def level_and_spread(values: Float) -> tuple[float, float]:
    """Median, and half the range of the middle 68.3 %; NaN where nothing is measured."""
    good = values[np.isfinite(values)]
    if not good.size:
        return float("nan"), float("nan")
    low, middle, high = np.percentile(good, (15.87, 50, 84.13))
    return float(middle), float(high - low) / 2


def measure_odd_even(image: Float, science: Bool, fast_axis: int) -> float:
    """Median of the even pixels along the fast axis minus that of the odd ones, DN."""
    even = (slice(None), slice(None, None, 2)) if fast_axis == 1 else (slice(None, None, 2), slice(None))
    odd = (slice(None), slice(1, None, 2)) if fast_axis == 1 else (slice(1, None, 2), slice(None))
    return level_and_spread(image[even][science[even]])[0] - level_and_spread(image[odd][science[odd]])[0]


def measure_banding(bend: Float, science: Bool, fast_axis: int) -> float:
    """Spread of the medians of the lines along the fast axis, DN."""
    kept = np.where(science, bend, np.nan)
    lines = kept if fast_axis == 1 else kept.T
    lines = lines[np.isfinite(lines).any(axis=1)]
    if not lines.size:
        return float("nan")
    return level_and_spread(np.nanmedian(lines, axis=1))[1]


def measure_correction(before: Exposure, after: Exposure, science: Bool, integration: int) -> dict[str, Any]:
    """Median correction by signal in the last group, over science pixels that are not saturated there."""
    signal = read_plane(before, "SCI", integration, -1)
    change = read_plane(after, "SCI", integration, -1) - signal
    good = science & np.isfinite(change)
    if "GROUPDQ" in after.arrays:
        good &= (read_plane(after, "GROUPDQ", integration, -1) & dq.VALUE["SATURATED"]) == 0
    rows = {}
    for low, high in pairwise(SIGNAL_BINS):
        here = good & (signal >= low) & (signal < high)
        if here.any():
            rows[f"{low} to {high} DN"] = {
                "pixels": int(here.sum()),
                "correction, DN": round(float(np.median(change[here])), 3),
            }
    return {
        "compared with": split_name(before.path)[1],
        "pixels changed": int(np.count_nonzero(change[good])),
        "by signal": rows,
    }
