"""All metrics of sets whose answer is known: real heads, copies, noise, no surface at all."""

import pickle

import numpy as np
import pytest
import trimesh
from support import bumpy_ellipsoid, jitter

from hyperdiffusion.evaluation.efficientnet_features import efficientnet_is_installed
from hyperdiffusion.evaluation.metrics import sample_point_clouds
from hyperdiffusion.evaluation.set_metrics import (
    EvaluationConfig,
    ReferenceHeads,
    SetMetrics,
    evaluate_meshes,
    evaluate_point_clouds,
)
from overfit.runtime.errors import BadInput

CONFIG = EvaluationConfig(points=500, emd_heads=4, emd_points=64)
HEADS = 30


@pytest.fixture(scope="module")
def heads() -> list[trimesh.Trimesh]:
    random = np.random.default_rng(0)
    return [bumpy_ellipsoid(random) for _ in range(3 * HEADS)]


@pytest.fixture(scope="module")
def held_out_heads(heads) -> list[trimesh.Trimesh]:
    return heads[:HEADS]


@pytest.fixture(scope="module")
def training_heads(heads) -> list[trimesh.Trimesh]:
    return heads[HEADS : 2 * HEADS]


@pytest.fixture(scope="module")
def new_heads(heads) -> list[trimesh.Trimesh]:
    return heads[2 * HEADS :]


@pytest.fixture(scope="module")
def reference(held_out_heads, training_heads) -> ReferenceHeads:
    return ReferenceHeads.of(held_out_heads, training_heads, config=CONFIG)


@pytest.fixture(scope="module")
def new_metrics(new_heads, reference) -> SetMetrics:
    return evaluate_meshes(new_heads, reference)


@pytest.fixture(scope="module")
def copy_metrics(training_heads, reference) -> SetMetrics:
    return evaluate_meshes(training_heads, reference)


def test_new_real_heads_are_indistinguishable_from_test_heads(new_metrics):
    one_nna = new_metrics.chamfer.one_nna
    assert one_nna.low < 0.5 < one_nna.high and new_metrics.chamfer.coverage.mean > 0.4
    assert new_metrics.novelty.copy_rate.mean < 0.2 and new_metrics.novelty.authenticity.mean > 0.2


def test_copies_of_training_heads_are_found(copy_metrics, new_metrics):
    novelty = copy_metrics.novelty
    assert novelty.copy_rate.mean > 0.9 and novelty.authenticity.mean < 0.1
    assert novelty.nearest == list(range(HEADS))
    assert novelty.nearest_training_mm.mean < new_metrics.novelty.nearest_training_mm.mean


def test_noise_is_seen_by_normals_and_images_but_hides_no_copy(training_heads, copy_metrics, reference):
    random = np.random.default_rng(1)
    noisy = evaluate_meshes([jitter(mesh, 1.0, random) for mesh in training_heads], reference)
    assert noisy.normal_consistency.mean < copy_metrics.normal_consistency.mean - 0.02
    assert noisy.frechet_distance > 2 * copy_metrics.frechet_distance
    assert noisy.kernel_distance > copy_metrics.kernel_distance
    assert noisy.one_nna_normal_maps.low > copy_metrics.one_nna_normal_maps.mean
    assert noisy.knn_coverage_normal_maps.high < copy_metrics.knn_coverage_normal_maps.mean
    assert noisy.snc_distance > 2 * copy_metrics.snc_distance
    if efficientnet_is_installed():
        assert noisy.frechet_distance_efficientnet > 2 * copy_metrics.frechet_distance_efficientnet
    assert noisy.novelty.copy_rate.mean > 0.7


def test_point_clouds_get_the_metrics_of_the_meshes_that_they_were_sampled_from(new_heads, new_metrics, reference):
    clouds = sample_point_clouds(new_heads, points=CONFIG.points, seed=2)
    metrics = evaluate_point_clouds(clouds, reference)
    for name in ("chamfer", "chamfer_standardised", "emd", "jsd", "diversity_mm", "compactness"):
        assert getattr(metrics, name) == getattr(new_metrics, name)
    assert metrics.normal_consistency is None and metrics.novelty is None and not metrics.validity


def test_heads_without_a_surface_count_against_the_set(new_heads, new_metrics, reference):
    failed = [None] * (HEADS // 2 - 1) + [trimesh.Trimesh()]
    half = evaluate_meshes([*new_heads[: HEADS // 2], *failed], reference)
    assert half.heads == HEADS
    assert half.chamfer.one_nna.mean > new_metrics.chamfer.one_nna.mean + 0.1
    assert half.chamfer.coverage.mean < new_metrics.chamfer.coverage.mean
    assert half.one_nna_normal_maps.mean > new_metrics.one_nna_normal_maps.mean + 0.1
    assert half.snc_distance > 10 * new_metrics.snc_distance
    assert np.mean([validity.valid for validity in half.validity]) == 0.5


def test_a_set_without_any_surface_is_recognised_entirely(reference):
    nothing = evaluate_meshes([None] * HEADS, reference)
    assert nothing.chamfer.one_nna.mean == 1 and nothing.chamfer.coverage.mean == 0
    assert nothing.one_nna_normal_maps.mean == 1 and nothing.knn_coverage_normal_maps.mean == 0
    assert nothing.normal_consistency is None and nothing.diversity_mm == 0 and nothing.compactness == 0


def test_the_test_heads_have_metrics_of_their_own(reference, new_metrics):
    metrics = reference.metrics()
    assert metrics.heads == HEADS and metrics.chamfer is None
    assert metrics.diversity_mm == pytest.approx(new_metrics.diversity_mm, rel=0.3)
    assert metrics.novelty.copy_rate.mean == pytest.approx(1 / HEADS)


def test_novelty_needs_training_heads(held_out_heads, new_heads):
    config = EvaluationConfig(points=50, emd_heads=0, standardised=False)
    metrics = evaluate_meshes(new_heads[:3], ReferenceHeads.of(held_out_heads[:3], [], config=config))
    assert metrics.novelty is None and metrics.emd is None and metrics.chamfer_standardised is None


def test_evaluated_meshes_take_no_more_memory_than_before():
    """Tables that a mesh keeps of its triangles would fill the memory with thousands of heads."""
    random = np.random.default_rng(3)
    sets = [[bumpy_ellipsoid(random) for _ in range(4)] for _ in range(3)]
    before = [len(pickle.dumps(meshes)) for meshes in sets]
    test, training, generated = sets
    evaluate_meshes(generated, ReferenceHeads.of(test, training, config=CONFIG))
    after = [len(pickle.dumps(meshes)) for meshes in sets]
    assert np.array(after) == pytest.approx(before, rel=0.01)


@pytest.mark.parametrize("name, value", [("points", 0), ("emd_heads", -1), ("emd_points", 0)])
def test_numbers_of_heads_and_points_are_bounded(name, value):
    with pytest.raises(BadInput, match=f"`{name}={value}`"):
        EvaluationConfig(**{name: value})
