"""Why a pixel is flagged: every flag gets its reason, with the numbers of the evidence; ramps are drawn."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from dark_files import write_darks
from evidence_files import FLAGS, make_evidence, write_jump
from mask_files import SUB64, make_mask

from badpix.cli.main import badpix
from badpix.errors import DataError, UsageError
from badpix.io import evidence, evidence_file
from badpix.io.evidence import Evidence, Rule
from badpix.mask import file as mask_file
from badpix.review import choose, explain, pixel_ramps, readings, words


@pytest.fixture
def made(tmp_path):
    path = make_mask(tmp_path / "mask.fits", window=SUB64, flags=FLAGS, SUBARRAY="SUB64")
    evidence_file.write(evidence_file.path_beside(path), make_evidence(), mask_file.evidence_header(path))
    mask = mask_file.read_mask(path)
    found, note = readings.read_evidence(mask)
    assert note == ""
    return mask, found


def sentences(made, x, y):
    """In coordinates of the subarray's image."""
    item = explain.explain(*made, x, y + SUB64.ystart - 1)
    return item.sentences + item.others


def test_a_flag_names_its_search_value_limit_and_votes(made):
    assert sentences(made, 21, 10)[0] == (
        "HOT (hot pixel: excessive dark current): found by the search hot, dark rate 50 is above 1 DN/s (too bright)"
        ", in 4 of 4 integrations."
    )
    assert "in 3 of 4 integrations" in sentences(made, 20, 10)[0]


def test_rules_of_one_way_are_joined_and_the_limit_may_be_an_image(made):
    text = sentences(made, 24, 10)[0]
    assert "response 0.2 is below 0.5 of the surroundings (too faint) and excess 0.1 is above 0.05" in text


def test_of_two_ways_the_one_that_holds_is_told(made):
    text = sentences(made, 23, 10)[0]
    assert "shape score 12 is above 5 sigma" in text
    assert "pedestal" not in text


def test_where_a_flag_comes_from_when_no_search_found_it(made):
    assert "no search found it; it comes from a manual list or a mask that was merged" in sentences(made, 26, 10)[0]


def test_the_manual_lists_of_merge_are_named(made):
    mask, found = made
    mask.history.append("merge.manual = known.txt, new.txt: Manual lists to add.")
    item = explain.explain(mask, found, 26, 10 + SUB64.ystart - 1)
    assert "it comes from the manual list known.txt, new.txt, or a mask" in item.sentences[0]


def test_a_search_that_found_what_the_mask_does_not_carry(made):
    told = sentences(made, 20, 10)
    assert "The search DEAD found it, but the mask does not carry its flag; HOT wins over DEAD." in told


def test_do_not_use_has_its_reason_or_says_that_there_is_none(made):
    assert "DO_NOT_USE: set because of HOT." in sentences(made, 21, 10)
    assert any("without a flag that says why" in s for s in sentences(made, 25, 10))


def test_why_a_good_pixel_is_good(made):
    told = sentences(made, 40, 40)
    assert told[0] == "Good: no flag."
    assert "Not hot: dark rate 0 is not above 1 DN/s (too bright)." in [s.replace("HOT", "hot") for s in told]
    assert "Not LOW_QE: response 1 is not below 0.5 of the surroundings (too faint)." in told


def reading(quantity, comparison, limit, value, meaning="m", way=1):
    rule = Rule("s", quantity, comparison, limit, "sigma", meaning, way)
    return readings.Reading(rule, value, limit, evidence.COMPARISONS[comparison](value, limit))


def test_two_sided_limits_and_yes_or_no_quantities_read_as_language():
    search = readings.Search("s", ["HOT"], False, [reading("rc", ">", 5, 1.0), reading("rc", "<", -5, 1.0, way=2)])
    assert words.why_not(search, [], {}) == "Not s: rc 1 is neither above 5 nor below -5 sigma (m)."
    held = [reading("rate", ">", 5, 9.0), reading("s_withheld", "<", 1, 1.0, "leaked from a neighbor")]
    told = words.why_not(readings.Search("s", ["HOT"], False, held), [], {})
    assert told == "Not s: rate 9 is above 5 sigma (m), but withheld (leaked from a neighbor)."
    found = [reading("rate", ">", 5, 9.0), reading("s_withheld", "<", 1, 0.0)]
    told = words.reason(readings.Search("s", ["HOT"], True, found), {})
    assert told == "found by the search s, rate 9 is above 5 sigma (m)"
    other = [reading("rate", ">", 5, 1.0), reading("s_otherwise", ">=", 1, 1.0, "two levels", way=2)]
    assert words.reason(readings.Search("s", ["HOT"], True, other), {}) == "found by the search s, two levels"


def test_votes_are_told_of_the_way_that_found_the_pixel():
    way = [reading("dark_rate", ">", 1, np.nan), reading("votes_saturated", ">=", 3, 5.0, "saturated", way=2)]
    votes = [readings.Votes("dark_rate", [np.nan] * 5, 0)]
    told = words.reason(readings.Search("hot", ["HOT"], True, way, votes), {})
    assert told == "found by the search hot, saturated in 5 integrations, at least 3"
    few = readings.Search("hot", ["HOT"], False, [reading("votes_saturated", ">=", 3, 2.0, "saturated")])
    assert words.why_not(few, [], {}) == "Not HOT: saturated in 2 integrations, fewer than 3."


def test_of_several_rules_the_first_that_fails_is_told_also_where_others_were_not_measured():
    way = [reading("response", "<", 0.5, 1.0), reading("excess", ">", 0.1, np.nan)]
    told = words.why_not(readings.Search("OPEN", ["OPEN"], False, way), [], {})
    assert told == "Not OPEN: response 1 is not below 0.5 sigma (m)."


@pytest.mark.parametrize(
    ("z", "ratio", "told"), [(9.0, 1.3, "ratio"), (4.0, 2.0, "z"), (3.0, 1.2, "z"), (9.0, 1.2, "ratio")]
)
def test_of_two_limits_on_one_measurement_the_one_that_decides_is_told(z, ratio, told):
    way = [reading("dark_noise_z", ">", 3.7, z), reading("dark_noise_ratio", ">", 1.25, ratio)]
    found = all(r.holds for r in way)
    search = readings.Search("noisy", ["UNRELIABLE_SLOPE"], found, way)
    text = words.reason(search, {}) if found else words.why_not(search, [], {})
    assert f"dark noise {told} " in text
    assert text.count("dark noise") == 1


def test_charge_that_leaked_in_is_told_where_it_matters():
    """A neighbor of a bright pixel: its integrations show 20 DN/s, which are not its own."""
    rule = [reading("dark_rate", ">", 0.2, -1.5)]
    votes = [readings.Votes("dark_rate", [20.0, 21.0, np.nan], 2)]
    told = words.why_not(readings.Search("hot", ["HOT"], False, rule, votes), [], {})
    assert "dark rate -1.5 is not above 0.2 sigma (m; 20.5 before charge that leaked in from its neighbors" in told
    votes = [readings.Votes("dark_rate", [-1.4, -1.6, -1.5], 0)]
    assert "leaked" not in words.why_not(readings.Search("hot", ["HOT"], False, rule, votes), [], {})


@pytest.fixture(scope="module")
def darks_mask(tmp_path_factory):
    """A mask from darks with evidence, as `badpix darks` makes it."""
    place = tmp_path_factory.mktemp("darks")
    write_darks(place / "darks", exposures=5)
    done = CliRunner().invoke(badpix, ["darks", str(place / "darks"), "-o", str(place / "m.fits"), "--evidence"])
    assert done.exit_code == 0, done.output
    mask = mask_file.read_mask(place / "m.fits")
    return mask, readings.read_evidence(mask)[0]


@pytest.mark.slow
def test_what_the_darks_keep_of_candidates_alone_is_known_by_name(darks_mask):
    mask, found = darks_mask
    science = ~mask.reference
    measured = np.isfinite(found.images["dark_noise"]) & science
    partly = {
        name
        for name, image in found.images.items()
        if image.dtype.kind == "f" and np.isnan(image[measured]).mean() > 0.5
    }
    no_rule = {"dark_known_noise"}  # of pixels whose noise is unlike that around them; families read it
    assert partly - no_rule == {name for name in readings.CANDIDATES_ONLY if not name.startswith("science_")}


def place(mask, chosen):
    """One of the chosen pixels, in coordinates of the full frame."""
    y, x = np.argwhere(chosen)[17]
    return int(x) + mask.window.xstart - 1, int(y) + mask.window.ystart - 1


@pytest.mark.slow
def test_a_pixel_that_was_no_candidate_is_told_to_lie_below_the_limits(darks_mask):
    mask, found = darks_mask
    hidden = np.isfinite(found.images["dark_noise"]) & np.isnan(found.images["dark_residual_z"]) & ~mask.reference
    item = explain.explain(mask, found, *place(mask, hidden & (mask.image == 0)))
    told = "\n".join(item.others)
    assert item.title == "good"
    assert "not measured" not in told
    assert "is not above" in told
    assert "dark residual z is clearly below 3.8 sigma" in told


def test_pixels_that_nobody_could_measure_are_not_called_good(darks_mask):
    mask, found = darks_mask
    lost = Evidence({**found.images, "dark_undetermined": np.ones(mask.image.shape, np.uint8)}, found.rules)
    for name in ("dark_rate", "dark_noise", "dark_rc", "dark_telegraph", "dark_pedestal_sigma"):
        lost.images[name] = np.full(mask.image.shape, np.nan, np.float32)
    item = explain.explain(mask, lost, *place(mask, (mask.image == 0) & ~mask.reference))
    assert item.title == "unknown"
    assert "nobody knows whether it is good: the darks have too few usable groups" in item.sentences[0]
    assert item.others[-1] == "Not measured: intermittent, RC, TELEGRAPH, noisy, low_pedestal."


def test_what_was_not_measured_is_said(made):
    assert any("pedestal was not measured" in s for s in sentences(made, 40, 10))


def test_reference_pixels(made):
    told = sentences(made, 0, 5)
    assert told[0].startswith("A reference pixel")
    assert not any(s.startswith("Not ") for s in told)


def test_every_flagged_pixel_can_be_explained(made):
    mask, found = made
    for y, x in zip(*np.nonzero(mask.image), strict=True):
        item = explain.explain(mask, found, int(x), int(y) + SUB64.ystart - 1)
        told = " ".join(item.sentences)
        for flag in item.flags:
            assert flag in told or (flag == "REFERENCE_PIXEL" and "reference pixel" in told)


def test_pixels_count_in_the_full_frame_and_must_be_inside(made):
    assert explain.explain(*made, 21, 788).flags == ["DO_NOT_USE", "HOT"]
    with pytest.raises(
        UsageError, match=r"pixel \(21, 10\) lies outside the mask: x, y from \(0, 778\) to \(71, 841\)"
    ):
        explain.explain(*made, 21, 10)


def test_the_worst_pixels_come_first(made):
    assert choose.find_worst(*made, "hot", 10) == [(21, 788), (26, 788), (20, 788)]
    assert choose.find_worst(*made, "HOT", 1) == [(21, 788)]
    assert choose.find_worst(made[0], None, "HOT", 2) == [(20, 788), (21, 788)]
    with pytest.raises(UsageError, match="did you mean UNRELIABLE_SLOPE"):
        choose.find_worst(*made, "noisy", 1)


def test_without_evidence_the_flags_are_still_told(tmp_path):
    mask = mask_file.read_mask(make_mask(tmp_path / "mask.fits", window=SUB64, flags=FLAGS, SUBARRAY="SUB64"))
    found, note = readings.read_evidence(mask)
    assert found is None
    assert "make it with --evidence" in note
    assert "there is no evidence to say why" in explain.explain(mask, None, 21, 788).sentences[0]


def test_evidence_of_another_mask_is_noticed(tmp_path, made):
    other = make_mask(tmp_path / "other.fits", window=SUB64, flags=FLAGS[:2], SUBARRAY="SUB64")
    beside = evidence_file.path_beside(made[0].path)
    _, note = readings.read_evidence(mask_file.read_mask(other), beside)
    assert "belongs to another version" in note
    full = mask_file.read_mask(make_mask(tmp_path / "full.fits"))
    with pytest.raises(DataError, match=r"image dark_rate has the shape \(64, 72\)"):
        readings.read_evidence(full, beside)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["3", "4"], [(3, 4)]), (["3,4", "5,6"], [(3, 4), (5, 6)]), (["@list"], [(1, 2), (3, 4)])],
)
def test_ways_to_name_pixels(tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list").write_text("x y flag\n1 2 HOT\n# none\n3,4\n")
    assert choose.parse_pixels(words) == expected
    assert choose.parse_pixels(words, one_based=True) == [(x - 1, y - 1) for x, y in expected]


@pytest.mark.parametrize("words", [["3"], ["a", "b"], ["1.5", "2"]])
def test_wrong_pixels_are_refused(words):
    with pytest.raises(UsageError, match="expected"):
        choose.parse_pixels(words)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("7\n", "line 1: found '7', expected x and y"),
        ("1 2\n# more\nDEAD 4\n", "line 3"),
        ("1 2 HOT " * 500, "line 1"),
        ("# none\n", "is empty"),
        ("\0\0", "is no text"),
        ("1_0 2", "line 1"),
    ],
)
def test_a_list_that_names_no_pixels_is_refused_by_name_and_line(tmp_path, text, what):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UsageError, match=r"list\.txt") as error:
        choose.parse_pixels([f"@{tmp_path / 'list.txt'}"])
    assert what in str(error.value)
    assert len(str(error.value)) < 300


# --- ramps -----------------------------------------------------------------------------------------------


def test_ramps_have_jumps_saturation_and_a_fit(tmp_path):
    ramps = pixel_ramps.read_ramps([write_jump(tmp_path / "a_jump.fits")], 21, 788)
    assert len(ramps) == 2
    assert ramps[0].label == "a_jump.fits [1]"
    assert np.flatnonzero(ramps[0].jumps).tolist() == [4]
    assert np.flatnonzero(ramps[0].saturated).tolist() == [7]
    assert ramps[0].slope == pytest.approx(1.5)
    assert ramps[0].unit == "DN/s"
    np.testing.assert_allclose(ramps[0].fit[:7], ramps[0].signal[:7], rtol=1e-12)
    assert np.isnan(ramps[0].fit[7])


def test_the_slope_of_the_rate_file_beside_is_shown(tmp_path):
    path = write_jump(tmp_path / "a_jump.fits")
    with fits.open(path) as hdus:
        rate = np.full((2, 64, 72), 1.25, np.float32)
        fits.HDUList([hdus[0], fits.ImageHDU(rate, name="SCI")]).writeto(tmp_path / "a_rateints.fits")
    ramps = pixel_ramps.read_ramps([path], 21, 788)
    assert [r.slope for r in ramps] == [1.25, 1.25]
    assert ramps[0].fit[1] - ramps[0].fit[0] == pytest.approx(2.5)


def test_a_fit_through_one_good_group_is_no_slope():
    slope, fit = pixel_ramps.fit_segments(np.arange(3.0), np.zeros(3, bool), np.array([False, True, True]))
    assert np.isnan(slope)
    assert np.isnan(fit).all()


def test_the_drawing_shows_each_group_once(tmp_path):
    ramp = pixel_ramps.read_ramps([write_jump(tmp_path / "a_jump.fits")], 21, 788)[0]
    text = pixel_ramps.draw_text(ramp)
    assert text.splitlines()[0] == "a_jump.fits [1]: 1.5 DN/s, 1 jumps, 1 groups saturated"
    drawing = "".join(line.split("|", 1)[1] for line in text.splitlines() if "|" in line)
    assert (drawing.count("o"), drawing.count("J"), drawing.count("S")) == (6, 1, 1)


def test_files_without_groups_and_pixels_outside_are_refused(tmp_path):
    path = write_jump(tmp_path / "a_jump.fits")
    with pytest.raises(DataError, match="lies outside its window"):
        pixel_ramps.read_ramps([path], 21, 10)
    with fits.open(path) as hdus:
        fits.HDUList([hdus[0], fits.ImageHDU(np.zeros((64, 72), np.float32), name="SCI")]).writeto(
            tmp_path / "r.fits"
        )
    with pytest.raises(DataError, match="SCI has 2 axes, expected groups"):
        pixel_ramps.read_ramps([tmp_path / "r.fits"], 21, 788)


# --- the command -----------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(badpix, ["explain", *map(str, args)])


@pytest.mark.slow
def test_command_prints_sentences_and_ramps(tmp_path, made):
    jump = write_jump(tmp_path / "a_jump.fits")
    result = run(made[0].path, 21, 788, "--ramps", jump, "--png", tmp_path / "png")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("(21, 788)  DO_NOT_USE HOT\n  HOT (hot pixel")
    assert "a_jump.fits [2]: 1.5 DN/s" in result.stdout
    assert (tmp_path / "png" / "ramps_x21_y788.png").stat().st_size > 5000


def test_command_in_json(made):
    result = run(made[0].path, "--flag", "HOT", "--worst", 2, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [(p["x"], p["y"]) for p in told["pixels"]] == [(21, 788), (26, 788)]
    rules = told["pixels"][0]["searches"][0]["rules"]
    assert (rules[0]["value"], rules[0]["limit_here"], rules[0]["holds"]) == (50.0, 1.0, True)


@pytest.mark.slow
def test_command_without_a_pixel(made):
    result = run(made[0].path)
    assert result.exit_code == 2
    assert "give X Y, or --flag" in result.stderr
    assert run(made[0].path, "--flag", "WARM").exit_code == 0  # there is none: nothing to do
