#!/usr/bin/env bash
# crds 14.0.3, jwst 3.0.0: the certifier passes masks that the pipeline then reads as something else.
#
# A MASK names its bits in the table DQ_DEF, and the pipeline translates by name. One would expect that a mask which
# can't be translated fails certification, or stops the step. It does neither. With a name that the pipeline does not
# know the flag is dropped; without DQ_DEF the bits are taken for the pipeline's own, so that here hot pixels become
# SATURATED ones. `crds certify` reports no error and DQInitStep ends with COMPLETE each time: a team that delivers such
# a mask learns of it from its science. `badpix check` refuses both.
#
# Seen with crds 14.0.3, jwst 3.0.0, stdatamodels 6.0.0, numpy 2.4.6, Python 3.11, without a server (a context of the
# match keys alone): no error for a sound mask, one without DQ_DEF, one that calls HOT by another name; of 100 pixels
# with DO_NOT_USE and HOT, HOT arrives in 100, 0 and 0 of them, and SATURATED in 0, 100 and 0.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
    "crds==14.0.3" "jwst==3.0.0" "stdatamodels==6.0.0" "numpy==2.4.6" 2> "$place/pip.txt" || { cat "$place/pip.txt"; exit 1; }
cd "$place"
export CRDS_PATH="$place" CRDS_SERVER_URL=https://no-server.invalid CRDS_OBSERVATORY=jwst STPIPE_DISABLE_CRDS_STEPPARS=true
"$place/venv/bin/python" - <<'PY' 2> log.txt || { cat log.txt; exit 1; }
import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from astropy.io import fits
from crds.certify import certify
from crds.core import log
from jwst.dq_init import DQInitStep
from stdatamodels.jwst import datamodels
from stpipe import crds_client

DO_NOT_USE, SATURATED, HOT = 1, 2, 1 << 11

print(", ".join(f"{name} {version(name)}" for name in ("crds", "jwst", "stdatamodels", "numpy")))


def write_mapping(name, selector, **header):
    header |= dict(name=name, observatory="JWST", derived_from="none", suffix="mask", text_descr="mask", description="-")
    lines = "".join(f"    {key!r} : {value!r},\n" for key, value in header.items())
    text = "header = {{\n{}}}\n\nselector = {}\n"
    total = hashlib.sha1(text.format(lines, selector).encode()).hexdigest()
    Path("mappings/jwst", name).write_text(text.format(lines + f"    'sha1sum' : {total!r},\n", selector))


Path("mappings/jwst").mkdir(parents=True)
keys = ("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME"), ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")
write_mapping("jwst_0001.pmap", "{'nircam': 'jwst_nircam_0001.imap'}", mapping="PIPELINE", parkey=("META.INSTRUMENT.NAME",))
write_mapping(
    "jwst_nircam_0001.imap", "{'mask': 'jwst_nircam_mask_0001.rmap'}", mapping="INSTRUMENT", instrument="NIRCAM", parkey=("REFTYPE",)
)
write_mapping(
    "jwst_nircam_mask_0001.rmap", "Match({\n})", mapping="REFERENCE", instrument="NIRCAM", filekind="MASK", parkey=keys,
    classes=("Match", "UseAfter"),
)


def write_mask(path, names):
    primary = fits.PrimaryHDU()
    primary.header.update(
        TELESCOP="JWST", INSTRUME="NIRCAM", DETECTOR="NRCB1", REFTYPE="MASK", SUBARRAY="FULL", PEDIGREE="GROUND",
        DESCRIP="an example", AUTHOR="A. Name", USEAFTER="2026-01-01T00:00:00", SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=2048,
        SUBSIZE2=2048, FASTAXIS=1, SLOWAXIS=-2, DATAMODL="MaskModel", DATE="2026-01-01T00:00:00",
    )
    primary.header["HISTORY"] = "an example"
    image = np.zeros((2048, 2048), np.uint32)
    image[500, 500:600] = 1 + 2  # bits 0 and 1 of this file; DQ_DEF names them
    hdus = [primary, fits.ImageHDU(image, name="DQ")]
    if names:
        values = dict(BIT=("J", [0, 1]), VALUE=("J", [1, 2]), NAME=("40A", names), DESCRIPTION=("80A", ["bad", "hot"]))
        hdus.append(fits.BinTableHDU.from_columns([fits.Column(n, f, array=a) for n, (f, a) in values.items()], name="DQ_DEF"))
    fits.HDUList(hdus).writeto(path)


def ask(path):
    log.reset()
    certify.certify_files([path], "jwst_0001.pmap", observatory="jwst", skip_banner=True, check_rmap=False, compare_old_reference=False)
    errors = log.errors()
    crds_client.get_context_used = lambda observatory: "N/A"
    ramp = datamodels.RampModel(data=np.zeros((1, 2, 2048, 2048), np.float32))
    ramp.meta.instrument.name, ramp.meta.instrument.detector, ramp.meta.exposure.type = "NIRCAM", "NRCB1", "NRC_IMAGE"
    sub = ramp.meta.subarray
    sub.name, sub.xstart, sub.ystart, sub.xsize, sub.ysize = "FULL", 1, 1, 2048, 2048
    step = DQInitStep()
    step.override_mask = path
    result = step.run(ramp)
    bits = result.pixeldq[500, 500:600]
    return errors, result.meta.cal_step.dq_init, *(int(((bits & value) > 0).sum()) for value in (DO_NOT_USE, HOT, SATURATED))


seen = []
for title, names in (("sound", ["DO_NOT_USE", "HOT"]), ("no DQ_DEF", None), ("HOT by another name", ["DO_NOT_USE", "HOT_PIXEL"])):
    write_mask("mask.fits", names)
    seen.append(ask(str(Path("mask.fits").resolve())))
    Path("mask.fits").unlink()
    print("{}: {} errors of the certifier; DQInitStep {}, of 100 pixels {} DO_NOT_USE, {} HOT, {} SATURATED".format(title, *seen[-1]))
wanted = [(0, "COMPLETE", 100, 100, 0), (0, "COMPLETE", 100, 0, 100), (0, "COMPLETE", 100, 0, 0)]
assert seen[0] == wanted[0], "a sound mask fails: this script is wrong"
assert seen == wanted, "these masks are refused or read otherwise now: the finding is out of date"
PY
