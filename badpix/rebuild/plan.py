"""What a rebuild has to do, and why: inputs, keys, and the difference from what is there.

1. Inputs of each search: the slope files and their companions, manual lists, maps, masks to merge.
2. An input is known by its sha256; where path, size, times (of content and inode) and inode are those of an earlier
   record of this detector, that record's hash is taken, else that of the user's cache; forced runs hash all anew. No
   FITS file is opened here, and nothing that is no regular file.
3. The key of a search is the sha256 of: names and hashes of its inputs, its parameters, the versions of the code and
   of the numerical libraries. The key of the product is that of the keys of its searches, of the other inputs of the
   merge, of its parameters and texts. Equal keys stand for equal bytes.
4. Against the record of the current product: which inputs came, went or changed, which parameters, which code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from badpix import detectors
from badpix.errors import DataError, UsageError
from badpix.io import provenance, selection
from badpix.io.handles import Stamp, stamp_of
from badpix.outside import find_fault
from badpix.rebuild.jobs import Job
from badpix.settings import values as settings_values
from badpix.settings.rebuild import RebuildSettings

log = logging.getLogger(__name__)

NAMES_SHOWN = 3  # files or parameters named in a reason
CHUNK = 64  # files hashed before their hashes are remembered
OF_FRAME = ("reference_subarray", "reference_readpatt", "reference_exp_type")  # texts that searches use as well
SUFFIXES = {"flats": ("_rate", "_rateints"), "darks": ("_rateints", "_rate"), "science": ("_crf", "_cal", "_rate")}
COMPANIONS = {"flats": ("uncal",), "darks": ("jump", "fitopt", "uncal")}


@dataclass(frozen=True)
class Source:
    """One input file: for which stage, in which role, and the slope file that it belongs to."""

    stage: str
    role: str
    path: str
    owner: str


@dataclass(frozen=True)
class Known:
    """An input file with its identity and its content's sha256."""

    stage: str
    role: str
    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str

    @property
    def name(self) -> str:
        """File name without its folder."""
        return Path(self.path).name


@dataclass
class Plan:
    """What there is, its keys, and the reasons to do something."""

    inputs: list[Known]
    keys: dict[str, str]
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Key of the product."""
        return self.keys["merge"]

    def paths(self, stage: str, role: str) -> list[Path]:
        """Input files of a stage in a role, sorted."""
        return [Path(k.path) for k in self.inputs if (k.stage, k.role) == (stage, role)]


# --- 1. inputs -------------------------------------------------------------------------------------------


def find_sources(job: Job) -> list[Source]:
    """All input files of a job.

    Raises
    ------
    UsageError
        If a name matches nothing, or a file is named twice.
    """
    found: list[Source] = []
    for stage in job.stages:
        suffixes = SUFFIXES[stage]
        rates = _expand(job, stage, "rate", suffixes)
        found += [Source(stage, "rate", str(r), str(r)) for r in rates]
        for role in _roles(job, stage):
            found += _companions(job, stage, role, rates)
        found += _parameter_files(job, stage)
    masks = job.values.merge.masks or job.inputs["merge"].get("masks") or []
    manual = job.values.merge.manual or job.inputs["merge"].get("manual") or []
    files = selection.expand_inputs(masks) if masks else []
    found += [Source("merge", "masks", str(m), str(m)) for m in files if not is_own(job, m)]
    found += [Source("merge", "manual", str(m), str(m)) for m in manual]
    base = job.values.merge.base
    found += [Source("merge", "base", str(base), str(base))] if base else []
    return found


def is_own(job: Job, path: str | Path) -> bool:
    """Whether a file is a product of this job's detector: the outputs of one night are no inputs of the next."""
    real = os.path.realpath(path)
    return real.startswith(os.path.realpath(job.folder) + os.sep)


def list_own(job: Job) -> list[tuple[str, str, str]]:
    """Masks that ``merge.masks`` names although they are products of this job, as (stage, file, reason)."""
    masks = job.values.merge.masks or job.inputs["merge"].get("masks") or []
    files = selection.expand_inputs(masks) if masks else []
    why = "a product of this rebuild itself: it would feed on itself"
    return [("merge", str(path), why) for path in files if is_own(job, path)]


def _expand(job: Job, stage: str, role: str, suffixes: tuple[str, ...]) -> list[Path]:
    named = job.inputs[stage].get(role)
    if not named:
        return []
    try:
        return selection.expand_inputs([named] if isinstance(named, str) else named, suffixes)
    except UsageError as error:
        raise DataError(f"{job.detector}: {stage}.inputs.{role}: {error}") from None


def _roles(job: Job, stage: str) -> tuple[str, ...]:
    """Companions that the search reads; raw ramps only where its parameters ask for them."""
    if stage == "flats":
        return ("uncal",) if job.values.flats.run_dead_flux_check else ()
    if stage == "science":
        return ()
    from badpix.darks import search as darks_search

    raw = darks_search.needs_uncal(job.values.darks, detectors.get(job.detector).instrument)
    return ("jump", "fitopt", "uncal") if raw else ("jump", "fitopt")


def _companions(job: Job, stage: str, role: str, rates: Sequence[Path]) -> list[Source]:
    named = _expand(job, stage, role, (f"_{role}",))
    if named:
        by_root = {selection.root_name(r): str(r) for r in rates}
        roots = [(selection.fits_stem(n) or n.stem).removesuffix(f"_{role}") for n in named]
        by_place = [str(r) for r in rates] if len(rates) == len(named) else [""] * len(named)
        owners = [by_root.get(root, place) for root, place in zip(roots, by_place, strict=True)]
        return [Source(stage, role, str(n), owner) for n, owner in zip(named, owners, strict=True)]
    found = [Source(stage, role, str(s), str(r)) for r in rates if (s := selection.sibling(r, f"_{role}"))]
    if role == "jump":  # a rate file of several integrations is replaced by the rateints beside it
        beside = [(selection.sibling(r, "_rateints"), r) for r in rates]
        found += [Source(stage, "rateints", str(s), str(r)) for s, r in beside if s and s != r]
    return found


def _parameter_files(job: Job, stage: str) -> list[Source]:
    """Files that parameters name: manual list, bias map, raw flats."""
    values = job.values.of(stage)
    kinds = {p.name: p.kind for p in values.params()}
    named = [(n, v) for n, v in values.items() if kinds[n] == "path" and v and v not in ("none", "default")]
    named += [(n, v) for n, many in values.items() if kinds[n] == "paths" for v in many or []]
    return [Source(stage, name, str(value), str(value)) for name, value in named]


# --- growing inputs --------------------------------------------------------------------------------------


def settle(sources: Sequence[Source], p: RebuildSettings) -> tuple[list[Source], list[tuple[str, str, str]]]:
    """Wait until no input changes, or leave out those that do.

    A file whose size and times (also that of its inode, which copying with preserved times moves) are older than
    `settle` is complete; younger ones are watched until they stay the same for that long.

    Returns
    -------
    sources, rejected
        Inputs that can be used; (stage, file, reason) of those that can't.

    Raises
    ------
    DataError
        If files still grow after `growing_wait` seconds of waiting.
    """
    seen = {s.path: _stat(s.path) for s in sources}
    young = {path for path, facts in seen.items() if facts and _age(facts) < p.settle}
    since = dict.fromkeys(young, time.monotonic())
    begun, growing = time.monotonic(), set[str]()
    if young:
        what = "1 input" if len(young) == 1 else f"{len(young)} inputs"
        log.info(f"{what} changed within the last {p.settle:g} s: watched for that long")
    while young and p.settle > 0:
        time.sleep(min(0.5, p.settle / 4))
        for path in sorted(young):
            facts = _stat(path)
            if facts != seen[path]:
                if path not in growing:
                    log.info(f"{Path(path).name}: still growing")
                growing.add(path)
                seen[path], since[path] = facts, time.monotonic()
        young = {path for path in young if time.monotonic() - since[path] < p.settle}
        if p.growing == "reject":
            young -= growing
        elif time.monotonic() - begun > p.growing_wait and young:
            raise DataError(f"{min(young)}: still changing after {p.growing_wait:.0f} s of waiting")
    bad = {path: "vanished" for path, facts in seen.items() if facts is None}
    odd = {path: find_fault(path) for path in seen if path not in bad}
    bad |= {path: fault for path, fault in odd.items() if fault}
    bad |= {path: "not readable" for path in seen if path not in bad and not os.access(path, os.R_OK)}
    if p.growing == "reject":
        bad |= dict.fromkeys(growing, "still growing; left out this time")
    return _without(sources, bad)


def _without(sources: Sequence[Source], bad: Mapping[str, str]) -> tuple[list[Source], list[tuple[str, str, str]]]:
    """Sources without the bad files and what belongs to the same exposure; lists and maps can't be left out."""
    for source in sources:
        if source.path in bad and source.role not in ("rate", "rateints", "jump", "fitopt", "uncal"):
            raise DataError(f"{source.path}: {bad[source.path]} ({source.stage}.{source.role})")
    owners = {(s.stage, s.owner): (s, bad[s.path]) for s in sources if s.path in bad}
    kept = [s for s in sources if (s.stage, s.owner) not in owners and s.path not in bad]
    reasons = [
        (stage, owner, why if s.path == owner else f"{Path(s.path).name}: {why}")
        for (stage, owner), (s, why) in owners.items()
    ]
    return kept, reasons


def _stat(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


def _age(facts: Stamp) -> float:
    return time.time() - max(facts.mtime_ns, facts.ctime_ns) / 1e9


# --- 2. hashes -------------------------------------------------------------------------------------------


def identify(
    sources: Sequence[Source],
    earlier: Iterable[Mapping[str, Any]],
    fresh: bool = False,
) -> list[Known]:
    """Sizes, times and hashes of inputs, from earlier records where the file is unchanged and not asked ``fresh``.

    Raises
    ------
    DataError
        If a file vanished.
    """
    memory = {
        (k["path"], k["size"], k["mtime_ns"], k.get("ctime_ns"), k["inode"]): k["sha256"]
        for record in (() if fresh else earlier)
        for k in record["inputs"]
    }
    facts = {s.path: _stat(s.path) for s in sources}
    for path, found in facts.items():
        if found is None:
            raise DataError(f"{path}: vanished")
    todo = sorted(p for p, f in facts.items() if f and (p, *f) not in memory)
    if todo:
        size = sum(f.size for p, f in facts.items() if f and p in set(todo))
        log.info(f"hashing {len(todo)} new or changed files, {size / 1e6:,.0f} MB")
    new: dict[str, str] = {}
    for k in range(0, len(todo), CHUNK):
        new |= {str(i.path): i.sha256 for i in provenance.hash_inputs(todo[k : k + CHUNK], fresh=fresh)}
    known = []
    for s in sources:
        found = facts[s.path]
        assert found is not None
        sha = new.get(s.path) or memory[(s.path, *found)]
        known.append(Known(s.stage, s.role, s.path, *found, sha))
    return sorted(known, key=lambda k: (k.stage, k.role, k.name, k.path))


def find_moved(inputs: Sequence[Known]) -> list[str]:
    """Inputs that changed or vanished since they were identified."""
    return [k.path for k in inputs if _stat(k.path) != (k.size, k.mtime_ns, k.ctime_ns, k.inode)]


# --- 3. keys ---------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """What a product's bytes may depend on besides inputs and parameters."""
    return provenance.library_versions()


def digest(content: Any) -> str:
    """sha256 of the canonical JSON of something."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def make_keys(job: Job, inputs: Sequence[Known]) -> dict[str, str]:
    """Keys of the searches and, as ``merge``, of the product."""
    keys = {}
    for stage in job.stages:
        frame = [getattr(job.values.reference, name) for name in OF_FRAME]
        keys[stage] = digest([stage, _contents(inputs, stage), as_text(job, stage), frame, versions()])
    rest = [_contents(inputs, "merge"), as_text(job, "merge"), as_text(job, "reference"), versions()]
    beside: list[Any] = [job.detector, Path(job.output).name, job.policy.evidence]
    beside += [[asdict(f) for f in job.families]] if job.families else []  # keys without them stay as they were
    keys["merge"] = digest([dict(keys), rest, beside])
    return keys


def _contents(inputs: Sequence[Known], stage: str) -> list[tuple[str, str, str]]:
    return [(k.role, k.name, k.sha256) for k in inputs if k.stage == stage]


def as_text(job: Job, name: str) -> dict[str, str]:
    """Values of a section as they stand in HISTORY."""
    return {key: settings_values.as_text(value) for key, value in job.values.of(name).items()}


def make_plan(
    job: Job,
    sources: Sequence[Source],
    rejected: Sequence[tuple[str, str, str]],
    current: Mapping[str, Any] | None,
    earlier: Iterable[Mapping[str, Any]] = (),
    fresh: bool = False,
) -> Plan:
    """Keys of what would be built, and the reasons to build it (none: the current product is that)."""
    inputs = identify(sources, earlier, fresh)
    plan = Plan(inputs, make_keys(job, inputs), list(rejected))
    plan.why = explain(job, plan, current)
    return plan


# --- 4. why ----------------------------------------------------------------------------------------------


def explain(job: Job, plan: Plan, current: Mapping[str, Any] | None) -> list[str]:
    """Why the current product is not what would be built now; empty if it is."""
    if current is None:
        return ["no current mask"]
    if current["key"] == plan.key:
        return []
    why = [*_changed_inputs(plan.inputs, current["inputs"])]
    for name in (*job.stages, "merge", "reference"):
        before, now = current["parameters"].get(name) or {}, as_text(job, name)
        changed = [f"{n}: {before.get(n, 'absent')} -> {v}" for n, v in now.items() if before.get(n) != v]
        why += [_some(changed, "changed parameter", name)] if changed else []
    before = current["versions"]
    why += [f"{n} {before.get(n)} -> {v}" for n, v in versions().items() if before.get(n) != v]
    return why or ["output name, searches, families or evidence changed"]


def _changed_inputs(now: Sequence[Known], before: Sequence[Mapping[str, Any]]) -> list[str]:
    old = {(k["stage"], k["role"], Path(k["path"]).name): k["sha256"] for k in before}
    new = {(k.stage, k.role, k.name): k.sha256 for k in now}
    why = []
    for stage in sorted({key[0] for key in (*old, *new)}):
        came = [k[2] for k in new if k[0] == stage and k not in old]
        went = [k[2] for k in old if k[0] == stage and k not in new]
        other = [k[2] for k in new if k[0] == stage and k in old and old[k] != new[k]]
        for names, word in ((came, "new"), (went, "gone"), (other, "changed")):
            why += [_some(names, f"{word} input", stage)] if names else []
    return why


def _some(names: Sequence[str], what: str, of: str) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{len(names)} {what}{'s' if len(names) > 1 else ''} of {of}: {', '.join(names[:NAMES_SHOWN])}{more}"


def as_record(plan: Plan) -> dict[str, Any]:
    """The part of a product's record that describes its inputs and keys."""
    return {"key": plan.key, "keys": plan.keys, "inputs": [asdict(k) for k in plan.inputs], "why": plan.why}
