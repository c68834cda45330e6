"""What a run of `outlier image` leaves on disk: all outputs or none, and no more space than was observed."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from astropy.io import fits
from notes import heard

from badpix.errors import CheckError, UsageError
from badpix.image import driver as image_driver
from badpix.image.grid import Window
from badpix.image.stack import touched_tiles
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four dithered groups of one small detector."""
    return simulate(tmp_path_factory.mktemp("four"), Setup(seed=51, shape=(96, 96), dither=6.0, trail=0.0))


def flag(table, output, **options):
    p = ImageSettings.from_values(options, "test", "default")
    inputs = read_inputs([table] if isinstance(table, Path) else table)
    return image_driver.flag_images(inputs, p, output)


def test_tiles_are_those_that_a_window_touches_cut_to_it():
    rng = np.random.default_rng(3)
    for _ in range(20):
        corners = rng.integers(0, 60, (4, 2))
        windows = [
            Window(y, y + int(rng.integers(1, 25)), x, x + int(rng.integers(1, 25))) for y, x in corners.tolist()
        ]
        seen, done = np.zeros((90, 90), bool), np.zeros((90, 90), int)
        for window in windows:
            seen[window.slices] = True
        tiles = list(touched_tiles(windows, 16, 8))
        for tile in tiles:
            done[tile.slices] += 1
            assert seen[tile.slices].any()
            assert tile.y0 // 16 == (tile.y1 - 1) // 16
            assert tile.x0 // 8 == (tile.x1 - 1) // 8
        assert done.max() == 1
        assert done[seen].all()


@pytest.mark.slow
def test_a_stray_pointing_costs_what_it_observed(tmp_path):
    setup = Setup(
        seed=9, groups=4, shape=(96, 96), trail=0.0, steps=((0.0, 0.0), (5.0, 3.0), (-4.0, 6.0), (20_000.0, 9_000.0))
    )
    table = simulate(tmp_path / "sim", setup)
    held = []
    real = image_driver.search_exposure

    def look(task):
        held.append(sum(f.stat().st_blocks * 512 for f in task[0].shelf.folder.iterdir()))
        return real(task)

    with mock.patch.object(image_driver, "search_exposure", look), heard() as notes:
        _, summary = flag(table, tmp_path / "out", max_flagged=100.0)
    assert max(summary["grid"]["shape"]) > 15_000
    assert max(held) < 8 << 20  # a block of the disk a row; the whole grid: gigabytes
    assert any("no exposure of another group overlaps" in note for note in notes)
    few = sorted((tmp_path / "sim").glob("*_cal.fits"))[:3]
    flag(few, tmp_path / "few", max_flagged=100.0)
    for path in few:
        name = path.name.replace("_cal", "_crf")
        other = next((tmp_path / "out").glob(path.name.replace("_cal.fits", "*_crf.fits")))
        agree = fits.getdata(tmp_path / "few" / name, "DQ") == fits.getdata(other, "DQ")
        assert agree.mean() > 0.9995  # the grids differ by a fraction of a pixel


@pytest.mark.slow
def test_nothing_is_published_if_an_exposure_would_be_ruined(four, tmp_path):
    with pytest.raises(CheckError):
        flag(four, tmp_path / "out", save_intermediate_results=True, max_flagged=0.0)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_products_that_exist_are_not_replaced_unasked(four, tmp_path):
    flag(four, tmp_path / "out", save_intermediate_results=True)
    for path in (tmp_path / "out").glob("*_crf.fits"):
        path.unlink()
    with pytest.raises(UsageError, match="exists"):
        flag(four, tmp_path / "out", save_intermediate_results=True)
