#!/usr/bin/env bash
# jwst 3.0.0, stpipe 1.1.0, crds 14.0.3: a step whose reference files are all named by hand does its work without CRDS,
# then asks the server, and ends the interpreter.
#
# An override leaves CRDS out, one would say: no best reference is looked for, and the step reads the named file. But
# where any reference file was used, the header of the result also gets the CRDS context, that of the server if neither
# a cache nor CRDS_CONTEXT tells it. Without network and cache the question fails in crds, which calls sys.exit: after
# the whole work, past `except Exception` around the call, and, unless logging was set up, without a word. The result is
# lost. The method `process` of the same step returns it, since the context is added by `run` alone. `badpix prepare
# --references named` asks no server, and takes SystemExit for the failure of one exposure.
#
# Seen with jwst 3.0.0, stpipe 1.1.0, crds 14.0.3, stdatamodels 6.0.0, numpy 2.4.6, Python 3.11: DQInitStep with
# override_mask. `run` ends the interpreter with status 255 and nothing on stderr; `process` gives a result with the
# mask's flags.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check \
    "jwst==3.0.0" "stpipe==1.1.0" "crds==14.0.3" "stdatamodels==6.0.0" "numpy==2.4.6" 2> "$place/pip.txt" || { cat "$place/pip.txt"; exit 1; }
cd "$place"
mkdir cache
unset CRDS_CONTEXT
export CRDS_PATH="$place/cache" CRDS_SERVER_URL=https://no-server.invalid CRDS_OBSERVATORY=jwst STPIPE_DISABLE_CRDS_STEPPARS=true
cat > ask.py <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from jwst.dq_init import DQInitStep
from stdatamodels.jwst import datamodels

print(", ".join(f"{name} {version(name)}" for name in ("jwst", "stpipe", "crds", "stdatamodels", "numpy")))


def describe(model):
    model.meta.telescope, model.meta.instrument.name, model.meta.instrument.detector = "JWST", "NIRCAM", "NRCB1"
    model.meta.exposure.type, sub = "NRC_IMAGE", model.meta.subarray
    sub.name, sub.xstart, sub.ystart, sub.xsize, sub.ysize, sub.fastaxis, sub.slowaxis = "SUB64P", 1, 1, 64, 64, -1, 2
    return model


class Shown(DQInitStep):
    def process(self, ramp):
        result = super().process(ramp)
        print("the step has done its work")
        return result


image = np.zeros((64, 64), np.uint32)
image[30, 10:20] = 1
mask = describe(datamodels.MaskModel(dq=image))
mask.dq_def = np.array([(0, 1, "DO_NOT_USE", "bad")], dtype=mask.get_dtype("dq_def"))
mask.save("mask.fits")

ramp = describe(datamodels.RampModel(data=np.zeros((1, 2, 64, 64), np.float32)))
step = Shown()
step.override_mask = "mask.fits"
try:
    result = getattr(step, sys.argv[1])(ramp)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(f"{sys.argv[1]}: a result, {int((result.pixeldq & 1).sum())} pixels DO_NOT_USE")
PY
"$place/venv/bin/python" ask.py process | tee seen.txt
grep -q "process: a result, 10 pixels DO_NOT_USE" seen.txt || { echo "the step does not run at all: this script is wrong"; exit 1; }
status=0
"$place/venv/bin/python" ask.py run > seen.txt 2> log.txt || status=$?
echo "run: status $status, $(grep -c 'a result' seen.txt || true) results, $(wc -c < log.txt) bytes on stderr"
if [ "$status" != 255 ] || [ -s log.txt ] || grep -q "a result" seen.txt || ! grep "has done its work" seen.txt; then
    cat seen.txt log.txt
    echo "a step with overrides ends otherwise now: the finding is out of date"
    exit 1
fi
