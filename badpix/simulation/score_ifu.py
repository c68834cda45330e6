"""How well flagged IFU exposures agree with the truth of their simulation.

All shares are taken over pixels inside slices that are usable on input (finite, no DO_NOT_USE):

* ``in_all``: pixels that are bad in all exposures; ``in_all_strong``: those of more than 50 sigma;
* ``in_some``: pixels that are bad in some exposures, counted only in the exposures where they are on;
* ``cosmic_ray``: pixels that a ray hit with more than 4 sigma; ``cosmic_ray_strong``: more than 10 sigma;
* ``false_per_million``: flagged pixels without a defect of any kind, per million such pixels and exposure.

Flagged means OUTLIER in DQ.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from badpix import dq
from badpix.errors import DataError
from badpix.ifu.inputs import read_usable
from badpix.io import cal
from badpix.io.associations import root_name
from badpix.simulation.ifu_defects import KINDS

_OUTLIER = np.uint32(dq.VALUE["OUTLIER"])

Counts = dict[str, tuple[int, int]]


def count(usable: np.ndarray, flagged: np.ndarray, amplitude: np.ndarray, kind: np.ndarray) -> Counts:
    """(flagged, all) pixels of each class in one exposure.

    Parameters
    ----------
    usable, flagged : ndarray of bool, shape (ny, nx)
    amplitude : ndarray of float32, shape (ny, nx)
        Injected strength, sigma.
    kind : ndarray of uint8, shape (ny, nx)
        Bits of :data:`badpix.simulation.ifu_defects.KINDS`.
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
        "good": inside & (kind == KINDS["in_slice"]),
    }
    return {name: (int(np.count_nonzero(flagged & c)), int(np.count_nonzero(c))) for name, c in classes.items()}


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
    total: dict[str, np.ndarray] = {}
    for path in inputs:
        root = root_name(path)
        copies = sorted(flagged_dir.glob(f"{root}*_crf.fits"))
        truth = truth_dir / f"{root}_truth.fits"
        if not copies or not truth.is_file():
            missing = f"{root}*_crf.fits in {flagged_dir}" if not copies else str(truth)
            raise DataError(f"{path}: nothing to compare it with: no {missing}")
        flags = (cal.read_rows(cal.read_layout(copies[0]), "DQ") & _OUTLIER) > 0
        amplitude, kind = read_truth(truth)
        usable = np.isfinite(read_usable(cal.read_layout(path)))
        for name, pair in count(usable, flags, amplitude, kind).items():
            total[name] = total.get(name, np.zeros(2)) + pair
    if not total:
        raise DataError(f"{flagged_dir}: no simulated exposure to score")
    shares = {name: float(a / b) if b else float("nan") for name, (a, b) in total.items() if name != "good"}
    found, good = total["good"]
    return shares | {"false_per_million": float(1e6 * found / good) if good else float("nan")}


def read_truth(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude (sigma) and kind of the defects of one exposure."""
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        return hdus["AMPLITUDE"].data, hdus["KIND"].data
