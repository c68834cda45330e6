"""Transients and moving objects: their shape, their links, and whole scenes; places that are protected by request."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from notes import heard
from scipy.ndimage import convolve

from badpix.cli.main import outlier
from badpix.errors import DataError, UsageError
from badpix.image import driver as image_driver
from badpix.image.listing import expect_place
from badpix.image.protect import read_places
from badpix.image.transients import find_transients, link_detections, spare_region
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_scene import make_psf
from badpix.simulation.image_setup import Setup

SETUP = Setup(seed=66, shape=(200, 200), stars=4000.0, dither=6.0, trail=0.0)
PLACES = ((60.3, 71.8), (140.6, 50.1), (120.2, 150.5))  # of the first exposure


def star(y, x, height, shape=(9, 9), fwhm=1.3):
    s = fwhm / 2.3548
    j, i = np.mgrid[: shape[0] * 10, : shape[1] * 10] / 10 - 0.45
    fine = np.exp(-((j - y) ** 2 + (i - x) ** 2) / (2 * s * s))
    return height * fine.reshape(shape[0], 10, shape[1], 10).mean(axis=(1, 3))


def find(residual, width=1.3):
    noise = np.ones(residual.shape, np.float32)
    nothing = np.empty(0, np.intp), np.empty(0, np.intp)
    model = np.zeros(residual.shape, np.float32)
    return find_transients(0, residual.astype(np.float32), noise, residual > 4, model, nothing, snr=20.0, width=width)


@pytest.mark.parametrize("seed", range(6))
def test_a_star_is_star_shaped_and_tracks_are_not(seed):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(3.5, 4.5, 2)
    found = find(star(y, x, 150) + rng.normal(0, 1, (9, 9)))
    assert len(found) == 1
    assert (found[0].y, found[0].x) == pytest.approx((y, x), abs=0.3)
    for pixels in (
        [(4, 4)],
        [(4, 3), (4, 4)],
        [(3, 3), (4, 4), (5, 5)],
        [(4, 3), (4, 4), (5, 5)],
        [(4, 4), (3, 4), (2, 4)],
    ):
        residual = rng.normal(0, 1, (9, 9))
        for j, i in pixels:
            residual[j, i] += 150 * rng.uniform(0.7, 1.3)
        assert not find(residual), pixels


def test_a_star_with_a_missing_pixel_in_its_core_is_star_shaped():
    residual = star(4.3, 4.1, 300) + np.random.default_rng(3).normal(0, 1, (9, 9))
    whole = find(residual)[0].flux
    residual[5, 4] = np.nan
    found = find(residual)
    assert len(found) == 1
    assert found[0].flux == pytest.approx(whole, rel=0.1)
    lone = np.random.default_rng(4).normal(0, 1, (9, 9))
    lone[4, 4:6] = 300, np.nan
    assert not find(lone)


@pytest.mark.parametrize("seed", range(4))
def test_charge_that_spread_over_neighbors_is_no_star(seed):
    """Diffusion leaves a hit on a corner in 2 x 2 pixels, capacitance a little beside it: stars reach further."""
    rng = np.random.default_rng(seed)
    for block in ((0.5, 0.5, 0.5, 0.5), (0.8, 0.5, 0.2, 0.2), (0.65, 0.32, 0.62, 0.3)):
        residual = np.zeros((9, 9))
        residual[4:6, 4:6] = np.reshape(block, (2, 2)) * 400
        residual = convolve(residual, [[0, 0.005, 0], [0.005, 0.98, 0.005], [0, 0.005, 0]]) + rng.normal(0, 1, (9, 9))
        assert not find(residual, width=1.6), block


@pytest.mark.parametrize("seed", range(4))
def test_where_stars_are_as_narrow_as_hits_only_light_around_them_tells(seed):
    """F090W of NIRISS: a third of a pixel by diffraction, as charge that diffuses."""
    rng = np.random.default_rng(seed)
    narrow = star(4.2, 3.8, 400, fwhm=0.7) + rng.normal(0, 1, (9, 9))
    assert not find(narrow, width=0.45)
    wings = star(4, 4, 1, fwhm=5)
    assert len(find(narrow + wings * (0.15 * 400 / wings.sum()), width=0.45)) == 1


def test_detections_at_one_place_are_one_and_a_line_at_constant_speed_is_a_moving_object():
    rng = np.random.default_rng(8)
    fixed = [(100.0, 80.0), (100.4, 80.2)]
    track = [(20 + 7.0 * t, 50 - 4.0 * t) for t in (0.0, 1.0, 2.5, 3.0)]
    stray = [(150.0, 20.0), (10.0, 190.0)]
    positions = np.array([*fixed, *track, *stray]) + rng.normal(0, 0.1, (8, 2))
    exposures = [1, 3, 0, 1, 2, 3, 0, 2]
    times = np.array([1.0, 3.0, 0.0, 1.0, 2.5, 3.0, 0.0, 2.5])
    linked = link_detections(positions, np.full(8, 100.0), exposures, times)
    assert sorted(item.members for item in linked) == [(0, 1), (2, 3, 4, 5), (6,), (7,)]
    assert linked[0].members == (2, 3, 4, 5)
    assert linked[0].motion == pytest.approx((7, -4), abs=0.3)
    bright = np.array([100.0, 100, 100, 1000, 100, 100, 100, 100])  # one of another brightness is not on the track
    assert (2, 4, 5) in [item.members for item in link_detections(positions, bright, exposures, times)]


def test_the_flags_that_hang_together_are_spared_and_no_others():
    flagged = np.zeros((60, 60), bool)
    flagged[28:33, 28:33] = True
    flagged[30, 34] = True  # with a gap of a pixel
    flagged[10, 10] = flagged[30, 45] = True
    spared = spare_region(flagged, 30.2, 29.7)
    assert spared.sum() == 26
    assert not spared[10, 10]
    assert not spared[30, 45]
    assert not spare_region(flagged, 50, 50).any()


def test_a_moving_object_is_expected_where_it_was_not_recognized():
    track = np.array([(20 + 7.0 * t, 50 - 4.0 * t) for t in (0.0, 1.0, 3.0)])
    found = expect_place(track, np.array([0.0, 1.0, 3.0]), (7.0, -4.0), 2.0)
    np.testing.assert_allclose(found, (34, 42))
    still = expect_place(np.array([(5.0, 6.0), (5.2, 6.0), (9.0, 6.1)]), np.array([0.0, 1.0, 2.0]), (0.0, 0.0), 5.0)
    np.testing.assert_allclose(still, (5.2, 6.0))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Four groups with a supernova in one, another in two of them, and an object that moves through all."""
    folder = simulate(tmp_path_factory.mktemp("transients"), SETUP).parent
    paths = sorted(folder.glob("*_cal.fits"))
    from scipy.ndimage import map_coordinates

    from badpix.io import cal as io_cal

    wcs = [io_cal.read_wcs(io_cal.read_layout(path)) for path in paths]
    sky = [tuple(float(v) for v in wcs[0](x, y)) for x, y in PLACES]
    psf = make_psf(SETUP)
    added = []
    for number, path in enumerate(paths):
        with fits.open(path, mode="update") as hdul:
            noise = np.nanmedian(hdul["ERR"].data)
            for which, (ra, dec) in enumerate(sky):
                if (which == 0 and number != 1) or (which == 1 and number not in (0, 2)):
                    continue
                step = number * 0.2 / 3600 if which == 2 else 0.0
                x, y = (float(v) for v in wcs[number].invert(ra + step, dec + step))
                j, i = np.mgrid[:200, :200]
                middle = psf.shape[0] // 2
                image = map_coordinates(psf, [(j - y) * 6 + middle, (i - x) * 6 + middle], order=1)
                image *= 150 * noise / psf.max()
                hdul["SCI"].data += image.astype("f4")
                added.append((which, number, x, y, image))
    return folder, paths, added


def run(scene, output, **options):
    _, paths, _ = scene
    p = ImageSettings.from_values(options, "test", "default")
    with heard() as notes:
        written, summary = image_driver.flag_images(read_inputs(paths), p, output)
    return written, summary, notes


def shares_lost(scene, written):
    """Of each added object's flux within 8 pixels, by object."""
    _, paths, added = scene
    lost = {}
    for which, number, x, y, image in added:
        with fits.open(paths[number]) as before, fits.open(written[number]) as after:
            new = ((after["DQ"].data & 16) != 0) & ((before["DQ"].data & 1) == 0)
        j, i = np.mgrid[:200, :200]
        near = (i - x) ** 2 + (j - y) ** 2 < 64
        lost.setdefault(which, []).append(image[near & new].sum() / image[near].sum())
    return lost


@pytest.mark.slow
def test_transients_are_listed_with_place_and_flux_and_kept_on_request(scene, tmp_path):
    written, summary, notes = run(scene, tmp_path / "out")
    rows = summary["transients"]
    assert sorted((row["kind"], len(row["detections"])) for row in rows) == [
        ("moving", 4),
        ("transient", 1),
        ("transient", 2),
    ]
    for which, number, x, y, image in scene[2]:
        name = scene[1][number].name
        match = [
            d
            for row in rows
            for d in row["detections"]
            if d["exposure"] == name and abs(d["x"] - x) < 1 > abs(d["y"] - y)
        ]
        assert len(match) == 1, (which, number)
        assert match[0]["flux"] == pytest.approx(
            image[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].sum(), rel=0.15
        )
    assert any("3 star-shaped objects" in note and "1 of them moving" in note for note in notes)
    assert min(min(v) for v in shares_lost(scene, written).values()) > 0.5
    written, kept, _ = run(scene, tmp_path / "kept", keep_transients=True)
    assert max(max(v) for v in shares_lost(scene, written).values()) < 0.05
    total = [sum(e["flagged"] for e in s["exposures"]) for s in (summary, kept)]
    assert 0.5 * total[0] < total[1] < total[0]  # hits stay flagged


@pytest.mark.slow
def test_named_places_are_left_alone(scene, tmp_path):
    _, summary, _ = run(scene, tmp_path / "out")
    place = next(row for row in summary["transients"] if row["kind"] == "transient" and len(row["detections"]) == 1)
    catalog = tmp_path / "mine.csv"
    catalog.write_text(f"name,RA,Dec,radius\nsn,{place['ra']},{place['dec']},0.5\n")
    regions = tmp_path / "mine.reg"
    regions.write_text(f'# Region file format: DS9\nfk5\ncircle({place["ra"]},{place["dec"]},0.5") # mine\n')
    for path in (catalog, regions):
        written, _, _ = run(scene, tmp_path / path.suffix, protect=str(path))
        lost = shares_lost(scene, written)
        assert max(lost[0]) < 0.05
        assert min(lost[1]) > 0.5


@pytest.mark.slow
def test_the_command_lists_them(scene, tmp_path):
    call = ["image", *map(str, scene[1]), "-o", str(tmp_path / "out"), "--keep-transients", "--json"]
    run = CliRunner().invoke(outlier, call)
    assert run.exit_code == 0, run.output
    assert len(json.loads(run.stdout)["transients"]) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ra dec\n10.5 -3.25\n", [[10.5, -3.25, np.nan]]),
        ('icrs; circle(10.5,-3.25,2")\n', [[10.5, -3.25, 2]]),
        (
            "fk5\npoint(0:42:00,-3:15:00) # point=x\ncircle(10:00:00, +1:30:00, 0.1')\n",
            [[10.5, -3.25, np.nan], [150, 1.5, 6]],
        ),
    ],
)
def test_places_are_read_from_tables_and_regions(tmp_path, text, expected):
    path = tmp_path / "places.txt"
    path.write_text(text)
    np.testing.assert_allclose(read_places(path), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x y\n1 2\n", "expected ra and dec"),
        ("image\ncircle(10,20,3)\n", "found regions in image"),
        ("fk5\ncircle(10,20)\n", "expected circle"),
        ("", "not readable as a table"),
    ],
)
def test_places_that_are_none_are_refused(tmp_path, text, message):
    path = tmp_path / "places.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_places(path)


@pytest.mark.slow
def test_named_places_are_left_alone_by_the_documented_rule_too(scene, tmp_path):
    _, paths, added = scene
    from badpix.io import cal as io_cal

    _, number, x, y, _ = next(item for item in added if item[0] == 0)
    ra, dec = (float(v) for v in io_cal.read_wcs(io_cal.read_layout(paths[number]))(x, y))
    catalog = tmp_path / "mine.csv"
    catalog.write_text(f"ra,dec,radius\n{ra},{dec},0.5\n")
    p = ImageSettings.from_values({"protect": str(catalog)}, "test", "documented")
    written, _ = image_driver.flag_images(read_inputs(paths), p, tmp_path / "out")
    lost = shares_lost(scene, written)
    assert max(lost[0]) < 0.05
    assert min(lost[1]) > 0.5
    values = {"protect": str(catalog), "resample_data": False}
    direct = ImageSettings.from_values(values, "test", "documented")
    with pytest.raises(UsageError, match="resample_data"):
        image_driver.flag_images(read_inputs(paths), direct, tmp_path / "no")


def test_bent_tracks_are_no_stars_even_where_few_stars_tell():
    rng = np.random.default_rng(31)
    ny = nx = 400
    residual = rng.normal(0, 1, (ny, nx)).astype(np.float32)
    ys, xs = (v.ravel() for v in np.mgrid[10 : ny - 10 : 12, 10 : nx - 10 : 12])
    steps = rng.permuted(np.tile([(0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1)], (len(ys), 1, 1)), axis=1)[:, :3]
    peak = rng.uniform(60, 500, len(ys))
    residual[ys, xs] += peak.astype(np.float32)
    for k in range(3):
        residual[ys + steps[:, k, 0], xs + steps[:, k, 1]] += (peak * rng.uniform(0.1, 0.9, len(ys))).astype(
            np.float32
        )
    empty = np.empty(0, np.intp)
    model = np.zeros((ny, nx), np.float32)
    found = find_transients(
        0, residual, np.ones_like(model), residual > 5, model, (empty, empty), snr=20.0, width=1.9
    )
    assert len(found) <= 0.03 * len(ys)
