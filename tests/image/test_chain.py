"""The chain read from an ASDF tree is the GWCS library's, or it says that it does not know."""

import io

import asdf
import gwcs
import numpy as np
import pytest
from astropy import coordinates, units
from astropy.modeling import models as m
from gwcs import coordinate_frames as cf
from gwcs.geometry import CartesianToSpherical, SphericalToCartesian
from hypothesis import given, settings
from hypothesis import strategies as st

from badpix.image import wcs as image_wcs
from badpix.image.chain import Unknown, evaluate, invert, read_block, read_chain
from badpix.io import cal as io_cal

DETECTOR = cf.Frame2D(name="detector", axes_order=(0, 1), unit=(units.pix, units.pix))
V2V3 = cf.Frame2D(name="v2v3", axes_order=(0, 1), unit=(units.arcsec, units.arcsec))
SKY = cf.CelestialFrame(name="world", reference_frame=coordinates.ICRS(), unit=(units.deg, units.deg))
TO_SKY = m.RotationSequence3D([-0.02, 0.13, 40.0, -27.8, -53.2], axes_order="zyxyz")
TO_SKY = SphericalToCartesian(wrap_lon_at=180) | TO_SKY | CartesianToSpherical(wrap_lon_at=360)
SPLIT = m.Mapping((0, 1, 0, 1))


def polynomial(a, b):
    return m.Polynomial2D(2, c0_0=a, c1_0=1.0, c0_1=b, c2_0=1e-3 * a, c1_1=-1e-3, c0_2=2e-3 * b)


def tangent_plane():
    """As the alignment step writes it: Cartesian positions divided by their first, and back."""
    down = m.Mapping((0, 1, 2)) / m.Mapping((0, 0, 0), n_inputs=3) | m.Mapping((1, 2))
    up = m.Mapping((0, 0, 1)) | m.Const1D(1.0) & m.Identity(2)
    turn = m.AffineTransformation2D([[1.01, 0.002], [-0.003, 0.99]], [1e-4, -2e-4])
    out = SphericalToCartesian(wrap_lon_at=180) | down | turn | up | CartesianToSpherical(wrap_lon_at=180)
    out.inverse = SphericalToCartesian(wrap_lon_at=180) | down | turn.inverse | up | CartesianToSpherical()
    return out


def with_inverse():
    out = SPLIT | polynomial(0.1, 0.3) & polynomial(0.7, 0.2)
    out.inverse = SPLIT | polynomial(-0.1, -0.3) & polynomial(0.4, 0.1)
    return out


TRANSFORMS = {
    "shift": lambda: m.Shift(0.3) & m.Shift(-2.5),
    "scale": lambda: m.Scale(1.5) & m.Scale(-0.4),
    "identity": lambda: m.Identity(2),
    "swap": lambda: m.Mapping((1, 0)),
    "polynomials": with_inverse,
    "one variable": lambda: m.Identity(1) & m.Scale(2.0),
    "affine": lambda: m.AffineTransformation2D([[0.9, 0.1], [-0.2, 1.1]], [0.5, -1.5]),
    "spherical": lambda: m.SphericalRotationSequence([3.0, -7.0, 40.0], "zyx"),
    "tangent plane": tangent_plane,
}


def make(*transforms, box=((-0.5, 4.5), (-0.5, 3.5)), world=SKY):
    chain = transforms[0]
    for more in transforms[1:]:
        chain = chain | more
    inside = gwcs.WCS([(DETECTOR, chain), (V2V3, TO_SKY), (world, None)])
    if box:
        inside.bounding_box = box
    return inside


def write(wcs, **options):
    buffer = io.BytesIO()
    asdf.AsdfFile({"meta": {"wcs": wcs}}).write_to(buffer, **options)
    return buffer.getvalue()


def agree(chain, wcs, reach):
    (xa, xb), (ya, yb) = reach
    x, y = np.random.default_rng(1).uniform([[xa], [ya]], [[xb], [yb]], (2, 60))
    sky = image_wcs.ChainSky(chain.forward, None)(x, y)
    np.testing.assert_allclose(sky, wcs(x, y, with_bounding_box=False), rtol=0, atol=1e-11)
    back = evaluate(chain.backward, *sky)
    np.testing.assert_allclose(back, wcs.backward_transform(*sky), rtol=0, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=1, max_size=4))
def test_any_mixture_is_what_the_library_makes_of_it(names):
    wcs = make(*(TRANSFORMS[name]() for name in names))
    chain = read_chain(write(wcs))
    assert chain.bounds == ((-0.5, 4.5), (-0.5, 3.5))
    agree(chain, wcs, chain.bounds)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["miriwcs", "nircamwcs", "nrcb1-wcs", "nrcb5-wcs"])
def test_real_images(real_data, name):
    with asdf.open(next(real_data.glob(f"*/{name}.asdf")), lazy_load=False, memmap=False) as af:
        wcs = af["wcs"]
    chain = read_chain(write(wcs))
    box = wcs.bounding_box.bounding_box(order="F")
    assert chain.bounds == tuple(tuple(map(float, side)) for side in box)
    agree(chain, wcs, chain.bounds)


@pytest.mark.slow
def test_outside_the_bounding_box_is_nan_as_in_the_library():
    wcs = make(m.Identity(2))
    chain = read_chain(write(wcs))
    x, y = np.array([-0.5, -0.6, 4.5, 4.6, 2.0]), np.array([3.5, 0.0, -0.5, 0.0, np.nan])
    ours = image_wcs.ChainSky(chain.forward, chain.bounds)(x, y)
    np.testing.assert_allclose(ours, wcs(x, y), atol=1e-11)
    assert np.isnan(ours[0]).tolist() == [False, True, False, True, True]


@pytest.mark.slow
def test_inline_numbers_and_a_missing_box():
    wcs = make(with_inverse(), box=None)
    chain = read_chain(write(wcs, all_array_storage="inline"))
    assert chain.bounds is None
    agree(chain, wcs, ((0, 4), (0, 3)))


def domain():
    out = SPLIT | m.Polynomial2D(1, c1_0=1.0, x_domain=(0, 4)) & polynomial(0, 1)
    out.inverse = m.Identity(2)
    return out


def cut_last_block(content):
    return content[: content.rindex(b"\xd3BLK") + 60]


UNKNOWN = {
    "another transform": lambda: write(make(m.Rotation2D(30.0))),
    "a domain": lambda: write(make(domain())),
    "no inverse": lambda: write(make(SPLIT | polynomial(0.1, 0.3) & polynomial(0.7, 0.2))),
    "units": lambda: write(make(m.Shift(1 * units.pix) & m.Shift(1 * units.pix))),
    "no degrees": lambda: write(
        make(m.Identity(2), world=cf.CelestialFrame(reference_frame=coordinates.ICRS(), unit=("arcsec", "arcsec")))
    ),
    "no sky": lambda: write(make(m.Identity(2), world=cf.Frame2D(name="world"))),
    "packed": lambda: write(make(with_inverse()), all_array_compression="zlib", all_array_storage="internal"),
    "no WCS": lambda: write("none"),
    "cut short": lambda: cut_last_block(write(make(with_inverse()), all_array_storage="internal")),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_completely_is_left_to_the_library(kind):
    with pytest.raises(Unknown):
        read_chain(UNKNOWN[kind]())


def test_inverse_of_the_inverse():
    wcs = make(m.AffineTransformation2D([[0.9, 0.1], [-0.2, 1.1]], [0.5, -1.5]), m.Shift(1) & m.Scale(3))
    for operation in read_chain(write(wcs)).forward:
        twice = invert(invert(operation))
        v = np.array([0.5, 1.5]), np.array([2.0, 3.0])
        np.testing.assert_allclose(evaluate((twice,), *v), evaluate((operation,), *v), atol=1e-12)


def test_blocks_are_counted_from_the_tree_on():
    arrays = [np.arange(5.0), np.arange(7.0) * 3]
    content = io.BytesIO()
    asdf.AsdfFile({"a": arrays[0], "b": arrays[1]}).write_to(content, pad_blocks=True)
    rest = content.getvalue().split(b"\n...\n", 1)[1]
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(np.frombuffer(read_block(rest, number), "<f8"), array)
    with pytest.raises(Unknown):
        read_block(rest, 2)


@pytest.mark.slow
def test_a_file_with_another_transform_is_read_by_the_library(tmp_path):
    from badpix.simulation.image import simulate
    from badpix.simulation.image_setup import Setup

    table = simulate(tmp_path, Setup(seed=3, groups=1, shape=(64, 72), stars=10.0))
    cal = io_cal.read_layout(next(table.parent.glob("*_cal.fits")))
    known = image_wcs.read_geometry(cal)
    assert isinstance(known.sky, image_wcs.ChainSky)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_wcs, "read_chain", lambda content: read_chain(content.replace(b"/scale-", b"/other-")))
        library = image_wcs.read_geometry(cal)
    assert isinstance(library.sky, image_wcs.GwcsSky)
    assert known.bounds == library.bounds
    x, y = np.array([0.0, 30.0, 71.0]), np.array([0.0, 20.0, 63.0])
    np.testing.assert_allclose(known.sky(x, y), library.sky(x, y), rtol=0, atol=1e-11)
    np.testing.assert_allclose(known.invert(53.16, -27.79), library.invert(53.16, -27.79), atol=1e-6)
