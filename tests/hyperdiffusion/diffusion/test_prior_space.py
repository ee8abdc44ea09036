"""A prior's latent space for heads of its own, whose codes are known; covariances of few heads, whose truth is."""

import itertools

import numpy as np
import pytest
import torch

from hyperdiffusion import Checkpoint, LatentSpaceConfig, sample
from hyperdiffusion.diffusion.prior_space import extend_latent_space, shrunk_covariance

HEADS = 6


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.shipped(torch.device("cpu"))


@pytest.fixture
def heads(checkpoint) -> torch.Tensor:
    """Samples of the model, the warps of half of them bent as none of its heads is."""
    heads = sample(checkpoint, HEADS, seed=3)
    bent = 0.02 * torch.randn(checkpoint.space.warps.size, generator=torch.Generator().manual_seed(0))
    checkpoint.space.warp_parameters(heads)[::2] += bent
    return heads


@pytest.fixture
def extended(checkpoint, heads):
    config = LatentSpaceConfig(encode_steps=60, prior_steps=3, latent_batch_size=6)
    return extend_latent_space(checkpoint.space, heads, checkpoint.coordinates, config=config)


def test_directions_are_added_for_what_the_prior_lacks(checkpoint, heads, extended):
    coordinates, codes = extended
    found = checkpoint.space.warp_parameters(coordinates.decode(codes))
    assert torch.allclose(found, checkpoint.space.warp_parameters(heads), atol=2e-4)
    # At most half as many of either part as there are heads.
    size = checkpoint.coordinates.size
    assert size < coordinates.size <= size + HEADS
    assert codes.shape == (HEADS, coordinates.size)
    assert torch.allclose(coordinates.basis @ coordinates.basis.T, torch.eye(coordinates.size), atol=1e-4)


def test_heads_that_are_cut_at_one_height_stay_so(checkpoint, heads):
    warps = checkpoint.space.warp_parameters(heads)
    warps[:, -1] = -1.0
    config = LatentSpaceConfig(encode_steps=1, prior_steps=1, latent_batch_size=6)
    coordinates, _ = extend_latent_space(checkpoint.space, heads, checkpoint.coordinates, config=config)
    drawn = coordinates.decode(torch.randn(20, coordinates.size, generator=torch.Generator().manual_seed(0)))
    assert checkpoint.space.warp_parameters(drawn)[:, -1].std() < 1e-3


def test_networks_are_close_to_the_heads_own(checkpoint, heads, extended):
    coordinates, codes = extended
    weights = checkpoint.space.weights(heads)
    decoded = checkpoint.space.weights(coordinates.decode(codes))
    points = torch.rand(HEADS, 500, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    field = checkpoint.space.field
    error = (field(decoded, points) - field(weights, points)).abs().mean()
    assert error < 0.5 * (field(weights.mean(0).expand(HEADS, -1), points) - field(weights, points)).abs().mean()


def correlated(count: int, size: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal heads with correlations, and their covariance."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((size, 4)) * rng.uniform(0.2, 1, (size, 1))
    covariance = loadings @ loadings.T + 0.3 * np.eye(size)
    codes = rng.multivariate_normal(np.zeros(size), covariance, count)
    return torch.from_numpy(codes), torch.from_numpy(covariance)


def test_the_covariance_of_many_heads_is_their_own():
    codes, covariance = correlated(5000, 10)
    assert torch.allclose(shrunk_covariance(codes, torch.ones(10)), covariance, atol=0.2)


def test_of_few_heads_variances_stay_and_correlations_shrink():
    errors = []
    for seed in range(6):
        codes, covariance = correlated(12, 40, seed=seed)
        own, shrunk = torch.cov(codes.T), shrunk_covariance(codes, torch.ones(40))
        assert torch.allclose(own.diagonal(), shrunk.diagonal())
        errors.append([float((one - covariance).norm()) for one in (shrunk, own, torch.diag(own.diagonal()))])
    shrunk_error, own_error, error_of_variances = np.mean(errors, axis=0)
    assert shrunk_error < 0.9 * own_error and shrunk_error < 0.9 * error_of_variances


def test_the_share_is_that_of_another_computation():
    codes, _ = correlated(200, 5)
    sizes = torch.rand(5, generator=torch.Generator().manual_seed(0)).double()
    # Schäfer and Strimmer (2005), section 2.4, product by product.
    centred = ((codes - codes.mean(0)) * sizes).numpy()
    above = below = 0.0
    for i, j in itertools.permutations(range(5), 2):
        products = centred[:, i] * centred[:, j]
        above += 200 / 199**3 * ((products - products.mean()) ** 2).sum()
        below += (200 / 199 * products.mean()) ** 2
    own, shrunk = torch.cov(codes.T), shrunk_covariance(codes, sizes)
    assert float(shrunk[0, 1] / own[0, 1]) == pytest.approx(1 - above / below)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_any_number_of_heads_has_a_covariance(count):
    assert torch.linalg.eigvalsh(shrunk_covariance(correlated(count, 12)[0], torch.ones(12))).min() > 0
