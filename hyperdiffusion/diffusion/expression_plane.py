"""The plane of expressions: a seed in; the parameters of one person over a grid of valence and arousal out.

Valence is how pleasant, arousal how intense an emotion is (Russell 1980, a circumplex model of affect).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.affect import AROUSAL, VALENCE, affect_request
from hyperdiffusion.diffusion.attributes import Attributes, Numeric
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.generate import SamplingConfig, sample_given
from overfit.runtime.errors import BadInput, require_at_least, require_between

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

    All heads come from the same noise and have the same other attributes, those of a training head. For a model with
    the attributes valence and arousal, positions -1 and 1 are the smallest and largest values of the training heads.

    Raises:
        BadInput: If the model knows no expressions, or an argument is out of range.
    """
    require_between(2, MAX_SIZE, size=size)
    require_at_least(0, seed=seed)
    config.require_possible(checkpoint.schedule)
    conditioning = checkpoint.require_conditioning()
    axis = torch.linspace(-1, 1, size, device=checkpoint.device)
    arousal, valence = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    positions = torch.stack([valence.flatten(), arousal.flatten()], dim=1)
    wanted = torch.stack([_wanted(conditioning.attributes, place) for place in positions.tolist()])
    wanted = wanted.to(checkpoint.device)
    person = [(seed, 0)]
    others = conditioning.best_known(person[0])
    values = torch.where(wanted.isnan(), others, wanted)
    seeds = person * len(positions)
    return ExpressionPlane(positions, sample_given(checkpoint, values, wanted=wanted, seeds=seeds, config=config))


def _wanted(attributes: Attributes, place: Sequence[float]) -> Float[torch.Tensor, " n"]:
    """The attributes of an expression at a position; missing where it has none."""
    request = affect_request(attributes, valence=place[0], arousal=place[1])
    if set(request) == {VALENCE, AROUSAL}:
        request = {name: _in_range(attributes, name, position) for name, position in zip((VALENCE, AROUSAL), place)}
    return attributes.parse(request)


def _in_range(attributes: Attributes, name: str, position: float) -> float:
    """The value at a position from -1 to 1 of the range of the training heads."""
    column = attributes.columns[attributes.index(name)]
    if not isinstance(column, Numeric):
        raise BadInput(f"{name}: has levels in this model, not numbers; train one with numbers in this column")
    return column.low + (column.high - column.low) * (position + 1) / 2
