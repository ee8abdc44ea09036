"""Weight tokens: weights (B, P) in, coordinates (B, D) for the diffusion out, and back; and the tokens of coordinates.

`Tokens` are whitened coordinates in a few axes: those of the learned subspace, or the principal axes of all weights. No
noise need be carried that no head has, and every axis is noised alike. With one scale for all, as published, the widest
axis is still louder than the noise at the last time step, so that samples, which start from noise alone, fall short of
the data's spread. `Plain` are the weights themselves, as published, or the same at one scale.

The transformer does not see whitened coordinates but the nine tokens of the method: the weight and the bias of each
layer, each in the principal axes of its own (an isometry too), and the time step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch

# Axes narrower than this share of the widest are rounding.
NARROWEST = 1e-5
# Parts that the store is cut into for cross-validation, and axes on either side that steady an axis' figure.
FOLDS, NEIGHBOURS = 16, 1


class _Tensors:
    """Coordinates made of tensors."""

    TENSORS: tuple[str, ...]

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in self.TENSORS})


@dataclass(frozen=True)
class Tokens(_Tensors):
    """The coordinates that a store's weights are diffused in, and how they fall into tokens."""

    TENSORS = ("mean", "axes", "deviation", "share")
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

    @classmethod
    def spanned(cls, mean: torch.Tensor, directions: torch.Tensor, places: torch.Tensor,
                sizes: Sequence[int]) -> "Tokens":
        """The coordinates of weights mean + places @ directions, of (P,), (D, P) and the heads' (scans, D).

        Axes are the principal ones of the heads. Directions that were learned from all heads hold new ones as they hold
        these, so that the share is 1.
        """
        basis, mix = torch.linalg.qr(directions.double().T)
        middle = places.double().mean(0)
        _, singular, turn = torch.linalg.svd((places.double() - middle) @ mix.T, full_matrices=False)
        kept = singular > NARROWEST * singular[0]
        deviation = singular[kept] / len(places) ** 0.5
        axes = (basis @ turn[kept].T).T
        return cls(tuple(sizes), (mean.double() + middle @ directions.double()).float(), axes.float().contiguous(),
                   deviation.float(), torch.ones(len(deviation)))

    def encode(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (B, P) -> coordinates (B, D) of zero mean and unit variance."""
        return (weights - self.mean) @ self.axes.T / self.deviation

    def decode(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates (B, D) -> weights (B, P)."""
        return (coordinates * self.deviation) @ self.axes + self.mean

    @property
    def size(self) -> int:
        """D, the number of coordinates."""
        return len(self.deviation)

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


@dataclass(frozen=True)
class Plain(_Tensors):
    """Weights as they are, less a mean and over a scale: the published coordinates, of mean 0 and scale 1."""

    TENSORS = ("mean", "scale")
    # Entries of each weight token, in the weights' flat order.
    sizes: tuple[int, ...]
    # (P,) what is taken away.
    mean: torch.Tensor
    # (1,) what the rest is divided by.
    scale: torch.Tensor

    @classmethod
    def raw(cls, sizes: Sequence[int]) -> "Plain":
        """The weights themselves."""
        return cls(tuple(sizes), torch.zeros(sum(sizes)), torch.ones(1))

    @classmethod
    def scaled(cls, weights: torch.Tensor, sizes: Sequence[int]) -> "Plain":
        """Of a store's weights (scans, P): no mean, and one deviation of 1 over all entries."""
        mean = weights.mean(0)
        return cls(tuple(sizes), mean, (weights - mean).square().mean().sqrt()[None])

    def encode(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (B, P) -> coordinates (B, P)."""
        return (weights - self.mean) / self.scale

    def decode(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates (B, P) -> weights (B, P)."""
        return coordinates * self.scale + self.mean

    @property
    def size(self) -> int:
        """D, the number of coordinates."""
        return len(self.mean)


Coordinates = Tokens | Plain


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
