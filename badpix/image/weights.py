"""Drizzle weights, and which pixels of a mosaic have too little of them.

1. Weights: inverse read-noise variance or exposure time, zero on pixels that DQ rules out
   (:func:`measure_weight`).
2. Weight mask: grid pixels below ``maskpt`` times the clipped mean weight are no data
   (:func:`find_low_weight`).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq as flags
from badpix.errors import UsageError
from badpix.numerics import clipping


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
    return maskpt * clipping.clip_values(weight, sigma=3.0, iterations=5, where=weight != 0)[0]


def find_low_weight(weight: NDArray[Any], *, maskpt: float) -> NDArray[Any]:
    """Grid pixels whose weight is strictly below the limit (bool); none if all weights are zero."""
    with np.errstate(invalid="ignore"):
        return weight < np.float32(measure_weight_limit(weight, maskpt=maskpt))
