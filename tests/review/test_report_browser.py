"""The page in headless Chromium, driven by chromedriver over HTTP: it loads without errors, the switches work, and
what it shows equals the mask."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from evidence_files import FLAGS, make_evidence, write_jump
from mask_files import SUB64, make_mask

from badpix import dq
from badpix.io import evidence_file
from badpix.mask import file as mask_file
from badpix.review import report
from badpix.settings.check import CheckSettings

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed"),
]


class Browser:
    """The few calls of the WebDriver protocol that are needed here."""

    def __init__(self, width, height, phone=False):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}"]
        options = {"binary": CHROMIUM, "args": arguments}
        if phone:
            options["mobileEmulation"] = {
                "deviceMetrics": {"width": width, "height": height, "pixelRatio": 2, "touch": True}
            }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        for _ in range(100):
            try:
                self.session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
                break
            except urllib.error.URLError:
                time.sleep(0.1)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path):
        self.call("POST", f"/session/{self.session}/url", {"url": path.as_uri()})
        for _ in range(100):
            if self.run("return document.documentElement.dataset.ready"):
                break
            time.sleep(0.1)
        assert self.run("return document.documentElement.dataset.ready") == "yes"

    def run(self, script, *arguments):
        return self.call("POST", f"/session/{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def settle(self):
        """Wait until the map has been drawn again."""
        script = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        self.call("POST", f"/session/{self.session}/execute/async", {"script": script, "args": []})

    def log(self):
        return self.call("POST", f"/session/{self.session}/se/log", {"type": "browser"})

    def screenshot(self):
        return base64.b64decode(self.call("GET", f"/session/{self.session}/screenshot"))

    def close(self):
        self.call("DELETE", f"/session/{self.session}")
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    old = make_mask(folder / "old.fits", window=SUB64, flags=[*FLAGS[:2], (50, 50, "WARM")], SUBARRAY="SUB64")
    path = make_mask(folder / "mask.fits", window=SUB64, flags=FLAGS, SUBARRAY="SUB64")
    evidence_file.write(evidence_file.path_beside(path), make_evidence(), mask_file.evidence_header(path))
    limits = CheckSettings.in_set()
    jump = write_jump(folder / "a_jump.fits")
    report.write_report(path, folder / "report.html", limits, against=old, ramps=[jump])
    return folder / "report.html", mask_file.read_mask(path)


@pytest.fixture(scope="module")
def browser(made):
    found = Browser(1280, 1000)
    found.open(made[0])
    yield found
    found.close()


def drawn(browser):
    browser.settle()
    return int(browser.run("return document.getElementById('map').dataset.drawn"))


def switch(browser, name):
    browser.run("document.querySelector(`input[data-type='${arguments[0]}']`).click()", name)


def go(browser, x, y):
    browser.run(
        "document.getElementById('go-x').value = arguments[0]; document.getElementById('go-y').value = arguments[1];"
        "document.querySelector('#go button').click()",
        x,
        y,
    )
    browser.settle()
    return browser.run("const r = document.getElementById('readout'); return [r.innerText, r.dataset.value]")


def test_it_loads_without_errors(browser):
    assert [row for row in browser.log() if row["level"] in ("SEVERE", "WARNING")] == []
    script = "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length"
    assert browser.run(script) == 0


def test_switches_change_what_is_drawn(browser, made):
    image = made[1].image
    typed = (image != 0) & ((image & dq.VALUE["REFERENCE_PIXEL"]) == 0) & (image != dq.VALUE["DO_NOT_USE"])
    browser.run("document.getElementById('zoom-reset').click()")
    before = drawn(browser)
    assert before == int(typed.sum()) == 6
    switch(browser, "HOT")
    assert drawn(browser) == before - 3
    switch(browser, "HOT")
    assert drawn(browser) == before
    browser.run("document.querySelectorAll('.all-none button')[1].click()")
    assert drawn(browser) == 0
    browser.run("document.querySelectorAll('.all-none button')[0].click()")
    assert drawn(browser) == before


@pytest.mark.parametrize(("mode", "number"), [("unusable", 6), ("usable", 1), ("type", 6), ("change", 7)])
def test_modes(browser, mode, number):
    """usable: the LOW_QE pixel; change: five appeared (one of them bare DO_NOT_USE is none), two stayed, one went."""
    browser.run("document.querySelector(`input[value='${arguments[0]}']`).click()", mode)
    assert drawn(browser) == number
    browser.run("document.querySelector(`input[value='type']`).click()")


def test_every_pixel_is_told_as_the_mask_has_it(browser, made):
    mask = made[1]
    rng = np.random.default_rng(4)
    places = [(int(x), int(y)) for y, x in zip(*np.nonzero(mask.image & 0x7FFFFFFF), strict=True)]
    places += [(int(rng.integers(72)), int(rng.integers(64))) for _ in range(30)]
    for x, y in places:
        text, value = go(browser, x, y + SUB64.ystart - 1)
        assert int(value) == int(mask.image[y, x])
        assert f"({x}, {y + SUB64.ystart - 1})" in text
        for name in dq.names(int(mask.image[y, x])):
            assert name in text


def test_the_evidence_of_a_pixel_is_shown(browser):
    text, _ = go(browser, 21, 788)
    assert "hot: dark rate 50 > 1 DN/s (too bright)" in text
    text, _ = go(browser, 5, 5)
    assert "There is no such pixel" in text


def test_a_color_is_where_its_pixel_is(browser):
    """Row 0 is at the bottom, column 0 at the left."""
    go(browser, 0, 778)  # holds another pixel, so that its frame is not in the way
    browser.run("document.getElementById('zoom-reset').click()")
    browser.settle()
    script = """
      const c = document.getElementById('map');
      const s = Math.min(c.width / 72, c.height / 64);
      const left = (c.width - 72 * s) / 2;
      const foot = c.height - (c.height - 64 * s) / 2;
      const p = c.getContext('2d').getImageData(left + 21.5 * s, foot - 10.5 * s, 1, 1).data;
      return [p[0], p[1], p[2]];"""
    assert browser.run(script) == [0xD5, 0x5E, 0x00]


def test_zoom_and_whole(browser):
    for name in ("zoom-in", "zoom-in"):
        browser.run("document.getElementById(arguments[0]).click()", name)
    inside = drawn(browser)
    browser.run("document.getElementById('zoom-reset').click()")
    assert drawn(browser) > inside


def test_on_a_phone_nothing_is_wider_than_the_screen(made):
    phone = Browser(390, 844, phone=True)
    try:
        phone.open(made[0])
        assert phone.run("return document.documentElement.scrollWidth") <= 390
        assert phone.log() == []
        assert drawn(phone) == 6
        assert len(phone.screenshot()) > 10_000
    finally:
        phone.close()
