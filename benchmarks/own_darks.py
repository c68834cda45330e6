"""Darks of an own generator, for proofs: no line of it comes from the package's simulation.

Ramps of one window of a detector: pixels of unequal read noise, Poisson dark current, resets, 1/f noise along rows,
inter-pixel capacitance, particles; conditions change one thing each (:data:`CONDITIONS`). Isolated defects of known
kind and strength stand on a grid. Jumps, slopes and pedestals are those of the jump step and ramp fit of ``jwst``.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("CRDS_SERVER_URL", "http://localhost:1")
os.environ.setdefault("STPIPE_DISABLE_CRDS_STEPPARS", "true")

import numpy as np
from astropy.io import fits

GRID = 6  # rows and columns between defects


@dataclass(frozen=True)
class Facts:
    """A detector: gain (e/DN), read noise of a frame (DN), dark current (e/s), capacitance, frame time (s), words."""

    instrument: str
    gain: float
    noise: float
    dark: float
    ipc: float
    frame_time: float
    subarray: str
    pattern: str
    exp_type: str


FACTS = {
    "NRCB1": Facts("NIRCAM", 2.05, 5.3, 0.003, 0.0055, 10.73677, "SUB640", "RAPID", "NRC_DARK"),
    "MIRIMAGE": Facts("MIRI", 3.6, 6.0, 0.2, 0.0154, 2.77504, "SUB256", "FASTR1", "MIR_DARKIMG"),
    "NRS1": Facts("NIRSPEC", 1.05, 9.0, 0.01, 0.006, 10.73676, "ALLSLITS", "NRSRAPID", "NRS_DARK"),
}
CONDITIONS = {
    "plain": {},
    "tails": {"tails": 10},  # Student t with 10 degrees of freedom instead of Gaussian read noise
    "glow": {"glow": 0.6},  # e/s at a corner, falling over 120 pixels
    "outputs": {"outputs": (0.8, 0.9, 1.1, 1.4)},  # read noise by column of four
    "averaged": {"frames": 4},  # frames averaged to a group
    "storm": {"rate": 25.0},  # particles a second and cm2
}


def draw_defects(levels: dict[str, list[float]], shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Kind, strength and details of the defects: RC settles in 1 to 12 groups, telegraph stays for 2.5 to 15
    groups in a state, both evenly in the logarithm."""
    y, x = np.meshgrid(np.arange(4, shape[0] - 4, GRID), np.arange(4, shape[1] - 5, GRID), indexing="ij")
    x = x + np.arange(len(y))[:, None] % 2  # all four columns of which each may have an output of its own
    cells = [(kind, level) for kind, some in levels.items() for level in some]
    order = rng.permutation(np.arange(y.size) % len(cells))
    out = np.empty(
        y.size,
        [("kind", "U12"), ("level", "f8"), ("y", "i4"), ("x", "i4"), ("sign", "i4"), ("a", "f8"), ("b", "f8")],
    )
    out["kind"], out["level"] = [cells[k][0] for k in order], [cells[k][1] for k in order]
    out["y"], out["x"], out["sign"] = y.ravel(), x.ravel(), rng.choice([-1, 1], y.size)
    decay = np.exp(rng.uniform(0, np.log(12), y.size))
    low, high = np.exp(rng.uniform(np.log(2.5), np.log(15), (2, y.size)))
    out["a"] = np.where(out["kind"] == "rc", decay, low)
    out["b"] = high
    return out


def make_ramps(
    facts: Facts,
    defects: np.ndarray,
    noise: np.ndarray,
    groups: int,
    rng: np.random.Generator,
    *,
    frames: int = 1,
    tails: float = 0,
    glow: float = 0,
    rate: float = 5.0,
    outputs: tuple[float, ...] = (),
) -> np.ndarray:
    """Corrected ramps of one integration, (groups, ny, nx) DN; ``noise`` (ny, nx) is that of one frame, DN."""
    ny, nx = noise.shape
    current = np.full((ny, nx), facts.dark)
    if glow:
        current += glow * np.exp(-np.hypot(*np.mgrid[:ny, :nx]) / 120)
    of = {k: defects[defects["kind"] == k] for k in ("hot", "rc", "telegraph", "noisy", "low_pedestal")}
    at = {k: (d["y"], d["x"]) for k, d in of.items()}
    current[at["hot"]] += of["hot"]["level"] * facts.gain
    noise = noise.copy()
    noise[at["noisy"]] *= of["noisy"]["level"]
    if outputs:
        noise *= np.asarray(outputs)[np.arange(nx) % 4]
    steps = rng.poisson(np.broadcast_to(current * facts.frame_time, (groups * frames, ny, nx))).astype(np.float32)
    add_particles(steps, facts, rate, rng)
    charge = np.cumsum(steps, axis=0, dtype=np.float32)
    state = rng.random(len(of["telegraph"])) < of["telegraph"]["b"] / (of["telegraph"]["a"] + of["telegraph"]["b"])
    for f in range(groups * frames):
        if f % frames == 0:
            leave = np.where(state, 1 / of["telegraph"]["b"], 1 / of["telegraph"]["a"])
            charge[f : f + frames, at["telegraph"][0], at["telegraph"][1]] += (
                state * of["telegraph"]["level"] * facts.gain
            )
            state ^= rng.random(len(state)) < leave
        elapsed = (f + 1) / frames
        d = of["rc"]
        charge[f, d["y"], d["x"]] += d["sign"] * d["level"] * facts.gain * (1 - np.exp(-elapsed / d["a"]))
    mixed = charge * (1 - 4 * facts.ipc)
    for axis, shift in ((1, 1), (1, -1), (2, 1), (2, -1)):
        mixed += np.float32(facts.ipc) * np.roll(charge, shift, axis)
    out = mixed / np.float32(facts.gain)
    white = (
        rng.standard_t(tails, out.shape) / np.sqrt(tails / (tails - 2)) if tails else rng.standard_normal(out.shape)
    )
    out += (white * noise).astype(np.float32)
    out += pink(groups * frames * ny, rng).reshape(groups * frames, ny, 1) * np.float32(0.05 * facts.noise)
    out = out.reshape(groups, frames, ny, nx).mean(axis=1)
    out += rng.normal(0, 10, (ny, nx)).astype(np.float32)  # reset noise
    out[:, at["low_pedestal"][0], at["low_pedestal"][1]] -= of["low_pedestal"]["level"].astype(np.float32)
    return out.astype(np.float32)


def pink(n: int, rng: np.random.Generator) -> np.ndarray:
    """1/f noise of scatter 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n)) / np.sqrt(np.maximum(np.arange(n // 2 + 1), 1))
    wave = np.fft.irfft(spectrum, n)
    return (wave / wave.std()).astype(np.float32)


def add_particles(steps: np.ndarray, facts: Facts, rate: float, rng: np.random.Generator) -> None:
    """Hits of one to three pixels in a row, in place."""
    frames, ny, nx = steps.shape
    size = 25e-4 if facts.instrument == "MIRI" else 18e-4
    n = rng.poisson(rate * ny * nx * size**2 * frames * facts.frame_time)
    f, y, x = (rng.integers(0, k, n) for k in steps.shape)
    charge = 10 ** rng.normal(2.7, 0.45, n)
    for k in range(3):
        on = rng.random(n) < (1.0, 0.5, 0.2)[k]
        inside = on & (x + k < nx)
        np.add.at(steps, (f[inside], y[inside], x[inside] + k), charge[inside] * 0.5**k)


# --- the pipeline's part ---------------------------------------------------------------------------------


def write_references(folder: Path, facts: Facts, noise: np.ndarray, detector: str) -> dict[str, Path]:
    """Gain and read noise (of a pair of frames), as files."""
    from stdatamodels.jwst import datamodels

    folder.mkdir(parents=True, exist_ok=True)
    images = {
        "gain": (datamodels.GainModel, np.full(noise.shape, facts.gain, np.float32)),
        "readnoise": (datamodels.ReadnoiseModel, (noise * np.sqrt(2)).astype(np.float32)),
    }
    out = {}
    for name, (model, image) in images.items():
        one = model(data=image)
        describe(one, facts, detector, noise.shape)
        one.meta.reftype, one.meta.pedigree, one.meta.author = name, "SIMULATION", "own"
        one.meta.useafter, one.meta.description = "2020-01-01T00:00:00", "own generator"
        out[name] = folder / f"{name}.fits"
        one.save(str(out[name]))
    return out


def describe(model: Any, facts: Facts, detector: str, shape: tuple[int, int]) -> None:
    """What all files say of the detector."""
    model.meta.instrument.name, model.meta.instrument.detector = facts.instrument, detector
    model.meta.telescope = "JWST"
    model.meta.subarray.name = facts.subarray
    model.meta.subarray.xstart = model.meta.subarray.ystart = 401
    model.meta.subarray.xsize, model.meta.subarray.ysize = shape[1], shape[0]
    model.meta.subarray.fastaxis, model.meta.subarray.slowaxis = 1, 2


def reduce(
    ramp: np.ndarray,
    facts: Facts,
    detector: str,
    references: dict[str, Path],
    root: Path,
    frames: int,
    day: int,
    fast: bool = False,
    *,
    flags: np.ndarray | None = None,
    skipped: int = 0,
    steps: dict[str, str] | None = None,
) -> Any:
    """Jump step and ramp fit of one exposure (integrations, groups, ny, nx): rateints, jump and fitopt files.

    ``fast``: nothing is written, and the rates come back, (integrations, ny, nx) DN/s. ``flags``: GROUPDQ before the
    jump step; ``skipped`` frames between groups; ``steps`` that were done before, by their names.
    """
    from jwst.jump import JumpStep
    from jwst.ramp_fitting import RampFitStep
    from stdatamodels.jwst import datamodels
    from stpipe import crds_client

    crds_client.get_context_used = lambda observatory: "N/A"
    for name in ("stpipe", "jwst", "stcal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    nints, groups, ny, nx = ramp.shape
    model = datamodels.RampModel(data=ramp.astype(np.float32))
    model.groupdq = np.zeros(ramp.shape, np.uint8) if flags is None else flags
    model.pixeldq = np.zeros((ny, nx), np.uint32)
    describe(model, facts, detector, (ny, nx))
    e = model.meta.exposure
    e.type, e.readpatt, e.nframes, e.groupgap = facts.exp_type, facts.pattern, frames, skipped
    e.ngroups, e.nints, e.frame_time, e.group_time = (
        groups,
        nints,
        facts.frame_time,
        facts.frame_time * (frames + skipped),
    )
    e.integration_start, e.integration_end, e.drop_frames1 = 1, nints, 0
    model.meta.observation.date, model.meta.observation.time = f"2026-01-{day:02d}", "00:00:00"
    model.meta.filename = f"{root.name}_uncal.fits"
    for name, state in (steps or {}).items():
        setattr(model.meta.cal_step, name, state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step_class in (JumpStep, RampFitStep):
            step = step_class()
            for reftype in step.reference_file_types:
                setattr(step, f"override_{reftype}", str(references.get(reftype, "N/A")))
            if step_class is JumpStep:
                model = step.run(model)
                if not fast:
                    model.save(str(root) + "_jump.fits")
            elif fast:
                return step.run(model)[1].data
            else:
                step.save_opt, step.output_dir, step.opt_name = True, str(root.parent), root.name
                step.run(model)[1].save(str(root) + "_rateints.fits")
    trim(root.parent / f"{root.name}_fitopt.fits")
    return Path(str(root) + "_rateints.fits")


def trim(path: Path) -> None:
    """Three segments of the optional products are enough."""
    with fits.open(path) as hdus:
        for hdu in hdus[1:]:
            if getattr(hdu, "data", None) is not None and np.ndim(hdu.data) == 4:
                hdu.data = hdu.data[:, :3].copy()
        hdus.writeto(path.with_suffix(".part"), overwrite=True)
    path.with_suffix(".part").replace(path)


def make_set(
    folder: Path,
    detector: str,
    levels: dict[str, list[float]],
    seed: int,
    *,
    darks: int = 5,
    groups: int = 40,
    size: int = 512,
    condition: str = "plain",
) -> tuple[list[Path], np.ndarray]:
    """One set of darks with defects: rateints files (jump and fitopt beside them) and the table of defects."""
    facts, what = FACTS[detector], dict(CONDITIONS[condition])
    rng = np.random.default_rng(seed)
    defects = draw_defects(levels, (size, size), rng)
    noise = facts.noise * np.exp(rng.normal(0, 0.12, (size, size)))
    frames = what.get("frames", 1)
    references = write_references(folder, facts, noise, detector)
    rates = []
    for k in range(darks):
        ramp = make_ramps(facts, defects, noise, groups, rng, **what)
        rates.append(reduce(ramp[None], facts, detector, references, folder / f"d{k}", frames, k + 1))
    return rates, defects
