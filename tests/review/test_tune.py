"""Other limits from the evidence: the run's own give its mask, stricter ones what a new run gives."""

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import badpix
from badpix.cli.main import badpix as command
from badpix.errors import DataError, UsageError
from badpix.mask import file as mask_file
from badpix.review import readings, tune

TEXTS = ("--author", "A", "--descrip", "d", "--pedigree", "GROUND", "--useafter", "2026-01-01T00:00:00", "-q")


def call(*words):
    return CliRunner().invoke(command, [str(w) for w in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Darks and flats of a small detector, and their masks."""
    folder = tmp_path_factory.mktemp("tune")
    words = ("--detector", "NRCB1", "--size", "128 128", "--darks", "5", "--flats", "5", "--dark-groups", "12")
    assert call("simulate", folder, *words, "--seed", "21", "-q").exit_code == 0
    for name, kind in (("darks", "rateints"), ("flats", "rate")):
        rates = sorted((folder / name).glob(f"*_{kind}.fits"))
        done = call(name, *rates, "-o", folder / f"{name}.fits", "--evidence", "--depth", *TEXTS)
        assert done.exit_code == 0, done.output
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", tune.LIMITS)
def test_the_limits_of_the_run_give_its_mask(made, name):
    mask = mask_file.read_mask(made / f"{tune.LIMITS[name].section}.fits")
    if name == "hot_max_rate":
        pytest.skip("not set in this run: the limit is that of hot_sigma_threshold")
    with readings.open_evidence(mask) as (evidence, _):
        value = tune.read_value(mask, name)
        if name == "telegraph_likelihood":  # the run raises it to what good pixels reach
            value = next(abs(float(r.limit)) for r in evidence.rules if r.quantity == name)
        (trial,) = tune.try_values(mask, evidence, name, [value])
        found = np.asarray(evidence.images[f"is_{tune.LIMITS[name].search.lower()}"][:, :]) != 0
    assert found.any() or name in ("intermittent_fraction",)
    assert (trial.gained, trial.lost, trial.pixels) == (0, 0, found.sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "search"),
    [
        ("hot_sigma_threshold", 40, "hot"),
        ("rc_sigma_threshold", 30, "rc"),
        ("low_pedestal_sigma_threshold", 12, "low_pedestal"),
        ("max_low_qe_norm_signal", 0.2, "LOW_QE"),
        ("max_dead_norm_signal", 0.005, "DEAD"),
    ],
)
def test_a_stricter_limit_gives_what_a_new_run_gives(made, tmp_path, name, value, search):
    section = tune.LIMITS[name].section
    mask = mask_file.read_mask(made / f"{section}.fits")
    with readings.open_evidence(mask) as (evidence, _):
        (trial,) = tune.try_values(mask, evidence, name, [value])
    kind = "rateints" if section == "darks" else "rate"
    rates = sorted((made / section).glob(f"*_{kind}.fits"))
    option = "--" + name.replace("_", "-")
    done = call(section, *rates, "-o", tmp_path / "m.fits", "--evidence", option, value, *TEXTS)
    assert done.exit_code == 0, done.output
    again = mask_file.read_mask(tmp_path / "m.fits")
    with readings.open_evidence(again) as (evidence, _):
        expected = np.asarray(evidence.images[f"is_{search.lower()}"][:, :]) != 0
    assert abs(trial.pixels - expected.sum()) <= 1
    assert trial.lost or name == "max_dead_norm_signal"


@pytest.mark.slow
def test_wishes_become_limits(made):
    mask = mask_file.read_mask(made / "darks.fits")
    with readings.open_evidence(mask) as (evidence, _):
        value = tune.solve_complete(mask, evidence, "hot_sigma_threshold", 0.5)
        (trial,) = tune.try_values(mask, evidence, "hot_sigma_threshold", [value])
        assert trial.ninety == pytest.approx(0.5)
        value = tune.solve_false(mask, evidence, "low_pedestal_sigma_threshold", 1000)
        (trial,) = tune.try_values(mask, evidence, "low_pedestal_sigma_threshold", [value])
        assert trial.false == pytest.approx(1000, rel=0.1)
        with pytest.raises(DataError, match="too shallow"):
            tune.solve_complete(mask, evidence, "hot_sigma_threshold", 1e-4)
        with pytest.raises(DataError, match="no sign test"):
            tune.solve_false(mask, evidence, "rc_sigma_threshold", 10)
        with pytest.raises(UsageError, match="did you mean 'hot_sigma_threshold'"):
            tune.try_values(mask, evidence, "hot_sigma_treshold", [3])


@pytest.mark.slow
def test_limits_below_what_the_evidence_holds_are_said(made):
    done = call("tune", made / "darks.fits", "--set", "hot_sigma_threshold=3,4.9,5.1,20")
    assert "3, 4.9: only pixels that the run kept as candidates are counted" in done.output
    done = call("tune", made / "flats.fits", "--set", "max_low_qe_norm_signal=0.1,0.9")
    assert "lower limits" not in done.output


@pytest.mark.slow
def test_the_command_prints_a_table_and_yaml(made, tmp_path):
    done = call("tune", made / "darks.fits", "--set", "hot_sigma_threshold=8,10", "--set", "rc_sigma_threshold=7")
    assert done.exit_code == 0, done.output
    text = done.output[done.output.rindex("darks:") :]
    assert yaml.safe_load(text) == {"darks": {"rc_sigma_threshold": 7}}
    assert len([line for line in done.output.splitlines() if "(this mask: " in line]) == 2
    assert max(len(line) for line in done.output.splitlines()) <= 80
    for wrong, what in (("hot_sigma_threshold=a", "expected positive numbers"), ("hots=3", "can't be tuned")):
        done = call("tune", made / "darks.fits", "--set", wrong)
        assert done.exit_code == 2
        assert what in done.output
    assert call("tune", made / "darks.fits").exit_code == 2


@pytest.mark.slow
def test_the_same_from_python(made):
    mask = made / "darks.fits"
    first, second = badpix.tune(mask, "hot_sigma_threshold", [8, 20])
    told = call("tune", mask, "--set", "hot_sigma_threshold=8,20", "--json")
    assert json.loads(told.stdout)["trials"]["hot_sigma_threshold"] == [vars(first), vars(second)]
    with pytest.raises(UsageError, match="nothing to try"):
        badpix.tune(mask, "hot_sigma_threshold")
