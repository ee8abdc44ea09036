"""The default data: closed heads of different people, the same for the same seed."""

import csv

import numpy as np
import pytest
import trimesh

from hyperdiffusion import HeadModel, write_heads
from overfit import BadInput


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel()


def test_heads_are_closed_single_bodies_of_human_size_cut_by_a_plane(model):
    for seed in range(8):
        mesh = model.mesh(model.person(np.random.default_rng(seed)))
        assert mesh.is_watertight and mesh.body_count == 1
        assert 1.5e6 < mesh.volume < 8e6  # 1.5 to 8 litres, a child's to that of a giant with his neck
        height = np.ptp(mesh.bounds, axis=0)[1]
        assert 130 < height < 330
        cut = (mesh.triangles_center[:, 1] < mesh.bounds[0][1] + 1e-3) & (mesh.face_normals[:, 1] < -0.999)
        assert 2000 < mesh.area_faces[cut].sum() < 25_000  # a neck of 5 to 18 cm across


def test_the_face_looks_along_z_between_symmetric_ears(model):
    mesh = model.mesh(model.person(np.random.default_rng(0)))
    nose = mesh.vertices[mesh.vertices[:, 2].argmax()]
    assert abs(nose[0]) < 10 and -80 < nose[1] < 20
    assert mesh.bounds[0][0] == pytest.approx(-mesh.bounds[1][0], abs=5)


def test_people_differ(model):
    meshes = [model.mesh(model.person(np.random.default_rng(seed))) for seed in range(4)]
    sizes = np.array([np.ptp(mesh.bounds, axis=0) for mesh in meshes])
    assert (sizes.std(0) > 3).all()


def test_head_k_of_a_seed_is_the_same_whatever_the_count_and_its_parameters_are_told(tmp_path):
    write_heads(tmp_path / "two", 2, seed=5)
    paths = write_heads(tmp_path / "three", 3, seed=5)
    for path in paths[:2]:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    with open(tmp_path / "three" / "heads.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [path.name for path in paths]
    assert 0.3 <= float(rows[0]["age"]) <= 1 and rows[0]["age"] != rows[1]["age"]
    assert trimesh.load_mesh(paths[0]).is_watertight


def test_a_count_of_zero_is_told(tmp_path):
    with pytest.raises(BadInput, match="--count 0"):
        write_heads(tmp_path, 0, seed=0)
