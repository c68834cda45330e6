"""``badpix flats``, ``badpix merge`` and ``badpix params`` as a user's shell sees them."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
import yaml
from astropy.io import fits
from click.testing import CliRunner
from make_files import (
    CORNER,
    list_folder,
    make_flats,
    make_header,
    pack_gzip,
    pack_tiles,
    write_rate,
    write_rates,
    write_uncal,
)
from mask_files import SUB64, make_mask

from badpix import dq
from badpix.cli.main import badpix, outlier
from badpix.detectors import Window
from badpix.io import evidence, evidence_file
from badpix.mask import file as mask_file
from badpix.mask import rules
from badpix.settings import files as settings_files
from badpix.settings import param
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate
from badpix.simulation.truth_file import read_truth

V = dq.VALUE
DNU = V["DO_NOT_USE"]


def run(*args, code=0, group=badpix):
    """Run a command; stdout and stderr, never a traceback."""
    done = CliRunner().invoke(group, [str(a) for a in args])
    assert "Traceback" not in done.output
    assert "internal error" not in done.output
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def refused(*args, code, words=()):
    """One message with the words; nothing on stdout."""
    out, err = run(*args, code=code)
    assert out == ""
    text = " ".join(err.split())
    for word in [words] if isinstance(words, str) else words:
        assert word in text, text
    return text


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Commands run in an empty directory, and leave it so."""
    place = tmp_path / "cwd"
    place.mkdir()
    monkeypatch.chdir(place)
    yield
    assert list_folder(place) == []


def flats_with_defects(n=4):
    stack = make_flats(n, lamp=0.03)
    stack[:, 20, 30] = 0.1
    stack[:, 40, 50] *= 0.3
    stack[:, :4] = stack[:, :, :4] = 0
    return stack


@pytest.fixture
def folder(tmp_path):
    write_rates(tmp_path / "in", flats_with_defects(), window=CORNER)
    return tmp_path / "in"


# --- flats -----------------------------------------------------------------------------------------------


def test_one_command_makes_a_sound_mask(folder, tmp_path):
    before = {p: p.read_bytes() for p in folder.iterdir()}
    out, err = run("flats", f"{folder}/*_rate.fits", "-o", tmp_path / "m.fits", "--author", "A. Name")
    assert out == f"{tmp_path}/m.fits\n"
    assert "4 inputs" in err
    assert "DEAD" in err
    found = mask_file.read_mask(tmp_path / "m.fits")
    wanted = np.zeros((80, 96), np.uint32)
    wanted[:4] = wanted[:, :4] = V["REFERENCE_PIXEL"]
    wanted[20, 30], wanted[40, 50] = V["DEAD"] | DNU, V["LOW_QE"] | DNU
    np.testing.assert_array_equal(found.image, wanted)
    header = found.header
    assert (header["AUTHOR"], header["SUBARRAY"], header["DETECTOR"]) == ("A. Name", "SUB160", "NRCB1")
    assert (header["SUBSTRT1"], header["SUBSIZE1"], header["SUBSIZE2"]) == (1, 96, 80)
    assert header["PEDIGREE"] == "INFLIGHT 2026-01-01 2026-01-04"
    assert header["USEAFTER"] == "2026-01-01T01:02:03"
    assert header["BPFSMOTH"] == 15
    assert header["BPFMXDED"] == 0.05
    assert [f for f in rules.find_faults(tmp_path / "m.fits") if f.severity == "error"] == []
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    made = ["m.fits", "m_evidence.fits"]
    assert list_folder(tmp_path) == ["cwd", "in", *(f"in/{p.name}" for p in sorted(folder.iterdir())), *made]
    run("flats", f"{folder}/*_rate.fits", "-o", tmp_path / "n.fits", "--no-evidence")
    assert "n_evidence.fits" not in list_folder(tmp_path)


def test_json_is_all_that_stdout_has(folder, tmp_path):
    out, _ = run("flats", folder, "-o", tmp_path / "m.fits", "--json", "--evidence")
    summary = json.loads(out)
    assert summary["status"] == "done"
    assert summary["outputs"] == [f"{tmp_path}/m.fits", f"{tmp_path}/m_evidence.fits"]
    assert summary["searches"]["DEAD"]["pixels"] == 1
    assert summary["flags"]["DO_NOT_USE"]["pixels"] == 2
    assert summary["science_pixels"] == 76 * 92
    assert summary["flags"]["any"]["percent"] == pytest.approx(200 / (76 * 92), abs=1e-4)
    assert summary["inputs"] == [f"exposure{k:02d}_rate.fits" for k in range(1, 5)]
    assert any(limit["search"] == "DEAD" and limit["limit"] == 0.05 for limit in summary["limits"])
    assert summary["seconds"] >= 0
    assert summary["peak_memory_mb"] > 10


@pytest.mark.slow
def test_equal_bytes_for_any_order_workers_memory_and_form(folder, tmp_path):
    """Only the names of the files in the HISTORY tell how they were packed."""
    (tmp_path / "l.txt").write_text("\n".join(f"in/{p.name}" for p in sorted(folder.iterdir(), reverse=True)))
    calls = {
        "a": [folder],
        "b": [f"@{tmp_path}/l.txt"],
        "c": [f"{folder}/*.fits", "--workers", "2"],
        "d": [folder, "--max-memory", "160M"],
    }
    for name, args in calls.items():
        (tmp_path / name).mkdir()
        run("flats", *args, "-o", tmp_path / name / "m.fits", "--evidence")
    for name in "bcd":
        for product in ("m.fits", "m_evidence.fits"):
            assert (tmp_path / name / product).read_bytes() == (tmp_path / "a" / product).read_bytes()
    packed = sorted(folder.iterdir())
    pack_gzip(packed[0])
    pack_tiles(packed[1])
    run("flats", folder, "-o", tmp_path / "e.fits")
    whole, other = (mask_file.read_mask(tmp_path / p).image for p in ("a/m.fits", "e.fits"))
    np.testing.assert_array_equal(whole, other)


def test_documented_set_leaves_dead_pixels_usable(folder, tmp_path):
    """The documented flat_do_not_use is empty: a documented mask has no DO_NOT_USE from flats."""
    run("flats", folder, "-o", tmp_path / "m.fits", "--set", "documented")
    image = mask_file.read_mask(tmp_path / "m.fits").image
    assert not (image & DNU).any()
    assert image[20, 30] & V["DEAD"]
    run("flats", folder, "-o", tmp_path / "n.fits", "--set", "documented", "--flat-do-not-use", "dead")
    image = mask_file.read_mask(tmp_path / "n.fits").image
    assert image[20, 30] & DNU
    np.testing.assert_array_equal(image & DNU != 0, image & V["DEAD"] != 0)


def test_manual_lists_are_in_full_frame_coordinates(folder, tmp_path):
    (tmp_path / "l.txt").write_text("x y flag\n10 11 HOT\n30 20 RC\n500: : WARM\n:7 9 UNRELIABLE_SLOPE\n2 2 DEAD\n")
    _, err = run("flats", folder, "--manual", tmp_path / "l.txt", "-o", tmp_path / "m.fits")
    assert "l.txt: 1 of 5 lines lie outside the mask's window: left out" in err
    assert "OPEN" not in [line.split()[2] for line in err.splitlines() if line.startswith("│ search")]  # as the flag
    found = mask_file.read_mask(tmp_path / "m.fits")
    assert found.image[11, 10] == V["HOT"] | DNU
    assert found.image[20, 30] == V["DEAD"] | V["RC"] | DNU
    assert not (found.image & V["WARM"]).any()  # outside of the window, which a note says
    assert (found.image[9, 4:8] == V["UNRELIABLE_SLOPE"] | DNU).all()
    assert found.image[2, 2] == V["REFERENCE_PIXEL"] | V["DEAD"]  # a good reference pixel keeps in use
    assert "l.txt" in " ".join(found.history)
    (tmp_path / "hot.txt").write_text("30 20 HOT\n")
    run("flats", folder, "--manual-flag-file", tmp_path / "hot.txt", "-o", tmp_path / "n.fits")
    assert mask_file.read_mask(tmp_path / "n.fits").image[20, 30] == V["HOT"] | DNU  # HOT wins over DEAD


def test_manual_list_in_an_interior_window(tmp_path):
    write_rates(tmp_path / "in", make_flats(3))
    (tmp_path / "l.txt").write_text("999 899 HOT\n10 10 DEAD\n1094: 978: RC\n")
    run("flats", tmp_path / "in", "--manual", tmp_path / "l.txt", "-o", tmp_path / "m.fits")
    image = mask_file.read_mask(tmp_path / "m.fits").image
    assert image[0, 0] == V["HOT"] | DNU
    assert (image[79:, 95:] == V["RC"] | DNU).all()
    assert not (image & V["DEAD"]).any()


@pytest.mark.slow
def test_flux_check_finds_its_raw_flats(folder, tmp_path):
    ramps = np.full((5, 80, 96), 60000, np.uint16)
    for k in range(1, 5):
        write_uncal(folder / f"exposure{k:02d}_uncal.fits", ramps, window=CORNER, number=k)
    calls = {
        "beside": [],
        "named": ["--uncal", f"{folder}/*_uncal.fits"],
        "parameter": ["--dead-flux-check-files", f"{folder}/*_uncal.fits"],
    }
    for name, more in calls.items():
        run("flats", f"{folder}/*_rate.fits", "--run-dead-flux-check", *more, "-o", tmp_path / f"{name}.fits")
        assert not (mask_file.read_mask(tmp_path / f"{name}.fits").image & V["DEAD"]).any()
    run("flats", f"{folder}/*_rate.fits", "-o", tmp_path / "off.fits")
    assert (mask_file.read_mask(tmp_path / "off.fits").image & V["DEAD"]).any()


def test_flux_check_refuses_files_that_do_not_belong(folder, tmp_path):
    args = ["flats", f"{folder}/*_rate.fits", "--run-dead-flux-check", "-o", tmp_path / "m.fits"]
    refused(*args, code=1, words="no raw flats")
    ramps = np.full((5, 80, 96), 6, np.uint16)
    for options, words in (
        ({"s_ramp": "COMPLETE"}, "S_RAMP = 'COMPLETE', expected not 'COMPLETE'"),
        ({"detector": "NRCB2"}, "DETECTOR = 'NRCB2', expected 'NRCB1'"),
    ):
        odd = write_uncal(tmp_path / "odd_uncal.fits", ramps, window=CORNER, **options)
        refused(*args, "--uncal", odd, code=1, words=["odd_uncal.fits", words])
    flat = write_uncal(tmp_path / "odd_uncal.fits", ramps[0], window=CORNER)
    refused(*args, "--uncal", flat, code=1, words=["odd_uncal.fits", "2 axes"])


def test_bad_files_are_left_out_on_request(folder, tmp_path):
    (folder / "exposure02_rate.fits").write_bytes(b"no FITS")
    write_rate(folder / "exposure03_rate.fits", make_flats(1)[0], window=CORNER, s_ramp="SKIPPED")
    refused("flats", folder, "-o", tmp_path / "m.fits", code=1, words="exposure02_rate.fits: not readable as FITS")
    out, err = run("flats", folder, "-o", tmp_path / "m.fits", "--skip-bad", "--json")
    summary = json.loads(out)
    assert summary["inputs"] == ["exposure01_rate.fits", "exposure04_rate.fits"]
    assert [r["file"] for r in summary["rejected"]] == ["exposure02_rate.fits", "exposure03_rate.fits"]
    assert "wrong calibration state" in summary["rejected"][1]["reason"]
    assert "rejected: exposure02_rate.fits" in err
    assert "rejected: exposure03_rate.fits" in " ".join(
        " ".join(mask_file.read_mask(tmp_path / "m.fits").history).split()
    )
    for path in folder.iterdir():
        path.write_bytes(b"")
    refused(
        "flats", folder, "-o", tmp_path / "n.fits", "--skip-bad", code=1, words="none of the 4 inputs can be used"
    )


def broken_calls(folder, tmp_path):
    """Calls that must end in one message: name -> (args, exit status, words)."""
    out = ["-o", tmp_path / "out" / "m.fits"]
    image = make_flats(1)[0]
    other = write_rate(tmp_path / "other_rate.fits", image, detector="NRCB2", window=CORNER)
    dark = write_rate(tmp_path / "nan_rate.fits", np.full((80, 96), np.nan), window=CORNER)
    small = write_rate(tmp_path / "small_rate.fits", image[:40], window=Window(1, 1, 96, 40))
    jump = write_rate(tmp_path / "j_rate.fits", image[None, None], window=CORNER)
    (tmp_path / "l.txt").write_text("1 2 NOISY\n")
    (tmp_path / "y.yml").write_text("flats: {dead_sigma_treshold: 3}\n")
    (tmp_path / "d.yml").write_text("detector: NRCA1\n")
    (tmp_path / "e.yml").write_text("detector: NRCX1\n")
    return {
        "nothing": (["flats", *out], 2, "no slope images of flats"),
        "no output": (["flats", folder], 2, "no output: give -o FILE"),
        "unknown option": (["flats", folder, "--nothing", *out], 2, "no option"),
        "missing": (["flats", tmp_path / "gone_rate.fits", *out], 2, "gone_rate.fits: no such file"),
        "no match": (["flats", f"{tmp_path}/*.none", *out], 2, "matches no file"),
        "twice": (["flats", folder, folder / "exposure01_rate.fits", *out], 2, "is given twice"),
        "mixed": (["flats", folder, other, *out], 1, "other_rate.fits: DETECTOR = 'NRCB2', expected 'NRCB1'"),
        "all NaN": (["flats", folder, dark, *out], 1, "nan_rate.fits: integration 1: no science pixel"),
        "size": (["flats", folder, small, *out], 1, "small_rate.fits: window"),
        "kind": (["flats", jump, *out], 1, "j_rate.fits: is a jump file"),
        "flag": (
            ["flats", folder, "--manual", tmp_path / "l.txt", *out],
            2,
            "l.txt: line 1: flag 'NOISY' is unknown",
        ),
        "no list": (["flats", folder, "--manual", tmp_path / "no.txt", *out], 2, "no.txt: manual list can't be read"),
        "value": (["flats", folder, "--flux-check", "-3", *out], 2, "--flux-check: -3.0 is out of range"),
        "type": (
            ["flats", folder, "--smoothing-box-width", "wide", *out],
            2,
            "found 'wide', expected a whole number",
        ),
        "choice": (["flats", folder, "--smoothing-type", "Box", *out], 2, "'Box' is not one of Box2D, Median"),
        "YAML": (["flats", folder, "-p", tmp_path / "y.yml", *out], 2, "did you mean 'dead_sigma_threshold'?"),
        "no YAML": (["flats", folder, "-p", tmp_path / "n.yml", *out], 2, "n.yml: no such parameter file"),
        "detector": (["flats", folder, "-p", tmp_path / "d.yml", *out], 1, "DETECTOR = 'NRCB1', expected 'NRCA1'"),
        "no detector": (["flats", folder, "-p", tmp_path / "e.yml", *out], 2, "'NRCX1' is unknown"),
        "text": (
            ["flats", folder, "--pedigree", "FLIGHT", *out],
            2,
            "--pedigree (reference.pedigree): found 'FLIGHT'",
        ),
        "long": (["flats", folder, "--descrip", "x" * 66, *out], 2, "66 characters, at most 65 fit"),
        "field": (["flats", folder, "-o", tmp_path / "out" / "{filter}.fits"], 2, "unknown field"),
        "attribute": (["flats", folder, "-o", tmp_path / "out" / "{detector.x}.fits"], 2, "unknown field"),
        "folder": (["flats", folder, "-o", tmp_path], 2, "is a directory"),
        "memory": (["flats", folder, "--max-memory", "much", *out], 2, "--max-memory: found 'much'"),
        "bytes": (["flats", folder, "--max-memory", "500", *out], 2, "--max-memory: found 500 bytes, expected at"),
        "less": (["flats", folder, "--max-memory", "20M", *out], 2, "--max-memory: found 20M, expected at least 7"),
        "coupling": (["flats", folder, "--ipc-correction", "given", *out], 2, "ipc_coupling"),
        "input": (["flats", folder, "-o", folder / "exposure01_rate.fits", "--overwrite"], 2, "is also an input"),
        "no masks": (["merge", *out], 2, "no masks"),
        "no mask": (["merge", tmp_path / "gone.fits", *out], 2, "gone.fits: no such file"),
        "no FITS": (["merge", tmp_path / "l.txt", *out], 1, "l.txt: not readable as FITS"),
    }


BROKEN = [
    "bytes",
    "nothing",
    "no output",
    "unknown option",
    "missing",
    "no match",
    "twice",
    "mixed",
    "all NaN",
    "size",
    "kind",
    "flag",
    "no list",
    "value",
    "type",
    "choice",
    "YAML",
    "no YAML",
    "detector",
    "no detector",
    "text",
    "long",
    "field",
    "attribute",
    "folder",
    "memory",
    "less",
    "coupling",
    "input",
    "no masks",
    "no mask",
    "no FITS",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_every_mistake_is_one_message_and_leaves_nothing(folder, tmp_path, name):
    calls = broken_calls(folder, tmp_path)
    assert set(calls) == set(BROKEN)
    before = {p: (tmp_path / p).read_bytes() for p in list_folder(tmp_path) if (tmp_path / p).is_file()}
    args, code, words = calls[name]
    refused(*args, code=code, words=words)
    after = {p: (tmp_path / p).read_bytes() for p in list_folder(tmp_path) if (tmp_path / p).is_file()}
    assert after == before


def test_failures_in_json_too(folder, tmp_path):
    (folder / "exposure02_rate.fits").write_bytes(b"no FITS")
    out, err = run("flats", folder, "-o", tmp_path / "m.fits", "--json", code=1)
    failed = json.loads(out)
    assert (failed["status"], failed["exit"]) == ("failed", 1)
    assert "exposure02_rate.fits" in failed["error"]
    assert "exposure02_rate.fits" in err


def test_existing_outputs_are_kept_unless_asked(folder, tmp_path):
    args = ["flats", folder, "-o", tmp_path / "m.fits", "--evidence"]
    (tmp_path / "m_evidence.fits").write_text("mine")
    refused(*args, code=2, words="m_evidence.fits: exists; give --overwrite")
    assert not (tmp_path / "m.fits").exists()
    (tmp_path / "m.fits").write_text("mine")
    refused(*args, code=2, words="m.fits: exists; give --overwrite")
    assert (tmp_path / "m.fits").read_text() == "mine"
    run(*args, "--overwrite")
    assert mask_file.read_mask(tmp_path / "m.fits").image.any()


def test_output_names_are_filled_in(folder, tmp_path):
    out, _ = run("flats", folder, "-o", tmp_path / "{instrument}_{detector}_mask_{date}.fits")
    assert out == f"{tmp_path}/nircam_nrcb1_mask_20260101.fits\n"


def test_evidence_tells_why(folder, tmp_path):
    run("flats", folder, "-o", tmp_path / "m.fits", "--evidence")
    found, header = evidence_file.read(tmp_path / "m_evidence.fits")
    assert header["MASKSUM"] == fits.getheader(tmp_path / "m.fits", "DQ")["DATASUM"]
    (rule,) = [r for r in found.rules if r.search == "DEAD"]
    assert evidence.holds(rule, found, 20, 30)[2]
    assert not evidence.holds(rule, found, 40, 50)[2]
    assert found.images["is_low_qe"][40, 50]


def test_one_yaml_for_one_detector(folder, tmp_path):
    (tmp_path / "l.txt").write_text("12 13 RC\n")
    (tmp_path / "all.yml").write_text(
        "detector: NRCB1\n"
        'reference: {author: "A. Name", descrip: "flats of a test", useafter: "2026-01-01T00:00:00"}\n'
        'flats: {inputs: {rate: "in/*_rate.fits"}, manual_flag_file: l.txt, max_low_qe_norm_signal: 0.2}\n'
        "darks: {}\n"
        'output: "out/{detector}.fits"\n'
    )
    out, _ = run("flats", "-p", tmp_path / "all.yml")
    assert out == f"{tmp_path}/out/nrcb1.fits\n"
    found = mask_file.read_mask(tmp_path / "out" / "nrcb1.fits")
    assert found.image[13, 12] == V["RC"] | DNU
    assert found.image[40, 50] == 0  # 0.3 of the light is no longer low
    assert (found.header["AUTHOR"], found.header["DESCRIP"]) == ("A. Name", "flats of a test")
    out, _ = run("flats", "-p", tmp_path / "all.yml", "--max-low-qe-norm-signal", "0.5", "-o", tmp_path / "x.fits")
    assert mask_file.read_mask(tmp_path / "x.fits").image[40, 50] == V["LOW_QE"] | DNU


def test_quiet_and_log(folder, tmp_path):
    out, err = run("flats", folder, "-o", tmp_path / "m.fits", "-q", "--log-file", tmp_path / "log.txt")
    assert out == f"{tmp_path}/m.fits\n"
    assert all(line.startswith("note:") or not line.strip() for line in err.splitlines())
    log = (tmp_path / "log.txt").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info +\d+ flats: 4 slope images$", log, re.M)
    assert "done in" in log


@pytest.mark.slow
def test_pictures(folder, tmp_path):
    pytest.importorskip("matplotlib")
    run("flats", folder, "-o", tmp_path / "m.fits", "--plot", tmp_path / "plots")
    names = [p.name for p in (tmp_path / "plots").iterdir()]
    assert len(names) >= 4
    assert all(name.endswith(".png") for name in names)


@pytest.mark.slow
def test_simulated_flats_of_a_small_detector(tmp_path):
    """From the simulation through the command line to the truth: all isolated defects, whole map of DEAD."""
    p = SimulateSettings.from_values({"size": [200, 200], "flats": 5, "darks": 0}, "test")
    written = simulate(tmp_path / "sim", p)
    run("flats", *written["flats"], "-o", tmp_path / "m.fits", "--reference-subarray", "auto")
    image = mask_file.read_mask(tmp_path / "m.fits").image
    (truth_file,) = (tmp_path / "sim").glob("*truth*.fits")
    _, truth, _ = read_truth(truth_file)
    for name in ("DEAD", "LOW_QE", "OPEN"):
        wanted, found = truth & V[name] != 0, image & V[name] != 0
        assert wanted.sum() > 5
        assert (found & wanted).sum() >= 0.98 * wanted.sum(), name
        assert (found & ~wanted).sum() <= 0.02 * wanted.sum() + 1, name


# --- merge -----------------------------------------------------------------------------------------------


def miri(path, *flags, **keywords):
    """A mask of MIRI's SUB64."""
    return make_mask(path, "MIRIMAGE", SUB64, flags, SUBARRAY="SUB64", **keywords)


def merged(tmp_path, *args, code=0, said=""):
    _, err = run("merge", *args, "-o", tmp_path / "m.fits", "--overwrite", code=code)
    assert said in err
    return mask_file.read_mask(tmp_path / "m.fits")


def test_masks_and_lists_are_joined(tmp_path):
    one = miri(tmp_path / "one.fits", (10, 10, "DEAD+DO_NOT_USE"), (11, 11, "DEAD+DO_NOT_USE"))
    two = miri(tmp_path / "two.fits", (10, 10, "HOT"), (12, 12, "RC"))
    (tmp_path / "l.txt").write_text("20 800 OTHER_BAD_PIXEL\n12 790 WARM\n")
    found = merged(tmp_path, one, two, "--manual", tmp_path / "l.txt", said="2 masks, 1 manual list, ")
    wanted = mask_file.read_mask(miri(tmp_path / "w.fits")).image
    wanted[10, 10], wanted[11, 11], wanted[12, 12] = V["HOT"] | DNU, V["DEAD"] | DNU, V["RC"] | V["WARM"]
    wanted[800 - 778, 20] = V["OTHER_BAD_PIXEL"] | DNU
    np.testing.assert_array_equal(found.image, wanted)
    assert found.window == SUB64
    text = " ".join(" ".join(found.history).split())
    for words in ("one.fits", "two.fits", "l.txt", "merge.min_fraction = 0.0", "DATA USED:"):
        assert words in text
    assert [f for f in rules.find_faults(tmp_path / "m.fits") if f.severity == "error"] == []


def test_hot_over_dead_may_be_turned_off(tmp_path):
    one, two = miri(tmp_path / "1.fits", (10, 10, "DEAD")), miri(tmp_path / "2.fits", (10, 10, "HOT"))
    assert merged(tmp_path, one, two).image[10, 10] == V["HOT"]
    assert merged(tmp_path, one, two, "--no-hot-over-dead").image[10, 10] == V["HOT"] | V["DEAD"]


def test_order_does_not_matter(tmp_path):
    one, two = miri(tmp_path / "1.fits", (10, 10, "DEAD")), miri(tmp_path / "2.fits", (10, 10, "HOT"))
    for name, args in {"a": [one, two], "b": [two, one]}.items():
        (tmp_path / name).mkdir()
        run("merge", *args, "-o", tmp_path / name / "m.fits")
    assert (tmp_path / "a" / "m.fits").read_bytes() == (tmp_path / "b" / "m.fits").read_bytes()


@pytest.mark.slow
def test_fractions(tmp_path):
    masks = [
        miri(tmp_path / f"{k}.fits", *[(x, 10, "HOT+DO_NOT_USE") for x in range(10, 10 + k)]) for k in range(1, 5)
    ]
    for fraction, number in ((0, 4), (0.25, 4), (0.26, 3), (0.5, 3), (0.75, 2), (1, 1)):
        image = merged(tmp_path, *masks, "--min-fraction", fraction).image
        assert np.count_nonzero(image[10, 4:]) == number, fraction
    refused("merge", *masks, "--min-fraction", "1.5", "-o", tmp_path / "x.fits", code=2, words="from 0 to 1")


def test_newest(tmp_path):
    old = miri(tmp_path / "b.fits", (10, 10, "HOT"), (11, 11, "RC"), USEAFTER="2024-01-01T00:00:00")
    new = miri(tmp_path / "a.fits", (10, 10, "DEAD"), USEAFTER="2025-01-01T00:00:00")
    found = merged(tmp_path, old, new, "--prefer", "newest")
    assert found.image[10, 10] == V["DEAD"]
    assert found.image[11, 11] == 0
    assert found.header["USEAFTER"] == "2024-01-01T00:00:00"


@pytest.mark.slow
def test_subarray_into_the_full_frame(tmp_path):
    full = make_mask(tmp_path / "full.fits", "MIRIMAGE", None, [(10, 10, "HOT"), (10, 785, "RC")])
    sub = miri(tmp_path / "sub.fits", (10, 7, "DEAD"), (71, 63, "WARM"))
    refused("merge", full, sub, "-o", tmp_path / "x.fits", code=1, words=["sub.fits: window", "--embed"])
    found = merged(tmp_path, full, sub, "--embed")
    assert found.image.shape == (1024, 1032)
    assert found.header["SUBARRAY"] == "GENERIC"
    assert found.image[785, 10] == V["RC"] | V["DEAD"]
    assert found.image[778 + 63, 71] == V["WARM"]
    newest = merged(tmp_path, full, sub, "--embed", "--prefer", "newest", "--min-fraction", "0.6")
    assert newest.image[10, 10] == V["HOT"]
    alone = merged(tmp_path, sub, "--embed")
    assert np.count_nonzero(alone.image & ~np.uint32(V["REFERENCE_PIXEL"])) == 2


def test_fractions_count_only_masks_that_cover_a_pixel(tmp_path):
    full = [make_mask(tmp_path / f"f{k}.fits", "MIRIMAGE", None, [(10, 10, "HOT"), (10, 785, "HOT")]) for k in (1, 2)]
    sub = miri(tmp_path / "sub.fits")
    image = merged(tmp_path, *full, sub, "--embed", "--min-fraction", "0.7").image
    assert image[10, 10] == V["HOT"]
    assert image[785, 10] == 0


def test_other_detectors_are_refused(tmp_path):
    one, two = miri(tmp_path / "1.fits"), make_mask(tmp_path / "2.fits", "MIRIFULONG", SUB64)
    refused("merge", one, two, "-o", tmp_path / "x.fits", code=1, words="2.fits: DETECTOR = 'MIRIFULONG'")
    odd = miri(tmp_path / "3.fits", DETECTOR="MIRI")
    refused("merge", one, odd, "-o", tmp_path / "x.fits", code=1, words=["3.fits: DETECTOR 'MIRI' is unknown"])
    none = miri(tmp_path / "4.fits", DETECTOR=None)
    refused("merge", none, "-o", tmp_path / "x.fits", code=1, words="4.fits")


def test_one_based_lists(tmp_path):
    mask = miri(tmp_path / "1.fits")
    (tmp_path / "l.txt").write_text("21 801 HOT\n")
    assert (
        merged(tmp_path, mask, "--manual", tmp_path / "l.txt", "--one-based").image[800 - 778, 20] == V["HOT"] | DNU
    )


def test_manual_flags_without_do_not_use(tmp_path):
    mask = miri(tmp_path / "1.fits")
    (tmp_path / "l.txt").write_text("20 800 HOT\n21 800 DO_NOT_USE\n")
    image = merged(tmp_path, mask, "--manual", tmp_path / "l.txt", "--no-manual-do-not-use").image
    assert image[22, 20:22].tolist() == [V["HOT"], DNU]
    image = merged(tmp_path, mask, "--manual", tmp_path / "l.txt", "--do-not-use", "warm,dead").image
    assert image[22, 20] == V["HOT"]
    image = merged(tmp_path, mask, "--manual", tmp_path / "l.txt", "--do-not-use", "hot").image
    assert image[22, 20] == V["HOT"] | DNU
    refused(
        "merge",
        mask,
        "--do-not-use",
        "NOISY",
        "-o",
        tmp_path / "x.fits",
        code=2,
        words="did you mean UNRELIABLE_SLOPE",
    )


def test_odd_flags_of_old_masks_can_be_dropped(tmp_path):
    """Masks with JUMP_DET or AD_FLOOR have been in use; such a flag belongs to one exposure."""
    old = miri(tmp_path / "old.fits", (10, 10, "HOT+JUMP_DET"), (11, 11, "AD_FLOOR"))
    table = [f for f in dq.FLAGS if f.use == "mask" or f.name in ("JUMP_DET", "AD_FLOOR")]
    with fits.open(old) as hdus:
        from mask_files import make_table

        hdus[2] = make_table(table)
        hdus.writeto(old, overwrite=True, checksum=True)
    refused("merge", old, "-o", tmp_path / "x.fits", code=1, words="JUMP_DET")
    assert not (tmp_path / "x.fits").exists()
    found = merged(tmp_path, old, "--drop", "JUMP_DET,ad_floor")
    assert found.image[10, 10] == V["HOT"]
    assert found.image[11, 11] == 0
    refused("merge", old, "--drop", "JUMP", "-o", tmp_path / "x.fits", code=2, words="'JUMP' is unknown")


def test_good_reference_pixels_get_no_do_not_use(tmp_path):
    """The pipeline's reference-pixel correction leaves out those that have it, and switches itself off."""
    odd = miri(tmp_path / "1.fits", (0, 5, "DO_NOT_USE+BAD_REF_PIXEL"), *[(2, y, "DO_NOT_USE") for y in range(64)])
    _, err = run("merge", odd, "-o", tmp_path / "m.fits")
    image = mask_file.read_mask(tmp_path / "m.fits").image
    assert "64 good reference pixels carried DO_NOT_USE in the inputs; taken off" in " ".join(err.split())
    assert (image[:, 2] == V["REFERENCE_PIXEL"]).all()
    assert image[5, 0] == V["REFERENCE_PIXEL"] | V["BAD_REF_PIXEL"] | DNU


def test_the_border_of_a_scaled_detector_stays(tmp_path):
    """`badpix simulate --size` makes small detectors with a border where the real one has none."""
    row = [(x, 0, "REFERENCE_PIXEL") for x in range(72)]
    one, two = miri(tmp_path / "1.fits", *row), miri(tmp_path / "2.fits", *row, (30, 30, "RC"), (40, 0, "DEAD"))
    assert (merged(tmp_path, one, two).image[0] & V["REFERENCE_PIXEL"]).all()
    inside = [(30, 31, "REFERENCE_PIXEL")]
    one, two = miri(tmp_path / "3.fits", *row, *inside), miri(tmp_path / "4.fits", *inside)
    image = merged(tmp_path, one, two).image
    assert not (image[0, 4:] & V["REFERENCE_PIXEL"]).any()  # one mask alone is no proof, and geometry says no
    assert not image[31, 30]


def test_a_bad_reference_pixel_of_a_manual_list_is_not_used(tmp_path):
    """The correction takes every reference pixel without DO_NOT_USE."""
    (tmp_path / "list.txt").write_text("0 785 BAD_REF_PIXEL\n")
    plain = miri(tmp_path / "1.fits", (30, 30, "RC"))
    image = merged(tmp_path, plain, "--manual", tmp_path / "list.txt").image
    assert image[7, 0] == V["REFERENCE_PIXEL"] | V["BAD_REF_PIXEL"] | DNU


def test_plain_maps_of_other_tools(tmp_path):
    plain = np.zeros((64, 72), np.uint8)
    plain[10, 10], plain[20, 2] = 1, 1
    fits.PrimaryHDU(plain).writeto(tmp_path / "map.fits")
    refused("merge", tmp_path / "map.fits", "-o", tmp_path / "x.fits", code=1, words="map.fits: keyword DETECTOR")
    mask = miri(tmp_path / "1.fits", (10, 10, "RC"))
    found = merged(tmp_path, mask, tmp_path / "map.fits", "--plain-flag", "hot")
    assert found.image[10, 10] == V["RC"] | V["HOT"] | DNU
    assert found.image[20, 2] == V["REFERENCE_PIXEL"] | V["HOT"]
    fits.PrimaryHDU(plain[:, :70]).writeto(tmp_path / "map2.fits")
    refused(
        "merge",
        mask,
        tmp_path / "map2.fits",
        "-o",
        tmp_path / "x.fits",
        code=1,
        words="map2.fits: has 70 x 64 pixels",
    )
    words = "did you mean UNRELIABLE_SLOPE"
    refused(
        "merge", mask, "--plain-flag", "noisy", tmp_path / "map.fits", "-o", tmp_path / "x.fits", code=2, words=words
    )


def test_merging_from_a_parameter_file(tmp_path):
    miri(tmp_path / "1.fits", (10, 10, "RC"))
    miri(tmp_path / "2.fits", (11, 11, "RC"))
    (tmp_path / "l.txt").write_text("20 800 HOT\n")
    (tmp_path / "p.yml").write_text(yaml.safe_dump({"merge": {"manual": ["l.txt"], "masks": ["1.fits", "2.fits"]}}))
    run("merge", "-p", tmp_path / "p.yml", "-o", tmp_path / "m.fits")
    image = mask_file.read_mask(tmp_path / "m.fits").image
    assert (image[10, 10], image[11, 11], image[22, 20]) == (V["RC"], V["RC"], V["HOT"] | DNU)


@pytest.mark.slow
def test_merging_flats_and_an_older_mask(folder, tmp_path):
    run("flats", folder, "-o", tmp_path / "f.fits", "--evidence")
    old = make_mask(tmp_path / "old.fits", "NRCB1", CORNER, [(60, 60, "WARM")], SUBARRAY="SUB160")
    out, _ = run("merge", tmp_path / "f.fits", old, "-o", tmp_path / "m.fits", "--evidence", "--json")
    assert json.loads(out)["evidence"] == f"{tmp_path}/m_evidence.fits"
    found = mask_file.read_mask(tmp_path / "m.fits")
    assert found.image[20, 30] == V["DEAD"] | DNU
    assert found.image[60, 60] == V["WARM"]
    joined, header = evidence_file.read(tmp_path / "m_evidence.fits")
    assert "flat_norm" in joined.images
    assert header["MASKFILE"] == "m.fits"


@pytest.mark.slow
def test_real_list_and_maps_make_one_mask(real_data, tmp_path):
    """The hand-made list of NRCA1 (2545 rows) and grizli's maps of new hot and of dim pixels."""
    blank = make_mask(tmp_path / "blank.fits", "NRCA1")
    maps = sorted((real_data / "gbrammer+grizli").glob("*_NRCA1*.fits.gz"))
    assert len(maps) == 2
    manual = real_data / "spacetelescope+jwst_reffiles" / "nircam_nrca1_manual_flags.txt"
    out, _ = run("merge", blank, *maps, "--manual", manual, "-o", tmp_path / "m.fits", "--json")
    image = mask_file.read_mask(tmp_path / "m.fits").image
    wanted = np.zeros((2048, 2048), bool)
    for path in maps:
        wanted |= fits.getdata(path) != 0
    border = np.ones((2048, 2048), bool)
    border[4:-4, 4:-4] = False
    np.testing.assert_array_equal((image & V["OTHER_BAD_PIXEL"] != 0), wanted)
    assert not (image[border] & DNU).any()
    flags = json.loads(out)["flags"]
    assert flags["DEAD"]["pixels"] >= 2500
    assert flags["DO_NOT_USE"]["pixels"] == np.count_nonzero(image[~border] & DNU)
    assert [f for f in rules.find_faults(tmp_path / "m.fits") if f.severity == "error"] == []


@pytest.mark.slow
def test_real_maps_over_years(real_data, tmp_path):
    """Maps of NRCALONG, 2023 to 2026, with the share of dates as a limit: fewer and fewer pixels."""
    blank = make_mask(tmp_path / "blank.fits", "NRCALONG")
    maps = sorted((real_data / "gbrammer+grizli").glob("nrc_badpix_*_NRCALONG.fits.gz"))[1::3]
    counts = []
    for fraction in (0, 0.6):
        out, _ = run("merge", blank, *maps, "--min-fraction", fraction, "-o", tmp_path / f"{fraction}.fits", "--json")
        counts.append(json.loads(out)["flags"]["OTHER_BAD_PIXEL"]["pixels"])
    assert counts[0] > counts[1] > 0


# --- params ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flats", "darks", "merge", "reference"])
@pytest.mark.parametrize("parameter_set", param.SETS)
def test_printed_parameters_load_back(tmp_path, name, parameter_set):
    out, _ = run("params", name, "--set", parameter_set)
    (tmp_path / "p.yml").write_text(out)
    sec = param.section(name)
    values, _ = settings_files.section_values(settings_files.load_file(tmp_path / "p.yml"), sec, "p")
    assert sec.from_values(values, "p") == sec.in_set(parameter_set)
    assert all(f"  {p.name}:" in out for p in sec.params())


def test_printed_documented_parameters_give_the_documented_mask(folder, tmp_path):
    out, _ = run("params", "flats", "--set", "documented")
    (tmp_path / "p.yml").write_text(out)
    run("flats", folder, "-p", tmp_path / "p.yml", "-o", tmp_path / "a.fits")
    run("flats", folder, "--set", "documented", "-o", tmp_path / "b.fits")
    np.testing.assert_array_equal(*(mask_file.read_mask(tmp_path / n).image for n in ("a.fits", "b.fits")))


def test_unknown_names_get_the_nearest():
    refused("params", "flat", code=2, words="did you mean 'flats'?")
    refused("flots", code=2, words="did you mean 'flats'?")
    _, err = run("imgae", code=2, group=outlier)
    assert "no command 'imgae'" in err


def test_headers_of_the_tests_are_sound():
    assert make_header()["S_RAMP"] == "COMPLETE"
    assert os.path.basename(os.getcwd()) == "cwd"
