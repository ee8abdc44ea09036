"""The template found again from any pose; eggs and boxes do not pass for heads."""

import numpy as np
import pytest
import trimesh
from conftest import ellipsoid
from scipy.spatial.transform import Rotation

from overfit.clouds import Cloud
from overfit.occupancy import surface_samples
from overfit.prepare import LEAST_RELIEF
from overfit.registration import Similarity, Template, register


@pytest.fixture(scope="module")
def template() -> Template:
    return Template.standard()


def sampled(mesh: trimesh.Trimesh, similarity: Similarity = Similarity(), keep=lambda points: slice(None)) -> Cloud:
    points, normals = surface_samples(mesh, 8000, np.random.default_rng(0))
    kept = keep(points)
    return similarity.moved(Cloud(points[kept], normals[kept]))


@pytest.mark.parametrize("seed, scale, keep", [
    (0, 1.0, lambda points: slice(None)),
    (1, 1.0, lambda points: points[:, 1] > -80),
    (2, 1.0, lambda points: points[:, 2] > 10),
    (3, 0.013, lambda points: slice(None)),
])
def test_the_template_is_found_again(template, seed, scale, keep):
    pose = Similarity(scale, Rotation.random(random_state=seed).as_matrix(), np.array([30.0, -200.0, 500.0]) * scale)
    found = register(sampled(template.mesh, pose, keep), template, free_scale=scale != 1)
    back = pose.then(found.similarity)
    assert np.degrees(Rotation.from_matrix(back.rotation).magnitude()) < 1
    assert back.scale == pytest.approx(1, abs=0.01) and np.abs(back.shift).max() < 2
    assert np.linalg.det(found.similarity.rotation) == pytest.approx(1)
    assert found.relief > 0.6


def test_a_mirrored_head_does_not_come_out_mirrored(template):
    mirrored = template.mesh.copy()
    mirrored.apply_transform(np.diag([-1.0, 1, 1, 1]))
    found = register(sampled(mirrored), template, free_scale=False)
    assert np.linalg.det(found.similarity.rotation) == pytest.approx(1)


@pytest.mark.parametrize("mesh", [ellipsoid((75.0, 115.0, 95.0), 4), trimesh.creation.box((180, 240, 200)),
                                  trimesh.creation.torus(90, 40), trimesh.creation.cylinder(80, 240)],
                         ids=["egg", "box", "torus", "cylinder"])
def test_what_is_no_head_shows_no_relief(template, mesh):
    assert register(sampled(mesh), template, free_scale=False).relief < LEAST_RELIEF


def test_similarities_follow_each_other():
    random = np.random.default_rng(0)
    turns = Rotation.random(2, random_state=0).as_matrix()
    one, two = (Similarity(random.uniform(0.5, 2), turn, random.normal(size=3)) for turn in turns)
    points = random.normal(size=(10, 3))
    np.testing.assert_allclose(one.then(two)(points), two(one(points)))
