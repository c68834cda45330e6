"""Where tasks run (here, in local processes, on a Dask cluster), and how much memory that took.

Library functions take an executor or None; this is the only place that makes one. Nothing heavy is imported before
it is needed, so the command line can import this module for every command.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from badpix.errors import DataError, UsageError
from badpix.outside import quote

R = TypeVar("R")

# Memory of a run on a full frame of 2048 x 2048, as measured, bytes.
ALONE = 150 << 20  # of a run without workers while bands are worked on: interpreter, libraries, maps
PARENT = 290 << 20  # at most, of the process that has workers
WORKER = 60 << 20  # of a worker without its band
USUAL_BAND = 106 << 20  # of a run without workers, where nobody says how much
WORKER_BAND = 144 << 20  # the same of one worker, which holds no maps
LEAST_BAND = 16 << 20
DIRECTOR = 80 << 20  # of the process of an outlier search that has workers


@dataclass(frozen=True)
class Needs:
    """Least memory of a search, bytes: of any frame, and for each of its pixels without and with evidence. No band
    can be lowered below it: it is what the maps take when all bands are done."""

    fixed: int
    pixel: int
    pixel_with_evidence: int


# flats and darks: measured on 256 x 256 and 2048 x 2048 pixels, one process, lowest bands; science: an estimate above
# the peak of 12 and 36 full frames with 256M, 227M
NEEDS = {
    "flats": Needs(70 << 20, 45, 45),
    "darks": Needs(93 << 20, 27, 27),
    "science": Needs(100 << 20, 30, 37),
}


@dataclass(frozen=True)
class Share:
    """How a run keeps within its memory: the number of workers, and bytes for the band of each."""

    workers: int
    band: int


def share_memory(total: int | None, workers: int) -> Share:
    """Share out the memory of a whole run, its workers included.

    Parameters
    ----------
    total : int or None
        Bytes that all processes of the run may take together; None: as much as each needs for a usual band.
    workers : int
        How many are asked for; fewer are used where they would not fit.

    Returns
    -------
    Share
        One worker means that the run works alone. The result of a run does not depend on it.
    """
    if total is None:
        return Share(workers, WORKER_BAND if workers > 1 else USUAL_BAND)
    for number in range(workers, 1, -1):
        band = (total - PARENT) // number - WORKER
        if band >= LEAST_BAND:
            return Share(number, band)
    return Share(1, max(LEAST_BAND // 2, total - ALONE))


def check_memory(total: int | None, search: str, pixels: int, *, evidence: bool, source: str = "") -> None:
    """Refuse a limit that the maps of the frame alone would break, before any work.

    Parameters
    ----------
    total : int or None
        Bytes that all processes of the run may take together; None: no limit.
    search : str
        Of :data:`NEEDS`.
    pixels : int
        Of the frame; 0 where no input says it.
    evidence : bool
        Whether the evidence is kept.
    source : str
        What comes before the message.

    Raises
    ------
    UsageError
        With what was given and what is needed.
    """
    needs = NEEDS[search]
    least = needs.fixed + pixels * (needs.pixel_with_evidence if evidence else needs.pixel)
    if total is not None and pixels and total < least:
        raise UsageError(
            f"{source}--max-memory: found {_size(total)}, expected at least {-(-least >> 20)}M: {search} "
            f"of {pixels:,} pixels take that with the lowest bands"
        )


def _size(number: int) -> str:
    """Bytes as a user writes them."""
    return f"{number >> 20}M" if number >= 1 << 20 else f"{number} bytes"


@contextmanager
def make_executor(workers: int, dask: str | None, module: str = "") -> Iterator[Executor | None]:
    """Where tasks run: nowhere else (None), in local processes, or on a Dask cluster.

    Parameters
    ----------
    workers : int
        Number of local processes; 1: none.
    dask : str or None
        Address of a scheduler.
    module : str
        That of the tasks: local processes start at once, read it while this one goes on, and keep their memory
        (:func:`keep_memory`). Without it they start with the first task.

    Raises
    ------
    UsageError
        If dask.distributed is not installed.
    DataError
        If no scheduler answers at the address.
    """
    if dask:
        try:
            from distributed import Client
        except ImportError:
            raise UsageError("--dask needs dask.distributed: pip install 'badpix[cluster]'") from None
        try:
            client = Client(dask)  # waits as long as dask's own setting says: distributed.comm.timeouts.connect
        except (OSError, TimeoutError, ValueError) as error:
            raise DataError(f"--dask {dask}: no scheduler answers: {error}") from None
        from badpix.io.provenance import library_versions

        with client:
            check_versions(client.run(library_versions, on_error="return"), dask)
            with client.get_executor() as executor, Cluster(executor, dask) as checked:
                yield checked
    elif workers > 1:
        from concurrent.futures import ProcessPoolExecutor

        from badpix.io.spawn import Context

        with ProcessPoolExecutor(workers, Context(), initializer=start_worker, initargs=(module,)) as executor:
            for _ in range(workers if module else 0):
                executor.submit(int)  # a process is started where none is idle
            yield executor
    else:
        yield None


# Options of the C library's mallopt: number of arenas, bytes above which memory is mapped, and given back.
_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1


def keep_memory(most: int = 64 << 20) -> None:
    """Let the C library keep what a band has freed for the next one, up to ``most`` bytes, in this process.

    Otherwise each array of a band is mapped, filled with zeros page by page and given back: a tenth of the CPU time
    of a search in bands. Arrays of a full frame of float32 (16 MB and a few bytes) are below the limit, the greatest
    that glibc takes. The peak does not grow. Where there is no ``mallopt`` nothing happens.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, most)):
        mallopt(option, value)


def give_back() -> None:
    """Give back what :func:`keep_memory` kept, when bands are done; whole frames that follow are mapped again."""
    import ctypes

    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 1 << 20)
        library.malloc_trim(0)


def check_versions(found: Mapping[str, object], dask: str) -> None:
    """Make sure that all workers of a cluster run what we run: other versions give other bytes.

    Parameters
    ----------
    found : mapping
        By address of the worker: what :func:`badpix.io.provenance.library_versions` says there, or its exception.
    dask : str
        The scheduler, for messages.

    Raises
    ------
    DataError
        Naming the worker, the library and both versions.
    """
    from badpix.io.provenance import library_versions

    if not found:
        raise DataError(f"--dask {dask}: the scheduler has no workers")
    mine = library_versions()
    for worker, theirs in sorted(found.items()):
        if not isinstance(theirs, Mapping):
            said = str(theirs) if isinstance(theirs, Exception) else theirs
            raise DataError(f"--dask {dask}: worker {worker} does not say what it runs: {quote(said)}")
        for name, version in mine.items():
            if theirs.get(name) != version:
                raise DataError(
                    f"--dask {dask}: worker {worker} runs {name} {theirs.get(name)}, expected {version} as here"
                )


@dataclass(frozen=True)
class SameVersions(Generic[R]):
    """A task that looks first whether the worker runs what the caller runs: workers may join at any time."""

    task: Callable[..., R]
    expected: Mapping[str, str]
    dask: str

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Check and call.

        Raises
        ------
        DataError
            Where versions differ.
        """
        from badpix.io.provenance import library_versions

        mine = library_versions()
        for name, version in self.expected.items():
            if mine.get(name) != version:
                raise DataError(
                    f"--dask {self.dask}: a worker that joined later runs {name} {mine.get(name)}, expected "
                    f"{version} as where the run was started"
                )
        return self.task(*args, **kwargs)


class Cluster(Executor):
    """The executor of a cluster whose workers are checked at each task."""

    def __init__(self, executor: Executor, dask: str) -> None:
        from badpix.io.provenance import library_versions

        self._executor = executor
        self._expected = library_versions()
        self._dask = dask

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """As the cluster's own."""
        return self._executor.submit(SameVersions(fn, self._expected, self._dask), *args, **kwargs)

    def map(self, fn: Callable[..., R], *iterables: Iterable[Any], **kwargs: Any) -> Iterator[R]:
        """As the cluster's own."""
        return self._executor.map(SameVersions(fn, self._expected, self._dask), *iterables, **kwargs)


def start_worker(module: str) -> None:
    """What a worker does first: see :func:`make_executor`."""
    end_with_parent()
    if module:
        from importlib import import_module

        keep_memory()
        import_module(module)


def end_with_parent() -> None:
    """Make this worker end when the process that started it is gone, even killed: no orphans wait for ever."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_leave_after, args=(parent.join,), daemon=True).start()


def _leave_after(wait: object) -> None:
    wait()  # type: ignore[operator]
    os._exit(1)


def peak_memory(pid: int | str = "self") -> int:
    """Peak resident memory of a process, bytes (ru_maxrss would include the parent's before exec)."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    if pid != "self":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_of_ended() -> int:
    """Largest peak resident memory among the child processes of this one that have ended, bytes."""
    import resource

    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024)


def peak_of_workers() -> int:
    """Largest peak resident memory among the living worker processes of this one, bytes."""
    from multiprocessing import active_children

    return max((peak_memory(p.pid) for p in active_children() if p.pid), default=0)
