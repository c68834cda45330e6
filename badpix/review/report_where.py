"""Where the flagged pixels are: the report's tables and profiles by amplifier, row and column."""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.mask.file import Mask
from badpix.review import charts
from badpix.review.html_table import percent, table

ODD_SIGMA = 8.0  # how far a row or column stands out before it is named
MOST = 12  # transitions and odd lines that are shown


def amplifier_table(mask: Mask) -> str:
    """Density of flagged pixels in the region of each amplifier."""
    facts = detectors.get(mask.detector)
    amplifiers = detectors.amplifier_map(facts, mask.window)
    science = ~mask.reference
    flagged = (mask.image != 0) & science
    mean = flagged.sum() / max(int(science.sum()), 1)
    rows = []
    for k in range(4):
        here = science & (amplifiers == k)
        if here.any():
            n, bad = int(here.sum()), int((flagged & here).sum())
            ratio = bad / n / mean if mean else 0.0
            rows.append([f"{k + 1}", n, bad, percent(bad, n), f"{ratio:.2f}"])
    return table(["Amplifier", "Science pixels", "Flagged", "Share", "Relative to all"], rows)


def find_odd_lines(counts: NDArray[np.float64], sigma: float = ODD_SIGMA) -> list[int]:
    """Rows or columns with far more flagged pixels than the others: robust deviation, and at least ten pixels."""
    middle = float(np.median(counts))
    spread = max(1.4826 * float(np.median(np.abs(counts - middle))), np.sqrt(max(middle, 1.0)))
    odd = np.flatnonzero((counts - middle > sigma * spread) & (counts - middle >= 10))
    return [int(k) for k in odd[np.argsort(-counts[odd], kind="stable")][:MOST]]


def profiles(mask: Mask) -> str:
    """Flagged science pixels along columns and rows; lines that stand out are named."""
    flagged = (mask.image != 0) & ~mask.reference
    out = ""
    for name, axis in (("column", 0), ("row", 1)):
        counts = flagged.sum(axis=axis).astype(np.float64)
        odd = find_odd_lines(counts)
        start = (mask.window.xstart if axis == 0 else mask.window.ystart) - 1
        words = ", ".join(f"{name} {k + start} ({counts[k]:.0f} pixels)" for k in odd)
        text = f"Stands out: {words}." if odd else f"No {name} stands out."
        chart = charts.draw_profile(counts, odd, f"Flagged pixels by {name}", f"{name} (from 0)")
        out += f"<figure>{chart}<figcaption>Flagged pixels by {name}. {html.escape(text)}</figcaption></figure>"
    return f'<div class="charts">{out}</div>'
