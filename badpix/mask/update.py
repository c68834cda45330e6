"""An older mask brought up to date: per type and pixel, new where it was measured, old where it was not.

1. For each flag the new masks say where they tested it (:class:`Coverage`): which searches ran, what their window is,
   which pixels could be measured (:mod:`badpix.update_inputs`).
2. Each pixel of each flag gets a state (:func:`judge`): confirmed, new, recovered, retyped (good for this type, but
   flagged as another), or not testable, with the reason: undetermined, type not searched, outside the window, kept
   by policy or as given by hand, too faint to have been seen again.
3. A recovered pixel must have been good in as many updates in a row as the policy of its flag asks for; one that is
   too faint to be missed with certainty, in ``faint_updates`` (:func:`wait`). Until then it waits, flagged.
4. The mask has all new flags, and the old ones that were kept. DO_NOT_USE follows: it is new, or it stays where a
   flag is kept that carried it in the old mask, or where the old mask had it alone (:func:`combine`).

All functions take arrays of one shape, (ny, nx), science frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import UsageError

Bool = NDArray[np.bool_]
DQ = NDArray[np.uint32]
States = NDArray[np.uint8]

# What no search and no update touches: they follow from geometry or from other flags.
SIDE_FLAGS = ("DO_NOT_USE", "REFERENCE_PIXEL", "BAD_REF_PIXEL", "NON_SCIENCE")
KEEP, REPLACE = 0, 1  # policies as numbers: never, or in how many updates in a row a pixel must be good
POWER = 1.2816  # sigma above a limit at which nine of ten are seen again


class State(IntEnum):
    """What became of a pixel of one flag. Those from UNDETERMINED on are not testable: the old flag is kept."""

    NONE = 0
    CONFIRMED = 1
    NEW = 2
    RECOVERED = 3
    RETYPED = 4
    UNDETERMINED = 5
    NOT_SEARCHED = 6
    OUTSIDE = 7
    POLICY = 8
    BY_HAND = 9
    TOO_FAINT = 10
    WAITING = 11


WORDS = {
    State.CONFIRMED: "confirmed",
    State.NEW: "new",
    State.RECOVERED: "recovered",
    State.RETYPED: "another type now",
    State.UNDETERMINED: "the new exposures could not measure it",
    State.NOT_SEARCHED: "no new mask searched for this type",
    State.OUTSIDE: "outside the window of the new masks",
    State.POLICY: "kept by policy",
    State.BY_HAND: "given by hand",
    State.TOO_FAINT: "too faint for the new exposures to be sure that it is gone",
    State.WAITING: "good now, but not in enough updates in a row",
}
KEPT = tuple(s for s in State if s >= State.UNDETERMINED)


class Coverage(NamedTuple):
    """What the new masks can say about one flag.

    Attributes
    ----------
    reason : uint8 ndarray
        (ny, nx) ``State.NONE`` where it was measured; UNDETERMINED, NOT_SEARCHED or OUTSIDE elsewhere.
    faint : bool ndarray
        (ny, nx) pixels whose old value lies too near the new limit to be missed with certainty.
    """

    reason: States
    faint: Bool


# --- one flag --------------------------------------------------------------------------------------------


def judge(old: Bool, new: Bool, tested: Coverage, *, by_hand: Bool, retyped: Bool, policy: int) -> States:
    """The state of each pixel of one flag, before it is asked how often it was seen to be good.

    Parameters
    ----------
    old, new : bool ndarray
        Where the old mask and the new ones have the flag.
    tested : Coverage
        Where the new masks can say so.
    by_hand : bool ndarray
        Where the old flag comes from a manual list.
    retyped : bool ndarray
        Where the new masks have a flag of another type.
    policy : int
        KEEP, or the number of updates (1: at once).
    """
    out = np.zeros(old.shape, np.uint8)
    out[new] = State.NEW
    out[old & new] = State.CONFIRMED
    left = old & ~new
    out[left] = State.RECOVERED
    out[left & tested.faint] = State.TOO_FAINT
    blind = left & (tested.reason != State.NONE)
    out[blind] = tested.reason[blind]
    out[left & retyped & (tested.reason == State.NONE)] = State.RETYPED
    out[left & by_hand] = State.BY_HAND
    if policy == KEEP:
        out[left] = np.where(by_hand[left], State.BY_HAND, State.POLICY)
    return out


def wait(state: States, absent: States, *, policy: int, faint_updates: int) -> tuple[States, States]:
    """Pixels that must be seen to be good several times: their state, and in how many updates in a row they were.

    Parameters
    ----------
    state : uint8 ndarray
        From :func:`judge`.
    absent : uint8 ndarray
        In how many updates in a row each pixel was good before this one.
    policy, faint_updates : int
        Updates that a clear and a faint pixel must be good in.
    """
    seen = (state == State.RECOVERED) | (state == State.TOO_FAINT)
    count = np.where(seen, np.minimum(absent, 120) + 1, 0).astype(np.uint8)
    need = np.where(state == State.TOO_FAINT, max(faint_updates, policy), policy)
    out = state.copy()
    out[seen & (count >= need)] = State.RECOVERED
    out[(state == State.RECOVERED) & (count < need)] = State.WAITING
    blind = np.isin(state, (State.UNDETERMINED, State.NOT_SEARCHED, State.OUTSIDE))
    count[blind] = absent[blind]  # an update that saw nothing neither counts nor starts anew
    count[out == State.RECOVERED] = 0
    return out, count


def join_tested(parts: Sequence[Coverage]) -> Coverage:
    """What several searches of one flag can say together: measured is measured, whoever did it."""
    reason = np.minimum.reduce([p.reason for p in parts])
    seen = [p.faint | (p.reason != State.NONE) for p in parts]
    return Coverage(reason, np.logical_and.reduce(seen) & (reason == State.NONE))


def find_faint(
    old: NDArray[np.floating[Any]], limit: NDArray[np.floating[Any]] | float, comparison: str, spread: float
) -> Bool:
    """Pixels whose old value would not surely pass the new limit: fewer than nine in ten would.

    Parameters
    ----------
    old : ndarray
        The deciding quantity in the old mask's exposures; NaN where it is not known (never faint).
    limit : float or ndarray
        Of the new exposures.
    comparison : str
        ``>`` or ``<`` (with or without ``=``).
    spread : float
        Scatter of the quantity in the new exposures.
    """
    with np.errstate(invalid="ignore"):
        if comparison.startswith(">"):
            return np.asarray(old < limit + POWER * spread)
        return np.asarray(old > limit - POWER * spread)


# --- the mask --------------------------------------------------------------------------------------------


def combine(old: DQ, new: DQ, states: Mapping[str, States]) -> DQ:
    """The updated mask: all new flags, the kept old ones, and DO_NOT_USE where either asks for it.

    Parameters
    ----------
    old, new : uint32 ndarray
        Standard bits.
    states : mapping of str to uint8 ndarray
        Flag to states; flags without states are kept as they are (side flags aside).
    """
    kept = np.zeros(old.shape, np.uint32)
    free = np.uint32(sum(f.value for f in dq.FLAGS if f.name not in states and f.name != "DO_NOT_USE"))
    kept |= old & free
    for name, state in states.items():
        kept[state >= State.UNDETERMINED] |= np.uint32(dq.VALUE[name])
    unusable = np.uint32(dq.VALUE["DO_NOT_USE"])
    binding = np.uint32(sum(dq.VALUE[name] for name in find_binding(old)))
    alone = old == unusable
    stays = ((old & unusable) != 0) & (((kept & binding) != 0) | alone)
    return new | kept | np.where(stays, unusable, np.uint32(0))


def find_binding(old: DQ) -> list[str]:
    """Flags that go with DO_NOT_USE in a mask: most of the pixels that have them alone carry it.

    A flag that never stands alone binds if most of its pixels carry DO_NOT_USE.
    """
    unusable = np.uint32(dq.VALUE["DO_NOT_USE"])
    values = old[old != 0]
    types = values & ~unusable
    out = []
    for flag in dq.FLAGS:
        if flag.name in SIDE_FLAGS and flag.name != "NON_SCIENCE":
            continue
        carried = types == flag.value
        carried = carried if carried.any() else (types & np.uint32(flag.value)) != 0
        if carried.any() and 2 * np.count_nonzero(values[carried] & unusable) >= np.count_nonzero(carried):
            out.append(flag.name)
    return out


def count_states(states: Mapping[str, States], science: Bool) -> dict[str, dict[str, Any]]:
    """Science pixels by flag and by the four answers; what is not testable by its reason."""
    out: dict[str, dict[str, Any]] = {}
    for name, state in states.items():
        found = np.bincount(state[science], minlength=len(State))
        row = {
            "confirmed": int(found[State.CONFIRMED]),
            "new": int(found[State.NEW]),
            "recovered": int(found[State.RECOVERED]),
            "retyped": int(found[State.RETYPED]),
            "not_testable": int(found[State.UNDETERMINED :].sum()),
        }
        reasons = {WORDS[s]: int(found[s]) for s in KEPT if found[s]}
        if any(row.values()):
            out[name] = {**row, "reasons": reasons}
    return out


def list_states(states: Mapping[str, States], science: Bool, corner: tuple[int, int]) -> list[dict[str, object]]:
    """Every science pixel that is new, recovered, retyped or not testable: flag, x, y of the full frame, what it is.

    Parameters
    ----------
    corner : tuple of int
        x and y of the image's first pixel in the full frame, 0-based.
    """
    out: list[dict[str, object]] = []
    for name, state in states.items():
        y, x = np.nonzero(science & (state > State.CONFIRMED))
        for row, column in zip(y, x, strict=True):
            code = State(int(state[row, column]))
            answer = "not testable" if code >= State.UNDETERMINED else WORDS[code]
            reason = WORDS[code] if code >= State.UNDETERMINED else ""
            place = {"x": int(column) + corner[0], "y": int(row) + corner[1]}
            out.append({"flag": name, **place, "state": answer, "reason": reason})
    return out


# --- policy ----------------------------------------------------------------------------------------------


def read_policy(given: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Policies by flag as numbers, from ``{HOT: [replace], TELEGRAPH: [3], WARM: [keep]}``.

    Raises
    ------
    UsageError
        At an unknown flag or word.
    """
    words = {"keep": KEEP, "replace": REPLACE}
    out = {}
    for name, value in given.items():
        flag = name.strip().upper()
        if flag not in dq.VALUE:
            raise UsageError(f"merge.policy: flag {name!r} is unknown{dq.suggest(name)}")
        text = value[0].lower() if len(value) == 1 else ""
        if text not in words and not (text.isdigit() and 1 <= int(text) <= 100):
            found = " ".join(value)
            raise UsageError(f"merge.policy: {flag}: found {found!r}, expected keep, replace, or a number of updates")
        out[flag] = words[text] if text in words else int(text)
    return out
