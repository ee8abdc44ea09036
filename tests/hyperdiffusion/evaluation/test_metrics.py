"""Metrics against their definitions by brute force, against independent implementations, and on known sets."""

import numpy as np
import pytest
from support import ellipsoid

from hyperdiffusion.evaluation import metrics
from overfit.runtime.errors import BadInput
from overfit.runtime.machine import RunContext


def random_sets(*counts: int, points: int = 40) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(count, points, 3)) + 5 * random.normal(size=(count, 1, 3)) for count in counts]


def compare(generated: np.ndarray, test: np.ndarray) -> metrics.Comparison:
    return metrics.compare_sets(
        metrics.chamfer_distances(generated, generated),
        metrics.chamfer_distances(generated, test),
        within_test=metrics.chamfer_distances(test, test),
    )


def test_chamfer_distance_follows_its_definition():
    first, second = random_sets(3, 4)
    expected = np.empty((3, 4))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            distances = np.linalg.norm(a[:, None] - b[None], axis=2)
            expected[i, j] = (distances.min(0).mean() + distances.min(1).mean()) / 2
    np.testing.assert_allclose(metrics.chamfer_distances(first, second), expected, rtol=1e-9)


def test_chamfer_distance_is_symmetric_zero_on_itself_and_independent_of_the_order_of_points():
    (clouds,) = random_sets(4)
    distances = metrics.chamfer_distances(clouds, clouds)
    np.testing.assert_allclose(distances, metrics.chamfer_distances(clouds, clouds.copy()))
    np.testing.assert_allclose(distances, distances.T)
    np.testing.assert_allclose(np.diag(distances), 0)
    np.testing.assert_allclose(metrics.chamfer_distances(clouds[:, ::-1], clouds), distances)


def test_chamfer_distance_agrees_with_point_cloud_utils():
    point_cloud_utils = pytest.importorskip("point_cloud_utils")
    first, second = random_sets(3, 2, points=200)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            # Theirs is the sum of the two directions' means.
            theirs = point_cloud_utils.chamfer_distance(a, b) / 2
            assert metrics.chamfer_distances(first, second)[i, j] == pytest.approx(theirs, abs=1e-6)


def test_distances_to_dense_clouds_separate_copies_from_similar_heads():
    sphere, similar = ellipsoid((80, 80, 80), 4), ellipsoid((80, 82, 80), 4)
    sparse = [metrics.sample_point_clouds([mesh], points=100, seed=seed) for seed, mesh in enumerate([sphere] * 2)]
    dense = [metrics.sample_point_clouds([mesh], points=5000, seed=9 + seed) for seed, mesh in enumerate([sphere] * 2)]
    other = metrics.sample_point_clouds([similar], points=100, seed=1)
    other_dense = metrics.sample_point_clouds([similar], points=5000, seed=10)
    copy = metrics.chamfer_distances(sparse[0], sparse[1], dense=(dense[0], dense[1]))
    lookalike = metrics.chamfer_distances(sparse[0], other, dense=(dense[0], other_dense))
    assert copy < lookalike < metrics.chamfer_distances(sparse[0], sparse[1])


def test_earth_mover_distance_agrees_with_pot():
    ot = pytest.importorskip("ot")
    first, second = random_sets(3, 2, points=60)
    mass = np.full(60, 1 / 60)
    expected = [[ot.emd2(mass, mass, ot.dist(a, b, metric="euclidean")) for b in second] for a in first]
    np.testing.assert_allclose(metrics.earth_mover_distances(first, second), expected, atol=1e-6)
    np.testing.assert_allclose(np.diag(metrics.earth_mover_distances(first, first[:, ::-1])), 0, atol=1e-9)


def test_several_threads_find_the_same_distances():
    first, second = random_sets(9, 7)
    threads = RunContext(cores=3)
    for distances in (metrics.chamfer_distances, metrics.earth_mover_distances):
        np.testing.assert_array_equal(distances(first, second, context=threads), distances(first, second))
        np.testing.assert_array_equal(distances(first, first, context=threads), distances(first, first))


def test_the_comparison_agrees_with_brute_force():
    generated, test = random_sets(5, 7)
    distances = metrics.chamfer_distances(generated, test)
    nearest = {min(range(7), key=lambda j: distances[i, j]) for i in range(5)}
    everything = np.concatenate([generated, test])
    recognised = 0
    for i in range(12):
        others = [j for j in range(12) if j != i]
        closest = min(
            others, key=lambda j: metrics.chamfer_distances(everything[i : i + 1], everything[j : j + 1])[0, 0]
        )
        recognised += (closest < 5) == (i < 5)
    comparison = compare(generated, test)
    assert comparison.coverage.mean == pytest.approx(len(nearest) / 7)
    assert comparison.mmd.mean == pytest.approx(np.mean([min(distances[:, j]) for j in range(7)]))
    assert comparison.one_nna.mean == pytest.approx(recognised / 12)


def test_samples_of_one_distribution_are_indistinguishable_and_of_two_are_not():
    generated, test = random_sets(60, 60, points=8)
    same = compare(generated, test)
    assert 0.35 < same.one_nna.mean < 0.65 and same.coverage.mean > 0.4
    assert compare(generated + 100, test).one_nna.mean == 1
    collapsed = compare(np.repeat(generated[:1], 60, axis=0), test)
    assert collapsed.coverage.mean < 0.05


def test_knn_coverage_agrees_with_brute_force():
    generated, test = random_sets(5, 9)
    across, within_test = metrics.chamfer_distances(generated, test), metrics.chamfer_distances(test, test)
    covered = [
        min(across[i, j] for i in range(5)) < sorted(within_test[k, j] for k in range(9) if k != j)[4] for j in range(9)
    ]
    assert metrics.knn_coverage(across, within_test=within_test).mean == pytest.approx(np.mean(covered))
    # Of three test heads, none has a fifth neighbour.
    few = metrics.knn_coverage(across[:, :3], within_test=within_test[:3, :3])
    assert few.mean == np.mean(across[:, :3].min(0) < within_test[:3, :3].max(0))


def test_samples_of_one_distribution_cover_97_percent_and_shifted_ones_nothing():
    generated, test = random_sets(100, 100, points=8)
    within_test = metrics.chamfer_distances(test, test)
    for shift, expected in ((0, 1 - 2**-5), (100, 0)):
        coverage = metrics.knn_coverage(metrics.chamfer_distances(generated + shift, test), within_test=within_test)
        assert coverage.mean == pytest.approx(expected, abs=0.04)


def test_a_head_without_a_surface_covers_nothing_and_is_recognised():
    generated, test = random_sets(4, 6)
    generated[1:] = np.nan
    comparison = compare(generated, test)
    assert comparison.coverage.mean == pytest.approx(1 / 6)
    assert comparison.one_nna.mean >= 3 / 10
    assert np.isfinite(comparison.mmd.mean)
    training = test[:2]
    to_training, from_test = (metrics.chamfer_distances(clouds, training) for clouds in (generated, test))
    assert metrics.copy_rate(to_training, from_test).mean <= 1 / 4


def test_copies_raise_the_copy_rate_and_new_heads_do_not():
    training, test, new = random_sets(50, 200, 50, points=8)
    from_test = metrics.chamfer_distances(test, training)
    assert metrics.copy_rate(metrics.chamfer_distances(training + 0.01, training), from_test).mean == 1
    assert metrics.copy_rate(metrics.chamfer_distances(new, training), from_test).mean < 0.1


def test_one_percent_of_the_test_heads_lie_below_the_copy_threshold():
    distances = np.random.default_rng(0).uniform(size=(1000, 3))
    assert (distances.min(1) < metrics.copy_threshold(distances)).mean() == pytest.approx(0.01, abs=0.001)


def test_copies_are_not_authentic_and_half_of_new_heads_are():
    training, new = random_sets(50, 50, points=8)
    within = metrics.chamfer_distances(training, training)
    copies = metrics.chamfer_distances(training + 0.01, training)
    assert metrics.authenticity(copies, within).mean == 0
    assert 0.2 < metrics.authenticity(metrics.chamfer_distances(new, training), within).mean < 0.8


def test_diversity_of_a_known_set():
    clouds = np.zeros((3, 5, 3)) + np.array([0.0, 1.0, 3.0])[:, None, None] * [1, 0, 0]
    within = metrics.chamfer_distances(clouds, clouds)
    assert metrics.diversity(within) == pytest.approx((1 + 3 + 2) / 3)
    within[0, 1:] = within[1:, 0] = np.inf
    assert metrics.diversity(within) == pytest.approx(2)


def test_point_clouds_lie_on_their_meshes_and_depend_on_the_seed_alone():
    meshes = [ellipsoid((50,) * 3, 4), ellipsoid((80,) * 3, 4), None]
    clouds = metrics.sample_point_clouds(meshes)
    assert clouds.shape == (3, 2048, 3)
    np.testing.assert_allclose(np.linalg.norm(clouds[:2], axis=2), [[50], [80]] * np.ones(2048), rtol=0.01)
    assert np.isnan(clouds[2]).all()
    assert np.array_equal(clouds, metrics.sample_point_clouds(meshes), equal_nan=True)
    assert not np.array_equal(clouds[:2], metrics.sample_point_clouds(meshes, seed=1)[:2])
    with pytest.raises(BadInput, match="`seed=-1`"):
        metrics.sample_point_clouds(meshes, seed=-1)


def test_standardised_clouds_do_not_depend_on_position_and_size():
    (clouds,) = random_sets(3)
    np.testing.assert_allclose(metrics.standardise(7 * clouds + 3), metrics.standardise(clouds))
    assert metrics.standardise(clouds).std((1, 2)) == pytest.approx(np.ones(3))


def test_the_divergence_of_equal_sets_is_0_and_of_disjoint_sets_1():
    (clouds,) = random_sets(6, points=500)
    assert metrics.jensen_shannon_divergence(clouds, clouds) == pytest.approx(0)
    assert metrics.jensen_shannon_divergence(clouds, clouds + 1000) == pytest.approx(1)


def test_the_compactness_is_the_number_of_directions_in_which_a_set_varies():
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.normal(size=(50, 3)))[0]
    assert metrics.compactness(random.normal(size=(40, 3)) @ directions.T) == 3


def test_the_confidence_interval_of_a_mean_has_its_known_width():
    values = np.random.default_rng(0).normal(size=400)
    estimate = metrics.Estimate.of(values)
    assert estimate.low < estimate.mean < estimate.high
    # The mean of 400 values of standard deviation 1 has a standard deviation of 1/20.
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
