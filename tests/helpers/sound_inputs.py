"""Small sound inputs of all commands, for :mod:`tests.fuzz` to spoil."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = ["--author", "A", "--descrip", "d", "--pedigree", "GROUND"]

Run = Callable[[Path, str, list[str]], None]  # a folder, badpix or outlier, the words of a command


def make_material(root: Path, run: Run) -> None:
    """Small sound inputs of all commands."""
    import numpy as np
    from astropy.io import fits

    random_numbers = np.random.default_rng(1)
    shape = (48, 64)

    def primary(number: int, **more: Any) -> fits.PrimaryHDU:
        header = {
            "TELESCOP": "JWST",
            "INSTRUME": "NIRCAM",
            "DETECTOR": "NRCB1",
            "SUBARRAY": "SUB160",
            "SUBSTRT1": 1000,
            "SUBSTRT2": 900,
            "SUBSIZE1": 64,
            "SUBSIZE2": 48,
            "FASTAXIS": 1,
            "SLOWAXIS": -2,
            "READPATT": "RAPID",
            "NINTS": 1,
            "NGROUPS": 6,
            "NFRAMES": 1,
            "GROUPGAP": 0,
            "TGROUP": 10.7,
            "TFRAME": 10.7,
            "EXP_TYPE": "NRC_FLAT",
            "PROGRAM": "09001",
            "OBSERVTN": "001",
            "VISIT": "001",
            "VISITGRP": "02",
            "SEQ_ID": "1",
            "ACT_ID": "01",
            "EXPOSURE": f"{number:05d}",
            "S_RAMP": "COMPLETE",
            "S_JUMP": "COMPLETE",
            "S_SUPERB": "COMPLETE",
            "DATE": "2026-02-01T00:00:00.000",
            "DATE-OBS": f"2026-01-{number:02d}",
            "TIME-OBS": "01:02:03.4",
        }
        hdu = fits.PrimaryHDU()
        hdu.header.update(header | more)
        return hdu

    def write(path: Path, first: fits.PrimaryHDU, **images: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.HDUList([first, *(fits.ImageHDU(v, name=k) for k, v in images.items())]).writeto(path)

    def plane(value: float, *lead: int) -> Any:
        return np.full((*lead, *shape), value, np.float32)

    for number in range(1, 5):
        image = (100 + random_numbers.normal(0, 0.3, shape)).astype(np.float32)
        image[20, 30] = 0.1
        write(
            root / f"flats/f{number}_rate.fits",
            primary(number),
            SCI=image,
            ERR=plane(0.1),
            DQ=np.zeros(shape, np.uint32),
            VAR_POISSON=plane(1e-4),
            VAR_RNOISE=plane(1e-4),
        )
        time_of = np.arange(1, 7, dtype=np.float32)[None, :, None, None] * 10.7
        ramp = (0.01 * time_of + random_numbers.normal(0, 4, (3, 6, *shape))).astype(np.float32)
        ramp[:, :, 10, 12] += 30 * time_of[:, :, 0, 0]
        centered = time_of - time_of.mean()
        slope = ((ramp * centered).sum(1) / (centered**2).sum()).astype(np.float32)
        pedestal = (ramp.mean(1) - slope * time_of.mean()).astype(np.float32)
        first, root_of = primary(number, NINTS=3, EXP_TYPE="NRC_DARK"), f"darks/d{number}"
        write(
            root / f"{root_of}_rateints.fits",
            first,
            SCI=slope,
            ERR=plane(0.1, 3),
            DQ=np.zeros((3, *shape), np.uint32),
            VAR_POISSON=plane(1e-4, 3),
            VAR_RNOISE=plane(1e-4, 3),
        )
        write(
            root / f"{root_of}_jump.fits",
            first,
            SCI=ramp,
            PIXELDQ=np.zeros(shape, np.uint32),
            GROUPDQ=np.zeros(ramp.shape, np.uint8),
            ERR=np.ones_like(ramp),
        )
        write(root / f"{root_of}_fitopt.fits", first, SLOPE=slope[:, None], PEDESTAL=pedestal, YINT=slope[:, None])
    (root / "list.txt").write_text("# flats\nflats/f1_rate.fits\nflats/f2_rate.fits\nflats/f3_rate.fits\n")
    (root / "manual.txt").write_text("x y flag\n1010 905 HOT\n1012:1015 906 RC\n1020 : UNRELIABLE_SLOPE\n")
    (root / "pixels.txt").write_text("1010 905\n1012, 906\n")
    (root / "p.yml").write_text("flats:\n  max_low_qe_norm_signal: 0.4\n  smoothing_box_width: 9\n")
    (root / "job.yml").write_text(
        "detector: NRCB1\nreference: {author: A, descrip: d, pedigree: GROUND}\n"
        "flats:\n  inputs: {rate: flats}\ndarks:\n  inputs: {rate: darks}\n"
        "rebuild: {settle: 0, report: false}\noutput: ../out/{detector}_mask.fits\n"
    )
    (root / "update.yml").write_text(
        "detector: NRCB1\nreference: {author: A, descrip: d, pedigree: GROUND}\n"
        "flats:\n  inputs: {rate: flats}\nmerge: {base: a.fits, manual: [manual.txt]}\n"
        "rebuild: {settle: 0}\noutput: ../out/{detector}_mask.fits\n"
    )
    (root / "limits.yml").write_text("check:\n  max_jump_ratio: 3\n  max_percent: {DEAD: 0.1}\n")
    (root / "image.yml").write_text('image:\n  snr: "5.5 4.5"\n')
    make_products(root, run)
    make_other_forms(root)


def make_products(root: Path, run: Run) -> None:
    """Masks, a folder of rebuilds, associations, science exposures, by our own commands."""
    reasons = [*TEXTS, "--useafter", "2026-01-01", "--history", "h", "--differences", "d"]
    run(root, "badpix", ["flats", "flats", "-o", "a.fits", "--evidence", *TEXTS])
    run(root, "badpix", ["darks", "darks", "-o", "b.fits", *TEXTS])
    run(root, "badpix", ["darks", "darks", "-o", "depth.fits", "--depth", *TEXTS])
    run(root, "badpix", ["merge", "a.fits", "-o", "sound.fits", *reasons])
    run(root, "badpix", ["rebuild", "job.yml"])
    shutil.move(root.parent / "out", root / "masks")
    run(root, "badpix", ["simulate-science", "science", "--size", "64 64", "--defects-per-level", "1"])
    for path in sorted((root / "science").glob("*_rate.fits"))[::2]:
        path.unlink()
    (root / "science/truth.fits").rename(root / "truth.fits")
    run(root, "badpix", ["science", "science", "-o", "s.fits", *TEXTS])
    run(root, "outlier", ["simulate-ifu", "ifu", "--exposures", "3", "--size", "48 64"])
    run(root, "outlier", ["simulate-image", "image", "--groups", "2", "--size", "96 96"])
    for folder in ("ifu", "image"):
        next((root / folder).glob("*_asn.json")).rename(root / folder / "asn.json")
        shutil.rmtree(root / folder / "truth")


def make_other_forms(root: Path) -> None:
    """The same things as other programs give them: gzipped, fpacked, as regions, in ASDF."""
    import asdf
    from astropy.io import fits

    (root / "a.fits.gz").write_bytes(gzip.compress((root / "a.fits").read_bytes(), 1))
    with fits.open(root / "a.fits") as hdus:
        packed = fits.CompImageHDU(hdus["DQ"].data, name="DQ")
        fits.HDUList([hdus[0], packed, hdus["DQ_DEF"]]).writeto(root / "a.fits.fz", checksum=True)
    (root / "flats_gz").mkdir()
    for path in (root / "flats").iterdir():
        (root / "flats_gz" / (path.name + ".gz")).write_bytes(gzip.compress(path.read_bytes(), 1))
    (root / "pixels.reg").write_text(
        "# Region file format: DS9\nimage\npoint(11,6) # point=box text={HOT}\nbox(20,8,3,1) # text={RC}\n"
    )
    asdf.AsdfFile({"flats": {"max_low_qe_norm_signal": 0.4}}).write_to(root / "p.asdf")
