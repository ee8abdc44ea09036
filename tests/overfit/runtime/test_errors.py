"""Bounds on arguments."""

import math

import pytest

from overfit.runtime.errors import BadInput, require_at_least, require_between


def test_arguments_in_their_bounds_pass():
    require_at_least(1, count=1, frames=7)
    require_between(0, 1, share=0.0, eta=1)


def test_the_message_names_the_first_bad_argument_and_the_remedy():
    with pytest.raises(BadInput, match="^`count=0`: give 1 or more$"):
        require_at_least(1, frames=3, count=0)
    with pytest.raises(BadInput, match="^`eta=1.5`: give 0 to 1$"):
        require_between(0, 1, share=0.5, eta=1.5)


def test_what_is_not_a_number_is_refused():
    with pytest.raises(BadInput, match="lr=nan"):
        require_at_least(0, lr=math.nan)
    with pytest.raises(BadInput, match="lr=nan"):
        require_between(0, 1, lr=math.nan)
