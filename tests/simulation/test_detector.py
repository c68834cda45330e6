"""The simulation: what goes in comes out, in the same bytes whatever the order, bands and workers."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import detectors, dq
from badpix.cli.main import badpix
from badpix.detectors import Window
from badpix.errors import DataError, UsageError
from badpix.io import exposure as exposures
from badpix.numerics import ipc
from badpix.numerics import ramp_fit as fit
from badpix.settings.simulate import SimulateSettings
from badpix.simulation import files as simulate_files
from badpix.simulation import reduce as quick
from badpix.simulation.defects import DEFECT, FLAG_OF, Defects, levels, measure_truth
from badpix.simulation.detector import (
    make_scene,
    make_switching,
    prepare_exposure,
    ramp_rows,
)
from badpix.simulation.files import (
    make_recipe,
    read_parameters,
    simulate,
    write_exposure,
)
from badpix.simulation.hits import HIT, make_cosmic_rays
from badpix.simulation.recipe import Recipe, shrink
from badpix.simulation.truth_file import read_truth

SECTION = SimulateSettings


def checked(**values):
    return SECTION.from_values(values, "test")


def recipe_of(name="NRCALONG", shape=(64, 72), **values) -> Recipe:
    small = shrink(detectors.get(name), shape)
    values = {"dark_groups": 12, "flat_groups": 8, **values}
    return Recipe(small, Window(1, 1, shape[1], shape[0]), **values)


def reduce_all(recipe, kind="dark", number=1):
    scene = make_scene(recipe)
    exposure = prepare_exposure(scene, kind, number)
    offsets = quick.measure_offsets(scene, exposure)
    (reduced,) = quick.reduce_rows(scene, exposure, offsets, 0, recipe.shape[0])
    return scene, exposure, reduced


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.fits"))
    }


# --- equal bytes -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_same_bytes_for_any_workers_order_and_band_height(tmp_path, monkeypatch):
    p = checked(
        size=[48, 40],
        flats=2,
        darks=2,
        integrations=2,
        dark_groups=6,
        flat_groups=5,
        flat_products=["uncal", "rate"],
        dark_products=["uncal", "rate", "rateints", "jump", "fitopt"],
    )
    simulate(tmp_path / "a", p)
    with ProcessPoolExecutor(2) as executor:
        simulate(tmp_path / "b", p, executor)
    monkeypatch.setattr(simulate_files, "BAND_BYTES", 1)  # bands of 8 rows
    simulate(tmp_path / "c", p)
    assert len(digests(tmp_path / "a")) == 2 * 2 + 2 * 5 + 1
    assert digests(tmp_path / "a") == digests(tmp_path / "b") == digests(tmp_path / "c")
    again = read_parameters(tmp_path / "a" / "nrcalong_simulate.yml")
    assert make_recipe(again) == make_recipe(p)
    alone = write_exposure(make_recipe(p), "dark", 2, tmp_path, ["jump"])[0]
    assert alone.read_bytes() == (tmp_path / "a" / "darks" / alone.name).read_bytes()


@pytest.mark.slow
def test_seed_decides(tmp_path):
    p = {"size": [40, 40], "flats": 1, "darks": 0, "flat_groups": 4}
    simulate(tmp_path / "a", checked(**p, seed=1))
    simulate(tmp_path / "b", checked(**p, seed=2))
    a, b = ({Path(k).name[:4]: v for k, v in digests(tmp_path / x).items()} for x in "ab")
    assert all(a[k] != b[k] for k in a)


@pytest.mark.parametrize("name", ["NRCB1", "MIRIMAGE", "NIS", "NRS2", "GUIDER1"])
def test_rows_are_rows_of_the_whole(name):
    recipe = recipe_of(name)
    scene = make_scene(recipe)
    exposure = prepare_exposure(scene, "dark", 1)
    whole = ramp_rows(scene, exposure, 0, 0, 64)
    for first, last in ((0, 8), (7, 9), (30, 64)):
        np.testing.assert_array_equal(ramp_rows(scene, exposure, 0, first, last), whole[:, first:last])


# --- physics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["NRCA1", "NRCALONG", "MIRIMAGE", "MIRIFULONG", "NIS", "NRS1", "GUIDER2"])
@pytest.mark.parametrize("kind", ["flat", "dark"])
def test_rates_and_errors_are_what_was_put_in(name, kind):
    recipe = recipe_of(name, (96, 100), dark_groups=20, flat_groups=12, cosmic_rays=1.0)
    scene, exposure, reduced = reduce_all(recipe, kind)
    good = (measure_truth(scene.defects, scene.reference) == 0) & np.isfinite(reduced.fit.rate)
    expected = (scene.dark + exposure.lamp * scene.response) / recipe.physics.gain
    error = np.sqrt(reduced.fit.var_poisson + reduced.fit.var_rnoise)
    pull = ((reduced.fit.rate - expected) / error)[good]
    assert abs(np.median(pull)) < 0.3
    assert 0.7 < 1.4826 * np.median(np.abs(pull - np.median(pull))) < 1.7


def test_flat_reaches_its_level():
    recipe = recipe_of(flat_level=0.4)
    scene, exposure, _ = reduce_all(recipe, "flat")
    raw = ramp_rows(scene, exposure, 0, 0, 64)
    reached = np.median((raw[-1] - scene.bias)[~scene.reference]) * recipe.physics.gain / recipe.physics.full_well
    assert 0.36 < reached < 0.44


def test_lamp_drifts_between_exposures():
    scene = make_scene(recipe_of())
    lamps = {prepare_exposure(scene, "flat", k).lamp for k in range(1, 6)}
    assert len(lamps) == 5
    assert max(lamps) / min(lamps) < 1.15


def test_averaged_frames_lower_the_noise():
    recipe = recipe_of(readout="MEDIUM8")
    assert recipe.group_time == pytest.approx(10 * recipe.frame_time)
    single, averaged = (np.median(make_scene(r).known_noise) for r in (recipe_of(), recipe))
    assert averaged == pytest.approx(single / np.sqrt(8), rel=0.02)
    assert recipe.group_times("dark")[0] == pytest.approx(4.5 * recipe.frame_time)


def test_interpixel_capacitance_moves_charge_to_the_sides_and_keeps_it():
    charge = np.zeros((1, 5, 5), np.float32)
    charge[0, 2, 2] = 1000
    shown = ipc.mix(charge, 0.01)
    expected = np.zeros((5, 5), np.float32)
    expected[2, 2] = 960
    expected[[1, 3, 2, 2], [2, 2, 1, 3]] = 10
    np.testing.assert_allclose(shown[0], expected, rtol=1e-6)
    assert charge[0, 2, 2] == 1000


def test_cosmic_rays_have_the_asked_rate_and_are_sorted():
    recipe = recipe_of(shape=(256, 256), nints=2, cosmic_rays=50.0)
    hits = make_cosmic_rays(recipe, 12, np.random.default_rng(1))
    assert hits.dtype == HIT
    order = hits["integration"].astype(int) * 1000 + hits["y"]
    assert (np.diff(order) >= 0).all()
    area = 256 * 256 * 18e-4**2
    events = 50 * area * 12 * recipe.group_time * 2
    assert 1.5 * events < len(hits) < 6 * events  # each leaves a short track
    assert make_cosmic_rays(recipe_of(cosmic_rays=0.0), 12, np.random.default_rng(1)).size == 0


def test_snowballs_saturate_their_cores():
    recipe = recipe_of(shape=(200, 200), cosmic_rays=0.0, snowballs=8.0, dark_groups=10, defects_per_level=0)
    _, _, reduced = reduce_all(recipe)
    saturated = ((reduced.groupdq & quick.SATURATED) != 0).any(axis=0)
    assert 20 < saturated.sum() < 20_000
    assert np.isfinite(reduced.fit.rate[saturated]).any()  # what came before the hit is still fitted
    none = reduce_all(recipe_of(shape=(200, 200), cosmic_rays=0.0, dark_groups=10, defects_per_level=0))[2]
    assert not (none.groupdq & quick.SATURATED).any()


def test_switching_has_two_levels_and_the_asked_occupancy():
    rng = np.random.default_rng(3)
    many = np.array([make_switching(400, 4.0, 12.0, rng) for _ in range(200)])
    assert set(np.unique(many)) == {0.0, 1.0}
    assert many.mean() == pytest.approx(0.75, abs=0.03)
    flips = np.abs(np.diff(many, axis=1)).mean()
    assert flips == pytest.approx(2 / (4 + 12), abs=0.01)


# --- reference pixels and windows ------------------------------------------------------------------------


def test_border_of_small_detectors():
    near_infrared = make_scene(recipe_of("NIS")).reference
    assert near_infrared.sum() == 64 * 72 - 56 * 64
    assert not near_infrared[4:-4, 4:-4].any()
    miri = make_scene(recipe_of("MIRIMAGE")).reference
    assert miri[:, [0, 3, -4, -1]].all()
    assert not miri[:, 4:-4].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "size", "border"), [((1, 1), (32, 40), 4 * 40 + 4 * 32 - 16), ((500, 700), (32, 40), 0)]
)
def test_windows_have_the_border_that_is_there(start, size, border):
    recipe = make_recipe(checked(window=size, start=start, subarray="SUB64P", dark_groups=5))
    scene, _, reduced = reduce_all(recipe)
    assert scene.reference.sum() == border
    assert reduced.fit.rate.shape == (40, 32)
    assert np.isfinite(reduced.fit.rate).mean() > 0.9


def test_reference_pixels_are_dark_and_take_the_offsets_out():
    recipe = recipe_of("NRCB1", (128, 128), dark_groups=10, cosmic_rays=0.0)
    scene, exposure, reduced = reduce_all(recipe)
    raw = ramp_rows(scene, exposure, 0, 0, 128).astype(float) - scene.superbias
    good = measure_truth(scene.defects, scene.reference) == 0
    before = np.std([np.median(raw[:, good & (scene.amplifier == k)], axis=1) for k in range(4)])
    after = np.std([np.median(reduced.ramp[:, good & (scene.amplifier == k)], axis=1) for k in range(4)])
    assert before > 8
    assert after < 2.5


# --- defects ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def defective():
    recipe = recipe_of("NRCALONG", (256, 256), dark_groups=30, defects_per_level=3, cosmic_rays=0.5)
    return reduce_all(recipe)


def test_every_type_and_level_is_there(defective):
    scene, _, _ = defective
    rows = scene.defects.rows
    rows = rows[rows["setting"] != "natural"]
    for name, values in levels(scene.recipe).items():
        for level in values:
            mine = rows[(rows["type"] == name) & (rows["level"] == np.float32(level))]
            assert len(mine) >= 3, (name, level)
    assert set(rows["setting"]) == {"isolated", "edge", "corner", "pair", "cluster"}
    corners = rows[rows["setting"] == "corner"]
    assert {(int(r["y"]), int(r["x"])) for r in corners} == {(4, 4), (4, 251), (251, 4), (251, 251)}
    places = rows["y"].astype(int) * 256 + rows["x"]
    assert len(np.unique(places)) == len(places)
    assert not scene.reference[rows["y"], rows["x"]].any()


def test_defects_show_in_the_ramps(defective):
    scene, _, reduced = defective
    gain = scene.recipe.physics.gain

    def isolated(name, level=None):
        d = scene.defects.of(name)
        d = d[d["setting"] == "isolated"]
        d = d if level is None else d[d["level"] == np.float32(level)]
        return d, (d["y"], d["x"])

    for level, tolerance in ((1.0, 0.2), (10.0, 0.1), (100.0, 0.05)):  # IPC takes 2 %, shot noise the rest
        _, at = isolated("HOT", level)
        np.testing.assert_allclose(reduced.fit.rate[at], level / gain, rtol=tolerance)
    _, at = isolated("SATURATED")
    assert (reduced.groupdq[0][at] & quick.SATURATED).all()
    assert np.isnan(reduced.fit.rate[at]).all()
    assert (reduced.fit.pedestal[at] == 0).all()
    _, at = isolated("LOW_PEDESTAL", 1000.0)
    np.testing.assert_allclose(reduced.fit.pedestal[at], -1000, atol=120)
    for name, sign in (("RC", 1), ("IRC", -1)):
        d, at = isolated(name, 1000.0 if name == "IRC" else 3000.0)
        settled = (1 - np.exp(-30 / d["extra1"])) - (1 - np.exp(-1 / d["extra1"]))
        rise = reduced.ramp[-1][at] - reduced.ramp[0][at]
        np.testing.assert_allclose(rise, sign * d["level"] * settled, rtol=0.15, atol=60)
    _, at = isolated("TELEGRAPH", 300.0)
    scatter = np.std(np.diff(reduced.ramp[:, *at], axis=0), axis=0)
    assert (scatter > 30).all()
    _, at = isolated("NOISY", 15.0)
    ratio = np.std(np.diff(reduced.ramp[:, *at], axis=0), axis=0) / np.sqrt(2) / scene.known_noise[at]
    assert ((ratio > 9) & (ratio < 22)).all()


def test_tails_of_nature_are_no_good_pixels():
    scene = make_scene(recipe_of("NRCALONG", (512, 512), defects_per_level=3))
    ratio = scene.read_noise / np.median(scene.known_noise)
    truth = measure_truth(scene.defects, scene.reference)
    good = truth == 0
    assert good.sum() > 0.99 * 504**2
    assert (ratio[good] <= 1.75).all()
    assert (scene.dark[good] <= 0.1).all()
    natural = scene.defects.rows[scene.defects.rows["setting"] == "natural"]
    assert set(natural["type"]) == {"WARM", "NOISY"}
    assert len(natural) < 100
    noisy = scene.defects.of("NOISY")
    np.testing.assert_allclose(noisy["extra1"], ratio[noisy["y"], noisy["x"]], rtol=1e-5)


def test_open_pixels_give_their_charge_to_their_neighbors():
    recipe = recipe_of("NRCALONG", (128, 128), defects_per_level=4)
    scene = make_scene(recipe)
    d = scene.defects.of("OPEN")
    d = d[d["setting"] == "isolated"]
    assert len(d) >= 8
    for one in d:
        box = scene.response[one["y"] - 1 : one["y"] + 2, one["x"] - 1 : one["x"] + 2]
        sides = np.array([box[0, 1], box[2, 1], box[1, 0], box[1, 2]])
        corners = np.array([box[0, 0], box[0, 2], box[2, 0], box[2, 2]])
        lost = (1 - one["level"]) * one["extra1"]
        light = box[1, 1] / one["level"]
        np.testing.assert_allclose(sides / light, 1 + 0.2 * lost, atol=0.08)
        np.testing.assert_allclose(corners / light, 1 + 0.05 * lost, atol=0.08)


def test_truth_marks_neighbors_of_open_pixels_clipped_at_the_border():
    reference = np.zeros((7, 8), bool)
    reference[:, 0] = True
    rows = np.array(
        [
            ("OPEN", 1, 0, 0.1, "corner", 0.8, 0),
            ("OPEN", 5, 3, 0.02, "pair", 0.8, 0),
            ("OPEN", 6, 3, 0.02, "pair", 0.8, 0),
            ("DEAD", 5, 4, 0, "cluster", 0, 0),
            ("HOT", 7, 2, 3.0, "cluster", 0, 0),
        ],
        dtype=DEFECT,
    )
    truth = measure_truth(Defects(rows), reference)
    expected = np.zeros((7, 8), np.uint32)
    for y in range(7):
        for x in range(8):
            near_open = any(max(abs(y - r["y"]), abs(x - r["x"])) == 1 for r in rows[:3])
            own = [r["type"] for r in rows if (r["y"], r["x"]) == (y, x)]
            if reference[y, x]:
                expected[y, x] = dq.VALUE["REFERENCE_PIXEL"]
                continue
            for name in own:
                expected[y, x] |= np.uint32(dq.VALUE[FLAG_OF[name]])
            if near_open and not {"OPEN", "DEAD"} & set(own):
                expected[y, x] |= np.uint32(dq.VALUE["ADJ_OPEN"])
    np.testing.assert_array_equal(truth, expected)


def test_places_come_from_a_map(tmp_path):
    bad = np.zeros((2048, 2048), np.uint8)
    bad[10:40, 20:60] = np.random.default_rng(1).random((30, 40)) < 0.3
    fits.PrimaryHDU(bad).writeto(tmp_path / "map.fits")
    recipe = make_recipe(checked(size=[64, 64], map=str(tmp_path / "map.fits")))
    rows = make_scene(recipe).defects.rows
    assert len(rows) > 50
    assert len(rows) == bad[4:60, 4:60].sum()
    assert bad[rows["y"], rows["x"]].all()
    assert set(rows["setting"]) == {"map"}
    part = make_recipe(checked(size=[64, 64], map=str(tmp_path / "map.fits"), defects_per_level=2))
    rows = make_scene(part).defects.rows
    assert np.count_nonzero(rows["setting"] == "map") == 2 * sum(len(v) for v in levels(part).values())


@pytest.mark.slow
def test_places_of_a_real_map(real_data):
    name = real_data / "gbrammer+grizli" / "nrc_badpix_260627_NRCALONG.fits.gz"
    if not name.exists():
        pytest.skip(f"{name.name} is missing")
    recipe = make_recipe(checked(size=[400, 300], map=str(name)))
    scene = make_scene(recipe)
    bad = fits.getdata(name)[:300, :400] != 0
    truth = measure_truth(scene.defects, scene.reference)
    placed = scene.defects.rows[scene.defects.rows["setting"] == "map"]
    assert len(placed) == (bad & ~scene.reference).sum() > 1000
    assert bad[placed["y"], placed["x"]].all()
    assert (truth[bad & ~scene.reference] != 0).all()


# --- the quick reduction against slow, plain versions ----------------------------------------------------


def test_saturation_grows_by_one_pixel():
    rng = np.random.default_rng(5)
    raw = rng.integers(0, 60000, (6, 9, 11)).astype(np.uint16)
    limit = np.full((9, 11), 59000.5, np.float32)
    found = np.zeros(raw.shape, np.uint8)
    quick.mark_saturated(found, raw, limit)
    expected = np.zeros_like(found)
    for g, y, x in np.ndindex(raw.shape):
        box = raw[g, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        expected[g, y, x] = 2 * (box > 59000.5).any()
    np.testing.assert_array_equal(found, expected)


def test_jumps_equal_a_plain_search():
    rng = np.random.default_rng(6)
    ramp = np.cumsum(rng.normal(0.5, 1, (15, 20, 20)), axis=0).astype(np.float32) * 2
    ramp += rng.normal(0, 5, ramp.shape).astype(np.float32)
    for g, y, x, size in ((4, 5, 5, 300), (9, 0, 0, 90), (9, 0, 1, 60), (2, 19, 7, 1e5), (7, 10, 10, -200)):
        ramp[g:, y, x] += size
    groupdq = np.zeros(ramp.shape, np.uint8)
    groupdq[11:, 12, 12] = quick.SATURATED
    groupdq[:, 3, 3] = quick.SATURATED
    noise = np.full((20, 20), 5.0, np.float32)
    expected = groupdq.copy()
    for y, x in np.ndindex(20, 20):
        usable = groupdq[1:, y, x] == 0
        steps = np.diff(ramp[:, y, x])
        if usable.sum() < 3:
            continue
        median = np.median(steps[usable])
        ratio = np.abs(steps - median) / np.sqrt(2 * 25 + abs(median) / 1.8)
        for k in np.nonzero(usable & (ratio > 4))[0]:
            expected[k + 1, y, x] |= 4
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= v < 20 and 0 <= u < 20
                if 10 < ratio[k] < 1000 and inside and not groupdq[k + 1, v, u] & 2:
                    expected[k + 1, v, u] |= 4
    quick.mark_jumps(groupdq[None], ramp[None], noise, 1.8)
    np.testing.assert_array_equal(groupdq, expected)


def test_slopes_equal_plain_least_squares():
    rng = np.random.default_rng(7)
    ramp = (np.arange(12)[:, None, None] * 3.0 + rng.normal(0, 5, (12, 6, 6))).astype(np.float32) + 500
    noise = np.full((6, 6), 40.0, np.float32)  # so noisy that no weights apply
    groupdq = np.zeros(ramp.shape, np.uint8)
    groupdq[5, 2, 2] = groupdq[9, 2, 2] = quick.JUMP_DET
    groupdq[7:, 3, 3] = quick.SATURATED
    groupdq[:, 4, 4] = quick.SATURATED
    ramp[5:, 2, 2] += 1000
    ramp[9:, 2, 2] -= 300
    constants = fit.Constants(gain=2.0, group_time=10.0, first_group=1.0)
    typical = fit.measure_typical(ramp[None], groupdq[None], constants)
    out = fit.fit_ramps(ramp, groupdq, slice(None), typical, noise, constants)
    x = np.arange(12)
    for y_, x_ in np.ndindex(6, 6):
        pieces = [x[:5], x[5:9], x[9:]] if (y_, x_) == (2, 2) else [x[:7]] if (y_, x_) == (3, 3) else [x]
        if (y_, x_) == (4, 4):
            assert np.isnan(out.rate[4, 4])
            assert out.dq[4, 4] == quick.SATURATED | quick.DO_NOT_USE
            continue
        slopes = [np.polyfit(p, ramp[p, y_, x_].astype(float), 1)[0] / 10 for p in pieces]
        variances = [12 * 40.0**2 / (len(p) ** 3 - len(p)) / 100 for p in pieces]
        expected = np.average(slopes, weights=1 / np.array(variances))
        assert out.rate[y_, x_] == pytest.approx(expected, rel=1e-4), (y_, x_)
        assert out.segments["SLOPE"][0, y_, x_] == pytest.approx(slopes[0], rel=1e-4)
    assert out.dq[2, 2] == quick.JUMP_DET
    assert out.segments["CRMAG"][:, 2, 2] == pytest.approx([1000, -300], abs=40)
    np.testing.assert_allclose(out.pedestal[0, 0], ramp[0, 0, 0] - out.rate[0, 0], rtol=1e-6)


@pytest.mark.parametrize("power", [0.0, 1.0, 10.0])
def test_weights_give_the_slope_of_a_line(power):
    weights = fit.slope_weights(9, power)
    assert weights @ (np.arange(9) * 2.5 + 17) == pytest.approx(2.5, rel=1e-5)


def test_reduction_does_not_change_the_scene():
    recipe = recipe_of(shape=(40, 40))
    scene = make_scene(recipe)
    before = {k: v.copy() for k, v in vars(scene).items() if isinstance(v, np.ndarray)}
    reduce_all(recipe)
    for name, image in before.items():
        np.testing.assert_array_equal(getattr(scene, name), image)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NRCALONG", "MIRIMAGE", "NIS", "NRS1", "GUIDER1"])
def test_files_are_read_back_as_what_they_are(tmp_path, name):
    p = checked(
        detector=name,
        size=[48, 40],
        flats=1,
        darks=1,
        dark_groups=6,
        flat_groups=5,
        integrations=2,
        dark_products=["uncal", "rate", "rateints", "jump", "fitopt"],
    )
    written = simulate(tmp_path, p)
    shapes = {
        "uncal": (2, 6, 40, 48),
        "jump": (2, 6, 40, 48),
        "rate": (40, 48),
        "rateints": (2, 40, 48),
    }
    scene = make_scene(make_recipe(p))
    for path in written["darks"]:
        opened = exposures.open_exposure(path)
        product = path.stem.rsplit("_", 1)[1]
        assert opened.kind == product
        assert opened.keyword("DETECTOR") == name
        assert opened.keyword("NGROUPS") == 6
        if product in shapes:
            assert opened["SCI"].shape == shapes[product]
        if product in ("rate", "jump"):
            np.testing.assert_array_equal(exposures.read_reference_pixels(opened), scene.reference)
    with fits.open(written["darks"][1]) as rate, fits.open(written["darks"][2]) as ints:
        each = ints["SCI"].data
        var = ints["VAR_RNOISE"].data
        weight = np.where(np.isfinite(each), 1 / np.where(var > 0, var, 1), 0)
        total = weight.sum(axis=0)
        mean = (weight * np.nan_to_num(each)).sum(axis=0) / np.where(total > 0, total, np.nan)
        np.testing.assert_allclose(rate["SCI"].data, mean, rtol=1e-4, atol=1e-6)
    with fits.open(written["darks"][0], do_not_scale_image_data=True) as uncal:
        assert (uncal["SCI"].header["BITPIX"], uncal["SCI"].header["BZERO"]) == (16, 32768)


def test_truth_is_read_back(tmp_path):
    p = checked(size=[64, 64], flats=0, darks=0)
    path = simulate(tmp_path, p)["truth"][0]
    header, truth, rows = read_truth(path)
    scene = make_scene(make_recipe(p))
    assert header["DETECTOR"] == "NRCALONG"
    np.testing.assert_array_equal(truth, measure_truth(scene.defects, scene.reference))
    np.testing.assert_array_equal(rows, scene.defects.rows)
    np.testing.assert_array_equal(fits.getdata(path, "GOOD"), truth == 0)


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"window": [64, 64], "start": [2000, 1]}, "reaches beyond"),
        ({"window": [64, 64], "size": [64, 64]}, "exclude"),
        ({"detector": "NRS1", "readout": "NRSIRS2"}, "IRS2"),
        ({"readout": "FASTEST"}, "unknown"),
    ],
)
def test_impossible_recipes_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        make_recipe(checked(**values))


def test_unknown_detector_and_broken_map(tmp_path):
    with pytest.raises(UsageError, match="--detector: DETECTOR 'NRCA9' is unknown; did you mean"):
        make_recipe(checked(detector="NRCA9"))
    (tmp_path / "map.fits").write_text("no FITS")
    with pytest.raises(DataError, match=r"map\.fits"):
        make_recipe(checked(map=str(tmp_path / "map.fits")))
    fits.PrimaryHDU().writeto(tmp_path / "t.fits")
    with pytest.raises(DataError, match="DEFECTS"):
        read_truth(tmp_path / "t.fits")


@pytest.mark.slow
def test_existing_files_stay_unless_told(tmp_path):
    p = checked(size=[40, 40], flats=1, darks=0, flat_groups=4)
    simulate(tmp_path, p)
    before = digests(tmp_path)
    with pytest.raises(UsageError, match="exists"):
        simulate(tmp_path, p)
    simulate(tmp_path, p, overwrite=True)
    assert digests(tmp_path) == before
    assert not list(tmp_path.rglob(".badpix-*"))


@pytest.mark.slow
def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = ["simulate", "sim", "--size", "40 40", "--flats", "1", "--darks", "1", "--dark-groups", "5", "--json"]
    result = CliRunner().invoke(badpix, call)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["files"]["darks"]) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sim"]
    assert CliRunner().invoke(badpix, call).exit_code == 2
    assert CliRunner().invoke(badpix, ["simulate", "sim2", "--size", "4 4"]).exit_code == 2
    assert CliRunner().invoke(badpix, ["simulate", "sim2", "--max-memory", "200M"]).exit_code == 2
    assert not (tmp_path / "sim2").exists()
