"""Renderings: light from above, turned heads, normals in the camera's frame."""

import numpy as np
import pytest
from support import ellipsoid

from hyperdiffusion.rendering.render import Camera, normal_maps, render


def drawn(image: np.ndarray) -> np.ndarray:
    """Return which pixels (size, size) are not white."""
    return image.astype(int).sum(2) < 3 * 255


def test_a_sphere_is_round_and_lit_from_above():
    image = render(ellipsoid((100,) * 3, 4), Camera(size=65, height_mm=250.0))
    assert drawn(image).mean() == pytest.approx(np.pi * 100**2 / 250**2, abs=0.015)
    assert not drawn(image)[0, 0] and drawn(image)[32, 32]
    brightness = image.astype(int).sum(2)
    assert brightness[14, 32] > brightness[50, 32] + 100


def test_the_camera_turns_the_head_about_its_vertical_axis():
    nose = ellipsoid((10, 10, 100))
    assert np.ptp(np.nonzero(drawn(render(nose, Camera(size=64, height_mm=250.0))))[1]) < 10
    centre = (0.0, 0.0, 100.0)
    left, right = (
        np.nonzero(drawn(render(nose, Camera(size=64, yaw=yaw, height_mm=250.0, centre=centre))))[1]
        for yaw in (-90, 90)
    )
    # What is behind the view's centre moves to the right if the face turns left, and the other way round.
    assert left.min() > 30 and right.max() < 34


def test_the_default_view_fits_the_mesh():
    mesh = ellipsoid((30, 60, 20)).apply_translation((500, 0, 0))
    rows, columns = np.nonzero(drawn(render(mesh)))
    assert Camera.around([mesh]).size == 256
    assert 0 < rows.min() < 10 and 245 < rows.max() < 255
    assert columns.mean() == pytest.approx(127.5, abs=1)


def test_a_normal_map_shows_the_normals_of_a_sphere():
    camera = Camera(size=50, height_mm=250.0)
    [image] = normal_maps(ellipsoid((100,) * 3, 5), [camera])
    axis = ((np.arange(50) + 0.5) / 50 - 0.5) * 250 / 100
    x, y = np.meshgrid(axis, -axis)
    inside = x**2 + y**2 < 0.9
    expected = np.stack([x, y, np.sqrt(1 - (x**2 + y**2).clip(max=1))], axis=2)
    np.testing.assert_allclose(image[inside], expected[inside], atol=0.02)
    assert not image[x**2 + y**2 > 1.02].any()
