"""Simulated IFU exposures with known defects, as arrays; :mod:`badpix.simulation.ifu_files` writes them.

1. The detector is cut into slices (:mod:`badpix.simulation.ifu_optics`); the gaps between them hold NaN and
   DO_NOT_USE.
2. Each exposure looks at the same sky with its own dither, through the same fringes and errors of the flat field
   (:mod:`badpix.simulation.ifu_scene`).
3. Defects that the calibration does not know are put in (:mod:`badpix.simulation.ifu_defects`): in all exposures, in
   some of them, and cosmic rays in one.
4. The detector adds Poisson and read noise (ERR and VAR_* as the pipeline estimates them: from the noisy signal), and
   known bad pixels.

Truth comes with each exposure: amplitude (in units of the noise), kind (bits of
:data:`badpix.simulation.ifu_defects.KINDS`), and the light of the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.simulation.ifu_defects import KINDS, Defects, draw_persistent, draw_rays
from badpix.simulation.ifu_optics import DETECTORS, Optics, make_optics
from badpix.simulation.ifu_scene import Sky, look, make_response, make_scene

_SCALE = np.float32(0.35)  # MJy/sr of one unit of read noise


@dataclass(frozen=True)
class Exposure:
    """One simulated exposure of one detector, in the orientation of the file."""

    arrays: Mapping[str, NDArray[Any]]  # SCI, ERR, DQ, VAR_POISSON, VAR_RNOISE, VAR_FLAT
    amplitude: np.ndarray  # float32, sigma
    kind: np.ndarray  # uint8
    light: np.ndarray  # float32, of the sources alone, in the unit of SCI


def simulate(
    detector: str,
    exposures: int,
    seed: int,
    *,
    sky: Sky | None = None,
    defects: Defects | None = None,
    slices: bool = True,
    shape: tuple[int, int] | None = None,
) -> list[Exposure]:
    """Exposures of one detector.

    Parameters
    ----------
    detector : str
        A key of :data:`badpix.simulation.ifu_optics.DETECTORS`.
    exposures : int
        How many.
    seed : int
        Equal seeds give equal data.
    sky, defects : optional
        What is looked at, and what is wrong.
    slices : bool
        False: light everywhere, no gaps (a flat field of noise with ``FLAT``).
    shape : (int, int), optional
        Another size (dispersion, spatial), for tests.
    """
    sky, defects, det = sky or Sky(), defects or Defects(), DETECTORS[detector]
    rng = np.random.default_rng([seed, list(DETECTORS).index(detector)])
    optics = make_optics(det, shape or det.shape, slices)
    lines = round(sky.lines * optics.strip.shape[0] / det.shape[0])
    scene = make_scene(rng, replace(sky, lines=lines), optics)
    response = make_response(rng, sky, optics)
    known = rng.random(optics.strip.shape) < defects.known
    persistent, sort, on = draw_persistent(rng, defects, optics.strip.shape, exposures)
    out = []
    for i in range(exposures):
        light = look(scene, optics, sky, i, exposures) * response
        amplitude = np.where(on[i], persistent, np.float32(0))
        kind = np.where(on[i] | (sort == 0), sort, np.uint8(KINDS["off_here"]))
        kind |= draw_rays(rng, defects, amplitude)
        sources = look(replace(scene, background=np.zeros_like(scene.background)), optics, sky, i, exposures)
        out.append(_expose(rng, light, sources, amplitude, kind, optics, known, sky.poisson, det.transposed))
    return out


def _expose(
    rng: np.random.Generator,
    light: NDArray[Any],
    sources: NDArray[Any],
    amplitude: NDArray[Any],
    kind: NDArray[Any],
    optics: Optics,
    known: NDArray[Any],
    per_light: float,
    transposed: bool,
) -> Exposure:
    lit = optics.strip > 0
    noise = np.sqrt(1 + per_light * light)
    signal = light + noise * (rng.standard_normal(light.shape, dtype="f4") + amplitude)
    poisson = per_light * np.maximum(signal, 0)
    arrays = {
        "SCI": signal * _SCALE,
        "ERR": np.sqrt(1 + poisson + (0.003 * signal) ** 2) * _SCALE,
        "VAR_POISSON": poisson * _SCALE**2,
        "VAR_RNOISE": np.full_like(signal, _SCALE**2),
        "VAR_FLAT": (0.003 * signal * _SCALE) ** 2,
    }
    for values in arrays.values():
        values[~lit | known] = np.nan
    flags = np.zeros(light.shape, "u4")
    flags[~lit] = dq.VALUE["DO_NOT_USE"] | dq.VALUE["NON_SCIENCE"]
    flags[known & lit] = dq.VALUE["DO_NOT_USE"] | dq.VALUE["HOT"]
    arrays["DQ"] = flags
    kind = kind | np.where(lit, KINDS["in_slice"], 0).astype("u1")
    if transposed:
        arrays = {name: np.ascontiguousarray(a.T) for name, a in arrays.items()}
        amplitude, kind, sources = amplitude.T.copy(), kind.T.copy(), sources.T.copy()
    arrays = {n: a if n == "DQ" else a.astype("f4") for n, a in arrays.items()}
    return Exposure(arrays, amplitude, kind, (sources * _SCALE).astype("f4"))
