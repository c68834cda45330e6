"""The documented searches by votes of integrations, in place of the corrected ones of the same type."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from badpix.darks import documented
from badpix.io.evidence import Detection, Rule
from badpix.settings.darks import DarkSettings, NoisySettings

Bool = NDArray[np.bool_]


def choose_votes(
    found: Detection,
    counts: Mapping[str, NDArray[np.uint16]],
    scatter: NDArray[np.float32],
    science: Bool,
    integrations: int,
    p: DarkSettings,
) -> None:
    """Maps and rules of the documented searches that are asked for."""
    voted = documented.find_by_votes(
        counts,
        integrations,
        max_saturated=p.max_saturated_fraction,
        rc=p.rc_fraction_threshold,
        low_pedestal=p.low_pedestal_fraction,
        high_cr=p.high_cr_fraction,
    )
    wanted = {
        "hot": p.saturated_search_type == "pedestal",
        "rc": p.rc_search_type == "pedestal",
        "low_pedestal": p.low_pedestal_search_type == "votes",
        "high_cr": p.high_cr_search,
    }
    for name in [n for n, asked in wanted.items() if asked]:
        known = found.maps.get(name)
        found.maps[name] = voted[name] | known if name == "hot" and known is not None else voted[name]
    limits = {
        "hot": ("saturated", ">=", p.max_saturated_fraction),
        "low_pedestal": ("low_pedestal", ">", p.low_pedestal_fraction),
        "high_cr": ("many_jumps", ">", p.high_cr_fraction),
    }
    rules = [
        ("rc", 1, "high_pedestal", ">", p.rc_fraction_threshold),
        ("rc", 2, "early_jumps", ">", p.rc_fraction_threshold),
    ]
    rules += [(name, 9, *limit) for name, limit in limits.items()]
    for name, way, votes, sign, limit in rules:
        if wanted[name]:
            found.evidence.rules.append(
                Rule(
                    name, f"votes_{votes}", sign, limit * integrations, "integrations", "integrations that agree", way
                )
            )
    if p.noisy_search_type == "slopes":
        add_scattered(found, counts["clean_slopes"], scatter, science, p)


def add_scattered(
    found: Detection, number: NDArray[np.uint16], scatter: NDArray[np.float32], science: Bool, p: NoisySettings
) -> None:
    """Noisy by the standard deviation of clean slopes."""
    noisy, few, limit = documented.find_scattered(
        scatter,
        number,
        science,
        clip_sigma=p.dark_stdev_clipping_sigma,
        clip_iterations=p.dark_max_clipping_iters,
        threshold=p.dark_noisy_threshold,
        min_slopes=p.noisy_min_slopes,
    )
    found.maps["noisy"] = noisy | few if p.noisy_without_data else noisy
    found.evidence.rules.append(
        Rule("noisy", "clean_slope_scatter", ">", limit, "DN/s", "standard deviation of clean slopes", 1)
    )
    if few.any():
        word = "count as noisy (noisy_without_data)" if p.noisy_without_data else "are undetermined"
        found.notes.append(f"{int(few.sum())} pixels have fewer than {p.noisy_min_slopes} clean slopes and {word}")
    if p.noisy_without_data:
        found.evidence.rules.append(
            Rule("noisy", "votes_clean_slopes", "<", p.noisy_min_slopes, "integrations", "clean slopes", 2)
        )
