"""What stands beside the products of an exposure: its record, by which the next run knows what is ready.

The record (``<root>_prepare.json``) holds the key and the hashes of the products; where both agree, nothing is done.
Products are renamed into their places under a record that says so before and after: a run that is killed is taken up
again by the next one, which also removes what it left.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from badpix.errors import UsageError
from badpix.io.output import TEMPORARY, write_text
from badpix.io.provenance import hash_inputs
from badpix.prepare.tasks import Task
from badpix.prepare.worker import Outcome


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of an exposure; None where there is none (or none of ours)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("program") == "badpix prepare" else None


def is_ready(task: Task) -> bool:
    """Whether all products are there, under the same key, with the bytes that were written."""
    record = read_record(task.record_path)
    if record is None or record.get("key") != task.record["key"] or record.get("state") != "done":
        return False
    paths = [task.place / product["file"] for product in record["products"].values()]
    if not all(path.is_file() for path in paths):
        return False
    found = [i.sha256 for i in hash_inputs(paths)]
    return found == [product["sha256"] for product in record["products"].values()]


def check_targets(task: Task, overwrite: bool) -> None:
    """Make sure that nothing is replaced unasked: products of an unfinished run of the same key are our own.

    Raises
    ------
    UsageError
        If a product is there that was made otherwise.
    """
    record = read_record(task.record_path)
    if overwrite or (record and record.get("key") == task.record["key"]):
        return
    why = _difference(record, task.record) if record else "was not made by badpix prepare"
    for product in task.job.products:
        path = task.target(product)
        if product != "uncal" and path.exists():
            raise UsageError(f"{path}: exists and {why}; give --overwrite to replace it")


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two records, in words."""
    for part, meaning in (
        ("input", "from another raw file"),
        ("parameters", "with other parameters"),
        ("skip", "with other steps"),
        ("versions", "with other versions"),
        ("context", "with another CRDS context"),
    ):
        before, now = old.get(part), json.loads(json.dumps(new[part], default=str))
        if before != now:
            if isinstance(now, dict) and isinstance(before, dict):
                names = [k for k in now if before.get(k) != now[k]]
                detail = ", ".join(f"{k}: {before.get(k)} then, {now[k]} now" for k in names if k != "sha256")
                return f"was made {meaning}" + (f" ({detail})" if detail else "")
            return f"was made {meaning} ({before} then, {now} now)"
    return "was made with other reference files, or has changed since"


def publish(task: Task, outcome: Outcome, seconds: float) -> None:
    """Rename the products of an exposure into their places, between two states of its record."""
    hashes = hash_inputs(list(outcome.files.values()))
    products = {
        name: {"file": task.target(name).name, "sha256": i.sha256, "size": i.size}
        for name, i in zip(outcome.files, hashes, strict=True)
    }
    record = {
        **task.record,
        "state": "unfinished",
        "products": products,
        "reference_files": outcome.references,
        "context_used": outcome.context,
        "steps": outcome.steps,
        "seconds": round(seconds, 1),
        "peak_memory_mb": outcome.peak_memory_mb,
    }
    write_text(task.record_path, json.dumps(record, indent=1, default=str) + "\n", overwrite=True)
    for name, path in outcome.files.items():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        os.replace(path, task.target(name))
    if "uncal" in task.job.products:
        _link(task.job.uncal, task.place)
    record["state"] = "done"
    write_text(task.record_path, json.dumps(record, indent=1, default=str) + "\n", overwrite=True)


def _link(uncal: Path, place: Path) -> None:
    """A relative link to the raw file beside its products, where none is."""
    link = place / uncal.name
    if link.is_symlink() and not link.exists():
        link.unlink()
    if not link.exists():
        link.symlink_to(os.path.relpath(uncal, place.resolve()))


def sweep(place: Path) -> None:
    """Remove the private folders of runs on this machine that are no longer alive."""
    host = socket.gethostname()
    for folder in place.glob(f"{TEMPORARY}{host}-*-*"):
        pid = folder.name.removeprefix(f"{TEMPORARY}{host}-").split("-")[0]
        if folder.is_dir() and pid.isdigit() and int(pid) != os.getpid() and not _is_alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
