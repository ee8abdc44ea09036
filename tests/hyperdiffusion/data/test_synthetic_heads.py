"""Synthetic heads: closed heads of different people, the same for the same seed."""

import numpy as np
import pytest
import trimesh


@pytest.fixture(scope="module")
def meshes(model) -> list[trimesh.Trimesh]:
    return [model.mesh(model.person(np.random.default_rng(seed))) for seed in range(5)]


def test_heads_are_watertight_single_components_of_human_size_cut_by_a_plane(meshes):
    for mesh in meshes:
        assert mesh.is_watertight and mesh.body_count == 1
        # From a child's head to that of a giant with his neck.
        assert 1.5e6 < mesh.volume < 8e6
        assert 130 < np.ptp(mesh.bounds, axis=0)[1] < 330
        cut = (mesh.triangles_center[:, 1] < mesh.bounds[0][1] + 1e-3) & (mesh.face_normals[:, 1] < -0.999)
        # A neck of 5 to 18 cm in diameter.
        assert 2000 < mesh.area_faces[cut].sum() < 25_000


def test_the_face_looks_along_z_between_symmetric_ears(meshes):
    mesh = meshes[0]
    nose = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert abs(nose[0]) < 10 and -80 < nose[1] < 20
    assert mesh.bounds[0][0] == pytest.approx(-mesh.bounds[1][0], abs=5)


def test_people_differ(meshes):
    sizes = np.array([np.ptp(mesh.bounds, axis=0) for mesh in meshes])
    assert (sizes.std(0) > 3).all()


def test_people_show_at_most_the_given_number_of_faint_expressions(model):
    people = [model.person(np.random.default_rng(seed), expressions=3) for seed in range(20)]
    assert {len(person.actions) for person in people} == {0, 1, 2, 3}
    assert all(0 <= strength <= 0.4 for person in people for strength in person.actions.values())
    assert all(-1 <= value <= 1 for person in people for value in person.local.values())


def test_body_vertices_correspond_and_contain_the_head(model, meshes):
    person = model.person(np.random.default_rng(0))
    vertices = model.body_vertices(person)
    assert vertices.shape == model.body_vertices(model.person(np.random.default_rng(1))).shape
    # Nearly all vertices of the head as it was modelled are the body's; the others are where it is cut and filled.
    coarse = model.mesh(person, subdivisions=0)
    distances = np.linalg.norm(coarse.vertices[::50, None] - vertices[None], axis=2).min(1)
    assert np.mean(distances < 1e-3) > 0.8
    # The head is the body's surface, made smooth; eyelids and lips hide some of the body's vertices.
    skin = vertices[np.unique(model.skin)]
    above = skin[skin[:, 1] > meshes[0].bounds[0, 1] + 5]
    distances = trimesh.proximity.closest_point(meshes[0], above[::20])[1]
    assert len(distances) > 100 and np.median(distances) < 0.3 and np.mean(distances < 1) > 0.9
