"""Factors: how often each level is drawn, what never comes together, and combinations that are withheld."""

import numpy as np
import pytest

from hyperdiffusion.data.factors import LEVELS, Factors, draw_factors, parse_combinations
from overfit.runtime.errors import BadInput

MAN, WOMAN, CHILD = ({"gender": gender, "age": age} for gender, age in ((0.0, 0.7), (1.0, 0.7), (0.0, 0.4)))


def draw(count: int, phenotype=MAN, *, without: tuple[str, ...] = ()) -> list[Factors]:
    rng = np.random.default_rng(0)
    combinations = parse_combinations(without)
    return [draw_factors(rng, phenotype, expressions=2, without=combinations) for _ in range(count)]


@pytest.fixture(scope="module")
def men() -> list[Factors]:
    return draw(1500)


def share(drawn: list[Factors], **levels: str) -> float:
    return float(np.mean([all(getattr(factors, name) == level for name, level in levels.items()) for factors in drawn]))


@pytest.mark.parametrize(
    "factor, shares",
    [
        ("hair", {level: 1 / 6 for level in LEVELS["hair"]}),
        ("glasses", {"none": 0.5, "thin": 0.25, "thick": 0.25}),
        ("headwear", {"none": 0.6, "cap": 0.2, "headband": 0.2}),
        ("beard", {"none": 0.2, "stubble": 0.24, "moustache": 0.24, "full": 0.32}),
        # Half of bald heads and a third of the others are smooth.
        ("style", {"smooth": 13 / 36, "noisy": 13 / 36, "lumpy": 10 / 36}),
        # All bobs; half of curly hair, and of headbands on other hair.
        ("ears_covered", {"yes": 1 / 6 + 1 / 12 + 4 / 6 * 0.1, "no": 1 - 19 / 60}),
    ],
)
def test_levels_are_as_frequent_as_documented(men, factor, shares):
    assert {level: share(men, **{factor: level}) for level in LEVELS[factor]} == pytest.approx(shares, abs=0.04)


def test_beards_grow_on_most_men_and_few_women_and_on_no_child():
    assert share(draw(500, WOMAN), beard="none") == pytest.approx(0.95, abs=0.03)
    assert share(draw(200, CHILD), beard="none") == 1


def test_a_bob_covers_the_ears_and_a_bald_head_has_no_lumps_of_hair(men):
    assert share(men, hair="bob", ears_covered="no") == share(men, hair="bald", style="lumpy") == 0
    covered = [factors for factors in men if factors.ears_covered == "yes"]
    assert all(factors.hair in ("bob", "curly") or factors.headwear == "headband" for factors in covered)


def test_glasses_do_not_depend_on_hair(men):
    bald = [factors for factors in men if factors.hair == "bald"]
    assert share(bald, glasses="none") == pytest.approx(0.5, abs=0.1)


def test_withheld_combinations_are_never_drawn(men):
    without = ("cap+beard", "thick+smile", "bob+lumpy+glasses")
    combinations = parse_combinations(without)
    # All of them are drawn otherwise.
    assert all(any(combination <= factors.names() for factors in men[:500]) for combination in combinations)
    for factors in draw(500, without=without):
        assert not any(combination <= factors.names() for combination in combinations)
        # The same without `names`.
        assert not (factors.headwear == "cap" and factors.beard != "none")
        assert not (factors.glasses == "thick" and "smile" in factors.expressions)


def test_what_is_not_withheld_is_still_drawn():
    drawn = draw(500, without=("cap+beard",))
    assert share(drawn, headwear="cap") > 0.02 and share(drawn, beard="full") > 0.2


@pytest.mark.parametrize(
    "without, message",
    [
        (("cap+wig",), "wig is unknown.*headwear"),
        (("",), "an empty name"),
        (("hair", "bald"), "every head has one of hair, bald; withhold fewer"),
        (("smooth", "noisy", "lumpy"), "withhold fewer"),
    ],
)
def test_unknown_and_unavoidable_combinations_are_refused(without, message):
    with pytest.raises(BadInput, match=message):
        parse_combinations(without)


def test_columns_have_every_factor_every_expression_and_the_affect():
    columns = Factors(hair="bun", expressions={"smile": 0.5}).columns()
    assert list(columns)[: len(LEVELS)] == list(LEVELS) and list(columns)[-2:] == ["valence", "arousal"]
    assert columns["hair"] == "bun" and columns["smile"] == 0.5 and columns["frown"] == 0
    assert (columns["valence"], columns["arousal"]) == (0.475, 0.075)
