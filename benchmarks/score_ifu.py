"""What `outlier ifu` finds and wrongly flags on simulated exposures, beside the documented rank cut.

    python benchmarks/score_ifu.py SEED... [--cases flat spectra hard harsh] [--rows N] [--markdown]

Both rules see the same exposures in memory and are scored on the same pixels (badpix/simulation/score_ifu.py). One
row a case, over all seeds; ``--rows`` shortens the detectors along the dispersion. ``--markdown`` prints the tables
of docs/outlier-ifu.md.
"""

import argparse
from dataclasses import replace

import numpy as np

from badpix.ifu import noise, significance
from badpix.ifu.rank import measure_differences, measure_ratio
from badpix.ifu.residuals import solve_hit_limit, solve_thresholds
from badpix.settings.ifu import IfuSettings
from badpix.simulation import score_ifu
from badpix.simulation.ifu import simulate
from badpix.simulation.ifu_defects import HALF_BAD, Defects
from badpix.simulation.ifu_optics import DETECTORS
from badpix.simulation.ifu_scene import BRIGHT, FLAT, SCENES, Sky, without_dither

COLUMNS = {  # key of the score: heading
    "case": "case",
    "rule": "rule",
    "in_all": "in all",
    "in_all_strong": "in all > 50 sigma",
    "in_some": "in some",
    "cosmic_ray": "rays > 4",
    "cosmic_ray_strong": "rays > 10",
    "cosmic_ray_certain": "rays > 50",
    "false_per_million": "false per million",
    "false_on_sources_per_million": "on sources",
    "rows_losing": "rows losing 1 %",
}
FORMS = {"false_per_million": "{:.1f}", "false_on_sources_per_million": "{:.0f}", "rows_losing": "{:.2%}"}

NONE = Defects(in_all=0, in_some=0, cosmic_rays=0, known=0, negative=0)
TEN, FIFTY = (10.0, 10.01), (50.0, 50.01)


def case(detector, exposures, sky=None, defects=None, *, slices=True, **changed):
    """A row of the table."""
    return detector, exposures, sky or Sky(), defects or Defects(), slices, changed


EVEN = {"sky": FLAT, "slices": False}
CASES = {
    "flat": {
        "even noise, no defects": case("MIRIFUSHORT", 4, defects=NONE, **EVEN),
        **{
            f"50 sigma in all, {100 * share:g} %": case(
                "MIRIFUSHORT", 4, defects=replace(NONE, in_all=share, range_all=FIFTY), **EVEN
            )
            for share in (0.0005, 0.003, 0.009, 0.02)
        },
        **{
            f"10 sigma in one of {n}": case(
                "MIRIFUSHORT", n, defects=replace(NONE, in_some=0.0005, range_some=TEN, most=1), **EVEN
            )
            for n in (2, 3, 4)
        },
    },
    "spectra": {
        "MRS SHORT, 4": case("MIRIFUSHORT", 4),
        "MRS LONG, 4": case("MIRIFULONG", 4),
        "MRS SHORT, 2": case("MIRIFUSHORT", 2),
        "MRS SHORT, 8": case("MIRIFUSHORT", 8),
        "NRS1, 4": case("NRS1", 4),
    },
    "hard": {
        **{f"{scene}, 4": case("MIRIFUSHORT", 4, SCENES[scene]) for scene in ("spectra", "sharp", "lines", "knots")},
        "half-bad, 4": case("MIRIFUSHORT", 4, SCENES["half-bad"], Defects(in_half=HALF_BAD)),
    },
    "harsh": {
        "bright sharp sources, 4": case("MIRIFUSHORT", 4, BRIGHT),
        "the same, no dither": case("MIRIFUSHORT", 4, without_dither(BRIGHT)),
        "the same, one exposure": case("MIRIFUSHORT", 1, BRIGHT),
    },
}


def search(p, usable, errors, axis, dithered):
    """The default search on whole frames."""
    n = len(usable)
    sigma = [noise.measure_sigma(e, s) for e, s in zip(errors, usable, strict=True)]
    samples = noise.sample_band(usable, sigma, p.kernel_size, slice(0, len(usable[0])))
    names = (
        "min_sigma",
        "partial_sigma",
        "single",
        "lone_exposure",
        "lone_sigma",
        "grow_sigma",
        "grow_steps",
        "protect",
    )
    maps, _, _ = significance.find_significant(
        usable,
        sigma,
        level=noise.measure_level([samples], n),
        thresholds=solve_thresholds(n, p.false_alarm),
        hit_limit=solve_hit_limit(p.false_alarm),
        kernel_size=p.kernel_size,
        window=p.moved_window,
        across=axis,
        dithered=dithered,
        noise="both",
        protect_structure=0.3 if dithered else 0.6,
        **{name: getattr(p, name) for name in names},
    )
    return maps > 0


def search_documented(usable, axis):
    """The documented search on whole frames."""
    smallest = np.fmin.reduce([measure_differences(s, axis) for s in usable])
    ranked = measure_ratio(smallest, kernel_size=(7, 7), threshold_percent=99.8)
    with np.errstate(invalid="ignore"):
        return [ranked.ratio > ranked.limit] * len(usable)


def run(detector, exposures, sky, defects, slices, changed, seed, totals, rows=None):
    """One seed of one case, added to the totals of both rules."""
    shape = (rows, DETECTORS[detector].shape[1]) if rows else None
    made = simulate(detector, exposures, seed, sky=sky, defects=defects, slices=slices, shape=shape)
    usable = []
    for exposure in made:
        sci = exposure.arrays["SCI"].copy()
        sci[exposure.arrays["DQ"] & 1 > 0] = np.nan
        usable.append(sci)
    axis = 0 if DETECTORS[detector].transposed else 1
    p = IfuSettings(**changed)
    dithered = sky.dither > 0 and exposures > 1
    rules = {
        "documented": search_documented(usable, axis),
        "default": search(p, usable, [e.arrays["ERR"] for e in made], axis, dithered),
    }
    for rule, maps in rules.items():
        for exposure, sci, flagged in zip(made, usable, maps, strict=True):
            truth = exposure.amplitude, exposure.kind, exposure.light
            err = exposure.arrays["ERR"]
            counts = score_ifu.count_exposure(np.isfinite(sci), flagged, *truth, err=err, across=axis)
            for name, pair in counts.items():
                totals.setdefault((rule, name), np.zeros(2))
                totals[rule, name] += pair


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rows", type=int, help="of a shorter detector; the width stays")
    parser.add_argument("--markdown", action="store_true", help="as in docs/outlier-ifu.md")
    args = parser.parse_args()
    print_row(COLUMNS.values(), args.markdown)
    if args.markdown:
        print("|---" * len(COLUMNS) + "|")
    for group in args.cases:
        for title, row in CASES[group].items():
            totals = {}
            for seed in args.seeds:
                run(*row, seed, totals, args.rows)
            for rule in ("documented", "default"):
                found = score_ifu.summarize({name: pair for (r, name), pair in totals.items() if r == rule})
                cells = {"case": title, "rule": rule} | {
                    k: FORMS.get(k, "{:.4f}").format(v) for k, v in found.items()
                }
                print_row(["-" if "nan" in cells[name] else cells[name] for name in COLUMNS], args.markdown)


def print_row(cells, markdown):
    """A row of the table: for the docs, or in columns."""
    if markdown:
        print(f"| {' | '.join(cells)} |", flush=True)
    else:
        print(
            "".join(f"{cell[:28]:<29}" if i == 0 else f"{cell[:12]:>13}" for i, cell in enumerate(cells)), flush=True
        )


if __name__ == "__main__":
    main()
