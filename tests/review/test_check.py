"""Levels, policy, jumps and the exit status of ``badpix check``."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from make_files import write_rate
from mask_files import SUB64, make_hdus, make_image, make_mask, write

from badpix import dq
from badpix.cli.main import badpix
from badpix.errors import DataError, UsageError
from badpix.mask import file as mask_file
from badpix.review import check, clients
from badpix.settings.check import CheckSettings

P = CheckSettings.in_set()
RNG = np.random.default_rng(5)


def scatter(number, names="HOT+DO_NOT_USE", seed=1):
    """Flags on different science pixels of MIRIMAGE."""
    places = np.random.default_rng(seed).permutation(1024 * 1000)[:number]
    return [(10 + int(k % 1000), int(k // 1000), names) for k in places]


def run(*args):
    result = CliRunner().invoke(badpix, ["check", *map(str, args)])
    return result


def rules_of(checked):
    return [(f.severity, f.rule) for f in checked.faults]


def test_a_plausible_mask_passes(tmp_path):
    path = make_mask(tmp_path / "mask.fits", flags=scatter(5000))
    checked = check.check_mask(path, P)
    assert checked.passed
    assert checked.faults == []
    assert {r["flag"]: r["pixels"] for r in checked.flags} == {"DO_NOT_USE": 5000, "HOT": 5000, "any": 5000}


def test_too_few_and_too_many_flags(tmp_path):
    few = check.check_mask(make_mask(tmp_path / "few.fits", flags=scatter(10)), P)
    assert rules_of(few) == [("warning", "level")]
    assert "0.000954 % of the science pixels are flagged" in few.faults[0].message
    many = check.check_mask(make_mask(tmp_path / "many.fits", flags=scatter(60_000)), P)
    assert not many.passed
    assert [f.message for f in many.faults if f.severity == "error"] == [
        "HOT: 5.72 % of the science pixels, at most 5 %"
    ]


def test_the_limit_itself_is_allowed():
    n = 100_000
    assert check.check_level({"HOT": 5000, "DO_NOT_USE": 0, "any": 5000}, n, P) == []
    assert check.check_level({"HOT": 5001, "DO_NOT_USE": 0, "any": 5001}, n, P) != []


def test_unusable_level():
    found = check.check_level({"DO_NOT_USE": 16_000, "any": 16_000}, 100_000, P)
    assert [(f.severity, f.rule) for f in found] == [("warning", "level"), ("error", "level")]
    assert "16 % unusable" in found[1].message


def test_defects_that_stay_in_use_are_named_with_shares(tmp_path):
    """jwst #6366: half a million pixels with a flag, 82 of them unusable."""
    flags = [*scatter(5000, "HOT"), (500, 500, "DEAD+DO_NOT_USE")]
    checked = check.check_mask(make_mask(tmp_path / "mask.fits", flags=flags), P)
    assert checked.passed
    assert rules_of(checked) == [("warning", "policy")]
    text = checked.faults[0].message
    assert "HOT: 5,000 of 5,000 pixels have no DO_NOT_USE" in text or "4,999" in text
    assert "unusable" in text
    strict = check.check_mask(tmp_path / "mask.fits", replace(P, strict=True))
    assert not strict.passed


def test_do_not_use_without_a_reason_and_hot_with_dead(tmp_path):
    flags = [*scatter(5000), (500, 500, "DO_NOT_USE"), (501, 500, "HOT+DEAD+DO_NOT_USE")]
    checked = check.check_mask(make_mask(tmp_path / "mask.fits", flags=flags), P)
    messages = [f.message for f in checked.faults]
    assert any("DO_NOT_USE without a flag that says why" in m for m in messages)
    assert any("1 pixels are HOT and DEAD" in m for m in messages)


def test_a_broken_column_is_named(tmp_path):
    flags = scatter(5000) + [(384, y, "UNRELIABLE_SLOPE+DO_NOT_USE") for y in range(800)]
    checked = check.check_mask(make_mask(tmp_path / "mask.fits", flags=flags), P)
    assert rules_of(checked) == [("warning", "lines")]
    assert "column 384 (78 %)" in checked.faults[0].message


def test_a_jump_against_the_previous_mask(tmp_path):
    """WFC3 ISR 2021-14: unstable pixels went from 1.1 to 3.3 % by a wrong threshold alone."""
    old = make_mask(tmp_path / "old.fits", flags=scatter(2000) + scatter(1500, "RC+DO_NOT_USE", 2))
    new = make_mask(tmp_path / "new.fits", flags=scatter(6000) + scatter(1500, "RC+DO_NOT_USE", 2))
    checked = check.check_mask(new, P, against=old)
    errors = [f.message for f in checked.faults if f.rule == "jump"]
    assert any(m.startswith("HOT: 2,000 pixels in the previous mask, 6,000 now (3.0 times)") for m in errors)
    assert not any(m.startswith("RC") for m in errors)
    assert check.check_mask(new, P, against=new).passed
    assert {r["flag"]: r["previous"] for r in checked.flags}["HOT"] == 2000


def test_a_type_that_vanishes_is_a_jump():
    found = check.check_jump({"HOT": 900}, {}, 1_000_000, P)
    assert [f.message.split(";")[0] for f in found] == ["HOT: 900 pixels in the previous mask, 0 now (to none)"]
    assert check.check_jump({"HOT": 50}, {}, 1_000_000, P) == []  # 0.005 % of the pixels
    assert check.check_jump({"HOT": 5}, {"HOT": 20}, 10_000, P) == []  # within 5 times the counting noise
    assert check.check_jump({"HOT": 900}, {"HOT": 1800}, 1_000_000, P) == []  # the factor itself is fine


def test_a_subarray_is_compared_with_its_window(tmp_path):
    full = make_mask(tmp_path / "full.fits", flags=[(30, 800, "HOT+DO_NOT_USE"), (600, 10, "HOT+DO_NOT_USE")])
    part = make_mask(tmp_path / "part.fits", window=SUB64, flags=[(30, 22, "HOT+DO_NOT_USE")], SUBARRAY="SUB64")
    old, new, science = check.common_part(mask_file.read_mask(full), mask_file.read_mask(part))
    assert old.shape == new.shape == (64, 72)
    assert np.array_equal(old, new)
    assert science.sum() == 64 * 68


def test_masks_of_different_detectors_do_not_compare(tmp_path):
    one = make_mask(tmp_path / "one.fits")
    other = make_mask(tmp_path / "other.fits", "MIRIFULONG")
    with pytest.raises(DataError, match="DETECTOR = 'MIRIFULONG', expected 'MIRIMAGE'"):
        check.check_mask(other, P, against=one)


def test_limits_of_one_detector(tmp_path):
    tree = {"detectors": {"MIRIMAGE": {"max_percent": {"HOT": 0.1}}}}
    own = check.limits_for("MIRIMAGE", tree, P, "limits.yml")
    assert own.max_percent["HOT"] == 0.1
    assert own.max_percent["DEAD"] == P.max_percent["DEAD"]
    assert check.limits_for("NRCA1", tree, P, "limits.yml") == P
    with pytest.raises(
        UsageError, match=r"detectors.MIRIMAGE: unknown parameter 'max_percnt'; did you mean 'max_percent'"
    ):
        check.limits_for("MIRIMAGE", {"detectors": {"MIRIMAGE": {"max_percnt": {}}}}, P, "limits.yml")


# --- the command -----------------------------------------------------------------------------------------


def test_exit_status_and_words(tmp_path):
    good = make_mask(tmp_path / "good.fits", flags=scatter(5000))
    result = run(good)
    assert result.exit_code == 0
    assert "passed" in result.stdout
    bad = make_mask(tmp_path / "bad.fits", flags=scatter(5000), PEDIGREE="INFLIGHT")
    result = run(good, bad)
    assert result.exit_code == 3
    assert "bad.fits: FAILED" in result.stdout
    assert "pedigree: PEDIGREE = 'INFLIGHT', expected GROUND" in result.stdout
    assert run(tmp_path / "missing.fits").exit_code == 2


def test_json_is_alone_on_stdout_and_says_that_it_failed(tmp_path):
    bad = make_mask(tmp_path / "bad.fits", flags=scatter(5000), PEDIGREE="INFLIGHT")
    result = run(bad, "--json")
    assert result.exit_code == 3
    told = json.loads(result.stdout)
    assert told["passed"] is False
    assert told["status"] == "failed"
    assert told["masks"][0]["errors"][0]["rule"] == "pedigree"


def test_limits_from_yaml_and_command_line(tmp_path):
    path = make_mask(tmp_path / "mask.fits", flags=scatter(5000))
    limits = tmp_path / "limits.yml"
    limits.write_text("check:\n  max_percent: {HOT: 0.2}\n")
    result = run(path, "--limits", limits)
    assert result.exit_code == 3
    assert "HOT: 0.477 % of the science pixels, at most 0.2 %" in result.stdout
    assert run(path, "--limits", limits, "--max-percent", "HOT:1").exit_code == 0
    limits.write_text("detectors:\n  MIRIMAGE:\n    max_percent: {HOT: 0.2}\n")
    assert run(path, "--limits", limits).exit_code == 3
    limits.write_text("flats:\n  dead_search: true\n")
    result = run(path, "--limits", limits)
    assert result.exit_code == 2
    assert "section 'flats' is not used here" in result.stderr


def test_a_file_that_is_no_mask_fails_without_a_traceback(tmp_path):
    path = tmp_path / "image.fits"
    fits.PrimaryHDU(np.zeros((4, 4), np.float32)).writeto(path)
    result = run(path)
    assert result.exit_code == 3
    assert "extension DQ is missing" in result.stdout
    assert "internal error" not in result.output


def test_an_exposure_is_called_one(tmp_path):
    path = write_rate(tmp_path / "x_rate.fits", np.ones((80, 96), np.float32))
    checked = check.check_mask(path, P)
    assert [(f.severity, f.rule) for f in checked.faults] == [("error", "kind")]
    assert checked.faults[0].message.startswith("found an exposure (extension SCI), expected a MASK file")


def test_flags_lost_in_decoding_fail(tmp_path):
    image = make_image(flags=scatter(5000))
    image[100, 100] |= dq.VALUE["JUMP_DET"]
    path = write(tmp_path / "mask.fits", make_hdus(image=image))
    checked = check.check_mask(path, P)
    assert not checked.passed
    assert checked.flags == []
    assert [f.rule for f in checked.faults if f.severity == "error"] == ["dq-undefined"]


@pytest.mark.parametrize("kind", ["pipe", "no FITS file", "cut short"])
@pytest.mark.parametrize("which", ["mask", "exposure"])
def test_other_software_gets_whole_files_only(tmp_path, monkeypatch, kind, which):
    sound, bad = make_mask(tmp_path / "sound.fits"), tmp_path / "bad.fits"
    if kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.write_bytes(sound.read_bytes()[:9000] if kind == "cut short" else b"x" * 9000)
    monkeypatch.setattr(clients, "find_spec", lambda name: object())
    monkeypatch.setattr(clients.subprocess, "run", lambda *_, **__: pytest.fail("it was handed on"))
    answer = clients.run_dq_init(*((bad, None) if which == "mask" else (sound, bad)))
    assert answer.status == "failed"
    assert answer.messages[0].startswith("not asked: ")
