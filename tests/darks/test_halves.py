"""Odd exposures against even ones: what half of them does not bear out."""

import numpy as np
import pytest

from badpix.darks import halves
from badpix.darks.integrations import Integrations
from badpix.settings.darks import DarkSettings


class FakeDark:
    def __init__(self, integrations):
        self.integrations = integrations


class FakeJob:
    def __init__(self, *integrations):
        self.darks = [FakeDark(n) for n in integrations]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((1, 1, 1, 1, 1), ([0, 2, 4], [1, 3])),
        ((2, 3), ([0, 1], [2, 3, 4])),
        ((6,), ([0, 2, 4], [1, 3, 5])),
    ],
)
def test_exposures_are_halved_and_integrations_of_a_single_one(numbers, expected):
    first, second = halves.split(FakeJob(*numbers))
    assert (first.tolist(), second.tolist()) == expected


def test_too_few_are_not_halved():
    assert halves.split(FakeJob(1, 1, 1)) is None


def test_a_half_has_its_own_integrations_and_pixels():
    n, pixels = 6, 10
    numbers = np.arange(n * pixels, dtype=np.float32).reshape(n, pixels)
    stack = Integrations(
        numbers,
        -numbers,
        {"white": numbers[[0, 1, 3, 5]]},
        np.array([0, 1, 3, 5]),
        numbers.astype(np.uint16),
        np.zeros((n, pixels), np.uint16),
        np.zeros((n, pixels), bool),
        np.arange(pixels, dtype=np.float32),
        np.zeros(pixels, np.float32),
        np.zeros(pixels, bool),
    )
    part = halves.take(stack, np.array([1, 3, 5]), np.array([2, 7]))
    assert part.rate.tolist() == [[12, 17], [32, 37], [52, 57]]
    assert part.shapes["white"].tolist() == [[12, 17], [32, 37], [52, 57]]
    assert part.examined.tolist() == [0, 1, 2]
    assert part.poisson.tolist() == [2, 7]
    part = halves.take(stack, np.array([0, 2, 4]), np.array([2]))
    assert part.shapes["white"].tolist() == [[2]]
    assert part.examined.tolist() == [0]


def test_flags_that_one_half_alone_makes_are_counted():
    class Population:
        spread = {"pedestal": (0.0, 4.0)}  # noqa: RUF012

    p = DarkSettings()
    low = p.low_pedestal_sigma_threshold * 4.0
    pixels = {
        "half_rate": np.array([0.05, 0.9, 0.05, 0.05], np.float32),
        "half_noise": np.array([9.0, 0.1, 9.0, 0.1], np.float32),
        "half_rc": np.array([np.nan, -3.0, 50.0, 0.0], np.float32),
        "half_pedestal": np.array([-0.9 * low, -0.1 * low, 0, 0], np.float32),
        "saturated_fraction": np.array([0, 0, 0, 1], np.float32),
    }
    flagged = {name: np.ones(4, bool) for name in ("hot", "rc", "noisy", "low_pedestal", "telegraph")}
    found = halves.count_unrepeated(pixels, flagged, {"hot": 0.2}, Population, 1000, p)
    assert {a.search: a.flagged for a in found} == {"hot": 2, "rc": 1, "noisy": 1, "low_pedestal": 2}
    assert all(a.estimate == "halves" and a.pixels == 1000 for a in found)
    flagged["hot"][:] = False
    assert halves.count_unrepeated(pixels, flagged, {"hot": 0.2}, Population, 1000, p)[0].flagged == 0
