"""Glasses: the surface of a head in, solid frames that sit on its nose and ears out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from hyperdiffusion.data.head_surface import Surface
from hyperdiffusion.data.scalp import Scalp
from hyperdiffusion.data.solids import to_manifold, tube

# Width and depth of the rims in mm: thick enough to be seen by a field at 256 nodes.
RIM_MM = {"thin": (2.8, 3.0), "thick": (5.5, 4.5)}
# Half width and half height of a lens in mm, least and most.
HALF_WIDTH_MM, HALF_HEIGHT_MM = (22.0, 26.0), (16.0, 22.0)
# Exponent of the superellipse of a lens, least and most: from round to nearly rectangular.
EXPONENT = (2.0, 4.0)
# Points on a rim.
RIM_POINTS = 44
# Distance in mm between the bridge of the nose, or the eyes, and the rims.
CLEARANCE_MM = 3.0
# Lower edges of lenses are tilted towards the cheeks by this much in mm per mm.
TILT = 0.1
# Rims are bent backwards: by the first in mm at the second in mm from the middle, with the square of that distance.
WRAP_MM, WRAP_AT_MM = 6.0, 60.0
# Distance in mm between the eyes of the mean head; glasses are as much larger as the eyes lie farther apart.
EYE_DISTANCE_MM = 62.5
# Centres of the lenses lie this far outside of the eyes and below them, in mm.
CENTRE_OUT_MM, CENTRE_DOWN_MM = 2.0, 3.0
# Hinges, and the ends of the bridge, on the rims: to the side and up, in half widths and half heights.
HINGE, BRIDGE_ENDS = (0.97, 0.45), (0.93, 0.35)
# Temples are this many times as wide as rims.
TEMPLE_WIDTH = 1.1
# In mm: a temple's corner is this far outside of the hinge or, if that is farther out, inside of the ear; and this far
# behind the hinge.
CORNER_MM = (4.0, 2.0, 6.0)
# The bridge rises in an arch of this height, and is this far in front of the rims, in mm.
ARCH_MM, BRIDGE_OUT_MM = 3.0, 1.0
# Points along the bridge and along a temple.
BRIDGE_POINTS, TEMPLE_POINTS = 9, 28
# Distance in mm of a lens's surfaces from the middle of the rims: front at the rim and at the centre, back likewise.
LENS_MM = (1.2, 1.8, 1.2, 0.8)
# The part of the mean face that rims must not touch: half width, half height, and least depth, in mm.
AROUND_EYES_MM = (60.0, 24.0, 20.0)
# Half width in mm of the lids, and how far in mm rims may come closer to them than to the nose.
LIDS_MM, LASHES_MM = 12.0, 1.0
# Vertices with a smaller share of the ear belong to the skull.
NOT_EAR = 0.01
# Share of glasses whose lenses the scanner saw as surfaces; it looked through the others.
LENS_SHARE = 0.3
# Places on the mean head by which glasses are held: the bridge of the nose, and the way of a temple over the left ear.
BRIDGE = (0.0, -3.0, 66.0)
TEMPLE_WAY = ((72.0, 5.0, 20.0), (74.0, 8.0, -2.0))
# Distance in mm of the temples from the skin at these places.
TEMPLE_GAP_MM = (3.5, 2.5)
# How a temple goes on from there, in mm on the mean head: between ear and skull, and down behind the ear.
TEMPLE_END = ((3.0, 2.0, -22.0), (4.0, 1.0, -42.0), (4.0, -10.0, -60.0), (2.0, -24.0, -68.0))

# The depth in mm of the rims over points (n, 2).
Plane = Callable[[Float[np.ndarray, "n 2"]], Float[np.ndarray, " n"]]


class GlassesFitter:
    """Glasses for heads of one topology."""

    def __init__(self, scalp: Scalp) -> None:
        # What a temple lies on is the skull, not the ear.
        skull = np.flatnonzero(scalp.ear < NOT_EAR)
        tree = cKDTree(scalp.coordinates[skull])
        self.bridge = skull[_nearest(tree, [BRIDGE])]
        left = np.array(TEMPLE_WAY)
        self.temples = [skull[_nearest(tree, left * [side, 1, 1])] for side in (1, -1)]
        x, y, z = scalp.coordinates.T
        width, height, front = AROUND_EYES_MM
        self.around_eyes = np.flatnonzero((np.abs(y) < height) & (np.abs(x) < width) & (z > front))

    def solids(self, level: str, surface: Surface, rng: np.random.Generator) -> list[Any]:
        """Return the parts of glasses, which overlap each other and the head."""
        width, depth = RIM_MM[level]
        half = np.array([rng.uniform(*HALF_WIDTH_MM), rng.uniform(*HALF_HEIGHT_MM)])
        exponent = rng.uniform(*EXPONENT)
        has_lenses = rng.uniform() < LENS_SHARE
        scale = np.ptp(surface.eyes[:, 0]) / EYE_DISTANCE_MM
        half = half * scale
        plane = self._plane(surface)
        parts, inner = [], []
        for eye, temple, side in zip(surface.eyes, self.temples, (1, -1)):
            centre = np.array([eye[0] + side * CENTRE_OUT_MM, eye[1] - CENTRE_DOWN_MM])
            loop = _superellipse(half, exponent) + centre
            parts.append(tube(np.column_stack([loop, plane(loop)]), width=width, depth=depth, closed=True))
            if has_lenses:
                parts.append(_lens(centre, loop, plane))
            hinge = centre + np.array([side * half[0] * HINGE[0], half[1] * HINGE[1]])
            path = _temple_path(np.append(hinge, plane(hinge[None])), _way(surface, temple, side=side, scale=scale))
            parts.append(tube(path, width=width * TEMPLE_WIDTH, depth=depth, up=(1, 0, 0)))
            inner.append(np.array([centre[0] - side * half[0] * BRIDGE_ENDS[0], centre[1] + half[1] * BRIDGE_ENDS[1]]))
        parts.append(_bridge(np.array(inner), plane, width=width, depth=depth))
        return parts

    def _plane(self, surface: Surface) -> Plane:
        """Return the depth in mm of the rims over (x, y): in front of the eyes and of the bridge of the nose."""
        nose = surface.vertices[self.bridge[0]]
        face = surface.vertices[self.around_eyes]
        lean = face[:, 2] - TILT * (face[:, 1] - nose[1]) + WRAP_MM * (face[:, 0] / WRAP_AT_MM) ** 2
        at_eyes = np.abs(np.abs(face[:, 0]) - np.abs(surface.eyes[:, 0]).mean()) < LIDS_MM
        start = max(nose[2], lean[at_eyes].max() - LASHES_MM) + CLEARANCE_MM

        def depth(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
            return start + TILT * (points[:, 1] - nose[1]) - WRAP_MM * (points[:, 0] / WRAP_AT_MM) ** 2

        return depth


def _way(surface: Surface, temple: np.ndarray, *, side: int, scale: float) -> Float[np.ndarray, "n 3"]:
    """Return points along a temple: over the ear and down behind it."""
    over = surface.vertices[temple] + surface.normals[temple] * np.array(TEMPLE_GAP_MM)[:, None]
    return np.concatenate([over, over[-1] + scale * np.array(TEMPLE_END) * [side, 1, 1]])


def _temple_path(hinge: Float[np.ndarray, "3"], way: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Return the path of a temple from its hinge round a corner, which is out of the face's way, to its way."""
    out, nearer, back = CORNER_MM
    side = np.sign(way[0, 0])
    corner = [max(abs(hinge[0]) + out, abs(way[0, 0]) - nearer) * side, hinge[1], hinge[2] - back]
    return _smooth_path(np.vstack([hinge, corner, way]))


def _bridge(ends: Float[np.ndarray, "2 2"], plane: Plane, *, width: float, depth: float) -> Any:
    """Return the solid that joins both rims in an arch."""
    share = np.linspace(0, 1, BRIDGE_POINTS)[:, None]
    flat = ends[0] + share * (ends[1] - ends[0])
    flat[:, 1] += ARCH_MM * np.sin(np.pi * share[:, 0])
    return tube(np.column_stack([flat, plane(flat) + BRIDGE_OUT_MM]), width=width, depth=depth)


def _nearest(tree: cKDTree, points: Any) -> Int[np.ndarray, " n"]:
    return tree.query(np.array(points))[1]


def _superellipse(half: np.ndarray, exponent: float) -> Float[np.ndarray, "n 2"]:
    """Return points on a superellipse about the origin."""
    angle = 2 * np.pi * np.arange(RIM_POINTS) / RIM_POINTS
    cosine, sine = np.cos(angle), np.sin(angle)
    power = 2 / exponent
    return half * np.column_stack([np.sign(cosine) * np.abs(cosine) ** power, np.sign(sine) * np.abs(sine) ** power])


def _lens(centre: Float[np.ndarray, "2"], rim: Float[np.ndarray, "n 2"], plane: Plane) -> Any:
    """Return the solid of a lens, two cones over its rim: it is slightly convex in front and flat behind."""
    n = len(rim)
    depth, middle = plane(rim), plane(centre[None])
    front, front_middle, back, back_middle = LENS_MM
    top = np.vstack([np.column_stack([rim, depth + front]), np.append(centre, middle + front_middle)])
    bottom = np.vstack([np.column_stack([rim, depth - back]), np.append(centre, middle - back_middle)])
    i, j = np.arange(n), np.roll(np.arange(n), -1)
    upper = np.stack([i, j, np.full(n, n)], 1)
    wall = np.concatenate([np.stack([j, i, i + n + 1], 1), np.stack([j, i + n + 1, j + n + 1], 1)])
    return to_manifold(np.concatenate([top, bottom]), np.concatenate([upper, upper[:, ::-1] + n + 1, wall]))


def _smooth_path(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Return a finer path through points."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return PchipInterpolator(length, points)(np.linspace(0, length[-1], TEMPLE_POINTS))
