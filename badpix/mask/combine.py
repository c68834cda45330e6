"""From maps of search types to a DQ image, and from several masks to one.

1. Each search type sets its flags; types that must not be used add DO_NOT_USE.
2. HOT wins over DEAD: a pixel that is always saturated looks dead in flats. DO_NOT_USE stays.
3. Reference pixels carry REFERENCE_PIXEL, and DO_NOT_USE together with BAD_REF_PIXEL: the pipeline's reference
   pixel correction leaves out reference pixels that are DO_NOT_USE. A border that carries it switches the
   correction off without a word, and a bad reference pixel without it takes part in the correction.
4. Manual lists (``x y flag``, ranges inclusive) are added by OR.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError, UsageError
from badpix.outside import quote

Bool = NDArray[np.bool_]
DQ = NDArray[np.uint32]

PLAUSIBLE = (0.001, 0.10)  # share of science pixels that a mask usually flags


def combine(
    maps: Mapping[str, Bool],
    *,
    flag_values: Mapping[str, Sequence[str]],
    do_not_use: Collection[str],
    reference: Bool,
    hot_over_dead: bool = True,
) -> DQ:
    """The DQ image of some searches.

    Parameters
    ----------
    maps : mapping of str to bool ndarray
        Search type to map, (ny, nx).
    flag_values : mapping of str to list of str
        Flags that each search type sets; a type that is a flag's name itself may be left out.
    do_not_use : collection of str
        Search types that also set DO_NOT_USE.
    reference : bool ndarray
        (ny, nx) reference pixels.
    hot_over_dead : bool
        Clear DEAD where HOT is set.

    Raises
    ------
    UsageError
        At an unknown flag.
    """
    out = np.zeros(reference.shape, np.uint32)
    for name, found in maps.items():
        value = sum({flag_value(flag) for flag in flag_values.get(name, [name])})
        if name in do_not_use:
            value |= dq.VALUE["DO_NOT_USE"]
        out.reshape(-1)[np.flatnonzero(found)] |= np.uint32(value)
    out[reference] = dq.VALUE["REFERENCE_PIXEL"]
    return resolve_hot_dead(out) if hot_over_dead else out


def flag_value(name: str) -> int:
    """Value of a mnemonic, in any case, that may stand in a mask.

    Raises
    ------
    UsageError
        If it is unknown or belongs to one exposure only.
    """
    flag = find_flag(name)
    if flag.use in ("exposure", "never"):
        raise UsageError(f"flag {flag.name} does not belong in a mask: {flag.description.lower()}")
    return flag.value


def find_flag(name: str) -> dq.Flag:
    """The flag with a mnemonic, in any case.

    Raises
    ------
    UsageError
        If it is unknown.
    """
    flag = dq.BY_NAME.get(name.strip().upper())
    if flag is None:
        raise UsageError(f"flag {quote(name)} is unknown{dq.suggest(name)}")
    return flag


def resolve_hot_dead(image: DQ) -> DQ:
    """A copy in which HOT pixels are not DEAD."""
    out = image.copy()
    pixels = out.reshape(-1)
    at = np.flatnonzero(pixels != 0)
    pixels[at[(pixels[at] & dq.VALUE["HOT"]) != 0]] &= ~np.uint32(dq.VALUE["DEAD"])
    return out


def protect_reference(image: DQ, reference: Bool) -> tuple[DQ, int]:
    """A copy with REFERENCE_PIXEL on all reference pixels, DO_NOT_USE on the bad ones alone; and how many lost it."""
    marked, unusable, bad = (np.uint32(dq.VALUE[n]) for n in ("REFERENCE_PIXEL", "DO_NOT_USE", "BAD_REF_PIXEL"))
    out = image.copy()
    pixels = out.reshape(-1)
    pixels[np.flatnonzero(pixels != 0)] &= ~marked
    border = np.flatnonzero(reference)
    flags = pixels[border]
    is_bad = (flags & bad) != 0
    freed = ~is_bad & ((flags & unusable) != 0)
    pixels[border] = np.where(is_bad, flags | unusable, flags & ~unusable) | marked
    return out, int(freed.sum())


# --- merging ---------------------------------------------------------------------------------------------


def merge(masks: Sequence[DQ], covered: Sequence[Bool], *, min_fraction: float) -> DQ:
    """All flags that at least ``min_fraction`` of the masks covering a pixel have.

    DO_NOT_USE is counted like any flag, but goes where no other flag is left to say why, unless a mask had it
    alone there.

    Parameters
    ----------
    masks : sequence of uint32 ndarray
        (ny, nx) each, in standard bits.
    covered : sequence of bool ndarray
        (ny, nx) each: where the mask says something (a subarray's window).
    min_fraction : float
        0 keeps every flag; equality counts.
    """
    out = np.zeros(masks[0].shape, np.uint32)
    votes_possible = np.sum(covered, axis=0, dtype=np.int32)
    used = int(np.bitwise_or.reduce([np.bitwise_or.reduce(m, axis=None) for m in masks]))
    for flag in dq.FLAGS:
        value = np.uint32(flag.value)
        if not used & flag.value:
            continue
        votes = np.zeros(out.shape, np.int32)
        for one in masks:
            votes += (one & value) != 0
        # 1e-9: 3 of 10 is not less than 0.3
        enough = (votes > 0) & (votes >= min_fraction * votes_possible - 1e-9)
        out[enough] |= value
    unusable = np.uint32(dq.VALUE["DO_NOT_USE"])
    alone = np.any([m == unusable for m in masks], axis=0)
    out[(out == unusable) & ~alone] = 0
    return out


def merge_newest(masks: Sequence[DQ], covered: Sequence[Bool]) -> DQ:
    """Each pixel from the last mask that covers it; the masks come oldest first."""
    out = np.zeros(masks[0].shape, np.uint32)
    for image, inside in zip(masks, covered, strict=True):
        out[inside] = image[inside]
    return out


def from_plain(image: NDArray[Any], flag: str, do_not_use: bool) -> DQ:
    """A DQ image from an image that is no JWST mask: non-zero (and not finite) means bad."""
    value = flag_value(flag) | (dq.VALUE["DO_NOT_USE"] if do_not_use else 0)
    bad = (image != 0) | (~np.isfinite(image) if image.dtype.kind == "f" else False)
    return np.where(bad, np.uint32(value), np.uint32(0))


# --- manual lists ----------------------------------------------------------------------------------------


# --- counting --------------------------------------------------------------------------------------------


def count_flags(image: DQ, science: Bool) -> dict[str, int]:
    """Science pixels with each flag that occurs, and with any flag (``any``)."""
    inside = image[science]
    flagged = inside[inside != 0]
    counts = {flag.name: int(np.count_nonzero(flagged & flag.value)) for flag in dq.FLAGS}
    counts = {name: n for name, n in counts.items() if n}
    counts["any"] = int(flagged.size)
    return counts


def implausible(counts: Mapping[str, int], n_science: int) -> str | None:
    """A sentence where the share of flagged science pixels is unlike that of any real mask, else None."""
    if n_science == 0:
        return None
    share, unusable = counts["any"] / n_science, counts.get("DO_NOT_USE", 0) / n_science
    if PLAUSIBLE[0] <= share <= PLAUSIBLE[1]:
        return None
    return (
        f"{share:.2%} of the science pixels are flagged, {unusable:.2%} are DO_NOT_USE; "
        f"masks usually flag {PLAUSIBLE[0]:.1%} to {PLAUSIBLE[1]:.0%}: plausible?"
    )


def standard_bits(stored: NDArray[Any], table: Mapping[str, int]) -> DQ:
    """A DQ image in standard bits from one in the bits of its own DQ_DEF (name to value).

    Raises
    ------
    DataError
        If a bit is set that the table does not know, or a name is no standard one: its meaning would be lost.
    """
    at = np.flatnonzero(stored != 0)
    bits = stored.reshape(-1)[at].astype(np.uint32)  # also where bit 31 is stored as a sign
    used = int(np.bitwise_or.reduce(bits, axis=None))
    flags = np.zeros(bits.shape, np.uint32)
    lost = used
    for name, signed in table.items():
        value = signed & 0xFFFFFFFF
        if not used & value:
            continue
        if name not in dq.VALUE:
            raise DataError(f"DQ_DEF: pixels carry {name!r}, which is no JWST flag{dq.suggest(name)}")
        lost &= ~value
        flags[(bits & np.uint32(value)) != 0] |= np.uint32(dq.VALUE[name])
    if lost:
        unknown = [bit for bit in range(32) if lost >> bit & 1]
        raise DataError(f"DQ_DEF: bits {unknown} are set in DQ, but have no row: their pixels would be read as good")
    out = np.zeros(stored.shape, np.uint32)
    out.reshape(-1)[at] = flags
    return out
