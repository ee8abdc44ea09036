"""What the rivals share: examples (B, D) of heads in any form in, a diffusion trained for a time and samples of it out.

The rivals differ from each other in what a head is. All else is one thing: the schedule and the solver are ours, the
network predicts the velocity (Salimans and Ho 2022, appendix D), and a moving average of it is sampled.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from hyperdiffusion.diffusion import Schedule
from hyperdiffusion.samplers import Noise, dpm
from hyperdiffusion.transformer import Shape, TokenTransformer
from overfit.fit import autocast

SCHEDULE, STEPS = Schedule(), 50
# Peak rate of AdamW, which rises over so many steps and falls as a cosine of the time.
RATE, RISE = 5e-4, 50
CPU = torch.device("cpu")


class Tokenised(nn.Module):
    """Our transformer on data (B, D) that are cut into tokens of so many entries."""

    def __init__(self, shape: Shape, sizes: list[int]):
        super().__init__()
        self.sizes, self.transformer = sizes, TokenTransformer(shape, sizes)

    def forward(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noised data (B, D) at steps (B,) -> their velocity (B, D)."""
        return torch.cat(self.transformer(noised.split(self.sizes, dim=1), step), dim=1)


class Denoiser(nn.Module):
    """The clean data that a network of velocities expects."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.register_buffer("signal", SCHEDULE.signal.float())

    def forward(self, noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Noised data (B, D) at steps (B,) -> the clean ones (B, D)."""
        signal = self.signal[step][:, None]
        with autocast(CPU):
            velocity = self.network(noised, step).float()
        return signal.sqrt() * noised - (1 - signal).sqrt() * velocity


def trained(name: str, network: nn.Module, draw: Callable[[int], torch.Tensor], batch: int, seconds: float) -> Denoiser:
    """A denoiser of data of mean 0 and scale 1, of which `draw` gives as many (B, D) as it is asked for."""
    denoiser = Denoiser(network)
    average = AveragedModel(denoiser, multi_avg_fn=get_ema_multi_avg_fn(0.995))
    optimiser = torch.optim.AdamW(denoiser.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    start, done = time.monotonic(), 0
    with tqdm(desc=f"{name}: training", unit="step", mininterval=5) as bar:
        while (spent := (time.monotonic() - start) / seconds) < 1:
            optimiser.param_groups[0]["lr"] = RATE * min(1, (done + 1) / RISE) * (0.5 + 0.5 * math.cos(math.pi * spent))
            clean = draw(batch)
            step = torch.randint(SCHEDULE.timesteps, (batch,))
            off = denoiser(SCHEDULE.noised(clean, torch.randn_like(clean), step), step) - clean
            # The squared error of the velocity.
            loss = (off.square().mean(1) / (1 - denoiser.signal[step])).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
            optimiser.step()
            average.update_parameters(denoiser)
            done += 1
            bar.update()
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
    return average.module.eval()


def samples(denoiser: Denoiser, count: int, size: int, batch: int = 16) -> torch.Tensor:
    """(count, size) new data."""
    starts = tqdm(range(0, count, batch), desc="sampling", unit="batch", mininterval=5)
    return torch.cat([dpm(denoiser, Noise([(0, index) for index in range(start, min(start + batch, count))], size, CPU),
                          SCHEDULE, STEPS) for start in starts])
