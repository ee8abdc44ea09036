"""The template's points lie on its mesh, move with its modes, and are found again by its lookup grid."""

import numpy as np
import pytest
import trimesh
from support import ellipsoid, nearest_on

from overfit.scans.template import GRID_CELL_MM, Template, smooth_normals


@pytest.fixture(scope="module")
def egg() -> Template:
    """An egg, whose modes are its length, width and height."""
    return Template(ellipsoid((75.0, 115.0, 95.0), 4))


def test_the_points_lie_on_the_mesh_but_not_on_the_cut_through_the_neck():
    box = Template(trimesh.creation.box((150, 220, 190)))
    assert nearest_on(box.mesh, box.cloud.points)[0].max() < 1e-9
    assert box.cloud.normals[:, 1].min() == 0 and box.cloud.normals[:, 1].max() == 1


def test_a_mode_moves_the_points_with_the_mesh(egg):
    taller = egg.deformed(np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(taller / egg.cloud.points, np.tile([1, 1.08, 1], (len(taller), 1)))


def test_the_grid_finds_points_that_are_almost_the_nearest(egg):
    points = np.random.default_rng(0).normal(scale=80, size=(5, 40, 3))
    distance = np.linalg.norm(egg.cloud.points[egg.nearest(points)] - points, axis=-1)
    nearest = egg.tree.query(points)[0]
    assert distance.shape == (5, 40)
    assert (distance - nearest).max() < np.sqrt(3) * GRID_CELL_MM


def test_the_face_is_in_front():
    template = Template.standard()
    face = template.cloud[template.in_face]
    assert face.normals[:, 2].min() > 0 and face.points[:, 2].min() > -5 and np.ptp(face.points[:, 1]) < 130
    assert set(template.relief_points) <= set(np.nonzero(template.in_face)[0])


def test_smooth_normals_say_where_a_cloud_is_missing(egg):
    upper = egg.cloud[egg.cloud.points[:, 1] > 0]
    normals, reached = smooth_normals(upper, np.array([[0.0, 115.0, 0.0], [0.0, -115.0, 0.0]]))
    assert reached.tolist() == [True, False]
    np.testing.assert_allclose(normals[0], [0, 1, 0], atol=0.05)
