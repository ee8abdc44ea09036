"""Similarity transforms: points in, the same points scaled, rotated and moved out."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from overfit.geometry.point_cloud import PointCloud


@dataclass(frozen=True)
class Similarity:
    """x -> scale * rotation @ x + translation."""

    scale: float = 1.0
    """Factor on all lengths."""
    rotation: Float[np.ndarray, "3 3"] = field(default_factory=lambda: np.eye(3))
    """A proper rotation matrix."""
    translation: Float[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    """What is added last."""

    @classmethod
    def between(cls, points: Float[np.ndarray, "n 3"], goal: Float[np.ndarray, "n 3"]) -> "Similarity":
        """Return the transform that carries points closest to others, by least squares (Umeyama 1991)."""
        mean, goal_mean = points.mean(0), goal.mean(0)
        rotation, _ = Rotation.align_vectors(goal - goal_mean, points - mean)
        turned = (points - mean) @ rotation.as_matrix().T
        scale = float((turned * (goal - goal_mean)).sum() / (turned**2).sum())
        return cls(scale, rotation.as_matrix(), goal_mean - scale * rotation.apply(mean))

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Return the transformed points."""
        return self.scale * points @ self.rotation.T + self.translation

    def transform_cloud(self, cloud: PointCloud) -> PointCloud:
        """Return a cloud with its points and normals transformed."""
        normals = None if cloud.normals is None else cloud.normals @ self.rotation.T
        return PointCloud(self(cloud.points), normals)

    def then(self, other: "Similarity") -> "Similarity":
        """Return the transform that does this one first, then the other."""
        return Similarity(
            scale=self.scale * other.scale,
            rotation=other.rotation @ self.rotation,
            translation=other(self.translation[None])[0],
        )
