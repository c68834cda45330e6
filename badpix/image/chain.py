"""The GWCS of an image, straight from its ASDF tree and with numpy alone.

The WCS of an imaging `_cal` file is a page of YAML: shifts, scales, polynomials and rotations, one after another
or side by side. Making GWCS objects of it imports astropy.modeling and every ASDF extension that is installed,
which takes longer than the search of a few images does. So:

1. each step's transform becomes a tree of :class:`Operation`, numbers and parts (:func:`read_chain`);
2. positions are passed through it (:func:`evaluate`), with the formulas of the ASDF transform schemas;
3. the way back takes a transform's stored inverse where it has one, otherwise the analytic one (:func:`invert`).

Whatever is not understood *completely* (a transform, a key, a unit, a frame, a packed block) raises
:class:`Unknown`; the caller then takes the GWCS library. Nothing is guessed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.image.grid import Bounds
from badpix.io import asdf_text

_TRANSFORM = "tag:stsci.edu:asdf/transform/"
_GWCS = "tag:stsci.edu:gwcs/"
_ARRAY = "tag:stsci.edu:asdf/core/ndarray-1."
_UNIT = "tag:stsci.edu:asdf/unit/unit-1."
_HARMLESS = {"name", "inputs", "outputs", "inverse"}  # keys that every transform may have
_IDENTICAL = [[-1.0, 1.0], [-1.0, 1.0]]  # domain and window of a polynomial that maps nothing


class Unknown(Exception):
    """Something in the tree that this module does not know; not an error."""


class Operation(NamedTuple):
    """A transform: its kind, numbers, parts, number of inputs, and its inverse if one is stored."""

    kind: str
    numbers: Any = None
    parts: tuple[Any, ...] = ()
    inputs: int = 1
    inverse: Any = None


@dataclass(frozen=True)
class Chain:
    """Pixel -> sky and back; ``bounds`` is the bounding box of the first step (pixel edges)."""

    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]
    bounds: Bounds | None


# --- 1. reading -------------------------------------------------------------------------------------------


def read_chain(content: bytes) -> Chain:
    """The chain of ``meta.wcs`` in an ASDF file.

    Raises
    ------
    Unknown
        If it isn't an image's WCS that consists of known transforms.
    ValueError
        If this is no ASDF.
    """
    text, rest = asdf_text.split(content)
    node = asdf_text.compose(text)
    for name in ("meta", "wcs"):
        node = asdf_text.child(node, name)
    if node is None or not str(node.tag).startswith(f"{_GWCS}wcs-1."):
        raise Unknown("no meta.wcs")
    try:
        return _read_steps(node, _Reader(rest))
    except (KeyError, IndexError, TypeError, ValueError, struct.error) as error:
        raise Unknown(f"not of the usual form: {error}") from None


def _read_steps(node: Any, read: _Reader) -> Chain:
    steps = [_entries(step) for step in _items(_entries(node)["steps"])]
    _check_sky(steps[-1]["frame"])
    bounds = _read_bounds(steps[0]["transform"])
    first = read.transform(steps[0]["transform"], more={"bounding_box"})
    forward = (first, *(read.transform(step["transform"]) for step in steps[1:-1]))
    return Chain(forward, tuple(invert(operation) for operation in reversed(forward)), bounds)


def _entries(node: Any) -> dict[str, Any]:
    """A mapping node as name -> node."""
    if not isinstance(node.value, list) or not all(isinstance(pair, tuple) for pair in node.value):
        raise Unknown(f"{node.tag} is no mapping")
    return {key.value: value for key, value in node.value}


def _items(node: Any) -> list[Any]:
    if not isinstance(node.value, list) or any(isinstance(item, tuple) for item in node.value):
        raise Unknown(f"{node.tag} is no sequence")
    return list(node.value)


def _number(node: Any) -> float:
    if node.tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int"):
        raise Unknown(f"{node.value} is no plain number")
    try:
        return float(node.value)
    except ValueError:
        raise Unknown(f"{node.value} is no plain number") from None


def _numbers(node: Any) -> Any:
    """Numbers of a scalar, a list, or lists of lists."""
    return [_numbers(item) for item in _items(node)] if isinstance(node.value, list) else _number(node)


def _check_sky(frame: Any) -> None:
    """The last frame must be longitude and latitude in degrees."""
    entries = _entries(frame)
    order = _numbers(entries["axes_order"]) if "axes_order" in entries else None
    units = [(unit.tag[: len(_UNIT)], unit.value) for unit in _items(entries["unit"])] if "unit" in entries else None
    celestial = frame.tag.startswith(f"{_GWCS}celestial_frame-1.")
    if not celestial or order != [0, 1] or units != [(_UNIT, "deg")] * 2:
        raise Unknown("the WCS does not end in longitude and latitude in degrees")


def _read_bounds(transform: Any) -> Bounds | None:
    entries = _entries(transform)
    if "bounding_box" not in entries:
        return None
    box = entries["bounding_box"]
    if not box.tag.startswith(f"{_TRANSFORM}property/bounding_box-1."):
        raise Unknown("a bounding box of another form")
    intervals = _entries(_entries(box)["intervals"])
    names = [item.value for item in _items(entries["inputs"])]
    if sorted(intervals) != sorted(names) or len(names) != 2:
        raise Unknown("a bounding box of other axes")
    (xa, xb), (ya, yb) = (_numbers(intervals[name]) for name in names)
    return (xa, xb), (ya, yb)  # named, so the order that the box states does not matter


class _Reader:
    """Turns nodes into operations; holds the binary blocks, and what was read before (YAML aliases)."""

    def __init__(self, rest: bytes) -> None:
        self.rest = rest
        self.known: dict[int, Operation] = {}

    def transform(self, node: Any, more: frozenset[str] | set[str] = frozenset()) -> Operation:
        if id(node) not in self.known:
            self.known[id(node)] = self._new_transform(node, more)
        return self.known[id(node)]

    def _new_transform(self, node: Any, more: frozenset[str] | set[str]) -> Operation:
        kind = _kind(node.tag)
        needed, possible = _KEYS[kind]
        entries = _entries(node)
        if not needed <= entries.keys() or not entries.keys() <= _HARMLESS | needed | possible | more:
            raise Unknown(f"{kind} with {', '.join(entries)}")
        if "inputs" not in entries:
            raise Unknown(f"{kind} without names of its inputs")
        inverse = self.transform(entries["inverse"]) if "inverse" in entries else None
        parts: tuple[Operation, ...] = ()
        if "forward" in entries:
            parts = tuple(self.transform(part) for part in _items(entries["forward"]))
        return Operation(kind, self._parameters(kind, entries), parts, len(_items(entries["inputs"])), inverse)

    def _parameters(self, kind: str, entries: Mapping[str, Any]) -> Any:
        if kind in ("shift", "scale", "constant"):
            return _number(entries[{"shift": "offset", "scale": "factor", "constant": "value"}[kind]])
        if kind == "remap_axes":
            return tuple(int(i) for i in _numbers(entries["mapping"]))
        if kind == "polynomial":
            return self._polynomial(entries)
        if kind == "affine":
            return self.array(entries["matrix"]), self.array(entries["translation"])
        if kind == "spherical_cartesian":
            return entries["transform_type"].value, _number(entries["wrap_lon_at"])
        if kind == "rotate_sequence_3d":
            angles, axes = _numbers(entries["angles"]), entries["axes_order"].value
            if len(angles) != len(axes) or not set(axes) <= set("xyz"):
                raise Unknown(f"rotation about {axes}")
            return _rotation(angles, axes), entries["rotation_type"].value
        return None

    def _polynomial(self, entries: Mapping[str, Any]) -> NDArray[Any]:
        coefficients = self.array(entries["coefficients"])
        for name in ("domain", "window"):
            same = _IDENTICAL[: coefficients.ndim]
            if name in entries and _numbers(entries[name]) not in (same, same[0]):
                raise Unknown(f"polynomial with a {name}")
        if coefficients.ndim not in (1, 2):
            raise Unknown(f"polynomial of {coefficients.ndim} variables")
        return coefficients

    def array(self, node: Any) -> NDArray[Any]:
        """An array, in the text or in a binary block, float64."""
        if not node.tag.startswith(_ARRAY):
            return np.array(_numbers(node), float)
        if isinstance(node.value, list) and not all(isinstance(pair, tuple) for pair in node.value):
            return np.array(_numbers(node), float)
        entries = _entries(node)
        if not entries.keys() <= {"source", "data", "datatype", "byteorder", "shape"}:
            raise Unknown(f"array with {', '.join(entries)}")
        if "data" in entries:
            return np.array(_numbers(entries["data"]), float)
        order = {"little": "<", "big": ">"}.get(entries["byteorder"].value, "?")
        kind = {"float64": "f8", "float32": "f4", "int64": "i8", "int32": "i4"}.get(entries["datatype"].value)
        if kind is None or order == "?":
            raise Unknown(f"array of {entries['datatype'].value}")
        shape = tuple(int(n) for n in _numbers(entries["shape"]))
        data = read_block(self.rest, int(_number(entries["source"])))
        return np.frombuffer(data, order + kind, math.prod(shape)).reshape(shape).astype(float)


def read_block(rest: bytes, number: int) -> bytes:
    """The data of a binary block of an ASDF file, given what follows its tree."""
    at = rest.find(b"\xd3BLK")
    for _ in range(number + 1):
        if number < 0 or at < 0 or rest[at : at + 4] != b"\xd3BLK":
            raise Unknown(f"no block {number}")
        (header,) = struct.unpack_from(">H", rest, at + 4)
        flags, packing, allocated, used = struct.unpack_from(">I4sQQ", rest, at + 6)
        start, at = at + 6 + header, at + 6 + header + allocated
    if flags or packing.strip(b"\0"):
        raise Unknown("a packed or streamed block")
    return rest[start : start + used]


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
}
# Keys that a transform must have, and those that it may have.
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "compose": ({"forward"}, set()),
    "concatenate": ({"forward"}, set()),
    **{name: ({"forward"}, set()) for name in _ARITHMETIC},
    "identity": (set(), {"n_dims"}),
    "remap_axes": ({"mapping"}, {"n_inputs"}),
    "shift": ({"offset"}, set()),
    "scale": ({"factor"}, set()),
    "constant": ({"value"}, {"dimensions"}),
    "polynomial": ({"coefficients"}, {"domain", "window"}),
    "affine": ({"matrix", "translation"}, set()),
    "spherical_cartesian": ({"transform_type", "wrap_lon_at"}, set()),
    "rotate_sequence_3d": ({"angles", "axes_order", "rotation_type"}, set()),
}


def _kind(tag: str) -> str:
    base = _GWCS if tag.startswith(_GWCS) else _TRANSFORM
    name, _, version = tag.removeprefix(base).rpartition("-")
    if not tag.startswith(base) or not version.startswith("1.") or name not in _KEYS:
        raise Unknown(f"transform {tag}")
    return name


# --- 2. evaluation ----------------------------------------------------------------------------------------


def evaluate(operations: tuple[Operation, ...], *positions: Any) -> tuple[NDArray[Any], ...]:
    """Positions (scalars or arrays) after all operations, one after another."""
    values = tuple(np.asarray(v, float) for v in positions)
    for operation in operations:
        values = _apply(operation, values)
    return values


def _apply(operation: Operation, v: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    kind, numbers, parts, inputs, _ = operation
    if len(v) != inputs:
        raise Unknown(f"{kind}: {len(v)} inputs, expected {inputs}")
    if kind == "compose":
        return _apply(parts[1], _apply(parts[0], v))
    if kind == "concatenate":
        return _apply(parts[0], v[: parts[0].inputs]) + _apply(parts[1], v[parts[0].inputs :])
    if kind in _ARITHMETIC:
        both = zip(_apply(parts[0], v), _apply(parts[1], v), strict=True)
        return tuple(_ARITHMETIC[kind](a, b) for a, b in both)
    return _APPLY[kind](numbers, *v)


def _polynomial(c: NDArray[Any], *v: NDArray[Any]) -> tuple[NDArray[Any]]:
    """Horner's rule; c[i] x^i, or c[i, j] x^i y^j."""
    if c.ndim == 2:
        rows = [_polynomial(row, v[1])[0] for row in c]
        return (reduce(lambda total, row: total * v[0] + row, rows[::-1]),)
    return (reduce(lambda total, term: total * v[0] + term, c[::-1], np.zeros(v[0].shape)),)


def _affine(numbers: tuple[NDArray[Any], NDArray[Any]], x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    ((a, b), (c, d)), (e, f) = numbers[0], numbers[1].ravel()
    return a * x + b * y + e, c * x + d * y + f


def _spherical(numbers: tuple[str, float], *v: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    kind, wrap = numbers
    if kind == "spherical_to_cartesian":
        return _to_cartesian(*v)
    lon, lat = _to_spherical(*v)
    return (np.mod(lon, 360.0) if wrap != 180 else lon), lat


def _to_cartesian(lon: NDArray[Any], lat: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    lon, lat = np.radians(lon), np.radians(lat)
    return np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)


def _to_spherical(x: NDArray[Any], y: NDArray[Any], z: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def _rotate(numbers: tuple[NDArray[Any], str], *v: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    matrix, kind = numbers
    x, y, z = _to_cartesian(*v) if kind == "spherical" else v
    turned = tuple(a * x + b * y + c * z for a, b, c in matrix)
    return _to_spherical(*turned) if kind == "spherical" else turned


def _rotation(angles: list[float], axes: str) -> NDArray[Any]:
    """Product of rotations of the coordinates about the axes, the first one on the right; angles in degrees."""
    out = np.eye(3)
    for angle, axis in zip(np.radians(angles), axes, strict=True):
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[i, j], turn[j, i] = math.sin(angle), -math.sin(angle)
        out = turn @ out
    return out


_APPLY: dict[str, Callable[..., tuple[NDArray[Any], ...]]] = {
    "identity": lambda _, *v: v,
    "remap_axes": lambda mapping, *v: tuple(v[i] for i in mapping),
    "shift": lambda offset, x: (x + offset,),
    "scale": lambda factor, x: (x * factor,),
    "constant": lambda value, x, *_: (np.full(x.shape, value),),
    "polynomial": _polynomial,
    "affine": _affine,
    "spherical_cartesian": _spherical,
    "rotate_sequence_3d": _rotate,
}


# --- 3. the way back --------------------------------------------------------------------------------------


def invert(operation: Operation) -> Operation:
    """The inverse: the stored one, or the analytic one.

    Raises
    ------
    Unknown
        If there is neither.
    """
    kind, numbers, parts, inputs, inverse = operation
    if inverse is not None:
        found: Operation = inverse
        return found
    if kind == "compose":
        return Operation(kind, None, (second := invert(parts[1]), invert(parts[0])), second.inputs)
    if kind == "concatenate":
        both = tuple(invert(part) for part in parts)
        return Operation(kind, None, both, both[0].inputs + both[1].inputs)
    if kind == "identity":
        return operation
    if kind == "shift":
        return operation._replace(numbers=-numbers)
    if kind == "scale" and numbers:
        return operation._replace(numbers=1 / numbers)
    if kind == "remap_axes" and set(numbers) == set(range(inputs)):
        return Operation(kind, tuple(numbers.index(i) for i in range(inputs)), (), len(numbers))
    if kind == "affine" and np.linalg.det(numbers[0]):
        matrix = np.linalg.inv(numbers[0])
        return operation._replace(numbers=(matrix, -(matrix * numbers[1].ravel()).sum(axis=1)))
    if kind == "rotate_sequence_3d":
        return operation._replace(numbers=(numbers[0].T, numbers[1]))
    if kind == "spherical_cartesian":
        there = numbers[0] == "spherical_to_cartesian"
        other = "cartesian_to_spherical" if there else "spherical_to_cartesian"
        return Operation(kind, (other, numbers[1]), (), 3 if there else 2)
    raise Unknown(f"no inverse of {kind}")
