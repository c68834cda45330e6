"""The JWST pipeline's own outlier step on the same files: DQ, NaN and values equal, pixel by pixel; its models open
our files, GWCS included."""

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from badpix.ifu import driver as ifu_driver
from badpix.io.associations import read_inputs
from badpix.settings.ifu import IfuSettings
from badpix.simulation.ifu_files import write_association
from badpix.simulation.ifu_scene import Sky

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

SIZE = (200, 220)
ROOT = Path(__file__).parents[2]
ARRAYS = ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT")


def _peer(inputs, output, monkeypatch, **options):
    """The step, offline: `run` asks CRDS for nothing."""
    monkeypatch.setenv("CRDS_SERVER_URL", "")
    from jwst.outlier_detection import OutlierDetectionStep

    logging.disable(logging.WARNING)
    output.mkdir()
    step = OutlierDetectionStep()
    step.save_results, step.output_dir, step.suffix = True, str(output), "crf"
    for name, value in options.items():
        setattr(step, name, value)
    try:
        step.run(inputs)
    finally:
        logging.disable(logging.NOTSET)


def _ours(inputs, output, **options):
    values = {"max_flagged": 100, **options}
    p = IfuSettings.from_values(values, "test", "documented")
    ifu_driver.flag_association(read_inputs(inputs), p, output)


def _assert_equal(ours, theirs):
    names = sorted(p.name for p in ours.glob("*_crf.fits"))
    assert names == sorted(p.name for p in theirs.glob("*_crf.fits"))
    assert names
    for name in names:
        with fits.open(ours / name) as a, fits.open(theirs / name) as b:
            np.testing.assert_array_equal(a["DQ"].data, b["DQ"].data)
            for extension in ARRAYS:
                np.testing.assert_array_equal(a[extension].data, b[extension].data)
            for keyword in ("S_OUTLIR", "ASNPOOL", "ASNTABLE", "FILENAME"):
                assert a[0].header.get(keyword) == b[0].header.get(keyword)


def _spoil(path):
    """NaN and flags that real files have: in single arrays, in DQ alone, beside the frame's edge."""
    with fits.open(path, mode="update") as hdus:
        rng = np.random.default_rng(len(path.name))
        shape = hdus["SCI"].data.shape
        for name in ARRAYS:
            hdus[name].data[rng.random(shape) < 0.002] = np.nan
        for bit in (1, 4, 1 << 9, 1 << 31):
            hdus["DQ"].data[rng.random(shape) < 0.003] |= np.uint32(bit)
        hdus["SCI"].data[0, :9] = np.nan


@pytest.mark.parametrize(
    ("detectors", "exposures", "options"),
    [
        (["MIRIFUSHORT", "MIRIFULONG"], 3, {}),
        (["MIRIFULONG"], 2, {"kernel_size": "4 9", "threshold_percent": 95.5, "ifu_second_check": True}),
        (["NRS1", "NRS2"], 2, {}),
        (["NRS2"], 4, {"ifu_second_check": True}),
        (["NRS1", "NRS2"], 1, {"kernel_size": "3 5"}),  # a single exposure of each detector
    ],
)
def test_equal_to_the_pipeline(tmp_path, monkeypatch, detectors, exposures, options):
    table = write_association(tmp_path / "in", detectors=detectors, exposures=exposures, seed=3, shape=SIZE)
    for path in table.parent.glob("*_cal.fits"):
        _spoil(path)
    _peer(str(table), tmp_path / "peer", monkeypatch, **options)
    _ours([table], tmp_path / "ours", **options)
    _assert_equal(tmp_path / "ours", tmp_path / "peer")


def test_intermediate_product_equal_to_the_pipeline(tmp_path, monkeypatch):
    table = write_association(tmp_path / "in", detectors=["NRS1", "NRS2"], exposures=2, seed=4, shape=SIZE)
    for path in table.parent.glob("*_cal.fits"):
        _spoil(path)
    _peer(str(table), tmp_path / "peer", monkeypatch, save_intermediate_results=True)
    _ours([table], tmp_path / "ours", save_intermediate_results=True)
    names = sorted(p.name for p in (tmp_path / "ours").glob("*_outlier_output.fits"))
    assert names == sorted(p.name for p in (tmp_path / "peer").glob("*_outlier_output.fits"))
    assert len(names) == 2
    for name in names:
        with fits.open(tmp_path / "ours" / name) as a, fits.open(tmp_path / "peer" / name) as b:
            for extension in ("DIFFARR", "MINARR", "NORMARR", "MINNORM"):
                np.testing.assert_array_equal(a[extension].data, b[extension].data)
            for keyword in ("KERNXSZ", "KERNYSZ", "THRSPRC", "DATAMODL", "FILENAME", "EXPOSURE", "DETECTOR"):
                assert a[0].header[keyword] == b[0].header[keyword]
        from stdatamodels.jwst import datamodels

        with datamodels.open(tmp_path / "ours" / name) as model:
            assert type(model).__name__ == "OutlierIFUOutputModel"


def test_the_pipelines_models_open_our_files(tmp_path):
    from stdatamodels.jwst import datamodels

    table = write_association(tmp_path / "in", detectors=["MIRIFUSHORT"], exposures=2, seed=5, shape=SIZE)
    _ours([table], tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        source = table.parent / path.name.replace("_a3001_crf", "_cal")
        with datamodels.open(path) as model, datamodels.open(source) as before:
            assert type(model).__name__ == "IFUImageModel"
            assert model.meta.cal_step.outlier_detection == "COMPLETE"
            assert model.meta.cal_step.flat_field == "COMPLETE"
            assert model.meta.asn.table_name == table.name
            assert model.meta.asn.exptype == "science"
            assert model.meta.filename == path.name
            place = (100.0, 100.0)
            assert np.isfinite(before.meta.wcs(*place)).all()
            np.testing.assert_array_equal(model.meta.wcs(*place), before.meta.wcs(*place))
            assert model.dq.dtype == np.uint32
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.validate()
            model.save(tmp_path / f"again_{path.name}")
        with fits.open(path) as a, fits.open(tmp_path / f"again_{path.name}") as b:
            np.testing.assert_array_equal(a["DQ"].data, b["DQ"].data)


def test_real_nods(real_data, tmp_path, monkeypatch):
    """Three real NIRSpec nods (slit cut-outs, called IFU exposures here) through both."""
    folder = tmp_path / "in"
    folder.mkdir()
    paths = []
    for path in sorted((real_data / "gbrammer+msaexp").glob("*_phot.*.fits")):
        copy = Path(shutil.copy(path, folder / path.name.split("_phot")[0])).rename(
            folder / f"{path.name.split('_phot')[0]}_cal.fits"
        )
        copy.chmod(0o644)
        with fits.open(copy, mode="update") as hdus:
            hdus[0].header["EXP_TYPE"] = "NRS_IFU"
            hdus[0].header["DATAMODL"] = "IFUImageModel"
        paths.append(copy)
    assert len(paths) == 3
    _peer([str(p) for p in paths], tmp_path / "peer", monkeypatch)
    _ours(paths, tmp_path / "ours")
    _assert_equal(tmp_path / "ours", tmp_path / "peer")
    p = IfuSettings.from_values({}, "test")
    summary = ifu_driver.flag_association(read_inputs(paths), p, tmp_path / "better")
    assert all(row["newly_unusable_percent"] < 5 for row in summary["exposures"])
    from stdatamodels.jwst import datamodels

    with datamodels.open(next((tmp_path / "better").iterdir())) as model:
        assert len(model.meta.wcs(10.0, 10.0)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "instrument", "shape"), [("MIRIFUSHORT", "miri", (120, 1032)), ("NRS1", "nirspec", (60, 2048))]
)
def test_cube_build_makes_better_cubes_of_our_files(tmp_path, monkeypatch, detector, instrument, shape):
    """The pipeline's next step, slices by the GWCS: most of what defects did to the cube is gone."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("CRDS_SERVER_URL", "")
    import score_cube

    table = write_association(tmp_path / "in", detectors=[detector], exposures=4, seed=6, shape=shape)
    pars = score_cube.write_cubepars(instrument, tmp_path / "cubepars.fits", shape[0])
    without = score_cube.rewrite(
        table, tmp_path / "clean", lambda c, h: score_cube.remove_defects(c, h, Sky().poisson)
    )
    sets = {name: score_cube.prepare(table, name, tmp_path / name) for name in ("none", "default")}
    clean, before, after = (score_cube.build_cube(paths, instrument, pars) for paths in (without, *sets.values()))
    worse, better = score_cube.score(before, clean), score_cube.score(after, clean)
    assert better["wrong"] < worse["wrong"] / 3
    assert better["planes"] < worse["planes"]
    assert better["empty"] < 0.5
