"""The flag table: the one place of names, bits and meanings."""

import pytest

from badpix import dq
from badpix.errors import UsageError
from badpix.mask.combine import flag_value

# bits as the pipeline's documentation of reference files lists them
DOCUMENTED = {
    "DO_NOT_USE": 0,
    "SATURATED": 1,
    "JUMP_DET": 2,
    "DEAD": 10,
    "HOT": 11,
    "WARM": 12,
    "LOW_QE": 13,
    "RC": 14,
    "TELEGRAPH": 15,
    "NONLINEAR": 16,
    "BAD_REF_PIXEL": 17,
    "UNRELIABLE_SLOPE": 24,
    "OPEN": 26,
    "ADJ_OPEN": 27,
    "OTHER_BAD_PIXEL": 30,
    "REFERENCE_PIXEL": 31,
}


def test_every_bit_once():
    assert [flag.bit for flag in dq.FLAGS] == list(range(32))
    assert len({flag.name for flag in dq.FLAGS}) == 32
    assert all(flag.value == 2**flag.bit for flag in dq.FLAGS)
    assert {flag.use for flag in dq.FLAGS} == {"mask", "exposure", "other", "never"}


def test_documented_bits():
    assert {name: dq.BY_NAME[name].bit for name in DOCUMENTED} == DOCUMENTED


def test_table_fits_the_columns_of_dq_def():
    assert all(flag.name.isascii() and len(flag.name) <= 40 for flag in dq.FLAGS)
    assert all(flag.description.isascii() and 0 < len(flag.description) <= 80 for flag in dq.FLAGS)


@pytest.mark.clients
def test_table_is_that_of_the_pipeline():
    from stdatamodels.jwst.datamodels import dqflags

    theirs = {name: value for name, value in dqflags.pixel.items() if value and not name.startswith("RESERVED")}
    ours = {flag.name: flag.value for flag in dq.FLAGS if flag.use != "never"}
    assert {name: theirs.get(name) for name in ours} == ours


def test_names_of_a_value():
    assert dq.names(0) == []
    assert dq.names(2**31 | 1) == ["DO_NOT_USE", "REFERENCE_PIXEL"]
    assert dq.names(2**32 - 1) == [flag.name for flag in dq.FLAGS]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("NOISY", "UNRELIABLE_SLOPE"),
        ("low_pedestal", "OTHER_BAD_PIXEL"),
        ("high_cr", "TELEGRAPH"),
        ("IRC", "RC"),
        ("DAED", "DEAD"),
        (" hott ", "HOT"),
        ("LOW QE", "LOW_QE"),
    ],
)
def test_unknown_flags_get_a_proposal(wrong, right):
    with pytest.raises(UsageError, match=f"unknown; did you mean {right}"):
        flag_value(wrong)


@pytest.mark.parametrize("name", ["JUMP_DET", "SATURATED", "AD_FLOOR", "RESERVED", "outlier"])
def test_flags_of_exposures_do_not_enter_a_mask(name):
    with pytest.raises(UsageError, match="does not belong in a mask"):
        flag_value(name)


def test_any_case():
    assert flag_value(" hot ") == flag_value("HOT") == 2048


def test_all_flags_listed_for_a_wild_name():
    with pytest.raises(UsageError, match="known are DO_NOT_USE, SATURATED"):
        flag_value("zzzzzz")
