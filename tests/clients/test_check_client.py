"""``badpix check --pipeline``: the real DQInitStep and CRDS say the same of a mask as our rules do."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from mask_files import SUB64, make_hdus, make_image, make_mask, make_table, write

from badpix import dq
from badpix.cli.main import badpix
from badpix.detectors import Window
from badpix.mask import rules
from badpix.review import clients

pytestmark = [pytest.mark.clients, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _no_crds_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other client tests name a server that does not answer; here none is set up."""
    for name in ("CRDS_PATH", "CRDS_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)


FLAGS = [(100, 200, "HOT+DO_NOT_USE"), (101, 200, "DEAD+DO_NOT_USE"), (102, 200, "WARM")]


@pytest.mark.parametrize(
    ("detector", "window", "subarray"),
    [
        ("MIRIMAGE", None, "GENERIC"),
        ("NRCA1", None, "GENERIC"),
        ("NIS", None, "GENERIC"),
        ("GUIDER1", None, "GENERIC"),
        ("NRS1", None, "GENERIC"),
        ("NRS2", Window(1, 1, 2048, 3200), "GENERIC"),
        ("NRCB4", Window(1000, 1000, 320, 320), "SUB320"),
    ],
)
def test_the_pipeline_takes_every_flag_of_a_sound_mask(tmp_path, ask, detector, window, subarray):
    path = make_mask(tmp_path / "mask.fits", detector, window, FLAGS, SUBARRAY=subarray)
    answer = ask("dq_init", path)
    assert (answer.status, answer.messages) == ("passed", [])
    told = {r["flag"]: (r["mask"], r["pipeline"], r["differ"]) for r in answer.rows}
    assert told["HOT"] == (1, 1, 0)
    assert told["DO_NOT_USE"] == (2, 2, 0)
    assert ask("certify", path).status == "passed"


def test_flags_that_the_pipeline_loses_are_counted(tmp_path):
    """A bit without a row, and a name that nobody knows: CRDS passes both."""
    image = make_image(flags=FLAGS)
    image[300, 300] |= dq.VALUE["SATURATED"]
    names = ["WORM" if f.name == "WARM" else f.name for f in dq.FLAGS if f.use == "mask"]
    path = write(tmp_path / "mask.fits", make_hdus(image=image, table=make_table(NAME=np.array(names))))
    answer = clients.run_dq_init(path)
    assert answer.status == "failed"
    assert {r["flag"]: r["differ"] for r in answer.rows if r["differ"]} == {"WARM": 1, "SATURATED": 1}
    assert clients.run_certify(path).status == "passed"
    assert {"dq-undefined", "dqdef-name"} <= {f.rule for f in rules.find_faults(path)}


def test_a_subarray_exposure_gets_its_window_of_a_generic_mask(tmp_path):
    from stdatamodels.jwst import datamodels

    path = make_mask(tmp_path / "mask.fits", flags=[(30, 800, "HOT+DO_NOT_USE")])
    model = datamodels.RampModel(data=np.zeros((1, 3, 64, 72), np.float32))
    model.meta.instrument.name, model.meta.instrument.detector = "MIRI", "MIRIMAGE"
    model.meta.exposure.type = "MIR_IMAGE"
    model.meta.subarray.name = "SUB64"
    model.meta.subarray.xstart, model.meta.subarray.ystart = SUB64[:2]
    model.meta.subarray.xsize, model.meta.subarray.ysize = SUB64[2:]
    model.save(tmp_path / "a_uncal.fits")
    answer = clients.run_dq_init(path, tmp_path / "a_uncal.fits")
    assert answer.status == "passed", answer
    told = {r["flag"]: r["pipeline"] for r in answer.rows}
    assert told == {"DO_NOT_USE": 1, "HOT": 1, "REFERENCE_PIXEL": 4 * 64}


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"PEDIGREE": "INFLIGHT"}, "PEDIGREE"),
        ({"FASTAXIS": None}, "FASTAXIS"),
        ({"USEAFTER": None}, "USEAFTER"),
        ({"SUBARRAY": "SUBNONE"}, "SUBARRAY"),
    ],
)
def test_what_crds_refuses_our_rules_refuse(tmp_path, ask, keywords, words):
    path = write(tmp_path / "mask.fits", make_hdus(**keywords))
    answer = ask("certify", path)
    assert answer.status == "failed"
    assert any(words in m for m in answer.messages)
    assert any(words in f.message for f in rules.find_faults(path) if f.severity == "error")


@pytest.mark.parametrize(("detector", "key"), [("NRS1", "P_READPA"), ("GUIDER2", "EXP_TYPE")])
def test_match_keys_are_required_by_crds_too(tmp_path, ask, detector, key):
    path = make_mask(tmp_path / "mask.fits", detector, **{key: None})
    assert ask("certify", path).status == "failed"
    assert [f.rule for f in rules.find_faults(path)] == ["match-key"]


def test_command(tmp_path):
    rng = np.random.default_rng(1)
    flags = [(int(x), int(y), "HOT+DO_NOT_USE") for x, y in rng.integers(10, 1000, (5000, 2))]
    path = make_mask(tmp_path / "mask.fits", flags=flags)
    result = CliRunner().invoke(badpix, ["check", str(path), "--pipeline", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["masks"][0]
    assert [c["status"] for c in told["clients"]] == ["passed", "passed"]
    assert "minimal context" in told["clients"][1]["messages"][-1]
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["PEDIGREE"] = "INFLIGHT"
    result = CliRunner().invoke(badpix, ["check", str(path), "--pipeline"])
    assert result.exit_code == 3
    assert "crds-certify: crds certify: " in result.stdout


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "find_spec", lambda name: None)
    answer = clients.run_certify(tmp_path / "mask.fits")
    assert answer.status == "not run"
    assert "pip install 'badpix[pipeline]'" in answer.messages[0]
