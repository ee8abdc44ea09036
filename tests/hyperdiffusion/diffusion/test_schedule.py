"""The forward process against diffusers, and the posterior against draws."""

import pytest
import torch
from diffusers import DDPMScheduler

from hyperdiffusion import NoiseSchedule
from hyperdiffusion.diffusion.schedule import gaussian_posterior, gaussian_posterior_std
from overfit import BadInput

SCHEDULE = NoiseSchedule()
SIZE = 32


def test_the_forward_process_equals_that_of_diffusers():
    theirs = DDPMScheduler(num_train_timesteps=500, beta_start=1e-4, beta_end=2e-2, beta_schedule="linear")
    clean, noise = torch.randn(2, 500, SIZE, generator=torch.Generator().manual_seed(0))
    steps = torch.arange(500)
    expected = theirs.add_noise(clean, noise, steps)
    torch.testing.assert_close(SCHEDULE.add_noise(clean, noise, steps), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("timesteps", [500, 1000])
def test_the_cosine_schedule_equals_that_of_diffusers(timesteps):
    theirs = DDPMScheduler(num_train_timesteps=timesteps, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(NoiseSchedule("cosine", timesteps).betas.float(), theirs.betas, atol=1e-6, rtol=1e-4)


def test_noised_data_keep_unit_variance():
    clean, noise = torch.randn(2, 4, 100_000, generator=torch.Generator().manual_seed(0))
    noised = SCHEDULE.add_noise(clean, noise, torch.tensor([0, 100, 300, 499]))
    torch.testing.assert_close(noised.std(1), torch.ones(4), atol=0.01, rtol=0)


def test_the_posterior_of_a_normal_variable_agrees_with_draws():
    generator = torch.Generator().manual_seed(0)
    variance = torch.tensor([0.1, 1.0, 4.0])
    clean = torch.randn(200_000, 3, generator=generator) * variance.sqrt()
    for t in (50, 200, 450):
        step = torch.full((len(clean),), t)
        noised = SCHEDULE.add_noise(clean, torch.randn(clean.shape, generator=generator), step)
        alpha_bar = SCHEDULE.alpha_bar.float()[step][:, None]
        mean, std = gaussian_posterior(noised, alpha_bar, variance)
        torch.testing.assert_close((mean - clean).std(0), std[0], atol=0.01, rtol=0.02)
        assert torch.equal(gaussian_posterior_std(alpha_bar, variance), std)
        # The error of the posterior mean is uncorrelated with what it is predicted from.
        assert ((mean - clean) * noised).mean(0).abs().max() < 0.02


@pytest.mark.parametrize(
    "arguments, words",
    [
        (dict(timesteps=1), "`timesteps=1`: give 2 or more"),
        (dict(beta_end=float("nan")), "`beta_end=nan`"),
        (dict(beta_start=0.0), "`beta_start=0.0`"),
        (dict(beta_start=0.1), "`beta_start=0.1`"),
    ],
)
def test_impossible_schedules_are_refused(arguments, words):
    with pytest.raises(BadInput, match=words):
        NoiseSchedule(**arguments)
