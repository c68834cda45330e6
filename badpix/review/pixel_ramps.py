"""Ramps of single pixels, from exposures: the groups, which of them are jumps or saturated, and a fit.

1. ``jump`` files give calibrated groups and GROUPDQ; ``uncal`` files raw groups alone.
2. The fit has one slope for the integration and a level of its own for each stretch between jumps: that is what the
   pipeline's ramp fit does too, but with equal weights. Where ``rateints`` (or ``rate``) lies beside, its slope is
   shown instead, since that is what the search saw.
3. A ramp can be drawn with characters, for a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.io.exposure import Exposure, open_exposure, unpacking
from badpix.io.fits import read_band
from badpix.io.selection import sibling

WIDTH, HEIGHT = 64, 12  # characters of a drawn ramp


@dataclass(frozen=True)
class Ramp:
    """One integration of one pixel.

    Attributes
    ----------
    label : str
        File and integration.
    signal, fit : float ndarray
        DN by group; NaN where there is none.
    jumps, saturated : bool ndarray
        By group.
    slope : float
        In ``unit``.
    """

    label: str
    signal: NDArray[np.float64]
    jumps: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    fit: NDArray[np.float64]
    slope: float
    unit: str


def read_ramps(paths: Sequence[str | Path], x: int, y: int) -> list[Ramp]:
    """All integrations of a pixel in some exposures.

    Parameters
    ----------
    paths : sequence of path
        ``jump`` or ``uncal`` files.
    x, y : int
        0-based, full frame.

    Raises
    ------
    DataError
        If a file has no groups or does not hold the pixel.
    """
    with unpacking() as workdir:
        return [ramp for path in paths for ramp in _of_file(open_exposure(path, workdir, ["SCI"]), x, y, workdir)]


def _of_file(exposure: Exposure, x: int, y: int, workdir: Path) -> list[Ramp]:
    layout = exposure["SCI"]
    if len(layout.shape) != 4:
        raise DataError(f"{exposure.path}: SCI has {len(layout.shape)} axes, expected groups (jump or uncal file)")
    window = exposure.window
    column, row = x - (window.xstart - 1), y - (window.ystart - 1)
    if not (0 <= column < window.xsize and 0 <= row < window.ysize):
        raise DataError(f"{exposure.path}: pixel ({x}, {y}) lies outside its window {tuple(window)}")
    nints, ngroups = layout.shape[:2]
    signal = read_band(layout, row, row + 1)[..., 0, column].reshape(nints, ngroups).astype(np.float64)
    flags = np.zeros((nints, ngroups), np.uint32)
    if "GROUPDQ" not in exposure.arrays:
        exposure = open_exposure(exposure.path, workdir)
    if "GROUPDQ" in exposure.arrays:
        flags = read_band(exposure["GROUPDQ"], row, row + 1)[..., 0, column].reshape(nints, ngroups).astype(np.uint32)
    time = exposure.header.get("TGROUP")
    slopes = _slopes(exposure, row, column, nints)
    return [
        _make(f"{exposure.path.name} [{k + 1}]", signal[k], flags[k], time, slopes[k] if slopes is not None else None)
        for k in range(nints)
    ]


def _slopes(exposure: Exposure, row: int, column: int, nints: int) -> NDArray[np.float64] | None:
    """Slopes of the pixel in the product beside the ramp, DN/s; None where there is none."""
    stem = exposure.path.name
    for ending in ("_jump", "_uncal"):
        stem = stem.replace(ending, "_rate")
    for suffix in ("_rateints", "_rate"):
        beside = sibling(exposure.path.with_name(stem), suffix)
        if beside is None:
            continue
        layout = open_exposure(beside, names=["SCI"])["SCI"]
        values = read_band(layout, row, row + 1)[..., 0, column].reshape(-1).astype(np.float64)
        if values.size == nints:
            return values
    return None


def _make(
    label: str, signal: NDArray[np.float64], flags: NDArray[np.uint32], time: object, slope: float | None
) -> Ramp:
    jumps = (flags & dq.VALUE["JUMP_DET"]) != 0
    saturated = (flags & dq.VALUE["SATURATED"]) != 0
    unusable = saturated | ((flags & dq.VALUE["DO_NOT_USE"]) != 0) | ~np.isfinite(signal)
    seconds = float(time) if isinstance(time, int | float) and time else None
    own, fit = fit_segments(signal, jumps, unusable, None if slope is None or not seconds else slope * seconds)
    unit = "DN/s" if seconds else "DN/group"
    shown = slope if slope is not None and seconds else own / (seconds or 1.0)
    return Ramp(label, signal, jumps, saturated, fit, float(shown), unit)


def fit_segments(
    signal: NDArray[np.float64], jumps: NDArray[np.bool_], unusable: NDArray[np.bool_], slope: float | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Slope (DN/group) and fitted signal of a ramp: one slope, a level for each stretch between jumps.

    Parameters
    ----------
    signal : float ndarray
        (ngroups,) DN.
    jumps, unusable : bool ndarray
        (ngroups,): a jump starts a new stretch; unusable groups are left out.
    slope : float, optional
        Taken as given; fitted by least squares without it.
    """
    good = ~unusable
    segment = np.cumsum(jumps)
    time = np.arange(signal.size, dtype=np.float64)
    dt, ds = np.zeros(signal.size), np.zeros(signal.size)
    for k in np.unique(segment[good]):
        inside = good & (segment == k)
        dt[inside], ds[inside] = time[inside] - time[inside].mean(), signal[inside] - signal[inside].mean()
    if slope is None:
        weight = float((dt * dt).sum())
        slope = float((dt * ds).sum() / weight) if weight else float("nan")
    fit = np.full(signal.size, np.nan)
    for k in np.unique(segment[good]):
        inside = good & (segment == k)
        if np.isfinite(slope):
            fit[inside] = signal[inside].mean() + slope * (time[inside] - time[inside].mean())
    return slope, fit


def find_levels(ramp: Ramp) -> tuple[float, float] | None:
    """Whether the groups of a ramp sit on two levels: their distance (DN) and the scatter around them, or None.

    The signal without its jumps and its slope is split in two where the scatter within both parts is least. Gaussian
    noise split like this keeps 36 % of its variance; two levels keep less than 15 %, with at least three groups on
    each, and are returned to.
    """
    good = np.isfinite(ramp.signal) & ~ramp.saturated
    if good.sum() < 8:
        return None
    groups = np.flatnonzero(good).astype(np.float64)
    signal = ramp.signal[good]
    change = np.median(np.diff(signal) / np.diff(groups))  # steps up and down cancel in the median
    rest = signal - change * groups
    order = np.sort(rest)
    total = float(((rest - rest.mean()) ** 2).sum())
    inner = [
        float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
        for a, b in ((order[:k], order[k:]) for k in range(3, order.size - 2))
    ]
    k = int(np.argmin(inner))
    high = rest > (order[k + 2] + order[k + 3]) / 2
    turns = int(np.count_nonzero(high[1:] != high[:-1]))
    if inner[k] > 0.15 * total or turns < 3:
        return None
    return float(rest[high].mean() - rest[~high].mean()), float(np.sqrt(inner[k] / rest.size))


def say_levels(ramps: Sequence[Ramp]) -> str:
    """A sentence where most of some ramps of a pixel sit on two levels; empty otherwise."""
    found = [levels for levels in map(find_levels, ramps) if levels is not None]
    if not found or 2 * len(found) < len(ramps):
        return ""
    step = float(np.median([f[0] for f in found]))
    share = f"in {len(found)} of {len(ramps)} ramps"
    return (
        f"Its groups sit on two levels {step:.3g} DN apart {share}: a telegraph signal; "
        "noisy is the type of those that switch nearly every group."
    )


def draw_text(ramp: Ramp, width: int = WIDTH, height: int = HEIGHT) -> str:
    """A ramp as lines of text: ``o`` signal, ``J`` jump, ``S`` saturated, ``-`` fit."""
    values = np.concatenate([ramp.signal, ramp.fit])
    finite = values[np.isfinite(values)]
    title = f"{ramp.label}: {ramp.slope:.4g} {ramp.unit}, {int(ramp.jumps.sum())} jumps, "
    title += f"{int(ramp.saturated.sum())} groups saturated"
    if not finite.size:
        return title + "\n  (no signal)"
    low, high = float(finite.min()), float(finite.max())
    span = (high - low) or 1.0
    width = min(width, max(ramp.signal.size, 2))
    grid = [[" "] * width for _ in range(height)]

    def put(group: int, value: float, mark: str) -> None:
        column = round(group * (width - 1) / max(ramp.signal.size - 1, 1))
        grid[height - 1 - round((value - low) / span * (height - 1))][column] = mark

    for mark, series, chosen in (
        ("-", ramp.fit, np.isfinite(ramp.fit)),
        ("o", ramp.signal, np.isfinite(ramp.signal)),
        ("J", ramp.signal, ramp.jumps & np.isfinite(ramp.signal)),
        ("S", ramp.signal, ramp.saturated & np.isfinite(ramp.signal)),
    ):
        for group in np.flatnonzero(chosen):
            put(int(group), float(series[group]), mark)
    edge = {0: f"{high:10.4g}", height - 1: f"{low:10.4g}"}
    lines = [f"{edge.get(k, ''):>10} |{''.join(row)}" for k, row in enumerate(grid)]
    foot = f"{'':>10} +{'-' * width}\n{'DN':>10}  group 1{'':{max(width - 7 - len(str(ramp.signal.size)), 1)}}"
    return "\n".join([title, *lines, f"{foot}{ramp.signal.size}"])
