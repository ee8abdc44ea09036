"""Where a scan may lie on a template: a few of its points in any pose in, rough rigid transforms to the template out.

A thousand random rotations are each improved by a few rounds of ICP (Besl and McKay 1992), all at once, with closest
points from a lookup grid; most of them leave after the first rounds. All rotations are proper, so that no head comes
out mirrored.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from overfit.geometry.point_cloud import PointCloud
from overfit.geometry.similarity import Similarity
from overfit.scans.template import Template

# Rotations that the coarse search starts from: about 15 degrees from one to the next.
ROTATIONS = 1000
# Points of a scan that it uses; they are matched once for every rotation and round.
COARSE_POINTS = 250
# Rounds of ICP.
ROUNDS = 12
# After so many of them, ...
FIRST_ROUNDS = 4
# ... the best of the rotations go on.
SURVIVORS = 300
# It ends at a wider robust weight than the refinement: at this share of the way, in logarithms.
NARROWING = 2
# Two rotations are the same candidate from this trace of the one between them on: 1 + 2 cos(18 degrees).
SAME_CANDIDATE_TRACE = 2.9
# Cosine between normals from which points may be matched in the coarse search.
NORMAL_COSINE = 0.2
# Distances in mm above this count as this much in the cost of a candidate: they are not matched at all.
MAX_DISTANCE_MM = 20.0
# Cost in mm of normals that are perpendicular; opposite ones cost twice as much.
NORMAL_COST_MM = 10.0

# Cosine from which a template point faces the way that a scan's points do on average: they start on this side of it.
FACING_COSINE = 0.1
# Step between the points of the template that say where its sides are.
FACING_STEP = 16
# Length of the mean normal that is usual for a whole head; it starts at the template's centre.
WHOLE_MEAN_NORMAL = 0.1
# Length of the mean normal, above that of a whole head, at which a scan is one side only and starts on that side.
ONE_SIDED_MEAN_NORMAL = 0.5

# Distance in mm at which a match weighs a quarter, in the first round ...
FIRST_WEIGHT_WIDTH_MM = 40.0
# ... and towards the last one, when all that lies off is hair, clothes or missing.
LAST_WEIGHT_WIDTH_MM = 4.0

# Keeps the weights of unmatched points, and so the sums of weights, above zero.
MIN_WEIGHT = 1e-9
# The same for points of the template that do not face a scan's way.
MIN_FACING = 1e-6


@dataclass(frozen=True)
class _Hypotheses:
    """Rigid transforms of a few points of a scan that are improved side by side."""

    rotations: np.ndarray
    """Rotation matrices (h, 3, 3)."""
    translations: np.ndarray
    """Translations (h, 3)."""
    points: np.ndarray
    """The points (h, n, 3), rotated."""
    normals: np.ndarray
    """Their normals (h, n, 3), rotated."""

    def __getitem__(self, indices: np.ndarray) -> "_Hypotheses":
        """Return some of the transforms."""
        return _Hypotheses(
            self.rotations[indices], self.translations[indices], self.points[indices], self.normals[indices]
        )

    def transformed(self) -> np.ndarray:
        """Return the points (h, n, 3) in the template's frame."""
        return self.points + self.translations[:, None]

    def similarity(self, index: int) -> Similarity:
        """Return one of the transforms."""
        return Similarity(1.0, self.rotations[index], self.translations[index])


def coarse_search(points: PointCloud, template: Template, *, candidates: int) -> list[Similarity]:
    """Return the best of many random rotations, each improved by a few rounds of ICP."""
    hypotheses = _random_hypotheses(points, template)
    for index in range(ROUNDS):
        if index == FIRST_ROUNDS:
            hypotheses = hypotheses[np.argsort(_coarse_cost(hypotheses, template))[:SURVIVORS]]
        width = weight_width(index / ROUNDS / NARROWING)
        hypotheses = _coarse_round(hypotheses, template, width=width)
    order = np.argsort(_coarse_cost(hypotheses, template))
    return [hypotheses.similarity(index) for index in _distinct(hypotheses.rotations, order, count=candidates)]


def _coarse_cost(hypotheses: _Hypotheses, template: Template) -> np.ndarray:
    """Return how far each hypothesis (h,) is from fitting, in mm."""
    distance, agreement, _ = _match(hypotheses, template)
    normal_cost = NORMAL_COST_MM * (1 - agreement)
    return (np.minimum(distance, MAX_DISTANCE_MM) + normal_cost).mean(1)


def _random_hypotheses(cloud: PointCloud, template: Template) -> _Hypotheses:
    """Return random rotations of a scan, each moved to where it may fit.

    A mask starts on the side of the template that faces its way, a whole head in the middle.
    """
    rotations = Rotation.random(ROTATIONS, random_state=0).as_matrix()
    points = cloud.points @ rotations.transpose(0, 2, 1)
    normals = cloud.known_normals @ rotations.transpose(0, 2, 1)
    mean_normal = normals.mean(1)
    sides = template.cloud[np.arange(0, len(template.cloud.points), FACING_STEP)]
    facing = np.clip(mean_normal @ sides.known_normals.T - FACING_COSINE, 0, None) + MIN_FACING
    # 0 for a whole head, whose normals cancel out, to 1 for a mask.
    one_sided = (np.linalg.norm(mean_normal, axis=1) - WHOLE_MEAN_NORMAL) / ONE_SIDED_MEAN_NORMAL
    one_sided = one_sided.clip(0, 1)[:, None]
    side = facing @ sides.points / facing.sum(1, keepdims=True)
    goal = one_sided * side + (1 - one_sided) * template.cloud.points.mean(0)
    return _Hypotheses(rotations, goal - points.mean(1), points, normals)


def _match(hypotheses: _Hypotheses, template: Template) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each point's distance (h, n) to the template, the cosine of the normals (h, n) and its match (h, n, 3)."""
    transformed = hypotheses.transformed()
    nearest = template.nearest(transformed)
    target = template.cloud.points[nearest]
    agreement = (hypotheses.normals * template.cloud.known_normals[nearest]).sum(-1)
    return np.linalg.norm(target - transformed, axis=-1), agreement, target


def _coarse_round(hypotheses: _Hypotheses, template: Template, *, width: float) -> _Hypotheses:
    """Return the hypotheses after one round of ICP."""
    distance, agreement, target = _match(hypotheses, template)
    weight = robust_weight(distance, width) * (agreement > NORMAL_COSINE) + MIN_WEIGHT
    rotation, translations = _procrustes(hypotheses.points, target, weight=weight)
    return _Hypotheses(
        rotation @ hypotheses.rotations,
        translations,
        hypotheses.points @ rotation.transpose(0, 2, 1),
        hypotheses.normals @ rotation.transpose(0, 2, 1),
    )


def _distinct(rotations: np.ndarray, order: np.ndarray, *, count: int) -> list[int]:
    """Return the first rotations in an order that are not almost the same: many hypotheses end in the same place."""
    chosen: list[int] = []
    for index in order.tolist():
        if all(np.trace(rotations[index].T @ rotations[other]) < SAME_CANDIDATE_TRACE for other in chosen):
            chosen.append(index)
        if len(chosen) == count:
            break
    return chosen


def _procrustes(points: np.ndarray, target: np.ndarray, *, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rotations (h, 3, 3) and translations (h, 3) that fit points (h, n, 3) to targets.

    By weighted least squares (Umeyama 1991).
    """
    weight = weight / weight.sum(1, keepdims=True)
    mean, target_mean = (weight[..., None] * points).sum(1), (weight[..., None] * target).sum(1)
    centred, target_centred = points - mean[:, None], target - target_mean[:, None]
    u, _, v = np.linalg.svd(np.einsum("hn,hni,hnj->hij", weight, target_centred, centred))
    # Where the best orthogonal matrix is a reflection, the best rotation turns the weakest axis round.
    u[:, :, 2] *= np.sign(np.linalg.det(u @ v))[:, None]
    rotation = u @ v
    return rotation, target_mean - np.einsum("hij,hj->hi", rotation, mean)


def weight_width(progress: float) -> float:
    """Return the width in mm of the robust weights at a share of the way from the first round to the last."""
    return FIRST_WEIGHT_WIDTH_MM * (LAST_WEIGHT_WIDTH_MM / FIRST_WEIGHT_WIDTH_MM) ** progress


def robust_weight(distance: np.ndarray, width: float) -> np.ndarray:
    """Return the weight of a match at each distance (Geman and McClure 1985)."""
    return 1 / (1 + (distance / width) ** 2) ** 2
