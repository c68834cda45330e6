"""The shipped YAML files are what the declarations say, and are understood by what reads them."""

from __future__ import annotations

from importlib.resources import files

import pytest

from badpix.configs import __main__ as configs
from badpix.settings import SECTIONS, param, render
from badpix.settings import files as settings_files
from badpix.settings.flats import FlatSettings

RENDERED = dict(configs.render_all())


@pytest.mark.parametrize("name", RENDERED)
def test_shipped_files_equal_the_declarations(name):
    shipped = files("badpix.configs").joinpath(name)
    assert shipped.is_file(), f"{name} is missing: run python -m badpix.configs"
    assert shipped.read_text(encoding="utf-8") == RENDERED[name], f"{name} is old: run python -m badpix.configs"


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("parameter_set", param.SETS)
def test_rendered_values_are_the_declared_ones(tmp_path, name, parameter_set):
    sec = param.section(name)
    path = tmp_path / "p.yml"
    path.write_text(render.render_yaml(sec, parameter_set))
    values, inputs = settings_files.section_values(settings_files.load_file(path), sec, "p.yml")
    assert list(values) == sec.names()
    assert not inputs
    other = "documented" if parameter_set == "default" else "default"
    assert sec.from_values(values, "p.yml", other) == sec.from_values({}, "p.yml", parameter_set)


def test_documented_file_differs_where_declared(tmp_path):
    path = tmp_path / "documented.yml"
    path.write_text(RENDERED["documented.yml"])
    tree = settings_files.load_file(path)
    assert {"flats", "darks", "ifu", "image"} <= set(tree)
    assert FlatSettings.from_values(tree["flats"], "p") == FlatSettings.in_set("documented")


def test_written_files(tmp_path):
    assert [p.name for p in configs.write_all(tmp_path)] == list(RENDERED)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == RENDERED
