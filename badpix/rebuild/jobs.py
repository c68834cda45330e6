"""From the YAML files of ``badpix rebuild`` to jobs: one detector each, everything checked before anything is read.

A file describes one detector, or has a list ``detectors:`` whose entries are laid over ``defaults:`` (section by
section, ``inputs`` role by role). An entry may be the bare name of a detector. ``{detector}`` and ``{instrument}``
in the names of inputs, manual lists and the output stand for the lower-case names, so eighteen detectors need one
set of lines. Paths start at the file's folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from badpix import detectors, errors
from badpix.errors import BadpixError, DataError, UsageError
from badpix.mask import header as mask_header
from badpix.settings import files as settings_files
from badpix.settings import param
from badpix.settings.check import CheckSettings
from badpix.settings.darks import DarkSettings
from badpix.settings.families import Family, read_families
from badpix.settings.flats import FlatSettings
from badpix.settings.merge import MergeSettings
from badpix.settings.param import Settings
from badpix.settings.prepare import PrepareSettings
from badpix.settings.rebuild import RebuildSettings
from badpix.settings.reference import ReferenceSettings
from badpix.settings.science import ScienceSettings

KEYS = "detector set reference flats darks science merge check report rebuild prepare families output".split()
OF_OTHERS = "compare ifu image simulate".split()  # sections of other commands in the same file
SECTIONS = ("flats", "darks", "science", "merge", "reference", "check", "rebuild", "prepare")


@dataclass(frozen=True)
class Values:
    """The settings of one detector, a field a section."""

    prepare: PrepareSettings
    flats: FlatSettings
    darks: DarkSettings
    science: ScienceSettings
    merge: MergeSettings
    reference: ReferenceSettings
    check: CheckSettings
    rebuild: RebuildSettings

    def of(self, section: str) -> Settings:
        """The settings of a section by its name."""
        found: Settings = getattr(self, section)
        return found


@dataclass(frozen=True)
class Job:
    """All that is known about one detector before its files are looked at.

    Attributes
    ----------
    detector : str
        DETECTOR.
    source : Path
        The YAML file.
    output : str
        The mask's path with ``{date}`` still in its name.
    values : Values
        Complete checked values by section.
    inputs : dict
        Inputs by section and role.
    stages : tuple of str
        Searches to make: ``flats``, ``darks``, ``science``.
    families : tuple of Family
        Depths of exposure that get masks of their own.
    """

    detector: str
    source: Path
    output: str
    values: Values
    inputs: dict[str, dict[str, Any]]
    stages: tuple[str, ...]
    families: tuple[Family, ...] = ()

    @property
    def folder(self) -> Path:
        """Where products, locks and logs of this detector live: beside the mask, under its detector's name."""
        return Path(self.output).parent / self.detector.lower()

    @property
    def policy(self) -> RebuildSettings:
        """Values of the section ``rebuild``."""
        return self.values.rebuild


def read_jobs(names: list[Path]) -> tuple[list[Job], list[tuple[Path, BadpixError]]]:
    """Jobs of all files, and the files that can't be used with the reason: one bad file does not stop the others.

    Raises
    ------
    UsageError
        If two jobs would write to the same place.
    """
    jobs: list[Job] = []
    failed: list[tuple[Path, BadpixError]] = []
    for name in names:
        try:
            jobs += read_file(name)
        except (UsageError, DataError) as error:
            failed.append((Path(name), error))
    seen: dict[Path, Path] = {}
    for job in jobs:
        if job.folder in seen:
            raise UsageError(f"{job.source}: {job.detector}: {job.folder} is also that of {seen[job.folder]}")
        seen[job.folder] = job.source
    return jobs, failed


def read_file(name: str | Path) -> list[Job]:
    """Jobs of one YAML file.

    Raises
    ------
    UsageError
        At an unknown key, a wrong value, a missing detector or output.
    """
    path = Path(os.path.abspath(name))
    tree = settings_files.load_file(path)
    _check_keys(tree, (*KEYS, *OF_OTHERS, "detectors", "defaults"), str(path))
    if "detectors" not in tree and "defaults" not in tree:
        return [_make_job(tree, path)]
    common = _mapping(tree.get("defaults"), f"{path}: defaults")
    _check_keys(common, (*KEYS, *OF_OTHERS), f"{path}: defaults")
    common = merge_trees({k: v for k, v in tree.items() if k not in ("detectors", "defaults")}, common)
    entries = tree.get("detectors")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: detectors: found {entries!r}, expected a list")
    jobs = []
    for entry in entries:
        own = {"detector": entry} if isinstance(entry, str) else _mapping(entry, f"{path}: detectors")
        _check_keys(own, (*KEYS, *OF_OTHERS), f"{path}: detectors")
        jobs.append(_make_job(merge_trees(common, own), path))
    return jobs


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping | None):
        raise UsageError(f"{where}: found {value!r}, expected 'name: value' lines")
    return dict(value or {})


def _check_keys(tree: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in tree:
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}{errors.nearest(str(key), known)}")


def merge_trees(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``: mappings key by key at every depth, anything else as a whole."""
    out = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge_trees(out[key], value) if both else value
    return out


def _make_job(tree: Mapping[str, Any], path: Path) -> Job:
    if not tree.get("detector"):
        raise UsageError(f"{path}: detector is missing")
    facts = detectors.choose(str(tree["detector"]), f"{path}: detector")
    where = f"{path}: {facts.name}"
    words = {"{detector}": facts.name.lower(), "{instrument}": facts.instrument.lower()}
    tree = _fill(tree, words)
    read: dict[str, Any] = {}
    inputs = {}
    for name in SECTIONS:
        content = settings_files.resolve_paths(name, _mapping(tree.get(name), f"{where}: {name}"), path.parent)
        read[name], inputs[name] = _section({**tree, name: content}, name, where)
    read["reference"] = mask_header.check_texts(read["reference"])
    values = Values(**read)
    stages = _stages(tree, values, inputs, where)
    families = tuple(read_families(tree["families"], where)) if tree.get("families") else ()
    if families and not ("darks" in stages and values.rebuild.evidence):
        raise UsageError(f"{where}: families: they need darks, and rebuild.evidence: true")
    return Job(facts.name, path, _output(tree, path, where), values, inputs, stages, families)


def _section(tree: Mapping[str, Any], name: str, where: str) -> tuple[Settings, dict[str, Any]]:
    sec = param.section(name)
    given, inputs = settings_files.section_values(tree, sec, where)
    chosen = given.pop("set", None) or tree.get("set") or "default"
    if "depth" in sec.names() and chosen == "default":
        given.setdefault("depth", True)  # a nightly run has the time to say what it could have found
    return sec.from_values(given, where, chosen), inputs


def _fill(value: Any, words: Mapping[str, str]) -> Any:
    """``value`` with the words in braces replaced in all its texts."""
    if isinstance(value, str):
        for word, text in words.items():
            value = value.replace(word, text)
        return value
    if isinstance(value, Mapping):
        return {k: _fill(v, words) for k, v in value.items()}
    return [_fill(v, words) for v in value] if isinstance(value, list) else value


def _output(tree: Mapping[str, Any], path: Path, where: str) -> str:
    output = tree.get("output")
    if not isinstance(output, str) or not output.endswith(".fits"):
        raise UsageError(f"{where}: output: found {output!r}, expected a name such as masks/{{detector}}_mask.fits")
    full = os.path.abspath(path.parent / output)
    if "{" in full.replace("{date}", ""):
        raise UsageError(
            f"{where}: output: {output}: unknown field; known are {{instrument}}, {{detector}}, {{date}}"
        )
    if "{" in os.path.dirname(full):
        raise UsageError(f"{where}: output: {output}: only the file's own name may hold {{date}}")
    return full


def _stages(tree: Mapping[str, Any], values: Values, inputs: Mapping[str, Any], where: str) -> tuple[str, ...]:
    stages = []
    for name in ("flats", "darks", "science"):
        if inputs[name].get("rate") or inputs[name].get("raw"):
            stages.append(name)
        elif name in tree:
            also = "" if name == "science" else ", and so is raw"
            raise UsageError(f"{where}: {name}.inputs.rate is missing{also}: there is nothing to search")
    if not stages and not (values.merge.masks or inputs["merge"].get("masks")):
        raise UsageError(f"{where}: neither flats nor darks nor science nor merge.masks: there is nothing to build")
    return tuple(stages)
