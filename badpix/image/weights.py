"""Drizzle weights, and which pixels of a mosaic have too little of them.

1. Weights: inverse read-noise variance or exposure time, zero on pixels that DQ rules out
   (:func:`measure_weight`).
2. Weight mask: grid pixels below ``maskpt`` times the clipped mean weight are no data
   (:func:`find_low_weight`).
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq as flags
from badpix.errors import UsageError

# Standard deviations: below the first and above the last are the tails, between the inner two the middle.
TAIL_CUTS = (-2.0, -0.1, 0.1, 2.0)


def parse_good_bits(text: str | int | None) -> int:
    """The bits that make a pixel *bad*, from the documented forms of ``good_bits``.

    ``"~DO_NOT_USE"``: only DO_NOT_USE is bad; ``"HOT+4"`` (also ``,`` and ``|``): all but these; 0: every bit;
    None or an empty text: no bit.

    Raises
    ------
    UsageError
        At an unknown flag.
    """
    if text is None or str(text).strip().upper() in ("", "NONE", "INDEF"):
        return 0
    body = str(text).strip()
    inverted = body.startswith("~")
    body = body.lstrip("~").strip().removeprefix("(").removesuffix(")")
    good = 0
    for word in re.split(r"[+,|]", body):
        word = word.strip().upper()
        if word in flags.VALUE:
            good |= flags.VALUE[word]
        elif word.isdigit():
            good |= int(word)
        else:
            raise UsageError(f"image.good_bits: unknown flag {word!r}{flags.suggest(word)}")
    everything = 0xFFFFFFFF
    return good & everything if inverted else everything & ~good


def measure_weight(
    dq: NDArray[Any] | None,
    var_rnoise: NDArray[Any] | None,
    *,
    shape: tuple[int, int],
    weight_type: str,
    bad_bits: int,
    exposure_time: float,
) -> NDArray[Any]:
    """Drizzle weight of every pixel, float32 (ny, nx): 1/VAR_RNOISE or the exposure time, 0 = not used.

    A missing VAR_RNOISE means weight 1. NaN in SCI is no reason for weight 0 by the documentation.
    """
    if weight_type == "ivm" and var_rnoise is not None and var_rnoise.shape == shape:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weight = np.divide(np.float32(1), var_rnoise, dtype=np.float32)
        weight[~np.isfinite(weight)] = 0
    else:
        weight = np.full(shape, 1 if weight_type == "ivm" else exposure_time, dtype=np.float32)
    if dq is not None and bad_bits:
        weight[(dq & np.uint32(bad_bits)) != 0] = 0
    found: NDArray[Any] = weight
    return found


def measure_weight_limit(weight: NDArray[Any], *, maskpt: float) -> float:
    """``maskpt`` times the 3-sigma clipped mean of the finite weights that are not zero; NaN if there are none."""
    values = weight[np.isfinite(weight) & (weight != 0)]
    return maskpt * clipped_mean(values, sigma=3.0, rounds=5)


def clipped_mean(values: NDArray[Any], *, sigma: float, rounds: int) -> float:
    """Mean after ``rounds`` of clipping about the median at ``sigma`` standard deviations.

    In the type of the input (a mosaic's weights in float64 would double the memory of a run). Only the tails are
    sorted, and the values about the median: clipping takes from the tails, and moves the median by little. Where
    that is not so, all values are sorted.
    """
    if values.size > 1000:
        found = _clipped_mean_by_tails(np.ravel(values), sigma, rounds)
        if found is not None:
            return found
    return _clipped_mean_of_sorted(np.sort(values, axis=None), sigma, rounds)


def _clipped_mean_of_sorted(values: NDArray[Any], sigma: float, rounds: int) -> float:
    for _ in range(rounds):
        n = values.size
        if not n:
            return math.nan
        center = (float(values[(n - 1) // 2]) + float(values[n // 2])) / 2
        reach = sigma * math.sqrt(_variance(values))
        low = np.searchsorted(values, values.dtype.type(center - reach), "left")
        high = np.searchsorted(values, values.dtype.type(center + reach), "right")
        if low == 0 and high == n:
            break
        values = values[low:high]
    return float(values.mean(dtype=float)) if values.size else math.nan


def _clipped_mean_by_tails(values: NDArray[Any], sigma: float, rounds: int) -> float | None:
    """The same from the sorted tails and the middle; None where clipping goes further than these."""
    sample = values[:: max(1, values.size // 50_000)]  # only tells where to cut
    first, spread = float(np.median(sample)), math.sqrt(_variance(sample))
    cuts = [values.dtype.type(first + f * spread) for f in TAIL_CUTS]
    start = np.count_nonzero(values < cuts[1])
    middle = np.sort(values[(values >= cuts[1]) & (values <= cuts[2])])
    lower, upper = np.sort(values[values < cuts[0]]), np.sort(values[values > cuts[3]])
    core = values[(values >= cuts[0]) & (values <= cuts[3])]  # in the order of the input, as the sums are then
    inner = core.mean(dtype=float), _variance(core), core.size
    below, above = 0, upper.size
    for _ in range(rounds):
        tails = np.concatenate([lower[below:], upper[:above]]).astype(float)
        count = inner[2] + tails.size
        mean, variance = _join_moments(inner, tails)
        at = [below + (count - 1) // 2 - start, below + count // 2 - start]
        if at[0] < 0 or at[1] >= middle.size:
            return None
        center = (float(middle[at[0]]) + float(middle[at[1]])) / 2
        reach = sigma * math.sqrt(variance)
        bounds = values.dtype.type(center - reach), values.dtype.type(center + reach)
        if not (bounds[0] <= cuts[0] and bounds[1] >= cuts[3]):
            return None
        before = below, above
        below = max(below, int(np.searchsorted(lower, bounds[0], "left")))
        above = min(above, int(np.searchsorted(upper, bounds[1], "right")))
        if (below, above) == before:
            return mean
    return _join_moments(inner, np.concatenate([lower[below:], upper[:above]]).astype(float))[0]


def _join_moments(inner: tuple[float, float, int], more: NDArray[Any]) -> tuple[float, float]:
    """Mean and variance of a set with known mean, variance and number, and of more values."""
    mean, variance, number = inner
    total = number + more.size
    joint = mean + float((more - mean).sum()) / total
    spread = number * (variance + (mean - joint) ** 2) + float(((more - joint) ** 2).sum())
    return joint, spread / total


def _variance(values: NDArray[Any], block: int = 1 << 14) -> float:
    mean = values.mean(dtype=float)
    total = 0.0
    part = np.empty(block)
    for i in range(0, values.size, block):
        n = min(block, values.size - i)
        np.subtract(values[i : i + n], mean, out=part[:n])
        np.multiply(part[:n], part[:n], out=part[:n])
        total += float(part[:n].sum())
    return total / values.size


def find_low_weight(weight: NDArray[Any], *, maskpt: float) -> NDArray[Any]:
    """Grid pixels whose weight is strictly below the limit (bool); none if all weights are zero."""
    with np.errstate(invalid="ignore"):
        return weight < np.float32(measure_weight_limit(weight, maskpt=maskpt))
