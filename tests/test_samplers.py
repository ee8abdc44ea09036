"""The forward process and the samplers against diffusers' schedulers, step for step."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from hyperdiffusion import Schedule
from hyperdiffusion.diffusion import posterior
from hyperdiffusion.samplers import Noise, ddim, ddpm

SCHEDULE = Schedule()
THEIRS = dict(num_train_timesteps=500, beta_start=1e-4, beta_end=2e-2, beta_schedule="linear", prediction_type="sample",
              clip_sample=False)
CPU = torch.device("cpu")
SIZE = 32


def in_double(theirs):
    """A scheduler of diffusers with its constants in double precision: in single they lose the small betas' digits."""
    theirs.betas = torch.linspace(1e-4, 2e-2, 500, dtype=torch.float64)
    theirs.alphas = 1 - theirs.betas
    theirs.alphas_cumprod = torch.cumprod(theirs.alphas, 0)
    theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
    theirs.one = torch.ones((), dtype=torch.float64)
    return theirs


class DoubleNoise(Noise):
    def __call__(self):
        return super().__call__().double()


def denoise(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Any smooth function of sample and time will do."""
    return torch.tanh(x) * (1 - step[:, None] / 1000) + 0.1


def seeds(count: int) -> list[int]:
    return list(range(100, 100 + count))


def test_the_forward_process_is_that_of_diffusers():
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 500, SIZE, generator=random)
    steps = torch.arange(500)
    expected = DDPMScheduler(**THEIRS).add_noise(clean, noise, steps)
    torch.testing.assert_close(SCHEDULE.noised(clean, noise, steps), expected, atol=1e-5, rtol=1e-5)


def test_noised_data_of_unit_variance_keep_it():
    random = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 100_000, generator=random)
    noised = SCHEDULE.noised(clean, noise, torch.tensor([0, 100, 300, 499]))
    torch.testing.assert_close(noised.std(1), torch.ones(4), atol=0.01, rtol=0)


def test_ddpm_is_that_of_diffusers(monkeypatch):
    theirs = in_double(DDPMScheduler(**THEIRS, variance_type="fixed_small"))
    theirs.set_timesteps(500)
    noise = DoubleNoise(seeds(3), SIZE, CPU)
    x = noise()
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise())
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(3)), t, x).prev_sample
    torch.testing.assert_close(ddpm(denoise, DoubleNoise(seeds(3), SIZE, CPU), SCHEDULE), x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [500, 100, 20])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_that_of_diffusers(steps, eta):
    theirs = in_double(DDIMScheduler(**THEIRS, set_alpha_to_one=False))
    theirs.set_timesteps(steps)
    noise = DoubleNoise(seeds(3), SIZE, CPU)
    x = noise()
    for t in theirs.timesteps:
        fresh = noise() if eta else None
        x = theirs.step(denoise(x, t.expand(3)), t, x, eta=eta, variance_noise=fresh).prev_sample
    ours = ddim(denoise, DoubleNoise(seeds(3), SIZE, CPU), SCHEDULE, steps, eta)
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-5)


def test_samples_of_a_gaussian_have_its_deviation():
    """The best denoiser of a normal distribution is known: its posterior mean is linear."""
    deviation = 0.5

    def posterior_mean(x, step):
        signal = SCHEDULE.signal[step][:, None].float()
        return signal.sqrt() * deviation**2 * x / (signal * deviation**2 + 1 - signal)

    for made in (ddpm(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE),
                 ddim(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE, 500)):
        # The schedule ends at 0.6 % of the signal's variance, which costs 1 % of the deviation.
        assert made.std().item() == pytest.approx(deviation, rel=0.03)
        assert made.mean().item() == pytest.approx(0, abs=0.02)


def test_the_posterior_of_a_normal_variable_is_what_draws_show():
    random = torch.Generator().manual_seed(0)
    variance = torch.tensor([0.1, 1.0, 4.0])
    clean = torch.randn(200_000, 3, generator=random) * variance.sqrt()
    for t in (50, 200, 450):
        step = torch.full((len(clean),), t)
        noised = SCHEDULE.noised(clean, torch.randn(clean.shape, generator=random), step)
        mean, deviation = posterior(noised, SCHEDULE.signal.float()[step][:, None], variance)
        torch.testing.assert_close((mean - clean).std(0), deviation[0], atol=0.01, rtol=0.02)
        # The error of the posterior mean has nothing to do with what it is guessed from.
        assert ((mean - clean) * noised).mean(0).abs().max() < 0.02


def test_a_sample_does_not_depend_on_its_batch():
    together = ddpm(denoise, Noise(seeds(5), SIZE, CPU), Schedule(timesteps=20))
    alone = ddpm(denoise, Noise(seeds(5)[3:4], SIZE, CPU), Schedule(timesteps=20))
    torch.testing.assert_close(together[3:4], alone)
