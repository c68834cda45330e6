"""Histograms of what the searches compared with their limits: which limit decides, and how many pixels lie beyond it.

1. A way of a search joins its rules by *and*: the rule that the fewest pixels pass is the one that decides. A limit
   that does not decide is drawn nowhere; in its place stands the smallest value of a pixel that was flagged.
2. Beyond a limit lie more pixels than are flagged, where further tests keep flags back: both are counted.
3. The axis is linear around the bulk and the limits, logarithmic beyond (symlog), and holds every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import COMPARISONS, Evidence, Rule
from badpix.review.readings import OTHERWISE, WITHHELD

BINS = 160
BULK = (0.0005, 0.9995)  # quantiles between which the axis is linear
Bool = NDArray[np.bool_]


class Limit(NamedTuple):
    """A line in a histogram: ``value`` decides a search, or is the smallest flagged value where another rule does."""

    searches: tuple[str, ...]
    comparison: str
    value: float
    unit: str
    meaning: str
    decides: bool
    beyond: int
    flagged: int

    @property
    def _side(self) -> str:
        return "from" if self.comparison.startswith(">") else "up to"

    @property
    def label(self) -> str:
        """What stands beside the line."""
        names = ", ".join(self.searches)
        return (
            f"{names} {self.comparison} {self.value:.4g}"
            if self.decides
            else f"{names} flagged {self._side} {self.value:.4g}"
        )


@dataclass(frozen=True)
class Histogram:
    """Pixels by value: ``edges`` (n + 1,), ``flagged`` and ``others`` (n,); linear within ``linear`` of zero."""

    edges: NDArray[np.float64]
    flagged: NDArray[np.int64]
    others: NDArray[np.int64]
    linear: float


# --- which limits decide ---------------------------------------------------------------------------------


def find_limits(evidence: Evidence, quantity: str, science: Bool) -> list[Limit]:
    """The limits that a histogram of a quantity shows: one a search and side.

    Parameters
    ----------
    evidence : Evidence
        Rules, images, and the maps ``is_<search>``.
    quantity : str
        Name of an image.
    science : bool ndarray
        (ny, nx): the pixels that are counted.
    """
    values = np.asarray(evidence.images[quantity][:, :])
    found: dict[tuple[str, float, bool], Limit] = {}
    for rule in evidence.rules:
        if rule.quantity != quantity or isinstance(rule.limit, str):
            continue
        one = _judge(evidence, rule, values, science)
        key = (one.comparison, one.value, one.decides)
        if key in found:
            names = tuple(dict.fromkeys((*found[key].searches, rule.search)))
            found[key] = found[key]._replace(searches=names, flagged=max(found[key].flagged, one.flagged))
        else:
            found[key] = one
    return list(found.values())


def _judge(evidence: Evidence, rule: Rule, values: NDArray[Any], science: Bool) -> Limit:
    """One rule: does it decide its way, how many pixels pass it, how many of them are flagged."""
    passed = _passed(evidence, rule, values) & science
    beyond = int(passed.sum())
    image = evidence.images.get(f"is_{rule.search.lower()}")
    flagged = passed & (np.asarray(image[:, :]) != 0) if image is not None else passed
    rivals = [r for r in evidence.rules if _joined(r, rule) and _is_known(evidence, r)]
    decides = all(int((_passed(evidence, r) & science).sum()) >= beyond for r in rivals)
    value, limit = values[flagged], float(rule.limit)
    if not decides and value.size:
        limit = float(value.min() if rule.comparison.startswith(">") else value.max())
    shown = (rule.search,), rule.comparison, limit, rule.unit, rule.meaning
    return Limit(*shown, decides or not value.size, beyond, int(flagged.sum()))


def _joined(one: Rule, other: Rule) -> bool:
    """Whether two rules stand in one way, and the first compares numbers."""
    same = (one.search, one.way) == (other.search, other.way) and one is not other
    return same and not one.quantity.endswith((WITHHELD, OTHERWISE))


def _is_known(evidence: Evidence, rule: Rule) -> bool:
    limit_known = not isinstance(rule.limit, str) or rule.limit in evidence.images
    return rule.quantity in evidence.images and limit_known


def _passed(evidence: Evidence, rule: Rule, values: NDArray[Any] | None = None) -> Bool:
    values = np.asarray(evidence.images[rule.quantity][:, :]) if values is None else values
    limit = evidence.images[rule.limit][:, :] if isinstance(rule.limit, str) else rule.limit
    with np.errstate(invalid="ignore"):
        return np.asarray(COMPARISONS[rule.comparison](values, limit), bool)


def find_flagged(evidence: Evidence, quantity: str) -> Bool:
    """Pixels that a search which looks at a quantity has found."""
    values = evidence.images[quantity]
    out = np.zeros(values.shape, bool)
    scaled = quantity + "_"  # dark_noise is judged as dark_noise_z and dark_noise_ratio
    for search in dict.fromkeys(r.search for r in evidence.rules if f"{r.quantity}_".startswith(scaled)):
        image = evidence.images.get(f"is_{search.lower()}")
        if image is not None:
            out |= np.asarray(image[:, :]) != 0
    return out


def say_limits(limits: Sequence[Limit]) -> str:
    """The numbers of all limits in words."""
    return "; ".join(_say(one) for one in limits)


def _say(one: Limit) -> str:
    names = ", ".join(one.searches)
    if not one.decides:
        passed = f"{one.beyond:,} pixels pass the limit here ({one.meaning}), which does not decide"
        return f"{names}: {passed}; {one.flagged:,} are flagged"
    rest = one.beyond - one.flagged
    kept = f", {rest:,} kept back by further tests or another type" if rest else ""
    meaning = f" ({one.meaning})" if one.meaning else ""
    return f"{names}: {one.beyond:,} pixels beyond{meaning}, {one.flagged:,} flagged{kept}"


# --- counting --------------------------------------------------------------------------------------------


def count(values: NDArray[Any], flagged: Bool, limits: Sequence[float] = (), bins: int = BINS) -> Histogram:
    """Flagged and other pixels by value; what was not measured is left out.

    Parameters
    ----------
    values : ndarray
        Any shape.
    flagged : bool ndarray
        The same shape.
    limits : sequence of float
        Values that the axis must hold.
    bins : int
        Number of bins, equal on the symlog axis.
    """
    good = np.isfinite(values)
    chosen, marked = values[good].astype(np.float64), flagged[good]
    if not chosen.size:
        return Histogram(np.array([0.0, 1.0]), np.zeros(1, np.int64), np.zeros(1, np.int64), 1.0)
    bulk = np.partition(chosen, [int(q * (chosen.size - 1)) for q in BULK])
    inner = [float(bulk[int(q * (chosen.size - 1))]) for q in BULK]
    linear = 1.15 * max(abs(v) for v in (*inner, *limits)) or 1.0
    low, high = min([float(chosen.min()), *limits]), max([float(chosen.max()), *limits])
    margin = 0.02 * (to_axis(high, linear) - to_axis(low, linear)) or 0.01
    ends = to_axis(low, linear) - margin, to_axis(high, linear) + margin
    steps = np.linspace(*ends, bins + 1)
    edges = from_axis(steps, linear)
    place = np.clip(((to_axis(chosen, linear) - ends[0]) / (ends[1] - ends[0]) * bins).astype(int), 0, bins - 1)
    both = [np.bincount(place[m], minlength=bins).astype(np.int64) for m in (marked, ~marked)]
    return Histogram(edges, both[0], both[1], linear)


def to_axis(value: Any, linear: float) -> Any:
    """Places on a symlog axis: as it is (over ``linear``) up to 1, logarithmic beyond."""
    scaled = np.abs(np.asarray(value, np.float64)) / linear
    out = np.sign(value) * np.where(scaled <= 1, scaled, 1 + np.log10(np.maximum(scaled, 1)))
    return out if np.ndim(value) else float(out)


def from_axis(place: Any, linear: float) -> Any:
    """The values at places of a symlog axis."""
    size = np.abs(place)
    return np.sign(place) * linear * np.where(size <= 1, size, 10.0 ** np.maximum(size - 1, 0))


def find_ticks(made: Histogram) -> list[float]:
    """Round values: in the linear part four to a side, beyond it powers of ten; those within the axis."""
    step = _round_down(made.linear / 2)
    inside = [k * step for k in range(-2, 3)]
    first = int(np.ceil(np.log10(made.linear) + 0.25))
    last = max(first, int(np.ceil(np.log10(max(abs(made.edges[0]), abs(made.edges[-1]), 1e-30)))))
    powers = [10.0**k for k in range(first, last + 1, max(1, (last - first) // 4))]
    wanted = [*(-v for v in reversed(powers)), *inside, *powers]
    return [v for v in wanted if made.edges[0] <= v <= made.edges[-1]]


def _round_down(value: float) -> float:
    """1, 2 or 5 times a power of ten, at most ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(m for m in (1, 2, 5) if m * power <= value * (1 + 1e-9)) * power)
