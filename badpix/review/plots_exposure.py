"""Pictures of one exposure on its way through the first stage, of what :mod:`badpix.review.exposure_ramps` counts.

flags after dq_init; ramps that saturate; images before and after superbias and refpix (a corner near the border, so
that odd and even columns are seen, and the bands of the 1/f noise with and without the side pixels); ramps before
and after linearity; ramps with jumps and fit; the slopes. Chosen pixels: their ramp after each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import UsageError
from badpix.io.exposure import Exposure
from badpix.io.figure import make_figure, save_figure
from badpix.prepare.products import chain, latest_flags, read_plane, read_ramp, split_name, step_before
from badpix.review import exposure_flags as ramp_flags
from badpix.review.pixel_ramps import Ramp, fit_segments
from badpix.review.plots import describe, draw_flags
from badpix.review.plots_ramps import draw_ramp

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 9
CORNER = 24  # pixels along each side of the enlarged corner
WELL_EXPOSED = 40_000  # DN


def write_ramps(
    products: Mapping[str, Exposure], pixels: Sequence[tuple[int, int]], root: str, folder: Path, integration: int = 0
) -> list[Path]:
    """All pictures that the products at hand allow.

    Parameters
    ----------
    products : mapping
        Product -> exposure.
    pixels : sequence of (x, y)
        Pixels of the image whose ramps are drawn after each step.
    root : str
        Begins the names of the pictures.
    folder : Path
        Existing folder.
    integration : int
        Integration (from 0) that is shown.

    Raises
    ------
    UsageError
        If a pixel lies outside the image, or there is no such integration.
    """
    _check(products, pixels, integration)

    def name(what: str) -> Path:
        return folder / f"{root}_{what}.png"

    made = []
    caption = _caption(next(iter(products.values())))
    if "dq_init" in products:
        made.append(
            draw_flags(read_plane(products["dq_init"], "PIXELDQ"), "Flags after dq_init", name("flags"), caption)
        )
    for step in ("superbias", "refpix"):
        before = step_before(products, step) if step in products else None
        if before:
            made.append(draw_step(products[before], products[step], integration, name(step)))
    if {"refpix", "refpix_nosides"} <= set(products):
        pair = products["refpix_nosides"], products["refpix"]
        made.append(draw_sides(*pair, integration, name("refpix_sides")))
    made += draw_examples(products, integration, name)
    if "rate" in products:
        made.append(draw_slopes(products["rate"], name("slopes")))
    for x, y in pixels:
        made.append(draw_pixel(products, x, y, integration, name(f"pixel_{x}_{y}")))
    return made


def _caption(exposure: Exposure) -> str:
    """The exposure, its detector and date, and the version: the line that every picture carries."""
    return f"{split_name(exposure.path)[0]}, {describe([exposure])}".replace(", 1 exposure", "")


def _name_figure(figure: Figure, title: str, exposure: Exposure) -> None:
    figure.suptitle(f"{title}\n{_caption(exposure)}", fontsize=11)


def _check(products: Mapping[str, Exposure], pixels: Sequence[tuple[int, int]], integration: int) -> None:
    layouts = [e["SCI"] for e in products.values() if "SCI" in e.arrays]
    ny, nx = layouts[0].shape[-2:]
    for x, y in pixels:
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"--pixel {x} {y}: outside the image of {nx} x {ny} pixels")
    nints = max((lay.shape[0] for lay in layouts if len(lay.shape) == 4), default=1)
    if not 0 <= integration < nints:
        raise UsageError(f"--integration {integration + 1}: the exposure has {nints}")


# --- images ----------------------------------------------------------------------------------------------


def draw_step(before: Exposure, after: Exposure, integration: int, path: Path) -> Path:
    """The first group before and after a step, and a corner of both."""
    figure = make_figure(11, 10)
    _name_figure(figure, f"{split_name(after.path)[1]}: before and after, first group", after)
    for row, part in enumerate((np.s_[:, :], np.s_[-CORNER:, :CORNER])):
        for column, exposure in enumerate((before, after)):
            image = read_plane(exposure, "SCI", integration, 0)[part]
            title = split_name(exposure.path)[1] + (", upper left corner" if row else "")
            first = image.shape[0] if row else 0
            total = exposure["SCI"].shape[-2]
            show(figure.add_subplot(2, 2, 2 * row + column + 1), image, title, total - first if row else 0)
    return save_figure(figure, path)


def draw_sides(without: Exposure, with_sides: Exposure, integration: int, path: Path) -> Path:
    """The change from the first to the second group without and with the side pixels, and their difference."""
    changes = [
        read_plane(e, "SCI", integration, 1) - read_plane(e, "SCI", integration, 0) for e in (without, with_sides)
    ]
    figure = make_figure(15, 5)
    _name_figure(figure, "Reference pixels: second group minus first, without and with the side pixels", with_sides)
    for k, (image, title) in enumerate(
        zip([*changes, changes[1] - changes[0]], ("without", "with", "with - without"), strict=True), 1
    ):
        show(figure.add_subplot(1, 3, k), image, title)
    return save_figure(figure, path)


def draw_slopes(rate: Exposure, path: Path) -> Path:
    """The slope image; pixels without a slope are marked."""
    slope = read_plane(rate, "SCI")
    figure = make_figure(9, 7)
    _name_figure(figure, "Slopes", rate)
    axes = figure.add_subplot()
    show(axes, slope, "orange: zero or NaN", unit="DN/s")
    y, x = np.nonzero(np.isnan(slope) | (slope == 0))
    axes.scatter(x, y, s=2 if len(x) > 2000 else 8, c="#D55E00", marker="s", linewidths=0)
    return save_figure(figure, path)


def show(axes: Axes, image: NDArray[Any], title: str, first_row: int = 0, unit: str = "DN") -> None:
    """An image between its 1st and 99th percentile, with its scale."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    ny, nx = image.shape
    shown = axes.imshow(
        image,
        origin="lower",
        cmap="cividis",
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="nearest",
        extent=(-0.5, nx - 0.5, first_row - 0.5, first_row + ny - 0.5),
    )
    axes.figure.colorbar(shown, ax=axes, shrink=0.8, label=unit)
    axes.set_title(title)
    axes.set_xlabel("x (pixels, from 0)")
    axes.set_ylabel("y (pixels, from 0)")


# --- ramps -----------------------------------------------------------------------------------------------


def draw_examples(products: Mapping[str, Exposure], integration: int, name: Any) -> list[Path]:
    """Ramps that saturate, ramps before and after linearity, ramps with jumps."""
    made = []
    flagged = latest_flags(products)
    if flagged is None:
        return []
    flags = ramp_flags.count_ramp_flags(flagged)
    saturating = choose_examples(flags.partly > 0, EXAMPLES)
    if saturating:
        title = "Ramps that saturate on the way"
        made.append(draw_grid(flagged, saturating, integration, title, name("saturation")))
    before = step_before(products, "linearity") if "linearity" in products else None
    if before:
        high = read_plane(products[before], "SCI", integration, -1)
        exposed = choose_examples(high > min(WELL_EXPOSED, np.nanpercentile(high, 99.9)), 4)
        made.append(draw_pairs(products[before], products["linearity"], exposed, integration, name("linearity")))
    if "jump" in products:
        hit = choose_examples((flags.hit > 0) & (flags.fully == 0), EXAMPLES)
        if hit:
            made.append(draw_grid(products["jump"], hit, integration, "Ramps with jumps, and fit", name("jumps")))
    return made


def choose_examples(where: NDArray[np.bool_], number: int) -> list[tuple[int, int]]:
    """Some pixels (x, y) of a map, evenly spread over those that it holds, always the same ones."""
    y, x = np.nonzero(where)
    if not len(y):
        return []
    at = np.unique(np.linspace(0, len(y) - 1, min(number, len(y))).round().astype(int))
    return [(int(x[k]), int(y[k])) for k in at]


def make_ramp(exposure: Exposure, x: int, y: int, integration: int, label: str) -> Ramp:
    """One ramp with its flags and a fit with a level of its own between jumps."""
    signal = read_ramp(exposure, "SCI", x, y, integration).astype(np.float64)
    flags = np.zeros(signal.shape, np.uint32)
    if "GROUPDQ" in exposure.arrays:
        flags = read_ramp(exposure, "GROUPDQ", x, y, integration).astype(np.uint32)
    jumps, saturated = (flags & ramp_flags.JUMP_DET) != 0, (flags & ramp_flags.SATURATED) != 0
    unusable = saturated | ((flags & ramp_flags.DO_NOT_USE) != 0) | ~np.isfinite(signal)
    slope, fit = fit_segments(signal, jumps, unusable, None)
    seconds = exposure.seconds("TGROUP") if exposure.header.get("TGROUP") else 1.0
    return Ramp(label, signal, jumps, saturated, fit, float(slope) / seconds, "DN/s")


def draw_grid(
    exposure: Exposure, pixels: Sequence[tuple[int, int]], integration: int, title: str, path: Path
) -> Path:
    """A grid of ramps, one panel a pixel."""
    columns = min(3, len(pixels))
    rows = -(-len(pixels) // columns)
    figure = make_figure(4 * columns + 1, 3 * rows + 0.6)
    _name_figure(figure, title, exposure)
    for k, (x, y) in enumerate(pixels, 1):
        ramp = make_ramp(exposure, x, y, integration, f"pixel ({x}, {y})")
        draw_ramp(figure.add_subplot(rows, columns, k), ramp, legend=True)
    return save_figure(figure, path)


def draw_pairs(
    before: Exposure, after: Exposure, pixels: Sequence[tuple[int, int]], integration: int, path: Path
) -> Path:
    """Ramps before and after linearity, and how much was added."""
    figure = make_figure(10, 3 * max(len(pixels), 1) + 0.6)
    _name_figure(figure, "Linearity: bright pixels before and after, and the correction", after)
    for k, (x, y) in enumerate(pixels):
        one, two = (read_ramp(e, "SCI", x, y, integration) for e in (before, after))
        axes = figure.add_subplot(len(pixels), 2, 2 * k + 1)
        axes.plot(one, ".", color="#000000", label="before")
        axes.plot(two, "-", color="#0072B2", label="after")
        axes.set_title(f"pixel ({x}, {y})", fontsize=8)
        axes.set_ylabel("signal (DN)")
        axes.legend(frameon=False, fontsize=7)
        axes = figure.add_subplot(len(pixels), 2, 2 * k + 2)
        axes.plot(two - one, ".-", color="#D55E00")
        axes.set_xlabel("group")
        axes.set_ylabel("correction (DN)")
    return save_figure(figure, path)


def draw_pixel(products: Mapping[str, Exposure], x: int, y: int, integration: int, path: Path) -> Path:
    """The ramp of one pixel after each step."""
    order = [p for p in chain(products) if p != "dq_init"]
    columns = min(3, len(order))
    rows = -(-len(order) // max(columns, 1))
    figure = make_figure(max(4.2 * columns, 6), 3 * rows + 0.8)
    _name_figure(figure, f"Pixel ({x}, {y}) after each step", next(iter(products.values())))
    for k, product in enumerate(order, 1):
        ramp = make_ramp(products[product], x, y, integration, product)
        draw_ramp(figure.add_subplot(rows, columns, k), ramp, legend=product == "jump")
    return save_figure(figure, path)
