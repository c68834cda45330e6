"""A delivery is refused for what it lacks, and complete where it is not refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from mask_files import make_mask

from badpix.cli.main import badpix
from badpix.mask import file as mask_file
from badpix.review import deliver


def plausible(number, seed=1):
    """Enough HOT pixels for a plausible share of MIRI's frame."""
    rng = np.random.default_rng(seed)
    places = rng.choice(900 * 900, number, replace=False)
    return [(int(60 + p % 900), int(60 + p // 900), "HOT+DO_NOT_USE") for p in places]


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """The mask in use, and a new one with all texts, made by merge."""
    place = tmp_path_factory.mktemp("deliver")
    old = make_mask(place / "old.fits", flags=plausible(3000))
    make_mask(place / "part.fits", flags=plausible(3200))
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
    done = CliRunner().invoke(badpix, ["merge", str(place / "part.fits"), "-o", str(place / "new.fits"), *texts])
    assert done.exit_code == 0, done.output
    return old, place / "new.fits"


def call(*words):
    return CliRunner().invoke(badpix, ["deliver", *map(str, words), "--no-pipeline"])


@pytest.mark.slow
def test_the_folder_holds_everything_that_is_sent(tmp_path, masks):
    old, new = masks
    done = call(new, "--against", old, "--output-dir", tmp_path / "send")
    assert done.exit_code == 0, done.output
    names = {p.name for p in (tmp_path / "send").iterdir()}
    assert {
        "new.fits",
        "new_evidence.fits",
        "report.html",
        "changes",
        "check.json",
        "clients.txt",
        "delivery_form.txt",
    } <= names
    assert (tmp_path / "send" / "new.fits").read_bytes() == new.read_bytes()
    form = (tmp_path / "send" / "delivery_form.txt").read_text()
    a, b = (mask_file.read_mask(p).image for p in masks)
    appeared, gone = np.count_nonzero(b & ~a & 2048), np.count_nonzero(a & ~b & 2048)
    assert f"HOT: 3,000 -> 3,200 ({appeared:,} appeared, {gone:,} gone)" in form
    for text in (
        "Deliverer: A. Name",
        "Replaces: old.fits",
        "Differences: hot pixels of 2025",
        "Use after: 2026-01-01",
    ):
        assert text in form
    assert json.loads((tmp_path / "send" / "check.json").read_text())["passed"]
    assert call(new, "--output-dir", tmp_path / "send").exit_code == 2


MISSING = [("--author", "author"), ("--descrip", "descrip"), ("--differences", "history"), ("--useafter", "useafter")]


@pytest.mark.slow
@pytest.mark.parametrize(("left_out", "rule"), MISSING)
def test_what_is_missing_is_named_and_nothing_is_written(tmp_path, masks, left_out, rule):
    texts = {"--author": "A. Name", "--descrip": "MIRI cycle 5", "--useafter": "2026-01-01", "--differences": "new"}
    words = [w for key, text in texts.items() if key != left_out for w in (key, text)]
    part = masks[1].with_name("part.fits")
    done = CliRunner().invoke(badpix, ["merge", str(part), "-o", str(tmp_path / "m.fits"), *words])
    assert done.exit_code == 0, done.output
    done = call(tmp_path / "m.fits", "--output-dir", tmp_path / "send")
    assert done.exit_code == 3
    assert rule in done.output
    assert not (tmp_path / "send").exists()


def test_a_jump_against_the_mask_in_use_stops_a_delivery(tmp_path, masks):
    small = make_mask(tmp_path / "small.fits", flags=plausible(1200, 2))
    done = call(masks[1], "--against", small, "--output-dir", tmp_path / "send")
    assert done.exit_code == 3
    assert "jump" in done.output


def test_reasons_of_inputs_are_not_those_of_the_mask(masks):
    mask = mask_file.read_mask(masks[1])
    mask.history[:] = ["Made.", "DIFFERENCES: not stated", "HISTORY of part.fits:", "DIFFERENCES: old reasons"]
    assert [f.rule for f in deliver.find_missing(mask)] == ["history"]


def test_the_mask_in_use_is_not_replaced_by_its_successor(tmp_path, masks):
    (tmp_path / "send").mkdir()
    in_use = tmp_path / "send" / "new.fits"
    in_use.write_bytes(masks[0].read_bytes())
    done = call(masks[1], "--against", in_use, "--output-dir", tmp_path / "send", "--overwrite")
    assert done.exit_code == 2
    assert "new.fits: is also an input; inputs are never modified" in done.output
    assert in_use.read_bytes() == masks[0].read_bytes()


def test_a_link_in_the_folder_is_replaced_and_not_followed(tmp_path, masks):
    (tmp_path / "send").mkdir()
    (tmp_path / "other").write_bytes(b"mine")
    (tmp_path / "send" / "new.fits").symlink_to(tmp_path / "other")
    assert call(masks[1], "--output-dir", tmp_path / "send", "--overwrite").exit_code == 0
    assert (tmp_path / "other").read_bytes() == b"mine"
    assert (tmp_path / "send" / "new.fits").read_bytes() == masks[1].read_bytes()
