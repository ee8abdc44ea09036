"""Rays against a mesh: embreex where it is installed, trimesh's own slower engine elsewhere."""

from typing import Any

import trimesh
from trimesh.ray.ray_triangle import RayMeshIntersector


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
