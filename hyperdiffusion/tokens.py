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
# Parts that the store is cut into for cross-validation, and axes on either side that steady an axis' figure.
FOLDS, NEIGHBOURS = 16, 1


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
    # (D,) variance of heads outside the store along each axis, as a share of the store's own; see `new_head_share`.
    share: torch.Tensor

    @classmethod
    def of(cls, weights: torch.Tensor, sizes: Sequence[int]) -> "Tokens":
        """The coordinates of a store's weights (scans, P)."""
        # In double precision: means are far larger than what differs between heads.
        mean = weights.double().mean(0)
        _, singular, rows = torch.linalg.svd(weights.double() - mean, full_matrices=False)
        kept = singular > NARROWEST * singular[0]
        deviation = singular[kept] / len(weights) ** 0.5
        share = new_head_share(weights)[:len(deviation)]
        return cls(tuple(sizes), mean.float(), rows[kept].float().contiguous(), deviation.float(), share.float())

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


def new_head_share(weights: torch.Tensor) -> torch.Tensor:
    """How wide heads that a store (scans, P) does not hold lie along its axes, as a share of its own variance (scans,).

    Principal axes fit the heads that they are made from: a new head varies as much along the first, and far less along
    the last, which hold what is particular to single fits. Found by cross-validation: axes from most heads, the
    variance along them from those left out. Of less than 16 heads nothing can be found, and the share is 1.
    """
    count = len(weights)
    if count < FOLDS:
        return torch.ones(count, dtype=torch.double)
    # Inner products hold all that is needed: no fold touches the 36,737 entries again.
    gram = weights.double() - weights.double().mean(0)
    gram = gram @ gram.T
    fold = torch.arange(count) % FOLDS
    shares = torch.zeros(0, count, dtype=torch.double)
    for left_out in fold.unique():
        inside, outside = fold != left_out, fold == left_out
        within = gram[inside][:, inside]
        across = gram[outside][:, inside]
        # Centred on the mean of the heads inside.
        middle = within.mean(0)
        across = across - across.mean(1, keepdim=True) - middle + middle.mean()
        within = within - middle - middle[:, None] + middle.mean()
        energy, turn = torch.linalg.eigh(within)
        energy, turn = energy.flip(0).clamp(min=NARROWEST * energy[-1]), turn.flip(1)
        share = (across @ turn).square().mean(0) / energy / (energy / inside.sum())
        shares = torch.cat([shares, torch.nn.functional.pad(share[:-1], (0, count - len(share) + 1),
                                                            value=float(share[-2]))[None]])
    # Single axes are judged by few heads: their neighbours in rank steady them.
    padded = torch.nn.functional.pad(shares.mean(0)[None, None], (NEIGHBOURS, NEIGHBOURS), mode="replicate")[0, 0]
    return padded.unfold(0, 2 * NEIGHBOURS + 1, 1).mean(1).clamp(1e-3, 1.0)
