"""Associations and file lists: members, order, names, groups, and clear errors."""

import json
from pathlib import Path

import pytest

from badpix.errors import DataError, UsageError
from badpix.io import associations as asn


@pytest.fixture
def table(tmp_path):
    """An association of two science members and one background, with its (empty) files."""
    names = ["jw1_00002_nrs1_cal.fits", "jw1_00001_nrs1_cal.fits", "jw1_00003_nrs1_cal.fits"]
    kinds = ["SCIENCE", "science", "Background"]
    for name in names:
        (tmp_path / name).touch()
    path = tmp_path / "jw1_spec3_asn.json"
    members = [{"expname": n, "exptype": k} for n, k in zip(names, kinds, strict=True)]
    content = {"asn_id": "a3001", "asn_pool": "pool", "products": [{"name": "out", "members": members}]}
    path.write_text(json.dumps(content))
    return path


def test_science_members_in_their_order_without_regard_to_case(table):
    found = asn.read_inputs([table])
    assert [p.name for p in found.paths] == ["jw1_00002_nrs1_cal.fits", "jw1_00001_nrs1_cal.fits"]
    assert (found.asn_id, found.pool_name, found.table_name) == ("a3001", "pool", table.name)
    assert [m.exptype for m in found.left_out] == ["background"]


def test_background_on_request(table):
    assert len(asn.read_inputs([table], ["science", "background"]).members) == 3


def test_file_list_has_no_association(table):
    paths = sorted(table.parent.glob("*_cal.fits"))
    found = asn.read_inputs(paths)
    assert found.paths == paths
    assert found.asn_id is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop("products"),
            r"jw1_spec3_asn.json: not an association: products: found nothing, expected a list",
        ),
        (lambda t: t.update(products=[]), r": products: found \[\], expected a list with content"),
        (lambda t: t.update(products={"a": 1}), r": products: found dict, expected a list"),
        (lambda t: t.update(products=["x"]), r"products\[0\]: found str, expected a dict"),
        (lambda t: t["products"][0].pop("members"), r"products\[0\].members: found nothing, expected a list"),
        (lambda t: t["products"][0].update(members=[]), r"products\[0\].members: found \[\]"),
        (
            lambda t: t["products"][0]["members"][1].pop("exptype"),
            r"members\[1\].exptype: found nothing, expected a str",
        ),
        (lambda t: t["products"][0]["members"][2].update(expname=""), r"members\[2\].expname: found ''"),
        (lambda t: t["products"][0]["members"].append("x"), r"members\[3\]: found str, expected a dict"),
        (lambda t: [m.update(exptype="target") for m in t["products"][0]["members"]], "no science members"),
        (lambda t: t["products"][0]["members"][0].update(expname="gone_cal.fits"), "gone_cal.fits: no such file"),
    ],
)
def test_broken_associations(table, change, message):
    content = json.loads(table.read_text())
    change(content)
    table.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        asn.read_inputs([table])


def test_further_products_are_left_out_and_said(table):
    assert asn.read_inputs([table]).remarks == ()
    content = json.loads(table.read_text())
    content["products"].append({"name": "second", "members": []})
    table.write_text(json.dumps(content))
    found = asn.read_inputs([table])
    assert found.product_name == "out"
    assert found.remarks == (f"{table.name}: 2 products; only the members of the first, products[0], are used",)


def test_not_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(DataError, match="not readable"):
        asn.read_inputs([path])
    with pytest.raises(UsageError, match="no such association"):
        asn.read_inputs([tmp_path / "b.json"])


def test_twice_and_mixed(table, tmp_path):
    one = tmp_path / "jw1_00001_nrs1_cal.fits"
    with pytest.raises(UsageError, match="named twice"):
        asn.read_inputs([one, one])
    with pytest.raises(UsageError, match="only input"):
        asn.read_inputs([table, one])
    with pytest.raises(UsageError, match="no input"):
        asn.read_inputs([])
    other = tmp_path / "other"
    other.mkdir()
    (other / one.name).touch()
    with pytest.raises(UsageError, match="same output name"):
        asn.read_inputs([one, other / one.name])


@pytest.mark.parametrize(
    ("name", "asn_id", "expected"),
    [
        ("jw01_nrca1_cal.fits", "a3001", "jw01_nrca1_a3001_crf.fits"),
        ("jw01_nrca1_cal.fits", None, "jw01_nrca1_crf.fits"),
        ("jw01_nrca1.fits", None, "jw01_nrca1_crf.fits"),
        ("jw01_nrca1_mine.fits", "c1007", "jw01_nrca1_mine_c1007_crf.fits"),
        ("/else/where/jw01_nrca1_crf.fits", "c1", "jw01_nrca1_c1_crf.fits"),
        ("cal.fits", None, "cal_crf.fits"),
    ],
)
def test_output_names(name, asn_id, expected):
    assert asn.crf_name(name, asn_id) == expected


def test_files_of_one_detector_and_group_are_said():
    keys = [
        (Path(f"{n}_cal.fits"), d, g)
        for n, d, g in (
            ("a", "NRCA1", "g1"),
            ("b", "NRCA2", "g1"),
            ("c", "NRCA1", "g1"),
            ("d", "NRCA1", "g2"),
            ("e", "NRCA1", "g1"),
        )
    ]
    (found,) = asn.list_repeated(keys)
    assert found.startswith("a_cal.fits, c_cal.fits and 1 more: one NRCA1 and one group, g1")
    assert "ACT_ID, EXPOSURE are equal" in found
    assert asn.list_repeated(keys[:2]) == []


def test_group_names():
    values = ["01234", "001", "002", "03", "1", "04", "5"]
    header = dict(zip(asn.GROUP_KEYWORDS, values, strict=True))
    assert asn.group_id(header, 0) == "jw01234001002_03104_5"
    assert asn.group_id(header, 0, "mine") == "mine"
    assert asn.group_id(header | {"VISIT": ""}, 3) == "exposure0004"
