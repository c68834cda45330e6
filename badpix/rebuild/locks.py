"""One writer for each output: a lock that says who holds it, and that no killed run leaves behind.

1. The lock is the kernel's (``flock`` on a small file beside the outputs): it ends with its process, however that
   ends, so a lock is never left locked. NFS (Linux, since 2.6.12) and most cluster file systems keep it across hosts.
2. The file holds host, process, start time of the process and boot of the host in JSON. The holder empties it when
   it is done; text in a file that nobody has locked is a *stale* lock: its process was killed. It is taken over, and
   said.
3. Some file systems keep such locks on one host only, or not at all. Therefore the holder touches the file every 30
   seconds, and text younger than 5 minutes from another host counts as held even where the kernel sees no lock. Where
   there are no locks at all (ENOLCK), the text alone decides: written, and read again after 2 seconds. Two runs that
   start on two hosts of such a file system within the time its caches need could still meet: no program can
   exclude that there; their outputs would be whole nevertheless, because results are renamed into place.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from badpix.errors import DataError
from badpix.outside import find_fault, printable, read_text

log = logging.getLogger(__name__)

TOUCH = 30.0  # seconds between signs of life
DEAD = 300.0  # seconds without one after which a holder on another host is gone
SETTLE = 2.0  # seconds until text alone decides, where there are no locks
POLL = 0.5  # seconds between attempts
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class LockedError(DataError):
    """Somebody else holds the lock, and did not give it up while we waited."""


@contextmanager
def hold(path: str | Path, wait: float) -> Iterator[None]:
    """Hold the lock ``path`` while the block runs.

    Parameters
    ----------
    path : path
        The lock file; it stays (empty) when the lock is given up.
    wait : float
        Seconds to wait for another holder.

    Raises
    ------
    LockedError
        If another process still holds it after ``wait`` seconds; names host, process and since when.
    DataError
        If the file can't be made.
    """
    path = Path(path)
    fault = find_fault(path)
    if fault not in (None, "no such file"):
        raise DataError(f"{path}: lock can't be made: {fault}")
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    except OSError as error:
        raise DataError(f"{path}: lock can't be made: {error.strerror}") from None
    stop = threading.Event()
    try:
        _acquire(handle, path, wait)
        threading.Thread(target=_show_life, args=(handle, stop), daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            with suppress(OSError):
                os.ftruncate(handle, 0)
    finally:
        stop.set()
        os.close(handle)


def _acquire(handle: int, path: Path, wait: float) -> None:
    end = time.monotonic() + wait
    told = False
    while True:
        state = _try_lock(handle)
        holder = read_holder(path)
        if state != "taken" and not _lives(holder, path):
            if holder:
                log.info(f"{path}: stale lock of {describe(holder)}: that process is gone; taken over")
            if _claim(handle, path, state):
                return
        if state == "locked":
            fcntl.flock(handle, fcntl.LOCK_UN)
        if time.monotonic() >= end:
            raise LockedError(f"{path}: locked by {describe(holder)}; waited {wait:.0f} s")
        if not told:
            log.info(f"{path}: locked by {describe(holder)}; waiting up to {wait:.0f} s")
            told = True
        time.sleep(min(POLL, max(end - time.monotonic(), 0.01)))


def _try_lock(handle: int) -> str:
    """``locked`` (by us), ``taken`` (by another), or ``none``: the file system keeps no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "locked"
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return "taken"
        if error.errno in NO_LOCKS:
            return "none"
        raise DataError(f"lock: the file system fails: {error.strerror}") from None


def _claim(handle: int, path: Path, state: str) -> bool:
    """Write who we are; without a kernel lock, only the last one to write holds it."""
    mine = myself()
    text = json.dumps(mine).encode()
    with suppress(OSError):  # on a full disk the lock holds all the same; the work will say that the disk is full
        os.ftruncate(handle, 0)
        os.pwrite(handle, text, 0)
        os.fsync(handle)
    if state == "locked":
        return True
    time.sleep(SETTLE)
    return read_holder(path) == mine


def _show_life(handle: int, stop: threading.Event) -> None:
    while not stop.wait(TOUCH):
        with suppress(OSError):
            os.utime(handle)


# --- who ---------------------------------------------------------------------------------------------------


def myself() -> dict[str, Any]:
    """Host, boot, process, its start, and what it runs."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": pid,
        "started": _process_start(pid),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(Path(a).name if k == 0 else a for k, a in enumerate(sys.argv))[:200],
    }


def read_holder(path: str | Path) -> dict[str, Any]:
    """What the lock file says about its holder; empty where it says nothing."""
    try:
        found = json.loads(read_text(path, "lock", limit=1 << 16))
    except (DataError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def describe(holder: dict[str, Any]) -> str:
    """A holder in words."""
    if not holder:
        return "another process"
    pid, host, since = (printable(str(holder.get(key))[:80]) for key in ("pid", "host", "since"))
    return f"process {pid} on {host} since {since}"


def _lives(holder: dict[str, Any], path: Path) -> bool:
    """Whether the process in the text may still be at work although the kernel gave us the lock (or keeps none)."""
    if not holder:
        return False
    if holder.get("host") == socket.gethostname() and holder.get("boot") == _boot():
        return holder.get("pid") != os.getpid() and holder.get("started") == _process_start(holder.get("pid"))
    with suppress(OSError):
        return time.time() - path.stat().st_mtime < DEAD
    return False


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _process_start(pid: Any) -> str | None:
    """When a process of this host started (clock ticks since boot), None if there is none: ids are used again."""
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text()
        return text.rpartition(")")[2].split()[19]
    except (OSError, ValueError, TypeError, IndexError):
        pass
    try:  # no /proc: alive or not is all that can be told
        os.kill(int(pid), 0)
    except (OSError, ValueError, TypeError):
        return None
    return "alive" if not Path("/proc/self/stat").exists() else None
