"""The real pipeline's first-stage steps on simulated uncal files, offline.

Every reference file is given as an override, so no server and no cache is needed. Steps, in the pipeline's order:
dq_init, saturation, superbias (near infrared), refpix, first and last frame (MIRI), linearity, jump, ramp_fit.
The refpix step knows real frames and windows of them; on a small detector (``badpix simulate --size``) the offsets
come from its reference pixels by :func:`badpix.simulation.reduce.offsets_from_border` instead.

As a program: ``python tests/helpers/reduce.py DIR`` reduces every uncal file that `badpix simulate DIR` wrote and
puts rate, rateints, jump and fitopt beside it (flats: rate only). The parameters come from
``DIR/<detector>_simulate.yml``.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("CRDS_SERVER_URL", "http://localhost:1")  # nothing answers there: overrides alone count
os.environ.setdefault("STPIPE_DISABLE_CRDS_STEPPARS", "true")

from badpix import detectors
from badpix.simulation.detector import measure_drift
from badpix.simulation.recipe import Recipe
from badpix.simulation.reduce import offsets_from_border


def reduce_exposure(
    uncal: str | Path, references: Mapping[str, Path], recipe: Recipe, products: Sequence[str], **jump: Any
) -> dict[str, Path]:
    """Turn one uncal file into some of rate, rateints, jump, fitopt, beside it.

    Parameters
    ----------
    uncal : path
        From `badpix simulate`.
    references : mapping
        Reference type -> file, from :func:`badpix.simulation.reference_files.write_reference_files`.
    recipe : Recipe
        What was simulated.
    products : sequence of str
        What to keep.
    **jump
        Parameters of the jump step.

    Returns
    -------
    dict
        Product -> file.
    """
    from jwst.jump import JumpStep
    from jwst.ramp_fitting import RampFitStep
    from stpipe import crds_client

    crds_client.get_context_used = lambda observatory: "N/A"  # the only question left to the server
    logging.getLogger("stpipe").setLevel(logging.WARNING)
    logging.getLogger("jwst").setLevel(logging.WARNING)
    uncal = Path(uncal)
    paths = {name: uncal.with_name(uncal.name.replace("_uncal", f"_{name}")) for name in products}
    with warnings.catch_warnings(), quick_collections():
        warnings.simplefilter("ignore")  # the pipeline's own affairs
        ramp = calibrate(uncal, references, recipe)
        ramp = run(JumpStep, ramp, references, **jump)
        if "jump" in paths:
            ramp.save(str(paths["jump"]))
        step = RampFitStep()
        step.save_opt = "fitopt" in paths
        step.output_dir = str(uncal.parent)
        step.opt_name = uncal.name.replace("_uncal", "")
        override(step, references)
        rate, rateints = step.run(ramp)
        for name, model in (("rate", rate), ("rateints", rateints)):
            if name in paths:
                model.save(str(paths[name]))
    if "fitopt" in paths:
        trim_segments(paths["fitopt"])
    return paths


@contextmanager
def quick_collections() -> Iterator[None]:
    """Each step ends with a full garbage collection, half of the time on small frames: what is imported by now is not
    looked through."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def trim_segments(path: Path, keep: int = 3) -> None:
    """Keep the first segments only: the most broken ramp decides their number, and 30 of them fill a disk."""
    from astropy.io import fits

    with fits.open(path) as hdus:
        for hdu in hdus[1:]:
            if isinstance(hdu, fits.ImageHDU) and hdu.data is not None and hdu.data.ndim == 4:
                hdu.data = hdu.data[:, :keep].copy()
        hdus.writeto(path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def calibrate(uncal: Path, references: Mapping[str, Path], recipe: Recipe) -> Any:
    """The ramps before the jump step."""
    from jwst.dq_init import DQInitStep
    from jwst.firstframe import FirstFrameStep
    from jwst.lastframe import LastFrameStep
    from jwst.linearity import LinearityStep
    from jwst.refpix import RefPixStep
    from jwst.saturation import SaturationStep
    from jwst.superbias import SuperBiasStep
    from stdatamodels.jwst import datamodels

    ramp = datamodels.RampModel(str(uncal))
    miri = recipe.detector.instrument == "MIRI"
    ramp = run(DQInitStep, ramp, references)
    ramp = run(SaturationStep, ramp, references)
    if miri:
        ramp = run(FirstFrameStep, ramp, references, skip=False)
        ramp = run(LastFrameStep, ramp, references, skip=False)
        ramp = run(LinearityStep, ramp, references)
    else:
        ramp = run(SuperBiasStep, ramp, references)
    if recipe.detector == detectors.get(recipe.detector.name):
        ramp = run(RefPixStep, ramp, references)
    else:
        subtract_offsets(ramp, recipe)
    return ramp if miri else run(LinearityStep, ramp, references)


def subtract_offsets(ramp: Any, recipe: Recipe) -> None:
    """Reference-pixel correction of frames that the refpix step does not know, in place."""
    from badpix.simulation.detector import make_scene

    scene = make_scene(recipe)
    border = ramp.data[:, :, scene.reference]
    offsets = offsets_from_border(border, scene.reference, scene.amplifier, recipe.detector)
    for i, one in enumerate(offsets):
        ramp.data[i] -= measure_drift(scene, one, 0, recipe.shape[0])


def run(step_class: Any, model: Any, references: Mapping[str, Path], **parameters: Any) -> Any:
    """Run one step with its reference files given."""
    step = step_class()
    override(step, references)
    for name, value in parameters.items():
        setattr(step, name, value)
    return step.run(model)


def override(step: Any, references: Mapping[str, Path]) -> None:
    """Give a step its reference files; those that it does not have are N/A."""
    for reftype in step.reference_file_types:
        setattr(step, f"override_{reftype}", str(references.get(reftype, "N/A")))


def main(folder: str) -> None:
    """Reduce all uncal files below a folder of `badpix simulate`."""
    from badpix.simulation.detector import make_scene
    from badpix.simulation.files import make_recipe, read_parameters
    from badpix.simulation.reference_files import write_reference_files

    (parameters,) = Path(folder).glob("*_simulate.yml")
    recipe = make_recipe(read_parameters(parameters))
    references = write_reference_files(Path(folder, "references"), make_scene(recipe), overwrite=True)
    for uncal in sorted(Path(folder).glob("*/*_uncal.fits")):
        products = ("rate",) if uncal.parent.name == "flats" else ("rate", "rateints", "jump", "fitopt")
        if not all(uncal.with_name(uncal.name.replace("_uncal", f"_{p}")).exists() for p in products):
            reduce_exposure(uncal, references, recipe, products)


if __name__ == "__main__":
    main(sys.argv[1])
