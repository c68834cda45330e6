"""Science exposures against injected truth, whole maps: what moves is light, what stays is a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from science_files import NOISE, SHAPE, write_program

from badpix.cli.main import badpix
from badpix.errors import DataError
from badpix.io.exposure import open_exposure
from badpix.mask.file import read_mask
from badpix.science import inputs
from badpix.science.search import search
from badpix.settings.science import ScienceSettings

EXPOSURES = 24
STACK = 1.08 * NOISE / np.sqrt(EXPOSURES)
BORN = 14  # first exposure with the newborn pixels


def place(count, seed=5):
    """Places away from each other, corners and edges among them."""
    rng = np.random.default_rng(seed)
    grid = rng.permutation(144)[: count - 4]
    y, x = 4 + grid // 12 * 8, 4 + grid % 12 * 8
    return np.concatenate([[0, 0, 95, 50], y]), np.concatenate([[0, 95, 95, 0], x])


Y, X = place(80)
KIND = np.array(["hot", "low", "newborn", "switching"] * 20)
HEIGHT = np.where(np.arange(80) % 8 < 4, 0.12, 1.0)  # DN/s


def detector(light, k):
    """Light as a detector with bad pixels shows it."""
    out = light.copy()
    out[Y, X] *= np.where(KIND == "low", 0.3, 1.0)
    state = np.random.default_rng((k, 77)).uniform(size=80) < 0.4
    lit = (KIND == "hot") | ((KIND == "newborn") & (k >= BORN)) | ((KIND == "switching") & state)
    out[Y, X] += np.where(lit, np.where(KIND == "switching", np.maximum(HEIGHT, 0.4), HEIGHT), 0)
    return out


def run(paths, p=None, **options):
    p = p or ScienceSettings()
    found = inputs.gather([open_exposure(f, None, inputs.NEEDED) for f in paths], p, pointing_step=p.pointing_step)
    inputs.check_variety(found, p)
    return search(found, p, **options)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return write_program(tmp_path_factory.mktemp("program"), detector)


@pytest.fixture(scope="module")
def found(program):
    return run(program)


@pytest.mark.slow
def test_each_type_is_found_and_nothing_else(found):
    truth = np.zeros(SHAPE, bool)
    truth[Y, X] = True
    flagged = np.any(list(found.maps.values()), axis=0)
    assert not (flagged & ~truth).any()
    assert (flagged & truth).sum() == 80
    for kind, name, least in (
        ("hot", "science_hot", 20),
        ("newborn", "science_hot", 20),
        ("low", "science_low", 20),
        ("switching", "science_switching", 20),
    ):
        assert found.maps[name][Y, X][kind == KIND].sum() >= least, kind


@pytest.mark.slow
def test_births_have_their_date(found):
    since = np.asarray(found.evidence.images["science_since"])[Y, X][KIND == "newborn"]
    dates = np.array([mjd for _, mjd, _ in found.evidence.science_exposures])
    assert (np.abs(since - dates[BORN]) < 0.1).mean() >= 0.8


def test_rules_hold_where_a_type_was_found(found):
    images = {name: np.asarray(image) for name, image in found.evidence.images.items()}
    compare = {"<": np.less, ">": np.greater, "<=": np.less_equal, ">=": np.greater_equal}
    for rule in found.evidence.rules:
        where = found.maps[rule.search]
        assert compare[rule.comparison](images[rule.quantity][where], rule.limit).all(), rule


@pytest.mark.slow
def test_bands_do_not_matter(program, found):
    other = run(program, memory=1.2e6)
    for name, flagged in found.maps.items():
        np.testing.assert_array_equal(other.maps[name], flagged)
    np.testing.assert_array_equal(
        np.asarray(other.evidence.images["science_sigma"]), np.asarray(found.evidence.images["science_sigma"])
    )


@pytest.mark.slow
def test_bands_do_not_matter_beside_pixels_without_value(tmp_path):
    lost = np.random.default_rng(8).uniform(size=SHAPE) < 0.05

    def holes(light, k):
        return np.where(lost, np.nan, light)

    paths = write_program(tmp_path, holes, visits=3, exposures=3, seed=6, stars=150)
    images = [np.asarray(run(paths, memory=m).evidence.images["science_sigma"]) for m in (1e9, 1.2e6, 3e5)]
    for other in images[1:]:
        np.testing.assert_array_equal(other, images[0])


def draw_line(center):
    """A line of a spectrum along the columns: 2.1 pixels wide, tilted by a third of a pixel in ten rows."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    return np.exp(-0.5 * ((x - center - y / 30) / 0.9) ** 2)


DISPERSED = ScienceSettings(residual_model="dispersed")


@pytest.mark.slow
def test_lines_that_meet_on_a_pixel_in_most_visits_are_light(tmp_path):
    lines = [draw_line(center) for center in (40.2, 40.0, 40.4, 71.0)]

    def spectrum(light, k):
        return light + 0.7 * lines[k // 4]

    found = run(write_program(tmp_path, spectrum, visits=4, exposures=4, seed=9, stars=0), DISPERSED)
    assert sum(int(m.sum()) for m in found.maps.values()) == 0


@pytest.mark.slow
def test_a_birth_in_the_last_visit_of_spectra_is_told_from_its_line(tmp_path):
    line, born = draw_line(40.0), (np.arange(5, 90, 9), 70)

    def spectrum(light, k):
        out = light + 0.7 * line * (k >= 12)
        out[born] += 0.3 * (k >= 12)
        return out

    found = run(write_program(tmp_path, spectrum, visits=4, exposures=5, seed=9, stars=0), DISPERSED)
    expected = np.zeros(SHAPE, bool)
    expected[born] = True
    np.testing.assert_array_equal(found.maps["science_hot"], expected)


@pytest.mark.slow
def test_faint_switching_pixels_are_bad_whatever_they_are_called(tmp_path):
    y, x = np.meshgrid(np.arange(4, 92, 9), np.arange(4, 92, 9), indexing="ij")
    places = (y.ravel(), x.ravel())

    def switch(light, k):
        out = light.copy()
        out[places] += 3 * NOISE * (np.random.default_rng((k, 3)).uniform(size=y.size) < 0.5)
        return out

    found = run(write_program(tmp_path, switch, visits=3, exposures=9, seed=10))
    flagged = np.any(list(found.maps.values()), axis=0)
    assert flagged[places].mean() >= 0.8
    sigma = np.asarray(found.evidence.images["science_sigma"])
    assert (sigma[found.maps["science_hot"]] > ScienceSettings().science_sigma).all()
    flagged[places] = False
    assert not flagged.any()


@pytest.mark.slow
def test_a_good_detector_has_no_bad_pixel(tmp_path):
    found = run(write_program(tmp_path, lambda light, k: light, seed=3, stars=150))
    assert sum(int(m.sum()) for m in found.maps.values()) == 0


@pytest.mark.slow
def test_a_large_structure_is_no_pixel(tmp_path):
    def ghost(light, k):
        out = light.copy()
        out[20:60, 40] += 0.5
        return out

    p = ScienceSettings(max_structure_pixels=20, residual_model="dispersed")
    found = run(write_program(tmp_path, ghost, seed=4, stars=0, visits=4, exposures=6), p)
    assert sum(int(m.sum()) for m in found.maps.values()) == 0
    assert any("structures" in note for note in found.notes)


def test_one_pointing_is_refused(tmp_path):
    paths = write_program(tmp_path, detector, dithered=False, exposures=3)
    with pytest.raises(DataError, match=r"one pointing: .* expected 4 or more .*1 visit, expected 3"):
        run(paths)


def test_pointings_are_told_apart():
    a, near = (10.0, 0.0, 5.0), (10.0 + 0.1 / 3600, 0.0, 5.0)
    others = [(359.9, 0.0, 5.0), (10.0, 0.0, 50.0), (10.0, 0.0, 6.5)]
    assert inputs.number_places([a, near, *others], step=0.3 / 3600) == [0, 0, 1, 2, 3]


def test_units_become_one():
    assert inputs.convert({"BUNIT": "MJy/sr", "PHOTMJSR": 2.0}) == (0.5, "DN/s")
    assert inputs.convert({"BUNIT": "MJy/sr"}) == (1.0, "MJy/sr")


@pytest.mark.slow
def test_command_writes_a_mask_that_merges(program, tmp_path):
    mask, joined = tmp_path / "science.fits", tmp_path / "joined.fits"
    names = [str(p) for p in program]
    result = CliRunner().invoke(badpix, ["science", *names, "-o", str(mask), "--author", "A", "-q"])
    assert result.exit_code == 0, result.output
    flags = read_mask(mask).image[Y, X]
    assert ((flags[KIND == "low"] & (1 << 13)) != 0).all()
    assert ((flags & 1) != 0).sum() >= 80
    result = CliRunner().invoke(badpix, ["merge", str(mask), "-o", str(joined), "--author", "A", "-q"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(badpix, ["explain", str(joined), "108", "104"])
    assert result.exit_code == 0, result.output
    hot = np.flatnonzero(KIND == "hot")[1]
    result = CliRunner().invoke(badpix, ["explain", str(joined), str(X[hot] + 100), str(Y[hot] + 100)])
    assert "science_hot" in result.output


def test_darks_are_refused(program, tmp_path):
    from astropy.io import fits

    bad = tmp_path / "jw1_nrcb1_rate.fits"
    bad.write_bytes(program[0].read_bytes())
    fits.setval(bad, "EXP_TYPE", value="NRC_DARK")
    with pytest.raises(DataError, match="expected a science exposure"):
        inputs.check_science(open_exposure(bad, None, inputs.NEEDED))
