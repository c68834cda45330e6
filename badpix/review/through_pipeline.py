"""The exact reference for the depth of darks: defects in raw ramps, through the pipeline itself.

1. Raw ramps of the same darks get defects of the strengths that the mask's depth was measured at
   (:mod:`badpix.prepare.injected_raws`), isolated, eight rows and columns apart.
2. The pipeline's first stage runs over them (:mod:`badpix.prepare.driver`), and the search over its products.
3. What is found stands beside what the run's own emulation of jump step and ramp fit predicted.

Each round takes other pixels; rounds add up.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from badpix import detectors
from badpix.darks import build
from badpix.darks.completeness import IN_BLINK, RIGHT, UNITS
from badpix.errors import DataError, UsageError
from badpix.io.depths import Depth
from badpix.io.evidence import Evidence
from badpix.mask import file as mask_file
from badpix.mask.depth import Curve, make_curves
from badpix.mask.file import Mask
from badpix.numerics import neighbors
from badpix.prepare import driver, injected_raws
from badpix.review.readings import open_evidence
from badpix.settings.darks import DarkSettings
from badpix.settings.prepare import PrepareSettings
from badpix.settings.reference import ReferenceSettings

log = logging.getLogger(__name__)

PRODUCTS = ["rateints", "jump", "fitopt"]


@dataclass(frozen=True)
class Pair:
    """One strength of a search: part found through the pipeline of so many defects, and part predicted."""

    search: str
    level: float
    unit: str
    injected: int
    found: int
    predicted: float


def measure(
    mask: str | Path,
    raws: Sequence[Path],
    p: DarkSettings,
    prepare: PrepareSettings,
    *,
    rounds: int = 1,
    most: int = 20000,
    workers: int = 1,
    evidence: str | Path | None = None,
) -> tuple[list[Pair], list[Curve]]:
    """Completeness through the pipeline, beside what the mask's depth says.

    Parameters
    ----------
    mask : path
        Mask of darks that was made with ``--depth``, with its evidence.
    raws : sequence of Path
        Raw ramps (``_uncal``) of the same darks.
    p, prepare : settings
        Of ``badpix darks`` and ``badpix prepare``, as the mask was made with.
    rounds, most : int
        How often, with other pixels, and how many defects at most in each.
    workers : int
        Processes of the pipeline.
    evidence : path, optional
        The evidence, if it does not lie beside the mask.

    Returns
    -------
    pairs : list of Pair
    curves : list of Curve
        Through the pipeline.

    Raises
    ------
    DataError
        If the evidence holds no depth of darks, or the pipeline fails.
    UsageError
        If the pipeline is not installed.
    """
    driver.require_pipeline()
    found = mask_file.read_mask(mask)
    with open_evidence(found, evidence) as (known, note):
        if known is None or note:
            raise DataError(note or f"{mask}: no evidence beside it; make the mask with --evidence --depth")
        rows = [d for d in known.depth if d.search in UNITS]
        if not rows or not known.readouts:
            raise DataError(f"{mask}: its evidence holds no depth of darks; make the mask with --depth")
        facts = _Facts.read(found, known, rows)
    counts: dict[tuple[str, float], np.ndarray] = {}
    for number in range(rounds):
        log.info(f"round {number + 1} of {rounds}")
        for row in _run_round(facts, raws, p, prepare, number, most, workers):
            key = row.search, row.level
            counts[key] = counts.get(key, np.zeros(3, int)) + np.array([row.injected, row.found, row.flagged])
    measured = [Depth(name, level, UNITS[name], *map(int, n)) for (name, level), n in counts.items()]
    predicted = {c.search: c for c in make_curves(rows)}
    pairs = [Pair(d.search, d.level, d.unit, d.injected, d.found, predicted[d.search].at(d.level)) for d in measured]
    return pairs, make_curves(measured)


@dataclass(frozen=True)
class _Facts:
    """What is taken from the mask and its evidence."""

    good: np.ndarray
    noise: np.ndarray
    strengths: dict[str, np.ndarray]
    rate: float
    ipc: float
    gain: float

    @classmethod
    def read(cls, mask: Mask, known: Evidence, rows: Sequence[Depth]) -> _Facts:
        """From an open evidence file."""
        kinds = dict.fromkeys(d.search for d in rows)
        strengths = {name: np.array([d.level for d in rows if d.search == name]) for name in kinds}
        limit = next((float(r.limit) for r in known.rules if r.quantity == "dark_rate"), 0.0)
        good = neighbors.clear_of(mask.image != 0) & (mask.image == 0)
        noise = np.asarray(known.images["dark_noise"][:, :])
        ipc = detectors.get(mask.detector).ipc
        return cls(good, noise, strengths, IN_BLINK * limit, ipc, known.readouts[0].gain)


def _run_round(
    facts: _Facts,
    raws: Sequence[Path],
    p: DarkSettings,
    prepare: PrepareSettings,
    number: int,
    most: int,
    workers: int,
) -> list[Depth]:
    """One round in a private folder: inject, prepare, search, count."""
    if len({raw.name for raw in raws}) < len(raws):
        raise UsageError("raw ramps: two files have the same name")
    chosen = injected_raws.choose(
        facts.good,
        facts.strengths,
        facts.noise,
        exposures=len(raws),
        most=most,
        rate=facts.rate,
        ipc=facts.ipc,
        gain=facts.gain,
        seed=number,
    )
    if len(chosen.y) == 0:
        raise DataError("no good pixel to put a defect into")
    with tempfile.TemporaryDirectory(prefix="badpix-depth-") as name:
        folder = Path(name)
        for k, raw in enumerate(raws):
            injected_raws.write_injected(raw, folder / raw.name.removesuffix(".gz"), chosen, k, number)
            for recipe in [*raw.parent.glob("*_simulate.yml"), *raw.resolve().parent.parent.glob("*_simulate.yml")]:
                shutil.copy(recipe, folder / recipe.name)
        files = [folder / raw.name.removesuffix(".gz") for raw in raws]
        settings = prepare.changed({"products": PRODUCTS}, "depth")
        made = driver.prepare_all(files, settings, folder / "prepared", workers=workers)
        texts = ReferenceSettings(author="badpix", pedigree="SIMULATION")
        quiet = p.changed({"depth": False}, "depth")
        product = build.build_darks(
            made.products["rateints"], quiet, folder / "mask.fits", texts=texts, with_evidence=True
        )
        with open_evidence(mask_file.read_mask(product.path)) as (known, _):
            assert known is not None
            names = [n.removeprefix("is_") for n in known.images if n.startswith("is_")]
            maps = {n: np.asarray(known.images[f"is_{n}"][:, :]) != 0 for n in names}
    right = [RIGHT.get(kind, (kind,)) for kind in chosen.kinds]
    counted = injected_raws.list_counts(chosen, maps, right)
    cells = np.unique(np.stack([chosen.kind, chosen.level]), axis=1).T
    return [
        Depth(chosen.kinds[a], float(facts.strengths[chosen.kinds[a]][b]), UNITS[chosen.kinds[a]], *row)
        for (a, b), row in zip(cells, counted, strict=True)
    ]
