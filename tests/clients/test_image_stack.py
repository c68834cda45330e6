"""What our flags leave of the stars in the stack that the pipeline's own steps make."""

import logging

import numpy as np
import pytest
from astropy.io import fits
from scipy.ndimage import maximum_filter

from badpix.image import driver as image_driver
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import PRESETS, Setup

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

STAR_SIGMA = 100.0  # of a pixel of the stack, peak
HALF = 2  # pixels to each side, over which flux is summed
AROUND = 10


def stack(table, monkeypatch):
    """The pipeline's stack of an association, skies matched first."""
    monkeypatch.setenv("CRDS_SERVER_URL", "")
    from jwst.datamodels import ModelLibrary
    from jwst.resample import ResampleStep
    from jwst.skymatch import SkyMatchStep

    monkeypatch.chdir(table.parent)
    sky = SkyMatchStep()
    sky.subtract = True
    logging.disable(logging.WARNING)
    try:
        mosaic = ResampleStep().run(sky.run(ModelLibrary(str(table), on_disk=False)))
    finally:
        logging.disable(logging.NOTSET)
    return mosaic.data.copy(), float(np.nanmedian(mosaic.err))


def remove_hits(folder, target):
    """The same exposures without what was added to the sky."""
    target.mkdir()
    for path in sorted(folder.glob("*_cal.fits")):
        with fits.open(path) as cal, fits.open(folder / "truth" / path.name.replace("_cal", "_truth")) as truth:
            added = sum(truth[name].data for name in ("CR", "TRAIL", "HOT", "HALO")) * truth["SIGMA"].data
            cal["SCI"].data = (cal["SCI"].data - added).astype(np.float32)
            cal.writeto(target / path.name)


def compare_stars(found, true, sigma):
    """Flux of the stars of a stack over that in another one, less 1."""
    bright = true - np.nanmedian(true) > STAR_SIGMA * sigma
    ys, xs = np.nonzero((true == maximum_filter(np.nan_to_num(true, nan=-9), 11)) & bright)
    off = []
    for y, x in zip(ys, xs, strict=True):
        inside = min(y, x, true.shape[0] - 1 - y, true.shape[1] - 1 - x) >= AROUND
        a, b = (image[y - AROUND : y + AROUND + 1, x - AROUND : x + AROUND + 1] for image in (true, found))
        if inside and np.isfinite(a).all():
            core = slice(AROUND - HALF, AROUND + HALF + 1)
            off.append(np.nansum((b - np.nanmedian(b))[core, core]) / (a - np.median(a))[core, core].sum() - 1)
    return np.array(off)


def flag_truly(folder, target, limit):
    """The same exposures with the true flags: all to which more than ``limit`` sigma were added."""
    target.mkdir()
    for path in sorted(folder.glob("*_cal.fits")):
        with fits.open(path) as cal, fits.open(folder / "truth" / path.name.replace("_cal", "_truth")) as truth:
            hit = sum(truth[name].data for name in ("CR", "TRAIL", "HOT", "HALO")) > limit
            cal["DQ"].data[hit] |= 17
            for name in ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
                cal[name].data[hit] = np.nan
            cal.writeto(target / path.name)


def test_stars_of_the_stack_keep_their_flux(tmp_path, monkeypatch):
    """The mixture of eight faults: as near the truth as a stack with the true flags, the most that one can have."""
    setup = Setup(**{**PRESETS["mixture"], "seed": 9101, "shape": (320, 320), "stars": 2500.0})
    table = simulate(tmp_path / "sim", setup)
    remove_hits(table.parent, tmp_path / "clean")
    flag_truly(table.parent, tmp_path / "best", 5)
    for name in ("clean", "best"):
        (tmp_path / name / table.name).write_text(table.read_text())
    p = ImageSettings.from_values({"max_flagged": 100.0}, "test", "default")
    image_driver.flag_images(read_inputs([table]), p, tmp_path / "out")
    flagged = tmp_path / "out" / table.name
    flagged.write_text(table.read_text().replace("_cal.fits", "_a3001_crf.fits"))
    true, sigma = stack(tmp_path / "clean" / table.name, monkeypatch)
    found, best = (stack(path, monkeypatch)[0] for path in (flagged, tmp_path / "best" / table.name))
    assert found.shape == true.shape
    assert np.count_nonzero(np.isnan(found) & np.isfinite(true)) < 1e-4 * found.size
    off, least = compare_stars(found, true, sigma), compare_stars(best, true, sigma)
    assert len(off) > 30
    assert (off < -0.01).mean() <= 0.05
    assert (np.abs(off) <= 0.01).mean() >= (np.abs(least) <= 0.01).mean() - 0.05
    assert (np.abs(off) <= 0.02).mean() >= 0.87
