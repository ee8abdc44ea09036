"""Samplers: a denoiser and pure noise in, clean coordinates out. Each is a function of (denoise, noise, schedule).

`denoise(x (B, D), step (B,))` returns the clean coordinates that it expects. `noise` holds one random generator a
sample, so that a sample does not depend on what else is in its batch.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from .diffusion import Denoise, Schedule

# Corrections by which the start of an inverted flow is found; each takes an error to a tenth and less.
CORRECTIONS = 8
Variance = Literal["small", "large"]


class Noise:
    """Normal noise (B, D), row k drawn from a generator of its own; colder noise gives more usual samples."""

    def __init__(self, seeds: Sequence[int | tuple[int, ...]], size: int, device: torch.device,
                 temperature: float = 1.0):
        # NumPy's generators: torch's on CPU knows only the lowest 32 bits of a seed.
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.size, self.device, self.temperature = size, device, temperature

    def __call__(self) -> torch.Tensor:
        """The next draw of every row."""
        rows = np.stack([generator.standard_normal(self.size, np.float32) for generator in self.generators])
        return self.temperature * torch.from_numpy(rows).to(self.device)


@torch.no_grad()
def ddpm(denoise: Denoise, noise: Noise, schedule: Schedule, variance: Variance = "small") -> torch.Tensor:
    """Ancestral sampling over all steps (Ho et al. 2020, equations 6 and 7).

    The variance is the posterior's own, or the large one that the forward step adds: the two bounds of section 3.2.
    """
    x = noise()
    for t in reversed(range(schedule.timesteps)):
        clean = denoise(x, _steps(x, t))
        signal, before = schedule.signal[t], schedule.signal[t - 1] if t else torch.ones(())
        beta = schedule.betas[t]
        to_clean = float(before.sqrt() * beta / (1 - signal))
        to_x = float((1 - beta).sqrt() * (1 - before) / (1 - signal))
        x = to_clean * clean + to_x * x
        if t:
            x = x + float((beta if variance == "large" else (1 - before) / (1 - signal) * beta).sqrt()) * noise()
    return x


@torch.no_grad()
def ddim(denoise: Denoise, noise: Noise, schedule: Schedule, steps: int, eta: float = 0.0) -> torch.Tensor:
    """Implicit sampling over `steps` evenly spaced steps (Song et al. 2021, equation 12)."""
    x = noise()
    stride = schedule.timesteps // steps
    for t in reversed(range(0, stride * steps, stride)):
        clean = denoise(x, _steps(x, t))
        signal = schedule.signal[t]
        # The last step lands on the first's signal, as in the reference implementation (set_alpha_to_one=False).
        before = schedule.signal[max(t - stride, 0)]
        direction = (x - float(signal.sqrt()) * clean) / float((1 - signal).sqrt())
        spread = eta * float(((1 - before) / (1 - signal) * (1 - signal / before)).sqrt())
        x = float(before.sqrt()) * clean + float((1 - before - spread**2).clamp(min=0).sqrt()) * direction
        if eta:
            x = x + spread * noise()
    return x


@torch.no_grad()
def dpm(denoise: Denoise, noise: Noise, schedule: Schedule, steps: int) -> torch.Tensor:
    """DPM-Solver++(2M): two-step solver of the probability-flow ODE (Lu et al. 2022b, algorithm 2)."""
    x, before, last = noise(), None, 0.0
    times = _spread(schedule, steps)
    for t, following in zip(times, [*times[1:], None]):
        clean = denoise(x, _steps(x, t))
        # The last step, to no noise at all, is of first order: it lands on what the denoiser expects.
        if following is None:
            return clean
        (scale, spread), (next_scale, next_spread) = _scales(schedule, t), _scales(schedule, following)
        step = float(torch.log(next_scale / next_spread) - torch.log(scale / spread))
        aim = clean if before is None else clean + step / (2 * last) * (clean - before)
        x = float(next_spread / spread) * x + float(next_scale * -torch.expm1(torch.tensor(-step))) * aim
        before, last = clean, step
    return x


@torch.no_grad()
def ode(denoise: Denoise, noise: Noise, schedule: Schedule, steps: int) -> torch.Tensor:
    """The probability-flow ODE by Heun's rule, in x over its signal (Karras et al. 2022, algorithm 1)."""
    times = _spread(schedule, steps)
    x = _along(denoise, noise(), schedule, times)
    return denoise(x, _steps(x, times[-1]))


@torch.no_grad()
def inverted(denoise: Denoise, clean: torch.Tensor, schedule: Schedule, steps: int) -> torch.Tensor:
    """The noise (B, D) from which the probability flow comes to `clean` (B, D): the same way up."""
    times = _spread(schedule, steps)[::-1]
    scale, _ = _scales(schedule, times[0])
    # Where the flow ends in the clean ones: x such that the denoiser expects them, found by a few corrections.
    x = float(scale) * clean
    for _ in range(CORRECTIONS):
        x = x + float(scale) * (clean - denoise(x, _steps(x, times[0])))
    return _along(denoise, x, schedule, times)


def _along(denoise: Denoise, x: torch.Tensor, schedule: Schedule, times: list[int]) -> torch.Tensor:
    """x (B, D) taken by the flow from the first of the time steps to the last, up or down."""
    for t, following in zip(times, times[1:]):
        (scale, spread), (next_scale, next_spread) = _scales(schedule, t), _scales(schedule, following)
        level, next_level = spread / scale, next_spread / next_scale
        here = x / float(scale)
        slope = (here - denoise(x, _steps(x, t))) / float(level)
        guess = here + float(next_level - level) * slope
        there = (guess - denoise(float(next_scale) * guess, _steps(x, following))) / float(next_level)
        x = float(next_scale) * (here + float(next_level - level) * (slope + there) / 2)
    return x


def _spread(schedule: Schedule, steps: int) -> list[int]:
    """Evenly spread time steps, from the noisiest down, without the cleanest, from which the last jump goes anyway."""
    times = torch.linspace(0, schedule.timesteps - 1, steps + 1, dtype=torch.float64)
    return times.round().long().flip(0)[:-1].tolist()


def _scales(schedule: Schedule, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the clean signal and the noise are multiplied by at a time step: alpha and sigma."""
    return schedule.signal[t].sqrt(), (1 - schedule.signal[t]).sqrt()


def _steps(x: torch.Tensor, t: int) -> torch.Tensor:
    return torch.full((len(x),), t, device=x.device)
