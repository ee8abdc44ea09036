"""Chamfer distances of two sets of clouds: k-d trees on all cores against all pairs of points in torch.

    python benchmarks/metrics_speed.py [--heads 256] [--pairs 20]

Clouds are of random ellipsoids of a head's size. The torch way is timed on some pairs and scaled to all of them.
"""

import argparse
import time

import numpy as np
import psutil
import torch

from hyperdiffusion.metrics import POINTS, chamfer, earth_movers
from overfit import Machine


def clouds(count: int, seed: int) -> np.ndarray:
    """(count, POINTS, 3) points on ellipsoids, in millimetres."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((count, POINTS, 3))
    radii = rng.uniform((70, 100, 80), (85, 130, 105), (count, 3))
    return directions / np.linalg.norm(directions, axis=2, keepdims=True) * radii[:, None]


def all_pairs(first: torch.Tensor, second: torch.Tensor) -> float:
    """Chamfer distance of two clouds by every pair of their points."""
    gaps = torch.cdist(first, second)
    return float(gaps.amin(0).mean() + gaps.amin(1).mean()) / 2


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=20)
    words = parser.parse_args()
    machine = Machine()
    machine.use()
    first, second = clouds(words.heads, 0), clouds(words.heads, 1)
    start = time.monotonic()
    ours = chamfer(first, second, machine.cores)
    trees = time.monotonic() - start
    tensors = [torch.from_numpy(one).float() for one in (first, second)]
    start = time.monotonic()
    theirs = [all_pairs(tensors[0][index], tensors[1][index]) for index in range(words.pairs)]
    pairs = (time.monotonic() - start) / words.pairs * words.heads**2
    start = time.monotonic()
    earth_movers(first[:2], second[:2], machine.cores)
    emd = (time.monotonic() - start) / 4
    print("| way | seconds, all pairs | memory, MiB |\n| --- | --- | --- |")
    print(f"| k-d trees on {machine.cores} cores | {trees:.0f} | {psutil.Process().memory_info().rss >> 20} |")
    print(f"| torch.cdist, of {words.pairs} pairs | {pairs:.0f} | |")
    print(f"\nLargest difference {np.abs(np.diag(ours)[:words.pairs] - theirs).max():.1e} mm. "
          f"Earth mover's distance: {emd:.2f} s a pair.")


if __name__ == "__main__":
    main()
