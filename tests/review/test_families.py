"""``badpix families``: masks for several depths from the evidence of one run, and the page that compares them."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq, make_families
from badpix.cli.main import badpix
from badpix.mask import file as mask_file

TEXTS = ("--author", "A", "--descrip", "d", "--pedigree", "GROUND", "--useafter", "2026-01-01T00:00:00", "-q")
UNUSABLE = dq.VALUE["DO_NOT_USE"]


def call(*words):
    return CliRunner().invoke(badpix, [str(w) for w in words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Darks of a small detector, their mask, and a manual list merged into it."""
    folder = tmp_path_factory.mktemp("families")
    words = ("--detector", "MIRIMAGE", "--size", "132 128", "--darks", "5", "--flats", "1", "--dark-groups", "16")
    assert call("simulate", folder, *words, "--seed", "21", "-q").exit_code == 0
    rates = sorted((folder / "darks").glob("*_rateints.fits"))
    done = call("darks", *rates, "-o", folder / "darks.fits", "--evidence", *TEXTS)
    assert done.exit_code == 0, done.output
    hot = np.argwhere(fits.getdata(folder / "darks.fits", "DQ") & dq.VALUE["HOT"])[:3]
    (folder / "list.txt").write_text("".join(f"{x} {y} HOT\n" for y, x in hot))
    done = call(
        "merge", folder / "darks.fits", "--manual", folder / "list.txt", "-o", folder / "all.fits", *TEXTS[:-1]
    )
    assert done.exit_code == 0, done.output
    (folder / "m.yml").write_text(
        "families:\n"
        "  - {name: short, readpatt: FASTR1, ngroups: 5}\n"
        "  - {name: long, readpatt: FASTR1, ngroups: [60, 100], max_excess: 1}\n"
    )
    done = call("families", folder / "all.fits", folder / "m.yml", "-o", folder / "out", "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout), hot


@pytest.mark.slow
def test_each_family_carries_what_crds_matches_by(made):
    folder, _, _ = made
    short, long = (fits.getheader(folder / "out" / f"all_{name}.fits") for name in ("short", "long"))
    assert (short["READPATT"], short["NGROUPS"], long["NGROUPS"]) == ("FASTR1", 5, "between 60 101")
    assert any("FAMILY long: READPATT FASTR1, NGROUPS 60 to 100" in line for line in long["HISTORY"])
    assert call("check", folder / "out" / "all_long.fits").exit_code == 0


@pytest.mark.slow
def test_a_pixel_may_be_fine_in_a_short_exposure_and_ruin_a_long_one(made):
    folder, told, _ = made
    before, short, long = (
        mask_file.read_mask(folder / name).image for name in ("all.fits", "out/all_short.fits", "out/all_long.fits")
    )
    hot = (before & dq.VALUE["HOT"]) != 0
    assert ((short & hot * np.uint32(UNUSABLE)) == 0)[hot].any()
    assert np.array_equal(
        short & ~np.uint32(UNUSABLE | dq.VALUE["UNRELIABLE_SLOPE"]),
        before & ~np.uint32(UNUSABLE | dq.VALUE["UNRELIABLE_SLOPE"]),
    )
    dark = hot & ((short & UNUSABLE) == 0)
    assert ((long[dark] & UNUSABLE) != 0).mean() > 0.5  # their shot noise lasts, read noise averages out
    rows = {row["name"]: row for row in told["families"]}
    assert rows["short"]["freed"] > 0
    assert rows["short"]["unusable"] == np.count_nonzero(short & UNUSABLE)
    assert told["by_flag"]["HOT"]["flagged"] == hot.sum()


@pytest.mark.slow
def test_what_a_list_says_stays(made):
    folder, _, hot = made
    for name in ("short", "long"):
        image = mask_file.read_mask(folder / "out" / f"all_{name}.fits").image
        assert all(image[y, x] & UNUSABLE for y, x in hot)


def test_the_page_compares_them_and_loads_nothing(made):
    folder, _, _ = made
    page = (folder / "out" / "all_families.html").read_text()
    assert "short" in page
    assert "60 to 100" in page
    assert "<!--" not in page.replace("<!DOCTYPE", "")
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 2


@pytest.mark.slow
def test_equal_runs_give_equal_bytes(made, tmp_path):
    folder, _, _ = made
    words = ("--family", "short:FASTR1:5", "--family", "long:FASTR1:60-100:1")
    done = call("families", folder / "all.fits", *words, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    for name in ("all_short.fits", "all_long.fits", "all_families.html"):
        assert (tmp_path / name).read_bytes() == (folder / "out" / name).read_bytes()
    assert call("families", folder / "all.fits", *words, "-o", tmp_path).exit_code == 2
    named = [{"name": "short", "readpatt": "FASTR1", "ngroups": 5}]
    paths = make_families(folder / "all.fits", named, tmp_path, overwrite=True)
    assert list(paths) == ["short", "page"]
    assert paths["short"].read_bytes() == (folder / "out" / "all_short.fits").read_bytes()
    assert "expected NAME:READPATT" in call("families", folder / "all.fits", "--family", "short").output


def test_a_mask_without_darks_has_no_families(made, tmp_path):
    folder, _, _ = made
    done = call("families", folder / "mirimage_truth.fits", "--family", "short:FASTR1:5", "-o", tmp_path)
    assert done.exit_code == 1
