"""Private temporary folders, and what killed runs left of theirs.

A run that ends, however it ends, takes its temporary files along, unless it is killed (SIGKILL, power). Then

1. its folders in the temporary directory stay. Their names begin with :data:`PREFIX`, and their run holds a lock of
   the kernel on each, which ends with the process: the next run that makes a folder there removes those that nobody
   holds.
2. a half-written output stays beside its target, under a hidden name. Writing takes minutes at most, so one that
   nobody has touched for a day is removed by the next run that writes into that directory.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from badpix.outside import printable

log = logging.getLogger("badpix")

PREFIX = "badpix-run-"
YOUNG = 60.0  # seconds in which a new folder may be without its lock
OLD = 86400.0  # seconds after which an output that is still temporary is nobody's
HALF_WRITTEN = re.compile(r"\.badpix-[0-9a-f]{12}-.+")


@contextmanager
def scratch_folder(parent: str | Path | None = None, hidden: bool = False) -> Iterator[Path]:
    """A private temporary folder that is gone when the block ends; those of killed runs beside it go, too.

    Parameters
    ----------
    parent : path, optional
        Where to make it; the temporary directory of the system (TMPDIR), if not given.
    hidden : bool
        Whether its name begins with a dot.
    """
    place = Path(parent or tempfile.gettempdir())
    prefix = "." * hidden + PREFIX
    sweep_folders(place, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks: its folders are never swept
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def sweep_folders(place: Path, prefix: str = PREFIX) -> None:
    """Remove our folders in a directory whose run was killed: those whose lock is free."""
    with suppress(OSError):
        for folder in place.glob(f"{prefix}*"):
            facts = folder.lstat()
            mine = folder.is_dir() and not folder.is_symlink() and facts.st_uid == os.getuid()
            if mine and time.time() - facts.st_ctime > YOUNG and _is_free(folder):
                shutil.rmtree(folder, ignore_errors=True)
                log.info(f"removed {printable(folder)}, which a killed run had left")


def _is_free(folder: Path) -> bool:
    """Whether nobody holds the lock of a folder; False where that can't be told."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def sweep_half_written(place: Path) -> None:
    """Remove outputs of ours in a directory that were left half-written, a day or more ago."""
    with suppress(OSError):
        for name in os.listdir(place):
            if not HALF_WRITTEN.fullmatch(name):
                continue
            facts = (place / name).lstat()
            if time.time() - max(facts.st_mtime, facts.st_ctime) > OLD and facts.st_uid == os.getuid():
                (place / name).unlink()
                log.info(f"removed {printable(place / name)}, which a killed run had left")
