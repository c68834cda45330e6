"""Simulated programs: equal seeds give equal files; what was put in is found."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from badpix.cli.main import badpix
from badpix.simulation.science_light import PROGRAMS
from badpix.simulation.truth_file import read_truth


def invoke(*words):
    result = CliRunner().invoke(badpix, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize("scene", PROGRAMS)
def test_programs_are_written(scene, tmp_path):
    words = ("--scene", scene, "--size", "64 64", "--defects-per-level", "1", "-q")
    invoke("simulate-science", tmp_path / "a", *words)
    invoke("simulate-science", tmp_path / "b", *words)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(files) == PROGRAMS[scene].visits * PROGRAMS[scene].exposures + 1
    for name in (files[0], "truth.fits"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    _, truth, rows = read_truth(tmp_path / "a" / "truth.fits")
    assert (truth[rows["y"], rows["x"]] != 0).all()
    assert np.count_nonzero(truth) == len(rows)


@pytest.mark.slow
def test_bad_pixels_of_a_deep_field_are_found_and_scored(tmp_path):
    invoke("simulate-science", tmp_path / "sim", "--size", "128 128", "--defects-per-level", "5", "--seed", "5", "-q")
    invoke("science", tmp_path / "sim", "-o", tmp_path / "mask.fits", "--author", "A", "-q")
    _, truth, rows = read_truth(tmp_path / "sim" / "truth.fits")
    from badpix.mask.file import read_mask

    flags = read_mask(tmp_path / "mask.fits").image
    strong = rows[rows["extra1"] > 7]
    assert (flags[strong["y"], strong["x"]] != 0).mean() > 0.93
    assert ((flags != 0) & (truth == 0)).sum() == 0
    told = invoke("score", tmp_path / "mask.fits", tmp_path / "sim" / "truth.fits", "--search", "science")
    assert "STEADY" in told


@pytest.mark.slow
def test_a_field_that_stands_still_is_refused(tmp_path):
    invoke("simulate-science", tmp_path, "--size", "64 64", "--defects-per-level", "1", "--no-dithered", "-q")
    result = CliRunner().invoke(badpix, ["science", str(tmp_path), "-o", str(tmp_path / "m.fits"), "--author", "A"])
    assert result.exit_code == 1
    assert "one pointing" in result.output
    assert not (tmp_path / "m.fits").exists()
