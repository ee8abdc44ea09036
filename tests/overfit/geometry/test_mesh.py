"""Components, points, curvature and the front of the face, on shapes with known answers."""

import numpy as np
import pytest
import torch
import trimesh
from support import ellipsoid

from overfit.decoder import DecodeConfig, decode
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import (
    LABEL_FACE,
    REGISTRATION_FACE,
    FaceRegion,
    connected_components,
    curvature,
    largest_component,
    on_face_front,
    sample_points,
    sample_surface,
    sample_triangles,
)
from overfit.neural_head import NeuralHead

RADIUS = 100.0


def sphere() -> trimesh.Trimesh:
    return ellipsoid((RADIUS,) * 3, subdivisions=4)


@pytest.mark.parametrize("seed", range(2))
def test_components_are_those_that_shared_edges_give(seed):
    field = Field(octaves=6, hidden=(32, 32))
    head = NeuralHead(field, Cube((0.0, 0.0, 0.0), 100.0), field.initial(torch.Generator().manual_seed(seed)))
    mesh = decode(head, DecodeConfig(resolution=40, keep_all_components=True))
    ours, theirs = (
        sorted((len(part.faces), len(part.vertices), round(float(part.area), 3)) for part in parts)
        for parts in (connected_components(mesh), mesh.split(only_watertight=False))
    )
    assert len(ours) > 20 and ours == theirs


def test_the_largest_component_has_the_most_triangles():
    small, large = trimesh.creation.icosphere(1), trimesh.creation.icosphere(3)
    assert len(largest_component(small + large).faces) == len(large.faces)


def test_vertices_without_triangles_are_no_component():
    ball = trimesh.creation.icosphere(1)
    mesh = trimesh.Trimesh(np.concatenate([[[9.0, 9, 9]], ball.vertices]), ball.faces + 1, process=False)
    (component,) = connected_components(mesh)
    assert len(component.vertices) == len(ball.vertices)


def test_points_on_triangles_are_uniform():
    corners = np.broadcast_to([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]], (20_000, 3, 3))
    points = sample_triangles(corners, np.random.default_rng(0))
    assert (points >= 0).all() and (points.sum(1) <= 1).all()
    np.testing.assert_allclose(points.mean(0), [1 / 3, 1 / 3, 0], atol=0.01)
    # A quarter of the area is the triangle of half the side at the origin.
    assert (points.sum(1) < 0.5).mean() == pytest.approx(0.25, abs=0.015)


def test_points_on_a_mesh_are_uniform_by_area():
    box = trimesh.creation.box((100, 20, 20))
    points = sample_points(box, 20_000, rng=np.random.default_rng(0))
    on_ends = np.abs(np.abs(points[:, 0]) - 50) < 1e-9
    assert on_ends.mean() == pytest.approx(800 / 8800, abs=0.01)


def test_normals_are_those_of_the_triangles():
    points, normals = sample_surface(sphere(), 1000, rng=np.random.default_rng(0))
    assert ((points * normals).sum(1) / RADIUS).min() > 0.99


def test_a_share_of_the_points_lies_on_the_front_of_the_face():
    def share(face_share: float) -> float:
        points = sample_surface(sphere(), 20_000, rng=np.random.default_rng(0), face_share=face_share)[0]
        return ((points[:, 2] > 0.32 * RADIUS) & (points[:, 1] > -0.5 * RADIUS)).mean()

    # 0.34 of a sphere lies above a third of its height; three quarters of its width leave most of that.
    assert share(0.5) == pytest.approx(0.5 + 0.5 * share(0.0), abs=0.02)


def test_a_share_of_the_points_lies_where_the_surface_bends():
    big, small = ellipsoid((100.0,) * 3, 5), ellipsoid((10.0,) * 3, 4)
    small.apply_translation([150, 0, 0])
    radius = 1 / curvature(trimesh.util.concatenate([big, small]))
    assert np.median(radius[: len(big.faces)]) == pytest.approx(100, rel=0.05)
    assert np.median(radius[len(big.faces) :]) == pytest.approx(10, rel=0.05)

    def share(detail_share: float) -> float:
        points = sample_surface(big + small, 20_000, rng=np.random.default_rng(0), detail_share=detail_share)[0]
        return (points[:, 0] > 125).mean()

    # Ten times the curvature on a hundredth of the area.
    assert share(0.0) == pytest.approx(1 / 101, abs=0.003)
    assert share(0.5) == pytest.approx((1 / 101 + 1 / 11) / 2, abs=0.01)


def test_a_flat_box_has_no_detail_and_is_sampled_by_area():
    box = trimesh.creation.box((100, 100, 100))
    box = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    assert not curvature(box).any()
    assert len(sample_surface(box, 100, rng=np.random.default_rng(0), detail_share=1.0)[0]) == 100


def test_the_front_of_the_face_looks_forward_and_lies_in_its_region():
    mesh = sphere()
    front = on_face_front(mesh, FaceRegion(back=0.75, bottom=0.5))
    centre = mesh.triangles_center
    # Thresholds are shares of the box: half a radius forward, and the middle of the height.
    clear = (np.abs(centre[:, 2] - 0.5 * RADIUS) > 1) & (np.abs(centre[:, 1]) > 1)
    expected = (centre[:, 2] > 0.5 * RADIUS) & (centre[:, 1] > 0)
    assert np.array_equal(front[clear], expected[clear])


def test_what_looks_backward_is_not_on_the_face():
    points = np.array([[0.0, 0.5, 0.9]] * 2)
    normals = np.array([[0.0, 0, 1], [0, 0, -1]])
    found = LABEL_FACE.contains(points, normals, bounds=np.array([[0.0, 0, 0], [1, 1, 1]]))
    assert found.tolist() == [True, False]


def test_registration_compares_the_face_without_its_forehead():
    points = np.array([[0.0, 0.5, 0.9], [0, 0.8, 0.9]])
    normals = np.array([[0.0, 0, 1]] * 2)
    bounds = np.array([[0.0, 0, 0], [1, 1, 1]])
    assert LABEL_FACE.contains(points, normals, bounds=bounds).tolist() == [True, True]
    assert REGISTRATION_FACE.contains(points, normals, bounds=bounds).tolist() == [True, False]
