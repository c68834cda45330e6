"""Hostile input for all commands: seeded mutations of headers, bytes, structure, YAML, JSON, ASDF and lists.

    python -m tests.fuzz --runs 5000 --seed 7

Each run copies the inputs of one command into a folder of its own, spoils one to three of them, and calls the command
in a child process that is bounded in time and memory. Whatever the input, the run

1. ends in time,
2. with exit status 0 to 3, without an internal error or a traceback,
3. touches no input, and writes no file outside its targets, its temporary folder being empty at the end,
4. writes no warning of Python or a library to stderr,
5. says what is wrong in at most :data:`LONGEST` characters.

A run that breaks one of these is printed with the number that repeats it (``--only``).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 120  # that a run may take
MEMORY = 6 << 30  # bytes of address space
LONGEST = 20_000  # characters of stderr
CARD, BLOCK = 80, 2880
TEXTS = ["--author", "A", "--descrip", "d", "--pedigree", "GROUND"]
PLACES = ("in", "out", "tmp")


@dataclass(frozen=True)
class Command:
    """A command: its words, and the inputs (files or folders of the material) that it reads."""

    words: list[str]
    inputs: list[str]
    group: str = "badpix"
    weight: int = 4


COMMANDS = [
    Command(["flats", "in/flats", "-o", "out/m.fits", *TEXTS], ["flats"]),
    Command(["flats", "in/flats", "-o", "out/m.fits", "--skip-bad", "--evidence", *TEXTS], ["flats"]),
    Command(["flats", "@in/list.txt", "-o", "out/m.fits", *TEXTS], ["flats", "list.txt"], weight=1),
    Command(["flats", "in/flats", "-p", "in/p.yml", "-o", "out/m.fits", *TEXTS], ["flats", "p.yml"], weight=1),
    Command(["flats", "in/flats", "-p", "in/p.asdf", "-o", "out/m.fits", *TEXTS], ["flats", "p.asdf"], weight=1),
    Command(["darks", "in/darks", "-o", "out/m.fits", *TEXTS], ["darks"]),
    Command(["darks", "in/darks", "-o", "out/m.fits", "--skip-bad", "--set", "documented", *TEXTS], ["darks"]),
    Command(
        ["merge", "in/a.fits", "in/b.fits", "--manual", "in/manual.txt", "-o", "out/m.fits", "--evidence", *TEXTS],
        ["a.fits", "b.fits", "a_evidence.fits", "manual.txt"],
    ),
    Command(["check", "in/a.fits", "--against", "in/b.fits"], ["a.fits", "b.fits"]),
    Command(["compare", "in/a.fits", "in/b.fits", "--output-dir", "out"], ["a.fits", "b.fits"], weight=2),
    Command(["explain", "in/a.fits", "1010", "905"], ["a.fits", "a_evidence.fits"], weight=2),
    Command(["explain", "in/a.fits", "@in/pixels.txt"], ["a.fits", "a_evidence.fits", "pixels.txt"], weight=1),
    Command(["export", "in/a.fits", "-o", "out/a.csv"], ["a.fits", "a_evidence.fits"], weight=2),
    Command(["report", "in/a.fits", "-o", "out/a.html"], ["a.fits", "a_evidence.fits"], weight=2),
    Command(["ramps", "in/darks/d1_jump.fits"], ["darks"], weight=2),
    Command(["rebuild", "in/job.yml", "--status-file", "out/status"], ["flats", "darks", "job.yml"], weight=1),
    Command(["history", "in/masks"], ["masks"], weight=1),
    Command(["ifu", "in/ifu/asn.json", "-o", "out"], ["ifu"], "outlier"),
    Command(["image", "in/image/asn.json", "-o", "out"], ["image"], "outlier", 2),
]


# --- material --------------------------------------------------------------------------------------------


def make_material(root: Path) -> None:
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
    _run_plainly(root, ["flats", "flats", "-o", "a.fits", "--evidence", *TEXTS])
    _run_plainly(root, ["darks", "darks", "-o", "b.fits", *TEXTS])
    _run_plainly(root, ["rebuild", "job.yml"])
    shutil.move(root.parent / "out", root / "masks")
    _run_plainly(root, ["simulate-ifu", "ifu", "--exposures", "3", "--size", "48 64"], "outlier")
    _run_plainly(root, ["simulate-image", "image", "--groups", "2", "--size", "96 96"], "outlier")
    for folder in ("ifu", "image"):
        next((root / folder).glob("*_asn.json")).rename(root / folder / "asn.json")
        shutil.rmtree(root / folder / "truth")
    import asdf

    asdf.AsdfFile({"flats": {"max_low_qe_norm_signal": 0.4}}).write_to(root / "p.asdf")


def _run_plainly(folder: Path, words: list[str], group: str = "badpix") -> None:
    """A command that must succeed."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        code, text = _in_child(lambda: _call(group, [*words, "-q"]), folder)
    finally:
        os.chdir(before)
    if code:
        raise RuntimeError(f"{group} {' '.join(words)}: exit {code}: {text}")


# --- mutations -------------------------------------------------------------------------------------------

NUMBERS = ["0", "-1", "7", "1.5", "1E3", "9" * 19, "99999", "1_0", "T", "'x'", "''", "NaN", "inf", "-2147483649"]
WORDS = [
    "",
    "0",
    "-1",
    "null",
    "[]",
    "{}",
    "~",
    "true",
    "1e999",
    "x" * 300,
    "é",
    "\x1b[31m",
    "\x00",
    "[bold]",
    "&a",
    "*a",
]


def spoil_card(data: bytearray, dice: random.Random) -> bytearray:
    """Another value on a card of any header."""
    cards = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if cards:
        at = dice.choice(cards)
        data[at + 10 : at + 30] = dice.choice(NUMBERS).encode()[:20].rjust(20)
    return data


def drop_card(data: bytearray, dice: random.Random) -> bytearray:
    """A card that becomes a comment."""
    cards = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if cards:
        at = dice.choice(cards)
        data[at : at + CARD] = b"COMMENT gone".ljust(CARD)
    return data


def double_card(data: bytearray, dice: random.Random) -> bytearray:
    """A card that stands where another stood, too."""
    cards = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if len(cards) > 1:
        one, other = dice.sample(cards, 2)
        data[one : one + CARD] = data[other : other + CARD]
    return data


def spoil_text_of_card(data: bytearray, dice: random.Random) -> bytearray:
    """A byte of a header that is no printable character."""
    at = dice.randrange(min(len(data), 2 * BLOCK))
    data[at] = dice.choice([0, 9, 10, 27, 127, 200, 255])
    return data


def flip_bits(data: bytearray, dice: random.Random) -> bytearray:
    """Some bits anywhere."""
    for _ in range(dice.choice([1, 3, 30])):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def cut_short(data: bytearray, dice: random.Random) -> bytearray:
    """The end is missing."""
    return data[: dice.choice([0, 1, 79, BLOCK, BLOCK + 1, dice.randrange(len(data))])]


def repeat_block(data: bytearray, dice: random.Random) -> bytearray:
    """A block stands twice, so that all behind it moves."""
    at = dice.randrange(0, len(data), BLOCK)
    return data[: at + BLOCK] + data[at:]


def drop_block(data: bytearray, dice: random.Random) -> bytearray:
    """A block is missing."""
    at = dice.randrange(0, len(data), BLOCK)
    return data[:at] + data[at + BLOCK :]


def append_noise(data: bytearray, dice: random.Random) -> bytearray:
    """Something follows the end."""
    return data + dice.randbytes(dice.choice([1, 80, BLOCK]))


def fill_pixels(data: bytearray, dice: random.Random) -> bytearray:
    """A stretch of the data is NaN, infinite, huge or zero."""
    at = dice.randrange(len(data)) // 4 * 4
    value = dice.choice(
        [b"\x7f\xc0\0\0", b"\x7f\x80\0\0", b"\xff\x80\0\0", b"\x7e\xff\xff\xff", b"\0\0\0\0", b"\xff" * 4]
    )
    length = min(dice.choice([4, 400, 40_000]), len(data) - at) // 4
    data[at : at + 4 * length] = value * length
    return data


def pack(data: bytearray, dice: random.Random) -> bytearray:
    """A gzipped file under the plain name, perhaps damaged."""
    packed = bytearray(gzip.compress(bytes(data), 1))
    return packed if dice.random() < 0.5 else flip_bits(packed, dice)


def swap_word(data: bytearray, dice: random.Random) -> bytearray:
    """A word of a text that is another one."""
    words = bytes(data).split(b" ")
    words[dice.randrange(len(words))] = dice.choice(WORDS).encode()
    return bytearray(b" ".join(words))


def swap_line(data: bytearray, dice: random.Random) -> bytearray:
    """A line of a text that stands twice, or is missing."""
    lines = bytes(data).split(b"\n")
    k = dice.randrange(len(lines))
    lines[k : k + 1] = [lines[k]] * dice.choice([0, 2])
    return bytearray(b"\n".join(lines))


def nest(data: bytearray, dice: random.Random) -> bytearray:
    """A text that is nested deeply."""
    depth = dice.choice([20, 2000])
    return bytearray(b"flats: " + b"[" * depth + b"]" * depth)


def mark(data: bytearray, dice: random.Random) -> bytearray:
    """A byte-order mark in front."""
    return bytearray(b"\xef\xbb\xbf") + data


Mutation = Callable[[bytearray, random.Random], bytearray]
OF_FITS: list[Mutation] = [
    spoil_card,
    spoil_card,
    spoil_card,
    drop_card,
    double_card,
    spoil_text_of_card,
    flip_bits,
    cut_short,
    repeat_block,
    drop_block,
    append_noise,
    fill_pixels,
    fill_pixels,
    pack,
]
OF_TEXT: list[Mutation] = [swap_word, swap_word, swap_line, flip_bits, cut_short, append_noise, nest, mark]


def spoil(path: Path, dice: random.Random) -> str:
    """Spoil one file in place; says how."""
    if dice.random() < 0.05:
        return replace_kind(path, dice)
    data = bytearray(path.read_bytes())
    if not data:
        return "empty already"
    mutation = dice.choice(OF_FITS if path.suffix in (".fits", ".fz") else OF_TEXT)
    path.write_bytes(mutation(data, dice))
    return mutation.__name__


def replace_kind(path: Path, dice: random.Random) -> str:
    """Something that is no file, with a fitting name."""
    path.unlink()
    kind = dice.choice(["pipe", "folder", "loop", "nothing"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    return kind


# --- runs ------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What one run did."""

    number: int
    words: list[str]
    spoiled: list[str]
    code: int = 0
    seconds: float = 0.0
    text: str = ""
    faults: list[str] = field(default_factory=list)


def run_once(material: Path, number: int, seed: int, work: Path) -> Report:
    """One run: copy, spoil, call, look."""
    dice = random.Random(f"{seed}:{number}")
    command = dice.choices(COMMANDS, [c.weight for c in COMMANDS])[0]
    case = work / f"case{number}"
    for place in PLACES:
        (case / place).mkdir(parents=True)
    for name in command.inputs:
        source = material / name
        shutil.copytree(source, case / "in" / name, symlinks=True) if source.is_dir() else shutil.copy(
            source, case / "in" / name
        )
    files = sorted(p for p in (case / "in").rglob("*") if p.is_file() and not p.is_symlink())
    chosen = dice.sample(files, min(len(files), dice.choice([1, 1, 1, 2, 3])))
    report = Report(number, [command.group, *command.words], [])
    report.spoiled = [f"{path.relative_to(case)}: {spoil(path, dice)}" for path in chosen]
    before = snapshot(case / "in")
    begun = time.monotonic()
    os.chdir(case)
    report.code, report.text = _in_child(lambda: _call(command.group, command.words), case)
    os.chdir(work)
    report.seconds = time.monotonic() - begun
    report.faults = list(find_faults(report, case, before))
    shutil.rmtree(case)
    return report


def snapshot(folder: Path) -> dict[str, str]:
    """What lies in a folder: a hash of each file, the kind of everything else."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"link {os.readlink(path)}"
        elif path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path)] = f"mode {path.stat().st_mode}"
    return found


def find_faults(report: Report, case: Path, before: dict[str, str]) -> Iterator[str]:
    """Promises that a run broke."""
    if report.code not in (0, 1, 2, 3):
        yield f"exit status {report.code}" if report.code >= 0 else f"ended by {signal.Signals(-report.code).name}"
    for word in ("internal error", "Traceback (most recent", "Warning"):
        if word in report.text:
            yield word
    if len(report.text) > LONGEST:
        yield f"{len(report.text)} characters of messages"
    if snapshot(case / "in") != before:
        yield "an input was touched"
    if left := [p.name for p in (case / "tmp").iterdir()]:
        yield f"left in TMPDIR: {left[:3]}"
    if odd := [p.name for p in case.iterdir() if p.name not in (*PLACES, "talk")]:
        yield f"written outside: {odd[:3]}"


def _in_child(task: Callable[[], int], folder: Path) -> tuple[int, str]:
    """Run a task in a bounded child process; its exit status (negative: a signal) and what it said."""
    talk = folder / "talk"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            handle = os.open(talk, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.environ |= {
                "TMPDIR": str(folder / "tmp" if (folder / "tmp").is_dir() else folder),
                "BADPIX_CACHE": "off",
            }
            tempfile.tempdir = None
            code = task()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            text = talk.read_text(encoding="utf-8", errors="replace")
            talk.unlink()
            return os.waitstatus_to_exitcode(status), text
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGALRM, talk.read_text(encoding="utf-8", errors="replace")


def _call(group: str, words: list[str]) -> int:
    """Call a command as the shell does."""
    from badpix.cli import main

    sys.argv = [group, *words]
    program = sys.modules["__main__"]  # processes that the command starts must not import this one
    program.__spec__ = None
    program.__dict__.pop("__file__", None)
    try:
        getattr(main, group)()  # the words are in sys.argv, as a shell puts them there
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0


def run_all(runs: int, seed: int, only: int | None = None, show: bool = False) -> list[Report]:
    """All runs; those that broke a promise."""
    _warm_up()
    bad = []
    with tempfile.TemporaryDirectory(prefix="badpix-fuzz-") as folder:
        work = Path(folder).resolve()
        before = Path.cwd()
        try:
            (work / "material").mkdir()
            make_material(work / "material")
            for number in range(runs) if only is None else [only]:
                report = run_once(work / "material", number, seed, work)
                if report.faults:
                    bad.append(report)
                if show and (report.faults or only is not None):
                    sys.stdout.write(describe(report) + "\n")
        finally:
            os.chdir(before)
    return bad


def describe(report: Report) -> str:
    """A run in words."""
    return (
        f"run {report.number}: {'; '.join(report.faults) or 'fine'} (exit {report.code}, {report.seconds:.1f} s)\n"
        f"  {' '.join(report.words)}\n  spoiled {', '.join(report.spoiled)}\n  {report.text.strip()[-1500:]}"
    )


def _warm_up() -> None:
    """Import what commands need once, so that children begin with it."""

    import badpix.cli.main
    import badpix.darks.build
    import badpix.flats.build
    import badpix.ifu.driver
    import badpix.image.driver
    import badpix.mask.merge  # noqa: F401


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="repeat this run alone, and show it")
    options = parser.parse_args()
    begun = time.monotonic()
    bad = run_all(options.runs, options.seed, options.only, show=True)
    sys.stdout.write(f"{options.runs} runs in {time.monotonic() - begun:.0f} s: {len(bad)} broke a promise\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
