"""Parameters of ``badpix rebuild``: what it keeps, what it waits for, what it refuses.

None of them changes a byte of a mask, so none of them is part of a product's key. Whether a new mask is good enough
to replace the current one is said by the section ``check``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.param import Settings, param


@dataclass(frozen=True, kw_only=True)
class InputSettings(Settings):
    """Inputs"""

    skip_bad: bool = param(True, "Leave out inputs that can't be used, and record why, instead of failing.")
    max_rejected_fraction: float = param(
        0.5,
        "Fail if more than this fraction of the exposures of a search had to be left out (equal passes).",
        low=0.0,
        high=1.0,
    )
    growing: Literal["wait", "reject"] = param(
        "wait",
        "Inputs that are still being written (size or time changes): wait for them, or leave them out this time.",
    )
    settle: float = param(
        10.0,
        "An input is complete when neither its size nor its times changed for this long; 0: not looked at.",
        unit="s",
        low=0.0,
        high=86400.0,
    )
    growing_wait: float = param(3600.0, "Longest wait for inputs that grow; then the run fails.", unit="s", low=0.0)


@dataclass(frozen=True, kw_only=True)
class ProductSettings(Settings):
    """Product"""

    evidence: bool = param(True, "Write what each flag was decided on beside the mask.")
    report: bool = param(True, "Write the report (one HTML page) beside the mask.")
    keep: int = param(10, "Products kept, with the current one; 0 keeps all.", low=0)


@dataclass(frozen=True, kw_only=True)
class RunSettings(Settings):
    """Run"""

    keep_logs: int = param(50, "Log files kept for a detector; 0 keeps all.", low=0)
    max_hours: float = param(
        48.0,
        "Longest run of one detector, raw exposures included; then it is ended, and the others go on.",
        unit="h",
        low=0.001,
        high=8760.0,
    )
    lock_wait: float = param(
        900.0, "Longest wait for another run that works on the same detector.", unit="s", low=0.0
    )


@dataclass(frozen=True, kw_only=True)
class RebuildSettings(InputSettings, ProductSettings, RunSettings):
    """All parameters of ``badpix rebuild``."""

    section: ClassVar[str] = "rebuild"
    title: ClassVar[str] = "badpix rebuild: masks from one YAML, unattended"
