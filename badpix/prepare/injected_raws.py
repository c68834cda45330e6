"""Raw ramps with artificial defects in good pixels: what ``badpix depth --through-pipeline`` gives the pipeline.

1. Good pixels on a grid get a kind and a strength (:func:`choose`), the same ones in all exposures.
2. Charge or noise is added to the raw ramps (:func:`write_injected`), as :func:`badpix.darks.injection.make_change`
   makes it; of a charge each side neighbor shows what inter-pixel capacitance gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix.darks import injection
from badpix.darks.injection import Readout, Traits
from badpix.errors import DataError
from badpix.io.fits import open_fits
from badpix.io.output import write_hdus
from badpix.numerics.ramp_fit import mean_first_group

Bool = NDArray[np.bool_]
Float = NDArray[np.float32]
Index = NDArray[np.intp]

SPACING = 8  # rows and columns between defects: the pipeline and the population see few of them


@dataclass(frozen=True)
class Chosen:
    """Who gets what: places, kind and strength of n pixels, what each keeps through all exposures, its noise (DN).

    ``rate`` is that of intermittent pixels in their hot darks, DN/s; ``ipc`` the part that each side neighbor shows.
    """

    y: Index
    x: Index
    kinds: tuple[str, ...]
    kind: Index
    strength: NDArray[np.float64]
    level: Index
    traits: Traits
    noise: Float
    rate: float
    ipc: float
    gain: float


def choose(
    good: Bool,
    strengths: dict[str, NDArray[np.float64]],
    noise: Float,
    *,
    exposures: int,
    most: int,
    rate: float,
    ipc: float,
    gain: float,
    seed: int,
) -> Chosen:
    """Chosen pixels of a frame.

    Parameters
    ----------
    good : ndarray
        (ny, nx) pixels that are good, with good neighbors.
    strengths : dict
        Kind -> its strengths.
    noise : ndarray
        (ny, nx) noise of a group, DN.
    exposures : int
        Number of darks.
    most : int
        Pixels at most.
    rate : float
        Of intermittent pixels in their hot darks, DN/s.
    ipc, gain : float
        Part of a charge that each side neighbor shows; e/DN.
    seed : int
        Of the round: another one takes other pixels.
    """
    rng = np.random.default_rng((seed, 3))
    grid = np.zeros_like(good)
    grid[int(rng.integers(1, SPACING)) : -1 : SPACING, int(rng.integers(1, SPACING)) : -1 : SPACING] = True
    y, x = np.nonzero(good & grid & np.isfinite(noise))
    if len(y) > most:
        some = np.sort(rng.choice(len(y), most, replace=False))
        y, x = y[some], x[some]
    kinds = tuple(strengths)
    cells = [(k, j) for k, name in enumerate(kinds) for j in range(len(strengths[name]))]
    which = rng.permutation(np.arange(len(y)) % len(cells))
    kind, level = (np.array([cell[k] for cell in cells], np.intp)[which] for k in (0, 1))
    strength = np.array([strengths[kinds[a]][b] for a, b in cells])[which]
    order = rng.permuted(np.tile(np.arange(exposures)[:, None], (1, len(y))), axis=0)
    blinks = order < np.rint(strength * exposures)
    traits = injection.draw_traits(blinks, rng)
    return Chosen(y, x, kinds, kind, strength, level, traits, noise[y, x].astype(np.float32), rate, ipc, gain)


def _read_count(raw: Path, header: fits.Header, keyword: str, least: int) -> int:
    """A keyword that counts frames; ``least`` where it is missing."""
    value = header.get(keyword) or least
    if not isinstance(value, int) or value < least:
        raise DataError(f"{raw}: keyword {keyword} = {value!r}, expected a whole number, {least} or more")
    return value


def write_injected(raw: Path, target: Path, chosen: Chosen, exposure: int, seed: int) -> None:
    """A copy of a raw file with the defects of all chosen pixels put into its ramps."""
    rng = np.random.default_rng((seed, exposure, 4))
    with open_fits(raw) as hdus:
        header = hdus[0].header
        averaged, skipped = _read_count(raw, header, "NFRAMES", 1), _read_count(raw, header, "GROUPGAP", 0)
        data = np.asarray(hdus["SCI"].data)
        nints, ngroups = data.shape[:2]
        readout = Readout(
            (0, ngroups),
            chosen.gain,
            float(header["TGROUP"]),
            mean_first_group(averaged, skipped),
            chosen.noise,
        )
        change = np.zeros((nints, ngroups, len(chosen.y)), np.float32)
        share = np.zeros(len(chosen.y), np.float32)
        for a, b in np.unique(np.stack([chosen.kind, chosen.level]), axis=1).T:
            at = np.flatnonzero((chosen.kind == a) & (chosen.level == b))
            name = chosen.kinds[a]
            level = chosen.rate if name == "intermittent" else float(chosen.strength[at[0]])
            size = (nints, ngroups, len(at))
            mine = chosen.traits.some(at), exposure, rng
            own = replace(readout, noise=chosen.noise[at])
            change[:, :, at] = injection.make_change(size, name, level, own, *mine)
            share[at] = chosen.ipc if name in injection.CHARGES else 0
        new = data.astype(np.float32)
        new[:, :, chosen.y, chosen.x] += change * (1 - 4 * share)
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            new[:, :, chosen.y + dy, chosen.x + dx] += change * share
        stored = np.clip(np.rint(new), 0, 65535).astype(np.uint16)
        made = [fits.ImageHDU(stored, hdu.header, name="SCI") if hdu.name == "SCI" else hdu.copy() for hdu in hdus]
        write_hdus(target, fits.HDUList(made))


def list_counts(
    chosen: Chosen, maps: dict[str, Bool], right: Sequence[tuple[str, ...]]
) -> list[tuple[int, int, int]]:
    """For each kind and strength: defects, those with a right type (``right``: types of each kind), with any type."""
    flagged = np.any([image[chosen.y, chosen.x] for image in maps.values()], axis=0)
    out = []
    for a, b in np.unique(np.stack([chosen.kind, chosen.level]), axis=1).T:
        mine = (chosen.kind == a) & (chosen.level == b)
        found = np.any([maps[t][chosen.y, chosen.x] for t in right[a] if t in maps], axis=0)
        out.append((int(mine.sum()), int((found & mine).sum()), int((flagged & mine).sum())))
    return out
