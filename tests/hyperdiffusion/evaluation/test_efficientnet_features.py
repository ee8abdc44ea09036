"""Features by the pretrained network, where its packages are installed."""

import sys

import numpy as np
import pytest
import torch
from support import ellipsoid

from hyperdiffusion.evaluation import efficientnet_features as module

needs_network = pytest.mark.skipif(not module.efficientnet_is_installed(), reason="needs the extra `evaluation`")


@needs_network
def test_features_tell_heads_apart_and_are_reproducible():
    head, other = ellipsoid((75, 110, 90)), ellipsoid((90, 110, 75))
    first, second, copy = module.efficientnet_features([head, other, head])
    assert first.shape == (1280,) and (first >= 0).all() and first.std() > 0.01
    np.testing.assert_array_equal(first, copy)
    assert not np.allclose(first, second, atol=0.01)


@needs_network
def test_a_head_without_a_surface_has_the_features_of_an_empty_image():
    empty, far = module.efficientnet_features([None, ellipsoid((10, 10, 10)).apply_translation((5000, 0, 0))])
    np.testing.assert_array_equal(empty, far)


@needs_network
def test_the_network_has_its_trained_weights_and_draws_no_random_numbers():
    module._trained_convolutions.cache_clear()
    state = torch.random.get_rng_state()
    network = module._trained_convolutions().__self__
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not network.training and all(not one.is_meta for one in [*network.parameters(), *network.buffers()])
    # A trained stem has filters for edges, and batch statistics.
    assert network.get_buffer("_bn0.running_var").std() > 0.1


@pytest.mark.parametrize("package", module.PACKAGES)
def test_a_missing_package_is_noticed(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert not module.efficientnet_is_installed()
