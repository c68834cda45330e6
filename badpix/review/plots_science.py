"""Pictures (PNG) of what ``badpix science`` saw: histogram and map of the excess, flags, strongest pixels in time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Detection, Evidence
from badpix.io.exposure import Exposure
from badpix.io.figure import make_figure, save_figure
from badpix.review import plots
from badpix.review.history import STANDS_OUT
from badpix.review.science_series import find_strongest, read_series

TITLE = "Mean excess over the pixels around"
EXAMPLES = 8  # pixels of each type whose series are drawn


def write_science(
    found: Detection, used: Sequence[Exposure], image: NDArray[np.uint32], directory: str | Path
) -> list[Path]:
    """Histogram, map, flags and series of a search.

    Parameters
    ----------
    found : Detection
        From :func:`badpix.science.search.search`, with evidence.
    used : sequence of Exposure
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
    folder, evidence, caption = Path(directory), plots.with_maps(found), plots.describe(used)
    sigma = np.asarray(evidence.images["science_sigma"])
    limits = [float(r.limit) for r in evidence.rules if r.quantity == "science_sigma"]
    flagged = np.any(list(found.maps.values()), axis=0)
    path = folder / "science_sigma_histogram.png"
    written = [
        plots.draw_histogram(evidence, "science_sigma", f"{TITLE}, sigma", path, caption, image),
        plots.draw_quantity(sigma, flagged, limits, TITLE, "sigma", folder / "science_sigma.png", caption),
        plots.draw_flags(image, "Flags from science exposures", folder / "science_flags.png", caption),
    ]
    window = used[0].window
    for name in found.maps:
        some = find_strongest(evidence, name, (image.shape[0], image.shape[1]), EXAMPLES)
        if some:
            corner = window.xstart - 1, window.ystart - 1
            written.append(draw_series(evidence, some, corner, name, folder / f"series_{name}.png", caption))
    return written


def draw_series(
    evidence: Evidence,
    pixels: Sequence[tuple[int, int]],
    corner: tuple[int, int],
    name: str,
    path: Path,
    caption: str,
) -> Path:
    """Excess of some pixels by date, one panel each."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    dates = np.array([mjd for _, mjd, _ in evidence.science_exposures]) - 40587  # since 1970
    columns = min(len(pixels), 4)
    rows = -(-len(pixels) // columns)
    figure = make_figure(max(4 * columns, 6) + 1, 2.8 * rows + 1.0)
    figure.suptitle(f"{name}: the strongest {len(pixels)} pixels\n{caption}", fontsize=11)
    for k, (x, y) in enumerate(pixels, 1):
        axes = figure.add_subplot(rows, columns, k)
        excess, z = read_series(evidence, x, y)
        axes.plot(dates, excess, ".", color=plots.LIMIT, markersize=4)
        bright = z > STANDS_OUT
        axes.plot(dates[bright], excess[bright], "^", color=plots.FLAGGED, markersize=5)
        axes.axhline(0, color="0.8", linewidth=0.8)
        axes.set_title(f"pixel ({x + corner[0]}, {y + corner[1]})", fontsize=8)
        axes.set_ylabel(f"excess ({evidence.science_unit})")
        locator = AutoDateLocator(maxticks=5)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    return save_figure(figure, path)
