"""Glasses: the surface of a head in, solid frames that sit on its nose and ears out."""

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
# Outer edges lie farther back by this much in mm at the squared distance of 60 mm.
WRAP_MM = 6.0
# Share of glasses whose lenses the scanner saw as surfaces; it looked through the others.
LENS_SHARE = 0.3
# Places on the mean head by which glasses are held: the bridge of the nose, and the way of a temple over the left ear.
BRIDGE = (0.0, -3.0, 66.0)
TEMPLE_WAY = ((72.0, 5.0, 20.0), (74.0, 8.0, -2.0))
# Distance in mm of the temples from the skin at these places.
TEMPLE_GAP_MM = (3.5, 2.5)
# How a temple goes on from there, in mm on the mean head: between ear and skull, and down behind the ear.
TEMPLE_END = ((3.0, 2.0, -22.0), (4.0, 1.0, -42.0), (4.0, -10.0, -60.0), (2.0, -24.0, -68.0))


class GlassesFitter:
    """Glasses for heads of one topology."""

    def __init__(self, scalp: Scalp) -> None:
        # What a temple lies on is the skull, not the ear.
        skull = np.flatnonzero(scalp.ear < 0.01)
        tree = cKDTree(scalp.coordinates[skull])
        self.bridge = skull[_nearest(tree, [BRIDGE])]
        left = np.array(TEMPLE_WAY)
        self.temples = [skull[_nearest(tree, left * [side, 1, 1])] for side in (1, -1)]
        x, y, z = scalp.coordinates.T
        self.around_eyes = np.flatnonzero((np.abs(y) < 24) & (np.abs(x) < 60) & (z > 20))

    def solids(self, level: str, surface: Surface, rng: np.random.Generator) -> list[Any]:
        """Return the parts of glasses, which overlap each other and the head."""
        width, depth = RIM_MM[level]
        half = np.array([rng.uniform(*HALF_WIDTH_MM), rng.uniform(*HALF_HEIGHT_MM)])
        exponent = rng.uniform(*EXPONENT)
        has_lenses = rng.uniform() < LENS_SHARE
        scale = np.ptp(surface.eyes[:, 0]) / 62.5
        half = half * scale
        plane = self._plane(surface)
        parts = []
        inner = []
        for eye, temple, side in zip(surface.eyes, self.temples, (1, -1)):
            centre = np.array([eye[0] + side * 2.0, eye[1] - 3.0])
            loop = _superellipse(half, exponent) + centre
            rim = np.column_stack([loop, plane(loop)])
            parts.append(tube(rim, width=width, depth=depth, closed=True))
            if has_lenses:
                parts.append(_lens(centre, loop, plane))
            hinge = np.array([[centre[0] + side * half[0] * 0.97, centre[1] + half[1] * 0.45]])
            outer = np.column_stack([hinge, plane(hinge)])
            way = surface.vertices[temple] + surface.normals[temple] * np.array(TEMPLE_GAP_MM)[:, None]
            end = way[-1] + scale * np.array(TEMPLE_END) * [side, 1, 1]
            corner = np.array([[max(abs(outer[0, 0]) + 4, abs(way[0, 0]) - 2) * side, outer[0, 1], outer[0, 2] - 6]])
            parts.append(
                tube(
                    _smooth_path(np.concatenate([outer, corner, way, end])),
                    width=width * 1.1,
                    depth=depth,
                    up=(1, 0, 0),
                )
            )
            inner.append(np.array([centre[0] - side * half[0] * 0.93, centre[1] + half[1] * 0.35]))
        parts.append(self._bridge(np.array(inner), plane, width, depth))
        return parts

    def _plane(self, surface: Surface) -> Any:
        """Return the depth in mm of the rims over (x, y): in front of the eyes and of the bridge of the nose."""
        nose = surface.vertices[self.bridge[0]]
        face = surface.vertices[self.around_eyes]
        lean = face[:, 2] - TILT * (face[:, 1] - nose[1]) + WRAP_MM * (face[:, 0] / 60) ** 2
        at_eyes = np.abs(np.abs(face[:, 0]) - np.abs(surface.eyes[:, 0]).mean()) < 12
        start = max(nose[2], lean[at_eyes].max() - 1.0) + CLEARANCE_MM

        def depth(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
            return start + TILT * (points[:, 1] - nose[1]) - WRAP_MM * (points[:, 0] / 60) ** 2

        return depth

    def _bridge(self, ends: np.ndarray, plane: Any, width: float, depth: float) -> Any:
        share = np.linspace(0, 1, 9)[:, None]
        flat = ends[0] + share * (ends[1] - ends[0])
        flat[:, 1] += 3.0 * np.sin(np.pi * share[:, 0])
        return tube(np.column_stack([flat, plane(flat) + 1.0]), width=width, depth=depth)


def _nearest(tree: cKDTree, points: Any) -> Int[np.ndarray, " n"]:
    return tree.query(np.array(points))[1]


def _superellipse(half: np.ndarray, exponent: float) -> Float[np.ndarray, "n 2"]:
    angle = 2 * np.pi * np.arange(RIM_POINTS) / RIM_POINTS
    cosine, sine = np.cos(angle), np.sin(angle)
    power = 2 / exponent
    return half * np.column_stack([np.sign(cosine) * np.abs(cosine) ** power, np.sign(sine) * np.abs(sine) ** power])


def _lens(centre: np.ndarray, loop: np.ndarray, plane: Any) -> Any:
    flat = loop
    n = len(flat)
    z = plane(flat)
    middle = plane(centre[None])
    top = np.vstack([np.column_stack([flat, z + 1.2]), np.append(centre, middle + 1.8)])
    bottom = np.vstack([np.column_stack([flat, z - 1.2]), np.append(centre, middle - 0.8)])
    i, j = np.arange(n), np.roll(np.arange(n), -1)
    upper = np.stack([i, j, np.full(n, n)], 1)
    wall = np.concatenate([np.stack([j, i, i + n + 1], 1), np.stack([j, i + n + 1, j + n + 1], 1)])
    return to_manifold(np.concatenate([top, bottom]), np.concatenate([upper, upper[:, ::-1] + n + 1, wall]))


def _smooth_path(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "m 3"]:
    """Return a finer path through points."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return PchipInterpolator(length, points)(np.linspace(0, length[-1], 28))
