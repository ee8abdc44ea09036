"""Independent components: the optimal denoiser of a product of mixtures, and how it is found."""

import itertools

import pytest
import torch

from hyperdiffusion.diffusion.independent_components import IndependentComponents
from hyperdiffusion.diffusion.mixture import GaussianMixture

SIZE = 10


def orthonormal(size: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)))[0]


def with_factors(heads: int, factors: int, seed: int) -> torch.Tensor:
    """White codes with binary factors along random directions; the rest is Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(heads, SIZE, generator=generator)
    signs = torch.randint(2, (heads, factors), generator=generator) * 2.0 - 1
    codes[:, :factors] = 0.2 * codes[:, :factors] + 0.96**0.5 * signs
    return codes @ orthonormal(SIZE).T


def test_the_posterior_mean_is_that_of_the_mixture_of_all_combinations():
    """A product of three mixtures of three Gaussians is a mixture of 27."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 3, generator=generator)
    probabilities /= probabilities.sum(1, keepdim=True)
    means, variances = torch.randn(3, 3, generator=generator), torch.rand(3, 3, generator=generator) + 0.1
    directions = orthonormal(3)
    product = IndependentComponents(directions, probabilities, means, variances)
    combinations = torch.tensor(list(itertools.product(range(3), repeat=3)))
    axis = torch.arange(3)
    mixture = GaussianMixture(
        probabilities[axis, combinations].prod(1),
        means[axis, combinations] @ directions,
        variances[axis, combinations],
        directions.T.expand(27, -1, -1),
    )
    noised, alpha_bar = torch.randn(50, 3, generator=generator), torch.rand(50, 1, generator=generator)
    torch.testing.assert_close(product(noised, alpha_bar), mixture(noised, alpha_bar), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(product.within_variance, mixture.within_variance)
    wider = product.with_spread(1.5)
    torch.testing.assert_close(
        wider(noised, alpha_bar), mixture.with_spread(1.5)(noised, alpha_bar), atol=1e-5, rtol=1e-4
    )


def test_binary_factors_are_found():
    found = IndependentComponents.fit(with_factors(2000, 3, seed=1), torch.ones(SIZE), span=8)
    # Factors that lie in the span of the first eight coordinates only in part are found in part.
    found_all = IndependentComponents.fit(with_factors(2000, 3, seed=1), torch.ones(SIZE), span=SIZE)
    agreement = (found_all.directions @ orthonormal(SIZE)[:, :3]).abs().max(0).values
    assert (agreement > 0.98).all()
    assert 0 < found.components <= 8 and found_all.components == 3
    torch.testing.assert_close(found.directions @ found.directions.T, torch.eye(SIZE), atol=1e-5, rtol=0)
    # Nearly free of noise, heads are returned as they are; at much noise, their mean is.
    codes = with_factors(100, 3, seed=2)
    torch.testing.assert_close(found_all(codes, torch.full((100, 1), 0.9999)), codes, atol=0.05, rtol=0)
    assert found_all(codes, torch.full((100, 1), 1e-6)).abs().max() < 0.1


@pytest.mark.parametrize("factors, gains", [(3, True), (0, False)])
def test_selection_tells_factors_from_a_gaussian(factors, gains):
    training, validation = with_factors(1500, factors, seed=1), with_factors(500, factors, seed=2)
    alpha_bar = torch.full((len(validation), 1), 0.8)
    noise = torch.randn(validation.shape, generator=torch.Generator().manual_seed(3))
    noised = alpha_bar.sqrt() * validation + (1 - alpha_bar).sqrt() * noise

    def loss(distribution) -> float:
        return float((distribution(noised, alpha_bar) - validation).square().mean())

    variance = torch.ones(SIZE)
    gaussian = loss(GaussianMixture.single(variance))
    found, lowest = IndependentComponents.select(training, variance=variance, loss=loss)
    assert found is not None and lowest == loss(found)
    assert (lowest < 0.95 * gaussian) == gains
    assert lowest < 1.01 * gaussian


def test_few_heads_have_no_directions():
    found, lowest = IndependentComponents.select(
        with_factors(100, 3, seed=1), variance=torch.ones(SIZE), loss=lambda distribution: 0.0
    )
    assert found is None and lowest == float("inf")
