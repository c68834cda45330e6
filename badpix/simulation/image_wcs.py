"""Pointings of simulated images and their GWCS: detector -> V2V3 -> sky, as assign_wcs builds it.

1. Detector to V2V3: a cubic polynomial with its fitted inverse, or the step of a real file's GWCS; pixel scale,
   orientation and the place in the focal plane are then the real ones.
2. V2V3 to the sky: an attitude that puts the middle of the detectors on the target, moved by the dither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from badpix.errors import DataError, UsageError

if TYPE_CHECKING:
    from badpix.simulation.image_setup import Setup

ARCSEC = 1 / 3600.0
MIDDLE = (-80.0, -490.0)  # V2V3 of the invented detectors' middle, arcsec


@dataclass
class Pointing:
    """One detector of one group."""

    group: int
    detector: str
    wcs: Any
    roll: float
    v2v3: tuple[float, float]
    ref: tuple[float, float]
    parity: int = -1
    yang: float = -0.1  # degrees: V3I_YANG
    error: tuple[float, float] = (0.0, 0.0)  # pixels (x, y) by which sources lie beside what the GWCS says


class Optics(NamedTuple):
    """What a real file says: the chain from detector to V2V3, and at its middle scale, place and orientation."""

    chain: Any
    scale: float  # arcsec a pixel
    middle: tuple[float, float]  # V2V3, arcsec
    parity: int
    yang: float  # degrees


def read_optics(setup: Setup) -> Optics:
    """The optics in the ASDF file ``setup.distortion`` (``wcs``, or ``meta.wcs``).

    Raises
    ------
    DataError
        If it holds no GWCS with a step from two pixel axes to V2V3.
    UsageError
        With several detectors: one file is one detector.
    """
    import asdf

    if len(setup.detectors) != 1:
        raise UsageError(f"--distortion is for one detector, found {len(setup.detectors)} (another --scene?)")
    path = setup.distortion
    try:
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            wcs = file.tree.get("wcs", (file.tree.get("meta") or {}).get("wcs"))
        chain = wcs.get_transform(wcs.available_frames[0], "v2v3")
        chain.inverse  # noqa: B018 - raises where there is none
    except (OSError, ValueError, AttributeError, KeyError, NotImplementedError) as error:
        raise DataError(f"{path}: no readable GWCS with a step from the detector to v2v3: {error}") from None
    if (chain.n_inputs, chain.n_outputs) != (2, 2):
        raise DataError(
            f"{path}: {chain.n_inputs} inputs and {chain.n_outputs} outputs of the GWCS, expected an image"
        )
    return Optics(chain, *_measure_optics(chain, setup.shape))


def _measure_optics(chain: Any, shape: tuple[int, int]) -> tuple[float, tuple[float, float], int, float]:
    """Scale (arcsec), V2V3, parity and angle of the y axis (V3 over V2, degrees) at the middle of a detector."""
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    at, across, up = (np.array([float(v) for v in chain(x + i, y + j)]) for i, j in ((0, 0), (1, 0), (0, 1)))
    (a, c), (b, d) = across - at, up - at
    return (
        math.sqrt(abs(a * d - b * c)),
        (float(at[0]), float(at[1])),
        1 if a * d - b * c > 0 else -1,
        math.degrees(math.atan2(b, d)),
    )


def make_pointings(rng: np.random.Generator, setup: Setup, optics: Optics | None = None) -> list[Pointing]:
    """All detectors of all groups, each with its GWCS."""
    out = []
    at = MIDDLE if optics is None else optics.middle
    orientation = (-1, -0.1) if optics is None else (optics.parity, optics.yang)
    width = setup.shape[1] * setup.scale * 1.04
    for group in range(setup.groups):
        offset = rng.uniform(-setup.dither, setup.dither, 2) * setup.scale
        if setup.steps:
            offset = np.array(setup.steps[group % len(setup.steps)]) * setup.scale
        roll = 40.0 + group * setup.roll_step
        if setup.rolls:
            roll += setup.rolls[group % len(setup.rolls)]
        for i, detector in enumerate(setup.detectors):
            middle = (i - (len(setup.detectors) - 1) / 2) * width
            v2v3 = (at[0] + middle, at[1])
            chain = make_distortion(setup, v2v3) if optics is None else optics.chain.copy()
            wcs, ref = build_wcs(setup, chain, roll, (at[0] + offset[0], at[1] + offset[1]))
            beside = np.random.default_rng([setup.seed, 6000 + group]).normal(0, setup.pointing_error, 2)
            error = (float(beside[0]), float(beside[1]))
            out.append(Pointing(group, detector, wcs, roll, v2v3, ref, *orientation, error))
    return out


def build_wcs(setup: Setup, chain: Any, roll: float, aim: tuple[float, float]) -> tuple[Any, tuple[float, float]]:
    """The chain detector -> v2v3 -> world of one exposure, and the sky position of its reference pixel.

    Parameters
    ----------
    setup : Setup
    chain : astropy model
        Detector to V2V3 (arcsec).
    roll : float
        Roll of V3 at the target, degrees.
    aim : (float, float)
        V2V3 that looks at the target, arcsec.
    """
    import gwcs
    from astropy import coordinates, units
    from astropy.modeling.models import RotationSequence3D, Scale
    from gwcs import coordinate_frames as cf
    from gwcs.geometry import CartesianToSpherical, SphericalToCartesian

    detector = cf.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
    v2v3_frame = cf.Frame2D(
        name="v2v3", axes_order=(0, 1), axes_names=("v2", "v3"), unit=(units.arcsec, units.arcsec)
    )
    world = cf.CelestialFrame(name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg))
    angles = [-aim[0] * ARCSEC, aim[1] * ARCSEC, -roll, -setup.target[1], setup.target[0]]
    rotation = RotationSequence3D([-a for a in angles], axes_order="zyxyz")
    to_sky = (
        (Scale(ARCSEC) & Scale(ARCSEC))
        | SphericalToCartesian(wrap_lon_at=180)
        | rotation
        | CartesianToSpherical(wrap_lon_at=360)
    )
    to_sky.name = "v23tosky"
    chain.name = "distortion"
    ny, nx = setup.shape
    wcs = gwcs.WCS([(detector, chain), (v2v3_frame, to_sky), (world, None)])
    wcs.bounding_box = ((-0.5, nx - 0.5), (-0.5, ny - 0.5))
    wcs.array_shape = setup.shape
    ra, dec = wcs((nx - 1) / 2, (ny - 1) / 2)
    return wcs, (float(ra), float(dec))


def make_distortion(setup: Setup, v2v3: tuple[float, float]) -> Any:
    """Detector to V2V3 as a cubic polynomial with its fitted inverse; ``v2v3`` is the detector's middle, arcsec."""
    from astropy.modeling.models import Mapping, Polynomial2D, Shift

    ny, nx = setup.shape
    s, x0, y0 = setup.scale, (nx - 1) / 2, (ny - 1) / 2
    terms = {  # x runs against V2 (parity -1); terms of a NIRCam detector, in arcsec
        "x": {"c1_0": -s * 1.002, "c0_1": s * 8e-4, "c2_0": -1.2e-7, "c1_1": 7.4e-7, "c0_2": 1.0e-7, "c3_0": 3e-12},
        "y": {"c1_0": s * 6e-4, "c0_1": s * 1.004, "c2_0": 3.1e-7, "c1_1": -2.3e-7, "c0_2": 4.4e-7, "c0_3": 3e-12},
    }
    forward = [Polynomial2D(3, **terms[k]) for k in "xy"]
    u, v = np.meshgrid(np.linspace(-x0 - 5, x0 + 5, 41), np.linspace(-y0 - 5, y0 + 5, 41))
    fx, fy = forward[0](u, v), forward[1](u, v)
    inverse = [_fit_polynomial(fx / s, fy / s, target, 5, s) for target in (u, v)]
    split = Mapping((0, 1, 0, 1))
    chain = (Shift(-x0) & Shift(-y0)) | split | (forward[0] & forward[1]) | (Shift(v2v3[0]) & Shift(v2v3[1]))
    back = (Shift(-v2v3[0]) & Shift(-v2v3[1])) | split | (inverse[0] & inverse[1]) | (Shift(x0) & Shift(y0))
    chain.inverse = back
    return chain


def _fit_polynomial(x: NDArray[Any], y: NDArray[Any], values: NDArray[Any], degree: int, unit: float) -> Any:
    """Least-squares polynomial in x, y (given in pixels) for arguments in arcsec."""
    from astropy.modeling.models import Polynomial2D

    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    reach = max(np.abs(x).max(), np.abs(y).max())
    matrix = np.stack([(x / reach).ravel() ** i * (y / reach).ravel() ** j for i, j in powers], axis=1)
    solution = np.linalg.lstsq(matrix, values.ravel(), rcond=None)[0]
    scale = reach * unit
    return Polynomial2D(
        degree, **{f"c{i}_{j}": c / scale ** (i + j) for (i, j), c in zip(powers, solution, strict=True)}
    )


def count_cover(pointing: Pointing, pointings: Sequence[Pointing], setup: Setup) -> NDArray[Any]:
    """In how many other groups each pixel was observed, uint8 (ny, nx)."""
    ny, nx = setup.shape
    step = 8
    xs, ys = np.arange(0, nx + step, step, dtype=float), np.arange(0, ny + step, step, dtype=float)
    ra, dec = pointing.wcs(*np.meshgrid(xs, ys), with_bounding_box=False)
    seen: dict[int, NDArray[Any]] = {}
    yy, xx = np.mgrid[:ny, :nx]
    for other in pointings:
        if other.group == pointing.group:
            continue
        ox, oy = other.wcs.invert(ra, dec, with_bounding_box=False)
        full = [_bilinear(np.asarray(v), xx / step, yy / step) for v in (ox, oy)]
        inside = (full[0] > 0) & (full[0] < nx - 1) & (full[1] > 0) & (full[1] < ny - 1)
        seen[other.group] = seen.get(other.group, np.zeros((ny, nx), bool)) | inside
    out = np.zeros((ny, nx), np.uint8)
    for inside in seen.values():
        out += inside
    return out


def _bilinear(values: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    from scipy.ndimage import map_coordinates

    found: NDArray[Any] = map_coordinates(values, [y, x], order=1)
    return found
