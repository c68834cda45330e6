"""The evidence beside a mask: is it there, does it belong to the mask, which searches does it know."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from badpix.errors import DataError
from badpix.io import evidence_file
from badpix.io.evidence import Evidence
from badpix.mask.file import Mask, evidence_header

# Images that darks and science exposures keep of candidates alone.
CANDIDATES_ONLY = (
    "dark_residual",
    "dark_noise_z",
    "dark_residual_z",
    "dark_noise_ratio",
    "dark_residual_ratio",
    "dark_bright_fraction",
    "dark_bright_first",
    "dark_bright_last",
    "dark_settled",
    "telegraph_likelihood",
    "telegraph_separation",
    "telegraph_dwell_low",
    "telegraph_dwell_high",
    "science_mean",
    "science_harm",
    "science_response",
    "science_scatter",
    "science_bright",
    "science_height",
    "science_run",
    "science_since",
    "science_step",
    "science_bright_first",
    "science_bright_last",
    "science_flagged",
)
NO_EVIDENCE = "no evidence beside the mask: make it with --evidence to see the numbers behind the flags"


@contextmanager
def open_evidence(mask: Mask, path: str | Path | None = None) -> Iterator[tuple[Evidence | None, str]]:
    """The same, with images that are unpacked where they are indexed: for a few pixels (:func:`evidence.opened`)."""
    beside = None if mask.path is None else evidence_file.path_beside(mask.path)
    if path is None and (beside is None or not beside.is_file()):
        yield None, NO_EVIDENCE
        return
    place = Path(path if path is not None else beside)  # type: ignore[arg-type]
    with evidence_file.opened(place) as (found, header):
        for name, image in found.images.items():
            if tuple(image.shape) != mask.image.shape:
                raise DataError(f"{place}: image {name} has the shape {image.shape}, the mask {mask.image.shape}")
        same = mask.path is None or _dq_sum(mask.path) == str(header.get("MASKSUM", ""))
        yield (
            found,
            "" if same else f"{place.name} belongs to another version of this mask (its DQ has changed since)",
        )


def _dq_sum(path: Path) -> str:
    try:
        return str(evidence_header(path)["MASKSUM"])
    except KeyError:
        return ""


def search_names(evidence: Evidence) -> list[str]:
    """All searches that the evidence knows, by their rules and maps."""
    names = {r.search.lower(): r.search for r in evidence.rules}
    for image in evidence.images:
        if image.startswith("is_"):
            names.setdefault(image.removeprefix("is_"), image.removeprefix("is_"))
    return list(names.values())
