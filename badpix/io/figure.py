"""How pictures are made: figures bound to no window system, written whole or not at all.

Without pyplot there is no state shared between threads, and equal data give equal bytes. Needs matplotlib (extra
``plots``), which is imported where something is drawn.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from badpix.errors import UsageError
from badpix.io.output import atomic_path, check_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require_matplotlib() -> None:
    """Make sure that pictures can be drawn.

    Raises
    ------
    UsageError
        If matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib: pip install 'badpix[plots]'")


def picture_folder(folder: str | Path) -> Path:
    """The folder that pictures go to, made if it is missing: to be asked before the work that they show.

    Raises
    ------
    UsageError
        If matplotlib is not installed, or the folder can't be written.
    """
    require_matplotlib()
    return check_directory(folder)


def make_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, bound to no window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 120) -> Path:
    """Write a figure as PNG, whole or not at all; an existing picture is replaced."""
    with atomic_path(path, overwrite=True) as temporary:
        # tight: an image of equal aspect beside a legend would push its label over the edge
        figure.savefig(temporary, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    return path
