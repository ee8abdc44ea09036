"""The decoder: a neural head in, a closed triangle mesh in millimetres out.

The field is evaluated on a grid only where its surface can be, and marching cubes runs on the logits themselves.
"""

from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from jaxtyping import Float

from overfit.canonical.neck import cut_neck
from overfit.canonical.warp import Warp
from overfit.geometry.mesh import largest_component
from overfit.geometry.sparse_marching_cubes import (
    Level,
    Nodes,
    closed_surface,
    keep_off_zero,
    over_corners,
    sparse_grid,
)
from overfit.neural_head import NeuralHead
from overfit.runtime.errors import BadInput

# Below this a head cannot be recognised.
MIN_RESOLUTION = 8
# Above this, triangles are far smaller than any detail that a network of 36,737 weights can hold.
MAX_RESOLUTION = 1024
# Peak memory for each node of the grid, measured on heads at 256 to 512 nodes a side.
BYTES_PER_NODE = 10
# Share of the sum of a cell's second differences by which the field may depart in it from what its corners say: an
# eighth where it is smooth (the bound of multilinear interpolation), more at a ReLU network's kinks. On six heads
# an eighth missed some of the surface's cells, a quarter none.
BEND_SHARE = 3 / 8
# Logits are kept this far from zero; on a fitted head it is a micrometre.
MIN_LOGIT = 1e-3
# What is said of a head whose logits have one sign only.
NO_SURFACE = "the network holds no surface; fit the scan again, or sample another seed"
# Points that are evaluated at once. On CPU their activations take 1 MB and stay in the cache (2.5 times faster than
# 16 MB).
POINTS_AT_ONCE = {"cpu": 1 << 11, "cuda": 1 << 18}


@dataclass(frozen=True)
class DecodeConfig:
    """How a head becomes a mesh."""

    resolution: int = 256
    """Grid nodes along each side of the cube, 8 to 1024. Memory grows with their cube: 10 GB at 1024."""
    keep_all_components: bool = False
    """Keep every connected component of the surface instead of only the largest one."""

    def __post_init__(self) -> None:
        if self.resolution < MIN_RESOLUTION:
            raise BadInput(f"`resolution={self.resolution}`: too coarse for a head; give {MIN_RESOLUTION} or more")
        if self.resolution > MAX_RESOLUTION:
            needed = BYTES_PER_NODE * self.resolution**3 / 1e9
            raise BadInput(
                f"`resolution={self.resolution}`: decoding one head would take {needed:,.0f} GB of memory; "
                f"give {MAX_RESOLUTION} or less"
            )


def decode(head: NeuralHead, config: DecodeConfig = DecodeConfig()) -> trimesh.Trimesh:
    """Return the head's surface as a closed mesh in millimetres, normals outward, warped from canonical space.

    Raises BadInput if the network's logits have one sign only, so that it holds no surface.
    """
    mesh = try_decode(head, config)
    if mesh is None:
        raise BadInput(NO_SURFACE)
    return mesh


def try_decode(head: NeuralHead, config: DecodeConfig = DecodeConfig()) -> trimesh.Trimesh | None:
    """Return what `decode` does, or None if there is no surface."""
    canonical = decode_canonical(head, config.resolution)
    mesh = None if canonical is None else to_head_space(canonical, head.warp)
    if mesh is None:
        return None
    return mesh if config.keep_all_components else largest_component(mesh)


def to_head_space(mesh: trimesh.Trimesh, warp: Warp | None) -> trimesh.Trimesh | None:
    """Return a mesh in canonical space as the warp carries it to the head, cut at the neck; None if all lies below."""
    if warp is None:
        return mesh
    warped = trimesh.Trimesh(warp(mesh.vertices), mesh.faces, process=False)
    if warp.neck_height is None:
        return warped
    cut = cut_neck(warped, warp.neck_height)
    return cut if len(cut.faces) else None


def decode_canonical(head: NeuralHead, resolution: int) -> trimesh.Trimesh | None:
    """Return all components of a head's surface in canonical space, in millimetres, or None if there is no surface."""
    logits = logit_grid(head, resolution)
    low, high = float(logits.min()), float(logits.max())
    if not high > 0 > low:
        return None
    vertices, triangles = closed_surface(logits, outside=-max(1.0, high, -low))
    points = vertices * (2 / (resolution - 1)) - 1
    return trimesh.Trimesh(head.cube.to_millimetres(points.clip(-1, 1)), triangles, process=False)


@torch.no_grad()
def logit_grid(head: NeuralHead, resolution: int) -> Float[np.ndarray, "r r r"]:
    """Return logits at the nodes of a grid over the cube: exact near the surface, of the right sign elsewhere.

    On a head at 256^3 one node in thirty is evaluated.
    """
    axis = torch.linspace(-1, 1, resolution, device=head.weights.device)
    return sparse_grid(
        (resolution,) * 3,
        evaluate=lambda nodes: _logits(head, axis, nodes),
        may_cross=_may_cross,
        cells="between nodes",
    )


def _may_cross(level: Level) -> np.ndarray:
    """Cells (a - 1, b - 1, c - 1) that the surface may cross, by the logits at their corners.

    Either the sign changes, or a corner is so close to zero that the field may bend past it within the cell, by second
    differences of exact logits. Cells of a split one have its middle as a corner, about which everything is exact.
    """
    bend = np.zeros_like(level.values)
    for axis in range(3):
        values, exact = np.moveaxis(level.values, axis, 0), np.moveaxis(level.exact, axis, 0)
        known = exact[:-2] & exact[1:-1] & exact[2:]
        np.moveaxis(bend, axis, 0)[1:-1] += np.abs(np.diff(values, 2, axis=0)) * known
    inside = level.values > 0
    sign_changes = over_corners(np.logical_or, inside) & ~over_corners(np.logical_and, inside)
    nearest_zero = over_corners(np.minimum, np.abs(level.values))
    return sign_changes | (nearest_zero < BEND_SHARE * over_corners(np.maximum, bend))


def _logits(head: NeuralHead, axis: torch.Tensor, nodes: Nodes) -> np.ndarray:
    """Logits (n,) at nodes of a grid with the same coordinates along each axis, in chunks of bounded memory."""
    logits = np.empty(len(nodes[0]), np.float32)
    size = POINTS_AT_ONCE[axis.device.type]
    for start in range(0, len(logits), size):
        chunk = slice(start, start + size)
        points = torch.stack([axis[torch.from_numpy(index[chunk]).to(axis.device)] for index in nodes], dim=-1)
        logits[chunk] = head.field(head.weights, points).float().cpu().numpy()
    return keep_off_zero(logits, MIN_LOGIT, inside="positive")
