"""``badpix darks`` as a user calls it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from dark_files import DEFECTS, write_darks

from badpix import dq
from badpix.cli.main import badpix
from badpix.darks import build as darks_build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("cli")
    write_darks(place / "darks", exposures=6, seed=10)
    return place


def call(*arguments):
    return CliRunner().invoke(badpix, ["darks", *map(str, arguments)], catch_exceptions=False)


def flagged(path, name):
    image = fits.getdata(path, "DQ")
    return [tuple(p) for p in np.argwhere(image & dq.VALUE[name])]


@pytest.mark.slow
def test_a_folder_of_darks_becomes_a_mask(folder):
    done = call(folder / "darks", "-o", folder / "mask.fits", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["outputs"] == [str(folder / "mask.fits"), str(folder / "mask_evidence.fits")]
    assert summary["searches"]["rc"]["pixels"] == 3
    assert len(summary["inputs"]) == 6
    assert flagged(folder / "mask.fits", "HOT") == sorted(DEFECTS["hot"] + DEFECTS["saturated"])
    assert flagged(folder / "mask.fits", "UNRELIABLE_SLOPE") == sorted(DEFECTS["noisy"])
    everything = sorted(p for places in DEFECTS.values() for p in places)
    assert flagged(folder / "mask.fits", "DO_NOT_USE") == everything


@pytest.mark.slow
def test_flags_and_do_not_use_can_be_chosen(folder):
    done = call(
        folder / "darks", "-o", folder / "chosen.fits", "--flag-values", "telegraph:RC", "--dark-do-not-use", "hot"
    )
    assert done.exit_code == 0, done.output
    assert flagged(folder / "chosen.fits", "TELEGRAPH") == []
    assert flagged(folder / "chosen.fits", "RC") == sorted(
        DEFECTS["rc"] + DEFECTS["inverse_rc"] + DEFECTS["telegraph"]
    )
    assert flagged(folder / "chosen.fits", "DO_NOT_USE") == sorted(DEFECTS["hot"] + DEFECTS["saturated"])


@pytest.mark.slow
def test_two_calls_in_one_process_give_the_same_mask(folder):
    images = []
    for name in ("one.fits", "two.fits"):
        assert call(folder / "darks", "-o", folder / name).exit_code == 0
        images.append(fits.getdata(folder / name, "DQ"))
    np.testing.assert_array_equal(*images)


@pytest.mark.slow
def test_every_parameter_stands_in_the_mask(folder):
    assert call(folder / "darks", "-o", folder / "words.fits").exit_code == 0
    header = fits.getheader(folder / "words.fits")
    assert header["BPDPEDTH"] == 5.0
    assert header["BPDMXJMP"] == 10
    history = "\n".join(header["HISTORY"])
    for word in ("darks.telegraph_likelihood = 4.5", "dark01_jump.fits", "IPC"):
        assert word in history


@pytest.mark.slow
def test_pictures_show_limits_maps_and_ramps_of_each_type(folder):
    done = call(folder / "darks", "-o", folder / "drawn.fits", "--plot", folder / "pictures")
    assert done.exit_code == 0, done.output
    names = {p.stem for p in (folder / "pictures").glob("*.png")}
    assert {"ramps_rc", "ramps_telegraph", "ramps_hot", "dark_noise_z_histogram", "dark_rate", "dark_flags"} <= names


def test_the_documented_set(folder):
    done = call(folder / "darks", "-o", folder / "documented.fits", "--set", "documented")
    assert done.exit_code == 0, done.output
    hot = flagged(folder / "documented.fits", "HOT")
    assert set(DEFECTS["saturated"]) <= set(hot)
    assert not set(DEFECTS["hot"]) & set(hot)


@pytest.mark.slow
def test_what_can_be_found_is_said_once_and_before_the_work(folder):
    done = call(folder / "darks", "-o", folder / "said.fits")
    lines = done.stderr.splitlines()
    depth = [line for line in lines if line.startswith("note: HOT: rates above")]
    assert len(depth) == 1
    assert lines.index(depth[0]) < next(k for k, line in enumerate(lines) if "science pixels" in line)
    assert len({line for line in lines if line.startswith("note: ")}) == sum(x.startswith("note: ") for x in lines)


@pytest.mark.parametrize("name", ["dark02_rateints.fits", "dark02_fitopt.fits"])
def test_inputs_and_found_companions_are_never_overwritten(folder, name):
    victim = folder / "darks" / name
    before = victim.read_bytes()
    done = call(folder / "darks", "-o", victim, "--overwrite")
    assert done.exit_code == 2
    assert f"{name}: is also an input" in done.stderr
    assert victim.read_bytes() == before


def test_the_yaml_names_the_detector(folder):
    (folder / "other.yml").write_text("detector: NRCB2\n")
    done = call(folder / "darks", "-p", folder / "other.yml", "-o", folder / "none.fits")
    assert done.exit_code == 1
    assert "expected 'NRCB2' as in the parameter file" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((), 2, "no slope images"),
        (("nowhere",), 2, "nowhere"),
        (("darks", "--hot-sigma-threshold", "lots"), 2, "hot_sigma_threshold"),
        (("darks", "--early-cutoff-fraction", "0.7"), 2, "early"),
        (("darks", "--max-memory", "much"), 2, "--max-memory"),
    ],
)
def test_mistakes_end_in_one_message(folder, monkeypatch, arguments, code, word):
    monkeypatch.chdir(folder)
    done = call(*arguments, "-o", folder / "none.fits")
    assert done.exit_code == code
    assert word in done.stderr.replace("-", "_") or word in done.stderr
    assert "Traceback" not in done.output
    assert not (folder / "none.fits").exists()


@pytest.mark.slow
def test_skip_bad_goes_on_without_a_broken_file_and_says_so(tmp_path):
    write_darks(tmp_path / "darks", exposures=5)
    (tmp_path / "darks" / "dark03_jump.fits").write_bytes(b"nothing")
    assert call(tmp_path / "darks", "-o", tmp_path / "m.fits").exit_code == 1
    done = call(tmp_path / "darks", "-o", tmp_path / "m.fits", "--skip-bad")
    assert done.exit_code == 0, done.output
    assert "dark03" in done.stderr
    assert "rejected: dark03_rateints.fits" in "\n".join(fits.getheader(tmp_path / "m.fits")["HISTORY"])


@pytest.mark.slow
def test_a_file_that_vanishes_during_the_run_is_rejected_with_skip_bad(tmp_path, monkeypatch):
    """The result is that of a run that never saw the file."""
    write_darks(tmp_path / "darks", exposures=5)
    search = darks_build.darks_search.search
    victim = tmp_path / "darks" / "dark02_jump.fits"

    def lose(*arguments, **options):
        victim.unlink(missing_ok=True)
        return search(*arguments, **options)

    monkeypatch.setattr(darks_build.darks_search, "search", lose)
    done = call(tmp_path / "darks", "-o", tmp_path / "m.fits", "--skip-bad")
    assert done.exit_code == 0, done.output
    assert "vanished during the run" in done.stderr
    (tmp_path / "darks" / "dark02_rateints.fits").unlink()
    assert call(tmp_path / "darks", "-o", tmp_path / "n.fits").exit_code == 0
    first, second = (fits.getdata(tmp_path / n, "DQ") for n in ("m.fits", "n.fits"))
    np.testing.assert_array_equal(first, second)
