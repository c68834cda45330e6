"""GROUPDQ of dark ramps: the flags that matter, and how many groups have them. Arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.numerics.columns import take_columns

SATURATED = np.uint8(dq.VALUE["SATURATED"])
DO_NOT_USE = np.uint8(dq.VALUE["DO_NOT_USE"])
JUMP_DET = np.uint8(dq.VALUE["JUMP_DET"])
UNUSABLE = SATURATED | DO_NOT_USE

Counted = tuple[NDArray[np.uint16], NDArray[np.intp], NDArray[np.intp]]


def clear_masked(flags: NDArray[np.uint8], held: NDArray[np.intp]) -> NDArray[np.intp]:
    """Take DO_NOT_USE off those of the ``held`` pixels of (G, pixels) flags that have it in every group, in place.

    A mask in use says so of a pixel, and nothing of its ramp. Returned are the pixels.
    """
    if not held.size:
        return held
    masked = held[(np.bitwise_and.reduce(take_columns(flags, held), axis=0) & DO_NOT_USE) != 0]
    flags[:, masked] &= ~DO_NOT_USE
    found: NDArray[np.intp] = masked
    return found


def count_groups(flags: NDArray[np.uint8]) -> Counted:
    """Groups used and jumps of (G, pixels) flags, (2, pixels); pixels that jump; pixels with unusable groups."""
    flagged = np.bitwise_or.reduce(flags, axis=0)
    counts = np.zeros((2, flags.shape[1]), np.uint16)
    counts[0] = len(flags)
    some = np.flatnonzero(flagged != 0)
    jumped, cut = (some[(flagged[some] & bits) != 0] for bits in (JUMP_DET, UNUSABLE))
    counts[1, jumped] = ((take_columns(flags, jumped) & JUMP_DET) != 0).sum(axis=0, dtype=np.uint16)
    if cut.size:
        counts[0, cut] = ((take_columns(flags, cut) & UNUSABLE) == 0).sum(axis=0, dtype=np.uint16)
    return counts, jumped, cut
