"""Statistics of each pixel over all integrations of all darks, and of the population of pixels.

1. An integration counts for a pixel if enough of its groups are usable.
2. Numbers that one cosmic ray would spoil are combined by order statistics over the integrations: medians, and
   means without the lowest and highest fifth (at least one integration at each end).
3. The dark rate of an integration is the lower of the pipeline's rate (noisy ramps are cut into pieces by false
   jumps, and come out too high) and the slope of the plain line (cosmic rays raise it), each above the median
   of its cell. Where no line was fitted it is the pipeline's rate, of ramps without jumps alone.
4. Size, memory and flatness of the residuals are measured beside hits (:mod:`badpix.darks.hits`): means over the
   integrations, without a tenth of them that has the largest residuals.
5. Deep steps down are counted: integrations with one below the pixel's own noise.
6. A population is described by median and MAD over a sample of rows, known before the whole frame is read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from badpix.darks import scratch, settling
from badpix.darks.integrations import Integrations
from badpix.darks.readouts import pick_weighted
from badpix.numerics import clipping

Array = NDArray[np.float32]
Stats = dict[str, NDArray[np.float32]]

MEDIAN_ERROR = 1.2533  # error of a median over that of a mean, Gaussian noise
TRIMMED_ERROR = 1.05  # the same for a 20 % trimmed mean
NETWORK_LIMIT = 28  # integrations up to which rows are exchanged; longer stacks are sorted pixel by pixel
BLOCK = 256  # pixels whose values are turned together
WHITE_LOSS = 12.5  # a trimmed mean of white variances of Gaussian ramps of G groups is 1 - 12.5 / G^2 of the true one
LEFT_OUT = 10  # one integration in so many is left out of the means of residuals

# --- order statistics ----------------------------------------------------------------------------------


def sort_stack(values: Array) -> tuple[Array, NDArray[np.intp]]:
    """Each pixel's values in ascending order along axis 0, not finite ones last (as inf), and how many are finite.

    The order of long stacks stands in memory that the next call uses again.
    """
    if len(values) <= NETWORK_LIMIT:
        return clipping.sort_stack(values)
    n, pixels = values.shape
    turned, count = scratch.take("sorted", (pixels, n)), np.full(pixels, n)
    lines = scratch.take("lines", (n, BLOCK + 16))  # rows a power of two apart would fall on each other in the cache
    for x in range(0, pixels, BLOCK):
        here = slice(x, min(x + BLOCK, pixels))
        block = lines[:, : here.stop - x]
        block[:] = values[:, here]
        turned[here] = block.T
    turned.sort(axis=1)
    odd = np.flatnonzero(~np.isfinite(turned[:, [0, -1]]).all(axis=1))
    if odd.size:
        most = odd.size > pixels // 2
        part = turned if most else turned[odd]
        finite = np.isfinite(part)
        np.copyto(part, np.float32(np.inf), where=~finite)  # NaN are last already,
        low = np.flatnonzero(~finite[:, 0])  # but minus infinity was first
        part[low] = np.sort(part[low], axis=1)
        if not most:
            turned[odd] = part
        count[slice(None) if most else odd] = np.einsum("pn->p", finite.view(np.uint8), dtype=np.uint32)
    return turned.T, count


def pick(ordered: Array, rank: NDArray[np.intp]) -> Array:
    """The value at each pixel's own rank (0 = lowest)."""
    if rank.size and np.all(rank == rank[0]):
        found: Array = ordered[rank[0]]
        return found
    found = ordered[rank, np.arange(ordered.shape[1])]
    return found


def median_of(ordered: Array, count: NDArray[np.intp]) -> Array:
    """Median of what :func:`sort_stack` gave; NaN where nothing was measured."""
    low = pick(ordered, np.maximum(count - 1, 0) // 2)
    high = pick(ordered, np.minimum(count // 2, len(ordered) - 1))
    high = np.where(count % 2 == 1, low, high)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, low + (high - low) * np.float32(0.5), np.float32(np.nan))


def trimmed_mean_of(ordered: Array, count: NDArray[np.intp], fraction: float = 0.2) -> Array:
    """Mean without the lowest and highest ``fraction`` (at least one each from 3 values on); NaN where empty."""
    n = len(ordered)
    cut = _trim(np.asarray(n), fraction)
    middle = ordered[int(cut) : n - int(cut)].astype(np.float64)
    out: Array = (np.einsum("np->p", middle) / max(len(middle), 1)).astype(np.float32)
    part = np.flatnonzero(count < n)
    if part.size:
        k, lines = count[part], np.arange(n)[:, None]
        t = _trim(k, fraction)
        keep = (lines >= t) & (lines < k - t)
        total = np.where(keep, ordered[:, part], 0).sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[part] = total / keep.sum(axis=0)
    return out


def _trim(count: NDArray[np.intp], fraction: float) -> NDArray[np.intp]:
    return np.where(count >= 3, np.maximum(1, (fraction * count + 1e-9).astype(np.intp)), 0)


def median_stack(values: Array) -> Array:
    """Median along axis 0 without NaN."""
    return median_of(*sort_stack(values))


def mad_stack(values: Array, center: Array) -> Array:
    """Median absolute deviation from ``center`` along axis 0, as a standard deviation."""
    return np.float32(clipping.MAD_TO_SIGMA) * median_stack(np.abs(values - center))


def count_true(chosen: NDArray[np.bool_]) -> Array:
    """In how many integrations each pixel is chosen, (pixels,) float32 of (n, pixels)."""
    wide = np.uint8 if len(chosen) < 256 else np.uint32  # a sum in the type of what is summed is ten times faster
    found: Array = np.add.reduce(chosen.view(np.uint8), axis=0, dtype=wide).astype(np.float32)
    return found


# --- over integrations ---------------------------------------------------------------------------------


def combine_integrations(
    tile: Integrations,
    *,
    groups: int,
    min_groups: int,
    hot_fraction: float,
    drop_sigma: float,
    templates: tuple[str, ...],
) -> Stats:
    """What is measured of every pixel: (pixels,) float32 each.

    Parameters
    ----------
    tile : Integrations
        All integrations of some pixels.
    groups : int
        Groups of a whole ramp.
    min_groups : int
        Usable groups that an integration must have.
    hot_fraction : float
        Fraction of integrations in which a rate must be reached: ``hot_rate`` is the highest rate that is.
    drop_sigma : float
        Depth of a step down that counts, in units of the pixel's own noise of a step.
    templates : tuple of str
        Names of the contrasts.
    """
    n = len(tile.groups)
    whole = tile.groups.max(initial=0) if tile.weights is None or tile.whole is None else tile.whole[:, None]
    usable = tile.groups >= min_groups
    used = usable[tile.examined]
    out: Stats = {
        "integrations": count_true(usable),
        "examined": count_true(used),
        "total": np.full(used.shape[1], n, np.float32),
        "saturated_fraction": count_true(tile.saturated) / np.float32(n),
        "cut_fraction": count_true(tile.groups < whole) / np.float32(n),
        "first_level": tile.first_level,
        "masked": tile.masked.astype(np.float32),
        "jumps": tile.jumps.sum(axis=0, dtype=np.float32) / np.float32(n),
    }
    out["rate"], out["hot_rate"] = combine_rates(tile, hot_fraction)
    out["poisson"] = tile.poisson
    ignored = _ignore(used)
    out["white"] = trimmed_mean_of(*sort_stack(_without(tile.shapes["white"], ignored)))
    out["white"] /= np.float32(1 - WHITE_LOSS / max(groups, 5) ** 2)
    for name in templates:
        ordered, count = sort_stack(_without(tile.shapes[name], ignored))
        out[name] = trimmed_mean_of(ordered, count)
        out[name + "_median"] = median_of(ordered, count)
    ordered, count = sort_stack(_without(tile.pedestal, _ignore(usable)))
    out["pedestal"] = trimmed_mean_of(ordered, count)
    out.update(average_residuals(tile.shapes, used))
    drop = tile.shapes["drop"]
    with np.errstate(invalid="ignore"):
        deep = drop < np.float32(-drop_sigma) * np.sqrt(2 * out["white"])
        out["deepest"], out["second_deepest"] = find_deepest(
            drop if ignored is None else np.where(used, drop, np.float32(np.nan))
        )
        out["deepest"] /= np.sqrt(2 * out["white"])
        out["second_deepest"] /= np.sqrt(2 * out["white"])
    out["drops"] = count_true(deep & used)
    out["jump_fraction"] = count_true(tile.jumps > 0) / np.float32(n)
    return out


def combine_rates(tile: Integrations, fraction: float) -> tuple[Array, Array]:
    """Median rate of each pixel, and the highest rate that is reached in this fraction of the integrations."""
    if tile.weights is not None:
        return pick_weighted(tile.rate, tile.weights, 0.5), pick_weighted(tile.rate, tile.weights, fraction)
    ordered, count = sort_stack(tile.rate)
    need = np.ceil(fraction * count - 1e-6).astype(np.intp)
    high = pick(ordered, np.clip(count - np.maximum(need, 1), 0, len(ordered) - 1))
    return median_of(ordered, count), np.where(count > 0, high, np.float32(np.nan))


def find_deepest(drop: Array) -> tuple[Array, Array]:
    """Lowest and second lowest along axis 0, NaN left out."""
    lowest = np.fmin.reduce(drop, axis=0)
    room = scratch.take("masked", drop.shape)
    missing = _make_mask(drop == lowest)  # all bits set are a NaN
    np.bitwise_or(drop.view(np.int32), missing, out=room.view(np.int32))
    return lowest, np.fmin.reduce(room, axis=0)


def _make_mask(chosen: NDArray[np.bool_]) -> NDArray[np.int32]:
    """All bits set where values are ``chosen``, else none; in memory that is used again."""
    mask = scratch.take("mask", chosen.shape, np.int32)
    np.negative(chosen.view(np.int8), out=mask, dtype=np.int32)
    return mask


def _keep_only(values: Array, mask: NDArray[np.int32]) -> Array:
    """The values where bits of the mask are set, 0 elsewhere, also for NaN; in memory that is used again."""
    room = scratch.take("masked", values.shape)
    np.bitwise_and(values.view(np.int32), mask, out=room.view(np.int32))
    return room


def _ignore(used: NDArray[np.bool_]) -> Array | None:
    """NaN where an integration does not count, 0 elsewhere; None where all count."""
    return None if used.all() else np.where(used, np.float32(0), np.float32(np.nan))


def _without(values: Array, ignored: Array | None) -> Array:
    return values if ignored is None else values + ignored


def average_residuals(shapes: dict[str, Array], used: NDArray[np.bool_]) -> Stats:
    """Means of residual variance, flatness and memory beside hits, and in how many integrations: ``kept``.

    From 3 integrations on a tenth, at least one, is left out: those of the largest residuals, which a hit too small
    for a jump flag, or many hits, may have made.
    """
    ok = used & np.isfinite(shapes["flatness"])
    size = shapes["calm"] if ok.all() else np.where(ok, shapes["calm"], np.float32(np.nan))
    ordered, count = sort_stack(size)
    drop = np.where(count >= 3, np.maximum(1, count // LEFT_OUT), 0)
    with np.errstate(invalid="ignore"):
        ok = size <= pick(ordered, np.maximum(count - drop - 1, 0))
    kept, mask = count_true(ok), _make_mask(ok)
    out: Stats = {"kept": kept}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, column in (("residual", "calm"), ("flatness", "flatness"), ("memory", "memory")):
            total = _keep_only(shapes[column], mask).sum(axis=0, dtype=np.float64)
            out[name] = np.where(kept > 0, total / kept, np.nan).astype(np.float32)
    return out | _average_all(shapes, used)


def _average_all(shapes: dict[str, Array], used: NDArray[np.bool_]) -> Stats:
    """Size and autocorrelation of residuals over all integrations, also the largest: what faint switching needs."""
    known = np.isfinite(shapes["memory"])
    known &= np.isfinite(shapes["calm"])
    known &= used
    mask = _make_mask(known)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = _keep_only(shapes["calm"], mask).sum(axis=0)
        lasting = np.multiply(shapes["calm"], shapes["memory"], out=scratch.take("product", known.shape))
        lasting = _keep_only(lasting, mask).sum(axis=0)
        return {"residual_all": total / known.sum(axis=0), "memory_all": lasting / total}


def examine_pixels(
    tile: Integrations,
    index: NDArray[np.intp],
    known: Stats,
    *,
    min_groups: int,
    templates: tuple[str, ...],
    bends: NDArray[np.float64],
) -> Stats:
    """What only candidates need: medians of slope and late slope, scatter and sign of the contrasts.

    ``index`` are the candidates among the pixels of ``tile``, ``known`` what is measured of them.
    For each template: ``_scatter`` (MAD over integrations), ``_clean`` (median of the ramps without jumps),
    ``_sign`` (fraction of integrations that have the sign of the median). ``share``: median part of the residual sum
    of squares that all templates together explain; ``rest``: median residual variance without that part; ``settled``:
    part of the integrations that settle alike (:mod:`badpix.darks.settling`).
    """
    groups = tile.groups[:, index]
    used = np.where(groups >= min_groups, np.float32(0), np.float32(np.nan))
    pedestal = tile.pedestal[:, index] + used
    used, groups = used[tile.examined], groups[tile.examined]
    values = {name: shape[:, index] + used for name, shape in tile.shapes.items()}
    freedom = np.maximum(groups.astype(np.float32) - 2, 1)
    clean = tile.jumps[:, index][tile.examined] == 0
    out: Stats = {name: median_stack(values[name]) for name in ("slope", "late")}
    out["rate_scatter"] = mad_stack(tile.rate[:, index], known["rate"])
    out["pedestal_scatter"] = mad_stack(pedestal, median_stack(pedestal))
    out["whole_residual"] = median_stack(values["residual"])
    out["groups"] = np.median(groups, axis=0).astype(np.float32)
    for name in templates:
        c, center = values[name], known[name + "_median"]
        out[name + "_scatter"] = mad_stack(c, center)
        out[name + "_clean"] = median_stack(np.where(clean, c, np.float32(np.nan)))
        with np.errstate(invalid="ignore", divide="ignore"):
            out[name + "_sign"] = ((c * center) > 0).sum(axis=0).astype(np.float32) / np.isfinite(c).sum(axis=0)
    if not templates:
        return out | {name: np.full(len(index), np.nan, np.float32) for name in ("share", "rest", "settled")}
    explained = settling.explain(values, templates, bends)
    left = settling.leave(values, explained, freedom, templates)
    with np.errstate(invalid="ignore", divide="ignore"):
        out["share"] = median_stack((explained / (values["residual"] * freedom)).astype(np.float32))
    out["rest"] = median_stack(left)
    out["settled"] = settling.count_settled(values, explained, left, freedom, templates)
    return out


def join(parts: list[Stats]) -> Stats:
    """The statistics of several tiles as one."""
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if parts else {}
