"""Parameters of ``badpix flats``.

Names, defaults and meanings of the first groups are those of the documented algorithm; the last group holds the
corrections, each off in the ``documented`` set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.depth import DepthSettings
from badpix.settings.param import FileName, Settings, param


@dataclass(frozen=True, kw_only=True)
class FlatSearchSettings(Settings):
    """Searches"""

    dead_search: bool = param(True, "Search for DEAD pixels.", keyword="BPFDEAD")
    low_qe_and_open_search: bool = param(True, "Search for LOW_QE, OPEN and ADJ_OPEN pixels.", keyword="BPFLOWQE")
    dead_search_type: Literal["sigma_rate", "absolute_rate"] = param(
        "sigma_rate",
        "With dead_definition search_type: DEAD more than dead_sigma_threshold standard deviations under the "
        "mean (sigma_rate), or below max_dead_norm_signal (absolute_rate).",
        keyword="BPFSCHTP",
    )


@dataclass(frozen=True, kw_only=True)
class NormalizeSettings(Settings):
    """Mean and normalization"""

    flat_mean_sigma_threshold: float = param(
        3.0,
        "Clipping of the samples of a pixel around their median, and of the normalized image around its own.",
        unit="sigma",
        low=0.1,
        keyword="BPFSIGMA",
    )
    flat_mean_normalization_method: Literal["smoothed", "mean", "mesh", "none"] = param(
        "smoothed",
        "What the mean image is divided by: a smoothed copy, its clipped mean, a robust background mesh "
        "(photutils Background2D), or nothing.",
        keyword="BPFNORM",
    )
    smoothing_box_width: int = param(
        15,
        "Width of the smoothing box, and of a cell of the mesh; an even width is raised by one.",
        unit="pixels",
        low=3,
        high=201,
        keyword="BPFSMOTH",
    )
    smoothing_type: Literal["Box2D", "Median"] = param(
        "Box2D", "Smoothing by the mean (Box2D) or the median (Median) of the box.", keyword="BPFSMTYP"
    )


@dataclass(frozen=True, kw_only=True)
class LightSettings(Settings):
    """Light"""

    illumination_model: Literal["auto", "imager", "dispersed"] = param(
        "auto",
        "How the light of the flats is modeled: smooth in all directions (imager), along the dispersion in slices, "
        "slits or traces (dispersed), or as detector, EXP_TYPE, FILTER, PUPIL and GRATING tell (auto).",
        keyword="BPFILLUM",
        documented="imager",
    )
    dispersion_axis: Literal["auto", "x", "y"] = param(
        "auto",
        "Axis of the image along which light is dispersed (illumination_model dispersed); auto takes it from the "
        "detector.",
        keyword="BPFAXIS",
    )
    min_light: float = param(
        0.1,
        "Part of the bright light below which a pixel is dim, and undetermined.",
        low=0.0,
        high=1.0,
        keyword="BPFMINLT",
        documented=0.0,
    )
    mixed_optics: Literal["join", "refuse", "mix"] = param(
        "join",
        "Flats that differ in FILTER, PUPIL, GRATING, LAMP or BAND: search each set apart and join what they say "
        "(join), for a pixel that is poor in one of them would be averaged away; refuse them; or mix them.",
        keyword="BPFMIXED",
        documented="mix",
    )
    max_cluster_pixels: int = param(
        300,
        "Touching low pixels beyond which an area is dark for want of light (a mask, a frame), not a cluster of "
        "defects; lines less than five pixels wide are defects.",
        unit="pixels",
        low=64,
        keyword="BPFMXCLU",
    )
    large_areas: Literal["undetermined", "flag"] = param(
        "undetermined",
        "Pixels of larger areas, and of those with a soft edge, are judged by the area's own light, and undetermined "
        "where that is too little (undetermined), or get the types of single pixels (flag).",
        keyword="BPFAREAS",
        documented="flag",
    )
    min_judged_percent: float | None = param(
        None,
        "Share of the science pixels that must be judged, else the run fails (unless allow_unlit); none means 95, "
        "or what the detector and its mode allow for the dark between slices and slits.",
        unit="percent",
        low=0.0,
        high=100.0,
        keyword="BPFMINJD",
        documented=0.0,
    )
    allow_unlit: bool = param(
        False,
        "Write the mask also where fewer pixels than min_judged_percent could be judged.",
        keyword="BPFUNLIT",
    )


@dataclass(frozen=True, kw_only=True)
class FlatLimitSettings(Settings):
    """Limits"""

    dead_sigma_threshold: float = param(
        5.0, "DEAD below the mean by more than this (sigma_rate).", unit="sigma", low=0.0, keyword="BPFDEDSG"
    )
    max_dead_norm_signal: float | None = param(
        None,
        "DEAD below this (absolute_rate), and the lower limit of LOW_QE; none means 0.05, or the detector's "
        "limit in DN/s where nothing is normalized.",
        unit="normalized rate",
        low=0.0,
        keyword="BPFMXDED",
    )
    max_low_qe_norm_signal: float = param(
        0.5, "LOW_QE or OPEN below this.", unit="normalized rate", low=0.0, keyword="BPFMXLQE"
    )
    max_open_adj_norm_signal: float = param(
        1.05,
        "OPEN if all side neighbors lie above this (open_test neighbors).",
        unit="normalized rate",
        low=0.0,
        keyword="BPFMXOAD",
    )


@dataclass(frozen=True, kw_only=True)
class FluxCheckSettings(Settings):
    """Flux check"""

    run_dead_flux_check: bool = param(
        False,
        "A DEAD pixel stays DEAD only if the last four groups of the raw flats lie below flux_check.",
        keyword="BPFFXCHK",
    )
    dead_flux_check_files: list[FileName] | None = param(
        None, "Raw flats (uncal) for the flux check; none means those beside the slope files."
    )
    flux_check: float = param(
        45000.0,
        "Raw signal, bias included, below which a pixel collects no light.",
        unit="DN",
        low=0.0,
        keyword="BPFZEROF",
    )


@dataclass(frozen=True, kw_only=True)
class FlatResultSettings(Settings):
    """Result"""

    manual_flag_file: FileName | None = param(
        None,
        "List of pixels (x y flag) that are added; default means the detector's shipped list, if it has one.",
        keyword="BPFMANFL",
        documented="default",
    )
    flat_do_not_use: list[str] = param(
        [],
        "Types that also get DO_NOT_USE; a list that names types is followed to the letter.",
        choices=("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN"),
        keyword="BPFDONOT",
    )
    do_not_use_policy: Literal["all", "listed"] = param(
        "all",
        "Where flat_do_not_use names nothing: all types get DO_NOT_USE (all), or none does (listed).",
        keyword="BPFPOLCY",
        documented="listed",
    )


@dataclass(frozen=True, kw_only=True)
class FlatCorrectionSettings(Settings):
    """Corrections to the documented method"""

    dead_definition: Literal["response", "search_type"] = param(
        "response",
        "DEAD means no response, below max_dead_norm_signal (response), or what dead_search_type says "
        "(search_type): 5 sigma under the mean is a pixel that still works.",
        keyword="BPFDEFIN",
        documented="search_type",
    )
    lamp_scaling: Literal["median", "none"] = param(
        "median",
        "Divide each sample by its median before they are combined: lamps drift.",
        keyword="BPFLAMP",
        documented="none",
    )
    smoothing_edges: Literal["renormalized", "padded"] = param(
        "renormalized",
        "Average over the pixels that exist (renormalized), or pad the image with its median (padded), which "
        "calls pixels along the border dead where the lamp has a gradient.",
        keyword="BPFEDGE",
        documented="padded",
    )
    mask_iterations: int = param(
        4,
        "Rounds in which deviating pixels are left out of the smoothing, so that defects do not pull it.",
        low=0,
        high=10,
        keyword="BPFITER",
        documented=0,
    )
    mask_sigma: float = param(
        4.0, "Deviation beyond which a pixel is left out of the smoothing.", unit="sigma", low=1.0, keyword="BPFMSKSG"
    )
    ipc_correction: Literal["auto", "given", "none"] = param(
        "auto",
        "Take out the charge that couples in from neighbors: as measured in the flats, else the detector's "
        "constant (auto); a given coupling (given); not at all (none).",
        keyword="BPFIPC",
        documented="none",
    )
    ipc_coupling: float | None = param(
        None,
        "Share of a pixel's signal seen in each side neighbor (ipc_correction given).",
        low=0.0,
        high=0.1,
        keyword="BPFIPCV",
    )
    open_test: Literal["excess", "neighbors"] = param(
        "excess",
        "OPEN by the mean excess of the good side neighbors (excess), or by all of them above "
        "max_open_adj_norm_signal (neighbors).",
        keyword="BPFOPNTS",
        documented="neighbors",
    )
    min_open_excess: float = param(
        0.035,
        "OPEN above this mean excess of the side neighbors.",
        unit="normalized rate",
        low=0.0,
        keyword="BPFOPNEX",
    )
    open_sigma: float = param(
        3.5, "OPEN above this significance of the mean excess.", unit="sigma", low=0.0, keyword="BPFOPNSG"
    )
    exclusive_types: bool = param(
        True,
        "Give each pixel one type: OPEN before DEAD before LOW_QE before ADJ_OPEN.",
        keyword="BPFEXCL",
        documented=False,
    )


@dataclass(frozen=True, kw_only=True)
class FlatSettings(
    FlatSearchSettings,
    NormalizeSettings,
    LightSettings,
    FlatLimitSettings,
    FluxCheckSettings,
    FlatResultSettings,
    FlatCorrectionSettings,
    DepthSettings,
):
    """All parameters of ``badpix flats``."""

    section: ClassVar[str] = "flats"
    title: ClassVar[str] = "badpix flats: DEAD, LOW_QE, OPEN and ADJ_OPEN pixels from flat-field exposures"
    inputs: ClassVar[Mapping[str, str]] = {
        "rate": "slope images of the flats (rate or rateints)",
        "uncal": "raw flats for the flux check",
        "raw": "raw flats that `badpix rebuild` puts through the pipeline's first stage (section prepare)",
    }
