"""What makes a simulated association of images hard, on the sky and on the detector.

On the sky: saturated stars, the clouds of a nebula, stars that shine in some exposures only, objects that move. On
the detector: stripes of 1/f noise, gradients of the sky that differ between exposures, halos of snowballs, noise that
is larger than ERR says, levels that don't agree. Each has a random stream of its own, so that a scene without it is
the same in every bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from badpix.simulation.image_setup import Setup

SATURATED_PEAK = 8.0  # of a saturated star, in units of the saturation
CLOUDS = 500  # a million pixels
CLOUD_SIZE = (2.5, 40.0)  # pixels
HALO_SIZE = (12.0, 30.0)  # radius of a snowball's halo, pixels
HALO_LEVEL = (1.0, 3.0)  # sigma a pixel
CENTRAL = 0.3  # of the shorter side of the field, within which saturated stars and transients lie


class Event(NamedTuple):
    """A star that shines in some groups only, or moves."""

    east: float  # arcsec from the target, in the first group
    north: float
    flux: float  # MJy/sr pixel
    peak: float  # sigma, about
    groups: tuple[int, ...]
    rate: tuple[float, float] = (0.0, 0.0)  # arcsec a group


def _stream(setup: Setup, number: int) -> np.random.Generator:
    return np.random.default_rng([setup.seed, 7000 + number])


def usual_sigma(setup: Setup) -> float:
    """Noise of a pixel on blank sky, MJy/sr."""
    return float(np.hypot(setup.read_noise, np.sqrt(setup.sky / setup.gain)))


# --- on the sky -------------------------------------------------------------------------------------------


def add_saturated(stars: NDArray[Any], psf_peak: float, setup: Setup) -> NDArray[Any]:
    """The stars (east, north, flux), and ``setup.saturated`` more that lose their cores in every exposure."""
    reach = CENTRAL * min(setup.shape) * setup.scale
    places = _stream(setup, 1).uniform(-reach, reach, (setup.saturated, 2))
    flux = np.full((setup.saturated, 1), SATURATED_PEAK * setup.saturation / psf_peak)
    return np.concatenate([stars, np.concatenate([places, flux], axis=1)])


def make_clouds(setup: Setup) -> NDArray[Any]:
    """Gaussian clouds [n, 4]: east, north (arcsec), peak (MJy/sr), size (pixels)."""
    if not setup.nebula:
        return np.empty((0, 4))
    rng = _stream(setup, 2)
    reach = (max(setup.shape) / 2 + setup.dither + 2 * CLOUD_SIZE[1]) * setup.scale
    n = rng.poisson(CLOUDS * (2 * reach / setup.scale) ** 2 / 1e6)
    smallest, largest = np.log(CLOUD_SIZE)
    size = np.exp(rng.uniform(float(smallest), float(largest), n))
    peak = setup.nebula * usual_sigma(setup) * rng.lognormal(0, 1, n)
    return np.stack([rng.uniform(-reach, reach, n), rng.uniform(-reach, reach, n), peak, size], axis=1)


def paint_clouds(shape: tuple[int, int], x: NDArray[Any], y: NDArray[Any], clouds: NDArray[Any]) -> NDArray[Any]:
    """The clouds at detector positions x, y (float64 image)."""
    image = np.zeros(shape)
    for px, py, (peak, size) in zip(x, y, clouds[:, 2:], strict=True):
        across = np.exp(-((np.arange(shape[1]) - px) ** 2) / (2 * size**2))
        image += peak * np.outer(np.exp(-((np.arange(shape[0]) - py) ** 2) / (2 * size**2)), across)
    return image


def make_events(psf_peak: float, setup: Setup) -> list[Event]:
    """``setup.transients`` and ``setup.movers`` at random places near the middle of the field."""
    rng = _stream(setup, 3)
    reach = CENTRAL * min(setup.shape) * setup.scale
    unit = usual_sigma(setup) / psf_peak
    out = []
    for peak, groups in setup.transients:
        east, north = rng.uniform(-reach, reach, 2)
        out.append(Event(float(east), float(north), peak * unit, peak, tuple(groups)))
    for peak, pixels in setup.movers:
        east, north = rng.uniform(-reach, reach, 2)
        angle = rng.uniform(0, 2 * np.pi)
        rate = pixels * setup.scale * np.array([np.cos(angle), np.sin(angle)])
        out.append(
            Event(float(east), float(north), peak * unit, peak, tuple(range(setup.groups)), (rate[0], rate[1]))
        )
    return out


def events_of(events: Sequence[Event], group: int) -> NDArray[Any]:
    """The stars (east, north, flux) that events add to one group."""
    rows = [(e.east + group * e.rate[0], e.north + group * e.rate[1], e.flux) for e in events if group in e.groups]
    return np.array(rows).reshape(-1, 3)


# --- on the detector --------------------------------------------------------------------------------------


def make_background(setup: Setup, number: int) -> NDArray[Any]:
    """Stripes (one level a row) and a gradient of the sky of one exposure, MJy/sr (ny, nx)."""
    rng = _stream(setup, 100 + number)
    ny, nx = setup.shape
    stripes = rng.normal(0, setup.stripes * usual_sigma(setup), (ny, 1)) if setup.stripes else np.zeros((ny, 1))
    slope = setup.gradient * setup.sky * rng.normal(size=2) if setup.gradient else (0.0, 0.0)
    gradient: NDArray[Any] = slope[0] * np.linspace(-0.5, 0.5, ny)[:, None] + slope[1] * np.linspace(-0.5, 0.5, nx)
    out: NDArray[Any] = stripes + gradient
    return out


def make_halos(setup: Setup, number: int) -> NDArray[Any]:
    """Halos of snowballs in one exposure, sigma (ny, nx): a flat disk that falls off over its outer half."""
    rng = _stream(setup, 5000 + number)
    ny, nx = setup.shape
    out = np.zeros(setup.shape)
    for _ in range(rng.poisson(setup.snowballs * ny * nx / 1e6)):
        y, x = rng.uniform(0, ny), rng.uniform(0, nx)
        radius, level = rng.uniform(*HALO_SIZE), rng.uniform(*HALO_LEVEL)
        distance = np.hypot(np.arange(ny)[:, None] - y, np.arange(nx) - x)
        out += level * np.clip(2 - 2 * distance / radius, 0, 1)
    return out


def spoil(arrays: dict[str, NDArray[Any]], setup: Setup, number: int) -> None:
    """Make ERR and the level of one exposure wrong, in place, as ``setup`` says."""
    rng = _stream(setup, 9000 + number)
    factor = np.float32(1 + setup.flux_error * rng.uniform(-1, 1))
    arrays["SCI"] *= factor
    arrays["ERR"] *= np.float32(setup.err_factor) * factor
    for name in ("VAR_POISSON", "VAR_RNOISE", "VAR_FLAT"):
        arrays[name] *= np.float32(setup.err_factor**2) * factor**2
