"""Heads given their attributes: means, categories and variances of a population that is known."""

import pytest
import torch

from hyperdiffusion import Attributes, Categorical, Numeric
from hyperdiffusion.diffusion.conditional_mixture import ConditionalMixture
from hyperdiffusion.diffusion.mixture import GaussianMixture

HEADS, SIZE = 3000, 6
# The first coordinate is mostly the number, the second and third are a category, the others are chance.
ATTRIBUTES = Attributes((Numeric("age", 0.0, 1.0, -3.0, 3.0), Categorical("hair", ("a", "b", "c"), (1 / 3,) * 3)))
CENTRES = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])


@pytest.fixture(scope="module")
def known() -> tuple[torch.Tensor, torch.Tensor]:
    """Values (heads, 2), and whitened codes (heads, 6)."""
    generator = torch.Generator().manual_seed(0)
    age, hair = torch.randn(HEADS, generator=generator), torch.randint(3, (HEADS,), generator=generator)
    codes = torch.randn(HEADS, SIZE, generator=generator)
    codes[:, 0] = 0.8 * age + 0.6 * codes[:, 0]
    codes[:, 1:3] = CENTRES[hair] + 0.5**0.5 * codes[:, 1:3]
    return torch.stack([age, hair.float()], dim=1), codes


@pytest.fixture(scope="module")
def mixture(known) -> ConditionalMixture:
    marginal = GaussianMixture.single(torch.ones(SIZE))
    return ConditionalMixture.fit(ATTRIBUTES, *known, marginal=marginal, variance=torch.ones(SIZE))


def test_conditional_means_are_found(mixture):
    values = torch.tensor([[1.0, 0.0], [-2.0, 1.0], [torch.nan, 2.0]])
    expected = torch.zeros(3, SIZE)
    expected[:, 0], expected[:, 1:3] = torch.tensor([0.8, -1.6, 0.0]), CENTRES
    # All of x_0 is noise at alpha_bar 0.
    found = mixture(torch.zeros(3, SIZE), torch.zeros(3, 1), values)
    torch.testing.assert_close(found, expected, atol=0.06, rtol=0)


def test_the_variance_falls_by_what_the_attributes_explain(mixture):
    known = torch.tensor([[0.0, 0.0]])
    expected = torch.tensor([[0.36, 0.5, 0.5, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(mixture.within_variance(known), expected, atol=0.05, rtol=0)
    torch.testing.assert_close(mixture.within_variance(known * torch.nan), torch.ones(1, SIZE))


def test_the_posterior_is_that_of_the_conditional_gaussian(mixture):
    noised, alpha_bar = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1)), torch.tensor([[0.4]])
    mean, variance = torch.tensor([0.8, *CENTRES[1].tolist(), 0, 0, 0]), torch.tensor([0.36, 0.5, 0.5, 1, 1, 1])
    gain = alpha_bar.sqrt() * variance / (alpha_bar * variance + 1 - alpha_bar)
    expected = mean + gain * (noised - alpha_bar.sqrt() * mean)
    found = mixture(noised, alpha_bar, torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(found, expected, atol=0.08, rtol=0)


def test_heads_of_which_nothing_is_known_have_the_marginal(mixture):
    noised, alpha_bar = torch.ones(1, SIZE), torch.tensor([[0.4]])
    nothing = ATTRIBUTES.missing(1)
    torch.testing.assert_close(mixture(noised, alpha_bar, nothing), mixture.marginal(noised, alpha_bar))


@pytest.mark.parametrize("missing", [False, True])
def test_what_is_missing_follows_from_what_is_known(missing):
    """Against the posterior of the joint Gaussian of two correlated numbers, the code and the noised code."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(20_000, 2, generator=generator)
    values[:, 1] = 0.8 * values[:, 0] + 0.6 * values[:, 1]
    mixing = torch.tensor([[0.5, 0.0, 0.3], [0.3, 0.6, 0.0]])
    prior = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    left = (torch.eye(3) - mixing.T @ prior @ mixing).double()
    codes = values @ mixing + torch.randn(len(values), 3, generator=generator) @ torch.linalg.cholesky(left).float().T
    if missing:
        values[::2, 0], values[1::4, 1] = torch.nan, torch.nan
    attributes = Attributes((Numeric("age", 0.0, 1.0, -3.0, 3.0), Numeric("weight", 0.0, 1.0, -3.0, 3.0)))
    mixture = ConditionalMixture.fit(
        attributes, values, codes, marginal=GaussianMixture.single(torch.ones(3)), variance=torch.ones(3)
    )
    noised, alpha_bar = torch.tensor([[0.7, -1.0, 0.4]]), 0.6
    # Known are the second number and the noised code.
    cross = torch.cat([(mixing.T @ prior)[:, 1:], alpha_bar**0.5 * torch.eye(3)], dim=1)
    seen = torch.eye(4)
    seen[0, 1:] = seen[1:, 0] = alpha_bar**0.5 * (prior @ mixing)[1]
    expected = cross @ torch.linalg.solve(seen, torch.cat([torch.tensor([1.5]), noised[0]]))
    found = mixture(noised, torch.tensor([[alpha_bar]]), torch.tensor([[torch.nan, 1.5]]))
    # What missing values leave open counts twice, in the residual too.
    torch.testing.assert_close(found[0], expected, atol=0.1 if missing else 0.06, rtol=0)


def test_levels_of_other_heads_stand_for_those_of_a_head_of_which_nothing_is_known(mixture, known):
    """Each level is a Gaussian about its centre, as wide as what is left of it and the number together."""
    variances = torch.tensor([1.0, 0.5, 0.5, 1.0, 1.0, 1.0])
    means = torch.cat([torch.zeros(3, 1), CENTRES, torch.zeros(3, 3)], dim=1)
    truth = GaussianMixture(torch.full((3,), 1 / 3), means, variances.expand(3, -1), torch.eye(SIZE).expand(3, -1, -1))
    values = known[0].clone()
    values[::10, 1], values[1::10, 0] = torch.nan, torch.nan
    levels = mixture.levels_mixture(values)
    assert levels.components == 3
    noised, alpha_bar = torch.randn(32, SIZE, generator=torch.Generator().manual_seed(3)), torch.full((32, 1), 0.7)
    torch.testing.assert_close(levels(noised, alpha_bar), truth(noised, alpha_bar), atol=0.12, rtol=0)
    assert torch.equal(
        mixture.with_marginal(levels)(noised, alpha_bar, ATTRIBUTES.missing(32)), levels(noised, alpha_bar)
    )


def test_numbers_alone_are_no_levels(known):
    attributes = Attributes(ATTRIBUTES.columns[:1])
    marginal = GaussianMixture.single(torch.ones(SIZE))
    values, codes = known
    fitted = ConditionalMixture.fit(attributes, values[:, :1], codes, marginal=marginal, variance=torch.ones(SIZE))
    assert fitted.levels_mixture(values[:, :1]) is None


def test_the_spread_scales_both_parts(mixture):
    wide = mixture.with_spread(2.0)
    for values in (torch.tensor([[0.0, 0.0]]), ATTRIBUTES.missing(1)):
        torch.testing.assert_close(wide.within_variance(values), 4 * mixture.within_variance(values))


def test_the_mixture_is_restored_from_its_state(mixture):
    again = ConditionalMixture.restore(ATTRIBUTES, mixture.state_dict())
    inputs = torch.ones(1, SIZE), torch.tensor([[0.4]]), torch.tensor([[1.0, 2.0]])
    assert torch.equal(again(*inputs), mixture(*inputs))
