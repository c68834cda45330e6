"""Parameters of ``badpix rebuild``: what it keeps, what it waits for, what it refuses.

None of them changes a byte of a mask, so none of them is part of a product's key. Whether a new mask is good enough
to replace the current one is said by the section ``check``.
"""

from badpix.settings.param import Param, Section

INPUTS, PRODUCT, RUN = ("Inputs", "Product", "Run")

SECTION = Section(
    name="rebuild",
    title="badpix rebuild: masks from one YAML, unattended",
    params=(
        Param(
            "skip_bad",
            True,
            "Leave out inputs that can't be used, and record why, instead of failing.",
            "bool",
            group=INPUTS,
        ),
        Param(
            "max_rejected_fraction",
            0.5,
            "Fail if more than this fraction of the exposures of a search had to be left out (equal passes).",
            low=0.0,
            high=1.0,
            group=INPUTS,
        ),
        Param(
            "growing",
            "wait",
            "Inputs that are still being written (size or time changes): wait for them, or leave them out this time.",
            "choice",
            choices=("wait", "reject"),
            group=INPUTS,
        ),
        Param(
            "settle",
            10.0,
            "An input is complete when neither its size nor its times changed for this long; 0: not looked at.",
            unit="s",
            low=0.0,
            high=86400.0,
            group=INPUTS,
        ),
        Param(
            "growing_wait",
            3600.0,
            "Longest wait for inputs that grow; then the run fails.",
            unit="s",
            low=0.0,
            group=INPUTS,
        ),
        Param("evidence", True, "Write what each flag was decided on beside the mask.", "bool", group=PRODUCT),
        Param("report", True, "Write the report (one HTML page) beside the mask.", "bool", group=PRODUCT),
        Param("keep", 10, "Products kept, with the current one; 0 keeps all.", "int", low=0, group=PRODUCT),
        Param("keep_logs", 50, "Log files kept for a detector; 0 keeps all.", "int", low=0, group=RUN),
        Param(
            "lock_wait",
            900.0,
            "Longest wait for another run that works on the same detector.",
            unit="s",
            low=0.0,
            group=RUN,
        ),
    ),
)
