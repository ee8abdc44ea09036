"""A trained model as the prior of other heads: labels of scans in; the weights of its heads that are nearest out."""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.encode import (
    AutoDecoder,
    HeadLabels,
    LatentSpaceConfig,
    code_optimizer,
    code_table,
    fit_codes,
)
from overfit.labels import LabelBatch
from overfit.neural_head import HeadSpace

# Steps that find the nearest heads, their learning rate, and the weight of the squared norm of their codes. On heads of
# another population a smaller weight goes too far: codes of norm 40, three times that of the prior's own heads.
START_STEPS = 100
START_LR = 0.1
NEAREST_PENALTY = 1e-3
# Directions that are smaller than this share of the largest are rounding errors: bases may be in half precision.
MIN_RELATIVE_SIZE = 1e-3


@dataclass(frozen=True)
class HeadPrior:
    """A model of warped heads from which fits and trainings of other heads start; see `overfit.prior.FitPrior`."""

    space: HeadSpace
    """The space of all its heads."""
    digest: str
    """What tells it from other models."""
    mean: Float[torch.Tensor, " P"]
    """The weights of its mean head."""
    directions: Float[torch.Tensor, "D P"]
    """How heads differ from the mean in the networks alone, by one standard deviation along each of D directions."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, name: str = "the model") -> "HeadPrior":
        """Return the prior of a checkpoint. Raises BadInput about the model of this name if it has no latent space."""
        coordinates, space = checkpoint.require_latent(name), checkpoint.space
        directions = principal_directions(space.weights(coordinates.directions))
        return cls(space, checkpoint.digest, space.weights(coordinates.mean).cpu().clone(), directions)

    def nearest(self, labels: LabelBatch, *, mean: Float[torch.Tensor, " P"]) -> Float[torch.Tensor, "scans P"]:
        """Return the weights that agree best with scans' labels among those that its heads had with another mean.

        Warps have no part in it: scans come with their own.
        """
        device, count = labels.points.device, len(labels.points)
        networks = HeadSpace(self.space.field, self.space.cube)
        codes = code_table(torch.zeros(count, len(self.directions), device=device))
        decoder = AutoDecoder(networks, mean.to(device), self.directions.to(device), codes)
        fit_codes(
            decoder,
            HeadLabels(labels, torch.zeros(count, 0, device=device)),
            optimizers=[code_optimizer(codes, START_LR)],
            steps=START_STEPS,
            penalty=NEAREST_PENALTY,
            config=LatentSpaceConfig(latent_batch_size=count),
        )
        return decoder.decode(codes.weight).detach()


def principal_directions(by_code: Float[torch.Tensor, "D Q"]) -> Float[torch.Tensor, "d Q"]:
    """Return uncorrelated directions of what white codes change, each by one standard deviation."""
    _, singular, axes = torch.linalg.svd(by_code.cpu().double(), full_matrices=False)
    kept = singular > MIN_RELATIVE_SIZE * singular[0]
    return (singular[kept, None] * axes[kept]).float()
