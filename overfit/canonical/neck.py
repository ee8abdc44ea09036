"""The neck: a closed head that ends in a plane in, the height of the plane out, and heads extended below or cut there.

The plane at which a scan was cut is no part of the head's shape. A warp would tilt it, differently for each head, and
the networks would have to carry it. So heads are fitted with longer necks, and cut after decoding.
"""

import manifold3d
import numpy as np
import trimesh

# Cosine from which a triangle faces straight down.
DOWN_COSINE = 0.99
# Triangles this far (mm) from the lowest vertex still lie in the plane.
PLANE_TOLERANCE_MM = 0.5
# Smallest area of a neck's cut, in mm^2: a child's neck has 4,000, the point of a chin far less.
MIN_AREA_MM2 = 2000.0
# How far necks are extended below the plane, in mm: beyond where the plane of any other head lies.
EXTENSION_MM = 60.0


def neck_height(mesh: trimesh.Trimesh) -> float | None:
    """Return the height in millimetres of the horizontal plane in which a mesh ends below, or None if there is none."""
    return float(mesh.bounds[0, 1]) if _neck_cut(mesh).any() else None


def without_neck_cut(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return the mesh without the triangles of the neck's cut: open below."""
    return trimesh.Trimesh(mesh.vertices, mesh.faces[~_neck_cut(mesh)], process=False)


def extend_neck(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return a mesh that ends in a plane with its neck extended straight down; any other mesh as it is."""
    cut = _neck_cut(mesh)
    if not cut.any():
        return mesh
    rim = _boundary_edges(mesh.faces[cut])
    used = np.unique(mesh.faces[cut])
    lowered = np.full(len(mesh.vertices), -1)
    lowered[used] = len(mesh.vertices) + np.arange(len(used))
    below = mesh.vertices[used] - np.array([0.0, EXTENSION_MM, 0.0])
    # An edge of the cut runs the other way round in the neck's wall.
    a, b = rim.T
    wall = np.concatenate([np.stack([a, b, lowered[b]], axis=1), np.stack([a, lowered[b], lowered[a]], axis=1)])
    faces = np.concatenate([mesh.faces[~cut], lowered[mesh.faces[cut]], wall])
    return trimesh.Trimesh(np.concatenate([mesh.vertices, below]), faces, process=False)


def cut_neck(mesh: trimesh.Trimesh, height: float) -> trimesh.Trimesh:
    """Return what lies above a height of a closed mesh, closed by a plane; without triangles if nothing lies there."""
    if mesh.bounds[0, 1] >= height:
        return mesh
    above = mesh.vertices[:, 1] > height
    # Each triangle turned so that its corner on one side alone, if there is one, comes first.
    faces, is_above = mesh.faces, above[mesh.faces]
    count = is_above.sum(1)
    crossing = (count == 1) | (count == 2)
    if not crossing.any():
        return trimesh.Trimesh(mesh.vertices, faces[count == 3], process=False)
    alone = np.where(count == 1, is_above.argmax(1), is_above.argmin(1))[crossing]
    corners = faces[crossing][np.arange(len(alone))[:, None], (alone[:, None] + np.arange(3)) % 3]
    edges, index = np.unique(np.sort(corners[:, [0, 1, 0, 2]].reshape(-1, 2), axis=1), axis=0, return_inverse=True)
    first, second = len(mesh.vertices) + index.reshape(-1, 2).T
    tip, b, c = corners.T
    tip_above = above[tip]
    kept = [
        faces[count == 3],
        np.stack([tip, first, second], axis=1)[tip_above],
        np.stack([first, b, c], axis=1)[~tip_above],
        np.stack([first, c, second], axis=1)[~tip_above],
    ]
    # Where the tip is kept, the cut's own triangle runs along the crossing the other way round, and so on.
    rim = np.where(tip_above[:, None], np.stack([second, first], axis=1), np.stack([first, second], axis=1))
    vertices = np.concatenate([mesh.vertices, _points_at_height(mesh.vertices, edges, height)])
    cut = trimesh.Trimesh(vertices, np.concatenate([*kept, _fill(vertices, rim)]), process=False)
    cut.remove_unreferenced_vertices()
    return cut


def _points_at_height(vertices: np.ndarray, edges: np.ndarray, height: float) -> np.ndarray:
    """The points (n, 3) in which edges (n, 2) cross a height."""
    start, end = vertices[edges[:, 0]], vertices[edges[:, 1]]
    share = (height - start[:, 1]) / (end[:, 1] - start[:, 1])
    points = start + share[:, None] * (end - start)
    points[:, 1] = height
    return points


def _fill(vertices: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """Triangles (n, 3) that face down and fill directed closed loops of edges (n, 2) in a horizontal plane."""
    following = dict(rim.tolist())
    loops = []
    while following:
        start, end = following.popitem()
        loop = [start]
        while end != start:
            loop.append(end)
            end = following.pop(end)
        loops.append(np.array(loop))
    order = np.concatenate(loops)
    # Seen from below, x runs to the right and z upwards for normals that point down.
    triangles = manifold3d.triangulate([vertices[loop][:, [0, 2]] for loop in loops])
    return order[np.asarray(triangles)]


def _neck_cut(mesh: trimesh.Trimesh) -> np.ndarray:
    """Whether each triangle lies in the horizontal plane in which the mesh ends; none does without such a plane."""
    limit = mesh.bounds[0, 1] + PLANE_TOLERANCE_MM
    cut = (mesh.face_normals[:, 1] < -DOWN_COSINE) & (mesh.triangles[:, :, 1].max(1) < limit)
    return cut & (mesh.area_faces[cut].sum() >= MIN_AREA_MM2)


def _boundary_edges(faces: np.ndarray) -> np.ndarray:
    """Directed edges (n, 2) of triangles that no other of them shares."""
    edges = trimesh.geometry.faces_to_edges(faces)
    _, inverse, counts = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    return edges[counts[inverse] == 1]
