"""One table a guard: whatever stands in a file, the command ends with the right words and status."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from make_files import make_flats, write_rate, write_rates
from mask_files import SUB160, make_mask

from badpix.cli.main import badpix, outlier
from badpix.cli.talk import clean
from badpix.mask.file import read_mask

TEXTS = ["--author", "A", "--descrip", "d", "--useafter", "2026-01-01", "--pedigree", "GROUND"]


def run(*words, group=badpix):
    return CliRunner().invoke(group, [*map(str, words)])


# --- readouts in stripes ---------------------------------------------------------------------------------

STRIPED = {
    "flats": ("flats", "flat_rate.fits", "-o", "m.fits"),
    "darks": ("darks", "dark_rate.fits", "-o", "m.fits"),
    "merge": ("merge", "mask.fits", "whole.fits", "--embed", "-o", "m.fits"),
    "update": ("update", "whole.fits", "--flats", "mask.fits", "-o", "m.fits"),
    "compare": ("compare", "whole.fits", "mask.fits"),
    "explain a mask": ("explain", "mask.fits", "1010", "1010"),
    "explain an exposure": ("explain", "flat_rate.fits", "10", "10"),
    "export": ("export", "mask.fits", "-o", "m.reg"),
    "report": ("report", "mask.fits", "-o", "m.html"),
    "ramps": ("ramps", "dark_rate.fits"),
    "prepare": ("prepare", "raw_uncal.fits", "--output-dir", "p"),
    "science": ("science", "flat_rate.fits", "dark_rate.fits", "-o", "m.fits"),
    "tune": ("tune", "mask.fits", "--set", "hot_sigma_threshold=6"),
    "deliver": ("deliver", "mask.fits", "--no-pipeline", "--output-dir", "d"),
    "check against": ("check", "whole.fits", "--against", "mask.fits"),
    "outlier image": ("image", "flat_rate.fits", "other_cal.fits", "--output-dir", "out"),
    "outlier ifu": ("ifu", "flat_rate.fits", "other_cal.fits", "--output-dir", "out"),
}


@pytest.fixture(scope="module")
def striped(tmp_path_factory):
    place = tmp_path_factory.mktemp("stripes")
    for name in ("flat_rate.fits", "dark_rate.fits", "other_cal.fits"):
        write_rate(place / name, np.ones((80, 96), np.float32), MSTR_RD2=41)
    write_rate(place / "raw_uncal.fits", np.ones((1, 3, 80, 96), np.float32), MSTR_RD2=41, NGROUPS=3)
    make_mask(place / "mask.fits", "NRCB1", SUB160, MSTR_RD2=41)
    make_mask(place / "whole.fits", "NRCB1")
    return place


@pytest.mark.parametrize("command", STRIPED)
def test_stripes_are_refused_by_their_keyword_everywhere(striped, monkeypatch, command):
    monkeypatch.chdir(striped)
    group = outlier if command.startswith("outlier") else badpix
    done = run(*STRIPED[command], group=group)
    assert done.exit_code == 1, done.output
    assert "MSTR_RD2 = 41: read out in stripes" in done.output
    assert not list(striped.glob("m.*"))


def test_check_fails_a_mask_in_stripes(striped):
    done = run("check", striped / "mask.fits")
    assert done.exit_code == 3
    assert "MSTR_RD2 = 41" in done.output


# --- plain maps ------------------------------------------------------------------------------------------


def inverted():
    image = np.ones((1024, 1032), np.uint8)
    image[5, 6] = 0
    return image


PLAIN = {
    "a float image": (np.random.default_rng(1).normal(size=(1024, 1032)).astype("f4"), "no map of bad pixels", 1),
    "large numbers": (np.full((1024, 1032), 1 << 20, "i4"), "no map of bad pixels", 1),
    "inverted": (inverted(), "inverted (1 = good)?", 1),
    "all bad": (np.ones((1024, 1032), np.uint8), "--force-plain takes it as it is", 1),
    "another size": (np.zeros((10, 10), np.uint8), "has 10 x 10 pixels", 1),
    "whole floats": ((np.arange(1024 * 1032).reshape(1024, 1032) % 1000 == 0).astype("f4"), "plain map", 0),
    "a map": ((np.arange(1024 * 1032).reshape(1024, 1032) % 1000 == 0).astype("i2"), "plain map", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_taken_for_a_plain_map(tmp_path, kind):
    image, words, code = PLAIN[kind]
    make_mask(tmp_path / "mask.fits")
    fits.PrimaryHDU(image).writeto(tmp_path / "plain.fits")
    done = run("merge", tmp_path / "mask.fits", tmp_path / "plain.fits", "-o", tmp_path / "m.fits", *TEXTS)
    assert done.exit_code == code, done.output
    assert words in done.output
    assert (tmp_path / "m.fits").exists() == (code == 0)


def test_force_plain_takes_an_inverted_map_as_it_is(tmp_path):
    make_mask(tmp_path / "mask.fits")
    fits.PrimaryHDU(inverted()).writeto(tmp_path / "plain.fits")
    words = ("merge", tmp_path / "mask.fits", tmp_path / "plain.fits", "-o", tmp_path / "m.fits", *TEXTS)
    assert run(*words, "--force-plain").exit_code == 0
    assert np.count_nonzero(read_mask(tmp_path / "m.fits").image) >= 1024 * 1032 - 1


# --- wrong sums ------------------------------------------------------------------------------------------


SUMS = {
    "merge": ("merge", "bad.fits", "good.fits", "-o", "m.fits", *TEXTS),
    "compare": ("compare", "good.fits", "bad.fits"),
    "explain": ("explain", "bad.fits", "500", "500"),
    "export": ("export", "bad.fits", "-o", "m.txt"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", SUMS)
def test_data_that_were_changed_are_used_only_if_asked_for(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    make_mask(tmp_path / "good.fits")
    path = make_mask(tmp_path / "bad.fits")
    with fits.open(path) as hdus:
        at = hdus["DQ"].fileinfo()["datLoc"] + 4 * (500 * 1032 + 500) + 3
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    done = run(*SUMS[command])
    assert done.exit_code == 1
    assert "DATASUM of DQ is wrong" in done.output
    assert "--ignore-checksum" in done.output
    done = run(*SUMS[command], "--ignore-checksum")
    assert done.exit_code == 0, done.output
    if command == "merge":
        assert "ignore_checksum = True" in "\n".join(read_mask(tmp_path / "m.fits").history).replace("true", "True")


# --- the set that most files agree on --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("odd", [0, 2, 5])
def test_of_odd_exposures_the_majority_counts_wherever_they_sort(tmp_path, odd):
    stack = make_flats(6)
    for k, image in enumerate(stack):
        pattern = {"READPATT": "SHALLOW4"} if k == odd else {}
        write_rate(tmp_path / f"f{k}_rate.fits", image, number=k + 1, **pattern)
    done = run("flats", tmp_path, "-o", tmp_path / "m.fits", "--skip-bad", *TEXTS)
    assert done.exit_code == 0, done.output
    assert f"f{odd}_rate.fits: READPATT = 'SHALLOW4', expected 'RAPID'" in done.output
    assert "5 inputs" in done.output


def test_half_and_half_is_refused(tmp_path):
    for k, image in enumerate(make_flats(5)):
        pattern = {"READPATT": ("SHALLOW4", "BRIGHT1", "RAPID")[k % 3]}
        write_rate(tmp_path / f"f{k}_rate.fits", image, number=k + 1, **pattern)
    done = run("flats", tmp_path, "-o", tmp_path / "m.fits", "--skip-bad", *TEXTS)
    assert done.exit_code == 1
    assert "3 of 5 inputs would have to be left out" in done.output


# --- what is said, and what stays ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\x1b[31mred\x1b[0m.fits", "a\x07b.fits", "a\x9bb.fits", "[bold]x[].fits", "[x].fits"]
)
def test_names_of_files_are_shown_and_not_obeyed(tmp_path, text):
    assert clean(text).isprintable()
    path = write_rate(tmp_path / "f_rate.fits", np.ones((80, 96), np.float32)).rename(tmp_path / text)
    path.write_bytes(path.read_bytes()[:9000])
    done = run("flats", path, "-o", tmp_path / "m.fits")
    assert done.exit_code == 1
    assert "internal error" not in done.output
    assert not any(c in done.output for c in "\x1b\x07\x9b")


@pytest.mark.slow
def test_a_mask_with_a_strange_name_is_compared_and_exported_in_one_line(tmp_path):
    one, two = (
        make_mask(tmp_path / "[red]a[x].fits"),
        make_mask(tmp_path / "b.fits").rename(tmp_path / "b\nHOT 1 1.fits"),
    )
    assert run("compare", one, two).exit_code == 0
    assert run("export", two, "-o", tmp_path / "m.txt").exit_code == 0
    assert (tmp_path / "m.txt").read_text().splitlines()[1] == "x y flag"


@pytest.mark.slow
def test_names_with_letters_of_other_alphabets_go_into_headers(tmp_path):
    write_rates(tmp_path / "flats", make_flats(3))
    for path in sorted((tmp_path / "flats").iterdir()):
        path.rename(path.with_name(f"\u00e9{path.name}"))
    mask, merged = tmp_path / "m\u00e4sk.fits", tmp_path / "m\u00e9rge.fits"
    assert run("flats", tmp_path / "flats", "-o", mask, *TEXTS).exit_code == 0
    (tmp_path / "\u00fc list.txt").write_text("1010 905 HOT\n")
    for words in (
        ("merge", mask, "--manual", tmp_path / "\u00fc list.txt", "-o", merged, *TEXTS),
        ("export", merged, "-o", tmp_path / "x.fits"),
        ("report", merged, "-o", tmp_path / "r.html"),
        ("explain", merged, 1010, 905),
        ("compare", mask, merged),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
    assert "FILENAME" not in run("check", merged).output
    assert fits.getheader(merged)["FILENAME"] == "m?rge.fits"


def test_a_folder_that_was_made_for_a_run_that_fails_goes_again(tmp_path):
    write_rates(tmp_path / "flats", make_flats(3))
    done = run("flats", tmp_path / "flats", "-o", tmp_path / "a/b/m.fits", "--author", "x" * 200)
    assert done.exit_code != 0
    assert not (tmp_path / "a").exists()
    done = run("flats", tmp_path / "flats", "-o", tmp_path / "a/b/m.fits", *TEXTS)
    assert done.exit_code == 0, done.output
    assert f"made the folder {tmp_path}/a/b" in done.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["flats", "--bogus"], "error: no option '--bogus'"),
        (["bogus"], "error: no command 'bogus'"),
        (["check"], "error: MASK... is missing"),
        (["flats"], "error: no slope images"),
        (["deliver", "m.fits"], "error: --output-dir is missing"),
        (["flats", "--workers", "0"], "error: --workers: found 0, expected a whole number from 1 to 1024"),
        (["flats", "--workers", "two"], "error: --workers: found 'two', expected a whole number from 1 to 1024"),
        (
            ["flats", "--set", "documentd"],
            "error: --set: found 'documentd', expected one of default, documented; did you mean 'documented'?",
        ),
        (["flats", "--lamp-scalling", "none"], "error: no option '--lamp-scalling'; did you mean '--lamp-scaling'?"),
        (["params", "flts"], "error: 'flts' has no parameters; did you mean 'flats'?"),
    ],
)
def test_errors_have_one_style(words, told):
    done = subprocess.run(
        [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(told)
    assert "Usage:" not in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal")
def test_a_closed_terminal_leaves_nothing_in_the_temporary_folder(tmp_path):
    script = (
        "import os, signal, time\n"
        "from badpix.cli import main, masks\n"
        "from badpix.io.exposure import unpacking\n"
        "def hang(*a, **k):\n"
        "    with unpacking() as folder:\n"
        "        (folder / 'x').write_text('x'); os.kill(os.getpid(), signal.SIGHUP); time.sleep(60)\n"
        "import badpix.io.selection as s; s.expand_inputs = hang\n"
        "main.badpix()"
    )
    place = {"cwd": tmp_path, "env": {**os.environ, "TMPDIR": str(tmp_path)}}
    words = [sys.executable, "-c", script, "flats", "x", "-o", "m.fits"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **place)
    assert done.returncode == 129, done.stderr
    assert list(tmp_path.iterdir()) == []
