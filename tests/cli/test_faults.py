"""What can go wrong from outside: full disks, killed and interrupted runs, two runs at once, files that change."""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from checkout import ROOT
from evidence_files import write_jump
from make_files import list_folder, make_flats, pack_gzip, write_rates

from badpix.errors import BadpixError, DataError
from badpix.flats import build
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.settings.flats import FlatSettings
from badpix.settings.reference import ReferenceSettings

# the command line from a bare checkout, in a process of its own
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import badpix; badpix.__path__.append({str(ROOT)!r})\n"
RUN = PROGRAM + "from badpix.cli.main import badpix as command\ncommand()\n"
SLOW = PROGRAM + (
    "import time; from badpix.numerics import clipping as stats; clip = stats.clip_stack\n"
    "def slow(*args, **options):\n"
    "    print('WORKING', file=sys.stderr, flush=True); time.sleep(5); return clip(*args, **options)\n"
    "stats.clip_stack = slow\n"
    "from badpix.cli.main import badpix as command\ncommand()\n"
)


@pytest.fixture
def folder(tmp_path):
    stack = make_flats(4)
    stack[:, 20, 30] = 0
    write_rates(tmp_path / "in", stack)
    for name in ("out", "cwd", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


def start(folder, *args, program=RUN, **options):
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "BADPIX_CACHE": "off"}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, *map(str, args)],
        cwd=folder / "cwd",
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def end(process):
    """Exit status, stdout, stderr; a traceback is a fault whatever happened."""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def left(folder):
    """Everything in the output folder, the current one and the one for temporary files."""
    return [name for part in ("out", "cwd", "tmp") for name in list_folder(folder / part)]


@pytest.mark.slow
def test_a_run_of_its_own(folder):
    code, out, _ = end(start(folder, "flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence"))
    assert (code, out) == (0, f"{folder}/out/m.fits\n")
    assert left(folder) == ["m.fits"]


# --- the disk --------------------------------------------------------------------------------------------


def at_most(size):
    """Files may not grow beyond ``size``, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 20000])
def test_a_full_disk_leaves_nothing_and_one_message(folder, size):
    process = start(
        folder, "flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence", preexec_fn=at_most(size)
    )
    code, out, err = end(process)
    assert code == 1
    assert out == ""
    assert re.search(r"m\.fits: not written: (File too large|the disk is full, or the file too large)", err)
    assert left(folder) == []


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_mask(folder):
    (folder / "out" / "m.fits").write_text("old")
    args = ["flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence", "--overwrite"]
    code, _, _ = end(start(folder, *args, preexec_fn=at_most(20000)))
    assert code == 1
    assert (folder / "out" / "m.fits").read_text() == "old"
    assert left(folder) == ["m.fits"]


@pytest.mark.slow
def test_no_room_to_unpack(folder):
    for path in list((folder / "in").iterdir()):
        pack_gzip(path)
    args = ["flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence"]
    code, _, err = end(start(folder, *args, preexec_fn=at_most(20000)))
    assert code == 1
    assert "exposure01_rate.fits.gz: can't be unpacked: [Errno 27] File too large" in " ".join(err.split())
    assert left(folder) == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_is_really_full(folder):
    small = folder / "out"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        code, _, err = end(start(folder, "flats", folder / "in", "-o", small / "m.fits", "--no-evidence"))
        assert code == 1
        assert re.search(r"m\.fits: not written: (No space left|the disk is full)", err)
        assert left(folder) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["/proc/nothing/m.fits", "/proc/m.fits"])
def test_folders_that_can_not_be_written(folder, place):
    code, out, err = end(start(folder, "flats", folder / "in", "-o", place, "--no-evidence"))
    assert code in (1, 2)
    assert out == ""
    assert "/proc" in err
    assert left(folder) == []


# --- killed, interrupted ---------------------------------------------------------------------------------

WRITER = PROGRAM + (
    "import numpy as np; from badpix.mask import file as mask_file\n"
    "one = mask_file.read_mask(sys.argv[1] + '/a.fits'); two = mask_file.read_mask(sys.argv[1] + '/b.fits')\n"
    "from astropy.io import fits\n"
    "header = fits.getheader(sys.argv[1] + '/a.fits')\n"
    "print('READY', flush=True)\n"
    "while True:\n"
    "    for mask in (one, two):\n"
    "        mask_file.write_mask(sys.argv[1] + '/m.fits', mask.image, header, overwrite=True)\n"
)


def write_two_masks(folder):
    """Two masks that differ, and the bytes each has under the name m.fits."""
    whole = []
    for name in ("a", "b"):
        (folder / "in" / name).mkdir()
        stack = make_flats(2)
        stack[:, 20 if name == "a" else 40, 30] = 0
        paths = write_rates(folder / "in" / name, stack)
        texts = mask_header.check_texts(ReferenceSettings.in_set())
        build.build_flats(paths, FlatSettings.in_set(), folder / "out" / f"{name}.fits", texts=texts)
        whole.append(mask_file.read_mask(folder / "out" / f"{name}.fits").image)
    return whole


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_or_the_new_mask_whole(folder):
    images, random_times = write_two_masks(folder), random.Random(1)
    (folder / "out" / "m.fits").write_bytes((folder / "out" / "a.fits").read_bytes())
    for _ in range(5):
        process = start(folder, folder / "out", program=WRITER)
        assert process.stdout.readline() == "READY\n"
        time.sleep(random_times.uniform(0.1, 0.6))
        process.kill()
        process.communicate()
        found = mask_file.read_mask(folder / "out" / "m.fits").image
        assert any(np.array_equal(found, image) for image in images)
    others = [name for name in left(folder) if name not in ("a.fits", "b.fits", "m.fits")]
    assert len(others) <= 6  # at most one temporary file of each killed run, hidden
    assert all(name.startswith(".badpix-") for name in others)


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_an_interrupted_run_leaves_nothing(folder, packed):
    if packed:
        for path in list((folder / "in").iterdir()):
            pack_gzip(path)
    process = start(folder, "flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence", program=SLOW)
    while "WORKING" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == 130
    assert out == ""
    assert "error: interrupted; nothing was written" in err
    assert left(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.6, 1.2, 1.8, 2.4])
def test_interrupting_a_run_with_workers(folder, delay):
    """Ctrl-C reaches the workers too."""
    args = ["flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence", "--workers", "2"]
    process = start(folder, *args, start_new_session=True)
    time.sleep(delay)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert left(folder) in ([], ["m.fits"])
    if process.returncode == 0:
        assert out
    elif delay > 1:  # before that the interpreter itself is interrupted
        assert "Traceback" not in err, err


# --- two at once -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_on_one_output(folder):
    args = ["flats", folder / "in", "-o", folder / "out" / "m.fits", "--evidence"]
    ends = [end(p) for p in [start(folder, *args) for _ in range(2)]]
    codes = sorted(code for code, _, _ in ends)
    assert codes == [0, 2]
    assert all("exists; give --overwrite" in err for code, _, err in ends if code == 2)
    assert left(folder) == ["m.fits", "m_evidence.fits"]
    assert mask_file.read_mask(folder / "out" / "m.fits").image.any()


@pytest.mark.slow
def test_two_runs_that_may_overwrite(folder):
    args = ["flats", folder / "in", "-o", folder / "out" / "m.fits", "--no-evidence", "--overwrite"]
    codes = [end(p)[0] for p in [start(folder, *args) for _ in range(2)]]
    assert codes == [0, 0]
    assert left(folder) == ["m.fits"]
    alone = end(start(folder, "flats", folder / "in", "-o", folder / "tmp" / "m.fits", "--no-evidence"))
    assert alone[0] == 0
    assert (folder / "out" / "m.fits").read_bytes() == (folder / "tmp" / "m.fits").read_bytes()


# --- files that change under the run ---------------------------------------------------------------------


def truncate(path):
    os.truncate(path, 20000)


def append(path):
    with open(path, "ab") as stream:
        stream.write(b"\0" * 2880)


def remove(path):
    path.unlink()


def replace(path):
    path.with_name("new").write_bytes(path.read_bytes())
    os.replace(path.with_name("new"), path)


@pytest.mark.parametrize("change", [truncate, append, remove, replace])
def test_inputs_that_change_during_the_run(folder, change):
    paths = sorted((folder / "in").iterdir())
    texts = mask_header.check_texts(ReferenceSettings.in_set())
    done = []

    def tick(now, total):
        if not done:
            change(paths[2])
        done.append(now)

    with pytest.raises(DataError, match=r"exposure03_rate\.fits: (changed|truncated|can't be read)"):
        build.build_flats(
            paths,
            FlatSettings.in_set(),
            folder / "out" / "m.fits",
            texts=texts,
            memory=4 * 96 * 4 * 8,
            progress=tick,
        )
    assert len(done) >= 1
    assert left(folder) == []


def test_a_disk_that_fails_while_reading(folder, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    texts = mask_header.check_texts(ReferenceSettings.in_set())
    with pytest.raises(BadpixError, match=r"exposure01_rate\.fits: can't be read: Input/output error"):
        build.build_flats(
            sorted((folder / "in").iterdir()),
            FlatSettings.in_set(),
            folder / "out" / "m.fits",
            texts=texts,
        )


@pytest.mark.slow
def test_a_jump_file_is_called_by_its_name(tmp_path):
    """Somebody gives ramps where slopes are meant: the error says what the file is."""
    path = write_jump(tmp_path / "jw0_nrcb1_jump.fits")
    done = subprocess.run(
        [sys.executable, "-c", RUN, "flats", path, "-o", tmp_path / "m.fits"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "ramps (a jump file)" in done.stderr


def test_who_reads_the_first_lines_alone_sees_no_error():
    """`badpix params darks | head`: the pipe is closed, and nothing is said about it."""
    ours, its = os.pipe()
    os.close(ours)
    call = [sys.executable, "-c", RUN, "params", "darks"]
    done = subprocess.run(call, stdout=its, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(its)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", -2), ("SIGTERM", 143)])
def test_a_signal_that_comes_while_python_drops_exceptions_is_not_lost(name, code):
    """As Ctrl-C in a callback of the import system: the run went on as if nobody had asked."""
    program = PROGRAM + (
        "import signal, time, weakref\n"
        "from badpix.cli.main import ask_again\n"
        "sys.unraisablehook = ask_again\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "thing = type('Thing', (), {})()\n"
        f"ref = weakref.ref(thing, lambda _: signal.raise_signal(signal.{name}))\n"
        "del thing\n"
        "time.sleep(30)\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert "ignored" not in done.stderr
