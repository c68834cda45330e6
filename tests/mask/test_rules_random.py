"""Legal masks of many kinds are accepted, whatever is legal about them; broken ones are refused, each fault named."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from mask_files import SUB64, SUB160, make_hdus, make_image, make_table, write

from badpix import detectors, dq
from badpix.mask import rules

sys.path.insert(0, str(Path(__file__).parent))

from test_rules import BROKEN, IRS2

LEGAL, REFUSED = 60, 60
FLAGS = [f for f in dq.FLAGS if f.use == "mask"]
DEFECTS = [f.name for f in FLAGS if f.name not in ("DO_NOT_USE", "REFERENCE_PIXEL", "BAD_REF_PIXEL")]
WINDOWS = [("MIRIMAGE", SUB64, "SUB64"), ("NRCA1", SUB160, "SUB160"), ("NRCB4", SUB160, "SUB160")]
FULL = sorted(set(detectors.table()) - {"NRS1", "NRS2"})
PEDIGREES = ("GROUND", "SIMULATION", "DUMMY", "INFLIGHT 2025-01-02 2026-03-04", "INFLIGHT 2026-01-01 2026-01-01")
LETTERS = np.array(list("abc XYZ 0189 .,:;-_()/=&'\"+*?!"))
# faults that change the image, the table or the frame as a whole: combined with others these may hide them
WHOLE = {"no DQ", "no DQ_DEF", "DQ_DEF no table", "DQ twice", "3-D DQ", "float DQ", "another extension", "detector"}
OF_PARTS = sorted(set(BROKEN) - WHOLE)


def words(dice, most):
    """A text that begins and ends with a letter."""
    return "T" + "".join(dice.choice(LETTERS, int(dice.integers(0, most - 1)))) + "t"


def paint(dice, image):
    """Random defects, points and lines, most of them unusable; bad reference pixels with DO_NOT_USE."""
    border = image != 0
    for _ in range(int(dice.integers(0, 40))):
        y, x = (int(dice.integers(0, n)) for n in image.shape)
        part = np.s_[y, :] if dice.random() < 0.1 else np.s_[y, x]
        value = sum(dq.VALUE[name] for name in dice.choice(DEFECTS, int(dice.integers(1, 3)), replace=False))
        value |= dq.VALUE["DO_NOT_USE"] if dice.random() < 0.8 else 0
        image[part] |= np.where(border[part], 0, value).astype(np.uint32)
    for y, x in np.argwhere(border)[:: max(border.sum() // 3, 1)] if dice.random() < 0.3 else ():
        image[y, x] |= np.uint32(dq.VALUE["BAD_REF_PIXEL"] | dq.VALUE["DO_NOT_USE"])
    return image


def renumber(dice, image, flags):
    """The image and its table with the bits of its flags shuffled: DQ_DEF is for that."""
    bits = dice.permutation(32)[: len(flags)]
    moved = np.zeros_like(image)
    for flag, bit in zip(flags, bits, strict=True):
        moved |= np.where(image & np.uint32(flag.value), np.uint32(1 << int(bit)), np.uint32(0))
    values = np.array([1 << int(b) for b in bits], np.uint32)
    return moved, make_table(flags, BIT=bits.astype(np.int32), VALUE=values)


def make_legal(dice, detector, window, subarray):
    """A legal mask as HDUs."""
    image = paint(dice, make_image(detector, window))
    flags = [FLAGS[k] for k in dice.permutation(len(FLAGS))]
    if dice.random() < 0.3:  # only what is used has a row
        used = int(np.bitwise_or.reduce(image, axis=None))
        flags = [f for f in flags if f.value & used] or flags
    if dice.random() < 0.3:
        image, table = renumber(dice, image, flags)
    else:
        table = make_table(flags)
    hdus = make_hdus(
        detector,
        window,
        image=image,
        table=table,
        SUBARRAY=subarray,
        AUTHOR=words(dice, 60),
        DESCRIP=words(dice, 65),
        PEDIGREE=str(dice.choice(PEDIGREES)),
        USEAFTER=f"20{dice.integers(22, 40)}-0{dice.integers(1, 10)}-{dice.integers(10, 29)}T00:00:00",
    )
    for k in range(int(dice.integers(0, 4))):
        hdus[0].header[f"OWN{k}"] = words(dice, 100)
        hdus[0].header.add_history(words(dice, 70))
        hdus[int(dice.integers(0, 3))].header.add_comment(words(dice, 70))
    return hdus


def store(dice, folder, hdus):
    """As a plain, gzipped or fpacked file."""
    kind = dice.choice(["plain", "plain", "gz", "fz"])
    if kind == "fz":
        packed = fits.CompImageHDU(hdus["DQ"].data, hdus["DQ"].header, name="DQ", compression_type="GZIP_1")
        hdus = fits.HDUList([hdus[0], packed, hdus["DQ_DEF"]])
        return write(folder / "mask.fits.fz", hdus)
    path = write(folder / "mask.fits", hdus)
    if kind == "gz":
        (folder / "mask.fits.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
        return folder / "mask.fits.gz"
    return path


@pytest.mark.slow
def test_whatever_is_legal_is_accepted(tmp_path):
    dice = np.random.default_rng(20261129)
    for number in range(LEGAL):
        where = WINDOWS[dice.integers(len(WINDOWS))]
        if number % 15 == 0:  # the large ones take longer
            where = ("NRS1", IRS2, "GENERIC") if number == 0 else (str(dice.choice(FULL)), None, "GENERIC")
        path = store(dice, tmp_path, make_legal(dice, *where))
        found = [f for f in rules.find_faults(path) if f.severity != "note"]
        assert found == [], (number, where, path.name)


@pytest.mark.slow
def test_whatever_is_broken_is_refused_with_all_its_faults(tmp_path):
    """Two faults at once on masks with random content: both are told, in the words of each."""
    dice = np.random.default_rng(20261130)
    seen = set()
    for number in range(REFUSED):
        names = [OF_PARTS[number % len(OF_PARTS)]]
        rule = BROKEN[names[0]][1]
        others = [
            n
            for n in OF_PARTS
            if BROKEN[n][1] in ("author", "pedigree", "useafter", "descrip") and BROKEN[n][1] != rule
        ]
        names += [str(dice.choice(others))]
        hdus = make_hdus(image=paint(dice, make_image()), AUTHOR=words(dice, 60), DESCRIP=words(dice, 65))
        for name in names:
            BROKEN[name][0](hdus)
        found = rules.find_faults(write(tmp_path / "mask.fits", hdus))
        for name in names:
            _, rule, message = BROKEN[name]
            told = [f.message for f in found if f.severity == "error" and f.rule == rule]
            assert any(re.search(message, text) for text in told), (number, names, found)
        seen |= set(names)
    assert len(seen) >= len(OF_PARTS)
