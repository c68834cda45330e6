"""The lock: one holder, none left behind by the dead, said who holds it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from notes import heard

import badpix
from badpix.errors import DataError
from badpix.rebuild import locks
from badpix.rebuild.locks import LockedError, hold

CHILD = """
import sys, time
from badpix.rebuild.locks import hold
with hold(sys.argv[1], 5):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds the lock ``tmp_path/.lock``."""
    env = {**os.environ, "PYTHONPATH": str(Path(badpix.__file__).parent.parent)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True, env=env
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_lock_names_its_holder_and_is_empty_afterwards(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with hold(path, 0):
        assert locks.read_holder(path)["pid"] == os.getpid()
        assert locks.read_holder(path)["host"] == os.uname().nodename
    assert path.read_text() == ""


def test_lock_is_given_up_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyError), hold(tmp_path / ".lock", 0):
        raise KeyError
    with heard(logging.INFO) as said, hold(tmp_path / ".lock", 0):
        pass
    assert said == []


def test_second_process_is_refused_with_the_name_of_the_first(tmp_path: Path, holder: Any) -> None:
    with pytest.raises(LockedError, match=f"locked by process {holder.pid} on {os.uname().nodename} since"):
        hold(tmp_path / ".lock", 0).__enter__()


def test_waiting_ends_when_the_holder_goes(tmp_path: Path, holder: Any) -> None:
    begun = time.monotonic()
    holder.send_signal(signal.SIGINT)  # ends the block, so the lock is given up properly
    with heard(logging.INFO) as said, hold(tmp_path / ".lock", 20):
        assert time.monotonic() - begun < 15
    assert not [s for s in said if "stale" in s]


def test_lock_of_a_killed_process_is_taken_over_and_said(tmp_path: Path, holder: Any) -> None:
    holder.kill()
    holder.wait()
    with heard(logging.INFO) as said, hold(tmp_path / ".lock", 0):
        assert locks.read_holder(tmp_path / ".lock")["pid"] == os.getpid()
    assert len(said) == 1
    assert f"stale lock of process {holder.pid}" in said[0]


def write_holder(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**locks.myself(), **changes}))


def test_recent_text_of_another_host_counts_as_held(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    write_holder(path, host="elsewhere")
    with pytest.raises(LockedError, match="on elsewhere"):
        hold(path, 0).__enter__()


def test_old_text_of_another_host_is_stale(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    write_holder(path, host="elsewhere")
    long_ago = time.time() - locks.DEAD - 1
    os.utime(path, (long_ago, long_ago))
    with heard(logging.INFO) as said, hold(path, 0):
        pass
    assert "stale lock of process" in said[0]


def test_process_number_used_again_is_not_the_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    write_holder(path, pid=os.getppid(), started="1")  # alive, but started at another time
    with heard(logging.INFO) as said, hold(path, 0):
        pass
    assert "stale" in said[0]


def test_living_process_whose_kernel_lock_is_not_seen_counts_as_held(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    parent = os.getppid()
    write_holder(path, pid=parent, started=locks._process_start(parent))
    with pytest.raises(LockedError, match=f"process {parent}"):
        hold(path, 0).__enter__()


def test_text_decides_where_the_file_system_keeps_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, what: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "SETTLE", 0.05)
    path = tmp_path / ".lock"
    with hold(path, 0):
        assert locks.read_holder(path)["pid"] == os.getpid()
    write_holder(path, host="elsewhere")
    with pytest.raises(LockedError, match="on elsewhere"):
        hold(path, 0).__enter__()


def test_last_writer_holds_where_two_write_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".lock"
    path.touch()
    monkeypatch.setattr(locks, "SETTLE", 0.0)
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: write_holder(path, host="elsewhere"))
    handle = os.open(path, os.O_RDWR)
    assert not locks._claim(handle, path, "none")
    os.close(handle)


def test_lock_in_a_folder_that_is_missing_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lock can't be made"):
        hold(tmp_path / "absent" / ".lock", 0).__enter__()


@pytest.mark.slow
def test_only_one_of_many_processes_is_inside(tmp_path: Path) -> None:
    script = (
        "import sys, os, time\nfrom pathlib import Path\nfrom badpix.rebuild import locks\nlocks.POLL = 0.02\n"
        "here = Path(sys.argv[1])\n"
        "for _ in range(5):\n"
        "    with locks.hold(here / '.lock', 60):\n"
        "        os.mkdir(here / 'inside')\n"  # fails if somebody else is inside
        "        time.sleep(0.005)\n"
        "        os.rmdir(here / 'inside')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(badpix.__file__).parent.parent)}
    crowd = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=env) for _ in range(4)]
    assert [child.wait(60) for child in crowd] == [0, 0, 0, 0]
