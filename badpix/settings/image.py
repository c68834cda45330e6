"""Parameters of ``outlier image``.

The first groups carry the documented names and default values. What the default search does beyond the
documented rule is named in the later groups; in the ``documented`` set each of these stands at the value that
changes nothing."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.param import FileName, Settings, param


@dataclass(frozen=True, kw_only=True)
class RuleSettings(Settings):
    """Documented rule"""

    snr: tuple[float, float] = param(
        (5.0, 4.0),
        "Noise limits of the first pass and of the pass on neighbors, exceeded strictly; the better test "
        "multiplies them with snr_factor.",
        unit="sigma",
        low=0.0,
    )
    scale: tuple[float, float] = param(
        (1.2, 0.7),
        "Fractions of the model's local derivative that a difference must exceed in the two passes; the "
        "better test multiplies them with scale_factor.",
        low=0.0,
    )
    backg: float = param(
        0.0,
        "Background added to the model where no keyword of the exposure names one (documented test only).",
        unit="data units",
    )
    maskpt: float = param(
        0.7, "Mosaic pixels below this fraction of the clipped mean weight are no data.", low=0.0, high=1.0
    )


@dataclass(frozen=True, kw_only=True)
class DrizzleSettings(Settings):
    """Documented resampling"""

    resample_data: bool = param(
        True, "Resample onto a common grid; false compares undithered images of one shape directly (one pass)."
    )
    weight_type: Literal["ivm", "exptime"] = param("ivm", "Weights: inverse read-noise variance, or exposure time.")
    kernel: Literal["square", "point", "turbo"] = param("square", "Drizzle kernel.")
    pixfrac: float = param(1.0, "Fraction to which input pixels are shrunk.", low=0.0, high=1.0)
    fillval: str = param("NAN", "Value of mosaic pixels without data: NAN, INDEF or a number.")
    good_bits: str | None = param(
        "~DO_NOT_USE",
        "DQ flags that don't rule a pixel out; ~ inverts; 0 = every flag rules out; none = DQ is not used.",
    )
    pixmap_stepsize: float = param(
        1.0, "Spacing of the pixel map's nodes; 1 = exact to 1e-6 pixel.", unit="pixels", low=1.0
    )
    pixmap_order: int = param(
        1, "Order of the spline through the nodes, 1 or 3, where the spacing is above 1.", low=1, high=3
    )


@dataclass(frozen=True, kw_only=True)
class ImageRunSettings(Settings):
    """Documented run options"""

    save_intermediate_results: bool = param(False, "Also write _outlier_i2d, _median and _blot files.")
    in_memory: bool = param(
        True, "Accepted as documented; exposures are always streamed, and the results are the same."
    )


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Model of the sky"""

    reference: Literal["others", "all"] = param(
        "others", "Compare an exposure with the median of the other groups, or of all.", documented="all"
    )
    moving_target: Literal["auto", "never"] = param(
        "auto",
        "Align exposures that followed a moving target (TARGTYPE, MT_RA, MT_DEC) on it, as the pipeline's step "
        "assign_mtwcs does before this one.",
        documented="never",
    )
    reference_noise: float | None = param(
        2.0,
        "A group whose median ERR exceeds this many times the median over the groups is no reference for the "
        "others (reference others, more than two groups); it is searched itself. none = all are.",
        low=1.0,
        documented=None,
    )
    roll_tolerance: float | None = param(
        2.0,
        "Groups whose roll angles differ by more are no model of each other's diffraction spikes: an exposure is "
        "compared with its own angle first. none = all are alike.",
        unit="degrees",
        low=0.0,
        high=360.0,
        documented=None,
    )
    persistent_snr: float = param(
        4.0,
        "Pixels above this limit in three quarters of a detector's exposures, alone and steady while the sky "
        "moves (or sharper than a star where it stays), are hot: flagged, and no part of the model; 0 = not looked "
        "for.",
        unit="sigma",
        low=0.0,
        documented=0.0,
    )
    agree_sigma: float = param(
        3.0, "The two middle values of the others agree within this many sigma ...", unit="sigma", low=0.0
    )
    agree_gradient: float = param(
        0.7, "... plus this fraction of the local derivative; else the lower one counts.", low=0.0
    )
    blot_interp: Literal["linear", "poly3", "poly5"] = param(
        "poly3", "Interpolation of the model at the pixels of an exposure.", documented="linear"
    )
    resampler: Literal["direct", "library"] = param(
        "direct",
        "How mosaics and cubic models are made: by shared areas to first order in the small angle between image and "
        "grid, in a quarter of the time, or by the drizzle package (also for what the first can't do).",
        documented="library",
    )
    sharpen: bool = param(True, "Undo the blur of drizzle by a kernel learned in each exposure.", documented=False)
    sharpen_size: int = param(5, "Width of that kernel; odd.", unit="pixels", low=3, high=9)
    sky_match: Literal["auto", "always", "never"] = param(
        "auto",
        "Measure the sky differences of overlapping exposures: where a member lacks BKGLEVEL, always, never.",
        documented="never",
    )


@dataclass(frozen=True, kw_only=True)
class NoiseSettings(Settings):
    """Noise and test"""

    test: Literal["significance", "documented"] = param(
        "significance", "The better test, or the documented rule.", documented="documented"
    )
    noise: Literal["exposure", "median", "both", "expected"] = param(
        "expected",
        "Noise of a difference: ERR; the model's; both; or what the pixel would have without the hit, and "
        "the model's.",
        documented="exposure",
    )
    snr_factor: tuple[float, float] = param((0.9, 0.75), "Factors on snr in the better test.", low=0.0)
    scale_factor: tuple[float, float] = param((0.5, 0.57), "Factors on scale in the better test.", low=0.0)
    snr_dark: float = param(
        6.0, "Noise limit of pixels that are too faint; 0 = not looked for.", unit="sigma", low=0.0
    )


@dataclass(frozen=True, kw_only=True)
class SourceSettings(Settings):
    """Sources, trails, single coverage"""

    conserve: float = param(
        0.8,
        "On steep pixels the excess must survive in the sum over 3x3 by this fraction: a hit adds, another "
        "sub-pixel phase only moves flux.",
        low=0.0,
    )
    protect_sources: float = param(
        0.9, "Guard of source cores: derivatives that a flag must exceed; 0 = off.", low=0.0
    )
    stand_out: float = param(
        2.5,
        "On steep pixels a flag without company must exceed this many times the largest difference, in local "
        "derivatives, of the unflagged steep pixels in 7x7; 0 = off.",
        low=0.0,
    )
    core_snr: float = param(
        5.0,
        "Limit of pixels of stars against the profile that all stars share, which knows the sub-pixel phase of each; "
        "flags that it explains are taken back; 0 = off.",
        unit="sigma",
        low=0.0,
        documented=0.0,
    )
    trail_snr: float = param(
        8.0, "Limit of a line of 9 pixels in the search for trails; 0 = off.", unit="sigma", low=0.0, documented=0.0
    )
    wide_snr: float = param(
        8.0,
        "Limit of 12 x 12 pixels in the search for what is faint but wide in one exposure, such as trails out of "
        "focus and halos of snowballs; 0 = off.",
        unit="sigma",
        low=0.0,
        documented=0.0,
    )
    transient_snr: float = param(
        20.0,
        "Star-shaped differences above this limit in a minority of the exposures are listed as transients or moving "
        "objects; 0 = not looked for.",
        unit="sigma",
        low=0.0,
        documented=0.0,
    )
    keep_transients: bool = param(False, "Take the flags on listed transients and moving objects back.")
    protect: FileName | None = param(
        None, "Catalog (RA, Dec in degrees, radius in arcsec) or DS9 regions of places that are not flagged."
    )
    single_coverage: Literal["sharpness", "none"] = param(
        "sharpness", "Test where no other exposure looked: sharper than any star, or none.", documented="none"
    )


@dataclass(frozen=True, kw_only=True)
class AuditSettings(Settings):
    """Audit"""

    audit: bool = param(True, "List the sources that lost flux to flags.", documented=False)
    audit_snr: float = param(
        10.0, "Sources of the median image above this many times its noise are audited.", unit="sigma", low=1.0
    )
    audit_loss: float = param(0.01, "Loss of flux above which a source is listed.", low=0.0, high=1.0)
    max_flagged: float = param(
        5.0,
        "Stop with exit status 3, and write nothing, if more of the usable pixels of an exposure became unusable.",
        unit="percent",
        low=0.0,
        high=100.0,
        documented=100.0,
    )


@dataclass(frozen=True, kw_only=True)
class ImageSettings(
    RuleSettings, DrizzleSettings, ImageRunSettings, ModelSettings, NoiseSettings, SourceSettings, AuditSettings
):
    """All parameters of ``outlier image``."""

    section: ClassVar[str] = "image"
    title: ClassVar[str] = "outlier image: cosmic rays and blemishes in dithered images"
