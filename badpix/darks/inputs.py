"""The files of dark exposures: pairing rate, jump, fitopt (and uncal) files, and checking that they fit.

1. Each rate file stands for one exposure. Companions lie beside it under the same root (``_jump``, ``_fitopt``,
   ``_uncal``) or are named; named ones are matched by root, else by position.
2. With several integrations the slopes of the single integrations are needed: a ``_rate`` file is replaced by the
   ``_rateints`` beside it.
3. Companions must be of the same exposure (keywords), shape and number of integrations, with jumps flagged.
4. All exposures must be of one detector and window; of NIRSpec, all or none of them in an IRS2 pattern. Depths may
   differ (:mod:`badpix.darks.readouts`).
5. Ramps fitted with LIKELY have no fitopt file (a ``_likely_chisq`` instead), and no pedestals; that does, unless a
   search by votes of pedestals is asked for.
6. With ``skip_bad`` a set of files that fails is left out, with the reason; otherwise it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix import detectors
from badpix.darks.readouts import Depth
from badpix.darks.stack import Dark
from badpix.errors import DataError, UsageError
from badpix.io import exposure as io
from badpix.io import selection
from badpix.io.dates import read_date
from badpix.io.exposure import Exposure
from badpix.io.handles import stamp_of
from badpix.numerics.ramp_fit import mean_first_group

SUFFIX = {"jump": "_jump", "fitopt": "_fitopt", "uncal": "_uncal"}
NEEDED = {
    "rate": ("SCI", "DQ", "VAR_POISSON"),
    "jump": ("SCI", "GROUPDQ"),
    "fitopt": ("PEDESTAL",),
    "uncal": ("SCI",),
}
SAME_EXPOSURE = (
    "INSTRUME DETECTOR SUBARRAY READPATT NINTS NGROUPS PROGRAM OBSERVTN VISIT VISITGRP SEQ_ID ACT_ID EXPOSURE "
    "EXSEGNUM INTSTART INTEND TGROUP DATE-OBS TIME-OBS EXPSTART SUBSTRT1 SUBSTRT2 SUBSIZE1 SUBSIZE2"
).split()
STEPS = {"MIRI": ("S_RESET", "S_RSCD", "S_REFPIX"), "NIR": ("S_SUPERB", "S_REFPIX")}
STEP_NAMES = {
    "S_RESET": "reset",
    "S_RSCD": "rscd",
    "S_REFPIX": "refpix",
    "S_SUPERB": "superbias",
}
SAME_SET = ("INSTRUME", "DETECTOR", "SUBARRAY")


@dataclass(frozen=True)
class DarkFiles:
    """One dark exposure: its opened products."""

    rate: Exposure
    jump: Exposure
    fitopt: Exposure | None
    uncal: Exposure | None = None

    @property
    def products(self) -> list[Exposure]:
        """All of them."""
        return [e for e in (self.rate, self.jump, self.fitopt, self.uncal) if e is not None]

    @property
    def integrations(self) -> int:
        """Number of integrations."""
        return int(self.jump["SCI"].shape[0])

    @property
    def groups(self) -> int:
        """Number of groups of an integration."""
        return int(self.jump["SCI"].shape[1])

    @property
    def depth(self) -> Depth:
        """How it was read."""
        header = self.rate.header
        frames = self.rate.number("NFRAMES") if header.get("NFRAMES") else 1
        return Depth(self.groups, self.rate.seconds("TGROUP"), frames, str(header.get("READPATT", "")))

    @property
    def first_group(self) -> float:
        """Mean time of the first group since reset, in groups."""
        skipped = self.rate.number("GROUPGAP") if self.rate.header.get("GROUPGAP") else 0
        return mean_first_group(self.depth.frames, max(skipped, 0))

    def layouts(self) -> Dark:
        """Where its pixels lie, for the tasks."""
        return Dark(
            self.jump["SCI"],
            self.jump["GROUPDQ"],
            self.rate["SCI"],
            self.rate["VAR_POISSON"],
            None if self.fitopt is None else self.fitopt["PEDESTAL"],
            self.integrations,
            None if self.uncal is None else self.uncal["SCI"],
            stop=self.groups,
            read_noise=self.rate.arrays.get("VAR_RNOISE"),
            first_group=self.first_group,
            group_time=self.depth.group_time,
        )


@dataclass
class DarkSet:
    """All exposures of a run, and what was left out: ``(path, reason)``."""

    files: list[DarkFiles]
    rejected: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def first(self) -> Exposure:
        """The rate file that geometry and keywords are taken from."""
        return self.files[0].rate

    @property
    def integrations(self) -> int:
        """Integrations of all exposures."""
        return sum(f.integrations for f in self.files)

    @property
    def depths(self) -> list[Depth]:
        """How each exposure was read."""
        return [f.depth for f in self.files]

    @property
    def mixed(self) -> bool:
        """Whether the depths differ."""
        return len(set(self.depths)) > 1

    @property
    def dates(self) -> list[float]:
        """Start of each exposure, MJD; NaN where the header has none."""
        return [read_date(f.rate.header) for f in self.files]

    @property
    def detector(self) -> detectors.Detector:
        """Facts about the detector."""
        return detectors.get(self.first.keyword("DETECTOR"))

    @property
    def superbias_done(self) -> bool:
        """Whether the bias of each pixel was taken off; on MIRI it is not."""
        return self.files[0].jump.header.get("S_SUPERB") == "COMPLETE"

    def reference_pixels(self) -> NDArray[np.bool_]:
        """Reference pixels by the detector's geometry and the DQ of the first rate file: (ny, nx)."""
        return io.read_reference_pixels(self.first)


def list_missing_steps(header: Mapping[str, Any]) -> list[str]:
    """Keywords of steps that these darks should have been through and were not, by the jump file's header.

    A step that was skipped says so; one that was never called has no keyword, which counts where others have theirs.
    """
    wanted = STEPS["MIRI" if header.get("INSTRUME") == "MIRI" else "NIR"]
    by_pipeline = "S_DQINIT" in header
    found = {key: header.get(key) for key in wanted}
    return [key for key, state in found.items() if (by_pipeline if state is None else state != "COMPLETE")]


def open_darks(
    rates: Sequence[Path],
    named: Mapping[str, Sequence[Path]],
    *,
    need_uncal: Callable[[str], bool] = lambda instrument: False,
    skip_bad: bool = False,
    workdir: Path | None = None,
    detector: str | None = None,
    most_left_out: float = selection.MOST_LEFT_OUT,
    need_pedestals: bool = False,
) -> DarkSet:
    """Open, pair and check the files of all darks.

    Parameters
    ----------
    rates : sequence of path
        Rate or rateints files, sorted.
    named : mapping
        Companions named by the user: ``jump``, ``fitopt``, ``uncal``; empty or missing: beside the rate files.
    need_uncal : callable
        Whether raw ramps of an instrument are needed.
    skip_bad : bool
        Leave out what fails instead of stopping.
    workdir : path, optional
        Where compressed files are unpacked.
    need_pedestals : bool
        Whether exposures without them can't be used.

    Raises
    ------
    DataError
        If files are missing, broken, or do not fit; with ``skip_bad`` only if none is left.
    """
    if not rates:
        raise UsageError("no dark exposures: give rate or rateints files")
    companions = {role: _match(rates, role, list(named.get(role) or ())) for role in SUFFIX}
    found = DarkSet([])
    for k, rate in enumerate(rates):
        try:
            given = {r: c[k] for r, c in companions.items()}
            files = _open_one(rate, given, need_uncal, workdir, need_pedestals)
            _check_exposure(files)
            if detector and files.rate.detector != detectors.get(detector):
                name = files.rate.detector.name
                raise DataError(
                    f"{rate}: DETECTOR = {name!r}, expected {detector!r} as in the parameter file or --detector"
                )
            if found.files:
                _check_readout(found.first, files.rate)
            if found.files and not skip_bad:
                selection.check_same([found.first, files.rate], SAME_SET)
            found.files.append(files)
        except DataError as error:
            if not skip_bad:
                raise
            found.rejected.append((rate, str(error)))
    if not found.files:
        raise DataError(f"none of the {len(rates)} darks can be used; the first: {found.rejected[0][1]}")
    return _keep_set(found, most_left_out) if skip_bad else found


def _check_readout(first: Exposure, other: Exposure) -> None:
    """Make sure that both or none were read in an IRS2 pattern: other pixels are read between these."""
    patterns = [str(e.header.get("READPATT", "")) for e in (first, other)]
    if len({"IRS2" in pattern for pattern in patterns}) > 1:
        raise DataError(
            f"{other.path}: READPATT = {patterns[1]!r}, expected one like {patterns[0]!r} as in {first.path.name}: "
            "IRS2 reads other pixels in between"
        )


def _keep_set(found: DarkSet, most: float) -> DarkSet:
    """The darks of the set that most of them agree on; the others join those that were rejected."""
    reasons = selection.keep_largest_set([f.rate for f in found.files], SAME_SET, most)
    pairs = list(zip(found.files, reasons, strict=True))
    left = sorted([*found.rejected, *((files.rate.path, why) for files, why in pairs if why)])
    kept = [files for files, why in pairs if not why]
    if left:
        selection.check_left_out(len(left), len(kept) + len(left), f"{left[0][0]}: {left[0][1]}", most)
    return DarkSet(kept, left)


def _match(rates: Sequence[Path], role: str, given: list[Path]) -> list[Path | None]:
    """The companion of each rate file that the user named (by root, else by position); None: look beside it."""
    if not given:
        return [None] * len(rates)
    if len(given) != len(rates):
        raise UsageError(f"--{role}: {len(given)} files for {len(rates)} rate files; expected one for each")
    roots = {(selection.fits_stem(p) or p.stem).removesuffix(SUFFIX[role]): p for p in given}
    wanted = [selection.root_name(p) for p in rates]
    if set(roots) == set(wanted) and len(roots) == len(given):
        return [roots[root] for root in wanted]
    return list(given)


def _open_one(
    rate: Path,
    given: Mapping[str, Path | None],
    need_uncal: Callable[[str], bool],
    workdir: Path | None,
    need_pedestals: bool,
) -> DarkFiles:
    opened = _open_rate(rate, workdir)
    raw = need_uncal(opened.keyword("INSTRUME"))
    paths = {role: given[role] or selection.sibling(rate, SUFFIX[role]) for role in SUFFIX}
    for role in ("jump", "fitopt", *(["uncal"] if raw else [])):
        if paths[role] is None and (role != "fitopt" or need_pedestals or not _is_likely(rate)):
            missing = rate.with_name(selection.root_name(rate) + SUFFIX[role] + ".fits")
            raise DataError(f"{rate}: {missing.name} is not beside it; name it with --{role}{_hint(rate, role)}")
    exposures = {
        role: io.open_exposure(path, workdir, NEEDED[role])
        for role, path in paths.items()
        if path is not None and (role != "uncal" or raw)
    }
    return DarkFiles(opened, exposures["jump"], exposures.get("fitopt"), exposures.get("uncal"))


def _is_likely(rate: Path) -> bool:
    """Whether the ramps were fitted with LIKELY: the step leaves its chi square beside the slopes."""
    return selection.sibling(rate, "_likely_chisq") is not None


def _hint(rate: Path, role: str) -> str:
    """Where a missing companion comes from. The ramp fit LIKELY of the pipeline writes none with pedestals."""
    if role == "fitopt" and _is_likely(rate):
        return (
            "; the ramps were fitted with LIKELY, which gives no pedestals, and votes of pedestals are asked for: "
            "repeat the fit with OLS_C"
        )
    return ", or make it: badpix prepare keeps what the searches need" if role != "uncal" else ""


def _open_rate(rate: Path, workdir: Path | None) -> Exposure:
    """A rate file; the rateints beside it where the exposure has several integrations."""
    opened = io.open_exposure(rate, workdir, NEEDED["rate"])
    selection.check_state(opened, "S_RAMP")
    selection.check_kind(opened, "dark")
    nints = opened.number("NINTS")
    if opened.kind not in ("rate", "rateints"):
        raise DataError(f"{rate}: found a {opened.kind} file, expected rate or rateints")
    if nints == 1 or opened.kind == "rateints":
        return opened
    beside = selection.sibling(rate, "_rateints")
    if beside is None:
        name = selection.root_name(rate) + "_rateints.fits"
        raise DataError(
            f"{rate}: NINTS = {nints}, so the slopes of single integrations are needed, but {name} is not beside it"
        )
    return io.open_exposure(beside, workdir, NEEDED["rate"])


def _check_exposure(files: DarkFiles) -> None:
    """Make sure that the products of one exposure belong together."""
    rate, jump, fitopt = files.rate, files.jump, files.fitopt
    selection.check_state(jump, "S_JUMP")
    for other in files.products[1:]:
        for keyword in SAME_EXPOSURE:
            want, found = rate.header.get(keyword), other.header.get(keyword)
            if want is not None and found is not None and want != found:
                raise DataError(f"{other.path}: {keyword} = {found!r}, expected {want!r} as in {rate.path.name}")
    shape = jump["SCI"].shape
    if len(shape) != 4:
        raise DataError(f"{jump.path}: SCI has shape {shape}, expected (integrations, groups, rows, columns)")
    slopes = (shape[0], *shape[2:])
    found_slopes = rate["SCI"].shape if len(rate["SCI"].shape) == 3 else (1, *rate["SCI"].shape)
    _same_shape(jump, "GROUPDQ", jump["GROUPDQ"].shape, shape, "its SCI")
    _same_shape(rate, "SCI", found_slopes, slopes, jump.path.name)
    if fitopt is not None:
        _same_shape(fitopt, "PEDESTAL", fitopt["PEDESTAL"].shape, slopes, jump.path.name)
    if files.uncal is not None:
        _same_shape(files.uncal, "SCI", files.uncal["SCI"].shape, shape, jump.path.name)
    if rate.number("NGROUPS") != shape[1]:
        raise DataError(f"{rate.path}: NGROUPS = {rate.number('NGROUPS')}, but {jump.path.name} holds {shape[1]}")
    words, integrations = _integrations_of(rate)
    if integrations != shape[0]:
        raise DataError(f"{rate.path}: {words}, but {jump.path.name} holds {shape[0]} integrations")
    if shape[1] < 2:
        raise DataError(f"{jump.path}: NGROUPS = {shape[1]}, expected at least 2: there is no slope")


def _integrations_of(exposure: Exposure) -> tuple[str, int]:
    """What the header says of the integrations in this file, and how many: a long exposure comes in segments."""
    first, last = exposure.header.get("INTSTART"), exposure.header.get("INTEND")
    if isinstance(first, int) and isinstance(last, int):
        return f"INTSTART = {first}, INTEND = {last}", last - first + 1
    return f"NINTS = {exposure.number('NINTS')}", exposure.number("NINTS")


def _same_shape(exposure: Exposure, name: str, found: Any, want: Any, other: str) -> None:
    if tuple(found) != tuple(want):
        raise DataError(f"{exposure.path}: {name} has shape {tuple(found)}, expected {tuple(want)} as {other}")


def find_changed(files: Sequence[DarkFiles]) -> dict[Path, str]:
    """Rate files of the exposures of which a file vanished or changed since it was opened, with what happened."""
    changed = {}
    for dark in files:
        for layout in (lay for e in dark.products for lay in e.arrays.values()):
            try:
                found = layout.path.stat()
            except OSError:
                changed[dark.rate.path] = f"{layout.path}: vanished during the run"
                break
            if stamp_of(found) != layout.stamp:
                changed[dark.rate.path] = f"{layout.path}: changed during the run"
                break
    return changed
