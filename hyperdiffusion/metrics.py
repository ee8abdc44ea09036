"""Sets of heads compared: point clouds in millimetres in; fidelity, diversity and novelty out.

All sets are compared in one frame and at true size; no cloud is centred or scaled by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from overfit.occupancy import surface_points

# The customary size of a cloud (PointFlow, Yang et al. 2019).
POINTS = 2048


@dataclass(frozen=True)
class Comparison:
    """A set of heads against real held-out heads, all figures by chamfer distance."""

    # Minimum matching distance in millimetres: mean distance of a held-out head to its nearest in the set.
    mmd_mm: float
    # Share of the held-out heads that are nearest to some head of the set.
    coverage: float
    # Accuracy of telling the set from the held-out heads by the nearest neighbour; 0.5 is indistinguishable.
    one_nna: float


def clouds(meshes: Sequence[trimesh.Trimesh], seed: int = 0, points: int = POINTS) -> np.ndarray:
    """(heads, points, 3) points uniform by area on each mesh."""
    return np.stack([surface_points(mesh, points, np.random.default_rng([seed, index]))
                     for index, mesh in enumerate(meshes)])


def chamfer(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) chamfer distances in millimetres: the mean over either cloud of the distance to the other, averaged."""
    first_trees, second_trees = [[cKDTree(cloud) for cloud in clouds] for clouds in (first, second)]
    distance = np.zeros((len(first), len(second)))
    for i, (cloud, here) in enumerate(zip(first, first_trees)):
        # A set against itself is symmetric: half of it is enough.
        for j in range(i if second is first else 0, len(second)):
            distance[i, j] = (second_trees[j].query(cloud)[0].mean() + here.query(second[j])[0].mean()) / 2
    return np.maximum(distance, distance.T) if second is first else distance


def compare(within: np.ndarray, across: np.ndarray, held_out: np.ndarray) -> Comparison:
    """Compare a set with held-out heads: distances (n, n) within it, (n, m) across, (m, m) among the held-out.

    MMD and coverage after Achlioptas et al. 2018, 1-NNA after Lopez-Paz and Oquab 2017, as PointFlow gives them.
    """
    nearest = across.argmin(1)
    all_pairs = np.block([[within, across], [across.T, held_out]])
    np.fill_diagonal(all_pairs, np.inf)
    of_set = np.arange(len(all_pairs)) < len(within)
    told = of_set[all_pairs.argmin(1)] == of_set
    return Comparison(mmd_mm=float(across.min(0).mean()), coverage=len(np.unique(nearest)) / across.shape[1],
                      one_nna=float(told.mean()))


def spread(within: np.ndarray) -> float:
    """Mean distance of a set's pairs, of distances (n, n) within it."""
    return float(within[~np.eye(len(within), dtype=bool)].mean())


def copies(to_training: np.ndarray, held_out_to_training: np.ndarray) -> float:
    """Share of heads nearer to a training head than 1 % of real held-out heads are, of distances (n, training)."""
    threshold = np.quantile(held_out_to_training.min(1), 0.01)
    return float((to_training.min(1) < threshold).mean())
