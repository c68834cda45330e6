"""Exposures at different roll angles: their classes, what is compared with what, and whole scenes with the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notes import heard

from badpix.image import driver as image_driver
from badpix.image.angles import Turned, _ring_profile, measure_slack, prefer_kin, sort_angles, turn_offsets
from badpix.io.associations import read_inputs
from badpix.numerics.neighbors import grow
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup
from badpix.simulation.score_image import score_run


@given(
    st.lists(st.floats(0, 360, allow_nan=False), min_size=1, max_size=12),
    st.floats(-720, 720),
    st.floats(0.5, 20),
)
@settings(max_examples=60, deadline=None)
def test_classes_hold_no_wider_range_than_the_tolerance_and_do_not_depend_on_the_zero_point(angles, turn, tolerance):
    classes = sort_angles(angles, tolerance=tolerance)
    for a, first in zip(angles, classes, strict=True):
        for b, second in zip(angles, classes, strict=True):
            apart = abs((a - b + 180) % 360 - 180)
            assert first != second or apart <= tolerance + 1e-9
    whole = np.round(angles)  # the turned ones may differ by rounding at the limit itself
    again = sort_angles([float(a) + round(turn) for a in whole], tolerance=int(tolerance) + 0.5)
    before = sort_angles([float(a) for a in whole], tolerance=int(tolerance) + 0.5)
    same = [[x == y for y in before] for x in before]
    turned = [[x == y for y in again] for x in again]
    gaps = np.sort(np.diff(np.sort(np.unique(whole % 360)), append=np.min(whole % 360) + 360))
    if len(gaps) < 2 or gaps[-1] > gaps[-2]:  # one widest gap: the classes start behind it
        assert same == turned


def test_angles_across_zero_are_one_class():
    assert sort_angles([359.5, 0.2, 0.9], tolerance=2) == [0, 0, 0]
    assert len(set(sort_angles([10.0, 10.5, 40.0, 40.3], tolerance=2))) == 2


def test_kin_count_where_two_looked_or_one_differs():
    rng = np.random.default_rng(1)
    everyone = rng.normal(0, 0.3, (60, 60)).astype(np.float32)
    kin = rng.normal(0, 0.7, (60, 60)).astype(np.float32)
    kin[:, 29:32] += 1.7  # a spike below the limit of a single pixel
    one, two, none = (np.full(kin.shape, n, np.uint16) for n in (1, 2, 0))
    found = prefer_kin(everyone, kin, one, sigma=1.0)
    assert found[:, 29:32].mean() > 0.9
    assert found[:, :25].mean() < 0.1
    assert prefer_kin(everyone, kin, two, sigma=1.0).all()
    assert not prefer_kin(everyone, kin, none, sigma=1.0).any()


def spiked(roll, pc, *, shape=(161, 161)):
    """A saturated star with one thin spike at position angle ``roll`` on the sky, on a grid."""
    y, x = np.mgrid[: shape[0], : shape[1]] - 80.3
    east, north = np.tensordot(pc, np.stack([x, y]), 1)
    along = north * np.cos(np.radians(roll)) + east * np.sin(np.radians(roll))
    across = east * np.cos(np.radians(roll)) - north * np.sin(np.radians(roll))
    image = 2000 * np.exp(-(x**2 + y**2) / 8) + 60 * np.exp(-(across**2) / 1.5) * (along > 0) * (along < 60)
    image[image > 900] = np.nan
    return image.astype(np.float32)


@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("angle", [15, 30, 77, 200])
def test_a_turned_spike_is_allowed_for_where_it_turns_to_and_nowhere_else(angle, parity):
    pc = np.array([[parity * np.cos(0.4), np.sin(0.4)], [-parity * np.sin(0.4), np.cos(0.4)]])
    own, other = spiked(40, pc), spiked(40 + angle, pc)
    rng = np.random.default_rng(2)
    seen = other + rng.normal(0, 0.2, other.shape).astype(np.float32)
    empty = np.where(np.isnan(other), np.nan, 0).astype(np.float32) + rng.normal(0, 0.1, other.shape)
    turned = Turned(seen, turn_offsets(pc, angle))
    everyone = np.minimum(own, other) + rng.normal(0, 0.1, own.shape).astype(np.float32)  # as a median: no spike
    slack = measure_slack(
        empty.astype(np.float32), everyone, [turned], np.ones(own.shape, bool), sigma=0.3, width=1.0
    )
    y, x = np.mgrid[:161, :161] - 80.3
    near = (np.hypot(x, y) > 9) & (np.hypot(x, y) < 55)  # beyond the core, short of the end
    away = near & (np.hypot(x, y) > 12) & (own < 0.1) & ~grow(grow(own > 0.1))
    assert (own - slack)[near & np.isfinite(own)].max() < 4
    assert (slack[away] < 1.5).mean() > 0.88  # allowed by a whole ring: none
    assert not measure_slack(empty, everyone, [turned], np.zeros(own.shape, bool), sigma=0.3, width=1.0).any()


def test_of_several_angles_the_smallest_allowance_counts():
    pc = np.eye(2)
    empty = np.zeros((161, 161), np.float32)
    one, two = (Turned(spiked(a, pc), turn_offsets(pc, a - 40)) for a in (60, 120))
    wanted = np.ones(empty.shape, bool)
    both = measure_slack(empty, one.image, [one, two], wanted, sigma=0.3, width=1.0)
    each = [measure_slack(empty, one.image, [other], wanted, sigma=0.3, width=1.0) for other in (one, two)]
    assert np.array_equal(both, np.minimum(*each))


def test_of_three_other_angles_one_that_missed_a_knot_does_not_decide_alone():
    pc = np.eye(2)
    empty = np.zeros((161, 161), np.float32)
    others = [Turned(spiked(a, pc), turn_offsets(pc, a - 40)) for a in (60, 85, 120)]
    wanted = np.ones(empty.shape, bool)
    found = measure_slack(empty, others[0].image, others, wanted, sigma=0.3, width=1.0)
    each = np.sort(
        [measure_slack(empty, others[0].image, [other], wanted, sigma=0.3, width=1.0) for other in others], axis=0
    )
    np.testing.assert_allclose(found, (each[0] + each[1]) / 2)
    nothing = Turned(np.full(empty.shape, np.nan, np.float32), others[0].turn)
    unseen = measure_slack(empty, others[0].image, [others[0], nothing, nothing], wanted, sigma=0.3, width=1.0)
    alone = measure_slack(empty, others[0].image, others[:1], wanted, sigma=0.3, width=1.0)
    strong = alone > 1  # angles that never saw the source say nothing there
    assert strong.sum() > 100
    assert np.array_equal(unseen[strong], alone[strong])


def test_a_faint_star_near_a_bright_one_allows_for_no_more_than_its_own_spikes():
    y, x = np.mgrid[:201, :201].astype(float)
    rng = np.random.default_rng(3)
    light = 1e5 / (1 + np.hypot(y - 40, x - 40)) ** 2 + 60 * np.exp(-((y - 130) ** 2 + (x - 130) ** 2) / 2)
    image = (light + rng.normal(0, 0.2, light.shape)).astype(np.float32)
    quarter = Turned(image, np.array([[0.0, 1.0], [-1.0, 0.0]]))
    slack = measure_slack(image, image, [quarter], np.ones(image.shape, bool), sigma=0.3, width=1.5)
    distance = np.hypot(y - 130, x - 130)
    most = 70 * np.minimum(1, (3 / np.maximum(distance, 1)) ** 2)
    bright = measure_slack(image, image, [quarter], np.hypot(y - 40, x - 40) < 60, sigma=0.3, width=1.5)
    there = (distance < 20) & (bright == 0)
    assert there.sum() > 1000
    assert (slack[there] <= most[there] + 3).all()  # the bright star's own light is round
    assert np.median(slack[there & (distance > 10)]) < 1  # turned about the faint star it would be 20


@pytest.mark.parametrize("seed", range(3))
def test_rings_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (50, 61)).astype(np.float32)
    image[rng.random(image.shape) < 0.1] = np.nan
    y, x = int(rng.integers(0, 50)), int(rng.integers(0, 61))
    image[y, x] = 100
    found = _ring_profile(image, y, x, -np.inf, 30)
    assert found is not None
    ring = np.rint(np.hypot(*(v - c for v, c in zip(np.mgrid[:50, :61], (y, x), strict=True))))
    plain = np.array([np.nanmax(image[ring == r], initial=-np.inf) for r in range(len(found))])
    plain[np.isinf(plain)] = 100
    plain = np.minimum.accumulate(plain)
    np.testing.assert_array_equal(found, np.maximum(plain, np.concatenate([plain[:1], plain[:-1]])))


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """Two groups at one roll angle, two at another one, bright stars."""
    setup = Setup(
        seed=63, shape=(256, 256), stars=2000.0, dither=8.0, groups=4, rolls=(0.0, 0.0, 30.0, 30.0), saturation=200.0
    )
    return simulate(tmp_path_factory.mktemp("turned"), setup).parent


def flag(folder, output, **options):
    p = ImageSettings.from_values(options, "test", "default")
    paths = sorted(folder.glob("*_cal.fits"))[: options.pop("number", None)]
    with heard() as notes:
        image_driver.flag_images(read_inputs(paths), p, output)
    return notes, score_run(folder, output)


@pytest.mark.slow
def test_spikes_at_two_roll_angles_stay(turned, tmp_path):
    notes, score = flag(turned, tmp_path / "out")
    _, blind = flag(turned, tmp_path / "blind", roll_tolerance=None)
    assert blind["false_per_million"] > 200  # the kind of scene in which it matters
    assert score["false_per_million"] < 60
    assert score["sources_damaged"] < 0.02  # 77 in all
    assert score["cr20_covered"] > 0.97
    assert any("2 roll angles (2 at 40.0, 2 at 70.0 degrees)" in note for note in notes)


@pytest.mark.slow
def test_one_exposure_alone_at_its_angle_keeps_its_spikes(turned, tmp_path):
    few = tmp_path / "few"
    (few / "truth").mkdir(parents=True)
    for path in sorted(turned.glob("*_cal.fits"))[:3]:
        (few / path.name).symlink_to(path)
    for path in (turned / "truth").iterdir():
        (few / "truth" / path.name).symlink_to(path)
    _, score = flag(few, tmp_path / "out")
    assert score["false_per_million"] < 100
    assert score["sources_damaged"] < 0.01
    assert score["cr20_covered"] > 0.9


@pytest.mark.slow
def test_four_angles_find_hits_around_a_saturated_star(tmp_path):
    setup = Setup(
        seed=67,
        shape=(192, 192),
        stars=2500.0,
        galaxies=0.0,
        dither=8.0,
        rolls=(0.0, 25.0, 50.0, 75.0),
        saturation=60.0,
    )
    folder = simulate(tmp_path / "sim", setup).parent
    _, score = flag(folder, tmp_path / "out")
    assert score["cr5"] > 0.9
    assert score["cr20_covered"] > 0.96
    assert score["false_per_million"] < 250  # 20,000 without the angles
