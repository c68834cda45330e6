"""An older mask brought up to date: each pixel of each flag, against a plain version and against injected truth."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mask_files import SUB64, make_mask

from badpix import dq
from badpix.cli.main import badpix
from badpix.errors import UsageError
from badpix.io import evidence, evidence_file
from badpix.io.depths import Depth
from badpix.io.evidence import Evidence, Rule
from badpix.mask import file as mask_file
from badpix.mask import update
from badpix.mask.update import KEEP, Coverage, State
from badpix.mask.update_inputs import find_below_depth
from badpix.review import explain, readings

SHAPE = (SUB64.ysize, SUB64.xsize)
BLIND = [State.NONE, State.UNDETERMINED, State.NOT_SEARCHED, State.OUTSIDE]


# --- the decisions ---------------------------------------------------------------------------------------


def plain(old, new, reason, faint, by_hand, retyped, policy, absent, faint_updates):
    """One pixel, as the documentation says it: (state, updates in a row that it was good in)."""
    if new:
        return (State.CONFIRMED if old else State.NEW), 0
    if not old:
        return State.NONE, 0
    if by_hand:
        return State.BY_HAND, 0
    if policy == KEEP:
        return State.POLICY, 0
    if reason != State.NONE:
        return reason, absent
    if retyped:
        return State.RETYPED, 0
    need = max(policy, faint_updates) if faint else policy
    if absent + 1 >= need:
        return State.RECOVERED, 0
    return (State.TOO_FAINT if faint else State.WAITING), absent + 1


flags = arrays(bool, (3, 4))
reasons = arrays(np.uint8, (3, 4), elements=st.sampled_from([int(s) for s in BLIND]))
counts = arrays(np.uint8, (3, 4), elements=st.integers(0, 3))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(flags, flags, reasons, flags, flags, flags, st.sampled_from([KEEP, 1, 2, 3]), counts, st.integers(1, 4))
def test_every_pixel_is_judged_as_the_documentation_says(
    old, new, reason, faint, by_hand, retyped, policy, absent, faint_updates
):
    judged = update.judge(old, new, Coverage(reason, faint), by_hand=by_hand, retyped=retyped, policy=policy)
    state, count = update.wait(judged, absent, policy=max(policy, 1), faint_updates=faint_updates)
    if policy == KEEP:
        state, count = judged, np.zeros_like(absent)
    for k in np.ndindex(3, 4):
        expected = plain(
            old[k], new[k], reason[k], faint[k], by_hand[k], retyped[k], policy, absent[k], faint_updates
        )
        assert (State(int(state[k])), int(count[k])) == expected


dq_images = arrays(np.uint32, (2, 5), elements=st.sampled_from([0, 1, 1025, 2049, 2048, 1024, 3073, 4, 513]))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(dq_images, dq_images, arrays(np.uint8, (2, 5), elements=st.integers(0, 11)))
def test_no_new_flag_is_lost_and_no_old_one_stays_unasked(old, new, code):
    names = ["DEAD", "HOT"]
    states = {name: np.where((old & dq.VALUE[name]) != 0, code, 0).astype(np.uint8) for name in names}
    out = update.combine(old, new, states)
    assert ((out & new) == new).all()
    for name in names:
        value = dq.VALUE[name]
        kept = (states[name] >= State.UNDETERMINED) & ((old & value) != 0)
        assert (((out & value) != 0) == (((new & value) != 0) | kept)).all()
    rest = np.uint32(0xFFFFFFFF ^ (dq.VALUE["DEAD"] | dq.VALUE["HOT"] | 1))
    assert ((out & rest) == ((old | new) & rest)).all()


def test_do_not_use_goes_with_the_flag_that_brought_it():
    hot, rc, unusable = (dq.VALUE[n] for n in ("HOT", "RC", "DO_NOT_USE"))
    old = np.array([[hot | unusable, rc, hot | rc | unusable, unusable, hot | unusable, rc]], np.uint32)
    states = {"HOT": np.array([[3, 0, 3, 0, 5, 0]], np.uint8), "RC": np.array([[0, 5, 5, 0, 0, 5]], np.uint8)}
    out = update.combine(old, np.zeros_like(old), states)
    assert out.tolist() == [[0, rc, rc, unusable, hot | unusable, rc]]


def test_nine_of_ten_are_seen_again():
    """The limit of what is faint, checked by drawing: at it nine of ten pass, below fewer, above more."""
    rng = np.random.default_rng(5)
    for level in np.arange(3.0, 9.0, 0.25):
        share = np.mean(rng.normal(level, 0.7, 20_000) > 5.0)
        faint = bool(update.find_faint(np.array([level]), 5.0, ">", 0.7)[0])
        if abs(share - 0.9) > 0.02:
            assert faint == (share < 0.9)
    assert not update.find_faint(np.array([np.nan]), 5.0, ">", 0.7)[0]
    assert update.find_faint(np.array([0.5]), 0.5, "<", 0.1)[0]


@pytest.mark.parametrize("policy", [{"HOTT": ["keep"]}, {"HOT": ["sometimes"]}, {"HOT": ["0"]}, {"HOT": []}])
def test_a_wrong_policy_is_refused(policy):
    with pytest.raises(UsageError, match=r"merge\.policy"):
        update.read_policy(policy)


# --- from files to file ----------------------------------------------------------------------------------


def write_darks_mask(path, rates, *, limit=1.0, undetermined=(), seed=0, **header):
    """A mask that a search of darks made: HOT above a limit, with its evidence; rates by pixel (y, x)."""
    rate = np.random.default_rng(seed).normal(0, 0.05, SHAPE).astype(np.float32)
    for place, value in rates.items():
        rate[place] = value
    blind = np.zeros(SHAPE, np.uint8)
    for place in undetermined:
        blind[place], rate[place] = 1, np.nan
    hot = rate > limit
    flagged = [(int(x), int(y), "HOT+DO_NOT_USE") for y, x in zip(*np.nonzero(hot), strict=True)]
    make_mask(path, window=SUB64, flags=flagged, SUBARRAY="SUB64", BPDHOTSG=5.0, **header)
    images = {"dark_rate": rate, "dark_undetermined": blind, "is_hot": hot.astype(np.uint8)}
    found = Evidence(images, [Rule("hot", "dark_rate", ">", limit, "DN/s", "dark rate")])
    evidence_file.write(evidence_file.path_beside(path), found, mask_file.evidence_header(path))
    return path


def run(*words):
    done = CliRunner().invoke(badpix, [str(w) for w in words])
    assert done.exit_code == 0, done.output
    return done


TEXTS = ("--author", "A. Name", "--descrip", "Test", "--useafter", "2026-01-01")


@pytest.fixture
def old(tmp_path):
    """HOT pixels of darks, one pixel by hand, and RC, which no new mask searches for; merged, with its evidence."""
    rates = {(10, 10): 50.0, (10, 20): 50.0, (10, 30): 50.0, (10, 40): 1.02}
    darks = write_darks_mask(tmp_path / "darks_2025.fits", rates)
    other = make_mask(tmp_path / "other.fits", window=SUB64, flags=[(50, 20, "RC+DO_NOT_USE")], SUBARRAY="SUB64")
    (tmp_path / "known.txt").write_text(f"x y flag\n\n60 {SUB64.ystart - 1 + 30} HOT\n")
    run("merge", darks, other, "--manual", tmp_path / "known.txt", "-o", tmp_path / "old.fits", *TEXTS)
    return tmp_path / "old.fits"


def states_of(path):
    with evidence_file.opened(evidence_file.path_beside(path)) as (found, _):
        return {
            n.removeprefix("update_").upper(): np.asarray(i[:, :])
            for n, i in found.images.items()
            if n.startswith("update_")
        }


@pytest.mark.slow
def test_new_where_measured_old_where_not(tmp_path, old):
    new = write_darks_mask(tmp_path / "darks.fits", {(10, 10): 40.0, (40, 40): 9.0}, undetermined=[(10, 30)], seed=1)
    done = run("update", old, "--darks", new, "-o", tmp_path / "new.fits", "--json", *TEXTS)
    image = mask_file.read_mask(tmp_path / "new.fits").image
    truth = np.zeros(SHAPE, np.uint32)
    truth[10, 10] = truth[10, 30] = truth[10, 40] = truth[40, 40] = truth[30, 60] = dq.VALUE["HOT"] | 1
    truth[20, 50] = dq.VALUE["RC"] | 1
    science = ~mask_file.read_mask(tmp_path / "new.fits").reference
    assert np.array_equal(image[science], truth[science])
    state = states_of(tmp_path / "new.fits")
    expected = {
        (10, 10): State.CONFIRMED,
        (10, 20): State.RECOVERED,
        (10, 30): State.UNDETERMINED,
        (10, 40): State.TOO_FAINT,
        (40, 40): State.NEW,
        (30, 60): State.BY_HAND,
    }
    assert {(int(y), int(x)): State(int(state["HOT"][y, x])) for y, x in np.argwhere(state["HOT"])} == expected
    assert state["RC"][20, 50] == State.NOT_SEARCHED
    told = json.loads(done.stdout)["update"]
    assert told["flags"]["HOT"] | {"reasons": 0} == {
        "confirmed": 1,
        "new": 1,
        "recovered": 1,
        "retyped": 0,
        "not_testable": 3,
        "reasons": 0,
    }
    listed = {(r["x"], r["y"] - SUB64.ystart + 1, r["state"]) for r in told["pixels"] if r["flag"] == "HOT"}
    assert (20, 10, "recovered") in listed
    assert (40, 40, "new") in listed


@pytest.mark.slow
def test_a_faint_pixel_recovers_after_three_updates_without_it(tmp_path, old):
    path = old
    for k in range(3):
        new = write_darks_mask(tmp_path / f"darks_{k}.fits", {(10, 10): 40.0}, seed=10 + k)
        run("update", path, "--darks", new, "-o", tmp_path / f"new_{k}.fits", *TEXTS)
        path = tmp_path / f"new_{k}.fits"
        flagged = mask_file.read_mask(path).image[10, 40] != 0
        assert flagged == (k < 2)
    assert states_of(path)["HOT"][10, 40] == State.RECOVERED


@pytest.mark.slow
def test_policies_keep_and_wait(tmp_path, old):
    new = write_darks_mask(tmp_path / "darks.fits", {(10, 10): 40.0}, seed=3)
    run("update", old, "--darks", new, "-o", tmp_path / "kept.fits", "--policy", "HOT:keep", *TEXTS)
    assert (states_of(tmp_path / "kept.fits")["HOT"][10, [20, 30, 40]] == State.POLICY).all()
    run("update", old, "--darks", new, "-o", tmp_path / "one.fits", "--policy", "HOT:2", *TEXTS)
    assert states_of(tmp_path / "one.fits")["HOT"][10, 20] == State.WAITING
    run("update", tmp_path / "one.fits", "--darks", new, "-o", tmp_path / "two.fits", "--policy", "HOT:2", *TEXTS)
    assert states_of(tmp_path / "two.fits")["HOT"][10, 20] == State.RECOVERED


@pytest.mark.slow
def test_origins_go_through_merge_and_update(tmp_path, old):
    new = write_darks_mask(tmp_path / "darks.fits", {(10, 10): 40.0, (40, 40): 9.0}, undetermined=[(10, 30)], seed=1)
    run("update", old, "--darks", new, "-o", tmp_path / "new.fits", *TEXTS)
    mask = mask_file.read_mask(tmp_path / "new.fits")
    with readings.open_evidence(mask) as (found, note):
        assert note == ""
        told = {
            (y, x): explain.explain(mask, found, x, y + SUB64.ystart - 1)
            for y, x in [(10, 10), (10, 30), (30, 60), (20, 50), (40, 40), (10, 20)]
        }
    names = {k: [(s.kind, s.name, s.via, line) for s, line in e.origins.get("HOT", [])] for k, e in told.items()}
    assert names[10, 10] == [("darks", "darks.fits", "", 0)]
    assert names[10, 30] == [("darks", "darks_2025.fits", "old.fits", 0)]
    assert names[30, 60] == [("manual", "known.txt", "old.fits", 3)]
    assert [(s.kind, s.name) for s, _ in told[20, 50].origins["RC"]] == [("mask", "other.fits")]
    assert "confirmed in this update" in told[10, 10].sentences[0]
    assert "the manual list known.txt, line 3 by way of old.fits" in told[30, 60].sentences[0]
    assert "the new exposures could not measure it" in told[10, 30].sentences[0]
    assert "HOT: recovered" in told[10, 20].sentences[1]


@pytest.mark.slow
def test_a_mask_without_evidence_is_updated_by_the_limits_alone(tmp_path, old):
    evidence_file.path_beside(old).unlink()
    new = write_darks_mask(tmp_path / "darks.fits", {(10, 10): 40.0}, undetermined=[(10, 30)], seed=1)
    done = run("update", old, "--darks", new, "-o", tmp_path / "new.fits", *TEXTS)
    assert "old.fits has no evidence beside it" in done.output
    state = states_of(tmp_path / "new.fits")["HOT"]
    assert state[10, 20] == state[10, 40] == state[30, 60] == State.RECOVERED
    assert state[10, 30] == State.UNDETERMINED


@pytest.mark.slow
def test_outside_the_window_nothing_changes(tmp_path):
    old = make_mask(tmp_path / "old.fits", flags=[(500, 100, "HOT+DO_NOT_USE"), (20, 800, "HOT+DO_NOT_USE")])
    new = write_darks_mask(tmp_path / "darks.fits", {}, seed=1)
    run("update", old, "--darks", new, "-o", tmp_path / "new.fits", *TEXTS)
    mask = mask_file.read_mask(tmp_path / "new.fits")
    assert mask.is_full
    assert mask.image[100, 500] == dq.VALUE["HOT"] | 1
    assert mask.image[800, 20] == 0
    assert states_of(tmp_path / "new.fits")["HOT"][100, 500] == State.OUTSIDE


@pytest.mark.slow
def test_an_update_by_the_same_exposures_changes_nothing(tmp_path, old):
    again = write_darks_mask(
        tmp_path / "darks.fits", {(10, 10): 50.0, (10, 20): 50.0, (10, 30): 50.0, (10, 40): 1.02}
    )
    run("update", old, "--darks", again, "-o", tmp_path / "new.fits", *TEXTS)
    assert np.array_equal(mask_file.read_mask(tmp_path / "new.fits").image, mask_file.read_mask(old).image)


@pytest.mark.slow
def test_a_merge_says_that_old_flags_never_leave(tmp_path, old):
    new = write_darks_mask(tmp_path / "darks.fits", {(10, 10): 40.0}, seed=1)
    done = run("merge", new, old, "-o", tmp_path / "new.fits", *TEXTS)
    assert "5 pixels have flags of old.fits alone, which a merge never takes off; badpix update" in done.output
    done = run("merge", new, old, "--prefer", "newest", "-o", tmp_path / "newest.fits", *TEXTS)
    assert "no pixel keeps" not in done.output or "badpix update" in done.output


def test_the_depth_of_the_new_darks_says_who_could_have_been_missed():
    """A pixel below the strength at which nine of ten are found is faint, whatever the limit is."""
    rows = [Depth("hot", level, "DN/s", 100, found, found) for level, found in ((0.1, 0), (0.3, 50), (1.0, 100))]
    rows += [Depth("DEAD", level, "of the light", 100, found, found) for level, found in ((0.02, 100), (0.08, 0))]
    found = evidence.Evidence(depth=rows)
    before = evidence.Evidence(
        images={
            "dark_rate": np.array([[0.2, 0.5, 5.0, np.nan]], np.float32),
            "flat_norm": np.array([[0.0, 0.03, 0.07, 0.9]], np.float32),
        }
    )
    ninety = 0.3 * (1 / 0.3) ** (1.2816 / 2.58)
    assert 0.5 < ninety < 0.6
    assert find_below_depth(found, before, "hot").tolist() == [[True, True, False, False]]
    assert find_below_depth(found, before, "DEAD").tolist() == [[False, False, True, True]]
    assert find_below_depth(found, before, "rc") is None
    assert find_below_depth(evidence.Evidence(), before, "hot") is None
    shallow = evidence.Evidence(depth=[Depth("hot", 0.1, "DN/s", 100, 10, 10)])
    assert find_below_depth(shallow, before, "hot").tolist() == [[True, True, True, False]]
