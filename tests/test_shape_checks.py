import pytest
import torch
from jaxtyping import TypeCheckError
from shape_checks import CHECKED_CALLS, check_again

from hyperdiffusion.diffusion.ridge import ridge

FEATURES, TARGETS = torch.randn(4, 2), torch.randn(4, 3)


def test_wrong_shapes_are_refused_in_every_test_until_its_loops_repeat():
    with pytest.raises(TypeCheckError):
        ridge(FEATURES, TARGETS[:3])
    for _ in range(CHECKED_CALLS):
        ridge(FEATURES, TARGETS)
    with pytest.raises(RuntimeError):
        ridge(FEATURES, TARGETS[:3])
    check_again()
    with pytest.raises(TypeCheckError):
        ridge(FEATURES, TARGETS[:3])
