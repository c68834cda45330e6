"""Other limits without a new run: the rules of the evidence with other numbers.

1. A parameter stands for the limit of one quantity of a search (:data:`LIMITS`). Rates follow their parameter in
   proportion; the others are the parameter itself.
2. All rules of the search are applied again, with the new limit; the tests that can withhold a flag stay as the run
   decided them.
3. Completeness follows from the depth of the run: where the limit is f times as high, so is the strength that is
   found nine times in ten. False alarms are counted again by the sign test: good pixels as far on the other side.
4. The evidence holds values of candidates alone, down to a part of the run's limit (``held``): below that the counts
   are lower limits, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError, UsageError, nearest
from badpix.io.depths import Alarm
from badpix.io.evidence import COMPARISONS, Evidence, Rule
from badpix.mask.depth import NAMES, make_curves, per_million
from badpix.mask.file import Mask
from badpix.mask.history import join_history
from badpix.numerics import neighbors
from badpix.settings.param import section

Bool = NDArray[np.bool_]


class Limit(NamedTuple):
    """Which limit a parameter is: section, search, quantities, whether the limit is a multiple of the parameter, how
    far below the run's limit values are held, and whether the strength of the depth follows the limit."""

    section: str
    search: str
    quantities: tuple[str, ...]
    scales: bool = False
    held: float = 0.8
    follows: bool = False


LIMITS = {
    "hot_sigma_threshold": Limit("darks", "hot", ("dark_rate",), True, 0.5, True),
    "hot_max_rate": Limit("darks", "hot", ("dark_rate",), False, 0.5, True),
    "rc_sigma_threshold": Limit("darks", "rc", ("dark_rc",), False, 0.8, True),
    "telegraph_likelihood": Limit("darks", "telegraph", ("telegraph_likelihood",), False, 1.0),
    "noisy_sigma_threshold": Limit("darks", "noisy", ("dark_noise_z", "dark_residual_z"), False, 0.8),
    "noisy_min_ratio": Limit("darks", "noisy", ("dark_noise_ratio", "dark_residual_ratio"), False, 1.0),
    "low_pedestal_sigma_threshold": Limit("darks", "low_pedestal", ("dark_pedestal_sigma",), False, 0.0, True),
    "intermittent_fraction": Limit("darks", "intermittent", ("dark_bright_fraction",), False, 1.0),
    "max_dead_norm_signal": Limit("flats", "DEAD", ("flat_norm",), False, 0.0, True),
    "max_low_qe_norm_signal": Limit("flats", "LOW_QE", ("flat_norm",), False, 0.0, True),
    "min_open_excess": Limit("flats", "OPEN", ("open_own",), False, 1.0),
}
MIRRORED = ("dark_rate", "dark_pedestal_sigma", "flat_norm")  # quantities whose other side is held for all pixels


@dataclass(frozen=True)
class Trial:
    """What one value of a parameter gives.

    Attributes
    ----------
    value, limit : float
        Of the parameter; of the quantity.
    pixels, gained, lost, both : int
        Flagged pixels, those that the run did not flag, those that it did alone, and those that have another flag of
        the mask as well.
    ninety : float or None
        Strength that is found nine times in ten; None where the depth does not say.
    false : float or None
        False alarms per million by the sign test.
    whole : bool
        Whether the evidence holds all pixels down to this limit; otherwise the counts are lower limits.
    """

    value: float
    limit: float
    pixels: int
    gained: int
    lost: int
    both: int
    ninety: float | None
    false: float | None
    whole: bool


def find_limit(name: str) -> Limit:
    """The limit that a parameter is.

    Raises
    ------
    UsageError
        If no limit can be tried from the evidence.
    """
    if name not in LIMITS:
        raise UsageError(f"{name}: can't be tuned from the evidence{nearest(name, LIMITS)}")
    return LIMITS[name]


def read_value(mask: Mask, name: str) -> float:
    """The value that a mask was made with, from its HISTORY; the default where that does not say."""
    limit = find_limit(name)
    start = f"{limit.section}.{name} = "
    for line in join_history(mask.history):
        text = line.removeprefix("Input history: ")
        if text.startswith(start):
            word = text.removeprefix(start).split(":")[0].split()[0]
            try:
                return float(word)
            except ValueError:
                break
    default = section(limit.section).param(name).default
    return float("nan") if default is None else float(default)


def try_values(mask: Mask, evidence: Evidence, name: str, values: Sequence[float]) -> list[Trial]:
    """What other values of a parameter would flag.

    Parameters
    ----------
    mask : Mask
        From :func:`badpix.mask.file.read_mask`.
    evidence : Evidence
        Open (:func:`badpix.review.readings.open_evidence`).
    name : str
        Parameter.
    values : sequence of float

    Raises
    ------
    UsageError
        If it is no limit that can be tried.
    DataError
        If the evidence holds no such search.
    """
    bound, before = find_limit(name), read_value(mask, name)
    search = bound.search
    rules = [r for r in evidence.rules if r.search == search]
    if not any(r.quantity in bound.quantities for r in rules):
        raise DataError(f"{mask.path}: the evidence holds no {search} by {' or '.join(bound.quantities)}")
    images = {q: np.asarray(evidence.images[q][:, :]) for q in _quantities(rules)}
    found = np.asarray(evidence.images[f"is_{search.lower()}"][:, :]) != 0
    others = _flagged_otherwise(evidence, search, found.shape)
    taken = _taken_before(evidence, search, found.shape)
    good = neighbors.clear_of(found | others) & ~mask.reference
    curve = next((c for c in make_curves(evidence.depth) if c.search == search), None)
    out = []
    for value in values:
        factor = value / before if bound.scales else None
        limits = {q: _new_limit(rules, q, value, factor) for q in bound.quantities}
        now = apply_rules(rules, images, limits) & ~mask.reference & ~taken
        limit = next(v for v in limits.values() if v is not None)
        part = abs(limit / _old_limit(rules, bound))
        ninety = curve.ninety * part if curve is not None and curve.ninety is not None and bound.follows else None
        out.append(
            Trial(
                value,
                limit,
                int(now.sum()),
                int((now & ~found).sum()),
                int((found & ~now).sum()),
                int((now & others).sum()),
                ninety,
                count_mirrored(images, bound, limit, good),
                part >= bound.held,
            )
        )
    return out


def _quantities(rules: Sequence[Rule]) -> list[str]:
    """Images that the rules look at: quantities, and limits that are images."""
    limits = [r.limit for r in rules if isinstance(r.limit, str)]
    return list(dict.fromkeys([*(r.quantity for r in rules), *limits]))


def _flagged_otherwise(evidence: Evidence, search: str, shape: tuple[int, ...]) -> Bool:
    """Pixels that another search of the evidence found."""
    out = np.zeros(shape, bool)
    for name in evidence.images:
        if name.startswith("is_") and name != f"is_{search.lower()}":
            out |= np.asarray(evidence.images[name][:, :]) != 0
    return out


def _taken_before(evidence: Evidence, search: str, shape: tuple[int, ...]) -> Bool:
    """Pixels of flats that have the type of an earlier search: OPEN before DEAD before LOW_QE."""
    out = np.zeros(shape, bool)
    for name in {"DEAD": ("is_open",), "LOW_QE": ("is_open", "is_dead")}.get(search, ()):
        if name in evidence.images:
            out |= np.asarray(evidence.images[name][:, :]) != 0
    return out


def _old_limit(rules: Sequence[Rule], bound: Limit) -> float:
    return next(float(r.limit) for r in rules if r.quantity in bound.quantities)


def _new_limit(rules: Sequence[Rule], quantity: str, value: float, factor: float | None) -> float | None:
    """The limit without its sign; None where no rule has the quantity."""
    old = next((abs(float(r.limit)) for r in rules if r.quantity == quantity), None)
    if old is None:
        return None
    return old * factor if factor is not None else value


def apply_rules(
    rules: Sequence[Rule], images: Mapping[str, NDArray[Any]], limits: Mapping[str, float | None]
) -> Bool:
    """Pixels that the rules of one search flag: all of a way, any of the ways.

    ``limits``: new limits by quantity, without sign; a limit that was negative stays so.
    """
    ways: dict[int, Bool] = {}
    for rule in rules:
        limit: Any = images[rule.limit] if isinstance(rule.limit, str) else float(rule.limit)
        new = limits.get(rule.quantity)
        if new is not None:
            limit = -new if float(rule.limit) < 0 else new
        with np.errstate(invalid="ignore"):
            holds = COMPARISONS[rule.comparison](images[rule.quantity], limit)
        ways[rule.way] = ways[rule.way] & holds if rule.way in ways else holds
    found: Bool = np.any(list(ways.values()), axis=0)
    return found


def count_mirrored(images: Mapping[str, NDArray[Any]], bound: Limit, limit: float, good: Bool) -> float | None:
    """False alarms per million by the sign test, where the other side of the quantity is known for all pixels."""
    name = bound.quantities[0]
    if name not in MIRRORED:
        return None
    values = images[name][good]
    with np.errstate(invalid="ignore"):
        other = {"dark_rate": values < -limit, "dark_pedestal_sigma": values > limit, "flat_norm": values > 2 - limit}
    return per_million(Alarm("", "sign", values.size, int(other[name].sum())))[0]


# --- limits from wishes ----------------------------------------------------------------------------------


def solve_complete(mask: Mask, evidence: Evidence, name: str, strength: float) -> float:
    """The value of a parameter with which nine tenths of the defects of a strength are found.

    Raises
    ------
    DataError
        If the depth does not say, or the strength lies below what the evidence holds.
    """
    bound = find_limit(name)
    search = bound.search
    curve = next((c for c in make_curves(evidence.depth) if c.search == search), None)
    if curve is None or curve.ninety is None or not bound.follows:
        name = NAMES.get(search, search)
        raise DataError(f"{mask.path}: the depth does not say when {name} is complete; use --depth")
    factor = strength / curve.ninety
    if bound.held and factor < bound.held:
        raise DataError(
            f"{mask.path}: {strength:g} {curve.unit} asks for {factor:.2f} of the run's limit; the evidence holds "
            f"candidates down to {bound.held:g} of it: these exposures are too shallow, or run with a lower limit"
        )
    rules = [r for r in evidence.rules if r.search == search]
    return factor * (read_value(mask, name) if bound.scales else abs(_old_limit(rules, bound)))


def solve_false(mask: Mask, evidence: Evidence, name: str, wanted: float) -> float:
    """The value of a parameter with which so many good pixels per million are flagged by chance (sign test).

    Raises
    ------
    DataError
        If the evidence does not hold the other side of the quantity.
    """
    bound = find_limit(name)
    quantity = bound.quantities[0]
    if quantity not in MIRRORED:
        raise DataError(f"{mask.path}: {name} has no sign test in the evidence: only --complete or --set")
    rules = [r for r in evidence.rules if r.search == bound.search]
    good = neighbors.clear_of(_flagged_otherwise(evidence, "", mask.image.shape)) & ~mask.reference
    values = np.asarray(evidence.images[quantity][:, :])[good].astype(float)
    mirrored = {"dark_rate": -values, "dark_pedestal_sigma": values, "flat_norm": 2 - values}[quantity]
    mirrored = np.sort(mirrored[np.isfinite(mirrored)])
    number = int(wanted * good.sum() / 1e6)
    if quantity == "flat_norm":
        limit = float(mirrored[min(number, mirrored.size - 1)])
    else:
        limit = float(mirrored[::-1][min(number, mirrored.size - 1)])
    old = abs(_old_limit(rules, bound))
    return read_value(mask, name) * limit / old if bound.scales else limit


def write_yaml(values: Mapping[str, float]) -> str:
    """The lines of a parameter file."""
    lines: dict[str, list[str]] = {}
    for name, value in values.items():
        lines.setdefault(find_limit(name).section, []).append(f"  {name}: {value:.6g}\n")
    return "".join(f"{section_name}:\n" + "".join(some) for section_name, some in lines.items())


def draw_trials(name: str, trials: Sequence[Trial], before: float, path: Path, title: str = "") -> Path:
    """Flagged pixels by the value of a parameter."""
    from badpix.io.figure import make_figure, save_figure

    figure = make_figure(5.2, 3.4)
    axes = figure.add_subplot()
    ordered = sorted(trials, key=lambda t: t.value)
    axes.plot([t.value for t in ordered], [t.pixels for t in ordered], "o-", color="#1f5fa8", label="flagged")
    axes.axvline(before, color="0.6", linestyle="--", label="this mask")
    axes.set_xlabel(name)
    axes.set_ylabel("flagged pixels")
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=9)
    return save_figure(figure, path)
