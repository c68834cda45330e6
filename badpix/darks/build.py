"""From dark files to a mask file: the flow of ``badpix darks`` (see :mod:`badpix.mask.product`).

A file that vanishes or changes during the run ends it; with ``skip_bad`` its exposure is rejected and everything is
measured again without it, so that the result is the one that it would have been had the file never been there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.darks import inputs as dark_inputs
from badpix.darks import search as darks_search
from badpix.darks.inputs import DarkSet
from badpix.errors import DataError
from badpix.io import exposure as exposures
from badpix.io import selection
from badpix.io.evidence import Detection
from badpix.io.fits import open_fits
from badpix.io.provenance import hashing
from badpix.io.tasks import Progress, silent
from badpix.mask import combine, product
from badpix.mask import header as mask_header
from badpix.mask.header import Provenance
from badpix.settings.darks import DarkSettings, PedestalSettings
from badpix.settings.reference import ReferenceSettings


def build_darks(
    rates: Sequence[Path],
    p: DarkSettings,
    target: Path,
    *,
    texts: ReferenceSettings,
    named: Mapping[str, Sequence[Path]] | None = None,
    overwrite: bool = False,
    with_evidence: bool = False,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 48e6,
    progress: Progress = silent,
    look: Callable[[Detection, DarkSet, NDArray[np.uint32]], None] | None = None,
    detector: str | None = None,
    most_left_out: float = selection.MOST_LEFT_OUT,
) -> product.Product:
    """A MASK from darks: see :mod:`badpix.darks.search`.

    Parameters
    ----------
    rates : sequence of Path
        Rate or rateints files.
    p, texts : mapping
        Checked values of ``settings.darks``, and of ``settings.reference`` (:func:`crds_header.check_texts`).
    target : Path
        The MASK file; ``{instrument}``, ``{detector}``, ``{date}`` are filled in.
    named : mapping, optional
        Companions by role (``jump``, ``fitopt``, ``uncal``); beside the rate files where not named.
    overwrite, with_evidence, skip_bad : bool
        Replace the target; write the evidence; leave out exposures that can't be used instead of stopping.
    executor, memory, progress
        See :func:`darks.search`.
    look : callable, optional
        Called with detection, darks and mask before anything is written (pictures).
    detector : str, optional
        The detector that the files must be of.
    most_left_out : float
        With ``skip_bad``: part of the exposures that may be left out.
    """
    beside = named or {}
    opening = partial(
        dark_inputs.open_darks,
        need_uncal=partial(darks_search.needs_uncal, p),
        need_pedestals=darks_search.needs_pedestals(p),
        detector=detector,
    )
    with exposures.unpacking() as workdir:
        opened = opening(rates, beside, skip_bad=skip_bad, workdir=workdir, most_left_out=most_left_out)
        product.check_detector(opened.first.path, opened.detector, detector)
        given = [*rates, *list_files(opened, p), *(file for files in beside.values() for file in files)]
        path = product.claim_output(target, opened.first.header, given, overwrite, with_evidence)
        check_header(opened, texts)
        how = {"executor": executor, "memory": memory, "progress": progress, "bias": read_bias(p.bias_map, opened)}
        with hashing(list_files(opened, p)) as hashes:
            found = _search(opened, p, skip_bad, with_evidence=with_evidence or look is not None, **how)
            inputs = hashes(list_files(opened, p))
        reference = opened.reference_pixels()
        bits, lost = p.flag_values, set(p.dark_do_not_use)
        image = combine.combine(found.maps, flag_values=bits, do_not_use=lost, reference=reference)
        if look is not None:
            look(found, opened, image)
    used = [f.rate for f in opened.files]
    about = Provenance(describe_mask(opened, found), [p], inputs, opened.rejected, found.notes)
    return product.finish(found, image, reference, used, texts, about, path, overwrite, with_evidence)


def describe_mask(opened: DarkSet, found: Detection) -> str:
    """What the mask was made of, in a sentence."""
    return (
        f"Bad pixel mask of {opened.first.keyword('DETECTOR')} from {len(opened.files)} darks of "
        f"{opened.integrations} integrations: {', '.join(found.maps)}."
    )


def check_header(opened: DarkSet, texts: ReferenceSettings) -> None:
    """Make sure that the keywords of a mask can be made, before hours are spent."""
    used = [f.rate for f in opened.files]
    mask_header.make_header(
        mask_header.source_headers(used), used[0].keyword("DETECTOR"), used[0].window, texts, Provenance("")
    )


def _search(opened: DarkSet, p: DarkSettings, skip_bad: bool, **options: Any) -> Detection:
    """The search; again without the exposures of which a file changed during the run, if ``skip_bad``."""
    while True:
        try:
            return darks_search.search(opened, p, **options)
        except DataError:
            changed = dark_inputs.find_changed(opened.files)
            if not changed or not skip_bad:
                raise
            opened.rejected += changed.items()
            opened.files = [f for f in opened.files if f.rate.path not in changed]
            if not opened.files:
                raise


def read_bias(name: str | None, opened: DarkSet) -> NDArray[np.float32] | None:
    """The bias map, cut to the window of the darks if it is a full frame: (ny, nx) float32.

    Raises
    ------
    DataError
        If it has another shape.
    """
    if not name:
        return None
    with open_fits(name) as hdus:
        images = (hdu for hdu in hdus if hdu.is_image and len(hdu.shape) >= 2)
        if (hdu := next(images, None)) is None:
            raise DataError(f"{name}: bias_map holds no image")
        image = hdu.data.reshape(-1, *hdu.shape[-2:])[0].astype(np.float32)
    found = image.shape
    window = opened.first.window
    shape = (window.ysize, window.xsize)
    if image.shape != shape:
        y, x = window.ystart - 1, window.xstart - 1
        image = image[y : y + shape[0], x : x + shape[1]]
    if image.shape != shape:
        raise DataError(f"{name}: bias_map has {found} pixels, expected {shape} or a full frame")
    return np.ascontiguousarray(image)


def list_files(opened: DarkSet, p: PedestalSettings) -> list[Path]:
    """All files of the darks, and the bias map."""
    paths = [e.path for f in opened.files for e in f.products]
    return [*paths, *([Path(p.bias_map)] if p.bias_map else [])]
