"""Voxel diffusion: fits in, grids of new heads and their meshes out, by a transformer over the patches of a grid.

The voxel baseline of HyperDiffusion (section 4.1), made stronger: signed distances truncated at a band instead of
occupancy, so that marching cubes finds a smooth surface.
"""

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from skimage.measure import marching_cubes

from baselines import head_space
from baselines.velocity_diffusion import TokenVelocity, draw_samples, train_denoiser
from hyperdiffusion import TransformerConfig
from overfit import Cube, Fits

# Signed distances are truncated here, in millimetres.
BAND_MM = 20.0
# Voxels along a side of a patch.
PATCH = 4
BATCH_SIZE = 16
TRANSFORMER = TransformerConfig(width=128, depth=4, attention_heads=4, dropout=0.0)


def voxel_samples(
    fits: Fits, cube: Cube, *, side: int, seconds: float, count: int
) -> Float[torch.Tensor, "count side side side"]:
    """Return grids of signed distances of new heads in a cube, in units of the band, after training for a time."""
    grids = _distance_grids(fits, cube, side)
    mean = grids.mean(0)
    scale = (grids - mean).square().mean().sqrt()
    data = _to_patches((grids - mean) / scale, side)

    def draw(batch: int) -> torch.Tensor:
        return data[torch.randint(len(data), (batch,))]

    network = TokenVelocity(TRANSFORMER, [PATCH**3] * (side // PATCH) ** 3)
    denoiser = train_denoiser(f"voxels, {side}^3", network, draw, batch_size=BATCH_SIZE, seconds=seconds)
    return _from_patches(draw_samples(denoiser, count, size=side**3), side) * scale + mean


def mesh_of_grid(grid: Float[torch.Tensor, "side side side"], cube: Cube) -> trimesh.Trimesh | None:
    """Return the surface in a grid, in millimetres; None if there is none."""
    # One more layer outside closes surfaces that reach the grid's border.
    padded = np.pad(grid.numpy(), 1, constant_values=1.0)
    if not padded.min() < 0:
        return None
    vertices, triangles, _, _ = marching_cubes(padded, 0.0, gradient_direction="descent")
    points = (vertices - 1) * (2 / (len(grid) - 1)) - 1
    return trimesh.Trimesh(cube.to_millimetres(points.clip(-1, 1)), triangles, process=False)


def _distance_grids(fits: Fits, cube: Cube, side: int) -> torch.Tensor:
    """Return truncated signed distances (heads, side, side, side) in units of the band."""
    nodes = cube.grid(side)
    grids = np.stack([head_space.distances(fits.head(index), nodes) for index in range(len(fits.records))])
    return torch.from_numpy(grids / BAND_MM).float().clamp(-1, 1).reshape(-1, side, side, side)


def _to_patches(grids: torch.Tensor, side: int) -> torch.Tensor:
    """Return grids (B, side, side, side) as (B, side^3) with the voxels of a patch one after another."""
    return grids.reshape(-1, *[side // PATCH, PATCH] * 3).permute(0, 1, 3, 5, 2, 4, 6).reshape(len(grids), -1)


def _from_patches(patches: torch.Tensor, side: int) -> torch.Tensor:
    """The inverse of `_to_patches`."""
    split = patches.reshape(-1, *[side // PATCH] * 3, *[PATCH] * 3)
    return split.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, side, side, side)
