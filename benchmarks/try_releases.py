"""Products of several releases of the pipeline as inputs, and masks in their DQInitStep: for docs/tried-with.md.

    python benchmarks/try_releases.py WORKDIR [RELEASE ...]

For each release an environment with ``jwst`` of that version is made in WORKDIR (some minutes and a GB each). There
the raw ramps of one simulated detector go through the release's own first-stage steps (``tests/helpers/reduce.py``).
``badpix flats``, ``darks``, ``merge``, ``check``, ``explain`` and ``score`` of this version run on what it wrote, and
the release's DQInitStep reads the merged mask (``badpix check --pipeline`` in its environment). A row a release: what
the searches found and called wrong, and whether all agreed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ["1.18.1", "1.20.2", "2.0.1", "3.0.0"]
BADPIX = "from badpix.cli.main import badpix; badpix()"
VERSIONS = "import jwst, stcal, numpy; print(*(m.__version__ for m in (jwst, stcal, numpy)))"
SIMULATE = ["--detector", "NRCB1", "--size", "256 256", "--flats", "5", "--darks", "5", "--dark-groups", "20"]
RAW = ["--flat-products", "uncal", "--dark-products", "uncal", "--seed", "7301", "-q"]
TEXTS = ["--author", "A", "--descrip", "d", "--pedigree", "SIMULATION", "--overwrite", "-q"]


def run(python: Path | str, *words: str, folder: Path | None = None) -> str:
    """What a program says on stdout.

    Raises
    ------
    SystemExit
        With what it said last, if it failed.
    """
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run([str(python), *words], capture_output=True, text=True, cwd=folder, env=quiet)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: status {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def badpix(python: Path | str, *words: str) -> str:
    """A command of badpix, in one of the environments."""
    return run(python, "-P", "-c", BADPIX, *words)  # -P: not the folder badpix of where it is started


def make_environment(folder: Path, release: str) -> Path:
    """The interpreter of an environment with a release of the pipeline and this version of badpix."""
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        run(sys.executable, "-m", "venv", str(folder))
        run(python, "-m", "pip", "install", "-q", f"jwst=={release}")
        run(python, "-m", "pip", "install", "-q", str(ROOT))
        (folder / "made").touch()
    return python


def try_release(work: Path, release: str) -> list[str]:
    """Cells of the row of a release."""
    python = make_environment(work / f"env-{release}", release)
    versions = run(
        python, "-c", "import jwst, stcal, numpy as n; print(jwst.__version__, stcal.__version__, n.__version__)"
    )
    data = work / f"data-{release}"
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(work / "raw", data)
    run(python, str(ROOT / "tests" / "helpers" / "reduce.py"), str(data), folder=data)
    masks = {name: data / f"{name}.fits" for name in ("flats", "darks", "all")}
    for name in ("flats", "darks"):
        badpix(sys.executable, name, str(data / name), "-o", str(masks[name]), *TEXTS)
    badpix(sys.executable, "merge", str(masks["flats"]), str(masks["darks"]), "-o", str(masks["all"]), *TEXTS)
    badpix(sys.executable, "check", str(masks["all"]))
    badpix(python, "check", str(masks["all"]), "--pipeline")
    exposure = next((data / "darks").glob("*_rate.fits"))
    badpix(sys.executable, "explain", str(exposure), "100", "100", "--mask", str(masks["all"]))
    truth = next(data.glob("*_truth.fits"))
    score = json.loads(badpix(sys.executable, "score", str(masks["all"]), str(truth), "--json"))
    rows = [r for r in score["completeness"] if r["setting"] == "all"]
    found, all_of_them = (sum(r[key] for r in rows) for key in ("found", "injected"))
    false = sum(flag["false"] for flag in score["flags"])
    return [*versions.split(), f"{found:,} of {all_of_them:,}", str(false), "flag by flag"]


def main() -> None:
    """Simulate once, try each release, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("releases", nargs="*", default=RELEASES)
    args = parser.parse_args()
    work = args.workdir.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "raw").exists():
        badpix(sys.executable, "simulate", str(work / "raw"), *SIMULATE, *RAW)
    print("| jwst | stcal | numpy | defects found | false flags | its DQInitStep reads the mask |")
    print("|---|---|---|---|---|---|")
    for release in args.releases:
        print("| " + " | ".join(try_release(work, release)) + " |", flush=True)


if __name__ == "__main__":
    main()
