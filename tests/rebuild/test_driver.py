"""Rebuilding one detector in this process: what is made, what is reused, what is refused, and what is said."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from notes import heard

from badpix.cli.main import badpix
from badpix.darks import build as darks_build
from badpix.errors import BadpixError, DataError, UsageError
from badpix.flats import build
from badpix.io import exposure as exposures
from badpix.mask import file as mask_file
from badpix.mask import merge as merging
from badpix.rebuild import driver as rebuild_driver
from badpix.rebuild import jobs, plan, record, searches, shelf, supervise
from badpix.rebuild.driver import Outcome
from badpix.rebuild.searches import Options
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate

YAML = """
detector: NRCB1
reference: {author: Somebody, pedigree: SIMULATION, useafter: "2026-01-01T00:00:00"}
flats: {inputs: {rate: "flats/*_rate.fits"}}
darks: {inputs: {rate: "darks/*_rateints.fits"}}
output: "masks/{instrument}_{detector}_mask_{date}.fits"
check: {max_percent: {DEAD: 40, OPEN: 20, ADJ_OPEN: 20, LOW_QE: 20}, max_unusable_percent: 60, min_jump_percent: 5}
rebuild: {settle: 0, report: false, evidence: false}
"""


DARK_FILES = ("fitopt", "jump", "rateints")


@pytest.fixture(scope="session")
def exposures_of_nrcb1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four flats and four darks of a small detector."""
    place = tmp_path_factory.mktemp("simulated")
    given = {"detector": "NRCB1", "size": (64, 64), "flats": 4, "darks": 4, "dark_groups": 12, "seed": 5}
    simulate(place, SimulateSettings.from_values(given, "test"))
    return place


@pytest.fixture(autouse=True)
def _fixed_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code's version does not change during a test, even where somebody works on the checkout."""
    monkeypatch.setattr(plan, "versions", lambda: {"badpix": "1.0"})
    for module in ("mask.header", "io.provenance"):
        monkeypatch.setattr(f"badpix.{module}.code_version", lambda: "1.0")


class Site:
    """A folder with exposures and a YAML, as a user has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.yaml = YAML

    def job(self) -> jobs.Job:
        """The job of the YAML."""
        path = self.folder / "nrcb1.yml"
        path.write_text(self.yaml)
        return jobs.read_file(path)[0]

    def run(self, **options: Any) -> Outcome:
        """One rebuild."""
        with heard(logging.INFO) as self.said:
            return rebuild_driver.rebuild(self.job(), Options(**options))

    def edit(self, old: str, new: str) -> None:
        """Change the YAML."""
        assert old in self.yaml
        self.yaml = self.yaml.replace(old, new)

    @property
    def spare(self) -> list[Path]:
        """Files of the last dark, which is not in `darks/` at first."""
        return sorted((self.folder / "spare").iterdir())

    def add_dark(self) -> None:
        """One new exposure arrives."""
        for path in self.spare:
            shutil.copy(path, self.folder / "darks" / path.name)

    @property
    def current(self) -> Path:
        """Folder of the current product."""
        return (self.folder / "masks" / "nrcb1" / "current").resolve()

    def flags(self) -> np.ndarray[Any, Any]:
        """The current mask under its public name."""
        (mask,) = (p for p in (self.folder / "masks").glob("*_mask_????????.fits"))
        return mask_file.read_mask(mask).image


@pytest.fixture
def site(tmp_path: Path, exposures_of_nrcb1: Path) -> Site:
    """A site with four flats and three darks; a fourth dark is at hand."""
    shutil.copytree(exposures_of_nrcb1 / "flats", tmp_path / "flats")
    shutil.copytree(exposures_of_nrcb1 / "darks", tmp_path / "darks")
    (tmp_path / "spare").mkdir()
    for path in sorted((tmp_path / "darks").glob("*_00004_*")):
        path.rename(tmp_path / "spare" / path.name)
    return Site(tmp_path)


def built(site: Site) -> list[str]:
    """Searches that were made, not reused, by the talk of the last run."""
    return [s.split(":")[0] for s in site.said if "exposures" in s]


# --- making ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mask_is_that_of_the_single_commands(site: Site) -> None:
    assert site.run().status == "rebuilt"
    job = site.job()
    texts = job.values.reference
    flats = sorted((site.folder / "flats").glob("*_rate.fits"))
    darks = sorted((site.folder / "darks").glob("*_rateints.fits"))
    build.build_flats(flats, job.values.flats, site.folder / "f.fits", texts=texts)
    darks_build.build_darks(darks, job.values.darks, site.folder / "d.fits", texts=texts)
    one, two = (site.folder / n for n in ("f.fits", "d.fits"))
    merging.build_merge([one, two], job.values.merge, site.folder / "m.fits", texts=texts)
    expected = mask_file.read_mask(site.folder / "m.fits").image
    assert np.count_nonzero(expected) > 100
    assert np.array_equal(site.flags(), expected)


@pytest.mark.slow
def test_product_lies_under_the_name_of_the_yaml_with_its_evidence_and_record(site: Site) -> None:
    site.edit("evidence: false", "evidence: true")
    outcome = site.run()
    start = site.folder / "masks" / "nircam_nrcb1_mask_20260101"
    assert outcome.mask == Path(f"{start}.fits")
    for ending in (".fits", "_evidence.fits", "_record.json"):
        link = Path(f"{start}{ending}")
        assert link.resolve().parent == site.current
    header = fits.getheader(f"{start}.fits")
    assert header["AUTHOR"] == "Somebody"
    assert header["FILENAME"] == f"{start.name}.fits"


@pytest.mark.slow
def test_record_tells_inputs_parameters_counts_and_timings(site: Site) -> None:
    site.run()
    found = record.find_record(site.current)
    assert found is not None
    assert found["status"] == "accepted"
    darks = [k for k in found["inputs"] if k["stage"] == "darks"]
    assert {k["role"] for k in darks} == {"rate", "jump", "fitopt"}
    assert len(darks) == 9
    assert all(len(k["sha256"]) == 64 for k in found["inputs"])
    assert found["parameters"]["flats"]["smoothing_box_width"] == "15"
    assert found["flags"]["any"] == np.count_nonzero(site.flags()[4:60, 4:60])
    assert found["seconds"] > 0
    assert found["peak_memory_mb"] > 20
    assert found["outputs"][0]["name"] == "nircam_nrcb1_mask_20260101.fits"


@pytest.mark.slow
def test_forced_run_gives_equal_bytes(site: Site) -> None:
    site.edit("evidence: false", "evidence: true")
    site.run()
    first = {p.name: p.read_bytes() for p in site.current.glob("*.fits")}
    before = site.current
    assert site.run(force=True).status == "rebuilt"
    assert site.current != before
    assert {p.name: p.read_bytes() for p in site.current.glob("*.fits")} == first
    assert not [s for s in site.said if "differs" in s]


@pytest.mark.slow
def test_report_lies_beside_the_mask(site: Site) -> None:
    site.edit("report: false", "report: true")
    site.run()
    page = site.folder / "masks" / "nircam_nrcb1_mask_20260101_report.html"
    assert "NRCB1" in page.read_text()
    assert site.run().status == "unchanged"


# --- only what is needed -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_changed_nothing_done_and_no_fits_file_opened(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    job = site.job()

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a FITS file was opened")

    monkeypatch.setattr(fits, "open", never)
    monkeypatch.setattr(exposures, "open_exposure", never)
    monkeypatch.setattr("badpix.io.provenance.hash_file", never)
    assert rebuild_driver.is_current(job)
    assert site.run().status == "unchanged"
    assert built(site) == []


@pytest.mark.slow
def test_one_new_dark_makes_the_darks_again_and_nothing_else(site: Site) -> None:
    site.run()
    before = site.flags()
    site.add_dark()
    assert not rebuild_driver.is_current(site.job())
    outcome = site.run()
    assert outcome.status == "rebuilt"
    assert built(site) == ["darks"]
    assert outcome.reasons == [
        "3 new inputs of darks: " + ", ".join(f"jw09005002001_02101_00004_nrcb1_{kind}.fits" for kind in DARK_FILES)
    ]
    assert not np.array_equal(site.flags(), before)


@pytest.mark.slow
def test_file_written_again_with_the_same_content_changes_nothing(site: Site) -> None:
    site.run()
    path = next((site.folder / "flats").iterdir())
    path.write_bytes(path.read_bytes())
    assert not rebuild_driver.is_current(site.job())  # the quick look can't tell; the hash can
    assert site.run().status == "unchanged"


@pytest.mark.slow
def test_changed_content_of_the_same_size_and_time_is_seen_by_its_inode(site: Site) -> None:
    site.run()
    path = sorted((site.folder / "flats").iterdir())[0]
    facts = path.stat()
    with fits.open(path) as hdus:
        hdus["SCI"].data[20:30, 20:30] = 0.0
        hdus.writeto(site.folder / "other.fits")
    os.replace(site.folder / "other.fits", path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    outcome = site.run()
    assert outcome.reasons == [f"1 changed input of flats: {path.name}"]
    assert built(site) == ["flats"]


@pytest.mark.slow
def test_new_author_repeats_no_search(site: Site) -> None:
    site.run()
    site.edit("Somebody", "Somebody else")
    outcome = site.run()
    assert outcome.reasons == ["1 changed parameter of reference: author: Somebody -> Somebody else"]
    assert built(site) == []
    assert fits.getheader(outcome.mask)["AUTHOR"] == "Somebody else"


@pytest.mark.slow
def test_parameter_of_the_flats_repeats_the_flats(site: Site) -> None:
    site.run()
    site.edit("flats: {inputs", "flats: {max_low_qe_norm_signal: 0.6, inputs")
    outcome = site.run()
    assert outcome.reasons == ["1 changed parameter of flats: max_low_qe_norm_signal: 0.5 -> 0.6"]
    assert built(site) == ["flats"]


@pytest.mark.slow
def test_policies_and_limits_change_no_key(site: Site) -> None:
    site.run()
    site.edit("settle: 0", "settle: 0, keep: 3, lock_wait: 1")
    site.edit("min_jump_percent: 5", "min_jump_percent: 6")
    assert site.run().status == "unchanged"


@pytest.mark.slow
def test_new_code_makes_everything_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    monkeypatch.setattr(plan, "versions", lambda: {"badpix": "2.0"})
    outcome = site.run()
    assert outcome.reasons == ["badpix 1.0 -> 2.0"]
    assert built(site) == ["flats", "darks"]


@pytest.mark.slow
def test_going_back_finds_the_earlier_product(site: Site) -> None:
    site.run()
    first = site.current
    site.edit("Somebody", "Somebody else")
    site.run()
    assert site.current != first
    site.edit("Somebody else", "Somebody")
    assert site.run().status == "rebuilt"
    assert site.current == first
    assert built(site) == []


@pytest.mark.slow
def test_damaged_mask_is_made_again(site: Site) -> None:
    site.run()
    mask = next(site.current.glob("*_mask_????????.fits"))
    good = mask.read_bytes()
    mask.write_bytes(good[:-1] + b"x")
    assert not rebuild_driver.is_current(site.job())
    assert site.run().status == "rebuilt"
    assert next(site.current.glob("*_mask_????????.fits")).read_bytes() == good


@pytest.mark.slow
def test_removed_link_is_put_back(site: Site) -> None:
    site.run()
    link = site.folder / "masks" / "nircam_nrcb1_mask_20260101.fits"
    link.unlink()
    assert not rebuild_driver.is_current(site.job())
    assert site.run().status == "unchanged"
    assert link.resolve().parent == site.current


@pytest.mark.slow
def test_file_of_somebody_else_under_the_name_is_left_alone(site: Site) -> None:
    (site.folder / "masks").mkdir()
    mine = site.folder / "masks" / "nircam_nrcb1_mask_20260101.fits"
    mine.write_text("mine")
    outcome = site.run()
    assert mine.read_text() == "mine"
    assert outcome.notes == [f"{mine}: exists and is no link; move it away"]
    assert outcome.mask == site.current / mine.name


@pytest.mark.slow
def test_preview_says_what_and_why_and_writes_nothing(site: Site) -> None:
    assert rebuild_driver.preview(site.job()).reasons == ["no current mask", "would build flats, build darks, merge"]
    assert not (site.folder / "masks").exists()
    site.run()
    assert rebuild_driver.preview(site.job()).status == "unchanged"
    site.add_dark()
    reasons = rebuild_driver.preview(site.job()).reasons
    assert reasons[0].startswith("3 new inputs of darks")
    assert reasons[1] == "would reuse flats, build darks, merge"
    assert rebuild_driver.preview(site.job(), force=True).reasons[-1] == "would build flats, build darks, merge"


# --- inputs that are not as they should be -----------------------------------------------------------------


@pytest.mark.slow
def test_broken_exposure_is_left_out_and_recorded(site: Site) -> None:
    site.add_dark()
    bad = site.folder / "darks" / site.spare[1].name
    bad.write_bytes(bad.read_bytes()[:50_000])
    outcome = site.run()
    assert outcome.status == "rebuilt"
    found = record.find_record(site.current)
    assert found is not None
    (row,) = found["rejected"]
    assert row["stage"] == "darks"
    assert row["file"] == site.spare[2].name
    assert "truncated" in row["reason"]
    (shown,) = record.history_rows(record.list_records(site.folder / "masks"))
    assert (shown["inputs"], shown["rejected"], shown["status"]) == (7, 1, "current")


def test_broken_exposure_fails_the_run_where_none_may_be_left_out(site: Site) -> None:
    site.edit("settle: 0", "settle: 0, skip_bad: false")
    bad = sorted((site.folder / "flats").iterdir())[1]
    bad.write_bytes(b"")
    with pytest.raises(DataError, match=bad.name):
        site.run()


def test_too_many_broken_exposures_fail_the_run(site: Site) -> None:
    for path in sorted((site.folder / "flats").iterdir())[:3]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"flats: 3 of 4 exposures had to be left out.*max_rejected_fraction = 0.5"):
        site.run()
    assert not (site.folder / "masks" / "nrcb1" / "current").exists()


@pytest.mark.slow
def test_exposure_of_another_detector_is_left_out(site: Site) -> None:
    path = sorted((site.folder / "flats").iterdir())[0]
    fits.setval(path, "DETECTOR", value="NRCB2")
    site.run()
    found = record.find_record(site.current)
    assert found is not None
    assert [r["reason"] for r in found["rejected"]] == ["DETECTOR = 'NRCB2', expected 'NRCB1'"]


def test_no_exposure_of_the_detector_is_an_error(site: Site) -> None:
    site.edit("detector: NRCB1", "detector: NRCB2")
    with pytest.raises(DataError, match="none of the 4 exposures is of NRCB2"):
        site.run()


def test_pattern_without_files_is_an_error_of_the_data(site: Site) -> None:
    shutil.rmtree(site.folder / "flats")
    with pytest.raises(DataError, match=r"NRCB1: flats.inputs.rate: .*matches no file"):
        site.run()


def grow(path: Path, content: bytes, steps: int, pause: float) -> threading.Thread:
    """Write a file as a slow copy does."""

    def copy() -> None:
        size = -(-len(content) // steps)
        with open(path, "wb", buffering=0) as stream:
            for k in range(steps):
                stream.write(content[k * size : (k + 1) * size])
                time.sleep(pause)

    thread = threading.Thread(target=copy)
    thread.start()
    time.sleep(pause / 2)
    return thread


@pytest.mark.slow
def test_growing_input_is_waited_for(site: Site) -> None:
    site.edit("settle: 0", "settle: 0.6")
    site.add_dark()
    path = site.folder / "darks" / site.spare[1].name
    thread = grow(path, site.spare[1].read_bytes(), 8, 0.15)
    outcome = site.run()
    thread.join()
    assert outcome.status == "rebuilt"
    assert any(f"{path.name}: still growing" in s for s in site.said)
    found = record.find_record(site.current)
    assert found is not None
    assert found["rejected"] == []
    assert len([k for k in found["inputs"] if k["role"] == "jump"]) == 4


@pytest.mark.slow
def test_growing_input_is_left_out_where_so_chosen_and_taken_the_next_time(site: Site) -> None:
    site.edit("settle: 0", "settle: 0.5, growing: reject")
    site.add_dark()
    path = site.folder / "darks" / site.spare[1].name
    thread = grow(path, site.spare[1].read_bytes(), 20, 0.15)
    site.run()
    thread.join()
    found = record.find_record(site.current)
    assert found is not None
    (row,) = found["rejected"]
    assert row["file"] == site.spare[2].name  # the exposure
    assert row["reason"] == f"{path.name}: still growing; left out this time"
    assert site.run().status == "rebuilt"
    assert built(site) == ["darks"]


@pytest.mark.slow
def test_input_that_grows_too_long_fails_the_run(site: Site) -> None:
    site.edit("settle: 0", "settle: 0.4, growing_wait: 0.3")
    path = site.folder / "flats" / "jw09005001001_02101_00001_nrcb1_rate.fits"
    thread = grow(path, path.read_bytes(), 10, 0.15)
    with pytest.raises(DataError, match="still changing after 0 s of waiting"):
        site.run()
    thread.join()


def interfere(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Something happens to the inputs once the search for flats has begun."""
    search = searches.SEARCHES["flats"]
    state = {"done": False}

    def disturbed(*args: Any) -> Any:
        if not state["done"]:
            state["done"] = True
            act()
        return search(*args)

    monkeypatch.setitem(searches.SEARCHES, "flats", disturbed)


@pytest.mark.slow
def test_input_that_vanishes_during_the_run_starts_it_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = site.folder / "flats" / "jw09005001001_02101_00002_nrcb1_rate.fits"
    interfere(monkeypatch, victim.unlink)
    assert site.run().status == "rebuilt"
    assert any(s.endswith("changed during the run; starting again") for s in site.said)
    found = record.find_record(site.current)
    assert found is not None
    assert victim.name not in [Path(k["path"]).name for k in found["inputs"]]
    assert found["rejected"] == []


@pytest.mark.slow
def test_input_that_changes_during_the_run_is_hashed_as_it_was_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.folder / "flats" / "jw09005001001_02101_00002_nrcb1_rate.fits"
    interfere(monkeypatch, lambda: fits.setval(path, "SCI", ext=0, value="changed"))
    site.run()
    found = record.find_record(site.current)
    assert found is not None
    (known,) = [k["sha256"] for k in found["inputs"] if k["path"] == str(path)]
    assert known == plan.provenance.hash_file(path)


# --- the gate ----------------------------------------------------------------------------------------------


def make_jump(site: Site) -> None:
    """Flats in which many single pixels of the detector have gone dark."""
    for path in (site.folder / "flats").iterdir():
        with fits.open(path, mode="update") as hdus:
            hdus["SCI"].data[8:56:3, 8:56:3] = 0.0


@pytest.mark.slow
def test_jump_against_the_current_mask_is_rejected_with_the_reason(site: Site) -> None:
    site.run()
    before, flags = site.current, site.flags()
    make_jump(site)
    outcome = site.run()
    assert (outcome.status, outcome.exit_code) == ("rejected", 3)
    assert any(r.startswith("jump: DEAD: ") for r in outcome.reasons)
    assert site.current == before
    assert np.array_equal(site.flags(), flags)
    beside = (site.folder / "masks" / "nrcb1" / "rejected").resolve()
    found = record.find_record(beside)
    assert found is not None
    assert found["status"] == "rejected"
    assert found["reasons"] == outcome.reasons
    assert found["changes"]["changed_pixels"] >= 100


@pytest.mark.slow
def test_rejected_mask_is_not_made_again_and_stays_rejected(site: Site) -> None:
    site.run()
    make_jump(site)
    site.run()
    outcome = site.run()
    assert (outcome.status, outcome.exit_code) == ("rejected", 3)
    assert built(site) == []


@pytest.mark.slow
def test_jump_can_be_accepted_by_a_person(site: Site) -> None:
    site.run()
    before = site.current
    make_jump(site)
    site.run()
    rejected = (site.folder / "masks" / "nrcb1" / "rejected").resolve()
    assert site.run(accept=True).status == "rebuilt"
    assert site.current == rejected != before
    assert not (site.folder / "masks" / "nrcb1" / "rejected").exists()
    found = record.find_record(site.current)
    assert found is not None
    assert any(r.startswith("jump: DEAD: ") for r in found["accepted_by_hand"])
    assert site.run().status == "unchanged"


@pytest.mark.slow
def test_wider_limits_let_a_rejected_mask_pass_without_work(site: Site) -> None:
    site.run()
    make_jump(site)
    site.run()
    site.edit("min_jump_percent: 5", "min_jump_percent: 50")
    assert site.run().status == "rebuilt"
    assert built(site) == []


@pytest.mark.slow
def test_failed_check_can_not_be_accepted(site: Site) -> None:
    site.edit("OPEN: 20,", "OPEN: 0.01,")
    outcome = site.run(accept=True)
    assert outcome.exit_code == 3
    assert any(r.startswith("level: OPEN") for r in outcome.reasons)
    assert not (site.folder / "masks" / "nrcb1" / "current").exists()
    assert not list((site.folder / "masks").glob("*.fits"))


@pytest.mark.slow
def test_mask_of_a_rejected_product_is_whole_beside_the_current_one(site: Site) -> None:
    site.run()
    make_jump(site)
    outcome = site.run()
    assert outcome.mask is not None
    assert np.count_nonzero(mask_file.read_mask(outcome.mask).image[8:56:3, 8:56:3]) >= 200


# --- the shelf ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_old_products_are_forgotten_but_never_the_current_one(site: Site) -> None:
    site.edit("settle: 0", "settle: 0, keep: 2")
    for k in range(4):
        site.edit("author: Somebody", f"author: Somebody{k}")
        site.run()
        site.edit(f"author: Somebody{k}", "author: Somebody")
    folder = site.folder / "masks" / "nrcb1"
    kept = {p: record.find_record(p) for p in folder.glob("*Z_*")}
    authors = {p: r["parameters"]["reference"]["author"] for p, r in kept.items() if r}
    assert sorted(authors.values()) == ["Somebody2", "Somebody3"]
    assert authors[site.current] == "Somebody3"
    assert all(p.exists() for p in (site.folder / "masks").iterdir())  # no dangling link
    assert len(list((folder / ".stages").glob("*.json"))) == 2


@pytest.mark.slow
def test_what_a_killed_run_left_is_removed(site: Site) -> None:
    folder = shelf.prepare(site.job().folder)
    (folder / ".work-1-dead" / "product").mkdir(parents=True)
    (folder / ".work-1-dead" / "part.fits").write_text("part")
    (folder / ".stages" / ".badpix-0123-x.fits").write_text("part")
    (folder.parent / ".badpix-0123-link").symlink_to("nrcb1/gone/x.fits")
    (folder.parent / ".badpix-0123-other").symlink_to("nrcb2/gone/x.fits")
    site.run()
    left = [p.name for p in (site.folder / "masks").rglob(".*")]
    assert sorted(left) == [".badpix-0123-other", ".lock", ".stages"]


@pytest.mark.slow
def test_damaged_search_on_the_shelf_is_made_again(site: Site) -> None:
    site.run()
    good = site.flags()
    stage = next((site.folder / "masks" / "nrcb1" / ".stages").glob("*_flats_*[0-9a-f].fits"))
    stage.write_bytes(stage.read_bytes()[:-2880])
    site.edit("Somebody", "Somebody else")
    site.run()
    assert built(site) == ["flats"]
    assert np.array_equal(site.flags(), good)


@pytest.mark.slow
def test_history_lists_products_and_failures(site: Site) -> None:
    site.run()
    site.edit("Somebody", "Somebody else")
    site.run()
    for path in (site.folder / "flats").iterdir():
        path.write_bytes(b"")
    outcome = supervise.work(site.job(), Options(), "20990101T000000Z_1")
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    rows = record.history_rows(record.list_records(site.folder / "masks"))
    assert [r["status"] for r in rows] == ["replaced", "current", "failed"]
    assert rows[2]["reason"].startswith("none of the 4 inputs can be used")
    assert rows[1]["flagged"] == np.count_nonzero(site.flags()[4:60, 4:60])


def test_damaged_record_counts_as_none(tmp_path: Path) -> None:
    for content in ("", "[1]", "{}", '{"status": "accepted", "detector": "A", "finished": "now"}'):
        (tmp_path / "x_record.json").write_text(content)
        assert record.find_record(tmp_path) is None


# --- the YAML ----------------------------------------------------------------------------------------------


def read(tmp_path: Path, text: str) -> list[jobs.Job]:
    (tmp_path / "x.yml").write_text(text)
    return jobs.read_file(tmp_path / "x.yml")


MANY = """
defaults:
  reference: {author: Team}
  flats: {smoothing_box_width: 21, inputs: {rate: "{instrument}/{detector}/flats"}}
  output: "masks/{detector}_mask.fits"
detectors:
  - NRCA1
  - detector: NIS
    reference: {author: Other}
    flats: {dead_search_type: absolute_rate}
"""


def test_detectors_are_laid_over_defaults(tmp_path: Path) -> None:
    one, two = read(tmp_path, MANY)
    assert (one.detector, two.detector) == ("NRCA1", "NIS")
    assert one.inputs["flats"] == {"rate": [str(tmp_path / "nircam/nrca1/flats")]}
    assert two.inputs["flats"] == {"rate": [str(tmp_path / "niriss/nis/flats")]}
    assert (one.values.reference.author, two.values.reference.author) == ("Team", "Other")
    assert [j.values.flats.smoothing_box_width for j in (one, two)] == [21, 21]
    assert two.values.flats.dead_search_type == "absolute_rate"
    assert one.folder == tmp_path / "masks" / "nrca1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flats: {}\n", "detector is missing"),
        ("detector: NRCB9\noutput: m.fits\n", "NRCB9"),
        ("detector: NRCB1\nflat: {}\n", "unknown key 'flat'; did you mean 'flats'"),
        ("detector: NRCB1\nflats: {inputs: {rate: x}}\n", "output: found None"),
        ("detector: NRCB1\nflats: {}\noutput: m.fits\n", "flats.inputs.rate is missing"),
        ("detector: NRCB1\noutput: m.fits\n", "nothing to build"),
        ("detector: NRCB1\nflats: {inputs: {rates: x}}\noutput: m.fits\n", "did you mean 'rate'"),
        ("detector: NRCB1\nflats: {inputs: {rate: x}}\noutput: '{date}/m.fits'\n", "only the file's own name"),
        ("detector: NRCB1\nflats: {inputs: {rate: x}}\noutput: '{day}.fits'\n", "unknown field"),
        ("detector: NRCB1\nrebuild: {setle: 3}\noutput: m.fits\n", "did you mean 'settle'"),
        ("detector: NRCB1\nrebuild: {growing: hope}\noutput: m.fits\n", "'hope' is not one of wait, reject"),
        ("detector: NRCB1\nreference: {pedigree: FLIGHT}\nflats: {inputs: {rate: x}}\noutput: m.fits\n", "pedigree"),
        ("detectors: NRCB1\n", "expected a list"),
        ("detectors: [{detector: NRCB1, flat: 1}]\n", "did you mean 'flats'"),
        ("defaults: 3\ndetectors: [NRCB1]\n", "expected 'name: value' lines"),
    ],
)
def test_mistakes_in_the_yaml_are_named_before_anything_is_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


def test_one_bad_file_does_not_stop_the_others_but_one_place_twice_does(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text(MANY)
    (tmp_path / "bad.yml").write_text("detector: NRCB1\nflat: {}\n")
    found, failed = jobs.read_jobs([tmp_path / "bad.yml", tmp_path / "good.yml"])
    assert [j.detector for j in found] == ["NRCA1", "NIS"]
    assert [p.name for p, _ in failed] == ["bad.yml"]
    (tmp_path / "again.yml").write_text(MANY)
    with pytest.raises(UsageError, match=r"again.yml: NRCA1: .*masks/nrca1 is also that of .*good.yml"):
        jobs.read_jobs([tmp_path / "good.yml", tmp_path / "again.yml"])


def test_status_is_one_line(tmp_path: Path) -> None:
    outcomes = [Outcome("A", "rebuilt"), Outcome("B", "rejected", exit_code=3), Outcome("C", "failed", exit_code=1)]
    assert supervise.exit_code(outcomes) == 3
    supervise.write_status(tmp_path / "status", "FAILED", supervise.count(outcomes), 3, 1.25)
    (line,) = (tmp_path / "status").read_text().splitlines()
    assert " FAILED rebuilt=1 unchanged=0 rejected=1 failed=1 exit=3 seconds=1.2 host=" in line


@pytest.mark.slow
def test_full_disk_leaves_the_current_mask(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.run()
    before = site.current
    site.edit("Somebody", "Somebody else")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelf, "publish", full)
    with pytest.raises(BadpixError, match="No space left"):
        site.run()
    assert site.current == before
    assert not list((site.folder / "masks" / "nrcb1").glob(".work-*"))


@pytest.mark.slow
def test_records_are_json_that_other_tools_read(site: Site) -> None:
    outcome = site.run()
    assert outcome.record is not None
    assert json.loads(outcome.record.read_text())["detector"] == "NRCB1"


@pytest.mark.slow
def test_named_companions_follow_their_exposure_when_it_is_left_out(site: Site) -> None:
    site.add_dark()
    (site.folder / "others").mkdir()
    for kind in ("jump", "fitopt"):
        for path in sorted((site.folder / "darks").glob(f"*_{kind}.fits")):
            path.rename(site.folder / "others" / path.name)
    site.edit('"darks/*_rateints.fits"}', '"darks", jump: "others/*_jump.fits", fitopt: "others/*_fitopt.fits"}')
    fits.setval(sorted((site.folder / "darks").iterdir())[0], "DETECTOR", value="NRCB2")
    assert site.run().status == "rebuilt"
    found = record.find_record(site.current)
    assert found is not None
    assert [r["reason"] for r in found["rejected"]] == ["DETECTOR = 'NRCB2', expected 'NRCB1'"]
    assert site.run().status == "unchanged"


@pytest.mark.slow
def test_families_and_depth_come_with_each_product(site: Site) -> None:
    site.edit("evidence: false", "evidence: true")
    site.edit("output:", "families: [{name: short, readpatt: RAPID, ngroups: 5}]\noutput:")
    site.edit("darks: {inputs", "darks: {depth_pixels: 200, inputs")
    assert site.run().status == "rebuilt"
    (short,) = (site.folder / "masks").glob("*_short.fits")
    assert fits.getheader(short)["NGROUPS"] == 5
    (row,) = record.history_rows(record.list_records(site.folder / "masks"))
    assert row["depth"]["hot"]["unit"] == "DN/s"
    done = CliRunner().invoke(badpix, ["history", str(site.folder / "masks"), "--depth"])
    assert "hot, DN/s" in done.stdout
    assert site.run().status == "unchanged"
    site.edit("ngroups: 5", "ngroups: 8")
    assert site.run().status == "rebuilt"
    (short,) = (site.folder / "masks").glob("*_short.fits")
    assert fits.getheader(short)["NGROUPS"] == 8


@pytest.mark.parametrize("line", ["families: [{name: short}]", "families: {}"])
def test_wrong_families_are_refused_before_anything_is_read(site: Site, line: str) -> None:
    site.edit("evidence: false", "evidence: true")
    site.edit("output:", f"{line}\noutput:")
    if line.endswith("{}"):
        assert site.job().families == ()
    else:
        with pytest.raises(UsageError, match="families: entry 1"):
            site.job()
