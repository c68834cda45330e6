"""Outliers in dithered images: from `_cal` files to flagged `_crf` copies, one exposure at a time.

1. Groups: all detectors of one exposure. One output grid for all of them; a pixel map for each image.
2. Sky: keywords, or levels matched between overlapping images (``sky_match``).
3. Each group is drizzled onto its part of the grid; pixels of low weight become NaN; the mosaic goes to a
   private directory beside the outputs.
4. The stack of mosaics is sorted once, in tiles.
5. Each exposure is compared with the model that the other groups (documented: all groups) give, and its flags
   are kept.
6. Where no other exposure looked, the sharpness of the stars found in step 5 decides.
7. The `_crf` files are written, with the documented rules for DQ, NaN, headers and names.

Memory holds one exposure, one group's mosaic and one tile at a time, whatever the number of exposures.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import __version__, associations, crf, crf_copy, params, resample
from badpix.associations import Association
from badpix.crf import CalFile
from badpix.errors import DataError, UsageError
from badpix.image import audit as image_audit
from badpix.image import products as image_products
from badpix.image import sky as image_sky
from badpix.image.decide import (
    Sharpness,
    find_documented,
    find_hits,
    find_sharp,
    find_unresampled,
    measure_sharpness,
    sharpness_limit,
)
from badpix.image.model import (
    FLAT,
    STEEP_APPLY,
    apply_sharpening,
    blot_bands,
    build_reference,
    combine_noise,
    fit_sharpening,
    measure_expected_noise,
    measure_noise_factors,
    measure_pair_sigma,
    replace_bad_error,
)
from badpix.image.stack import Shelf, mosaic_name, open_shelf, write_planes
from badpix.image.wcs import Geometry, make_output_grid, measure_region, read_geometry
from badpix.output import check_directory, check_target
from badpix.resample import Bounds, Grid, PixelMap, Window, measure_derivative
from badpix.stats import grow

EXP_TYPES = ("NRC_IMAGE", "MIR_IMAGE", "NRS_IMAGE", "NIS_IMAGE", "FGS_IMAGE")
SAME = ("TELESCOP", "INSTRUME", "EXP_TYPE", "FILTER", "PUPIL")  # keywords that the members share
DEFAULT_MEMORY = 700 << 20
SHIFT_LIMIT = 0.1  # pixel; a larger common shift of the sharpening kernel means a wrong WCS

# Memory of a run, measured (bench_image.py): imports, then bytes a pixel of an exposure and of a group's window.
BASE_MEMORY = 80 << 20
LIBRARY_MEMORY = 130 << 20  # of the GWCS library, where it had to be taken
DRIZZLE_BYTES = (0, 20)
PLAIN_BYTES = (18, 8)  # the documented rule alone
SEARCH_BYTES = (44, 8)


@dataclass(frozen=True)
class Image:
    """One exposure of one detector, and where it lies."""

    cal: CalFile
    exptype: str
    number: int
    group: int
    bounds: Bounds | None
    pixel_map: PixelMap | None = None  # None: not resampled
    window: Window | None = None  # None: misses the grid
    subtract: float = 0.0  # sky, taken off before the drizzle
    compare: float = 0.0  # background that the documented rule adds to the model


@dataclass(frozen=True)
class Plan:
    """What all tasks of a run share; small, and picklable."""

    shelf: Shelf
    grid: Grid
    windows: list[Window]  # of the groups
    p: dict[str, Any]
    pair_sigma: float = 0.0
    sources: NDArray = field(default_factory=lambda: np.empty((0, 2)))
    products: image_products.Target | None = None


@dataclass
class Found:
    """What the search found in one exposure; the flags themselves are on the shelf."""

    number: int
    counts: dict[str, int]
    noise_factors: list[float] = field(default_factory=list)
    limited: list[int] = field(default_factory=list)
    residual_sky: float = 0.0
    shift: tuple[float, float] | None = None
    sharpened: bool = False
    sharpness: Sharpness | None = None
    losses: list[image_audit.Loss] = field(default_factory=list)
    sources: int = 0
    cutouts: list[image_products.Cutout] = field(default_factory=list)


@dataclass(frozen=True)
class Talker:
    """Where the driver's messages go; silent by default."""

    say: Callable[[str], None] = lambda message: None
    note: Callable[[str], None] = lambda message: None


def flag_images(
    association: Association,
    output_dir: str | Path,
    p: dict[str, Any],
    *,
    overwrite: bool = False,
    max_memory: int = DEFAULT_MEMORY,
    executor: Executor | None = None,
    talker: Talker = Talker(),
) -> tuple[list[Path], dict[str, Any]]:
    """Flag all members of an association; the paths written and the summary.

    Parameters
    ----------
    association : Association
    output_dir : path
        Made if it is missing.
    p : dict
        Checked values of the section ``image``.
    overwrite : bool
    max_memory : int
        Bytes that a process may use.
    executor : Executor, optional
        Where the tasks run; results are the same bytes for any.
    talker : Talker
        Takes the messages.

    Raises
    ------
    DataError
        At members that don't belong together, overlap nowhere, or need more memory or disk than there is.
    UsageError
        If an output exists.
    """
    output_dir = check_directory(output_dir)
    _check_values(p)
    cals = read_members(association)
    targets = [check_target(crf_copy.crf_path(output_dir, cal, association), overwrite) for cal in cals]
    groups = name_groups(association, cals)
    talker.say(f"{len(cals)} exposures in {len(set(groups))} groups")
    if len(set(groups)) < 2:
        return _copy_all(association, cals, targets, overwrite, talker, p)
    with open_shelf(output_dir) as shelf:
        if p["resample_data"]:
            found, facts = _search_resampled(
                association, cals, groups, shelf, output_dir, p, max_memory, executor, talker
            )
        else:
            found, facts = _search_direct(association, cals, shelf, output_dir, p, max_memory, talker)
        tasks = [
            WriteTask(cal, target, association, member.exptype, shelf, item.number, overwrite, history(p))
            for cal, target, member, item in zip(cals, targets, association.members, found, strict=True)
        ]
        counts = list(run_tasks(executor, write_exposure, tasks))
    return targets, _summarise(association, cals, groups, found, counts, facts, p, talker)


def run_tasks(executor: Executor | None, function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterable[Any]:
    """Results in the order of the tasks, here or on the executor."""
    return map(function, tasks) if executor is None else executor.map(function, tasks)


def _check_values(p: dict[str, Any]) -> None:
    resample.parse_good_bits(p["good_bits"])
    resample.parse_fillval(p["fillval"])
    if p["pixmap_order"] == 2:
        raise UsageError("image.pixmap_order: found 2, expected 1 or 3")
    if p["sharpen_size"] % 2 == 0:
        raise UsageError(f"image.sharpen_size: found {p['sharpen_size']}, expected an odd number")


def history(p: dict[str, Any]) -> list[str]:
    """HISTORY of a `_crf` file."""
    sec = params.section("image")
    values = [f"{q.name}={params.as_text(p[q.name])}" for q in sec.params]
    return [f"outlier image, badpix {__version__}", *values]


# --- members ----------------------------------------------------------------------------------------------


def read_members(association: Association) -> list[CalFile]:
    """Headers of all members, checked to belong together.

    Raises
    ------
    DataError
        At other exposure types, mixed instruments or filters, missing arrays.
    """
    cals = [crf.read_layout(path) for path in association.paths]
    first = cals[0]
    for cal in cals:
        kind = cal.keyword("EXP_TYPE")
        if kind not in EXP_TYPES:
            hint = "; use 'outlier ifu'" if kind in ("NRS_IFU", "MIR_MRS") else ""
            raise DataError(f"{cal.path}: EXP_TYPE: found {kind}, expected one of {', '.join(EXP_TYPES)}{hint}")
        for keyword in SAME:
            mine, theirs = (str(c.primary.get(keyword, "")).strip().upper() for c in (cal, first))
            if mine != theirs:
                raise DataError(f"{cal.path}: {keyword}: found {mine!r}, expected {theirs!r} as in {first.path.name}")
        for name in ("SCI", "ERR", "DQ"):
            if crf.image_hdu(cal, name).shape != cal.shape:
                raise DataError(
                    f"{cal.path}: {name}: found shape {crf.image_hdu(cal, name).shape}, expected {cal.shape}"
                )
    return cals


def name_groups(association: Association, cals: Sequence[CalFile]) -> list[str]:
    """The group id of each member.

    Raises
    ------
    DataError
        If an ASDF extension is not readable.
    """
    names = []
    for i, (cal, member) in enumerate(zip(cals, association.members, strict=True)):
        try:
            told = member.group_id or crf.read_meta(cal, "meta.group_id")
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{cal.path}: the ASDF extension is not readable: {error}") from None
        names.append(associations.group_id(cal.primary, i, told))
    return names


def _copy_all(
    association: Association,
    cals: Sequence[CalFile],
    targets: Sequence[Path],
    overwrite: bool,
    talker: Talker,
    p: dict[str, Any],
) -> tuple[list[Path], dict[str, Any]]:
    """One group: nothing to compare with; the exposures are copied and marked as skipped."""
    talker.note("only one group of exposures: nothing to compare it with; copies are written with S_OUTLIR = SKIPPED")
    for cal, target, member in zip(cals, targets, association.members, strict=True):
        crf_copy.write_crf(
            cal, target, flagged=None, association=association, status="SKIPPED", history=history(p),
            overwrite=overwrite, exptype=member.exptype,
        )  # fmt: skip
    return list(targets), {"search": "skipped", "exposures": [{"input": str(cal.path)} for cal in cals]}


# --- the resampled search ---------------------------------------------------------------------------------


def _search_resampled(
    association: Association,
    cals: Sequence[CalFile],
    group_names: Sequence[str],
    shelf: Shelf,
    output_dir: Path,
    p: dict[str, Any],
    max_memory: int,
    executor: Executor | None,
    talker: Talker,
) -> tuple[list[Found], dict[str, Any]]:
    """Steps 1 to 6; the flags of each exposure are on the shelf afterwards."""
    images, grid = place_images(association, cals, group_names, p, talker)
    windows = find_windows(images)
    rows = check_room(images, windows, grid, output_dir, max_memory, plain=_is_plain(p))
    images, sky = set_skies(images, grid, p, executor, talker)
    products = image_products.Target(output_dir, association.asn_id) if p["save_intermediate_results"] else None
    plan = Plan(shelf, grid, windows, p, products=products)
    by_group = [[i for i in images if i.group == g] for g in range(len(windows))]
    limits = list(run_tasks(executor, drizzle_group, [(plan, members) for members in by_group]))
    write_planes(shelf, windows, grid.shape, rows=rows, others=p["reference"] == "others")
    if products is not None:
        image_products.write_median(products, shelf, grid, cals[0])
    sources = image_audit.find_sources(shelf, grid.shape, audit_snr=p["audit_snr"]) if p["audit"] else plan.sources
    pair_sigma = measure_pair_sigma(shelf, windows) if p["reference"] == "others" else 0.0
    plan = Plan(shelf, grid, windows, p, pair_sigma, sources, products)
    found = list(run_tasks(executor, search_exposure, [(plan, image) for image in images]))
    limit = _decide_single_coverage(images, found, shelf, p)
    facts = {
        "grid": {"shape": list(grid.shape), "scale_arcsec": grid.cdelt * 3600, "crval": list(grid.crval)},
        "map_error_pixels": max((i.pixel_map.error for i in images if i.pixel_map), default=0.0),
        "weight_limits": limits,
        "sky": sky,
        "sources": len(sources),
        "source_positions": np.stack(resample.grid_to_sky(grid, *sources.T), axis=1).round(7).tolist(),
        "sharpness_limit": limit,
    }
    return found, facts


def place_images(
    association: Association,
    cals: Sequence[CalFile],
    group_names: Sequence[str],
    p: dict[str, Any],
    talker: Talker,
) -> tuple[list[Image], Grid]:
    """The output grid, and each image with its pixel map and window on it."""
    order = list(dict.fromkeys(group_names))
    geometries = [read_geometry(cal) for cal in cals]
    grid = make_output_grid(cals[0], geometries[0], _read_regions(cals, geometries, talker))
    images = []
    for number, (cal, geometry, member) in enumerate(zip(cals, geometries, association.members, strict=True)):
        try:
            pixel_map = resample.fit_pixel_map(
                geometry.sky, grid, cal.shape, geometry.bounds,
                stepsize=p["pixmap_stepsize"], order=p["pixmap_order"],
            )  # fmt: skip
        except DataError as error:
            raise DataError(f"{cal.path}: {error}") from None
        window = resample.find_window(pixel_map, grid)
        subtract, compare = read_background(cal, p["backg"], documented=p["test"] == "documented")
        group = order.index(group_names[number])
        images.append(
            Image(cal, member.exptype, number, group, geometry.bounds, pixel_map, window, subtract, compare)
        )
    missing = [i.cal.path.name for i in images if i.window is None]
    if missing:
        raise DataError(
            f"{missing[0]}: its WCS puts no pixel on the output grid that S_REGION of the members outlines"
        )
    return images, grid


def _read_regions(cals: Sequence[CalFile], geometries: Sequence[Geometry], talker: Talker) -> list[NDArray]:
    regions, untold = [], []
    for cal, geometry in zip(cals, geometries, strict=True):
        region, told = measure_region(cal, geometry)
        regions.append(region)
        if not told:
            untold.append(cal.path.name)
    if untold:
        talker.note(f"{len(untold)} exposures have no S_REGION ({untold[0]}, ...); taken from their WCS")
    if any(g.kind == "FITS" for g in geometries):
        talker.note("exposures without a GWCS: the FITS WCS of their SCI header is used (its distortion terms only)")
    return regions


def read_background(cal: CalFile, backg: float, *, documented: bool) -> tuple[float, float]:
    """The sky to take off before drizzling, and the background to add to the model when comparing.

    The documented rule adds BKGLEVEL only where BKGSUB is false, not where it is missing; ours adds what it took
    off.
    """
    level = cal.primary.get("BKGLEVEL", crf.image_hdu(cal, "SCI").header.get("BKGLEVEL"))
    done = cal.primary.get("BKGSUB", crf.image_hdu(cal, "SCI").header.get("BKGSUB"))
    if not isinstance(level, int | float) or isinstance(level, bool):
        return 0.0, backg if documented else 0.0
    subtract = 0.0 if done is True else float(level)
    if documented:
        return subtract, float(level) if done is False else backg
    return subtract, subtract


def find_windows(images: Sequence[Image]) -> list[Window]:
    """The part of the grid that each group touches; checks that groups overlap at all.

    Raises
    ------
    DataError
        If no two groups overlap.
    """
    groups = max(i.group for i in images) + 1
    windows = [resample.join_windows([i.window for i in images if i.group == g and i.window]) for g in range(groups)]
    for i, a in enumerate(windows):
        for b in windows[i + 1 :]:
            if a.y0 < b.y1 and b.y0 < a.y1 and a.x0 < b.x1 and b.x0 < a.x1:
                return windows
    raise DataError("no two groups overlap on the sky: nothing can be compared; check the members and their S_REGION")


def check_room(
    images: Sequence[Image],
    windows: Sequence[Window],
    grid: Grid,
    output_dir: Path,
    max_memory: int,
    *,
    plain: bool,
) -> int:
    """Rows of a tile of the sort; refuses before work what fits neither memory nor disk.

    Raises
    ------
    DataError
        With the sizes.
    """
    pixels = max(i.cal.shape[0] * i.cal.shape[1] for i in images)
    area = max(w.shape[0] * w.shape[1] for w in windows)
    base = BASE_MEMORY + (LIBRARY_MEMORY if "gwcs" in sys.modules else 0)
    stages = DRIZZLE_BYTES, PLAIN_BYTES if plain else SEARCH_BYTES
    need = base + max(a * pixels + b * area for a, b in stages)
    ny, nx = grid.shape
    if need > max_memory:
        raise DataError(
            f"output grid of {nx} x {ny} pixels, groups of up to {area / 1e6:.1f} million: "
            f"{_mb(need)} of memory needed, "
            f"--max-memory allows {_mb(max_memory)}"
        )
    disk = 4 * sum(w.shape[0] * w.shape[1] for w in windows) + 14 * ny * nx + pixels // 8 * len(images)
    disk += sum(i.cal.path.stat().st_size for i in images)
    free = shutil.disk_usage(output_dir).free
    if disk > free:
        raise DataError(
            f"{output_dir}: output grid of {nx} x {ny} pixels, {len(windows)} groups: {_mb(disk)} of disk needed for "
            f"mosaics and outputs, {_mb(free)} free"
        )
    band = 14 * nx + 4 * (len(windows) + 8) * min(nx, 1024)
    return int(np.clip((max_memory - base) // 2 // band, 8, 256))


def _mb(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MB"


# --- sky --------------------------------------------------------------------------------------------------


def set_skies(
    images: list[Image], grid: Grid, p: dict[str, Any], executor: Executor | None, talker: Talker
) -> tuple[list[Image], dict[str, Any]]:
    """The images with the sky that is taken off each: from keywords, or matched."""
    told = [_has_level(image.cal) for image in images]
    match = p["sky_match"] == "always" or (p["sky_match"] == "auto" and not all(told))
    if not match:
        return images, {"matched": False, "levels": [i.subtract for i in images]}
    tables = list(run_tasks(executor, measure_sky_cells, [(image, grid.shape[1], p) for image in images]))
    matched = image_sky.match_levels(tables)
    talker.say(f"sky levels matched: from {matched.levels.min():.4g} to {matched.levels.max():.4g}")
    if matched.sets > 1:
        talker.note(f"{matched.sets} sets of exposures don't overlap each other; skies are matched within each set")
    levels = [float(v) for v in matched.levels]
    placed = [
        Image(i.cal, i.exptype, i.number, i.group, i.bounds, i.pixel_map, i.window, level, level)
        for i, level in zip(images, levels, strict=True)
    ]
    return placed, {"matched": True, "levels": levels, "sets": matched.sets}


def _has_level(cal: CalFile) -> bool:
    headers = cal.primary, crf.image_hdu(cal, "SCI").header
    return any(isinstance(h.get("BKGLEVEL"), int | float) for h in headers) or any(
        h.get("BKGSUB") is True for h in headers
    )


def measure_sky_cells(task: tuple[Image, int, dict[str, Any]]) -> image_sky.Cells:
    """Task: the cell levels of one image."""
    image, columns, p = task
    sci = crf.read_rows(image.cal, "SCI").astype(np.float32, copy=False)
    bad = np.uint32(resample.parse_good_bits(p["good_bits"]))
    good = (crf.read_rows(image.cal, "DQ") & bad) == 0
    assert image.pixel_map is not None
    return image_sky.measure_cells(sci, good, image.pixel_map, columns)


# --- drizzle ----------------------------------------------------------------------------------------------


def drizzle_group(task: tuple[Plan, list[Image]]) -> float:
    """Task: drizzle one group, mask low weights, put the mosaic on the shelf; the weight limit."""
    plan, images = task
    p, window = plan.p, plan.windows[images[0].group]
    drizzle = resample.start_drizzle(window, kernel=p["kernel"], fillval=resample.parse_fillval(p["fillval"]))
    for image in images:
        assert image.pixel_map is not None
        for rows, inner in resample.split_rows(image.bounds, image.pixel_map):
            _drizzle_rows(drizzle, image, window, p, rows, inner)
    mosaic, weight = drizzle.out_img, drizzle.out_wht
    if plan.products is not None:
        image_products.write_mosaic(plan.products, images[0].cal, mosaic, weight, window, plan.grid)
    limit = resample.measure_weight_limit(weight, maskpt=p["maskpt"])
    with np.errstate(invalid="ignore"):
        mosaic[weight < np.float32(limit)] = np.nan
    plan.shelf.write(mosaic_name(images[0].group), mosaic)
    return limit


def _drizzle_rows(drizzle: Any, image: Image, window: Window, p: dict[str, Any], rows: slice, inner: slice) -> None:
    """Add a band of an exposure to its group's drizzle."""
    sci = crf.read_rows(image.cal, "SCI", rows.start, rows.stop).astype(np.float32, copy=False)
    if image.subtract:
        sci -= np.float32(image.subtract)
    assert image.pixel_map is not None
    positions = resample.evaluate_map(image.pixel_map, (window.x0, window.y0), rows)
    weight = read_weight(image.cal, p, rows)
    resample.add_image(drizzle, sci, weight, positions, image.bounds, pixfrac=p["pixfrac"], rows=inner)


def read_weight(cal: CalFile, p: dict[str, Any], rows: slice = slice(None)) -> NDArray:
    """Drizzle weights of rows of one image."""
    bad_bits = resample.parse_good_bits(p["good_bits"])
    use_variance = p["weight_type"] == "ivm" and cal.find("VAR_RNOISE") is not None
    seconds = cal.primary.get("TMEASURE", cal.primary.get("EFFEXPTM", 1.0))
    start, stop, _ = rows.indices(cal.shape[0])
    return resample.measure_weight(
        crf.read_rows(cal, "DQ", start, stop) if bad_bits else None,
        crf.read_rows(cal, "VAR_RNOISE", start, stop) if use_variance else None,
        shape=(stop - start, cal.shape[1]),
        weight_type=p["weight_type"],
        bad_bits=bad_bits,
        exposure_time=float(seconds),
    )


# --- search -----------------------------------------------------------------------------------------------


def search_exposure(task: tuple[Plan, Image]) -> Found:
    """Task: model, noise and test of one exposure; its flags go to the shelf."""
    plan, image = task
    p, window = plan.p, plan.windows[image.group]
    assert image.pixel_map is not None
    reference, cover = build_reference(
        plan.shelf, plan.windows, image.group, plan.grid.shape,
        others=p["reference"] == "others",
        agree_sigma=p["agree_sigma"],
        agree_gradient=p["agree_gradient"],
        pair_sigma=plan.pair_sigma,
    )  # fmt: skip
    plain = _is_plain(p)
    model, others = blot_bands(reference, None if plain else cover, window, image.pixel_map, interp=p["blot_interp"])
    del reference, cover
    if plan.products is not None:
        image_products.write_blot(plan.products, image.cal, model)
    if plain:
        sci, err = (crf.read_rows(image.cal, name).astype(np.float32, copy=False) for name in ("SCI", "ERR"))
        flagged = find_documented(sci, err, model, image.compare, snr=p["snr"], scale=p["scale"])
        found = Found(image.number, {"flagged": int(np.count_nonzero(flagged))})
    else:
        flagged, found = _search_closely(plan, image, model, others)
    plan.shelf.write(flags_name(image.number), np.packbits(flagged))
    return found


def _is_plain(p: dict[str, Any]) -> bool:
    """Whether nothing but the documented rule is asked for."""
    ours = p["sharpen"] or p["noise"] != "exposure" or p["audit"] or p["single_coverage"] != "none"
    return p["test"] == "documented" and not ours


def flags_name(number: int) -> str:
    """File of an exposure's flags on the shelf."""
    return f"flags{number:05d}"


def _search_closely(plan: Plan, image: Image, model: NDArray, others: NDArray) -> tuple[NDArray, Found]:
    """The better model, noise and test of one exposure."""
    p = plan.p
    found = Found(image.number, {})
    sci, err = (crf.read_rows(image.cal, name).astype(np.float32, copy=False) for name in ("SCI", "ERR"))
    good = np.isfinite(sci) & ((crf.read_rows(image.cal, "DQ") & crf.DO_NOT_USE) == 0)
    sci[~good] = np.nan
    var_rnoise, var_poisson = (_read_optional(image.cal, name) for name in ("VAR_RNOISE", "VAR_POISSON"))
    sigma = replace_bad_error(err, var_rnoise, var_poisson)
    raw_err = err if p["test"] == "documented" and p["noise"] == "exposure" else None
    residual = sci - np.float32(image.compare) - model
    model, residual = _sharpen(model, residual, sigma, others, p, found)
    expected = sigma
    if p["noise"] != "exposure":
        expected = measure_expected_noise(model, sigma, var_rnoise, var_poisson, good)
    del var_rnoise, var_poisson, err
    with np.errstate(invalid="ignore"):
        flat = measure_derivative(model) < FLAT * expected
    found.residual_sky = _level(residual, flat & (others > 0))
    residual -= np.float32(found.residual_sky)
    factors, found.limited = measure_noise_factors(residual, expected, flat, others)
    found.noise_factors = [round(float(f), 3) for f in factors[1:]]
    noise = combine_noise(p["noise"], sigma, expected, factors, others)
    del flat
    flagged = _test(p, image, sci, raw_err, sigma, model, residual, noise, expected, others, found)
    if p["audit"]:
        found.losses, found.sources = image_audit.measure_losses(
            plan.sources, image.pixel_map, model, residual, expected, others, flagged & good,  # type: ignore[arg-type]
            audit_loss=p["audit_loss"],
        )  # fmt: skip
    found.cutouts = image_products.cut_out(sci, model, residual, noise, flagged, plan.sources, image.pixel_map)
    if p["single_coverage"] == "sharpness":
        found.sharpness = measure_sharpness(sci, sigma, others, flagged, model)
    found.counts["flagged"] = int(np.count_nonzero(flagged))
    found.counts["single_coverage_pixels"] = int(np.count_nonzero((others == 0) & good))
    return flagged, found


def _read_optional(cal: CalFile, name: str) -> NDArray | None:
    hdu = cal.find(name)
    if hdu is None or hdu.shape != cal.shape:
        return None
    return crf.read_rows(cal, name).astype(np.float32, copy=False)


def _sharpen(
    model: NDArray, residual: NDArray, sigma: NDArray, others: NDArray, p: dict[str, Any], found: Found
) -> tuple[NDArray, NDArray]:
    """The sharpened model and what is left of the exposure, if there are enough steep pixels to learn from."""
    if not p["sharpen"]:
        return model, residual
    derivative = measure_derivative(model)
    derivative[others < 2] = 0
    fit = fit_sharpening(residual, model, sigma, derivative, size=p["sharpen_size"])
    if fit is None:
        return model, residual
    found.sharpened, found.shift = True, fit.shift
    with np.errstate(invalid="ignore"):
        steep = grow(derivative > STEEP_APPLY * sigma)
    sharper = apply_sharpening(model, fit, steep)
    residual += model
    residual -= sharper
    return sharper, residual


def _level(residual: NDArray, use: NDArray) -> float:
    values = residual[::4][use[::4]]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else 0.0


def _test(
    p: dict[str, Any],
    image: Image,
    sci: NDArray,
    raw_err: NDArray | None,
    sigma: NDArray,
    model: NDArray,
    residual: NDArray,
    noise: NDArray,
    expected: NDArray,
    others: NDArray,
    found: Found,
) -> NDArray:
    if p["test"] == "documented":
        error = noise if raw_err is None else raw_err
        return find_documented(sci, error, model, image.compare, snr=p["snr"], scale=p["scale"])
    hits = find_hits(
        residual, model, noise, expected, others,
        snr=_product(p["snr"], p["snr_factor"]),
        scale=_product(p["scale"], p["scale_factor"]),
        snr_dark=p["snr_dark"],
        conserve=p["conserve"],
        protect_sources=p["protect_sources"],
        stand_out=p["stand_out"],
        trail_snr=p["trail_snr"],
    )  # fmt: skip
    found.counts |= {
        "bright": int(np.count_nonzero(hits.bright)),
        "dark": int(np.count_nonzero(hits.dark)),
        "trail": int(np.count_nonzero(hits.trail)),
        "guarded": hits.guarded,
        "common": hits.common,
    }
    return hits.bright | hits.dark | hits.trail


def _product(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] * b[0], a[1] * b[1]


def _decide_single_coverage(
    images: Sequence[Image], found: Sequence[Found], shelf: Shelf, p: dict[str, Any]
) -> float | None:
    """Step 6: one limit from the stars of all exposures, then the candidates of each."""
    if p["single_coverage"] != "sharpness":
        return None
    stars = [f.sharpness.stars for f in found if f.sharpness is not None]
    limit = sharpness_limit(np.concatenate(stars)) if stars else None
    for image, item in zip(images, found, strict=True):
        item.counts["single_coverage"] = 0
        if limit is None or item.sharpness is None:
            continue
        sharp = find_sharp(item.sharpness, limit, image.cal.shape)
        number = int(np.count_nonzero(sharp))
        if number:
            flagged = read_flags(shelf, image.cal.shape, item.number) | sharp
            shelf.write(flags_name(item.number), np.packbits(flagged))
            item.counts["single_coverage"] = number
            item.counts["flagged"] += number
    return limit


def read_flags(shelf: Shelf, shape: tuple[int, int], number: int) -> NDArray:
    """An exposure's flags from the shelf, bool (ny, nx)."""
    pixels = shape[0] * shape[1]
    packed = shelf.read(flags_name(number), (1, -(-pixels // 8)), slice(None), np.uint8)
    return np.unpackbits(packed[0], count=pixels).view(bool).reshape(shape)


# --- without resampling -----------------------------------------------------------------------------------


def _search_direct(
    association: Association,
    cals: Sequence[CalFile],
    shelf: Shelf,
    output_dir: Path,
    p: dict[str, Any],
    max_memory: int,
    talker: Talker,
) -> tuple[list[Found], dict[str, Any]]:
    """Images of one pointing compared pixel by pixel (``resample_data`` false)."""
    shape = cals[0].shape
    for cal in cals:
        if cal.shape != shape:
            raise DataError(
                f"{cal.path}: found shape {cal.shape}, expected {shape}: without resampling all must be equal"
            )
    whole = Window(0, shape[0], 0, shape[1])
    windows = [whole] * len(cals)
    for number, cal in enumerate(cals):
        sci = crf.read_rows(cal, "SCI").astype(np.float32, copy=False)
        sci[resample.find_low_weight(read_weight(cal, p), maskpt=p["maskpt"])] = np.nan
        shelf.write(mosaic_name(number), sci)
    band = 14 * shape[1] + 4 * (len(cals) + 8) * min(shape[1], 1024)
    write_planes(
        shelf, windows, shape, rows=int(np.clip((max_memory - BASE_MEMORY) // 2 // band, 8, 256)), others=False
    )
    median, _ = build_reference(
        shelf, windows, 0, shape, others=False, agree_sigma=0.0, agree_gradient=0.0, pair_sigma=0.0
    )
    if p["save_intermediate_results"]:
        products = image_products.Target(output_dir, association.asn_id)
        image_products.write_direct_median(products, cals[0], median)
    found = []
    for number, cal in enumerate(cals):
        sci, err = (crf.read_rows(cal, name).astype(np.float32, copy=False) for name in ("SCI", "ERR"))
        flagged = find_unresampled(sci, err, median, snr=p["snr"][0])
        shelf.write(flags_name(number), np.packbits(flagged))
        found.append(Found(number, {"flagged": int(np.count_nonzero(flagged))}))
    talker.say("compared without resampling: one pass against the median of all exposures")
    return found, {"resampled": False}


# --- writing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WriteTask:
    """One `_crf` file to write."""

    cal: CalFile
    target: Path
    association: Association
    exptype: str
    shelf: Shelf
    number: int
    overwrite: bool
    history: list[str]


def write_exposure(task: WriteTask) -> dict[str, int]:
    """Task: write one flagged copy; the counts of :func:`badpix.crf_copy.write_crf`."""
    return crf_copy.write_crf(
        task.cal,
        task.target,
        flagged=read_flags(task.shelf, task.cal.shape, task.number),
        association=task.association,
        status="COMPLETE",
        history=task.history,
        overwrite=task.overwrite,
        exptype=task.exptype,
    )


def _summarise(
    association: Association,
    cals: Sequence[CalFile],
    groups: Sequence[str],
    found: Sequence[Found],
    counts: Sequence[dict[str, int]],
    facts: dict[str, Any],
    p: dict[str, Any],
    talker: Talker,
) -> dict[str, Any]:
    """The summary of a run, and the notes that a user should not miss."""
    hit_in: dict[int, int] = {}
    for item in found:
        for row in item.losses:
            hit_in[row.source] = hit_in.get(row.source, 0) + 1
    exposures, audit = [], []
    for cal, group, item, count in zip(cals, groups, found, counts, strict=True):
        pixels = cal.shape[0] * cal.shape[1]
        exposures.append(
            {
                "input": cal.path.name,
                "group": group,
                "pixels": pixels,
                "percent": round(100 * count["flagged"] / pixels, 4),
                **item.counts,
                **count,
                "noise_factors": item.noise_factors,
                "residual_sky": item.residual_sky,
                "sharpened": item.sharpened,
                "kernel_shift": item.shift,
                "sources": item.sources,
            }
        )
        for row, verdict in zip(item.losses, image_audit.judge(item.losses, hit_in), strict=True):
            ra, dec = facts["source_positions"][row.source]
            audit.append({"exposure": cal.path.name, "ra": ra, "dec": dec, **row._asdict(), "verdict": verdict})
    facts.pop("source_positions", None)
    _warn(found, cals, audit, exposures, p, talker)
    return {
        "search": p["test"] if p["resample_data"] else "documented, not resampled",
        "left_out": [str(m.path.name) for m in association.left_out],
        "exposures": exposures,
        "audit": audit,
        "cutouts": [(cal.path.name, c) for cal, item in zip(cals, found, strict=True) for c in item.cutouts],
        **facts,
    }


def _warn(
    found: Sequence[Found],
    cals: Sequence[CalFile],
    audit: Sequence[dict[str, Any]],
    exposures: Sequence[dict[str, Any]],
    p: dict[str, Any],
    talker: Talker,
) -> None:
    doubtful = [row for row in audit if row["verdict"] != "hit"]
    if doubtful:
        seen = sum(e["sources"] for e in exposures)
        talker.note(
            f"audit: {len(audit)} of {seen} source-exposures lost more than {p['audit_loss']:.0%} of their flux "
            f"to flags; "
            f"{len(doubtful)} of them look like the source itself (suspect or repeated)"
        )
    blunt = [cal.path.name for cal, item in zip(cals, found, strict=True) if p["sharpen"] and not item.sharpened]
    if blunt and p["resample_data"]:
        talker.note(
            f"{len(blunt)} exposures have too few steep pixels to learn a sharpening kernel from ({blunt[0]})"
        )
    for cal, item in zip(cals, found, strict=True):
        if item.shift is not None and max(map(abs, item.shift)) > SHIFT_LIMIT:
            x, y = item.shift
            talker.note(f"{cal.path.name}: lies ({x:+.2f}, {y:+.2f}) pixel beside the others; check its WCS")
        if item.limited:
            talker.note(
                f"{cal.path.name}: the noise does not fit ERR (factor at a limit, 0.7 or 2, for m = {item.limited})"
            )
    high = [e for e in exposures if e["percent"] > 5]
    if high:
        talker.note(f"{len(high)} exposures have more than 5 % of their pixels flagged (first: {high[0]['input']})")
