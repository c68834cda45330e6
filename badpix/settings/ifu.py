"""Parameters of ``outlier ifu``."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from badpix.settings.param import Settings, param


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Settings):
    """Method"""

    threshold_method: Literal["false_alarm", "percentile"] = param(
        "false_alarm",
        "How pixels are chosen: by significance with a stated false-alarm rate, or the documented rank cut.",
        documented="percentile",
    )


@dataclass(frozen=True, kw_only=True)
class RankSettings(Settings):
    """Documented search"""

    kernel_size: tuple[int, int] = param(
        (7, 7),
        "Window (rows, columns) of the local median that normalizes; an even number is raised by one.",
        unit="pixels",
        low=1,
        high=99,
    )
    threshold_percent: float = param(
        99.8,
        "Rank cut: pixels whose normalized difference lies above this percentile are flagged (equality doesn't).",
        unit="percent",
        low=0,
        high=100,
    )
    ifu_second_check: bool = param(
        False, "Also flag pixels whose neighbor differences are NaN in all exposures (gaps between slices)."
    )


@dataclass(frozen=True, kw_only=True)
class SignificanceSettings(Settings):
    """Significance search"""

    false_alarm: float = param(
        1e-5,
        "Share of good pixels that each test may flag, for Gaussian noise.",
        unit="of the pixels",
        low=1e-12,
        high=1e-2,
    )
    min_sigma: float = param(
        2.5,
        "Lowest threshold of the tests for persistent and partly persistent pixels (equality doesn't flag).",
        unit="sigma",
        low=0,
        high=100,
    )
    partial_sigma: float = param(
        3.0,
        "A partly persistent pixel is flagged in the exposures in which it exceeds this.",
        unit="sigma",
        low=0,
        high=100,
    )
    single: bool = param(
        True, "Whether to look for pixels that are bad in one exposure or a minority (cosmic rays among them)."
    )
    lone_exposure: bool = param(
        True,
        "Whether to search a detector that has one exposure only, by its own neighbors alone, for what is certain.",
        documented=False,
    )
    lone_sigma: float = param(
        6.0,
        "What is certain there: the lowest significance, once it is lowered by the neighbors.",
        unit="sigma",
        low=0,
        high=1000,
    )
    grow_sigma: float = param(
        3.0,
        "Tracks grow from a single bad pixel into neighbors that are too high by more than this beside other "
        "exposures, and beside what sources could give.",
        unit="sigma",
        low=0,
        high=1000,
    )
    grow_steps: int = param(4, "How far tracks grow; 0: not at all.", unit="pixels", low=0, high=32)
    protect: float = param(
        1.0,
        "Strength with which significance is lowered where the neighbors don't fit the noise either.",
        low=0,
        high=10,
    )
    protect_structure: float | None = param(
        None,
        "The same for neighbors on edges, lines and sources; none: 0.3, or 0.6 where a detector has one "
        "pointing only (no dither) or one exposure.",
        low=0,
        high=10,
    )
    moved_window: tuple[int, int] = param(
        (3, 13),
        "Window (dispersion, across the slice) in which a line of another exposure protects; odd numbers.",
        unit="pixels",
        low=1,
        high=63,
    )
    noise: Literal["both", "err", "data"] = param(
        "both", "Where the noise comes from: the pattern of ERR scaled by the data (both), ERR alone, the data alone."
    )


@dataclass(frozen=True, kw_only=True)
class IfuOutputSettings(Settings):
    """Output"""

    save_intermediate_results: bool = param(
        False, "Write what the flags were decided on: <root>[_<asn_id>]_<detector>_outlier_output.fits."
    )
    max_flagged: float = param(
        5.0,
        "Stop with exit status 3, and write nothing, if more of the usable pixels of an exposure are flagged.",
        unit="percent",
        low=0,
        high=100,
    )


@dataclass(frozen=True, kw_only=True)
class IfuSettings(MethodSettings, RankSettings, SignificanceSettings, IfuOutputSettings):
    """All parameters of ``outlier ifu``."""

    section: ClassVar[str] = "ifu"
    title: ClassVar[str] = "Outliers in IFU exposures (MIRI MRS, NIRSpec IFU)"
