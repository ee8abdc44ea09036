"""Heads of one body: labels and what a fit decodes to in, labels without pockets and islands out.

Closed lips and deep folds seal off pockets of air, and a fit shows them as bubbles inside the head, or as islands where
it is wrong. Neither is seen from outside. Where a fit has such strays, their surroundings decide: the points in and
about a stray are labelled as what lies around it, and the steps that follow heal it.
"""

import igl
import numpy as np
import trimesh

from .cube import Cube
from .decode import bodies
from .occupancy import Occupancy, arrays

# How far about a stray labels are revised, and how deep in what surrounds them they are put, in millimetres.
REACH, DEPTH = 1.0, 1.0
# Points laid in and about the strays of one head, in place of its last ones: few of its own lie there.
EXTRA = 4000


def one_body(label: Occupancy, mesh: trimesh.Trimesh, cube: Cube, rng: np.random.Generator) -> Occupancy:
    """The labels revised about all bodies but the largest; the last `EXTRA` points then lie about these.

    `mesh` is what the fit decodes to so far, in millimetres.
    """
    _, *strays = bodies(mesh)
    if not strays:
        return label
    millimetres, revised = cube.to_millimetres(label.points[:-EXTRA].astype(np.float64)), label.distance[:-EXTRA].copy()
    # Every stray gets as many points as the others: the slivers are the stubborn ones.
    shares = np.bincount(rng.integers(len(strays), size=EXTRA), minlength=len(strays))
    laid = []
    for stray, share in zip(strays, shares):
        # Normals point out of what is solid: a pocket of air within the head has a negative volume.
        side = np.sign(stray.volume)
        about = _about(stray, millimetres)
        revised[about] = side * np.maximum(np.abs(revised[about]), DEPTH)
        laid.append((_laid(stray, share, rng), np.full(share, side * DEPTH)))
    points, distance = (np.concatenate(parts) for parts in zip((millimetres, revised), *laid))
    return Occupancy(cube.to_field(points).astype(np.float32), distance.astype(np.float32))


def _laid(stray: trimesh.Trimesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) points in a stray and within half the reach of its surface."""
    ends = stray.vertices[rng.integers(len(stray.vertices), size=(2, count))]
    close = ends[0] + rng.uniform(-REACH / 2, REACH / 2, (count, 3))
    # Chords of a hollow that is not convex leave it.
    chords = ends[0] + rng.random((count, 1)) * (ends[1] - ends[0])
    return np.where(_inside(stray, chords)[:, None], chords, close)


def _about(stray: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Indices of the points (n, 3) that lie in a stray or within reach of its surface."""
    low, high = stray.bounds
    near = np.nonzero(((points > low - REACH) & (points < high + REACH)).all(1))[0]
    if not len(near):
        return near
    gap = igl.point_mesh_squared_distance(points[near], *arrays(stray))[0] < REACH**2
    return near[gap | _inside(stray, points[near])]


def _inside(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    return np.abs(igl.fast_winding_number(*arrays(mesh), np.ascontiguousarray(points, np.float64))) > 0.5
