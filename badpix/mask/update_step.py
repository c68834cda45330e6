"""An older mask brought up to date by new ones: from masks that were read to the image, its states and origins.

The decisions are those of :mod:`badpix.mask.update`; here masks are laid into one frame and policies applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.detectors import Window
from badpix.io.evidence import Evidence
from badpix.mask import update
from badpix.mask.beside import open_evidence
from badpix.mask.file import Mask
from badpix.mask.origins import Layer
from badpix.mask.update import KEEP, REPLACE, SIDE_FLAGS, State
from badpix.mask.update_inputs import NewMask, find_tested
from badpix.settings.merge import MergeSettings

Bool = NDArray[np.bool_]
DQ = NDArray[np.uint32]
FAINT = np.uint8(128)  # of a count of updates: the pixel was faint when it was last seen


@dataclass
class Renewed:
    """An updated mask.

    Attributes
    ----------
    image : uint32 ndarray
        (ny, nx) its DQ.
    states, absent : dict of str to uint8 ndarray
        Flag to what became of each pixel, and in how many updates in a row it was good.
    kept : uint32 ndarray
        Flags that are there because the old mask had them.
    notes : list of str
        What the user should know.
    """

    image: DQ
    states: dict[str, NDArray[np.uint8]]
    absent: dict[str, NDArray[np.uint8]]
    kept: DQ
    notes: list[str] = field(default_factory=list)

    def images(self) -> dict[str, Any]:
        """Its part of the evidence: states, and counts where there are any."""
        out = {f"update_{name.lower()}": state for name, state in self.states.items() if state.any()}
        out |= {f"absent_{name.lower()}": count for name, count in self.absent.items() if count.any()}
        return out


def renew(
    base: Mask,
    given: Sequence[Mask],
    covered: Sequence[Bool],
    new: DQ,
    frame: Window,
    layers: Sequence[Layer],
    p: MergeSettings,
) -> Renewed:
    """The older mask, brought up to date.

    Parameters
    ----------
    base : Mask
        The older mask, as it was read.
    given : sequence of Mask
        The new ones, as they were read.
    covered : sequence of bool ndarray
        What each new mask covers of the frame.
    new : uint32 ndarray
        (ny, nx) the new masks and manual lists, combined.
    frame : Window
        Place of ``new``.
    layers : sequence of Layer
        Origins of the old mask's flags, in the frame.
    p : mapping
        Values of ``settings.merge``: ``policy``, ``faint_updates``.
    """
    old = place(base.image, np.uint32(0), base.window, frame)
    flags = [f.name for f in dq.FLAGS if f.name not in SIDE_FLAGS and int((old | new).max()) and _has(old | new, f)]
    masks = [
        NewMask(m, partial(_placed, window=m.window, frame=frame), c) for m, c in zip(given, covered, strict=True)
    ]
    by_science = _given_by(layers, ("science",), new.shape)
    tested = find_tested(masks, base, partial(_placed, window=base.window, frame=frame), flags, by_science)
    by_hand = _given_by(layers, ("manual", "plain"), new.shape)
    policy = {**dict.fromkeys(flags, REPLACE), **update.read_policy(p.policy)}
    before, known = _read_absent(base, flags, frame)
    notes = _say_base(base, flags, policy, p.policy, known)
    states, absent = {}, {}
    types = _types(new)
    for name in flags:
        value = np.uint32(dq.VALUE[name])
        hand = (by_hand & value) != 0
        retyped = (types & ~value) != 0
        faint = np.where(before[name] > 0, (before[name] & FAINT) != 0, tested[name].faint)  # as it was seen first
        can_say = tested[name]._replace(faint=faint)
        judged = update.judge(
            (old & value) != 0, (new & value) != 0, can_say, by_hand=hand, retyped=retyped, policy=policy[name]
        )
        states[name], absent[name] = update.wait(
            judged, before[name] & ~FAINT, policy=max(policy[name], 1), faint_updates=p.faint_updates
        )
        absent[name] |= np.where(faint & (absent[name] > 0), FAINT, np.uint8(0))
        if policy[name] == KEEP:
            states[name], absent[name] = judged, np.zeros_like(before[name])
    image = update.combine(old, new, states)
    return Renewed(image, states, absent, image & ~new, notes)


def place(image: NDArray[Any], empty: Any, window: Window, frame: Window) -> NDArray[Any]:
    """An image of a window in the frame, ``empty`` elsewhere."""
    if window == frame:
        return image
    out = np.full((frame.ysize, frame.xsize), empty, image.dtype)
    y, x = window.ystart - frame.ystart, window.xstart - frame.xstart
    out[y : y + window.ysize, x : x + window.xsize] = image
    return out


def _placed(image: NDArray[Any], empty: Any, *, window: Window, frame: Window) -> NDArray[Any]:
    return place(image, empty, window, frame)


def _has(image: DQ, flag: dq.Flag) -> bool:
    return bool(np.any(image & np.uint32(flag.value)))


def _types(new: DQ) -> DQ:
    """Flags that say what is wrong with a pixel."""
    side = np.uint32(sum(dq.VALUE[name] for name in SIDE_FLAGS))
    return new & ~side


def _given_by(layers: Sequence[Layer], kinds: Sequence[str], shape: tuple[int, ...]) -> DQ:
    """Flags that sources of these kinds gave, and no other beside them."""
    mine, other = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    for layer in layers:
        chosen = mine if layer.source.kind in kinds else other
        chosen |= layer.flags
    return mine & ~other


def _read_absent(
    base: Mask, flags: Sequence[str], frame: Window
) -> tuple[dict[str, NDArray[np.uint8]], Evidence | None]:
    """In how many updates in a row each pixel was good so far, by flag; and whether the old mask has evidence."""
    out = {}
    with open_evidence(base) as (found, note):
        found = None if note else found
        for name in flags:
            image = None if found is None else found.images.get(f"absent_{name.lower()}")
            values = np.zeros(base.image.shape, np.uint8) if image is None else np.asarray(image[:, :], np.uint8)
            out[name] = place(values, np.uint8(0), base.window, frame)
        return out, found


def _say_base(
    base: Mask, flags: Sequence[str], policy: dict[str, int], given: Mapping[str, Any], known: Evidence | None
) -> list[str]:
    """What is not known of the old mask; flags that searches and hands share are kept if their origin is not."""
    if known is not None:
        return []
    name = base.path.name if base.path else "the old mask"
    notes = [f"{name} has no evidence beside it: pixels recover by the new limits alone, faint ones can't be told"]
    if "OTHER_BAD_PIXEL" in flags and "other_bad_pixel" not in {k.lower() for k in given}:
        policy["OTHER_BAD_PIXEL"] = KEEP
        notes.append(f"OTHER_BAD_PIXEL of {name} may be by hand: kept; --policy OTHER_BAD_PIXEL:replace changes it")
    return notes


def say_counts(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line a flag: confirmed, new, recovered, other type, not testable and why."""
    out = []
    for name, row in counts.items():
        reasons = "; ".join(f"{n:,} {why}" for why, n in row["reasons"].items())
        line = f"{name}: {row['confirmed']:,} confirmed, {row['new']:,} new, {row['recovered']:,} recovered, "
        line += f"{row['retyped']:,} another type now, {row['not_testable']:,} not testable"
        out.append(line + (f" ({reasons})" if reasons else ""))
    return out


__all__ = ["Renewed", "State", "place", "renew", "say_counts"]
