"""Guidance: denoisers in; a denoiser whose samples are more typical of their attributes out."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float

from hyperdiffusion.diffusion.schedule import Denoise, NoiseSchedule

LogProbability = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Noised coordinates x_t (B, D) and timesteps (B,) to log p(c | x_t) (B,) of the wanted attributes."""


def conditioned(denoise: Denoise, values: Float[torch.Tensor, "B n"]) -> Denoise:
    """Return the denoiser of heads with these attributes."""
    return partial(denoise, values=values)


def guided(conditional: Denoise, unconditional: Denoise, *, scale: float) -> Denoise:
    """Return the classifier-free guided denoiser (Ho and Salimans 2022, equation 6, for x_0).

    A scale of 0 is the unconditional denoiser, 1 the conditional one; more exaggerates their difference.
    """
    if scale == 1:
        return conditional

    def denoise(noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        base = unconditional(noised, step)
        return base + scale * (conditional(noised, step) - base)

    return denoise


def classifier_guided(
    denoise: Denoise, log_probability: LogProbability, *, schedule: NoiseSchedule, scale: float
) -> Denoise:
    """Return the unconditional denoiser guided by a classifier's gradient (Dhariwal and Nichol 2021, section 4.2).

    The score gains `scale` times the gradient of log p(c | x_t); by Tweedie's formula x_0 moves by
    (1 - alpha_bar) / sqrt(alpha_bar) times that. A scale of 1 is Bayes' rule.
    """

    def guided_denoise(noised: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        # Samplers run without gradients.
        with torch.enable_grad():
            leaf = noised.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(log_probability(leaf, step).sum(), leaf)
        alpha_bar = schedule.alpha_bar.float().to(noised.device)[step][:, None]
        return denoise(noised, step) + scale * (1 - alpha_bar) / alpha_bar.sqrt() * gradient

    return guided_denoise
