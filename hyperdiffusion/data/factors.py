"""Factors of a head: a person and a random generator in; hair, beard, glasses, headwear, expressions and style out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from hyperdiffusion.data.expressions import EXPRESSIONS, affect, draw_expressions
from overfit.runtime.errors import BadInput

# The levels of each factor; the first is the factor's absence.
LEVELS: dict[str, tuple[str, ...]] = {
    "hair": ("bald", "cropped", "short", "bob", "bun", "curly"),
    "beard": ("none", "stubble", "moustache", "full"),
    "glasses": ("none", "thin", "thick"),
    "headwear": ("none", "cap", "headband"),
    "ears_covered": ("no", "yes"),
    "style": ("smooth", "noisy", "lumpy"),
}
# Shares of the levels of glasses and of headwear, which are worn by some.
GLASSES_SHARES = (0.5, 0.25, 0.25)
HEADWEAR_SHARES = (0.6, 0.2, 0.2)
# Shares of the beards of those who have one.
BEARD_SHARES = (0.3, 0.3, 0.4)
# Beards grow from this age on Anny's scale, between a child (1/3) and a young adult (2/3).
BEARD_AGE = 0.5
# Share of men and of women who have a beard; on Anny's scale of gender 0 is a man and 1 a woman.
BEARDED_MEN, BEARDED_WOMEN = 0.8, 0.05
# Share of curly hair and of headbands that cover the ears.
COVERING_SHARE = 0.5
# Draws after which a combination counts as one that cannot be avoided: the rarest set of factors is drawn far earlier.
MAX_DRAWS = 100_000


@dataclass(frozen=True)
class Factors:
    """What a head wears, shows and was scanned with; by default none of it."""

    hair: str = "bald"
    """A level of LEVELS["hair"]."""
    beard: str = "none"
    """A level of LEVELS["beard"]."""
    glasses: str = "none"
    """A level of LEVELS["glasses"]."""
    headwear: str = "none"
    """A level of LEVELS["headwear"]."""
    ears_covered: str = "no"
    """Whether hair or a headband covers the ears."""
    style: str = "smooth"
    """A level of LEVELS["style"]: the traces of the scanner."""
    expressions: Mapping[str, float] = field(default_factory=dict)
    """Strengths, above 0 to 1, of the expressions shown."""

    def columns(self) -> dict[str, str | float]:
        """Return all values by name, as heads.csv has them; an expression that is not shown has strength 0."""
        strengths = {name: round(self.expressions.get(name, 0.0), 5) for name in EXPRESSIONS}
        valence, arousal = affect(self.expressions)
        levels = {name: getattr(self, name) for name in LEVELS}
        return levels | strengths | {"valence": round(valence, 5), "arousal": round(arousal, 5)}

    def names(self) -> set[str]:
        """Return the names of what is present: levels, factors at any level but their first, and expressions."""
        levels = {name: getattr(self, name) for name in LEVELS}
        present = {name for name, level in levels.items() if level != LEVELS[name][0]}
        return present | set(levels.values()) | set(self.expressions)


def draw_factors(
    rng: np.random.Generator,
    phenotype: Mapping[str, float],
    *,
    expressions: int,
    without: Sequence[frozenset[str]] = (),
) -> Factors:
    """Return random factors, drawn again until none of the withheld combinations is present.

    Hair is uniform over its levels. Half of all heads wear glasses, a fifth a cap and a fifth a headband. All factors
    are independent of each other and of the person, except for these: beards grow on adults only, on most men and few
    women; a bob covers the ears, and so do half of the curly hair and of the headbands; lumps are lumps of hair, so
    that a bald head has none.

    Args:
        rng: Source of all randomness.
        phenotype: The person's, of whom age and gender matter, on Anny's scales.
        expressions: Expressions that a head shows at once, at most.
        without: Withheld combinations, as `parse_combinations` returns them.
    """
    for _ in range(MAX_DRAWS):
        factors = _draw_once(rng, phenotype, expressions)
        if not any(combination <= factors.names() for combination in without):
            return factors
    raise BadInput("`without`: no head without these combinations was found; withhold fewer")


def _draw_once(rng: np.random.Generator, phenotype: Mapping[str, float], expressions: int) -> Factors:
    hair = str(rng.choice(LEVELS["hair"]))
    headwear = str(rng.choice(LEVELS["headwear"], p=HEADWEAR_SHARES))
    # Drawn whether it matters or not, so that what follows does not depend on it.
    covering = bool(rng.uniform() < COVERING_SHARE)
    covered = hair == "bob" or (covering and (hair == "curly" or headwear == "headband"))
    return Factors(
        hair=hair,
        headwear=headwear,
        ears_covered="yes" if covered else "no",
        glasses=str(rng.choice(LEVELS["glasses"], p=GLASSES_SHARES)),
        beard=_draw_beard(rng, phenotype),
        style=str(rng.choice(LEVELS["style"][:2] if hair == "bald" else LEVELS["style"])),
        expressions=draw_expressions(rng, expressions),
    )


def _draw_beard(rng: np.random.Generator, phenotype: Mapping[str, float]) -> str:
    bearded = BEARDED_MEN + (BEARDED_WOMEN - BEARDED_MEN) * phenotype["gender"]
    level = str(rng.choice(LEVELS["beard"][1:], p=BEARD_SHARES))
    return level if rng.uniform() < bearded and phenotype["age"] >= BEARD_AGE else "none"


def parse_combinations(texts: Sequence[str]) -> list[frozenset[str]]:
    """Return combinations such as `cap+beard` as sets of names.

    A name is a level, an expression, or a factor, which stands for any of its levels but the first.

    Raises:
        BadInput: If a name is unknown, or if every head has one of the combinations.
    """
    combinations = [frozenset(name.strip() for name in text.split("+")) for text in texts]
    known = _names()
    for text, combination in zip(texts, combinations):
        for name in sorted(combination - set(known)):
            raise BadInput(
                f"`without={text}`: {name or 'an empty name'} is unknown; join by + any of {', '.join(known)}"
            )
    least = [Factors(hair=hair, style=style) for hair, style in product(LEVELS["hair"], LEVELS["style"])]
    possible = [factors for factors in least if (factors.hair, factors.style) != ("bald", "lumpy")]
    if all(any(combination <= factors.names() for combination in combinations) for factors in possible):
        raise BadInput(f"`without`: every head has one of {', '.join(texts)}; withhold fewer")
    return combinations


def _names() -> list[str]:
    """Return all names that say what they mean: not none, no and yes."""
    levels = [level for name in LEVELS for level in LEVELS[name] if level not in ("none", "no", "yes")]
    return [*LEVELS, *levels, *EXPRESSIONS]
