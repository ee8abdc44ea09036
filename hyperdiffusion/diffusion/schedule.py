"""The forward process of diffusion: clean coordinates and noise in, noised coordinates out (DDPM, Ho et al. 2020)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int

from overfit.runtime.errors import BadInput, require_at_least, require_between

# Offset of the cosine schedule, which keeps its first betas from vanishing (Nichol and Dhariwal 2021, section 3.2).
COSINE_OFFSET = 0.008
# Upper bound of the cosine schedule's betas, against a singularity at the last timestep (same section).
COSINE_MAX_BETA = 0.999
# Mean and standard deviation of ln sigma in training. Karras et al. 2022 (section 5) have -1.2 and 1.2 for images; ours
# were measured (docs/experiments/denoiser.md).
LOG_SIGMA_MEAN = -0.7
LOG_SIGMA_STD = 0.8

Denoise = Callable[..., torch.Tensor]
"""Noised coordinates x_t (B, D) and timesteps (B,) to the predicted clean coordinates x_0 (B, D).

One of heads with attributes takes their values (B, n) too.
"""


@dataclass(frozen=True)
class NoiseSchedule:
    """How much noise each timestep adds. The defaults are those published for HyperDiffusion."""

    noise_schedule: Literal["linear", "cosine"] = "linear"
    """Shape of the noise schedule: linear (Ho et al. 2020) or cosine (Nichol and Dhariwal 2021)."""
    timesteps: int = 500
    """Number of diffusion timesteps, T."""
    beta_start: float = 1e-4
    """Variance that the linear schedule adds at the first timestep."""
    beta_end: float = 2e-2
    """Variance that the linear schedule adds at the last timestep."""

    def __post_init__(self) -> None:
        require_at_least(2, timesteps=self.timesteps)
        require_between(0, COSINE_MAX_BETA, beta_start=self.beta_start, beta_end=self.beta_end)
        if not 0 < self.beta_start <= self.beta_end:
            raise BadInput(f"`beta_start={self.beta_start}`: give more than 0 and at most `beta_end={self.beta_end}`")

    @cached_property
    def betas(self) -> Float[torch.Tensor, " T"]:
        """Variance added at each timestep, in float64 as everything derived from it."""
        if self.noise_schedule == "linear":
            return torch.linspace(self.beta_start, self.beta_end, self.timesteps, dtype=torch.float64)
        time = torch.linspace(0, 1, self.timesteps + 1, dtype=torch.float64)
        alpha_bar = torch.cos((time + COSINE_OFFSET) / (1 + COSINE_OFFSET) * torch.pi / 2).square()
        return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=COSINE_MAX_BETA)

    @cached_property
    def alpha_bar(self) -> Float[torch.Tensor, " T"]:
        """Fraction of the clean signal's variance left at each timestep (equation 4)."""
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def lognormal_probabilities(self) -> Float[torch.Tensor, " T"]:
        """Probability of each timestep if ln sigma is normal (Karras et al. 2022, section 5), summing to 1.

        Most timesteps of the schedule are so noisy that the linear denoiser is the optimal one: gradients there are
        noise only.
        """
        log_sigma = ((1 - self.alpha_bar) / self.alpha_bar).log() / 2
        density = torch.exp(-((log_sigma - LOG_SIGMA_MEAN) / LOG_SIGMA_STD).square() / 2)
        probabilities = density * torch.gradient(log_sigma)[0]
        return probabilities / probabilities.sum()

    def add_noise(
        self,
        clean: Float[torch.Tensor, "B D"],
        noise: Float[torch.Tensor, "B D"],
        step: Int[torch.Tensor, " B"],
    ) -> Float[torch.Tensor, "B D"]:
        """Return x_t, drawn from q(x_t | x_0) with the given noise (equation 4)."""
        # Non-blocking: a GPU may still be busy with the previous batch.
        alpha_bar = self.alpha_bar.to(clean.device, non_blocking=True)[step][:, None]
        return (alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise).to(clean.dtype)


def gaussian_posterior(
    noised: Float[torch.Tensor, "B D"],
    alpha_bar: Float[torch.Tensor, "B 1"],
    variance: Float[torch.Tensor, " D"],
) -> tuple[Float[torch.Tensor, "B D"], Float[torch.Tensor, "B D"]]:
    """Return mean and standard deviation of x_0 given x_t, if x_0 is normal with zero mean (Bayes' rule).

    Args:
        noised: x_t.
        alpha_bar: alpha_bar at each row's timestep.
        variance: Variance of x_0 along each coordinate.
    """
    total = alpha_bar * variance + 1 - alpha_bar
    return alpha_bar.sqrt() * variance / total * noised, gaussian_posterior_std(alpha_bar, variance)


def gaussian_posterior_std(
    alpha_bar: Float[torch.Tensor, "B 1"], variance: Float[torch.Tensor, "*rows D"]
) -> Float[torch.Tensor, "B D"]:
    """Return the standard deviation of x_0 given x_t, which does not depend on x_t; of one variance or one a row."""
    total = alpha_bar * variance + 1 - alpha_bar
    return ((1 - alpha_bar) * variance / total).sqrt()
