"""DEAD, LOW_QE, OPEN and ADJ_OPEN: injected truth and a plain implementation, compared as whole maps."""

from __future__ import annotations

import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import INTERIOR, couple, make_flats, put_open, write_rate, write_rates, write_uncal
from plain_flats import find_documented as find_plainly

from badpix import detectors
from badpix.detectors import Window
from badpix.errors import DataError
from badpix.flats import search as flats_search
from badpix.flats import types as flat_types
from badpix.io.evidence import holds
from badpix.io.exposure import open_exposure
from badpix.settings import param
from badpix.settings.flats import FlatSettings

SECTION = FlatSettings
TYPES = flats_search.TYPES
BIG = Window(901, 801, 160, 128)  # an interior window: no reference pixels
MIRI = detectors.get("MIRIMAGE")
NRC = detectors.get("NRCB1")


def settings_of(parameter_set="default", **values):
    return SECTION.from_values(values, "test", parameter_set)


def search(folder, stack, parameter_set="default", uncals=(), executor=None, memory=1e9, window=BIG, **values):
    options = {k: values.pop(k) for k in ("detector", "flags", "subarray") if k in values}
    rates = [open_exposure(p) for p in write_rates(folder, stack, window=window, **options)]
    p = settings_of(parameter_set, **values)
    return flats_search.search(rates, p, uncals=uncals, executor=executor, memory=memory)


def same_maps(found, truth):
    for name in TYPES:
        wanted = truth.get(name, np.zeros(found.maps[name].shape, bool))
        wrong = np.argwhere(found.maps[name] != wanted)
        assert not len(wrong), f"{name}: differs at (y, x) {wrong[:8].tolist()}; {len(wrong)} pixels"


def no_truth(shape=(128, 160)):
    return {name: np.zeros(shape, bool) for name in TYPES}


def mark_open(truth, y, x):
    """An OPEN pixel and its neighbors; ADJ_OPEN only where nothing else is."""
    truth["OPEN"][y, x] = True
    near = np.zeros(truth["OPEN"].shape, bool)
    near[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    truth["ADJ_OPEN"] |= near
    truth["ADJ_OPEN"] &= ~(truth["OPEN"] | truth["DEAD"] | truth["LOW_QE"])


# --- the documented rules against a plain implementation -------------------------------------------------


def find_documented(stack, border):
    """The plain implementation; that astropy clips what was not measured is known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return find_plainly(stack, border)


def documented_stack(seed):
    """Defects of all kinds, also on edges, in corners, touching each other, and unmeasured pixels."""
    rng = np.random.default_rng(seed)
    stack = make_flats(6, (128, 160), seed=seed, spread=0.01, gradient=0.1)
    for _ in range(60):
        y, x = rng.integers(0, 128), rng.integers(0, 160)
        put_open(stack, y, x, rng.uniform(0.02, 0.6), gain=rng.uniform(0.02, 0.2))
    for y, x in ((0, 0), (0, 159), (127, 0), (127, 159), (0, 50), (60, 0), (127, 70), (61, 159)):
        put_open(stack, y, x, 0.2, gain=0.3)
    for y, x in ((40, 40), (40, 41), (80, 90), (81, 90), (100, 20), (101, 21)):
        put_open(stack, y, x, 0.2, gain=0.3)
    for _ in range(60):
        y, x = rng.integers(0, 128), rng.integers(0, 160)
        stack[:, y, x] *= rng.uniform(0, 0.6)
    stack[:, 20:24, 30:33] = np.nan
    put_open(stack, 22, 33, 0.2)  # its neighbor was not measured
    stack[2, rng.random((128, 160)) < 0.01] *= 30
    stack[3, rng.random((128, 160)) < 0.01] = np.nan
    return stack


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("detector", ["NRCB1", "MIRIMAGE"])
def test_documented_set_equals_the_plain_implementation(tmp_path, seed, detector):
    stack = documented_stack(seed)
    window = BIG if detector == "NRCB1" else Window(300, 400, 160, 128)
    found = search(tmp_path, stack, "documented", detector=detector, window=window)
    wanted = find_documented(stack, (0, 0, 0, 0))
    same_maps(found, wanted)
    assert all(wanted[name].sum() > 20 for name in TYPES)
    assert wanted["OPEN"][0, 0]
    assert wanted["ADJ_OPEN"][0, 1]  # a peer's slice is empty there


def test_documented_set_on_a_frame_with_reference_pixels(tmp_path):
    stack = documented_stack(3)
    stack[:, :4] = stack[:, :, :4] = 0.01
    found = search(tmp_path, stack, "documented", window=Window(1, 1, 160, 128))
    same_maps(found, find_documented(stack, (4, 0, 4, 0)))
    assert not any(found.maps[name][:4].any() or found.maps[name][:, :4].any() for name in TYPES)


def test_documented_absolute_rate(tmp_path):
    stack = make_flats(5, (128, 160))
    stack[:, 5, 5], stack[:, 9, 9] = 3, 8
    found = search(tmp_path, stack, "documented", dead_search_type="absolute_rate")
    assert np.argwhere(found.maps["DEAD"]).tolist() == [[5, 5]]
    assert np.argwhere(found.maps["LOW_QE"]).tolist() == [[9, 9]]
    wide = search(tmp_path, stack, "documented", dead_search_type="absolute_rate", max_dead_norm_signal=0.1)
    assert np.argwhere(wide.maps["DEAD"]).tolist() == [[5, 5], [9, 9]]


@pytest.mark.parametrize(
    ("detector", "limit"), [("NRCA1", 25), ("NRCA3", 30), ("NRCALONG", 40), ("NRCBLONG", 50), ("NIS", 0.05)]
)
def test_dead_limit_of_each_detector(tmp_path, detector, limit):
    """Where nothing is normalized each detector has its own limit; a peer always takes the first of the list."""
    stack = make_flats(3, (128, 160), level=1000)
    stack[:, 7, 7], stack[:, 9, 9] = 0.98 * limit, 1.02 * limit
    values = {
        "dead_search_type": "absolute_rate",
        "flat_mean_normalization_method": "none",
        "max_low_qe_norm_signal": 500,
    }
    found = search(tmp_path, stack, "documented", detector=detector, subarray="X", **values)
    assert np.argwhere(found.maps["DEAD"]).tolist() == [[7, 7]]
    assert flat_types.dead_limit(settings_of(), detectors.get(detector)) == 0.05
    assert flat_types.dead_limit(settings_of(max_dead_norm_signal=0.2), detectors.get(detector)) == 0.2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["smoothed", "mean", "mesh", "none"])
@pytest.mark.parametrize("smoothing", ["Box2D", "Median"])
@pytest.mark.parametrize("parameter_set", param.SETS)
def test_every_normalization_finds_dead_pixels(tmp_path, method, smoothing, parameter_set):
    stack = make_flats(4, (128, 160), level=10)
    stack[:, 30, 40] = 0.0
    found = search(
        tmp_path,
        stack,
        parameter_set,
        flat_mean_normalization_method=method,
        smoothing_type=smoothing,
        max_dead_norm_signal=0.05,
    )
    assert found.maps["DEAD"][30, 40]
    assert found.maps["DEAD"].sum() == 1


# --- the default: injected truth -------------------------------------------------------------------------

PLACES = {
    "corners": [(0, 0), (0, 159), (127, 0), (127, 159)],
    "edges": [(0, 40), (127, 60), (30, 0), (70, 159)],
    "inside": [(20, 20), (40, 90), (64, 64), (100, 130)],
}


@pytest.mark.slow
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("gradient", [0.0, 0.3])
@pytest.mark.parametrize(("level", "name"), [(0.0, "DEAD"), (0.03, "DEAD"), (0.07, "LOW_QE"), (0.4, "LOW_QE")])
def test_dead_and_low_qe(tmp_path, where, level, name, gradient):
    stack, truth = make_flats(5, (128, 160), gradient=gradient, lamp=0.05), no_truth()
    for y, x in PLACES[where]:
        stack[:, y, x] *= level
        truth[name][y, x] = True
    same_maps(search(tmp_path, stack, ipc_correction="none"), truth)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("level", [0.0, 0.02, 0.3, 0.45])
def test_open(tmp_path, where, level):
    """Also where its own response is near zero."""
    stack, truth = make_flats(5, (128, 160), gradient=0.2), no_truth()
    for y, x in PLACES[where]:
        put_open(stack, y, x, level)
        mark_open(truth, y, x)
    same_maps(search(tmp_path, stack, ipc_correction="none"), truth)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.02, 0.3])
@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, -1)])
@pytest.mark.parametrize("start", [(60, 70), (0, 80), (60, 1), (126, 158), (0, 1)])
def test_touching_open_pixels_stay_open(tmp_path, start, step, level):
    stack, truth = make_flats(5, (128, 160)), no_truth()
    pair = [start, (start[0] + step[0], start[1] + step[1])]
    for y, x in pair:
        put_open(stack, y, x, 1.0, gain=0.16)
    for y, x in pair:
        stack[:, y, x] = level * 100
        mark_open(truth, y, x)
    same_maps(search(tmp_path, stack, ipc_correction="none"), truth)


@pytest.mark.parametrize("step", [(1, 1), (1, -1), (-1, 1)])
@pytest.mark.parametrize(("level", "name"), [(0.3, "LOW_QE"), (0.0, "DEAD")])
def test_pixels_diagonal_to_an_open_one_are_not_open(tmp_path, step, level, name):
    """Two of their neighbors are bright for the open pixel's sake; also where several stand around it."""
    stack, truth = make_flats(5, (128, 160)), no_truth()
    for y, x in ((50, 50), (80, 90)):
        put_open(stack, y, x, 0.2, gain=0.4)
    beside = [(50 + step[0], 50 + step[1]), (81, 91), (81, 89), (79, 91)]
    for y, x in beside:
        stack[:, y, x] = level * 100
        truth[name][y, x] = True
    for y, x in ((50, 50), (80, 90)):
        mark_open(truth, y, x)
    same_maps(search(tmp_path, stack, ipc_correction="none"), truth)


@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1)])
def test_touching_dead_pixels_are_not_open(tmp_path, step):
    stack, truth = make_flats(5, (128, 160)), no_truth()
    for y, x in ((50, 50), (50 + step[0], 50 + step[1])):
        stack[:, y, x] = 0
        truth["DEAD"][y, x] = True
    same_maps(search(tmp_path, stack), truth)


def test_open_beside_dead(tmp_path):
    stack, truth = make_flats(5, (128, 160)), no_truth()
    put_open(stack, 50, 50, 0.2, gain=0.16, shared=0.04)
    stack[:, 50, 51] = 0
    stack[:, 50, 47] = 30
    truth["DEAD"][50, 51] = truth["LOW_QE"][50, 47] = True
    mark_open(truth, 50, 50)
    same_maps(search(tmp_path, stack, ipc_correction="none"), truth)


@pytest.mark.parametrize("hot", [1.3, 10, 1000])
def test_a_hot_neighbor_does_not_make_a_dead_pixel_open(tmp_path, hot):
    stack, truth = make_flats(5, (128, 160)), no_truth()
    stack[:, 50, 50] = 0
    stack[:, 50, 51] *= hot
    truth["DEAD"][50, 50] = True
    same_maps(search(tmp_path, stack, ipc_correction="none"), truth)


def test_a_hot_pixel_at_its_corner_does_not_make_a_dead_one_open(tmp_path):
    """Two side neighbors of the dead pixel show the hot one's charge, a little more than the coupling says."""
    stack, truth = make_flats(5, (128, 160)), no_truth()
    stack[:, 50, 50] = 0
    stack[:, 51, 51] *= 400
    for y, x in ((50, 51), (51, 50), (52, 51), (51, 52)):
        stack[:, y, x] *= 1 + 400 * 0.006
    truth["DEAD"][50, 50] = True
    same_maps(search(tmp_path, stack), truth)


def test_a_dead_pixel_in_the_middle_of_a_shadow_is_not_open(tmp_path):
    """Light that goes around a speck of dust: bright to the corners, too, and the illumination is below it."""
    stack, truth = make_flats(5, (128, 160)), no_truth()
    r = np.hypot(*(np.indices((128, 160)) - np.array([60, 70])[:, None, None]))
    stack *= 1 - 0.14 * ((r > 2.9) & (r < 11))
    stack[:, 60, 70] = 0
    truth["DEAD"][60, 70] = True
    same_maps(search(tmp_path, stack), truth)


@pytest.mark.parametrize("start", [(30, 50), (0, 0), (68, 100)])
def test_a_large_dead_cluster_is_found_whole(tmp_path, start):
    stack, truth = make_flats(5, (128, 160), gradient=0.2), no_truth()
    y, x = start
    stack[:, y : y + 60, x : x + 60] *= 0.01
    truth["DEAD"][y : y + 60, x : x + 60] = True
    same_maps(search(tmp_path, stack, large_areas="flag"), truth)


def test_unmeasured_pixels_are_undetermined(tmp_path):
    stack, truth = make_flats(5, (128, 160)), no_truth()
    stack[:, 40:43, 50:52] = np.nan
    stack[:, 43, 50] = 0
    truth["DEAD"][43, 50] = True
    found = search(tmp_path, stack)
    same_maps(found, truth)
    assert any("6 science pixels (0.029%) have no slope in any flat: undetermined" in n for n in found.notes)


def test_a_mask_in_the_flats_is_noticed(tmp_path):
    stack = make_flats(3, (128, 160))
    stack[:, :10] = np.nan
    assert any("were the flats reduced with a mask that sets DO_NOT_USE?" in n for n in search(tmp_path, stack).notes)


@pytest.mark.parametrize("alpha", [0.0055, 0.0154])
def test_coupled_charge_does_not_hide_dead_pixels(tmp_path, alpha):
    name = "NRCB1" if alpha < 0.01 else "MIRIMAGE"
    stack, truth = make_flats(5, (128, 160)), no_truth()
    for k, (y, x) in enumerate((y, x) for y in range(10, 120, 20) for x in range(10, 150, 20)):
        level = (0.0, 0.02, 0.3)[k % 3]
        stack[:, y, x] *= level
        truth["LOW_QE" if level == 0.3 else "DEAD"][y, x] = True
    seen = np.array([couple(image, alpha) for image in stack], np.float32)
    same_maps(search(tmp_path, seen, detector=name, window=Window(300, 300, 160, 128)), truth)


def test_a_coupling_that_hides_dead_pixels_is_noticed(tmp_path):
    """Dead pixels would all look like LOW_QE of one level; a spread of levels says nothing."""
    for spread, noticed in ((0.0, True), (0.3, False)):
        stack = make_flats(5, (128, 160))
        places = [(y, x) for y in range(10, 120, 20) for x in range(10, 150, 20)]
        for k, (y, x) in enumerate(places):
            stack[:, y, x] *= spread * k / len(places)
        seen = np.array([couple(image, 0.025) for image in stack], np.float32)
        notes = search(tmp_path / str(spread), seen).notes
        assert any("42 isolated pixels read the same 8" in n for n in notes) is noticed


def test_miri_has_reference_columns_only(tmp_path):
    """Rows at the bottom and at the top of MIRI are science pixels; reference columns are dark, and not DEAD."""
    stack, truth = make_flats(5, (64, 72), gradient=0.2), no_truth((64, 72))
    stack[:, :, :4] = 0.01
    for y, x in ((0, 4), (0, 30), (63, 71), (20, 4)):
        stack[:, y, x] *= 0.01
        truth["DEAD"][y, x] = True
    found = search(tmp_path, stack, detector="MIRIMAGE", window=Window(1, 779, 72, 64), ipc_correction="none")
    same_maps(found, truth)


def test_reference_pixels_of_a_corner_subarray(tmp_path):
    stack, truth = make_flats(5, (128, 160)), no_truth()
    stack[:, :4] = stack[:, :, :4] = 0
    for y, x in ((4, 4), (4, 159), (127, 4), (50, 60)):
        stack[:, y, x] *= 0.01
        truth["DEAD"][y, x] = True
    same_maps(search(tmp_path, stack, window=Window(1, 1, 160, 128), ipc_correction="none"), truth)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_flats(tmp_path, n):
    stack, truth = make_flats(n, (128, 160), noise=0.005), no_truth()
    stack[:, 9, 9] = 0
    truth["DEAD"][9, 9] = True
    found = search(tmp_path, stack)
    same_maps(found, truth)
    words = "one flat only" if n == 1 else f"{n} samples: a lone outlier can't be clipped at 3 sigma"
    assert any(words in note for note in found.notes)


def test_noisy_flats_do_not_guess(tmp_path):
    found = search(tmp_path, make_flats(1, (128, 160), noise=0.05))
    assert any("too noisy to tell OPEN from LOW_QE" in note for note in found.notes)


def test_infinite_and_huge_rates_of_single_samples(tmp_path):
    stack, truth = make_flats(12, (128, 160)), no_truth()
    rng = np.random.default_rng(8)
    for value in (np.nan, np.inf, -np.inf, 3e38, -3e38):
        stack[rng.random(stack.shape) < 1e-4] = value
    stack[:, 70, 70] = 0
    truth["DEAD"][70, 70] = True
    same_maps(search(tmp_path, stack), truth)


# --- properties ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter_set", param.SETS)
def test_a_constant_flat_has_no_defects(tmp_path, parameter_set):
    found = search(tmp_path, np.full((3, 128, 160), 5.0), parameter_set)
    same_maps(found, {})


def norm_image(seed):
    rng = np.random.default_rng(seed)
    norm = rng.normal(1, 0.01, (40, 50)).astype(np.float32)
    for level in (0.0, 0.04, 0.06, 0.2, 0.45, 0.55, 1.1, 1.5):
        norm[rng.random(norm.shape) < 0.02] = level
    norm[rng.random(norm.shape) < 0.01] = np.nan
    return norm


def types_of(norm, parameter_set="default", **values):
    return flat_types.find_flat_types(norm, settings_of(parameter_set, **values), NRC).maps


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(param.SETS), st.data())
def test_a_stricter_threshold_never_gains_a_pixel(seed, parameter_set, data):
    norm = norm_image(seed)
    low, high = sorted(data.draw(st.lists(st.floats(0.01, 0.4), min_size=2, max_size=2)))
    absolute = {"dead_search_type": "absolute_rate"}
    strict = types_of(norm, parameter_set, **absolute, max_dead_norm_signal=low)
    loose = types_of(norm, parameter_set, **absolute, max_dead_norm_signal=high)
    assert not (strict["DEAD"] & ~loose["DEAD"]).any()
    strict = types_of(norm, parameter_set, max_low_qe_norm_signal=low + 0.05)
    loose = types_of(norm, parameter_set, max_low_qe_norm_signal=high + 0.05)
    low_strict, low_loose = (m["LOW_QE"] | m["OPEN"] for m in (strict, loose))
    assert not (low_strict & ~low_loose).any()
    strict = types_of(
        norm, parameter_set, max_open_adj_norm_signal=1 + high, min_open_excess=high, open_sigma=5 * high
    )
    loose = types_of(norm, parameter_set, max_open_adj_norm_signal=1 + low, min_open_excess=low, open_sigma=5 * low)
    assert not (strict["OPEN"] & ~loose["OPEN"]).any()
    strict = types_of(norm, "documented", dead_sigma_threshold=20 * high)
    loose = types_of(norm, "documented", dead_sigma_threshold=20 * low)
    assert not (strict["DEAD"] & ~loose["DEAD"]).any()


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(param.SETS), st.integers(-9, 9), st.integers(-9, 9))
def test_shifting_the_image_shifts_the_maps(seed, parameter_set, dy, dx):
    norm = norm_image(seed)
    moved = types_of(np.roll(norm, (dy, dx), (0, 1)), parameter_set)
    for name, found in types_of(norm, parameter_set).items():
        inner = np.roll(moved[name], (-dy, -dx), (0, 1))[11:-11, 11:-11]
        np.testing.assert_array_equal(inner, found[11:-11, 11:-11])


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(param.SETS), st.sampled_from(["flipud", "fliplr", "transpose"]))
def test_the_search_has_no_preferred_direction(seed, parameter_set, turn):
    norm, flip = norm_image(seed), getattr(np, turn)
    turned = types_of(np.ascontiguousarray(flip(norm)), parameter_set)
    for name, found in types_of(norm, parameter_set).items():
        np.testing.assert_array_equal(turned[name], flip(found))


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_types_are_exclusive_and_all_low_pixels_have_one(seed):
    norm = norm_image(seed)
    found = types_of(norm)
    assert np.sum(list(found.values()), axis=0).max() <= 1
    np.testing.assert_array_equal(found["DEAD"] | found["LOW_QE"] | found["OPEN"], norm < 0.5)
    assert not (found["ADJ_OPEN"] & np.isin(norm, [0, 0.04, 0.06, 0.2, 0.45])).any()


def test_inputs_are_not_modified():
    norm = norm_image(3)
    before = norm.copy()
    for parameter_set in param.SETS:
        types_of(norm, parameter_set)
        np.testing.assert_array_equal(norm, before)


def test_equal_results_for_any_order_memory_and_workers(tmp_path):
    stack = documented_stack(5)
    first = search(tmp_path / "a", stack)
    shuffled = [3, 0, 5, 1, 4, 2]
    others = [search(tmp_path / "b", stack, memory=6 * 160 * 4 * 8)]
    with ProcessPoolExecutor(2) as executor:
        others.append(search(tmp_path / "c", stack, executor=executor, memory=6 * 160 * 4 * 16))
    for other in others:
        for name, image in first.evidence.images.items():
            np.testing.assert_array_equal(image, other.evidence.images[name])
        same_maps(other, first.maps)
        assert other.notes == first.notes
        assert other.evidence.rules == first.evidence.rules
    same_maps(search(tmp_path / "d", stack[shuffled]), first.maps)


# --- evidence --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter_set", param.SETS)
def test_rules_and_images_tell_why(tmp_path, parameter_set):
    """A flagged pixel fulfils all rules of its search; without the order of types the rules alone give the maps."""
    found = search(tmp_path, documented_stack(4), parameter_set)
    searches = {rule.search for rule in found.evidence.rules}
    assert searches == set(TYPES)
    for name in TYPES:
        rules = [r for r in found.evidence.rules if r.search == name]
        for y, x in np.argwhere(found.maps[name]):
            assert all(holds(rule, found.evidence, y, x)[2] for rule in rules), (name, y, x)
    assert all(len(r.meaning) <= 200 and len(r.unit) <= 24 for r in found.evidence.rules)


def test_searches_that_were_not_asked_for(tmp_path):
    stack = documented_stack(4)
    dead = search(tmp_path / "a", stack, low_qe_and_open_search=False)
    assert set(dead.maps) == {"DEAD"}
    assert {r.search for r in dead.evidence.rules} == {"DEAD"}
    others = search(tmp_path / "b", stack, dead_search=False)
    assert set(others.maps) == {"LOW_QE", "OPEN", "ADJ_OPEN"}


# --- flux check ------------------------------------------------------------------------------------------


def write_raw(folder, shape, early, late, n=2, groups=6, nints=2):
    """Raw flats: ``early`` DN in all groups but the last four, ``late`` DN (ny, nx) in those."""
    folder.mkdir(exist_ok=True)
    out = []
    for k in range(n):
        ramps = np.full((nints, groups, *shape), early, np.uint16)
        ramps[:, -4:] = late
        path = folder / f"exposure{k + 1:02d}_uncal.fits"
        out.append(open_exposure(write_uncal(path, ramps if nints > 1 else ramps[0], window=BIG)))
    return out


@pytest.mark.parametrize("nints", [1, 2])
def test_flux_check_takes_the_last_four_groups(tmp_path, nints):
    """A peer averages the first four, and its threshold never reaches the check."""
    stack, truth = make_flats(3, (128, 160)), no_truth()
    stack[:, 10, 10] = stack[:, 20, 20] = 0
    late = np.full((128, 160), 60000, np.uint16)
    late[10, 10] = 10000
    truth["DEAD"][10, 10] = True
    uncals = write_raw(tmp_path / "u", (128, 160), 10000, late, nints=nints)
    found = search(tmp_path, stack, uncals=uncals, run_dead_flux_check=True)
    same_maps(found, truth)
    assert found.evidence.images["last_groups"][20, 20] == 60000
    assert np.isnan(found.evidence.images["last_groups"][0, 0])
    truth["DEAD"][20, 20] = True
    same_maps(search(tmp_path, stack, uncals=uncals, run_dead_flux_check=True, flux_check=60001), truth)
    assert not search(tmp_path, stack, uncals=uncals, run_dead_flux_check=True, flux_check=10000).maps["DEAD"].any()


def test_flux_check_averages_groups_integrations_and_files_once(tmp_path):
    rng = np.random.default_rng(1)
    ramps = [rng.integers(0, 65536, (2, 5, 128, 160)).astype(np.uint16) for _ in range(3)]
    files = [write_uncal(tmp_path / f"{k}_uncal.fits", r, window=BIG) for k, r in enumerate(ramps)]
    dead = np.zeros((100, 120), bool)
    dead[3, 4] = dead[99, 119] = dead[50, 0] = True
    region = (slice(10, 110), slice(20, 140))
    found = flats_search.measure_last_groups([open_exposure(f) for f in files], region, dead, memory=4e5)
    wanted = np.mean([r[:, -4:].mean(axis=(0, 1)) for r in ramps], axis=0)[region]
    np.testing.assert_allclose(found[dead], wanted[dead], rtol=1e-6)
    assert np.isnan(found[~dead]).all()


def test_flux_check_without_raw_flats_or_with_short_ones(tmp_path):
    stack = make_flats(3, (128, 160))
    with pytest.raises(DataError, match="no raw flats"):
        search(tmp_path, stack, run_dead_flux_check=True)
    short = [open_exposure(write_uncal(tmp_path / "s_uncal.fits", np.ones((3, 128, 160)), window=BIG))]
    with pytest.raises(DataError, match=r"s_uncal\.fits: NGROUPS = 3; the flux check looks at the last 4"):
        search(tmp_path, stack, uncals=short, run_dead_flux_check=True)


def test_frames_without_science_pixels(tmp_path):
    with pytest.raises(DataError, match="no science pixel"):
        flats_search.bounding_box(np.zeros((3, 3), bool))
    image = np.ones((4, 60), np.float32)
    rate = open_exposure(write_rate(tmp_path / "a_rate.fits", image, window=Window(1, 1, 60, 4)))
    with pytest.raises(DataError, match="no science pixel"):
        flats_search.search([rate], settings_of())


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9))
def test_embedding_is_the_inverse_of_cutting(y, x, ny, nx):
    inside = np.zeros((30, 30), bool)
    inside[y : y + ny, x : x + nx] = True
    region = flats_search.bounding_box(inside)
    assert region == (slice(y, y + ny), slice(x, x + nx))
    part = np.ones((ny, nx), np.float32)
    whole = flats_search.embed(part, region, (30, 30))
    np.testing.assert_array_equal(whole[region], part)
    assert np.isnan(whole[~inside]).all()
    assert not flats_search.embed(part > 0, region, (30, 30))[~inside].any()


def test_windows_are_those_of_the_tests():
    assert not detectors.measure_border(NRC, BIG).any()
    assert not detectors.measure_border(NRC, INTERIOR).any()
    assert not detectors.measure_border(MIRI, Window(300, 400, 160, 128)).any()
