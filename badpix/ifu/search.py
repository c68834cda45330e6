"""The search for outliers in IFU exposures, detector by detector.

1. ``threshold_method = percentile``: the rank cut of :mod:`badpix.ifu.rank` on the smallest differences of all
   exposures.
2. ``false_alarm``: the noise level is measured on a sample of bands, then each band is searched by
   :mod:`badpix.ifu.significance`; the limits, the noise and what can't be told go into statistics and notes.

Rows are read and searched in bands: :mod:`badpix.ifu.bands`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.ifu.bands import (
    BandResult,
    Plan,
    cut_bands,
    make_plan,
    measure_smallest,
    sample_band,
    sample_bands,
    search_band,
)
from badpix.ifu.inputs import Exposure, axis_across, check_usable, has_pointings, is_dithered, read_usable
from badpix.ifu.noise import Level, measure_level
from badpix.ifu.one_exposure import STRONG
from badpix.ifu.rank import measure_ratio, odd
from badpix.ifu.significance import REASONS
from badpix.io.tasks import Spread, run_in_order
from badpix.numerics.neighbors import distinct
from badpix.settings.ifu import IfuSettings, RankSettings, SignificanceSettings

THREADS = 2  # for what leaves the interpreter free: sorting, writing


@dataclass
class Found:
    """What was found on one detector.

    ``flagged[i]`` holds, for exposure ``i``, the flat indices of the flagged pixels by reason; ``usable[i]`` the
    number of its usable pixels; ``lit`` the pixels that any exposure can use; ``across`` the axis across the slices.
    """

    detector: str
    exposures: list[Exposure]
    flagged: list[dict[str, NDArray[Any]]]
    usable: list[int]
    lit: NDArray[Any]
    across: int
    notes: list[str] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    def all_flagged(self, i: int) -> NDArray[Any]:
        """Flat indices of the flagged pixels of exposure ``i``, of any reason."""
        return distinct(*self.flagged[i].values())


def find_detector(
    detector: str,
    exposures: list[Exposure],
    p: IfuSettings,
    *,
    executor: Executor | None = None,
    memory: int | None = None,
) -> Found:
    """Flagged pixels of all exposures of one detector.

    ``memory`` limits the bytes of one band (a few rows are always taken); it never changes the result.

    Raises
    ------
    DataError
        If an exposure has no usable pixel.
    """
    if p.threshold_method == "false_alarm":
        return find_significant(detector, exposures, p, executor, memory)
    return find_ranked(detector, exposures, p, executor)


# --- the documented search -------------------------------------------------------------------------------


def find_ranked(detector: str, exposures: list[Exposure], p: RankSettings, executor: Executor | None) -> Found:
    """The documented search on one detector."""
    smallest, usable = measure_detector(exposures, executor)
    with ThreadPoolExecutor(THREADS) as threads:
        ranked = measure_ratio(
            smallest, kernel_size=p.kernel_size, threshold_percent=p.threshold_percent, threads=threads
        )
    with np.errstate(invalid="ignore"):
        flagged = {"percentile": np.flatnonzero(ranked.ratio > ranked.limit)}
    if p.ifu_second_check:
        flagged["second_check"] = np.flatnonzero(np.isnan(smallest))
    found = Found(
        detector, exposures, [flagged] * len(exposures), usable, ~np.isnan(smallest), axis_across(exposures)
    )
    found.statistics |= {"limit_ratio": ranked.limit, "kernel_size": odd(p.kernel_size)}
    return found


def measure_detector(exposures: list[Exposure], executor: Executor | None = None) -> tuple[NDArray[Any], list[int]]:
    """Smallest difference over all exposures of a detector, and the usable pixels of each.

    Raises
    ------
    DataError
        If an exposure has no usable pixel.
    """
    bands = cut_bands(exposures[0].cal.shape, 1)
    parts = list(run_in_order(executor, Spread(partial(measure_smallest, exposures, axis_across(exposures))), bands))
    usable = np.sum([count for _, count in parts], axis=0)
    check_usable(exposures, usable)
    return np.concatenate([part for part, _ in parts]), [int(v) for v in usable]


# --- the significance search -----------------------------------------------------------------------------


def find_significant(
    detector: str, exposures: list[Exposure], p: IfuSettings, executor: Executor | None, memory: int | None
) -> Found:
    """The significance search on one detector, in bands of rows."""
    plan = make_plan(exposures, p)
    shape = exposures[0].cal.shape
    level = Level(1.0, 1.0)
    if p.noise != "err":
        samples = list(
            run_in_order(executor, Spread(partial(sample_band, plan)), sample_bands(shape, len(exposures)))
        )
        measured = measure_level(samples, len(exposures))
        if measured is None:
            check_usable(exposures, [np.isfinite(read_usable(e.cal)).sum() for e in exposures])
            raise DataError(f"{exposures[0].cal.path}: {detector}: no noise could be measured: SCI has no spread")
        level = measured
    plan = replace(plan, level=level)
    parts = list(run_in_order(executor, Spread(partial(search_band, plan)), cut_bands(shape, len(exposures), memory)))
    found = _collect(detector, exposures, parts)
    check_usable(exposures, found.usable)
    found.statistics |= _statistics(plan, p, parts)
    found.notes += _remarks(exposures, plan, p, found.statistics)
    found.plan = plan
    if p.ifu_second_check:
        pixels = np.flatnonzero(np.isnan(measure_detector(exposures, executor)[0]))
        for flagged in found.flagged:
            flagged["second_check"] = pixels
    return found


def _collect(detector: str, exposures: list[Exposure], parts: list[BandResult]) -> Found:
    flagged = []
    for i in range(len(exposures)):
        pixels = np.concatenate([part.pixels[i] for part in parts])
        reasons = np.concatenate([part.reasons[i] for part in parts])
        flagged.append({name: pixels[reasons == k] for k, name in enumerate(REASONS, start=1)})
    usable = [sum(part.usable[i] for part in parts) for i in range(len(exposures))]
    lit = np.concatenate([part.lit for part in parts])
    found = Found(detector, exposures, flagged, usable, lit, axis_across(exposures))
    found.statistics["untestable"] = [sum(part.untestable[i] for part in parts) for i in range(len(exposures))]
    return found


def _statistics(plan: Plan, p: SignificanceSettings, parts: list[BandResult]) -> dict[str, Any]:
    """Numbers for the summary: limits, noise level, expected false alarms."""
    assert plan.level is not None
    n = len(plan.exposures)
    lone = {"searched_percent": _searched_percent(parts) if p.lone_exposure else 0.0} if n == 1 else {}
    ny, nx = plan.exposures[0].cal.shape
    repeated = 1 + max(0, n - 1 - n // 2) if n >= 2 else 0
    tests = repeated + bool(p.single if n >= 2 else p.lone_exposure)
    return {
        "noise_over_err": round(plan.level.scale, 4),
        "noisy_percent": round(100 * sum(part.noisy for part in parts) / (ny * nx), 3),
        "protect_structure": plan.options["protect_structure"],
        "limit_single": round(float(plan.thresholds[1, 1]), 3),
        "limit_persistent": round(max(float(plan.thresholds[n, n]), p.min_sigma), 3),
        "expected_false_per_exposure": round(p.false_alarm * tests * ny * nx, 2),
        **lone,
    }


def _searched_percent(parts: list[BandResult]) -> float:
    """Share of a lone exposure in which a strong hit would be flagged, percent."""
    shown, asked = np.sum([part.searched for part in parts if part.searched], axis=0)
    return round(100 * float(shown) / max(int(asked), 1), 2)


def _remarks(
    exposures: list[Exposure], plan: Plan, p: SignificanceSettings, statistics: Mapping[str, Any]
) -> list[str]:
    notes = []
    if len(exposures) == 1 and p.lone_exposure:
        notes.append(
            f"a single exposure: searched by its own neighbors alone, for what exceeds {p.lone_sigma:g} sigma beside "
            f"them; in {statistics['searched_percent']:g} % of its pixels a lone hit of {STRONG:g} sigma would be "
            "found, most tracks of cosmic rays are not"
        )
    elif len(exposures) == 1:
        notes.append(
            "a single exposure: not searched (see lone_exposure); outliers can't be told from sources by other "
            "exposures"
        )
    elif not is_dithered(exposures):
        notes.append(
            "all exposures have one pointing: lines and sources stand still like bad pixels do; "
            f"structure is protected with {plan.options['protect_structure']:g}; "
            "expect more false flags on bright sources than in dithered exposures"
        )
    elif not has_pointings(exposures) and p.protect_structure is None:
        notes.append(
            "not all exposures have XOFFSET and YOFFSET, or RA_V1 and DEC_V1: they are taken as dithered; "
            "if they have one pointing, protect_structure 0.6 is safer"
        )
    return notes
