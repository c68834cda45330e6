"""What a product was made from: sha256 of the inputs, version and state of the code.

Hashes are remembered in the user's cache folder (``$BADPIX_CACHE``, else ``$XDG_CACHE_HOME/badpix``), by path,
size, modification time and inode, because hashing hundreds of gigabytes again each night helps nobody.
``BADPIX_CACHE=off`` turns the memory off.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from badpix import __version__
from badpix.errors import DataError
from badpix.io.output import write_text

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
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None


def hash_inputs(paths: Sequence[str | Path], threads: int = 2) -> list[Input]:
    """Hashes of some files, from the cache where they are unchanged, in the order given."""
    memory = _load()
    keys = [_key(Path(p)) for p in paths]
    todo = [p for p, k in zip(paths, keys, strict=True) if k not in memory]
    with ThreadPoolExecutor(threads) as pool:
        found = dict(zip(todo, pool.map(hash_file, todo), strict=True))
    fresh = {k: found[p] for p, k in zip(paths, keys, strict=True) if k not in memory}
    if fresh:
        _save(fresh)
    hashes = [memory.get(k) or fresh[k] for k in keys]
    return [Input(Path(p), h, os.stat(p).st_size) for p, h in zip(paths, hashes, strict=True)]


def _key(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    return f"{path.resolve()}|{found.st_size}|{found.st_mtime_ns}|{found.st_ino}"


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
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _save(fresh: dict[str, str]) -> None:
    """Add hashes to the cache; a cache that can't be written costs time only."""
    place = _cache_file()
    if place is None:
        return
    rows = {**_load(), **fresh}
    kept = dict(list(rows.items())[-REMEMBERED:])
    with suppress(OSError, DataError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps(kept), overwrite=True)


@cache
def code_version() -> str:
    """Version of the package, and the state of its git checkout if it runs from one (``0.1.0+g1a2b3c4-dirty``)."""
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
