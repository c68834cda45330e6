"""The search for outliers in IFU exposures, in bands of rows that are read from the files.

1. The members of an association must be IFU exposures of one instrument and one size; each detector is searched by
   itself, along the axis across its slices.
2. A band of rows of all exposures is read at a time (with the neighbouring rows that it needs), so that memory does
   not grow with the number of exposures. A task gives back small maps or lists of pixels; bands are independent,
   so the result is the same bytes for any number of workers.
3. ``threshold_method = percentile``: :mod:`badpix.ifu.rank`; ``false_alarm``: :mod:`badpix.ifu.significance`, after
   the noise level has been measured on a sample of bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from badpix import crf
from badpix.associations import Association, Member
from badpix.crf import CalFile
from badpix.errors import DataError
from badpix.ifu import significance as ifu_significance
from badpix.ifu.rank import BORDER, measure_differences, measure_ratio, odd

# Exposure types, and the axis across the slices (that of the neighbour differences).
ACROSS = {"MIR_MRS": 1, "NRS_IFU": 0}

THREADS = 2  # for what leaves the interpreter free: sorting, writing
_SAMPLES = 1 << 19  # pixels that the noise level is measured on
_SAMPLE_ROWS = 16
_USUAL_HALO = 11  # rows that a band reads beyond its own, on each side
_ELEMENTS = 1 << 21  # pixels of all exposures in one band, at the most
_PER_ELEMENT = 60  # bytes that a search needs for each of them
_ONE_POINTING = 0.05  # arcsec


@dataclass(frozen=True)
class Exposure:
    """One member of an association, with its headers."""

    cal: CalFile
    member: Member


@dataclass
class Found:
    """What was found on one detector.

    ``flagged[i]`` holds, for exposure ``i``, the flat indices of the flagged pixels by reason; ``usable[i]`` the
    number of its usable pixels; ``lit`` the pixels that any exposure can use; ``across`` the axis across the slices.
    """

    detector: str
    exposures: list[Exposure]
    flagged: list[dict[str, np.ndarray]]
    usable: list[int]
    lit: np.ndarray
    across: int
    notes: list[str] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    def all_flagged(self, i: int) -> np.ndarray:
        """Flat indices of the flagged pixels of exposure ``i``, of any reason."""
        return np.unique(np.concatenate(list(self.flagged[i].values())))


# --- inputs ----------------------------------------------------------------------------------------------


def read_exposures(association: Association) -> list[Exposure]:
    """Headers of all members, after making sure that they belong together.

    Raises
    ------
    DataError
        If a member is no IFU exposure, lacks an array, or differs from the first in instrument or size.
    """
    exposures = [Exposure(crf.read_layout(member.path), member) for member in association.members]
    first = exposures[0].cal
    for exposure in exposures:
        cal = exposure.cal
        kind = cal.keyword("EXP_TYPE")
        if kind not in ACROSS:
            raise DataError(f"{cal.path}: EXP_TYPE is {kind}, expected an IFU exposure ({' or '.join(ACROSS)})")
        for keyword in ("EXP_TYPE", "INSTRUME"):
            if cal.keyword(keyword) != first.keyword(keyword):
                raise DataError(
                    f"{cal.path}: {keyword} is {cal.keyword(keyword)}, that of {first.path.name} is "
                    f"{first.keyword(keyword)}; expected one instrument"
                )
        cal.keyword("DETECTOR")
        for name in ("SCI", "ERR", "DQ"):
            shape = crf.image_hdu(cal, name).shape
            if shape != first.shape:
                raise DataError(
                    f"{cal.path}: {name} has shape {shape}, expected {first.shape} as in {first.path.name}"
                )
    if min(first.shape) <= 2 * BORDER:
        raise DataError(f"{first.path}: shape {first.shape} is too small; expected more than {2 * BORDER} pixels")
    return exposures


def by_detector(exposures: Iterable[Exposure]) -> dict[str, list[Exposure]]:
    """Exposures of each detector, detectors in alphabetical order."""
    groups: dict[str, list[Exposure]] = {}
    for exposure in exposures:
        groups.setdefault(exposure.cal.keyword("DETECTOR"), []).append(exposure)
    return dict(sorted(groups.items()))


def axis_across(exposures: list[Exposure]) -> int:
    """Axis across the slices: 1 (x) for MIRI, 0 (y) for NIRSpec."""
    return ACROSS[exposures[0].cal.keyword("EXP_TYPE")]


def is_dithered(exposures: list[Exposure]) -> bool:
    """Whether the exposures of a detector have more than one pointing; True where the headers don't say."""
    if len(exposures) < 2:
        return False
    spreads = [_spread(exposures, *keywords) for keywords in (("XOFFSET", "YOFFSET"), ("RA_V1", "DEC_V1"))]
    known = [spread for spread in spreads if spread is not None]
    return not known or max(known) > _ONE_POINTING


def _spread(exposures: list[Exposure], x: str, y: str) -> float | None:
    """Largest difference between pointings, arcsec; None where a header lacks a keyword."""
    points = []
    for exposure in exposures:
        sci = crf.image_hdu(exposure.cal, "SCI").header
        point = [exposure.cal.primary.get(k, sci.get(k)) for k in (x, y)]
        if not all(isinstance(v, int | float) for v in point):
            return None
        points.append(point)
    spread = np.ptp(np.array(points, float), axis=0)
    if x == "RA_V1":
        spread *= np.array([np.cos(np.radians(points[0][1])), 1]) * 3600
    return float(spread.max())


def read_usable(cal: CalFile, start: int = 0, stop: int | None = None) -> np.ndarray:
    """SCI of some rows, NaN where DO_NOT_USE; values that are not finite become NaN."""
    sci = crf.read_rows(cal, "SCI", start, stop)
    unusable = (crf.read_rows(cal, "DQ", start, stop) & crf.DO_NOT_USE).astype(bool)
    sci[unusable] = np.nan
    return sci


# --- the documented search -------------------------------------------------------------------------------


def measure_smallest(exposures: list[Exposure], axis: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest difference over the exposures, in some rows; and the usable pixels of each exposure.

    Returns
    -------
    smallest : ndarray of float64, shape (stop - start, nx)
    usable : ndarray of int, shape (n,)
    """
    ny = exposures[0].cal.shape[0]
    low, high = (max(start - 1, 0), min(stop + 1, ny)) if axis == 0 else (start, stop)
    core = slice(start - low, stop - low)
    smallest = np.full((stop - start, exposures[0].cal.shape[1]), np.nan)
    usable = np.empty(len(exposures), np.int64)
    for i, exposure in enumerate(exposures):
        sci = read_usable(exposure.cal, low, high)
        usable[i] = np.count_nonzero(np.isfinite(sci[core]))
        with np.errstate(invalid="ignore"):  # infinite minus infinite
            np.fmin(smallest, measure_differences(sci, axis)[core], out=smallest)
    return smallest, usable


def find_ranked(detector: str, exposures: list[Exposure], p: Mapping[str, Any], executor: Executor | None) -> Found:
    """The documented search on one detector."""
    smallest, usable = measure_detector(exposures, executor)
    with ThreadPoolExecutor(THREADS) as threads:
        ranked = measure_ratio(
            smallest, kernel_size=p["kernel_size"], threshold_percent=p["threshold_percent"], threads=threads
        )
    with np.errstate(invalid="ignore"):
        flagged = {"percentile": np.flatnonzero(ranked.ratio > ranked.limit)}
    if p["ifu_second_check"]:
        flagged["second_check"] = np.flatnonzero(np.isnan(smallest))
    found = Found(
        detector, exposures, [flagged] * len(exposures), usable, ~np.isnan(smallest), axis_across(exposures)
    )
    found.statistics |= {"limit_ratio": ranked.limit, "kernel_size": odd(p["kernel_size"])}
    return found


def measure_detector(exposures: list[Exposure], executor: Executor | None = None) -> tuple[np.ndarray, list[int]]:
    """Smallest difference over all exposures of a detector, and the usable pixels of each.

    Raises
    ------
    DataError
        If an exposure has no usable pixel.
    """
    bands = list(_bands(exposures[0].cal.shape, 1))
    parts = run_bands(executor, partial(measure_smallest, exposures, axis_across(exposures)), bands)
    usable = np.sum([count for _, count in parts], axis=0)
    _check_usable(exposures, usable)
    return np.concatenate([part for part, _ in parts]), [int(v) for v in usable]


def _check_usable(exposures: list[Exposure], usable: Iterable[int]) -> None:
    for exposure, count in zip(exposures, usable, strict=True):
        if count == 0:
            raise DataError(f"{exposure.cal.path}: no usable pixel: SCI is NaN or DQ is DO_NOT_USE everywhere")


# --- the significance search -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What a band of the significance search needs to know, the same for all bands of a detector."""

    exposures: list[Exposure]
    kernel: tuple[int, int]
    window: tuple[int, int]  # rows, columns
    noise: str
    options: Mapping[str, Any]
    thresholds: np.ndarray
    usual_err: tuple[float, ...]
    level: ifu_significance.Level | None = None


def find_significant(
    detector: str, exposures: list[Exposure], p: Mapping[str, Any], executor: Executor | None, memory: int | None
) -> Found:
    """The significance search on one detector, in bands of rows."""
    plan = make_plan(exposures, p)
    shape = exposures[0].cal.shape
    level = ifu_significance.Level(1.0, 1.0)
    if p["noise"] != "err":
        samples = run_bands(executor, partial(sample_band, plan), _sample_bands(shape, len(exposures)))
        measured = ifu_significance.measure_level(samples, len(exposures))
        if measured is None:
            _check_usable(exposures, [np.isfinite(read_usable(e.cal)).sum() for e in exposures])
            raise DataError(f"{exposures[0].cal.path}: {detector}: no noise could be measured: SCI has no spread")
        level = measured
    plan = replace(plan, level=level)
    parts = run_bands(executor, partial(search_band, plan), list(_bands(shape, len(exposures), memory)))
    found = _collect(detector, exposures, parts)
    _check_usable(exposures, found.usable)
    found.statistics |= _statistics(plan, p, parts)
    found.notes += _remarks(exposures, plan, p)
    found.plan = plan
    if p["ifu_second_check"]:
        pixels = np.flatnonzero(np.isnan(measure_detector(exposures, executor)[0]))
        for flagged in found.flagged:
            flagged["second_check"] = pixels
    return found


def make_plan(exposures: list[Exposure], p: Mapping[str, Any]) -> Plan:
    """Parameters of the significance search in the form that bands use."""
    structure = p["protect_structure"]
    if structure is None:
        structure = 0.3 if is_dithered(exposures) else 0.6
    along, across = odd(p["moved_window"])
    names = ("min_sigma", "partial_sigma", "single", "lone_exposure", "grow_sigma", "grow_steps", "protect")
    return Plan(
        exposures=exposures,
        kernel=odd(p["kernel_size"]),
        window=(along, across) if axis_across(exposures) == 1 else (across, along),
        noise=p["noise"],
        options={name: p[name] for name in names} | {"protect_structure": structure},
        thresholds=ifu_significance.solve_thresholds(len(exposures), p["false_alarm"]),
        usual_err=tuple(measure_usual_err(e.cal) for e in exposures),
    )


def measure_usual_err(cal: CalFile) -> float:
    """Median of ERR over some rows, evenly spread; 1 where none of it can be right."""
    rows = np.unique(np.linspace(0, cal.shape[0] - 1, 24).astype(int))
    err = np.concatenate([crf.read_rows(cal, "ERR", row, row + 1) for row in rows])
    err = err[np.isfinite(err) & (err > 0)]
    return float(np.median(err)) if err.size else 1.0


def sample_band(plan: Plan, start: int, stop: int) -> list[np.ndarray]:
    """Samples of the noise in some rows."""
    margin = 2 + plan.kernel[0] // 2
    low, high = max(0, start - margin), min(plan.exposures[0].cal.shape[0], stop + margin)
    sci, sigma = _read_band(plan, low, high)
    return ifu_significance.sample_band(sci, sigma, plan.kernel, slice(start - low, stop - low))


@dataclass(frozen=True)
class BandResult:
    """What one band of rows gives back."""

    start: int
    pixels: list[np.ndarray]  # flat indices within the frame, for each exposure
    reasons: list[np.ndarray]
    usable: list[int]
    untestable: list[int]
    noisy: int
    lit: np.ndarray


def search_band(plan: Plan, start: int, stop: int) -> BandResult:
    """The significance search in some rows."""
    assert plan.level is not None
    ny, nx = plan.exposures[0].cal.shape
    margin = ifu_significance.halo(plan.kernel, plan.window, plan.options["grow_steps"])
    low, high = max(0, start - margin), min(ny, stop + margin)
    sci, sigma = _read_band(plan, low, high)
    maps, untestable, noisy = ifu_significance.find_significant(
        sci,
        sigma,
        level=plan.level,
        thresholds=plan.thresholds,
        kernel_size=plan.kernel,
        window=plan.window,
        noise=plan.noise,
        **plan.options,
    )
    core = slice(start - low, stop - low)
    pixels = [np.flatnonzero(m[core]) for m in maps]
    return BandResult(
        start=start,
        pixels=[at + start * nx for at in pixels],
        reasons=[m[core].reshape(-1)[at] for m, at in zip(maps, pixels, strict=True)],
        usable=[int(np.count_nonzero(np.isfinite(s[core]))) for s in sci],
        untestable=[int(np.count_nonzero(u[core])) for u in untestable],
        noisy=int(np.count_nonzero(noisy[core])),
        lit=np.logical_or.reduce([np.isfinite(s[core]) for s in sci]),
    )


def _read_band(plan: Plan, low: int, high: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    sci, sigma = [], []
    for exposure, usual in zip(plan.exposures, plan.usual_err, strict=True):
        values = read_usable(exposure.cal, low, high).astype(np.float32, copy=False)
        values[~np.isfinite(values)] = np.nan
        sci.append(values)
        if plan.noise == "data":
            sigma.append(np.ones_like(values))
        else:
            err = crf.read_rows(exposure.cal, "ERR", low, high).astype(np.float32, copy=False)
            sigma.append(ifu_significance.measure_sigma(err, values, usual=usual))
    return sci, sigma


def _collect(detector: str, exposures: list[Exposure], parts: list[BandResult]) -> Found:
    flagged = []
    for i in range(len(exposures)):
        pixels = np.concatenate([part.pixels[i] for part in parts])
        reasons = np.concatenate([part.reasons[i] for part in parts])
        flagged.append({name: pixels[reasons == k] for k, name in enumerate(ifu_significance.REASONS, start=1)})
    usable = [sum(part.usable[i] for part in parts) for i in range(len(exposures))]
    lit = np.concatenate([part.lit for part in parts])
    found = Found(detector, exposures, flagged, usable, lit, axis_across(exposures))
    found.statistics["untestable"] = [sum(part.untestable[i] for part in parts) for i in range(len(exposures))]
    return found


def _statistics(plan: Plan, p: Mapping[str, Any], parts: list[BandResult]) -> dict[str, Any]:
    """Numbers for the summary: limits, noise level, expected false alarms."""
    assert plan.level is not None
    n = len(plan.exposures)
    ny, nx = plan.exposures[0].cal.shape
    repeated = 1 + max(0, n - 1 - n // 2) if n >= 2 else 0
    tests = repeated + bool(p["single"] if n >= 2 else p["lone_exposure"])
    return {
        "noise_over_err": round(plan.level.scale, 4),
        "noisy_percent": round(100 * sum(part.noisy for part in parts) / (ny * nx), 3),
        "protect_structure": plan.options["protect_structure"],
        "limit_single": round(float(plan.thresholds[1, 1]), 3),
        "limit_persistent": round(max(float(plan.thresholds[n, n]), p["min_sigma"]), 3),
        "expected_false_per_exposure": round(p["false_alarm"] * tests * ny * nx, 2),
    }


def _remarks(exposures: list[Exposure], plan: Plan, p: Mapping[str, Any]) -> list[str]:
    notes = []
    if len(exposures) == 1:
        done = "searched by its own neighbours alone" if p["lone_exposure"] else "not searched (see lone_exposure)"
        notes.append(f"a single exposure: {done}; outliers can't be told from sources by other exposures")
    elif not is_dithered(exposures):
        notes.append(
            "all exposures have one pointing: lines and sources stand still like bad pixels do; "
            f"structure is protected with {plan.options['protect_structure']:g}; "
            "expect more false flags on bright sources than in dithered exposures"
        )
    return notes


def sample_significance(found: Found) -> np.ndarray:
    """The statistic eta of a sample of bands, in units of the noise, before any protection; for pictures."""
    plan = found.plan
    assert plan is not None
    assert plan.level is not None
    values = []
    for start, stop in _sample_bands(found.lit.shape, len(plan.exposures)):
        sci, sigma = _read_band(plan, start, stop)
        values.append(ifu_significance.measure_eta(sci, sigma, plan.level, plan.kernel, plan.noise))
    return np.concatenate(values)


# --- both ------------------------------------------------------------------------------------------------


def find_detector(
    detector: str,
    exposures: list[Exposure],
    p: Mapping[str, Any],
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
    if p["threshold_method"] == "false_alarm":
        return find_significant(detector, exposures, p, executor, memory)
    return find_ranked(detector, exposures, p, executor)


def run_bands(executor: Executor | None, task: Callable[[int, int], Any], bands: list[tuple[int, int]]) -> list[Any]:
    """Results of a task for each band, in order."""
    starts, stops = zip(*bands, strict=True)
    return list((map if executor is None else executor.map)(task, starts, stops))


def _bands(shape: tuple[int, int], exposures: int, memory: int | None = None) -> Iterator[tuple[int, int]]:
    elements = min(_ELEMENTS, memory // _PER_ELEMENT) if memory else _ELEMENTS
    rows = int(np.clip(elements // (exposures * shape[1]) - 2 * _USUAL_HALO, 8, 128))
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])


def _sample_bands(shape: tuple[int, int], exposures: int) -> list[tuple[int, int]]:
    """Bands, evenly spread over the frame, that together hold about ``_SAMPLES`` pixels of all exposures."""
    ny, nx = shape
    most = -(-ny // _SAMPLE_ROWS)
    number = int(np.clip(_SAMPLES // (exposures * nx * _SAMPLE_ROWS), min(8, most), most))
    starts = np.linspace(0, max(0, ny - _SAMPLE_ROWS), number).astype(int)
    return [(int(s), min(int(s) + _SAMPLE_ROWS, ny)) for s in starts]
