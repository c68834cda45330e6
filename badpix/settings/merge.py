"""Parameters of ``badpix merge``."""

from badpix import dq
from badpix.settings.param import Param, Section

SECTION = Section(
    name="merge",
    title="badpix merge: one MASK from masks and manual lists",
    inputs={"masks": "masks to combine", "manual": "manual lists (x y flag)"},
    params=(
        Param(
            "manual",
            [],
            "Manual lists (x y flag) that are added.",
            "paths",
        ),
        Param("masks", [], "Masks to combine; those named on the command line take their place.", "paths"),
        Param(
            "one_based",
            False,
            "Count x and y of manual lists from 1 (FITS, DS9) instead of 0.",
            "bool",
            keyword="BPMONEBS",
        ),
        Param(
            "min_fraction",
            0.0,
            "Keep a flag that at least this fraction of the masks has (equality counts); 0 keeps every flag.",
            unit="of the masks",
            low=0.0,
            high=1.0,
            keyword="BPMMINFR",
        ),
        Param(
            "prefer",
            "all",
            "Combine all masks (all), or take each pixel from the newest mask that holds it (newest).",
            "choice",
            choices=("all", "newest"),
            keyword="BPMPREF",
        ),
        Param(
            "hot_over_dead",
            True,
            "Where HOT and DEAD meet, keep HOT: a pixel that is always saturated looks dead in flats.",
            "bool",
            keyword="BPMHOTDD",
        ),
        Param(
            "embed",
            False,
            "Place a subarray mask into the full frame; otherwise all masks must have one window.",
            "bool",
            keyword="BPMEMBED",
        ),
        Param(
            "plain_flag",
            "OTHER_BAD_PIXEL",
            "Flag for the pixels of images that are no JWST masks (non-zero means bad).",
            "str",
            keyword="BPMPLAIN",
        ),
        Param(
            "drop",
            [],
            "Flags of the inputs that are left out.",
            "list",
            keyword="BPMDROP",
        ),
        Param(
            "do_not_use",
            list(dq.UNUSABLE),
            "Flags that also get DO_NOT_USE when they come from a plain image; masks and manual lists say it "
            "themselves, unless manual_do_not_use is set.",
            "list",
            keyword="BPMDONOT",
        ),
        Param(
            "manual_do_not_use",
            True,
            "Flags of manual lists that stand in do_not_use get DO_NOT_USE as well.",
            "bool",
            keyword="BPMMANDN",
        ),
    ),
)
