"""One exposure through the pipeline's first stage; runs in a worker process, the only place where jwst is imported.

1. ``Detector1Pipeline`` is configured: step parameters (CRDS's own first, where CRDS is asked; then the user's),
   steps to skip, reference files, products to save.
2. Its steps are told apart for the progress, and two of them get something added: after dq_init the flags of the
   mask in use are taken off science pixels; before refpix a second run without side pixels is saved, if wanted. A
   small simulated detector, whose size the refpix step does not know, has its offsets taken from its own reference
   pixels by :func:`badpix.simulation.reduce.offsets_from_border`.
3. The pipeline runs with a private folder for its outputs and its log; the optional results of the fit are cut to
   the segments that are wanted.

Nothing here raises what a parent could not unpickle: a pipeline's failure comes back as text.
"""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from badpix.errors import DataError, UsageError, nearest
from badpix.io.workers import end_with_parent

NOWHERE = "http://localhost:1"  # nothing answers there: the named reference files alone count
LOGGERS = ("jwst", "stcal", "stpipe", "stdatamodels", "CRDS")

_report: Callable[[tuple[str, int, int, str]], None] = lambda message: None  # noqa: E731 (replaced by connect)


@dataclass(frozen=True)
class Job:
    """What is to be done with one exposure.

    Attributes
    ----------
    uncal, workdir : Path
        The raw file; a private folder for all outputs.
    products : tuple of str
        Names in :data:`badpix.settings.prepare.PRODUCTS`.
    references : dict
        Reference type -> file.
    ask_crds : bool
        Whether CRDS is asked for the types that are not named.
    steps : dict
        Step -> parameters.
    skip : tuple of str
        Steps to leave out.
    clear_flags : bool
        Take the flags of the mask in use off science pixels.
    fitopt_segments : int or None
        Segments of the optional results to keep.
    recipe : Path or None
        Parameters of the simulation, for a small detector.
    """

    uncal: Path
    workdir: Path
    products: tuple[str, ...]
    references: dict[str, str] = field(default_factory=dict)
    ask_crds: bool = False
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    clear_flags: bool = True
    fitopt_segments: int | None = None
    recipe: Path | None = None

    @property
    def root(self) -> str:
        """Root of the names of its products."""
        return self.uncal.name.split(".fits")[0].removesuffix("_uncal")


@dataclass
class Outcome:
    """What came of one exposure; ``error`` is empty where all went well."""

    files: dict[str, Path] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    context: str = ""
    error: str = ""
    peak_memory_mb: float = 0.0


def connect(queue: Any) -> None:
    """Make progress go to a queue, and the worker end with its parent; the initializer of worker processes."""
    global _report
    end_with_parent()
    _report = queue.put


# --- what is asked before the first exposure --------------------------------------------------------------


def describe(ask_crds: bool, steps: Mapping[str, Mapping[str, Any]], skip: tuple[str, ...]) -> str:
    """The CRDS context in use (``N/A`` where CRDS is not asked), after a check of step names and parameters.

    Raises
    ------
    UsageError
        At an unknown step or parameter.
    DataError
        If CRDS is to be asked and neither a server nor a cache answers.
    """
    _isolate(ask_crds)
    with _quiet():
        from jwst.pipeline import Detector1Pipeline

        known = Detector1Pipeline.step_defs
        for name in (*steps, *skip):
            if name not in known:
                raise UsageError(f"prepare.steps: the pipeline has no step {name!r}{nearest(name, known)}")
        for name, values in steps.items():
            spec = list(known[name].load_spec_file())
            for key in values:
                if key not in spec:
                    raise UsageError(f"prepare.steps.{name}: unknown parameter {key!r}{nearest(key, spec)}")
        if not ask_crds:
            return "N/A"
        from crds.core import heavy_client

        logging.disable(logging.CRITICAL)
        try:
            return str(heavy_client.get_processing_mode("jwst")[1])
        except (Exception, SystemExit):  # CRDS ends the process where it can't go on
            raise DataError(
                f"CRDS: neither a server nor a cache answers (CRDS_SERVER_URL = {os.environ.get('CRDS_SERVER_URL')}, "
                f"CRDS_PATH = {os.environ.get('CRDS_PATH')}); set them, or name the files "
                "(--references named --override-gain FILE --override-readnoise FILE ...)"
            ) from None
        finally:
            logging.disable(logging.NOTSET)


def _isolate(ask_crds: bool) -> None:
    """Keep CRDS from asking anybody, where only named files count. To be called before crds is imported."""
    if not ask_crds:
        os.environ["CRDS_SERVER_URL"] = NOWHERE
        os.environ["STPIPE_DISABLE_CRDS_STEPPARS"] = "true"


@contextmanager
def _quiet() -> Any:
    """The pipeline's warnings are its own affair; what matters stands in its log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- one exposure -----------------------------------------------------------------------------------------


def run_exposure(job: Job) -> Outcome:
    """Run the first stage on one exposure; its products are in ``job.workdir`` afterwards.

    Parameters
    ----------
    job : Job
        What to do.

    Returns
    -------
    Outcome
        Files, state of the steps, references, context; or an error.
    """
    _isolate(job.ask_crds)
    out = Outcome()
    with _quiet(), _log_to(job.workdir / f"{job.root}_prepare.log"):
        try:
            _run(job, out)
        except (Exception, SystemExit) as error:  # whatever the pipeline raises may not survive the way to the parent
            logging.getLogger("jwst").exception("badpix prepare: failed")
            out.error = f"{job.uncal}: the pipeline failed: {type(error).__name__}: {_first_line(error)}"
    import resource

    out.peak_memory_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return out


def _run(job: Job, out: Outcome) -> None:
    pipe = make_pipeline(job)
    if not job.ask_crds:
        from stpipe import crds_client

        crds_client.get_context_used = lambda observatory: "N/A"  # the only question left to the server
    announce(pipe, job.root)
    if job.clear_flags:
        _after(pipe.dq_init, clear_known_flags)
    if job.recipe is not None:
        _know_small_detector(pipe, job.recipe)
    if "refpix_nosides" in job.products:
        _before(pipe.refpix, lambda ramp: _save_without_sides(pipe, ramp, job))
    raw = open_input(job.uncal)
    gc.freeze()  # each step ends with a full collection: what is imported by now need not be looked through again
    result = pipe.run(raw)
    if result is None or result.meta.cal_step.ramp_fit != "COMPLETE":
        raise DataError("no slopes were fitted; the log says why")
    result_steps = getattr(result.meta.cal_step, "instance", {})
    out.steps = {k: str(v) for k, v in result_steps.items()}
    used = dict(result.meta.ref_file.instance)
    out.context = str(used.pop("crds", {}).get("context_used", "N/A"))
    names = {k: str(v["name"]) for k, v in used.items() if isinstance(v, Mapping) and "name" in v}
    out.references = {k: Path(name).name for k, name in names.items() if name != "N/A"}
    result.close()
    for product in job.products:
        path = job.workdir / f"{job.root}_{product}.fits"
        if path.is_file():
            out.files[product] = path
    if "fitopt" in out.files and job.fitopt_segments:
        trim_segments(out.files["fitopt"], job.fitopt_segments)


def make_pipeline(job: Job) -> Any:
    """``Detector1Pipeline`` with everything set."""
    from jwst.pipeline import Detector1Pipeline

    steps: dict[str, dict[str, Any]] = {name: {} for name in Detector1Pipeline.step_defs}
    if not job.ask_crds and "rscd" not in job.references:  # who leaves out MIRI's first groups then?
        steps["firstframe"]["skip"] = False
    for name, step in Detector1Pipeline.step_defs.items():
        for reftype in step.reference_file_types:
            if reftype in job.references:
                steps[name][f"override_{reftype}"] = str(job.references[reftype])
            elif not job.ask_crds:
                steps[name][f"override_{reftype}"] = "N/A"
        steps[name].update(job.steps.get(name, {}))
        if name in job.skip:
            steps[name]["skip"] = True
        steps[name]["save_results"] = name in job.products
    steps["ramp_fit"]["save_opt"] = "fitopt" in job.products
    source = str(job.uncal) if job.ask_crds else None
    config, _ = Detector1Pipeline.build_config(source, steps=steps)
    config.pop("class", None)
    pipe = Detector1Pipeline.from_config_section(config, name=config.pop("name", None))
    pipe.output_dir, pipe.save_results = str(job.workdir), True
    pipe.prefetch_references = job.ask_crds
    return pipe


def open_input(uncal: Path) -> Any:
    """What the pipeline is given: the file's name, or a model of a file without an ASDF extension (a simulated one).

    The pipeline takes the names of its products from the name of the file; so does the model here.
    """
    from astropy.io import fits
    from stdatamodels.jwst import datamodels

    with fits.open(uncal, lazy_load_hdus=True) as hdus:
        if "ASDF" in hdus:
            return str(uncal)
    ramp = datamodels.RampModel(str(uncal))
    ramp.meta.filename = uncal.name
    return ramp


def announce(pipe: Any, root: str) -> None:
    """Report each step that begins: (exposure, its number, number of steps, its name)."""
    names = [name for name in pipe.step_defs if not getattr(pipe, name).skip]
    number = count()
    for name in names:
        _before(getattr(pipe, name), partial(_say, root, number, len(names), name))


def _say(root: str, number: Iterator[int], total: int, name: str, _: Any) -> None:
    _report((root, next(number), total, name))


def _before(step: Any, look: Callable[[Any], Any]) -> None:
    inner = step.run

    def run(*args: Any) -> Any:
        if not step.skip:
            look(args[0])
        return inner(*args)

    step.run = run


def _after(step: Any, change: Callable[[Any], Any]) -> None:
    inner = step.run

    def run(*args: Any) -> Any:
        result = inner(*args)
        if not step.skip:
            change(result)
        return result

    step.run = run


def clear_known_flags(ramp: Any) -> None:
    """Take the flags of the mask in use off science pixels, in place; refpix needs those of reference pixels.

    dq_init also marks all groups of a DO_NOT_USE pixel, so that no slope would be fitted to it: a pixel that has
    recovered could never leave the mask.
    """
    from badpix import dq

    science = (ramp.pixeldq & dq.VALUE["REFERENCE_PIXEL"]) == 0
    ramp.pixeldq[science] = 0
    ramp.groupdq[:, :, science] &= ~dq.VALUE["DO_NOT_USE"] & 0xFF


# --- frames that the refpix step does not know -------------------------------------------------------------


def _know_small_detector(pipe: Any, parameters: Path) -> None:
    """Replace what the refpix step does, if the simulated detector is smaller than the real one of its name."""
    from badpix import detectors
    from badpix.simulation.files import make_recipe, read_parameters

    recipe = make_recipe(read_parameters(parameters))
    if recipe.detector != detectors.get(recipe.detector.name):
        pipe.refpix.process = lambda ramp: subtract_offsets(ramp, recipe, pipe.refpix.use_side_ref_pixels)


def subtract_offsets(ramp: Any, recipe: Any, sides: bool = True) -> Any:
    """Subtract the readout's offsets as seen by the frame's own reference pixels, in place; the ramp is returned."""
    import numpy as np

    from badpix.simulation.detector import make_scene, measure_drift
    from badpix.simulation.reduce import offsets_from_border

    scene = make_scene(recipe)
    reference = scene.reference.copy()
    if not sides:
        slow = (
            np.arange(reference.shape[0])[:, None]
            if abs(recipe.detector.fastaxis) == 1
            else np.arange(reference.shape[1])[None, :]
        )
        nslow = slow.size
        reference &= (slow < 4) | (slow >= nslow - 4)
    offsets = offsets_from_border(ramp.data[:, :, reference], reference, scene.amplifier, recipe.detector)
    for i, one in enumerate(offsets):
        ramp.data[i] -= measure_drift(scene, one, 0, recipe.shape[0])
    ramp.meta.cal_step.refpix = "COMPLETE"
    return ramp


def _save_without_sides(pipe: Any, ramp: Any, job: Job) -> None:
    """Save what refpix gives without the side reference pixels, beside the real result."""
    step, copy = pipe.refpix, ramp.copy()
    before, step.use_side_ref_pixels = step.use_side_ref_pixels, False
    result = step.process(copy)
    step.use_side_ref_pixels = before
    result.save(str(job.workdir / f"{job.root}_refpix_nosides.fits"))
    copy.close()


def trim_segments(path: Path, keep: int) -> None:
    """Keep the first segments of the optional results only, in place."""
    from stdatamodels.jwst import datamodels

    shorter = path.with_name(f"part-{path.name}")
    with datamodels.open(str(path)) as model:
        for name, value in list(model.to_flat_dict(include_arrays=True).items()):
            if getattr(value, "ndim", 0) == 4 and value.shape[1] > keep:
                setattr(model, name, value[:, :keep].copy())
        model.save(str(shorter))
    shorter.replace(path)


# --- the log ----------------------------------------------------------------------------------------------


@contextmanager
def _log_to(path: Path) -> Any:
    """The pipeline's log in a file, and nothing on the terminal."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    with suppress(ImportError):
        import crds.core.log  # noqa: F401 (it gives its logger a handler of its own)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(one.level, one.propagate, one.handlers) for one in loggers]
    for one in loggers:
        one.setLevel(logging.INFO)
        one.propagate, one.handlers = False, [handler]
    try:
        yield
    finally:
        for one, (level, propagate, handlers) in zip(loggers, before, strict=True):
            one.setLevel(level)
            one.propagate, one.handlers = propagate, handlers
        handler.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
