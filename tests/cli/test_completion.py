"""The tab key, in a real bash on a terminal: file names for files, words where one of some is meant."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from checkout import ROOT
from click.shell_completion import ShellComplete

from badpix.cli.main import badpix, outlier

BASH = shutil.which("bash")
PROGRAM = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import badpix; badpix.__path__.append({str(ROOT)!r})\n"
PROGRAM += "from badpix.cli.main import {0} as command\ncommand(prog_name='{0}')\n"


def offered(group, *words):
    """What click offers after these words, the last of them unfinished."""
    made = ShellComplete(group, {}, "x", "_X").get_completions(list(words[:-1]), words[-1])
    return [(item.type, item.value) for item in made]


@pytest.mark.parametrize(
    "words",
    [
        ("flats", "n"),
        ("darks", "n"),
        ("merge", "n"),
        ("update", "n"),
        ("update", "old.fits", "--flats", "n"),
        ("explain", "n"),
        ("compare", "n"),
        ("report", "m.fits", "--against", "n"),
        ("check", "n"),
        ("rebuild", "n"),
        ("flats", "-o", "n"),
        ("flats", "-p", "n"),
        ("flats", "--manual", "n"),
        ("prepare", "n"),
        ("score", "n"),
        ("deliver", "n"),
        ("export", "n"),
        ("ramps", "n"),
    ],
)
def test_files_where_files_are_meant(words):
    assert offered(badpix, *words) == [("file", "n")]


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "n"),
        ("history", "n"),
        ("prepare", "--output-dir", "n"),
        ("flats", "--plot", "n"),
        ("deliver", "m.fits", "--output-dir", "n"),
    ],
)
def test_folders_where_folders_are_meant(words):
    assert offered(badpix, *words)[0][0] in ("dir", "file")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("explain", "m.fits", "--flag", "te"), ["TELEGRAPH"]),
        (("export", "m.fits", "-o", "x.txt", "--flag", "HO"), ["HOT"]),
        (("simulate", "sim", "--detector", "nrcb"), ["NRCB1", "NRCB2", "NRCB3", "NRCB4", "NRCBLONG"]),
        (("rebuild", "a.yml", "--only", "MIRIM"), ["MIRIMAGE"]),
        (("params", "da"), ["darks"]),
        (("merge", "a.fits", "--prefer", "n"), ["newest"]),
        (("upd",), ["update"]),
    ],
)
def test_words_where_words_are_meant(words, expected):
    assert [value for _, value in offered(badpix, *words)] == expected


def test_the_other_program_too():
    assert offered(outlier, "ifu", "n") == [("file", "n")]


@pytest.mark.slow
@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("badpix flats n/fl", "n/flat_a_rate.fits"),
        ("badpix explain m.fits --flag TEL", "TELEGRAPH"),
        ("badpix params refe", "reference"),
    ],
)
def test_in_a_real_bash(tmp_path, typed, shown):
    """A terminal, a bash, the line that the README gives, and the tab key."""
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / "flat_a_rate.fits").touch()
    program = tmp_path / "bin" / "badpix"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -Wignore\n" + PROGRAM.format("badpix"))
    program.chmod(0o755)
    paths = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "TERM": "dumb", "PS1": "", "HISTFILE": ""}
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [BASH, "--norc", "--noprofile", "-i"],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    os.close(child)
    try:
        os.write(parent, b'eval "$(_BADPIX_COMPLETE=bash_source badpix)"; echo READY$((1+1))\n')
        assert "READY2" in until(parent, "READY2"), "the completion script was not made"
        os.write(parent, typed.encode() + b"\t")
        assert shown in until(parent, shown)
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def until(handle, text, seconds=60):
    """What the terminal shows, until a text is in it or time is up; without its control sequences."""
    seen, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([handle], [], [], 0.2)[0]:
            seen += os.read(handle, 65536).decode(errors="replace")
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[\x07\x08\r]", "", seen)
        if text in plain:
            return plain
    return seen
