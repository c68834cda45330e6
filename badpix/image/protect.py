"""Places on the sky that the search must leave alone: a catalog, or DS9 regions.

1. A table that astropy reads (ECSV, CSV, text with a header) with columns of RA and Dec in degrees, and optionally a
   radius in arcsec.
2. DS9 regions: circles and points in fk5 or icrs, positions in degrees or sexagesimal.
3. Pixels within the radius, 5 pixels of the grid where none is given, are not flagged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.image.grid import Grid, sky_to_grid
from badpix.image.pixel_map import PixelMap, evaluate_map

RADIUS = 5.0  # grid pixels
_ROWS = 64
_NAMES = {
    "ra": ("ra", "ra_deg", "raj2000", "_raj2000", "alpha_j2000", "sky_centroid.ra"),
    "dec": ("dec", "de", "dec_deg", "dej2000", "_dej2000", "delta_j2000", "sky_centroid.dec"),
    "radius": ("radius", "radius_arcsec", "r"),
}
_REGION = re.compile(r"^\s*[+-]?\s*(circle|point)\s*\(([^)]*)\)", re.IGNORECASE)
_UNITS = {'"': 1.0, "'": 60.0, "d": 3600.0, "": 3600.0}


def read_places(path: str | Path) -> NDArray[Any]:
    """RA, Dec (degrees) and radius (arcsec; NaN where none is given) of the places, [n, 3].

    Raises
    ------
    DataError
        If the file holds no positions.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text: {error}") from None
    regions = re.search(r"(^|;)\s*[+-]?\s*(circle|point)\s*\(", text, re.IGNORECASE | re.MULTILINE)
    places = _read_regions(path, text) if regions else _read_table(path)
    if not len(places) or not np.isfinite(places[:, :2]).all():
        raise DataError(f"{path}: found no positions (or some that are no numbers), expected RA and Dec in degrees")
    return places


def _read_regions(path: Path, text: str) -> NDArray[Any]:
    rows, frame = [], None
    for line in re.split(r"[\n;]", text):
        word = line.strip().lower()
        if word in ("fk5", "icrs", "j2000", "image", "physical", "galactic", "fk4", "ecliptic"):
            frame = word
        match = _REGION.match(line)
        if match is None:
            continue
        if frame not in ("fk5", "icrs", "j2000"):
            raise DataError(f"{path}: found regions in {frame or 'no frame'}, expected fk5 or icrs")
        parts = [part for part in re.split(r"[,\s]+", match[2].strip()) if part]
        try:
            radius = _arcsec(parts[2]) if match[1].lower() == "circle" else np.nan
            rows.append((_degrees(parts[0], 15.0), _degrees(parts[1], 1.0), radius))
        except (IndexError, ValueError):
            raise DataError(f"{path}: found {line.strip()[:60]!r}, expected circle(ra,dec,radius)") from None
    return np.array(rows, float).reshape(-1, 3)


def _degrees(text: str, hour: float) -> float:
    if ":" not in text:
        return float(text.rstrip("d"))
    parts = [float(part) for part in text.split(":")]
    value = sum(abs(part) / 60.0**k for k, part in enumerate(parts))
    return hour * (-value if text.startswith("-") else value)


def _arcsec(text: str) -> float:
    unit = text[-1] if text[-1] in "\"'d" else ""
    return float(text.rstrip("\"'d")) * _UNITS[unit]


def _read_table(path: Path) -> NDArray[Any]:
    from astropy.table import Table

    try:
        table: Any = Table.read(path, format="ascii.ecsv" if path.suffix.lower() == ".ecsv" else "ascii")
    except Exception as error:
        raise DataError(f"{path}: not readable as a table: {str(error).splitlines()[0][:120]}") from None
    names = {name.lower(): name for name in table.colnames}
    found = {key: next((names[o] for o in options if o in names), None) for key, options in _NAMES.items()}
    if found["ra"] is None or found["dec"] is None:
        raise DataError(f"{path}: found columns {', '.join(table.colnames)[:100]}, expected ra and dec (degrees)")
    columns = [np.asarray(table[found[k]], float) if found[k] else np.full(len(table), np.nan) for k in _NAMES]
    return np.stack(columns, axis=1)


def place_on_grid(places: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """Grid x, y and radius, pixels, [n, 3]; positions behind the tangent plane are left out."""
    x, y = sky_to_grid(grid, places[:, 0], places[:, 1])
    radius = np.where(np.isfinite(places[:, 2]), places[:, 2] / (grid.cdelt * 3600), RADIUS)
    out = np.stack([x, y, radius], axis=1)
    found: NDArray[Any] = out[np.isfinite(out).all(axis=1)]
    return found


def find_protected(places: NDArray[Any], pixel_map: PixelMap) -> NDArray[Any]:
    """Pixels (bool) of an exposure within the radius of a place; ``places`` from :func:`place_on_grid`."""
    out = np.zeros(pixel_map.shape, bool)
    for top in range(0, pixel_map.shape[0], _ROWS):
        rows = slice(top, min(top + _ROWS, pixel_map.shape[0]))
        where = evaluate_map(pixel_map, rows=rows)
        x, y = where[..., 0], where[..., 1]
        if not np.isfinite(x).any():
            continue
        x0, x1, y0, y1 = np.nanmin(x), np.nanmax(x), np.nanmin(y), np.nanmax(y)
        for px, py, radius in places:
            if x0 - radius <= px <= x1 + radius and y0 - radius <= py <= y1 + radius:
                with np.errstate(invalid="ignore"):
                    out[rows] |= (x - px) ** 2 + (y - py) ** 2 <= radius**2
    return out
