"""The decoder: a row of weights in, a closed triangle mesh in millimetres out.

The field is evaluated on a grid only where its surface can be, and marching cubes runs on the logits themselves.
"""

import numpy as np
import torch
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from .cube import Cube
from .errors import BadInput
from .field import Field

# Fine nodes from one node of the coarsest level to the next; a power of two.
COARSEST = 8
# Share of the sum of a cell's second differences by which the field may depart in it from what its corners say: an
# eighth where it is smooth (the bound of multilinear interpolation), more at a ReLU network's kinks. On six heads
# an eighth missed some of the surface's cells, a quarter none.
BEND = 3 / 8
# Logits are kept this far from zero; on a fitted head it is a micrometre.
LEAST = 1e-3
# Points that are evaluated at once: on CPU 1 MB of activations, which stay in the cache (2.5 times faster than 16 MB).
CHUNK = {"cpu": 1 << 11, "cuda": 1 << 18}


def decode(field: Field, weights: torch.Tensor, cube: Cube, resolution: int = 256,
           keep_islands: bool = False) -> trimesh.Trimesh:
    """Mesh in millimetres of the weights (P,), its normals outward; BadInput where they hold no surface.

    `resolution` is the number of grid nodes along a side of the cube. Islands (all but the largest piece, bubbles
    within the head among them) are dropped unless they are to be kept.
    """
    if resolution < 8:
        raise BadInput(f"a resolution of {resolution} shows no head; take at least 8, better 256")
    logits = logit_grid(field, weights, resolution)
    low, high = float(logits.min()), float(logits.max())
    if not (high > 0 > low):
        raise BadInput("the network holds no surface; fit the scan again, or sample another seed")
    # A layer of outside about the grid closes what the cube cuts.
    padded = np.pad(logits, 1, constant_values=-max(1.0, high, -low))
    vertices, triangles, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent")
    points = (vertices - 1) * (2 / (resolution - 1)) - 1
    mesh = trimesh.Trimesh(cube.to_millimetres(points.clip(-1, 1)), triangles, process=False)
    return mesh if keep_islands else largest_body(mesh)


def largest_body(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The connected piece with the most triangles."""
    return bodies(mesh)[0]


def bodies(mesh: trimesh.Trimesh) -> list[trimesh.Trimesh]:
    """The connected pieces, the one with the most triangles first. What shares a vertex hangs together.

    About each vertex of marching cubes lies one closed fan of triangles, so that edges would tell the same pieces; to
    sort them takes four times as long.
    """
    ends = mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel()
    links = coo_array((np.ones(len(ends[0]), bool), ends), shape=2 * (len(mesh.vertices),))
    of_vertex = connected_components(links, directed=False)[1]
    of_face = of_vertex[mesh.faces[:, 0]]
    sizes = np.bincount(of_face)
    found = []
    # Vertices of no triangle are pieces of size 0.
    for piece in np.argsort(-sizes, kind="stable")[:np.count_nonzero(sizes)]:
        kept = of_vertex == piece
        triangles = (np.cumsum(kept) - 1)[mesh.faces[of_face == piece]]
        found.append(trimesh.Trimesh(mesh.vertices[kept], triangles, process=False))
    return found


@torch.no_grad()
def logit_grid(field: Field, weights: torch.Tensor, resolution: int) -> np.ndarray:
    """Logits (R, R, R) at the nodes of a grid over the cube: exact about the surface, of the right sign elsewhere.

    From coarse to fine: of each level's cells, only those that the surface can reach are split. On a head at 256^3
    one node in thirty is evaluated; a test holds the mesh to the dense grid's.
    """
    axis = torch.linspace(-1, 1, resolution, device=weights.device)
    nodes = _nodes(resolution, COARSEST)
    grid = np.empty([len(nodes)] * 3, np.float32)
    known = np.ones_like(grid, bool)
    _evaluate(field, weights, axis[nodes], grid, known)
    stride = COARSEST
    while stride > 1:
        stride //= 2
        finer = _nodes(resolution, stride)
        # The coarse node at or below each finer one: its value stands in where no surface is near.
        below = np.searchsorted(nodes, finer, side="right") - 1
        known = _corners(_repeated(_reached(grid, known), below[:-1]))
        grid, nodes = _repeated(grid, below), finer
        _evaluate(field, weights, axis[nodes], grid, known)
    return grid


def _nodes(resolution: int, stride: int) -> np.ndarray:
    """Indices of a level's nodes along an axis: every `stride`-th of the fine ones, and the last."""
    return np.unique(np.r_[np.arange(0, resolution, stride), resolution - 1])


def _repeated(grid: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The entries of a grid at the same indices along all three axes."""
    for axis in range(3):
        grid = grid.take(index, axis)
    return grid


def _reached(grid: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Cells (n-1, n-1, n-1) that the surface may cross, by the logits (n, n, n) at their corners.

    Either the sign changes, or a corner is so close to zero that the field may bend past it within the cell, by second
    differences of known logits. Cells of a split one have its middle as a corner, about which all is known.
    """
    bend = np.zeros_like(grid)
    for axis in range(3):
        values, sure = np.moveaxis(grid, axis, 0), np.moveaxis(known, axis, 0)
        np.moveaxis(bend, axis, 0)[1:-1] += np.abs(np.diff(values, 2, axis=0)) * (sure[:-2] & sure[1:-1] & sure[2:])
    inside = grid > 0
    crossed = _over_corners(np.logical_or, inside) & ~_over_corners(np.logical_and, inside)
    return crossed | (_over_corners(np.minimum, np.abs(grid)) < BEND * _over_corners(np.maximum, bend))


def _over_corners(combine: np.ufunc, nodes: np.ndarray) -> np.ndarray:
    """What stands at the eight corners of each cell (n-1, n-1, n-1) of the nodes (n, n, n), combined."""
    for axis in range(3):
        along = np.moveaxis(nodes, axis, 0)
        nodes = np.moveaxis(combine(along[:-1], along[1:]), 0, axis)
    return nodes


def _corners(cells: np.ndarray) -> np.ndarray:
    """Nodes (n+1, n+1, n+1) at the corners of the marked cells (n, n, n)."""
    return _over_corners(np.logical_or, np.pad(cells, 1))


def _evaluate(field: Field, weights: torch.Tensor, axis: torch.Tensor, grid: np.ndarray, wanted: np.ndarray) -> None:
    """Set the wanted nodes of a grid to their logits, in chunks of bounded memory."""
    index = np.nonzero(wanted)
    logits = np.empty(len(index[0]), np.float32)
    size = CHUNK[axis.device.type]
    for start in range(0, len(logits), size):
        chunk = slice(start, start + size)
        points = torch.stack([axis[torch.from_numpy(i[chunk]).to(axis.device)] for i in index], dim=-1)
        logits[chunk] = field(weights, points).float().cpu().numpy()
    # Away from zero: the edges of a node on the surface itself would all get one vertex there, and readers that merge
    # equal vertices would find the mesh torn.
    grid[index] = np.where(np.abs(logits) < LEAST, np.where(logits > 0, LEAST, -LEAST), logits)
