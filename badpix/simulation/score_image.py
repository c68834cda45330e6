"""Flags against the truth of a simulated image association.

A pixel is *touched* where hits, halos and changing stars added more than 0.1 sigma; *false* flags lie on usable
pixels that nothing touched. Recall counts usable pixels by what was added to them; ``covered`` means seen by
another group, ``single`` by none. A pixel is on a source where the scene without noise lies 5 sigma above its
median, on blank sky where that is so in none of its 7x7, and steep where the scene changes by more than 10 sigma to
a neighbor. A source-exposure is damaged where false flags take more than 1 % of the scene's flux in the 5x5 pixels
around a peak of at least 100 sigma. A transient is listed where the search names its place within 2 pixels
(:func:`score_events`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from badpix.image.resample_drizzle import measure_derivative
from badpix.io import cal as io_cal
from badpix.io.cal import DO_NOT_USE, FLAGGED
from badpix.numerics.neighbors import gather
from badpix.simulation.image_faults import Event
from badpix.simulation.image_setup import Setup

TOUCHED = 0.1  # sigma
STEEP = 10.0
SOURCE = 100.0
DAMAGE = 0.01
ON_SOURCE = 5.0
NEAR = 2.0  # pixels
SHARES = (
    "cr5",
    "cr20",
    "cr20_covered",
    "cr20_single",
    "cr20_100",
    "cr20_100_source",
    "trail5",
    "trail1_5",
    "halo1",
    "hot",
)


def score_exposure(cal: Path, flagged: Path, truth: Path) -> dict[str, float]:
    """Counts of one exposure, to be added up by :func:`summarize`."""
    before, after, known = (io_cal.read_layout(p) for p in (cal, flagged, truth))
    usable = (io_cal.read_rows(before, "DQ") & DO_NOT_USE) == 0
    outlier = (io_cal.read_rows(after, "DQ") & (FLAGGED & ~DO_NOT_USE)) != 0
    cr, trail, hot = (io_cal.read_rows(known, name) for name in ("CR", "TRAIL", "HOT"))
    scene, sigma = io_cal.read_rows(known, "MODEL"), io_cal.read_rows(known, "SIGMA")
    covered = io_cal.read_rows(known, "COVER") > 0
    halo, changing = io_cal.read_rows(known, "HALO"), io_cal.read_rows(known, "CHANGING")
    false = outlier & usable & (cr + trail + np.abs(hot) + halo + changing <= TOUCHED)
    source = scene - np.median(scene[::3, ::3]) > ON_SOURCE * np.median(sigma)
    blank = ~maximum_filter(source, 7)
    steep = usable & (measure_derivative(scene) > STEEP * sigma)
    counts = {
        "usable": usable.sum(),
        "steep": steep.sum(),
        "on_source": (usable & source).sum(),
        "blank": (usable & blank).sum(),
        "false": false.sum(),
        "false_steep": (false & steep).sum(),
        "false_on_source": (false & source).sum(),
        "false_blank": (false & blank).sum(),
    }
    for name, target in (
        ("cr5", cr > 5),
        ("cr20", cr > 20),
        ("cr20_covered", (cr > 20) & covered),
        ("cr20_single", (cr > 20) & ~covered),
        ("cr20_100", (cr > 20) & (cr < 100) & covered),
        ("cr20_100_source", (cr > 20) & (cr < 100) & covered & source),
        ("trail5", trail > 5),
        ("trail1_5", (trail > 1) & (trail <= 5) & covered),
        ("halo1", (halo > 1) & covered),
        ("hot", hot > 0),
        ("single", ~covered),
    ):
        counts[name] = (target & usable).sum()
        counts[name + "_found"] = (target & usable & outlier).sum()
    counts["single_false"] = (false & ~covered).sum()
    counts |= _damage(scene, sigma, false)
    return {k: float(v) for k, v in counts.items()}


def _damage(scene: NDArray[Any], sigma: NDArray[Any], false: NDArray[Any]) -> dict[str, Any]:
    floor = np.median(scene[::5, ::5])
    ys, xs = np.nonzero((scene == maximum_filter(scene, 5)) & (scene - floor > 10 * sigma))
    net = np.nan_to_num(np.maximum(gather(scene, ys, xs, 2) - floor, 0))
    total = net.sum(axis=0)
    real = total > SOURCE * sigma[ys, xs]
    lost = (net * (gather(false.astype(np.float32), ys, xs, 2) > 0)).sum(axis=0)[real] / total[real]
    return {"sources": real.sum(), "damaged": (lost > DAMAGE).sum(), "lost": lost.sum()}


def summarize(counts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Shares and rates over all exposures: recall from 0 to 1, false flags a million pixels."""
    rows = list(counts)
    total = {k: sum(row[k] for row in rows) for k in rows[0]}

    def share(part: str, whole: str, factor: float = 1.0) -> float:
        return factor * total[part] / total[whole] if total[whole] else float("nan")

    out = {k: share(k + "_found", k) for k in SHARES}
    out["false_per_million"] = share("false", "usable", 1e6)
    out["false_blank_per_million"] = share("false_blank", "blank", 1e6)
    out["false_on_source_per_million"] = share("false_on_source", "on_source", 1e6)
    out["false_steep_per_million"] = share("false_steep", "steep", 1e6)
    out["false_single"] = total["single_false"]
    out["sources_damaged"] = share("damaged", "sources")
    out["mean_loss"] = share("lost", "sources")
    return out


def score_run(cal_dir: Path, crf_dir: Path) -> dict[str, float]:
    """Score of all `_crf` files of a directory; exposures and ``truth/`` lie in ``cal_dir``."""
    rows = []
    for cal in sorted(Path(cal_dir).glob("*_cal.fits")):
        root = cal.name.removesuffix("_cal.fits")
        outputs = sorted(Path(crf_dir).glob(f"{root}*_crf.fits"))
        if outputs:
            rows.append(score_exposure(cal, outputs[0], Path(cal_dir) / "truth" / f"{root}_truth.fits"))
    if not rows:
        raise FileNotFoundError(f"{crf_dir}: no _crf files of the exposures in {cal_dir}")
    return summarize(rows)


def score_events(cal_dir: Path, rows: Sequence[dict[str, Any]], setup: Setup) -> dict[str, int]:
    """How many of the transients and moving objects of a simulation are listed, and how many rows are none of them.

    Parameters
    ----------
    cal_dir : Path
        The simulation; ``truth/events.json`` holds its events.
    rows : sequence of dict
        ``transients`` of the summary of the search.
    setup : Setup
        Of the simulation.
    """
    path = Path(cal_dir) / "truth" / "events.json"
    events = [Event(**row) for row in json.loads(path.read_text())] if path.exists() else []
    places = [[(*_on_sky(event, group, setup),) for group in event.groups] for event in events]
    reach = NEAR * setup.scale / 3600

    def meets(row: dict[str, Any], place: tuple[float, float]) -> bool:
        east = (row["ra"] - place[0]) * np.cos(np.radians(place[1]))
        return float(np.hypot(east, row["dec"] - place[1])) < reach

    seen = [row for item in rows for row in item["detections"]]
    listed = sum(any(meets(row, place) for row in seen for place in group) for group in places)
    known = [place for group in places for place in group]
    wrong = sum(not any(meets(row, place) for row in item["detections"] for place in known) for item in rows)
    return {"events": len(events), "listed": listed, "wrong": wrong}


def _on_sky(event: Event, group: int, setup: Setup) -> tuple[float, float]:
    """RA and Dec of an event in one group, degrees."""
    ra0, dec0 = setup.target
    dec = dec0 + (event.north + group * event.rate[1]) / 3600
    return ra0 + (event.east + group * event.rate[0]) / 3600 / float(np.cos(np.radians(dec0))), dec
