"""What is to be done with each raw exposure, with which reference files, and under which key.

1. Raw files are opened and checked; each is one exposure with a root of its own.
2. Reference files: CRDS, the named ones, or those of the simulation (written beside the products).
3. The key of an exposure is the hash of all that decides its products: the content of the raw file and of the named
   reference files, the parameters, the versions of the pipeline, the CRDS context.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from badpix import __version__
from badpix.errors import DataError, UsageError
from badpix.io import exposure as exposures
from badpix.io.output import TEMPORARY
from badpix.io.provenance import hash_inputs
from badpix.prepare.worker import Job
from badpix.settings.prepare import REFERENCE_TYPES, PrepareSettings, ReferenceFileSettings, StepSettings

PACKAGES = ("jwst", "stcal", "stdatamodels", "stpipe", "crds")
NEEDED = ("gain", "readnoise")  # without them there are neither jumps nor slopes

Refused = list[tuple[Path, str]]  # raw files that can't be used, with the reason


@dataclass
class Task:
    """One exposure: the job for the worker, and the part of its record that is known before."""

    job: Job
    record: dict[str, Any]
    place: Path

    @property
    def record_path(self) -> Path:
        """Where its record stands."""
        return self.place / f"{self.job.root}_prepare.json"

    def target(self, product: str) -> Path:
        """Where a product goes."""
        return self.place / f"{self.job.root}_{product}.fits"


def open_raws(files: Sequence[Path], unpacked: Path, refused: Refused, skip_bad: bool) -> list[exposures.Exposure]:
    """The usable raw exposures; the others go to ``refused``.

    Raises
    ------
    DataError
        If a file can't be used (unless ``skip_bad``), or two exposures have one root.
    UsageError
        If there is no file.
    """
    if not files:
        raise UsageError("no raw exposures")
    found: dict[str, exposures.Exposure] = {}
    for path in files:
        try:
            raw = exposures.open_exposure(path, unpacked, ["SCI"])
            _check_raw(raw)
        except DataError as error:
            if not skip_bad:
                raise
            refused.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        root = Job(path, path, ()).root
        if root in found:
            raise DataError(f"{path}: has the same name as {found[root].path}; their products would be one file")
        found[root] = raw
    return list(found.values())


def _check_raw(raw: exposures.Exposure) -> None:
    if raw.kind != "uncal" or len(raw["SCI"].shape) != 4:
        raise DataError(f"{raw.path}: is a {raw.kind} file, expected raw ramps (uncal: integers, 4 axes)")
    for keyword in ("INSTRUME", "DETECTOR", "EXP_TYPE", "READPATT"):
        raw.keyword(keyword)
    for keyword, count in zip(("NINTS", "NGROUPS"), raw["SCI"].shape[:2], strict=True):
        if raw.number(keyword) != count:
            raise DataError(f"{raw.path}: {keyword} = {raw.number(keyword)}, but SCI holds {count}")
    if raw["SCI"].shape[1] < 2:
        raise DataError(f"{raw.path}: NGROUPS = 1, expected at least 2: there is no slope")


def is_simulated(raw: exposures.Exposure) -> bool:
    """Whether an exposure comes from ``badpix simulate``."""
    maker = str(raw.header.get("SDP_VER", ""))
    return maker.startswith("badpix") and "simulation" in maker


def find_recipe(raw: exposures.Exposure) -> Path:
    """The parameters of the simulation that made an exposure: in its folder or the one above.

    Raises
    ------
    DataError
        If they are not there.
    """
    name = f"{str(raw.keyword('DETECTOR')).lower()}_simulate.yml"
    for folder in (raw.path.resolve().parent, raw.path.resolve().parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{raw.path}: {name} is neither beside it nor in the folder above, so the simulation's reference files can't "
        "be made; name them (--references named --override-gain FILE ...)"
    )


def choose_mode(raws: Sequence[exposures.Exposure], p: ReferenceFileSettings) -> str:
    """Where the reference files come from: ``crds``, ``named`` or ``simulation``."""
    if p.references != "auto":
        return str(p.references)
    return "simulation" if raws and all(is_simulated(raw) for raw in raws) else "crds"


def _named(p: PrepareSettings) -> dict[str, str]:
    """The reference files that the user names.

    Raises
    ------
    UsageError
        If one does not exist.
    """
    found = {}
    for name in REFERENCE_TYPES:
        path = getattr(p, f"override_{name}")
        if path:
            if not Path(path).is_file():
                raise UsageError(f"override_{name}: {path}: no such file")
            found[name] = str(Path(path).resolve())
    return found


def _simulated_references(recipe: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """Folder and files of a simulation's reference files, not yet written."""
    from badpix.simulation.reference_files import MODEL_OF

    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()[:8]
    detector = recipe.name.removesuffix("_simulate.yml")
    folder = (place / "references" / digest).resolve()
    return folder, {reftype: str(folder / f"{detector}_{reftype}.fits") for reftype in MODEL_OF}


def write_references(tasks: Sequence[Task]) -> None:
    """Write the reference files of simulated detectors that are not there yet."""
    for recipe in {task.job.recipe for task in tasks if task.job.recipe}:
        folder, files = _simulated_references(recipe, tasks[0].place)
        if all(Path(f).is_file() for f in files.values()):
            continue
        from badpix.simulation.detector import make_scene
        from badpix.simulation.files import make_recipe, read_parameters
        from badpix.simulation.reference_files import write_reference_files

        write_reference_files(folder, make_scene(make_recipe(read_parameters(recipe))), overwrite=True)


def make_tasks(raws: Sequence[exposures.Exposure], p: PrepareSettings, place: Path, context: str) -> list[Task]:
    """What is to be done with each exposure, and under which key.

    Raises
    ------
    UsageError
        If jumps and slopes lack a reference file.
    """
    mode, named = choose_mode(raws, p), _named(p)
    hashes = {i.path: i.sha256 for i in hash_inputs([r.path for r in raws] + [Path(f) for f in named.values()])}
    tasks = []
    for raw in raws:
        recipe = find_recipe(raw) if mode == "simulation" else None
        made = _simulated_references(recipe, place)[1] if recipe else {}
        references = {**made, **named}
        missing = [name for name in NEEDED if name not in references]
        if mode != "crds" and missing:
            raise UsageError(f"references: {mode}: jumps and slopes need override_{missing[0]}")
        job = Job(
            raw.path.resolve(),
            place.resolve() / f"{TEMPORARY}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            tuple(p.products),
            references,
            mode == "crds",
            {name: dict(values) for name, values in p.steps.items()},
            _skipped(raw, p),
            p.known_flags == "clear",
            p.fitopt_segments,
            recipe,
        )
        record = {
            "program": "badpix prepare",
            "input": {"file": raw.path.name, "sha256": hashes[raw.path]},
            "parameters": {k: v for k, v in p.items() if not k.startswith("override_") and k != "directory"},
            "skip": list(job.skip),
            "references": mode,
            "named": {k: hashes[Path(f)] for k, f in named.items()},
            "simulation": hashlib.sha256(recipe.read_bytes()).hexdigest() if recipe else None,
            "versions": {"badpix": __version__, **pipeline_versions()},
            "context": context,
        }
        text = json.dumps(record, sort_keys=True, default=str)
        record["key"] = hashlib.sha256(text.encode()).hexdigest()
        tasks.append(Task(job, record, place))
    return tasks


def _skipped(raw: exposures.Exposure, p: StepSettings) -> tuple[str, ...]:
    """Steps to leave out for this exposure; dark subtraction depends on what it is."""
    is_dark = "DARK" in str(raw.keyword("EXP_TYPE")).upper()
    wanted = p.subtract_dark == "always" or (p.subtract_dark == "flats" and not is_dark)
    extra = [] if wanted or "dark_current" in p.skip else ["dark_current"]
    return (*p.skip, *extra)


def pipeline_versions() -> dict[str, str]:
    """Versions of the pipeline's packages, without importing them."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
