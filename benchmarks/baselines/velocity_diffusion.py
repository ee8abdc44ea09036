"""The diffusion that the baselines share: examples (B, D) in any representation in; a denoiser and its samples out.

The baselines differ in how they represent a head. Everything else is the same for all: the noise schedule and the
sampler are ours, the network predicts the velocity (Salimans and Ho 2022, appendix D), and samples come from its moving
average.
"""

import math
import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hyperdiffusion import NoiseSchedule, SampleNoise, TokenTransformer, TransformerConfig, dpm
from overfit import autocast

SCHEDULE = NoiseSchedule()
# Steps of DPM-Solver++ per sample.
SAMPLING_STEPS = 50
# AdamW's peak learning rate, and the steps over which it rises; it then falls as a cosine of the time.
PEAK_LR = 5e-4
WARMUP_STEPS = 50
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.99)
EMA_DECAY = 0.995
GRAD_CLIP = 1.0
CPU = torch.device("cpu")


class TokenVelocity(nn.Module):
    """Our transformer on data (B, D) that is split into tokens."""

    def __init__(self, config: TransformerConfig, sizes: Sequence[int]):
        """Make an untrained network for tokens of these sizes."""
        super().__init__()
        self.sizes = list(sizes)
        self.transformer = TokenTransformer(config, self.sizes)

    def forward(self, noised: Float[torch.Tensor, "B D"], step: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B D"]:
        """Return the velocity of noised data."""
        return torch.cat(self.transformer(noised.split(self.sizes, dim=1), step), dim=1)


class VelocityDenoiser(nn.Module):
    """Predicts clean data by a network that predicts velocities."""

    alpha_bar: torch.Tensor

    def __init__(self, network: nn.Module):
        """Wrap a network that maps noised data (B, D) and timesteps (B,) to velocities (B, D)."""
        super().__init__()
        self.network = network
        self.register_buffer("alpha_bar", SCHEDULE.alpha_bar.float())

    def forward(self, noised: Float[torch.Tensor, "B D"], step: Int[torch.Tensor, " B"]) -> Float[torch.Tensor, "B D"]:
        """Return the predicted clean data."""
        alpha_bar = self.alpha_bar[step][:, None]
        with autocast(CPU):
            velocity = self.network(noised, step).float()
        return alpha_bar.sqrt() * noised - (1 - alpha_bar).sqrt() * velocity


def train_denoiser(
    name: str, network: nn.Module, draw: Callable[[int], torch.Tensor], *, batch_size: int, seconds: float
) -> VelocityDenoiser:
    """Return a denoiser trained for a given time.

    Args:
        name: What the progress bar calls it.
        network: Predicts velocities (B, D).
        draw: Returns a batch (B, D) of training data of zero mean and unit scale.
        batch_size: B.
        seconds: The time for training.
    """
    denoiser = VelocityDenoiser(network)
    average = AveragedModel(denoiser, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(denoiser.parameters(), PEAK_LR, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True)
    start, steps = time.monotonic(), 0
    with tqdm(desc=f"{name}: training", unit="step", mininterval=5) as bar:
        while (progress := (time.monotonic() - start) / seconds) < 1:
            optimizer.param_groups[0]["lr"] = PEAK_LR * min(1, (steps + 1) / WARMUP_STEPS) * cosine_fall(progress)
            loss = _loss(denoiser, draw(batch_size))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), GRAD_CLIP)
            optimizer.step()
            average.update_parameters(denoiser)
            steps += 1
            bar.update()
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
    averaged = average.module.eval()
    assert isinstance(averaged, VelocityDenoiser)
    return averaged


def draw_samples(
    denoiser: VelocityDenoiser, count: int, *, size: int, batch_size: int = 16
) -> Float[torch.Tensor, "count size"]:
    """Return samples of a denoiser."""
    seeds = [(0, index) for index in range(count)]
    batches = [seeds[start : start + batch_size] for start in range(0, count, batch_size)]
    rows = []
    for batch in tqdm(batches, desc="sampling", unit="batch", mininterval=5):
        rows.append(dpm(denoiser, SampleNoise(batch, size, device=CPU), SCHEDULE, steps=SAMPLING_STEPS))
    return torch.cat(rows)


def cosine_fall(progress: float) -> float:
    """Return a factor that falls from 1 to 0 along half a cosine, as progress goes from 0 to 1."""
    return 0.5 + 0.5 * math.cos(math.pi * progress)


def _loss(denoiser: VelocityDenoiser, clean: torch.Tensor) -> torch.Tensor:
    """The squared error of the velocity."""
    step = torch.randint(SCHEDULE.timesteps, (len(clean),))
    error = denoiser(SCHEDULE.add_noise(clean, torch.randn_like(clean), step), step) - clean
    return (error.square().mean(1) / (1 - denoiser.alpha_bar[step])).mean()
