"""DEAD, LOW_QE, OPEN and ADJ_OPEN pixels from flat-field exposures.

1. Mean and normalized flat N' (:mod:`badpix.flats.normalize`, its steps 1 to 4).
2. Low pixels: N' < `max_low_qe_norm_signal`.
3. OPEN: a low pixel whose side neighbors collect its charge. Over those neighbors that exist and are not low
   themselves and touch no hot pixel (at least two): their mean excess over the pixels around is above
   `min_open_excess` and above `open_sigma` of its error; without the highest of them half of it must be left, so that
   one hot neighbor does not make an OPEN pixel. In dispersed light it is counted in parts of the low pixel's light
   (:mod:`badpix.flats.steep`). Decided for all low pixels at once, before DEAD. Then
   the neighbors that touch no other such pixel must be above `min_open_excess` on average: a pixel diagonal to
   an OPEN one has two bright neighbors for that one's sake.
4. DEAD: N' < `max_dead_norm_signal` (0.05) and not OPEN.
5. LOW_QE: low, and neither OPEN nor DEAD.
6. ADJ_OPEN: the eight neighbors of OPEN pixels that have no type of their own.
7. Flux check, if asked for: a DEAD pixel stays DEAD only if the mean of the last four groups of the raw flats is
   below `flux_check`.
A pixel without a slope in any flat (saturated in every group) is undetermined: it has no type.

The documented rules (`dead_definition: search_type`, `open_test: neighbors`, types that overlap) are the other
values of the same parameters. Sources: jwst_reffiles documentation of the official algorithm;
the meaning of DEAD, LOW_QE, OPEN and ADJ_OPEN is that of the data quality flags in the JWST pipeline documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.errors import DataError
from badpix.flats import judged, normalize
from badpix.flats import samples as flat_samples
from badpix.flats.areas import Area, moved, tell_areas
from badpix.flats.completeness import measure_depth
from badpix.flats.light import choose_mode, normalize_light
from badpix.flats.steep import relative_error
from badpix.flats.types import dead_limit, find_below, find_flat_types
from badpix.io.evidence import Detection, Rule
from badpix.io.exposure import Exposure, band_height, read_reference_pixels
from badpix.io.fits import bands, read_band
from badpix.io.tasks import Progress, silent
from badpix.mask.depth import describe
from badpix.settings.flats import FlatSearchSettings, FlatSettings, NormalizeSettings

TYPES = ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")
LAST_GROUPS = 4  # groups of the flux check

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]


# --- the driver ------------------------------------------------------------------------------------------


def search(
    rates: Sequence[Exposure],
    p: FlatSettings,
    *,
    reference: Bool | None = None,
    uncals: Sequence[Exposure] = (),
    executor: Executor | None = None,
    memory: float = 32e6,
    progress: Progress = silent,
    skip_bad: bool = False,
) -> Detection:
    """Search the flats of one detector.

    Parameters
    ----------
    rates : sequence of Exposure
        Slope images (rate, rateints), checked to belong together.
    p : mapping
        Values of ``settings.flats``.
    reference : ndarray of bool, optional
        (ny, nx) reference pixels; those of the first flat, if not given.
    uncals : sequence of Exposure
        Raw flats for the flux check.
    executor : Executor, optional
        Where bands of rows are worked on.
    memory : float
        Bytes that the samples of a band may take.
    progress : callable
        Progress.
    skip_bad : bool
        Leave out samples whose level does not fit the others, with a note, instead of stopping.

    Returns
    -------
    Detection
        Maps DEAD, LOW_QE, OPEN, ADJ_OPEN over the whole image, evidence, notes.
    """
    options: dict[str, Any] = {"executor": executor, "memory": memory, "progress": progress, "skip_bad": skip_bad}
    return search_with_error(rates, p, reference=reference, uncals=uncals, **options)[0]


def search_with_error(
    rates: Sequence[Exposure],
    p: FlatSettings,
    *,
    reference: Bool | None,
    uncals: Sequence[Exposure],
    executor: Executor | None,
    memory: float,
    progress: Progress,
    skip_bad: bool,
) -> tuple[Detection, Float | None]:
    """The same, and the error of the normalized rates of good pixels, (ny, nx); None where all have one error."""
    detector, mode = rates[0].detector, choose_mode(rates[0], p)
    reference = read_reference_pixels(rates[0]) if reference is None else reference
    region = bounding_box(~reference)
    odd: list[str] | None = [] if skip_bad else None
    samples = flat_samples.measure_samples(rates, ~reference, p.lamp_scaling, mode.axis, odd)
    mean, count = flat_samples.measure_mean(
        samples, sigma=p.flat_mean_sigma_threshold, memory=memory, executor=executor, progress=progress
    )
    mean[reference] = np.nan
    light = normalize_light(mean[region], p, detector.ipc, mode)
    norm = light.norm
    found = find_flat_types(norm, p, detector, light.steep)
    if p.depth:
        flagged, lit = np.any(list(found.maps.values()), axis=0), light.state == judged.LIT
        found.evidence.depth, found.evidence.alarms = measure_depth(norm, flagged, lit, light.steep, p, detector)
        found.notes += describe(found.evidence.depth, found.evidence.alarms)
    found.evidence.images["flat_state"] = light.state
    found.notes[:0] = [*(odd or []), *_notes_on_samples(samples, p), *_notes_on_mean(mean, ~reference)]
    if mode.axis is not None:
        found.notes.append(f"light as {mode.name} makes it, dispersed along {'yx'[mode.axis]}")
    found.notes.append(f"interpixel coupling taken as {light.coupling}")
    _report_areas(found, light.areas, region, rates[0])
    found.notes += _notes_on_pile(norm, p, detector)
    if p.run_dead_flux_check and p.dead_search:
        _check_flux(found, uncals, region, p.flux_check, memory)
    _keep_wanted(found, p)
    for images in (found.maps, found.evidence.images):
        for name in images:  # one at a time: the frame may be large
            images[name] = embed(images[name], region, mean.shape)
    state = found.evidence.images["flat_state"]
    state[reference] = judged.REFERENCE
    judged.mark_saturated(state, rates)
    found.evidence.images |= {"flat_mean": mean, "flat_samples": count}
    return found, None if light.steep is None else embed(relative_error(light.steep), region, mean.shape)


def _report_areas(found: Detection, areas: Sequence[Area], region: tuple[slice, slice], rate: Exposure) -> None:
    """Areas in full-frame coordinates; the largest ones as notes."""
    x, y = region[1].start + rate.window.xstart - 1, region[0].start + rate.window.ystart - 1
    placed = [moved(area, x, y) for area in areas]
    found.areas += [area._asdict() for area in placed]
    found.notes += tell_areas(placed)


def _check_flux(
    found: Detection, uncals: Sequence[Exposure], region: tuple[slice, slice], limit: float, memory: float
) -> None:
    """Take back DEAD where the raw flats collect light."""
    raw = measure_last_groups(uncals, region, found.maps["DEAD"], memory)
    found.maps["DEAD"] &= find_below(raw, limit=limit)
    found.evidence.images["last_groups"] = raw
    found.evidence.rules.append(Rule("DEAD", "last_groups", "<", limit, "DN", "raw flats collect no light"))


def _keep_wanted(found: Detection, p: FlatSearchSettings) -> None:
    """Drop the types that were not asked for."""
    unwanted = [] if p.dead_search else ["DEAD"]
    unwanted += [] if p.low_qe_and_open_search else ["LOW_QE", "OPEN", "ADJ_OPEN"]
    for name in unwanted:
        del found.maps[name]
    found.evidence.rules[:] = [r for r in found.evidence.rules if r.search not in unwanted]


def bounding_box(inside: Bool) -> tuple[slice, slice]:
    """Smallest rectangle that holds all True pixels.

    Raises
    ------
    DataError
        If there is none.
    """
    if not inside.any():
        raise DataError("no science pixel: all are reference pixels")
    y, x = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(int(y[0]), int(y[-1]) + 1), slice(int(x[0]), int(x[-1]) + 1)


def embed(part: NDArray[Any], region: tuple[slice, slice], shape: tuple[int, ...]) -> NDArray[Any]:
    """``part`` put back into its frame; around it NaN, or False or 0 where the type has no NaN."""
    out = np.full(shape, np.nan if part.dtype.kind == "f" else 0, part.dtype)
    out[region] = part
    return out


def measure_last_groups(uncals: Sequence[Exposure], region: tuple[slice, slice], dead: Bool, memory: float) -> Float:
    """Mean of the last four groups of all integrations of raw flats, DN, where ``dead``; NaN elsewhere.

    Raises
    ------
    DataError
        If there is no raw flat or one has fewer than four groups.
    """
    if not uncals:
        raise DataError("run_dead_flux_check: no raw flats (uncal) were given or lie beside the slope files")
    total = np.zeros(uncals[0]["SCI"].shape[-2:])
    rows_wanted = np.zeros(total.shape[0], bool)
    rows_wanted[region[0]] = dead.any(axis=1)
    for exposure in uncals:
        layout = exposure["SCI"]
        groups = layout.shape[-3]
        if groups < LAST_GROUPS:
            raise DataError(
                f"{exposure.path}: NGROUPS = {groups}; the flux check looks at the last {LAST_GROUPS} groups"
            )
        planes = [k for k in range(layout.planes) if k % groups >= groups - LAST_GROUPS]
        height = band_height(len(planes) * layout.shape[-1] * 2, memory, total.shape[0])
        for start, stop in bands(total.shape[0], height):
            if rows_wanted[start:stop].any():
                band = read_band(layout, start, stop, planes=planes)
                total[start:stop] += band.mean(axis=0, dtype=np.float64) / len(uncals)
    return np.where(dead, total[region], np.nan).astype(np.float32)


def _notes_on_samples(samples: Sequence[flat_samples.Sample], p: NormalizeSettings) -> list[str]:
    n, sigma = len(samples), p.flat_mean_sigma_threshold
    if n == 1:
        return ["one flat only: cosmic rays can't be told from the flat, and nothing is clipped"]
    if (n - 1) / np.sqrt(n) < sigma:  # the largest deviation possible among n samples
        return [f"{n} samples: a lone outlier can't be clipped at {sigma:g} sigma; give more flats"]
    return []


def _notes_on_pile(norm: Float, p: FlatSettings, detector: detectors.Detector) -> list[str]:
    if p.ipc_correction != "auto" or p.flat_mean_normalization_method == "none":
        return []
    number, level = normalize.measure_pile(norm, above=dead_limit(p, detector))
    if not number:
        return []
    return [
        f"{number} isolated pixels read the same {level:.1%} of the light, and none less: if they are DEAD, the "
        f"interpixel coupling is larger by {level / 4:.4f}; give it (ipc_correction given, ipc_coupling)"
    ]


def _notes_on_mean(mean: Float, science: Bool) -> list[str]:
    unmeasured = science & ~np.isfinite(mean)
    share = unmeasured.sum() / science.sum()
    if not share:
        return []
    text = f"{unmeasured.sum()} science pixels ({share:.3%}) have no slope in any flat: undetermined"
    if share > 0.01:
        text += "; were the flats reduced with a mask that sets DO_NOT_USE?"
    return [text]
