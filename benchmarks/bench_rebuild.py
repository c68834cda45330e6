"""What a rebuild costs: ``python benchmarks/bench_rebuild.py [DIR] [--quick]``.

1. Whole `badpix rebuild` processes on simulated detectors of several sizes, numbers of darks and groups; a linear
   model of the processor seconds is fitted to them and applied to eighteen full frames and a thousand exposures.
2. `nothing to do` for eighteen detectors and a thousand exposures (small ones: only their number counts there).
3. The speed of hashing, which new exposures pay once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from badpix.io import provenance
from badpix.settings.simulate import SimulateSettings
from badpix.simulation.files import simulate

# columns and rows, flats, darks, groups
CASES = [(256, 5, 5, 20), (512, 5, 5, 20), (512, 5, 10, 20), (512, 5, 5, 60), (512, 10, 5, 20), (1024, 5, 5, 20)]
QUICK = [(128, 3, 3, 10), (256, 3, 3, 10), (256, 3, 6, 10), (256, 3, 3, 20), (256, 6, 3, 10)]
EIGHTEEN = (
    "NRCA1 NRCA2 NRCA3 NRCA4 NRCALONG NRCB1 NRCB2 NRCB3 NRCB4 NRCBLONG NIS NRS1 NRS2 MIRIMAGE MIRIFULONG "
    "MIRIFUSHORT GUIDER1 GUIDER2"
).split()
TEXT = """
reference: {author: bench, pedigree: SIMULATION, useafter: "2026-01-01T00:00:00"}
flats: {inputs: {rate: "{detector}/flats"}}
darks: {inputs: {rate: "{detector}/darks"}}
output: "masks/{detector}_mask.fits"
check: {max_percent: {DEAD: 90, OPEN: 90, ADJ_OPEN: 90, LOW_QE: 90, HOT: 90, RC: 90}, max_unusable_percent: 100}
rebuild: {settle: 0}
"""


def make(place: Path, detector: str, size: int, flats: int, darks: int, groups: int) -> None:
    """Simulated exposures of one detector."""
    given = {"detector": detector, "size": (size, size), "flats": flats, "darks": darks, "dark_groups": groups}
    simulate(place / detector.lower(), SimulateSettings.from_values(given, "bench"))


def processor() -> float:
    """Processor seconds of all processes that have been waited for, theirs included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(yaml: Path, *args: str) -> tuple[float, float, dict[str, Any]]:
    """Seconds, processor seconds and JSON of one `badpix rebuild` process."""
    call = [
        sys.executable,
        "-c",
        "from badpix.cli.main import badpix; badpix()",
        "rebuild",
        str(yaml),
        "--json",
        "-q",
    ]
    begun, used = time.monotonic(), processor()
    done = subprocess.run([*call, *args], capture_output=True, text=True, check=False, cwd=yaml.parent)
    seconds = time.monotonic() - begun
    if done.returncode:
        raise SystemExit(done.stderr)
    return seconds, processor() - used, json.loads(done.stdout)


def measure_builds(place: Path, cases: list[tuple[int, int, int, int]]) -> list[tuple[float, ...]]:
    """One line a case: features and seconds."""
    rows = []
    print(f"{'size':>6} {'flats':>6} {'darks':>6} {'groups':>7} {'seconds':>8} {'CPU s':>6} {'MB':>5} {'again':>6}")
    for k, (size, flats, darks, groups) in enumerate(cases):
        here = place / f"case{k}"
        make(here, "NRCB1", size, flats, darks, groups)
        yaml = here / "one.yml"
        yaml.write_text("detector: NRCB1" + TEXT)
        seconds, used, answer = run(yaml)
        again, _, _ = run(yaml)
        memory = answer["detectors"][0]["peak_memory_mb"]
        print(f"{size:6d} {flats:6d} {darks:6d} {groups:7d} {seconds:8.2f} {used:6.2f} {memory:5.0f} {again:6.2f}")
        pixels = size * size / 1e6
        rows.append((1.0, pixels, pixels * flats, pixels * darks * groups, used))
        shutil.rmtree(here)
    return rows


def show_model(rows: list[tuple[float, ...]]) -> None:
    """Least squares with coefficients that can't be negative, and what follows for full frames."""
    from scipy.optimize import nnls

    table = np.array(rows)
    weights = 1 / table[:, -1]  # relative errors count
    found, _ = nnls(table[:, :-1] * weights[:, None], table[:, -1] * weights)
    names = ("once", "megapixel", "megapixel x flat", "megapixel x dark x group")
    print("\nprocessor seconds = " + " + ".join(f"{c:.4g} per {n}" for c, n in zip(found, names, strict=True)))
    worst = np.max(np.abs(table[:, :-1] @ found / table[:, -1] - 1))
    print(f"largest deviation of the model: {100 * worst:.0f} %")
    full = 2048 * 2048 / 1e6
    for flats, darks, groups in ((10, 10, 20), (10, 46, 20), (10, 46, 60)):
        one = float(found @ [1, full, full * flats, full * darks * groups])
        print(
            f"full frame, {flats} flats, {darks} darks of {groups} groups: {one:7.0f} s a detector, "
            f"{18 * one / 3600:6.2f} h for eighteen on one core ({18 * (flats + darks)} exposures)"
        )


def measure_nothing(place: Path, exposures: int) -> None:
    """Seconds of a run that finds nothing to do, by the number of exposures."""
    each = max(1, exposures // len(EIGHTEEN))
    for name in EIGHTEEN:
        make(place, name, 32, 3, 3, 6)
        folder = place / name.lower() / "darks"
        for path in sorted(folder.glob("*_00001_*")):
            for k in range(4, each - 2):
                shutil.copy(path, folder / path.name.replace("_00001_", f"_{k:05d}_"))
    yaml = place / "all.yml"
    lines = TEXT.replace("settle: 0", "settle: 0, report: false").strip().splitlines()
    common = "\n".join(f"  {line}" for line in lines)
    yaml.write_text(f"defaults:\n{common}\ndetectors: [{', '.join(EIGHTEEN)}]\n")
    first, _, _ = run(yaml, "--workers", str(os.cpu_count() or 1))
    again, _, answer = run(yaml)
    files = sum(1 for p in place.rglob("*.fits") if "masks" not in p.parts)
    print(f"\n{len(EIGHTEEN)} detectors, {len(EIGHTEEN) * each} exposures, {files} files of 32 x 32 pixels:")
    print(f"made in {first:.0f} s, nothing to do in {again:.2f} s ({answer['counts']['unchanged']} unchanged)")


def measure_hashing(place: Path) -> None:
    """Megabytes a second of sha256."""
    path = place / "large"
    path.write_bytes(np.random.default_rng(1).bytes(400_000_000))
    begun = time.monotonic()
    provenance.hash_file(path)
    print(f"hashing: {400 / (time.monotonic() - begun):.0f} MB/s a thread")


def main() -> None:
    """All three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", help="where to work; a temporary folder unless given")
    parser.add_argument("--quick", action="store_true", help="small cases, to see that it works")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        os.environ["BADPIX_CACHE"] = str(Path(name) / "cache")
        rows = measure_builds(Path(name), QUICK if given.quick else CASES)
        show_model(rows)
        measure_nothing(Path(name) / "many", 100 if given.quick else 1000)
        measure_hashing(Path(name))


if __name__ == "__main__":
    main()
