"""The loss: what it is zero for, what it weighs, and that validation repeats."""

import pytest
import torch

from hyperdiffusion import NoiseSchedule
from hyperdiffusion.diffusion.coordinates import LatentCoordinates, WeightCoordinates
from hyperdiffusion.diffusion.loss import Objective, latent_loss, weight_loss
from hyperdiffusion.diffusion.schedule import gaussian_posterior

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule()


def coordinates() -> LatentCoordinates:
    weights = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    return LatentCoordinates.from_weights(weights, (10, 10))


def test_the_optimal_linear_prediction_has_the_same_loss_at_every_timestep():
    """It is the mean of the squared relative standard deviations, weighted by the variances of unseen heads."""
    generator = torch.Generator().manual_seed(0)
    ratio, width = torch.tensor([1.0, 0.5, 0.1]), torch.tensor([1.5, 1.0, 0.2])
    clean = torch.randn(100_000, 3, generator=generator) * ratio.sqrt()
    for t in (20, 250, 499):
        step = torch.full((len(clean),), t)
        alpha_bar = SCHEDULE.alpha_bar.float()[step][:, None]
        noised = SCHEDULE.add_noise(clean, torch.randn(clean.shape, generator=generator), step)
        predicted = gaussian_posterior(noised, alpha_bar, ratio)[0]
        loss = latent_loss(predicted, clean, alpha_bar=alpha_bar, variance_ratio=ratio, relative_std=width)
        assert float(loss.mean()) == pytest.approx(float((width.square() * ratio).mean()), rel=0.02)


def test_the_loss_of_weights_is_the_mean_squared_error():
    predicted, clean = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert weight_loss(predicted, clean).tolist() == [2.0, 0.0]


def test_parts_of_a_batch_are_noised_as_the_whole_batch():
    objective = Objective.on(CPU, coordinates(), SCHEDULE)
    clean = torch.randn(8, 11)
    whole = objective.draw(clean, torch.Generator().manual_seed(3))
    part = objective.draw(clean[2:4], torch.Generator().manual_seed(3), count=8, part=slice(2, 4))
    assert torch.equal(part.step, whole.step[2:4]) and torch.equal(part.noise, whole.noise[2:4])


@pytest.mark.parametrize("plain", [False, True])
def test_validation_repeats_and_a_perfect_prediction_has_no_loss(plain):
    objective = Objective.on(CPU, WeightCoordinates.raw((5, 6)) if plain else coordinates(), SCHEDULE)
    heads = torch.randn(5, 11)
    assert objective.validation_loss(lambda noised, step: heads, heads, draws=4) == 0
    baseline = objective.baseline_loss(heads, draws=4)
    assert baseline == objective.baseline_loss(heads, draws=4) > 0
    if plain:
        assert baseline == pytest.approx(float(heads.var(0, correction=0).mean()), rel=1e-5)
