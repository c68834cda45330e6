"""Files of evidence: written beside a mask, read whole or where they are indexed, joined without unpacking.

What they hold is told in :mod:`badpix.io.evidence`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from badpix.errors import DataError
from badpix.io import depths
from badpix.io.depths import Alarm, Depth, Readout
from badpix.io.evidence import BOOKKEEPING, COMPARISONS, SCIENCE_STEPS, STEPS, Evidence, Rule, Samples, Source, Sparse
from badpix.io.fits import open_fits, reading, same_number
from badpix.io.output import pack_hdu, table_hdu
from badpix.io.structure import walk
from badpix.io.tiles import write_image
from badpix.outside import find_fault, header_text, printable, quote


def path_beside(mask: str | Path) -> Path:
    """Where the evidence of a mask lies: ``<mask root>_evidence.fits``."""
    mask = Path(mask)
    name = mask.name
    for ending in (".fits.gz", ".fits"):
        name = name.removesuffix(ending)
    return mask.with_name(f"{name}_evidence.fits")


def write(path: str | Path, evidence: Evidence, header: Mapping[str, Any]) -> None:
    """Write evidence, one image packed at a time; its images are given up as they are written.

    Parameters
    ----------
    path : path
        A temporary path, from :func:`badpix.io.output.atomic_path`.
    evidence : Evidence
        What to store; without images afterwards.
    header : mapping
        Primary keywords: instrument, detector, window, MASKSUM (DATASUM of the mask's DQ).
    """
    with open(path, "wb") as stream:
        stream.write(pack_hdu(_primary_hdu(header)))
        for name in list(evidence.images):
            _write_image(stream, name, evidence.images.pop(name))
        for name, samples in evidence.samples.items():
            stream.write(pack_hdu(_samples_hdu(name, samples)))
        if evidence.exposures:
            stream.write(pack_hdu(_exposures_hdu(evidence.exposures)))
        if evidence.science_exposures:
            steps = _exposures_hdu(evidence.science_exposures, SCIENCE_STEPS)
            steps.header["BUNIT"] = evidence.science_unit
            stream.write(pack_hdu(steps))
        if evidence.sources:
            stream.write(pack_hdu(_sources_hdu(evidence.sources)))
        depths.write_tables(stream, evidence.depth, evidence.alarms, evidence.readouts)
        stream.write(pack_hdu(_rules_hdu(evidence.rules)))  # last: a file that was cut has none


def join(path: str | Path, parts: Sequence[str | Path], header: Mapping[str, Any], own: Evidence) -> None:
    """Write the evidence of several files into one, packed as it is; of images of one name the first counts.

    So do the rules of a search; what parts say about sources and updates is left to ``own``.

    Parameters
    ----------
    path : path
        A temporary path.
    parts : sequence of path
        Evidence files of one shape.
    header : mapping
        As for :func:`write`.
    own : Evidence
        Images and sources of the joined mask itself; without images afterwards.

    Raises
    ------
    DataError
        If one of them holds no RULES.
    """
    rules: list[Rule] = []
    depth: list[Depth] = []
    alarms: list[Alarm] = []
    readouts: list[Readout] = []
    known = {"PRIMARY", "RULES", "SOURCES", *depths.TABLES}
    own_names = tuple(name.upper() for name in BOOKKEEPING)
    with open(path, "wb") as stream:
        stream.write(pack_hdu(_primary_hdu(header)))
        for part in parts:
            with opened(part) as (found, _):
                told = {r.search for r in rules}
                rules += [r for r in found.rules if r.search not in told]
                depth += [d for d in found.depth if d.search not in told]
                alarms += [a for a in found.alarms if a.search not in told]
                readouts = readouts or found.readouts
            pieces = walk(part)
            with open_fits(part) as hdus:
                names = [hdu.name for hdu in same_number(Path(part), hdus, pieces)]
            fresh = {
                name: piece
                for name, piece in zip(names, pieces, strict=True)
                if name not in known and not name.startswith(own_names)
            }
            known |= set(fresh)
            with open(part, "rb") as source:
                for piece in fresh.values():
                    source.seek(piece.start)
                    stream.write(source.read(piece.end - piece.start))
        for name in list(own.images):
            _write_image(stream, name, own.images.pop(name))
        if own.sources:
            stream.write(pack_hdu(_sources_hdu(own.sources)))
        depths.write_tables(stream, depth, alarms, readouts)
        stream.write(pack_hdu(_rules_hdu([*rules, *own.rules])))


def read_shape(path: str | Path) -> tuple[int, ...]:
    """Shape of the images of an evidence file; empty without any."""
    with opened(path) as (found, _):
        return next((tuple(image.shape) for image in found.images.values()), ())


def _primary_hdu(header: Mapping[str, Any]) -> fits.PrimaryHDU:
    primary = fits.PrimaryHDU()
    for key, value in header.items():
        primary.header[key] = value
    return primary


def _write_image(stream: BinaryIO, name: str, image: NDArray[Any] | Sparse) -> None:
    """A tile-compressed image without loss; small types stay small."""
    if not isinstance(image, Sparse) or not image.is_light:  # else its bands become whole one by one
        image = np.asarray(image)
        image = image.astype(np.float32) if image.dtype == np.float64 else image
        image = image.astype(np.uint8) if image.dtype == bool else image
    write_image(stream, name.upper(), image)


def _samples_hdu(name: str, samples: Samples) -> fits.BinTableHDU:
    columns = [
        fits.Column("x", "J", array=samples.x),
        fits.Column("y", "J", array=samples.y),
        fits.Column("values", f"{samples.values.shape[1]}E", array=samples.values),
    ]
    return table_hdu(columns, f"SAMPLES_{name.upper()}")


def _exposures_hdu(exposures: Sequence[tuple[str, float, float]], name: str = STEPS) -> fits.BinTableHDU:
    files, dates, scales = zip(*exposures, strict=True)
    columns = [
        fits.Column("file", f"{max(len(file) for file in files)}A", array=np.array(list(map(header_text, files)))),
        fits.Column("mjd", "D", array=np.array(dates, float)),
        fits.Column("scale", "E", array=np.array(scales, np.float32)),
    ]
    return table_hdu(columns, name)


def _sources_hdu(sources: Sequence[Source]) -> fits.BinTableHDU:
    widths = {"kind": 8, "name": 120, "date": 10, "via": 120}
    columns = [fits.Column("number", "I", array=np.array([s.number for s in sources], np.int16))]
    texts = {name: [header_text(getattr(s, name)) for s in sources] for name in widths}
    columns += [fits.Column(n, f"{width}A", array=np.array(texts[n], f"U{width}")) for n, width in widths.items()]
    return table_hdu(columns, "SOURCES")


def _rules_hdu(rules: Sequence[Rule]) -> fits.BinTableHDU:
    text = {"search": 24, "quantity": 32, "comparison": 2, "limit": 32, "unit": 24, "meaning": 200}
    columns = [
        fits.Column(name, f"{width}A", array=np.array([str(getattr(r, name)) for r in rules], f"U{width}"))
        for name, width in text.items()
    ]
    columns.append(fits.Column("way", "I", array=np.array([r.way for r in rules], np.int16)))
    return table_hdu(columns, "RULES")


@contextmanager
def opened(path: str | Path) -> Iterator[tuple[Evidence, dict[str, Any]]]:
    """Evidence and primary header of a file, the images read where they are indexed: one pixel costs one tile.

    Within the block ``images`` holds the compressed extensions; ``images[name][y, x]`` and ``images[name][:, :]``
    unpack what they need.

    Raises
    ------
    DataError
        If the file is missing or holds no RULES.
    """
    path = Path(path)
    fault = find_fault(path)
    if fault == "no such file":
        raise DataError(f"{printable(path)}: no evidence there; was the mask made with --no-evidence?")
    if fault:
        raise DataError(f"{printable(path)}: no evidence: {fault}")
    with ExitStack() as stack:  # what goes wrong while it is open is not its fault, unless it happens in reading it
        walk(path)
        with reading(path):
            hdus = stack.enter_context(fits.open(path, mode="readonly", memmap=False, lazy_load_hdus=True))
            found, header = _read_contents(path, hdus)
        yield found, header


def _read_contents(path: Path, hdus: fits.HDUList) -> tuple[Evidence, dict[str, Any]]:
    if "RULES" not in hdus:
        raise DataError(f"{path}: extension RULES is missing: not an evidence file")
    found = Evidence(rules=[_rule(row) for row in hdus["RULES"].data])
    if "SOURCES" in hdus:
        rows = hdus["SOURCES"].data
        found.sources = [
            Source(int(r["number"]), *(str(r[k]) for k in ("kind", "name", "date", "via"))) for r in rows
        ]
    found.depth, found.alarms, found.readouts = depths.read_tables(hdus)
    found.images = Images(path)
    for hdu in hdus[1:]:
        if isinstance(hdu, fits.CompImageHDU):
            found.images[hdu.name.lower()] = Stored(hdu, path)
        elif hdu.name == STEPS:
            found.exposures = _steps(hdu.data)
        elif hdu.name == SCIENCE_STEPS:
            found.science_exposures, found.science_unit = _steps(hdu.data), str(hdu.header.get("BUNIT", ""))
        elif hdu.name.startswith("SAMPLES_"):
            found.samples[hdu.name.removeprefix("SAMPLES_").lower()] = _samples(hdu.data)
    return found, dict(hdus[0].header)


class Images(dict[str, Any]):
    """Images of an evidence file by name; one that is asked for and not there is the file's fault."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise DataError(f"{printable(self._path)}: the image {name.upper()} is missing: damaged evidence")


def _steps(rows: Any) -> list[tuple[str, float, float]]:
    return [(str(row["file"]), float(row["mjd"]), float(row["scale"])) for row in rows]


class Stored:
    """An image in an open evidence file: what is indexed is unpacked, and a damaged tile names the file."""

    def __init__(self, hdu: fits.CompImageHDU, path: Path) -> None:
        self._hdu, self._path = hdu, path
        self.shape = tuple(hdu.shape)

    def __getitem__(self, where: Any) -> Any:
        with reading(self._path):
            return self._hdu.section[where]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:, :], dtype)


def read(path: str | Path) -> tuple[Evidence, dict[str, Any]]:
    """Evidence and primary header of a file, whole.

    Raises
    ------
    DataError
        If the file is missing or holds no RULES.
    """
    with opened(path) as (found, header):
        for name, image in found.images.items():
            found.images[name] = np.asarray(image[:, :])
        return found, header


def _samples(rows: Any) -> Samples:
    width = int(np.prod(rows.dtype["values"].shape, dtype=int))  # one value a row has no shape
    values = np.asarray(rows["values"], np.float32).reshape(len(rows), width)
    return Samples(np.asarray(rows["x"], np.int32), np.asarray(rows["y"], np.int32), values)


def _rule(row: Any) -> Rule:
    limit = str(row["limit"])
    try:
        number: float | str = float(limit)
    except ValueError:
        number = limit
    texts = (str(row[k]) for k in ("search", "quantity", "comparison"))
    search, quantity, comparison = texts
    if comparison not in COMPARISONS:
        raise ValueError(f"RULES: comparison = {quote(comparison)}, expected one of {', '.join(COMPARISONS)}")
    return Rule(search, quantity, comparison, number, str(row["unit"]), str(row["meaning"]), int(row["way"]))
