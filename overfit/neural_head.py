"""One head as a neural field: the network's description, its weights and its place in millimetres."""

from dataclasses import dataclass

import torch
from jaxtyping import Float

from overfit.field import Field
from overfit.geometry.bounding_cube import Cube


@dataclass(frozen=True)
class NeuralHead:
    """Everything that is needed to decode a head."""

    field: Field
    """How the weights and a point make a logit; positive is inside."""
    cube: Cube
    """The cube in millimetres that the field covers."""
    weights: Float[torch.Tensor, " P"]
    """The network's parameters in flat order."""

    def cpu(self) -> "NeuralHead":
        """Return the head with a copy of its weights in main memory, as worker processes take it."""
        # Pickling a row of a tensor would take the other rows along; a copy stands alone.
        return NeuralHead(self.field, self.cube, self.weights.detach().cpu().clone())
