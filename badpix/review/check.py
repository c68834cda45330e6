"""Is a mask valid and plausible? The gate before a mask is delivered.

1. Rules: everything that :mod:`badpix.mask.rules` finds in the file.
2. Level: share of science pixels with each flag, with any flag, and with DO_NOT_USE; whole rows and columns; the
   share that the flats could judge (the rest is unlit, dim, saturated: no flag there does not mean good).
3. Policy: defects without DO_NOT_USE, DO_NOT_USE without a reason, HOT together with DEAD.
4. Jump: the number of pixels with each flag against the previous mask, where both look.
5. Clients: the pipeline's DQInitStep and ``crds certify``, where they are installed.

An error fails the check, a warning does so only with ``strict``, a note never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.detectors import Window
from badpix.errors import DataError, UsageError
from badpix.io.html import as_table
from badpix.mask import file as mask_file
from badpix.mask import rules
from badpix.mask.combine import count_flags
from badpix.mask.file import Mask
from badpix.mask.header import NOBODY
from badpix.mask.history import read_judged
from badpix.mask.rules import Fault
from badpix.review import clients
from badpix.review.depth import find_shallower
from badpix.settings.check import ChangeSettings, CheckSettings, CountSettings, PolicySettings

NOT_DEFECTS = ("DO_NOT_USE", "NON_SCIENCE", "REFERENCE_PIXEL", "BAD_REF_PIXEL")
LINES_SHOWN = 5
USUALLY_JUDGED = 95.0  # percent of the science pixels
JUMP_SIGMA = 5.0  # changes within this many times their counting noise are never a jump


@dataclass
class Checked:
    """The result for one mask.

    Attributes
    ----------
    faults : list of Fault
        Errors and warnings.
    flags : list of dict
        Per flag: pixels, percent of the science pixels, limit, pixels in the previous mask.
    answers : list of Answer
        What the clients said.
    done : list of str
        Which groups of checks were run.
    judged_percent : float or None
        Share of the science pixels that the flats judged.
    """

    path: Path
    faults: list[Fault]
    flags: list[dict[str, Any]] = field(default_factory=list)
    answers: list[clients.Answer] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    judged_percent: float | None = None
    strict: bool = False

    @property
    def passed(self) -> bool:
        """Whether nothing stands against using the mask."""
        stops = ("error", "warning") if self.strict else ("error",)
        return not any(f.severity in stops for f in self.faults)

    def summary(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "mask": str(self.path),
            "passed": self.passed,
            "checks": self.done,
            "errors": [f._asdict() for f in self.faults if f.severity == "error"],
            "warnings": [f._asdict() for f in self.faults if f.severity == "warning"],
            "notes": [f._asdict() for f in self.faults if f.severity == "note"],
            "judged_percent": self.judged_percent,
            "flags": self.flags,
            "clients": [vars(a) for a in self.answers],
        }

    def _repr_html_(self) -> str:
        rows = [(fault.severity, fault.rule, fault.message) for fault in self.faults]
        title = f"{self.path.name}: {'passed' if self.passed else 'failed'}"
        return as_table(title, ("", "rule", "what is wrong"), rows)


def check_mask(
    path: str | Path,
    p: CheckSettings,
    *,
    against: str | Path | None = None,
    pipeline: bool = False,
    exposure: str | Path | None = None,
) -> Checked:
    """All checks of one mask.

    Parameters
    ----------
    path : path
        The MASK file.
    p : mapping
        Checked values of ``settings.check``.
    against : path, optional
        The previous mask of the same detector.
    pipeline : bool
        Ask the real clients.
    exposure : path, optional
        A raw exposure for the pipeline.

    Raises
    ------
    DataError
        If ``against`` can't be read or is of another detector.
    """
    path = Path(path)
    result = Checked(path, rules.find_faults(path), done=["rules"], strict=p.strict)
    mask = _decode(path, result)
    previous = mask_file.read_mask(against, check_sums=False) if against else None
    if mask is not None:
        science = ~mask.reference
        counts = count_flags(mask.image, science)
        result.flags = _rows(counts, int(science.sum()), p)
        result.faults += [*check_level(counts, int(science.sum()), p), *check_lines(mask, p), *check_policy(mask, p)]
        judged = read_judged(mask)
        result.judged_percent = judged[0] if judged else None
        result.faults += [*check_texts(mask), *(check_judged(*judged, p) if judged else [])]
        result.done += ["level", "policy", "texts"]
        if previous is not None:
            result.faults += _check_previous(mask, previous, p, result.flags)
            result.faults += [Fault("warning", "depth", text) for text in find_shallower(path, Path(str(against)))]
            result.done.append("jump")
    if pipeline:
        result.answers = [clients.run_dq_init(path, exposure), clients.run_certify(path)]
        result.faults += [f for answer in result.answers for f in _client_faults(answer)]
        result.done += [a.client for a in result.answers if a.status != "not run"]
    result.faults.sort(key=lambda f: rules.SEVERITIES.index(f.severity))
    return result


def _decode(path: Path, result: Checked) -> Mask | None:
    """The mask as the pipeline sees it; None (and a fault, if there is none yet) where it can't be."""
    try:
        mask = mask_file.read_mask(path, check_sums=False)  # the rules have said what is wrong with them
        mask.reference  # noqa: B018 (raises where DETECTOR is unknown)
        return mask
    except DataError as error:
        if not any(f.severity == "error" for f in result.faults):
            result.faults.append(Fault("error", "decode", str(error).removeprefix(f"{path}: ")))
        return None


def limits_for(detector: str, tree: Mapping[str, Any], values: CheckSettings, source: str) -> CheckSettings:
    """Parameters of one detector: those of the file's ``detectors`` section laid over the common ones.

    Parameters
    ----------
    detector : str
        DETECTOR.
    tree : mapping
        A limits file: the section ``check``, and ``detectors: {NAME: {...}}`` with the same names.
    values : CheckSettings
        Common values.
    source : str
        The file, for messages.

    Raises
    ------
    UsageError
        At an unknown name or a wrong value.
    """
    own = tree.get("detectors") or {}
    if not isinstance(own, Mapping):
        raise UsageError(f"{source}: detectors: found {own!r}, expected 'NAME: {{limit: value}}'")
    return values.changed(own.get(detector) or {}, f"{source}: detectors.{detector}")


# --- 2. level --------------------------------------------------------------------------------------------


def _rows(counts: Mapping[str, int], n_science: int, p: CountSettings) -> list[dict[str, Any]]:
    n = max(n_science, 1)
    limits = {**p.max_percent, "DO_NOT_USE": p.max_unusable_percent, "any": p.flagged_percent[1]}
    return [
        {"flag": name, "pixels": count, "percent": round(100 * count / n, 5), "limit": limits.get(name)}
        for name, count in counts.items()
    ]


def check_level(counts: Mapping[str, int], n_science: int, p: CountSettings) -> list[Fault]:
    """Shares of flagged science pixels against their limits."""
    n = max(n_science, 1)
    percent = {name: 100 * count / n for name, count in counts.items()}
    flagged, unusable = percent.get("any", 0.0), percent.get("DO_NOT_USE", 0.0)
    text = f"{flagged:.3g} % of the science pixels are flagged, {unusable:.3g} % unusable (DO_NOT_USE)"
    found = []
    low, high = p.flagged_percent
    if not low <= flagged <= high:
        found.append(Fault("warning", "level", f"{text}; masks usually flag {low:g} to {high:g} %: implausible?"))
    if unusable > p.max_unusable_percent:
        found.append(Fault("error", "level", f"{text}; at most {p.max_unusable_percent:g} % may be unusable"))
    for name, limit in p.max_percent.items():
        if percent.get(name, 0.0) > limit:
            found.append(
                Fault("error", "level", f"{name}: {percent[name]:.3g} % of the science pixels, at most {limit:g} %")
            )
    return found


def check_lines(mask: Mask, p: CountSettings) -> list[Fault]:
    """Rows and columns of which most pixels are flagged: a broken line of the detector, or of the search."""
    science = ~mask.reference
    flagged = (mask.image != 0) & science
    found = []
    for name, axis in (("column", 0), ("row", 1)):
        total = science.sum(axis=axis)
        share = 100 * flagged.sum(axis=axis) / np.maximum(total, 1)
        lines = np.flatnonzero((share > p.max_line_percent) & (total >= 16))
        if lines.size:
            shown = ", ".join(f"{k} ({share[k]:.0f} %)" for k in lines[:LINES_SHOWN])
            more = f" and {lines.size - LINES_SHOWN} more" if lines.size > LINES_SHOWN else ""
            found.append(Fault("warning", "lines", f"{name} {shown}{more}: most of its pixels are flagged"))
    return found


def check_judged(percent: float, line: str, p: CountSettings) -> list[Fault]:
    """Whether the flats of a mask could judge most pixels; ``line`` says what kept them from the rest."""
    if percent >= max(p.min_judged_percent, USUALLY_JUDGED):
        return []
    wanted = f"; at least {p.min_judged_percent:g} % are expected" if percent < p.min_judged_percent else ""
    text = f"the flats {line}; a pixel that was not judged has no flag and may be bad{wanted}"
    return [Fault("warning" if wanted else "note", "judged", text)]


# --- 3. policy -------------------------------------------------------------------------------------------


def check_policy(mask: Mask, p: PolicySettings) -> list[Fault]:
    """Defects that stay in use, unusable pixels without a reason, and types that exclude each other."""
    science = ~mask.reference
    image = mask.image[science]
    unusable = _has(image, "DO_NOT_USE")
    n = max(image.size, 1)
    flagged = int(np.count_nonzero(image))
    share = f"{100 * flagged / n:.3g} % flagged, {100 * unusable.sum() / n:.3g} % unusable"
    found = []
    for name in p.do_not_use_types:
        carried = _has(image, name.upper())
        usable = int((carried & ~unusable).sum())
        if usable:
            text = f"{name}: {usable:,} of {carried.sum():,} pixels have no DO_NOT_USE and stay in use ({share})"
            found.append(Fault("warning", "policy", text))
    known = [f.value for f in dq.FLAGS if f.use in ("mask", "other") and f.name not in NOT_DEFECTS]
    reasons = np.uint32(sum(known) | dq.VALUE["NON_SCIENCE"])
    bare = int((unusable & ((image & reasons) == 0)).sum())
    if bare:
        found.append(Fault("warning", "policy", f"{bare:,} pixels have DO_NOT_USE without a flag that says why"))
    both = int((_has(image, "HOT") & _has(image, "DEAD")).sum())
    if both:
        found.append(Fault("warning", "policy", f"{both:,} pixels are HOT and DEAD at once; HOT should win"))
    return found


def _has(image: NDArray[np.uint32], name: str) -> NDArray[np.bool_]:
    flagged: NDArray[np.bool_] = (image & np.uint32(dq.VALUE[name])) != 0
    return flagged


def check_texts(mask: Mask) -> list[Fault]:
    """Texts that nobody gave: a delivered mask is signed, described, and for a date that somebody chose."""
    found = []
    if str(mask.header.get("AUTHOR", "")).strip().lower() == NOBODY:
        found.append(Fault("warning", "author", f"AUTHOR = {NOBODY!r}: nobody signed the mask; give --author"))
    if str(mask.header.get("DESCRIP", "")).strip() == f"Bad pixel mask of {mask.detector}":
        found.append(
            Fault("warning", "descrip", "DESCRIP is the one that stands in for a missing one; give --descrip")
        )
    own = takewhile(lambda line: not line.startswith("HISTORY of "), mask.history)
    if any("USEAFTER was not given" in line for line in own):
        found.append(
            Fault(
                "warning",
                "useafter",
                f"USEAFTER = {mask.header.get('USEAFTER')} is that of the first "
                "input, nobody chose it; give --useafter",
            )
        )
    return found


# --- 4. jump ---------------------------------------------------------------------------------------------


def _check_previous(mask: Mask, previous: Mask, p: CheckSettings, rows: list[dict[str, Any]]) -> list[Fault]:
    """Jumps where both masks look; the rows get the numbers of the previous mask."""
    old, new, science = common_part(previous, mask)
    before, after = count_flags(old, science), count_flags(new, science)
    for name in before:
        if name not in {r["flag"] for r in rows}:
            rows.append({"flag": name, "pixels": 0, "percent": 0.0, "limit": p.max_percent.get(name)})
    bits = {flag.name: flag.bit for flag in dq.FLAGS}
    rows.sort(key=lambda r: bits.get(r["flag"], 99))  # any flag comes last
    for row in rows:
        row["previous"] = before.get(row["flag"], 0)
    return check_jump(before, after, int(science.sum()), p)


def common_part(old: Mask, new: Mask) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.bool_]]:
    """Both images in the window that they share, and which of its pixels are science pixels.

    Raises
    ------
    DataError
        If the masks are of different detectors or share no pixel.
    """
    if old.detector != new.detector:
        raise DataError(f"{new.path}: DETECTOR = {new.detector!r}, expected {old.detector!r} as in {old.path}")
    a, b = old.window, new.window
    x0, y0 = max(a.xstart, b.xstart), max(a.ystart, b.ystart)
    x1 = min(a.xstart + a.xsize, b.xstart + b.xsize)
    y1 = min(a.ystart + a.ysize, b.ystart + b.ysize)
    if x1 <= x0 or y1 <= y0:
        raise DataError(f"{new.path}: its window {tuple(b)} shares no pixel with {tuple(a)} of {old.path}")
    shared = Window(x0, y0, x1 - x0, y1 - y0)
    science = ~(cut(old.reference, a, shared) | cut(new.reference, b, shared))
    return cut(old.image, a, shared), cut(new.image, b, shared), science


def cut(image: NDArray[Any], window: Window, shared: Window) -> NDArray[Any]:
    """The part of an image that lies in another window of the same detector."""
    y, x = shared.ystart - window.ystart, shared.xstart - window.xstart
    return image[y : y + shared.ysize, x : x + shared.xsize]


def check_jump(before: Mapping[str, int], after: Mapping[str, int], n_science: int, p: ChangeSettings) -> list[Fault]:
    """Flags whose number of pixels grew or shrank by more than a factor."""
    found = []
    floor = p.min_jump_percent / 100 * n_science
    for name in sorted({*before, *after}):
        old, new = before.get(name, 0), after.get(name, 0)
        low, high = sorted((old, new))
        noise = JUMP_SIGMA * np.sqrt(low + high)
        if high - low > max(floor, noise) and high > p.max_jump_ratio * low:
            ratio = f"{high / low:.1f} times" if low else "from none" if new else "to none"
            found.append(
                Fault(
                    "error",
                    "jump",
                    f"{'any flag' if name == 'any' else name}: {old:,} pixels in the previous mask, {new:,} now "
                    f"({ratio}); at most a factor of {p.max_jump_ratio:g} is expected",
                )
            )
    return found


# --- 5. clients ------------------------------------------------------------------------------------------


def _client_faults(answer: clients.Answer) -> Sequence[Fault]:
    rule = answer.client.replace(" ", "-").lower()
    if answer.status == "not run":
        return [Fault("error", rule, f"{answer.client} was asked for and not run: {'; '.join(answer.messages)}")]
    if answer.status == "failed":
        return [Fault("error", rule, f"{answer.client}: {m}") for m in answer.messages or ["failed"]]
    return []
