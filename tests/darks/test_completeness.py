"""The depth of darks: copies of pixels with defects, the emulation of the pipeline, shuffled groups."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix.cli.main import badpix
from badpix.darks import completeness, group_flags, injection, second_pass
from badpix.darks.cells import make_cells
from badpix.darks.injection import Exposure, Readout
from badpix.io import evidence_file
from badpix.io.evidence import Evidence
from badpix.mask import file as mask_file
from badpix.mask.depth import make_curves
from badpix.numerics.ramp_fit import Constants, fit_ramps, measure_typical
from badpix.review import depth as review_depth

READOUT = Readout((0, 20), 2.0, 10.0, 1.0, np.full(50, 5.0, np.float32))


@pytest.fixture(scope="module")
def darks(tmp_path_factory):
    """Six small darks."""
    folder = tmp_path_factory.mktemp("darks")
    done = CliRunner().invoke(
        badpix,
        [
            "simulate",
            str(folder),
            "--detector",
            "NRCB1",
            "--size",
            "128 128",
            "--darks",
            "6",
            "--flats",
            "1",
            "--dark-groups",
            "12",
            "--seed",
            "11",
            "-q",
        ],
    )
    assert done.exit_code == 0, done.output
    return folder


def run(folder, target, *options):
    """badpix darks; the mask's path."""
    texts = ("--author", "A", "--descrip", "d", "--pedigree", "GROUND", "--useafter", "2026-01-01T00:00:00")
    rates = sorted(str(p) for p in (folder / "darks").glob("*_rateints.fits"))
    done = CliRunner().invoke(badpix, ["darks", *rates, "-o", str(target), "--evidence", *texts, "-q", *options])
    assert done.exit_code == 0, done.output
    return target


@pytest.fixture(scope="module")
def masks(darks, tmp_path_factory):
    """A mask without depth, and one with it."""
    place = tmp_path_factory.mktemp("masks")
    return run(darks, place / "plain.fits"), run(darks, place / "deep.fits", "--depth", "--depth-pixels", "900")


def read(path) -> Evidence:
    with evidence_file.opened(evidence_file.path_beside(path)) as (found, _):
        return found


@pytest.mark.slow
def test_the_mask_is_that_of_a_run_without(masks):
    plain, deep = (mask_file.read_mask(path) for path in masks)
    assert np.array_equal(plain.image, deep.image)
    assert plain.image.any()
    one, two = (Path(evidence_file.path_beside(path)) for path in masks)
    with evidence_file.opened(one) as (first, _), evidence_file.opened(two) as (second, _):
        assert list(first.images) == list(second.images)
        for name in first.images:
            np.testing.assert_array_equal(first.images[name][:, :], second.images[name][:, :])


@pytest.mark.slow
def test_curves_go_from_nothing_to_all(masks):
    curves = {c.search: c for c in make_curves(read(masks[1]).depth)}
    assert list(curves) == ["hot", "rc", "telegraph", "noisy", "low_pedestal", "intermittent"]
    for name in ("hot", "rc", "noisy", "low_pedestal"):
        assert curves[name].completeness[0] < 0.2, name
        assert curves[name].completeness[-1] > 0.6, name  # of a dozen copies
    hot, rules = curves["hot"], read(masks[1]).rules
    limit = min(float(r.limit) for r in rules if r.search == "hot" and r.unit == "DN/s" and r.comparison == ">")
    assert limit < hot.ninety < 1.6 * limit  # the limit is in units of one integration's scatter


@pytest.mark.slow
def test_equal_darks_give_equal_depth_for_any_memory_and_workers(darks, masks, tmp_path):
    again = run(darks, tmp_path / "m.fits", "--depth", "--depth-pixels", "900", "--workers", "2")
    assert read(again).depth == read(masks[1]).depth
    assert read(again).alarms == read(masks[1]).alarms


@pytest.mark.slow
def test_history_and_command_say_it(masks):
    text = " ".join(str(fits.getheader(masks[1])["HISTORY"]).split())
    assert "depth of HOT: 90 % above" in text
    done = CliRunner().invoke(badpix, ["depth", str(masks[1])])
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.output.splitlines()[:3]] == ["search", "HOT", "RC"]
    done = CliRunner().invoke(badpix, ["depth", str(masks[0])])
    assert done.exit_code == 1
    assert "holds no depth; make the mask with --depth" in done.output


@pytest.mark.slow
def test_a_shallower_mask_is_said(masks, monkeypatch):
    assert review_depth.find_shallower(masks[1], masks[1]) == []
    assert review_depth.find_shallower(masks[1], masks[0]) == []
    curves, alarms = review_depth.read_depth(masks[1])
    weak = [c.__class__(**{**vars(c), "ninety": c.ninety * 2}) for c in curves if c.ninety]
    answers = iter([(weak, alarms), (curves, alarms)])
    monkeypatch.setattr(review_depth, "read_depth", lambda mask: next(answers))
    told = review_depth.find_shallower("new.fits", "old.fits")
    assert len(told) == len(weak)
    assert told[0].startswith("HOT: 90 % at")


# --- the emulation ---------------------------------------------------------------------------------------


def make_exposure(rng, nints=2, ngroups=20, n=50):
    """Ramps of pure noise with a slope, and what the pipeline says of them."""
    ramps = rng.normal(0, 5, (nints, ngroups, n)).astype(np.float32) + 0.1 * np.arange(ngroups)[:, None]
    flags = np.zeros(ramps.shape, np.uint8)
    said = injection.fit(ramps.astype(np.float32), flags, READOUT)
    return Exposure(ramps.astype(np.float32), flags, said.rate, said.pedestal, said.poisson)


def change(old, ramps):
    """The exposure with other ramps, and the agreement of the emulation with the old ones."""
    before, agreement = injection.emulate(old, READOUT)
    return injection.apply_difference(old, before, ramps, READOUT), agreement


def test_unchanged_ramps_stay_and_agree():
    old = make_exposure(np.random.default_rng(1))
    new, agreement = change(old, old.ramps)
    for name in ("ramps", "flags", "rate", "pedestal", "poisson"):
        np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
    assert agreement.slopes == agreement.pedestals == agreement.copies == 100


def test_errors_of_the_emulation_drop_out():
    old = make_exposure(np.random.default_rng(2))
    off = Exposure(
        old.ramps, old.flags, old.rate + 3, old.pedestal - 7, old.poisson
    )  # files that the emulation does not reproduce
    line = old.ramps + np.float32(2) * np.arange(20, dtype=np.float32)[:, None]
    new, agreement = change(off, line)
    np.testing.assert_allclose(new.rate - off.rate, 0.2, atol=0.01)  # 2 DN a group of 10 s
    assert agreement.slopes == 0


def test_a_step_is_flagged_and_the_slope_is_cut_there():
    old = make_exposure(np.random.default_rng(3))
    ramps = old.ramps.copy()
    ramps[0, 9:, 4] += 400
    new, _ = change(old, ramps)
    assert new.flags[0, 9, 4] == group_flags.JUMP_DET
    assert np.count_nonzero(new.flags != old.flags) == 1
    constants = Constants(2.0, 10.0, 1.0)
    wide, flags = ramps[:, :, None], new.flags[:, :, None]
    typical = measure_typical(wide, flags, constants)
    expected = fit_ramps(wide[0], flags[0], slice(0, 20), typical, READOUT.noise[None], constants)
    np.testing.assert_allclose(new.rate[0, 4], expected.rate[0, 4], rtol=1e-5)


def test_defects_are_as_strong_as_they_say():
    rng = np.random.default_rng(4)
    traits = injection.draw_traits(np.tile([[True], [False]], (1, 50)), rng)
    shape = (200, 20, 50)
    hot = injection.make_change(shape, "hot", 3.0, READOUT, traits, 0, rng)
    assert np.diff(hot, axis=1).mean() / 10 == pytest.approx(3.0, rel=0.01)
    assert np.diff(hot, axis=1).var() == pytest.approx(3.0 * 10 / 2, rel=0.05)  # shot noise of gain 2, DN^2
    blink = [injection.make_change(shape, "intermittent", 3.0, READOUT, traits, k, rng) for k in (0, 1)]
    assert blink[0].max() > 0
    assert not blink[1].any()
    noisy = injection.make_change(shape, "noisy", 2.0, READOUT, traits, 0, rng)
    assert np.sqrt(noisy.var() + 25) == pytest.approx(10, rel=0.02)
    switching = injection.make_change(shape, "telegraph", 8.0, READOUT, traits, 0, rng)
    assert set(np.unique(switching)) == {0.0, 8.0}
    stays = (np.diff(switching, axis=1) == 0).mean(axis=(0, 1))
    expected = 1 - 2 / (traits.dwell.sum(axis=0))
    np.testing.assert_allclose(stays, expected, atol=0.05)
    low = injection.make_change(shape, "low_pedestal", 9.0, READOUT, traits, 0, rng)
    assert np.all(low == -9)


def test_ramps_that_are_shifted_as_a_whole_follow_without_a_fit():
    old = make_exposure(np.random.default_rng(8))
    ramps = old.ramps - np.float32(20)
    ramps[:, 9:, :25] += 300
    before, _ = injection.emulate(old, READOUT)
    shifted = np.arange(50) % 2 == 1
    ramps[:, 9:, shifted] = old.ramps[:, 9:, shifted] - 20
    some = second_pass._follow(old, before, ramps, READOUT, shifted)
    every = second_pass._follow(old, before, ramps, READOUT, np.zeros(50, bool))
    for name in ("ramps", "flags"):
        np.testing.assert_array_equal(getattr(some, name), getattr(every, name))
    for name in ("rate", "pedestal", "poisson"):
        np.testing.assert_allclose(getattr(some, name), getattr(every, name), atol=1e-4)


def test_noise_is_scaled_as_it_is_beside_lines_drifts_and_hits():
    rng = np.random.default_rng(6)
    slope, drift = np.full((3, 50), 2.0, np.float32), rng.normal(0, 20, (3, 20, 1)).astype(np.float32)
    line = 2 * np.arange(20, dtype=np.float32)[:, None] + 1000
    noise = rng.standard_t(4, (3, 20, 50)).astype(np.float32)
    ramps, flags = noise + drift + line, np.zeros((3, 20, 50), np.uint8)
    ramps[1, 7:, 3] += 300
    flags[1, 7, 3] = group_flags.JUMP_DET
    old = Exposure(ramps, flags, *np.zeros((3, 3, 50), np.float32))
    louder = injection.scale_noise(
        old, np.broadcast_to(drift, ramps.shape), slope, READOUT, np.full(50, 3.0, np.float32)
    )
    rest = louder - drift - line
    expected = 3 * (noise - noise.mean(axis=1, keepdims=True)) + noise.mean(axis=1, keepdims=True)
    clean = np.ones(50, bool)
    clean[3] = False
    np.testing.assert_allclose(rest[:, :, clean], expected[:, :, clean], atol=2e-3)
    np.testing.assert_allclose(np.diff(rest[1, :7, 3]), 3 * np.diff(noise[1, :7, 3]), atol=2e-3)
    np.testing.assert_allclose(np.diff(rest[1, 7:, 3]), 3 * np.diff(noise[1, 7:, 3]), atol=2e-3)
    assert rest[1, 7, 3] - rest[1, 6, 3] == pytest.approx(300 + noise[1, 7, 3] - noise[1, 6, 3], abs=2e-3)


def test_copies_lie_apart_and_each_kind_is_as_frequent_as_any():
    good = np.ones((16, 512), bool)
    good[:, 100:200] = False
    pixels, kind, level = injection.assign(good, 32, 7, 5)
    y, x = np.divmod(pixels, 512)
    assert good[y, x].all()
    assert {tuple(p) for p in np.stack([y, x % 4], axis=1)} == {(0, 2), (4, 3), (8, 0), (12, 1)}
    counts = np.bincount(kind * injection.LEVELS + level, minlength=5 * injection.LEVELS)
    share = counts.reshape(5, injection.LEVELS) / injection.SHARES
    assert share.max() - share.min() <= 1


def measure_memory(image):
    """Mean correlation of neighboring groups beside the lines."""
    x = np.arange(len(image))
    rest = [ramp - np.polyval(np.polyfit(x, ramp, 1), x) for ramp in image[:, 8].T]
    return np.mean([np.corrcoef(r[:-1], r[1:])[0, 1] for r in rest])


def test_shuffled_groups_keep_lines_drifts_and_noise():
    rng = np.random.default_rng(5)
    cut = make_cells(np.zeros((16, 64), np.uint8), np.zeros((16, 64), bool))
    drift = 30 * rng.standard_normal(20).astype(np.float32)
    walk = np.cumsum(rng.normal(0, 5, (20, 16, 64)), axis=0).astype(np.float32)
    sci = walk + drift[:, None, None]
    before, flags, good = sci.copy(), np.zeros(sci.shape, np.uint8), np.ones((16, 64), bool)
    good[0] = False
    flags[3, 5, 6] = group_flags.JUMP_DET
    second_pass.shuffle_groups(sci, flags, good, cut, np.random.default_rng(6))
    np.testing.assert_allclose(sci[:, 0], before[:, 0], atol=1e-3)
    np.testing.assert_allclose(sci[:, 5, 6], before[:, 5, 6], atol=1e-3)
    assert np.corrcoef(np.median(sci, axis=(1, 2)), drift)[0, 1] > 0.99
    memory = [measure_memory(image - drift[:, None, None]) for image in (before, sci)]
    assert memory[0] > 0.5
    assert abs(memory[1]) < 0.2


def test_bands_are_spread_and_hold_enough():
    class Cut:
        rows = 2

    class Fake:
        shape, cells = (2048, 2048), Cut

    bands = completeness.choose_bands(Fake, 4, 80000)
    assert len(bands) == 10
    assert all(b - a == 4 for a, b in bands)
    assert bands[0][0] < 200
    assert bands[-1][0] > 1800
    assert completeness.choose_bands(Fake, 2, 10**9)[-1] == (2046, 2048)


def test_copies_lie_in_all_columns_that_outputs_may_take_turns_in():
    good = np.ones((16, 64), bool)
    parts = [injection.assign(good, start, 1, 5)[0] for start in (0, 16)]
    y, x = np.divmod(np.concatenate(parts), 64)
    assert (np.bincount(x % 4, minlength=4) == len(x) / 4).all()
    apart = np.hypot(*(np.subtract.outer(v[: len(parts[0])], v[: len(parts[0])]) for v in (y, x)))
    assert apart[apart > 0].min() >= 4
    shifted = injection.assign(np.ones((32, 64), bool), 0, 1, 5)[0]
    assert set(shifted) == set(parts[0]) | set(parts[1] + 16 * 64)
