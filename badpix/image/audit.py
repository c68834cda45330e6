"""Which sources lost flux to flags, so that nobody finds out from a light curve.

1. Sources are peaks (the highest of 5x5 pixels) of the median image of all groups, above ``audit_snr`` times its
   local noise: those that ``photutils.detection.find_peaks`` finds.
2. In every exposure, in 5x5 pixels around a source and with the *model* b (SCI has the hit in it), b_net =
   max(b - median b, 0):

       lost = sum of b_net on flagged pixels / sum of b_net;    excess = sum of r on flagged pixels / sum of
       b_net; S5 = sum of r over the 5x5 / sum of b_net.

3. Sources that lost more than ``audit_loss`` are listed with a verdict: ``suspect`` where the excess is below
   the loss or S5 below 0.06 (flux was moved, not added), ``repeated`` where it happened in two or more
   exposures (two hits on one core are unlikely), else ``hit``. Nothing is unflagged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Window
from badpix.image.stack import Shelf, read_median, touched_tiles
from badpix.numerics import clipping
from badpix.numerics.neighbors import gather, locate

TILE = 256  # pixels over which the local noise is measured
BAND, COLUMNS = 1024, 2048  # of a part that is searched at a time
MAX_SOURCES = 50_000
SUSPECT_SUM = 0.06
MIN_SIGMA = 100.0  # a source must have this flux in 5x5, in sigma of a pixel


class Loss(NamedTuple):
    """A source that lost flux in one exposure."""

    source: int
    x: float
    y: float
    flux: float
    others: int
    lost: float
    excess: float
    sum5: float
    sum3_over_peak: float
    pixels: int


def find_sources(
    shelf: Shelf, windows: Sequence[Window], shape: tuple[int, int], *, audit_snr: float
) -> NDArray[Any]:
    """Grid positions [n, 2] (x, y) of the sources of the median image, brightest first.

    In parts of 1024 x 2048 pixels that some window touches, with a margin: 8 rows, and the whole tiles of the local
    noise beside them.
    """
    found = [np.empty((0, 3))]
    for part in touched_tiles(windows, BAND, COLUMNS):
        top, left = part.y0 // BAND * BAND, part.x0 // COLUMNS * COLUMNS
        wide = Window(
            max(0, top - 8), min(shape[0], top + BAND + 8), max(0, left - TILE), min(shape[1], left + COLUMNS + TILE)
        )
        x, y, height = find_peaks(read_median(shelf, shape, wide), audit_snr)
        x, y = x + wide.x0, y + wide.y0
        mine = (y >= top) & (y < top + BAND) & (x >= left) & (x < left + COLUMNS)
        found.append(np.stack([x, y, height], axis=1)[mine])
    table = np.concatenate(found)
    order = np.argsort(-table[:, 2], kind="stable")[:MAX_SOURCES]
    out: NDArray[Any] = table[order, :2]
    return out


def find_peaks(image: NDArray[Any], snr: float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Position (x, y) and height of the pixels above their tile's limit that are the highest of their 5x5."""
    limit = np.empty_like(image)
    for i in range(0, image.shape[0], TILE):
        for j in range(0, image.shape[1], TILE):
            part = (slice(i, i + TILE), slice(j, j + TILE))
            level, noise = clipping.median_mad(image[part][::2, ::2])
            limit[part] = level + snr * noise if np.isfinite(noise) and noise > 0 else np.inf
    with np.errstate(invalid="ignore"):
        ys, xs = locate(image > limit)
    peak = np.fmax.reduce(gather(image, ys, xs, 2), axis=0, initial=-np.inf) <= image[ys, xs]
    ys, xs = ys[peak], xs[peak]
    return xs.astype(float), ys.astype(float), image[ys, xs].astype(float)


def measure_losses(
    places: tuple[NDArray[Any], NDArray[Any]],
    model: NDArray[Any],
    residual: NDArray[Any],
    expected: NDArray[Any],
    cover: NDArray[Any],
    flagged: NDArray[Any],
    *,
    audit_loss: float,
) -> tuple[list[Loss], int]:
    """Sources of one exposure that lost more than ``audit_loss``, and the number of sources it saw.

    ``places`` are x and y of all sources in the exposure, NaN outside of it.
    """
    x, y = places
    if not len(x):
        return [], 0
    inside = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    ys, xs = np.rint(y[inside]).astype(np.intp), np.rint(x[inside]).astype(np.intp)
    floor = np.float32(np.nanmedian(model[::5, ::5])) if np.isfinite(model[::5, ::5]).any() else np.float32(0)
    net = np.nan_to_num(np.maximum(gather(model, ys, xs, 2) - floor, 0))
    r = np.nan_to_num(gather(residual, ys, xs, 2))
    hit = gather(flagged.astype(np.float32), ys, xs, 2) > 0
    total = net.sum(axis=0)
    real = total > MIN_SIGMA * expected[ys, xs]
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = (net * hit).sum(axis=0) / total
    rows = []
    for k in np.flatnonzero(real & (lost > audit_loss)):
        row = _make_row(int(inside[k]), (x[inside[k]], y[inside[k]]), net[:, k], r[:, k], hit[:, k])
        strongest = _strongest(r[:, k], hit[:, k])
        at = np.array([ys[k] + strongest // 5 - 2]), np.array([xs[k] + strongest % 5 - 2])
        peak = float(r[strongest, k])
        sum3 = float(np.nansum(gather(residual, *at, 1)) / peak) if peak else 0.0
        rows.append(row._replace(others=int(cover[ys[k], xs[k]]), sum3_over_peak=sum3))
    return rows, int(np.count_nonzero(real))


def _strongest(r: NDArray[Any], hit: NDArray[Any]) -> int:
    """The flagged pixel of a stamp that is furthest from the model."""
    return int(np.argmax(np.where(hit, np.abs(r), -1)))


def _make_row(source: int, place: tuple[float, float], net: NDArray[Any], r: NDArray[Any], hit: NDArray[Any]) -> Loss:
    """What a stamp of 25 pixels lost: its model without sky, its residuals, its flags."""
    total = net.sum()
    strongest = _strongest(r, hit)
    rows, columns = (slice(max(0, v - 1), v + 2) for v in divmod(strongest, 5))
    peak = float(r[strongest])
    return Loss(
        source=source,
        x=round(float(place[0]), 2),
        y=round(float(place[1]), 2),
        flux=float(total),
        others=0,
        lost=float((net * hit).sum() / total),
        excess=float((r * hit).sum() / total),
        sum5=float(r.sum() / total),
        sum3_over_peak=float(r.reshape(5, 5)[rows, columns].sum() / peak) if peak else 0.0,
        pixels=int(hit.sum()),
    )


def replace_loss(
    losses: list[Loss],
    source: int,
    place: tuple[float, float],
    light: NDArray[Any],
    residual: NDArray[Any],
    flagged: NDArray[Any],
    *,
    others: int,
    audit_loss: float,
) -> list[Loss]:
    """The losses of an exposure after the flags on one source changed.

    Parameters
    ----------
    losses : list of Loss
    source : int
    place : (float, float)
        x, y in the exposure.
    light, residual : float [25]
        Of the source's stamp: what the source alone gives, and what is left of the exposure.
    flagged : bool [25]
    others : int
        Other exposures there.
    audit_loss : float
    """
    row = _make_row(source, place, np.maximum(light, 0), np.nan_to_num(residual), flagged)
    kept = [loss for loss in losses if loss.source != source]
    if row.lost > audit_loss:
        kept.append(row._replace(others=others))
    return sorted(kept, key=lambda loss: loss.source)


def judge(losses: list[Loss], exposures_hit: dict[int, int]) -> list[str]:
    """The verdicts of one exposure's losses; ``exposures_hit`` counts, for each source, exposures that lost flux."""
    verdicts = []
    for row in losses:
        if exposures_hit[row.source] >= 2:
            verdicts.append("repeated")
        elif row.excess < row.lost or row.sum5 < SUSPECT_SUM:
            verdicts.append("suspect")
        else:
            verdicts.append("hit")
    return verdicts
