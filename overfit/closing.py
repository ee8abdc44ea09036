"""Closing: an open mesh or an oriented cloud in the canonical frame in, a closed mesh of the same surface out.

Inside is where the generalised winding number is above one half (Jacobson et al. 2013; of points: Barill et al. 2018).
The surface is the zero level of f = distance (1 - 2 winding) / (1 + 6 winding (1 - winding)): on the scan the distance
vanishes, and across a hole the winding number passes one half, so that holes close smoothly. The denominator keeps f
from changing faster than the distance does, about holes too.
"""

from collections.abc import Callable

import igl
import numpy as np
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from .clouds import Cloud, areas, thinned
from .errors import BadInput
from .occupancy import arrays

# Grid cells in millimetres; marching cubes puts vertices between nodes, so that the surface is finer than that.
CELL = 1.5
# Side of a coarse cell in fine ones.
COARSE = 8
# Neighbours that a cloud's distance is told by.
NEIGHBOURS = 8
# Points of a cloud closer to each other than this (mm) tell nothing more.
SPACING = 0.7
# And one of so many mm tells its distance well enough where it is far off.
ROUGH = 6.0
# Planes through a cloud's points hold so many times the points' spacing off them.
HOLD = 4.0
# Values are kept this far from zero.
LEAST = 1e-4


def closed(surface: trimesh.Trimesh | Cloud, low: np.ndarray, high: np.ndarray) -> trimesh.Trimesh:
    """The closed mesh of all that a surface encloses in a box from `low` to `high` (3,), cut flat at the box's sides.

    Raises BadInput where it encloses nothing.
    """
    value = _mesh_values(surface) if isinstance(surface, trimesh.Trimesh) else _cloud_values(surface)
    shape = np.ceil((high - low) / CELL / COARSE).astype(int) * COARSE + 1
    nodes = [a + CELL * np.arange(n) for a, n in zip(low, shape)]
    stride = COARSE
    coarse = [axis[::stride] for axis in nodes]
    grid = value(np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1).reshape(-1, 3)).reshape(
        [len(axis) for axis in coarse])
    while stride > 1:
        # A finer node takes the value of the nearest coarse one, or its own where the surface can lie between them:
        # half a diagonal off, and as much again for the finer nodes that will take its value in turn.
        reach = np.sqrt(3) * stride * CELL
        stride //= 2
        finer = [axis[::stride] for axis in nodes]
        nearest = np.ix_(*[(np.arange(len(axis)) + 1) // 2 for axis in finer])
        index = np.nonzero((np.abs(grid) < reach)[nearest])
        grid = grid[nearest]
        grid[index] = value(np.stack([axis[i] for axis, i in zip(finer, index)], axis=1))
    if not (grid < 0).any():
        raise BadInput("encloses no volume; its surface is too open, or its normals disagree")
    # Away from zero, and outside about the grid, as in decode.py.
    grid = np.where(np.abs(grid) < LEAST, np.where(grid < 0, -LEAST, LEAST), grid)
    padded = np.pad(grid, 1, constant_values=CELL)
    vertices, triangles, _, _ = marching_cubes(padded, 0.0, gradient_direction="descent")
    points = (low + CELL * (vertices - 1)).clip(low, high)
    mesh = trimesh.Trimesh(points, triangles, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _mesh_values(mesh: trimesh.Trimesh) -> Callable[[np.ndarray], np.ndarray]:
    """Values (n,) of f at points (n, 3) about a mesh."""
    vertices, triangles = arrays(mesh)
    triangles = igl.bfs_orient(triangles)[0]

    def value(points: np.ndarray) -> np.ndarray:
        distance = np.sqrt(igl.point_mesh_squared_distance(points, vertices, triangles)[0])
        winding = np.abs(igl.fast_winding_number(vertices, triangles, points))
        return _level(distance, winding)

    return value


def _cloud_values(cloud: Cloud) -> Callable[[np.ndarray], np.ndarray]:
    """Values (n,) of f at points (n, 3) about oriented points; close to them, the distance from planes through them."""
    cloud = thinned(cloud, SPACING)
    points, normals = np.ascontiguousarray(cloud.points), np.ascontiguousarray(cloud.normals)
    tree, rough, share = cKDTree(points), cKDTree(thinned(cloud, ROUGH).points), areas(points)
    reach = HOLD * np.sqrt(np.minimum(share, 4 * np.median(share)))

    def value(asked: np.ndarray) -> np.ndarray:
        level = np.empty(len(asked))
        # A bound makes the tree some times faster for all that lie beyond it.
        nearest, member = tree.query(asked, distance_upper_bound=reach.max())
        held = nearest < np.append(reach, 0)[member]
        by_plane, rest = np.nonzero(held)[0], np.nonzero(~held)[0]
        away, near = tree.query(asked[by_plane], NEIGHBOURS)
        # Close to the points the winding number is rough; planes through them are smooth (Kolluri 2008).
        offset = ((asked[by_plane, None] - points[near]) * normals[near]).sum(-1)
        weight = np.exp(-2 * (away / (away[:, -1:] + 1e-9)) ** 2)
        level[by_plane] = (weight * offset).sum(1) / weight.sum(1)
        # Far off, a rough distance does: the winding number tells where the surface is.
        winding = igl.fast_winding_number(points, normals, share, np.ascontiguousarray(asked[rest]))
        level[rest] = _level(rough.query(asked[rest])[0], winding)
        return level

    return value


def _level(distance: np.ndarray, winding: np.ndarray) -> np.ndarray:
    winding = winding.clip(0, 1)
    return distance * (1 - 2 * winding) / (1 + 6 * winding * (1 - winding))
