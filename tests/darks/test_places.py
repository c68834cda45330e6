"""The usual noise by output and place: against injected maps."""

from __future__ import annotations

import numpy as np
import pytest

from badpix.darks import places

NIR = (slice(0, 128), slice(128, 256), slice(256, 384), slice(384, 512))
MIRI = tuple(slice(k, 512, 4) for k in range(4))


def true_level(kind):
    y, x = np.mgrid[:256, :512]
    edge = np.minimum.reduce([y, x, 255 - y, 511 - x])
    return {
        "flat": np.ones(y.shape),
        "outputs": np.repeat([0.8, 1.0, 1.3, 1.6], 128)[None].repeat(256, axis=0),
        "columns": np.where(x % 2 == 0, 0.7, 1.4),
        "interleaved": np.array([0.8, 1.0, 1.2, 1.5])[x % 4],
        "unknown": np.repeat([0.8, 1.6, 1.0, 1.3], [150, 150, 110, 102])[None].repeat(256, axis=0),
        "frame": 1 + 0.8 * np.exp(-edge / 40),
    }[kind]


@pytest.mark.parametrize("kind", ["flat", "outputs", "columns", "interleaved", "frame", "unknown"])
def test_the_level_follows_outputs_columns_and_the_frame(kind):
    rng = np.random.default_rng(1)
    level = true_level(kind)
    noise = 5 * level * np.exp(rng.normal(0, 0.12, level.shape))
    noise[rng.random(level.shape) < 0.01] *= 30  # bad pixels
    noise[rng.random(level.shape) < 0.01] = np.nan
    tiles = np.concatenate([np.arange(r, r + 4) for r in range(0, 256, 16)] + [np.arange(252, 256)])
    index = (tiles[:, None] * 512 + np.arange(512)).ravel()
    columns = {"interleaved": MIRI, "unknown": (slice(0, 512),)}.get(kind, NIR)
    found = places.measure_levels(np.log(noise.ravel()[index]), index, columns, level.shape, 4)
    ratio = found.of_rows(0, 256) / level
    ratio /= np.median(ratio)
    assert np.std(np.log(ratio)) < 0.035
    assert np.quantile(np.abs(np.log(ratio)), 0.99) < 0.12


@pytest.mark.parametrize("edges", [(), (97,), (64, 200, 263)])
def test_outputs_that_no_map_tells_begin_where_the_noise_jumps(edges):
    rng = np.random.default_rng(3)
    x = np.tile(np.arange(384), 160)
    level = np.log([1.0, 0.6, 1.5, 1.0])[np.searchsorted(edges, x, side="right")] + 0.2 * np.exp(-x / 20)
    rest = level + rng.normal(0, 0.14, x.size) + np.where(x == 300, 0.7, 0)  # a loud column is none
    assert places.find_jumps(rest, x, 384) == list(edges)
    assert places.cut_outputs([(4, 100), (100, 380)], [64, 100, 200]) == [(4, 64), (64, 100), (100, 200), (200, 380)]


def test_rows_and_pixels_agree():
    rng = np.random.default_rng(2)
    index = np.arange(64 * 128)
    found = places.measure_levels(rng.normal(0, 0.2, index.size), index, (slice(4, 124),), (64, 128), 8)
    np.testing.assert_allclose(found.of_rows(0, 64).ravel(), found.of_pixels(index), rtol=1e-6)
    np.testing.assert_allclose(found.of_rows(20, 30), found.of_rows(0, 64)[20:30], rtol=1e-6)


def test_nothing_measured_gives_the_level_of_all():
    found = places.measure_levels(np.full(40, np.nan), np.arange(40), (slice(0, 8),), (5, 8), 2)
    assert (found.of_rows(0, 5) == 1).all()
