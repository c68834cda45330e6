"""Pictures of ramps: signal, jumps, saturation and fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from badpix.io.figure import make_figure, save_figure
from badpix.review.plots import name_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from badpix.review.pixel_ramps import Ramp


def draw_ramps(ramps: Sequence[Ramp], title: str, path: Path, caption: str = "") -> Path:
    """Ramps, one panel each, with jumps, saturation and fit; one legend for all."""
    columns = min(len(ramps), 4)
    rows = -(-len(ramps) // max(columns, 1))
    figure = make_figure(max(4 * columns, 6) + 1, 3.1 * rows + 1.2)
    name_figure(figure, title, caption)
    handles: dict[str, Any] = {}
    for k, ramp in enumerate(ramps, 1):
        axes = figure.add_subplot(rows, columns, k)
        draw_ramp(axes, ramp, legend=False)
        found, labels = axes.get_legend_handles_labels()
        for handle, label in zip(found, labels, strict=True):
            handles.setdefault("fit" if label.startswith("fit") else label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return save_figure(figure, path)


def draw_ramp(axes: Axes, ramp: Ramp, legend: bool = True) -> None:
    """One ramp into one panel."""
    from matplotlib.ticker import MaxNLocator

    time = np.arange(1, ramp.signal.size + 1)
    axes.plot(time, ramp.signal, ".", color="#000000", markersize=4, label="signal")
    marks: Mapping[str, tuple[Any, str, str]] = {
        "jump": (ramp.jumps, "v", "#D55E00"),
        "saturated": (ramp.saturated, "s", "#CC79A7"),
    }
    for name, (chosen, marker, color) in marks.items():
        if chosen.any():
            axes.plot(time[chosen], ramp.signal[chosen], marker, color=color, markersize=6, label=name)
    slope = ""
    if np.isfinite(ramp.fit).any():
        stretch = np.cumsum(ramp.jumps)
        slope = f"fit {ramp.slope:.4g} {ramp.unit}"
        for k in np.unique(stretch):  # the fit starts anew at each jump
            text = slope if k == stretch[0] else None
            axes.plot(time, np.where(stretch == k, ramp.fit, np.nan), "-", color="#0072B2", linewidth=1, label=text)
    axes.set_title(ramp.label if legend or not slope else f"{ramp.label}\n{slope}", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("group")
    axes.set_ylabel("signal (DN)")
    if legend:
        axes.legend(frameon=False, fontsize=7)
