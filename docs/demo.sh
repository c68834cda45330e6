#!/bin/sh
# make demo: simulated flats and darks of two detectors, the masks made from them, and what they are worth.
# BIN is the folder of the installed programs, DEMO the folder to work in, WORKERS the processes to use.
set -eu
BIN=${BIN:-.venv/bin}
DEMO=${DEMO:-demo}
WORKERS=${WORKERS:-2}
mkdir -p "$DEMO"

# A list of pixels known by hand, as every team has one.
printf 'x y flag\n# known since ground tests\n100:102 200 DEAD\n' > "$DEMO/manual.txt"

for detector in NRCB1 MIRIMAGE; do
    name=$(echo "$detector" | tr '[:upper:]' '[:lower:]')
    here="$DEMO/$name"
    if [ ! -f "$here/sim/${name}_truth.fits" ]; then
        "$BIN/badpix" simulate "$here/sim" --detector "$detector" --flats 5 --darks 5 --workers "$WORKERS"
    fi
    "$BIN/badpix" flats "$here/sim/flats" --author "make demo" --pedigree SIMULATION -o "$here/flats.fits" \
        --overwrite --plot "$here/pictures"
    "$BIN/badpix" darks "$here/sim/darks" --author "make demo" --pedigree SIMULATION -o "$here/darks.fits" \
        --overwrite --workers "$WORKERS" --plot "$here/pictures"
    "$BIN/badpix" merge "$here/flats.fits" "$here/darks.fits" --manual "$DEMO/manual.txt" --pedigree SIMULATION \
        --author "make demo" --descrip "Bad pixels of a simulated $detector" --useafter 2026-01-01 \
        -o "$here/${name}_mask.fits" --overwrite
    "$BIN/badpix" check "$here/${name}_mask.fits"
    "$BIN/badpix" score "$here/${name}_mask.fits" "$here/sim/${name}_truth.fits"
    "$BIN/badpix" report "$here/${name}_mask.fits" -o "$here/report.html" --overwrite \
        --ramps "$here/sim/darks/*_jump.fits"
done
echo "pictures: $DEMO/nrcb1/pictures $DEMO/mirimage/pictures"
echo "reports, to be opened in a browser: $DEMO/nrcb1/report.html $DEMO/mirimage/report.html"
echo "masks: $DEMO/nrcb1/nrcb1_mask.fits $DEMO/mirimage/mirimage_mask.fits"
