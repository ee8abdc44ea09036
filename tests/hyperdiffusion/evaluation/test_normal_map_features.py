"""Features of normal maps order corruptions as people would."""

import numpy as np
import pytest
import trimesh
from support import bumpy_ellipsoid, ellipsoid, jitter

from hyperdiffusion.evaluation.normal_map_features import frechet_distance, kernel_distance, normal_map_features

HEADS = 30


@pytest.fixture(scope="module")
def features() -> dict[str, np.ndarray]:
    """Features of real heads, of other real heads and of corruptions of these."""
    random = np.random.default_rng(0)
    base, heads = ([bumpy_ellipsoid(random) for _ in range(HEADS)] for _ in range(2))
    sets = {
        "base": base,
        "other": heads,
        "noise": [jitter(mesh, 0.3, random) for mesh in heads],
        "more noise": [jitter(mesh, 1.0, random) for mesh in heads],
        "smooth": [trimesh.smoothing.filter_laplacian(mesh.copy(), iterations=20) for mesh in heads],
        "eyeless": [ellipsoid(np.ptp(mesh.vertices, axis=0) / 2, 4) for mesh in heads],
    }
    return {name: normal_map_features(meshes) for name, meshes in sets.items()}


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_other_real_heads_are_closer_than_corrupted_ones(features, distance):
    values = {name: distance(of_set, features["base"]) for name, of_set in features.items()}
    assert values["other"] < min(values["noise"], values["smooth"], values["eyeless"])
    assert values["noise"] < values["more noise"]


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


def test_a_head_without_a_surface_has_the_features_of_an_empty_image():
    empty, far = normal_map_features([None, ellipsoid((10, 10, 10)).apply_translation((5000, 0, 0))])
    np.testing.assert_array_equal(empty, far)
