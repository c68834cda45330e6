"""The page: its numbers are the mask's, it loads nothing, texts of the file can't break it."""

import base64
import json
import re
import struct
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from evidence_files import FLAGS, make_evidence, write_jump
from mask_files import SUB64, make_mask
from notes import heard

from badpix import dq
from badpix.cli.main import badpix
from badpix.io import evidence, evidence_file
from badpix.mask import file as mask_file
from badpix.review import check, report, report_history, report_where
from badpix.settings.check import CheckSettings

P = CheckSettings.in_set()


@pytest.fixture
def made(tmp_path):
    old = make_mask(tmp_path / "old.fits", window=SUB64, flags=FLAGS[:2], SUBARRAY="SUB64")
    path = make_mask(tmp_path / "mask.fits", window=SUB64, flags=FLAGS, SUBARRAY="SUB64", AUTHOR="<b>A & B</b>")
    evidence_file.write(evidence_file.path_beside(path), make_evidence(), mask_file.evidence_header(path))
    return path, old


@pytest.fixture
def page(tmp_path, made):
    jump = write_jump(tmp_path / "a_jump.fits")
    report.write_report(made[0], tmp_path / "r.html", P, against=made[1], ramps=[jump])
    return (tmp_path / "r.html").read_text()


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def decode_png(url):
    """The image of a PNG data URL, by hand: no filter, 8 bits, gray or RGB."""
    raw = base64.b64decode(url.split(",", 1)[1])
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, {}
    while place < len(raw):
        size, name = struct.unpack(">I4s", raw[place : place + 8])
        chunks[name] = raw[place + 8 : place + 8 + size]
        assert struct.unpack(">I", raw[place + 8 + size : place + 12 + size])[0] == zlib.crc32(name + chunks[name])
        place += 12 + size
    nx, ny, depth, kind = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(ny, -1)
    assert not lines[:, 0].any()
    if kind == 0:
        return lines[:, 1:].astype(int)
    rgb = lines[:, 1:].reshape(ny, nx, 3).astype(int)
    return 256 * rgb[..., 0] + rgb[..., 1]


@pytest.mark.slow
def test_the_map_holds_the_mask_and_the_previous_one(made, page):
    data = data_of(page)
    for source, path in ((data, made[0]), (data["old"], made[1])):
        palette = np.array(source["palette"], np.uint32)
        assert np.array_equal(palette[decode_png(source["image"])], mask_file.read_mask(path).image)
    assert (data["x0"], data["y0"], data["nx"], data["ny"]) == (0, 778, 72, 64)


@pytest.mark.slow
def test_evidence_of_the_flagged_pixels(made, page):
    data = data_of(page)
    image = mask_file.read_mask(made[0]).image
    y, x = np.nonzero((image != 0) & ((image & dq.VALUE["REFERENCE_PIXEL"]) == 0))
    rate = next(q for q in data["quantities"] if q["name"] == "dark_rate")
    values = np.frombuffer(base64.b64decode(rate["data"]), "<f2")
    np.testing.assert_allclose(values, make_evidence().images["dark_rate"][y, x], rtol=1e-3)
    assert {r["search"] for r in data["rules"]} == {"hot", "LOW_QE", "OPEN", "rc", "DEAD"}


def test_many_palette_entries_need_two_bytes():
    index = np.arange(600).reshape(20, 30)
    assert np.array_equal(decode_png(report.encode_png(index)), index)


@pytest.mark.slow
def test_the_page_loads_nothing_from_anywhere(page):
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#|data:)', page)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert "@import" not in page


@pytest.mark.slow
def test_texts_of_the_file_are_escaped(page):
    assert "<b>A" not in page
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in page


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = ("meta", "input", "br", "path", "line", "circle", "rect")

    def __init__(self):
        super().__init__()
        self.stack = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


@pytest.mark.slow
def test_the_page_is_well_formed_and_complete(page):
    parser = Balanced()
    parser.feed(page)
    assert parser.stack == []
    assert not re.search(r"<!--[A-Z]+-->", page)
    for title in (
        "The detector",
        "How many pixels",
        "Checks",
        "Since the previous mask",
        "Where they are",
        "Examples of ramps",
        "How it was made",
        "Glossary of flags",
    ):
        assert f"<h2>{title}</h2>" in page


@pytest.mark.slow
def test_counts_are_the_masks(made, page):
    mask = mask_file.read_mask(made[0])
    science = ~mask.reference
    cells = re.findall(r'data-flag="(\w+)">[^<]*</span></td><td class="number">([\d,]+)</td>', page)
    told = {name: int(n.replace(",", "")) for name, n in cells}
    assert told["HOT"] == int(((mask.image[science] & dq.VALUE["HOT"]) != 0).sum()) == 3
    assert told["any"] == int((mask.image[science] != 0).sum()) == 7


@pytest.mark.slow
def test_equal_masks_give_equal_pages(tmp_path, made):
    for name in ("a.html", "b.html"):
        report.write_report(made[0], tmp_path / name, P, against=made[1])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_mask_without_evidence_has_a_page(tmp_path):
    path = make_mask(tmp_path / "mask.fits", flags=[(100, 100, "HOT+DO_NOT_USE")])
    with heard() as said:
        size = report.write_report(path, tmp_path / "r.html", P)
    assert size < 200_000
    assert "make it with --evidence" in said[0]
    assert "quantities" not in data_of((tmp_path / "r.html").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_content_that_was_changed_is_said_here_and_on_the_page(tmp_path, made, which):
    path = made[which]
    with fits.open(path) as hdus:
        at = hdus["DQ"].fileinfo()["datLoc"] + 4 * (30 * 72 + 30) + 3
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    words = "CHECKSUM of DQ, DATASUM of DQ is wrong: the file was changed after it was written"
    with heard() as said:
        report.write_report(made[0], tmp_path / "r.html", P, against=made[1])
    assert [text for text in said if "SUM" in text] == [f"{path}: {words}"]
    assert words in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_the_page_of_a_crowded_full_frame_stays_small(tmp_path):
    """Ten per cent of a large detector flagged at random, with eight quantities: below 5 MB."""
    path = make_mask(tmp_path / "mask.fits", "NRCA1")
    mask = mask_file.read_mask(path)
    rng = np.random.default_rng(1)
    values = np.array([f.value | 1 for f in dq.FLAGS if f.use == "mask" and 10 <= f.bit < 28], np.uint32)
    chosen = rng.random(mask.image.shape) < 0.1
    mask.image[chosen & ~mask.reference] |= rng.choice(values, mask.image.shape)[chosen & ~mask.reference]
    images = {f"quantity_{k}": rng.normal(size=mask.image.shape).astype(np.float32) for k in range(8)}
    found = evidence.Evidence(images)
    checked = check.Checked(path, [])
    page = report.make_page(mask, found, checked, None)
    assert len(page) < report.SIZE_LIMIT
    assert "kept" in data_of(page)


def test_lines_that_stand_out_are_found():
    counts = np.random.default_rng(2).poisson(5, 500).astype(float)
    assert report_where.find_odd_lines(counts) == []
    counts[17] = 90
    assert report_where.find_odd_lines(counts) == [17]


def test_parameters_and_inputs_from_history(tmp_path):
    path = make_mask(tmp_path / "mask.fits")
    mask = mask_file.read_mask(path)
    long = "flats.dead_search = true [BPFDEAD]: " + "word " * 20
    cards = [long[k : k + 72] for k in range(0, len(long), 72)]
    data = ["DATA USED:", "  a_rate.fits", "sha256 0123456789abcdef0123", "  rejected: b.fits: truncated"]
    mask.history[:] = ["Made.", *data, "DIFFERENCES: none", "Parameter values and descriptions:", *cards]
    table = report_history.parameters_table(mask)
    assert "<td>dead_search</td><td>true</td>" in table
    assert ("word " * 20).strip() in table
    inputs = report_history.inputs_block(mask)
    assert "<td>a_rate.fits</td><td>used</td><td><code>0123456789abcdef…</code></td>" in inputs
    assert "<td>b.fits</td><td>rejected</td><td>truncated</td>" in inputs


def test_command(tmp_path, made):
    target = tmp_path / "report.html"
    result = CliRunner().invoke(badpix, ["report", str(made[0]), "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(target)
    again = CliRunner().invoke(badpix, ["report", str(made[0]), "-o", str(target)])
    assert again.exit_code == 2
