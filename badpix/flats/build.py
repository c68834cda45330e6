"""Flats from files to a MASK: check them, search, write the mask and its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError, UsageError
from badpix.flats import filter_sets, judged
from badpix.flats.light import choose_mode
from badpix.flats.types import dead_limit
from badpix.io import exposure as exposures
from badpix.io import selection
from badpix.io.evidence import Detection, Evidence, Sparse
from badpix.io.exposure import Exposure
from badpix.io.provenance import hashing
from badpix.io.tasks import Progress, silent
from badpix.mask import combine
from badpix.mask.header import Provenance
from badpix.mask.manual import _add_manual, find_manual_file, read_manual_file
from badpix.mask.product import Product, check_detector, claim_output, finish, open_all
from badpix.settings.flats import FlatSettings, FluxCheckSettings, LightSettings
from badpix.settings.reference import ReferenceSettings


def build_flats(
    rates: Sequence[Path],
    p: FlatSettings,
    target: Path,
    *,
    texts: ReferenceSettings,
    uncals: Sequence[Path] = (),
    overwrite: bool = False,
    with_evidence: bool = False,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 32e6,
    progress: Progress = silent,
    look: Callable[[Detection, Sequence[Exposure], NDArray[np.uint32]], None] | None = None,
    detector: str | None = None,
    most_left_out: float = selection.MOST_LEFT_OUT,
) -> Product:
    """A MASK from flats: see :mod:`badpix.flats.search`.

    Parameters
    ----------
    rates, uncals : sequence of Path
        Slope images; raw flats for the flux check.
    p, texts : mapping
        Checked values of ``settings.flats``, and of ``settings.reference`` (:func:`crds_header.check_texts`).
    target : Path
        The MASK file; ``{instrument}``, ``{detector}``, ``{date}`` are filled in.
    overwrite, with_evidence, skip_bad : bool
        Replace the target; write the evidence; leave out files that can't be used instead of stopping.
    executor, memory, progress
        See :func:`flats.search`.
    look : callable, optional
        Called with the detection and the mask before anything is written (pictures).
    detector : str, optional
        The detector that the files must be of.
    most_left_out : float
        With ``skip_bad``: part of the files that may be left out.
    """
    if p.ipc_correction == "given" and p.ipc_coupling is None:
        raise UsageError("flats.ipc_coupling: found none, but ipc_correction is 'given'; expected a number")
    with exposures.unpacking() as workdir:
        used, rejected = open_all(rates, workdir, ["SCI", "DQ"], check_flat, skip_bad, detector, most_left_out)
        if p.mixed_optics == "refuse":
            check_optics(used)
        raws = _open_uncals(used, uncals, p, workdir) if p.run_dead_flux_check else []
        check_detector(used[0].path, used[0].detector, detector)
        manual = find_manual_file(p.manual_flag_file, used[0])
        inputs_given = [*rates, *uncals, *([manual] if manual else [])]
        path = claim_output(target, used[0].header, inputs_given, overwrite, with_evidence)
        rows = read_manual_file(manual, used[0])
        reference = exposures.read_reference_pixels(used[0])
        files = [e.path for e in (*used, *raws)] + ([manual] if manual else [])
        with hashing(files) as hashes:
            sets = filter_sets.find_sets(used, raws)
            sets = sets if p.mixed_optics == "join" else [filter_sets.FlatSet("all", list(used), raws)]
            found = filter_sets.search(
                sets,
                p,
                reference=reference,
                executor=executor,
                memory=memory,
                progress=progress,
                skip_bad=skip_bad,
            )
            inputs = hashes(files)
    counts = judged.count_states(found.evidence.images["flat_state"])
    keep_low_pixels(found.evidence)
    check_judged(counts, p, max(choose_mode(one.rates[0], p).min_judged for one in sets))
    listed = set(p.flat_do_not_use) or (set(dq.UNUSABLE) if p.do_not_use_policy == "all" else set())
    if look is None and not with_evidence:
        found.evidence.images.clear()  # nobody asks for them any more: memory for the mask
    image = combine.combine(found.maps, flag_values={}, do_not_use=listed, reference=reference)
    image = _add_manual(image, rows, listed, reference)
    if look is not None:
        look(found, used, image)
    if not with_evidence:
        found.evidence.images.clear()
    about = Provenance(
        f"Bad pixel mask of {used[0].keyword('DETECTOR')} from {len(used)} flat-field exposures: "
        "DEAD, LOW_QE, OPEN, ADJ_OPEN.",
        [replace(p, max_dead_norm_signal=_limit_used(p, used[0]))],
        inputs,
        rejected,
        [judged.headline(counts), *found.notes],
    )
    product = finish(found, image, reference, used, texts, about, path, overwrite, with_evidence)
    return replace(product, judged=counts, areas=found.areas, sets=found.sets)


def keep_low_pixels(evidence: Evidence) -> None:
    """Images that say something of low pixels only keep these alone: memory for the mask. In place."""
    for name, image in evidence.images.items():
        if name.startswith("open_") and isinstance(image, np.ndarray) and image.dtype.kind == "f":
            index = np.flatnonzero(~np.isnan(image))
            if index.size < image.size // 8:
                evidence.images[name] = Sparse(index, image.ravel()[index], image.shape, np.float32(np.nan))


def check_optics(used: Sequence[Exposure]) -> None:
    """Make sure that all flats saw the same light; keywords that one of them lacks tell nothing.

    Raises
    ------
    DataError
        Naming the first file that differs.
    """
    for keyword in filter_sets.OPTICS:
        first = used[0].header.get(keyword)
        for other in used[1:]:
            found = other.header.get(keyword)
            if found != first and None not in (found, first):
                raise DataError(
                    f"{other.path}: {keyword} = {found!r}, but {first!r} in {used[0].path.name}: a pixel poor in "
                    "one of them would be averaged away; give --mixed-optics join, which searches each apart"
                )


def check_judged(counts: dict[str, int], p: LightSettings, least: float) -> None:
    """Make sure that enough of the science pixels could be judged.

    Raises
    ------
    DataError
        If not, and the parameters do not allow it.
    """
    least = least if p.min_judged_percent is None else p.min_judged_percent
    if judged.judged_percent(counts) < least and not p.allow_unlit:
        raise DataError(
            f"the flats {judged.headline(counts)}; at least {least:g} % are expected (min_judged_percent); "
            "--allow-unlit writes the mask all the same"
        )


def _limit_used(p: FlatSettings, exposure: Exposure) -> float:
    """What `max_dead_norm_signal: none` stands for, for the record."""
    return dead_limit(p, detectors.get(exposure.keyword("DETECTOR")))


def check_flat(exposure: Exposure) -> None:
    """Make sure that a file is a slope image of a flat in the right state.

    Raises
    ------
    DataError
        If not.
    """
    if exposure.kind not in ("rate", "rateints"):
        raise DataError(f"{exposure.path}: is a {exposure.kind} file, expected rate or rateints")
    selection.check_state(exposure, "S_RAMP")
    selection.check_kind(exposure, "flat")
    exposure.detector, exposure.window  # noqa: B018 (raise where the keywords do not fit)


def _open_uncals(
    used: Sequence[Exposure], given: Sequence[Path], p: FluxCheckSettings, workdir: Path
) -> list[Exposure]:
    """The raw flats of the flux check: named, in the parameters, or beside the slope files."""
    names = list(given) or selection.expand_inputs(p.dead_flux_check_files or (), ("_uncal",))
    if not names:
        beside = [selection.sibling(e.path, "_uncal") for e in used]
        names = [b for b in beside if b is not None]
    found = [exposures.open_exposure(n, workdir, ["SCI"]) for n in names]
    for exposure in found:
        selection.check_state(exposure, "S_RAMP", complete=False)
        if len(exposure["SCI"].shape) not in (3, 4):
            raise DataError(
                f"{exposure.path}: SCI has {len(exposure['SCI'].shape)} axes, expected raw groups (3 or 4)"
            )
    if found:
        selection.check_same([used[0], *found], ("INSTRUME", "DETECTOR", "SUBARRAY"))
    return found
