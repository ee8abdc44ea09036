"""Alignment: a head's mesh in, its warp from canonical space out.

Canonical space is the template's. The template is registered densely on each head, and the warp is the smooth map that
carries the template's vertices closest to where they lie on the head.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import trimesh
from jaxtyping import Float

from overfit.canonical.dense_registration import register_dense
from overfit.canonical.neck import neck_height, without_neck_cut
from overfit.canonical.shape_model import ShapeModel
from overfit.canonical.warp import Warp, WarpSpace, interpolation
from overfit.geometry.bounding_cube import Cube
from overfit.geometry.similarity import Similarity
from overfit.runtime.errors import BadInput

# Control points of a similarity transform: the corners of a cube in mm, whose displacements determine it.
CORNERS = tuple((x, y, z) for x in (-100.0, 100.0) for y in (-100.0, 100.0) for z in (-100.0, 100.0))
# Fewer points cannot carry a warp; more than the template has vertices on the head there are none.
MIN_CONTROL_POINTS = 16
MAX_CONTROL_POINTS = 2000
# Vertices of a head whose place in canonical space gives its bounds there.
BOUNDS_VERTICES = 3000
# Space about the template in which warps must not fold before the store's cube is known, as a share of its size.
BOUNDS_MARGIN = 0.5


@dataclass(frozen=True)
class AlignmentConfig:
    """How scans are aligned with each other before they are fitted."""

    align: Literal["warp", "similarity", "none"] = "warp"
    """Bring eyes, nose, lips and ears of all heads to one place before fitting: by a smooth warp of each head, by a
    similarity transform, or not at all. The warp is generated with the head."""
    control_points: int = 400
    """Control points of a warp, denser on the face."""

    def __post_init__(self) -> None:
        if not MIN_CONTROL_POINTS <= self.control_points <= MAX_CONTROL_POINTS:
            raise BadInput(
                f"`control_points={self.control_points}`: give {MIN_CONTROL_POINTS} to {MAX_CONTROL_POINTS:,}"
            )


@dataclass(frozen=True)
class ScanAlignment:
    """A head's place in canonical space."""

    displacements: Float[np.ndarray, "K 3"]
    """By how much its warp moves the control points, in millimetres."""
    bounds: Float[np.ndarray, "2 3"]
    """Lower and upper bounds of the head in canonical space, in millimetres."""
    neck_height: float
    """Height in millimetres of the head's lowest point."""
    ends_in_plane: bool
    """Whether the head ends there in a horizontal plane."""


def align(mesh: trimesh.Trimesh, config: AlignmentConfig) -> ScanAlignment:
    """Return the place in canonical space of a head in millimetres, upright, +z out of the face."""
    height = neck_height(mesh)
    low = float(mesh.bounds[0, 1]) if height is None else height
    if config.align == "none":
        return ScanAlignment(np.zeros((0, 3)), np.array(mesh.bounds), low, height is not None)
    model = ShapeModel.standard()
    vertices = register_dense(without_neck_cut(mesh), model).vertices(model)
    displacements = _displacements(vertices, model, config)
    space = Cube.around(np.array([model.mesh.bounds]), BOUNDS_MARGIN)
    warp = Warp(WarpSpace(control_points(config)), displacements).unfolded(space)
    step = -(-len(mesh.vertices) // BOUNDS_VERTICES)
    canonical = warp.inverse(np.asarray(mesh.vertices[::step]))
    return ScanAlignment(displacements, np.stack([canonical.min(0), canonical.max(0)]), low, height is not None)


@cache
def control_points(config: AlignmentConfig) -> tuple[tuple[float, float, float], ...]:
    """Return the control points of the warps in canonical space, in millimetres."""
    if config.align == "warp":
        x, y, z = ShapeModel.standard().spread_points(config.control_points).T.tolist()
        return tuple(zip(x, y, z))
    return CORNERS if config.align == "similarity" else ()


def _displacements(vertices: np.ndarray, model: ShapeModel, config: AlignmentConfig) -> np.ndarray:
    """Displacements (K, 3) that carry the template's vertices closest to where they lie on a head (vertices, 3)."""
    if config.align == "similarity":
        corners = np.array(CORNERS)
        return Similarity.between(model.mesh.vertices[model.matched], vertices[model.matched])(corners) - corners
    return _from_vertices(config) @ (vertices - model.mesh.vertices)[model.matched]


@cache
def _from_vertices(config: AlignmentConfig) -> np.ndarray:
    """The least-squares matrix (K, matched) from displacements of the template's vertices to the control points'."""
    model = ShapeModel.standard()
    return np.linalg.pinv(interpolation(control_points(config), model.mesh.vertices[model.matched]))
