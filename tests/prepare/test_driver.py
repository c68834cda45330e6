"""badpix prepare without the pipeline: what is run, what is reused, what is refused, what a failure leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import Inline
from click.testing import CliRunner

from badpix.cli.main import badpix
from badpix.errors import DataError, UsageError
from badpix.io.exposure import open_exposure
from badpix.prepare import driver as prepare_driver
from badpix.prepare import records, tasks
from badpix.prepare import worker as prepare_worker
from badpix.prepare.worker import Outcome
from badpix.settings.prepare import PrepareSettings
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sim")
    values = {
        "size": "32 32",
        "flats": 1,
        "darks": 2,
        "dark_groups": 5,
        "flat_groups": 5,
        "defects_per_level": 0,
        "flat_products": ["uncal", "rate"],
        "dark_products": ["uncal"],
    }
    written = simulate(folder, SimulateSettings.from_values(values, "test"))
    return folder, written


@pytest.fixture
def raws(simulated, tmp_path):
    """Fresh copies of one flat and two darks, with the simulation's parameters beside them."""
    folder, written = simulated
    place = tmp_path / "raw"
    place.mkdir()
    for path in [*written["flats"][:1], *written["darks"], *folder.glob("*_simulate.yml")]:
        shutil.copy(path, place)
    return sorted(place.glob("*_uncal.fits"))


@pytest.fixture
def ran(monkeypatch):
    """Roots of the exposures that the (replaced) worker was given; exposures named in `ran.fail` fail."""

    class Ran(list):
        fail = frozenset()

    roots = Ran()

    def run(job):
        roots.append(job.root)
        (job.workdir / f"{job.root}_prepare.log").write_text("log")
        if job.root in roots.fail:
            return Outcome(error=f"{job.uncal}: the pipeline failed: RuntimeError: no")
        files = {}
        for product in ("rate", "rateints", "jump", "fitopt"):
            files[product] = job.workdir / f"{job.root}_{product}.fits"
            files[product].write_text(f"{product} of {job.root}, {sorted(job.steps.items())}")
        return Outcome(files, {"ramp_fit": "COMPLETE"}, {"gain": "gain.fits"}, "N/A")

    monkeypatch.setattr(prepare_worker, "run_exposure", run)
    monkeypatch.setattr(prepare_worker, "describe", lambda ask, steps, skip: "N/A")
    monkeypatch.setattr(prepare_driver, "require_pipeline", lambda: None)
    return roots


def checked(**values):
    return PrepareSettings.from_values(values, "test")


def run(raws, place, *, overwrite=False, skip_bad=False, **values):
    return prepare_driver.prepare_all(
        raws, checked(**values), place, overwrite=overwrite, skip_bad=skip_bad, executor=Inline()
    )


def test_products_and_records(raws, ran, tmp_path):
    place = tmp_path / "out"
    found = run(raws, place)
    assert len(ran) == 3
    assert {k: len(v) for k, v in found.products.items()} == {"rate": 3, "rateints": 3, "jump": 3, "fitopt": 3}
    assert all(path.is_file() for paths in found.products.values() for path in paths)
    for raw in raws:
        record = json.loads((place / raw.name.replace("_uncal.fits", "_prepare.json")).read_text())
        assert record["state"] == "done"
        assert record["versions"]["badpix"]
        assert len(record["input"]["sha256"]) == 64
        assert (place / raw.name).resolve() == raw.resolve()
    assert not list(place.glob(".badpix-*"))


def test_nothing_is_done_twice(raws, ran, tmp_path):
    run(raws, tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    ran.clear()
    found = run(raws, tmp_path / "out")
    assert ran == []
    assert len(found.reused) == 3
    assert len(found.products["jump"]) == 3
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == stamps


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_product_that_is_gone_or_changed_is_made_again(raws, ran, tmp_path, harm):
    product = run(raws, tmp_path / "out").products["jump"][1]
    before = product.read_text()
    if harm == "gone":
        product.unlink()
    else:
        product.write_text(before.upper())
    ran.clear()
    run(raws, tmp_path / "out")
    assert ran == [product.name.removesuffix("_jump.fits")]
    assert product.read_text() == before


@pytest.mark.slow
def test_other_parameters_are_not_written_over_older_products(raws, ran, tmp_path):
    run(raws, tmp_path / "out")
    ran.clear()
    with pytest.raises(UsageError, match=r"was made with other parameters.*give --overwrite"):
        run(raws, tmp_path / "out", steps="jump.rejection_threshold=5")
    assert ran == []
    run(raws, tmp_path / "out", steps="jump.rejection_threshold=5", overwrite=True)
    assert len(ran) == 3


def test_a_changed_raw_file_is_another_exposure(raws, ran, tmp_path):
    run(raws, tmp_path / "out")
    data = bytearray(raws[0].read_bytes())
    data[-3000] ^= 1
    raws[0].write_bytes(data)
    with pytest.raises(UsageError, match="from another raw file"):
        run(raws, tmp_path / "out")
    ran.clear()
    run(raws, tmp_path / "out", overwrite=True)
    assert len(ran) == 1


def test_foreign_files_are_not_replaced(raws, ran, tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    foreign = place / raws[0].name.replace("_uncal", "_rate")
    foreign.write_text("mine")
    with pytest.raises(UsageError, match="was not made by badpix prepare"):
        run(raws, place)
    assert foreign.read_text() == "mine"
    assert ran == []


def test_one_failure_does_not_stop_the_others(raws, ran, tmp_path):
    root = raws[1].name.removesuffix("_uncal.fits")
    ran.fail = {root}
    with pytest.raises(DataError, match=r"1 of 3 exposures failed \(2 are ready\).*RuntimeError: no"):
        run(raws, tmp_path / "out")
    assert (tmp_path / "out" / f"{root}_prepare.log").is_file()
    assert not (tmp_path / "out" / f"{root}_rate.fits").exists()
    found = run(raws, tmp_path / "out", skip_bad=True)
    assert [p.name for p, _ in found.failed] == [raws[1].name]
    ran.clear()
    ran.fail = frozenset()
    run(raws, tmp_path / "out")
    assert ran == [root]


@pytest.mark.slow
def test_a_run_that_ends_while_publishing_is_taken_up_again(raws, ran, tmp_path, monkeypatch):
    real, calls = os.replace, []

    def replace(source, target):
        if str(target).endswith(".fits"):
            calls.append(target)
            if len(calls) == 3:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        run(raws, tmp_path / "out")
    monkeypatch.setattr(os, "replace", real)
    assert not list((tmp_path / "out").glob(".badpix-*"))
    found = run(raws, tmp_path / "out")
    assert len(found.products["fitopt"]) == 3


def test_dark_subtraction_is_for_flats_alone(raws, ran, tmp_path):
    def skipped(**values):
        exposures = [open_exposure(path) for path in raws]
        made = tasks.make_tasks(exposures, checked(**values), tmp_path, "N/A")
        return [("_002001_" in t.job.root or "002001" in t.job.root[:17], "dark_current" in t.job.skip) for t in made]

    assert skipped() == [(False, False), (True, True), (True, True)]
    assert [s for _, s in skipped(subtract_dark="never")] == [True] * 3
    assert [s for _, s in skipped(subtract_dark="always")] == [False] * 3


@pytest.mark.slow
def test_reference_files_of_a_simulation_are_written_once(raws, ran, tmp_path):
    run(raws, tmp_path / "out")
    files = sorted((tmp_path / "out").glob("references/*/*.fits"))
    assert {f.stem.split("_")[1] for f in files} >= {"gain", "readnoise", "mask", "saturation"}


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ({"references": "named"}, UsageError, "need override_gain"),
        ({"references": "named", "override_gain": "nowhere.fits"}, UsageError, "nowhere.fits: no such file"),
    ],
)
def test_named_references(raws, ran, tmp_path, values, error, match):
    with pytest.raises(error, match=match):
        run(raws, tmp_path / "out", **values)


def test_a_simulation_without_its_parameters(raws, ran, tmp_path):
    next(raws[0].parent.glob("*_simulate.yml")).unlink()
    with pytest.raises(DataError, match=r"_simulate\.yml is neither beside it"):
        run(raws, tmp_path / "out")


def test_wrong_and_broken_files(simulated, raws, ran, tmp_path):
    rate = simulated[1]["flats"][1]
    with pytest.raises(DataError, match="is a rate file, expected raw ramps"):
        run([*raws, rate], tmp_path / "out")
    raws[0].write_bytes(raws[0].read_bytes()[:9000])
    with pytest.raises(DataError, match="truncated"):
        run(raws, tmp_path / "out")
    found = run([*raws, rate], tmp_path / "out", skip_bad=True)
    assert len(found.failed) == 2
    assert len(ran) == 2
    with pytest.raises(UsageError, match="no raw exposures"):
        run([], tmp_path / "out")
    with pytest.raises(DataError, match="none of the 1 exposures"):
        run([rate], tmp_path / "out", skip_bad=True)


def test_two_exposures_of_one_name(raws, ran, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(raws[0], other)
    with pytest.raises(DataError, match="has the same name as"):
        run([*raws, other / raws[0].name], tmp_path / "out")


def test_folders_of_dead_runs_are_swept_and_live_ones_left(tmp_path):
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    names = {"dead": dead.pid, "mine": os.getpid(), "live": os.getppid()}
    folders = {k: tmp_path / f".badpix-{host}-{pid}-{k}" for k, pid in names.items()}
    folders["elsewhere"] = tmp_path / f".badpix-other-{dead.pid}-x"
    for folder in folders.values():
        folder.mkdir()
    records.sweep(tmp_path)
    assert {k for k, f in folders.items() if f.exists()} == {"mine", "live", "elsewhere"}


def test_without_the_pipeline_the_message_says_how_to_get_it(raws, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_driver, "find_spec", lambda name: None)
    result = CliRunner().invoke(badpix, ["prepare", str(raws[0]), "--output-dir", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "pip install 'badpix[pipeline]'" in result.output


def test_the_command_needs_an_output_and_says_what_it_did(raws, ran, tmp_path):
    result = CliRunner().invoke(badpix, ["prepare", str(raws[0])])
    assert result.exit_code == 2
    assert "give --output-dir" in result.output
    yml = tmp_path / "p.yml"
    yml.write_text("prepare:\n  inputs: {raw: 'raw/*_uncal.fits'}\n  steps: {refpix: {odd_even_rows: false}}\n")
    calls = []
    real = prepare_driver.prepare_all

    def inline(*args, **kwargs):
        calls.append(args[1].steps)
        return real(*args, **{**kwargs, "executor": Inline()})

    prepare_driver.prepare_all = inline
    try:
        arguments = ["prepare", "-p", str(yml), "--output-dir", str(tmp_path / "out"), "--json", "-q"]
        result = CliRunner().invoke(badpix, arguments)
    finally:
        prepare_driver.prepare_all = real
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert len(summary["done"]) == 3
    assert {k: len(v) for k, v in summary["products"].items()}["jump"] == 3
    assert calls == [{"refpix": {"odd_even_rows": False}}]
    assert all(Path(p).is_file() for p in summary["outputs"])


def test_workers_elsewhere_are_given_whole_paths(raws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = [open_exposure(path.relative_to(tmp_path)) for path in raws]
    for task in tasks.make_tasks(relative, checked(), Path("out"), "N/A"):
        job = task.job
        assert all(Path(p).is_absolute() for p in (job.uncal, job.workdir, job.recipe, *job.references.values()))
