"""Where the defects of a simulation are, of which type, and how strong: the truth.

1. Each type has a list of levels (:func:`levels`), in the unit that the table gives.
2. Every type and level is placed at isolated pixels; a part stands next to the border of the science area and in its
   corners; touching pairs and mixed clusters follow. With a map of real bad pixels, places are drawn from it,
   so that the clustering is the real one (whole groups of touching pixels).
3. Pixels that are bad by nature join the list (setting "natural", level 0): the far tails of dark current and noise.
4. :func:`measure_truth` turns the list into DQ flags: standard bits, ADJ_OPEN around OPEN, REFERENCE_PIXEL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq

if TYPE_CHECKING:
    from badpix.simulation.recipe import Recipe

Bool = NDArray[np.bool_]

# Name of the injected type -> its DQ flag; "" where a good mask has none.
FLAG_OF = {
    "DEAD": "DEAD",
    "LOW_QE": "LOW_QE",
    "OPEN": "OPEN",
    "HOT": "HOT",
    "SATURATED": "HOT",
    "WARM": "WARM",
    "RC": "RC",
    "IRC": "RC",
    "TELEGRAPH": "TELEGRAPH",
    "NOISY": "UNRELIABLE_SLOPE",
    "LOW_PEDESTAL": "OTHER_BAD_PIXEL",
    "ADJ_OPEN": "ADJ_OPEN",
    "LOW_FILTER": "LOW_QE",
    "STEADY": "HOT",
    "BORN": "HOT",
    "SWITCHING": "UNRELIABLE_SLOPE",
    "INTERMITTENT": "HOT",
    "NEWLY_HOT": "HOT",
    "RECOVERED": "",
    "DRIFTING": "HOT",
    "SWITCHED": "HOT",
    "RC_SOMETIMES": "RC",
    "CLUSTER": "HOT",
    "VOID": "LOW_QE",
    "PERSISTENCE": "",
}
UNIT_OF = {
    "DEAD": "response",
    "LOW_QE": "response",
    "OPEN": "response",
    "HOT": "e/s",
    "SATURATED": "",
    "WARM": "e/s",
    "RC": "DN",
    "IRC": "DN",
    "TELEGRAPH": "DN",
    "NOISY": "x own noise",
    "LOW_PEDESTAL": "DN",
    "ADJ_OPEN": "",
    "LOW_FILTER": "response",
    "STEADY": "DN/s",
    "BORN": "DN/s",
    "SWITCHING": "DN/s",
    "INTERMITTENT": "of the sets",
    "NEWLY_HOT": "of the sets",
    "RECOVERED": "of the sets",
    "DRIFTING": "e/s",
    "SWITCHED": "sets dwell",
    "RC_SOMETIMES": "of the sets",
    "CLUSTER": "e/s",
    "VOID": "response",
    "PERSISTENCE": "",
}
LEVELS: dict[str, tuple[float, ...]] = {
    "DEAD": (0.0, 0.01),
    "LOW_QE": (0.12, 0.25, 0.42),
    "OPEN": (0.02, 0.1, 0.3),
    "SATURATED": (0.0,),
    "RC": (60.0, 200.0, 800.0, 3000.0),
    "IRC": (30.0, 100.0, 300.0, 1000.0),
    "TELEGRAPH": (8.0, 15.0, 30.0, 100.0, 300.0),
    "NOISY": (1.5, 2.0, 3.0, 6.0, 15.0),
    "LOW_PEDESTAL": (60.0, 120.0, 300.0, 1000.0, 4000.0),
}
LOW_IN_SOME = (0.02, 0.12, 0.3)  # response of LOW_FILTER where it is poor
DEFECT = np.dtype(
    [
        ("type", "U12"),
        ("x", "i4"),
        ("y", "i4"),
        ("level", "f4"),
        ("setting", "U8"),
        ("extra1", "f4"),
        ("extra2", "f4"),
    ]
)
"""One defect. ``extra1`` and ``extra2``: OPEN: part of the lost charge that the neighbors collect; RC, IRC: time
constant in groups; LOW_FILTER: filters in which it is poor, as bits, and their number; TELEGRAPH: mean dwell times in
the low and in the high state, in groups; NOISY: the pixel's true noise over the median of the detector."""
NOISY_LIMIT = 1.75  # times the detector's median noise: noisy by nature


@dataclass(frozen=True)
class Defects:
    """All injected defects, sorted by row; ``rows`` is a structured array of :data:`DEFECT`."""

    rows: NDArray[Any]

    @classmethod
    def none(cls) -> Defects:
        """No defects."""
        return cls(np.empty(0, DEFECT))

    @classmethod
    def natural(cls, maps: dict[str, Bool]) -> Defects:
        """Defects that nobody placed: type -> map."""
        rows = [(name, x, y, 0, "natural", 0, 0) for name, bad in maps.items() for y, x in np.argwhere(bad)]
        return cls(np.array(rows, DEFECT))

    def joined(self, other: Defects) -> Defects:
        """Both lists as one, sorted by row."""
        rows = np.concatenate([self.rows, other.rows])
        return Defects(rows[np.lexsort((rows["x"], rows["y"]))])

    def of(self, name: str, low: int = 0, high: int | None = None) -> NDArray[Any]:
        """The defects of one type in rows ``low`` to ``high`` (exclusive)."""
        keep = (self.rows["type"] == name) & (self.rows["y"] >= low)
        if high is not None:
            keep &= self.rows["y"] < high
        found: NDArray[Any] = self.rows[keep]
        return found


def levels(recipe: Recipe) -> dict[str, tuple[float, ...]]:
    """Type -> levels for this detector."""
    some = {"LOW_FILTER": LOW_IN_SOME} if len(recipe.filters) > 1 else {}
    return {**LEVELS, "HOT": recipe.physics.hot_levels, "WARM": recipe.physics.warm_levels, **some}


def place_defects(recipe: Recipe, reference: Bool, rng: np.random.Generator) -> Defects:
    """Draw places and details of all defects.

    Parameters
    ----------
    recipe : Recipe
        Says how many and in which settings.
    reference : bool array (ny, nx)
        Reference pixels; never defective here.
    """
    count = recipe.defects_per_level
    if count is None:
        count = max(2, round(recipe.shape[0] * recipe.shape[1] / 20_000))
    wanted = [(name, level) for name, values in sorted(levels(recipe).items()) for level in values]
    taken = reference.copy()
    found: list[tuple[str, int, int, float, str]] = []
    if recipe.defect_map is not None:
        most = None if recipe.defects_per_level is None else recipe.defects_per_level * len(wanted)
        found = _from_map(wanted, read_candidates(recipe, reference), most, rng)
    else:
        for place in (_border, _pair, _cluster, _isolated) if count else ():
            found += place(wanted, count, reference, taken, rng)
    rows = np.empty(len(found), DEFECT)
    for k, (name, y, x, level, setting) in enumerate(found):
        rows[k] = (name, x, y, level, setting, *draw_details(name, rng, len(recipe.filters)))
    return Defects(rows[np.lexsort((rows["x"], rows["y"]))])


def read_candidates(recipe: Recipe, reference: Bool) -> Bool:
    """The given map of real bad pixels, cut to the frame, without reference pixels."""
    assert recipe.defect_map is not None
    packed, shape = recipe.defect_map
    bad = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1]).reshape(shape).astype(bool)
    y0, x0 = recipe.window.ystart - 1, recipe.window.xstart - 1
    window = np.zeros(recipe.shape, bool)
    part = bad[y0 : y0 + recipe.shape[0], x0 : x0 + recipe.shape[1]]
    window[: part.shape[0], : part.shape[1]] = part
    return window & ~reference


def draw_details(name: str, rng: np.random.Generator, filters: int = 0) -> tuple[float, float]:
    """The two further numbers of a defect (see :data:`DEFECT`)."""
    u, v = rng.random(2)
    if name == "OPEN":
        return 0.55 + 0.4 * u, 0.0
    if name == "LOW_FILTER":
        poor, first = 1 + int(u * (filters - 1)), int(v * filters)
        return float(sum(1 << (first + k) % filters for k in range(poor))), float(poor)
    if name in ("RC", "IRC"):
        return float(np.exp(np.log(1.0) + u * np.log(12.0))), 0.0
    if name == "TELEGRAPH":
        dwell = float(np.exp(np.log(2.5) + u * np.log(5.0)))
        return dwell, dwell * (1.0, 1.0, 3.0, 1 / 2.5)[int(v * 4)] + 0.5
    return 0.0, 0.0


Wanted = list[tuple[str, float]]
Found = list[tuple[str, int, int, float, str]]


def _free(taken: Bool, y: int, x: int, margin: int) -> bool:
    """Whether a square around a pixel is free of defects; beyond the frame counts as free."""
    return not taken[max(y - margin, 0) : y + margin + 1, max(x - margin, 0) : x + margin + 1].any()


def _from_map(wanted: Wanted, candidates: Bool, most: int | None, rng: np.random.Generator) -> Found:
    """Whole groups of touching pixels of a map, up to ``most`` pixels; half of a group's pixels are of one kind."""
    from scipy import ndimage

    groups, number = ndimage.label(candidates, structure=np.ones((3, 3)))
    y, x = np.nonzero(groups)
    rank = rng.permutation(number)[groups[y, x] - 1]
    order = np.lexsort((x, y, rank))[:most]
    kinds = rng.integers(len(wanted), size=number)[rank[order]]
    own = rng.random(len(order)) < 0.5
    kinds[own] = rng.integers(len(wanted), size=int(own.sum()))
    return [
        (wanted[k][0], int(v), int(u), wanted[k][1], "map") for k, v, u in zip(kinds, y[order], x[order], strict=True)
    ]


def _isolated(wanted: Wanted, count: int, reference: Bool, taken: Bool, rng: np.random.Generator) -> Found:
    """``count`` pixels of every type and level, at least 3 pixels from other defects and the border."""
    out: Found = []
    ny, nx = taken.shape
    for name, level in wanted * count:
        for _ in range(200):
            y, x = int(rng.integers(ny)), int(rng.integers(nx))
            if _free(taken, y, x, 3):
                taken[y, x] = True
                out.append((name, y, x, level, "isolated"))
                break
    return out


def _border(wanted: Wanted, count: int, reference: Bool, taken: Bool, rng: np.random.Generator) -> Found:
    """The four corners of the science area, then every type and level at least once along its edges."""
    ys, xs = np.nonzero(~reference)
    low, high = (int(ys.min()), int(xs.min())), (int(ys.max()), int(xs.max()))
    picks = [w for w in wanted if w[0] in ("OPEN", "DEAD", "HOT", "RC")]
    corners = [(low[0], low[1]), (low[0], high[1]), (high[0], low[1]), (high[0], high[1])]
    others = np.zeros_like(taken)  # unlike ``taken`` without the border itself
    out: Found = []
    for y, x in corners:
        name, level = picks[int(rng.integers(len(picks)))]
        others[y, x] = taken[y, x] = True
        out.append((name, y, x, level, "corner"))
    for name, level in wanted * max(1, count // 25):
        for _ in range(100):
            side, u = int(rng.integers(4)), rng.random()
            y = (low[0], high[0], int(low[0] + u * (high[0] - low[0])))[min(side, 2)]
            x = int(low[1] + u * (high[1] - low[1])) if side < 2 else (low[1], high[1])[side - 2]
            if _free(others, y, x, 3):
                others[y, x] = taken[y, x] = True
                out.append((name, y, x, level, "edge"))
                break
    return out


def _pair(wanted: Wanted, count: int, reference: Bool, taken: Bool, rng: np.random.Generator) -> Found:
    """Touching pairs (side by side, one above the other, diagonal) of one type, in every type and level."""
    out: Found = []
    ny, nx = taken.shape
    for name, level in wanted * max(1, count // 25):
        for _ in range(200):
            y, x = int(rng.integers(ny - 1)), int(rng.integers(nx - 1))
            dy, dx = ((0, 1), (1, 0), (1, 1))[int(rng.integers(3))]
            if _free(taken, y, x, 4) and _free(taken, y + dy, x + dx, 4):
                taken[y, x] = taken[y + dy, x + dx] = True
                out += [(name, y, x, level, "pair"), (name, y + dy, x + dx, level, "pair")]
                break
    return out


def _cluster(wanted: Wanted, count: int, reference: Bool, taken: Bool, rng: np.random.Generator) -> Found:
    """Clumps of 4 to 12 pixels of mixed types, as radiation damage and epoxy voids leave them."""
    out: Found = []
    ny, nx = taken.shape
    for _ in range(max(1, count // 12)):
        for _ in range(200):
            y0, x0 = int(rng.integers(ny)), int(rng.integers(nx))
            if _free(taken, y0, x0, 8):
                break
        else:
            continue
        for _ in range(int(rng.integers(4, 13))):
            dy, dx = np.rint(rng.normal(scale=1.5, size=2)).astype(int)
            y, x = y0 + int(dy), x0 + int(dx)
            if 0 <= y < ny and 0 <= x < nx and not taken[y, x]:
                name, level = wanted[int(rng.integers(len(wanted)))]
                taken[y, x] = True
                out.append((name, y, x, level, "cluster"))
    return out


def flag_value(name: str) -> int:
    """Bit of a type's flag; 0 where a good mask has none."""
    return dq.VALUE[FLAG_OF[name]] if FLAG_OF[name] else 0


def measure_truth(defects: Defects, reference: Bool) -> NDArray[np.uint32]:
    """The DQ image of the truth, standard bits, uint32 (ny, nx).

    ADJ_OPEN is on the 8 neighbors of every OPEN pixel that are science pixels and neither OPEN, DEAD nor LOW_QE.
    """
    truth = np.where(reference, np.uint32(dq.VALUE["REFERENCE_PIXEL"]), np.uint32(0))
    for d in defects.rows:
        truth[d["y"], d["x"]] |= np.uint32(flag_value(str(d["type"])))
    insensitive = np.uint32(dq.VALUE["OPEN"] | dq.VALUE["DEAD"] | dq.VALUE["LOW_QE"])
    for d in defects.of("OPEN"):
        y, x = slice(max(d["y"] - 1, 0), d["y"] + 2), slice(max(d["x"] - 1, 0), d["x"] + 2)
        mark = ((truth[y, x] & insensitive) == 0) & ~reference[y, x]
        truth[y, x] |= np.where(mark, np.uint32(dq.VALUE["ADJ_OPEN"]), np.uint32(0))
    return truth
