"""What a depth table says: the strength at which half and nine tenths of the defects are found, and false alarms.

1. Completeness at each strength is made to rise (isotonic: pool adjacent violators) and interpolated in the logarithm
   of the strength; for DEAD and LOW_QE, where less light is a stronger defect, it falls.
2. False alarms per million come with the interval of 68 % of a Poisson count (Gehrels 1986, equations 7 and 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from badpix.io.depths import Alarm, Depth

FALLING = ("DEAD", "LOW_QE")  # searches for which a lower strength is easier to find
NAMES = {
    "hot": "HOT",
    "warm": "WARM",
    "rc": "RC",
    "telegraph": "TELEGRAPH",
    "noisy": "noisy",
    "low_pedestal": "low pedestal",
    "intermittent": "intermittent",
}


@dataclass(frozen=True)
class Curve:
    """Completeness of one search.

    Attributes
    ----------
    search, unit : str
        As in the table.
    levels, completeness : tuple of float
        Strengths, ascending, and the part found (right type).
    injected : int
        Defects in all.
    half, ninety : float or None
        Strengths at which 50 and 90 % are found; None where the curve does not reach that.
    """

    search: str
    unit: str
    levels: tuple[float, ...]
    completeness: tuple[float, ...]
    injected: int
    half: float | None
    ninety: float | None

    @property
    def falls(self) -> bool:
        """Whether less is found at larger strengths."""
        return self.search in FALLING


def make_curves(rows: Sequence[Depth]) -> list[Curve]:
    """The curves of a depth table, in its order."""
    out = []
    for search in dict.fromkeys(row.search for row in rows):
        mine = sorted((r for r in rows if r.search == search and r.injected), key=lambda r: r.level)
        if not mine:
            continue
        levels, found = np.array([r.level for r in mine]), np.array([r.found / r.injected for r in mine])
        weights = np.array([r.injected for r in mine], float)
        reached = [find_level(levels, found, weights, part, search in FALLING) for part in (0.5, 0.9)]
        out.append(
            Curve(search, mine[0].unit, tuple(levels.tolist()), tuple(found.tolist()), int(weights.sum()), *reached)
        )
    return out


def find_level(
    levels: np.ndarray, found: np.ndarray, weights: np.ndarray, part: float, falls: bool = False
) -> float | None:
    """The strength at which ``part`` of the defects is found, by interpolation; None where that is not reached."""
    order = slice(None, None, -1) if falls else slice(None)
    rising = rise(found[order], weights[order])
    scale = np.log(np.maximum(levels[order], 1e-12))
    above = np.flatnonzero(rising >= part)
    if not above.size:
        return None
    k = int(above[0])
    if k == 0:
        return float(levels[order][0])
    share = (part - rising[k - 1]) / (rising[k] - rising[k - 1])
    return float(np.exp(scale[k - 1] + share * (scale[k] - scale[k - 1])))


def rise(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest sequence that never falls (weighted least squares; pool adjacent violators)."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        blocks.append([float(value), float(weight), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, total, length = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * total) / (last[1] + total)
            last[1], last[2] = last[1] + total, last[2] + length
    return np.concatenate([np.full(int(length), mean) for mean, _, length in blocks])


def per_million(alarm: Alarm) -> tuple[float, float, float]:
    """False alarms per million good pixels, and the ends of the interval of 68 %."""
    n = alarm.flagged
    high = (n + 1) * (1 - 1 / (9 * (n + 1)) + 1 / (3 * np.sqrt(n + 1))) ** 3
    low = n * (1 - 1 / (9 * n) - 1 / (3 * np.sqrt(n))) ** 3 if n else 0.0
    scale = 1e6 / max(alarm.pixels, 1)
    return n * scale, float(low) * scale, float(high) * scale


def describe(rows: Sequence[Depth], alarms: Sequence[Alarm]) -> list[str]:
    """One line a search for HISTORY and summaries."""
    false = {a.search: a for a in alarms}
    lines = []
    for curve in make_curves(rows):
        word = "below" if curve.falls else "above"
        reach = f"90 % {word} {curve.ninety:.3g} {curve.unit}" if curve.ninety else "90 % are not reached"
        half = f"50 % {word} {curve.half:.3g}" if curve.half else "50 % are not reached"
        text = f"depth of {NAMES.get(curve.search, curve.search)}: {reach}, {half}"
        if curve.search in false:
            text += f"; false {say_alarm(false[curve.search])}"
        lines.append(text)
    return lines


def say_alarm(alarm: Alarm) -> str:
    """``3 (1 to 6) per million by the sign test``."""
    value, low, high = per_million(alarm)
    return f"{value:.0f} ({low:.0f} to {high:.0f}) per million ({alarm.estimate} test)"
