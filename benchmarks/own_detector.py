"""What happens to light on a detector of :mod:`own_images`: the fixed pattern, particles, noise, and the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from own_images import (
    IPC,
    Field,
    Image,
    Pointing,
    draw_sky,
    make_pointing,
    make_psf,
    paint_diffuse,
    paint_stars,
    unproject,
)
from scipy.ndimage import convolve, map_coordinates, spline_filter

FULL_WELL, LATE = 300.0, 60.0  # MJy/sr: pixels without any group, and with early groups alone
DNU, SATURATED, JUMP, DEAD = 1, 2, 4, 1024


def make_pattern(rng: np.random.Generator, field: Field) -> dict[str, Any]:
    """What the detector keeps from exposure to exposure."""
    n = field.size
    dead = rng.random((n, n)) < 0.003
    for y, x in rng.integers(0, n - 4, (n * n // 9000, 2)):
        dead[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = True
    hot = np.where(rng.random((n, n)) < field.hot / 1e6, np.exp(rng.uniform(np.log(5), np.log(300), (n, n))), 0)
    return {
        "dead": dead,
        "hot": np.where(dead, 0, hot) * field.sigma,
        "noisy": rng.random((n, n)) < 60e-6,
        "read": field.read * np.exp(rng.normal(0, 0.08, (n, n))),
        "flat": 1
        + rng.normal(0, 0.004, (n, n))
        + 0.004 * np.sin(np.arange(n) / 70)[:, None] * np.cos(np.arange(n) / 90),
    }


def draw_particles(rng: np.random.Generator, field: Field) -> Image:
    """Charge of tracks through the detector's depth, in sigma of the sky."""
    n = field.size
    out = np.zeros((n, n))
    for _ in range(rng.poisson(field.particles * n * n / 1e6)):
        slant, angle = np.arccos(np.sqrt(rng.random())), rng.uniform(0, 2 * np.pi)
        length = min(0.5 * np.tan(slant), 40.0)
        at = np.arange(0.05, length + 0.1, 0.1)
        x, y = rng.uniform(0, n) + at * np.cos(angle), rng.uniform(0, n) + at * np.sin(angle)
        charge = min(5 + 12 * rng.pareto(0.9), 2500) * (0.4 + length) / len(at) * rng.lognormal(0, 0.35, len(at))
        lobes = 12  # electrons diffuse about the path
        x, y = (np.rint(v[:, None] + rng.normal(0, 0.25, (len(at), lobes))).astype(int) for v in (x, y))
        keep = (x >= 0) & (x < n) & (y >= 0) & (y < n)
        np.add.at(out, (y[keep], x[keep]), np.repeat(charge[:, None] / lobes, lobes, 1)[keep])
    return np.asarray(convolve(out, IPC, mode="constant"))


def draw_halos(rng: np.random.Generator, field: Field) -> tuple[Image, Any]:
    """Halos of snowballs and showers (sigma), and their cores, which are lost."""
    n = field.size
    out, core = np.zeros((n, n)), np.zeros((n, n), bool)
    y, x = np.ogrid[:n, :n]
    for k in range(rng.poisson(field.snowballs * n * n / 1e6)):
        y0, x0, size, height = *rng.uniform(0, n, 2), rng.uniform(3, 7), rng.uniform(1, 3)
        if k % 4 == 3:  # a shower: wide, elongated, without a core
            angle, long = rng.uniform(0, np.pi), rng.uniform(12, 25)
            u = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
            v = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
            out += height * np.exp(-0.5 * ((u / long) ** 2 + (v / (0.5 * long)) ** 2))
            continue
        r = np.hypot(y - y0, x - x0)
        core |= r < size
        out += height * np.exp(-np.maximum(r - 2.2 * size, 0) / (0.5 * size))
        out += 300 * np.exp(-((r / size) ** 4))
    return np.where(out > 0.02, out, 0), core


def draw_trail(rng: np.random.Generator, field: Field) -> Image:
    """A trail across the frame whose light varies slowly, sigma."""
    n = field.size
    angle, (y0, x0) = rng.uniform(0, np.pi), rng.uniform(0.35, 0.65, 2) * n
    y, x = np.mgrid[:n, :n]
    along, aside = (
        (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle),
        (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle),
    )
    out = field.trail[0] * (1 + 0.2 * np.sin(along / 37)) * np.exp(-0.5 * (aside / (field.trail[1] / 2.3548)) ** 2)
    return np.where(out > 0.05, out, 0)


def draw_pink(rng: np.random.Generator, field: Field) -> Image:
    """1/f noise in the order of reading by four amplifiers, sigma."""
    n, wide = field.size, field.size // 4 + 12
    k = np.fft.rfftfreq(n * wide)
    k[0] = k[1]
    line = np.fft.irfft(np.fft.rfft(rng.normal(size=n * wide)) * k**-0.5, n * wide).reshape(n, wide)[:, : n // 4]
    out = np.concatenate([line, line[:, ::-1], line, line[:, ::-1]], axis=1)  # all are read at once
    return np.asarray((out - out.mean()) / out.std() * field.pink)


def expose(
    rng: np.random.Generator, light: Image, changing: Image, pattern: dict[str, Any], field: Field, number: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of a `_cal` file, and the truth (what was added, in sigma of the pixel)."""
    n = field.size
    y, x = np.mgrid[:n, :n] / n - 0.5
    slope = field.gradient * field.sky * rng.normal(size=3)
    sky = field.sky * (1 + field.unmatched * rng.normal()) + slope[0] * x + slope[1] * y + slope[2] * 2 * x * y
    scene = (light + sky) * pattern["flat"]
    variance = pattern["read"] ** 2 + np.maximum(scene, 0) / field.photons
    late = scene > LATE
    noise = np.sqrt(variance) * np.where(late, 1.5, 1) * np.where(pattern["noisy"], 6, 1)
    hits = draw_particles(rng, field) * field.sigma
    if field.spoiled and number == 0:
        hits += np.where(rng.random((n, n)) < field.spoiled, rng.uniform(10, 100, (n, n)), 0) * field.sigma
    halo, core = draw_halos(rng, field)
    trail = draw_trail(rng, field) if number == 1 and field.trail[0] else np.zeros((n, n))
    hot = convolve(pattern["hot"] * (1 + rng.normal(0, 0.02, (n, n))), IPC, mode="constant")
    added = hits + (halo + trail) * field.sigma + hot + changing * pattern["flat"]
    sci = scene + added + rng.normal(0, 1, (n, n)) * np.sqrt(noise**2 + added / field.photons)
    sci += draw_pink(rng, field) * field.sigma
    lost = (scene + changing > FULL_WELL) | core
    lost = lost | (convolve(lost.astype(int), np.ones((3, 3), int)) >= 4)  # charge spills over
    dq = np.where(lost, SATURATED | DNU, 0).astype("u4") | np.where(late, SATURATED, 0).astype("u4")
    dq |= np.where(pattern["dead"], DEAD | DNU, 0).astype("u4") | np.where(hits > 5 * field.sigma, JUMP, 0).astype(
        "u4"
    )
    dq |= np.where(rng.random((n, n)) < 0.01, JUMP, 0).astype("u4")
    reference = (pattern["read"] * np.where(late, 1.5, 1)) ** 2
    poisson = np.maximum(sci, 0) / field.photons * np.where(late, 2.2, 1)
    factor = 1 + field.flux_error * rng.uniform(-1, 1)
    arrays = {"data": sci, "var_rnoise": reference, "var_poisson": poisson, "var_flat": (0.003 * sci) ** 2}
    arrays["err"] = np.sqrt(reference + poisson + arrays["var_flat"])
    if field.error_missing and number == 0:
        arrays["err"] = np.full((n, n), np.nan)
    for name, values in arrays.items():
        unit = (
            factor
            if name == "data"
            else factor * field.err_factor
            if name == "err"
            else (factor * field.err_factor) ** 2
        )
        arrays[name] = np.where(dq & DNU, np.nan, values * unit).astype("f4")
    truth = {"hits": hits / noise, "trail": trail * field.sigma / noise, "halo": halo * field.sigma / noise}
    truth |= {"hot": pattern["hot"] / noise, "near_hot": hot / noise, "changing": changing / noise}
    truth |= {"scene": scene, "light": light, "noise": noise, "noisy": pattern["noisy"]}
    return arrays | {"dq": dq}, {k: v.astype(bool if v.dtype == bool else "f4") for k, v in truth.items()}


# --- files ------------------------------------------------------------------------------------------------


def fill_meta(model: Any, field: Field, name: str, number: int) -> None:
    """Metadata that the pipeline's stage 3 asks for."""
    from astropy.time import Time
    from jwst.assign_wcs.util import update_s_region_imaging

    meta = model.meta
    meta.filename, meta.telescope = name, "JWST"
    meta.instrument.name, meta.instrument.filter = field.instrument, field.name
    if field.instrument == "NIRCAM":
        meta.instrument.detector, meta.instrument.channel, meta.instrument.module = "NRCB3", "SHORT", "B"
        meta.instrument.pupil, meta.exposure.type = "CLEAR", "NRC_IMAGE"
    else:
        meta.instrument.detector, meta.exposure.type = "MIRIMAGE", "MIR_IMAGE"
    o = meta.observation
    o.program_number, o.observation_number, o.visit_number = "04242", "003", "001"
    o.visit_group, o.sequence_id, o.activity_id, o.exposure_number = "02", "1", "01", str(number + 1)
    o.date, o.time = "2026-03-01", f"{number:02d}:10:00.000"
    start = Time(f"2026-03-01T{number:02d}:10:00").mjd
    e = meta.exposure
    e.start_time, e.mid_time, e.end_time = start, start + 0.004, start + 0.008
    e.exposure_time, e.effective_exposure_time, e.measurement_time, e.duration = 687.1, 687.1, 676.4, 690.0
    e.nints, e.ngroups, e.readpatt = 1, 8, "MEDIUM8"
    s = meta.subarray
    s.name, s.xstart, s.ystart, s.xsize, s.ysize, s.fastaxis, s.slowaxis = "FULL", 1, 1, field.size, field.size, -1, 2
    meta.photometry.pixelarea_steradians, meta.photometry.pixelarea_arcsecsq = (
        (field.scale / 206264.806) ** 2,
        field.scale**2,
    )
    meta.photometry.conversion_megajanskys, meta.bunit_data, meta.bunit_err = 2.1, "MJy/sr", "MJy/sr"
    for step in ("ramp_fit", "flat_field", "photom", "assign_wcs"):
        setattr(meta.cal_step, step, "COMPLETE")
    if not field.unmatched:
        meta.background.level, meta.background.subtracted = field.sky, False
        meta.cal_step.skymatch = "COMPLETE"
    ra, dec = meta.wcs((field.size - 1) / 2, (field.size - 1) / 2)
    w = meta.wcsinfo
    w.ctype1, w.ctype2, w.cunit1, w.cunit2, w.wcsaxes = "RA---TAN", "DEC--TAN", "deg", "deg", 2
    w.crpix1 = w.crpix2 = (field.size + 1) / 2
    w.crval1, w.crval2, w.cdelt1, w.cdelt2 = float(ra), float(dec), field.scale / 3600, field.scale / 3600
    update_s_region_imaging(model)


def make_images(folder: Path, field: Field, seed: int) -> Path:
    """Write a set of exposures, ``truth_N.npz`` and events beside them, and the association; gives its path."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, 16])
    psf = make_psf(rng, field)
    smooth, peak = spline_filter(psf, order=3), float(psf.max())
    sky = draw_sky(rng, field, peak)
    pattern = make_pattern(rng, field)
    members, seen, events = [], [], [{"places": [], "flux": e["flux"]} for e in sky.events]
    for number in range(len(field.dithers)):
        wrong = rng.normal(0, field.pointing_error, 2) if field.pointing_error else np.zeros(2)
        if number == len(field.dithers) - 1:
            wrong[0] += field.misplaced
        pointing: Pointing = make_pointing(field, number, (float(wrong[0]), float(wrong[1])))
        light = paint_stars(sky.stars, pointing, smooth, field)
        if sky.diffuse is not None:
            light += paint_diffuse(sky, pointing, smooth, field)
        now = [(e["place"] + e["rate"] * number, e) for e in sky.events if number in e["groups"]]
        changing = paint_stars(np.array([[*p, e["flux"]] for p, e in now]), pointing, smooth, field)
        for told, e in zip(events, sky.events, strict=True):
            if number in e["groups"]:
                told["places"].append([number, *unproject(*(e["place"] + e["rate"] * number))])
        own = np.random.default_rng([seed, 17, number])
        arrays, truth = expose(own, light, changing, pattern, field, number)
        model, name = pointing.model, f"jw04242003001_02101_{number + 1:05d}_nrcb3_cal.fits"
        for key, values in arrays.items():
            setattr(model, key, values)
        fill_meta(model, field, name, number)
        model.save(folder / name)
        x, y = pointing.to_pixel(sky.stars[:, 0], sky.stars[:, 1])
        np.savez(folder / f"truth_{number}.npz", stars=np.column_stack([x, y, sky.stars[:, 2]]), **truth)
        members.append({"expname": name, "exptype": "science"})
        seen.append(pointing)
    for number, pointing in enumerate(seen):
        others = [find_places(pointing, p, field) for p in seen if p is not pointing]
        np.save(folder / f"places_{number}.npy", others)
    (folder / "events.json").write_text(json.dumps(events))
    table = folder / "jw04242-o003_image3_asn.json"
    table.write_text(json.dumps(association("image3", "jw04242-o003_t001_own", members)))
    return table


def find_places(one: Pointing, other: Pointing, field: Field) -> Any:
    """In which pixel of another exposure each pixel lies (index of the flat array, -1 outside)."""
    n, step = field.size, 32
    row, col = np.meshgrid(np.arange(0, n + step, step), np.arange(0, n + step, step), indexing="ij")
    coarse = other.to_pixel(*one.to_sky(col.astype(float), row.astype(float)))
    at = np.mgrid[:n, :n] / step
    x, y = (np.rint(map_coordinates(v, at, order=3, mode="nearest")).astype(int) for v in coarse)
    return np.where((x >= 0) & (x < n) & (y >= 0) & (y < n), y * n + x, -1).astype("i4")


def association(kind: str, product: str, members: list[dict[str, str]]) -> dict[str, Any]:
    """A level-3 association."""
    return {
        "asn_type": kind,
        "asn_rule": "DMS_Level3_Base",
        "version_id": None,
        "code_version": "own",
        "degraded_status": "No known degraded exposures in association.",
        "program": "04242",
        "constraints": "none",
        "asn_id": "o003",
        "asn_pool": "own_pool",
        "products": [{"name": product, "members": members}],
    }
