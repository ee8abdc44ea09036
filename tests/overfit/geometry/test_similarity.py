"""Similarity transforms of points and clouds."""

import numpy as np
from scipy.spatial.transform import Rotation

from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.similarity import Similarity

QUARTER_TURN = Similarity(2.0, Rotation.from_euler("y", 90, degrees=True).as_matrix(), np.array([1.0, 2.0, 3.0]))


def test_the_default_changes_nothing():
    points = np.random.default_rng(0).normal(size=(10, 3))
    assert np.array_equal(Similarity()(points), points)


def test_points_are_rotated_then_scaled_then_moved():
    np.testing.assert_allclose(QUARTER_TURN(np.array([[0.0, 0.0, 1.0]])), [[3, 2, 3]], atol=1e-12)


def test_normals_are_rotated_only():
    cloud = PointCloud(np.array([[0.0, 0, 1]]), np.array([[0.0, 0, 1]]))
    np.testing.assert_allclose(QUARTER_TURN.transform_cloud(cloud).normals, [[1, 0, 0]], atol=1e-12)
    assert QUARTER_TURN.transform_cloud(PointCloud(cloud.points)).normals is None


def test_similarities_follow_each_other():
    random = np.random.default_rng(0)
    turns = Rotation.random(2, random_state=0).as_matrix()
    one, two = (Similarity(random.uniform(0.5, 2), turn, random.normal(size=3)) for turn in turns)
    points = random.normal(size=(10, 3))
    np.testing.assert_allclose(one.then(two)(points), two(one(points)))
