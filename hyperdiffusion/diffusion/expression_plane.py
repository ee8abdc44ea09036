"""The plane of expressions: a seed in; the parameters of one person over a grid of valence and arousal out.

Valence is how pleasant, arousal how intense an emotion is (Russell 1980, a circumplex model of affect).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attributes import Numeric
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.conditioning import Conditioning
from hyperdiffusion.diffusion.generate import SamplingConfig, sample_given
from overfit.runtime.errors import BadInput, require_at_least, require_between

# Names of the attributes that span the plane.
VALENCE, AROUSAL = "valence", "arousal"
# Largest number of positions along an axis.
MAX_SIZE = 32
# Few steps: a plane has many heads.
PLANE_SAMPLING = SamplingConfig("dpm", 20)


@dataclass(frozen=True)
class ExpressionPlane:
    """One person with expressions over a square of positions."""

    positions: Float[torch.Tensor, "cells 2"]
    """Valence and arousal of each head, -1 to 1: from the left to the right, row by row from the top."""
    parameters: Float[torch.Tensor, "cells S"]
    """The heads."""


def expression_plane(
    checkpoint: Checkpoint, *, size: int = 5, seed: int = 0, config: SamplingConfig = PLANE_SAMPLING
) -> ExpressionPlane:
    """Return one person over a grid of `size` x `size` positions, from -1 to 1 each.

    All heads come from the same noise and have the same other attributes, those of a training head. Positions -1 and 1
    are the smallest and largest values of the training heads.

    Raises:
        BadInput: If the model has no numeric attributes `valence` and `arousal`, or an argument is out of range.
    """
    require_between(2, MAX_SIZE, size=size)
    require_at_least(0, seed=seed)
    config.require_possible(checkpoint.schedule)
    conditioning = checkpoint.require_conditioning()
    axis = torch.linspace(-1, 1, size, device=checkpoint.device)
    arousal, valence = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    positions = torch.stack([valence.flatten(), arousal.flatten()], dim=1)
    wanted = conditioning.attributes.missing(len(positions), checkpoint.device)
    for name, position in zip((VALENCE, AROUSAL), positions.unbind(1)):
        index, column = _axis(conditioning, name)
        wanted[:, index] = column.low + (column.high - column.low) * (position + 1) / 2
    person = [(seed, 0)]
    others = conditioning.complete(conditioning.attributes.missing(1, checkpoint.device)[0], person)
    values = torch.where(wanted.isnan(), others, wanted)
    seeds = person * len(positions)
    return ExpressionPlane(positions, sample_given(checkpoint, values, wanted=wanted, seeds=seeds, config=config))


def _axis(conditioning: Conditioning, name: str) -> tuple[int, Numeric]:
    """The column of an attribute that spans the plane, and its index."""
    for index, column in enumerate(conditioning.attributes.columns):
        if column.name == name and isinstance(column, Numeric):
            return index, column
    names = ", ".join(conditioning.attributes.names)
    raise BadInput(
        f"{name}: not a numeric attribute of this model, which has {names}; train one with numbers in a column {name}"
    )
