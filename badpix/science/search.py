"""Bad pixels from science exposures of one detector, of any targets.

1. The exposures in the order of time, in one unit; refused where they do not differ enough
   (:mod:`badpix.science.inputs`).
2. Of each its noise, level and stripes, from thin blocks of rows.
3. Band by band: residuals of all exposures in units of their noise (:mod:`badpix.science.residuals`), sums, and the
   series of candidates (:mod:`badpix.science.bands`, :mod:`badpix.science.series`). A band is as high as memory
   allows; what leaves it does not grow with the number of exposures.
4. Types, births, structures (:mod:`badpix.science.decide`).
5. Evidence: what each type was decided on, and its rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.io.dates import day_of
from badpix.io.evidence import Detection, Evidence, Rule, Sparse
from badpix.io.exposure import band_height, read_reference_pixels
from badpix.io.fits import bands
from badpix.io.tasks import Progress, Spread, run_in_order, silent
from badpix.numerics.ipc import ratio_of
from badpix.numerics.neighbors import Places
from badpix.science import bands as science_bands
from badpix.science import decide
from badpix.science.bands import Band, Setup
from badpix.science.decide import Verdicts
from badpix.science.inputs import ScienceSet
from badpix.settings.science import TYPES, ScienceSettings

MOST_DATES = 12  # births are told one by one up to so many dates
HIGHEST = 64  # rows of a band
SCIENCE_MEANING = {
    "science_hot": "brighter than the pixels around, whatever lay there",
    "science_warm": "brighter than the pixels around, whatever lay there",
    "science_low": "fainter than the pixels around, whatever lay there",
}


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
    height = min(HIGHEST, band_height(science_bands.row_bytes(len(files), shape[1]), memory, shape[0]))
    task = partial(science_bands.measure_band, setup, found.members, abouts)
    measured = science_bands.join(run_in_order(executor, Spread(task), bands(shape[0], height), progress), shape)
    places = Places(measured.where, shape)
    wider = decide.measure_excess_scatter(measured.mean, measured.error)
    verdicts = decide.judge(
        measured.table,
        places,
        wider,
        measured.pointings,
        p,
        ipc=ratio_of(detector.ipc),
        dispersed=found.axis is not None,
        most_square=science_bands.square_limit(len(files)),
    )
    dates = [m.mjd for m in found.members]
    result = Detection(make_maps(measured, places, verdicts, reference, p))
    result.evidence = make_evidence(measured, places, verdicts, dates, wider, p)
    result.evidence.exposures = [(m.exposure.path.name, m.mjd, 1.0) for m in found.members]
    result.notes = describe(found, measured, verdicts, dates, wider, reference, p)
    return result


def make_maps(
    measured: Band, places: Places, verdicts: Verdicts, reference: NDArray[np.bool_], p: ScienceSettings
) -> dict[str, NDArray[np.bool_]]:
    """A map of each type."""
    with np.errstate(invalid="ignore"):
        harmful = verdicts.level > p.harm * measured.table["noise"]
    types = (verdicts.hot & harmful, verdicts.hot & ~harmful, verdicts.low, verdicts.noisy, verdicts.switching)
    return {name: places.to_map(type_) & ~reference for name, type_ in zip(TYPES, types, strict=True)}


def make_evidence(
    measured: Band,
    places: Places,
    verdicts: Verdicts,
    dates: Sequence[float],
    wider: float,
    p: ScienceSettings,
) -> Evidence:
    """Images and rules of the decisions."""
    table, index, shape = measured.table, places.index, places.shape
    day = np.array([d if np.isfinite(d) else np.nan for d in (*dates, np.nan)], np.float32)
    when = np.where(verdicts.born | verdicts.recovered, day[np.minimum(table["since"], len(dates))], np.nan)

    def image(values: NDArray[Any]) -> Sparse:
        return Sparse(index, values.astype(np.float32), shape, np.nan)

    with np.errstate(invalid="ignore", divide="ignore"):
        harm = verdicts.level / table["noise"]
        sigma = measured.mean / (measured.error * np.float32(wider))
        sigma.flat[index] = verdicts.sigma
        images = {
            "science_square": measured.square,
            "science_pointings": measured.pointings,
            "science_undetermined": measured.pointings < p.min_pointings,
            "science_mean": image(verdicts.level),
            "science_sigma": sigma,
            "science_harm": image(harm),
            "science_response": image(1 + table["deficit"]),
            "science_scatter": image(table["scatter"]),
            "science_bright": image(table["fraction"]),
            "science_run": image(table["run"]),
            "science_since": image(when),
            "science_flagged": image(table["flagged"]),
            "science_hot_otherwise": image(verdicts.hot),
            "science_low_otherwise": image(verdicts.low),
            "science_noisy_otherwise": image(verdicts.noisy),
            "science_switching_otherwise": image(verdicts.switching),
        }
    return Evidence(images, make_rules(science_bands.square_limit(len(dates)), p))


def make_rules(square: float, p: ScienceSettings) -> list[Rule]:
    """What each type was decided on."""
    noise = "noise of one exposure"
    rules = []
    for name, sign in (("science_hot", ">"), ("science_warm", "<=")):
        rules += [
            Rule(name, "science_sigma", ">", p.science_sigma, "sigma", SCIENCE_MEANING[name]),
            Rule(name, "science_harm", sign, p.harm, noise, "excess over what one exposure shows"),
            Rule(name, "science_hot_otherwise", ">", 0.5, "", "most pointings agree, and no light explains it"),
        ]
    rules += [
        Rule("science_low", "science_sigma", "<", -p.science_sigma, "sigma", SCIENCE_MEANING["science_low"]),
        Rule("science_low", "science_response", "<", p.max_low_response, "", "response to the light around"),
        Rule("science_low", "science_low_otherwise", ">", 0.5, "", "the deficit follows the light"),
        Rule("science_noisy", "science_square", ">", square, "of the noise squared", "mean square of residuals"),
        Rule("science_noisy", "science_scatter", ">", p.noisy_scatter, "of the noise", "scatter over exposures"),
        Rule("science_noisy", "science_noisy_otherwise", ">", 0.5, "", "to both sides, and no chance"),
        Rule("science_switching", "science_square", ">", square, "of the noise squared", "mean square of residuals"),
        Rule("science_switching", "science_bright", ">=", p.switching_fraction, "", "fraction of bright exposures"),
        Rule("science_switching", "science_switching_otherwise", ">", 0.5, "", "alike, in several pointings"),
    ]
    return rules


def describe(
    found: ScienceSet,
    measured: Band,
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
