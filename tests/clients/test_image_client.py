"""The JWST pipeline's own outlier step on the same images: flags and NaN equal; its steps read our files."""

import logging
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from badpix.image import driver as image_driver
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

ARRAYS = ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT")
SMALL = {"shape": (300, 320), "stars": 2000.0, "dither": 12.0}
ALLOWED = 0.5e-6  # of the pixels may differ


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Four groups of one detector."""
    return simulate(tmp_path_factory.mktemp("single"), Setup(seed=31, **SMALL))


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    """Three groups of two detectors, rolled against each other."""
    return simulate(
        tmp_path_factory.mktemp("double"),
        Setup(seed=32, groups=3, detectors=("NRCB1", "NRCB2"), roll_step=0.7, **SMALL),
    )


def run_peer(table, output, monkeypatch, **options):
    """The step, offline."""
    monkeypatch.setenv("CRDS_SERVER_URL", "")
    from jwst.datamodels import ModelLibrary
    from jwst.outlier_detection import OutlierDetectionStep

    output.mkdir()
    monkeypatch.chdir(output)
    step = OutlierDetectionStep()
    step.save_results, step.output_dir, step.suffix = True, str(output), "crf"
    step.search_output_file = False
    for name, value in options.items():
        setattr(step, name, value)
    logging.disable(logging.WARNING)
    try:
        step.run(ModelLibrary(str(table), on_disk=not options.get("in_memory", True)))
    finally:
        logging.disable(logging.NOTSET)


def run_ours(table, output, parameter_set="documented", **options):
    """Our driver; returns the summary."""
    p = ImageSettings.from_values(options, "test", parameter_set)
    return image_driver.flag_images(read_inputs([table]), p, output)[1]


def count_differences(ours, theirs):
    """Pixels whose DQ or NaN differ, and pixels compared."""
    names = sorted(p.name for p in Path(ours).glob("*_crf.fits"))
    assert names
    assert names == sorted(p.name for p in Path(theirs).glob("*_crf.fits"))
    different = total = flagged = 0
    for name in names:
        with fits.open(ours / name) as a, fits.open(theirs / name) as b:
            bad = a["DQ"].data != b["DQ"].data
            for extension in ARRAYS:
                bad |= np.isnan(a[extension].data) != np.isnan(b[extension].data)
            different, total = different + int(bad.sum()), total + bad.size
            flagged += int(((a["DQ"].data & 16) != 0).sum())
            for keyword in ("S_OUTLIR", "ASNPOOL", "ASNTABLE", "FILENAME"):
                assert a[0].header.get(keyword) == b[0].header.get(keyword)
    assert flagged > 100
    return different, total


@pytest.mark.parametrize(
    ("which", "options"),
    [
        ("single", {}),
        ("single", {"in_memory": False}),
        ("single", {"kernel": "turbo", "pixfrac": 0.6}),
        ("single", {"kernel": "point", "maskpt": 0.3}),
        ("single", {"weight_type": "exptime", "good_bits": "0"}),
        ("single", {"resample_data": False}),
        ("single", {"snr": "4.0 3.0", "scale": "0.9 0.5", "pixmap_stepsize": 20, "pixmap_order": 3}),
        ("double", {}),
        ("double", {"in_memory": False, "pixfrac": 0.8, "good_bits": "~DO_NOT_USE+JUMP_DET"}),
    ],
)
def test_same_flags_as_the_pipeline(which, options, request, tmp_path, monkeypatch):
    table = request.getfixturevalue(which)
    run_peer(table, tmp_path / "theirs", monkeypatch, **options)
    run_ours(table, tmp_path / "ours", **options)
    different, total = count_differences(tmp_path / "ours", tmp_path / "theirs")
    assert different <= ALLOWED * total


def test_intermediate_products_hold_the_same_values(single, tmp_path, monkeypatch):
    run_peer(single, tmp_path / "theirs", monkeypatch, save_intermediate_results=True)
    run_ours(single, tmp_path / "ours", save_intermediate_results=True)
    theirs = {p.name for p in (tmp_path / "theirs").iterdir()}
    assert {p.name for p in (tmp_path / "ours").iterdir()} == theirs
    compared = 0
    for name in sorted(theirs):
        if name.endswith(("_i2d.fits", "_median.fits", "_blot.fits")):
            with fits.open(tmp_path / "ours" / name) as a, fits.open(tmp_path / "theirs" / name) as b:
                # both round positions to float32: a rounding to the other side moves a steep model by this
                np.testing.assert_allclose(a["SCI"].data, b["SCI"].data, rtol=2e-5, atol=5e-5)
                if name.endswith("_i2d.fits"):
                    np.testing.assert_allclose(a["WHT"].data, b["WHT"].data, rtol=1e-5, atol=0.01)  # of 5000
                    for keyword in ("CRPIX1", "CRVAL1", "CRVAL2", "PC1_1", "PC2_1", "CDELT1"):
                        assert a["SCI"].header[keyword] == pytest.approx(b["SCI"].header[keyword], rel=1e-9)
                    assert a[0].header["S_RESAMP"] == b[0].header["S_RESAMP"] == "COMPLETE"
                compared += 1
    assert compared == 9


@pytest.mark.parametrize("parameter_set", ["default", "documented"])
def test_files_written_by_the_pipeline_go_through_and_back(double, tmp_path, monkeypatch, parameter_set):
    """Inputs saved by the data models; outputs opened, checked for their GWCS, and resampled by the real step."""
    monkeypatch.setenv("CRDS_SERVER_URL", "")
    from jwst.resample import ResampleStep
    from stdatamodels.jwst import datamodels

    rewritten = tmp_path / "real"
    rewritten.mkdir()
    for path in sorted(double.parent.glob("*_cal.fits")):
        with datamodels.open(path) as model:
            model.save(rewritten / path.name)
    (rewritten / double.name).write_text(double.read_text())
    run_ours(rewritten / double.name, tmp_path / "ours", parameter_set)
    outputs = sorted((tmp_path / "ours").glob("*_crf.fits"))
    assert len(outputs) == 6
    for path in outputs:
        cal = rewritten / path.name.replace("_a3001_crf", "_cal")
        with datamodels.open(path) as model, datamodels.open(cal) as source:
            assert isinstance(model, datamodels.ImageModel)
            assert model.meta.cal_step.outlier_detection == "COMPLETE"
            assert model.meta.asn.table_name == double.name
            np.testing.assert_array_equal(model.meta.wcs(10.5, 20.5), source.meta.wcs(10.5, 20.5))
    table = tmp_path / "ours" / "crf_asn.json"
    table.write_text(double.read_text().replace("_cal.fits", "_a3001_crf.fits"))
    step = ResampleStep()
    step.save_results = False
    mosaic = step.run(str(table))
    assert mosaic.meta.cal_step.resample == "COMPLETE"
    assert np.isfinite(mosaic.data).mean() > 0.5
