"""The tutorials as a reader would follow them: every bash and python block of a page, in order, in one folder.

A text block after one of them shows some lines of its output. Each must be among the lines that were printed: the
same words in the same order, the same numbers but for a small difference, which another version of the pipeline may
make.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```(bash|python|text)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def run_page(page: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Run all blocks of a page; what each text block shows, and what was printed before it."""
    printed = ""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks, f"{page.name} has nothing to run"
    for language, code in blocks:
        if language == "text":
            yield code, printed
        else:
            printed = run_block(page, folder, language, code)


def run_block(page: Path, folder: Path, language: str, code: str) -> str:
    """What a block prints; the programs are those of the running interpreter."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "COLUMNS": "118", "PYTHONWARNINGS": "ignore"}
    call = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def take_apart(line: str) -> tuple[list[str], list[str]]:
    """The words of a line without the lines of tables, and its numbers as they are written."""
    plain = re.sub(r"[\u2500-\u257f]", " ", line)
    return NUMBER.sub("#", plain).split(), NUMBER.findall(plain)


def is_near(shown: str, printed: str) -> bool:
    """Counts may differ by 3 or a tenth, other numbers by a sixth."""
    a, b = (float(n.replace(",", "")) for n in (shown, printed))
    return abs(a - b) <= (abs(a) / 6 if "." in shown else max(3, abs(a) / 10))


def find_missing(shown: str, printed: str) -> list[str]:
    """Lines that were not printed."""
    known = [take_apart(line) for line in printed.splitlines()]
    missing = []
    for line in shown.splitlines():
        words, numbers = take_apart(line)
        same = (n for w, n in known if w == words and len(n) == len(numbers))
        if not any(all(map(is_near, numbers, other)) for other in same):
            missing.append(line)
    return missing


@pytest.mark.slow
@pytest.mark.clients
@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda p: p.stem)
def test_tutorial(page, tmp_path):
    pytest.importorskip("jwst", reason="the tutorials run the pipeline (extra 'pipeline')")
    pytest.importorskip("matplotlib", reason="the tutorials draw pictures (extra 'plots')")
    for shown, printed in run_page(page, tmp_path):
        missing = find_missing(shown, printed)
        assert not missing, f"{page.name} shows what was not printed:\n" + "\n".join([*missing, "", printed])


def test_every_block_of_a_tutorial_has_a_language():
    for page in TUTORIALS.glob("*.md"):
        opened = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.M)[::2]
        assert set(opened) <= {"bash", "python", "text"}, page.name


def test_lines_are_compared_by_their_words_and_by_their_numbers_within_reason():
    printed = "┃ type ┃ pixels ┃\n│ flag │ HOT │ 1,032 │ 0.1385 │\n  TELEGRAPH   12   18\n"
    assert find_missing("│ flag │ HOT │ 1,030 │ 0.14 │\n  TELEGRAPH 13 16", printed) == []
    wrong = ["flag RC 1,032 0.1385", "flag HOT 900 0.1385", "flag HOT 1,032 0.1", "TELEGRAPH 12", "TELEGRAPH 12 18 6"]
    assert find_missing("\n".join(wrong), printed) == wrong
