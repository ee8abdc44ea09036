"""Expressions: their places in the circumplex, their strengths, and the facial actions that show them."""

import numpy as np
import pytest

from hyperdiffusion.data.expressions import CONFLICTS, EXPRESSIONS, affect, draw_expressions, facial_actions


@pytest.mark.parametrize(
    "strengths, place",
    [
        ({}, (0, 0)),
        ({"smile": 1.0}, (0.95, 0.15)),
        ({"smile": 0.5}, (0.475, 0.075)),
        ({"frown": 1.0}, (-0.6, 0.6)),
        ({"closed_eyes": 0.3}, (0, -0.3)),
        ({"sadness": 0.5, "closed_eyes": 0.2}, (-0.45, -0.35)),
        # Outside the unit disc, on its edge in the same direction.
        ({"smile": 1.0, "open_mouth": 1.0}, np.array([1.4, 1.0]) / np.hypot(1.4, 1.0)),
    ],
)
def test_valence_and_arousal_are_the_sum_of_the_documented_places(strengths, place):
    assert affect(strengths) == pytest.approx(tuple(place))


def test_places_lie_in_the_unit_disc_in_the_quadrants_of_their_adjectives():
    for expression in EXPRESSIONS.values():
        assert np.hypot(expression.valence, expression.arousal) <= 1
    quadrants = {name: (np.sign(e.valence), np.sign(e.arousal)) for name, e in EXPRESSIONS.items()}
    assert quadrants["smile"] == quadrants["open_mouth"] == (1, 1)
    assert quadrants["frown"] == quadrants["surprise"] == (-1, 1)
    assert quadrants["sadness"] == quadrants["puffed_cheeks"] == (-1, -1)


def test_numbers_and_strengths_are_uniform_and_conflicts_are_not_shown():
    rng = np.random.default_rng(0)
    drawn = [draw_expressions(rng, 2) for _ in range(1500)]
    counts = np.bincount([len(shown) for shown in drawn]) / len(drawn)
    assert counts == pytest.approx([1 / 3] * 3, abs=0.05)
    strengths = np.array([strength for shown in drawn for strength in shown.values()])
    assert strengths.min() >= 0.1 and strengths.max() <= 1 and strengths.mean() == pytest.approx(0.55, abs=0.03)
    assert not any(conflict <= set(shown) for shown in drawn for conflict in CONFLICTS)
    assert {name for shown in drawn for name in shown} == set(EXPRESSIONS)


def test_facial_actions_have_two_sides_and_the_strength_of_the_expression():
    known = ["jawOpen", "mouthSmileLeft", "mouthSmileRight", "mouthLowerDownLeft", "mouthLowerDownRight"]
    actions = facial_actions(np.random.default_rng(0), {"open_mouth": 0.5}, known)
    assert set(actions) == {"jawOpen", "mouthLowerDownLeft", "mouthLowerDownRight"}
    assert actions["jawOpen"] == pytest.approx(0.4)
    assert actions["mouthLowerDownLeft"] != actions["mouthLowerDownRight"]
