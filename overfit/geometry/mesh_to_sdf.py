"""Signed distances by mesh-to-sdf: a mesh and points in, what 100 virtual depth cameras see of them out.

A point is inside when no camera sees it, so the inner surfaces of a triangle soup do not count and its triangles need
not agree on a side. A hole in the scan lets the cameras look in: open scans want the winding number instead.
"""

import logging
import os
from types import ModuleType

import numpy as np
import trimesh
from jaxtyping import Float

from overfit.runtime.errors import BadInput

# What mesh-to-sdf's renderer needs to draw without a screen, on Debian.
GL_PACKAGES = "libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri"


def signed_distance(mesh: trimesh.Trimesh, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Return signed distances, negative inside, in the unit of mesh and points. Raises BadInput without OpenGL."""
    mesh_to_sdf = _import_mesh_to_sdf()
    centre = mesh.bounds.mean(0)
    radius = float(np.linalg.norm(np.ptp(mesh.bounds, axis=0)) / 2)
    unit_mesh = trimesh.Trimesh((mesh.vertices - centre) / radius, mesh.faces, process=False)
    distance = mesh_to_sdf.mesh_to_sdf(
        unit_mesh,
        (points - centre) / radius,
        surface_point_method="scan",
        sign_method="depth",
        bounding_radius=1.0,
    )
    # Cameras stand around the mesh's sphere and look inward: what lies beyond it is outside, seen or not.
    beyond = np.linalg.norm(points - centre, axis=1) > radius
    return np.where(beyond, np.abs(distance), distance) * radius


def _import_mesh_to_sdf() -> ModuleType:
    """The mesh_to_sdf module, set up to draw without a screen. Imported here only: it takes 3 s and needs OpenGL."""
    # Read at PyOpenGL's import: its default looks for a display.
    os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
    log = logging.getLogger("trimesh")
    level = log.level
    try:
        import mesh_to_sdf
    # PyOpenGL raises AttributeError, ImportError or its own errors, depending on what it misses first.
    except Exception as error:
        raise BadInput(
            f"`sign_method=mesh-to-sdf` needs OpenGL without a screen ({error}); "
            f"install it, on Debian by `apt-get install {GL_PACKAGES}`"
        ) from error
    finally:
        log.setLevel(level)
    return mesh_to_sdf
