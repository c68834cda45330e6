"""What the pages and pictures say is what decided: limits, worst pixels, levels, inputs, origins of errors."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import write_rate
from mask_files import SUB64, make_mask

from badpix.cli.main import badpix
from badpix.errors import DataError
from badpix.io import evidence_file
from badpix.io.evidence import Evidence, Rule
from badpix.io.provenance import Input
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.review import check, choose, histograms, pixel_ramps, report_history
from badpix.settings.check import CheckSettings
from badpix.settings.reference import ReferenceSettings

SHAPE = (64, 72)


# --- the worst pixels ------------------------------------------------------------------------------------


def two_ways(scores):
    """A search by a score, or by a yes or no; a further test withholds nothing."""
    values, otherwise = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    for (y, x), (score, by_shape) in scores.items():
        values[y, x], otherwise[y, x] = score, by_shape
    rules = [
        Rule("telegraph", "dark_telegraph", ">", 5.0, "sigma", "score", 1),
        Rule("telegraph", "telegraph_withheld", "<", 1.0, "", "", 1),
        Rule("telegraph", "telegraph_otherwise", ">=", 1.0, "", "steps", 2),
        Rule("telegraph", "telegraph_withheld", "<", 1.0, "", "", 2),
    ]
    found = ((values > 5) | (otherwise > 0)).astype(np.uint8)
    images = {
        "dark_telegraph": values,
        "telegraph_otherwise": otherwise,
        "is_telegraph": found,
        "telegraph_withheld": np.zeros(SHAPE, np.uint8),
    }
    return Evidence(images, rules)


def test_the_worst_pixels_are_the_strongest_and_not_the_first(tmp_path):
    """By a score: the strongest first. By shape alone: behind them, however the yes or no of further tests reads."""
    scores = {(3, 5): (4.0, 1), (10, 20): (5.5, 0), (20, 8): (30.0, 0), (40, 40): (7.0, 1), (50, 9): (1.0, 1)}
    flags = [(x, y, "TELEGRAPH+DO_NOT_USE") for y, x in scores]
    mask = mask_file.read_mask(make_mask(tmp_path / "m.fits", window=SUB64, flags=flags, SUBARRAY="SUB64"))
    told = choose.find_worst(mask, two_ways(scores), "TELEGRAPH", 5)
    corner = SUB64.xstart - 1, SUB64.ystart - 1
    assert [(x - corner[0], y - corner[1]) for x, y in told] == [(8, 20), (40, 40), (20, 10), (5, 3), (9, 50)]


# --- limits that decide ----------------------------------------------------------------------------------


def noisy(seed=1, defects=12):
    """Noise of many pixels with a low floor that does not decide, and a limit in sigma that does."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(5.0, 0.5, SHAPE).astype(np.float32)
    noise.flat[rng.choice(noise.size, defects, replace=False)] = 20.0
    z = (noise - 5.0) / 0.5
    images = {"dark_noise": noise, "dark_noise_z": z, "is_noisy": (z > 6).astype(np.uint8)}
    rules = [
        Rule("noisy", "dark_noise_z", ">", 6.0, "sigma", "noise among all pixels"),
        Rule("noisy", "dark_noise", ">", 5.2, "DN", "at least a floor"),
    ]
    return Evidence(images, rules)


def test_a_limit_that_does_not_decide_is_not_drawn():
    found = noisy()
    science = np.ones(SHAPE, bool)
    (floor,) = histograms.find_limits(found, "dark_noise", science)
    assert not floor.decides
    assert floor.value == 20.0
    assert floor.flagged == 12
    assert floor.beyond == np.count_nonzero(found.images["dark_noise"] > 5.2)
    assert floor.beyond > 100
    assert "does not decide" in histograms.say_limits([floor])
    (sigma,) = histograms.find_limits(found, "dark_noise_z", science)
    assert sigma.decides
    assert (sigma.value, sigma.beyond, sigma.flagged) == (6.0, 12, 12)


def test_what_lies_beyond_and_is_not_flagged_is_counted():
    found = noisy()
    found.images["is_noisy"] = found.images["is_noisy"] & (np.arange(SHAPE[1]) > 30)
    (sigma,) = histograms.find_limits(found, "dark_noise_z", np.ones(SHAPE, bool))
    assert sigma.beyond == 12
    assert sigma.flagged == int(found.images["is_noisy"].sum()) < 12
    assert f"{12 - sigma.flagged} kept back" in histograms.say_limits([sigma])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=20, unique=True), st.floats(1e-3, 1e6))
def test_the_axis_keeps_the_order_and_comes_back(values, linear):
    values = np.sort(np.array(values))
    places = histograms.to_axis(values, linear)
    assert (np.diff(places) >= 0).all()
    np.testing.assert_allclose(histograms.from_axis(places, linear), values, rtol=1e-9, atol=1e-12 * linear)


# --- two levels ------------------------------------------------------------------------------------------


def make_ramp(signal):
    nothing = np.zeros(len(signal), bool)
    return pixel_ramps.Ramp(
        "r", np.asarray(signal, float), nothing, nothing, np.full(len(signal), np.nan), 0.0, "DN/s"
    )


@pytest.mark.slow
def test_two_levels_are_told_from_noise():
    """Fast switchers of 10 sigma and more are found on any slope; Gaussian noise of any size is not."""
    rng = np.random.default_rng(3)
    told, taken = 0, 0
    for _ in range(300):
        slope, n = rng.uniform(-5, 20), int(rng.integers(20, 80))
        high = rng.random(n) < 0.35
        signal = slope * np.arange(n) + 300 * high + rng.normal(0, 6, n)
        found = pixel_ramps.find_levels(make_ramp(signal))
        told += found is not None and abs(found[0] - 300) < 30
        taken += pixel_ramps.find_levels(make_ramp(slope * np.arange(n) + rng.normal(0, 80, n))) is not None
    assert told >= 285
    assert taken <= 3


def test_a_single_jump_is_no_telegraph_signal():
    signal = np.random.default_rng(4).normal(0, 5, 40) + 300 * (np.arange(40) > 20)
    assert pixel_ramps.find_levels(make_ramp(signal)) is None


# --- inputs as the writer writes them --------------------------------------------------------------------


def test_hashes_of_the_inputs_are_read_as_history_writes_them(tmp_path):
    """The texts of a HISTORY that `badpix` itself makes, names of any length among them."""
    inputs = [
        Input(tmp_path / f"jw0900100100{k}_02101_0000{k}_{'nrcb1' * k}_rate.fits", f"{k}" * 64, 1) for k in (1, 9)
    ]
    texts = mask_header.check_texts(ReferenceSettings.in_set())
    about = mask_header.Provenance("Made.", [], inputs, [(tmp_path / "bad_rate.fits", "truncated: it ends early")])
    mask = mask_file.read_mask(make_mask(tmp_path / "m.fits"))
    mask.history[:] = mask_header.history(texts, about)
    table = report_history.inputs_block(mask)
    for one in inputs:
        assert f"<td>{one.path.name}</td><td>used</td><td><code>{one.sha256[:16]}…</code></td>" in table
    assert "<td>bad_rate.fits</td><td>rejected</td><td>truncated: it ends early</td>" in table


# --- what is no mask -------------------------------------------------------------------------------------


NO_MASK = [
    "compare {rate} {mask}",
    "compare {mask} {rate}",
    "merge {mask} {rate} -o new.fits",
    "report {rate} -o r.html",
]


@pytest.mark.parametrize("command", NO_MASK)
def test_an_exposure_is_no_mask(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    make_mask(tmp_path / "m.fits")
    write_rate(tmp_path / "a_rate.fits", np.ones((80, 96), np.float32))
    done = CliRunner().invoke(badpix, command.format(rate="a_rate.fits", mask="m.fits").split())
    assert done.exit_code == 1
    assert "a_rate.fits: found an exposure" in done.output


# --- texts that nobody gave ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_unsigned_mask_is_named_in_the_run_and_in_the_check(tmp_path):
    mask, target = make_mask(tmp_path / "a.fits"), tmp_path / "new.fits"
    done = CliRunner().invoke(badpix, ["merge", str(mask), "-o", str(target)])
    assert done.exit_code == 0, done.output
    assert "AUTHOR was not given" in done.output
    assert "USEAFTER was not given" in done.output
    rules = {f.rule for f in check.check_mask(target, CheckSettings.in_set()).faults}
    assert {"author", "descrip", "useafter"} <= rules
    signed = tmp_path / "signed.fits"
    texts = ["--author", "A. Name", "--descrip", "Cycle 5", "--useafter", "2026-01-01"]
    done = CliRunner().invoke(badpix, ["merge", str(target), "-o", str(signed), *texts])
    assert "was not given" not in done.output
    rules = {f.rule for f in check.check_mask(signed, CheckSettings.in_set()).faults}
    assert not {"author", "descrip", "useafter"} & rules


# --- whose fault it is -----------------------------------------------------------------------------------


def test_trouble_beside_open_evidence_is_not_the_evidences_fault(tmp_path):
    path = make_mask(tmp_path / "m.fits", window=SUB64, SUBARRAY="SUB64")
    beside = evidence_file.path_beside(path)
    evidence_file.write(beside, noisy(), mask_file.evidence_header(path))
    with pytest.raises(OSError, match="full") as caught, evidence_file.opened(beside):
        raise OSError(28, "the disk is full", "page.html")
    assert caught.value.filename == "page.html"


def test_a_damaged_tile_names_the_evidence(tmp_path):
    path = make_mask(tmp_path / "m.fits", window=SUB64, SUBARRAY="SUB64")
    beside = evidence_file.path_beside(path)
    evidence_file.write(beside, noisy(), mask_file.evidence_header(path))
    with evidence_file.opened(beside) as (found, _):
        place = found.images["dark_noise"]._hdu._bintable.fileinfo()["datLoc"]
    raw = bytearray(beside.read_bytes())
    rows = SHAPE[0] * 8
    raw[place + rows : place + rows + 4000] = b"\xff" * 4000
    beside.write_bytes(raw)
    with evidence_file.opened(beside) as (found, _), pytest.raises(DataError, match=r"m_evidence\.fits"):
        found.images["dark_noise"][:, :]
