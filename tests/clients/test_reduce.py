"""Simulated ramps through the real pipeline steps: they run, and the quick reduction agrees with them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from badpix.settings.simulate import SimulateSettings
from badpix.simulation.defects import measure_truth
from badpix.simulation.detector import make_scene
from badpix.simulation.files import make_recipe, simulate
from badpix.simulation.reference_files import write_reference_files

pytestmark = [
    pytest.mark.clients,
    pytest.mark.filterwarnings("ignore"),  # what the clients warn of is theirs
]
datamodels = pytest.importorskip("stdatamodels.jwst.datamodels", reason="stdatamodels is not installed")
pytest.importorskip("jwst", reason="jwst is not installed")

PRODUCTS = ["uncal", "rate", "rateints", "jump", "fitopt"]
MODELS = {
    "uncal": "Level1bModel",
    "rate": "ImageModel",
    "rateints": "CubeModel",
    "jump": "RampModel",
    "fitopt": "RampFitOutputModel",
}


def make(folder, **values):
    values = {"flats": 0, "darks": 1, "dark_products": PRODUCTS, "dark_groups": 25, **values}
    p = SimulateSettings.from_values(values, "test")
    return make_recipe(p), simulate(folder, p)


@pytest.mark.parametrize("detector", ["NRCA1", "MIRIMAGE", "MIRIFULONG", "NIS", "NRS2", "GUIDER2"])
def test_models_open_by_themselves(tmp_path, detector):
    _, written = make(tmp_path, detector=detector, size=[40, 48], dark_groups=6, integrations=2)
    for path in written["darks"]:
        with datamodels.open(str(path), strict_validation=True) as model:
            assert type(model).__name__ == MODELS[path.stem.rsplit("_", 1)[1]]
            assert model.meta.instrument.detector == detector
            assert model.meta.exposure.group_time > 0


def compare(tmp_path, recipe, written):
    """Reduce the uncal of a simulation and compare with its quick products."""
    from reduce import reduce_exposure

    quick = {p.stem.rsplit("_", 1)[1]: p for p in written}
    aside = tmp_path / "real"
    aside.mkdir()
    uncal = aside / quick["uncal"].name
    uncal.write_bytes(quick["uncal"].read_bytes())
    references = write_reference_files(tmp_path / "references", make_scene(recipe))
    real = reduce_exposure(uncal, references, recipe, PRODUCTS[1:])
    scene = make_scene(recipe)
    good = measure_truth(scene.defects, scene.reference) == 0

    def both(product, name):
        return fits.getdata(real[product], name), fits.getdata(quick[product], name)

    return good, both


@pytest.mark.parametrize(
    ("detector", "groups", "integrations"), [("NRCALONG", 25, 1), ("MIRIMAGE", 25, 1), ("NRS1", 14, 3)]
)
def test_quick_reduction_equals_the_real_one(tmp_path, detector, groups, integrations):
    recipe, written = make(
        tmp_path / "quick", detector=detector, size=[96, 100], dark_groups=groups, integrations=integrations
    )
    _, both = compare(tmp_path, recipe, written["darks"])

    theirs, ours = both("jump", "GROUPDQ")
    for bit in (1, 2, 4):
        differ = np.count_nonzero((theirs & bit) != (ours & bit))
        assert differ <= 2e-3 * max(np.count_nonzero(theirs & bit), 500), bit
    np.testing.assert_allclose(*both("jump", "SCI"), atol=0.02)

    for product in ("rate", "rateints"):
        error = np.nanmedian(both(product, "ERR")[0])
        for name in ("SCI", "ERR", "VAR_POISSON", "VAR_RNOISE"):
            theirs, ours = both(product, name)
            np.testing.assert_array_equal(np.isnan(theirs), np.isnan(ours))
            scale = error**2 if name.startswith("VAR") else error
            apart = np.abs(theirs - ours) / (scale + np.abs(theirs))
            limit = 0.05 if name == "ERR" else 0.01  # ERR of ramps in pieces: another order of adding variances
            assert np.nanpercentile(apart, 99.9) < limit, (product, name)
        theirs, ours = both(product, "DQ")
        assert np.count_nonzero((theirs & 7) != (ours & 7)) <= 10
    theirs, ours = both("fitopt", "PEDESTAL")
    np.testing.assert_allclose(theirs, ours, atol=0.05)
    theirs, ours = both("fitopt", "SLOPE")
    np.testing.assert_allclose(theirs[:, :2], ours, atol=0.01)


def test_truth_arrives_in_the_real_products(tmp_path):
    recipe, written = make(tmp_path / "quick", size=[128, 128], dark_groups=25)
    _, both = compare(tmp_path, recipe, written["darks"])
    scene = make_scene(recipe)
    rate, pedestal = both("rate", "SCI")[0], both("fitopt", "PEDESTAL")[0][0]
    hot = scene.defects.of("HOT")
    hot = hot[hot["level"] >= 10]
    np.testing.assert_allclose(rate[hot["y"], hot["x"]], hot["level"] / recipe.physics.gain, rtol=0.1)
    full = scene.defects.of("SATURATED")
    assert np.isnan(rate[full["y"], full["x"]]).all()
    low = scene.defects.of("LOW_PEDESTAL")
    low = low[low["level"] >= 1000]
    np.testing.assert_allclose(pedestal[low["y"], low["x"]], -low["level"], atol=150)


@pytest.mark.parametrize("start", [(1, 1), (900, 700)])
def test_windows_go_through_the_real_refpix_step(tmp_path, start):
    recipe, written = make(tmp_path / "quick", window=[160, 160], start=start, subarray="SUB160", dark_groups=12)
    good, both = compare(tmp_path, recipe, written["darks"])
    assert (~good).sum() < 4000
    theirs, ours = both("rate", "SCI")
    error = np.nanmedian(both("rate", "ERR")[0])
    apart = ((theirs - ours) / error)[good]
    apart -= np.nanmedian(apart)  # without reference rows on all sides the zero point is a matter of taste
    assert np.nanstd(np.clip(apart, -3, 3)) < 0.6


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("detector", "groups"), [("NRCB1", 4), ("NIS", 4), ("MIRIMAGE", 8)])
def test_full_frames_through_the_real_refpix_step(tmp_path, detector, groups):
    recipe, written = make(tmp_path / "quick", detector=detector, dark_groups=groups, cosmic_rays=1.0)
    good, both = compare(tmp_path, recipe, written["darks"])
    theirs, ours = both("rate", "SCI")
    error = np.nanmedian(both("rate", "ERR")[0])
    apart = ((theirs - ours) / error)[good]
    assert abs(np.nanmedian(apart)) < 0.05
    assert np.nanstd(np.clip(apart, -3, 3)) < 0.5
