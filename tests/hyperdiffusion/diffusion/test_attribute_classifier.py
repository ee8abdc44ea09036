"""The classifier of noised codes: its gradient on a Gaussian, its categories, and missing values."""

import math

import pytest
import torch

from hyperdiffusion import Attributes, Categorical, NoiseSchedule, Numeric
from hyperdiffusion.diffusion.attribute_classifier import KnownHeads, train_classifier

SCHEDULE = NoiseSchedule(timesteps=100, beta_end=5e-2)
ATTRIBUTES = Attributes((Numeric("age", 0.0, 1.0, -3.0, 3.0), Categorical("side", ("left", "right"), (0.5, 0.5))))


@pytest.fixture(scope="module")
def classifier():
    """Of codes whose first coordinate is 0.8 age and a rest, and whose second is -1 or 1 and a rest."""
    generator = torch.Generator().manual_seed(0)
    values = torch.stack([torch.randn(5000, generator=generator), torch.randint(2, (5000,), generator=generator)], 1)
    codes = torch.stack([0.8 * values[:, 0], 2 * values[:, 1] - 1], dim=1)
    codes = codes + torch.tensor([0.6, 0.5]) * torch.randn(5000, 2, generator=generator)
    values[::10, 0] = torch.nan
    heads = KnownHeads(codes, values)
    return train_classifier(ATTRIBUTES, heads, validation=KnownHeads(codes[:0], values[:0]), schedule=SCHEDULE, seed=0)


@pytest.mark.parametrize("step", [5, 50, 90])
def test_the_gradient_is_that_of_the_joint_gaussian(classifier, step):
    """age | x_t is N(k x_t, v) with k = 0.8 sqrt(alpha_bar), v = 1 - 0.64 alpha_bar."""
    alpha_bar = float(SCHEDULE.alpha_bar[step])
    slope, variance = 0.8 * math.sqrt(alpha_bar), 1 - 0.64 * alpha_bar
    noised = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    values = torch.tensor([[1.0, torch.nan]] * 3)
    log_probability = classifier.log_probability(noised, torch.full((3,), step), values)
    (gradient,) = torch.autograd.grad(log_probability.sum(), noised)
    expected = slope * (1 - slope * noised[:, 0]) / variance
    torch.testing.assert_close(gradient[:, 0], expected.detach(), atol=0.25, rtol=0)


def test_categories_are_told_apart(classifier):
    noised, step = torch.tensor([[0.0, -1.0], [0.0, 1.0]]), torch.tensor([2, 2])
    left, right = (classifier.log_probability(noised, step, torch.tensor([[torch.nan, level]] * 2)) for level in (0, 1))
    assert left[0] > math.log(0.9) and right[1] > math.log(0.9)


def test_validation_heads_of_which_nothing_is_known_are_not_used(monkeypatch):
    monkeypatch.setattr("hyperdiffusion.diffusion.attribute_classifier.STEPS", 120)
    codes = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    heads = KnownHeads(codes, torch.stack([codes[:, 0], (codes[:, 1] > 0).float()], dim=1))
    unknown = KnownHeads(codes[:5], ATTRIBUTES.missing(5))
    found, expected = (
        train_classifier(ATTRIBUTES, heads, validation=validation, schedule=SCHEDULE, seed=0)
        for validation in (unknown, KnownHeads(codes[:0], ATTRIBUTES.missing(0)))
    )
    assert torch.equal(found.project.weight, expected.project.weight)


def test_missing_values_say_nothing(classifier):
    noised, step = torch.ones(2, 2), torch.tensor([2, 2])
    assert torch.equal(classifier.log_probability(noised, step, ATTRIBUTES.missing(2)), torch.zeros(2))
