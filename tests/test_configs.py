"""The shipped YAML files are what the declarations say, and are understood by what reads them."""

from __future__ import annotations

from importlib.resources import files

import pytest

from badpix import params, params_files, params_text
from badpix.configs import __main__ as configs

RENDERED = dict(configs.render_all())


@pytest.mark.parametrize("name", RENDERED)
def test_shipped_files_equal_the_declarations(name):
    shipped = files("badpix.configs").joinpath(name)
    assert shipped.is_file(), f"{name} is missing: run python -m badpix.configs"
    assert shipped.read_text(encoding="utf-8") == RENDERED[name], f"{name} is old: run python -m badpix.configs"


@pytest.mark.parametrize("name", configs.section_names())
@pytest.mark.parametrize("parameter_set", params.SETS)
def test_rendered_values_are_the_declared_ones(tmp_path, name, parameter_set):
    sec = params.section(name)
    path = tmp_path / "p.yml"
    path.write_text(params_text.render_yaml(sec, parameter_set))
    values, inputs = params_files.section_values(params_files.load_file(path), sec, "p.yml")
    assert list(values) == sec.names
    assert not inputs
    other = "documented" if parameter_set == "default" else "default"
    assert params.check(sec, values, "p.yml", other) == params.check(sec, {}, "p.yml", parameter_set)


def test_documented_file_differs_where_declared(tmp_path):
    path = tmp_path / "documented.yml"
    path.write_text(RENDERED["documented.yml"])
    tree = params_files.load_file(path)
    assert {"flats", "darks", "ifu", "image"} <= set(tree)
    assert params.check(params.section("flats"), tree["flats"], "p") == params.defaults(
        params.section("flats"), "documented"
    )


def test_written_files(tmp_path):
    assert [p.name for p in configs.write_all(tmp_path)] == list(RENDERED)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == RENDERED
