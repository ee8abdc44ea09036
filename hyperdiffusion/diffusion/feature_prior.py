"""What attributes say about each other: features (B, F), some of them missing, in; all of them out.

Features are jointly Gaussian, with zero mean. What is known of them is evidence in information form: a precision
(..., F, F), and the same times the value that it speaks for (..., F).
"""

import torch
from jaxtyping import Bool, Float
from torch import nn

# Variance of a known feature, so that it is evidence as a noised code is; features have a variance of about 1.
KNOWN_VARIANCE = 1e-6
# Heads without any covariance that are added to those from which one is estimated.
SHRINKAGE_HEADS = 10


class FeaturePrior(nn.Module):
    """The Gaussian of features, whose covariance is `scale` times its transpose."""

    scale: torch.Tensor

    def __init__(self, scale: Float[torch.Tensor, "F F"]):
        """Make the distribution."""
        super().__init__()
        self.register_buffer("scale", scale)

    @classmethod
    def fit(cls, features: Float[torch.Tensor, "heads F"], known: Bool[torch.Tensor, "heads F"]) -> "FeaturePrior":
        """Return the distribution of heads; each covariance is that of the heads of which both features are known."""
        features, seen = features.double() * known, known.double()
        heads = seen.T @ seen
        covariance = features.T @ features / heads.clamp(min=1)
        variance = covariance.diagonal().clone()
        covariance = covariance * heads / (heads + SHRINKAGE_HEADS)
        covariance.diagonal().copy_(variance)
        # Of other heads for each pair, it may have negative eigenvalues.
        energy, axes = torch.linalg.eigh(covariance)
        return cls(((axes * energy.clamp(min=0).sqrt()) @ axes.T).float())

    def with_spread(self, factor: float) -> "FeaturePrior":
        """Return the distribution with all standard deviations multiplied by a factor."""
        return FeaturePrior(factor * self.scale)

    def complete(
        self,
        features: Float[torch.Tensor, "B F"],
        known: Bool[torch.Tensor, "B F"],
        *,
        precision: Float[torch.Tensor, "B F F"] | float = 0.0,
        information: Float[torch.Tensor, "B F"] | float = 0.0,
    ) -> Float[torch.Tensor, "B F"]:
        """Return features, those that are missing as their mean given the known ones and further evidence."""
        weight = known.double() / KNOWN_VARIANCE
        scale = self.scale.double()
        posterior = self._posterior_precision(torch.diag_embed(weight) + precision)
        mean = torch.linalg.solve(posterior, (weight * features + information) @ scale) @ scale.T
        return torch.where(known, features, mean.to(features.dtype))

    def covariance_given(self, known: Bool[torch.Tensor, " F"]) -> Float[torch.Tensor, "F F"]:
        """Return the covariance of features, in double precision, of heads with some known ones."""
        scale = self.scale.double()
        return scale @ torch.linalg.solve(self._posterior_precision(known.double().diag() / KNOWN_VARIANCE), scale.T)

    def _posterior_precision(self, precision: torch.Tensor) -> torch.Tensor:
        """The precision (..., F, F) of the standard normal variables that `scale` turns into features."""
        scale = self.scale.double()
        return torch.eye(len(scale), dtype=torch.float64, device=scale.device) + scale.T @ precision @ scale
