"""The texts that CRDS asks of a reference file."""

from badpix.settings.param import Param, Section

SECTION = Section(
    name="reference",
    title="Reference file texts (CRDS)",
    params=(
        Param("author", None, "Who made the file (AUTHOR); CRDS wants it.", "str", optional=True),
        Param("descrip", None, "What the file is (DESCRIP), at most 65 characters.", "str", optional=True),
        Param(
            "pedigree",
            "AUTO",
            "GROUND, DUMMY, SIMULATION, MODEL, or INFLIGHT with dates from the inputs, unless given "
            "as INFLIGHT YYYY-MM-DD YYYY-MM-DD; AUTO decides by the date of the inputs.",
            "str",
        ),
        Param(
            "useafter",
            None,
            "First exposure the file is for, YYYY-MM-DDThh:mm:ss (USEAFTER); none takes the first input's start.",
            "str",
            optional=True,
        ),
        Param("history", None, "Free text for HISTORY.", "str", optional=True),
        Param("document", None, "Document that describes the method (HISTORY DOCUMENT:).", "str", optional=True),
        Param(
            "differences",
            None,
            "What differs from the file that is replaced (HISTORY DIFFERENCES:).",
            "str",
            optional=True,
        ),
        Param(
            "reference_subarray",
            "auto",
            "SUBARRAY of the mask: GENERIC for a full frame and the exposures' own name otherwise (auto), or a name.",
            "str",
        ),
        Param(
            "reference_readpatt",
            None,
            "READPATT or P_READPA of the mask (NIRSpec: readout patterns joined by |).",
            "str",
            optional=True,
        ),
        Param(
            "reference_exp_type",
            None,
            "EXP_TYPE or P_EXP_TY of the mask (FGS: exposure types joined by |; N/A for all).",
            "str",
            optional=True,
        ),
    ),
)
