"""The masks of families (:mod:`badpix.mask.families`), from the mask of one run of darks.

DO_NOT_USE is decided again where nothing but the darks' noise made it (HOT, WARM, TELEGRAPH, noisy, intermittent),
and goes to candidates that no search flagged (:func:`decide`). All other flags, and what lists, flats or older masks
say, stay as they are. Pixels that saturate in the darks stay unusable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.io.evidence import Evidence
from badpix.mask import file as mask_file
from badpix.mask import origins
from badpix.mask.families import measure_excess, read_candidates
from badpix.mask.file import Mask
from badpix.settings.families import Family

Bool = NDArray[np.bool_]
DQ = NDArray[np.uint32]
Float = NDArray[np.float32]

NOISE_FLAGS = ("HOT", "WARM", "TELEGRAPH", "UNRELIABLE_SLOPE")
BY_NOISE = np.uint32(sum(dq.VALUE[name] for name in NOISE_FLAGS))
UNUSABLE, UNRELIABLE = np.uint32(dq.VALUE["DO_NOT_USE"]), np.uint32(dq.VALUE["UNRELIABLE_SLOPE"])


@dataclass
class Member:
    """The mask of one family.

    Attributes
    ----------
    family : Family
        What was asked for.
    image : ndarray
        (ny, nx) uint32 DQ.
    excess : ndarray
        (n,) excess of the candidates at the worst number of groups; infinite where saturated.
    typical : tuple of float
        Error of a typical pixel's slope at the least and the largest number of groups, DN/s.
    freed, added : int
        Pixels that lost DO_NOT_USE, and that got it, against the mask of the run.
    """

    family: Family
    image: DQ
    excess: Float
    typical: tuple[float, float]
    freed: int
    added: int


def make_member(mask: Mask, evidence: Evidence, family: Family) -> Member:
    """The mask of one family from a mask of darks, or one that darks were merged into.

    Parameters
    ----------
    mask : Mask
        Of the run.
    evidence : Evidence
        Open, of that mask.
    family : Family

    Raises
    ------
    DataError
        If the evidence does not say how the darks were read, or lacks images.
    """
    if not evidence.readouts or not evidence.readouts[0].noise > 0:
        raise DataError(f"{mask.path}: its evidence does not say how the darks were read: no families from it")
    darks = evidence.readouts[0]
    known = read_candidates(evidence, darks)
    ends = [measure_excess(known, darks, family, n) for n in family.numbers()]
    excess: Float = np.maximum.reduce([e for e, _ in ends])
    held = find_held(mask)
    image = decide(mask.image, known.index, excess, family.max_excess, held | mask.reference)
    was, now = (mask.image & UNUSABLE) != 0, (image & UNUSABLE) != 0
    return Member(family, image, excess, (ends[0][1], ends[-1][1]), int((was & ~now).sum()), int((now & ~was).sum()))


def find_held(mask: Mask) -> Bool:
    """Pixels of which something else than the darks says that they are bad: (ny, nx)."""
    held = np.zeros(mask.image.shape, bool)
    for layer in origins.read_layers(mask):
        if layer.source.kind != "darks":
            held |= layer.flags != 0
    return held


def decide(image: DQ, index: NDArray[np.intp], excess: Float, limit: float, held: Bool) -> DQ:
    """A copy of a mask in which DO_NOT_USE follows from the excess where noise alone decides.

    Parameters
    ----------
    image : ndarray
        (ny, nx) DQ.
    index, excess : ndarray
        (n,) flat indices of the candidates, and their excess.
    limit : float
        Largest excess of a pixel in use.
    held : ndarray
        (ny, nx) bool, pixels that stay as they are.
    """
    out = image.copy()
    pixels = out.reshape(-1)
    free = ~held.reshape(-1)[index] & ((pixels[index] & ~(BY_NOISE | UNUSABLE)) == 0)
    at, noisy = index[free], excess[free] > limit
    unflagged = noisy & (pixels[at] == 0)
    pixels[at] = np.where(noisy, pixels[at] | UNUSABLE, pixels[at] & ~UNUSABLE)
    pixels[at[unflagged]] |= UNRELIABLE
    return out


def make_header(mask: Mask, member: Member, source: fits.Header) -> fits.Header:
    """The primary header of a family's mask: that of the run's with READPATT, NGROUPS and a line of HISTORY."""
    header, family = source.copy(), member.family
    for name in ("P_READPA", "CHECKSUM", "DATASUM"):
        header.remove(name, ignore_missing=True)
    header["READPATT"] = (family.readpatt, "CRDS match key")
    header["NGROUPS"] = (family.match, "CRDS match key")
    header["DESCRIP"] = (
        f"{family.name}: {family.readpatt}, {family.span} groups, {_descrip(mask)}"[:65],
        "what it is",
    )
    for line in describe(member):
        header.add_history(line)
    return header


def _descrip(mask: Mask) -> str:
    return str(mask.header.get("DESCRIP") or "bad pixel mask")


def describe(member: Member) -> list[str]:
    """Lines of HISTORY."""
    f = member.family
    errors = " to ".join(f"{e:.3g}" for e in dict.fromkeys(member.typical))
    return [
        f"FAMILY {f.name}: READPATT {f.readpatt}, NGROUPS {f.span}, max_excess {f.max_excess:g}",
        f"FAMILY: slope error of a typical pixel {errors} DN/s; DO_NOT_USE taken off {member.freed} pixels",
        f"FAMILY: and set on {member.added}, against the mask that it was made from",
    ]


def write_member(mask: Mask, member: Member, path: Path, overwrite: bool) -> None:
    """Write the mask of a family."""
    assert mask.path is not None
    with fits.open(mask.path, memmap=False) as hdus:
        source = hdus[0].header
    mask_file.write_mask(path, member.image, make_header(mask, member, source), overwrite=overwrite)


def count_states(members: Sequence[Member], mask: Mask) -> Mapping[str, dict[str, int]]:
    """For each noise flag of the run: pixels that it has, and how many of them each family takes out."""
    out: dict[str, dict[str, int]] = {}
    for name in NOISE_FLAGS:
        mine = (mask.image & dq.VALUE[name]) != 0
        if mine.any():
            out[name] = {"flagged": int(mine.sum())} | {
                m.family.name: int(((m.image[mine] & UNUSABLE) != 0).sum()) for m in members
            }
    return out
