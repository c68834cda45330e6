"""The real users of our masks: stdatamodels, the pipeline's DQ initialization, CRDS; real products as our input."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import detectors, dq
from badpix.cli.main import badpix
from badpix.detectors import Window
from badpix.mask import file as mask_file
from badpix.mask import header as mask_header
from badpix.settings.reference import ReferenceSettings
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.detector import make_scene
from badpix.simulation.files import make_recipe, simulate
from badpix.simulation.reference_files import write_reference_files

os.environ.setdefault("CRDS_SERVER_URL", "http://localhost:1")

from make_files import make_flats, write_rates
from mask_files import SUB64, SUB160, make_image

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

TEXTS = mask_header.check_texts(ReferenceSettings.in_set())
SOURCE = {"DATE-OBS": "2026-01-03", "DATE": "2026-02-03T00:00:00", "READPATT": "NRSRAPID"}
FLAGS = [flag for flag in dq.FLAGS if flag.use == "mask" and flag.name not in ("REFERENCE_PIXEL", "BAD_REF_PIXEL")]


def every_flag(detector, window=None):
    """A mask with each flag on pixels of its own, alone and with DO_NOT_USE."""
    facts = detectors.get(detector)
    image = make_image(detector, window)
    y0, x0 = image.shape[0] // 2, image.shape[1] // 2
    for k, flag in enumerate(FLAGS):
        image[y0, x0 - 20 + k] |= np.uint32(flag.value)
        image[y0 + 3, x0 - 20 + k] |= np.uint32(flag.value | 1)
    if image[0, 0]:
        image[0, 0] |= np.uint32(dq.VALUE["BAD_REF_PIXEL"] | 1)
    window = window or facts.full
    return image, window


def write(path, detector, window=None, subarray=None):
    image, window = every_flag(detector, window)
    sources = [{**SOURCE, "SUBARRAY": subarray or "FULL"}]
    header = mask_header.make_header(
        sources, detector, window, TEXTS, mask_header.Provenance("All flags, for a test.")
    )
    mask_file.write_mask(path, image, header)
    return path, image


DETECTORS = ["NRCA1", "NRCBLONG", "NIS", "GUIDER1", "NRS1", "MIRIMAGE", "MIRIFULONG"]


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_data_model_opens_and_decodes(tmp_path, detector):
    from stdatamodels.jwst import datamodels

    path, image = write(tmp_path / "mask.fits", detector)
    with datamodels.open(str(path), strict_validation=True) as model:
        assert type(model) is datamodels.MaskModel
        model.validate()
        np.testing.assert_array_equal(model.dq, image)
        assert model.meta.reftype == "MASK"
        assert model.meta.instrument.detector == detector
        model.save(str(tmp_path / "again.fits"))
    np.testing.assert_array_equal(mask_file.read_mask(tmp_path / "again.fits").image, image)


@pytest.mark.parametrize(
    ("detector", "window", "subarray"),
    [
        ("NRCA1", None, None),
        ("NRS1", Window(1, 1, 2048, 3200), None),
        ("GUIDER2", None, None),
        ("MIRIMAGE", SUB64, "SUB64"),
        ("NRCB1", SUB160, "SUB160"),
    ],
)
def test_dq_init_and_certify_take_it(tmp_path, ask, detector, window, subarray):
    path, _ = write(tmp_path / "mask.fits", detector, window, subarray)
    answer = ask("dq_init", path)
    assert answer.status == "passed", answer
    assert {row["flag"] for row in answer.rows} >= {flag.name for flag in FLAGS}
    answer = ask("certify", path)
    assert answer.status == "passed", answer


def run_step(path, ramp):
    """PIXELDQ and GROUPDQ after DQInitStep with our mask."""
    from jwst.dq_init import DQInitStep
    from stpipe import crds_client

    crds_client.get_context_used = lambda observatory: "N/A"
    logging.getLogger("stpipe").setLevel(logging.ERROR)
    step = DQInitStep()
    step.override_mask = str(path)
    done = step.run(ramp)
    assert done.meta.cal_step.dq_init == "COMPLETE"
    return np.asarray(done.pixeldq), np.asarray(done.groupdq)


def make_ramp(detector, window, name):
    from stdatamodels.jwst import datamodels

    facts = detectors.get(detector)
    ramp = datamodels.RampModel(data=np.zeros((1, 2, window.ysize, window.xsize), np.float32))
    ramp.meta.instrument.name, ramp.meta.instrument.detector = facts.instrument, detector
    ramp.meta.subarray.name = name
    ramp.meta.subarray.xstart, ramp.meta.subarray.ystart = window.xstart, window.ystart
    ramp.meta.subarray.xsize, ramp.meta.subarray.ysize = window.xsize, window.ysize
    ramp.meta.exposure.type = "MIR_IMAGE" if facts.instrument == "MIRI" else "NRC_IMAGE"
    ramp.meta.observation.date, ramp.meta.observation.time = "2026-03-01", "00:00:00"
    return ramp


@pytest.mark.parametrize(
    ("detector", "window", "name"),
    [
        ("MIRIMAGE", Window(1, 1, 1032, 1024), "FULL"),
        ("MIRIMAGE", Window(480, 500, 128, 64), "SUB128"),
        ("MIRIMAGE", SUB64, "SUB64"),
        ("NRCB1", Window(945, 965, 160, 160), "SUB160"),
    ],
)
def test_a_generic_mask_serves_full_frames_and_windows(tmp_path, detector, window, name):
    path, image = write(tmp_path / "mask.fits", detector)
    y, x = window.ystart - 1, window.xstart - 1
    wanted = image[y : y + window.ysize, x : x + window.xsize]
    pixel, group = run_step(path, make_ramp(detector, window, name))
    np.testing.assert_array_equal(pixel, wanted)
    np.testing.assert_array_equal(group & 1, np.broadcast_to(wanted & 1, group.shape))
    assert np.count_nonzero(wanted) >= 30


def test_the_reference_pixel_correction_stays_on(tmp_path):
    """A border with DO_NOT_USE switches the correction off without a word; ours has none."""
    from jwst.refpix import RefPixStep

    full = detectors.get("NRCB1").full
    path, _ = write(tmp_path / "mask.fits", "NRCB1")
    ramp = make_ramp("NRCB1", full, "FULL")
    ramp.data = ramp.data + np.float32(100)
    ramp.meta.subarray.fastaxis, ramp.meta.subarray.slowaxis = 1, -2
    ramp.pixeldq, ramp.groupdq = run_step(path, ramp.copy())
    done = RefPixStep().run(ramp)
    assert abs(float(np.median(done.data))) < 1


# --- real reductions as input ----------------------------------------------------------------------------


def test_slopes_of_the_real_ramp_fit_become_a_mask(tmp_path):
    from reduce import reduce_exposure

    values = {
        "detector": "NRCB1",
        "size": [96, 100],
        "flats": 3,
        "darks": 0,
        "flat_products": ["uncal"],
        "flat_groups": 8,
    }
    p = SimulateSettings.from_values(values, "test")
    recipe, written = make_recipe(p), simulate(tmp_path / "sim", p)
    scene = make_scene(recipe)
    references = write_reference_files(tmp_path / "references", scene)
    rates = [reduce_exposure(uncal, references, recipe, ("rate", "rateints"))["rate"] for uncal in written["flats"]]
    done = CliRunner().invoke(badpix, ["flats", *map(str, rates), "-o", str(tmp_path / "m.fits")])
    assert done.exit_code == 0, done.output
    found = mask_file.read_mask(tmp_path / "m.fits").image
    for name in ("DEAD", "LOW_QE", "OPEN"):
        d = scene.defects.of(name)
        assert len(d) > 3
        hit = (found[d["y"], d["x"]] & dq.VALUE[name]) != 0
        assert hit.mean() >= 0.95, name
        assert np.count_nonzero(found & dq.VALUE[name]) <= len(d) + 2, name


def test_real_integrations_go_through_the_flats(real_data, tmp_path, ask):
    """Not a flat, but a real product: read, searched, refused or written, in the right window."""
    (path,) = (real_data / "kevin218+Eureka").glob("*_rateints.fits")
    call = ["flats", str(path), "-o", str(tmp_path / "m.fits"), "--lamp-scaling", "none"]
    done = CliRunner().invoke(badpix, call)
    assert done.exit_code == 0, done.output
    found = mask_file.read_mask(tmp_path / "m.fits")
    assert found.image.shape == fits.getdata(path, "SCI").shape[1:]
    assert found.header["SUBARRAY"] == "SLITLESSPRISM"
    assert ask("certify", tmp_path / "m.fits").status == "passed"


def test_a_mask_made_from_flats_is_certified(tmp_path, ask):
    write_rates(tmp_path / "in", make_flats(3))
    done = CliRunner().invoke(badpix, ["flats", str(tmp_path / "in"), "-o", str(tmp_path / "m.fits")])
    assert done.exit_code == 0, done.output
    answer = ask("certify", tmp_path / "m.fits")
    assert answer.status == "passed", answer
