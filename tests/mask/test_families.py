"""Masks of families: what a YAML may say, what pixels add to a slope's variance, who is usable."""

import numpy as np
import pytest

from badpix import dq
from badpix.errors import DataError, UsageError
from badpix.io.depths import Readout as Darks
from badpix.io.evidence import Evidence, Rule, Samples
from badpix.mask import families, family_masks
from badpix.numerics.slope_noise import Noise, Readout, measure_variance
from badpix.settings.families import Family, read_families

HOT, NOISY, DEAD, BAD = (dq.VALUE[n] for n in ("HOT", "UNRELIABLE_SLOPE", "DEAD", "DO_NOT_USE"))
DARKS = Darks("RAPID", 40, 1, 0, 10.0, 5.0, 0.01, 2.0)


def family(groups, excess=1.0, pattern="RAPID"):
    return Family("one", pattern, (groups, groups), excess)


def test_families_are_read_and_ranges_become_what_crds_matches():
    one, two = read_families(
        [
            {"name": "short", "readpatt": "fastr1", "ngroups": 5},
            {"name": "long", "readpatt": "FASTR1", "ngroups": [40, 150], "max_excess": 0.5},
        ],
        "x.yml",
    )
    assert (one.readpatt, one.match, one.max_excess, one.numbers()) == ("FASTR1", 5, 1.0, [5])
    assert (two.match, two.span, two.numbers()) == ("between 40 151", "40 to 150", [40, 77, 150])


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({}, "expected a list"),
        ([{"name": "a", "readpatt": "RAPID"}], "ngroups: found None"),
        ([{"name": "a b", "readpatt": "RAPID", "ngroups": 5}], "name: found 'a b'"),
        ([{"name": "a", "readpatt": "RAPID", "ngroups": [9, 5]}], r"ngroups: found \[9, 5\]"),
        ([{"name": "a", "readpatt": "RAPID", "ngroups": 1}], "from 2 on"),
        ([{"name": "a", "readpatt": "RAPID", "ngroups": 5, "max_exces": 1}], "did you mean 'max_excess'"),
        ([{"name": "a", "readpatt": "RAPID", "ngroups": 5, "max_excess": 0}], "max_excess: found 0"),
        ([{"name": "a", "readpatt": "R", "ngroups": 5}], "readpatt: found 'R'"),
        ([{"name": "a", "readpatt": "RAPID", "ngroups": 5}] * 2, "named twice"),
    ],
)
def test_what_is_no_family_is_refused(tree, told):
    with pytest.raises(UsageError, match=told):
        read_families(tree, "x.yml")


def candidates(**columns):
    n = max(len(v) for v in columns.values())
    usual = {"read": 5.0, "shot": 0.001, "separation": 0.0, "low": 50.0, "high": 50.0, "wander": 0.0}
    full = {k: np.array(columns.get(k, [v] * n), np.float32) for k, v in usual.items()}
    noise = Noise(*(full[k] for k in ("read", "shot", "separation", "low", "high")))
    saturated = np.array(columns.get("saturated", [False] * n))
    return families.Candidates(
        np.arange(n), noise, np.full(n, 5, np.float32), np.full(n, 5, np.float32), full["wander"], saturated
    )


def test_excess_of_louder_brighter_wandering_and_saturated_pixels():
    known = candidates(
        read=[5, 10, 5, 5, 5],
        shot=[0.001, 0.001, 0.5, 0.001, 0.001],
        wander=[0, 0, 0, 0.05, 0],
        saturated=[0, 0, 0, 0, 1],
    )
    excess, error = families.measure_excess(known, DARKS, family(20), 20)
    base = 12 * 25 / (20**3 - 20) / 100 + 1.2 * 0.001 / 200
    assert error == pytest.approx(base**0.5, rel=0.02)
    assert excess[0] == pytest.approx(0, abs=0.05)
    assert excess[1] > 3  # four times the variance, and the jump step cuts ramps besides
    assert excess[2] == pytest.approx(1.2 * 0.5 / 200 / base, rel=0.1)
    assert excess[3] == pytest.approx(0.05**2 / base, rel=0.05)
    assert np.isinf(excess[4])


@pytest.mark.parametrize("groups", [5, 30])
@pytest.mark.parametrize("dwell", [20.0, 100.0, 1000.0])
def test_slow_and_fast_levels_add_what_drawn_ramps_show(groups, dwell):
    """Levels too close for the jump step: the formula against ramps that are drawn."""
    n = 60
    noise = Noise(*(np.full(n, v, np.float32) for v in (5.0, 0.0, 6.0, dwell, 2 * dwell)))
    rapid = Readout(1, 0, 10.0)
    rng = np.random.default_rng(4)
    drawn = measure_variance(noise, np.full(n, 50, np.float32), rapid, groups, 2.0, draws=400, rng=rng).mean()
    white = 12 * 25 / (groups**3 - groups) / 100
    assert families.expect_levels(noise, rapid, groups)[0] == pytest.approx(drawn - white, rel=0.12, abs=0.03 * white)


def test_a_pattern_of_averaged_frames_keeps_the_seconds_of_the_levels():
    slow, fast = (
        families.measure_excess(
            candidates(separation=[40.0], low=[t], high=[t]), DARKS, family(10, pattern="SHALLOW4"), 10
        )[0][0]
        for t in (20.0, 2000.0)
    )
    assert slow != pytest.approx(fast, rel=0.2)
    with pytest.raises(DataError, match="readout pattern 'ODD' is unknown"):
        families.measure_excess(candidates(read=[5]), DARKS, family(10, pattern="ODD"), 10)


def test_noise_alone_is_decided_again():
    image = np.array([[HOT | BAD, HOT | BAD, HOT | DEAD | BAD, NOISY | BAD, 0, 0, HOT | BAD]], np.uint32)
    excess = np.array([0.2, 3.0, 0.2, np.inf, 0.2, 3.0, 0.2], np.float32)
    held = np.array([[False] * 6 + [True]])
    found = family_masks.decide(image, np.arange(7), excess, 1.0, held)
    expected = [HOT, HOT | BAD, HOT | DEAD | BAD, NOISY | BAD, 0, NOISY | BAD, HOT | BAD]
    assert found.tolist() == [expected]
    assert image[0, 0] == HOT | BAD


def evidence(values):
    """Three candidates of which one is telegraph, one saturated; rates of each dark."""
    shape = (4, 5)

    def image(value, index=(3, 7, 12), empty=np.nan):
        out = np.full(shape, empty, np.float32)
        out.flat[list(index)] = value
        return out

    ripple = 0.01 * np.cos(np.arange(20, dtype=np.float32)).reshape(shape)
    return Evidence(
        images={
            "dark_noise": np.full(shape, 5, np.float32),
            "dark_noise_ratio": image([1.0, 2.0, 1.0]),
            "dark_residual": image([5.0, 5.0, 9.0]),
            "dark_rate": image([0.02, -0.1, 0.8], empty=0.0) + ripple,
            "is_telegraph": image([1, 0, 0], empty=0),
            "telegraph_separation": image([30, 20, np.nan]),
            "telegraph_dwell_low": image([4, 4, 4]),
            "telegraph_dwell_high": image([8, 4, 4]),
            "votes_saturated": image([0, 0, 6], empty=0),
        },
        rules=[Rule("hot", "votes_saturated", ">=", 6.0, "", "", 2)],
        samples={"dark_rate": Samples(np.array([3, 2]), np.array([0, 1]), values.astype(np.float32))},
    )


def test_the_evidence_tells_noise_levels_and_wander():
    rng = np.random.default_rng(2)
    sigma = (12 * 25 / (40**3 - 40)) ** 0.5 / 10
    # the first is that of its levels too: steady within their scatter; the second wanders
    values = np.stack([rng.normal(0, 0.5 * sigma, 12), rng.normal(0, 1, 12)])
    known = families.read_candidates(evidence(values), DARKS)
    assert known.index.tolist() == [3, 7, 12]
    np.testing.assert_allclose(known.noise.read, [5, 5, 9])
    np.testing.assert_allclose(known.usual, [5, 2.5, 5])
    np.testing.assert_allclose(known.noise.separation, [30, 0, 0])
    np.testing.assert_allclose(known.noise.high[0], 80)
    np.testing.assert_allclose(known.noise.shot, [0.001, 0.001, 0.401], rtol=0.02)
    assert known.saturated.tolist() == [False, False, True]
    assert known.wander[0] == known.wander[2] == 0
    assert known.wander[1] == pytest.approx(values[1].std(ddof=1), rel=0.01)
