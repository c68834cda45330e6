"""Flats in several filters: searched apart and joined, so that a pixel that is poor in some is found."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from make_files import couple, make_flats, put_open, write_rate, write_rates

from badpix.detectors import Window
from badpix.errors import DataError, UsageError
from badpix.flats import filter_sets, judged, search
from badpix.flats.build import build_flats
from badpix.io import evidence_file
from badpix.io.exposure import open_exposure, read_reference_pixels
from badpix.mask.file import read_mask
from badpix.mask.header import check_texts
from badpix.numerics import neighbors
from badpix.review.explain import explain
from badpix.settings.flats import FlatSettings
from badpix.settings.reference import ReferenceSettings

FILTERS = ("F070W", "F090W", "F115W", "F150W", "F200W", "F212N")
SHAPE = (80, 96)
POOR = {(20, 30): (1, 4), (50, 60): (0,), (61, 10): (0, 1, 2, 3, 4)}  # place: filters in which it is poor
DEAD, OPEN, LOW = (10, 70), (40, 40), (70, 80)  # in all filters


def write_sets(folder, filters=FILTERS, n=3):
    """Three flats of each filter, with another level, gradient and noise in each."""
    paths = []
    for k, name in enumerate(filters):
        stack = make_flats(n, SHAPE, seed=10 + k, gradient=0.1 * (k - 2), level=20.0 * (k + 1), noise=0.004)
        for place, poor in POOR.items():
            if k in poor:
                stack[:, *place] *= 0.02 if place == (50, 60) else 0.3
        stack[:, *DEAD] = 0.0
        stack[:, *LOW] *= 0.2
        put_open(stack, *OPEN, 0.1)
        paths += write_rates(folder / name, np.stack([couple(s, 0.0055) for s in stack]), FILTER=name)
    return paths


def search_sets(paths, **changes):
    rates = [open_exposure(p) for p in paths]
    reference = read_reference_pixels(rates[0])
    return filter_sets.search(filter_sets.find_sets(rates), FlatSettings(**changes), reference=reference)


def expected():
    """Type -> map."""
    maps = {name: np.zeros(SHAPE, bool) for name in ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")}
    maps["DEAD"][DEAD], maps["OPEN"][OPEN], maps["LOW_QE"][LOW] = True, True, True
    for place in POOR:
        maps["LOW_QE"][place] = True
    maps["ADJ_OPEN"] = neighbors.grow(maps["OPEN"]) & ~maps["OPEN"]
    return maps


@pytest.mark.slow
def test_poor_in_some_filters(tmp_path):
    """Whole maps; the same pixels vanish where filters are mixed."""
    paths = write_sets(tmp_path)
    found = search_sets(paths)
    for name, wanted in expected().items():
        np.testing.assert_array_equal(found.maps[name], wanted, err_msg=name)
    mixed = search.search([open_exposure(p) for p in paths], FlatSettings())
    assert not mixed.maps["LOW_QE"][20, 30]
    assert not mixed.maps["LOW_QE"][50, 60]
    assert [s["name"] for s in found.sets] == list(FILTERS)
    assert "6 sets of flats" in found.notes[0]
    assert "3 pixels are poor in some" in found.notes[0]


@pytest.mark.slow
def test_order_of_the_sets_does_not_matter(tmp_path):
    one = search_sets(write_sets(tmp_path / "a"))
    other = search_sets(write_sets(tmp_path / "a")[::-1])
    for name in one.maps:
        np.testing.assert_array_equal(one.maps[name], other.maps[name])
    for name in ("flat_norm", "flat_state", "open_excess", "set_f150w"):
        np.testing.assert_array_equal(
            np.asarray(one.evidence.images[name]), np.asarray(other.evidence.images[name]), err_msg=name
        )


def test_one_set_is_searched_as_ever(tmp_path):
    rates = [open_exposure(p) for p in write_sets(tmp_path, FILTERS[:1])]
    reference = read_reference_pixels(rates[0])
    one = filter_sets.search(filter_sets.find_sets(rates), FlatSettings(), reference=reference)
    other = search.search(rates, FlatSettings())
    assert one.notes == other.notes
    assert set(one.evidence.images) == set(other.evidence.images)


def test_unlit_in_some_sets(tmp_path):
    """Two settings of a spectrograph light one half of the frame each: together they judge it all."""
    y, x = np.mgrid[:80, :96]
    paths = []
    for k, name in enumerate(("SHORT", "LONG")):
        light = np.where((x < 48) == (k == 0), 1 + 0.3 * np.sin(y / 30), 0.001) * 100
        stack = make_flats(3, SHAPE, seed=3 + k, level=1.0) * light
        stack[:, 30, 20] *= 0.01
        stack[:, 30, 70] *= 0.01
        window = Window(300, 300, 96, 80)
        paths += write_rates(tmp_path / name, stack, detector="MIRIFULONG", window=window, BAND=name)
    found = search_sets(paths, ipc_correction="none")
    shares = [judged.judged_percent(s["judged"]) for s in found.sets]
    assert all(40 < share < 52 for share in shares)
    state = found.evidence.images["flat_state"]
    assert judged.judged_percent(judged.count_states(state)) > 97
    assert found.maps["DEAD"][30, 20]
    assert found.maps["DEAD"][30, 70]
    assert sum(int(m.sum()) for m in found.maps.values()) == 2


def test_states_join():
    """The reason that comes closest to a judgment counts."""
    shape = (2, 3)
    p, science = FlatSettings(), np.ones(shape, bool)
    out = filter_sets.Joined(p, science)
    for states in ([[0, 1, 2], [3, 4, 5]], [[0, 5, 3], [2, 3, 5]]):
        found = filter_sets.Detection(
            {name: np.zeros(shape, bool) for name in ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")}
        )
        found.evidence.images |= {"flat_norm": np.ones(shape, np.float32), "flat_state": np.array(states, np.uint8)}
        out.add(filter_sets.FlatSet("A", [], []), found, None)
    np.testing.assert_array_equal(out.finish().evidence.images["flat_state"], [[0, 1, 2], [2, 3, 5]])


def test_sets_by_keywords(tmp_path):
    """Keywords that a file lacks tell nothing; names hold what differs."""
    image = make_flats(1)[0]
    keys = [("F070W", "CLEAR"), ("F090W", "CLEAR"), (None, "CLEAR"), ("F070W", "FLAT"), ("F090W", None)]
    paths = [
        write_rate(tmp_path / f"{k}_rate.fits", image, FILTER=one, PUPIL=two, BAND="N/A")
        for k, (one, two) in enumerate(keys)
    ]
    sets = filter_sets.find_sets([open_exposure(p) for p in paths])
    assert [(s.name, [r.path.name[0] for r in s.rates]) for s in sets] == [
        ("F070W/CLEAR", ["0", "2"]),
        ("F090W/CLEAR", ["1", "4"]),
        ("F070W/FLAT", ["3"]),
    ]


def test_a_set_that_can_not_be_searched(tmp_path):
    paths = write_sets(tmp_path, FILTERS[:2])
    for path in paths[3:]:
        with fits.open(path, mode="update") as hdus:
            hdus["SCI"].data[...] = 0
    with pytest.raises(DataError, match=r"F090W: .*not a flat"):
        search_sets(paths)
    rates = [open_exposure(p) for p in paths]
    reference = read_reference_pixels(rates[0])
    found = filter_sets.search(filter_sets.find_sets(rates), FlatSettings(), reference=reference, skip_bad=True)
    assert found.notes[0].startswith("left out: F090W: ")
    assert found.maps["DEAD"][DEAD]
    with pytest.raises(UsageError, match="dead_definition"):
        search_sets(paths, dead_definition="search_type")


@pytest.mark.slow
def test_filters_reach_the_user(tmp_path):
    """From files to `explain`: which filters a pixel is poor in; depth is that of all sets."""
    texts = check_texts(ReferenceSettings(author="A", reference_subarray="SUB160"))
    p = replace(FlatSettings(), depth=True)
    product = build_flats(write_sets(tmp_path), p, tmp_path / "m.fits", texts=texts, with_evidence=True)
    assert len(product.summary()["sets"]) == 6
    mask = read_mask(tmp_path / "m.fits")
    with evidence_file.opened(product.evidence) as (found, _):
        text = " ".join(explain(mask, found, 30 + 999, 20 + 899).sentences)
        assert re.search(r"poor in F090W \((0\.29|0\.3)\d* of the light\), F200W \((0\.29|0\.3)", text)
        assert re.search(r"; good in F070W \((0\.9|1)", text)
        assert "In sets of flats" not in " ".join(explain(mask, found, 33 + 999, 20 + 899).sentences)
        assert sum(d.injected for d in found.depth) > 500
