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


def test_stars_of_the_stack_keep_their_flux(tmp_path, monkeypatch):
    """The mixture of eight faults: what a hit leaves on a core may stay, what a flag takes may not."""
    setup = Setup(**{**PRESETS["mixture"], "seed": 9101, "shape": (320, 320), "stars": 2500.0})
    table = simulate(tmp_path / "sim", setup)
    remove_hits(table.parent, tmp_path / "clean")
    (tmp_path / "clean" / table.name).write_text(table.read_text())
    p = ImageSettings.from_values({"max_flagged": 100.0}, "test", "default")
    image_driver.flag_images(read_inputs([table]), p, tmp_path / "out")
    flagged = tmp_path / "out" / table.name
    flagged.write_text(table.read_text().replace("_cal.fits", "_a3001_crf.fits"))
    true, sigma = stack(tmp_path / "clean" / table.name, monkeypatch)
    found, _ = stack(flagged, monkeypatch)
    assert found.shape == true.shape
    assert np.count_nonzero(np.isnan(found) & np.isfinite(true)) < 1e-4 * found.size
    off = compare_stars(found, true, sigma)
    assert len(off) > 30
    assert (off < -0.01).mean() <= 0.03
    assert (np.abs(off) <= 0.01).mean() >= 0.7  # hits on cores below their phase error stay: 0.97 is not reached
