"""What darks and science exposures say of a pixel in the order of time, in words: date, rate, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Evidence, Samples

MJD_0 = datetime(1858, 11, 17)
MOST_STEPS = 24  # darks that are told one by one
STANDS_OUT = 4.0  # sigma: a science exposure in which a pixel is bright
SCIENCE_CHANGES = {
    "born": "It became hot between these science exposures, by",
    "recovered": "It was hot in the older science exposures and is no more, by",
    "decaying": "Its excess jumps up and shrinks from exposure to exposure (persistence)",
    "structure": "It belongs to a group of touching pixels that is no pixel (wisp, ghost, edge of a trace)",
}
BORN, RECOVERED, DECAYS = "dark_born", "dark_recovered", "dark_decays"


def tell_series(evidence: Evidence, quantities: Mapping[str, float], x: int, y: int) -> list[str]:
    """Sentences on the history of a pixel (indices of the mask's image); none where no dark stands out.

    Parameters
    ----------
    evidence : Evidence
        With ``exposures`` and the samples ``step_rate`` and ``step_state`` of candidates.
    quantities : mapping
        All images at the pixel.
    x, y : int
        Column and row.
    """
    rate, state = (_values(evidence.samples.get(f"step_{name}"), x, y) for name in ("rate", "state"))
    if rate is None or state is None or len(rate) != len(evidence.exposures) or not (state == 1).any():
        return []
    dates = [write_date(mjd) for _, mjd, _ in evidence.exposures]
    bright, known = np.flatnonzero(state == 1), int(np.isfinite(state).sum())
    verdict = f"Hot in {len(bright)} of {known} darks, first {dates[bright[0]]}, last {dates[bright[-1]]}"
    kinds = {
        BORN: "it became hot within these darks",
        RECOVERED: "it was hot and is no more",
        DECAYS: "the rate shrinks from dark to dark: the charge of an earlier exposure (persistence)",
    }
    told = [text for name, text in kinds.items() if quantities.get(name, 0) > 0]
    out = [f"{verdict}{': ' if told else ''}{'; '.join(told)}."]
    steps = [f"{date} {value:.3g}{'*' if s == 1 else ''}" for date, value, s in zip(dates, rate, state, strict=True)]
    if len(steps) <= MOST_STEPS:
        out.append(f"Rate over the surroundings by dark, DN/s (* hot): {', '.join(steps)}.")
    return out


def tell_science(evidence: Evidence, quantities: Mapping[str, float], x: int, y: int) -> list[str]:
    """The same of science exposures: what changed, in how many it stood out, and its excess by day.

    Parameters
    ----------
    evidence : Evidence
        With ``science_exposures``, ``science_unit`` and the samples ``science_excess`` and ``science_z``.
    quantities, x, y
        As for :func:`tell_series`.
    """
    excess, z = (_values(evidence.samples.get(f"science_{name}"), x, y) for name in ("excess", "z"))
    steps = evidence.science_exposures
    if excess is None or z is None or len(excess) != len(steps):
        return []
    days = np.array([write_date(mjd) for _, mjd, _ in steps])
    bright, number = np.flatnonzero(z > STANDS_OUT), int(np.isfinite(z).sum())
    out = []
    since = int(np.nan_to_num(quantities.get("science_step", np.nan)))
    for name, text in SCIENCE_CHANGES.items():
        if quantities.get(f"science_{name}", 0) > 0:
            levels = [np.nanmedian(part) for part in (excess[:since], excess[since:]) if np.isfinite(part).any()]
            told = f" (median {' before, '.join(f'{v:.3g}' for v in levels)} {evidence.science_unit} after)"
            date = f" {days[since]}{told}" if 0 < since < len(days) else ""
            out.append(text + date + ".")
    where = f", first {days[bright[0]]}, last {days[bright[-1]]}" if len(bright) else ""
    out.append(f"Above {STANDS_OUT:g} sigma in {len(bright)} of {number} science exposures{where}.")
    if below := int((z < -STANDS_OUT).sum()):
        out.append(f"Below -{STANDS_OUT:g} sigma in {below}.")
    named = list(dict.fromkeys(days))[:MOST_STEPS]
    means = [np.nanmedian(excess[days == d]) if np.isfinite(excess[days == d]).any() else np.nan for d in named]
    told = ", ".join(f"{d} {v:.3g} ({int((days == d).sum())})" for d, v in zip(named, means, strict=True))
    unit = evidence.science_unit
    return [*out, f"Median excess over the pixels around by day, {unit} (exposures): {told}."]


def list_changes(evidence: Evidence, name: str) -> list[str]:
    """The day by which each pixel that was born or recovered between science exposures had changed."""
    marks, step = (evidence.images.get(f"science_{part}") for part in (name, "step"))
    if marks is None or step is None:
        return []
    first = np.asarray(step[:, :])[np.asarray(marks[:, :]) > 0]
    return [write_date(evidence.science_exposures[int(k)][1]) for k in first if k < len(evidence.science_exposures)]


def write_date(mjd: float) -> str:
    """A date in words."""
    return (MJD_0 + timedelta(days=float(mjd))).strftime("%Y-%m-%d") if np.isfinite(mjd) else "unknown date"


def _values(samples: Samples | None, x: int, y: int) -> NDArray[Any] | None:
    """The values of a pixel, None where it has none."""
    if samples is None:
        return None
    here = np.flatnonzero((samples.x == x) & (samples.y == y))
    return np.asarray(samples.values[here[0]], float) if here.size else None
