"""Latent codes whose distribution is known: the name of a task in; coordinates, codes and their optimal denoiser out.

All codes are a broad Gaussian plus something that takes certain values only: six binary factors, such as glasses or
hair, or a position on a ring or a spiral. So each distribution is a mixture of Gaussians of one covariance, and the
optimal denoiser is known in closed form. Codes are whitened, as those of a store are: one Gaussian sees nothing of it.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.coordinates import LatentCoordinates
from hyperdiffusion.diffusion.mixture import GaussianMixture
from overfit import Field

# Coordinates of a code. Standard deviations of the Gaussian fall as 1, 1/2, 1/3, ..., roughly as those of stores do.
SIZE = 64
# Independent binary factors, and how far each moves the code to either side.
FACTORS = 6
FACTOR_SHIFT = 0.4
# Points along a curve, and its radius. The Gaussian's standard deviation in its plane, from this coordinate on, is 0.1.
CURVE_POINTS = 256
PLANE = 9
RADIUS = 2.0
# Turns of the spiral, and its inner radius relative to its outer one.
TURNS = 2.0
INNER_RADIUS = 0.2


@dataclass(frozen=True)
class SyntheticCodes:
    """A distribution of whitened codes."""

    coordinates: LatentCoordinates
    """What the codes mean: their directions in the default field's weights, and standard deviations along these."""
    mixture: GaussianMixture
    """The distribution; called, it is the optimal denoiser."""

    @classmethod
    def around(cls, centres: Float[torch.Tensor, "K D"]) -> "SyntheticCodes":
        """Return the mixture of Gaussians around equally likely centres, whitened."""
        centres = (centres - centres.mean(0)).double()
        within = (1 / torch.arange(1, SIZE + 1).double()).square().diag()
        energy, axes = torch.linalg.eigh(within + torch.cov(centres.T, correction=0))
        std, axes = energy.flip(0).sqrt(), axes.flip(1)
        variances, rotation = torch.linalg.eigh(axes.T @ within @ axes / std[:, None] / std)
        count = len(centres)
        mixture = GaussianMixture(
            torch.full((count,), 1 / count),
            (centres @ axes / std).float(),
            variances.float().expand(count, -1),
            rotation.float().expand(count, -1, -1),
        )
        return cls(_coordinates(std.float()), mixture)

    def draw(self, count: int, seed: int) -> Float[torch.Tensor, "count D"]:
        """Return random codes."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randint(self.mixture.components, (count,), generator=generator)
        # The covariance is the same in all components.
        spread = torch.randn(count, SIZE, generator=generator) * self.mixture.variances[0].sqrt()
        return self.mixture.means[chosen] + spread @ self.mixture.rotations[0].T


def _factors() -> torch.Tensor:
    values = torch.tensor(list(itertools.product((-FACTOR_SHIFT, FACTOR_SHIFT), repeat=FACTORS)))
    return values @ _orthonormal(SIZE, FACTORS, seed=1).T


def _ring() -> torch.Tensor:
    turn = 2 * math.pi * torch.arange(CURVE_POINTS) / CURVE_POINTS
    return _in_plane(RADIUS * torch.stack([turn.cos(), turn.sin()], dim=1))


def _spiral() -> torch.Tensor:
    # Evenly along its length, which grows with the square of the radius.
    radius = torch.linspace(INNER_RADIUS**2, 1, CURVE_POINTS).sqrt()
    angle = TURNS * 2 * math.pi * radius
    return _in_plane(RADIUS * radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1))


def _gaussian() -> torch.Tensor:
    return torch.zeros(1, SIZE)


Task = Literal["factors", "ring", "spiral", "gaussian"]
TASKS: dict[Task, Callable[[], torch.Tensor]] = {
    "factors": _factors,
    "ring": _ring,
    "spiral": _spiral,
    "gaussian": _gaussian,
}


def synthetic_codes(task: Task) -> SyntheticCodes:
    """Return the distribution of a task."""
    return SyntheticCodes.around(TASKS[task]())


def _in_plane(points: Float[torch.Tensor, "K 2"]) -> Float[torch.Tensor, "K D"]:
    return torch.nn.functional.pad(points, (PLANE, SIZE - PLANE - 2))


def _coordinates(std: Float[torch.Tensor, " D"]) -> LatentCoordinates:
    sizes = Field().sizes
    basis = _orthonormal(sum(sizes), SIZE, seed=2).T.contiguous()
    return LatentCoordinates(tuple(sizes), torch.zeros(sum(sizes)), basis, std, torch.ones(SIZE))


def _orthonormal(rows: int, columns: int, *, seed: int) -> torch.Tensor:
    random = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(random)[0].float()
