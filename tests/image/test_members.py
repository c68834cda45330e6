"""Members that don't fit: named, left out on request; moving targets; results that would ruin an exposure."""

import io
import warnings

import asdf
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from notes import heard

from badpix.cli.main import outlier
from badpix.errors import CheckError, DataError
from badpix.image import driver as image_driver
from badpix.image.alignment import REACH, measure_offset
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import Setup


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four dithered groups."""
    setup = Setup(seed=65, shape=(200, 200), stars=4000.0, dither=6.0, trail=0.0)
    return simulate(tmp_path_factory.mktemp("four"), setup).parent


def copy(source, target):
    """The exposures, to be changed."""
    target.mkdir()
    for path in sorted(source.glob("*_cal.fits")):
        (target / path.name).write_bytes(path.read_bytes())
    return sorted(target.glob("*_cal.fits"))


def flag(paths, output, parameter_set="default", skip_bad=False, **options):
    p = ImageSettings.from_values(options, "test", parameter_set)
    with heard() as notes:
        written, summary = image_driver.flag_images(read_inputs(paths), p, output, skip_bad=skip_bad)
    return notes, written, summary


def read_sky(path):
    with fits.open(path) as hdul, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return asdf.open(io.BytesIO(hdul["ASDF"].data.tobytes()), lazy_load=False).tree["meta"]["wcs"]


def break_error(hdul):
    hdul["ERR"].data[:] = np.nan


def break_filter(hdul):
    hdul[0].header["FILTER"] = "F090W"


def break_wcs(hdul):
    del hdul["ASDF"]
    for key in list(hdul["SCI"].header):
        if key.startswith(("CTYPE", "CRVAL", "CRPIX", "CD", "CUNIT", "WCSAXES")):
            del hdul["SCI"].header[key]


def break_place(hdul):
    for name in ("SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
        hdul[name].data = np.roll(hdul[name].data, (13, 40), (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("change", [break_filter, break_wcs, break_place])
def test_a_member_that_cannot_be_used_is_named_and_left_out_on_request(four, tmp_path, change):
    paths = copy(four, tmp_path / "in")
    with fits.open(paths[0], mode="update") as hdul:  # the first one: the others decide
        change(hdul)
    with pytest.raises(DataError, match=paths[0].name):
        flag(paths, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    notes, written, summary = flag(paths, tmp_path / "out", skip_bad=True)
    assert len(written) == 3
    assert all(paths[0].name[:31] not in path.name for path in written)
    assert any(note.startswith("left out: ") and paths[0].name in note for note in notes)
    assert summary["left_out"] == [paths[0].name]


@pytest.mark.slow
def test_nothing_is_written_where_an_exposure_would_be_ruined(four, tmp_path):
    paths = copy(four, tmp_path / "in")
    with fits.open(paths[1], mode="update") as hdul:
        break_error(hdul)
    with pytest.raises(CheckError, match=f"{paths[1].name}.* max_flagged is 5 %; nothing was written"):
        flag(paths, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    run = CliRunner().invoke(outlier, ["image", *map(str, paths), "-o", str(tmp_path / "out")])
    assert run.exit_code == 3
    _, written, _ = flag(paths, tmp_path / "out", max_flagged=100.0)
    assert len(written) == 4
    _, written, _ = flag(paths, tmp_path / "documented", "documented")  # the pipeline writes it
    assert len(written) == 4


@pytest.mark.parametrize("offset", [(30, -12), (REACH, 0), (-3, -2)])
def test_the_offset_of_a_field_is_found_among_hits(offset):
    rng = np.random.default_rng(7)
    sources = rng.uniform(0, 600, (80, 2))
    peaks = np.concatenate([sources[:60] + offset + rng.normal(0, 0.3, (60, 2)), rng.uniform(0, 600, (200, 2))])
    rng.shuffle(peaks)
    found = measure_offset(peaks, sources)
    assert found == pytest.approx(offset, abs=0.3)
    assert measure_offset(rng.uniform(0, 600, (200, 2)), sources) is None
    assert measure_offset(sources + rng.normal(0, 0.4, sources.shape), sources) is None
    assert measure_offset(sources[:3], sources) is None


def add_target(paths, step, keywords=True):
    """A source that moves by ``step`` arcsec (RA, Dec) from exposure to exposure; its pixels."""
    ra0, dec0 = (float(v) for v in read_sky(paths[0])(100, 100))
    places = []
    for i, path in enumerate(paths):
        ra, dec = ra0 + i * step[0] / 3600 / np.cos(np.radians(dec0)), dec0 + i * step[1] / 3600
        x, y = (float(v) for v in read_sky(path).invert(ra, dec))
        yy, xx = np.mgrid[:200, :200]
        shape = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 1.1**2))
        with fits.open(path, mode="update") as hdul:
            noise = np.nanmedian(hdul["ERR"].data)
            hdul["SCI"].data += (200 * noise * shape).astype("f4")
            hdul["ERR"].data[:] = np.sqrt(hdul["ERR"].data ** 2 + 100 * noise**2 * shape)
            hdul[0].header["TARGTYPE"] = "MOVING"
            if keywords:
                hdul["SCI"].header["MT_RA"], hdul["SCI"].header["MT_DEC"] = ra, dec
        places.append((round(x), round(y)))
    return places


def lost_pixels(paths, written, places):
    """How many of the 9 pixels around the target were flagged, by exposure."""
    out = []
    for path, crf, (x, y) in zip(paths, written, places, strict=True):
        with fits.open(path) as before, fits.open(crf) as after:
            new = ((after["DQ"].data & 16) != 0) & ((before["DQ"].data & 1) == 0)
            out.append(int(new[y - 1 : y + 2, x - 1 : x + 2].sum()))
    return out


@pytest.mark.slow
def test_a_moving_target_is_kept_and_said(four, tmp_path):
    paths = copy(four, tmp_path / "in")
    places = add_target(paths, (0.7, 0.3))
    notes, written, _ = flag(paths, tmp_path / "out")
    assert sum(lost_pixels(paths, written, places)) == 0
    assert any("aligned on the target" in note and "2.28 arcsec" in note for note in notes)
    notes, written, _ = flag(paths, tmp_path / "not", moving_target="never", max_flagged=100.0)
    assert sum(lost_pixels(paths, written, places)) > 8
    assert any("not aligned" in note for note in notes)


@pytest.mark.slow
def test_a_moving_target_without_its_keywords_is_said(four, tmp_path):
    paths = copy(four, tmp_path / "in")
    add_target(paths, (0.7, 0.3), keywords=False)
    notes, _, _ = flag(paths, tmp_path / "out")
    assert any("MT_RA or MT_DEC is missing" in note for note in notes)
