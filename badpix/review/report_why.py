"""What flags were decided on: the report's histograms and examples of ramps."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.io.evidence import NO_QUANTITY, Evidence
from badpix.io.exposure import open_exposure
from badpix.mask.file import Mask
from badpix.review import charts, choose, explain, histograms, readings
from badpix.review.pixel_ramps import read_ramps, say_levels

CHARTS = 16  # histograms


def histogram_figures(mask: Mask, evidence: Evidence | None) -> str:
    """One histogram a quantity that a rule compares; all quantities where there are no rules."""
    if evidence is None:
        return "<p>No evidence beside the mask: searches write it unless <code>--no-evidence</code> is given.</p>"
    used = {r.quantity for r in evidence.rules}
    limits_only = {r.limit for r in evidence.rules if isinstance(r.limit, str)}
    names = [
        n
        for n in evidence.images
        if not n.startswith(NO_QUANTITY) and n not in limits_only and not readings.is_veto(n)
    ]
    science = ~mask.reference
    figures: list[str] = []
    for name in [n for n in names if n in used] or names:
        values = evidence.images[name][:, :]
        some = values[science]
        if len(figures) < CHARTS and np.unique(some[:10_000]).size > 2 and np.isfinite(some).any():
            figures.append(_histogram_figure(evidence, name, values, science))
    return (
        f'<div class="charts">{"".join(figures)}</div>'
        if figures
        else ("<p>The evidence holds no quantity to show.</p>")
    )


def _histogram_figure(evidence: Evidence, name: str, values: NDArray[Any], science: NDArray[np.bool_]) -> str:
    """A quantity: flagged and other pixels, the limits that decide, and their numbers in the caption."""
    limits = histograms.find_limits(evidence, name, science)
    flagged = histograms.find_flagged(evidence, name)
    made = histograms.count(values[science], flagged[science], [one.value for one in limits])
    unit = next((f" ({one.unit})" for one in limits if one.unit), "")
    label = name.replace("_", " ")
    lines = [(one.value, one.label) for one in limits]
    chart = charts.draw_histogram(made, lines, f"Histogram of {label}", label + unit)
    few = " (candidates alone)" if name in readings.CANDIDATES_ONLY else ""
    words = html.escape(histograms.say_limits(limits) or _say_limit_images(evidence, name))
    caption = f"<strong>{html.escape(label)}</strong>{few}{'. ' if words else ''}{words}."
    return f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"


def _say_limit_images(evidence: Evidence, name: str) -> str:
    """That a quantity is compared with another image, in words; empty where it is not."""
    rules = [r for r in evidence.rules if r.quantity == name and isinstance(r.limit, str)]
    words = [f"{r.search}: {r.comparison} {r.limit}, pixel by pixel ({r.meaning})" for r in rules]
    return "; ".join(dict.fromkeys(words)).replace("_", " ")


def ramp_examples(mask: Mask, evidence: Evidence | None, paths: Sequence[Path]) -> str:
    """The worst pixel of each type, in the first few exposures."""
    if not paths:
        return "<p>No exposures were given (<code>--ramps</code>).</p>"
    out = ""
    skip: tuple[str, ...] = ("DO_NOT_USE", "REFERENCE_PIXEL", "NON_SCIENCE", "BAD_REF_PIXEL", "ADJ_OPEN")
    if "DARK" in str(open_exposure(paths[0], names=()).header.get("EXP_TYPE", "")):
        skip += ("DEAD", "LOW_QE", "OPEN")  # a dark does not show how a pixel responds to light
    science = ~mask.reference
    for flag in (f.name for f in dq.FLAGS if f.name not in skip):
        if not np.any((mask.image & np.uint32(dq.VALUE[flag]) != 0) & science):
            continue
        x, y = choose.find_worst(mask, evidence, flag, 1)[0]
        try:
            ramps = read_ramps(list(paths)[:3], x, y)[:3]
        except DataError as error:
            return f"<p>Ramps can't be shown: {html.escape(str(error))}</p>"
        drawn = "".join(charts.draw_ramp(r, f"{flag} pixel ({x}, {y}), {r.label}") for r in ramps)
        levels = say_levels(ramps)
        sentences = explain.explain(mask, evidence, x, y).sentences
        sentence = next((t.split("): ", 1)[-1] for t in sentences if t.startswith(f"{flag} (")), "")
        slopes = ", ".join(f"{r.slope:.4g}" for r in ramps)
        caption = (
            f"<strong>{flag}</strong> pixel ({x}, {y}): {html.escape(sentence)} Slopes: {slopes} {ramps[0].unit}."
            f"{' ' + html.escape(levels) if levels else ''}"
        )
        out += f'<figure class="ramps"><div>{drawn}</div><figcaption>{caption}</figcaption></figure>'
    key = (
        '<p class="key">Circles: signal; triangles: jumps; squares: saturated groups; line: fit with one slope and a '
        "level for each stretch between jumps.</p>"
    )
    return key + out
