"""Pictures (PNG) of what ``badpix darks`` saw: histograms with limits, maps, example ramps of each type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix.darks.inputs import DarkSet
from badpix.io.evidence import Detection
from badpix.review import plots
from badpix.review.pixel_ramps import Ramp, read_ramps

HISTOGRAMS = {
    "dark_rate": "dark rate over its surroundings, DN/s",
    "dark_noise": "noise of one group, DN",
    "dark_rc": "contrast with a decay, sigma",
    "dark_telegraph": "correlation of residuals, sigma",
    "dark_pedestal_sigma": "mean pedestal, sigma",
    "clean_slope_scatter": "standard deviation of clean slopes, DN/s",
}
MAPS = ("dark_rate", "dark_noise", "dark_pedestal", "clean_slope_scatter")
EXAMPLES = 4  # pixels of each type of which ramps are drawn


def write_darks(found: Detection, darks: DarkSet, image: NDArray[np.uint32], directory: str | Path) -> list[Path]:
    """Histograms, maps, flags and example ramps of a search.

    Parameters
    ----------
    found : Detection
        From :func:`darks.search`, with evidence.
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
    folder, evidence = Path(directory), found.evidence
    written = []
    for name, label in HISTOGRAMS.items():
        if name in evidence.images:
            rules = plots.limits_of(evidence, name)
            path = folder / f"{name}_histogram.png"
            written.append(plots.draw_histogram(evidence.images[name], rules, label, path))
    for name in MAPS:
        if name in evidence.images:
            written.append(plots.draw_image(evidence.images[name], name.replace("_", " "), folder / f"{name}.png"))
    written.append(plots.draw_flags(image, "flags from darks", folder / "dark_flags.png"))
    for name, flagged in found.maps.items():
        ramps = example_ramps(flagged, darks)
        if ramps:
            title = f"{name}: ramps, jumps, fitted line"
            written.append(plots.draw_ramps(ramps, title, folder / f"ramps_{name}.png"))
    return written


def example_ramps(flagged: NDArray[np.bool_], darks: DarkSet) -> list[Ramp]:
    """The first integration's ramp of some pixels of one type, spread over the frame."""
    places = np.argwhere(flagged)
    if not len(places):
        return []
    chosen = places[np.unique(np.linspace(0, len(places) - 1, EXAMPLES).astype(int))]
    jump, window = darks.files[0].jump.path, darks.first.window
    ramps = []
    for row, column in chosen:
        x, y = int(column) + window.xstart - 1, int(row) + window.ystart - 1
        ramp = read_ramps([jump], x, y)[0]
        ramps.append(replace(ramp, label=f"pixel ({x}, {y}), {ramp.label}"))
    return ramps
