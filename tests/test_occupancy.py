"""Labels on spheres, whose signed distance is known: closed, open, flipped, in pieces, and as a soup."""

import dataclasses

import numpy as np
import pytest
import trimesh
from conftest import ellipsoid

from overfit import BadInput, Cube, Sampling
from overfit.occupancy import bend, gaps, label, surface_samples, winding_distance

RADIUS = 100.0
CUBE = Cube((0.0, 0.0, 0.0), 150.0)
FEW = Sampling(near=4000, wide=1000, uniform=1000)


def sphere() -> trimesh.Trimesh:
    return ellipsoid((RADIUS,) * 3, subdivisions=4)


def true_distance(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=1) - RADIUS


def some_points(count: int = 3000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-150, 150, (count, 3))


def test_distance_of_a_closed_sphere():
    points = some_points()
    np.testing.assert_allclose(winding_distance(sphere(), points), true_distance(points), atol=0.4)


def test_a_sphere_inside_out_and_one_with_flipped_triangles_count_as_meant():
    points = some_points()
    inverted, mixed = sphere(), sphere()
    inverted.invert()
    flipped = np.random.default_rng(1).random(len(mixed.faces)) < 0.3
    mixed = trimesh.Trimesh(mixed.vertices, np.where(flipped[:, None], mixed.faces[:, ::-1], mixed.faces),
                            process=False)
    for mesh in (inverted, mixed):
        np.testing.assert_allclose(winding_distance(mesh, points), true_distance(points), atol=0.4)


def test_an_open_sphere_is_closed_by_its_winding_number():
    mesh = sphere()
    mesh.update_faces(mesh.triangles_center[:, 1] > -0.8 * RADIUS)
    points = some_points()
    points = points[points[:, 1] > -0.6 * RADIUS]
    clear = np.abs(true_distance(points)) > 1
    inside = winding_distance(mesh, points) < 0
    assert np.array_equal(inside[clear], (true_distance(points) < 0)[clear])


def test_overlapping_pieces_are_one_body():
    left, right = sphere(), sphere()
    left.apply_translation([-30, 0, 0])
    right.apply_translation([30, 0, 0])
    points = some_points()
    inside = winding_distance(left + right, points) < 0
    true = np.minimum(np.linalg.norm(points - [30, 0, 0], axis=1), np.linalg.norm(points + [30, 0, 0], axis=1)) - RADIUS
    clear = np.abs(true) > 0.5
    assert np.array_equal(inside[clear], (true < 0)[clear])


def test_a_closed_mesh_that_cuts_itself_is_solid_at_any_depth():
    """A dent pulled through itself: pseudonormals are wrong deep below it."""
    mesh = ellipsoid((RADIUS,) * 3, 5)
    vertices = mesh.vertices.copy()
    dent = vertices[:, 2] > 0.97 * RADIUS
    vertices[dent] = vertices[dent] * [-1.5, -1.5, 1] + [0, 0, 8]
    mesh = trimesh.Trimesh(vertices, mesh.faces, process=False)
    assert mesh.is_watertight
    points = np.random.default_rng(0).uniform(-RADIUS, RADIUS, (20_000, 3))
    deep = points[np.linalg.norm(points, axis=1) < 0.9 * RADIUS]
    assert (winding_distance(mesh, deep) < 0).all()


def test_labels_lie_in_the_cube_where_they_are_asked_for():
    labels = label(sphere(), CUBE, FEW, np.random.default_rng(0))
    assert labels.points.shape == (6000, 3) and labels.points.dtype == np.float32
    close = np.abs(labels.distance[:FEW.near])
    # The distance of normally distributed offsets from a plane has the mean sigma sqrt(2 / pi).
    assert close.mean() == pytest.approx(FEW.near_mm * np.sqrt(2 / np.pi), rel=0.1)
    assert np.abs(labels.points[-FEW.uniform:]).max() <= 1
    np.testing.assert_allclose(labels.distance, true_distance(CUBE.to_millimetres(labels.points)), atol=0.4)


def test_labels_depend_on_the_generator_alone():
    first, again, other = (label(sphere(), CUBE, FEW, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first.points, again.points) and not np.array_equal(first.points, other.points)


def test_a_share_of_the_points_lies_on_the_front_of_the_face():
    def share(face: float) -> float:
        points = surface_samples(sphere(), 20_000, np.random.default_rng(0), face)[0]
        return ((points[:, 2] > 0.32 * RADIUS) & (points[:, 1] > -0.5 * RADIUS)).mean()

    # 0.34 of a sphere lies above a third of its height; three quarters of its width leave most of that.
    assert share(0.5) == pytest.approx(0.5 + 0.5 * share(0.0), abs=0.02)


def test_a_share_of_the_points_lies_where_the_surface_bends():
    big, small = ellipsoid((100.0,) * 3, 5), ellipsoid((10.0,) * 3, 4)
    small.apply_translation([150, 0, 0])
    radius = 1 / bend(trimesh.util.concatenate([big, small]))
    assert np.median(radius[:len(big.faces)]) == pytest.approx(100, rel=0.05)
    assert np.median(radius[len(big.faces):]) == pytest.approx(10, rel=0.05)

    def share(detail: float) -> float:
        points = surface_samples(big + small, 20_000, np.random.default_rng(0), detail=detail)[0]
        return (points[:, 0] > 125).mean()

    # Ten times the bend on a hundredth of the area.
    assert share(0.0) == pytest.approx(1 / 101, abs=0.003)
    assert share(0.5) == pytest.approx((1 / 101 + 1 / 11) / 2, abs=0.01)


def test_a_flat_box_has_no_detail_and_is_sampled_by_area():
    box = trimesh.creation.box((100, 100, 100))
    box = trimesh.Trimesh(box.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    assert not bend(box).any()
    assert len(surface_samples(box, 100, np.random.default_rng(0), detail=1.0)[0]) == 100


def test_shares_of_more_than_all_points_are_refused():
    with pytest.raises(BadInput, match="--face 0.9 --detail 0.2"):
        Sampling(face=0.9, detail=0.2)


def test_a_narrow_gap_counts_as_inside_and_a_wide_one_does_not():
    def halves(gap: float) -> trimesh.Trimesh:
        lower, upper = (trimesh.creation.box((100, 100, 50)) for _ in range(2))
        lower.apply_translation([0, 0, -25 - gap / 2])
        upper.apply_translation([0, 0, 25 + gap / 2])
        return lower + upper

    between = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * [45, 45, 0.1]
    beside = between + [0, 0, 51]
    for gap, closed in ((0.5, 1.0), (1.5, 0.0)):
        points = np.concatenate([between, beside])
        found = gaps(halves(gap), points, winding_distance(halves(gap), points), width=0.8)
        assert found[:500].mean() == closed and not found[500:].any()


def test_a_surface_that_encloses_nothing_is_told():
    plane = trimesh.Trimesh([[-100, -100, 0], [100, -100, 0], [0, 100, 0]], [[0, 1, 2]], process=False)
    with pytest.raises(BadInput, match="encloses no volume"):
        label(plane.subdivide_loop(4), CUBE, FEW, np.random.default_rng(0))


def test_mesh_to_sdf_sees_the_outer_surface_of_a_soup_alone():
    inner, outer = ellipsoid((50.0,) * 3), sphere()
    inner.invert()
    soup = trimesh.util.concatenate([outer, inner])
    soup = trimesh.Trimesh(soup.triangles.reshape(-1, 3), np.arange(3 * len(soup.faces)).reshape(-1, 3), process=False)
    points = some_points(500)
    try:
        labels = label(soup, CUBE, dataclasses.replace(FEW, labels="mesh-to-sdf"), np.random.default_rng(0))
    except BadInput as error:
        assert "apt-get install" in str(error)
        pytest.skip(f"no OpenGL here: {error}")
    true = true_distance(CUBE.to_millimetres(labels.points))
    clear = np.abs(true) > 2
    assert ((labels.distance < 0) == (true < 0))[clear].mean() > 0.999
    assert len(points)
