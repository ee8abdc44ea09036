"""Distances by features of heads: the features of two sets in; distances of their heads and of their distributions out.

Features are standardised by those of the second set, the test heads, wherever their units would matter.
"""

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

# Principal axes in which the Fréchet distance compares: a few hundred heads do not determine more.
FRECHET_AXES = 32
# The least standard deviation that features are divided by: cells that no head reaches hardly vary.
MIN_STD = 0.1
# Random halvings of both sets from which a Fréchet distance is extrapolated: more no longer change it.
HALVINGS = 5


def standardised_distances(
    first: Float[np.ndarray, "n features"],
    second: Float[np.ndarray, "m features"],
    *,
    test: Float[np.ndarray, "test features"],
) -> Float[np.ndarray, "n m"]:
    """Return the distances of the heads of two sets: root mean square of the differences of their features.

    Each difference is divided by the feature's standard deviation over the test heads, at least `MIN_STD`. Every
    feature then counts alike, whether it varies much with identity or little: noise on skin that is smooth in all test
    heads is as far as another shape of the nose.
    """
    std = _std(test)
    return cdist(first / std, second / std) / np.sqrt(first.shape[1])


def frechet_distance(first: Float[np.ndarray, "n features"], second: Float[np.ndarray, "m features"]) -> float:
    """Return the Fréchet distance (Heusel et al. 2017) of two sets of features, in the principal axes of the second.

    |mu1 - mu2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))
    """
    mean = second.mean(0)
    axes = np.linalg.svd(second - mean, full_matrices=False)[2][:FRECHET_AXES]
    first, second = (first - mean) @ axes.T, (second - mean) @ axes.T
    offset = first.mean(0) - second.mean(0)
    covariances = [np.cov(one.T) for one in (first, second)]
    eigenvalues, eigenvectors = np.linalg.eigh(covariances[0])
    root = eigenvectors * np.sqrt(eigenvalues.clip(0)) @ eigenvectors.T
    # C1^(1/2) C2 C1^(1/2) is symmetric and has the eigenvalues of C1 C2.
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    return float(offset @ offset + np.trace(covariances[0] + covariances[1]) - 2 * cross)


def extrapolated_frechet_distance(
    first: Float[np.ndarray, "n features"], second: Float[np.ndarray, "m features"]
) -> float:
    """Return the Fréchet distance extrapolated to infinitely many heads: 2 F - (mean F of halves of both sets).

    A Fréchet distance of N heads is too large by nearly c / N, which for a few hundred heads exceeds the effect of a
    visible defect. Halves have twice the excess, so that it cancels (FID infinity, Chong and Forsyth 2020, from two
    sizes). Distances of real heads scatter about 0 and may be negative. Both sets need four heads or more; with fewer
    than twice `FRECHET_AXES`, some of the excess remains.
    """
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(HALVINGS):
        splits = [np.array_split(rng.permutation(one), 2) for one in (first, second)]
        halves += [frechet_distance(*parts) for parts in zip(*splits)]
    return 2 * frechet_distance(first, second) - float(np.mean(halves))


def kernel_distance(first: Float[np.ndarray, "n features"], second: Float[np.ndarray, "m features"]) -> float:
    """Return the kernel distance (Bińkowski et al. 2018) x 1000: the unbiased squared MMD with a cubic kernel.

    Features are standardised by the second set.
    """
    mean, std = second.mean(0), _std(second)
    first, second = (first - mean) / std, (second - mean) / std
    size = first.shape[1]
    within = []
    for one in (first, second):
        gram = (one @ one.T / size + 1) ** 3
        within.append((gram.sum() - np.trace(gram)) / (len(one) * (len(one) - 1)))
    return 1000 * float(sum(within) - 2 * ((first @ second.T / size + 1) ** 3).mean())


def _std(features: np.ndarray) -> np.ndarray:
    """Return the standard deviations of features (heads, features), none below `MIN_STD`."""
    return features.std(0).clip(MIN_STD)
