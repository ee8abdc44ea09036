"""Coordinates: nothing of the store is lost, and latent coordinates are white."""

import numpy as np
import pytest
import torch

from hyperdiffusion.diffusion.coordinates import LatentCoordinates, WeightCoordinates

SIZES = (6, 2, 40, 1)


def weights(count: int = 12) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return 3 + 0.02 * torch.randn(count, sum(SIZES), generator=random)


def test_the_store_comes_back_through_its_coordinates():
    coordinates = LatentCoordinates.from_weights(weights(), SIZES)
    torch.testing.assert_close(coordinates.decode(coordinates.encode(weights())), weights(), atol=1e-5, rtol=0)


def test_latent_coordinates_are_white():
    codes = LatentCoordinates.from_weights(weights(), SIZES).encode(weights()).double()
    assert codes.shape == (12, 11)
    torch.testing.assert_close(codes.mean(0), torch.zeros(11).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(codes.T @ codes / 12, torch.eye(11).double(), atol=1e-2, rtol=0)


def test_the_basis_is_that_of_the_covariance_in_order_of_variance():
    data = np.random.default_rng(0).normal(size=(50, 5)) * [1, 4, 3, 2, 5]
    coordinates = LatentCoordinates.from_weights(torch.from_numpy(data).float(), (2, 3))
    values = np.linalg.eigvalsh(np.cov(data.T, bias=True))[::-1]
    np.testing.assert_allclose(coordinates.std.numpy() ** 2, values, rtol=1e-3)


def test_a_token_has_the_distances_of_its_slice_of_the_weights():
    coordinates = LatentCoordinates.from_weights(weights(), SIZES)
    to_token, _ = coordinates.token_maps
    scale = coordinates.std.square().mean().sqrt()
    codes = coordinates.encode(weights())
    for block, view in zip((weights() - coordinates.mean).split(SIZES, dim=1), to_token):
        assert view.shape[1] <= block.shape[1]
        # Distances between heads are the same in the token as in that block of their weights.
        torch.testing.assert_close(
            torch.cdist(codes @ view, codes @ view), torch.cdist(block, block) / scale, atol=2e-3, rtol=1e-3
        )


def test_tokens_together_give_the_coordinates_back():
    coordinates = LatentCoordinates.from_weights(weights(), SIZES)
    codes = coordinates.encode(weights())
    unwhitened = sum(codes @ to_token @ from_token for to_token, from_token in zip(*coordinates.token_maps))
    scale = coordinates.std.square().mean().sqrt()
    torch.testing.assert_close(unwhitened, codes * coordinates.std / scale, atol=1e-3, rtol=1e-3)


def test_the_variance_ratio_is_that_of_unseen_heads():
    """Five directions that all heads share, and noise of their own."""
    random = torch.Generator().manual_seed(0)
    shared = torch.linalg.qr(torch.randn(400, 5, generator=random)).Q

    def heads(count: int) -> torch.Tensor:
        return torch.randn(count, 5, generator=random) * 10 @ shared.T + torch.randn(count, 400, generator=random)

    store = heads(80)
    coordinates = LatentCoordinates.from_weights(store, (400,))
    fresh = coordinates.encode(heads(2000)).square().mean(0)
    assert coordinates.variance_ratio[:4].mean() > 0.6 and fresh[:4].mean() > 0.6
    assert (coordinates.variance_ratio - fresh)[8:60].abs().max() < 0.15 and fresh[8:60].mean() < 0.3
    assert coordinates.variance_ratio.shape == coordinates.std.shape


def test_an_entry_that_never_changes_is_kept():
    same = torch.cat([weights(), torch.full((12, 3), 0.5)], dim=1)
    coordinates = LatentCoordinates.from_weights(same, (*SIZES, 3))
    torch.testing.assert_close(coordinates.decode(coordinates.encode(same)), same, atol=1e-5, rtol=0)
    assert coordinates.token_maps[0][-1].shape[1] >= 1


def test_scaled_weights_have_unit_variance_over_all_entries_and_raw_ones_are_unchanged():
    scaled = WeightCoordinates.scaled(weights(), SIZES)
    codes = scaled.encode(weights())
    torch.testing.assert_close(codes.mean(0), torch.zeros(49), atol=1e-4, rtol=0)
    assert float(codes.square().mean()) == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(scaled.decode(codes), weights())
    assert torch.equal(WeightCoordinates.raw(SIZES).encode(weights()), weights())
