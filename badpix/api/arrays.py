"""Arrays as the files that the drivers read: slope images of flats, ramps and slopes of darks.

1. An array carries pixels alone. Detector, place on it (``start``, ``subarray``) and, for darks, the time between
   groups are given beside it; further keywords of the primary header may be (``header``).
2. A flat is one rate file a plane.
3. A dark is a jump file (ramps with their flags), a rateints file (slopes with their Poisson variance) and a fitopt
   file (pedestals). Slopes that are not given are fitted as the pipeline fits them (:mod:`badpix.numerics.ramp_fit`),
   which needs the gain and the read noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.detectors import Window
from badpix.errors import DataError, UsageError
from badpix.numerics.ramp_fit import Constants, fit_ramps, measure_typical
from badpix.simulation.format import StreamedFits

Array = NDArray[Any]
NOT_TAKEN = (  # of a header that the caller gives
    "SIMPLE BITPIX NAXIS NAXIS1 NAXIS2 EXTEND HISTORY COMMENT CHECKSUM DATASUM FILENAME INTSTART INTEND EXSEGNUM"
).split()
DO_NOT_USE = np.uint8(dq.VALUE["DO_NOT_USE"])


@dataclass(frozen=True)
class Frame:
    """What the pixels of an array belong to: detector, window, further primary keywords."""

    detector: detectors.Detector
    window: Window
    subarray: str
    header: Mapping[str, Any] = field(default_factory=dict)

    def keywords(self, **more: Any) -> dict[str, Any]:
        """Primary keywords of a file: those that the caller gave, under those that the array itself decides."""
        facts, window = self.detector, self.window
        rows = 2048 if window.ysize == detectors.IRS2_ROWS else window.ysize
        return {
            "READPATT": "UNKNOWN",
            **self.header,
            "TELESCOP": "JWST",
            "INSTRUME": facts.instrument,
            "DETECTOR": facts.name,
            "SUBARRAY": self.subarray,
            "SUBSTRT1": window.xstart,
            "SUBSTRT2": window.ystart,
            "SUBSIZE1": window.xsize,
            "SUBSIZE2": rows,
            "S_RAMP": "COMPLETE",
            **more,
        }


def make_frame(
    shape: Sequence[int],
    detector: str | None,
    start: tuple[int, int] | None,
    subarray: str | None,
    header: Mapping[str, Any],
) -> Frame:
    """Where the pixels of an array lie.

    Parameters
    ----------
    shape : sequence of int
        (..., ny, nx).
    detector : str or None
        DETECTOR; ``header`` may say it instead.
    start : pair of int, optional
        First column and row on the detector, counted from 1 (SUBSTRT1, SUBSTRT2).
    subarray : str, optional
        SUBARRAY; both may be left out for a full frame.
    header : mapping
        Further primary keywords.

    Raises
    ------
    UsageError
        If the detector is not given, or the array is no full frame and its place is not given.
    DataError
        If the detector is unknown or the array reaches beyond it.
    """
    name = detector or header.get("DETECTOR")
    if not name:
        raise UsageError("detector: found none, expected the name of the detector that the array is of (NRCB1, ...)")
    facts = detectors.get(str(name))
    header = {k: header[k] for k in header if k and k not in NOT_TAKEN}
    ny, nx = shape[-2:]
    full = (ny, nx) == facts.shape or ny == detectors.IRS2_ROWS
    start = start or (header.get("SUBSTRT1"), header.get("SUBSTRT2"))  # type: ignore[assignment]
    subarray = subarray or header.get("SUBARRAY") or ("FULL" if full else None)
    if full:
        return Frame(facts, Window(1, 1, nx, ny), str(subarray), header)
    if subarray is None or None in (start or (None,)):
        raise UsageError(
            f"found {nx} x {ny} pixels, expected {facts.shape[1]} x {facts.shape[0]}, the full frame of "
            f"{facts.name}; of a subarray give start=(SUBSTRT1, SUBSTRT2) and subarray='NAME'"
        )
    assert start is not None
    window = Window(int(start[0]), int(start[1]), nx, ny)
    last = (window.xstart + nx - 1, window.ystart + ny - 1)
    if min(window[:2]) < 1 or last[0] > facts.shape[1] or last[1] > facts.shape[0]:
        raise DataError(
            f"start {tuple(window[:2])} with {nx} x {ny} pixels reaches to {last}; {facts.name} has "
            f"{facts.shape[1]} x {facts.shape[0]}"
        )
    return Frame(facts, window, subarray, header)


def as_stack(values: Any, axes: str, name: str) -> Array:
    """An array of numbers with the axes that are expected.

    Raises
    ------
    DataError
        If it has other axes, is empty, or holds no real numbers.
    """
    try:
        out = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name}: no array: {error}; expected {axes}") from None
    wanted = axes.count(",") + 1
    if out.ndim != wanted or out.size == 0:
        raise DataError(f"{name}: found shape {out.shape}, expected {axes}")
    if out.dtype.kind not in "fiu":
        raise DataError(f"{name}: found numbers of type {out.dtype}, expected real ones")
    return out


def as_flags(values: Any, shape: tuple[int, ...], name: str, kind: str) -> Array:
    """Flags in the shape of the array they belong to, or one plane for all.

    Raises
    ------
    DataError
        If they have another shape or are no integers.
    """
    flags = np.asarray(values)
    if flags.dtype.kind == "b" or flags.dtype.kind not in "iu":
        raise DataError(f"{name}: found numbers of type {flags.dtype}, expected flags as integers")
    if flags.shape not in (shape, shape[-2:]) and flags.ndim:
        raise DataError(f"{name}: found shape {flags.shape}, expected {shape} or {shape[-2:]}")
    return np.broadcast_to(flags.astype(kind), shape)


# --- flats -----------------------------------------------------------------------------------------------


def write_flats(folder: Path, rates: Array, frame: Frame, flags: Any = None) -> list[Path]:
    """Slope images (n, ny, nx) as n rate files; ``flags`` (n, ny, nx) or (ny, nx) are their DQ."""
    quality = np.zeros(rates.shape, np.uint32) if flags is None else as_flags(flags, rates.shape, "dq", "u4")
    paths = []
    for k, (image, bits) in enumerate(zip(rates, quality, strict=True), 1):
        paths.append(folder / f"array{k:03d}_rate.fits")
        shape = image.shape
        keywords = frame.keywords(NINTS=1, NGROUPS=2)
        with StreamedFits(paths[-1], _header(keywords), {"SCI": ("f4", shape), "DQ": ("u4", shape)}) as target:
            target.put("SCI", (), 0, image)
            target.put("DQ", (), 0, bits)
    return paths


def write_raw(folder: Path, raw: Array, frame: Frame) -> Path:
    """Raw groups (nints, ngroups, ny, nx), DN, as one uncal file."""
    path = folder / "array001_uncal.fits"
    keywords = frame.keywords(NINTS=raw.shape[0], NGROUPS=raw.shape[1])
    del keywords["S_RAMP"]
    with StreamedFits(path, _header(keywords), {"SCI": ("u2", raw.shape)}) as target:
        for at in np.ndindex(raw.shape[:2]):
            target.put("SCI", at, 0, raw[at].astype(np.uint16))
    return path


def _header(keywords: Mapping[str, Any]) -> fits.Header:
    header = fits.Header()
    for name, value in keywords.items():
        header[name] = value
    return header


# --- darks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slopes:
    """Of one exposure: rates (DN/s), their Poisson variance ((DN/s)^2), pedestals (DN); (nints, ny, nx) each."""

    rate: Array
    var_poisson: Array
    pedestal: Array


def fit_slopes(ramps: Array, groupdq: Array, group_time: float, *, gain: float, read_noise: Any) -> Slopes:
    """Slopes of one exposure, as the pipeline fits them.

    Parameters
    ----------
    ramps, groupdq : ndarray
        (nints, ngroups, ny, nx), DN and flags.
    group_time : float
        Seconds between groups.
    gain : float
        Electrons per DN.
    read_noise : float or ndarray
        Of one group, DN; a number, or (ny, nx).
    """
    noise = np.broadcast_to(np.asarray(read_noise, np.float32), ramps.shape[-2:])
    usable = np.flatnonzero((groupdq & DO_NOT_USE != 0).mean(axis=(0, 2, 3)) <= 0.5)
    if len(usable) < 2:
        raise DataError(f"groupdq: {len(usable)} of {ramps.shape[1]} groups are usable, expected 2 or more")
    use = slice(int(usable[0]), int(usable[-1]) + 1)
    constants = Constants(gain, group_time, 1.0)
    typical = measure_typical(ramps[:, use], groupdq[:, use], constants)
    fits_ = [fit_ramps(y, flags, use, typical, noise, constants) for y, flags in zip(ramps, groupdq, strict=True)]
    return Slopes(
        np.stack([f.rate for f in fits_]),
        np.stack([f.var_poisson for f in fits_]),
        np.stack([f.pedestal for f in fits_]),
    )


def write_dark(
    folder: Path,
    number: int,
    ramps: Array,
    groupdq: Array,
    slopes: Slopes,
    frame: Frame,
    flags: Any = None,
    **keywords: Any,
) -> Path:
    """One exposure of darks as its jump, fitopt and rateints files; the last is returned.

    ``flags`` (nints, ny, nx) or (ny, nx) are the DQ of the slopes.
    """
    nints, groups, *plane = ramps.shape
    done = "S_FRSTFR" if frame.detector.instrument == "MIRI" else "S_SUPERB"
    words = {done: "COMPLETE"} | frame.keywords(
        NINTS=nints, NGROUPS=groups, S_JUMP="COMPLETE", EXPOSURE=str(number), **keywords
    )
    quality = as_flags(np.uint32(0), (nints, *plane), "dq", "u4") if flags is None else flags
    products: dict[str, dict[str, tuple[str, Array]]] = {
        "jump": {"SCI": ("f4", ramps), "GROUPDQ": ("u1", groupdq)},
        "fitopt": {"PEDESTAL": ("f4", slopes.pedestal)},
        "rateints": {"SCI": ("f4", slopes.rate), "DQ": ("u4", quality), "VAR_POISSON": ("f4", slopes.var_poisson)},
    }
    path = folder
    for product, arrays in products.items():
        path = folder / f"array{number:03d}_{product}.fits"
        layout = {name: (kind, values.shape) for name, (kind, values) in arrays.items()}
        with StreamedFits(path, _header(words), layout) as target:
            for name, (_, values) in arrays.items():
                for at in np.ndindex(values.shape[:-2]):
                    target.put(name, at, 0, values[at])
    return path
