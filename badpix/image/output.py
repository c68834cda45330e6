"""The outputs of an image search: flagged copies under temporary names, published together, or their counts alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from badpix import __version__
from badpix.errors import CheckError
from badpix.image import products as image_products
from badpix.image.plan import Found
from badpix.image.search import read_flags
from badpix.image.stack import Shelf
from badpix.io import flagged_copy
from badpix.io.associations import Association
from badpix.io.cal import CalFile
from badpix.io.output import atomic_path
from badpix.io.tasks import run_in_order
from badpix.settings.image import ImageSettings
from badpix.settings.values import as_text

log = logging.getLogger(__name__)


def history(p: ImageSettings) -> list[str]:
    """HISTORY of a `_crf` file."""
    values = [f"{k}={as_text(v)}" for k, v in p.items()]
    return [f"outlier image, badpix {__version__}", *values]


def copy_all(
    association: Association,
    cals: Sequence[CalFile],
    targets: Sequence[Path],
    overwrite: bool,
    p: ImageSettings,
) -> tuple[list[Path], dict[str, Any]]:
    """One group: nothing to compare with; the exposures are copied and marked as skipped."""
    done = "copies are written with S_OUTLIR = SKIPPED" if targets else "copies would be written as they are"
    log.warning(f"only one group of exposures: nothing to compare it with; {done}")
    with ExitStack() as stack:
        for cal, target, member in zip(cals, targets, association.members, strict=bool(targets)):
            flagged_copy.write_copy(
                cal,
                stack.enter_context(atomic_path(target, overwrite)),
                target.name,
                flagged=None,
                association=association,
                status="SKIPPED",
                history=history(p),
                exptype=member.exptype,
            )
    return list(targets), {"search": "skipped", "exposures": [{"input": str(cal.path)} for cal in cals]}


def write_all(
    association: Association,
    cals: Sequence[CalFile],
    targets: Sequence[Path],
    found: Sequence[Found],
    shelf: Shelf,
    products: image_products.Target | None,
    output_dir: Path,
    p: ImageSettings,
    overwrite: bool,
    executor: Executor | None,
) -> list[dict[str, int]]:
    """All outputs, or none; gives the counts of each exposure."""
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(target, overwrite)) for target in targets]
        tasks = [
            WriteTask(cal, path, target.name, association, member.exptype, shelf, item.number, history(p))
            for cal, path, target, member, item in zip(
                cals, temporary, targets, association.members, found, strict=True
            )
        ]
        counts = list(run_in_order(executor, write_exposure, tasks))
        check_share(cals, counts, p.max_flagged)
        if products is not None:
            image_products.publish(products, output_dir, stack, overwrite)
    return counts


def count_all(
    cals: Sequence[CalFile], found: Sequence[Found], shelf: Shelf, executor: Executor | None
) -> list[dict[str, int]]:
    """What :func:`write_all` would count, without writing."""
    tasks = [(cal, shelf, item.number) for cal, item in zip(cals, found, strict=True)]
    return list(run_in_order(executor, count_exposure, tasks))


def check_share(cals: Sequence[CalFile], counts: Sequence[dict[str, int]], max_flagged: float) -> None:
    """Refuse a result that would ruin an exposure.

    Raises
    ------
    CheckError
        If more than ``max_flagged`` percent of the usable pixels of an exposure became unusable.
    """
    for text in list_excesses(cals, counts, max_flagged):
        raise CheckError(f"{text}; nothing was written. Is its ERR, WCS or sky wrong?")


def list_excesses(cals: Sequence[CalFile], counts: Sequence[dict[str, int]], max_flagged: float) -> list[str]:
    """Exposures of which more than ``max_flagged`` percent of the usable pixels became unusable, in words."""
    out = []
    for cal, count in zip(cals, counts, strict=True):
        new = count["newly_unusable"]
        usable = cal.shape[0] * cal.shape[1] - count["unusable"] + new
        if new > max_flagged / 100 * usable:
            out.append(
                f"{cal.path}: {new:,} pixels would become unusable, {100 * new / usable:.2f} % of the {usable:,} "
                f"usable ones; max_flagged is {max_flagged:g} %"
            )
    return out


@dataclass(frozen=True)
class WriteTask:
    """One `_crf` file to write under a temporary path."""

    cal: CalFile
    path: Path
    name: str
    association: Association
    exptype: str
    shelf: Shelf
    number: int
    history: list[str]


def count_exposure(task: tuple[CalFile, Shelf, int]) -> dict[str, int]:
    """Task: what :func:`write_exposure` would count, without writing."""
    cal, shelf, number = task
    return flagged_copy.count_copy(cal, read_flags(shelf, cal.shape, number))


def write_exposure(task: WriteTask) -> dict[str, int]:
    """Task: write one flagged copy; the counts of :func:`badpix.io.flagged_copy.write_copy`."""
    flagged = read_flags(task.shelf, task.cal.shape, task.number)
    return flagged_copy.write_copy(
        task.cal,
        task.path,
        task.name,
        flagged=flagged,
        association=task.association,
        status="COMPLETE",
        history=task.history,
        exptype=task.exptype,
    )
