"""Darks that miss a correction are told by the keywords of their steps."""

from __future__ import annotations

import pytest
from dark_files import write_darks

from badpix.darks import plan
from badpix.darks.inputs import list_missing_steps, open_darks


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ({"INSTRUME": "MIRI", "S_RESET": "SKIPPED", "S_RSCD": "COMPLETE"}, ["S_RESET"]),
        ({"INSTRUME": "MIRI", "S_DQINIT": "COMPLETE", "S_REFPIX": "COMPLETE"}, ["S_RESET", "S_RSCD"]),
        ({"INSTRUME": "MIRI", "S_RESET": "COMPLETE", "S_RSCD": "COMPLETE", "S_REFPIX": "COMPLETE"}, []),
        ({"INSTRUME": "NIRCAM", "S_SUPERB": "SKIPPED"}, ["S_SUPERB"]),
        ({"INSTRUME": "NIRCAM", "S_SUPERB": "COMPLETE", "S_REFPIX": "SKIPPED"}, ["S_REFPIX"]),
        ({"INSTRUME": "NIRCAM"}, []),
    ],
)
def test_steps_that_were_skipped_or_never_called_are_missing(header, missing):
    assert list_missing_steps(header) == missing


def test_the_note_counts_the_darks(tmp_path):
    paths = [*write_darks(tmp_path / "a", 2), *write_darks(tmp_path / "b", 1, S_REFPIX="SKIPPED")]
    notes = plan.describe_steps(open_darks(paths, {}))
    assert len(notes) == 1
    assert notes[0].startswith("S_REFPIX: the step refpix was not applied to 1 of 3 darks")
