"""Open spheres, spheres with flipped triangles and clouds of spheres become closed spheres."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.geometry.mesh import largest_component, sample_surface
from overfit.geometry.point_cloud import PointCloud
from overfit.runtime.errors import BadInput
from overfit.scans.surface_reconstruction import reconstruct_surface

RADIUS = 60.0
BOX = np.full(3, -75.0), np.full(3, 75.0)


def sphere() -> trimesh.Trimesh:
    return ellipsoid((RADIUS,) * 3, 5)


def distance_to_sphere(mesh: trimesh.Trimesh) -> np.ndarray:
    return np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS)


def test_a_closed_mesh_stays_where_it_is():
    mesh = reconstruct_surface(sphere(), BOX)
    assert mesh.is_watertight and mesh.body_count == 1 and mesh.volume > 0
    assert distance_to_sphere(mesh).max() < 0.1


def test_holes_close_smoothly_and_flipped_triangles_do_not_matter():
    mesh, random = sphere(), np.random.default_rng(0)
    kept = np.linalg.norm(mesh.triangles_center - [0, 0, RADIUS], axis=1) > 15
    faces = mesh.faces[kept]
    flipped = random.random(len(faces)) < 0.05
    faces = np.where(flipped[:, None], faces[:, ::-1], faces)
    mesh = largest_component(reconstruct_surface(trimesh.Trimesh(mesh.vertices, faces, process=False), BOX))
    assert mesh.is_watertight
    assert distance_to_sphere(mesh).max() < 3 and np.median(distance_to_sphere(mesh)) < 0.05


def test_a_box_cuts_flat():
    low = np.array([-75.0, -30.0, -75.0])
    mesh = reconstruct_surface(sphere(), (low, BOX[1]))
    assert mesh.is_watertight and mesh.bounds[0, 1] == pytest.approx(-30)
    height = RADIUS - 30
    volume = 4 / 3 * np.pi * RADIUS**3 - np.pi * height**2 * (RADIUS - height / 3)
    assert mesh.volume == pytest.approx(volume, rel=0.01)


def test_a_cloud_becomes_the_surface_under_it():
    points, normals = sample_surface(sphere(), 12_000, rng=np.random.default_rng(0))
    points = points + np.random.default_rng(1).normal(scale=0.3, size=points.shape)
    mesh = largest_component(reconstruct_surface(PointCloud(points, normals), BOX))
    assert mesh.is_watertight and mesh.volume > 0
    distance = distance_to_sphere(mesh)
    assert np.median(distance) < 0.3 and np.percentile(distance, 99) < 1.5


def test_a_plane_encloses_nothing():
    plane = trimesh.creation.box((50, 50, 1)).subdivide().subdivide()
    plane.update_faces(plane.triangles_center[:, 2] > 0.4)
    with pytest.raises(BadInput, match="encloses no volume"):
        reconstruct_surface(plane, BOX)
