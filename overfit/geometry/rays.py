"""Rays against a mesh: embreex where it is installed, trimesh's own slower engine elsewhere."""

from typing import Any

import numpy as np
import trimesh
from jaxtyping import Bool, Float
from trimesh.ray.ray_triangle import RayMeshIntersector

# Rays start this share of the mesh's size off the surface, or they would hit the triangle that they start from.
RAY_OFFSET = 1e-4
# Points that see less sky than this are inside: in mouths, behind eyeballs, on the back of a thick wall.
MIN_OPENNESS = 0.05
# Directions in which such a point looks.
LOOKING_DIRECTIONS = 24
# Keeps the division by the weight of all directions finite.
EPSILON = 1e-12


def ray_intersector(mesh: trimesh.Trimesh) -> Any:
    """Return the mesh's ray engine, with `intersects_any`, `intersects_first`, `intersects_location` and
    `intersects_id`.

    embreex has no wheel for some platforms, such as Linux on ARM. Both engines take the same arguments.
    """
    try:
        from trimesh.ray.ray_pyembree import RayMeshIntersector as EmbreeIntersector
    except ImportError:
        return RayMeshIntersector(mesh)
    return EmbreeIntersector(mesh)


def spread_directions(count: int) -> Float[np.ndarray, "count 3"]:
    """Return unit vectors, evenly spread over the sphere by the golden angle, in random order."""
    index = np.random.default_rng(0).permutation(count)
    height = 1 - (2 * index + 1) / count
    angle = np.pi * (3 - 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), height, radius * np.sin(angle)], axis=1)


def openness(
    mesh: trimesh.Trimesh,
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    *,
    directions: int,
) -> Float[np.ndarray, " n"]:
    """Return how much of what lies in front of each point is open: 0 if it sees nothing but the mesh, 1 if only sky.

    Directions count by their cosine to the normal. Points lie on the mesh; rays start a ten thousandth of its size off.
    """
    intersector = ray_intersector(mesh)
    starts = points + RAY_OFFSET * mesh.scale * normals
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    for direction in spread_directions(directions):
        cosine = normals @ direction
        front = np.flatnonzero(cosine > 0)
        rays = np.broadcast_to(direction, (len(front), 3))
        seen[front] += cosine[front] * ~intersector.intersects_any(starts[front], rays)
        total[front] += cosine[front]
    return seen / np.maximum(total, EPSILON)


def seen_from_outside(
    mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
) -> Bool[np.ndarray, " n"]:
    """Return whether each point on a mesh sees some sky in front of it."""
    return openness(mesh, points, normals, directions=LOOKING_DIRECTIONS) > MIN_OPENNESS
