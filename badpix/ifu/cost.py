"""What the flags of IFU exposures cost: light of sources, and depth of the stack. Arrays in, tables out.

1. *Light*: in a row of a slice (the pixels of one slice at one place along the dispersion), what stands above the
   row's median. Flagged pixels are filled with the median of the 4 nearest neighbors along the dispersion first, so
   that a hit is no light. Rows with more than 30 sigma of it show a source.
2. *Lost*: the share of that light which lies on flagged pixels, by slice and exposure, and the rows that lose more
   than 1 %.
3. *Depth*: how many exposures can use a pixel of the detector, before and after. A *hole* is a pixel that some
   exposure could use and none can afterwards; where the exposures are dithered, other pixels fill it in the cube.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.ifu.inputs import read_usable
from badpix.ifu.search import Found
from badpix.io import cal as io_cal
from badpix.numerics.coverage import count_depth
from badpix.numerics.medians import median_rows

LOSS = 0.01  # share of a row's light above which the row counts as losing
_LIT = 30.0  # sigma of a row's light above which it shows a source
_SHARE_OF_ROWS = 0.01  # of a slice's rows that must show a source before the slice is listed
_ALONG = (-2, -1, 1, 2)  # neighbors that fill a flagged pixel


def measure_cost(found: Found, slices: NDArray[Any]) -> dict[str, Any]:
    """Losses of all exposures of one detector, and its depth.

    Parameters
    ----------
    found : Found
    slices : ndarray of int, shape (ny, nx)
        The slice of each pixel, from 1; 0 between them.

    Returns
    -------
    dict
        ``exposures``: a row each; ``sources``: a row for each slice that shows a source in an exposure; ``depth``.
    """
    shape = found.exposures[0].cal.shape
    before, after = np.zeros(shape, np.uint16), np.zeros(shape, np.uint16)
    exposures, sources = [], []
    for i, exposure in enumerate(found.exposures):
        flagged = np.zeros(shape, bool)
        flagged.reshape(-1)[found.all_flagged(i)] = True
        sci, err = read_usable(exposure.cal), io_cal.read_rows(exposure.cal, "ERR")
        before += np.isfinite(sci)
        after += np.isfinite(sci) & ~flagged
        rows = measure_losses(sci, err, flagged, slices, found.across)
        name = exposure.cal.path.name
        exposures.append(
            {
                "exposure": name,
                "sources": len(rows),
                "losing": sum(row["lost"] > LOSS for row in rows),
                "worst": max((row["lost"] for row in rows), default=0.0),
                "unsearched": _share_unsearched(found, i),
            }
        )
        sources += [{"exposure": name, "detector": found.detector, **row} for row in rows]
    return {"exposures": exposures, "sources": sources, "depth": [count_depth(found.detector, before, after)]}


def _share_unsearched(found: Found, i: int) -> float:
    """Share of the usable pixels of an exposure that were not compared with another exposure."""
    if len(found.exposures) == 1:
        return 1.0
    untestable = found.statistics.get("untestable")
    return untestable[i] / max(found.usable[i], 1) if untestable else 0.0


def measure_losses(
    sci: NDArray[Any], err: NDArray[Any], flagged: NDArray[Any], slices: NDArray[Any], across: int
) -> list[dict[str, Any]]:
    """Light that the flags of one exposure take, by slice.

    Parameters
    ----------
    sci, err : ndarray of float, shape (ny, nx)
        NaN where not usable.
    flagged : ndarray of bool, shape (ny, nx)
    slices : ndarray of int, shape (ny, nx)
        From 1; 0 between slices.
    across : int
        Axis across the slices.

    Returns
    -------
    list of dict
        Of the slices with a source: ``source`` (its name), ``light`` (unit of SCI), ``lost`` (share), ``rows`` that
        show it, ``rows_losing`` more than 1 %.
    """
    if across == 0:
        sci, err, flagged, slices = sci.T, err.T, flagged.T, slices.T
    filled = _fill(sci, flagged)
    out = []
    for number in range(1, int(slices.max(initial=0)) + 1):
        inside = slices == number
        columns = np.flatnonzero(inside.any(axis=0))
        box = slice(int(columns[0]), int(columns[-1]) + 1)
        values = np.where(inside[:, box], filled[:, box], np.nan)
        light = np.fmax(values - median_rows(values.copy())[:, None], 0)
        light[np.isnan(light)] = 0
        total, taken = light.sum(axis=1), (light * flagged[:, box]).sum(axis=1)
        noise = np.sqrt(np.nansum(np.where(inside[:, box], err[:, box], 0.0) ** 2, axis=1))
        lit = total > _LIT * noise
        if np.count_nonzero(lit) <= _SHARE_OF_ROWS * len(lit):
            continue
        out.append(
            {
                "source": f"slice {number}",
                "light": float(total[lit].sum()),
                "lost": float(taken[lit].sum() / total[lit].sum()),
                "rows": int(np.count_nonzero(lit)),
                "rows_losing": int(np.count_nonzero(lit & (taken > LOSS * total))),
            }
        )
    return out


def _fill(sci: NDArray[Any], flagged: NDArray[Any]) -> NDArray[Any]:
    """An exposure with its flagged pixels filled from their neighbors along the first axis."""
    reach = max(_ALONG)
    clean = np.where(flagged, np.nan, sci)
    padded = np.pad(clean, ((reach, reach), (0, 0)), constant_values=np.nan)
    y, x = np.nonzero(flagged)
    clean[y, x] = median_rows(np.stack([padded[y + reach + step, x] for step in _ALONG], axis=1))
    return clean
