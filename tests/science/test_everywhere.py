"""The same search from Python and from `badpix rebuild`; an updated mask knows it."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from science_files import SHAPE, write_program

import badpix
from badpix.cli.main import badpix as command
from badpix.mask.file import read_mask

HOT = ((10, 12), (40, 70), (80, 33))


def with_hot(light, k):
    out = light.copy()
    for y, x in HOT:
        out[y, x] += 0.5
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("science")
    write_program(path / "exposures", with_hot)
    return path


def invoke(*words):
    result = CliRunner().invoke(command, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def mask(folder):
    invoke("science", folder / "exposures", "-o", folder / "mask.fits", "--author", "A", "-q")
    return folder / "mask.fits"


def truth():
    out = np.zeros(SHAPE, bool)
    out[tuple(np.transpose(HOT))] = True
    return out


@pytest.mark.slow
def test_python_gives_the_same(folder, mask):
    found = badpix.find_science_defects(str(folder / "exposures"), badpix.ScienceSettings())
    np.testing.assert_array_equal(found.image, read_mask(mask).image)
    np.testing.assert_array_equal(found.maps["science_hot"], truth())


def test_arrays_are_refused():
    with pytest.raises(badpix.UsageError, match="expected files"):
        badpix.find_science_defects(np.zeros((3, 8, 8)))


@pytest.mark.slow
def test_rebuild_takes_science_exposures(folder, mask):
    tree = {
        "detector": "NRCB1",
        "output": str(folder / "made" / "nrcb1_mask.fits"),
        "reference": {"author": "A"},
        "rebuild": {"settle": 0},
        "science": {"inputs": {"rate": str(folder / "exposures")}},
    }
    (folder / "d.yml").write_text(yaml.safe_dump(tree))
    result = CliRunner().invoke(command, ["rebuild", str(folder / "d.yml")])
    assert result.exit_code in (0, 3), result.output
    made = next(p for p in (folder / "made").rglob("*_mask.fits") if "stages" not in p.parts)
    np.testing.assert_array_equal(read_mask(made).image, read_mask(mask).image)
    y, x = HOT[0]
    told = invoke("explain", made, x + 100, y + 100)
    assert "science_hot" in told
    assert "the science exposures of" in told
