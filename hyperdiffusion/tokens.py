"""Weight tokens: weights (B, P) in, standardised coordinates (B, D) out, and back.

A head's weights fall into one token for each weight matrix and each bias. Raw, their entries are small and the
diffusion collapses to their mean; so the mean over the store is taken away and one scale brings the whole to unit
variance. Each token is then turned into the principal axes of its own entries over the store. With fewer heads than
entries (512 heads, 16,384 entries) that is an isometry of all that the store holds: the diffusion is the same one, but
noise outside the heads' span, of which the clean weights have none, need not be carried or denoised.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tokens:
    """The coordinates that a store's weights are diffused in."""

    # Entries of each token, in the weights' flat order.
    sizes: tuple[int, ...]
    # (P,) mean of the weights over the store.
    mean: torch.Tensor
    # () one scale for all.
    scale: torch.Tensor
    # (rank, size) orthonormal rows for each token.
    axes: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, weights: torch.Tensor, sizes: Sequence[int]) -> "Tokens":
        """The coordinates of a store's weights (scans, P)."""
        # In double precision: means are far larger than what differs between heads.
        mean = weights.double().mean(0)
        centred = weights.double() - mean
        axes = tuple(principal_axes(token) for token in centred.split(tuple(sizes), dim=1))
        scale = (centred.square().sum() / (len(weights) * sum(map(len, axes)))).sqrt()
        return cls(tuple(sizes), mean.float(), scale.float(), axes)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Coordinates of each token; they sum to D."""
        return tuple(len(axis) for axis in self.axes)

    def encode(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (B, P) -> coordinates (B, D)."""
        pieces = ((weights - self.mean) / self.scale).split(self.sizes, dim=-1)
        return torch.cat([piece @ axis.T for piece, axis in zip(pieces, self.axes)], dim=-1)

    def decode(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates (B, D) -> weights (B, P)."""
        pieces = coordinates.split(self.ranks, dim=-1)
        flat = torch.cat([piece @ axis for piece, axis in zip(pieces, self.axes)], dim=-1)
        return flat * self.scale + self.mean


def principal_axes(token: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows (rank, size) that span the centred float64 entries (scans, size) of a token, widest first."""
    _, singular, rows = torch.linalg.svd(token, full_matrices=False)
    kept = singular > 1e-6 * singular[0].clamp(min=1e-12)
    # A token that is the same in all heads keeps one axis, along which nothing happens.
    kept[0] = True
    return rows[kept].float().contiguous()
