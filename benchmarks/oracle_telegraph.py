"""How many telegraph pixels any search could find: the exact likelihood ratio, on pixels as `badpix simulate` has.

    python benchmarks/oracle_telegraph.py --ramps 5 --groups 60 --noise 4.8

Ramps are simulated here, without hits and drift: two levels, dwell times and noise of the simulator's distributions
(13 % spread, skewed), an unknown offset in each ramp. Two searches that no real one can beat:

* *known*: levels, dwell times and noise of each pixel are known;
* *unknown*: they are not, but the distributions that they are drawn from are: the ratio of the averages over both.

The limit is set where a given part of good pixels (30 per million) lies above it. That rare part follows from the
pixels that switch (importance sampling): P(ratio > t | good) = E(1 / ratio; ratio > t | switching).
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np

LEVELS = (8.0, 15.0, 30.0)
SHAPE = 60.0  # of the gamma distribution of the noise
OFFSETS = 13
DWELLS = 2.5 * 5.0 ** ((np.arange(5) + 0.5) / 5)
FACTORS = (1.0, 1.0, 3.0, 1 / 2.5)  # as in badpix.simulation.defects.draw_details
NOISES = 7


def simulate(rng: np.random.Generator, level: float, number: int, ramps: int, groups: int, noise: float):
    """Ramps (number, ramps, groups) of pixels that switch, and their dwell times and noise (number,)."""
    low = 2.5 * 5.0 ** rng.random(number)
    high = low * np.array(FACTORS)[rng.integers(4, size=number)] + 0.5
    own = noise * rng.gamma(SHAPE, size=number) / SHAPE
    state = rng.random((number, ramps)) < (high / (low + high))[:, None]
    out = np.empty((number, ramps, groups))
    for g in range(groups):
        out[..., g] = state
        leave = np.where(state, 1 / high[:, None], 1 / low[:, None])
        state = state ^ (rng.random((number, ramps)) < leave)
    return level * out + own[:, None, None] * rng.standard_normal(out.shape), low, high, own


def switching(data: np.ndarray, level: float, low, high, own) -> np.ndarray:
    """Logarithm of the likelihood of two levels, offsets integrated: (number,). Parameters broadcast to (number,)."""
    number, _, groups = data.shape
    low, high, own = (np.broadcast_to(v, number).astype(float)[:, None, None] for v in (low, high, own))
    middle = data.mean(axis=2)[..., None]
    margin = 3 * own / np.sqrt(groups)
    offset = middle - level - margin + (level + 2 * margin) * np.linspace(0, 1, OFFSETS)
    up, down = 1 / low, 1 / high
    prior = high / (low + high)
    ahead, total = np.broadcast_to(prior, offset.shape), np.zeros(offset.shape)
    for g in range(groups):
        away = (data[..., g, None] - offset) / own
        lower = np.exp(-0.5 * np.minimum(away**2, 80))
        upper = np.exp(-0.5 * np.minimum((away - level / own) ** 2, 80))
        both = ahead * upper + (1 - ahead) * lower
        here = ahead * upper / both
        total += np.log(both)
        ahead = here * (1 - down) + (1 - here) * up
    peak = total.max(axis=2, keepdims=True)
    width = (level + 2 * margin[..., 0]) / (OFFSETS - 1)
    summed = np.log(np.exp(total - peak).sum(axis=2) * width) + peak[..., 0]
    return (summed - groups * np.log(own[..., 0])).sum(axis=1)


def steady(data: np.ndarray, own) -> np.ndarray:
    """The same of one level."""
    number, _, groups = data.shape
    own = np.broadcast_to(own, number).astype(float)[:, None]
    rest = ((data - data.mean(axis=2, keepdims=True)) ** 2).sum(axis=2)
    found = -rest / (2 * own**2) + np.log(own * np.sqrt(2 * np.pi / groups)) - groups * np.log(own)
    return found.sum(axis=1)


def average(parts: list[np.ndarray]) -> np.ndarray:
    """Logarithm of the mean of likelihoods."""
    return np.logaddexp.reduce(parts, axis=0) - np.log(len(parts))


def find_limit(ratio: np.ndarray, alarms: float) -> float:
    """The limit that this part of good pixels lies above, from the logarithms of ratios of pixels that switch."""
    order = np.sort(ratio)[::-1]
    above = np.cumsum(np.exp(-order)) / len(order)
    at = np.searchsorted(above, alarms)
    return float(order[min(at, len(order) - 1)])


def main() -> None:
    """Percent found by either, by level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, default in (("ramps", int, 5), ("groups", int, 60), ("noise", float, 4.8), ("number", int, 1500)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--alarms", type=float, default=3e-5)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    edges = np.quantile(rng.gamma(SHAPE, size=100_000) / SHAPE, (np.arange(NOISES) + 0.5) / NOISES) * args.noise
    known, unknown = [], []
    for level in LEVELS:
        data, low, high, own = simulate(rng, level, args.number, args.ramps, args.groups, args.noise)
        known.append(switching(data, level, low, high, own) - steady(data, own))
        parts = [
            switching(data, tried, dwell, dwell * factor + 0.5, noise)
            for tried, dwell, factor, noise in product(LEVELS, DWELLS, FACTORS[1:], edges)
        ]
        unknown.append(average(parts) - average([steady(data, noise) for noise in edges]))
    limit = find_limit(np.concatenate(unknown), args.alarms)
    print(f"{args.ramps} x {args.groups} groups, noise {args.noise} DN, {1e6 * args.alarms:g} false per million")
    print("| level | known | unknown |\n|---|---|---|")
    for level, one, two in zip(LEVELS, known, unknown, strict=True):
        shares = (100 * np.mean(one > find_limit(one, args.alarms)), 100 * np.mean(two > limit))
        print(f"| {level:g} DN | {shares[0]:.0f} % | {shares[1]:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
