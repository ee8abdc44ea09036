"""Mixtures of tied covariance, against Gaussian mixtures whose components all have that covariance."""

import pytest
import torch

from hyperdiffusion.diffusion.marginal import restore_marginal
from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.tied_mixture import TiedMixture

COUNT, SIZE = 5, 4


@pytest.fixture
def mixtures() -> tuple[TiedMixture, GaussianMixture]:
    generator = torch.Generator().manual_seed(0)
    means = 2 * torch.randn(COUNT, SIZE, generator=generator)
    variances = torch.tensor([0.0, 0.1, 0.5, 2.0])
    axes = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator))[0]
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    gaussians = GaussianMixture(probabilities, means, variances.expand(COUNT, -1), axes.expand(COUNT, -1, -1))
    return TiedMixture(probabilities, means, variances, axes), gaussians


@pytest.mark.parametrize("spread", [1.0, 1.5])
def test_the_prediction_is_that_of_the_same_gaussians(mixtures, spread):
    tied, gaussians = (mixture.with_spread(spread) for mixture in mixtures)
    noised = torch.randn(64, SIZE, generator=torch.Generator().manual_seed(1)) * 2
    alpha_bar = torch.linspace(0, 0.99, 64)[:, None]
    torch.testing.assert_close(tied(noised, alpha_bar), gaussians(noised, alpha_bar), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tied.within_variance, gaussians.within_variance)


def test_a_state_that_is_loaded_replaces_all_that_follows_from_it(mixtures):
    noised, alpha_bar = torch.ones(2, SIZE), torch.full((2, 1), 0.5)
    for mixture in mixtures:
        other = mixture.with_spread(2.0)
        other.load_state_dict(mixture.state_dict())
        assert torch.equal(other(noised, alpha_bar), mixture(noised, alpha_bar))
        assert torch.equal(other.within_variance, mixture.within_variance)


def test_a_mixture_is_restored_as_what_it_is(mixtures):
    for mixture in mixtures:
        restored = restore_marginal(mixture.state_dict())
        assert type(restored) is type(mixture) and restored.components == COUNT
        noised, alpha_bar = torch.ones(2, SIZE), torch.full((2, 1), 0.5)
        assert torch.equal(restored(noised, alpha_bar), mixture(noised, alpha_bar))
