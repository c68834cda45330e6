"""The pictures of docs/flats.md: the numbered steps of the light of flats, on simulated mean flats.

1. Light of a mode (``badpix/simulation/illumination.py``) on a small frame, with a response of 1.2 %, interpixel
   coupling, dead and weak pixels in it.
2. The search's own functions, step by step; a panel each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

from badpix import detectors
from badpix.flats import areas, dispersed, judged, lines, normalize, paths
from badpix.flats.light import normalize_light
from badpix.io.figure import make_figure, save_figure
from badpix.numerics import ipc
from badpix.review.plots import STATES
from badpix.settings.flats import FlatSettings
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import make_recipe
from badpix.simulation.illumination import measure_illumination

BAD = ((0.0, 60), (0.25, 60))  # response, pixels
Image = NDArray[Any]


def make_mean(detector: str, light: str, size: tuple[int, int], seed: int) -> Image:
    """A mean flat, DN/s, with isolated dead and weak pixels and a dead cluster."""
    p = SimulateSettings.from_values({"detector": detector, "illumination": light, "size": list(size)}, "figure")
    recipe, rng = make_recipe(p), np.random.default_rng(seed)
    image = measure_illumination(recipe) * (1 + 0.012 * rng.normal(size=recipe.shape))
    for level, number in BAD:
        y, x = (rng.integers(3, n - 3, number) for n in image.shape)
        image[y, x] *= level
    image[60:66, 70:75] *= 0.01
    image = ipc.mix(image.astype(np.float32), recipe.detector.ipc)
    return (500 * (image + 0.003 * rng.normal(size=image.shape))).astype(np.float32)


def show(
    axes: Any, image: Image, title: str, scale: tuple[float, float] | None = None, colors: Any = "cividis"
) -> None:
    """A panel."""
    low, high = scale or tuple(np.nanpercentile(image, (1, 99)))
    axes.imshow(image, origin="lower", vmin=low, vmax=high, cmap=colors, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_states(axes: Any, state: Image, title: str) -> None:
    """A panel of lit, dim and unlit pixels."""
    show(axes, state, title, (-0.5, len(STATES) - 0.5), ListedColormap(list(STATES.values())))


def draw_dispersed(target: Path) -> Path:
    """The steps of dispersed light, on a small MRS flat."""
    image = make_mean("MIRIFULONG", "mrs", (150, 150), 3)
    path = paths.follow_paths(image)
    light = dispersed.measure_light(image, 0)
    plain = paths.measure_along(image, path)
    seen = dispersed.SEEN * dispersed.measure_bright(plain)
    shared = lines.measure_lines(image, plain, seen, lines.follow_lines(lines.compare_bright(image, plain, seen)))
    state = judged.find_state(image, light, 0.1)
    norm = normalize.correct_ipc_of_light(image, light, detectors.get("MIRIFULONG").ipc)
    norm[state != judged.LIT] = np.nan
    figure = make_figure(9, 5.6)
    panels = [figure.add_subplot(2, 3, k) for k in range(1, 7)]
    show(panels[0], image, "1. mean flat, and paths of the light")
    rows = np.arange(image.shape[0])
    for column in np.arange(12, image.shape[1], 18):
        panels[0].plot(column + path[:, column] - path[0, column], rows, color="#FFFFFF", linewidth=0.7)
    panels[0].set_xlim(-0.5, image.shape[1] - 0.5)
    show(panels[1], plain, "2. median along the path")
    show(panels[2], shared, "3. lines and fringes that a slice shares", (0.8, 1.2))
    show(panels[3], light, "4. light: edges and gaps looked at again")
    draw_states(panels[4], state, "lit (light), dim (orange), unlit (blue)")
    show(panels[5], norm, "normalized: low is DEAD or weak", (0, 1.2))
    return save_figure(figure, target / "light-dispersed.png", dpi=72)


def draw_areas(target: Path) -> Path:
    """The steps of areas, on a small coronagraph's flat."""
    image = make_mean("NRCALONG", "wedge", (220, 200), 4)[4:-4, 4:-4]
    p = FlatSettings()
    rough = normalize.measure_normalized(
        image,
        method="smoothed",
        smoothing="Box2D",
        width=15,
        edges="renormalized",
        sigma=3.0,
        mask_sigma=4.0,
        iterations=4,
    )
    found = normalize_light(image, p, detectors.get("NRCALONG").ipc, detectors.Mode("imager", None, 95.0))
    figure = make_figure(10.5, 3.4)
    panels = [figure.add_subplot(1, 4, k) for k in range(1, 5)]
    show(panels[0], image, "mean flat with a bar and squares")
    show(
        panels[1],
        np.where((rough < areas.LOW) | ~np.isfinite(rough), 1, 0),
        "1. low areas, before they are told apart",
        (0, 1),
        "gray_r",
    )
    draw_states(panels[2], found.state, "2. 3. dim (orange), unlit (blue)")
    show(panels[3], found.norm, "normalized: the cluster stays DEAD", (0, 1.2))
    return save_figure(figure, target / "light-areas.png", dpi=80)
