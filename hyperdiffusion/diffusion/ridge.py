"""Ridge regression: features (heads, F) and targets (heads, D) in; coefficients and left-out residuals out."""

from dataclasses import dataclass

import torch
from jaxtyping import Float

# Penalties to choose from, relative to the number of heads: the features have a variance of about 1.
PENALTIES = torch.logspace(-4, 3, 15, dtype=torch.float64)
# Upper bound on a head's leverage: with as many features as heads, nothing is left out.
MAX_LEVERAGE = 0.999


@dataclass(frozen=True)
class Ridge:
    """A linear map without an intercept: features and targets have zero mean."""

    coefficients: Float[torch.Tensor, "F D"]
    """What each feature adds to the targets."""
    residuals: Float[torch.Tensor, "heads D"]
    """Targets less their prediction from the other heads."""


def ridge(features: Float[torch.Tensor, "heads F"], targets: Float[torch.Tensor, "heads D"]) -> Ridge:
    """Return the regression of each target with the penalty that predicts left-out heads best.

    The penalty is chosen for each target alone, by leave-one-out residuals in closed form (Allen's PRESS; Golub, Heath
    and Wahba 1979): most targets depend on no feature, and few depend on many.
    """
    left, singular, right = torch.linalg.svd(features.double(), full_matrices=False)
    energy, targets = singular.square(), targets.double()
    projected = left.T @ targets
    # (penalties, rank): how much of each direction is kept.
    kept = energy / (energy + PENALTIES[:, None] * len(features))
    leverage = (kept @ left.square().T).clamp(max=MAX_LEVERAGE)
    best = torch.full_like(targets[0], torch.inf)
    choice = torch.zeros_like(best, dtype=torch.long)
    residuals = torch.zeros_like(targets)
    for index, (factor, share) in enumerate(zip(kept, leverage)):
        candidate = (targets - left @ (factor[:, None] * projected)) / (1 - share)[:, None]
        error = candidate.square().sum(0)
        better = error < best
        best, choice = torch.where(better, error, best), torch.where(better, index, choice)
        residuals[:, better] = candidate[:, better]
    scale = singular[:, None] / (energy[:, None] + PENALTIES[choice] * len(features))
    return Ridge((right.T @ (scale * projected)).float(), residuals.float())
