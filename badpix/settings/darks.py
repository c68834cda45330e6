"""Parameters of ``badpix darks``.

Names, defaults and meanings of the documented parameters are those of the documented algorithm. What is corrected
or added has names of its own; the two parameter sets differ in values only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.depth import DepthSettings
from badpix.settings.param import FileName, Settings, param

KEYS = ("hot", "warm", "intermittent", "noisy", "rc", "low_pedestal", "high_cr", "telegraph")

FLAG_VALUES = {
    "hot": ["HOT"],
    "warm": ["WARM"],
    "intermittent": ["HOT", "UNRELIABLE_DARK"],
    "noisy": ["UNRELIABLE_SLOPE"],
    "rc": ["RC"],
    "low_pedestal": ["OTHER_BAD_PIXEL"],
    "high_cr": ["TELEGRAPH"],
    "telegraph": ["TELEGRAPH"],
}


@dataclass(frozen=True, kw_only=True)
class SaturatedSettings(Settings):
    """Saturated throughout"""

    max_saturated_fraction: float = param(
        0.5,
        "Fraction of integrations in which a pixel must be saturated throughout to be HOT (equal counts).",
        low=0.0,
        high=1.0,
        keyword="BPDMXSAT",
    )
    saturated_search_type: Literal["level", "pedestal"] = param(
        "level",
        "Saturated throughout: saturated in the first usable group and at a level of its own (level), or "
        "saturated in the first group with a pedestal of 0 (pedestal), which also takes the neighbors that the "
        "saturation step's growth marked.",
        documented="pedestal",
    )
    saturated_level_fraction: float = param(
        0.5,
        "Level of the first usable group over that of the brightest saturated pixel among its 8 neighbors, from "
        "which on a pixel is saturated itself (equal counts).",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class HotSettings(Settings):
    """Hot and warm"""

    hot_sigma_threshold: float | None = param(
        10.0,
        "HOT above this many sigma of the rate of one integration over the local median; none: not searched.",
        unit="sigma",
        low=1.0,
        documented=None,
    )
    hot_max_rate: float | None = param(
        None,
        "HOT above this dark rate, whatever the sigma; with hot_sigma_threshold none, the only limit.",
        unit="DN/s",
        low=0.0,
    )
    hot_fraction: float = param(
        0.5, "Fraction of integrations in which the rate must be above the limit (equal counts).", low=0.01, high=1.0
    )
    hot_own_threshold: float = param(
        3.5,
        "The rate must also be above this many times the pixel's own scatter from integration to integration.",
        unit="sigma",
        low=0.0,
    )
    hot_late_fraction: float = param(
        0.5,
        "The slope of the second half of the ramp must be above this fraction of the whole ramp's: a hot pixel "
        "goes on, one that settles stops.",
        low=0.0,
        high=1.0,
    )
    hot_overrun_fraction: float = param(
        0.03,
        "A pixel that is cut short by saturation beside a brighter such pixel is HOT only above this fraction of "
        "its rate: the rest is the growth of the saturation flag and what the correction leaves of leaked charge.",
        low=0.0,
        high=1.0,
    )
    hot_late_overrun_fraction: float = param(
        0.02,
        "The same where min_groups groups and more are left: the pixel's own rate is known better.",
        low=0.0,
        high=1.0,
    )
    hot_leak_fraction: float = param(
        0.2,
        "A pixel is HOT only above this part of the IPC (ipc) times the rates of its 8 neighbors together: the "
        "correction leaves that much at sides and corners.",
        low=0.0,
        high=1.0,
    )
    warm_sigma_threshold: float | None = param(
        None, "WARM above this many sigma and not HOT; none: not searched.", unit="sigma", low=1.0
    )
    time_search: bool = param(
        True,
        "Use the order of the darks in time: HOT that began within them, intermittent pixels, and pixels that "
        "recovered or show persistence, which are not flagged.",
        documented=False,
    )
    intermittent_fraction: float = param(
        0.15,
        "Least fraction of the darks in which an intermittent pixel is hot, and of the integrations in which an RC "
        "pixel settles (equal counts); at least two integrations.",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, kw_only=True)
class NoisySettings(Settings):
    """Noisy"""

    dark_stdev_clipping_sigma: float = param(
        5.0,
        "Clipping of the image of standard deviations of clean slopes (noisy_search_type slopes).",
        unit="sigma",
        low=0.1,
        keyword="BPDCLPSG",
    )
    dark_max_clipping_iters: int = param(5, "Most iterations of that clipping.", low=0, keyword="BPDCLPIT")
    dark_noisy_threshold: float = param(
        5.0,
        "Noisy above this many standard deviations over the mean (noisy_search_type slopes).",
        unit="sigma",
        low=0.1,
        keyword="BPDNSETH",
    )
    noisy_search_type: Literal["ramp", "slopes"] = param(
        "ramp",
        "Noise within the ramps (ramp), or standard deviation of clean slopes over integrations (slopes).",
        documented="slopes",
    )
    noisy_sigma_threshold: float = param(
        3.8,
        "Noisy above this many sigma of the logarithm of the noise over all pixels (noisy_search_type ramp).",
        unit="sigma",
        low=1.0,
    )
    noisy_min_ratio: float = param(
        1.5, "A noisy pixel's noise is also above this many times the median noise.", low=1.0
    )
    noisy_min_slopes: int = param(
        5, "Clean slopes below which a standard deviation is not measured (noisy_search_type slopes).", low=2
    )
    noisy_without_data: bool = param(
        False,
        "Whether pixels with too few clean slopes are noisy (true) or undetermined (noisy_search_type slopes).",
        documented=True,
    )


@dataclass(frozen=True, kw_only=True)
class RcSettings(Settings):
    """RC and inverse RC"""

    rc_search_type: Literal["shape", "pedestal"] = param(
        "shape",
        "RC by the shape of the ramp, both signs (shape), or by high pedestal or many early jumps (pedestal).",
        documented="pedestal",
    )
    pedestal_sigma_threshold: float = param(
        5.0,
        "Limit of high (rc_search_type pedestal) and low pedestals, in sigma of their distribution.",
        unit="sigma",
        low=0.1,
        keyword="BPDPEDTH",
    )
    max_jump_limit: int = param(
        10, "Jumps in one integration from which on they are many (equal counts).", low=1, keyword="BPDMXJMP"
    )
    jump_ratio_threshold: float = param(
        5.0,
        "Early over late jump rate from which on a pixel with many jumps is RC (equal counts).",
        low=0.0,
        keyword="BPDJPRAT",
    )
    early_cutoff_fraction: float = param(
        0.25,
        "Part of the ramp that is early, and that is late; more than 0, at most 0.5.",
        low=0.001,
        high=0.5,
        keyword="BPDCUTFC",
    )
    rc_fraction_threshold: float = param(
        0.8,
        "RC above this fraction of integrations (rc_search_type pedestal); the documentation counts files, which "
        "is the same where each holds one integration.",
        low=0.0,
        high=1.0,
        keyword="BPDRCTH",
    )
    rc_sigma_threshold: float = param(
        5.5,
        "RC above this many sigma of the mean contrast of the ramp with a decay (rc_search_type shape).",
        unit="sigma",
        low=1.0,
    )
    rc_median_threshold: float = param(
        4.0, "The median contrast over integrations must also be above this many sigma.", unit="sigma", low=0.0
    )
    rc_sign_fraction: float = param(
        0.75,
        "Fraction of integrations in which the contrast must have the same sign (equal counts).",
        low=0.0,
        high=1.0,
    )
    rc_scatter_limit: float = param(
        0.5, "Largest scatter of the contrast over integrations, in units of its median: settling repeats.", low=0.0
    )
    rc_linear_fraction: float = param(
        0.1,
        "Smallest contrast in units of the signal of the whole ramp: below it lies what the linearity correction "
        "leaves of bright pixels.",
        low=0.0,
    )
    rc_explained_fraction: float = param(
        0.8,
        "Part of the residuals that the decay must explain, unless the rest is as quiet as a good pixel.",
        low=0.0,
        high=1.0,
    )
    rc_rest_limit: float = param(
        2.5,
        "Residual variance without the decay, in units of the median pixel's, up to which the rest is quiet.",
        low=0.0,
    )
    rc_own_rest_limit: float = param(
        1.2, "The same in units of the pixel's own white noise: a noisy pixel may settle, too.", low=0.0
    )


@dataclass(frozen=True, kw_only=True)
class TelegraphSettings(Settings):
    """Telegraph and many jumps"""

    telegraph_search: bool = param(
        True, "Search for pixels that switch between two levels, by the likelihood of their ramps.", documented=False
    )
    telegraph_likelihood: float = param(
        4.5,
        "TELEGRAPH above this logarithm of the likelihood of two levels over that of one, or above what 3 of "
        "100,000 good pixels of these darks reach.",
        low=0.0,
    )
    telegraph_suspects: float = param(
        0.03,
        "Fraction of the pixels whose ramps are compared with two levels, group by group: those with the largest "
        "and longest residuals. In deep sets a smaller one is enough, and taken.",
        low=0.01,
        high=1.0,
    )
    telegraph_bent_threshold: float = param(
        3.5,
        "TELEGRAPH above this score (correlation, flatness and size of the residuals together) for ramps that bend "
        "as strongly as RC, but not alike in all integrations.",
        unit="sigma",
        low=0.0,
    )
    telegraph_drop_sigma: float = param(
        4.5,
        "Depth of a step down, in units of the pixel's own noise of a step, that no noise makes; such steps in "
        "several integrations mean TELEGRAPH.",
        unit="sigma",
        low=3.0,
    )
    high_cr_search: bool = param(False, "Search for pixels with many jumps in most integrations.", documented=True)
    high_cr_fraction: float = param(
        0.8,
        "Many jumps in more than this fraction of integrations: high_cr. The documentation counts files, which "
        "is the same where each holds one integration.",
        low=0.0,
        high=1.0,
        keyword="BPDCRFC",
    )


@dataclass(frozen=True, kw_only=True)
class PedestalSettings(Settings):
    """Low pedestal"""

    low_pedestal_search_type: Literal["mean", "votes"] = param(
        "mean",
        "Mean pedestal over integrations against its surroundings (mean), or the fraction of integrations in "
        "which it is low (votes).",
        documented="votes",
    )
    low_pedestal_fraction: float = param(
        0.8,
        "Low pedestal above this fraction of integrations (low_pedestal_search_type votes); the documentation "
        "counts files, which is the same where each holds one integration.",
        low=0.0,
        high=1.0,
        keyword="BPDLOPFC",
    )
    low_pedestal_sigma_threshold: float = param(
        4.5,
        "Mean pedestals below this many sigma of their distribution are low (low_pedestal_search_type mean).",
        unit="sigma",
        low=1.0,
    )
    bias_map: FileName | None = param(
        None,
        "FITS file whose first image is subtracted from the pedestals: finds low pedestals of MIRI, whose ramps "
        "hold the bias, down to the noise.",
    )


@dataclass(frozen=True, kw_only=True)
class DarkDataSettings(Settings):
    """Data"""

    min_integrations: int = param(
        3, "Usable integrations below which a pixel is undetermined; never a defect for want of data.", low=1
    )
    examined_integrations: int = param(
        32,
        "Integrations whose ramps are examined for noise and shape (noisy, RC, TELEGRAPH), evenly spread over "
        "all darks. Pedestals, jumps, saturation and rates come from every integration; of ramps that jump, the "
        "rates of the examined ones alone.",
        low=5,
    )
    min_groups: int = param(5, "Usable groups below which an integration does not count for a pixel.", low=2)
    ipc: float | None = param(
        None,
        "Signal of a side neighbor over that of a hot pixel (inter-pixel capacitance); none: measured in the "
        "darks, or the detector's usual value where too few hot pixels are there.",
        low=0.0,
        high=0.2,
        documented=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class DarkResultSettings(Settings):
    """Result"""

    flag_values: dict[str, list[str]] = param(
        FLAG_VALUES,
        "Flags of each type; a partial mapping changes only the types it names.",
        keyword="BPDMAPS",
        documented={**FLAG_VALUES, "noisy": ["TELEGRAPH"]},
    )
    dark_do_not_use: list[str] = param(
        ["hot", "intermittent", "noisy", "rc", "low_pedestal", "high_cr", "telegraph"],
        "Types that also get DO_NOT_USE.",
        choices=KEYS,
        keyword="BPDDONOT",
        documented=["hot", "noisy", "rc", "low_pedestal", "high_cr"],
    )


@dataclass(frozen=True, kw_only=True)
class DarkSettings(
    SaturatedSettings,
    HotSettings,
    NoisySettings,
    RcSettings,
    TelegraphSettings,
    PedestalSettings,
    DarkDataSettings,
    DarkResultSettings,
    DepthSettings,
):
    """All parameters of ``badpix darks``."""

    section: ClassVar[str] = "darks"
    title: ClassVar[str] = "badpix darks: HOT, noisy, RC, TELEGRAPH and low-pedestal pixels from dark ramps"
    inputs: ClassVar[Mapping[str, str]] = {
        "rate": "slope images of the darks (rate; rateints where there are several integrations)",
        "jump": "ramps with jumps flagged (_jump), one for each rate file",
        "fitopt": "optional output of the ramp fit (_fitopt), one for each rate file",
        "uncal": "raw ramps (_uncal), for the documented MIRI search only",
        "raw": "raw ramps that `badpix rebuild` puts through the pipeline's first stage (section prepare)",
    }
