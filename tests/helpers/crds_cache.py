"""A tiny CRDS cache, as CRDS leaves it for work without a server: one detector, a few reference files."""

from __future__ import annotations

import hashlib
import pprint
import shutil
from collections.abc import Mapping
from pathlib import Path


def make_cache(cache: Path, references: Mapping[str, Path], kinds: list[str], detector: str, instrument: str) -> Path:
    """Write the cache; reference types in ``kinds`` that no file is given for are N/A."""
    mappings, config = cache / "mappings" / "jwst", cache / "config" / "jwst"
    files = cache / "references" / "jwst" / instrument
    for folder in (mappings, config, files):
        folder.mkdir(parents=True)
    table = dict.fromkeys(kinds, "N/A")
    keys = (("META.INSTRUMENT.DETECTOR",), ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME"))
    for kind, path in references.items():
        name = f"jwst_{instrument}_{kind}_0001.fits"
        shutil.copy(path, files / name)
        table[kind] = f"jwst_{instrument}_{kind}_0001.rmap"
        selector = (
            f"Match({{\n    ('{detector}',) : UseAfter({{\n        '2020-01-01 00:00:00' : '{name}',\n    }}),\n}})"
        )
        about = {"mapping": "REFERENCE", "filekind": kind.upper(), "instrument": instrument.upper(), "parkey": keys}
        write_mapping(mappings / table[kind], about, selector)
    imap = f"jwst_{instrument}_0001.imap"
    about = {"mapping": "INSTRUMENT", "instrument": instrument.upper(), "parkey": ("REFTYPE",)}
    write_mapping(mappings / imap, about, pprint.pformat(table))
    for number in (1, 2):
        about = {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}
        write_mapping(mappings / f"jwst_000{number}.pmap", about, pprint.pformat({instrument: imap}))
    set_context(cache, "jwst_0001.pmap")
    return cache


def write_mapping(path: Path, about: Mapping[str, object], selector: str) -> None:
    """Write one mapping; its checksum is over all lines but its own."""
    header = {"name": path.name, "observatory": "JWST", "derived_from": "tests", **about}
    rows = "".join(f"    {key!r} : {value!r},\n" for key, value in header.items())
    end = f"}}\n\nselector = {selector}\n"
    digest = hashlib.sha1(f"header = {{\n{rows}{end}".encode()).hexdigest()
    path.write_text(f"header = {{\n{rows}    'sha1sum' : '{digest}',\n{end}")


def set_context(cache: Path, context: str) -> None:
    """Say which context is the operational one."""
    info = {
        "observatory": "jwst",
        "operational_context": context,
        "edit_context": context,
        "bad_files_list": [],
        "bad_files": "",
        "crds_version": {"str": "14.0.3"},
        "force_remote_mode": False,
        "last_synced": "2026-01-01",
        "status": "cache",
        "connected": False,
        "context_history": [],
        "mapping_url": {},
        "reference_url": {},
        "monitor_reprocessing": {},
    }
    (cache / "config" / "jwst" / "server_config").write_text(pprint.pformat(info))
