"""Registers a scan on a template: oriented points in any pose in, the similarity transform to the template out.

A coarse search first makes the result independent of the pose. Its best candidates are then refined by point-to-plane
ICP (Chen and Medioni 1991) with robust weights that leave out hair, clothes and missing parts (Geman and McClure 1985),
while the template takes the scan's shape (Blanz and Vetter 1999).
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from overfit.geometry.point_cloud import PointCloud, largest_extent
from overfit.geometry.similarity import Similarity
from overfit.scans.coarse_search import COARSE_POINTS, coarse_search, robust_weight, weight_width
from overfit.scans.template import Template, smooth_normals

# Candidates that the coarse search returns for a scan.
COARSE_CANDIDATES = 12
# The same for each part of a scan.
PART_CANDIDATES = 4
# The same for each size of a scan whose unit is not known.
SIZE_CANDIDATES = 3

# Points of the scan in a refinement.
REFINE_POINTS = 6000
# Rounds of a full refinement.
REFINE_ROUNDS = 20
# Every candidate is first refined quickly: by this share of the points ...
QUICK_POINTS_DIVISOR = 8
# ... and of the rounds.
QUICK_ROUNDS_DIVISOR = 4
# The best of them that are refined in full.
FINALISTS = 2
# Rounds by all points that follow for the best of these: two scans of one head then come closer to each other.
FINAL_ROUNDS = 6
# Distance in mm at which a match weighs a quarter in them.
FINAL_WIDTH_MM = 8.0
# Cosine between normals from which points may be matched in a refinement.
REFINE_NORMAL_COSINE = 0.3
# Stiffness of the template: a shape of one standard deviation is as unlikely as a scan that lies this far (mm) off it.
SHAPE_STIFFNESS_MM = 0.3
# How much more points on the face weigh than others: faces are to be aligned, whatever the skulls do.
FACE_WEIGHT = 5.0
# Damping of pose and scale as a share of the mean diagonal element: it decides only what the points leave open.
DAMPING = 1e-6

# Extents in mm, of a face mask to a head with shoulders, that are tried for a scan whose unit is not known.
SCAN_SIZES_MM = (130.0, 165.0, 210.0, 265.0, 335.0, 420.0, 530.0)

# A scan larger than the template by this factor may hold more than a head: parts of it are searched as well.
LARGE_SCAN = 1.6
# How many parts.
PARTS = 8
# Radius in mm of a part: a ball about the size of a head.
PART_RADIUS_MM = 120.0
# A part of fewer points shows nothing.
MIN_PART_POINTS = 100
# Times that its centre moves to the mean of the points in it.
PART_SHIFTS = 3
# Radius in mm of the ball whose points refine what was found in a part: a head that is not quite in the middle fits in.
REGION_RADIUS_MM = 220.0

# Share of the distances, the smaller ones, that a mean distance is taken over: the rest may be missing or no head.
TRIMMED_SHARE = 0.8
# Smallest share of a scan's points in the template's box: with fewer, the scan lies elsewhere.
MIN_SHARE_IN_BOX = 0.05
# Weight of the distance on the face in the cost of a registration: most of it is in the other distance already.
FACE_COST = 0.3
# Cost in mm of a face without any relief.
RELIEF_COST_MM = 15.0
# Share of the face's points that may be missing from a scan before its relief counts as less.
MAY_BE_MISSING = 0.5

# Keeps the divisor of a correlation above zero where a relief is flat.
MIN_NORM = 1e-9
# The same for sums of smoothing weights.
EPSILON = 1e-12


@dataclass(frozen=True)
class Registration:
    """How a scan lies on the template."""

    similarity: Similarity
    """From the scan's frame to the template's."""
    residual_mm: float
    """Mean distance in mm of the scan's points to the template, of the nearest 80 % of them."""
    face_mm: float
    """Mean distance in mm of the template's face to the scan, of the nearest 80 % of its points."""
    relief: float
    """Correlation, -1 to 1, of the relief of the template's face with that of the scan there."""
    width_mm: float
    """Width in mm of the template in the scan's shape, between the outer edges of the ears."""
    size_ratio: float = 1.0
    """Factor by which the scan would be larger if its size were estimated from here on."""

    @property
    def cost(self) -> float:
        """What registrations of one scan are compared by, in mm: lower is better."""
        return self.residual_mm + FACE_COST * self.face_mm + RELIEF_COST_MM * (1 - self.relief)


@dataclass(frozen=True)
class _Fit:
    """A scan's pose on the template, and the template's shape for it."""

    similarity: Similarity
    """From the scan's frame to the template's."""
    shape: np.ndarray
    """The template's shape (modes,) in standard deviations."""


@dataclass(frozen=True)
class _Candidate:
    """A pose to be refined."""

    fit: _Fit
    """The pose so far."""
    cloud: PointCloud
    """The points that it is refined by, in random order: of the scan, or of a part of it."""

    @property
    def points(self) -> PointCloud:
        """The points for a full refinement."""
        return self.cloud[np.arange(min(REFINE_POINTS, len(self.cloud.points)))]

    @property
    def few(self) -> PointCloud:
        """The points for a quick refinement."""
        return self.cloud[np.arange(len(self.points.points) // QUICK_POINTS_DIVISOR)]


def register(cloud: PointCloud, template: Template, *, estimate_scale: bool, in_parts: bool = False) -> Registration:
    """Return the best similarity transform from a scan to the template, and how well it fits.

    Args:
        cloud: Points with outward normals, in millimetres, or in any unit if the scale is estimated.
        template: The head that the scan is registered on.
        estimate_scale: Whether the scan's scale is estimated too; else it is kept.
        in_parts: Whether parts of a head's size are searched too, as they are of every large scan (see `is_large`).
    """
    rng = np.random.default_rng(0)
    if estimate_scale:
        candidates = _search_sizes(cloud, template, rng)
    else:
        candidates = _search_known_size(cloud, template, in_parts=in_parts, rng=rng)
    return _refine_best(candidates, template, estimate_scale=estimate_scale)


def _search_known_size(
    cloud: PointCloud, template: Template, *, in_parts: bool, rng: np.random.Generator
) -> list[_Candidate]:
    """Return candidates for a scan in millimetres, and for parts of it if it is large or `in_parts`."""
    few = _random_points(cloud, COARSE_POINTS, rng)
    starts = coarse_search(few, template, candidates=COARSE_CANDIDATES)
    candidates = _candidates(starts, _shuffled(cloud, rng), template)
    if in_parts or is_large(largest_extent(cloud.points), template):
        for centre in _part_centres(cloud.points):
            part = _ball(cloud, centre, PART_RADIUS_MM)
            if len(part.points) < MIN_PART_POINTS:
                continue
            few = _random_points(part, COARSE_POINTS, rng)
            starts = coarse_search(few, template, candidates=PART_CANDIDATES)
            region = _shuffled(_ball(cloud, centre, REGION_RADIUS_MM), rng)
            candidates += _candidates(starts, region, template)
    return candidates


def _search_sizes(cloud: PointCloud, template: Template, rng: np.random.Generator) -> list[_Candidate]:
    """Return candidates for a scan at each of the sizes that scans of heads have."""
    extent = largest_extent(cloud.points)
    few = _random_points(cloud, COARSE_POINTS, rng)
    starts = []
    for size in SCAN_SIZES_MM:
        scaling = Similarity(size / extent)
        found = coarse_search(scaling.transform_cloud(few), template, candidates=SIZE_CANDIDATES)
        starts += [scaling.then(one) for one in found]
    return _candidates(starts, _shuffled(cloud, rng), template)


def _candidates(starts: list[Similarity], cloud: PointCloud, template: Template) -> list[_Candidate]:
    return [_Candidate(_Fit(start, np.zeros(len(template.modes))), cloud) for start in starts]


def _refine_best(candidates: list[_Candidate], template: Template, *, estimate_scale: bool) -> Registration:
    """Return the registration of lowest cost after refining all candidates quickly, and the best of them in full."""
    quick_rounds = REFINE_ROUNDS // QUICK_ROUNDS_DIVISOR
    quick = [
        replace(one, fit=_refine(one.few, template, one.fit, rounds=quick_rounds, estimate_scale=estimate_scale))
        for one in candidates
    ]
    quick.sort(key=lambda one: _evaluate(one.points, template, one.fit).cost)
    full = [
        replace(one, fit=_refine(one.points, template, one.fit, rounds=REFINE_ROUNDS, estimate_scale=estimate_scale))
        for one in quick[:FINALISTS]
    ]
    best = min(full, key=lambda one: _evaluate(one.points, template, one.fit).cost)
    for _ in range(FINAL_ROUNDS):
        fit = _refine_round(best.cloud, template, best.fit, width=FINAL_WIDTH_MM, estimate_scale=estimate_scale)
        best = replace(best, fit=fit)
    registration = _evaluate(best.points, template, best.fit)
    resized = _refine(best.few, template, best.fit, rounds=REFINE_ROUNDS, estimate_scale=True)
    return replace(registration, size_ratio=resized.similarity.scale / best.fit.similarity.scale)


def _random_points(cloud: PointCloud, count: int, rng: np.random.Generator) -> PointCloud:
    return cloud[rng.choice(len(cloud.points), min(count, len(cloud.points)), replace=False)]


def _shuffled(cloud: PointCloud, rng: np.random.Generator) -> PointCloud:
    return cloud[rng.permutation(len(cloud.points))]


def is_large(extent: float, template: Template) -> bool:
    """Return whether a scan of this largest extent in mm must hold more than a head."""
    return extent > LARGE_SCAN * float(np.ptp(template.mesh.bounds, axis=0).max())


def _part_centres(points: np.ndarray) -> list[np.ndarray]:
    """Return centres of balls of a head's size in a scan's points (n, 3), as far from each other as can be.

    Each is the farthest point from those before (Gonzalez 1985), such as a crown, and from there moves to the middle of
    what lies about it (mean shift, Fukunaga and Hostetler 1975), such as a head.
    """
    distance, farthest, centres = np.full(len(points), np.inf), points.mean(0), []
    for _ in range(PARTS):
        distance = np.minimum(distance, np.linalg.norm(points - farthest, axis=1))
        farthest = centre = points[distance.argmax()]
        for _ in range(PART_SHIFTS):
            centre = points[np.linalg.norm(points - centre, axis=1) < PART_RADIUS_MM].mean(0)
        centres.append(centre)
    return centres


def _ball(cloud: PointCloud, centre: np.ndarray, radius: float) -> PointCloud:
    """Return the points of a cloud in a ball."""
    return cloud[np.linalg.norm(cloud.points - centre, axis=1) < radius]


def _refine(cloud: PointCloud, template: Template, start: _Fit, *, rounds: int, estimate_scale: bool) -> _Fit:
    """Return the fit after rounds of point-to-plane ICP.

    A head longer than the template would turn to come close to it, by up to 13 degrees. So the template takes the
    scan's shape meanwhile, as far as heads differ (Blanz and Vetter 1999).
    """
    fit = start
    for index in range(rounds):
        fit = _refine_round(cloud, template, fit, width=weight_width(index / rounds), estimate_scale=estimate_scale)
    return fit


def _refine_round(cloud: PointCloud, template: Template, fit: _Fit, *, width: float, estimate_scale: bool) -> _Fit:
    """Return the fit after one round: a small rotation, translation, scaling and change of shape."""
    moved, target = fit.similarity.transform_cloud(cloud), template.deformed(fit.shape)
    # Building a balanced tree takes longer than the queries gain.
    distance, nearest = cKDTree(target, balanced_tree=False).query(moved.points)
    normal = template.cloud.known_normals[nearest]
    plane_distance = ((target[nearest] - moved.points) * normal).sum(1)
    agreement = (moved.known_normals * normal).sum(1)
    weight = robust_weight(distance, width) * (agreement > REFINE_NORMAL_COSINE)
    weight *= np.where(template.in_face[nearest], FACE_WEIGHT, 1.0)
    # Derivatives of the distance along the normal, with the opposite sign, by rotation, translation, scale and shape.
    columns = [np.cross(moved.points, normal), normal]
    # A smaller scan lies closer to any template, so distances count as a share of its size: (target - scale * point) /
    # scale changes by the target, not by the point.
    columns += [(target[nearest] * normal).sum(1, keepdims=True)] if estimate_scale else []
    jacobian = np.concatenate([*columns, -template.modes_along_normals[nearest]], axis=1)
    step = _solve(jacobian, plane_distance, weight=weight, shape=fit.shape)
    scale = 1 + float(step[6]) if estimate_scale else 1.0
    change = Similarity(scale, Rotation.from_rotvec(step[:3]).as_matrix(), step[3:6])
    return _Fit(fit.similarity.then(change), fit.shape + step[-len(fit.shape) :])


def _solve(jacobian: np.ndarray, residual: np.ndarray, *, weight: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Return the step (parameters,) of weighted, regularised least squares.

    The last parameters, the shape's, are drawn to the mean shape; the others only as far as the points leave them open.
    """
    square = jacobian.T @ (weight[:, None] * jacobian)
    regularisation = np.full(len(square), DAMPING * np.trace(square) / len(square))
    regularisation[-len(shape) :] = SHAPE_STIFFNESS_MM**2 * weight.sum()
    goal = np.zeros(len(square))
    goal[-len(shape) :] = -shape
    right = jacobian.T @ (weight * residual) + regularisation * goal
    return np.linalg.solve(square + np.diag(regularisation), right)


def _evaluate(cloud: PointCloud, template: Template, fit: _Fit) -> Registration:
    """Return how well a fit aligns a scan with the template of its shape."""
    moved, target = fit.similarity.transform_cloud(cloud), template.deformed(fit.shape)
    # Shoulders and what else lies outside the box is cut off later.
    low, high = template.head_box
    in_box = moved.points[((moved.points > low) & (moved.points < high)).all(1)]
    if len(in_box) < MIN_SHARE_IN_BOX * len(moved.points):
        return Registration(fit.similarity, np.inf, np.inf, -1.0, float(np.ptp(target[:, 0])))
    face = target[template.relief_points]
    return Registration(
        fit.similarity,
        residual_mm=_trimmed_mean(cKDTree(target).query(in_box)[0]),
        face_mm=_trimmed_mean(cKDTree(moved.points).query(face)[0]),
        relief=_compare_relief(moved, template, face),
        width_mm=float(np.ptp(target[:, 0])),
    )


def _trimmed_mean(distances: np.ndarray) -> float:
    return float(np.sort(distances)[: int(TRIMMED_SHARE * len(distances))].mean())


def _compare_relief(cloud: PointCloud, template: Template, face: Float[np.ndarray, "relief 3"]) -> float:
    """Return the correlation of a cloud's relief about the face's points with the template's.

    The relief is how normals differ from the mean normal about them: nose, brows and chin. An egg has none, and a head
    upside down has it elsewhere.
    """
    normals, reached = smooth_normals(cloud, face)
    if not reached.any():
        return -1.0
    smoothing = template.relief_smoothing * reached
    smoothing /= smoothing.sum(1, keepdims=True) + EPSILON
    ours = (normals - smoothing @ normals)[reached]
    theirs = (template.relief_normals - smoothing @ template.relief_normals)[reached]
    correlation = (ours * theirs).sum() / max(np.sqrt((ours**2).sum() * (theirs**2).sum()), MIN_NORM)
    return float(correlation * min(1.0, reached.mean() / MAY_BE_MISSING))
