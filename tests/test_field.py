"""The field against torch's own layers, and its published size."""

import math

import pytest
import torch
from torch import nn

from overfit import Field


def test_has_the_published_number_of_parameters():
    assert Field().size == 36_737
    assert Field().sizes == (3456, 128, 16384, 128, 16384, 128, 128, 1)


def test_agrees_with_torch_layers_on_every_row_of_a_batch():
    field = Field(octaves=2, hidden=(16, 8))
    weights = torch.stack([field.initial(torch.Generator().manual_seed(seed)) for seed in range(3)])
    weights += 0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(9))
    points = torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(4)) * 2 - 1
    logits = field(weights, points)
    for row, own_points, own_logits in zip(weights, points, logits, strict=True):
        layers = [nn.Linear(15, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1)]
        network = nn.Sequential(*layers)
        nn.utils.vector_to_parameters(row, network.parameters())
        waves = [wave(own_points * math.pi / 2 * 2**octave) for wave in (torch.sin, torch.cos) for octave in range(2)]
        expected = network(torch.cat([own_points, *waves], dim=-1))[:, 0]
        torch.testing.assert_close(own_logits, expected)


def test_broadcasts_one_network_over_points_and_many_networks_over_the_same_points():
    field = Field(hidden=(8,))
    weights = torch.stack([field.initial(torch.Generator().manual_seed(seed)) for seed in range(2)])
    points = torch.rand(4, 5, 3)
    torch.testing.assert_close(field(weights[0], points)[2], field(weights[0], points[2]))
    torch.testing.assert_close(field(weights, points[0])[1], field(weights[1], points[0]))
    assert field(weights[:, None], points).shape == (2, 4, 5)


def test_initial_weights_depend_on_the_seed_alone():
    first, again, other = (Field().initial(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_refuses_weights_of_another_field():
    with pytest.raises(ValueError, match="36737 parameters"):
        Field()(torch.zeros(10), torch.zeros(1, 3))
