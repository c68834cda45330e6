"""badpix prepare with the real pipeline: simulated raw ramps, offline, NIRCam and MIRI."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from badpix.errors import DataError, UsageError
from badpix.prepare import driver as prepare_driver
from badpix.prepare import worker as prepare_worker
from badpix.settings.prepare import PrepareSettings
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.detector import make_scene
from badpix.simulation.files import make_recipe, simulate
from badpix.simulation.reference_files import write_reference_files

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore"),  # what the clients warn of is theirs
]
pytest.importorskip("jwst", reason="jwst is not installed")

PRODUCTS = ["rate", "rateints", "jump", "fitopt"]


def make(folder, **values):
    values = {
        "size": [64, 64],
        "flats": 1,
        "darks": 1,
        "dark_groups": 12,
        "flat_groups": 6,
        "flat_products": ["uncal"],
        "dark_products": ["uncal"],
        **values,
    }
    p = SimulateSettings.from_values(values, "test")
    return make_recipe(p), simulate(folder, p)


@pytest.fixture
def here(monkeypatch):
    """Where to run instead of worker processes, each of which would import the pipeline anew."""
    for name in ("CRDS_SERVER_URL", "STPIPE_DISABLE_CRDS_STEPPARS"):  # set by the worker, and put back afterwards
        monkeypatch.setenv(name, "")
    with ThreadPoolExecutor(1) as executor:
        yield executor


def checked(**values):
    return PrepareSettings.from_values(values, "test")


@pytest.mark.parametrize(("detector", "groups"), [("NRCB1", 12), ("MIRIMAGE", 15)])
def test_the_pipeline_gives_what_its_steps_give_one_by_one(tmp_path, here, detector, groups):
    from reduce import reduce_exposure

    recipe, written = make(tmp_path / "sim", detector=detector, dark_groups=groups)
    place = None if detector == "MIRIMAGE" else here  # once in processes of its own, as for users
    found = prepare_driver.prepare_all(
        [*written["flats"], *written["darks"]], checked(), tmp_path / "out", executor=place
    )
    assert {name: len(paths) for name, paths in found.products.items()} == dict.fromkeys(PRODUCTS, 2)
    assert all(record["references"] == "simulation" for record in found.records)
    assert all(record["context_used"] == "N/A" for record in found.records)

    aside = tmp_path / "steps"
    aside.mkdir()
    uncal = Path(shutil.copy(written["darks"][0], aside))
    references = write_reference_files(tmp_path / "references", make_scene(recipe))
    theirs = reduce_exposure(uncal, references, recipe, PRODUCTS)
    for name, extensions in {
        "rate": ("SCI", "ERR", "DQ"),
        "rateints": ("SCI", "DQ"),
        "jump": ("SCI", "GROUPDQ"),
        "fitopt": ("PEDESTAL",),
    }.items():
        ours = tmp_path / "out" / theirs[name].name
        for extension in extensions:
            expected = fits.getdata(theirs[name], extension)
            np.testing.assert_array_equal(fits.getdata(ours, extension), expected, f"{name} {extension}")


def test_a_pixel_of_the_mask_in_use_is_judged_anew(tmp_path, here):
    recipe, written = make(tmp_path / "sim", flats=0)
    references = write_reference_files(tmp_path / "references", make_scene(recipe))
    with fits.open(references["mask"], mode="update") as hdus:
        hdus["DQ"].data[20, 21] = 1 | 2**11
    named = {f"override_{k}": str(v) for k, v in references.items()}
    slope = {}
    for known_flags in ("clear", "keep"):
        p = checked(references="simulation", known_flags=known_flags, products=["dq_init", "jump", "rate"], **named)
        found = prepare_driver.prepare_all(written["darks"], p, tmp_path / known_flags, executor=here)
        slope[known_flags] = fits.getdata(found.products["rate"][0], "SCI")[20, 21]
        assert fits.getdata(found.products["dq_init"][0], "PIXELDQ")[20, 21] == 1 | 2**11
        border = fits.getdata(found.products["jump"][0], "PIXELDQ")[0]
        assert np.all(border & 2**31)
    assert np.isfinite(slope["clear"])
    assert np.isnan(slope["keep"])


def test_step_parameters_arrive(tmp_path, here):
    _, written = make(tmp_path / "sim", flats=0, cosmic_rays=100.0)
    flags = {}
    for threshold in (4.0, 50.0):
        p = checked(steps={"jump": {"rejection_threshold": threshold}}, products=["jump"])
        found = prepare_driver.prepare_all(written["darks"], p, tmp_path / f"out{threshold}", executor=here)
        flags[threshold] = np.count_nonzero(fits.getdata(found.products["jump"][0], "GROUPDQ") & 4)
    assert flags[4.0] > 1.5 * flags[50.0] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "jump.rejection_treshold=5"}, "did you mean 'rejection_threshold'"),
        ({"steps": "jmup.rejection_threshold=5"}, "no step 'jmup'; did you mean 'jump'"),
        ({"skip": "refpx"}, "no step 'refpx'; did you mean 'refpix'"),
    ],
)
def test_unknown_steps_and_parameters_are_refused_before_the_work(tmp_path, here, values, message):
    _, written = make(tmp_path / "sim", flats=0)
    with pytest.raises(UsageError, match=message):
        prepare_driver.prepare_all(written["darks"], checked(**values), tmp_path / "out", executor=here)


def test_a_failing_pipeline_comes_back_as_text_and_log(tmp_path):
    _, written = make(tmp_path / "sim", flats=0)
    job = prepare_worker.Job(written["darks"][0], tmp_path, ("rate",), {"gain": "missing.fits"})
    outcome = prepare_worker.run_exposure(job)
    assert "the pipeline failed" in outcome.error
    assert "Traceback" in (tmp_path / f"{job.root}_prepare.log").read_text()
    assert not any(h for h in logging.getLogger("jwst").handlers if isinstance(h, logging.FileHandler))


def test_the_optional_results_keep_the_segments_that_are_wanted(tmp_path, here):
    _, written = make(tmp_path / "sim", flats=0, cosmic_rays=1000.0, dark_groups=25)
    shapes = {}
    for keep in ("2", "none"):
        p = checked(fitopt_segments=keep, products=["fitopt", "rate"])
        found = prepare_driver.prepare_all(written["darks"], p, tmp_path / f"out{keep}", executor=here)
        (fitopt,) = found.products["fitopt"]
        with fits.open(fitopt) as hdus:
            shapes[keep] = hdus["SLOPE"].shape, hdus["PEDESTAL"].data.copy()
    assert shapes["2"][0][1] == 2
    assert shapes["none"][0][1] > 2
    np.testing.assert_array_equal(shapes["2"][1], shapes["none"][1])


def with_asdf(uncal, folder):
    """The raw file as the archive has it, with an ASDF extension."""
    from stdatamodels.jwst import datamodels

    folder.mkdir()
    with datamodels.Level1bModel(str(uncal)) as model:
        model.save(str(folder / uncal.name))
    return folder / uncal.name


def test_references_and_context_of_a_crds_cache_without_a_server(tmp_path, monkeypatch):
    from crds_cache import make_cache, set_context
    from jwst.pipeline import Detector1Pipeline

    recipe, written = make(tmp_path / "sim", detector="NRCB1", flats=0)
    uncal = with_asdf(written["darks"][0], tmp_path / "raw")
    references = write_reference_files(tmp_path / "references", make_scene(recipe))
    classes = [Detector1Pipeline, *Detector1Pipeline.step_defs.values()]
    kinds = [kind for step in classes[1:] for kind in step.reference_file_types]
    kinds += [f"pars-{step.__name__.lower()}" for step in classes]
    cache = make_cache(tmp_path / "crds", references, kinds, "NRCB1", "nircam")
    monkeypatch.setenv("CRDS_PATH", str(cache))
    monkeypatch.setenv("CRDS_SERVER_URL", prepare_worker.NOWHERE)
    monkeypatch.delenv("STPIPE_DISABLE_CRDS_STEPPARS", raising=False)

    p = checked(references="crds", products=["jump", "rate", "rateints", "fitopt"])
    found = prepare_driver.prepare_all([uncal], p, tmp_path / "out")
    (record,) = found.records
    assert record["context"] == record["context_used"] == "jwst_0001.pmap"
    assert record["reference_files"]["gain"] == "jwst_nircam_gain_0001.fits"
    assert record["steps"]["superbias"] == "COMPLETE"
    assert fits.getheader(found.products["rate"][0])["CRDS_CTX"] == "jwst_0001.pmap"
    assert prepare_driver.prepare_all([uncal], p, tmp_path / "out").reused

    set_context(cache, "jwst_0002.pmap")
    with pytest.raises(UsageError, match=r"with another CRDS context \(jwst_0001.pmap then, jwst_0002.pmap now\)"):
        prepare_driver.prepare_all([uncal], p, tmp_path / "out")


def test_no_server_and_no_cache(tmp_path, monkeypatch):
    _, written = make(tmp_path / "sim", flats=0)
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CRDS_SERVER_URL", prepare_worker.NOWHERE)
    with pytest.raises(DataError, match="neither a server nor a cache answers"):
        prepare_driver.prepare_all(written["darks"], checked(references="crds"), tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for orphans in /proc")
def test_killed_in_the_middle_no_orphans_and_the_next_run_goes_on(tmp_path):
    """SIGKILL while workers are at it: they end too, nothing half-made is taken for a product."""
    _, written = make(tmp_path / "sim")
    raws = [str(p) for p in (*written["flats"], *written["darks"])]
    out = tmp_path / "out"
    code = "from badpix.cli.main import badpix; badpix()"
    call = [sys.executable, "-c", code, "prepare", *raws, "--output-dir", str(out), "-q"]
    for rounds in range(2):
        run = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not list(out.glob(".badpix-*")) and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5 * rounds)
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        run.kill()
        run.wait()
        while any(Path(f"/proc/{c}").exists() for c in children) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(Path(f"/proc/{c}").exists() for c in children)
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list(out.glob(".badpix-*"))
    for product in PRODUCTS:
        assert len(list(out.glob(f"*_{product}.fits"))) == 2
    assert prepare_driver.prepare_all([Path(r) for r in raws], checked(), out).done == []
