"""Outliers in IFU exposures: from the members of an association to their flagged copies.

1. Read the headers of all members and make sure that they belong together and that the outputs may be written.
2. Search each detector (:mod:`badpix.ifu.search`).
3. Stop if more than ``max_flagged`` percent of the usable pixels of an exposure would be flagged.
4. On request, measure what the flags cost (:mod:`badpix.ifu.cost`).
5. Write the flagged copies (:mod:`badpix.io.flagged_copy`) and the intermediate products under temporary names, then
   publish all of them: an error or an interruption before that leaves nothing behind.
6. Sum up by exposure, reason and slice.

Without a folder for the outputs nothing is written (a preview): steps 1 to 4, and what writing would count.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.errors import CheckError
from badpix.ifu import products as ifu_products
from badpix.ifu.cost import measure_cost
from badpix.ifu.inputs import Exposure, by_detector, list_remarks, read_exposures
from badpix.ifu.search import THREADS, Found, find_detector
from badpix.io import flagged_copy
from badpix.io.associations import Association
from badpix.io.cal import CalFile
from badpix.io.exposure import unpacking
from badpix.io.output import atomic_path, check_directory, check_target
from badpix.io.tasks import run_in_order
from badpix.settings.ifu import IfuSettings
from badpix.settings.values import as_text

log = logging.getLogger(__name__)

BASE_MEMORY = 100 << 20  # bytes of the interpreter, its libraries and maps of the frame: what is left goes to bands
LEAST_MEMORY = BASE_MEMORY + (1 << 20)  # of a process
USUAL_MEMORY = 600 << 20
_SMALLEST_SLICE = 0.002  # share of the frame; smaller areas are no slices


def flag_association(
    association: Association,
    p: IfuSettings,
    output_dir: str | Path | None,
    *,
    overwrite: bool = False,
    history: Iterable[str] = (),
    executor: Executor | None = None,
    memory: int | None = None,
    by_slice: bool = True,
    cost: bool = False,
    look: Callable[[Found], None] | None = None,
) -> dict[str, Any]:
    """Search the members of an association and write their flagged copies.

    Parameters
    ----------
    association : Association
        From :func:`badpix.io.associations.read_inputs`.
    p : mapping
        Checked parameters of the section ``ifu``.
    output_dir : path, optional
        Where the `_crf` files and the intermediate products go; None: nothing is written.
    overwrite : bool
        Whether existing outputs may be replaced.
    history : iterable of str
        HISTORY lines for the outputs.
    executor : Executor, optional
        Runs the bands and the writing; the result is the same bytes without.
    memory : int, optional
        Bytes that the bands of a search may take; the result doesn't depend on it.
    by_slice : bool
        Whether the summary counts by slice.
    cost : bool
        Whether the summary says what the flags cost: light of sources, depth of the stack.
    look : callable, optional
        Gets what was found on each detector, before anything is written.

    Returns
    -------
    dict
        The summary: status, outputs, counts by exposure and reason, statistics by detector.

    Raises
    ------
    DataError
        If the exposures are not IFU exposures of one instrument, or don't fit each other.
    UsageError
        If an output exists or can't be written.
    CheckError
        If more than ``max_flagged`` percent of an exposure would be flagged; nothing is written.
    """
    with unpacking() as workdir:
        exposures = read_exposures(association, workdir)
        for text in list_remarks(exposures):
            log.warning(text)
        groups = by_detector(exposures)
        targets, products = _name_outputs(association, exposures, list(groups), p, output_dir, overwrite)

        found = []
        if len(exposures) < 2 and not searches_alone(p):
            log.warning(
                "a single exposure: nothing to compare it with; it is copied as it is, with S_OUTLIR = SKIPPED"
            )
        else:
            for detector, group in groups.items():
                word = "exposure" if len(group) == 1 else "exposures"
                log.info(f"{detector}: {len(group)} {word}, threshold by {p.threshold_method}")
                found.append(find_detector(detector, group, p, executor=executor, memory=memory))
                for text in found[-1].notes:
                    log.warning(f"{detector}: {text}")
                if look is not None:
                    look(found[-1])
        if output_dir is None:
            for text in list_excesses(found, p.max_flagged):
                log.warning(f"{text}: the run would stop with exit status 3")
            counts = _count(exposures, found, executor)
        else:
            check_share(found, p.max_flagged)
            counts = _write(association, exposures, found, targets, products, p, overwrite, list(history), executor)
        summary = summarize(found, counts, [*targets.values(), *products.values()], by_slice)
        return summary | {"cost": sum_costs(found)} if cost else summary


def searches_alone(p: IfuSettings) -> bool:
    """Whether an exposure is searched without any other."""
    return p.threshold_method == "false_alarm" and p.lone_exposure


def _name_outputs(
    association: Association,
    exposures: list[Exposure],
    detectors: list[str],
    p: IfuSettings,
    output_dir: str | Path | None,
    overwrite: bool,
) -> tuple[dict[Path, Path], dict[str, Path]]:
    """Where the copy of each exposure and the intermediate product of each detector go, after a check."""
    if output_dir is None:
        return {}, {}
    directory = check_directory(output_dir)
    targets = {e.cal.path: flagged_copy.crf_path(directory, e.cal, association) for e in exposures}
    products = {}
    if p.save_intermediate_results and (len(exposures) >= 2 or searches_alone(p)):
        products = {d: directory / ifu_products.name(association, d) for d in detectors}
    for path in (*targets.values(), *products.values()):
        check_target(path, overwrite, association.paths)
    return targets, products


def history_lines(p: IfuSettings) -> list[str]:
    """HISTORY lines for the outputs: the code and all parameters."""
    from badpix.io.provenance import code_version

    return [f"badpix {code_version()} outlier ifu", *(f"ifu.{k} = {as_text(v)}" for k, v in p.items())]


def check_share(found: Iterable[Found], max_flagged: float) -> None:
    """Refuse a result that would ruin an exposure.

    Raises
    ------
    CheckError
        If more than ``max_flagged`` percent of the usable pixels of an exposure are flagged.
    """
    for text in list_excesses(found, max_flagged):
        raise CheckError(f"{text}; nothing was written")


def list_excesses(found: Iterable[Found], max_flagged: float) -> list[str]:
    """Exposures of which more than ``max_flagged`` percent of the usable pixels are flagged, in words."""
    out = []
    for detector in found:
        for exposure, flagged, usable in zip(detector.exposures, detector.flagged, detector.usable, strict=True):
            number = sum(len(pixels) for reason, pixels in flagged.items() if reason != "second_check")
            if number > max_flagged / 100 * usable:
                out.append(
                    f"{exposure.cal.path}: {number} pixels would be flagged, {100 * number / usable:.2f} % of the "
                    f"{usable} usable ones; max_flagged is {max_flagged:g} %"
                )
    return out


def _count(exposures: list[Exposure], found: list[Found], executor: Executor | None) -> dict[Path, dict[str, int]]:
    """What writing would count, without writing."""
    pairs = [(e.cal, f.all_flagged(i)) for f in found for i, e in enumerate(f.exposures)]
    return {cal.path: c for (cal, _), c in zip(pairs, run_in_order(executor, count_flags, pairs), strict=True)}


def count_flags(task: tuple[CalFile, NDArray[Any]]) -> dict[str, int]:
    """Task: the counts of one exposure; its flagged pixels are flat indices."""
    cal, pixels = task
    return flagged_copy.count_copy(cal, to_map(pixels, cal.shape))


def to_map(pixels: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """A map that is true at some flat indices."""
    out = np.zeros(shape, bool)
    out.reshape(-1)[pixels] = True
    return out


def _write(
    association: Association,
    exposures: list[Exposure],
    found: list[Found],
    targets: Mapping[Path, Path],
    products: Mapping[str, Path],
    p: IfuSettings,
    overwrite: bool,
    history: list[str],
    executor: Executor | None,
) -> dict[Path, dict[str, int]]:
    """All outputs, or none; gives the counts of each exposure, by its path."""
    flagged = {e.cal.path: f.all_flagged(i) for f in found for i, e in enumerate(f.exposures)}
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(targets[e.cal.path], overwrite)) for e in exposures]
        task = partial(write_exposure, association, "COMPLETE" if found else "SKIPPED", history)
        names = [targets[e.cal.path].name for e in exposures]
        pixels = [flagged.get(e.cal.path) for e in exposures]
        run = (executor or stack.enter_context(ThreadPoolExecutor(THREADS))).map
        counts = list(run(task, exposures, temporary, names, pixels))
        for f in found:
            if f.detector in products:
                path = stack.enter_context(atomic_path(products[f.detector], overwrite))
                ifu_products.write_differences(path, products[f.detector].name, exposures[0], f.exposures, p)
    return {e.cal.path: c for e, c in zip(exposures, counts, strict=True)}


def write_exposure(
    association: Association,
    status: str,
    history: list[str],
    exposure: Exposure,
    path: Path,
    name: str,
    pixels: NDArray[Any] | None,
) -> dict[str, int]:
    """Task: the flagged copy of one exposure; ``pixels`` are flat indices."""
    flags = None
    if pixels is not None:
        flags = to_map(pixels, exposure.cal.shape)
    kind = exposure.member.exptype
    return flagged_copy.write_copy(
        exposure.cal, path, name, flagged=flags, association=association, status=status, history=history, exptype=kind
    )


# --- summary ---------------------------------------------------------------------------------------------


def summarize(
    found: list[Found], counts: Mapping[Path, Mapping[str, int]], outputs: list[Path], by_slice: bool
) -> dict[str, Any]:
    """What was done, ready for tables and JSON."""
    rows: list[dict[str, Any]] = []
    for f in found:
        slices = number_slices(f) if by_slice else None
        for i, exposure in enumerate(f.exposures):
            usable = f.usable[i]
            made = counts[exposure.cal.path]
            rows.append(
                {
                    "input": str(exposure.cal.path),
                    "detector": f.detector,
                    "usable": usable,
                    "flagged": {reason: len(pixels) for reason, pixels in f.flagged[i].items()},
                    "newly_unusable": made["newly_unusable"],
                    "newly_unusable_percent": round(100 * made["newly_unusable"] / usable, 4),
                }
            )
            if slices is not None:
                rows[-1]["by_slice"] = count_by_slice(slices, f.all_flagged(i))
    return {
        "status": "COMPLETE" if found else "SKIPPED",
        "outputs": [str(path) for path in outputs],
        "exposures": rows,
        "detectors": {f.detector: f.statistics for f in found},
    }


def sum_costs(found: list[Found]) -> dict[str, list[dict[str, Any]]]:
    """What the flags of all detectors cost."""
    total: dict[str, list[dict[str, Any]]] = {"exposures": [], "sources": [], "depth": []}
    for f in found:
        for key, rows in measure_cost(f, number_slices(f)).items():
            total[key] += rows
    return total


def number_slices(found: Found) -> NDArray[Any]:
    """The slice that each pixel belongs to, from 1; 0 in gaps.

    A slice is a connected area of pixels that any exposure can use. Where the gaps hold values (or the frame has
    none), the whole frame is slice 1.
    """
    from scipy import ndimage

    labels, number = ndimage.label(found.lit)
    sizes = np.bincount(labels.reshape(-1), minlength=number + 1)
    boxes = ndimage.find_objects(labels)
    large = [k for k in range(1, number + 1) if sizes[k] > _SMALLEST_SLICE * labels.size]
    large.sort(key=lambda k: boxes[k - 1][found.across].start + boxes[k - 1][found.across].stop)
    order = np.zeros(number + 1, np.uint16)
    order[large] = np.arange(1, len(large) + 1)
    out: NDArray[Any] = order[labels]
    return out


def count_by_slice(slices: NDArray[Any], pixels: NDArray[Any]) -> list[int]:
    """Flagged pixels in each slice, from slice 1 on; the last number counts those between slices."""
    number = np.bincount(slices.reshape(-1)[pixels], minlength=int(slices.max()) + 1)
    return [*(int(v) for v in number[1:]), int(number[0])]
