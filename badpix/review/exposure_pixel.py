"""Why a pixel of a science exposure was lost: its DQ in words, and the mask that was used.

1. The pixel of a rate, rateints, cal or crf file: science value, error, DQ of each integration.
2. Each bit: what it means and which step of the pipeline sets it (:data:`STEPS`).
3. R_MASK names the mask that the pipeline used. Where it is at hand (given, beside the exposure, in the CRDS cache)
   its bits are told from those that the exposure got itself, and its evidence says why.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from badpix import dq
from badpix.errors import DataError, UsageError
from badpix.image.wcs import read_geometry
from badpix.io import cal as io_cal
from badpix.io.exposure import Exposure, open_exposure, unpacking
from badpix.io.fits import read_band
from badpix.mask import file as mask_file
from badpix.review import explain, readings, words

MASK_STEP = "dq_init, from the mask"
# The step of the pipeline that sets a bit; several, where it depends.
STEPS = {
    "DO_NOT_USE": "dq_init (from the mask), ramp_fit (no usable group) or outlier_detection",
    "SATURATED": "saturation: a group lies above the saturation level",
    "JUMP_DET": "jump: a cosmic ray in one of the groups",
    "DROPOUT": "data lost in transmission",
    "OUTLIER": "outlier_detection, of the third stage",
    "PERSISTENCE": "persistence",
    "AD_FLOOR": "saturation: at or below the floor of the converter",
    "CHARGELOSS": "charge_migration",
    "NO_FLAT_FIELD": "flat_field, from its reference file",
    "NO_GAIN_VALUE": "jump or ramp_fit, from the gain",
    "NO_LIN_CORR": "linearity, from its reference file",
    "NO_SAT_CHECK": "saturation, from its reference file",
    "UNRELIABLE_BIAS": "superbias, or dq_init from the mask",
    "UNRELIABLE_DARK": "dark_current, or dq_init from the mask",
    "UNRELIABLE_FLAT": "flat_field, from its reference file",
    "FLUX_ESTIMATED": "pixel_replace",
    "MSA_FAILED_OPEN": "msaflagopen",
    "NON_SCIENCE": "dq_init (from the mask) or flat_field (outside the lit part)",
}


@dataclass
class Lost:
    """A pixel of an exposure, explained: ``x``, ``y`` 0-based of its image; ``full`` of the full frame.

    ``integrations`` holds (value, error, DQ) of each; ``mask`` is what the mask says, if it is at hand.
    """

    path: Path
    x: int
    y: int
    full: tuple[int, int]
    unit: str
    integrations: list[tuple[float, float, int]]
    sentences: list[str]
    mask_name: str
    mask: explain.Explanation | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def value(self) -> int:
        """DQ of all integrations together."""
        return int(np.bitwise_or.reduce([dq_value for _, _, dq_value in self.integrations]))

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        rows = [
            {"value": _number(v), "error": _number(e), "dq": d, "flags": dq.names(d)} for v, e, d in self.integrations
        ]
        return {
            "exposure": str(self.path),
            "x": self.x,
            "y": self.y,
            "full_frame": list(self.full),
            "unit": self.unit,
            "integrations": rows,
            "flags": dq.names(self.value),
            "sentences": self.sentences,
            "mask": self.mask_name,
            "mask_pixel": self.mask.summary() if self.mask else None,
            "notes": self.notes,
        }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def find_pixel(path: str | Path, ra: float, dec: float) -> tuple[int, int]:
    """The pixel of an exposure at a position of the sky, 0-based.

    Raises
    ------
    DataError
        If the exposure has no usable WCS.
    UsageError
        If the position lies outside its image.
    """
    with unpacking() as workdir:
        cal = io_cal.read_layout(path, workdir)
        x, y = read_geometry(cal).invert(ra, dec)
        ny, nx = io_cal.layout_of(cal, io_cal.image_hdu(cal, "SCI")).shape[-2:]
    if not (np.isfinite(x) and np.isfinite(y) and -0.5 <= x < nx - 0.5 and -0.5 <= y < ny - 0.5):
        raise UsageError(f"--radec {ra} {dec}: lies outside {path} (x {x:.1f}, y {y:.1f})")
    return round(x), round(y)


def explain_pixel(path: str | Path, x: int, y: int, mask: str | Path | None = None) -> Lost:
    """One pixel of an exposure.

    Parameters
    ----------
    path : path
        rate, rateints, cal or crf file.
    x, y : int
        0-based, of its image.
    mask : path, optional
        The mask that was used, where R_MASK and the CRDS cache don't lead to it.

    Raises
    ------
    UsageError
        If the pixel lies outside the image.
    """
    with unpacking() as workdir:
        exposure = open_exposure(path, workdir, ["SCI", "ERR", "DQ"])
        ny, nx = exposure["SCI"].shape[-2:]
        if not (0 <= x < nx and 0 <= y < ny):
            raise UsageError(f"pixel ({x}, {y}) lies outside {path}: x, y from (0, 0) to ({nx - 1}, {ny - 1})")
        rows = _read_values(exposure, x, y)
    full = x + _start(exposure, "SUBSTRT1"), y + _start(exposure, "SUBSTRT2")
    name = str(exposure.header.get("R_MASK", "")).removeprefix("crds://")
    unit = str(exposure.header.get("BUNIT", "")) or ("DN/s" if "rate" in Path(path).name else "")
    out = Lost(Path(path), x, y, full, unit, rows, [], name)
    place = Path(mask) if mask else find_mask(exposure, name)
    from_mask = 0
    if place is not None:
        from_mask = _read_mask(out, place)
    elif name and name != "N/A":
        out.notes.append(f"the mask {name} is not at hand: give --mask FILE, or set CRDS_PATH to your cache")
    else:
        out.notes.append("R_MASK names no mask: dq_init was skipped, or the file is of another tool")
    out.sentences = _tell(out, from_mask)
    return out


def _start(exposure: Exposure, keyword: str) -> int:
    value = exposure.header.get(keyword)
    return int(value) - 1 if isinstance(value, int) and value > 0 else 0


def _read_values(exposure: Exposure, x: int, y: int) -> list[tuple[float, float, int]]:
    """Value, error and DQ of each integration."""
    columns = {}
    for name in ("SCI", "ERR", "DQ"):
        if name in exposure.arrays:
            columns[name] = read_band(exposure[name], y, y + 1)[..., 0, x].reshape(-1)
    n = columns["SCI"].size
    errors = columns.get("ERR", np.full(n, np.nan))
    flags = columns.get("DQ", np.zeros(n, np.uint32))
    return [(float(columns["SCI"][k]), float(errors[k]), int(flags[k])) for k in range(n)]


def find_mask(exposure: Exposure, name: str) -> Path | None:
    """The mask that an exposure names: as it stands, beside the exposure, or in the CRDS cache; None if nowhere."""
    if not name or name == "N/A":
        return None
    file = Path(name).name
    instrument = str(exposure.header.get("INSTRUME", "")).lower()
    places = [Path(name), exposure.path.parent / file]
    cache = os.environ.get("CRDS_PATH")
    if cache:
        root = Path(cache) / "references" / "jwst"
        places += [root / instrument / file, root / file]
    return next((p for p in places if p.is_file()), None)


def _read_mask(out: Lost, place: Path) -> int:
    """What a mask says of the pixel: kept in ``out``; returns its DQ there."""
    mask = mask_file.read_mask(place)
    out.mask_name = place.name
    try:
        with readings.open_evidence(mask) as (found, note):
            out.mask = explain.explain(mask, found, *out.full)
            out.notes += [f"{place.name}: {note}"] if note else []
    except (UsageError, DataError) as error:
        out.notes.append(f"{place.name}: {error}")
        return 0
    return out.mask.value


def _tell(out: Lost, from_mask: int) -> list[str]:
    """What each bit means, who set it, in which integrations; then what the mask says."""
    n = len(out.integrations)
    told = []
    for flag in dq.FLAGS:
        if not out.value & flag.value:
            continue
        seen = sum(bool(d & flag.value) for _, _, d in out.integrations)
        where = f", in {seen} of {n} integrations" if n > 1 and seen < n else ""
        told.append(f"{flag.name} ({words.lower_first(flag.description)}): {_who(out, flag, from_mask)}{where}.")
    if not told:
        told.append("No bit is set: the pixel was used.")
    if not any(np.isfinite(v) for v, _, _ in out.integrations):
        told.append("It has no value (NaN): no usable group was left, or a later step took it out.")
    if out.mask is not None:
        missing = [name for name in dq.names(from_mask & ~out.value) if name not in ("REFERENCE_PIXEL",)]
        if missing:
            told.append(f"The mask has {', '.join(missing)} here, which the exposure lacks: another mask was used.")
    return told


def _who(out: Lost, flag: dq.Flag, from_mask: int) -> str:
    """Who set a bit."""
    if out.mask is not None and from_mask & flag.value:
        return f"set by {MASK_STEP} {out.mask_name}"
    step = STEPS.get(flag.name, MASK_STEP if flag.use == "mask" else "not known")
    if out.mask is not None and flag.use == "mask" and flag.name in STEPS:
        step = step.replace("dq_init (from the mask), ", "").replace(" or dq_init from the mask", "")
    return f"set by {step}"
