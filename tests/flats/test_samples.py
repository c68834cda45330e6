"""What a sample of a flat is: kind, level, amount of light; which files of a mixed folder count."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from make_files import make_flats, write_rate, write_rates

from badpix.errors import DataError
from badpix.flats import samples, search
from badpix.flats.build import check_flat, check_optics
from badpix.io import selection
from badpix.io.exposure import open_exposure
from badpix.mask.product import open_all
from badpix.settings.flats import FlatSettings


def open_flats(paths, tmp_path, skip_bad=False):
    return open_all(paths, tmp_path, ["SCI", "DQ"], check_flat, skip_bad)


@pytest.mark.parametrize(
    ("exp_type", "kind", "fits_it"),
    [
        ("NRC_FLAT", "flat", True),
        ("NRC_LED", "flat", True),
        ("NIS_LAMP", "flat", True),
        ("NRC_DARK", "flat", False),
        ("MIR_DARKMRS", "flat", False),
        ("MIR_FLATMRS", "dark", False),
        ("NRS_LAMP", "dark", False),
        ("", "flat", True),
        ("NRC_DARK", "dark", True),
        ("NRC_IMAGE", "flat", True),
        ("FGS_INTFLAT", "dark", False),
    ],
)
def test_kinds(tmp_path, exp_type, kind, fits_it):
    rate = open_exposure(write_rate(tmp_path / "a_rate.fits", make_flats(1)[0], EXP_TYPE=exp_type or None))
    if fits_it:
        selection.check_kind(rate, kind)
    else:
        with pytest.raises(DataError, match=f"a_rate.fits: EXP_TYPE = '{exp_type}': .* not a {kind}"):
            selection.check_kind(rate, kind)


def test_a_dark_among_flats_is_named(tmp_path):
    paths = write_rates(tmp_path, make_flats(4))
    write_rate(paths[1], np.zeros((80, 96)), number=2, EXP_TYPE="NRC_DARK")
    with pytest.raises(DataError, match=r"exposure02_rate\.fits: EXP_TYPE"):
        open_flats(paths, tmp_path)
    used, rejected = open_flats(paths, tmp_path, skip_bad=True)
    assert len(used) == 3
    assert [path.name for path, _ in rejected] == ["exposure02_rate.fits"]


@pytest.mark.parametrize("odd", [0, 2, 4])
def test_the_majority_decides(tmp_path, odd):
    paths = write_rates(tmp_path, make_flats(5))
    with fits.open(paths[odd], mode="update") as hdus:
        hdus[0].header["READPATT"] = "BRIGHT1"
    used, rejected = open_flats(paths, tmp_path, skip_bad=True)
    assert len(used) == 4
    assert [path for path, _ in rejected] == [paths[odd]]
    with pytest.raises(DataError, match="READPATT"):
        open_flats(paths, tmp_path)


@pytest.mark.parametrize("factor", [1e-4, 0.05, 30])
def test_a_level_that_does_not_fit(tmp_path, factor):
    """An unlit or saturated flat whose keywords tell nothing; left out where bad files are."""
    stack = make_flats(5)
    stack[3] *= factor
    stack[:, 20, 30] = 0.0 * stack[:, 20, 30] + 0.5 * np.arange(5) / 5
    rates = [open_exposure(p) for p in write_rates(tmp_path, stack)]
    with pytest.raises(DataError, match=r"exposure04_rate.fits: integration 1: .*is it a dark, or lit otherwise"):
        search.search(rates, FlatSettings())
    found = search.search(rates, FlatSettings(), skip_bad=True)
    assert any(note.startswith("left out: ") and "exposure04" in note for note in found.notes)
    assert found.maps["DEAD"][20, 30]
    assert found.evidence.images["flat_samples"].max() == 4


@pytest.mark.parametrize("parameter_set", ["default", "documented"])
def test_flats_without_light_are_refused(tmp_path, parameter_set):
    rates = [open_exposure(p) for p in write_rates(tmp_path, np.zeros((3, 80, 96), np.float32))]
    with pytest.raises(DataError, match="median rate 0 DN/s; not a flat"):
        search.search(rates, FlatSettings.in_set(parameter_set))


def test_saturated_pixels_with_slope_0_are_not_measured(tmp_path):
    stack = make_flats(4)
    stack[:, 20, 30] = 0
    stack[:, 40, 50] = 0
    paths = write_rates(tmp_path, stack)
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus["DQ"].data[20, 30] |= 2
    found = search.search([open_exposure(p) for p in paths], FlatSettings())
    assert not found.maps["DEAD"][20, 30]
    assert np.isnan(found.evidence.images["flat_mean"][20, 30])
    assert found.maps["DEAD"][40, 50]


def test_weights_follow_the_light(tmp_path):
    stack = make_flats(3)
    paths = [
        write_rate(tmp_path / f"{k}_rate.fits", image, NGROUPS=n, TGROUP=2.0)
        for k, (image, n) in enumerate(zip(stack, (10, 40, 10), strict=True))
    ]
    found = samples.measure_samples([open_exposure(p) for p in paths], np.ones((80, 96), bool), "median")
    np.testing.assert_allclose([s.weight for s in found], [0.25, 1, 0.25], rtol=0.01)
    equal = samples.measure_samples([open_exposure(p) for p in paths[::2]], np.ones((80, 96), bool), "median")
    assert [s.weight for s in equal] == [1, 1]


def test_weighted_mean_against_a_plain_loop():
    rng = np.random.default_rng(1)
    weights = np.array([1.0, 0.2, 0.5, 1.0, 0.3, 0.8, 1.0, 0.4, 0.9, 1.0, 0.7, 0.6])
    block = (100 + rng.normal(size=(12, 9, 11)) / np.sqrt(weights)[:, None, None]).astype(np.float32)
    block[0, 2, 3] = np.nan
    block[:, 5, 5] = np.nan
    block[4, 7, 7] = 1000
    mean, count = samples.weighted_mean(block, weights, 3.0)
    for y, x in np.ndindex(9, 11):
        good = np.isfinite(block[:, y, x]) & (np.abs(block[:, y, x] - 100) < 500)
        if count[y, x] == good.sum() and good.any():
            wanted = (block[good, y, x] * weights[good]).sum() / weights[good].sum()
            assert mean[y, x] == pytest.approx(wanted, rel=1e-5)
    assert count[7, 7] == 11
    assert count[2, 3] == 11
    assert count[5, 5] == 0
    assert np.isnan(mean[5, 5])
    assert (count >= 11).mean() > 0.9
    error = (mean - 100)[np.isfinite(mean)].std()
    assert error == pytest.approx(1 / np.sqrt(weights.sum()), rel=0.3)


@pytest.mark.parametrize("keyword", ["FILTER", "PUPIL", "GRATING", "LAMP", "BAND"])
def test_mixed_optics_are_refused(tmp_path, keyword):
    """A pixel that is poor in one filter of several would vanish in the mean."""
    paths = write_rates(tmp_path, make_flats(3), **{keyword: "A"})
    flats = [open_exposure(path) for path in paths]
    check_optics(flats)
    with fits.open(paths[2], mode="update") as hdus:
        hdus[0].header[keyword] = "B"
    flats[2] = open_exposure(paths[2])
    with pytest.raises(DataError, match=rf"exposure03_rate\.fits: {keyword} = 'B', but 'A' in exposure01_rate"):
        check_optics(flats)
    with fits.open(paths[2], mode="update") as hdus:
        del hdus[0].header[keyword]
    flats[2] = open_exposure(paths[2])
    check_optics(flats)
