"""Masks for tests, built with astropy alone: sound ones, to be broken by the tests."""

import numpy as np
from astropy.io import fits

from badpix import detectors, dq
from badpix.detectors import Window

HISTORY = (
    "Made for a test.",
    "DOCUMENT: none",
    "SOFTWARE: the test suite",
    "DATA USED: none",
    "DIFFERENCES: none",
)


def make_image(detector="MIRIMAGE", window=None, flags=()):
    """A DQ image: reference border, and ``flags`` as (x, y, names) with names joined by ``+``."""
    facts = detectors.get(detector)
    window = window or facts.full
    image = np.zeros((window.ysize, window.xsize), np.uint32)
    image[detectors.measure_border(facts, window)] = dq.VALUE["REFERENCE_PIXEL"]
    for x, y, names in flags:
        for name in names.split("+"):
            image[y, x] |= np.uint32(dq.VALUE[name])
    return image


def make_header(detector="MIRIMAGE", window=None, name="mask.fits", **keywords):
    """Primary header of a sound mask."""
    facts = detectors.get(detector)
    window = window or facts.full
    header = fits.Header()
    rows = {
        "TELESCOP": "JWST",
        "REFTYPE": "MASK",
        "INSTRUME": facts.instrument,
        "DETECTOR": facts.name,
        "SUBARRAY": "GENERIC",
        "SUBSTRT1": window.xstart,
        "SUBSTRT2": window.ystart,
        "SUBSIZE1": window.xsize,
        "SUBSIZE2": min(window.ysize, 2048),
        "FASTAXIS": facts.fastaxis,
        "SLOWAXIS": facts.slowaxis,
        "DATAMODL": "MaskModel",
        "AUTHOR": "tests",
        "DESCRIP": "a mask for tests",
        "PEDIGREE": "GROUND",
        "USEAFTER": "2026-01-01T00:00:00",
        "DATE": "2026-01-02T00:00:00",
        "FILENAME": name,
    }
    if facts.instrument == "NIRSPEC":
        rows["P_READPA"] = "NRSIRS2|NRSIRS2RAPID|" if window.ysize == 3200 else "NRS|NRSRAPID|"
    if facts.instrument == "FGS":
        rows["EXP_TYPE"] = "N/A"
    for key, value in {**rows, **keywords}.items():
        if value is not None:
            header[key] = value
    for line in HISTORY:
        header.add_history(line)
    return header


def make_table(flags=dq.FLAGS, **changes):
    """DQ_DEF; ``changes`` replace whole columns."""
    flags = [f for f in flags if f.use == "mask"] if flags is dq.FLAGS else flags
    columns = {
        "BIT": ("J", None, np.array([f.bit for f in flags], np.int32)),
        "VALUE": ("J", 2**31, np.array([f.value for f in flags], np.uint32)),
        "NAME": ("40A", None, np.array([f.name for f in flags])),
        "DESCRIPTION": ("80A", None, np.array([f.description for f in flags])),
    }
    for name, values in changes.items():
        form, zero, _ = columns[name]
        columns[name] = (form, zero, np.asarray(values))
    made = [fits.Column(name, form, bzero=zero, array=array) for name, (form, zero, array) in columns.items()]
    return fits.BinTableHDU.from_columns(made, name="DQ_DEF")


def make_hdus(detector="MIRIMAGE", window=None, flags=(), name="mask.fits", image=None, table=None, **keywords):
    """A sound mask as HDUs."""
    header = make_header(detector, window, name, **keywords)
    image = make_image(detector, window, flags) if image is None else image
    return fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(image, name="DQ"), table or make_table()])


def write(path, hdus):
    """Write HDUs with right checksums."""
    hdus.writeto(path, checksum=True, overwrite=True)
    return path


def make_mask(path, detector="MIRIMAGE", window=None, flags=(), **keywords):
    """A sound mask on disk."""
    return write(path, make_hdus(detector, window, flags, path.name, **keywords))


SUB64 = Window(1, 779, 72, 64)  # a MIRI subarray at the left edge: columns 0-3 are reference pixels
SUB160 = Window(1000, 1000, 160, 160)  # an interior NIRCam subarray: no reference pixels
