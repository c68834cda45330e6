"""Simulated IFU associations as files: real-format `_cal` files, the association, and the truth.

1. A `_cal` file has the pipeline's extensions and keywords, and its metadata with a GWCS in the ASDF extension, the
   arrays as references to the HDUs.
2. Truth is one file an exposure: AMPLITUDE (in units of the noise), LIGHT (of the sources) and KIND (bits of
   :data:`badpix.simulation.ifu_defects.KINDS`).
3. The association names the exposures of all detectors as members of one product.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from badpix.errors import UsageError
from badpix.io import asdf_text
from badpix.io.output import atomic_path, check_directory, write_hdus, write_text
from badpix.simulation.ifu import Exposure, simulate
from badpix.simulation.ifu_defects import KINDS
from badpix.simulation.ifu_optics import DETECTORS, Detector
from badpix.simulation.ifu_scene import Sky, dither
from badpix.simulation.ifu_wcs import ARCSEC_PER_PIXEL, make_wcs

FIRST_DAY = 61041.0  # MJD of the first exposure

# Where the arrays stand in the ASDF tree.
_IN_TREE = {
    "data": "SCI",
    "dq": "DQ",
    "err": "ERR",
    "var_flat": "VAR_FLAT",
    "var_poisson": "VAR_POISSON",
    "var_rnoise": "VAR_RNOISE",
}


def write_association(
    directory: str | Path,
    *,
    detectors: list[str],
    exposures: int,
    seed: int,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write a simulated association: `_cal` files, the JSON, and ``truth/`` with one file an exposure.

    Parameters
    ----------
    directory : path
        Where it goes; made if it is missing.
    detectors : list of str
        Keys of :data:`badpix.simulation.ifu_optics.DETECTORS`.
    exposures, seed
        As for :func:`badpix.simulation.ifu.simulate`, for each detector.
    overwrite : bool
        Whether existing files may be replaced.
    **options
        Passed on to :func:`badpix.simulation.ifu.simulate`.

    Returns
    -------
    Path
        The association.
    """
    directory = check_directory(directory)
    truth = check_directory(directory / "truth")
    members = []
    for name in detectors:
        det = DETECTORS.get(name.upper())
        if det is None:
            raise UsageError(f"detector {name!r} is unknown; known are {', '.join(DETECTORS)}")
        reach = (options.get("sky") or Sky()).dither
        for i, exposure in enumerate(simulate(det.name, exposures, seed, **options)):
            root = f"jw09999001001_02101_{i + 1:05d}_{det.name.lower()}"
            shift = dither(i, exposures, reach)
            with atomic_path(directory / f"{root}_cal.fits", overwrite) as path:
                slices = bool(options.get("slices", True))
                _write_cal(path, f"{root}_cal.fits", det, exposure, i, shift, slices)
            with atomic_path(truth / f"{root}_truth.fits", overwrite) as path:
                _write_truth(path, exposure, seed)
            members.append({"expname": f"{root}_cal.fits", "exptype": "science"})
    kind = DETECTORS[detectors[0].upper()].instrument.lower()
    table = {
        "asn_type": "spec3",
        "asn_rule": "DMS_Level3_Base",
        "program": "09999",
        "asn_id": "a3001",
        "asn_pool": "simulated",
        "products": [{"name": f"jw09999-a3001_t001_{kind}", "members": members}],
    }
    path = directory / f"jw09999-a3001_{kind}_spec3_asn.json"
    write_text(path, json.dumps(table, indent=2) + "\n", overwrite)
    return path


def _write_cal(
    path: Path, name: str, det: Detector, exposure: Exposure, i: int, shift: tuple[float, float], slices: bool
) -> None:
    primary = fits.PrimaryHDU()
    header = {
        "FILENAME": name,
        "DATAMODL": "IFUImageModel",
        "TELESCOP": "JWST",
        "INSTRUME": det.instrument,
        "DETECTOR": det.name,
        "EXP_TYPE": det.exp_type,
        "PROGRAM": "09999",
        "OBSERVTN": "001",
        "VISIT": "001",
        "VISITGRP": "02",
        "SEQ_ID": "1",
        "ACT_ID": "01",
        "EXPOSURE": str(i + 1),
        "XOFFSET": shift[0] * ARCSEC_PER_PIXEL,
        "YOFFSET": shift[1] * ARCSEC_PER_PIXEL,
        "SUBARRAY": "FULL",
        "SUBSTRT1": 1,
        "SUBSTRT2": 1,
        "SUBSIZE1": exposure.kind.shape[-1],
        "SUBSIZE2": exposure.kind.shape[-2],
        "DATE-OBS": "2026-01-01",
        "TIME-OBS": f"{i % 24:02d}:00:00.000",
        "EXPSTART": FIRST_DAY + i / 24,
        "S_RAMP": "COMPLETE",
        "S_WCS": "COMPLETE",
        "S_FLAT": "COMPLETE",
        "S_PHOTOM": "COMPLETE",
        **(det.band or {}),
    }
    primary.header.update(header)
    hdus = fits.HDUList([primary])
    for extension in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
        hdus.append(fits.ImageHDU(exposure.arrays[extension], name=extension))
    hdus["SCI"].header["BUNIT"] = "MJy/sr"
    content = np.frombuffer(_asdf_content(name, header, det, exposure.kind.shape, shift, slices), "u1")
    column = fits.Column("ASDF_METADATA", f"{content.size}B", array=content[None])
    hdus.append(fits.BinTableHDU.from_columns([column], name="ASDF"))
    hdus.writeto(path)


def _asdf_content(
    name: str,
    header: Mapping[str, Any],
    det: Detector,
    shape: tuple[int, ...],
    shift: tuple[float, float],
    slices: bool,
) -> bytes:
    """Metadata and GWCS as the pipeline stores them, with the arrays as references to the HDUs."""
    meta = {
        "filename": name,
        "model_type": "IFUImageModel",
        "telescope": "JWST",
        "instrument": {"name": det.instrument, "detector": det.name},
        "exposure": {"type": det.exp_type},
        "cal_step": {"assign_wcs": "COMPLETE", "flat_field": "COMPLETE", "photom": "COMPLETE"},
        "dither": {"x_offset": header["XOFFSET"], "y_offset": header["YOFFSET"]},
        "wcs": make_wcs(det, (shape[0], shape[1]), shift, slices=slices),
    }
    # MIRI's labels lie in the pipeline's files as they are, NIRSpec's, four times as large, in few of them
    content = asdf_text.write({"meta": meta}, "zlib" if det.transposed else None)
    head, tail = content.split(b"\nmeta:", 1)
    lines = ""
    for key, extension in _IN_TREE.items():
        kind = "uint32" if key == "dq" else "float32"
        lines += f"\n{key}: !core/ndarray-1.1.0\n  source: fits:{extension},1\n  datatype: {kind}\n"
        lines += f"  byteorder: big\n  shape: [{shape[0]}, {shape[1]}]"
    content = head + lines.encode() + b"\nmeta:" + tail
    return content.split(b"#ASDF BLOCK INDEX")[0]  # optional; its offsets no longer hold


def _write_truth(path: Path, exposure: Exposure, seed: int) -> None:
    primary = fits.PrimaryHDU()
    primary.header["SEED"] = (seed, "Seed of the simulation")
    for kind, bit in KINDS.items():
        primary.header.add_comment(f"KIND bit {bit}: {kind}")
    hdus = [
        primary,
        fits.ImageHDU(exposure.amplitude, name="AMPLITUDE"),
        fits.ImageHDU(exposure.kind, name="KIND"),
        fits.ImageHDU(exposure.light, name="LIGHT"),
    ]
    write_hdus(path, fits.HDUList(hdus))
