"""Light of instrument modes in simulated flats: in files, in the truth, in a score."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import detectors, dq
from badpix.cli.main import badpix
from badpix.errors import UsageError
from badpix.settings.simulate import SimulateSettings
from badpix.simulation import score_mask
from badpix.simulation.defects import DEFECT
from badpix.simulation.detector import make_scene
from badpix.simulation.files import make_recipe, simulate
from badpix.simulation.illumination import DIM, LIT, NAMES, STRAY, UNLIT, find_light, measure_illumination
from badpix.simulation.truth_file import read_light, read_truth

ON = {"mrs": "MIRIFULONG", "lrs": "MIRIMAGE", "ifu": "NRS1", "slits": "NRS2", "mos": "NRS1", "soss": "NIS"}
MODES = {"mrs": "MRS", "lrs": "LRS", "ifu": "NIRSpec", "slits": "NIRSpec", "mos": "NIRSpec", "soss": "SOSS"}
DEAD, LOW = np.uint32(dq.VALUE["DEAD"]), np.uint32(dq.VALUE["LOW_QE"])


def checked(**values):
    return SimulateSettings.from_values({"size": [128, 112], "flats": 1, "darks": 0, **values}, "test")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_light_reaches_files_and_truth(tmp_path, name):
    """Rates follow the light; keywords tell the mode; the truth says what is lit."""
    p = checked(illumination=name, detector=ON.get(name, "NRCB1"), defects_per_level=0, cosmic_rays=0.0)
    written = simulate(tmp_path, p)
    light, (_, truth, _) = read_light(written["truth"][0]), read_truth(written["truth"][0])
    with fits.open(written["flats"][0]) as hdus:
        assert detectors.find_mode(detectors.get(p.detector), hdus[0].header).name == MODES.get(name, "imager")
        rate = hdus["SCI"].data
    assert ((light == 0) == (truth & dq.VALUE["REFERENCE_PIXEL"] != 0)).all()
    share = (light == LIT).sum() / (light > 0).sum()
    assert share == 1 if name in ("imager", "void") else 0.1 < share < 0.98
    wanted = measure_illumination(make_recipe(p))
    good = (light > 0) & (truth == 0) & (wanted > 0.3)
    assert np.corrcoef(rate[good], wanted[good])[0, 1] > (0.9 if wanted[good].std() > 0.05 else 0.5)
    if name != "imager" and name != "void":
        assert np.median(rate[light == UNLIT]) < 0.03 * np.median(rate[light == LIT])


def test_states_by_hand():
    """Lit from a tenth of the bright light on, unlit below a hundredth."""
    recipe = make_recipe(checked(illumination="ifu", detector="NRS1"))
    light = measure_illumination(recipe) - STRAY
    bright = np.quantile(light[light + STRAY > 0.05 * (light + STRAY).max()], 0.95)
    found = find_light(recipe, np.zeros(recipe.shape, bool))
    np.testing.assert_array_equal(found == LIT, light / (bright + STRAY) >= 0.1)
    assert (found == DIM).any()
    assert (found == UNLIT).any()


@pytest.mark.slow
def test_filters(tmp_path):
    """Flats of each filter, with its keyword; pixels that are poor in some are so there alone."""
    names = ["F070W", "F090W", "F115W"]
    p = checked(filters=names, flats=2, detector="NRCB1", defects_per_level=6, cosmic_rays=0.0)
    written = simulate(tmp_path, p)
    assert len(written["flats"]) == 6
    recipe = make_recipe(p)
    _, truth, rows = read_truth(written["truth"][0])
    some = rows[rows["type"] == "LOW_FILTER"]
    assert len(some) > 10
    alone = some[some["setting"] == "isolated"]
    for path in written["flats"]:
        with fits.open(path) as hdus:
            number = names.index(hdus[0].header["FILTER"])
            rate = hdus["SCI"].data
        light = measure_illumination(recipe, number)
        level = np.nanmedian(rate[truth == 0] / light[truth == 0])
        for row in alone:
            poor = int(row["extra1"]) >> number & 1
            seen = rate[row["y"], row["x"]] / light[row["y"], row["x"]] / level
            assert seen == pytest.approx(row["level"] if poor else 1, abs=0.1)
    assert set(np.unique(alone["extra2"])) <= {1.0, 2.0}
    assert all(bin(int(r["extra1"])).count("1") == r["extra2"] for r in some)
    assert (truth[some["y"], some["x"]] & LOW != 0).all()
    assert make_scene(recipe, 0).defects.rows.tolist() == make_scene(recipe, 2).defects.rows.tolist()


def test_other_detectors_are_refused():
    with pytest.raises(UsageError, match="illumination mrs: NRCB1 sees no such light"):
        make_recipe(checked(illumination="mrs", detector="NRCB1"))


def test_score_by_light():
    """Counted by hand: lit, dim and unlit defects; a false flag in the dark."""
    truth, light = np.zeros((5, 6), np.uint32), np.full((5, 6), LIT, np.uint8)
    light[3:], light[2] = UNLIT, DIM
    light[:, 0], truth[:, 0] = 0, np.uint32(dq.VALUE["REFERENCE_PIXEL"])
    rows = np.array(
        [
            ("DEAD", 1, 0, 0.0, "isolated", 0, 0),
            ("DEAD", 3, 0, 0.0, "isolated", 0, 0),
            ("DEAD", 2, 2, 0.0, "isolated", 0, 0),
            ("LOW_QE", 4, 4, 0.1, "isolated", 0, 0),
            ("LOW_FILTER", 5, 1, 0.1, "isolated", 3, 2),
        ],
        dtype=DEFECT,
    )
    for row in rows:
        truth[row["y"], row["x"]] |= DEAD if row["type"] == "DEAD" else LOW
    flags = np.zeros_like(truth)
    flags[0, 1], flags[0, 3], flags[1, 5] = DEAD, LOW, LOW
    flags[4, 2] = DEAD | 1
    found = {
        (r.light, r.type): r
        for r in score_mask.count_light(flags, truth, rows, light, ("DEAD", "LOW_QE", "LOW_FILTER"))
    }
    assert (found["lit", "DEAD"].injected, found["lit", "DEAD"].found, found["lit", "DEAD"].flagged) == (2, 1, 2)
    assert (found["lit", "LOW_FILTER"].injected, found["lit", "LOW_FILTER"].found) == (1, 1)
    assert (found["dim", "DEAD"].injected, found["dim", "DEAD"].flagged) == (1, 0)
    assert (found["lit", "any"].good, found["lit", "any"].false) == (7, 0)
    assert (found["unlit", "any"].good, found["unlit", "any"].false, found["unlit", "any"].unusable) == (9, 1, 1)
    result = score_mask.score([(flags, truth, rows)] * 2, "flats", [light, light])
    by = {(r["light"], r["type"]): r for r in result["light"]}
    assert by["unlit", "any"]["false_per_million"] == pytest.approx(2e6 / 18)
    kinds = {(r["type"], r["setting"]): r["injected"] for r in result["completeness"]}
    assert kinds["LOW_FILTER", "poor in 2"] == 2


@pytest.mark.slow
def test_from_light_to_score(tmp_path):
    """The commands: simulate with slices, search, score by light."""
    runner = CliRunner()

    def run(*words):
        done = runner.invoke(badpix, [*map(str, words), "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    sim = tmp_path / "sim"
    options = ["--detector", "MIRIFULONG", "--size", "128 160", "--illumination", "mrs", "--flats", 4, "--darks", 0]
    run("simulate", sim, *options, "--defects-per-level", 8)
    run("flats", sim / "flats", "-o", tmp_path / "m.fits", "--author", "A")
    result = run("score", tmp_path / "m.fits", next(sim.glob("*_truth.fits")), "--search", "flats")
    rows = {(r["light"], r["type"]): r for r in result["light"]}
    assert rows["lit", "any"]["injected"] > 40
    assert rows["lit", "any"]["flagged"] > 0.9 * rows["lit", "any"]["injected"]
    assert rows["unlit", "any"]["flagged"] == rows["unlit", "any"]["false"] == 0
    assert rows["unlit", "any"]["good"] > 100
    plain = runner.invoke(badpix, ["score", str(tmp_path / "m.fits"), str(next(sim.glob("*_truth.fits")))])
    assert "By light" in plain.output
