"""The tutorials as a reader would follow them: every bash and python block of a page, in order, in one folder; the
page for Python as one session; the notebook cell by cell.

A text block after one of them shows some lines of its output. Each must be among the lines that were printed: the
same words in the same order, the same numbers but for a small difference, which another version of the pipeline may
make.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
SESSION = ROOT / "docs" / "python.md"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
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


def run_session(page: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Run all python blocks of a page as one session; what each text block shows, and what was printed before it."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    mark = "-- next block --"
    code = f"\nprint({mark!r})\n".join(code for language, code in blocks if language == "python")
    printed = iter(run_block(page, folder, "python", code).split(mark))
    last = ""
    for language, shown in blocks:
        if language == "python":
            last = next(printed)
        else:
            yield shown, last


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
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, id=p.stem, marks=pytest.mark.long if p.stem == "detector1" else ())
        for p in sorted(TUTORIALS.glob("*.md"))
    ],
)
def test_tutorial(page, tmp_path):
    pytest.importorskip("jwst", reason="the tutorials run the pipeline (extra 'pipeline')")
    pytest.importorskip("matplotlib", reason="the tutorials draw pictures (extra 'plots')")
    for shown, printed in run_page(page, tmp_path):
        missing = find_missing(shown, printed)
        assert not missing, f"{page.name} shows what was not printed:\n" + "\n".join([*missing, "", printed])


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "docs" / "how-to" / "depth.md"], ids=lambda p: p.stem)
def test_how_to(page, tmp_path):
    for shown, printed in run_page(page, tmp_path):
        missing = find_missing(shown, printed)
        assert not missing, f"{page.name} shows what was not printed:\n" + "\n".join([*missing, "", printed])


@pytest.mark.slow
def test_the_page_for_python(tmp_path):
    for shown, printed in run_session(SESSION, tmp_path):
        missing = find_missing(shown, printed)
        assert not missing, f"{SESSION.name} shows what was not printed:\n" + "\n".join([*missing, "", printed])


EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
book = nbformat.read(sys.argv[1], as_version=4)
book.metadata.pop("kernelspec", None)
NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
nbformat.write(book, sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path, tmp_path):
    """Every cell runs, and what the notebook holds as its outputs comes out, but for small differences of counts."""
    pytest.importorskip("nbclient", reason="notebooks are run by nbclient (extra 'test')")
    pytest.importorskip("ipykernel", reason="notebooks are run by ipykernel (extra 'test')")
    done = tmp_path / "done.ipynb"
    call = [sys.executable, "-W", "ignore", "-c", EXECUTE, path, done]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JUPYTER_PLATFORM_DIRS": "1"}
    ran = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-4000:]
    for shown, printed in zip(outputs(path), outputs(done), strict=True):
        assert not find_missing(shown, printed), (shown, printed)


def outputs(path: Path) -> list[str]:
    """The plain text that each code cell of a notebook gave; tables a cell a line."""
    texts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            parts = [o.get("text") or o["data"].get("text/html") or o["data"]["text/plain"] for o in cell["outputs"]]
            texts.append("\n".join("".join(part) for part in parts).replace("</td>", "\n").replace("</li>", "\n"))
    return texts


def test_notebooks_hold_their_outputs():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        assert all(cell["execution_count"] == k for k, cell in enumerate(cells, 1)), path.name
        assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2, path.name
        assert not any(o["output_type"] == "error" for cell in cells for o in cell["outputs"]), path.name


def test_every_block_of_a_tutorial_has_a_language():
    for page in (*TUTORIALS.glob("*.md"), SESSION):
        opened = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.M)[::2]
        assert set(opened) <= {"bash", "python", "text"}, page.name


def test_lines_are_compared_by_their_words_and_by_their_numbers_within_reason():
    printed = "┃ type ┃ pixels ┃\n│ flag │ HOT │ 1,032 │ 0.1385 │\n  TELEGRAPH   12   18\n"
    assert find_missing("│ flag │ HOT │ 1,030 │ 0.14 │\n  TELEGRAPH 13 16", printed) == []
    wrong = ["flag RC 1,032 0.1385", "flag HOT 900 0.1385", "flag HOT 1,032 0.1", "TELEGRAPH 12", "TELEGRAPH 12 18 6"]
    assert find_missing("\n".join(wrong), printed) == wrong
