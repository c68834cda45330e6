"""The MASK reference file: its header, its two extensions, reading and writing.

The layout is that which CRDS certifies and the pipeline's DQ initialization decodes: no data in the primary HDU,
``DQ`` as unsigned 32-bit integers in standard bits, ``DQ_DEF`` from the same flag table, no ASDF. A file is
written under a temporary name, read back, decoded and checked by :mod:`badpix.mask.rules` before it is renamed into
place. Equal inputs and parameters give equal bytes: no clock time enters the file (DATE is that of the newest input).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix import detectors, dq
from badpix.detectors import Window
from badpix.errors import DataError
from badpix.io.fits import as_bits, open_fits, plain_header, unpacked
from badpix.io.headers import refuse_stripes
from badpix.io.output import atomic_path, check_target, table_hdu, write_hdus
from badpix.io.structure import walk
from badpix.io.sums import Sum, read_sums
from badpix.mask.combine import standard_bits
from badpix.mask.file_as_found import describe_exposure
from badpix.outside import header_text

LARGEST = 1 << 15  # SUBSTRT beyond this is no place on a detector
# Extensions of files that are no masks, and what those files are.
OWN_TABLES = {
    "RULES": "the evidence of a mask",
    "DEFECTS": "the truth of a simulation",
}


@dataclass(frozen=True)
class Mask:
    """A MASK in memory.

    Attributes
    ----------
    image : uint32 ndarray
        (ny, nx), standard bits, science frame.
    detector : str
        DETECTOR.
    window : Window
        Place on the detector.
    header : dict
        Primary keywords of the file it was read from; empty for a new one.
    history : list of str
        HISTORY cards of that file.
    path : Path or None
        That file.
    """

    image: NDArray[np.uint32]
    detector: str
    window: Window
    header: dict[str, Any] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    path: Path | None = None

    @property
    def reference(self) -> NDArray[np.bool_]:
        """Reference pixels: by geometry, and those that the image itself marks (IRS2)."""
        border = detectors.measure_border(detectors.get(self.detector), self.window)
        marked = (self.image & dq.VALUE["REFERENCE_PIXEL"]) != 0
        found: NDArray[np.bool_] = border | marked
        return found

    @property
    def is_full(self) -> bool:
        """Whether the mask covers the whole detector."""
        size = (self.window.ysize, self.window.xsize)
        return size == detectors.get(self.detector).shape or self.window.ysize == detectors.IRS2_ROWS


# --- reading ---------------------------------------------------------------------------------------------


def read_mask(path: str | Path, *, check_sums: bool = True) -> Mask:
    """A MASK file, decoded into standard bits through its own DQ_DEF, as the pipeline does.

    Parameters
    ----------
    path : path
        The file, also gzipped or fpacked.
    check_sums : bool
        Whether wrong checksums are an error.

    Raises
    ------
    DataError
        If it is no MASK file, a flag would be lost in decoding, or its content is not what was written.
    """
    path = Path(path)
    with unpacked(path) as source:
        if check_sums:
            _check_sums(path, source)
        return _read_mask(path, source)


def _check_sums(path: Path, source: Path) -> None:
    """Refuse data that are not what was written (DATASUM).

    A CHECKSUM that is wrong beside a right DATASUM tells of an edited header: stdatamodels 6.0.0 copies the sums of
    the original along when it saves a model, and its copies are sound. `check` reports them.
    """
    if said := _describe_wrong(one for one in read_sums(source, path) if one.keyword == "DATASUM"):
        raise DataError(
            f"{path}: {said}; --ignore-checksum uses it as it is (in the YAML of a rebuild: merge: ignore_checksum: "
            "true)"
        )


def describe_sums(path: str | Path) -> str:
    """Which checksums of a file are wrong, for a message; empty if none is."""
    path = Path(path)
    with unpacked(path) as source:
        said = _describe_wrong(read_sums(source, path))
    return f"{path}: {said}" if said else ""


def _describe_wrong(sums: Iterable[Sum]) -> str:
    wrong = [f"{one.keyword} of {one.extension}" for one in sums if one.right is False]
    return f"{', '.join(wrong)} is wrong: the file was changed after it was written" if wrong else ""


def _read_mask(path: Path, source: Path) -> Mask:
    with open_fits(path, source) as hdus:
        if "DQ" not in hdus:
            raise DataError(f"{path}: extension DQ is missing; not a MASK file")
        header = plain_header(hdus[0].header)
        refuse_stripes(path, header)
        _refuse_foreign(path, hdus)
        _refuse_exposure(path, header, [hdu.name for hdu in hdus])
        history = [str(line) for line in hdus[0].header.get("HISTORY", [])]
        stored = as_bits(np.asarray(hdus["DQ"].data))
        rows = hdus["DQ_DEF"].data if "DQ_DEF" in hdus else None
        names = {} if rows is None else {str(r["NAME"]).strip(): int(r["VALUE"]) for r in rows}
    if rows is None and walk(source, path)[-1].end > source.stat().st_size:
        raise DataError(f"{path}: truncated: DQ_DEF is missing, and the file ends inside a block")
    if stored.ndim != 2 or stored.dtype.kind not in "iu":
        raise DataError(f"{path}: DQ is {stored.dtype} of shape {stored.shape}, expected a 2-D image of integers")
    try:
        image = standard_bits(stored, names) if names else stored.astype(np.uint32)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return Mask(image, str(header.get("DETECTOR", "")), _window(header, image.shape), header, history, path)


def _refuse_exposure(path: Path, header: Mapping[str, Any], names: Sequence[str]) -> None:
    """An exposure has a DQ extension too, but it holds what happened to that exposure.

    Raises
    ------
    DataError
        If REFTYPE says something else than MASK, or the file has science data.
    """
    kind = str(header.get("REFTYPE", "")).upper()
    if kind and kind != "MASK":
        raise DataError(f"{path}: found REFTYPE = {kind!r}, expected a MASK file")
    found = describe_exposure(header, names)
    if found:
        raise DataError(f"{path}: {found}")


def _window(header: Mapping[str, Any], shape: tuple[int, ...]) -> Window:
    """Place of a mask on its detector; a file that does not say starts at 1, 1."""
    start = [header.get(k) if isinstance(header.get(k), int) else 1 for k in ("SUBSTRT1", "SUBSTRT2")]
    start = [v if v is not None and abs(v) <= LARGEST else 1 for v in start]
    return Window(int(start[0] or 1), int(start[1] or 1), shape[1], shape[0])


def read_plain(path: str | Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """The first image of a FITS file that is no MASK (a bad-pixel map of another tool), and its primary header.

    Raises
    ------
    DataError
        If it has none, or is a file of badpix that holds something else (evidence, the truth of a simulation).
    """
    with open_fits(path) as hdus:
        refuse_stripes(Path(path), plain_header(hdus[0].header))
        _refuse_foreign(path, hdus)
        _refuse_exposure(
            Path(path), plain_header(hdus[0].header), [hdu.name for hdu in hdus if hdu.name in ("SCI", "DQ")]
        )
        for hdu in hdus:
            if hdu.is_image and getattr(hdu, "data", None) is not None and np.ndim(hdu.data) == 2:
                return np.asarray(hdu.data), plain_header(hdus[0].header)
    raise DataError(f"{path}: holds no two-dimensional image")


def _refuse_foreign(path: str | Path, hdus: fits.HDUList) -> None:
    """Refuse a file that is something else than a mask or a plain map.

    Raises
    ------
    DataError
        With the extension that tells.
    """
    for hdu in hdus:
        if hdu.name in OWN_TABLES:
            raise DataError(f"{path}: has an extension {hdu.name}: {OWN_TABLES[hdu.name]}, no mask")


def is_mask_file(path: str | Path) -> bool:
    """Whether a file has a DQ extension and is no exposure (else it may be a plain map)."""
    with open_fits(path) as hdus:
        return "DQ" in hdus and ("SCI" not in hdus or str(hdus[0].header.get("REFTYPE", "")).upper() == "MASK")


def is_exposure(path: str | Path) -> bool:
    """Whether a file holds science data with their quality: rate, rateints, cal, crf."""
    with open_fits(path) as hdus:
        return "SCI" in hdus and "DQ" in hdus and str(hdus[0].header.get("REFTYPE", "")).upper() != "MASK"


# --- writing ---------------------------------------------------------------------------------------------


def write_mask(path: str | Path, image: NDArray[np.uint32], header: fits.Header, *, overwrite: bool = False) -> None:
    """Write a MASK file whole or not at all, after reading it back and checking it.

    Raises
    ------
    UsageError
        If it exists and ``overwrite`` is false.
    DataError
        If what was written does not decode to what was meant, or breaks a rule of the format.
    """
    from badpix.mask import rules

    path = check_target(path, overwrite)
    if image.dtype != np.uint32 or image.ndim != 2:
        raise TypeError(f"the mask is {image.dtype} with {image.ndim} axes, expected uint32 with 2")
    header = header.copy()
    header["FILENAME"] = (header_text(path.name), "name of this file")
    with atomic_path(path, overwrite) as temporary:
        write_hdus(temporary, _hdus(image, header))
        found = rules.read_file(temporary, path.name)
        if found.image is None or not np.array_equal(standard_bits(found.image, found.table), image):
            raise DataError(f"{path}: what was written does not decode to what was meant; nothing was replaced")
        faults = [f.message for f in rules.faults_of(found) if f.severity == "error"]
        if faults:
            raise DataError(f"{path}: not written, it would break the format: " + "; ".join(faults))


def _hdus(image: NDArray[np.uint32], header: fits.Header) -> fits.HDUList:
    used = int(np.bitwise_or.reduce(image, axis=None))
    table = [f for f in dq.FLAGS if f.use == "mask" or used & f.value]
    columns = [
        fits.Column("BIT", "J", array=np.array([f.bit for f in table], np.int32)),
        fits.Column("VALUE", "J", bzero=2**31, array=np.array([f.value for f in table], np.uint32)),
        fits.Column("NAME", "40A", array=np.array([f.name for f in table])),
        fits.Column("DESCRIPTION", "80A", array=np.array([f.description for f in table])),
    ]
    return fits.HDUList(
        [
            fits.PrimaryHDU(header=header),
            fits.ImageHDU(image, name="DQ"),
            table_hdu(columns, "DQ_DEF"),
        ]
    )


def place(mask: Mask) -> tuple[Mask, NDArray[np.bool_]]:
    """A subarray mask in the full frame of its detector, and the part of it that the mask covers."""
    facts = detectors.get(mask.detector)
    full = np.zeros(facts.shape, np.uint32)
    covered = np.zeros(facts.shape, bool)
    rows = slice(mask.window.ystart - 1, mask.window.ystart - 1 + mask.window.ysize)
    columns = slice(mask.window.xstart - 1, mask.window.xstart - 1 + mask.window.xsize)
    if full[rows, columns].shape != mask.image.shape:
        raise DataError(f"{mask.path}: its window {tuple(mask.window)} reaches outside {facts.name}")
    full[rows, columns] = mask.image
    covered[rows, columns] = True
    return replace(mask, image=full, window=facts.full), covered


def evidence_header(mask_path: Path) -> dict[str, Any]:
    """Primary keywords of an evidence file: whose evidence it is, and the checksum of that mask's DQ."""
    with fits.open(mask_path, memmap=False) as hdus:
        keep = ("INSTRUME", "DETECTOR", "SUBARRAY", "SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2", "DATE", "BPVERSN")
        facts = {key: hdus[0].header[key] for key in keep if key in hdus[0].header}
        return {**facts, "MASKFILE": header_text(mask_path.name), "MASKSUM": hdus["DQ"].header["DATASUM"]}
