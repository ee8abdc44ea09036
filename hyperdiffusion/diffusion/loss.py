"""The training loss: predicted and clean coordinates in, one loss a head out; and the noised batches it is taken on."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int

from hyperdiffusion.diffusion.coordinates import Coordinates, WeightCoordinates
from hyperdiffusion.diffusion.schedule import Denoise, NoiseSchedule, gaussian_posterior, gaussian_posterior_std


def latent_loss(
    predicted: Float[torch.Tensor, "B D"],
    clean: Float[torch.Tensor, "B D"],
    *,
    alpha_bar: Float[torch.Tensor, "B 1"],
    variance_ratio: Float[torch.Tensor, " D"],
    relative_std: Float[torch.Tensor, " D"],
) -> Float[torch.Tensor, " B"]:
    """Return the weighted squared error of each head's predicted latent code.

    A coordinate counts by the variance of unseen heads along it, and an error relative to what the noise leaves
    unknown (SNR + 1 weighting, Salimans and Ho 2022). All timesteps then count alike; otherwise the noisiest ones,
    where nothing can be learned, would dominate the loss.
    """
    unknown = gaussian_posterior_std(alpha_bar, variance_ratio)
    return ((predicted - clean) / unknown * relative_std).square().mul(variance_ratio).mean(1)


def weight_loss(predicted: Float[torch.Tensor, "B P"], clean: Float[torch.Tensor, "B P"]) -> Float[torch.Tensor, " B"]:
    """Return the mean squared error of each head's predicted weights, as published."""
    return (predicted - clean).square().mean(1)


@dataclass(frozen=True)
class NoisedBatch:
    """Clean coordinates with the timesteps and the noise that they are noised by."""

    clean: Float[torch.Tensor, "B D"]
    """x_0."""
    step: Int[torch.Tensor, " B"]
    """Timestep of each head."""
    noise: Float[torch.Tensor, "B D"]
    """Noise of each head."""
    values: Float[torch.Tensor, "B n"] | None = None
    """What is known of each head, if heads have attributes."""


@dataclass(frozen=True)
class Objective:
    """What a training minimises: x_0 prediction in given coordinates under a noise schedule, on one device."""

    coordinates: Coordinates
    """What is diffused, on the device."""
    schedule: NoiseSchedule
    """How it is noised."""
    alpha_bar: Float[torch.Tensor, " T"]
    """alpha_bar of every timestep in float32, on the device."""

    @classmethod
    def on(cls, device: torch.device, coordinates: Coordinates, schedule: NoiseSchedule) -> "Objective":
        """Return the objective on a device."""
        return cls(coordinates.to(device), schedule, schedule.alpha_bar.float().to(device))

    def draw(
        self,
        clean: Float[torch.Tensor, "B D"],
        generator: torch.Generator,
        *,
        count: int | None = None,
        part: slice = slice(None),
        density: Literal["lognormal", "uniform"] = "uniform",
    ) -> NoisedBatch:
        """Draw timesteps and noise for clean coordinates, which are `part` of a batch of `count` heads."""
        device = self.alpha_bar.device
        count = len(clean) if count is None else count
        if density == "lognormal":
            probabilities = self.schedule.lognormal_probabilities
            step = torch.multinomial(probabilities, count, replacement=True, generator=generator)[part]
        else:
            step = torch.randint(self.schedule.timesteps, (count,), generator=generator)[part]
        if device.type == "cuda":
            # A batch of raw weights has a million numbers: drawing them on CPU would take as long as the step.
            generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        noise = torch.randn(count, clean.shape[1], generator=generator, device=generator.device)[part]
        return NoisedBatch(_send(clean, device), _send(step, device), noise)

    def loss(self, denoise: Denoise, batch: NoisedBatch) -> Float[torch.Tensor, " B"]:
        """Return the loss of a denoiser on each head of a batch."""
        noised = self.schedule.add_noise(batch.clean, batch.noise, batch.step)
        known = () if batch.values is None else (batch.values,)
        predicted = denoise(noised, batch.step, *known).float()
        if isinstance(self.coordinates, WeightCoordinates):
            return weight_loss(predicted, batch.clean)
        return latent_loss(
            predicted,
            batch.clean,
            alpha_bar=self.alpha_bar[batch.step][:, None],
            variance_ratio=self.coordinates.variance_ratio,
            relative_std=self.coordinates.relative_std,
        )

    @torch.no_grad()
    def validation_loss(
        self,
        denoise: Denoise,
        heads: Float[torch.Tensor, "heads D"],
        *,
        draws: int,
        values: Float[torch.Tensor, "heads n"] | None = None,
    ) -> float:
        """Return the mean loss of a denoiser over some draws of noise for each head, the same every time.

        `values` are the heads' attributes, which the denoiser is conditioned on.
        """
        generator = torch.Generator().manual_seed(0)
        # One draw at a time: of raw weights, all together would be a gigabyte.
        losses = (self.loss(denoise, replace(self.draw(heads, generator), values=values)).mean() for _ in range(draws))
        return sum(map(float, losses)) / draws

    def baseline_loss(self, heads: Float[torch.Tensor, "heads D"], *, draws: int) -> float:
        """Return the validation loss of the Gaussian baseline.

        It is the optimal linear denoiser of unseen heads; in weight coordinates, the mean head.
        """
        if isinstance(self.coordinates, WeightCoordinates):
            mean = heads.mean(0)
            return self.validation_loss(lambda noised, step: mean.expand_as(noised), heads, draws=draws)
        ratio = self.coordinates.variance_ratio
        return self.validation_loss(
            lambda noised, step: gaussian_posterior(noised, self.alpha_bar[step][:, None], ratio)[0], heads, draws=draws
        )


def _send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting for a GPU that is busy with the previous batch."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
