"""Alignment: eyes and lips of different heads come to one place, and each kind of alignment moves what it should."""

import importlib.util

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from support import SHARED, ellipsoid, random_head

from overfit.canonical.align import (
    CORNERS,
    MAX_CONTROL_POINTS,
    MIN_CONTROL_POINTS,
    AlignmentConfig,
    align,
    control_points,
)
from overfit.canonical.shape_model import ShapeModel
from overfit.canonical.warp import Warp, WarpSpace
from overfit.fit_batch import OverfitConfig
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.similarity import Similarity
from overfit.runtime.errors import BadInput

WARP, SIMILARITY, NONE = (AlignmentConfig(align=kind) for kind in ("warp", "similarity", "none"))
POSE = Similarity(
    1.15, Rotation.from_euler("xyz", [4, -3, 2], degrees=True).as_matrix(), translation=np.array([15.0, 30.0, -20.0])
)
ICT_HEADS = SHARED / "ict_heads" / "make_heads.py"
HEADS = 6


def warp_of(mesh: trimesh.Trimesh, config: AlignmentConfig) -> Warp:
    return Warp(WarpSpace(control_points(config)), align(mesh, config).displacements)


def random_pose(seed: int) -> Similarity:
    """A few degrees, a few centimetres and another size."""
    rng = np.random.default_rng([7, seed])
    turn = Rotation.from_rotvec(np.radians(rng.uniform(-5, 5, 3))).as_matrix()
    return Similarity(rng.uniform(0.85, 1.15), turn, rng.uniform(-30, 30, 3))


def spread(places: np.ndarray) -> np.ndarray:
    """Distances (heads, landmarks) of landmarks (heads, landmarks, 3) to their median places."""
    return np.linalg.norm(places - np.median(places, axis=0), axis=2)


@pytest.fixture(scope="module")
def ict_landmarks() -> list[tuple[trimesh.Trimesh, np.ndarray]]:
    """Heads of the ICT model in different poses and sizes, with the corners of eyes and mouth, which correspond."""
    if not ICT_HEADS.exists():
        pytest.skip("the shared data is not beside this checkout")
    spec = importlib.util.spec_from_file_location("make_heads", ICT_HEADS)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.HeadModel()
    loops = [*model.eyes, model.caps[0]]
    corners = [loop[pick(model.mean[loop, 0])] for loop in loops for pick in (np.argmin, np.argmax)]
    heads = []
    for index in range(HEADS):
        identity = 0.9 * np.random.default_rng(index).standard_normal(len(model.identity))
        vertices, triangles = model.mesh(identity, np.zeros(len(model.expression)))
        vertices = random_pose(index)(10 * vertices)
        heads.append((trimesh.Trimesh(vertices, triangles, process=False), vertices[corners]))
    return heads


def test_corners_of_eyes_and_mouth_come_to_the_same_places(ict_landmarks):
    places = np.stack([warp_of(mesh, WARP).inverse(corners) for mesh, corners in ict_landmarks])
    distance = spread(places)
    assert np.median(distance) < 1.5 and distance.max() < 4
    # Before, they were centimetres apart.
    assert np.median(spread(np.stack([corners for _, corners in ict_landmarks]))) > 15


def test_vertices_of_the_template_are_carried_to_where_they_are_on_a_head():
    model = ShapeModel.standard()
    shape = np.random.default_rng(1).standard_normal(len(model.modes))
    truth = POSE(model.vertices(shape, np.zeros((model.offsets.shape[1], 3))))[model.matched]
    error = {}
    for config in (WARP, SIMILARITY):
        warp = warp_of(random_head(1, pose=POSE), config)
        error[config.align] = np.median(np.linalg.norm(warp(model.mesh.vertices[model.matched]) - truth, axis=1))
    assert error["warp"] < 1 < 2 < error["similarity"] < 10


def test_more_control_points_carry_the_template_closer_to_a_head():
    model, head = ShapeModel.standard(), random_head(3)
    shape = np.random.default_rng(3).standard_normal(len(model.modes))
    truth = model.vertices(shape, np.zeros((model.offsets.shape[1], 3)))[model.matched]
    errors = [
        np.linalg.norm(warp_of(head, AlignmentConfig(control_points=count))(model.mesh.vertices[model.matched]) - truth)
        for count in (16, 100, 400)
    ]
    assert errors[0] > 1.3 * errors[1] > 1.3 * errors[2]


@pytest.mark.parametrize("config", [WARP, SIMILARITY], ids=lambda config: config.align)
def test_bounds_are_those_of_the_template_for_a_head_like_it(config):
    model = ShapeModel.standard()
    mesh = trimesh.Trimesh(POSE(model.mesh.vertices), model.mesh.faces, process=False)
    # Only every second of its vertices is looked at.
    np.testing.assert_allclose(align(mesh, config).bounds, model.mesh.bounds, atol=1.5)


def test_bounds_hold_the_whole_head_in_canonical_space():
    head = random_head(2, pose=POSE)
    alignment = align(head, WARP)
    warp = Warp(WarpSpace(control_points(WARP)), alignment.displacements)
    canonical = warp.inverse(np.asarray(head.vertices))
    assert np.percentile(np.linalg.norm(warp(canonical) - head.vertices, axis=1), 99) < 0.1
    # They are measured at some of the vertices; the cube's margin holds the others.
    assert Cube.around(alignment.bounds[None], OverfitConfig().margin).contains(
        np.stack([canonical.min(0), canonical.max(0)])
    )
    np.testing.assert_allclose([canonical.min(0), canonical.max(0)], alignment.bounds, atol=4)
    assert not np.allclose(alignment.bounds, head.bounds, atol=10)


def test_a_similarity_displaces_the_corners_by_the_pose_of_the_head():
    model = ShapeModel.standard()
    alignment = align(trimesh.Trimesh(POSE(model.mesh.vertices), model.mesh.faces, process=False), SIMILARITY)
    corners = np.array(CORNERS)
    assert control_points(SIMILARITY) == CORNERS and alignment.displacements.shape == (8, 3)
    np.testing.assert_allclose(corners + alignment.displacements, POSE(corners), atol=0.2)


def test_a_similarity_stays_one_for_a_head_of_another_shape():
    moved = np.array(CORNERS) + align(random_head(2), SIMILARITY).displacements
    found = Similarity.between(np.array(CORNERS), moved)
    np.testing.assert_allclose(found(np.array(CORNERS)), moved, atol=1e-6)


def test_without_alignment_heads_lie_in_canonical_space_as_they_are():
    head = random_head(2, pose=POSE)
    alignment = align(head, NONE)
    assert alignment.displacements.shape == (0, 3) and control_points(NONE) == ()
    np.testing.assert_array_equal(alignment.bounds, head.bounds)


@pytest.mark.parametrize("config", [WARP, NONE], ids=lambda config: config.align)
def test_the_neck_is_found_where_a_head_ends(config):
    head = random_head(2, pose=POSE)
    alignment = align(head, config)
    assert alignment.ends_in_plane and alignment.neck_height == pytest.approx(head.bounds[0, 1])
    ragged = trimesh.Trimesh(head.vertices, head.faces[head.triangles_center[:, 1] > head.bounds[0, 1] + 1])
    alignment = align(ragged, config)
    assert not alignment.ends_in_plane and alignment.neck_height == pytest.approx(ragged.bounds[0, 1])


def test_an_egg_is_aligned_without_an_error():
    """There is nothing to find on it, but a scan that is no head must not end the run."""
    alignment = align(ellipsoid((80, 110, 90)), WARP)
    assert np.isfinite(alignment.displacements).all() and np.isfinite(alignment.bounds).all()


def test_control_points_are_as_many_as_the_config_says_and_the_same_for_all_heads():
    assert len(control_points(AlignmentConfig(control_points=50))) == 50
    assert control_points(AlignmentConfig()) == control_points(WARP) and len(control_points(WARP)) == 400


@pytest.mark.parametrize("count", [MIN_CONTROL_POINTS - 1, MAX_CONTROL_POINTS + 1])
def test_numbers_of_control_points_that_carry_no_warp_are_refused(count):
    with pytest.raises(BadInput, match=f"`control_points={count}`: give 16 to 2,000"):
        AlignmentConfig(control_points=count)
