"""Surface error on shapes whose distance is known."""

import numpy as np
import pytest
import torch
import trimesh
from support import ellipsoid

from overfit import Cube, Field, NeuralHead, face_normal_error, surface_error
from overfit.fit_metrics import iou
from overfit.geometry.mesh import SEEN, seen_share


class Ball(Field):
    """A field whose surface is a sphere with a radius of 0.4."""

    def __call__(self, weights, points):
        return 0.4 - points.norm(dim=-1)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_nested_spheres_are_as_far_apart_as_their_radii():
    inner, outer = ellipsoid((100,) * 3, 5), ellipsoid((102,) * 3, 5)
    error = surface_error(inner, outer, rng=rng())
    assert error.mean_mm == pytest.approx(2, abs=0.05)
    assert error.p95_mm == pytest.approx(2, abs=0.1)
    assert error.f1mm == 0
    assert error.normals > 0.999


def test_a_mesh_has_no_error_against_itself():
    mesh = ellipsoid((80, 110, 95), 4)
    error = surface_error(mesh, mesh, rng=rng())
    assert error.mean_mm < 1e-6 and error.f1mm == 1 and error.normals > 0.999
    assert face_normal_error(mesh, mesh) < 0.01


def test_missing_and_surplus_surface_both_count():
    full, half = ellipsoid((100,) * 3, 4), ellipsoid((100,) * 3, 4)
    half.update_faces(half.triangles_center[:, 1] > 0)
    missing, surplus = surface_error(half, full, rng=rng()), surface_error(full, half, rng=rng())
    assert missing.mean_mm == pytest.approx(surplus.mean_mm, rel=0.1) and missing.mean_mm > 5
    assert 0.6 < missing.f1mm < 0.75  # All of the half is right, half of the full one is there.


def test_the_normal_error_is_the_angle_between_normals_and_sees_only_the_face():
    truth, flat = ellipsoid((90, 120, 100), 4), ellipsoid((90, 120, 50), 4)
    assert face_normal_error(flat, truth) > 5
    # The back of the head does not count.
    front = flat.vertices.copy()
    front[truth.vertices[:, 2] > 0] = truth.vertices[truth.vertices[:, 2] > 0]
    assert face_normal_error(trimesh.Trimesh(front, flat.faces, process=False), truth) < 0.1


def test_iou_of_a_ball_inside_a_larger_one():
    points = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    head = NeuralHead(Ball(), Cube((0.0, 0.0, 0.0), 100.0), torch.zeros(0))
    assert iou(head, points, points.norm(dim=1) - 0.5) == pytest.approx((0.4 / 0.5) ** 3, abs=0.02)


def test_what_is_invented_does_not_count():
    truth = ellipsoid((80, 100, 90), 4)
    wrong = trimesh.Trimesh(truth.vertices * np.where(truth.vertices[:, 2:] < 0, 1.3, 1.0), truth.faces, process=False)
    truth.vertex_attributes[SEEN] = truth.vertices[:, 2] > 0
    assert seen_share(truth) == pytest.approx(0.5, abs=0.05)
    error = surface_error(wrong, truth, rng=rng())
    assert error.mean_mm < 0.5 and error.p95_mm < 3
    del truth.vertex_attributes[SEEN]
    assert surface_error(wrong, truth, rng=rng()).mean_mm > 5 and seen_share(truth) == 1
