#!/usr/bin/env bash
# stcal 1.20.0: the ramp fit LIKELY looks for cosmic rays itself, and gives no optional results.
#
# The jump step flags hits in GROUPDQ, the fit cuts the ramp there: so one would read the pipeline's documentation, and
# so OLS_C works. LIKELY rejects differences of its own while it fits, also where the jump step flagged nothing, and
# flags the pixel JUMP_DET. In the pipeline the _jump file is written before, so it does not show these hits, and
# save_opt writes no _fitopt (no segments, pedestals or CRMAG), because the optional results are None. Whoever reads
# rates beside the groups of the _jump file (badpix darks does) sees a slope that these groups do not have.
#
# Seen with stcal 1.20.0, numpy 2.4.6, Python 3.11: a step of 500 DN at group 10 of 20, no group flagged.
# OLS_C: slope 3.0 DN/s, no flag, optional results. LIKELY: slope 0.04 DN/s, JUMP_DET, optional results None.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check "stcal==1.20.0" "numpy==2.4.6"
"$place/venv/bin/python" - <<'PY'
from importlib.metadata import version

import numpy as np
from stcal.ramp_fitting.ramp_fit import ramp_fit_data
from stcal.ramp_fitting.ramp_fit_class import RampData

BITS = {
    "GOOD": 0, "DO_NOT_USE": 1, "SATURATED": 2, "JUMP_DET": 4, "PERSISTENCE": 32, "CHARGELOSS": 128,
    "NO_GAIN_VALUE": 1 << 19, "UNRELIABLE_SLOPE": 1 << 24,
}
print("stcal", version("stcal"), "numpy", version("numpy"))
nints, ngroups, ny, nx = 1, 20, 8, 8
ramp = np.random.default_rng(1).normal(0, 5, (nints, ngroups, ny, nx)).astype("f4")
ramp[0, 10:, 4, 4] += 500


def fit(algorithm):
    data = RampData()
    groups = np.zeros(ramp.shape, np.uint8)  # the jump step flagged nothing
    data.set_arrays(ramp.copy(), groups, np.zeros((ny, nx), np.uint32), np.zeros((ny, nx), "f4"))
    data.set_meta(name="NIRCAM", frame_time=10.0, group_time=10.0, groupgap=0, nframes=1, drop_frames1=0)
    data.set_dqflags(BITS)
    data.algorithm, data.start_row, data.num_rows, data.suppress_one_group_ramps = algorithm, 0, ny, True
    noise, gain = np.full((ny, nx), 7, "f4"), np.ones((ny, nx), "f4")
    image, _, optional = ramp_fit_data(data, True, noise, gain, algorithm, "optimal", "none")
    slope, flags = float(image["slope"][4, 4]), int(image["dq"][4, 4])
    print(f"{algorithm}: slope {slope:.3f} DN/s, DQ {flags}, optional results {optional is not None}")
    return slope, flags, optional


slope, flags, optional = fit("OLS_C")
assert slope > 1 and not flags & BITS["JUMP_DET"] and optional is not None
slope, flags, optional = fit("LIKELY")
assert abs(slope) < 0.3 and flags & BITS["JUMP_DET"], "LIKELY leaves the hit in now: the finding is out of date"
assert optional is None, "LIKELY gives optional results now: the finding is out of date"
PY
