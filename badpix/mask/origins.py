"""Where each flag comes from, through merges and updates.

1. Each input of a merge gives layers (:func:`read_layers`): what its own evidence names as sources, and for the rest
   the input itself, as flats, darks, another mask, or a plain map. What no search of a mask found, and its HISTORY
   names one manual list, comes from that list.
2. A manual list is a layer of its own, with the line that named the pixel (:func:`list_layer`).
3. Of a layer stays what the merged mask still has (:func:`keep_layers`). Layers are numbered, stored in the evidence,
   and read back pixel by pixel (:func:`find_origins`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.errors import DataError
from badpix.io.evidence import Evidence, Source
from badpix.mask.beside import open_evidence, search_names
from badpix.mask.file import Mask
from badpix.mask.history import find_kind, flags_of_search, manual_lists
from badpix.mask.manual import ManualRow, add_manual, find_single

DQ = NDArray[np.uint32]
SIDE = np.uint32(sum(dq.VALUE[name] for name in ("REFERENCE_PIXEL", "BAD_REF_PIXEL", "NON_SCIENCE")))
UNUSABLE = np.uint32(dq.VALUE["DO_NOT_USE"])
MOST = 200  # sources of a mask that are told apart


@dataclass
class Layer:
    """Flags of one source: ``flags`` (ny, nx) in standard bits, ``lines`` (ny, nx) of a manual list."""

    source: Source
    flags: DQ
    lines: NDArray[np.int32] | None = None


# --- layers of the inputs --------------------------------------------------------------------------------


def read_layers(mask: Mask, plain: bool = False) -> list[Layer]:
    """The layers of a mask that is merged, in its own frame: named by its evidence, and the rest.

    Parameters
    ----------
    mask : Mask
        As it was read.
    plain : bool
        Whether it is a map of another tool.
    """
    name = mask.path.name if mask.path else ""
    own = Source(0, "plain" if plain else find_kind(mask), name, str(mask.header.get("USEAFTER", ""))[:10])
    stored, searched = ([], None) if plain else _read_evidence(mask, name if own.kind == "mask" else "")
    rest = mask.image & ~SIDE
    for layer in stored:
        rest &= ~(layer.flags & ~UNUSABLE)
    lists = [] if plain else manual_lists(mask)
    layers = list(stored)
    if searched is not None and own.kind != "mask" and len(lists) == 1:
        by_hand = _with_reason(rest & ~searched & ~UNUSABLE, mask.image)
        layers.append(Layer(Source(0, "manual", lists[0]), by_hand))
        rest &= searched | UNUSABLE
    alone = _alone(mask.image)
    for layer in stored:
        alone &= ~layer.flags
    layers.append(Layer(own, _with_reason(rest & ~UNUSABLE, mask.image) | alone))
    return [layer for layer in layers if layer.flags.any()]


def _read_evidence(mask: Mask, via: str) -> tuple[list[Layer], DQ | None]:
    """Layers that the evidence of a mask stores, and the flags that its searches found (None without evidence)."""
    try:
        with open_evidence(mask) as (found, note):
            if found is None or note:
                return [], None
            stored = [_stored_layer(found, source, via) for source in found.sources]
            return stored, _searched(mask, found)
    except DataError:  # it can't be read, or is of another shape: the mask's own file stands for it
        return [], None


def _stored_layer(found: Evidence, source: Source, via: str) -> Layer:
    lines = found.images.get(f"line_{source.number}")
    flags = np.asarray(found.images[f"from_{source.number}"][:, :]).astype(np.uint32)
    return Layer(
        source._replace(number=0, via=source.via or via), flags, None if lines is None else np.asarray(lines[:, :])
    )


def _searched(mask: Mask, found: Evidence) -> DQ:
    out = np.zeros(mask.image.shape, np.uint32)
    for name in search_names(found):
        image = found.images.get(f"is_{name.lower()}")
        value = np.uint32(sum(dq.VALUE[flag] for flag in flags_of_search(mask, name)))
        if image is not None:
            out[np.asarray(image[:, :]) != 0] |= value
    return out


def _with_reason(flags: DQ, image: DQ) -> DQ:
    """Flags with the DO_NOT_USE of their pixels."""
    return flags | np.where(flags != 0, image & UNUSABLE, np.uint32(0))


def _alone(image: DQ) -> DQ:
    """DO_NOT_USE where nothing else stands."""
    return np.where((image & ~SIDE) == UNUSABLE, UNUSABLE, np.uint32(0))


def list_layer(path: str | Path, rows: Sequence[ManualRow], shape: tuple[int, int], do_not_use: set[str]) -> Layer:
    """The layer of a manual list: its flags, and the last line that named each pixel."""
    flags = add_manual(np.zeros(shape, np.uint32), rows, do_not_use)
    lines = np.zeros(shape, np.int32)
    y, x, single = find_single(rows)
    numbers = np.fromiter((row.line for row in rows), np.int32, len(rows))
    lines[y[single], x[single]] = numbers[single]  # of several lines the last counts, as they ascend
    for k in np.flatnonzero(~single).tolist():
        place = lines[rows[k].y, rows[k].x]
        np.maximum(place, numbers[k], out=place)
    return Layer(Source(0, "manual", Path(path).name), flags, lines)


def place_layer(layer: Layer, window: detectors.Window, frame: detectors.Window) -> Layer:
    """A layer of a window in a larger frame of the same detector."""
    if window == frame:
        return layer
    rows = slice(window.ystart - frame.ystart, window.ystart - frame.ystart + window.ysize)
    columns = slice(window.xstart - frame.xstart, window.xstart - frame.xstart + window.xsize)
    flags = np.zeros((frame.ysize, frame.xsize), np.uint32)
    flags[rows, columns] = layer.flags
    lines = None
    if layer.lines is not None:
        lines = np.zeros(flags.shape, np.int32)
        lines[rows, columns] = layer.lines
    return replace(layer, flags=flags, lines=lines)


# --- layers of the product -------------------------------------------------------------------------------


def keep_layers(layers: Sequence[Layer], image: DQ, reference: NDArray[np.bool_]) -> Evidence:
    """Sources and images for the evidence of a mask: of each layer what the mask still has.

    Parameters
    ----------
    layers : sequence of Layer
        Of all inputs, in the frame of the mask.
    image : uint32 ndarray
        The mask's DQ.
    reference : bool ndarray
        Its reference pixels, which have no origin.
    """
    joined: dict[Source, Layer] = {}
    for layer in layers:
        flags = np.where(reference, np.uint32(0), layer.flags & image)
        if not (flags & ~UNUSABLE).any() and not (_alone(image) & flags).any():
            continue
        if layer.source in joined:
            joined[layer.source].flags |= flags
        else:
            joined[layer.source] = replace(layer, flags=flags)
    out = Evidence()
    for number, layer in enumerate(list(joined.values())[:MOST], 1):
        out.sources.append(layer.source._replace(number=number))
        out.images[f"from_{number}"] = layer.flags
        if layer.lines is not None:
            out.images[f"line_{number}"] = np.where(layer.flags != 0, layer.lines, 0).astype(np.int32)
    return out


def find_origins(found: Evidence, row: int, column: int, flag: str) -> list[tuple[Source, int]]:
    """The sources of a flag at a pixel of the image, each with the line of its list (0: not known)."""
    value = dq.VALUE[flag]
    out = []
    for source in found.sources:
        if int(found.images[f"from_{source.number}"][row, column]) & value:
            lines = found.images.get(f"line_{source.number}")
            out.append((source, 0 if lines is None else int(lines[row, column])))
    return out
