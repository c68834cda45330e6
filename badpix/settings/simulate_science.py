"""Parameters of ``badpix simulate-science``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.param import Settings, param


@dataclass(frozen=True, kw_only=True)
class ScienceProgramSettings(Settings):
    """All parameters of ``badpix simulate-science``."""

    section: ClassVar[str] = "simulate_science"
    title: ClassVar[str] = "Simulated science exposures with known bad pixels"
    heading: ClassVar[str] = "What is simulated"
    scene: Literal["deep", "crowded", "nebula", "miri", "mrs", "ifu", "mos"] = param(
        "deep",
        "Program: a deep field, a crowded field, a nebula (NIRCam), MIRI imaging, the MRS, or NIRSpec's IFU or MOS.",
    )
    size: tuple[int, int] = param((256, 256), "Columns and rows of the window.", unit="pixels", low=64, high=1024)
    defects_per_level: int = param(15, "Bad pixels of each type and level.", low=1, high=1000)
    dithered: bool = param(True, "Move the telescope; without it all exposures are of one pointing and visit.")
    seed: int = param(1, "Seed: equal seeds and parameters give equal files.", low=0)
