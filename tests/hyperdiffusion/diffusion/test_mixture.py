"""Gaussian mixtures: their predictions are known in closed form, and components are found where there are clusters."""

import itertools

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm

from hyperdiffusion.diffusion.mixture import GaussianMixture
from hyperdiffusion.diffusion.samplers import SampleNoise, ddpm
from hyperdiffusion.diffusion.schedule import NoiseSchedule, gaussian_posterior


def clustered(count: int, heads: int = 240, size: int = 4) -> torch.Tensor:
    """Heads (heads, size) in `count` clusters, each far from the others along a coordinate of its own."""
    random = torch.Generator().manual_seed(0)
    made = torch.randn(heads, size, generator=random)
    for index in range(1, count):
        made[index::count, index] += 12
    return made - made.mean(0)


def found(heads: torch.Tensor, most: int = 8) -> GaussianMixture:
    """The best mixture of whitened heads by the squared error at one level of noise, on every fifth head."""
    width = heads.std(0)
    white = heads / width
    is_validation = torch.arange(len(heads)) % 5 == 0
    validation = white[is_validation]
    alpha_bar = torch.full((len(validation), 1), 0.9)
    noised = alpha_bar.sqrt() * validation + (1 - alpha_bar).sqrt() * torch.randn(
        validation.shape, generator=torch.Generator().manual_seed(1)
    )

    def loss(mixture: GaussianMixture) -> float:
        return float((mixture(noised, alpha_bar) - validation).square().mean())

    return GaussianMixture.select(
        white[~is_validation],
        std=width,
        variance=torch.ones(heads.shape[1]),
        max_components=most,
        margin=0.003,
        loss=loss,
    )[0]


def test_the_prediction_is_the_mean_of_the_posterior():
    """On a line, by integration of Bayes' rule."""
    components = [(0.3, -2.0, 0.5), (0.7, 1.5, 1.2)]
    mixture = GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-2.0], [1.5]]), torch.tensor([[0.25], [1.44]]), torch.ones(2, 1, 1)
    )

    def density(clean: float, x: float, alpha_bar: float) -> float:
        before = sum(probability * norm.pdf(clean, mean, std) for probability, mean, std in components)
        return before * norm.pdf(x, alpha_bar**0.5 * clean, (1 - alpha_bar) ** 0.5)

    def moment(clean: float, x: float, alpha_bar: float) -> float:
        return clean * density(clean, x, alpha_bar)

    for given in itertools.product((-3.0, 0.1, 2.0), (0.05, 0.5, 0.95)):
        expected = quad(moment, -12, 12, given, limit=200)[0] / quad(density, -12, 12, given, limit=200)[0]
        guess = mixture(*torch.tensor(given)[:, None, None])
        np.testing.assert_allclose(guess.item(), expected, atol=1e-4)


def test_one_component_predicts_as_a_gaussian_does():
    variance, random = torch.tensor([1.0, 0.3, 0.01]), torch.Generator().manual_seed(0)
    noised, alpha_bar = torch.randn(5, 3, generator=random), torch.rand(5, 1, generator=random)
    mixture = GaussianMixture.single(variance)
    torch.testing.assert_close(mixture(noised, alpha_bar), gaussian_posterior(noised, alpha_bar, variance)[0])
    torch.testing.assert_close(mixture.within_variance, variance)
    # Everything is on the device of the variance.
    assert all(tensor.is_meta for tensor in GaussianMixture.single(variance.to("meta")).buffers())


def test_components_are_found_where_there_are_clusters_up_to_the_bound():
    assert [found(clustered(count)).components for count in (1, 2, 3)] == [1, 2, 3]
    assert found(clustered(3), most=2).components == 2


def test_components_have_the_probabilities_means_and_variances_of_their_clusters():
    heads = clustered(2)
    cluster = torch.arange(len(heads)) % 2
    mixture = GaussianMixture.from_clusters(heads, cluster, torch.ones(4))
    torch.testing.assert_close(mixture.probabilities, torch.tensor([0.5, 0.5]))
    for index in (0, 1):
        inside = heads[cluster == index]
        torch.testing.assert_close(mixture.means[index], inside.mean(0), atol=1e-5, rtol=1e-5)
        # Covariances are shrunk, variances are not.
        whole = mixture.rotations[index] @ mixture.variances[index].diag() @ mixture.rotations[index].T
        torch.testing.assert_close(whole.diagonal(), inside.var(0, correction=0), atol=1e-5, rtol=1e-4)


def test_components_in_the_first_coordinates_have_the_moments_of_their_clusters():
    heads = clustered(2)
    mixture = GaussianMixture.in_leading(heads, torch.full((4,), 0.8), span=2, count=2)
    narrowed = heads * 0.8**0.5
    for index in range(2):
        inside = narrowed[(narrowed[:, 1] > 0) == (mixture.means[index, 1] > 0), :2]
        torch.testing.assert_close(mixture.means[index, :2], inside.mean(0), atol=1e-4, rtol=1e-4)
        whole = mixture.rotations[index] @ mixture.variances[index].diag() @ mixture.rotations[index].T
        expected = torch.cov(inside.T, correction=0) + 0.01 * torch.eye(2)
        torch.testing.assert_close(whole[:2, :2], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(whole[2:, 2:], 0.8 * torch.eye(2))
        assert not mixture.means[index, 2:].any() and not whole[:2, 2:].any()


def test_a_spiral_is_found_among_many_coordinates():
    """No ellipsoid and no product of directions: arms of a spiral in the first two of twelve coordinates."""
    generator = torch.Generator().manual_seed(4)
    heads = torch.randn(1200, 12, generator=generator)
    radius = (0.1 + 0.9 * torch.rand(1200, generator=generator)).sqrt()
    arm = 2 * radius[:, None] * torch.stack([(9 * radius).cos(), (9 * radius).sin()], dim=1)
    heads[:, :2] = arm + 0.05 * heads[:, :2]
    mixture = found(heads - heads.mean(0), most=16)
    assert mixture.components >= 8
    varying = (mixture.means != mixture.means[:1]).any(0)
    assert varying[:2].all() and not varying[4:].any()


def test_a_larger_spread_keeps_the_probabilities():
    wider = GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-2.0], [1.5]]), torch.tensor([[0.01], [0.25]]), torch.ones(2, 1, 1)
    ).with_spread(1.4)
    schedule = NoiseSchedule(timesteps=100, beta_end=0.1)
    drawn = ddpm(
        lambda noised, step: wider(noised, schedule.alpha_bar[step].float()[:, None]),
        SampleNoise(range(1000), 1, device=torch.device("cpu")),
        schedule,
    )[:, 0]
    narrow, wide = drawn[drawn < -1.2], drawn[drawn > -1.2]
    assert abs(len(narrow) / 1000 - 0.3) < 0.06
    assert abs(float(narrow.std()) / 0.14 - 1) < 0.15 and abs(float(wide.std()) / 0.7 - 1) < 0.15


def test_too_few_heads_for_two_components_get_one():
    assert found(clustered(2, heads=4)).components == 1
