"""Features of normal maps order corruptions as people would."""

import numpy as np
import pytest
import trimesh
from support import bumpy_ellipsoid, ellipsoid, jitter

from hyperdiffusion.evaluation.feature_distances import frechet_distance, kernel_distance
from hyperdiffusion.evaluation.normal_map_features import normal_map_features

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


def test_a_head_without_a_surface_has_the_features_of_an_empty_image():
    empty, far = normal_map_features([None, ellipsoid((10, 10, 10)).apply_translation((5000, 0, 0))])
    np.testing.assert_array_equal(empty, far)
