"""What a depth table says: the strength at which half and nine tenths of the defects are found, and false alarms.

1. Completeness at each strength is made to rise (isotonic: pool adjacent violators). Between strengths it is that of
   a Gaussian error: its quantile is interpolated in the logarithm of the strength. For DEAD and LOW_QE, where less
   light is a stronger defect, it falls, and the strength itself counts.
2. False alarms per million come with the interval of 68 % of a Poisson count (Gehrels 1986, equations 7 and 12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from badpix.io.depths import Alarm, Depth

GAUSSIAN = NormalDist()
FALLING = ("DEAD", "LOW_QE", "science_low")  # searches for which a lower strength is easier to find
NAMES = {
    "hot": "HOT",
    "warm": "WARM",
    "rc": "RC",
    "telegraph": "TELEGRAPH",
    "noisy": "noisy",
    "low_pedestal": "low pedestal",
    "intermittent": "intermittent",
    "science_hot": "hot in science exposures",
    "science_born": "born hot between science exposures",
    "science_switching": "switching in science exposures",
    "science_low": "low in science exposures",
    "science_noisy": "noisy in science exposures",
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
    numbers : tuple of int
        Defects at each strength.
    half, ninety : float or None
        Strengths at which 50 and 90 % are found; None where the curve does not reach that.
    """

    search: str
    unit: str
    levels: tuple[float, ...]
    completeness: tuple[float, ...]
    numbers: tuple[int, ...]
    half: float | None = None
    ninety: float | None = None

    @property
    def injected(self) -> int:
        """Defects in all."""
        return sum(self.numbers)

    @property
    def falls(self) -> bool:
        """Whether less is found at larger strengths."""
        return self.search in FALLING

    def at(self, strength: float) -> float:
        """Part that is found of defects of a strength; beyond the strengths that were tried that of the last one."""
        scale, quantiles, rising = self._rising()
        x = self._scale(np.array([strength]))[0]
        if not scale[0] < x < scale[-1]:
            return float(rising[0] if x <= scale[0] else rising[-1])
        return GAUSSIAN.cdf(float(np.interp(x, scale, quantiles)))

    def find(self, part: float) -> float | None:
        """The strength at which ``part`` of the defects is found; None where that is not reached."""
        scale, quantiles, rising = self._rising()
        if rising[-1] < part:
            return None
        if rising[0] >= part:
            return float(self._back(scale[0]))
        k = int(np.flatnonzero(rising >= part)[0])
        low, high = quantiles[k - 1 : k + 1]
        share = min(max((GAUSSIAN.inv_cdf(part) - low) / max(high - low, 1e-9), 0.0), 1.0)
        return float(self._back(scale[k - 1] + share * (scale[k] - scale[k - 1])))

    def _rising(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Strengths on their scale in rising order, quantiles of the Gaussian, and the part that is found."""
        order = slice(None, None, -1) if self.falls else slice(None)
        numbers = np.array(self.numbers, float)[order]
        rising = rise(np.array(self.completeness)[order], numbers)
        inside = (rising * numbers + 0.5) / (numbers + 1)  # none and all of a few are not 0 and 1
        quantiles = np.array([GAUSSIAN.inv_cdf(float(part)) for part in inside])
        return self._scale(np.array(self.levels))[order], quantiles, rising

    def _scale(self, strength: np.ndarray) -> np.ndarray:
        found: np.ndarray = -strength if self.falls else np.log(np.maximum(strength, 1e-12))
        return found

    def _back(self, place: float) -> float:
        return -place if self.falls else float(np.exp(place))


def make_curves(rows: Sequence[Depth]) -> list[Curve]:
    """The curves of a depth table, in its order."""
    out = []
    for search in dict.fromkeys(row.search for row in rows):
        mine = sorted((r for r in rows if r.search == search and r.injected), key=lambda r: r.level)
        if not mine:
            continue
        levels, numbers = tuple(r.level for r in mine), tuple(r.injected for r in mine)
        curve = Curve(search, mine[0].unit, levels, tuple(r.found / r.injected for r in mine), numbers)
        out.append(replace(curve, half=curve.find(0.5), ninety=curve.find(0.9)))
    return out


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
    false = {a.search: a for a in reversed(alarms)}  # the first of each: sign, tail, time, halves
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
