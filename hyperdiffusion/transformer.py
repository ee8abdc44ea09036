"""The denoiser: noised coordinates (B, D) and time steps (B,) in, the clean coordinates (B, D) that it expects out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from x_transformers import ContinuousTransformerWrapper, Encoder


@dataclass(frozen=True)
class Shape:
    """Size of the transformer. The published one has width 2880, depth 12 and 16 heads: 1.2 billion parameters."""

    # Entries of a token inside the transformer; 256 learns some hundreds of heads in minutes on two cores.
    width: int = 256
    # Layers of attention and feed-forward.
    depth: int = 6
    # Attention heads; each is width / heads wide.
    heads: int = 8


class Denoiser(nn.Module):
    """A transformer encoder over weight tokens and a time token (Peebles et al. 2022; HyperDiffusion, section 3.2)."""

    def __init__(self, shape: Shape, ranks: Sequence[int]):
        super().__init__()
        self.shape, self.ranks = shape, tuple(ranks)
        self.embed = nn.ModuleList(nn.Linear(rank, shape.width) for rank in ranks)
        self.time = nn.Sequential(nn.Linear(shape.width, shape.width), nn.SiLU(), nn.Linear(shape.width, shape.width))
        self.transformer = ContinuousTransformerWrapper(
            # A learned embedding for each position tells the tokens apart.
            max_seq_len=len(ranks) + 1,
            attn_layers=Encoder(dim=shape.width, depth=shape.depth, heads=shape.heads,
                                attn_dim_head=shape.width // shape.heads))
        self.project = nn.ModuleList(nn.Linear(shape.width, rank) for rank in ranks)
        for head in self.project:
            # Starts at the mean head, from which training leaves smoothly.
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noised coordinates (B, D) and their steps (B,) -> the clean coordinates (B, D) to expect."""
        tokens = [embed(piece) for embed, piece in zip(self.embed, noised.split(self.ranks, dim=-1))]
        tokens.append(self.time(sinusoids(step, self.shape.width)))
        hidden = self.transformer(torch.stack(tokens, dim=1))
        return torch.cat([head(hidden[:, index]) for index, head in enumerate(self.project)], dim=-1)


def sinusoids(step: torch.Tensor, width: int) -> torch.Tensor:
    """Time steps (B,) -> (B, width): sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=step.device) / (width // 2))
    phases = step[:, None] * rates
    return torch.cat([phases.sin(), phases.cos()], dim=-1)
