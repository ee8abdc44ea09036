"""Guidance of Gaussians, whose guided distribution is known in closed form."""

import pytest
import torch

from hyperdiffusion import NoiseSchedule, SampleNoise, ode
from hyperdiffusion.diffusion.guidance import classifier_guided, guided
from hyperdiffusion.diffusion.mixture import GaussianMixture

SCHEDULE = NoiseSchedule(timesteps=200, beta_end=0.1)
MEAN = torch.tensor([0.5, -0.3])


def denoiser(mean: torch.Tensor, variance: float = 1.0):
    """The optimal denoiser of a Gaussian."""
    gaussian = GaussianMixture.single(torch.full((2,), variance))

    def denoise(noised, step):
        alpha_bar = SCHEDULE.alpha_bar.float()[step][:, None]
        return mean + gaussian(noised - alpha_bar.sqrt() * mean, alpha_bar)

    return denoise


def draw(denoise) -> torch.Tensor:
    noise = SampleNoise([(0, index) for index in range(4000)], 2, device=torch.device("cpu"))
    return ode(denoise, noise, SCHEDULE, steps=30)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_classifier_free_guidance_moves_a_gaussian_by_its_scale(scale):
    """p(x) = N(0, 1), p(x | c) = N(m, 1): p(x) (p(x | c) / p(x))^w = N(w m, 1)."""
    drawn = draw(guided(denoiser(MEAN), denoiser(torch.zeros(2)), scale=scale))
    torch.testing.assert_close(drawn.mean(0), scale * MEAN, atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.ones(2), atol=0.06, rtol=0)


def test_a_classifiers_gradient_gives_the_posterior():
    """p(x) = N(0, 1), p(c | x) = N(x, s): p(x | c) has precision 1 + 1 / s and mean c / s over that."""
    variance, observed = 0.5, torch.tensor([1.0, -1.0])

    def log_probability(noised, step):
        # x_0 given x_t is N(sqrt(alpha_bar) x_t, 1 - alpha_bar).
        alpha_bar = SCHEDULE.alpha_bar.float()[step][:, None]
        offset = observed - alpha_bar.sqrt() * noised
        return -(offset.square() / (variance + 1 - alpha_bar)).sum(1) / 2

    drawn = draw(classifier_guided(denoiser(torch.zeros(2)), log_probability, schedule=SCHEDULE, scale=1.0))
    precision = 1 + 1 / variance
    torch.testing.assert_close(drawn.mean(0), observed / variance / precision, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full((2,), precision**-0.5), atol=0.05, rtol=0)


def test_the_scale_multiplies_a_classifiers_gradient():
    """By Tweedie's formula x_0 moves by (1 - alpha_bar) / sqrt(alpha_bar) times the gradient."""
    noised, step = torch.tensor([[0.3, -0.2]]), torch.tensor([100])
    direction = torch.tensor([2.0, -1.0])
    plain = denoiser(torch.zeros(2))
    found = classifier_guided(plain, lambda x, step: x @ direction, schedule=SCHEDULE, scale=3.0)(noised, step)
    alpha_bar = SCHEDULE.alpha_bar[100].float()
    expected = plain(noised, step) + 3 * (1 - alpha_bar) / alpha_bar.sqrt() * direction
    torch.testing.assert_close(found, expected)
