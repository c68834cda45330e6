"""The truth of a simulation as a file: what was put in, and reading it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.io.dates import MJD_0
from badpix.io.fits import open_fits
from badpix.io.output import atomic_path, write_hdus
from badpix.simulation.defects import DEFECT, UNIT_OF, measure_truth
from badpix.simulation.detector import Scene, dark_scale
from badpix.simulation.histories import History
from badpix.simulation.illumination import find_light
from badpix.simulation.recipe import Recipe

CHANGE = np.dtype([("TYPE", "U12"), ("X", "i4"), ("Y", "i4"), ("RATE", "f4"), ("FIRST", "f8"), ("LAST", "f8")])
DARK = np.dtype([("NUMBER", "i4"), ("MJD", "f8"), ("DARKSET", "i4"), ("SCALE", "f4")])


def write_truth(path: Path, scene: Scene, overwrite: bool = False) -> None:
    """Write what was put into a scene.

    Extensions: DQ (uint32, standard bits), DEFECTS (table, see :data:`badpix.simulation.defects.DEFECT`), GOOD (1: no
    defect, no ADJ_OPEN, no reference pixel), LIGHT of the flats (1 lit, 2 dim, 3 unlit, 0 reference pixel), and the
    true maps READ_NOISE (DN, one group), DARK (e/s), RESPONSE (of the first filter).
    Under conditions also CHANGES and DARKS: see :func:`change_table`, :func:`dark_table`.
    """
    recipe = scene.recipe
    truth = measure_truth(scene.defects, scene.reference)
    primary = fits.PrimaryHDU()
    for keyword, value in {
        "TELESCOP": "JWST",
        "INSTRUME": recipe.detector.instrument,
        "DETECTOR": recipe.detector.name,
        "SUBARRAY": recipe.subarray,
        "SUBSTRT1": recipe.window.xstart,
        "SUBSTRT2": recipe.window.ystart,
        "SUBSIZE1": recipe.window.xsize,
        "SUBSIZE2": recipe.window.ysize,
        "SEED": recipe.seed,
        "FILENAME": path.name,
        "CONTENT": "Truth of simulated exposures",
        "GAIN": recipe.physics.gain,
        "IPC": recipe.physics.ipc,
        "ILLUMIN": recipe.illumination,
        "FILTERS": ",".join(recipe.filters) or "none",
    }.items():
        primary.header[keyword] = value
    images = {"READ_NOISE": scene.read_noise, "DARK": scene.dark, "RESPONSE": scene.response}
    hdus = fits.HDUList(
        [
            primary,
            fits.ImageHDU(truth, name="DQ"),
            defect_table(scene.defects.rows),
            fits.ImageHDU((truth == 0).astype(np.uint8), name="GOOD"),
            fits.ImageHDU(find_light(recipe, scene.reference), name="LIGHT"),
            *(fits.ImageHDU(image.astype(np.float32), name=name) for name, image in images.items()),
        ]
    )
    if scene.history is not None:
        hdus += [change_table(scene.recipe, scene.history), dark_table(scene)]
    with atomic_path(path, overwrite) as temporary:
        write_hdus(temporary, hdus)


def read_light(path: str | Path) -> NDArray[np.uint8] | None:
    """The image LIGHT of a truth file (lit, dim, unlit); None of an older one, or of a science program."""
    with open_fits(path) as hdus:
        return hdus["LIGHT"].data.astype(np.uint8) if "LIGHT" in hdus else None


def change_table(recipe: Recipe, history: History) -> fits.BinTableHDU:
    """Pixels that change: type, place, highest rate (e/s), first and last dark in which they are so (MJD)."""
    starts = np.array([date_of(recipe, k + 1) for k in range(recipe.darks)])
    rows = history.rows
    first, last = history.active.argmax(axis=1), recipe.darks - 1 - history.active[:, ::-1].argmax(axis=1)
    columns = [
        fits.Column("TYPE", "12A", array=rows["type"]),
        fits.Column("X", "J", array=rows["x"]),
        fits.Column("Y", "J", array=rows["y"]),
        fits.Column("RATE", "E", unit="electron/s", array=history.rate.max(axis=1, initial=0)),
        fits.Column("FIRST", "D", unit="d", array=starts[first]),
        fits.Column("LAST", "D", unit="d", array=starts[last]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="CHANGES")


def dark_table(scene: Scene) -> fits.BinTableHDU:
    """The darks: number, start (MJD), set from 0, dark current over the usual one."""
    recipe = scene.recipe
    numbers = range(1, recipe.darks + 1)
    columns = [
        fits.Column("NUMBER", "J", array=list(numbers)),
        fits.Column("MJD", "D", unit="d", array=[date_of(recipe, k) for k in numbers]),
        fits.Column("DARKSET", "J", array=[recipe.set_of(k) for k in numbers]),
        fits.Column("SCALE", "E", array=[dark_scale(recipe, k) for k in numbers]),
    ]
    return fits.BinTableHDU.from_columns(columns, name="DARKS")


def date_of(recipe: Recipe, number: int) -> float:
    """Start of a dark, MJD."""
    return (recipe.start_of("dark", number) - MJD_0).total_seconds() / 86400


def read_changes(path: str | Path) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """CHANGES and DARKS of a truth file as structured arrays; None where the simulation had no conditions."""
    with open_fits(path) as hdus:
        if not {"CHANGES", "DARKS"} <= {hdu.name for hdu in hdus}:
            return None
        return _read_rows(hdus["CHANGES"].data, CHANGE), _read_rows(hdus["DARKS"].data, DARK)


def _read_rows(table: Any, kind: np.dtype[Any]) -> NDArray[Any]:
    rows = np.empty(len(table), kind)
    for column in kind.names or ():
        rows[column] = table[column]
    return rows


def read_truth(path: str | Path) -> tuple[fits.Header, NDArray[np.uint32], NDArray[Any]]:
    """Primary header, DQ image and table of defects of a truth file.

    Raises
    ------
    DataError
        If it is no truth file.
    """
    with open_fits(path) as hdus:
        if not {"DQ", "DEFECTS"} <= {hdu.name for hdu in hdus}:
            raise DataError(f"{path}: extensions DQ and DEFECTS expected, as `badpix simulate` writes them")
        table = hdus["DEFECTS"].data
        rows = np.empty(len(table), DEFECT)
        for name in DEFECT.names or ():
            rows[name] = table[name.upper()]
        return hdus[0].header.copy(), hdus["DQ"].data.astype(np.uint32), rows


def defect_table(rows: NDArray[Any]) -> fits.BinTableHDU:
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
