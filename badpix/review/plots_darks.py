"""Pictures (PNG) of what ``badpix darks`` saw: histograms with limits, maps, the strongest ramps of each type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix.darks.inputs import DarkSet
from badpix.io.evidence import Detection, Evidence
from badpix.review import choose, plots, plots_ramps
from badpix.review.pixel_ramps import Ramp, read_ramps
from badpix.review.readings import MAIN_QUANTITY

HISTOGRAMS = {
    "dark_rate": "dark rate over its surroundings, DN/s",
    "dark_noise": "noise of one group, DN",
    "dark_noise_z": "noise of one group among all candidates, sigma",
    "dark_noise_ratio": "noise of one group over the usual one of its place",
    "dark_rc": "contrast with a decay, sigma",
    "dark_telegraph": "telegraph score, sigma",
    "telegraph_likelihood": "likelihood of two levels over one (candidates)",
    "dark_pedestal_sigma": "mean pedestal, sigma",
    "clean_slope_scatter": "standard deviation of clean slopes, DN/s",
}
MAPS = {
    "dark_rate": ("Dark rate", "DN/s"),
    "dark_noise": ("Noise of one group", "DN"),
    "dark_pedestal": ("Mean pedestal", "DN"),
    "clean_slope_scatter": ("Standard deviation of clean slopes", "DN/s"),
}
EXAMPLES = 8  # pixels of each type of which ramps are drawn
SEARCHED = 5  # exposures among whose integrations the telling one is chosen


def write_darks(found: Detection, darks: DarkSet, image: NDArray[np.uint32], directory: str | Path) -> list[Path]:
    """Histograms, maps, flags and example ramps of a search.

    Parameters
    ----------
    found : Detection
        From :func:`badpix.darks.search.search`, with evidence.
    darks : DarkSet
        What was searched.
    image : uint32 ndarray
        The mask's DQ, (ny, nx).
    directory : path
        Where to; existing pictures are replaced.

    Returns
    -------
    list of Path
        What was written.
    """
    folder, evidence = Path(directory), plots.with_maps(found)
    caption = plots.describe([f.rate for f in darks.files])
    images = evidence.images
    written = [
        plots.draw_histogram(evidence, name, label, folder / f"{name}_histogram.png", caption, image)
        for name, label in HISTOGRAMS.items()
        if name in images and plots.numeric_limits(evidence, name)
    ]
    for name, (title, unit) in MAPS.items():
        if name in images:
            flagged = _flagged_by(found, name)
            limits = plots.numeric_limits(evidence, name)
            path = folder / f"{name}.png"
            written.append(plots.draw_quantity(np.asarray(images[name]), flagged, limits, title, unit, path, caption))
    written.append(plots.draw_flags(image, "Flags from darks", folder / "dark_flags.png", caption))
    for name, flagged in found.maps.items():
        ramps = example_ramps(evidence, name, flagged, darks)
        if ramps:
            title = f"{name.replace('_', ' ')}: the strongest {len(ramps)} of {int(flagged.sum()):,} pixels"
            written.append(plots_ramps.draw_ramps(ramps, title, folder / f"ramps_{name}.png", caption))
    return written


def _flagged_by(found: Detection, quantity: str) -> NDArray[np.bool_]:
    """Pixels of the searches whose main quantity it is, or of all searches."""
    own = [m for name, m in found.maps.items() if MAIN_QUANTITY.get(name) == quantity]
    out: NDArray[np.bool_] = np.any(own or list(found.maps.values()), axis=0)
    return out


def example_ramps(evidence: Evidence, name: str, flagged: NDArray[np.bool_], darks: DarkSet) -> list[Ramp]:
    """Ramps of the pixels of one type that lie farthest beyond its limit, with their score.

    Of each pixel that integration is shown, among those of the first few exposures, that strays most from its line.
    """
    y, x = np.nonzero(flagged)
    if not len(y):
        return []
    order = np.argsort(-choose.measure_excess(evidence, name, flagged.shape)[y, x], kind="stable")[:EXAMPLES]
    quantity = MAIN_QUANTITY.get(name, "")
    values = np.asarray(evidence.images[quantity])[y, x] if quantity in evidence.images else np.full(len(y), np.nan)
    unit = _unit_of(evidence, quantity)
    jumps, window = [f.jump.path for f in darks.files[:SEARCHED]], darks.first.window
    ramps = []
    for k in order:
        place = int(x[k]) + window.xstart - 1, int(y[k]) + window.ystart - 1
        score = (
            f", {quantity.removeprefix('dark_').replace('_', ' ')} {values[k]:.4g}{unit}"
            if np.isfinite(values[k])
            else ""
        )
        ramp = max(read_ramps(jumps, *place), key=_stray)
        ramps.append(replace(ramp, label=f"pixel ({place[0]}, {place[1]}){score}"))
    return ramps


def _unit_of(evidence: Evidence, quantity: str) -> str:
    """The unit of a quantity after a space: that of its map, or of the rule that compares it."""
    units = [MAPS[quantity][1]] if quantity in MAPS else [r.unit for r in evidence.rules if r.quantity == quantity]
    return f" {units[0]}" if units and units[0] else ""


def _stray(ramp: Ramp) -> float:
    """Largest distance of a group from the straight line through a ramp's median step, DN."""
    good = np.isfinite(ramp.signal) & ~ramp.saturated
    signal = ramp.signal[good]
    if signal.size < 3:
        return float(signal.size)
    rest = signal - np.median(np.diff(signal)) * np.arange(signal.size)
    return float(np.ptp(rest))
