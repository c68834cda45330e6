"""badpix ramps: counts on made-up products with known flags, levels and slopes, and on simulated ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from badpix import dq
from badpix.cli.main import badpix
from badpix.errors import DataError, UsageError
from badpix.io import exposure as exposures
from badpix.prepare import products
from badpix.review import exposure_ramps
from badpix.review.plots_exposure import choose_examples
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate

SAT, JUMP, DNU = dq.VALUE["SATURATED"], dq.VALUE["JUMP_DET"], dq.VALUE["DO_NOT_USE"]
NY, NX = 24, 20
ROOT = "jw09001002001_02101_00001_nis"


def write(folder, product, **images):
    header = fits.Header()
    for key, value in {
        "INSTRUME": "NIRISS",
        "DETECTOR": "NIS",
        "SUBARRAY": "SUB",
        "SUBSTRT1": 1,
        "SUBSTRT2": 1,
        "SUBSIZE1": NX,
        "SUBSIZE2": NY,
        "FASTAXIS": -2,
        "TGROUP": 10.0,
        "NINTS": 2,
        "NGROUPS": 5,
    }.items():
        header[key] = value
    hdus = [fits.PrimaryHDU(header=header), *(fits.ImageHDU(image, name=name) for name, image in images.items())]
    path = folder / f"{ROOT}_{product}.fits"
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.fixture
def exposure(tmp_path):
    """Products of two integrations of five groups, with these things in them, all off the reference border."""
    rng = np.random.default_rng(1)
    flags = np.zeros((2, 5, NY, NX), np.uint8)
    flags[:, :, 6, 7] = SAT  # saturated throughout
    flags[0, 3:, 8, 9] = SAT  # in part, in one integration
    flags[:, 1:, 9, 9] = SAT  # one good group
    flags[1, 2, 10, 10] = JUMP
    flags[:, 4, 12, 12] = JUMP
    flags[:, :, 14, 14] = DNU  # by the mask in use
    known = np.zeros((NY, NX), np.uint32)
    known[14, 14] = DNU | dq.VALUE["DEAD"]
    known[0] = dq.VALUE["REFERENCE_PIXEL"]
    offset = 7.0 * (np.arange(NY) % 2)[:, None]  # odd rows: the fast axis of NIRISS is y
    noise = rng.normal(0, 2.0, (2, 5, NY, NX))
    bands = rng.normal(0, 5.0, (2, 5, 1, NX))
    after = (noise + 1000 * np.arange(5)[:, None, None]).astype(np.float32)
    before = (after + offset + bands + 50).astype(np.float32)
    linear = after + np.float32(1e-6) * after**2
    rate = np.full((NY, NX), 100.0, np.float32)
    rate[6, 7] = rate[9, 9] = np.nan
    rate[14, 14] = 0
    rate[15, 15] = 0
    extra = {"GROUPDQ": flags, "PIXELDQ": known}
    write(tmp_path, "dq_init", SCI=before, PIXELDQ=known, GROUPDQ=np.zeros_like(flags))
    write(tmp_path, "superbias", SCI=before, **extra)
    write(tmp_path, "refpix", SCI=after, **extra)
    write(tmp_path, "linearity", SCI=linear, **extra)
    write(tmp_path, "rate", SCI=rate, DQ=known)
    return write(tmp_path, "jump", SCI=linear, **extra)


def look(path):
    (found,) = products.find_products([path]).values()
    with exposures.unpacking() as workdir:
        return {s.name: s.numbers for s in exposure_ramps.look(products.open_products(found, workdir))}


def test_flags_are_counted(exposure):
    steps = look(exposure)
    assert steps["dq_init"]["flags"] == {"DO_NOT_USE": 1, "DEAD": 1, "REFERENCE_PIXEL": NX}
    assert steps["dq_init"]["flagged science pixels"] == 1
    assert steps["saturation"]["saturated groups"] == 10 + 2 + 8
    assert steps["saturation"]["ramps saturated in part"] == 1 + 2
    assert steps["saturation"]["ramps saturated from the start"] == 2
    assert steps["jump"]["jump flags"] == 3
    assert steps["jump"]["jump flags by group"] == [0, 0, 1, 0, 2]
    assert steps["jump"]["ramps hit"] == 3


def test_levels_before_and_after(exposure):
    refpix = look(exposure)["refpix"]
    assert refpix["compared with"] == "superbias"
    assert refpix["level before, DN"] == pytest.approx(53.5, abs=4)
    assert refpix["level after, DN"] == pytest.approx(0, abs=0.5)
    assert refpix["odd-even before, DN"] == pytest.approx(-7, abs=3)
    assert refpix["odd-even after, DN"] == pytest.approx(0, abs=0.8)
    assert refpix["banding before, DN"] > 3 * refpix["banding after, DN"]
    assert refpix["spread after, DN"] == pytest.approx(2, rel=0.15)


def test_linearity_by_signal(exposure):
    linearity = look(exposure)["linearity"]
    (row,) = linearity["by signal"].values()
    assert row["correction, DN"] == pytest.approx(16, rel=0.02)
    science = (NY - 8) * (NX - 8)  # the detector's border of 4, though the window is small
    assert row["pixels"] <= science + 4 * NX * 2


def test_slopes_are_explained(exposure):
    slopes = look(exposure)["ramp_fit"]
    assert (slopes["zero"], slopes["NaN"]) == (2, 2)
    assert slopes["zero or NaN because"] == {
        "saturated in all groups": 1,
        "one good group, the others saturated": 1,
        "not to be used by the mask in use (DO_NOT_USE)": 1,
        "no reason in the flags": 1,
    }


def test_slopes_without_ramps_are_explained_by_their_dq(exposure):
    for path in exposure.parent.glob("*.fits"):
        if not path.name.endswith("_rate.fits"):
            path.unlink()
    (rate,) = exposure.parent.glob("*_rate.fits")
    assert look(rate)["ramp_fit"]["zero or NaN because"] == {
        "not to be used (DO_NOT_USE)": 1,
        "no reason in the flags": 3,
    }


def test_any_set_of_products_will_do(exposure):
    paths = sorted(exposure.parent.glob("*.fits"))
    whole = look(exposure)
    for path in paths:
        if path != exposure:
            path.unlink()
    alone = look(exposure)
    assert set(alone) == {"saturation", "jump"}
    assert alone["jump"] == whole["jump"]


def test_names(tmp_path):
    assert products.split_name(tmp_path / "jw1_nrcb5_1_ramp_fit.fits") == ("jw1_nrcb5", "rateints")
    assert products.split_name(tmp_path / "jw1_nrcb5_refpix_nosides.fits.gz") == ("jw1_nrcb5", "refpix_nosides")
    with pytest.raises(DataError, match="tells no product"):
        products.split_name(tmp_path / "jw1_nrcb5_cal.fits")
    with pytest.raises(UsageError, match="no files"):
        products.find_products([])


def test_products_of_two_detectors_do_not_mix(exposure):
    with fits.open(exposure, mode="update") as hdus:
        hdus[0].header["DETECTOR"] = "NRS1"
    with pytest.raises(DataError, match="detector or window differ"):
        look(exposure)


def test_examples_are_spread_and_stable():
    where = np.zeros((30, 30), bool)
    where[::3, ::3] = True
    chosen = choose_examples(where, 9)
    assert len(chosen) == len(set(chosen)) == 9
    assert all(where[y, x] for x, y in chosen)
    assert chosen == choose_examples(where, 9)
    assert (chosen[0], chosen[-1]) == ((0, 0), (27, 27))
    assert choose_examples(np.zeros((4, 4), bool), 9) == []


@pytest.mark.slow
def test_command_table_json_and_pictures(exposure, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    run = CliRunner()
    shown = run.invoke(badpix, ["ramps", str(exposure)])
    assert shown.exit_code == 0, shown.output
    assert "ramps saturated in part" in shown.stdout
    folder = tmp_path / "pictures"
    arguments = ["ramps", str(exposure), "--plot", str(folder), "--pixel", "12", "12", "--json", "-q"]
    result = run.invoke(badpix, arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["exposures"][0]["steps"]["jump"]["jump flags"] == 3
    names = {p.name.removeprefix(f"{ROOT}_") for p in folder.iterdir()}
    assert names == {
        "flags.png",
        "refpix.png",
        "superbias.png",
        "linearity.png",
        "saturation.png",
        "jumps.png",
        "slopes.png",
        "pixel_12_12.png",
    }
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pixel", "1", "2"], "give --plot DIR"),
        (["--plot", "p", "--pixel", "20", "2"], "outside the image of 20 x 24"),
        (["--plot", "p", "--integration", "3"], "the exposure has 2"),
    ],
)
def test_wrong_calls(exposure, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(badpix, ["ramps", str(exposure), *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_simulated_exposure(tmp_path):
    values = {
        "size": "96 96",
        "flats": 0,
        "darks": 1,
        "dark_groups": 12,
        "dark_products": ["uncal", "jump", "rate", "fitopt"],
    }
    written = simulate(tmp_path, SimulateSettings.from_values(values, "test"))
    steps = look(written["darks"][0])
    slopes = steps["ramp_fit"]
    assert slopes["NaN"] > 0
    assert slopes["zero or NaN because"] == {"saturated in all groups": slopes["NaN"] + slopes["zero"]}
    assert slopes["pedestal spread, DN"] == pytest.approx(20, rel=0.3)
    assert steps["jump"]["jump flags"] > 0
