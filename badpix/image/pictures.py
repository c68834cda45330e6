"""Pictures of what was flagged: the strongest outliers and the brightest stars of each exposure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from badpix import __version__
from badpix.image.products import CUTOUT, Cutout
from badpix.io.associations import root_name
from badpix.io.figure import make_figure, save_figure


def draw_cutouts(cutouts: Sequence[tuple[str, Cutout]], folder: Path) -> list[str]:
    """One PNG an exposure: for each cut-out the exposure, the model, and the exposure with the flags outlined."""
    by_exposure: dict[str, list[Cutout]] = {}
    for exposure, cutout in cutouts:
        by_exposure.setdefault(exposure, []).append(cutout)
    paths = []
    for exposure, pieces in by_exposure.items():
        paths.append(str(_draw(exposure, pieces, folder / f"{root_name(exposure)}_outliers.png")))
    return paths


def _draw(exposure: str, pieces: Sequence[Cutout], path: Path) -> Path:
    figure = make_figure(1.9 * len(pieces) + 0.4, 6.2)
    axes = figure.subplots(3, len(pieces), squeeze=False)
    for column, piece in zip(axes.T, pieces, strict=True):
        _draw_column(column, piece)
    for axis, label in zip(axes[:, 0], ("exposure", "model", "flags"), strict=True):
        axis.set_ylabel(label)
    figure.suptitle(f"{exposure}, badpix {__version__}", fontsize=9)
    return save_figure(figure, path, dpi=110)


def _draw_column(column: Any, piece: Cutout) -> None:
    finite = piece.sci[np.isfinite(piece.sci)]
    low, high = np.percentile(finite, [5, 99.5]) if finite.size else (0.0, 1.0)
    offset = float(np.nanmedian(piece.sci) - np.nanmedian(piece.model)) if np.isfinite(piece.model).any() else 0.0
    shown = (piece.sci, piece.model + offset, piece.sci)
    for axis, values in zip(column, shown, strict=True):
        axis.imshow(values, origin="lower", cmap="viridis", vmin=low, vmax=max(high, low + 1e-9))
        axis.set_xticks([])
        axis.set_yticks([])
    ys, xs = np.nonzero(piece.flagged)
    column[2].plot(xs, ys, "s", mfc="none", mec="red", ms=4)
    strength = f" {piece.significance:.0f} sigma" if piece.kind == "outlier" else ""
    column[0].set_title(f"{piece.kind}{strength}\n({piece.x}, {piece.y})", fontsize=8)
    for axis in column:
        axis.set_xlim(-0.5, 2 * CUTOUT + 0.5)
        axis.set_ylim(-0.5, 2 * CUTOUT + 0.5)
