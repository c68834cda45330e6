"""`outlier ifu` from files to files: both searches, inputs of all kinds, refusals, nothing left behind."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

import badpix
from badpix.cli.main import outlier
from badpix.errors import CheckError, DataError
from badpix.ifu import bands as ifu_bands
from badpix.ifu import driver as ifu_driver
from badpix.ifu import inputs as ifu_inputs
from badpix.ifu import search as ifu_search
from badpix.ifu import significance as ifu_significance
from badpix.ifu.rank import measure_differences, measure_ratio
from badpix.io import cal as io_cal
from badpix.io import flagged_copy
from badpix.io.associations import GROUP_KEYWORDS, read_inputs
from badpix.settings.ifu import IfuSettings
from badpix.simulation.ifu import simulate
from badpix.simulation.ifu_defects import KINDS, Defects
from badpix.simulation.ifu_files import write_association
from badpix.simulation.ifu_scene import FLAT, SCENES
from badpix.simulation.score_ifu import count_rows, score

SIZE = (120, 130)


def _simulate(folder, detectors, exposures=3, seed=7, **options):
    return write_association(folder, detectors=detectors, exposures=exposures, seed=seed, shape=SIZE, **options)


@pytest.fixture(scope="module")
def mrs(tmp_path_factory):
    """An MRS association: 3 exposures of SHORT, 3 of LONG."""
    return _simulate(tmp_path_factory.mktemp("mrs"), ["MIRIFUSHORT", "MIRIFULONG"])


@pytest.fixture(scope="module")
def nirspec(tmp_path_factory):
    """A NIRSpec association: 3 exposures of NRS1."""
    return _simulate(tmp_path_factory.mktemp("nirspec"), ["NRS1"])


def _values(**changed):
    return IfuSettings.from_values({"max_flagged": 100} | changed, "test")


def _run(inputs, output, executor=None, **changed):
    return ifu_driver.flag_association(read_inputs(inputs), _values(**changed), output, executor=executor)


def _call(*words):
    return CliRunner().invoke(outlier, [str(w) for w in words])


def _hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.*"))}


def _flags(path):
    return (fits.getdata(path, "DQ") & 16) > 0


def _usable(path):
    sci, dq = fits.getdata(path, "SCI").astype("f4"), fits.getdata(path, "DQ")
    sci[(dq & 1) > 0] = np.nan
    return sci


# --- the searches ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("which", "axis"), [("mrs", 1), ("nirspec", 0)])
@pytest.mark.parametrize("second", [False, True])
def test_documented_search(which, axis, second, request, tmp_path):
    association = request.getfixturevalue(which)
    before = _hashes(association.parent)
    summary = _run(
        [association], tmp_path, threshold_method="percentile", threshold_percent=97, ifu_second_check=second
    )
    assert _hashes(association.parent) == before
    assert summary["status"] == "COMPLETE"
    for detector in summary["detectors"]:
        paths = sorted(association.parent.glob(f"*{detector.lower()}_cal.fits"))
        smallest = np.fmin.reduce([measure_differences(_usable(p), axis) for p in paths])
        ranked = measure_ratio(smallest, kernel_size=(7, 7), threshold_percent=97)
        expected = (np.nan_to_num(ranked.ratio) > ranked.limit) | (second & np.isnan(smallest))
        for path in paths:
            copy = tmp_path / path.name.replace("_cal", "_a3001_crf")
            np.testing.assert_array_equal(_flags(copy), expected)
            bad = expected | np.isnan(_usable(path)) | np.isnan(fits.getdata(path, "ERR"))
            for name in ("SCI", "ERR", "VAR_FLAT"):
                np.testing.assert_array_equal(np.isnan(fits.getdata(copy, name)), bad)
            np.testing.assert_array_equal((fits.getdata(copy, "DQ") & 1) > 0, bad)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["mrs", "nirspec"])
def test_bands_give_what_the_whole_frame_gives(which, request, tmp_path, monkeypatch):
    association = request.getfixturevalue(which)
    exposures = ifu_inputs.by_detector(ifu_inputs.read_exposures(read_inputs([association])))
    detector, group = next(iter(exposures.items()))
    monkeypatch.setattr(ifu_bands, "_ELEMENTS", 1)  # bands of 16 rows
    found = ifu_search.find_detector(detector, group, _values())
    plan = found.plan
    sci, sigma = ifu_bands._read_band(plan, 0, SIZE[0] if which == "mrs" else SIZE[1])
    whole, untestable, _ = ifu_significance.find_significant(
        sci,
        sigma,
        level=plan.level,
        thresholds=plan.thresholds,
        hit_limit=plan.hit_limit,
        kernel_size=plan.kernel,
        window=plan.window,
        noise=plan.noise,
        across=ifu_inputs.axis_across(group),
        **plan.options,
    )
    assert np.count_nonzero(whole) > 50
    for i in range(len(group)):
        for k, reason in enumerate(ifu_significance.REASONS, start=1):
            np.testing.assert_array_equal(np.flatnonzero(whole[i] == k), found.flagged[i][reason])
    assert found.statistics["untestable"] == [int(u.sum()) for u in untestable]


@pytest.mark.slow
def test_broken_err_gives_the_same_whatever_the_bands(pair, monkeypatch):
    for path in pair:
        with fits.open(path, mode="update") as hdus:
            hdus["ERR"].data[20:90:3, 20:90:3] = np.nan
            hdus["ERR"].data[20:90:7, 20:90:5] = 0
    exposures = ifu_inputs.read_exposures(read_inputs(pair))
    found = []
    for elements in (1, 1 << 21):
        monkeypatch.setattr(ifu_bands, "_ELEMENTS", elements)
        found.append(ifu_search.find_detector("MIRIFUSHORT", exposures, _values(protect_structure=0.0)))
    for a, b in zip(found[0].flagged, found[1].flagged, strict=True):
        for reason in a:
            np.testing.assert_array_equal(a[reason], b[reason])
    assert found[0].flagged[0]["persistent"].size


@pytest.mark.slow
def test_executors_give_the_same_bytes(mrs, tmp_path):
    found = {}
    for name, executor in (("none", None), ("threads", ThreadPoolExecutor(3)), ("processes", ProcessPoolExecutor(2))):
        _run([mrs], tmp_path / name, executor)
        found[name] = [fits.getdata(p, n) for p in sorted((tmp_path / name).iterdir()) for n in ("SCI", "DQ", "ERR")]
        if executor:
            executor.shutdown()
    for name in ("threads", "processes"):
        for a, b in zip(found["none"], found[name], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_significance_search_finds_what_was_injected(tmp_path):
    defects = Defects(
        in_all=0.004, in_some=0.002, cosmic_rays=0, known=0.003, range_all=(30, 60), range_some=(30, 60), negative=0
    )
    association = _simulate(tmp_path / "sim", ["MIRIFUSHORT"], 4, sky=FLAT, slices=False, defects=defects)
    result = _call("ifu", association, "--output-dir", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    scored = json.loads(_call("score-ifu", tmp_path / "sim", tmp_path / "out", "--json").stdout)["score"]
    assert scored["in_all"] == 1.0
    assert scored["in_some"] > 0.95
    assert scored["false_per_million"] < 100


@pytest.mark.slow
def test_both_scores_are_over_the_same_pixels(nirspec, tmp_path):
    ours = _run([nirspec], tmp_path / "ours")
    assert ours["status"] == "COMPLETE"
    _run([nirspec], tmp_path / "documented", threshold_method="percentile")
    a, b = (
        json.loads(_call("score-ifu", nirspec.parent, tmp_path / name, "--json").stdout)["score"]
        for name in ("ours", "documented")
    )
    assert a["in_all"] > b["in_all"]
    assert a["in_some"] > 0.5 > b["in_some"]


# --- inputs and outputs ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_without_an_association_and_other_members(mrs, tmp_path):
    paths = sorted(mrs.parent.glob("*mirifushort_cal.fits"))
    result = _call("ifu", *paths, "-o", tmp_path / "a", "--set", "documented")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir(tmp_path / "a")) == [p.name.replace("_cal", "_crf") for p in paths]

    table = json.loads(mrs.read_text())
    for member in table["products"][0]["members"]:
        member["expname"] = str(mrs.parent / member["expname"])
    table["products"][0]["members"][0]["exptype"] = "BackGround"
    other = tmp_path / "other_asn.json"
    other.write_text(json.dumps(table))
    for words, number in (((), 5), (("--exptype", "science", "--exptype", "background"), 6)):
        folder = tmp_path / f"b{number}"
        assert _call("ifu", other, "-o", folder, *words).exit_code == 0
        assert len(list(folder.iterdir())) == number


@pytest.mark.slow
def test_a_detector_with_one_exposure_and_a_run_with_one(mrs, tmp_path):
    paths = [*sorted(mrs.parent.glob("*mirifushort_cal.fits")), next(mrs.parent.glob("*mirifulong_cal.fits"))]
    result = _call("ifu", *paths, "-o", tmp_path / "mixed", "--set", "documented")
    assert result.exit_code == 0
    assert all(_flags(p).any() for p in (tmp_path / "mixed").iterdir())
    result = _call("ifu", *paths, "-o", tmp_path / "ours")
    assert "a single exposure: searched by its own neighbors alone" in result.stderr
    assert _flags(next((tmp_path / "ours").glob("*mirifulong*"))).any()
    result = _call("ifu", *paths, "-o", tmp_path / "not", "--no-lone-exposure")
    assert "a single exposure: not searched" in result.stderr
    assert not _flags(next((tmp_path / "not").glob("*mirifulong*"))).any()


@pytest.mark.parametrize("words", [["--set", "documented"], ["--no-lone-exposure"]])
def test_one_exposure_is_copied_where_it_is_not_searched(mrs, tmp_path, words):
    path = next(mrs.parent.glob("*mirifushort_cal.fits"))
    result = _call("ifu", path, "-o", tmp_path, *words)
    assert result.exit_code == 0
    assert "copied as it is" in result.stderr
    copy = next(tmp_path.iterdir())
    assert fits.getheader(copy)["S_OUTLIR"] == "SKIPPED"
    for name in ("SCI", "DQ", "ERR"):
        np.testing.assert_array_equal(fits.getdata(copy, name), fits.getdata(path, name))


def test_the_searched_share_is_that_of_the_whole_frame(tmp_path, monkeypatch):
    table = _simulate(tmp_path, ["MIRIFUSHORT"], exposures=1)
    found = []
    for elements in (1 << 21, 1):
        monkeypatch.setattr(ifu_bands, "_ELEMENTS", elements)
        (detector,) = ifu_driver.flag_association(read_inputs([table]), _values(), None)["detectors"].values()
        found.append(detector)
    assert found[0] == found[1]


def test_one_exposure_is_searched_for_what_is_certain(tmp_path):
    table = _simulate(tmp_path / "sim", ["MIRIFUSHORT"], exposures=1, defects=Defects(in_all=0.01, cosmic_rays=0))
    result = _call("ifu", table, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert 50 < told["detectors"]["MIRIFUSHORT"]["searched_percent"] < 100
    found = score(sorted(table.parent.glob("*_cal.fits")), tmp_path / "out", table.parent / "truth")
    assert found["in_all_strong"] > 0.7
    assert found["false_per_million"] == 0
    assert fits.getheader(next((tmp_path / "out").iterdir()))["S_OUTLIR"] == "COMPLETE"


def test_header_says_what_was_done(mrs, tmp_path):
    assert _call("ifu", mrs, "-o", tmp_path, "--false-alarm", "3e-6").exit_code == 0
    header = fits.getheader(next(tmp_path.iterdir()))
    text = "\n".join(str(line) for line in header["HISTORY"])
    assert "ifu.false_alarm = 3e-06" in text
    assert badpix.__version__ in text
    assert header["ASNTABLE"] == mrs.name


def test_report(pair, tmp_path):
    report = tmp_path / "run.json"
    assert _call("ifu", *pair, "-o", tmp_path / "out", "--report", report).exit_code == 0
    whole = json.loads(report.read_text())
    for entry, path in zip(whole["inputs"], pair, strict=True):
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert whole["parameters"]["threshold_method"] == "false_alarm"
    result = _call("ifu", *pair, "-o", tmp_path / "out2", "--report", report)
    assert result.exit_code == 2
    assert not (tmp_path / "out2").exists()


def test_intermediate_product(mrs, tmp_path):
    result = _call(
        "ifu", mrs, "-o", tmp_path, "--set", "documented", "--save-intermediate-results", "--kernel_size", "6 5"
    )
    assert result.exit_code == 0, result.output
    first = json.loads(mrs.read_text())["products"][0]["members"][0]["expname"].removesuffix("_cal.fits")
    for detector in ("mirifushort", "mirifulong"):
        path = tmp_path / f"{first}_a3001_{detector}_outlier_output.fits"
        frames = [_usable(p) for p in sorted(mrs.parent.glob(f"*{detector}_cal.fits"))]
        each = np.array([measure_differences(f, 1) for f in frames])
        smallest = np.fmin.reduce(each)
        ranked = measure_ratio(smallest, kernel_size=(7, 5), threshold_percent=99.8, everywhere=True)
        with fits.open(path) as hdus:
            hdus.verify("exception")
            expected = {"DIFFARR": each, "MINARR": smallest, "NORMARR": ranked.normal, "MINNORM": ranked.ratio}
            assert [h.name for h in hdus[1:]] == list(expected)
            for name, values in expected.items():
                np.testing.assert_array_equal(hdus[name].data, values.astype("f4"))
            assert (hdus[0].header["KERNXSZ"], hdus[0].header["KERNYSZ"]) == (7, 5)
            assert hdus[0].header["THRSPRC"] == 99.8


@pytest.mark.slow
def test_pictures(mrs, tmp_path):
    for name in ("default", "documented"):
        result = _call("ifu", mrs, "-o", tmp_path / name, "--plot", tmp_path / f"{name}_plots", "--set", name)
        assert result.exit_code == 0, result.output
        pictures = sorted((tmp_path / f"{name}_plots").iterdir())
        assert len(pictures) == 2
        assert all(p.read_bytes()[:4] == b"\x89PNG" for p in pictures)


@pytest.mark.parametrize(
    ("workers", "size", "least"), [(1, "90M", "101M for one process"), (2, "200M", "282M for 2")]
)
def test_memory_that_can_not_be_kept_is_refused(mrs, tmp_path, workers, size, least):
    result = _call("ifu", mrs, "-o", tmp_path / "out", "--workers", workers, "--max-memory", size)
    assert result.exit_code == 2
    assert f"--max-memory: found {size}, expected at least {least}" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_summary_by_reason_and_slice(mrs, tmp_path):
    result = _call("ifu", mrs, "-o", tmp_path, "--json", "--max-memory", "101M")
    summary = json.loads(result.stdout)
    assert len(summary["exposures"]) == 6
    for row in summary["exposures"]:
        flagged = _flags(tmp_path / Path(row["input"]).name.replace("_cal", "_a3001_crf"))
        assert sum(row["flagged"].values()) == sum(row["by_slice"]) == flagged.sum()
        assert len(row["by_slice"]) > 3
    assert summary["parameters"]["false_alarm"] == 1e-5
    again = json.loads(_call("ifu", mrs, "-o", tmp_path, "--overwrite", "--json").stdout)
    assert again["exposures"] == summary["exposures"]  # whatever the memory
    quiet = _call("ifu", mrs, "-o", tmp_path, "--overwrite", "-v")
    assert "flagged in slices" in quiet.stderr
    assert quiet.stdout.split() == summary["outputs"]


# --- refusals --------------------------------------------------------------------------------------------


@pytest.fixture
def pair(mrs, tmp_path):
    """Two exposures that may be spoilt."""
    folder = tmp_path / "in"
    folder.mkdir()
    return [Path(shutil.copy(p, folder)) for p in sorted(mrs.parent.glob("*mirifushort_cal.fits"))[:2]]


def _set_all_nan(path):
    with fits.open(path, mode="update") as hdus:
        hdus["SCI"].data[:] = np.nan


def _cut(path):
    path.write_bytes(path.read_bytes()[:-9000])


def _cut_in_a_header(path):
    layout = io_cal.read_layout(path)
    path.write_bytes(path.read_bytes()[: layout.hdus[-1].start + 1000])


def _smaller(path):
    with fits.open(path) as hdus:
        kept = [h if h.name not in ("SCI", "ERR", "DQ") else fits.ImageHDU(h.data[:-1], name=h.name) for h in hdus]
        fits.HDUList([h.copy() for h in kept]).writeto(path, overwrite=True)


def _without(name):
    def change(path):
        with fits.open(path) as hdus:
            fits.HDUList([h.copy() for h in hdus if h.name != name]).writeto(path, overwrite=True)

    return change


@pytest.mark.parametrize("method", ["false_alarm", "percentile"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: fits.setval(p, "INSTRUME", value="NIRSPEC"), "INSTRUME = 'NIRSPEC', expected 'MIRI'"),
        (lambda p: fits.setval(p, "EXP_TYPE", value="MIR_IMAGE"), "EXP_TYPE = 'MIR_IMAGE', expected an IFU"),
        (lambda p: fits.setval(p, "EXP_TYPE", value="NRS_IFU"), "EXP_TYPE = 'NRS_IFU'"),
        (lambda p: fits.delval(p, "DETECTOR"), "no keyword DETECTOR"),
        (_without("DQ"), "no DQ extension"),
        (_without("ERR"), "no ERR extension"),
        (_without("SCI"), "no SCI extension"),
        (_smaller, "has shape"),
        (
            lambda p: fits.setval(p, "BUNIT", ext=1, value="mJy/arcsec^2"),
            "BUNIT of SCI: found mJy/arcsec.2, expected MJy/sr",
        ),
        (_set_all_nan, "no usable pixel"),
        (_cut, "truncated"),
        (_cut_in_a_header, "truncated"),
        (lambda p: p.write_text("nothing"), "not readable as FITS"),
        (lambda p: p.unlink(), "no such file"),
    ],
)
def test_data_at_fault(pair, tmp_path, spoil, message, method):
    spoil(pair[1])
    with pytest.raises(DataError, match=message) as caught:
        _run(pair, tmp_path / "out", threshold_method=method)
    assert pair[1].name in str(caught.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_missing_unit_is_a_note(pair, tmp_path):
    assert "BUNIT" not in _call("ifu", *pair, "-o", tmp_path / "a").stderr
    fits.delval(pair[0], "BUNIT", ext=1)
    result = _call("ifu", *pair, "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert f"note: {pair[0].name}: no BUNIT in SCI; taken to be MJy/sr" in result.stderr
    fits.delval(pair[1], "BUNIT", ext=1)
    assert "BUNIT" not in _call("ifu", *pair, "-o", tmp_path / "c").stderr


def test_an_exposure_given_twice_is_a_note(pair, tmp_path):
    values = dict(zip(GROUP_KEYWORDS, ("01234", "001", "002", "03", "1", "04", "00005"), strict=True))
    for path in pair:
        for key, value in values.items():
            fits.setval(path, key, value=value)
    result = _call("ifu", *pair, "-o", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert (
        f"note: {pair[0].name}, {pair[1].name}: one MIRIFUSHORT and one group, jw01234001002_03104_00005"
        in result.stderr
    )
    fits.setval(pair[1], "EXPOSURE", value="00006")
    assert "one group" not in _call("ifu", *pair, "-o", tmp_path / "b").stderr


def test_flagged_copies_as_inputs_are_a_note(pair, tmp_path):
    assert "S_OUTLIR" not in _call("ifu", *pair, "-o", tmp_path / "a").stderr
    copies = sorted((tmp_path / "a").iterdir())
    result = _call("ifu", *copies, "-o", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert f"note: {copies[0].name}, {copies[1].name}: S_OUTLIR is COMPLETE" in result.stderr


def test_a_second_product_is_a_note(mrs, tmp_path):
    table = json.loads(mrs.read_text())
    for member in table["products"][0]["members"]:
        member["expname"] = str(mrs.parent / member["expname"])
    table["products"] *= 2
    path = tmp_path / "two_asn.json"
    path.write_text(json.dumps(table))
    result = _call("ifu", path, "-o", tmp_path / "out", "--set", "documented")
    assert result.exit_code == 0, result.output
    assert "note: two_asn.json: 2 products; only the members of the first" in result.stderr


def test_calls_at_fault(pair, tmp_path):
    (tmp_path / "file").touch()
    for words, code, message in (
        ((), 2, "no input"),
        ((*pair, pair[0]), 2, "twice"),
        ((*pair, "--false-alarm", "2"), 2, "out of range"),
        ((*pair, "--kernel-size", "7"), 2, "two whole numbers"),
        ((*pair, "--threshold-method", "rank"), 2, "not one of"),
        ((*pair, "-o", tmp_path / "file"), 2, ""),
        ((*pair, "-o", pair[0].parent / "x" / "y"), 0, ""),
    ):
        result = _call("ifu", "-o", tmp_path / "out", *words)
        assert result.exit_code == code, result.output
        assert message in result.output
    assert _call("ifu", *pair).exit_code == 2  # no --output-dir
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


def test_existing_outputs(pair, tmp_path):
    assert _call("ifu", *pair, "-o", tmp_path / "out").exit_code == 0
    before = _hashes(tmp_path / "out")
    result = _call("ifu", *pair, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--overwrite" in result.output
    assert _hashes(tmp_path / "out") == before
    assert _call("ifu", *pair, "-o", tmp_path / "out", "--overwrite").exit_code == 0


def test_an_input_is_never_replaced(pair, tmp_path):
    out = tmp_path / "out"
    _run(pair, out)
    copies = sorted(out.iterdir())
    before = _hashes(out)
    result = _call("ifu", *copies, "-o", out, "--overwrite")  # x_crf -> x_crf
    assert result.exit_code == 2
    assert "input" in result.output
    assert _hashes(out) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_folder(pair, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    result = _call("ifu", *pair, "-o", folder)
    assert result.exit_code == 2
    assert "not writable" in result.output


@pytest.mark.parametrize("words", [("--set", "documented", "--threshold-percent", "80"), ("--false-alarm", "1e-2")])
def test_the_cap_stops_before_anything_is_written(pair, tmp_path, words):
    result = _call("ifu", *pair, "-o", tmp_path / "out", "--max-flagged", "0.1", *words)
    assert result.exit_code == 3
    assert "nothing was written" in result.output
    assert not (tmp_path / "out").exists()  # made for this run, and gone with it
    with pytest.raises(CheckError, match="max_flagged"):
        _run(pair, tmp_path / "out", max_flagged=0.01)


def test_a_failure_while_writing_leaves_nothing(pair, tmp_path, monkeypatch):
    real = flagged_copy.write_copy

    def fail(cal, *args, **options):
        if cal.path == pair[1]:
            raise DataError("the disk is full")
        return real(cal, *args, **options)

    monkeypatch.setattr(flagged_copy, "write_copy", fail)
    with pytest.raises(DataError, match="disk is full"):
        _run(pair, tmp_path / "out")
    assert not os.listdir(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9])
def test_a_killed_run_leaves_whole_files_or_none(pair, tmp_path, delay):
    code = f"import badpix; badpix.__path__.append({str(Path(badpix.__file__).parent.parent)!r}); "
    code += "from badpix.cli.main import outlier; outlier()"
    words = ["ifu", *map(str, pair), "-o", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in (tmp_path / "out").glob("*_crf.fits"):
        if not path.name.startswith("."):
            assert io_cal.read_layout(path).hdus[-1].name == "ASDF"


# --- pointing --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pointings_decide_how_structure_is_protected(pair, tmp_path):
    exposures = ifu_inputs.read_exposures(read_inputs(pair))
    assert ifu_inputs.is_dithered(exposures)
    assert not ifu_inputs.is_dithered(exposures[:1])
    for path in pair:
        fits.setval(path, "XOFFSET", value=0.1)
        fits.setval(path, "YOFFSET", value=0.2)
    exposures = ifu_inputs.read_exposures(read_inputs(pair))
    assert not ifu_inputs.is_dithered(exposures)
    found = ifu_search.find_detector("MIRIFUSHORT", exposures, _values())
    assert any("one pointing" in note for note in found.notes)
    assert found.statistics["protect_structure"] == 0.6
    for path, ra in zip(pair, (10.0, 10.001), strict=True):
        fits.setval(path, "RA_V1", ext=1, value=ra)
        fits.setval(path, "DEC_V1", ext=1, value=-5.0)
    assert ifu_inputs.is_dithered(ifu_inputs.read_exposures(read_inputs(pair)))
    for path in pair:
        for key in ("XOFFSET", "YOFFSET"):
            fits.delval(path, key)
        for key in ("RA_V1", "DEC_V1"):
            fits.delval(path, key, ext=1)
    exposures = ifu_inputs.read_exposures(read_inputs(pair))
    assert ifu_inputs.is_dithered(exposures)  # nobody says
    assert "they are taken as dithered" in "".join(
        ifu_search.find_detector("MIRIFUSHORT", exposures, _values()).notes
    )
    told = ifu_search.find_detector("MIRIFUSHORT", exposures, _values(protect_structure=0.3))
    assert not told.notes


def test_pixels_bad_in_half_of_the_exposures():
    made = simulate("MIRIFULONG", 4, 5, shape=(80, 90), defects=replace(Defects(), in_some=0, in_half=0.01))
    on = np.stack([m.kind & KINDS["in_some"] > 0 for m in made]).sum(axis=0)
    assert set(np.unique(on)) == {0, 2}
    assert 40 < np.count_nonzero(on) < 110
    for scene in ("sharp", "lines", "knots"):
        light = simulate("MIRIFULONG", 1, 5, shape=(80, 90), sky=SCENES[scene])[0].light
        assert light.max() > 10
        assert np.isfinite(light).all()


@pytest.mark.parametrize("across", [1, 0])
def test_rows_that_lose_source_light(across):
    light, inside = np.zeros((6, 40), "f4"), np.ones((6, 40), bool)
    inside[:, 19:21] = False
    light[:, 5:8], light[:, 30] = (20, 100, 20), 0.5  # a slice with a source, one without
    false = np.zeros(light.shape, bool)
    false[2, 6] = false[3, 12] = false[5, 30] = True  # only the first has enough light to lose
    arrays = [a if across == 1 else a.T for a in (false, light, np.full_like(light, 0.3), inside)]
    assert count_rows(*arrays, across) == (1, 6)


@pytest.mark.slow
def test_simulation_is_reproducible_and_has_its_truth(tmp_path):
    one, two = (simulate("NRS2", 2, 5, shape=(60, 70)) for _ in range(2))
    other = simulate("NRS2", 2, 6, shape=(60, 70))
    for a, b, c in zip(one, two, other, strict=True):
        np.testing.assert_array_equal(a.arrays["SCI"], b.arrays["SCI"])
        assert not np.array_equal(a.arrays["SCI"], c.arrays["SCI"], equal_nan=True)
        assert a.arrays["SCI"].shape == (70, 60)
        assert a.arrays["DQ"].dtype == np.uint32
        gap = a.kind & KINDS["in_slice"] == 0
        assert np.isnan(a.arrays["SCI"][gap]).all()
        assert (a.arrays["DQ"][gap] & 1).all()
    quiet = replace(Defects(), in_all=0, in_some=0, cosmic_rays=0, known=0)
    clean = simulate("MIRIFULONG", 1, 5, shape=(60, 70), defects=quiet)[0]
    assert not clean.amplitude.any()
    result = _call(
        "simulate-ifu",
        tmp_path / "s",
        "--size",
        "60 70",
        "--detector",
        "nrs1",
        "--exposures",
        "2",
        "--strength",
        "5 9",
        "--no-dither",
        "--scene",
        "bright",
        "-q",
    )
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "s").glob("*_cal.fits"))) == len(list((tmp_path / "s/truth").iterdir())) == 2
    shapes = set()
    for detector in ("nrs1", "mirifulong"):  # columns and rows, wherever the dispersion runs
        _call(
            "simulate-ifu", tmp_path / detector, "--size", "72 60", "--detector", detector, "--exposures", "2", "-q"
        )
        shapes |= {fits.getdata(path, "SCI").shape for path in (tmp_path / detector).glob("*_cal.fits")}
    assert shapes == {(60, 72)}
    for words in (("--strength", "5"), ("--size", "-1 5"), ("--detector", "nrs3")):
        assert _call("simulate-ifu", tmp_path / "t", *words).exit_code == 2
    assert _call("score-ifu", tmp_path / "s", tmp_path / "s").exit_code == 1
