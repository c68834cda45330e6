"""The products of one detector on disk: kept side by side, one of them current.

    masks/nircam_nrcb1_mask_20260101.fits -> nrcb1/20261121T021500Z_3fa9c2e1d0/...   (and its other files)
    masks/nrcb1/current  -> 20261121T021500Z_3fa9c2e1d0
    masks/nrcb1/rejected -> 20261122T021500Z_77b0a91c5e       (only where the newest product was refused)
    masks/nrcb1/20261121T021500Z_3fa9c2e1d0/    mask, evidence, report, record
    masks/nrcb1/logs/                           one log for each run that had work to do; records of failed runs
    masks/nrcb1/.stages/                        masks of the single searches, for reuse
    masks/nrcb1/.work-*/                        of the run that is at work; removed by the next one if it was killed

A product is made in a private folder and renamed into place as a whole; links are replaced by renaming. At any
moment there is the old product or the new one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from badpix.errors import DataError
from badpix.io.output import TEMPORARY, check_directory
from badpix.io.provenance import hash_file
from badpix.rebuild import record

WORK, STAGES, LOGS, LOCK = ".work-", ".stages", "logs", ".lock"
CURRENT, REJECTED = "current", "rejected"
KEY_LENGTH = 10  # characters of the key in names


def products(folder: Path) -> list[dict[str, Any]]:
    """Records of all products, oldest first."""
    found = [record.find_record(p) for p in _dated(folder)]
    return [r for r in found if r is not None]


def list_damaged(folder: Path) -> list[str]:
    """Products whose record is damaged or missing; they count as absent."""
    return [
        f"{place.name}: its record is damaged or missing; it counts as absent"
        for place in _dated(folder)
        if record.find_record(place) is None
    ]


def _dated(folder: Path) -> list[Path]:
    """Folders of products, oldest first; of two made in one second the later one was written last."""
    places = [p for p in folder.glob("*Z_*") if p.is_dir() and not p.is_symlink()]
    return sorted(places, key=lambda p: (p.name.split("_")[0], p.stat().st_mtime_ns))


def place_of(product: Mapping[str, Any]) -> Path:
    """Folder of a product."""
    return Path(product["path"]).parent


def mask_of(product: Mapping[str, Any]) -> Path:
    """Mask of a product."""
    return place_of(product) / str(product["outputs"][0]["name"])


def current(folder: Path) -> dict[str, Any] | None:
    """Record of the current product, None where there is none or it is damaged."""
    link = folder / CURRENT
    found = record.find_record(link.resolve()) if link.is_symlink() and link.exists() else None
    return found if found is not None and is_whole(found) else None


def is_whole(product: Mapping[str, Any]) -> bool:
    """Whether all files of a product are there in the size that they were written in, and the mask is the same."""
    place = place_of(product)
    try:
        sizes = all((place / o["name"]).stat().st_size == o["size"] for o in product["outputs"])
        return sizes and hash_file(mask_of(product)) == product["outputs"][0]["sha256"]
    except (OSError, DataError, KeyError, IndexError):
        return False


def describe_outputs(place: Path, mask: str) -> list[dict[str, Any]]:
    """Name, size and sha256 of all files of a product, the mask first."""
    names = sorted((p.name for p in place.iterdir()), key=lambda name: (name != mask, name))
    return [{"name": n, "size": (place / n).stat().st_size, "sha256": hash_file(place / n)} for n in names]


@contextmanager
def working(folder: Path) -> Iterator[Path]:
    """A private folder for one run, gone at its end; what killed runs left behind is removed first.

    Call it with the detector's lock held.
    """
    beside = [p for p in folder.parent.glob(f"{TEMPORARY}*") if _leads_to(p, f"{folder.name}/")]
    for left in [*folder.glob(f"{WORK}*"), *folder.rglob(f"{TEMPORARY}*"), *beside]:
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink(missing_ok=True)
    place = folder / f"{WORK}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        (place / "product").mkdir(parents=True)
        yield place
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def stamp() -> str:
    """Time for names that sort."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def publish(made: Path, folder: Path, key: str) -> Path:
    """Move a finished product into its place; returns its folder."""
    base = f"{stamp()}_{key[:KEY_LENGTH]}"
    names = (base if k == 1 else f"{base}.{k}" for k in range(1, 1000))
    place = next(folder / name for name in names if not (folder / name).exists())
    _sync(made)
    os.rename(made, place)
    _sync(folder)
    return place


def point(link: Path, target: str | Path) -> None:
    """Make a relative symbolic link, replacing an older one in one step.

    Raises
    ------
    DataError
        If something that is no link has that name, or it can't be made.
    """
    if link.exists() and not link.is_symlink():
        raise DataError(f"{link}: exists and is no link; move it away")
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    temporary = link.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{link.name}")
    try:
        os.symlink(target, temporary)
        os.replace(temporary, link)
        _sync(link.parent)
    except OSError as error:
        raise DataError(f"{link}: link can't be made: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def make_current(folder: Path, product: Mapping[str, Any]) -> list[str]:
    """Let ``current`` and the names beside the detector's folder lead to a product; returns what was left alone."""
    place = place_of(product)
    point(folder / CURRENT, place.name)
    left = []
    for path in sorted(place.iterdir()):
        try:
            point(folder.parent / path.name, f"{folder.name}/{place.name}/{path.name}")
        except DataError as error:
            left.append(str(error))
    (folder / REJECTED).unlink(missing_ok=True)
    return left


def make_rejected(folder: Path, product: Mapping[str, Any]) -> None:
    """Let ``rejected`` lead to a product that was refused."""
    point(folder / REJECTED, place_of(product).name)


def prune(folder: Path, keep: int, keep_logs: int, stages: Mapping[str, str]) -> None:
    """Forget old products (never the current one or the newest rejected), old logs, and unused stages.

    Parameters
    ----------
    folder : Path
        Of the detector.
    keep, keep_logs : int
        How many of each are kept; 0 keeps all.
    stages : mapping
        Keys of the searches that the newest product was made from.
    """
    kept = {(folder / name).resolve() for name in (CURRENT, REJECTED) if (folder / name).is_symlink()}
    places = [p for p in _dated(folder) if p.resolve() not in kept]
    surplus = len(places) + len(kept) - keep if keep else 0
    for place in places[: max(surplus, 0)]:
        _drop_links(folder, place)
        shutil.rmtree(place, ignore_errors=True)
    runs = sorted({p.name.split(".")[0].removesuffix("_record") for p in (folder / LOGS).glob("*")})
    for run in runs[:-keep_logs] if keep_logs else []:
        for path in (folder / LOGS).glob(f"{run}*"):
            path.unlink(missing_ok=True)
    names = {stage_name(folder.name, s, key).removesuffix(".fits") for s, key in stages.items()}
    for path in (folder / STAGES).glob("*"):
        if not any(path.name.startswith(name) for name in names):
            path.unlink(missing_ok=True)


def _drop_links(folder: Path, place: Path) -> None:
    """Remove dated names that lead to a product that goes."""
    for link in folder.parent.iterdir():
        if _leads_to(link, f"{folder.name}/{place.name}/"):
            link.unlink(missing_ok=True)


def _leads_to(path: Path, start: str) -> bool:
    try:
        return os.readlink(path).startswith(start)
    except OSError:  # no link, or gone
        return False


def stage_name(detector: str, stage: str, key: str) -> str:
    """File name of the mask of one search."""
    return f"{detector.lower()}_{stage}_{key[:KEY_LENGTH]}.fits"


def prepare(folder: Path) -> Path:
    """The folder of a detector with what belongs in it."""
    for name in ("", STAGES, LOGS):
        check_directory(folder / name)
    return folder


def _sync(path: Path) -> None:
    with suppress(OSError):  # some file systems can't sync a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
