"""What `badpix darks` finds under every condition of `badpix simulate`, as the tables of docs/darks-measured.md.

    python benchmarks/score_conditions.py WORKDIR                     # all scenes: about a minute each
    python benchmarks/score_conditions.py WORKDIR tails glow          # some
    python benchmarks/score_conditions.py WORKDIR --docs docs/darks-measured.md   # tables of all that is there

``--real`` reduces the raw ramps by the steps of the package jwst instead (extra ``pipeline``; 256 x 256 pixels).
Scores are kept in WORKDIR/scores.json; ``--docs`` puts the tables between the page's comments ``conditions`` and
``end of conditions``. Seeds of the scenes are in this file alone: no limit was chosen on them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docs_page import put_table

REDUCE = Path(__file__).resolve().parent.parent / "tests" / "helpers" / "reduce.py"
RAW = ["--dark-products", "uncal"]
BADPIX = [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()"]
TIME = "intermittent,born,recovered,drift,switching,settling"


@dataclass(frozen=True)
class Scene:
    """What is simulated, and how many false ones per million are wanted at most."""

    seed: int
    words: str
    condition: str = ""
    wanted: float | None = 74
    darks: int = 5
    size: str = "384 384"


SCENES = {
    "60 groups": Scene(4101, "--dark-groups 60"),
    "60 groups, 10 darks": Scene(4120, "--dark-groups 60", darks=10),
    "20 groups": Scene(4102, "--dark-groups 20"),
    "MIRI, 50 groups": Scene(4103, "--detector MIRIMAGE --dark-groups 50", size="388 384"),
    "tails, t(10)": Scene(4104, "--dark-groups 60", "tails", 120),
    "tails, t(4)": Scene(4105, "--dark-groups 60", "heavy_tails", 300),
    "4 frames a group, 20 groups": Scene(4106, "--dark-groups 20", "averaged", 150),
    "8 frames a group, 10 groups": Scene(4107, "--dark-groups 10 --readout MEDIUM8", "averaged", 150),
    "solar maximum": Scene(4108, "--dark-groups 60", "solar", 150),
    "glow and a leak": Scene(4109, "--dark-groups 60", "glow", None),
    "noise by output": Scene(4110, "--dark-groups 60", "outputs", None),
    "noise by place": Scene(4111, "--dark-groups 60", "places", None),
    "temperature": Scene(4112, "--dark-groups 60", "temperature", None),
    "mixed depths": Scene(4113, "--dark-groups 60", "mixed", None, darks=9),
    "clusters": Scene(4114, "--dark-groups 60", "clusters", None),
    "persistence": Scene(4115, "--dark-groups 60", "persistence", None),
    "MIRI without reset correction": Scene(
        4116, "--detector MIRIMAGE --dark-groups 50", "unreset", None, size="388 384"
    ),
    "time, 10 darks of 50 groups": Scene(4117, "--dark-groups 50", TIME, 84, darks=10),
    "time and temperature": Scene(4118, "--dark-groups 50", f"{TIME},temperature", 84, darks=10),
    "all at once": Scene(4119, "--dark-groups 20 --cosmic-rays 25", "tails,averaged,glow,temperature,clusters", 300),
}

NOISE = (  # heading, type, level
    ("HOT 1 and up", "HOT", (1, 3, 10, 30, 100)),
    ("RC 200 and up", "RC", (200, 800, 3000)),
    ("telegraph 8", "TELEGRAPH", (8,)),
    ("15", "TELEGRAPH", (15,)),
    ("30 and up", "TELEGRAPH", (30, 100, 300)),
    ("noisy x2", "NOISY", (2,)),
    ("x3 and up", "NOISY", (3, 6, 15)),
)


def call(*words: str) -> str:
    """Run a badpix command; its stdout."""
    done = subprocess.run([*BADPIX, *words], check=True, capture_output=True, text=True)
    return done.stdout


def measure(folder: Path, scene: Scene, real: bool) -> dict[str, Any]:
    """Simulate, reduce (by the real steps of jwst, or quickly), search and score one scene."""
    words = ["simulate", str(folder), "--size", scene.size, "--flats", "0", "--darks", str(scene.darks)]
    words += ["--seed", str(scene.seed), "--defects-per-level", "30", "--overwrite", "-q", *scene.words.split()]
    call(*words, *(["--condition", scene.condition] if scene.condition else []), *RAW[: 2 * real])
    if real:
        subprocess.run([sys.executable, str(REDUCE), str(folder)], check=True, capture_output=True)
    mask = str(folder / "mask.fits")
    call("darks", str(folder / "darks"), "-o", mask, "--overwrite", "-q")
    truth = str(next(folder.glob("*_truth.fits")))
    found: dict[str, Any] = json.loads(call("score", mask, truth, "--search", "darks", "--json"))
    shutil.rmtree(folder / "darks")
    return found.get("result", found)


def share(score: dict[str, Any], name: str, levels: tuple[float, ...]) -> str:
    """Percent of the defects of these levels that were found."""
    rows = [
        r
        for r in score["completeness"]
        if r["type"] == name and r["setting"] == "all" and r["level"] is not None and r["level"] in levels
    ]
    total = sum(r["injected"] for r in rows)
    return f"{100 * sum(r['found'] for r in rows) / total:.0f}" if total else ""


def false(score: dict[str, Any], flag: str) -> str:
    """Good pixels with this flag, per million."""
    (row,) = [r for r in score["flags"] if r["flag"] == flag]
    return f"{row['false_per_million']:.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; nothing without rows."""
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def noise_table(scores: dict[str, Any]) -> str:
    """False ones per million, and percent found with the right flag, by scene."""
    head = ["scene", "false", "wanted", "false HOT", "false TELEGRAPH", *(name for name, *_ in NOISE)]
    rows = []
    for name, score in scores.items():
        wanted = SCENES[name].wanted
        cells = [name, false(score, "any"), "" if wanted is None else f"{wanted:g}"]
        cells += [false(score, "HOT"), false(score, "TELEGRAPH")]
        rows.append(cells + [share(score, kind, levels) for _, kind, levels in NOISE])
    return table(head, rows)


BASES = ("60 groups", "60 groups, 10 darks", "20 groups", "MIRI, 50 groups")


def type_table(scores: dict[str, Any]) -> str:
    """Percent found with the right flag by type and level, a column each scene without conditions."""
    known = [name for name in BASES if name in scores]
    kinds: dict[tuple[str, float], str] = {}
    for name in known:
        for r in scores[name]["completeness"]:
            if r["level"] is not None and r["setting"] == "all" and r["type"] != "WARM":
                kinds[r["type"], r["level"]] = r["unit"]
    order = list(dict.fromkeys(kind for kind, _ in kinds))
    rows = [
        [f"{kind} {level:g} {unit}".strip(), *(share(scores[name], kind, (level,)) for name in known)]
        for (kind, level), unit in sorted(kinds.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]
    return table(["type and level", *known], rows)


def time_table(scores: dict[str, Any]) -> str:
    """Pixels of conditions, by scene, type and level: how many, with the right flag, with any."""
    plain = {"HOT", "SATURATED", "WARM", "RC", "IRC", "TELEGRAPH", "NOISY", "LOW_PEDESTAL"}
    rows = []
    for name, score in scores.items():
        for r in score["completeness"]:
            if r["type"] in plain or r["level"] is None or not r["injected"] or r["setting"] != "all":
                continue
            level = f"{r['level']:g} {r['unit']}" if r["unit"] else ""
            counts = [
                str(r["injected"]),
                f"{100 * r['completeness']:.4g}",
                f"{100 * r['flagged'] / r['injected']:.4g}",
            ]
            rows.append([name, r["type"], level, *counts])
    return table(["scene", "type", "level", "pixels", "right, %", "flagged, %"], rows)


def date_table(scores: dict[str, Any]) -> str:
    """Dates of pixels that change, by scene."""
    rows = [
        [name, r["type"], *(str(r[k]) for k in ("injected", "told", "right", "near"))]
        for name, score in scores.items()
        for r in score.get("dates", [])
    ]
    return table(["scene", "type", "pixels", "dated", "right", "to one dark"], rows)


def make_text(scores: dict[str, Any]) -> str:
    """All tables."""
    ordered = {name: scores[name] for name in SCENES if name in scores}
    head = "Recovered pixels and those of persistence are right without a flag."
    changes = time_table(ordered)
    parts = [noise_table(ordered), type_table(ordered), head if changes else "", changes, date_table(ordered)]
    return "\n\n".join(part for part in parts if part)


def main() -> None:
    """Measure, print, and put into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("scenes", nargs="*", help="Beginnings of names; none: all.")
    parser.add_argument("--real", action="store_true", help="Reduce by the real steps of jwst (256 x 256 pixels).")
    parser.add_argument("--docs", type=Path, help="Page that gets the tables of all scenes measured so far.")
    args = parser.parse_intermixed_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    kept = args.workdir / ("scores_jwst.json" if args.real else "scores.json")
    wanted = [n for n in SCENES if not args.scenes or any(n.startswith(s) for s in args.scenes)]
    for number, name in enumerate([] if args.docs else wanted, 1):
        scene = replace(SCENES[name], size="256 256") if args.real else SCENES[name]
        score = measure(args.workdir / re.sub(r"\W+", "_", name), scene, args.real)
        scores = {**(json.loads(kept.read_text()) if kept.exists() else {}), name: score}
        kept.write_text(json.dumps(scores))
        print(f"{number}/{len(wanted)} {name}: {false(score, 'any')} false per million", flush=True)
    text = make_text(json.loads(kept.read_text()))
    if args.docs is None:
        print(text)
        return
    put_table(args.docs, "conditions, jwst" if args.real else "conditions", text)


if __name__ == "__main__":
    main()
