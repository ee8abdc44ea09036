"""What completion makes of noise and of low resolution: test heads as noisy or sparse points.

    python benchmarks/completion_noise.py CHECKPOINT TEST --count 3

Points all over each head are given, with noise along all axes; the head is the truth. The peer is the surface that
`hyperdiffusion prepare` makes of such points.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
import tyro
from columns import COMPLETION_NOISE
from completion import Head
from results_io import BenchmarkOptions, publish, run_benchmark

from hyperdiffusion import Checkpoint, CompletionConfig, complete
from overfit import DecodeConfig, find_scans, largest_component, read_prepared, run_tasks_in_order
from overfit.geometry.point_cloud import PointCloud, estimate_normals
from overfit.geometry.signed_distance import nearest_points
from overfit.scans.surface_reconstruction import reconstruct_surface
from overfit.scans.template import Template

# Points of the truth at which errors are measured.
MEASURED = 4000


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(BenchmarkOptions):
    """The model, the heads, and what is wrong with their scans."""

    checkpoint: tyro.conf.Positional[Path]
    """A model of warped heads."""

    test: tyro.conf.Positional[Path]
    """Folder of test heads."""

    count: int = 3
    """Test heads."""

    scans: tuple[tuple[int, float], ...] = ((40_000, 0.3), (40_000, 1.0), (40_000, 2.0), (4000, 0.3), (1000, 0.3))
    """Points of a scan, and the standard deviation of their noise in millimetres."""

    resolution: int = 192
    """Grid on which completed heads are decoded."""

    completion: CompletionConfig = CompletionConfig(draws=0)
    """How scans are completed."""


def main(config: BenchmarkConfig) -> None:
    """Complete the scans, and close them."""
    context = config.machine.start()
    model = Checkpoint.load(config.checkpoint)
    meshes = [read_prepared(scan).mesh for scan in find_scans(config.test)[: config.count]]
    tasks = [(mesh, points, noise, model, config) for points, noise in config.scans for mesh in meshes]
    with context.progress(len(tasks), "completing", "scan") as bar:
        errors = np.array(run_tasks_in_order(_errors, tasks, context, bar=bar))
    means = errors.reshape(len(config.scans), len(meshes), 2).mean(1)
    rows = [
        {"points": points, "noise_mm": noise, "completed_mm": completed, "closed_mm": closed}
        for (points, noise), (completed, closed) in zip(config.scans, means.tolist())
    ]
    publish("completion_noise", COMPLETION_NOISE, rows, config)


def _errors(
    mesh: trimesh.Trimesh, points: int, noise: float, model: Checkpoint, config: BenchmarkConfig
) -> list[float]:
    """Mean distances in millimetres of the truth to the completed head and to the closed surface."""
    torch.set_num_threads(1)
    rng, truth = np.random.default_rng(0), Head.of(mesh).surface
    chosen = truth.points[rng.permutation(len(truth.points))[:points]]
    noisy = chosen + noise * rng.standard_normal(chosen.shape)
    scan = estimate_normals(PointCloud(noisy, None))
    measured = truth.points[rng.permutation(len(truth.points))[:MEASURED]]
    found = complete(model, scan, config=config.completion)
    head = found.decode(DecodeConfig(config.resolution))[0]
    closed = largest_component(reconstruct_surface(scan, Template.standard().head_box))
    pairs = ((head, found.pose(measured)), (closed, measured))
    return [float(np.linalg.norm(at - nearest_points(surface, at), axis=1).mean()) for surface, at in pairs]


if __name__ == "__main__":
    run_benchmark(main, BenchmarkConfig)
