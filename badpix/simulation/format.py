"""The format of simulated exposures: headers, layouts, and FITS files that are written band by band.

Extensions, types and keywords are those of the archive's files, as far as the pipeline's data models and first-stage
steps, and our own commands, ask for them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import __version__
from badpix.numerics.ramp_fit import SEGMENT_PRODUCTS, SEGMENTS
from badpix.simulation.recipe import Recipe

EXP_TYPES = {
    "NIRCAM": ("NRC_LED", "NRC_DARK"),
    "NIRISS": ("NIS_LAMP", "NIS_DARK"),
    "FGS": ("FGS_INTFLAT", "FGS_DARK"),
    "NIRSPEC": ("NRS_LAMP", "NRS_DARK"),
    "MIRIMAGE": ("MIR_FLATIMAGE", "MIR_DARKIMG"),
    "MIRI": ("MIR_FLATMRS", "MIR_DARKMRS"),
}
OPTICS = {
    "NIRCAM": {"FILTER": "F200W", "PUPIL": "CLEAR"},
    "NIRISS": {"FILTER": "CLEAR", "PUPIL": "F200W"},
    "FGS": {},
    "NIRSPEC": {"FILTER": "OPAQUE", "GRATING": "MIRROR", "LAMP": "NO_LAMP"},
    "MIRI": {"FILTER": "F560W"},
}
LIGHTS = {  # where light is dispersed
    "lrs": {"FILTER": "P750L"},
    "ifu": {"GRATING": "G235M", "LAMP": "FLAT3"},
    "slits": {"GRATING": "G235M", "LAMP": "FLAT3"},
    "mos": {"GRATING": "G235M", "LAMP": "FLAT3"},
    "soss": {"PUPIL": "GR700XD"},
}


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
    "uncal": "Level1bModel",
    "rate": "ImageModel",
    "rateints": "CubeModel",
    "jump": "RampModel",
    "fitopt": "RampFitOutputModel",
}


def primary_header(recipe: Recipe, kind: str, number: int, product: str) -> fits.Header:
    """Primary keywords of a product, enough for the pipeline's models and steps."""
    start = recipe.start_of(kind, number)
    recipe = recipe.of_exposure(kind, number)
    detector, instrument = recipe.detector, recipe.detector.instrument
    family = detector.name if detector.name == "MIRIMAGE" else instrument
    averaged, skipped = recipe.frames
    ngroups = recipe.groups(kind)
    day, clock = f"{start:%Y-%m-%d}", f"{start:%H:%M:%S}.000"
    cards = {
        "TELESCOP": "JWST",
        "DATAMODL": MODEL_OF[product],
        "FILENAME": "",
        "ORIGIN": "BADPIX",
        "DATE": f"{day}T01:00:00.000",
        "SDP_VER": f"badpix {__version__} simulation, seed {recipe.seed}",
        "INSTRUME": instrument,
        "DETECTOR": detector.name,
        "EXP_TYPE": EXP_TYPES[family][kind == "dark"],
        **optics(recipe, recipe.filter_of(kind, number)),
        "PROGRAM": f"09{recipe.seed % 1000:03d}",
        "OBSERVTN": "001" if kind == "flat" else "002",
        "VISIT": "001",
        "VISITGRP": "02",
        "SEQ_ID": "1",
        "ACT_ID": "01",
        "EXPOSURE": str(number),
        "VISIT_ID": f"09{recipe.seed % 1000:03d}{'001' if kind == 'flat' else '002'}001",
        "DATE-OBS": day,
        "TIME-OBS": clock,
        "DATE-BEG": f"{day}T{clock}",
        "READPATT": recipe.readout,
        "NINTS": recipe.nints,
        "NGROUPS": ngroups,
        "NFRAMES": averaged,
        "GROUPGAP": skipped,
        "FRMDIVSR": averaged,
        "DRPFRMS1": 0,
        "TFRAME": recipe.frame_time,
        "TGROUP": recipe.group_time,
        "EFFINTTM": round(recipe.group_time * ngroups, 5),
        "EFFEXPTM": round(recipe.group_time * ngroups * recipe.nints, 5),
        "NRSTSTRT": 1,
        "NRESETS": 1,
        "INTSTART": 1,
        "INTEND": recipe.nints,
        "ZEROFRAM": False,
        "GAINFACT": 1.0,
        **frame(recipe),
    }
    cards.update(dict.fromkeys(steps_done(instrument, product), "COMPLETE"))
    if "unreset" in recipe.conditions and product != "uncal":
        cards.update({"S_RESET": "SKIPPED", "S_RSCD": "SKIPPED"})
    header = fits.Header()
    for keyword, value in cards.items():
        header[keyword] = value
    return header


def frame(recipe: Recipe) -> dict[str, str | int]:
    """Window, axes and outputs."""
    detector, window = recipe.detector, recipe.window
    return {
        "SUBARRAY": recipe.subarray,
        "SUBSTRT1": window.xstart,
        "SUBSTRT2": window.ystart,
        "SUBSIZE1": window.xsize,
        "SUBSIZE2": window.ysize,
        "FASTAXIS": detector.fastaxis,
        "SLOWAXIS": detector.slowaxis,
        "NOUTPUTS": 4,
    }


def optics(recipe: Recipe, number: int = 0) -> dict[str, str]:
    """FILTER and its kin, as far as the instrument has them; of a filter by its number."""
    found = usual_optics(recipe)
    found |= LIGHTS.get(recipe.illumination, {})
    if recipe.filters:
        found[changing_keyword(recipe)] = recipe.filters[number]
    return found


def changing_keyword(recipe: Recipe) -> str:
    """The keyword that `filters` are values of."""
    if recipe.detector.name in ("MIRIFULONG", "MIRIFUSHORT"):
        return "BAND"
    if recipe.illumination == "soss":
        return "FILTER"
    return {"NIRSPEC": "GRATING", "NIRISS": "PUPIL"}.get(recipe.detector.instrument, "FILTER")


def usual_optics(recipe: Recipe) -> dict[str, str]:
    """The same where nothing else is asked for."""
    detector = recipe.detector
    if detector.name in ("MIRIFULONG", "MIRIFUSHORT"):
        return {"CHANNEL": "34" if detector.name.endswith("LONG") else "12", "BAND": "SHORT"}
    if detector.instrument == "NIRCAM":
        long_wave = detector.name.endswith("LONG")
        return {
            "FILTER": "F444W" if long_wave else "F200W",
            "PUPIL": "CLEAR",
            "MODULE": detector.name[3],
            "CHANNEL": "LONG" if long_wave else "SHORT",
        }
    return dict(OPTICS[detector.instrument])


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
