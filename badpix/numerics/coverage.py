"""How many exposures can use a pixel of a stack, before and after flags: arrays in, counts out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_depth(name: str, before: NDArray[Any], after: NDArray[Any]) -> dict[str, Any]:
    """Pixels of a stack by the number of exposures that can use them, before and after the flags.

    Parameters
    ----------
    name : str
        Of the stack.
    before, after : ndarray of int, shape (ny, nx)
        Exposures that can use a pixel.

    Returns
    -------
    dict
        ``before`` and ``after``: pixels used by 0, 1, 2, ... exposures; ``covered``: pixels that any could use;
        ``holes``: those that none can use any more.
    """
    deepest = int(before.max(initial=0))
    counts = {
        key: np.bincount(values.reshape(-1), minlength=deepest + 1).tolist()
        for key, values in (("before", before), ("after", after))
    }
    holes = int(np.count_nonzero((before > 0) & (after == 0)))
    return {"stack": name, **counts, "covered": int(np.count_nonzero(before)), "holes": holes}
