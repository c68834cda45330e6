"""Pictures: they are written, equal data give equal bytes, histograms hold every pixel and every limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from badpix import dq
from badpix.errors import UsageError
from badpix.io import figure
from badpix.io.evidence import Detection, Evidence, Rule
from badpix.review import histograms, plots


@pytest.fixture
def found():
    norm = np.random.default_rng(1).normal(1, 0.02, (60, 80)).astype(np.float32)
    norm[5, 7], norm[0] = 0.02, np.nan
    rules = [Rule("DEAD", "flat_norm", "<", 0.05, "", ""), Rule("LOW_QE", "flat_norm", "<", 0.5, "", "")]
    evidence = Evidence({"flat_mean": norm * 40, "flat_norm": norm}, rules)
    return Detection({"DEAD": norm < 0.05}, evidence)


@pytest.mark.slow
def test_flats_write_their_four_pictures_the_same_each_time(tmp_path, found):
    image = np.where(found.maps["DEAD"], np.uint32(dq.VALUE["DEAD"]), np.uint32(0))
    written = [
        plots.write_flats(found, image, tmp_path / name) for name in ("a", "b") if not (tmp_path / name).mkdir()
    ]
    assert [p.name for p in written[0]] == ["flat_mean.png", "flat_norm.png", "flat_norm_histogram.png", "flags.png"]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert first.read_bytes() == second.read_bytes()


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)),
    st.lists(st.floats(-1e6, 1e6), max_size=3),
)
def test_a_histogram_holds_every_pixel_and_every_limit(values, limits):
    flagged = values > 3
    made = histograms.count(values, flagged, limits)
    assert made.others.sum() == np.count_nonzero(~flagged)
    assert made.flagged.sum() == np.count_nonzero(flagged)
    assert (np.diff(made.edges) > 0).all()
    for limit in [*limits, *values]:
        assert made.edges[0] <= limit <= made.edges[-1]


def test_nothing_measured_is_an_empty_histogram():
    made = histograms.count(np.full((3, 3), np.nan), np.zeros((3, 3), bool))
    assert made.flagged.sum() + made.others.sum() == 0


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setattr(figure, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'badpix\[plots\]'"):
        figure.require_matplotlib()


@pytest.mark.slow
@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-100, 100, width=32)),
    st.integers(1, 4),
)
def test_small_pictures_hold_the_means_of_what_was_measured(image, step):
    image[image > 50] = np.nan
    small = plots.shrink(image, step)
    for y, x in np.ndindex(*small.shape):
        block = image[y * step : (y + 1) * step, x * step : (x + 1) * step]
        good = block[np.isfinite(block)]
        assert small[y, x] == pytest.approx(good.mean(), abs=1e-4) if good.size else np.isnan(small[y, x])


def test_a_limit_that_does_not_decide_is_named_by_the_side_on_which_pixels_are_flagged():
    low = histograms.Limit(("OPEN",), "<", 0.34, "", "", False, 10, 4)
    high = low._replace(comparison=">", searches=("noisy",))
    assert low.label == "OPEN flagged up to 0.34"
    assert high.label == "noisy flagged from 0.34"
    assert low._replace(decides=True).label == "OPEN < 0.34"


@pytest.mark.slow
def test_the_legend_of_states_lies_beside_the_title(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda made, path: drawn.append(made) or path)
    state = np.arange(6, dtype=np.uint8).repeat(600_000)[: 1800 * 1800].reshape(1800, 1800)
    plots.draw_states(state, tmp_path / "s.png", "NRCB1, 5 exposures, 2026-01-01 to 2026-01-05")
    drawn[0].draw_without_rendering()
    boxes = [text.get_window_extent() for text in (*drawn[0].texts, drawn[0]._suptitle) if text is not None]
    legend = drawn[0].legends[0].get_window_extent()
    assert boxes
    assert not any(legend.overlaps(box) for box in boxes)
