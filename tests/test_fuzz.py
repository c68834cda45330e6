"""A hundred hostile runs of all commands; `python -m tests.fuzz --runs 5000` for more."""

import sys

import pytest
from checkout import ROOT

sys.path.insert(0, str(ROOT))


@pytest.mark.skipif(sys.platform != "linux", reason="child processes are forked and bounded as Linux does")
@pytest.mark.slow
def test_hostile_input_breaks_no_promise():
    from tests import fuzz

    bad = fuzz.run_all(100, seed=20261129)
    assert not bad, "\n\n".join(fuzz.describe(report) for report in bad)
