"""The distribution that training starts from."""

import pytest
import torch

from hyperdiffusion.diffusion.independent_components import IndependentComponents
from hyperdiffusion.diffusion.marginal import Marginal, restore_marginal, select_marginal
from hyperdiffusion.diffusion.mixture import GaussianMixture

SIZE = 8


def codes(kind: str, heads: int, seed: int) -> torch.Tensor:
    """White codes: three binary factors, two clusters, or one Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(heads, SIZE, generator=generator)
    signs = torch.randint(2, (heads, 3), generator=generator) * 2.0 - 1
    if kind == "factors":
        noise[:, :3] = 0.2 * noise[:, :3] + 0.96**0.5 * signs
    elif kind == "clusters":
        # In all coordinates, so that no rotation makes them independent.
        noise = 0.5 * noise + 0.75**0.5 * signs[:, :1]
    return noise @ torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(9)))[0]


def selected(kind: str, independent: bool = True) -> Marginal:
    validation = codes(kind, 400, seed=2)
    alpha_bar = torch.full((len(validation), 1), 0.7)
    noise = torch.randn(validation.shape, generator=torch.Generator().manual_seed(3))
    noised = alpha_bar.sqrt() * validation + (1 - alpha_bar).sqrt() * noise

    def loss(distribution: Marginal) -> float:
        return float((distribution(noised, alpha_bar) - validation).square().mean())

    found, lowest = select_marginal(
        codes(kind, 1000, seed=1),
        std=torch.ones(SIZE),
        variance=torch.ones(SIZE),
        max_components=2,
        independent=independent,
        margin=0.01,
        loss=loss,
    )
    assert lowest == loss(found)
    return found


@pytest.mark.parametrize("kind, components", [("gaussian", 1), ("clusters", 2)])
def test_few_gaussians_are_a_mixture(kind, components):
    found = selected(kind)
    assert isinstance(found, GaussianMixture) and found.components == components


def test_factors_are_independent_components_unless_these_are_ruled_out():
    found = selected("factors")
    assert isinstance(found, IndependentComponents) and found.components == 3
    assert isinstance(selected("factors", independent=False), GaussianMixture)


@pytest.mark.parametrize("kind", ["clusters", "factors"])
def test_what_is_restored_is_what_was_saved(kind):
    found = selected(kind)
    restored = restore_marginal(found.state_dict())
    assert type(restored) is type(found)
    noised, alpha_bar = codes(kind, 10, seed=4), torch.full((10, 1), 0.5)
    assert torch.equal(restored(noised, alpha_bar), found(noised, alpha_bar))
    with pytest.raises(KeyError):
        restore_marginal({})
