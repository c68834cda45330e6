"""The tutorials as a reader would follow them: every bash and python block of a page, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parent.parent / "docs" / "tutorials"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.M | re.S)

pytestmark = [pytest.mark.slow, pytest.mark.clients]


def run_page(page: Path, folder: Path) -> None:
    """Run all blocks of a page; the programs are those of the running interpreter."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "COLUMNS": "118", "PYTHONWARNINGS": "ignore"}
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks, f"{page.name} has nothing to run"
    for language, code in blocks:
        call = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda p: p.stem)
def test_tutorial(page, tmp_path):
    pytest.importorskip("jwst", reason="the tutorials run the pipeline (extra 'pipeline')")
    pytest.importorskip("matplotlib", reason="the tutorials draw pictures (extra 'plots')")
    run_page(page, tmp_path)


def test_every_block_of_a_tutorial_has_a_language():
    for page in TUTORIALS.glob("*.md"):
        opened = re.findall(r"^```(.*)$", page.read_text(encoding="utf-8"), re.M)[::2]
        assert set(opened) <= {"bash", "python", "text"}, page.name
