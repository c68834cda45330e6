"""What each type was decided on: images, rules, and the series of the pixels that something was said of.

Series (``science_excess``, ``science_z``: excess and its significance by exposure) are kept of flagged, recovered and
decaying pixels, up to :data:`SAMPLED` numbers: first of those that change, then of the strongest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.io.evidence import Evidence, Rule, Samples, Sparse, wait_on_disk
from badpix.numerics.neighbors import Places
from badpix.science.bands import Measured
from badpix.science.decide import Verdicts
from badpix.science.sums import square_limit
from badpix.settings.science import ScienceSettings

SAMPLED = 4_000_000  # numbers of each series
CHANGES = ("born", "recovered", "decaying", "structure")  # verdicts that are kept as images
SCIENCE_MEANING = {
    "science_hot": "brighter than the pixels around, whatever lay there",
    "science_warm": "brighter than the pixels around, whatever lay there",
    "science_low": "fainter than the pixels around, whatever lay there",
}


def make_evidence(
    measured: Measured,
    places: Places,
    verdicts: Verdicts,
    dates: Sequence[float],
    wider: float,
    p: ScienceSettings,
) -> Evidence:
    """Images and rules of the decisions; mean and error become two of them, in place."""
    table, index, shape = measured.table, places.index, places.shape
    day = np.array([d if np.isfinite(d) else np.nan for d in (*dates, np.nan)], np.float32)
    changed = verdicts.born | verdicts.recovered

    def image(values: NDArray[Any]) -> Sparse:
        return Sparse(index, values.astype(np.float32), shape, np.nan)

    def mark(values: NDArray[np.bool_]) -> Sparse:
        return Sparse(index, values.astype(np.uint8), shape, 0)

    with np.errstate(invalid="ignore", divide="ignore"):
        harm = verdicts.level / table["noise"]
        error = np.multiply(measured.error, np.float32(wider), out=measured.error)
        sigma = np.divide(measured.mean, error, out=measured.mean)
        sigma.flat[index] = verdicts.sigma
        images = {
            "science_square": wait_on_disk(measured.square),
            "science_pointings": measured.pointings,
            "science_undetermined": measured.pointings < p.min_pointings,
            "science_mean": image(verdicts.level),
            "science_sigma": wait_on_disk(sigma),
            "science_error": wait_on_disk(error),
            "science_harm": image(harm),
            "science_response": image(1 + table["deficit"]),
            "science_scatter": image(table["scatter"]),
            "science_bright": image(table["fraction"]),
            "science_height": image(table["height"] - table["base"]),
            "science_run": image(table["run"]),
            "science_since": image(np.where(changed, day[np.minimum(table["since"], len(dates))], np.nan)),
            "science_step": image(np.where(changed, table["since"], np.nan)),
            "science_bright_first": image(day[table["first"]]),
            "science_bright_last": image(day[table["last"]]),
            "science_flagged": image(table["flagged"]),
            "science_hot_otherwise": mark(verdicts.hot),
            "science_low_otherwise": mark(verdicts.low),
            "science_noisy_otherwise": mark(verdicts.noisy),
            "science_switching_otherwise": mark(verdicts.switching),
            "science_outlier_otherwise": mark(verdicts.outlier),
            **{f"science_{name}": mark(getattr(verdicts, name)) for name in CHANGES},
        }
    rules = make_rules(square_limit(len(dates)), p)
    return Evidence(images, rules, make_samples(measured, places, verdicts))


def make_samples(measured: Measured, places: Places, verdicts: Verdicts) -> dict[str, Samples]:
    """Series of the pixels that something was said of."""
    told = verdicts.hot | verdicts.low | verdicts.noisy | verdicts.switching | verdicts.recovered | verdicts.decaying
    changing = told & ~(verdicts.hot | verdicts.low) | verdicts.born
    kept = np.flatnonzero(told)
    strength = np.nan_to_num(np.abs(verdicts.sigma[kept]))
    first = np.lexsort((kept, -strength, ~changing[kept]))[: SAMPLED // measured.excess.columns]
    kept = np.sort(kept[first])
    y, x = (part.astype(np.int32) for part in np.divmod(places.index[kept], places.shape[1]))
    series = {"science_excess": measured.excess, "science_z": measured.sigma}
    return {name: Samples(x, y, values.read(kept)) for name, values in series.items()} if len(kept) else {}


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
        Rule("science_outlier", "science_flagged", ">=", p.outlier_fraction, "", "fraction flagged as outliers"),
        Rule("science_outlier", "science_outlier_otherwise", ">", 0.5, "", "in several pointings, of no other type"),
    ]
    return rules
