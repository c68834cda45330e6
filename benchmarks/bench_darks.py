"""Time and memory of `badpix darks` on large sets, against a bare reading of the same bytes.

    python benchmarks/bench_darks.py DIR --files 10 --ints 10 --groups 20 --size 2048 --workers 2

    python benchmarks/bench_darks.py DIR --workers 2 --against OLD/.venv/bin/python --examined 32 100

runs another build in turn, each with so many integrations examined. The first run over new files hashes them, too: it
is not told of.

One exposure is written (noise, a slope, cosmic rays, a few defects); the others are hard links to it under other
names, so a set of 42 GB takes 4.4 GB of disk and the page cache holds it: what is measured is the work, not the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.stats import sigma_clip
from scipy.stats import sigmaclip

ROOT = "jw09999001001_02101_{:05d}_nrcalong"


def make_exposure(folder: Path, ints: int, groups: int, size: int) -> None:
    """Write the products of one exposure."""
    rng = np.random.default_rng(1)
    header = fits.Header()
    header.update(
        TELESCOP="JWST",
        INSTRUME="NIRCAM",
        DETECTOR="NRCALONG",
        SUBARRAY="FULL",
        READPATT="RAPID",
        NINTS=ints,
        NGROUPS=groups,
        TGROUP=10.73677,
        SUBSTRT1=1,
        SUBSTRT2=1,
        SUBSIZE1=size,
        SUBSIZE2=size,
        FASTAXIS=-1,
        SLOWAXIS=2,
        S_RAMP="COMPLETE",
        S_JUMP="COMPLETE",
        S_SUPERB="COMPLETE",
        EXP_TYPE="NRC_DARK",
    )
    header["DATE-OBS"], header["TIME-OBS"] = "2026-01-01", "00:00:00"
    root = ROOT.format(1)
    one = rng.normal(0, 5, (groups, size, size)).astype(">f4")
    one += np.arange(groups, dtype=np.float32)[:, None, None] * np.float32(0.17)
    hits = rng.random((groups, size, size), dtype=np.float32) < 1e-3
    hits[0] = False
    one += np.cumsum(hits * np.float32(100), axis=0, dtype=np.float32)
    sci = _image("SCI", -32, (ints, groups, size, size))
    flags = _image("GROUPDQ", 8, (ints, groups, size, size))
    with open(folder / f"{root}_jump.fits", "wb") as out:
        _write(out, fits.PrimaryHDU(header=header).header)
        _stream(out, sci, (np.roll(one, 7 * i, axis=1) for i in range(ints)))
        dq = (hits * 4).astype(np.uint8)
        _stream(out, flags, (np.roll(dq, 7 * i, axis=1) for i in range(ints)))
    rate = rng.normal(0.016, 0.005, (ints, size, size)).astype(np.float32)
    images = {"SCI": rate, "DQ": np.zeros((ints, size, size), np.uint32), "VAR_POISSON": np.full_like(rate, 1e-6)}
    _small(folder / f"{root}_rateints.fits", header, images)
    _small(folder / f"{root}_fitopt.fits", header, {"PEDESTAL": rng.normal(0, 20, rate.shape).astype(np.float32)})


def _image(name: str, bitpix: int, shape: tuple[int, ...]) -> fits.Header:
    cards = [("XTENSION", "IMAGE"), ("BITPIX", bitpix), ("NAXIS", len(shape))]
    cards += [(f"NAXIS{k + 1}", n) for k, n in enumerate(reversed(shape))]
    return fits.Header([*cards, ("PCOUNT", 0), ("GCOUNT", 1), ("EXTNAME", name)])


def _write(out, header: fits.Header) -> None:
    out.write(header.tostring(padding=True).encode())


def _stream(out, header: fits.Header, parts) -> None:
    _write(out, header)
    size = 0
    for part in parts:
        size += out.write(np.ascontiguousarray(part).tobytes())
    out.write(b"\0" * (-size % 2880))


def _small(path: Path, header: fits.Header, images: dict[str, np.ndarray]) -> None:
    hdus = [fits.PrimaryHDU(header=header), *(fits.ImageHDU(v, name=k) for k, v in images.items())]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def link(folder: Path, files: int) -> None:
    """Further exposures as hard links."""
    for k in range(2, files + 1):
        for suffix in ("jump", "rateints", "fitopt"):
            target = folder / f"{ROOT.format(k)}_{suffix}.fits"
            if not target.exists():
                os.link(folder / f"{ROOT.format(1)}_{suffix}.fits", target)


def read_bare(folder: Path) -> float:
    """Seconds to read every byte of every jump file once, in blocks of 8 MB."""
    start = time.perf_counter()
    buffer = bytearray(1 << 23)
    for path in sorted(folder.glob("*_jump.fits")):
        with open(path, "rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return time.perf_counter() - start


def sketch_rows(files: list[list[tuple]], start: int) -> np.ndarray:
    """The plainest sums over 32 rows of all integrations: jumps, saturation, pedestals, clean slopes, levels."""
    rows = slice(start, start + 32)
    sums, buffer = 0.0, None
    for arrays in files:
        sci, flags, rates, pedestals = (np.memmap(path, kind, "r", at, shape) for path, kind, at, shape in arrays)
        for i in range(len(sci)):
            buffer = np.empty(sci[i, :, rows].shape, np.float32) if buffer is None else buffer
            buffer[...] = sci[i, :, rows]
            jumps = (flags[i, :, rows] >> 2) & 1
            quarter, total = len(jumps) // 4, jumps.sum(axis=0, dtype=np.uint8)
            early, late = jumps[:quarter].sum(axis=0, dtype=np.uint8), jumps[-quarter:].sum(axis=0, dtype=np.uint8)
            clean = np.where(total == 0, rates[i, rows], 0).astype(np.float64)
            votes = (
                flags[i, 0, rows] & 2 > 0,
                (total >= 10) & (early >= 5 * late),
                pedestals[i, rows] > 100,
                total == 0,
            )
            sums = sums + np.stack([*votes, clean, clean * clean, buffer[-1] - buffer[0]])
    return np.asarray(sums)


def sketch(folder: Path, workers: int) -> float:
    """Seconds of a bare sketch that reads all groups once: what a search can't be faster than by much."""
    start, files = time.perf_counter(), []
    for path in sorted(folder.glob("*_jump.fits")):
        root = str(path).removesuffix("_jump.fits")
        wanted = [
            ("jump", "SCI", ">f4"),
            ("jump", "GROUPDQ", "u1"),
            ("rateints", "SCI", ">f4"),
            ("fitopt", "PEDESTAL", ">f4"),
        ]
        arrays = []
        for suffix, name, kind in wanted:
            with fits.open(f"{root}_{suffix}.fits") as hdus:
                arrays.append((f"{root}_{suffix}.fits", kind, hdus[name].fileinfo()["datLoc"], hdus[name].shape))
        files.append(arrays)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(sketch_rows, files), range(0, files[0][0][3][2], 32)))
    return time.perf_counter() - start


def search_plain(folder: Path) -> tuple[float, int]:
    """The documented searches as a plain program that holds all slopes: seconds, and pixels found."""
    start = time.perf_counter()
    slopes, saturated, high, early, many, n = [], 0, 0, 0, 0, 0
    for path in sorted(folder.glob("*_jump.fits")):
        root = str(path).removesuffix("_jump.fits")
        flags = fits.getdata(path, "GROUPDQ")
        pedestal = fits.getdata(f"{root}_fitopt.fits", "PEDESTAL")
        rate = fits.getdata(f"{root}_rateints.fits", "SCI")
        quarter = flags.shape[1] // 4
        for i in range(len(flags)):
            jumps = ((flags[i] & 4) > 0).astype(int)
            total = jumps.sum(axis=0)
            kept = sigmaclip(pedestal[i], 3, 3).clipped
            saturated = saturated + ((pedestal[i] == 0) & ((flags[i, 0] & 2) > 0))
            high = high + (pedestal[i] > kept.mean() + 5 * kept.std())
            late = jumps[-quarter:].sum(axis=0) / quarter
            ratio = jumps[:quarter].sum(axis=0) / quarter / np.where(late == 0, 1e-6, late)
            early = early + ((ratio >= 5) & (total >= 10))
            many = many + (total >= 10)
            slopes.append(np.where(total == 0, rate[i], np.nan))
            n += 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scatter = np.nanstd(np.array(slopes), axis=0)
    clipped = sigma_clip(scatter, sigma=5, maxiters=5, masked=False)
    noisy = scatter > np.nanmean(clipped) + 5 * np.nanstd(clipped)
    found = noisy | (saturated >= n / 2) | (high > 0.8 * n) | (early > 0.8 * n) | (many > 0.8 * n)
    return time.perf_counter() - start, int(found.sum())


def run(args: argparse.Namespace, python: str, words: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of CPU, and MB of the main process of one run."""
    command = [python, "-c", "from badpix.cli.main import badpix; badpix()", "darks", str(args.folder)]
    command += ["-o", str(args.folder / "mask.fits"), "--overwrite", "--workers", str(args.workers), "-q", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([*command, *words], check=True, capture_output=True)
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, float(json.loads(done.stdout)["peak_memory_mb"])


def main() -> None:
    """Make the set and run the command on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name, default in (("files", 10), ("ints", 10), ("groups", 20), ("size", 2048), ("workers", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--plain", action="store_true", help="Also time a plain program and the documented set.")
    parser.add_argument("--against", type=Path, help="Python of another build, which is run in turn.")
    parser.add_argument("--examined", type=int, nargs="*", default=[], help="Integrations that are examined.")
    parser.add_argument("--sketch", action="store_true", help="Also time a bare sketch that reads all groups.")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if not (args.folder / f"{ROOT.format(1)}_jump.fits").exists():
        make_exposure(args.folder, args.ints, args.groups, args.size)
    link(args.folder, args.files)
    total = sum(p.stat().st_size for p in args.folder.glob("*.fits"))
    print(f"{total / 1e9:.1f} GB in {args.files} exposures; bare reading {read_bare(args.folder):.1f} s")
    samples = args.files * args.ints * args.groups * args.size**2
    choices = [["--examined-integrations", str(n)] for n in args.examined] or [[]]
    choices += [["--set", "documented"]] if args.plain else []
    if args.against:
        run(args, sys.executable, choices[0])  # hashes the files
    for words in choices:
        for python in [sys.executable, *([str(args.against)] if args.against else [])]:
            seconds, cpu, peak = run(args, python, words)
            name = " ".join(["badpix darks" if python == sys.executable else python, *words])
            each = 1e9 * cpu / samples
            print(f"{name}: {seconds:.1f} s, {cpu:.1f} s of CPU ({each:.1f} ns a sample), main process {peak} MB")
    if args.sketch:
        print(f"bare sketch: {sketch(args.folder, args.workers):.1f} s")
    if args.plain:
        before = time.process_time()
        seconds, found = search_plain(args.folder)
        peak, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, time.process_time() - before
        print(f"plain documented program: {seconds:.1f} s, {cpu:.1f} s of CPU, {peak:.0f} MB, {found} pixels")


if __name__ == "__main__":
    main()
