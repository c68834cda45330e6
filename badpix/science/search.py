"""Bad pixels from science exposures of one detector, of any targets.

1. The exposures in the order of time, in one unit; refused where they do not differ enough
   (:mod:`badpix.science.inputs`).
2. Of each its noise, level and stripes, from thin blocks of rows.
3. Band by band: residuals of all exposures in units of their noise (:mod:`badpix.science.residuals`), sums, and the
   series of candidates (:mod:`badpix.science.bands`, :mod:`badpix.science.series`). A band is as high as memory
   allows; what leaves it does not grow with the number of exposures.
4. Types, births, structures (:mod:`badpix.science.decide`).
5. Evidence: what each type was decided on, and its rules.
6. Depth, if asked for: copies of pixels with defects, judged in the same way (:mod:`badpix.science.completeness`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from badpix.io.dates import day_of
from badpix.io.evidence import Detection
from badpix.io.exposure import read_reference_pixels
from badpix.io.fits import bands
from badpix.io.tasks import Progress, Spread, run_in_order, silent
from badpix.mask.depth import describe as describe_depth
from badpix.numerics.ipc import ratio_of
from badpix.numerics.neighbors import Places
from badpix.science import around, completeness, decide
from badpix.science import bands as science_bands
from badpix.science.bands import Measured
from badpix.science.decide import Verdicts
from badpix.science.evidence import make_evidence
from badpix.science.inputs import ScienceSet
from badpix.science.rows import Setup
from badpix.science.sums import square_limit
from badpix.settings.science import TYPES, ScienceSettings

MOST_DATES = 12  # births are told one by one up to so many dates


def search(
    found: ScienceSet,
    p: ScienceSettings,
    *,
    reference: NDArray[np.bool_] | None = None,
    executor: Executor | None = None,
    memory: float = 48e6,
    progress: Progress = silent,
) -> Detection:
    """Search science exposures.

    Parameters
    ----------
    found : ScienceSet
        The exposures, which differ enough.
    p : ScienceSettings
        Parameters.
    reference : ndarray of bool, optional
        (ny, nx) reference pixels; those of the first exposure, if not given.
    executor, memory, progress
        Where bands are worked on; bytes that a band may take; how far it is.

    Returns
    -------
    Detection
        Maps of :data:`badpix.settings.science.TYPES`, evidence, notes.
    """
    files = found.files
    reference = read_reference_pixels(files[0]) if reference is None else reference
    detector, shape = files[0].detector, (reference.shape[0], reference.shape[1])
    stripes = (1 if abs(detector.fastaxis) == 1 else 0) if p.remove_stripes else None
    setup = Setup(found.axis, stripes, shape)
    abouts = list(run_in_order(executor, partial(science_bands.describe, setup), found.members))
    if p.depth:
        noises = [a.noise * m.factor for a, m in zip(abouts, found.members, strict=True)]
        setup = replace(setup, plan=completeness.make_plan(noises, found.unit, shape, p))
    height, tall = science_bands.choose_heights(len(files), shape, memory)
    setup = replace(setup, tall=tall)
    task = partial(science_bands.measure_band, setup, found.members, abouts)
    rows = run_in_order(executor, Spread(task), bands(shape[0], height), progress)
    measured = science_bands.join(rows, shape, len(files))
    places = Places(measured.where, shape)
    wider = decide.measure_excess_scatter(measured.mean, measured.error)
    judge = partial(
        decide.judge,
        wider=wider,
        pointings=measured.pointings,
        p=p,
        ipc=around.measure_ipc(measured.mean, measured.table, places, ratio_of(detector.ipc), found.axis),
        axis=found.axis,
        most_square=square_limit(len(files)),
        reference=reference,
    )
    verdicts = judge(measured.table, places)
    dates = [m.mjd for m in found.members]
    result = Detection(make_maps(measured, places, verdicts, reference, p))
    result.notes = describe(found, measured, verdicts, dates, wider, reference, p)
    result.evidence = make_evidence(measured, places, verdicts, dates, wider, p)
    result.evidence.science_exposures = [(m.exposure.path.name, m.mjd, m.factor) for m in found.members]
    result.evidence.science_unit = found.unit
    if setup.plan is not None and measured.copies is not None:
        copies, seen = measured.copies, int((measured.pointings >= p.min_pointings).sum())
        of_copies = judge(copies.table, Places(copies.where[copies.stands_out], shape))
        result.evidence.depth = completeness.count_found(setup.plan, copies, of_copies)
        result.evidence.alarms = completeness.count_below(
            measured.table, seen, wider, p, dispersed=found.axis is not None
        )
        result.notes += describe_depth(result.evidence.depth, result.evidence.alarms)
    return result


def make_maps(
    measured: Measured, places: Places, verdicts: Verdicts, reference: NDArray[np.bool_], p: ScienceSettings
) -> dict[str, NDArray[np.bool_]]:
    """A map of each type."""
    with np.errstate(invalid="ignore"):
        harmful = verdicts.level > p.harm * measured.table["noise"]
    hot = (verdicts.hot & harmful, verdicts.hot & ~harmful)
    types = (*hot, verdicts.low, verdicts.noisy, verdicts.switching, verdicts.outlier)
    return {name: places.to_map(type_) & ~reference for name, type_ in zip(TYPES, types, strict=True)}


def describe(
    found: ScienceSet,
    measured: Measured,
    verdicts: Verdicts,
    dates: Sequence[float],
    wider: float,
    reference: NDArray[np.bool_],
    p: ScienceSettings,
) -> list[str]:
    """What the user should know."""
    few = int(((measured.pointings < p.min_pointings) & ~reference).sum())
    error = float(np.nanmedian(measured.error[::3, ::5])) * wider if np.isfinite(measured.error).any() else np.nan
    notes = [
        f"{len(found.members)} exposures of {found.pointings} pointings in {found.visits} visits; noise of their "
        f"stack {error:.3g} {found.unit}"
    ]
    if wider > 1.2:
        notes.append(f"means scatter {wider:.2g} times as much as their noise: limits are as much higher")
    if few:
        notes.append(f"{few:,} science pixels were seen in fewer than {p.min_pointings} pointings: undetermined")
    notes += describe_births(verdicts, measured.table["since"], dates)
    for name, count in (
        ("recovered: hot in the oldest exposures alone", verdicts.recovered.sum()),
        ("hold persistence, which decays: not flagged", verdicts.decaying.sum()),
        ("belong to structures that are no pixels: not flagged", verdicts.structure.sum()),
    ):
        if count:
            notes.append(f"{int(count):,} pixels {name}")
    return notes


def describe_births(verdicts: Verdicts, since: NDArray[np.int16], dates: Sequence[float]) -> list[str]:
    """Births by date."""
    if not verdicts.born.any():
        return []
    days = Counter(day_of(dates[k]) for k in np.sort(since[verdicts.born]))
    told = [f"{n:,} by {day}" for day, n in days.items()][:MOST_DATES]
    more = f", and at {len(days) - MOST_DATES} further dates" if len(days) > MOST_DATES else ""
    return [f"{int(verdicts.born.sum()):,} pixels were born hot between exposures: {', '.join(told)}{more}"]
