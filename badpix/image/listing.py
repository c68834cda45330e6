"""The transients and moving objects of a run: linked over the exposures, listed, and spared on request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Grid, grid_to_sky
from badpix.image.members import Image
from badpix.image.pixel_map import invert_map, map_points
from badpix.image.plan import Found
from badpix.image.search import flags_name, read_flags
from badpix.image.stack import Shelf
from badpix.image.transients import Detection, Linked, link_detections, spare_region

HOURS = 24.0


def list_transients(
    images: Sequence[Image], found: Sequence[Found], grid: Grid, shelf: Shelf, *, keep: bool
) -> list[dict[str, Any]]:
    """One row for each object: what, where, in which exposures; with ``keep`` its flags are taken back.

    The flags of the exposures on the shelf, and their counts, are changed.
    """
    detections = [d for item in found for d in item.transients]
    if not detections:
        return []
    detections.sort(key=lambda d: -d.snr)
    positions = np.array([_on_grid(images[d.exposure], d) for d in detections])
    times = np.array([_day(images[d.exposure]) for d in detections])
    fluxes = np.array([d.flux for d in detections])
    linked = link_detections(positions, fluxes, [images[d.exposure].group for d in detections], times)
    rows = [_describe(item, detections, positions, times, images, grid) for item in linked]
    if keep:
        for item in linked:
            _spare(item, detections, positions, times, images, found, shelf)
    return rows


def _on_grid(image: Image, detection: Detection) -> NDArray[Any]:
    assert image.pixel_map is not None
    x, y = map_points(image.pixel_map, np.array([detection.x]), np.array([detection.y]))
    return np.array([float(x[0]), float(y[0])])


def _day(image: Image) -> float:
    """Middle of an exposure, days; the group's number where no keyword tells it."""
    time = image.cal.primary.get("EXPMID", image.cal.primary.get("EXPSTART"))
    return float(time) if isinstance(time, int | float) else float(image.group)


def _describe(
    item: Linked,
    detections: Sequence[Detection],
    positions: NDArray[Any],
    times: NDArray[Any],
    images: Sequence[Image],
    grid: Grid,
) -> dict[str, Any]:
    members = list(item.members)
    order = sorted(members, key=lambda k: (times[k], detections[k].exposure))
    ra, dec = grid_to_sky(grid, *positions[order].T)
    moving = any(item.motion)
    row: dict[str, Any] = {
        "kind": "moving" if moving else "transient",
        "ra": round(float(ra[0] if moving else np.median(ra)), 7),
        "dec": round(float(dec[0] if moving else np.median(dec)), 7),
        "flux": float(np.median([detections[k].flux for k in members])),
        "snr": round(max(detections[k].snr for k in members), 1),
    }
    if moving:
        row["arcsec_per_hour"] = round(float(np.hypot(*item.motion)) * grid.cdelt * 3600 / HOURS, 3)
    row["detections"] = [
        {
            "exposure": images[detections[k].exposure].cal.path.name,
            "x": round(detections[k].x, 2),
            "y": round(detections[k].y, 2),
            "ra": round(float(a), 7),
            "dec": round(float(d), 7),
            "flux": detections[k].flux,
            "snr": round(detections[k].snr, 1),
        }
        for k, a, d in zip(order, ra, dec, strict=True)
    ]
    return row


def expect_place(
    positions: NDArray[Any], times: NDArray[Any], motion: tuple[float, float], day: float
) -> NDArray[Any]:
    """Where an object that was seen at ``positions`` [n, 2] of the grid (x, y) and ``times`` is on another day."""
    there = positions + np.outer(day - times, motion)
    found: NDArray[Any] = np.mean(there, axis=0) if any(motion) else np.median(there, axis=0)
    return found


def _spare(
    item: Linked,
    detections: Sequence[Detection],
    positions: NDArray[Any],
    times: NDArray[Any],
    images: Sequence[Image],
    found: Sequence[Found],
    shelf: Shelf,
) -> None:
    """Take back the flags around an object: where it was seen, and where it must be in the other exposures."""
    places = {detections[k].exposure: (detections[k].x, detections[k].y) for k in item.members}
    members = list(item.members)
    for image in images:
        assert image.pixel_map is not None
        at = expect_place(positions[members], times[members], item.motion, _day(image))
        px, py = invert_map(image.pixel_map, at[:1], at[1:])
        if np.isfinite(px[0]) and np.isfinite(py[0]):
            places.setdefault(image.number, (float(px[0]), float(py[0])))
    for number, (x, y) in places.items():
        flagged = read_flags(shelf, images[number].cal.shape, number)
        spared = spare_region(flagged, x, y)
        count = int(np.count_nonzero(spared))
        if count:
            shelf.write(flags_name(number), np.packbits(flagged & ~spared))
            found[number].counts["flagged"] -= count
            found[number].counts["spared"] = found[number].counts.get("spared", 0) + count
