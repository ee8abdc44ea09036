"""Signed distances: a mesh and points in, distances in the unit of both out, negative inside."""

import igl
import numpy as np
import trimesh
from jaxtyping import Bool, Float

from overfit.geometry.mesh import igl_arrays
from overfit.geometry.rays import ray_intersector, spread_directions

# Points in a cell of this side (mm) are measured one after another, so that the tree's branches stay in the cache.
CELL_MM = 16.0
# The generalised winding number is 1 inside a closed mesh and 0 outside.
INSIDE_WINDING = 0.5
# Rays start this far (mm) off the surface, or they would hit the triangle that they start from.
RAY_OFFSET_MM = 0.01
# Directions in which a point may see out of a mesh.
VIEW_DIRECTIONS = 64
# A point that sees out in fewer of them may be in a cavity.
MIN_OPEN_DIRECTIONS = 5
# Ways out of a cavity that are narrower (mm) are not counted.
MAX_OPENING_MM = 3.5
UP = np.array([0.0, 1.0, 0.0])
DOWN = -UP


def winding_number_distance(mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Return signed distances, inside where the generalised winding number is at least one half.

    Jacobson et al. 2013, in the fast form of Barill et al. 2018; both by libigl. Flipped triangles are turned to agree
    with their neighbours first, and the sign of the winding number does not matter, so that a mesh which is inside out
    has an inside too.
    """
    vertices, triangles = igl_arrays(mesh)
    if not mesh.is_winding_consistent:
        triangles = igl.bfs_orient(triangles)[0]
    order = np.lexsort(np.floor(points / CELL_MM).T)
    ordered = np.ascontiguousarray(points[order])
    if mesh.is_watertight and mesh.volume > 0:
        signed = _closed_mesh_distance(mesh, vertices, triangles, ordered)
    else:
        squared = igl.point_mesh_squared_distance(ordered, vertices, triangles)[0]
        signed = _sign_by_winding(vertices, triangles, ordered) * np.sqrt(squared)
    distance = np.empty_like(signed)
    distance[order] = signed
    return distance


def depth_scan_distance(mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Return signed distances by mesh-to-sdf: inside is what none of its 100 virtual depth cameras can see."""
    # Imported here: it needs OpenGL.
    from overfit.geometry.mesh_to_sdf import signed_distance

    return signed_distance(mesh, points)


def in_narrow_gap(
    mesh: trimesh.Trimesh,
    points: Float[np.ndarray, "n 3"],
    *,
    distance: Float[np.ndarray, " n"],
    width: float,
) -> Bool[np.ndarray, " n"]:
    """Return whether points with these signed distances lie outside, between two walls less than `width` apart."""
    close = np.nonzero((distance > 0) & (distance < width))[0]
    away = trimesh.util.unitize(points[close] - nearest_points(mesh, points[close]))
    in_gap = np.zeros(len(points), bool)
    in_gap[close] = distance[close] + distance_to_wall(mesh, points[close], directions=away) < width
    return in_gap


def nearest_points(mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Return the point of the mesh closest to each point."""
    return igl.point_mesh_squared_distance(points, *igl_arrays(mesh))[2]


def hidden_faces(mesh: trimesh.Trimesh) -> Bool[np.ndarray, " faces"]:
    """Return which triangles are hidden in gaps, or in cavities behind them, as behind lips that are all but closed.

    They see out in few directions, and parts that lie less than `MAX_OPENING_MM` from what is opposite cut them off
    from the rest of the surface. The end of a nostril sees out in few directions too, but its wall is one with the
    skin.
    """
    offsets = RAY_OFFSET_MM * mesh.face_normals
    hidden = ~_in_largest_open_piece(mesh, mesh.triangles_center + offsets)
    # From both sides, since a scan's triangles may be turned either way.
    for side in (1, -1):
        hidden[hidden] = _sees_little(mesh, (mesh.triangles_center + side * offsets)[hidden])
    return hidden


def _in_largest_open_piece(mesh: trimesh.Trimesh, starts: np.ndarray) -> np.ndarray:
    """(faces,) whether triangles are of the largest piece when those with little room in front of them are left out.

    `starts` (faces, 3) lie in front of the triangles.
    """
    is_open = distance_to_wall(mesh, starts, directions=mesh.face_normals) > MAX_OPENING_MM
    joined = mesh.face_adjacency[is_open[mesh.face_adjacency].all(1)]
    piece = trimesh.graph.connected_component_labels(joined, node_count=len(mesh.faces))
    return piece == np.bincount(piece, mesh.area_faces).argmax()


def _sees_little(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """(n,) whether points see out of the mesh in fewer than `MIN_OPEN_DIRECTIONS` of `VIEW_DIRECTIONS` directions."""
    intersector = ray_intersector(mesh)
    open_directions = np.zeros(len(points), int)
    doubtful = np.arange(len(points))
    for direction in spread_directions(VIEW_DIRECTIONS):
        open_directions[doubtful] += ~intersector.intersects_any(
            points[doubtful], np.broadcast_to(direction, (len(doubtful), 3))
        )
        # Most points see out in the first directions.
        doubtful = doubtful[open_directions[doubtful] < MIN_OPEN_DIRECTIONS]
    return open_directions < MIN_OPEN_DIRECTIONS


def distance_to_wall(
    mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"], *, directions: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Return the distance from each point in its unit direction to the mesh, infinite if it meets none."""
    hits, ray, _ = ray_intersector(mesh).intersects_location(points, directions, multiple_hits=False)
    distance = np.full(len(points), np.inf)
    # trimesh's own engine returns no rows and no columns if nothing is hit.
    distance[ray] = np.linalg.norm(hits.reshape(-1, 3) - points[ray], axis=1)
    return distance


def _closed_mesh_distance(
    mesh: trimesh.Trimesh, vertices: np.ndarray, triangles: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Signed distances (n,) to a watertight mesh.

    The sign comes with the distance (Bærentzen and Aanæs 2005) at a third of the cost of the winding number, but it
    can be wrong at any depth below a self-intersection. Two rays, which fail elsewhere, give the sign too, and the
    winding number decides where the three differ.
    """
    signed = igl.signed_distance(points, vertices, triangles, igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL)[0]
    votes = [signed < 0] + [_behind_wall(mesh, points, direction) for direction in (UP, DOWN)]
    doubtful = np.nonzero(~np.logical_and.reduce(votes) & np.logical_or.reduce(votes))[0]
    if len(doubtful):
        signed[doubtful] = _sign_by_winding(vertices, triangles, points[doubtful]) * np.abs(signed[doubtful])
    return signed


def _sign_by_winding(vertices: np.ndarray, triangles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """-1.0 inside and 1.0 outside (n,), by the generalised winding number."""
    winding = igl.fast_winding_number(vertices, triangles, points)
    return np.where(np.abs(winding) >= INSIDE_WINDING, -1.0, 1.0)


def _behind_wall(mesh: trimesh.Trimesh, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(n,) whether the first triangle in a direction (3,) shows each point its back."""
    hits = ray_intersector(mesh).intersects_first(points, np.broadcast_to(direction, points.shape))
    return (hits >= 0) & (mesh.face_normals[hits] @ direction > 0)
