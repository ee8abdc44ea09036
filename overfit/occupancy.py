"""Occupancy labels: a mesh in millimetres in, points in the field's cube and signed distances to the surface out.

The sign says inside (negative) or outside; the distance lets the fit soften its targets close to the surface, where
the hard step of the published method makes islands and needs three to four times as many steps.
"""

from dataclasses import dataclass
from typing import Literal

import igl
import numpy as np
import torch
import trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

from .cube import Cube
from .errors import BadInput

Labels = Literal["winding", "mesh-to-sdf"]
# Points of a cell of this side (mm) are measured one after another.
CELL = 16.0
UP = np.array([0.0, 1.0, 0.0])
# Sides of triangles shorter than this (mm) tell nothing of how a surface bends; a bend of more than this (1/mm) is cut.
SIDE, SHARPEST = 0.2, 0.5
# Rays start this far (mm) off the surface, lest they hit it.
EDGE = 0.01


@dataclass(frozen=True)
class Sampling:
    """Where the labelled points of a scan lie."""

    # How inside is told: generalised winding number (open, flipped or broken meshes), or depth scans from all around
    # by mesh-to-sdf (triangle soups whose inner surfaces should not count).
    labels: Labels = "winding"
    # Points close to the surface.
    near: int = 90_000
    # Their standard deviation about the surface, in millimetres.
    near_mm: float = 2.0
    # The same as a share of the cube's side, which goes before the millimetres where it is given; the published 0.01.
    near_share: float = 0.0
    # Points in a wider band about the surface, against islands.
    wide: int = 45_000
    # Their standard deviation about the surface, in millimetres.
    wide_mm: float = 10.0
    # Points uniform in the cube, against islands far from the head.
    uniform: int = 18_000
    # Share of the close points that lie where the front of the face bends: eyes and lips, which people look at first.
    face: float = 0.6
    # Share of them that lie where any part bends: ears, nostrils.
    detail: float = 0.2
    # Gaps narrower than this many millimetres count as inside: between closed lips, between an eye and its lids. Such a
    # network cannot hold them open, and what it makes of them are bubbles and islands.
    gap_mm: float = 0.8

    def __post_init__(self):
        if not (self.face >= 0 and self.detail >= 0 and self.face + self.detail <= 1):
            raise BadInput(f"--face {self.face} --detail {self.detail}: shares of the close points, from 0 to 1 in all")


@dataclass(frozen=True)
class Occupancy:
    """Labelled points of one scan."""

    # (n, 3) float32 in the field's cube: first the close ones, then the wide band, then the uniform ones.
    points: np.ndarray
    # (n,) float32 signed distance to the surface in millimetres, negative inside.
    distance: np.ndarray


def label(mesh: trimesh.Trimesh, cube: Cube, sampling: Sampling, rng: np.random.Generator) -> Occupancy:
    """Labelled points of a mesh in millimetres. Raises BadInput where the mesh encloses nothing."""
    close, normals = surface_samples(mesh, sampling.near, rng, sampling.face, sampling.detail)
    near_mm = sampling.near_share * 2 * cube.half or sampling.near_mm
    offsets = near_mm * rng.standard_normal((sampling.near, 3))
    if sampling.gap_mm:
        # What begins in a gap stays in it, so that there are points enough to close it.
        width = room(mesh, close + EDGE * normals, normals)
        narrow = width < sampling.gap_mm
        offsets[narrow] = normals[narrow] * (rng.random(len(width)) * width)[narrow, None]
    band = surface_points(mesh, sampling.wide, rng) + sampling.wide_mm * rng.standard_normal((sampling.wide, 3))
    uniform = cube.to_millimetres(rng.uniform(-1, 1, (sampling.uniform, 3)))
    points = np.concatenate([close + offsets, band, uniform])
    measure = {"winding": winding_distance, "mesh-to-sdf": scanned_distance}[sampling.labels]
    distance = measure(mesh, points)
    if sampling.gap_mm:
        in_gap = gaps(mesh, points, distance, sampling.gap_mm)
        distance = np.where(in_gap, -sampling.gap_mm / 2, distance)
    if not (distance < 0).any():
        raise BadInput("encloses no volume; close the scan's surface, or try --labels mesh-to-sdf")
    return Occupancy(cube.to_field(points).astype(np.float32), distance.astype(np.float32))


def tensors(labels: list[Occupancy], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (scans, n, 3) and distances (scans, n) of scans with as many points each, on the device."""
    return (torch.from_numpy(np.stack([one.points for one in labels])).to(device),
            torch.from_numpy(np.stack([one.distance for one in labels])).to(device))


def surface_points(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) points on a mesh, uniform by area."""
    return surface_samples(mesh, count, rng)[0]


def surface_samples(mesh: trimesh.Trimesh, count: int, rng: np.random.Generator, face: float = 0.0,
                    detail: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) on a mesh and the normals (count, 3) there.

    A share of `detail` lies where the mesh bends and of `face` where the face's front does, the others uniform by area;
    a share of what the mesh has not goes to these.
    """
    area = weight = mesh.area_faces / mesh.area_faces.sum()
    if face or detail:
        bent = area * bend(mesh)
        for share, part in ((face, bent * on_face(mesh)), (detail, bent)):
            if part.sum() > 0:
                weight = weight + share * (part / part.sum() - area)
    triangles = rng.choice(len(weight), count, p=weight)
    return barycentric_points(mesh.triangles[triangles], rng), mesh.face_normals[triangles]


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


def bend(mesh: trimesh.Trimesh) -> np.ndarray:
    """(triangles,) how much each bends, in radians a millimetre: its corners' normals over the length of its sides.

    At most that of a crease of 2 mm: what is sharper has no more to show, and a spike would draw all points.
    """
    turn = np.zeros(len(mesh.faces))
    normals, corners = mesh.vertex_normals[mesh.faces], mesh.triangles
    for one, other in ((0, 1), (1, 2), (2, 0)):
        side = np.linalg.norm(corners[:, one] - corners[:, other], axis=1)
        turn = np.maximum(turn, np.linalg.norm(normals[:, one] - normals[:, other], axis=1) / np.maximum(side, SIDE))
    return np.minimum(turn, SHARPEST)


def gaps(mesh: trimesh.Trimesh, points: np.ndarray, distance: np.ndarray, width: float) -> np.ndarray:
    """(n,) whether points with these signed distances lie outside, between two walls less than `width` apart."""
    close = np.nonzero((distance > 0) & (distance < width))[0]
    nearest = igl.point_mesh_squared_distance(points[close], *arrays(mesh))[2]
    away = trimesh.util.unitize(points[close] - nearest)
    inside = np.zeros(len(points), bool)
    inside[close] = distance[close] + room(mesh, points[close], away) < width
    return inside


def room(mesh: trimesh.Trimesh, points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """(n,) way in millimetres from points (n, 3) in unit directions (n, 3) to a wall, infinite where there is none."""
    hits, ray, _ = RayMeshIntersector(mesh).intersects_location(points, directions, multiple_hits=False)
    way = np.full(len(points), np.inf)
    way[ray] = np.linalg.norm(hits - points[ray], axis=1)
    return way


def winding_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Signed distance (n,), inside where the generalised winding number is at least one half.

    Jacobson et al. 2013, in the fast form of Barill et al. 2018; both by libigl. Flipped triangles are turned to agree
    with their neighbours first, and a mesh that is inside out as a whole is taken as it was meant.

    On a closed mesh the sign comes with the distance (Bærentzen and Aanæs 2005) at a third of the cost, but it can be
    wrong at any depth below a place where the mesh cuts itself. So two rays are asked too, which fail elsewhere, and
    the winding number where the three differ.
    """
    vertices, triangles = arrays(mesh)
    if not mesh.is_winding_consistent:
        triangles = igl.bfs_orient(triangles)[0]

    def inside(points: np.ndarray) -> np.ndarray:
        return np.abs(igl.fast_winding_number(vertices, triangles, points)) >= 0.5

    # Neighbours one after another: the tree's branches stay in the cache.
    order = np.lexsort(np.floor(points / CELL).T)
    points = np.ascontiguousarray(points[order])
    if mesh.is_watertight and mesh.volume > 0:
        signed = igl.signed_distance(points, vertices, triangles, igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL)[0]
        told = [signed < 0] + [_behind_wall(mesh, points, direction) for direction in (UP, -UP)]
        doubtful = np.nonzero(~np.logical_and.reduce(told) & np.logical_or.reduce(told))[0]
        if len(doubtful):
            signed[doubtful] = np.where(inside(points[doubtful]), -1, 1) * np.abs(signed[doubtful])
    else:
        squared = igl.point_mesh_squared_distance(points, vertices, triangles)[0]
        signed = np.where(inside(points), -1.0, 1.0) * np.sqrt(squared)
    distance = np.empty_like(signed)
    distance[order] = signed
    return distance


def _behind_wall(mesh: trimesh.Trimesh, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """(n,) whether the first triangle in a direction (3,) shows each point its back."""
    hits = RayMeshIntersector(mesh).intersects_first(points, np.broadcast_to(direction, points.shape))
    return (hits >= 0) & (mesh.face_normals[hits] @ direction > 0)


def scanned_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Signed distance (n,) by mesh-to-sdf: inside is what none of its 100 virtual depth cameras can see."""
    from .depth_scans import signed_distance

    return signed_distance(mesh, points)


def arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (n, 3) and triangles (m, 3) in the types that libigl takes."""
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
