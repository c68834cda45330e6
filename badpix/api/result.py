"""A bad-pixel mask in memory: what the searches, merge and read_mask give."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.api.inputs import in_python
from badpix.io.evidence import Detection, Evidence
from badpix.io.fits import open_fits
from badpix.io.html import as_table
from badpix.mask import combine
from badpix.mask import file as mask_file
from badpix.mask.file import Mask
from badpix.mask.header import check_texts
from badpix.mask.product import Product
from badpix.settings.reference import ReferenceSettings

log = logging.getLogger("badpix")

Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class DefectMask(Mask):
    """A bad-pixel mask in memory: a :class:`badpix.mask.file.Mask`, and how it came to be.

    Attributes
    ----------
    image : uint32 ndarray
        (ny, nx) DQ in the standard bits of JWST, science frame, indices ``[y, x]``.
    detector, window, header, history, path
        As of a MASK file that was read; ``path`` is None for a mask that was made here.
    maps : dict of str to bool ndarray
        (ny, nx) for each search (``DEAD``, ``hot``, ...); empty for a mask that was read or merged.
    evidence : Evidence
        The images, limits and samples that the maps were decided on.
    notes : list of str
        What the user should know: what could not be found or measured.
    inputs : list of str
        Names of the files it was made from.
    rejected : list of tuple
        Name and reason of files that were left out.
    """

    maps: dict[str, Bool] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)
    notes: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    cards: Any = field(default=None)  # the primary header of the file that it is written to
    kind: str = "mask"  # the command that would have made it: the name of its file where it needs one

    @property
    def counts(self) -> dict[str, int]:
        """Science pixels with each flag that occurs, and with any flag (``any``)."""
        return combine.count_flags(self.image, ~self.reference)

    @property
    def searches(self) -> dict[str, int]:
        """Pixels that each search found."""
        return {name: int(np.count_nonzero(found)) for name, found in self.maps.items()}

    def has(self, flag: str) -> Bool:
        """Where a flag is set: (ny, nx).

        Raises
        ------
        UsageError
            If there is no such flag.
        """
        found: Bool = (self.image & np.uint32(combine.find_flag(flag).value)) != 0
        return found

    def summary(self) -> dict[str, Any]:
        """What it is and holds, ready for JSON."""
        return {
            "detector": self.detector,
            "window": list(self.window),
            "science_pixels": int(np.count_nonzero(~self.reference)),
            "searches": self.searches,
            "flags": self.counts,
            "inputs": self.inputs,
            "rejected": [{"file": name, "reason": why} for name, why in self.rejected],
            "notes": self.notes,
        }

    def __repr__(self) -> str:
        ny, nx = self.image.shape
        counts = ", ".join(f"{n:,} {name}" for name, n in self.counts.items() if name != "any")
        return f"<{type(self).__name__} {self.detector} {nx} x {ny}: {counts or 'no flags'}>"

    def _repr_html_(self) -> str:
        ny, nx = self.image.shape
        science = max(int(np.count_nonzero(~self.reference)), 1)
        rows = [("search", name, n, 100 * n / science) for name, n in self.searches.items()]
        rows += [("flag", name, n, 100 * n / science) for name, n in self.counts.items()]
        title = f"{self.detector}, {nx} x {ny} pixels, {science:,} of them science pixels"
        return as_table(title, ("", "type", "pixels", "% of science"), rows, self.notes)


class Keep:
    """Takes what a driver found before it writes: the detection with its images."""

    def __init__(self) -> None:
        self.found = Detection({})

    def __call__(self, found: Detection, *_: Any) -> None:
        kept = replace(found.evidence, images=dict(found.evidence.images))
        self.found = Detection(dict(found.maps), kept, found.notes)


def build_mask(
    build: Callable[..., Product],
    kind: str,
    files: Sequence[Path],
    settings: Any,
    folder: Path,
    texts: ReferenceSettings,
    *,
    tell: bool = True,
    **options: Any,
) -> DefectMask:
    """What the driver of a command makes of files, in a private folder, read back with what it was decided on.

    Parameters
    ----------
    build : callable
        ``build_flats``, ``build_darks`` or ``build_science``.
    kind : str
        Name of the command.
    files, settings, texts
        Inputs, parameters, texts of the header.
    folder : Path
        Where the mask is written.
    tell : bool
        Log the notes: of a driver that does not.
    **options
        Further arguments of ``build``.
    """
    keep = Keep()
    product = build(files, settings, folder / f"{kind}.fits", texts=check_texts(texts), look=keep, **options)
    for note in product.notes if tell else ():
        log.warning("%s: %s", kind, note)
    return read_back(product, kind, keep.found)


def read_back(product: Product, kind: str, found: Detection | None = None) -> DefectMask:
    """A mask that a driver wrote, and what it was decided on."""
    mask = mask_file.read_mask(product.path)
    found = found or Detection({})
    return DefectMask(
        mask.image,
        mask.detector,
        mask.window,
        mask.header,
        mask.history,
        maps=found.maps,
        evidence=found.evidence,
        notes=[in_python(note) for note in product.notes],
        inputs=list(product.inputs),
        rejected=list(product.rejected),
        cards=read_cards(product.path),
        kind=kind,
    )


def read_cards(path: Path) -> Any:
    """The primary header of a mask, without what its file decides."""
    with open_fits(path) as hdus:
        cards = hdus[0].header.copy(strip=True)
    for name in ("CHECKSUM", "DATASUM", "FILENAME"):
        cards.remove(name, ignore_missing=True)
    return cards
