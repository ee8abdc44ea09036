"""Both ray engines on a box, where the hits are known."""

import sys

import numpy as np
import pytest
import trimesh

from overfit.geometry.rays import openness, ray_intersector, seen_from_outside
from overfit.geometry.signed_distance import distance_to_wall, winding_number_distance

# Away from the diagonals, along which two triangles meet.
ORIGINS = np.array([[0.1, 0.3, 5.0], [0.2, -0.3, -5.0], [9.0, 0, 5.0]])
DIRECTIONS = np.array([[0.0, 0, -1], [0, 0, 1], [0, 0, -1]])


@pytest.fixture(params=["embreex", "trimesh"])
def engine(request, monkeypatch) -> str:
    if request.param == "trimesh":
        # As on a platform without a wheel of embreex.
        monkeypatch.setitem(sys.modules, "trimesh.ray.ray_pyembree", None)
    else:
        pytest.importorskip("embreex")
    return request.param


def test_the_engine_is_the_one_that_is_installed(engine):
    module = type(ray_intersector(trimesh.creation.box((2, 2, 2)))).__module__
    assert module.endswith("pyembree") == (engine == "embreex")


def test_first_hits_show_the_side_that_faces_the_ray(engine):
    box = trimesh.creation.box((2, 2, 2))
    hits = ray_intersector(box).intersects_first(ORIGINS, DIRECTIONS)
    assert hits[2] == -1
    np.testing.assert_allclose(box.face_normals[hits[:2]], [[0, 0, 1], [0, 0, -1]], atol=1e-9)


def test_all_hits_come_with_their_places(engine):
    box = trimesh.creation.box((2, 2, 2))
    _, rays, places = ray_intersector(box).intersects_id(ORIGINS, DIRECTIONS, multiple_hits=True, return_locations=True)
    assert sorted(rays) == [0, 0, 1, 1]
    np.testing.assert_allclose(np.sort(places[:, 2]), [-1, -1, 1, 1], atol=1e-4)


def test_signed_distances_do_not_depend_on_the_engine(engine):
    box = trimesh.creation.box((2, 2, 2))
    points = np.random.default_rng(0).uniform(-2, 2, (200, 3))
    inside = (np.abs(points) < 1).all(1)
    assert np.array_equal(winding_number_distance(box, points) < 0, inside)


def test_rays_that_meet_nothing_go_to_infinity(engine):
    box = trimesh.creation.box((2, 2, 2))
    assert distance_to_wall(box, ORIGINS[2:], directions=DIRECTIONS[2:]).tolist() == [np.inf]


def test_openness_is_the_share_of_sky(engine):
    ball = trimesh.creation.icosphere(2)
    points, normals = ball.triangles_center[:20], ball.face_normals[:20]
    np.testing.assert_array_equal(openness(ball, points, normals, directions=64), 1)
    np.testing.assert_array_equal(openness(ball, points, -normals, directions=64), 0)


def test_openness_counts_directions_by_their_cosine(engine):
    # A floor beside a wall without end hides half of the sky.
    wall = trimesh.Trimesh([[0, -1e4, -1e4], [0, 1e4, -1e4], [0, 0, 2e4]], [[0, 1, 2]], process=False)
    point, up = np.array([[1e-3, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
    wall.vertices[:, 0] -= 1e-3 * wall.scale
    assert openness(wall, point, up, directions=2000)[0] == pytest.approx(0.5, abs=0.02)


def test_what_lies_inside_is_not_seen_from_outside(engine):
    skin, eyeball = trimesh.creation.icosphere(2), trimesh.creation.icosphere(2, radius=0.5)
    head = trimesh.util.concatenate([skin, eyeball])
    seen = seen_from_outside(head, head.triangles_center, head.face_normals)
    assert seen[: len(skin.faces)].all() and not seen[len(skin.faces) :].any()
