"""The forward process: clean coordinates and noise in, noised coordinates out (DDPM, Ho et al. 2020)."""

from dataclasses import dataclass
from functools import cached_property

import torch


@dataclass(frozen=True)
class Schedule:
    """The linear schedule of noise, as published for HyperDiffusion."""

    # T, the time steps from clean to noise.
    timesteps: int = 500
    # Variance added at the first of them ...
    first_beta: float = 1e-4
    # ... and at the last.
    last_beta: float = 2e-2

    @cached_property
    def betas(self) -> torch.Tensor:
        """Variances (T,) added at each step; float64, as all that follows from them."""
        return torch.linspace(self.first_beta, self.last_beta, self.timesteps, dtype=torch.float64)

    @cached_property
    def signal(self) -> torch.Tensor:
        """alpha-bar (T,): the share of the clean signal's variance that is left at each step (equation 4)."""
        return torch.cumprod(1 - self.betas, 0)

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """q(x_t | x_0): clean and noise (B, D) at steps (B,) -> (B, D) (equation 4)."""
        signal = self.signal.to(clean.device)[step][:, None]
        return (signal.sqrt() * clean + (1 - signal).sqrt() * noise).to(clean.dtype)


def posterior(noised: torch.Tensor, signal: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (B, D) of x_0 given x_t (B, D) if x_0 is normal, by Bayes' rule.

    `signal` (B, 1) is alpha-bar at each row's step, `variance` (D,) that of x_0 about zero.
    """
    total = signal * variance + 1 - signal
    return signal.sqrt() * variance / total * noised, ((1 - signal) * variance / total).sqrt()
