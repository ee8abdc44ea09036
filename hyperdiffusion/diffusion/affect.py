"""Expressions by their place in the circumplex of affect: valence and arousal in; attributes to request out."""

from hyperdiffusion.data.expressions import EXPRESSIONS, strengths_at
from hyperdiffusion.diffusion.attributes import Attributes, Request
from overfit.runtime.errors import BadInput, require_between

# Names of the attributes that span the circumplex.
VALENCE, AROUSAL = "valence", "arousal"


def affect_request(attributes: Attributes, *, valence: float | None, arousal: float | None) -> Request:
    """Return what to request of a model for an expression of this valence and arousal, each from -1 to 1.

    A model with attributes of these names gets them as they are. One with the expressions of synthetic heads gets
    the strengths of the two expressions next to the place, and 0 for all others; what is None counts as 0.

    Raises:
        BadInput: If the model has neither, or a number is out of range.
    """
    given = {name: value for name, value in ((VALENCE, valence), (AROUSAL, arousal)) if value is not None}
    if all(name in attributes.names for name in given):
        return dict(given)
    if missing := [name for name in EXPRESSIONS if name not in attributes.names]:
        raise BadInput(
            f"`{next(iter(given))}`: the model has no such attribute, nor the expression {missing[0]}; train one with "
            f"the columns {VALENCE} and {AROUSAL}, or {', '.join(EXPRESSIONS)}"
        )
    require_between(-1, 1, **given)
    return dict(strengths_at(valence or 0.0, arousal or 0.0))
