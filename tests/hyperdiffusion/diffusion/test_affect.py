"""Expressions by valence and arousal."""

import numpy as np
import pytest

from hyperdiffusion import Attributes, Numeric, affect_request
from hyperdiffusion.data.expressions import EXPRESSIONS, affect, strengths_at
from overfit import BadInput


def attributes(*names: str) -> Attributes:
    return Attributes(tuple(Numeric(name, mean=0.0, std=1.0, low=-1.0, high=1.0) for name in names))


def test_every_place_is_shown_by_at_most_two_expressions():
    for valence, arousal in np.random.default_rng(0).uniform(-0.5, 0.5, (200, 2)):
        strengths = strengths_at(valence, arousal)
        assert sum(strength > 0 for strength in strengths.values()) <= 2
        assert affect(strengths) == pytest.approx((valence, arousal), abs=1e-6)


def test_an_expressions_own_place_shows_it_alone_and_the_middle_none():
    for name, shown in EXPRESSIONS.items():
        strengths = strengths_at(shown.valence, shown.arousal)
        assert strengths.pop(name) == pytest.approx(1, abs=0.05) and max(strengths.values()) < 0.05
    assert max(strengths_at(0.0, 0.0).values()) < 1e-9


def test_strengths_are_continuous_all_round():
    turns = np.linspace(0, 2 * np.pi, 721)
    rows = np.array([list(strengths_at(0.8 * np.cos(turn), 0.8 * np.sin(turn)).values()) for turn in turns])
    assert np.abs(np.diff(rows, axis=0)).max() < 0.03
    assert np.allclose(rows[0], rows[-1])


def test_a_model_gets_the_attributes_that_it_has():
    assert affect_request(attributes("valence", "arousal"), valence=0.7, arousal=None) == {"valence": 0.7}
    assert affect_request(attributes("age"), valence=None, arousal=None) == {}
    assert affect_request(attributes(*EXPRESSIONS), valence=0.3, arousal=0.2) == strengths_at(0.3, 0.2)
    with pytest.raises(BadInput, match="`valence`: the model has no such attribute, nor the expression smile; train"):
        affect_request(attributes("age"), valence=0.3, arousal=None)
    with pytest.raises(BadInput, match="`arousal=3`: give -1 to 1"):
        affect_request(attributes(*EXPRESSIONS), valence=0.3, arousal=3)
