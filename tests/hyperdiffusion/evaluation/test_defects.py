"""The metrics that see more than the Chamfer distance order defects of heads by their strength."""

from collections.abc import Callable

import numpy as np
import pytest
import trimesh
from support import ellipsoid, jitter

from hyperdiffusion.evaluation.efficientnet_features import efficientnet_features, efficientnet_is_installed
from hyperdiffusion.evaluation.feature_distances import extrapolated_frechet_distance, standardised_distances
from hyperdiffusion.evaluation.metrics import knn_coverage, nearest_neighbour_accuracy
from hyperdiffusion.evaluation.normal_concordance import normal_concordance, snc_distance
from hyperdiffusion.evaluation.normal_map_features import normal_map_features

HEADS = 12
# The network takes a fifth of a second a head.
NETWORK_HEADS = 8
TEST_SEED = 1000
DEFECTS = ("noise", "smoothing", "lumps", "missing eyes")


def head(seed: int, *, eyes: float = 1.0, lumps_mm: float = 0.0) -> trimesh.Trimesh:
    """A head of random size, wrinkles, nose and eyes, in millimetres, with lumps on its cheeks."""
    random = np.random.default_rng(seed)
    mesh = ellipsoid(random.normal((75, 110, 90), (2, 3, 2)), 4)
    waves = random.normal(size=(8, 3))
    waves *= 2 * np.pi / random.uniform(20, 40, (8, 1)) / np.linalg.norm(waves, axis=1, keepdims=True)
    wrinkles = np.sin(mesh.vertices @ waves.T + random.uniform(0, 2 * np.pi, 8)).sum(1)
    bumps = [(0.0, 0.0, random.normal(14, 1), 9.0)]
    for side in (-1, 1):
        bumps.append((side * random.normal(30, 1), random.normal(30, 1), eyes * random.normal(7, 0.5), 9.0))
        bumps.append((side * random.uniform(30, 45), random.uniform(-40, -15), lumps_mm, 8.0))
    front = mesh.vertices[:, 2] > 0
    mesh.vertices += 0.15 * wrinkles[:, None] * mesh.vertex_normals
    for x, y, size, width in bumps:
        distance = np.linalg.norm(mesh.vertices[:, :2] - (x, y), axis=1)
        mesh.vertices[:, 2] += size * np.exp(-((distance / width) ** 2)) * front
    return mesh


def noisy(seed: int, noise_mm: float) -> trimesh.Trimesh:
    return jitter(head(seed), noise_mm, np.random.default_rng(seed))


def smooth(seed: int, iterations: int) -> trimesh.Trimesh:
    return trimesh.smoothing.filter_taubin(head(seed), iterations=iterations)


MAKERS: dict[str, Callable[[int], trimesh.Trimesh]] = {
    "clean": head,
    "weak noise": lambda seed: noisy(seed, 0.3),
    "strong noise": lambda seed: noisy(seed, 0.8),
    "weak smoothing": lambda seed: smooth(seed, 20),
    "strong smoothing": lambda seed: smooth(seed, 80),
    "weak lumps": lambda seed: head(seed, lumps_mm=4.0),
    "strong lumps": lambda seed: head(seed, lumps_mm=8.0),
    "weak missing eyes": lambda seed: head(seed, eyes=0.3),
    "strong missing eyes": lambda seed: head(seed, eyes=0.0),
}


def features_of(features: Callable, count: int) -> dict:
    """Features of the test heads, of clean heads of other identities, and of the latter with defects."""
    test = features([head(TEST_SEED + index) for index in range(count)])
    return {"test": test} | {name: features([make(index) for index in range(count)]) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def distances() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Distances by normal maps within each set and to the test heads."""
    features = features_of(normal_map_features, HEADS)
    test = features["test"]
    return {
        name: (standardised_distances(own, own, test=test), standardised_distances(own, test, test=test))
        for name, own in features.items()
    }


@pytest.fixture(scope="module")
def concordances() -> dict[str, list[np.ndarray]]:
    return features_of(normal_concordance, HEADS)


@pytest.fixture(scope="module")
def network_features() -> dict[str, np.ndarray]:
    if not efficientnet_is_installed():
        pytest.skip("needs the extra `evaluation`")
    return features_of(efficientnet_features, NETWORK_HEADS)


@pytest.mark.parametrize("defect", DEFECTS)
def test_1_nna_by_normal_maps(distances, defect):
    within_test = distances["test"][0]

    def error(name: str) -> float:
        return abs(nearest_neighbour_accuracy(*distances[name], within_test=within_test).mean - 0.5)

    assert error("clean") < error(f"weak {defect}") <= error(f"strong {defect}")


@pytest.mark.parametrize("defect", DEFECTS)
def test_knn_coverage_by_normal_maps(distances, defect):
    within_test = distances["test"][0]

    def coverage(name: str) -> float:
        return knn_coverage(distances[name][1], within_test=within_test).mean

    assert coverage("clean") > coverage(f"weak {defect}") >= coverage(f"strong {defect}")


@pytest.mark.parametrize("defect", DEFECTS)
def test_snc_distance(concordances, defect):
    clean, weak, strong = (
        snc_distance(concordances[name], concordances["test"])
        for name in ("clean", f"weak {defect}", f"strong {defect}")
    )
    assert clean < weak < strong


@pytest.mark.parametrize("defect", DEFECTS)
def test_frechet_distance_by_a_pretrained_network(network_features, defect):
    clean, weak, strong = (
        extrapolated_frechet_distance(network_features[name], network_features["test"])
        for name in ("clean", f"weak {defect}", f"strong {defect}")
    )
    assert clean < weak < strong
