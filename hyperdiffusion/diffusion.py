"""The forward process: clean coordinates and noise in, noised coordinates out (DDPM, Ho et al. 2020)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

# Offset of the cosine schedule, and the most variance that a step of it adds (Nichol and Dhariwal 2021, section 3.2).
COSINE_OFFSET, COSINE_LIMIT = 0.008, 0.999

# Noised coordinates (B, D) and their time steps (B,) to the clean coordinates (B, D) to expect.
Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """How noise grows; the default is as published for HyperDiffusion."""

    # linear, after Ho et al. 2020, or cosine, after Nichol and Dhariwal 2021, whose last step is noise alone.
    noise: Literal["linear", "cosine"] = "linear"
    # T, the time steps from clean to noise.
    timesteps: int = 500
    # Variance that the linear schedule adds at the first of them ...
    first_beta: float = 1e-4
    # ... and at the last.
    last_beta: float = 2e-2

    @cached_property
    def betas(self) -> torch.Tensor:
        """Variances (T,) added at each step; float64, as all that follows from them."""
        if self.noise == "linear":
            return torch.linspace(self.first_beta, self.last_beta, self.timesteps, dtype=torch.float64)
        time = torch.linspace(0, 1, self.timesteps + 1, dtype=torch.float64)
        signal = torch.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * torch.pi / 2).square()
        return (1 - signal[1:] / signal[:-1]).clamp(max=COSINE_LIMIT)

    @cached_property
    def signal(self) -> torch.Tensor:
        """alpha-bar (T,): the share of the clean signal's variance that is left at each step (equation 4)."""
        return torch.cumprod(1 - self.betas, 0)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """q(x_t | x_0): clean and noise (B, D) at steps (B,) -> (B, D) (equation 4)."""
        # Not waiting for a GPU, which has the last batch in hand.
        signal = self.signal.to(clean.device, non_blocking=True)[step][:, None]
        return (signal.sqrt() * clean + (1 - signal).sqrt() * noise).to(clean.dtype)


def posterior(noised: torch.Tensor, signal: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (B, D) of x_0 given x_t (B, D) if x_0 is normal, by Bayes' rule.

    `signal` (B, 1) is alpha-bar at each row's step, `variance` (D,) that of x_0 about zero.
    """
    total = signal * variance + 1 - signal
    return signal.sqrt() * variance / total * noised, ((1 - signal) * variance / total).sqrt()
