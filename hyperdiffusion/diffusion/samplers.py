"""Samplers: a denoiser, noise and a schedule in, clean coordinates out.

Each sampler is a plain function. `denoise(x (B, D), step (B,))` predicts the clean coordinates. `noise()` returns the
next noise (B, D); every sample has a random generator of its own, so that it does not depend on the rest of its batch.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.schedule import Denoise, NoiseSchedule

# Fixed-point iterations that find the start of an inverted flow; each reduces the error at least tenfold.
INVERSION_ITERATIONS = 8

Variance = Literal["small", "large"]
DrawNoise = Callable[[], torch.Tensor]


class SampleNoise:
    """Normal noise (B, D), each row from a generator of its own."""

    def __init__(
        self, seeds: Sequence[int | tuple[int, ...]], size: int, *, device: torch.device, temperature: float = 1.0
    ):
        """Seed one generator for each of B samples of `size` coordinates; `temperature` scales the noise."""
        # NumPy's generators: torch's CPU generator uses only the lowest 32 bits of a seed.
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.size = size
        self.device = device
        self.temperature = temperature

    def __call__(self) -> Float[torch.Tensor, "B D"]:
        """Return the next draw of every row."""
        rows = np.stack([generator.standard_normal(self.size, np.float32) for generator in self.generators])
        return self.temperature * torch.from_numpy(rows).to(self.device)


@torch.no_grad()
def ddpm(
    denoise: Denoise, noise: DrawNoise, schedule: NoiseSchedule, *, variance: Variance = "small"
) -> Float[torch.Tensor, "B D"]:
    """Sample ancestrally over all timesteps (Ho et al. 2020, equations 6 and 7).

    The variance of a step is the posterior's own ("small"), or that of the forward step ("large"): the two bounds of
    section 3.2.
    """
    x = noise()
    for t in reversed(range(schedule.timesteps)):
        clean = denoise(x, _step(x, t))
        alpha_bar, alpha_bar_prev = schedule.alpha_bar[t], schedule.alpha_bar[t - 1] if t else torch.ones(())
        beta = schedule.betas[t]
        clean_factor = float(alpha_bar_prev.sqrt() * beta / (1 - alpha_bar))
        x_factor = float((1 - beta).sqrt() * (1 - alpha_bar_prev) / (1 - alpha_bar))
        x = clean_factor * clean + x_factor * x
        if t:
            small = (1 - alpha_bar_prev) / (1 - alpha_bar) * beta
            x = x + float((beta if variance == "large" else small).sqrt()) * noise()
    return x


@torch.no_grad()
def ddim(
    denoise: Denoise, noise: DrawNoise, schedule: NoiseSchedule, *, steps: int, eta: float = 0.0
) -> Float[torch.Tensor, "B D"]:
    """Sample implicitly over `steps` evenly spaced timesteps (Song et al. 2021, equation 12)."""
    x = noise()
    stride = schedule.timesteps // steps
    for t in reversed(range(0, stride * steps, stride)):
        clean = denoise(x, _step(x, t))
        alpha_bar = schedule.alpha_bar[t]
        # The last step ends at the first alpha_bar, as in the reference implementation (set_alpha_to_one=False).
        alpha_bar_prev = schedule.alpha_bar[max(t - stride, 0)]
        direction = (x - float(alpha_bar.sqrt()) * clean) / float((1 - alpha_bar).sqrt())
        sigma = eta * float(((1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)).sqrt())
        direction_factor = float((1 - alpha_bar_prev - sigma**2).clamp(min=0).sqrt())
        x = float(alpha_bar_prev.sqrt()) * clean + direction_factor * direction
        if eta:
            x = x + sigma * noise()
    return x


@torch.no_grad()
def dpm(denoise: Denoise, noise: DrawNoise, schedule: NoiseSchedule, *, steps: int) -> Float[torch.Tensor, "B D"]:
    """Sample by DPM-Solver++(2M), a second-order multistep solver (Lu et al. 2022b, algorithm 2)."""
    x = noise()
    times = _timesteps(schedule, steps)
    clean_prev, h_prev = None, 0.0
    for t, t_next in pairwise(times):
        clean = denoise(x, _step(x, t))
        (alpha, sigma), (alpha_next, sigma_next) = _alpha_sigma(schedule, t), _alpha_sigma(schedule, t_next)
        h = float(torch.log(alpha_next / sigma_next) - torch.log(alpha / sigma))
        target = clean if clean_prev is None else clean + h / (2 * h_prev) * (clean - clean_prev)
        x = float(sigma_next / sigma) * x + float(alpha_next * -torch.expm1(torch.tensor(-h))) * target
        clean_prev, h_prev = clean, h
    # The last step goes to no noise at all and is of first order: it ends at the prediction.
    return denoise(x, _step(x, times[-1]))


@torch.no_grad()
def ode(denoise: Denoise, noise: DrawNoise, schedule: NoiseSchedule, *, steps: int) -> Float[torch.Tensor, "B D"]:
    """Sample by the probability-flow ODE with Heun's method, in x / alpha (Karras et al. 2022, algorithm 1)."""
    times = _timesteps(schedule, steps)
    x = _integrate(denoise, noise(), schedule, times)
    return denoise(x, _step(x, times[-1]))


@torch.no_grad()
def invert(
    denoise: Denoise, clean: Float[torch.Tensor, "B D"], schedule: NoiseSchedule, *, steps: int
) -> Float[torch.Tensor, "B D"]:
    """Return the noise from which `ode` generates `clean`: the flow integrated from clean to noise."""
    times = _timesteps(schedule, steps)[::-1]
    alpha, _ = _alpha_sigma(schedule, times[0])
    # The end point of the flow: x such that the denoiser predicts `clean`, by fixed-point iteration.
    x = float(alpha) * clean
    for _ in range(INVERSION_ITERATIONS):
        x = x + float(alpha) * (clean - denoise(x, _step(x, times[0])))
    return _integrate(denoise, x, schedule, times)


def _integrate(denoise: Denoise, x: torch.Tensor, schedule: NoiseSchedule, times: list[int]) -> torch.Tensor:
    """Follow the flow from the first timestep to the last, in either direction, by Heun's method."""
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = _alpha_sigma(schedule, t), _alpha_sigma(schedule, t_next)
        level, level_next = sigma / alpha, sigma_next / alpha_next
        scaled = x / float(alpha)
        slope = (scaled - denoise(x, _step(x, t))) / float(level)
        euler = scaled + float(level_next - level) * slope
        slope_next = (euler - denoise(float(alpha_next) * euler, _step(x, t_next))) / float(level_next)
        x = float(alpha_next) * (scaled + float(level_next - level) * (slope + slope_next) / 2)
    return x


def _timesteps(schedule: NoiseSchedule, steps: int) -> list[int]:
    """Evenly spaced timesteps, noisiest first, without timestep 0: the last step goes to clean coordinates anyway."""
    times = torch.linspace(0, schedule.timesteps - 1, steps + 1, dtype=torch.float64)
    return times.round().long().flip(0)[:-1].tolist()


def _alpha_sigma(schedule: NoiseSchedule, t: int) -> tuple[torch.Tensor, torch.Tensor]:
    """alpha and sigma of x_t = alpha x_0 + sigma noise."""
    return schedule.alpha_bar[t].sqrt(), (1 - schedule.alpha_bar[t]).sqrt()


def _step(x: torch.Tensor, t: int) -> torch.Tensor:
    return torch.full((len(x),), t, device=x.device)
