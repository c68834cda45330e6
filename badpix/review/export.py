"""A mask in other forms: list of pixels, DS9 regions, boolean image, table.

* ``list``: lines ``x y flag`` in the form of a manual list, 0-based, full frame. Every flag of every pixel is there
  (DO_NOT_USE and REFERENCE_PIXEL too), so reading the list back gives the same mask. Runs of pixels are written as
  ranges (``3:7``, inclusive), which keeps the reference border at four lines.
* ``ds9``: one region a pixel, 1-based image coordinates of the mask file, colored and tagged by type; read back as
  a manual list it gives the flags of all science pixels.
* ``fits``: one image of bytes, 1 = has one of the chosen flags (default DO_NOT_USE).
* ``csv``: ``x, y, value, flags``, and the evidence of each pixel where there is some; good reference pixels are left
  out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import dq
from badpix.errors import UsageError
from badpix.io.evidence import Evidence
from badpix.io.evidence_file import path_beside
from badpix.io.output import atomic_path, check_target, write_hdus, write_text
from badpix.mask.file import Mask
from badpix.mask.regions import FIRST_LINE
from badpix.outside import header_text, printable

FORMATS = {"list": (".txt", ".dat", ".list"), "ds9": (".reg",), "fits": (".fits", ".fit"), "csv": (".csv",)}

# Colors of the types on a light ground, told apart by color-blind readers too (after Okabe and Ito, and Tol).
COLORS = {
    "DEAD": "#000000",
    "HOT": "#D55E00",
    "WARM": "#E69F00",
    "LOW_QE": "#999933",
    "RC": "#CC79A7",
    "TELEGRAPH": "#117733",
    "UNRELIABLE_SLOPE": "#44AA99",
    "OPEN": "#0072B2",
    "ADJ_OPEN": "#88CCEE",
    "OTHER_BAD_PIXEL": "#882255",
    "UNRELIABLE_DARK": "#777777",
}


def choose_format(path: str | Path, given: str | None) -> str:
    """The format meant: the given one, else that of the file's ending.

    Raises
    ------
    UsageError
        If neither tells it.
    """
    if given:
        return given
    ending = Path(path).suffix.lower()
    for name, endings in FORMATS.items():
        if ending in endings:
            return name
    known = ", ".join(f"{e[0]} ({name})" for name, e in FORMATS.items())
    raise UsageError(f"{path}: ending {ending!r} tells no format; give --format or one of {known}")


def select(mask: Mask, flags: Sequence[str]) -> NDArray[np.uint32]:
    """The image with the chosen flags alone; all of them where none is named.

    Raises
    ------
    UsageError
        At an unknown flag.
    """
    if not flags:
        return mask.image
    for name in flags:
        if name.upper() not in dq.VALUE:
            raise UsageError(f"--flag: {name!r} is unknown{dq.suggest(name)}")
    return mask.image & np.uint32(sum({dq.VALUE[n.upper()] for n in flags}))


def write(
    mask: Mask,
    path: str | Path,
    form: str,
    *,
    flags: Sequence[str] = (),
    evidence: Evidence | None = None,
    one_based: bool = False,
    overwrite: bool = False,
) -> int:
    """Write a mask in another form; the number of pixels in it.

    Parameters
    ----------
    mask : Mask
        What to write.
    path : path
        Where to.
    form : str
        A key of :data:`FORMATS`.
    flags : sequence of str
        The flags that count; none means all (``fits``: DO_NOT_USE).
    evidence : Evidence, optional
        Further columns of ``csv``.
    one_based : bool
        Count pixels of ``list`` and ``csv`` from 1.
    overwrite : bool
        Replace an existing file.
    """
    path = check_target(path, overwrite, [mask.path, path_beside(mask.path)] if mask.path else [])
    chosen = select(mask, flags or (["DO_NOT_USE"] if form == "fits" else []))
    if form == "fits":
        _write_image(mask, chosen, path, flags or ["DO_NOT_USE"], overwrite)
    elif form == "list":
        write_text(path, make_list(mask, chosen, one_based), overwrite)
    elif form == "ds9":
        write_text(path, make_regions(mask, chosen), overwrite)
    else:
        write_text(path, make_csv(mask, chosen, evidence, one_based), overwrite)
    return int(np.count_nonzero(chosen))


# --- list ------------------------------------------------------------------------------------------------


def make_list(mask: Mask, image: NDArray[np.uint32], one_based: bool = False) -> str:
    """The manual list of an image in the window of ``mask``."""
    base = int(one_based)
    x0, y0 = mask.window.xstart - 1 + base, mask.window.ystart - 1 + base
    name = printable(mask.path.name) if mask.path else mask.detector
    out = [f"# {name}: {mask.detector}, pixels counted from {base}, full frame, ranges inclusive", "x y flag"]
    for flag in dq.FLAGS:
        for y, y1, x, x1 in find_boxes((image & np.uint32(flag.value)) != 0):
            out.append(f"{_span(x + x0, x1 + x0)} {_span(y + y0, y1 + y0)} {flag.name}")
    return "\n".join(out) + "\n"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}:{last}"


def find_boxes(flagged: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """Rectangles (first and last row, first and last column) that cover a map exactly and do not overlap.

    Runs along the rows; equal runs in rows that follow each other are joined.
    """
    open_runs: dict[tuple[int, int], int] = {}
    for y in range(flagged.shape[0] + 1):
        runs = _runs(flagged[y]) if y < flagged.shape[0] else set()
        for run in [r for r in open_runs if r not in runs]:
            yield open_runs.pop(run), y - 1, *run
        for run in sorted(runs):
            open_runs.setdefault(run, y)


def _runs(line: NDArray[np.bool_]) -> set[tuple[int, int]]:
    if not line.any():
        return set()
    edges = np.flatnonzero(np.diff(np.concatenate(([0], line.view(np.int8), [0]))))
    return {(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)}


# --- regions ---------------------------------------------------------------------------------------------


def make_regions(mask: Mask, image: NDArray[np.uint32]) -> str:
    """DS9 regions: one box a science pixel, in image coordinates of the mask file."""
    hidden = np.uint32(0xFFFFFFFF ^ dq.VALUE["DO_NOT_USE"])
    name = printable(mask.path.name) if mask.path else mask.detector
    out = [
        f"{FIRST_LINE} version 4.1",
        f"# {name}: types as tags, without the reference border; SUBSTRT1 = {mask.window.xstart}, "
        f"SUBSTRT2 = {mask.window.ystart}",
        "global color=red width=1 select=1 edit=0 move=0 delete=1 include=1",
        "image",
    ]
    y, x = np.nonzero((image != 0) & ~mask.reference)
    for a, b in zip(y, x, strict=True):
        value = int(image[a, b])
        names = dq.names(value & int(hidden)) or dq.names(value)
        color = next((COLORS[n] for n in names if n in COLORS), "#D55E00")
        tags = " ".join(f"tag={{{n}}}" for n in names)
        out.append(f"box({b + 1},{a + 1},1,1,0) # color={color} {tags}")
    return "\n".join(out) + "\n"


# --- image -----------------------------------------------------------------------------------------------


def _write_image(mask: Mask, image: NDArray[np.uint32], path: Path, flags: Sequence[str], overwrite: bool) -> None:
    header = fits.Header()
    for key in ("TELESCOP", "INSTRUME", "DETECTOR", "SUBARRAY", "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2"):
        if key in mask.header:
            header[key] = mask.header[key]
    header["MASKFILE"] = (header_text(mask.path.name if mask.path else ""), "mask that this comes from")
    header["BADFLAGS"] = (",".join(n.upper() for n in flags)[:68], "1: has one of these")
    primary = fits.PrimaryHDU((image != 0).astype(np.uint8), header=header)
    with atomic_path(path, overwrite) as temporary:
        write_hdus(temporary, fits.HDUList([primary]))


# --- table -----------------------------------------------------------------------------------------------


def make_csv(mask: Mask, image: NDArray[np.uint32], evidence: Evidence | None, one_based: bool = False) -> str:
    """One line a flagged science pixel: x, y (full frame), value, flags joined by ``|``, evidence."""
    base = int(one_based)
    y, x = np.nonzero((image != 0) & ((image & np.uint32(dq.VALUE["BAD_REF_PIXEL"]) != 0) | ~mask.reference))
    images = {} if evidence is None else evidence.images
    images = {k: v for k, v in images.items() if tuple(v.shape) == image.shape and not k.startswith("is_")}
    columns = [images[k][:, :][y, x] for k in images]
    stream = io.StringIO()
    stream.write(",".join(["x", "y", "value", "flags", *images]) + "\n")
    x0, y0 = mask.window.xstart - 1 + base, mask.window.ystart - 1 + base
    for k, (a, b) in enumerate(zip(y, x, strict=True)):
        value = int(mask.image[a, b])
        more = "".join(f",{c[k]:.6g}" for c in columns)
        stream.write(f"{b + x0},{a + y0},{value},{'|'.join(dq.names(value))}{more}\n")
    return stream.getvalue()
