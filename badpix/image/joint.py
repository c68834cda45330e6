"""What all exposures of a set say together, after each of them has been searched.

1. :func:`decide_single_coverage`: where no other exposure looked, the stars of all exposures decide.
2. :func:`decide_cores`: on the cores of stars, the profile that all of them share (:mod:`badpix.image.cores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.image import audit as image_audit
from badpix.image.cores import Stamps, Verdict, decide_stamps
from badpix.image.members import Image
from badpix.image.plan import Found
from badpix.image.search import flags_name, read_flags
from badpix.image.seen_once import expected_width, filter_names, find_sharp, sharpness_limit
from badpix.image.stack import Shelf
from badpix.image.star_profile import REACH
from badpix.settings.image import ImageSettings, SourceSettings


def decide_single_coverage(
    images: Sequence[Image], found: Sequence[Found], shelf: Shelf, p: SourceSettings, scale: float
) -> float | None:
    """Step 11: one limit from the stars of all exposures, then the candidates of each."""
    if p.single_coverage != "sharpness":
        return None
    stars = [f.sharpness.stars for f in found if f.sharpness is not None]
    width = expected_width(filter_names(images[0].cal), scale)
    limit = sharpness_limit(np.concatenate(stars), width) if stars else None
    for image, item in zip(images, found, strict=True):
        item.counts["single_coverage"] = 0
        if limit is None or item.sharpness is None:
            continue
        sharp = find_sharp(item.sharpness, limit, image.cal.shape)
        number = int(np.count_nonzero(sharp))
        if number:
            flagged = read_flags(shelf, image.cal.shape, item.number) | sharp
            shelf.write(flags_name(item.number), np.packbits(flagged))
            item.counts["single_coverage"] = number
            item.counts["flagged"] += number
    return limit


def decide_cores(
    images: Sequence[Image], found: Sequence[Found], shelf: Shelf, p: ImageSettings, *, turned: bool
) -> None:
    """Step 12: flags on the cores of stars, by what stars look like; ``turned``: there are several roll angles."""
    stamps = [f.stamps for f in found if f.stamps is not None]
    if not p.core_snr or len(stamps) < len(found):
        return
    for item in found:
        item.counts |= {"core": 0, "core_taken_back": 0}
    verdicts = decide_stamps(stamps, core_snr=p.core_snr, level=not turned)
    for k, (image, item) in enumerate(zip(images, found, strict=True)):
        mine = [(v, n) for v in verdicts for n in np.flatnonzero(v.exposure == k)]
        if mine:
            flagged = read_flags(shelf, image.cal.shape, item.number)
            for verdict, n in mine:
                _apply_verdict(flagged, stamps[k], verdict, int(n), item, p)
            shelf.write(flags_name(item.number), np.packbits(flagged))
        item.stamps = None


def _apply_verdict(
    flagged: NDArray[Any], stamps: Stamps, verdict: Verdict, n: int, item: Found, p: ImageSettings
) -> None:
    """Change the flags of one stamp, the counts, and what the audit says of its star."""
    row = int(verdict.row[n])
    y, x = (int(v[row]) for v in (stamps.y, stamps.x))
    ny, nx = flagged.shape
    ys, xs = np.mgrid[y - REACH : y + REACH + 1, x - REACH : x + REACH + 1].reshape(2, -1)
    inside = (ys >= 0) & (ys < ny) & (xs >= 0) & (xs < nx)
    before, after = stamps.flagged[row], verdict.flagged[n]
    new, back = inside & after & ~before, inside & before & ~after
    added = int(np.count_nonzero(new & ~flagged[ys * inside, xs * inside]))
    taken = int(np.count_nonzero(back & flagged[ys * inside, xs * inside]))
    flagged[ys[new], xs[new]] = True
    flagged[ys[back], xs[back]] = False
    item.counts["core"] += added
    item.counts["core_taken_back"] += taken
    item.counts["flagged"] += added - taken
    if p.audit:
        place = float(x + stamps.place[row, 0]), float(y + stamps.place[row, 1])
        item.losses = image_audit.replace_loss(
            item.losses,
            int(stamps.source[row]),
            place,
            verdict.light[n],
            verdict.residual[n],
            after,
            others=int(stamps.others[row]),
            audit_loss=p.audit_loss,
        )
