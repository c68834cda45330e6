"""One self-contained page about a mask, that opens offline in any browser and prints.

1. Read the mask, its evidence and the previous mask; run the checks.
2. Tables and charts are made here, as HTML and SVG; the texts of the file are escaped.
3. The map is data for the page's script: each pixel's flags as a number into a palette of the values that occur,
   stored as a PNG image (the browser unpacks it), and the evidence of the flagged pixels as half-precision numbers.
4. The shared frame and style (``configs/page.*``), the body and the script are put together into one file; nothing is
   loaded from anywhere, and nothing depends on the clock, so equal masks give equal pages.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import DataError
from badpix.io.evidence import Evidence
from badpix.io.output import write_text
from badpix.mask import file as mask_file
from badpix.mask.file import Mask
from badpix.review import check, compare, readings, words
from badpix.review.export import COLORS
from badpix.review.page import fill_page, read_asset
from badpix.review.report_changes import transitions_table, update_table
from badpix.review.report_counts import count_table, search_table
from badpix.review.report_depth import depth_block
from badpix.review.report_head import check_list, facts_table, headline
from badpix.review.report_history import glossary, history_block, inputs_block, parameters_table
from badpix.review.report_science import science_block
from badpix.review.report_time import time_block
from badpix.review.report_where import amplifier_table, profiles
from badpix.review.report_why import histogram_figures, ramp_examples
from badpix.settings.check import CheckSettings

log = logging.getLogger(__name__)

SIZE_LIMIT = 5_000_000  # bytes of the page
EVIDENCE_BUDGET = 1_800_000  # bytes of evidence before base64
PRIORITY = (
    "DEAD OPEN HOT RC TELEGRAPH LOW_QE OTHER_BAD_PIXEL WARM UNRELIABLE_SLOPE ADJ_OPEN".split()
)  # which color a pixel with several flags gets
OTHER_COLOR = "#777777"


def write_report(
    path: str | Path,
    target: str | Path,
    limits: CheckSettings,
    *,
    against: str | Path | None = None,
    evidence: str | Path | None = None,
    ramps: Sequence[Path] = (),
    overwrite: bool = False,
) -> int:
    """Write the page of a mask; its size in bytes.

    Parameters
    ----------
    path : path
        The MASK file.
    target : path
        The HTML file.
    limits : mapping
        Checked values of ``settings.check``.
    against, evidence : path, optional
        The previous mask; the evidence, if it does not lie beside the mask.
    ramps : sequence of Path
        Exposures with groups, for examples.
    overwrite : bool
        Replace an existing page.

    Raises
    ------
    DataError
        If the mask can't be read or the page would be too large.
    """
    mask = mask_file.read_mask(path, check_sums=False)  # the page shows what the check says of them
    checked = check.check_mask(path, limits, against=against)
    previous = mask_file.read_mask(against, check_sums=False) if against else None
    notes = [said for one in (path, against) if one and (said := mask_file.describe_sums(one))]
    with readings.open_evidence(mask, evidence) as (found, note):  # one image in memory at a time
        notes += [note] if note else []
        for line in notes:
            log.warning(line)
        text = make_page(mask, found, checked, previous, ramps, notes)
    size = len(text.encode("utf-8"))
    if size > SIZE_LIMIT:
        raise DataError(
            f"{target}: the page would have {size / 1e6:.1f} MB, at most {SIZE_LIMIT / 1e6:.0f} are meant"
        )
    write_text(target, text, overwrite)
    return size


def make_page(
    mask: Mask,
    evidence: Evidence | None,
    checked: check.Checked,
    previous: Mask | None,
    ramps: Sequence[Path] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page as text."""
    pair = compare.compare(previous, mask) if previous is not None else None
    parts = {
        "TITLE": html.escape(f"{mask.detector} mask {mask.path.name if mask.path else ''}".strip()),
        "HEADLINE": headline(mask, checked, previous),
        "FACTS": facts_table(mask),
        "CHECKS": check_list(checked),
        "COUNTS": count_table(mask, checked, pair, COLORS),
        "SEARCHES": search_table(mask, evidence),
        "DEPTH": depth_block(evidence),
        "TIME": time_block(mask, evidence),
        "CHANGES": update_table(mask, evidence) + transitions_table(pair, previous),
        "HISTOGRAMS": histogram_figures(mask, evidence),
        "AMPLIFIERS": amplifier_table(mask),
        "PROFILES": profiles(mask),
        "SCIENCE": science_block(mask, evidence),
        "RAMPS": ramp_examples(mask, evidence, ramps),
        "PARAMETERS": parameters_table(mask),
        "INPUTS": inputs_block(mask),
        "HISTORY": history_block(mask),
        "GLOSSARY": glossary(mask),
        "NOTE": "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        "DATA": _safe_json(map_data(mask, evidence, pair)),
    }
    return fill_page(read_asset("report_body.html"), parts, script=read_asset("report.js"))


def _safe_json(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


# --- data of the map -------------------------------------------------------------------------------------


def map_data(mask: Mask, evidence: Evidence | None, pair: compare.Comparison | None) -> dict[str, Any]:
    """Everything that the script needs to draw the map and to read out a pixel."""
    values, index = find_palette(mask.image)
    used = int(np.bitwise_or.reduce(values)) | (int(np.bitwise_or.reduce(pair.old, axis=None)) if pair else 0)
    present = [f for f in dq.FLAGS if used & f.value]
    data: dict[str, Any] = {
        "nx": mask.image.shape[1],
        "ny": mask.image.shape[0],
        "x0": mask.window.xstart - 1,
        "y0": mask.window.ystart - 1,
        "flags": [
            {
                "bit": f.bit,
                "name": f.name,
                "color": COLORS.get(f.name, OTHER_COLOR),
                "text": words.lower_first(f.description),
            }
            for f in present
        ],
        "allNames": [{"bit": f.bit, "name": f.name} for f in dq.FLAGS],
        "priority": [n for n in PRIORITY if n in {f.name for f in present}],
        "palette": [int(v) for v in values],
        "image": encode_png(index),
        "pixels": int(np.count_nonzero(mask.image)),
    }
    if pair is not None and pair.old.shape == mask.image.shape:
        old_values, old_index = find_palette(pair.old)
        data["old"] = {
            "palette": [int(v) for v in old_values],
            "image": encode_png(old_index),
        }
    if evidence is not None:
        data |= _evidence_data(mask, evidence)
    return data


def find_palette(image: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The values that occur in an image (0 first, also where it does not), and each pixel's place among them."""
    where = image != 0
    found = np.unique(image[where])
    index = np.zeros(image.shape, np.int64)
    index[where] = np.searchsorted(found, image[where]) + 1
    return np.concatenate(([np.uint32(0)], found)), index


def _evidence_data(mask: Mask, evidence: Evidence) -> dict[str, Any]:
    """Quantities of the flagged science pixels, in row-major order, and the rules that they were compared by."""
    compared = {r.quantity for r in evidence.rules} | {r.limit for r in evidence.rules}
    wanted = [n for n in evidence.images if n in compared] or list(evidence.images)
    silent = (readings.WITHHELD, readings.OTHERWISE)
    names = [n for n in wanted if not n.startswith("is_") and not n.endswith(silent)]
    y, x = np.nonzero((mask.image != 0) & ((mask.image & np.uint32(dq.VALUE["REFERENCE_PIXEL"])) == 0))
    room = EVIDENCE_BUDGET // (2 * max(len(names), 1))
    kept = np.arange(y.size)
    if y.size > room:  # an even choice, the same every time
        kept = np.unique(np.linspace(0, y.size - 1, room).astype(np.int64))
    quantities = [{"name": n, "data": _half(evidence.images[n][:, :][y[kept], x[kept]])} for n in names]
    rules = [
        {
            **r._asdict(),
            "limit": r.limit if isinstance(r.limit, str) else float(r.limit),
            "flags": readings.flags_of_search(mask, r.search),
        }
        for r in evidence.rules
        if r.quantity in names and (not isinstance(r.limit, str) or r.limit in names)
    ]
    out: dict[str, Any] = {"quantities": quantities, "rules": rules}
    if kept.size < y.size:
        out["kept"] = base64.b64encode(kept.astype("<u4").tobytes()).decode("ascii")
    return out


def _half(values: NDArray[Any]) -> str:
    """Half-precision numbers (three digits), base64."""
    limited = np.clip(values.astype(np.float32), -65504, 65504)
    return base64.b64encode(limited.astype("<f2").tobytes()).decode("ascii")


def encode_png(index: NDArray[Any]) -> str:
    """An image of small whole numbers as a PNG data URL: gray up to 255, else high byte in red, low byte in green."""
    ny, nx = index.shape
    if index.max(initial=0) < 256:
        kind, rows = 0, index.astype(np.uint8).reshape(ny, nx)
    else:
        if index.max() >= 65536:
            raise DataError("the mask has more than 65,535 different combinations of flags")
        kind = 2
        rows = np.zeros((ny, nx, 3), np.uint8)
        rows[..., 0], rows[..., 1] = index >> 8, index & 255
        rows = rows.reshape(ny, 3 * nx)
    raw = np.zeros((ny, rows.shape[1] + 1), np.uint8)  # each line starts with its filter: none
    raw[:, 1:] = rows
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", nx, ny, 8, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw.tobytes(), 9)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
