"""The arrays of dark exposures, checked to belong together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from badpix.api import arrays
from badpix.errors import DataError, UsageError


@dataclass(frozen=True)
class Ramps:
    """The arrays of some dark exposures: one entry of each list an exposure."""

    ramps: list[NDArray[Any]]
    groupdq: list[NDArray[Any]]
    slopes: list[arrays.Slopes] | None
    dates: list[float] | None

    @classmethod
    def of(cls, ramps: Any, groupdq: Any, rates: Any, variances: Any, pedestals: Any, dates: Any) -> Ramps:
        """From what the caller gave, checked to belong together.

        Raises
        ------
        UsageError
            If flags, or some of the slopes, are missing.
        DataError
            If shapes or numbers differ.
        """
        if groupdq is None:
            raise UsageError(
                "groupdq: found none, expected the flags of the groups in the shape of the ramps: the searches look "
                "at JUMP_DET, SATURATED and DO_NOT_USE"
            )
        stacks = _exposures(ramps, 4, "darks", "(nints, ngroups, ny, nx)")
        flags = _exposures(groupdq, 4, "groupdq", "(nints, ngroups, ny, nx)")
        _same_number(len(stacks), groupdq=flags, dates=dates)
        kinds = [arrays.as_flags(f, s.shape, "groupdq", "u1") for f, s in zip(flags, stacks, strict=True)]
        known = {"rates": rates, "var_poisson": variances, "pedestals": pedestals}
        missing = [name for name, values in known.items() if values is None]
        if 0 < len(missing) < len(known):
            raise UsageError(f"{', '.join(missing)}: found none; rates, var_poisson and pedestals belong together")
        if missing:
            return cls(stacks, kinds, None, dates)
        lists = {name: _exposures(values, 3, name, "(nints, ny, nx)") for name, values in known.items()}
        _same_number(len(stacks), **lists)
        for name, values in lists.items():
            for image, stack in zip(values, stacks, strict=True):
                if image.shape != (wanted := (len(stack), *stack.shape[-2:])):
                    raise DataError(f"{name}: found shape {image.shape}, expected {wanted}")
        return cls(stacks, kinds, [arrays.Slopes(*s) for s in zip(*lists.values(), strict=True)], dates)

    def write(
        self, folder: Path, frame: arrays.Frame, group_time: Any, gain: Any, read_noise: Any, dq: Any
    ) -> list[Path]:
        """All exposures as files; their rateints files are returned.

        Raises
        ------
        UsageError
            If the time between groups, or what a fit needs, is not given.
        """
        group_time = group_time if group_time is not None else frame.header.get("TGROUP")
        if group_time is None or not group_time > 0:
            raise UsageError(f"group_time: found {group_time}, expected the seconds between groups (TGROUP)")
        if self.slopes is None and (gain is None or read_noise is None):
            raise UsageError(
                "gain, read_noise: found none; slopes are fitted with the electrons per DN and the read noise of one "
                "group (DN), or give rates, var_poisson and pedestals"
            )
        paths = []
        for k, (ramps, flags) in enumerate(zip(self.ramps, self.groupdq, strict=True)):
            if self.slopes is None:
                slopes = arrays.fit_slopes(ramps, flags, group_time, gain=gain, read_noise=read_noise)
            else:
                slopes = self.slopes[k]
            quality = None if dq is None else arrays.as_flags(dq, (len(ramps), *ramps.shape[-2:]), "dq", "u4")
            when = {"EXPSTART": float(self.dates[k])} if self.dates is not None else {}
            paths.append(
                arrays.write_dark(folder, k + 1, ramps, flags, slopes, frame, quality, TGROUP=group_time, **when)
            )
        return paths


def _exposures(given: Any, axes: int, name: str, expected: str) -> list[NDArray[Any]]:
    """One array an exposure; a single array is one exposure."""
    several = isinstance(given, list | tuple) and len(given) and np.ndim(given[0]) == axes
    stacks = [arrays.as_stack(one, expected, name) for one in (given if several else [given])]
    for other in stacks[1:]:
        if other.shape[1:] != stacks[0].shape[1:]:
            raise DataError(
                f"{name}: found shape {other.shape}, expected (any, *{stacks[0].shape[1:]}) as in the first"
            )
    return stacks


def _same_number(number: int, **lists: Any) -> None:
    for name, values in lists.items():
        if values is not None and len(values) != number:
            raise DataError(f"{name}: found {len(values)}, expected {number}, one an exposure")
