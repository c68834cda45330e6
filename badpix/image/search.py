"""The work on one exposure: a task that any process can do, given the shelf of mosaics.

:func:`search_exposure`: the model of one exposure (:mod:`badpix.image.reference`, :mod:`badpix.image.sharpening`),
its noise (:mod:`badpix.image.noise`) and the test (:mod:`badpix.image.decide`); its flags go to the shelf. What all
exposures are asked for together comes afterwards: :mod:`badpix.image.joint`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq as flags
from badpix.image import audit as image_audit
from badpix.image import products as image_products
from badpix.image.angles import REACH, Turned, measure_slack, turn_offsets
from badpix.image.background import level_residual
from badpix.image.cores import cut_stamps
from badpix.image.decide import find_documented, find_hits
from badpix.image.grid import Window, widen_window
from badpix.image.members import Image, subtract_slope
from badpix.image.noise import (
    FLAT,
    combine_noise,
    measure_expected_noise,
    measure_noise_factors,
    measure_scatter,
    replace_bad_error,
)
from badpix.image.persistence import detector_key
from badpix.image.pixel_map import invert_map
from badpix.image.plan import Found, Plan
from badpix.image.protect import find_protected
from badpix.image.reference import ONE_KIN, blot_bands, build_reference
from badpix.image.resample_drizzle import measure_derivative
from badpix.image.seen_once import expected_width, filter_names, measure_sharpness
from badpix.image.sharpening import STEEP_APPLY, apply_sharpening, fit_sharpening
from badpix.image.stack import Shelf, read_median
from badpix.image.transients import Detection, find_transients
from badpix.io import cal as io_cal
from badpix.io.cal import CalFile
from badpix.numerics.neighbors import grow
from badpix.settings.image import ImageSettings, ModelSettings

KIN_SHARE = 0.12  # of what turned spikes excuse, where one exposure at the same angle is the model ...
KIN_MOST = 3.0  # ... sigma of a pair of mosaics at most: a hit stays one
_SATURATED = np.uint32(flags.VALUE["SATURATED"])


# --- search -----------------------------------------------------------------------------------------------


def search_exposure(task: tuple[Plan, Image]) -> Found:
    """Task: model, noise and test of one exposure; its flags go to the shelf."""
    plan, image = task
    p, window = plan.p, plan.windows[image.group]
    assert image.pixel_map is not None
    reference, cover, foreign = build_reference(
        plan.shelf,
        plan.windows,
        image.group,
        plan.grid.shape,
        others=p.reference == "others",
        agree_sigma=p.agree_sigma,
        agree_gradient=p.agree_gradient,
        pair_sigma=plan.pair_sigma,
        kin=angle_suffix(plan.angles[image.group]) if plan.angles else "",
    )
    plain = is_plain(p)
    slack = None
    if foreign is not None and foreign.any():
        slack = _allow_for_turned_spikes(plan, image, reference, foreign)
    model, others, slack = blot_bands(
        reference,
        None if plain else cover,
        window,
        image.pixel_map,
        interp=p.blot_interp,
        direct=p.resampler == "direct",
        slack=slack,
    )
    del reference, cover, foreign
    if plan.products is not None:
        image_products.write_blot(plan.products, image.cal, model)
    if plain:
        sci, err = (io_cal.read_rows(image.cal, name).astype(np.float32, copy=False) for name in ("SCI", "ERR"))
        subtract_slope(sci, image)
        flagged = find_documented(sci, err, model, image.compare, snr=p.snr, scale=p.scale)
        found = Found(image.number, {"flagged": int(np.count_nonzero(flagged))})
    else:
        flagged, found = _search_closely(plan, image, model, others, slack)
    plan.shelf.write(flags_name(image.number), np.packbits(flagged))
    return found


def is_plain(p: ImageSettings) -> bool:
    """Whether nothing but the documented rule is asked for."""
    ours = p.sharpen or p.noise != "exposure" or p.audit or p.single_coverage != "none"
    ours = ours or bool(p.persistent_snr or p.transient_snr or p.core_snr or p.protect)
    return p.test == "documented" and not ours


def flags_name(number: int) -> str:
    """File of an exposure's flags on the shelf."""
    return f"flags{number:05d}"


def _allow_for_turned_spikes(
    plan: Plan, image: Image, reference: NDArray[Any], foreign: NDArray[Any]
) -> NDArray[Any]:
    """By how much spikes let a group differ from its reference, on its window; sources around it have spikes, too."""
    group, width = image.group, expected_width(filter_names(image.cal), plan.grid.cdelt * 3600)
    window, shape = plan.windows[group], plan.grid.shape
    wide = widen_window(window, REACH // 2, shape)
    here = window.within(wide)
    known, wanted = np.full(wide.shape, np.nan, np.float32), np.zeros(wide.shape, bool)
    known[here], wanted[here] = reference, foreign > 0
    everyone = read_median(plan.shelf, shape, wide)
    others = _other_angles(plan, group, wide)
    slack = measure_slack(known, everyone, others, wanted, sigma=plan.pair_sigma, width=width)
    slack = np.ascontiguousarray(slack[here])
    alone = foreign == ONE_KIN  # it is off by its sub-pixel phase alone
    slack[alone] = np.minimum(np.float32(KIN_SHARE) * slack[alone], np.float32(KIN_MOST * plan.pair_sigma))
    return slack


def _other_angles(plan: Plan, group: int, window: Window) -> Iterator[Turned]:
    """The median of each roll angle but that of a group, in a window."""
    pc = np.array(plan.grid.pc)
    for angle in sorted(set(plan.angles) - {plan.angles[group]}):
        image = read_median(plan.shelf, plan.grid.shape, window, angle_suffix(angle))
        roll = plan.rolls[plan.angles.index(angle)]
        yield Turned(image, turn_offsets(pc, roll - plan.rolls[group]))


def angle_suffix(angle: int) -> str:
    """Of the planes of the groups at one roll angle."""
    return f"-roll{angle}"


def _search_closely(
    plan: Plan, image: Image, model: NDArray[Any], others: NDArray[Any], slack: NDArray[Any] | None
) -> tuple[NDArray[Any], Found]:
    """The better model, noise and test of one exposure."""
    p = plan.p
    found = Found(image.number, {})
    sci, err = (io_cal.read_rows(image.cal, name).astype(np.float32, copy=False) for name in ("SCI", "ERR"))
    subtract_slope(sci, image)
    dq = io_cal.read_rows(image.cal, "DQ")
    good = np.isfinite(sci) & ((dq & io_cal.DO_NOT_USE) == 0)
    saturated = (dq & _SATURATED) != 0
    del dq
    sci[~good] = np.nan
    var_rnoise, var_poisson = (_read_optional(image.cal, name) for name in ("VAR_RNOISE", "VAR_POISSON"))
    sigma = replace_bad_error(err, var_rnoise, var_poisson)
    raw_err = err if p.test == "documented" and p.noise == "exposure" else None
    residual = sci - np.float32(image.compare) - model
    scatter = np.float32(measure_scatter(residual, sigma))
    model, residual = _sharpen(model, residual, sigma * scatter, others, p, found)
    plain = p.noise == "exposure"
    expected = sigma if plain else measure_expected_noise(model, sigma, var_rnoise, var_poisson, good)
    del var_rnoise, var_poisson, err
    derivative = measure_derivative(model)
    with np.errstate(invalid="ignore"):
        flat = derivative < FLAT * scatter * expected
    usual = float(scatter * np.median(expected[::7, ::7]))
    found.residual_sky, found.tilt, found.striped = level_residual(residual, flat & (others > 0), usual)
    factors, found.unusual = measure_noise_factors(residual, expected, flat, others)
    found.noise_factors = [round(float(f), 3) for f in factors[1:]]
    noise = combine_noise(p.noise, sigma, expected, factors, others)
    del flat
    seen = others, saturated, slack, derivative
    flagged, ours, wide = _test(p, image, sci, raw_err, sigma, model, residual, noise, expected, seen, found)
    del derivative, seen
    if plan.persistent:
        _flag_persistent(plan, image, flagged, ours, good, found)
    assert image.pixel_map is not None
    places = invert_map(image.pixel_map, *plan.sources.T)
    if p.transient_snr:
        found.transients = _find_transients(plan, image, places, residual, noise, flagged, model)
    if len(plan.protected):
        spared = find_protected(plan.protected, image.pixel_map)
        found.counts["protected"] = int(np.count_nonzero(spared & flagged))
        flagged &= ~spared
        sci[spared] = residual[spared] = np.nan  # nor do single coverage and stars look there
    if p.audit:
        found.losses, found.sources = image_audit.measure_losses(
            places, model, residual, expected, others, flagged & good, audit_loss=p.audit_loss
        )
    if p.core_snr:
        looked_at = residual, model, noise if slack is None else noise + slack, flagged, ours, wide, others
        found.stamps = cut_stamps(places, image.pixel_map, *looked_at)
    found.cutouts = image_products.cut_out(sci, model, residual, noise, flagged, places)
    if p.single_coverage == "sharpness":
        found.sharpness = measure_sharpness(sci, sigma, others, flagged, model)
    found.counts["flagged"] = int(np.count_nonzero(flagged))
    found.counts["single_coverage_pixels"] = int(np.count_nonzero((others == 0) & good))
    return flagged, found


def _find_transients(
    plan: Plan,
    image: Image,
    places: tuple[NDArray[Any], NDArray[Any]],
    residual: NDArray[Any],
    noise: NDArray[Any],
    flagged: NDArray[Any],
    model: NDArray[Any],
) -> list[Detection]:
    """The star-shaped residuals of an exposure; ``places`` are x and y of the sources."""
    x, y = places
    seen = np.isfinite(x) & np.isfinite(y)
    stars = np.rint(y[seen]).astype(np.intp), np.rint(x[seen]).astype(np.intp)
    width = expected_width(filter_names(image.cal), plan.grid.cdelt * 3600)
    return find_transients(
        image.number, residual, noise, flagged, model, stars, snr=plan.p.transient_snr, width=width
    )


def _flag_persistent(
    plan: Plan, image: Image, flagged: NDArray[Any], ours: NDArray[Any], good: NDArray[Any], found: Found
) -> None:
    """Flag the detector's hot pixels where they are usable, for good; counts those that weren't flagged anyway."""
    hot = np.zeros_like(flagged)
    hot[plan.persistent.get(detector_key(image.cal), ((), ()))] = True
    hot &= good
    found.counts["persistent"] = int(np.count_nonzero(hot & ~flagged))
    flagged |= hot
    ours &= ~hot


def _read_optional(cal: CalFile, name: str) -> NDArray[Any] | None:
    hdu = cal.find(name)
    if hdu is None or hdu.shape != cal.shape:
        return None
    return io_cal.read_rows(cal, name).astype(np.float32, copy=False)


def _sharpen(
    model: NDArray[Any],
    residual: NDArray[Any],
    sigma: NDArray[Any],
    others: NDArray[Any],
    p: ModelSettings,
    found: Found,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The sharpened model and what is left of the exposure, if there are enough steep pixels to learn from."""
    if not p.sharpen or not (others >= 2).any():
        return model, residual
    derivative = measure_derivative(model)
    derivative[others < 2] = 0
    fit = fit_sharpening(residual, model, sigma, derivative, size=p.sharpen_size)
    if fit is None:
        found.blunt = True
        return model, residual
    found.sharpened, found.shift = True, fit.shift
    with np.errstate(invalid="ignore"):
        steep = grow(derivative > STEEP_APPLY * sigma)
    sharper = apply_sharpening(model, fit, steep)
    residual += model
    residual -= sharper
    return sharper, residual


def _test(
    p: ImageSettings,
    image: Image,
    sci: NDArray[Any],
    raw_err: NDArray[Any] | None,
    sigma: NDArray[Any],
    model: NDArray[Any],
    residual: NDArray[Any],
    noise: NDArray[Any],
    expected: NDArray[Any],
    seen: tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, NDArray[Any]],
    found: Found,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The flags (bool maps); those that the fit of a star may take back; those of trails and halos."""
    if p.test == "documented":
        error = noise if raw_err is None else raw_err
        flagged = find_documented(sci, error, model, image.compare, snr=p.snr, scale=p.scale)
        return flagged, flagged.copy(), np.zeros_like(flagged)
    hits = find_hits(
        residual,
        model,
        noise,
        expected,
        *seen,
        snr=_product(p.snr, p.snr_factor),
        scale=_product(p.scale, p.scale_factor),
        snr_dark=p.snr_dark,
        conserve=p.conserve,
        protect_sources=p.protect_sources,
        stand_out=p.stand_out,
        trail_snr=p.trail_snr,
        wide_snr=p.wide_snr,
    )
    found.counts |= {
        "bright": int(np.count_nonzero(hits.bright)),
        "dark": int(np.count_nonzero(hits.dark)),
        "trail": int(np.count_nonzero(hits.trail)),
        "guarded": hits.guarded,
        "common": hits.common,
    }
    ours = hits.bright | hits.dark
    return ours | hits.trail, ours, hits.trail


def _product(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] * b[0], a[1] * b[1]


def read_flags(shelf: Shelf, shape: tuple[int, int], number: int) -> NDArray[Any]:
    """An exposure's flags from the shelf, bool (ny, nx)."""
    pixels = shape[0] * shape[1]
    packed = shelf.read(flags_name(number), (1, -(-pixels // 8)), slice(None), np.uint8)
    return np.unpackbits(packed[0], count=pixels).view(bool).reshape(shape)
