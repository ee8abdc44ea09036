"""Voxel diffusion: fits in, grids of new heads and their meshes out, by a transformer over the patches of a grid.

The voxel baseline of HyperDiffusion (section 4.1), made stronger: signed distances cut off at a band in place of
occupancy, so that marching cubes finds a smooth surface.
"""

import numpy as np
import torch
import trimesh
from rival_diffusion import Shape, Tokenised, samples, trained
from skimage.measure import marching_cubes

from overfit.cube import Cube
from overfit.fit import Fitting
from overfit.store import Fits

# Half the band in millimetres, voxels along a side of a patch, and heads in a step.
BAND_MM, PATCH, BATCH = 20.0, 4, 16
SHAPE = Shape(width=128, depth=4, heads=4, dropout=0.0)


def voxels(fits: Fits, side: int, seconds: float, count: int) -> torch.Tensor:
    """Signed distances (count, side, side, side) of new heads, as shares of the band, learned for so many seconds."""
    data = _grids(fits, side)
    mean = data.mean(0)
    scale = (data - mean).square().mean().sqrt()
    data = _patches((data - mean) / scale, side)

    def draw(batch: int) -> torch.Tensor:
        return data[torch.randint(len(data), (batch,))]

    patches = (side // PATCH) ** 3
    network = Tokenised(SHAPE, [PATCH**3] * patches)
    made = samples(trained(f"voxels {side}", network, draw, BATCH, seconds), count, side**3)
    return _grid(made, side) * scale + mean


def meshed(grid: torch.Tensor, cube: Cube) -> trimesh.Trimesh | None:
    """The surface in a grid (side, side, side), in millimetres; None where there is none."""
    padded = np.pad(grid.numpy(), 1, constant_values=1.0)
    if not padded.min() < 0:
        return None
    vertices, triangles, _, _ = marching_cubes(padded, 0.0, gradient_direction="descent")
    points = (vertices - 1) * (2 / (len(grid) - 1)) - 1
    return trimesh.Trimesh(cube.to_millimetres(points.clip(-1, 1)), triangles, process=False)


@torch.no_grad()
def _grids(fits: Fits, side: int) -> torch.Tensor:
    """(heads, side, side, side) signed distances in the band, as shares of it."""
    axis = torch.linspace(-1, 1, side)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    logits = torch.cat([fits.field(fits.weights[start:start + 1], nodes[None]) for start in range(len(fits.weights))])
    return (-Fitting().softness_mm / BAND_MM * logits).clamp(-1, 1).reshape(-1, side, side, side)


def _patches(grids: torch.Tensor, side: int) -> torch.Tensor:
    """Grids (B, side, side, side) -> (B, side^3), the voxels of a patch one after another."""
    return grids.reshape(-1, *[side // PATCH, PATCH] * 3).permute(0, 1, 3, 5, 2, 4, 6).reshape(len(grids), -1)


def _grid(patches: torch.Tensor, side: int) -> torch.Tensor:
    """The inverse of `_patches`."""
    cut = patches.reshape(-1, *[side // PATCH] * 3, *[PATCH] * 3)
    return cut.permute(0, 1, 4, 2, 5, 3, 6).reshape(-1, side, side, side)
