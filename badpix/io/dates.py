"""Dates of exposures, from their headers and for texts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import Any

MJD_0 = datetime(1858, 11, 17)


def read_date(header: Mapping[str, Any]) -> float:
    """Start of an exposure by EXPSTART, else DATE-OBS and TIME-OBS: MJD; NaN without both."""
    start = header.get("EXPSTART")
    if isinstance(start, int | float) and not isinstance(start, bool) and start > 0:
        return float(start)
    try:
        moment = datetime.fromisoformat(f"{header.get('DATE-OBS')}T{header.get('TIME-OBS') or '00:00:00'}")
    except ValueError:
        return float("nan")
    return (moment.replace(tzinfo=None) - MJD_0).total_seconds() / 86400


def day_of(mjd: float) -> str:
    """A date in words."""
    if not isfinite(mjd):
        return "an unknown date"
    return (MJD_0 + timedelta(days=float(mjd))).strftime("%Y-%m-%d")
