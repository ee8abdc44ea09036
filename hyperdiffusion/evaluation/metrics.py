"""Metrics of sets of heads: point clouds in millimetres and distances between them in, fidelity and novelty out.

All heads are compared in one frame and at true size; only `standardise` centres and scales each cloud by itself. A head
without a surface has a cloud of NaN: its distance to every other head is infinite, it covers no head and counts as
recognised by 1-NNA.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, jensenshannon

from overfit.geometry.mesh import sample_points
from overfit.runtime.errors import require_at_least
from overfit.runtime.machine import RunContext

# The usual size of a point cloud (PointFlow, Yang et al. 2019).
POINTS_PER_HEAD = 2048
# Cells along a side of the occupancy grid for the Jensen-Shannon divergence (Achlioptas et al. 2018).
JSD_GRID_CELLS = 28
# Resamplings of a bootstrap: the bounds of an interval then vary by about a tenth of its width.
BOOTSTRAP_RESAMPLES = 1000
# Confidence intervals leave out this share, half of it on either side.
SIGNIFICANCE = 0.05
# A sample is a copy if it lies closer to its nearest training head than this share of the test heads do.
COPY_QUANTILE = 0.01
# The neighbourhood of a test head reaches to its neighbour of this rank (Naeem et al. 2020).
COVERAGE_NEIGHBOURS = 5


@dataclass(frozen=True)
class Estimate:
    """A mean over heads with its 95 % confidence interval, by bootstrap over the heads."""

    mean: float
    """The mean."""
    low: float
    """Lower bound of the interval."""
    high: float
    """Upper bound of the interval."""

    @classmethod
    def of(cls, values: Float[np.ndarray, " heads"]) -> "Estimate":
        """Return the estimate of one value per head.

        Distances between heads are computed before the bootstrap, so that no head becomes its own neighbour.
        """
        chosen = np.random.default_rng(0).integers(len(values), size=(BOOTSTRAP_RESAMPLES, len(values)))
        # Means of infinite distances are infinite, and quantiles between them are NaN.
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(values[chosen].mean(1), [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
        return cls(float(values.mean()), float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """A set of heads compared with the test heads by one distance."""

    mmd: Estimate
    """Minimum matching distance: mean distance of a test head to its nearest head of the set."""
    coverage: Estimate
    """Share of the test heads that are the nearest one of some head of the set."""
    one_nna: Estimate
    """Accuracy of a nearest-neighbour classifier between the set and the test heads; 0.5 is indistinguishable."""


def sample_point_clouds(
    meshes: Sequence[trimesh.Trimesh | None], *, points: int = POINTS_PER_HEAD, seed: int = 0
) -> Float[np.ndarray, "heads points 3"]:
    """Return points that are uniform by area on each mesh, and NaN for a head without a surface."""
    require_at_least(0, seed=seed)
    return np.stack([_point_cloud(mesh, points, [seed, index]) for index, mesh in enumerate(meshes)])


def _point_cloud(mesh: trimesh.Trimesh | None, points: int, seed: list[int]) -> np.ndarray:
    if mesh is None or not len(mesh.faces):
        return np.full((points, 3), np.nan)
    # A mesh keeps tables of its triangles and normals, 4 MB a head; those of a copy are freed with it.
    return sample_points(mesh.copy(include_visual=False), points, rng=np.random.default_rng(seed))


def standardise(clouds: Float[np.ndarray, "heads points 3"]) -> Float[np.ndarray, "heads points 3"]:
    """Return clouds that are each centred at their mean and divided by their standard deviation (PointFlow)."""
    centred = clouds - clouds.mean(1, keepdims=True)
    return centred / centred.std((1, 2), keepdims=True)


def chamfer_distances(
    first: Float[np.ndarray, "n p 3"],
    second: Float[np.ndarray, "m q 3"],
    *,
    context: RunContext = RunContext(),
    dense: tuple[Float[np.ndarray, "n dense 3"], Float[np.ndarray, "m dense 3"]] | None = None,
    description: str = "Chamfer distances",
) -> Float[np.ndarray, "n m"]:
    """Return the Chamfer distances of two sets: mean distance to the other cloud, averaged over both directions.

    Two clouds of 2,048 points on the same head are 3 mm apart. With `dense` clouds of the same heads, distances are
    measured to these, so that a copy is much closer than a merely similar head.

    Args:
        first: Point clouds of a set.
        second: Point clouds of another set, or the same array: then only half of the distances are computed.
        context: Threads and the progress bar.
        dense: Larger clouds of the heads of `first` and of `second`.
        description: Label of the progress bar.
    """
    trees = [[cKDTree(np.nan_to_num(cloud)) for cloud in clouds] for clouds in dense or (first, second)]

    def distance(i: int, j: int) -> float:
        return (trees[1][j].query(first[i])[0].mean() + trees[0][i].query(second[j])[0].mean()) / 2

    return _pairwise(distance, first, second, context=context, description=description)


def earth_mover_distances(
    first: Float[np.ndarray, "n points 3"],
    second: Float[np.ndarray, "m points 3"],
    *,
    context: RunContext = RunContext(),
    description: str = "EMD",
) -> Float[np.ndarray, "n m"]:
    """Return the exact earth mover's distances of two sets: mean distance of points under the best assignment.

    The time grows with the cube of the points; a pair of clouds of 2,048 points takes half a second.
    """

    def distance(i: int, j: int) -> float:
        costs = cdist(first[i], second[j])
        return float(costs[linear_sum_assignment(costs)].mean())

    return _pairwise(distance, first, second, context=context, description=description)


def _pairwise(
    distance: Callable[[int, int], float],
    first: np.ndarray,
    second: np.ndarray,
    *,
    context: RunContext,
    description: str,
) -> np.ndarray:
    """Return a symmetric distance (n, m), infinite where a cloud is NaN. A set against itself needs half of it."""
    same = second is first
    empty_first, empty_second = (np.isnan(clouds).any((1, 2)) for clouds in (first, second))
    pairs = len(first) * (len(first) - 1) // 2 if same else len(first) * len(second)
    with context.progress(pairs, description, "pair", leave=False) as bar:

        def row(i: int) -> np.ndarray:
            values = np.zeros(len(second))
            start = i + 1 if same else 0
            for j in range(start, len(second)):
                values[j] = np.inf if empty_first[i] or empty_second[j] else distance(i, j)
            bar.update(len(second) - start)
            return values

        # k-d trees and assignments are computed without the interpreter's lock.
        with ThreadPoolExecutor(context.cores) as pool:
            rows = np.array(list(pool.map(row, range(len(first))))).reshape(len(first), len(second))
    return rows + rows.T if same else rows


def compare_sets(
    within: Float[np.ndarray, "n n"], across: Float[np.ndarray, "n m"], *, within_test: Float[np.ndarray, "m m"]
) -> Comparison:
    """Compare a set with the test heads by the distances within it, across to the test heads, and within these.

    MMD and coverage after Achlioptas et al. 2018, 1-NNA after Lopez-Paz and Oquab 2017, as in PointFlow.
    """
    has_surface = np.isfinite(across).any(1)
    covered = np.zeros(across.shape[1])
    covered[across[has_surface].argmin(1)] = 1
    return Comparison(
        mmd=Estimate.of(across.min(0)),
        coverage=Estimate.of(covered),
        one_nna=nearest_neighbour_accuracy(within, across, within_test=within_test),
    )


def nearest_neighbour_accuracy(
    within: Float[np.ndarray, "n n"], across: Float[np.ndarray, "n m"], *, within_test: Float[np.ndarray, "m m"]
) -> Estimate:
    """Return 1-NNA: the share of heads of both sets whose nearest other head belongs to their own set.

    The distances are those within a set, across to the test heads, and within these (Lopez-Paz and Oquab 2017).
    """
    all_pairs = np.block([[within, across], [across.T, within_test]])
    np.fill_diagonal(all_pairs, np.inf)
    in_set = np.arange(len(all_pairs)) < len(within)
    recognised = in_set[all_pairs.argmin(1)] == in_set
    recognised[: len(within)] |= ~np.isfinite(across).any(1)
    return Estimate.of(recognised.astype(float))


def knn_coverage(across: Float[np.ndarray, "n m"], *, within_test: Float[np.ndarray, "m m"]) -> Estimate:
    """Return the share of test heads that have a head of the set nearer than their fifth nearest test head.

    Coverage after Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models (2020): a set of as many
    real heads covers 97 % of the test heads. A defect of all samples lowers it, because they leave the neighbourhoods
    of real heads. Coverage as in `compare_sets` stays, because each sample still has a nearest test head.
    """
    # A head is its own neighbour of rank 0.
    rank = min(COVERAGE_NEIGHBOURS, len(within_test) - 1)
    return Estimate.of((across.min(0) < np.sort(within_test, axis=1)[:, rank]).astype(float))


def diversity(within: Float[np.ndarray, "n n"]) -> float:
    """Return the mean pairwise distance of a set, without heads that have no surface."""
    pairs = within[~np.eye(len(within), dtype=bool)]
    return float(pairs[np.isfinite(pairs)].mean()) if np.isfinite(pairs).any() else 0.0


def copy_threshold(test_to_training: Float[np.ndarray, "test training"]) -> float:
    """Return the distance to the nearest training head that 1 % of the test heads stay below."""
    return float(np.quantile(test_to_training.min(1), COPY_QUANTILE))


def copy_rate(
    to_training: Float[np.ndarray, "n training"], test_to_training: Float[np.ndarray, "test training"]
) -> Estimate:
    """Return the share of heads closer to their nearest training head than the closest 1 % of test heads are."""
    return Estimate.of((to_training.min(1) < copy_threshold(test_to_training)).astype(float))


def authenticity(
    to_training: Float[np.ndarray, "n training"], within_training: Float[np.ndarray, "training training"]
) -> Estimate:
    """Return the share of heads farther from their nearest training head than that head is from its own nearest one.

    After Alaa et al., How Faithful is your Synthetic Data? (2022). About half of real heads are authentic.
    """
    others = within_training.copy()
    np.fill_diagonal(others, np.inf)
    nearest = to_training.argmin(1)
    return Estimate.of((to_training.min(1) > others.min(1)[nearest]).astype(float))


def jensen_shannon_divergence(first: Float[np.ndarray, "n points 3"], second: Float[np.ndarray, "m points 3"]) -> float:
    """Return the Jensen-Shannon divergence (bits, 0 to 1) of where the points of two sets lie in a common grid.

    After Achlioptas et al. 2018, but in one frame at true size instead of in a unit ball.
    """
    points = [clouds[~np.isnan(clouds).any((1, 2))].reshape(-1, 3) for clouds in (first, second)]
    if not all(map(len, points)):
        return 1.0
    both = np.concatenate(points)
    low, side = both.min(0), float(np.ptp(both, axis=0).max()) + 1e-9
    counts = [np.histogramdd((one - low) / side, JSD_GRID_CELLS, [(0, 1)] * 3)[0].ravel() for one in points]
    return float(jensenshannon(*counts, base=2) ** 2)


def compactness(features: Float[np.ndarray, "heads features"], *, variance_ratio: float = 0.9) -> int:
    """Return the number of principal components that explain a share of the variance of a set's features.

    Compactness after Davies et al. 2002. Scans have no correspondences, so that the features of a head are its
    distances from fixed points instead of vertex coordinates.
    """
    energy = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    return int(np.searchsorted(energy.cumsum() / max(energy.sum(), 1e-12), variance_ratio) + 1)
