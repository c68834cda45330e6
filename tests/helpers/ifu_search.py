"""The array-level IFU search with default limits, and noise to search."""

import numpy as np

from badpix.ifu.noise import measure_level, sample_band
from badpix.ifu.residuals import solve_hit_limit, solve_thresholds
from badpix.ifu.significance import find_significant

OPTIONS = {
    "kernel_size": (7, 7),
    "min_sigma": 2.5,
    "partial_sigma": 3.0,
    "single": True,
    "lone_exposure": False,
    "lone_sigma": 0.0,
    "grow_sigma": 3.0,
    "grow_steps": 4,
    "protect": 1.0,
    "protect_structure": 0.3,
    "window": (3, 7),
    "noise": "both",
}


def search(sci, sigma=None, **options):
    """Reasons, shape (n, ny, nx)."""
    sigma = sigma or [np.ones_like(s) for s in sci]
    level = measure_level([sample_band(sci, sigma, (7, 7), slice(0, len(sci[0])))], len(sci))
    limits = {"thresholds": solve_thresholds(len(sci), 1e-5), "hit_limit": solve_hit_limit(1e-5)}
    return find_significant(sci, sigma, level=level, **limits, **(OPTIONS | options))[0]


def blank(n=4, seed=0, shape=(110, 120)):
    """Unit noise on an even level."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype="f4") + np.float32(20) for _ in range(n)]
