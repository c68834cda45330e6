"""Parameters of ``badpix check``: what a mask may look like, and how much it may differ from the last one."""

from dataclasses import dataclass
from typing import ClassVar

from badpix.settings.param import Settings, param


@dataclass(frozen=True, kw_only=True)
class CountSettings(Settings):
    """How many pixels"""

    flagged_percent: tuple[float, float] = param(
        (0.1, 10.0),
        "Share of the science pixels that a mask usually flags; outside (equality is inside) it is a warning.",
        unit="%",
        low=0.0,
        high=100.0,
    )
    max_unusable_percent: float = param(
        15.0, "More science pixels with DO_NOT_USE than this are an error.", unit="%", low=0.0, high=100.0
    )
    max_percent: dict[str, float] = param(
        {
            "DEAD": 5.0,
            "HOT": 5.0,
            "WARM": 10.0,
            "LOW_QE": 5.0,
            "RC": 5.0,
            "TELEGRAPH": 5.0,
            "UNRELIABLE_SLOPE": 10.0,
            "OPEN": 2.0,
            "ADJ_OPEN": 10.0,
            "OTHER_BAD_PIXEL": 5.0,
        },
        "More science pixels with a flag than this are an error.",
        unit="%",
    )
    min_judged_percent: float = param(
        0.0,
        "Flats that judged a smaller share of the science pixels are a warning; below 95 % it is said in any case.",
        unit="%",
        low=0.0,
        high=100.0,
    )
    max_line_percent: float = param(
        50.0,
        "A row or column with a larger share of flagged pixels than this is a warning.",
        unit="%",
        low=0.0,
        high=100.0,
    )


@dataclass(frozen=True, kw_only=True)
class ChangeSettings(Settings):
    """Against the previous mask"""

    max_jump_ratio: float = param(
        2.0, "The number of pixels with a flag may grow or shrink by this factor (equality is fine).", low=1.0
    )
    min_jump_percent: float = param(
        0.005,
        "Changes of fewer science pixels than this, or within 5 times their counting noise, are never a jump.",
        unit="%",
        low=0.0,
        high=100.0,
    )


@dataclass(frozen=True, kw_only=True)
class PolicySettings(Settings):
    """Policy"""

    do_not_use_types: list[str] = param(
        ["DEAD", "HOT", "LOW_QE", "OPEN", "RC", "UNRELIABLE_SLOPE", "OTHER_BAD_PIXEL"],
        "Flags whose pixels should carry DO_NOT_USE as well; where they do not, it is a warning.",
    )
    strict: bool = param(False, "Warnings count as errors.")


@dataclass(frozen=True, kw_only=True)
class CheckSettings(CountSettings, ChangeSettings, PolicySettings):
    """Limits of ``badpix check``."""

    section: ClassVar[str] = "check"
    title: ClassVar[str] = "badpix check: is a mask valid and plausible?"
