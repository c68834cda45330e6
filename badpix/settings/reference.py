"""The texts that CRDS asks of a reference file."""

from dataclasses import dataclass
from typing import ClassVar

from badpix.settings.param import Settings, param


@dataclass(frozen=True, kw_only=True)
class ReferenceSettings(Settings):
    """The texts that CRDS asks of a reference file."""

    section: ClassVar[str] = "reference"
    title: ClassVar[str] = "Reference file texts (CRDS)"

    author: str | None = param(None, "Who made the file (AUTHOR); CRDS wants it.")
    descrip: str | None = param(None, "What the file is (DESCRIP), at most 65 characters.")
    pedigree: str = param(
        "AUTO",
        "GROUND, DUMMY, SIMULATION, MODEL, or INFLIGHT with dates from the inputs, unless given "
        "as INFLIGHT YYYY-MM-DD YYYY-MM-DD; AUTO decides by the date of the inputs.",
    )
    useafter: str | None = param(
        None, "First exposure the file is for, YYYY-MM-DDThh:mm:ss (USEAFTER); none takes the first input's start."
    )
    history: str | None = param(None, "Free text for HISTORY.")
    document: str | None = param(None, "Document that describes the method (HISTORY DOCUMENT:).")
    differences: str | None = param(None, "What differs from the file that is replaced (HISTORY DIFFERENCES:).")
    reference_subarray: str = param(
        "auto",
        "SUBARRAY of the mask: GENERIC for a full frame and the exposures' own name otherwise (auto), or a name.",
    )
    reference_readpatt: str | None = param(
        None, "READPATT or P_READPA of the mask (NIRSpec: readout patterns joined by |)."
    )
    reference_exp_type: str | None = param(
        None, "EXP_TYPE or P_EXP_TY of the mask (FGS: exposure types joined by |; N/A for all)."
    )
