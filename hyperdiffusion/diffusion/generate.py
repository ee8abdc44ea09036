"""Sampling: a checkpoint and a seed in, parameters of new heads out."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.samplers import DrawNoise, SampleNoise, Variance, ddim, ddpm, dpm, ode
from hyperdiffusion.diffusion.schedule import Denoise, NoiseSchedule
from overfit.neural_head import NeuralHead
from overfit.runtime.errors import BadInput, require_at_least, require_between

# Heads that are denoised at once.
BATCH_SIZE = 64
# Heads of one call; their weights take 15 GB of memory.
MAX_COUNT = 100_000
# Memory of one head's weights in the default field, for the message.
MEGABYTES_PER_HEAD = 0.15


@dataclass(frozen=True)
class SamplingConfig:
    """How noise becomes heads."""

    sampler: Literal["ddpm", "ddim", "dpm", "ode"] = "ddpm"
    """Sampler: ddpm takes all timesteps with new noise at each; ddim, dpm (DPM-Solver++) and ode (probability flow by
    Heun's method) take `steps`. dpm needs the fewest."""
    steps: int = 50
    """Steps of ddim, dpm and ode; ode evaluates the denoiser twice in each."""
    eta: float = 0.0
    """Noise in the steps of ddim: 0 is none, 1 as much as in ddpm."""
    variance: Variance = "small"
    """Variance of the steps of ddpm: the posterior's own, or the large one of the published method."""
    temperature: float = 1.0
    """Factor on all noise. Below 1 heads are more typical and less diverse; of several mixture components it favours
    narrow ones."""
    spread: float = 1.0
    """Factor on the mixture's standard deviations. Above 1 heads are more diverse, and less like real ones."""
    truncation: float = 1.0
    """Position between the mean head (0) and the sample (1)."""

    def __post_init__(self) -> None:
        require_at_least(1, steps=self.steps)
        require_at_least(0, temperature=self.temperature, spread=self.spread, truncation=self.truncation)
        require_between(0, 1, eta=self.eta)

    def require_possible(self, schedule: NoiseSchedule) -> None:
        """Raise BadInput if a sampler has more steps than the schedule allows."""
        # The solvers skip timestep 0: their last step goes to clean coordinates.
        limit = schedule.timesteps if self.sampler == "ddim" else schedule.timesteps - 1
        if self.sampler != "ddpm":
            require_between(1, limit, steps=self.steps)

    def draw(self, denoise: Denoise, noise: DrawNoise, schedule: NoiseSchedule) -> Float[torch.Tensor, "B D"]:
        """Return clean coordinates of B heads, drawn by the configured sampler."""
        if self.sampler == "ddpm":
            clean = ddpm(denoise, noise, schedule, variance=self.variance)
        elif self.sampler == "ddim":
            clean = ddim(denoise, noise, schedule, steps=self.steps, eta=self.eta)
        else:
            solve = dpm if self.sampler == "dpm" else ode
            clean = solve(denoise, noise, schedule, steps=self.steps)
        # Coordinates are zero at the mean head.
        return self.truncation * clean


def sample(
    checkpoint: Checkpoint,
    count: int = 16,
    *,
    seed: int = 0,
    first: int = 0,
    config: SamplingConfig = SamplingConfig(),
    batch_size: int = BATCH_SIZE,
) -> Float[torch.Tensor, "heads S"]:
    """Return the parameters of heads `first` to `first + count - 1` of a seed.

    Head k of a seed is the same whatever the count and the batch size, up to rounding.

    Args:
        checkpoint: The model.
        count: Number of heads.
        seed: Another seed gives other heads.
        first: Number of the first head.
        config: The sampler and its settings.
        batch_size: Heads that are denoised at once.

    Raises:
        BadInput: If an argument is out of range.
    """
    require_at_least(0, seed=seed, first=first)
    require_at_least(1, count=count, batch_size=batch_size)
    if count > MAX_COUNT:
        raise BadInput(
            f"`count={count}`: give {MAX_COUNT} or fewer (a head takes {MEGABYTES_PER_HEAD} MB of memory); draw more "
            "with another `seed`"
        )
    config.require_possible(checkpoint.schedule)
    denoise = checkpoint.denoiser.with_spread(config.spread)
    batches = []
    for start in range(first, first + count, batch_size):
        seeds = [(seed, index) for index in range(start, min(start + batch_size, first + count))]
        noise = SampleNoise(
            seeds, checkpoint.coordinates.size, device=checkpoint.device, temperature=config.temperature
        )
        batches.append(checkpoint.coordinates.decode(config.draw(denoise, noise, checkpoint.schedule)))
    return torch.cat(batches)


def sample_heads(
    checkpoint: Checkpoint,
    count: int = 16,
    *,
    seed: int = 0,
    first: int = 0,
    config: SamplingConfig = SamplingConfig(),
) -> list[tuple[str, NeuralHead]]:
    """Return heads `first` to `first + count - 1` of a seed, each with the name of its file: `sample_SEED_NUMBER`."""
    rows = sample(checkpoint, count, seed=seed, first=first, config=config)
    return [(f"sample_{seed:03d}_{first + index:05d}", checkpoint.head(row)) for index, row in enumerate(rows)]
