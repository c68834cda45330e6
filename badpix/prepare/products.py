"""The products of an exposure on its way through the pipeline's first stage, and how they are read.

1. A product is known by the suffix of its name; those of an exposure share what comes before it. To the files that
   are named come those beside them.
2. The steps follow each other in another order for MIRI: what a step began with is the product before it, as far as
   it is there.
3. Images are read plane by plane, so that memory does not grow with groups or integrations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError, UsageError
from badpix.io import exposure as exposures
from badpix.io import selection
from badpix.io.exposure import Exposure
from badpix.io.fits import read_band, read_image

NEAR_INFRARED = ("uncal", "dq_init", "saturation", "superbias", "refpix", "linearity", "dark_current", "jump")
MIRI = ("uncal", "dq_init", "saturation", "linearity", "dark_current", "refpix", "jump")
OTHERS = ("refpix_nosides", "rate", "rateints", "fitopt")
SUFFIXES = {**selection.OLD_NAMES, **{name: name for name in (*NEAR_INFRARED, *OTHERS)}}


def split_name(path: Path) -> tuple[str, str]:
    """Root and product of a file, by its name.

    Raises
    ------
    DataError
        If the suffix is not known.
    """
    stem = selection.fits_stem(path)
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if stem is not None and stem.endswith(f"_{suffix}"):
            return stem.removesuffix(f"_{suffix}"), SUFFIXES[suffix]
    known = ", ".join(f"_{s}" for s in dict.fromkeys((*NEAR_INFRARED, *OTHERS)))
    raise DataError(f"{path}: the name tells no product; expected one that ends in {known}")


def find_products(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Exposure -> product -> file: those named, and those beside them that none named takes the place of.

    Raises
    ------
    UsageError
        If nothing is named.
    DataError
        If a file's name tells no product.
    """
    if not files:
        raise UsageError("no files: name any product of an exposure (_uncal, _jump, _rate, ...)")
    found: dict[str, dict[str, Path]] = {}
    folders: dict[str, set[Path]] = {}
    for path in files:
        root, product = split_name(path)
        found.setdefault(root, {})[product] = path
        folders.setdefault(root, set()).add(path.parent)
    for root, products in found.items():
        for folder in sorted(folders[root]):
            for path in sorted(folder.glob(f"{root}_*.fits*")):
                try:
                    beside, product = split_name(path)
                except DataError:
                    continue
                if beside == root:
                    products.setdefault(product, path)
    return found


def open_products(paths: Mapping[str, Path], workdir: Path) -> dict[str, Exposure]:
    """All products of an exposure, opened; they must be of one detector and shape.

    Raises
    ------
    DataError
        If one is broken or does not fit.
    """
    opened = {name: exposures.open_exposure(path, workdir) for name, path in paths.items()}
    some = next(iter(opened.values()))
    for exposure in opened.values():
        if exposure.keyword("DETECTOR") != some.keyword("DETECTOR") or exposure.window != some.window:
            raise DataError(f"{exposure.path}: detector or window differ from those of {some.path.name}")
    return opened


# --- steps -----------------------------------------------------------------------------------------------


def chain(products: Mapping[str, Exposure]) -> list[str]:
    """The ramp products that are there, in the order of the steps."""
    instrument = next(iter(products.values())).keyword("INSTRUME")
    return [name for name in (MIRI if instrument == "MIRI" else NEAR_INFRARED) if name in products]


def step_before(products: Mapping[str, Exposure], name: str) -> str | None:
    """The product that a step began with, as far as it is there."""
    order = chain(products)
    if name == "refpix_nosides":
        at = order.index("refpix") if "refpix" in order else len(order)
        return order[at - 1] if at else None
    at = order.index(name) if name in order else 0
    return order[at - 1] if at else None


def latest_flags(products: Mapping[str, Exposure]) -> Exposure | None:
    """The latest ramp product that has GROUPDQ."""
    return next((products[name] for name in reversed(chain(products)) if "GROUPDQ" in products[name].arrays), None)


# --- pixels ----------------------------------------------------------------------------------------------


def read_plane(exposure: Exposure, name: str, integration: int = 0, group: int = 0) -> NDArray[Any]:
    """One image of a product, (ny, nx); raw ones as float32."""
    layout = exposure[name]
    groups = layout.shape[1] if len(layout.shape) == 4 else 1
    group = group % groups
    plane = read_image(layout, integration * groups + group)
    return plane.astype(np.float32) if plane.dtype == np.uint16 else plane


def read_ramp(exposure: Exposure, name: str, x: int, y: int, integration: int = 0) -> NDArray[Any]:
    """The values of one pixel along its ramp, (ngroups,)."""
    layout = exposure[name]
    groups = layout.shape[1]
    planes = range(integration * groups, (integration + 1) * groups)
    return read_band(layout, y, y + 1, planes=planes)[:, 0, x].copy()
