"""Pictures (PNG) of masks, flats, ramps and changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.io.evidence import Detection, Evidence, Rule
from badpix.io.figure import make_figure, save_figure
from badpix.review.export import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from badpix.review.compare import Comparison
    from badpix.review.pixel_ramps import Ramp

SHOWN = 200_000  # pixels of one type that are drawn at the most
BINS = 200
DOTS = 1100  # of a picture of an image, in its longer direction


# --- flats -----------------------------------------------------------------------------------------------


def write_flats(found: Detection, image: NDArray[np.uint32], directory: str | Path) -> list[Path]:
    """What the flats' search saw: mean, normalised image and its histogram with the limits, and the flags.

    Parameters
    ----------
    found : Detection
        From :func:`flats.search`.
    image : uint32 ndarray
        The mask's DQ, (ny, nx).
    directory : path
        Where to; existing pictures are replaced.

    Returns
    -------
    list of Path
        What was written.
    """
    place = Path(directory)
    images = found.evidence.images
    titles = {"flat_mean": "Mean of the flats (DN/s)", "flat_norm": "Normalised mean"}
    written = [
        draw_image(images[name], title, place / f"{name}.png") for name, title in titles.items() if name in images
    ]
    if "flat_norm" in images:
        rules = [r for r in found.evidence.rules if r.quantity == "flat_norm"]
        written.append(
            draw_histogram(images["flat_norm"], rules, "Normalised rate", place / "flat_norm_histogram.png")
        )
    written.append(draw_flags(image, "Flags", place / "flags.png"))
    return written


# --- images ----------------------------------------------------------------------------------------------


def draw_image(image: NDArray[Any], title: str, path: Path) -> Path:
    """A grey image between its 1st and 99th percentile; where pixels are smaller than dots, their means."""
    figure = make_figure(8, 7)
    axes = figure.add_subplot()
    small = shrink(image, -(-max(image.shape) // DOTS))
    finite = small[np.isfinite(small)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    frame = (-0.5, image.shape[1] - 0.5, -0.5, image.shape[0] - 0.5)
    shown = axes.imshow(
        small, origin="lower", cmap="cividis", vmin=low, vmax=high, interpolation="nearest", extent=frame
    )
    figure.colorbar(shown, ax=axes, shrink=0.8)
    _name_axes(axes, title)
    return save_figure(figure, path)


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


def draw_flags(image: NDArray[np.uint32], title: str, path: Path) -> Path:
    """Where each type is: one colour a type, points large enough to be seen."""
    figure = make_figure(9, 7)
    axes = figure.add_subplot()
    _scatter(axes, image)
    _frame(axes, image.shape)
    _name_axes(axes, title)
    return save_figure(figure, path)


def _scatter(axes: Axes, image: NDArray[np.uint32]) -> None:
    for name, colour in COLOURS.items():
        depth = 1 if name == "ADJ_OPEN" else 2  # the open pixel lies on its neighbours
        y, x = np.nonzero(image & np.uint32(dq.VALUE[name]))
        if x.size:
            size = 2 if x.size > 2000 else 8
            where: dict[str, Any] = {"s": size, "c": colour, "marker": "s", "linewidths": 0, "zorder": depth}
            axes.scatter(x[:SHOWN], y[:SHOWN], label=f"{name} ({x.size:,})", **where)
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=3, frameon=False)


def _frame(axes: Axes, shape: Sequence[int]) -> None:
    axes.set_xlim(-0.5, shape[1] - 0.5)
    axes.set_ylim(-0.5, shape[0] - 0.5)
    axes.set_aspect("equal")


def _name_axes(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("x (pixels, from 0)")
    axes.set_ylabel("y (pixels, from 0)")


def draw_histogram(image: NDArray[Any], rules: Sequence[Rule], label: str, path: Path) -> Path:
    """How the values of a quantity are distributed, with the limits of the searches."""
    figure = make_figure(8, 5)
    axes = figure.add_subplot()
    counts, edges = histogram(image, [float(r.limit) for r in rules if not isinstance(r.limit, str)])
    axes.stairs(counts, edges, fill=True, color="#56B4E9")
    axes.set_yscale("log")
    axes.set_ylim(0.5, None)
    styles = ("--", ":", "-.")
    limits = {(float(r.limit), r.comparison): r for r in rules if not isinstance(r.limit, str)}
    for k, ((limit, comparison), _) in enumerate(limits.items()):
        names = ", ".join(r.search for r in rules if r.limit == limit and r.comparison == comparison)
        text = f"{names} {comparison} {limit:.4g}"
        axes.axvline(limit, color="#D55E00", linestyle=styles[k % 3], label=text)
    if limits:
        axes.legend(frameon=False)
    axes.set_xlabel(label)
    axes.set_ylabel("pixels")
    return save_figure(figure, path)


def histogram(
    image: NDArray[Any], limits: Sequence[float] = (), bins: int = BINS
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Counts and edges over the range in which nearly all pixels and the limits lie; the rest goes to the ends."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return np.zeros(1, np.int64), np.array([0.0, 1.0])
    lowest, highest = float(finite.min()), float(finite.max())
    finite.partition([int(q * (finite.size - 1)) for q in (0.0005, 0.9995)])
    low, high = (float(finite[int(q * (finite.size - 1))]) for q in (0.0005, 0.9995))
    low, high = min([low, *limits]), max([high, *limits])
    margin = 0.05 * (high - low) or 1.0
    low, high = max(low - margin, lowest), min(high + margin, highest)
    if limits:
        low, high = min(low, min(limits)), max(high, max(limits))
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = np.zeros(bins, np.int64)
    for start in range(0, finite.size, 1 << 20):  # the whole image in double precision would be four copies of it
        counts += np.histogram(np.clip(finite[start : start + (1 << 20)].astype(np.float64), low, high), edges)[0]
    return counts, edges


# --- comparison ------------------------------------------------------------------------------------------


def draw_changes(found: Comparison, path: Path) -> Path:
    """What appeared and what disappeared, side by side."""
    figure = make_figure(15, 6)
    for k, (title, image) in enumerate((("Appeared", found.appeared), ("Disappeared", found.disappeared)), 1):
        axes = figure.add_subplot(1, 2, k)
        _scatter(axes, image)
        _frame(axes, image.shape)
        _name_axes(axes, title)
    return save_figure(figure, path)


# --- ramps -----------------------------------------------------------------------------------------------


def draw_ramps(ramps: Sequence[Ramp], title: str, path: Path) -> Path:
    """Ramps of one pixel: one panel an integration, with jumps, saturation and fit."""
    columns = min(len(ramps), 4)
    rows = -(-len(ramps) // max(columns, 1))
    figure = make_figure(4 * columns + 1, 3 * rows + 0.6)
    figure.suptitle(title)
    for k, ramp in enumerate(ramps, 1):
        draw_ramp(figure.add_subplot(rows, columns, k), ramp, legend=k == 1)
    return save_figure(figure, path)


def draw_ramp(axes: Axes, ramp: Ramp, legend: bool = True) -> None:
    """One ramp into one panel."""
    time = np.arange(1, ramp.signal.size + 1)
    axes.plot(time, ramp.signal, ".", color="#000000", markersize=4, label="signal")
    marks: Mapping[str, tuple[Any, str, str]] = {
        "jump": (ramp.jumps, "v", "#D55E00"),
        "saturated": (ramp.saturated, "s", "#CC79A7"),
    }
    for name, (chosen, marker, colour) in marks.items():
        if chosen.any():
            axes.plot(time[chosen], ramp.signal[chosen], marker, color=colour, markersize=6, label=name)
    if np.isfinite(ramp.fit).any():
        stretch = np.cumsum(ramp.jumps)
        for k in np.unique(stretch):  # the fit starts anew at each jump
            text = f"fit {ramp.slope:.4g} {ramp.unit}" if k == stretch[0] else None
            axes.plot(time, np.where(stretch == k, ramp.fit, np.nan), "-", color="#0072B2", linewidth=1, label=text)
    axes.set_title(ramp.label, fontsize=8)
    axes.set_xlabel("group")
    axes.set_ylabel("signal (DN)")
    if legend:
        axes.legend(frameon=False, fontsize=7)


def limits_of(evidence: Evidence, quantity: str) -> list[Rule]:
    """The rules that compare a quantity with a number."""
    return [r for r in evidence.rules if r.quantity == quantity and not isinstance(r.limit, str)]
