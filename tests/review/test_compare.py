"""What changed between masks: every known change, and nothing else."""

import json
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from mask_files import SUB64, make_mask

from badpix import dq
from badpix.cli.main import badpix
from badpix.errors import DataError, UsageError
from badpix.mask import file as mask_file
from badpix.review import compare
from badpix.review.compare import Change, Transition

OLD = [(20, 30, "HOT+DO_NOT_USE"), (21, 30, "DEAD+DO_NOT_USE"), (22, 30, "WARM"), (600, 700, "RC"), (5, 5, "OPEN")]
NEW = [(20, 30, "HOT+DO_NOT_USE"), (22, 30, "HOT+DO_NOT_USE"), (600, 700, "RC+DO_NOT_USE"), (99, 98, "TELEGRAPH")]


@pytest.fixture
def pair(tmp_path):
    return [
        mask_file.read_mask(make_mask(tmp_path / f"{name}.fits", flags=flags, USEAFTER=f"{year}-01-01T00:00:00"))
        for name, flags, year in (("old", OLD, 2025), ("new", NEW, 2026))
    ]


def test_every_change_is_there_and_nothing_else(pair):
    found = compare.compare(*pair)
    assert {(p["x"], p["y"]): (p["old"], p["new"]) for p in found.pixels()} == {
        (21, 30): (["DO_NOT_USE", "DEAD"], []),
        (22, 30): (["WARM"], ["DO_NOT_USE", "HOT"]),
        (600, 700): (["RC"], ["DO_NOT_USE", "RC"]),
        (5, 5): (["OPEN"], []),
        (99, 98): ([], ["TELEGRAPH"]),
    }
    assert found.transitions == [
        Transition("DEAD", "good", 1),
        Transition("OPEN", "good", 1),
        Transition("RC", "DO_NOT_USE+RC", 1),
        Transition("WARM", "HOT", 1),
        Transition("good", "TELEGRAPH", 1),
    ]
    changes = {c.flag: c for c in found.changes}
    assert changes["HOT"] == Change("HOT", 1, 2, 1, 1, 0)
    assert changes["HOT"].agreement == 0.5
    assert changes["any"] == Change("any", 5, 4, 3, 1, 2)
    assert "REFERENCE_PIXEL" not in changes


def test_images_of_what_appeared_and_disappeared(pair):
    found = compare.compare(*pair)
    y, x = np.nonzero(found.appeared)
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == [(22, 30), (99, 98), (600, 700)]
    assert found.appeared[700, 600] == dq.VALUE["DO_NOT_USE"]
    assert found.disappeared[30, 21] == dq.VALUE["DEAD"] | dq.VALUE["DO_NOT_USE"]
    assert np.count_nonzero(found.disappeared) == 3


def test_a_mask_equals_itself(pair):
    found = compare.compare(pair[0], pair[0])
    assert found.transitions == []
    assert found.pixels() == []
    assert all(c.agreement == 1 for c in found.changes)


def test_turning_the_comparison_round_turns_the_result_round(pair):
    there, back = compare.compare(*pair), compare.compare(*pair[::-1])
    assert [(c.appeared, c.disappeared) for c in there.changes] == [(c.disappeared, c.appeared) for c in back.changes]
    assert sorted((t.old, t.new) for t in there.transitions) == sorted((t.new, t.old) for t in back.transitions)


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint32, (4, 5)), arrays(np.uint32, (4, 5)), arrays(bool, (4, 5)))
def test_counts_add_up(old, new, science):
    for change in compare.count_changes(old, new, science):
        assert change.old == change.kept + change.disappeared
        assert change.new == change.kept + change.appeared
    total = sum(t.pixels for t in compare.count_transitions(old, new, science))
    assert total == np.count_nonzero(science & (old != new))


def test_a_subarray_against_the_window_of_a_full_frame(tmp_path):
    full = make_mask(tmp_path / "full.fits", flags=[(30, 800, "HOT"), (31, 801, "RC"), (600, 10, "DEAD")])
    part = make_mask(tmp_path / "part.fits", window=SUB64, flags=[(30, 22, "HOT"), (50, 5, "RC")], SUBARRAY="SUB64")
    found = compare.compare(mask_file.read_mask(full), mask_file.read_mask(part))
    assert {(p["x"], p["y"]): (p["old"], p["new"]) for p in found.pixels()} == {
        (31, 801): (["RC"], []),
        (50, 783): ([], ["RC"]),
    }
    assert found.window == SUB64


def test_regions(pair):
    boxes = compare.parse_regions(["quadrants", "corner=0:100,0:100"], "MIRIMAGE")
    parts = {name: compare.compare(*pair, region=box) for name, box in boxes.items()}
    any_of = {name: part.changes[-1] for name, part in parts.items()}
    assert any_of["corner"] == Change("any", 4, 3, 2, 1, 2)
    assert any_of["upper right"] == Change("any", 1, 1, 1, 0, 0)
    assert sum(c.old for n, c in any_of.items() if n != "corner") == 5
    stripes = compare.parse_regions(["amplifiers"], "NRCA1")
    assert stripes["amplifier 2"] == (slice(0, 2048), slice(512, 1024))
    assert compare.parse_regions(["amplifiers"], "NRS1")["amplifier 4"] == (slice(1536, 2048), slice(0, 2048))
    for word in ("middle", "a=1:2"):
        with pytest.raises(UsageError, match="expected amplifiers, quadrants"):
            compare.parse_regions([word], "NRCA1")


# --- several dates ---------------------------------------------------------------------------------------


@pytest.fixture
def four(tmp_path):
    """HOT pixels with the histories 1111, 0111, 1000, 0101, 0010, in files out of order."""
    seen = {(10, 10): "1111", (11, 10): "0111", (12, 10): "1000", (13, 10): "0101", (14, 10): "0010"}
    paths = []
    for k, month in enumerate((1, 4, 7, 10)):
        flags = [(x, y, "HOT") for (x, y), s in seen.items() if s[k] == "1"]
        paths.append(make_mask(tmp_path / f"{9 - k}.fits", flags=flags, USEAFTER=f"2026-{month:02d}-01T00:00:00"))
    return paths[::-1], seen


@pytest.mark.slow
def test_the_history_of_each_pixel(four):
    paths, seen = four
    found = compare.follow([mask_file.read_mask(p) for p in paths])
    hot = next(life for life in found.lives if life.flag == "HOT")
    assert (hot.always, hot.born, hot.died, hot.intermittent) == (1, 1, 1, 2)
    assert hot.counts == [sum(s[k] == "1" for s in seen.values()) for k in range(4)]
    days = (datetime(2026, 10, 1) - datetime(2026, 1, 1)).days
    assert hot.born_per_month == pytest.approx(1 / (days / 30.44))
    listed = {(p["x"], p["y"]): (p["kind"], p["seen"]) for p in found.pixels()}
    assert listed == {
        (11, 10): ("born", "0111"),
        (12, 10): ("died", "1000"),
        (13, 10): ("intermittent", "0101"),
        (14, 10): ("intermittent", "0010"),
    }


def test_two_masks_of_one_date_have_no_order(tmp_path):
    masks = [mask_file.read_mask(make_mask(tmp_path / f"{k}.fits")) for k in range(3)]
    with pytest.raises(DataError, match="USEAFTER must tell them apart"):
        compare.follow(masks)


# --- the command -----------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(badpix, ["compare", *map(str, args)])


@pytest.mark.slow
def test_command_with_outputs(tmp_path, pair):
    out = tmp_path / "changes"
    result = run(pair[0].path, pair[1].path, "--output-dir", out, "--json", "--regions", "quadrants")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["changed_pixels"] == 5
    assert set(told["regions"]) == {"lower left", "upper left", "lower right", "upper right"}
    lines = (out / "changes.csv").read_text().splitlines()
    assert lines[0] == "x,y,old,new"
    assert "22,30,WARM,DO_NOT_USE+HOT" in lines
    with fits.open(out / "changes.fits") as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "APPEARED", "DISAPPEARED"]
        assert hdus["APPEARED"].data[98, 99] == dq.VALUE["TELEGRAPH"]
    assert (out / "changes.png").stat().st_size > 5000
    again = run(pair[0].path, pair[1].path, "--output-dir", out)
    assert again.exit_code == 2
    assert "exists; give --overwrite" in again.stderr


def test_a_plain_map_is_taken_as_merge_takes_it(tmp_path, pair):
    plain = tmp_path / "plain.fits"
    old = make_mask(tmp_path / "host.fits", flags=[(10, 20, "DEAD+DO_NOT_USE")])
    image = np.zeros((1024, 1032), np.uint8)
    image[20, 10] = image[30, 40] = 1
    fits.PrimaryHDU(image).writeto(plain)
    done = run(old, plain, "--json")
    assert done.exit_code == 0, done.output
    assert "plain map, 2 pixels" in done.output


@pytest.mark.slow
def test_command_with_four_dates(tmp_path, four):
    result = run(*four[0], "--output-dir", tmp_path / "h")
    assert result.exit_code == 0, result.output
    assert "intermittent" in result.stdout
    assert "HOT,13,10,intermittent,0101" in (tmp_path / "h" / "history.csv").read_text()
    assert (tmp_path / "h" / "rates.csv").read_text().splitlines()[1].startswith("HOT,1,1,1,2,")


def test_one_mask_is_not_enough(pair):
    assert run(pair[0].path).exit_code == 2
