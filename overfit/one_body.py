"""Heads of one body: labels and the mesh of an unfinished fit in, labels without pockets and islands out.

Closed lips and deep folds seal off pockets of air, and a fit shows them as bubbles inside the head, or as islands where
it is wrong. Neither is seen from outside. Where an unfinished fit has such strays, their surroundings decide: the
points in and about a stray are labelled as what lies around it, and the rest of the fit heals it.
"""

import igl
import numpy as np
import trimesh

from .cube import Cube
from .decode import bodies

# How far about a stray labels are revised, and how deep in what surrounds them they are put, in millimetres.
REACH, DEPTH = 1.0, 1.0
# Points laid about the strays of one head, in place of its last ones: few of its own lie in a pocket.
EXTRA = 1000


def one_body(points: np.ndarray, distance: np.ndarray, mesh: trimesh.Trimesh, cube: Cube,
             rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) in the cube and their signed distances (n,) in mm, revised about all bodies but the largest.

    `mesh` is what the unfinished fit decodes to, in millimetres.
    """
    head, *strays = bodies(mesh)
    if not strays:
        return points, distance
    laid = np.concatenate([stray.vertices for stray in strays])
    laid = laid[rng.integers(len(laid), size=EXTRA)] + rng.uniform(-REACH / 2, REACH / 2, (EXTRA, 3))
    millimetres = np.concatenate([cube.to_millimetres(points[:-EXTRA].astype(np.float64)), laid])
    # Every point that is laid is within reach of a stray, and takes its side below.
    revised = np.concatenate([distance[:-EXTRA], np.zeros(EXTRA)])
    for stray in strays:
        side = -1 if _winding(head, stray.vertices[:1])[0] > 0.5 else 1
        about = _about(stray, millimetres)
        revised[about] = side * np.maximum(np.abs(revised[about]), DEPTH)
    return cube.to_field(millimetres).astype(np.float32), revised.astype(np.float32)


def _about(stray: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Indices of the points (n, 3) that lie in a stray or within reach of its surface."""
    low, high = stray.bounds
    near = np.nonzero(((points > low - REACH) & (points < high + REACH)).all(1))[0]
    if not len(near):
        return near
    gap = igl.point_mesh_squared_distance(points[near], *_arrays(stray))[0] < REACH**2
    return near[gap | (np.abs(_winding(stray, points[near])) > 0.5)]


def _winding(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    return igl.fast_winding_number(*_arrays(mesh), np.ascontiguousarray(points, np.float64))


def _arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
