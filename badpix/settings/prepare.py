"""Parameters of ``badpix prepare``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from badpix.settings.param import FileName, Settings, param

# Products that can be kept, in the order of the pipeline.
RAMPS = ("dq_init", "saturation", "superbias", "refpix", "refpix_nosides", "linearity", "dark_current", "jump")

PRODUCTS = ("uncal", *RAMPS, "rate", "rateints", "fitopt")

# Reference types that the first stage asks for, and what they hold.
REFERENCE_TYPES = {
    "mask": "the mask in use (dq_init)",
    "saturation": "saturation limits",
    "superbias": "superbias (near infrared)",
    "refpix": "interleaved reference pixels (NIRSpec IRS2)",
    "linearity": "linearity coefficients",
    "dark": "mean dark current",
    "reset": "reset anomaly (MIRI)",
    "rscd": "groups to leave out at the start (MIRI)",
    "emicorr": "electromagnetic interference (MIRI)",
    "ipc": "inter-pixel capacitance",
    "gain": "gain (jump, ramp_fit)",
    "readnoise": "read noise (jump, ramp_fit)",
}


@dataclass(frozen=True, kw_only=True)
class PrepareResultSettings(Settings):
    """Result"""

    products: list[str] = param(
        ["uncal", "rate", "rateints", "jump", "fitopt"],
        "Products to keep; uncal is a link to the raw file, refpix_nosides a second refpix run without side "
        "reference pixels.",
        choices=PRODUCTS,
    )
    directory: FileName | None = param(
        None,
        "Folder for the products of raw exposures that `badpix rebuild` starts from, with a folder for each "
        "detector in it; none: beside the mask.",
    )
    fitopt_segments: int | None = param(
        3, "Segments that fitopt keeps: the most broken ramp decides their number, and thirty fill a disk.", low=1
    )


@dataclass(frozen=True, kw_only=True)
class StepSettings(Settings):
    """Steps"""

    known_flags: Literal["clear", "keep"] = param(
        "clear",
        "Flags that the mask in use puts on science pixels: taken off after dq_init, so that every pixel gets "
        "a slope and is judged anew (clear), or left (keep): the pipeline fits no slope to a DO_NOT_USE pixel.",
    )
    subtract_dark: Literal["flats", "never", "always"] = param(
        "flats", "Run dark_current on flats alone, never, or on darks as well, where it hides what they are to show."
    )
    skip: list[str] = param([], "Steps to leave out.")
    steps: dict[str, dict[str, Any]] = param(
        {}, "Parameters of single steps by their names in the pipeline, laid over its defaults and those of CRDS."
    )


@dataclass(frozen=True, kw_only=True)
class ReferenceFileSettings(Settings):
    """Reference files"""

    references: Literal["auto", "crds", "named", "simulation"] = param(
        "auto",
        "Where reference files come from: CRDS (server or cache), the named ones alone (no server is asked; "
        "steps without theirs are skipped), or made from the simulation's own parameters; auto: simulation for "
        "simulated exposures, crds for others.",
    )
    override_mask: FileName | None = param(None, "Reference file for the mask in use (dq_init).")
    override_saturation: FileName | None = param(None, "Reference file for saturation limits.")
    override_superbias: FileName | None = param(None, "Reference file for superbias (near infrared).")
    override_refpix: FileName | None = param(None, "Reference file for interleaved reference pixels (NIRSpec IRS2).")
    override_linearity: FileName | None = param(None, "Reference file for linearity coefficients.")
    override_dark: FileName | None = param(None, "Reference file for mean dark current.")
    override_reset: FileName | None = param(None, "Reference file for reset anomaly (MIRI).")
    override_rscd: FileName | None = param(None, "Reference file for groups to leave out at the start (MIRI).")
    override_emicorr: FileName | None = param(None, "Reference file for electromagnetic interference (MIRI).")
    override_ipc: FileName | None = param(None, "Reference file for inter-pixel capacitance.")
    override_gain: FileName | None = param(None, "Reference file for gain (jump, ramp_fit).")
    override_readnoise: FileName | None = param(None, "Reference file for read noise (jump, ramp_fit).")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings(PrepareResultSettings, StepSettings, ReferenceFileSettings):
    """All parameters of ``badpix prepare``."""

    section: ClassVar[str] = "prepare"
    title: ClassVar[str] = "badpix prepare: raw ramps through the pipeline's first stage"
    inputs: ClassVar[Mapping[str, str]] = {"raw": "raw ramps (_uncal)"}
