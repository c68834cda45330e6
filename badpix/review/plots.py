"""Pictures (PNG) of masks, flats and changes.

Every picture names the detector, the exposures and the version (:func:`describe`). A quantity is shown three times:
the whole frame as means of blocks (its structure), the number of flagged pixels by block (where the defects are,
however small they would be drawn), and the place where they are densest, pixel by pixel, on a scale with the limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix import __version__, dq
from badpix.flats import judged
from badpix.io.evidence import Detection, Evidence
from badpix.io.figure import make_figure, save_figure
from badpix.review import histograms
from badpix.review.export import COLORS
from badpix.review.readings import CANDIDATES_ONLY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from badpix.io.exposure import Exposure
    from badpix.review.compare import Comparison

SHOWN = 200_000  # pixels of one type that are drawn at the most
DOTS = 512  # of an overview, in its longer direction
CELLS = 64  # blocks of a density map, in its longer direction
ZOOM = 64  # pixels along each side of the place shown pixel by pixel
FLAGGED, OTHERS, LIMIT = "#D55E00", "#B9D7EA", "#1C2024"
STATES = {  # of pixels in flats, in the order of their values: name and color
    "reference": "#1C2024",
    "judged": "#E8EEF2",
    "dim": "#F0C070",
    "unlit": "#5B7A99",
    "saturated": "#CC79A7",
    "no slope": "#D55E00",
}
Bool = NDArray[np.bool_]


def describe(exposures: Sequence[Exposure]) -> str:
    """Detector, number and dates of some exposures, and the version: the line that every picture carries."""
    headers = [e.header for e in exposures]
    days = sorted(str(h.get("DATE-OBS", ""))[:10] for h in headers if h.get("DATE-OBS"))
    dates = "" if not days else f", {days[0]}" if days[0] == days[-1] else f", {days[0]} to {days[-1]}"
    plural = "s" if len(headers) != 1 else ""
    return f"{headers[0].get('DETECTOR', '')}, {len(headers)} exposure{plural}{dates}, badpix {__version__}"


# --- flats -----------------------------------------------------------------------------------------------


def write_flats(found: Detection, image: NDArray[np.uint32], directory: str | Path, caption: str = "") -> list[Path]:
    """What the flats' search saw: mean, normalized image and its histogram with the limits, and the flags.

    Parameters
    ----------
    found : Detection
        From :func:`flats.search`.
    image : uint32 ndarray
        The mask's DQ, (ny, nx).
    directory : path
        Where to; existing pictures are replaced.
    caption : str
        From :func:`describe`.

    Returns
    -------
    list of Path
        What was written.
    """
    place = Path(directory)
    evidence = with_maps(found)
    flagged = np.any(list(found.maps.values()), axis=0) if found.maps else np.zeros(image.shape, bool)
    written = []
    for name, title, unit in (("flat_mean", "Mean of the flats", "DN/s"), ("flat_norm", "Normalized mean", "")):
        if name in evidence.images:
            limits = numeric_limits(evidence, name)
            written.append(
                draw_quantity(
                    np.asarray(evidence.images[name]), flagged, limits, title, unit, place / f"{name}.png", caption
                )
            )
    if "flat_norm" in evidence.images:
        path = place / "flat_norm_histogram.png"
        written.append(draw_histogram(evidence, "flat_norm", "Normalized rate", path, caption, image))
    state = evidence.images.get("flat_state")
    if state is not None and (np.asarray(state) > judged.LIT).any():
        written.append(draw_states(np.asarray(state), place / "flat_state.png", caption))
    written.append(draw_flags(image, "Flags from flats", place / "flags.png", caption))
    return written


def with_maps(found: Detection) -> Evidence:
    """The evidence of a detection with the maps of its searches, as it is stored."""
    kept = found.evidence
    maps = {f"is_{name.lower()}": image for name, image in found.maps.items()}
    return replace(kept, images={**kept.images, **maps})


# --- images ----------------------------------------------------------------------------------------------


def draw_quantity(
    image: NDArray[Any],
    flagged: Bool,
    limits: Sequence[float],
    title: str,
    unit: str,
    path: Path,
    caption: str = "",
) -> Path:
    """A measured quantity: means of blocks, flagged pixels by block, and the densest place pixel by pixel."""
    figure = make_figure(17, 5.4)
    name_figure(figure, title, caption)
    frame = (-0.5, image.shape[1] - 0.5, -0.5, image.shape[0] - 0.5)
    panels = [figure.add_subplot(1, 3, k) for k in (1, 2, 3)]
    small = shrink(image, -(-max(image.shape) // DOTS))
    block = -(-max(image.shape) // DOTS)
    _show(panels[0], small, frame, _scale(small), unit or "relative", "cividis")
    _name_axes(panels[0], "whole frame" + (f", means of {block} x {block} pixels" if block > 1 else ""))
    side = -(-max(image.shape) // CELLS)
    cells = count_blocks(flagged, side)
    edges = (-0.5, cells.shape[1] * side - 0.5, -0.5, cells.shape[0] * side - 0.5)
    most = max(float(cells.max(initial=0)), 1.0)
    _show(panels[1], cells, edges, (0.0, most), f"flagged in {side} x {side} pixels", "magma_r", whole=True)
    _frame(panels[1], image.shape)
    _name_axes(panels[1], f"{int(flagged.sum()):,} flagged pixels")
    y, x = densest(flagged, min(ZOOM, *image.shape))
    _draw_zoom(panels[2], image, flagged, (y, x), limits, unit)
    return save_figure(figure, path)


def _draw_zoom(
    axes: Axes, image: NDArray[Any], flagged: Bool, corner: tuple[int, int], limits: Sequence[float], unit: str
) -> None:
    """A place pixel by pixel, on a scale that holds the limits; flagged pixels are outlined."""
    y, x = corner
    size = min(ZOOM, *image.shape)
    part, marks = image[y : y + size, x : x + size], flagged[y : y + size, x : x + size]
    low, high = _scale(part)
    spread = max(high - low, 1e-6)
    low, high = min([low, *(v - 0.2 * abs(v) for v in limits)]), max([high, *(v + 0.5 * abs(v) for v in limits)])
    _show(
        axes,
        part,
        (x - 0.5, x + size - 0.5, y - 0.5, y + size - 0.5),
        (low, max(high, low + 0.1 * spread)),
        unit or "relative",
        "cividis",
    )
    rows, columns = np.nonzero(marks)
    box: dict[str, Any] = {"s": 26 if rows.size > 12 else 60, "marker": "s", "facecolors": "none"}
    for color, width in (("white", 2.4), (FLAGGED, 1.2)):  # seen on bright and on dark
        axes.scatter(columns + x, rows + y, edgecolors=color, linewidths=width, **box)
    _name_axes(axes, f"where they are densest ({int(marks.sum())} flagged, outlined)")


def _show(
    axes: Axes,
    image: NDArray[Any],
    extent: tuple[float, ...],
    scale: tuple[float, float],
    label: str,
    colors: str,
    whole: bool = False,
) -> None:
    """An image with its color bar; ``whole``: counts, with whole numbers beside the bar."""
    options: dict[str, Any] = {"vmin": scale[0], "vmax": scale[1], "extent": extent, "cmap": colors}
    shown = axes.imshow(image, origin="lower", interpolation="nearest", **options)
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(integer=True) if whole else None
    axes.figure.colorbar(shown, ax=axes, shrink=0.8, label=label, ticks=ticks)


def _scale(image: NDArray[Any]) -> tuple[float, float]:
    """1st and 99th percentile."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    return float(low), float(high) if high > low else float(low) + 1.0


def numeric_limits(evidence: Evidence, quantity: str) -> list[float]:
    """The numbers that the searches compare a quantity with."""
    return [float(r.limit) for r in evidence.rules if r.quantity == quantity and not isinstance(r.limit, str)]


def shrink(image: NDArray[Any], step: int) -> NDArray[np.float32]:
    """Means of blocks of ``step`` x ``step`` pixels, smaller ones at the far edges; NaN where all are."""
    shape = [-(-n // step) for n in image.shape]
    total, number = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for y, x in np.ndindex(step, step):
        part = image[y::step, x::step]
        good = np.isfinite(part)
        inside = tuple(slice(n) for n in part.shape)
        total[inside] += np.where(good, part, 0)
        number[inside] += good
    with np.errstate(invalid="ignore"):
        total /= number
    return total


def count_blocks(flagged: Bool, side: int) -> NDArray[np.int64]:
    """Flagged pixels in blocks of ``side`` x ``side``, smaller ones at the far edges."""
    rows = np.add.reduceat(flagged.astype(np.int64), np.arange(0, flagged.shape[0], side), axis=0)
    return np.asarray(np.add.reduceat(rows, np.arange(0, flagged.shape[1], side), axis=1))


def densest(flagged: Bool, size: int) -> tuple[int, int]:
    """First row and column of the block of ``size`` pixels with the most flagged ones that lies inside the frame."""
    cells = count_blocks(flagged, max(size // 2, 1))
    y, x = np.unravel_index(int(np.argmax(cells)), cells.shape)
    half = max(size // 2, 1)
    corner = [int(k) * half - half // 2 for k in (y, x)]
    return tuple(min(max(c, 0), n - size) for c, n in zip(corner, flagged.shape, strict=True))  # type: ignore[return-value]


def draw_flags(image: NDArray[np.uint32], title: str, path: Path, caption: str = "") -> Path:
    """Where each type is: one color a type, points large enough to be seen."""
    figure = make_figure(10, 7.4)
    name_figure(figure, title, caption)
    axes = figure.add_subplot()
    _scatter(axes, image)
    _frame(axes, image.shape)
    _name_axes(axes, "")
    _name_colors(figure, axes)
    return save_figure(figure, path)


def draw_states(state: NDArray[np.uint8], path: Path, caption: str = "") -> Path:
    """Which pixels the flats judged, and why they did not judge the others: one color a reason."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    figure = make_figure(10, 7.4)
    counts = judged.count_states(state)
    name_figure(figure, judged.headline(counts), caption)
    axes = figure.add_subplot()
    axes.imshow(state, cmap=ListedColormap(list(STATES.values())), vmin=-0.5, vmax=len(STATES) - 0.5, origin="lower")
    _frame(axes, state.shape)
    _name_axes(axes, "")
    handles = [
        Patch(color=color, label=f"{name} ({counts[name]:,})") for name, color in STATES.items() if counts.get(name)
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False)  # beside the map: the title is wide
    return save_figure(figure, path)


def _scatter(axes: Axes, image: NDArray[np.uint32]) -> None:
    for name, color in COLORS.items():
        depth = 1 if name == "ADJ_OPEN" else 2  # the open pixel lies on its neighbors
        y, x = np.nonzero(image & np.uint32(dq.VALUE[name]))
        if x.size:
            size = 2 if x.size > 2000 else 8
            size = 24 if name == "ADJ_OPEN" and x.size <= 20_000 else size  # a rim around the open pixel
            where: dict[str, Any] = {"s": size, "c": color, "marker": "s", "linewidths": 0, "zorder": depth}
            axes.scatter(x[:SHOWN], y[:SHOWN], label=f"{name} ({x.size:,})", **where)


def _name_colors(figure: Figure, axes: Axes) -> None:
    """A legend beside the axes, which the layout makes room for."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        shown = figure.legend(handles, labels, loc="outside right upper", frameon=False, scatterpoints=1)
        for handle in shown.legend_handles:
            if handle is not None:
                handle.set_sizes([36])  # type: ignore[attr-defined]


def _frame(axes: Axes, shape: Sequence[int]) -> None:
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(-0.5, shape[0] - 0.5)
    axes.set_aspect("equal")


def _name_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("x (pixels, from 0)")
    axes.set_ylabel("y (pixels, from 0)")


def name_figure(figure: Figure, title: str, caption: str) -> None:
    figure.suptitle(f"{title}\n{caption}" if caption else title, fontsize=11)


# --- histograms ------------------------------------------------------------------------------------------


def draw_histogram(
    evidence: Evidence,
    quantity: str,
    label: str,
    path: Path,
    caption: str = "",
    mask: NDArray[np.uint32] | None = None,
) -> Path:
    """How the values of a quantity are distributed, flagged and other pixels apart, with the limits that decide."""
    values = np.asarray(evidence.images[quantity])
    science = np.ones(values.shape, bool)
    if mask is not None:
        science = (mask & np.uint32(dq.VALUE["REFERENCE_PIXEL"])) == 0
    limits = histograms.find_limits(evidence, quantity, science)
    flagged = histograms.find_flagged(evidence, quantity)
    made = histograms.count(values[science], flagged[science], [one.value for one in limits])
    figure = make_figure(9, 5.4)
    name_figure(figure, label, caption)
    axes = figure.add_subplot()
    everything = "all candidates" if quantity in CANDIDATES_ONLY else "all measured pixels"
    axes.stairs(made.flagged + made.others, made.edges, fill=True, color=OTHERS, label=everything)
    if made.flagged.any():
        label_of = "flagged by a search of this quantity"
        axes.stairs(made.flagged, made.edges, fill=True, color=FLAGGED, alpha=0.8, label=label_of)
    axes.set_yscale("log")
    axes.set_xscale("symlog", linthresh=made.linear, linscale=1.0)
    axes.set_xticks(histograms.find_ticks(made), minor=False)
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.minorticks_off()
    axes.set_xlim(made.edges[0], made.edges[-1])
    axes.set_ylim(0.5, None)
    for one, style in zip(limits, ("--", ":", "-.", (0, (1, 3)), (0, (5, 1))) * 3, strict=False):
        kept = ", others kept back by further tests" if one.beyond > one.flagged else ""
        text = f"{one.label} {one.unit}".strip() + f": {one.beyond:,} beyond, {one.flagged:,} flagged{kept}"
        axes.axvline(one.value, color=LIMIT, linestyle=style, linewidth=1.2, label=text)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=8, ncols=1)
    axes.set_xlabel(label)
    axes.set_ylabel("pixels")
    return save_figure(figure, path)


# --- comparison ------------------------------------------------------------------------------------------


def draw_changes(found: Comparison, path: Path, detector: str = "") -> Path:
    """What appeared and what disappeared, side by side."""
    figure = make_figure(16, 6.4)
    name_figure(figure, "What changed", f"{detector}, badpix {__version__}")
    for k, (title, image) in enumerate((("Appeared", found.appeared), ("Disappeared", found.disappeared)), 1):
        axes = figure.add_subplot(1, 2, k)
        _scatter(axes, image)
        _frame(axes, image.shape)
        _name_axes(axes, f"{title}: {int(np.count_nonzero(image)):,} pixels")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=3, frameon=False, fontsize=8)
    return save_figure(figure, path)
