"""What `badpix darks` finds in darks of an own generator (``harsh_darks.py``), reduced by the steps of jwst.

    python benchmarks/score_harsh_darks.py WORKDIR --seed 7001                  # all scenes, two processes
    python benchmarks/score_harsh_darks.py WORKDIR --seed 7001 tails "60"       # those whose names begin so
    python benchmarks/score_harsh_darks.py WORKDIR --seed 7001 --docs docs/darks-measured.md

256 x 256 pixels a scene, jump step and ramp fit with the steps' own parameters, ``badpix darks`` with its defaults.
False ones are good pixels with any flag, neighbors of defects included; pixels with 1.45 times the
read noise around them count neither as good nor as noisy. Telegraph pixels that switched less than
twice in all darks are not counted. Scores are kept in WORKDIR/scores_SEED.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import harsh_darks
import numpy as np
import own_darks
from astropy.io import fits
from click.testing import CliRunner
from docs_page import put_table
from harsh_darks import Scene
from scipy import ndimage
from score_conditions import table

from badpix import dq
from badpix.cli.main import badpix
from badpix.io import evidence_file

SINGLE, FOUR, EIGHT = (1, 0), (4, 1), (8, 2)  # frames averaged and skipped: RAPID, SHALLOW4, MEDIUM8


def depth(number: int, groups: int, frames: tuple[int, int] = SINGLE) -> tuple[tuple[int, int, int], ...]:
    """Darks of one depth."""
    return ((groups, *frames),) * number


SCENES = (
    Scene("60 groups", depth(5, 60), 74),
    Scene("60 groups, 10 darks", depth(10, 60), 74),
    Scene("20 groups", depth(5, 20), 74),
    Scene("MIRI, 50 groups", depth(5, 50), 74, instrument="MIRI"),
    Scene("tails, t(10)", depth(5, 60), 120, tails=10),
    Scene("tails, t(4)", depth(5, 60), 300, tails=4),
    Scene("4 frames a group, 20 groups", depth(5, 20, FOUR), 150),
    Scene("8 frames a group, 10 groups", depth(5, 10, EIGHT), 150),
    Scene("solar maximum, 80 groups", depth(5, 80), 150, particles=70.0),
    Scene("glow and a leak", depth(5, 60), glow=True),
    Scene("noise by output", depth(5, 60), outputs=(1.0, 0.75, 1.5, 1.1)),
    Scene("MIRI, noise by output", depth(5, 50), instrument="MIRI", outputs=(1.0, 0.8, 1.4, 1.1)),
    Scene("noise by place", depth(5, 60), places=True),
    Scene("temperature", depth(5, 60), warmth=(0.6, 2.5)),
    Scene("mixed depths, 9 darks", (*depth(3, 60), *depth(3, 40), *depth(3, 10, FOUR))),
    Scene("clusters", depth(5, 60), clusters=True),
    Scene("persistence", depth(6, 60), persistence=True),
    Scene("MIRI without reset correction", depth(5, 50), instrument="MIRI", unreset=True),
    Scene("many that switch, short stays", depth(5, 60), 74, unequal=True),
    Scene("time, 10 darks of 50 groups", depth(10, 50), 84, time=True),
    Scene("time and temperature", depth(10, 50), 84, time=True, warmth=(0.6, 2.5)),
    Scene(
        "all at once",
        depth(5, 20, FOUR),
        300,
        tails=10,
        particles=25.0,
        glow=True,
        outputs=(1.0, 0.8, 1.3, 1.1),
        warmth=(0.6, 2.5),
        clusters=True,
    ),
)

RIGHT = {
    "hot": "HOT",
    "saturated": "HOT",
    "rc": "RC",
    "telegraph": "TELEGRAPH",
    "unequal": "TELEGRAPH",
    "noisy": "UNRELIABLE_SLOPE",
    "low_pedestal": "OTHER_BAD_PIXEL",
    "intermittent": "HOT",
    "born": "HOT",
    "drifting": "HOT",
    "switching": "HOT",
    "settling": "RC",
    "cluster": "DO_NOT_USE",
    "recovered": "",
}
COLUMNS = (  # heading, kind, levels
    ("HOT", ("hot", "saturated"), None),
    ("RC 60", ("rc",), 60),
    ("RC 200 and up", ("rc",), 200),
    ("telegraph 8", ("telegraph",), 8),
    ("15", ("telegraph",), 15),
    ("30 to 300", ("telegraph",), 30),
    ("noisy x2", ("noisy",), 2),
    ("x3 and up", ("noisy",), 3),
    ("low pedestal", ("low_pedestal",), None),
)
DATED = {"born": ("first",), "recovered": ("last",), "intermittent": ("first", "last")}
LOUD = 1.45  # times the usual noise around from which on a pixel counts neither as good nor as noisy
TWICE = 2  # switches from which on a telegraph pixel has shown both levels
NOTICED = 5.0  # errors of the rate from which on a pixel counts as affected by persistence


def make_set(scene: Scene, folder: Path, seed: int) -> tuple[harsh_darks.World, np.ndarray]:
    """The files of all darks; the world, and the switches of each defect."""
    rng = np.random.default_rng([seed, *scene.name.encode()])
    world = harsh_darks.make_world(scene, rng)
    miri = scene.instrument == "MIRI"
    detector = "MIRIMAGE" if miri else "NRCB1"
    chip = world.chip
    facts = replace(own_darks.FACTS[detector], gain=chip.gain, frame_time=chip.frame)
    loud = world.defects[world.defects["kind"] == "noisy"]
    known = world.noise * np.random.default_rng(seed).lognormal(0, 0.03, world.noise.shape)
    known[loud["y"], loud["x"]] /= loud["size"]
    references = own_darks.write_references(folder / "references", facts, known, detector)
    done = "SKIPPED" if scene.unreset else "COMPLETE"
    steps = {"reset": done, "rscd": done} if miri else {"superbias": "COMPLETE"}
    steps |= {"dq_init": "COMPLETE", "saturation": "COMPLETE", "refpix": "COMPLETE"}
    switches = np.zeros(len(world.defects), np.intp)
    for k, (_, frames, skipped) in enumerate(scene.lengths):
        ramp, flags, more = harsh_darks.expose(world, k, rng)
        switches += more
        own_darks.reduce(
            ramp[None],
            facts,
            detector,
            references,
            folder / "darks" / f"d{k:02d}",
            frames,
            k + 1,
            flags=flags[None],
            skipped=skipped,
            steps=steps,
        )
    return world, switches


def count(mine: np.ndarray, image: np.ndarray, name: str) -> list[int]:
    """How many there are, have the right flag, have any."""
    of = image[mine["y"], mine["x"]]
    right = (of == 0) if not name else (of & dq.VALUE[name]) != 0
    return [len(mine), int(right.sum()), int((of != 0).sum())]


def score(world: harsh_darks.World, switches: np.ndarray, mask: Path) -> dict[str, Any]:
    """Counts of all kinds and levels, false ones by flag, dates."""
    image = fits.getdata(mask, "DQ").astype(np.uint32)
    switching = np.isin(world.defects["kind"], ("telegraph", "unequal"))
    defects = world.defects[~switching | (switches >= TWICE)]
    out: dict[str, Any] = {"found": []}
    for kind, level in sorted({(str(d["kind"]), float(d["level"])) for d in defects}):
        mine = defects[(defects["kind"] == kind) & (defects["level"] == level)]
        out["found"].append([kind, level, *count(mine, image, RIGHT[kind])])
    good = np.ones(image.shape, bool)
    good[world.defects["y"], world.defects["x"]] = False
    good &= world.noise < LOUD * ndimage.median_filter(world.noise, 9)
    if world.trapped.any():
        since = 60.0
        rate = world.trapped * np.log1p(world.chip.frame * 60 / since) / 6 / (60 * world.chip.frame)
        affected = good & (rate > NOTICED * harsh_darks.rate_sigma(world.scene))
        out["affected"] = [int(affected.sum()), int((image[affected] != 0).sum())]
        good &= ~affected
    out["good"], out["false"] = int(good.sum()), int((image[good] != 0).sum())
    out["by flag"] = {
        name: int(((image[good] & dq.VALUE[name]) != 0).sum()) for name in (*sorted(set(RIGHT.values()) - {""}),)
    }
    with evidence_file.opened(evidence_file.path_beside(mask)) as (found, _):
        ends = {end: np.asarray(found.images[f"dark_bright_{end}"][:, :]) for end in ("first", "last")}
    days = np.unique(np.concatenate([v[np.isfinite(v)] for v in ends.values()] + [np.zeros(0)]))
    out["dates"] = []
    for kind, which in DATED.items():
        here = np.flatnonzero(world.defects["kind"] == kind)
        if not len(here):
            continue
        told, off = np.ones(len(here), bool), np.zeros(len(here))
        y, x = world.defects["y"][here], world.defects["x"][here]
        for end in which:
            active = world.active[:, here] > 0
            true = active.argmax(axis=0) if end == "first" else len(active) - 1 - active[::-1].argmax(axis=0)
            value = ends[end][y, x]
            told &= np.isfinite(value)
            off = np.fmax(off, np.abs(value - (days.min(initial=np.inf) + true)))
        counts = (told & (off < 0.5)).sum(), (told & (off < 1.5)).sum()
        out["dates"].append([kind, len(here), int(told.sum()), *(int(c) for c in counts)])
    return out


def measure(scene: Scene, workdir: Path, seed: int, keep: bool) -> dict[str, Any]:
    """Make, reduce, search and score one scene."""
    folder = workdir / f"{re.sub('[^a-z0-9]+', '_', scene.name.lower())}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "darks").mkdir(parents=True)
    world, switches = make_set(scene, folder, seed)
    mask = folder / "mask.fits"
    words = ["darks", str(folder / "darks"), "-o", str(mask), "--evidence", "-q", "--useafter", "2026-01-01T00:00:00"]
    done = CliRunner().invoke(badpix, words, catch_exceptions=False)
    if done.exit_code:
        raise SystemExit(done.output)
    found = score(world, switches, mask)
    np.savez(folder / "truth.npz", defects=world.defects, switches=switches, active=world.active, noise=world.noise)
    if not keep:
        shutil.rmtree(folder)
    return found


def share(found: list[list[Any]], kinds: tuple[str, ...], level: float | None) -> str:
    """Percent with the right flag."""
    rows = [row for row in found if row[0] in kinds and level in (None, row[1])]
    total = sum(row[2] for row in rows)
    return f"{100 * sum(row[3] for row in rows) / total:.0f}" if total else ""


def make_text(scores: dict[str, dict[str, Any]]) -> str:
    """The tables of all scenes."""
    rows, changes, dates = [], [], []
    for scene in (s for s in SCENES if s.name in scores):
        got = scores[scene.name]
        million = 1e6 / got["good"]
        cells = [scene.name, f"{got['false'] * million:.0f}", "" if scene.wanted is None else f"{scene.wanted:g}"]
        cells += [f"{got['by flag'][name] * million:.0f}" for name in ("HOT", "TELEGRAPH")]
        rows.append(cells + [share(got["found"], kinds, level) for _, kinds, level in COLUMNS])
        shown = {kind for _, kinds, _ in COLUMNS for kind in kinds}
        for kind, level, n, right, any_flag in got["found"]:
            if kind not in shown:
                changes.append(
                    [scene.name, f"{kind} {level:g}", str(n), f"{100 * right / n:.0f}", f"{100 * any_flag / n:.0f}"]
                )
        if "affected" in got:
            n, flagged = got["affected"]
            changes.append(
                [scene.name, "persistence", str(n), f"{100 - 100 * flagged / n:.2f}", f"{100 * flagged / n:.2f}"]
            )
        dates += [[scene.name, *map(str, row)] for row in got["dates"]]
    head = ["scene", "false", "wanted", "false HOT", "false TELEGRAPH", *(name for name, *_ in COLUMNS)]
    return "\n\n".join(
        part
        for part in (
            table(head, rows),
            table(["scene", "kind and level", "pixels", "right, %", "flagged, %"], changes),
            table(["scene", "kind", "pixels", "dated", "right", "to one dark"], dates),
        )
        if part
    )


def main() -> None:
    """Measure, print, and put into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("scenes", nargs="*", help="Beginnings of names; none: all.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="Keep the files.")
    parser.add_argument("--docs", type=Path, help="Page that gets the tables of what was measured so far.")
    args = parser.parse_intermixed_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    kept = args.workdir / f"scores_{args.seed}.json"
    scores: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    wanted = [s for s in SCENES if not args.scenes or any(s.name.startswith(part) for part in args.scenes)]
    if args.docs is None:
        task = partial(measure, workdir=args.workdir, seed=args.seed, keep=args.keep)
        with ProcessPoolExecutor(args.workers) as pool:
            for scene, found in zip(wanted, pool.map(task, wanted), strict=True):
                scores[scene.name] = found
                kept.write_text(json.dumps(scores))
                print(f"{scene.name}: {found['false']} false", flush=True)
        print(make_text({s.name: scores[s.name] for s in wanted}))
        return
    put_table(args.docs, "own darks", make_text(scores))


if __name__ == "__main__":
    main()
