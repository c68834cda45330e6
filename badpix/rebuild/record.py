"""What happened: a JSON beside each product, one for each failed run, and the table of all of them.

``<mask root>_record.json`` lies beside the mask that it describes; failed runs leave theirs with the log. A record
is read back by the next run (keys, hashes of inputs) and by people; unknown keys are ignored, a damaged record
counts as none.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from badpix.errors import DataError
from badpix.io.output import write_text
from badpix.outside import read_text

SUFFIX = "_record.json"
STATUS = {"accepted": "replaced"}  # what the table calls accepted products that are not current any more
NEEDED = {"status": str, "detector": str, "finished": str}  # of every record
OF_PRODUCTS = {  # of those that the next run relies on
    "key": str,
    "keys": dict,
    "inputs": list,
    "parameters": dict,
    "versions": dict,
    "outputs": list,
}
OF_INPUT = {"stage": str, "role": str, "path": str, "size": int, "mtime_ns": int, "inode": int, "sha256": str}
OF_OUTPUT = {"name": str, "size": int, "sha256": str}


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def surroundings() -> dict[str, Any]:
    """Where a run took place."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "command": " ".join(sys.argv)[:500],
    }


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record whole or not at all."""
    write_text(path, as_json(content), overwrite=True)


def as_json(content: Mapping[str, Any]) -> str:
    """The text of a record."""
    return json.dumps(content, indent=1, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """JSON form of what json does not know: numpy scalars and arrays, paths."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def read_record(path: Path) -> dict[str, Any] | None:
    """A record, None where there is none or it is damaged."""
    found = read_json(path)
    return {**found, "path": str(path)} if is_sound(found) else None


def is_sound(found: Mapping[str, Any]) -> bool:
    """Whether a record holds what the next run and the table of all runs rely on, each of its kind."""
    kinds = NEEDED if found.get("status") == "failed" else {**NEEDED, **OF_PRODUCTS}
    lists = {"inputs": OF_INPUT, "outputs": OF_OUTPUT, "rejected": {}}
    texts = {"parameters": Mapping, "flags": int}
    return (
        all(isinstance(found.get(key), kind) for key, kind in kinds.items())
        and all(_all_hold(found.get(key) or [], inner) for key, inner in lists.items())
        and all(_values_are(found.get(key) or {}, kind) for key, kind in texts.items())
        and all(isinstance(found.get(key) or [], list) for key in ("reasons", "why", "notes"))
        and (found["status"] == "failed" or bool(found["outputs"]))
        and all(os.sep not in row["name"] for row in found.get("outputs") or [])
    )


def _all_hold(rows: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict) and all(isinstance(row.get(key), kind) for key, kind in kinds.items()) for row in rows
    )


def _values_are(rows: Any, kind: type) -> bool:
    return isinstance(rows, dict) and all(isinstance(value, kind) for value in rows.values())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON mapping, empty where it can't be read."""
    try:
        found = json.loads(read_text(path, "record"))
    except (DataError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def find_record(folder: Path) -> dict[str, Any] | None:
    """The record of the product in ``folder``."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        found = read_record(path)
        if found is not None:
            return found
    return None


def list_records(folder: str | Path) -> list[dict[str, Any]]:
    """All records under a folder, oldest first; each file once, however many links lead to it."""
    files = {p.resolve() for p in Path(folder).rglob(f"*{SUFFIX}") if not p.is_symlink()}
    # in the order of writing, where one second saw several
    written = sorted(files, key=lambda p: (p.stat().st_mtime_ns, p))
    found = [record for record in map(read_record, written) if record is not None]
    return sorted(found, key=lambda r: (r["finished"], r["detector"]))


def history_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of ``badpix history``: one row a product or failed run, oldest first."""
    return [_row(r, _is_current(r)) for r in records]


def _row(r: Mapping[str, Any], current: bool) -> dict[str, Any]:
    flags = r.get("flags") or {}
    reason = "; ".join(r.get("reasons") or r.get("why") or [])
    return {
        "finished": r["finished"],
        "detector": r["detector"],
        "status": "current" if current else STATUS.get(r["status"], r["status"]),
        "key": str(r.get("key") or "")[:10],
        "inputs": _count_used(r),
        "rejected": len(r.get("rejected") or []),
        "flagged": flags.get("any"),
        "unusable": flags.get("DO_NOT_USE", 0) if flags else None,
        "seconds": r.get("seconds"),
        "memory_mb": r.get("peak_memory_mb"),
        "version": (r.get("versions") or {}).get("badpix", ""),
        "depth": r.get("depth") if isinstance(r.get("depth"), dict) else None,
        "reason": reason,
        "record": r["path"],
    }


def _count_used(r: Mapping[str, Any]) -> int | None:
    """Exposures that the searches used: those identified at the start, without those left out later."""
    if "inputs" not in r:
        return None
    rates = {k["path"] for k in r["inputs"] if k.get("role") == "rate"}
    return len(rates - {x.get("path") for x in r.get("rejected") or []})


def _is_current(r: Mapping[str, Any]) -> bool:
    """Whether the link ``current`` of the detector leads to this product."""
    folder = Path(r["path"]).parent
    link = folder.parent / "current"
    return link.is_symlink() and link.resolve() == folder.resolve()
