"""Condition tokens of the transformer: values of attributes (B, n) in, one token (B, width) for each attribute out."""

import torch
from jaxtyping import Float
from torch import nn

from hyperdiffusion.diffusion.attributes import Attributes


class ConditionTokens(nn.Module):
    """A linear embedding of each attribute's features, and of whether its value is missing."""

    def __init__(self, attributes: Attributes, width: int):
        """Make untrained embeddings."""
        super().__init__()
        self.attributes = attributes
        self.embed = nn.ModuleList(nn.Linear(size + 1, width) for size in attributes.sizes)

    def forward(self, values: Float[torch.Tensor, "B n"]) -> list[torch.Tensor]:
        """Return the tokens (B, width)."""
        features = self.attributes.features(values).split(self.attributes.sizes, dim=1)
        missing = values.isnan().float().split(1, dim=1)
        return [embed(torch.cat(parts, dim=1)) for embed, *parts in zip(self.embed, features, missing, strict=True)]
