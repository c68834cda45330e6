"""Outliers in dithered images: from `_cal` files to flagged `_crf` copies, one exposure at a time.

1. Members that fit; moving targets are aligned. Groups: all detectors of one exposure. One output grid for all of
   them; a pixel map for each image.
2. Sky: keywords, or levels matched between overlapping images (``sky_match``).
3. Mosaic: each group is drizzled onto its part of the grid; pixels of low weight become NaN; the mosaic goes to a
   private directory beside the outputs.
4. Stack: the mosaics are sorted once, in tiles.
5. Model of an exposure: the other groups but the shallow ones (documented: all groups), those at its own roll angle
   first, blotted to its pixels. Pixels that shine in all exposures, and are no stars, are flagged and no part of it.
6. Sharpening of the model by a kernel learned in the exposure.
7. Noise that the pixels would have without a hit.
8. Test of the differences; 9. flags on steep pixels must stand out; 10. guard of source cores, trails of satellites.
11. Single coverage: where no other exposure looked, the sharpness of the stars that several exposures see decides.
12. Cores of stars: the profile that all stars share decides.
13. Audit: the sources that lost flux to flags.
14. Transients and moving objects: listed, spared on request.
15. Writing: the `_crf` files, with the documented rules for DQ, NaN, headers and names.

Steps 5 to 10 are those of :mod:`badpix.image.search`; docs/outlier-image.md has the same numbers.
Memory holds one exposure, one group's mosaic and one tile at a time, whatever the number of exposures; and of each
the stamps of its bright sources (0.7 MB at the most).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from badpix.errors import DataError, UsageError
from badpix.image import audit as image_audit
from badpix.image import products as image_products
from badpix.image import resample_drizzle
from badpix.image.alignment import find_misplaced
from badpix.image.cost import collect_cost, measure_depth
from badpix.image.decide import find_unresampled
from badpix.image.grid import Window, grid_to_sky
from badpix.image.inputs import leave_out, list_remarks, name_groups, read_members
from badpix.image.joint import decide_cores, decide_single_coverage
from badpix.image.listing import list_transients
from badpix.image.members import (
    BASE_MEMORY,
    Image,
    check_room,
    find_angles,
    find_rolls,
    find_shallow,
    find_windows,
    place_images,
    set_skies,
    tile_rows,
)
from badpix.image.mosaic import drizzle_group, read_weight
from badpix.image.moving import is_moving
from badpix.image.output import copy_all, count_all, list_excesses, write_all
from badpix.image.persistence import find_persistent
from badpix.image.plan import Found, Plan
from badpix.image.protect import place_on_grid, read_places
from badpix.image.reference import build_reference, measure_pair_sigma
from badpix.image.search import angle_suffix, flags_name, is_plain, search_exposure
from badpix.image.stack import Shelf, mosaic_name, open_shelf, write_planes
from badpix.image.summary import summarize
from badpix.image.weights import find_low_weight, parse_good_bits
from badpix.io import cal as io_cal
from badpix.io import flagged_copy
from badpix.io.associations import Association
from badpix.io.cal import CalFile
from badpix.io.exposure import unpacking
from badpix.io.output import check_directory, check_target
from badpix.io.tasks import run_in_order
from badpix.settings.image import ImageSettings

log = logging.getLogger(__name__)

DEFAULT_MEMORY = 700 << 20


def flag_images(
    association: Association,
    p: ImageSettings,
    output_dir: str | Path | None,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    memory: int = DEFAULT_MEMORY,
    skip_bad: bool = False,
    cost: bool = False,
) -> tuple[list[Path], dict[str, Any]]:
    """Flag all members of an association; the paths written and the summary.

    Parameters
    ----------
    association : Association
    p : ImageSettings
    output_dir : path, optional
        Made if it is missing; None: nothing is written (a preview).
    overwrite : bool
    executor : Executor, optional
        Where the tasks run; results are the same bytes for any.
    memory : int
        Bytes that a process may use.
    skip_bad : bool
        Leave out members that can't be used, with a note, instead of stopping.
    cost : bool
        Whether the summary says what the flags cost (:mod:`badpix.image.cost`).

    Raises
    ------
    DataError
        At members that don't belong together, overlap nowhere, lie beside the others, or need more memory or disk
        than there is.
    CheckError
        If more than ``max_flagged`` percent of the usable pixels of an exposure became unusable; nothing is written.
    UsageError
        If an output exists.
    """
    _check_values(p)
    with unpacking() as workdir:
        association, cals = read_members(association, workdir, skip_bad=skip_bad)
        folder = check_directory(output_dir) if output_dir is not None else None
        try:
            return _flag(association, cals, folder, p, overwrite, memory, executor, cost)
        except MisplacedError as error:
            if not skip_bad:
                raise
            log.warning(f"left out: {error}")
            kept = [i for i, cal in enumerate(cals) if cal.path not in error.paths]
            association = leave_out(association, [association.members[i] for i in kept])
            return _flag(association, [cals[i] for i in kept], folder, p, overwrite, memory, executor, cost)


class MisplacedError(DataError):
    """Exposures whose WCS puts them beside the others; ``paths`` are theirs."""

    def __init__(self, message: str, paths: Sequence[Path]) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


def _flag(
    association: Association,
    cals: Sequence[CalFile],
    output_dir: Path | None,
    p: ImageSettings,
    overwrite: bool,
    max_memory: int,
    executor: Executor | None,
    cost: bool,
) -> tuple[list[Path], dict[str, Any]]:
    """The search of members that have been opened."""
    targets = [flagged_copy.crf_path(output_dir, cal, association) for cal in cals] if output_dir else []
    for target in targets:
        check_target(target, overwrite, association.paths)
    groups = name_groups(association, cals)
    for remark in list_remarks(cals, groups):
        log.warning(remark)
    log.info(f"{len(cals)} exposures in {len(set(groups))} groups")
    if len(set(groups)) < 2:
        return copy_all(association, cals, targets, overwrite, p)
    keep = p.save_intermediate_results and output_dir is not None
    if keep and output_dir is not None:
        image_products.check_targets(output_dir, cals, association, overwrite)
    with open_shelf(output_dir or Path(tempfile.gettempdir())) as shelf:
        products = image_products.open_target(shelf, association.asn_id) if keep else None
        if p.resample_data:
            found, facts = _search_resampled(
                association, cals, groups, shelf, products, p, max_memory, executor, cost
            )
        else:
            found, facts = _search_direct(cals, shelf, products, p, max_memory)
        if output_dir is None:
            counts = count_all(cals, found, shelf, executor)
            for text in list_excesses(cals, counts, p.max_flagged):
                log.warning(f"{text}: the run would stop with exit status 3")
        else:
            counts = write_all(association, cals, targets, found, shelf, products, output_dir, p, overwrite, executor)
    depth = facts.pop("depth", None)
    summary = summarize(association, cals, groups, found, counts, facts, p)
    return targets, summary | {"cost": collect_cost(summary, depth)} if cost else summary


def _check_values(p: ImageSettings) -> None:
    parse_good_bits(p.good_bits)
    resample_drizzle.parse_fillval(p.fillval)
    if p.pixmap_order == 2:
        raise UsageError("image.pixmap_order: found 2, expected 1 or 3")
    if p.protect and not p.resample_data:
        raise UsageError("image.protect: needs resample_data, found false")
    if p.sharpen_size % 2 == 0:
        raise UsageError(f"image.sharpen_size: found {p.sharpen_size}, expected an odd number")


# --- the two searches -------------------------------------------------------------------------------------


def _search_resampled(
    association: Association,
    cals: Sequence[CalFile],
    group_names: Sequence[str],
    shelf: Shelf,
    products: image_products.Target | None,
    p: ImageSettings,
    max_memory: int,
    executor: Executor | None,
    cost: bool,
) -> tuple[list[Found], dict[str, Any]]:
    """Steps 1 to 14; the flags of each exposure are on the shelf afterwards."""
    images, grid = place_images(association, cals, group_names, p)
    names = list(dict.fromkeys(group_names))
    windows = find_windows(images)
    rows = check_room(images, windows, grid, shelf.folder.parent, max_memory, plain=is_plain(p))
    images, sky = set_skies(images, grid, p, executor)
    shallow = find_shallow(images, p, executor)
    rolls = find_rolls(images)
    angles = find_angles(rolls, p)
    persistent = find_persistent(images, p, executor, scale=grid.cdelt * 3600)
    plan = Plan(shelf, grid, windows, p, shallow, products=products, persistent=persistent)
    by_group = [[i for i in images if i.group == g] for g in range(len(windows))]
    limits = list(run_in_order(executor, drizzle_group, [(plan, members) for members in by_group]))
    write_planes(shelf, windows, grid.shape, rows=rows, others=p.reference == "others", executor=executor)
    for angle in sorted(set(angles)) if any(angles) else ():
        kin = [g for g, a in enumerate(angles) if a == angle]
        suffix = angle_suffix(angle)
        write_planes(shelf, windows, grid.shape, rows=rows, others=True, groups=kin, suffix=suffix, executor=executor)
    if products is not None:
        image_products.write_median(products, shelf, grid, cals[0])
    asked = p.audit or p.core_snr or p.transient_snr
    sources = image_audit.find_sources(shelf, windows, grid.shape, audit_snr=p.audit_snr) if asked else plan.sources
    if p.audit and not is_moving(cals):  # there, stars lie beside each other
        _check_places(images, find_misplaced(shelf, windows, sources, snr=p.audit_snr, executor=executor))
    deep = [g for g in range(len(windows)) if g not in shallow]
    pair_sigma = measure_pair_sigma(shelf, windows, deep) if p.reference == "others" else 0.0
    turned = tuple(angles) if any(angles) else ()
    places = place_on_grid(read_places(p.protect), grid) if p.protect else plan.protected
    plan = replace(plan, protected=places, pair_sigma=pair_sigma, angles=turned, rolls=tuple(rolls), sources=sources)
    found = list(run_in_order(executor, search_exposure, [(plan, image) for image in images]))
    limit = decide_single_coverage(images, found, shelf, p, grid.cdelt * 3600)
    decide_cores(images, found, shelf, p, turned=bool(turned))
    transients = list_transients(images, found, grid, shelf, keep=p.keep_transients)
    facts = {
        "transients": transients,
        "grid": {"shape": list(grid.shape), "scale_arcsec": grid.cdelt * 3600, "crval": list(grid.crval)},
        "map_error_pixels": max((i.pixel_map.error for i in images if i.pixel_map), default=0.0),
        "weight_limits": limits,
        "sky": sky,
        "shallow_groups": [names[g] for g in sorted(shallow)],
        "sources": len(sources),
        "source_positions": np.stack(grid_to_sky(grid, *sources.T), axis=1).round(7).tolist(),
        "sharpness_limit": limit,
    }
    if cost:
        facts["depth"] = measure_depth(shelf, images, windows, grid.shape)
    return found, facts


def _check_places(images: Sequence[Image], misplaced: dict[int, tuple[float, float]]) -> None:
    """Refuse groups that lie beside the others.

    Raises
    ------
    MisplacedError
        With their exposures and offsets.
    """
    if not misplaced:
        return
    wrong = [image for image in images if image.group in misplaced]
    told = ", ".join(f"{i.cal.path.name} ({misplaced[i.group][0]:+.1f}, {misplaced[i.group][1]:+.1f})" for i in wrong)
    raise MisplacedError(
        f"{told}: sources lie this many pixels beside those of the other exposures: the WCS is wrong",
        [image.cal.path for image in wrong],
    )


def _search_direct(
    cals: Sequence[CalFile],
    shelf: Shelf,
    products: image_products.Target | None,
    p: ImageSettings,
    max_memory: int,
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
        sci = io_cal.read_rows(cal, "SCI").astype(np.float32, copy=False)
        sci[find_low_weight(read_weight(cal, p), maskpt=p.maskpt)] = np.nan
        shelf.write(mosaic_name(number), sci)
    rows = tile_rows(len(cals), max_memory - BASE_MEMORY)
    write_planes(shelf, windows, shape, rows=rows, others=False)
    median, _, _ = build_reference(
        shelf, windows, 0, shape, others=False, agree_sigma=0.0, agree_gradient=0.0, pair_sigma=0.0
    )
    if products is not None:
        image_products.write_direct_median(products, cals[0], median)
    found = []
    for number, cal in enumerate(cals):
        sci, err = (io_cal.read_rows(cal, name).astype(np.float32, copy=False) for name in ("SCI", "ERR"))
        flagged = find_unresampled(sci, err, median, snr=p.snr[0])
        shelf.write(flags_name(number), np.packbits(flagged))
        found.append(Found(number, {"flagged": int(np.count_nonzero(flagged))}))
    log.info("compared without resampling: one pass against the median of all exposures")
    return found, {"resampled": False}
