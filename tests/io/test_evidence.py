"""Evidence: stored without loss, read back, and its rules give the flags again."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from badpix.errors import DataError
from badpix.io import evidence, evidence_file
from badpix.io.evidence import Evidence, Rule, Samples, Sparse, holds
from badpix.io.evidence_file import path_beside


def example():
    rng = np.random.default_rng(1)
    image = rng.normal(size=(40, 50)).astype(np.float32)
    image[3, 4], image[5, 6] = np.nan, np.inf
    images = {
        "flat_norm": image,
        "flat_samples": rng.integers(0, 9, (40, 50)).astype(np.int16),
        "is_dead": image < -1,
        "doubles": image.astype(np.float64),
        "limit_map": np.full((40, 50), 0.5, np.float32),
    }
    rules = [
        Rule("DEAD", "flat_norm", "<", -1.0, "of the surroundings", "responds to less than this"),
        Rule("OPEN", "flat_norm", ">=", "limit_map", "", "a limit that varies", 2),
        Rule("OPEN", "flat_norm", "<", 1 / 3, "", "in full precision", 2),
    ]
    samples = {
        "votes": Samples(np.array([1, 2], np.int32), np.array([3, 4], np.int32), rng.random((2, 5), np.float32))
    }
    return Evidence(images, rules, samples)


def stored(tmp_path, made, **header):
    evidence_file.write(tmp_path / "m_evidence.fits", replace(made, images=dict(made.images)), header)
    return evidence_file.read(tmp_path / "m_evidence.fits")


def test_round_trip(tmp_path):
    made = example()
    found, header = stored(tmp_path, made, DETECTOR="NRCA1", MASKSUM="123")
    assert (header["DETECTOR"], header["MASKSUM"]) == ("NRCA1", "123")
    assert found.rules == made.rules
    assert list(found.images) == list(made.images)
    for name, image in made.images.items():
        wanted = np.float32(image) if image.dtype == np.float64 else image
        np.testing.assert_array_equal(found.images[name], wanted)
    for a, b in zip(found.samples["votes"], made.samples["votes"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_image_that_waits_on_disk_is_used_like_an_array(tmp_path):
    image = example().images["flat_norm"]
    waiting = evidence.wait_on_disk(image)
    np.testing.assert_array_equal(waiting[3:6, 4], image[3:6, 4])
    np.testing.assert_array_equal(waiting > 0.5, image > 0.5)
    np.testing.assert_array_equal(np.abs(waiting - 1), np.abs(image - 1))
    found, _ = stored(tmp_path, Evidence({"flat_norm": waiting}))
    np.testing.assert_array_equal(found.images["flat_norm"], image)


def test_one_sample_an_integration_and_none(tmp_path):
    one = Samples(np.array([1], np.int32), np.array([2], np.int32), np.array([[7.0]], np.float32))
    none = Samples(np.empty(0, np.int32), np.empty(0, np.int32), np.empty((0, 3), np.float32))
    found, _ = stored(tmp_path, Evidence({}, [], {"one": one, "none": none}))
    np.testing.assert_array_equal(found.samples["one"].values, [[7]])
    assert len(found.samples["none"].x) == 0
    assert found.rules == []


def test_rules_hold(tmp_path):
    found, _ = stored(tmp_path, example())
    norm = found.images["flat_norm"]
    for y, x in ((0, 0), (7, 9), (3, 4), (5, 6)):
        value, limit, dead = holds(found.rules[0], found, y, x)
        assert (dead, limit) == (bool(norm[y, x] < -1), -1)
        assert holds(found.rules[1], found, y, x)[1:] == (0.5, bool(norm[y, x] >= 0.5))
        assert value == norm[y, x] or np.isnan(value)


@pytest.mark.slow
@given(st.floats(allow_nan=False), st.sampled_from(list(evidence.COMPARISONS)))
def test_limits_keep_their_last_bit(limit, comparison):
    rule = Rule("X", "q", comparison, limit, "DN", "m")
    row = evidence_file._rules_hdu([rule]).data[0]
    assert evidence_file._rule(row) == rule


def test_files_are_joined_as_they_are_and_the_first_image_of_a_name_counts(tmp_path):
    one = example()
    two = Evidence(
        {"other": np.arange(2000, dtype=np.float32).reshape(40, 50), "limit_map": np.zeros((40, 50), np.float32)},
        [Rule("A", "other", ">", 0.0, "", "")],
        {"more": one.samples["votes"]},
    )
    parts = [tmp_path / "one.fits", tmp_path / "two.fits"]
    evidence_file.write(parts[0], example(), {"MASKSUM": "1"})
    evidence_file.write(parts[1], replace(two, images=dict(two.images)), {"MASKSUM": "2"})
    assert evidence_file.read_shape(parts[0]) == (40, 50)
    evidence_file.join(tmp_path / "joined.fits", parts, {"MASKSUM": "3"}, Evidence())
    joined, header = evidence_file.read(tmp_path / "joined.fits")
    assert header["MASKSUM"] == "3"
    assert list(joined.images) == [*one.images, "other"]
    assert list(joined.samples) == ["votes", "more"]
    assert joined.rules == one.rules + two.rules
    np.testing.assert_array_equal(joined.images["limit_map"], one.images["limit_map"])
    np.testing.assert_array_equal(joined.images["other"], two.images["other"])
    with warnings.catch_warnings(), fits.open(tmp_path / "joined.fits", checksum=True) as hdus:
        warnings.simplefilter("error")
        hdus.verify("exception")
        assert [h.name for h in hdus][-1] == "RULES"


def test_an_image_of_candidates_is_the_image_that_it_stands_for(tmp_path):
    rng = np.random.default_rng(3)
    index = np.sort(rng.choice(2000, 60, replace=False))
    values = rng.normal(size=60).astype(np.float32)
    whole = np.full((40, 50), np.nan, np.float32)
    whole.flat[index] = values
    made = Sparse(index, values, (40, 50), np.nan)
    np.testing.assert_array_equal(made, whole)
    np.testing.assert_array_equal(made > 0.5, whole > 0.5)
    np.testing.assert_array_equal(made[3:5, 7], whole[3:5, 7])
    evidence_file.write(tmp_path / "e.fits", Evidence({"q": made}), {})
    found = evidence_file.read(tmp_path / "e.fits")[0].images["q"]
    np.testing.assert_array_equal(found, whole)


def test_images_are_given_up_as_they_are_written(tmp_path):
    made = example()
    evidence_file.write(tmp_path / "e.fits", made, {})
    assert made.images == {}


@pytest.mark.parametrize(
    ("mask", "beside"),
    [
        ("a/m.fits", "a/m_evidence.fits"),
        ("m.fits.gz", "m_evidence.fits"),
        ("m.1.fits", "m.1_evidence.fits"),
        ("mask", "mask_evidence.fits"),
    ],
)
def test_place(mask, beside):
    assert str(path_beside(mask)) == beside


def test_missing_and_broken_files(tmp_path):
    path = tmp_path / "e.fits"
    with pytest.raises(DataError, match="no evidence there; was the mask made with --no-evidence"):
        evidence_file.read(path)
    fits.PrimaryHDU().writeto(path)
    with pytest.raises(DataError, match="extension RULES is missing: not an evidence file"):
        evidence_file.read(path)
    path.write_text("no FITS")
    with pytest.raises(DataError, match=r"e\.fits: not readable as FITS"):
        evidence_file.read(path)


def test_truncated_files(tmp_path):
    path = tmp_path / "e.fits"
    evidence_file.write(path, example(), {})
    content = path.read_bytes()
    for length in range(0, len(content) - 2880, 1777):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"e\.fits: "):
            evidence_file.read(path)


def test_an_image_that_is_asked_for_and_missing_is_the_file_s_fault(tmp_path):
    path = tmp_path / "m_evidence.fits"
    images = evidence_file.Images(path)
    images["dark_rate"] = np.zeros((2, 2))
    assert images.get("open_own") is None
    with pytest.raises(DataError, match=r"m_evidence.fits: the image OPEN_OWN is missing: damaged evidence"):
        images["open_own"]
