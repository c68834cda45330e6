"""Parameters of ``outlier ifu``."""

from badpix.settings.param import Param, Section

_DOCUMENTED = "Documented search"
_SIGNIFICANCE = "Significance search"
_OUTPUT = "Output"

SECTION = Section(
    "ifu",
    "Outliers in IFU exposures (MIRI MRS, NIRSpec IFU)",
    (
        Param("threshold_method", "false_alarm",
              "How pixels are chosen: by significance with a stated false-alarm rate, or the documented rank cut.",
              "choice", choices=("false_alarm", "percentile"), documented="percentile", group="Method"),
        Param("kernel_size", (7, 7),
              "Window (rows, columns) of the local median that normalizes; an even number is raised by one.",
              "pair_int", "pixels", low=1, high=99, group=_DOCUMENTED),
        Param("threshold_percent", 99.8,
              "Rank cut: pixels whose normalized difference lies above this percentile are flagged "
              "(equality doesn't).",
              "float", "percent", low=0, high=100, group=_DOCUMENTED),
        Param("ifu_second_check", False,
              "Also flag pixels whose neighbour differences are NaN in all exposures (gaps between slices).",
              "bool", group=_DOCUMENTED),
        Param("false_alarm", 1e-5,
              "Share of good pixels that each test may flag, for Gaussian noise.",
              "float", "of the pixels", low=1e-12, high=1e-2, group=_SIGNIFICANCE),
        Param("min_sigma", 2.5,
              "Lowest threshold of the tests for persistent and partly persistent pixels (equality doesn't flag).",
              "float", "sigma", low=0, high=100, group=_SIGNIFICANCE),
        Param("partial_sigma", 3.0,
              "A partly persistent pixel is flagged in the exposures in which it exceeds this.",
              "float", "sigma", low=0, high=100, group=_SIGNIFICANCE),
        Param("single", True,
              "Whether to look for pixels that are bad in one exposure or a minority (cosmic rays among them).",
              "bool", group=_SIGNIFICANCE),
        Param("lone_exposure", False,
              "Whether to search a detector that has one exposure only, by its own neighbours alone.",
              "bool", group=_SIGNIFICANCE),
        Param("grow_sigma", 3.0,
              "Tracks grow from a single bad pixel into neighbours that are too high by more than this beside other "
              "exposures, and beside what sources could give.",
              "float", "sigma", low=0, high=1000, group=_SIGNIFICANCE),
        Param("grow_steps", 4, "How far tracks grow; 0: not at all.",
              "int", "pixels", low=0, high=32, group=_SIGNIFICANCE),
        Param("protect", 1.0,
              "Strength with which significance is lowered where the neighbours don't fit the noise either.",
              low=0, high=10, group=_SIGNIFICANCE),
        Param("protect_structure", None,
              "The same for neighbours on edges, lines and sources; none: 0.3, or 0.6 where a detector has one "
              "pointing only (no dither) or one exposure.",
              low=0, high=10, optional=True, group=_SIGNIFICANCE),
        Param("moved_window", (3, 7),
              "Window (dispersion, across the slice) in which a line of another exposure protects; odd numbers.",
              "pair_int", "pixels", low=1, high=63, group=_SIGNIFICANCE),
        Param("noise", "both",
              "Where the noise comes from: the pattern of ERR scaled by the data (both), ERR alone, the data alone.",
              "choice", choices=("both", "err", "data"), group=_SIGNIFICANCE),
        Param("save_intermediate_results", False,
              "Write what the flags were decided on: <root>[_<asn_id>]_<detector>_outlier_output.fits.",
              "bool", group=_OUTPUT),
        Param("max_flagged", 5.0,
              "Stop with exit status 3, and write nothing, if more of the usable pixels of an exposure are flagged.",
              "float", "percent", low=0, high=100, group=_OUTPUT),
    ),
)  # fmt: skip
