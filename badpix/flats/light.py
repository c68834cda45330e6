"""The light of a flat taken out: as an imager sees it, or as a spectrograph disperses it.

1. *Mode*: the keywords of the exposure and ``configs/detectors.yml`` tell whether light is dispersed, and along which
   axis.
2. *Illumination*: smooth in all directions (:mod:`badpix.flats.illumination`) or along the dispersion
   (:mod:`badpix.flats.dispersed`).
3. *State* of each pixel (:mod:`badpix.flats.judged`): only lit ones are normalized.
4. *Coupling* between pixels is measured and taken out. Where light is steep that is done before it is divided out.
5. *Areas* that are dark or weak as a whole are told from clusters of defects (:mod:`badpix.flats.areas`).
6. *Errors* of the rates where they vary over the frame (:mod:`badpix.flats.steep`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.errors import DataError
from badpix.flats import areas, dispersed, judged, normalize, steep
from badpix.io.exposure import Exposure
from badpix.settings.flats import FlatCorrectionSettings, FlatSettings

LEVEL = 0.1  # difference between a pixel's light and its neighbors' where the coupling is measured

Float = NDArray[np.floating[Any]]


class Light(NamedTuple):
    """A flat without its light.

    Attributes
    ----------
    norm : ndarray of float32
        (ny, nx) normalized rate, NaN where a pixel can't be judged.
    state : ndarray of uint8
        (ny, nx) states of :mod:`badpix.flats.judged`.
    coupling : str
        What the interpixel coupling was taken as.
    steep : Steep or None
        Light, charge and errors of the pixels, where they vary over the frame.
    areas : list of Area
        Dark and weak areas.
    """

    norm: NDArray[np.float32]
    state: judged.State
    coupling: str
    steep: steep.Steep | None = None
    areas: list[areas.Area] = []  # noqa: RUF012 (never changed)


def choose_mode(rate: Exposure, p: FlatSettings) -> detectors.Mode:
    """How the light falls: as the parameters say, else by detector and keywords; imaged where all is documented."""
    told = detectors.find_mode(rate.detector, rate.header)
    plain = p.flat_mean_normalization_method != "smoothed" or p.smoothing_type != "Box2D"
    if p.illumination_model == "imager" or plain or p.smoothing_edges == "padded":
        return detectors.Mode("imager", None, rate.detector.min_judged)
    if p.illumination_model == "dispersed":
        axis = {"x": 1, "y": 0}.get(p.dispersion_axis, told.axis)
        if axis is None:
            raise DataError(f"{rate.path}: its keywords tell no dispersion; give dispersion_axis x or y")
        return detectors.Mode(told.name if told.axis == axis else "dispersed", axis, told.min_judged)
    return told


def normalize_light(mean: Float, p: FlatSettings, table_ipc: float, mode: detectors.Mode) -> Light:
    """The normalized flat without coupled charge.

    Parameters
    ----------
    mean : ndarray
        (ny, nx) mean rate, DN/s, NaN where not measured.
    p : FlatSettings
        Parameters.
    table_ipc : float
        The detector's coupling.
    mode : Mode
        How the light falls.
    """
    if mode.axis is not None:
        return _normalized_dispersed(mean, p, table_ipc, mode.axis)
    norm = normalize.measure_normalized(
        mean,
        method=p.flat_mean_normalization_method,
        smoothing=p.smoothing_type,
        width=p.smoothing_box_width,
        edges=p.smoothing_edges,
        sigma=p.flat_mean_sigma_threshold,
        mask_sigma=p.mask_sigma,
        iterations=p.mask_iterations,
    )
    state = judged.find_state_by_rate(mean, norm)
    if p.flat_mean_normalization_method == "smoothed" and p.min_light > 0:
        judged.mark_dim(mean, norm, state, p.min_light)
    if p.ipc_correction == "none" or p.flat_mean_normalization_method == "none":
        return Light(norm, state, f"{0:.4f}")
    rho, text = _coupling(norm, p, table_ipc)
    norm = normalize.correct_ipc(norm, rho)
    return Light(norm, state, text, areas=_judge_areas(mean, norm, state, p, rho))


def _judge_areas(
    mean: Float, norm: NDArray[np.float32], state: judged.State, p: FlatSettings, rho: float
) -> list[areas.Area]:
    """Areas of a frame, those that are steps of light judged by their own; in place."""
    if p.large_areas == "flag" or p.smoothing_edges == "padded":
        return []
    found = areas.judge_areas(mean, norm, state, most=p.max_cluster_pixels, min_light=p.min_light, rho=rho)
    return found + [a for a in areas.find_weak_areas(mean) if not any(areas.overlap(a, b) for b in found)]


def _normalized_dispersed(mean: Float, p: FlatSettings, table_ipc: float, axis: int) -> Light:
    """The same for light that is dispersed: coupled charge is taken out before the steep light is divided out."""
    light = dispersed.measure_light(mean, axis)
    state = judged.find_state(mean, light, p.min_light, axis)
    lit = state == judged.LIT
    rho, text = 0.0, f"{0:.4f}"
    if p.ipc_correction != "none":
        with np.errstate(invalid="ignore", divide="ignore"):
            level = np.abs(normalize.sum_sides(light) / (4 * light) - 1) < LEVEL
            rho, text = _coupling(np.where(lit & level, mean / light, np.float32(np.nan)), p, table_ipc)
    rate, own = normalize.correct_ipc_of_light(mean, light, rho)
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = rate / own
    norm[~lit | ~np.isfinite(norm)] = np.nan
    state[lit & ~np.isfinite(norm)] = judged.UNLIT
    return Light(norm, state, text, steep.measure_steep(norm, rate - own, own, light, axis))


def _coupling(norm: Float, p: FlatCorrectionSettings, table_ipc: float) -> tuple[float, str]:
    """The interpixel coupling: as given, as measured, or the detector's; and where it is from."""
    if p.ipc_correction == "given" and p.ipc_coupling is not None:
        return float(p.ipc_coupling), f"{p.ipc_coupling:.4f}, as given"
    bright = normalize.measure_ipc_of_bright(norm)
    rho = normalize.measure_ipc(norm, table_ipc if bright is None else bright)
    how = "measured on bright pixels" if rho == bright else "measured on dead pixels"
    return rho, f"{rho:.4f}, {'the constant of the detector' if rho == table_ipc else how}"
