"""How ``badpix flats`` scores on flats that the real pipeline steps reduced.

    python benchmarks/score_flats_real.py FOLDER [SET ...]

Simulates raw flats of six sets (several detectors, full frames, small ones, an interior window), turns them into
slopes with the jwst package (``tests/helpers/reduce.py``; extra ``pipeline``), makes a mask of each and prints what
it found and what it called wrong, as a Markdown table. What is in FOLDER already is used again.
"""

import json
import subprocess
import sys
from pathlib import Path

BADPIX = str(Path(sys.executable).parent / "badpix")
REDUCE = str(Path(__file__).resolve().parent.parent / "tests" / "helpers" / "reduce.py")
TYPES = ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")
SETS = {
    "NRCB1, 512": ["--detector", "NRCB1", "--size", "512 512", "--seed", "301"],
    "NRCA3, 1024": ["--detector", "NRCA3", "--size", "1024 1024", "--seed", "302"],
    "NRCALONG, full frame": ["--detector", "NRCALONG", "--seed", "303"],
    "NRCB2, interior window": ["--detector", "NRCB2", "--window", "640 640", "--start", "701 801", "--seed", "304"],
    "NIS, 1024": ["--detector", "NIS", "--size", "1024 1024", "--seed", "306"],
    "MIRIMAGE, full frame": ["--detector", "MIRIMAGE", "--seed", "307"],
}


def run(*words: str) -> dict:
    """The JSON summary of a badpix command."""
    done = subprocess.run([BADPIX, *words, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def prepare(folder: Path, options: list[str]) -> None:
    """Simulate a set and reduce it, unless that was done before."""
    if not list(folder.glob("*_truth.fits")):
        run("simulate", str(folder), *options, "--flats", "5", "--darks", "0", "--flat-products", "uncal")
    if len(list(folder.glob("flats/*_rate.fits"))) < 5:
        subprocess.run([sys.executable, REDUCE, str(folder)], check=True, capture_output=True)


def score(folder: Path, name: str) -> str:
    """A row of the table."""
    mask = str(folder / "mask.fits")
    run("flats", str(folder / "flats"), "-o", mask, "--overwrite")
    found = run("score", mask, str(next(folder.glob("*_truth.fits"))), "--search", "flats")
    missed, injected = [], 0
    for kind in TYPES:
        rows = [r for r in found["completeness"] if (r["type"], r["level"], r["setting"]) == (kind, None, "all")]
        injected += sum(r["injected"] for r in rows)
        missed.append(str(sum(r["injected"] - r["found"] for r in rows)))
    cells = [f"{injected:,}", *missed]
    wrong = {r["flag"]: r["false"] for r in found["flags"]}
    cells += [str(wrong.get(flag, 0)) for flag in ("DEAD", "any")]
    return f"| {name} | " + " | ".join(cells) + " |"


def main(place: str, *numbers: str) -> None:
    """All sets, or those with these numbers (from 1)."""
    print(f"| set | defects | {' | '.join(f'{kind} missed' for kind in TYPES)} | false DEAD | false, any |")
    print("|---|" + "---|" * (len(TYPES) + 3))
    for k, (name, options) in enumerate(SETS.items(), 1):
        if not numbers or str(k) in numbers:
            folder = Path(place) / f"set{k}"
            prepare(folder, options)
            print(score(folder, name), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
