"""Science exposures from files to a MASK: the flow of ``badpix science`` (see :mod:`badpix.mask.product`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix.io import exposure as exposures
from badpix.io import selection
from badpix.io.evidence import Detection
from badpix.io.exposure import Exposure
from badpix.io.provenance import hashing
from badpix.io.tasks import Progress, silent
from badpix.mask import combine
from badpix.mask.header import Provenance
from badpix.mask.product import Product, check_detector, claim_output, finish, open_all
from badpix.science import inputs as science_inputs
from badpix.science import search as science_search
from badpix.settings.reference import ReferenceSettings
from badpix.settings.science import ScienceSettings

SUFFIXES = ("_crf", "_cal", "_rate")  # of exposures in a folder, in order of preference


def build_science(
    files: Sequence[Path],
    p: ScienceSettings,
    target: Path,
    *,
    texts: ReferenceSettings,
    overwrite: bool = False,
    with_evidence: bool = False,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 48e6,
    progress: Progress = silent,
    look: Callable[[Detection, Sequence[Exposure], NDArray[np.uint32]], None] | None = None,
    detector: str | None = None,
    most_left_out: float = selection.MOST_LEFT_OUT,
) -> Product:
    """A MASK from science exposures: see :mod:`badpix.science.search`.

    Parameters
    ----------
    files : sequence of Path
        Rate or cal exposures, flagged ones too, of one detector.
    p, texts : Settings
        Checked values of ``settings.science``, and of ``settings.reference``.
    target : Path
        The MASK file; ``{instrument}``, ``{detector}``, ``{date}`` are filled in.
    overwrite, with_evidence, skip_bad : bool
        Replace the target; write the evidence; leave out files that can't be used instead of stopping.
    executor, memory, progress
        See :func:`badpix.science.search.search`.
    look : callable, optional
        Called with the detection, the exposures and the mask before anything is written.
    detector : str, optional
        The detector that the files must be of.
    most_left_out : float
        With ``skip_bad``: part of the files that may be left out.

    Raises
    ------
    DataError
        If the exposures don't differ enough to tell pixels from light, or don't fit each other.
    """
    with exposures.unpacking() as workdir:
        used, rejected = open_all(
            files,
            workdir,
            science_inputs.NEEDED,
            science_inputs.check_science,
            skip_bad,
            detector,
            most_left_out,
            science_inputs.SAME,
        )
        check_detector(used[0].path, used[0].detector, detector)
        path = claim_output(target, used[0].header, files, overwrite, with_evidence)
        found = science_inputs.gather(used, p, pointing_step=p.pointing_step)
        science_inputs.check_variety(found, p)
        reference = exposures.read_reference_pixels(used[0])
        paths = [e.path for e in used]
        with hashing(paths) as hashes:
            detection = science_search.search(
                found, p, reference=reference, executor=executor, memory=memory, progress=progress
            )
            inputs = hashes(paths)
    image = combine.combine(
        detection.maps, flag_values=p.science_flags, do_not_use=set(p.science_do_not_use), reference=reference
    )
    if look is not None:
        look(detection, used, image)
    if not with_evidence:
        detection.evidence.images.clear()
    about = Provenance(
        f"Bad pixel mask of {used[0].keyword('DETECTOR')} from {len(used)} science exposures of "
        f"{found.pointings} pointings: hot, warm, low, noisy and switching pixels.",
        [p],
        inputs,
        rejected,
        detection.notes,
    )
    return finish(detection, image, reference, used, texts, about, path, overwrite, with_evidence)
