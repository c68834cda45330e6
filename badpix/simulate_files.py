"""Simulated exposures as files: the products of the pipeline's first stage, and the truth.

1. :func:`make_recipe` turns checked parameters into a recipe.
2. :func:`write_exposure` streams one exposure, band of rows by band of rows, into its uncal, rate, rateints, jump
   and fitopt files; one exposure is one task, and its bytes don't depend on the others.
3. :func:`write_truth` writes what was put in: DQ image, table of defects, map of good pixels, true maps.
4. :func:`simulate` does all of it for a directory: ``flats/``, ``darks/``, ``<detector>_truth.fits``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import __version__, detectors, dq
from badpix.errors import DataError, UsageError
from badpix.output import atomic_path, check_target, write_hdus
from badpix.simulate import (
    DEFAULT_READOUT,
    READOUT,
    Recipe,
    Scene,
    make_scene,
    prepare_exposure,
    shrink,
)
from badpix.simulate_defects import DEFECT, UNIT_OF, measure_truth
from badpix.simulate_reduce import SEGMENT_PRODUCTS, SEGMENTS, Reduced, measure_offsets, reduce_rows

BAND_BYTES = 8_000_000  # of one float32 ramp array of a band

EXP_TYPES = {
    "NIRCAM": ("NRC_LED", "NRC_DARK"),
    "NIRISS": ("NIS_LAMP", "NIS_DARK"),
    "FGS": ("FGS_INTFLAT", "FGS_DARK"),
    "NIRSPEC": ("NRS_LAMP", "NRS_DARK"),
    "MIRIMAGE": ("MIR_FLATIMAGE", "MIR_DARKIMG"),
    "MIRI": ("MIR_FLATMRS", "MIR_DARKMRS"),
}
# A legal SUBARRAY for frames that no real subarray has the size of.
SUBARRAY_OF_SCALED = {
    "NIRCAM": "SUB640", "NIRISS": "SUB256", "FGS": "SUB128DIAG", "NIRSPEC": "SUB2048", "MIRI": "SUB256",
}  # fmt: skip
OPTICS = {
    "NIRCAM": {"FILTER": "F200W", "PUPIL": "CLEAR"},
    "NIRISS": {"FILTER": "CLEAR", "PUPIL": "F200W"},
    "FGS": {},
    "NIRSPEC": {"FILTER": "OPAQUE", "GRATING": "MIRROR", "LAMP": "NO_LAMP"},
    "MIRI": {"FILTER": "F560W"},
}  # fmt: skip


def make_recipe(p: Mapping[str, Any]) -> Recipe:
    """The recipe of checked parameters of the section ``simulate``.

    Raises
    ------
    UsageError
        If the window does not fit the detector, or the readout pattern is unknown.
    """
    detector = detectors.get(p["detector"])
    window = detector.full
    if p["size"] and p["window"]:
        raise UsageError("size and window exclude each other: a small detector, or a window of the real one")
    if p["size"]:
        detector = shrink(detector, (p["size"][1], p["size"][0]))
        window = detector.full
    if p["window"]:
        window = detectors.Window(*p["start"], *p["window"])
        ny, nx = detector.shape
        if window.xstart + window.xsize - 1 > nx or window.ystart + window.ysize - 1 > ny:
            raise UsageError(f"window {tuple(window)} reaches beyond {detector.name} ({nx} x {ny})")
    readout = (p["readout"] or DEFAULT_READOUT[detector.instrument]).upper()
    if "IRS2" in readout:
        raise UsageError(f"readout {readout}: frames with interleaved reference pixels (IRS2) are not simulated")
    if readout not in READOUT:
        raise UsageError(f"readout {readout!r} is unknown; known are {', '.join(READOUT)}")
    return Recipe(
        detector=detector, window=window, seed=p["seed"], nints=p["integrations"], flat_groups=p["flat_groups"],
        dark_groups=p["dark_groups"], readout=readout, defects_per_level=p["defects_per_level"],
        flat_level=p["flat_level"], cosmic_rays=p["cosmic_rays"], defect_map=read_map(p["map"]),
        subarray=p["subarray"] or default_subarray(detector, window),
    )  # fmt: skip


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
    try:
        with fits.open(path) as hdus:
            images = [hdu.data for hdu in hdus if hdu.is_image and hdu.data is not None and hdu.data.ndim == 2]
    except OSError as error:
        raise DataError(f"{path}: not readable as FITS: {error}") from None
    if not images:
        raise DataError(f"{path}: no 2-D image found")
    bad = np.nan_to_num(images[0]) != 0
    return np.packbits(bad).tobytes(), (bad.shape[0], bad.shape[1])


def simulate(
    directory: str | Path,
    p: Mapping[str, Any],
    executor: Executor | None = None,
    overwrite: bool = False,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Path]]:
    """Write flats, darks and truth of one detector.

    Parameters
    ----------
    directory : path
        Gets ``flats/``, ``darks/`` and ``<detector>_truth.fits``.
    p : mapping
        Checked parameters of the section ``simulate``.
    executor : concurrent.futures.Executor, optional
        Runs one task per exposure.
    overwrite : bool
        Whether existing files may be replaced.
    tick : callable
        Told how many of the exposures are done.

    Returns
    -------
    dict
        Files written: ``flats``, ``darks``, ``truth``.
    """
    recipe, directory = make_recipe(p), Path(directory)
    tasks = [("flat", k + 1, directory / "flats", tuple(p["flat_products"])) for k in range(p["flats"])]
    tasks += [("dark", k + 1, directory / "darks", tuple(p["dark_products"])) for k in range(p["darks"])]
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
    columns = list(zip(*tasks, strict=True)) or [(), (), (), ()]
    several = ([recipe] * len(tasks), *columns, [overwrite] * len(tasks))
    runs = executor.map(write_exposure, *several) if executor else map(write_exposure, *several)
    for done, ((kind, *_), paths) in enumerate(zip(tasks, runs, strict=True), 1):
        out[f"{kind}s"] += paths
        tick(done, len(tasks))
    return out


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
    scene = make_scene(recipe)
    exposure = prepare_exposure(scene, kind, number)
    offsets = measure_offsets(scene, exposure)
    root = exposure_root(recipe, kind, number)
    paths = [Path(folder) / f"{root}_{product}.fits" for product in products]
    ngroups, (ny, nx) = recipe.groups(kind), recipe.shape
    height = max(8, min(ny, BAND_BYTES // (4 * ngroups * nx)))
    with ExitStack() as stack:
        targets = {}
        for product, path in zip(products, paths, strict=True):
            temporary = stack.enter_context(atomic_path(path, overwrite))
            header = primary_header(recipe, kind, number, product)
            header["FILENAME"] = path.name
            targets[product] = stack.enter_context(StreamedFits(temporary, header, layout_of(product, recipe, kind)))
        for first in range(0, ny, height):
            last = min(first + height, ny)
            write_band(targets, scene, [
                reduce_rows(scene, exposure, offsets, i, first, last) for i in range(recipe.nints)
            ], first)  # fmt: skip
    return paths


def write_band(targets: Mapping[str, StreamedFits], scene: Scene, band: Sequence[Reduced], first: int) -> None:
    """Write one band of rows of all integrations into every product."""
    last = first + band[0].rate.shape[0]
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
        return {**one.segments, "PEDESTAL": one.pedestal}
    error = np.sqrt(one.var_poisson + one.var_rnoise)
    return {
        "SCI": one.rate, "ERR": error, "DQ": one.dq | border,
        "VAR_POISSON": one.var_poisson, "VAR_RNOISE": one.var_rnoise,
    }  # fmt: skip


def combine_integrations(band: Sequence[Reduced], border: NDArray[np.uint32]) -> dict[str, NDArray[Any]]:
    """The rate product: integrations averaged with their inverse variances."""
    if len(band) == 1:
        return planes_of("rate", band[0], border)
    rate = np.stack([one.rate for one in band])
    good = np.isfinite(rate)
    var = np.stack([one.var_poisson + one.var_rnoise for one in band])
    weight = np.where(good, 1 / np.where(good, var, 1), 0)
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # no integration usable: NaN
        mean = (weight * np.where(good, rate, 0)).sum(axis=0) / total
        parts = {}
        for name in ("var_poisson", "var_rnoise"):
            one_by_one = np.stack([getattr(one, name) for one in band])
            parts[name] = np.where(total > 0, (weight**2 * one_by_one).sum(axis=0) / total**2, 0)
    flags = np.bitwise_or.reduce([one.dq & ~np.uint32(1) for one in band])
    flags |= np.bitwise_and.reduce([one.dq for one in band]) | border
    return {
        "SCI": mean.astype(np.float32), "ERR": np.sqrt(parts["var_poisson"] + parts["var_rnoise"]), "DQ": flags,
        "VAR_POISSON": parts["var_poisson"], "VAR_RNOISE": parts["var_rnoise"],
    }  # fmt: skip


def layout_of(product: str, recipe: Recipe, kind: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Extension name -> (type in memory, shape) of a product."""
    frame, nints, ngroups = recipe.shape, recipe.nints, recipe.groups(kind)
    if product == "uncal":
        return {"SCI": ("u2", (nints, ngroups, *frame))}
    if product == "jump":
        ramp = (nints, ngroups, *frame)
        return {"SCI": ("f4", ramp), "PIXELDQ": ("u4", frame), "GROUPDQ": ("u1", ramp)}
    if product == "fitopt":
        segments = ("f4", (nints, SEGMENTS, *frame))
        before, after = dict.fromkeys(SEGMENT_PRODUCTS[:6], segments), dict.fromkeys(SEGMENT_PRODUCTS[6:], segments)
        return {**before, "PEDESTAL": ("f4", (nints, *frame)), **after}
    shape = frame if product == "rate" else (nints, *frame)
    names = ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE")
    return {name: ("u4" if name == "DQ" else "f4", shape) for name in names}


MODEL_OF = {
    "uncal": "Level1bModel", "rate": "ImageModel", "rateints": "CubeModel", "jump": "RampModel",
    "fitopt": "RampFitOutputModel",
}  # fmt: skip


def primary_header(recipe: Recipe, kind: str, number: int, product: str) -> fits.Header:
    """Primary keywords of a product, enough for the pipeline's models and steps."""
    detector, window, instrument = recipe.detector, recipe.window, recipe.detector.instrument
    family = detector.name if detector.name == "MIRIMAGE" else instrument
    averaged, skipped = recipe.frames
    ngroups = recipe.groups(kind)
    day = f"2026-{1 if kind == 'flat' else 2:02d}-{1 + (number - 1) % 28:02d}"
    cards = {
        "TELESCOP": "JWST", "DATAMODL": MODEL_OF[product], "FILENAME": "", "ORIGIN": "BADPIX",
        "DATE": f"{day}T01:00:00.000", "SDP_VER": f"badpix {__version__} simulation, seed {recipe.seed}",
        "INSTRUME": instrument, "DETECTOR": detector.name, "EXP_TYPE": EXP_TYPES[family][kind == "dark"],
        **optics(recipe), "PROGRAM": f"09{recipe.seed % 1000:03d}", "OBSERVTN": "001" if kind == "flat" else "002",
        "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1", "ACT_ID": "01", "EXPOSURE": str(number),
        "VISIT_ID": f"09{recipe.seed % 1000:03d}{'001' if kind == 'flat' else '002'}001",
        "DATE-OBS": day, "TIME-OBS": "00:00:00.000", "DATE-BEG": f"{day}T00:00:00.000",
        "READPATT": recipe.readout, "NINTS": recipe.nints, "NGROUPS": ngroups, "NFRAMES": averaged,
        "GROUPGAP": skipped, "FRMDIVSR": averaged, "DRPFRMS1": 0, "TFRAME": recipe.frame_time,
        "TGROUP": recipe.group_time, "EFFINTTM": round(recipe.group_time * ngroups, 5),
        "EFFEXPTM": round(recipe.group_time * ngroups * recipe.nints, 5), "NRSTSTRT": 1, "NRESETS": 1,
        "INTSTART": 1, "INTEND": recipe.nints, "ZEROFRAM": False, "GAINFACT": 1.0,
        "SUBARRAY": recipe.subarray, "SUBSTRT1": window.xstart, "SUBSTRT2": window.ystart,
        "SUBSIZE1": window.xsize, "SUBSIZE2": window.ysize, "FASTAXIS": detector.fastaxis,
        "SLOWAXIS": detector.slowaxis, "NOUTPUTS": 4,
    }  # fmt: skip
    cards.update(dict.fromkeys(steps_done(instrument, product), "COMPLETE"))
    header = fits.Header()
    for keyword, value in cards.items():
        header[keyword] = value
    return header


def optics(recipe: Recipe) -> dict[str, str]:
    """FILTER and its kin, as far as the instrument has them."""
    detector = recipe.detector
    if detector.name in ("MIRIFULONG", "MIRIFUSHORT"):
        return {"CHANNEL": "34" if detector.name.endswith("LONG") else "12", "BAND": "SHORT"}
    if detector.instrument == "NIRCAM":
        long_wave = detector.name.endswith("LONG")
        return {
            "FILTER": "F444W" if long_wave else "F200W", "PUPIL": "CLEAR", "MODULE": detector.name[3],
            "CHANNEL": "LONG" if long_wave else "SHORT",
        }  # fmt: skip
    return OPTICS[detector.instrument]


def steps_done(instrument: str, product: str) -> list[str]:
    """Keywords of the steps that a product has behind it."""
    if product == "uncal":
        return []
    special = ["S_FRSTFR", "S_LASTFR"] if instrument == "MIRI" else ["S_SUPERB"]
    steps = ["S_DQINIT", "S_SATURA", *special, "S_REFPIX", "S_LINEAR", "S_JUMP"]
    return steps if product == "jump" else [*steps, "S_RAMP"]


class StreamedFits:
    """A FITS file of known layout whose images are written by bands of rows.

    Parameters
    ----------
    path : path
        File to make.
    header : astropy.io.fits.Header
        Keywords of the primary HDU.
    layout : mapping
        Extension name -> (``f4``, ``u4``, ``u2`` or ``u1``, shape), in file order.
    """

    def __init__(self, path: Path, header: fits.Header, layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self.places: dict[str, tuple[int, str, tuple[int, ...]]] = {}
        with open(path, "wb") as stream:
            stream.write(fits.PrimaryHDU(header=header).header.tostring().encode())
            for name, (kind, shape) in layout.items():
                stream.write(_image_header(name, kind, shape).tostring().encode())
                self.places[name] = (stream.tell(), kind, shape)
                size = int(np.prod(shape)) * int(kind[1])
                stream.truncate(stream.tell() + -(-size // 2880) * 2880)
                stream.seek(0, os.SEEK_END)
        self.handle = os.open(path, os.O_WRONLY)

    def __enter__(self) -> StreamedFits:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)

    def put(self, name: str, plane: tuple[int, ...], first: int, rows: NDArray[Any]) -> None:
        """Write ``rows`` (n, nx) as rows ``first`` and following of one plane."""
        start, kind, shape = self.places[name]
        number = int(np.ravel_multi_index(plane, shape[:-2])) if plane else 0
        offset = start + (number * shape[-2] + first) * shape[-1] * int(kind[1])
        _write_at(self.handle, _file_bytes(rows, kind), offset)


def _image_header(name: str, kind: str, shape: tuple[int, ...]) -> fits.Header:
    """Header of an image extension; unsigned types get their BZERO."""
    header = fits.Header()
    header["XTENSION"] = "IMAGE"
    header["BITPIX"] = {"f4": -32, "u4": 32, "u2": 16, "u1": 8}[kind]
    header["NAXIS"] = len(shape)
    for k, size in enumerate(reversed(shape), 1):
        header[f"NAXIS{k}"] = size
    header["PCOUNT"], header["GCOUNT"] = 0, 1
    if kind in ("u4", "u2"):
        header["BSCALE"], header["BZERO"] = 1, 1 << (8 * int(kind[1]) - 1)
    header["EXTNAME"] = name
    if name in ("SCI", "ERR") and kind != "u1":
        header["BUNIT"] = "DN" if len(shape) == 4 else "DN/s"
    return header


def _file_bytes(rows: NDArray[Any], kind: str) -> memoryview:
    """Values in the order and coding of the file."""
    if kind in ("u4", "u2"):
        rows = rows ^ rows.dtype.type(1 << (8 * int(kind[1]) - 1))
    return np.ascontiguousarray(rows, dtype=f">{kind}").data.cast("B")


def _write_at(handle: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` at an offset."""
    while len(data):
        done = os.pwrite(handle, data, offset)
        data, offset = data[done:], offset + done


def write_truth(path: Path, scene: Scene, overwrite: bool = False) -> None:
    """Write what was put into a scene.

    Extensions: DQ (uint32, standard bits), DEFECTS (table, see :data:`badpix.simulate_defects.DEFECT`), GOOD (1: no
    defect, no ADJ_OPEN, no reference pixel), and the true maps READ_NOISE (DN, one group), DARK (e/s), RESPONSE.
    """
    recipe = scene.recipe
    truth = measure_truth(scene.defects, scene.reference)
    primary = fits.PrimaryHDU()
    for keyword, value in {
        "TELESCOP": "JWST", "INSTRUME": recipe.detector.instrument, "DETECTOR": recipe.detector.name,
        "SUBARRAY": recipe.subarray, "SUBSTRT1": recipe.window.xstart, "SUBSTRT2": recipe.window.ystart,
        "SUBSIZE1": recipe.window.xsize, "SUBSIZE2": recipe.window.ysize, "SEED": recipe.seed,
        "FILENAME": path.name, "CONTENT": "Truth of simulated exposures", "GAIN": recipe.physics.gain,
        "IPC": recipe.physics.ipc,
    }.items():  # fmt: skip
        primary.header[keyword] = value
    images = {"READ_NOISE": scene.read_noise, "DARK": scene.dark, "RESPONSE": scene.response}
    hdus = fits.HDUList([
        primary, fits.ImageHDU(truth, name="DQ"), _defect_table(scene.defects.rows),
        fits.ImageHDU((truth == 0).astype(np.uint8), name="GOOD"),
        *(fits.ImageHDU(image.astype(np.float32), name=name) for name, image in images.items()),
    ])  # fmt: skip
    with atomic_path(path, overwrite) as temporary:
        write_hdus(temporary, hdus)


def read_truth(path: str | Path) -> tuple[fits.Header, NDArray[np.uint32], NDArray[Any]]:
    """Primary header, DQ image and table of defects of a truth file.

    Raises
    ------
    DataError
        If it is no truth file.
    """
    try:
        with fits.open(path) as hdus:
            names = {hdu.name for hdu in hdus}
            if not {"DQ", "DEFECTS"} <= names:
                raise DataError(f"{path}: extensions DQ and DEFECTS expected, as `badpix simulate` writes them")
            table = hdus["DEFECTS"].data
            rows = np.empty(len(table), DEFECT)
            for name in DEFECT.names or ():
                rows[name] = table[name.upper()]
            return hdus[0].header.copy(), hdus["DQ"].data.astype(np.uint32), rows
    except OSError as error:
        raise DataError(f"{path}: not readable as FITS: {error}") from None


def read_flags(path: str | Path) -> NDArray[np.uint32]:
    """The DQ image of a mask in standard bits, decoded through its DQ_DEF table if it has one.

    Raises
    ------
    DataError
        If there is no DQ image.
    """
    try:
        with fits.open(path) as hdus:
            names = [hdu.name for hdu in hdus]
            if "DQ" not in names or hdus["DQ"].data is None:
                raise DataError(f"{path}: extension DQ is missing; found {', '.join(names)}")
            found = hdus["DQ"].data.astype(np.uint32)
            if "DQ_DEF" not in names:
                return found
            out = np.zeros_like(found)
            for row in hdus["DQ_DEF"].data:
                standard = dq.VALUE.get(str(row["NAME"]).strip(), 0)
                out |= np.where(found & np.uint32(row["VALUE"]), np.uint32(standard), np.uint32(0))
            return out
    except OSError as error:
        raise DataError(f"{path}: not readable as FITS: {error}") from None


def _defect_table(rows: NDArray[Any]) -> fits.BinTableHDU:
    """The injected defects as a table."""
    columns = [
        fits.Column("TYPE", "12A", array=rows["type"]),
        fits.Column("X", "J", array=rows["x"]),
        fits.Column("Y", "J", array=rows["y"]),
        fits.Column("LEVEL", "E", array=rows["level"]),
        fits.Column("UNIT", "12A", array=[UNIT_OF[str(t)] for t in rows["type"]]),
        fits.Column("SETTING", "8A", array=rows["setting"]),
        fits.Column("EXTRA1", "E", array=rows["extra1"]),
        fits.Column("EXTRA2", "E", array=rows["extra2"]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="DEFECTS")
