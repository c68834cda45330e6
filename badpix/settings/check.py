"""Parameters of ``badpix check``: what a mask may look like, and how much it may differ from the last one."""

from badpix.settings.param import Param, Section

LEVEL, JUMP, POLICY = ("How many pixels", "Against the previous mask", "Policy")

SECTION = Section(
    name="check",
    title="badpix check: is a mask valid and plausible?",
    params=(
        Param(
            "flagged_percent",
            (0.1, 10.0),
            "Share of the science pixels that a mask usually flags; outside (equality is inside) it is a warning.",
            "pair_float",
            unit="%",
            low=0.0,
            high=100.0,
            group=LEVEL,
        ),
        Param(
            "max_unusable_percent",
            15.0,
            "More science pixels with DO_NOT_USE than this are an error.",
            unit="%",
            low=0.0,
            high=100.0,
            group=LEVEL,
        ),
        Param(
            "max_percent",
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
            "numbers",
            unit="%",
            group=LEVEL,
        ),
        Param(
            "max_line_percent",
            50.0,
            "A row or column with a larger share of flagged pixels than this is a warning.",
            unit="%",
            low=0.0,
            high=100.0,
            group=LEVEL,
        ),
        Param(
            "max_jump_ratio",
            2.0,
            "The number of pixels with a flag may grow or shrink by this factor (equality is fine).",
            low=1.0,
            group=JUMP,
        ),
        Param(
            "min_jump_percent",
            0.005,
            "Changes of fewer science pixels than this, or within 5 times their counting noise, are never a jump.",
            unit="%",
            low=0.0,
            high=100.0,
            group=JUMP,
        ),
        Param(
            "do_not_use_types",
            ["DEAD", "HOT", "LOW_QE", "OPEN", "RC", "UNRELIABLE_SLOPE", "OTHER_BAD_PIXEL"],
            "Flags whose pixels should carry DO_NOT_USE as well; where they do not, it is a warning.",
            "list",
            group=POLICY,
        ),
        Param("strict", False, "Warnings count as errors.", "bool", group=POLICY),
    ),
)
