"""Mixtures of Gaussians: what they guess is known, and groups are found where there are some."""

import itertools

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm

from hyperdiffusion.diffusion import Schedule, posterior
from hyperdiffusion.mixture import Mixture
from hyperdiffusion.samplers import Noise, ddpm


def grouped(count: int, heads: int = 240, size: int = 4) -> torch.Tensor:
    """Heads (heads, size) in so many groups, which lie far apart along one axis each."""
    random = torch.Generator().manual_seed(0)
    made = torch.randn(heads, size, generator=random)
    for index in range(1, count):
        made[index::count, index] += 12
    return made - made.mean(0)


def found(heads: torch.Tensor, most: int = 8) -> Mixture:
    """The best mixture of whitened heads by the squared error at one level of noise, on every fifth head."""
    width = heads.std(0)
    white = heads / width
    held_out = torch.arange(len(heads)) % 5 == 0
    judges = white[held_out]
    signal = torch.full((len(judges), 1), 0.9)
    noised = signal.sqrt() * judges + (1 - signal).sqrt() * torch.randn(judges.shape,
                                                                        generator=torch.Generator().manual_seed(1))

    def loss(mixture: Mixture) -> float:
        return float((mixture(noised, signal) - judges).square().mean())

    return Mixture.best(white[~held_out], width, torch.ones(heads.shape[1]), most, loss)[0]


def test_the_guess_is_the_mean_of_the_posterior():
    """On a line, by integration of Bayes' rule."""
    groups = [(0.3, -2.0, 0.5), (0.7, 1.5, 1.2)]
    mixture = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-2.0], [1.5]]), torch.tensor([[0.25], [1.44]]),
                      torch.ones(2, 1, 1))

    def density(clean: float, x: float, signal: float) -> float:
        before = sum(share * norm.pdf(clean, middle, deviation) for share, middle, deviation in groups)
        return before * norm.pdf(x, signal**0.5 * clean, (1 - signal) ** 0.5)

    def moment(clean: float, x: float, signal: float) -> float:
        return clean * density(clean, x, signal)

    for given in itertools.product((-3.0, 0.1, 2.0), (0.05, 0.5, 0.95)):
        expected = quad(moment, -12, 12, given, limit=200)[0] / quad(density, -12, 12, given, limit=200)[0]
        guess = mixture(*torch.tensor(given)[:, None, None])
        np.testing.assert_allclose(guess.item(), expected, atol=1e-4)


def test_one_group_guesses_as_a_gaussian_does():
    variance, random = torch.tensor([1.0, 0.3, 0.01]), torch.Generator().manual_seed(0)
    noised, signal = torch.randn(5, 3, generator=random), torch.rand(5, 1, generator=random)
    mixture = Mixture.one(variance)
    torch.testing.assert_close(mixture(noised, signal), posterior(noised, signal, variance)[0])
    torch.testing.assert_close(mixture.within, variance)
    # All of it lies where the variance does.
    assert all(tensor.is_meta for tensor in Mixture.one(variance.to("meta")).buffers())


def test_groups_are_found_where_there_are_some_and_no_more_than_asked_for():
    assert [len(found(grouped(count))) for count in (1, 2, 3)] == [1, 2, 3]
    assert len(found(grouped(3), most=2)) == 2


def test_groups_keep_their_shares_their_means_and_how_wide_they_are():
    heads = grouped(2)
    group = torch.arange(len(heads)) % 2
    mixture = Mixture.of(heads, group, torch.ones(4))
    torch.testing.assert_close(mixture.share, torch.tensor([0.5, 0.5]))
    for index in (0, 1):
        inside = heads[group == index]
        torch.testing.assert_close(mixture.middle[index], inside.mean(0), atol=1e-5, rtol=1e-5)
        # What is taken for chance are the covariances; variances stay.
        whole = mixture.turn[index] @ mixture.variance[index].diag() @ mixture.turn[index].T
        torch.testing.assert_close(whole.diagonal(), inside.var(0, correction=0), atol=1e-5, rtol=1e-4)


def test_groups_that_are_drawn_wider_keep_their_shares():
    groups = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([[-2.0], [1.5]]), torch.tensor([[0.01], [0.25]]),
                     torch.ones(2, 1, 1)).spread(1.4)
    schedule = Schedule(timesteps=100, last_beta=0.1)
    drawn = ddpm(lambda noised, step: groups(noised, schedule.signal[step].float()[:, None]),
                 Noise(range(1000), 1, torch.device("cpu")), schedule)[:, 0]
    narrow, wide = drawn[drawn < -1.2], drawn[drawn > -1.2]
    assert abs(len(narrow) / 1000 - 0.3) < 0.06
    assert abs(float(narrow.std()) / 0.14 - 1) < 0.15 and abs(float(wide.std()) / 0.7 - 1) < 0.15


def test_too_few_heads_for_two_groups_stay_one():
    assert len(found(grouped(2, heads=4))) == 1
