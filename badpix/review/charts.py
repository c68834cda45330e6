"""Small charts as SVG text, for the report: histogram with limits, profile along an axis, ramp.

They print, scale and need no script. Colors come from the page's style sheet by class; every chart has a title for
screen readers.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.io.dates import day_of
from badpix.mask.depth import Curve
from badpix.review import histograms
from badpix.review.histograms import Histogram
from badpix.review.pixel_ramps import Ramp

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 14, 40


def _frame(title: str, body: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    text = html.escape(title)
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{text}"><title>{text}</title>'
        f"{body}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", css: str = "tick") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def find_ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round values between two ends: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not np.isfinite(span) or span <= 0:
        return [low]
    raw = span / number
    power = 10.0 ** np.floor(np.log10(raw))
    step = float(next(m for m in (1, 2, 5, 10) if m * power >= raw) * power)
    first = np.ceil(low / step - 1e-9)
    return [float(v) for v in np.arange(first * step, high + step * 1e-6, step)]


def tick_text(value: float) -> str:
    """A tick's label: thousands with commas, no minus zero."""
    value = 0.0 if abs(value) < 1e-12 else value
    return f"{value:,.0f}" if abs(value) >= 1000 and value == round(value) else f"{value:.6g}"


class Axes:
    """A rectangle with linear axes: data to SVG coordinates."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], width: int = WIDTH, height: int = HEIGHT
    ) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.width, self.height = width, height

    def to_x(self, value: float) -> float:
        """Horizontal place."""
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (self.width - LEFT - RIGHT)

    def to_y(self, value: float) -> float:
        """Vertical place."""
        return self.height - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (self.height - TOP - BOTTOM)

    def draw(
        self,
        x_label: str,
        y_label: str,
        y_ticks: Sequence[tuple[float, str]] | None = None,
        x_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> str:
        """Axes, ticks and labels; ticks are (place, text)."""
        bottom = self.height - BOTTOM
        parts = [_line(LEFT, bottom, self.width - RIGHT, bottom, "axis"), _line(LEFT, TOP, LEFT, bottom, "axis")]
        linear = [(v, tick_text(v)) for v in find_ticks(self.x0, self.x1, 6 if self.width > 400 else 3)]
        for value, text in x_ticks or linear:
            parts.append(_line(self.to_x(value), bottom, self.to_x(value), bottom + 4, "axis"))
            wide = 3.2 * len(text)  # half of it
            parts.append(_text(min(self.to_x(value), self.width - wide), bottom + 16, text))
        for value, text in y_ticks or [(v, tick_text(v)) for v in find_ticks(self.y0, self.y1, 4)]:
            parts.append(_line(LEFT - 4, self.to_y(value), LEFT, self.to_y(value), "axis"))
            parts.append(_text(LEFT - 7, self.to_y(value) + 4, text, "end"))
        parts.append(_text((LEFT + self.width - RIGHT) / 2, self.height - 6, x_label, css="label"))
        middle = (TOP + bottom) / 2
        turned = f'x="12" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 12 {middle:.0f})"'
        parts.append(f'<text class="label" {turned}>{html.escape(y_label)}</text>')
        return "".join(parts)

    def path(self, x: NDArray[Any], y: NDArray[Any]) -> str:
        """Path data of a line; breaks where a value is missing."""
        out, pen = [], "M"
        for a, b in zip(x, y, strict=True):
            if not np.isfinite(b):
                pen = "M"
                continue
            out.append(f"{pen}{self.to_x(float(a)):.1f} {self.to_y(float(b)):.1f}")
            pen = "L"
        return "".join(out)


def draw_histogram(made: Histogram, limits: Sequence[tuple[float, str]], title: str, x_label: str) -> str:
    """Pixels by value, both axes logarithmic (the lower one linear near zero): flagged ones in their own color."""
    total = made.flagged + made.others
    top = max(1.0, float(np.ceil(np.log10(max(int(total.max()), 1)) + 0.05)))
    ends = [histograms.to_axis(float(v), made.linear) for v in (made.edges[0], made.edges[-1])]
    axes = Axes((ends[0], ends[1]), (float(np.log10(0.5)), top))
    x_ticks = [(histograms.to_axis(v, made.linear), tick_text(v)) for v in histograms.find_ticks(made)]
    y_ticks = [(float(k), _power_of_ten(k)) for k in range(int(top) + 1)]
    places = np.repeat(histograms.to_axis(made.edges, made.linear), 2)[1:-1]
    body = _area(axes, places, total, "area") + _area(axes, places, made.flagged, "area-flagged")
    body += axes.draw(x_label, "pixels", y_ticks, x_ticks)
    bottom = HEIGHT - BOTTOM
    for k, (value, text) in enumerate(limits):
        place = axes.to_x(histograms.to_axis(value, made.linear))
        body += _line(place, TOP, place, bottom, "limit")
        side = "end" if place > WIDTH * 0.6 else "start"
        body += _text(place + (-4 if side == "end" else 4), TOP + 10 + 13 * k, text, side, "limit-text")
    return _frame(title, body)


def _area(axes: Axes, places: NDArray[np.float64], counts: NDArray[np.int64], css: str) -> str:
    """The steps of a histogram, filled down to the axis."""
    logs = np.repeat(np.log10(np.maximum(counts, 0.5)), 2)
    start, end = axes.to_x(float(places[0])), axes.to_x(float(places[-1]))
    bottom = HEIGHT - BOTTOM
    return f'<path class="{css}" d="M{start:.1f} {bottom}L{axes.path(places, logs)[1:]}L{end:.1f} {bottom}Z"/>'


def _power_of_ten(k: int) -> str:
    """1, 10, 100, 1k, ... 10M."""
    return f"{10 ** (k - 6)}M" if k >= 6 else f"{10 ** (k - 3)}k" if k >= 3 else f"{10**k}"


def draw_profile(values: NDArray[np.float64], odd: Sequence[int], title: str, x_label: str) -> str:
    """Flagged pixels along rows or columns, with the odd ones marked and named."""
    top = float(values.max()) if values.size else 1.0
    axes = Axes((0.0, float(max(values.size - 1, 1))), (0.0, max(top, 1.0) * 1.08))
    where = np.arange(values.size, dtype=float)
    body = f'<path class="line" d="{axes.path(where, values)}"/>' + axes.draw(x_label, "flagged pixels")
    for k in odd:
        place = axes.to_x(float(k)), axes.to_y(float(values[k]))
        body += f'<circle class="mark" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3"/>'
        side = "end" if place[0] > WIDTH * 0.8 else "start"
        body += _text(place[0] + (-6 if side == "end" else 6), place[1] + 4, str(k), side, "limit-text")
    return _frame(title, body)


def draw_curve(curve: Curve, title: str) -> str:
    """Completeness by strength, in percent; strengths on a logarithmic axis where none is 0."""
    levels = np.array(curve.levels)
    scaled = np.log10(levels) if levels.min() > 0 else levels
    axes = Axes((float(scaled.min()), float(scaled.max())), (0.0, 105.0))
    found = 100 * np.array(curve.completeness)
    body = f'<path class="line" d="{axes.path(scaled, found)}"/>'
    for x, y in zip(scaled, found, strict=True):
        body += f'<circle class="mark" cx="{axes.to_x(float(x)):.1f}" cy="{axes.to_y(float(y)):.1f}" r="3"/>'
    ticks = [(float(x), f"{level:.2g}") for x, level in zip(scaled, levels, strict=True)]
    return _frame(title, body + axes.draw(curve.unit, "found, %", x_ticks=ticks))


def draw_counts(
    places: NDArray[np.float64], heights: NDArray[np.float64], limit: float, top: float, title: str
) -> str:
    """A line of counts, both axes logarithmic and given as logarithms; the limit as a line."""
    axes = Axes((float(places[0]), float(places[-1])), (0.0, top))
    x_ticks = [(float(k), f"{10.0**k:g}") for k in range(int(np.ceil(places[0])), int(places[-1]) + 1)]
    y_ticks = [(float(k), _power_of_ten(k)) for k in range(int(top) + 1)]
    body = f'<path class="line" d="{axes.path(places, heights)}"/>'
    body += axes.draw("excess", "pixels", y_ticks, x_ticks)
    place = axes.to_x(min(max(limit, axes.x0), axes.x1))
    body += _line(place, TOP, place, HEIGHT - BOTTOM, "limit")
    return _frame(title, body + _text(place + 4, TOP + 10, "limit", "start", "limit-text"))


def draw_ramp(ramp: Ramp, title: str) -> str:
    """One ramp: signal, jumps, saturated groups, fit."""
    values = np.concatenate([ramp.signal, ramp.fit])
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.06 * (high - low) or 1.0
    width, height = 300, 200
    axes = Axes((0.5, ramp.signal.size + 0.5), (low - margin, high + margin), width, height)
    groups = np.arange(1, ramp.signal.size + 1, dtype=float)
    body = axes.draw("group", "signal (DN)")
    stretch = np.cumsum(ramp.jumps)
    for k in np.unique(stretch):  # the fit starts anew at each jump
        body += f'<path class="fit" d="{axes.path(groups, np.where(stretch == k, ramp.fit, np.nan))}"/>'
    for g, value, jump, saturated in zip(groups, ramp.signal, ramp.jumps, ramp.saturated, strict=True):
        if np.isfinite(value):
            x, y = axes.to_x(float(g)), axes.to_y(float(value))
            if jump:
                body += (
                    f'<path class="jump" d="M{x - 4:.1f} {y + 4:.1f}L{x:.1f} {y - 4:.1f}L{x + 4:.1f} {y + 4:.1f}Z"/>'
                )
            elif saturated:
                body += f'<rect class="saturated" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
            else:
                body += f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
    return _frame(title, body, width, height)


def draw_depth(before: Sequence[int], after: Sequence[int], title: str) -> str:
    """Pixels of a stack by the number of exposures that can use them: a pair of bars each, on a logarithmic axis."""
    top = max(1.0, float(np.ceil(np.log10(max(*before, *after, 1)) + 0.05)))
    axes = Axes((-0.5, len(before) - 0.5), (float(np.log10(0.5)), top))
    numbers = range(len(before))
    x_ticks = [(float(k), str(k)) for k in numbers if k % (1 + len(before) // 12) == 0]
    body = ""
    for side, css, counts in ((-1, "area", before), (0, "area-flagged", after)):
        for k, count in zip(numbers, counts, strict=True):
            left, right = axes.to_x(k + 0.4 * side), axes.to_x(k + 0.4 * (side + 1))
            height = axes.to_y(float(np.log10(max(count, 0.5))))
            size = f'width="{right - left:.1f}" height="{HEIGHT - BOTTOM - height:.1f}"'
            body += f'<rect class="{css}" x="{left:.1f}" y="{height:.1f}" {size}/>'
    y_ticks = [(float(k), _power_of_ten(k)) for k in range(int(top) + 1)]
    body += axes.draw(
        "exposures that can use a pixel (light: before the flags, dark: after)", "pixels", y_ticks, x_ticks
    )
    return _frame(title, body)


def _date_ticks(dates: NDArray[np.float64], number: int) -> list[tuple[float, str]]:
    """Days under some of the dates, evenly among them."""
    picked = sorted({round(k * (len(dates) - 1) / max(number - 1, 1)) for k in range(min(number, len(dates)))})
    days = [day_of(float(dates[k])) for k in picked]
    changed = [k == 0 or days[k] != days[k - 1] for k in range(len(days))]
    return [(float(dates[k]), day) for k, day, new in zip(picked, days, changed, strict=True) if new]


def draw_series(
    dates: NDArray[np.float64],
    rate: NDArray[Any],
    bright: NDArray[np.bool_],
    title: str,
    label: str = "rate (DN/s)",
) -> str:
    """Rate of a pixel by date (MJD); exposures in which it is bright are marked."""
    finite = rate[np.isfinite(rate)]
    high = float(finite.max()) if finite.size else 1.0
    low = min(float(finite.min()) if finite.size else 0.0, 0.0)
    width, height, margin = 420, 200, (high - low) * 0.08 or 1.0
    room = 0.03 * float(dates[-1] - dates[0]) or 0.5
    axes = Axes(
        (float(dates[0]) - room, float(dates[-1]) + room), (low - margin * (low < 0), high + margin), width, height
    )
    body = f'<path class="line" d="{axes.path(dates, rate)}"/>'
    for day, value, lit in zip(dates, rate, bright, strict=True):
        if np.isfinite(value):
            at = f'cx="{axes.to_x(float(day)):.1f}" cy="{axes.to_y(float(value)):.1f}"'
            body += f'<circle class="{"mark" if lit else "dot"}" {at} r="{4 if lit else 2}"/>'
    body += axes.draw("date", label, x_ticks=_date_ticks(dates, 3))
    return _frame(title, body, width, height)


def draw_changes(dates: NDArray[np.float64], born: NDArray[np.int64], gone: NDArray[np.int64], title: str) -> str:
    """Pixels that became hot (up) and that were hot for the last time (down), by the order of their darks."""
    most = max(int(born.max(initial=0)), 1), max(int(gone.max(initial=0)), 1)
    axes = Axes((-0.6, len(dates) - 0.4), (-1.1 * most[1], 1.1 * most[0]))
    zero, body = axes.to_y(0.0), ""
    for k, (up, down) in enumerate(zip(born, gone, strict=True)):
        left, wide = axes.to_x(k - 0.35), axes.to_x(k + 0.35) - axes.to_x(k - 0.35)
        for count, css, top in ((up, "area-flagged", axes.to_y(float(up))), (down, "area", zero)):
            if count:
                tall = abs(axes.to_y(float(count)) - zero)
                body += f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
    body += _line(LEFT, zero, WIDTH - RIGHT, zero, "axis")
    order = np.arange(len(dates))
    picked = order[:: 1 + len(order) // 6]
    ticks = [(float(k), day_of(float(dates[k]))) for k in picked]
    y_ticks = [(v, tick_text(abs(v))) for v in find_ticks(axes.y0, axes.y1, 4)]
    body += axes.draw("dark of (up: became hot, down: hot for the last time)", "pixels", y_ticks, ticks)
    return _frame(title, body)
