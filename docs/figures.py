"""The pictures of the documentation, made from simulated exposures: ``make figures``.

    python docs/figures.py [WORKDIR]

1. A small detector with known defects is simulated, and its masks are made, by the commands themselves.
2. Pictures are drawn by the functions that draw those of ``--plot``; the flow is drawn here.
3. Colors are reduced, so that each file stays below :data:`LARGEST` bytes: they lie in the repository.

The report's picture needs Chromium and is left as it is where there is none.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import figures_light
import numpy as np
from astropy.io import fits

from badpix.io import evidence_file
from badpix.io.figure import make_figure, save_figure
from badpix.mask.file import read_mask
from badpix.review import plots, plots_ramps
from badpix.review.export import COLORS as TYPE_COLORS
from badpix.review.pixel_ramps import read_ramps

TARGET = Path(__file__).parent / "_static/figures"
LARGEST = 60_000  # bytes of a picture
COLORS, REPORT_COLORS = 48, 200
EXAMPLES = {  # type of the simulation's truth: level, title
    "HOT": (3.0, "HOT: dark current"),
    "RC": (3000.0, "RC: settles at the start"),
    "IRC": (1000.0, "inverse RC: settles upwards"),
    "TELEGRAPH": (300.0, "TELEGRAPH: two levels"),
    "NOISY": (6.0, "UNRELIABLE_SLOPE: noise"),
    "LOW_PEDESTAL": (4000.0, "low pedestal: starts far below"),
}
LINES = [  # arrows of the flow: from x, y to x, y
    (1.4, 3.0, 2.6, 3.0),
    (1.75, 1.8, 2.25, 1.8),
    (1.8, 0.6, 5.85, 0.6),
    (1.8, 0.7, 5.85, 1.6),
    (4.8, 2.9, 6.0, 2.15),
    (5.15, 1.8, 5.85, 1.8),
    (5.0, 1.5, 5.85, 0.8),
    (4.6, 2.7, 6.35, 0.95),
    (7.2, 1.8, 7.75, 1.8),
    (7.2, 0.7, 7.95, 1.45),
    (8.95, 2.1, 9.3, 2.7),
    (9.02, 1.8, 9.17, 1.8),
    (8.95, 1.5, 9.3, 0.95),
]
BROWSER = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()


def run(group: str, *words: object) -> None:
    """A command, as a shell calls it."""
    code = f"from badpix.cli.main import {group}; {group}()"
    subprocess.run([sys.executable, "-c", code, *map(str, words), "-q"], check=True, stdout=subprocess.DEVNULL)


# --- 1. exposures and masks ------------------------------------------------------------------------------


def make_masks(work: Path) -> None:
    """A detector of 256 x 256 pixels, five flats and five darks, and its mask."""
    run(
        "badpix",
        "simulate",
        work / "sim",
        "--detector",
        "NRCB1",
        "--size",
        "256 256",
        "--flats",
        5,
        "--darks",
        5,
        "--dark-groups",
        60,
        "--defects-per-level",
        8,
        "--overwrite",
    )
    texts = [
        "--pedigree",
        "SIMULATION",
        "--author",
        "make figures",
        "--descrip",
        "A simulated NRCB1",
        "--useafter",
        "2026-01-01",
        "--overwrite",
    ]
    run("badpix", "flats", work / "sim/flats", "-o", work / "flats.fits", *texts)
    run("badpix", "darks", work / "sim/darks", "-o", work / "darks.fits", *texts)
    run("badpix", "merge", work / "flats.fits", work / "darks.fits", "-o", work / "mask.fits", *texts)
    run(
        "badpix",
        "report",
        work / "mask.fits",
        "-o",
        work / "report.html",
        "--overwrite",
        "--ramps",
        work / "sim/darks",
    )
    run("outlier", "simulate-image", work / "image", "--size", "256 256", "--groups", 4, "--overwrite")
    run("outlier", "image", next((work / "image").glob("*asn.json")), "-o", work / "crf", "--overwrite")


# --- 2. pictures -----------------------------------------------------------------------------------------


def draw_ramps(work: Path) -> Path:
    """One ramp of each type, and that of a good pixel."""
    with fits.open(next((work / "sim").glob("*_truth.fits"))) as hdus:
        defects, good = hdus["DEFECTS"].data, hdus["GOOD"].data
    y, x = np.argwhere(good != 0)[len(np.argwhere(good != 0)) // 2]
    chosen = {"a good pixel": (int(x), int(y))}
    for kind, (level, title) in EXAMPLES.items():
        row = next(r for r in defects if r["TYPE"].strip() == kind and np.isclose(r["LEVEL"], level))
        chosen[title] = int(row["X"]), int(row["Y"])
    files = sorted((work / "sim/darks").glob("*_jump.fits"))[:1]
    figure = make_figure(10.5, 5.2)
    handles: dict[str, Any] = {}
    for k, (title, (column, line)) in enumerate(chosen.items(), 1):
        axes = figure.add_subplot(2, 4, k)
        plots_ramps.draw_ramp(axes, read_ramps(files, column, line)[0], legend=False)
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault("fit" if label.startswith("fit") else label, handle)
    figure.legend(handles.values(), handles.keys(), loc="lower right", frameon=False, fontsize=9)
    return save_figure(figure, TARGET / "ramps.png", dpi=90)


def draw_flow() -> Path:
    """From exposures to a mask, and what comes after."""
    figure = make_figure(10.5, 3.6)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, 10.5)
    axes.set_ylim(0, 3.6)

    def box(x: float, y: float, title: str, text: str, color: str) -> None:
        axes.text(
            x,
            y,
            f"{title}\n{text}",
            ha="center",
            va="center",
            fontsize=8.5,
            linespacing=1.5,
            bbox={"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "#5A6570"},
        )

    def arrow(x0: float, y0: float, x1: float, y1: float) -> None:
        axes.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", "color": "#5A6570"})

    files, command, product = "#EEF2F5", "#D6E8F4", "#FBE7D5"
    box(1.0, 3.0, "flats", "rate", files)
    box(1.0, 1.8, "darks", "rateints, jump, fitopt", files)
    box(1.0, 0.6, "lists, older mask", "by hand, last month", files)
    box(3.7, 3.0, "badpix flats", "DEAD  LOW_QE  OPEN  ADJ_OPEN", command)
    box(3.7, 1.8, "badpix darks", "HOT  RC  TELEGRAPH  noisy  low pedestal", command)
    box(6.55, 1.8, "badpix merge", "the first mask", command)
    box(6.55, 0.6, "badpix update", "every later one", command)
    box(8.4, 1.8, "MASK", "and its evidence", product)
    box(9.85, 3.0, "check  deliver", "to CRDS", command)
    box(9.85, 1.8, "explain  report", "why is it flagged?", command)
    box(9.85, 0.6, "jwst pipeline", "override_mask", files)
    for line in LINES:
        arrow(*line)
    return save_figure(figure, TARGET / "flow.png", dpi=90)


def draw_histogram(work: Path) -> Path:
    """Dark rates with the limit that decides."""
    mask = read_mask(work / "darks.fits")
    found, _ = evidence_file.read(evidence_file.path_beside(mask.path))
    return plots.draw_histogram(found, "dark_rate", "dark rate, DN/s", TARGET / "histogram.png", "", mask.image)


def draw_outliers(work: Path) -> Path:
    """The same piece of sky before and after: what was flagged in four dithered images."""
    figure = make_figure(10.5, 3.0)
    before = sorted((work / "image").glob("*_cal.fits"))
    for k, path in enumerate(before[:4], 1):
        after = next((work / "crf").glob(path.name.split("_cal")[0] + "*_crf.fits"))
        image, old, new = fits.getdata(path, "SCI"), fits.getdata(path, "DQ"), fits.getdata(after, "DQ")
        place = slice(96, 176), slice(96, 176)
        part, flagged = image[place], ((new & ~old & 1) != 0)[place]
        axes = figure.add_subplot(1, 4, k)
        low, high = np.nanpercentile(part, (5, 99))
        axes.imshow(part, origin="lower", vmin=low, vmax=high, cmap="gray_r", interpolation="nearest")
        y, x = np.nonzero(flagged)
        axes.scatter(x, y, s=14, marker="s", facecolors="none", edgecolors=plots.FLAGGED, linewidths=0.8)
        axes.set_title(f"exposure {k}: {int(flagged.sum())} pixels flagged", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return save_figure(figure, TARGET / "outliers.png", dpi=90)


def shoot_report(work: Path) -> Path | None:
    """The report page as a browser shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return None
    path = TARGET / "report.png"
    with tempfile.TemporaryDirectory() as profile:
        words = [*BROWSER, f"--user-data-dir={profile}", "--window-size=1100,1150", f"--screenshot={path}"]
        page = (work / "report.html").resolve().as_uri()
        subprocess.run([browser, *words, page], check=True, capture_output=True, timeout=120)
    return path


# --- 3. small files --------------------------------------------------------------------------------------


def reduce_colors(path: Path) -> None:
    """Fewer colors; the report is also made smaller.

    Raises
    ------
    ValueError
        If the file stays too large.
    """
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if path.name == "report.png":
        image = image.resize((image.width * 3 // 5, image.height * 3 // 5), Image.Resampling.LANCZOS)
    if path.name == "report.png":  # the colors of the types must stay what the legend says
        types = [int(color[k : k + 2], 16) for color in TYPE_COLORS.values() for k in (1, 3, 5)]
        palette = Image.new("P", (1, 1))
        palette.putpalette(types + (image.quantize(REPORT_COLORS).getpalette() or []))
        image = image.quantize(palette=palette, dither=Image.Dither.NONE)
    else:
        image = image.quantize(COLORS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, expected at most {LARGEST}")


def main() -> None:
    """All pictures."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(sys.argv[1] if len(sys.argv) > 1 else folder)
        make_masks(work)
        made = [draw_ramps(work), draw_flow(), draw_histogram(work), draw_outliers(work), shoot_report(work)]
        made += [figures_light.draw_dispersed(TARGET), figures_light.draw_areas(TARGET)]
        for path in filter(None, made):
            reduce_colors(path)
            sys.stdout.write(f"{path} {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
