"""The field against torch's own layers, and its published size."""

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from overfit import BadInput, Field


def initial(field: Field, seed: int) -> torch.Tensor:
    return field.initial(torch.Generator().manual_seed(seed))


def test_the_default_field_has_the_published_number_of_parameters():
    assert Field().size == 36_737
    assert Field().sizes == (3456, 128, 16384, 128, 16384, 128, 128, 1)


@pytest.mark.parametrize("activation, layer", [("silu", nn.SiLU), ("relu", nn.ReLU)])
@pytest.mark.parametrize("coordinates", [1, 2, 3, 4, 5])
def test_agrees_with_torch_layers_on_every_row_of_a_batch(coordinates, activation, layer):
    field = Field(coordinates=coordinates, octaves=2, hidden=(16, 8), activation=activation)
    weights = torch.stack([initial(field, seed) for seed in range(3)])
    weights += 0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(9))
    points = torch.rand(3, 50, coordinates, generator=torch.Generator().manual_seed(4)) * 2 - 1
    logits = field(weights, points)
    for row, own_points, own_logits in zip(weights, points, logits, strict=True):
        layers = [nn.Linear(5 * coordinates, 16), layer(), nn.Linear(16, 8), layer(), nn.Linear(8, 1)]
        network = nn.Sequential(*layers)
        nn.utils.vector_to_parameters(row, network.parameters())
        waves = [wave(own_points * math.pi / 2 * 2**octave) for wave in (torch.sin, torch.cos) for octave in range(2)]
        expected = network(torch.cat([own_points, *waves], dim=-1))[:, 0]
        torch.testing.assert_close(own_logits, expected)


def test_broadcasts_one_network_over_points_and_many_networks_over_the_same_points():
    field = Field(hidden=(8,))
    weights = torch.stack([initial(field, seed) for seed in range(2)])
    points = torch.rand(4, 5, 3)
    torch.testing.assert_close(field(weights[0], points)[2], field(weights[0], points[2]))
    torch.testing.assert_close(field(weights, points[0])[1], field(weights[1], points[0]))
    assert field(weights[:, None], points).shape == (2, 4, 5)


def test_points_are_scaled_to_the_box_before_they_are_encoded():
    points = torch.rand(5, 3) * 2 - 1
    encoded = Field(box=0.5, frequency=1.0).encode(points)
    torch.testing.assert_close(encoded[:, :3], points / 2)
    torch.testing.assert_close(encoded[:, 3:6], (points / 2).sin())


def test_a_description_without_an_activation_is_that_of_a_relu_network():
    plain = asdict(Field())
    assert Field.of(plain) == Field()
    del plain["activation"]
    assert Field.of(plain) == Field(activation="relu")


def test_without_octaves_only_raw_coordinates_are_encoded():
    points = torch.rand(5, 3)
    assert torch.equal(Field(octaves=0).encode(points), points)


def test_initial_weights_depend_only_on_the_seed():
    first, again, other = (initial(Field(), seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_refuses_weights_and_points_of_another_field():
    with pytest.raises(ValueError, match="36737 parameters"):
        Field()(torch.zeros(10), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="3 coordinates, the points have 4"):
        Field()(torch.zeros(Field().size), torch.zeros(1, 4))


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("coordinates", 0, "`coordinates=0`: give 1 or more"),
        ("octaves", -1, "`octaves=-1`: give 0 or more"),
        ("hidden", (32, 0), "`hidden=0`: give 1 or more"),
        ("box", 0.0, "`box=0.0`: give a number above 0"),
        ("frequency", math.nan, "`frequency=nan`: give a number above 0"),
    ],
)
def test_refuses_sizes_that_make_no_network(argument, value, message):
    with pytest.raises(BadInput, match=message):
        Field(**{argument: value})
