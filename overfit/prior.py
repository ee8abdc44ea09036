"""What fits may start from besides the first fit: a model of other heads. Labels of scans in; weights out.

Stage 1 knows of the model no more than this; stage 2 makes one of a checkpoint.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from overfit.labels import LabelBatch
from overfit.neural_head import HeadSpace


@runtime_checkable
class FitPrior(Protocol):
    """A model of other heads, in whose space a store's fits lie then."""

    @property
    def space(self) -> HeadSpace:
        """The space of all its heads."""

    @property
    def digest(self) -> str:
        """What tells it from other models."""

    @property
    def mean(self) -> Float[torch.Tensor, " P"]:
        """The weights of its mean head."""

    def nearest(self, labels: LabelBatch, *, mean: Float[torch.Tensor, " P"]) -> Float[torch.Tensor, "scans P"]:
        """Return the weights that agree best with scans' labels among those that its heads had with another mean."""
