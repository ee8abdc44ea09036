"""Occupancy labels: a mesh in millimetres in, points in the field's cube and signed distances to the surface out.

The sign says inside (negative) or outside; the distance lets the fit soften its targets close to the surface, where
the hard step of the published method makes islands and needs three to four times as many steps.
"""

from dataclasses import dataclass
from typing import Literal

import igl
import numpy as np
import trimesh

from .cube import Cube
from .errors import BadInput

Labels = Literal["winding", "mesh-to-sdf"]
# On how many points the cheap sign of a closed mesh is compared with the winding number, and how well it must agree.
SIGN_SAMPLE = 5_000
SIGN_AGREEMENT = 0.999


@dataclass(frozen=True)
class Sampling:
    """Where the labelled points of a scan lie."""

    # How inside is told: generalised winding number (open, flipped or broken meshes), or depth scans from all around
    # by mesh-to-sdf (triangle soups whose inner surfaces should not count).
    labels: Labels = "winding"
    # Points close to the surface.
    near: int = 100_000
    # Their standard deviation about the surface, in millimetres.
    near_mm: float = 2.0
    # Points in a wider band about the surface, against islands.
    wide: int = 50_000
    # Their standard deviation about the surface, in millimetres.
    wide_mm: float = 10.0
    # Points uniform in the cube, against islands far from the head.
    uniform: int = 20_000
    # Share of the close points that lie on the front of the face, which people look at first.
    face: float = 0.33


@dataclass(frozen=True)
class Occupancy:
    """Labelled points of one scan."""

    # (n, 3) float32 in the field's cube: first the close ones, then the wide band, then the uniform ones.
    points: np.ndarray
    # (n,) float32 signed distance to the surface in millimetres, negative inside.
    distance: np.ndarray


def label(mesh: trimesh.Trimesh, cube: Cube, sampling: Sampling, rng: np.random.Generator) -> Occupancy:
    """Labelled points of a mesh in millimetres. Raises BadInput where the mesh encloses nothing."""
    offsets = rng.standard_normal((sampling.near + sampling.wide, 3))
    offsets *= np.repeat([sampling.near_mm, sampling.wide_mm], [sampling.near, sampling.wide])[:, None]
    surface = np.concatenate([surface_points(mesh, sampling.near, rng, sampling.face),
                              surface_points(mesh, sampling.wide, rng)])
    uniform = cube.to_millimetres(rng.uniform(-1, 1, (sampling.uniform, 3)))
    points = np.concatenate([surface + offsets, uniform])
    measure = {"winding": winding_distance, "mesh-to-sdf": scanned_distance}[sampling.labels]
    distance = measure(mesh, points)
    if not (distance < 0).any():
        raise BadInput("encloses no volume; close the scan's surface, or try --labels mesh-to-sdf")
    return Occupancy(cube.to_field(points).astype(np.float32), distance.astype(np.float32))


def surface_points(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator, face: float = 0.0) -> np.ndarray:
    """(count, 3) points on a mesh, uniform by area but for a share of `face`, which lies on the face's front."""
    weight = mesh.area_faces / mesh.area_faces.sum()
    front = weight * on_face(mesh)
    if face and front.sum() > 0:
        weight = (1 - face) * weight + face * front / front.sum()
    triangles = rng.choice(len(weight), count, p=weight)
    return barycentric_points(mesh.triangles[triangles], rng)


def barycentric_points(triangles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One uniform point in each triangle (n, 3, 3) -> (n, 3), after Osada et al., Shape Distributions (2002)."""
    u, v = rng.random((2, len(triangles), 1))
    a, b, c = triangles.transpose(1, 0, 2)
    root = np.sqrt(u)
    return (1 - root) * a + root * (1 - v) * b + root * v * c


def on_face(mesh: trimesh.Trimesh) -> np.ndarray:
    """(triangles,) whether each looks forward and lies in the front third and the upper three quarters."""
    low, high = mesh.bounds
    place = (mesh.triangles_center - low) / np.maximum(high - low, 1e-9)
    return (place[:, 2] > 0.66) & (place[:, 1] > 0.25) & (mesh.face_normals[:, 2] > 0)


def winding_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Signed distance (n,), inside where the generalised winding number is at least one half.

    Jacobson et al. 2013, in the fast form of Barill et al. 2018; both by libigl. Flipped triangles are turned to agree
    with their neighbours first, and a mesh that is inside out as a whole is taken as it was meant.

    On a closed mesh the sign comes with the distance (Bærentzen and Aanæs 2005) at a third of the cost; it is taken
    where it agrees with the winding number on a sample, which it does not where the mesh cuts itself.
    """
    vertices, triangles = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    if not mesh.is_winding_consistent:
        triangles = igl.bfs_orient(triangles)[0]

    def inside(points: np.ndarray) -> np.ndarray:
        return np.abs(igl.fast_winding_number(vertices, triangles, points)) >= 0.5

    if mesh.is_watertight:
        signed = igl.signed_distance(points, vertices, triangles, igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL)[0]
        sample = slice(None, None, max(1, len(points) // SIGN_SAMPLE))
        if ((signed[sample] < 0) == inside(points[sample])).mean() > SIGN_AGREEMENT:
            return signed
        return np.where(inside(points), -1.0, 1.0) * np.abs(signed)
    squared = igl.point_mesh_squared_distance(points, vertices, triangles)[0]
    return np.where(inside(points), -1.0, 1.0) * np.sqrt(squared)


def scanned_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Signed distance (n,) by mesh-to-sdf: inside is what none of its 100 virtual depth cameras can see."""
    from .depth_scans import signed_distance

    return signed_distance(mesh, points)
