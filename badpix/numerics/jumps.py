"""Jumps between groups by two-point differences, as the pipeline's jump step finds them: kernels, arrays only.

The step between two groups is compared with the median of all usable steps of the pixel, over all integrations of the
exposure, in units of the noise that the read noise and the median's own charge make (Anderson & Gordon 2011; jump
step of jwst, method of ten and more differences).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

FEWEST = 3  # usable differences that a median needs


def measure_jumps(steps: Float, usable: Bool, noise: Float, gain: float) -> tuple[Float, Bool]:
    """Steps over their noise.

    Parameters
    ----------
    steps : ndarray
        (differences, pixels) DN between neighboring groups, of all integrations.
    usable : ndarray
        (differences, pixels) False where a group is saturated or not used.
    noise : ndarray
        (pixels,) read noise of one group, DN.
    gain : float
        e/DN.

    Returns
    -------
    ratio : ndarray
        (differences, pixels) distance from the median in sigma.
    known : ndarray
        (differences, pixels) whether it counts: usable, beside enough others.
    """
    number = usable.sum(axis=0)
    ordered = np.sort(np.where(usable, steps, np.float32(np.inf)), axis=0)
    k, here = np.maximum(number, 1), np.arange(steps.shape[1])
    with np.errstate(invalid="ignore"):  # inf - inf where nothing is usable
        median = (ordered[(k - 1) // 2, here] + ordered[k // 2, here]) / 2
        ratio = np.abs(steps - median) / np.sqrt(2 * noise**2 + np.abs(median) / np.float32(gain))
    return ratio.astype(np.float32, copy=False), usable & (number >= FEWEST)
