"""Clouds of spheres: noise goes, normals point outwards, point_areas add up."""

import numpy as np
import pytest

from overfit.geometry.point_cloud import PointCloud, estimate_normals, point_areas, remove_outliers, voxel_downsample


def sphere(count: int = 6000, radius: float = 100.0) -> np.ndarray:
    rays = np.random.default_rng(0).normal(size=(count, 3))
    return radius * rays / np.linalg.norm(rays, axis=1, keepdims=True)


def test_scattered_points_and_specks_go():
    random = np.random.default_rng(1)
    scattered = random.uniform(-300, 300, (60, 3))
    scattered = scattered[np.abs(np.linalg.norm(scattered, axis=1) - 100) > 30]
    speck = np.array([200.0, 0, 0]) + random.normal(scale=2, size=(60, 3))
    kept = remove_outliers(PointCloud(np.concatenate([sphere(), scattered, speck]))).points
    assert len(kept) > 0.97 * 6000
    assert np.abs(np.linalg.norm(kept, axis=1) - 100).max() < 1e-6


def test_normals_are_found_and_point_outwards():
    points = sphere()
    cloud = estimate_normals(PointCloud(points))
    assert ((cloud.normals * points).sum(1) / 100 > 0.98).mean() > 0.999


def test_given_normals_are_kept():
    cloud = PointCloud(sphere(), -sphere() / 100)
    assert estimate_normals(cloud) is cloud


def test_areas_add_up_to_the_surface():
    assert point_areas(sphere()).sum() == pytest.approx(4 * np.pi * 100**2, rel=0.15)


def test_a_thinned_cloud_has_no_two_points_in_one_place():
    doubled = voxel_downsample(PointCloud(np.concatenate([sphere(100)] * 2)), 0.01)
    assert len(doubled.points) == len(np.unique(doubled.points, axis=0)) == 100
