"""badpix: bad-pixel masks and outlier flags for JWST detectors.

The names below are imported when they are first used: ``import badpix`` takes a few milliseconds, and so does
``badpix --help``. What they do is told in :mod:`badpix.api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# Public name: the module that it comes from.
_PLACES = {
    "DefectMask": "api.result",
    "find_flat_defects": "api.defects",
    "find_dark_defects": "api.defects",
    "find_science_defects": "api.science",
    "read_mask": "api.masks",
    "write_mask": "api.masks",
    "merge": "api.masks",
    "check": "api.masks",
    "explain": "api.masks",
    "compare": "api.masks",
    "depth": "api.masks",
    "tune": "api.depths",
    "make_families": "api.depths",
    "Flagged": "api.outliers",
    "flag_ifu": "api.outliers",
    "flag_image": "api.outliers",
    "Score": "api.simulated",
    "simulate": "simulation.files",
    "score": "api.simulated",
    "FlatSettings": "settings.flats",
    "DarkSettings": "settings.darks",
    "ScienceSettings": "settings.science",
    "MergeSettings": "settings.merge",
    "ReferenceSettings": "settings.reference",
    "CheckSettings": "settings.check",
    "IfuSettings": "settings.ifu",
    "ImageSettings": "settings.image",
    "SimulateSettings": "settings.simulate",
    "BadpixError": "errors",
    "DataError": "errors",
    "UsageError": "errors",
    "CheckError": "errors",
}

if TYPE_CHECKING:
    from badpix.api.defects import find_dark_defects, find_flat_defects
    from badpix.api.depths import make_families, tune
    from badpix.api.masks import check, compare, depth, explain, merge, read_mask, write_mask
    from badpix.api.outliers import Flagged, flag_ifu, flag_image
    from badpix.api.result import DefectMask
    from badpix.api.science import find_science_defects
    from badpix.api.simulated import Score, score
    from badpix.errors import BadpixError, CheckError, DataError, UsageError
    from badpix.settings.check import CheckSettings
    from badpix.settings.darks import DarkSettings
    from badpix.settings.flats import FlatSettings
    from badpix.settings.ifu import IfuSettings
    from badpix.settings.image import ImageSettings
    from badpix.settings.merge import MergeSettings
    from badpix.settings.reference import ReferenceSettings
    from badpix.settings.science import ScienceSettings
    from badpix.settings.simulate import SimulateSettings
    from badpix.simulation.files import simulate

__all__ = [
    "BadpixError",
    "CheckError",
    "CheckSettings",
    "DarkSettings",
    "DataError",
    "DefectMask",
    "Flagged",
    "FlatSettings",
    "IfuSettings",
    "ImageSettings",
    "MergeSettings",
    "ReferenceSettings",
    "ScienceSettings",
    "Score",
    "SimulateSettings",
    "UsageError",
    "check",
    "compare",
    "depth",
    "explain",
    "find_dark_defects",
    "find_flat_defects",
    "find_science_defects",
    "flag_ifu",
    "flag_image",
    "make_families",
    "merge",
    "read_mask",
    "score",
    "simulate",
    "tune",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'badpix' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"badpix.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
