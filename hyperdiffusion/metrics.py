"""Sets of heads compared: point clouds in millimetres in; fidelity, diversity and novelty out.

All sets are compared in one frame and at true size; no cloud is centred or scaled by itself, but by `standardised`. A
head without a surface has a cloud of NaN: it is infinitely far from all others, covers nothing and is told at once.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, jensenshannon

from overfit.occupancy import surface_points

# The customary size of a cloud (PointFlow, Yang et al. 2019).
POINTS = 2048
# Cells along a side of the grid for the divergence of occupancy (Achlioptas et al. 2018).
CELLS = 28
# Resamplings of a confidence interval, and what it leaves out on both sides.
RESAMPLED, OUTSIDE = 1000, 0.05
# Of the held-out heads, so many lie nearer to a head learned from than a copy does.
COPY = 0.01


@dataclass(frozen=True)
class Figure:
    """A mean over heads and its confidence interval of 95 %, by bootstrap over the heads."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, heads: np.ndarray) -> "Figure":
        """Of a value a head (n,). The distances that it comes from stay as they are: no head is its own neighbour."""
        drawn = np.random.default_rng(0).integers(len(heads), size=(RESAMPLED, len(heads)))
        with np.errstate(invalid="ignore"):
            low, high = np.quantile(heads[drawn].mean(1), [OUTSIDE / 2, 1 - OUTSIDE / 2])
        return cls(float(heads.mean()), float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """A set of heads against real held-out heads, by one distance."""

    # Minimum matching distance in millimetres: mean distance of a held-out head to its nearest in the set.
    mmd_mm: Figure
    # Share of the held-out heads that are nearest to some head of the set.
    coverage: Figure
    # Accuracy of telling the set from the held-out heads by the nearest neighbour; 0.5 is indistinguishable.
    one_nna: Figure


def clouds(meshes: Sequence[trimesh.Trimesh | None], seed: int = 0, points: int = POINTS) -> np.ndarray:
    """(heads, points, 3) points uniform by area on each mesh; NaN where there is none."""
    # Of copies, with which the tables of triangles and normals go that are made on the way: they take 4 MB a head.
    return np.stack([np.full((points, 3), np.nan) if mesh is None or not len(mesh.faces)
                     else surface_points(mesh.copy(include_visual=False), points, np.random.default_rng([seed, index]))
                     for index, mesh in enumerate(meshes)])


def standardised(clouds: np.ndarray) -> np.ndarray:
    """Clouds (heads, n, 3), each about its own middle and over its own deviation, as published evaluations do."""
    centred = clouds - clouds.mean(1, keepdims=True)
    return centred / centred.std((1, 2), keepdims=True)


def chamfer(first: np.ndarray, second: np.ndarray, cores: int = 1,
            progress: Callable[[int], None] = lambda pairs: None,
            dense: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """(n, m) chamfer distances in millimetres: the mean over either cloud of the distance to the other, averaged.

    Two clouds of 2,048 points of one and the same head are 3 mm apart. Where `dense` gives more points (n, ...) and
    (m, ...) of the same heads, distances are to these, so that a copy is much nearer than a lookalike.
    """
    trees = [[cKDTree(np.nan_to_num(cloud)) for cloud in clouds] for clouds in dense or (first, second)]

    def distance(i: int, j: int) -> float:
        return (trees[1][j].query(first[i])[0].mean() + trees[0][i].query(second[j])[0].mean()) / 2

    return _pairwise(distance, first, second, cores, progress)


def earth_movers(first: np.ndarray, second: np.ndarray, cores: int = 1,
                 progress: Callable[[int], None] = lambda pairs: None) -> np.ndarray:
    """(n, m) earth mover's distances in millimetres: the mean way of a point under the best assignment, exactly."""

    def distance(i: int, j: int) -> float:
        ways = cdist(first[i], second[j])
        return float(ways[linear_sum_assignment(ways)].mean())

    return _pairwise(distance, first, second, cores, progress)


def _pairwise(distance: Callable[[int, int], float], first: np.ndarray, second: np.ndarray, cores: int,
              progress: Callable[[int], None]) -> np.ndarray:
    """(n, m) of a symmetric distance; a set against itself needs half of it. Infinite where a cloud is NaN."""
    same = second is first
    empty_first, empty_second = (np.isnan(clouds).any((1, 2)) for clouds in (first, second))

    def row(i: int) -> np.ndarray:
        found = np.zeros(len(second))
        for j in range(i + 1 if same else 0, len(second)):
            found[j] = np.inf if empty_first[i] or empty_second[j] else distance(i, j)
        progress(len(second) - (i + 1 if same else 0))
        return found

    # Trees and assignments are searched without the interpreter's lock.
    with ThreadPoolExecutor(cores) as pool:
        rows = np.array(list(pool.map(row, range(len(first))))).reshape(len(first), len(second))
    return rows + rows.T if same else rows


def compare(within: np.ndarray, across: np.ndarray, held_out: np.ndarray) -> Comparison:
    """Compare a set with held-out heads: distances (n, n) within it, (n, m) across, (m, m) among the held-out.

    MMD and coverage after Achlioptas et al. 2018, 1-NNA after Lopez-Paz and Oquab 2017, as PointFlow gives them.
    """
    there = np.isfinite(across).any(1)
    covered = np.zeros(across.shape[1])
    covered[across[there].argmin(1)] = 1
    all_pairs = np.block([[within, across], [across.T, held_out]])
    np.fill_diagonal(all_pairs, np.inf)
    of_set = np.arange(len(all_pairs)) < len(within)
    told = of_set[all_pairs.argmin(1)] == of_set
    # A head without a surface is told at once.
    told[:len(within)] |= ~there
    return Comparison(Figure.of(across.min(0)), Figure.of(covered), Figure.of(told.astype(float)))


def spread(within: np.ndarray) -> float:
    """Mean distance of a set's pairs, of distances (n, n) within it; those of heads without a surface do not count."""
    pairs = within[~np.eye(len(within), dtype=bool)]
    return float(pairs[np.isfinite(pairs)].mean()) if np.isfinite(pairs).any() else 0.0


def copy_threshold(held_out_to_training: np.ndarray) -> float:
    """The distance to the nearest head learned from (mm) that 1 % of real held-out heads stay below."""
    return float(np.quantile(held_out_to_training.min(1), COPY))


def copies(to_training: np.ndarray, held_out_to_training: np.ndarray) -> Figure:
    """Share of heads nearer to a training head than 1 % of real held-out heads are, of distances (n, training)."""
    return Figure.of((to_training.min(1) < copy_threshold(held_out_to_training)).astype(float))


def authentic(to_training: np.ndarray, within_training: np.ndarray) -> Figure:
    """Share of heads farther from their nearest training head than that one is from its own nearest.

    Authenticity after Alaa et al., How Faithful is your Synthetic Data? (2022); real held-out heads have about half.
    """
    others = within_training.copy()
    np.fill_diagonal(others, np.inf)
    nearest = to_training.argmin(1)
    return Figure.of((to_training.min(1) > others.min(1)[nearest]).astype(float))


def divergence(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen-Shannon divergence (bits) of two sets' occupancy: where in a grid about both their points lie.

    After Achlioptas et al. 2018, in one frame instead of a unit ball.
    """
    points = [clouds[~np.isnan(clouds).any((1, 2))].reshape(-1, 3) for clouds in (first, second)]
    if not all(map(len, points)):
        return 1.0
    both = np.concatenate(points)
    low, side = both.min(0), float(np.ptp(both, axis=0).max()) + 1e-9
    counts = [np.histogramdd((one - low) / side, CELLS, [(0, 1)] * 3)[0].ravel() for one in points]
    return float(jensenshannon(*counts, base=2) ** 2)


def components(distances: np.ndarray, share: float = 0.9) -> int:
    """Compactness: principal components that hold a share of a set's variance, of features (heads, n).

    The fewer, the more compact (Davies 2002); here of heads as distances from fixed points, since scans have no
    correspondences.
    """
    energy = np.linalg.svd(distances - distances.mean(0), compute_uv=False) ** 2
    return int(np.searchsorted(energy.cumsum() / max(energy.sum(), 1e-12), share) + 1)
