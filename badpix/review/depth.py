"""The depth of a mask, read from its evidence: curves, false alarms, comparison with an older mask, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from badpix.errors import DataError
from badpix.io import evidence_file
from badpix.io.depths import Alarm
from badpix.mask.depth import NAMES, Curve, make_curves, per_million

SHALLOWER = 1.25  # times the strength of the older mask from which on a mask is shallower


def read_depth(mask: str | Path, evidence: str | Path | None = None) -> tuple[list[Curve], list[Alarm]]:
    """Curves and false alarms of a mask.

    Parameters
    ----------
    mask : path
        The MASK file.
    evidence : path, optional
        Its evidence; beside it, if not given.

    Raises
    ------
    DataError
        If there is no evidence, or it holds no depth.
    """
    path = Path(evidence) if evidence else evidence_file.path_beside(mask)
    with evidence_file.opened(path) as (found, _):
        depth, alarms = found.depth, found.alarms
    if not depth:
        raise DataError(f"{path}: holds no depth; make the mask with --depth")
    return make_curves(depth), alarms


def find_shallower(new: str | Path, old: str | Path) -> list[str]:
    """Sentences on the searches in which a mask is shallower than an older one; none where a depth is missing."""
    try:
        now, before = (({c.search: c for c in read_depth(mask)[0]}) for mask in (new, old))
    except DataError:
        return []
    out = []
    for name, curve in now.items():
        was = before.get(name)
        if was is None or was.ninety is None:
            continue
        reach, had = curve.ninety, was.ninety
        worse = reach is None or (reach * SHALLOWER < had if curve.falls else reach > had * SHALLOWER)
        if worse:
            found = "is not reached" if reach is None else f"at {reach:.3g} {curve.unit}"
            out.append(f"{NAMES.get(name, name)}: 90 % {found}, at {had:.3g} in {Path(old).name}: shallower")
    return out


def list_rows(curves: list[Curve], alarms: list[Alarm]) -> list[tuple[Any, ...]]:
    """Rows of a table: search, strengths at 50 and 90 %, unit, copies, false alarms per million."""
    false: dict[str, list[Alarm]] = {}
    for alarm in alarms:
        false.setdefault(alarm.search, []).append(alarm)
    rows: list[tuple[Any, ...]] = []
    for curve in curves:
        reach = (f"{value:.3g}" if value is not None else "-" for value in (curve.half, curve.ninety))
        told = [_say(alarm) for alarm in false.get(curve.search, [])]
        rows.append((NAMES.get(curve.search, curve.search), *reach, curve.unit, curve.injected, "; ".join(told)))
    return rows


def _say(alarm: Alarm) -> str:
    value, low, high = per_million(alarm)
    return f"{value:.0f} ({low:.0f}-{high:.0f}) {alarm.estimate}"


def describe_json(curves: list[Curve], alarms: list[Alarm]) -> dict[str, Any]:
    """The same for a program."""
    return {
        "searches": [
            {
                "search": c.search,
                "unit": c.unit,
                "injected": c.injected,
                "strength_50": c.half,
                "strength_90": c.ninety,
                "levels": list(c.levels),
                "completeness": list(c.completeness),
            }
            for c in curves
        ],
        "false_alarms": [
            {
                "search": a.search,
                "estimate": a.estimate,
                "pixels": a.pixels,
                "flagged": a.flagged,
                **dict(zip(("per_million", "low", "high"), per_million(a), strict=True)),
            }
            for a in alarms
        ],
    }


def describe_depth(mask: str | Path) -> dict[str, Any] | None:
    """The depth of a mask for a record: by search the strengths at which 50 and 90 % are found, their unit, false
    alarms per million; None without one."""
    try:
        curves, alarms = read_depth(mask)
    except DataError:
        return None
    false: dict[str, dict[str, float]] = {}
    for alarm in alarms:
        false.setdefault(alarm.search, {})[alarm.estimate] = round(per_million(alarm)[0], 1)
    return {
        c.search: {"strength_50": c.half, "strength_90": c.ninety, "unit": c.unit, "false": false.get(c.search, {})}
        for c in curves
    }


def draw_curves(curves: list[Curve], title: str, path: Path) -> Path:
    """Completeness by strength, one panel a search."""
    from badpix.io.figure import make_figure, save_figure

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = make_figure(4.0 * columns, 2.9 * rows)
    for k, curve in enumerate(curves, 1):
        axes = figure.add_subplot(rows, columns, k)
        axes.plot(curve.levels, [100 * c for c in curve.completeness], "o-", color="#1f5fa8", markersize=4)
        if min(curve.levels) > 0:
            axes.set_xscale("log")
        axes.set_xticks(curve.levels, [f"{level:.2g}" for level in curve.levels], minor=False)
        axes.minorticks_off()
        for part, value in ((50, curve.half), (90, curve.ninety)):
            axes.axhline(part, color="0.8", linewidth=0.8)
            if value is not None:
                axes.axvline(value, color="0.8", linewidth=0.8)
        axes.set_ylim(-3, 103)
        axes.set_title(NAMES.get(curve.search, curve.search), fontsize=10)
        axes.set_xlabel(curve.unit, fontsize=8)
        axes.set_ylabel("found, %", fontsize=8)
        axes.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return save_figure(figure, path)
