"""Conditions of simulated darks: what they add is in the ramps and in the truth, and they change nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq
from badpix.api.simulated import score
from badpix.cli.main import badpix
from badpix.errors import UsageError
from badpix.settings.simulate import CONDITIONS, SimulateSettings
from badpix.simulation import conditions, histories, score_dates, score_mask
from badpix.simulation.defects import DEFECT, FLAG_OF, LEVELS, UNIT_OF
from badpix.simulation.detector import make_scene, measure_dark, prepare_exposure, ramp_rows
from badpix.simulation.files import make_recipe, read_parameters, simulate
from badpix.simulation.hits import HIT, make_cosmic_rays, split_hits
from badpix.simulation.truth_file import read_changes, read_truth

SMALL = {"size": (64, 60), "darks": 10, "flats": 0, "dark_groups": 8, "defects_per_level": 1, "seed": 5}


def settings_of(*names, **values):
    return SimulateSettings.from_values({**SMALL, "condition": list(names), **values}, "test")


def recipe_of(*names, **values):
    return make_recipe(settings_of(*names, **values))


def raw_of(recipe, number=1):
    recipe = recipe.of_exposure("dark", number)
    scene = make_scene(recipe)
    return ramp_rows(scene, prepare_exposure(scene, "dark", number), 0, 0, recipe.shape[0]).astype(float)


# --- nothing else changes --------------------------------------------------------------------------------


def test_without_conditions_parameters_are_written_as_before(tmp_path):
    p = settings_of(darks=0)
    simulate(tmp_path, p)
    written = tmp_path / "nrcalong_simulate.yml"
    assert "condition" not in written.read_text()
    assert read_parameters(written) == p
    with fits.open(tmp_path / "nrcalong_truth.fits") as hdus:
        assert {hdu.name for hdu in hdus}.isdisjoint({"CHANGES", "DARKS"})


def test_pixels_that_change_leave_all_others_as_they_were():
    plain, changed = recipe_of(), recipe_of("born", "intermittent", "recovered")
    rows = make_scene(changed).history.rows
    near = np.zeros(plain.shape, bool)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)):
        near[np.clip(rows["y"] + dy, 0, 59), np.clip(rows["x"] + dx, 0, 63)] = True
    last = [raw_of(recipe, 10) for recipe in (plain, changed)]
    differs = (last[0] != last[1]).any(axis=0)
    assert differs.any()
    assert not (differs & ~near).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_changes_the_darks_of_its_detectors(name):
    detector = {"unreset": {"detector": "MIRIMAGE"}, "clusters": {"size": (128, 128)}}.get(name, {})
    plain, harsh = recipe_of(**detector), recipe_of(name, **detector)
    if name == "voids":
        assert make_scene(plain).response.sum() > make_scene(harsh).response.sum()
        return
    assert any(
        raw_of(plain, k).shape != raw_of(harsh, k).shape or (raw_of(plain, k) != raw_of(harsh, k)).any()
        for k in (1, 3, 10)
    )


# --- what changes with time ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [("NEWLY_HOT", 0.2, [0] * 8 + [1] * 2), ("RECOVERED", 0.3, [1] * 3 + [0] * 7), ("DRIFTING", 1.0, [1] * 10)],
)
def test_activity_in_the_order_of_time(name, level, expected):
    assert histories.draw_activity(name, level, 10, np.random.default_rng(1)).tolist() == expected


@pytest.mark.parametrize("level", [0.2, 0.3, 0.4, 0.5])
def test_intermittent_pixels_are_hot_now_and_then(level):
    rng = np.random.default_rng(2)
    for _ in range(50):
        active = histories.draw_activity("INTERMITTENT", level, 10, rng)
        assert active.sum() == round(10 * level)
        assert np.count_nonzero(np.diff(active.astype(int))) > 1


def test_rates_in_the_darks_are_those_of_the_history():
    recipe = recipe_of("born", "drift")
    scene = make_scene(recipe)
    rows, rate = scene.history.rows, scene.history.rate
    for number in (1, 9, 10):
        dark = measure_dark(scene, "dark", number)
        np.testing.assert_allclose(
            dark[rows["y"], rows["x"]], scene.dark[rows["y"], rows["x"]] + rate[:, number - 1], rtol=1e-6
        )
    born = rows["type"] == "NEWLY_HOT"
    assert (rate[born, 0] == 0).all()
    assert (rate[born, 9] >= recipe.physics.hot_levels[1]).all()
    drift = rate[~born].max(axis=1) / rate[~born].min(axis=1)
    assert (drift > 1.5).all()
    assert (drift <= 10.001).all()
    np.testing.assert_array_equal(measure_dark(scene, "flat", 1), scene.dark)


def test_sets_share_rates_and_are_a_month_apart():
    recipe = recipe_of("born", "temperature", sets=5)
    assert [recipe.set_of(k) for k in range(1, 11)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    rate = make_scene(recipe).history.rate
    np.testing.assert_array_equal(rate[:, ::2], rate[:, 1::2])
    starts = [recipe.start_of("dark", k) for k in range(1, 11)]
    assert (starts[2] - starts[0]).days == 73
    assert (starts[1] - starts[0]).total_seconds() == pytest.approx(8 * 10.73677 + 60, abs=1)


def test_a_bright_field_decays_from_dark_to_dark():
    recipe = recipe_of("persistence", size=(128, 120))
    scene = make_scene(recipe)
    rows = scene.defects.of("PERSISTENCE")
    assert 0.01 < len(rows) / scene.reference.size < 0.05
    brightest = rows[rows["extra1"] > np.quantile(rows["extra1"], 0.9)]
    rise = [np.median(np.ptp(raw_of(recipe, k)[:, brightest["y"], brightest["x"]], axis=0)) for k in (1, 2, 5)]
    assert rise[0] > 1.5 * rise[1] > 1.5 * rise[2]
    times = recipe.group_times("dark")
    released = [conditions.measure_release(recipe, k, 0, times)[-1] for k in range(1, 11)]
    assert np.all(np.diff(released) < 0)
    assert sum(released) < 1


@pytest.mark.slow
def test_every_third_dark_of_a_mixed_set_is_shallow(tmp_path):
    written = simulate(tmp_path, settings_of("mixed", darks=4, dark_products=["rate", "uncal"]))
    heads = [fits.getheader(p) for p in written["darks"] if "_uncal" in p.name]
    assert [(h["NGROUPS"], h["NFRAMES"]) for h in heads] == [(8, 1), (8, 1), (4, 4), (8, 1)]
    assert [h["DATE-OBS"] for h in heads] == [f"2026-02-{k:02d}" for k in range(1, 5)]


# --- noise, particles, places ----------------------------------------------------------------------------


def test_tails_have_the_variance_of_a_gaussian_and_more_outliers():
    for name, excess in (("tails", 1.0), ("heavy_tails", None)):
        out = np.empty((200, 2000), np.float32)
        conditions.draw_noise(recipe_of(name), out, np.random.default_rng(3))
        assert out.std() == pytest.approx(1, abs=0.05)
        kurtosis = (out.astype(float) ** 4).mean() / out.var(dtype=float) ** 2 - 3
        assert kurtosis == pytest.approx(excess, abs=0.2) if excess else kurtosis > 2


def test_hits_in_averaged_groups_keep_their_charge_in_two_groups():
    recipe = recipe_of("averaged", dark_groups=20)
    assert recipe.frames == (4, 1)
    hits = np.zeros(4000, HIT)
    hits["group"], hits["charge"], hits["x"] = 5, 100, np.arange(4000)
    found = split_hits(hits, recipe, 20, np.random.default_rng(4))
    total = np.bincount(found["x"], found["charge"], minlength=4000)
    np.testing.assert_allclose(total, 100, rtol=1e-6)
    early = np.bincount(found["x"], found["charge"] * (found["group"] == 5), minlength=4000)
    values, counts = np.unique(np.round(early), return_counts=True)
    assert values.tolist() == [0, 25, 50, 75, 100]
    np.testing.assert_allclose(counts / 4000, 0.2, atol=0.03)


def test_solar_maximum_has_14_times_the_hits():
    usual, many = (
        len(make_cosmic_rays(recipe_of(*names, size=(512, 512), dark_groups=20), 20, np.random.default_rng(5)))
        for names in ((), ("solar",))
    )
    assert many / usual == pytest.approx(14, rel=0.2)


def test_noise_by_output_and_place():
    plain, harsh = make_scene(recipe_of()), make_scene(recipe_of("outputs", "places"))
    ratio = harsh.known_noise / plain.known_noise / conditions.measure_frame(plain.reference.shape)
    found = sorted(float(np.median(ratio[plain.amplifier == k])) for k in range(4))
    assert found == pytest.approx(sorted(conditions.OUTPUT_NOISE), rel=1e-4)
    assert conditions.measure_frame((64, 64))[0, 0] == pytest.approx(1.6, abs=0.01)


def test_clusters_touch_and_count_as_hot():
    scene = make_scene(recipe_of("clusters", size=(128, 128), defects_per_level=4))
    rows = scene.defects.of("CLUSTER")
    bad = np.zeros(scene.reference.shape, bool)
    bad[rows["y"], rows["x"]] = True
    beside = sum(np.roll(bad, shift, axis) for shift in (1, -1) for axis in (0, 1))
    assert len(rows) >= 10
    assert (beside[bad] > 0).all()


# --- truth and score -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_truth_has_types_rates_and_dates(tmp_path):
    names = ("born", "recovered", "temperature", "voids", "persistence")
    simulate(tmp_path, settings_of(*names, dark_products=["rate"], size=(128, 120)))
    truth = tmp_path / "nrcalong_truth.fits"
    _, flags, rows = read_truth(truth)
    changes, darks = read_changes(truth)
    assert len(darks) == 10
    assert 0.6 <= darks["SCALE"].min() < darks["SCALE"].max() <= 2.5
    born = changes[(changes["TYPE"] == "NEWLY_HOT")]
    parts = {(r["x"], r["y"]): r["level"] for r in rows if r["type"] == "NEWLY_HOT"}
    expected = [darks["MJD"][10 - round(10 * parts[c["X"], c["Y"]])] for c in born]
    np.testing.assert_array_equal(born["FIRST"], expected)
    np.testing.assert_array_equal(born["LAST"], darks["MJD"][-1])
    for name, flag in (
        ("NEWLY_HOT", dq.VALUE["HOT"]),
        ("RECOVERED", 0),
        ("PERSISTENCE", 0),
        ("VOID", dq.VALUE["LOW_QE"]),
    ):
        mine = rows[rows["type"] == name]
        assert len(mine)
        assert (flags[mine["y"], mine["x"]] == flag).all(), name


def test_a_pixel_without_a_flag_in_the_truth_is_right_without_one():
    rows = np.array([("RECOVERED", 1, 0, 0.2, "isolated", 1, 0), ("RECOVERED", 2, 0, 0.2, "isolated", 1, 0)], DEFECT)
    flags = np.zeros((4, 4), np.uint32)
    flags[0, 2] = dq.VALUE["HOT"]
    result = score_mask.score([(flags, np.zeros_like(flags), rows)], "darks")
    (row,) = [r for r in result["completeness"] if r["type"] == "RECOVERED" and r["level"] == 0.2]
    assert (row["injected"], row["found"], row["flagged"]) == (2, 1, 1)
    assert {r["flag"]: r["false"] for r in result["flags"]}["HOT"] == 1


def test_dates_are_counted_by_sets():
    changes = np.array(
        [("NEWLY_HOT", k, 0, 1, 103.0, 105.0) for k in range(4)] + [("RECOVERED", 0, 1, 1, 100.0, 101.0)],
        dtype=[("TYPE", "U12"), ("X", "i4"), ("Y", "i4"), ("RATE", "f4"), ("FIRST", "f8"), ("LAST", "f8")],
    )
    darks = np.array([(k, 100.0 + k, k // 2, 1) for k in range(6)], dtype="i4,f8,i4,f4")
    darks.dtype.names = ("NUMBER", "MJD", "DARKSET", "SCALE")
    first, last = np.full((2, 4), np.nan), np.full((2, 4), np.nan)
    first[0] = [102.0, 104.0, 100.0, 103.0]  # the right set, the next, the one before, right but not HOT
    last[1, 0] = 105.0  # two sets off
    flags = np.zeros((2, 4), np.uint32)
    flags[0, :3] = dq.VALUE["HOT"]
    found = score_dates.count_dated(flags, changes, darks, first, last)
    assert found == [score_dates.Dated("NEWLY_HOT", 4, 3, 1, 3), score_dates.Dated("RECOVERED", 1, 1, 0, 0)]


def test_all_types_have_flag_and_unit():
    assert set(FLAG_OF) == set(UNIT_OF)
    assert set(LEVELS) <= set(FLAG_OF)
    assert set(histories.TYPE_OF.values()) <= set(FLAG_OF)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"condition": ["unreset"]}, "MIRI"),
        ({"condition": ["averaged"], "detector": "MIRIMAGE"}, "does not average"),
        ({"condition": ["born"], "sets": 11}, "11 sets"),
        ({"sets": 3}, "need a condition"),
    ],
)
def test_what_can_not_be_is_refused(values, told):
    with pytest.raises(UsageError, match=told):
        make_recipe(SimulateSettings.from_values({**SMALL, **values}, "test"))


@pytest.mark.slow
def test_command_and_score_with_dates(tmp_path):
    run = CliRunner().invoke
    words = ["simulate", str(tmp_path / "sim"), "--size", "128 128", "--flats", "0", "--darks", "6", "--condition"]
    words += ["born,recovered", "--dark-groups", "12", "--defects-per-level", "4", "--seed", "9"]
    assert run(badpix, words, catch_exceptions=False).exit_code == 0
    mask, truth = str(tmp_path / "m.fits"), str(tmp_path / "sim" / "nrcalong_truth.fits")
    done = run(badpix, ["darks", str(tmp_path / "sim" / "darks"), "--evidence", "-o", mask], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    done = run(badpix, ["score", mask, truth, "--search", "darks"], catch_exceptions=False)
    lines = done.output[done.output.index("Dates:") :].splitlines()
    born = next(line.split() for line in lines if line.startswith("NEWLY_HOT"))
    assert int(born[1]) == 12
    dates = {row["type"]: row for row in score(mask, truth, search="darks").dates}
    assert [dates["NEWLY_HOT"][k] for k in ("injected", "told", "right", "near")] == [int(v) for v in born[1:]]
    assert int(born[4]) >= 8  # a pixel that is hot in the newest dark alone is not sure
