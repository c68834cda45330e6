"""Lists and images of what changed between masks."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

from astropy.io import fits

from badpix.io.output import atomic_path, check_directory, check_target, write_hdus, write_text
from badpix.review.compare import Comparison, History


def write_comparison(found: Comparison, directory: str | Path, detector: str, overwrite: bool = False) -> list[Path]:
    """``changes.csv``, ``changes.fits`` (what appeared, what disappeared) and, with matplotlib, ``changes.png``."""
    place = check_directory(directory)
    names = ["changes.csv", "changes.fits"] + (["changes.png"] if find_spec("matplotlib") else [])
    written = [check_target(place / name, overwrite) for name in names]
    rows = [
        f"{p['x']},{p['y']},{'+'.join(p['old']) or 'good'},{'+'.join(p['new']) or 'good'}" for p in found.pixels()
    ]
    write_text(written[0], "\n".join(["x,y,old,new", *rows]) + "\n", overwrite)
    header = fits.Header()
    header["DETECTOR"] = detector
    for key, value in zip(("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2"), found.window, strict=True):
        header[key] = value
    hdus = [fits.PrimaryHDU(header=header)]
    hdus += [fits.ImageHDU(getattr(found, name), name=name.upper()) for name in ("appeared", "disappeared")]
    with atomic_path(written[1], overwrite) as temporary:
        write_hdus(temporary, fits.HDUList(hdus))
    if len(written) == 3:
        from badpix.review.plots import draw_changes

        draw_changes(found, written[2], detector)
    return written


def write_history(found: History, directory: str | Path, overwrite: bool = False) -> list[Path]:
    """``history.csv``: one line a pixel and flag that was born, died or is intermittent; ``rates.csv`` by flag."""
    place = check_directory(directory)
    written = [check_target(place / name, overwrite) for name in ("history.csv", "rates.csv")]
    stream = io.StringIO()
    stream.write(f"# masks: {' '.join(found.dates)}\nflag,x,y,kind,seen\n")
    for p in found.pixels():
        stream.write(f"{p['flag']},{p['x']},{p['y']},{p['kind']},{p['seen']}\n")
    write_text(written[0], stream.getvalue(), overwrite)
    columns = "flag,always,born,died,intermittent,born_per_month,died_per_month"
    rows = [
        ",".join("" if v is None else f"{v:.6g}" if isinstance(v, float) else str(v) for v in life[:-1])
        for life in found.lives
    ]
    write_text(written[1], "\n".join([columns, *rows]) + "\n", overwrite)
    return written
