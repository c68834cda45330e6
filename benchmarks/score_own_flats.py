"""What `badpix flats` finds in flats of an own generator (``own_flats.py``), in all the light that instruments have.

    python benchmarks/score_own_flats.py WORKDIR --seed 9001               # all scenes
    python benchmarks/score_own_flats.py WORKDIR --seed 9001 MRS "MIRI"    # those whose names begin so
    python benchmarks/score_own_flats.py WORKDIR --seed 9001 --docs docs/flats.md   # table of what was measured

Defaults of the command, without ``--allow-unlit`` first. A pixel is *lit* with more than a tenth of the 95th
percentile of the true light (of any filter), whatever the run could judge: what it leaves undetermined is missed.
Found is what has the right flag (LOW_FILTER, poor in one or two filters: any with DO_NOT_USE). False are good pixels
with any flag; pixels beside OPEN ones, hot ones and dips to 0.58-0.9 (DIP, LOW by no rule) count as neither.
Scores are kept in WORKDIR/scores_SEED.json.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import own_flats_light as light
from astropy.io import fits
from click.testing import CliRunner
from docs_page import put_table
from own_flats import KINDS, Flats, Scene, make_flats

from badpix import dq
from badpix.cli.main import badpix
from badpix.io import evidence_file

FULL, MIRI = (2048, 2048), (1024, 1032)
SINGLE = {"DEAD": 99.0, "LOW_QE": 99.0, "OPEN": 95.0, "false": 5.0, "unlit": 0.0}
MASKS = {"DEAD": 99.0, "LOW_QE": 95.0, "unusable": 100.0}
TRACES = {"DEAD": 95.0, "LOW_QE": 95.0, "unlit": 0.0}
LED, FLAT = {"EXP_TYPE": "NRC_LED", "PUPIL": "CLEAR"}, {"EXP_TYPE": "NRC_FLAT", "PUPIL": "CLEAR"}
LAMP = {"EXP_TYPE": "NRS_LAMP", "LAMP": "FLAT1", "FILTER": "OPAQUE"}
MIXED = (60.0, 60.0, 120.0, 240.0, 40.0)


def mrs_rows(shape: tuple[int, int], rng: np.random.Generator) -> light.Image:
    """A part of the rows of an MRS frame."""
    return light.mrs(MIRI, rng)[380 : 380 + shape[0]]


def imager(**what: Any) -> Any:
    """Imaged light."""
    return partial(light.imaged, **what)


SCENES = (
    Scene(
        "NIRCam SW, gradient, dust, crosshatch", "NRCB3", (768, 768),
        imager(gradient=0.3, dust=25, crosshatch=0.01), LED | {"FILTER": "F150W"}, times=MIXED, goals=SINGLE,
    ),
    Scene(
        "NIRCam LW, vignetted corner", "NRCALONG", (768, 768), imager(vignette=0.03, dust=10),
        LED | {"FILTER": "F356W"}, goals=MASKS,
    ),
    Scene(
        "NIRCam, 5 % dead", "NRCA2", (640, 640), imager(gradient=0.2, dust=6), LED | {"FILTER": "F200W"},
        start=(501, 901), dead=0.05, goals=SINGLE,
    ),
    Scene(
        "NIRCam, voids, clusters", "NRCB4", (768, 768), imager(gradient=0.1, crosshatch=0.006),
        LED | {"FILTER": "F200W"}, start=(1, 1281), voids=4, clusters=25, goals=SINGLE,
    ),
    Scene(
        "NIRCam, noise by output, low light, 3 flats", "NRCA1", (512, 1024), imager(dust=6),
        LED | {"FILTER": "F115W"}, level=12, times=(110.0,) * 3, outputs=(0.8, 1.0, 1.8, 1.2),
        start=(513, 601), goals=SINGLE,
    ),
    Scene(
        "NIRCam, 2 flats, 160 x 160", "NRCB1", (160, 160), imager(gradient=0.1), LED | {"FILTER": "F212N"},
        times=(60.0, 60.0), start=(1800, 1100), clusters=2, goals=SINGLE,
    ),
    Scene(
        "NIRCam, jwst ramps", "NRCB2", (320, 320), imager(gradient=0.2, dust=5, crosshatch=0.008),
        FLAT | {"FILTER": "F070W"}, level=450, times=(150.0, 150.0, 90.0, 150.0), start=(1, 1), ramps=True,
        hot=8e-4, goals=SINGLE,
    ),
    Scene(
        "NIRCam, ND squares, holder, wheel", "NRCALONG", (1024, 1024), light.nd_squares, LED | {"FILTER": "F444W"},
        start=(1, 1025), goals=MASKS,
    ),
    Scene(
        "NIRCam, coronagraph wedges and spots", "NRCA2", (768, 768), light.coronagraph,
        {"EXP_TYPE": "NRC_LED", "FILTER": "F210M", "PUPIL": "MASKBAR"}, start=(700, 1), goals=MASKS,
    ),
    Scene(
        "NIRCam, six filters", "NRCB1", (384, 384), imager(gradient=0.2, dust=6), LED, times=(80.0,) * 3,
        filters=("F070W", "F090W", "F115W", "F150W", "F200W", "F212N"), goals=SINGLE | {"LOW_FILTER": 95.0},
    ),
    Scene(
        "MIRI imager, Lyot, 4QPM", "MIRIMAGE", MIRI, light.miri_imager,
        {"EXP_TYPE": "MIR_FLATIMAGE", "FILTER": "F1130W"}, level=900, times=(100.0,) * 5, goals=MASKS,
    ),
    Scene(
        "NIRISS WFSS field", "NIS", (1024, 1024), light.grism_field,
        {"EXP_TYPE": "NIS_WFSS", "FILTER": "GR150R", "PUPIL": "F150W"}, start=(1, 1), goals=MASKS,
    ),
    Scene(
        "NIRISS SOSS", "NIS", (256, 2048), light.soss,
        {"EXP_TYPE": "NIS_SOSS", "FILTER": "CLEAR", "PUPIL": "GR700XD"}, level=700, start=(1, 1793), goals=TRACES,
    ),
    Scene(
        "MIRI MRS, short", "MIRIFUSHORT", MIRI, light.mrs,
        {"EXP_TYPE": "MIR_FLATMRS", "CHANNEL": "12", "BAND": "SHORT"}, level=700, times=(110.0,) * 5, goals=SINGLE,
    ),
    Scene(
        "MIRI MRS, long, faint slices, 3 flats", "MIRIFULONG", MIRI, partial(light.mrs, faint=3),
        {"EXP_TYPE": "MIR_FLATMRS", "CHANNEL": "34", "BAND": "LONG"}, level=150, times=(60.0, 110.0, 110.0),
        dead=0.004, goals=SINGLE,
    ),
    Scene(
        "MIRI MRS, 256 rows, jwst ramps", "MIRIFUSHORT", (256, 1032), mrs_rows,
        {"EXP_TYPE": "MIR_FLATMRS", "CHANNEL": "12", "BAND": "MEDIUM"}, level=1500, times=(80.0, 80.0, 55.0),
        start=(1, 381), ramps=True, goals=SINGLE,
    ),
    Scene(
        "NIRSpec IFU", "NRS1", FULL, light.ifu, LAMP | {"GRATING": "G140H"}, level=300, times=(110.0,) * 3,
        dead=0.002, goals=SINGLE,
    ),
    Scene(
        "NIRSpec fixed slits", "NRS2", (256, 2048), light.fixed_slits, LAMP | {"GRATING": "G235H"}, level=300,
        start=(1, 897), goals=SINGLE,
    ),
    Scene(
        "NIRSpec MOS", "NRS1", (1024, 2048), light.mos, LAMP | {"GRATING": "G395M"}, level=300, start=(1, 513),
        goals=TRACES,
    ),
    Scene(
        "NIRSpec MOS, steep, 3 % dead, low light", "NRS2", (1024, 1024), partial(light.mos, steep=0.14),
        LAMP | {"GRATING": "PRISM"}, level=40, start=(513, 1), dead=0.03, times=(110.0,) * 4, goals=TRACES,
    ),
)  # fmt: skip
MEASURED = ("DEAD", "LOW_QE", "LOW_FILTER", "OPEN", "ADJ_OPEN", "DIP")
COLUMNS = ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")  # shown; of the others the scores tell


def run(words: list[str]) -> tuple[int, str, dict[str, Any]]:
    """Exit code, what was said, and the summary of a command."""
    done = CliRunner().invoke(badpix, [*words, "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    start = done.stdout.find("{")
    return done.exit_code, done.stderr, json.loads(done.stdout[start:]) if start >= 0 and not done.exit_code else {}


def count(flats: Flats, image: np.ndarray, undetermined: np.ndarray, kind: str) -> list[int]:
    """Lit pixels of a kind: how many, with the right flag, with DO_NOT_USE, not judged."""
    mine = (flats.kind == KINDS.index(kind)) & flats.lit
    flag = dq.VALUE[{"LOW_FILTER": "LOW_QE", "DIP": "LOW_QE"}.get(kind, kind)]
    of = image[mine]
    return [int(v) for v in (mine.sum(), ((of & flag) != 0).sum(), (of & 1).sum(), undetermined[mine].sum())]


def measure(scene: Scene, workdir: Path, seed: int, keep: bool) -> dict[str, Any]:
    """Make, search and score one scene."""
    folder = workdir / f"{re.sub('[^a-z0-9]+', '_', scene.name.lower())}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    flats = make_flats(scene, folder, seed)
    np.savez_compressed(folder / "truth.npz", **{k: v for k, v in vars(flats).items() if k != "files"})
    out = search(scene, flats, folder)
    if not keep:
        shutil.rmtree(folder)
    return out


def search(scene: Scene, flats: Flats, folder: Path) -> dict[str, Any]:
    """Make a mask, and score it."""
    mask = folder / "mask.fits"
    words = ["flats", *map(str, flats.files), "-o", str(mask), "--overwrite", "--evidence"]
    code, said, result = run(words)
    out: dict[str, Any] = {"exit": code, "said": said}
    if code:
        code, out["said_allowed"], result = run([*words, "--allow-unlit"])
        if code:
            return out | {"failed": True}
    image = fits.getdata(mask, "DQ").astype(np.uint32) & ~np.uint32(dq.VALUE["REFERENCE_PIXEL"])
    image[~scene.sensitive] = 0
    with evidence_file.opened(evidence_file.path_beside(mask)) as (found, _):
        state = np.asarray(found.images["flat_state"][:, :])
    undetermined = (state != 1) & scene.sensitive
    sensitive, good = scene.sensitive, (flats.kind == 0) & scene.sensitive
    out["judged"] = result["judged"]["judged"] / result["judged"]["science"]
    out["lit"] = float(flats.lit.sum() / sensitive.sum())
    out["kinds"] = {kind: count(flats, image, undetermined, kind) for kind in MEASURED}
    flagged = (image != 0) & good
    out["good"] = [int((good & flats.lit).sum()), int((flagged & flats.lit).sum())]
    out["unlit"] = [int((good & ~flats.lit).sum()), int((flagged & ~flats.lit).sum())]
    out["unusable"] = int((flagged & ((image & 1) != 0)).sum())
    out["frame"] = int(sensitive.sum())
    out["lit judged"] = float(1 - undetermined[flats.lit].mean())
    if scene.voids:
        out["void"] = [int((flats.void & good).sum()), int((flagged & flats.void).sum())]
    return out


def values(got: dict[str, Any]) -> dict[str, float]:
    """The figures that have goals."""
    out = {k: 100 * v[1 if k not in ("LOW_FILTER",) else 2] / v[0] for k, v in got["kinds"].items() if v[0]}
    out["false"] = 1e6 * got["good"][1] / max(got["good"][0], 1)
    out["unlit"], out["unusable"] = got["unlit"][1], 1e6 * got["unusable"] / got["frame"]
    return out


def missed(scene: Scene, got: dict[str, Any]) -> list[str]:
    """Goals that were not reached."""
    if got.get("failed"):
        return ["no mask"]
    found, more = values(got), ("false", "unlit", "unusable")
    return [
        f"{name} {found[name]:.{0 if name in more else 1}f}, wanted {goal:g}"
        for name, goal in scene.goals.items()
        if name in found and (found[name] > goal if name in more else found[name] < goal)
    ]


def make_text(scores: dict[str, dict[str, Any]]) -> str:
    """The table of what was measured."""
    head = ["scene", "lit %", "judged %", "defects", *(f"{k} %" for k in COLUMNS)]
    head += ["undetermined", "false", "below", "unusable", "goals missed"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for scene in SCENES:
        if scene.name not in scores:
            continue
        got = scores[scene.name]
        if got.get("failed"):
            lines.append(f"| {scene.name} | " + " | ".join(["-"] * (len(head) - 2)) + " | no mask |")
            continue
        found, kinds = values(got), got["kinds"]
        main = [kinds[k] for k in ("DEAD", "LOW_QE", "LOW_FILTER", "OPEN")]
        cells = [scene.name, *(f"{100 * got[k]:.1f}" for k in ("lit", "lit judged"))]
        cells += [f"{sum(v[0] for v in main):,}", *(f"{found[k]:.1f}" if k in found else "-" for k in COLUMNS)]
        cells += [str(sum(v[3] for v in main)), f"{found['false']:.0f}", f"{found['unlit']:.0f}"]
        cells += [f"{found['unusable']:.0f}", "; ".join(missed(scene, got)) or "none"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and put into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("scenes", nargs="*", help="Beginnings of names; none: all.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--keep", action="store_true", help="Keep the files.")
    parser.add_argument("--talk", action="store_true", help="Print what each run said.")
    parser.add_argument("--docs", type=Path, help="Page that gets the table of what was measured so far.")
    args = parser.parse_intermixed_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    kept = args.workdir / f"scores_{args.seed}.json"
    scores: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    if args.docs is None:
        for scene in SCENES:
            if args.scenes and not any(scene.name.startswith(part) for part in args.scenes):
                continue
            scores[scene.name] = measure(scene, args.workdir, args.seed, args.keep)
            kept.write_text(json.dumps(scores))
            print(make_text({scene.name: scores[scene.name]}).splitlines()[-1], flush=True)
            if args.talk:
                print(scores[scene.name]["said"], scores[scene.name].get("said_allowed", ""), flush=True)
        return
    put_table(args.docs, "own flats", make_text(scores))


if __name__ == "__main__":
    main()
