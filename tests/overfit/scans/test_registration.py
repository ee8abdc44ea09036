"""The template is found again from any pose; eggs and boxes do not pass for heads."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from support import ellipsoid

from overfit.geometry.mesh import sample_surface
from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.similarity import Similarity
from overfit.scans import coarse_search, registration
from overfit.scans.registration import register
from overfit.scans.scan_alignment import MIN_RELIEF, align_scan, misalignment, shows_another_head
from overfit.scans.template import Template


@pytest.fixture(scope="module")
def template() -> Template:
    return Template.standard()


@pytest.fixture
def short_search(monkeypatch):
    """Fewer hypotheses: what they lead to, the default ones find more surely."""
    monkeypatch.setattr(coarse_search, "ROTATIONS", 300)
    monkeypatch.setattr(coarse_search, "SURVIVORS", 100)
    monkeypatch.setattr(registration, "COARSE_CANDIDATES", 4)
    monkeypatch.setattr(registration, "PART_CANDIDATES", 2)
    monkeypatch.setattr(registration, "PARTS", 4)
    monkeypatch.setattr(registration, "SCAN_SIZES_MM", (165.0, 210.0, 265.0))


def sample(mesh: trimesh.Trimesh) -> PointCloud:
    return PointCloud(*sample_surface(mesh, 6000, rng=np.random.default_rng(0)))


@pytest.mark.parametrize(
    "seed, scale, is_kept",
    [
        (0, 1.0, lambda points: np.full(len(points), True)),
        (1, 1.0, lambda points: points[:, 1] > -80),
        (2, 1.0, lambda points: points[:, 2] > 10),
        (3, 0.013, lambda points: np.full(len(points), True)),
    ],
    ids=["whole head", "no neck", "mask", "unknown unit"],
)
def test_the_template_is_found_again(template, short_search, seed, scale, is_kept):
    cloud = sample(template.mesh)
    pose = Similarity(scale, Rotation.random(random_state=seed).as_matrix(), np.array([30.0, -200.0, 500.0]) * scale)
    moved = pose.transform_cloud(cloud[is_kept(cloud.points)])
    found = register(moved, template, estimate_scale=scale != 1)
    error = pose.then(found.similarity)
    assert np.degrees(Rotation.from_matrix(error.rotation).magnitude()) < 1
    assert error.scale == pytest.approx(1, abs=0.01) and np.abs(error.translation).max() < 2
    assert np.linalg.det(found.similarity.rotation) == pytest.approx(1)
    assert found.relief > 0.6


def joined(*clouds: PointCloud) -> PointCloud:
    return PointCloud(*map(np.concatenate, zip(*[(cloud.points, cloud.known_normals) for cloud in clouds])))


def test_a_head_is_found_in_a_scan_much_larger_than_it(template, short_search):
    wall = trimesh.creation.box((10, 800, 800)).subdivide().subdivide()
    wall.apply_translation([-300, 0, 0])
    found = register(joined(sample(template.mesh), sample(wall)), template, estimate_scale=False)
    assert np.degrees(Rotation.from_matrix(found.similarity.rotation).magnitude()) < 2


def test_a_person_in_metres_has_one_head(template, short_search):
    torso, leg = ellipsoid((210, 400, 120)), ellipsoid((90, 450, 90))
    torso.apply_translation([0, -500, -20])
    leg.apply_translation([0, -1200, -20])
    person = joined(*map(sample, (template.mesh, torso, torso, leg)))
    metres = Similarity(0.001, Rotation.random(random_state=5).as_matrix()).transform_cloud(person)
    alignment = align_scan(metres, template, unit="m", keep_scale=False)
    upright = alignment.similarity.rotation @ Rotation.random(random_state=5).as_matrix()
    assert np.degrees(Rotation.from_matrix(upright).magnitude()) < 3
    assert not misalignment(alignment.registration)
    assert not shows_another_head(metres, alignment, template)


def test_a_second_person_is_noticed(template, short_search):
    head = sample(template.mesh)
    other = Similarity(0.95, Rotation.from_euler("y", 20, degrees=True).as_matrix(), np.array([420.0, -90.0, 0.0]))
    people = joined(head, other.transform_cloud(head))
    alignment = align_scan(people, template, unit="mm", keep_scale=False)
    assert not misalignment(alignment.registration)
    assert shows_another_head(people, alignment, template)


def test_a_mirrored_head_does_not_come_out_mirrored(template, short_search):
    mirrored = template.mesh.copy()
    mirrored.apply_transform(np.diag([-1.0, 1, 1, 1]))
    found = register(sample(mirrored), template, estimate_scale=False)
    assert np.linalg.det(found.similarity.rotation) == pytest.approx(1)


def test_an_egg_shows_no_relief_in_a_full_search(template):
    egg = ellipsoid((75.0, 115.0, 95.0), 4)
    assert register(sample(egg), template, estimate_scale=False).relief < MIN_RELIEF


@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.box((180, 240, 200)),
        trimesh.creation.torus(90, 40),
        trimesh.creation.cylinder(80, 240),
    ],
    ids=["box", "torus", "cylinder"],
)
def test_other_shapes_show_no_relief(template, short_search, mesh):
    assert register(sample(mesh), template, estimate_scale=False).relief < MIN_RELIEF
