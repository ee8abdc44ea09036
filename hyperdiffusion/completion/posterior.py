"""Codes of a partly seen head: points of what is seen in; its pose, the most likely code and random ones out.

The prior of whitened codes is standard normal, and distances to the surface are nearly linear in the code: Gauss-Newton
finds the most likely code, and with it a normal posterior. A random code of it is found by moving a sample of the
diffusion model as little as makes it agree with the scan (perturb and optimise: Papandreou and Yuille 2010), so that
where nothing is seen it stays a sample of the model.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.spatial.transform import Rotation

from hyperdiffusion.completion.linear_heads import LinearHeads, SurfaceSlopes
from overfit.geometry.point_cloud import PointCloud, cell_numbers, thin
from overfit.geometry.similarity import Similarity

# Rounds of Gauss-Newton, and the distance in mm at which a point weighs a quarter, in the first round and the last.
ROUNDS = 8
FIRST_WIDTH_MM = 12.0
LAST_WIDTH_MM = 2.0
# Cosine between the scan's and the head's normals from which a point counts.
MIN_COSINE = 0.3
# How far the registration of a scan may be off: standard deviations of its rotation and its translation.
ROTATION_STD = np.radians(2.0)
TRANSLATION_STD_MM = 2.0
# What codes cannot express of a surface is alike over this distance in mm: points closer to each other tell little more
# than one of them.
CORRELATION_MM = 20.0
# Points that a pose alone is found from.
POSE_POINTS = 1000


@dataclass(frozen=True)
class CodePosterior:
    """What a partial scan tells about a head's code."""

    pose: Similarity
    """From the scan's frame to that of the head; it does not scale."""
    code: Float[np.ndarray, " D"]
    """The most likely code."""
    precision: Float[np.ndarray, "D D"]
    """Inverse covariance of the code, given the pose."""
    information: Float[np.ndarray, "D D"]
    """The part of the precision that the scan gives."""

    def near(self, samples: Float[np.ndarray, "B D"], rng: np.random.Generator) -> Float[np.ndarray, "B D"]:
        """Return random codes of the posterior: samples of the model, moved as little as agrees with the scan.

        For a normal prior they are exactly distributed as the posterior.
        """
        # As random as the scan's noise: of covariance `information`, which need not have full rank.
        energy, axes = np.linalg.eigh(self.information)
        noise = rng.standard_normal(samples.shape) * np.sqrt(energy.clip(0)) @ axes.T
        return self.code + cho_solve(cho_factor(self.precision), (samples + noise).T).T

    def std(self, by_code: Float[np.ndarray, "n D"]) -> Float[np.ndarray, " n"]:
        """Return the standard deviations of what depends linearly on the code, such as distances to the surface."""
        lower = np.linalg.cholesky(self.precision)
        return np.linalg.norm(solve_triangular(lower, by_code.T, lower=True), axis=0)


def find_pose(heads: LinearHeads, seen: PointCloud) -> Similarity:
    """Return the pose in which points of a head lie closest to the mean head, in the way of `find_codes`."""
    return find_codes(heads, thin(seen, POSE_POINTS), model_error_mm=1.0, code_std=1e-3).pose


def find_codes(heads: LinearHeads, seen: PointCloud, *, model_error_mm: float, code_std: float = 1.0) -> CodePosterior:
    """Return what points of a head's surface, with normals and in millimetres, tell about its code and pose.

    Args:
        heads: The model.
        seen: Points of the seen surface, evenly spread, in the canonical frame but for the registration's error.
        model_error_mm: Standard deviation of what codes cannot express of a surface.
        code_std: Standard deviation of the prior; the model's own is 1.
    """
    patches = len(np.unique(cell_numbers(seen.points, CORRELATION_MM)))
    variance = model_error_mm**2 * max(1.0, len(seen.points) / patches)
    code, pose = np.zeros(heads.size), Similarity()
    prior = np.concatenate(
        [np.full(heads.size, code_std**-2.0), np.full(3, ROTATION_STD**-2.0), np.full(3, TRANSLATION_STD_MM**-2.0)]
    )
    for width in np.geomspace(FIRST_WIDTH_MM, LAST_WIDTH_MM, ROUNDS):
        moved = pose.transform_cloud(seen)
        slopes = heads.slopes(code, moved.points)
        weight = _robust_weight(slopes, moved, width) / variance
        jacobian = np.concatenate([slopes.by_code, np.cross(moved.points, slopes.normal), slopes.normal], axis=1)
        information = jacobian.T @ (weight[:, None] * jacobian)
        state = np.concatenate([code, Rotation.from_matrix(pose.rotation).as_rotvec(), pose.translation])
        gradient = jacobian.T @ (weight * slopes.distance) + prior * state
        step = -cho_solve(cho_factor(information + np.diag(prior)), gradient)
        code = code + step[: heads.size]
        turn, shift = step[heads.size :][:3], step[heads.size :][3:]
        pose = pose.then(Similarity(rotation=Rotation.from_rotvec(turn).as_matrix(), translation=shift))
    about_code = information[: heads.size, : heads.size]
    return CodePosterior(pose, code, about_code + np.diag(prior[: heads.size]), about_code)


def _robust_weight(slopes: SurfaceSlopes, seen: PointCloud, width: float) -> np.ndarray:
    """Weights (n,) of points: less the farther off they are (Geman and McClure 1985), none if they face elsewhere."""
    faces = (slopes.normal * seen.known_normals).sum(1) > MIN_COSINE
    return faces / (1 + (slopes.distance / width) ** 2) ** 2
