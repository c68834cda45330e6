"""Temporary folders and outputs: gone with their run, or with the next one."""

import os
import signal
import subprocess
import sys
import time

import pytest

from badpix.io import scratch
from badpix.io.output import check_directory
from badpix.io.scratch import scratch_folder

HANGS = (
    "import sys, time\nfrom badpix.io.scratch import scratch_folder\n"
    "with scratch_folder(sys.argv[1]) as folder:\n"
    "    (folder / 'x').write_text('x'); print(folder, flush=True); time.sleep(60)\n"
)


@pytest.fixture
def other_run(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HANGS, tmp_path], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_folder_goes_with_its_block(tmp_path):
    def work():
        with scratch_folder(tmp_path) as folder:
            (folder / "x").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_with_the_next_one(tmp_path, other_run, monkeypatch):
    monkeypatch.setattr(scratch, "YOUNG", 0.0)
    with scratch_folder(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2, "that of a run that is alive stays"
    other_run.send_signal(signal.SIGKILL)
    other_run.wait()
    with scratch_folder(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]


def test_folders_without_a_lock_are_left_for_a_moment(tmp_path):
    (tmp_path / f"{scratch.PREFIX}new").mkdir()
    (tmp_path / "badpix-mine").mkdir()
    with scratch_folder(tmp_path):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {f"{scratch.PREFIX}new", "badpix-mine"}


def test_links_are_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "YOUNG", -1.0)
    (tmp_path / "theirs").mkdir()
    (tmp_path / f"{scratch.PREFIX}link").symlink_to(tmp_path / "theirs")
    with scratch_folder(tmp_path):
        pass
    assert (tmp_path / "theirs").is_dir()
    assert (tmp_path / f"{scratch.PREFIX}link").is_symlink()


def test_half_written_outputs_of_yesterday_go(tmp_path, monkeypatch):
    names = (".badpix-0123456789ab-m.fits", ".badpix-0123456789ab", ".badpix-mine-m.fits", "m.fits")
    for name in names:
        (tmp_path / name).write_text("x")
    check_directory(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(names), "today's may be somebody's"
    tomorrow = time.time() + 2 * scratch.OLD
    monkeypatch.setattr(scratch.time, "time", lambda: tomorrow)
    check_directory(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == set(names[1:])


def test_another_user_s_folder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "YOUNG", -1.0)
    (tmp_path / f"{scratch.PREFIX}x").mkdir()
    somebody = os.getuid() + 1
    monkeypatch.setattr(scratch.os, "getuid", lambda: somebody)
    with scratch_folder(tmp_path):
        assert (tmp_path / f"{scratch.PREFIX}x").is_dir()
