"""`badpix init` makes what `badpix rebuild` takes; the index page shows what the records say."""

import re

import pytest
from click.testing import CliRunner

from badpix.cli.main import badpix
from badpix.rebuild import index_page, jobs
from badpix.rebuild.starter import INSTRUMENTS


def call(*words):
    return CliRunner().invoke(badpix, [str(w) for w in words])


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_what_init_makes_rebuild_reads(tmp_path, instrument):
    done = call("init", tmp_path / "m", "--instrument", instrument)
    assert done.exit_code == 0, done.output
    found, failed = jobs.read_jobs([tmp_path / "m" / f"{instrument}.yml"])
    assert failed == []
    assert done.output.count("made ") == 2  # the folder, and what is in it
    assert [job.detector for job in found] == INSTRUMENTS[instrument]
    for job in found:
        for kind in ("flats", "darks"):
            assert (tmp_path / "m" / kind / job.detector.lower()).is_dir()
    assert str(tmp_path / "m") in (tmp_path / "m" / "crontab").read_text()
    assert call("init", tmp_path / "m", "--instrument", instrument).exit_code == 2


def test_detectors_and_base(tmp_path):
    words = [
        "--instrument",
        "nircam",
        "--detectors",
        "nrcb1",
        "--detectors",
        "NRCB2",
        "--base",
        "use/{detector}.fits",
    ]
    assert call("init", tmp_path, *words).exit_code == 0
    found, _ = jobs.read_jobs([tmp_path / "nircam.yml"])
    assert [job.detector for job in found] == ["NRCB1", "NRCB2"]
    assert call("init", tmp_path / "x", "--instrument", "miri", "--detectors", "NRCB1").exit_code == 2
    done = call("init", tmp_path / "x", "--instrument", "miri", "--detectors", "MIRIMAG")
    assert done.exit_code == 2
    assert "--detectors: DETECTOR 'MIRIMAG' is unknown; did you mean 'MIRIMAGE'?" in done.output


def record(detector, finished, flags, status="made"):
    return {
        "detector": detector,
        "finished": finished,
        "flags": flags,
        "mask": "m.fits",
        "status": status,
        "path": f"/nowhere/{detector}/a/m_record.json",
    }


def row(one, status, reason=""):
    flags = one["flags"]
    return {
        "detector": one["detector"],
        "finished": one["finished"],
        "status": status,
        "reason": reason,
        "flagged": flags.get("any"),
        "unusable": flags.get("DO_NOT_USE"),
    }


def test_the_index_shows_state_counts_and_trends(tmp_path):
    records = [
        record("NRCB1", "2026-01-01T00:00:00Z", {"any": 1000, "HOT": 400, "DO_NOT_USE": 900}),
        record("NRCB1", "2026-02-01T00:00:00Z", {"any": 1500, "HOT": 700, "DO_NOT_USE": 1300}),
        record("NRCB2", "2026-02-01T00:00:00Z", {}, "failed"),
    ]
    rows = [row(records[0], "made"), row(records[1], "current"), row(records[2], "failed", "<disk> full")]
    assert index_page.write_index(records, rows, tmp_path / "index.html") == 2
    page = (tmp_path / "index.html").read_text()
    assert "any flag 1,000 to 1,500" in page
    assert "HOT 400 to 700" in page
    assert '<td class="number">1,500</td><td class="number">1,300</td>' in page
    assert "no mask in use" in page
    assert "&lt;disk&gt; full" in page
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#|data:|\.\.|[^":]*\.)', page)
    assert "://" not in page


@pytest.mark.parametrize("name", ["m.fits", "m_record.json", "index"])
def test_the_index_page_takes_no_other_file_s_place(tmp_path, name):
    (tmp_path / name).write_text("mine")
    done = call("history", tmp_path, "--html", tmp_path / name, "--overwrite")
    assert done.exit_code == 2
    assert "expected a name that ends in .html" in done.output
    assert (tmp_path / name).read_text() == "mine"
