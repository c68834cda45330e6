"""What a product was made from: sha256 of the inputs, version and state of the code.

Hashes are remembered in the user's cache folder (``$BADPIX_CACHE``, else ``$XDG_CACHE_HOME/badpix``), by path,
size, inode and the times of its content and of its inode, because hashing hundreds of gigabytes again each night
helps nobody. ``BADPIX_CACHE=off`` turns the memory off; ``fresh`` asks for all hashes anew. Files are hashed beside
the work on them (:func:`hashing`): hashlib leaves the interpreter to others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from badpix import __version__
from badpix.errors import BadpixError, DataError
from badpix.io.output import write_text
from badpix.outside import open_regular, read_text, require_regular

CHUNK = 1 << 20  # bytes
REMEMBERED = 200_000  # files in the cache at the most; the oldest are forgotten


class Input(NamedTuple):
    """One input of a product."""

    path: Path
    sha256: str
    size: int


def hash_file(path: str | Path) -> str:
    """sha256 of a file's content, in hex.

    Raises
    ------
    DataError
        If it can't be read.
    """
    return _hash(path, threading.Event())


def _hash(path: str | Path, stop: threading.Event) -> str:
    """The hash, or nothing of use once it was told to stop."""
    digest = hashlib.sha256()
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as stream:
            while (chunk := stream.read(CHUNK)) and not stop.is_set():
                digest.update(chunk)
        return digest.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None


def hash_inputs(paths: Sequence[str | Path], threads: int = 2, fresh: bool = False) -> list[Input]:
    """Hashes of some files, from the cache where they are unchanged, in the order given.

    Parameters
    ----------
    paths : sequence of path
        The files.
    threads : int
        How many are hashed at once.
    fresh : bool
        Whether all are hashed, whatever the cache says.

    Raises
    ------
    DataError
        If one can't be read.
    """
    with hashing(paths, threads, fresh) as results:
        return results([Path(p) for p in paths])


@contextmanager
def hashing(
    paths: Sequence[str | Path], threads: int = 2, fresh: bool = False
) -> Iterator[Callable[[Sequence[Path]], list[Input]]]:
    """Hash some files while the block runs; the function that it gives waits for the hashes of those it is asked for.

    Parameters are those of :func:`hash_inputs`. Whoever leaves the block does not wait for the rest.
    """
    files = [Path(p) for p in paths]
    memory = {} if fresh else _load()
    keys = {p: _key(p) for p in files}
    stop = threading.Event()
    pool = ThreadPoolExecutor(threads)
    todo = {k: p for p, k in keys.items() if k not in memory}
    found = {k: pool.submit(_hash, p, stop) for k, p in todo.items()}

    def results(wanted: Sequence[Path]) -> list[Input]:
        new = {keys[p]: found[keys[p]].result() for p in wanted if keys[p] in found}
        if new:
            _save(new)
        known = {**memory, **new}
        return [Input(p, known[keys[p]], int(keys[p].rsplit("|", 4)[1])) for p in wanted]

    try:
        yield results
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _key(path: Path) -> str:
    """What a file's hash is remembered under; the last part of it are its identity and its times."""
    require_regular(path)
    found = path.stat()
    facts = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return "|".join([str(path.resolve()).replace("|", "||"), *map(str, facts)])


def _cache_file() -> Path | None:
    place = os.environ.get("BADPIX_CACHE", "")
    if place == "off":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return (Path(place) if place else home / "badpix") / "sha256.json"


def _load() -> dict[str, str]:
    place = _cache_file()
    if place is None:
        return {}
    try:
        found = json.loads(read_text(place, "cache of hashes"))
    except (DataError, ValueError, RecursionError):
        return {}
    rows = found.items() if isinstance(found, dict) else ()
    return {k: v for k, v in rows if isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v)}


def _save(fresh: dict[str, str]) -> None:
    """Add hashes to the cache; a cache that can't be written costs time only."""
    place = _cache_file()
    if place is None:
        return
    rows = {**_load(), **fresh}
    kept = dict(list(rows.items())[-REMEMBERED:])
    with suppress(OSError, BadpixError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(kept), overwrite=True)


@cache
def code_version() -> str:
    """Version of the package, and the state of its git checkout if it runs from one (``0.2.0+g1a2b3c4-dirty``)."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return __version__
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return f"{__version__}+g{done.stdout.strip()}"
    return __version__


LIBRARIES = ("numpy", "scipy", "astropy", "photutils")  # that results may depend on


@cache
def library_versions() -> dict[str, str]:
    """What a product's bytes may depend on besides inputs and parameters: our code and the numerical libraries.

    A checkout with uncommitted changes is known by the content of its modules.
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"badpix": code_version()}
    if found["badpix"].endswith("-dirty"):
        digest = hashlib.sha256()
        for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
            digest.update(path.read_bytes())
        found["badpix"] += f".{digest.hexdigest()[:12]}"
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
