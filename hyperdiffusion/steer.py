"""Steering: two heads in, the heads between them out, or those with some layers of one and the rest of the other.

A head is a row of weights (P,), fitted or sampled; it needs no condition and no training of its own.
"""

from collections.abc import Sequence

import torch

from .checkpoint import Checkpoint
from .samplers import inverted, ode

# Steps of the probability flow, up to the noise and back.
STEPS = 50


def between(first: torch.Tensor, second: torch.Tensor, frames: int) -> torch.Tensor:
    """Weights (frames, P) on the straight line from one head (P,) to another: all fits share a basin."""
    return torch.lerp(first, second, torch.linspace(0, 1, frames, device=first.device)[:, None])


def between_in_noise(checkpoint: Checkpoint, first: torch.Tensor, second: torch.Tensor, frames: int) -> torch.Tensor:
    """Weights (frames, P) from one head (P,) to another along the sphere of the noises that they come from.

    The noises are found by the probability flow (Song et al. 2021, section 4.3) and interpolated on a great circle
    (Shoemake 1985). Both ends are heads as the model can make them: near to the given ones, not equal.
    """
    clean = checkpoint.tokens.encode(torch.stack([first, second]))
    noises = inverted(checkpoint.denoiser, clean, checkpoint.schedule, STEPS)
    path = great_circle(*noises, frames)
    return checkpoint.tokens.decode(ode(checkpoint.denoiser, lambda: path, checkpoint.schedule, STEPS))


def great_circle(first: torch.Tensor, second: torch.Tensor, frames: int) -> torch.Tensor:
    """(frames, D) evenly spaced by angle from one vector (D,) to another, their lengths interpolated too."""
    length, other = first.norm(), second.norm()
    angle = torch.arccos((first @ second / (length * other)).clamp(-1, 1))
    share = torch.linspace(0, 1, frames, device=first.device)[:, None]
    if angle < 1e-4:
        return torch.lerp(first, second, share)
    ways = (torch.sin((1 - share) * angle) * first / length + torch.sin(share * angle) * second / other) / angle.sin()
    return ways * torch.lerp(length, other, share)


def mixed(first: torch.Tensor, second: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Weights (layers + 1, P): row k has its first k layers from the second head and the rest from the first.

    `sizes` are the entries of each token, two to a layer, in flat order. This is style mixing (Karras et al. 2019) on
    weights.
    """
    ends = torch.tensor([0, *sizes]).cumsum(0)[::2].tolist()
    return torch.stack([torch.cat([second[:end], first[end:]]) for end in ends])
