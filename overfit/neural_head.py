"""One head as a neural field, and what all heads of a store share: a row of parameters in, a head that decodes out.

parameters (S,) = warp (W,), weights (P,)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

from overfit.canonical.warp import Warp, WarpSpace
from overfit.field import Field
from overfit.geometry.bounding_cube import Cube


@dataclass(frozen=True)
class NeuralHead:
    """Everything that is needed to decode a head."""

    field: Field
    """How the weights and a point make a logit; positive is inside."""
    cube: Cube
    """The cube in millimetres that the field covers, in canonical space."""
    weights: Float[torch.Tensor, " P"]
    """The network's parameters in flat order."""
    warp: Warp | None = None
    """From canonical space to the head; None if the head lies in canonical space as it is."""

    def cpu(self) -> "NeuralHead":
        """Return the head with a copy of its weights in main memory, as worker processes take it."""
        # Pickling a row of a tensor would take the other rows along; a copy stands alone.
        return NeuralHead(self.field, self.cube, self.weights.detach().cpu().clone(), self.warp)


@dataclass(frozen=True)
class HeadSpace:
    """What all heads of a store or a model share: how a row of parameters is read."""

    field: Field
    """The network of all heads."""
    cube: Cube
    """The cube in millimetres that it covers, in canonical space."""
    warps: WarpSpace = WarpSpace()
    """How heads are warped."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "HeadSpace":
        """Return the space that `dataclasses.asdict` turned into a dictionary, also after a way through JSON."""
        warps = WarpSpace.of(plain["warps"]) if "warps" in plain else WarpSpace()
        return cls(Field.of(plain["field"]), Cube.of(plain["cube"]), warps)

    @property
    def size(self) -> int:
        """S, the number of parameters of a head: of its warp and its network."""
        return self.warps.size + self.field.size

    @property
    def token_sizes(self) -> tuple[int, ...]:
        """Parameters of each token: weight and bias of each layer, and the warp with the first layer's weight."""
        first, *others = self.field.sizes
        return (self.warps.size + first, *others)

    def weights(self, parameters: Float[torch.Tensor, "*heads S"]) -> Float[torch.Tensor, "*heads P"]:
        """Return the networks' part of parameters."""
        return parameters[..., self.warps.size :]

    def warp_parameters(self, parameters: Float[torch.Tensor, "*heads S"]) -> Float[torch.Tensor, "*heads W"]:
        """Return the warps' part of parameters."""
        return parameters[..., : self.warps.size]

    def head(self, parameters: Float[torch.Tensor, " S"]) -> NeuralHead:
        """Return the head of a row of parameters; a warp that folds is smoothed until it does not."""
        warp = self.warps.warp(self.warp_parameters(parameters))
        return NeuralHead(
            self.field, self.cube, self.weights(parameters), None if warp is None else warp.unfolded(self.cube)
        )
