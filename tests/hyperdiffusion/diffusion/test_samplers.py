"""The samplers against diffusers' schedulers, step for step, and against what is known about Gaussians."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from hyperdiffusion import NoiseSchedule
from hyperdiffusion.diffusion.samplers import SampleNoise, ddim, ddpm, dpm, invert, ode

SCHEDULE = NoiseSchedule()
THEIRS = dict(
    num_train_timesteps=500,
    beta_start=1e-4,
    beta_end=2e-2,
    beta_schedule="linear",
    prediction_type="sample",
    clip_sample=False,
)
CPU = torch.device("cpu")
SIZE = 32


def in_double(theirs):
    """A scheduler of diffusers with constants in double precision: single precision loses digits of small betas."""
    theirs.betas = torch.linspace(1e-4, 2e-2, 500, dtype=torch.float64)
    theirs.alphas = 1 - theirs.betas
    theirs.alphas_cumprod = torch.cumprod(theirs.alphas, 0)
    theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
    theirs.one = torch.ones((), dtype=torch.float64)
    return theirs


class DoubleNoise(SampleNoise):
    def __call__(self):
        return super().__call__().double()


def double_noise() -> DoubleNoise:
    return DoubleNoise(seeds(3), SIZE, device=CPU)


def denoise(x: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Any smooth function of sample and time will do."""
    return torch.tanh(x) * (1 - step[:, None] / 1000) + 0.1


def seeds(count: int) -> list[int]:
    return list(range(100, 100 + count))


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_equals_that_of_diffusers(monkeypatch, variance):
    theirs = in_double(DDPMScheduler(**THEIRS, variance_type=f"fixed_{variance}"))
    theirs.set_timesteps(500)
    noise = double_noise()
    x = noise()
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise())
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(3)), t, x).prev_sample
    ours = ddpm(denoise, double_noise(), SCHEDULE, variance=variance)
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-5)


# NumPy 2 warns about how diffusers makes arrays.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("steps", [10, 20, 50])
def test_dpm_equals_that_of_diffusers(steps):
    theirs = in_double(
        DPMSolverMultistepScheduler(
            num_train_timesteps=500,
            beta_start=1e-4,
            beta_end=2e-2,
            beta_schedule="linear",
            prediction_type="sample",
            algorithm_type="dpmsolver++",
            solver_order=2,
            final_sigmas_type="zero",
            timestep_spacing="linspace",
        )
    )
    theirs.set_timesteps(steps)
    noise = double_noise()
    x = noise()
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(3)), t, x).prev_sample
    torch.testing.assert_close(dpm(denoise, double_noise(), SCHEDULE, steps=steps), x, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("noise", ["linear", "cosine"])
def test_the_flow_of_a_gaussian_has_its_closed_form(noise):
    """Along the probability flow, x / alpha stays the same multiple of its own standard deviation."""
    std, schedule = 0.5, NoiseSchedule(noise)
    start = double_noise()()
    # The flow ends at the timestep with the least noise, and the last step goes to the posterior mean.
    first, last = (((1 - schedule.alpha_bar[t]) / schedule.alpha_bar[t]) for t in (499, 1))
    exact = start / schedule.alpha_bar[499].sqrt() * ((std**2 + last) / (std**2 + first)).sqrt()
    exact = exact * std**2 / (std**2 + last)
    for solve, steps, bound in ((ode, 499, 1e-3), (ode, 50, 0.05), (dpm, 499, 1e-3), (dpm, 50, 0.05)):
        made = solve(gaussian(std, schedule), double_noise(), schedule, steps=steps)
        assert (made - exact).abs().max() < bound * exact.abs().max(), (solve, steps)


def gaussian(std: float, schedule: NoiseSchedule):
    """The optimal denoiser of a normal distribution: its posterior mean is linear."""

    def posterior_mean(x, step):
        alpha_bar = schedule.alpha_bar[step][:, None]
        return alpha_bar.sqrt() * std**2 * x / (alpha_bar * std**2 + 1 - alpha_bar)

    return posterior_mean


def test_a_lower_temperature_gives_less_diverse_samples():
    cold, usual = (
        ddpm(gaussian(1.0, SCHEDULE), SampleNoise(seeds(100), 50, device=CPU, temperature=temperature), SCHEDULE).std()
        for temperature in (0.5, 1.0)
    )
    assert cold.item() == pytest.approx(0.5 * usual.item(), rel=1e-3)


@pytest.mark.parametrize("steps", [500, 100, 20])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_equals_that_of_diffusers(steps, eta):
    theirs = in_double(DDIMScheduler(**THEIRS, set_alpha_to_one=False))
    theirs.set_timesteps(steps)
    noise = double_noise()
    x = noise()
    for t in theirs.timesteps:
        fresh = noise() if eta else None
        x = theirs.step(denoise(x, t.expand(3)), t, x, eta=eta, variance_noise=fresh).prev_sample
    ours = ddim(denoise, double_noise(), SCHEDULE, steps=steps, eta=eta)
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-5)


def test_samples_of_a_gaussian_have_its_standard_deviation():
    std, posterior_mean = 0.5, gaussian(0.5, SCHEDULE)
    for made in (
        ddpm(posterior_mean, SampleNoise(seeds(200), 50, device=CPU), SCHEDULE),
        ddpm(posterior_mean, SampleNoise(seeds(200), 50, device=CPU), SCHEDULE, variance="large"),
        ddim(posterior_mean, SampleNoise(seeds(200), 50, device=CPU), SCHEDULE, steps=500),
        dpm(posterior_mean, SampleNoise(seeds(200), 50, device=CPU), SCHEDULE, steps=20),
        ode(posterior_mean, SampleNoise(seeds(200), 50, device=CPU), SCHEDULE, steps=20),
    ):
        # At the last timestep 0.6 % of the signal's variance is left, which costs 1 % of the standard deviation.
        assert made.std().item() == pytest.approx(std, rel=0.03)
        assert made.mean().item() == pytest.approx(0, abs=0.02)


def test_a_sample_does_not_depend_on_its_batch():
    together = ddpm(denoise, SampleNoise(seeds(5), SIZE, device=CPU), NoiseSchedule(timesteps=20))
    alone = ddpm(denoise, SampleNoise(seeds(5)[3:4], SIZE, device=CPU), NoiseSchedule(timesteps=20))
    torch.testing.assert_close(together[3:4], alone)


def test_inversion_finds_the_noise_of_a_sample():
    noise = double_noise()()
    denoiser = gaussian(0.5, SCHEDULE)
    clean = ode(denoiser, lambda: noise, SCHEDULE, steps=100)
    found = invert(denoiser, clean, SCHEDULE, steps=100)
    assert (found - noise).norm() < 0.02 * noise.norm()
