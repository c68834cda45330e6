"""Outliers in science exposures: files in, flagged copies and what was flagged out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from badpix.api.inputs import Files, in_python, python_words
from badpix.errors import UsageError
from badpix.ifu import driver as ifu_driver
from badpix.image import driver as image_driver
from badpix.io.associations import SCIENCE, Association, read_inputs
from badpix.io.html import as_table
from badpix.io.selection import expand_inputs
from badpix.settings.ifu import IfuSettings
from badpix.settings.image import ImageSettings

log = logging.getLogger("badpix")


@dataclass(frozen=True)
class Flagged:
    """What was flagged in some exposures.

    Attributes
    ----------
    outputs : list of Path
        The ``_crf`` files, in the order of the exposures, and products that were asked for.
    exposures : list of dict
        A row an exposure: ``input``, counts by reason, ``newly_unusable`` pixels.
    notes : list of str
        What the user should know.
    details : dict
        All else that the search measured: limits, noise, grid, sources.
    """

    outputs: list[Path]
    exposures: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        numbers = [_counts(row) for row in self.exposures]
        columns = list(dict.fromkeys(name for row in numbers for name in row))
        rows = [
            (Path(row["input"]).name, *(counts.get(name, 0) for name in columns))
            for row, counts in zip(self.exposures, numbers, strict=True)
        ]
        title = f"{len(self.exposures)} exposures, {len(self.outputs)} files written"
        return as_table(title, ("exposure", *(name.replace("_", " ") for name in columns)), rows, self.notes)


def _counts(row: dict[str, Any]) -> dict[str, int]:
    """The numbers of pixels in the row of an exposure."""
    reasons = row["flagged"] if isinstance(row.get("flagged"), dict) else {}
    ours = ("bright", "dark", "trail", "persistent", "single_coverage", "core", "core_taken_back")
    plain = (*ours, "flagged", "newly_unusable")
    return {**reasons, **{name: row[name] for name in plain if isinstance(row.get(name), int)}}


class Notes(logging.Handler):
    """What the user should know of one run: the warnings of the library, in the words of Python."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.texts = threading.get_ident(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning of this thread: another one may be at work on other exposures."""
        if record.thread == self.thread:
            self.texts.append(in_python(record.getMessage()))


@contextmanager
def noting() -> Iterator[list[str]]:
    """The list that the notes of a run go to."""
    notes = Notes()
    log.addHandler(notes)
    try:
        yield notes.texts
    finally:
        log.removeHandler(notes)


def read_members(inputs: Files, exptypes: Sequence[str]) -> Association:
    """The association, or the ``_cal`` files, that are meant.

    Raises
    ------
    UsageError
        If nothing is given.
    DataError
        If the association can't be read.
    """
    names = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if not names:
        raise UsageError("no inputs: found an empty list, expected an association (.json) or _cal files")
    tables = [name for name in names if str(name).lower().endswith(".json")]
    found = read_inputs(names if tables else expand_inputs(names, ("_cal",)), exptypes)
    for text in found.remarks:
        log.warning(text)
    if found.left_out:
        log.warning(f"{len(found.left_out)} members of other types are left out (see exptypes)")
    return found


def flag_ifu(
    inputs: Files,
    output_dir: str | Path,
    settings: IfuSettings | None = None,
    *,
    exptypes: Sequence[str] = SCIENCE,
    overwrite: bool = False,
    executor: Executor | None = None,
    memory: int | None = None,
) -> Flagged:
    """Flag pixels that are consistently wrong in IFU exposures (MIRI MRS, NIRSpec): :mod:`badpix.ifu.driver`.

    Parameters
    ----------
    inputs : path, or sequence of paths
        An association (``.json``), or ``_cal`` files.
    output_dir : path
        Folder for the flagged copies, ``<root>[_<asn_id>]_crf.fits``; made if it is missing. Inputs are not changed.
    settings : IfuSettings, optional
        ``IfuSettings.in_set("documented")`` is the JWST pipeline's result.
    exptypes : sequence of str
        Member types of an association to use.
    overwrite : bool
        Whether existing outputs may be replaced.
    executor : Executor, optional
        Where bands are searched and files written; the result is the same without.
    memory : int, optional
        Bytes that the bands of a search may take.

    Returns
    -------
    Flagged

    Raises
    ------
    UsageError
        If there is no input, or an output exists.
    DataError
        If the exposures are no IFU exposures of one instrument, or do not fit each other.
    CheckError
        If more than ``max_flagged`` percent of an exposure would be flagged; nothing is written.
    """
    p = settings or IfuSettings()
    with python_words(), noting() as notes:
        members = read_members(inputs, exptypes)
        found = ifu_driver.flag_association(
            members,
            p,
            output_dir,
            overwrite=overwrite,
            history=ifu_driver.history_lines(p),
            executor=executor,
            memory=memory,
        )
    outputs = [Path(name) for name in found.pop("outputs")]
    return Flagged(outputs, found.pop("exposures"), notes, found)


def flag_image(
    inputs: Files,
    output_dir: str | Path,
    settings: ImageSettings | None = None,
    *,
    exptypes: Sequence[str] = SCIENCE,
    overwrite: bool = False,
    executor: Executor | None = None,
    memory: int = image_driver.DEFAULT_MEMORY,
) -> Flagged:
    """Flag cosmic rays and blemishes in dithered images: :mod:`badpix.image.driver`.

    Parameters
    ----------
    inputs, output_dir, exptypes, overwrite
        As of :func:`flag_ifu`.
    settings : ImageSettings, optional
        ``ImageSettings.in_set("documented")`` is the rule of the JWST pipeline's step.
    executor : Executor, optional
        Where groups and exposures are worked on; the result is the same without.
    memory : int
        Bytes that a process may use.

    Returns
    -------
    Flagged

    Raises
    ------
    UsageError
        If there is no input, or an output exists.
    DataError
        At members that don't belong together, overlap nowhere, or need more memory or disk than there is.
    """
    p = settings or ImageSettings()
    with python_words(), noting() as notes:
        members = read_members(inputs, exptypes)
        outputs, found = image_driver.flag_images(
            members,
            p,
            output_dir,
            overwrite=overwrite,
            memory=memory,
            executor=executor,
        )
    return Flagged(list(outputs), found.pop("exposures"), notes, found)
