"""Coordinates for the diffusion: parameters (B, S) in, coordinates (B, D) out, and back; how they split into tokens.

A head's parameters are its network's weights and, in front of them, those of its warp, if heads are warped.

`LatentCoordinates` are whitened coordinates in a basis of few directions: that of the learned latent space, or the
principal components of the weights. Every coordinate then has unit variance and is noised alike. With one scale for
all weights, as published, the widest direction is still louder than the noise at the last timestep, so that samples,
which start from pure noise, are less diverse than the data. `WeightCoordinates` are the weights themselves, as
published, or the same divided by one scale.

The transformer sees tokens: the weight and the bias of each layer, each in principal components of its own (an
isometry), and the timestep. The warp belongs to the first layer's weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float

# Directions whose standard deviation is below this fraction of the largest are rounding errors.
MIN_RELATIVE_STD = 1e-5
# Folds of the cross-validation that estimates variance ratios; fewer heads than folds give no estimate.
FOLDS = 16
# Directions on either side over which a variance ratio is averaged: single ones are estimated from few heads.
SMOOTHING_NEIGHBOURS = 1
# Smallest variance ratio, so that no direction vanishes.
MIN_VARIANCE_RATIO = 1e-3


@dataclass(frozen=True)
class LatentCoordinates:
    """Whitened coordinates in an orthonormal basis of parameter space."""

    TENSORS: ClassVar = ("mean", "basis", "std", "variance_ratio")

    sizes: tuple[int, ...]
    """Parameters of each token, in flat order."""
    mean: Float[torch.Tensor, " S"]
    """Mean of the parameters over the store."""
    basis: Float[torch.Tensor, "D S"]
    """Orthonormal rows, ordered by decreasing variance of the store's heads."""
    std: Float[torch.Tensor, " D"]
    """Standard deviation of the store's heads along each direction."""
    variance_ratio: Float[torch.Tensor, " D"]
    """Variance of unseen heads along each direction relative to the store's; see `unseen_variance_ratio`."""

    @classmethod
    def from_weights(cls, parameters: Float[torch.Tensor, "heads S"], sizes: Sequence[int]) -> "LatentCoordinates":
        """Return the principal components of a store's heads."""
        # In double precision: the mean is far larger than the differences between heads.
        mean = parameters.double().mean(0)
        _, singular, rows = torch.linalg.svd(parameters.double() - mean, full_matrices=False)
        kept = singular > MIN_RELATIVE_STD * singular[0]
        std = singular[kept] / len(parameters) ** 0.5
        ratio = unseen_variance_ratio(parameters)[: len(std)]
        return cls(tuple(sizes), mean.float(), rows[kept].float().contiguous(), std.float(), ratio.float())

    @classmethod
    def from_codes(
        cls,
        mean: Float[torch.Tensor, " S"],
        directions: Float[torch.Tensor, "D S"],
        *,
        codes: Float[torch.Tensor, "heads D"],
        sizes: Sequence[int],
    ) -> "LatentCoordinates":
        """Return whitened coordinates for the parameters `mean + codes @ directions`.

        The basis is rotated to the principal components of the codes. The directions fit unseen heads as well as
        the heads they were learned on, so that all variance ratios are 1.
        """
        span, triangular = torch.linalg.qr(directions.double().T)
        code_mean = codes.double().mean(0)
        centred = (codes.double() - code_mean) @ triangular.T
        _, singular, rotation = torch.linalg.svd(centred, full_matrices=False)
        kept = singular > MIN_RELATIVE_STD * singular[0]
        std = singular[kept] / len(codes) ** 0.5
        basis = (span @ rotation[kept].T).T
        mean = mean.double() + code_mean @ directions.double()
        return cls(tuple(sizes), mean.float(), basis.float().contiguous(), std.float(), torch.ones(len(std)))

    @classmethod
    def from_covariance(
        cls,
        mean: Float[torch.Tensor, " S"],
        directions: Float[torch.Tensor, "D S"],
        *,
        covariance: Float[torch.Tensor, "D D"],
        sizes: Sequence[int],
    ) -> "LatentCoordinates":
        """Return what `from_codes` returns, for codes of zero mean and with this covariance."""
        span, triangular = torch.linalg.qr(directions.double().T)
        energy, rotation = torch.linalg.eigh(triangular @ covariance.double() @ triangular.T)
        std, rotation = energy.flip(0).clamp(min=0).sqrt(), rotation.flip(1)
        kept = std > MIN_RELATIVE_STD * std[0]
        basis = (span @ rotation[:, kept]).T
        return cls(
            tuple(sizes), mean.float(), basis.float().contiguous(), std[kept].float(), torch.ones(int(kept.sum()))
        )

    def encode(self, parameters: Float[torch.Tensor, "B S"]) -> Float[torch.Tensor, "B D"]:
        """Return coordinates of zero mean and unit variance by projection onto the basis."""
        return (parameters - self.mean) @ self.basis.T / self.std

    def decode(self, coordinates: Float[torch.Tensor, "B D"]) -> Float[torch.Tensor, "B S"]:
        """Return the parameters of coordinates."""
        return (coordinates * self.std) @ self.basis + self.mean

    def to(self, device: torch.device) -> "LatentCoordinates":
        """Return the same coordinates on a device."""
        tensors = (self.mean, self.basis, self.std, self.variance_ratio)
        return LatentCoordinates(self.sizes, *(tensor.to(device) for tensor in tensors))

    @property
    def size(self) -> int:
        """D, the number of coordinates."""
        return len(self.std)

    @property
    def directions(self) -> Float[torch.Tensor, "D S"]:
        """What each entry of whitened coordinates adds to the parameters."""
        return self.std[:, None] * self.basis

    @cached_property
    def relative_std(self) -> Float[torch.Tensor, " D"]:
        """Standard deviations divided by their root mean square."""
        return self.std / self.std.square().mean().sqrt()

    @cached_property
    def token_maps(self) -> tuple[list[Float[torch.Tensor, "D rank"]], list[Float[torch.Tensor, "rank D"]]]:
        """For each token, the map from coordinates to the token, and from the token to unwhitened coordinates.

        A token is its slice of the parameters, rotated to the principal components of that slice over the store.
        """
        scale = self.std.double().square().mean().sqrt()
        width = self.std.double() / scale
        to_token, from_token = [], []
        for block in self.basis.double().split(self.sizes, dim=1):
            gram = block @ block.T
            energy, rotation = torch.linalg.eigh(width[:, None] * gram * width)
            kept = energy > MIN_RELATIVE_STD**2 * width.max() ** 2
            # A token that is equal in all heads keeps one direction, which is always zero.
            kept[-1] = True
            energy, rotation = energy[kept].clamp(min=MIN_RELATIVE_STD**2).sqrt(), rotation[:, kept]
            to_token.append((rotation * energy).float())
            from_token.append(((rotation / energy).T @ (width[:, None] * gram)).float())
        return to_token, from_token


@dataclass(frozen=True)
class WeightCoordinates:
    """The parameters themselves, less a mean and divided by one scale. The published ones have mean 0 and scale 1."""

    TENSORS: ClassVar = ("mean", "scale")

    sizes: tuple[int, ...]
    """Parameters of each token, in flat order."""
    mean: Float[torch.Tensor, " S"]
    """Subtracted from the parameters."""
    scale: Float[torch.Tensor, " 1"]
    """The rest is divided by this."""

    @classmethod
    def raw(cls, sizes: Sequence[int]) -> "WeightCoordinates":
        """Return coordinates that are the parameters, unchanged."""
        return cls(tuple(sizes), torch.zeros(sum(sizes)), torch.ones(1))

    @classmethod
    def scaled(cls, parameters: Float[torch.Tensor, "heads S"], sizes: Sequence[int]) -> "WeightCoordinates":
        """Return coordinates of zero mean, and of unit variance over all entries together."""
        mean = parameters.mean(0)
        return cls(tuple(sizes), mean, (parameters - mean).square().mean().sqrt()[None])

    def encode(self, parameters: Float[torch.Tensor, "B S"]) -> Float[torch.Tensor, "B S"]:
        """Return the coordinates of parameters."""
        return (parameters - self.mean) / self.scale

    def decode(self, coordinates: Float[torch.Tensor, "B S"]) -> Float[torch.Tensor, "B S"]:
        """Return the parameters of coordinates."""
        return coordinates * self.scale + self.mean

    def to(self, device: torch.device) -> "WeightCoordinates":
        """Return the same coordinates on a device."""
        return WeightCoordinates(self.sizes, self.mean.to(device), self.scale.to(device))

    @property
    def size(self) -> int:
        """D = S, the number of coordinates."""
        return len(self.mean)


Coordinates = LatentCoordinates | WeightCoordinates


def unseen_variance_ratio(parameters: Float[torch.Tensor, "heads S"]) -> Float[torch.Tensor, " heads"]:
    """Return, for each principal component, the variance of unseen heads relative to that of the store's heads.

    Principal components fit the heads they are computed from: unseen heads vary as much along the first ones, and far
    less along the last, which describe single fits. The ratio is estimated by cross-validation, with components from
    most heads and variances from those left out. It is 1 for fewer than 16 heads, which allow no estimate.
    """
    count = len(parameters)
    if count < FOLDS:
        return torch.ones(count, dtype=torch.double)
    # Inner products are all that is needed: no fold touches the 36,737 entries again.
    gram = parameters.double() - parameters.double().mean(0)
    gram = gram @ gram.T
    fold = torch.arange(count) % FOLDS
    ratios = torch.stack([_fold_variance_ratio(gram, fold == index) for index in fold.unique()])
    padding = (SMOOTHING_NEIGHBOURS, SMOOTHING_NEIGHBOURS)
    padded = torch.nn.functional.pad(ratios.mean(0)[None, None], padding, mode="replicate")[0, 0]
    return padded.unfold(0, 2 * SMOOTHING_NEIGHBOURS + 1, 1).mean(1).clamp(MIN_VARIANCE_RATIO, 1.0)


def _fold_variance_ratio(gram: torch.Tensor, left_out: torch.Tensor) -> torch.Tensor:
    """Ratios (heads,) with some heads left out, from inner products (heads, heads); the last ones are repeated."""
    inside = ~left_out
    within, across = gram[inside][:, inside], gram[left_out][:, inside]
    # Centred on the mean of the heads inside.
    mean = within.mean(0)
    across = across - across.mean(1, keepdim=True) - mean + mean.mean()
    within = within - mean - mean[:, None] + mean.mean()
    energy, rotation = torch.linalg.eigh(within)
    energy, rotation = energy.flip(0).clamp(min=MIN_RELATIVE_STD * energy[-1]), rotation.flip(1)
    ratio = (across @ rotation).square().mean(0) / energy / (energy / inside.sum())
    # The last component of centred heads is empty.
    missing = len(gram) - len(ratio) + 1
    return torch.nn.functional.pad(ratio[:-1], (0, missing), value=float(ratio[-2]))
