"""Flats whose light is dispersed: slices, slits and traces, curved and sharp; lit, dim and unlit pixels."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from make_files import couple, write_rates
from scipy.special import erf

from badpix import detectors
from badpix.detectors import Window
from badpix.errors import DataError
from badpix.flats import dispersed, judged, lines, paths, search, steep, types
from badpix.flats.build import build_flats, check_judged
from badpix.flats.light import normalize_light
from badpix.io.exposure import open_exposure
from badpix.mask.file import read_mask
from badpix.mask.header import check_texts
from badpix.review.explain import explain
from badpix.review.readings import read_evidence
from badpix.settings.flats import FlatSettings
from badpix.settings.reference import ReferenceSettings

SHAPE = (240, 256)
SINGLE = ((0.0, "DEAD"), (0.01, "DEAD"), (0.15, "LOW_QE"), (0.3, "LOW_QE"))


def band(u, width, soft):
    """A slice of that width around u = 0 with soft edges."""
    return 0.25 * (1 + erf((u + width / 2) / soft)) * (1 + erf((width / 2 - u) / soft))


def make_slices(shape=SHAPE, pitch=20, width=15, bend=10.0, soft=0.8, fringe=0.1):
    """Slices along y, bent, with a spectrum that falls to its end, an absorption line and fringes."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    light = np.zeros(shape)
    v = y / shape[0]
    spectrum = (0.35 + 0.65 * np.cos(2 * (v - 0.3))) * (1 - 0.4 * np.exp(-(((y - 77) / 3) ** 2)))
    for k in range(int(shape[1] // pitch)):
        u = x - (pitch * (k + 0.5) + bend * (v - 0.5) ** 2 * (1 if k % 2 else 1.5))
        one = band(u, width, soft) * spectrum * (1 + fringe * np.sin(2 * np.pi * (y + 0.1 * u + 3 * k) / 11))
        light = np.maximum(light, one * (0.8 + 0.02 * k))
    return light


def make_traces(shape=SHAPE, soft=1.1):
    """Traces of five pixels along x that rise and bend, with emission lines, over a dark frame."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    light = np.zeros(shape)
    v = x / shape[1]
    spectrum = 0.5 + 0.3 * v
    for line in (31, 90, 160, 201):
        spectrum = spectrum + 1.5 * np.exp(-(((x - line) / 1.8) ** 2))
    for k, y0 in enumerate(np.arange(14, shape[0] - 12, 15)):
        u = y - y0 - 3 * (v - 0.5) - (4 + k % 3) * (v - 0.5) ** 2
        light = np.maximum(light, band(u, 5, soft) * spectrum * (v + 0.01 * k > 0.2))
    return light


SCENES = {"slices": (make_slices, 0, "MIRIFUSHORT"), "traces": (make_traces, 1, "NRS1")}


def make_scene(name, seed=1, noise=0.004, spread=0.012, count=120):
    """Mean flat of a scene, its light, and where single defects are: type -> map."""
    make, axis, detector = SCENES[name]
    light, rng = make(), np.random.default_rng(seed)
    seen = light * (1 + spread * rng.normal(size=light.shape))
    truth = {kind: np.zeros(light.shape, bool) for kind in ("DEAD", "LOW_QE")}
    taken = np.zeros(light.shape, bool)
    for k in range(count * 40):
        y, x = (int(rng.integers(4, n - 4)) for n in light.shape)
        if taken[y - 3 : y + 4, x - 3 : x + 4].any() or sum(m.sum() for m in truth.values()) >= count:
            continue
        taken[y, x] = True
        level, kind = SINGLE[k % 4]
        seen[y, x] *= level
        truth[kind][y, x] = True
    seen = couple(seen, detectors.get(detector).ipc) + 0.002
    seen += rng.normal(size=light.shape) * noise * np.sqrt(np.maximum(seen, 0) + 0.02)
    return (100 * seen).astype(np.float32), light, truth, axis, detector


def search_scene(folder, name, n=3, **changes):
    mean, light, truth, _, detector = make_scene(name)
    rng = np.random.default_rng(7)
    stack = np.stack([mean * (1 + 0.03 * rng.normal()) + 0.05 * rng.normal(size=mean.shape) for _ in range(n)])
    window = Window(300, 300, SHAPE[1], SHAPE[0])
    rates = [open_exposure(p) for p in write_rates(folder, stack, detector=detector, window=window)]
    found = search.search(rates, FlatSettings(**changes))
    return found, light, truth


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_defects_in_dispersed_light(tmp_path, name):
    """All dead and weak pixels in good light are found, nothing else is flagged."""
    found, light, truth = search_scene(tmp_path, name)
    lit = light > 0.1 * np.quantile(light[light > 0.05 * light.max()], 0.95)
    for kind, wanted in truth.items():
        assert (found.maps[kind] & wanted & lit).sum() >= (0.98 if name == "slices" else 0.95) * (wanted & lit).sum()
    any_low = found.maps["DEAD"] | found.maps["LOW_QE"] | found.maps["OPEN"]
    injected = truth["DEAD"] | truth["LOW_QE"]
    assert (any_low & ~injected).sum() <= 1
    state = found.evidence.images["flat_state"]
    assert ((state == judged.LIT) & lit).sum() >= 0.97 * lit.sum()
    assert not any_low[state != judged.LIT].any()


@pytest.mark.slow
def test_other_models_do_not_fit(tmp_path):
    """The test above can fail: light taken for smooth, or dispersed along the other axis, gives false flags."""
    for k, changes in enumerate(
        ({"illumination_model": "imager"}, {"illumination_model": "dispersed", "dispersion_axis": "x"})
    ):
        found, _, truth = search_scene(tmp_path / str(k), "slices", **changes)
        low = found.maps["DEAD"] | found.maps["LOW_QE"] | found.maps["OPEN"]
        injected = truth["DEAD"] | truth["LOW_QE"]
        assert (low & ~injected).sum() + (injected & ~low).sum() > 20


@pytest.mark.parametrize("slope", [-0.2, -0.03, 0.0, 0.11, 0.3])
def test_inclination_is_measured(slope):
    y, x = np.mgrid[:200, :220].astype(float)
    u = (x - slope * y) % 24 - 12
    image = (
        100 * band(u, 15, 0.9) * (1 + 0.3 * np.sin(y / 40)) + np.random.default_rng(1).normal(size=u.shape)
    ).astype(np.float32)
    found = paths.measure_inclination(image)
    assert np.abs(found[30:-30, 30:-30] - slope).max() < 0.012


def test_smooth_light_has_no_inclination():
    image = np.random.default_rng(1).normal(100, 1, (120, 130)).astype(np.float32)
    np.testing.assert_array_equal(paths.measure_inclination(image), 0)
    light = dispersed.measure_light(image, 1)
    assert np.abs(light / 100 - 1).max() < 0.03


def test_along_is_a_median_along_straight_paths():
    """Without inclination it is the plain median of the rows."""
    image = np.random.default_rng(3).normal(10, 1, (40, 17)).astype(np.float32)
    found = paths.measure_along(image, np.zeros(image.shape, np.float32))
    for y in range(40):
        rows = [y + k for k in paths.STEPS if 0 <= y + k < 40]
        np.testing.assert_allclose(found[y], np.median(image[rows], axis=0), rtol=1e-6)


def test_one_row_is_no_line():
    seen = np.ones((9, 5), np.float32)
    seen[4] = 0.1
    assert lines.without_rows(seen)[4].min() == pytest.approx(lines.LINE)
    seen[3:6] = [[0.7], [0.4], [0.7]]
    np.testing.assert_array_equal(lines.without_rows(seen), seen)


@pytest.mark.parametrize("shape", [(3, 5), (1, 40), (40, 1), (16, 16), (31, 70)])
def test_frames_of_any_size(shape):
    image = np.full(shape, 9.0, np.float32)
    image[0, 0] = np.nan
    for axis in (0, 1):
        light = dispersed.measure_light(image, axis)
        np.testing.assert_allclose(light[np.isfinite(image)], 9, rtol=1e-5)


def test_states():
    light = np.full((40, 50), 100, np.float32)
    light[:, :20] = 0.01
    light[:, 20:25] = 6
    mean = light + np.random.default_rng(1).normal(0, 0.05, light.shape).astype(np.float32)
    mean[30, 40] = np.nan
    state = judged.find_state(mean, light, 0.1)
    assert (state[:, :20] == judged.UNLIT).all()
    assert (state[:, 20:25] == judged.DIM).all()
    assert state[30, 40] == judged.NO_SLOPE
    assert (state[:, 25:] == judged.LIT).sum() == 40 * 25 - 1
    counts = judged.count_states(state)
    assert counts == {"science": 2000, "judged": 999, "unlit": 800, "dim": 200, "saturated": 0, "no slope": 1}
    assert judged.headline(counts).startswith(
        "judged 49.95 % of 2,000 science pixels; undetermined: 800 unlit, 200 dim"
    )


def test_too_little_judged_fails():
    counts = {"science": 1000, "judged": 900, "unlit": 100, "dim": 0, "saturated": 0, "no slope": 0}
    p = FlatSettings()
    with pytest.raises(DataError, match=r"judged 90 % .* at least 95 % .*--allow-unlit"):
        check_judged(counts, p, 95)
    check_judged(counts, FlatSettings(allow_unlit=True), 95)
    check_judged(counts, FlatSettings(min_judged_percent=90), 95)
    check_judged(counts, p, 40)


@pytest.mark.slow
def test_reasons_reach_the_user(tmp_path):
    """Evidence and explain name the true reason of an undetermined pixel."""
    mean, _, _, _, detector = make_scene("slices")
    stack = np.repeat(mean[None], 3, axis=0)
    stack[:, 100, 60] = np.nan
    stack[:, 100, 62] = np.nan
    window = Window(300, 300, SHAPE[1], SHAPE[0])
    paths = write_rates(tmp_path, stack, detector=detector, window=window, subarray="SUB256", EXP_TYPE="MIR_FLATMRS")
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus["DQ"].data[100, 60] |= 2
    texts = check_texts(ReferenceSettings(author="A", reference_subarray="SUB256"))
    product = build_flats(paths, FlatSettings(), tmp_path / "m.fits", texts=texts, with_evidence=True)
    assert product.judged["saturated"] == product.judged["no slope"] == 1
    assert product.judged["unlit"] > 1000
    mask = read_mask(tmp_path / "m.fits")
    evidence, _ = read_evidence(mask)
    state = evidence.images["flat_state"]
    dark = tuple(int(v) for v in np.argwhere(state == judged.UNLIT)[50])
    for (row, column), why in (((100, 60), "saturated"), ((100, 62), "no slope"), (dark, "unlit")):
        text = " ".join(explain(mask, evidence, column + 299, row + 299).sentences)
        assert why in text
        assert explain(mask, evidence, column + 299, row + 299).title == "unknown"


def test_modes():
    def mode(name, **header):
        return detectors.find_mode(detectors.get(name), header)

    assert mode("MIRIFULONG") == ("MRS", 0, 40)
    assert mode("NRS1", EXP_TYPE="NRS_IFU").axis == 1
    assert mode("NRS2", EXP_TYPE="NRS_IMAGE").axis is None
    assert mode("NRS1", EXP_TYPE="NRS_LAMP", GRATING="MIRROR").axis == 1
    assert mode("MIRIMAGE", EXP_TYPE="MIR_LRS-FIXEDSLIT").axis == 0
    assert mode("MIRIMAGE", FILTER="F770W").axis is None
    assert mode("NIS", PUPIL="GR700XD").axis == 1
    assert mode("NIS").axis is None
    assert mode("NRCB1") == ("imager", None, 95)


def make_steep(own, axis=0, error=0.02):
    """Light of a frame in which all is known."""
    nowhere = np.full(own.shape, np.nan, np.float32)
    return steep.Steep(own, nowhere, np.float32(error) * own, np.ones_like(own), axis)


@pytest.mark.parametrize("axis", [0, 1])
def test_charges_are_parts_of_the_pixels_own_light(axis):
    """From the edge of a slice to bright and dark neighbors; an error that goes on along the dispersion is none."""
    own = np.tile(np.array([2, 2, 2, 20, 60, 100, 100, 100], np.float32), (12, 1))
    beyond = np.zeros(own.shape, np.float32)
    beyond += 0.05 * own  # the model is off by so much
    for (y, x), charge in {(5, 3): 4.0, (7, 3): 4.2, (6, 2): 3.9, (6, 4): 4.1}.items():
        beyond[y, x] += charge
    beyond[6, 3] = -20
    if axis:
        own, beyond = np.ascontiguousarray(own.T), np.ascontiguousarray(beyond.T)
    judged_ = own > 10
    norm = np.where(judged_, 1 + beyond / own, np.nan).astype(np.float32)
    light = make_steep(own, axis)._replace(beside=np.where(judged_, np.nan, beyond).astype(np.float32))
    y, x = (np.array([3]), np.array([6])) if axis else (np.array([6]), np.array([3]))
    usable = np.ones(own.shape, bool)
    usable[y, x] = False
    charge, error = steep.charges_at(norm, light, y, x, usable, center=1.0)
    along, across = (slice(2, 4), slice(0, 2)) if axis else (slice(0, 2), slice(2, 4))
    np.testing.assert_allclose(charge[along, 0], [0.2, 0.21], atol=1e-5)
    np.testing.assert_allclose(charge[across, 0], [0.195, 0.205], atol=1e-5)
    np.testing.assert_allclose(error[across, 0], [0.004, 0.06], atol=1e-5)
    mean, sigma = steep.guarded_mean(charge, error)
    assert 0.19 < mean[0] < 0.21
    assert sigma[0] < 0.004


def test_a_lone_bright_neighbor_makes_no_charge():
    """More than the pixel's light is not from it; of one neighbor no more than twice the others counts."""
    charge = np.array([[0.3], [0.01], [0.01], [0.01]], np.float32)
    mean, _ = steep.guarded_mean(charge, np.full_like(charge, 0.01))
    assert mean[0] == pytest.approx(0.02, abs=1e-6)
    norm = np.ones((9, 9), np.float32)
    norm[4, 4], norm[4, 5] = 0.02, 9
    usable = norm > 0.5
    charge, _ = steep.charges_at(norm, make_steep(np.full_like(norm, 50)), *np.array([[4], [4]]), usable, center=1.0)
    assert np.isnan(charge[3, 0])
    np.testing.assert_allclose(charge[:3, 0], 0, atol=1e-6)


def make_lines(shape=(160, 170), tilt=0.12, width=1.3):
    """Emission lines that incline across one wide slit."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    u = y + tilt * (x - shape[1] / 2)
    return (1 + sum(4 * np.exp(-(((u - line) / width) ** 2) / 2) for line in (30, 61.5, 100, 128.3))).astype(
        np.float32
    )


def test_lines_are_followed_across():
    """At the end of a slit a median across on inclined lines keeps their flanks; one that lies across is off."""
    image = make_lines()
    path = lines.follow_lines(image)
    assert np.abs(np.diff(path, axis=1)[20:-20, 30:-30] + 0.12).max() < 0.02
    slit = image.copy()
    slit[:, :60] = slit[:, 110:] = np.nan
    along, plain = (lines.median_across(slit, 6, p) / image - 1 for p in (path, None))
    assert np.abs(along[20:-20, 60:66]).max() < 0.1
    assert np.abs(plain[20:-20, 60:66]).max() > 0.2
    noise = np.random.default_rng(2).normal(1, 0.01, (80, 90)).astype(np.float32)
    assert lines.follow_lines(noise) is None


def test_odd_pixels_tell_no_light():
    """Hot pixels are dropped with their sides, low ones alone, wide odd places not."""
    light = np.full((60, 60), 100, np.float32)
    image = light.copy()
    image[20, 20] = 900
    image[40, 40] = 2
    image[5:15, 40:50] = 900
    dropped = np.isnan(lines.drop_odd(image, light, 3))
    wanted = np.zeros(image.shape, bool)
    wanted[20, 19:22] = wanted[19:22, 20] = wanted[40, 40] = True
    np.testing.assert_array_equal(dropped[16:], wanted[16:])
    assert dropped[6:14, 41:49].sum() == 0


def test_stray_light_is_no_line():
    """In a gap beside a strong line: what the rows around tell of stray light and of line."""
    n = 60
    line = np.ones((n, 9), np.float32)
    line[29:32] += np.array([[8.0], [15.0], [8.0]], np.float32)
    stray = np.full((n, 9), 3, np.float32)
    path = np.zeros((n, 9), np.float32)
    at = np.array([30]), np.array([4])
    assert dispersed.measure_stray(stray, line, path, *at) == pytest.approx(3)
    assert dispersed.measure_stray(3 + 2 * line, line, path, *at) == pytest.approx(3 + 32)
    assert np.isnan(dispersed.measure_stray(stray, np.ones_like(line), path, *at))
    alone = np.ones_like(line)
    alone[30] = 16  # known of this row only: told of no other one
    assert dispersed.measure_stray(stray, alone, path, *at) == pytest.approx(3)


def test_a_frame_lit_by_one_line():
    """Dead pixels on the line are found, gaps and slices beside it are no defects."""
    y, x = np.mgrid[:150, :200].astype(float)
    u = (x - 6 * ((y - 75) / 75) ** 2) % 25 - 12.5
    light = band(u, 19, 0.9) * (0.06 + np.exp(-(((y + 0.08 * u - 70) / 1.6) ** 2) / 2))
    rng = np.random.default_rng(3)
    seen = light * rng.normal(1, 0.01, light.shape)
    places = [(70, 30), (71, 61), (69, 88), (72, 136), (70, 165), (30, 40), (110, 117)]
    for place in places:
        seen[place] *= 0.01
    assert min(light[place] for place in places) > 0.05
    detector = detectors.get("MIRIFULONG")
    mean = 2000 * (couple(seen, detector.ipc) + 0.0015)
    mean = (mean + rng.normal(size=mean.shape) * np.sqrt(0.02 * mean + 0.5)).astype(np.float32)
    found = normalize_light(mean, FlatSettings(), detector.ipc, detectors.Mode("MRS", 0, 40))
    maps = types.find_flat_types(found.norm, FlatSettings(), detector, found.steep).maps
    assert all(maps["DEAD"][place] for place in places)
    assert (maps["DEAD"] | maps["LOW_QE"] | maps["OPEN"]).sum() == len(places)


@pytest.mark.parametrize(("rows", "columns"), [((50, 52), (15, 15)), ((116, 119), (18, 12)), ((140, 143), (35, 5))])
def test_clusters_in_a_slice_are_dead(rows, columns):
    """Over half of a slice they were taken for absorption, on its edge for the dark beside it."""
    light = make_slices(fringe=0.03).astype(np.float32)
    image = 100 * light * np.random.default_rng(1).normal(1, 0.01, light.shape).astype(np.float32) + np.float32(0.1)
    start, width = columns
    y, x = slice(*rows), slice(start, start + width)
    image[y, x] *= np.float32(0.02)
    found = dispersed.measure_light(image, 0)
    inside = light[y, x] > 0.15
    assert inside.sum() >= 6
    ratio = found[y, x] / (100 * light[y, x])
    assert ratio[inside].min() > 0.4
    assert (image[y, x] / found[y, x])[inside].max() < 0.05


def test_black_runs_are_dead_unless_they_are_long():
    """Absorption to a third, the dark beyond the frame's last trace, and more than ten dark rows are light."""
    image = np.full((80, 4), 100, np.float32)
    image[10:14, 0], image[10:30, 1], image[-6:, 2], image[:3, 0], image[40:50, 3] = 35, 1, 1, 1, 2
    found = lines.find_black(image, np.full(image.shape, 100, np.float32))
    assert not found[:, :3].any()
    np.testing.assert_array_equal(np.flatnonzero(found[:, 3]), np.arange(40, 50))


def test_neighbors_of_a_saturated_pixel_tell_no_light():
    """Four of them, and the corners, look like a bright place, not like odd pixels."""
    image = (100 * make_slices(fringe=0)).astype(np.float32)
    plain = dispersed.measure_light(image, 0)
    y, x = 200, 8
    hot = image.copy()
    hot[y - 1 : y + 2, x - 1 : x + 2] += np.array([[400, 4500, 400], [5000, np.nan, 5000], [400, 4500, 400]])
    np.testing.assert_allclose(dispersed.measure_light(hot, 0), plain, atol=4)
