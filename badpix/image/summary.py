"""The summary of a run of the image search, and the notes that a user should not miss."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from badpix.image import audit as image_audit
from badpix.image.plan import Found
from badpix.io.associations import Association
from badpix.io.cal import CalFile
from badpix.settings.image import ImageSettings, SourceSettings

log = logging.getLogger(__name__)

SINGLE_SHARE = 0.01  # of the pixels, above which single coverage is a note
SHIFT_LIMIT = 0.1  # pixel; a larger common shift of the sharpening kernel means a wrong WCS


def summarize(
    association: Association,
    cals: Sequence[CalFile],
    groups: Sequence[str],
    found: Sequence[Found],
    counts: Sequence[dict[str, int]],
    facts: dict[str, Any],
    p: ImageSettings,
) -> dict[str, Any]:
    """The summary of a run, and the notes that a user should not miss."""
    hit_in: dict[int, int] = {}
    for item in found:
        for row in item.losses:
            hit_in[row.source] = hit_in.get(row.source, 0) + 1
    exposures, audit = [], []
    for cal, group, item, count in zip(cals, groups, found, counts, strict=True):
        pixels = cal.shape[0] * cal.shape[1]
        exposures.append(
            {
                "input": cal.path.name,
                "group": group,
                "pixels": pixels,
                "percent": round(100 * count["flagged"] / pixels, 4),
                **item.counts,
                **count,
                "noise_factors": item.noise_factors,
                "residual_sky": item.residual_sky,
                "sharpened": item.sharpened,
                "kernel_shift": item.shift,
                "sources": item.sources,
            }
        )
        for row, verdict in zip(item.losses, image_audit.judge(item.losses, hit_in), strict=True):
            ra, dec = facts["source_positions"][row.source]
            audit.append({"exposure": cal.path.name, "ra": ra, "dec": dec, **row._asdict(), "verdict": verdict})
    facts.pop("source_positions", None)
    _tell_transients(facts.get("transients", []), p)
    _warn(found, cals, audit, exposures, p)
    return {
        "search": p.test if p.resample_data else "documented, not resampled",
        "left_out": [str(m.path.name) for m in association.left_out],
        "exposures": exposures,
        "audit": audit,
        "cutouts": [(cal.path.name, c) for cal, item in zip(cals, found, strict=True) for c in item.cutouts],
        **facts,
    }


def _warn(
    found: Sequence[Found],
    cals: Sequence[CalFile],
    audit: Sequence[dict[str, Any]],
    exposures: Sequence[dict[str, Any]],
    p: ImageSettings,
) -> None:
    doubtful = [row for row in audit if row["verdict"] != "hit"]
    if doubtful:
        seen = sum(e["sources"] for e in exposures)
        log.warning(
            f"audit: {len(audit)} of {seen} source-exposures lost more than {p.audit_loss:.0%} of their flux "
            f"to flags; "
            f"{len(doubtful)} of them look like the source itself (suspect or repeated)"
        )
    blunt = [cal.path.name for cal, item in zip(cals, found, strict=True) if item.blunt]
    if blunt:
        log.warning(
            f"{len(blunt)} exposures have too few steep pixels to learn a sharpening kernel from ({blunt[0]})"
        )
    for cal, item in zip(cals, found, strict=True):
        if item.shift is not None and max(map(abs, item.shift)) > SHIFT_LIMIT:
            x, y = item.shift
            log.warning(f"{cal.path.name}: lies ({x:+.2f}, {y:+.2f}) pixel beside the others; check its WCS")
        if item.unusual:
            factors = ", ".join(f"{item.noise_factors[m - 1]:.2g}" for m in item.unusual)
            log.warning(
                f"{cal.path.name}: differs from the others by {factors} times the noise that ERR tells "
                f"(usual: 0.7 to 2): ERR is off, or the others are not as deep"
            )
    _tell_single_coverage(exposures, p)
    high = [e for e in exposures if e["percent"] > 5]
    if high:
        log.warning(f"{len(high)} exposures have more than 5 % of their pixels flagged (first: {high[0]['input']})")


def _tell_single_coverage(exposures: Sequence[dict[str, Any]], p: SourceSettings) -> None:
    """How much of the field no second exposure saw, and what was done there."""
    alone = sum(e.get("single_coverage_pixels", 0) for e in exposures)
    if not alone:
        return
    share = alone / sum(e["pixels"] for e in exposures)
    done = "not searched"
    if p.single_coverage == "sharpness":
        number = sum(e["single_coverage"] for e in exposures)
        done = f"only what is sharper than a star is found there ({number:,} pixels)"
    text = f"{share:.1%} of the pixels were seen by one group alone: {done}"
    log.log(logging.WARNING if share > SINGLE_SHARE else logging.INFO, text)


def _tell_transients(rows: Sequence[dict[str, Any]], p: SourceSettings) -> None:
    """That star-shaped objects in a minority of the exposures were flagged, or kept."""
    if not rows:
        return
    moving = sum(row["kind"] == "moving" for row in rows)
    done = "kept" if p.keep_transients else "flagged (--keep-transients spares them)"
    log.warning(
        f"{len(rows)} star-shaped objects above {p.transient_snr:g} sigma in a minority of the exposures, "
        f"{moving} of them moving: {done}"
    )
