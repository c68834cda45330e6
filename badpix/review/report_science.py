"""Science exposures in the report of a mask: births by day, and the strongest pixels of each type in time."""

from __future__ import annotations

import html
from collections import Counter

import numpy as np

from badpix.io.evidence import Evidence
from badpix.mask.file import Mask
from badpix.review import charts
from badpix.review.history import STANDS_OUT, list_changes, tell_science
from badpix.review.html_table import table
from badpix.review.readings import read_quantities
from badpix.review.science_series import DRAWN, find_strongest, read_series

SHOWN = 2  # pixels of each type


def science_block(mask: Mask, evidence: Evidence | None) -> str:
    """The section; empty for a mask without science exposures."""
    if evidence is None or not evidence.science_exposures:
        return ""
    steps = evidence.science_exposures
    out = '<section id="science"><h2>Pixels in science exposures</h2>'
    rows = [
        (word, day, count)
        for name, word in (("born", "became hot"), ("recovered", "recovered"))
        for day, count in sorted(Counter(list_changes(evidence, name)).items())
    ]
    if rows:
        out += table(("Change", "By", "Pixels"), rows)
    dates = np.array([mjd for _, mjd, _ in steps])
    ny, nx = mask.image.shape
    for name in DRAWN:
        drawn, told, places = "", "", []
        for x, y in find_strongest(evidence, name, (ny, nx), SHOWN):
            place = f"({x + mask.window.xstart - 1}, {y + mask.window.ystart - 1})"
            places.append(place)
            excess, z = read_series(evidence, x, y)
            label = f"excess ({evidence.science_unit})"
            drawn += charts.draw_series(dates, excess, z > STANDS_OUT, f"{name} pixel {place}", label)
            sentences = tell_science(evidence, read_quantities(evidence, y, x), x, y)
            told = told or " ".join(sentences[:-1])
        if drawn:
            told = f"{' and '.join(places)}. {'The first: ' if len(places) > 1 else ''}{told}"
            caption = f"<strong>{html.escape(name)}</strong> {html.escape(told)}"
            out += f'<figure class="ramps"><div>{drawn}</div><figcaption>{caption}</figcaption></figure>'
    key = "Excess over the pixels around by exposure, by date; large dots: above 4 sigma."
    return f'{out}<p class="key">{key}</p></section>'
