"""Completeness and false positives of ``badpix flats``, over seeds, detectors, numbers of flats and parameter sets.

    python benchmarks/score_flats.py [SEED ...]

Prints the Markdown table of docs/flats.md. Simulates in the system's temporary folder.
"""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

BADPIX = str(Path(sys.executable).parent / "badpix")
DETECTORS = {"NRCB1": ["--size", "1024 1024"], "MIRIMAGE": []}
TYPES = ("DEAD", "LOW_QE", "OPEN", "ADJ_OPEN")


def run(*words: str) -> dict:
    """The JSON summary of a badpix command."""
    done = subprocess.run([BADPIX, *words, "--json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main(seeds: list[str]) -> None:
    """Simulate, search, score, add up over the seeds, print."""
    found: dict = defaultdict(lambda: [0, 0])
    false: dict = defaultdict(lambda: [0, 0.0])
    for detector, size in DETECTORS.items():
        for seed in seeds:
            with tempfile.TemporaryDirectory(prefix="score-flats-") as folder:
                sim = Path(folder) / "sim"
                run(
                    "simulate",
                    str(sim),
                    "--detector",
                    detector,
                    *size,
                    "--flats",
                    "10",
                    "--darks",
                    "0",
                    "--seed",
                    seed,
                )
                truth = str(next(sim.glob("*_truth.fits")))
                flats = sorted(str(p) for p in (sim / "flats").glob("*_rate.fits"))
                for n in (5, 10):
                    for name in ("default", "documented"):
                        mask = f"{folder}/{name}{n}.fits"
                        run("flats", *flats[:n], "-o", mask, "--set", name)
                        score = run("score", mask, truth, "--search", "flats")
                        add(score, (detector, n, name), found, false)
    show(found, false, len(seeds))


def add(score: dict, key: tuple, found: dict, false: dict) -> None:
    """Add one score to the sums."""
    for row in score["completeness"]:
        if row["type"] in TYPES and row["level"] is None and row["setting"] == "all":
            found[(*key, row["type"])][0] += row["found"]
            found[(*key, row["type"])][1] += row["injected"]
    for row in score["flags"]:
        if row["flag"] in ("DEAD", "any"):
            false[(*key, row["flag"])][0] += row["false"]
            false[(*key, row["flag"])][1] += row["good"]


def show(found: dict, false: dict, seeds: int) -> None:
    """The Markdown table, one number a cell."""
    print(f"{seeds} seeds")
    head = [
        "detector",
        "flats",
        "set",
        "defects",
        *(f"{kind} %" for kind in TYPES),
        "false DEAD per million",
        "false, any",
    ]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for detector, n, name in sorted({k[:3] for k in found}):
        counts = [found[(detector, n, name, kind)] for kind in TYPES]
        cells = [detector, str(n), name, f"{sum(all_ for _, all_ in counts):,}"]
        cells += [f"{100 * hit / all_:.2f}" for hit, all_ in counts]
        for flag in ("DEAD", "any"):
            wrong, good = false[(detector, n, name, flag)]
            cells.append(f"{1e6 * wrong / good:.1f}" if good else "-")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1:] or ["101", "102", "103"])
