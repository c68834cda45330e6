"""Parameters of ``badpix simulate``."""

from badpix.settings.param import Param, Section

PRODUCTS = ("uncal", "rate", "rateints", "jump", "fitopt")

SECTION = Section(
    name="simulate",
    title="Simulated flats and darks with known defects",
    params=(
        Param("detector", "NRCALONG", "Detector to simulate.", kind="str", group="Detector"),
        Param(
            "size", None, "Columns and rows of a small detector of the same kind, with reference pixels on the "
            "same sides; none: full frame.", kind="pair_int", low=16, high=2048, optional=True, group="Detector",
        ),
        Param(
            "window", None, "Columns and rows of a window of the real frame, placed by start; none: full frame.",
            kind="pair_int", low=16, high=2048, optional=True, group="Detector",
        ),
        Param(
            "start", (1, 1), "First column and row of the window, 1-based as in SUBSTRT.", kind="pair_int",
            low=1, high=2048, group="Detector",
        ),
        Param(
            "subarray", None, "Value of SUBARRAY; none: FULL, or a legal name.", kind="str", optional=True,
            group="Detector",
        ),
        Param(
            "readout", None, "Readout pattern; none: one frame a group.", kind="str", optional=True,
            group="Exposures",
        ),
        Param("flats", 5, "Number of flat exposures.", kind="int", low=0, high=999, group="Exposures"),
        Param("darks", 5, "Number of dark exposures.", kind="int", low=0, high=999, group="Exposures"),
        Param(
            "flat_groups", 10, "Groups of each integration of a flat.", kind="int", low=2, high=2000,
            group="Exposures",
        ),
        Param(
            "dark_groups", 20, "Groups of each integration of a dark.", kind="int", low=2, high=2000,
            group="Exposures",
        ),
        Param("integrations", 1, "Integrations of each exposure.", kind="int", low=1, high=2000, group="Exposures"),
        Param(
            "flat_products", ["rate"], "Files written for each flat.", kind="list", choices=PRODUCTS,
            group="Exposures",
        ),
        Param(
            "dark_products", ["rateints", "jump", "fitopt"], "Files written for each dark.", kind="list",
            choices=PRODUCTS, group="Exposures",
        ),
        Param("flat_level", 0.5, "Part of the full well that a flat reaches.", low=0.001, high=1.5, group="Physics"),
        Param(
            "cosmic_rays", 5.0, "Cosmic rays.", unit="1/cm2/s", low=0, high=1000, group="Physics",
        ),
        Param(
            "snowballs", 0.0, "Large cosmic-ray events with saturated cores, on 2048 x 2048 pixels; about 0.05 in "
            "flight.", unit="1/s", low=0, high=100, group="Physics",
        ),
        Param(
            "defects_per_level", None, "Isolated defects of each type and level; none: one in 20,000 pixels, or the "
            "whole map.", kind="int", low=0, high=100_000, optional=True, group="Defects",
        ),
        Param(
            "map", None, "FITS image of real bad pixels (non-zero): they become the places of the defects; with "
            "defects_per_level a part of them, in whole groups.", kind="path", optional=True, group="Defects",
        ),
        Param("seed", 1, "Seed: equal seeds and parameters give equal files.", kind="int", low=0, group="Defects"),
    ),
)  # fmt: skip
