"""Metrics against their definitions by brute force, and on sets whose answer is known."""

import numpy as np
import ot
import point_cloud_utils
import pytest
from conftest import ellipsoid

from hyperdiffusion import metrics


def sets(*counts: int, points: int = 40) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(count, points, 3)) + 5 * random.normal(size=(count, 1, 3)) for count in counts]


def test_chamfer_is_its_definition():
    first, second = sets(3, 4)
    expected = np.empty((3, 4))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            gaps = np.linalg.norm(a[:, None] - b[None], axis=2)
            expected[i, j] = (gaps.min(0).mean() + gaps.min(1).mean()) / 2
    np.testing.assert_allclose(metrics.chamfer(first, second), expected, rtol=1e-9)


def test_chamfer_is_symmetric_zero_on_itself_and_blind_to_the_order_of_points():
    clouds, = sets(4)
    gaps = metrics.chamfer(clouds, clouds)
    np.testing.assert_allclose(gaps, metrics.chamfer(clouds, clouds.copy()))
    np.testing.assert_allclose(gaps, gaps.T)
    np.testing.assert_allclose(np.diag(gaps), 0)
    np.testing.assert_allclose(metrics.chamfer(clouds[:, ::-1], clouds), gaps)


def comparison(made: np.ndarray, real: np.ndarray) -> metrics.Comparison:
    return metrics.compare(metrics.chamfer(made, made), metrics.chamfer(made, real), metrics.chamfer(real, real))


def test_comparison_by_brute_force():
    made, real = sets(5, 7)
    gaps = metrics.chamfer(made, real)
    nearest = {min(range(7), key=lambda j: gaps[i, j]) for i in range(5)}
    everything = np.concatenate([made, real])
    right = 0
    for i in range(12):
        others = [j for j in range(12) if j != i]
        closest = min(others, key=lambda j: metrics.chamfer(everything[i:i + 1], everything[j:j + 1])[0, 0])
        right += (closest < 5) == (i < 5)
    got = comparison(made, real)
    assert got.coverage.mean == pytest.approx(len(nearest) / 7)
    assert got.mmd_mm.mean == pytest.approx(np.mean([min(gaps[:, j]) for j in range(7)]))
    assert got.one_nna.mean == pytest.approx(right / 12)


def test_two_draws_of_one_distribution_cannot_be_told_apart_and_others_can():
    made, real = sets(60, 60, points=8)
    same = comparison(made, real)
    assert 0.35 < same.one_nna.mean < 0.65 and same.coverage.mean > 0.4
    assert comparison(made + 100, real).one_nna.mean == 1
    collapsed = comparison(np.repeat(made[:1], 60, axis=0), real)
    assert collapsed.coverage.mean < 0.05


def test_copies_are_told_from_new_heads():
    training, real, new = sets(50, 200, 50, points=8)
    to_training = metrics.chamfer(real, training)
    assert metrics.copies(metrics.chamfer(training + 0.01, training), to_training).mean == 1
    assert metrics.copies(metrics.chamfer(new, training), to_training).mean < 0.1


def test_spread_of_a_known_set():
    clouds = np.zeros((3, 5, 3)) + np.array([0.0, 1.0, 3.0])[:, None, None] * [1, 0, 0]
    assert metrics.spread(metrics.chamfer(clouds, clouds)) == pytest.approx((1 + 3 + 2) / 3)


def test_clouds_lie_on_their_meshes_and_depend_on_the_seed_alone():
    meshes = [ellipsoid((50,) * 3, 4), ellipsoid((80,) * 3, 4)]
    clouds = metrics.clouds(meshes)
    assert clouds.shape == (2, 2048, 3)
    np.testing.assert_allclose(np.linalg.norm(clouds, axis=2), [[50], [80]] * np.ones(2048), rtol=0.01)
    assert np.array_equal(clouds, metrics.clouds(meshes))
    assert not np.array_equal(clouds, metrics.clouds(meshes, seed=1))


def test_chamfer_is_that_of_point_cloud_utils():
    first, second = sets(3, 2, points=200)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            # Theirs is the sum of the two ways' means.
            theirs = point_cloud_utils.chamfer_distance(a, b) / 2
            assert metrics.chamfer(first, second)[i, j] == pytest.approx(theirs, abs=1e-6)


def test_earth_movers_distance_is_that_of_pot():
    first, second = sets(3, 2, points=60)
    mass = np.full(60, 1 / 60)
    expected = [[ot.emd2(mass, mass, ot.dist(a, b, metric="euclidean")) for b in second] for a in first]
    np.testing.assert_allclose(metrics.earth_movers(first, second), expected, atol=1e-6)
    np.testing.assert_allclose(np.diag(metrics.earth_movers(first, first[:, ::-1])), 0, atol=1e-9)


def test_more_cores_find_the_same_distances():
    first, second = sets(9, 7)
    np.testing.assert_array_equal(metrics.chamfer(first, second, cores=3), metrics.chamfer(first, second))
    np.testing.assert_array_equal(metrics.chamfer(first, first, cores=3), metrics.chamfer(first, first))


def test_a_head_without_a_surface_is_far_from_all_and_covers_nothing():
    made, real = sets(4, 6)
    made[1:] = np.nan
    got = comparison(made, real)
    assert got.coverage.mean == pytest.approx(1 / 6)
    assert got.one_nna.mean >= 3 / 10
    assert np.isfinite(got.mmd_mm.mean)
    assert metrics.copies(metrics.chamfer(made, real), metrics.chamfer(real, real[:2])).mean <= 1 / 4


def test_standardised_clouds_forget_place_and_size_only():
    clouds, = sets(3)
    np.testing.assert_allclose(metrics.standardised(7 * clouds + 3), metrics.standardised(clouds))
    assert metrics.standardised(clouds).std((1, 2)) == pytest.approx(np.ones(3))


def test_divergence_of_equal_and_of_disjoint_sets():
    clouds, = sets(6, points=500)
    assert metrics.divergence(clouds, clouds) == pytest.approx(0)
    assert metrics.divergence(clouds, clouds + 1000) == pytest.approx(1)


def test_components_of_a_set_that_varies_in_three_ways():
    random = np.random.default_rng(0)
    ways = np.linalg.qr(random.normal(size=(50, 3)))[0]
    assert metrics.components(random.normal(size=(40, 3)) @ ways.T) == 3


def test_authentic_heads_are_no_neighbours_of_a_single_one():
    training, new = sets(50, 50, points=8)
    within = metrics.chamfer(training, training)
    assert metrics.authentic(metrics.chamfer(training + 0.01, training), within).mean == 0
    assert 0.2 < metrics.authentic(metrics.chamfer(new, training), within).mean < 0.8


def test_a_figure_holds_its_mean_between_its_bounds():
    values = np.random.default_rng(0).normal(size=400)
    figure = metrics.Figure.of(values)
    assert figure.low < figure.mean < figure.high
    # Of a mean of 400 values of deviation 1.
    assert figure.high - figure.low == pytest.approx(2 * 1.96 / 20, rel=0.15)
