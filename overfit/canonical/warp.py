"""Warps from canonical space to a head: displacements of control points in, points carried forward out.

A warp is an affine map and a sum of radial functions about the control points, of compact support (Wendland 1995): it
moves the control points by given displacements, is smooth between them, and affine beyond their reach, so that
shoulders follow the head. Its parameters are these displacements: means and differences of warps are means and
differences of heads. Points are only ever carried from canonical space to the head; the inverse is used to choose where
points are, never to compute what is there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from overfit.geometry.bounding_cube import Cube

# Millimetres in one unit of the parameters; they are then of the size of a field's weights.
UNIT_MM = 100.0
# Distance from a control point beyond which it has no influence: what a neck does has ended at the shoulders.
REACH_MM = 150.0
# Points whose distances to all control points are computed at once; they stay in the cache.
POINTS_AT_ONCE = 512
# Rounds of fixed-point iteration of an inverse: the displacement's derivatives are well below 1.
INVERSE_ROUNDS = 5
# Nodes along a side of the cube at which an inverse's displacement is tabulated; it is smooth.
INVERSE_NODES = 32
# How far the table reaches beyond the cube, as a share of its half side.
INVERSE_MARGIN = 0.2
# Nodes along a side of the cube at which determinants are checked, besides the control points.
CHECK_NODES = 20
# Smallest determinant of the Jacobian between a warp that is accepted and one that folds. Heads of children have 0.3.
MIN_DETERMINANT = 0.05
# Smoothing that is tried first on a warp that folds, relative to the kernel at a control point; then ten times more.
SMOOTHING = 10.0 ** np.arange(-4, 5)


@dataclass(frozen=True)
class WarpSpace:
    """What all warps of a store share: how a row of parameters is read."""

    control_points: tuple[tuple[float, float, float], ...] = ()
    """Points in canonical space in millimetres, at least four that span space; none if heads are not warped."""
    cuts_neck: bool = False
    """Whether each head ends below in a horizontal plane, whose height is the last parameter."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "WarpSpace":
        """Return the space that `dataclasses.asdict` turned into a dictionary, also after a way through JSON."""
        points = tuple((float(x), float(y), float(z)) for x, y, z in plain["control_points"])
        return cls(points, plain["cuts_neck"])

    @property
    def size(self) -> int:
        """W, the number of parameters of a warp."""
        return 3 * len(self.control_points) + self.cuts_neck

    def parameters(
        self, displacements: Float[np.ndarray, "K 3"], neck_height: float | None
    ) -> Float[torch.Tensor, " W"]:
        """Return the parameters of a warp from displacements and the height of the neck's plane in millimetres."""
        flat = [*displacements.ravel(), *([neck_height] if self.cuts_neck else [])]
        return torch.tensor(flat, dtype=torch.float32) / UNIT_MM

    def warp(self, parameters: Float[torch.Tensor, " W"]) -> "Warp | None":
        """Return the warp of a row of parameters, or None if heads are not warped."""
        if not self.control_points:
            return None
        values = parameters.detach().cpu().double().numpy() * UNIT_MM
        count = 3 * len(self.control_points)
        height = float(values[-1]) if self.cuts_neck else None
        return Warp(self, values[:count].reshape(-1, 3), height)


@dataclass(frozen=True)
class Warp:
    """A smooth map from canonical space to one head, both in millimetres."""

    space: WarpSpace
    """Whose control points are moved."""
    displacements: Float[np.ndarray, "K 3"]
    """By how much, in millimetres."""
    neck_height: float | None = None
    """Height in head space of the plane in which the head ends, in millimetres; None if it is not cut."""

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Return points in head space from points in canonical space."""
        moved = torch.empty(len(points), 3, dtype=torch.double)
        centres = torch.from_numpy(self._centres / REACH_MM)
        bending, affine = torch.from_numpy(self._coefficients).split([len(centres), 4])
        chunks = torch.from_numpy(np.asarray(points, np.float64) / REACH_MM).split(POINTS_AT_ONCE)
        for chunk, target in zip(chunks, moved.split(POINTS_AT_ONCE)):
            target.copy_(affine[0] + chunk @ affine[1:] + _kernel(chunk, centres) @ bending)
        return points + moved.numpy()

    def inverse(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Return points in canonical space that the warp carries close to points in head space: to 0.1 mm, usually."""
        return _fixed_point(points, lambda at: self(at) - at, self._affine)

    def inverse_in(self, cube: Cube, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Return what `inverse` does, many times faster for many points near a cube, from a table of displacements."""
        reach = 1 + INVERSE_MARGIN
        nodes = cube.grid(INVERSE_NODES, reach=reach)
        table = (self(nodes) - nodes).reshape(INVERSE_NODES, INVERSE_NODES, INVERSE_NODES, 3)

        def displacement(at: np.ndarray) -> np.ndarray:
            index = ((cube.to_field(at) + reach) * (INVERSE_NODES - 1) / (2 * reach)).T
            found = [map_coordinates(table[..., k], index, order=1, mode="nearest") for k in range(3)]
            return np.stack(found, axis=1)

        return _fixed_point(points, displacement, self._affine)

    def determinants(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Return the determinant of the Jacobian at points: by how much the warp expands space there."""
        return np.linalg.det(self.jacobians(points))

    def jacobians(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
        """Return the derivatives at points: row i is how their image moves when coordinate i grows."""
        centres = torch.from_numpy(self._centres / REACH_MM)
        bending, _, linear = torch.from_numpy(self._coefficients).split([len(centres), 1, 3])
        moments = (centres[:, :, None] * bending[:, None]).flatten(1)
        jacobians = []
        for chunk in torch.from_numpy(np.asarray(points, np.float64) / REACH_MM).split(POINTS_AT_ONCE):
            # The kernel's gradient is -20 (1 - r)^3 (x - c): x factors out of the sum over the centres.
            slope = -20 * (1 - _squared_distances(chunk, centres).sqrt_()).clamp_(min=0).pow_(3)
            gradient = chunk[:, :, None] * (slope @ bending)[:, None] - (slope @ moments).unflatten(1, (3, 3))
            jacobians.append(torch.eye(3) + (linear + gradient) / REACH_MM)
        return torch.cat(jacobians).numpy()

    def unfolded(self, cube: Cube) -> "Warp":
        """Return the warp, smoothed as little as is needed for a positive Jacobian everywhere in a cube."""
        # Between control points that are close to each other, warps bend most.
        nodes = np.concatenate([cube.grid(CHECK_NODES), self._centres])
        warp = self
        for smoothing in SMOOTHING:
            if warp.determinants(nodes).min() >= MIN_DETERMINANT:
                return warp
            smoother = _smoother(self.space.control_points, smoothing)
            warp = Warp(self.space, smoother @ self.displacements, self.neck_height)
        return warp

    @property
    def _centres(self) -> np.ndarray:
        return control_array(self.space.control_points)

    @cached_property
    def _coefficients(self) -> np.ndarray:
        """Coefficients (K + 4, 3) of the basis."""
        return _solver(self.space.control_points) @ self.displacements

    @property
    def _affine(self) -> np.ndarray:
        """The linear map (3, 3), acting on rows, that is closest to the warp at the control points."""
        centres = self._centres - self._centres.mean(0)
        return np.linalg.lstsq(centres, centres + self.displacements - self.displacements.mean(0), rcond=None)[0]


@lru_cache(maxsize=4)
def control_array(control_points: tuple[tuple[float, float, float], ...]) -> Float[np.ndarray, "K 3"]:
    """Return control points as an array, in millimetres."""
    return np.array(control_points)


def interpolation(
    control_points: tuple[tuple[float, float, float], ...], points: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n K"]:
    """Return the matrix that turns displacements of control points into displacements of points."""
    return _basis(control_array(control_points), points) @ _solver(control_points)


def _basis(centres: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The basis (n, K + 4) of warps at points: the kernel about each centre, and affine."""
    at = points / REACH_MM
    kernel = _kernel(torch.from_numpy(at), torch.from_numpy(centres / REACH_MM)).numpy()
    return np.concatenate([kernel, np.ones((len(at), 1)), at], axis=1)


def _kernel(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Wendland's function (1 - r)^4 (4 r + 1) of the distances (n, K), in units of the reach; 0 beyond it.

    It is twice differentiable. In place, by torch, it is several times faster than by numpy.
    """
    distance = _squared_distances(points, centres).sqrt_()
    within = (1 - distance).clamp_(min=0)
    return within.square_().square_().mul_(distance.mul_(4).add_(1))


def _squared_distances(points: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Squared distances (n, K) of points (n, 3) from centres (K, 3)."""
    squared = torch.addmm(centres.square().sum(1), points, centres.T, alpha=-2)
    return squared.add_(points.square().sum(1, keepdim=True)).clamp_(min=0)


@lru_cache(maxsize=4)
def _solver(control_points: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    """The matrix (K + 4, K) from displacements to coefficients."""
    return _coefficients_of(control_array(control_points), 0.0)


@lru_cache(maxsize=16)
def _smoother(control_points: tuple[tuple[float, float, float], ...], smoothing: float) -> np.ndarray:
    """The matrix (K, K) from displacements to those of a smoother warp."""
    centres = control_array(control_points)
    return _basis(centres, centres) @ _coefficients_of(centres, smoothing)


def _coefficients_of(centres: np.ndarray, smoothing: float) -> np.ndarray:
    """The matrix (K + 4, K) from values at the centres to coefficients.

    The affine part is the closest one; the kernel makes up for the rest, by ridge regression if it is to be smooth.
    """
    kernel, affine = np.split(_basis(centres, centres), [len(centres)], axis=1)
    closest = np.linalg.pinv(affine)
    rest = np.eye(len(centres)) - affine @ closest
    return np.concatenate([np.linalg.solve(kernel + smoothing * np.eye(len(centres)), rest), closest])


def _fixed_point(
    points: np.ndarray, displacement: Callable[[np.ndarray], np.ndarray], affine: np.ndarray
) -> np.ndarray:
    """Points x with x + displacement(x) = points, approximately. The linear part is solved exactly in each round."""
    inverse = np.linalg.inv(affine)
    at = points - displacement(points)
    for _ in range(INVERSE_ROUNDS):
        at = at + (points - at - displacement(at)) @ inverse
    return at
