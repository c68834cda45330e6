"""Files open for reading at any place, for as long as they stay what they were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from badpix.errors import DataError


class Stamp(NamedTuple):
    """What changes with a file's content, or with the file: two stamps are equal where nothing was written."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp in a file's status."""
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@contextmanager
def opened(path: Path, stamp: Stamp) -> Iterator[int]:
    """A file open for reading, for some bands of it.

    Raises
    ------
    DataError
        If it vanished, changed since it had this stamp, or can't be read in the block.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            if stamp_of(os.fstat(handle)) != stamp:
                raise DataError(f"{path}: changed during the run")
            yield handle
        finally:
            os.close(handle)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None


def read_into(handle: int, target: memoryview, offset: int, path: Path) -> None:
    """Fill memory with the bytes of an open file from ``offset`` on.

    Raises
    ------
    DataError
        If the file ends before.
    """
    while len(target):
        got = os.preadv(handle, [target], offset)
        if got == 0:
            raise DataError(f"{path}: truncated during the run at byte {offset}")
        target, offset = target[got:], offset + got
