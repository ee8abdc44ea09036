"""Sampling: a checkpoint and a seed in, parameters of new heads out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.attributes import Request
from hyperdiffusion.diffusion.checkpoint import Checkpoint
from hyperdiffusion.diffusion.guidance import classifier_guided, conditioned, guided
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
    guidance: float = 1.0
    """Guidance scale of attributes. Above 1 heads are more typical of them and less diverse; 0 ignores them."""
    guidance_by: Literal["classifier-free", "classifier"] = "classifier-free"
    """What guides: the difference between the conditional and the unconditional denoiser (Ho and Salimans 2022), or the
    gradient of a classifier of noised heads (Dhariwal and Nichol 2021)."""

    def __post_init__(self) -> None:
        require_at_least(1, steps=self.steps)
        require_at_least(0, temperature=self.temperature, spread=self.spread, truncation=self.truncation)
        require_at_least(0, guidance=self.guidance)
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
    attributes: Request | None = None,
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
        attributes: Values of attributes by name, for a model that has some. A head takes the others from a random
            training head among those that are closest to these; without any, all from any training head.

    Raises:
        BadInput: If an argument is out of range, or the model has no such attribute.
    """
    require_at_least(0, seed=seed, first=first)
    require_at_least(1, count=count, batch_size=batch_size)
    if count > MAX_COUNT:
        raise BadInput(
            f"`count={count}`: give {MAX_COUNT} or fewer (a head takes {MEGABYTES_PER_HEAD} MB of memory); draw more "
            "with another `seed`"
        )
    config.require_possible(checkpoint.schedule)
    wanted = None
    if attributes or checkpoint.conditioning is not None:
        wanted = checkpoint.require_conditioning().attributes.parse(attributes or {}).to(checkpoint.device)
    batches = []
    for start in range(first, first + count, batch_size):
        seeds = [(seed, index) for index in range(start, min(start + batch_size, first + count))]
        batches.append(_sample_batch(checkpoint, wanted, seeds, config))
    return torch.cat(batches)


def _sample_batch(
    checkpoint: Checkpoint, wanted: torch.Tensor | None, seeds: Sequence[tuple[int, ...]], config: SamplingConfig
) -> torch.Tensor:
    """Parameters (B, S) of one batch; `wanted` (n,) are its attributes, if the model has any."""
    if wanted is None:
        return _draw(checkpoint, checkpoint.denoiser.with_spread(config.spread), seeds, config)
    values = checkpoint.require_conditioning().complete(wanted, seeds)
    towards = values if wanted.isnan().all() else wanted.expand_as(values)
    return sample_given(checkpoint, values, wanted=towards, seeds=seeds, config=config)


def sample_given(
    checkpoint: Checkpoint,
    values: Float[torch.Tensor, "B n"],
    *,
    wanted: Float[torch.Tensor, "B n"],
    seeds: Sequence[tuple[int, ...]],
    config: SamplingConfig,
) -> Float[torch.Tensor, "B S"]:
    """Return the parameters of one batch of heads with attributes, guided as configured.

    Args:
        checkpoint: A model with attributes.
        values: All attributes of each head, for the conditional denoiser.
        wanted: Those that the classifier guides towards; NaN for the others.
        seeds: Seed of each head's noise.
        config: The sampler, its settings and the guidance.
    """
    unconditional = checkpoint.denoiser.with_spread(config.spread)
    if config.guidance_by == "classifier":
        classifier = checkpoint.require_conditioning().classifier
        log_probability = partial(classifier.log_probability, values=wanted)
        denoise = classifier_guided(unconditional, log_probability, schedule=checkpoint.schedule, scale=config.guidance)
    else:
        denoise = guided(conditioned(unconditional, values), unconditional, scale=config.guidance)
    return _draw(checkpoint, denoise, seeds, config)


def _draw(
    checkpoint: Checkpoint, denoise: Denoise, seeds: Sequence[tuple[int, ...]], config: SamplingConfig
) -> torch.Tensor:
    noise = SampleNoise(seeds, checkpoint.coordinates.size, device=checkpoint.device, temperature=config.temperature)
    return checkpoint.coordinates.decode(config.draw(denoise, noise, checkpoint.schedule))


def sample_heads(
    checkpoint: Checkpoint,
    count: int = 16,
    *,
    seed: int = 0,
    first: int = 0,
    config: SamplingConfig = SamplingConfig(),
    attributes: Request | None = None,
) -> list[tuple[str, NeuralHead]]:
    """Return heads `first` to `first + count - 1` of a seed, each with the name of its file: `sample_SEED_NUMBER`."""
    rows = sample(checkpoint, count, seed=seed, first=first, config=config, attributes=attributes)
    return [(f"sample_{seed:03d}_{first + index:05d}", checkpoint.head(row)) for index, row in enumerate(rows)]
