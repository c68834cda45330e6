"""badpix rebuild from raw exposures; the pipeline is replaced by the simulation's own quick reduction."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from checkout import Inline

from badpix.errors import DataError, UsageError
from badpix.prepare import driver as prepare_driver
from badpix.prepare import worker as prepare_worker
from badpix.prepare.worker import Outcome
from badpix.rebuild import driver as rebuild_driver
from badpix.rebuild import jobs, plan, shelf
from badpix.rebuild.searches import Options
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate

YAML = """
detector: NRCB1
reference: {author: Somebody, pedigree: SIMULATION, useafter: "2026-01-01T00:00:00"}
flats: {inputs: {raw: "raw/flats/*_uncal.fits"}}
darks: {inputs: {raw: "raw/darks/*_uncal.fits"}}
output: "masks/nrcb1_mask.fits"
check: {max_percent: {OPEN: 20, ADJ_OPEN: 20, LOW_QE: 20}, max_unusable_percent: 60, min_jump_percent: 5}
rebuild: {settle: 0, report: false, evidence: false}
"""


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """Raw exposures with their quick products beside them."""
    place = tmp_path_factory.mktemp("reduced")
    products = ["uncal", "rateints", "jump", "fitopt"]
    given = {
        "detector": "NRCB1",
        "size": (64, 64),
        "flats": 4,
        "darks": 5,
        "dark_groups": 12,
        "seed": 5,
        "flat_products": products[:2],
        "dark_products": products,
    }
    simulate(place, SimulateSettings.from_values(given, "test"))
    return place


@pytest.fixture
def site(reduced, tmp_path, monkeypatch):
    """A folder with raw exposures alone, a YAML, and a worker that copies the quick products."""
    for kind in ("flats", "darks"):
        (tmp_path / "raw" / kind).mkdir(parents=True)
        for path in (reduced / kind).glob("*_uncal.fits"):
            shutil.copy(path, tmp_path / "raw" / kind)
    for path in reduced.glob("*_simulate.yml"):
        shutil.copy(path, tmp_path / "raw")
    (tmp_path / "nrcb1.yml").write_text(YAML)
    ran = []

    def run(job):
        ran.append(job.root)
        kind = "darks" if "jump" in job.products else "flats"
        files = {}
        for path in (reduced / kind).glob(f"{job.root}_*.fits"):
            product = path.stem.removeprefix(f"{job.root}_")
            if product in job.products and product != "uncal":
                files[product] = Path(shutil.copy(path, job.workdir))
        return Outcome(files, {}, {}, "N/A")

    monkeypatch.setattr(prepare_worker, "run_exposure", run)
    monkeypatch.setattr(prepare_worker, "describe", lambda ask, steps, skip: "N/A")
    monkeypatch.setattr(prepare_driver, "require_pipeline", lambda: None)
    real = prepare_driver.prepare_all
    monkeypatch.setattr(prepare_driver, "prepare_all", lambda *a, **k: real(*a, **{**k, "executor": Inline()}))
    monkeypatch.setattr(plan, "versions", lambda: {"badpix": "1.0"})
    for module in ("mask.header", "io.provenance"):
        monkeypatch.setattr(f"badpix.{module}.code_version", lambda: "1.0")
    return tmp_path, ran


def job_of(folder):
    return jobs.read_file(folder / "nrcb1.yml")[0]


@pytest.mark.slow
def test_from_raw_to_a_mask_and_nothing_twice(site):
    folder, ran = site
    job = job_of(folder)
    assert rebuild_driver.preview(job).reasons == ["raw exposures are not ready", "would prepare them first"]
    assert rebuild_driver.rebuild(job, Options()).status == "rebuilt"
    assert len(ran) == 9
    product = shelf.current(job.folder)
    assert {k["role"] for k in product["inputs"]} == {"rate", "jump", "fitopt"}
    assert product["flags"]["HOT"] > 0
    assert product["flags"]["DEAD"] > 0
    ran.clear()
    assert rebuild_driver.is_current(job)
    assert rebuild_driver.preview(job).status == "unchanged"
    assert rebuild_driver.rebuild(job, Options()).status == "unchanged"
    assert ran == []


@pytest.mark.slow
def test_one_new_exposure_is_the_only_one_that_is_run(site):
    folder, ran = site
    late = sorted((folder / "raw" / "darks").iterdir())[-1]
    aside = shutil.move(late, folder / late.name)
    job = job_of(folder)
    rebuild_driver.rebuild(job, Options())
    shutil.move(aside, late)
    ran.clear()
    assert not rebuild_driver.is_current(job)
    outcome = rebuild_driver.rebuild(job, Options())
    assert ran == [late.name.removesuffix("_uncal.fits")]
    assert outcome.status == "rebuilt"
    assert any("new input" in reason for reason in outcome.reasons)


@pytest.mark.slow
def test_other_step_parameters_make_all_exposures_again(site):
    folder, ran = site
    rebuild_driver.rebuild(job_of(folder), Options())
    ran.clear()
    (folder / "nrcb1.yml").write_text(YAML + "prepare: {steps: {jump: {rejection_threshold: 5.0}}}\n")
    rebuild_driver.rebuild(job_of(folder), Options())
    assert len(ran) == 9


@pytest.mark.slow
def test_a_broken_raw_file_is_left_out_and_recorded(site):
    folder, _ = site
    broken = sorted((folder / "raw" / "darks").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:9000])
    job = job_of(folder)
    outcome = rebuild_driver.rebuild(job, Options())
    assert outcome.status == "rebuilt"
    assert rebuild_driver.is_current(job)
    (row,) = shelf.current(job.folder)["rejected"]
    assert row["file"] == broken.name
    assert "truncated" in row["reason"]


@pytest.mark.slow
def test_too_many_broken_raw_files_stop_the_rebuild(site):
    folder, _ = site
    for broken in sorted((folder / "raw" / "darks").iterdir())[:3]:
        broken.write_bytes(broken.read_bytes()[:9000])
    with pytest.raises(DataError, match="3 of 5 raw exposures had to be left out"):
        rebuild_driver.rebuild(job_of(folder), Options())


@pytest.mark.slow
def test_products_go_where_the_yaml_says(site):
    folder, _ = site
    (folder / "nrcb1.yml").write_text(YAML + "prepare: {directory: prepared}\n")
    rebuild_driver.rebuild(job_of(folder), Options())
    assert len(list((folder / "prepared" / "nrcb1" / "darks").glob("*_jump.fits"))) == 5
    assert not list((folder / "prepared" / "nrcb1" / "flats").glob("*_jump.fits"))


@pytest.mark.slow
def test_no_raw_files(site):
    folder, _ = site
    shutil.rmtree(folder / "raw" / "darks")
    with pytest.raises(DataError, match=r"darks\.inputs\.raw: .*matches no file"):
        rebuild_driver.rebuild(job_of(folder), Options())


def test_a_search_needs_slopes_or_raw_files(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("detector: NRCB1\nflats: {}\noutput: m.fits\n")
    with pytest.raises(UsageError, match=r"flats\.inputs\.rate is missing, and so is raw"):
        jobs.read_file(path)
