#!/usr/bin/env bash
# stdatamodels 6.0.0: a model that is opened and saved again keeps the CHECKSUM of the file it came from.
#
# Keywords that a model does not know are kept and written back, CHECKSUM and DATASUM among them, while DATE, FILENAME
# and others change: the copy is sound, and every tool that verifies sums (fitscheck, astropy with checksum=True)
# reports its headers as damaged. DATASUM stays right as long as the data do. Whoever refuses files with wrong sums must
# therefore look at DATASUM, and take a wrong CHECKSUM beside a right DATASUM for an edited header. badpix reads masks
# so, and `badpix check` reports the stale sums.
#
# Seen with stdatamodels 6.0.0, astropy 8.0.2, Python 3.11: CHECKSUM of PRIMARY and DQ fails, DATASUM holds.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "stdatamodels==6.0.0" "astropy==8.0.2"
"$place/venv/bin/python" - "$place" <<'PY'
import sys
import warnings

import numpy as np
from astropy.io import fits
from stdatamodels.jwst import datamodels

place = sys.argv[1]
primary = fits.PrimaryHDU()
primary.header.update(TELESCOP="JWST", INSTRUME="NIRCAM", DETECTOR="NRCB1", DATE="2026-01-01T00:00:00")
dq = fits.ImageHDU(np.eye(16, dtype=np.uint32), name="DQ")
columns = [("BIT", "J", [0]), ("VALUE", "J", [1]), ("NAME", "40A", ["DO_NOT_USE"]), ("DESCRIPTION", "80A", ["Bad"])]
table = fits.BinTableHDU.from_columns([fits.Column(n, f, array=a) for n, f, a in columns], name="DQ_DEF")
fits.HDUList([primary, dq, table]).writeto(f"{place}/mask.fits", checksum=True)
with datamodels.MaskModel(f"{place}/mask.fits") as model:
    print(f"opened as {type(model).__name__}")
    model.save(f"{place}/again.fits")
with fits.open(f"{place}/mask.fits") as one, fits.open(f"{place}/again.fits") as two, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    assert (one["DQ"].data == two["DQ"].data).all()
    for name in ("PRIMARY", "DQ"):
        kept = one[name].header.get("CHECKSUM") == two[name].header.get("CHECKSUM")
        right = [bool(two[name].verify_checksum()), bool(two[name].verify_datasum())]
        print(f"{name}: CHECKSUM copied {kept}; CHECKSUM right {right[0]}, DATASUM right {right[1]}")
        assert right[1], f"{name}: the data themselves no longer fit their sum"
    assert not two["PRIMARY"].verify_checksum(), "the sums of a saved model are right now: the finding is out of date"
PY
