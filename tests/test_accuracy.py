"""Surface error on shapes whose distance is known."""

import numpy as np
import pytest
import torch
from conftest import ellipsoid

from overfit.accuracy import iou, surface_error


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_spheres_in_one_another_are_as_far_apart_as_their_radii():
    inner, outer = ellipsoid((100,) * 3, 5), ellipsoid((102,) * 3, 5)
    error = surface_error(inner, outer, rng())
    assert error.mean_mm == pytest.approx(2, abs=0.05)
    assert error.p95_mm == pytest.approx(2, abs=0.1)
    assert error.f1mm == 0
    assert error.normals > 0.999


def test_a_mesh_has_no_error_against_itself():
    mesh = ellipsoid((80, 110, 95), 4)
    error = surface_error(mesh, mesh, rng())
    assert error.mean_mm < 1e-6 and error.f1mm == 1 and error.normals > 0.999


def test_what_is_missing_and_what_is_too_much_both_count():
    whole, half = ellipsoid((100,) * 3, 4), ellipsoid((100,) * 3, 4)
    half.update_faces(half.triangles_center[:, 1] > 0)
    missing, surplus = surface_error(half, whole, rng()), surface_error(whole, half, rng())
    assert missing.mean_mm == pytest.approx(surplus.mean_mm, rel=0.1) and missing.mean_mm > 5
    assert 0.6 < missing.f1mm < 0.75  # all of the half is right, half of the whole is there


def test_iou_of_a_field_that_is_off_by_a_shell():
    points = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    distance = points.norm(dim=1) - 0.5

    def smaller(weights, points):
        return 0.4 - points.norm(dim=-1)

    assert iou(smaller, torch.zeros(0), points, distance) == pytest.approx((0.4 / 0.5) ** 3, abs=0.02)
