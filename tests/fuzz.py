"""Hostile input for all commands: seeded mutations of headers, bytes, structure, YAML, JSON, ASDF and lists.

    python -m tests.fuzz --runs 5000 --seed 7

Each run copies the inputs of one command into a folder of its own, spoils one to three of them, and calls the command
in a child process that is bounded in CPU time, wall time and memory. Whatever the input, the run

1. ends in time (CPU time: a busy machine is no fault of the command; the wall limit is for what waits for ever),
2. with exit status 0 to 3, without an internal error or a traceback,
3. touches no input, and writes no file outside its targets, its temporary folder being empty at the end,
4. writes no warning of Python or a library to stderr,
5. says what is wrong in at most :data:`LONGEST` characters.

A run that breaks one of these is printed with the number that repeats it (``--only``).
"""

from __future__ import annotations

import argparse
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

from tests.helpers.hostile import spoil
from tests.helpers.sound_inputs import TEXTS, make_material

CPU_SECONDS = 120  # of one process of a run
SECONDS = 600  # of a run by the clock; a busy machine may stretch it fivefold
MEMORY = 6 << 30  # bytes of address space
LONGEST = 20_000  # characters of stderr
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
    Command(["flats", "in/flats_gz", "-o", "out/m.fits", *TEXTS], ["flats_gz"], weight=2),
    Command(["darks", "in/darks", "-o", "out/m.fits", "--depth", *TEXTS], ["darks"], weight=2),
    Command(["science", "in/science", "-o", "out/m.fits", *TEXTS], ["science"]),
    Command(["science", "in/science", "-o", "out/m.fits", "--skip-bad", *TEXTS], ["science"], weight=2),
    Command(
        [
            "merge",
            "in/a.fits.fz",
            "in/a.fits.gz",
            "in/s.fits",
            "--manual",
            "in/pixels.reg",
            "-o",
            "out/m.fits",
            *TEXTS,
        ],
        ["a.fits.fz", "a.fits.gz", "s.fits", "s_evidence.fits", "pixels.reg"],
        weight=2,
    ),
    Command(
        "update in/sound.fits --flats in/a.fits --darks in/b.fits --science in/s.fits --manual in/manual.txt "
        "-o out/m.fits --author A --descrip d".split(),
        [f"{mask}{part}.fits" for mask in ("sound", "a", "b", "s") for part in ("", "_evidence")] + ["manual.txt"],
    ),
    Command(["check", "in/a.fits", "--against", "in/b.fits"], ["a.fits", "b.fits"]),
    Command(
        ["check", "in/a.fits.fz", "in/a.fits.gz", "--limits", "in/limits.yml"],
        ["a.fits.fz", "a.fits.gz", "limits.yml"],
        weight=2,
    ),
    Command(
        ["deliver", "in/sound.fits", "--against", "in/a.fits", "--no-pipeline", "--output-dir", "out"],
        ["sound.fits", "sound_evidence.fits", "a.fits"],
        weight=3,
    ),
    Command(["depth", "in/depth.fits"], ["depth.fits", "depth_evidence.fits"], weight=3),
    Command(
        "tune in/depth.fits --set hot_sigma_threshold=6,8 --complete HOT=0.2 --false-per-million HOT=10".split(),
        ["depth.fits", "depth_evidence.fits"],
        weight=3,
    ),
    Command(["score", "in/s.fits", "in/truth.fits", "--search", "science"], ["s.fits", "truth.fits"], weight=1),
    Command(["compare", "in/a.fits", "in/b.fits", "--output-dir", "out"], ["a.fits", "b.fits"], weight=2),
    Command(["explain", "in/a.fits", "1010", "905"], ["a.fits", "a_evidence.fits"], weight=2),
    Command(["explain", "in/a.fits", "@in/pixels.txt"], ["a.fits", "a_evidence.fits", "pixels.txt"], weight=1),
    Command(
        ["explain", "in/flats/f1_rate.fits", "8", "15", "--mask", "in/a.fits"],
        ["flats", "a.fits", "a_evidence.fits"],
        weight=2,
    ),
    Command(
        ["explain", "in/image/jw09999001001_02101_00001_nrcb1_cal.fits", "8", "15", "--radec", "53.1", "-27.8"],
        ["image"],
        weight=1,
    ),
    Command(["export", "in/a.fits", "-o", "out/a.csv"], ["a.fits", "a_evidence.fits"], weight=2),
    Command(["report", "in/a.fits", "-o", "out/a.html"], ["a.fits", "a_evidence.fits"], weight=2),
    Command(["ramps", "in/darks/d1_jump.fits"], ["darks"], weight=2),
    Command(["rebuild", "in/job.yml", "--status-file", "out/status"], ["flats", "darks", "job.yml"], weight=1),
    Command(["rebuild", "in/update.yml"], ["flats", "a.fits", "manual.txt", "update.yml"], weight=2),
    Command(["init", "out", "--instrument", "nircam", "--base", "in/a.fits"], ["a.fits"], weight=1),
    Command(["history", "in/masks"], ["masks"], weight=1),
    Command(["history", "in/masks", "--html", "out/index.html"], ["masks"], weight=2),
    Command(["ifu", "in/ifu/asn.json", "-o", "out"], ["ifu"], "outlier"),
    Command(["ifu", "in/ifu", "-o", "out", "--set", "documented", "--report", "out/r.json"], ["ifu"], "outlier", 2),
    Command(["ifu", "in/ifu/asn.json", "--preview", "--report", "out/r.html"], ["ifu"], "outlier", 2),
    Command(["image", "in/image/asn.json", "-o", "out"], ["image"], "outlier", 2),
    Command(
        ["image", "in/image", "-o", "out", "--skip-bad", "-p", "in/image.yml"], ["image", "image.yml"], "outlier", 2
    ),
    Command(["image", "in/image/asn.json", "--set", "documented", "--preview"], ["image"], "outlier", 1),
]


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
    for word in ("internal error", "Traceback (most recent", "Warning", "SIGXCPU"):
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


def run_plainly(folder: Path, group: str, words: list[str]) -> None:
    """A command that must succeed."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        code, text = _in_child(lambda: _call(group, [*words, "-q"]), folder)
    finally:
        os.chdir(before)
    if code:
        raise RuntimeError(f"{group} {' '.join(words)}: exit {code}: {text}")


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
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))  # SIGXCPU, then SIGKILL
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
            make_material(work / "material", run_plainly)
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
    import badpix.mask.merge
    import badpix.mask.update
    import badpix.review.report
    import badpix.science.build  # noqa: F401


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
