"""Steps down: from which depth on, and in how many integrations, they are no noise.

No particle makes a step down. Read noise does, and its tails differ from detector to detector: so depths follow from
the deepest steps of the population.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DEEP = 8.0  # sigma of a step down that needs no second one, in a pixel that jumps in many integrations
RARE = 2e-6  # fraction of good pixels that steps down may make TELEGRAPH
COMMON, SCARCE = 1e-2, 1e-3  # fractions of pixels between which the tail of the deepest step is measured
DEEPEST = 1e4  # sigma


def choose_depths(
    deepest: NDArray[np.float32], second: NDArray[np.float32], examined: int, groups: int, least: float
) -> tuple[float, float]:
    """Depths (sigma) from which several steps down, and a single one, are no noise: read noise may have tails.

    The first is the smallest from ``least`` on at which good pixels show as many integrations with such a step as
    :func:`drops_needed` asks for less often than :data:`RARE`; the chance of one integration is that of the
    population, by its pixels with just one such step (switching pixels have more). The second follows from how the
    deepest step of these pixels grows from one pixel in a hundred to one in a thousand, carried on to one in 100,000.
    """
    known = np.isfinite(deepest)
    deep, next_deep = -deepest[known], -np.nan_to_num(second[known], nan=0.0)
    if not deep.size:
        return least, DEEP
    n, need = examined, drops_needed(examined, groups, least)
    depth = least
    while depth < DEEPEST:
        chance = 1.5 * float(np.mean((deep >= depth) & (next_deep < depth))) / n
        if chance_of(need, n, chance) < RARE:
            break
        depth += 0.25
    lone = deep[next_deep < depth]
    if not lone.size:
        return depth, DEEP
    common, scarce = np.quantile(lone, [1 - COMMON, 1 - SCARCE])
    return depth, max(DEEP, float(scarce * (scarce / max(common, 1e-3)) ** 2))


def chance_of(least: int, n: int, chance: float) -> float:
    """Chance of ``least`` or more hits in ``n`` tries."""
    return 1 - math.fsum(math.comb(n, k) * chance**k * (1 - chance) ** (n - k) for k in range(least))


def drops_needed(examined: int, groups: int, sigma: float) -> int:
    """Integrations with a step down of ``sigma`` that Gaussian noise shows in less than two of a million pixels.

    At least 2. The chance of one integration is taken three times as high.
    """
    chance = min(1.0, 3 * (groups - 1) * 0.5 * math.erfc(sigma / math.sqrt(2)))
    n = examined
    return next((k for k in range(2, n + 1) if chance_of(k, n, chance) < RARE), n + 1)
