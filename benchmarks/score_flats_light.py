"""How ``badpix flats`` scores in the light that instruments have: slices, slits, traces, masks, several filters.

    python benchmarks/score_flats_light.py FOLDER [quick|real] [SET ...] [--seed SEED]

Simulates flats of each set (small frames), turns them into slopes by the real pipeline steps (``real``, extra
``pipeline``) or by the simulation's own reduction (``quick``), makes masks of 5 and of 10 of them, and prints what
was found of the lit pixels and what was called wrong, as a Markdown table. SET are numbers from 1; set K has the seed
SEED + K. What is in FOLDER already is used again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

BADPIX = [sys.executable, "-c", "from badpix.cli.main import badpix; badpix()"]
REDUCE = str(Path(__file__).resolve().parent.parent / "tests" / "helpers" / "reduce.py")
SETS = {
    "MIRIFULONG, MRS": ["MIRIFULONG", "mrs", "516 384"],
    "MIRIFUSHORT, MRS": ["MIRIFUSHORT", "mrs", "516 384"],
    "NRS1, IFU": ["NRS1", "ifu", "512 384"],
    "NRS2, fixed slits": ["NRS2", "slits", "512 384"],
    "NRS1, MOS": ["NRS1", "mos", "512 384"],
    "MIRIMAGE, frame and spots": ["MIRIMAGE", "spots", "516 384"],
    "NRCALONG, bar and ND squares": ["NRCALONG", "wedge", "512 384"],
    "NIS, SOSS": ["NIS", "soss", "512 384"],
    "MIRIMAGE, LRS": ["MIRIMAGE", "lrs", "516 384"],
    "NRCB1, six filters": ["NRCB1", "imager", "256 256", "F070W,F090W,F115W,F150W,F200W,F212N"],
}
MOST = 10  # flats in each filter
HEAD = (
    "set",
    "flats in each filter",
    "judged %",
    "lit",
    "DEAD %",
    "LOW_QE %",
    "LOW_FILTER %",
    "OPEN %",
    "false per million lit",
    "false in unlit",
    "false DO_NOT_USE per million",
)


def run(*words: object) -> dict:
    """The JSON summary of a badpix command."""
    done = subprocess.run([*BADPIX, *map(str, words), "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def prepare(folder: Path, options: list[str], seed: int, real: bool) -> None:
    """Simulate a set and reduce it, unless that was done before."""
    detector, light, size, *filters = options
    if not list(folder.glob("*_truth.fits")):
        words = ["--detector", detector, "--illumination", light, "--size", size, "--seed", seed, "--darks", 0]
        words += ["--flats", MOST, *(["--filters", filters[0]] if filters else [])]
        run("simulate", folder, *words, "--defects-per-level", 40, "--flat-products", "uncal" if real else "rate")
    if real and len(list(folder.glob("flats/*_rate.fits"))) < len(list(folder.glob("flats/*_uncal.fits"))):
        subprocess.run([sys.executable, REDUCE, str(folder)], check=True, capture_output=True)


def score(folder: Path, name: str, number: int, filters: int) -> str:
    """A row of the table: the first ``number`` flats in each filter."""
    mask = folder / f"mask{number}.fits"
    files = sorted(folder.glob("flats/*_rate.fits"))[: number * filters]  # one filter after the other
    made = run("flats", *files, "-o", mask, "--overwrite", "--allow-unlit")
    result = run("score", mask, next(folder.glob("*_truth.fits")), "--search", "flats")
    rows = {(r["light"], r["type"]): r for r in result["light"]}
    cells = [name, number, f"{100 * made['judged']['judged'] / made['judged']['science']:.1f}"]
    cells.append(f"{rows['lit', 'any']['injected']:,}")
    for kind in ("DEAD", "LOW_QE", "LOW_FILTER", "OPEN"):
        share = rows.get(("lit", kind), {}).get("completeness")
        cells.append("-" if share is None else f"{100 * share:.1f}")
    false = [rows[light, "any"] for light in ("lit", "dim", "unlit") if (light, "any") in rows]
    cells.append(f"{rows['lit', 'any']['false_per_million']:.0f}")
    cells.append(str(rows["unlit", "any"]["false"]) if ("unlit", "any") in rows else "-")
    cells.append(f"{1e6 * sum(r['unusable'] for r in false) / sum(r['good'] for r in false):.0f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def main(place: str, how: str, numbers: list[int], seed: int) -> None:
    """All sets, or those with these numbers (from 1)."""
    print(f"| {' | '.join(HEAD)} |")
    print("|" + "---|" * len(HEAD))
    for k, (name, options) in enumerate(SETS.items(), 1):
        if not numbers or k in numbers:
            folder = Path(place) / f"{how}{seed + k}"
            prepare(folder, options, seed + k, how == "real")
            for number in (5, MOST):
                print(score(folder, name, number, len(options[-1].split(","))), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("how", nargs="?", choices=("quick", "real"), default="quick")
    parser.add_argument("sets", nargs="*", type=int)
    parser.add_argument("--seed", type=int, default=500)
    given = parser.parse_args()
    main(given.folder, given.how, given.sets, given.seed)
