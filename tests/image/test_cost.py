"""Depth of the stack of images: every grid pixel is asked, plainly, and none more is lost."""

import numpy as np
import pytest

from badpix.image import cost as image_cost
from badpix.image import driver as image_driver
from badpix.image.pixel_map import invert_map
from badpix.image.search import read_flags
from badpix.image.stack import mosaic_name
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import PRESETS, Setup


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["sw", "rolls"])
def test_depth_is_that_of_all_grid_pixels(preset, tmp_path, monkeypatch):
    table = simulate(tmp_path, Setup(**{**PRESETS[preset], "groups": 4, "seed": 3, "shape": (72, 64)}))
    seen = {}
    real = image_cost.measure_depth
    monkeypatch.setattr(image_cost, "_BAND", 17)

    def look(shelf, images, windows, shape):
        seen["plain"] = _plain(shelf, images, windows, shape)
        seen["found"] = real(shelf, images, windows, shape)
        return seen["found"]

    monkeypatch.setattr(image_driver, "measure_depth", look)
    image_driver.flag_images(read_inputs([table]), ImageSettings(max_flagged=100), None, cost=True)
    before, after = seen["plain"]
    assert seen["found"]["before"] == np.bincount(before.ravel()).tolist()
    assert seen["found"]["after"] == np.bincount(after.ravel(), minlength=before.max() + 1).tolist()
    assert seen["found"]["holes"] == np.count_nonzero((before > 0) & (after == 0))
    assert after.sum() < before.sum()


def _plain(shelf, images, windows, shape):
    """Depth before and after, each grid pixel mapped to each image."""
    before, after = np.zeros(shape, int), np.zeros(shape, int)
    y, x = np.indices(shape).reshape(2, -1)
    for group, window in enumerate(windows):
        usable = np.zeros(shape, bool)
        usable[window.slices] = np.isfinite(shelf.read(mosaic_name(group), window.shape, slice(None)))
        before += usable
        for image in images:
            if image.group == group:
                flagged = read_flags(shelf, image.cal.shape, image.number)
                px, py = invert_map(image.pixel_map, x.astype(float), y.astype(float))
                on = np.isfinite(px) & np.isfinite(py)
                i = np.clip(np.rint(py[on]).astype(int), 0, flagged.shape[0] - 1)
                j = np.clip(np.rint(px[on]).astype(int), 0, flagged.shape[1] - 1)
                usable[y[on], x[on]] &= ~flagged[i, j]
        after += usable
    return before, after
