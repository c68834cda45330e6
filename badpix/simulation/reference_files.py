"""Reference files of a simulated detector, for the real pipeline's first-stage steps.

What a calibration team would deliver for the detector before its defects appeared: gain, read noise (of a difference
of two frames, as the pipeline wants it), saturation, superbias, linearity (the simulation is linear), and a mask with
the reference pixels only. Every step takes its file as ``override_<type>``, so nothing is asked of a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.io.output import atomic_path, write_hdus
from badpix.simulation.detector import Scene
from badpix.simulation.reduce import measure_saturation

MODEL_OF = {
    "gain": "GainModel",
    "readnoise": "ReadnoiseModel",
    "saturation": "SaturationModel",
    "superbias": "SuperBiasModel",
    "linearity": "LinearityModel",
    "mask": "MaskModel",
}


def write_reference_files(directory: str | Path, scene: Scene, overwrite: bool = False) -> dict[str, Path]:
    """Write all reference files of a simulated detector.

    Parameters
    ----------
    directory : path
        Gets ``<detector>_<type>.fits``.
    scene : Scene
        The simulated detector.
    overwrite : bool
        Whether existing files may be replaced.

    Returns
    -------
    dict
        Reference type (gain, readnoise, saturation, superbias, linearity, mask) -> file.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    out = {}
    for reftype, images in measure_references(scene).items():
        out[reftype] = directory / f"{scene.recipe.detector.name.lower()}_{reftype}.fits"
        write_reference(out[reftype], reftype, images, scene, overwrite)
    return out


def measure_references(scene: Scene) -> dict[str, dict[str, NDArray[Any]]]:
    """Reference type -> extension name -> image."""
    shape, physics = scene.recipe.shape, scene.recipe.physics
    good = np.zeros(shape, np.uint32)
    border = np.where(scene.reference, np.uint32(dq.VALUE["REFERENCE_PIXEL"]), good)
    unchecked = np.where(scene.reference, np.uint32(dq.VALUE["NO_SAT_CHECK"]), good)
    uncorrected = np.where(scene.reference, np.uint32(dq.VALUE["NO_LIN_CORR"]), good)
    coefficients = np.zeros((3, *shape), np.float32)
    coefficients[1] = 1
    single_frame = scene.known_noise * np.float32(np.sqrt(scene.recipe.frames[0]))
    return {
        "gain": {"SCI": np.full(shape, physics.gain, np.float32)},
        "readnoise": {"SCI": single_frame * np.float32(np.sqrt(2))},
        "saturation": {"SCI": measure_saturation(scene), "DQ": unchecked},
        "superbias": {"SCI": scene.superbias, "ERR": np.ones(shape, np.float32), "DQ": good},
        "linearity": {"COEFFS": coefficients, "DQ": uncorrected},
        "mask": {"DQ": border},
    }


def write_reference(
    path: Path, reftype: str, images: Mapping[str, NDArray[Any]], scene: Scene, overwrite: bool = False
) -> None:
    """Write one reference file; a DQ_DEF table goes with every DQ image."""
    recipe = scene.recipe
    primary = fits.PrimaryHDU()
    for keyword, value in {
        "TELESCOP": "JWST",
        "REFTYPE": reftype.upper(),
        "DATAMODL": MODEL_OF[reftype],
        "INSTRUME": recipe.detector.instrument,
        "DETECTOR": recipe.detector.name,
        "SUBARRAY": "GENERIC" if recipe.window == detectors.get(recipe.detector.name).full else recipe.subarray,
        "SUBSTRT1": recipe.window.xstart,
        "SUBSTRT2": recipe.window.ystart,
        "SUBSIZE1": recipe.window.xsize,
        "SUBSIZE2": recipe.window.ysize,
        "FASTAXIS": recipe.detector.fastaxis,
        "SLOWAXIS": recipe.detector.slowaxis,
        "READPATT": recipe.readout,
        "PEDIGREE": "SIMULATION",
        "AUTHOR": "badpix",
        "DESCRIP": f"{reftype} of a simulated detector",
        "USEAFTER": "2020-01-01T00:00:00",
        "FILENAME": path.name,
    }.items():
        primary.header[keyword] = value
    if "SCI" in images:
        primary.header["BUNIT"] = "electrons/DN" if reftype == "gain" else "DN"
    hdus = fits.HDUList([primary, *(fits.ImageHDU(image, name=name) for name, image in images.items())])
    if "DQ" in images:
        hdus.append(_dq_def())
    with atomic_path(path, overwrite) as temporary:
        write_hdus(temporary, hdus)


def _dq_def() -> fits.BinTableHDU:
    """All standard bits, under their standard names."""
    columns = [
        fits.Column("BIT", "J", array=np.array([flag.bit for flag in dq.FLAGS], np.int32)),
        fits.Column("VALUE", "J", bzero=1 << 31, array=np.array([flag.value for flag in dq.FLAGS], np.uint32)),
        fits.Column("NAME", "40A", array=[flag.name for flag in dq.FLAGS]),
        fits.Column("DESCRIPTION", "80A", array=[flag.description for flag in dq.FLAGS]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="DQ_DEF")
