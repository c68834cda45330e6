"""Nanoseconds a sample of the bare numpy passes that the numbers of dark ramps take, on memory in the cache.

    python benchmarks/bench_passes.py

What `badpix darks` can't be faster than in numpy: docs/darks-measured.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

GROUPS, ROWS, COLUMNS = 20, 2, 2048
NUMBERS = 6  # mean, slope, late slope, three contrasts
CHUNK = 2048  # pixels of one matrix product


def measure(task: Callable[[], object], repeats: int = 40) -> float:
    """The least of nine times of one call, seconds of CPU."""
    task()
    times = []
    for _ in range(9):
        start = time.process_time()
        for _ in range(repeats):
            task()
        times.append((time.process_time() - start) / repeats)
    return min(times)


def main() -> None:
    """Time every pass and print how often it is needed."""
    rng, pixels = np.random.default_rng(1), ROWS * COLUMNS
    y = rng.normal(0, 20, (GROUPS, pixels)).astype(np.float32)
    stored, residual, out = y.astype(">f4"), y.copy(), np.empty(pixels, np.float32)
    offset = np.zeros((GROUPS, COLUMNS), np.float32)
    weights, design = (rng.normal(size=size).astype(np.float32) for size in ((NUMBERS, GROUPS), (GROUPS, 2)))
    numbers = np.empty((NUMBERS, pixels), np.float32)
    lines = y.reshape(GROUPS, ROWS, COLUMNS)
    runs = [slice(x, x + CHUNK) for x in range(0, pixels, CHUNK)]
    ordered = rng.normal(size=(pixels, 100)).astype(np.float32)
    passes: list[tuple[str, int, Callable[[], object]]] = [
        ("byte order", 1, lambda: np.copyto(y, stored)),
        ("drift off", 1, lambda: np.subtract(lines, offset[:, None], out=lines)),
        ("numbers", 1, lambda: [np.matmul(weights, y[:, x], out=numbers[:, x]) for x in runs]),
        ("line", 1, lambda: [np.matmul(design, numbers[:2, x], out=residual[:, x]) for x in runs]),
        ("differences", 2, lambda: np.subtract(y, residual, out=residual)),
        ("sums of products", 4, lambda: np.einsum("gp,gp->p", y, y, out=out)),
        ("extremes, sum", 3, lambda: np.minimum.reduce(y, axis=0, out=out)),
        ("sizes", 1, lambda: np.abs(y, out=residual)),
    ]
    total = 0.0
    for name, times, task in passes:
        each = 1e9 * measure(task) / y.size
        total += times * each
        print(f"{name}: {times} x {each:.2f} ns")
    print(f"together: {total:.2f} ns a sample")
    room = np.empty_like(ordered)

    def sort() -> None:
        room[:] = ordered
        room.sort(axis=1)

    print(f"sorting 100 integrations: {1e9 * measure(sort, 5) / ordered.size:.2f} ns a value")


if __name__ == "__main__":
    main()
