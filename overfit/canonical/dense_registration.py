"""Dense registration: a head's mesh in, the template's vertices on that head out.

Non-rigid ICP with a statistical prior: in each round every vertex is matched with the closest point of the head, at
first by position and normal, and pose, modes and smooth offsets are solved for together, by the distances along the
head's normals (Chen and Medioni 1991) with robust weights (Geman and McClure 1985). First only the pose moves, then the
template's modes, then the offsets. Where a head shows nothing, the prior decides, and the vertices lie where the
template's statistics expect them.
"""

from dataclasses import dataclass, replace

import numpy as np
import trimesh
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from overfit.canonical.shape_model import ShapeModel
from overfit.geometry.mesh import sample_surface
from overfit.geometry.point_cloud import median_radius
from overfit.geometry.similarity import Similarity

# Rounds of the pose alone, then of pose and modes, then with smooth offsets.
POSE_ROUNDS = 4
MODE_ROUNDS = 12
OFFSET_ROUNDS = 6
ROUNDS = POSE_ROUNDS + MODE_ROUNDS + OFFSET_ROUNDS
# Points of the head that vertices are matched with.
POINTS = 40_000
# Shares of these that lie where the face bends, and where anything bends.
FACE_SHARE = 0.4
DETAIL_SHARE = 0.2
# Distance in mm that a unit of difference between normals is worth in the search for matches, before offsets move. By
# positions alone, ears that stand out are matched with their back, and pressed to the head.
NORMAL_WEIGHT_MM = 10.0
# Cosine between normals from which a match counts.
MIN_COSINE = 0.3
# Distance in mm at which a match weighs a quarter, in the first round and in the last.
FIRST_WIDTH_MM = 30.0
LAST_WIDTH_MM = 3.0
# Matches farther than this many widths do not count at all: the back of the head must not pull at that of a face mask.
MAX_WIDTHS = 2.0
# Stiffness: how many mm of distance at every vertex one standard deviation of a hundred coefficients is worth.
FIRST_STIFFNESS_MM = 2.0
LAST_STIFFNESS_MM = 0.3
COEFFICIENTS_PER_STIFFNESS = 100
# Keeps the pose from moving where no match says how, relative to the mean of the matrix's diagonal.
DAMPING = 1e-6
# Percentiles of a head's points between which its extent is measured: single points far off do not count.
EXTENT_PERCENTILES = (0.5, 99.5)
# Parameters of the pose: rotation and translation. Size is a matter of the modes, which know children and adults.
# Beside them, a scale runs away on heads that they do not fit.
POSE_SIZE = 6
# Distances in mm above this count as this much when starts are compared: they belong to no head, or to another part.
MAX_START_DISTANCE_MM = 20.0


@dataclass(frozen=True)
class DenseRegistration:
    """The template on a head."""

    pose: Similarity
    """From canonical space to the head."""
    shape: Float[np.ndarray, " modes"]
    """The head's shape in standard deviations of the template's modes."""
    offsets: Float[np.ndarray, "components 3"]
    """Coefficients of the smooth offsets."""

    def vertices(self, model: ShapeModel) -> Float[np.ndarray, "vertices 3"]:
        """Return the template's vertices on the head, in millimetres."""
        return self.pose(model.vertices(self.shape, self.offsets))


@dataclass(frozen=True)
class _Matches:
    """The points that vertices are matched with."""

    offset: np.ndarray
    """From each vertex to its match (matched, 3)."""
    normal: np.ndarray
    """The head's normals there (matched, 3)."""
    weight: np.ndarray
    """How much each match counts (matched,)."""


class _Surface:
    """A head's surface as points that vertices are matched with."""

    def __init__(self, mesh: trimesh.Trimesh):
        rng = np.random.default_rng(0)
        self.points, self.normals = sample_surface(
            mesh, POINTS, rng=rng, face_share=FACE_SHARE, detail_share=DETAIL_SHARE
        )
        self._by_position = cKDTree(self.points)
        self._by_normal_too = cKDTree(_features(self.points, self.normals))

    def distance(self, vertices: np.ndarray) -> float:
        """Return the mean distance in mm of all points to vertices (n, 3): a mask lies on a part of the template."""
        return float(np.minimum(cKDTree(vertices).query(self.points)[0], MAX_START_DISTANCE_MM).mean())

    def match(self, vertices: np.ndarray, normals: np.ndarray, *, width: float, by_normal: bool) -> _Matches:
        """Match vertices (matched, 3) with the closest points; `width` is that of the robust weights."""
        if by_normal:
            nearest = self._by_normal_too.query(_features(vertices, normals))[1]
        else:
            nearest = self._by_position.query(vertices)[1]
        offset, normal = self.points[nearest] - vertices, self.normals[nearest]
        relative = (offset**2).sum(1) / width**2
        counts = ((normal * normals).sum(1) > MIN_COSINE) & (relative < MAX_WIDTHS**2)
        weight = counts / (1 + relative) ** 2
        return _Matches(offset, normal, weight)


def _features(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    return np.concatenate([points, NORMAL_WEIGHT_MM * normals], axis=1)


def register_dense(mesh: trimesh.Trimesh, model: ShapeModel) -> DenseRegistration:
    """Return the template on a head.

    Args:
        mesh: The head in millimetres, upright, +z out of the face; anywhere and of any human size.
        model: The template.
    """
    surface = _Surface(mesh)
    _, components = model.offsets.shape
    posed = [
        _rounds(
            DenseRegistration(pose, np.zeros(len(model.modes)), np.zeros((components, 3))),
            surface,
            model,
            rounds=range(POSE_ROUNDS),
        )
        for pose in _starts(surface.points, model)
    ]
    best = min(posed, key=lambda found: surface.distance(found.vertices(model)[model.matched]))
    return _rounds(best, surface, model, rounds=range(POSE_ROUNDS, ROUNDS))


def _rounds(found: DenseRegistration, surface: _Surface, model: ShapeModel, *, rounds: range) -> DenseRegistration:
    """The registration after some of the rounds."""
    for index in rounds:
        progress = index / (ROUNDS - 1)
        found = _round(
            found,
            surface,
            model,
            width=FIRST_WIDTH_MM * (LAST_WIDTH_MM / FIRST_WIDTH_MM) ** progress,
            stiffness=FIRST_STIFFNESS_MM * (LAST_STIFFNESS_MM / FIRST_STIFFNESS_MM) ** progress,
            moves_modes=index >= POSE_ROUNDS,
            moves_offsets=index >= POSE_ROUNDS + MODE_ROUNDS,
        )
    return found


def _starts(points: np.ndarray, model: ShapeModel) -> list[Similarity]:
    """Poses to start from: that of prepared heads, and two that bring the template's middle, top and front to a head's.

    The last also brings the template to the head's size.
    """
    template = model.mesh.vertices
    size_ratio = median_radius(points) / median_radius(template)
    low, high = np.percentile(points, EXTENT_PERCENTILES, axis=0)
    starts = [Similarity()]
    for scale in (1.0, size_ratio):
        template_low, template_high = scale * template.min(0), scale * template.max(0)
        middle = (low + high - template_low - template_high)[0] / 2
        starts.append(Similarity(scale, translation=np.array([middle, *(high - template_high)[1:]])))
    return starts


def _round(
    found: DenseRegistration,
    surface: _Surface,
    model: ShapeModel,
    *,
    width: float,
    stiffness: float,
    moves_modes: bool,
    moves_offsets: bool,
) -> DenseRegistration:
    """The registration after one round of matching and solving."""
    all_vertices = found.vertices(model)
    normals = trimesh.Trimesh(all_vertices, model.mesh.faces, process=False).vertex_normals[model.matched]
    vertices = all_vertices[model.matched]
    matches = surface.match(vertices, normals, width=width, by_normal=not moves_offsets)
    columns = [_pose_columns(vertices - found.pose.translation, matches.normal)]
    # The normals as the template's own axes see them: modes and offsets are given along these.
    turned = found.pose.scale * matches.normal @ found.pose.rotation
    if moves_modes:
        columns.append(np.einsum("mvi,vi->vm", model.modes[:, model.matched], turned, optimize=True))
    if moves_offsets:
        by_offset = model.offsets[model.matched][:, :, None] * turned[:, None]
        columns.append(by_offset.reshape(len(turned), -1))
    before = np.concatenate([found.shape, found.offsets.ravel()])
    step = _solve(np.concatenate(columns, axis=1), matches, before=before, stiffness=stiffness)
    return _moved(found, step)


def _pose_columns(arms: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Derivatives (n, 6) of positions along normals by rotation about the origin of arms, and by translation."""
    return np.concatenate([np.cross(arms, normal), normal], axis=1)


def _solve(jacobian: np.ndarray, matches: _Matches, *, before: np.ndarray, stiffness: float) -> np.ndarray:
    """The step (parameters,) of weighted least squares, in which the coefficients are drawn to zero."""
    jacobian = jacobian.astype(np.float32)
    weighted = matches.weight.astype(np.float32)[:, None] * jacobian
    square = (jacobian.T @ weighted).astype(np.float64)
    right = weighted.T.astype(np.float64) @ (matches.offset * matches.normal).sum(1)
    drawn = before[: len(square) - POSE_SIZE]
    # By the number of vertices, not by that of matches: where few match, the prior must keep the template together.
    strength = stiffness**2 * len(matches.weight) / COEFFICIENTS_PER_STIFFNESS
    prior = np.full(len(square), strength)
    prior[:POSE_SIZE] = DAMPING * np.trace(square) / len(square)
    right[POSE_SIZE:] -= prior[POSE_SIZE:] * drawn
    return cho_solve(cho_factor(square + np.diag(prior)), right)


def _moved(found: DenseRegistration, step: np.ndarray) -> DenseRegistration:
    """The registration after a step (parameters,), whose last parts may be missing."""
    turn = Rotation.from_rotvec(step[:3]).as_matrix()
    pose = Similarity(
        scale=found.pose.scale,
        rotation=turn @ found.pose.rotation,
        translation=found.pose.translation + step[3:6],
    )
    modes = step[POSE_SIZE : POSE_SIZE + len(found.shape)]
    offsets = step[POSE_SIZE + len(found.shape) :]
    return replace(
        found,
        pose=pose,
        shape=found.shape + modes if len(modes) else found.shape,
        offsets=found.offsets + offsets.reshape(-1, 3) if len(offsets) else found.offsets,
    )
