"""Cleaned scans have each triangle once and all normals outwards, whatever was wrong with them."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid

from overfit.geometry.point_cloud import PointCloud
from overfit.scans import clean as clean_module
from overfit.scans.clean import clean

MESH = ellipsoid((75.0, 115.0, 95.0))


def front_half() -> trimesh.Trimesh:
    half = MESH.copy()
    half.update_faces(half.triangles_center[:, 2] > 0)
    half.remove_unreferenced_vertices()
    return half


def broken(kind: str) -> trimesh.Trimesh:
    rng = np.random.default_rng(0)
    faces = np.array(MESH.faces)
    if kind == "inside out":
        faces = faces[:, ::-1]
    elif kind == "some flipped":
        faces = np.where(rng.random((len(faces), 1)) < 0.4, faces[:, ::-1], faces)
    elif kind == "double-sided":
        faces = rng.permutation(np.concatenate([faces, faces[:, ::-1]]))
    elif kind == "each twice":
        faces = np.concatenate([faces, faces])
    if kind == "soup":
        corners = MESH.triangles + rng.uniform(-0.01, 0.01, (*faces.shape, 3))
        flipped = rng.random(len(faces)) < 0.1
        corners[flipped] = corners[flipped, ::-1]
        return trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3), process=False)
    return trimesh.Trimesh(MESH.vertices, faces, process=False)


@pytest.mark.parametrize("kind", ["sound", "inside out", "some flipped", "double-sided", "each twice", "soup"])
def test_a_closed_surface_comes_out_closed_and_outwards(kind):
    cleaned = clean(broken(kind))
    assert cleaned.surface.is_watertight
    assert cleaned.surface.volume == pytest.approx(MESH.volume, rel=1e-3)
    assert len(cleaned.surface.faces) == len(MESH.faces)
    assert cleaned.statistics.components == 1 and cleaned.statistics.holes == 0
    remarked = {"double-sided": "1,280 double triangles dropped", "each twice": "1,280 double triangles dropped"}
    assert remarked.get(kind, "welded" if kind == "soup" else "") in "; ".join(cleaned.statistics.remarks)


def test_an_open_component_is_turned_by_what_it_sees():
    # A bowl far off, whose back, which faces the rest, sees the sky and whose hollow sees itself.
    bowl = front_half()
    bowl.apply_transform(trimesh.transformations.rotation_matrix(np.pi, [0, 1, 0]))
    bowl.apply_translation([0, 0, -2000])
    bowl.invert()
    cleaned = clean(trimesh.util.concatenate([MESH, bowl])).surface
    parts = sorted(cleaned.split(only_watertight=False), key=lambda part: part.centroid[2])
    away = (parts[0].triangles_center - [0, 0, -2000]) * parts[0].face_normals
    assert (away.sum(1) > 0).all()


def test_the_inner_wall_of_a_shell_is_left_out():
    outer = front_half()
    inner = outer.copy()
    inner.apply_scale(0.97)
    inner.invert()
    cleaned = clean(trimesh.util.concatenate([outer, inner]))
    assert "the inner wall of a shell left out" in cleaned.statistics.remarks
    assert cleaned.surface.area == pytest.approx(outer.area, rel=0.02)
    assert np.abs(cleaned.surface.bounds - outer.bounds).max() < 0.5


def test_a_large_cloud_is_thinned_before_anything_else(monkeypatch):
    monkeypatch.setattr(clean_module, "MAX_CLOUD_POINTS", 4000)
    points, triangles = trimesh.sample.sample_surface(MESH, 30_000, seed=0)
    # Sorted by height, as scanners write them: the top must not be lost.
    order = np.argsort(points[:, 1])
    cleaned = clean(PointCloud(points[order], MESH.face_normals[triangles][order]))
    assert 1500 < len(cleaned.surface.points) <= 4000
    assert np.abs(cleaned.surface.points.max(0) - [75, 115, 95]).max() < 3
    assert cleaned.statistics.remarks == (f"thinned from 30,000 to {len(cleaned.surface.points):,} points",)


def test_a_large_mesh_is_thinned_before_anything_else(monkeypatch):
    monkeypatch.setattr(clean_module, "MAX_TRIANGLES", 3000)
    fine = ellipsoid((75.0, 115.0, 95.0), 5)
    cleaned = clean(fine)
    assert len(cleaned.surface.faces) < 1.3 * 3000 < len(fine.faces)
    assert cleaned.surface.volume == pytest.approx(fine.volume, rel=0.02)
    assert cleaned.statistics.remarks[0] == f"thinned from {len(fine.faces):,} triangles"
    # Corners stay where they were measured.
    kept = {tuple(row) for row in np.round(fine.vertices, 6)}
    assert all(tuple(row) in kept for row in np.round(cleaned.surface.vertices, 6))
