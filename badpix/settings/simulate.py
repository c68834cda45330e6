"""Parameters of ``badpix simulate``."""

from dataclasses import dataclass
from typing import ClassVar

from badpix.settings.param import FileName, Settings, param

PRODUCTS = ("uncal", "rate", "rateints", "jump", "fitopt")


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
class SimulateSettings(SimulatedDetectorSettings, SimulatedExposureSettings, PhysicsSettings, DefectSettings):
    """All parameters of ``badpix simulate``."""

    section: ClassVar[str] = "simulate"
    title: ClassVar[str] = "Simulated flats and darks with known defects"
