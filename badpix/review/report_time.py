"""The order of time in a mask's report: births and recoveries by date, the USEAFTER they ask for, rates by date."""

from __future__ import annotations

import html
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from badpix.io.dates import MJD_0, day_of
from badpix.io.evidence import Evidence
from badpix.mask.file import Mask
from badpix.review import charts
from badpix.review.html_table import table

Bool = NDArray[np.bool_]

KINDS = {  # of change -> how its pixels are called
    "dark_born": "became hot",
    "is_intermittent": "intermittent",
    "dark_recovered": "recovered",
    "dark_decays": "with persistence",
}
SHOWN = 2  # pixels of each kind whose rates are drawn


def time_block(mask: Mask, evidence: Evidence | None) -> str:
    """Births by date, what they ask of USEAFTER, rates of the strongest that change; empty where nothing is known."""
    if evidence is None or len(evidence.exposures) < 2 or "dark_bright_first" not in evidence.images:
        return ""
    dates = np.array([mjd for _, mjd, _ in evidence.exposures])
    found = {kind: _flat(evidence, kind) for kind in KINDS}
    born = count_by_date(found["dark_born"], _values(evidence, "dark_bright_first"), dates)
    gone = count_by_date(found["dark_recovered"], _values(evidence, "dark_bright_last"), dates)
    told = ", ".join(f"{int(found[kind].sum()):,} {word}" for kind, word in KINDS.items())
    span = f"{len(dates)} darks, {day_of(dates[0])} to {day_of(dates[-1])}"
    out = f"<h3>In the order of time</h3><p>{span}: {told}.</p>"
    if born.any() or gone.any():
        out += f"<p>{html.escape(say_useafter(mask, born, dates))}</p>"
        rows = [[day_of(dates[k]), int(born[k]), int(gone[k])] for k in np.flatnonzero(born + gone)]
        title = "Pixels that became hot, and that were hot for the last time, by date"
        chart = charts.draw_changes(dates, born, gone, title)
        out += f'<div class="charts">{chart}</div>' + table(["Dark of", "Became hot", "Hot for the last time"], rows)
    return out + _draw_rates(mask, evidence, found, dates)


def say_useafter(mask: Mask, born: NDArray[np.int64], dates: NDArray[np.float64]) -> str:
    """From when on a mask with all of these births is right, and what this one says."""
    if not born.any():
        return "No pixel became hot: one mask is right for all of these darks."
    newest = int(np.flatnonzero(born)[-1])
    needed = (MJD_0 + timedelta(days=float(dates[newest]))).strftime("%Y-%m-%dT%H:%M:%S")
    epochs = int(np.count_nonzero(born))
    text = f"A mask with all pixels that became hot is right from USEAFTER {needed} on; "
    text += f"they were born at {epochs} date{'s' * (epochs != 1)}, at each of which a new mask is due. "
    own = str(mask.header.get("USEAFTER", ""))
    try:
        start = (datetime.fromisoformat(own) - MJD_0).total_seconds() / 86400
    except ValueError:
        return text.strip()
    early = int(born[dates > start + 1e-4].sum())
    if not early:
        return text + f"The USEAFTER of this one is {own}: none of them was good then."
    return text + f"The USEAFTER of this one is {own}: {early:,} of its hot pixels were still good then."


def count_by_date(found: Bool, when: NDArray[np.float64], dates: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pixels of a map by the dark whose date is nearest to theirs."""
    mine = when[found & np.isfinite(when)]
    nearest = np.abs(mine[:, None] - dates[None, :]).argmin(axis=1)
    return np.bincount(nearest, minlength=len(dates))


def _flat(evidence: Evidence, name: str) -> Bool:
    image = evidence.images.get(name)
    some = evidence.images["dark_bright_first"]
    return np.zeros(np.prod(some.shape), bool) if image is None else np.asarray(image[:, :]).ravel() > 0


def _values(evidence: Evidence, name: str) -> NDArray[np.float64]:
    return np.asarray(evidence.images[name][:, :], np.float64).ravel()


def _draw_rates(mask: Mask, evidence: Evidence, found: dict[str, Bool], dates: NDArray[np.float64]) -> str:
    """Rates dark by dark of the brightest pixels of each kind."""
    rate, state = (evidence.samples.get(f"step_{name}") for name in ("rate", "state"))
    if rate is None or state is None or rate.values.shape[1] != len(dates):
        return ""
    nx = evidence.images["dark_bright_first"].shape[1]
    at = rate.y.astype(np.intp) * nx + rate.x
    with np.errstate(invalid="ignore"):
        top = np.nan_to_num(np.fmax.reduce(rate.values, axis=1), nan=-np.inf)
    figures = []
    for kind, word in KINDS.items():
        mine = np.flatnonzero(found[kind][at])
        for k in mine[np.argsort(-top[mine], kind="stable")][:SHOWN]:
            place = f"{rate.x[k] + mask.window.xstart - 1}, {rate.y[k] + mask.window.ystart - 1}"
            title = f"Pixel {place}: {word}"
            chart = charts.draw_series(dates, rate.values[k], state.values[k] == 1, f"Rate dark by dark, {title}")
            figures.append(f"<figure>{chart}<figcaption>{html.escape(title)}</figcaption></figure>")
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""
