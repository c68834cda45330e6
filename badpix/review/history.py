"""What the darks say of a pixel in the order of time, in words: date and rate of each dark, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Evidence, Samples

MJD_0 = datetime(1858, 11, 17)
MOST_STEPS = 24  # darks that are told one by one
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


def write_date(mjd: float) -> str:
    """A date in words."""
    return (MJD_0 + timedelta(days=float(mjd))).strftime("%Y-%m-%d") if np.isfinite(mjd) else "unknown date"


def _values(samples: Samples | None, x: int, y: int) -> NDArray[Any] | None:
    """The values of a pixel, None where it has none."""
    if samples is None:
        return None
    here = np.flatnonzero((samples.x == x) & (samples.y == y))
    return np.asarray(samples.values[here[0]], float) if here.size else None
