"""From maps to DQ, merging, manual lists, decoding: whole images against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from badpix import dq
from badpix.errors import DataError, UsageError
from badpix.mask import combine as mask_combine
from badpix.mask.combine import combine, merge, merge_newest, standard_bits
from badpix.mask.manual import ManualRow, add_manual, parse_range, read_manual
from badpix.mask.origins import list_layer

V = dq.VALUE
DNU, REF = V["DO_NOT_USE"], V["REFERENCE_PIXEL"]
MASK_VALUES = [f.value for f in dq.FLAGS if f.use == "mask"]
DQ = hnp.arrays(np.uint32, (4, 5), elements=st.sets(st.sampled_from(MASK_VALUES), max_size=3).map(sum))


def maps(**places):
    out = {}
    for name, points in places.items():
        out[name] = np.zeros((4, 5), bool)
        for point in points:
            out[name][point] = True
    return out


BORDER = np.zeros((4, 5), bool)
BORDER[0] = True


# --- combine ---------------------------------------------------------------------------------------------


def test_types_become_flags():
    found = maps(DEAD=[(1, 1), (1, 2)], LOW_QE=[(2, 2)], ADJ_OPEN=[(1, 2)])
    image = combine(found, flag_values={}, do_not_use=["DEAD"], reference=BORDER)
    wanted = np.zeros((4, 5), np.uint32)
    wanted[0] = REF
    wanted[1, 1] = V["DEAD"] | DNU
    wanted[1, 2] = V["DEAD"] | V["ADJ_OPEN"] | DNU
    wanted[2, 2] = V["LOW_QE"]
    np.testing.assert_array_equal(image, wanted)
    assert image.dtype == np.uint32


def test_mapped_flags_do_not_grow_from_call_to_call():
    """DO_NOT_USE is joined by OR, nobody's lists are changed: a peer turned 1 into SATURATED at the second call."""
    values, unusable = {"hot": ["HOT", "HOT", "WARM"], "rc": ["RC"]}, ["hot"]
    found = maps(hot=[(1, 1)], rc=[(1, 1), (2, 2)])
    first = combine(found, flag_values=values, do_not_use=unusable, reference=BORDER)
    second = combine(found, flag_values=values, do_not_use=unusable, reference=BORDER)
    np.testing.assert_array_equal(first, second)
    assert first[1, 1] == V["HOT"] | V["WARM"] | V["RC"] | DNU
    assert (values, unusable) == ({"hot": ["HOT", "HOT", "WARM"], "rc": ["RC"]}, ["hot"])


def test_hot_wins_over_dead():
    found = maps(DEAD=[(1, 1), (2, 2)], HOT=[(1, 1)])
    image = combine(found, flag_values={}, do_not_use=["DEAD"], reference=BORDER)
    assert image[1, 1] == V["HOT"] | DNU
    assert image[2, 2] == V["DEAD"] | DNU
    kept = combine(found, flag_values={}, do_not_use=[], reference=BORDER, hot_over_dead=False)
    assert kept[1, 1] == V["HOT"] | V["DEAD"]


def test_reference_pixels_are_left_alone():
    image = combine({"DEAD": np.ones((4, 5), bool)}, flag_values={}, do_not_use=["DEAD"], reference=BORDER)
    assert (image[0] == REF).all()
    assert (image[1:] == V["DEAD"] | DNU).all()


@pytest.mark.parametrize("flag", ["NOISY", "JUMP_DET"])
def test_unknown_flags_of_a_search(flag):
    with pytest.raises(UsageError, match=flag):
        combine(maps(hot=[]), flag_values={"hot": [flag]}, do_not_use=[], reference=BORDER)


@pytest.mark.slow
@given(DQ, hnp.arrays(bool, (4, 5)))
def test_protecting_reference_pixels(image, reference):
    before = image.copy()
    out, freed = mask_combine.protect_reference(image, reference)
    np.testing.assert_array_equal(image, before)
    assert ((out & REF != 0) == reference).all()
    bad = image & V["BAD_REF_PIXEL"] != 0
    good = reference & ~bad
    assert not (out[good] & DNU).any()
    assert freed == np.count_nonzero(image[good] & DNU)
    keep = np.uint32(0xFFFFFFFF ^ REF ^ DNU)
    np.testing.assert_array_equal(out & keep, image & keep)
    assert (out[reference & bad] & DNU).all()  # a bad one without it would take part in the correction
    np.testing.assert_array_equal(out[~reference] & DNU, image[~reference] & DNU)


@pytest.mark.slow
@given(DQ)
def test_resolving_hot_and_dead(image):
    out = mask_combine.resolve_hot_dead(image)
    both = (image & V["HOT"] != 0) & (image & V["DEAD"] != 0)
    np.testing.assert_array_equal(out, np.where(both, image & ~np.uint32(V["DEAD"]), image))


# --- merge -----------------------------------------------------------------------------------------------


def plain_merge(masks, covered, fraction):
    """One pixel after the other, one flag after the other, in whole numbers."""
    out = np.zeros(masks[0].shape, np.uint32)
    for y, x in np.ndindex(out.shape):
        here = [int(m[y, x]) for m in masks]
        possible = sum(bool(c[y, x]) for c in covered)
        for flag in dq.FLAGS:
            votes = sum(bool(v & flag.value) for v in here)
            if votes and votes * 100 >= round(fraction * 100) * possible:
                out[y, x] |= np.uint32(flag.value)
        if out[y, x] == DNU and DNU not in here:
            out[y, x] = 0
    return out


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(DQ, min_size=1, max_size=5), st.sampled_from([0.0, 0.2, 0.34, 0.5, 0.67, 1.0]), st.data())
def test_merging_equals_plain_loops(masks, fraction, data):
    covered = [data.draw(hnp.arrays(bool, (4, 5))) for _ in masks]
    masks = [np.where(c, m, np.uint32(0)) for m, c in zip(masks, covered, strict=True)]
    before = [m.copy() for m in masks]
    np.testing.assert_array_equal(merge(masks, covered, min_fraction=fraction), plain_merge(masks, covered, fraction))
    for a, b in zip(masks, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_fraction_fires():
    """In a peer the AND of several masks asks for a fraction above one, and never fires."""
    masks = [np.full((1, 1), V["HOT"], np.uint32)] * 3
    covered = [np.ones((1, 1), bool)] * 3
    for fraction in (0, 0.3, 2 / 3, 1.0):
        assert merge(masks, covered, min_fraction=fraction) == V["HOT"]


def test_equality_counts():
    masks = [np.full((1, 1), value, np.uint32) for value in [V["HOT"]] * 3 + [0] * 7]
    covered = [np.ones((1, 1), bool)] * 10
    assert merge(masks, covered, min_fraction=0.3) == V["HOT"]
    assert merge(masks, covered, min_fraction=0.31) == 0


def test_do_not_use_goes_with_its_last_reason():
    one = np.array([[V["HOT"] | DNU, DNU]], np.uint32)
    other = np.array([[V["DEAD"] | DNU, DNU]], np.uint32)
    covered = [np.ones((1, 2), bool)] * 2
    np.testing.assert_array_equal(merge([one, other], covered, min_fraction=1.0), [[0, DNU]])


@pytest.mark.slow
@given(st.lists(DQ, min_size=1, max_size=4), st.data())
def test_the_newest_mask_that_covers_a_pixel_wins(masks, data):
    covered = [data.draw(hnp.arrays(bool, (4, 5))) for _ in masks]
    out = merge_newest(masks, covered)
    for y, x in np.ndindex(4, 5):
        said = [m[y, x] for m, c in zip(masks, covered, strict=True) if c[y, x]]
        assert out[y, x] == (said[-1] if said else 0)


def test_plain_maps():
    image = np.array([[0.0, 1.0, np.nan], [-2.0, 0.0, np.inf]])
    bad = V["HOT"] | DNU
    np.testing.assert_array_equal(mask_combine.from_plain(image, "hot", True), [[0, bad, bad], [bad, 0, bad]])
    np.testing.assert_array_equal(
        mask_combine.from_plain(np.array([[0, 7]], np.int32), "DEAD", False), [[0, V["DEAD"]]]
    )


# --- manual lists ----------------------------------------------------------------------------------------


def listed(tmp_path, text, shape=(6, 8), one_based=False):
    path = tmp_path / "my.txt"
    path.write_text(text)
    return read_manual(path, shape, one_based)


def painted(rows, shape=(6, 8), do_not_use=()):
    return add_manual(np.zeros(shape, np.uint32), rows, do_not_use)


def test_documented_forms(tmp_path):
    rows = listed(
        tmp_path,
        "# made by hand\nx y flag\n3 2 DEAD\n1:2 4 hot   # a comment\n5: :1 RC\n:1 3: Open\n\n"
        "7 : UNRELIABLE_SLOPE\n: 5 WARM\n",
    )
    wanted = np.zeros((6, 8), np.uint32)
    wanted[2, 3] |= V["DEAD"]
    wanted[4, 1:3] |= V["HOT"]
    wanted[0:2, 5:8] |= V["RC"]
    wanted[3:6, 0:2] |= V["OPEN"]
    wanted[:, 7] |= V["UNRELIABLE_SLOPE"]
    wanted[5, :] |= V["WARM"]
    np.testing.assert_array_equal(painted(rows), wanted)


def test_flags_are_added_by_or_and_may_be_unusable(tmp_path):
    rows = listed(tmp_path, "1 1 DEAD\n1 1 WARM\n2 2 WARM\n")
    image = np.zeros((6, 8), np.uint32)
    image[1, 1] = V["RC"]
    out = add_manual(image, rows, {"DEAD"})
    assert out[1, 1] == V["RC"] | V["DEAD"] | V["WARM"] | DNU
    assert out[2, 2] == V["WARM"]
    assert image[1, 1] == V["RC"]


def test_a_header_without_rows_is_legal(tmp_path):
    assert listed(tmp_path, "x y flag\n") == []
    assert listed(tmp_path, "") == []
    assert listed(tmp_path, "# nothing\r\n\r\nX Y FLAG\r\n") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 2 NOISY", "flag 'NOISY' is unknown; did you mean UNRELIABLE_SLOPE?"),
        ("1 2 DAED", "did you mean DEAD?"),
        ("1 2 JUMP_DET", "does not belong in a mask"),
        ("1 2", "found '1 2  # why', expected 'x y flag'"),
        ("1 2 DEAD HOT", "expected 'x y flag'"),
        ("1,2,DEAD", "expected 'x y flag'"),
        ("a 2 DEAD", "found 'a', expected a pixel or a range such as 3:7"),
        ("1.5 2 DEAD", "found '1.5'"),
        ("1:2:3 2 DEAD", "found '1:2:3'"),
        ("8 2 DEAD", "'8' lies outside 0 to 7"),
        ("7 6 DEAD", "'6' lies outside 0 to 5"),
        ("-1 2 DEAD", "'-1' lies outside 0 to 7"),
        ("5:3 2 DEAD", "'5:3' runs backwards"),
        ("1:8 2 DEAD", "'1:8' lies outside"),
        ("2 -3: DEAD", "'-3:' lies outside"),
    ],
)
def test_lines_that_are_wrong(tmp_path, line, words):
    with pytest.raises(UsageError) as caught:
        listed(tmp_path, f"x y flag\n0 0 DEAD\n{line}  # why\n")
    assert f"{tmp_path}/my.txt: line 3: " in str(caught.value)
    assert words in str(caught.value)


def test_counting_from_one(tmp_path):
    rows = listed(tmp_path, "1 1 DEAD\n8 6 HOT\n2:3 4 RC\n", one_based=True)
    assert [row._replace(line=0) for row in rows] == [
        ManualRow(slice(0, 1), slice(0, 1), "DEAD"),
        ManualRow(slice(5, 6), slice(7, 8), "HOT"),
        ManualRow(slice(3, 4), slice(1, 3), "RC"),
    ]
    for line in ("0 1 DEAD", "9 1 DEAD"):
        with pytest.raises(UsageError, match="lies outside 1 to 8"):
            listed(tmp_path, line, one_based=True)


def test_lists_that_can_not_be_read(tmp_path):
    with pytest.raises(UsageError, match="manual list can't be read"):
        read_manual(tmp_path / "none.txt", (6, 8))
    (tmp_path / "b.txt").write_bytes(b"1 2 \xff\xfe")
    with pytest.raises(UsageError, match=r"b\.txt: manual list can't be read"):
        read_manual(tmp_path / "b.txt", (6, 8))
    with pytest.raises(UsageError, match="manual list can't be read"):
        read_manual(tmp_path, (6, 8))


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 31), st.booleans())
def test_ranges_are_inclusive(first, last, size, one_based):
    shift = int(one_based)
    inside = first <= last < size
    text = f"{first + shift}:{last + shift}"
    if inside:
        assert list(range(size))[parse_range(text, size, one_based)] == list(range(first, last + 1))
        assert parse_range(f"{first + shift}:", size, one_based) == slice(first, size)
        assert parse_range(f":{last + shift}", size, one_based) == slice(0, last + 1)
        assert parse_range(str(first + shift), size, one_based) == slice(first, first + 1)
    else:
        with pytest.raises(UsageError, match=r"lies outside|runs backwards"):
            parse_range(text, size, one_based)


@pytest.mark.slow
@given(st.text(max_size=8))
def test_any_text_is_a_range_or_one_message(text):
    try:
        found = parse_range(text, 10)
    except UsageError:
        return
    assert 0 <= found.start < found.stop <= 10


# --- counting, decoding ----------------------------------------------------------------------------------


@pytest.mark.slow
@given(DQ, hnp.arrays(bool, (4, 5)))
def test_counts(image, science):
    counts = mask_combine.count_flags(image, science)
    assert counts.pop("any") == np.count_nonzero(image[science])
    plain = {f.name: int(sum(bool(int(v) & f.value) for v in image[science])) for f in dq.FLAGS}
    assert counts == {name: n for name, n in plain.items() if n}


@pytest.mark.parametrize(("flagged", "odd"), [(0, True), (9, True), (10, False), (1000, False), (1001, True)])
def test_implausible_levels(flagged, odd):
    said = mask_combine.implausible({"any": flagged, "DO_NOT_USE": 3}, 10_000)
    assert (said is not None) == odd
    assert said is None or "% of the science pixels are flagged, 0.03% are DO_NOT_USE" in said
    assert mask_combine.implausible({"any": 0}, 0) is None


@pytest.mark.parametrize("dtype", ["u4", "i4", "i8", "u8"])
def test_standard_bits_stay(dtype):
    image = np.array([[0, 1, 2048, 2**31, 2**31 | 1024 | 1]], np.uint32)
    table = {f.name: f.value for f in dq.FLAGS}
    out = standard_bits(image.astype(dtype), table)
    np.testing.assert_array_equal(out, image)
    assert out.dtype == np.uint32


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4"])
def test_packed_bits_are_decoded_by_value(dtype):
    stored = np.array([[0, 1, 2, 3, 4, 7]], dtype)
    table = {"DO_NOT_USE": 1, "HOT": 2, "REFERENCE_PIXEL": 4, "NEVER_USED": 8}
    out = standard_bits(stored, table)
    np.testing.assert_array_equal(out, [[0, DNU, V["HOT"], V["HOT"] | DNU, REF, REF | V["HOT"] | DNU]])


def test_flags_that_would_be_lost_are_an_error():
    with pytest.raises(DataError, match=r"bits \[11\] are set in DQ, but have no row"):
        standard_bits(np.array([[2049]], np.uint32), {"DO_NOT_USE": 1})
    with pytest.raises(DataError, match="pixels carry 'NOISY', which is no JWST flag; did you mean UNRELIABLE_SLOPE"):
        standard_bits(np.array([[2]], np.uint32), {"NOISY": 2})


def test_values_stored_as_signed():
    np.testing.assert_array_equal(
        standard_bits(np.array([[-(2**31)]], np.int32), {"REFERENCE_PIXEL": -(2**31)}), [[REF]]
    )


# --- real lists ------------------------------------------------------------------------------------------


def test_real_list_of_nrca1(real_data):
    path = real_data / "spacetelescope+jwst_reffiles" / "nircam_nrca1_manual_flags.txt"
    rows = read_manual(path, (2048, 2048))
    assert len(rows) == 2545
    image = painted(rows, (2048, 2048), {"DEAD"})
    wanted = np.zeros((2048, 2048), np.uint32)
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "DEAD":
            spans = []
            for word in words[1::-1]:
                ends = [int(n) for n in word.split(":")]
                spans.append(slice(ends[0], ends[-1] + 1))
            wanted[tuple(spans)] = V["DEAD"] | DNU
    np.testing.assert_array_equal(image, wanted)
    assert np.count_nonzero(image) >= 2545


def test_real_list_of_mirimage(real_data):
    path = real_data / "spacetelescope+jwst_reffiles" / "miri_mirimage_manual_flags.txt"
    image = painted(read_manual(path, (1024, 1032)), (1024, 1032))
    assert set(np.nonzero(image)[1]) == {384, 385}
    assert (image[:, 384:386] == V["UNRELIABLE_SLOPE"]).all()


def test_a_million_lines_are_painted_like_each_line_alone(tmp_path):
    """Ranges and single pixels in any order, pixels named several times: flags of all, and the last line."""
    rng = np.random.default_rng(4)
    shape, names = (40, 50), ["HOT", "DEAD", "rc", "Low_QE"]
    lines, painted_one_by_one, last = [], np.zeros(shape, np.uint32), np.zeros(shape, np.int32)
    for number in range(1, 1500):
        x, y = (sorted(rng.integers(0, n, 2)) for n in (50, 40))
        if rng.random() < 0.8:
            x, y = x[:1] * 2, y[:1] * 2
        name = names[rng.integers(4)]
        lines.append(f"{x[0]}:{x[1]} {y[0]}:{y[1]} {name}" if x[0] != x[1] else f"{x[0]} {y[0]}:{y[1]} {name}")
        part = np.s_[y[0] : y[1] + 1, x[0] : x[1] + 1]
        painted_one_by_one[part] |= dq.VALUE[name.upper()] | (1 if name == "HOT" else 0)
        last[part] = number
    (tmp_path / "m.txt").write_text("\n".join(lines))
    rows = read_manual(tmp_path / "m.txt", shape)
    layer = list_layer(tmp_path / "m.txt", rows, shape, {"HOT"})
    np.testing.assert_array_equal(add_manual(np.zeros(shape, np.uint32), rows, {"HOT"}), painted_one_by_one)
    np.testing.assert_array_equal(layer.flags, painted_one_by_one)
    np.testing.assert_array_equal(layer.lines, last)
