"""Parameters of ``badpix science``.

The search has no documented model, so both parameter sets are the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.depth import DepthSettings
from badpix.settings.param import Settings, param

TYPES = ("science_hot", "science_warm", "science_low", "science_noisy", "science_switching", "science_outlier")


@dataclass(frozen=True, kw_only=True)
class VarietySettings(Settings):
    """Guards"""

    min_pointings: int = param(
        4,
        "Different pointings below which the run refuses, and a pixel is undetermined: what stands still with the "
        "telescope can't be told from a pixel. In dispersed light a pointing is a visit with one grating.",
        low=1,
        keyword="BPSMINPT",
    )
    min_visits: int = param(
        3,
        "Visits below which the run refuses: their backgrounds differ, which tells low pixels from dark ones.",
        low=1,
        keyword="BPSMINVS",
    )
    pointing_step: float = param(
        0.3, "Pointings closer than this are the same one.", unit="arcsec", low=0.0, keyword="BPSPTSTP"
    )
    max_structure_pixels: int = param(
        20,
        "Touching pixels beyond which a structure is no pixel but light or a reference that is wrong (wisp, ghost, "
        "edge of a trace), and is not flagged.",
        unit="pixels",
        low=2,
        keyword="BPSMXSTR",
    )


@dataclass(frozen=True, kw_only=True)
class ResidualSettings(Settings):
    """Residuals"""

    residual_model: Literal["auto", "imager", "dispersed"] = param(
        "auto",
        "What a pixel is compared with: the middle of the eight pixels around it (imager), of four to each side "
        "along the dispersion (dispersed), or as detector, EXP_TYPE, FILTER and PUPIL tell (auto).",
        keyword="BPSMODEL",
    )
    sharpness: float | None = param(
        None,
        "Largest height of a source over the pixels around it, over the range of these pixels; none: what the point "
        "spread function allows in the filter of each exposure. What neighbors allow of a source counts as noise.",
        low=0.0,
        keyword="BPSSHARP",
    )
    remove_stripes: bool = param(
        True, "Take the mean residual off each line along the fast axis: 1/f noise.", keyword="BPSSTRIP"
    )


@dataclass(frozen=True, kw_only=True)
class ScienceLimitSettings(Settings):
    """Limits"""

    science_sigma: float = param(
        4.2,
        "Pixels whose mean residual is beyond this many of its errors, up or down, are hot, warm or low.",
        unit="sigma",
        low=3.0,
        keyword="BPSSIGMA",
    )
    born_sigma: float = param(
        5.0,
        "A step in time counts as a birth or a recovery above this.",
        unit="sigma",
        low=3.0,
        keyword="BPSBORN",
    )
    max_low_response: float = param(
        0.8,
        "LOW_QE below this response to the light that falls on the pixels around.",
        low=0.0,
        high=1.0,
        keyword="BPSMXLOW",
    )
    noisy_scatter: float = param(
        1.8,
        "Noisy above this robust scatter over exposures, in units of the exposures' own noise.",
        low=1.0,
        keyword="BPSNOISY",
    )
    switching_fraction: float = param(
        0.1,
        "Least fraction of exposures in which a switching pixel is bright, and in which it is dark.",
        low=0.0,
        high=0.5,
        keyword="BPSSWTCH",
    )
    outlier_fraction: float = param(
        0.5,
        "Pixels that an outlier step (`outlier ifu`, `outlier image`, or the pipeline's) flagged in at least this "
        "fraction of the exposures that show them get the type science_outlier.",
        low=0.1,
        high=1.0,
        keyword="BPSOUTLF",
    )
    harm: float = param(
        0.5,
        "Hot pixels whose excess is above this get the type science_hot, fainter ones science_warm.",
        unit="noise of one exposure",
        low=0.0,
        keyword="BPSHARM",
    )


@dataclass(frozen=True, kw_only=True)
class ScienceResultSettings(Settings):
    """Result"""

    science_flags: dict[str, list[str]] = param(
        {
            "science_hot": ["HOT"],
            "science_warm": ["WARM"],
            "science_low": ["LOW_QE"],
            "science_noisy": ["UNRELIABLE_SLOPE"],
            "science_switching": ["UNRELIABLE_SLOPE"],
            "science_outlier": ["OTHER_BAD_PIXEL"],
        },
        "Flags of each type; a partial mapping changes only the types it names.",
        keyword="BPSMAPS",
    )
    science_do_not_use: list[str] = param(
        ["science_hot", "science_low", "science_noisy", "science_switching", "science_outlier"],
        "Types that also get DO_NOT_USE.",
        choices=TYPES,
        keyword="BPSDONOT",
    )


@dataclass(frozen=True, kw_only=True)
class ScienceSettings(VarietySettings, ResidualSettings, ScienceLimitSettings, ScienceResultSettings, DepthSettings):
    """All parameters of ``badpix science``."""

    section: ClassVar[str] = "science"
    title: ClassVar[str] = "badpix science: hot, low, noisy and switching pixels from science exposures"
    inputs: ClassVar[Mapping[str, str]] = {
        "rate": "science exposures of one detector (rate or cal), of any targets; also folders of flagged ones",
    }
