"""The denoiser: noised coordinates (B, D) and time steps (B,) in, the clean coordinates (B, D) that it expects out."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .diffusion import Denoise, Schedule, posterior
from .mixture import Mixture
from .tokens import Coordinates, Plain, Tokens

# Axes narrower than this share of the widest are left to the guess: the correction's own error would drown them.
FAINT = 0.03


@dataclass(frozen=True)
class Shape:
    """Size of the transformer. The published one has width 2880, depth 12 and 16 heads: 1.4 billion parameters."""

    # Entries of a token inside the transformer.
    width: int = 256
    # Layers of attention and feed-forward.
    depth: int = 4
    # Attention heads; each is width / heads wide.
    heads: int = 8
    # Share of the activations that training drops, against learning the heads by heart.
    dropout: float = 0.1


class TokenTransformer(nn.Module):
    """A transformer encoder over weight tokens and a time token (Peebles et al. 2022; HyperDiffusion, section 3.2).

    It starts as the function that is zero everywhere.
    """

    def __init__(self, shape: Shape, sizes: Sequence[int]):
        # Its import takes longer than a command that needs no transformer.
        from x_transformers import ContinuousTransformerWrapper, Encoder

        super().__init__()
        self.width = shape.width
        self.embed = nn.ModuleList(nn.Linear(size, shape.width) for size in sizes)
        self.time = nn.Sequential(nn.Linear(shape.width, shape.width), nn.SiLU(), nn.Linear(shape.width, shape.width))
        self.transformer = ContinuousTransformerWrapper(
            # A learned embedding for each position tells the tokens apart.
            max_seq_len=len(sizes) + 1,
            attn_layers=Encoder(dim=shape.width, depth=shape.depth, heads=shape.heads,
                                attn_dim_head=shape.width // shape.heads,
                                attn_dropout=shape.dropout, ff_dropout=shape.dropout))
        self.project = nn.ModuleList(nn.Linear(shape.width, size) for size in sizes)
        for head in self.project:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    @property
    def silent(self) -> bool:
        """Whether it is still zero everywhere."""
        return not any(tensor.any() for head in self.project for tensor in (head.weight, head.bias))

    def forward(self, tokens: list[torch.Tensor], step: torch.Tensor) -> list[torch.Tensor]:
        """Tokens (B, size) each and their time steps (B,) -> as many of the same sizes."""
        embedded = [embed(token) for embed, token in zip(self.embed, tokens)]
        embedded.append(self.time(sinusoids(step, self.width)))
        hidden = self.transformer(torch.stack(embedded, dim=1))
        return [head(hidden[:, index]) for index, head in enumerate(self.project)]


class Denoiser(nn.Module):
    """The denoiser of whitened coordinates.

    It predicts the clean coordinates as the best guess were heads drawn from a mixture of Gaussians, and a correction
    to it by the transformer in units of that guess's error: the preconditioning of Karras et al. 2022 (table 1), axis
    by axis. With the correction at zero, where training starts, samples are those of the mixture.
    """

    def __init__(self, shape: Shape, schedule: Schedule, tokens: Tokens, mixture: Mixture | None = None):
        super().__init__()
        self.shape = shape
        to_token, to_axes = tokens.views
        for index, (token, axes) in enumerate(zip(to_token, to_axes)):
            # Follow from the checkpoint's axes, so they are not kept again.
            self.register_buffer(f"to_token_{index}", token, persistent=False)
            self.register_buffer(f"to_axes_{index}", axes, persistent=False)
        width = tokens.deviation / tokens.deviation.square().mean().sqrt()
        self.register_buffer("width", width, persistent=False)
        self.register_buffer("signal", schedule.signal.float(), persistent=False)
        # Half way, by ratio, between the store's variance and that of new heads: narrower, samples look alike, wider,
        # they lose eyes and ears.
        self.mixture = Mixture.one(tokens.share.sqrt()) if mixture is None else mixture
        self.transformer = TokenTransformer(shape, [token.shape[1] for token in to_token])

    def forward(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noised coordinates (B, D) and their steps (B,) -> the clean coordinates (B, D) to expect."""
        return self._expected(self.mixture, noised, step)

    def spread(self, factor: float) -> Denoise:
        """A denoiser of heads that lie so many times as far from the middles of their groups."""
        return partial(self._expected, self.mixture.spread(factor))

    def _expected(self, mixture: Mixture, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        signal = self.signal[step][:, None]
        guess = mixture(noised, signal)
        # What no step of a training has helped is often kept, and a transformer without a say takes most of the time.
        if not self.training and self.transformer.silent:
            return guess
        _, error = posterior(noised, signal, mixture.within)
        return guess + error * self.correction(noised, step)

    def correction(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """What the transformer adds to the mixture's guess (B, D), before it is scaled to that guess's error."""
        parts = range(len(self.transformer.embed))
        tokens = self.transformer([noised @ getattr(self, f"to_token_{index}") for index in parts], step)
        moved = [token @ getattr(self, f"to_axes_{index}") for index, token in zip(parts, tokens)]
        return torch.stack(moved).sum(0) / self.width.clamp(min=FAINT * self.width.max())


class PlainDenoiser(nn.Module):
    """The published denoiser: of plain coordinates, and of the clean ones that it expects the transformer says all."""

    def __init__(self, shape: Shape, coordinates: Plain):
        super().__init__()
        self.shape, self.sizes = shape, coordinates.sizes
        self.transformer = TokenTransformer(shape, self.sizes)

    def spread(self, factor: float) -> Denoise:
        """The same: it knows no groups."""
        return self

    def forward(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noised coordinates (B, P) and their steps (B,) -> the clean coordinates (B, P) to expect."""
        return torch.cat(self.transformer(noised.split(self.sizes, dim=1), step), dim=1)


def denoiser_of(shape: Shape, schedule: Schedule, coordinates: Coordinates,
                mixture: Mixture | None = None) -> Denoiser | PlainDenoiser:
    """The denoiser that belongs to the coordinates, untrained; plain ones have no mixture."""
    if isinstance(coordinates, Plain):
        return PlainDenoiser(shape, coordinates)
    return Denoiser(shape, schedule, coordinates, mixture)


def restored(shape: Shape, schedule: Schedule, coordinates: Coordinates, state: dict[str, torch.Tensor],
             ) -> Denoiser | PlainDenoiser:
    """The denoiser whose `state_dict` this was. Raises KeyError or RuntimeError where it belongs to another."""
    plain = isinstance(coordinates, Plain)
    mixture = None if plain else Mixture(*(state[f"mixture.{name}"] for name in Mixture.TENSORS))
    # Nothing is drawn that is replaced at once: of a billion parameters that takes ten seconds. The other kind is
    # small, and has tensors that no state holds.
    with torch.device("meta") if plain else nullcontext():
        made = denoiser_of(shape, schedule, coordinates, mixture)
    made.load_state_dict(state, assign=plain)
    return made


def sinusoids(step: torch.Tensor, width: int) -> torch.Tensor:
    """Time steps (B,) -> (B, width): sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=step.device) / (width // 2))
    phases = step[:, None] * rates
    return torch.cat([phases.sin(), phases.cos()], dim=-1)
