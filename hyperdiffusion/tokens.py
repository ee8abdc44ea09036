"""Weight tokens: weights (B, P) in, whitened coordinates (B, D) out, and back; and the tokens of such coordinates.

A store of n heads spans at most n - 1 of its 36,737 dimensions. The diffusion runs in the principal axes of that span,
each with its own mean and deviation taken away: nothing that the store holds is lost, no noise need be carried that no
head has, and every axis is noised alike. With one scale for all, as published, the widest axis is still louder than
the noise at the last time step, so that samples, which start from noise alone, fall short of the data's spread.

The transformer does not see these coordinates but the nine tokens of the method: the weight and the bias of each layer,
each in the principal axes of its own (an isometry too), and the time step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

# Axes narrower than this share of the widest are rounding.
NARROWEST = 1e-5


@dataclass(frozen=True)
class Tokens:
    """The coordinates that a store's weights are diffused in, and how they fall into tokens."""

    # Entries of each weight token, in the weights' flat order.
    sizes: tuple[int, ...]
    # (P,) mean of the weights over the store.
    mean: torch.Tensor
    # (D, P) orthonormal rows: the principal axes of the store's weights, widest first.
    axes: torch.Tensor
    # (D,) standard deviation of the store along each axis.
    deviation: torch.Tensor

    @classmethod
    def of(cls, weights: torch.Tensor, sizes: Sequence[int]) -> "Tokens":
        """The coordinates of a store's weights (scans, P)."""
        # In double precision: means are far larger than what differs between heads.
        mean = weights.double().mean(0)
        _, singular, rows = torch.linalg.svd(weights.double() - mean, full_matrices=False)
        kept = singular > NARROWEST * singular[0]
        deviation = singular[kept] / len(weights) ** 0.5
        return cls(tuple(sizes), mean.float(), rows[kept].float().contiguous(), deviation.float())

    def encode(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (B, P) -> coordinates (B, D) of zero mean and unit variance."""
        return (weights - self.mean) @ self.axes.T / self.deviation

    def decode(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates (B, D) -> weights (B, P)."""
        return (coordinates * self.deviation) @ self.axes + self.mean

    @cached_property
    def views(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For each token, how coordinates give it (D, rank), and what it adds to them unwhitened (rank, D).

        A token is its stretch of the weights, turned into the principal axes of that stretch over the store.
        """
        scale = self.deviation.double().square().mean().sqrt()
        width = self.deviation.double() / scale
        to_token, to_axes = [], []
        for stretch in self.axes.double().split(self.sizes, dim=1):
            gram = stretch @ stretch.T
            energy, turn = torch.linalg.eigh(width[:, None] * gram * width)
            kept = energy > NARROWEST**2 * width.max() ** 2
            # A token that is the same in all heads keeps one axis, on which nothing happens.
            kept[-1] = True
            energy, turn = energy[kept].clamp(min=NARROWEST**2).sqrt(), turn[:, kept]
            to_token.append((turn * energy).float())
            to_axes.append(((turn / energy).T @ (width[:, None] * gram)).float())
        return to_token, to_axes
