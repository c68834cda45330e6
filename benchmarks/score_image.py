"""How good ``outlier image`` is: simulated associations, documented rule and default search, against the truth.

    python benchmarks/score_image.py WORKDIR [--scenes sw rolls ...] [--seed 2011] [--vary stand_out 0 1.5 2.5]
                                     [--markdown]

Simulates each scene of `outlier simulate-image` once (in WORKDIR), searches it with both parameter sets (or with one
parameter of the default varied) and prints a row for each: shares of hits found, false flags a million pixels on
blank sky and on sources, sources that lost more than 1 % of their flux to false flags, transients listed (and wrong
ones).
``--markdown`` prints the table of docs/outlier-image.md.
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
from badpix.simulation.score_image import score_events, score_run

SHAPES = {"sw": (1024, 1024), "two": (1024, 1024), "mosaic": (1024, 1024), "lw": (768, 768)}
SHAPE = (512, 512)  # of the others
CROWDED = (320, 320)  # scenes that take long to paint
COLUMNS = {  # key of the score: heading, form
    "cr5": ("hits > 5 sigma", "{:.3f}"),
    "cr20_100": ("20-100", "{:.3f}"),
    "cr20_100_source": ("20-100 on sources", "{:.3f}"),
    "cr20_single": ("single > 20", "{:.2f}"),
    "trail5": ("trail > 5", "{:.3f}"),
    "trail1_5": ("trail 1-5", "{:.3f}"),
    "halo1": ("halo", "{:.3f}"),
    "hot": ("hot", "{:.3f}"),
    "false_blank_per_million": ("false, blank", "{:,.0f}"),
    "false_on_source_per_million": ("false, sources", "{:,.0f}"),
    "sources_damaged": ("star-exposures", "{:.2%}"),
    "listed": ("listed", "{:.0f}"),
    "wrong": ("wrong", "{:.0f}"),
}


def make_setup(name: str, seed: int) -> Setup:
    """A scene at the size of the table."""
    shape = CROWDED if name in ("crowded", "nebula") else SHAPES.get(name, SHAPE)
    return Setup(**{**PRESETS[name], "seed": seed, "shape": shape})


def choices(vary: list[str] | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Label, parameter set and options of each search."""
    if not vary:
        yield "documented", "documented", {}
        yield "default", "default", {}
    for value in (vary or [])[1:]:
        yield f"{vary[0]} {value}", "default", {vary[0]: float(value)}  # type: ignore[index]


def measure(folder: Path, setup: Setup, parameter_set: str, values: dict[str, Any]) -> dict[str, float]:
    """The score of one search of a scene in ``folder``."""
    table = next(folder.glob("*_asn.json"))
    p = ImageSettings.from_values({"max_flagged": 100.0, **values}, "score_image", parameter_set)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        _, summary = image_driver.flag_images(read_inputs([table]), p, out)
        found = score_run(folder, Path(out))
    return {**found, **score_events(folder, summary.get("transients", []), setup)}


def main() -> None:
    """Simulate where needed, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--scenes", nargs="*", choices=sorted(PRESETS), default=list(PRESETS))
    parser.add_argument("--seed", type=int, default=2011, help="of the first scene; the others follow")
    parser.add_argument("--vary", nargs="+", metavar=("NAME", "VALUE"))
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    edge, rule = ("| ", "|" + "---|" * (len(COLUMNS) + 2)) if options.markdown else ("", "")
    print(edge + " | ".join(["scene", "search", *(heading for heading, _ in COLUMNS.values())]) + edge[::-1])
    if rule:
        print(rule)
    for name in options.scenes:
        setup = make_setup(name, options.seed + list(PRESETS).index(name))
        folder = options.workdir / f"{name}{setup.seed}"
        if not list(folder.glob("*_asn.json")):
            simulate(folder, setup)
        for label, parameter_set, values in choices(options.vary):
            found = measure(folder, setup, parameter_set, values)
            cells = [
                form.format(found[key]).replace("nan%", "").replace("nan", "") for key, (_, form) in COLUMNS.items()
            ]
            print(edge + " | ".join([f"`{name}`" if edge else name, label, *cells]) + edge[::-1], flush=True)


if __name__ == "__main__":
    main()
