"""Simulated exposures as files: the products of the pipeline's first stage, and the truth.

1. :func:`make_recipe` turns checked parameters into a recipe.
2. :func:`write_exposure` streams one exposure, band of rows by band of rows, into its uncal, rate, rateints, jump
   and fitopt files; one exposure is one task, and its bytes don't depend on the others.
3. :mod:`badpix.simulation.truth_file` writes what was put in: DQ image, table of defects, good pixels, true maps.
4. :func:`simulate` does all of it for a directory: ``flats/``, ``darks/``, ``<detector>_truth.fits``, and
   ``<detector>_simulate.yml`` with the parameters, from which the same files can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError, UsageError
from badpix.io.fits import open_fits
from badpix.io.output import atomic_path, check_target, write_text
from badpix.io.tasks import Progress, silent
from badpix.settings.simulate import CONDITIONS, SimulateSettings
from badpix.simulation.detector import Scene, make_scene, prepare_exposure
from badpix.simulation.format import StreamedFits, layout_of, primary_header
from badpix.simulation.illumination import check_light
from badpix.simulation.recipe import AVERAGED_READOUT, DEFAULT_READOUT, Recipe, shrink
from badpix.simulation.reduce import Reduced, measure_offsets, reduce_rows
from badpix.simulation.truth_file import write_truth

OVERHEAD = 60.0  # s between exposures that follow each other
BAND_BYTES = 8_000_000  # of one float32 ramp array of a band

# A legal SUBARRAY for frames that no real subarray has the size of.
SUBARRAY_OF_SCALED = {
    "NIRCAM": "SUB640",
    "NIRISS": "SUB256",
    "FGS": "SUB128DIAG",
    "NIRSPEC": "SUB2048",
    "MIRI": "SUB256",
}


def make_recipe(p: SimulateSettings) -> Recipe:
    """The recipe of checked parameters of the section ``simulate``.

    Raises
    ------
    UsageError
        If the window does not fit the detector, or the readout pattern is unknown.
    """
    detector = detectors.choose(p.detector, "--detector")
    window = detector.full
    if p.size and p.window:
        raise UsageError("size and window exclude each other: a small detector, or a window of the real one")
    if p.size:
        detector = shrink(detector, (p.size[1], p.size[0]))
        window = detector.full
    if p.window:
        window = detectors.Window(*p.start, *p.window)
        ny, nx = detector.shape
        if window.xstart + window.xsize - 1 > nx or window.ystart + window.ysize - 1 > ny:
            raise UsageError(f"window {tuple(window)} reaches beyond {detector.name} ({nx} x {ny})")
    readout = choose_readout(p, detector.instrument)
    if "IRS2" in readout:
        raise UsageError(f"readout {readout}: frames with interleaved reference pixels (IRS2) are not simulated")
    if readout not in detectors.READOUT:
        raise UsageError(f"readout {readout!r} is unknown; known are {', '.join(detectors.READOUT)}")
    if "unreset" in p.condition and detector.instrument != "MIRI":
        raise UsageError(f"condition unreset: {detector.name} needs no reset correction; it is for MIRI")
    if p.sets and (not p.condition or p.sets > p.darks):
        raise UsageError(f"sets: {p.sets} sets need a condition and as many darks, {p.darks} are asked for")
    recipe = Recipe(
        detector=detector,
        window=window,
        seed=p.seed,
        nints=p.integrations,
        flat_groups=p.flat_groups,
        dark_groups=p.dark_groups,
        readout=readout,
        defects_per_level=p.defects_per_level,
        flat_level=p.flat_level,
        cosmic_rays=p.cosmic_rays,
        snowballs=p.snowballs,
        defect_map=read_map(p.map),
        subarray=p.subarray or default_subarray(detector, window),
        illumination=p.illumination,
        filters=tuple(p.filters),
    )
    check_light(recipe)
    if not p.condition:
        return recipe
    conditions = tuple(name for name in CONDITIONS if name in p.condition)
    cadence = recipe.group_time * recipe.dark_groups * recipe.nints + OVERHEAD
    return replace(recipe, conditions=conditions, darks=p.darks, sets=p.sets, cadence=cadence)


def choose_readout(p: SimulateSettings, instrument: str) -> str:
    """The readout pattern that is asked for, or the usual one.

    Raises
    ------
    UsageError
        If the detector has no averaged frames and they are wanted.
    """
    if p.readout:
        return p.readout.upper()
    if "averaged" not in p.condition:
        return DEFAULT_READOUT[instrument]
    if instrument not in AVERAGED_READOUT:
        raise UsageError(f"condition averaged: {p.detector} does not average frames")
    return AVERAGED_READOUT[instrument]


def default_subarray(detector: detectors.Detector, window: detectors.Window) -> str:
    """FULL for a real full frame; else a legal name, which says nothing about the size."""
    real = detectors.get(detector.name)
    return "FULL" if window == real.full else SUBARRAY_OF_SCALED[detector.instrument]


def read_map(path: str | Path | None) -> tuple[bytes, tuple[int, int]] | None:
    """Bad pixels (non-zero) of the first image of a FITS file, packed to bits; None for None.

    Raises
    ------
    DataError
        If the file can't be read or has no image.
    """
    if path is None:
        return None
    with open_fits(path) as hdus:
        images = [hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2]
    if not images:
        raise DataError(f"{path}: no 2-D image found")
    bad = np.nan_to_num(images[0]) != 0
    return np.packbits(bad).tobytes(), (bad.shape[0], bad.shape[1])


def simulate(
    directory: str | Path,
    p: SimulateSettings,
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> dict[str, list[Path]]:
    """Write flats, darks and truth of one detector.

    Parameters
    ----------
    directory : path
        Gets ``flats/``, ``darks/``, ``<detector>_truth.fits`` and ``<detector>_simulate.yml``.
    p : mapping
        Checked parameters of the section ``simulate``.
    executor : concurrent.futures.Executor, optional
        Runs one task per exposure.
    overwrite : bool
        Whether existing files may be replaced.
    progress : callable
        Told how many of the exposures are done.

    Returns
    -------
    dict
        Files written: ``flats``, ``darks``, ``truth``.
    """
    recipe, directory = make_recipe(p), Path(directory)
    number = p.flats * max(len(p.filters), 1)
    numbers = sorted(range(1, number + 1), key=lambda k: recipe.filter_of("flat", k))  # one scene after the other
    tasks = [("flat", k, directory / "flats", tuple(p.flat_products)) for k in numbers]
    tasks += [("dark", k + 1, directory / "darks", tuple(p.dark_products)) for k in range(p.darks)]
    out: dict[str, list[Path]] = {"flats": [], "darks": [], "truth": []}
    for _, _, folder, _ in tasks:
        folder.mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    truth = check_target(directory / f"{recipe.detector.name.lower()}_truth.fits", overwrite)
    for kind, number, folder, products in tasks:
        for product in products:
            check_target(folder / f"{exposure_root(recipe, kind, number)}_{product}.fits", overwrite)
    write_truth(truth, make_scene(recipe), overwrite)
    out["truth"].append(truth)
    write_parameters(directory / f"{recipe.detector.name.lower()}_simulate.yml", p)
    columns = list(zip(*tasks, strict=True)) or [(), (), (), ()]
    several = ([recipe] * len(tasks), *columns, [overwrite] * len(tasks))
    runs = executor.map(write_exposure, *several) if executor else map(write_exposure, *several)
    for done, ((kind, *_), paths) in enumerate(zip(tasks, runs, strict=True), 1):
        out[f"{kind}s"] += paths
        progress(done, len(tasks))
    return out


def write_parameters(path: Path, p: SimulateSettings) -> None:
    """Write the parameters as YAML that ``badpix simulate -p`` reads; an older one is replaced."""
    import yaml

    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in p.items()}
    if not p.condition:
        del plain["condition"], plain["sets"]
    if p.map:
        plain["map"] = str(Path(p.map).resolve())
    write_text(path, yaml.safe_dump({"simulate": plain}, sort_keys=False), overwrite=True)


def read_parameters(path: str | Path) -> SimulateSettings:
    """The checked parameters in such a file."""
    import yaml

    return SimulateSettings.from_values(yaml.safe_load(Path(path).read_text())["simulate"], str(path))


def exposure_root(recipe: Recipe, kind: str, number: int) -> str:
    """Root of the file names of an exposure, as the archive would name it."""
    observation = "001" if kind == "flat" else "002"
    return f"jw09{recipe.seed % 1000:03d}{observation}001_02101_{number:05d}_{recipe.detector.name.lower()}"


def write_exposure(
    recipe: Recipe, kind: str, number: int, folder: Path, products: Sequence[str], overwrite: bool = False
) -> list[Path]:
    """Simulate one exposure and write its products.

    Parameters
    ----------
    recipe : Recipe
        What is simulated.
    kind : str
        "flat" or "dark".
    number : int
        Number of the exposure, from 1.
    folder : path
        Existing directory.
    products : sequence of str
        Some of uncal, rate, rateints, jump, fitopt.

    Returns
    -------
    list of Path
        The files, in the order of ``products``.
    """
    header_of, recipe = partial(primary_header, recipe, kind, number), recipe.of_exposure(kind, number)
    scene = make_scene(recipe, recipe.filter_of(kind, number))
    exposure = prepare_exposure(scene, kind, number)
    offsets = measure_offsets(scene, exposure)
    root = exposure_root(recipe, kind, number)
    paths = [Path(folder) / f"{root}_{product}.fits" for product in products]
    ngroups, (ny, nx) = recipe.groups(kind), recipe.shape
    height = max(8, min(ny, BAND_BYTES // (4 * recipe.nints * ngroups * nx)))
    with ExitStack() as stack:
        targets = {}
        for product, path in zip(products, paths, strict=True):
            temporary = stack.enter_context(atomic_path(path, overwrite))
            header = header_of(product)
            header["FILENAME"] = path.name
            targets[product] = stack.enter_context(StreamedFits(temporary, header, layout_of(product, recipe, kind)))
        for first in range(0, ny, height):
            last = min(first + height, ny)
            write_band(targets, scene, reduce_rows(scene, exposure, offsets, first, last), first)
    return paths


def write_band(targets: Mapping[str, StreamedFits], scene: Scene, band: Sequence[Reduced], first: int) -> None:
    """Write one band of rows of all integrations into every product."""
    last = first + band[0].raw.shape[1]
    border = np.where(scene.reference[first:last], np.uint32(dq.VALUE["REFERENCE_PIXEL"]), np.uint32(0))
    for product, target in targets.items():
        if product == "rate":
            for name, values in combine_integrations(band, border).items():
                target.put(name, (), first, values)
            continue
        for i, one in enumerate(band):
            for name, values in planes_of(product, one, border).items():
                for at in np.ndindex(values.shape[:-2]):
                    target.put(name, (i, *at), first, values[at])
        if product == "jump":
            target.put("PIXELDQ", (), first, border)


def planes_of(product: str, one: Reduced, border: NDArray[np.uint32]) -> dict[str, NDArray[Any]]:
    """Extension name -> values (..., rows, nx) of one integration."""
    if product == "uncal":
        return {"SCI": one.raw}
    if product == "jump":
        return {"SCI": one.ramp, "GROUPDQ": one.groupdq}
    if product == "fitopt":
        return {**one.fit.segments, "PEDESTAL": one.fit.pedestal}
    fit = one.fit
    return {
        "SCI": fit.rate,
        "ERR": np.sqrt(fit.var_poisson + fit.var_rnoise),
        "DQ": fit.dq | border,
        "VAR_POISSON": fit.var_poisson,
        "VAR_RNOISE": fit.var_rnoise,
    }


def combine_integrations(band: Sequence[Reduced], border: NDArray[np.uint32]) -> dict[str, NDArray[Any]]:
    """The rate product: integrations averaged with their inverse read-noise variances, as the pipeline does."""
    if len(band) == 1:
        return planes_of("rate", band[0], border)
    rate = np.stack([one.fit.rate for one in band])
    good = np.isfinite(rate)
    with np.errstate(invalid="ignore", divide="ignore"):  # no integration usable: NaN; no Poisson variance: 0
        inverse_r = np.where(good, 1 / np.stack([one.fit.var_rnoise for one in band]), 0)
        inverse_p = np.where(good, 1 / np.stack([one.fit.var_poisson for one in band]), 0)
        mean = (inverse_r * np.where(good, rate, 0)).sum(axis=0) / inverse_r.sum(axis=0)
        some = good.any(axis=0)
        var_r, var_p = (np.where(some, 1 / inverse.sum(axis=0), 0) for inverse in (inverse_r, inverse_p))
    flags = np.bitwise_or.reduce([one.fit.dq & ~np.uint32(1) for one in band])
    flags |= np.bitwise_and.reduce([one.fit.dq for one in band]) | border
    return {
        "SCI": mean.astype(np.float32),
        "ERR": np.sqrt(var_p + var_r),
        "DQ": flags,
        "VAR_POISSON": var_p,
        "VAR_RNOISE": var_r,
    }
