"""Columns of tables whose lines lie apart in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def take_columns(table: NDArray[Any], columns: NDArray[np.intp]) -> NDArray[Any]:
    """Some columns of ``table`` (lines, n), copied: (lines, len(columns)), in the table's byte order.

    What ``np.take(table, columns, axis=1)`` gives; numpy 2.4 first copies the whole table if its lines lie apart.
    """
    if table.flags.c_contiguous:
        return np.take(table, columns, axis=1)
    out = np.empty((len(table), len(columns)), table.dtype)
    if columns.size and (columns.min() < 0 or columns.max() >= table.shape[1]):
        raise IndexError(f"columns {columns.min()} to {columns.max()} of {table.shape[1]}")
    for line, room in zip(table, out, strict=True):
        np.take(line, columns, out=room, mode="clip")  # other modes fill a buffer first
    return out
