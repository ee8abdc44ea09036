"""Speed of the metrics: Chamfer distances of two sets of point clouds by k-d trees and by all pairs in torch.

    python benchmarks/metrics_speed.py --heads 256 --pairs 20

The clouds are points on random ellipsoids of a head's size. The torch version is timed on some pairs and extrapolated
to all.
"""

import time
from dataclasses import dataclass

import numpy as np
import psutil
import torch
from columns import METRICS_SPEED
from results_io import BenchmarkOptions, publish, run_benchmark

from hyperdiffusion import POINTS_PER_HEAD, chamfer_distances, earth_mover_distances

# Range of an ellipsoid's half axes in millimetres.
MIN_RADII = (70, 100, 80)
MAX_RADII = (85, 130, 105)
# Heads of each set that are compared by EMD.
EMD_HEADS = 2


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """How many clouds are compared."""

    heads: int = 256
    """Point clouds in each set."""

    pairs: int = 20
    """Pairs of clouds that the torch version is timed on; at most the number of heads."""

    points: int = POINTS_PER_HEAD
    """Points in each cloud."""


def main(config: BenchmarkConfig) -> None:
    """Time both versions and EMD."""
    context = config.machine.start()
    first, second = (_ellipsoids(config, seed) for seed in (0, 1))
    start = time.perf_counter()
    ours = chamfer_distances(first, second, context=context)
    tree_seconds = time.perf_counter() - start
    memory = psutil.Process().memory_info().rss >> 20
    tensors = [torch.from_numpy(clouds).float() for clouds in (first, second)]
    start = time.perf_counter()
    dense = [_all_pairs(tensors[0][index], tensors[1][index]) for index in range(config.pairs)]
    dense_seconds = (time.perf_counter() - start) / config.pairs * config.heads**2
    start = time.perf_counter()
    earth_mover_distances(first[:EMD_HEADS], second[:EMD_HEADS], context=context)
    emd_seconds = (time.perf_counter() - start) / EMD_HEADS**2
    difference = float(np.abs(np.diag(ours)[: config.pairs] - dense).max())
    rows = [
        {"method": "k-d trees", "seconds": tree_seconds, "memory_mib": memory},
        {
            "method": f"torch.cdist ({config.pairs} pairs, extrapolated)",
            "seconds": dense_seconds,
            "max_difference_mm": difference,
        },
        {"method": "EMD, one pair", "seconds": emd_seconds},
    ]
    publish("metrics_speed", METRICS_SPEED, rows, config)


def _ellipsoids(config: BenchmarkConfig, seed: int) -> np.ndarray:
    """Return points (heads, points, 3) on ellipsoids, in millimetres."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((config.heads, config.points, 3))
    radii = rng.uniform(MIN_RADII, MAX_RADII, (config.heads, 3))
    return directions / np.linalg.norm(directions, axis=2, keepdims=True) * radii[:, None]


def _all_pairs(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Chamfer distance of two clouds by every pair of their points."""
    distances = torch.cdist(first, second)
    return float(distances.amin(0).mean() + distances.amin(1).mean()) / 2


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
