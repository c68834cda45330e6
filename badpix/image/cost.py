"""What the flags of dithered images cost: depth and holes of the stack, sources that lost flux.

1. A group can use a pixel of the output grid where its mosaic has a value.
2. It loses that pixel where the image pixel nearest to it is flagged. Only grid pixels around flagged ones are asked:
   the flagged pixels go to the grid by the image's map, the grid pixels around these come back by its inverse.
3. Depth is the number of groups that can use a grid pixel, before and after; a *hole* is a pixel that some could use
   before and none can afterwards.

The sources are those of :mod:`badpix.image.audit`. Memory: a band of the grid, whatever the number of exposures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Window
from badpix.image.members import Image
from badpix.image.pixel_map import invert_map, map_points
from badpix.image.search import read_flags
from badpix.image.stack import Shelf, mosaic_name
from badpix.numerics.coverage import count_depth
from badpix.numerics.neighbors import locate

_BAND = 512  # rows of the grid in memory at a time
_CHUNK = 50_000  # flagged pixels whose surroundings are mapped at a time


def measure_depth(
    shelf: Shelf, images: Sequence[Image], windows: Sequence[Window], shape: tuple[int, int]
) -> dict[str, Any]:
    """Depth of the stack on the grid before and after the flags: :func:`badpix.numerics.coverage.count_depth`.

    Parameters
    ----------
    shelf : Shelf
        Holds the groups' mosaics, and the flags of each image.
    images : sequence of Image
    windows : sequence of Window
        Of the groups.
    shape : (int, int)
        Of the grid.
    """
    lost: list[list[NDArray[Any]]] = [[] for _ in windows]
    for image in images:
        lost[image.group].append(find_lost(image, read_flags(shelf, image.cal.shape, image.number), shape))
    gone = [np.unique(np.concatenate(part)) if part else np.empty(0, np.int64) for part in lost]
    parts = []
    for top in range(0, shape[0], _BAND):
        band = Window(top, min(top + _BAND, shape[0]), 0, shape[1])
        before, after = np.zeros((2, *band.shape), np.uint16)
        for group, window in enumerate(windows):
            both = window.overlap(band)
            if both is None:
                continue
            rows = slice(both.y0 - window.y0, both.y1 - window.y0)
            usable = np.zeros(band.shape, bool)
            usable[both.within(band)] = np.isfinite(shelf.read(mosaic_name(group), window.shape, rows))
            before += usable
            first, last = np.searchsorted(gone[group], (band.y0 * shape[1], band.y1 * shape[1]))
            usable.reshape(-1)[gone[group][first:last] - band.y0 * shape[1]] = False
            after += usable
        parts.append(count_depth("grid", before, after))
    return _join(parts)


def find_lost(image: Image, flagged: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Flat indices of the grid pixels whose nearest pixel in an image is flagged.

    Parameters
    ----------
    image : Image
    flagged : ndarray of bool, shape (ny, nx)
    shape : (int, int)
        Of the grid.
    """
    if image.pixel_map is None:
        return np.empty(0, np.int64)
    ys, xs = locate(flagged)
    reach = _reach(image)
    steps = np.arange(-reach, reach + 1)
    out = [np.empty(0, np.int64)]
    for start in range(0, len(ys), _CHUNK):
        part = slice(start, start + _CHUNK)
        gx, gy = map_points(image.pixel_map, xs[part].astype(float), ys[part].astype(float))
        known = np.isfinite(gx) & np.isfinite(gy)
        column = np.rint(gx[known]).astype(np.int64)[:, None, None] + steps
        row = np.rint(gy[known]).astype(np.int64)[:, None, None] + steps[:, None]
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        at = np.unique((row * shape[1] + column)[inside])
        px, py = invert_map(image.pixel_map, (at % shape[1]).astype(float), (at // shape[1]).astype(float))
        seen = np.isfinite(px) & np.isfinite(py)
        x = np.clip(np.rint(px[seen]).astype(int), 0, flagged.shape[1] - 1)
        y = np.clip(np.rint(py[seen]).astype(int), 0, flagged.shape[0] - 1)
        out.append(at[seen][flagged[y, x]])
    return np.unique(np.concatenate(out))


def _reach(image: Image) -> int:
    """Grid pixels by which the pixels of an image reach to each side."""
    assert image.pixel_map is not None
    x0, x1, y0, y1 = image.pixel_map.span
    x, y = np.array([(x0 + x1) / 2]), np.array([(y0 + y1) / 2])
    here = np.array(map_points(image.pixel_map, x, y))
    ends = [np.array(map_points(image.pixel_map, x + dx, y + dy)) - here for dx, dy in ((1, 0), (0, 1))]
    return max(1, math.ceil(max(float(np.abs(end).max()) for end in ends)))


def _join(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The counts of all bands in one."""
    longest = max(len(part["before"]) for part in parts)
    total: dict[str, Any] = {"stack": parts[0]["stack"]}
    for key in ("before", "after"):
        total[key] = np.sum([np.pad(p[key], (0, longest - len(p[key]))) for p in parts], axis=0).tolist()
    return total | {key: sum(part[key] for part in parts) for key in ("covered", "holes")}


def collect_cost(summary: Mapping[str, Any], depth: Mapping[str, Any] | None) -> dict[str, list[dict[str, Any]]]:
    """What the flags cost, in the form that both outlier commands show.

    Parameters
    ----------
    summary : mapping
        From :func:`badpix.image.summary.summarize`.
    depth : mapping, optional
        From :func:`measure_depth`.
    """
    audit = summary.get("audit", [])
    exposures = []
    for row in summary["exposures"]:
        losses = [r["lost"] for r in audit if r["exposure"] == row["input"]]
        exposures.append(
            {
                "exposure": row["input"],
                "sources": row.get("sources", 0),
                "losing": len(losses),
                "worst": max(losses, default=None),  # smaller losses are not listed
                "unsearched": row.get("single_coverage_pixels", 0) / row.get("pixels", 1),
            }
        )
    sources = [
        {
            "exposure": r["exposure"],
            "source": f"{r['ra']:.6f} {r['dec']:+.6f}",
            "lost": r["lost"],
            "verdict": r["verdict"],
        }
        for r in audit
    ]
    return {"exposures": exposures, "sources": sources, "depth": [dict(depth)] if depth else []}
