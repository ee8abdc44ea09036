"""Surface reconstruction: an open mesh or an oriented cloud in millimetres in, a closed mesh of the same surface out.

Inside is where the generalised winding number is above one half (Jacobson et al. 2013; of points: Barill et al. 2018).
The surface is the zero level of f = distance (1 - 2 winding) / (1 + 6 winding (1 - winding)): on the scan the distance
vanishes, and across a hole the winding number passes one half, so that holes close smoothly. The denominator keeps f
from changing faster than the distance does, around holes too.
"""

from collections.abc import Callable

import igl
import numpy as np
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree

from overfit.geometry.mesh import igl_arrays
from overfit.geometry.point_cloud import PointCloud, point_areas, voxel_downsample
from overfit.geometry.sparse_marching_cubes import (
    COARSEST_STRIDE,
    Level,
    Nodes,
    closed_surface,
    keep_off_zero,
    sparse_grid,
)
from overfit.runtime.errors import BadInput

# Side of a grid cell; marching cubes puts vertices between nodes, so that the surface is finer than that.
CELL_MM = 1.5
# Neighbours from which a cloud's distance is computed.
NEIGHBOURS = 8
# Points of a cloud closer to each other than this add nothing.
SPACING_MM = 0.7
# Far from a cloud, points this far apart give its distance well enough.
FAR_SPACING_MM = 6.0
# The winding number is asked for some millimetres off the surface: of points this far apart it is as good there, and
# needs a tenth of the memory and time.
WINDING_SPACING_MM = 2.0
# Planes through a cloud's points hold within this multiple of the points' spacing.
PLANE_REACH = 4.0
# A point's area counts as at most this multiple of the median, so that the planes of lone points do not reach far.
MAX_RELATIVE_AREA = 4
# How fast a neighbour's weight falls with its distance, relative to that of the farthest neighbour.
PLANE_FALLOFF = 2
# Queries that are answered at a time: all neighbours of all of them would not fit the memory.
CHUNK_QUERIES = 200_000
# Keeps the relative distance finite if all neighbours coincide with the point.
MIN_DISTANCE_MM = 1e-9
# Values are kept this far from zero.
MIN_VALUE_MM = 1e-4

SignedField = Callable[[np.ndarray], np.ndarray]
"""Values (n,) at points (n, 3), negative inside."""


def reconstruct_surface(
    surface: trimesh.Trimesh | PointCloud, box: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]
) -> trimesh.Trimesh:
    """Return the closed mesh of everything that a surface encloses in a box, cut flat at the box's sides.

    Args:
        surface: A mesh, which may have holes and flipped triangles, or a cloud with normals.
        box: Its lowest and its highest corner.

    Raises BadInput if the surface encloses nothing.
    """
    low, high = box
    value = _mesh_field(surface) if isinstance(surface, trimesh.Trimesh) else _cloud_field(surface)
    x, y, z = (np.ceil((high - low) / CELL_MM / COARSEST_STRIDE).astype(int) * COARSEST_STRIDE + 1).tolist()
    grid = sparse_grid(
        (x, y, z), evaluate=lambda nodes: _evaluate(value, low, nodes), may_cross=_may_cross, cells="around nodes"
    )
    if not (grid < 0).any():
        raise BadInput("encloses no volume; its surface is too open, or its normals disagree")
    vertices, triangles = closed_surface(grid, outside=CELL_MM)
    mesh = trimesh.Trimesh((low + CELL_MM * vertices).clip(low, high), triangles, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _evaluate(value: SignedField, low: np.ndarray, nodes: Nodes) -> np.ndarray:
    """Values (n,) at nodes of the grid whose lowest corner is `low`."""
    points = np.stack([start + CELL_MM * index for start, index in zip(low, nodes)], axis=1)
    return keep_off_zero(value(points), MIN_VALUE_MM, inside="negative")


def _may_cross(level: Level) -> np.ndarray:
    """Cells around nodes that the surface may cross, or come so close to that finer cells need values there.

    Half a diagonal of a cell is how far the cell around a node reaches, and as much again is how far its values stand
    in at the next level.
    """
    return np.abs(level.values) < np.sqrt(3) * level.stride * CELL_MM


def _mesh_field(mesh: trimesh.Trimesh) -> SignedField:
    """The field f of a mesh."""
    vertices, triangles = igl_arrays(mesh)
    triangles = igl.bfs_orient(triangles)[0]

    def value(points: np.ndarray) -> np.ndarray:
        distance = np.sqrt(igl.point_mesh_squared_distance(points, vertices, triangles)[0])
        winding = np.abs(igl.fast_winding_number(vertices, triangles, points))
        return _combine(distance, winding)

    return value


def _cloud_field(cloud: PointCloud) -> SignedField:
    """The field f of an oriented cloud; close to its points, the signed distance from planes through them.

    Close to the points the winding number is rough, while planes through them are smooth (Kolluri 2008). Far away a
    rough distance is enough, since the winding number decides where the surface is.
    """
    cloud = voxel_downsample(cloud, SPACING_MM)
    points, normals = cloud.points, cloud.known_normals
    tree, far_tree = cKDTree(points), cKDTree(voxel_downsample(cloud, FAR_SPACING_MM).points)
    areas = point_areas(points)
    winding_points, winding_normals, winding_areas = _winding_arrays(voxel_downsample(cloud, WINDING_SPACING_MM))
    reach = PLANE_REACH * np.sqrt(np.minimum(areas, MAX_RELATIVE_AREA * np.median(areas)))

    def value(queries: np.ndarray) -> np.ndarray:
        values = np.empty(len(queries))
        # The bound makes the tree several times faster for everything that lies beyond it.
        nearest, member = tree.query(queries, distance_upper_bound=reach.max())
        # Queries without a point within the bound have the index after the last point.
        close = nearest < np.append(reach, 0)[member]
        chunks = np.array_split(queries[close], len(queries) // CHUNK_QUERIES + 1)
        values[close] = np.concatenate([_plane_distance(chunk, tree, normals) for chunk in chunks])
        far = np.ascontiguousarray(queries[~close])
        values[~close] = _combine(
            far_tree.query(far)[0], igl.fast_winding_number(winding_points, winding_normals, winding_areas, far)
        )
        return values

    return value


def _winding_arrays(cloud: PointCloud) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (n, 3), normals (n, 3) and areas (n,) of a cloud in the layout that libigl takes."""
    points, normals = np.ascontiguousarray(cloud.points), np.ascontiguousarray(cloud.known_normals)
    return points, normals, point_areas(points)


def _plane_distance(queries: np.ndarray, tree: cKDTree, normals: np.ndarray) -> np.ndarray:
    """Signed distances (n,) from the planes through the nearest points, averaged with smooth weights."""
    distance, nearest = tree.query(queries, NEIGHBOURS)
    offset = ((queries[:, None] - tree.data[nearest]) * normals[nearest]).sum(-1)
    weight = np.exp(-PLANE_FALLOFF * (distance / (distance[:, -1:] + MIN_DISTANCE_MM)) ** 2)
    return (weight * offset).sum(1) / weight.sum(1)


def _combine(distance: np.ndarray, winding: np.ndarray) -> np.ndarray:
    """The field f of unsigned distances (n,) and winding numbers (n,)."""
    winding = winding.clip(0, 1)
    return distance * (1 - 2 * winding) / (1 + 6 * winding * (1 - winding))
