"""Coordinates and random relief on the template of heads: points of the mean head in, fields over its vertices out."""

import numpy as np
from jaxtyping import Float

# Points (azimuth in degrees, height in mm) of a line on the mean head, the same on both sides.
Line = tuple[tuple[float, float], ...]
# Waves that make up a random field.
WAVES = 40
# The vertical axis about which azimuths are measured is this far behind the origin, in mm: in the middle of the skull.
AXIS_DEPTH_MM = -38.0
# Millimetres on the surface for each degree of azimuth.
MM_PER_DEGREE = 1.4
# Radius in mm at which strands have the wavelength that is asked for.
STRAND_RADIUS_MM = 80.0
# Strands are this many times as long as they are wide.
STRAND_LENGTH = 8.0


class SmoothNoise:
    """Random fields over points: sums of plane waves, with mean 0 and variance 1."""

    def __init__(self, points: Float[np.ndarray, "n 3"], wavelength: float, *, seed: int = 0) -> None:
        """Prepare the waves, whose lengths are 0.8 to 1.6 times the wavelength in mm."""
        rng = np.random.default_rng(seed)
        directions = rng.normal(size=(WAVES, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = wavelength * rng.uniform(0.8, 1.6, WAVES)
        phases = points @ (2 * np.pi * directions / lengths[:, None]).T
        self.waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1).astype(np.float32)

    def __call__(self, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
        """Return a random field."""
        return self.waves @ (rng.normal(size=2 * WAVES) / np.sqrt(WAVES)).astype(np.float32)


class Scalp:
    """Where each vertex of the template lies on the mean head, and random fields over it."""

    def __init__(self, coordinates: Float[np.ndarray, "n 3"], ear: Float[np.ndarray, " n"]) -> None:
        self.coordinates = coordinates
        self.ear = ear
        """Share of the ear in each vertex."""
        x, y, z = coordinates.T
        self.height = y
        """Height in mm."""
        self.signed_azimuth = np.degrees(np.arctan2(x, z - AXIS_DEPTH_MM))
        """Degrees about the vertical axis: 0 in front, 90 at the left ear (+x)."""
        self.azimuth = np.abs(self.signed_azimuth)
        """The same without a side."""
        angle = np.radians(self.signed_azimuth)
        ring = STRAND_RADIUS_MM * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        along = np.column_stack([ring, y / STRAND_LENGTH])
        self._distances: dict[Line, np.ndarray] = {}
        self.strands = SmoothNoise(along, 8.0)
        self.locks = SmoothNoise(along, 22.0, seed=1)
        self.curls = SmoothNoise(coordinates, 15.0, seed=2)
        self.fur = SmoothNoise(coordinates, 6.0, seed=3)
        self.lumps = SmoothNoise(coordinates, 30.0, seed=4)

    def above(self, line: Line, *, width: float, shift: float = 0.0) -> Float[np.ndarray, " n"]:
        """Return 1 above a line raised by `shift` mm, 0 below it, and a smooth step `width` mm wide between."""
        return smoothstep((self.distance_above(line) - shift) / width + 0.5)

    def distance_above(self, line: Line) -> Float[np.ndarray, " n"]:
        """Return the distance in mm to a line on the head, positive above it.

        Args:
            line: Points (azimuth in degrees, height in mm) from the front to the back.
        """
        if line not in self._distances:
            self._distances[line] = self._distance_above(np.array(line))
        return self._distances[line]

    def _distance_above(self, line: np.ndarray) -> np.ndarray:
        scale = np.array([MM_PER_DEGREE, 1.0])
        points = np.column_stack([self.azimuth, self.height]) * scale
        nearest = np.full(len(points), np.inf)
        for start, end in zip(line * scale, line[1:] * scale):
            way = end - start
            share = np.clip((points - start) @ way / (way @ way), 0, 1)
            nearest = np.minimum(nearest, np.linalg.norm(points - start - share[:, None] * way, axis=1))
        return np.where(self.height > np.interp(self.azimuth, *line.T), nearest, -nearest)


def rise(values: np.ndarray, step: tuple[float, float]) -> np.ndarray:
    """Return a smooth step from 0 to 1, which begins at the first of two numbers and is as wide as the second."""
    start, width = step
    return smoothstep((values - start) / width)


def smoothstep(values: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1 and a smooth step between."""
    clipped = np.clip(values, 0, 1)
    return clipped**2 * (3 - 2 * clipped)
