"""How well flagged IFU exposures agree with the truth of their simulation.

All shares are taken over pixels inside slices that are usable on input (finite, no DO_NOT_USE):

* ``in_all``: pixels that are bad in all exposures; ``in_all_strong``: those of more than 50 sigma;
* ``in_some``: pixels that are bad in some exposures, counted only in the exposures where they are on;
* ``cosmic_ray``: pixels that a ray hit with more than 4 sigma; ``cosmic_ray_strong``: more than 10 sigma;
  ``cosmic_ray_certain``: more than 50 sigma;
* ``false_per_million``: flagged pixels without a defect of any kind, per million such pixels and exposure;
  ``false_on_sources_per_million``: of those with more than 10 sigma of source light;
* ``rows_losing``: rows of a slice with source light (more than 30 sigma in all) that lose more than 1 % of it to
  false flags.

Flagged means OUTLIER in DQ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.ifu.inputs import ACROSS, read_usable
from badpix.io import cal
from badpix.io.associations import root_name
from badpix.simulation.ifu_defects import KINDS

_OUTLIER = np.uint32(dq.VALUE["OUTLIER"])

Counts = dict[str, tuple[int, int]]


def count(
    usable: NDArray[Any],
    flagged: NDArray[Any],
    amplitude: NDArray[Any],
    kind: NDArray[Any],
    bright: NDArray[Any] | None = None,
) -> Counts:
    """(flagged, all) pixels of each class in one exposure.

    Parameters
    ----------
    usable, flagged : ndarray of bool, shape (ny, nx)
    amplitude : ndarray of float32, shape (ny, nx)
        Injected strength, sigma.
    kind : ndarray of uint8, shape (ny, nx)
        Bits of :data:`badpix.simulation.ifu_defects.KINDS`.
    bright : ndarray of bool, shape (ny, nx), optional
        Pixels with much light of sources.
    """
    inside = usable & (kind & KINDS["in_slice"] > 0)
    size = np.abs(amplitude)
    in_all, ray = (inside & (kind & KINDS[k] > 0) for k in ("in_all", "cosmic_ray"))
    classes = {
        "in_all": in_all,
        "in_all_strong": in_all & (size > 50),
        "in_some": inside & (kind & KINDS["in_some"] > 0),
        "cosmic_ray": ray & (size > 4),
        "cosmic_ray_strong": ray & (size > 10),
        "cosmic_ray_certain": ray & (size > 50),
        "good": inside & (kind == KINDS["in_slice"]),
    }
    classes["good_on_sources"] = classes["good"] & (False if bright is None else bright)
    return {name: (int(np.count_nonzero(flagged & c)), int(np.count_nonzero(c))) for name, c in classes.items()}


def count_rows(
    false: NDArray[Any], light: NDArray[Any], err: NDArray[Any], inside: NDArray[Any], across: int
) -> tuple[int, int]:
    """Rows of a slice that lose more than 1 % of their source light to false flags, and all that have such light.

    Parameters
    ----------
    false, inside : ndarray of bool, shape (ny, nx)
        Pixels flagged without a defect; pixels inside slices.
    light, err : ndarray of float32, shape (ny, nx)
        Light of the sources and noise, in one unit.
    across : int
        Axis across the slices.
    """
    if across == 0:
        false, light, err, inside = false.T, light.T, err.T, inside.T
    first = inside & ~np.pad(inside, ((0, 0), (1, 0)))[:, :-1]
    row = np.cumsum(first.reshape(-1)) * inside.reshape(-1)  # number of the row of a slice; 0 outside
    total, lost = (np.bincount(row, (light * weight).reshape(-1)) for weight in (inside, inside & false))
    noise = np.bincount(row, np.where(np.isfinite(err), err, 0).reshape(-1) ** 2) ** 0.5
    lit = (total > 30 * noise) & (np.arange(total.size) > 0)
    return int(np.count_nonzero(lit & (lost > 0.01 * total))), int(np.count_nonzero(lit))


def score(inputs: Iterable[Path], flagged_dir: Path, truth_dir: Path) -> dict[str, float]:
    """Shares of what was found, and the rate of false flags, over all exposures.

    Parameters
    ----------
    inputs : iterable of Path
        The simulated `_cal` files.
    flagged_dir : Path
        Holds their `_crf` files (with or without an association ID).
    truth_dir : Path
        Holds their `_truth` files.

    Raises
    ------
    DataError
        If a file has no counterpart.
    """
    total: dict[str, NDArray[Any]] = {}
    for path in inputs:
        root = root_name(path)
        copies = sorted(flagged_dir.glob(f"{root}*_crf.fits"))
        truth = truth_dir / f"{root}_truth.fits"
        if not copies or not truth.is_file():
            missing = f"{root}*_crf.fits in {flagged_dir}" if not copies else str(truth)
            raise DataError(f"{path}: nothing to compare it with: no {missing}")
        flags = (cal.read_rows(cal.read_layout(copies[0]), "DQ") & _OUTLIER) > 0
        layout = cal.read_layout(path)
        usable, err = np.isfinite(read_usable(layout)), cal.read_rows(layout, "ERR")
        across = ACROSS[layout.keyword("EXP_TYPE")]
        for name, pair in count_exposure(usable, flags, *read_truth(truth), err=err, across=across).items():
            total[name] = total.get(name, np.zeros(2)) + pair
    if not total:
        raise DataError(f"{flagged_dir}: no simulated exposure to score")
    return summarize(total)


def count_exposure(
    usable: NDArray[Any],
    flagged: NDArray[Any],
    amplitude: NDArray[Any],
    kind: NDArray[Any],
    light: NDArray[Any],
    *,
    err: NDArray[Any],
    across: int,
) -> Counts:
    """All counts of one exposure: :func:`count` and :func:`count_rows`."""
    with np.errstate(invalid="ignore"):
        bright = light > 10 * err
    inside = kind & KINDS["in_slice"] > 0
    false = flagged & usable & (kind == KINDS["in_slice"])
    rows = count_rows(false, light, err, inside, across)
    return count(usable, flagged, amplitude, kind, bright) | {"rows_losing": rows}


def summarize(total: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Shares, and rates of false flags, from counts of all exposures."""
    shares = {name: float(a / b) if b else float("nan") for name, (a, b) in total.items()}
    good, on_sources = shares.pop("good"), shares.pop("good_on_sources")
    return shares | {"false_per_million": 1e6 * good, "false_on_sources_per_million": 1e6 * on_sources}


def read_truth(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Amplitude (sigma) and kind of the defects of one exposure, and the light of its sources (unit of SCI)."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        return hdus["AMPLITUDE"].data, hdus["KIND"].data, hdus["LIGHT"].data
