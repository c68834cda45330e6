"""``badpix deliver`` with the real DQInitStep and CRDS, and masks in forms that only they can call legal."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from mask_files import make_hdus, make_mask, make_table, write

from badpix import dq
from badpix.cli.main import badpix
from badpix.review import clients

pytestmark = [pytest.mark.clients, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _no_crds_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRDS_PATH", "CRDS_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_delivery_that_both_clients_accept(tmp_path):
    rng = np.random.default_rng(1)
    places = rng.choice(900 * 900, 3000, replace=False)
    flags = [(int(60 + p % 900), int(60 + p // 900), "HOT+DO_NOT_USE") for p in places]
    part = make_mask(tmp_path / "part.fits", flags=flags)
    texts = [
        "--author",
        "A. Name",
        "--descrip",
        "MIRI cycle 5",
        "--useafter",
        "2026-01-01",
        "--differences",
        "hot pixels of 2025",
        "--pedigree",
        "GROUND",
    ]
    done = CliRunner().invoke(badpix, ["merge", str(part), "-o", str(tmp_path / "new.fits"), *texts])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(badpix, ["deliver", str(tmp_path / "new.fits"), "--output-dir", str(tmp_path / "send")])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "send/check.json").read_text())
    assert [c["status"] for c in told["clients"]] == ["passed", "passed"]
    assert "certify" in (tmp_path / "send/clients.txt").read_text()


def renumbered():
    rows = [dq.BY_NAME[name] for name in ("DO_NOT_USE", "HOT", "REFERENCE_PIXEL")]
    hdus = make_hdus(flags=[(100, 200, "HOT+DO_NOT_USE")])
    image = hdus["DQ"].data
    packed = sum(((image & np.uint32(row.value)) != 0).astype(np.uint32) << k for k, row in enumerate(rows))
    hdus["DQ"] = fits.ImageHDU(packed, name="DQ")
    hdus["DQ_DEF"] = make_table(rows, BIT=np.arange(3, dtype=np.int32), VALUE=np.array([1, 2, 4], np.uint32))
    return hdus


def compressed():
    hdus = make_hdus(name="mask.fits.fz", flags=[(100, 200, "HOT+DO_NOT_USE")])
    hdus["DQ"] = fits.CompImageHDU(hdus["DQ"].data, hdus["DQ"].header, name="DQ")
    return hdus


@pytest.mark.parametrize("make", [renumbered, compressed])
def test_what_a_note_calls_legal_the_pipeline_reads_as_we_do(tmp_path, make):
    path = write(tmp_path / ("mask.fits.fz" if make is compressed else "mask.fits"), make())
    answer = clients.run_dq_init(path)
    assert answer.status == "passed", answer.messages
    assert {row["flag"]: row["mask"] for row in answer.rows}["HOT"] == 1
