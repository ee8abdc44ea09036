"""Gaussians on principal components: of the weights of fits, or of the vertices of scans in correspondence (3DMM)."""

from collections.abc import Sequence

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from hyperdiffusion import LatentCoordinates
from overfit import MM_PER_UNIT, BadInput, Fits

# Heads of unknown unit are taken for about this large, in millimetres.
TYPICAL_EXTENT_MM = 250.0


def gaussian_weights(fits: Fits, *, rank: int, count: int) -> Float[torch.Tensor, "count S"]:
    """Return parameters drawn from a Gaussian on the first `rank` principal components of the fits' parameters."""
    coordinates = LatentCoordinates.from_weights(fits.parameters, fits.space.token_sizes)
    drawn = torch.randn(count, coordinates.size, generator=torch.Generator().manual_seed(0))
    drawn[:, rank:] = 0
    return coordinates.decode(drawn)


def gaussian_vertices(scans: Sequence[trimesh.Trimesh], *, count: int) -> list[trimesh.Trimesh]:
    """Return heads drawn from a Gaussian on the principal components of vertices: the classic morphable model.

    Args:
        scans: Meshes in correspondence, as they stand in their files, in one unit.
        count: Number of heads.

    Raises BadInput if the meshes do not have the same number of vertices.
    """
    if len({mesh.vertices.shape for mesh in scans}) > 1:
        raise BadInput("gaussian_vertices: the scans are not in correspondence; leave this method out")
    extent = float(np.median([np.ptp(mesh.vertices, axis=0).max() for mesh in scans]))
    scale = min(MM_PER_UNIT.values(), key=lambda factor: abs(np.log(factor * extent / TYPICAL_EXTENT_MM)))
    data = scale * np.stack([mesh.vertices.ravel() for mesh in scans])
    mean = data.mean(0)
    _, singular, rows = np.linalg.svd(data - mean, full_matrices=False)
    drawn = np.random.default_rng(0).standard_normal((count, len(rows))) * singular / len(data) ** 0.5
    return [trimesh.Trimesh((mean + row @ rows).reshape(-1, 3), scans[0].faces, process=False) for row in drawn]
