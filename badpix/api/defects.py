"""The searches on detectors: flats and darks, as files or arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from badpix.api import arrays
from badpix.api.inputs import Files, as_files, python_words, refuse_array_words
from badpix.api.ramps import Ramps
from badpix.api.result import DefectMask, build_mask
from badpix.darks import build as darks_build
from badpix.errors import UsageError
from badpix.flats import build as flats_build
from badpix.io.exposure import unpacking
from badpix.io.tasks import Progress, silent
from badpix.mask.header import LAUNCH
from badpix.settings.darks import DarkSettings
from badpix.settings.flats import FlatSettings
from badpix.settings.reference import ReferenceSettings


def _dated(texts: ReferenceSettings, header: Mapping[str, Any]) -> tuple[ReferenceSettings, bool]:
    """The texts with a USEAFTER, and whether somebody gave it: arrays have no date."""
    if texts.useafter or header.get("DATE-OBS"):
        return texts, True
    return replace(texts, useafter=LAUNCH), False


def _settled(mask: DefectMask, dated: bool) -> DefectMask:
    """Without the header where the date is missing: such a mask can be looked at, but not written."""
    if dated:
        return mask
    kept = {k: v for k, v in mask.header.items() if k != "USEAFTER"}
    return replace(mask, cards=None, header=kept)


# --- flats -----------------------------------------------------------------------------------------------


def find_flat_defects(
    rates: Files | NDArray[Any] | Sequence[NDArray[Any]],
    settings: FlatSettings | None = None,
    *,
    detector: str | None = None,
    start: tuple[int, int] | None = None,
    subarray: str | None = None,
    dq: NDArray[Any] | None = None,
    uncal: Files | NDArray[Any] | None = None,
    header: Mapping[str, Any] | None = None,
    texts: ReferenceSettings | None = None,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 32e6,
    progress: Progress = silent,
) -> DefectMask:
    """Find DEAD, LOW_QE, OPEN and ADJ_OPEN pixels in flat-field exposures: :mod:`badpix.flats.search`.

    Parameters
    ----------
    rates : files, or ndarray
        Slope images (rate, rateints) of one detector: names, folders, globs; or an array (n, ny, nx) of any real
        type, DN/s, NaN where nothing was measured.
    settings : FlatSettings, optional
        ``FlatSettings(max_low_qe_norm_signal=0.4)``, ``FlatSettings.in_set("documented")``.
    detector : str
        Of arrays: DETECTOR. Of files: the detector that they must be of.
    start, subarray
        Of arrays that are no full frame: (SUBSTRT1, SUBSTRT2), counted from 1, and SUBARRAY.
    dq : ndarray of int, optional
        Of arrays: (ny, nx) or (n, ny, nx) in standard bits, for REFERENCE_PIXEL; without it reference pixels are
        those of the detector's geometry.
    uncal : files, or ndarray, optional
        Raw flats for ``run_dead_flux_check``: files, or an array (nints, ngroups, ny, nx), DN.
    header : mapping, optional
        Of arrays: further primary keywords, such as DATE-OBS, READPATT, EXP_TYPE.
    texts : ReferenceSettings, optional
        AUTHOR, DESCRIP, PEDIGREE, USEAFTER of the mask.
    skip_bad : bool
        Leave out files that can't be used, and note it, instead of stopping.
    executor : Executor, optional
        Where bands of rows are worked on; here, if not given.
    memory : float
        Bytes that the samples of a band may take.
    progress : callable
        Called with the number of bands done and in all.

    Returns
    -------
    DefectMask

    Raises
    ------
    UsageError
        At a file that does not exist, and where an array's detector or place is not given.
    DataError
        At files that are broken or do not fit each other, and arrays of another shape or type.
    """
    p, texts, given = settings or FlatSettings(), texts or ReferenceSettings(), dict(header or {})
    dated = True
    with python_words(), unpacking() as folder:
        files = as_files(rates, ("_rate", "_rateints"))
        if files is None:
            stack = arrays.as_stack(rates, "(n, ny, nx)", "rates")
            frame = arrays.make_frame(stack.shape, detector, start, subarray, given)
            files = arrays.write_flats(folder, stack, frame, dq)
            texts, dated = _dated(texts, given)
            raws = _raw_flats(uncal, folder, frame)
        else:
            refuse_array_words(start=start, subarray=subarray, dq=dq, header=header)
            raws = _raw_flats(uncal, folder, None)
        mask = build_mask(
            flats_build.build_flats,
            "flats",
            files,
            p,
            folder,
            texts,
            uncals=raws,
            skip_bad=skip_bad,
            executor=executor,
            memory=memory,
            progress=progress,
            detector=detector,
        )
        return _settled(mask, dated)


def _raw_flats(uncal: Any, folder: Path, frame: arrays.Frame | None) -> list[Path]:
    if uncal is None:
        return []
    files = as_files(uncal, ("_uncal",))
    if files is not None:
        return files
    if frame is None:
        raise UsageError("uncal: found an array beside files; expected files")
    return [arrays.write_raw(folder, arrays.as_stack(uncal, "(nints, ngroups, ny, nx)", "uncal"), frame)]


# --- darks -----------------------------------------------------------------------------------------------


def find_dark_defects(
    darks: Files | NDArray[Any] | Sequence[NDArray[Any]],
    settings: DarkSettings | None = None,
    *,
    jump: Files | None = None,
    fitopt: Files | None = None,
    uncal: Files | None = None,
    detector: str | None = None,
    start: tuple[int, int] | None = None,
    subarray: str | None = None,
    groupdq: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    group_time: float | None = None,
    gain: float | None = None,
    read_noise: float | NDArray[Any] | None = None,
    rates: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    var_poisson: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    pedestals: NDArray[Any] | Sequence[NDArray[Any]] | None = None,
    dq: NDArray[Any] | None = None,
    dates: Sequence[float] | None = None,
    header: Mapping[str, Any] | None = None,
    texts: ReferenceSettings | None = None,
    skip_bad: bool = False,
    executor: Executor | None = None,
    memory: float = 48e6,
    progress: Progress = silent,
) -> DefectMask:
    """Find HOT, noisy, RC, TELEGRAPH and low-pedestal pixels in dark ramps: :mod:`badpix.darks.search`.

    Parameters
    ----------
    darks : files, or ndarray
        Slope images (rateints, or rate of single integrations): names, folders, globs, with their jump and fitopt
        files beside them. Or ramps (nints, ngroups, ny, nx), DN, as after the jump step: one exposure, or a list of
        arrays, one an exposure. Arrays need ``detector``, ``groupdq`` and ``group_time``, and either ``gain`` and
        ``read_noise``, from which slopes are fitted, or ``rates``, ``var_poisson`` and ``pedestals``.
    settings : DarkSettings, optional
        ``DarkSettings(hot_sigma_threshold=8)``, ``DarkSettings.in_set("documented")``.
    jump, fitopt, uncal : files, optional
        Companions of files that do not lie beside them.
    detector, start, subarray, header, texts, skip_bad, executor
        As of :func:`find_flat_defects`.
    groupdq : ndarray of int
        Of arrays: flags in the shape of the ramps; JUMP_DET, SATURATED and DO_NOT_USE are looked at.
    group_time : float
        Of arrays: seconds between groups (TGROUP).
    gain : float
        Of arrays: electrons per DN.
    read_noise : float or ndarray
        Of arrays: of one group, DN; one number, or (ny, nx).
    rates, var_poisson, pedestals : ndarray
        Of arrays: (nints, ny, nx) each; DN/s, (DN/s)^2, DN; for a list of exposures lists as well.
    dq : ndarray of int, optional
        Of arrays: (ny, nx) in standard bits, for REFERENCE_PIXEL.
    dates : sequence of float, optional
        Of arrays: start of each exposure, MJD; without it the order in time is that of the list.
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
        At a file that does not exist, and where an array lacks what the search needs.
    DataError
        At files that are broken or do not fit each other, and arrays of another shape or type.
    """
    p, texts, given = settings or DarkSettings(), texts or ReferenceSettings(), dict(header or {})
    dated = True
    beside = {"jump": jump, "fitopt": fitopt, "uncal": uncal}
    named = {role: as_files(name, (f"_{role}",)) or [] for role, name in beside.items() if name is not None}
    with python_words(), unpacking() as folder:
        files = as_files(darks, ("_rateints", "_rate"))
        if files is None:
            ramps = Ramps.of(darks, groupdq, rates, var_poisson, pedestals, dates)
            frame = arrays.make_frame(ramps.ramps[0].shape, detector, start, subarray, given)
            files = ramps.write(folder, frame, group_time, gain, read_noise, dq)
            texts, dated = _dated(texts, given)
        else:
            refuse_array_words(
                start=start,
                subarray=subarray,
                groupdq=groupdq,
                group_time=group_time,
                gain=gain,
                dq=dq,
                read_noise=read_noise,
                rates=rates,
                var_poisson=var_poisson,
                pedestals=pedestals,
                dates=dates,
                header=header,
            )
        mask = build_mask(
            darks_build.build_darks,
            "darks",
            files,
            p,
            folder,
            texts,
            tell=False,
            named=named,
            skip_bad=skip_bad,
            executor=executor,
            memory=memory,
            progress=progress,
            detector=detector,
        )
        return _settled(mask, dated)
