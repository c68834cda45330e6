"""Parameters of ``badpix simulate``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.param import FileName, Settings, param

PRODUCTS = ("uncal", "rate", "rateints", "jump", "fitopt")
CONDITIONS = {
    "intermittent": "pixels hot in 20 to 50 % of the darks",
    "born": "pixels hot in the newest darks alone",
    "recovered": "pixels hot in the oldest darks alone",
    "drift": "dark rates that change from dark to dark, 0.3 to 3 times",
    "switching": "dark rates that switch over several darks",
    "settling": "pixels that settle (RC) in a part of the darks",
    "temperature": "the dark current of each dark 0.6 to 2.5 times the usual one",
    "persistence": "charge of a bright field that decays from dark to dark",
    "mixed": "every third dark shorter, of averaged frames where the detector has such a pattern",
    "clusters": "clusters of hot pixels that saturate within the ramp",
    "glow": "amplifier glow along one side, and a light leak",
    "outputs": "read noise 0.8 to 1.6 times the mean, by output",
    "places": "read noise that rises toward the borders, as a picture frame",
    "voids": "areas of 42 % less response",
    "tails": "read noise with tails: Student's t of 10 degrees of freedom",
    "heavy_tails": "the same of 4 degrees",
    "averaged": "particles in the middle of averaged groups; 4 frames a group unless readout is given",
    "solar": "14 times the cosmic rays",
    "unreset": "MIRI: settling that differs from pixel to pixel, without the reset and RSCD corrections",
}


@dataclass(frozen=True, kw_only=True)
class SimulatedDetectorSettings(Settings):
    """Detector"""

    detector: str = param("NRCALONG", "Detector to simulate.")
    size: tuple[int, int] | None = param(
        None,
        "Columns and rows of a small detector of the same kind, with reference pixels on the "
        "same sides; none: full frame.",
        low=16,
        high=2048,
    )
    window: tuple[int, int] | None = param(
        None, "Columns and rows of a window of the real frame, placed by start; none: full frame.", low=16, high=2048
    )
    start: tuple[int, int] = param(
        (1, 1), "First column and row of the window, 1-based as in SUBSTRT.", low=1, high=2048
    )
    subarray: str | None = param(None, "Value of SUBARRAY; none: FULL, or a legal name.")


@dataclass(frozen=True, kw_only=True)
class SimulatedExposureSettings(Settings):
    """Exposures"""

    readout: str | None = param(None, "Readout pattern; none: one frame a group.")
    flats: int = param(5, "Number of flat exposures.", low=0, high=999)
    darks: int = param(5, "Number of dark exposures.", low=0, high=999)
    flat_groups: int = param(10, "Groups of each integration of a flat.", low=2, high=2000)
    dark_groups: int = param(20, "Groups of each integration of a dark.", low=2, high=2000)
    integrations: int = param(1, "Integrations of each exposure.", low=1, high=2000)
    flat_products: list[str] = param(["rate"], "Files written for each flat.", choices=PRODUCTS)
    dark_products: list[str] = param(["rateints", "jump", "fitopt"], "Files written for each dark.", choices=PRODUCTS)


@dataclass(frozen=True, kw_only=True)
class PhysicsSettings(Settings):
    """Physics"""

    illumination: Literal["imager", "mrs", "ifu", "slits", "mos", "wedge", "spots", "lrs", "soss", "void"] = param(
        "imager",
        "Light of the flats: a smooth gradient (imager); slices, slits, traces of MIRI MRS and LRS, NIRSpec and "
        "NIRISS SOSS (mrs, ifu, slits, mos, lrs, soss); masks in an imager (wedge, spots); voids (void).",
    )
    filters: list[str] = param(
        [],
        "Filters of the flats, one after the other (bands of MIRI MRS, gratings of NIRSpec); some pixels are poor in "
        "some of them only. `flats` is the number in each.",
    )
    flat_level: float = param(0.5, "Part of the full well that a flat reaches.", low=0.001, high=1.5)
    cosmic_rays: float = param(5.0, "Cosmic rays.", unit="1/cm2/s", low=0, high=1000)
    snowballs: float = param(
        0.0,
        "Large cosmic-ray events with saturated cores, on 2048 x 2048 pixels; about 0.05 in flight.",
        unit="1/s",
        low=0,
        high=100,
    )


@dataclass(frozen=True, kw_only=True)
class DefectSettings(Settings):
    """Defects"""

    defects_per_level: int | None = param(
        None,
        "Isolated defects of each type and level; none: one in 20,000 pixels, or the whole map.",
        low=0,
        high=100_000,
    )
    map: FileName | None = param(
        None,
        "FITS image of real bad pixels (non-zero): they become the places of the defects; with "
        "defects_per_level a part of them, in whole groups.",
    )
    seed: int = param(1, "Seed: equal seeds and parameters give equal files.", low=0)


@dataclass(frozen=True, kw_only=True)
class ConditionSettings(Settings):
    """Conditions"""

    condition: list[str] = param(
        [], "What makes the exposures harsher, with truth for it (docs/simulation.md).", choices=tuple(CONDITIONS)
    )
    sets: int | None = param(
        None,
        "Number of sets, a month apart, that the darks are spread over, for conditions that change with time: one "
        "warm set, one after a bright field; none: each dark is a set of its own, a day apart.",
        low=2,
        high=100,
    )


@dataclass(frozen=True, kw_only=True)
class SimulateSettings(
    SimulatedDetectorSettings, SimulatedExposureSettings, PhysicsSettings, DefectSettings, ConditionSettings
):
    """All parameters of ``badpix simulate``."""

    section: ClassVar[str] = "simulate"
    title: ClassVar[str] = "Simulated flats and darks with known defects"
