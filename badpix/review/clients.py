"""The real users of a mask, where they are installed: the pipeline's DQ initialization and CRDS's certification.

Both run in a process of their own (``python -m badpix.review.clients``), because they read their configuration when
they are imported and talk a lot. Neither needs a server:

* the step gets the mask by ``override_mask`` and an exposure, the user's or a synthetic one of the mask's detector;
* ``crds certify`` can't run without a context, so where neither ``CRDS_PATH`` nor ``CRDS_SERVER_URL`` is set it gets
  a minimal one in a temporary folder: the match keys of MASK files per instrument, without any older reference. All
  of CRDS's own checks of keywords, arrays and data models run; what can't be seen that way is whether the file
  overlaps with those of the operational context.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from badpix import detectors, dq
from badpix.errors import DataError
from badpix.io.scratch import scratch_folder
from badpix.io.unpack import make_plain
from badpix.mask import rules
from badpix.mask.combine import standard_bits
from badpix.mask.file_as_found import MaskFile
from badpix.outside import require_regular

TIMEOUT = 900  # seconds
MATCH_KEYS = {
    "MIRI": (),
    "NIRCAM": (),
    "NIRISS": (),
    "NIRSPEC": ("META.EXPOSURE.READPATT",),
    "FGS": ("META.EXPOSURE.TYPE",),
}
CONTEXT = "jwst_0001.pmap"
IMAGE_TYPES = {"NIRCAM": "NRC_IMAGE", "NIRISS": "NIS_IMAGE", "NIRSPEC": "NRS_IMAGE", "FGS": "FGS_IMAGE"}


@dataclass
class Answer:
    """What a client said.

    ``status`` is ``passed``, ``failed`` or ``not run``; ``rows`` has one row a flag for the pipeline.
    """

    client: str
    status: str
    messages: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


# --- called by badpix check ------------------------------------------------------------------------------


def run_dq_init(path: str | Path, exposure: str | Path | None = None) -> Answer:
    """The pipeline's DQInitStep with this mask, compared with the mask flag by flag.

    Parameters
    ----------
    path : path
        The MASK file.
    exposure : path, optional
        A raw exposure (uncal) of the same detector; a synthetic one of the mask's window is made without it.
    """
    return _run("jwst DQInitStep", "jwst", "dq_init", path, exposure)


def run_certify(path: str | Path) -> Answer:
    """``crds certify`` on a MASK file."""
    return _run("crds certify", "crds", "certify", path, None)


def _run(client: str, package: str, task: str, path: str | Path, exposure: str | Path | None) -> Answer:
    if find_spec(package) is None:
        return Answer(client, "not run", [f"the package {package} is not installed: pip install 'badpix[pipeline]'"])
    with scratch_folder() as folder:
        try:
            check_files([path, *([exposure] if exposure else [])], folder)
        except DataError as error:
            return Answer(client, "failed", [f"not asked: {error}"])
        call = [sys.executable, "-m", "badpix.review.clients", task, str(folder), str(Path(path).resolve())]
        call += [str(Path(exposure).resolve())] if exposure else []
        paths = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths.rstrip(os.pathsep), **_offline(str(folder))}
        try:
            done = subprocess.run(call, capture_output=True, text=True, timeout=TIMEOUT, env=environment, cwd=folder)
        except subprocess.TimeoutExpired:
            return Answer(client, "failed", [f"no answer within {TIMEOUT} s"])
        result = folder / "answer.json"
        if not result.is_file():
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            return Answer(client, "failed", ["stopped: " + " / ".join(lines[-2:])])
        return Answer(client, **json.loads(result.read_text(encoding="utf-8")))


def check_files(paths: Sequence[str | Path], folder: Path) -> None:
    """Make sure that files are regular, and whole FITS files, before other software opens them.

    Raises
    ------
    DataError
        If one is not.
    """
    for path in paths:
        require_regular(path)
        make_plain(Path(path), folder)


def _offline(folder: str) -> dict[str, str]:
    """Environment in which nothing is asked of a server, unless the user has set one up."""
    settings = {"STPIPE_DISABLE_CRDS_STEPPARS": "true", "CRDS_OBSERVATORY": "jwst"}
    if not os.environ.get("CRDS_PATH") and not os.environ.get("CRDS_SERVER_URL"):
        settings |= {"CRDS_PATH": folder, "CRDS_SERVER_URL": "https://no-server.invalid"}
    return settings


# --- the pipeline, in its own process --------------------------------------------------------------------


def dq_init(folder: Path, path: Path, exposure: Path | None) -> dict[str, Any]:
    """Run DQInitStep and compare PIXELDQ and GROUPDQ with the flags that the file names."""
    from jwst.dq_init import DQInitStep
    from stdatamodels.jwst import datamodels
    from stpipe import crds_client

    crds_client.get_context_used = lambda observatory: "N/A"  # the only question left to a server
    mask = rules.read_file(path, path.name)
    model = datamodels.open(exposure) if exposure else _synthetic(mask, datamodels)
    if isinstance(model, datamodels.Level1bModel):  # an uncal file: the step wants ramps
        model = datamodels.RampModel(model)
    before = np.array(model.pixeldq) if exposure and model.hasattr("pixeldq") else np.uint32(0)
    window = _window_of(model)
    step = DQInitStep()
    step.override_mask = str(path)
    result = step.run(model)
    if result.meta.cal_step.dq_init != "COMPLETE":
        return {"status": "failed", "messages": [f"the step ended with S_DQINIT = {result.meta.cal_step.dq_init!r}"]}
    wanted = _decode(_cut(mask, window), mask)
    pixel = np.asarray(result.pixeldq) if result.hasattr("pixeldq") else np.asarray(result.dq)
    group = np.asarray(result.groupdq) if result.hasattr("groupdq") else None
    rows = [_compare_flag(flag, wanted, pixel, before) for flag in dq.FLAGS]
    rows = [r for r in rows if r["mask"] or r["pipeline"]]
    bad = [r for r in rows if r["differ"]]
    messages = [f"{r['flag']}: {r['differ']} pixels differ between the mask and PIXELDQ" for r in bad]
    if group is not None:
        unusable = (wanted & dq.VALUE["DO_NOT_USE"]) != 0
        reached = np.all((group & 1) != 0, axis=(0, 1))
        lost = int((unusable & ~reached).sum())
        if lost:
            messages.append(f"DO_NOT_USE of {lost} pixels does not reach GROUPDQ")
    return {"status": "failed" if messages else "passed", "messages": messages, "rows": rows}


def _decode(image: Any, mask: MaskFile) -> Any:
    """Standard bits by the names of DQ_DEF; as they stand where that would lose a flag: the comparison shows it."""
    try:
        return standard_bits(image, mask.table) if mask.table else image
    except DataError:
        return image


def _compare_flag(flag: dq.Flag, wanted: Any, pixel: Any, before: Any) -> dict[str, Any]:
    expected = ((wanted | before) & flag.value) != 0
    found = (pixel & flag.value) != 0
    counts = {"mask": int(((wanted & flag.value) != 0).sum()), "pipeline": int(found.sum())}
    return {"flag": flag.name, **counts, "differ": int((expected != found).sum())}


def _window_of(model: Any) -> detectors.Window:
    sub = model.meta.subarray
    ny, nx = model.data.shape[-2:]
    return detectors.Window(int(sub.xstart), int(sub.ystart), nx, ny)


def _cut(mask: MaskFile, window: detectors.Window) -> np.ndarray[Any, Any]:
    if mask.window is None or mask.image is None:
        raise DataError("DQ or its window can't be read")
    if mask.image.dtype.kind not in "iu":
        raise DataError(f"DQ is {mask.image.dtype}, expected integers")
    y, x = window.ystart - mask.window.ystart, window.xstart - mask.window.xstart
    cut = mask.image[max(y, 0) : y + window.ysize, max(x, 0) : x + window.xsize]
    if y < 0 or x < 0 or cut.shape != (window.ysize, window.xsize):
        raise DataError(f"the exposure's window {tuple(window)} lies outside that of the mask {tuple(mask.window)}")
    return cut.astype(np.uint32)


def _synthetic(mask: MaskFile, datamodels: Any) -> Any:
    """A ramp of two groups of zeros with the keywords of an exposure that the mask is for."""
    if mask.detector is None or mask.window is None:
        raise DataError("DETECTOR, DQ or its window can't be read")
    facts, nx, ny = mask.detector, mask.window.xsize, mask.window.ysize
    model = datamodels.RampModel(data=np.zeros((1, 2, ny, nx), np.float32))
    model.meta.instrument.name, model.meta.instrument.detector = facts.instrument, facts.name
    name = str(mask.header.get("SUBARRAY", "FULL"))
    model.meta.subarray.name = "FULL" if name in ("GENERIC", "N/A", "ANY") else name
    model.meta.subarray.xstart, model.meta.subarray.ystart = mask.window.xstart, mask.window.ystart
    model.meta.subarray.xsize = nx
    model.meta.subarray.ysize = min(ny, 2048) if facts.instrument == "NIRSPEC" else ny
    imager = facts.name == "MIRIMAGE"
    miri = "MIR_IMAGE" if imager else "MIR_MRS"
    model.meta.exposure.type = IMAGE_TYPES.get(facts.instrument, miri)
    model.meta.observation.date, model.meta.observation.time = "2030-01-01", "00:00:00"
    return model


# --- CRDS, in its own process ----------------------------------------------------------------------------


def certify(folder: Path, path: Path, exposure: Path | None) -> dict[str, Any]:
    """Run CRDS's certifier, with the operational context where the user has one, else with a minimal one."""
    own = os.environ.get("CRDS_PATH") == str(folder)
    context = write_context(folder) if own else _user_context()
    from crds.certify import certify as certifier
    from crds.core import log

    said: list[str] = []
    log.add_stream_handler(_Lines(said))
    certifier.certify_files(
        [str(path)], context, observatory="jwst", skip_banner=True, check_rmap=False, compare_old_reference=False
    )
    kept = [line for line in said if " ERROR " in line or " WARNING " in line]
    words = [line.split(" -  ", 1)[-1].replace(str(path.parent) + os.sep, "") for line in kept]
    if own:
        words.append(
            "no CRDS server or cache is set up: certified with a minimal context (the match keys); whether the file "
            "overlaps with those of the operational context was not looked at"
        )
    return {"status": "failed" if log.errors() else "passed", "messages": words}


class _Lines:
    """A stream that collects lines, for CRDS's log."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def write(self, text: str) -> None:
        """Keep what is not blank."""
        self.lines += [line.strip() for line in text.splitlines() if line.strip()]

    def flush(self) -> None:
        """Nothing to do."""


def _user_context() -> str:
    from crds.core import heavy_client

    return str(os.environ.get("CRDS_CONTEXT") or heavy_client.get_context_name("jwst"))


def write_context(folder: Path) -> str:
    """The smallest CRDS context that MASK files can be certified against: its name."""
    place = folder / "mappings" / "jwst"
    place.mkdir(parents=True, exist_ok=True)
    instruments = {name.lower(): f"jwst_{name.lower()}_0001.imap" for name in MATCH_KEYS}
    _write_mapping(place, CONTEXT, {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}, repr(instruments))
    for name, further in MATCH_KEYS.items():
        low = name.lower()
        rules = f"jwst_{low}_mask_0001.rmap"
        header = {"mapping": "INSTRUMENT", "instrument": name, "parkey": ("REFTYPE",)}
        _write_mapping(place, instruments[low], header, repr({"mask": rules}))
        keys = ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME", *further)
        about: dict[str, Any] = {
            "mapping": "REFERENCE",
            "instrument": name,
            "filekind": "MASK",
            "classes": ("Match", "UseAfter"),
            "parkey": (keys, ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")),
        }
        _write_mapping(place, rules, about, "Match({\n})")
    return CONTEXT


def _write_mapping(place: Path, name: str, header: Mapping[str, Any], selector: str) -> None:
    """One mapping file; its sha1sum is that of its text without the line of the sum."""
    about = {**header, "name": name, "observatory": "JWST", "derived_from": "none"}
    about |= {"suffix": "mask", "text_descr": "mask", "description": "minimal context"}
    lines = "".join(f"    {key!r} : {value!r},\n" for key, value in about.items())
    total = hashlib.sha1(f"header = {{\n{lines}}}\n\nselector = {selector}\n".encode()).hexdigest()
    lines += f"    'sha1sum' : {total!r},\n"
    (place / name).write_text(f"header = {{\n{lines}}}\n\nselector = {selector}\n", encoding="utf-8")


TASKS: dict[str, Callable[[Path, Path, Path | None], dict[str, Any]]] = {"dq_init": dq_init, "certify": certify}


def main() -> None:
    """``python -m badpix.review.clients TASK FOLDER MASK [EXPOSURE]``: leaves ``answer.json`` in FOLDER."""
    task, folder, path, *more = sys.argv[1:]
    exposure = Path(more[0]) if more else None
    try:
        answer = TASKS[task](Path(folder), Path(path), exposure)
    except (Exception, SystemExit) as error:  # whatever stops a client is its answer
        answer = {"status": "failed", "messages": [f"{type(error).__name__}: {error}"]}
    (Path(folder) / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
