"""Defects in raw ramps: who gets what, and what is added to the counts."""

import numpy as np
import pytest
from astropy.io import fits

from badpix.errors import DataError
from badpix.prepare import injected_raws

STRENGTHS = {
    "hot": np.array([50.0, 100.0]),
    "low_pedestal": np.array([300.0, 600.0]),
    "intermittent": np.array([0.5]),
}


def choose(good, **changes):
    noise = np.full(good.shape, 5, np.float32)
    options = {"exposures": 4, "most": 10_000, "rate": 80.0, "ipc": 0.01, "gain": 2.0, "seed": 1, **changes}
    return injected_raws.choose(good, STRENGTHS, noise, **options)


def test_chosen_pixels_are_good_apart_and_evenly_shared():
    good = np.ones((96, 120), bool)
    good[:, 40:60] = False
    found = choose(good)
    assert good[found.y, found.x].all()
    assert len(np.unique(np.stack([found.y % 8, found.x % 8], axis=1), axis=0)) == 1
    cells = np.bincount(2 * found.kind + found.level, minlength=5)
    assert cells.max() - cells.min() <= 1
    blinking = found.kind == found.kinds.index("intermittent")
    assert (found.traits.blinks[:, blinking].sum(axis=0) == 2).all()
    assert len(choose(good, most=20).y) == 20
    other = choose(good, seed=2)
    assert set(zip(other.y, other.x, strict=True)) != set(zip(found.y, found.x, strict=True))


@pytest.fixture
def raw(tmp_path):
    """A raw exposure of constant counts: two integrations of five groups."""
    primary = fits.PrimaryHDU()
    primary.header["TGROUP"], primary.header["NFRAMES"] = 10.0, 1
    image = fits.ImageHDU(np.full((2, 5, 64, 64), 10000, np.uint16), name="SCI")
    path = tmp_path / "a_uncal.fits"
    fits.HDUList([primary, image]).writeto(path)
    return path


def test_charge_goes_to_the_pixel_and_its_neighbors_and_nothing_else_changes(raw, tmp_path):
    chosen = choose(np.ones((64, 64), bool))
    for exposure in range(2):
        injected_raws.write_injected(raw, tmp_path / f"{exposure}.fits", chosen, exposure, 1)
    new = [fits.getdata(tmp_path / f"{k}.fits", "SCI").astype(float) - 10000 for k in (0, 1)]
    touched = np.zeros((64, 64), bool)
    for y, x, kind, strength, k in zip(
        chosen.y, chosen.x, chosen.kind, chosen.strength, range(len(chosen.y)), strict=True
    ):
        name = chosen.kinds[kind]
        touched[y - 1 : y + 2, x - 1 : x + 2] = True
        if name == "low_pedestal":
            assert (new[0][:, :, y, x] == -strength).all()
            assert not new[0][:, :, y, x + 1].any()
            continue
        rate = strength if name == "hot" else 80.0 * chosen.traits.blinks[0, k]
        expected = rate * 10 * np.arange(1, 6)
        scatter = 4 * np.sqrt(expected / 2) + 2
        assert (np.abs(new[0][0, :, y, x] - 0.96 * expected) <= scatter).all()
        assert (np.abs(new[0][0, :, y + 1, x] - 0.01 * expected) <= 0.02 * scatter + 1).all()
    assert not new[0][:, :, ~touched].any()
    assert (new[0] != new[1]).any()


@pytest.mark.parametrize(
    ("keyword", "value"), [("NFRAMES", "x"), ("GROUPGAP", "x"), ("GROUPGAP", -4), ("NFRAMES", 1.5)]
)
def test_a_readout_that_is_no_count_is_named(raw, tmp_path, keyword, value):
    fits.setval(raw, keyword, value=value)
    chosen = choose(np.ones((64, 64), bool))
    with pytest.raises(DataError, match=f"{keyword} = {value!r}, expected a whole number"):
        injected_raws.write_injected(raw, tmp_path / "out.fits", chosen, 0, 1)
    assert not (tmp_path / "out.fits").exists()


def test_counts_by_kind_and_strength():
    chosen = choose(np.ones((64, 64), bool))
    hot, low = (chosen.kind == chosen.kinds.index(name) for name in ("hot", "low_pedestal"))
    maps = {name: np.zeros((64, 64), bool) for name in ("hot", "low_pedestal")}
    maps["hot"][chosen.y[hot], chosen.x[hot]] = True
    maps["hot"][chosen.y[low], chosen.x[low]] = True
    rows = injected_raws.list_counts(chosen, maps, [("hot",), ("low_pedestal",), ("hot", "intermittent")])
    n = [int(((chosen.kind == a) & (chosen.level == b)).sum()) for a, b in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))]
    assert rows == [(n[0], n[0], n[0]), (n[1], n[1], n[1]), (n[2], 0, n[2]), (n[3], 0, n[3]), (n[4], 0, 0)]
