"""Expressions: a random generator in; strengths, Anny's facial actions, valence and arousal out.

Every expression has a place in the circumplex of affect (Russell 1980, A circumplex model of affect), whose axes are
valence, from unpleasant to pleasant, and arousal, from sleepy to excited.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Expression:
    """An expression at full strength."""

    valence: float
    """From unpleasant, -1, to pleasant, 1."""
    arousal: float
    """From sleepy, -1, to excited, 1."""
    actions: Mapping[str, float]
    """Strengths of Anny's facial actions; a name without a side stands for Left and Right."""


# The places are those of the nearest adjectives in Russell's figure 2, rounded; the adjective is named on each line.
# Smile and closed eyes together lie between them, where Russell has content, calm and relaxed.
EXPRESSIONS: dict[str, Expression] = {
    # Happy, pleased.
    "smile": Expression(0.95, 0.15, {"mouthSmile": 1.0, "cheekSquint": 0.7, "eyeSquint": 0.4, "mouthDimple": 0.3}),
    # Astonished, excited.
    "open_mouth": Expression(0.45, 0.85, {"jawOpen": 0.8, "mouthLowerDown": 0.2}),
    # Angry, annoyed, frustrated.
    "frown": Expression(-0.6, 0.6, {"browDown": 1.0, "noseSneer": 0.5, "mouthPress": 0.6, "eyeSquint": 0.3}),
    # Sleepy, tired.
    "closed_eyes": Expression(0.0, -1.0, {"eyeBlink": 1.0}),
    # Bored, droopy: cheeks blown up to let the breath out.
    "puffed_cheeks": Expression(-0.45, -0.75, {"cheekPuff": 1.0, "mouthPress": 0.2}),
    # Alarmed, aroused.
    "surprise": Expression(-0.05, 0.95, {"browInnerUp": 1.0, "browOuterUp": 1.0, "eyeWide": 1.0}),
    # Sad, miserable, depressed.
    "sadness": Expression(-0.9, -0.3, {"mouthFrown": 1.0, "browInnerUp": 0.8, "mouthShrugLower": 0.5}),
}
# Expressions that move the same part of the face in opposite directions are not shown at once.
CONFLICTS = (
    {"smile", "sadness"},
    {"smile", "frown"},
    {"smile", "puffed_cheeks"},
    {"sadness", "puffed_cheeks"},
    {"open_mouth", "puffed_cheeks"},
    {"open_mouth", "sadness"},
    {"closed_eyes", "surprise"},
    {"frown", "surprise"},
)
# Faintest expression that is shown.
MIN_STRENGTH = 0.1
# Anny's actions with these endings come in pairs.
SIDES = ("Left", "Right")
# Standard deviation of the difference between the sides, as a share of the strength: no face is symmetric.
ASYMMETRY = 0.1


def draw_expressions(rng: np.random.Generator, most: int) -> dict[str, float]:
    """Return the strengths, MIN_STRENGTH to 1, of 0 to `most` expressions that can be shown at once.

    Every number of expressions is as frequent as any other, and so is every strength.
    """
    count = rng.integers(min(most, len(EXPRESSIONS)) + 1)
    shown: dict[str, float] = {}
    for name in rng.permutation(list(EXPRESSIONS)).tolist():
        if len(shown) < count and not any({name, other} in CONFLICTS for other in shown):
            shown[name] = float(rng.uniform(MIN_STRENGTH, 1))
    return shown


def affect(strengths: Mapping[str, float]) -> tuple[float, float]:
    """Return valence and arousal: the sum of the expressions' places, each times its strength, within the unit disc."""
    places = [
        (strength * EXPRESSIONS[name].valence, strength * EXPRESSIONS[name].arousal)
        for name, strength in strengths.items()
    ]
    place = np.sum(places, axis=0) if places else np.zeros(2)
    valence, arousal = place / max(1.0, float(np.linalg.norm(place)))
    return float(valence), float(arousal)


def strengths_at(valence: float, arousal: float) -> dict[str, float]:
    """Return the strengths of all expressions that together lie at a place: only the two next to it are shown.

    Places outside the unit disc are moved to its rim. Strengths change continuously with the place.
    """
    place = np.array([valence, arousal]) / max(1.0, float(np.hypot(valence, arousal)))
    places = {name: np.array([shown.valence, shown.arousal]) for name, shown in EXPRESSIONS.items()}
    around = sorted(places, key=lambda name: np.arctan2(*places[name][::-1]))
    strengths = dict.fromkeys(EXPRESSIONS, 0.0)
    for first, second in zip(around, around[1:] + around[:1]):
        shares = np.linalg.solve(np.stack([places[first], places[second]], axis=1), place)
        if (shares >= 0).all():
            strengths |= {first: min(1.0, float(shares[0])), second: min(1.0, float(shares[1]))}
            break
    return strengths


def facial_actions(rng: np.random.Generator, strengths: Mapping[str, float], known: list[str]) -> dict[str, float]:
    """Return the strengths, 0 to 1, of Anny's facial actions that show the expressions.

    Args:
        rng: Source of the difference between left and right.
        strengths: Strength of each expression.
        known: The names of Anny's facial actions.
    """
    actions: dict[str, float] = {}
    for expression, strength in strengths.items():
        for action, share in EXPRESSIONS[expression].actions.items():
            for label in [action] if action in known else [action + side for side in SIDES]:
                factor = 1.0 if action in known else float(rng.normal(1, ASYMMETRY))
                actions[label] = float(np.clip(actions.get(label, 0.0) + strength * share * factor, 0, 1))
    return actions
