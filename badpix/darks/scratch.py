"""Memory that is used again and again: fresh memory costs as much as what is computed in it."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT = threading.local()


def take(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """An array of no account in the memory that this thread last took under this name; larger, if need be."""
    size, found = math.prod(shape), _KEPT.__dict__.get(name)
    if found is None or found.size < size or found.dtype != dtype:
        found = _KEPT.__dict__[name] = np.empty(size, dtype)
    out: NDArray[Any] = found[:size].reshape(shape)
    return out


def give_back() -> None:
    """Free what :func:`take` kept in this thread."""
    _KEPT.__dict__.clear()
