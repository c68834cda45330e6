"""What new masks can say about the flags of an older one, from their evidence.

1. Each new mask names the searches that ran, by its evidence (without one by its HISTORY and the flags it carries).
2. A pixel was measured where the evidence doesn't call it undetermined: ``<search>_undetermined`` or
   ``dark_undetermined``, ``flat_undetermined`` mark it; without them a value that is missing does.
3. A pixel is faint where its value in the old mask's evidence lies so near the new limit that fewer than nine of ten
   like it would be seen again (:func:`badpix.mask.update.find_faint`). Where the new mask states its depth, that says
   so: a pixel is faint below the strength at which nine of ten are found (:func:`find_below_depth`). Where the old
   excess was measured in science exposures, it is compared in DN/s: one sigma differs from set to set.
4. Science exposures judge the flags alone that science exposures gave: what darks found has been taken off them by
   the dark reference, and what flats found needs light that may not have been there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io.evidence import OTHERWISE, WITHHELD, Evidence, Rule
from badpix.mask import science_depth
from badpix.mask.beside import CANDIDATES_ONLY, open_evidence, search_names
from badpix.mask.depth import make_curves
from badpix.mask.file import Mask
from badpix.mask.history import FLATS, find_kind, flags_of_search, join_history
from badpix.mask.update import SIDE_FLAGS, Coverage, State, find_faint, join_tested
from badpix.numerics.clipping import median_mad
from badpix.settings import param

FLAT_STATE, LIT = "flat_state", 1  # what flats say of each pixel: 0 reference, 1 lit, more: undetermined
Bool = NDArray[np.bool_]
Place = Callable[[NDArray[Any], Any], NDArray[Any]]


class NewMask(NamedTuple):
    """A new mask as it was read, and how an image of its window gets into the frame (image, value elsewhere)."""

    mask: Mask
    place: Place
    covered: Bool


def find_tested(
    new: Sequence[NewMask], old: Mask, place_old: Place, flags: Sequence[str], by_science: NDArray[np.uint32]
) -> dict[str, Coverage]:
    """For each flag what the new masks can say about it.

    Parameters
    ----------
    new : sequence of NewMask
        The masks of this update.
    old : Mask
        The older mask as it was read; its evidence lies beside it, or not.
    place_old : callable
        As in :class:`NewMask`.
    flags : sequence of str
        Flags to be judged.
    by_science : uint32 ndarray
        (ny, nx) flags of the old mask that science exposures alone gave.
    """
    shape = new[0].covered.shape
    outside = ~np.any([one.covered for one in new], axis=0)
    parts: dict[str, list[Coverage]] = {flag: [] for flag in flags}
    with ExitStack() as stack:
        before, note = stack.enter_context(open_evidence(old))
        before = None if note else before
        for one in new:
            found, note = stack.enter_context(open_evidence(one.mask))
            for flag, tested in _tests_of(one, None if note else found, before, place_old, by_science).items():
                if flag in parts:
                    parts[flag].append(tested)
    nowhere = np.where(outside, np.uint8(State.OUTSIDE), np.uint8(State.NOT_SEARCHED))
    nothing = Coverage(nowhere, np.zeros(shape, bool))
    return {flag: join_tested([*found, nothing]) for flag, found in parts.items()}


def _tests_of(
    one: NewMask,
    found: Evidence | None,
    before: Evidence | None,
    place_old: Place,
    by_science: NDArray[np.uint32],
) -> dict[str, Coverage]:
    """What one new mask says about each flag that it searched for."""
    inside = np.where(one.covered, np.uint8(State.NONE), np.uint8(State.OUTSIDE))
    if found is None:
        unsure = np.full(inside.shape, find_kind(one.mask) == "science")
        return {flag: Coverage(inside, unsure) for flag in searched_flags(one.mask)}
    out: dict[str, list[Coverage]] = {}
    for search in search_names(found):
        if f"is_{search.lower()}" not in found.images:
            continue
        unknown = one.place(find_undetermined(found, search), False)
        reason = np.where(unknown & one.covered, np.uint8(State.UNDETERMINED), inside)
        in_science = search.startswith("science_")
        if in_science:
            faint = science_depth.find_faint(found, before, search, one.place, place_old)
        else:
            faint = place_old(_faint(found, before, search), False) if before is not None else np.zeros_like(unknown)
        for flag in flags_of_search(one.mask, search):
            foreign = in_science & ((by_science & np.uint32(dq.VALUE[flag])) == 0) & one.covered
            why = np.where(foreign, np.uint8(State.UNDETERMINED), reason)
            out.setdefault(flag, []).append(Coverage(why, faint))
    return {flag: join_tested(parts) for flag, parts in out.items()}


def searched_flags(mask: Mask) -> list[str]:
    """Flags that a mask without evidence was searched for: by the commands of its HISTORY, and those it carries."""
    text = "\n".join(join_history(mask.history))
    kind = find_kind(mask)
    names: list[str] = []
    if kind == "flats" or "flats." in text:
        names += FLATS
    if kind == "darks" or "darks." in text:
        names += [s for s in param.section("darks").param("flag_values").default if s != "warm"]
    if kind == "science" or "science.science_" in text:
        names += param.section("science").param("science_flags").default
    flags = [flag for name in names for flag in flags_of_search(mask, name)]
    used = int(np.bitwise_or.reduce(mask.image, axis=None))
    flags += [f.name for f in dq.FLAGS if used & f.value and f.name not in SIDE_FLAGS]
    return list(dict.fromkeys(flags))


def find_undetermined(found: Evidence, search: str) -> Bool:
    """Pixels of which the evidence says that a search could not judge them; those that it found were judged."""
    is_found = np.asarray(found.images[f"is_{search.lower()}"][:, :]) != 0
    kind = "flat" if search in FLATS else "science" if search.startswith("science_") else "dark"
    for name in (f"{search.lower()}_undetermined", f"{kind}_undetermined"):
        if name in found.images:
            out: Bool = (np.asarray(found.images[name][:, :]) > 0) & ~is_found
            return out
    if kind == "flat" and FLAT_STATE in found.images:
        out = (np.asarray(found.images[FLAT_STATE][:, :]) > LIT) & ~is_found
        return out
    quantity = _first_measured(found, search)
    if quantity is None:
        return np.zeros(is_found.shape, bool)
    out = np.isnan(np.asarray(found.images[quantity][:, :])) & ~is_found
    return out


def _first_measured(found: Evidence, search: str) -> str | None:
    """The first quantity of a search that is measured of every pixel; that of its kind where its rules name none."""
    usual = ("flat_norm",) if search in FLATS else ("dark_rate", "clean_slope_scatter")
    names = [r.quantity for r in found.rules if r.search == search and not r.quantity.endswith((WITHHELD, OTHERWISE))]
    for name in [*names, *usual]:
        image = found.images.get(name)
        if image is not None and name not in CANDIDATES_ONLY and np.asarray(image[:1, :1]).dtype.kind == "f":
            out: str | None = name
            return out
    return None


def _faint(found: Evidence, before: Evidence | None, search: str) -> Bool:
    """Pixels of the old evidence that the new limits of a search would not surely catch again."""
    shape = next(iter(before.images.values())).shape if before is not None and before.images else ()
    ways: dict[int, list[Rule]] = {}
    for rule in found.rules:
        numeric = not rule.quantity.endswith((WITHHELD, OTHERWISE)) and not isinstance(rule.limit, str)
        if rule.search == search and numeric and before is not None and rule.quantity in before.images:
            ways.setdefault(rule.way, []).append(rule)
    out: Bool = np.zeros(shape, bool)
    if before is not None and ways:
        below = find_below_depth(found, before, search)
        near = [np.any([_is_faint(found, before, r) for r in way], axis=0) for way in ways.values()]
        out = np.all(near, axis=0) if below is None else below
    rates = [r for r in found.rules if r.search == search and r.quantity == "dark_rate" and r.comparison == ">"]
    if before is not None and rates and science_depth.has_rates(before):
        limit = float(rates[0].limit)
        spread = measure_spread(np.asarray(found.images["dark_rate"][:, :]))
        out |= science_depth.is_hot(before) & find_faint(science_depth.read_rates(before), limit, ">", spread)
    return out


STRENGTHS = {
    "hot": "dark_rate",
    "warm": "dark_rate",
    "telegraph": "telegraph_separation",
    "noisy": "dark_noise_ratio",
    "intermittent": "dark_bright_fraction",
    "DEAD": "flat_norm",
    "LOW_QE": "flat_norm",
}  # the image whose values are strengths as the depth of a search knows them


def find_below_depth(found: Evidence, before: Evidence, search: str) -> Bool | None:
    """Pixels that are weaker in the old evidence than what the new mask's depth finds nine times in ten.

    None where there is no depth of the search, or the old evidence holds no strength. Pixels without a value are not
    faint: nothing is known of their strength.
    """
    curve = next((c for c in make_curves(found.depth) if c.search == search), None)
    name = STRENGTHS.get(search, "")
    if curve is None or name not in before.images:
        return None
    strength = np.asarray(before.images[name][:, :]).astype(np.float32)
    with np.errstate(invalid="ignore"):
        if curve.ninety is None:
            return np.isfinite(strength)
        out: Bool = strength > curve.ninety if curve.falls else strength < curve.ninety
    return out


def _is_faint(found: Evidence, before: Evidence, rule: Rule) -> Bool:
    spread = 1.0 if rule.unit == "sigma" else measure_spread(np.asarray(found.images[rule.quantity][:, :]))
    old = np.asarray(before.images[rule.quantity][:, :])
    return find_faint(old, float(rule.limit), rule.comparison, spread)


def measure_spread(values: NDArray[Any]) -> float:
    """Robust scatter of a quantity over all pixels; 0 for counts."""
    if values.dtype.kind != "f":
        return 0.0
    spread = median_mad(values)[1]
    return float(spread) if np.isfinite(spread) else 0.0
