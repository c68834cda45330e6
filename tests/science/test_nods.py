"""Three real nods of a NIRSpec shutter (of msaexp, see SOURCES.md there), with a pixel made bad in all three."""

from __future__ import annotations

import os

import numpy as np
import pytest
from astropy.io import fits
from checkout import ROOT
from science_files import write_exposure

from badpix.api.science import find_science_defects
from badpix.errors import DataError
from badpix.settings.science import ScienceSettings

DATA = ROOT.parent / "shared" / "data" / "gbrammer+msaexp"
if not DATA.is_dir():
    DATA = ROOT.parents[1] / "shared" / "data" / "gbrammer+msaexp"
NODS = sorted(DATA.glob("jw*_phot*.fits")) if os.path.isdir(DATA) else []


@pytest.mark.skipif(len(NODS) != 3, reason="../shared/data/gbrammer+msaexp is not there: no real nods")
def test_a_pixel_that_is_bad_in_all_nods_is_found(tmp_path):
    paths, place = [], (12, 120)
    for k, nod in enumerate(NODS):
        image, noise, flags = (fits.getdata(nod, name) for name in ("SCI", "ERR", "DQ"))
        image = np.array(image, np.float32)
        image[place] = np.nanmedian(image[:, 110:130]) + 30 * np.nanmedian(noise)
        noise = np.where(np.isfinite(noise), noise, np.nanmedian(noise))
        paths.append(tmp_path / f"nod{k}_rate.fits")
        about = {
            "INSTRUME": "NIRSPEC",
            "EXP_TYPE": "NRS_MSASPEC",
            "GRATING": "PRISM",
            "FASTAXIS": -2,
            "SLOWAXIS": -1,
            "SUBARRAY": "SUB2048",
        }
        write_exposure(
            paths[-1],
            image,
            noise,
            visit=0,
            number=k,
            offset=(k * 0.5, 0),
            detector="NRS2",
            dq=flags.astype(np.uint32),
            **about,
        )
    with pytest.raises(DataError, match="one pointing"):
        find_science_defects(paths)
    found = find_science_defects(paths, ScienceSettings(min_pointings=1, min_visits=1))
    assert found.image[place] & 1
    assert (found.image != 0).mean() < 0.02
