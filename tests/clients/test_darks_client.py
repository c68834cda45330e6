"""Darks reduced by the real pipeline steps -> mask -> the real DQInitStep and ramp fit of another exposure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq
from badpix.cli.main import badpix
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.detector import make_scene
from badpix.simulation.files import make_recipe, simulate
from badpix.simulation.reference_files import write_reference_files
from badpix.simulation.truth_file import read_truth

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PRODUCTS = ("rate", "rateints", "jump", "fitopt")
CLEAR = {"HOT": 3.0, "SATURATED": 0.0, "RC": 800.0, "IRC": 300.0, "TELEGRAPH": 100.0, "NOISY": 6.0}
FLAGS = {
    "HOT": "HOT",
    "SATURATED": "HOT",
    "RC": "RC",
    "IRC": "RC",
    "TELEGRAPH": "TELEGRAPH",
    "NOISY": "UNRELIABLE_SLOPE",
}
WINDOW = {"window": [128, 128], "subarray": "SUB160", "darks": 5, "dark_groups": 24}
SETS = {
    "nircam": {"detector": "NRCALONG", "size": [128, 128]},
    "miri": {"detector": "MIRIMAGE", "size": [132, 128]},
    "nirspec": {"detector": "NRS1", "size": [128, 128], "integrations": 3, "darks": 3},
    # the refpix step puts each group of a window into a full frame: few of them
    "window at the edge": {"detector": "NRCB4", "start": [1, 1], **WINDOW},
    "window without": {"detector": "NRCB1", "start": [900, 1000], **WINDOW},
}


def reduce_set(folder, values):
    from reduce import reduce_exposure

    values = {"flats": 0, "darks": 6, "dark_products": ["uncal"], "dark_groups": 40, "defects_per_level": 3, **values}
    p = SimulateSettings.from_values(values, "test")
    recipe = make_recipe(p)
    written = simulate(folder, p)
    references = write_reference_files(folder / "references", make_scene(recipe))
    for uncal in written["darks"]:
        reduce_exposure(uncal, references, recipe, PRODUCTS)
    return recipe, references, written


LONG = ("window at the edge", "window without")


@pytest.mark.parametrize("name", [pytest.param(s, marks=pytest.mark.long) if s in LONG else s for s in SETS])
def test_darks_of_the_real_pipeline_make_a_mask_that_it_takes(tmp_path, ask, name):
    recipe, references, written = reduce_set(tmp_path / "set", SETS[name])
    uncals = written["darks"]
    mask = tmp_path / "mask.fits"
    rates = [str(u).replace("_uncal", "_rateints") for u in uncals[:-1]]
    done = CliRunner().invoke(badpix, ["darks", *rates, "-o", str(mask)], catch_exceptions=False)
    assert done.exit_code == 0, done.output

    image = fits.getdata(mask, "DQ")
    _, truth, rows = read_truth(next((tmp_path / "set").glob("*_truth.fits")))
    for kind, level in CLEAR.items():
        clear = rows[(rows["type"] == kind) & (rows["level"] >= level)]
        if kind == "TELEGRAPH":  # those that hardly ever switch in 40 groups are not clear
            clear = clear[np.maximum(clear["extra1"], clear["extra2"]) < 10]
        found = (image[clear["y"], clear["x"]] & dq.VALUE[FLAGS[kind]]) != 0
        if kind in ("TELEGRAPH", "NOISY"):  # fast switching and strong noise look alike in 40 groups
            found |= (image[clear["y"], clear["x"]] & (dq.VALUE["UNRELIABLE_SLOPE"] | dq.VALUE["TELEGRAPH"])) != 0
        assert found.mean() >= (0.99 if kind in ("HOT", "SATURATED") else 0.9), kind
        assert ((image[clear["y"], clear["x"]] & 1) != 0).mean() >= 0.9, kind
    good = (truth == 0) & ~make_scene(recipe).reference
    assert np.mean(image[good] != 0) < 2e-3

    answer = ask("dq_init", mask, uncals[-1])
    assert answer.status == "passed", answer.messages
    if "window" in SETS[name]:  # CRDS knows no small detectors
        certified = ask("certify", mask)
        assert certified.status == "passed", certified.messages
    from reduce import reduce_exposure

    again = tmp_path / "again" / Path(uncals[-1]).name
    again.parent.mkdir()
    again.write_bytes(Path(uncals[-1]).read_bytes())
    product = reduce_exposure(again, {**references, "mask": mask}, recipe, ("rate",))
    rate = fits.getdata(product["rate"], "SCI")
    unusable = (image & 1) != 0
    assert np.isnan(rate[unusable]).all()
    assert np.isfinite(rate[good & (image == 0)]).mean() > 0.99  # neighbors of saturated pixels have no rate


def test_saturated_pixels_are_hot_and_never_dead_after_the_merge(tmp_path):
    """A pixel that is saturated throughout has no slope in the flats either: HOT wins over DEAD."""
    values = {"detector": "NRCALONG", "size": [128, 128], "flats": 3, "flat_products": ["uncal"]}
    _, _, written = reduce_set(tmp_path / "set", values)
    from reduce import main

    main(str(tmp_path / "set"))
    masks = [str(tmp_path / f"{n}.fits") for n in ("flats", "darks", "merged", "dead")]
    run = CliRunner().invoke
    rates = [str(u).replace("_uncal", "_rate") for u in written["flats"]]
    assert run(badpix, ["flats", *rates, "-o", masks[0]]).exit_code == 0
    rates = [str(u).replace("_uncal", "_rateints") for u in written["darks"]]
    assert run(badpix, ["darks", *rates, "-o", masks[1]]).exit_code == 0
    _, _, rows = read_truth(next((tmp_path / "set").glob("*_truth.fits")))
    saturated = rows[rows["type"] == "SATURATED"]
    listed = tmp_path / "dead.txt"
    lines = [f"{row['x']} {row['y']} DEAD" for row in saturated]
    listed.write_text("\n".join(["x y flag", *lines]) + "\n")
    done = run(badpix, ["merge", masks[0], masks[1], "--manual", str(listed), "-o", masks[2]])
    assert done.exit_code == 0, done.output
    image = fits.getdata(masks[2], "DQ")[saturated["y"], saturated["x"]]
    assert np.all(image & dq.VALUE["HOT"])
    assert not np.any(image & dq.VALUE["DEAD"])
    assert np.all(image & dq.VALUE["DO_NOT_USE"])
