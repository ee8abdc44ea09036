"""Dense registration on heads that are made of the template, so that the true place of every vertex is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from overfit.canonical.dense_registration import register_dense
from overfit.canonical.shape_model import ShapeModel
from overfit.geometry.similarity import Similarity

# Vertices of the template that heads below lack.
PARTS = {
    "an ear": lambda vertices: vertices[:, 0] > 72,
    "the back": lambda vertices: vertices[:, 2] < -90,
    "the top": lambda vertices: vertices[:, 1] > 85,
}


@dataclass(frozen=True)
class Head:
    """A head whose vertices are known."""

    vertices: np.ndarray
    mesh: trimesh.Trimesh
    found: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Distance in millimetres of each found vertex from its true place."""
        return np.linalg.norm(self.found - self.vertices, axis=1)


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    return ShapeModel.standard()


def registered(model: ShapeModel, vertices: np.ndarray, *, missing: np.ndarray | None = None) -> Head:
    """The template registered on itself in another place and shape, without the neck's cut and missing vertices."""
    faces = matched_faces(model)
    if missing is not None:
        faces = faces[~missing[faces].any(1)]
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.remove_unreferenced_vertices()
    return Head(vertices, mesh, register_dense(mesh, model).vertices(model))


def matched_faces(model: ShapeModel) -> np.ndarray:
    """The template's triangles without those of the neck's cut."""
    return model.mesh.faces[np.isin(model.mesh.faces, model.matched).all(1)]


def is_head(model: ShapeModel) -> np.ndarray:
    """Which matched vertices belong to the head, not to the shoulders."""
    return model.matched < model.head_size


def random_shape(model: ShapeModel, seed: int, *, offsets: float = 0.0) -> np.ndarray:
    """Vertices of a head whose coefficients are drawn from the prior; `offsets` scales those of the smooth offsets."""
    rng = np.random.default_rng(seed)
    shape = rng.standard_normal(len(model.modes))
    return model.vertices(shape, offsets * rng.standard_normal((model.offsets.shape[1], 3)))


@pytest.fixture(scope="module", params=[2, 3])
def shaped(model, request) -> Head:
    return registered(model, random_shape(model, request.param))


@pytest.mark.parametrize("angles, shift", [((5, -4, 3), (30, -20, 40)), ((-6, 5, -2), (-15, 50, 10))])
def test_the_template_is_found_where_it_was_moved(model, angles, shift):
    pose = Similarity(1.0, Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), np.array(shift, float))
    head = registered(model, pose(model.mesh.vertices))
    assert np.median(head.error[model.matched]) < 0.05 and head.error.max() < 0.2


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_the_template_is_found_at_another_size(model, scale):
    head = registered(model, scale * model.mesh.vertices)
    assert np.median(head.error[model.matched]) < 1 and np.percentile(head.error[model.matched], 95) < 3


def test_pose_and_shape_are_told_apart(model):
    pose = Similarity(translation=np.array([10.0, 20.0, 30.0]))
    found = register_dense(trimesh.Trimesh(pose(model.mesh.vertices), matched_faces(model), process=False), model)
    np.testing.assert_allclose(found.pose.translation, [10, 20, 30], atol=1)
    assert np.abs(found.shape).max() < 0.2 and np.abs(found.offsets).max() < 0.2


def test_vertices_of_a_head_of_another_shape_are_found_within_a_millimetre(model, shaped):
    head, shoulders = (model.matched[chosen] for chosen in (is_head(model), ~is_head(model)))
    moved = np.linalg.norm(shaped.vertices - model.mesh.vertices, axis=1)
    assert np.median(shaped.error[head]) < 0.5 and np.percentile(shaped.error[head], 95) < 2
    assert np.median(moved[head]) > 3
    # Shoulders have no features that would show where along the surface a vertex belongs.
    assert np.median(shaped.error[shoulders]) < 2 and np.median(moved[shoulders]) > 8


def test_heads_that_the_modes_have_not_seen_are_followed_by_smooth_offsets(model):
    head = registered(model, random_shape(model, 0, offsets=1.0))
    distance = trimesh.proximity.closest_point(head.mesh, head.found[model.matched])[1]
    assert np.median(distance) < 0.3 and np.median(head.error[model.matched]) < 2


@pytest.mark.parametrize("part", PARTS)
def test_what_a_head_lacks_is_where_the_prior_expects_it_and_the_rest_stays_as_good(model, shaped, part):
    missing = PARTS[part](model.mesh.vertices)
    head = registered(model, shaped.vertices, missing=missing)
    known = model.matched[is_head(model)]
    rest, lacking = (np.intersect1d(known, np.nonzero(chosen)[0]) for chosen in (~missing, missing))
    assert len(lacking) > 40
    assert np.median(head.error[rest]) < np.median(shaped.error[rest]) + 0.1
    assert np.percentile(head.error[rest], 95) < np.percentile(shaped.error[rest], 95) + 0.7
    assert np.median(head.error[lacking]) < 4 and head.error[lacking].max() < 8
    # The template as it is would be farther away.
    unmoved = np.linalg.norm(shaped.vertices - model.mesh.vertices, axis=1)[lacking]
    assert np.median(head.error[lacking]) < 0.6 * np.median(unmoved)


def test_a_head_without_shoulders_is_registered_as_well_and_they_follow_it(model, shaped):
    shoulders = np.arange(len(model.mesh.vertices)) >= model.head_size
    alone = registered(model, shaped.vertices, missing=shoulders)
    head = model.matched[is_head(model)]
    assert np.median(alone.error[head]) < np.median(shaped.error[head]) + 0.1
    assert np.percentile(alone.error[head], 95) < np.percentile(shaped.error[head], 95) + 0.7
    unmoved = np.linalg.norm(shaped.vertices - model.mesh.vertices, axis=1)[shoulders]
    assert np.median(alone.error[shoulders]) < 0.6 * np.median(unmoved)


def test_points_far_from_the_head_do_not_count(model, shaped):
    """As of a shoulder or a scanner's table."""
    plate = trimesh.creation.box((60, 5, 60)).subdivide().subdivide()
    plate.apply_translation([60, shaped.mesh.bounds[0, 1] - 20, 0])
    found = register_dense(shaped.mesh + plate, model).vertices(model)
    error = np.linalg.norm(found - shaped.vertices, axis=1)[model.matched[is_head(model)]]
    assert np.median(error) < 0.6
