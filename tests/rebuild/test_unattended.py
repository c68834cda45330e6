"""`badpix rebuild` as cron runs it: killed, doubled, without space, on a cluster. What is current is always whole."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

from badpix.rebuild import jobs, record, shelf
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate

pytestmark = pytest.mark.slow

MOMENTS = 8  # at which runs are killed
DETECTORS = ("NRCB1", "NIS", "MIRIMAGE", "NRS1")

YAML = """
defaults:
  reference: {author: Somebody, pedigree: SIMULATION, useafter: "2026-01-01T00:00:00"}
  flats: {inputs: {rate: "{detector}/flats"}}
  darks: {inputs: {rate: "{detector}/darks"}}
  output: "masks/{instrument}_{detector}_mask_{date}.fits"
  check: {max_percent: {DEAD: 40, OPEN: 20, ADJ_OPEN: 20, LOW_QE: 20}, max_unusable_percent: 60, min_jump_percent: 20}
  rebuild: {settle: 0, lock_wait: 60}
detectors: [NRCB1, NIS, MIRIMAGE, NRS1]
"""

LIMITS = "max_percent: {DEAD: 40, OPEN: 20, ADJ_OPEN: 20, LOW_QE: 20}, max_unusable_percent: 60"

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        pids = [worker.pid for worker in cluster.workers.values()]
        print(cluster.scheduler_address, *pids, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, so that its version does not change while somebody works on the checkout."""
    place = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "badpix", place / "badpix", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("cli", "configs"):
        shutil.copytree(ROOT / name, place / "badpix" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return place


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small detectors with three flats and four darks each."""
    place = tmp_path_factory.mktemp("data")
    for name in DETECTORS:
        given = {"detector": name, "size": (64, 64), "flats": 3, "darks": 4, "dark_groups": 12}
        simulate(place / name.lower(), SimulateSettings.from_values(given, "test"))
    return place


class Site:
    """A user's folder and the program."""

    def __init__(self, folder: Path, code: Path) -> None:
        self.folder, self.code = folder, code
        self.yaml = folder / "all.yml"
        self.env = {**os.environ, "PYTHONPATH": str(code)}

    def start(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """The program, started in a session of its own."""
        call = [
            sys.executable,
            "-c",
            "from badpix.cli.main import badpix; badpix()",
            "rebuild",
            str(self.yaml),
            *args,
        ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": self.folder}
        return subprocess.Popen(call, text=True, env=self.env, start_new_session=True, **pipes, **options)

    def run(self, *args: str, **options: Any) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a run."""
        with self.start(*args, **options) as child:
            out, err = child.communicate(timeout=300)
        return child.returncode, out, err

    def records(self) -> list[dict[str, Any]]:
        """What `badpix history` shows."""
        return record.history_rows(record.list_records(self.folder / "masks"))

    def masks(self) -> dict[str, bytes]:
        """Content of all current masks under their public names."""
        return {p.name: p.read_bytes() for p in sorted((self.folder / "masks").glob("*_mask_????????.fits"))}

    def assert_whole(self, detector: str) -> None:
        """What is current is whole, if there is anything."""
        folder = self.folder / "masks" / detector.lower()
        link = folder / "current"
        if link.is_symlink():
            found = record.find_record(link.resolve())
            assert found is not None
            assert shelf.is_whole(found)
        for path in (self.folder / "masks").glob("*"):
            assert path.exists(), f"{path} leads nowhere"


@pytest.fixture
def site(tmp_path: Path, data: Path, code: Path) -> Site:
    """All four detectors; the last dark of each is held back."""
    for name in DETECTORS:
        shutil.copytree(data / name.lower(), tmp_path / name.lower())
        (tmp_path / name.lower() / "later").mkdir()
        for path in (tmp_path / name.lower() / "darks").glob("*_00004_*"):
            path.rename(tmp_path / name.lower() / "later" / path.name)
    made = Site(tmp_path, code)
    made.yaml.write_text(YAML)
    return made


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, data: Path, code: Path) -> dict[str, bytes]:
    """Masks of an undisturbed run."""
    place = tmp_path_factory.mktemp("expected")
    for name in DETECTORS:
        shutil.copytree(data / name.lower(), place / name.lower())
        for path in (place / name.lower() / "darks").glob("*_00004_*"):
            path.unlink()
    undisturbed = Site(place, code)
    undisturbed.yaml.write_text(YAML)
    code_, _, err = undisturbed.run()
    assert code_ == 0, err
    assert len(undisturbed.masks()) == 4
    return undisturbed.masks()


def test_four_detectors_from_first_run_to_one_new_exposure(site: Site, expected: dict[str, bytes]) -> None:
    status = site.folder / "status"
    code, out, err = site.run("--workers", "2", "--status-file", str(status), "--log-file", str(site.folder / "log"))
    assert code == 0, err
    assert sorted(Path(line).name for line in out.split()) == sorted(expected)
    assert site.masks() == expected
    assert " OK rebuilt=4 unchanged=0 rejected=0 failed=0 exit=0" in status.read_text()
    assert "NRCB1: merge:" in (site.folder / "log").read_text()

    code, out, err = site.run("--status-file", str(status))
    assert (code, out) == (0, "")
    assert " OK rebuilt=0 unchanged=4 " in status.read_text()
    assert len(site.records()) == 4

    for path in (site.folder / "nis" / "later").iterdir():
        shutil.copy(path, site.folder / "nis" / "darks")
    code, out, err = site.run("--json")
    answer = json.loads(out)
    assert (code, answer["counts"]) == (0, {"rebuilt": 1, "unchanged": 3, "rejected": 0, "failed": 0})
    assert "NIS: flats: reused" in err
    assert [r["detector"] for r in site.records() if r["status"] == "replaced"] == ["NIS"]
    assert {n: m for n, m in site.masks().items() if "nis" not in n} == {
        n: m for n, m in expected.items() if "nis" not in n
    }


def test_one_detector_that_fails_does_not_stop_the_others(site: Site, expected: dict[str, bytes]) -> None:
    for path in (site.folder / "nis" / "flats").iterdir():
        path.write_bytes(b"broken")
    code, _, err = site.run("--status-file", str(site.folder / "status"))
    assert code == 1
    assert "NIS: failed: none of the 3 inputs can be used" in err
    assert site.masks() == {n: m for n, m in expected.items() if "nis" not in n}
    assert " FAILED rebuilt=3 unchanged=0 rejected=0 failed=1 exit=1" in (site.folder / "status").read_text()
    assert [r["detector"] for r in site.records() if r["status"] == "failed"] == ["NIS"]


def test_detector_whose_process_is_killed_does_not_stop_the_others(site: Site) -> None:
    with site.start("--only", "NRCB1", "--only", "NRS1", "--at-once", "2") as parent:
        victim = int(wait_for(lambda: shelf_holder(site, "nrcb1")))
        os.kill(victim, signal.SIGKILL)
        _, err = parent.communicate(timeout=120)
    assert parent.returncode == 1
    assert "NRCB1: failed: its process was ended by SIGKILL (out of memory?" in err
    assert [r["detector"] for r in site.records() if r["status"] == "current"] == ["NRS1"]


def shelf_holder(site: Site, detector: str) -> int | None:
    """Process that holds a detector's lock."""
    try:
        return int(json.loads((site.folder / "masks" / detector / ".lock").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None


def wait_for(look: Callable[[], Any], seconds: float = 60) -> Any:
    """What ``look`` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("nothing came")


@pytest.mark.long
def test_kill_9_at_any_moment_leaves_the_old_mask_or_the_new_one(site: Site, expected: dict[str, bytes]) -> None:
    begun = time.monotonic()
    assert site.run("--only", "NRCB1")[0] == 0
    duration = time.monotonic() - begun
    name = "nircam_nrcb1_mask_20260101.fits"
    before = site.masks()[name]
    assert before == expected[name]
    for path in (site.folder / "nrcb1" / "later").iterdir():
        shutil.copy(path, site.folder / "nrcb1" / "darks")
    chance = random.Random(7)
    seen = set()
    for k in range(MOMENTS):
        with site.start("--only", "NRCB1", "--force") as parent:
            time.sleep(chance.uniform(0.2, duration))
            (os.killpg if k % 2 else os.kill)(parent.pid, signal.SIGKILL)  # all of it, or the parent alone
            parent.communicate()
        site.assert_whole("NRCB1")
        seen.add(site.masks()[name])
    code, _, err = site.run("--only", "NRCB1")
    assert code == 0, err
    site.assert_whole("NRCB1")
    final = site.masks()[name]
    assert final != before
    assert seen <= {before, final}
    left = [p.name for p in (site.folder / "masks").rglob(".*") if p.name not in (".lock", ".stages")]
    assert left == []
    assert site.run("--only", "NRCB1", "--force")[0] == 0
    assert site.masks()[name] == final


@pytest.mark.long
def test_two_runs_at_once_make_one_product(site: Site, expected: dict[str, bytes]) -> None:
    crowd = [site.start("--workers", "2") for _ in range(2)]
    ends = [(child.communicate(timeout=300), child.returncode) for child in crowd]
    assert [code for _, code in ends] == [0, 0], ends
    assert site.masks() == expected
    assert [r["status"] for r in site.records()] == ["current"] * 4
    assert any("locked by process" in err for (_, err), _ in ends)


def test_second_run_that_may_not_wait_says_who_is_at_work(site: Site) -> None:
    site.yaml.write_text(YAML.replace("lock_wait: 60", "lock_wait: 0"))
    with site.start("--only", "NRCB1") as first:
        holder = wait_for(lambda: shelf_holder(site, "nrcb1"))
        os.killpg(first.pid, signal.SIGSTOP)  # it holds the lock as long as we need
        try:
            code, _, err = site.run("--only", "NRCB1")
        finally:
            os.killpg(first.pid, signal.SIGCONT)
        first.communicate(timeout=120)
    assert (first.returncode, code) == (0, 1)
    assert f"locked by process {holder} on" in err, err


@pytest.mark.parametrize(
    "size", [pytest.param(2_000, marks=pytest.mark.long), 40_000, pytest.param(120_000, marks=pytest.mark.long)]
)
def test_full_disk_fails_and_leaves_everything_as_it_was(site: Site, expected: dict[str, bytes], size: int) -> None:
    name = "nircam_nrcb1_mask_20260101.fits"
    assert site.run("--only", "NRCB1")[0] == 0
    code, _, err = site.run(
        "--only",
        "NRCB1",
        "--force",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)),
    )
    assert code == 1
    assert "File too large" in err
    assert "Traceback" not in err
    site.assert_whole("NRCB1")
    assert site.masks()[name] == expected[name]
    assert not list((site.folder / "masks" / "nrcb1").glob(".work-*"))
    assert site.run("--only", "NRCB1")[0] == 0


@pytest.fixture
def cluster(code: Path, tmp_path: Path) -> Iterator[tuple[str, list[int]]]:
    """Address and worker processes of a local Dask cluster."""
    pytest.importorskip("distributed", reason="not installed: dask.distributed (extra 'cluster')")
    (tmp_path / "cluster.py").write_text(CLUSTER)
    child = subprocess.Popen(
        [sys.executable, str(tmp_path / "cluster.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(code)},
    )
    assert child.stdout is not None
    assert child.stdin is not None
    address, *pids = child.stdout.readline().split()
    yield address, [int(p) for p in pids]
    child.stdin.close()
    child.wait(60)
    child.stdout.close()


@pytest.mark.long
def test_cluster_gives_the_same_bytes_also_when_a_worker_is_killed(
    site: Site, expected: dict[str, bytes], cluster: tuple[str, list[int]]
) -> None:
    address, pids = cluster
    with site.start("--dask", address, "--at-once", "2", "--max-memory", "158M") as run:
        wait_for(lambda: shelf_holder(site, "nrcb1"))
        time.sleep(1.5)
        assert run.poll() is None
        os.kill(pids[0], signal.SIGKILL)
        _, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert site.masks() == expected


def test_absent_cluster_is_an_error_in_words(site: Site) -> None:
    pytest.importorskip("distributed", reason="not installed: dask.distributed (extra 'cluster')")
    site.env["DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT"] = "2s"
    code, _, err = site.run("--only", "NRCB1", "--dask", "tcp://127.0.0.1:9")
    assert code == 1
    assert "--dask tcp://127.0.0.1:9: no scheduler answers" in err


def test_examples_describe_all_detectors_and_one_of_them_runs(site: Site) -> None:
    shutil.copytree(ROOT / "configs" / "examples", site.folder / "examples")
    found = [job for path in sorted((site.folder / "examples").glob("*.yml")) for job in jobs.read_file(path)]
    assert len({job.detector for job in found}) == 18
    assert len({job.folder for job in found}) == len(found)
    for kind in ("flats", "darks"):
        shutil.copytree(site.folder / "nrcb1" / kind, site.folder / "examples" / kind / "nrcb1")
    site.yaml = site.folder / "examples" / "nircam.yml"
    text = site.yaml.read_text().replace("settle: 60", "settle: 0").replace("max_jump_ratio: 2.0", LIMITS)
    site.yaml.write_text(text)
    code, out, err = site.run("--only", "NRCB1")
    assert code == 0, err
    assert Path(out.strip()) == site.folder / "examples" / "masks" / "nircam_nrcb1_mask_20260101.fits"
