"""A pixel of a science exposure: bits in words, who set them, and the mask that was used."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from mask_files import SUB64, make_mask

from badpix import dq
from badpix.cli.main import badpix
from badpix.errors import UsageError
from badpix.review import exposure_pixel as lost

V = dq.VALUE


def write_exposure(path, flags, *, integrations=0, mask="", wcs=False):
    """A MIRI SUB64 exposure with these (x, y): DQ."""
    shape = ((integrations,) if integrations else ()) + (SUB64.ysize, SUB64.xsize)
    image, bits = np.full(shape, 3.0, np.float32), np.zeros(shape, np.uint32)
    for (x, y), value in flags.items():
        bits[..., y, x] = value
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(image, name="SCI"),
        fits.ImageHDU(image / 10, name="ERR"),
        fits.ImageHDU(bits, name="DQ"),
    ]
    header = {
        "TELESCOP": "JWST",
        "INSTRUME": "MIRI",
        "DETECTOR": "MIRIMAGE",
        "SUBARRAY": "SUB64",
        "BUNIT": "DN/s",
        "SUBSTRT1": SUB64.xstart,
        "SUBSTRT2": SUB64.ystart,
        "SUBSIZE1": SUB64.xsize,
        "SUBSIZE2": SUB64.ysize,
        "FASTAXIS": 1,
        "SLOWAXIS": 2,
        "R_MASK": mask,
        "DATAMODL": "ImageModel",
    }
    hdus[0].header.update(header)
    if wcs:
        hdus[1].header.update(
            {
                "CTYPE1": "RA---TAN",
                "CTYPE2": "DEC--TAN",
                "CRVAL1": 80.0,
                "CRVAL2": -30.0,
                "CRPIX1": 20.0,
                "CRPIX2": 30.0,
                "CDELT1": -3e-5,
                "CDELT2": 3e-5,
                "WCSAXES": 2,
                "CUNIT1": "deg",
                "CUNIT2": "deg",
            }
        )
    fits.HDUList(hdus).writeto(path)
    return path


def test_bits_of_the_mask_are_told_from_those_of_the_exposure(tmp_path):
    flags = [(20, 10, "HOT+DO_NOT_USE")]
    mask = make_mask(tmp_path / "jwst_miri_mask_0028.fits", window=SUB64, flags=flags, SUBARRAY="SUB64")
    bits = {(20, 10): V["HOT"] | V["DO_NOT_USE"] | V["JUMP_DET"], (30, 10): V["SATURATED"] | V["DO_NOT_USE"]}
    path = write_exposure(tmp_path / "a_rate.fits", bits, mask=f"crds://{mask.name}")
    item = lost.explain_pixel(path, 20, 10)
    told = "\n".join(item.sentences)
    assert "HOT (hot pixel: excessive dark current): set by dq_init, from the mask jwst_miri_mask_0028.fits." in told
    assert "DO_NOT_USE (bad pixel, not to be used for science): set by dq_init, from the mask" in told
    assert "JUMP_DET (jump detected during the exposure): set by jump: a cosmic ray" in told
    assert item.full == (20 + SUB64.xstart - 1, 10 + SUB64.ystart - 1)
    told = "\n".join(lost.explain_pixel(path, 30, 10).sentences)
    assert "DO_NOT_USE (bad pixel, not to be used for science): set by ramp_fit (no usable group)" in told
    assert lost.explain_pixel(path, 40, 40).sentences == ["No bit is set: the pixel was used."]


def test_every_flag_of_the_table_has_words(tmp_path):
    """Whatever bit is set, someone set it: no flag is 'not known', and none is left out."""
    bits = {(k, 3): f.value for k, f in enumerate(dq.FLAGS, 4)}
    path = write_exposure(tmp_path / "a_rate.fits", bits, mask="N/A")
    for k, flag in enumerate(dq.FLAGS, 4):
        told = lost.explain_pixel(path, k, 3).sentences
        assert told[0].startswith(f"{flag.name} (")
        assert flag.use == "never" or "not known" not in told[0]


def test_integrations_are_counted_and_another_mask_is_noticed(tmp_path):
    path = write_exposure(tmp_path / "a_rateints.fits", {}, integrations=3)
    with fits.open(path, mode="update") as hdus:
        hdus["DQ"].data[1, 10, 20] = V["SATURATED"]
    mask = make_mask(tmp_path / "m.fits", window=SUB64, flags=[(20, 10, "RC+DO_NOT_USE")], SUBARRAY="SUB64")
    told = lost.explain_pixel(path, 20, 10, mask).sentences
    assert "in 1 of 3 integrations" in told[0]
    assert "The mask has DO_NOT_USE, RC here, which the exposure lacks: another mask was used." in told


def test_the_mask_is_found_in_the_crds_cache(tmp_path, monkeypatch):
    place = tmp_path / "cache" / "references" / "jwst" / "miri"
    place.mkdir(parents=True)
    make_mask(place / "jwst_miri_mask_0099.fits", window=SUB64, flags=[(20, 10, "DEAD")], SUBARRAY="SUB64")
    path = write_exposure(tmp_path / "a_cal.fits", {(20, 10): V["DEAD"]}, mask="crds://jwst_miri_mask_0099.fits")
    assert "not at hand" in lost.explain_pixel(path, 20, 10).notes[0]
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "cache"))
    item = lost.explain_pixel(path, 20, 10)
    assert item.mask is not None
    assert item.mask.flags == ["DEAD"]


def test_a_position_of_the_sky_is_a_pixel(tmp_path):
    path = write_exposure(tmp_path / "a_cal.fits", {(19, 29): V["OUTLIER"]}, wcs=True)
    assert lost.find_pixel(path, 80.0, -30.0) == (19, 29)
    done = CliRunner().invoke(badpix, ["explain", str(path), "--radec", "80.0", "-30.0", "--json"])
    assert done.exit_code == 0, done.output
    (pixel,) = json.loads(done.stdout)["pixels"]
    assert (pixel["x"], pixel["y"], pixel["flags"]) == (19, 29, ["OUTLIER"])
    with pytest.raises(UsageError, match="lies outside"):
        lost.find_pixel(path, 81.0, -30.0)


def test_command(tmp_path):
    path = write_exposure(tmp_path / "a_rate.fits", {(20, 10): V["JUMP_DET"]})
    done = CliRunner().invoke(badpix, ["explain", str(path), "20", "10"])
    assert done.exit_code == 0, done.output
    assert "JUMP_DET" in done.stdout
    assert "Good" not in done.stdout
    assert CliRunner().invoke(badpix, ["explain", str(path), "99", "10"]).exit_code == 2
    assert CliRunner().invoke(badpix, ["explain", str(path)]).exit_code == 2
