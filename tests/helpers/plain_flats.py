"""The documented flats search written as plainly as possible, with astropy, holding everything in memory.

Independent of badpix: the tests compare whole maps with it, and the benchmark its time and memory. As a program:
``python plain_flats.py OUTPUT.npz RATE...``.
"""

import sys

import numpy as np
from astropy.convolution import Box2DKernel, convolve
from astropy.io import fits
from astropy.stats import sigma_clip


def find_documented(stack, border, *, dead_sigma=5.0, max_dead=0.05, max_low_qe=0.5, max_open_adj=1.05, width=15):
    """Maps of DEAD, LOW_QE, OPEN, ADJ_OPEN over the whole frame from a stack (n, ny, nx) of slope images."""
    left, right, bottom, top = border
    ny, nx = stack.shape[1:]
    science = (slice(bottom, ny - top), slice(left, nx - right))
    clipped = sigma_clip(stack.astype(np.float64), sigma=3, maxiters=5, axis=0, masked=False, copy=True)
    mean = np.nanmean(clipped, axis=0).astype(np.float32)[science]
    smooth = convolve(mean, Box2DKernel(width), boundary="fill", fill_value=np.nanmedian(mean))
    norm = mean / smooth
    good = sigma_clip(norm[np.isfinite(norm)].astype(np.float64), sigma=3, maxiters=5, masked=False)
    dead = norm < good.mean() - dead_sigma * good.std()
    maps = {name: np.zeros(norm.shape, bool) for name in ("LOW_QE", "OPEN", "ADJ_OPEN")}
    for y, x in np.argwhere((norm >= max_dead) & (norm < max_low_qe)):
        sides = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(a, b) for a, b in sides if 0 <= a < norm.shape[0] and 0 <= b < norm.shape[1]]
        is_open = all(norm[a, b] > max_open_adj for a, b in inside)
        maps["OPEN" if is_open else "LOW_QE"][y, x] = True
    for y, x in np.argwhere(maps["OPEN"]):
        maps["ADJ_OPEN"][max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    maps["ADJ_OPEN"] &= ~maps["OPEN"]
    whole = {}
    for name, found in {"DEAD": dead, **maps}.items():
        whole[name] = np.zeros((ny, nx), bool)
        whole[name][science] = found
    return whole


if __name__ == "__main__":
    images = np.array([fits.getdata(name, "SCI") for name in sys.argv[2:]])
    np.savez_compressed(sys.argv[1], **find_documented(images, (4, 4, 4, 4)))
