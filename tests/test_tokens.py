"""Weight tokens: nothing is lost on the store, and what is diffused has unit variance."""

import numpy as np
import torch

from hyperdiffusion.tokens import Tokens, principal_axes

SIZES = (6, 2, 40, 1)


def weights(count: int = 12) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return 3 + 0.02 * torch.randn(count, sum(SIZES), generator=random)


def test_the_store_comes_back_through_its_coordinates():
    tokens = Tokens.of(weights(), SIZES)
    torch.testing.assert_close(tokens.decode(tokens.encode(weights())), weights(), atol=1e-5, rtol=0)


def test_coordinates_have_zero_mean_and_unit_variance_in_all():
    coordinates = Tokens.of(weights(), SIZES).encode(weights())
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(coordinates.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(coordinates.square().mean(), torch.ones(()))


def test_distances_between_heads_keep_their_ratios():
    tokens = Tokens.of(weights(), SIZES)
    pairs = torch.cdist(weights().double(), weights().double())
    torch.testing.assert_close(torch.cdist(*[tokens.encode(weights()).double()] * 2) * tokens.scale.double(), pairs,
                               atol=1e-4, rtol=1e-4)


def test_a_token_has_no_more_axes_than_the_heads_can_span():
    assert Tokens.of(weights(4), SIZES).ranks == (3, 2, 3, 1)


def test_axes_are_those_of_the_covariance():
    data = np.random.default_rng(0).normal(size=(50, 5)) * [5, 4, 3, 2, 1]
    data -= data.mean(0)
    axes = principal_axes(torch.from_numpy(data)).numpy()
    values = np.linalg.eigvalsh(np.cov(data.T))[::-1]
    np.testing.assert_allclose((data @ axes.T).var(0, ddof=1), values, rtol=1e-3)


def test_a_token_that_never_changes_is_kept_as_it_is():
    same = torch.cat([weights(), torch.full((12, 3), 0.5)], dim=1)
    tokens = Tokens.of(same, (*SIZES, 3))
    assert tokens.ranks[-1] == 1
    torch.testing.assert_close(tokens.decode(tokens.encode(same)), same, atol=1e-5, rtol=0)
