"""Distances by features against their definitions, scipy and known distributions."""

import numpy as np
import pytest

from hyperdiffusion.evaluation.feature_distances import (
    extrapolated_frechet_distance,
    frechet_distance,
    kernel_distance,
    standardised_distances,
)


def test_standardised_distances_follow_their_definition():
    random = np.random.default_rng(0)
    first, second, test = (random.normal(size=(count, 4)) for count in (2, 3, 5))
    expected = [[np.sqrt(np.mean(((a - b) / test.std(0)) ** 2)) for b in second] for a in first]
    np.testing.assert_allclose(standardised_distances(first, second, test=test), expected)


def test_no_feature_dominates_standardised_distances():
    random = np.random.default_rng(0)
    first, test = random.normal(size=(4, 3)), random.normal(size=(40, 3))
    scale = [1.0, 1e3, 5.0]
    expected = standardised_distances(first, test, test=test)
    np.testing.assert_allclose(standardised_distances(first * scale, test * scale, test=test * scale), expected)
    # A feature that is constant in the test heads has the weight of one that hardly varies.
    constant = np.zeros((40, 1))
    far = standardised_distances(np.zeros((1, 1)) + 0.2, constant, test=constant)
    np.testing.assert_allclose(far, 2)


def test_the_frechet_distance_agrees_with_scipy_and_is_zero_on_itself():
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.default_rng(0)
    first, second = random.normal(size=(50, 6)) @ random.normal(size=(6, 6)) + 1, random.normal(size=(60, 6))
    covariances = np.cov(first.T), np.cov(second.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    offset = first.mean(0) - second.mean(0)
    expected = offset @ offset + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected)
    assert frechet_distance(second, second) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("heads", [64, 128])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_the_extrapolated_frechet_distance_does_not_depend_on_the_number_of_heads(heads, offset):
    random = np.random.default_rng(0)
    std = 1 / (1 + np.arange(24))
    plain, extrapolated = [], []
    for _ in range(20):
        first, second = std * random.normal(size=(2, heads, 24))
        plain.append(frechet_distance(first + offset * std, second))
        extrapolated.append(extrapolated_frechet_distance(first + offset * std, second))
    true = offset**2 * (std**2).sum()
    excess = np.mean(plain) - true
    assert excess > 1 / heads and abs(np.mean(extrapolated) - true) < 0.4 * excess


def test_the_kernel_distance_follows_its_definition():
    random = np.random.default_rng(0)
    first, second = random.normal(size=(5, 4)) + 1, random.normal(size=(6, 4))
    mean, std = second.mean(0), second.std(0)
    a, b = (first - mean) / std, (second - mean) / std

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / 4 + 1) ** 3

    within_a = np.mean([kernel(a[i], a[j]) for i in range(5) for j in range(5) if i != j])
    within_b = np.mean([kernel(b[i], b[j]) for i in range(6) for j in range(6) if i != j])
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(first, second) == pytest.approx(1000 * (within_a + within_b - 2 * across))
