"""A look at one exposure on its way through the pipeline's first stage, step by step: numbers first.

1. The products of the exposure are found and opened (:mod:`badpix.prepare.products`).
2. dq_init, saturation, jump, ramp_fit: what the flags tell (:mod:`badpix.review.exposure_flags`).
3. superbias, refpix, dark_current, linearity: what the values tell (:mod:`badpix.review.exposure_levels`).

A step is looked at if its product is there, and the one that it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from badpix.io import exposure as exposures
from badpix.io.exposure import Exposure
from badpix.prepare.products import latest_flags, step_before
from badpix.review.exposure_flags import (
    count_pixeldq,
    count_ramp_flags,
    describe_jumps,
    describe_saturation,
    explain_slopes,
)
from badpix.review.exposure_levels import describe_step, measure_correction


@dataclass(frozen=True)
class Step:
    """What was found about one step: numbers (possibly nested by name) for table and JSON."""

    name: str
    numbers: dict[str, Any]


def look(products: Mapping[str, Exposure], integration: int = 0) -> list[Step]:
    """What the products of one exposure tell about each step.

    Parameters
    ----------
    products : mapping
        Product -> exposure, from :func:`badpix.prepare.products.open_products`.
    integration : int
        Integration (from 0) whose first group the levels are measured in.
    """
    some = next(iter(products.values()))
    science = ~exposures.read_reference_pixels(products.get("dq_init", some))
    fast_axis = 1 if some.header.get("FASTAXIS", 1) in (1, -1) else 0
    steps = []
    if "dq_init" in products:
        steps.append(Step("dq_init", count_pixeldq(products["dq_init"], science)))
    flagged = latest_flags(products)
    flags = count_ramp_flags(flagged) if flagged is not None else None
    if flags is not None:
        steps.append(Step("saturation", describe_saturation(flags, science)))
    for name in ("superbias", "refpix_nosides", "refpix", "dark_current"):
        before = step_before(products, name) if name in products else None
        if before:
            steps.append(Step(name, describe_step(products[before], products[name], science, fast_axis, integration)))
    before = step_before(products, "linearity") if "linearity" in products else None
    if before:
        pair = products[before], products["linearity"]
        steps.append(Step("linearity", measure_correction(*pair, science, integration)))
    if flags is not None and "jump" in products:
        steps.append(Step("jump", describe_jumps(flags, science)))
    if "rate" in products:
        steps.append(Step("ramp_fit", explain_slopes(products, flags, science)))
    return steps


# --- table -----------------------------------------------------------------------------------------------


def table_rows(steps: Sequence[Step]) -> list[tuple[str, str, str]]:
    """Rows (step, quantity, value) for printing."""
    rows = []
    for step in steps:
        for name, value in _flat(step.numbers):
            rows.append((step.name, name, _text(value)))
    return rows


def _flat(numbers: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        label = f"{before}{name}"
        rows += _flat(value, f"{label}: ") if isinstance(value, Mapping) else [(label, value)]
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)
