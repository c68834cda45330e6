"""A look at one exposure on its way through the pipeline's first stage, step by step: numbers first.

1. The products of an exposure are found by their suffixes: those that are named, and those beside them.
2. dq_init: pixels per flag of PIXELDQ. saturation: groups flagged; ramps saturated in part and from the start.
3. superbias, refpix, dark_current: level and spread of the first group before and after; the difference of odd and
   even pixels along the fast axis; the spread of the lines of g2 - 2 g1 + g0 (over sqrt 3, so that it counts as one
   difference of two groups), in which fixed pattern and light cancel and the bands of the 1/f noise are left.
4. linearity: the correction by signal, over pixels that are not saturated.
5. jump: flags, ramps hit, flags in each group.
6. ramp_fit: slopes that are zero or NaN, each with its reason: saturated in all groups, only one good group, not to
   be used by the mask in use, or none that the flags tell.

Images are read plane by plane, so that memory does not grow with groups or integrations. What is compared with what
follows the order of the steps, which is another one for MIRI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq, exposures, selection
from badpix.errors import DataError, UsageError
from badpix.exposures import Exposure

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]

NEAR_INFRARED = ("uncal", "dq_init", "saturation", "superbias", "refpix", "linearity", "dark_current", "jump")
MIRI = ("uncal", "dq_init", "saturation", "linearity", "dark_current", "refpix", "jump")
OTHERS = ("refpix_nosides", "rate", "rateints", "fitopt")
OLD_NAMES = {"0_ramp_fit": "rate", "1_ramp_fit": "rateints", "ramp_fit_0": "rate", "ramp_fit_1": "rateints"}
SUFFIXES = {**OLD_NAMES, **{name: name for name in (*NEAR_INFRARED, *OTHERS)}}
SIGNAL_BINS = (0, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 65_536)  # DN above the bias
SATURATED, JUMP_DET, DO_NOT_USE = (dq.VALUE[name] for name in ("SATURATED", "JUMP_DET", "DO_NOT_USE"))


@dataclass(frozen=True)
class Step:
    """What was found about one step: numbers (possibly nested by name) for table and JSON."""

    name: str
    numbers: dict[str, Any]


@dataclass(frozen=True)
class RampFlags:
    """What GROUPDQ says about the ramps of an exposure; maps count integrations, (ny, nx)."""

    partly: NDArray[np.uint16]  # saturated in some groups
    fully: NDArray[np.uint16]  # saturated in all groups
    jumps: NDArray[np.uint16]  # groups with a jump
    hit: NDArray[np.uint16]  # integrations with a jump
    most_good: NDArray[np.uint16]  # groups that are neither saturated nor DO_NOT_USE, in the best integration
    saturated_groups: int
    jumps_of_group: list[int]
    integrations: int


# --- 1. products -----------------------------------------------------------------------------------------


def split_name(path: Path) -> tuple[str, str]:
    """Root and product of a file, by its name.

    Raises
    ------
    DataError
        If the suffix is not known.
    """
    stem = selection.fits_stem(path)
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if stem is not None and stem.endswith(f"_{suffix}"):
            return stem.removesuffix(f"_{suffix}"), SUFFIXES[suffix]
    known = ", ".join(f"_{s}" for s in dict.fromkeys((*NEAR_INFRARED, *OTHERS)))
    raise DataError(f"{path}: the name tells no product; expected one that ends in {known}")


def find_products(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Exposure -> product -> file: those named, and those beside them that none named takes the place of.

    Raises
    ------
    UsageError
        If nothing is named.
    DataError
        If a file's name tells no product.
    """
    if not files:
        raise UsageError("no files: name any product of an exposure (_uncal, _jump, _rate, ...)")
    found: dict[str, dict[str, Path]] = {}
    folders: dict[str, set[Path]] = {}
    for path in files:
        root, product = split_name(path)
        found.setdefault(root, {})[product] = path
        folders.setdefault(root, set()).add(path.parent)
    for root, products in found.items():
        for folder in sorted(folders[root]):
            for path in sorted(folder.glob(f"{root}_*.fits*")):
                try:
                    beside, product = split_name(path)
                except DataError:
                    continue
                if beside == root:
                    products.setdefault(product, path)
    return found


def open_products(paths: Mapping[str, Path], workdir: Path) -> dict[str, Exposure]:
    """All products of an exposure, opened; they must be of one detector and shape.

    Raises
    ------
    DataError
        If one is broken or does not fit.
    """
    opened = {name: exposures.open_exposure(path, workdir) for name, path in paths.items()}
    some = next(iter(opened.values()))
    for exposure in opened.values():
        if exposure.keyword("DETECTOR") != some.keyword("DETECTOR") or exposure.window != some.window:
            raise DataError(f"{exposure.path}: detector or window differ from those of {some.path.name}")
    return opened


def chain(products: Mapping[str, Exposure]) -> list[str]:
    """The ramp products that are there, in the order of the steps."""
    instrument = next(iter(products.values())).keyword("INSTRUME")
    return [name for name in (MIRI if instrument == "MIRI" else NEAR_INFRARED) if name in products]


def step_before(products: Mapping[str, Exposure], name: str) -> str | None:
    """The product that a step began with, as far as it is there."""
    order = chain(products)
    if name == "refpix_nosides":
        at = order.index("refpix") if "refpix" in order else len(order)
        return order[at - 1] if at else None
    at = order.index(name) if name in order else 0
    return order[at - 1] if at else None


def read_plane(exposure: Exposure, name: str, integration: int = 0, group: int = 0) -> NDArray[Any]:
    """One image of a product, (ny, nx); raw ones as float32."""
    layout = exposure[name]
    groups = layout.shape[1] if len(layout.shape) == 4 else 1
    group = group % groups
    plane = exposures.read_image(layout, integration * groups + group)
    return plane.astype(np.float32) if plane.dtype == np.uint16 else plane


def read_ramp(exposure: Exposure, name: str, x: int, y: int, integration: int = 0) -> NDArray[Any]:
    """The values of one pixel along its ramp, (ngroups,)."""
    layout = exposure[name]
    groups = layout.shape[1]
    planes = range(integration * groups, (integration + 1) * groups)
    return exposures.read_band(layout, y, y + 1, planes=planes)[:, 0, x].copy()


# --- the look --------------------------------------------------------------------------------------------


def look(products: Mapping[str, Exposure], integration: int = 0) -> list[Step]:
    """What the products of one exposure tell about each step.

    Parameters
    ----------
    products : mapping
        Product -> exposure, from :func:`open_products`.
    integration : int
        Integration (from 0) whose first group the levels are measured in.
    """
    some = next(iter(products.values()))
    science = ~exposures.read_reference_pixels(products.get("dq_init", some))
    fast_axis = 1 if abs(int(some.header.get("FASTAXIS", 1))) == 1 else 0
    steps = []
    if "dq_init" in products:
        steps.append(Step("dq_init", count_pixeldq(products["dq_init"], science)))
    flags = _flags(products)
    if flags is not None:
        steps.append(Step("saturation", describe_saturation(flags, science)))
    for name in ("superbias", "refpix_nosides", "refpix", "dark_current"):
        before = step_before(products, name) if name in products else None
        if before:
            steps.append(
                Step(name, compare_levels(products[before], products[name], science, fast_axis, integration))
            )
    before = step_before(products, "linearity") if "linearity" in products else None
    if before:
        pair = products[before], products["linearity"]
        steps.append(Step("linearity", measure_correction(*pair, science, integration)))
    if flags is not None and "jump" in products:
        steps.append(Step("jump", describe_jumps(flags, science)))
    if "rate" in products:
        steps.append(Step("ramp_fit", explain_slopes(products, flags, science)))
    return steps


def _flags(products: Mapping[str, Exposure]) -> RampFlags | None:
    """Flags of the latest ramp product that has GROUPDQ."""
    for name in reversed(chain(products)):
        if "GROUPDQ" in products[name].arrays:
            return count_ramp_flags(products[name])
    return None


# --- 2. flags --------------------------------------------------------------------------------------------


def count_pixeldq(exposure: Exposure, science: Bool) -> dict[str, Any]:
    """Pixels per flag after dq_init; all pixels, reference pixels included."""
    flags = read_plane(exposure, "PIXELDQ")
    counts = {name: int(np.count_nonzero(flags & value)) for name, value in dq.VALUE.items()}
    return {
        "pixels": int(flags.size),
        "flagged": int(np.count_nonzero(flags)),
        "flagged science pixels": int(np.count_nonzero(flags[science])),
        "flags": {name: n for name, n in counts.items() if n},
    }


def count_ramp_flags(exposure: Exposure) -> RampFlags:
    """Saturation and jumps of all ramps, from GROUPDQ plane by plane."""
    nints, ngroups, ny, nx = exposure["GROUPDQ"].shape
    partly, fully, jumps, hit, most_good = (np.zeros((ny, nx), np.uint16) for _ in range(5))
    saturated_groups, per_group = 0, [0] * ngroups
    for i in range(nints):
        full, jumped, good = (np.zeros((ny, nx), np.uint16) for _ in range(3))
        for g in range(ngroups):
            flags = read_plane(exposure, "GROUPDQ", i, g)
            saturated, jump = (flags & SATURATED) != 0, (flags & JUMP_DET) != 0
            full += saturated
            jumped += jump
            good += (flags & (SATURATED | DO_NOT_USE)) == 0
            saturated_groups += int(saturated.sum())
            per_group[g] += int(jump.sum())
        partly += (full > 0) & (full < ngroups)
        fully += full == ngroups
        jumps += jumped
        hit += jumped > 0
        np.maximum(most_good, good, out=most_good)
    return RampFlags(partly, fully, jumps, hit, most_good, saturated_groups, per_group, nints)


def describe_saturation(flags: RampFlags, science: Bool) -> dict[str, Any]:
    """Numbers of saturated groups and ramps; a ramp is one pixel in one integration."""
    return {
        "ramps": int(flags.integrations * np.count_nonzero(science)),
        "saturated groups": flags.saturated_groups,
        "ramps saturated in part": int(flags.partly[science].sum()),
        "ramps saturated from the start": int(flags.fully[science].sum()),
    }


def describe_jumps(flags: RampFlags, science: Bool) -> dict[str, Any]:
    """Numbers of jumps; a ramp is one pixel in one integration."""
    ramps = flags.integrations * int(np.count_nonzero(science))
    hit = int(flags.hit[science].sum())
    return {
        "jump flags": int(flags.jumps.sum(dtype=np.int64)),
        "ramps hit": hit,
        "ramps hit, percent": round(100 * hit / max(ramps, 1), 4),
        "most jumps of a pixel": int(flags.jumps.max(initial=0)),
        "jump flags by group": flags.jumps_of_group,
    }


# --- 3. levels -------------------------------------------------------------------------------------------


def compare_levels(
    before: Exposure, after: Exposure, science: Bool, fast_axis: int, integration: int
) -> dict[str, Any]:
    """Level, spread, odd-even difference and banding before and after a step, in DN."""
    numbers: dict[str, Any] = {"compared with": split_name(before.path)[1]}
    for word, exposure in (("before", before), ("after", after)):
        first = read_plane(exposure, "SCI", integration, 0)
        level, spread = level_and_spread(first[science])
        numbers[f"level {word}, DN"] = level
        numbers[f"spread {word}, DN"] = spread
        numbers[f"odd-even {word}, DN"] = measure_odd_even(first, science, fast_axis)
        if exposure["SCI"].shape[1] > 2:
            second, third = (read_plane(exposure, "SCI", integration, g) for g in (1, 2))
            bend = (third - 2 * second + first) / np.float32(3**0.5)
            numbers[f"banding {word}, DN"] = measure_banding(bend, science, fast_axis)
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in numbers.items()}


def level_and_spread(values: Float) -> tuple[float, float]:
    """Median, and half the range of the middle 68.3 %; NaN where nothing is measured."""
    good = values[np.isfinite(values)]
    if not good.size:
        return float("nan"), float("nan")
    low, middle, high = np.percentile(good, (15.87, 50, 84.13))
    return float(middle), float(high - low) / 2


def measure_odd_even(image: Float, science: Bool, fast_axis: int) -> float:
    """Median of the even pixels along the fast axis minus that of the odd ones, DN."""
    even = (slice(None), slice(None, None, 2)) if fast_axis == 1 else (slice(None, None, 2), slice(None))
    odd = (slice(None), slice(1, None, 2)) if fast_axis == 1 else (slice(1, None, 2), slice(None))
    return level_and_spread(image[even][science[even]])[0] - level_and_spread(image[odd][science[odd]])[0]


def measure_banding(bend: Float, science: Bool, fast_axis: int) -> float:
    """Spread of the medians of the lines along the fast axis, DN."""
    kept = np.where(science, bend, np.nan)
    lines = kept if fast_axis == 1 else kept.T
    lines = lines[np.isfinite(lines).any(axis=1)]
    if not lines.size:
        return float("nan")
    return level_and_spread(np.nanmedian(lines, axis=1))[1]


# --- 4. linearity ----------------------------------------------------------------------------------------


def measure_correction(before: Exposure, after: Exposure, science: Bool, integration: int) -> dict[str, Any]:
    """Median correction by signal in the last group, over science pixels that are not saturated there."""
    signal = read_plane(before, "SCI", integration, -1)
    change = read_plane(after, "SCI", integration, -1) - signal
    good = science & np.isfinite(change)
    if "GROUPDQ" in after.arrays:
        good &= (read_plane(after, "GROUPDQ", integration, -1) & SATURATED) == 0
    rows = {}
    for low, high in pairwise(SIGNAL_BINS):
        here = good & (signal >= low) & (signal < high)
        if here.any():
            rows[f"{low} to {high} DN"] = {
                "pixels": int(here.sum()),
                "correction, DN": round(float(np.median(change[here])), 3),
            }
    return {
        "compared with": split_name(before.path)[1],
        "pixels changed": int(np.count_nonzero(change[good])),
        "by signal": rows,
    }


# --- 6. slopes -------------------------------------------------------------------------------------------


def explain_slopes(products: Mapping[str, Exposure], flags: RampFlags | None, science: Bool) -> dict[str, Any]:
    """Level of the slopes; slopes that are zero or NaN, by reason."""
    slope = read_plane(products["rate"], "SCI")
    level, spread = level_and_spread(slope[science])
    nan, zero = science & np.isnan(slope), science & (slope == 0)
    reasons = find_reasons(products, flags, nan | zero)
    numbers: dict[str, Any] = {
        "level, DN/s": round(level, 5),
        "spread, DN/s": round(spread, 5),
        "zero": int(zero.sum()),
        "NaN": int(nan.sum()),
        "zero or NaN because": {name: int(found.sum()) for name, found in reasons.items() if found.any()},
    }
    if "fitopt" in products:
        pedestal = read_plane(products["fitopt"], "PEDESTAL")
        numbers["pedestal, DN"], numbers["pedestal spread, DN"] = (
            round(v, 3) for v in level_and_spread(pedestal[science])
        )
    return numbers


def find_reasons(products: Mapping[str, Exposure], flags: RampFlags | None, empty: Bool) -> dict[str, Bool]:
    """Why pixels have no slope: reason -> map; each pixel has one, the first that holds."""
    flagged = read_plane(products["rate"], "DQ")
    if flags is None:
        tests = {
            "saturated": (flagged & SATURATED) != 0,
            "not to be used (DO_NOT_USE)": (flagged & DO_NOT_USE) != 0,
        }
    else:
        some = (flags.partly > 0) | (flags.fully > 0)
        tests = {
            "saturated in all groups": flags.fully == flags.integrations,
            "one good group, the others saturated": some & (flags.most_good == 1),
            "no good group left": some & (flags.most_good == 0),
            "not to be used by the mask in use (DO_NOT_USE)": flags.most_good == 0,
        }
    left, out = empty.copy(), {}
    for name, holds in tests.items():
        out[name] = left & holds
        left &= ~holds
    out["no reason in the flags"] = left
    return out


# --- table and examples ----------------------------------------------------------------------------------


def table_rows(steps: Sequence[Step]) -> list[tuple[str, str, str]]:
    """Rows (step, quantity, value) for printing."""
    rows = []
    for step in steps:
        for name, value in _flat(step.numbers):
            rows.append((step.name, name, _text(value)))
    return rows


def _flat(numbers: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        label = f"{before}{name}"
        rows += _flat(value, f"{label}: ") if isinstance(value, Mapping) else [(label, value)]
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def choose_examples(where: Bool, number: int) -> list[tuple[int, int]]:
    """Some pixels (x, y) of a map, evenly spread over those that it holds, always the same ones."""
    y, x = np.nonzero(where)
    if not len(y):
        return []
    at = np.unique(np.linspace(0, len(y) - 1, min(number, len(y))).round().astype(int))
    return [(int(x[k]), int(y[k])) for k in at]
