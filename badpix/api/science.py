"""The search in science exposures, from files."""

from __future__ import annotations

from concurrent.futures import Executor

from badpix.api.inputs import Files, as_files, python_words
from badpix.api.result import DefectMask, build_mask
from badpix.errors import UsageError
from badpix.io.exposure import unpacking
from badpix.io.tasks import Progress, silent
from badpix.science import build
from badpix.settings.reference import ReferenceSettings
from badpix.settings.science import ScienceSettings


def find_science_defects(
    exposures: Files,
    settings: ScienceSettings | None = None,
    *,
    detector: str | None = None,
    texts: ReferenceSettings | None = None,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 48e6,
    progress: Progress = silent,
) -> DefectMask:
    """Find hot, warm, low, noisy and switching pixels in science exposures: :mod:`badpix.science.search`.

    Parameters
    ----------
    exposures : files
        Slope images (rate, cal, or flagged copies) of one detector, of any targets: names, folders, globs.
    settings : ScienceSettings, optional
        ``ScienceSettings(science_sigma=6)``.
    detector : str, optional
        The detector that the files must be of.
    texts : ReferenceSettings, optional
        Texts of the mask's header.
    skip_bad : bool
        Leave out files that can't be used, instead of an error.
    executor : Executor, optional
        Where bands of rows are worked on.
    memory : float
        Bytes that the band of one worker may take.
    progress : callable
        Called with the number of bands done and in all.

    Returns
    -------
    DefectMask

    Raises
    ------
    UsageError
        At a file that does not exist, and at arrays.
    DataError
        At files that are broken or do not fit each other, and at exposures that do not differ enough.
    """
    with python_words(), unpacking() as folder:
        files = as_files(exposures, build.SUFFIXES)
        if files is None:
            raise UsageError("exposures: found an array, expected files: headers tell pointings, visits and dates")
        return build_mask(
            build.build_science,
            "science",
            files,
            settings or ScienceSettings(),
            folder,
            texts or ReferenceSettings(),
            skip_bad=skip_bad,
            executor=executor,
            memory=memory,
            progress=progress,
            detector=detector,
        )
