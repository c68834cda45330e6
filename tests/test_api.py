"""The Python API: the same results as the command line, arrays as good as files, messages, light imports."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from astropy.io import fits
from checkout import ROOT
from click.testing import CliRunner

import badpix
from badpix.cli import main
from badpix.io import evidence_file
from badpix.simulation.ifu_files import write_association
from badpix.simulation.image import simulate as simulate_image
from badpix.simulation.image_setup import Setup

PLACE = {"detector": "NRCB1", "start": (1, 1), "subarray": "SUB640"}  # a scaled detector calls itself that


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Flats and darks of a small NRCB1."""
    folder = tmp_path_factory.mktemp("site")
    p = badpix.SimulateSettings(detector="NRCB1", size=(96, 96), flats=8, darks=6, dark_groups=30)
    badpix.simulate(folder, p)
    return folder


@pytest.fixture(scope="module")
def flats(site):
    return badpix.find_flat_defects(site / "flats")


@pytest.fixture(scope="module")
def darks(site):
    return badpix.find_dark_defects(str(site / "darks" / "*_rateints.fits"))


@pytest.fixture(scope="module")
def pixels(site):
    """The arrays in the files: rates and dq of the flats; ramps, flags, slopes of the darks."""
    names = sorted((site / "darks").glob("*_rateints.fits"))
    found = {
        "flats": np.stack([fits.getdata(p, "SCI") for p in sorted((site / "flats").glob("*_rate.fits"))]),
        "dq": fits.getdata(min((site / "flats").glob("*_rate.fits")), "DQ"),
    }
    places = {
        "ramps": ("jump", "SCI"),
        "groupdq": ("jump", "GROUPDQ"),
        "rates": ("rateints", "SCI"),
        "var_poisson": ("rateints", "VAR_POISSON"),
        "pedestals": ("fitopt", "PEDESTAL"),
    }
    for name, (product, extension) in places.items():
        files = [str(p).replace("_rateints", f"_{product}") for p in names]
        found[name] = [fits.getdata(f, extension).astype("=f4" if name != "groupdq" else "u1") for f in files]
    return found


def call(*words):
    done = CliRunner().invoke(main.badpix, [str(w) for w in words])
    assert done.exit_code == 0, done.output


# --- the same as the command line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(site):
    """Masks of the command line, with evidence."""
    folder = site / "theirs"
    folder.mkdir()
    for kind in ("flats", "darks"):
        call(kind, site / kind, "--evidence", "-q", "-o", folder / f"{kind}.fits")
    return folder


@pytest.mark.slow
def test_files_give_the_bytes_of_the_command_line(flats, darks, theirs, tmp_path):
    badpix.write_mask(flats, tmp_path / "flats.fits", evidence=True)
    badpix.write_mask(darks, tmp_path / "darks.fits", evidence=True)
    names = {path.name for path in theirs.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.slow
def test_masks_in_memory_merge_as_files_do(flats, darks, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(theirs)
    call("merge", "darks.fits", "flats.fits", "--evidence", "-q", "-o", tmp_path / "a" / "mask.fits")
    monkeypatch.chdir(tmp_path)
    merged = badpix.merge([darks, flats])
    badpix.write_mask(merged, tmp_path / "b" / "mask.fits", evidence=True)
    assert (tmp_path / "a" / "mask.fits").read_bytes() == (tmp_path / "b" / "mask.fits").read_bytes()
    (one, _), (two, _) = (evidence_file.read(tmp_path / name / "mask_evidence.fits") for name in ("a", "b"))
    assert (one.rules, one.images.keys(), one.samples.keys()) == (two.rules, two.images.keys(), two.samples.keys())
    for name, image in one.images.items():
        np.testing.assert_array_equal(two.images[name], image, name)
    mixed = badpix.merge([theirs / "darks.fits", flats])
    np.testing.assert_array_equal(mixed.image, merged.image)


@pytest.mark.slow
def test_a_mask_in_memory_explains_itself_as_its_file_does(flats, darks, theirs):
    for mask, flag in ((flats, "OPEN"), (darks, "RC"), (darks, "HOT")):
        for y, x in np.argwhere(mask.has(flag))[:2].tolist():
            ours, known = badpix.explain(mask, x, y), badpix.explain(theirs / f"{mask.kind}.fits", x, y)
            assert ours.sentences == known.sentences
            assert "found by the search" in ours.sentences[0]
    again = badpix.read_mask(theirs / "flats.fits", evidence=True)
    assert [r.search for r in again.evidence.rules] == [r.search for r in flats.evidence.rules]


@pytest.mark.slow
def test_settings_count(site, flats):
    lower = badpix.find_flat_defects(site / "flats", badpix.FlatSettings(max_low_qe_norm_signal=0.2))
    assert lower.searches["LOW_QE"] < flats.searches["LOW_QE"]
    assert any("max_low_qe_norm_signal = 0.2 " in line for line in lower.history)


@pytest.mark.slow
def test_workers_change_nothing(site, flats, pixels):
    with ThreadPoolExecutor(2) as executor:
        again = badpix.find_flat_defects(pixels["flats"], **PLACE, dq=pixels["dq"], executor=executor)
    np.testing.assert_array_equal(again.image, flats.image)


def test_progress_ends_with_all(site):
    steps = []
    badpix.find_flat_defects(site / "flats", progress=lambda done, total: steps.append((done, total)))
    assert steps
    assert steps[-1][0] == steps[-1][1]


@pytest.mark.slow
def test_check_compare_and_score_are_those_of_the_command_line(site, flats, darks, tmp_path):
    merged = badpix.merge([flats, darks], texts=badpix.ReferenceSettings(author="A. Name"))
    path = badpix.write_mask(merged, tmp_path / "mask.fits")
    checked = badpix.check(merged, against=flats)
    assert {f.rule for f in badpix.check(path).faults} <= {f.rule for f in checked.faults}
    assert badpix.check(path).passed
    assert str(checked.path) == "merge.fits"
    assert not [fault for fault in checked.faults if "--" in fault.message]
    found = badpix.compare(flats, path)
    assert {c.flag: c.appeared for c in found.changes}["HOT"] == merged.counts["HOT"]
    (truth,) = site.glob("*_truth.fits")
    one, two = badpix.score(merged, truth), badpix.score(path, truth)
    assert one == two
    assert sum(row["found"] for row in one.completeness) > 0


# --- arrays ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_flats_as_arrays_equal_files(flats, pixels, tmp_path):
    found = badpix.find_flat_defects(pixels["flats"].astype(">f8"), **PLACE, dq=pixels["dq"])
    assert found.maps.keys() == flats.maps.keys()
    for name, image in flats.maps.items():
        np.testing.assert_array_equal(found.maps[name], image, name)
    np.testing.assert_array_equal(found.image, flats.image)
    before = pixels["flats"].copy()
    badpix.find_flat_defects(list(pixels["flats"]), **PLACE, dq=pixels["dq"])
    np.testing.assert_array_equal(pixels["flats"], before)


@pytest.mark.slow
def test_darks_as_arrays_equal_files(darks, pixels):
    given = {k: pixels[k] for k in ("groupdq", "rates", "var_poisson", "pedestals", "dq")}
    found = badpix.find_dark_defects(pixels["ramps"], **PLACE, **given, group_time=10.73677)
    assert found.maps.keys() == darks.maps.keys()
    for name, image in darks.maps.items():
        np.testing.assert_array_equal(found.maps[name], image, name)
    np.testing.assert_array_equal(found.image, darks.image)


@pytest.mark.slow
def test_slopes_of_darks_are_fitted_where_they_are_not_given(darks, pixels):
    given = {k: pixels[k] for k in ("groupdq", "dq")}
    found = badpix.find_dark_defects(
        pixels["ramps"], **PLACE, **given, group_time=10.73677, gain=2.05, read_noise=5.3
    )
    changed = np.count_nonzero(found.image != darks.image)
    assert changed <= 0.02 * np.count_nonzero(darks.image[~darks.reference])


@pytest.mark.slow
def test_an_array_of_one_exposure_with_integrations(pixels):
    """Six exposures of one integration as one exposure of six."""
    ramps, flags = np.concatenate(pixels["ramps"]), np.concatenate(pixels["groupdq"])
    found = badpix.find_dark_defects(
        ramps, **PLACE, groupdq=flags, dq=pixels["dq"], group_time=10.73677, gain=2.05, read_noise=5.3
    )
    assert found.searches["hot"] > 0
    assert found.inputs == ["array001_rateints.fits"]


@pytest.mark.slow
def test_arrays_without_a_date_can_be_looked_at_but_not_written(pixels, tmp_path):
    undated = badpix.find_flat_defects(pixels["flats"], **PLACE, dq=pixels["dq"])
    assert "USEAFTER" not in undated.header
    with pytest.raises(badpix.UsageError, match="arrays carry no date"):
        badpix.write_mask(undated, tmp_path / "mask.fits")
    dated = badpix.find_flat_defects(pixels["flats"], **PLACE, dq=pixels["dq"], header={"DATE-OBS": "2026-01-02"})
    path = badpix.write_mask(dated, tmp_path / "mask.fits")
    assert fits.getheader(path)["USEAFTER"] == "2026-01-02T00:00:00"


def test_the_header_of_a_file_serves_arrays(site, flats, pixels):
    header = fits.getheader(min((site / "flats").glob("*_rate.fits")))
    found = badpix.find_flat_defects(pixels["flats"], header=header, dq=pixels["dq"])
    np.testing.assert_array_equal(found.image, flats.image)
    assert found.header["USEAFTER"] == flats.header["USEAFTER"]


# --- bad input -------------------------------------------------------------------------------------------

STACK = np.ones((3, 96, 96), np.float32)
RAMPS = np.ones((2, 8, 96, 96), np.float32)
FLAGS = np.zeros(RAMPS.shape, np.uint8)

BAD_FLATS = {
    "no detector": ((STACK,), {}, "detector: found none"),
    "unknown detector": ((STACK,), {"detector": "NRCB9"}, "NRCB9"),
    "no place": ((STACK,), {"detector": "NRCB1"}, "found 96 x 96 pixels, expected 2048 x 2048"),
    "beyond": ((STACK,), {**PLACE, "start": (2000, 1)}, "reaches to"),
    "axes": ((STACK[0],), PLACE, r"rates: found shape \(96, 96\), expected \(n, ny, nx\)"),
    "type": ((STACK.astype(complex),), PLACE, "found numbers of type complex"),
    "text": ((np.full((2, 2, 2), "a"),), PLACE, "found numbers of type <U1"),
    "empty": (([],), {}, "found an empty list"),
    "dq": ((STACK,), {**PLACE, "dq": np.zeros((5, 5), int)}, r"dq: found shape \(5, 5\), expected"),
    "dq type": ((STACK,), {**PLACE, "dq": np.zeros((96, 96))}, "dq: found numbers of type float64"),
    "no file": (("nothing_there.fits",), {}, "no such file"),
    "place of files": (("@list",), {}, "list"),
}
BAD_DARKS = {
    "no flags": ((RAMPS,), {**PLACE, "group_time": 10}, "groupdq: found none"),
    "no time": ((RAMPS,), {**PLACE, "groupdq": FLAGS}, "group_time: found None"),
    "no noise": ((RAMPS,), {**PLACE, "groupdq": FLAGS, "group_time": 10}, "gain, read_noise: found none"),
    "half slopes": (
        (RAMPS,),
        {**PLACE, "groupdq": FLAGS, "group_time": 10, "rates": RAMPS[:, 0]},
        "var_poisson, pedestals: found none",
    ),
    "other flags": ((RAMPS,), {**PLACE, "groupdq": FLAGS[:1], "group_time": 10}, "groupdq: found shape"),
    "axes": ((RAMPS[0],), {**PLACE, "groupdq": FLAGS}, r"expected \(nints, ngroups, ny, nx\)"),
    "dates": (([RAMPS, RAMPS],), {**PLACE, "groupdq": [FLAGS, FLAGS], "dates": [1.0]}, "dates: found 1, expected 2"),
}


@pytest.mark.parametrize("name", BAD_FLATS)
def test_bad_flats_say_what_was_found_and_expected(name):
    given, words, message = BAD_FLATS[name]
    with pytest.raises(badpix.BadpixError, match=message):
        badpix.find_flat_defects(*given, **words)


@pytest.mark.parametrize("name", BAD_DARKS)
def test_bad_darks_say_what_was_found_and_expected(name):
    given, words, message = BAD_DARKS[name]
    with pytest.raises(badpix.BadpixError, match=message):
        badpix.find_dark_defects(*given, **words)


def test_what_belongs_to_arrays_is_refused_beside_files(site):
    with pytest.raises(badpix.UsageError, match="start: belongs to arrays"):
        badpix.find_flat_defects(site / "flats", start=(1, 1))


def test_messages_name_parameters_of_python(site, flats, tmp_path):
    path = badpix.write_mask(flats, tmp_path / "mask.fits")
    with pytest.raises(badpix.UsageError, match="give overwrite=True"):
        badpix.write_mask(flats, path)
    with pytest.raises(badpix.UsageError, match="memory: one row"):
        badpix.find_flat_defects(site / "flats", memory=1.0)
    assert not [note for note in flats.notes if "--" in note]
    with pytest.raises(badpix.UsageError, match="did you mean 'flats'"):
        badpix.score(flats, path, search="flts")


# --- results ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_results_are_frozen_and_say_what_they_hold(flats, darks):
    with pytest.raises(FrozenInstanceError):
        flats.detector = "NRCA1"
    assert repr(flats).startswith("<DefectMask NRCB1 96 x 96: ")
    assert flats.summary()["flags"] == flats.counts
    assert flats.counts["OPEN"] == np.count_nonzero(flats.has("open") & ~flats.reference)
    with pytest.raises(badpix.UsageError, match="did you mean"):
        flats.has("HOTT")


def test_every_result_has_a_table_for_notebooks(site, flats, darks):
    (truth,) = site.glob("*_truth.fits")
    y, x = (int(v[0]) for v in np.nonzero(flats.has("DEAD")))
    results = [
        flats,
        darks,
        badpix.check(flats),
        badpix.compare(flats, darks),
        badpix.explain(flats, x, y),
        badpix.score(flats, truth),
    ]
    for result in results:
        text = result._repr_html_()
        assert text.count("<div>") == text.count("</div>") > 0
        assert text.count("<tr>") == text.count("</tr>")
    assert "DEAD" in flats._repr_html_()
    odd = replace(flats, notes=["a < b & c"])
    assert "a &lt; b &amp; c" in odd._repr_html_()


def test_a_changed_mask_is_written_with_its_reason(flats, tmp_path):
    image = flats.image.copy()
    image[40, 41] |= 1
    path = badpix.write_mask(replace(flats, image=image), tmp_path / "mask.fits", history="pixel (41, 40) by hand")
    again = badpix.read_mask(path)
    np.testing.assert_array_equal(again.image, image)
    assert again.history[-1] == "pixel (41, 40) by hand"
    copy = badpix.write_mask(again, tmp_path / "copy" / "mask.fits")
    assert copy.read_bytes() == path.read_bytes()


# --- outliers --------------------------------------------------------------------------------------------


def assert_same_pixels(one, two):
    for name in ("SCI", "DQ"):
        np.testing.assert_array_equal(fits.getdata(one, name), fits.getdata(two, name), name)


@pytest.mark.slow
def test_flag_ifu_writes_what_the_command_writes(tmp_path):
    table = write_association(tmp_path / "sim", detectors=["NRS1"], exposures=3, seed=7, shape=(120, 130))
    p = badpix.IfuSettings(max_flagged=100)
    found = badpix.flag_ifu(table, tmp_path / "ours", p)
    words = ["ifu", str(table), "-q", "--max-flagged", "100", "--output-dir", str(tmp_path / "theirs")]
    done = CliRunner().invoke(main.outlier, words)
    assert done.exit_code == 0, done.output
    assert len(found.outputs) == len(found.exposures) == 3
    for path in found.outputs:
        assert_same_pixels(path, tmp_path / "theirs" / path.name)
    assert found.exposures[0]["newly_unusable"] > 0
    assert "3 exposures, 3 files written" in found._repr_html_()
    with pytest.raises(badpix.UsageError, match="overwrite=True"):
        badpix.flag_ifu(table, tmp_path / "ours", p)
    with pytest.raises(badpix.UsageError, match="empty list"):
        badpix.flag_ifu([], tmp_path / "ours", p)


@pytest.mark.slow
def test_flag_image_writes_what_the_command_writes(tmp_path):
    setup = Setup(seed=51, shape=(128, 144), stars=1500.0, galaxies=50.0, dither=10.0)
    table = simulate_image(tmp_path / "sim", setup)
    found = badpix.flag_image(table, tmp_path / "ours")
    done = CliRunner().invoke(main.outlier, ["image", str(table), "-q", "--output-dir", str(tmp_path / "theirs")])
    assert done.exit_code == 0, done.output
    for path in found.outputs:
        assert_same_pixels(path, tmp_path / "theirs" / path.name)
    assert "newly unusable" in found._repr_html_()


# --- the package -----------------------------------------------------------------------------------------


def test_public_names_are_there_and_documented():
    assert set(badpix.__all__) == set(badpix._PLACES)
    assert set(badpix.__all__) <= set(dir(badpix))
    for name in badpix.__all__:
        assert getattr(badpix, name).__doc__, name
    assert (ROOT / "badpix" / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'find_nothing'"):
        badpix.find_nothing  # noqa: B018


def test_names_for_type_checkers_are_those_that_are_imported():
    text = (ROOT / "badpix" / "__init__.py").read_text(encoding="utf-8")
    block = text[text.index("if TYPE_CHECKING") : text.index("__all__ = ")]
    seen = {}
    for module, names in re.findall(r"from badpix\.([\w.]+) import ([^\n]+)", block):
        seen |= dict.fromkeys(names.split(", "), module)
    assert seen == badpix._PLACES


def test_importing_is_light():
    """Nothing heavy, and below 30 ms; the smallest of several runs, since the machine may be busy."""
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); t = time.process_time(); import badpix; "
        "print(time.process_time() - t, 'numpy' in sys.modules, 'badpix.api' in sys.modules)"
    )
    runs = [
        subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        for _ in range(5)
    ]
    words = [run.stdout.split() for run in runs]
    assert min(float(w[0]) for w in words) < 0.03
    assert words[0][1:] == ["False", "False"]
