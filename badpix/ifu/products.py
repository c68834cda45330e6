"""What flags of IFU exposures were decided on: the documented intermediate product, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from badpix.ifu.bands import Plan, sample_significance
from badpix.ifu.inputs import Exposure, axis_across, read_usable
from badpix.ifu.rank import measure_differences, measure_ratio, odd
from badpix.ifu.search import Found, measure_detector
from badpix.io.associations import Association, product_name
from badpix.io.figure import make_figure, save_figure
from badpix.io.flagged_copy import set_text
from badpix.outside import header_text

COLORS = {
    "percentile": "tab:red",
    "persistent": "tab:red",
    "partial": "tab:orange",
    "single": "tab:blue",
    "grown": "tab:cyan",
}


def name(association: Association, detector: str) -> str:
    """Name of the intermediate product of a detector; its root is that of the first member of all."""
    return product_name(association.members[0].path, association.asn_id, f"{detector.lower()}_outlier_output")


def write_differences(path: Path, final: str, first: Exposure, exposures: list[Exposure], p: Any) -> None:
    """Write the documented intermediate product of one detector.

    DIFFARR (n, ny, nx): smaller neighbor difference of each exposure; MINARR: smallest over the exposures;
    NORMARR: its local median, not below the floor; MINNORM: their ratio. All float32.

    Parameters
    ----------
    path : Path
        Where to write (a temporary path).
    final : str
        Name that the file will have.
    first : Exposure
        Its metadata go into the header.
    exposures : list of Exposure
        Those of the detector.
    p : mapping
        Parameters of ``outlier ifu``.
    """
    smallest, _ = measure_detector(exposures)
    ranked = measure_ratio(
        smallest, kernel_size=p.kernel_size, threshold_percent=p.threshold_percent, everywhere=True
    )
    header = first.cal.hdus[0].full_header
    header.setdefault("FILENAME", "")
    set_text(header, "FILENAME", header_text(final))
    header["DATAMODL"] = "OutlierIFUOutputModel"
    rows, columns = odd(p.kernel_size)
    header["KERNXSZ"] = (rows, "outlier detection kernel x size")
    header["KERNYSZ"] = (columns, "outlier detection kernel y size")
    header["THRSPRC"] = (p.threshold_percent, "outlier detection threshold percent")
    with path.open("wb") as out:
        out.write(header.tostring().encode("ascii"))
        shape = (len(exposures), *exposures[0].cal.shape)
        axis = axis_across(exposures)
        _write_image(out, "DIFFARR", shape, (measure_differences(read_usable(e.cal), axis) for e in exposures))
        for extension, values in (("MINARR", smallest), ("NORMARR", ranked.normal), ("MINNORM", ranked.ratio)):
            _write_image(out, extension, values.shape, [values])


def _write_image(out: BinaryIO, extension: str, shape: tuple[int, ...], planes: Any) -> None:
    """An image extension of float32, plane by plane."""
    from astropy.io import fits

    header = fits.ImageHDU(np.zeros((1,) * len(shape), "f4"), name=extension).header
    for axis, length in enumerate(reversed(shape), start=1):
        header[f"NAXIS{axis}"] = length
    out.write(header.tostring().encode("ascii"))
    for plane in planes:
        out.write(plane.astype(">f4").data)
    out.write(b"\0" * (-out.tell() % 2880))


# --- pictures --------------------------------------------------------------------------------------------


def plot_detector(found: Found, path: Path) -> None:
    """A picture of one detector: flagged pixels on its first exposure, and the statistic with its limits."""
    figure = make_figure(15, 7)
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    sci = read_usable(found.exposures[0].cal)
    low, high = np.nanpercentile(sci, [1, 99.5])
    left.imshow(sci, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    for reason, pixels in found.flagged[0].items():
        if reason in COLORS and pixels.size:
            y, x = np.unravel_index(pixels, sci.shape)
            label = f"{reason}: {pixels.size}"
            left.scatter(x, y, s=4, marker="s", linewidths=0, color=COLORS[reason], label=label)
    left.set(title=f"{found.detector}, {found.exposures[0].cal.path.name}", xlabel="x (pixels)", ylabel="y (pixels)")
    if left.get_legend_handles_labels()[0]:
        left.legend(loc="upper right")
    if found.plan is None:
        _plot_ratio(right, found)
    else:
        _plot_significance(right, found.plan, found.statistics)
    save_figure(figure, path, dpi=110)


def _plot_ratio(axes: Any, found: Found) -> None:
    limit = found.statistics["limit_ratio"]
    smallest, _ = measure_detector(found.exposures)
    ratio = measure_ratio(smallest, kernel_size=found.statistics["kernel_size"], threshold_percent=50).ratio
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    axes.hist(np.log10(ratio), bins=200, color="0.5")
    axes.axvline(np.log10(limit), color="tab:red", label=f"percentile: {limit:.3g}")
    axes.set(yscale="log", xlabel="log10 (smallest difference / local median)", ylabel="pixels")
    axes.set_title("Test statistic: pixels to the right of the limit are flagged")
    axes.legend()


def _plot_significance(axes: Any, plan: Plan, statistics: Mapping[str, Any]) -> None:
    values = sample_significance(plan)
    edges = np.linspace(-15, 15, 301)
    axes.hist(values.clip(-15, 15), bins=edges, color="0.5", label="sample of all exposures")
    for key, color in (("limit_single", "tab:blue"), ("limit_persistent", "tab:red")):
        limit = statistics[key]
        axes.axvline(limit, color=color, label=f"{key.replace('_', ': ')} {limit:.2f} (in all: with one sign)")
        axes.axvline(-limit, color=color)
    axes.set(yscale="log", xlabel="eta (sigma), before protection", ylabel="pixels")
    axes.set_title("Test statistic; outermost bins hold everything beyond")
    axes.legend()
