"""Labels from fitted networks instead of scans: weights in, points near each surface and their signed distances out.

They stand in for a scan where there is none: for samples, and where networks are compared by what they represent.
"""

import numpy as np
import torch
from jaxtyping import Float

from overfit.decoder import DecodeConfig, try_decode
from overfit.field import Field
from overfit.fit import FitConfig
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.mesh import sample_points, sample_surface
from overfit.labels import LabelBatch
from overfit.neural_head import NeuralHead
from overfit.runtime.machine import RunContext
from overfit.runtime.workers import run_tasks_in_order

# The loss of fits to such labels: the default one, on the networks' own logits, whatever a store's settings are.
FIELD_LOSS = FitConfig()
# Finding a surface on this grid takes a worker too little time to pay for its start with fewer networks.
MIN_NETWORKS_PER_WORKER = 16
# The grid on which a surface is found. It is coarse: the points are moved off the surface by more than its error.
SURFACE_CONFIG = DecodeConfig(resolution=64, keep_all_components=True)
# Points per network near its surface.
NEAR_POINTS = 5120
# Their standard deviation about the surface in millimetres.
NEAR_SIGMA_MM = 2.0
# Points per network in a wider band.
BAND_POINTS = 2048
# Their standard deviation about the surface in millimetres.
BAND_SIGMA_MM = 10.0
# Points per network anywhere in the cube.
UNIFORM_POINTS = 1024
# Share of the near points drawn by curvature on the front of the face; less than for scans.
FACE_SHARE = 0.5
# Share of the near points drawn by curvature anywhere.
DETAIL_SHARE = 0.2


class FieldLabels(LabelBatch):
    """Labels that fitted networks give about their own surfaces: points (heads, n, 3) and distance (heads, n)."""

    @classmethod
    def of(
        cls, field: Field, cube: Cube, *, weights: Float[torch.Tensor, "heads P"], context: RunContext = RunContext()
    ) -> "FieldLabels":
        """Return the labels of networks, on the device of their weights."""
        tasks = [(NeuralHead(field, cube, row.cpu().clone()), seed) for seed, row in enumerate(weights)]
        found = run_tasks_in_order(_points, tasks, context, min_tasks_per_worker=MIN_NETWORKS_PER_WORKER)
        points = torch.from_numpy(np.stack(found)).to(weights.device)
        return cls(points, fitted_distances(field, weights, points=points))


@torch.no_grad()
def fitted_distances(
    field: Field, weights: Float[torch.Tensor, "heads P"], *, points: Float[torch.Tensor, "heads n 3"]
) -> Float[torch.Tensor, "heads n"]:
    """Return the signed distances in millimetres that the logits of fitted networks stand for, at points of each."""
    logits = torch.stack([field(row, at).float() for row, at in zip(weights, points)])
    return -FIELD_LOSS.softness_mm * logits


def _points(head: NeuralHead, seed: int) -> np.ndarray:
    """Points (n, 3) in the cube near a network's surface, or anywhere in the cube if it has none."""
    rng = np.random.default_rng(seed)
    anywhere = rng.uniform(-1, 1, (NEAR_POINTS + BAND_POINTS + UNIFORM_POINTS, 3))
    mesh = try_decode(head, SURFACE_CONFIG)
    if mesh is None:
        return anywhere.astype(np.float32)
    on_surface, _ = sample_surface(mesh, NEAR_POINTS, rng=rng, face_share=FACE_SHARE, detail_share=DETAIL_SHARE)
    near = on_surface + NEAR_SIGMA_MM * rng.standard_normal((NEAR_POINTS, 3))
    band = sample_points(mesh, BAND_POINTS, rng=rng) + BAND_SIGMA_MM * rng.standard_normal((BAND_POINTS, 3))
    near_surface = head.cube.to_field(np.concatenate([near, band]))
    return np.concatenate([near_surface, anywhere[:UNIFORM_POINTS]]).astype(np.float32)
