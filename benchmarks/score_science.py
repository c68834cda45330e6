"""How many bad pixels `badpix science` finds in simulated programs, and what simpler stacks do with the same files.

    python benchmarks/score_science.py SEED... [--own] [--scenes deep,mrs] [--peers PYTHON] [--size 256]

For each program of `badpix simulate-science` (with --own: of a generator of its own, `own_science.py`) and each seed:
the share of bad pixels flagged whose mean excess is above five (and above eight) times the noise of the stack, by
type, and false flags per million good pixels. With
--peers, an interpreter that has `snowblind` and `jwst`: snowblind's OpenPixelStep (its mask of the median image, hot
only, default threshold) and the core of jwst's badpix_selfcal (minimum image, default fractions) on the same files.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import own_science

from badpix.api.science import find_science_defects
from badpix.mask.header import check_texts
from badpix.settings.reference import ReferenceSettings
from badpix.settings.simulate_science import ScienceProgramSettings
from badpix.simulation.science import simulate
from badpix.simulation.science_light import PROGRAMS
from badpix.simulation.truth_file import read_truth

PEERS = """
import sys, types, warnings
import numpy as np
from astropy.io import fits
warnings.simplefilter("ignore")
from jwst.badpix_selfcal.badpix_selfcal import badpix_selfcal
from snowblind.selfcal import OpenPixelStep
axis, out, names = sys.argv[1], sys.argv[2], sys.argv[3:]
stack = np.array([fits.getdata(n, "SCI") for n in names])
step = types.SimpleNamespace(threshold=3.0, flag_low_signal_pix=False)
mask, _ = OpenPixelStep.create_hotpixel_mask(step, stack)
core = np.zeros(mask.shape, bool)
dispaxis = {"None": None, "1": 1, "0": 2}[axis]
core[badpix_selfcal(np.nanmin(stack, axis=0), dispaxis=dispaxis)] = True
np.savez(out, snowblind=mask, selfcal=core)
"""
AXES = {"slices_y": 0, "slices_x": 1, "traces": 1}
TYPES = ("STEADY", "BORN", "LOW_QE", "SWITCHING")
OWN = dict(zip(TYPES, ("hot", "born", "low", "switching"), strict=True))
LEAST_LIT = 3  # exposures in which a switching pixel that counts is lit: two bright values are particles to anyone
Set = tuple[list[Path], np.ndarray, dict[str, Any]]  # files, good pixels, y, x, strength of each type


def simulate_own(folder: Path, scene: str, seed: int, size: int) -> Set:
    """A program of the own generator."""
    paths, rows, unseen = own_science.make_program(folder, scene, seed, size)
    good = ~unseen
    good[rows["y"], rows["x"]] = False
    shown = rows[(rows["kind"] != "switching") | (rows["lit"] >= LEAST_LIT)]
    return paths, good, {k: shown[shown["kind"] == own][["y", "x", "strength"]] for k, own in OWN.items()}


def simulate_ours(folder: Path, scene: str, seed: int, size: int) -> Set:
    """A program of `badpix simulate-science`."""
    paths = simulate(folder, ScienceProgramSettings(scene=scene, seed=seed, size=(size, size)))["exposures"]
    _, truth, rows = read_truth(folder / "truth.fits")
    shown = rows[(rows["type"] != "SWITCHING") | (rows["extra2"] * len(paths) > LEAST_LIT - 0.5)]
    return paths, truth == 0, {k: shown[shown["type"] == k][["y", "x", "extra1"]] for k in TYPES}


def run_peers(python: str, paths: list[Path], axis: int | None, folder: Path) -> dict[str, np.ndarray]:
    """Maps of the other tools."""
    out = folder / "peers.npz"
    subprocess.run([python, "-c", PEERS, str(axis), str(out), *map(str, paths)], check=True, capture_output=True)
    return dict(np.load(out))


def count(flagged: np.ndarray, good: np.ndarray, rows: dict[str, Any], total: dict[str, np.ndarray]) -> None:
    """Add (found, injected) of each type above five and eight, and (false, good)."""
    for kind in TYPES:
        y, x, strength = (rows[kind][name] for name in rows[kind].dtype.names)
        for least in (5, 8):
            mine = np.abs(strength) > least
            total[f"{kind} {least}"] += (flagged[y[mine], x[mine]].sum(), mine.sum())
    total["false"] += ((flagged & good).sum(), good.sum())


def tell(name: str, total: dict[str, np.ndarray]) -> str:
    """One row of the table."""
    cells = [f"{name:<22}"]
    for kind in TYPES:
        shares = [100 * total[f"{kind} {least}"][0] / max(total[f"{kind} {least}"][1], 1) for least in (5, 8)]
        cells.append(f"{shares[0]:5.1f} {shares[1]:5.1f} of {total[f'{kind} 5'][1]:>4}")
    false, good = total["false"]
    return "  ".join([*cells, f"{1e6 * false / good:9.1f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seeds", nargs="+", type=int)
    parser.add_argument("--scenes", default=",".join(PROGRAMS))
    parser.add_argument("--peers")
    parser.add_argument("--own", action="store_true")
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    texts = check_texts(ReferenceSettings(author="benchmark"))
    head = "  ".join(f"{kind + ' >5 >8 %':<19}" for kind in TYPES)
    print(f"{'program':<22}  {head}  false per million", flush=True)
    for scene in args.scenes.split(","):
        totals: dict[str, dict[str, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros(2, int)))
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
                folder = Path(name)
                paths, good, rows = (simulate_own if args.own else simulate_ours)(folder, scene, seed, args.size)
                found = find_science_defects(paths, texts=texts)
                maps = {"badpix": np.any(list(found.maps.values()), axis=0)}
                if args.peers:
                    maps |= run_peers(args.peers, paths, AXES.get(PROGRAMS[scene].kind), folder)
                for tool, flagged in maps.items():
                    count(flagged, good, rows, totals[tool])
        for tool, total in totals.items():
            print(tell(f"{scene} {tool}", total), flush=True)


if __name__ == "__main__":
    main()
