"""Triangle meshes: their connected components, points on their surface, where it bends and where the face is."""

import math
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array, csgraph

# Attribute of the vertices of completed heads, 1 where a scan shows them and 0 where they are invented.
SEEN = "seen"
# Sides of triangles shorter than this (mm) say nothing about how a surface bends.
MIN_SIDE_MM = 0.2
# Radians per millimetre, a crease of 2 mm: sharper curvature has no more to show, and a spike would draw all points.
MAX_CURVATURE = 0.5
# Sides of a box shorter than this count as this long, so that a flat mesh has a face region too.
MIN_EXTENT = 1e-9


@dataclass(frozen=True)
class FaceRegion:
    """The front of the face: what looks forward in a part of the head's bounding box, in the canonical frame.

    Positions are shares of the box's sides, from its lowest corner.
    """

    back: float
    """Share of the depth at which the region begins."""
    bottom: float
    """Share of the height at which it begins."""
    top: float = math.inf
    """Share of the height at which it ends."""

    def contains(
        self,
        points: Float[np.ndarray, "n 3"],
        normals: Float[np.ndarray, "n 3"],
        *,
        bounds: Float[np.ndarray, "2 3"],
    ) -> Bool[np.ndarray, " n"]:
        """Whether each point of a head with these bounds lies on the front of the face."""
        low, high = bounds
        share = (points - low) / np.maximum(high - low, MIN_EXTENT)
        height, depth = share[:, 1], share[:, 2]
        return (depth > self.back) & (height > self.bottom) & (height < self.top) & (normals[:, 2] > 0)


# Where labels are denser and errors are measured: from chin to forehead, without the ears.
LABEL_FACE = FaceRegion(back=0.66, bottom=0.25)
# What registration compares: without the forehead, where hair begins.
REGISTRATION_FACE = FaceRegion(back=0.6, bottom=0.25, top=0.75)


def on_face_front(mesh: trimesh.Trimesh, region: FaceRegion = LABEL_FACE) -> Bool[np.ndarray, " triangles"]:
    """Whether each triangle's centre lies on the front of the face."""
    return region.contains(mesh.triangles_center, mesh.face_normals, bounds=mesh.bounds)


def largest_component(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return the connected component with the most triangles."""
    return connected_components(mesh)[0]


def seen_faces(mesh: trimesh.Trimesh) -> Bool[np.ndarray, " triangles"]:
    """Return which triangles of a head are not invented: all, unless its vertices have the attribute `seen`."""
    if SEEN not in mesh.vertex_attributes:
        return np.ones(len(mesh.faces), bool)
    seen: np.ndarray = np.asarray(mesh.vertex_attributes[SEEN], bool)[mesh.faces]
    return np.logical_and.reduce(seen, axis=1)


def seen_share(mesh: trimesh.Trimesh) -> float:
    """Return the share of a head's area that is not invented."""
    return float(mesh.area_faces[seen_faces(mesh)].sum() / mesh.area_faces.sum())


def connected_components(mesh: trimesh.Trimesh) -> list[trimesh.Trimesh]:
    """Return the connected components, the one with the most triangles first. Triangles that share a vertex connect.

    Around each vertex of marching cubes lies one closed fan of triangles, so that shared edges would give the same
    components; sorting edges takes four times as long.
    """
    starts, ends = mesh.faces[:, :2].ravel(), mesh.faces[:, 1:].ravel()
    count = len(mesh.vertices)
    links = coo_array((np.ones(len(starts), bool), (starts, ends)), shape=(count, count))
    of_vertex = csgraph.connected_components(links, directed=False)[1]
    of_face = of_vertex[mesh.faces[:, 0]]
    sizes = np.bincount(of_face)
    components = []
    # Vertices of no triangle are components of size 0.
    for component in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
        kept = of_vertex == component
        triangles = (np.cumsum(kept) - 1)[mesh.faces[of_face == component]]
        components.append(trimesh.Trimesh(mesh.vertices[kept], triangles, process=False))
    return components


def sample_points(mesh: trimesh.Trimesh, count: int, *, rng: np.random.Generator) -> Float[np.ndarray, "count 3"]:
    """Return points on a mesh, uniform by area."""
    return sample_surface(mesh, count, rng=rng)[0]


def sample_surface(
    mesh: trimesh.Trimesh,
    count: int,
    *,
    rng: np.random.Generator,
    face_share: float = 0.0,
    detail_share: float = 0.0,
) -> tuple[Float[np.ndarray, "count 3"], Float[np.ndarray, "count 3"]]:
    """Return points on a mesh and the mesh's normals there.

    Args:
        mesh: The mesh, in millimetres if a share is given.
        count: How many points.
        rng: The source of randomness.
        face_share: Share of the points that lie where the front of the face bends.
        detail_share: Share of the points that lie where any part of the mesh bends. The other points, and the share of
            a part that the mesh does not have, are uniform by area.
    """
    area = mesh.area_faces / mesh.area_faces.sum()
    weight = area
    if face_share or detail_share:
        bent = area * curvature(mesh)
        for share, part in ((face_share, bent * on_face_front(mesh)), (detail_share, bent)):
            if part.sum() > 0:
                weight = weight + share * (part / part.sum() - area)
    triangles = rng.choice(len(weight), count, p=weight)
    return sample_triangles(mesh.triangles[triangles], rng), mesh.face_normals[triangles]


def sample_triangles(triangles: Float[np.ndarray, "n 3 d"], rng: np.random.Generator) -> Float[np.ndarray, "n d"]:
    """Return one uniform point in each triangle, after Osada et al., Shape Distributions (2002), equation 1."""
    u, v = rng.random((2, len(triangles), 1))
    a, b, c = triangles.transpose(1, 0, 2)
    root = np.sqrt(u)
    return (1 - root) * a + root * (1 - v) * b + root * v * c


def curvature(mesh: trimesh.Trimesh) -> Float[np.ndarray, " triangles"]:
    """Return how much each triangle bends, in radians per millimetre and at most `MAX_CURVATURE`.

    That is the largest difference between the normals at two of its corners, over the length of the side between them.
    """
    bend = np.zeros(len(mesh.faces))
    normals, corners = mesh.vertex_normals[mesh.faces], mesh.triangles
    for one, other in ((0, 1), (1, 2), (2, 0)):
        side = np.linalg.norm(corners[:, one] - corners[:, other], axis=1)
        turn = np.linalg.norm(normals[:, one] - normals[:, other], axis=1)
        bend = np.maximum(bend, turn / np.maximum(side, MIN_SIDE_MM))
    return np.minimum(bend, MAX_CURVATURE)


def igl_arrays(mesh: trimesh.Trimesh) -> tuple[Float[np.ndarray, "vertices 3"], Int[np.ndarray, "triangles 3"]]:
    """Return vertices and triangles in the types that libigl takes."""
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
