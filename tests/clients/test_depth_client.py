"""The depth through the real first stage beside what the emulation predicts; families through the real ramp fit."""

import json

import numpy as np
import pytest
from checkout import ROOT
from click.testing import CliRunner

from badpix.cli.main import badpix
from badpix.io.depths import Readout
from badpix.mask.families import Candidates, measure_excess
from badpix.numerics.slope_noise import Noise
from badpix.settings.families import Family

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


def test_crds_matches_what_a_family_is_for():
    from crds.core import selectors

    one, many = (Family("a", "FASTR1", groups) for groups in ((5, 5), (60, 100)))
    assert selectors.matcher(str(one.match)).match("5") == 1
    matches = [n for n in (5, 59, 60, 99, 100, 101) if selectors.matcher(str(many.match)).match(str(n)) == 1]
    assert matches == [60, 99, 100]


def test_the_slopes_of_the_real_fit_scatter_as_families_expect(tmp_path, monkeypatch):
    """Louder, brighter and switching pixels in 20 groups through the real jump step and ramp fit."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import prove_families

    each = 40
    kinds = [("noisy", 1.0), ("noisy", 1.3), ("hot", 3.0), ("telegraph", 25.0)]
    names = [("kind", "U12"), ("level", "f8"), ("y", "i4"), ("x", "i4"), ("sign", "i4"), ("a", "f8"), ("b", "f8")]
    table = np.zeros(each * len(kinds), names)
    table["kind"], table["level"] = (np.repeat([k[j] for k in kinds], each) for j in (0, 1))
    table["y"], table["x"] = np.divmod(np.arange(len(table)), 20)
    table["a"] = table["b"] = 6.0
    noise = np.full((20, 20), 5.3)
    slopes = prove_families.measure_slopes(tmp_path, "NRCB1", table, noise, 20, 30, 5)
    real = np.nanvar(slopes, axis=0, ddof=1).reshape(len(kinds), each).mean(axis=1)
    read, shot = np.array([5.3, 6.89, 5.3, 5.3]), 0.0015 / 10.7 + np.array([0, 0, 3.0 / 2.05, 0])
    gap = np.array([0, 0, 0, 25.0])
    known = Candidates(
        np.arange(4),
        Noise(*(np.asarray(v, np.float32) for v in (read, shot, gap, np.full(4, 64.4), np.full(4, 64.4)))),
        *(np.full(4, 5.3, np.float32) for _ in range(2)),
        np.zeros(4, np.float32),
        np.zeros(4, bool),
    )
    darks = Readout("RAPID", 40, 1, 0, 10.73677, 5.3, 0.0015, 2.05)
    excess, error = measure_excess(known, darks, Family("a", "RAPID", (20, 20)), 20)
    assert error == pytest.approx(real[0] ** 0.5, rel=0.1)
    np.testing.assert_allclose(1 + excess, real / real[0], rtol=0.3)
