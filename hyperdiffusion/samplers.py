"""Samplers: a denoiser and pure noise in, clean coordinates out. Each is a function of (denoise, noise, schedule).

`denoise(x (B, D), step (B,))` returns the clean coordinates that it expects. `noise` holds one random generator a
sample, so that a sample does not depend on what else is in its batch.
"""

from collections.abc import Callable, Sequence

import torch

from .diffusion import Schedule

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Noise:
    """Normal noise (B, D), row k drawn from a generator of its own."""

    def __init__(self, seeds: Sequence[int], size: int, device: torch.device):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.size, self.device = size, device

    def __call__(self) -> torch.Tensor:
        """The next draw of every row."""
        rows = [torch.randn(self.size, generator=generator) for generator in self.generators]
        return torch.stack(rows).to(self.device)


@torch.no_grad()
def ddpm(denoise: Denoise, noise: Noise, schedule: Schedule) -> torch.Tensor:
    """Ancestral sampling over all steps with the posterior's own variance (Ho et al. 2020, equations 6 and 7)."""
    x = noise()
    for t in reversed(range(schedule.timesteps)):
        clean = denoise(x, _steps(x, t))
        signal, before = schedule.signal[t], schedule.signal[t - 1] if t else torch.ones(())
        beta = schedule.betas[t]
        to_clean = float(before.sqrt() * beta / (1 - signal))
        to_x = float((1 - beta).sqrt() * (1 - before) / (1 - signal))
        x = to_clean * clean + to_x * x
        if t:
            x = x + float(((1 - before) / (1 - signal) * beta).sqrt()) * noise()
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


def _steps(x: torch.Tensor, t: int) -> torch.Tensor:
    return torch.full((len(x),), t, device=x.device)
