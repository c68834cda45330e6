"""The rules of the house: which way imports run, what stays light, how long functions are, what is installed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import click
import pytest
from checkout import ROOT

from badpix.cli import main

LIBRARY = sorted((ROOT / "badpix").rglob("*.py"))
CLI = sorted((ROOT / "cli").glob("*.py"))
ALL = [*LIBRARY, *CLI, *sorted((ROOT / "configs").glob("*.py"))]
IDS = [str(p.relative_to(ROOT)) for p in ALL]

LIGHT = [
    "badpix/__init__.py",
    "badpix/dq.py",
    "badpix/errors.py",
    "badpix/io/workers.py",
    "badpix/settings/*.py",
    "cli/*.py",
]
HEAVY = {"numpy", "scipy", "astropy", "photutils", "asdf", "gwcs", "drizzle", "yaml", "rich", "matplotlib", "jwst"}


def imports(path, top_level=False):
    """Modules that a file imports: full dotted names; without those of TYPE_CHECKING blocks."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    nodes = tree.body if top_level else ast.walk(tree)
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in nodes:
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def uses(path, package, top_level=False):
    return sorted(m for m in imports(path, top_level) if m == package or m.startswith(package + "."))


@pytest.mark.parametrize("path", sorted(p for pattern in LIGHT for p in ROOT.glob(pattern)), ids=lambda p: p.name)
def test_light_modules_import_nothing_heavy(path):
    top = {m.split(".")[0] for m in imports(path, top_level=True)}
    assert not top & HEAVY


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_modules_say_what_they_are(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def functions(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                yield node.name, body[-1].end_lineno - body[0].lineno + 1


@pytest.mark.slow
def test_functions_are_short():
    """Bodies of about ten lines; nine in ten under thirty; nothing beyond what a screen shows."""
    found = sorted((lines, f"{path.name}:{name}") for path in ALL for name, lines in functions(path))
    lines = [n for n, _ in found]
    assert lines[len(lines) // 2] <= 10
    assert lines[int(0.9 * len(lines))] <= 30
    long = [f"{name} ({n} lines)" for n, name in found if n > 60]
    assert not long


def test_names_of_the_house():
    """`find_` gives maps, nothing is called utils, no class manages anything."""
    names = {p.stem for p in ALL}
    assert not names & {"utils", "helpers", "manager", "common_utils", "misc"}
    text = "\n".join(p.read_text(encoding="utf-8") for p in ALL)
    assert not re.search(r"^class \w*(Manager|Factory|Registry)\b", text, re.M)


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL, ids=IDS)
def test_no_prints_in_the_library(path):
    if path.parent.name != "cli" and "__main__" not in path.name:
        calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
        assert not [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]


# --- the command line ------------------------------------------------------------------------------------

COMMANDS = [("badpix", ())] + [("badpix", (name,)) for rows in main.BADPIX.values() for name in rows]
COMMANDS += [("outlier", ())] + [("outlier", (name,)) for rows in main.OUTLIER.values() for name in rows]
HELP_CPU = 0.060  # seconds beyond the bare interpreter, on the machine of the project's measurements

PROBE = (
    "import sys; sys.path.insert(0, {root!r}); import badpix; badpix.__path__.append({root!r})\n"
    "sys.argv = {argv!r}\n"
    "from badpix.cli.main import {group} as command\n"
    "try:\n    command()\nexcept SystemExit as end:\n    code = end.code\n"
    "heavy = sorted({heavy!r} & set(sys.modules))\n"
    "import os; t = os.times(); print('PROBE', code, ','.join(heavy), t.user + t.system)\n"
)


def probe(group, *args):
    """Exit status, heavy modules, CPU seconds and the text of a command."""
    argv = [group, *args]
    code = PROBE.format(root=str(ROOT), argv=argv, group=group, heavy=HEAVY - {"yaml"})
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    text, _, tail = done.stdout.rpartition("PROBE ")
    status, heavy, seconds = tail.split(" ")
    return int(status), heavy, float(seconds), text


@pytest.mark.slow
@pytest.mark.parametrize(("group", "args"), COMMANDS, ids=lambda v: v if isinstance(v, str) else " ".join(v))
def test_help_is_light_and_has_an_example(group, args):
    code, heavy, seconds, text = probe(group, *args, "-h")
    assert (code, heavy) == (0, "")
    assert text.startswith("Usage: ")
    assert "Example" in text or args == ("params",)
    assert seconds < 15 * HELP_CPU  # a busy machine counts the waiting as well


@pytest.mark.parametrize("columns", ["40", "72", "80", "200", "wide", ""])
def test_help_is_as_wide_as_click_makes_it(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert main.help_width() == click.formatting.HelpFormatter().width


@pytest.mark.slow
def test_help_stays_below_its_limit():
    """The smallest of several runs, against an interpreter that does nothing."""
    bare = []
    for _ in range(5):
        code = "import os, sys; t = os.times(); print(t.user + t.system)"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        bare.append(float(done.stdout))
    ours = min(probe("badpix", "flats", "--help")[2] for _ in range(5))
    assert ours - min(bare) < 4 * HELP_CPU


def test_every_option_says_what_it_does():
    for group, args in COMMANDS:
        if args:
            lazy = main.badpix if group == "badpix" else main.outlier
            command = lazy.get_command(None, args[0])
            assert command.help
            for parameter in command.params:
                assert parameter.param_type_name == "argument" or parameter.help, (args, parameter.name)


def test_versions():
    import badpix

    for group in ("badpix", "outlier"):
        assert probe(group, "--version")[3].strip() == f"{group}, version {badpix.__version__}"


# --- what is installed -----------------------------------------------------------------------------------


def test_every_file_of_the_configs_is_installed():
    """A page's template that is in the checkout alone would break the page of everybody who installs the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]
    for folder in (ROOT / "configs", ROOT / "configs/examples", ROOT / "configs/manual"):
        package = ".".join(["badpix", *folder.relative_to(ROOT).parts])
        files = [f for f in folder.iterdir() if f.is_file() and f.suffix != ".py"]
        missed = [f.name for f in files if not any(f.match(pattern) for pattern in patterns[package])]
        assert files
        assert not missed, package


@pytest.mark.slow
def test_the_wheel_works_in_another_directory(tmp_path):
    """Both console scripts, and a YAML of the package, from a built wheel, without the checkout."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("badpix", "cli", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "pyproject.toml", ROOT / "README.md"):
        shutil.copy(path, source)
    call = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", tmp_path, source]
    built = subprocess.run(call, capture_output=True, text=True, check=False, cwd=tmp_path)
    if built.returncode and "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("no package index: setuptools can't be fetched to build a wheel")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert all(top.startswith("badpix") for top in tops)
    for name in ("badpix/cli/main.py", "badpix/configs/detectors.yml", "badpix/settings/flats.py"):
        assert name in names
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    site = next(place.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "-q", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    ours = [f"{p}\n" for p in sys.path if p.endswith("site-packages")]
    (site / "others.pth").write_text("".join(ours))  # the dependencies, not the editable checkout: it comes later
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for call in (
        ["badpix", "--version"],
        ["outlier", "-h"],
        ["badpix", "params", "flats"],
        ["badpix", "flats", "-h"],
    ):
        done = subprocess.run(
            [place / "bin" / call[0], *call[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    code = "from badpix import detectors; import badpix; print(len(detectors.table()), badpix.__file__)"
    done = subprocess.run(
        [place / "bin" / "python", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    number, file = done.stdout.split()
    assert number == "18"
    assert Path(file).is_relative_to(place)
