"""Signed distances of spheres, which are known: closed, open, flipped, self-intersecting, and as a triangle soup."""

import functools

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.geometry.mesh_to_sdf import _import_mesh_to_sdf
from overfit.geometry.signed_distance import (
    depth_scan_distance,
    distance_to_wall,
    hidden_faces,
    in_narrow_gap,
    winding_number_distance,
)
from overfit.runtime.errors import BadInput

RADIUS = 100.0


def sphere() -> trimesh.Trimesh:
    return ellipsoid((RADIUS,) * 3, subdivisions=4)


def true_distance(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=1) - RADIUS


def some_points(count: int = 3000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-150, 150, (count, 3))


def test_distance_of_a_closed_sphere():
    points = some_points()
    np.testing.assert_allclose(winding_number_distance(sphere(), points), true_distance(points), atol=0.4)


def test_a_sphere_inside_out_and_one_with_flipped_triangles_have_the_same_inside():
    points = some_points()
    inverted, mixed = sphere(), sphere()
    inverted.invert()
    flipped = np.random.default_rng(1).random(len(mixed.faces)) < 0.3
    faces = np.where(flipped[:, None], mixed.faces[:, ::-1], mixed.faces)
    mixed = trimesh.Trimesh(mixed.vertices, faces, process=False)
    for mesh in (inverted, mixed):
        np.testing.assert_allclose(winding_number_distance(mesh, points), true_distance(points), atol=0.4)


def test_an_open_sphere_is_closed_by_its_winding_number():
    mesh = sphere()
    mesh.update_faces(mesh.triangles_center[:, 1] > -0.8 * RADIUS)
    points = some_points()
    points = points[points[:, 1] > -0.6 * RADIUS]
    clear = np.abs(true_distance(points)) > 1
    inside = winding_number_distance(mesh, points) < 0
    assert np.array_equal(inside[clear], (true_distance(points) < 0)[clear])


def test_overlapping_spheres_have_one_inside():
    left, right = sphere(), sphere()
    left.apply_translation([-30, 0, 0])
    right.apply_translation([30, 0, 0])
    points = some_points()
    inside = winding_number_distance(left + right, points) < 0
    to_right, to_left = (np.linalg.norm(points - [x, 0, 0], axis=1) for x in (30, -30))
    true = np.minimum(to_right, to_left) - RADIUS
    clear = np.abs(true) > 0.5
    assert np.array_equal(inside[clear], (true < 0)[clear])


def test_a_closed_mesh_that_intersects_itself_is_solid_at_any_depth():
    """A dent pulled through itself: pseudonormals are wrong deep below it."""
    mesh = ellipsoid((RADIUS,) * 3, 5)
    vertices = mesh.vertices.copy()
    dent = vertices[:, 2] > 0.97 * RADIUS
    vertices[dent] = vertices[dent] * [-1.5, -1.5, 1] + [0, 0, 8]
    mesh = trimesh.Trimesh(vertices, mesh.faces, process=False)
    assert mesh.is_watertight
    points = np.random.default_rng(0).uniform(-RADIUS, RADIUS, (20_000, 3))
    deep = points[np.linalg.norm(points, axis=1) < 0.9 * RADIUS]
    assert (winding_number_distance(mesh, deep) < 0).all()


def test_points_in_a_narrow_gap_are_found_and_those_in_a_wide_one_are_not():
    def halves(gap: float) -> trimesh.Trimesh:
        lower, upper = (trimesh.creation.box((100, 100, 50)) for _ in range(2))
        lower.apply_translation([0, 0, -25 - gap / 2])
        upper.apply_translation([0, 0, 25 + gap / 2])
        return lower + upper

    between = np.random.default_rng(0).uniform(-1, 1, (500, 3)) * [45, 45, 0.1]
    beside = between + [0, 0, 51]
    points = np.concatenate([between, beside])
    for gap, found_share in ((0.5, 1.0), (1.5, 0.0)):
        mesh = halves(gap)
        found = in_narrow_gap(mesh, points, distance=winding_number_distance(mesh, points), width=0.8)
        assert found[:500].mean() == found_share and not found[500:].any()


def bowl(opening: float) -> trimesh.Trimesh:
    """A ball with a cavity of half its radius and a way out of it with this radius, from the cavity to the top."""
    ball, cavity = trimesh.creation.icosphere(4, RADIUS), trimesh.creation.icosphere(4, RADIUS / 2)
    way = trimesh.creation.cylinder(opening, segment=[[0, 0, 0], [0, 0, 2 * RADIUS]])
    return ball.difference(cavity).difference(way)


def test_a_cavity_with_a_narrow_opening_is_found_and_one_with_a_wide_one_is_not():
    for opening, found in ((1.0, True), (40.0, False)):
        mesh = bowl(opening)
        from_centre = np.linalg.norm(mesh.triangles_center, axis=1)
        hidden = hidden_faces(mesh)
        assert (hidden[from_centre < 0.51 * RADIUS] == found).all()
        assert not hidden[from_centre > 0.99 * RADIUS].any()


def test_what_is_behind_a_slit_is_in_a_cavity_though_it_sees_out():
    """As behind lips that are not quite closed."""
    ball, cavity = trimesh.creation.icosphere(4, RADIUS), trimesh.creation.icosphere(4, 0.9 * RADIUS)
    # Two millimetres high in the middle, and pointed at both ends.
    slit = trimesh.convex.convex_hull([[x, y, z] for x, y in ((-40, 0), (40, 0), (0, -1), (0, 1)) for z in (0, 150)])
    mesh = ball.difference(cavity).difference(slit)
    from_centre = np.linalg.norm(mesh.triangles_center, axis=1)
    hidden = hidden_faces(mesh)
    assert hidden[from_centre < 0.91 * RADIUS].all()
    assert not hidden[from_centre > 0.99 * RADIUS].any()


def test_a_deep_hole_is_no_cavity_though_its_end_sees_out_in_few_directions():
    """As a nostril, whose wall is one with the skin."""
    hole = trimesh.creation.cylinder(5.0, segment=[[0, 0, 0], [0, 0, 2 * RADIUS]])
    mesh = trimesh.creation.icosphere(4, RADIUS).difference(hole.subdivide().subdivide())
    assert not hidden_faces(mesh).any()


def test_the_outside_of_a_thin_part_is_no_wall_of_a_cavity_if_its_triangles_are_turned_inwards():
    """As the ears of a scan that is inside out: they are thinner than the openings of cavities."""
    mesh = sphere() + trimesh.creation.box((30, 2, 30), trimesh.transformations.translation_matrix([0, RADIUS + 9, 0]))
    mesh.invert()
    assert not hidden_faces(mesh).any()


def test_the_distance_to_a_wall_is_infinite_without_one():
    points = np.array([[0.0, 0, 200], [0, 0, 200]])
    directions = np.array([[0.0, 0, -1], [0, 0, 1]])
    distance = distance_to_wall(sphere(), points, directions=directions)
    assert distance[0] == pytest.approx(100, abs=0.5) and distance[1] == np.inf


def test_mesh_to_sdf_sees_only_the_outer_surface_of_a_soup(monkeypatch):
    try:
        library = _import_mesh_to_sdf()
    except BadInput as error:
        assert "apt-get install" in str(error)
        pytest.skip(f"no OpenGL here: {error}")
    # Fewer and smaller pictures than its own 100 of 400 pixels, which take half a minute without a GPU.
    fewer = functools.partial(library.mesh_to_sdf, scan_count=20, scan_resolution=150)
    monkeypatch.setattr(library, "mesh_to_sdf", fewer)
    inner, outer = ellipsoid((50.0,) * 3), sphere()
    inner.invert()
    soup = trimesh.util.concatenate([outer, inner])
    soup = trimesh.Trimesh(soup.triangles.reshape(-1, 3), np.arange(3 * len(soup.faces)).reshape(-1, 3), process=False)
    points = some_points(2000)
    distance = depth_scan_distance(soup, points)
    true = true_distance(points)
    clear = np.abs(true) > 2
    assert ((distance < 0) == (true < 0))[clear].mean() > 0.999
