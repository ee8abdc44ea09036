"""The shape model: its points are spread over the head, and its offsets are as large as their kernels say."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from overfit.canonical.align import MAX_CONTROL_POINTS
from overfit.canonical.shape_model import (
    FACE_BOTTOM_MM,
    FACE_DENSITY,
    FACE_FRONT_MM,
    OFFSET_KERNELS,
    SHOULDER_DENSITY,
    ShapeModel,
)


@pytest.fixture(scope="module")
def model() -> ShapeModel:
    return ShapeModel.standard()


def parts_of(model: ShapeModel, points: np.ndarray) -> list[np.ndarray]:
    """Which points lie on the face, on the rest of the head, and on the shoulders."""
    face = (points[:, 2] > FACE_FRONT_MM) & (points[:, 1] > FACE_BOTTOM_MM)
    shoulders = points[:, 1] < model.mesh.vertices[: model.head_size, 1].min()
    return [face, ~face & ~shoulders, shoulders]


def test_spread_points_are_distinct_vertices_of_the_head(model):
    points = model.spread_points(400)
    assert points.shape == (400, 3) and len(np.unique(points, axis=0)) == 400
    assert cdist(points, model.mesh.vertices[model.matched]).min(1).max() == 0
    assert len(np.unique(model.spread_points(MAX_CONTROL_POINTS), axis=0)) == MAX_CONTROL_POINTS


def test_the_first_spread_points_are_those_of_a_shorter_sequence(model):
    np.testing.assert_array_equal(model.spread_points(400)[:100], model.spread_points(100))


def test_spread_points_cover_the_head_and_are_denser_on_the_face(model):
    points = model.spread_points(400)
    spacing = (cdist(points, points) + 1e9 * np.eye(400)).min(1)
    parts = parts_of(model, points)
    face, skull, shoulders = (np.median(spacing[part]) for part in parts)
    assert skull / face == pytest.approx(FACE_DENSITY, rel=0.15)
    assert skull / shoulders == pytest.approx(SHOULDER_DENSITY, rel=0.2)
    # No vertex is much farther from the points than they are from each other.
    vertices = model.mesh.vertices[model.matched]
    gap = cdist(vertices, points).min(1)
    for part, own in zip(parts_of(model, vertices), (face, skull, shoulders)):
        assert gap[part].max() < 1.1 * own


def test_only_the_vertices_of_the_neck_cut_are_not_matched(model):
    unmatched = np.setdiff1d(np.arange(len(model.mesh.vertices)), model.matched)
    heights = model.mesh.vertices[:, 1]
    head = model.matched[model.matched < model.head_size]
    assert len(unmatched) > 10 and heights[unmatched].max() < heights[head].min()
    assert np.ptp(heights[unmatched]) < 1


def test_shoulders_continue_the_head_below_its_cut(model):
    head, shoulders = np.split(np.asarray(model.mesh.vertices), [model.head_size])
    assert shoulders[:, 1].max() < head[:, 1].min() + 1
    rim = head[head[:, 1] < head[:, 1].min() + 1]
    assert cdist(shoulders, rim).min() < 20
    assert np.ptp(shoulders[:, 0]) > 2 * np.ptp(rim[:, 0])
    # Modes move both together: across the cut a vertex moves as its neighbour does.
    pairs = cdist(shoulders, head)
    close = np.nonzero(pairs.min(1) < 15)[0]
    across = model.modes[:, model.head_size + close] - model.modes[:, pairs[close].argmin(1)]
    assert len(close) > 20
    assert (
        np.linalg.norm(across, axis=2).mean()
        < 0.2 * np.linalg.norm(model.modes[:, model.head_size + close], axis=2).mean()
    )


def test_the_last_modes_move_the_shoulders_alone(model):
    moves_head = np.abs(model.modes[:, : model.head_size]).max((1, 2)) > 0
    assert moves_head[:80].all() and not moves_head[80:].any()
    assert (np.abs(model.modes[80:, model.head_size :]).max((1, 2)) > 0.5).all()


def test_smooth_offsets_have_the_variance_of_their_kernels(model):
    variance = (model.offsets[: model.head_size] ** 2).sum(1)
    expected = sum(std**2 for _, std in OFFSET_KERNELS)
    # Components that are left out can only take variance away, and shoulders have more.
    assert variance.max() < 1.001 * expected
    assert np.median(variance) > 0.95 * expected and variance.min() > 0.8 * expected


def test_smooth_offsets_vary_together_as_their_kernels_say(model):
    chosen = model.matched[model.matched < model.head_size][::31]
    vertices, offsets = model.mesh.vertices[chosen], model.offsets[chosen]
    distance = cdist(vertices, vertices)
    expected = sum(std**2 * np.exp(-(distance**2) / (2 * width**2)) for width, std in OFFSET_KERNELS)
    assert np.abs(offsets @ offsets.T - expected).mean() < 0.05
    # What is fine is what the components leave out.
    far = distance > 30
    np.testing.assert_allclose((offsets @ offsets.T)[far], expected[far], atol=0.3)


def test_modes_are_ordered_by_how_far_they_move_the_head_and_add_up(model):
    count, components = len(model.modes), model.offsets.shape[1]
    size = (model.modes[:80, : model.head_size] ** 2).sum((1, 2))
    assert (np.diff(size) < 1e-3 * size[:-1]).all()
    rng = np.random.default_rng(0)
    shape, offsets = rng.standard_normal(count), rng.standard_normal((components, 3))
    rest = model.mesh.vertices

    def moved(shape: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        return model.vertices(shape, offsets) - rest

    none, still = np.zeros(count), np.zeros((components, 3))
    assert not moved(none, still).any()
    np.testing.assert_allclose(moved(shape, offsets), moved(shape, still) + moved(none, offsets), atol=1e-9)
    np.testing.assert_allclose(moved(np.eye(count)[3], still), model.modes[3], atol=1e-9)
    np.testing.assert_allclose(moved(none, offsets)[:, 1], model.offsets @ offsets[:, 1], atol=1e-9)
