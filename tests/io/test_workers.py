"""How memory is shared out, and which clusters are trusted."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from badpix.errors import DataError, UsageError
from badpix.io import workers
from badpix.io.provenance import library_versions
from badpix.io.workers import (
    ALONE,
    LEAST_BAND,
    PARENT,
    WORKER,
    Share,
    check_memory,
    check_versions,
    make_executor,
    share_memory,
)


@pytest.mark.parametrize("total", [2**28, 4 * 10**8, 2**29, 10**9, 2**32])
@pytest.mark.parametrize("asked", [1, 2, 3, 8, 64])
def test_all_processes_together_keep_within_the_memory(total, asked):
    share = share_memory(total, asked)
    assert 1 <= share.workers <= asked
    if share.workers > 1:
        assert PARENT + share.workers * (WORKER + share.band) <= total
        assert share.band >= LEAST_BAND
    else:
        assert ALONE + share.band <= total
    if share.workers < asked:  # one more would not fit
        more = share.workers + 1
        assert PARENT + more * (WORKER + LEAST_BAND) > total


def test_without_a_limit_all_workers_get_the_usual_band():
    assert share_memory(None, 8) == Share(8, workers.WORKER_BAND)
    assert share_memory(None, 1) == Share(1, workers.USUAL_BAND)


@pytest.mark.parametrize("search", ["flats", "darks", "science"])
@pytest.mark.parametrize("evidence", [True, False])
def test_a_limit_below_the_maps_of_the_frame_is_refused_with_what_is_needed(search, evidence):
    with pytest.raises(UsageError, match="--max-memory: found 120M, expected at least ") as refused:
        check_memory(120 << 20, search, 2048 * 2048, evidence=evidence)
    needed = int(str(refused.value).split("at least ")[1].split("M")[0])
    check_memory(needed << 20, search, 2048 * 2048, evidence=evidence)
    check_memory(120 << 20, search, 256 * 256, evidence=evidence)
    check_memory(None, search, 2048 * 2048, evidence=evidence)
    check_memory(120 << 20, search, 0, evidence=evidence)  # no input says its size: the search will say why


def test_a_cluster_of_our_versions_is_trusted():
    check_versions({"tcp://a:1": library_versions(), "tcp://b:2": dict(library_versions())}, "tcp://s")


@pytest.mark.parametrize("name", ["badpix", "numpy", "scipy", "astropy", "photutils"])
def test_a_worker_of_another_version_is_refused_by_name(name):
    other = {**library_versions(), name: "0.0"}
    with pytest.raises(DataError, match=rf"worker tcp://b:2 runs {name} 0\.0, expected "):
        check_versions({"tcp://a:1": library_versions(), "tcp://b:2": other}, "tcp://s")


def test_a_worker_that_says_nothing_and_no_worker_are_refused():
    with pytest.raises(DataError, match="does not say what it runs"):
        check_versions({"tcp://a:1": "nothing"}, "tcp://s")
    with pytest.raises(DataError, match="worker tcp://a:1 does not say what it runs: \"No module named 'badpix'\""):
        check_versions({"tcp://a:1": ModuleNotFoundError("No module named 'badpix'")}, "tcp://s")
    with pytest.raises(DataError, match="no workers"):
        check_versions({}, "tcp://s")


def test_a_worker_that_joins_later_is_checked_by_each_task():
    with ThreadPoolExecutor(1) as pool, workers.Cluster(pool, "tcp://s") as cluster:
        assert list(cluster.map(abs, [-1, 2])) == [1, 2]
        assert cluster.submit(abs, -3).result() == 3
    other = workers.SameVersions(abs, {**library_versions(), "numpy": "0.0"}, "tcp://s")
    with pytest.raises(DataError, match=r"tcp://s: a worker that joined later runs numpy .*, expected 0\.0"):
        pickle.loads(pickle.dumps(other))(-1)


def is_loaded(name):
    """Task: whether this process has read a module."""
    return name in sys.modules


@pytest.mark.slow
def test_workers_read_the_module_of_their_tasks_before_the_first_one(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where workers find this file
    with make_executor(2, None, "colorsys") as executor:  # nothing else reads it
        assert executor.submit(is_loaded, "colorsys").result()
