"""Lines judged by the slice's own pixels at the same wavelength: bad pixels on flanks, edges of slices, by hand."""

import numpy as np
import pytest
from ifu_search import blank, search

from badpix.ifu import significance as sg
from badpix.ifu.slices import measure_beside

SHAPE = (110, 120)


def lined(n=4, seed=0, peak=500.0, across=1):
    """Slices of 20 pixels with sloping edges, strong tilted lines, and ERR as their light makes it."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    offset = np.abs((x % 24) - 12)
    edge = np.where(offset <= 10, np.clip(1.25 - offset / 16, 0.62, 1), np.nan)
    wave = y + 0.04 * ((x % 24) - 12) + 3 * np.sin(x // 24)
    light = edge * (10 + sum(peak * np.exp(-0.5 * ((wave - c) / 1.1) ** 2) for c in range(10, 110, 12)))
    noise = np.sqrt(1 + 0.08 * light)
    sci = [(light + noise * (s - 20)).astype("f4") for s in blank(n, seed)]
    return sci, [np.sqrt(1 + 0.08 * np.maximum(s, 0)).astype("f4") for s in sci], offset


@pytest.mark.parametrize("across", [1, 0])
@pytest.mark.parametrize("n", [2, 4])
def test_bad_pixels_on_flanks_are_found_and_good_ones_left(n, across):
    sci, sigma, offset = lined(n, seed=3)
    rng = np.random.default_rng(9)
    truth = np.zeros(SHAPE, bool)
    inner = np.flatnonzero((offset < 9) & (np.indices(SHAPE)[0] > 4) & (np.indices(SHAPE)[0] < 105))
    truth.flat[rng.choice(inner, 80, replace=False)] = True
    for s, e in zip(sci, sigma, strict=True):
        s[truth] += 30 * e[truth]
    if across == 0:
        sci, sigma = ([np.ascontiguousarray(a.T) for a in arrays] for arrays in (sci, sigma))
    found = search(sci, sigma, across=across) == sg.PERSISTENT
    found = found if across == 1 else found.transpose(0, 2, 1)
    assert np.mean(found[0][truth]) > 0.85
    assert np.count_nonzero(found[0] & ~truth) <= 2
    still = search(sci, sigma, across=across, dithered=False) == sg.PERSISTENT  # without a dither lines stand still
    assert np.mean(still[0][truth if across == 1 else truth.T]) < np.mean(found[0][truth]) - 0.1


def test_edges_of_slices_are_no_defects():
    sci, sigma, offset = lined(seed=5, peak=3000.0)
    found = search(sci, sigma) > 0
    assert np.count_nonzero(found[:, offset >= 9]) <= 2
    for s, e in zip(sci, sigma, strict=True):
        s[40:70:7, 22] += 200 * e[40:70:7, 22]  # the last pixel of a slice
    assert np.count_nonzero(search(sci, sigma)[:, 40:70:7, 22]) >= 12  # not the one on the flank


def test_beside_by_hand():
    rng = np.random.default_rng(2)
    sci = rng.uniform(5, 50, (40, 40)).astype("f4")
    sci[rng.random(sci.shape) < 0.15] = np.nan
    sci = np.pad(sci, 8, constant_values=np.nan)
    at = rng.choice(np.flatnonzero(np.isfinite(sci)), 80, replace=False)
    noise = np.full(at.size, 2, "f4")
    found = measure_beside(sci.reshape(-1), noise, at, (56, 1))
    for k, rise, across, inner in zip(at, found.rise, found.across, found.inner, strict=True):
        y, x = divmod(int(k), 56)
        near = [c for c in range(x - 3, x + 4) if c != x]
        level = {
            c: np.nanmedian(column) if not np.isnan(column := sci[[y - 2, y - 1, y + 1, y + 2], c]).all() else np.nan
            for c in (*near, x)
        }
        light = np.nanmedian([level[c] for c in near])
        rises = {c: sci[y, c] - level[c] for c in level}
        expected = np.nanmedian([rises[c] for c in near])
        ratio = {c: np.clip(level[c] / light, 0.3, 3) if light > 10 else 1 for c in level}
        left = {c: (rises[c] - ratio[c] * expected) / 2 for c in level}
        spread = np.nanmedian([abs(left[c]) for c in near])
        assert rise == pytest.approx(left[x] / (1.1 * np.sqrt(1 + max(spread**2 - 0.5, 0))), abs=1e-3, nan_ok=True)
        sides = sci[y, [x - 2, x - 1, x + 1, x + 2]]
        assert across == pytest.approx((sci[y, x] - np.nanmedian(sides)) / 2, abs=1e-4)
        assert inner == (np.isfinite(sides[:2]).any() and np.isfinite(sides[2:]).any())
