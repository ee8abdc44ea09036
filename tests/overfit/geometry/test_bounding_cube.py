"""The similarity between millimetres and the field's cube."""

import numpy as np
import pytest

from overfit import Cube

BOXES = np.array([[[-80.0, -120, -90], [80, 100, 110]], [[-90, -100, -90], [70, 140, 100]]])


def test_it_holds_all_boxes_with_the_margin_asked_for():
    cube = Cube.around(BOXES, 0.1)
    assert cube.half == pytest.approx(130 * 1.1)
    assert all(cube.contains(box) for box in BOXES)
    assert not cube.contains(BOXES[0] * 2)


def test_there_and_back_and_one_scale_for_all_axes():
    cube = Cube.around(BOXES, 0.05)
    points = np.random.default_rng(0).uniform(-100, 100, (50, 3))
    inside = cube.to_field(points)
    np.testing.assert_allclose(cube.to_millimetres(inside), points)
    np.testing.assert_allclose(
        np.linalg.norm(inside[1:] - inside[:-1], axis=1) * cube.half, np.linalg.norm(points[1:] - points[:-1], axis=1)
    )
