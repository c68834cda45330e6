"""The samples of a set of flats, and their mean.

1. A sample is a rate image, or an integration of a rateints file. Its level is its median over the science pixels,
   every 16th row (of dispersed light, of its bright pixels). A level below a tenth or above ten times the median
   level is no flat of the set: a dark, an unlit or a saturated one; the file is named.
2. Each sample is divided by its level, because lamps drift; the median level is put back, so that the mean stays in
   DN/s.
3. Per pixel: mean of the samples that survive sigma clipping (3 sigma around the median, 5 rounds). With 7 samples or
   fewer a lone outlier can't be clipped at 3 sigma: its deviation is below N / sqrt(N - 1) standard deviations.
   Where samples collected different amounts of light (exposure times, lamp levels), they are weighted by that.
4. A slope of 0 of a saturated pixel (pipelines before 1.0) is no measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.io.exposure import Exposure, band_height
from badpix.io.fits import Layout, bands, read_band
from badpix.io.tasks import Progress, run_in_order
from badpix.numerics import clipping
from badpix.numerics.medians import median_along

ALIKE = 1.5  # times the light of another sample: beyond it samples are weighted
ODD_LEVEL = 10.0  # times the typical level, or part of it: a sample beyond is no flat of the set

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


class Sample(NamedTuple):
    """One slope image: a plane of a file, and what to multiply it with."""

    layout: Layout
    plane: int
    scale: float
    flags: Layout | None = None  # DQ: a slope of 0 may mean saturated
    weight: float = 1.0  # inverse variance, of the best sample's


def measure_samples(
    rates: Sequence[Exposure],
    science: Bool,
    lamp_scaling: str,
    axis: int | None = None,
    odd: list[str] | None = None,
) -> list[Sample]:
    """All slope images of the flats with the factor that takes out the lamp's drift.

    Parameters
    ----------
    rates : sequence of Exposure
        Slope images.
    science : ndarray of bool
        (ny, nx) science pixels.
    lamp_scaling : str
        ``median`` or ``none``.
    axis : int or None
        Axis along which light is dispersed; then bright pixels give the level, for most may be unlit.
    odd : list of str, optional
        Gets what is said of samples whose level does not fit; they are left out instead of stopping.

    Raises
    ------
    DataError
        If an image has no finite science pixel or no light, or far less or more light than the others.
    """
    levels: list[float] = []
    places: list[tuple[Exposure, int]] = []
    first: NDArray[np.float32] | None = None
    for exposure in rates:
        layout = exposure["SCI"]
        for plane in range(layout.planes):
            if axis is None:
                level = _median_level(layout, plane, science)
            else:
                values = _lines_across(layout, plane, science, axis)
                first = values if first is None else first
                level = measure_bright_level(values, first)
            if not np.isfinite(level):
                raise DataError(f"{exposure.path}: integration {plane + 1}: no science pixel has a finite slope")
            if level <= 0:
                raise DataError(f"{exposure.path}: integration {plane + 1}: median rate {level:.4g} DN/s; not a flat")
            levels.append(level)
            places.append((exposure, plane))
    typical = float(np.median(levels))
    kept = [k for k, level in enumerate(levels) if typical / ODD_LEVEL <= level <= typical * ODD_LEVEL]
    for k in sorted(set(range(len(levels))) - set(kept)):
        exposure, plane = places[k]
        text = (
            f"{exposure.path}: integration {plane + 1}: {levels[k]:.4g} DN/s, while the typical level of the flats "
            f"is {typical:.4g}; is it a dark, or lit otherwise?"
        )
        if odd is None or not kept:
            raise DataError(text)
        odd.append(f"left out: {text}")
    factors = [typical / level if lamp_scaling == "median" else 1.0 for level in levels]
    weights = weights_of([places[k][0] for k in kept], [levels[k] for k in kept])
    return [
        Sample(places[k][0]["SCI"], places[k][1], factors[k], places[k][0].arrays.get("DQ"), weight)
        for k, weight in zip(kept, weights, strict=True)
    ]


def weights_of(exposures: Sequence[Exposure], levels: Sequence[float]) -> list[float]:
    """Weights of samples: the light that each collected, level times exposure time; 1 where they are alike.

    The exposure time is NGROUPS x TGROUP, or EFFEXPTM over NINTS; where one of them is not known, or none
    collected :data:`ALIKE` times what another one did, all count the same.
    """
    light = []
    for exposure, level in zip(exposures, levels, strict=True):
        h = exposure.header
        try:
            time = (
                float(h["NGROUPS"]) * float(h["TGROUP"])
                if "TGROUP" in h
                else float(h["EFFEXPTM"]) / float(h["NINTS"])
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return [1.0] * len(levels)
        light.append(time * level)
    if min(light) <= 0 or max(light) < ALIKE * min(light):
        return [1.0] * len(levels)
    return [one / max(light) for one in light]


def _median_level(layout: Layout, plane: int, science: Bool) -> float:
    step = 16 if science.shape[0] >= 512 else 1
    rows = read_band(layout, 0, science.shape[0], planes=[plane], step=step)[0]
    values = rows[science[::step] & np.isfinite(rows)]
    return float(clipping.median(values)) if values.size else float("nan")


def _lines_across(layout: Layout, plane: int, science: Bool, axis: int) -> NDArray[np.float32]:
    """Every 16th line across the dispersion, whole, so that no slit is missed; NaN on reference pixels: (n,)."""
    ny = len(science)
    step = 16 if science.shape[axis] >= 512 else 1
    if axis == 0:
        rows, inside = read_band(layout, 0, ny, planes=[plane], step=step)[0], science[::step]
    else:
        rows, inside = read_band(layout, 0, ny, planes=[plane])[0][:, ::step], science[:, ::step]
    return np.where(inside, rows, np.nan).ravel().astype(np.float32)


def measure_bright_level(values: Float, first: Float) -> float:
    """Level of a sample whose light lies on few pixels: that of the first sample times the median ratio to it.

    Both medians are weighted with the light of the first sample, cut at its 99.5th percentile: unlit pixels have
    next to no weight, hot ones not much. NaN without a finite pixel.
    """
    good = np.isfinite(values) & np.isfinite(first) & (first > 0)
    if not good.any():
        return 0.0 if np.isfinite(values).any() else float("nan")
    base, weight = first[good].astype(np.float64), np.minimum(first[good], np.quantile(first[good], 0.995))
    return _weighted_median(values[good] / base, weight) * _weighted_median(base, weight)


def _weighted_median(values: Float, weight: Float) -> float:
    order = np.argsort(values)
    total = np.cumsum(weight[order], dtype=np.float64)
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def measure_mean(
    samples: Sequence[Sample], *, sigma: float, memory: float, executor: Executor | None, progress: Progress
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Clipped mean rate (DN/s) and number of samples kept: (ny, nx) each.

    Parameters
    ----------
    samples : sequence of Sample
        From :func:`measure_samples`.
    sigma : float
        Clipping, in standard deviations.
    memory : float
        Bytes that the samples of a band may take.
    executor : Executor or None
        Where bands are worked on.
    progress : callable
        ``progress(bands done, bands in all)``.
    """
    ny, nx = samples[0].layout.shape[-2:]
    mean = np.empty((ny, nx), np.float32)
    count = np.empty((ny, nx), np.int16)
    rows = bands(ny, min(128, band_height(len(samples) * nx * 4, memory, ny)))
    task = partial(_mean_of_band, list(samples), sigma)
    results = run_in_order(executor, task, rows, progress)
    for (start, stop), (band_mean, band_count) in zip(rows, results, strict=True):
        mean[start:stop], count[start:stop] = band_mean, band_count
    return mean, count


def _mean_of_band(
    samples: Sequence[Sample], sigma: float, rows: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    start, stop = rows
    nx = samples[0].layout.shape[-1]
    block = np.empty((len(samples), stop - start, nx), np.float32)
    band: NDArray[Any] | None = None
    for k, sample in enumerate(samples):
        band = None if band is None or band.dtype != sample.layout.dtype else band  # float64 files are legal
        band = read_band(sample.layout, start, stop, planes=[sample.plane], out=band)
        np.multiply(band[0], np.float32(sample.scale), out=block[k])
        _drop_saturated(block[k], sample, start, stop)
    if any(sample.weight != 1.0 for sample in samples):
        return weighted_mean(block, np.array([sample.weight for sample in samples]), sigma)
    return clipping.clip_stack(block, sigma=sigma, iterations=5)


def weighted_mean(
    block: NDArray[np.float32], weights: Float, sigma: float, iterations: int = 5
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Weighted mean of the samples of each pixel, and the number kept.

    Deviations from the weighted mean are compared in units of each sample's own error, 1 / sqrt(weight) of a common
    one that the kept samples tell; first from the median.

    Parameters
    ----------
    block : ndarray of float32
        (n, ny, nx) samples, NaN where not measured.
    weights : ndarray
        (n,) inverse variances on any scale.
    sigma, iterations
        Clipping.
    """
    w = np.where(np.isfinite(block), weights[:, None, None].astype(np.float32), np.float32(0))
    values = np.where(w > 0, block, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        center = median_along(block)
        kept = w > 0
        for _ in range(iterations):
            chi = (values - center) * np.sqrt(w)
            number = kept.sum(axis=0)
            common = np.sqrt((chi**2 * kept).sum(axis=0) / number)
            again = (w > 0) & (np.abs(chi) <= sigma * common)
            if np.array_equal(again, kept):
                break
            kept = again
        mean = (values * w * kept).sum(axis=0) / (w * kept).sum(axis=0)
    return mean.astype(np.float32), kept.sum(axis=0).astype(np.int16)


def _drop_saturated(rates: NDArray[np.float32], sample: Sample, start: int, stop: int) -> None:
    """Slopes of 0 of saturated pixels (pipelines before 1.0) are no measurement: NaN, in place."""
    if sample.flags is None or np.count_nonzero(rates) == rates.size:
        return
    plane = sample.plane if sample.flags.planes > sample.plane else 0
    flags = read_band(sample.flags, start, stop, planes=[plane])[0]
    rates[(rates == 0) & (flags.view(np.uint32) & np.uint32(dq.VALUE["SATURATED"]) != 0)] = np.nan
