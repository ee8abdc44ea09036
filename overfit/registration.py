"""Registration: oriented points of a scan in, in any pose, the similarity that brings them to a template out.

First a guess that does not depend on the pose: every one of some hundred rotations is improved for a few rounds, all at
once, by closest points on the template looked up in a grid. Then the best are refined point to plane (Chen and Medioni
1991) with weights that leave out hair, clothes and what is missing (Geman and McClure 1985), while the template takes
the scan's shape. Rotations are proper ones: a mirrored head cannot come out.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import trimesh
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from .clouds import Cloud
from .occupancy import barycentric_points

# Made by tools/make_template.py.
TEMPLATE = Path(__file__).with_name("template.npz")
# Rotations tried, the points that try them; how many of them are refined, shortly and fully, with how many points.
ROTATIONS, SCOUTS, BEST, FINALISTS, REFINERS = 1000, 250, 12, 2, 6000
# Rounds of either, and the width in mm of the weights at their begin and end.
SCOUTING, REFINING = 12, 20
WIDE, NARROW = 40.0, 4.0
# Side of the lookup grid's cells, and how far it reaches about the template, in millimetres.
CELL, MARGIN = 8.0, 150.0
# A scan so many times the template's size is also looked into by so many balls of this radius in millimetres.
LARGE, BALLS, BALL = 1.6, 8, 120.0
# Room in mm about the template that belongs to the head: hair, large ears.
ROOM = 45.0
# How far above the template's own end heads end, in mm.
FLOOR = 2.0
# Points of the face by which reliefs are compared.
FACE_POINTS = 1000
# Standard deviation of the lengths of heads' axes, where no modes are known.
LENGTHS = 0.08
# How stiff the template is: a shape of one standard deviation is as unlikely as a scan that lies so many mm off it.
STIFF = 0.3
# How much more the face's points weigh than others: faces are to lie on each other, whatever the skulls do.
FACE = 5.0
# Width in mm of what a face's relief stands out from, and of the noise in a scan's normals that is averaged away.
RELIEF, GRAIN = 15.0, 4.0
# A face point farther than this (mm) from the scan is missing from it; how much of a face may be missing for nothing.
MISSING, MAY_MISS = 10.0, 0.5


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + shift."""

    scale: float = 1.0
    # (3, 3), proper.
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))
    # (3,)
    shift: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) where they go."""
        return self.scale * points @ self.rotation.T + self.shift

    def moved(self, cloud: Cloud) -> Cloud:
        """An oriented cloud where it goes."""
        return Cloud(self(cloud.points), cloud.normals @ self.rotation.T)

    def then(self, other: "Similarity") -> "Similarity":
        """This one first, then the other."""
        return Similarity(self.scale * other.scale, other.rotation @ self.rotation, other(self.shift[None])[0])


@dataclass(frozen=True)
class Pose:
    """How a scan is brought to the template, and the template to the scan's shape."""

    # From the scan's frame to the template's.
    similarity: Similarity
    # (modes,) in standard deviations.
    shape: np.ndarray


@dataclass(frozen=True)
class Registration:
    """How a scan lies on the template."""

    # From the scan's frame to the template's.
    similarity: Similarity
    # Mean distance in mm of the nearer four fifths of the scan's points to the template.
    residual_mm: float
    # The same of the template's face to the scan.
    face_mm: float
    # Correlation, -1 to 1, of the face's relief with the scan's, see relief().
    relief: float

    @property
    def badness(self) -> float:
        """By which registrations of one scan are compared, in millimetres."""
        return self.residual_mm + 0.3 * self.face_mm + 15 * (1 - self.relief)


class Template:
    """A head in the canonical frame and how heads differ from it, ready to be looked up."""

    def __init__(self, mesh: trimesh.Trimesh, modes: np.ndarray | None = None):
        """`modes` (k, vertices, 3) are standard deviations in mm; without them, heads differ in their axes' lengths."""
        if modes is None:
            modes = LENGTHS * np.eye(3)[:, None] * mesh.vertices
        self.mesh = mesh
        rng = np.random.default_rng(0)
        triangles = rng.choice(len(mesh.faces), 20_000, p=mesh.area_faces / mesh.area_faces.sum())
        # The neck's cut is no part of a head.
        triangles = triangles[mesh.face_normals[triangles, 1] > -0.95]
        fields = np.concatenate([mesh.vertices, *modes], axis=1)
        points = barycentric_points(fields[mesh.faces[triangles]], rng)
        self.cloud = Cloud(points[:, :3], mesh.face_normals[triangles])
        # (k, points, 3)
        self.modes = np.ascontiguousarray(points[:, 3:].reshape(len(points), -1, 3).transpose(1, 0, 2))
        self.tree = cKDTree(self.cloud.points)
        # (points,) whether each of the cloud's lies on the front of the face.
        low, high = mesh.bounds
        place = (self.cloud.points - low) / (high - low)
        self.on_face = ((place[:, 2] > 0.6) & (place[:, 1] > 0.25) & (place[:, 1] < 0.75)
                        & (self.cloud.normals[:, 2] > 0))

    @classmethod
    def standard(cls) -> "Template":
        """The mean of the default heads, with the principal components of their shapes."""
        with np.load(TEMPLATE) as stored:
            mesh = trimesh.Trimesh(stored["vertices"].astype(float), stored["faces"], process=False)
            return cls(mesh, stored["modes"].astype(float))

    def shaped(self, shape: np.ndarray) -> np.ndarray:
        """The cloud's points (points, 3) on a head of that shape (k,)."""
        return self.cloud.points + np.tensordot(shape, self.modes, 1)

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Corner (3,) of a grid about the template and the closest point's index (a, b, c) at each of its nodes."""
        low, high = self.mesh.bounds + np.array([[-MARGIN], [MARGIN]])
        axes = [np.arange(a, b, CELL) for a, b in zip(low, high)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        return low, self.tree.query(nodes.reshape(-1, 3), workers=1)[1].reshape(nodes.shape[:3])

    def near(self, points: np.ndarray) -> np.ndarray:
        """Indices (...) of template points close to points (..., 3), good to a cell."""
        low, closest = self.grid
        place = np.rint((points - low) / CELL).astype(int).clip(0, np.array(closest.shape) - 1)
        return closest[tuple(np.moveaxis(place, -1, 0))]

    @cached_property
    def face(self) -> np.ndarray:
        """Indices of points of the face by which reliefs are compared."""
        front = np.nonzero(self.on_face)[0]
        return np.random.default_rng(0).choice(front, min(FACE_POINTS, len(front)), replace=False)

    @cached_property
    def blur(self) -> np.ndarray:
        """(face points, face points) weight of each in a mean over what lies about the others."""
        points = self.cloud.points[self.face]
        return np.exp(-((points[:, None] - points) ** 2).sum(-1) / (2 * RELIEF**2))

    @cached_property
    def relief(self) -> np.ndarray:
        """(face points, 3) mean normals."""
        return _smooth_normals(self.cloud, self.cloud.points[self.face])[0]

    @cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners (3,) of the box, in mm, in which a head lies; its floor is the plane where all heads end."""
        low, high = self.mesh.bounds + np.array([[-ROOM], [ROOM]])
        return np.array([low[0], self.mesh.bounds[0, 1] + FLOOR, low[2]]), high


def register(cloud: Cloud, template: Template, free_scale: bool) -> Registration:
    """Bring oriented points, in millimetres or with `free_scale` in any unit, to the template."""
    rng = np.random.default_rng(0)
    start = Similarity()
    if free_scale:
        sizes = [np.linalg.norm(one - np.median(one, axis=0), axis=1) for one in (template.cloud.points, cloud.points)]
        start = Similarity(float(np.median(sizes[0]) / np.median(sizes[1])))
    sized = start.moved(cloud)
    unshaped = np.zeros(len(template.modes))
    guesses = [Pose(guess, unshaped) for part in _parts(sized, template, rng)
               for guess in _guesses(part, template, free_scale)]
    refiners = sized[rng.choice(len(sized.points), min(REFINERS, len(sized.points)), replace=False)]
    few = refiners[:len(refiners.points) // 8]
    tried = [_refined(few, template, guess, REFINING // 4, free_scale) for guess in guesses]
    tried.sort(key=lambda one: _judged(refiners, template, one).badness)
    final = [_refined(refiners, template, one, REFINING, free_scale) for one in tried[:FINALISTS]]
    best = min((_judged(refiners, template, one) for one in final), key=lambda one: one.badness)
    return replace(best, similarity=start.then(best.similarity))


def _parts(cloud: Cloud, template: Template, rng: np.random.Generator) -> list[Cloud]:
    """Scouts of a scan: of the whole, and of balls of a head's size in a scan much larger than a head."""
    def scouts(chosen: np.ndarray) -> Cloud:
        return cloud[rng.choice(chosen, min(SCOUTS, len(chosen)), replace=False)]

    parts, points = [scouts(np.arange(len(cloud.points)))], cloud.points
    if np.ptp(points, axis=0).max() > LARGE * np.ptp(template.mesh.bounds, axis=0).max():
        # Centres as far from each other as can be (Gonzalez 1985).
        away, centre = np.full(len(points), np.inf), points[0]
        for _ in range(BALLS):
            away = np.minimum(away, np.linalg.norm(points - centre, axis=1))
            centre = points[away.argmax()]
            parts.append(scouts(np.nonzero(np.linalg.norm(points - centre, axis=1) < BALL)[0]))
    return parts


def _guesses(scouts: Cloud, template: Template, free_scale: bool) -> list[Similarity]:
    """The best of many rotations, each improved for a few rounds of closest points (Besl and McKay 1992)."""
    rotations = Rotation.random(ROTATIONS, random_state=0).as_matrix()
    points = scouts.points @ rotations.transpose(0, 2, 1)
    normals = scouts.normals @ rotations.transpose(0, 2, 1)
    # A mask begins on the side of the template that looks its way, a whole head in the middle.
    ways = normals.mean(1)
    seen = np.clip(ways @ template.cloud.normals.T - 0.1, 0, None) + 1e-6
    share = np.clip(2 * np.linalg.norm(ways, axis=1) - 0.2, 0, 1)[:, None]
    side = seen @ template.cloud.points / seen.sum(1, keepdims=True)
    goal = share * side + (1 - share) * template.cloud.points.mean(0)
    scale, shift = np.ones(ROTATIONS), goal - points.mean(1)
    for step in range(SCOUTING):
        moved = scale[:, None, None] * points + shift[:, None]
        found = template.near(moved)
        target = template.cloud.points[found]
        width = WIDE * (NARROW / WIDE) ** (step / SCOUTING / 2)
        agree = (normals * template.cloud.normals[found]).sum(-1)
        weight = _weights(np.linalg.norm(target - moved, axis=-1), width) * (agree > 0.2) + 1e-9
        turn, scale, shift = _procrustes(points, target, weight, free_scale)
        points, normals = points @ turn.transpose(0, 2, 1), normals @ turn.transpose(0, 2, 1)
        rotations = turn @ rotations
    moved = scale[:, None, None] * points + shift[:, None]
    found = template.near(moved)
    gap = np.linalg.norm(template.cloud.points[found] - moved, axis=-1)
    agree = (normals * template.cloud.normals[found]).sum(-1)
    badness = (np.minimum(gap, 20) + 10 * (1 - agree)).mean(1)
    chosen: list[int] = []
    for index in np.argsort(badness):
        # Many rotations end in the same place.
        if all(np.trace(rotations[index].T @ rotations[other]) < 2.9 for other in chosen):
            chosen.append(index)
        if len(chosen) == BEST:
            break
    return [Similarity(float(scale[one]), rotations[one], shift[one]) for one in chosen]


def _procrustes(points: np.ndarray, target: np.ndarray, weight: np.ndarray, free_scale: bool,
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations (h, 3, 3), scales (h,) and shifts (h, 3) of points (h, n, 3) to targets (Umeyama 1991)."""
    weight = weight / weight.sum(1, keepdims=True)
    middle, goal = (weight[..., None] * points).sum(1), (weight[..., None] * target).sum(1)
    here, there = points - middle[:, None], target - goal[:, None]
    u, stretch, v = np.linalg.svd(np.einsum("hn,hni,hnj->hij", weight, there, here))
    proper = np.sign(np.linalg.det(u @ v))
    stretch[:, 2] *= proper
    u[:, :, 2] *= proper[:, None]
    rotation = u @ v
    spread = (weight * (here**2).sum(-1)).sum(1)
    scale = (stretch.sum(1) / spread).clip(0.5, 2) if free_scale else np.ones(len(points))
    return rotation, scale, goal - scale[:, None] * np.einsum("hij,hj->hi", rotation, middle)


def _refined(cloud: Cloud, template: Template, start: Pose, rounds: int, free_scale: bool) -> Pose:
    """Point-to-plane rounds: each solves for a small turn, shift and stretch by weighted least squares.

    A head longer than the template would turn to lie close to it, by up to 13 degrees: so the template takes the scan's
    shape meanwhile, as far as heads differ (Blanz and Vetter 1999).
    """
    now, shape = start.similarity, start.shape
    for step in range(rounds):
        here, target = now.moved(cloud), template.shaped(shape)
        gap, found = cKDTree(target).query(here.points)
        normal = template.cloud.normals[found]
        off = ((target[found] - here.points) * normal).sum(1)
        weight = _weights(gap, WIDE * (NARROW / WIDE) ** (step / rounds)) * ((here.normals * normal).sum(1) > 0.3)
        weight *= np.where(template.on_face[found], FACE, 1.0)
        columns = [np.cross(here.points, normal), normal]
        columns += [(here.points * normal).sum(1, keepdims=True)] if free_scale else []
        lever = np.concatenate([*columns, -np.einsum("kni,ni->nk", template.modes[:, found], normal)], axis=1)
        square = lever.T @ (weight[:, None] * lever)
        # What all is drawn to, and how strongly: shapes to the mean one, the rest only where nothing else tells.
        tie, goal = np.full(len(square), 1e-6 * np.trace(square) / len(square)), np.zeros(len(square))
        tie[-len(shape):], goal[-len(shape):] = STIFF**2 * weight.sum(), -shape
        small = np.linalg.solve(square + np.diag(tie), lever.T @ (weight * off) + tie * goal)
        turn = Rotation.from_rotvec(small[:3]).as_matrix()
        now = now.then(Similarity(1 + float(small[6]) if free_scale else 1.0, turn, small[3:6]))
        shape = shape + small[-len(shape):]
    return Pose(now, shape)


def _weights(gap: np.ndarray, width: float) -> np.ndarray:
    return 1 / (1 + (gap / width) ** 2) ** 2


def _judged(cloud: Cloud, template: Template, pose: Pose) -> Registration:
    here, target = pose.similarity.moved(cloud), template.shaped(pose.shape)
    # Shoulders and what else lies outside the template's box is cut off later.
    low, high = template.box
    boxed = here.points[((here.points > low) & (here.points < high)).all(1)]
    if len(boxed) < 0.05 * len(here.points):
        return Registration(pose.similarity, np.inf, np.inf, -1.0)
    gap = np.sort(cKDTree(target).query(boxed)[0])[:int(0.8 * len(boxed))]
    face = target[template.face]
    away = cKDTree(here.points).query(face)[0]
    # What a scan misses is not held against it, up to a point.
    nearer = np.sort(away)[:int(0.8 * len(away))]
    return Registration(pose.similarity, float(gap.mean()), float(nearer.mean()), _relief(here, template, face))


def _relief(cloud: Cloud, template: Template, face: np.ndarray) -> float:
    """Correlation of a cloud's relief about face points (n, 3) with the template's: normals against those about.

    It sees nose, brows and chin, which an egg has not and a head on its head has elsewhere.
    """
    ours, found = _smooth_normals(cloud, face)
    if not found.any():
        return -1.0
    blur = template.blur * found
    blur /= blur.sum(1, keepdims=True) + 1e-12
    ours, theirs = (ours - blur @ ours)[found], (template.relief - blur @ template.relief)[found]
    correlation = (ours * theirs).sum() / max(np.sqrt((ours**2).sum() * (theirs**2).sum()), 1e-9)
    return float(correlation * min(1.0, found.mean() / MAY_MISS))


def _smooth_normals(cloud: Cloud, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cloud's mean normals (n, 3) about places (n, 3), and whether (n,) it reaches there."""
    away, near = cKDTree(cloud.points).query(places, 16)
    weight = np.exp(-(away / GRAIN) ** 2 / 2) + 1e-12
    return (weight[..., None] * cloud.normals[near]).sum(1) / weight.sum(1, keepdims=True), away[:, 0] < MISSING
