"""Groups of heads: coordinates (heads, D) in; a mixture of Gaussians and what it guesses of noised heads out.

A folder of scans often holds several populations - two scanners, open and closed mouths, grown-ups and children -
between which no head lies. One Gaussian fills the gap; a mixture does not, and what it expects of noised heads is known
in closed form. The transformer corrects that guess.
"""

from collections.abc import Callable

import torch
from scipy.cluster.vq import kmeans, vq
from torch import nn

# Numbers of groups that are tried beside one, and runs of k-means of which the tightest counts.
GROUPS, RUNS = (2, 3, 4, 6, 8), 8
# Share of a group's covariance between axes that is taken for chance: few groups have more heads than there are axes.
CHANCE = 0.5
# Heads that each group must have, as a share of the axes.
FEWEST = 0.25
# More groups must guess better by this share: less is chance.
GAIN = 0.05


class Mixture(nn.Module):
    """Gaussians, each along its own principal axes. Of one group it is the Gaussian of whitened coordinates."""

    TENSORS = ("share", "middle", "variance", "turn")

    def __init__(self, share: torch.Tensor, middle: torch.Tensor, variance: torch.Tensor, turn: torch.Tensor):
        """Of K groups: shares of the heads (K,), means (K, D), variances (K, D) along columns of turns (K, D, D)."""
        super().__init__()
        for name, tensor in zip(self.TENSORS, (share, middle, variance, turn)):
            self.register_buffer(name, tensor)
        # (K, D) the means along each group's axes.
        self.register_buffer("turned", torch.einsum("kd,kde->ke", middle, turn), persistent=False)
        # (D,) the mean variance inside the groups along each coordinate.
        self.register_buffer("within", torch.einsum("k,kde,ke->d", share, turn.square(), variance), persistent=False)

    @classmethod
    def one(cls, variance: torch.Tensor) -> "Mixture":
        """One group about zero with variances (D,) along the coordinates themselves."""
        middle = torch.zeros_like(variance)
        return cls(variance.new_ones(1), middle[None], variance[None], torch.diag_embed(middle + 1)[None])

    @classmethod
    def of(cls, coordinates: torch.Tensor, group: torch.Tensor, variance: torch.Tensor) -> "Mixture":
        """Of heads (heads, D) in groups (heads,); `variance` (D,) is that of new heads where the learned ones' is 1."""
        narrowed = coordinates.double() * variance.sqrt()
        inside = [narrowed[group == index] for index in group.unique()]
        share = torch.tensor([len(heads) / len(coordinates) for heads in inside])
        middle = torch.stack([heads.mean(0) for heads in inside])
        covariance = torch.stack([torch.cov(heads.T, correction=0) for heads in inside])
        alone = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
        energy, turn = torch.linalg.eigh(torch.lerp(covariance, alone, CHANCE))
        return cls(share, middle.float(), energy.clamp(min=0).float(), turn.float())

    @classmethod
    def best(cls, coordinates: torch.Tensor, width: torch.Tensor, variance: torch.Tensor, most: int,
             loss: Callable[["Mixture"], float]) -> tuple["Mixture", float]:
        """The fewest groups, `most` at most, than which no more guess clearly better, and their loss on heads held out.

        Groups are found among coordinates (heads, D) as wide (D,) as they are in the weights.
        """
        kept = cls.one(variance)
        least = loss(kept)
        places = (coordinates * width).numpy()
        for count in GROUPS:
            if count > most:
                break
            group = torch.from_numpy(vq(places, kmeans(places, count, RUNS, rng=0)[0])[0])
            if group.bincount(minlength=count).min() < max(2, FEWEST * len(width)):
                break
            tried = cls.of(coordinates, group, variance)
            if (found := loss(tried)) < (1 - GAIN) * least:
                kept, least = tried, found
        return kept, least

    def spread(self, factor: float) -> "Mixture":
        """The same groups, with heads so many times as far from their middles."""
        return Mixture(self.share, self.middle, factor**2 * self.variance, self.turn)

    def forward(self, noised: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
        """The mean of x_0 (B, D) given x_t (B, D) whose alpha-bar is `signal` (B, 1), by Bayes' rule."""
        # In full precision: the logarithms of densities are large, and their differences count.
        with torch.autocast(noised.device.type, enabled=False):
            signal = signal[:, :, None]
            # (B, K, D), along each group's axes.
            off = torch.einsum("bd,kde->bke", noised, self.turn) - signal.sqrt() * self.turned
            total = signal * self.variance + 1 - signal
            density = self.share.log() - (off.square() / total + total.log()).sum(-1) / 2
            guess = self.turned + signal.sqrt() * self.variance / total * off
            return torch.einsum("bk,bke,kde->bd", density.softmax(-1), guess, self.turn)

    def __len__(self) -> int:
        return len(self.share)
