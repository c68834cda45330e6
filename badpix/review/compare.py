"""What changed between masks of one detector.

1. Masks are compared where their windows overlap, on pixels that are science pixels in both: a subarray mask against
   its window of a full frame, a ground mask against a flight one. Coordinates are 0-based, of the full frame.
2. Per flag: pixels in each, kept, appeared, disappeared, and the agreement: kept / (kept + appeared + disappeared).
3. Transitions: each pixel's flags (DO_NOT_USE aside, which follows from them) before and after, counted.
4. Several dated masks: for each flag and pixel the sequence of being flagged. A pixel is *born* when it turns from
   good to flagged once and stays so, *died* the other way round, *intermittent* when it turns more than once. Rates
   are births and deaths per month (30.44 days) between the first and the last date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.detectors import Window
from badpix.errors import DataError, UsageError
from badpix.io.html import as_table
from badpix.mask.file import Mask
from badpix.review.check import common_part, cut

DAYS_A_MONTH = 30.44
GOOD = "good"
Bool = NDArray[np.bool_]
DQ = NDArray[np.uint32]


class Change(NamedTuple):
    """Counts of one flag in two masks."""

    flag: str
    old: int
    new: int
    kept: int
    appeared: int
    disappeared: int

    @property
    def agreement(self) -> float | None:
        """Share of the pixels flagged in either mask that both flag; None without any."""
        total = self.kept + self.appeared + self.disappeared
        return self.kept / total if total else None


class Transition(NamedTuple):
    """How many pixels went from one set of flags to another."""

    old: str
    new: str
    pixels: int


@dataclass(frozen=True)
class Comparison:
    """Two masks, compared.

    Attributes
    ----------
    old, new : uint32 ndarray
        The images in the window that both cover.
    science : bool ndarray
        Where they were compared.
    window : Window
        That window.
    """

    old: DQ
    new: DQ
    science: Bool
    window: Window
    changes: list[Change]
    transitions: list[Transition]

    @property
    def appeared(self) -> DQ:
        """Flags that the new mask has and the old one had not."""
        return np.where(self.science, self.new & ~self.old, np.uint32(0))

    @property
    def disappeared(self) -> DQ:
        """Flags that the old mask had and the new one has not."""
        return np.where(self.science, self.old & ~self.new, np.uint32(0))

    def pixels(self) -> list[dict[str, Any]]:
        """Every pixel that changed: x, y of the full frame, flags before and after."""
        y, x = np.nonzero(self.science & (self.old != self.new))
        x0, y0 = self.window.xstart - 1, self.window.ystart - 1
        return [
            {
                "x": int(b) + x0,
                "y": int(a) + y0,
                "old": dq.names(int(self.old[a, b])),
                "new": dq.names(int(self.new[a, b])),
            }
            for a, b in zip(y, x, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """The JSON form, without the list of pixels."""
        n = max(int(self.science.sum()), 1)
        return {
            "window": list(self.window),
            "science_pixels": int(self.science.sum()),
            "changed_pixels": int((self.science & (self.old != self.new)).sum()),
            "flags": [
                {
                    **c._asdict(),
                    "agreement": c.agreement,
                    "old_percent": 100 * c.old / n,
                    "new_percent": 100 * c.new / n,
                }
                for c in self.changes
            ],
            "transitions": [t._asdict() for t in self.transitions],
        }

    def _repr_html_(self) -> str:
        rows = [(c.flag, c.old, c.new, c.appeared, c.disappeared, c.kept) for c in self.changes]
        title = f"{int(self.science.sum()):,} science pixels compared"
        return as_table(title, ("flag", "old", "new", "appeared", "disappeared", "kept"), rows)


def compare(old: Mask, new: Mask, region: tuple[slice, slice] | None = None) -> Comparison:
    """Two masks of one detector, where both look.

    Parameters
    ----------
    old, new : Mask
        From :func:`crds.read_mask`.
    region : pair of slice, optional
        Rows and columns of the full frame to which the comparison is restricted.

    Raises
    ------
    DataError
        If they are of different detectors or share no pixel.
    """
    before, after, science = common_part(old, new)
    window = _shared(old.window, new.window)
    if region is not None:
        science = science & _inside(region, window)
    return Comparison(
        before,
        after,
        science,
        window,
        count_changes(before, after, science),
        count_transitions(before, after, science),
    )


def _shared(a: Window, b: Window) -> Window:
    x, y = max(a.xstart, b.xstart), max(a.ystart, b.ystart)
    x1, y1 = min(a.xstart + a.xsize, b.xstart + b.xsize), min(a.ystart + a.ysize, b.ystart + b.ysize)
    return Window(x, y, x1 - x, y1 - y)


def _inside(region: tuple[slice, slice], window: Window) -> Bool:
    y = np.arange(window.ysize) + window.ystart - 1
    x = np.arange(window.xsize) + window.xstart - 1
    rows, columns = region
    found: Bool = ((y >= rows.start) & (y < rows.stop))[:, None] & ((x >= columns.start) & (x < columns.stop))[
        None, :
    ]
    return found


def count_changes(old: DQ, new: DQ, science: Bool) -> list[Change]:
    """Counts per flag; the last row, ``any``, counts pixels with any flag."""
    a, b = old[science], new[science]
    rows = [_change(flag.name, (a & flag.value) != 0, (b & flag.value) != 0) for flag in dq.FLAGS]
    return [*[r for r in rows if r.old or r.new], _change("any", a != 0, b != 0)]


def _change(name: str, old: Bool, new: Bool) -> Change:
    kept = int((old & new).sum())
    before, after = int(old.sum()), int(new.sum())
    return Change(name, before, after, kept, after - kept, before - kept)


def count_transitions(old: DQ, new: DQ, science: Bool) -> list[Transition]:
    """How many pixels changed from which flags to which, most frequent first."""
    reasons = np.uint32(0xFFFFFFFF ^ dq.VALUE["DO_NOT_USE"])
    changed = science & (old != new)
    # where the reason stays and DO_NOT_USE alone changes, that is the transition
    a, b = old[changed], new[changed]
    same = (a & reasons) == (b & reasons)
    pairs = np.where(same, a, a & reasons).astype(np.uint64) << np.uint64(32) | np.where(same, b, b & reasons)
    values, counts = np.unique(pairs, return_counts=True)
    rows = [
        Transition(label(int(v) >> 32), label(int(v) & 0xFFFFFFFF), int(n))
        for v, n in zip(values, counts, strict=True)
    ]
    return sorted(rows, key=lambda t: (-t.pixels, t.old, t.new))


def label(value: int) -> str:
    """Flags joined by ``+``; ``good`` for none."""
    return "+".join(dq.names(value)) or GOOD


# --- regions ---------------------------------------------------------------------------------------------


def parse_regions(words: Sequence[str], detector: str) -> dict[str, tuple[slice, slice]]:
    """Named regions of the full frame.

    Parameters
    ----------
    words : sequence of str
        ``amplifiers`` (the four stripes that the amplifiers read), ``quadrants``, or ``NAME=x0:x1,y0:y1`` (0-based,
        inclusive).
    detector : str
        DETECTOR.

    Raises
    ------
    UsageError
        If a word can't be understood.
    """
    from badpix.mask.manual import parse_range

    facts = detectors.get(detector)
    ny, nx = facts.shape
    out: dict[str, tuple[slice, slice]] = {}
    for word in words:
        if word == "quadrants":
            halves = {"left": slice(0, nx // 2), "right": slice(nx // 2, nx)}
            for name, columns in halves.items():
                out[f"lower {name}"] = (slice(0, ny // 2), columns)
                out[f"upper {name}"] = (slice(ny // 2, ny), columns)
        elif word == "amplifiers":
            out |= _amplifiers(facts)
        elif "=" in word and word.count(",") == 1:
            name, box = word.split("=", 1)
            x, y = box.split(",")
            out[name] = (parse_range(y, ny), parse_range(x, nx))
        else:
            raise UsageError(f"--regions: found {word!r}, expected amplifiers, quadrants or NAME=x0:x1,y0:y1")
    return out


def _amplifiers(facts: detectors.Detector) -> dict[str, tuple[slice, slice]]:
    if facts.amplifiers == "interleaved":
        raise UsageError(f"--regions: the amplifiers of {facts.name} are interleaved columns, no regions")
    ny, nx = facts.shape
    whole = slice(0, ny), slice(0, nx)
    out = {}
    for k in range(4):
        if abs(facts.fastaxis) == 1:
            out[f"amplifier {k + 1}"] = (whole[0], slice(k * nx // 4, (k + 1) * nx // 4))
        else:
            out[f"amplifier {k + 1}"] = (slice(k * ny // 4, (k + 1) * ny // 4), whole[1])
    return out


# --- several dates ---------------------------------------------------------------------------------------


class Life(NamedTuple):
    """Counts of one flag over several masks."""

    flag: str
    always: int
    born: int
    died: int
    intermittent: int
    born_per_month: float | None
    died_per_month: float | None
    counts: list[int]


@dataclass(frozen=True)
class History:
    """Several masks in the order of their dates."""

    dates: list[str]
    months: float
    images: list[DQ]
    science: Bool
    window: Window
    lives: list[Life]

    def pixels(self, kinds: Sequence[str] = ("born", "died", "intermittent")) -> list[dict[str, Any]]:
        """Pixels of some kinds: flag, x, y, kind, and the sequence as ``0011``."""
        rows = []
        for life in self.lives:
            if life.flag == "any":
                continue
            seen = self._sequence(life.flag)
            for kind, chosen in classify(seen).items():
                if kind in kinds:
                    rows += self._list(life.flag, kind, chosen, seen)
        return rows

    def _sequence(self, flag: str) -> Bool:
        return _sequence(self.images, self.science, dq.VALUE[flag])

    def _list(self, flag: str, kind: str, chosen: Bool, seen: Bool) -> list[dict[str, Any]]:
        y, x = np.nonzero(chosen)
        x0, y0 = self.window.xstart - 1, self.window.ystart - 1
        return [
            {
                "flag": flag,
                "x": int(b) + x0,
                "y": int(a) + y0,
                "kind": kind,
                "seen": "".join("1" if s else "0" for s in seen[:, a, b]),
            }
            for a, b in zip(y, x, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """The JSON form, without the list of pixels."""
        return {
            "dates": self.dates,
            "months": round(self.months, 3),
            "science_pixels": int(self.science.sum()),
            "flags": [life._asdict() for life in self.lives],
        }


def date_of(mask: Mask) -> datetime:
    """The date for which a mask stands: USEAFTER, else DATE.

    Raises
    ------
    DataError
        If it has neither.
    """
    for key in ("USEAFTER", "DATE"):
        try:
            return datetime.fromisoformat(str(mask.header.get(key, "")).strip()).replace(tzinfo=None)
        except ValueError:
            continue
    raise DataError(f"{mask.path}: USEAFTER = {mask.header.get('USEAFTER')!r}, expected YYYY-MM-DDThh:mm:ss")


def follow(masks: Sequence[Mask]) -> History:
    """The history of every pixel over several masks of one window, sorted by date.

    Raises
    ------
    DataError
        If detectors or windows do not fit, or two masks have one date.
    """
    masks = sorted(masks, key=date_of)
    dates = [date_of(m) for m in masks]
    for a, b, first, second in zip(masks, masks[1:], dates, dates[1:], strict=False):
        if first == second:
            raise DataError(
                f"{b.path}: has the date of {a.path} ({first.isoformat()}); USEAFTER must tell them apart"
            )
    window, science = masks[0].window, ~masks[0].reference
    for other in masks[1:]:
        common_part(masks[0], other)
        if other.window != window:
            raise DataError(
                f"{other.path}: window {tuple(other.window)}, expected {tuple(window)}; compare two at a time"
            )
        science &= ~cut(other.reference, other.window, window)
    images = [m.image for m in masks]
    months = (dates[-1] - dates[0]).total_seconds() / 86400 / DAYS_A_MONTH
    lives = [_life(f.name, _sequence(images, science, f.value), months) for f in dq.FLAGS]
    lives = [life for life in lives if any(life.counts)]
    lives.append(_life("any", _sequence(images, science, 0xFFFFFFFF), months))
    return History([d.isoformat() for d in dates], months, images, science, window, lives)


def _sequence(images: Sequence[DQ], science: Bool, value: int) -> Bool:
    return np.stack([((image & np.uint32(value)) != 0) & science for image in images])


def classify(seen: Bool) -> Mapping[str, Bool]:
    """Maps of the pixels that were always, born, died or intermittent; ``seen`` is (dates, ny, nx)."""
    turns = np.count_nonzero(seen[1:] != seen[:-1], axis=0)
    return {
        "always": seen.all(axis=0),
        "born": (turns == 1) & seen[-1],
        "died": (turns == 1) & seen[0],
        "intermittent": turns > 1,
    }


def _life(name: str, seen: Bool, months: float) -> Life:
    kinds = {kind: int(found.sum()) for kind, found in classify(seen).items()}
    rates = [kinds[k] / months if months > 0 else None for k in ("born", "died")]
    counts = [int(n) for n in seen.sum(axis=(1, 2))]
    return Life(
        name, kinds["always"], kinds["born"], kinds["died"], kinds["intermittent"], rates[0], rates[1], counts
    )
