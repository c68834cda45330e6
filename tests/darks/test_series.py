"""The order of time against injected truth: births, recoveries, pixels hot now and then, persistence, temperature."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from dark_files import TGROUP, make_ramps, write_dark

from badpix.cli.main import badpix
from badpix.darks import changes, series
from badpix.darks.bands import find_lone
from badpix.darks.inputs import open_darks
from badpix.darks.search import search
from badpix.io.dates import read_date
from badpix.numerics.neighbors import Places
from badpix.settings.darks import FLAG_VALUES, KEYS, DarkSettings

STEPS = 8
LIMIT = 1.0


def judge(rate, bright=None, noise=5.0, shot=0.0):
    rate = np.atleast_2d(np.asarray(rate, np.float32))
    seen = np.isfinite(rate)
    bright = (rate > LIMIT) if bright is None else np.atleast_2d(bright)
    table = {
        "noise": np.broadcast_to(np.float32(noise), rate.shape),
        "bright": bright.astype(np.float32),
        "used": seen.astype(np.float32),
    }
    quiet, shot = np.full(len(rate), 5.0, np.float32), np.full(len(rate), shot, np.float32)
    return series.judge(table, rate, quiet, shot, limit=LIMIT, fraction=0.2)


@pytest.mark.parametrize(
    ("rate", "verdict", "first", "last"),
    [
        ([0, 0, 0, 0, 0, 0, 5, 5], "born", 6, 7),
        ([0, 0, 5, 5, np.nan, 5, 5, 5], "born", 2, 7),
        ([5, 5, 5, 0, 0, 0, 0, 0], "recovered", 0, 2),
        ([0, 5, 0, 0, 0, 5, 0, 0], "intermittent", 1, 5),
        ([5, 5, 0, 5, 0, 5, 5, 0], "intermittent", 0, 6),
        ([0, 0, 9, 4, 1.5, 0.4, 0, 0], "decaying", 2, 4),
        ([5, 5, 5, 5, 5, 5, 5, 5], "always", 0, 7),
        ([0, 0, 0, 0, 0, 0, 0, 5], None, 7, 7),
        ([0, 0, 0, 0, 0, 0, 0, 0], None, -1, -1),
    ],
)
def test_the_order_of_time_tells_the_kind_of_change(rate, verdict, first, last):
    found = judge(rate)
    kinds = [k for k in ("born", "recovered", "intermittent", "decaying", "always") if getattr(found, k)[0]]
    assert kinds == ([verdict] if verdict else [])
    assert (found.first[0], found.last[0]) == (first, last)


def test_a_decay_needs_quiet_ramps_where_the_rate_is_low():
    rate = np.array([0, 0, 9, 4, 1.5, 0.4, 0, 0])
    assert judge(rate).decaying[0]
    assert not judge(rate, noise=20.0).decaying[0]


def test_traps_that_release_as_a_power_of_time_decay():
    """1 / t from the second exposure on: the later, the slower."""
    released = 9.0 * np.log1p(1 / np.arange(1, 7)) / np.log(2)
    assert judge([0, 0, *(20 * released)]).decaying[0]


def test_a_rate_that_falls_along_a_line_is_no_decay():
    """Traps empty ever more slowly; the dark current of a defect may fade evenly."""
    rate = 10 * np.linspace(3, 0.08, 8)
    found = judge(rate, bright=rate > LIMIT)
    assert not found.decaying[0]
    assert found.always[0] or found.recovered[0] or found.intermittent[0]
    assert judge(30 * 0.5 ** np.arange(8.0)).decaying[0]


def test_a_pixel_that_fades_alone_and_is_still_bright_is_no_persistence():
    """Persistence is the image of a field: others fade beside it from the same exposure on."""
    y, x = np.divmod(np.arange(9), 3)
    index = np.concatenate([(10 + y) * 64 + 10 + x, [40 * 64 + 40]])
    fades = np.geomspace(60, 6, STEPS)
    rate = np.concatenate([np.outer(np.linspace(0.3, 1, 9), fades), fades[None]]).astype(np.float32)
    table = {"noise": np.full_like(rate, 5), "bright": (rate > LIMIT).astype(np.float32), "used": np.ones_like(rate)}
    some = np.full(10, 5.0, np.float32), np.zeros(10, np.float32)

    def fading(keep):
        part = {name: values[keep] for name, values in table.items()}
        mine = (some[0][keep], some[1][keep])
        return series.judge(part, rate[keep], *mine, limit=LIMIT, fraction=0.2, places=Places(index[keep], (64, 64)))

    assert fading(np.arange(10)).decaying.all()
    alone = fading(np.array([0, 9]))
    assert not alone.decaying.any()
    assert alone.always.all()


def test_shot_noise_of_glow_is_no_change():
    rate = [0, 1.2, 0, 0, 0, 1.3, 0, 0]
    assert judge(rate).intermittent[0]
    assert judge(rate, shot=0.05).intermittent[0]
    assert not judge(rate, shot=0.3).intermittent[0]


def test_glow_that_was_divided_by_a_temperature_does_not_change():
    """Glow of 1 DN/s, in darks of which two were cold: divided by their scale it looks 2.5 times as bright."""
    scales = np.array([1, 1, 0.4, 1, 0.4, 1.2, 1.1])
    shape = (41, 41)
    places = Places(np.array([20 * 41 + 20]), shape)
    rate = np.float32(1 / scales)[None]
    table = {"rate": rate, "noise": np.full_like(rate, 5), "bright": np.ones_like(rate), "used": np.ones_like(rate)}
    one, none = np.ones(1, np.float32), np.zeros(1, np.float32)
    settings = {"cut": np.zeros(1, bool), "ipc": 0.0, "overrun": 0.0, "limit": 0.5, "fraction": 0.2}
    median = np.ones(shape, np.float32)
    assert changes.judge(table, places, one, none, median, **settings).intermittent[0]
    assert not changes.judge(table, places, one, none, median, tuple(scales), **settings).intermittent[0]
    table["rate"] = rate + np.array([0, 3, 0, 3, 0, 0, 3], np.float32)  # hot by itself
    assert changes.judge(table, places, one, none, median, tuple(scales), **settings).intermittent[0]


def test_a_plateau_that_ends_is_no_decay():
    assert not judge([0, 0, 6, 6, 6, 0, 0, 0]).decaying[0]


def test_more_bright_steps_never_lose_a_pixel():
    rng = np.random.default_rng(1)
    rate = np.where(rng.random((2000, STEPS)) < 0.5, 5.0, 0.0)
    found, more = judge(rate), judge(np.where(rng.random(rate.shape) < 0.2, 5.0, rate))

    def any_kind(v):
        return v.born | v.intermittent | v.recovered | v.decaying | v.always

    assert not (any_kind(found) & ~any_kind(more)).any()


@pytest.mark.parametrize(
    ("dates", "integrations", "steps", "exposures"),
    [
        ([3.0, 1.0, 2.0], [1, 1, 1], (2, 0, 1), (1, 2, 0)),
        ([3.0, 1.0, np.nan], [2, 1, 1], (1, 1, 0, 2), (1, 0, 2)),
        ([2.0, 1.0], [2, 3], (3, 4, 0, 1, 2), (1, 1, 1, 0, 0)),
    ],
)
def test_steps_follow_the_dates(dates, integrations, steps, exposures):
    assert series.order_steps(dates, integrations) == (steps, exposures)


@pytest.mark.parametrize(
    ("header", "date"),
    [
        ({"EXPSTART": 60000.25, "DATE-OBS": "2020-01-01"}, 60000.25),
        ({"DATE-OBS": "2023-02-25", "TIME-OBS": "12:00:00.000"}, 60000.5),
        ({"DATE-OBS": "2023-02-25"}, 60000.0),
        ({"EXPSTART": 0.0, "DATE-OBS": "soon"}, np.nan),
        ({}, np.nan),
    ],
)
def test_dates_come_from_the_header(header, date):
    assert read_date(header) == pytest.approx(date, nan_ok=True)


def test_the_scale_of_the_dark_current_is_that_of_all_hot_pixels():
    rng = np.random.default_rng(2)
    true = np.array([0.6, 1.0, 1.0, 1.0, 2.5])
    own = rng.uniform(1, 50, (40, 1))
    rates = own * true * (1 + 0.02 * rng.normal(size=(40, 5)))
    rates[0, 3] *= 7  # a pixel that changes by itself
    np.testing.assert_allclose(series.measure_scales(rates.astype(np.float32), range(5), 0.5), true, rtol=0.02)
    steady = own * (1 + 0.02 * rng.normal(size=(40, 5)))
    assert (series.measure_scales(steady.astype(np.float32), range(5), 0.5) == 1).all()
    assert (series.measure_scales(rates[:5].astype(np.float32), range(5), 0.5) == 1).all()


def test_decaying_charge_of_a_bright_field_is_no_temperature():
    rng = np.random.default_rng(3)
    hot = rng.uniform(1, 50, (10, 1)) * np.ones(5)
    decays = rng.uniform(1, 50, (200, 1)) * np.array([8.0, 2.5, 1.0, 0.55, 0.3]) ** rng.uniform(0.9, 1.1, (200, 1))
    rates = np.concatenate([hot, decays]) * (1 + 0.02 * rng.normal(size=(210, 5)))
    assert (series.measure_scales(rates.astype(np.float32), tuple(range(5)), 0.5) == 1).all()
    cooling = rng.uniform(1, 50, (40, 1)) * np.array([4.0, 2.0, 1.0, 0.8, 0.6])
    found = series.measure_scales(cooling.astype(np.float32), tuple(range(5)), 0.5)
    np.testing.assert_allclose(found, [4.0, 2.0, 1.0, 0.8, 0.6], rtol=0.02)


def test_hot_pixels_that_tell_of_the_temperature_stand_alone():
    rate = np.zeros((9, 9), np.float32)
    rate[1, 1], rate[1, 2] = 10.0, 0.3  # what it leaks
    rate[5:7, 5:8] = 3.0  # an area
    rate[8, 0] = 2.0
    assert np.argwhere(find_lone(rate, 1.0)).tolist() == [[1, 1], [8, 0]]


def write_series(folder, rates, number=10, groups=20):
    """Darks of pixels whose rates (DN/s) by exposure are given as (y, x) -> list; hits that no flag tells."""
    paths = []
    for k in range(number):
        ramps, flags, reset = make_ramps(100 + k, 1, groups=groups, shape=(48, 96), defects={})
        g = np.arange(groups)
        for (y, x), series_of in rates.items():
            ramps[0, :, y, x] += series_of[k] * TGROUP * g
        rng = np.random.default_rng(k)
        for y, x in zip(rng.integers(0, 48, 40), rng.integers(0, 96, 40), strict=True):
            ramps[0, rng.integers(4, groups - 4) :, y, x] += 16  # three sigma: no jump flag
        paths.append(write_dark(folder, number - k, ramps, flags, reset, EXPSTART=60000.0 + k))
    return paths


def run(paths, **values):
    p = DarkSettings.from_values(values, "test")
    return search(open_darks(paths, {}), p)


RATES = {
    (8, 10): [0.0] * 8 + [0.6] * 2,
    (8, 40): [0.0] * 6 + [3.0] * 4,
    (20, 20): [0, 0.6, 0, 0, 0, 0, 0.6, 0, 0, 0],
    (20, 60): [3, 0, 0, 3, 0, 0, 3, 0, 3, 0],
    (30, 30): [3.0] * 4 + [0.0] * 6,
    (30, 70): [0, 0, 0, 5, 2.5, 1.2, 0.5, 0.2, 0, 0],
    (40, 50): [0.5, 1, 2, 1, 0.5, 0.7, 3, 0.4, 1, 2],
}


@pytest.mark.slow
def test_darks_tell_births_and_intermittent_pixels_with_their_dates(tmp_path):
    found = run(write_series(tmp_path, RATES))
    want = np.zeros((2, 48, 96), bool)
    for y, x in ((8, 10), (8, 40), (40, 50)):
        want[0, y, x] = True
    for y, x in ((20, 20), (20, 60)):
        want[1, y, x] = True
    np.testing.assert_array_equal(found.maps["hot"], want[0])
    np.testing.assert_array_equal(found.maps["intermittent"], want[1])
    assert not any(image[30, 30] or image[30, 70] for image in found.maps.values())
    images = found.evidence.images
    assert (images["dark_bright_first"][8, 10], images["dark_bright_first"][8, 40]) == (60008, 60006)
    assert (images["dark_bright_first"][20, 60], images["dark_bright_last"][20, 60]) == (60000, 60008)
    assert images["dark_bright_fraction"][20, 60] == pytest.approx(0.4)
    assert (images["dark_recovered"][30, 30], images["dark_bright_last"][30, 30]) == (1, 60003)
    assert (images["dark_decays"][30, 70], images["dark_undetermined"][30, 70]) == (1, 1)
    assert [date for _, date, _ in found.evidence.exposures] == [60000.0 + k for k in range(10)]
    states = found.evidence.samples["step_state"]
    at = np.flatnonzero((states.x == 20) & (states.y == 20))[0]
    assert states.values[at].tolist() == [0, 1, 0, 0, 0, 0, 1, 0, 0, 0]
    assert any("1 since 2023-03-03, 1 since 2023-03-05" in note for note in found.notes)


@pytest.mark.slow
def test_explain_tells_the_history_of_a_pixel(tmp_path):
    write_series(tmp_path / "darks", RATES)
    run_cli = CliRunner().invoke
    mask = str(tmp_path / "m.fits")
    assert run_cli(badpix, ["darks", str(tmp_path / "darks"), "-o", mask, "--evidence"]).exit_code == 0
    said = " ".join(run_cli(badpix, ["explain", mask, "1059", "919"]).output.split())
    assert "Hot in 4 of 10 darks, first 2023-02-25, last 2023-03-05." in said
    assert said.count("*,") == 4
    said = " ".join(run_cli(badpix, ["explain", mask, "1039", "907"]).output.split())
    assert "Hot in 4 of 10 darks, first 2023-03-03, last 2023-03-06: it became hot within these darks." in said
    said = " ".join(run_cli(badpix, ["explain", mask, "1069", "929"]).output.split())
    assert "nobody knows whether it is good: the charge of an earlier exposure decays" in said


@pytest.mark.slow
def test_time_can_be_left_out(tmp_path):
    found = run(write_series(tmp_path, RATES), time_search=False)
    assert "intermittent" not in found.maps
    assert not found.maps["hot"][8, 10]


@pytest.mark.slow
def test_the_order_of_the_files_says_nothing(tmp_path):
    paths = write_series(tmp_path, RATES)
    one, other = run(paths), run(paths[::-1])
    for name in one.maps:
        np.testing.assert_array_equal(one.maps[name], other.maps[name])


def test_settings_know_the_types():
    assert set(FLAG_VALUES) == set(KEYS)


def test_a_steady_pixel_at_the_limit_does_not_change():
    found = judge([1.05, 0.95, 1.04, 0.97, 1.03, 0.96, 1.02, 0.98])
    assert not (found.born | found.intermittent | found.recovered).any()
    assert judge([1.8, 0.95, 1.9, 0.97, 1.7, 0.96, 1.8, 0.98]).intermittent.all()
