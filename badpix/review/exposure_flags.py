"""What the flags of an exposure tell: known defects, saturation, jumps, and why pixels have no slope.

1. dq_init: pixels per flag of PIXELDQ.
2. saturation and jump: GROUPDQ, plane by plane, as maps that count groups or integrations. A ramp is one pixel in one
   integration.
3. ramp_fit: slopes that are zero or NaN, each with its reason: saturated in all groups, only one good group, not to
   be used by the mask in use, or none that the flags tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io.exposure import Exposure
from badpix.prepare.products import read_plane
from badpix.review.exposure_levels import level_and_spread

Bool = NDArray[np.bool_]

SATURATED, JUMP_DET, DO_NOT_USE = (dq.VALUE[name] for name in ("SATURATED", "JUMP_DET", "DO_NOT_USE"))


@dataclass(frozen=True)
class RampFlags:
    """What GROUPDQ says about the ramps of an exposure; maps count integrations, (ny, nx)."""

    partly: NDArray[np.uint16]  # saturated in some groups
    fully: NDArray[np.uint16]  # saturated in all groups
    jumps: NDArray[np.uint16]  # groups with a jump
    hit: NDArray[np.uint16]  # integrations with a jump
    most_good: NDArray[np.uint16]  # groups that are neither saturated nor DO_NOT_USE, in the best integration
    saturated_groups: int
    jumps_of_group: list[int]
    integrations: int


def count_pixeldq(exposure: Exposure, science: Bool) -> dict[str, Any]:
    """Pixels per flag after dq_init; all pixels, reference pixels included."""
    flags = read_plane(exposure, "PIXELDQ")
    counts = {name: int(np.count_nonzero(flags & value)) for name, value in dq.VALUE.items()}
    return {
        "pixels": int(flags.size),
        "flagged": int(np.count_nonzero(flags)),
        "flagged science pixels": int(np.count_nonzero(flags[science])),
        "flags": {name: n for name, n in counts.items() if n},
    }


def count_ramp_flags(exposure: Exposure) -> RampFlags:
    """Saturation and jumps of all ramps, from GROUPDQ plane by plane."""
    nints, ngroups, ny, nx = exposure["GROUPDQ"].shape
    partly, fully, jumps, hit, most_good = (np.zeros((ny, nx), np.uint16) for _ in range(5))
    saturated_groups, per_group = 0, [0] * ngroups
    for i in range(nints):
        full, jumped, good = (np.zeros((ny, nx), np.uint16) for _ in range(3))
        for g in range(ngroups):
            flags = read_plane(exposure, "GROUPDQ", i, g)
            saturated, jump = (flags & SATURATED) != 0, (flags & JUMP_DET) != 0
            full += saturated
            jumped += jump
            good += (flags & (SATURATED | DO_NOT_USE)) == 0
            saturated_groups += int(saturated.sum())
            per_group[g] += int(jump.sum())
        partly += (full > 0) & (full < ngroups)
        fully += full == ngroups
        jumps += jumped
        hit += jumped > 0
        np.maximum(most_good, good, out=most_good)
    return RampFlags(partly, fully, jumps, hit, most_good, saturated_groups, per_group, nints)


def describe_saturation(flags: RampFlags, science: Bool) -> dict[str, Any]:
    """Numbers of saturated groups and ramps; a ramp is one pixel in one integration."""
    return {
        "ramps": int(flags.integrations * np.count_nonzero(science)),
        "saturated groups": flags.saturated_groups,
        "ramps saturated in part": int(flags.partly[science].sum()),
        "ramps saturated from the start": int(flags.fully[science].sum()),
    }


def describe_jumps(flags: RampFlags, science: Bool) -> dict[str, Any]:
    """Numbers of jumps; a ramp is one pixel in one integration."""
    ramps = flags.integrations * int(np.count_nonzero(science))
    hit = int(flags.hit[science].sum())
    return {
        "jump flags": int(flags.jumps.sum(dtype=np.int64)),
        "ramps hit": hit,
        "ramps hit, percent": round(100 * hit / max(ramps, 1), 4),
        "most jumps of a pixel": int(flags.jumps.max(initial=0)),
        "jump flags by group": flags.jumps_of_group,
    }


# --- 3. slopes -------------------------------------------------------------------------------------------


def explain_slopes(products: Mapping[str, Exposure], flags: RampFlags | None, science: Bool) -> dict[str, Any]:
    """Level of the slopes; slopes that are zero or NaN, by reason."""
    slope = read_plane(products["rate"], "SCI")
    level, spread = level_and_spread(slope[science])
    nan, zero = science & np.isnan(slope), science & (slope == 0)
    reasons = find_reasons(products, flags, nan | zero)
    numbers: dict[str, Any] = {
        "level, DN/s": round(level, 5),
        "spread, DN/s": round(spread, 5),
        "zero": int(zero.sum()),
        "NaN": int(nan.sum()),
        "zero or NaN because": {name: int(found.sum()) for name, found in reasons.items() if found.any()},
    }
    if "fitopt" in products:
        pedestal = read_plane(products["fitopt"], "PEDESTAL")
        numbers["pedestal, DN"], numbers["pedestal spread, DN"] = (
            round(v, 3) for v in level_and_spread(pedestal[science])
        )
    return numbers


def find_reasons(products: Mapping[str, Exposure], flags: RampFlags | None, empty: Bool) -> dict[str, Bool]:
    """Why pixels have no slope: reason -> map; each pixel has one, the first that holds."""
    flagged = read_plane(products["rate"], "DQ")
    if flags is None:
        tests = {
            "saturated": (flagged & SATURATED) != 0,
            "not to be used (DO_NOT_USE)": (flagged & DO_NOT_USE) != 0,
        }
    else:
        some = (flags.partly > 0) | (flags.fully > 0)
        tests = {
            "saturated in all groups": flags.fully == flags.integrations,
            "one good group, the others saturated": some & (flags.most_good == 1),
            "no good group left": some & (flags.most_good == 0),
            "not to be used by the mask in use (DO_NOT_USE)": flags.most_good == 0,
        }
    left, out = empty.copy(), {}
    for name, holds in tests.items():
        out[name] = left & holds
        left &= ~holds
    out["no reason in the flags"] = left
    return out
