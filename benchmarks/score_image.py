"""How good ``outlier image`` is: simulated associations, documented rule and default search, against the truth.

    python benchmarks/score_image.py WORKDIR [--sets sw two ...] [--seed 2011] [--vary stand_out 0 1.5 2.5]

Simulates each set once (in WORKDIR), searches it with both parameter sets (or with one parameter of the default
varied) and prints a row for each: shares of hits found, false flags a million pixels, sources that lost more than 1 %
of their flux to false flags.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from badpix.image import driver as image_driver
from badpix.io.associations import read_inputs
from badpix.settings.image import ImageSettings
from badpix.simulation.image import simulate
from badpix.simulation.image_setup import PRESETS, Setup
from badpix.simulation.score_image import score_run

LW = PRESETS["lw"]
SETS: dict[str, dict[str, Any]] = {
    "sw": {},
    "sw2": {"detectors": ("NRCB1", "NRCB2"), "shape": (640, 640)},
    "three": {"groups": 3, "detectors": ("NRCB1", "NRCB2"), "shape": (512, 512)},
    "two": {"groups": 2},
    "skies": {**PRESETS["skies"], "shape": (512, 512)},
    "narrow": {"fwhm": 0.9, "psf": "gaussian", "sky_differs": True, "shape": (768, 768)},
    "gaussian": {"psf": "gaussian", "shape": (768, 768)},
    "rolls": {**PRESETS["rolls"], "shape": (512, 512)},
    "steps": {**PRESETS["steps"], "shape": (512, 512)},
    "mosaic": PRESETS["mosaic"],
    "lw": {**LW, "shape": (768, 768)},
}
COLUMNS = {
    "cr5": "{:.3f}", "cr20": "{:.3f}", "cr20_covered": "{:.4f}", "cr20_single": "{:.2f}", "trail5": "{:.3f}",
    "hot": "{:.3f}", "false_per_million": "{:.0f}", "false_steep_per_million": "{:,.0f}",
    "sources_damaged": "{:.2%}", "mean_loss": "{:.2%}",
}  # fmt: skip


def choices(vary: list[str] | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Label, parameter set and options of each search."""
    if not vary:
        yield "documented", "documented", {}
        yield "default", "default", {}
    for value in (vary or [])[1:]:
        yield f"{vary[0]} {value}", "default", {vary[0]: float(value)}  # type: ignore[index]


def main() -> None:
    """Simulate where needed, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--sets", nargs="*", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--seed", type=int, default=2011, help="of the first set; the others follow")
    parser.add_argument("--vary", nargs="+", metavar=("NAME", "VALUE"))
    options = parser.parse_args()
    print(" | ".join(["set", "search", *COLUMNS]))
    for name in options.sets:
        seed = options.seed + list(SETS).index(name)
        folder = options.workdir / f"{name}{seed}"
        table = next(folder.glob("*_asn.json"), None) or simulate(folder, Setup(seed=seed, **SETS[name]))
        for label, parameter_set, values in choices(options.vary):
            p = ImageSettings.from_values(values, "score_image", parameter_set)
            with tempfile.TemporaryDirectory(dir=options.workdir) as out:
                image_driver.flag_images(read_inputs([table]), p, out)
                found = score_run(folder, Path(out))
            row = [form.format(found[key]) for key, form in COLUMNS.items()]
            print(" | ".join([name, label, *row]), flush=True)


if __name__ == "__main__":
    main()
