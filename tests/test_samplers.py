"""The forward process and the samplers against diffusers' schedulers, step for step."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from hyperdiffusion import Schedule
from hyperdiffusion.diffusion import posterior
from hyperdiffusion.samplers import Noise, ddim, ddpm, dpm, ode

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


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_that_of_diffusers(monkeypatch, variance):
    theirs = in_double(DDPMScheduler(**THEIRS, variance_type=f"fixed_{variance}"))
    theirs.set_timesteps(500)
    noise = DoubleNoise(seeds(3), SIZE, CPU)
    x = noise()
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: noise())
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(3)), t, x).prev_sample
    ours = ddpm(denoise, DoubleNoise(seeds(3), SIZE, CPU), SCHEDULE, variance)
    torch.testing.assert_close(ours, x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("timesteps", [500, 1000])
def test_the_cosine_schedule_is_that_of_diffusers(timesteps):
    theirs = DDPMScheduler(num_train_timesteps=timesteps, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(Schedule("cosine", timesteps).betas.float(), theirs.betas, atol=1e-6, rtol=1e-4)


# NumPy 2 has something to say about how diffusers makes arrays.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("steps", [10, 20, 50])
def test_dpm_is_that_of_diffusers(steps):
    theirs = in_double(DPMSolverMultistepScheduler(
        num_train_timesteps=500, beta_start=1e-4, beta_end=2e-2, beta_schedule="linear", prediction_type="sample",
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", timestep_spacing="linspace"))
    theirs.set_timesteps(steps)
    noise = DoubleNoise(seeds(3), SIZE, CPU)
    x = noise()
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(3)), t, x).prev_sample
    torch.testing.assert_close(dpm(denoise, DoubleNoise(seeds(3), SIZE, CPU), SCHEDULE, steps), x, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("noise", ["linear", "cosine"])
def test_the_flow_of_a_gaussian_is_the_known_one(noise):
    """Along the probability flow, x over its signal stays the same multiple of its own deviation."""
    deviation, schedule = 0.5, Schedule(noise)
    start = DoubleNoise(seeds(3), SIZE, CPU)()
    # The last time step of all steps is that of the least noise, from which the solver jumps to the mean.
    first, last = (((1 - schedule.signal[t]) / schedule.signal[t]) for t in (499, 1))
    exact = start / schedule.signal[499].sqrt() * ((deviation**2 + last) / (deviation**2 + first)).sqrt()
    exact = exact * deviation**2 / (deviation**2 + last)
    for solve, steps, bound in ((ode, 499, 1e-3), (ode, 50, 0.05), (dpm, 499, 1e-3), (dpm, 50, 0.05)):
        made = solve(gaussian(deviation, schedule), DoubleNoise(seeds(3), SIZE, CPU), schedule, steps)
        assert (made - exact).abs().max() < bound * exact.abs().max(), (solve, steps)


def gaussian(deviation: float, schedule: Schedule):
    """The best denoiser of a normal distribution: its posterior mean is linear."""
    def posterior_mean(x, step):
        signal = schedule.signal[step][:, None]
        return signal.sqrt() * deviation**2 * x / (signal * deviation**2 + 1 - signal)

    return posterior_mean


def test_colder_noise_gives_closer_samples():
    cold, usual = (ddpm(gaussian(1.0, SCHEDULE), Noise(seeds(100), 50, CPU, temperature), SCHEDULE).std()
                   for temperature in (0.5, 1.0))
    assert cold.item() == pytest.approx(0.5 * usual.item(), rel=1e-3)


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
    deviation, posterior_mean = 0.5, gaussian(0.5, SCHEDULE)
    for made in (ddpm(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE),
                 ddpm(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE, "large"),
                 ddim(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE, 500),
                 dpm(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE, 20),
                 ode(posterior_mean, Noise(seeds(200), 50, CPU), SCHEDULE, 20)):
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
