"""The whole search on files: injected truth as whole maps, bands and workers, inputs that do not fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from dark_files import DEFECTS, JUMP, SATURATED, SHAPE, make_ramps, write_dark, write_darks
from make_files import CORNER

from badpix.darks import bands, plan
from badpix.darks import build as darks_build
from badpix.darks import inputs as dark_inputs
from badpix.darks import search as darks_search
from badpix.errors import DataError, UsageError
from badpix.io.evidence import COMPARISONS
from badpix.settings.darks import DarkSettings

SECTION = DarkSettings


def run(rates, named=None, skip_bad=False, memory=48e6, executor=None, **changes):
    p = SECTION.from_values(changes, "test")
    opened = dark_inputs.open_darks(rates, named or {}, skip_bad=skip_bad)
    return darks_search.search(opened, p, memory=memory, executor=executor)


def truth():
    """The maps that the searches must give for :data:`dark_files.DEFECTS`."""
    want = {}
    for kind, places in DEFECTS.items():
        name = {"saturated": "hot", "inverse_rc": "rc"}.get(kind, kind)
        for y, x in places:
            want.setdefault(name, np.zeros(SHAPE, bool))[y, x] = True
    return want


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    return write_darks(tmp_path_factory.mktemp("darks"), exposures=8)


@pytest.fixture(scope="module")
def found(rates):
    return run(rates)


@pytest.mark.parametrize("name", ["hot", "rc", "telegraph", "noisy", "low_pedestal"])
def test_injected_defects_are_found_and_nothing_else(found, name):
    np.testing.assert_array_equal(np.argwhere(found.maps[name]), np.argwhere(truth()[name]))


def test_integrations_of_one_exposure_serve_as_well(tmp_path):
    for name, image in run(write_darks(tmp_path, exposures=1, integrations=8, seed=4)).maps.items():
        if name in truth():
            np.testing.assert_array_equal(np.argwhere(image), np.argwhere(truth()[name]), err_msg=name)


def test_ramps_of_fewer_integrations_examined(rates, found):
    """Rates and pedestals still come from all; what noise and shape tell comes from some, and that is said."""
    some = run(rates, examined_integrations=6)
    for name in ("hot", "low_pedestal", "rc"):
        np.testing.assert_array_equal(some.maps[name], found.maps[name], err_msg=name)
    assert any("ramps of 6 of 8 integrations are examined" in note for note in some.notes)
    assert not any("examined" in note for note in found.notes)
    assert plan.choose_evenly(8, 6) == (0, 1, 2, 4, 5, 7)
    assert plan.choose_evenly(3, 40) == (0, 1, 2)
    assert {k % 2 for k in plan.choose_evenly(64, 32)} == {0, 1}  # not the first of two integrations each time


@pytest.mark.slow
def test_rates_cut_at_jumps_do_not_count_where_no_ramp_was_examined(tmp_path):
    """The pipeline's rate between false jumps is too high, and 7 of 12 would be HOT; a pixel that never jumps is."""
    rates = write_darks(tmp_path, exposures=12)
    for path in rates:
        with fits.open(path, mode="update") as hdus:
            hdus["SCI"].data[0, 22, 60:62] = 50.0
        with fits.open(str(path).replace("_rateints", "_jump"), mode="update") as hdus:
            hdus["GROUPDQ"].data[0, [5, 9], 22, 60] |= JUMP
    found = run(rates, examined_integrations=5)
    assert not found.maps["hot"][22, 60]
    assert found.maps["hot"][22, 61]
    np.testing.assert_array_equal(
        np.argwhere(found.maps["hot"]), sorted([*np.argwhere(truth()["hot"]).tolist(), [22, 61]])
    )


def edit(rate, suffix, **images):
    """Change images of one product of an exposure: a function of each image."""
    with fits.open(str(rate).replace("_rateints", suffix), mode="update") as hdus:
        for name, change in images.items():
            change(hdus[name].data)


@pytest.mark.slow
def test_rows_that_one_exposure_lost_do_not_turn_a_search_off(tmp_path):
    rates = write_darks(tmp_path, exposures=8)

    def lose(image):
        image[..., 32:, :] = 1 if image.dtype.kind == "u" else np.nan

    def spoil(image):
        image[..., 32:, :] = 1e5 * np.sin(np.arange(image.shape[1]))[:, None, None]

    edit(rates[2], "_jump", GROUPDQ=lose, SCI=spoil)
    edit(rates[2], "_rateints", SCI=lose)
    found = run(rates)
    assert not any("nan" in note for note in found.notes)
    assert not any("mask was in use" in note for note in found.notes)
    for name in ("hot", "rc", "noisy", "low_pedestal"):
        np.testing.assert_array_equal(np.argwhere(found.maps[name]), np.argwhere(truth()[name]), err_msg=name)


@pytest.mark.slow
def test_defects_that_a_mask_in_use_holds_are_found_again(tmp_path):
    """The pipeline puts the mask's DO_NOT_USE into every group, and fits neither slopes nor pedestals there."""
    rates = write_darks(tmp_path, exposures=8)
    held = [DEFECTS[kind][0] for kind in ("hot", "rc", "noisy", "telegraph")]

    def hold(image):
        for y, x in held:
            image[..., y, x] = image[..., y, x] | 1 if image.dtype.kind == "u" else 0

    for rate in rates:
        edit(rate, "_jump", GROUPDQ=hold)
        edit(rate, "_rateints", SCI=hold, VAR_POISSON=hold)
        edit(rate, "_fitopt", PEDESTAL=hold)
    found = run(rates)
    assert any("DO_NOT_USE in every group: a mask was in use" in note for note in found.notes)
    for name in ("hot", "rc", "noisy", "telegraph", "low_pedestal"):
        np.testing.assert_array_equal(np.argwhere(found.maps[name]), np.argwhere(truth()[name]), err_msg=name)


def test_segments_of_a_long_exposure_hold_part_of_its_integrations(tmp_path):
    rates = write_darks(tmp_path, exposures=2, integrations=4)
    for rate, first in zip(rates, (1, 5), strict=True):
        for suffix in ("_rateints", "_jump", "_fitopt"):
            with fits.open(str(rate).replace("_rateints", suffix), mode="update") as hdus:
                hdus[0].header.update(NINTS=8, INTSTART=first, INTEND=first + 3)
    assert dark_inputs.open_darks(rates, {}, skip_bad=False).integrations == 8
    fits.setval(rates[0], "INTEND", value=5)
    fits.setval(str(rates[0]).replace("_rateints", "_jump"), "INTEND", value=5)
    fits.setval(str(rates[0]).replace("_rateints", "_fitopt"), "INTEND", value=5)
    with pytest.raises(DataError, match=r"INTSTART = 1, INTEND = 5, but .*holds 4 integrations"):
        dark_inputs.open_darks(rates, {}, skip_bad=False)


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "rows", "gathered"), [(3.5e6, 64, 6), (6.8e6, 64, 512)])
def test_any_band_height_and_worker_gives_the_same_bytes(rates, found, memory, rows, gathered, monkeypatch):
    monkeypatch.setattr(plan, "TASK_ROWS", rows)  # several runs of rows in a task,
    monkeypatch.setattr(bands, "GATHERED", gathered)  # and so few pixels together that some runs have more
    with ThreadPoolExecutor(3) as executor:
        other = run(rates, memory=memory, executor=executor)
    for name, image in found.maps.items():
        np.testing.assert_array_equal(image, other.maps[name])
    assert found.evidence.images.keys() == other.evidence.images.keys()
    for name, image in found.evidence.images.items():
        np.testing.assert_array_equal(image, other.evidence.images[name], err_msg=name)
    assert found.evidence.rules == other.evidence.rules
    assert found.notes == other.notes


def test_order_of_inputs_does_not_matter_much(rates, found):
    other = run(rates[::-1])
    for name, image in found.maps.items():
        np.testing.assert_array_equal(image, other.maps[name])


@pytest.mark.parametrize("name", ["hot", "rc", "telegraph", "noisy", "low_pedestal"])
def test_rules_of_the_evidence_give_the_maps(found, name):
    ways = {}
    for rule in found.evidence.rules:
        if rule.search == name:
            with np.errstate(invalid="ignore"):
                holds = COMPARISONS[rule.comparison](found.evidence.images[rule.quantity], rule.limit)
            ways[rule.way] = ways.get(rule.way, True) & holds
    np.testing.assert_array_equal(np.any(list(ways.values()), axis=0), found.maps[name])


def test_samples_hold_each_integration_of_flagged_pixels(found):
    sample = found.evidence.samples["dark_rate"]
    at = {(y, x): row for y, x, row in zip(sample.y, sample.x, sample.values, strict=True)}
    assert set(at) >= {place for places in DEFECTS.values() for place in places}
    assert at[DEFECTS["hot"][0]].shape == (8,)
    assert np.median(at[DEFECTS["hot"][0]]) == pytest.approx(9.0, rel=0.02)


@pytest.mark.slow
def test_reference_pixels_are_never_flagged(tmp_path):
    defects = {**DEFECTS, "hot": [(2, 20), (20, 1), (20, 50)]}
    maps = run(write_darks(tmp_path, exposures=6, defects=defects, window=CORNER, subarray="SUB160")).maps
    assert maps["hot"][20, 50]
    for image in maps.values():
        assert not image[:4].any()
        assert not image[:, :4].any()


@pytest.mark.slow
def test_a_hot_limit_in_dn_per_second(rates):
    assert run(rates, hot_max_rate=12.0).maps["hot"].sum() == 1  # the saturated one
    assert run(rates, hot_max_rate=5.0, hot_sigma_threshold=None).maps["hot"].sum() == 3
    assert "hot" in run(rates, hot_sigma_threshold=None).maps


@pytest.mark.slow
def test_stricter_limits_never_gain_a_pixel(rates, found):
    for name, change in {
        "hot": {"hot_sigma_threshold": 30.0},
        "noisy": {"noisy_sigma_threshold": 12.0},
        "rc": {"rc_sigma_threshold": 12.0},
        "low_pedestal": {"low_pedestal_sigma_threshold": 9.0},
    }.items():
        strict = run(rates, **change).maps[name]
        assert not (strict & ~found.maps[name]).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hot", {"hot_sigma_threshold": 1.0, "hot_own_threshold": 0.0}),
        ("noisy", {"noisy_sigma_threshold": 1.5, "noisy_min_ratio": 1.0}),
        ("telegraph", {"telegraph_likelihood": 0.0, "telegraph_suspects": 0.5}),
        ("low_pedestal", {"low_pedestal_sigma_threshold": 2.0}),
    ],
)
def test_lower_limits_reach_every_pixel_above_them(rates, name, change):
    """Nothing that a rule would flag is lost because it was no candidate."""
    found = run(rates, **change)
    want = np.zeros(SHAPE, bool)
    for rule in found.evidence.rules:
        if rule.search == name and not rule.quantity.endswith("withheld") and rule.way == 1:
            with np.errstate(invalid="ignore"):
                want |= COMPARISONS[rule.comparison](found.evidence.images[rule.quantity], rule.limit)
            break
    assert want.sum() >= 4  # or the rest of the test says nothing
    held = found.evidence.images[f"{name}_withheld"] > 0
    assert not (want & ~held & ~found.maps[name]).any()


def test_warm_is_below_hot(rates):
    maps = run(rates, hot_max_rate=12.0, warm_sigma_threshold=10.0).maps
    assert [tuple(p) for p in np.argwhere(maps["warm"])] == DEFECTS["hot"]
    assert not (maps["warm"] & maps["hot"]).any()


def test_quiet_darks_have_no_bad_pixels(tmp_path):
    maps = run(write_darks(tmp_path, exposures=6, defects={}, shape=(64, 96))).maps
    assert sum(int(m.sum()) for m in maps.values()) == 0


def test_few_integrations_are_said_and_pixels_without_data_are_not_bad(tmp_path):
    found = run(write_darks(tmp_path, exposures=4))
    assert any("4 integrations" in note for note in found.notes)
    assert any("undetermined" in note for note in found.notes)
    around = [(y, x) for y in (11, 12, 13) for x in (69, 70, 71) if (y, x) != (12, 70)]
    for image in found.maps.values():
        assert not any(image[p] for p in around)


def test_short_ramps_leave_tests_out_and_say_so(tmp_path):
    for groups in (2, 4):
        defects = {k: v for k, v in DEFECTS.items() if k in ("hot", "saturated", "low_pedestal")}
        found = run(write_darks(tmp_path / str(groups), exposures=6, groups=groups, defects=defects))
        assert any("not searched" in note for note in found.notes)
        np.testing.assert_array_equal(np.argwhere(found.maps["hot"]), np.argwhere(truth()["hot"]))


@pytest.mark.slow
def test_masked_groups_of_miri_are_left_out(tmp_path):
    files = []
    for k in range(1, 7):
        ramps, flags, pedestal = make_ramps(k, groups=32, defects={"hot": [(6, 10)], "rc": [(30, 20)]})
        flags[:, 0] |= 1
        flags[:, -1] |= 1
        ramps[:, 0] -= 500
        window = CORNER._replace(xstart=101)
        files.append(
            write_dark(tmp_path, k, ramps, flags, pedestal, detector="MIRIMAGE", window=window, subarray="SUB64")
        )
    found = run(files)
    assert np.argwhere(found.maps["hot"]).tolist() == [[6, 10]]
    assert np.argwhere(found.maps["rc"]).tolist() == [[30, 20]]


# --- inputs that do not fit ----------------------------------------------------------------------------------


def change(path, name, **keywords):
    with fits.open(path, mode="update") as hdus:
        for key, value in keywords.items():
            hdus[name].header[key.replace("_", "-") if key.startswith("DATE") else key] = value


@pytest.fixture
def three(tmp_path):
    return write_darks(tmp_path, exposures=3, groups=8, defects={})


def test_a_missing_companion_is_named(three):
    three[1].with_name("dark02_fitopt.fits").unlink()
    with pytest.raises(DataError, match=r"dark02_fitopt\.fits"):
        run(three)


@pytest.mark.parametrize("keyword", ["GROUPGAP", "NFRAMES"])
def test_a_readout_that_is_no_number_is_named(three, keyword):
    fits.setval(three[1], keyword, value="x")
    with pytest.raises(DataError, match=rf"dark02_rateints\.fits: keyword {keyword} = 'x', expected a whole number"):
        run(three)


def test_rate_of_several_integrations_uses_the_rateints_beside_it(tmp_path):
    rates = write_darks(tmp_path, exposures=3, integrations=2, groups=8, defects={})
    slopes = []
    for path in rates:
        with fits.open(path) as hdus:
            for name in ("SCI", "DQ", "VAR_POISSON"):
                hdus[name].data = hdus[name].data[0]
            slopes.append(path.with_name(path.name.replace("rateints", "rate")))
            hdus.writeto(slopes[-1])
    opened = dark_inputs.open_darks(slopes, {})
    assert [f.rate.path for f in opened.files] == rates
    rates[1].unlink()
    with pytest.raises(DataError, match=r"dark02_rateints\.fits is not beside it"):
        dark_inputs.open_darks(slopes, {})


@pytest.mark.parametrize(
    ("role", "keywords", "match"),
    [
        ("jump", {"S_JUMP": "SKIPPED"}, "S_JUMP"),
        ("rateints", {"S_RAMP": "SKIPPED"}, "S_RAMP"),
        ("jump", {"DATE_OBS": "2020-01-01"}, "DATE-OBS"),
        ("fitopt", {"DETECTOR": "NRCB2"}, "DETECTOR"),
        ("rateints", {"TGROUP": 3.0}, "TGROUP"),
    ],
)
def test_files_that_do_not_belong_together_are_named(three, role, keywords, match):
    path = three[1].with_name(f"dark02_{role}.fits")
    change(path, 0, **keywords)
    with pytest.raises(DataError, match=match) as error:
        run(three)
    assert "dark02" in str(error.value)
    opened = dark_inputs.open_darks(three, {}, skip_bad=True)
    assert [p.name for p, _ in opened.rejected] == ["dark02_rateints.fits"]
    assert opened.integrations == 2


def test_groupdq_of_another_shape_and_a_fitopt_without_pedestal(three):
    path = three[0].with_name("dark01_jump.fits")
    with fits.open(path, mode="update") as hdus:
        hdus["GROUPDQ"].data = hdus["GROUPDQ"].data[:, :-1]
    with pytest.raises(DataError, match="GROUPDQ has shape"):
        run(three)
    path = three[1].with_name("dark02_fitopt.fits")
    with fits.open(path, mode="update") as hdus:
        hdus["PEDESTAL"].name = "WEIGHTS"
    with pytest.raises(DataError, match="PEDESTAL is missing"):
        dark_inputs.open_darks(three[1:], {})


def test_companions_are_matched_by_name_whatever_their_order(three):
    jumps = [p.with_name(p.name.replace("rateints", "jump")) for p in three]
    opened = dark_inputs.open_darks(three, {"jump": jumps[::-1]})
    assert [f.jump.path for f in opened.files] == jumps
    with pytest.raises(UsageError, match="2 files for 3"):
        dark_inputs.open_darks(three, {"jump": jumps[:2]})


def test_one_integration_alone_is_an_error(three):
    with pytest.raises(DataError, match="min_integrations"):
        run(three[:1])


def test_frames_that_are_saturated_throughout_are_no_darks(tmp_path):
    files = []
    for k in range(1, 4):
        ramps, flags, pedestal = make_ramps(k, groups=8, defects={})
        files.append(write_dark(tmp_path, k, ramps, flags | SATURATED, pedestal))
    with pytest.raises(DataError, match="no darks"):
        run(files)


def test_a_file_that_changes_during_the_run_is_an_error(three):
    opened = dark_inputs.open_darks(three, {})
    three[1].with_name("dark02_jump.fits").unlink()
    with pytest.raises(DataError, match="dark02_jump"):
        darks_search.search(opened, SECTION.from_values({}, "test"))
    assert list(dark_inputs.find_changed(opened.files)) == [three[1]]


def test_a_memory_limit_that_is_too_small_is_an_error(three):
    with pytest.raises(UsageError, match="--max-memory"):
        run(three, memory=1e4)


@pytest.mark.slow
def test_a_bias_map_shows_low_pedestals_under_a_bias_that_scatters(tmp_path):
    """MIRI: 300 DN are lost in a bias that scatters by 200 DN, and found against a map of it."""
    bias = np.random.default_rng(9).normal(8000, 200, SHAPE).astype(np.float32)
    files = []
    for k in range(1, 7):
        ramps, flags, pedestal = make_ramps(k, defects={"low_pedestal": DEFECTS["low_pedestal"]})
        path = write_dark(
            tmp_path,
            k,
            ramps + bias,
            flags,
            pedestal + bias,
            detector="MIRIMAGE",
            window=CORNER._replace(xstart=101),
            subarray="SUB64",
        )
        with fits.open(path.with_name(path.name.replace("rateints", "jump")), mode="update") as hdus:
            hdus[0].header["S_SUPERB"] = "SKIPPED"
        files.append(path)
    assert run(files).maps["low_pedestal"].sum() == 0
    opened = dark_inputs.open_darks(files, {})
    p = SECTION.from_values({"bias_map": "given"}, "test")
    found = darks_search.search(opened, p, bias=bias).maps["low_pedestal"]
    assert [tuple(q) for q in np.argwhere(found)] == DEFECTS["low_pedestal"]
    for name, hdus in (("a", [fits.PrimaryHDU(bias)]), ("b", [fits.PrimaryHDU(), fits.ImageHDU(bias)])):
        fits.HDUList(hdus).writeto(tmp_path / f"{name}.fits")
        np.testing.assert_array_equal(darks_build.read_bias(str(tmp_path / f"{name}.fits"), opened), bias)
    fits.PrimaryHDU().writeto(tmp_path / "c.fits")
    with pytest.raises(DataError, match="holds no image"):
        darks_build.read_bias(str(tmp_path / "c.fits"), opened)


def test_a_limit_below_the_noise_is_raised_and_that_is_said(rates):
    """Shallow darks must not call half of the detector hot."""
    found = run(rates, hot_max_rate=0.01, hot_sigma_threshold=None)
    assert found.maps["hot"].sum() == 3
    assert any("too shallow" in note for note in found.notes)
