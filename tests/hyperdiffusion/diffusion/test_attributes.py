"""Attributes: what becomes of values, of missing ones, and of requests."""

import json

import pytest
import torch

from hyperdiffusion import Attributes, Categorical, Numeric
from hyperdiffusion.diffusion.attribute_card import attribute_card
from overfit import BadInput

ATTRIBUTES = Attributes((Numeric("age", 0.5, 0.25, 0.0, 1.0), Categorical("glasses", ("none", "thin"), (0.75, 0.25))))


def test_features_are_standardised_and_centred_and_zero_where_values_are_missing():
    values = torch.tensor([[1.0, 1.0], [0.5, 0.0], [torch.nan, torch.nan]])
    expected = torch.tensor([[2.0, -0.75, 0.75], [0.0, 0.25, -0.25], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(ATTRIBUTES.features(values), expected)


def test_features_lead_back_to_their_values():
    values = torch.tensor([[0.3, 1.0], [0.9, 0.0]])
    torch.testing.assert_close(ATTRIBUTES.values(ATTRIBUTES.features(values)), values)


def test_attributes_survive_json():
    assert Attributes.of(json.loads(json.dumps(ATTRIBUTES.to_json()))) == ATTRIBUTES


def test_the_example_on_the_card_can_be_pasted_into_a_shell():
    attributes = Attributes((Numeric("shoe size", 40.0, 2.0, 35.0, 48.0),))
    assert "--checkpoint model.safetensors --set 'shoe size=48'`" in attribute_card(attributes, "model.safetensors")


def test_a_request_leaves_the_rest_missing():
    values = ATTRIBUTES.parse({"glasses": "thin"})
    assert values[0].isnan() and values[1] == 1
    # A little outside of what training heads have is no error.
    assert ATTRIBUTES.parse({"age": "1.02"})[0] == pytest.approx(1.02)


@pytest.mark.parametrize(
    "low, high, text", [(1950, 2001, "1950 to 2001"), (-0.9, 0.8, "-0.9 to 0.8"), (1e6, 1.25e6, "1000000 to 1250000")]
)
def test_ranges_have_as_many_digits_as_they_need(low, high, text):
    assert Numeric("year", (low + high) / 2, 1.0, low, high).allowed == f"a number from {text}"


@pytest.mark.parametrize(
    "request_, message",
    [
        ({"hair": "long"}, "hair: the model has no attribute of this name; give one of age, glasses"),
        ({"age": "2"}, "age=2: give a number from 0 to 1"),
        ({"age": "old"}, "age=old: give a number from 0 to 1"),
        ({"age": "nan"}, "age=nan: give a number"),
        ({"glasses": "round"}, "glasses=round: give one of none, thin"),
    ],
)
def test_impossible_requests_are_refused_with_what_is_possible(request_, message):
    with pytest.raises(BadInput, match=message):
        ATTRIBUTES.parse(request_)
