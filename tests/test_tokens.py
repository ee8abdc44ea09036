"""Weight tokens: nothing of the store is lost, and what is diffused is white."""

import numpy as np
import torch

from hyperdiffusion.tokens import Tokens

SIZES = (6, 2, 40, 1)


def weights(count: int = 12) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return 3 + 0.02 * torch.randn(count, sum(SIZES), generator=random)


def test_the_store_comes_back_through_its_coordinates():
    tokens = Tokens.of(weights(), SIZES)
    torch.testing.assert_close(tokens.decode(tokens.encode(weights())), weights(), atol=1e-5, rtol=0)


def test_coordinates_are_white():
    coordinates = Tokens.of(weights(), SIZES).encode(weights()).double()
    assert coordinates.shape == (12, 11)
    torch.testing.assert_close(coordinates.mean(0), torch.zeros(11).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(coordinates.T @ coordinates / 12, torch.eye(11).double(), atol=1e-2, rtol=0)


def test_axes_are_those_of_the_covariance_widest_first():
    data = np.random.default_rng(0).normal(size=(50, 5)) * [1, 4, 3, 2, 5]
    tokens = Tokens.of(torch.from_numpy(data).float(), (2, 3))
    values = np.linalg.eigvalsh(np.cov(data.T, bias=True))[::-1]
    np.testing.assert_allclose(tokens.deviation.numpy() ** 2, values, rtol=1e-3)


def test_a_token_holds_what_its_stretch_of_the_weights_does():
    tokens = Tokens.of(weights(), SIZES)
    to_token, _ = tokens.views
    scale = tokens.deviation.square().mean().sqrt()
    coordinates = tokens.encode(weights())
    for stretch, view in zip((weights() - tokens.mean).split(SIZES, dim=1), to_token):
        assert view.shape[1] <= stretch.shape[1]
        # Distances between heads are the same in the token as in that stretch of their weights.
        torch.testing.assert_close(torch.cdist(coordinates @ view, coordinates @ view),
                                   torch.cdist(stretch, stretch) / scale, atol=2e-3, rtol=1e-3)


def test_tokens_together_give_the_coordinates_back():
    tokens = Tokens.of(weights(), SIZES)
    coordinates = tokens.encode(weights())
    unwhitened = sum(coordinates @ to_token @ to_axes for to_token, to_axes in zip(*tokens.views))
    scale = tokens.deviation.square().mean().sqrt()
    torch.testing.assert_close(unwhitened, coordinates * tokens.deviation / scale, atol=1e-3, rtol=1e-3)


def test_new_heads_vary_as_told_along_the_axes():
    """Five directions that all heads share, and noise of their own: the share is that of fresh heads."""
    random = torch.Generator().manual_seed(0)
    shared = torch.linalg.qr(torch.randn(400, 5, generator=random)).Q

    def heads(count: int) -> torch.Tensor:
        return torch.randn(count, 5, generator=random) * 10 @ shared.T + torch.randn(count, 400, generator=random)

    store = heads(80)
    tokens = Tokens.of(store, (400,))
    fresh = tokens.encode(heads(2000)).square().mean(0)
    assert tokens.share[:4].mean() > 0.6 and fresh[:4].mean() > 0.6
    assert (tokens.share - fresh)[8:60].abs().max() < 0.15 and fresh[8:60].mean() < 0.3
    assert tokens.share.shape == tokens.deviation.shape


def test_an_entry_that_never_changes_is_kept_as_it_is():
    same = torch.cat([weights(), torch.full((12, 3), 0.5)], dim=1)
    tokens = Tokens.of(same, (*SIZES, 3))
    torch.testing.assert_close(tokens.decode(tokens.encode(same)), same, atol=1e-5, rtol=0)
    assert tokens.views[0][-1].shape[1] >= 1
