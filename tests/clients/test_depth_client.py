"""The depth through the real first stage beside what the emulation predicts; families through the real ramp fit."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from badpix.cli.main import badpix

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TEXTS = ("--author", "A", "--descrip", "d", "--pedigree", "SIMULATION", "--useafter", "2026-01-01T00:00:00", "-q")


def call(*words):
    done = CliRunner().invoke(badpix, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_pipeline_finds_what_the_depth_predicts(tmp_path):
    (tmp_path / "s.yml").write_text("simulate:\n  dark_products: [uncal, rateints, jump, fitopt]\n")
    words = ("--detector", "NRCB1", "--size", "96 96", "--darks", "3", "--flats", "1", "--dark-groups", "12")
    call("simulate", tmp_path / "s", *words, "--seed", "4", "-p", tmp_path / "s.yml", "-q")
    raws = tmp_path / "s" / "darks" / "*_uncal.fits"
    mask = tmp_path / "m.fits"
    call("darks", tmp_path / "s" / "darks" / "*_rateints.fits", "-o", mask, "--depth", "--evidence", *TEXTS)
    told = json.loads(call("depth", mask, "--through-pipeline", raws, "--json"))["through_pipeline"]
    hot = [row for row in told if row["search"] == "hot"]
    assert hot[0]["found"] == 0
    assert hot[-1]["found"] == hot[-1]["injected"] > 0
    sure = [r for r in told if r["predicted"] > 0.97 or r["predicted"] < 0.02]
    found, predicted = (
        np.array([f(r) for r in sure]) for f in (lambda r: r["found"] / r["injected"], lambda r: r["predicted"])
    )
    weights = np.array([r["injected"] for r in sure])
    assert abs(np.average(found - predicted, weights=weights)) < 0.05
