"""Ramps fitted with LIKELY: no fitopt file, a chi square beside the slopes; what needs no pedestal is found."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from dark_files import DEFECTS, SHAPE, write_darks

from badpix.cli.main import badpix
from badpix.io import evidence_file
from badpix.mask.file import read_mask

FLAGS = {"HOT": ("hot", "saturated"), "RC": ("rc", "inverse_rc"), "TELEGRAPH": ("telegraph",)}
TEXTS = ["--author", "A", "--useafter", "2026-01-01"]


def fit_with_likely(folder, rates):
    """What the step leaves of these exposures."""
    for rate in rates:
        root = rate.name.removesuffix("_rateints.fits").removesuffix("_rate.fits")
        shutil.move(folder / f"{root}_fitopt.fits", folder / f"{root}_likely_chisq.fits")


def run(folder, target, *words):
    done = CliRunner().invoke(badpix, ["darks", str(folder), "-o", str(target), *TEXTS, *words])
    assert "internal error" not in done.output
    return done


@pytest.fixture(scope="module")
def likely(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likely")
    fit_with_likely(folder, write_darks(folder, exposures=8))
    return folder


@pytest.mark.slow
def test_all_but_low_pedestals_are_found(likely, tmp_path):
    done = run(likely, tmp_path / "m.fits")
    assert done.exit_code == 0, done.output
    assert "low pedestal: not searched: ramps fitted with LIKELY have no pedestals" in done.output
    mask = read_mask(tmp_path / "m.fits")
    from badpix import dq

    for name, kinds in FLAGS.items():
        want = np.zeros(SHAPE, bool)
        for kind in kinds:
            for y, x in DEFECTS[kind]:
                want[y, x] = True
        np.testing.assert_array_equal((mask.image & dq.VALUE[name]) != 0, want, err_msg=name)
    with evidence_file.opened(tmp_path / "m_evidence.fits") as (kept, _):
        assert "low_pedestal" not in {rule.search for rule in kept.rules}


@pytest.mark.slow
def test_pedestals_of_the_other_darks_count(tmp_path):
    rates = write_darks(tmp_path, exposures=8)
    fit_with_likely(tmp_path, rates[:2])
    done = run(tmp_path, tmp_path / "m.fits")
    assert done.exit_code == 0, done.output
    assert "not searched" not in done.output
    assert "low pedestal: more than" in done.output


def test_votes_need_pedestals(likely, tmp_path):
    done = run(likely, tmp_path / "m.fits", "--set", "documented")
    assert done.exit_code == 1
    assert "fitted with LIKELY" in done.output
    assert "repeat the fit with OLS_C" in done.output


def test_without_a_chi_square_the_file_is_missing(likely, tmp_path):
    for path in likely.iterdir():
        if "likely" not in path.name:
            shutil.copy(path, tmp_path)
    done = run(tmp_path, tmp_path / "m.fits")
    assert done.exit_code == 1
    assert "_fitopt.fits is not beside it" in done.output
