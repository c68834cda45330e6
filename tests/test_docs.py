"""The pages that are made from the code are up to date, and no page is lost."""

from __future__ import annotations

import re
import runpy
import shlex

import pytest
from checkout import ROOT
from click.testing import CliRunner

from badpix.cli.main import badpix

DOCS = ROOT / "docs"
RENDERED = dict(runpy.run_path(str(DOCS / "generate.py"))["render_all"]())
PAGES = sorted(p.relative_to(DOCS) for p in DOCS.rglob("*.md") if "_build" not in p.parts)


@pytest.mark.parametrize("name", RENDERED)
def test_generated_pages_are_up_to_date(name):
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == RENDERED[name], f"{name} is old: run python docs/generate.py"


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```\{toctree\}\n(.*?)```", index, re.S)
    listed = {line for block in blocks for line in block.splitlines() if line and not line.startswith(":")}
    assert listed == {str(p.with_suffix("")) for p in PAGES} - {"index"}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_between_pages_lead_somewhere(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        assert (DOCS / page.parent / target).exists(), f"{page}: link to {target}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_pages_name_no_machine(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(work|root)/", text)


@pytest.mark.slow
def test_the_example_of_families_runs(tmp_path, monkeypatch):
    text = (DOCS / "how-to" / "families.md").read_text(encoding="utf-8")
    first = re.search(r"```bash\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    for line in first.group(1).replace("\\\n", " ").splitlines():
        done = CliRunner().invoke(badpix, shlex.split(line)[1:])
        assert done.exit_code == 0, done.output
    written = {p.name for p in (tmp_path / "masks").iterdir()}
    assert written == {"mask_short.fits", "mask_long.fits", "mask_families.html"}


def test_the_version_is_the_same_everywhere():
    from badpix import __version__

    changes = re.search(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert (changes.group(1), cited.group(1)) == (__version__, __version__)
